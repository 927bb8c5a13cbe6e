"""Search and rerank through the gateway and the clients, by a real retriever: probabilities and "none of these"."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil

import httpx
import numpy as np
import pytest

import xt.serve
from xt.calibration.apply.file import CalibrationTable
from xt.calibration.apply.maps import Platt
from xt.calibration.apply.retrieval import Rescaled, RetrievalMargin, RetrievalTemperature
from xt.core.encoder.onnx_engine import load_model
from xt.core.errors import XtError
from xt.serve.client import errors as client_errors
from xt.serve.gateway.server import Gateway
from xt.serve.index.calibration import model_identity
from xt.serve.index.encode_files import IdentifiedEncoder, Settings
from xt.serve.index.indexing import index_corpus
from xt.serve.index.retriever import install
from xt.serve.triton.addresses import free_ports
from xt.serve.triton.launcher import TritonServer

WORDS = "good morning world the cat sleeps today guten morgen welt habari za asubuhi bonjour tout le monde".split()
MAPPED = Rescaled(
    RetrievalMargin(0.1, 0.02), Platt(-0.4, (0.9, 0.3, 0.8, 1.1), (0.5, 0.5, 0.1, 0.2), (2.0, 0.3, 0.1, 0.2))
)
"""A calibrator that reads the best candidate's lead over the others."""
TABLE = CalibrationTable(
    RetrievalTemperature(0.05, 0.8), "zero-shot", {"deu": RetrievalTemperature(0.2, 0.5), "fra": MAPPED}, candidates=100
)


def sentences(count, seed=0):
    random = np.random.default_rng(seed)
    return [f"word{i} " + " ".join(random.choice(WORDS, random.integers(1, 20))) for i in range(count)]


CORPUS = sentences(120)


COPIES = [CORPUS[i % 3] if i < 90 else f" {CORPUS[3]}  " for i in range(95)]
"""Further documents: thirty copies of each of three texts, and five of one in other white space."""


@pytest.fixture(scope="module")
def served(tiny_repository, tmp_path_factory):
    """A Triton with the encoder, a calibrated retriever, one of a corpus with copies, and one without a calibration."""
    folder = tmp_path_factory.mktemp("search")
    encoder, artifact = load_model(tiny_repository / "encoder", device="cpu")
    here = model_identity(artifact)
    identity = {k: here[k] for k in ("name", "checkpoint", "precision", "dim")}
    identity |= {"engine": "onnxruntime", "parent": {"kind": "model", "hash": here["hash"]}}
    source = folder / "corpus.jsonl"
    source.write_text("".join(json.dumps({"id": f"d{i}", "text": t}) + "\n" for i, t in enumerate(CORPUS)))
    index_corpus(source, folder / "index", IdentifiedEncoder(encoder, identity), settings=Settings("passage"))
    repository = folder / "repository"
    repository.mkdir()
    install(folder / "index", tiny_repository / "encoder", repository, table=TABLE)
    install(folder / "index", tiny_repository / "encoder", repository, name="plain", uncalibrated=True)
    rows = [("d", i, t) for i, t in enumerate(CORPUS)] + [("c", i, t) for i, t in enumerate(COPIES)]
    source.write_text("".join(json.dumps({"id": f"{kind}{i}", "text": t}) + "\n" for kind, i, t in rows))
    index_corpus(source, folder / "repeated", IdentifiedEncoder(encoder, identity), settings=Settings("passage"))
    install(folder / "repeated", tiny_repository / "encoder", repository, name="repeated", table=TABLE)
    shutil.copytree(tiny_repository / "encoder", repository / "encoder")
    with TritonServer(repository) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(served):
    (port,) = free_ports(1)
    with Gateway(served.url, port=port) as running:
        yield running


@pytest.fixture(scope="module")
def http(gateway):
    with httpx.Client(base_url=gateway.url, timeout=30) as opened:
        yield opened


@pytest.fixture(scope="module")
def cosines(tiny_repository):
    """Similarities of queries to the whole corpus, worked out here."""
    encoder, _ = load_model(tiny_repository / "encoder", device="cpu")
    corpus = encoder.encode(CORPUS, prefix="passage").vectors

    def of(queries):
        return encoder.encode(queries, prefix="query").vectors.astype(np.float64) @ corpus.T

    return of


def softmax(scores, temperature, none):
    """Probabilities of the best 100 and of none, written out."""
    logits = np.append(np.sort(scores)[::-1][:100], none) / temperature
    odds = np.exp(logits - logits.max())
    return odds / odds.sum()


QUERIES = ["the cat sleeps today", "habari za asubuhi", "guten morgen"]


@pytest.mark.parametrize(("language", "calibrator"), [(None, "zero-shot"), ("de", "per-language:deu")])
def test_search_gives_the_nearest_with_the_calibrators_probabilities(http, cosines, language, calibrator):
    answer = http.post("/search", json={"queries": QUERIES, "k": 5, "language": language, "model": "retriever"}).json()
    assert answer["calibrated"] is True
    assert len(answer["answers"]) == 3
    own = TABLE.choose(language)[0]
    for query, found, scores in zip(QUERIES, answer["answers"], cosines(QUERIES), strict=True):
        expected = softmax(scores, own.temperature, own.none_score)
        best = np.argsort(-scores)[:5]
        assert found["query"] == query
        assert found["calibration"] == calibrator
        assert [h["score"] for h in found["results"]] == pytest.approx(scores[best].tolist(), abs=1e-4)
        assert [h["probability"] for h in found["results"]] == pytest.approx(expected[:5].tolist(), rel=0.02)
        assert found["none"] == pytest.approx(expected[-1], rel=0.02)
        assert all(CORPUS[int(h["id"][1:])] == h["document"] for h in found["results"])


@pytest.mark.parametrize("language", [None, "fra"])
def test_copies_share_one_place_and_the_probability_is_that_without_copies(http, served, language):
    body = {"queries": [*QUERIES, CORPUS[0]], "k": 100, "language": language}
    found, alone = (
        http.post("/search", json={**body, "model": name}).json()["answers"] for name in ("repeated", "retriever")
    )
    for one, other in zip(found, alone, strict=True):
        hits, singles = one["results"], other["results"]
        assert len(hits) == len({h["document"].strip() for h in hits}) == 100
        assert [h["id"] for h in hits] == [h["id"] for h in singles]
        assert [h["score"] for h in hits] == pytest.approx([h["score"] for h in singles], abs=1e-6)
        assert [h["probability"] for h in hits] == pytest.approx([h["probability"] for h in singles], abs=1e-5)
        assert one["none"] == pytest.approx(other["none"], abs=1e-5)
        assert all(h["copies"] == [h["id"]] for h in singles)
        for hit in hits:
            number = int(hit["id"][1:])
            same = [f"c{i}" for i, text in enumerate(COPIES) if text.strip() == CORPUS[number]]
            assert hit["copies"] == [hit["id"], *same]
    with xt.serve.Client(served.url, "repeated") as client:
        (first,) = client.search([CORPUS[0]], k=1)
    assert first.hits[0].copies == ("d0", *(f"c{i}" for i in range(0, 90, 3)))


def test_equal_documents_are_one_candidate_of_a_reranking(http):
    some = CORPUS[:3]
    body = {"query": QUERIES[0], "model": "encoder", "language": "fra"}
    alone = http.post("/rerank", json={**body, "documents": some}).json()
    repeated = [some[2], *some, f" {some[0]} ", some[2]]
    found = http.post("/rerank", json={**body, "documents": repeated}).json()
    assert found["none"] == pytest.approx(alone["none"], abs=1e-9)
    named = [(r["document"].strip(), r["copies"]) for r in found["results"]]
    assert dict(named) == {some[0]: [1, 4], some[1]: [2], some[2]: [0, 3, 5]}
    assert [text for text, _ in named] == [r["document"] for r in alone["results"]]
    assert [r["probability"] for r in found["results"]] == pytest.approx(
        [r["probability"] for r in alone["results"]], abs=1e-6
    )
    assert all(r["index"] == r["copies"][0] for r in found["results"])


def test_a_retriever_without_a_calibration_gives_cosines_and_says_so(http, cosines):
    answer = http.post("/search", json={"query": QUERIES[0], "k": 3, "model": "plain"}).json()
    (found,) = answer["answers"]
    assert [h["score"] for h in found["results"]] == pytest.approx(
        np.sort(cosines(QUERIES[:1])[0])[::-1][:3].tolist(), abs=1e-4
    )
    assert [h["probability"] for h in found["results"]] == [None] * 3
    assert found["none"] is None
    assert answer["calibrated"] is False
    assert "cosines only" in answer["note"]


def test_rerank_speaks_with_the_calibrator_of_the_retriever_made_with_its_encoder(http, cosines):
    some = CORPUS[:6]
    scores = cosines(QUERIES[:1])[0][:6]
    for language in (None, "deu"):
        own, name = TABLE.choose(language)
        body = {"query": QUERIES[0], "documents": some, "model": "encoder", "language": language}
        answer = http.post("/rerank", json=body).json()
        expected = softmax(scores, own.temperature, own.none_score)
        assert answer["calibrated"] is True
        assert answer["calibration"] == name
        assert [r["probability"] for r in answer["results"]] == pytest.approx(expected[:-1].tolist(), rel=0.02)
        assert answer["none"] == pytest.approx(expected[-1], rel=0.02)
        assert sum(r["probability"] for r in answer["results"]) + answer["none"] == pytest.approx(1)
        assert [r["relevance_score"] for r in answer["results"]] == [r["probability"] for r in answer["results"]]
    cut = http.post("/rerank", json={"query": QUERIES[0], "documents": some, "top_n": 2}).json()
    assert len(cut["results"]) == 2
    assert cut["none"] == pytest.approx(softmax(scores, 0.05, 0.8)[-1], rel=0.02)  # over all that were given


@pytest.mark.parametrize("language", [None, "deu", "fra"])
def test_rerank_answers_the_same_whatever_the_order_of_the_documents(http, cosines, language):
    some, answers = CORPUS[:4], []
    for order in itertools.permutations(range(4)):
        body = {"query": QUERIES[0], "documents": [some[i] for i in order], "model": "encoder", "language": language}
        answer = http.post("/rerank", json=body).json()
        assert [some[order[r["index"]]] for r in answer["results"]] == [r["document"] for r in answer["results"]]
        answers.append([(r["document"], r["score"], r["probability"]) for r in answer["results"]] + [answer["none"]])
    assert all(answer == answers[0] for answer in answers)
    scores = np.sort(cosines(QUERIES[:1])[0][:4])[::-1]
    expected = TABLE.choose(language)[0](scores[None])[0]
    assert [p for _, _, p in answers[0][:-1]] == pytest.approx(expected[:-1].tolist(), rel=0.02)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"query": "good", "k": 0}, 400, "k:"),
        ({"query": "good", "k": 1000}, 400, "k is 1000"),
        ({"query": " "}, 400, "text 0 is empty"),
        ({"queries": []}, 400, "queries is empty"),
        ({}, 400, "either query or queries"),
        ({"query": "good", "model": "retreiver"}, 404, "Did you mean retriever"),
        ({"query": "good " * 100}, 400, "reads at most 64"),
    ],
)
def test_a_wrong_search_is_told_what_is_wrong(http, body, status, says):
    answer = http.post("/search", json=body)
    assert answer.status_code == status
    assert says in answer.json()["error"]["message"]


def test_the_models_are_listed_by_kind(http):
    kinds = {m["id"]: m["kind"] for m in http.get("/v1/models").json()["data"]}
    assert kinds == {"encoder": "encoder", **dict.fromkeys(("retriever", "plain", "repeated"), "retriever")}
    answer = http.post("/v1/embeddings", json={"model": "retriever", "input": "good"})
    assert answer.status_code == 400
    assert "kind retriever; expected: encoder" in answer.json()["error"]["message"]


def test_both_clients_search(served, cosines):
    many = sentences(300, seed=7)
    expected = np.sort(cosines(many), axis=1)[:, ::-1][:, :4]

    async def search():
        async with xt.serve.AsyncClient(served.url, "retriever") as client:
            return await client.search(many, k=4)

    with xt.serve.Client(served.url, "retriever") as client:
        for found in (client.search(many, k=4), asyncio.run(search())):
            np.testing.assert_allclose([[h.score for h in f.hits] for f in found], expected, atol=1e-4)
            assert all(0 < f.none < 1 for f in found)
        mixed = client.search(QUERIES[:2], languages=["deu", "swh"])
        assert [f.calibration for f in mixed] == ["per-language:deu", "zero-shot"]
        with pytest.raises(client_errors.InvalidRequest, match="2 texts and 1 languages"):
            client.search(QUERIES[:2], languages=["deu"])
        with pytest.raises(XtError, match="Unknown output of 'retriever' 'embedding'"):
            client.encode(["good"])
    with xt.serve.Client(served.url, "plain") as client:
        (found,) = client.search(["good"], k=2)
        assert (found.none, found.hits[0].probability, found.calibration) == (None, None, "none")


def test_without_a_name_a_client_asks_the_encoder_among_several(served):
    with xt.serve.Client(served.url) as client:
        assert client.model == "encoder"
