"""What a search tells of its own errors where every document answers one query: two queries cannot share an answer.

The best one-to-one assignment of documents to queries (Jonker & Volgenant 1987) moves those queries away that share an
answer with a query that is nearer to it. The share that keeps its own best document (*agreement*) is above the
accuracy: right answers are rarely moved, and a wrong one is kept where nobody else wants its document. How often the
latter happens is measured on the same vectors, by assigning once more with the documents of the first assignment taken
away from their queries, so that nearly all answers are wrong (*chance*).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from xt.calibration.predictions import Predictions

Positions = npt.NDArray[np.int64]
BEST = 10
"""Candidates that are the same, in the same order, for a query that is there twice."""
ROUNDING = 1e-5
"""By how much a similarity may differ between two searches for one query, whose sums are taken in another order."""
LIFT = 4.0
"""Added to every similarity, so that no weight of a candidate is 0, which a sparse matrix would drop."""
NO_DOCUMENT = 0.5
"""The weight of no document, where all documents are candidates: below every similarity."""


@dataclass(frozen=True)
class Agreement:
    """What the one-to-one assignment of a search has in common with its answers."""

    queries: int
    """Different ones: neither of one id, nor with the same candidates at the same similarities."""
    documents: int
    """Different ones in the index."""
    share: float
    """Of all queries, those whose answer the assignment keeps."""
    distinct_share: float
    """The same of the different queries."""
    chance: float
    """The same of different queries whose answers are wrong, and whose documents no right answer claims."""

    def less_chance(self) -> float:
        """Return the accuracy of the different queries at which chance explains the rest of the agreement.

        A wrong answer lands on a document that no right one claims as often as there are such documents, and is then
        kept by chance: agreement = a + (1 - a) (1 - a queries / documents) chance, solved for the greatest a.
        """
        ratio = self.queries / self.documents

        def above(a: float) -> float:
            return a + (1 - a) * max(0.0, 1 - a * ratio) * self.chance - self.distinct_share

        grid = np.linspace(self.distinct_share, 0.0, 201)
        values = np.array([above(a) for a in grid])
        below = np.flatnonzero(values < 0)
        if not len(below):
            return float(grid[int(np.argmin(values))])
        first = int(below[0])
        return float(grid[0]) if first == 0 else float(brentq(above, grid[first], grid[first - 1]))


def different_queries(ranking: Predictions) -> tuple[Positions, Positions]:
    """Return where each different query is first (m,), and which of them every query is (n,).

    Queries of one id are one, as are those with the same best candidates at the same similarities but for rounding.

    Args:
        ranking: a search.
    """
    assert ranking.group is not None
    scores = ranking.scores
    by_id: dict[str, int] = {}
    by_best: dict[bytes, list[int]] = {}
    firsts: list[int] = []
    of = np.empty(len(ranking), np.int64)
    for i, (name, group) in enumerate(zip(ranking.ids.tolist(), ranking.group[:, :BEST], strict=True)):
        alike = by_best.setdefault(group.tobytes(), [])
        same = (j for j in alike if np.abs(scores[firsts[j]] - scores[i]).max() < ROUNDING)
        at = by_id[name] if name in by_id else next(same, -1)
        if at < 0:
            at = len(firsts)
            firsts.append(i)
            alike.append(at)
        of[i] = by_id[name] = at
    return np.array(firsts, np.int64), of


def assign(scores: npt.NDArray[np.float64], group: Positions, *, more: bool) -> Positions:
    """Return the document of each query, (n,), in the best one-to-one assignment; -1: none.

    Best is the greatest sum of similarities.

    Args:
        scores: (n, k) similarities of the candidates, best first.
        group: (n, k) which document each is.
        more: whether there are documents beyond the candidates. A query may then get one of those, at the similarity
            of its last candidate; else it gets none where there is no other way.
    """
    n, k = scores.shape
    documents, columns = np.unique(group, return_inverse=True)
    spare = scores[:, -1] + LIFT if more else np.full(n, NO_DOCUMENT)
    weights = np.concatenate([scores + LIFT, spare[:, None]], axis=1)
    places = np.concatenate([columns.reshape(n, k), len(documents) + np.arange(n)[:, None]], axis=1)
    edges = (weights.ravel(), places.ravel(), np.arange(0, n * (k + 1) + 1, k + 1))
    _, chosen = min_weight_full_bipartite_matching(csr_matrix(edges, shape=(n, len(documents) + n)), maximize=True)
    return np.where(chosen < len(documents), documents[np.minimum(chosen, len(documents) - 1)], -1)


def agreement(ranking: Predictions) -> Agreement:
    """Compare the answers of a search, of one language and direction, with the one-to-one assignment; needs no label.

    Args:
        ranking: with `group` and `candidates`, at least two candidates a query, each row best first.
    """
    assert ranking.group is not None
    firsts, of = different_queries(ranking)
    scores, group = ranking.scores[firsts].astype(np.float64), ranking.group[firsts].astype(np.int64)
    n, k = scores.shape
    more = ranking.candidates > k
    assigned = assign(scores, group, more=more)
    kept = assigned == group[:, 0]
    taken = group == assigned[:, None]
    taken[~taken.any(1), -1] = True
    left = [array[~taken].reshape(n, k - 1) for array in (scores, group)]
    by_chance = assign(left[0], left[1], more=more) == left[1][:, 0]
    shares = float(kept[of].mean()), float(kept.mean()), float(by_chance.mean())
    return Agreement(len(firsts), ranking.candidates, *shares)
