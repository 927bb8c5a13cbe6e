"""Tokens per second of xt's training against transformers' own Trainer, on one classification task, interleaved.

Both train the same encoder with the same head, batch size, optimizer, precision and data (positions of the examples
too, but for the run with batches of like length). The runs take turns, so that a machine that slows down slows all.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import Dataset

from xt.core.encoder import resolve
from xt.core.encoder.torch_engine import load_network, pick_device
from xt.core.errors import XtError
from xt.core.files.artifact import new_artifact, refuse_existing, sha256, write_json
from xt.core.files.replacing import named_paths
from xt.core.heads.inputs import Inputs
from xt.core.machine.facts import machine_facts
from xt.core.reporter import Reporter
from xt.train.config import TrainConfig
from xt.train.data import TaskData, load, task_requests
from xt.train.loop import build, make_plan
from xt.train.run import Run
from xt.train.trainer import fit

ENGINES = ("trainer", "xt", "xt, like lengths")


@dataclass(frozen=True)
class Settings:
    """What is measured, and how long."""

    out: Path
    encoder: str = "multilingual-e5-small"
    data_dir: Path | None = None
    tasks: tuple[str, ...] = ("rte", "sample-nli")
    """Classification tasks, each measured by itself: the first that there are data for counts when none is named."""
    batch: int = 16
    steps: int = 20
    """Steps of one run."""
    rounds: int = 3
    precision: str = "fp32"
    max_length: int = 256
    device: str = "auto"
    seed: int = 0
    force: bool = False


class Plain(nn.Module):
    """The encoder with a classifier as transformers' Trainer takes it: labels in, mean loss out."""

    def __init__(self, model: Any, task: str) -> None:
        super().__init__()
        self.model = model
        self.task = task

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Mean loss and logits of a batch."""
        found = self.model(task=self.task, input_ids=input_ids, attention_mask=attention_mask, labels=labels)
        return {"loss": found["loss"] / len(labels), "logits": found["logits"]}


class Rows(Dataset[dict[str, Any]]):
    """The units of a task, one at a time, as Trainer's own collator takes them."""

    def __init__(self, data: TaskData, positions: list[int]) -> None:
        self.data = data
        self.positions = positions

    def __len__(self) -> int:
        """Count them."""
        return len(self.positions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the token ids and label."""
        unit = self.data.prepared.unit(self.positions[index])
        return {"input_ids": unit.rows[0].tolist(), "labels": int(unit.targets[0])}


class InOrder(transformers.Trainer):
    """transformers' Trainer with its own collator and loop, fed in the order given."""

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> torch.utils.data.Sampler[int]:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def time_trainer(config: TrainConfig, data: TaskData, model: nn.Module, folder: Path, device: str) -> tuple[int, float]:
    """Train with transformers' Trainer: tokens, padding left out, and seconds."""
    _, plan = make_plan(replace(config, group_by_length=False), [data])
    positions = [int(i) for step in range(len(plan)) for i in plan[step][1]]
    names = {"pad_token": "<pad>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **names)
    with TemporaryDirectory(prefix="xt-speed-") as scratch:
        args = transformers.TrainingArguments(
            output_dir=scratch,
            max_steps=len(plan),
            per_device_train_batch_size=config.batch,
            learning_rate=config.learning_rate,
            optim="adamw_torch_fused",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=device == "cpu",
            bf16=config.precision == "bf16",
            dataloader_pin_memory=device != "cpu",
        )
        collator = transformers.DataCollatorWithPadding(tokenizer)
        trainer = InOrder(
            model=Plain(model, data.task.name), args=args, train_dataset=Rows(data, positions), data_collator=collator
        )
        trainer.remove_callback(transformers.PrinterCallback)
        started = perf_counter()
        trainer.train()
        seconds = perf_counter() - started
    return sum(data.prepared.unit(i).tokens for i in positions), seconds


def time_xt(config: TrainConfig, data: TaskData, model: Any, inputs: Inputs, device: str) -> tuple[int, float]:
    """Train with xt's engine: tokens, padding left out, and seconds."""
    _, plan = make_plan(config, [data])
    started = perf_counter()
    _, trace = fit(model, config, plan, data={data.task.name: data}, inputs=inputs, run=Run(device))
    return trace.tokens, perf_counter() - started


def execute(study: Settings, *, reporter: Reporter = Reporter()) -> dict[str, Any]:
    """Measure, and write `speed.json`."""
    read = named_paths(study.encoder, study.data_dir)
    refuse_existing(study.out, force=study.force, kind="study", inputs=read)
    device = pick_device(study.device)
    resolved = resolve.resolve(study.encoder)
    inputs = Inputs(resolved.path / "tokenizer.json", resolved.spec, max_length=study.max_length)
    tokenizer = sha256(resolved.path / "tokenizer.json")
    found: dict[str, Any] = {}
    for name in study.tasks:
        config = TrainConfig(
            encoder=study.encoder,
            intermediate=(name,),
            out=study.out,
            data_dir=study.data_dir,
            steps=study.steps,
            batch=study.batch,
            max_length=study.max_length,
            precision=study.precision,
            seed=study.seed,
            save_every=0,
        )
        try:
            data = load(config, task_requests(config, target=False)[0], inputs, tokenizer, reporter.say)
        except XtError as error:
            reporter.say(f"{name}: left out, {error.message.splitlines()[0]}")
            continue
        found[name] = measure(study, config, data, resolved, inputs, device, reporter)
        for engine, row in found[name]["engines"].items():
            reporter.say(
                f"{name}, {engine}: {row['tokens_per_second']:.0f} tokens/s, {row['over_trainer']:.2f} times Trainer"
            )
    if not found:
        raise XtError("None of the tasks has data.", "Name a folder of data sets by --data-dir (or XT_DATA).")
    result = {
        "tasks": found,
        "machine": machine_facts(),
        "precision": study.precision,
        "batch": study.batch,
        "device": device,
    }
    with new_artifact(study.out, kind="study", force=study.force) as draft:
        write_json(draft.path / "speed.json", result)
        draft.facts = {"study": "training-speed"}
    return result


def measure(
    study: Settings,
    config: TrainConfig,
    data: TaskData,
    resolved: resolve.Resolved,
    inputs: Inputs,
    device: str,
    reporter: Reporter,
) -> dict[str, Any]:
    """Time the engines on one task, in turns; the first turn, which warms up, does not count."""
    runs: dict[str, list[tuple[int, float]]] = {engine: [] for engine in ENGINES}
    count = reporter.counter("runs")
    plans = {
        "trainer": replace(config, group_by_length=False),
        "xt": replace(config, group_by_length=False),
        "xt, like lengths": replace(config, group_by_length=True),
    }
    total = (study.rounds + 1) * len(ENGINES)
    for turn in range(study.rounds + 1):
        for place, engine in enumerate(ENGINES):
            transformers.set_seed(study.seed)
            settings = plans[engine] if turn else replace(plans[engine], steps=3)
            model = build(settings, load_network(resolved.path), resolved, [data]).to(device)
            if engine == "trainer":
                timed = time_trainer(settings, data, model, resolved.path, device)
            else:
                timed = time_xt(settings, data, model, inputs, device)
            if turn:
                runs[engine].append(timed)
            count(turn * len(ENGINES) + place + 1, total, f"{data.task.name} {engine}")
    speeds = {engine: [tokens / seconds for tokens, seconds in timed] for engine, timed in runs.items()}
    base = speeds["trainer"]
    lengths = data.prepared.lengths
    return {
        "train": len(data.prepared),
        "tokens_mean": float(np.mean(lengths)),
        "tokens_p95": float(np.percentile(lengths, 95)),
        "steps": config.steps,
        "rounds": study.rounds,
        "engines": {
            engine: {
                "tokens_per_second": statistics.median(values),
                "runs": [round(v, 1) for v in values],
                "over_trainer": statistics.median(v / b for v, b in zip(values, base, strict=True)),
            }
            for engine, values in speeds.items()
        },
    }
