"""An accuracy without labels, as calibration.json and reports hold it: between two bounds, or a reason why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xt.core.errors import XtError


@dataclass(frozen=True)
class AccuracyEstimate:
    """How many of a language's answers are right, estimated without a label of it (`xt.calibration.accuracy`)."""

    value: float
    """The likeliest accuracy, 0 to 1."""
    low: float
    """Lower end of its 95 % interval, sampling error included."""
    high: float
    """Upper end of that."""
    unknown: str = ""
    """Why it is not known: the numbers are then no estimate. Empty where it is."""

    @classmethod
    def refuse(cls, reason: str) -> AccuracyEstimate:
        """Return that nothing is known, which may be anything from 0 to 1."""
        return cls(0.5, 0.0, 1.0, reason)

    def check(self) -> None:
        """Raise XtError with the reason where the accuracy is unknown."""
        if self.unknown:
            raise XtError(f"accuracy unknown: {self.unknown}")

    def to_json(self) -> dict[str, Any]:
        """As calibration.json and metrics.json hold it.

        >>> AccuracyEstimate(0.8, 0.7, 0.9).to_json(), AccuracyEstimate.refuse("too few queries").to_json()
        ({'value': 0.8, 'low': 0.7, 'high': 0.9}, {'unknown': 'too few queries'})
        """
        if self.unknown:
            return {"unknown": self.unknown}
        return {"value": self.value, "low": self.low, "high": self.high}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AccuracyEstimate:
        """Read what `to_json` wrote."""
        if "unknown" in value:
            return cls.refuse(str(value["unknown"]))
        return cls(float(value["value"]), float(value["low"]), float(value["high"]))
