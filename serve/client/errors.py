"""What an error of a Triton server means, and how long the same request is sent again.

A server that is lost or restarting is waited for until the caller's deadline; one whose queue is full is sent the
request again as often as the caller says; a request that was refused is not sent again.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from xt.core.errors import XtError
from xt.core.machine import proxies

PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
LOST_PAUSE_SECONDS = 1.0
"""The longest mean pause while a server is lost: it is noticed about so soon that it is back."""
FULL = re.compile(r"queue is full|is full|maximum queue size", re.IGNORECASE)
"""What a model of xt, and Triton's own scheduler, say of a full queue."""
REFUSED_CONNECTION = re.compile(
    r"SSL_ERROR_SSL|CERTIFICATE_VERIFY|WRONG_VERSION_NUMBER|not in peer certificate|proxy returned response code 4"
)
"""What stays so however often it is tried: TLS on one end alone, a certificate that is not trusted, a proxy's no."""


START_HINT = (
    "Start one with `xt serve REPO`, or check the address: it is the gRPC port. With TLS, give --tls-ca (tls=)."
)


class Unreachable(XtError):
    """Nothing answers at the address, the connection was lost, or the server is starting or ending."""


class BadConnection(Unreachable):
    """A connection that will not come about: its TLS does not fit the server's, or a proxy refuses it."""


class ServerFull(XtError):
    """The server is full; the same request may be sent again later."""


class DeadlinePassed(XtError):
    """The answer did not come within the time the request was given."""


class InvalidRequest(XtError):
    """The server refused the request; sent again it would be refused again."""


class UnknownModel(XtError):
    """The server does not hold the model."""


class Restricted(XtError):
    """The server answers this only to who has its admin key."""


def explain(error: Exception, url: str, model: str | None, rows: Sequence[int] | None = None) -> XtError:
    """Return what an error of tritonclient means.

    `rows` are the places, in the whole list, of the texts of the request.

    Triton answers a restricted call, a lost connection, a server that is not ready and a full queue with one code,
    UNAVAILABLE; the words differ.
    """
    status = str(getattr(error, "status", lambda: "")() or "")
    message = str(getattr(error, "message", lambda: error)() or error)
    first = message.splitlines()[0][:160] if message else ""
    if "restricted" in message:
        return Restricted(
            f"The server at {url} does not tell this without its key.", "Give admin_key, or set XT_ADMIN_KEY."
        )
    if "no available versions" in message:  # known, and not ready: being loaded anew, or the server is ending
        return Unreachable(
            f"The model {model!r} at {url} is not ready ({first}).",
            "Send it again when the model is loaded; `xt serve` prints why one does not load.",
        )
    if "CANCELLED" in status or "Server is stopping" in message:  # no caller cancels a call that it waits for
        return Unreachable(f"The server at {url} is ending ({first}).", "Send it again later.")
    if "unknown model" in message or ("NOT_FOUND" in status and "model" in message):
        return UnknownModel(f"The server at {url} holds no model {model!r}.", "Name one that it serves.")
    if "UNAVAILABLE" in status:
        if FULL.search(message):
            return ServerFull(f"The server at {url} is full: {message}", "Send it again later, or send less at once.")
        if re.search(r"deadline|expired", message, re.IGNORECASE):
            return DeadlinePassed(f"The server at {url}: {message}", "Give the request more time, or send less.")
        return _lost(message, first, url)
    if "DEADLINE_EXCEEDED" in status:
        return DeadlinePassed(f"No answer from {url} in time.", "Give the request more time (timeout_seconds).")
    if "Stub process" in message:  # the model's process died; Triton starts another
        return Unreachable(f"The model {model!r} at {url} lost its process: {message}", "Send it again.")
    if re.search(r"RST_STREAM|[Ss]tream removed|GOAWAY|Connection reset", message):
        return Unreachable(f"The connection to {url} was lost ({first}).", "Send it again.")
    if "INVALID_ARGUMENT" in status:
        return InvalidRequest(*_renumber(message, rows))
    return XtError(f"The server at {url} answered {status}: {message}")


def _lost(message: str, first: str, url: str) -> Unreachable:
    """Return what became of a connection: it does not fit, nothing answers, or the server is not ready."""
    through = proxies.hint(proxies.grpc_proxy(url), url.rpartition(":")[0])
    if REFUSED_CONNECTION.search(message):
        reason = next((line for line in re.split(r";|\n", message) if REFUSED_CONNECTION.search(line)), first)
        return BadConnection(
            f"No connection to {url} comes about ({reason.strip()[:200]}).",
            through
            or "Does the server speak TLS there, and is its certificate signed by --tls-ca (Tls.ca) and for this host?",
        )
    if re.search(r"connect|[Ss]ocket|resol|recvmsg|Broken pipe|GOAWAY|handshake|proxy", message):
        return Unreachable(
            f"No server answers at {url} ({first}).",
            through or START_HINT,
        )
    return Unreachable(f"The server at {url} is not ready ({first}).", "Send it again later, or read its log.")


def _renumber(message: str, rows: Sequence[int] | None) -> tuple[str, str]:
    """Let "text 3" and the like mean the caller's fourth text, not that of the request; message and hint apart."""

    def place(match: re.Match[str]) -> str:
        index = int(match[2])
        return f"{match[1]} {rows[index] if rows is not None and index < len(rows) else index}"

    first, _, rest = re.sub(r"\b(text|text_pair|ids) (\d+)\b", place, message).partition("\n")
    return first, rest


def may_retry(error: XtError) -> bool:
    """Return whether the same request may succeed when sent again.

    Encoding changes nothing, so one whose answer was lost may be.
    """
    return isinstance(error, (ServerFull, Unreachable)) and not isinstance(error, BadConnection)


def pauses(retries: int | None, longest: float = LONGEST_PAUSE_SECONDS) -> Iterator[float]:
    """Yield the seconds to wait before each retry.

    They double, and are spread so that callers refused together come back apart.

    retries: how many; None: without end. longest: the longest mean.
    """
    for attempt in count() if retries is None else range(retries):
        yield min(longest, PAUSE_SECONDS * 2 ** min(attempt, 16)) * random.uniform(0.5, 1.5)


@dataclass(frozen=True)
class Patience:
    """How long one request is tried."""

    seconds: float
    """Its deadline, all tries and pauses included."""
    full: int | None = None
    """How often it is sent again to a server that is full; None: until the deadline."""
    lost_seconds: float | None = None
    """How long a server that is lost or restarting is waited for; None: until the deadline."""


class Tries:
    """The tries of one request: how much time is left, and how long to pause before the next."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._start = time.monotonic()
        self._end = self._start + patience.seconds
        self._full, self._lost = pauses(patience.full), pauses(None, LOST_PAUSE_SECONDS)
        self._lost_since: float | None = None
        self._made = 1

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self._end - time.monotonic()

    def pause(self, error: XtError, *, siblings: bool = False) -> float | None:
        """Return the seconds to wait before the request is sent again; None: give up.

        siblings: whether other requests of the same call are under way, whose answers free the queue.
        """
        if not may_retry(error):
            return None
        now, end = time.monotonic(), self._end
        if isinstance(error, ServerFull):
            self._lost_since = None
            wait = LONGEST_PAUSE_SECONDS / 10 if siblings else next(self._full, None)
        else:
            self._lost_since = self._lost_since or now
            wait = next(self._lost)
            if self._patience.lost_seconds is not None:
                end = min(end, self._lost_since + self._patience.lost_seconds)
        if wait is None or now + wait >= end:
            return None
        self._made += 1
        return wait

    def last(self, error: XtError) -> XtError:
        """Return the error to raise: what the last try gave, with how often and how long it was tried."""
        if self._made == 1 or not may_retry(error):
            return error
        seconds = time.monotonic() - self._start
        return type(error)(f"{error.message} It was tried {self._made} times within {seconds:.1f} s.", error.hint)


class UnderWay:
    """How many requests of one call wait for their answer: one that is refused then waits for its own siblings."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def __enter__(self) -> None:
        with self._lock:
            self._count += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._count -= 1

    @property
    def count(self) -> int:
        """How many there are."""
        return self._count
