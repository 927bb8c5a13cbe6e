"""Hugging Face's Trainer, fed with planned batches of one task each."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from xt.core.errors import XtError
from xt.core.examples import Example
from xt.core.tasks import Task
from xt.train.batches import Batch, Batcher
from xt.train.config import TrainConfig
from xt.train.heads import MultiTaskModel
from xt.train.sampling import Plan

Progress = Callable[[int, int, dict[str, Any]], None]
"""Called after each step with its number (from 1), the steps in all, and {"task", "loss"}."""


@dataclass(frozen=True)
class TaskData:
    """A task with the examples to train it on, and those to score it on."""

    task: Task
    train: Sequence[Example]
    dev: Sequence[Example]


@dataclass
class Trace:
    """What happened during training."""

    losses: list[dict[str, Any]] = field(default_factory=list)
    """Of each step: `step` (from 1), `task`, `loss`."""
    tokens: int = 0
    """Tokens trained on, special tokens included, padding not."""
    seconds: float = 0.0


class PlannedBatches(Dataset[Batch]):
    """The batches of a plan, each tokenised when it is its turn."""

    def __init__(self, plan: Plan, data: Mapping[str, TaskData], batcher: Batcher) -> None:
        self.plan = plan
        self.data = data
        self.batcher = batcher

    def __len__(self) -> int:
        """Count the steps."""
        return len(self.plan)

    def __getitem__(self, step: int) -> Batch:
        """Make the batch of one step."""
        name, indices = self.plan[step]
        examples = self.data[name].train
        return self.batcher(self.data[name].task, [examples[i] for i in indices])


class MultiTaskTrainer(Trainer):
    """Trains on the planned batches in their order, notes each loss, and stops at one that is no number."""

    def __init__(
        self, model: MultiTaskModel, args: TrainingArguments, batches: PlannedBatches, heads_rate: float
    ) -> None:
        super().__init__(model=model, args=args, train_dataset=batches)
        self.remove_callback(PrinterCallback)  # it writes to stdout
        self.batches = batches
        self.heads_rate = heads_rate
        self.trace = Trace()

    def get_train_dataloader(self) -> DataLoader[Batch]:
        """Give the plan's batches as they are: no shuffling, no collating."""
        return DataLoader(self.batches, batch_size=None, shuffle=False)

    def create_optimizer(self) -> torch.optim.Optimizer:
        """AdamW with its own learning rate for the heads; biases and norms are not decayed."""
        model: Any = self.model
        kind, kwargs = self.get_optimizer_cls_and_kwargs(self.args, model)
        decayed = set(self.get_decay_parameter_names(model))
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                groups.setdefault((name.startswith("heads."), name in decayed), []).append(parameter)
        self.optimizer = kind(
            [
                {
                    "params": parameters,
                    "lr": self.heads_rate if head else self.args.learning_rate,
                    "weight_decay": self.args.weight_decay if decay else 0.0,
                }
                for (head, decay), parameters in groups.items()
            ],
            **kwargs,
        )
        return self.optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """Run the head of the batch's task; the loss is the mean over the batch's examples."""
        outputs = model(**inputs)
        loss = outputs["loss"]
        step, value = self.state.global_step + 1, float(loss.detach())
        if not math.isfinite(value):
            raise diverged(f"The loss of step {step} ({inputs['task']}) is {value}.")
        self.trace.losses.append({"step": step, "task": inputs["task"], "loss": value})
        self.trace.tokens += int(inputs["attention_mask"].sum())
        return (loss, outputs) if return_outputs else loss


class _Reporter(TrainerCallback):
    """Hands each step to the caller."""

    def __init__(self, trace: Trace, progress: Progress) -> None:
        self.trace = trace
        self.progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report the step that ended."""
        last = self.trace.losses[-1]
        self.progress(state.global_step, state.max_steps, {"task": last["task"], "loss": last["loss"]})


def diverged(what: str) -> XtError:
    """Give the error for a training that left the numbers."""
    return XtError(what, "Lower the learning rates (--lr, --head-lr); nothing was written.")


def arguments(config: TrainConfig, steps: int, device: str, folder: str) -> TrainingArguments:
    """Fill Trainer's settings from ours: linear decay after warm-up, clipping at 1.0, no files, nothing printed."""
    args = TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=config.batch,
        learning_rate=config.learning_rate,
        warmup_steps=round(config.warmup * steps),
        lr_scheduler_type="linear",
        weight_decay=config.weight_decay,
        max_grad_norm=1.0,
        optim="adamw_torch",
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        seed=config.seed,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device != "cpu",
        remove_unused_columns=False,
    )
    args._n_gpu = min(1, args.n_gpu)  # several GPUs would be wrapped in DataParallel, which cuts our batches wrongly
    return args


def fit(
    model: MultiTaskModel,
    config: TrainConfig,
    plan: Plan,
    *,
    data: Mapping[str, TaskData],
    batcher: Batcher,
    device: str,
    progress: Progress | None = None,
) -> Trace:
    """Train `model` in place on all steps of `plan`."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise XtError(
            f"Started as one of WORLD_SIZE={os.environ['WORLD_SIZE']} processes; xt trains in one.",
            "Start it without torchrun or accelerate launch.",
        )
    with TemporaryDirectory(prefix="xt-train-") as folder:  # Trainer insists on one; nothing is written to it
        args = arguments(config, len(plan), device, folder)
        trainer = MultiTaskTrainer(model, args, PlannedBatches(plan, data, batcher), config.head_learning_rate)
        if progress is not None:
            trainer.add_callback(_Reporter(trainer.trace, progress))
        started = perf_counter()
        trainer.train()
        trainer.trace.seconds = perf_counter() - started
    broken = [name for name, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())]
    if broken:
        raise diverged(f"After training, {len(broken)} weights are not finite (the first: {broken[0]}).")
    return trainer.trace
