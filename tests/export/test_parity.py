"""The measures of parity by hand, and the bundled encoder's real int8 export against sentence-transformers.

Tests `export/thresholds.py` as well.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from xt.core.data.bitext import Bitext
from xt.core.encoder.onnx_engine import OnnxEngine, load_model
from xt.core.encoder.text import TextEncoder, TextTokenizer
from xt.core.encoder.torch_engine import load_encoder
from xt.export import parity
from xt.export.graphs import PRECISIONS
from xt.export.thresholds import THRESHOLDS, failures

TEXTS = parity.ParityTexts(
    foreign=("guten morgen welt", "la maison est grande", "nyumba ni kubwa"),
    translations=("good morning",) * 3,
    english=("good morning",),
    of_language=("deu", "fra", "swh"),
    long=(),
)


def stage(**values):
    good = {"cosine_min": 1.0, "cosine_p1": 1.0, "cosine_mean": 1.0, "neighbour_agreement": 1.0}
    more = {"batch_cosine_min": 1.0, "bit_equal": 1.0, "padding_cosine_min": 1.0, "megabytes": 1.0}
    return parity.Stage(**{"stage": "fused", **good, **more, **values})


class Fixed:
    """An engine whose vectors are known: row i of a table by the first content token, plus what `mates` adds."""

    def __init__(self, table, mates=0.0):
        self.table, self.mates = np.asarray(table, np.float32), mates

    def forward(self, input_ids, attention_mask):
        rows = self.table[input_ids[:, 2] % len(self.table)]
        return rows + self.mates * (len(rows) - 1)


def test_cosines_are_those_of_the_definition():
    a = np.array([[3, 4], [1, 0], [2, 2]], np.float32)
    b = np.array([[4, 3], [0, 5], [-1, -1]], np.float32)
    np.testing.assert_allclose(parity.cosines(a, b), [24 / 25, 0, -1], atol=1e-7)


def test_cosines_of_scikit_learn():
    from sklearn.metrics.pairwise import cosine_similarity

    a, b = np.random.default_rng(0).normal(size=(2, 30, 8)).astype(np.float32)
    np.testing.assert_allclose(parity.cosines(a, b), cosine_similarity(a, b).diagonal(), atol=1e-6)


def test_the_sample_is_spread_evenly_and_shares_the_english_side():
    english = tuple(f"sentence {i}" for i in range(9))
    corpus = [Bitext(c, tuple(f"{c} {i}" for i in range(9)), english) for c in ("deu", "fra")]
    texts = parity.ParityTexts.sample(corpus, each=3)
    assert texts.foreign == ("deu 0", "deu 4", "deu 8", "fra 0", "fra 4", "fra 8")
    assert texts.english == ("sentence 0", "sentence 4", "sentence 8")
    assert texts.languages == 2


def test_a_language_of_few_sentences_gives_each_once(corpus):
    texts = parity.ParityTexts.sample(corpus, each=100)
    assert texts.foreign == tuple(s for b in corpus for s in b.foreign)
    assert len(texts.english) == 4


@pytest.mark.parametrize("precision", [p for p in PRECISIONS if p != "auto"])
def test_every_precision_has_the_four_thresholds_and_they_are_asked_for(precision):
    thresholds = THRESHOLDS[precision]["encoder"]
    assert set(thresholds) == {"cosine_min", "cosine_p1", "neighbour_agreement", "batch_cosine_min"}
    assert failures(stage(), thresholds) == []
    for key, least in thresholds.items():
        assert failures(stage(**{key: least}), thresholds) == []
        (failure,) = failures(stage(**{key: least - 1e-5}), thresholds)
        assert failure.startswith(f"fused: {key} ")
        assert failure.endswith(f"is below {least}")


def test_nan_does_not_pass():
    assert len(failures(stage(cosine_p1=float("nan")), THRESHOLDS["int8"]["encoder"])) == 1


def test_an_encoder_is_its_own_equal(tiny, corpus):
    encoder = load_encoder(tiny, device="cpu")
    texts = parity.ParityTexts.sample(corpus)
    found = parity.measure("same", encoder, parity.reference(encoder, texts), texts, 12.34)
    assert found.cosine_min == pytest.approx(1, abs=1e-6)
    assert found.neighbour_agreement == 1
    assert found.batch_cosine_min > 0.99999
    assert found.megabytes == 12.3


def test_decomposed_texts_must_have_the_vectors_of_their_composed_form(tiny, corpus):
    encoder = load_encoder(tiny, device="cpu")
    texts = parity.ParityTexts.sample(corpus)
    assert texts.both_forms == ("die katze schläft heute",)  # one of each language that has such
    expected = parity.reference(encoder, texts)
    old = TextEncoder(tiny.spec, encoder.tokenizer.as_written(), encoder.engine, pad_id=1)
    assert parity.measure("composing", encoder, expected, texts, 1).cosine_min > 0.9999
    assert parity.measure("as written", old, expected, texts, 1).cosine_min < 0.99


def test_measures_of_known_vectors(tiny):
    """Three foreign texts against two English: one of five vectors is turned by 90 degrees."""
    tokenizer = TextTokenizer(tiny.path / "tokenizer.json", 64)
    texts = parity.ParityTexts(
        ("guten", "katze", "haus"), ("good", "cat", "cat"), ("good", "cat"), ("deu",) * 3, ("guten",)
    )
    first = [int(ids[2]) for ids in tokenizer([*texts.foreign, *texts.english], prefix="query: ")[0]]
    table = np.zeros((max(first) + 1, 32), np.float32)
    table[first] = np.eye(32, dtype=np.float32)[[0, 0, 1, 0, 1]]
    right = TextEncoder(tiny.spec, tokenizer, Fixed(table), pad_id=1)
    expected = parity.reference(right, texts)
    table[first[2]] = np.eye(32)[0]  # "haus" now lies at "good", not at "cat"
    found = parity.measure("x", TextEncoder(tiny.spec, tokenizer, Fixed(table), pad_id=1), expected, texts, 1)
    assert found.cosine_min == 0
    assert found.cosine_mean == pytest.approx(5 / 6)
    assert found.cosine_p1 == pytest.approx(0.05)  # between the smallest, 0, and the next, 1: 1 % of five steps
    assert found.neighbour_agreement == pytest.approx(2 / 3)


def test_vectors_that_depend_on_batch_mates_are_found(tiny):
    tokenizer = TextTokenizer(tiny.path / "tokenizer.json", 64)
    table = np.random.default_rng(0).normal(size=(64, 32))
    texts = TEXTS.foreign
    good = TextEncoder(tiny.spec, tokenizer, Fixed(table), pad_id=1)
    bad = TextEncoder(tiny.spec, tokenizer, Fixed(table, mates=0.1), pad_id=1)
    cosine, equal = parity.batch_invariance(good, texts)
    assert (cosine, equal) == (pytest.approx(1, abs=1e-6), 1.0)
    cosine, equal = parity.batch_invariance(bad, texts)
    assert cosine < 0.999
    assert equal == pytest.approx(1 / 9)  # nine comparisons; the third text is alone in its batch of two at most


def test_other_weights_do_not_pass(tiny, corpus):
    import torch

    from xt.core.encoder.torch_engine import TorchEngine, load_network

    encoder = load_encoder(tiny, device="cpu")
    texts = parity.ParityTexts.sample(corpus)
    expected = parity.reference(encoder, texts)
    network = load_network(tiny.path)
    with torch.no_grad():
        network.encoder.layer[1].output.dense.weight.mul_(1.2)
    other = TextEncoder(tiny.spec, encoder.tokenizer, TorchEngine(network, tiny.spec, device="cpu"), pad_id=1)
    found = parity.measure("changed", other, expected, texts, 1)
    assert failures(found, THRESHOLDS["fp32"]["encoder"])


def test_int8_of_the_tiny_graph_is_measured_as_near_but_not_equal(graphs, tiny, corpus):
    reference = load_encoder(tiny, device="cpu")
    texts = parity.ParityTexts.sample(corpus)
    encoder = TextEncoder(tiny.spec, reference.tokenizer, OnnxEngine(graphs.int8, device="cpu"), pad_id=1)
    found = parity.measure("int8", encoder, parity.reference(reference, texts), texts, 1)
    assert 0.98 < found.cosine_min < 0.999999
    assert found.cosine_min <= found.cosine_p1 <= found.cosine_mean
    assert found.batch_cosine_min >= 0.99999


def test_the_bundled_encoders_int8_export_passes_its_parity(bundled_model):
    artifact, lines = bundled_model
    result = json.loads((artifact.path / "parity.json").read_text())
    assert result == artifact.facts["parity"]
    assert result["passed"] is True
    assert result["languages"] == 6
    assert [s["stage"] for s in result["stages"]] == ["onnx", "fused", "int8"] == [x.split(":")[0] for x in lines[1:]]
    assert lines[0] == "provider: openvino (OpenVINOExecutionProvider)"
    assert result["stages"][-1]["bit_equal"] == 1.0
    for measured, precision in zip(result["stages"], ("fp32", "fp32", "int8"), strict=True):
        for key, least in THRESHOLDS[precision]["encoder"].items():
            assert measured[key] >= least


def test_the_bundled_int8_vectors_are_sentence_transformers_own(bundled, bundled_model, django):
    from sentence_transformers import SentenceTransformer

    texts = [t for b in django for t in b.foreign[3::12]]  # not the sentences parity was measured on
    assert len(texts) > 60
    expected = SentenceTransformer(str(bundled.path), device="cpu").encode(texts, prompt="query: ", batch_size=16)
    encoder, _ = load_model(bundled_model[0].path, device="cpu")
    found = encoder.encode(texts).vectors
    cosines = (expected * found).sum(1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(found, axis=1)
    assert np.quantile(cosines, 0.01) >= 0.99
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-4)


def test_the_bundled_int8_graph_takes_under_two_fifths_of_the_weights(bundled, bundled_model):
    int8 = (bundled_model[0].path / "1" / "model.onnx").stat().st_size
    assert int8 < 0.4 * (bundled.path / "model.safetensors").stat().st_size
