"""Proof that a graph gives PyTorch's vectors: on real text, as it will be served, in odd batches too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from xt.core.bitext import Bitext
from xt.core.text import TextEncoder, Vectors

SENTENCES_A_LANGUAGE = 8
THRESHOLDS = {
    "fp32": {"cosine_min": 0.9999, "cosine_p1": 0.99999, "neighbour_agreement": 0.995, "batch_cosine_min": 0.99999},
    "fp16": {"cosine_min": 0.999, "cosine_p1": 0.9995, "neighbour_agreement": 0.98, "batch_cosine_min": 0.999},
    "int8": {"cosine_min": 0.98, "cosine_p1": 0.99, "neighbour_agreement": 0.95, "batch_cosine_min": 0.9999},
}
"""What a precision must reach at least (measures of `Stage`).

The cosine is the gate proper; a neighbour may change between near ties, of which a corpus of like sentences is full.
"""


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
    """Smallest cosine between a text's vector alone and the same text's in a batch of mixed lengths."""
    megabytes: float

    def failures(self, thresholds: dict[str, float]) -> list[str]:
        """Name the measures that stay below their thresholds."""
        values = asdict(self)
        return [
            f"{self.stage}: {key} {values[key]:.6f} is below {least}"
            for key, least in thresholds.items()
            if not values[key] >= least
        ]


@dataclass(frozen=True)
class ParityTexts:
    """Foreign sentences with their English translations, some of every language."""

    foreign: tuple[str, ...]
    english: tuple[str, ...]
    languages: int

    @classmethod
    def sample(cls, corpus: Sequence[Bitext], each: int = SENTENCES_A_LANGUAGE) -> ParityTexts:
        """Take `each` pairs of every language, spread evenly, in a fixed order."""
        foreign: list[str] = []
        english: list[str] = []
        for bitext in corpus:
            rows = np.unique(np.linspace(0, len(bitext.foreign) - 1, each).astype(int))
            foreign += [bitext.foreign[i] for i in rows]
            english += [bitext.english[i] for i in rows]
        return cls(tuple(foreign), tuple(dict.fromkeys(english)), len(corpus))


def cosines(a: Vectors, b: Vectors) -> Vectors:
    """Row by row cosine of two (n, dim) arrays, in float64 inside: (n,)."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    return np.asarray((x * y).sum(1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)), np.float32)


def reference(encoder: TextEncoder, texts: ParityTexts) -> tuple[Vectors, Vectors]:
    """Vectors of the foreign and the English sentences by PyTorch."""
    return encoder.encode(texts.foreign).vectors, encoder.encode(texts.english).vectors


def measure(
    stage: str, encoder: TextEncoder, expected: tuple[Vectors, Vectors], texts: ParityTexts, megabytes: float
) -> Stage:
    """Compare an encoder with the reference vectors."""
    foreign = encoder.encode(texts.foreign).vectors
    english = encoder.encode(texts.english).vectors
    same = np.concatenate([cosines(foreign, expected[0]), cosines(english, expected[1])])
    nearest = (foreign @ english.T).argmax(1)
    nearest_expected = (expected[0] @ expected[1].T).argmax(1)
    return Stage(
        stage=stage,
        cosine_min=float(same.min()),
        cosine_p1=float(np.quantile(same, 0.01)),
        cosine_mean=float(same.mean()),
        neighbour_agreement=float((nearest == nearest_expected).mean()),
        batch_cosine_min=batch_invariance(encoder, texts.foreign),
        megabytes=round(megabytes, 1),
    )


def batch_invariance(encoder: TextEncoder, texts: Sequence[str], count: int = 32) -> float:
    """Smallest cosine between texts encoded one by one and in one padded batch of mixed lengths."""
    rows = np.unique(np.linspace(0, len(texts) - 1, count).astype(int))
    some = [texts[i] for i in rows]
    longest = max(texts, key=len)
    together = encoder.encode([*some, longest], token_budget=1 << 20).vectors[: len(some)]
    alone = np.concatenate([encoder.encode([text]).vectors for text in some])
    return float(cosines(alone, together).min())


def as_json(stages: Sequence[Stage], texts: ParityTexts, precision: str, passed: bool) -> dict[str, Any]:
    """What `parity.json` and the manifest keep."""
    return {
        "sentences": len(texts.foreign) + len(texts.english),
        "languages": texts.languages,
        "thresholds": THRESHOLDS[precision],
        "passed": passed,
        "stages": [asdict(s) for s in stages],
    }
