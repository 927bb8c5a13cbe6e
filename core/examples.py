"""What an example of each format is, once it is read; and how many rows could not be."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from xt.core.errors import XtError

ALLOWED_UNUSABLE = 0.01
"""The share of rows that may be unusable before a run stops."""
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
    """Give the text by which examples belong together: those of one group must not be both trained on and held out."""
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


def held_out(example: Example, share: float) -> bool:
    """Say whether an example is in the held-out part: by a hash of its group, so always the same ones.

    >>> kept = [held_out(TextExample("", str(n)), 0.2) for n in range(1000)]
    >>> 170 < sum(kept) < 230
    True
    """
    digest = hashlib.blake2b(group(example).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


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

    def reject(self, path: Path | str, line: int, reason: str) -> None:
        """Count a row that cannot be used."""
        self.unusable += 1
        if len(self.first) < KEPT_REASONS:
            self.first.append(f"{path}, line {line}: {reason}")

    def check(self, what: str, allowed: float = ALLOWED_UNUSABLE) -> None:
        """Raise XtError when more than the allowed share of the rows was unusable."""
        total = self.read + self.unusable
        if self.unusable > allowed * total:
            shown, share = "\n".join(self.first[:5]), min(1.0, self.unusable / total + 0.005)
            raise XtError(
                f"{what}: {self.unusable} of {total} rows cannot be used, more than {allowed:.1%}:\n{shown}",
                f"Repair or remove them, or allow more (--allow-unusable {share:.2f}).",
            )
