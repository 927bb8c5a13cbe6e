"""Ranks, accuracies and folds are those worked out by hand; shared English sentences are encoded once."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest

from xt.calibration.accuracy import estimate_accuracy
from xt.calibration.predictions import Predictions, searched
from xt.core.data.bitext import Bitext, read_tatoeba
from xt.core.encoder import torch_engine
from xt.core.encoder.text import Encoded
from xt.core.errors import XtError
from xt.eval.retrieval import ranking as retrieval
from xt.eval.retrieval.ranking import (
    DIRECTIONS,
    Encodings,
    Ranking,
    encode_corpus,
    fold_of,
    means,
    rank,
    rank_texts,
    scores_of,
)


def unit(*degrees: float) -> np.ndarray:
    """Vectors of unit length at these angles."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def three() -> tuple[Bitext, Encodings]:
    """Foreign at 0, 50, 90 degrees; English at 10, 20, 80."""
    pairs = Bitext("deu", ("a", "b", "c"), ("A", "B", "C"))
    return pairs, Encodings(unit(0, 50, 90), unit(10, 20, 80), 0, 0)


class Counting:
    """An encoder that puts known vectors and keeps what it was asked."""

    def __init__(self, dim: int = 8, scale: float = 1.0) -> None:
        self.asked: Counter[str] = Counter()
        self.dim, self.scale = dim, scale

    def vector(self, text: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        drawn = np.random.default_rng(seed).normal(size=self.dim)
        return (drawn / np.linalg.norm(drawn) * self.scale).astype(np.float32)

    def encode(self, texts, *, prefix=None, truncate=False) -> Encoded:
        self.asked.update(texts)
        vectors = np.stack([self.vector(t) for t in texts])
        tokens = np.array([len(t) for t in texts], np.int32)
        return Encoded(vectors, tokens, np.array([t.endswith("long") for t in texts]))


def test_gold_positions_from_foreign_to_english_are_those_by_hand():
    ranking = rank(*three(), DIRECTIONS[0])
    # 0 degrees: 10, 20, 80 away 10, 20, 80. 50 degrees: 40, 30, 30 away 40, 30, 30 (a tie). 90 degrees: 80, 70, 10.
    assert ranking.rows[0].tolist() == [0, 1, 2]
    assert ranking.rows[2].tolist() == [2, 1, 0]
    assert ranking.gold[[0, 2]].tolist() == [0, 0]
    np.testing.assert_allclose(ranking.scores[0], np.cos(np.radians([10, 20, 80])), atol=1e-6)
    assert ranking.candidates == 3


def test_gold_positions_from_english_to_foreign_are_those_by_hand():
    ranking = rank(*three(), DIRECTIONS[1])
    # 10 degrees: 0 is 10 away, 50 is 40 away. 20 degrees: 0 is 20, 50 is 30 away: gold is second. 80: 90 is 10 away.
    assert ranking.rows.tolist() == [[0, 1, 2], [0, 1, 2], [2, 1, 0]]
    assert ranking.gold.tolist() == [0, 1, 0]


def test_gold_below_the_candidates_is_minus_one():
    assert rank(*three(), DIRECTIONS[1], k=1).gold.tolist() == [0, -1, 0]
    assert rank(*three(), DIRECTIONS[1], k=1).candidates == 3


def test_accuracy_and_mean_reciprocal_rank_are_those_by_hand():
    scores = scores_of(rank(*three(), DIRECTIONS[1]))
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["mrr"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert (scores["n"], scores["candidates"]) == (3, 3)
    low, high = scores["accuracy_ci"]
    assert (low, high) == pytest.approx((0.2077, 0.9385), abs=1e-3)
    cut = scores_of(rank(*three(), DIRECTIONS[1], k=1))
    assert (cut["accuracy"], cut["mrr"]) == pytest.approx((2 / 3, 2 / 3))


def test_ranks_agree_with_scikit_learn_on_random_vectors():
    from sklearn.metrics import label_ranking_average_precision_score, top_k_accuracy_score

    rng = np.random.default_rng(0)
    english = rng.normal(size=(150, 16))
    foreign = english + rng.normal(size=(150, 16))
    english, foreign = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (english, foreign))
    names = tuple(str(i) for i in range(150))
    vectors = Encodings(foreign.astype(np.float32), english.astype(np.float32), 0, 0)
    for direction, similarity in zip(DIRECTIONS, (foreign @ english.T, english @ foreign.T), strict=True):
        ranking = rank(Bitext("deu", names, names), vectors, direction, k=150)
        found = scores_of(ranking)
        assert found["accuracy"] == pytest.approx(top_k_accuracy_score(np.arange(150), similarity, k=1))
        assert found["mrr"] == pytest.approx(label_ranking_average_precision_score(np.eye(150), similarity))
        assert 0.1 < found["accuracy"] < 0.95
        shorter = rank(Bitext("deu", names, names), vectors, direction)
        assert shorter.scores.shape == (150, 100)
        assert (shorter.gold == np.where(ranking.gold < 100, ranking.gold, -1)).all()


def test_an_english_sentence_that_languages_share_is_encoded_once():
    encoder = Counting()
    corpus = [
        Bitext("deu", ("d1", "d2", "d3"), ("one", "two", "two")),
        Bitext("fra", ("f1", "f2"), ("two", "three")),
    ]
    told = []
    out = encode_corpus(encoder, corpus, progress=lambda *args: told.append(args))
    assert set(encoder.asked.values()) == {1}
    assert sorted(encoder.asked) == ["d1", "d2", "d3", "f1", "f2", "one", "three", "two"]
    for b in corpus:
        for texts, vectors in ((b.foreign, out[b.language].foreign), (b.english, out[b.language].english)):
            np.testing.assert_allclose(vectors, [encoder.vector(t) for t in texts], atol=1e-6)
    assert told == [(0, 2, "deu"), (1, 2, "fra"), (2, 2, "")]


def test_tokens_and_cut_texts_are_counted_once():
    corpus = [Bitext("deu", ("so long", "d2"), ("too long", "two")), Bitext("fra", ("f1",), ("too long",))]
    out = encode_corpus(Counting(), corpus, truncate=True)
    assert (out["deu"].tokens, out["deu"].truncated) == (7 + 2 + 8 + 3, 2)
    assert (out["fra"].tokens, out["fra"].truncated) == (2, 0)


def test_vectors_that_are_not_normalised_are_compared_by_cosine():
    class Uneven(Counting):
        def vector(self, text):
            return super().vector(text.casefold()) * np.float32(1 + 9 * (text.casefold() == "s0"))

    pairs = Bitext("deu", tuple(f"s{i}" for i in range(20)), tuple(f"S{i}" for i in range(20)))
    ranking = rank(pairs, encode_corpus(Uneven(), [pairs])["deu"], DIRECTIONS[0])
    assert ranking.gold.tolist() == [0] * 20
    np.testing.assert_allclose(ranking.scores[:, 0], 1, atol=1e-6)


def test_damaged_vectors_are_refused():
    pairs, vectors = three()
    vectors.english[1, 0] = np.nan
    with pytest.raises(XtError, match="NaN"):
        rank(pairs, vectors, DIRECTIONS[0])


def test_a_sentence_keeps_its_fold_in_every_language_and_spelling():
    english = tuple(f"Sentence number {i}" for i in range(200))
    other = tuple(f" sentence  NUMBER {i} " for i in range(200))
    vectors = Encodings(np.eye(200, dtype=np.float32), np.eye(200, dtype=np.float32), 0, 0)
    folds = [
        rank(Bitext(lang, english, rows), vectors, d).folds
        for lang, rows in (("deu", english), ("swh", other))
        for d in DIRECTIONS
    ]
    assert all((f == folds[0]).all() for f in folds)
    assert sorted(set(folds[0].tolist())) == list(range(retrieval.FOLDS))
    assert np.bincount(folds[0]).min() > 20


def test_folds_do_not_change_between_runs():
    # By hand: sha256("good morning world")[:4] big-endian, modulo 5.
    expected = int(hashlib.sha256(b"good morning world").hexdigest()[:8], 16) % 5
    assert fold_of("Good  morning world ") == expected


def test_means_are_over_languages_and_not_over_queries():
    rows = {"deu": {"accuracy": 0.9, "n": 1000}, "fra": {"accuracy": 0.7, "n": 10}, "swh": {"accuracy": 0.2, "n": 500}}
    found = means(rows, {"deu": "high", "fra": "high", "swh": "low"})
    assert found == pytest.approx({"all": 0.6, "high": 0.8, "low": 0.2})


def test_a_ranking_of_one_pair_works():
    one = Ranking(np.ones((1, 1), np.float32), np.zeros((1, 1), int), np.zeros(1, int), np.zeros(1, int), 1)
    assert scores_of(one)["mrr"] == 1.0


@pytest.fixture(scope="module")
def tatoeba(bundled, data_dir):
    """The real encoder's vectors of two small languages."""
    corpus = read_tatoeba(data_dir, "jav,swh")
    return corpus, encode_corpus(torch_engine.load_encoder(bundled, device="cpu"), corpus)


@pytest.mark.parametrize(("language", "accuracy"), [("jav", 60.0), ("swh", 73.3)])
def test_tatoeba_accuracy_of_the_real_encoder_is_the_known_one(tatoeba, language, accuracy):
    corpus, vectors = tatoeba
    pairs = next(b for b in corpus if b.language == language)
    foreign, english = vectors[language].foreign, vectors[language].english
    similarity = foreign @ english.T
    gold = np.arange(len(foreign))
    # A sentence that occurs twice has two equally good answers; plain numpy takes the first, as FAISS does.
    plain = {d: 100 * (s.argmax(1) == gold).mean() for d, s in zip(DIRECTIONS, (similarity, similarity.T), strict=True)}
    for direction in DIRECTIONS:
        found = 100 * scores_of(rank(pairs, vectors[language], direction))["accuracy"]
        assert found == pytest.approx(plain[direction], abs=0.3)
    assert plain[DIRECTIONS[0]] == pytest.approx(accuracy, abs=0.3)


@pytest.mark.parametrize("language", ["jav", "swh"])
def test_without_a_label_the_real_accuracy_is_estimated_or_reported_as_unknown(tatoeba, language):
    corpus, vectors = tatoeba
    pairs = next(b for b in corpus if b.language == language)
    n = len(pairs.english)
    for direction in DIRECTIONS:
        ranking = rank_texts(pairs, vectors[language], direction, rank(pairs, vectors[language], direction))
        one = ranking.predictions(language, pairs.english)
        found = estimate_accuracy(one)
        assert found.value == pytest.approx(one.correct.mean(), abs=0.05)
        assert found.low <= one.correct.mean() <= found.high
        assert "most documents answer no query" in estimate_accuracy(one.take(np.arange(50))).unknown
        rng = np.random.default_rng(0)
        weight = 1 / np.arange(1, n + 1)
        again = sampled(one, rng.choice(n, n, p=weight / weight.sum()))
        assert "repeat another" in estimate_accuracy(again).unknown
        again = sampled(one, rng.integers(0, n, n))
        found = estimate_accuracy(again)
        assert found.low <= again.correct.mean() <= found.high


def sampled(one: Predictions, rows: np.ndarray) -> Predictions:
    """The same search, its queries drawn again."""
    assert one.gold is not None and one.group is not None
    some = {"fold": one.fold[rows], "group": one.group[rows], "candidates": one.candidates, "ids": one.ids[rows]}
    return searched(one.scores[rows], one.gold[rows], **some)


def test_a_vector_that_is_no_number_is_an_error_that_names_its_text():
    class Broken(Counting):
        def vector(self, text: str) -> np.ndarray:
            return super().vector(text) * (np.nan if text == "b" else 1)

    with pytest.raises(XtError, match="deu: the encoder gave a vector that is not finite for 'b'"):
        encode_corpus(Broken(), [Bitext("deu", ("a", "b"), ("A", "B"))])
