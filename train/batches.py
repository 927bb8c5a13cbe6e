"""What one training step computes on: the examples of its batch that fall to this process, in micro-batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from xt.core.encoder.buckets import micro_batches
from xt.core.heads.inputs import IGNORED, Arrays, Inputs, Unit, collate
from xt.train.data import TaskData
from xt.train.process_group import ProcessGroup
from xt.train.sampling import Plan

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class StepBatch:
    """The part of one step that falls to this process."""

    step: int
    """From 0."""
    task: str
    format: str
    total: float
    """Targets of the whole batch over all processes: examples, labelled words or hidden tokens."""
    tokens: int
    """Tokens of the whole batch over all processes, padding left out."""
    padded: int
    """Tokens of this process's part, padding included."""
    micro: list[Batch]
    """What the model takes, one micro-batch after the other."""


def hide(ids: Any, inputs: Inputs, share: float, rng: np.random.Generator) -> tuple[Any, Any]:
    """Hide tokens of a row for masked language modelling: the row as it is read, and the labels of what is hidden.

    Of `share` of the tokens (one at least, no special ones) 80 % become the mask token, 10 % a random token, 10 %
    stay (Devlin et al. 2019, section 3.1). ids (tokens,).
    """
    labels = np.full(len(ids), IGNORED, np.int64)
    able = np.flatnonzero(~np.isin(ids, inputs.special_ids))
    if not len(able):
        return ids, labels
    picked = rng.choice(able, max(1, round(share * len(able))), replace=False)
    labels[picked] = ids[picked]
    read = ids.copy()
    dice = rng.random(len(picked))
    read[picked[dice < 0.8]] = inputs.mask_id
    swapped = picked[(dice >= 0.8) & (dice < 0.9)]
    read[swapped] = rng.integers(0, inputs.vocabulary, len(swapped))
    return read, labels


class StepBatches(Dataset[StepBatch]):
    """The batches of a plan from some step on; each is made when it is its turn, alike in every process."""

    def __init__(
        self,
        plan: Plan,
        data: Mapping[str, TaskData],
        inputs: Inputs,
        *,
        seed: int,
        micro_tokens: int,
        mlm_probability: float = 0.15,
        segments: bool = True,
        group: ProcessGroup = ProcessGroup(),
        first: int = 0,
    ) -> None:
        self.plan = plan
        self.data = data
        self.inputs = inputs
        self.seed = seed
        self.micro_tokens = micro_tokens
        self.mlm_probability = mlm_probability
        self.segments = segments
        self.rank, self.size = group.rank, group.size
        self.first = first

    def __len__(self) -> int:
        """Count the steps that are left."""
        return len(self.plan) - self.first

    def __getitem__(self, index: int) -> StepBatch:
        """Make this process's part of one step."""
        if index >= len(self):
            raise IndexError(index)
        step = index + self.first
        name, positions = self.plan[step]
        data = self.data[name]
        form = data.task.format
        units = [data.prepared.unit(int(i)) for i in positions]
        if form == "mlm":
            for place, unit in enumerate(units):
                rng = np.random.default_rng([self.seed, step, place])
                unit.rows[0], unit.labels = hide(unit.rows[0], self.inputs, self.mlm_probability, rng)
        total = max(1.0, float(sum(targets(unit) for unit in units)))
        order = sorted(range(len(units)), key=lambda i: -units[i].longest)
        mine = [units[i] for i in order[self.rank :: self.size]]
        micro = [
            self._tensors(form, [mine[i] for i in some], data)
            for some in micro_batches([unit.longest * len(unit.rows) for unit in mine], self.micro_tokens)
        ]
        tokens = sum(unit.tokens for unit in units)
        return StepBatch(step, name, form, total, tokens, sum(m["input_ids"].numel() for m in micro), micro)

    def _tensors(self, form: str, units: Sequence[Unit], data: TaskData) -> Batch:
        arrays: Arrays = collate(form, units, pad_id=self.inputs.pad_id, segments=self.segments)
        if form == "image-text":
            assert data.images is not None
            arrays["images"] = np.asarray(data.images[arrays["owners"]], np.float32)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def targets(unit: Unit) -> int:
    """Count what the loss of a unit is summed over."""
    return 1 if unit.labels is None else int((unit.labels != IGNORED).sum())
