"""From a head's logits to probabilities that were fitted: applying such a calibrator and keeping it as JSON.

All kinds read `Answers`, so that a label, a tag, a span of tags and an answer from
a context are one thing: an outcome that is the product of choices, each of them among a row of logits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xt.calibration.apply.maps import PlainMap, Platt
from xt.calibration.apply.maps import from_json as map_from_json
from xt.calibration.apply.maps import to_json as map_to_json
from xt.core.errors import XtError, unknown

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class Answers:
    """What a head answered, each answer made of one choice or of several.

    A label is one choice among the labels' logits, a span of tags one choice a word, an answer from a context one
    choice among its best spans and none.
    """

    logits: Floats
    """(choices, K): before any temperature, -inf for what there is not; each row has one that is more."""
    chosen: Places
    """(choices,): the column that was chosen."""
    owner: Places
    """(choices,): the answer that a choice belongs to, ascending, each of 0..n-1 at least once."""

    def __post_init__(self) -> None:
        logits = np.asarray(self.logits, np.float64)
        if np.isnan(logits).any() or np.isposinf(logits).any():
            row = int(np.flatnonzero((np.isnan(logits) | np.isposinf(logits)).any(1))[0])
            raise XtError(f"The logits of answer {int(self.owner[row])} are not numbers.", "The model is damaged.")
        if len(logits) and not np.isfinite(logits).any(1).all():
            raise XtError("An answer has no logits at all: every one is -inf.", "Leave it out.")
        object.__setattr__(self, "logits", logits)

    def __len__(self) -> int:
        return int(self.owner[-1]) + 1 if len(self.owner) else 0

    def log_softmax(self, temperature: float = 1.0) -> Floats:
        """Give log probabilities of every choice, (choices, K), at a temperature."""
        scaled = (self.logits - self.logits.max(1, keepdims=True)) / temperature
        return np.asarray(scaled - np.log(np.exp(scaled).sum(1, keepdims=True)))

    def confidence(self, log_probabilities: Floats) -> Floats:
        """Give the probability of each answer, (n,), from (choices, K): the product over its choices."""
        picked = log_probabilities[np.arange(len(self.chosen)), self.chosen]
        return np.minimum(np.exp(np.bincount(self.owner, weights=picked, minlength=len(self))), 1.0)

    def take(self, keep: npt.NDArray[np.bool_] | Places) -> Answers:
        """Give some of the answers, by a mask or by places in ascending order."""
        mask = np.zeros(len(self), bool)
        mask[keep] = True
        rows = mask[self.owner]
        renumbered = np.cumsum(mask) - 1
        return Answers(self.logits[rows], self.chosen[rows], renumbered[self.owner[rows]])


def join(parts: Sequence[Answers]) -> Answers:
    """Put answers of several languages together; rows are filled up to the widest with -inf."""
    width = max(part.logits.shape[1] for part in parts)
    wide = [np.pad(p.logits, ((0, 0), (0, width - p.logits.shape[1])), constant_values=-np.inf) for p in parts]
    starts = np.cumsum([0, *(len(part) for part in parts)])
    owners = [part.owner + start for part, start in zip(parts, starts, strict=False)]
    return Answers(np.concatenate(wide), np.concatenate([p.chosen for p in parts]), np.concatenate(owners))


class HeadCalibrator(Protocol):
    """Gives answers their probability."""

    def __call__(self, answers: Answers) -> Floats:
        """Give the probability of each answer, (n,)."""
        ...

    def to_json(self) -> dict[str, Any]:
        """As calibration.json keeps it; `from_json` reads it."""
        ...


@dataclass(frozen=True)
class LabelTemperature:
    """softmax(logits / T): Guo et al. 2017, arXiv 1706.04599, section 4.2. The likeliest label stays the likeliest."""

    temperature: float

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise XtError(f"A temperature must be positive; found {self.temperature}.")

    def probabilities(self, answers: Answers) -> Floats:
        """Give the probabilities of all columns, (choices, K)."""
        return np.exp(answers.log_softmax(self.temperature))

    def __call__(self, answers: Answers) -> Floats:
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

    def _scaled(self, answers: Answers) -> Answers:
        if answers.logits.shape[1] != len(self.scale):
            raise XtError(f"The calibrator is of {len(self.scale)} labels; there are {answers.logits.shape[1]}.")
        return Answers(answers.logits * np.array(self.scale) + np.array(self.bias), answers.chosen, answers.owner)

    def probabilities(self, answers: Answers) -> Floats:
        """Give the probabilities of all columns, (choices, K)."""
        return np.exp(self._scaled(answers).log_softmax())

    def __call__(self, answers: Answers) -> Floats:
        """See `HeadCalibrator`."""
        return answers.confidence(self._scaled(answers).log_softmax())

    def to_json(self) -> dict[str, Any]:
        """See `HeadCalibrator`."""
        return {"kind": "vector", "scale": list(self.scale), "bias": list(self.bias)}


@dataclass(frozen=True)
class OfAnswers:
    """Moves the probability of the answer given, whatever it is made of."""

    map: PlainMap

    def __call__(self, answers: Answers) -> Floats:
        """See `HeadCalibrator`."""
        return self.map(answers.confidence(answers.log_softmax()))

    def to_json(self) -> dict[str, Any]:
        """See `HeadCalibrator`."""
        return {"kind": "of-answers", "map": map_to_json(self.map)}


@dataclass(frozen=True)
class OneVsRest:
    """Moves every label's probability by a map of its own, and makes them sum to 1 again: Zadrozny & Elkan 2002."""

    maps: tuple[PlainMap, ...]

    def probabilities(self, answers: Answers) -> Floats:
        """Give the probabilities of all columns, (choices, K); equal ones where all maps give 0."""
        plain = np.exp(answers.log_softmax())
        if plain.shape[1] != len(self.maps):
            raise XtError(f"The calibrator is of {len(self.maps)} labels; there are {plain.shape[1]}.")
        each = np.stack([map(plain[:, k]) for k, map in enumerate(self.maps)], axis=1)
        total = each.sum(1, keepdims=True)
        return np.asarray(np.where(total > 0, each / np.where(total > 0, total, 1), 1 / len(self.maps)))

    def __call__(self, answers: Answers) -> Floats:
        """See `HeadCalibrator`."""
        return answers.confidence(np.log(np.maximum(self.probabilities(answers), LEAST_PROBABILITY)))

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
