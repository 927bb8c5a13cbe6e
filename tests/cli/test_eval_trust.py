"""`xt eval` on parallel text with everything that is asked of its calibration, as a user runs it.

Tests `eval/fitted.py` as well.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer

from xt.cli.main import app
from xt.core.encoder.onnx_engine import load_model
from xt.core.errors import XtError
from xt.core.files.artifact import open_artifact
from xt.serve.index.calibration import model_identity
from xt.serve.index.encode_files import IdentifiedEncoder, Settings
from xt.serve.index.indexing import index_corpus
from xt.serve.index.retriever import install

WORDS = "good morning world the cat sleeps today guten morgen welt habari za asubuhi bonjour tout le monde".split()


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XT_CACHE", str(tmp_path / "cache"))
    command = typer.main.get_command(app)

    def call(*arguments):
        command.main([*map(str, arguments), "--json"], standalone_mode=False)
        answer = capsys.readouterr()
        return json.loads(answer.out), answer.err

    return call


@pytest.fixture
def bitext(tmp_path):
    """Sentences that are their translation and a word more, in two source languages and Swahili."""
    folder = tmp_path / "mine"
    folder.mkdir()
    random = np.random.default_rng(0)
    english = [" ".join([f"word{random.integers(1200)}" for _ in range(6)]) for _ in range(120)]
    for code in ("deu", "fra", "swh"):
        foreign = [f"{e} {random.choice(WORDS)}" for e in english]
        for side, rows in ((code, foreign), ("eng", english)):
            (folder / f"mine.{code}-eng.{side}").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def retrieving(tiny_repository, tmp_path):
    """A repository with a retriever over some documents, without a calibration."""
    folder = tiny_repository / "encoder"
    encoder, artifact = load_model(folder, device="cpu")
    here = model_identity(artifact)
    identity = {**here, "engine": "onnxruntime", "parent": {"kind": "model", "hash": here["hash"]}}
    source = tmp_path / "corpus.jsonl"
    source.write_text("".join(json.dumps({"id": str(i), "text": f"word{i} world"}) + "\n" for i in range(50)))
    index_corpus(
        source, tmp_path / "index", IdentifiedEncoder(encoder, identity), settings=Settings("passage"), kind="flat"
    )
    install(tmp_path / "index", folder, tmp_path / "served", uncalibrated=True)
    return tmp_path / "served"


def test_a_second_evaluation_takes_its_vectors_from_the_disk_and_says_the_same(run, bitext, tiny_repository):
    arguments = ("eval", "./mine", "--encoder", tiny_repository / "encoder", "--shots", "16")
    first, _ = run(*arguments, "--out", "one")
    second, said = run(*arguments, "--out", "two")
    (one,), (two,) = first["encoders"], second["encoders"]
    assert one["calibration"] == two["calibration"]
    assert one["retrieval"] == two["retrieval"]
    assert two["seconds"]["encode"] < one["seconds"]["encode"] / 2
    methods = one["calibration"]["foreign-english"]["methods"]
    assert {"predicted", "shrunk", "platt", "isotonic", "beta", "histogram"} <= set(methods)
    assert methods["cosine"]["overall"]["accuracy"] == methods["predicted"]["overall"]["accuracy"]
    assert set(one["calibration"]["foreign-english"]["shots"]) == {"16"}
    assert one["none_of_these"]["foreign-english"]["methods"]["predicted"]["languages"]["swh"]["n"] == 120
    assert one["conformal"]["foreign-english"]["scopes"]["per-language"]["languages"]["swh"]["coverage"] > 0.8
    assert "labelled queries a language" in said
    assert len(first["data"]) == 3
    assert first["worst"][0]["probability"] >= first["worst"][-1]["probability"]


def test_without_the_cache_nothing_is_kept(run, bitext, tiny_repository, tmp_path):
    run("eval", "./mine", "--encoder", tiny_repository / "encoder", "--no-cache", "--out", "one")
    assert not (tmp_path / "cache" / "vectors").exists()


def test_another_reports_fits_are_applied_as_they_are(run, bitext, tiny_repository):
    run("eval", "./mine", "--encoder", tiny_repository / "encoder", "--out", "one")
    again, _ = run(
        "eval", "./mine", "--encoder", tiny_repository / "encoder", "--calibration", "one", "--languages", "swh",
        "--out", "two",
    )  # fmt: skip
    methods = again["encoders"][0]["calibration"]["foreign-english"]["methods"]
    kept = json.loads(open_artifact(Path("one")).path.joinpath("calibration.json").read_text())
    (fits,) = kept["encoders"].values()
    assert methods["given-zero-shot"]["languages"]["swh"]["temperature"] == pytest.approx(
        fits["foreign-english"]["zero-shot"]["calibrator"]["temperature"]
    )
    assert "given-predicted" in methods
    assert "zero-shot" not in methods  # none of its languages is here


def test_a_calibration_is_installed_into_the_retrievers_of_a_repository(run, bitext, tiny_repository, retrieving):
    _, said = run(
        "eval", "./mine", "--encoder", tiny_repository / "encoder", "--install", retrieving, "--out", "one"
    )  # fmt: skip
    installed = open_artifact(retrieving / "retriever")
    assert installed.facts["calibration"] == "2/calibration.json"
    table = json.loads((installed.path / "2/calibration.json").read_text())
    report = json.loads((open_artifact(Path("one")).path / "calibration.json").read_text())
    (kept,) = report["encoders"].values()
    assert (table["kind"], report["kind"]) == ("retriever", "search")
    assert table["default"]["temperature"] == kept["foreign-english"]["zero-shot"]["calibrator"]["temperature"]
    assert table["languages"]["swh"] == kept["foreign-english"]["shrunk"]["languages"]["swh"]
    assert "xt reload retriever" in said and "where every query has one right document" in said
    assert "documents were encoded as 'passage', and the calibration was fitted on documents encoded as 'query'" in said


def test_the_calibration_of_judged_documents_is_installed_too(run, bitext, tiny_repository, retrieving, tmp_path):
    random = np.random.default_rng(1)
    documents = [" ".join([f"word{random.integers(1200)}" for _ in range(6)]) for _ in range(120)]
    queries = [" ".join([*d.split()[:2], *random.choice(WORDS, 4)]) for d in documents]
    folder = tmp_path / "questions"
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", documents), ("queries", queries)):
        lines = [json.dumps({"_id": f"{name[0]}{i}", "title": "", "text": t}) + "\n" for i, t in enumerate(rows)]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    judged = "".join(f"q{i}\tc{i}\t1\nq{i}\tc{(i + 1) % 120}\t1\n" for i in range(120))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    told, said = run(
        "eval", "beir:questions", "--encoder", tiny_repository / "encoder", "--install", retrieving, "--out", "one"
    )  # fmt: skip
    methods = told["encoders"][0]["calibration"]["queries-documents"]["methods"]
    assert {"pooled", "platt"} <= set(methods) and not {"zero-shot", "predicted"} & set(methods)
    assert "queries-documents platt" in said and "xt reload retriever" in said and "one right document" not in said
    table = json.loads((open_artifact(retrieving / "retriever").path / "2/calibration.json").read_text())
    assert table["scope"] == "platt" and table["default"]["kind"] == "retrieval-rescaled"
    assert table["provenance"]["task"] == "questions" and table["candidates"] == 100
    with pytest.raises(XtError, match="holds calibrations of queries-documents; this task needs foreign-english or"):
        run("eval", "./mine", "--encoder", tiny_repository / "encoder", "--calibration", "one", "--out", "two")
    assert not Path("two").exists()
    page = (open_artifact(Path("one")).path / "report.html").read_text()
    assert "queries → documents" in page and 'id="calibration"' in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shots", "16,x"), "expects numbers of queries"),
        (("--shots", "0"), "expects numbers of queries"),
        (("--calibrate-on", "swh"), "scope"),
        (("--install", "nowhere"), "There is no folder nowhere"),
        (("--calibration", "nowhere"), "nowhere"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_computed(
    run, bitext, tiny_repository, tmp_path, options, message
):
    with pytest.raises((XtError, typer.BadParameter)) as error:
        run("eval", "./mine", "--encoder", tiny_repository / "encoder", *options, "--out", "one")
    assert message in str(error.value)
    assert not (tmp_path / "one").exists()
