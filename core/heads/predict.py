"""What the trained heads say about examples: labels with probabilities, numbers, tags, answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from xt.core.arguments import as_list
from xt.core.data.examples import Example
from xt.core.data.tasks import Task
from xt.core.encoder.buckets import micro_batches
from xt.core.heads.decode import LONGEST_ANSWER, Prediction, best_span, decode, softmax
from xt.core.heads.inputs import Arrays, Inputs, Unit, chunks, collate
from xt.core.heads.network import MultiTaskModel, has_segments

__all__ = ["LONGEST_ANSWER", "READ_AHEAD", "TOKEN_BUDGET", "Prediction", "best_span", "forward", "predict", "softmax"]
TOKEN_BUDGET = 4096
"""Tokens, padding included, of one forward pass."""
READ_AHEAD = 512
"""Examples that are tokenised and sorted by length together."""


def forward(
    model: MultiTaskModel, inputs: Inputs, task: Task, units: Sequence[Unit], *, labels: bool = False
) -> Iterator[tuple[list[int], Arrays, dict[str, Any]]]:
    """Run units in micro-batches sorted by length, one after the other: positions, arrays and the model's output.

    `labels`: whether the model is given them, and so gives a loss.
    """
    device = next(model.parameters()).device
    segments = has_segments(model.encoder)
    lengths = [unit.longest * len(unit.rows) for unit in units]
    for positions in micro_batches(lengths, TOKEN_BUDGET):
        arrays = collate(task.format, [units[i] for i in positions], pad_id=inputs.pad_id, segments=segments)
        given = {name: array for name, array in arrays.items() if labels or name != "labels"}
        tensors = {name: torch.from_numpy(array).to(device) for name, array in given.items()}
        yield positions, arrays, model(task=task.name, **tensors)


def predict(model: MultiTaskModel, inputs: Inputs, task: Task, examples: Sequence[Example]) -> list[Prediction]:
    """Predict without dropout or gradients, in the order of the examples; for all formats that predict something."""
    was_training = model.training
    model.eval()
    found: list[Prediction] = []
    with torch.inference_mode():
        for some in chunks(as_list(examples, "examples", "examples"), READ_AHEAD):
            units = inputs.units(task, some)
            logits: list[Any] = [None] * len(units)
            for positions, _, output in forward(model, inputs, task, units):
                for position, value in zip(positions, output["logits"].float().cpu().numpy(), strict=True):
                    logits[position] = value
            found += decode(task, some, units, logits)
    model.train(was_training)
    return found
