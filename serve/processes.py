"""The server's processes and what they leave behind: scratch folders, shared memory, compiled code."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from xt.core.server_state import process_start

SCRATCH = "xt-triton-"
LOCK = "lock"


@dataclass(frozen=True)
class ModelProcess:
    """One process of a model: Triton's Python backend has one for each instance."""

    pid: int
    model: str
    started: int

    def alive(self) -> bool:
        """Whether it still runs."""
        return process_start(self.pid) == self.started


def model_processes(prefix: str) -> list[ModelProcess]:
    """Find the live model processes of the server whose shared memory has names with `prefix`."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if len(words) > 2 and words[0].endswith(b"python_backend_stub") and words[2].startswith(prefix.encode()):
            started = process_start(int(folder.name))
            if started is not None:  # <model>/<version>/model.py
                found.append(ModelProcess(int(folder.name), Path(os.fsdecode(words[1])).parent.parent.name, started))
    return found


def hide_from_process_list(pid: int, secret: str) -> bool:
    """Overwrite `secret` in a child's command line, which every user of the machine can read; whether it worked.

    The child must have read its options already. The kernel lets a parent do this unless it is told otherwise
    (Yama's ptrace_scope 2 and 3).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            memory.seek(start)
            words = memory.read(end - start) or b""
            place = words.find(secret.encode())
            while place >= 0:
                memory.seek(start + place)
                memory.write(b"*" * len(secret))
                place = words.find(secret.encode(), place + len(secret))
        return secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return False


def new_scratch(prefix: str) -> tuple[tempfile.TemporaryDirectory[str], int]:
    """Make a server's scratch folder, with a lock file that names its shared memory; gives it and the lock's handle.

    The handle is passed on to the server: the lock holds until the last process that uses the folder has ended.
    """
    scratch = tempfile.TemporaryDirectory(prefix=SCRATCH)
    file = Path(scratch.name) / LOCK
    draft = file.with_name(f".{LOCK}")
    draft.write_text(prefix)
    handle = os.open(draft, os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    draft.rename(file)  # a sweep never sees a lock file that is not held
    return scratch, handle


def sweep() -> list[Path]:
    """Remove what servers left behind that were killed together with the process that started them."""
    swept = []
    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        try:
            handle = os.open(folder / LOCK, os.O_RDWR)
        except OSError:  # another user's, or not ours at all
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            prefix = os.read(handle, 200).decode(errors="replace")
        except BlockingIOError:
            continue
        finally:
            os.close(handle)
        remove_shared_memory(prefix)
        shutil.rmtree(folder, ignore_errors=True)
        swept.append(folder)
    return swept


def remove_bytecode(repository: Path) -> None:
    """Remove the compiled code beside the models' own: no manifest lists it, and it would run unchecked.

    Triton's Python writes it at each load, since it heeds no PYTHON* variables.
    """
    for folder in repository.glob("*/*/__pycache__"):
        shutil.rmtree(folder, ignore_errors=True)  # a repository that cannot be written holds none of ours


def close_shared_memory(prefix: str) -> int:
    """Close the shared memory of the server with this prefix to other users; return how many files were open."""
    opened = 0
    for file in Path("/dev/shm").glob(f"*{prefix}*"):  # noqa: S108 - POSIX shared memory lives there
        try:
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)
                opened += 1
        except OSError:  # it is gone
            pass
    return opened


def remove_shared_memory(prefix: str) -> None:
    """Remove the shared memory of the server with this prefix."""
    if len(prefix) < 12:  # never everybody's
        return
    for file in Path("/dev/shm").glob(f"*{prefix}*"):  # noqa: S108 - POSIX shared memory lives there
        file.unlink(missing_ok=True)
