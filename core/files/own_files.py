"""Files that must be one's own: opened only if they are regular, no links, and this user's; copied, never linked."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from pathlib import Path

MOST_BYTES = 1 << 20
FICLONE = 0x40049409
"""The request (linux/fs.h) that gives a file the blocks of another, to be copied when either is written to."""


def open_own(name: str | Path, flags: int = os.O_RDONLY, *, dir_fd: int | None = None) -> int:
    """Return the handle of a file that exists, opened.

    A link is not followed, a pipe is not waited for. Raises OSError where it is not there, and PermissionError where
    it is no regular file, another user's, or has a second name.

    Args:
        name: the file; with `dir_fd` relative to that folder.
        flags: as `os.open` takes them.
        dir_fd: handle of a folder.
    """
    handle = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    about = os.fstat(handle)
    if stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid() and about.st_nlink == 1:
        return handle
    os.close(handle)
    raise PermissionError(f"{name} is no regular file of this user")


def open_own_folder(path: Path) -> int:
    """Return the handle of a folder, opened; OSError where it is a link, no folder, or another user's."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if os.fstat(handle).st_uid == os.geteuid():
        return handle
    os.close(handle)
    raise PermissionError(f"{path} is another user's")


def read_own(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a file that `open_own` opens, its first `most` bytes."""
    handle = open_own(path)
    with os.fdopen(handle, "rb") as file:
        return file.read(most)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file to a new one of its own inode; its blocks are shared until they change, where that is possible."""
    with source.open("rb") as read, target.open("xb") as written:
        try:
            fcntl.ioctl(written, FICLONE, read.fileno())
        except OSError:  # another disk, or a file system without shared blocks
            shutil.copyfileobj(read, written, 1 << 20)
