"""From a head's logits to probabilities that were fitted: applying such a calibrator and keeping it as JSON.

All kinds read `Predictions`, so that a label, a tag, a span of tags and an answer from
a context are one thing: an outcome that is the product of choices, each of them among a row of logits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from xt.calibration.apply.maps import PlainMap, Platt
from xt.calibration.apply.maps import from_json as map_from_json
from xt.calibration.apply.maps import to_json as map_to_json
from xt.calibration.predictions import Floats, Predictions
from xt.core.errors import XtError, unknown

MIN_PROBABILITY = 1e-12


class HeadCalibrator(Protocol):
    """Returns the probability of each answer."""

    def __call__(self, answers: Predictions) -> Floats:
        """Return the probability of each answer, (n,)."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return it as calibration.json keeps it; `from_json` reads it."""
        ...


@dataclass(frozen=True)
class LabelTemperature:
    """softmax(logits / T): Guo et al. 2017, arXiv 1706.04599, section 4.2. The likeliest label stays the likeliest."""

    temperature: float

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise XtError(f"A temperature must be positive; found {self.temperature}.")

    def probabilities(self, answers: Predictions) -> Floats:
        """Return the probabilities of all columns, (rows, k)."""
        return np.exp(answers.log_softmax(self.temperature))

    def __call__(self, answers: Predictions) -> Floats:
        """See `HeadCalibrator`."""
        return answers.confidence(answers.log_softmax(self.temperature))

    def to_json(self) -> dict[str, Any]:
        """See `HeadCalibrator`; `xt export --temperature FILE` reads it too."""
        return {"kind": "label-temperature", "temperature": self.temperature}


@dataclass(frozen=True)
class VectorScaling:
    """softmax(scale * logits + bias), one pair of numbers a label: Guo et al. 2017, section 4.2."""

    scale: tuple[float, ...]
    bias: tuple[float, ...]

    def _scaled(self, answers: Predictions) -> Predictions:
        if answers.scores.shape[1] != len(self.scale):
            raise XtError(f"The calibrator is of {len(self.scale)} labels; there are {answers.scores.shape[1]}.")
        return replace(answers, scores=answers.scores * np.array(self.scale) + np.array(self.bias))

    def probabilities(self, answers: Predictions) -> Floats:
        """Return the probabilities of all columns, (rows, k)."""
        return np.exp(self._scaled(answers).log_softmax())

    def __call__(self, answers: Predictions) -> Floats:
        """See `HeadCalibrator`."""
        return answers.confidence(self._scaled(answers).log_softmax())

    def to_json(self) -> dict[str, Any]:
        """See `HeadCalibrator`."""
        return {"kind": "vector", "scale": list(self.scale), "bias": list(self.bias)}


@dataclass(frozen=True)
class OfAnswers:
    """Moves the probability of the answer given, whatever it is made of."""

    map: PlainMap

    def __call__(self, answers: Predictions) -> Floats:
        """See `HeadCalibrator`."""
        return self.map(answers.confidence(answers.log_softmax()))

    def to_json(self) -> dict[str, Any]:
        """See `HeadCalibrator`."""
        return {"kind": "of-answers", "map": map_to_json(self.map)}


@dataclass(frozen=True)
class OneVsRest:
    """Moves every label's probability by a map of its own, and makes them sum to 1 again: Zadrozny & Elkan 2002."""

    maps: tuple[PlainMap, ...]

    def probabilities(self, answers: Predictions) -> Floats:
        """Return the probabilities of all columns, (rows, k); equal ones where all maps give 0."""
        plain = np.exp(answers.log_softmax())
        if plain.shape[1] != len(self.maps):
            raise XtError(f"The calibrator is of {len(self.maps)} labels; there are {plain.shape[1]}.")
        each = np.stack([map(plain[:, k]) for k, map in enumerate(self.maps)], axis=1)
        total = each.sum(1, keepdims=True)
        return np.asarray(np.where(total > 0, each / np.where(total > 0, total, 1), 1 / len(self.maps)))

    def __call__(self, answers: Predictions) -> Floats:
        """See `HeadCalibrator`."""
        return answers.confidence(np.log(np.maximum(self.probabilities(answers), MIN_PROBABILITY)))

    def to_json(self) -> dict[str, Any]:
        """See `HeadCalibrator`."""
        return {"kind": "one-vs-rest", "maps": [map_to_json(each) for each in self.maps]}


def _map(value: Mapping[str, Any]) -> PlainMap:
    found = map_from_json(value)
    if isinstance(found, Platt):
        raise XtError("Platt's map reads similarities, which a head has none of.", "Make the report again.")
    return found


KINDS = ("label-temperature", "vector", "of-answers", "one-vs-rest")


def from_json(value: Mapping[str, Any]) -> HeadCalibrator:
    """Read what `to_json` of a head's calibrator wrote; XtError for anything else."""
    kind = value.get("kind")
    try:
        if kind == "label-temperature":
            return LabelTemperature(float(value["temperature"]))
        if kind == "vector":
            return VectorScaling(tuple(map(float, value["scale"])), tuple(map(float, value["bias"])))
        if kind == "of-answers":
            return OfAnswers(_map(value["map"]))
        if kind == "one-vs-rest":
            return OneVsRest(tuple(_map(each) for each in value["maps"]))
    except (KeyError, TypeError, ValueError) as error:
        raise XtError(f"The calibration lacks or misstates {error}.", "Make the report again.") from error
    raise unknown("calibrator of a head", str(kind), KINDS)
