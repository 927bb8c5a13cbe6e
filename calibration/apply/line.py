"""What predicts a language's temperature without a label of it, as calibration.json holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xt.calibration.apply.maps import logit, sigmoid
from xt.core.errors import XtError

KIND = "distinct-share"


@dataclass(frozen=True)
class AccuracyLine:
    """`logit(accuracy) = bias + slope * logit(distinct share)`, and the "none of these" score that goes with it.

    `xt.calibration.accuracy` says what the share is, fits the line and finds the temperature.
    """

    bias: float
    slope: float
    none_score: float

    def accuracy(self, share: float) -> float:
        """Predict the accuracy from the share of the candidates that are the best of some query."""
        return float(sigmoid(np.array(self.bias + self.slope * logit(np.array(share)))))

    def to_json(self) -> dict[str, Any]:
        """As calibration.json holds it."""
        return {"kind": KIND, "bias": self.bias, "slope": self.slope, "none_score": self.none_score}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AccuracyLine:
        """Read what `to_json` wrote."""
        if value.get("kind") != KIND:
            raise XtError(f"Unknown predictor {value.get('kind')!r}.", f"Expected {KIND}.")
        return cls(float(value["bias"]), float(value["slope"]), float(value["none_score"]))
