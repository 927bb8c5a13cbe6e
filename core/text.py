"""The text encoder, as every engine runs it: `pre` tokenises, `core` runs the network, `post` puts rows in order.

No torch and no transformers here: this file is what a served model runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from xt.core.errors import XtError
from xt.core.spec import EncoderSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Vectors = npt.NDArray[np.float32]
TOKEN_BUDGET = 1024
"""Tokens, padding included, that one forward pass takes: larger batches fall out of a CPU's cache."""


class Engine(Protocol):
    """The network: pooled and, where the spec says so, normalised vectors of one micro-batch."""

    def forward(self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]) -> Vectors:
        """(batch, tokens) of int64, twice -> (batch, dim) of float32."""
        ...


@dataclass(frozen=True)
class Encoded:
    """What encoding gives, in the order of the texts."""

    vectors: Vectors
    """(texts, dim), float32."""
    tokens: npt.NDArray[np.int32]
    """(texts,) tokens that were read, special tokens and prefix included."""
    truncated: npt.NDArray[np.bool_]
    """(texts,) whether a text was cut."""


class TooLong(XtError):
    """A text has more tokens than the encoder reads."""


def open_tokenizer(file: Path) -> Tokenizer:
    """Open a tokenizer.json, padding and truncation off; XtError when there is none or it cannot be read."""
    from tokenizers import Tokenizer

    if not file.is_file():
        raise XtError(f"There is no tokenizer {file}.", "Make or copy the folder again.")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exception
        raise XtError(f"{file} is not a readable tokenizer: {error}", "Copy the folder again.") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


class TextTokenizer:
    """A fast tokenizer that never truncates silently."""

    def __init__(self, file: Path, max_length: int) -> None:
        self._tokenizer = open_tokenizer(file)
        self.max_length = max_length

    def __call__(
        self, texts: Sequence[str], *, prefix: str = "", truncate: bool = False
    ) -> tuple[list[npt.NDArray[np.int64]], npt.NDArray[np.bool_]]:
        """Tokenise `texts`, each behind `prefix`: token ids per text, and whether it was cut.

        Raises TooLong for the first text over `max_length` tokens unless `truncate`, XtError for what is not text.
        """
        for index, text in enumerate(texts):
            check_text(text, f"text {index}")
        ids = [np.asarray(e.ids, np.int64) for e in self._tokenizer.encode_batch_fast([prefix + t for t in texts])]
        cut = np.array([len(row) > self.max_length for row in ids], bool)
        if cut.any() and not truncate:
            index = int(cut.argmax())
            raise TooLong(
                f"text {index} has {len(ids[index])} tokens; the encoder reads at most {self.max_length}.",
                "Split it, or ask for truncation (truncate=true, --truncate).",
            )
        for index in np.flatnonzero(cut):
            ids[index] = np.concatenate([ids[index][: self.max_length - 1], ids[index][-1:]])
        return ids, cut


def check_text(text: object, where: str) -> None:
    """Raise XtError unless `text` is a string that can be written as UTF-8 and is not blank."""
    if not isinstance(text, str):
        raise XtError(f"{where} is {type(text).__name__}, expected text.")
    if not text.strip():
        raise XtError(f"{where} is empty.", "Remove it.")
    if "\0" in text:
        raise XtError(f"{where} holds a NUL character.", "Remove it.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise XtError(f"{where} is not valid Unicode: {error.reason} at {error.start}.", "Repair it.") from None


def micro_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Cut indices, sorted by length, into batches of at most `budget` tokens, padding included.

    A text longer than the budget gets a batch of its own.

    >>> list(micro_batches([3, 9, 2, 3], budget=10))
    [[1], [0, 3, 2]]
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batch: list[int] = []
    for index in order:
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def pad(rows: Sequence[npt.NDArray[np.int64]], pad_id: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Right-pad rows of token ids: ids and 0/1 mask, both (rows, longest)."""
    width = max(len(row) for row in rows)
    ids = np.full((len(rows), width), pad_id, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return ids, mask


class TextEncoder:
    """Text to vectors, whatever engine runs the network."""

    def __init__(self, spec: EncoderSpec, tokenizer: TextTokenizer, engine: Engine, *, pad_id: int = 1) -> None:
        self.spec = spec
        self.tokenizer = tokenizer
        self.engine = engine
        self.pad_id = pad_id

    def encode(
        self,
        texts: Sequence[str],
        *,
        prefix: str | None = None,
        truncate: bool = False,
        token_budget: int = TOKEN_BUDGET,
    ) -> Encoded:
        """Encode `texts`.

        Args:
            texts: any number of them.
            prefix: the role whose prefix goes before each (None: the encoder's default; "none": nothing).
            truncate: cut a text that is too long, and flag it, instead of raising.
            token_budget: tokens, padding included, of one forward pass.
        """
        ids, cut = self.tokenizer(texts, prefix=self.spec.prefix(prefix), truncate=truncate)
        return Encoded(self.encode_ids(ids, token_budget), np.array([len(r) for r in ids], np.int32), cut)

    def encode_ids(self, ids: Sequence[npt.NDArray[np.int64]], token_budget: int = TOKEN_BUDGET) -> Vectors:
        """Run the network over rows of token ids: (rows, dim), in the order given."""
        out = np.empty((len(ids), self.spec.dim), np.float32)
        for batch in micro_batches([len(row) for row in ids], token_budget):
            out[batch] = self.engine.forward(*pad([ids[i] for i in batch], self.pad_id))
        return out
