"""Hugging Face's Trainer, fed with planned batches of one task each.

Ours are the batches, the loss of a step (summed over micro-batches and processes, gradient caching for the losses that
compare a whole batch), the state for --resume, and the dev scores; optimizer, schedule, clipping, mixed precision,
data parallelism and logging are Trainer's and accelerate's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from xt.core.errors import XtError
from xt.core.heads.inputs import Inputs
from xt.core.heads.network import VECTOR_FORMATS, MultiTaskModel, has_segments
from xt.train import dev
from xt.train.batches import Batch, StepBatch, StepBatches
from xt.train.config import TrainConfig
from xt.train.data import TaskData
from xt.train.process_group import ProcessGroup
from xt.train.run import Progress, Run
from xt.train.sampling import Plan
from xt.train.state import Work, pack, trained, unpack, unpack_weights

"""Called after each step with its number (from 1), the steps in all, and {"task", "loss", "tokens_per_second"}."""
MICRO_TOKENS = {"cpu": 1024, "cuda": 16_384}
"""Tokens of a pass when the settings do not say."""
SCALARS = ("log_scale", "offset")
"""The output of a vector head that is one number, not a row for each text."""


@dataclass
class Trace:
    """What happened during training, in all of its runs."""

    losses: list[dict[str, Any]] = field(default_factory=list)
    """Of each step: `step` (from 1), `task`, `loss`."""
    dev: list[dict[str, Any]] = field(default_factory=list)
    """Of each scoring: `step`, `seconds`, `scores` by task, their `mean`."""
    learning_rates: list[list[float]] = field(default_factory=list)
    """[step, learning rate of the encoder]."""
    tokens: int = 0
    """Tokens trained on, special tokens included, padding not."""
    padded: int = 0
    """The same with padding, of the main process."""
    task_tokens: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    """Time of training, without scoring on dev data."""
    stopped: str = ""
    """Why training ended before its last step; empty when it did not."""
    chosen_step: int = 0
    """The step whose weights were kept."""
    best: float | None = None
    """The highest mean of the dev scores so far."""
    waited: int = 0
    """Scorings since the best."""
    resumed: list[int] = field(default_factory=list)
    """The steps from which an interrupted training went on."""


def step_seed(*numbers: int) -> int:
    """Mix numbers into a seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class MultiTaskTrainer(Trainer):
    """Trains on the planned batches in their order, notes each loss, and stops at one that is no number."""

    def __init__(
        self,
        model: MultiTaskModel,
        args: TrainingArguments,
        batches: StepBatches,
        config: TrainConfig,
        *,
        group: ProcessGroup | None = None,
        trace: Trace | None = None,
    ) -> None:
        super().__init__(model=model, args=args, train_dataset=batches)
        self.remove_callback(PrinterCallback)  # it writes to stdout
        self.batches = batches
        self.config = config
        self.group = group or ProcessGroup()
        self.trace = trace or Trace()

    def get_train_dataloader(self) -> DataLoader[StepBatch]:
        """Return the plan's batches as they are: no shuffling, no collating, each process its own part."""
        return DataLoader(self.batches, batch_size=None, shuffle=False)

    def create_optimizer(self) -> torch.optim.Optimizer:
        """AdamW with its own learning rate for the heads; biases, norms and single numbers are not decayed."""
        model: Any = self.model
        kind, kwargs = self.get_optimizer_cls_and_kwargs(self.args, model)
        decayed = set(self.get_decay_parameter_names(model))
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                decay = name in decayed and not name.endswith(SCALARS)
                groups.setdefault(("heads." in name, decay), []).append(parameter)
        self.optimizer = kind(
            [
                {
                    "params": parameters,
                    "lr": self.config.head_learning_rate if head else self.args.learning_rate,
                    "weight_decay": self.args.weight_decay if decay else 0.0,
                }
                for (head, decay), parameters in sorted(groups.items(), key=lambda item: item[0])
            ],
            **kwargs,
        )
        return self.optimizer

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[StepBatch], None]:
        """Take the next step's batch; it counts its targets itself."""
        return [next(epoch_iterator) for _ in range(num_batches)], None

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Go forward and back through one step's batch; returns its loss, the mean over the whole batch."""
        batch: StepBatch = inputs
        model.train()
        run = self._compare if batch.format in VECTOR_FORMATS else self._sum
        local = run(model, batch)
        value = self.group.sum(local, self.args.device)
        step = batch.step + 1
        if not math.isfinite(value):
            raise diverged(f"The loss of step {step} ({batch.task}) is {value}.")
        self.trace.losses.append({"step": step, "task": batch.task, "loss": value})
        self.trace.tokens += batch.tokens
        self.trace.padded += batch.padded
        self.trace.task_tokens[batch.task] = self.trace.task_tokens.get(batch.task, 0) + batch.tokens
        return torch.tensor(value, device=self.args.device)

    def _to_device(self, batch: Batch) -> Batch:
        return {name: tensor.to(self.args.device, non_blocking=True) for name, tensor in batch.items()}

    def _sync(self, model: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Exchange gradients with the other processes in the last micro-batch alone."""
        quiet: AbstractContextManager[Any] = self.accelerator.no_sync(model)
        return nullcontext() if last else quiet

    def _seed(self, batch: StepBatch, micro: int) -> None:
        """Let dropout depend on nothing but the place in the training: a resumed one draws the same."""
        torch.manual_seed(step_seed(self.config.seed, batch.step, self.group.rank, micro))

    def _sum(self, model: nn.Module, batch: StepBatch) -> float:
        """Sum the gradients of micro-batches.

        Their losses are sums over targets: divided by the count of the whole batch, and by what data parallelism
        divides by, they give the mean whatever the cut.
        """
        loss = 0.0
        for i, micro in enumerate(batch.micro):
            self._seed(batch, i)
            with self._sync(model, i + 1 == len(batch.micro)):
                with self.compute_loss_context_manager():
                    part = model(task=batch.task, **self._to_device(micro))["loss"] / batch.total
                self.accelerator.backward(part * self.group.size)
            loss += float(part.detach())
        return loss

    def _compare(self, model: nn.Module, batch: StepBatch) -> float:
        """Compare the vectors of the whole batch, with the memory of a micro-batch.

        Gradient caching (Gao et al. 2021, arXiv 2101.06983): the vectors are computed without a graph, the loss
        gives their gradients, and each micro-batch is computed again to carry these back. Over several processes
        every one sees all vectors; its own get the gradient of the whole loss.
        """
        network: Any = self.model
        head = network.heads[batch.task]
        single = len(batch.micro) == 1
        outputs = []
        for i, micro in enumerate(batch.micro):
            self._seed(batch, i)
            with nullcontext() if single else torch.no_grad(), self.compute_loss_context_manager():
                outputs.append(model(task=batch.task, **self._to_device(micro)))
        names = [name for name in outputs[0] if name not in SCALARS]
        leaves = {n: torch.cat([o[n] for o in outputs]).detach().float().requires_grad_() for n in names}
        scalars = {n: outputs[0][n].detach().clone().requires_grad_() for n in outputs[0] if n in SCALARS}
        marked = [n for n in ("parts", "owners") if n in batch.micro[0]]
        marks = {n: torch.cat([m[n] for m in batch.micro]).to(self.args.device) for n in marked}
        rows = {n: self._everyone(mine) for n, mine in leaves.items()}
        rows |= {n: torch.cat(self.group.gather(mine)) for n, mine in marks.items()}
        loss = head.loss(**rows, **scalars)
        loss.backward()
        starts = np.cumsum([0, *[len(o[names[0]]) for o in outputs]])
        for i, micro in enumerate(batch.micro):
            last = i + 1 == len(batch.micro)
            self._seed(batch, i)
            with self._sync(model, last):
                with self.compute_loss_context_manager():
                    output = outputs[0] if single else model(task=batch.task, **self._to_device(micro))
                    pulls = [
                        (output[n].float() * leaves[n].grad[starts[i] : starts[i + 1]]).sum() * self.group.size
                        for n in names
                    ]
                    if last:
                        pulls += [output[n] * v.grad for n, v in scalars.items() if v.grad is not None]
                    pull = torch.stack(pulls).sum()
                self.accelerator.backward(pull)
        return float(loss.detach()) / self.group.size

    def weights(self) -> Mapping[str, Tensor]:
        """Return the trained weights by name; sharded ones are gathered, which every process must ask for."""
        if not self.config.fsdp:
            return trained(self.model)
        return dict(self.accelerator.get_state_dict(self.model_wrapped))

    def _everyone(self, mine: Tensor) -> Tensor:
        """Return the rows of all processes, those of this one with their graph."""
        pieces = self.group.gather(mine.detach())
        pieces[self.group.rank] = mine
        return torch.cat(pieces)


class Keeper(TrainerCallback):
    """Restores a state at the beginning; after a step reports it, scores on dev data, saves, and says when to stop."""

    def __init__(
        self,
        trainer: MultiTaskTrainer,
        *,
        inputs: Inputs,
        data: Sequence[TaskData],
        work: Work | None,
        best: Work,
        progress: Progress | None,
        restored: tuple[dict[str, Tensor], dict[str, Any]] | None,
    ) -> None:
        self.trainer = trainer
        self.inputs = inputs
        self.data = data
        self.work = work
        self.best = best
        self.progress = progress
        self.restored = restored
        self.started = perf_counter()

    @property
    def trace(self) -> Trace:
        """What happened so far."""
        return self.trainer.trace

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put a saved state back: step, schedule, AdamW's moments (the weights are the model's already)."""
        if self.restored is not None:
            tensors, facts = self.restored
            self.restored = None
            state.global_step = facts["step"]
            optimizer: Any = self.trainer.optimizer
            unpack(tensors, self.trainer.model, getattr(optimizer, "optimizer", optimizer))
            schedule: Any = self.trainer.lr_scheduler
            schedule.load_state_dict(facts["schedule"])
            for group, rate in zip(optimizer.param_groups, facts["rates"], strict=True):
                group["lr"] = rate
            scaler = self.trainer.accelerator.scaler
            if scaler is not None and facts.get("scaler"):
                scaler.load_state_dict(facts["scaler"])
        self.started = perf_counter()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the learning rate the step is made with."""
        if state.global_step % max(1, state.max_steps // 200) == 0:
            rate = float(self.trainer.optimizer.param_groups[-1]["lr"])
            for group in self.trainer.optimizer.param_groups:
                if group["params"] and any(p is group["params"][0] for p in self._encoder()):
                    rate = float(group["lr"])
            self.trace.learning_rates.append([state.global_step + 1, rate])

    def _encoder(self) -> Iterator[nn.Parameter]:
        model: Any = self.trainer.model
        return iter(model.encoder.parameters())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Do what is due after this step."""
        step, config = state.global_step, self.trainer.config
        now = perf_counter()
        self.trace.seconds += now - self.started
        self.started = now
        last = self.trace.losses[-1]
        if self.progress is not None and self.trainer.group.main:
            speed = self.trace.tokens / max(self.trace.seconds, 1e-9)
            self.progress(step, state.max_steps, {**last, "tokens_per_second": speed})
        self.trainer.log({f"loss/{last['task']}": last["loss"]})
        if config.evaluate_every and (step % config.evaluate_every == 0 or step == state.max_steps):
            self._score(step, control)
        due = config.save_every and step % config.save_every == 0 and step < state.max_steps
        if due and self.work and not config.fsdp and not self.trace.stopped:
            self._save(step)
        self.started = perf_counter()

    def _score(self, step: int, control: Any) -> None:
        trainer, trace = self.trainer, self.trace
        every = trainer.group.main or trainer.config.fsdp  # sharded weights come together for all or for none
        scores = dev.score_all(trainer.model, self.inputs, self.data) if every else None
        scores = trainer.group.from_main(scores)
        assert scores is not None
        mean = dev.mean_metric(self.data, scores)
        metrics = {d.task.name: scores[d.task.name][d.task.metric] for d in self.data}
        trace.dev.append({"step": step, "seconds": round(trace.seconds, 3), "scores": metrics, "mean": mean})
        trainer.log({**{f"dev/{name}": value for name, value in metrics.items()}, "dev/mean": mean})
        if trace.best is None or mean > trace.best:
            trace.best, trace.chosen_step, trace.waited = mean, step, 0
            weights = trainer.weights()
            if trainer.group.main:
                self.best.save_best(weights)
        else:
            trace.waited += 1
            if trainer.config.patience and trace.waited >= trainer.config.patience:
                trace.stopped = f"early stopping: no better dev mean in {trace.waited} scorings"
                control.should_training_stop = True

    def _save(self, step: int) -> None:
        trainer = self.trainer
        if trainer.group.main:
            assert self.work is not None
            optimizer: Any = trainer.optimizer
            schedule: Any = trainer.lr_scheduler
            scaler = trainer.accelerator.scaler
            facts = {
                "schedule": schedule.state_dict() | {"lr_lambdas": [None] * len(schedule.lr_lambdas)},
                "rates": [float(group["lr"]) for group in optimizer.param_groups],
                "scaler": scaler.state_dict() if scaler is not None else None,
                "trace": asdict(self.trace),
            }
            self.work.save(step, pack(trainer.model, getattr(optimizer, "optimizer", optimizer)), facts)
        trainer.group.wait()


def diverged(what: str) -> XtError:
    """Return the error for a training that left the numbers."""
    return XtError(what, "Lower the learning rates (--lr, --head-lr); no checkpoint was written.")


def arguments(config: TrainConfig, steps: int, device: str, folder: str, logs: Path | None = None) -> TrainingArguments:
    """Fill Trainer's settings from ours: linear decay after warm-up, clipping at 1.0, no files, nothing printed."""
    args = TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=1,
        learning_rate=config.learning_rate,
        warmup_steps=round(config.warmup * steps),
        lr_scheduler_type="linear",
        weight_decay=config.weight_decay,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        logging_dir=str(logs or config.out.with_name(f"{config.out.name}.logs")),
        report_to=list(config.log_to),
        run_name=config.out.name,
        disable_tqdm=True,
        log_level="error",
        seed=config.seed,
        use_cpu=device == "cpu",
        bf16=config.precision == "bf16",
        fp16=config.precision == "fp16",
        fsdp=config.fsdp,
        ddp_find_unused_parameters=None if config.fsdp else True,
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
    inputs: Inputs,
    run: Run,
) -> tuple[MultiTaskModel, Trace]:
    """Train `model` on all steps of `plan`, or on those that a state in `work` leaves; returns the trained model.

    It is `model` itself, but for FSDP, which takes it apart: then a copy, whose weights are right in the main process.
    """
    group, work, device = run.group, run.work, run.device
    restored = work.load() if work is not None else None
    trace = Trace()
    if restored is not None:
        trace = Trace(**restored[1]["trace"])
        trace.resumed.append(int(restored[1]["step"]))
        unpack_weights(restored[0], model)
    whole = copy.deepcopy(model).to("cpu") if config.fsdp else model
    if config.gradient_checkpointing:
        encoder: Any = model.encoder
        encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    batches = StepBatches(
        plan,
        data,
        inputs,
        seed=config.seed,
        micro_tokens=config.micro_tokens or MICRO_TOKENS[device],
        mlm_probability=config.mlm_probability,
        segments=has_segments(model.encoder),
        group=group,
        first=0 if restored is None else int(restored[1]["step"]),
    )
    with TemporaryDirectory(prefix="xt-train-") as folder:  # Trainer insists on one
        args = arguments(config, len(plan), device, folder, run.logs)
        trainer = MultiTaskTrainer(model, args, batches, config, group=group, trace=trace)
        best = work or Work(Path(folder))
        keeper = Keeper(
            trainer,
            inputs=inputs,
            data=list(data.values()),
            work=work,
            best=best,
            progress=run.progress,
            restored=restored,
        )
        trainer.add_callback(keeper)
        trainer.train()
        weights = trainer.weights()
        trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)  # scored as it is written
        if config.fsdp and group.main:
            whole.load_state_dict(dict(weights))
        if trace.chosen_step and group.main:  # the others have no more to do
            best.load_best(whole)
    trace.chosen_step = trace.chosen_step or len(trace.losses)
    broken = [name for name, weight in whole.named_parameters() if not bool(torch.isfinite(weight).all())]
    if broken:
        raise diverged(f"After training, {len(broken)} weights are not finite (the first: {broken[0]}).")
    return whole, trace
