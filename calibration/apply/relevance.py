"""How likely each candidate of a query is relevant, and how likely it is that nothing in the index is.

Everything is computed from the scores of one query's best candidates, by two logistic regressions:

- *present*: that a relevant document is in the index at all. Its log odds at an even prior, `evidence`, are the log
  likelihood ratio of the two cases, so that a share of answerable queries enters by Bayes' rule: as the log odds of
  that share, added (Saerens et al. 2002, Neural Computation 14(1), section 2.2);
- *relevant*: that a candidate is, given that some document is. Several may be, so they need not sum to 1.

    P(candidate j is relevant) = P(present) P(j is relevant | present),    P(none is) = 1 - P(present)

Both read how far a candidate stands out from those behind it, not the height of the cosines, which differs between
languages and corpora. Behind the best, the i-th spacing of scores times i is as large on average whatever the size of
the index where the tail of the scores is exponential (Rényi 1953, Acta Mathematica 4), so that a spacing in units of
those behind it means the same in a small index and a large one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.calibration.apply.maps import sigmoid
from xt.calibration.apply.retrieval import Floats
from xt.core.errors import XtError

KIND = "retrieval-relevance"
DEPTH = 100
"""Candidates that are read; those of an index of fewer are all read."""
LEAST = 10
"""Candidates below which nothing can be said: the best of them has too few to stand out from."""
EVEN = 0.5
"""The share of answerable queries that is assumed where nothing is known of it."""
SHARPNESS = 100.0
"""Of the softmax among the features: cosines of these encoders are told apart at some hundredths."""
FLOOR = 1e-3
"""Added to differences of cosines before their logarithm: below it lies the error of int8 and of approximate search."""
REACH = 4.0
"""Features are cut at so many standard deviations, so that a query unlike all others is judged as the nearest."""
BEST = ("spacing_10", "spacing_30", "softmax", "second", "margin")
"""Features of the best candidate: `best_features`."""
CANDIDATE = ("softmax", "behind_best", "behind_previous", "ahead", "rank")
"""Features of each candidate: `candidate_features`."""


def padded(scores: npt.NDArray[Any]) -> Floats:
    """Return scores (n, k), best first, as (n, DEPTH): cut, or filled up with the last that there is.

    -inf and NaN are absent candidates. XtError for a row that is not best first.
    """
    found = np.asarray(scores, np.float64)
    if found.ndim != 2 or found.shape[1] < 1:
        raise XtError(f"Scores have shape {found.shape}; expected (queries, candidates).")
    found = found[:, :DEPTH]
    found = np.where(np.isnan(found), -np.inf, found)
    if (found[:, 1:] > found[:, :-1]).any():
        raise XtError("The scores of a query are not in order.", "Give the best candidate first.")
    if np.isposinf(found).any():
        raise XtError("A similarity is infinite, so it has no probability.", "Check the vectors.")
    if found.shape[1] < DEPTH:
        found = np.pad(found, ((0, 0), (0, DEPTH - found.shape[1])), constant_values=-np.inf)
    there = np.isfinite(found)
    last = np.maximum(there.sum(1) - 1, 0)
    fill = np.take_along_axis(found, last[:, None], 1)
    return np.where(there, found, np.where(np.isfinite(fill), fill, 0.0))


def best_features(scores: Floats) -> Floats:
    """Return what tells of the best candidate, (n, len(BEST)), of `padded` scores (n, DEPTH).

    - spacing_10, spacing_30: log of the first spacing in units of the next nine, or twenty-nine;
    - softmax: log odds of the best in a softmax over all candidates;
    - second: how far the second candidate is above the mean of the next eight;
    - margin: how far the best is above the mean of the next nine (Artetxe & Schwenk 2019, arXiv 1811.01136, section 3,
      on the query's side, as a difference).
    """
    spacings = -np.diff(scores, axis=1) * np.arange(1, DEPTH)
    first = np.log(spacings[:, 0] + FLOOR)
    near = np.log(spacings[:, 1:10].mean(1) + FLOOR / 10)
    wide = np.log(spacings[:, 1:30].mean(1) + FLOOR / 10)
    second = scores[:, 1] - scores[:, 2:10].mean(1)
    margin = scores[:, 0] - scores[:, 1:10].mean(1)
    return np.stack([first - near, first - wide, _softmax(scores)[:, 0], second, margin], 1)


def candidate_features(scores: Floats) -> Floats:
    """Return what tells of each candidate, (n, DEPTH, len(CANDIDATE)), of `padded` scores (n, DEPTH).

    - softmax: its log odds in a softmax over all candidates;
    - behind_best, behind_previous: log of how far it is behind the best, and behind the one before it;
    - ahead: how far it is above the mean of the next nine;
    - rank: log of its place, from 1.
    """
    n = len(scores)
    total = np.concatenate([np.zeros((n, 1)), np.cumsum(scores, 1)], 1)
    places = np.arange(DEPTH)
    ends = np.minimum(places + 10, DEPTH)
    counts = np.maximum(ends - places - 1, 1)
    after = np.where(places < DEPTH - 1, (total[:, ends] - total[:, np.minimum(places + 1, DEPTH)]) / counts, scores)
    previous = np.concatenate([scores[:, :1], scores[:, :-1]], 1)
    rank = np.broadcast_to(np.log1p(places), scores.shape)
    behind = np.log(scores[:, :1] - scores + FLOOR)
    return np.stack([_softmax(scores), behind, np.log(previous - scores + FLOOR), scores - after, rank], 2)


def _softmax(scores: Floats) -> Floats:
    """Return the log odds of each candidate in a softmax, (n, k), bounded."""
    p = np.exp((scores - scores[:, :1]) * SHARPNESS)
    p /= p.sum(1, keepdims=True)
    p = np.clip(p, 1e-9, 1 - 1e-6)
    return np.asarray(np.log(p) - np.log1p(-p))


@dataclass(frozen=True)
class Regression:
    """A logistic regression on standardised features and their squares."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    """Bias, one a feature, one a feature's square."""

    def __post_init__(self) -> None:
        numbers = (*self.mean, *self.scale, *self.weights)
        d = len(self.names)
        if (len(self.mean), len(self.scale), len(self.weights)) != (d, d, 2 * d + 1):
            raise XtError(f"A regression on {d} features needs {d} means, {d} scales and {2 * d + 1} weights.")
        if not np.isfinite(numbers).all() or min(self.scale) <= 0:
            raise XtError("A regression holds a number that is not finite, or a scale that is not positive.")

    def __call__(self, features: Floats) -> Floats:
        """Return log odds (...) of features (..., d)."""
        terms = design(features, np.array(self.mean), np.array(self.scale)) * np.array(self.weights)
        return np.asarray(terms.sum(-1))  # a product of matrices would round by the number of rows

    def to_json(self) -> dict[str, Any]:
        """As calibration.json holds it."""
        rows = {"names": self.names, "mean": self.mean, "scale": self.scale, "weights": self.weights}
        return {name: list(values) for name, values in rows.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], names: tuple[str, ...]) -> Regression:
        """Read what `to_json` wrote; XtError for other features than `names`."""
        found = tuple(map(str, value["names"]))
        if found != names:
            raise XtError(f"The regression reads {', '.join(found)}; this xt computes {', '.join(names)}.", "Fit anew.")
        mean, scale, weights = (tuple(map(float, value[k])) for k in ("mean", "scale", "weights"))
        return cls(found, mean, scale, weights)


def design(features: Floats, mean: Floats, scale: Floats) -> Floats:
    """Return 1, the standardised features within `REACH`, and their squares less 1: (..., 2 d + 1)."""
    z = np.clip((features - mean) / scale, -REACH, REACH)
    return np.concatenate([np.ones((*z.shape[:-1], 1)), z, z**2 - 1], -1)


@dataclass(frozen=True)
class Shift:
    """What a language, or a user's own judgements, add to the log odds of a model."""

    present: float = 0.0
    relevant: float = 0.0

    def to_json(self) -> dict[str, float]:
        """As calibration.json holds it."""
        return {"present": self.present, "relevant": self.relevant}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Shift:
        """Read what `to_json` wrote."""
        found = cls(float(value["present"]), float(value["relevant"]))
        if not np.isfinite([found.present, found.relevant]).all():
            raise XtError("A shift of log odds is not finite.")
        return found


@dataclass(frozen=True)
class Assessment:
    """What is said of some queries."""

    relevance: Floats
    """(n, k): the probability that each candidate is relevant; 0 for an absent one."""
    none: Floats
    """(n,): the probability that nothing in the index is."""
    held: npt.NDArray[np.bool_]
    """(n, k): whether the set of the query holds the candidate."""
    none_held: npt.NDArray[np.bool_]
    """(n,): whether it holds "none of these"."""


@dataclass(frozen=True)
class RelevanceModel:
    """The two regressions, and where sets are cut.

    >>> zero = lambda names: Regression(names, (0.0,) * len(names), (1.0,) * len(names), (0.0,) * (2 * len(names) + 1))
    >>> model = RelevanceModel(zero(BEST), zero(BEST), zero(CANDIDATE))
    >>> said = model.assess(np.linspace(0.9, 0.8, 12)[None], 0.8)
    >>> said.none.round(3).tolist(), said.relevance[0, :2].tolist()
    ([0.2], [0.4, 0.4])
    """

    present: Regression
    best: Regression
    others: Regression
    candidate_limit: float = 0.0
    """Least probability, given that a relevant document is there, of a candidate in a set."""
    none_limit: float = math.inf
    """Most evidence of presence at which a set holds "none of these"."""
    coverage: float = 0.9
    """Share of the queries whose set holds a relevant document, and of those without one whose set says so."""
    languages: Mapping[str, Shift] = field(default_factory=dict)

    def evidence(self, scores: npt.NDArray[Any], shift: Shift = Shift()) -> Floats:
        """Return the log likelihood ratio (n,) of "an answer is in the index" to "none is", of scores best first."""
        return self.present(best_features(padded(scores))) + shift.present

    def given_present(self, scores: npt.NDArray[Any], shift: Shift = Shift()) -> Floats:
        """Return the probability (n, k) that each candidate is relevant where some document of the index is.

        It never rises with the rank, and candidates of equal score have the same.
        """
        given = np.asarray(scores, np.float64)
        full = padded(given)
        odds = self.others(candidate_features(full))
        odds[:, 0] = self.best(best_features(full))
        p = np.minimum.accumulate(sigmoid(odds + shift.relevant), axis=1)
        there = np.isfinite(given[:, :DEPTH])
        same = (full[:, 1:] == full[:, :-1]) & np.pad(there, ((0, 0), (0, DEPTH - there.shape[1])))[:, 1:]
        for row in np.flatnonzero(same.any(1)):
            starts = np.flatnonzero(np.append(True, ~same[row]))
            counts = np.diff(np.append(starts, DEPTH))
            p[row] = np.repeat(np.add.reduceat(p[row], starts) / counts, counts)
        out = np.zeros(given.shape)
        out[:, :DEPTH] = np.where(there, p[:, : there.shape[1]], 0.0)
        return out

    def assess(self, scores: npt.NDArray[Any], answerable: float | Floats = EVEN, shift: Shift = Shift()) -> Assessment:
        """Judge the candidates of some queries.

        Args:
            scores: (n, k) similarities, best first, -inf where there is none.
            answerable: the share of queries whose answer is in the index, 0 to 1; one number or (n,).
            shift: of the queries' language.

        Raises XtError for a share outside of 0 to 1, and fewer than `LEAST` candidates.
        """
        share = np.asarray(answerable, np.float64)
        if not ((share >= 0) & (share <= 1)).all():
            raise XtError(f"The share of answerable queries is {answerable}; expected 0 to 1.")
        evidence = self.evidence(scores, shift)
        there = np.isfinite(np.asarray(scores, np.float64))
        fewest = int(there.sum(1).min(initial=LEAST))
        if fewest < LEAST:
            raise XtError(f"A query has {fewest} candidates; at least {LEAST} are needed to tell them apart.")
        given = self.given_present(scores, shift)
        ratio = np.exp(evidence)
        present = share * ratio / (share * ratio + 1 - share)
        held = (given >= self.candidate_limit) & there
        return Assessment(present[:, None] * given, 1 - present, held, evidence <= self.none_limit)

    def to_json(self) -> dict[str, Any]:
        """As calibration.json holds it (no limit on evidence: null)."""
        return {
            "kind": KIND,
            "present": self.present.to_json(),
            "best": self.best.to_json(),
            "others": self.others.to_json(),
            "candidate_limit": self.candidate_limit,
            "none_limit": self.none_limit if math.isfinite(self.none_limit) else None,
            "coverage": self.coverage,
            "languages": {code: shift.to_json() for code, shift in sorted(self.languages.items())},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RelevanceModel:
        """Read what `to_json` wrote; XtError for what it did not write."""
        if value.get("kind") != KIND:
            raise XtError(f"A relevance model is of kind {KIND!r}; found {value.get('kind')!r}.")
        limit = value["none_limit"]
        coverage = float(value["coverage"])
        if not 0 < coverage < 1:
            raise XtError(f"The coverage of sets is {coverage}; expected a share between 0 and 1.")
        return cls(
            Regression.from_json(value["present"], BEST),
            Regression.from_json(value["best"], BEST),
            Regression.from_json(value["others"], CANDIDATE),
            float(value["candidate_limit"]),
            math.inf if limit is None else float(limit),
            coverage,
            {str(code): Shift.from_json(shift) for code, shift in value["languages"].items()},
        )

    def for_language(self, code: str | None) -> Shift:
        """Return what a language adds; nothing where it is not known."""
        return self.languages.get(code or "", Shift())

    def shifted(self, shift: Shift) -> RelevanceModel:
        """Return the model with a shift added to all its log odds; those of languages are added on top of it."""
        moved = [
            replace(one, weights=(one.weights[0] + by, *one.weights[1:]))
            for one, by in ((self.present, shift.present), (self.best, shift.relevant), (self.others, shift.relevant))
        ]
        return replace(self, present=moved[0], best=moved[1], others=moved[2])
