"""From similarities to probabilities: applying a calibrator and keeping it as JSON.

A calibrator is called with the similarities of a query's candidates, a row for each query, and returns each candidate's
probability in its own place, whatever the order of the row: the last column is that of "none of these". -inf or NaN is
an absent candidate, whose probability is 0; where all are absent, "none of these" has all the mass. Candidates of equal
similarity have equal probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.calibration.apply import maps
from xt.core.arguments import as_scores
from xt.core.errors import XtError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RetrievalTemperature:
    """`p(j | q) = softmax_j(s_qj / T)` over the top candidates and "none of these".

    "None of these" takes part as a candidate whose similarity is `none_score`; with -inf it has no mass.
    Temperature scaling: Guo et al. 2017, arXiv 1706.04599, section 4.2.
    """

    temperature: float
    none_score: float = -math.inf

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise XtError(f"A temperature must be positive; found {self.temperature}.")

    def __call__(self, scores: npt.NDArray[Any]) -> Floats:
        """Return probabilities (n, k + 1) for similarities (n, k) in any order; the last column is "none of these".

        >>> RetrievalTemperature(1.0)(np.array([[0.0, 0.0]])).tolist()
        [[0.5, 0.5, 0.0]]
        """
        return _in_place(self._sorted, scores)

    def _sorted(self, scores: Floats) -> Floats:
        """Return the probabilities of rows that are best first, the best candidate of each present."""
        return _softmax(scores, self.none_score, self.temperature)

    def to_json(self) -> dict[str, Any]:
        """Return it as calibration.json keeps it (no mass for "none of these": null)."""
        none = self.none_score if math.isfinite(self.none_score) else None
        return {"kind": "retrieval-temperature", "temperature": self.temperature, "none_score": none}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RetrievalTemperature:
        """Read what `to_json` wrote."""
        if value.get("kind") != "retrieval-temperature":
            raise XtError(
                f"Unknown calibrator {value.get('kind')!r}.",
                "Known: retrieval-temperature, retrieval-margin, retrieval-rescaled.",
            )
        none = value.get("none_score")
        return cls(float(value["temperature"]), -math.inf if none is None else float(none))


@dataclass(frozen=True)
class RetrievalMargin:
    """A temperature whose "none of these" has the mean cosine of the next nine candidates, and a margin.

    An answer has then to stand out from its neighbours, not to reach a cosine: cosines differ in height between
    languages and corpora far more than they do around the right one. The margin is that of Artetxe & Schwenk 2019
    (arXiv 1811.01136, section 3), on the query's side, as a difference.
    """

    temperature: float
    margin: float

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.temperature) and math.isfinite(self.margin)):
            raise XtError(
                f"A temperature must be positive, a margin a number; found {self.temperature}, {self.margin}."
            )

    def __call__(self, scores: npt.NDArray[Any]) -> Floats:
        """Return probabilities (n, k + 1) for similarities (n, k) in any order; the last column is "none of these"."""
        return _in_place(self._sorted, scores)

    def _sorted(self, scores: Floats) -> Floats:
        """Return the probabilities of rows that are best first, the best candidate of each present."""
        return _softmax(scores, maps.near(scores) + self.margin, self.temperature)

    def to_json(self) -> dict[str, Any]:
        """Return it as calibration.json keeps it."""
        return {"kind": "retrieval-margin", "temperature": self.temperature, "margin": self.margin}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RetrievalMargin:
        """Read what `to_json` wrote."""
        return cls(float(value["temperature"]), float(value["margin"]))


def _in_place(calibrate: Callable[[Floats], Floats], scores: npt.NDArray[Any]) -> Floats:
    """Apply what reads similarities best first to rows (n, k) in any order; each probability goes to its own place.

    Sums are always taken in the same order, so that a candidate's probability does not depend on its place by a bit.
    """
    scores = as_scores(scores)
    n, k = scores.shape
    ordered, places = scores, None
    if not maps.is_sorted(scores):
        known = np.where(np.isnan(scores), -np.inf, scores)
        places = np.argsort(-known, axis=1, kind="stable")
        ordered = np.take_along_axis(known, places, 1)
    best = ordered[:, 0] if k else np.full(n, -np.inf)
    if np.isposinf(best).any():
        raise XtError("A similarity is infinite, so it has no probability.", "Check the vectors.")
    filled = np.isfinite(best)
    if not filled.all():
        out = np.zeros((n, k + 1))
        out[~filled, -1] = 1.0  # no candidate at all
        if filled.any():
            out[filled] = calibrate(ordered[filled])
    else:
        out = calibrate(ordered)
    if places is not None:
        np.put_along_axis(out, places, out[:, :-1].copy(), 1)
    return out


def _softmax(scores: Floats, none: float | Floats, temperature: float) -> Floats:
    """Return probabilities (n, k + 1) of similarities (n, k) and that of "none of these", in the last column."""
    p = np.empty((len(scores), scores.shape[1] + 1))
    p[:, :-1] = scores
    p[:, -1] = none
    p /= temperature
    p -= p.max(axis=1, keepdims=True)
    np.exp(p, out=p)
    p /= p.sum(axis=1, keepdims=True)
    return p


@dataclass(frozen=True)
class Rescaled:
    """A temperature, or a margin, whose confidence in the best candidate goes through a map.

    What the best candidate loses goes to "none of these"; what it gains is taken from the others and "none of these"
    in proportion. Candidates that share the best similarity each have the mapped confidence, or equal shares of all the
    mass where that is less.
    """

    base: RetrievalTemperature | RetrievalMargin
    map: maps.ConfidenceMap

    @property
    def temperature(self) -> float:
        """The temperature under the map."""
        return self.base.temperature

    def __call__(self, scores: npt.NDArray[Any]) -> Floats:
        """Return probabilities (n, k + 1) for similarities (n, k) in any order; the last column is "none of these"."""
        return _in_place(self._sorted, scores)

    def _sorted(self, scores: Floats) -> Floats:
        """Return the probabilities of rows that are best first, the best candidate of each present."""
        p = self.base._sorted(scores)
        best = scores == scores[:, :1]  # (n, k)
        ties = best.sum(1)
        before = p[:, 0].copy()
        after = np.minimum(np.clip(self.map(before, scores), 0.0, 1.0), 1 / ties)
        factor = np.minimum(1.0, (1 - ties * after) / np.maximum(1 - ties * before, 1e-300))
        p *= np.maximum(factor, 0.0)[:, None]
        p[:, :-1][best] = np.repeat(after, ties)
        p[:, -1] += np.maximum(0.0, 1 - p.sum(1))
        return p

    def to_json(self) -> dict[str, Any]:
        """Return it as calibration.json keeps it."""
        return {"kind": "retrieval-rescaled", "base": self.base.to_json(), "map": maps.to_json(self.map)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Rescaled:
        """Read what `to_json` wrote."""
        margin = value["base"].get("kind") == "retrieval-margin"
        base = (RetrievalMargin if margin else RetrievalTemperature).from_json(value["base"])
        return cls(base, maps.from_json(value["map"]))


Calibrator = RetrievalTemperature | RetrievalMargin | Rescaled


def read_calibrator(value: Mapping[str, Any]) -> Calibrator:
    """Read what a calibrator's `to_json` wrote, of whatever kind."""
    readers: dict[str, Callable[[Mapping[str, Any]], Calibrator]] = {
        "retrieval-rescaled": Rescaled.from_json,
        "retrieval-margin": RetrievalMargin.from_json,
    }
    return readers.get(str(value.get("kind")), RetrievalTemperature.from_json)(value)
