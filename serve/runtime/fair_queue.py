"""The queue of a served model: rows of many requests, in the order of weighted-fair queueing, cut into micro-batches.

Work is shared between callers, and each caller's share between its requests, by self-clocked fair queueing (Golestani,
"A self-clocked fair queueing scheme for broadband applications", INFOCOM 1994): whatever waits has a tag, the virtual
time at which its next row would end, and the lowest tag goes first. A row costs the tokens that it is padded to. So a
short request overtakes the rows of long ones that came before, and none starves: virtual time passes every tag.

No threads and no clock here: `xt.serve.runtime.scheduler` holds the lock.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Generic, TypeVar

from xt.core.encoder.buckets import Buckets, bucket

STEP = 8
"""Rows whose lengths round up to the same multiple of this wait in one queue, where the engine has no buckets."""
SMALL_TOKENS = 256
"""A micro-batch below this is filled with less alike rows too: starting a forward pass costs more than padding."""
SMALL_PADDING = 32
"""Tokens of padding that one more row may cost a small micro-batch; in a larger one, a quarter of the row's length."""
MIN_LIGHT_TOKENS = 64


@dataclass(eq=False)
class Entry:
    """What has a place in an `Order`."""

    start: float = field(default=0.0, init=False, repr=False)
    """Virtual time at which its next row begins."""
    finish: float = field(default=0.0, init=False, repr=False)
    """Virtual time at which its next row ends: its tag."""
    charged: float = field(default=0.0, init=False, repr=False)
    """Virtual time at which the last row taken of it ends."""
    ticket: int = field(default=-1, init=False, repr=False)
    """Of its valid place in the heap; -1: it does not wait."""


@dataclass(eq=False)
class Job(Entry):
    """One request's rows; `done` is called once, from any thread, with a result a row or with what went wrong."""

    rows: list[Any]
    lengths: list[int]
    """Tokens of each row."""
    done: Callable[[list[Any] | Exception], None]
    deadline: float | None = None
    """On the clock of `time.monotonic`."""
    cancelled: Callable[[], bool] | None = None
    """Asks whether the client went away."""
    caller: str | None = None
    """Whose request it is: all of one caller's share what one caller gets. None: it is its own."""
    submitted: float = field(default=0.0, init=False)
    started: float | None = field(default=None, init=False)
    """When its first row was taken into a micro-batch."""
    light: bool = field(default=False, init=False)
    """Whether it is so small that it may run at once, beside the passes under way."""
    tokens: int = field(default=0, init=False)
    """Of its rows that wait."""
    flow: Flow | None = field(default=None, init=False, repr=False)
    waiting: dict[int, list[int]] = field(default_factory=dict, init=False, repr=False)
    """Width -> indices of its rows that wait, the next one last."""
    results: list[Any] = field(default_factory=list, init=False, repr=False)
    unanswered: int = field(default=0, init=False, repr=False)
    ended: bool = field(default=False, init=False, repr=False)

    @property
    def width(self) -> int:
        """Width of its next row: the longest go first, so that the last pass of a job is a short one."""
        return max(self.waiting)


E = TypeVar("E", bound=Entry)


class Order(Generic[E]):
    """Entries by tag; virtual time is the tag of the entry whose row was taken last (self-clocked).

    >>> order, a, b = Order(), Entry(), Entry()
    >>> order.put(a, 512); order.put(b, 16)
    >>> order.first() is b
    True
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, E]] = []
        self._tickets = count()

    def put(self, entry: E, cost: int) -> None:
        """Tag an entry by the cost of its next row; one that waits already keeps its start."""
        if entry.ticket < 0:
            entry.start = max(self.now, entry.charged)
        entry.finish = entry.start + cost
        entry.ticket = next(self._tickets)
        heapq.heappush(self._heap, (entry.finish, entry.ticket, entry))

    def drop(self, entry: E) -> None:
        """Let an entry wait no more; its place in the heap is found stale later."""
        entry.ticket = -1

    def charge(self, entry: E, cost: int) -> None:
        """Note that rows of an entry were taken; `put` it again if more of them wait."""
        entry.charged = entry.start + cost
        self.drop(entry)

    def first(self) -> E | None:
        """Return the entry with the lowest tag, None when none waits."""
        heap = self._heap
        while heap and heap[0][2].ticket != heap[0][1]:
            heapq.heappop(heap)
        return heap[0][2] if heap else None

    def compact(self, waiting: int) -> None:
        """Drop stale places once they outnumber the `waiting` entries by far."""
        if len(self._heap) > 4 * waiting + 64:
            self._heap = [place for place in self._heap if place[2].ticket == place[1]]
            heapq.heapify(self._heap)


@dataclass(eq=False)
class Flow(Entry):
    """One caller's requests."""

    caller: str | None = None
    tokens: int = 0
    jobs: dict[Job, None] = field(default_factory=dict, repr=False)
    """Those that wait, oldest first."""
    order: Order[Job] = field(default_factory=Order, repr=False)

    @property
    def large(self) -> int:
        """How many of its waiting jobs are not light."""
        return sum(not job.light for job in self.jobs)


class FairQueue:
    """Jobs' rows that wait. `take` returns the next micro-batch."""

    def __init__(self, token_budget: int, buckets: Buckets | None) -> None:
        self.token_budget, self.buckets = token_budget, buckets
        self.light_tokens = max(token_budget // 4, MIN_LIGHT_TOKENS)
        """Tokens, padding included, of a light job at most; and of a micro-batch of a large one that shall not keep
        others waiting."""
        self.jobs: dict[Job, None] = {}
        """Jobs with rows that wait, oldest first."""
        self.tokens = 0
        self.large = 0
        """Waiting jobs that are not light."""
        self.flows: dict[Flow, None] = {}
        """Those with rows that wait."""
        self._callers: dict[str, Flow] = {}
        self._order: Order[Flow] = Order()
        self._queues: tuple[dict[int, dict[Job, None]], dict[int, dict[Job, None]]] = ({}, {})
        """Of large and of light jobs: width -> the jobs with rows of that width."""

    def put(self, job: Job) -> None:
        """Let a job's rows wait; it has at least one."""
        cost = 0
        for index in reversed(range(len(job.lengths))):
            width = self._width(job.lengths[index])
            job.waiting.setdefault(width, []).append(index)
            cost += width
        job.light = cost <= self.light_tokens
        job.tokens = sum(job.lengths)
        for width in job.waiting:
            self._queues[job.light].setdefault(width, {})[job] = None
        flow = self._callers.get(job.caller) if job.caller is not None else None
        if flow is None:
            flow = Flow(caller=job.caller)
            if job.caller is not None:
                self._callers[job.caller] = flow
        job.flow = flow
        flow.jobs[job] = None
        flow.tokens += job.tokens
        self.tokens += job.tokens
        self.large += not job.light
        self.jobs[job] = None
        self.flows[flow] = None
        flow.order.put(job, job.width)
        self._put_flow(flow)
        self._forget_idle()

    def remove(self, job: Job) -> None:
        """Take all of a job's rows out of the queue."""
        if job not in self.jobs:
            return
        for width in job.waiting:
            self._leave(job, width)
        job.waiting.clear()
        self._lessen(job, job.tokens)
        self._settle(job)
        assert job.flow is not None
        self._settle_flow(job.flow)

    def share_before(self, caller: str | None, tokens: int) -> int:
        """Return the tokens that are run, under fair sharing, until a new job of `tokens` tokens is done.

        Of each other job of the caller, and then of each other caller, these are at most as many as of its own. Its
        own do not count.
        """
        flow = self._callers.get(caller) if caller is not None else None
        own = sum(min(job.tokens, tokens) for job in flow.jobs) if flow is not None else 0
        return own + sum(min(other.tokens, own + tokens) for other in self.flows if other is not flow)

    def flow_of(self, caller: str | None) -> Flow | None:
        """Return the caller's flow, None when nothing is known of it."""
        return self._callers.get(caller) if caller is not None else None

    def large_anonymous(self) -> int:
        """Count the waiting jobs that are not light and whose caller is not known."""
        return sum(flow.large for flow in self.flows if flow.caller is None)

    def head(self) -> Job | None:
        """Return the job whose turn it is."""
        flow = self._order.first()
        return flow.order.first() if flow is not None else None

    def narrow(self) -> Job | None:
        """Return the job whose turn it is among those whose next row takes at most `light_tokens`."""
        return _lowest(job for job in self.jobs if job.light or job.width <= self.light_tokens)

    def urgent(self) -> Job | None:
        """Return the light job whose turn it is, unless its caller had more than its share: None then."""
        jobs = {job: None for queue in self._queues[True].values() for job in queue}
        job = _lowest(jobs)
        if job is None or job.flow is None or job.flow.finish > self._order.now + self.light_tokens:
            return None
        return job

    def take(self, first: Job, *, small: bool = False) -> list[tuple[Job, int]]:
        """Take a micro-batch that begins with the next row of `first`: (job, index of its row), at least one.

        Rows of `first` come before those of others. A light job's pass holds no rows of large jobs while such wait, and
        stays small then: it would take longer. `small`: so does a large job's.
        """
        among = (True,) if first.light and self.large else (True, False)
        most = self.light_tokens if small or len(among) == 1 else self.token_budget
        batch = list(self._collect(first, among, most))
        flow = first.flow
        assert flow is not None
        flow.order.now = max(flow.order.now, first.finish)
        self._order.now = max(self._order.now, flow.finish)
        costs: dict[Job, int] = {}
        for job, index in batch:
            costs[job] = costs.get(job, 0) + self._width(job.lengths[index])
        charges: dict[Flow, int] = {}
        for job, cost in costs.items():
            assert job.flow is not None
            job.flow.order.charge(job, cost)
            charges[job.flow] = charges.get(job.flow, 0) + cost
        for charged, cost in charges.items():
            self._order.charge(charged, cost)
        for job in costs:
            self._settle(job)
        for charged in charges:
            self._settle_flow(charged)
        if not self.jobs:  # nothing waits: nobody is ahead of anybody
            self._callers.clear()
            self._order = Order()
        return batch

    def _collect(self, first: Job, among: tuple[bool, ...], most: int) -> Iterator[tuple[Job, int]]:
        """Take rows: as wide as the first, then shorter ones, then longer ones, where padding is cheap."""
        start = first.width
        widths = [start]
        rows_left = sys.maxsize
        if self.buckets is not None:
            full = max(most // start, 1)
            rows_left = self.buckets.take(min(self._count(start, among), full), start, self.token_budget)
        else:
            known = {width for light in among for width in self._queues[light]}
            widths += sorted((n for n in known if n < start), reverse=True)
            widths += sorted(n for n in known if n > start)
        taken, padded = 0, 0
        for width in widths:
            for job in self._jobs_of(width, first, among):
                indices = job.waiting[width]
                while indices and rows_left:
                    length = job.lengths[indices[-1]]
                    wider = max(padded, length)
                    if taken and self.buckets is None and not self._fits(taken, padded, wider, length, most):
                        break
                    padded = wider
                    taken += 1
                    rows_left -= 1
                    index = indices.pop()
                    self._lessen(job, length)
                    yield job, index
                if not indices:
                    del job.waiting[width]
                    self._leave(job, width)
                if not rows_left or (self.buckets is None and padded * (taken + 1) > most):
                    return

    def _jobs_of(self, width: int, first: Job, among: tuple[bool, ...]) -> Iterator[Job]:
        """Return the jobs with rows of a width: `first`, then the others by their turn."""
        if width in first.waiting:
            yield first
        others = [job for light in among for job in self._queues[light].get(width, ()) if job is not first]
        yield from sorted(others, key=_turn)

    def _count(self, width: int, among: tuple[bool, ...]) -> int:
        return sum(len(job.waiting[width]) for light in among for job in self._queues[light].get(width, ()))

    def _fits(self, rows: int, width: int, wider: int, length: int, most: int) -> bool:
        """Return whether a micro-batch of `rows` rows, `width` wide, takes a row of `length` tokens, then `wider`."""
        padded = wider * (rows + 1)
        if padded > most:
            return False
        allowed = max(SMALL_PADDING if padded <= SMALL_TOKENS else STEP, length // 4)
        return padded - width * rows - length <= allowed

    def _width(self, length: int) -> int:
        return bucket(length) if self.buckets is not None else -(-length // STEP) * STEP

    def _leave(self, job: Job, width: int) -> None:
        queue = self._queues[job.light][width]
        del queue[job]
        if not queue:
            del self._queues[job.light][width]

    def _lessen(self, job: Job, tokens: int) -> None:
        assert job.flow is not None
        job.tokens -= tokens
        job.flow.tokens -= tokens
        self.tokens -= tokens

    def _settle(self, job: Job) -> None:
        """Place a job again after rows left, or none when none is left; `_settle_flow` comes next."""
        flow = job.flow
        assert flow is not None
        if job.waiting:
            flow.order.put(job, job.width)
        else:
            flow.order.drop(job)
            flow.jobs.pop(job, None)
            if self.jobs.pop(job, 0) is None:
                self.large -= not job.light

    def _settle_flow(self, flow: Flow) -> None:
        if flow.jobs:
            self._put_flow(flow)
        else:
            self._order.drop(flow)
            self.flows.pop(flow, None)

    def _put_flow(self, flow: Flow) -> None:
        job = flow.order.first()
        assert job is not None
        self._order.put(flow, job.width)
        flow.order.compact(len(flow.jobs))
        self._order.compact(len(self.flows))

    def _forget_idle(self) -> None:
        """Forget callers that have nothing to wait for and owe nothing, once there are many."""
        if len(self._callers) > 2 * len(self.flows) + 64:
            now = self._order.now
            self._callers = {n: flow for n, flow in self._callers.items() if flow.jobs or flow.charged > now}


def _turn(job: Job) -> tuple[float, float, int]:
    assert job.flow is not None
    return job.flow.finish, job.finish, job.ticket


def _lowest(jobs: Iterable[Job]) -> Job | None:
    return min(jobs, key=_turn, default=None)
