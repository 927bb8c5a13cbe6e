"""Everything that is calibrated and measured of parallel text, in tasks that run side by side on several cores."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from threadpoolctl import threadpool_limits

from xt.core.calibrators import RetrievalTemperature
from xt.eval import calibration, conformal, unanswerable
from xt.eval import shots as few
from xt.eval.calibration import Calibrated, Method
from xt.eval.retrieval import Ranking

LARGE = 10_000
"""Queries, of both directions together, from which on starting processes is worth its seconds."""
Rankings = Mapping[str, Ranking]
Task = Callable[[], Any]


@dataclass(frozen=True)
class Side:
    """What calibrating one direction gave."""

    methods: list[Method]
    kept: dict[str, Any]
    """As calibration.json keeps it."""
    section: dict[str, Any]
    """As `calibration` of metrics.json has it."""
    none_of_these: dict[str, Any]
    conformal: dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What is asked of calibration: see `xt.eval.run.evaluate`."""

    temperature: float | None = None
    calibrate_on: str | None = None
    shots: Sequence[int] = ()
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Predicted:
    """Predicted temperatures, by language and fold left out."""

    table: Mapping[tuple[str, int | None], RetrievalTemperature]

    def __call__(self, code: str, fold: int | None) -> RetrievalTemperature:
        """Look one up."""
        return self.table[code, fold]


def calibrate_sides(
    both: Mapping[str, Rankings],
    english: Mapping[str, Sequence[str]],
    resources: Mapping[str, str],
    asked: Asked,
    *,
    jobs: int = 1,
    calibrating: Callable[[int, int, str], None] | None = None,
) -> dict[str, Side]:
    """Calibrate both directions of a parallel corpus and measure every method.

    Args:
        both: direction -> language -> ranking.
        english: language -> the English side of its pairs, in order.
        resources: language -> its resource class.
        asked: which calibrations.
        jobs: processes; the numbers are the same. With more than one the caller's main module must be guarded by
            `if __name__ == "__main__"`, as multiprocessing has it; small corpora (`LARGE`) take one all the same.
        calibrating: told of every task that is done.
    """
    if sum(len(r.gold) for side in both.values() for r in side.values()) < LARGE:
        jobs = 1
    sources = [code for code in english if calibration.is_source(code)]
    other = {d: next((r for e, r in both.items() if e != d), {}) for d in both}
    fits: list[tuple[Any, Task]] = []
    for way, rankings in both.items():
        given = asked.given.get(way)
        make = partial(_calibrate, rankings, other[way], asked.temperature, asked.calibrate_on, given)
        fits.append(((way, "fits"), make))
    expected = len(fits) * (len(KINDS) + len(METHODS) + bool(asked.shots))
    found: dict[Any, Any] = {}
    tell = calibrating or (lambda *_: None)
    with _processes(jobs) as pool:
        for done, (key, value) in enumerate(_run(fits, pool), 1):
            found[key] = value
            tell(done, expected + len(fits), ": ".join(key))
        tasks: list[tuple[Any, Task]] = []
        for way, rankings in both.items():
            made: Calibrated = found[way, "fits"]
            tasks.append(((way, "none of these"), partial(_missing, rankings, english, sources, made.predicted)))
            tasks.append(((way, "sets"), partial(_sets, rankings, sources, made.predicted)))
            if asked.shots:
                tasks.append(((way, "shots"), partial(few.measure, rankings, other[way], asked.shots)))
            for method in made.methods:
                tasks.append(((way, method.key), partial(calibration.summary, [method], resources)))
        for done, (key, value) in enumerate(_run(tasks, pool), len(fits) + 1):
            found[key] = value
            tell(done, len(fits) + len(tasks), ": ".join(key))
    return {way: _side(way, found, asked) for way in both}


KINDS = ("none of these", "sets")
METHODS = ("cosine", "training", *calibration.MAP_SCOPES, "predicted", "per-language", "shrunk", *calibration.MAPS)


def _side(way: str, found: Mapping[Any, Any], asked: Asked) -> Side:
    """Put one direction together."""
    made: Calibrated = found[way, "fits"]
    missing, calibrator = found[way, "none of these"]
    kept = {**made.kept, **({"none-of-these": calibrator} if missing else {})}
    section: dict[str, Any] = {
        "fit_languages": made.kept.get("zero-shot", {}).get("fitted_on", []),
        "methods": {m.key: found[way, m.key][m.key] for m in made.methods},
        "notes": made.notes,
    }
    if asked.shots:
        section["shots"] = found[way, "shots"]
    sets = found[way, "sets"]
    return Side(made.methods, kept, section, missing, sets if sets["scopes"] else {})


@contextmanager
def _processes(jobs: int) -> Iterator[ProcessPoolExecutor | None]:
    """Give a pool of processes; None for this process alone."""
    if jobs == 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")  # a fork would take the encoder's threads with it, stopped anywhere
    pool = ProcessPoolExecutor(jobs, mp_context=context)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _run(tasks: Sequence[tuple[Any, Task]], pool: ProcessPoolExecutor | None) -> Iterator[tuple[Any, Any]]:
    """Give the keys of tasks with their results, as they are done."""
    if pool is None:
        for key, task in tasks:
            yield key, _one_thread(task)
        return
    keys = {pool.submit(_one_thread, task): key for key, task in tasks}
    for done in as_completed(keys):
        yield keys[done], done.result()


def _one_thread(task: Task) -> Any:
    """Run a task with its products of matrices on one thread: they are small, and other threads may still spin."""
    with threadpool_limits(1, user_api="blas"):
        return task()


def _calibrate(
    rankings: Rankings,
    other: Rankings,
    temperature: float | None,
    calibrate_on: str | None,
    given: Mapping[str, Any] | None,
) -> Calibrated:
    return calibration.calibrate(rankings, temperature, others=other, calibrate_on=calibrate_on, given=given)


def _missing(
    rankings: Rankings, english: Mapping[str, Sequence[str]], sources: Sequence[str], predicted: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    return unanswerable.measure(rankings, english, sources, predicted=Predicted(predicted) if predicted else None)


def _sets(rankings: Rankings, sources: Sequence[str], predicted: Any) -> dict[str, Any]:
    return conformal.measure(rankings, sources, predicted=Predicted(predicted) if predicted else None)
