"""`xt export`: what it refuses before any work, smaller encoders end to end, and the tables it prints.

Tests `cli/console.py`, `export/candidates.py`, `export/graphs.py`, `export/run.py` and `export/settings.py` as well.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from rich.console import Console

import tests.command
from xt.cli import export as command
from xt.cli.main import app
from xt.core.encoder.onnx_engine import PROVIDERS, load_model
from xt.core.files.artifact import open_artifact
from xt.export.settings import read_temperature


def xt(*arguments: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `xt export`, which ends with `code`."""
    answer = tests.command.xt("export", *arguments, cwd=cwd)
    assert answer.returncode == code, answer.stderr
    assert "Traceback" not in answer.stderr
    return answer


@pytest.fixture(scope="module")
def bitext(corpus, tmp_path_factory):
    """The tiny corpus as line-aligned files."""
    folder = tmp_path_factory.mktemp("bitext") / "mine"
    folder.mkdir()
    for b in corpus:
        for side, rows in ((b.language, b.foreign), ("eng", b.english)):
            (folder / f"mine.{b.language}-eng.{side}").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command in this process, where it must end before it looks for the encoder: what it says."""
    from typer.main import get_command

    from xt.cli.main import app
    from xt.core.errors import XtError

    with pytest.raises(Exception) as raised:  # typer's own exceptions are of a private copy of click
        get_command(app).main(["export", "no-such-encoder", "--out", "r", *arguments], standalone_mode=False)
    error: Any = raised.value
    if isinstance(error, XtError):
        return str(error)
    assert error.exit_code == 2, repr(error)
    return str(error.format_message())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "int4"], "Unknown precision 'int4'.*\n.*auto, bf16, fp16, fp32, int8, int8-blocks"),
        (["--provider", "openvno"], "Unknown provider 'openvno'. Did you mean openvino"),
        (["--runtime", "onnx"], "Unknown runtime 'onnx'.*\n.*onnxruntime, python"),
        (["--device", "gpu"], "Unknown device 'gpu'"),
        (["--provider", "cuda", "--device", "cpu"], "--provider cuda runs on cuda, not on cpu"),
        (["--provider", "cpu", "--precision", "bf16"], "--provider cpu runs .*int8.*, not bf16"),
        (["--max-loss", "0.1"], "--max-loss is for --precision auto; this is int8"),
        (["--dev-corpus", "django", "--precision", "fp32"], "--dev-corpus is for --precision auto; this is fp32"),
        (["--max-loss", "-1", "--precision", "auto"], "'--max-loss'.*greater than or equal to 0"),
        (["--corpus", "django"], "--corpus is the text for --languages"),
        (["--layers", "0"], "'--layers'.*greater than or equal to 1"),
        (["--dims", "0"], "'--dims'.*greater than or equal to 1"),
        (["--languages", "deu,xyzzy"], "xyzzy"),
        (["--languages", ","], "No language given"),
        (["--temperature", "2"], "--temperature is a head's"),
        (["--task", "t", "--temperature", "-2"], "--temperature expects a positive number, found -2"),
        (["--task", "t", "--temperature", "warm"], "there is no file 'warm'"),
        (["--task", "t", "--temperature", "nan"], "a positive number, found nan"),
        (["--task", "t", "--precision", "auto"], "--precision auto measures retrieval"),
        (["--task", "t", "--layers", "3"], "--layers is for the encoder"),
        (["--task", "t", "--languages", "deu"], "--languages is for the encoder"),
        (["--task", "t", "--dims", "3"], "--dims is for the encoder"),
        (["--task", "t", "--runtime", "onnxruntime"], "--runtime is for the encoder"),
        (["--task", "t", "--provider", "cpu"], "--provider is for the encoder"),
        (["--task", "t", "--exact"], "--exact is for the encoder"),
        (["--parity-corpus", "djang"], "Unknown task 'djang'. Did you mean django"),
        (["--dev-corpus", "tatoba", "--precision", "auto"], "Unknown task 'tatoba'"),
    ],
)
def test_what_cannot_be_is_refused_before_the_encoder_is_looked_for(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, *arguments)
    assert re.search(message, said), said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("option", "number"), [("--layers", 3), ("--dims", 33)])
def test_more_than_the_encoder_has_is_refused_before_anything_is_loaded(tiny_folder, bitext, tmp_path, option, number):
    started = time.monotonic()
    answer = xt(tiny_folder, "--out", "r", option, number, "--parity-corpus", bitext, cwd=tmp_path, code=1)
    assert f"There are no first {number} " in answer.stderr
    assert "exporting" not in answer.stderr
    assert list(tmp_path.iterdir()) == []
    assert time.monotonic() - started < 20


def test_a_smaller_encoder_is_exported_and_its_report_printed(tiny, tiny_folder, bitext, tmp_path):
    smaller = ["--layers", 1, "--languages", "deu,eng", "--dims", 16, "--corpus", bitext]
    other = ["--precision", "fp32", "--provider", "cpu", "--parity-corpus", bitext, "--json"]
    answer = xt(tiny_folder, "--out", "repo", *smaller, *other, cwd=tmp_path)
    told = json.loads(answer.stdout)
    encoder, artifact = load_model(tmp_path / "repo" / "encoder", device="cpu")
    assert told["hash"] == artifact.hash
    report = told["shrunk"]
    assert (report["layers"]["after"], report["dims"]["after"], encoder.spec.dim) == (1, 16, 16)
    assert report["vocabulary"]["languages"] == ["deu", "eng"]
    for line in (
        "layers: 2 -> 1",
        f"-> {report['vocabulary']['after']['pieces']} pieces",
        "texts of the corpus that are cut otherwise: 0",
        "numbers in a vector: 32 -> 16",
        "runs in fp32 on cpu",
    ):
        assert line in answer.stderr
    texts = ["guten morgen welt", "the cat sleeps today"]
    vectors = encoder.encode(texts).vectors
    np.testing.assert_allclose(vectors, independent(tiny.path, texts, layer=1, dims=16), atol=1e-5)
    assert open_artifact(tmp_path / "repo" / "encoder").manifest["parents"] == [tiny.parent]
    made_of = artifact.facts["checkpoint"]  # by which calibrations and results are told apart over the wire
    assert made_of["of"] == tiny.parent["hash"]
    assert made_of["hash"] not in ("", tiny.parent["hash"])
    assert len(artifact.facts["content"]) == 64


def independent(folder: Path, texts: list[str], *, layer: int, dims: int) -> np.ndarray:
    """Vectors by transformers alone, from the whole network."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        with torch.no_grad():
            ids = tokenizer("query: " + text, return_tensors="pt")["input_ids"]
            hidden = model(input_ids=ids, output_hidden_states=True).hidden_states[layer][0].numpy()
        mean = hidden.mean(0)[:dims]
        rows.append(mean / np.linalg.norm(mean))
    return np.array(rows)


def test_auto_prints_every_candidate_and_the_one_it_took(tiny_folder, bitext, tmp_path):
    options = ["--precision", "auto", "--max-loss", "0", "--min-cosine", "0.99999", "--parity-corpus", bitext, "--json"]
    answer = xt(tiny_folder, "--out", "repo", *options, cwd=tmp_path)
    told = json.loads(answer.stdout)
    assert len(told["candidates"]) >= 2
    (taken,) = [c for c in told["candidates"] if c["kept"]]
    assert (told["precision"], told["provider"]) == (taken["precision"], taken["provider"])
    fitting = [c for c in told["candidates"] if c["cosine_p1"] >= 0.99999 and c["accuracy_change"] >= 0]
    assert taken["tokens_per_second"] == max(c["tokens_per_second"] for c in fitting)
    assert f"* {taken['stage']}" in answer.stderr
    assert f"runs in {taken['precision']} on {taken['provider']}" in answer.stderr
    shown = [line for line in answer.stderr.splitlines() if any(f"{c['stage']} " in line for c in told["candidates"])]
    assert len([line for line in shown if "%" in line]) >= len(told["candidates"])


CANDIDATE = {
    "stage": "int8 on openvino",
    "precision": "int8",
    "provider": "openvino",
    "megabytes": 118.2,
    "tokens_per_second": 21034.0,
    "cosine_min": 0.98812,
    "cosine_p1": 0.99123,
    "cosine_mean": 0.99812,
    "accuracy": 71.234,
    "accuracy_change": -0.123,
    "neighbour_agreement": 0.981,
    "ece_change": 0.0012,
    "kept": True,
    "why": "the fastest that keeps to the loss",
}


def test_the_table_of_candidates_holds_every_measure(monkeypatch):
    out = io.StringIO()
    from xt.cli import console

    monkeypatch.setattr(console, "stderr", Console(file=out, width=200, highlight=False))
    slow = {**CANDIDATE, "stage": "fp32 on cpu", "kept": False, "why": "slower"}
    stage = {"stage": "onnx", "cosine_min": 0.99999, "megabytes": 470.0, "bit_equal": 1.0}
    facts: dict[str, Any] = {"candidates": [CANDIDATE, slow], "precision": "int8", "provider": "openvino"}
    command.show({**facts, "parity": {"sentences": 4, "languages": 2, "stages": [stage]}})
    text = out.getvalue()
    for part in (
        "118",
        "21,034",
        "0.98812",
        "0.99123",
        "0.99812",
        "71.23",
        "-0.12",
        "98.1%",
        "+0.0012",
        "fp32 on cpu: slower",
    ):
        assert part in text
    assert "* int8 on openvino" in text
    assert "* fp32" not in text
    assert "int8 on openvino: the fastest that keeps to the loss" in text
    assert "parity with PyTorch fp32 on 4 sentences, 2 languages" in " ".join(text.split())
    assert "runs in int8 on openvino" in text
    columns = set(CANDIDATE) - {"precision", "provider", "kept", "why"}
    assert set(command.CANDIDATES) == columns


def test_the_table_of_candidates_has_the_measures_that_auto_gives():
    from dataclasses import fields

    from xt.export.candidates import Candidate

    assert set(command.CANDIDATES) == {f.name for f in fields(Candidate)} - {"precision", "provider", "kept", "why"}


def test_the_help_names_every_precision_provider_and_runtime():
    from xt.export.graphs import PRECISIONS
    from xt.export.settings import RUNTIMES

    options = typer.main.get_command(app).commands["export"].params
    helps = {p.name: str(p.help) for p in options if p.name in ("precision", "provider", "runtime")}
    assert [p for p in PRECISIONS if p not in helps["precision"]] == []
    assert [p for p in PROVIDERS if p not in helps["provider"]] == []
    assert [r for r in RUNTIMES if r not in helps["runtime"]] == []


def test_sizes_and_losses_are_said_in_words():
    row = {"texts": 3, "lost": 0.25, "longer": 0.5, "unknown": 0.015}
    vocabulary = {
        "before": {"pieces": 9, "megabytes": 384.06},
        "after": {"pieces": 5, "megabytes": 11.3},
        "changed": 2,
        "held_out": {"deu": row, "eng": {**row, "texts": 0}},
    }
    size = {"before": {"megabytes": 470.0}, "after": {"megabytes": 97.4}}
    lines = command.shrunk_lines({"vocabulary": vocabulary, "size": size})
    assert lines[0].startswith("vocabulary: 9 pieces, 384 MB -> 5 pieces, 11 MB")
    assert lines[0].endswith("cut otherwise: 2")
    assert "deu: " in lines[1]
    assert "25.0% of the tokens are lost, there are 50.0% more, 1.50% unknown" in lines[1]
    assert lines[2:] == ["network: 470 MB -> 97 MB (fp32)"]
    assert command.shrunk_lines({}) == []


@pytest.mark.parametrize(("given", "read"), [("fit", "fit"), ("1.5", 1.5), (None, None)])
def test_a_temperature_is_a_number_a_file_or_fit(given, read):
    assert read_temperature(given) == read


def test_a_temperature_file_is_handed_on_as_a_path(tmp_path):
    file = tmp_path / "calibration.json"
    file.write_text('{"temperature": 1.3}')
    assert read_temperature(str(file)) == file
