"""Training examples: read from JSON Lines, every row checked; a bad one is named by file and line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from xt.core.errors import XtError, explain_os_error, unknown
from xt.core.tasks import Task
from xt.core.text import check_text

SPLITS = ("train", "dev")
Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class PairExample:
    """Two texts and a label."""

    id: str
    first: str
    second: str
    label: int
    """Position in the task's `labels`."""


@dataclass(frozen=True)
class ChoiceExample:
    """A prompt and its continuations or answers, one of them right."""

    id: str
    prompt: str
    choices: tuple[str, ...]
    label: int
    """Position of the right one, from 0."""


@dataclass(frozen=True)
class QaExample:
    """A question whose answer is a span of the context."""

    id: str
    context: str
    question: str
    answer: str
    start: int
    """Where the answer starts in the context, in characters."""


Example: TypeAlias = PairExample | ChoiceExample | QaExample


def bad_row(path: Path, line: int, reason: str) -> XtError:
    """Give the error for a row that cannot be used."""
    return XtError(f"{path}, line {line}: {reason}", "Repair or remove that line.")


def read_jsonl(path: Path, fields: Mapping[str, type]) -> Iterator[tuple[int, Row]]:
    """Read a JSON Lines file: line number (from 1) and row, one after another; blank lines are skipped.

    Args:
        path: a UTF-8 file, one JSON object a line.
        fields: the fields every row must have, and their types (`bool` is no `int`). Text must not be empty.

    Raises XtError, naming file and line, for what is not UTF-8, not JSON, no object, or lacks a field.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError as error:
        raise XtError(
            f"There is no file {path}.", "Check the path, or reinstall xt if the file came with it."
        ) from error
    except OSError as error:
        raise explain_os_error(error) from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, _parse(path, number, line, fields)


def _parse(path: Path, number: int, line: bytes, fields: Mapping[str, type]) -> Row:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise bad_row(path, number, f"not UTF-8 (byte {error.start}: {error.reason}).") from error
    except ValueError as error:
        raise bad_row(path, number, f"not JSON ({error}).") from error
    if not isinstance(row, dict):
        raise bad_row(path, number, f"a JSON {type(row).__name__}, expected an object.")
    if missing := [name for name in fields if name not in row]:
        raise bad_row(path, number, f"lacks {', '.join(missing)}.")
    for name, kind in fields.items():
        if type(row[name]) is not kind:
            raise bad_row(path, number, f"{name} is {type(row[name]).__name__}, expected {kind.__name__}.")
        if kind is str:
            check_text(row[name], f"{path}, line {number}: {name}")
    return row


def _pair(task: Task, row: Row) -> PairExample:
    first, second = task.fields
    if row["label"] not in task.labels:
        raise ValueError(f"label {row['label']!r} is none of {', '.join(task.labels)}.")
    return PairExample(row["id"], row[first], row[second], task.labels.index(row["label"]))


def _choice(task: Task, row: Row) -> ChoiceExample:
    choices = row["choices"]
    for number, choice in enumerate(choices):
        check_text(choice, f"choice {number}")
    if len(choices) < 2 or len(set(choices)) < len(choices):
        raise ValueError(
            f"{len(set(choices))} different choices of {len(choices)}; two or more, all different, needed."
        )
    if not 0 <= row["label"] < len(choices):
        raise ValueError(f"label {row['label']} is no position of {len(choices)} choices (0 to {len(choices) - 1}).")
    return ChoiceExample(row["id"], row["prompt"], tuple(choices), row["label"])


def _qa(task: Task, row: Row) -> QaExample:
    context, answer, start = row["context"], row["answer"], row["answer_start"]
    found = context[start : start + len(answer)] if start >= 0 else ""
    if found != answer:
        raise ValueError(f"answer {answer!r} is not in the context at character {start} (there: {found!r}).")
    return QaExample(row["id"], context, row["question"], answer, start)


_FORMATS: dict[str, tuple[dict[str, type], Callable[[Task, Row], Example]]] = {
    "pair": ({"label": str}, _pair),
    "choice": ({"prompt": str, "choices": list, "label": int}, _choice),
    "qa": ({"context": str, "question": str, "answer": str, "answer_start": int}, _qa),
}
"""How a row of each format is read: its fields besides id, split and a pair's texts; what makes an example of it."""


def read_examples(task: Task, split: str, *, path: Path | None = None) -> list[Example]:
    """Read the examples of one split, in the order of the file; the other split's rows are checked too.

    Args:
        task: an intermediate task.
        split: `train` or `dev`.
        path: another file of the same form; None: the one that comes with xt.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    path = task.path if path is None else path
    fields, make = _FORMATS[task.format]
    texts = dict.fromkeys(task.fields, str) if task.format == "pair" else {}
    found: list[Example] = []
    seen: dict[str, int] = {}
    for line, row in read_jsonl(path, {"id": str, "split": str, **texts, **fields}):
        if row["split"] not in SPLITS:
            raise bad_row(path, line, f"split {row['split']!r} is none of {', '.join(SPLITS)}.")
        if row["id"] in seen:
            raise bad_row(path, line, f"id {row['id']!r} stands on line {seen[row['id']]} already.")
        seen[row["id"]] = line
        try:
            example = make(task, row)
        except (ValueError, XtError) as error:
            reason = error.message if isinstance(error, XtError) else str(error)
            raise bad_row(path, line, reason) from error
        if row["split"] == split:
            found.append(example)
    if not found:
        raise XtError(
            f"{path} has no row with split {split!r}.", f"{task.name} needs rows of both: {', '.join(SPLITS)}."
        )
    return found
