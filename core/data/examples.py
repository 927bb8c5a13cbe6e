"""What an example of each format is, once it is read; and how many rows could not be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from xt.core.characters import compose
from xt.core.data.readers.rows import ALLOWED_UNUSABLE
from xt.core.errors import XtError

KEPT_REASONS = 20
"""Unusable rows that are kept with file, line and reason; the others are counted."""


@dataclass(frozen=True)
class PairExample:
    """Two texts and a label (`pair`)."""

    id: str
    first: str
    second: str
    label: int
    """Position in the task's `labels`."""


@dataclass(frozen=True)
class SingleExample:
    """A text and a label (`single`)."""

    id: str
    text: str
    label: int
    """Position in the task's `labels`."""


@dataclass(frozen=True)
class ScoredExample:
    """Two texts and a number (`regression`)."""

    id: str
    first: str
    second: str
    score: float


@dataclass(frozen=True)
class ChoiceExample:
    """A prompt and its continuations or answers, one of them right (`choice`)."""

    id: str
    prompt: str
    choices: tuple[str, ...]
    label: int
    """Position of the right one, from 0."""


@dataclass(frozen=True)
class QaExample:
    """A question whose answer is a span of the context, or that has none there (`qa`)."""

    id: str
    context: str
    question: str
    answers: tuple[str, ...]
    """The accepted answers, each as it stands in the context; empty: the context does not answer the question."""
    starts: tuple[int, ...]
    """Where each answer starts in the context, in characters."""


@dataclass(frozen=True)
class TaggedExample:
    """Words with a label each (`tagging`)."""

    id: str
    words: tuple[str, ...]
    labels: tuple[int, ...]
    """For each word its position in the task's `labels`."""


@dataclass(frozen=True)
class TextExample:
    """A plain text (`mlm`)."""

    id: str
    text: str


@dataclass(frozen=True)
class TupleExample:
    """A text, one that belongs to it, and perhaps one that does not though it looks so (`contrastive`)."""

    id: str
    anchor: str
    positive: str
    negative: str | None = None


@dataclass(frozen=True)
class CaptionExample:
    """A text and the image it describes (`image-text`)."""

    id: str
    text: str
    image: int
    """Row of the image in the array of image vectors."""
    language: str = "eng"


Example: TypeAlias = (
    PairExample
    | SingleExample
    | ScoredExample
    | ChoiceExample
    | QaExample
    | TaggedExample
    | TextExample
    | TupleExample
    | CaptionExample
)


def group(example: Example) -> str:
    """Return the text by which examples belong together: a group must not be both trained on and held out."""
    if isinstance(example, QaExample):
        return example.context
    if isinstance(example, ChoiceExample):
        return example.prompt
    if isinstance(example, PairExample | ScoredExample):
        return example.first
    if isinstance(example, TupleExample):
        return example.anchor
    if isinstance(example, TaggedExample):
        return " ".join(example.words)
    if isinstance(example, CaptionExample):
        return str(example.image)
    return example.text


def labels_of(example: Example, names: Sequence[str]) -> list[str]:
    """List the labels of an example: by name; by position for choices; whether a question is answered; else none.

    >>> labels_of(TaggedExample("", ("a", "b"), (1, 1)), ("O", "X")), labels_of(TextExample("", "a"), ())
    (['X', 'X'], [])
    """
    if isinstance(example, PairExample | SingleExample):
        return [names[example.label]]
    if isinstance(example, TaggedExample):
        return [names[label] for label in example.labels]
    if isinstance(example, ChoiceExample):
        return [str(example.label)]
    return [("answered" if example.answers else "unanswered")] if isinstance(example, QaExample) else []


def held_out(example: Example, share: float) -> bool:
    """Return whether an example is in the held-out part: by a hash of its group, composed, so always the same ones.

    >>> kept = [held_out(TextExample("", str(n)), 0.2) for n in range(1000)]
    >>> 170 < sum(kept) < 230
    True
    """
    digest = hashlib.blake2b(compose(group(example)).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


SHOWN = 12
"""Names that a list of counts shows."""


def counts(found: Mapping[str, int]) -> str:
    """Write names with their counts, the most frequent first, at most `SHOWN`.

    >>> counts({"eng": 2, "deu": 1200})
    'deu 1,200, eng 2'
    """
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    rest = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return ", ".join(f"{name} {count:,}" for name, count in ordered[:SHOWN]) + rest


@dataclass
class ReadLog:
    """How many rows of a task's files became examples, and which did not, and why."""

    read: int = 0
    unusable: int = 0
    first: list[str] = field(default_factory=list)
    """`FILE, line N: reason` of the first unusable rows (at most `KEPT_REASONS`)."""
    files: dict[str, str] = field(default_factory=dict)
    """The files that were read, each with its SHA-256 (or the hub revision it has)."""
    unlabelled: int = 0
    """Rows that are published without a label (SNLI's `-`, test splits): left out, and no fault of the file."""
    languages: dict[str, int] = field(default_factory=dict)
    """Examples that count, by the language their rows name (`und` where they name none)."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Examples in languages that were not requested, by language."""
    unknown_languages: dict[str, int] = field(default_factory=dict)
    """Examples whose language is none that xt knows, by what the rows call it: used like the others."""
    labels: dict[str, int] = field(default_factory=dict)
    """Labels of the examples that count: by name; by position (`0`, `1`) for choices; `answered`, `unanswered` (qa)."""

    def reject(self, path: Path | str, line: int, reason: str) -> None:
        """Count a row that cannot be used."""
        self.unusable += 1
        if len(self.first) < KEPT_REASONS:
            self.first.append(f"{path}, line {line}: {reason}")

    def count(self, language: str, labels: Iterable[str]) -> None:
        """Count an example that is used, by its language and its labels."""
        self.languages[language] = self.languages.get(language, 0) + 1
        for label in labels:
            self.labels[label] = self.labels.get(label, 0) + 1

    def notes(self) -> list[str]:
        """Return what of the rows was left out or could not be used, and which languages xt does not know.

        >>> ReadLog(left_out={"fra": 2, "und": 1}, unknown_languages={"tir": 3}).notes()
        ['left out, in other languages: fra 2, und 1', 'languages that xt does not know, used as named: tir 3']
        """
        notes = []
        if self.unusable:
            notes.append(f"{self.unusable} rows could not be used (the first: {self.first[0]})")
        if self.unlabelled:
            notes.append(f"{self.unlabelled} rows have no label and are left out")
        if self.left_out:
            notes.append(f"left out, in other languages: {counts(self.left_out)}")
        if self.unknown_languages:
            notes.append(f"languages that xt does not know, used as named: {counts(self.unknown_languages)}")
        return notes

    def check(self, what: str, allowed: float = ALLOWED_UNUSABLE) -> None:
        """Raise XtError when more than the allowed share of the rows was unusable."""
        total = self.read + self.unusable
        if self.unusable > allowed * total:
            shown, share = "\n".join(self.first[:5]), min(1.0, self.unusable / total + 0.005)
            raise XtError(
                f"{what}: {self.unusable} of {total} rows cannot be used, more than {allowed:.1%}:\n{shown}",
                f"Repair or remove them, or allow more (--allow-unusable {share:.2f}).",
            )
