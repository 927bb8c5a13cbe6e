"""A language's temperature without a label of that language.

In a parallel corpus every query has one right candidate and every candidate one query, so candidates that answer
two queries give away errors: the share of candidates that are the best of some query (*distinct share*) tells the
accuracy. How it does is learnt where there are labels, as a line in log odds; the temperature of any other language,
or of another corpus, is then the one whose mean confidence is the accuracy so predicted. That reverses Garg et al.
2022 (arXiv 2201.04234) and Guillory et al. 2021 (arXiv 2107.03315), who estimate accuracy from confidence: the
one-to-one structure gives an estimate that does not depend on the scale of the scores. Where it does not hold
(several right documents, or documents that no query asks for), nor does the prediction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.calibration.apply.line import AccuracyLine
from xt.calibration.apply.maps import logit
from xt.calibration.apply.retrieval import Calibrator, Floats, RetrievalTemperature
from xt.calibration.fit.temperature import MIN_QUERIES, match_confidence
from xt.calibration.predictions import Predictions
from xt.core.errors import XtError

Positions = npt.NDArray[np.int64]
SLOPE_SPREAD = 0.3
"""How far from 1 the slope is expected: the accuracy can be no other line of the share than nearly itself."""
SPREAD = 0.2
"""By how much languages differ from the line, in log odds, beside their sampling error."""


def distinct_share(ranking: Predictions) -> float:
    """Share of the candidates that are the best of some query, kept half of one from 0 and 1; needs no labels.

    In a parallel corpus every candidate is right for some query. Where texts repeat there are fewer candidates than
    queries; a ranking of fewer queries than candidates can find no more than it has.
    """
    assert ranking.group is not None
    n = min(len(ranking), ranking.candidates)
    return float(np.clip(len(np.unique(ranking.group[:, 0])) / n, 0.5 / n, 1 - 0.5 / n))


def predict_temperature(line: AccuracyLine, ranking: Predictions) -> RetrievalTemperature:
    """Return the temperature whose mean confidence is the accuracy that a line predicts, without a label.

    The score of "none of these" is no better than the language's usual last candidate: where scores are lower than
    those that it was fitted on, it would else be the best of all, and no temperature could make up for that.
    """
    none = min(line.none_score, float(np.median(ranking.scores[:, -1])))
    return match_confidence(ranking.scores, line.accuracy(distinct_share(ranking)), none)


def sample_answers(calibrator: Calibrator, scores: Any, rng: np.random.Generator, times: int) -> Iterator[Positions]:
    """Sample each query's answer from the probabilities of its candidates, again and again.

    Returns `times` rows (n,) of positions, -1 for none of the candidates, each sampled when it is requested.

    What is fitted to answers so sampled needs no label of the language; it is as good as the calibrator is calibrated.

    Args:
        calibrator: of the language, predicted.
        scores: (n, k) similarities, best first.
        rng: draws one number a query each time.
        times: how often.
    """
    upto = np.cumsum(calibrator(scores), axis=1)
    last = upto.shape[1] - 1
    for _ in range(times):
        drawn = (rng.random((len(upto), 1)) > upto).sum(1)
        yield np.where(drawn >= last, -1, drawn)


def fit_line(rankings: Sequence[Predictions], none_score: float, keep: Sequence[Any] | None = None) -> AccuracyLine:
    """Fit the line to labelled rankings, one point each: weighted least squares, the slope shrunk towards 1.

    Args:
        rankings: of languages and, better, both directions.
        none_score: the "none of these" score of the temperature fitted on the same queries.
        keep: masks of the queries whose labels may be used; the share, which needs none, is of all.
    """
    points: list[tuple[float, float, float]] = []
    for i, ranking in enumerate(rankings):
        right = ranking.correct[keep[i] if keep is not None else slice(None)]
        n = len(right)
        if n < MIN_QUERIES:
            continue
        accuracy = float(np.clip(right.mean(), 0.5 / n, 1 - 0.5 / n))
        noise = 1 / (n * accuracy * (1 - accuracy))
        points.append((float(logit(np.array(distinct_share(ranking)))), float(logit(np.array(accuracy))), noise))
    if not points:
        raise XtError("No language has enough labelled queries.", f"Expected at least {MIN_QUERIES} in one.")
    x, y, noise_of = (np.array(column) for column in zip(*points, strict=True))
    weight = 1 / (SPREAD**2 + noise_of)
    design = np.stack([np.ones_like(x), x], axis=1)
    system: Floats = design.T @ (design * weight[:, None])
    target: Floats = design.T @ (weight * y)
    system[1, 1] += SLOPE_SPREAD**-2
    target[1] += SLOPE_SPREAD**-2
    bias, slope = np.linalg.solve(system, target)
    return AccuracyLine(float(bias), float(slope), none_score)
