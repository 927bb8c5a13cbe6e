"""From similarities to probabilities: applying a calibrator and keeping it as JSON. Fitting is `xt.eval`'s."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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
        """Give probabilities (n, k + 1) for similarities (n, k); the last column is "none of these".

        >>> RetrievalTemperature(1.0)(np.array([[0.0, 0.0]])).tolist()
        [[0.5, 0.5, 0.0]]
        """
        scores = np.asarray(scores, np.float64)
        none = np.full((len(scores), 1), self.none_score)
        logits = np.concatenate([scores, none], axis=1) / self.temperature  # (n, k + 1)
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    def to_json(self) -> dict[str, Any]:
        """As calibration.json keeps it (no mass for "none of these": null)."""
        none = self.none_score if math.isfinite(self.none_score) else None
        return {"kind": "retrieval-temperature", "temperature": self.temperature, "none_score": none}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RetrievalTemperature:
        """Read what `to_json` wrote."""
        if value.get("kind") != "retrieval-temperature":
            raise XtError(f"Unknown calibrator {value.get('kind')!r}.", "Known: retrieval-temperature.")
        none = value.get("none_score")
        return cls(float(value["temperature"]), -math.inf if none is None else float(none))
