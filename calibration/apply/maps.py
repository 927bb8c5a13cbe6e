"""Maps from a confidence to a calibrated one: applying them, and keeping them as JSON.

Each takes `confidence` (n,), the probability of the answer given, and returns (n,) in [0, 1]. Platt's, which is of
retrieval alone, reads `scores` (n, k) too: similarities in any order, -inf for a candidate that is absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.core.errors import XtError

Floats = npt.NDArray[np.float64]
EDGE = 1e-6
"""Confidences are kept this far from 0 and 1 where a logarithm is taken of them."""
NEAR = 10
"""Candidates that the margin of the best one is measured against."""


def logit(p: Floats) -> Floats:
    """Log odds of probabilities, kept within `EDGE` of 0 and 1."""
    p = np.clip(p, EDGE, 1 - EDGE)
    return np.asarray(np.log(p) - np.log1p(-p))


def sigmoid(x: Floats) -> Floats:
    """Return the inverse of `logit`."""
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -40, 40))))


def is_sorted(scores: Floats) -> bool:
    """Return whether every row of (n, k) is best first; a row that holds NaN is not.

    >>> is_sorted(np.array([[0.9, 0.9, -np.inf]])), is_sorted(np.array([[0.8, 0.9]]))
    (True, False)
    """
    return bool((scores[:, :-1] >= scores[:, 1:]).all()) and not bool(np.isnan(scores[:, :1]).any())


def best_first(scores: npt.NDArray[Any]) -> Floats:
    """Return the similarities (n, k) with every row best first; the same array where they are so already."""
    scores = np.asarray(scores, np.float64)
    return scores if is_sorted(scores) else -np.sort(-scores, axis=1)


def near(scores: npt.NDArray[Any]) -> Floats:
    """Mean cosine of the candidates after the best, up to the tenth: (n,); of a lone candidate its own.

    scores (n, k) in any order, k at least 1; -inf is an absent candidate.
    """
    scores = best_first(scores)
    if scores.shape[1] == 1:
        return np.asarray(scores[:, 0])
    rest = scores[:, 1:NEAR]
    there = np.isfinite(rest)
    if there.all():
        return np.asarray(rest.mean(1))
    count = there.sum(1)
    mean = np.where(there, rest, 0.0).sum(1) / np.maximum(count, 1)
    return np.asarray(np.where(count > 0, mean, scores[:, 0]))


def margin_features(confidence: Floats, scores: npt.NDArray[Any]) -> Floats:
    """Return what Platt's map reads of a query, (n, 4).

    Log odds of the confidence; the best cosine; its lead over the second; its lead over the mean of the next nine (the
    margin of Artetxe & Schwenk 2019, arXiv 1811.01136, as a difference). A lone candidate leads by 0.
    """
    scores = best_first(scores)
    best = scores[:, 0]
    second = np.where(np.isfinite(scores[:, 1]), scores[:, 1], best) if scores.shape[1] > 1 else best
    return np.stack([logit(confidence), best, best - second, best - near(scores)], axis=1)


@dataclass(frozen=True)
class Platt:
    """A logistic function of margin features (Platt 1999): `sigmoid(bias + weights . (features - mean) / scale)`."""

    bias: float
    weights: tuple[float, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    kind = "platt"

    def __call__(self, confidence: Floats, scores: npt.NDArray[Any]) -> Floats:
        """Apply it."""
        features = (margin_features(confidence, scores) - np.array(self.mean)) / np.array(self.scale)
        return sigmoid(self.bias + features @ np.array(self.weights))


@dataclass(frozen=True)
class Beta:
    """`sigmoid(a ln c - b ln(1 - c) + m)` (Kull et al. 2017, AISTATS, section 4)."""

    a: float
    b: float
    m: float
    kind = "beta"

    def __call__(self, confidence: Floats, scores: npt.NDArray[Any] | None = None) -> Floats:
        """Apply it; the scores play no part."""
        c = np.clip(confidence, EDGE, 1 - EDGE)
        return sigmoid(self.a * np.log(c) - self.b * np.log1p(-c) + self.m)


@dataclass(frozen=True)
class Isotonic:
    """A rising function, linear between points (Zadrozny & Elkan 2002)."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    kind = "isotonic"

    def __call__(self, confidence: Floats, scores: npt.NDArray[Any] | None = None) -> Floats:
        """Apply it; beyond the points it is constant; the scores play no part."""
        return np.asarray(np.interp(confidence, self.x, self.y))


@dataclass(frozen=True)
class Histogram:
    """The share of right answers in each bin (Zadrozny & Elkan 2001); bin i holds edges[i-1] < c <= edges[i]."""

    edges: tuple[float, ...]
    """The inner edges, rising."""
    values: tuple[float, ...]
    """One more than the edges."""
    kind = "histogram"

    def __call__(self, confidence: Floats, scores: npt.NDArray[Any] | None = None) -> Floats:
        """Apply it; the scores play no part."""
        return np.asarray(self.values)[np.searchsorted(self.edges, confidence, side="left")]


ConfidenceMap = Platt | Beta | Isotonic | Histogram
PlainMap = Beta | Isotonic | Histogram
"""Those that read the confidence alone: of any answer, with similarities or without."""
MAPS: dict[str, type[Any]] = {m.kind: m for m in (Platt, Beta, Isotonic, Histogram)}


def to_json(fitted: ConfidenceMap) -> dict[str, Any]:
    """Return it as calibration.json keeps it."""
    values = {name: getattr(fitted, name) for name in fitted.__dataclass_fields__}
    return {"kind": fitted.kind, **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}}


def from_json(value: Mapping[str, Any]) -> ConfidenceMap:
    """Read what `to_json` wrote; XtError for what no `to_json` writes."""
    kind = value.get("kind")
    if kind not in MAPS:
        raise XtError(f"Unknown map of confidences {kind!r}.", f"Known: {', '.join(MAPS)}.")
    fields = {}
    for name in MAPS[kind].__dataclass_fields__:
        found = value[name]
        numbers = [float(v) for v in found] if isinstance(found, list) else [float(found)]
        if not np.isfinite(numbers).all():
            raise XtError(f"The map of confidences has a {name} that is no number.", "Fit it again.")
        fields[name] = tuple(numbers) if isinstance(found, list) else numbers[0]
    fitted: ConfidenceMap = MAPS[kind](**fields)
    if isinstance(fitted, Isotonic) and (
        len(fitted.x) != len(fitted.y) or not fitted.x or list(fitted.x) != sorted(fitted.x)
    ):
        raise XtError("An isotonic map needs as many y as x, and x rising.", "Fit it again.")
    if isinstance(fitted, Histogram) and len(fitted.values) != len(fitted.edges) + 1:
        raise XtError("A histogram needs one value more than inner edges.", "Fit it again.")
    if isinstance(fitted, Platt) and not len(fitted.weights) == len(fitted.mean) == len(fitted.scale) == 4:
        raise XtError("Platt's map needs four weights, means and scales.", "Fit it again.")
    return fitted
