"""What runs from a start to a stop, and waiting for a start: for how long, and a line every half minute about it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from xt.core.errors import XtError

START_SECONDS = 300.0
"""How long a server may take until its models are ready, unless --start-timeout says otherwise."""
PROGRESS_SECONDS = 30.0
OPTION = "--start-timeout"
S = TypeVar("S", bound="Startable")


class Startable:
    """What has a start and a stop: entering a block with it starts it, leaving the block stops it."""

    def start(self) -> None:
        """Start, and wait until it is ready."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop; may be called twice."""
        raise NotImplementedError

    def __enter__(self: S) -> S:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def check_limit(seconds: float) -> float:
    """Return the seconds that a start may take: infinity for 0. Raises XtError below 0, and for what is no number."""
    if not seconds >= 0:
        raise XtError(f"{OPTION} is {seconds:g}, expected seconds, 0 or more.", "0 waits without a limit.")
    return seconds or math.inf


class Patience:
    """A wait for something that is being started, with a limit and progress.

    >>> lines, now = [], iter([0.0, 29.0, 31.0, 40.0, 301.0])
    >>> patience = Patience(300, lines.append, clock=lambda: next(now))
    >>> [patience.lasts(lambda: "the model encoder") for _ in range(4)]
    [True, True, True, False]
    >>> lines
    ['Waiting for the model encoder: 31 s so far, at most 300 s (--start-timeout).']
    """

    def __init__(
        self, seconds: float, report: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin to wait.

        Args:
            seconds: the limit; 0: none.
            report: gets a line every `PROGRESS_SECONDS`.
            clock: returns seconds.
        """
        self.seconds = check_limit(seconds)
        self._report, self._clock = report, clock
        self._start = clock()
        self._next = self._start + PROGRESS_SECONDS

    def lasts(self, what: Callable[[], str]) -> bool:
        """Return whether to wait on; reports `what` is waited for when it is time to."""
        now = self._clock()
        passed = now - self._start
        if passed >= self.seconds:
            return False
        if now >= self._next:
            self._next = now + PROGRESS_SECONDS
            limit = "without a limit" if math.isinf(self.seconds) else f"at most {self.seconds:.0f} s"
            self._report(f"Waiting for {what()}: {passed:.0f} s so far, {limit} ({OPTION}).")
        return True


@contextmanager
def progress(seconds: float, report: Callable[[str], None], what: str) -> Iterator[None]:
    """Report every `PROGRESS_SECONDS` that `what` is waited for, while the block waits in a call of its own."""
    patience, ended = Patience(seconds, report), threading.Event()

    def tell() -> None:
        while not ended.wait(PROGRESS_SECONDS / 10) and patience.lasts(lambda: what):
            pass

    thread = threading.Thread(target=tell, name="xt-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def too_slow(seconds: float) -> str:
    """Return what to do when a start took longer than its limit."""
    return f"Give it more than {seconds:g} s by {OPTION} (0: no limit), or free the machine of other work."
