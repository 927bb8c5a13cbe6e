"""The folder in which xt keeps what it made once: where it is, and the errors when it cannot be used.

What a command cannot do without (the bundled encoder, prepared training data) is an error that names XT_CACHE. What is
kept for convenience alone (vectors of a second evaluation, a server's state) is done without, and that is reported.
"""

from __future__ import annotations

import os
import pwd
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xt.core.errors import XtError, explain_os_error

VARIABLE = "XT_CACHE"
HINT = f"Name a folder that can be written to by {VARIABLE}."


def cache_folder() -> Path:
    """Return where xt keeps what it built once, an absolute path; the folder itself may not be there yet.

    It is `XT_CACHE`; else `xt` in `XDG_CACHE_HOME`, where that is an absolute path, or in `~/.cache`. A user without a
    home (no HOME, and no entry in the list of users) gets a folder of their own among the temporary ones.

    Raises XtError where that one is not this user's alone.
    """
    if named := os.environ.get(VARIABLE):
        return Path(os.path.abspath(os.path.expanduser(named)))
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):  # relative ones are to be ignored, says the specification
        return Path(given) / "xt"
    home = os.environ.get("HOME") or _home_of_user()
    if os.path.isabs(home):
        return Path(home) / ".cache" / "xt"
    return _temporary()


def _home_of_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:  # a number without an entry, as containers are run with
        return ""


def _temporary() -> Path:
    """Return this user's folder among the temporary ones; XtError where somebody else made one of its name."""
    folder = Path(tempfile.gettempdir()) / f"xt-cache-{os.geteuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
    except OSError as error:
        raise XtError(f"There is no home, and {folder} cannot be made: {error.strerror}.", HINT) from error
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o022:
        raise XtError(f"There is no home, and {folder} is not yours alone.", HINT)
    return folder


def explain(error: Exception) -> XtError:
    """Return the error for a cache that cannot be used, which names `XT_CACHE`."""
    if isinstance(error, OSError):
        error = explain_os_error(error)
    message, hint = (error.message, error.hint) if isinstance(error, XtError) else (str(error), "")
    if VARIABLE in hint:
        return XtError(message, hint)
    return XtError(f"xt's cache cannot be used: {message}", HINT if not hint or "--out" in hint else f"{hint} {HINT}")


@contextmanager
def explained() -> Iterator[None]:
    """Turn an operating system's error inside the block into one that names `XT_CACHE`."""
    try:
        yield
    except OSError as error:
        raise explain(error) from error


def check_writable() -> Path:
    """Write a small file into the cache and remove it; returns the cache's folder. Raises XtError where it fails."""
    folder = cache_folder()
    with explained():
        made = [p for p in (folder, *folder.parents) if not p.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"x" * 4096)
                file.flush()
        finally:
            for path in made:  # from the inside out, as far as nobody used it meanwhile
                if path.is_dir() and not any(path.iterdir()):
                    path.rmdir()
    return folder
