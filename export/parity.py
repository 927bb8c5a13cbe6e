"""Parity of a graph with PyTorch's vectors: on real text, as it will be served, in odd batches too."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from xt.core.characters import compose
from xt.core.data.bitext import Bitext
from xt.core.encoder.buckets import bucket
from xt.core.encoder.text import TextEncoder, Vectors, pad

SENTENCES_A_LANGUAGE = 8
LONG_SENTENCES = (2, 4, 8, 16, 80)
"""How many sentences make a longer text; the longest is cut at the encoder's limit."""
BATCH_SIZES = (2, 7, 32)
GOLDEN = 16
"""Texts or inputs whose answers an exported model keeps, to be compared when it is loaded."""
GOLDEN_DECOMPOSED = 4
"""Of them those that stand there a second time, decomposed, with the answers to their composed form."""
Reference = tuple[Vectors, Vectors, Vectors, Vectors]
"""Vectors of the foreign, the English and the longer texts, and of `both_forms` in one of them."""


@dataclass(frozen=True)
class Stage:
    """How near one graph comes to PyTorch fp32, over all texts."""

    stage: str
    cosine_min: float
    cosine_p1: float
    """First percentile of the cosine between the two vectors of a text."""
    cosine_mean: float
    neighbour_agreement: float
    """Share of the foreign sentences whose nearest English sentence is the same by both."""
    batch_cosine_min: float
    """Smallest cosine between a text's vector alone and the same text's in batches of several sizes and lengths."""
    bit_equal: float
    """Share of those texts whose two vectors are the same bit for bit."""
    padding_cosine_min: float
    """Smallest cosine between a text's vector and the same with far more padding than xt ever gives it."""
    megabytes: float

    def __str__(self) -> str:
        """Return the line that an export reports."""
        return (
            f"{self.stage}: {self.megabytes:.0f} MB, cosine min {self.cosine_min:.5f} p1 {self.cosine_p1:.5f} mean "
            f"{self.cosine_mean:.5f}, neighbours {self.neighbour_agreement:.1%}, batch {self.batch_cosine_min:.6f}, "
            f"bit-equal {self.bit_equal:.0%}"
        )


@dataclass(frozen=True)
class ParityTexts:
    """Foreign sentences with their English translations, some of every language, and longer texts made of them."""

    foreign: tuple[str, ...]
    translations: tuple[str, ...]
    """The English sentence of each foreign one."""
    english: tuple[str, ...]
    """Every English sentence once."""
    of_language: tuple[str, ...]
    """The language of each foreign sentence."""
    long: tuple[str, ...]
    """Several sentences of one language in a row."""

    @cached_property
    def both_forms(self) -> tuple[str, ...]:
        """A foreign sentence of each language that Unicode writes in two forms, composed (NFC) and decomposed (NFD)."""
        found: dict[str, str] = {}
        for text, language in zip(self.foreign, self.of_language, strict=True):
            if compose(text) != decompose(text):
                found.setdefault(language, text)
        return tuple(found.values())

    @property
    def sentences(self) -> int:
        """Count the texts that are compared."""
        return len(self.foreign) + len(self.english) + len(self.long) + len(self.both_forms)

    @property
    def languages(self) -> int:
        """Count the languages."""
        return len(set(self.of_language))

    @classmethod
    def sample(cls, corpus: Sequence[Bitext], each: int = SENTENCES_A_LANGUAGE) -> ParityTexts:
        """Take `each` pairs of every language, spread evenly, in a fixed order."""
        foreign: list[str] = []
        english: list[str] = []
        of_language: list[str] = []
        long: list[str] = []
        for number, bitext in enumerate(corpus):
            rows = np.unique(np.linspace(0, len(bitext.foreign) - 1, each).astype(int))
            foreign += [bitext.foreign[i] for i in rows]
            english += [bitext.english[i] for i in rows]
            of_language += [bitext.language] * len(rows)
            long.append(" ".join(bitext.foreign[: LONG_SENTENCES[number % len(LONG_SENTENCES)]]))
        every = tuple(dict.fromkeys(english))
        return cls(tuple(foreign), tuple(english), every, tuple(of_language), tuple(long))


def cosines(a: Vectors, b: Vectors) -> Vectors:
    """Return the cosine of each row of two (n, dim) arrays, in float64 inside: (n,)."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    return np.asarray((x * y).sum(1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)), np.float32)


def decompose(text: str) -> str:
    """Return `text` decomposed (NFD), as some systems write it: every mark a character of its own."""
    return unicodedata.normalize("NFD", text)


def written(item: Any, form: Callable[[str], str]) -> Any:
    """Return a text, or an input of several, with all its texts in a form of Unicode."""
    return form(item) if isinstance(item, str) else type(item)(written(part, form) for part in item)


def spread(count: int, most: int) -> list[int]:
    """Return at most `most` of the positions below `count`, spread evenly.

    >>> spread(9, 3), spread(2, 5), spread(0, 3)
    ([0, 4, 8], [0, 1], [])
    """
    return [int(i) for i in np.unique(np.linspace(0, count - 1, min(most, count)).astype(int))]


def golden(items: Sequence[Any]) -> list[Any]:
    """Return the texts or inputs whose answers a model keeps."""
    return [items[i] for i in spread(len(items), GOLDEN)]


def in_both_forms(items: Sequence[Any], most: int) -> list[int]:
    """Return the positions of at most `most` texts or inputs that differ composed and decomposed, spread evenly."""
    found = [i for i, item in enumerate(items) if written(item, compose) != written(item, decompose)]
    return [found[i] for i in spread(len(found), most)]


def reference(encoder: TextEncoder, texts: ParityTexts, form: Callable[[str], str] = compose) -> Reference:
    """Encode the texts, and `both_forms` in a form."""
    long = encoder.encode(texts.long, truncate=True).vectors
    formed = encoder.encode([form(text) for text in texts.both_forms]).vectors
    return encoder.encode(texts.foreign).vectors, encoder.encode(texts.english).vectors, long, formed


def measure(
    stage: str,
    encoder: TextEncoder,
    expected: Reference,
    texts: ParityTexts,
    megabytes: float,
) -> Stage:
    """Compare an encoder with the reference vectors: decomposed texts with those of their composed form, too."""
    found = reference(encoder, texts, decompose)
    same = np.concatenate([cosines(mine, theirs) for mine, theirs in zip(found, expected, strict=True)])
    nearest = (found[0] @ found[1].T).argmax(1)
    nearest_expected = (expected[0] @ expected[1].T).argmax(1)
    batch_cosine, bit_equal = batch_invariance(encoder, [*texts.foreign, *texts.long])
    return Stage(
        stage=stage,
        cosine_min=float(same.min()),
        cosine_p1=float(np.quantile(same, 0.01)),
        cosine_mean=float(same.mean()),
        neighbour_agreement=float((nearest == nearest_expected).mean()),
        batch_cosine_min=batch_cosine,
        bit_equal=bit_equal,
        padding_cosine_min=padding_invariance(encoder, texts.foreign),
        megabytes=round(megabytes, 1),
    )


def batch_invariance(encoder: TextEncoder, texts: Sequence[str], count: int = 32) -> tuple[float, float]:
    """Compare texts encoded one by one with the same in batches of several sizes, neighbours of all lengths.

    Gives the smallest cosine, and the share of comparisons that are equal bit for bit.
    """
    some = [texts[i] for i in spread(len(texts), count)]
    alone = np.concatenate([encoder.encode([text], truncate=True).vectors for text in some])
    lowest, equal, compared = 1.0, 0, 0
    for size in BATCH_SIZES:
        for start in range(0, len(some), size):
            batch = some[start : start + size]
            together = encoder.encode(batch, truncate=True, token_budget=1 << 20).vectors
            mine = alone[start : start + size]
            lowest = min(lowest, float(cosines(mine, together).min()))
            equal += int((mine == together).all(1).sum())
            compared += len(batch)
    return lowest, equal / compared


def padding_invariance(encoder: TextEncoder, texts: Sequence[str], count: int = 8, extra: int = 96) -> float:
    """Return the smallest cosine between texts in their own width and with up to `extra` more tokens of padding."""
    ids, _ = encoder.tokenizer(
        [texts[i] for i in spread(len(texts), count)], prefix=encoder.spec.prefix(None), truncate=True
    )
    own = encoder.encode_ids(ids)
    limit = encoder.spec.max_length
    widths = [min(bucket(len(row)) + extra, limit) for row in ids]
    wide = [encoder.engine.forward(*pad([r], encoder.pad_id, width=w)) for r, w in zip(ids, widths, strict=True)]
    return float(cosines(own, np.concatenate(wide)).min())
