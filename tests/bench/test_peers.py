"""Peers: the worker's protocol, the limit, the errors; and each engine that this environment holds, on real weights.

Tests `bench/gemm.py`, `bench/session.py` and `bench/worker.py` as well.
"""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from xt.bench import gemm, measure, peers, plot, session
from xt.bench.worker import by_budget
from xt.core.errors import XtError

TEXTS = ["good morning world", "the cat sleeps today", "wir essen brot", "nyumba ni kubwa sana"]


@pytest.fixture
def job(tiny_folder):
    return {"checkpoint": str(tiny_folder), "prefix": "query: ", "max_length": 64, "pad_id": 1}


@pytest.mark.parametrize("name", ["sentence-transformers", "sentence-transformers-bf16", "xt-torch"])
def test_an_engine_of_this_environment_is_measured_in_a_process_of_its_own(name, job, tmp_path):
    lengths = [6, 7, 6, 7]
    with peers.InProcess(name, TEXTS, lengths, tmp_path, model="tiny", job=job) as engine:
        row = engine.measure(3, 0.1)
        again = engine.measure(4, 0.05)
    assert row.mode == "in process"
    assert (row.batch, row.concurrency) == (3, 3)
    calls = row.requests
    sampled = [lengths[i % 4] for i in range(3 * calls)]
    assert row.tokens_per_second * row.seconds == pytest.approx(sum(sampled))
    assert row.sentences_per_second * row.seconds == pytest.approx(3 * calls)
    assert row.repeated == pytest.approx(max(0, 3 * calls - 4) / (3 * calls))
    first = 3 * calls
    sent = 4 * again.requests
    assert again.repeated == pytest.approx(max(0, first + sent - max(4, first)) / sent)
    assert 0 < row.p50_ms <= row.max_ms
    assert ("fp32" in row.engine) or ("bfloat16" in row.engine) or ("float32" in row.engine)


def test_a_worker_answers_an_error_and_lives_on(tiny_folder, tmp_path):
    with peers.Worker() as worker:
        bad = worker.ask(do="load", kind="xt-torch", checkpoint=str(tmp_path / "none"), texts=str(tmp_path / "none"))
        assert "FileNotFoundError" in bad["error"]
        assert worker.ask(do="gemm", shapes=[[4, 8, 8]], seconds=0.01)["rows"]


def test_what_an_engine_prints_does_not_spoil_the_answers(tmp_path):
    """Print on stdout from inside the worker's process, as libraries do."""
    (tmp_path / "sitecustomize.py").write_text("print('noise at start')\n")
    (tmp_path / "openvino.py").write_text("print('noise while loading')\nraise ModuleNotFoundError('x', name='x')\n")
    (tmp_path / "texts.json").write_text("[]")
    import subprocess

    asked = json.dumps({"do": "load", "kind": "openvino-int8", "texts": str(tmp_path / "texts.json")}) + "\n"
    done = subprocess.run(
        [sys.executable, "-S", str(peers.WORKER)],
        input=asked,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{tmp_path}:{':'.join(p for p in sys.path if 'site-packages' in p)}"},
        timeout=60,
    )
    answers = done.stdout.splitlines()
    assert len(answers) == 1
    assert json.loads(answers[0])["missing"] == "x"
    assert "noise while loading" in done.stderr


def test_a_worker_that_dies_is_an_error_with_what_it_printed(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such library >&2\nexit 3\n")
    python.chmod(0o755)
    with peers.Worker(python) as worker, pytest.raises(XtError, match="ended before it answered") as error:
        worker.ask(do="gemm", shapes=[], seconds=0)
    assert "no such library" in str(error.value)


def test_a_peer_that_is_not_installed_names_the_install_command(job, tmp_path):
    pytest.importorskip("onnxruntime")
    try:
        import openvino  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("openvino is installed here")
    peer = peers.InProcess("openvino-int8", TEXTS, [1] * 4, tmp_path, model="m", job={**job, "graph": "x"})
    with pytest.raises(XtError, match="openvino-int8 needs the package 'openvino'") as error, peer:
        pass
    assert "uv pip install" in error.value.hint
    assert "--peer-python openvino-int8=" in error.value.hint


def test_infinity_that_is_not_installed_names_the_install_command(tiny_folder, tmp_path):
    python = tmp_path / "python"
    python.touch()
    peer = peers.Infinity("infinity-torch", tiny_folder, tmp_path, tmp_path, python=python)
    with pytest.raises(XtError, match="infinity-torch needs Infinity") as error, peer:
        pass
    assert "'infinity-emb[optimum,server,torch]==0.0.78'" in error.value.hint


def test_infinity_that_ends_at_once_is_an_error_with_its_log(tiny_folder, tmp_path):
    program = tmp_path / "infinity_emb"
    program.write_text("#!/bin/sh\necho the model is broken\nexit 1\n")
    program.chmod(0o755)
    peer = peers.Infinity("infinity-torch", tiny_folder, tmp_path, tmp_path, python=tmp_path / "python")
    with pytest.raises(XtError, match="the model is broken"), peer:
        pass


def test_an_unknown_peer_names_those_there_are():
    with pytest.raises(XtError, match="Unknown peer 'infinty'. Did you mean infinity"):
        peers.check_names(["infinty"])


def test_interpreters_are_checked(tmp_path):
    assert peers.pythons([f"infinity={sys.executable}"]) == {"infinity": Path(sys.executable)}
    with pytest.raises(XtError, match="is not NAME=PATH"):
        peers.pythons(["infinity"])
    with pytest.raises(XtError, match="There is no Python"):
        peers.pythons([f"infinity={tmp_path}/python"])


def test_the_operations_of_a_token_by_hand():
    """multilingual-e5-small: 12 layers of 4 x 384^2 + 2 x 384 x 1536 weights, twice; and 4 x 384 a token attended to."""
    config = {"num_hidden_layers": 12, "hidden_size": 384, "intermediate_size": 1536}
    weights = 12 * 2 * (4 * 384 * 384 + 2 * 384 * 1536)
    assert measure.flop_per_token(config, [10, 10]) == weights + 12 * 4 * 384 * 10
    # 30 of the 40 tokens see 30, 10 see 10: 25 on average, not 20.
    assert measure.flop_per_token(config, [10, 30]) == weights + 12 * 4 * 384 * 25


def test_the_limit_is_the_best_product_over_the_operations_of_a_token():
    rows = [{"way": "a", "m": 1, "k": 2, "n": 3, "gops": 100.0}, {"way": "b", "m": 4, "k": 5, "n": 6, "gops": 800.0}]
    limit = peers.gemm_limit([*rows, {"way": "c", "unavailable": "no"}], 40e6)
    assert (limit["way"], limit["shape"], limit["tokens_per_second"]) == ("b", [4, 5, 6], 20_000)
    with pytest.raises(XtError, match="No int8 matrix product could be measured: c: no"):
        peers.gemm_limit([{"way": "c", "unavailable": "no"}], 40e6)


def test_the_products_that_are_timed_are_right():
    """MatMulInteger as it is timed, against numpy."""
    pytest.importorskip("onnx")
    run = gemm.onnxruntime_matmul(5, 7, 3, 1)
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 127, (7, 3), np.int8)
    x = rng.integers(0, 255, (5, 7), np.uint8)
    assert (run()[0] == x.astype(np.int32) @ weights.astype(np.int32)).all()


def test_a_way_this_machine_lacks_is_listed_and_the_others_are_measured(monkeypatch):
    def lacks(*_: int) -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setitem(gemm.METHODS, "lacking", lacks)
    rows = gemm.measure([(8, 16, 16)], 0.01, 1)
    assert "RuntimeError: no such instruction" in next(r for r in rows if r["way"] == "lacking")["unavailable"]
    assert any(r.get("gops", 0) > 0 for r in rows)


def test_the_best_time_of_a_product_is_that_of_its_call():
    import time

    found = gemm.best_seconds(lambda: time.sleep(0.01), 0.1)
    assert 0.0099 < found < 0.02


def test_batches_by_hand_keep_to_the_budget():
    assert list(by_budget([3, 9, 2, 3], 10)) == [[1], [0, 3, 2]]


def test_a_run_compares_an_exported_model_with_its_checkpoint_by_a_peer(tiny_repository, tiny_folder):
    settings = session.Settings(
        encoder=str(tiny_repository / "encoder"),
        checkpoint=tiny_folder,
        against=("sentence-transformers", "gemm-limit"),
        calls=(None, 2),
        seconds=1,
        rounds=1,
    )
    document = session.measure(settings, TEXTS)
    assert [(r.engine.split(" ")[0], r.batch) for r in document.rows] == [
        ("xt", 4),
        ("xt", 2),
        ("sentence-transformers", 4),
        ("sentence-transformers", 2),
    ]
    assert document.texts["count"] == 4
    assert document.texts["mean_tokens"] == pytest.approx((6 + 7 + 6 + 7) / 4)
    assert document.limit["tokens_per_second"] > 0
    for row in document.rows:
        assert row.share_of_limit == pytest.approx(row.tokens_per_second / document.limit["tokens_per_second"])


def test_the_plot_is_well_formed_and_its_bars_are_as_long_as_the_numbers():
    def row(engine, mode, load, speed, p50):
        return {
            "engine": engine,
            "mode": mode,
            "concurrency": load,
            "rate": load,
            "batch": 1,
            "tokens_per_second": speed,
            "sentences_per_second": speed / 10,
            "p50_ms": p50,
            "p99_ms": 3 * p50,
        }

    rows = [row("a <b>", "closed", 1, 1000, 5), row("a <b>", "closed", 8, 4000, 20), row("c", "in process", 0, 2000, 9)]
    root = ET.fromstring(plot.plot(rows, "a & b", limit=8000))
    svg = "{http://www.w3.org/2000/svg}"
    bars = [float(r.attrib["width"]) for r in root.iter(f"{svg}rect")]
    assert bars[1] == pytest.approx(4 * bars[0], rel=0.01)
    assert bars[2] == pytest.approx(2 * bars[0], rel=0.01)
    assert len(list(root.iter(f"{svg}polyline"))) == 2  # p50 and p99 over two numbers of callers
    texts = [t.text for t in root.iter(f"{svg}text")]
    assert "a & b" in texts
    assert "a <b>, 8 callers" in texts
    assert any("8,000" in (t or "") for t in texts)
