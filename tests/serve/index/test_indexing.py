"""Encoding a corpus into shards and indexing it: against numpy, after a kill, and what is refused.

Tests `serve/index/encode_files.py` as well.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from xt.core.copies import Copies
from xt.core.encoder.onnx_engine import load_model
from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, open_artifact
from xt.core.reporter import Reporter
from xt.serve.index import encode_files
from xt.serve.index.encode_files import IdentifiedEncoder, Settings, encode_corpus, shards_of, work_folder
from xt.serve.index.index import Index, open_index, shown
from xt.serve.index.indexing import Distinct, build_index, exact, index_corpus

WORDS = "good morning world the cat sleeps today guten morgen welt habari za asubuhi bonjour tout le monde".split()
OPENED = {"encoder": "somewhere", "model": None}


@pytest.fixture(scope="module")
def model(tiny_repository):
    return load_model(tiny_repository / "encoder", device="cpu")


@pytest.fixture(scope="module")
def encoder(model):
    return model[0]


@pytest.fixture(scope="module")
def identity(model):
    return {
        "name": "tiny",
        "precision": "fp32",
        "engine": "onnxruntime",
        "dim": 32,
        "checkpoint": "c",
        "parent": {"kind": "model", "hash": model[1].hash},
    }


class Counting:
    """The real encoder, and how many texts it was asked for."""

    def __init__(self, encoder, stop_after=None):
        self.encoder, self.spec, self.texts, self.stop_after = encoder, encoder.spec, 0, stop_after

    def encode(self, texts, **options):
        if self.stop_after is not None and self.texts >= self.stop_after:
            raise KeyboardInterrupt
        self.texts += len(texts)
        return self.encoder.encode(texts, **options)


def sentences(count, seed=0):
    random = np.random.default_rng(seed)
    return [f"word{i} " + " ".join(random.choice(WORDS, random.integers(1, 20))) for i in range(count)]


def write_jsonl(path, texts, **fields):
    lines = [json.dumps({"id": f"d{i}", "text": t, **fields}, ensure_ascii=False) for i, t in enumerate(texts)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run(source, out, encoder, identity, **settings):
    return encode_corpus(source, out, IdentifiedEncoder(encoder, identity, OPENED), settings=Settings(**settings))


def all_vectors(artifact):
    return np.concatenate([v for v, _ in shards_of(artifact)])


# Encoding


def test_a_title_alone_is_encoded_and_what_is_not_read_is_noted(tmp_path, encoder, identity):
    folder = tmp_path / "corpus"
    (folder / "inner").mkdir(parents=True)
    write_jsonl(folder / "inner" / "c.jsonl", ["guten morgen", ""], title="welt")
    (folder / "a.csv").write_text('id,title,text\nx,"the cat",\ny,,\nz,,today\n')
    (folder / "notes.md").write_text("no")
    told: list[str] = []
    identified = IdentifiedEncoder(encoder, identity, OPENED)
    artifact = encode_corpus(folder, tmp_path / "out", identified, settings=Settings(), reporter=Reporter(told.append))
    texts = ["the cat", "today", "welt guten morgen", "welt"]
    np.testing.assert_allclose(all_vectors(artifact), encoder.encode(texts, prefix="none").vectors, atol=1e-5)
    assert artifact.facts["left_out"] == {"files": ["notes.md"], "empty_documents": 1}
    assert told[0] == "1 file not read: notes.md" and "documents without title and text left out" in told[1]
    index = build_index(artifact, tmp_path / "index")
    assert index.facts["left_out"] == artifact.facts["left_out"]
    assert [shown(Index(index.path).documents[row]) for row in range(4)] == texts


def test_the_shards_hold_what_the_encoder_gives_in_order(tmp_path, encoder, identity):
    texts = sentences(25)
    artifact = run(
        write_jsonl(tmp_path / "c.jsonl", texts), tmp_path / "out", encoder, identity, prefix="passage", shard_texts=10
    )
    assert artifact.manifest["kind"] == "vectors"
    assert [s["texts"] for s in artifact.facts["shards"]] == [10, 10, 5]
    expected = encoder.encode(texts, prefix="passage")
    np.testing.assert_allclose(all_vectors(artifact), expected.vectors, atol=1e-5)
    assert artifact.facts["tokens"] == expected.tokens.sum()
    lines = b"".join(lines for _, lines in shards_of(artifact)).splitlines()
    assert [json.loads(line)["text"] for line in lines] == texts
    assert artifact.manifest["parents"] == [identity["parent"]]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.jsonl", "out"]  # nothing is left beside it
    other = run(tmp_path / "c.jsonl", tmp_path / "query", encoder, identity, prefix="query")
    assert np.abs(all_vectors(other) - expected.vectors).max() > 0.01  # the prefix counts


def test_half_precision_is_near_and_half_the_size(tmp_path, encoder, identity):
    source = write_jsonl(tmp_path / "c.jsonl", sentences(20))
    full = run(source, tmp_path / "full", encoder, identity)
    half = run(source, tmp_path / "half", encoder, identity, dtype="float16")
    assert np.load(half.path / "vectors-00000.npy").dtype == np.float16
    np.testing.assert_allclose(all_vectors(half), all_vectors(full), atol=1e-3)
    with pytest.raises(XtError, match="Unknown dtype 'int8'"):
        Settings(dtype="int8")


def test_a_text_that_is_too_long_is_named_by_file_and_line_or_cut_and_counted(tmp_path, encoder, identity):
    texts = sentences(9)
    texts[6] = "good " * 100
    source = write_jsonl(tmp_path / "c.jsonl", texts)
    with pytest.raises(XtError, match=r"c.jsonl, line 7 has 102 tokens; the encoder reads at most 64"):
        run(source, tmp_path / "out", encoder, identity)
    assert not (tmp_path / "out").exists()
    assert run(source, tmp_path / "out", encoder, identity, truncate=True).facts["truncated"] == 1


def test_an_unknown_prefix_is_said_before_anything_is_read(tmp_path, encoder, identity):
    with pytest.raises(XtError, match="Unknown prefix 'document'"):
        run(tmp_path / "not there.txt", tmp_path / "out", encoder, identity, prefix="document")


def test_a_run_that_was_cut_short_is_continued_where_it_was(tmp_path, encoder, identity):
    source = write_jsonl(tmp_path / "c.jsonl", sentences(50))
    whole = run(source, tmp_path / "whole", encoder, identity, shard_texts=10)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out", Counting(encoder, stop_after=30), identity, shard_texts=10)
    assert not (tmp_path / "out").exists()
    (work_folder(tmp_path / "out") / "shard-00001.json").unlink()  # as if killed before it was written
    (work_folder(tmp_path / "out") / "vectors-00002.npy").write_bytes(b"half")
    counting = Counting(encoder)
    artifact = run(source, tmp_path / "out", counting, identity, shard_texts=10)
    assert counting.texts == 40  # all but the first shard, which alone was whole
    np.testing.assert_array_equal(all_vectors(artifact), all_vectors(whole))
    assert not work_folder(tmp_path / "out").exists()


def test_shards_of_another_corpus_encoder_or_prefix_are_not_taken(tmp_path, encoder, identity):
    source = write_jsonl(tmp_path / "c.jsonl", sentences(30))
    changes = [
        lambda: write_jsonl(source, sentences(30, seed=1)),
        lambda: identity.update(parent={"kind": "model", "hash": "other"}),
        lambda: settings.update(prefix="query"),
    ]
    settings = {"shard_texts": 10, "prefix": "none"}
    identity = dict(identity)
    for change in changes:
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "out", Counting(encoder, stop_after=20), identity, **settings)
        change()
    counting = Counting(encoder)
    run(source, tmp_path / "out", counting, identity, **settings)
    assert counting.texts == 30


def test_two_writers_of_one_folder_do_not_mix(tmp_path, encoder, identity):
    source = write_jsonl(tmp_path / "c.jsonl", sentences(5))
    with (
        encode_files._work_folder(tmp_path / "out"),
        pytest.raises(XtError, match="Another xt writes .*out now"),
    ):
        run(source, tmp_path / "out", encoder, identity)


def test_a_corpus_that_changes_while_it_is_read_is_refused(tmp_path, encoder, identity):
    source = write_jsonl(tmp_path / "c.jsonl", sentences(5))

    class Changing(Counting):
        def encode(self, texts, **options):
            write_jsonl(source, sentences(6))
            return super().encode(texts, **options)

    with pytest.raises(XtError, match="changed while it was read"):
        run(source, tmp_path / "out", Changing(encoder), identity)


def test_a_kill_in_the_middle_leaves_nothing_half_and_the_next_run_completes(tmp_path, tiny_repository, identity):
    """The real process, killed by SIGKILL after some shards."""
    source = write_jsonl(tmp_path / "c.jsonl", sentences(400))
    code = (
        "import sys, time; from pathlib import Path\n"
        "from xt.core.encoder.onnx_engine import load_model\n"
        "from xt.core.reporter import Reporter\n"
        "from xt.serve.index.encode_files import IdentifiedEncoder, Settings\n"
        "from xt.serve.index.indexing import index_corpus\n"
        "import json\n"
        "encoder = load_model(Path(sys.argv[1]), device='cpu')[0]\n"
        "reporter = Reporter(print, lambda what: lambda *a: time.sleep(0.05))\n"
        "index_corpus(Path(sys.argv[2]), Path(sys.argv[3]), IdentifiedEncoder(encoder, json.loads(sys.argv[4])),\n"
        "  settings=Settings(shard_texts=10), reporter=reporter)\n"
    )
    out = tmp_path / "index"
    command = [sys.executable, "-c", code, str(tiny_repository / "encoder"), str(source), str(out)]
    command.append(json.dumps(identity))
    process = subprocess.Popen(command)
    work = work_folder(tmp_path / ".index.vectors")
    deadline = time.monotonic() + 30
    while len(list(work.glob("shard-*.json"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = len(list(work.glob("shard-*.json")))
    assert 5 <= finished < 40
    assert not out.exists()
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert f"continuing: {finished} shards are there already" in again.stdout
    assert len(open_index(out)[0]) == 400
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.jsonl", "index"]


# Indexing


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, encoder, identity):
    folder = tmp_path_factory.mktemp("encoded")
    return run(
        write_jsonl(folder / "c.jsonl", sentences(1500), language="eng"),
        folder / "out",
        encoder,
        identity,
        prefix="passage",
        shard_texts=400,
    )


def test_a_flat_index_finds_what_numpy_finds(tmp_path, encoded, encoder):
    artifact = build_index(encoded, tmp_path / "index")
    index, _ = open_index(tmp_path / "index")
    queries = encoder.encode(sentences(20, seed=9), prefix="query").vectors
    vectors = all_vectors(encoded)
    cosines = queries @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
    scores, rows = index.search(queries, 10)
    np.testing.assert_allclose(scores, -np.sort(-cosines, axis=1)[:, :10], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(cosines, rows, 1), scores, atol=1e-5)
    assert index.documents[1234] == {"id": "d1234", "text": sentences(1500)[1234], "language": "eng"}
    assert (artifact.facts["factory"], artifact.facts["recall_at_10"]) == ("Flat", 1.0)
    assert artifact.facts["prefix"] == "passage"
    assert artifact.facts["encoder"] == encoded.facts["encoder"]
    names = {p.name for p in (tmp_path / "index").iterdir()}
    assert names == {"index.faiss", "documents.jsonl", "offsets.npy", "copies.npy", "golden.json", MANIFEST}


def whole(encoded):
    """An encoded corpus, every text of which is there once."""
    return Distinct(encoded, Copies(np.arange(encoded.facts["texts"])))


def test_exact_search_by_shards_is_that_of_the_whole(encoded):
    vectors = all_vectors(encoded)
    scores, rows = exact(whole(encoded), vectors[:7], 5)
    cosines = vectors[:7] @ vectors.T
    np.testing.assert_allclose(scores, -np.sort(-cosines, axis=1)[:, :5], atol=1e-5)
    assert rows[:, 0].tolist() == list(range(7))


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "IVF16,Flat", "IVF16,SQ8,RFlat", "SQ8"])
def test_an_approximate_index_states_the_recall_that_it_has(tmp_path, encoded, kind):
    artifact = build_index(encoded, tmp_path / "index", kind=kind)
    index, _ = open_index(tmp_path / "index")
    stated = artifact.facts["recall_at_10"]
    queries = all_vectors(encoded)[np.unique(np.linspace(0, 1499, 200).astype(int))]
    true = exact(whole(encoded), queries, 10)[1]
    found = index.search(queries, 10)[1]  # as it is opened again: how hard it searches is in the file
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(true, found, strict=True)])
    assert recall == pytest.approx(stated, abs=0.005)
    assert stated >= 0.9
    if kind == "SQ8":
        assert 1e-4 < artifact.facts["score_error_max"] < 0.05
    else:
        assert artifact.facts["score_error_max"] < 1e-5


def test_a_poor_index_says_how_poor(tmp_path, encoded):
    facts = build_index(encoded, tmp_path / "index", kind="PQ4x4").facts
    assert facts["recall_at_10"] < 0.9
    assert facts["score_error_max"] > 0.05


@pytest.mark.parametrize("kind", ["nonsense", "IVF16,", "PQ5", "IVF100000,Flat"])
def test_a_kind_that_faiss_cannot_make_is_refused(tmp_path, encoded, kind):
    with pytest.raises(XtError, match="FAISS"):
        build_index(encoded, tmp_path / "index", kind=kind)
    assert not (tmp_path / "index").exists()


def test_one_document_can_be_indexed_every_way(tmp_path, encoder, identity):
    source = write_jsonl(tmp_path / "c.jsonl", sentences(1))
    for kind in ("flat", "hnsw", "ivf"):
        index_corpus(
            source, tmp_path / kind, IdentifiedEncoder(encoder, identity, OPENED), settings=Settings(), kind=kind
        )
        assert Index(tmp_path / kind).search(np.ones((1, 32), np.float32), 5)[1].tolist() == [[0]]


def test_vectors_that_do_not_fit_their_manifest_are_refused(tmp_path, encoder, identity):
    from xt.core.files.artifact import new_artifact

    made = run(write_jsonl(tmp_path / "c.jsonl", sentences(3)), tmp_path / "out", encoder, identity)
    with new_artifact(tmp_path / "bad", kind="vectors") as draft:
        np.save(draft.path / "vectors-00000.npy", np.ones((3, 31), np.float32))
        (draft.path / "documents-00000.jsonl").write_bytes((made.path / "documents-00000.jsonl").read_bytes())
        draft.facts = made.facts
    with pytest.raises(XtError, match=r"has shape \(3, 31\), expected \(3, 32\)"):
        build_index(open_artifact(tmp_path / "bad"), tmp_path / "index")


def test_a_full_disk_is_said_and_leaves_no_index(small_disk: Path, encoder, identity, tmp_path):
    source = write_jsonl(tmp_path / "c.jsonl", sentences(1500))
    with pytest.raises(XtError, match="No disk space left"):
        run(source, small_disk / "out", encoder, identity, shard_texts=500)
    assert not (small_disk / "out").exists()
