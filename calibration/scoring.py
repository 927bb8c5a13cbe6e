"""Applying calibrators to predictions that they have not seen: confidences, losses, and a guard against leaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.calibration.accuracy import PredictedTemperature
from xt.calibration.apply.estimate import AccuracyEstimate
from xt.calibration.apply.file import MethodFit
from xt.calibration.apply.heads import (
    MIN_PROBABILITY,
    HeadCalibrator,
    LabelTemperature,
    OneVsRest,
    VectorScaling,
)
from xt.calibration.apply.retrieval import Calibrator, Rescaled, RetrievalMargin, RetrievalTemperature
from xt.calibration.fit.heads import event_losses
from xt.calibration.fit.temperature import losses
from xt.calibration.measuring.clusters import keys_of
from xt.calibration.predictions import Columns, Floats, Predictions
from xt.core.errors import XtError

AnyCalibrator = Calibrator | HeadCalibrator


@dataclass(frozen=True)
class Fitted:
    """A calibrator and the ids of the examples that it has seen, in whichever language."""

    calibrator: AnyCalibrator
    seen: frozenset[str] = frozenset()

    def check(self, predictions: Predictions) -> None:
        """Raise XtError when the calibrator has seen one of the examples: no number is to come of that."""
        leaked = self.seen.intersection(predictions.ids.tolist())
        if leaked:
            raise XtError(
                f"A calibrator was about to be measured on {len(leaked)} examples that it has seen, or their "
                f"translations (id {min(leaked)!r}).",
                "This is a fault of xt: please report it.",
            )


@dataclass(frozen=True)
class Scored:
    """What a method says of one language's predictions, none of which it was fitted on."""

    confidence: Floats
    """(n,) probability of the answer given."""
    nll: Floats
    """(n,) loss of the right column, or of "the answer is right" where no column is right by itself, in nats."""
    correct: Floats
    """(n,) of 0/1: whether the answer was right."""
    temperature: float | None = None
    """Geometric mean over the folds."""
    none: Floats | None = None
    """(n,) probability of "none of these", of a search."""
    fallback: str = ""
    """The scope that stood in, where the language has too few examples of its own."""
    table: Floats | None = None
    """(n, labels): the probabilities of all labels, where they are labels."""
    gold: Columns | None = None
    """(n,): the right column, as `Predictions` has it."""
    estimate: AccuracyEstimate | None = None
    """The accuracy that the method took for the language's, without a label of it."""
    ids: npt.NDArray[np.uint64] | None = None
    """(n,): the example or query, as `xt.calibration.measuring.clusters.keys_of` has it; its translations share it."""


@dataclass(frozen=True)
class Method:
    """A way to calibrate, applied to every language."""

    key: str
    label: str
    temperature: float | None
    scored: dict[str, Scored]


@dataclass
class Calibrated:
    """What calibrating the predictions of some languages gave."""

    methods: list[Method] = field(default_factory=list)
    kept: dict[str, MethodFit[Any]] = field(default_factory=dict)
    """Method -> what it fitted on everything that it may see, as calibration.json holds it."""
    notes: list[str] = field(default_factory=list)
    """What could not be fitted, and why."""
    predicted: dict[tuple[str, int | None], PredictedTemperature] = field(default_factory=dict)
    """Language and fold left out -> its temperature without a label of it, where its accuracy is known."""
    estimates: dict[str, AccuracyEstimate] = field(default_factory=dict)
    """Language -> its accuracy without a label of it, or why that is unknown."""
    known: dict[Any, Any] = field(default_factory=dict)
    """Of the fits, for those who make more of them."""


def score(predictions: Predictions, by_fold: Mapping[int, AnyCalibrator | Fitted], *, fallback: str = "") -> Scored:
    """Score each prediction with the calibrator of its own fold, which was fitted without that fold.

    Raises XtError where a `Fitted` has seen an example that it is to score.
    """
    n = len(predictions)
    confidence, loss = np.empty(n), np.empty(n)
    none: Floats | None = None
    table: Floats | None = None
    for fold in np.unique(predictions.fold).tolist():
        rows = np.flatnonzero(predictions.fold == fold)
        some, found = predictions.take(rows), by_fold[fold]
        if isinstance(found, Fitted):
            found.check(some)
        calibrator = found.calibrator if isinstance(found, Fitted) else found
        if isinstance(calibrator, RetrievalTemperature | RetrievalMargin | Rescaled):
            probabilities = calibrator(some.scores)
            none = np.empty(n) if none is None else none
            confidence[rows], none[rows] = probabilities[:, 0], probabilities[:, -1]
            loss[rows] = losses(probabilities, some.gold)
        else:
            confidence[rows] = calibrator(some)
            loss[rows], labels = _losses(some, calibrator, confidence[rows])
            if labels is not None:
                table = np.empty((n, labels.shape[1])) if table is None else table
                table[rows] = labels
    mean = _mean_temperature(by_fold)
    ids = keys_of(predictions.ids)
    return Scored(confidence, loss, predictions.correct, mean, none, fallback, table, predictions.gold, ids=ids)


def _mean_temperature(by_fold: Mapping[int, AnyCalibrator | Fitted]) -> float | None:
    used = [getattr(c.calibrator if isinstance(c, Fitted) else c, "temperature", None) for c in by_fold.values()]
    known = [t for t in used if t is not None]
    return float(np.exp(np.mean(np.log(known)))) if known else None


def _losses(predictions: Predictions, calibrator: HeadCalibrator, confidence: Floats) -> tuple[Floats, Floats | None]:
    """Return the losses (n,), and the probabilities of all labels where they are labels.

    A calibrator of the answer's probability alone leaves what it does not give the answer to the other columns, in the
    proportions that they have without it, so that its losses compare with those of the others.
    """
    if predictions.gold is None:
        return event_losses(confidence, predictions.correct), None
    every = np.arange(len(predictions))
    if isinstance(calibrator, LabelTemperature | VectorScaling | OneVsRest):
        probabilities = calibrator.probabilities(predictions)
    else:
        probabilities = np.exp(predictions.log_softmax())
        probabilities[every, predictions.answer] = 0
        others = probabilities.sum(1, keepdims=True)
        probabilities *= (1 - confidence[:, None]) / np.maximum(others, MIN_PROBABILITY)
        probabilities[every, predictions.answer] = confidence
    right = probabilities[every, predictions.gold]
    return -np.log(np.maximum(right, MIN_PROBABILITY)), probabilities if predictions.labels else None
