"""A training that is killed goes on as if nothing had happened, and what cannot go on says why."""

import json
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.command import Command
from xt.core.encoder.resolve import from_folder
from xt.core.errors import XtError
from xt.core.files.artifact import open_artifact
from xt.train import loop, trainer
from xt.train.config import TrainConfig
from xt.train.data import TaskData
from xt.train.state import Work, work_folder

from .conftest import SAMPLES, command, xt

STEPS = 60
TARGET_STEPS = 30


def settings(tiny: Path, out: Path) -> list[object]:
    """Both phases, with dropout, dev scores and a state every few steps."""
    tasks = [word for name in SAMPLES for word in ("--intermediate", name)]
    return [
        "train", "--encoder", tiny, *tasks, "--contrastive", "sample-paraphrase", "--target", "sample-nli", "--out", out,
        "--steps", STEPS, "--target-steps", TARGET_STEPS, "--batch", 4, "--limit", 24, "--dev-limit", 6, "--lr", 1e-3,
        "--max-length", 48, "--save-every", 3, "--evaluate-every", 7, "--device", "cpu",
    ]  # fmt: skip


def done(answer: subprocess.CompletedProcess[str]) -> str:
    """What a command that ended well said."""
    assert answer.returncode == 0, answer.stderr
    return answer.stderr


def result(out: Path) -> dict[str, Any]:
    """All that must not depend on interruptions."""
    artifact = open_artifact(out)
    kept = {}
    for phase in ("training", "intermediate"):
        facts = artifact.facts[phase]
        kept[phase] = {k: facts[k] for k in ("losses", "learning_rates", "chosen_step", "steps", "tokens", "stopped")}
        kept[phase]["dev"] = [{k: v for k, v in row.items() if k != "seconds"} for row in facts["dev"]]
        kept[phase]["tasks"] = facts["tasks"]
        kept[phase]["config"] = {k: v for k, v in facts["config"].items() if k != "out"}
    weights = ("model.safetensors", "heads.safetensors")
    return kept | {name: artifact.manifest["files"][name]["sha256"] for name in weights}


def kill_when(process: Command, ready: Any, delay: float = 0.0) -> bool:
    """Kill a process once something holds; False when it ended before."""
    while process.poll() is None:
        if ready():
            time.sleep(delay)
            process.kill()
            return process.wait() == -signal.SIGKILL
        time.sleep(0.002)
    return False


def test_a_training_killed_again_and_again_gives_the_same_bits(tiny: Path, own_cache: Path, tmp_path: Path) -> None:
    """Killed at random moments: in the first phase, while a state is being written, and in the second phase."""
    out = tmp_path / "x"
    work = work_folder(out)
    first, second = work / "phase-intermediate", work / "phase-target"
    chance = random.Random(time.time_ns())
    moments = [
        lambda: any(first.glob("state-*")),
        lambda: any(first.glob("draft-*")),
        lambda: any(second.glob("state-*")),
    ]
    kills, resumes = 0, 0
    for i, moment in enumerate(moments):
        process = command(own_cache, *settings(tiny, out), *(["--resume"] if i else []))
        delay = 0.0 if i == 1 else chance.random() * 0.3
        kills += kill_when(process, moment, delay)
        if (out / "xt.json").is_file():
            break
        assert any(work.glob("*/state-*")) or (work / "intermediate" / "xt.json").is_file()
    while not (out / "xt.json").is_file():
        said = done(xt(own_cache, *settings(tiny, out), "--resume"))
        resumes += 1
        assert "target:" in said
    assert kills >= 2
    assert resumes <= 1  # none when the last kill came too late
    values = {
        "intermediate": SAMPLES, "contrastive": ("sample-paraphrase",), "target": "sample-nli", "steps": STEPS,
        "target_steps": TARGET_STEPS, "batch": 4, "limit": 24, "dev_limit": 6, "learning_rate": 1e-3, "max_length": 48,
        "save_every": 3, "evaluate_every": 7, "device": "cpu",
    }  # fmt: skip
    undisturbed = loop.train(TrainConfig(encoder=str(tiny), out=tmp_path / "whole" / "x", **values))
    assert result(out) == result(undisturbed)
    facts = open_artifact(out).facts
    assert facts["intermediate"]["resumed"] or facts["training"]["resumed"]
    assert not work.exists()


# --- the same in one process, where it can be looked at ---


def config(tiny: Path, out: Path, **change: Any) -> TrainConfig:
    values = {"steps": 12, "batch": 4, "limit": 16, "dev_limit": 4, "device": "cpu", "save_every": 3, **change}
    values.setdefault("intermediate", ("sample-nli", "sample-choice"))
    return TrainConfig(encoder=str(tiny), out=out, max_length=48, **values)


class Killed(BaseException):
    """Stands for a kill."""


def until(steps: int, *, more: int = 10**9) -> Any:
    """A progress function that kills the training at a step, counted over the calls."""
    seen = []

    def progress(step: int, total: int, facts: dict[str, Any]) -> None:
        seen.append(step)
        if len(seen) == steps:
            raise Killed

    return progress


def interrupted(tiny: Path, out: Path, at: int, **change: Any) -> Work:
    """Train until some step, and leave what a kill leaves."""
    with pytest.raises(Killed):
        loop.train(config(tiny, out, **change), progress=until(at))
    return Work(work_folder(out))


def states(work: Work, phase: str = "intermediate") -> list[str]:
    return [p.name for p in Work(work.folder / f"phase-{phase}").states()]


def test_a_complete_folder_is_left_as_it_is(tiny: Path, tmp_path: Path) -> None:
    out = loop.train(config(tiny, tmp_path / "x"))
    assert not work_folder(out).exists()
    before = (out / "xt.json").read_bytes()
    lines: list[str] = []
    loop.train(config(tiny, out, resume=True), report=lines.append)
    assert lines == [f"{out} is complete; nothing to go on with"]
    assert (out / "xt.json").read_bytes() == before


def test_every_moment_is_good_to_go_on_from(tiny: Path, tmp_path: Path) -> None:
    whole = loop.train(config(tiny, tmp_path / "whole", evaluate_every=4))
    expected = open_artifact(whole)
    for at in (1, 3, 4, 7, 12):
        out = tmp_path / f"x{at}"
        work = interrupted(tiny, out, at, evaluate_every=4)
        assert states(work) == ([f"state-{(at - 1) // 3 * 3}"] if at > 3 else [])
        steps: list[int] = []
        loop.train(
            config(tiny, out, evaluate_every=4, resume=True), progress=lambda step, *_, seen=steps: seen.append(step)
        )
        assert steps == list(range((at - 1) // 3 * 3 + 1, 13))
        found = open_artifact(out)
        for name in ("model.safetensors", "heads.safetensors"):
            assert found.manifest["files"][name]["sha256"] == expected.manifest["files"][name]["sha256"], at
        assert found.facts["training"]["losses"] == expected.facts["training"]["losses"]
        assert found.facts["training"]["chosen_step"] == expected.facts["training"]["chosen_step"]


def test_a_state_that_was_not_finished_is_never_used(tiny: Path, tmp_path: Path) -> None:
    expected = open_artifact(loop.train(config(tiny, tmp_path / "whole"))).manifest["files"]
    out = tmp_path / "x"
    work = interrupted(tiny, out, 8)
    phase = work.folder / "phase-intermediate"
    assert states(work) == ["state-6"]
    shutil.copytree(phase / "state-6", phase / "draft-9")  # cut while it was written
    (phase / "draft-9" / "tensors.safetensors").write_bytes(b"half")
    (phase / "state-10").mkdir()  # its files never reached the disk
    (phase / "state-11").mkdir()
    shutil.copy(phase / "state-6" / "state.json", phase / "state-11")
    assert states(work) == ["state-6"]
    loop.train(config(tiny, out, resume=True))
    found = open_artifact(out)
    assert found.facts["training"]["resumed"] == [6]
    assert found.manifest["files"]["model.safetensors"] == expected["model.safetensors"]


def test_a_state_whose_bytes_were_changed_says_which_folder_to_remove(tiny: Path, tmp_path: Path) -> None:
    work = interrupted(tiny, tmp_path / "x", 5)
    (work.folder / "phase-intermediate" / "state-3" / "tensors.safetensors").write_bytes(b"half")
    with pytest.raises(XtError, match="state-3 is damaged") as error:
        loop.train(config(tiny, tmp_path / "x", resume=True))
    assert str(work.folder) in error.value.hint


def test_other_settings_are_refused_by_name_but_those_that_change_no_result_are_not(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "x"
    work = interrupted(tiny, out, 5)
    with pytest.raises(XtError, match="other settings") as error:
        loop.train(config(tiny, out, resume=True, seed=3, steps=20))
    assert "seed: 0 then, 3 now" in error.value.message
    assert "steps: 12 then, 20 now" in error.value.message
    assert "batch" not in error.value.message
    assert states(work) == ["state-3"]
    loop.train(config(tiny, out, resume=True, save_every=5))
    assert open_artifact(out).facts["training"]["resumed"] == [3]


def test_another_encoder_under_the_same_path_is_refused(tiny: Path, tmp_path: Path) -> None:
    encoder = loop.train(config(tiny, tmp_path / "encoder", steps=1))
    interrupted(encoder, tmp_path / "x", 5)
    loop.train(config(tiny, encoder, steps=1, seed=1, force=True))
    with pytest.raises(XtError, match="encoder_hash"):
        loop.train(config(encoder, tmp_path / "x", resume=True))


def test_without_resume_an_interrupted_training_is_refused_and_force_begins_anew(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "x"
    work = interrupted(tiny, out, 5)
    with pytest.raises(XtError, match="holds an interrupted training") as error:
        loop.train(config(tiny, out))
    assert "--resume" in error.value.hint
    assert "--force" in error.value.hint
    assert states(work) == ["state-3"]
    loop.train(config(tiny, out, force=True, seed=1))
    assert open_artifact(out).facts["training"]["resumed"] == []
    assert not work.folder.exists()


def test_a_replacement_that_was_interrupted_goes_on(tiny: Path, tmp_path: Path) -> None:
    """The old folder is complete, but it is not what was requested."""
    out = tmp_path / "x"
    loop.train(config(tiny, out, steps=1))
    interrupted(tiny, out, 5, force=True)
    loop.train(config(tiny, out, resume=True))
    facts = open_artifact(out).facts["training"]
    assert (facts["steps"], facts["resumed"]) == (12, [3])
    assert not work_folder(out).exists()


def test_a_training_that_never_began_needs_no_resume(tiny: Path, tmp_path: Path) -> None:
    """What failed on its data left nothing worth keeping: the next try is not refused."""
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"first": "a"}\n' * 10)
    with pytest.raises(XtError):
        loop.train(config(tiny, tmp_path / "x", data={"sample-nli": (str(bad),)}))
    assert [p.name for p in tmp_path.iterdir()] == ["bad.jsonl"]
    interrupted(tiny, tmp_path / "x", 1)  # killed before the first state
    loop.train(config(tiny, tmp_path / "x"))


def test_the_second_phase_goes_on_without_repeating_the_first(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "x"
    more: dict[str, Any] = {"target": "sample-paraphrase", "target_steps": 8}
    work = interrupted(tiny, out, 12 + 5, **more)
    assert (work.folder / "intermediate" / "xt.json").is_file()
    assert states(work, "target") == ["state-3"]
    seen: list[int] = []
    lines: list[str] = []
    loop.train(config(tiny, out, resume=True, **more), report=lines.append, progress=lambda step, *_: seen.append(step))
    assert seen == [4, 5, 6, 7, 8]
    assert not any(line.startswith("intermediate:") for line in lines)
    expected = loop.train(config(tiny, tmp_path / "whole", **more))
    found, wanted = open_artifact(out), open_artifact(expected)
    assert found.manifest["files"]["model.safetensors"] == wanted.manifest["files"]["model.safetensors"]
    assert found.manifest["parents"] == wanted.manifest["parents"] == [from_folder(tiny).parent]


def test_training_does_not_go_on_behind_an_early_stop(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scorings and states fall on the same steps; killed while the checkpoint is written."""
    from xt.train import dev

    def score(model: Any, inputs: Any, data: list[TaskData]) -> dict[str, dict[str, float]]:
        return {d.task.name: {d.task.metric: 0.5} for d in data}

    monkeypatch.setattr(dev, "score_all", score)
    out, change = tmp_path / "x", {"evaluate_every": 3, "patience": 2}
    write = loop.checkpoint.write

    def killed(*args: Any, **kwargs: Any) -> None:
        raise Killed

    monkeypatch.setattr(loop.checkpoint, "write", killed)
    with pytest.raises(Killed):
        loop.train(config(tiny, out, **change))
    monkeypatch.setattr(loop.checkpoint, "write", write)
    loop.train(config(tiny, out, resume=True, **change))
    facts = open_artifact(out).facts["training"]
    assert (facts["steps"], facts["chosen_step"], facts["resumed"]) == (9, 3, [6])
    assert "early stopping" in facts["stopped"]


def test_a_state_holds_the_moments_of_what_is_trained_and_nothing_more(tiny: Path, tmp_path: Path) -> None:
    work = interrupted(tiny, tmp_path / "x", 5)
    tensors, facts = Work(work.folder / "phase-intermediate").load() or ({}, {})
    assert facts["step"] == 3
    kinds = {name.partition("/")[0] for name in tensors}
    assert kinds == {"weight", "step", "exp_avg", "exp_avg_sq"}
    names = {name.partition("/")[2] for name in tensors}
    assert "encoder.embeddings.word_embeddings.weight" not in names
    text = json.dumps(facts, allow_nan=False)
    assert len(json.loads(text)["trace"]["losses"]) == 3
    assert trainer.Trace(**facts["trace"]).losses[-1]["step"] == 3
