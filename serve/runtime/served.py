"""What the models that Triton serves share: requests in, xt's own queue between, one answer a request.

`execute` reads requests and puts them into a `Scheduler`; worker threads answer them through response senders. So the
bound of the queue, deadlines and refusals are xt's: `execute` is never busy with a forward pass, and a request that
cannot be taken is refused at once. No torch and no transformers here; Triton's module exists only inside Triton.
"""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from xt.core.encoder.buckets import Buckets, bucket
from xt.core.encoder.text import TOKEN_BUDGET
from xt.core.errors import XtError, unknown
from xt.serve.runtime.admission import Overloaded
from xt.serve.runtime.exchange import Exchange, TaskThread
from xt.serve.runtime.meters import Meters
from xt.serve.runtime.request import BYTES_A_TOKEN, bytes_of, caller_of, deadline_of, decode, is_caller, rows_of
from xt.serve.runtime.scheduler import Scheduler

WAITING_SECONDS = 2.0
"""Work that may wait where `max_waiting_tokens` is 0: this many seconds, at the speed measured at load and at that of
the last micro-batches, which share the cores with the reading and answering of requests."""
LEAST_WAITING_TOKENS = 4096
LIGHT_TEXTS, LIGHT_BYTES = 4, 8192
"""Requests of up to this are read in `execute`; larger ones on a thread of their own: they hold up none."""
DRAIN_SECONDS = 8.0
"""Time to answer what waits when the model is unloaded: less than Triton's own exit timeout."""


@dataclass(frozen=True)
class Settings:
    """The parameters of a served model in its config.pbtxt."""

    token_budget: int = 0
    """Tokens of one forward pass, padding included; 0: what suits the engine."""
    max_waiting_tokens: int = 0
    """With so many tokens waiting, requests are refused; 0: two seconds of work at the speed measured at load."""
    max_waiting_requests: int = 2048
    """With so many requests waiting, others are refused."""
    max_texts: int = 1024
    """Texts of one request."""
    cache_megabytes: int = 64
    """Size of the vector cache; 0: none."""
    workers: int = 0
    """Forward passes under way at once; 0: what suits the engine."""

    @classmethod
    def read(cls, parameters: Mapping[str, Any]) -> Settings:
        """Read them from the `parameters` of a model's configuration; others are not ours and are left alone."""
        values = {}
        for f in fields(cls):
            if f.name not in parameters:
                continue
            text = str(parameters[f.name]["string_value"])
            least = 0 if f.name in ("token_budget", "max_waiting_tokens", "cache_megabytes", "workers") else 1
            if not text.isdecimal() or int(text) < least:
                raise XtError(
                    f"The parameter {f.name} of config.pbtxt is {text!r}, expected a whole number of at least {least}.",
                    "Correct config.pbtxt.",
                )
            values[f.name] = int(text)
        return cls(**values)


class ServedModel:
    """Base of every served model's `TritonPythonModel`.

    A subclass defines `load`, `read`, `run` and `answer`, and may define `rehearse`, `close` and `is_light`. It finds
    `self.pb`, `self.settings`, `self.meters`, `self.name` and `self.config` (the model's configuration) when `load` is
    called.
    """

    pb: Any
    """Triton's module for Python models, which exists only inside Triton."""
    settings: Settings
    meters: Meters
    name: str
    config: dict[str, Any]
    engine_budget: int = TOKEN_BUDGET
    """Tokens of a forward pass that suit the engine; `load` may set it. After `load`, `settings.token_budget` holds."""
    engine_workers: int = 1
    """Forward passes at once that suit the engine; likewise."""
    engine_extra_pass: bool = False
    """Whether one more, short forward pass may run concurrently with those; likewise."""
    buckets: Buckets | None = None
    """The shapes of forward passes, where each holds rows of one width only; `load` may set it."""

    # What a subclass defines

    def load(self, folder: Path, version_folder: Path, device: str) -> None:
        """Load the model of `folder` (its files of this version in `version_folder`) for `device`: cpu or cuda.

        What it raises keeps the model from becoming ready.
        """
        raise NotImplementedError

    def read(self, request: Any) -> tuple[list[Any], list[int], Any]:
        """Decode and tokenise a request: rows to run, their lengths in tokens, and what `answer` needs to know.

        Raises XtError, naming the field and the limit, for what the client must correct. May be called on any thread.
        """
        raise NotImplementedError

    def run(self, rows: list[Any]) -> Sequence[Any] | npt.NDArray[Any]:
        """Run one micro-batch: one result a row."""
        raise NotImplementedError

    def answer(self, request: Any, context: Any, results: list[Any]) -> list[Any]:
        """Return the output tensors of a request: `context` is what `read` gave, `results` one a row, in its order."""
        raise NotImplementedError

    def rehearse(self) -> tuple[list[Any], list[int]]:
        """Return rows of a full micro-batch and their lengths, to measure the speed by; none: it is not measured."""
        return [], []

    def measured_speed(self) -> float:
        """Return the tokens a second that the model runs, where `load` measured them; 0: `rehearse` is timed."""
        return 0.0

    def padded_tokens(self, lengths: Sequence[int]) -> int:
        """Return the tokens, padding included, that `run` computes for rows of these lengths."""
        if self.buckets is None:
            return max(lengths) * len(lengths)
        width = bucket(max(lengths))
        return self.buckets.rows(len(lengths), width, self.engine_budget) * width

    def row_length(self, row: Any) -> int:
        """Return the tokens of a row, for the counts."""
        return len(row)

    def is_light(self, request: Any) -> bool:
        """Return whether `read` takes so little time that `execute` may do it itself."""
        inputs = request.inputs()
        return all(rows_of(tensor) <= LIGHT_TEXTS for tensor in inputs) and sum(map(bytes_of, inputs)) <= LIGHT_BYTES

    def close(self) -> None:
        """Let go of what `load` opened."""

    # What Triton calls

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load, measure the speed, and open the queue."""
        import triton_python_backend_utils as pb_utils

        self.pb = pb_utils
        self.name = args["model_name"]
        self.config = json.loads(args["model_config"])
        self.settings = Settings.read(self.config.get("parameters", {}))
        self.meters = Meters()
        folder = Path(args["model_repository"])
        device = "cuda" if args["model_instance_kind"] == "GPU" else "cpu"
        self.load(folder, folder / args["model_version"], device)
        self.settings = replace(
            self.settings,
            token_budget=self.settings.token_budget or self.engine_budget,
            workers=self.settings.workers or self.engine_workers,
        )
        bound = self.settings.max_waiting_tokens or self._measured_bound()
        self.scheduler = Scheduler(
            self._run,
            token_budget=self.settings.token_budget,
            max_waiting_tokens=bound,
            max_waiting_requests=self.settings.max_waiting_requests,
            workers=self.settings.workers,
            buckets=self.buckets,
            max_waiting_seconds=None if self.settings.max_waiting_tokens else WAITING_SECONDS,
            extra_pass=self.engine_extra_pass,
        )
        self._reader = TaskThread("xt-reader", self.settings.max_waiting_requests)
        self._large_reader = TaskThread("xt-large-reader", self.settings.max_waiting_requests)
        self._sender = TaskThread("xt-sender")
        self.meters.start(
            pb_utils,
            # Triton keeps one object for two metrics of like labels, and frees it when the first of them goes: while a
            # model is reloaded, the old process and the new one both have theirs.
            {"model": self.name, "version": args["model_version"], "process": str(os.getpid())},
            {
                "xt_waiting_requests": lambda: self.scheduler.waiting_requests,
                "xt_waiting_tokens": lambda: self.scheduler.waiting_tokens,
            },
        )
        pb_utils.Logger.log_info(f"{self.name}: requests are refused while {bound} tokens wait")
        gc.collect()
        gc.freeze()  # what was loaded stays: the collector need not look through it while requests come

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Take requests in: the answer of each that a full queue refuses, None for those answered later.

        Refusals go back together: under overload most requests are refused, and each message to Triton of its own would
        take CPU from the forward passes.
        """
        answers: list[Any] = []
        for request in requests:
            try:
                exchange = self._admit(request)
            except Overloaded as error:
                self.meters.add("xt_refused_total", 1, "full")
                refusal = self.pb.TritonError(str(error), self.pb.TritonError.UNAVAILABLE)
                answers.append(self.pb.InferenceResponse(output_tensors=[], error=refusal))
            else:
                exchange.take()
                answers.append(None)
        return answers

    def _admit(self, request: Any) -> Exchange:
        """Return the exchange of a request. Raises Overloaded when the queue is full, or its time too short.

        What is not read at once reserves its place now, before it is read.
        """
        caller, tokens = caller_of(request), sum(map(bytes_of, request.inputs())) // BYTES_A_TOKEN
        deadline = deadline_of(request)
        if self.is_light(request):
            self.scheduler.check_room(deadline, caller=caller, tokens=tokens)
            return Exchange(self, request, deadline, caller)
        place = self.scheduler.reserve(deadline, caller=caller, tokens=max(tokens, 1))
        return Exchange(self, request, deadline, caller, place)

    def finalize(self) -> None:
        """Answer what waits, then let go."""
        self._reader.close()
        self._large_reader.close()
        self.scheduler.close(DRAIN_SECONDS)
        self._sender.close()
        self.meters.close()
        self.close()

    def _measured_bound(self) -> int:
        if speed := self.measured_speed():
            return max(LEAST_WAITING_TOKENS, int(WAITING_SECONDS * speed))
        rows, lengths = self.rehearse()
        if not rows:
            return 64 * self.settings.token_budget
        self.run(rows)
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            self.run(rows)
            seconds.append(time.perf_counter() - start)
        return max(LEAST_WAITING_TOKENS, int(WAITING_SECONDS * sum(lengths) / min(seconds)))

    def _run(self, rows: list[Any]) -> Sequence[Any] | npt.NDArray[Any]:
        lengths = [self.row_length(row) for row in rows]
        start = time.perf_counter()
        results = self.run(rows)
        self.meters.add("xt_seconds_total", time.perf_counter() - start, "forward")
        self.meters.add("xt_micro_batches_total")
        self.meters.add("xt_tokens_total", sum(lengths))
        self.meters.add("xt_padded_tokens_total", self.padded_tokens(lengths))
        return results

    # What a subclass's `run` may call

    def is_concurrent(self) -> bool:
        """Return whether this micro-batch runs concurrently with others, each on its share of the cores.

        An extra, short one is not: it runs at once, on all cores.
        """
        scheduler: Scheduler | None = getattr(self, "scheduler", None)  # none while the speed is measured at load
        return scheduler is not None and not scheduler.alone and not scheduler.is_extra_pass

    # What a subclass's `read` may use

    def parameters(self, request: Any, known: Mapping[str, type]) -> dict[str, Any]:
        """Return a request's parameters; XtError for one that is not `known` or of another type (bool, int, str).

        Any request may name its caller, with whose other requests it then shares. That is no part of what is requested.
        """
        found = json.loads(request.parameters() or "{}")
        if "caller" in found and not is_caller(found.pop("caller")):
            raise XtError("The parameter caller is expected to be 1 to 64 printable ASCII characters without blanks.")
        for name, value in found.items():
            if name not in known:
                raise unknown("parameter", name, known)
            if type(value) is not known[name]:
                expected = {bool: "true or false", int: "a whole number", str: "text"}[known[name]]
                raise XtError(f"The parameter {name} is {value!r}, expected {expected}.")
        return dict(found)

    def texts(self, request: Any) -> list[str]:
        """Return the texts of the input `text`.

        XtError where it is missing, for too many and for what is not UTF-8; what else is no text is for the tokenizer
        to say.
        """
        texts = self.more_texts(request, "text")
        if texts is None:
            raise XtError("The input text is missing.")
        return texts

    def more_texts(self, request: Any, name: str) -> list[str] | None:
        """Return the texts of another STRING input, or None when the request has no such input; XtError likewise."""
        tensor = self.pb.get_input_tensor_by_name(request, name)
        return None if tensor is None else decode(tensor.as_numpy().ravel().tolist(), name, self.settings.max_texts)
