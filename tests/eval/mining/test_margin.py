"""Mining finds what a brute-force search written from the formulas finds, and its threshold never sees the test part."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from xt.core.data.bitext import Bitext, read_tatoeba
from xt.core.encoder.text import Encoded
from xt.core.errors import XtError
from xt.eval.mining import margin as mining
from xt.eval.mining import run
from xt.eval.mining.margin import Candidates, Mined, candidates, neighbourhoods, neighbours, unique
from xt.eval.mining.sets import MiningSet, Sentences, mining_set_from_bitext
from xt.eval.retrieval.ranking import fold_of


def unit(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    rows = rng.standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def two_sides(n: int, m: int, dim: int = 24, noise: float = 0.9, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The first sentences of both sides are noisy copies of each other, the others alone; a shared part, as e5 has."""
    rng = np.random.default_rng(seed)
    x, y = unit(rng, n, dim), unit(rng, m, dim)
    both = min(n, m) * 2 // 3
    y[:both] = x[:both] + noise * unit(rng, both, dim)
    shared = 2 * unit(rng, 1, dim)
    x, y = x + shared, y + shared
    return tuple((v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32) for v in (x, y))  # type: ignore


def brute_force(x: np.ndarray, y: np.ndarray, margin: str, k: int = 4) -> list[tuple[int, int, float]]:
    """Artetxe & Schwenk 2019, sections 3.1 and 3.2, with loops over a full matrix."""
    cosine = x.astype(np.float64) @ y.astype(np.float64).T
    near_x = np.sort(cosine, axis=1)[:, -k:].mean(1)
    near_y = np.sort(cosine, axis=0)[-k:].mean(0)
    around = (near_x[:, None] + near_y[None, :]) / 2
    score = {"ratio": cosine / around, "distance": cosine - around, "absolute": cosine}[margin]
    proposed = []
    for i in range(len(x)):
        own = np.argsort(-cosine[i])[:k]
        j = own[np.argmax(score[i, own])]
        proposed.append((score[i, j], i, int(j)))
    for j in range(len(y)):
        own = np.argsort(-cosine[:, j])[:k]
        i = own[np.argmax(score[own, j])]
        proposed.append((score[i, j], int(i), j))
    taken: list[tuple[int, int, float]] = []
    for value, i, j in sorted(proposed, key=lambda p: -p[0]):
        if value > 0 and all(i != a for a, _, _ in taken) and all(j != b for _, b, _ in taken):
            taken.append((i, j, value))
    return taken


@pytest.mark.parametrize("margin", ["ratio", "distance", "absolute"])
def test_the_pairs_are_those_of_a_brute_force_search(margin):
    x, y = two_sides(2000, 1700)
    expected = brute_force(x, y, margin)
    found = candidates(neighbourhoods(x, y, search="exact"), margin=margin)
    assert len(found) == len(expected) > 1000
    theirs = {(i, j): value for i, j, value in expected}
    ours = {(int(i), int(j)): s for i, j, s in zip(found.foreign, found.english, found.score, strict=True)}
    assert len(set(ours) & set(theirs)) >= len(theirs) - 2  # float32 against float64 near ties
    for pair in set(ours) & set(theirs):
        assert ours[pair] == pytest.approx(theirs[pair], abs=1e-5)


def test_blocks_give_what_one_search_gives(monkeypatch):
    x, y = two_sides(500, 300)
    whole = neighbours(x, y, search="exact")
    monkeypatch.setattr(mining, "QUERY_BLOCK", 64)
    parts = neighbours(x, y, search="exact")
    assert (parts.rows == whole.rows).all()
    np.testing.assert_allclose(parts.scores, whole.scores, atol=1e-6)


def clustered(n: int, dim: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Sentences on 60 topics, and a noisy copy of each."""
    rng = np.random.default_rng(1)
    base = unit(rng, 60, dim)[rng.integers(0, 60, n)] + 0.5 * unit(rng, n, dim)
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    queries = base + 0.2 * unit(rng, n, dim)
    return queries / np.linalg.norm(queries, axis=1, keepdims=True), base


def test_an_inverted_file_finds_the_share_of_neighbours_that_it_states():
    queries, base = clustered(6000)
    exact, ivf = (neighbours(queries[:2000], base, search=way) for way in ("exact", "ivf"))
    share = np.mean([len(set(a) & set(b)) / 4 for a, b in zip(exact.rows.tolist(), ivf.rows.tolist(), strict=True)])
    assert (exact.search, exact.recall, ivf.search) == ("exact", 1.0, "ivf")
    assert mining.RECALL <= ivf.recall < 1
    assert abs(ivf.recall - share) < 0.02


def test_vectors_without_clusters_are_searched_exactly_even_when_an_index_was_asked_for():
    rng = np.random.default_rng(2)
    x, y = unit(rng, 600, 64), unit(rng, 4000, 64)
    found = neighbours(x, y, search="ivf")
    assert (found.search, found.recall) == ("exact", 1.0)
    assert (found.rows == np.argsort(-(x @ y.T), axis=1)[:, :4]).mean() > 0.999


def test_auto_takes_the_index_above_a_number_of_pairs(monkeypatch):
    x, y = clustered(3000)
    assert neighbours(x, y).search == "exact"
    monkeypatch.setattr(mining, "EXACT_PAIRS", 3000 * 2999)
    assert neighbours(x, y).search == "ivf"


def mined(score: list[float], right: list[bool], gold: int) -> Mined:
    n = len(score)
    zero = np.zeros(n)
    found = Candidates(np.arange(n), np.arange(n), np.array(score, float), zero, zero, zero, zero)
    return Mined(found, tuple((str(i), str(i)) for i in range(n)), np.array(right, bool), gold, {})


def test_the_threshold_is_the_midpoint_with_the_best_f1_of_all():
    rng = np.random.default_rng(0)
    for _ in range(30):
        right = rng.random(60) < 0.6
        score = np.round(rng.normal(1.0 + 0.1 * right, 0.08), 2)  # ties among them
        part = mined(list(score), list(right), 45)
        threshold = mining.best_threshold(part)
        got = mining.at_threshold(part, threshold)["f1"]
        best = 0.0
        for cut in np.unique(score):
            kept = score >= cut
            hits = (right & kept).sum()
            best = max(best, 2 * hits / (kept.sum() + 45))
        assert got == pytest.approx(best)
        assert threshold not in score or threshold == score.min()


def test_precision_recall_and_f1_count_all_gold_pairs():
    part = mined([1.3, 1.2, 1.1, 1.0], [True, True, False, True], 6)
    got = mining.at_threshold(part, 1.05)
    assert (got["precision"], got["recall"]) == (pytest.approx(2 / 3), pytest.approx(2 / 6))
    assert got["f1"] == pytest.approx(2 * (2 / 3) * (1 / 3) / (2 / 3 + 1 / 3))
    nothing = mining.at_threshold(part, 9.0)
    assert (nothing["precision"], nothing["recall"], nothing["f1"], nothing["pairs"]) == (0.0, 0.0, 0.0, 0)


class Table:
    """An encoder whose vectors stand in a table."""

    def __init__(self, table: dict[str, np.ndarray]) -> None:
        self.table = table

    def encode(self, texts, *, prefix=None, truncate=False):
        n = len(texts)
        return Encoded(np.stack([self.table[t] for t in texts]), np.ones(n, np.int32), np.zeros(n, bool))


@pytest.fixture(scope="module")
def made():
    """A language of 900 pairs, and vectors under which some translations are close and some are not."""
    rng = np.random.default_rng(3)
    bitext = Bitext("deu", tuple(f"satz {i}" for i in range(900)), tuple(f"sentence {i}" for i in range(900)))
    meaning, shared = unit(rng, 900, 16), 2 * unit(rng, 1, 16)[0]
    table = {}
    for i in range(900):
        table[bitext.english[i]] = shared + meaning[i]
        table[bitext.foreign[i]] = shared + meaning[i] + (0.3 + 0.9 * rng.random()) * unit(rng, 1, 16)[0]
    return mining_set_from_bitext(bitext, 0), Table(table)


def test_what_is_fitted_does_not_move_when_the_gold_of_test_changes(made):
    task, encoder = made
    ids = [*task.test.foreign.ids], [*task.test.english.ids]
    wrong = frozenset(zip(ids[0][:50], ids[1][50:100], strict=True))  # a leak of test into the fit would show
    leaky = dataclasses.replace(task, test=dataclasses.replace(task.test, gold=wrong))
    one, other = (run.evaluate_mining(encoder, [t]) for t in (task, leaky))
    assert one.calibrators == other.calibrators
    a, b = one.section["languages"]["deu"], other.section["languages"]["deu"]
    assert {m: v["threshold"] for m, v in a["margins"].items()} == {m: v["threshold"] for m, v in b["margins"].items()}
    assert a["fdr"]["pairs"] == b["fdr"]["pairs"] > 0
    assert a["f1"] > 0.7 > 0.1 > b["f1"]  # only the figures see it


def test_the_gold_of_dev_moves_the_threshold(made):
    task, encoder = made
    few = frozenset(sorted(task.dev.gold)[:60])
    other = dataclasses.replace(task, dev=dataclasses.replace(task.dev, gold=few))
    one, two = (run.evaluate_mining(encoder, [t]).calibrators["deu"].threshold for t in (task, other))
    assert one != two


def test_a_language_is_reported_whole(made):
    task, encoder = made
    result = run.evaluate_mining(encoder, [task])
    row = result.section["languages"]["deu"]
    assert row["n"] == len(task.test.gold) and row["search"] == "exact" and row["search_recall"] == 1.0
    assert row["guarantee"]["precision"] >= 0.9 and row["notes"] == []
    assert row["probability"]["ece"] < row["probability"]["ece_null"] + 0.06
    assert row["probability"]["auroc"] > 0.8
    assert len(result.predictions) == row["pairs"]
    hits = sum(p["correct"] for p in result.predictions)
    assert hits / row["pairs"] == pytest.approx(row["precision"])
    assert hits / row["n"] == pytest.approx(row["recall"])
    assert result.section["mean"]["f1"]["all"] == row["f1"]
    kept = {language: fit.to_json() for language, fit in result.calibrators.items()}
    json.dumps([result.section, result.predictions, kept], allow_nan=False)


def test_duplicates_are_searched_once_and_pairs_of_them_dropped():
    side = Sentences(("a", "b", "c"), ("same", "other", "same"))
    assert unique(side) == (["same", "other"], ["", "b"])
    rng = np.random.default_rng(0)
    vectors = unit(rng, 12, 8) + 3
    foreign = Sentences(tuple(f"f{i}" for i in range(13)), (*(f"t{i}" for i in range(12)), "t0"))
    english = Sentences(tuple(f"e{i}" for i in range(12)), tuple(f"u{i}" for i in range(12)))
    gold = frozenset((f"f{i}", f"e{i}") for i in range(12))
    part = MiningSet(foreign, english, gold, "here")
    found = mining.mine(part, mining.search_part(part, vectors, vectors))
    assert found.facts["unique"] == [12, 12] and found.facts["sentences"] == [13, 12]
    assert found.facts["dropped"] == 1 and ("f0", "e0") not in found.pairs
    assert set(found.pairs) == gold - {("f0", "e0")}
    assert found.gold == 12


def test_tatoeba_mining_breaks_a_third_of_the_pairs_and_shares_no_english_sentence(data_dir):
    (bitext,) = read_tatoeba(data_dir, "swh")
    task = mining_set_from_bitext(bitext, 0)
    english = dict(zip([f"e{i}" for i in range(390)], bitext.english, strict=True))
    for part, even in ((task.dev, True), (task.test, False)):
        kept = [e for e in english.values() if (fold_of(e) % 2 == 0) == even]
        assert {(fold_of(t) % 2 == 0) for t in part.english.texts} == {even}
        assert len(part.gold) == len(kept) - round(len(kept) / 3)
        assert len(part.foreign.ids) + len(part.english.ids) == 2 * len(part.gold) + round(len(kept) / 3)
        assert abs(len(part.foreign.ids) - len(part.english.ids)) <= 1
        assert all(f[1:] == e[1:] for f, e in part.gold)
    assert not set(task.dev.english.texts) & set(task.test.english.texts)
    assert task == mining_set_from_bitext(bitext, 0) != mining_set_from_bitext(bitext, 1)


def test_broken_input_is_refused():
    x, y = two_sides(40, 30)
    with pytest.raises(XtError, match="NaN or infinity"):
        neighbourhoods(np.where(np.arange(40)[:, None] == 3, np.nan, x), y)
    with pytest.raises(XtError, match="4 sentences on one side are too few"):
        neighbourhoods(x, y[:4])
    with pytest.raises(XtError, match="Unknown margin 'ration'"):
        candidates(neighbourhoods(x, y), margin="ration")
    with pytest.raises(XtError, match="Unknown search"):
        neighbours(x, y, search="approx")
    with pytest.raises(XtError, match="None of the 2 pairs mined on dev is right"):
        mining.best_threshold(mined([1.0, 0.9], [False, False], 3))
    rng = np.random.default_rng(0)
    apart = unit(rng, 30, 8)
    with pytest.raises(XtError, match="mean cosine of 0 or less"):
        candidates(neighbourhoods(apart, -apart[:1].repeat(20, 0) - 0.01 * unit(rng, 20, 8)))


def test_the_probability_pooled_over_languages_does_not_see_test_either(made):
    task, encoder = made
    small = dataclasses.replace(task, language="swh", dev=_first(task.dev, 60))
    wrong = frozenset(zip(task.test.foreign.ids[:50], task.test.english.ids[50:100], strict=True))
    leaky = [dataclasses.replace(t, test=dataclasses.replace(t.test, gold=wrong)) for t in (task, small)]
    one, other = (run.evaluate_mining(encoder, tasks) for tasks in ([task, small], leaky))
    assert one.section["languages"]["swh"]["probability"]["scope"] == "pooled"
    assert one.section["languages"]["deu"]["probability"]["scope"] == "language"
    assert one.calibrators == other.calibrators


def _first(part: MiningSet, n: int) -> MiningSet:
    """The first sentences of both sides, and the gold among them."""
    sides = [Sentences(s.ids[:n], s.texts[:n]) for s in (part.foreign, part.english)]
    kept = {(f, e) for f, e in part.gold if f in sides[0].ids and e in sides[1].ids}
    return MiningSet(sides[0], sides[1], frozenset(kept), part.origin)


def test_a_margin_that_the_vectors_do_not_allow_stops_only_who_asked_for_it(made):
    task, encoder = made
    middle = np.mean(list(encoder.table.values()), axis=0)
    centred = Table({text: vector - middle for text, vector in encoder.table.items()})
    far = Table({text: vector * (-1 if "satz" in text else 1) for text, vector in centred.table.items()})
    row = run.evaluate_mining(centred, [task], margin="distance").section["languages"]["deu"]
    assert row["f1"] == row["margins"]["distance"]["f1"] > 0.7
    section = run.evaluate_mining(far, [task], margin="ratio").section
    assert section["languages"] == {} and list(section["left_out"]) == ["deu"]
    assert section["notes"] == [f"deu was not mined: {section['left_out']['deu']}"]
