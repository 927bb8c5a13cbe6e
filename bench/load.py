"""The load generator: closed and open loops over an endpoint, in one process, and the arithmetic of what they saw.

A closed loop has so many callers, each waiting for its answer before it asks again. An open loop sends at given times
whatever the answers do, and counts a latency from the time a request was *due*, so that a stall of the server (or of
this client) is seen by every request it held up.
"""

from __future__ import annotations

import asyncio
import gc
import resource
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from xt.core.errors import XtError

REFUSED_SECONDS = 0.05
"""A refusal that takes longer than this comes too late to be of use."""
PAUSE_SECONDS = 0.01
"""How long a caller of the closed loop waits after a refusal: asking again at once only burns CPU."""
ANSWER_SECONDS = 60.0
"""How long an answer is waited for after the end; what has not come by then is an error."""
MOST_LINKS = 8192
"""Connections of an open loop; more requests than that at once, or than files may be open, wait here, and their waiting
counts. More than a full queue holds, so that an overloaded server is seen to refuse."""
SPARE_FILES = 128
PREPARED = 20_000
"""Requests that are built before the clock starts."""

Status = Literal["ok", "refused", "error"]


@dataclass(frozen=True)
class Answer:
    """What became of one request."""

    status: Status
    tokens: int | None = None
    """Tokens the server read, where it says so."""
    truncated: int = 0
    note: str = ""
    """The server's message, for a refusal or an error."""


class Link(Protocol):
    """One connection to an endpoint: one request at a time."""

    def ask(self, request: Any) -> Awaitable[Answer]:
        """Send a prepared request and wait for its answer; never raises for what the server answers."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Endpoint(Protocol):
    """Where requests go."""

    def prepare(self, rows: Sequence[int]) -> Any:
        """Build the request for these texts (indices), ready to be sent."""
        ...

    async def connect(self) -> Link:
        """Open a connection."""
        ...


@dataclass(frozen=True)
class Request:
    """A request that is ready to be sent."""

    payload: Any
    sentences: int
    tokens: int
    """Tokens of its texts as counted here; 0 where nothing counts them."""


class TextPool:
    """Deals out texts in order, each once before any comes again, over all measurements of one endpoint."""

    def __init__(self, count: int, lengths: Sequence[int] | None = None) -> None:
        if count < 1:
            raise XtError("There are no texts to send.", "Name a corpus that has some.")
        self.count = count
        self.lengths = lengths
        self.sampled = 0
        """Texts that were sent so far; over `count`, some were sent before."""

    def requests(self, endpoint: Endpoint, batch: int) -> Iterator[Request]:
        """Yield requests of `batch` texts without end; the first ones are built before this returns."""
        if batch > self.count:
            raise XtError(f"A request of {batch} texts needs as many; the corpus has {self.count}.", "Ask for fewer.")
        most = max(1, min(self.count // batch, PREPARED))
        first = self.sampled
        ready = [self._build(endpoint, first + i * batch, batch) for i in range(most)]

        def sample() -> Iterator[Request]:
            index = 0
            while True:
                request = ready[index] if index < most else self._build(endpoint, first + index * batch, batch)
                index += 1
                self.sampled += batch
                yield request

        return sample()

    def _build(self, endpoint: Endpoint, start: int, batch: int) -> Request:
        rows = [(start + i) % self.count for i in range(batch)]
        tokens = sum(self.lengths[i] for i in rows) if self.lengths is not None else 0
        return Request(endpoint.prepare(rows), batch, tokens)


@dataclass
class Seen:
    """What a loop saw of the requests that were due from `start` on."""

    latencies: list[float] = field(default_factory=list)
    """Seconds, of the answered requests."""
    refusals: list[float] = field(default_factory=list)
    """Seconds, of those the server refused (UNAVAILABLE)."""
    lags: list[float] = field(default_factory=list)
    """Open loop: seconds between when a request was due and when it was sent."""
    errors: int = 0
    first_error: str = ""
    sentences: float = 0
    """In answered requests."""
    tokens: float = 0
    truncated: int = 0
    start: float = 0.0
    ended: float = 0.0
    """Open loop: when the last answer came, or the loop's end if that is later."""

    def note(self, request: Request, answer: Answer, due: float, done: float, *, share: float = 1.0) -> None:
        """Count one answer, its texts by the share of its time that lies in what is measured."""
        self.ended = max(self.ended, done)
        if answer.status == "ok":
            if due >= self.start:
                self.latencies.append(done - due)
            self.sentences += share * request.sentences
            self.tokens += share * (request.tokens if answer.tokens is None else answer.tokens)
            if due < self.start:
                return
            self.truncated += answer.truncated
        elif answer.status == "refused":
            self.refusals.append(done - due)
        else:
            self.errors += 1
            self.first_error = self.first_error or answer.note

    @property
    def wall(self) -> float:
        """Seconds from the start to the end."""
        return self.ended - self.start

    def quantiles(self) -> tuple[float, float, float, float]:
        """Return p50, p95, p99 and the largest latency of the answered requests, in ms.

        They are interpolated between two requests.

        >>> Seen(latencies=[0.010, 0.020]).quantiles()[0]
        15.0
        """
        if not self.latencies:
            raise XtError(
                f"No request was answered ({len(self.refusals)} refused, {self.errors} errors"
                + (f": {self.first_error}" if self.first_error else "")
                + ").",
                "Give --seconds more, or less load.",
            )
        p50, p95, p99, most = (float(x) * 1000 for x in np.quantile(self.latencies, [0.5, 0.95, 0.99, 1.0]))
        return round(p50, 6), round(p95, 6), round(p99, 6), round(most, 6)

    def refused_in_time(self) -> float | None:
        """Share of the refusals that came within 50 ms; None when there were none."""
        if not self.refusals:
            return None
        return sum(1 for x in self.refusals if x <= REFUSED_SECONDS) / len(self.refusals)


def poisson(rate: float, seconds: float, seed: int = 0) -> npt.NDArray[np.float64]:
    """Return the arrival times in [0, seconds) of a Poisson process of `rate` a second.

    Exponential gaps, the same every time.
    """
    if not rate > 0:
        raise XtError(f"A rate of {rate:g} requests a second sends nothing.", "Give one above 0.")
    rng = np.random.default_rng(seed)
    times = np.empty(0)
    last = 0.0
    while last < seconds:
        gaps = rng.exponential(1 / rate, max(16, int(rate * seconds * 1.1)))
        times = np.concatenate([times, last + np.cumsum(gaps)])
        last = float(times[-1])
    return times[times < seconds]


Snapshot = Callable[[], None]


def now() -> float:
    """Return the seconds by the running loop's clock."""
    return asyncio.get_running_loop().time()


async def _at(moment: float, snapshot: Snapshot) -> None:
    """Call `snapshot` at `moment`, in a thread: it reads files and pages, and the loop must not wait for it."""
    await asyncio.sleep(max(0.0, moment - now()))
    await asyncio.to_thread(snapshot)


async def closed_loop(
    endpoint: Endpoint,
    requests: Iterator[Request],
    *,
    callers: int,
    seconds: float,
    warm_up: float,
    at_start: Snapshot = lambda: None,
    at_end: Snapshot = lambda: None,
) -> Seen:
    """Let `callers` ask for `seconds`, after a warm-up that is not counted.

    A request that is under way at the start or the end counts by the share of its time in between, so that slow
    answers to few callers are neither lost nor waited for. Latencies are those of requests sent in between.
    """
    links = [await endpoint.connect() for _ in range(callers)]
    seen = Seen(start=now() + warm_up)
    end = seen.start + seconds

    async def call(link: Link) -> None:
        while (sent := now()) < end:
            request = next(requests)
            answer = await link.ask(request.payload)
            if (done := now()) > seen.start and (sent >= seen.start or answer.status == "ok"):
                inside = min(done, end) - max(sent, seen.start)
                seen.note(request, answer, sent, done, share=inside / (done - sent) if done > sent else 1.0)
            if answer.status != "ok":
                await asyncio.sleep(PAUSE_SECONDS)

    tasks = [asyncio.ensure_future(call(link)) for link in links]
    await _at(seen.start, at_start)
    await _at(end, at_end)
    _, late = await asyncio.wait(tasks, timeout=max(0.0, end - now()) + ANSWER_SECONDS)
    await _give_up(late, seen)
    seen.ended = end
    for task in tasks:
        if not task.cancelled() and (error := task.exception()):
            raise error
    for link in links:
        link.close()
    return seen


class _Links:
    """The connections of an open loop: another is opened where none is free, up to a number; then callers wait."""

    def __init__(self, endpoint: Endpoint, most: int) -> None:
        self._endpoint, self._most = endpoint, most
        self._links: list[Link] = []
        self._free: deque[Link] = deque()
        self._waiting: deque[asyncio.Future[Link]] = deque()
        self._opening = 0

    async def open(self, count: int) -> None:
        """Open some at once."""
        self._links = [await self._endpoint.connect() for _ in range(min(count, self._most))]
        self._free = deque(self._links)

    async def take(self) -> Link:
        """Return a connection that is free."""
        if self._free:
            return self._free.pop()
        if len(self._links) + self._opening < self._most:
            self._opening += 1
            try:
                link = await self._endpoint.connect()
            finally:
                self._opening -= 1
            self._links.append(link)
            return link
        turn: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        return await turn

    def give(self, link: Link) -> None:
        """Take a connection back, for whoever waits longest."""
        if self._waiting:
            self._waiting.popleft().set_result(link)
        else:
            self._free.append(link)

    def close(self) -> None:
        """Close all."""
        for link in self._links:
            link.close()


async def open_loop(
    endpoint: Endpoint,
    requests: Iterator[Request],
    *,
    arrivals: Sequence[float] | npt.NDArray[np.float64],
    seconds: float,
    warm_up: float,
    most_links: int = MOST_LINKS,
    at_start: Snapshot = lambda: None,
) -> Seen:
    """Send a request at each of `arrivals` (seconds from now on), whatever the answers do.

    Those due before `warm_up` are not counted; `seconds` is what follows. Every latency counts from the due time.
    """
    links = _Links(endpoint, max(1, min(most_links, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES)))
    await links.open(8)
    zero = now()
    seen = Seen(start=zero + warm_up, ended=zero + warm_up + seconds)
    snapshot = asyncio.ensure_future(_at(seen.start, at_start))

    async def send(request: Request, due: float) -> None:
        link = await links.take()
        sent = now()
        answer = await link.ask(request.payload)
        done = now()
        links.give(link)
        if due >= seen.start:
            seen.lags.append(sent - due)
            seen.note(request, answer, due, done)

    tasks: set[asyncio.Task[None]] = set()
    for offset in arrivals:
        due = zero + float(offset)
        if (left := due - now()) > 0:
            await asyncio.sleep(left)
        task = asyncio.ensure_future(send(next(requests), due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await snapshot
    if tasks:
        pending = set(tasks)
        done, late = await asyncio.wait(pending, timeout=ANSWER_SECONDS)
        await _give_up(late, seen)
        for task in done:
            if error := task.exception():
                raise error
    links.close()
    return seen


async def _give_up(late: set[asyncio.Future[None]] | set[asyncio.Task[None]], seen: Seen) -> None:
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late, timeout=1)
        seen.errors += len(late)
        seen.first_error = seen.first_error or f"no answer within {ANSWER_SECONDS:.0f} s"


def run(loop: Callable[[], Awaitable[Seen]]) -> Seen:
    """Run a loop to its end, the garbage collector kept from stopping it half-way."""

    async def whole() -> Seen:
        return await loop()

    gc.collect()
    gc.freeze()
    try:
        return asyncio.run(whole())
    finally:
        gc.unfreeze()
