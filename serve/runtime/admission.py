"""What is taken into the queue: bounds on what waits, and room for what is still being read.

No threads here, and of the clock only what a deadline leaves: `xt.serve.runtime.scheduler` holds the lock.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from xt.core.errors import XtError
from xt.serve.runtime.fair_queue import FairQueue

KEPT = 0.9
"""Share of what was known of the speed that is kept at each micro-batch."""
LARGE_JOBS = 8
"""Large jobs that one caller, or all unknown callers together, may have waiting although the queue is full: each of
them gets its share, instead of one getting all and the others none."""
ALL_LARGE_JOBS = 64
"""The same for everybody together: what bounds memory."""


class Overloaded(XtError):
    """The queue is full: try again later."""


@dataclass(frozen=True)
class Bounds:
    """What may wait; where that much does, the queue is full."""

    tokens: int = 65536
    requests: int = 1024
    seconds: float | None = None
    """Of work, at the speed of the last micro-batches."""


@dataclass(eq=False)
class Reservation:
    """A place in the queue for a job that is still being read."""

    caller: str | None
    tokens: int
    """As far as they are known before it is read."""
    large: bool


class Admission:
    """Decides whether a job is taken.

    When the queue is full, a job is still taken if under fair sharing less than the bound is run before it, and large
    ones in small number; so the queue of one caller locks nobody out.
    """

    def __init__(self, queue: FairQueue, bounds: Bounds, workers: int) -> None:
        self.bounds = bounds
        self.closed = False
        """Whether nothing is taken any more."""
        self.reserved_tokens = 0
        self._queue = queue
        self._workers = workers
        self._reserved: dict[Reservation, None] = {}
        """What is reserved for large jobs that are being read."""
        self._lately = (0.0, 0.0)
        """Tokens run and the seconds of one worker that they took, the newest micro-batches counting most."""

    def seconds(self, waiting: float) -> float:
        """Return how long so many tokens will take, at the speed of the last micro-batches; 0 before the first."""
        tokens, seconds = self._lately
        return waiting * seconds / tokens / self._workers if tokens else 0.0

    def ran(self, tokens: int, seconds: float) -> None:
        """Note a micro-batch that a worker ran."""
        self._lately = (KEPT * self._lately[0] + tokens, KEPT * self._lately[1] + seconds)

    def ran_beside(self, tokens: int) -> None:
        """Note an extra one: it took from the workers' time, which is counted there."""
        self._lately = (self._lately[0] + tokens, self._lately[1])

    def reserve(self, deadline: float | None, caller: str | None, tokens: int) -> Reservation:
        """Return room for a job that is still being read; Overloaded where it would be refused."""
        self.check(deadline, caller, tokens)
        place = Reservation(caller, tokens, large=tokens > self._queue.light_tokens)
        self._reserved[place] = None
        self.reserved_tokens += tokens
        return place

    def release(self, place: Reservation | None) -> None:
        """Return free what was reserved; None, and what is free already, are left alone."""
        if place is not None and place in self._reserved:
            del self._reserved[place]
            self.reserved_tokens -= place.tokens

    def check(self, deadline: float | None, caller: str | None, tokens: int) -> None:
        """Raise Overloaded when a job would be refused now: see `xt.serve.runtime.scheduler.Scheduler.check_room`."""
        queue, bounds = self._queue, self.bounds
        if self.closed:
            raise Overloaded("The model is shutting down.", "Ask another server, or try again.")
        self._check_requests(caller)
        waiting = queue.tokens + self.reserved_tokens
        seconds = self.seconds(waiting)
        full = waiting >= bounds.tokens or (bounds.seconds is not None and seconds >= bounds.seconds)
        left = math.inf if deadline is None else deadline - time.monotonic()
        if not full and seconds + self.seconds(tokens / 2) <= left:
            return
        share = queue.share_before(caller, tokens) + sum(min(place.tokens, tokens) for place in self._reserved)
        seconds = self.seconds(share)
        if full and not self._takes_large(caller, tokens):
            if share >= bounds.tokens:
                raise Overloaded(
                    f"The queue is full: {share} tokens wait, {bounds.tokens} are enough.",
                    "Try again later.",
                )
            if bounds.seconds is not None and seconds >= bounds.seconds:
                raise Overloaded(
                    f"The queue is full: {seconds:.1f} s of work wait, {bounds.seconds:.1f} s are enough.",
                    "Try again later.",
                )
        if seconds + self.seconds(tokens / 2) > left:
            own = self.seconds(tokens)
            raise Overloaded(
                f"The deadline cannot be met: {seconds:.2f} s of work wait"
                + (f", and the request itself takes some {own:.1f} s." if own > left else "."),
                "Try again later, or allow more time." if own <= left else "Send less at once, or allow more time.",
            )

    def _check_requests(self, caller: str | None) -> None:
        """Raise Overloaded when too many jobs wait: of this caller, and beyond twice the bound of anybody."""
        waiting, most = len(self._queue.jobs), self.bounds.requests
        if waiting < most:
            return
        flow = self._queue.flow_of(caller)
        own = len(flow.jobs) if flow is not None else 0
        share = most // (len(self._queue.flows) + (not own))
        if own >= share or waiting >= 2 * most:
            raise Overloaded(
                f"The queue is full: {waiting} requests wait, at most {most} may.",
                "Try again later.",
            )

    def _takes_large(self, caller: str | None, tokens: int) -> bool:
        """Return whether the full queue takes a large job more of this caller."""
        queue = self._queue
        reserved = [place for place in self._reserved if place.large]
        if tokens <= queue.light_tokens or queue.large + len(reserved) >= ALL_LARGE_JOBS:
            return False
        flow = queue.flow_of(caller)
        waiting = queue.large_anonymous() if caller is None else flow.large if flow is not None else 0
        return waiting + sum(place.caller == caller for place in reserved) < LARGE_JOBS
