"""Steps of the quickstart that are timed and kept: a run that was stopped goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xt.core.encoder.resolve import Resolved
from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, Artifact, open_artifact
from xt.core.reporter import Reporter, Say
from xt.serve.triton.starting import START_SECONDS
from xt.train.config import TrainConfig
from xt.train.loop import train


@dataclass(frozen=True)
class RunSettings:
    """The settings of one run, short or long."""

    out: Path
    steps: int
    """Training steps of 16 examples."""
    seed: int = 0
    force: bool = False
    """Do every step again."""
    start_seconds: float = START_SECONDS
    """How long Triton may take to start; 0: no limit."""


@dataclass
class Clock:
    """The time of each step."""

    say: Say
    started: float = field(default_factory=time.monotonic)
    steps: dict[str, float] = field(default_factory=dict)
    """Name -> seconds."""

    def run(self, name: str, work: Callable[[], Any]) -> Any:
        """Do a step, print how long it took, and return its result."""
        self.say(f"{name} ...")
        begun = time.monotonic()
        result = work()
        self.steps[name] = round(time.monotonic() - begun, 1)
        self.say(f"{name}: {self.steps[name]:.0f} s")
        return result

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started


def kept(path: Path, kind: str, parents: Sequence[str], *, force: bool = False, **facts: Any) -> Artifact | None:
    """Return the folder when it is complete, made from just these parents, and with these facts; else None."""
    if force or not (path / MANIFEST).is_file():
        return None
    try:
        artifact = open_artifact(path, kind=kind)
    except XtError:
        return None
    same = [p["hash"] for p in artifact.manifest["parents"]] == list(parents)
    return artifact if same and all(artifact.facts.get(k) == v for k, v in facts.items()) else None


def sample_training(
    base: Resolved, name: str, tasks: tuple[str, ...], *, steps: int, seed: int, out: Path
) -> TrainConfig:
    """Return the settings of a short training of an encoder, which `name` names where it is no folder of xt's."""
    encoder = str(base.path) if (base.path / MANIFEST).is_file() else name
    return TrainConfig(encoder=encoder, intermediate=tasks, out=out, steps=steps, seed=seed, force=True)


def trained(config: TrainConfig, base: Resolved, *, force: bool, when_kept: str, reporter: Reporter) -> Artifact:
    """Train and measure the heads in PyTorch, or keep the checkpoint that is there, and say `when_kept`."""
    artifact = kept(config.out, "checkpoint", [base.parent["hash"]], force=force)
    if artifact is not None:
        before = artifact.facts["training"]["config"]
        wanted = (config.steps, config.seed, config.intermediate)
        if (before["steps"], before["seed"], tuple(before["intermediate"])) == wanted:
            reporter.say(when_kept)
            return artifact
    below = reporter.indented()
    progress = below.counter("steps")
    train(config, report=below.say, progress=lambda done, total, facts: progress(done, total, facts["task"]))
    return open_artifact(config.out)
