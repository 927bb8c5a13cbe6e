"""Learning what a relevant candidate looks like, from corpora whose relevant documents are known.

Each corpus is searched several times, as indexes of different sizes from which about half of the queries' relevant
documents were really removed (they are no candidates of any other query either), so that both outcomes of a query are
seen, in small and large indexes. Corpora weigh alike, whatever their number of queries and languages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from xt.calibration.apply.relevance import (
    BEST,
    CANDIDATE,
    DEPTH,
    LEAST,
    Regression,
    RelevanceModel,
    best_features,
    candidate_features,
    design,
    padded,
)
from xt.calibration.apply.retrieval import Floats
from xt.calibration.fit.logistic import fit_logistic
from xt.core.errors import XtError

Rows = npt.NDArray[np.int64]
RIDGE = 10.0
"""Weight of half the squared weights against the summed loss: corpora are few, whatever the number of their queries."""
SMALLEST = 60
"""Documents of the smallest index that is searched."""
SITUATIONS = 6
READ = 20
"""Candidates of a query that the regression on candidates learns from."""
MIN_ANSWERED = 20


@dataclass(frozen=True)
class EncodedCollection:
    """Queries, documents and what is relevant, as vectors of length 1."""

    corpus: str
    language: str
    """Of the queries."""
    queries: npt.NDArray[np.float32]
    """(queries, dim)."""
    documents: npt.NDArray[np.float32]
    """(documents, dim), of different texts."""
    relevant: Sequence[Rows]
    """For each query the rows of its relevant documents; none: it has no answer."""

    def __post_init__(self) -> None:
        if len(self.relevant) != len(self.queries):
            raise XtError(f"{self.corpus}: {len(self.queries)} queries, and judgements of {len(self.relevant)}.")


@dataclass(frozen=True)
class Searched:
    """What the queries of a collection find in one index."""

    corpus: str
    language: str
    scores: Floats
    """(n, DEPTH), best first, -inf beyond the size of the index."""
    relevant: npt.NDArray[np.bool_]
    """(n, DEPTH): whether each candidate is."""
    answerable: npt.NDArray[np.bool_]
    """(n,): whether a relevant document is in the index, found or not."""
    queries: Rows
    """(n,): rows of the collection."""
    size: int
    """Documents in the index."""

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """(n,): whether the best candidate is relevant."""
        return np.asarray(self.relevant[:, 0])


def search_exactly(collection: EncodedCollection, rows: Rows, queries: Rows) -> Searched:
    """Search an index of some documents of a collection for some of its queries, exactly."""
    rows = np.sort(rows)
    scores = collection.queries[queries] @ collection.documents[rows].T  # (n, documents)
    k = min(DEPTH, len(rows))
    nearest = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = np.full((len(queries), DEPTH), -np.inf)
    found[:, :k] = np.take_along_axis(scores, nearest, 1)
    inside = np.zeros(len(collection.documents), bool)
    inside[rows] = True
    relevant = np.zeros((len(queries), DEPTH), bool)
    answerable = np.zeros(len(queries), bool)
    for i, q in enumerate(queries):
        wanted = collection.relevant[q]
        relevant[i, :k] = np.isin(rows[nearest[i]], wanted)
        answerable[i] = inside[wanted].any() if len(wanted) else False
    return Searched(collection.corpus, collection.language, found, relevant, answerable, queries, len(rows))


def remove_answers(
    collection: EncodedCollection, rows: Rows, answerable: float, rng: np.random.Generator
) -> tuple[Rows, Rows]:
    """Take the relevant documents of some queries out of an index, so that about a share of them keeps an answer.

    Returns the documents left, and the queries that had an answer before or never had one.
    """
    inside = np.zeros(len(collection.documents), bool)
    inside[rows] = True
    had = [q for q, wanted in enumerate(collection.relevant) if not len(wanted) or inside[wanted].any()]
    wanted = np.unique(np.concatenate([*collection.relevant, np.zeros(0, np.int64)]).astype(np.int64))
    gone = wanted[rng.random(len(wanted)) >= answerable]
    inside[gone] = False
    return np.flatnonzero(inside), np.array(had, np.int64)


def situations(collection: EncodedCollection, *, seed: int = 0, count: int = SITUATIONS) -> Iterator[Searched]:
    """Search a collection as indexes of several sizes, half of the answers removed; too small ones are left out.

    The first third has all documents, the others a random part, its size spread evenly on a scale of logarithms.
    """
    rng = np.random.default_rng(seed)
    n = len(collection.documents)
    for number in range(count):
        size = n if number < count / 3 or n <= SMALLEST else int(np.exp(rng.uniform(np.log(SMALLEST), np.log(n))))
        some = rng.permutation(n)[:size]
        rows, queries = remove_answers(collection, some, 0.5, rng)
        if len(rows) < LEAST or len(queries) < MIN_ANSWERED:
            continue
        found = search_exactly(collection, rows, queries)
        if MIN_ANSWERED <= found.answerable.sum() <= len(queries) - MIN_ANSWERED:
            yield found


def corpus_weights(searched: Sequence[Searched]) -> list[float]:
    """Weigh each query so that the languages of a corpus weigh alike, and a corpus with the root of their number."""
    queries: dict[tuple[str, str], int] = {}
    for one in searched:
        key = one.corpus, one.language
        queries[key] = queries.get(key, 0) + len(one.queries)
    languages: dict[str, int] = {}
    for corpus, _ in queries:
        languages[corpus] = languages.get(corpus, 0) + 1
    return [languages[one.corpus] ** -0.5 / queries[one.corpus, one.language] for one in searched]


def fit_regression(
    names: tuple[str, ...], features: Floats, outcome: Floats, weight: Floats, *, even: bool = False
) -> Regression:
    """Fit a logistic regression on standardised features and their squares.

    Args:
        names: of the features.
        features: (n, d).
        outcome: (n,) of 0/1.
        weight: (n,) of each row.
        even: make the log odds those at an even prior, whatever the share of the outcome was.

    Raises XtError where all outcomes are the same.
    """
    if not 0 < outcome.mean() < 1:
        raise XtError("All outcomes are the same, so nothing can be learnt from them.", "Give queries of both kinds.")
    weight = weight * (len(weight) / weight.sum())
    mean = np.average(features, axis=0, weights=weight)
    scale = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=weight)) + 1e-9
    slopes, bias = fit_logistic(design(features, mean, scale)[:, 1:], outcome, ridge=RIDGE, weight=weight)
    if even:
        share = float(np.average(outcome, weights=weight))
        bias -= math.log(share / (1 - share))
    return Regression(names, tuple(map(float, mean)), tuple(map(float, scale)), (bias, *map(float, slopes)))


def fit_relevance(searched: Sequence[Searched], *, coverage: float = 0.9) -> RelevanceModel:
    """Fit the model to what several corpora found, and cut sets where they hold `coverage` of these queries.

    Raises XtError without queries of both kinds, answerable and not.
    """
    if not searched:
        raise XtError("There is nothing to learn from.", "Give corpora with judgements.")
    full = [padded(one.scores) for one in searched]
    weight = np.concatenate([np.full(len(s), w) for s, w in zip(full, corpus_weights(searched), strict=True)])
    features = np.concatenate([best_features(s) for s in full])
    answerable = np.concatenate([one.answerable for one in searched])
    right = np.concatenate([one.right for one in searched])
    some = weight[answerable]
    present = fit_regression(BEST, features, answerable.astype(np.float64), weight, even=True)
    best = fit_regression(BEST, features[answerable], right[answerable].astype(np.float64), some)
    rest = [candidate_features(s[one.answerable])[:, 1:READ] for s, one in zip(full, searched, strict=True)]
    hits = np.concatenate([one.relevant[one.answerable, 1:READ] for one in searched])
    others = fit_regression(
        CANDIDATE,
        np.concatenate(rest).reshape(-1, len(CANDIDATE)),
        hits.ravel().astype(np.float64),
        np.repeat(some, READ - 1),
    )
    model = RelevanceModel(present, best, others, coverage=coverage)
    limits = set_limits(model, searched, coverage)
    return replace(model, candidate_limit=limits[0], none_limit=limits[1])


def set_limits(model: RelevanceModel, searched: Sequence[Searched], coverage: float) -> tuple[float, float]:
    """Return the limits at which sets hold a relevant document, or "none of these", so often: weighted quantiles.

    The least probability, given an answer, of a candidate; and the most evidence of presence. Mondrian conformal
    prediction (Vovk et al. 2005, section 4.5): each kind of query has its own limit, so that neither depends on how
    many are answerable.
    """
    found, lacking = [], []
    for one, w in zip(searched, corpus_weights(searched), strict=True):
        given = np.where(one.relevant, model.given_present(one.scores), 0.0).max(1)
        found.append((given[one.answerable], np.full(int(one.answerable.sum()), w)))
        evidence = model.evidence(one.scores)[~one.answerable]
        lacking.append((evidence, np.full(len(evidence), w)))
    (best, best_weights), (most, most_weights) = (
        [np.concatenate(part) for part in zip(*rows, strict=True)] for rows in (found, lacking)
    )
    return weighted_quantile(best, best_weights, 1 - coverage), weighted_quantile(most, most_weights, coverage)


def weighted_quantile(values: Floats, weights: Floats, share: float) -> float:
    """Return the least value with at least `share` of the weight at or below it.

    >>> weighted_quantile(np.array([3.0, 1.0, 2.0]), np.ones(3), 0.5)
    2.0
    """
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(upto, share - 1e-12)), len(values) - 1)])
