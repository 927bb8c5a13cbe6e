"""Reading the predictions of a report folder, and bringing those of two into the same order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.core.errors import XtError
from xt.core.heads.scores import exact_match
from xt.core.results.folder import open_report
from xt.core.results.report import Task
from xt.eval.ranked.search import query_key
from xt.eval.retrieval.ranking import DIRECTIONS, id_of

Floats = npt.NDArray[np.float64]
OWN = "own"
"""The method of probabilities that no calibration has changed."""


@dataclass(frozen=True)
class Line:
    """One answer."""

    key: tuple[str, ...]
    """What was asked and what is right: the same in both reports."""
    correct: float
    chances: Mapping[str, float]
    """Method -> probability of the answer given."""
    id: str
    """What the query shares with its translations."""


@dataclass(frozen=True)
class Answers:
    """One side's answers in one language."""

    confidence: Floats | None
    """(n,), None without probabilities."""
    correct: Floats
    ids: npt.NDArray[np.str_]
    """(n,) of the queries; translations share them."""


@dataclass(frozen=True)
class Side:
    """One report."""

    path: Path
    parent: dict[str, str]
    task: Task
    encoder: str
    created: str
    methods: tuple[str, ...]
    """The methods that every answer has a probability of."""
    answers: dict[str, dict[str, list[Line]]]
    """direction -> language -> lines; the direction is empty where a task has none."""


def read_side(folder: Path) -> Side:
    """Read a report folder; of several encoders the last, which is the report's subject."""
    opened = open_report(folder)
    report, rows = opened.report, opened.predictions
    names = list(dict.fromkeys(str(r["encoder"]) for r in rows if r.get("encoder")))
    encoders = [str(e.name) for e in report.encoders]
    subject = encoders[-1] if encoders else names[-1] if names else folder.resolve().name
    if len(names) > 1:
        rows = [r for r in rows if r.get("encoder") == subject]
    if not rows:
        raise XtError(f"{folder} holds no predictions of {subject}.", "Evaluate it again.")
    answers: dict[str, dict[str, list[Line]]] = {}
    methods: set[str] | None = None
    for number, row in enumerate(rows):
        try:
            lines = list(_lines(row))
        except (KeyError, TypeError, ValueError) as error:
            raise XtError(
                f"{folder}: prediction {number + 1} cannot be compared ({error}).",
                "Compared are predictions with `correct`, or with `gold` and `predicted` labels.",
            ) from error
        for line in lines:
            methods = set(line.chances) if methods is None else methods & set(line.chances)
        place = answers.setdefault(str(row.get("direction") or ""), {})
        place.setdefault(str(row.get("language") or "und"), []).extend(lines)
    order = dict.fromkeys(m for row in rows[:1] for line in _lines(row) for m in line.chances)
    kept = tuple(m for m in order if m in (methods or set()))
    return Side(folder, opened.artifact.as_parent(), report.task, subject, report.created or "", kept, answers)


def _lines(row: Mapping[str, Any]) -> Iterable[Line]:
    """Return one prediction as lines: one, or one a word where words are tagged."""
    named = {k.removeprefix("p_"): float(v) for k, v in row.items() if k.startswith("p_") and _is_number(v)}
    if _is_number(row.get("probability")):
        named.setdefault(OWN, float(row["probability"]))
    asked = tuple(str(row[k]) for k in ("id", "query") if row.get(k) is not None)
    gold = row.get("gold")
    shared = _shared(row)
    shown = json.dumps(row.get("ids", gold), ensure_ascii=False, sort_keys=True)
    predicted, chances = row.get("predicted"), row.get("probabilities")
    if isinstance(chances, Mapping):  # by label
        chances = list(chances.values())
    if isinstance(chances, list) and chances and all(map(_is_number, chances)) and not isinstance(gold, list):
        named = {OWN: float(max(chances)), **named}
    if "correct" in row:
        yield Line((*asked, shown), float(bool(row["correct"])), named, shared)
        return
    if gold is None or predicted is None:
        raise ValueError("it has neither `correct` nor `gold` and `predicted`")
    if isinstance(gold, list) and isinstance(predicted, list):  # tags, a word each
        for i, (g, p) in enumerate(zip(gold, predicted, strict=True)):
            own = {OWN: float(chances[i])} if isinstance(chances, list) and _is_number(chances[i]) else {}
            yield Line((*asked, str(i), str(g)), float(g == p), own, shared)
        return
    if isinstance(gold, float):
        raise ValueError("its gold answer is a number without a right or wrong")
    if isinstance(gold, list):  # answers to a question, any of which will do
        yield Line(
            (*asked, shown), max((exact_match(str(predicted), str(g)) for g in gold), default=0.0), named, shared
        )
        return
    yield Line((*asked, shown), float(gold == predicted), named, shared)


def _shared(row: Mapping[str, Any]) -> str:
    """Return what a prediction shares with those of its translations: its id, or its English sentence."""
    if row.get("id") is not None:
        return query_key(str(row["id"]))
    return id_of(str(row.get("gold" if row.get("direction") == DIRECTIONS[0] else "query")))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def matched(
    sides: tuple[Side, Side], direction: str, methods: tuple[str | None, str | None]
) -> tuple[dict[str, tuple[Answers, Answers]], list[list[str]]]:
    """Bring the answers of both sides into the same order: language -> both; and the languages that only one has.

    Raises XtError when the tasks differ, when no language is in both, or at the first query that only one has.
    """
    tasks = [s.task.name or "" for s in sides]
    if tasks[0] != tasks[1]:
        raise XtError(
            f"{sides[0].path} is of the task {tasks[0]!r}, {sides[1].path} of {tasks[1]!r}.",
            "Only reports of the same task can be compared.",
        )
    rows = [s.answers[direction] for s in sides]
    common = [code for code in rows[0] if code in rows[1]]
    if not common:
        found = " and ".join(", ".join(r) for r in rows)
        raise XtError(f"The reports have no language in common ({found}).", "Evaluate both in the same languages.")
    pairs = {}
    for code in common:
        lines = _aligned(sides, code, direction, rows[0][code], rows[1][code])
        pairs[code] = (_answers(lines[0], methods[0]), _answers(lines[1], methods[1]))
    return pairs, [[code for code in one if code not in other] for one, other in (rows, rows[::-1])]


def _aligned(
    sides: tuple[Side, Side], code: str, direction: str, one: Sequence[Line], other: Sequence[Line]
) -> tuple[Sequence[Line], Sequence[Line]]:
    """Return the lines of both in the order of the first.

    Queries that occur several times keep their order among them.
    """
    if [x.key for x in one] == [x.key for x in other]:
        return one, other
    places: dict[tuple[str, ...], list[Line]] = {}
    for line in reversed(other):
        places.setdefault(line.key, []).append(line)
    found = []
    where = f"{code}, {direction}" if direction else code
    for number, line in enumerate(one):
        if not places.get(line.key):
            raise _difference(sides[0], sides[1], where, number, line)
        found.append(places[line.key].pop())
    if len(other) > len(one):
        left = {id(line) for lines in places.values() for line in lines}
        number = next(i for i, line in enumerate(other) if id(line) in left)
        raise _difference(sides[1], sides[0], where, number, other[number])
    return one, found


def _difference(having: Side, lacking: Side, where: str, number: int, line: Line) -> XtError:
    said = " / ".join(part if len(part) <= 60 else part[:57] + "..." for part in line.key)
    return XtError(
        f"The reports do not hold the same queries: number {number + 1} of {where} in {having.path} ({said}) is not "
        f"in {lacking.path}.",
        "Compare reports of the same data: the same task, version and options.",
    )


def _answers(lines: Sequence[Line], method: str | None) -> Answers:
    correct = np.array([line.correct for line in lines])
    ids = np.array([line.id for line in lines])
    if method is None:
        return Answers(None, correct, ids)
    confidence = np.array([line.chances[method] for line in lines])
    if not np.isfinite(confidence).all() or confidence.min() < 0 or confidence.max() > 1 + 1e-6:
        bad = int(np.flatnonzero(~((confidence >= 0) & (confidence <= 1 + 1e-6)))[0])
        raise XtError(
            f"A probability of {method} is {confidence[bad]} (prediction {bad + 1} of its language).",
            "The report holds NaN or scores that are no probabilities: evaluate again.",
        )
    return Answers(np.minimum(confidence, 1.0), correct, ids)
