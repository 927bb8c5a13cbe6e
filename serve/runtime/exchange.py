"""One request and its answer: read here or on another thread, queued, answered once; errors as Triton's codes."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from xt.core.errors import XtError
from xt.serve.runtime.admission import Overloaded, Reservation
from xt.serve.runtime.fair_queue import Job
from xt.serve.runtime.request import bytes_of
from xt.serve.runtime.scheduler import Cancelled, Expired

if TYPE_CHECKING:
    from xt.serve.runtime.served import ServedModel

LARGE_BYTES = 65536
"""Requests of more than this are read on another thread yet: those between would wait for seconds."""


class Exchange:
    """One request and its answer."""

    def __init__(
        self,
        model: ServedModel,
        request: Any,
        deadline: float | None,
        caller: str | None,
        place: Reservation | None = None,
    ) -> None:
        self.model = model
        self.request = request
        self.sender = request.get_response_sender()
        self.deadline = deadline
        self.caller = caller
        self.place = place
        """What is reserved for it while it is read; None: it is read at once."""
        self.context: Any = None
        self.job: Job | None = None

    def take(self) -> None:
        """Read here, or hand over to be read."""
        try:
            if self.place is None:
                self.read()
            elif sum(map(bytes_of, self.request.inputs())) <= LARGE_BYTES:
                self.model._reader.put(self.read)
            else:
                self.model._large_reader.put(self.read)
        except Exception as error:
            self.fail(error)

    def read(self) -> None:
        """Tokenise and queue."""
        model = self.model
        try:
            if self.deadline is not None and self.deadline <= time.monotonic():
                raise Expired(
                    "The request's deadline passed before it was read.", "Try again later, or allow more time."
                )
            start = time.perf_counter()
            try:
                rows, lengths, self.context = model.read(self.request)
            except XtError as error:
                self.fail(error, invalid=True)
                return
            finally:
                model.meters.add("xt_seconds_total", time.perf_counter() - start, "tokenise")
            self.job = Job(rows, lengths, self.done, self.deadline, self.request.is_cancelled, self.caller)
            model.scheduler.submit(self.job, self.place)
        except Exception as error:
            self.fail(error)

    def done(self, outcome: list[Any] | Exception) -> None:
        """Take the outcome: the scheduler calls this once.

        Handing an answer to Triton takes longer than a short text's share of a forward pass. While others wait, that is
        left to another thread, so that the next pass begins; for a lone caller there is no change of threads.
        """
        if self.model.scheduler.waiting_requests:
            self.model._sender.put(lambda: self._answer(outcome))
        else:
            self._answer(outcome)

    def _answer(self, outcome: list[Any] | Exception) -> None:
        model = self.model
        if isinstance(outcome, Exception):
            self.fail(outcome)
            return
        start = time.perf_counter()
        try:
            outputs = model.answer(self.request, self.context, outcome)
        except Exception as error:
            self.fail(error)
            return
        self._send(model.pb.InferenceResponse(output_tensors=outputs))
        model.meters.add("xt_seconds_total", time.perf_counter() - start, "post")
        if self.job is not None and self.job.started is not None:
            model.meters.add("xt_seconds_total", self.job.started - self.job.submitted, "queue")

    def fail(self, error: Exception, *, invalid: bool = False) -> None:
        """Send an error: what the client must correct, what it may try again, or our own."""
        if self.place is not None:
            self.model.scheduler.release(self.place)
        codes = self.model.pb.TritonError
        meters = self.model.meters
        if isinstance(error, Cancelled):
            code = codes.CANCELLED
            meters.add("xt_cancelled_total")
        elif isinstance(error, (Overloaded, Expired)):
            code = codes.UNAVAILABLE
            meters.add("xt_refused_total", 1, "full" if isinstance(error, Overloaded) else "deadline")
        elif invalid:
            code = codes.INVALID_ARG
            meters.add("xt_refused_total", 1, "invalid")
        else:
            code = codes.INTERNAL
            meters.add("xt_refused_total", 1, "error")
            self.model.pb.Logger.log_error(f"{self.model.name}: {''.join(traceback.format_exception(error)).rstrip()}")
        message = str(error) if isinstance(error, XtError) else f"{type(error).__name__}: {error}"
        self._send(self.model.pb.InferenceResponse(output_tensors=[], error=codes(message, code)))

    def _send(self, response: Any) -> None:
        flags = self.model.pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        try:
            self.sender.send(response, flags=flags)
        except Exception as error:  # the answer could not be handed over: nobody is left to be told but the log
            self.model.pb.Logger.log_error(f"{self.model.name}: an answer could not be sent: {error}")


class TaskThread:
    """A thread that does what it is given, in order; at most `most` tasks wait (0: any number)."""

    def __init__(self, name: str, most: int = 0) -> None:
        self._most = most
        self._tasks: deque[Callable[[], None]] = deque()
        self._some = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def put(self, task: Callable[[], None]) -> None:
        """Have a task done; Overloaded where too many wait."""
        with self._some:
            if self._closed:
                raise Overloaded("The model is shutting down.", "Ask another server, or try again.")
            if self._most and len(self._tasks) >= self._most:
                raise Overloaded(f"The queue is full: {self._most} requests wait to be read.", "Try again later.")
            self._tasks.append(task)
            self._some.notify()

    def _work(self) -> None:
        while True:
            with self._some:
                while not self._tasks:
                    if self._closed:
                        return
                    self._some.wait()
                task = self._tasks.popleft()
            task()

    def close(self) -> None:
        """Do what was given before, then end."""
        with self._some:
            self._closed = True
            self._some.notify()
        self._thread.join()
