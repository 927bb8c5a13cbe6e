"""Two processes on the CPU do what one does with the same batches.

Tests `train/process_group.py` as well.
"""

import socket
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.command import Command
from xt.core.files.artifact import open_artifact
from xt.train import loop
from xt.train.config import TrainConfig
from xt.train.run import Run
from xt.train.state import work_folder

from .conftest import Files, command

LOSS_TOLERANCE = 2e-4  # sums in another order, through a learned scale of 14: up to 7e-5 seen
WEIGHT_TOLERANCE = 1e-5
NO_GRADIENT = ("self.key.bias", "sample-qa.out.bias", "sample-choice.score.out.bias")
"""What a softmax does not notice: its gradient is 0 but for rounding, which Adam blows up to the learning rate."""
STEPS = 16


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def team(cache: Path, *arguments: object, size: int = 2) -> list[Command]:
    """Start `xt train` once for each process, as torchrun does."""
    port = str(free_port())
    place = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [command(cache, "train", *arguments, RANK=str(rank), LOCAL_RANK=str(rank), **place) for rank in range(size)]


def finish(processes: list[Command]) -> list[tuple[int, str, str]]:
    """Wait for all: exit code, stdout and stderr of each."""
    try:
        answers = [(*p.communicate(timeout=200), p.returncode) for p in processes]
    finally:
        for process in processes:
            process.kill()
    return [(code, out, err) for out, err, code in answers]


def settings(tiny: Path, files: Files, out: Path) -> tuple[list[object], dict[str, Any]]:
    """A mix of every way in which losses are put together: as flags, and for TrainConfig."""
    values: dict[str, Any] = {
        "intermediate": ("sample-nli", "sample-choice", "sample-qa", f"tagging:{files.tagging}"),
        "contrastive": ("sample-paraphrase",),
        "mlm": (str(files.text),),
        "image_text": (str(files.images),),
        "steps": STEPS, "batch": 6, "limit": 20, "dev_limit": 6, "max_length": 48, "dropout": 0.0, "device": "cpu",
        "micro_tokens": 100, "sampling": "uniform", "save_every": 5, "evaluate_every": 8,
    }  # fmt: skip
    flags: list[object] = ["--encoder", tiny, "--out", out]
    for name, value in values.items():
        for one in value if isinstance(value, tuple) else (value,):
            flags += ["--" + name.replace("_", "-"), one]
    return flags, values


@pytest.fixture(scope="module")
def alone(tiny: Path, files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of one process."""
    out = tmp_path_factory.mktemp("alone") / "x"
    return loop.train(TrainConfig(encoder=str(tiny), out=out, **settings(tiny, files, out)[1]))


def agree(out: Path, alone: Path) -> None:
    """Losses, dev scores and weights are those of one process, to the stated tolerances."""
    found, expected = (open_artifact(path).facts["training"] for path in (out, alone))
    assert found["processes"] == 2
    assert {row["task"] for row in found["losses"]} == {row["task"] for row in found["tasks"]} != set()
    assert len({row["format"] for row in found["tasks"]}) == 7
    assert [(r["step"], r["task"]) for r in found["losses"]] == [(r["step"], r["task"]) for r in expected["losses"]]
    losses = [[row["loss"] for row in facts["losses"]] for facts in (found, expected)]
    assert losses[0] == pytest.approx(losses[1], abs=LOSS_TOLERANCE, rel=LOSS_TOLERANCE)
    assert [row["mean"] for row in found["dev"]] == pytest.approx([row["mean"] for row in expected["dev"]], abs=1e-4)
    assert found["tokens"] == expected["tokens"]
    checked = 0
    for file in ("model.safetensors", "heads.safetensors"):
        one, two = load_file(alone / file), load_file(out / file)
        assert one.keys() == two.keys()
        for name in one:
            close = 1e-2 if name.endswith(NO_GRADIENT) else WEIGHT_TOLERANCE
            apart = (two[name] - one[name]).abs()
            assert float(apart.max()) <= 1e-2, name
            # Of a single weight whose gradient is all but 0 Adam makes a step of rounding.
            assert float((apart > close).float().mean()) <= 1e-3, name
            checked += 1
    assert checked > 50


def test_two_processes_give_what_one_gives_and_can_be_killed(
    tiny: Path, files: Files, alone: Path, own_cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x"
    flags, _ = settings(tiny, files, out)
    processes = team(own_cache, *flags)
    phase = work_folder(out) / "phase-intermediate"
    while all(p.poll() is None for p in processes) and not any(phase.glob("state-*")):
        time.sleep(0.01)
    for process in processes:
        process.kill()
    finish(processes)
    assert not out.exists()
    assert any(phase.glob("state-*"))
    answers = finish(team(own_cache, *flags, "--resume"))
    assert [code for code, _, _ in answers] == [0, 0], answers
    agree(out, alone)
    assert open_artifact(out).facts["training"]["resumed"][0] in (5, 10, 15)
    assert "wrote" in answers[0][2]
    assert answers[1][1] == ""


def test_more_processes_than_examples_are_refused(tiny: Path, files: Files, tmp_path: Path) -> None:
    from xt.core.encoder.torch_engine import load_network
    from xt.core.errors import XtError
    from xt.train.process_group import ProcessGroup

    _, values = settings(tiny, files, tmp_path)
    config = TrainConfig(encoder=str(tiny), out=tmp_path / "x", **values)
    with pytest.raises(XtError, match="6 is less than one example for each of 7 processes"):
        loop.train_from_network(config, load_network(tiny), None, [], run=Run("cpu", group=ProcessGroup(0, 7)))  # type: ignore[arg-type]
