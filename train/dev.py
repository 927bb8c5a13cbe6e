"""How well the heads do on the English dev examples, for every format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xt.core.data.examples import CaptionExample, Example
from xt.core.heads.inputs import IGNORED, Inputs, chunks
from xt.core.heads.network import VECTOR_FORMATS, MultiTaskModel
from xt.core.heads.predict import READ_AHEAD, forward, predict
from xt.core.heads.scores import majority, score
from xt.train.batches import hide
from xt.train.data import TaskData, images_of

Scores = dict[str, float]
MLM_PROBABILITY = 0.15
"""Share of the tokens that are hidden when masked language modelling is scored."""


def _device(model: MultiTaskModel) -> torch.device:
    return next(model.parameters()).device


def partners(ours: Tensor, theirs: Tensor) -> float:
    """Return the share of rows whose nearest row on the other side is their own, mean of both directions.

    ours, theirs (n, dim) of unit length, the nth of each belonging together.

    >>> partners(torch.eye(2), torch.tensor([[1.0, 0.0], [0.9, 0.1]]))
    0.75
    """
    scores, gold = ours @ theirs.T, torch.arange(len(ours), device=ours.device)
    ways = [(scores.argmax(1) == gold).float().mean(), (scores.argmax(0) == gold).float().mean()]
    return float(sum(ways) / 2)


def _contrastive(model: MultiTaskModel, inputs: Inputs, data: TaskData) -> Scores:
    units = inputs.units(data.task, data.dev)
    pairs: list[tuple[Tensor, Tensor]] = []
    for _, arrays, output in forward(model, inputs, data.task, units):
        parts = torch.from_numpy(arrays["parts"])
        pairs.append((output["texts"][parts == 0].float().cpu(), output["texts"][parts == 1].float().cpu()))
    return {"retrieval": partners(torch.cat([a for a, _ in pairs]), torch.cat([p for _, p in pairs]))}


def _image_text(model: MultiTaskModel, inputs: Inputs, data: TaskData) -> Scores:
    """Return recall at 1 and 10 and the mean reciprocal rank of text to image among the dev images."""
    assert data.images is not None
    owners = [e.image for e in data.dev if isinstance(e, CaptionExample)]
    rows = images_of(data.dev)
    units = inputs.units(data.task, data.dev)
    head: Any = model.heads[data.task.name]
    pixels = torch.from_numpy(np.asarray(data.images[rows], np.float32)).to(_device(model))
    images = head.see(pixels).float()
    ranks = np.zeros(len(units))
    for positions, _, output in forward(model, inputs, data.task, units):
        scores = (output["texts"].float() @ images.T).cpu().numpy()
        for position, row in zip(positions, scores, strict=True):
            ranks[position] = (row >= row[rows.index(owners[position])]).sum()  # of equal ones the last
    shares = {"retrieval": ranks <= 1, "at_10": ranks <= 10, "mrr": 1 / ranks}
    return {name: float(values.mean()) for name, values in shares.items()}


def _mlm(model: MultiTaskModel, inputs: Inputs, data: TaskData) -> Scores:
    """Return the hidden tokens found, and the mean cross-entropy (nats); the same tokens are hidden every time."""
    found = loss = count = 0.0
    at = 0
    for some in chunks(data.dev, READ_AHEAD):
        units = inputs.units(data.task, some)
        for unit in units:
            unit.rows[0], unit.labels = hide(unit.rows[0], inputs, MLM_PROBABILITY, np.random.default_rng([at]))
            at += 1
        for _, arrays, output in forward(model, inputs, data.task, units, labels=True):
            gold = torch.from_numpy(arrays["labels"])
            gold = gold[gold != IGNORED]
            found += float((output["logits"].argmax(-1).cpu() == gold).sum())
            loss += float(output["loss"])
            count += len(gold)
    return {"token_accuracy": found / max(1, count), "cross_entropy": loss / max(1, count)}


_OTHERS = {"contrastive": _contrastive, "image-text": _image_text, "mlm": _mlm}


def score_task(model: MultiTaskModel, inputs: Inputs, data: TaskData) -> Scores:
    """Score the model on a task's dev examples: its metric and what goes with it."""
    if data.task.format not in _OTHERS:
        values = [p.value for p in predict(model, inputs, data.task, data.dev)]
        return score(data.task, data.dev, values)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        found = _OTHERS[data.task.format](model, inputs, data)
    model.train(was_training)
    return found


def score_all(model: MultiTaskModel, inputs: Inputs, data: Sequence[TaskData]) -> dict[str, Scores]:
    """Score the model on each task's dev examples."""
    return {d.task.name: score_task(model, inputs, d) for d in data}


def mean_metric(data: Sequence[TaskData], scores: dict[str, Scores]) -> float:
    """Return the unweighted mean of the tasks' metrics, by which weights are chosen."""
    return float(np.mean([scores[d.task.name][d.task.metric] for d in data]))


def baseline(data: TaskData) -> tuple[float, str]:
    """Return what needs no encoder: the most frequent label, or chance."""
    if data.task.format in VECTOR_FORMATS:
        others = len(images_of(data.dev)) or len(data.dev)
        return 1 / others, "chance"
    dev: Sequence[Example] = data.dev
    return majority(data.task, dev)
