"""The hidden folder beside a target in which an artefact is written, and what is left of one whose writer was killed.

`.NAME.draft-PID/` holds the lock file, `new/` (what is being written) and, while a folder is replaced, `old/`. The lock
is held as long as the writer lives: a process number would be a stranger's in another container.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from xt.core.errors import XtError
from xt.core.files.own_files import open_own, open_own_folder

LOCK = "xt-draft"
"""The file that the writer holds locked; what it says is `MARK`."""
MARK = b"written by xt; removed when its writer has ended\n"
NEW, OLD = "new", "old"


def make(target: Path) -> tuple[Path, int]:
    """Make the folder in which a draft is written beside its target, and hold its lock: both are returned."""
    for number in range(1000):
        name = f".{target.name}.draft-{os.getpid()}" + (f"-{number}" if number else "")
        folder = target.parent / name
        try:
            folder.mkdir()
        except FileExistsError:  # a dead writer's of the same number, which sweeping left, or nobody's
            continue
        return folder, _lock(folder)
    raise XtError(f"{target.parent} holds a thousand drafts of {target.name}.", "Remove what is left of killed runs.")


def _lock(folder: Path) -> int:
    handle = None
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # a file system without locks: then nobody sweeps there either
            pass
        os.write(handle, MARK)  # after the lock: a sweep takes no folder whose file is empty
        return handle
    except OSError:
        if handle is not None:
            os.close(handle)
            (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()
        raise


def sweep(target: Path, remove: Callable[[Path], bool]) -> None:
    """Remove the drafts of `target` whose writers are dead (killed before they could clean up).

    A writer killed between the two renames of a replacement left the old folder aside: it is put back. A folder of such
    a name that xt did not write, or that another user did, stays.

    Args:
        target: the folder that was to be written.
        remove: removes what xt wrote of a folder, and says whether it is gone.
    """
    try:
        names = os.listdir(target.parent)
    except OSError:  # it is not there yet, or its list is not for this user
        return
    pattern = re.compile(re.escape(f".{target.name}.draft-") + r"\d+(-\d+)?")
    for folder in [target.parent / n for n in names if pattern.fullmatch(n)]:
        handle = _dead(folder)
        if handle is None:
            continue
        try:
            old = folder / OLD
            if os.path.lexists(old) and not os.path.lexists(target):
                old.rename(target)
            shutil.rmtree(folder / NEW, ignore_errors=True)
            if remove(old):
                (folder / LOCK).unlink(missing_ok=True)
                folder.rmdir()
        except OSError:  # what is left is tried again by the next writer
            pass
        finally:
            os.close(handle)


def _dead(folder: Path) -> int | None:
    """Return the lock of a draft's folder that is xt's, this user's, and nobody's who lives; None for any other."""
    try:
        place = open_own_folder(folder)
    except OSError:
        return None
    try:
        handle = open_own(LOCK, os.O_RDWR, dir_fd=place)
        try:
            if os.read(handle, 200) == MARK:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return handle
        except OSError:
            pass
        os.close(handle)
    except OSError:
        pass
    finally:
        os.close(place)
    return None


def end(folder: Path, handle: int) -> None:
    """Remove a draft's folder when its writer is done with it, and let its lock go.

    It stays while it holds a folder that was replaced and could not be removed whole.
    """
    shutil.rmtree(folder / NEW, ignore_errors=True)
    try:
        if not os.path.lexists(folder / OLD):
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()
    except OSError:
        pass
    os.close(handle)


def held_open(name: str) -> bool:
    """Return whether a file's name is what a network file system keeps of one that was removed while it was open."""
    return Path(name).name.startswith(".nfs")


def aside(made: Path, target: Path) -> Path:
    """Move a complete folder beside the target, under a name that nobody has, which is returned."""
    for number in range(2, 1000):
        place = target.with_name(f"{target.name}-{number}")
        if not os.path.lexists(place):
            made.rename(place)
            return place
    raise XtError(f"{target.parent} holds a thousand folders {target.name}-N.", "Remove some.")
