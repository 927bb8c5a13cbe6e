"""`xt encode`, `xt index` and `xt search` as a user types them.

Tests `serve/index/options.py` and `serve/index/run.py` as well.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xt.cli.main import run
from xt.core.encoder.onnx_engine import load_model
from xt.serve.triton.launcher import TritonServer

ROWS = [
    "guten morgen welt",
    "the cat sleeps today",
    "bonjour tout le monde",
    "habari za asubuhi",
    "the house is very big",
]


@dataclass
class Ended:
    returncode: int
    stdout: str
    stderr: str


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def xt(*arguments: object, cwd: Path) -> Ended:
    """Run the command line in this process, from a folder."""
    out, err, argv, handler = io.StringIO(), io.StringIO(), sys.argv, signal.getsignal(signal.SIGTERM)
    sys.argv, code = ["xt", *map(str, arguments)], 0
    try:
        with working_in(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = argv
        signal.signal(signal.SIGTERM, handler)
    return Ended(code, out.getvalue(), err.getvalue())


def done(*arguments: object, cwd: Path) -> dict[str, Any]:
    """The document of a command that does its work."""
    answer = xt(*arguments, "--json", cwd=cwd)
    assert answer.returncode == 0, answer.stderr
    return dict(json.loads(answer.stdout))


def fails(answer: Ended, code: int, *fragments: str) -> None:
    assert answer.returncode == code, answer.stderr
    assert answer.stdout == ""
    assert "Traceback" not in answer.stderr
    said = " ".join(answer.stderr.replace("│", " ").split())
    for fragment in fragments:
        assert fragment in said


@pytest.fixture(scope="module")
def work(tmp_path_factory, tiny_repository):
    """A folder with a corpus, a report, and the index and the retriever made of them."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "repository").symlink_to(tiny_repository)
    lines = [json.dumps({"id": f"d{i}", "text": t}) for i, t in enumerate(ROWS)]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    one = {"kind": "retrieval-temperature", "temperature": 0.05, "none_score": 0.5}
    methods = {"pooled": one, "per-language": {"deu": {**one, "temperature": 0.5}}}
    (folder / "calibration.json").write_text(json.dumps({"tiny": {"foreign-english": methods}}))
    done("index", "corpus.jsonl", "--encoder", "repository", "--out", "index", cwd=folder)
    return folder


def test_a_search_names_every_copy_of_a_document_that_it_finds(work):
    rows = [*ROWS, ROWS[1], f"  {ROWS[1]}"]
    lines = [json.dumps({"id": f"d{i}", "text": t}) for i, t in enumerate(rows)]
    (work / "repeated.jsonl").write_text("\n".join(lines) + "\n")
    answer = xt("index", "repeated.jsonl", "--encoder", "repository", "--out", "repeated", "--json", cwd=work)
    assert (answer.returncode, json.loads(answer.stdout)["copies"], json.loads(answer.stdout)["candidates"]) == (
        0,
        2,
        5,
    )
    assert "warning: 2 of 7 texts repeat another: they are 5 candidates" in " ".join(answer.stderr.split())
    found, alone = (
        done("search", name, ROWS[1], "--calibration", "calibration.json", "--allow-other-encoder", cwd=work)
        for name in ("repeated", "index")
    )
    for key in ("id", "document", "score", "probability"):
        assert [h[key] for h in found["hits"]] == [h[key] for h in alone["hits"]]
    assert {h["id"]: h["copies"] for h in found["hits"]}["d1"] == ["d1", "d5", "d6"]
    assert found["none"] == alone["none"]
    assert "d1 (+2)" in xt("search", "repeated", ROWS[1], cwd=work).stderr


def test_encode_writes_the_encoders_vectors_and_says_how_many(work, tiny_repository):
    told = done("encode", "corpus.jsonl", "--encoder", "repository/encoder", "--out", "vectors", cwd=work)
    assert (told["texts"], told["dim"], told["dtype"], told["prefix"], told["shards"]) == (
        5,
        32,
        "float32",
        "passage",
        1,
    )
    encoder = load_model(tiny_repository / "encoder", device="cpu")[0]
    expected = encoder.encode(ROWS, prefix="passage").vectors
    np.testing.assert_allclose(np.load(work / "vectors/vectors-00000.npy"), expected, atol=1e-5)
    fails(
        xt("encode", "corpus.jsonl", "--encoder", "repository", "--out", "vectors", cwd=work),
        1,
        "vectors is complete already",
    )
    indexed = done("index", "vectors", "--kind", "hnsw", "--out", "from-vectors", cwd=work)
    assert (indexed["texts"], indexed["factory"]) == (5, "HNSW32")
    same = done("search", "from-vectors", "the cat sleeps", cwd=work)
    assert [h["id"] for h in same["hits"]] == [
        h["id"] for h in done("search", "index", "the cat sleeps", cwd=work)["hits"]
    ]


def test_search_uses_the_indexs_own_encoder_and_says_that_cosines_are_no_probabilities(work, tiny_repository):
    told = done("search", "index", "guten morgen", "--top-k", "3", cwd=work)
    encoder = load_model(tiny_repository / "encoder", device="cpu")[0]
    cosines = (
        encoder.encode(ROWS, prefix="passage").vectors @ encoder.encode(["guten morgen"], prefix="query").vectors[0]
    )
    order = np.argsort(-cosines)[:3]
    assert [h["id"] for h in told["hits"]] == [f"d{i}" for i in order]
    assert [h["document"] for h in told["hits"]] == [ROWS[i] for i in order]
    np.testing.assert_allclose([h["score"] for h in told["hits"]], cosines[order], atol=1e-5)
    assert (told["none"], told["calibration"]) == (None, "none")
    assert "probability" not in told["hits"][0]
    table = xt("search", "index", "guten morgen", cwd=work)
    assert table.returncode == 0
    assert "these are cosines, not probabilities" in table.stderr
    assert "none of these" not in table.stderr


def test_search_with_a_calibration_gives_probabilities_and_none_of_these(work):
    options = ["--calibration", "calibration.json", "--allow-other-encoder"]
    told = done("search", "index", "guten morgen", *options, cwd=work)
    odds = np.exp(np.array([*(h["score"] for h in told["hits"]), 0.5]) / 0.05)
    np.testing.assert_allclose([h["probability"] for h in told["hits"]], (odds / odds.sum())[:-1], atol=1e-5)
    assert told["none"] == pytest.approx(odds[-1] / odds.sum(), abs=1e-5)
    assert told["calibration"] == "pooled"
    german = done("search", "index", "guten morgen", "--language", "de", *options, cwd=work)
    assert german["calibration"] == "per-language:deu"
    shown = xt("search", "index", "guten morgen", *options, cwd=work)
    assert "none of these" in shown.stderr
    assert "warning: the calibration" in shown.stderr
    fails(
        xt("search", "index", "x", "--calibration", "calibration.json", cwd=work),
        1,
        "does not say which encoder",
        "--allow-other-encoder",
    )


def test_a_retriever_is_installed_served_and_searched_from_its_folder(work, tmp_path):
    import tritonclient.grpc as grpc

    repository = tmp_path / "served"
    options = ["--calibration", "calibration.json", "--allow-other-encoder"]
    told = done("index", "index", "--install", repository, *options, cwd=work)
    assert told["retriever"]["path"] == str(repository / "retriever")
    here = done("search", repository / "retriever", "guten morgen", "--language", "de", cwd=work)
    assert here["calibration"] == "per-language:deu"
    with TritonServer(repository) as server:
        client = grpc.InferenceServerClient(server.url)
        inputs = []
        for name, value in (("text", b"guten morgen"), ("language", b"deu")):
            tensor = grpc.InferInput(name, [1, 1], "BYTES")
            tensor.set_data_from_numpy(np.array([[value]], np.object_))
            inputs.append(tensor)
        found = client.infer("retriever", inputs, client_timeout=60)
        assert [v.decode() for v in found.as_numpy("ids")[0]] == [h["id"] for h in here["hits"]]
        expected = [h["probability"] for h in here["hits"]]
        np.testing.assert_allclose(found.as_numpy("probabilities")[0], expected, atol=1e-4)
        client.close()
    fails(xt("search", repository / "retriever", "x", *options, cwd=work), 2, "its own encoder and calibration")


def test_what_cannot_be_is_refused_with_the_way_out(work, tmp_path):
    fails(xt("index", "corpus.jsonl", "--encoder", "repository", cwd=work), 2, "give --out")
    fails(xt("index", "corpus.jsonl", "--out", tmp_path / "x", cwd=work), 2, "one of --encoder and --url")
    install = ["--encoder", "repository", "--out", tmp_path / "x", "--install", tmp_path / "r"]
    fails(xt("index", "corpus.jsonl", *install, cwd=work), 2, "--calibration and --uncalibrated")
    fails(xt("index", "index", "--out", tmp_path / "x", cwd=work), 2, "is an index already")
    fails(xt("index", "vectors.tsv", "--encoder", "repository", "--out", tmp_path / "x", cwd=work), 1, "vectors.tsv")
    fails(xt("search", "index", "x", "--top-k", "0", cwd=work), 1, "k is 0")
    fails(xt("search", "repository/encoder", "x", cwd=work), 1, "is no retriever")
    (work / "double.tsv").write_text("id\ttext\na\tgood\na\tgood\n")
    fails(
        xt("index", "double.tsv", "--encoder", "repository", "--out", tmp_path / "x", cwd=work),
        1,
        "double.tsv, line 3: double.tsv, line 2 has the id 'a' already",
    )
    assert not (tmp_path / "x").exists()


def test_a_server_encodes_as_the_folder_does(work, server):
    told = done("index", "corpus.jsonl", "--url", server.url, "--out", "wired", cwd=work)
    assert told["texts"] == 5
    wired = done("search", "wired", "the cat sleeps", cwd=work)  # the server that the manifest names
    here = done("search", "index", "the cat sleeps", cwd=work)
    assert [h["id"] for h in wired["hits"]] == [h["id"] for h in here["hits"]]
    np.testing.assert_allclose([h["score"] for h in wired["hits"]], [h["score"] for h in here["hits"]], atol=1e-4)


def test_another_encoder_than_the_indexs_is_found_out_by_name_or_by_its_vectors(work, tiny_folder, tmp_path):
    from safetensors.numpy import load_file, save_file

    same = done("search", "index", "the cat sleeps", "--encoder", tiny_folder, cwd=work)  # PyTorch, the same weights
    assert [h["id"] for h in same["hits"]] == [
        h["id"] for h in done("search", "index", "the cat sleeps", cwd=work)["hits"]
    ]
    shutil.copytree(tiny_folder, tmp_path / "other")
    fails(
        xt("search", "index", "x", "--encoder", tmp_path / "other", cwd=work),
        1,
        "was made with tiny",
        "this encoder is other",
    )
    shutil.copytree(tiny_folder, tmp_path / "changed" / "tiny")
    weights = tmp_path / "changed" / "tiny" / "model.safetensors"
    arrays = load_file(weights)
    arrays["embeddings.word_embeddings.weight"] = arrays["embeddings.word_embeddings.weight"][::-1].copy()
    save_file(arrays, weights, metadata={"format": "pt"})
    fails(
        xt("search", "index", "x", "--encoder", tmp_path / "changed" / "tiny", cwd=work),
        1,
        "was made with tiny",
        "this encoder is tiny",
    )
