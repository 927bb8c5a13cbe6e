"""The server's processes and what they leave behind: scratch folders, shared memory, compiled code."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import signal
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from xt.core.files.own_files import open_own, open_own_folder
from xt.core.files.replacing import BYTECODE, MANIFEST, remove
from xt.serve.triton.server_state import process_start

SCRATCH = "xt-triton-"
LOCK = "lock"
PREFIX = re.compile(r"xt[1-9][0-9]{0,9}p[0-9a-f]{8}")
"""Of the names of a server's shared memory: the number of the process that started it, and eight random digits."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - POSIX shared memory lives there


@dataclass(frozen=True)
class ModelProcess:
    """One process of a model: Triton's Python backend has one for each instance."""

    pid: int
    model: str
    started: int

    def alive(self) -> bool:
        """Return whether it still runs."""
        return process_start(self.pid) == self.started


def model_processes(prefix: str) -> list[ModelProcess]:
    """Find the live model processes of the server whose shared memory has names with `prefix`."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if folder.stat().st_uid != os.geteuid():  # whose names say nothing
                continue
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

    The child must have read its options already. The kernel lets a parent do this unless it is set otherwise
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


def new_prefix() -> str:
    """Return the beginning of the names of a new server's shared memory."""
    return f"xt{os.getpid()}p{secrets.token_hex(4)}"


def new_scratch(prefix: str) -> tuple[tempfile.TemporaryDirectory[str], int]:
    """Make a server's scratch folder, with a lock file that names its shared memory; returns it and the lock's handle.

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
    """Remove what servers left behind that were killed together with the process that started them.

    Everybody can write into the temporary folder. Only a folder of this user's with a lock file of this user's is
    looked into, no link is followed, nothing waits for a pipe, and the lock file must hold a prefix and nothing else.
    """
    swept = []
    temporary = Path(tempfile.gettempdir())
    for folder in [temporary / name for name in sorted(os.listdir(temporary)) if name.startswith(SCRATCH)]:
        prefix = _dead_prefix(folder)
        if prefix is None:
            continue
        end_orphans(prefix)
        remove_shared_memory(prefix)
        shutil.rmtree(folder, ignore_errors=True)
        swept.append(folder)
    return swept


def end_orphans(prefix: str) -> list[ModelProcess]:
    """End the model processes with this prefix whose server is gone; return them.

    One whose server is killed while it loads waits for ever, with all its memory, on a lock that the two share.
    """
    orphans = [p for p in model_processes(prefix) if not _has_server(p.pid) and p.alive()]
    for process in orphans:
        with contextlib.suppress(OSError):
            os.kill(process.pid, signal.SIGKILL)
    return orphans


def _has_server(pid: int) -> bool:
    """Return whether the parent of a process is a Triton server, which ends its model processes itself."""
    try:
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        return Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")[0].endswith(b"tritonserver")
    except (OSError, IndexError):
        return False


def _dead_prefix(folder: Path) -> str | None:
    """Return the prefix that a scratch folder of a dead server names; None for any other folder."""
    try:
        place = open_own_folder(folder)
    except OSError:  # another user's, or not ours at all
        return None
    try:
        handle = open_own(LOCK, os.O_RDWR, dir_fd=place)
        try:
            found = PREFIX.fullmatch(os.read(handle, 200).decode("ascii", errors="replace"))
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(handle)
    except OSError:  # not ours, or its server lives
        return None
    finally:
        os.close(place)
    return found[0] if found else None


def remove_bytecode(repository: Path) -> None:
    """Remove the compiled code beside the models' own: no manifest lists it, and it would run unchecked.

    Triton's Python writes it at each load, since it heeds no PYTHON* variables. Links are not followed, and only what
    Python makes of a `model.py` is removed.
    """
    for model in repository.iterdir():
        for version in _folders(model) if (model / MANIFEST).is_file() else []:  # else it is not xt's
            cache = version / "__pycache__"
            if cache.is_dir() and not cache.is_symlink() and (version / "model.py").is_file():
                # a repository that cannot be written holds none of ours
                remove(cache, lambda name: BYTECODE.fullmatch(f"__pycache__/{name}") is not None)


def _folders(folder: Path) -> list[Path]:
    """List the folders in a folder, links left out."""
    return [p for p in folder.iterdir() if p.is_dir() and not p.is_symlink()]


def close_shared_memory(prefix: str) -> int:
    """Close the shared memory of the server with this prefix to other users; return how many files were open."""
    opened = 0
    for name in os.listdir(SHARED_MEMORY):
        file = SHARED_MEMORY / name
        try:
            about = file.lstat()
            own = name.startswith(prefix) and stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid()
            if own and about.st_mode & 0o077:
                file.chmod(0o600)
                opened += 1
        except OSError:  # it is gone
            pass
    return opened


def remove_shared_memory(prefix: str) -> None:
    """Remove the shared memory of the server with this prefix, as far as it is this user's."""
    if not PREFIX.fullmatch(prefix):  # never everybody's
        return
    for name in os.listdir(SHARED_MEMORY):
        if not name.startswith(prefix):
            continue
        file = SHARED_MEMORY / name
        try:
            about = file.lstat()
            if stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid():
                file.unlink()
        except OSError:
            continue
