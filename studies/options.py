"""What `xt study run` and `xt quickstart` are asked to do; their flags are these fields. Light to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from xt.core.errors import UsageError, unknown
from xt.core.settings import DataDir, Device, Flag, Force, Out, Seed, StartTimeout

STUDIES = {
    "transfer": "each kind of intermediate training, before and after: own tasks, Tatoeba, SIB-200, image-text",
    "accuracy": "the accuracy of retrieval without labels: the estimate of `predicted` against others",
    "training-speed": "tokens per second of xt's training against transformers' Trainer",
}


@dataclass(frozen=True)
class StudyOptions:
    """Which study to run, on what, and where to."""

    name: Annotated[str, Flag("transfer, accuracy or training-speed.", positional=True)]
    out: Out
    encoder: Annotated[str, Flag("A checkpoint folder, a short name or a hub id.")] = "multilingual-e5-small"
    data_dir: DataDir = None
    only: Annotated[
        tuple[str, ...], Flag("A run of transfer, a corpus of accuracy, or a task of training-speed; repeatable.")
    ] = ()
    scale: Annotated[float, Flag("Share of the steps to make (transfer).")] = 1.0
    precision: Annotated[str | None, Flag("fp32, bf16, fp16.", default="bf16; training-speed: fp32")] = None
    seed: Seed = 0
    device: Device = "auto"
    force: Force = False

    def __post_init__(self) -> None:
        if self.name not in STUDIES:
            raise unknown("study", self.name, STUDIES)
        if self.name == "accuracy" and self.precision:
            raise UsageError("--precision goes with training; an encoder computes in its own")
        if self.name == "transfer" and not 0 < self.scale <= 1:
            raise UsageError(f"--scale is {self.scale}; above 0, 1 at most")

    def shared(self) -> dict[str, Any]:
        """Return the settings that every study has."""
        names = ("out", "encoder", "data_dir", "seed", "device", *(["precision"] if self.precision else []))
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class QuickstartOptions:
    """All settings of one run of `xt quickstart`."""

    out: Annotated[Path, Flag("Folder of all that is made; what is complete is kept.")] = Path("quickstart")
    ask: Annotated[str | None, Flag("A question, in any language, to answer from the bundled English sentences.")] = (
        None
    )
    full: Annotated[bool, Flag("The long version: base and trained encoder exported, served, measured under load.")] = (
        False
    )
    steps: Annotated[int | None, Flag("Training steps of 16 examples. Default: 24; with --full 120.")] = None
    seconds: Annotated[float | None, Flag("With --full: how long each load is measured. Default: 6.")] = None
    start_timeout: StartTimeout = 300.0
    seed: Seed = 0
    force: Force = False

    def __post_init__(self) -> None:
        if self.full and self.ask is not None:
            raise UsageError("--ask is answered by the short version; leave out --full")
        if self.seconds is not None and not self.full:
            raise UsageError("--seconds goes with --full: the short version puts no load on a server")

    def given(self, *names: str) -> dict[str, Any]:
        """Return the settings that both versions have, and of those named the ones that were given."""
        shared = {"out": self.out, "seed": self.seed, "force": self.force, "start_seconds": self.start_timeout}
        return shared | {name: value for name in names if (value := getattr(self, name)) is not None}
