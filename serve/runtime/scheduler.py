"""Micro-batches out of many callers' requests: worker threads, a bound on what waits, deadlines.

Knows nothing of Triton: a served model hands it jobs, it calls `run` with the rows of one micro-batch at a time. Whose
turn it is `xt.serve.runtime.fair_queue` decides.
"""

from __future__ import annotations

import heapq
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy.typing as npt

from xt.core.encoder.buckets import Buckets
from xt.core.encoder.text import TOKEN_BUDGET
from xt.core.errors import XtError
from xt.serve.runtime.admission import Admission, Bounds, Overloaded, Reservation
from xt.serve.runtime.fair_queue import FairQueue, Job

__all__ = ["Cancelled", "Expired", "Job", "Overloaded", "Scheduler"]

CANCEL_CHECK_SECONDS = 0.005
"""A job that waited less is not asked whether its client is still there: the question is a message to the server."""
LOAD_SECONDS = 2.0
"""Over how long the load of light jobs is averaged."""
LIGHT_LOAD = 0.005
"""Load of light jobs, in workers, from which large jobs are run in small micro-batches: about one in four seconds."""
RESERVE_LOAD = 0.2
"""From here on a worker is kept for them: extra passes would be too few."""
RESERVE_CHECK_SECONDS = 0.1


class Expired(XtError):
    """The job's deadline passed before its rows were run."""


class Cancelled(XtError):
    """The job's client went away before its rows were run."""


class Load:
    """How many workers a kind of work keeps busy, the last seconds counting most."""

    def __init__(self) -> None:
        self._busy, self._at = 0.0, 0.0

    def add(self, seconds: float, now: float) -> None:
        """Note work that just ended."""
        self._busy, self._at = self.at(now) * LOAD_SECONDS + seconds, now

    def at(self, now: float) -> float:
        """Return the load, in workers."""
        return self._busy / LOAD_SECONDS * math.exp(-(now - self._at) / LOAD_SECONDS) if self._busy else 0.0


class Scheduler:
    """Runs jobs' rows in micro-batches of `token_budget` tokens, padding included, on `workers` threads.

    A micro-batch starts with a row of the job whose turn it is, and is filled with rows of like length of whatever jobs
    wait; it never waits for more. Turns are fair: callers share the passes, and a caller's jobs its share, by tokens,
    so that a short job overtakes the rows of long ones. While light jobs come, the passes of large ones are kept small,
    and one worker of several is kept free of passes that cannot be. With `extra_pass`, a light job that finds all
    workers busy with large ones runs at once, on a thread of its own.

    What waits is bounded by tokens, by time and by requests. When that much waits, a job is still taken if under fair
    sharing less than the bound is run before it, and large ones in small number; so the queue of one caller locks
    nobody out.
    """

    def __init__(
        self,
        run: Callable[[list[Any]], Sequence[Any] | npt.NDArray[Any]],
        *,
        token_budget: int = TOKEN_BUDGET,
        max_waiting_tokens: int = 65536,
        max_waiting_requests: int = 1024,
        workers: int = 1,
        buckets: Buckets | None = None,
        max_waiting_seconds: float | None = None,
        extra_pass: bool = False,
    ) -> None:
        """Start the worker threads.

        Args:
            run: gets the rows of one micro-batch, returns one result a row, in order; what it raises fails those rows'
                jobs and no others.
            token_budget: tokens of one micro-batch, padding included; a longer row is run alone.
            max_waiting_tokens: with so many tokens waiting the queue is full.
            max_waiting_requests: with so many jobs waiting the queue is full.
            workers: micro-batches under way at once.
            buckets: put only rows of one width into a micro-batch, and as many as these say.
            max_waiting_seconds: with so much work waiting, at the speed of the last micro-batches, the queue is full.
            extra_pass: run light jobs on an extra thread while all workers run large ones; see `is_extra_pass`.
        """
        for name, value in (
            ("token_budget", token_budget),
            ("max_waiting_tokens", max_waiting_tokens),
            ("max_waiting_requests", max_waiting_requests),
            ("workers", workers),
        ):
            if value < 1:
                raise XtError(f"{name} is {value}, expected at least 1.")
        self.run = run
        self.token_budget = token_budget
        self.buckets = buckets
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._urgent = threading.Condition(self._lock)
        self._idle = threading.Condition(self._lock)
        self._deadline_set = threading.Condition(self._lock)
        self._queue = FairQueue(token_budget, buckets)
        self._admission = Admission(
            self._queue, Bounds(max_waiting_tokens, max_waiting_requests, max_waiting_seconds), workers
        )
        self._deadlines: list[tuple[float, int, Job]] = []
        self._order = count()
        self._workers = workers
        self._running = 0
        """Micro-batches under way, on the workers and extra."""
        self._busy = 0
        """Workers with one."""
        self._large = 0
        """Micro-batches under way of large jobs."""
        self._wide = 0
        """Those of them that are not small."""
        self._load = Load()
        self._watch: threading.Thread | None = None
        self._here = threading.local()
        self._threads = [
            threading.Thread(target=self._work_on, name=f"xt-worker-{i}", daemon=True) for i in range(workers)
        ]
        if extra_pass:
            self._threads.append(threading.Thread(target=self._work_extra, name="xt-worker-extra", daemon=True))
        for thread in self._threads:
            thread.start()

    @property
    def waiting_tokens(self) -> int:
        """Tokens that wait now."""
        return self._queue.tokens

    @property
    def waiting_requests(self) -> int:
        """Jobs that wait now, with at least one row."""
        return len(self._queue.jobs)

    @property
    def alone(self) -> bool:
        """Whether the one micro-batch that runs now is all there is to do; for `run` to read."""
        return self._running == 1 and not self._queue.jobs

    @property
    def is_extra_pass(self) -> bool:
        """Whether this thread runs a light job while all workers are busy; for `run` to read."""
        return getattr(self._here, "extra", False)

    def reserve(self, deadline: float | None = None, *, caller: str | None = None, tokens: int = 1) -> Reservation:
        """Return a reservation for a large job that has to be read first; `submit` or `release` frees it.

        Raises Overloaded as `check_room` does: what would be refused after it was read is refused before.
        """
        with self._lock:
            return self._admission.reserve(deadline, caller, tokens)

    def release(self, place: Reservation) -> None:
        """Free what was reserved for a job that will not come."""
        with self._lock:
            self._admission.release(place)

    def check_room(self, deadline: float | None = None, *, caller: str | None = None, tokens: int = 1) -> None:
        """Raise Overloaded when a job would be refused now: the queue is full, or its deadline cannot be met.

        Refused at once, its client can ask another server in time; after the deadline it cannot. A full queue
        takes what under fair sharing has less than the bound before it, and `LARGE_JOBS` large jobs of each caller.

        Args:
            deadline: of the job, on the clock of `time.monotonic`.
            caller: whose job it is.
            tokens: of the job, as far as they are known; they count by half against the deadline, since the speed is
                an estimate.
        """
        with self._lock:
            self._admission.check(deadline, caller, tokens)

    def submit(self, job: Job, place: Reservation | None = None) -> None:
        """Put a job into the queue, into its reserved `place` if it has one.

        Raises Overloaded at once when the queue is full, Expired when it is too late.
        """
        assert len(job.rows) == len(job.lengths)
        job.submitted = time.monotonic()
        if not job.rows:
            job.started = job.submitted
            _answer(job, [])
            return
        if job.deadline is not None and job.deadline <= job.submitted:
            raise _expired()
        with self._lock:
            self._admission.release(place)
            self._admission.check(job.deadline, job.caller, sum(job.lengths))
            job.results = [None] * len(job.rows)
            job.unanswered = len(job.rows)
            self._queue.put(job)
            if job.deadline is not None:
                heapq.heappush(self._deadlines, (job.deadline, next(self._order), job))
                if self._watch is None:
                    self._watch = threading.Thread(target=self._expire, name="xt-deadlines", daemon=True)
                    self._watch.start()
                self._deadline_set.notify()
            self._work.notify(len(job.rows))
            if job.light:
                self._urgent.notify()

    def close(self, drain_seconds: float = 0.0) -> None:
        """Take no more jobs, let those that wait be run for at most `drain_seconds`, and refuse the rest."""
        with self._lock:
            self._admission.closed = True
            self._work.notify_all()
            end = time.monotonic() + drain_seconds
            while self._queue.jobs or self._running:
                left = end - time.monotonic()
                if left <= 0:
                    break
                self._idle.wait(left)
            rest = list(self._queue.jobs)
            for job in rest:
                self._forget(job)
            self._work.notify_all()
            self._urgent.notify_all()
            self._deadline_set.notify_all()
        for job in rest:
            _answer(job, Overloaded("The model is shutting down.", "Ask another server, or try again."))
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()) + 1.0)

    def _forget(self, job: Job) -> None:
        """Take a job's waiting rows out of the queue; whatever of it is being run is thrown away. Lock held."""
        job.ended = True
        self._queue.remove(job)

    def _expire(self) -> None:
        """Answer jobs whose deadline passes while they wait, whatever the workers are doing."""
        while True:
            with self._lock:
                while self._deadlines and self._deadlines[0][2].ended:
                    heapq.heappop(self._deadlines)
                if self._admission.closed and not self._queue.jobs:
                    return
                if not self._deadlines:
                    self._deadline_set.wait()
                    continue
                left = self._deadlines[0][0] - time.monotonic()
                if left > 0:
                    self._deadline_set.wait(left)
                    continue
                job = heapq.heappop(self._deadlines)[2]
                if not job.waiting:  # all of it is being run: it will be answered
                    continue
                self._forget(job)
                self._note_idle()
            _answer(job, _expired())

    def _note_idle(self) -> None:
        if not self._queue.jobs and not self._running:
            self._idle.notify_all()
            if self._admission.closed:
                self._urgent.notify_all()

    def _next(self) -> list[tuple[Job, int]]:
        """Take what a worker runs next: nothing when nothing waits, or nothing that it may run now. Lock held."""
        queue = self._queue
        job = queue.head()
        if job is None:
            return []
        load = self._load.at(time.monotonic())
        if not job.light and load > RESERVE_LOAD and self._workers > 1 and self._wide >= self._workers - 1:
            job = queue.narrow()  # the last worker stays free of passes that cannot be small
            if job is None:
                return []
        return queue.take(job, small=load > LIGHT_LOAD)

    def _work_on(self) -> None:
        since: float | None = None
        while True:
            with self._lock:
                while not (batch := self._next()):
                    if self._queue.jobs:
                        self._work.wait(RESERVE_CHECK_SECONDS)  # kept free: until light jobs come, or come no more
                        continue
                    if self._admission.closed:
                        return
                    since = None
                    self._work.wait()
                self._busy += 1
                pass_ = self._begin(batch)
                if self._busy == self._workers and self._queue.jobs:
                    self._urgent.notify()
            since = since or time.monotonic()
            tokens = sum(job.lengths[index] for job, index in batch)
            try:
                self._run_batch(batch)
            finally:
                ended = time.monotonic()
                with self._lock:
                    self._busy -= 1
                    self._end(pass_, ended)
                    self._admission.ran(tokens, ended - since)
                since = ended

    def _work_extra(self) -> None:
        """Run light jobs that find all workers busy with large ones: of others one is free soon."""
        self._here.extra = True
        while True:
            with self._lock:
                while True:
                    free = self._busy < self._workers or self._large < self._workers
                    job = None if free else self._queue.urgent()
                    if job is not None:
                        break
                    if self._admission.closed and not self._queue.jobs:
                        return
                    self._urgent.wait()
                batch = self._queue.take(job, small=True)
                pass_ = self._begin(batch)
            try:
                self._run_batch(batch)
            finally:
                with self._lock:
                    self._end(pass_, time.monotonic())
                    self._admission.ran_beside(sum(job.lengths[index] for job, index in batch))

    def _begin(self, batch: list[tuple[Job, int]]) -> tuple[float, bool, bool]:
        """Count a micro-batch as under way: when it began, whether it is of a large job, and whether of a wide row."""
        large = not batch[0][0].light
        wide = large and max(job.lengths[index] for job, index in batch) > self._queue.light_tokens
        self._running += 1
        self._large += large
        self._wide += wide
        return time.monotonic(), large, wide

    def _end(self, begun: tuple[float, bool, bool], now: float) -> None:
        start, large, wide = begun
        self._running -= 1
        self._large -= large
        self._wide -= wide
        if not large:
            self._load.add(now - start, now)
        if wide:
            self._work.notify()
        self._note_idle()

    def _run_batch(self, batch: list[tuple[Job, int]]) -> None:
        now = time.monotonic()
        gone: dict[Job, Exception] = {}
        for job in dict.fromkeys(job for job, _ in batch):
            if job.deadline is not None and job.deadline <= now:
                gone[job] = _expired()
            elif (
                job.cancelled is not None
                and now - job.submitted > CANCEL_CHECK_SECONDS
                and _is_cancelled(job.cancelled)
            ):
                gone[job] = Cancelled("The client went away.")
        self._fail(gone)
        batch = [(job, index) for job, index in batch if not job.ended]
        if not batch:
            return
        for job, _ in batch:
            if job.started is None:
                job.started = now
        try:
            results = self.run([job.rows[index] for job, index in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"run gave {len(results)} results for {len(batch)} rows")
        except Exception as error:  # whatever it is, it is the answer to these jobs alone
            self._fail(dict.fromkeys((job for job, _ in batch), error))
            return
        complete = []
        with self._lock:
            for (job, index), result in zip(batch, results, strict=True):
                job.results[index] = result
                job.unanswered -= 1
                if not job.unanswered and not job.ended:
                    job.ended = True
                    complete.append(job)
        for job in complete:
            _answer(job, job.results)

    def _fail(self, gone: dict[Job, Exception]) -> None:
        """End jobs by an error, each once."""
        failed = []
        with self._lock:
            for job, error in gone.items():
                if not job.ended:
                    self._forget(job)
                    failed.append((job, error))
        for job, error in failed:
            _answer(job, error)


def _answer(job: Job, outcome: list[Any] | Exception) -> None:
    try:
        job.done(outcome)
    except Exception:  # one job's answer must not end the thread that all jobs need
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


def _is_cancelled(asks: Callable[[], bool]) -> bool:
    try:
        return bool(asks())
    except Exception:  # a server that cannot say is taken to say no: the answer is then computed for nobody, at worst
        return False


def _expired() -> Expired:
    return Expired("The request's deadline passed while it waited.", "Try again later, or allow more time.")
