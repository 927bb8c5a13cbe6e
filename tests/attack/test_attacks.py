"""Every quick attack on a real Triton and gateway with the tiny encoder; `python -m tests.attack.run` has them all."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from xt.core.encoder.onnx_engine import load_model
from xt.serve.triton.addresses import free_ports
from xt.serve.triton.launcher import TritonServer

try:
    from tests.attack import faults, harness, run, stage
except ImportError:  # pytest imports a test by its path alone
    import sys

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tests.attack import faults, harness, run, stage

QUICK = [a for a in run.ATTACKS if not a.slow]
GROUPS = sorted({a.group for a in QUICK})


@pytest.fixture(scope="module")
def target(tiny_repository, tmp_path_factory):
    """The tiny encoder and a retriever, served, with a gateway; Triton started as `xt serve` does."""
    from xt.calibration.apply.file import CalibrationTable
    from xt.calibration.apply.retrieval import RetrievalTemperature
    from xt.serve.gateway.server import Gateway
    from xt.serve.index.calibration import model_identity
    from xt.serve.index.encode_files import IdentifiedEncoder, Settings
    from xt.serve.index.indexing import index_corpus
    from xt.serve.index.retriever import install

    folder = tmp_path_factory.mktemp("attack")
    repository = folder / "repository"
    encoder, artifact = load_model(tiny_repository / "encoder", device="cpu", threads=1)
    here = model_identity(artifact)
    identity = {k: here[k] for k in ("name", "checkpoint", "precision", "dim")}
    identity |= {"engine": "onnxruntime", "parent": {"kind": "model", "hash": here["hash"]}}
    corpus = stage.write_corpus(folder)
    index_corpus(corpus, folder / "index", IdentifiedEncoder(encoder, identity), settings=Settings("passage"))
    stage.copy_model(tiny_repository / "encoder", repository)
    table = CalibrationTable(RetrievalTemperature(0.05, 0.8), "zero-shot", {}, candidates=100)
    install(folder / "index", tiny_repository / "encoder", repository, table=table)
    with TritonServer(repository) as server:
        (port,) = free_ports(1)
        with Gateway(server.url, port=port) as gateway:
            ports = {"gateway": gateway.port, **vars(server.ports)}
            yield stage.target_of(stage.Stage(repository, folder, ports))


def test_the_list_is_long_and_each_attack_has_a_name_of_its_own():
    assert len(run.ATTACKS) >= 150
    assert len(faults.FAULTS) >= 20
    assert max(Counter((a.group, a.name) for a in run.ATTACKS).values()) == 1
    assert max(Counter(f.name for f in faults.FAULTS).values()) == 1


@pytest.mark.parametrize("group", GROUPS)
def test_every_attack_is_refused_or_answered_right_and_none_is_felt_by_others(target, group):
    chosen = [a for a in QUICK if a.group == group]
    counts, problems = run.attack_all(target, chosen)
    assert sum(c.total() for c in counts.values()) == len(chosen)
    assert not problems, "\n".join(problems)


def test_a_judge_sees_what_is_wrong(target):
    """A check of the checks: other vectors, an answer where a refusal was due, silence, a fault."""
    attack = harness.Attack("x", "x", harness.ANSWER, lambda t: harness.Answer(0), harness.same_as(0))
    other = harness.embed({"model": "encoder", "input": target.texts[1]})(target)
    assert attack.judge(other, target)[0] == "wrong"
    right = harness.embed({"model": "encoder", "input": target.texts[0]})(target)
    assert attack.judge(right, target) == ("answered", "")
    assert attack.judge(harness.Answer(0, b"TimeoutError: timed out"), target)[0] == "lost"
    assert attack.judge(harness.Answer(500, b"oh"), target)[0] == "failed"
    assert attack.judge(harness.Answer(400, b"no"), target)[0] == "wrong"
    refuse = harness.Attack("x", "x", harness.REFUSE, attack.send)
    assert refuse.judge(right, target)[0] == "wrong"
    assert refuse.judge(harness.Answer(400, b""), target)[0] == "failed"
    assert refuse.judge(harness.Answer(400, b'{"error": "too long"}'), target) == ("refused", "")
