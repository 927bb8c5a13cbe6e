"""A checkpoint, its exported model and a server that serves it give the same figures of mining and of ranking."""

from __future__ import annotations

import numpy as np
import pytest

from xt.core.data.bitext import Bitext
from xt.core.encoder import onnx_engine, torch_engine
from xt.eval.mining import run
from xt.eval.mining.sets import mining_set_from_bitext
from xt.eval.ranked.collection import Collection, Texts
from xt.eval.ranked.search import rank_collection
from xt.serve.client.encoder import TritonEncoder

TOLERANCE = 2e-3
"""Of thresholds and ranking figures; scores agree to 1e-4."""
ONE_PAIR = 0.02
"""Of mining figures: one pair of sixty may fall to either side of the threshold."""


@pytest.fixture(scope="module")
def data():
    """Made-up sentences of six words; a translation has one of them replaced."""
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1200, (240, 6))
    english = tuple(" ".join(f"word{w}" for w in row) for row in words)
    words[np.arange(240), rng.integers(0, 6, 240)] = rng.integers(0, 1200, 240)
    foreign = tuple(" ".join(f"word{w}" for w in row) for row in words)
    task = mining_set_from_bitext(Bitext("deu", foreign, english), 0)
    queries = Texts.of([(f"q{i}", text, "deu") for i, text in enumerate(foreign)])
    documents = Texts.of([(f"d{i}", text, "eng") for i, text in enumerate(english)])
    return task, Collection(queries, documents, {f"q{i}": {f"d{i}": 1} for i in range(240)}, "here")


def test_mining_and_ranking_give_the_same_on_every_engine(data, tiny, tiny_repository, server):
    task, collection = data
    engines = {
        "pytorch": torch_engine.load_encoder(tiny, device="cpu"),
        "onnxruntime": onnx_engine.load_model(tiny_repository / "encoder")[0],
        "triton": TritonEncoder(server.url, "encoder"),
    }
    mined, ranked = {}, {}
    for name, encoder in engines.items():
        mined[name] = run.evaluate_mining(encoder, [task])
        ranked[name] = rank_collection(encoder, collection, names=["nDCG@10", "R@100", "RR@10"])
        assert ranked[name].section["prefixes"] == {"queries": "query", "documents": "passage"}
    first = mined["pytorch"].section["languages"]["deu"]
    assert 0.3 < first["f1"] <= 1
    for name in ("onnxruntime", "triton"):
        row = mined[name].section["languages"]["deu"]
        for figure in ("precision", "recall", "f1"):
            assert row[figure] == pytest.approx(first[figure], abs=ONE_PAIR), (name, figure)
        assert row["threshold"] == pytest.approx(first["threshold"], abs=TOLERANCE)
        assert ranked[name].section["mean"]["nDCG@10"] == pytest.approx(
            ranked["pytorch"].section["mean"]["nDCG@10"], abs=TOLERANCE
        )
        a, b = (ranked[n].rankings["deu"].scores for n in (name, "pytorch"))
        np.testing.assert_allclose(a, b, atol=1e-4)
