"""Everything that is calibrated and measured of parallel text, in tasks that run side by side on several cores."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from threadpoolctl import threadpool_limits

from xt.calibration import conformal, missing, search, shots
from xt.calibration.accuracy import PredictedTemperature
from xt.calibration.apply.estimate import AccuracyEstimate
from xt.calibration.apply.file import NONE, MethodFit, SearchFits
from xt.calibration.apply.retrieval import Calibrator
from xt.calibration.methods import PARALLEL, names
from xt.calibration.predictions import Predictions
from xt.calibration.scoring import Calibrated, Method
from xt.calibration.summary import summary
from xt.core.errors import XtError
from xt.eval.retrieval.ranking import Ranking, id_of

LARGE = 10_000
"""Queries, of both directions together, from which on starting processes is worth its seconds."""
Rankings = Mapping[str, Predictions]
Task = Callable[[], Any]
Key = tuple[str, str]
"""Direction and name of a task."""


@dataclass(frozen=True)
class DirectionCalibration:
    """What calibrating one direction gave."""

    methods: list[Method]
    kept: dict[str, MethodFit[Calibrator]]
    """Method -> what it fitted, as calibration.json holds it."""
    section: dict[str, Any]
    """As `calibration` of metrics.json has it."""
    none_of_these: dict[str, Any]
    conformal: dict[str, Any]


@dataclass(frozen=True)
class CalibrationRequest:
    """Which calibrations of a corpus are requested: see `xt.eval.retrieval.evaluation.evaluate`."""

    temperature: float | None = None
    calibrate_on: str | None = None
    shots: Sequence[int] = ()
    given: Mapping[str, SearchFits] = field(default_factory=dict)


@dataclass(frozen=True)
class Predicted:
    """Predicted temperatures, by language and fold left out."""

    table: Mapping[tuple[str, int | None], PredictedTemperature]
    estimates: Mapping[str, AccuracyEstimate]

    def __call__(self, code: str, fold: int | None) -> PredictedTemperature:
        """Look one up; XtError where the language's accuracy is unknown."""
        self.estimates[code].check()
        return self.table[code, fold]


def calibrate_directions(
    both: Mapping[str, Mapping[str, Ranking]],
    english: Mapping[str, Sequence[str]],
    resources: Mapping[str, str],
    request: CalibrationRequest,
    *,
    jobs: int = 1,
    calibrating: Callable[[int, int, str], None] | None = None,
) -> dict[str, DirectionCalibration]:
    """Calibrate both directions of a parallel corpus and measure every method.

    Args:
        both: direction -> language -> ranking, `DEEP` for "none of these"; the rest takes the best `CANDIDATES` of it.
        english: language -> the English side of its pairs, in order.
        resources: language -> its resource class.
        request: which calibrations.
        jobs: processes; the numbers are the same. With more than one the caller's main module must be guarded by
            `if __name__ == "__main__"`, as multiprocessing has it; small corpora (`LARGE`) take one all the same.
        calibrating: called for every task that is done.
    """
    if sum(len(r.gold) for side in both.values() for r in side.values()) < LARGE:
        jobs = 1
    sources = [code for code in english if search.is_source(code)]
    ids = {code: [id_of(sentence) for sentence in sentences] for code, sentences in english.items()}
    deep = {d: {c: r.predictions(c, ids[c]) for c, r in rankings.items()} for d, rankings in both.items()}
    read = {d: {c: r.top().predictions(c, ids[c]) for c, r in rankings.items()} for d, rankings in both.items()}
    found: dict[Any, Any] = {}
    with _process_group(jobs) as group:
        for direction, rankings in read.items():
            given = request.given.get(direction)
            make = partial(_calibrate, rankings, request.temperature, request.calibrate_on, given)
            group.add((direction, FITS), make)
        each = len(KINDS) + len(names(PARALLEL)) + bool(request.shots)  # tasks, about, that follow the fits
        for key, value in group.results():
            found[key] = value
            if key[1] == FITS:
                for name, task in _tasks(key[0], value, read, deep[key[0]], resources, sources, request):
                    group.add((key[0], name), task)
            if calibrating:
                to_come = each * sum((direction, FITS) not in found for direction in both)
                calibrating(len(found), group.given + to_come, ": ".join(key))
    return {direction: _assemble(direction, found, request) for direction in both}


FITS = "fits"
LONG = (FITS, "shots", "none of these")
"""Tasks that are begun before the others."""
KINDS = ("none of these", "sets")


def _tasks(
    direction: str,
    made: Calibrated,
    both: Mapping[str, Rankings],
    deep: Rankings,
    resources: Mapping[str, str],
    sources: Sequence[str],
    request: CalibrationRequest,
) -> Iterator[tuple[str, Task]]:
    """Return what is to be done for a direction once its fits are made."""
    predicted = Predicted(made.predicted, made.estimates) if made.predicted else None
    yield "none of these", partial(_missing, deep, sources, predicted)
    if request.shots:
        yield "shots", partial(shots.of_search, both[direction], request.shots, known=made.known)
    yield "sets", partial(_sets, both[direction], sources, predicted)
    for method in made.methods:
        yield method.key, partial(summary, [method], resources)


def _assemble(direction: str, found: Mapping[Any, Any], request: CalibrationRequest) -> DirectionCalibration:
    """Put one direction together."""
    made: Calibrated = found[direction, "fits"]
    absent, fitted = found[direction, "none of these"]
    kept = {**made.kept, **({NONE: fitted} if absent.get("methods") else {})}
    sets = found[direction, "sets"]
    notes = [*made.notes, *absent.get("notes", ()), *sets.get("notes", ())]
    if not absent:
        notes.append("none of these: too few queries, or a single candidate")
    section: dict[str, Any] = {
        "fit_languages": list(made.kept["zero-shot"].fitted_on) if "zero-shot" in made.kept else [],
        "methods": {m.key: found[direction, m.key][m.key] for m in made.methods},
        "notes": notes,
    }
    if request.shots:
        section["shots"] = found[direction, "shots"]
        notes += [
            f"{k} labelled queries: {', '.join(row['left_out'])}: {row.get('note', 'they have fewer outside a fold')}"
            for k, arms in section["shots"].items()
            if (row := arms["shrunk"])["left_out"]
        ]
    none_of_these = absent if absent.get("methods") else {}
    return DirectionCalibration(made.methods, kept, section, none_of_these, sets if sets["scopes"] else {})


class _ProcessGroup:
    """Tasks done by this process and by others beside it, long ones first; results may bring further tasks."""

    def __init__(self, pool: ProcessPoolExecutor | None, others: int) -> None:
        self._pool, self._idle = pool, others
        self._lock = threading.Lock()
        self._waiting: dict[Key, Task] = {}
        self._finished: queue.SimpleQueue[tuple[Key, Future[Any]]] = queue.SimpleQueue()
        self._running = 0  # at others, or done there and not read yet
        self.given = 0
        """Tasks added so far."""

    def add(self, key: Key, task: Task) -> None:
        """Take a task in."""
        with self._lock:
            self._waiting[key] = task
        self.given += 1

    def results(self) -> Iterator[tuple[Key, Any]]:
        """Yield keys and results as tasks are done, until none is left."""
        while True:
            self._hand_out()
            if self._finished.empty() and (job := self._take()):
                yield job[0], _one_thread(job[1])
            elif self._running:
                key, future = self._finished.get()
                with self._lock:
                    self._running -= 1
                yield key, future.result()
            else:
                return

    def _take(self, *, for_another: bool = False) -> tuple[Key, Task] | None:
        """Choose a task; for another process only if one is idle."""
        with self._lock:
            if not self._waiting or (for_another and not self._idle):
                return None
            self._idle -= for_another
            self._running += for_another
            key = next((k for k in self._waiting if k[1] in LONG), next(iter(self._waiting)))
            return key, self._waiting.pop(key)

    def _hand_out(self) -> None:
        """Give each idle process a task; also called when one gets idle while this process is busy with its own."""
        while self._pool is not None and (chosen := self._take(for_another=True)):
            key, task = chosen
            try:
                future = self._pool.submit(_one_thread, task)
            except RuntimeError as error:  # the pool is broken or closed; whoever reads the results gets the error
                future = Future()
                future.set_exception(error)
            future.add_done_callback(partial(self._done, key))

    def close(self) -> None:
        """Begin no further task."""
        with self._lock:
            self._waiting.clear()

    def _done(self, key: Key, future: Future[Any]) -> None:
        with self._lock:
            self._idle += 1
        self._finished.put((key, future))
        if not future.cancelled() and future.exception() is None:
            self._hand_out()


@contextmanager
def _process_group(jobs: int) -> Iterator[_ProcessGroup]:
    """Return a group of `jobs` processes, this one among them. XtError when one of the others is killed."""
    if jobs == 1:
        yield _ProcessGroup(None, 0)
        return
    context = multiprocessing.get_context("spawn")  # a fork would take the encoder's threads with it, stopped anywhere
    pool = ProcessPoolExecutor(jobs - 1, mp_context=context, initializer=_end_with_parent)
    group = _ProcessGroup(pool, jobs - 1)
    try:
        yield group
    except BrokenProcessPool as error:
        raise XtError(
            "A process that calibrates was killed, perhaps for lack of memory.",
            "Run it again with more memory free; vectors that were kept are not encoded again.",
        ) from error
    finally:
        group.close()
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """In another process: end when the one that started it does, even if that was killed."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="xt-parent", daemon=True).start()


def _one_thread(task: Task) -> Any:
    """Run a task with its products of matrices on one thread: they are small, and other threads may still spin."""
    with threadpool_limits(1, user_api="blas"):
        return task()


def _calibrate(
    rankings: Rankings,
    temperature: float | None,
    calibrate_on: str | None,
    given: SearchFits | None,
) -> Calibrated:
    return search.calibrate(rankings, temperature, calibrate_on=calibrate_on, given=given)


def _missing(
    rankings: Rankings, sources: Sequence[str], predicted: Predicted | None
) -> tuple[dict[str, Any], MethodFit[Calibrator] | None]:
    try:
        return missing.measure(rankings, sources, predicted=predicted)
    except XtError as error:
        return {"notes": [f"none of these: {error.message}"]}, None


def _sets(rankings: Rankings, sources: Sequence[str], predicted: Predicted | None) -> dict[str, Any]:
    return conformal.measure(rankings, sources, predicted=predicted)
