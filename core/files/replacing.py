"""What may be replaced or removed: folders that xt wrote, as long as they hold nothing else and no input.

A folder is recognised by its own list of files (its manifest, or the names that a state folder can hold). Links are
never followed, and what is not on the list is never removed: it is named, and the command stops before any work.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xt.core.errors import XtError, explain_os_error

MANIFEST = "xt.json"
SHOWN = 5
"""Names that an error lists; the others are counted."""
BYTECODE = re.compile(r"((?:.*/)?)__pycache__/model\.[\w.-]+\.pyc(\.\d+)?")
"""What Python writes beside a `model.py` that it runs."""
Ours = Callable[[str], bool]
"""Whether xt wrote a file, by its path relative to the folder."""


def printable(name: str) -> str:
    r"""Return a file's name as it can be printed: bytes that are not UTF-8, and control characters, are escaped.

    >>> printable("a b.txt"), printable("x\udce4\n")
    ('a b.txt', 'x\\udce4\\n')
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def some(names: Iterable[str]) -> str:
    """Return the first few names as a list in words, and how many more there are.

    >>> some(["a", "b"]), some("abcdefg")
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    found = [printable(n) for n in names]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more


def listed(manifest: Mapping[str, Any]) -> Ours:
    """Return what recognises the files of an artefact folder: the manifest, what it lists, a `model.py`'s bytecode."""
    files = set(manifest["files"]) | {MANIFEST}

    def ours(name: str) -> bool:
        compiled = BYTECODE.fullmatch(name)
        return name in files or (compiled is not None and f"{compiled[1]}model.py" in files)

    return ours


def _walk(folder: Path, below: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield (relative path, entry) of all that lies below a folder, the content of a folder before it; no links."""
    with os.scandir(folder / below) as entries:
        found = sorted(entries, key=lambda e: e.name)
    for entry in found:
        name = f"{below}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(folder, f"{name}/")
        yield name, entry


def foreign(folder: Path, ours: Ours) -> list[str]:
    """List what lies below a folder and is not xt's: files that `ours` does not know, every link, pipe and socket.

    Folders that hold nothing are nobody's. Raises XtError where a folder cannot be read.
    """
    try:
        return [
            name
            for name, entry in _walk(folder)
            if not entry.is_dir(follow_symlinks=False) and not (entry.is_file(follow_symlinks=False) and ours(name))
        ]
    except OSError as error:
        raise explain_os_error(error) from error


def remove(folder: Path, ours: Ours) -> bool:
    """Remove xt's own files below a folder, and the folders that are empty then; whether nothing is left.

    The manifest goes last, so that what a kill leaves is still recognised.
    """
    if folder.is_symlink() or not folder.is_dir():
        return not os.path.lexists(folder)
    try:
        found = list(_walk(folder))
        for name, entry in found:
            if name != MANIFEST and entry.is_file(follow_symlinks=False) and ours(name):
                os.unlink(folder / name)
        if ours(MANIFEST):
            (folder / MANIFEST).unlink(missing_ok=True)
        for name, entry in found:
            if entry.is_dir(follow_symlinks=False):
                _remove_empty(folder / name)
        _remove_empty(folder)
    except OSError:
        pass
    return not os.path.lexists(folder)


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # it holds something that is not ours
        pass


def refuse_place(target: Path) -> None:
    """Raise XtError where a folder can never be written or replaced: a file, a link, `.`, the home, a mount point."""
    choose = "Choose a folder of its own."
    if target.is_symlink():
        raise XtError(
            f"{target} is a symbolic link, which is not replaced.", f"Name the folder that it leads to. {choose}"
        )
    if not os.path.lexists(target):
        _refuse_parent(target)
        return
    if not target.is_dir():
        raise XtError(
            f"{target} is a file, and a folder is to be written.", "Choose another --out; files are not replaced."
        )
    real = target.resolve()
    here = Path(os.path.abspath(os.getcwd()))
    home = Path(os.path.abspath(os.path.expanduser("~")))
    if target.name in ("", "..") or real == here or real in here.parents:
        raise XtError(f"{target} is the folder that this command runs in, or above it.", choose)
    if real == home or real in home.parents:
        raise XtError(f"{target} is your home folder, or above it.", choose)
    if os.path.ismount(target):
        raise XtError(f"{target} is a mount point, which cannot be replaced.", "Choose a folder below it.")


def _refuse_parent(target: Path) -> None:
    """Raise XtError where the folders above a new one cannot be made."""
    above = Path(os.path.abspath(target)).parent
    while not os.path.lexists(above):
        above = above.parent
    if not above.is_dir():
        raise XtError(f"{target} cannot be made: {above} is not a directory.", "Choose another --out.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise XtError(f"{target} cannot be made: {above} cannot be written to.", "Choose a folder you may write to.")


def _same(one: Path, other: Path) -> bool:
    try:
        return one == other or os.path.samefile(one, other)
    except OSError:
        return False


def refuse_inputs(target: Path, inputs: Iterable[Path], trees: Iterable[Path] = ()) -> None:
    """Raise XtError where a folder to be replaced holds what the command reads.

    Args:
        target: the folder, which exists.
        inputs: files and folders that are read: none may be the target or lie in it.
        trees: folders that are read with all that lies below: nor may the target lie in one of these.
    """
    trees = list(trees)
    real = target.resolve()
    for path in [*inputs, *trees]:
        for place in {path.resolve(), Path(os.path.abspath(path))}:
            if any(_same(real, above) for above in (place, *place.parents)):
                what = "is what this command reads" if _same(real, place) else f"holds what this command reads ({path})"
                raise XtError(f"{target} {what}; it is not replaced.", "Choose another --out.")
    for tree in trees:
        if tree.is_dir() and any(_same(tree.resolve(), above) for above in real.parents):
            raise XtError(
                f"{target} lies in {tree}, which this command reads; it is not replaced.", "Choose another --out."
            )


def named_paths(*values: object) -> list[Path]:
    """Return the files and folders that option values name: paths, `FORMAT:PATH`, `NAME=PATH`, lists or tables of them.

    What does not exist is no path. A word that has no separator may name a task or a folder: it counts as a folder.
    """
    found: list[Path] = []
    for value in values:
        if isinstance(value, Mapping):
            found += named_paths(*value.values())
        elif isinstance(value, (list, tuple, set)):
            found += named_paths(*value)
        elif isinstance(value, Path):
            found += [value.expanduser()] if _exists(value) else []
        elif isinstance(value, str) and value:
            words = {
                value,
                value.partition(":")[2],
                value.partition("=")[2],
                value.rpartition("=")[2].partition(":")[2],
            }
            found += [Path(w).expanduser() for w in sorted(words) if w and _exists(Path(w))]
    return found


def _exists(path: Path) -> bool:
    try:
        return os.path.lexists(path.expanduser())
    except (OSError, ValueError, RuntimeError):  # too long, a null character, an unknown user's home
        return False
