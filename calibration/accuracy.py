"""A language's accuracy and temperature without a label of that language.

In a parallel corpus every query has one right candidate and every candidate one query, so queries that share an answer
give away errors: the share of queries that keep their answer in the best one-to-one assignment is above the accuracy,
and that share less what chance explains below it (`xt.calibration.matching`). The mean of the log odds of the two is
the estimate, and the temperature is the one whose mean confidence is that. This reverses Garg et al. 2022 (arXiv
2201.04234) and Guillory et al. 2021 (arXiv 2107.03315), who estimate accuracy from confidence; Lu et al. 2023 (arXiv
2302.05018) transport confidences to labels as the assignment does documents to queries, but measure the cost by the
temperature that is to be found. No label and no other language has a part in it.

What it rests on is checked: where it does not hold, the accuracy is unknown, and the reason is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.calibration.apply.estimate import AccuracyEstimate
from xt.calibration.apply.maps import logit, sigmoid
from xt.calibration.apply.retrieval import RetrievalTemperature
from xt.calibration.fit.temperature import MIN_QUERIES, match_confidence
from xt.calibration.matching import Agreement, agreement
from xt.calibration.predictions import Predictions

Positions = npt.NDArray[np.int64]
MAX_WIDTH = 0.25
"""Where the bounds lie farther apart, the accuracy is unknown."""
MAX_CHANCE = 1 / 3
"""Of the answers that the assignment keeps, as many may be kept by chance."""
MIN_COVERAGE = 0.6
"""Different queries a document, at least: with more documents that no query asks for, wrong answers rarely collide."""
MAX_COVERAGE = 1.1
"""Different queries a document, at most: with more, several ask for one document, or some have no answer."""
SURE = 1.96
"""Standard errors to each side of a 95 % interval."""
ENOUGH = 250
"""Queries, about, that the ends of the interval of a temperature are looked for on."""


def estimate_accuracy(ranking: Predictions) -> AccuracyEstimate:
    """Estimate how many answers of a search, of one language and direction, are right; needs no label.

    Args:
        ranking: with `group` and `candidates`.

    Returns:
        The estimate, or why there is none: too few queries, queries that do not cover the documents (or are more), or
        bounds too far apart.
    """
    if ranking.scores.shape[1] < 2 or not np.isfinite(ranking.scores).all():
        return AccuracyEstimate.refuse("a query has less than two candidates")
    found = agreement(ranking)
    if why := _not_one_to_one(len(ranking), found):
        return AccuracyEstimate.refuse(why)
    return _between(found)


def _not_one_to_one(rows: int, found: Agreement) -> str:
    """Return what is wrong with queries and documents; empty where they may be one to one."""
    queries, documents = found.queries, found.documents
    repeated = f" ({rows - queries} of the {rows} repeat another)" if rows > queries else ""
    if queries < MIN_QUERIES:
        return f"{queries} different queries{repeated}, at least {MIN_QUERIES} are needed"
    counted = f"{queries} different queries{repeated} for {documents} documents"
    if queries < MIN_COVERAGE * documents:
        return f"{counted}: most documents answer no query, or are there several times"
    if queries > MAX_COVERAGE * documents:
        return f"{counted}: several ask for one document, or some have no answer"
    return ""


def _between(found: Agreement) -> AccuracyEstimate:
    """Return the estimate between agreement and agreement less chance, or why they are too far apart.

    The upper bound counts for less where fewer queries are there to collide, for nothing at `MIN_COVERAGE`.
    """
    n = found.queries
    chance = found.distinct_share - found.less_chance()
    high = found.share
    low = max(0.0, high - chance)
    if chance > MAX_WIDTH:
        return AccuracyEstimate.refuse(f"it lies between {low:.2f} and {high:.2f}")
    if chance > MAX_CHANCE * found.distinct_share:
        return AccuracyEstimate.refuse(
            f"it is at most {high:.2f}, and of the answers that speak for it {chance / found.distinct_share:.0%} "
            "may be chance"
        )
    ends = np.clip([low, high], 0.5 / n, 1 - 0.5 / n)
    covered = min(1.0, (found.queries / found.documents - MIN_COVERAGE) / (1 - MIN_COVERAGE))
    value = float(sigmoid(np.array(np.average(logit(ends), weights=[2 - covered, covered]))))
    error = SURE * math.sqrt(value * (1 - value) / n)
    return AccuracyEstimate(value, max(0.0, min(low, value) - error), min(1.0, max(high, value) + error))


@dataclass(frozen=True)
class PredictedTemperature:
    """A language's temperature without a label of it, and how far its accuracy is uncertain."""

    calibrator: RetrievalTemperature
    """Of the likeliest accuracy."""
    cold: float
    """The temperature at the upper end of the accuracy's interval."""
    hot: float
    """The temperature at its lower end."""

    def at(self, share: float) -> RetrievalTemperature:
        """Return the temperature at some share of the way from the lower end of the accuracy's interval to the upper.

        In between log T is taken as even on both sides of the likeliest.
        """
        middle = math.log(self.calibrator.temperature)
        ends = (max(math.log(self.hot), middle), middle, min(math.log(self.cold), middle))
        log_t = float(np.interp(share, (0.0, 0.5, 1.0), ends))
        return RetrievalTemperature(math.exp(log_t), self.calibrator.none_score)


def predict_temperature(estimate: AccuracyEstimate, ranking: Predictions, none_score: float) -> PredictedTemperature:
    """Return the temperature whose mean confidence is an estimated accuracy, without a label.

    The score of "none of these" is no better than the language's usual last candidate: where scores are lower than
    those that it was fitted on, it would else be the best of all, and no temperature could make up for that.

    Args:
        estimate: of the language.
        ranking: of the language; its labels play no part.
        none_score: the "none of these" score of the temperature of other languages.

    Raises XtError where the accuracy is unknown.
    """
    estimate.check()
    none = min(none_score, float(np.median(ranking.scores[:, -1])))
    some = ranking.scores[:: max(1, len(ranking) // ENOUGH)]
    middle = match_confidence(ranking.scores, estimate.value, none)
    about = match_confidence(some, estimate.value, none).temperature  # what a part of the queries shifts is taken off
    cold, hot = (
        middle.temperature * match_confidence(some, accuracy, none).temperature / about
        for accuracy in (estimate.high, estimate.low)
    )
    return PredictedTemperature(middle, cold, hot)


def sample_answers(
    predicted: PredictedTemperature, scores: Any, rng: np.random.Generator, times: int
) -> Iterator[Positions]:
    """Sample each query's answer from the probabilities of its candidates, again and again.

    Each time at another temperature, evenly over the interval of the accuracy, so that what is fitted to the answers
    knows how uncertain that is. Returns `times` rows (n,) of positions, -1 for none of the candidates, each sampled
    when it is requested.

    What is fitted to answers so sampled needs no label of the language; it is as good as the calibrator is calibrated.

    Args:
        predicted: of the language.
        scores: (n, k) similarities, best first.
        rng: draws one number a query each time.
        times: how often.
    """
    for time in range(times):
        upto = np.cumsum(predicted.at((time + 0.5) / times)(scores), axis=1)
        last = upto.shape[1] - 1
        drawn = (rng.random((len(upto), 1)) > upto).sum(1)
        yield np.where(drawn >= last, -1, drawn)
