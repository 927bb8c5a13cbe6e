"""The probability that a mined pair is right: applying it, and keeping it as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.core.errors import XtError

Floats = npt.NDArray[np.float64]
KIND = "logistic"
FEATURES = ("score", "cosine", "gap", "foreign_around", "english_around")
"""What is read of a pair, in this order: `xt.eval.mining.margin.Candidates.features`."""


@dataclass(frozen=True)
class PairProbability:
    """P(a mined pair is right | its margin, cosine, lead over the next candidate, and both neighbourhoods)."""

    centre: tuple[float, ...]
    spread: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float

    def __post_init__(self) -> None:
        sizes = {len(self.centre), len(self.spread), len(self.weights)}
        if sizes != {len(FEATURES)}:
            raise XtError(f"The probability of a pair reads {len(FEATURES)} features; found {sorted(sizes)}.")

    def __call__(self, features: Floats) -> Floats:
        """(n, 5) features of candidates -> (n,) probabilities."""
        logits = (features - np.array(self.centre)) / np.array(self.spread) @ np.array(self.weights) + self.bias
        return np.asarray(1 / (1 + np.exp(-np.clip(logits, -700, 700))))

    def to_json(self) -> dict[str, Any]:
        """As calibration.json holds it."""
        values = {"centre": self.centre, "spread": self.spread, "weights": self.weights}
        listed = {name: list(value) for name, value in values.items()}
        return {"kind": KIND, "features": list(FEATURES), **listed, "bias": self.bias}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PairProbability:
        """Read what `to_json` wrote; what was written under `method` is read too."""
        kind, features = value.get("kind", value.get("method")), tuple(value["features"])
        if kind != KIND or features != FEATURES:
            raise XtError(
                f"Unknown probability of pairs {kind!r} of {', '.join(map(str, features))}.",
                f"Expected {KIND} of {', '.join(FEATURES)}.",
            )
        centre, spread, weights = (tuple(map(float, value[name])) for name in ("centre", "spread", "weights"))
        return cls(centre, spread, weights, float(value["bias"]))
