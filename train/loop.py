"""One training run, from the name of an encoder to a checkpoint folder: intermediate tasks together, then a target."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from xt.core.data.examples import counts
from xt.core.encoder.layers import UPPER, restore, stack
from xt.core.encoder.resolve import Resolved, resolve
from xt.core.encoder.spec import EncoderSpec
from xt.core.encoder.torch_engine import load_network, pick_device
from xt.core.errors import XtError, require
from xt.core.files.artifact import MANIFEST, command_line, new_artifact, open_artifact, refuse_existing, sha256
from xt.core.files.replacing import named_paths
from xt.core.heads.inputs import Inputs
from xt.core.heads.network import MultiTaskModel
from xt.train import checkpoint, dev
from xt.train.config import TrainConfig
from xt.train.data import TaskData, TaskRequest, load, task_requests
from xt.train.process_group import ProcessGroup
from xt.train.report import write_report
from xt.train.run import Progress, Report, Run, quiet
from xt.train.sampling import Plan, probabilities, schedule
from xt.train.state import Work, work_folder
from xt.train.trainer import Trace, fit

DevScores = Mapping[str, Mapping[str, float]]
VECTOR_METRICS = ("retrieval", "token_accuracy")
"""Metrics that say something before training: the others' heads start from random weights."""
INTERMEDIATE = "intermediate"
"""The checkpoint of the first phase, in the work folder, while the second one goes on."""


def train(config: TrainConfig, *, report: Report = quiet, progress: Progress | None = None) -> Path:
    """Train an encoder and write the checkpoint folder `config.out`, which is returned.

    Args:
        config: what to do.
        report: takes lines that say what happens.
        progress: called after each step with its number, the steps in all, and {"task", "loss", "tokens_per_second"}.

    Raises XtError for user errors, before any work where that can be known; then nothing is written.
    """
    device = pick_device(config.device)
    _loggers(config)
    group = ProcessGroup.join(device)
    say = report if group.main else quiet
    work = Work(work_folder(config.out))
    resume, force = config.resume, config.force
    if resume and work.run.is_file():
        force = bool(work.settings().get("force"))  # what was to be replaced still is
    if resume and not force and (config.out / MANIFEST).is_file():
        say(f"{config.out} is complete; nothing to go on with")
        if group.main:
            work.remove()
        return config.out
    config = replace(config, resume=False, force=force)
    refuse_existing(config.out, force=force, kind="checkpoint", inputs=read_paths(config))
    if not resume:
        work.refuse_foreign()
    phases = [False] * bool(config.intermediate or config.mlm or config.contrastive or config.image_text)
    phases += [True] * bool(config.target)
    by_phase = [task_requests(config, target=target) for target in phases]
    resolved = resolve(config.encoder)
    say(f"encoder: {resolved.spec.name} ({resolved.spec.provenance})")
    settings = {**config.to_json(), "encoder_hash": resolved.parent["hash"]}
    _begin(work, config, settings, group, say, resume=resume)
    try:
        run = Run(device, group, say, progress, work)
        _phases(config, phases, by_phase, resolved, run)
    except XtError:
        if group.main and not work.progress():
            work.remove()  # nothing that --resume could spare
        raise
    if group.main:
        work.remove()
    return config.out


def read_paths(config: TrainConfig) -> list[Path]:
    """Return the files and folders that a training reads, as far as its settings name them."""
    tasks = (config.intermediate, config.target, config.mlm, config.contrastive, config.image_text)
    return named_paths(config.encoder, config.data_dir, config.data, config.translated, *tasks)


def _loggers(config: TrainConfig) -> None:
    """Raise XtError for a place to log to whose package is not there."""
    for name in config.log_to:
        if find_spec(name) is None:
            raise XtError(f"Logging to {name} needs the package {name}.", f"Install it: pip install {name}")


def _phases(
    config: TrainConfig,
    phases: Sequence[bool],
    by_phase: Sequence[Sequence[TaskRequest]],
    resolved: Resolved,
    run: Run,
) -> None:
    """Train phase after phase, each on what the one before gave; one that was completed before is not repeated."""
    assert run.work is not None
    for number, (target, requests) in enumerate(zip(phases, by_phase, strict=True)):
        last = number + 1 == len(phases)
        out = config.out if last else run.work.folder / INTERMEDIATE
        if last or not (out / MANIFEST).is_file():
            run.report(_title(target, requests))
            here = replace(config, out=out, force=config.force and last)
            _phase(here, resolved, requests, run, target=target)
        if not last:
            run.group.wait()
            resolved = resolve(str(out))


def _title(target: bool, requests: Sequence[TaskRequest]) -> str:
    return f"{'target' if target else 'intermediate'}: {', '.join(r.task.name for r in requests)}"


def _begin(
    work: Work, config: TrainConfig, settings: Mapping[str, Any], group: ProcessGroup, say: Report, *, resume: bool
) -> None:
    """Open the work folder: the one of the interrupted training for --resume, else a new one."""
    there = work.run.is_file()
    if there and not (resume or config.force) and work.progress():
        raise XtError(
            f"{work.folder} holds an interrupted training of {config.out}.",
            "Go on with it (--resume) or begin anew (--force).",
        )
    if there and resume:
        work.check(settings)
        return
    if resume:
        say(f"there is no interrupted training of {config.out}; beginning at the first step")
    group.wait()  # until all have looked
    if group.main:
        work.begin(settings)
    group.wait()


def _phase(config: TrainConfig, resolved: Resolved, requests: Sequence[TaskRequest], run: Run, *, target: bool) -> None:
    """Read the data of one phase and train on them."""
    assert run.work is not None
    inputs = Inputs(resolved.path / "tokenizer.json", resolved.spec, max_length=config.max_length)
    tokenizer = sha256(resolved.path / "tokenizer.json")
    with run.group.main_first():
        data = [load(config, r, inputs, tokenizer, run.report) for r in requests]
    network = load_network(resolved.path)
    here = Work(run.work.folder / ("phase-target" if target else "phase-intermediate"))
    if run.group.main:
        here.folder.mkdir(exist_ok=True)
    run.group.wait()
    phase = replace(run, work=here, logs=log_folder(run.work, target=target))
    train_from_network(config, network, resolved, data, run=phase, target=target)


def log_folder(work: Work, *, target: bool) -> Path:
    """Return the folder that a phase is logged in: `<out>.logs/intermediate` or `<out>.logs/target`."""
    name = work.folder.name.removesuffix(".training")
    return work.folder.with_name(f"{name}.logs") / ("target" if target else "intermediate")


def train_from_network(
    config: TrainConfig,
    network: nn.Module,
    resolved: Resolved,
    data: Sequence[TaskData],
    *,
    run: Run | None = None,
    target: bool = False,
) -> Path:
    """Train with a network and data that are at hand; `network` is trained in place.

    Args:
        config: what to do; the names of encoder and tasks are only noted.
        network: a transformers encoder.
        resolved: its folder (the tokenizer is copied from there), its spec and how to name it as parent.
        data: the tasks with their data.
        run: processes, device and reports; None: this process, on the device of `config`.
        target: whether this is the target's phase, with its own number of steps.
    """
    run = run or Run(pick_device(config.device))
    group, device, report = run.group, run.device, run.report
    if config.batch < group.size:
        raise XtError(f"A batch of {config.batch} is less than one example for each of {group.size} processes.")
    if config.fsdp and (device == "cpu" or group.state is None or str(group.state.distributed_type).endswith("NO")):
        raise XtError("FSDP needs GPUs, and processes that torchrun started.", "Leave --fsdp out, or use torchrun.")
    inputs = Inputs(resolved.path / "tokenizer.json", resolved.spec, max_length=config.max_length)
    if any(d.task.format == "mlm" for d in data) and inputs.mask_id < 0:
        raise XtError(f"The tokenizer of {resolved.path} has no mask token.", "Masked language modelling needs one.")
    transformers.set_seed(config.seed)
    layer = _whole(network, resolved, config)
    model = build(config, network, resolved, data, layer=layer).to(device)
    shares, plan = make_plan(config, data, target=target)
    for d in data:
        report(account(d, inputs.max_length))
    looked = [d for d in data if d.task.metric in VECTOR_METRICS]
    if config.fsdp and run.work is not None and config.save_every:
        report("no states are kept under FSDP: --resume would begin with this phase's first step")
    before = dev.score_all(model, inputs, looked) if group.main else {}
    rows = {d.task.name: d for d in data}
    where = f"{device}, {group.size} processes" if group.size > 1 else device
    report(f"training on {where}: {len(plan)} steps of {config.batch} examples, {len(data)} tasks")
    model, trace = fit(model, config, plan, data=rows, inputs=inputs, run=run)
    if group.main:
        merged(model)
        scores = dev.score_all(model, inputs, data)
        table = [row(d, plan, config.batch, trace, before, scores) for d in data]
        for entry in table:
            report(line(entry))
        facts = account_of(config, resolved, table, shares, plan, trace, device, group.size)
        _write(config, model, resolved, data, layer, facts, report)
    group.wait()
    return config.out


def _whole(network: nn.Module, resolved: Resolved, config: TrainConfig) -> int | None:
    """Put the upper layers of a cut checkpoint back; give the layer that retrieval is to read, None for the last."""
    layer = config.pool_layer
    if (upper := resolved.path / UPPER).is_file():
        layer = layer or len(stack(network))
        restore(network, upper)
    if layer is not None and layer > len(stack(network)):
        raise XtError(f"pool_layer is {layer}; the encoder has {len(stack(network))} layers.", "Choose one of those.")
    return None if layer is None or layer == len(stack(network)) else layer


def build(
    config: TrainConfig, network: nn.Module, resolved: Resolved, data: Sequence[TaskData], *, layer: int | None = None
) -> MultiTaskModel:
    """Put a head for each task on the encoder, and freeze, adapt and set what the settings say."""
    if config.dropout is not None:
        _set_dropout(network, config.dropout)
    model = MultiTaskModel(
        network, resolved.spec, [d.task for d in data], options={d.task.name: d.options for d in data}, layer=layer
    )
    for d in data:
        head: Any = model.heads[d.task.name]
        if d.task.format == "regression":
            head.fit_scale(d.prepared.facts["mean"], d.prepared.facts["deviation"])
        elif d.task.format == "mlm":
            head.load_published(resolved.path)
        elif d.task.format == "contrastive":
            head.temperature = config.contrastive_temperature or resolved.spec.temperature or 0.05
    if config.dropout is not None:
        for module in model.heads.modules():
            if isinstance(module, nn.Dropout):
                module.p = config.dropout
    if config.freeze_embeddings:
        model.freeze_embeddings()
    if config.lora_rank:
        require("peft", extra="train", purpose="LoRA")
        from peft import LoraConfig, get_peft_model

        settings = LoraConfig(
            r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules="all-linear", lora_dropout=0.0
        )
        adapted: Any = get_peft_model(network, settings)
        model.encoder = adapted
    return model


def _set_dropout(network: nn.Module, share: float) -> None:
    """Set every dropout of a network, those inside fused attention too."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        for name in ("dropout_prob", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, share)


def merged(model: MultiTaskModel) -> None:
    """Add LoRA's matrices to the weights they belong to."""
    encoder: Any = model.encoder
    if hasattr(encoder, "merge_and_unload"):
        model.encoder = encoder.merge_and_unload()


def account(data: TaskData, max_length: int) -> str:
    """Return what a task is trained on."""
    facts, log = data.prepared.facts, data.log
    said = f"{data.task.name}: {facts['examples']} training and {len(data.dev)} dev examples"
    if facts["units"] != facts["examples"]:
        said += f", {facts['units']} inputs"
    if facts["cut"]:
        said += f"; {facts['cut']} have more than {max_length} tokens, their ends are cut"
    if set(log.languages) - {"eng"}:
        said += f"; by language: {counts(log.languages)}"
    said += "".join(f"; {note}" for note in log.notes())
    return said + (f"; {data.note}" if data.note else "")


def make_plan(config: TrainConfig, data: Sequence[TaskData], *, target: bool = False) -> tuple[dict[str, float], Plan]:
    """Return the share of each task, and the batches of all steps."""
    sizes = {d.task.name: len(d.prepared) for d in data}
    mixing: dict[str, Any] = {
        "sampling": config.sampling,
        "cap": config.cap,
        "temperature": config.sampling_temperature,
    }
    counted = sum(min(n, config.cap) if config.sampling == "capped" else n for n in sizes.values())
    steps = config.planned_steps(counted, target=target)
    lengths = {d.task.name: d.prepared.lengths for d in data} if config.group_by_length else None
    plan = schedule(sizes, config.batch, steps, seed=config.seed, lengths=lengths, **mixing)
    return probabilities(sizes, **mixing), plan


def row(data: TaskData, plan: Plan, batch: int, trace: Trace, before: DevScores, after: DevScores) -> dict[str, Any]:
    """Return the row of one task in the manifest: its data, and its dev scores before and after training."""
    task, facts = data.task, data.prepared.facts
    base, label = dev.baseline(data)
    steps = sum(entry["task"] == task.name for entry in trace.losses)
    old = before.get(task.name, {})
    new = after[task.name]
    return {
        "task": task.name,
        "title": task.title,
        "format": task.format,
        "labels": list(task.labels),
        "sample": task.sample,
        "licence": task.licence,
        "origin": data.origin,
        "note": data.note,
        "sha256": dict(data.log.files),
        "train": facts["examples"],
        "dev": len(data.dev),
        "unusable": data.log.unusable,
        "first_unusable": data.log.first,
        "warnings": list(data.warnings),
        "languages": data.log.languages,
        "languages_left_out": data.log.left_out,
        "languages_unknown": data.log.unknown_languages,
        "label_counts": data.log.labels,
        "dev_languages": data.dev_log.languages,
        "dev_label_counts": data.dev_log.labels,
        "cut": facts["cut"],
        "units": facts["units"],
        "steps": steps,
        "planned_steps": plan.counts()[task.name],
        "examples": steps * batch,
        "tokens": trace.task_tokens.get(task.name, 0),
        "metric": task.metric,
        "majority": base,
        "majority_label": label,
        "before": old.get(task.metric),
        "after": new[task.metric],
        "others": {k: {"before": old.get(k), "after": v} for k, v in new.items() if k != task.metric},
    }


def line(entry: Mapping[str, Any]) -> str:
    """Return how one task went.

    >>> facts = {"task": "t", "metric": "f1", "dev": 5, "before": None, "after": 0.5, "majority_label": "no baseline"}
    >>> line({**facts, "majority": 0.0})
    't: f1 0.500 on 5 dev examples (no baseline)'
    """
    known = entry["majority_label"] != "no baseline"
    base = f"{entry['majority_label']}: {entry['majority']:.3f}" if known else "no baseline"
    if known and entry["majority_label"] != "chance":
        base = f"always {base}"
    old = "" if entry["before"] is None else f"{entry['before']:.3f} -> "
    return f"{entry['task']}: {entry['metric']} {old}{entry['after']:.3f} on {entry['dev']} dev examples ({base})"


def account_of(
    config: TrainConfig,
    resolved: Resolved,
    table: list[dict[str, Any]],
    shares: Mapping[str, float],
    plan: Plan,
    trace: Trace,
    device: str,
    processes: int,
) -> dict[str, Any]:
    """Return the manifest's account of the training."""
    seen = asdict(trace)
    return {
        "encoder": resolved.spec.name,
        "provenance": resolved.spec.provenance,
        "command": command_line(),
        "tasks": table,
        "steps": len(trace.losses),
        "planned_steps": len(plan),
        "stopped": trace.stopped,
        "chosen_step": trace.chosen_step,
        "resumed": trace.resumed,
        "device": device,
        "processes": processes,
        "threads": torch.get_num_threads() if device == "cpu" else 0,
        "precision": config.precision,
        "seconds": round(trace.seconds, 3),
        "tokens": trace.tokens,
        "padded_tokens": trace.padded,
        "tokens_per_second": round(trace.tokens / max(trace.seconds, 1e-9), 1),
        "sampling": config.sampling,
        "probabilities": dict(shares),
        **{name: seen[name] for name in ("losses", "dev", "learning_rates")},
        "config": config.to_json(),
    }


def trained_spec(spec: EncoderSpec, config: TrainConfig, data: Sequence[TaskData]) -> EncoderSpec:
    """Return the spec of the trained encoder: used as before, with its own name and where it comes from."""
    trained = ", ".join(f"{d.task.name} (sample)" if d.task.sample else d.task.name for d in data)
    return replace(
        spec, name=config.out.resolve().name, provenance=f"{spec.provenance or spec.name}, then trained on {trained}"
    )


def _write(
    config: TrainConfig,
    model: MultiTaskModel,
    resolved: Resolved,
    data: Sequence[TaskData],
    layer: int | None,
    facts: dict[str, Any],
    report: Report,
) -> None:
    """Write the checkpoint folder."""
    spec = trained_spec(resolved.spec, config, data)
    report(f"writing {config.out}")
    with new_artifact(config.out, kind="checkpoint", force=config.force) as draft:
        checkpoint.write(draft.path, model, spec, resolved.path, [d.trained for d in data], layer=layer)
        write_report(draft.path, facts)
        draft.facts = {"encoder": spec.to_json(), "training": facts, "heads": [d.task.name for d in data]}
        if layer is not None:
            draft.facts["pool_layer"] = layer
        draft.parents = [resolved.parent]
        draft.seed = config.seed
        if resolved.path == work_folder(config.out) / INTERMEDIATE:  # it will be gone: its facts and parents are kept
            before = open_artifact(resolved.path)
            draft.facts["intermediate"] = before.facts["training"]
            draft.parents = before.manifest["parents"]
            shutil.copyfile(resolved.path / "training.html", draft.path / "training-intermediate.html")
