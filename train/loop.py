"""One training run, from the name of an encoder to a checkpoint folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import transformers
from torch import nn

from xt.core import tasks
from xt.core.artifact import new_artifact, refuse_existing, sha256
from xt.core.encoders import Resolved, resolve
from xt.core.errors import XtError
from xt.core.examples import read_examples
from xt.core.spec import EncoderSpec
from xt.core.torch_engine import load_network, pick_device
from xt.train import checkpoint, scoring
from xt.train.batches import Batcher
from xt.train.config import TrainConfig
from xt.train.heads import MultiTaskModel
from xt.train.sampling import Plan, probabilities, schedule
from xt.train.trainer import Progress, TaskData, Trace, fit

Report = Callable[[str], None]
Scores = dict[str, dict[str, float]]


def _quiet(line: str) -> None:
    """Report nothing."""


def train(config: TrainConfig, *, report: Report = _quiet, progress: Progress | None = None) -> Path:
    """Train an encoder on intermediate tasks and write the checkpoint folder `config.out`, which is returned.

    Args:
        config: what to do.
        report: takes lines that say what happens.
        progress: called after each step with its number, the steps in all, and {"task", "loss"}.

    Raises XtError for all that a user can mend, before any work where that can be known; then nothing is written.
    """
    refuse_existing(config.out, force=config.force)
    data = read_tasks(config.intermediate)
    resolved = resolve(config.encoder)
    report(f"encoder: {resolved.spec.name} ({resolved.spec.provenance})")
    network = load_network(resolved.path)
    return train_from_network(config, network, resolved, data, report=report, progress=progress)


def read_tasks(names: Sequence[str]) -> list[TaskData]:
    """Read the training and dev examples of some tasks."""
    rows = [tasks.get(name) for name in names]
    return [TaskData(task, read_examples(task, "train"), read_examples(task, "dev")) for task in rows]


def load_tokenizer(folder: Path) -> Any:
    """Load the fast tokenizer of an encoder folder, as transformers uses it."""
    transformers.logging.set_verbosity_error()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, use_fast=True)
    except Exception as error:  # tokenizers raises bare Exception
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise XtError(
            f"transformers cannot load the tokenizer of {folder}: {first}", "Copy the folder again."
        ) from error
    if not tokenizer.is_fast:
        raise XtError(f"The tokenizer of {folder} is not a fast one.", "Save it with a tokenizer.json.")
    if tokenizer.pad_token is None:
        raise XtError(f"The tokenizer of {folder} names no padding token.", "Name it in special_tokens_map.json.")
    return tokenizer


def train_from_network(
    config: TrainConfig,
    network: nn.Module,
    resolved: Resolved,
    data: Sequence[TaskData],
    *,
    report: Report = _quiet,
    progress: Progress | None = None,
) -> Path:
    """Do what `train` does with a network and examples that are at hand; `network` is trained in place.

    Args:
        config: what to do; `encoder` and `intermediate` are only noted.
        network: a transformers encoder.
        resolved: its folder (the tokenizer is copied from there), its spec and how to name it as parent.
        data: the tasks with their examples.
        report: see `train`.
        progress: see `train`.
    """
    with new_artifact(config.out, kind="checkpoint", force=config.force) as draft:
        device = pick_device(config.device)
        transformers.set_seed(config.seed)
        model = MultiTaskModel(network, resolved.spec, [d.task for d in data]).to(device)
        if config.freeze_embeddings:
            model.freeze_embeddings()
        batcher = Batcher(load_tokenizer(resolved.path), min(config.max_length, resolved.spec.max_length))
        cut = check_lengths(batcher, data, report)
        shares, plan = make_plan(config, data)
        before = score_all(model, batcher, data, config.batch)
        report(f"training on {device}: {len(plan)} steps of {config.batch} examples, {len(data)} tasks")
        rows = {d.task.name: d for d in data}
        trace = fit(model, config, plan, data=rows, batcher=batcher, device=device, progress=progress)
        after = score_all(model, batcher, data, config.batch)
        table = [describe(d, plan, config.batch, cut, before, after) for d in data]
        for row in table:
            report(line(row))
        spec = trained_spec(resolved.spec, config, data)
        report(f"writing {config.out}")
        checkpoint.write(draft.path, model, spec, resolved.path)
        draft.facts = {"encoder": spec.to_json(), "training": facts(config, table, shares, trace)}
        draft.parents = [resolved.parent]
        draft.seed = config.seed
    return config.out


def check_lengths(batcher: Batcher, data: Sequence[TaskData], report: Report) -> dict[str, int]:
    """Count, by task, the training examples that will be cut, and say so."""
    cut = {}
    for d in data:
        cut[d.task.name] = batcher.check(d.task, d.train)
        batcher.check(d.task, d.dev)
        if cut[d.task.name]:
            found = f"{cut[d.task.name]} of {len(d.train)} training examples"
            report(f"{d.task.name}: {found} have more than {batcher.max_length} tokens; their ends are cut")
    return cut


def make_plan(config: TrainConfig, data: Sequence[TaskData]) -> tuple[dict[str, float], Plan]:
    """Give the share of each task, and the batches of all steps."""
    sizes = {d.task.name: len(d.train) for d in data}
    mixing: dict[str, Any] = {
        "sampling": config.sampling,
        "cap": config.cap,
        "temperature": config.sampling_temperature,
    }
    steps = config.planned_steps(sum(sizes.values()))
    return probabilities(sizes, **mixing), schedule(sizes, config.batch, steps, seed=config.seed, **mixing)


def score_all(model: MultiTaskModel, batcher: Batcher, data: Sequence[TaskData], batch: int) -> Scores:
    """Score the model on each task's dev examples."""
    return {d.task.name: scoring.score(model, batcher, d.task, d.dev, batch=batch) for d in data}


def describe(
    data: TaskData, plan: Plan, batch: int, cut: Mapping[str, int], before: Scores, after: Scores
) -> dict[str, Any]:
    """Give the row of one task in the manifest: its data, and its dev scores before and after training (0 to 1)."""
    task = data.task
    baseline, label = scoring.majority(task, data.dev)
    steps = sum(name == task.name for name, _ in plan)
    row: dict[str, Any] = {
        "task": task.name,
        "format": task.format,
        "labels": list(task.labels),
        "sample": task.sample,
        "sha256": sha256(task.path) if task.file else "",
        "train": len(data.train),
        "dev": len(data.dev),
        "steps": steps,
        "examples": steps * batch,
        "cut": cut[task.name],
        "metric": task.metric,
        "majority": baseline,
        "majority_label": label,
        "before": before[task.name][task.metric],
        "after": after[task.name][task.metric],
    }
    if task.format == "qa":
        row["exact_match"] = {"before": before[task.name]["exact_match"], "after": after[task.name]["exact_match"]}
    return row


def line(row: Mapping[str, Any]) -> str:
    """Say how one task went.

    >>> row = {"task": "t", "metric": "f1", "dev": 5, "before": 0.1, "after": 0.5, "majority_label": "no baseline"}
    >>> line({**row, "majority": 0.0})
    't: f1 0.100 -> 0.500 on 5 dev examples (no baseline)'
    """
    known = row["majority_label"] != "no baseline"
    base = f"always {row['majority_label']}: {row['majority']:.3f}" if known else "no baseline"
    scores = f"{row['metric']} {row['before']:.3f} -> {row['after']:.3f}"
    return f"{row['task']}: {scores} on {row['dev']} dev examples ({base})"


def trained_spec(spec: EncoderSpec, config: TrainConfig, data: Sequence[TaskData]) -> EncoderSpec:
    """Give the spec of the trained encoder: used as before, with its own name and where it comes from."""
    trained = ", ".join(f"{d.task.name} (sample)" if d.task.sample else d.task.name for d in data)
    return replace(
        spec, name=config.out.resolve().name, provenance=f"{spec.provenance or spec.name}, then trained on {trained}"
    )


def facts(
    config: TrainConfig, table: list[dict[str, Any]], shares: Mapping[str, float], trace: Trace
) -> dict[str, Any]:
    """Give the manifest's account of the training."""
    return {
        "tasks": table,
        "steps": len(trace.losses),
        "seconds": round(trace.seconds, 3),
        "tokens": trace.tokens,
        "tokens_per_second": round(trace.tokens / max(trace.seconds, 1e-9), 1),
        "sampling": config.sampling,
        "probabilities": dict(shares),
        "losses": trace.losses,
        "config": config.to_json(),
    }
