"""Micro-batches out of many callers' requests: rows of like length together, the oldest first, and a bound on waiting.

Knows nothing of Triton: a served model hands it jobs, it calls `run` with the rows of one micro-batch at a time.
"""

from __future__ import annotations

import heapq
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy.typing as npt

from xt.core.buckets import Buckets, bucket
from xt.core.errors import XtError
from xt.core.text import TOKEN_BUDGET

STEP = 8
"""Rows whose lengths round up to the same multiple of this wait in one line."""
KEPT = 0.9
"""Share of what was known of the speed that is kept at each micro-batch."""
SMALL_TOKENS = 256
"""A micro-batch below this is filled with less alike rows too: starting a forward pass costs more than padding."""
SMALL_PADDING = 32
"""Tokens of padding that one more row may cost a small micro-batch; in a larger one, a quarter of the row's length."""
CANCEL_CHECK_SECONDS = 0.005
"""A job that waited less is not asked whether its client is still there: the question is a message to the server."""


class Overloaded(XtError):
    """There is no room for the job: try again later."""


class Expired(XtError):
    """The job's deadline passed before its rows were run."""


class Cancelled(XtError):
    """The job's client went away before its rows were run."""


@dataclass(eq=False)
class Job:
    """One request's rows; `done` is called once, from any thread, with a result a row or with what went wrong."""

    rows: list[Any]
    lengths: list[int]
    """Tokens of each row."""
    done: Callable[[list[Any] | Exception], None]
    deadline: float | None = None
    """On the clock of `time.monotonic`."""
    cancelled: Callable[[], bool] | None = None
    """Asks whether the client went away."""
    submitted: float = field(default=0.0, init=False)
    started: float | None = field(default=None, init=False)
    """When its first row was taken into a micro-batch."""
    _results: list[Any] = field(default_factory=list, init=False, repr=False)
    _open: int = field(default=0, init=False, repr=False)
    _lines: dict[int, int] = field(default_factory=dict, init=False, repr=False)
    """Rows that wait, by line."""
    _ended: bool = field(default=False, init=False, repr=False)


class Scheduler:
    """Runs jobs' rows in micro-batches of `token_budget` tokens, padding included, on `workers` threads.

    A micro-batch starts with a row of the job that waits longest, so nothing starves; it is filled with rows of like
    length of whatever jobs wait, and never waits for more. What waits is bounded by tokens and by requests: with so
    much waiting a job is refused at once, with less it is taken, whatever its size. So small and large jobs are treated
    alike, and no job that was taken has more than the bound and one job before it.
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
    ) -> None:
        """Start the worker threads.

        Args:
            run: gets the rows of one micro-batch, gives one result a row, in order; what it raises fails those rows'
                jobs and no others.
            token_budget: tokens of one micro-batch, padding included; a longer row is run alone.
            max_waiting_tokens: with so many tokens waiting, jobs are refused.
            max_waiting_requests: with so many jobs waiting, jobs are refused.
            workers: micro-batches under way at once.
            buckets: put only rows of one width into a micro-batch, and as many as these say.
            max_waiting_seconds: with so much work waiting, at the speed of the last micro-batches, jobs are refused.
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
        self.max_waiting_tokens = max_waiting_tokens
        self.max_waiting_requests = max_waiting_requests
        self.buckets = buckets
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._idle = threading.Condition(self._lock)
        self._deadline_set = threading.Condition(self._lock)
        self._jobs: dict[Job, None] = {}
        """Jobs with rows that wait, oldest first."""
        self._lines: dict[int, deque[tuple[Job, int]]] = {}
        """Rows that wait, by length in steps; oldest first."""
        self._deadlines: list[tuple[float, int, Job]] = []
        self._order = count()
        self._waiting_tokens = 0
        self.max_waiting_seconds = max_waiting_seconds
        self._workers = workers
        self._lately = (0.0, 0.0)
        """Tokens run and the seconds of one worker that they took, the newest micro-batches counting most."""
        self._running = 0
        self._closed = False
        self._watch: threading.Thread | None = None
        self._threads = [
            threading.Thread(target=self._work_on, name=f"xt-worker-{i}", daemon=True) for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting_tokens(self) -> int:
        """Tokens that wait now."""
        return self._waiting_tokens

    @property
    def waiting_requests(self) -> int:
        """Jobs that wait now, with at least one row."""
        return len(self._jobs)

    @property
    def alone(self) -> bool:
        """Whether the one micro-batch that runs now is all there is to do; for `run` to ask."""
        return self._running == 1 and not self._jobs

    @property
    def waiting_seconds(self) -> float:
        """How long what waits now will take, at the speed of the last micro-batches; 0 before the first."""
        tokens, seconds = self._lately
        return self._waiting_tokens * seconds / tokens / self._workers if tokens else 0.0

    def check_room(self, deadline: float | None = None) -> None:
        """Raise Overloaded when a job would be refused now: there is no room, or its deadline cannot be met.

        Told at once, its client can ask another server in time; told when the deadline passes, it cannot.
        """
        if self._closed:
            raise Overloaded("The model is shutting down.", "Ask another server, or try again.")
        if len(self._jobs) >= self.max_waiting_requests:
            raise Overloaded(
                f"The queue is full: {len(self._jobs)} requests wait, at most {self.max_waiting_requests} may.",
                "Try again later.",
            )
        if self._waiting_tokens >= self.max_waiting_tokens:
            raise Overloaded(
                f"The queue is full: {self._waiting_tokens} tokens wait, {self.max_waiting_tokens} are enough.",
                "Try again later.",
            )
        wait = self.waiting_seconds
        if self.max_waiting_seconds is not None and wait >= self.max_waiting_seconds:
            raise Overloaded(
                f"The queue is full: {wait:.1f} s of work wait, {self.max_waiting_seconds:.1f} s are enough.",
                "Try again later.",
            )
        if deadline is not None and time.monotonic() + wait > deadline:
            raise Overloaded(
                f"The deadline cannot be met: {wait:.2f} s of work wait.", "Try again later, or allow more time."
            )

    def submit(self, job: Job) -> None:
        """Put a job into the queue. Raises Overloaded at once when there is no room, Expired when it is too late."""
        assert len(job.rows) == len(job.lengths)
        job.submitted = time.monotonic()
        if not job.rows:
            job.started = job.submitted
            _answer(job, [])
            return
        if job.deadline is not None and job.deadline <= job.submitted:
            raise _expired()
        with self._lock:
            self.check_room(job.deadline)
            job._results = [None] * len(job.rows)
            job._open = len(job.rows)
            for index, length in enumerate(job.lengths):
                line = bucket(length) if self.buckets else -(-length // STEP)
                self._lines.setdefault(line, deque()).append((job, index))
                job._lines[line] = job._lines.get(line, 0) + 1
            self._waiting_tokens += sum(job.lengths)
            self._jobs[job] = None
            if job.deadline is not None:
                heapq.heappush(self._deadlines, (job.deadline, next(self._order), job))
                if self._watch is None:
                    self._watch = threading.Thread(target=self._expire, name="xt-deadlines", daemon=True)
                    self._watch.start()
                self._deadline_set.notify()
            self._work.notify(len(job.rows))

    def close(self, drain_seconds: float = 0.0) -> None:
        """Take no more jobs, let those that wait be run for at most `drain_seconds`, and refuse the rest."""
        with self._lock:
            self._closed = True
            self._work.notify_all()
            end = time.monotonic() + drain_seconds
            while self._jobs or self._running:
                left = end - time.monotonic()
                if left <= 0:
                    break
                self._idle.wait(left)
            rest = list(self._jobs)
            for job in rest:
                self._forget(job)
            self._work.notify_all()
            self._deadline_set.notify_all()
        for job in rest:
            _answer(job, Overloaded("The model is shutting down.", "Ask another server, or try again."))
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()) + 1.0)

    def _forget(self, job: Job) -> None:
        """Take a job's waiting rows out of the queue; whatever of it is being run is thrown away. Lock held."""
        job._ended = True
        for line in job._lines:
            kept: deque[tuple[Job, int]] = deque()
            for entry in self._lines[line]:
                if entry[0] is job:
                    self._waiting_tokens -= job.lengths[entry[1]]
                else:
                    kept.append(entry)
            if kept:
                self._lines[line] = kept
            else:
                del self._lines[line]
        job._lines.clear()
        self._jobs.pop(job, None)

    def _expire(self) -> None:
        """Answer jobs whose deadline passes while they wait, whatever the workers are doing."""
        while True:
            with self._lock:
                while self._deadlines and self._deadlines[0][2]._ended:
                    heapq.heappop(self._deadlines)
                if self._closed and not self._jobs:
                    return
                if not self._deadlines:
                    self._deadline_set.wait()
                    continue
                left = self._deadlines[0][0] - time.monotonic()
                if left > 0:
                    self._deadline_set.wait(left)
                    continue
                job = heapq.heappop(self._deadlines)[2]
                if not job._lines:  # all of it is being run: it will be answered
                    continue
                self._forget(job)
                self._note_idle()
            _answer(job, _expired())

    def _note_idle(self) -> None:
        if not self._jobs and not self._running:
            self._idle.notify_all()

    def _take(self) -> list[tuple[Job, int]]:
        """Take the rows of the next micro-batch out of the queue. Lock held, something waits.

        The first is of the oldest job, from its longest line; then come rows as long or shorter, then longer ones,
        as long as one more row costs little padding.
        """
        oldest = next(iter(self._jobs))
        first = max(oldest._lines)
        near = [first]
        most = sys.maxsize
        if self.buckets:
            most = self.buckets.take(len(self._lines[first]), first, self.token_budget)
        else:
            near += sorted((n for n in self._lines if n < first), reverse=True)
            near += sorted(n for n in self._lines if n > first)
        batch: list[tuple[Job, int]] = []
        width = 0
        for line in near:
            entries = self._lines[line]
            while entries and len(batch) < most:
                job, index = entries[0]
                length = job.lengths[index]
                wider = max(width, length)
                if batch and not self.buckets and not self._fits(len(batch), width, wider, length):
                    break
                width = wider
                entries.popleft()
                batch.append((job, index))
                self._waiting_tokens -= length
                job._lines[line] -= 1
                if not job._lines[line]:
                    del job._lines[line]
                    if not job._lines:
                        self._jobs.pop(job)
            if not entries:
                del self._lines[line]
            elif width * (len(batch) + 1) > self.token_budget:
                break
        return batch

    def _fits(self, rows: int, width: int, wider: int, length: int) -> bool:
        """Whether a micro-batch of `rows` rows, `width` wide, takes one of `length` tokens that makes it `wider`."""
        padded = wider * (rows + 1)
        if padded > self.token_budget:
            return False
        allowed = max(SMALL_PADDING if padded <= SMALL_TOKENS else STEP, length // 4)
        return padded - width * rows - length <= allowed

    def _work_on(self) -> None:
        since: float | None = None
        while True:
            with self._lock:
                while not self._jobs:
                    if self._closed:
                        return
                    since = None
                    self._work.wait()
                batch = self._take()
                self._running += 1
            since = since or time.monotonic()
            tokens = sum(job.lengths[index] for job, index in batch)
            try:
                self._run_batch(batch)
            finally:
                ended = time.monotonic()
                with self._lock:
                    self._running -= 1
                    self._lately = (KEPT * self._lately[0] + tokens, KEPT * self._lately[1] + ended - since)
                    self._note_idle()
                since = ended

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
        batch = [(job, index) for job, index in batch if not job._ended]
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
                job._results[index] = result
                job._open -= 1
                if not job._open and not job._ended:
                    job._ended = True
                    complete.append(job)
        for job in complete:
            _answer(job, job._results)

    def _fail(self, gone: dict[Job, Exception]) -> None:
        """End jobs by an error, each once."""
        failed = []
        with self._lock:
            for job, error in gone.items():
                if not job._ended:
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
