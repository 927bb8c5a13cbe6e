"""The served retriever: its answers are those of this process, and encoder, index and calibration go together.

Tests `serve/index/calibration.py` and `serve/runtime/retriever.py` as well.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import stat
import threading
import time
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as grpc

from xt.calibration.apply.file import CalibrationTable
from xt.calibration.apply.retrieval import RetrievalTemperature
from xt.core.encoder.onnx_engine import load_model
from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, new_artifact, open_artifact, read_manifest
from xt.serve.index import retriever
from xt.serve.index.calibration import model_identity, read_calibration
from xt.serve.index.encode_files import IdentifiedEncoder, Settings
from xt.serve.index.indexing import index_corpus
from xt.serve.index.retriever import install, recalibrate, retrievers
from xt.serve.triton.launcher import TritonServer
from xt.serve.triton.reload import reload

WORDS = "good morning world the cat sleeps today guten morgen welt habari za asubuhi bonjour tout le monde".split()
TABLE = CalibrationTable(
    RetrievalTemperature(0.02, 0.8), "zero-shot", {"deu": RetrievalTemperature(0.1, 0.5)}, candidates=100
)
DOCUMENTS = 150


def sentences(count, seed=0):
    random = np.random.default_rng(seed)
    return [f"word{i} " + " ".join(random.choice(WORDS, random.integers(1, 20))) for i in range(count)]


def identity_of(model):
    here = model_identity(model)
    parent = {"kind": "model", "hash": here["hash"]}
    return {
        **{k: here[k] for k in ("name", "checkpoint", "precision", "dim")},
        "engine": "onnxruntime",
        "parent": parent,
    }


def make_index(folder, encoder, identity, texts, *, kind="flat", prefix="passage"):
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "corpus.jsonl"
    rows = [{"id": f"d{i}", "text": t, "title": "the" if i % 2 else ""} for i, t in enumerate(texts)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    index_corpus(source, folder / "index", IdentifiedEncoder(encoder, identity), settings=Settings(prefix), kind=kind)
    return folder / "index"


@pytest.fixture(scope="module")
def model_folder(tiny_repository, tmp_path_factory):
    """The tiny encoder as if it came from a checkpoint whose hash is known."""
    source = tiny_repository / "encoder"
    manifest = read_manifest(source)
    target = tmp_path_factory.mktemp("model") / "encoder"
    with new_artifact(target, kind="model") as draft:
        shutil.copytree(source, draft.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST, "__pycache__"))
        draft.facts = {**manifest["facts"], "checkpoint": {"kind": "checkpoint", "path": "runs/x", "hash": "c" * 64}}
    return target


@pytest.fixture(scope="module")
def model(model_folder):
    return load_model(model_folder, device="cpu")


@pytest.fixture(scope="module")
def index_folder(model, tmp_path_factory):
    return make_index(tmp_path_factory.mktemp("index"), model[0], identity_of(model[1]), sentences(DOCUMENTS))


@pytest.fixture(scope="module")
def repository(model_folder, index_folder, tmp_path_factory):
    """A calibrated retriever and one without."""
    folder = tmp_path_factory.mktemp("retrievers")
    install(index_folder, model_folder, folder, table=TABLE)
    install(index_folder, model_folder, folder, name="plain", uncalibrated=True)
    return folder


@pytest.fixture(scope="module")
def client(repository):
    with TritonServer(repository) as server:
        raw = grpc.InferenceServerClient(server.url)
        raw.metrics = f"http://127.0.0.1:{server.ports.metrics}/metrics"
        yield raw
        raw.close()


def counted(client, name):
    """What one of the calibrated retriever's counters says, once it has been told."""
    time.sleep(0.7)
    with urllib.request.urlopen(client.metrics, timeout=10) as page:
        lines = [line for line in page.read().decode().splitlines() if line.startswith(name + "{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if 'model="retriever"' in line)


def ask(client, texts, *, model="retriever", languages=None, outputs=None, **parameters):
    tensors = []
    for name, rows in (("text", texts), ("language", languages)):
        if rows is not None:
            data = np.array([[r if isinstance(r, bytes) else r.encode()] for r in rows], dtype=np.object_)
            tensor = grpc.InferInput(name, list(data.shape), "BYTES")
            tensor.set_data_from_numpy(data)
            tensors.append(tensor)
    wanted = [grpc.InferRequestedOutput(o) for o in outputs] if outputs else None
    return client.infer(model, tensors, outputs=wanted, parameters=parameters or None, client_timeout=60)


def refused(client, texts, **options):
    with pytest.raises(grpc.InferenceServerException) as error:
        ask(client, texts, **options)
    return f"{error.value.status()}: {error.value.message()}"


def strings(result, name):
    return [[v.decode() for v in row] for row in result.as_numpy(name)]


def by_hand(model, queries, calibrator, k):
    """Ids, cosines, probabilities and none from the encoder and numpy alone."""
    texts = [("the " if i % 2 else "") + t for i, t in enumerate(sentences(DOCUMENTS))]
    corpus = model[0].encode(texts, prefix="passage").vectors.astype(np.float64)
    vectors = model[0].encode(queries, prefix="query").vectors.astype(np.float64)
    cosines = vectors @ corpus.T
    for query in cosines:
        order = np.argsort(-query)[:100]
        odds = [math.exp((s - 1) / calibrator.temperature) for s in [*query[order], calibrator.none_score]]
        yield [f"d{i}" for i in order[:k]], query[order[:k]], np.array(odds[:k]) / sum(odds), odds[-1] / sum(odds)


def test_the_served_answers_are_those_worked_out_by_hand(client, model):
    queries = sentences(12, seed=3)
    found = ask(client, queries, k=7)
    ids, documents = strings(found, "ids"), strings(found, "documents")
    texts = sentences(DOCUMENTS)
    for row, (expected, cosines, chances, none) in enumerate(by_hand(model, queries, TABLE.default, 7)):
        assert ids[row] == expected
        np.testing.assert_allclose(found.as_numpy("scores")[row], cosines, atol=1e-5)
        np.testing.assert_allclose(found.as_numpy("probabilities")[row], chances, atol=1e-3)
        assert found.as_numpy("none")[row, 0] == pytest.approx(none, abs=1e-3)
        assert documents[row] == [("the " if int(i[1:]) % 2 else "") + texts[int(i[1:])] for i in expected]
    assert strings(found, "calibration") == [["zero-shot"]] * 12
    assert found.as_numpy("tokens")[:, 0].tolist() == [len(q.split()) + 3 for q in queries]
    assert not found.as_numpy("truncated").any()


def test_asking_for_fewer_documents_does_not_change_their_probabilities(client):
    queries = sentences(5, seed=4)
    every, one = ask(client, queries, k=100), ask(client, queries, k=1)
    np.testing.assert_allclose(one.as_numpy("probabilities"), every.as_numpy("probabilities")[:, :1], atol=1e-6)
    np.testing.assert_allclose(one.as_numpy("none"), every.as_numpy("none"), atol=1e-6)
    total = every.as_numpy("probabilities").sum(1) + every.as_numpy("none")[:, 0]
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert ask(client, queries).as_numpy("ids").shape == (5, 10)  # the default


def test_a_language_has_its_own_calibrator_within_one_request(client, model):
    queries = sentences(4, seed=5)
    found = ask(client, queries, languages=["de", "swh", "", "no such language"], k=3)
    assert [row[0] for row in strings(found, "calibration")] == [
        "per-language:deu",
        "zero-shot",
        "zero-shot",
        "zero-shot",
    ]
    german, other = (list(by_hand(model, queries, c, 3)) for c in (TABLE.by_language["deu"], TABLE.default))
    np.testing.assert_allclose(found.as_numpy("probabilities")[0], german[0][2], atol=1e-3)
    np.testing.assert_allclose(found.as_numpy("probabilities")[1], other[1][2], atol=1e-3)
    assert abs(german[0][2][0] - other[0][2][0]) > 0.05


def test_parameters_do_what_they_say(client, model):
    text = sentences(1, seed=6)[0]
    plain, passage = ask(client, [text], k=3), ask(client, [text], k=3, prefix="passage")
    assert np.abs(plain.as_numpy("scores") - passage.as_numpy("scores")).max() > 1e-3
    long = "good " * 100
    assert "text 0 has 103 tokens; the encoder reads at most 64" in refused(client, [long])
    cut = ask(client, [long], truncate=True)
    assert (cut.as_numpy("truncated")[0, 0], cut.as_numpy("tokens")[0, 0]) == (True, 64)
    only = ask(client, [text], outputs=["ids"])
    assert [o.name for o in only.get_response().outputs] == ["ids"]


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (["good"], {"k": 0}, "k is 0, expected a whole number from 1 to 100"),
        (["good"], {"k": 101}, "k is 101, expected a whole number from 1 to 100"),
        (["good"], {"k": "3"}, "parameter k is '3'"),
        (["good"], {"prefix": "qery"}, "Did you mean query?"),
        (["good"], {"nonsense": 1}, "Unknown parameter 'nonsense'"),
        (["good", " "], {}, "text 1 is empty"),
        ([b"\xff"], {}, "text 0 is not valid UTF-8"),
        (["good"], {"languages": [b"\xff"]}, "language 0 is not valid UTF-8"),
        (["good", "good"], {"languages": ["deu"]}, ""),
    ],
)
def test_bad_requests_are_invalid_and_say_why(client, texts, options, message):
    said = refused(client, texts, **options)
    assert "INVALID_ARGUMENT" in said
    assert message in said


def test_a_retriever_without_a_calibration_gives_cosines_and_refuses_probabilities(client):
    queries = sentences(3, seed=7)
    plain, calibrated = ask(client, queries, model="plain"), ask(client, queries)
    np.testing.assert_allclose(plain.as_numpy("scores"), calibrated.as_numpy("scores"), atol=1e-6)
    assert plain.as_numpy("probabilities") is None
    assert strings(plain, "calibration") == [["none"]] * 3
    for asked in (["ids", "probabilities"], ["none"]):
        said = refused(client, queries, model="plain", outputs=asked)
        assert "INVALID_ARGUMENT" in said
        assert f"plain has no calibration, so it cannot give {asked[-1]}" in said


def test_the_version_holds_all_that_it_needs(repository, model_folder, index_folder, tmp_path):
    artifact = open_artifact(repository / "retriever", kind="model")
    names = {n for n in artifact.manifest["files"] if n.startswith("1/")}
    assert {"1/model.onnx", "1/tokenizer.json", "1/golden.json", "1/index.faiss", "1/calibration.json"} <= names
    assert [p["hash"] for p in artifact.manifest["parents"]] == [
        open_artifact(model_folder).hash,
        open_artifact(index_folder).hash,
    ]
    assert "1/calibration.json" not in open_artifact(repository / "plain").manifest["files"]


def test_an_installed_version_shares_no_file_with_anything_and_cannot_be_written_to(
    repository, model_folder, index_folder, tmp_path
):
    install(index_folder, model_folder, tmp_path, table=TABLE)
    recalibrate(tmp_path, "retriever", TABLE)
    sources = {f.stat().st_ino for folder in (model_folder, index_folder) for f in folder.rglob("*") if f.is_file()}
    for folder in (repository / "retriever", repository / "plain", tmp_path / "retriever"):
        for name in open_artifact(folder, kind="model").manifest["files"]:
            about = (folder / name).stat()
            assert about.st_ino not in sources, name
            assert (about.st_nlink, stat.S_IMODE(about.st_mode)) == (1, 0o444), name


def test_a_source_that_changes_while_it_is_copied_is_found_out(model_folder, index_folder, tmp_path, monkeypatch):
    def copy(source, target):
        target.write_bytes(source.read_bytes() + b"x")

    monkeypatch.setattr(retriever, "copy_file", copy)
    with pytest.raises(XtError, match="changed while it was copied"):
        install(index_folder, model_folder, tmp_path, table=TABLE)
    assert not list(tmp_path.iterdir())


def test_an_installed_retriever_is_replaced_by_its_next_version(model_folder, index_folder, tmp_path):
    install(index_folder, model_folder, tmp_path, table=TABLE)
    with pytest.raises(XtError, match="is complete already"):
        install(index_folder, model_folder, tmp_path, table=TABLE)
    install(index_folder, model_folder, tmp_path, uncalibrated=True, force=True)
    facts = open_artifact(tmp_path / "retriever").facts
    assert (facts["graph"], facts["searches"], facts["calibration"]) == ("2/model.onnx", "2/searches.json", "")
    assert not (tmp_path / "retriever/1").exists()


def test_a_new_index_and_calibration_are_loaded_under_load_and_a_bad_one_leaves_the_old(
    model, model_folder, index_folder, tmp_path
):
    install(index_folder, model_folder, tmp_path / "r", table=TABLE)
    fewer = make_index(tmp_path / "fewer", model[0], identity_of(model[1]), sentences(DOCUMENTS)[: DOCUMENTS // 2])
    other = CalibrationTable(RetrievalTemperature(0.05, 0.7), "pooled", {}, candidates=100)
    (query,) = sentences(1, seed=8)
    with TritonServer(tmp_path / "r") as server:
        client = grpc.InferenceServerClient(server.url)
        before = ask(client, [query], k=3)
        ended, lost, seen = threading.Event(), [], set()

        def call():
            with grpc.InferenceServerClient(server.url) as own:
                while not ended.is_set():
                    try:
                        seen.add(strings(ask(own, [query], k=3), "calibration")[0][0])
                    except Exception as error:
                        lost.append(error)

        callers = [threading.Thread(target=call) for _ in range(3)]
        for thread in callers:
            thread.start()
        install(fewer, model_folder, tmp_path / "r", table=other, force=True)
        assert reload(server.url).changed
        time.sleep(0.3)
        ended.set()
        for thread in callers:
            thread.join()
        assert not lost
        assert seen == {"zero-shot", "pooled"}
        after = ask(client, [query], k=3)
        assert strings(after, "calibration") == [["pooled"]]
        assert all(int(i[1:]) < DOCUMENTS // 2 for i in strings(after, "ids")[0])
        assert after.as_numpy("probabilities")[0, 0] != before.as_numpy("probabilities")[0, 0]
        for file in fewer.iterdir():
            os.truncate(file, 0)  # the server has files of its own
        kept = ask(client, [query], k=3)
        assert (strings(kept, "documents"), server.restarts) == (strings(after, "documents"), 0)
        install(index_folder, model_folder, tmp_path / "r", table=TABLE, force=True)
        file = next((tmp_path / "r/retriever").glob("*/calibration.json"))
        file.chmod(0o644)
        file.write_text(file.read_text().replace("0.02", "0.03"))
        with pytest.raises(XtError, match="calibration.json"):
            reload(server.url)
        same = ask(client, [query], k=3)
        np.testing.assert_array_equal(same.as_numpy("probabilities"), after.as_numpy("probabilities"))
        client.close()


def test_a_query_asked_again_is_not_computed_again(client):
    queries = sentences(6, seed=9)
    fresh = ask(client, queries, k=4, languages=["de", *[""] * 5])
    computed = counted(client, "xt_tokens_total")
    again = ask(client, [*reversed(queries), queries[0], "word7 alone"], k=4, languages=[*[""] * 5, "de", "", ""])
    for name in ("ids", "documents", "scores", "probabilities", "none", "tokens", "truncated", "calibration"):
        np.testing.assert_array_equal(again.as_numpy(name)[:6], fresh.as_numpy(name)[::-1], err_msg=name)
    assert strings(again, "ids")[6] == strings(fresh, "ids")[0]
    assert strings(again, "calibration")[6:] == [["zero-shot"], ["zero-shot"]]
    assert counted(client, "xt_tokens_total") - computed == 5  # of the one new query: <s> query: word7 alone </s>


def test_without_the_cache_a_query_is_computed_every_time(client):
    queries = sentences(6, seed=19)
    fresh = ask(client, queries, k=4, cache=False)
    computed, hits = counted(client, "xt_tokens_total"), counted(client, "xt_cache_hits_total")
    again = ask(client, queries, k=4, cache=False)
    np.testing.assert_array_equal(again.as_numpy("scores"), fresh.as_numpy("scores"))
    assert counted(client, "xt_tokens_total") - computed == sum(len(q.split()) + 3 for q in queries)
    ask(client, queries, k=4)  # was not kept
    assert counted(client, "xt_tokens_total") - computed == 2 * sum(len(q.split()) + 3 for q in queries)
    assert counted(client, "xt_cache_hits_total") == hits


def test_another_calibration_makes_the_next_version_of_the_same_index(model_folder, index_folder, tmp_path):
    before = install(index_folder, model_folder, tmp_path, table=TABLE)
    other = CalibrationTable(RetrievalTemperature(0.05, 0.7), "pooled", {"swh": RetrievalTemperature(0.1, 0.7)})
    after = recalibrate(tmp_path, "retriever", other)
    assert after.facts["graph"] == "2/model.onnx"
    assert not (tmp_path / "retriever/1").exists()
    assert after.manifest["parents"] == before.manifest["parents"]
    assert retriever.identity_of(after)["hash"] == open_artifact(model_folder).hash
    for name in ("index.faiss", "documents.jsonl", "model.onnx", "searches.json", "model.py"):
        assert after.manifest["files"][f"2/{name}"] == before.manifest["files"][f"1/{name}"], name
    assert retrievers(tmp_path) == ["retriever"]
    with TritonServer(tmp_path) as server, grpc.InferenceServerClient(server.url) as client:
        found = ask(client, ["good morning"], k=2)
        assert strings(found, "calibration") == [["pooled"]]
        cosines = found.as_numpy("scores")[0]
        odds = np.exp((cosines[1] - cosines[0]) / 0.05)
        assert found.as_numpy("probabilities")[0, 1] / found.as_numpy("probabilities")[0, 0] == pytest.approx(
            odds, 1e-3
        )
        assert strings(ask(client, ["good"], languages=["sw"]), "calibration") == [["per-language:swh"]]


def test_only_a_retriever_takes_a_calibration(tiny_repository, model_folder, index_folder, tmp_path):
    with pytest.raises(XtError, match="is no retriever"):
        recalibrate(tiny_repository, "encoder", TABLE)
    with pytest.raises(XtError, match="holds no retriever"):
        retrievers(tiny_repository)


def test_an_index_of_another_encoder_is_refused(model, model_folder, tmp_path):
    identity = identity_of(model[1])
    other = {**identity, "parent": {"kind": "model", "hash": "0" * 64}}
    index = make_index(tmp_path / "a", model[0], other, sentences(5))
    with pytest.raises(XtError, match="was encoded by tiny .*hash 000000000000.*the encoder .* is tiny"):
        install(index, model_folder, tmp_path / "r", uncalibrated=True)
    served = {**other, "engine": "triton"}  # encoded over the wire, where checkpoint and precision are told
    install(make_index(tmp_path / "b", model[0], served, sentences(5)), model_folder, tmp_path / "r", uncalibrated=True)
    for change in ({"precision": "int8"}, {"checkpoint": "other"}, {"dim": 16}):
        index = make_index(tmp_path / next(iter(change)), model[0], {**served, **change}, sentences(5))
        with pytest.raises(XtError, match="was encoded by tiny"):
            install(index, model_folder, tmp_path / "s", uncalibrated=True)
    assert not (tmp_path / "s").exists()


def test_vectors_that_are_not_this_encoders_are_found_out(model, model_folder, tmp_path):
    class Wrong:
        spec = model[0].spec

        def encode(self, texts, **options):
            found = model[0].encode(texts, **options)
            return type(found)(np.roll(found.vectors, 1, axis=1), found.tokens, found.truncated)

    index = make_index(tmp_path, Wrong(), identity_of(model[1]), sentences(5))
    with pytest.raises(XtError, match="gives other vectors than .* expected at least 0.999"):
        install(index, model_folder, tmp_path / "r", uncalibrated=True)


def test_probabilities_are_not_made_of_rough_scores(model, model_folder, tmp_path):
    index = make_index(tmp_path, model[0], identity_of(model[1]), sentences(300), kind="PQ8x4")
    with pytest.raises(XtError, match="differ from cosines by up to .* RFlat|differ from cosines by up to"):
        install(index, model_folder, tmp_path / "r", table=TABLE)
    install(index, model_folder, tmp_path / "r", uncalibrated=True)


def test_without_a_calibration_one_must_say_so(index_folder, model_folder, tmp_path):
    with pytest.raises(XtError, match="answers no probabilities"):
        install(index_folder, model_folder, tmp_path)
    with pytest.raises(XtError, match="both given"):
        install(index_folder, model_folder, tmp_path, table=TABLE, uncalibrated=True)
    with pytest.raises(XtError, match="cannot name a model"):
        install(index_folder, model_folder, tmp_path, uncalibrated=True, name="../x")


def test_another_prefix_than_the_calibrations_is_said(index_folder, model_folder, model, tmp_path):
    lines: list[str] = []
    install(index_folder, model_folder, tmp_path / "a", table=TABLE, report=lines.append)
    assert len(lines) == 1
    assert "index with --prefix query to match" in lines[0]
    index = make_index(tmp_path, model[0], identity_of(model[1]), sentences(5), prefix="query")
    install(index, model_folder, tmp_path / "b", table=TABLE, report=lines.append)
    assert len(lines) == 1


@pytest.mark.parametrize("damage", ["documents", "vectors"])
def test_a_retriever_whose_searches_changed_does_not_become_ready(repository, tmp_path, damage):
    """Its manifest fits: only the golden searches can tell."""
    source = repository / "retriever"
    manifest = read_manifest(source)
    with new_artifact(tmp_path / "r" / "retriever", kind="model") as draft:
        shutil.copytree(source, draft.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST, "__pycache__"))
        for file in draft.path.glob("1/*"):
            file.chmod(0o644)
        if damage == "documents":
            file = draft.path / "1/documents.jsonl"
            lines = file.read_bytes().splitlines(keepends=True)
            file.write_bytes(b"".join(lines[1:] + lines[:1]))
            starts = np.cumsum([0, *map(len, lines[1:] + lines[:1])])
            np.save(draft.path / "1/offsets.npy", starts)
        else:
            import faiss

            index = faiss.read_index(str(draft.path / "1/index.faiss"))
            vectors = index.reconstruct_n(0, index.ntotal)
            changed = faiss.IndexFlatIP(index.d)
            changed.add(np.roll(vectors, 1, axis=1))
            faiss.write_index(changed, str(draft.path / "1/index.faiss"))
        draft.facts, draft.parents = manifest["facts"], manifest["parents"]
    with pytest.raises(XtError, match="A golden search finds"), TritonServer(tmp_path / "r"):
        pass


# The calibration of a report


def write_report(
    folder, model, *, hash=None, precision="fp32", engine="onnxruntime", names=("mine",), sizes=(120, 300)
):
    one = {"kind": "retrieval-temperature", "temperature": 0.01, "none_score": 0.7}
    methods = {
        "zero-shot": {**one, "fitted_on": ["deu"]},
        "pooled": {**one, "temperature": 0.02, "fitted_on": ["deu", "swh"]},
        "per-language": {"swh": {**one, "temperature": 0.03}},
    }
    other = {"pooled": {**one, "temperature": 0.5, "fitted_on": ["deu"]}}
    rows = {code: {"candidates": size} for code, size in zip(("deu", "swh"), sizes, strict=True)}
    directions = {"foreign-english": methods, "english-foreign": other}
    entries = [
        {"name": n, "precision": precision, "engine": engine, "retrieval": {d: {"languages": rows} for d in directions}}
        for n in names
    ]
    with new_artifact(folder, kind="report") as draft:
        (draft.path / "calibration.json").write_text(json.dumps(dict.fromkeys(names, directions)))
        (draft.path / "metrics.json").write_text(json.dumps({"encoders": entries, "task": {"name": "django"}}))
        hashes = [hash or model.hash] + ["f" * 64] * (len(names) - 1)
        draft.parents = [{"kind": "model", "path": "x", "hash": h} for h in hashes]
        draft.facts = {"encoders": list(names)}
    return folder


@pytest.fixture(scope="module")
def identity(model):
    return model_identity(model[1])


def test_a_reports_calibration_is_taken_with_where_it_is_from(model, identity, tmp_path):
    report = write_report(tmp_path / "report", model[1], names=("base", "trained"))
    for path in (report, report / "calibration.json"):
        table = read_calibration(path, identity)
        assert (table.scope, table.default, table.candidates) == ("zero-shot", RetrievalTemperature(0.01, 0.7), 100)
        assert table.by_language == {"swh": RetrievalTemperature(0.03, 0.7)}
        kept = {k: table.provenance[k] for k in ("entry", "direction", "encoder_match", "task", "corpus_sizes")}
        assert kept == {
            "entry": "base",
            "direction": "foreign-english",
            "encoder_match": "exact",
            "task": "django",
            "corpus_sizes": [120, 120],
        }
    assert read_calibration(report, identity, scope="pooled").default.temperature == 0.02
    assert read_calibration(report, identity, direction="english-foreign").default.temperature == 0.5
    with pytest.raises(XtError, match="Unknown direction 'up'"):
        read_calibration(report, identity, direction="up")
    small = write_report(tmp_path / "small", model[1], sizes=(40, 30))
    assert read_calibration(small, identity).candidates == 40  # as many as the temperature was fitted with
    assert read_calibration(small, identity, scope="pooled").candidates == 30


def test_of_ranked_retrieval_the_only_direction_and_platts_map_are_taken(model, identity, tmp_path):
    one = {"kind": "retrieval-temperature", "temperature": 0.01, "none_score": 0.7}
    numbers = {"weights": [1.0, 0, 0, 0], "mean": [0.0] * 4, "scale": [1.0] * 4}
    mapped = {"kind": "retrieval-rescaled", "base": one, "map": {"kind": "platt", "bias": -0.5, **numbers}}
    methods = {"pooled": one, "per-language": {"swh": one}, "platt": mapped}
    report = write_report(tmp_path / "report", model[1])
    with new_artifact(tmp_path / "judged", kind="report") as draft:
        (draft.path / "calibration.json").write_text(json.dumps({"mine": {"queries-documents": methods}}))
        entry = {"name": "mine", "precision": "fp32", "engine": "onnxruntime"}
        about = {
            "encoders": [entry],
            "task": {"name": "questions"},
            "ranked": {"documents": 60, "prefixes": {"documents": "passage"}},
        }
        (draft.path / "metrics.json").write_text(json.dumps(about))
        draft.parents, draft.facts = read_manifest(report)["parents"], {"encoders": ["mine"]}
    table = read_calibration(tmp_path / "judged", identity)
    assert table.scope == "platt" and table.default.to_json() == mapped
    assert (
        table.choose("swh")[1] == "platt"
    )  # a language's temperature shares one probability out, and several are right
    assert (table.candidates, table.provenance["direction"]) == (60, "queries-documents")
    assert table.provenance["documents_prefix"] == "passage"
    confidence = table.default(np.array([[0.9, 0.8]]))
    p = 1 / (1 + np.exp(-10.0) + np.exp(-20.0))
    assert confidence[0, 0] == pytest.approx(1 / (1 + np.exp(0.5 - np.log(p / (1 - p)))))
    assert read_calibration(tmp_path / "judged", identity, scope="pooled").choose("swh")[1] == "per-language:swh"


def test_a_calibration_of_another_encoder_is_refused_unless_asked_for(model, identity, tmp_path):
    lines: list[str] = []
    over_the_wire = write_report(tmp_path / "wire", model[1], hash=identity["checkpoint"], engine="triton")
    assert read_calibration(over_the_wire, identity).provenance["encoder_match"] == "equal"
    sibling = write_report(tmp_path / "sibling", model[1], hash=identity["checkpoint"], precision="int8")
    stranger = write_report(tmp_path / "stranger", model[1], hash="e" * 64)
    bare = tmp_path / "bare.json"
    bare.write_text((sibling / "calibration.json").read_text())
    for path, why in ((sibling, "another precision"), (stranger, "another encoder"), (bare, "does not say which")):
        with pytest.raises(XtError, match=why) as error:
            read_calibration(path, identity)
        assert "--allow-other-encoder" in error.value.hint
        read_calibration(path, identity, allow_other_encoder=True, report=lines.append)
        assert why in lines[-1]
    assert len(lines) == 3
    two = write_report(tmp_path / "two", model[1], hash="e" * 64, names=("a", "b"))
    with pytest.raises(XtError, match="calibrators of a, b; none of them is the encoder tiny"):
        read_calibration(two, identity, allow_other_encoder=True)
    with pytest.raises(XtError, match="another encoder"):
        read_calibration(two, identity, entry="b")


@pytest.mark.parametrize("content", ["[]", "{}", '{"a": 1}', '{"a"'])
def test_what_is_no_calibration_is_refused(identity, tmp_path, content):
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(XtError):
        read_calibration(tmp_path / "c.json", identity)
    with pytest.raises(XtError, match="There is no calibration"):
        read_calibration(tmp_path / "none.json", identity)


def test_an_installed_retrievers_calibration_can_be_used_again(model, identity, tmp_path, index_folder, model_folder):
    table = read_calibration(write_report(tmp_path / "report", model[1]), identity)
    made = install(index_folder, model_folder, tmp_path / "r", table=table)
    assert read_calibration(made.path / "1/calibration.json", identity) == table
    with pytest.raises(XtError, match="another encoder"):
        read_calibration(made.path / "1/calibration.json", {**identity, "hash": "e" * 64})
