"""The text encoder, as every engine runs it: `pre` tokenises, `core` runs the network, `post` puts rows in order.

No torch and no transformers here: this file is what a served model runs.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from xt.core.arguments import as_id_rows, as_list, flag
from xt.core.characters import Composed, compose, is_empty, place
from xt.core.encoder.buckets import Buckets, bucket, micro_batches
from xt.core.encoder.spec import EncoderSpec
from xt.core.errors import XtError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

Vectors = npt.NDArray[np.float32]
TOKENIZED_CHARACTERS = 32768
"""Characters tokenised in one call: the tokenizer's threads take up no other call before they are done with one."""
SHORT_CHARACTERS = 1024
"""Up to here a call does without those threads, and so never waits for them."""
TOKEN_BUDGET = 1024
"""Tokens, padding included, that one forward pass takes: larger batches fall out of a CPU's cache."""


class Engine(Protocol):
    """The network: pooled and, where the spec says so, normalised vectors of one micro-batch.

    An engine with an attribute `buckets` gets micro-batches of one width each, in the shapes that it says.
    """

    def forward(self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]) -> Vectors:
        """Return the vectors (batch, dim), float32, of two arrays (batch, tokens) of int64."""
        ...


class ConcurrentEngine(Engine, Protocol):
    """An engine that runs several micro-batches at once, each on its share of the cores."""

    workers: int

    def forward_single_thread(self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]) -> Vectors:
        """Return what `forward` does; called from up to `workers` threads."""
        ...


@dataclass(frozen=True)
class Encoded:
    """The result of encoding, in the order of the texts."""

    vectors: Vectors
    """(texts, dim), float32."""
    tokens: npt.NDArray[np.int32]
    """(texts,) tokens that were read, special tokens and prefix included."""
    truncated: npt.NDArray[np.bool_]
    """(texts,) whether a text was cut."""


class Encoder(Protocol):
    """Whatever turns texts into vectors: PyTorch, ONNX Runtime, or a server."""

    def encode(self, texts: Sequence[str], *, prefix: str | None = None, truncate: bool = False) -> Encoded:
        """See `TextEncoder.encode`."""
        ...


class TooLong(XtError):
    """A text has more tokens than the encoder reads."""


class Pieces:
    """A tokenizer that composes (NFC) whatever it reads: the one place where xt turns text into token ids.

    Offsets count characters of the composed text; `xt.core.characters.place` leads back to the original.
    """

    def __init__(self, tokenizer: Tokenizer, *, composing: bool = True) -> None:
        """Take a tokenizer; `composing` is False for what earlier releases tokenised as it was written."""
        self.tokenizer = tokenizer
        self.composing = composing
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    def encode(self, text: Any, pair: str | None = None, **options: bool) -> Encoding:
        """Encode one text, two, or a list of words (`is_pretokenized`)."""
        return self.tokenizer.encode(self.read(text), None if pair is None else self.read(pair), **options)

    def encode_batch(self, texts: Iterable[Any], **options: bool) -> list[Encoding]:
        """Encode texts, pairs of them, or lists of words, with offsets."""
        return list(self.tokenizer.encode_batch([self.read(text) for text in texts], **options))

    def encode_batch_fast(self, texts: Iterable[Any], **options: bool) -> list[Encoding]:
        """Encode texts, pairs of them, or lists of words, without offsets."""
        return list(self.tokenizer.encode_batch_fast([self.read(text) for text in texts], **options))

    def framing(self) -> tuple[list[int], list[int]]:
        """Return the special tokens that the tokenizer puts before every text and after it; either may be none."""
        last = self.tokenizer.id_to_token(self.tokenizer.get_vocab_size(with_added_tokens=False) - 1)
        for sample in ("a", "0", ".", last or ""):  # the first that is any token
            with contextlib.suppress(Exception):  # a bare one: a vocabulary of words without one for unknown ones
                row = self.encode(sample)
                inside = [at for at, special in enumerate(row.special_tokens_mask) if not special]
                if inside:
                    return list(row.ids[: inside[0]]), list(row.ids[inside[-1] + 1 :])
        return [], []

    def place(self, text: str) -> Composed | None:
        """Return where the characters of offsets stand in `text`; None when they count its own."""
        return place(text) if self.composing else None

    def read(self, text: Any) -> Any:
        """Return what is tokenised of a text, of two, or of a list of words."""
        if not self.composing:
            return text
        return compose(text) if isinstance(text, str) else type(text)(map(compose, text))


def open_tokenizer(file: Path) -> Pieces:
    """Open a tokenizer.json, padding and truncation off; XtError when there is none or it cannot be read."""
    from tokenizers import Tokenizer

    if not file.is_file():
        raise XtError(f"There is no tokenizer {file}.", "Make or copy the folder again.")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exception
        raise XtError(f"{file} is not a readable tokenizer: {error}", "Copy the folder again.") from error
    return Pieces(tokenizer)


class TextTokenizer:
    """A fast tokenizer that never truncates silently."""

    def __init__(self, file: Path, max_length: int) -> None:
        self._pieces = open_tokenizer(file)
        self.max_length = max_length
        self.vocabulary = int(self._pieces.tokenizer.get_vocab_size())
        self.first, self.last = self._pieces.framing()
        """Token ids that stand before and after every text."""

    def as_written(self) -> TextTokenizer:
        """Return this tokenizer as earlier releases ran it: without composing."""
        other = copy.copy(self)
        other._pieces = Pieces(self._pieces.tokenizer, composing=False)
        return other

    def __call__(
        self, texts: Sequence[str], *, prefix: str = "", truncate: bool = False
    ) -> tuple[list[npt.NDArray[np.int64]], npt.NDArray[np.bool_]]:
        """Tokenise `texts`, composed (NFC), each behind `prefix`: token ids per text, and whether it was cut.

        Raises TooLong for the first text over `max_length` tokens unless `truncate`, XtError for what is not text.
        """
        texts = as_texts(texts)
        ids = [np.asarray(row, np.int64) for row in self._tokenize([prefix + text for text in texts])]
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

    def _tokenize(self, texts: list[str]) -> Iterator[list[int]]:
        """Return the token ids of each text, in calls of bounded length, so that concurrent callers take turns."""
        if sum(map(len, texts)) <= SHORT_CHARACTERS:
            yield from (self._pieces.encode(text).ids for text in texts)
            return
        batch: list[str] = []
        characters = 0
        for text in texts:
            if batch and characters + len(text) > TOKENIZED_CHARACTERS:
                yield from (encoding.ids for encoding in self._pieces.encode_batch_fast(batch))
                batch, characters = [], 0
            batch.append(text)
            characters += len(text)
        yield from (encoding.ids for encoding in self._pieces.encode_batch_fast(batch))


def check_text(text: object, where: str, *, word: bool = False) -> None:
    """Raise XtError unless `text` is a string that can be written as UTF-8 and holds something to read.

    What holds nothing is in `xt.core.characters.is_empty`. Of a `word` among others (treebanks have such of one format
    character) it is enough that it is not white space.
    """
    if is_missing(text):
        raise XtError(f"{where} is missing ({text}), expected text.", "Remove it, or give its text.")
    if not isinstance(text, str):
        raise XtError(f"{where} is {type(text).__name__}, expected text.")
    if not text.strip():
        raise XtError(f"{where} is empty.", "Remove it.")
    if "\0" in text:
        raise XtError(f"{where} holds a NUL character.", "Remove it.")
    if not word and is_empty(text):
        shown = ", ".join(f"U+{ord(character):04X}" for character in list(dict.fromkeys(text[:64]))[:5])
        raise XtError(
            f"{where} is empty: it holds nothing but white space, control, format or lost characters ({shown}).",
            "Remove it.",
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise XtError(f"{where} is not valid Unicode: {error.reason} at {error.start}.", "Repair it.") from None


def is_missing(value: object) -> bool:
    """Return whether a value stands for none: None, NaN (as pandas marks an empty cell), pandas' NA and NaT."""
    named = type(value).__name__ in ("NAType", "NaTType")
    return value is None or named or (isinstance(value, float) and math.isnan(value))


def as_texts(values: object, name: str = "texts", one: str = "text") -> list[str]:
    """Return a sequence of texts as a list in its own order (see `as_list`), each checked by `check_text`.

    Args:
        values: the sequence.
        name: what errors call it.
        one: what errors call one of it, before its place.

    >>> as_texts(text for text in ("guten Morgen", "hello"))
    ['guten Morgen', 'hello']
    """
    texts = as_list(values, name)
    for index, text in enumerate(texts):
        check_text(text, f"{one} {index}")
    return texts


def pad(
    rows: Sequence[npt.NDArray[np.signedinteger[Any]]], pad_id: int, *, width: int = 0
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Right-pad rows of token ids, to at least `width`: ids and 0/1 mask, both (rows, tokens)."""
    width = max(width, max(len(row) for row in rows))
    ids = np.full((len(rows), width), pad_id, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return ids, mask


def give_back_memory() -> None:
    """Return to the system what compiling left unused in the allocator (a tenth of a served model), where glibc can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class TextEncoder:
    """Text to vectors, whatever engine runs the network."""

    def __init__(self, spec: EncoderSpec, tokenizer: TextTokenizer, engine: Engine, *, pad_id: int = 1) -> None:
        self.spec = spec
        self.tokenizer = tokenizer
        self.engine = engine
        self.pad_id = pad_id
        self.buckets: Buckets | None = getattr(engine, "buckets", None)
        """The micro-batches of one width each, where the engine has them; a vector then depends on its text alone, bit
        for bit."""
        self.token_budget = int(getattr(engine, "token_budget", TOKEN_BUDGET))
        self.workers = int(getattr(engine, "workers", 1))
        """Micro-batches at once, from as many threads, that give the most tokens a second."""
        self.allows_extra_pass = bool(getattr(engine, "allows_extra_pass", False))
        """Whether one more, not `concurrent`, may run at the same time."""

    def encode(
        self,
        texts: Sequence[str],
        *,
        prefix: str | None = None,
        truncate: bool = False,
        token_budget: int | None = None,
    ) -> Encoded:
        """Encode `texts`.

        Args:
            texts: any number of them.
            prefix: the role whose prefix goes before each (None: the encoder's default; "none": nothing).
            truncate: cut a text that is too long, and flag it, instead of raising.
            token_budget: tokens, padding included, of one forward pass (None: what suits the engine).
        """
        ids, cut = self.tokenizer(texts, prefix=self.spec.prefix(prefix), truncate=flag(truncate, "truncate"))
        return Encoded(self.encode_ids(ids, token_budget), np.array([len(r) for r in ids], np.int32), cut)

    def encode_ids(self, ids: Sequence[npt.NDArray[np.int64]], token_budget: int | None = None) -> Vectors:
        """Run the network over rows of token ids: (rows, dim), in the order given."""
        ids = as_id_rows(ids)
        out = np.empty((len(ids), self.spec.dim), np.float32)
        budget = token_budget or self.token_budget
        batches: Iterable[list[int]] = micro_batches([len(row) for row in ids], budget, self.buckets)
        if self.workers > 1:
            batches = list(batches)
            if len(batches) >= 2 * self.workers:  # with fewer, some threads would wait for the last ones
                with ThreadPoolExecutor(self.workers) as pool:
                    vectors = pool.map(lambda batch: self.forward([ids[i] for i in batch], concurrent=True), batches)
                    for batch, rows in zip(batches, vectors, strict=True):
                        out[batch] = rows
                return out
        for batch in batches:
            out[batch] = self.forward([ids[i] for i in batch])
        return out

    def forward(self, rows: Sequence[npt.NDArray[np.int64]], *, concurrent: bool = False) -> Vectors:
        """Run one micro-batch: rows of token ids, of one width if the engine has buckets -> (rows, dim).

        `concurrent`: others run at the same time, so that one core is its share where the engine has `workers`.
        """
        if self.buckets is None:
            return self._forward(*pad(rows, self.pad_id), concurrent=concurrent)
        width = min(bucket(max(len(row) for row in rows)), self.spec.max_length)
        blank = self.buckets.rows(len(rows), width, self.token_budget) - len(rows)
        filled = [*rows, *[np.array([self.pad_id])] * blank]
        return self._forward(*pad(filled, self.pad_id, width=width), concurrent=concurrent)[: len(rows)]

    def _forward(self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64], *, concurrent: bool) -> Vectors:
        if concurrent and self.workers > 1:
            return cast("ConcurrentEngine", self.engine).forward_single_thread(ids, mask)
        return self.engine.forward(ids, mask)

    def warm_up(self) -> float:
        """Run what is slow the first time, and give the tokens a second that full micro-batches then run at.

        An engine that compiles for every shape is run in those of `Buckets.warm_shapes`; the way of a lone micro-batch,
        where it is another, with one text.
        """
        if self.buckets is not None and self.buckets.compiled:
            for rows, width in self.buckets.warm_shapes(self.spec.max_length, self.token_budget):
                self._run_blank(rows, width)
                if self.workers > 1 and rows == 1:
                    self._forward(*self._blank(rows, width), concurrent=False)
        width = min(48, self.spec.max_length)
        rows = (self.buckets or Buckets(most=self.token_budget)).full(width, self.token_budget)
        self._run_blank(rows, width)
        give_back_memory()
        start = time.perf_counter()
        for _ in range(3):
            self._run_blank(rows, width)
        return 3 * self.workers * rows * width / (time.perf_counter() - start)

    def _blank(self, rows: int, width: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        ids = np.full((rows, width), self.pad_id, np.int64)
        return ids, np.ones_like(ids)

    def _run_blank(self, rows: int, width: int) -> None:
        """Run a micro-batch of padding on each worker, all at once, since each compiles for itself."""
        if self.workers == 1:
            self._forward(*self._blank(rows, width), concurrent=False)
            return
        with ThreadPoolExecutor(self.workers) as pool:
            list(pool.map(lambda _: self._forward(*self._blank(rows, width), concurrent=True), range(self.workers)))
