"""One trained head, the encoder inside it, into one model of a Triton repository.

Exported, quantised and parity-tested.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from xt.calibration.apply.file import FILE, HeadCalibration
from xt.core.characters import compose
from xt.core.data.bitext import Bitext
from xt.core.data.tasks import Task
from xt.core.encoder.onnx_engine import available_providers, choose_provider
from xt.core.encoder.resolve import Resolved
from xt.core.errors import XtError, unknown
from xt.core.files.artifact import Artifact, new_artifact, open_artifact
from xt.core.heads.decode import PREDICTED, Array
from xt.core.heads.inputs import Inputs
from xt.core.heads.onnx_heads import CLASSIFIER, ONE_TEXT, OUTPUT, HeadModel, OnnxHead, Reply, bare_task, row_arrays
from xt.export import graph
from xt.export.graphs import PRECISIONS, Graphs
from xt.export.heads.parity import HeadStage, make_inputs, measure, parity_inputs
from xt.export.heads.temperature import dev_examples, fit_temperature, read_temperature
from xt.export.parity import GOLDEN_DECOMPOSED, decompose, golden, in_both_forms, spread, written
from xt.export.pipeline import Content, Report, Step, as_dicts, check_parity, check_request, triton_config, write
from xt.export.quantize import CALIBRATION_TEXTS, Feeds
from xt.export.thresholds import THRESHOLDS

if TYPE_CHECKING:
    import torch

    from xt.core.heads.network import MultiTaskModel

Fit = Literal["fit"]


@dataclass(frozen=True)
class HeadExport:
    """How a head is exported."""

    precision: str = "int8-blocks"
    """`fp32`, `bf16` (OpenVINO's), `fp16` (for GPUs), `int8` (scales fixed at export; OpenVINO's where it is to be had)
    or `int8-blocks` (ONNX Runtime's own operators)."""
    temperature: float | Path | Fit | None = None
    """Divides the logits before the softmax: a number, a file that holds one (the `1/calibration.json` of an exported
    head, or `{"temperature": 1.3}`), "fit" (to the task's dev examples), or None: 1."""
    data_dir: Path | None = None
    """The folder of data sets, for "fit"."""
    min_agreement: float | None = None
    """Another threshold for the share of predictions that are PyTorch's."""

    def __post_init__(self) -> None:
        if isinstance(self.temperature, str) and self.temperature != "fit":
            raise XtError(f"A temperature is a number, a file or fit; found {self.temperature!r}.")

    def thresholds(self) -> dict[str, float]:
        """Return what every graph must reach."""
        found = dict(THRESHOLDS[self.precision]["head"])
        return found if self.min_agreement is None else {**found, "agreement": self.min_agreement}

    def known_temperature(self, task: Task) -> float | None:
        """Return the temperature of a task's head; None where it is to be fitted."""
        if task.format == "regression" and self.temperature is not None:
            raise XtError(
                f"{task.name} gives numbers, not probabilities: it has no temperature.", "Leave --temperature out."
            )
        return None if isinstance(self.temperature, str) else read_temperature(self.temperature, task)


def export_head(
    resolved: Resolved,
    repository: Path,
    *,
    task: str,
    corpus: Sequence[Bitext],
    name: str = "classifier",
    options: HeadExport = HeadExport(),
    force: bool = False,
    report: Report = print,
) -> Artifact:
    """Write `repository/name`, a Triton model of the checkpoint's head for `task`, and return it opened.

    Args:
        resolved: the checkpoint, with trained heads.
        repository: the Triton model repository; other models in it stay.
        task: name of the head.
        corpus: real text of many languages that parity is measured on.
        name: the model's name on the server.
        options: precision, temperature, threshold.
        force: replace an existing model.
        report: called with a line for every stage.

    Raises:
        CheckFailed: a stage is not near enough to PyTorch; nothing is written.
        XtError: no such head, a task that predicts nothing of a text, a temperature that is none.
    """
    target, precision = repository / name, options.precision
    precisions = [p for p in PRECISIONS if p != "auto"]
    check_request(
        repository, name, precision=precision, precisions=precisions, role="head", inputs=[resolved.path], force=force
    )
    model, row = _open(resolved, task)
    temperature = options.known_temperature(row)
    items = parity_inputs(row, corpus)
    with new_artifact(target, kind="model", force=force) as draft, tempfile.TemporaryDirectory() as scratch:
        subject = Head(resolved, name, Path(scratch), model, row, items, corpus, temperature, options.data_dir, report)
        provider = _provider(precision)
        report(f"{precision} runs by the execution provider {provider}")
        result, file = check_parity(subject, precision, provider, options.thresholds(), report)
        write(draft, subject, file, precision=precision, provider=provider, parity=result)
    return open_artifact(target, kind="model")


@dataclass
class Head:
    """A head as a subject of `xt.export.pipeline`."""

    resolved: Resolved
    name: str
    """The model's name on the server."""
    scratch: Path
    """Where its graphs are made."""
    model: MultiTaskModel
    task: Task
    items: Sequence[Any]
    """The inputs that parity is measured on."""
    corpus: Sequence[Bitext]
    """What they, and those that static scales are fixed on, are made of."""
    temperature: float | None
    """None: fitted to the task's dev examples."""
    data_dir: Path | None
    report: Report
    kind: ClassVar[str] = "head"
    code: ClassVar[str] = "classifier"
    noun: ClassVar[str] = "head"
    hint: ClassVar[str] = (
        "Try --precision int8-blocks or fp32, or lower --min-agreement if you accept other predictions."
    )

    @cached_property
    def inputs(self) -> Inputs:
        """The tokenizer of its texts."""
        return Inputs(self.resolved.path / "tokenizer.json", self.resolved.spec)

    @cached_property
    def graphs(self) -> Graphs:
        """Its graphs, with the encoder inside."""
        return Graphs(
            self.scratch,
            self.model.encoder,
            lambda file: to_onnx(self.model, self.task, file),
            lambda: calibration_feeds(self.task, self.inputs, self.corpus, self.model),
        )

    @cached_property
    def reference(self) -> HeadModel:
        """PyTorch's own network, answering."""
        return HeadModel(self.task, self.inputs, TorchHead(self.model, self.task), self.temperature or 1.0)

    @cached_property
    def expected(self) -> list[Reply]:
        """PyTorch's answers."""
        return self.reference.predict(self.items, truncate=True)

    @property
    def scale(self) -> float:
        """What differences of scores are counted in: the deviation of the training scores; 1 of probabilities."""
        return float(self.model.heads[self.task.name].deviation) if self.task.format == "regression" else 1.0

    def steps(self, precision: str, provider: str) -> list[Step]:
        """See `Subject`. OpenVINO, which runs int8 and bf16, fuses by itself."""
        fused = partial(self.graphs.fused, packed=precision != "int8-blocks")
        made = partial(self.graphs.get, precision, provider)
        return [
            Step("onnx", self.graphs.raw),
            *([] if precision in ("int8", "bf16") else [Step("fused", fused)]),
            *([] if precision == "fp32" else [Step(precision, made, provider, precision)]),
        ]

    def measure(self, stage: str, file: Path, provider: str, precision: str, megabytes: float) -> HeadStage:
        """See `Subject`."""
        model = replace(self.reference, network=OnnxHead(file, provider=provider, precision=precision))
        return measure(stage, model, self.expected, self.items, megabytes=megabytes, scale=self.scale)

    def parity(self, stages: Sequence[HeadStage], thresholds: Mapping[str, float]) -> dict[str, Any]:
        """See `Subject`."""
        return {
            "inputs": len(self.items),
            "languages": len(self.corpus),
            "thresholds": dict(thresholds),
            "passed": True,
            "stages": as_dicts(stages),
        }

    def complete(self, version: Path, precision: str, provider: str) -> Content:
        """See `Subject`: the golden answers and the temperature, fitted to the graph where one is requested."""
        row = bare_task(self.task)
        network = OnnxHead(version / "model.onnx", provider=provider, precision=precision)
        model = HeadModel(self.task, self.inputs, network)
        temperature, fit = self.temperature, {}
        if temperature is None:
            fit = fit_temperature(model, dev_examples(self.task, self.data_dir))
            temperature = float(fit.pop("temperature"))
            self.report(
                f"temperature {temperature:.4f}, fitted on {fit['examples']} dev examples: "
                f"negative log-likelihood {fit['nll_before']:.4f} -> {fit['nll']:.4f} nats"
            )
        model.temperature = temperature
        some = golden(self.items)
        both = [some[i] for i in in_both_forms(some, GOLDEN_DECOMPOSED)]
        replies = model.predict([*some, *(written(item, compose) for item in both)], truncate=True)
        calibration = HeadCalibration(temperature, row.name, fit=fit)
        return Content(
            golden={
                "composed": True,
                "inputs": [*some, *(written(item, decompose) for item in both)],
                "numbers": [reply.numbers.tolist() for reply in replies],
                "tolerance": THRESHOLDS[precision]["golden"]["head"],
                "scale": self.scale,
            },
            served={
                "serves": CLASSIFIER,
                "task": row.to_json(),
                "temperature": model.temperature,
                "encoder": self.resolved.spec.to_json(),
                "precision": precision,
                "provider": provider,
                "checkpoint": self.resolved.parent,
            },
            pad_id=self.inputs.pad_id,
            config=lambda template, served: head_config(template, self.name, row, served),
            files={} if row.format == "regression" else {FILE: calibration.to_json()},
        )


class TorchHead:
    """The checkpoint's own network and head, as `HeadModel` runs them."""

    def __init__(self, model: MultiTaskModel, task: Task) -> None:
        from xt.core.heads.network import has_segments

        self.module = head_module(model, task)
        self.segments = has_segments(model.encoder)

    def forward(self, arrays: Mapping[str, npt.NDArray[np.int64]]) -> Array:
        """See `xt.core.heads.onnx_heads.Network.forward`."""
        import torch

        given = {k: torch.from_numpy(v) for k, v in arrays.items() if self.segments or k != "token_type_ids"}
        with torch.inference_mode():
            return np.asarray(self.module(**given)[OUTPUT].numpy(), np.float32)


def _open(resolved: Resolved, task: str) -> tuple[MultiTaskModel, Task]:
    """Load the checkpoint with its heads, and return the row of the task that is requested."""
    from xt.core.encoder.torch_engine import load_network
    from xt.core.heads.network import load_heads

    network = load_network(resolved.path, attn_implementation="eager")
    model, rows = load_heads(resolved.path, network, resolved.spec)
    if task not in rows:
        raise unknown("head", task, rows)
    row = rows[task]
    if row.format not in PREDICTED:
        others = [name for name, r in rows.items() if r.format in PREDICTED]
        raise XtError(
            f"{task} is {row.format}: its head predicts nothing of a text.",
            f"Heads that do: {', '.join(others) or 'none'}. For vectors export the encoder, without --task.",
        )
    return model.eval(), row


def head_module(model: MultiTaskModel, task: Task) -> torch.nn.Module:
    """Return encoder and head as one module: (input_ids, attention_mask[, token_type_ids]) -> {"logits"}."""
    from transformers import PreTrainedModel

    encoder: Any = model.encoder

    class EncoderWithHead(PreTrainedModel):
        """For tracing; Optimum asks for a model of transformers."""

        config_class = type(encoder.config)

        def __init__(self) -> None:
            super().__init__(encoder.config)
            self.model = model

        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
        ) -> dict[str, torch.Tensor]:
            states = self.model.states(task.name, input_ids, attention_mask, token_type_ids)
            head: Any = self.model.heads[task.name]
            if task.format == "choice":  # one score a row; which rows belong together is not the graph's to know
                return {OUTPUT: head.score(states.pooled)[:, 0]}
            return {OUTPUT: head(states)[0]}

    return EncoderWithHead().eval()


AXES = {"tagging": {0: "batch", 1: "tokens"}, "qa": {0: "batch", 2: "tokens"}}
"""The axes of the logits that vary; of other formats the first alone."""


AXES = {"tagging": {0: "batch", 1: "tokens"}, "qa": {0: "batch", 2: "tokens"}}
"""The axes of the logits that vary; of other formats the first alone."""


def to_onnx(model: MultiTaskModel, task: Task, file: Path) -> None:
    """Export the encoder with its head to `file`: logits, both input axes dynamic."""
    from xt.core.heads.network import has_segments

    given = ["input_ids", "attention_mask", *(["token_type_ids"] if has_segments(model.encoder) else [])]
    axes = AXES.get(task.format, {0: "batch"})
    config: Any = model.encoder.config
    graph.trace(lambda: head_module(model, task), config, file, inputs=given, output=OUTPUT, axes=axes)


def _provider(precision: str) -> str:
    """Return the execution provider that a precision is parity-tested with and served by on this machine."""
    found = available_providers()
    if precision in ("int8", "bf16"):
        return choose_provider(device="cpu", precision=precision)
    return "cuda" if precision == "fp16" and "cuda" in found else "cpu"


def calibration_feeds(task: Task, inputs: Inputs, corpus: Sequence[Bitext], model: MultiTaskModel) -> list[Feeds]:
    """Return rows of random inputs of the task's format, each alone, that the scales of int8 are fixed on."""
    from xt.core.heads.network import has_segments

    foreign = [text for bitext in corpus for text in bitext.foreign]
    translations = [text for bitext in corpus for text in bitext.english]
    chosen = random.Random(0).choices(range(len(foreign)), k=CALIBRATION_TEXTS)
    items = make_inputs(task, foreign, translations, chosen)
    read = HeadModel(task, inputs, TorchHead(model, task)).read(items, truncate=True)
    rows = read.rows
    some = [rows[i] for i in spread(len(rows), CALIBRATION_TEXTS)]
    feeds = []
    for row in some:
        arrays = row_arrays([row], inputs)
        feeds.append({k: v for k, v in arrays.items() if has_segments(model.encoder) or k != "token_type_ids"})
    return feeds


OUTPUTS = {
    "single": ("label", "probabilities", "logits"),
    "pair": ("label", "probabilities", "logits"),
    "choice": ("label",),
    "regression": ("score",),
    "tagging": (),
    "qa": (),
}
"""The outputs of a model of each format besides `answer`, `tokens` and `truncated`."""


def head_config(template: str, name: str, task: Task, facts: dict[str, Any]) -> str:
    """Fill the committed config.pbtxt: name, facts, and the inputs and outputs that the task's format has."""
    from xt.serve.triton import model_config

    filled = triton_config(template, name, len(task.labels), facts)
    config = model_config.parse(filled)
    inputs = [x for x in config.input if x.name != "text_pair" or task.format not in ONE_TEXT]
    kept = {*OUTPUTS[task.format], "answer", "tokens", "truncated"}
    outputs = [x for x in config.output if x.name in kept]
    for output in outputs:
        if output.name in ("probabilities", "logits"):
            output.dims[:] = [len(task.labels)]
    del config.input[:], config.output[:]
    config.input.extend(inputs)
    config.output.extend(outputs)
    return model_config.to_text(config)
