"""How retrieval of images is scored: by hand, against scikit-learn and torchmetrics, and by its intervals."""

from __future__ import annotations

import numpy as np
import pytest

from xt.core.data.examples import CaptionExample
from xt.core.errors import XtError
from xt.studies.images.evaluation import retrieval_by_language


def captions(codes: str, n: int) -> list[CaptionExample]:
    return [CaptionExample(str(i), f"{code}{i}", i, code) for code in codes.split() for i in range(n)]


def test_retrieval_as_worked_out_by_hand():
    images = np.array([[1.0, 0], [0, 2.0], [-1.0, 0], [0, -3.0]])
    texts = np.array([[5.0, 0], [1, 0.5], [0, 1], [0, -1], [0, -1]])
    of = [0, 1, 2, 3]
    # English: ranks 1, 2, then image 2 ties with image 0 at cosine 0 behind image 1: rank 3, and 1. German: one text.
    rows = [CaptionExample(str(i), "t", i, "eng") for i in of] + [CaptionExample("1", "t", 1, "deu")]
    found = retrieval_by_language(texts, images, rows)
    assert found["images"] == 4
    assert found["chance"] == pytest.approx(
        {"recall@1": 0.25, "recall@10": 1.0, "mrr": (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4}
    )
    english, german = found["languages"]["eng"], found["languages"]["deu"]
    assert (english["captions"], german["captions"]) == (4, 1)
    assert english["recall@1"] == 0.5 and english["recall@10"] == 1.0
    assert english["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1) / 4)
    assert german["recall@1"] == 0.0 and german["mrr"] == pytest.approx(1 / 4)
    assert found["mean"]["recall@1"] == pytest.approx(0.25)


def test_only_images_with_captions_are_candidates():
    images = np.array([[1.0, 0], [1.0, 0], [0, 1.0]])
    rows = [CaptionExample("1", "t", 1), CaptionExample("2", "t", 2)]
    found = retrieval_by_language(np.array([[1.0, 0], [0, 1]]), images, rows)
    assert found["images"] == 2 and found["languages"]["eng"]["recall@1"] == 1.0


def test_constant_vectors_win_nothing():
    found = retrieval_by_language(np.ones((20, 3)), np.ones((20, 3)), captions("eng", 20))
    assert found["languages"]["eng"]["recall@1"] == 0.0 and found["languages"]["eng"]["recall@10"] == 0.0
    assert found["languages"]["eng"]["mrr"] == pytest.approx(1 / 20)


def test_retrieval_agrees_with_scikit_learn_and_torchmetrics():
    import torch
    from sklearn.metrics import label_ranking_average_precision_score, top_k_accuracy_score
    from torchmetrics.functional.retrieval import retrieval_recall, retrieval_reciprocal_rank

    rng = np.random.default_rng(3)
    n = 60
    images = rng.normal(size=(n, 8))
    noise = {"eng": 0.6, "deu": 1.2, "swh": 3.0}
    texts = np.concatenate([images + s * rng.normal(size=images.shape) for s in noise.values()])
    found = retrieval_by_language(texts, images, captions(" ".join(noise), n))
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    for i, code in enumerate(noise):
        row = found["languages"][code]
        scores = unit(texts[i * n : (i + 1) * n]) @ unit(images).T
        for k in (1, 10):
            theirs = top_k_accuracy_score(np.arange(n), scores, k=k, labels=np.arange(n))
            assert row[f"recall@{k}"] == pytest.approx(theirs)
        assert row["mrr"] == pytest.approx(label_ranking_average_precision_score(np.eye(n), scores))
        # torchmetrics takes a score of 0 or less for "not found": 2 more makes every cosine positive.
        pairs = [(torch.tensor(s + 2), torch.arange(n) == j) for j, s in enumerate(scores)]
        assert row["mrr"] == pytest.approx(float(np.mean([retrieval_reciprocal_rank(*p) for p in pairs])), abs=1e-6)
        assert row["recall@10"] == pytest.approx(float(np.mean([retrieval_recall(*p, top_k=10) for p in pairs])))
    assert found["languages"]["eng"]["mrr"] > found["languages"]["deu"]["mrr"] > found["languages"]["swh"]["mrr"]


def test_intervals_hold_the_measure_follow_the_seed_and_shrink_with_images():
    def width(n, seed=0, repeat=1):
        rng = np.random.default_rng(1)
        images = rng.normal(size=(n, 8))
        texts = np.concatenate([images + 0.9 * rng.normal(size=(n, 8))] * repeat)
        rows = captions("eng", n) * repeat
        row = retrieval_by_language(texts, images, rows, seed=seed)["languages"]["eng"]
        low, high = row["mrr_ci"]
        assert 0 <= low < row["mrr"] < high <= 1
        return low, high

    assert width(40) == width(40)
    assert width(40) != width(40, seed=1)
    small, large = np.diff(width(40))[0], np.diff(width(640))[0]
    assert 2 < small / large < 8
    # The images are drawn, not the captions: the same captions again make nothing surer.
    assert np.diff(width(40, repeat=4))[0] == pytest.approx(small)


def test_an_interval_is_as_wide_as_the_normal_one_for_many_images():
    rng = np.random.default_rng(2)
    images = rng.normal(size=(900, 8))
    texts = images + 0.8 * rng.normal(size=images.shape)
    row = retrieval_by_language(texts, images, captions("eng", 900))["languages"]["eng"]
    share = row["recall@1"]
    half = 1.96 * np.sqrt(share * (1 - share) / 900)
    assert row["recall@1_ci"] == pytest.approx([share - half, share + half], abs=0.15 * half)


def test_chance_is_what_random_vectors_reach():
    rng = np.random.default_rng(0)
    found = retrieval_by_language(rng.normal(size=(4000, 6)), rng.normal(size=(40, 6)), captions("eng", 40) * 100)
    row = found["languages"]["eng"]
    for name, chance in found["chance"].items():
        assert row[name] == pytest.approx(chance, abs=0.04)


def test_vectors_that_do_not_fit_are_refused():
    rows = captions("eng", 3)
    with pytest.raises(XtError, match="2 text vectors for 3 captions"):
        retrieval_by_language(np.ones((2, 4)), np.ones((3, 4)), rows)
    with pytest.raises(XtError, match="Texts have 4 dims, images 5"):
        retrieval_by_language(np.ones((3, 4)), np.ones((3, 5)), rows)
    with pytest.raises(XtError, match="has image 2; there are 2 image vectors"):
        retrieval_by_language(np.ones((3, 4)), np.ones((2, 4)), rows)
    with pytest.raises(XtError, match="not finite"):
        retrieval_by_language(np.full((3, 4), np.inf), np.ones((3, 4)), rows)


# --- encoding ---
