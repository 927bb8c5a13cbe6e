"""From k labelled queries: more help more, shrunk temperatures never fall far behind, and no query is among its own shots."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from tests.calibration.cases import search, with_gold
from xt.calibration import shots
from xt.core.errors import XtError
from xt.eval.retrieval.ranking import fold_of


def language(n, temperature, seed):
    """Errors collide on the first documents, but for every third query's: the prior that predicts is off."""
    rng = np.random.default_rng(seed)
    scores = -np.sort(-rng.normal(0.8, 0.03, (n, 20)), axis=1)
    p = softmax(scores / temperature, axis=1)
    gold = (rng.random((n, 1)) > p.cumsum(1)).sum(1).clip(max=19)
    folds = np.array([fold_of(f"sentence {i}") for i in range(n)])
    rows = np.array([[j for j in range(21) if j != i][:20] for i in range(n)])
    rows[np.arange(n), gold] = np.arange(n)
    rows[::3] = ((np.arange(n)[:, None] + np.arange(20)) % n)[::3]
    return search(scores.astype(np.float32), rows, gold, folds, n)


@pytest.fixture(scope="module")
def rankings():
    return {c: language(400, t, i) for i, (c, t) in enumerate({"deu": 0.006, "fra": 0.006, "swh": 0.02}.items())}


def test_more_shots_help_alone_and_shrunk(rankings):
    found = shots.of_search(rankings, (8, 100))
    alone, shrunk = ({k: found[k][key] for k in ("8", "100")} for key in ("per-language", "shrunk"))
    assert alone["100"]["ece_excess"] < alone["8"]["ece_excess"]
    assert shrunk["100"]["ece_excess"] < shrunk["8"]["ece_excess"]
    assert alone["100"]["languages"] == 3
    assert set(alone["8"]["by_language"]) == set(rankings)


def test_a_fold_never_lends_its_own_labels(rankings):
    spoilt = {c: with_gold(r, np.where(r.fold == 2, 19, r.gold)) for c, r in rankings.items()}
    seen = []
    real = shots.score

    def spy(ranking, by_fold):
        seen.append({f: c.temperature for f, c in by_fold.items()})
        return real(ranking, by_fold)

    for some in (rankings, spoilt):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shots, "score", spy)
            shots.of_search(some, (30,))
    half = len(seen) // 2
    assert [s[2] for s in seen[:half]] == [s[2] for s in seen[half:]]
    assert [s[1] for s in seen[:half]] != [s[1] for s in seen[half:]]


def test_languages_with_fewer_are_named(rankings):
    found = shots.of_search({**rankings, "jav": language(60, 0.02, 9)}, (100,))
    assert found["100"]["shrunk"]["left_out"] == ["jav"]
    with pytest.raises(XtError, match="at least 1"):
        shots.of_search(rankings, (0,))
