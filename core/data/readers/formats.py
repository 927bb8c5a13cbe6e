"""Makes an example of each format out of what a row holds, checked; ValueError says why a row makes none."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from xt.core.characters import compose, place
from xt.core.data.examples import (
    CaptionExample,
    ChoiceExample,
    Example,
    PairExample,
    QaExample,
    ScoredExample,
    SingleExample,
    TaggedExample,
    TextExample,
    TupleExample,
)
from xt.core.data.readers.rows import Row
from xt.core.data.tasks import Task
from xt.core.encoder.text import check_text

REPAIR_CHARACTERS = 16
"""How far from its stated place an answer is looked for in the context."""
_LETTERS = {"e": "entailment", "n": "neutral", "c": "contradiction", "contradictory": "contradiction"}
"""How ANLI and XNLI's training files write the labels of inference."""


class NoLabel(ValueError):
    """The row is published without a label."""


class OtherLabel(ValueError):
    """The row's label is none of the task's."""


class Lacks(ValueError):
    """The row has no such column."""


Position: TypeAlias = Callable[[Any], int]
"""Gives the position of a label among the task's."""


@lru_cache(maxsize=64)
def _names(labels: tuple[str, ...]) -> dict[str, int]:
    exact = {label: i for i, label in enumerate(labels)}
    folded = {label.casefold(): i for i, label in reversed(list(enumerate(labels)))}
    letters = {letter: folded[name] for letter, name in _LETTERS.items() if name in folded}
    numeric = any(label.lstrip("-").isdigit() for label in labels)
    return {**({} if numeric else {str(i): i for i in range(len(labels))}), **letters, **folded, **exact}


def is_label(value: str, labels: tuple[str, ...]) -> bool:
    """Return whether a text names one of the labels, in any case, or as a letter of inference; a position names none.

    >>> [is_label(value, ("Joy", "anger")) for value in ("joy", "ANGER", "fear", "0")]
    [True, True, False, False]
    """
    if value in labels:
        return True
    names = _names(labels)
    return not value.isdecimal() and (value in names or value.casefold() in names)


def _among(task: Task, value: Any, values: Sequence[Any] = ()) -> int:
    """Return the position of a label: among `values` if any, else by its name (in any case) or as a number."""
    if values:
        if value not in values:
            raise OtherLabel(f"label {value!r} is none of {_some(values)}.")
        return list(values).index(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise OtherLabel(f"label is {type(value).__name__} ({value!r}), expected a name or a position.")
    names, text = _names(task.labels), str(value).strip()
    found = names.get(text, names.get(text.casefold()))
    if found is None:
        raise OtherLabel(f"label {value!r} is none of {_some(task.labels)}.")
    return found


def _some(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values[:8])) + (f" and {len(values) - 8} more" if len(values) > 8 else "")


def _text(row: Row, name: str) -> str:
    check_text(row[name], name)
    return str(row[name])


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name} is {type(value).__name__}, expected a list.")
    return list(value)


def _texts(value: Any, name: str, *, words: bool = False) -> tuple[str, ...]:
    for number, text in enumerate(items := _list(value, name)):
        check_text(text, f"{name} {number}", word=words)
    return tuple(items)


def _whole(value: Any, name: str) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} is {value!r}, expected a whole number from 0.")
    return value


def _pair(row: Row, id: str, position: Position) -> Example:
    return PairExample(id, _text(row, "first"), _text(row, "second"), position(row["label"]))


def _single(row: Row, id: str, position: Position) -> Example:
    return SingleExample(id, _text(row, "text"), position(row["label"]))


def _scored(row: Row, id: str, position: Position) -> Example:
    value = row["score"]
    try:
        score = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f"score {value!r} is no number.")
    return ScoredExample(id, _text(row, "first"), _text(row, "second"), score)


def _choice(row: Row, id: str, position: Position) -> Example:
    choices = _texts(row["choices"], "choices")
    label = position(row["label"])
    if len(choices) < 2:
        raise ValueError(f"{len(choices)} choices, expected two or more.")
    if label >= len(choices):
        raise ValueError(f"label {label} is no position of {len(choices)} choices (0 to {len(choices) - 1}).")
    if choices.count(choices[label]) > 1 and not row.get("twins"):
        raise ValueError(f"the right choice {choices[label]!r} stands there twice.")
    return ChoiceExample(id, _text(row, "prompt"), choices, label)


def _qa(row: Row, id: str, position: Position) -> Example:
    context, question = _text(row, "context"), _text(row, "question")
    answers = _texts(row["answers.text"], "answers")
    starts = [_whole(start, "answer start") for start in _list(row["answers.answer_start"], "answer starts")]
    if len(answers) != len(starts):
        raise ValueError(f"{len(answers)} answers and {len(starts)} starts.")
    if not answers and not row.get("answerless", True):
        raise ValueError("no answer, and the file does not say that there is none (is_impossible).")
    spans = [_span(context, answer, start) for answer, start in zip(answers, starts, strict=True)]
    return QaExample(id, context, question, tuple(text for text, _ in spans), tuple(start for _, start in spans))


def _span(context: str, answer: str, start: int) -> tuple[str, int]:
    """Return the answer as it stands in the context and where; a wrong start is corrected from the neighbourhood.

    An answer in another form of Unicode than the context (composed, decomposed) is found by its composed form; its
    start may count the characters of either.
    """
    if context[start : start + len(answer)] == answer:
        return answer, start
    bare = answer.strip()
    low, high = max(0, start - REPAIR_CHARACTERS), start + REPAIR_CHARACTERS
    found = [at for at in range(low, min(high, len(context)) + 1) if context.startswith(bare, at)]
    if found:
        return bare, min(found, key=lambda at: abs(at - start))
    placed = place(context)
    text, wanted = placed.text if placed else context, compose(bare)
    spans: list[tuple[int, int, int]] = []  # how far from the stated start, and where in the context as it is given
    at = text.find(wanted)
    while at >= 0:
        first, last = placed.original(at, at + len(wanted)) if placed else (at, at + len(wanted))
        counted = (first, at, len(unicodedata.normalize("NFD", text[:at])))
        spans.append((min(abs(count - start) for count in counted), first, last))
        at = text.find(wanted, at + 1)
    if not spans or min(spans)[0] > REPAIR_CHARACTERS:
        there = context[start : start + len(answer)]
        raise ValueError(f"answer {answer!r} is not in the context at character {start} (there: {there!r}).")
    _, first, last = min(spans)
    return context[first:last], first


def _tagged(row: Row, id: str, position: Position) -> Example:
    words, tags = (value.split() if isinstance(value, str) else value for value in (row["words"], row["tags"]))
    words, tags = _texts(words, "words", words=True), _list(tags, "labels")
    if not words or len(words) != len(tags):
        raise ValueError(f"{len(words)} words and {len(tags)} labels.")
    return TaggedExample(id, words, tuple(position(tag) for tag in tags))


def _tuple(row: Row, id: str, position: Position) -> Example:
    negative = _text(row, "negative") if row.get("negative") not in (None, "") else None
    return TupleExample(id, _text(row, "anchor"), _text(row, "positive"), negative)


def _plain(row: Row, id: str, position: Position) -> Example:
    return TextExample(id, _text(row, "text"))


def _caption(row: Row, id: str, position: Position) -> Example:
    language = row["language"] if row.get("language") not in (None, "") else "eng"
    check_text(language, "language")
    return CaptionExample(id, _text(row, "text"), _whole(row["image"], "image"), language)


@dataclass(frozen=True)
class Format:
    """What a row must hold to become an example of a format, and what makes the example."""

    make: Callable[[Row, str, Position], Example]
    needs: tuple[str, ...]
    label: str = ""
    """The name of what holds the labels; empty: the format has none, or they are no names."""


MAKERS = {
    "pair": Format(_pair, ("first", "second", "label"), "label"),
    "single": Format(_single, ("text", "label"), "label"),
    "regression": Format(_scored, ("first", "second", "score")),
    "choice": Format(_choice, ("prompt", "choices", "label")),
    "qa": Format(_qa, ("context", "question", "answers.text", "answers.answer_start")),
    "tagging": Format(_tagged, ("words", "tags"), "tags"),
    "contrastive": Format(_tuple, ("anchor", "positive")),
    "mlm": Format(_plain, ("text",)),
    "image-text": Format(_caption, ("image", "text")),
}
"""How the examples of each format are made."""


def position_of(task: Task, value: Any, unlabelled: Sequence[Any], values: Sequence[Any] = ()) -> int:
    """Return the position of a row's label or tag; NoLabel where the value says that there is none.

    values: what stands in the column for each of the task's labels, in order; empty: the labels' names or positions.
    """
    known: Sequence[Any] = values or task.labels
    if value in unlabelled and value not in known and str(value) not in known:
        raise NoLabel
    if task.format == "choice" and not values:
        return _whole(value, "label")
    return _among(task, value, values)


def id_of(row: Row, file: str, line: int) -> str:
    """Return a row's own id, or its file and line."""
    given = row.get("id")
    if given is None or given == "":
        return f"{file}:{line}"
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise ValueError(f"id is {type(given).__name__}, expected text.")
    check_text(str(given), "id")
    return str(given)
