"""User errors, and the exit codes of the command line."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from importlib.util import find_spec

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CHECK = 3
"""The command ran to its end, but a check (parity, threshold) did not hold."""
EXIT_INTERRUPTED = 130


class XtError(Exception):
    """A user error: what was expected and found (`message`), and how to fix it (`hint`)."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class CheckFailed(XtError):
    """The command did its work, and a check of the result did not hold (exit code 3)."""

    exit_code = EXIT_CHECK


class UsageError(XtError):
    """Options that contradict one another or make no sense together: wrong usage of a command (exit code 2)."""

    exit_code = EXIT_USAGE


def shown(text: str, most: int = 80) -> str:
    r"""Return a text of unknown origin as it can stand in a message: quoted, on one line, and not longer than that.

    >>> shown("a\nb"), shown("x" * 100, most=3)
    ("'a\\nb'", "'xxx'... (100 characters)")
    """
    quoted = repr(text[:most])
    if len(quoted) - 2 <= most and len(text) <= most:
        return quoted
    return f"{quoted[: most + 1]}{quoted[0]}... ({len(text)} characters)"


def unknown(what: str, name: str, known: Iterable[str]) -> XtError:
    """Return the error for a name that is in no table: the nearest names, and all of them.

    >>> unknown("task", "tatoba", ["tatoeba", "django"]).message
    "Unknown task 'tatoba'. Did you mean tatoeba?"
    """
    names = sorted(known)
    # The comparison takes the product of the lengths; what is far longer than a name is like none.
    near = (
        difflib.get_close_matches(name.lower(), [n.lower() for n in names], n=3, cutoff=0.5) if len(name) < 100 else []
    )
    ask = f" Did you mean {' or '.join(near)}?" if near else ""
    return XtError(f"Unknown {what} {shown(name)}.{ask}", f"Known: {', '.join(names)}.")


def require(module: str, *, extra: str, purpose: str) -> None:
    """Raise the error that names the install command when `module` is not installed."""
    if find_spec(module) is None:
        raise XtError(
            f"{purpose} needs the Python package '{module}', which is not installed.",
            f"Install it with: pip install 'xt-retriever[{extra}]'   (from a checkout: pip install '.[{extra}]')",
        )


def explain_os_error(error: OSError) -> XtError:
    """Turn an operating-system error into one that says what to do."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return XtError(f"No disk space left{where}.", "Free some space or choose another --out, then run it again.")
    if error.errno == errno.EACCES:
        return XtError(f"Permission denied{where}.", "Choose a folder you may write to.")
    return XtError(f"{error.strerror or error}{where}")
