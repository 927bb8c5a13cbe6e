"""What one training run is asked to do."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xt.core import tasks
from xt.core.errors import XtError, unknown
from xt.train.sampling import SAMPLINGS


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; all that is wrong with them is said at once."""

    encoder: str
    """Folder, hub id or short name of the encoder to start from."""
    intermediate: tuple[str, ...]
    """Names of the tasks to train on, together."""
    out: Path
    """The checkpoint folder to write."""
    steps: int | None = None
    """Batches to train on. Not together with `epochs`."""
    epochs: float | None = None
    """Passes over the examples of all tasks together; 1.0 when neither this nor `steps` is given."""
    batch: int = 16
    """Examples a step, all of one task."""
    learning_rate: float = 2e-5
    """Highest learning rate of the encoder (AdamW), after the warm-up and before the linear decay to 0."""
    head_learning_rate: float = 4e-4
    """The same for the heads, which start from random weights."""
    warmup: float = 0.1
    """Share of the steps (0 to below 1) over which the learning rates rise from 0."""
    weight_decay: float = 0.01
    """AdamW's decoupled decay, of matrices only."""
    max_length: int = 256
    """Tokens of an input, special tokens included. Longer pairs are cut; longer contexts are read in windows."""
    sampling: str = "proportional"
    """How often each task is trained on: see `xt.train.sampling.probabilities`."""
    cap: int = 131072
    """Examples from which on a task counts no more, for `capped`. (2**17: the middle of what T5 tried.)"""
    sampling_temperature: float = 2.0
    """Flattening for `temperature`: 1 is proportional, large is uniform."""
    freeze_embeddings: bool = True
    """Keep the word embeddings as they are: tokens that the tasks do not show, of other languages, keep their place."""
    seed: int = 0
    """Of the heads' first weights, the order of the examples and dropout."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""
    force: bool = False
    """Replace what is at `out`, once the new folder is complete."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "intermediate", tuple(self.intermediate))
        object.__setattr__(self, "out", Path(self.out))
        problems = [*self._task_problems(), *self._number_problems()]
        if self.steps is None and self.epochs is None:
            object.__setattr__(self, "epochs", 1.0)
        if len(problems) == 1:
            raise problems[0]
        if problems:
            lines = "\n".join(f"- {problem.message}" for problem in problems)
            hints = "\n".join(dict.fromkeys(problem.hint for problem in problems if problem.hint))
            raise XtError(f"The training settings have {len(problems)} problems:\n{lines}", hints)

    def _task_problems(self) -> list[XtError]:
        found = []
        for name in dict.fromkeys(self.intermediate):
            try:
                task = tasks.get(name)
                if task.kind != "intermediate":
                    known = ", ".join(tasks.names("intermediate"))
                    found.append(
                        XtError(f"{name} is a {task.kind} task; one cannot train on it.", f"Train on: {known}.")
                    )
            except XtError as error:
                found.append(error)
        twice = sorted({name for name in self.intermediate if self.intermediate.count(name) > 1})
        if twice:
            found.append(XtError(f"Named more than once: {', '.join(twice)}."))
        if not self.intermediate:
            known = ", ".join(tasks.names("intermediate"))
            found.append(XtError("No task to train on.", f"Name one or more of: {known}."))
        return found

    def _number_problems(self) -> list[XtError]:
        checks = [
            (self.steps is None or self.epochs is None, "steps and epochs exclude each other; give one."),
            (self.steps is None or self.steps >= 1, f"steps is {self.steps}; 1 or more needed."),
            (self.epochs is None or 0 < self.epochs < math.inf, f"epochs is {self.epochs}; above 0 needed."),
            (self.batch >= 1, f"batch is {self.batch}; 1 or more needed."),
            (0 < self.learning_rate < 1, f"learning_rate is {self.learning_rate}; between 0 and 1 needed."),
            (
                0 < self.head_learning_rate < 1,
                f"head_learning_rate is {self.head_learning_rate}; between 0 and 1 needed.",
            ),
            (0 <= self.warmup < 1, f"warmup is {self.warmup}; a share of the steps, 0 to below 1, needed."),
            (0 <= self.weight_decay < 1, f"weight_decay is {self.weight_decay}; 0 to below 1 needed."),
            (self.max_length >= 16, f"max_length is {self.max_length}; 16 tokens or more needed."),
            (self.cap >= 1, f"cap is {self.cap}; 1 example or more needed."),
            (
                1 <= self.sampling_temperature < math.inf,
                f"sampling_temperature is {self.sampling_temperature}; 1 or more needed.",
            ),
            (0 <= self.seed < 2**32, f"seed is {self.seed}; 0 to 2**32 - 1 needed."),
        ]
        found = [XtError(text) for holds, text in checks if not holds]
        if self.sampling not in SAMPLINGS:
            found.append(unknown("sampling", self.sampling, SAMPLINGS))
        if self.device not in ("auto", "cpu", "cuda"):
            found.append(unknown("device", self.device, ("auto", "cpu", "cuda")))
        return found

    def planned_steps(self, examples: int) -> int:
        """Give the steps to train for, when all tasks together have so many examples.

        >>> TrainConfig("x", ("sample-nli",), Path("y"), epochs=2, batch=16).planned_steps(100)
        13
        """
        if self.steps is not None:
            return self.steps
        return max(1, math.ceil((self.epochs or 1.0) * examples / self.batch))

    def to_json(self) -> dict[str, Any]:
        """As the manifest keeps it."""
        return {**asdict(self), "intermediate": list(self.intermediate), "out": str(self.out)}
