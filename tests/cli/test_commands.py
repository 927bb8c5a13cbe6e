"""The commands on the tiny encoder, as a user runs them: files, one JSON document, exit codes, and clean endings.

Tests `cli/doctor.py`, `cli/serve.py`, `serve/checking.py` and `serve/settings.py` as well.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import command
from tests.documents import different
from xt.core.files.artifact import open_artifact
from xt.core.results.folder import read_document
from xt.serve.client.encoder import TritonEncoder
from xt.serve.triton.addresses import free_ports

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}


def xt(
    *arguments: object, cwd: Path, code: int = 0, run: Callable[..., Any] = command.xt
) -> subprocess.CompletedProcess[str]:
    """Run a command that ends with `code`."""
    answer: subprocess.CompletedProcess[str] = run(*arguments, cwd=cwd)
    assert answer.returncode == code, answer.stderr
    assert "Traceback" not in answer.stderr
    return answer


def document(answer: subprocess.CompletedProcess[str]) -> Any:
    """The one JSON document that is all of stdout."""
    assert answer.stdout.endswith("\n")
    return json.loads(answer.stdout)


@pytest.fixture(scope="module")
def bitext(corpus, tmp_path_factory):
    """The tiny corpus as line-aligned files."""
    folder = tmp_path_factory.mktemp("bitext") / "mine"
    folder.mkdir()
    for b in corpus:
        for side, rows in ((b.language, b.foreign), ("eng", b.english)):
            (folder / f"mine.{b.language}-eng.{side}").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def test_tasks_lists_the_table(tmp_path):
    from xt.core.data.task_table import TASKS

    rows = document(xt("tasks", "--json", cwd=tmp_path))
    assert [r["name"] for r in rows] == list(TASKS)
    shown = xt("tasks", cwd=tmp_path)
    assert shown.stdout == ""
    assert all(name in shown.stderr for name in TASKS)
    targets = document(xt("tasks", "--kind", "target", "--json", cwd=tmp_path))
    assert [r["name"] for r in targets] == [t.name for t in TASKS.values() if t.kind == "target"]


def test_doctor_finds_everything_here(tmp_path):
    (tmp_path / "data" / "tatoeba").mkdir(parents=True)
    answer = document(xt("doctor", "--data-dir", "data", "--json", cwd=tmp_path))
    assert answer["missing"] == []
    found = {f["what"]: f for f in answer["findings"]}
    for what in ("Python", "packages", "ONNX Runtime", "FAISS", "Triton", "data"):
        assert found[what]["state"] == "ok"
    assert "tatoeba" in found["data"]["found"]
    assert all(f["advice"] for f in answer["findings"] if f["state"] == "missing")


def test_doctor_ends_with_3_when_something_is_missing_and_says_what_to_do(tmp_path):
    answer = document(xt("doctor", "--data-dir", "nowhere", "--json", cwd=tmp_path, code=3))
    assert answer["missing"] == ["data"]
    (finding,) = (f for f in answer["findings"] if f["state"] == "missing")
    assert "nowhere" in finding["found"]
    assert "--data-dir" in finding["advice"]


def test_check_tells_what_a_folder_is(tmp_path, tiny_repository):
    # A server that ran on it may have left its model's bytecode, which is named as unlisted code.
    repository = tmp_path / "repository"
    shutil.copytree(tiny_repository, repository, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (repository, repository / "encoder"):
        answer = document(xt("check", folder, "--json", cwd=tmp_path))
        assert answer["kind"] == "model"
        assert answer["problems"] == []
        assert answer["hash"] == open_artifact(repository / "encoder").hash
        assert answer["facts"]["precision"] == "fp32"


@pytest.fixture(scope="module")
def exported(tiny_folder, bitext, tmp_path_factory):
    """A repository that `xt export` wrote, and its answer."""
    folder = tmp_path_factory.mktemp("exported")
    options = ["--out", "repo", "--name", "mine", "--precision", "fp32", "--parity-corpus", bitext, "--json"]
    return folder / "repo", xt("export", tiny_folder, *options, cwd=folder, run=command.started)


def test_export_writes_a_model_and_prints_its_parity(exported):
    repository, answer = exported
    told = document(answer)
    artifact = open_artifact(repository / "mine", kind="model")
    assert told["hash"] == artifact.hash
    assert Path(told["path"]).name == "mine"
    assert told["parity"] == artifact.facts["parity"]
    assert told["parity"]["languages"] == 3
    assert artifact.manifest["command"].startswith("xt export ")
    assert "wrote repo/mine; serve it with: xt serve repo" in answer.stderr
    assert "Warning" not in answer.stderr


def test_a_parity_that_does_not_hold_ends_with_3_and_leaves_nothing(tiny_folder, bitext, tmp_path):
    options = ["--out", "repo", "--precision", "fp32", "--parity-corpus", bitext, "--min-cosine", "1.1", "--json"]
    answer = xt("export", tiny_folder, *options, cwd=tmp_path, code=3)
    assert answer.stdout == ""
    assert "nothing was written: fused: cosine_p1" in answer.stderr
    assert list((tmp_path / "repo").iterdir()) == []


def accuracies(metrics: dict[str, Any]) -> dict[tuple[str, str], float]:
    (entry,) = metrics["encoders"]
    return {
        (direction, code): row["accuracy"]
        for direction, way in entry["retrieval"].items()
        for code, row in way["languages"].items()
    }


def test_eval_gives_the_same_accuracies_by_pytorch_onnx_runtime_and_triton(
    tiny_folder, tiny_repository, server, bitext, tmp_path
):
    ways = {
        "pytorch": ["--encoder", tiny_folder],
        "onnxruntime": ["--encoder", tiny_repository],
        "triton": ["--url", server.url],
    }
    found, hashes = {}, {}
    for engine, options in ways.items():
        answer = document(xt("eval", bitext, *options, "--out", engine, "--json", cwd=tmp_path))
        assert answer["encoders"][0]["engine"] == engine
        found[engine] = accuracies(answer)
        artifact = open_artifact(tmp_path / engine, kind="report")
        assert different({**answer}, {"path": answer["path"], **read_document(artifact.path)}) == []
        assert sorted(artifact.manifest["files"]) == [
            "calibration.json",
            "curves.parquet",
            "metrics.json",
            "predictions.parquet",
            "report.html",
        ]
        hashes[engine] = artifact.manifest["parents"][0]["hash"]
    assert len(found["pytorch"]) == 6  # three languages, two directions
    assert 0 < sum(found["pytorch"].values()) < 6  # neither all right nor all wrong, or equality would say little
    assert found["onnxruntime"] == found["pytorch"]
    assert found["triton"] == found["pytorch"]
    assert hashes["onnxruntime"] == open_artifact(tiny_repository / "encoder").hash


def test_eval_of_two_corpora_writes_two_reports(tiny_repository, bitext, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for file in bitext.glob("*.deu-eng.*"):
        (other / file.name).write_bytes(file.read_bytes())
    options = ["--encoder", tiny_repository, "--out", "all", "--json"]
    told = document(xt("eval", bitext, "./other", *options, cwd=tmp_path))
    assert [d["task"]["languages"] for d in told] == [3, 1]
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == ["mine", "other"]


def test_bench_measures_a_running_server(server, bitext, tmp_path):
    options = ["--corpus", bitext, "--concurrency", "1,2", "--seconds", "1", "--json"]
    told = document(xt("bench", "--url", server.url, *options, cwd=tmp_path))
    assert [(r["engine"], r["concurrency"]) for r in told["rows"]] == [("triton fp32", 1), ("triton fp32", 2)]
    assert all(0 < r["p50_ms"] <= r["p95_ms"] <= r["p99_ms"] for r in told["rows"])
    assert told["seconds"] == 1
    assert told["machine"]


def test_bench_starts_a_server_of_its_own_and_stops_it(tiny_repository, bitext, tmp_path):
    options = ["--corpus", bitext, "--concurrency", "1", "--seconds", "1", "--json"]
    before = set(processes(re.escape(f"--model-repository={tiny_repository.resolve()}")))
    told = document(xt("bench", "--repository", tiny_repository, *options, cwd=tmp_path))
    assert told["rows"][0]["requests"] > 0
    assert set(processes(re.escape(f"--model-repository={tiny_repository.resolve()}"))) == before


def test_train_writes_a_checkpoint_and_prints_its_training(tiny_folder, tmp_path):
    options = ["--intermediate", "sample-paraphrase", "--steps", "2", "--batch", "2", "--max-length", "32", "--json"]
    answer = xt("train", "--encoder", tiny_folder, *options, "--out", "x", cwd=tmp_path)
    told = document(answer)
    artifact = open_artifact(tmp_path / "x", kind="checkpoint")
    assert told["hash"] == artifact.hash
    assert told["training"] == artifact.facts["training"]
    assert told["training"]["steps"] == 2
    assert "xt export x --out repository" in answer.stderr


def processes(pattern: str) -> list[int]:
    """The processes whose command line matches."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if re.search(pattern, words):
                found.append(int(folder.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_answers_until_it_is_stopped_and_leaves_nothing(tiny_repository, tmp_path, number):
    http, grpc, metrics = free_ports()
    ports = ["--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics)]
    process = subprocess.Popen(
        [command.XT, "serve", tiny_repository, *ports],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
        # A shell's background job ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    prefix = rf"\bxt{process.pid}p[0-9a-f]{{8}}"  # in the command lines of tritonserver and its model process
    lines: list[str] = []
    guard = threading.Timer(90, process.kill)  # a server that never gets ready must not hang the tests
    guard.start()
    try:
        for line in process.stderr:
            lines.append(line)
            if "Ctrl-C stops it" in line:
                break
        assert "serving encoder" in lines[0]
        assert f"127.0.0.1:{grpc}" in "".join(lines)
        encoder = TritonEncoder(f"127.0.0.1:{grpc}")
        assert encoder.encode(["good morning"]).vectors.shape == (1, 32)
        encoder.close()
        assert len(processes(prefix)) == 2
        process.send_signal(number)
        out, err = process.communicate(timeout=40)
    finally:
        guard.cancel()
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert (out, "Traceback" in err) == ("", False)
    assert "Interrupted" in err or err == ""
    assert processes(prefix) == []
    assert [n for n in os.listdir("/dev/shm") if re.match(prefix, n)] == []


def test_serve_says_so_when_triton_ends_by_itself(tiny_repository, tmp_path):
    http, grpc, metrics = free_ports()
    ports = ["--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics)]
    process = subprocess.Popen(
        [command.XT, "serve", tiny_repository, *ports],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    guard = threading.Timer(90, process.kill)
    guard.start()
    try:
        for line in process.stderr:
            if "Ctrl-C stops it" in line:
                break
        (server,) = processes(rf"bin/tritonserver .*\bxt{process.pid}p[0-9a-f]{{8}}")
        os.kill(server, signal.SIGKILL)
        _, err = process.communicate(timeout=40)
    finally:
        guard.cancel()
        process.kill()
        process.wait()
    assert process.returncode == 1
    assert "Error: Triton ended by itself with code -9" in err
    time.sleep(0.2)
    assert processes(rf"\bxt{process.pid}p[0-9a-f]{{8}}") == []
