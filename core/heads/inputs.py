"""From examples to rows of token ids: what one unit of each format puts through the encoder, and how units are padded.

A *unit* is what a batch counts: a pair, a text, a prompt with all its choices, one window of a question's context, a
tuple of texts. Tokenised by the encoder's own tokenizer.json, so that training, evaluation and serving read alike.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding

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
from xt.core.data.tasks import Task
from xt.core.encoder.spec import EncoderSpec
from xt.core.encoder.text import Pieces, open_tokenizer

STRIDE = 64
"""Tokens that two neighbouring windows of a long context share; a quarter of an input where that is less."""
IGNORED = -100
"""The label of a token that is not scored."""
Ids = npt.NDArray[np.int32]
Arrays = dict[str, npt.NDArray[Any]]
Spans = list[tuple[int, int] | None]
T = TypeVar("T")


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut a sequence into pieces of `size`, the last one shorter."""
    return (items[at : at + size] for at in range(0, len(items), size))


@dataclass(slots=True)
class Unit:
    """The rows that are read together, and what is to be found."""

    rows: list[Ids]
    """Token ids of each row, special tokens included."""
    types: list[Ids]
    """Segment of each token (0, 1), for encoders that tell two texts apart so."""
    targets: tuple[float, ...] = ()
    """Label, score, start and end token, or image: by format."""
    labels: Ids | None = None
    """Of each token of the only row, `IGNORED` where there is none (tagging)."""
    owner: int = 0
    """Position of the example it was made from."""
    spans: Spans | None = None
    """Where each token starts and ends in the context as it is given, in characters; None outside it (qa)."""
    words: list[int] | None = None
    """For each labelled token, in their order, the position of its word (tagging)."""
    cut: bool = False
    """Whether a part of the example was left out, being too long."""

    @property
    def tokens(self) -> int:
        """Count the tokens of all rows."""
        return sum(len(row) for row in self.rows)

    @property
    def longest(self) -> int:
        """Count the tokens of the longest row."""
        return max(len(row) for row in self.rows)


def span_tokens(offsets: Sequence[tuple[int, int] | None], start: int, end: int) -> tuple[int, int]:
    """Find the first and last token of the characters start..end (end excluded); (0, 0) when not all are in the window.

    >>> span_tokens([None, (0, 3), (4, 9), (10, 12)], 4, 12)
    (2, 3)
    >>> span_tokens([None, (0, 3), (4, 9)], 4, 12)
    (0, 0)
    """
    inside = [(i, *span) for i, span in enumerate(offsets) if span is not None and span[0] < span[1]]
    touched = [(i, a, b) for i, a, b in inside if a < end and b > start]
    if not touched or touched[0][1] > start or touched[-1][2] < end:
        return 0, 0
    return touched[0][0], touched[-1][0]


class Inputs:
    """Makes the units of examples with one encoder's tokenizer."""

    def __init__(self, tokenizer: Path, spec: EncoderSpec, *, max_length: int | None = None) -> None:
        self._pieces = open_tokenizer(tokenizer)
        self._tokenizer = self._pieces.tokenizer
        self.prefix = spec.prefix(None)
        self.max_length = min(max_length or spec.max_length, spec.max_length)
        self.pad_id = self._special(("<pad>", "[PAD]"), 1)
        self.mask_id = self._special(("<mask>", "[MASK]"), -1)
        self.vocabulary = int(self._tokenizer.get_vocab_size())
        added = {i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        framing = self._pieces.encode("").ids  # what is put around every text, whether or not it was "added"
        self.special_ids = sorted(added | {*framing, self.pad_id, self.mask_id} - {-1})

    def as_written(self) -> Inputs:
        """Return these inputs as earlier releases read them: without composing their texts."""
        other = copy.copy(self)
        other._pieces = Pieces(self._tokenizer, composing=False)
        return other

    def _special(self, names: Sequence[str], otherwise: int) -> int:
        found = [i for i in (self._tokenizer.token_to_id(name) for name in names) if i is not None]
        return int(found[0]) if found else otherwise

    def units(self, task: Task, examples: Sequence[Example]) -> list[Unit]:
        """Make the units of some examples of one task; their `owner` counts from 0 in `examples`."""
        return _FORMATS[task.format](self, task, examples, 0)

    def _encode(self, texts: Sequence[Any]) -> Iterator[tuple[Encoding, bool]]:
        """Encode texts or pairs of them: each with whether it was cut, the longer part first, to the longest input."""
        rows = self._pieces.encode_batch_fast(list(texts))
        for text, row in zip(texts, rows, strict=True):
            if len(row.ids) <= self.max_length:
                yield row, False
                continue
            self._tokenizer.enable_truncation(self.max_length, strategy="longest_first")
            try:
                shorter = self._pieces.encode(*text) if isinstance(text, tuple) else self._pieces.encode(text)
            finally:
                self._tokenizer.no_truncation()
            yield shorter, True

    @staticmethod
    def _row(row: Encoding) -> tuple[Ids, Ids]:
        return np.asarray(row.ids, np.int32), np.asarray(row.type_ids, np.int32)

    def _units(self, texts: Sequence[Any], targets: Sequence[tuple[float, ...]]) -> list[Unit]:
        """Make a unit of one row from each text or pair."""
        found = []
        for owner, ((row, cut), target) in enumerate(zip(self._encode(texts), targets, strict=True)):
            ids, types = self._row(row)
            found.append(Unit([ids], [types], target, owner=owner, cut=cut))
        return found

    def _pair(self, task: Task, examples: Sequence[PairExample], _: int) -> list[Unit]:
        return self._units([(e.first, e.second) for e in examples], [(e.label,) for e in examples])

    def _single(self, task: Task, examples: Sequence[SingleExample], _: int) -> list[Unit]:
        return self._units([self.prefix + e.text for e in examples], [(e.label,) for e in examples])

    def _regression(self, task: Task, examples: Sequence[ScoredExample], _: int) -> list[Unit]:
        return self._units([(e.first, e.second) for e in examples], [(e.score,) for e in examples])

    def _caption(self, task: Task, examples: Sequence[CaptionExample], _: int) -> list[Unit]:
        return self._units([self.prefix + e.text for e in examples], [(e.image,) for e in examples])

    def _choice(self, task: Task, examples: Sequence[ChoiceExample], _: int) -> list[Unit]:
        encoded = self._encode([(e.prompt, choice) for e in examples for choice in e.choices])
        found = []
        for owner, example in enumerate(examples):
            rows = [next(encoded) for _ in example.choices]
            pieces = [self._row(row) for row, _ in rows]
            cut = any(was_cut for _, was_cut in rows)
            found.append(Unit([p[0] for p in pieces], [p[1] for p in pieces], (example.label,), owner=owner, cut=cut))
        return found

    def _contrastive(self, task: Task, examples: Sequence[TupleExample], _: int) -> list[Unit]:
        texts = [[e.anchor, e.positive] + ([e.negative] if e.negative else []) for e in examples]
        encoded = self._encode([self.prefix + text for some in texts for text in some])
        found = []
        for owner, some in enumerate(texts):
            rows = [next(encoded) for _ in some]
            pieces = [self._row(row) for row, _ in rows]
            cut = any(was_cut for _, was_cut in rows)
            found.append(Unit([p[0] for p in pieces], [p[1] for p in pieces], owner=owner, cut=cut))
        return found

    def _mlm(self, task: Task, examples: Sequence[TextExample], _: int) -> list[Unit]:
        """A text longer than an input gives several, so that nothing is left out."""
        found = []
        self._tokenizer.enable_truncation(self.max_length)
        try:
            rows = self._pieces.encode_batch([e.text for e in examples])
        finally:
            self._tokenizer.no_truncation()
        for owner, row in enumerate(rows):
            for piece in (row, *row.overflowing):
                ids, types = self._row(piece)
                found.append(Unit([ids], [types], owner=owner))
        return found

    def _tagging(self, task: Task, examples: Sequence[TaggedExample], _: int) -> list[Unit]:
        """A sentence longer than an input is read in parts, cut between words."""
        found: list[Unit] = []
        rows = self._pieces.encode_batch([list(e.words) for e in examples], is_pretokenized=True)
        for owner, (example, row) in enumerate(zip(examples, rows, strict=True)):
            found += self._tagged(row, example.words, example.labels, owner, first=0)
        return found

    def _tagged(
        self, row: Encoding, words: Sequence[str], labels: Sequence[int], owner: int, *, first: int
    ) -> Iterator[Unit]:
        if len(row.ids) > self.max_length and len(words) > 1:
            half = len(words) // 2
            for at, until in ((0, half), (half, len(words))):
                part = self._pieces.encode(list(words[at:until]), is_pretokenized=True)
                yield from self._tagged(part, words[at:until], labels[at:until], owner, first=first + at)
            return
        ids, types = (piece[: self.max_length] for piece in self._row(row))
        marks = np.full(len(ids), IGNORED, np.int32)
        where: list[int] = []
        seen: set[int] = set()
        for at, word in enumerate(row.word_ids[: self.max_length]):
            if word is not None and word not in seen:
                seen.add(word)
                marks[at] = labels[word]
                where.append(first + word)
        yield Unit([ids], [types], labels=marks, owner=owner, words=where, cut=len(row.ids) > self.max_length)

    def _qa(self, task: Task, examples: Sequence[QaExample], _: int) -> list[Unit]:
        """A context longer than an input gives several windows; an answer not in a window gives (0, 0)."""
        found = []
        stride = min(STRIDE, self.max_length // 4)
        questions = self._questions([e.question for e in examples], self.max_length - 2 * stride)
        self._tokenizer.enable_truncation(self.max_length, stride=stride, strategy="only_second")
        try:
            rows = self._pieces.encode_batch([(q, e.context) for (q, _), e in zip(questions, examples, strict=True)])
        finally:
            self._tokenizer.no_truncation()
        for owner, (example, row) in enumerate(zip(examples, rows, strict=True)):
            placed = self._pieces.place(example.context)  # offsets are of the composed context, answers of the original
            for piece in (row, *row.overflowing):
                spans: Spans = [
                    None if part != 1 else (a, b) if placed is None else placed.original(a, b)
                    for part, (a, b) in zip(piece.sequence_ids, piece.offsets, strict=True)
                ]
                start, end = 0, 0
                if example.answers:
                    answer = example.answers[0]  # some of SQuAD's start or end with a blank, which is in no token
                    at = example.starts[0] + len(answer) - len(answer.lstrip())
                    start, end = span_tokens(spans, at, at + len(answer.strip()))
                ids, types = self._row(piece)
                found.append(Unit([ids], [types], (start, end), owner=owner, spans=spans, cut=questions[owner][1]))
        return found

    def _questions(self, texts: Sequence[str], longest: int) -> list[tuple[str, bool]]:
        """Leave room for a window of the context: questions cut to `longest` tokens, and whether they were."""
        room = longest - self._tokenizer.num_special_tokens_to_add(True)
        found = []
        rows = self._pieces.encode_batch_fast(list(texts), add_special_tokens=False)
        for text, row in zip(texts, rows, strict=True):
            long = len(row.ids) > room
            if long:  # only now with offsets, which take longer
                offsets = self._pieces.encode(text, add_special_tokens=False).offsets
                text = self._pieces.read(text)[: offsets[room - 1][1]]
            found.append((text, long))
        return found


_FORMATS: dict[str, Callable[[Inputs, Task, Sequence[Any], int], list[Unit]]] = {
    "pair": Inputs._pair,
    "single": Inputs._single,
    "regression": Inputs._regression,
    "choice": Inputs._choice,
    "qa": Inputs._qa,
    "tagging": Inputs._tagging,
    "mlm": Inputs._mlm,
    "contrastive": Inputs._contrastive,
    "image-text": Inputs._caption,
}


def pad_rows(rows: Sequence[Ids], fill: int) -> npt.NDArray[np.int64]:
    """Right-pad rows into one array (rows, longest)."""
    out = np.full((len(rows), max(len(row) for row in rows)), fill, np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def collate(form: str, units: Sequence[Unit], *, pad_id: int, segments: bool = True) -> Arrays:
    """Pad units of one format into the arrays that the model takes.

    Args:
        form: the format, a key of `xt.core.data.tasks.FORMATS`.
        units: at least one.
        pad_id: the padding token.
        segments: whether the encoder has more than one segment.

    Gives input_ids and attention_mask (rows, tokens), token_type_ids when any is not 0, and by format: labels
    (units,) or (units, 2) or (rows, tokens); choices (units, most choices), -1 where there is none; parts (rows,);
    owners (rows,), the image of each row, or a hash of each text (contrastive).
    """
    rows = [row for unit in units for row in unit.rows]
    ids = pad_rows(rows, pad_id)
    mask = (np.arange(ids.shape[1])[None, :] < np.array([len(r) for r in rows])[:, None]).astype(np.int64)
    arrays: Arrays = {"input_ids": ids, "attention_mask": mask}
    if segments:
        types = pad_rows([t for unit in units for t in unit.types], 0)
        if types.any():
            arrays["token_type_ids"] = types
    return arrays | _TARGETS.get(form, _nothing)(units)


def _nothing(units: Sequence[Unit]) -> Arrays:
    return {}


def _labels(units: Sequence[Unit]) -> Arrays:
    return {"labels": np.array([u.targets[0] for u in units], np.int64)}


def _choices(units: Sequence[Unit]) -> Arrays:
    places = np.full((len(units), max(len(u.rows) for u in units)), -1, np.int64)
    at = 0
    for i, unit in enumerate(units):
        places[i, : len(unit.rows)] = np.arange(at, at + len(unit.rows))
        at += len(unit.rows)
    return {"choices": places, **_labels(units)}


def _pairs(units: Sequence[Unit]) -> Arrays:
    return {
        "parts": np.array([part for u in units for part in range(len(u.rows))], np.int64),
        "owners": np.array([zlib.crc32(row.tobytes()) for u in units for row in u.rows], np.int64),
    }


_TARGETS: dict[str, Callable[[Sequence[Unit]], Arrays]] = {
    "pair": _labels,
    "single": _labels,
    "regression": lambda units: {"labels": np.array([u.targets[0] for u in units], np.float32)},
    "choice": _choices,
    "qa": lambda units: {"labels": np.array([u.targets for u in units], np.int64)},
    "tagging": lambda units: {"labels": pad_rows([u.labels for u in units if u.labels is not None], IGNORED)},
    "mlm": lambda units: {"labels": pad_rows([u.labels for u in units if u.labels is not None], IGNORED)},
    "contrastive": _pairs,
    "image-text": lambda units: {"owners": np.array([u.targets[0] for u in units], np.int64)},
}
