"""What `xt study run` is asked to do; its flags are these fields. Light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from xt.core.errors import UsageError, unknown
from xt.core.settings import DataDir, Device, Flag, Force, Out, Seed

STUDIES = {
    "transfer": "each kind of intermediate training, before and after: own tasks, Tatoeba, SIB-200, image-text",
    "training-speed": "tokens per second of xt's training against transformers' Trainer",
}


@dataclass(frozen=True)
class StudyOptions:
    """Which study to run, on what, and where to."""

    name: Annotated[str, Flag("transfer or training-speed.", positional=True)]
    out: Out
    encoder: Annotated[str, Flag("A checkpoint folder, a short name or a hub id.")] = "multilingual-e5-small"
    data_dir: DataDir = None
    only: Annotated[tuple[str, ...], Flag("A run of transfer, or a task of training-speed; repeatable.")] = ()
    scale: Annotated[float, Flag("Share of the steps to make (transfer).")] = 1.0
    precision: Annotated[str | None, Flag("fp32, bf16, fp16.", default="bf16; training-speed: fp32")] = None
    seed: Seed = 0
    device: Device = "auto"
    force: Force = False

    def __post_init__(self) -> None:
        if self.name not in STUDIES:
            raise unknown("study", self.name, STUDIES)
        if self.name == "transfer" and not 0 < self.scale <= 1:
            raise UsageError(f"--scale is {self.scale}; above 0, 1 at most")

    def shared(self) -> dict[str, Any]:
        """Return the settings that every study has."""
        names = ("out", "encoder", "data_dir", "seed", "device", *(["precision"] if self.precision else []))
        return {name: getattr(self, name) for name in names}
