"""One trained head, the encoder inside it, into one model of a Triton repository: exported, quantised and proven."""

from __future__ import annotations

import math
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from xt.core.characters import compose
from xt.core.data.bitext import Bitext
from xt.core.data.examples import Example, QaExample, ReadLog
from xt.core.data.tasks import Task
from xt.core.encoder.onnx_engine import available_providers, choose_provider
from xt.core.encoder.resolve import Resolved
from xt.core.errors import CheckFailed, XtError, require, unknown
from xt.core.files.artifact import (
    Artifact,
    Draft,
    new_artifact,
    open_artifact,
    read_json,
    refuse_existing,
    write_json,
)
from xt.core.heads.decode import PREDICTED, Array
from xt.core.heads.inputs import IGNORED, Inputs
from xt.core.heads.onnx_heads import (
    CLASSIFIER,
    ONE_TEXT,
    OUTPUT,
    HeadModel,
    OnnxHead,
    Read,
    Reply,
    bare_task,
    row_arrays,
)
from xt.export import graph
from xt.export.parity import ParityTexts, decompose
from xt.export.quantize import CALIBRATION_TEXTS, Feeds, quantize_static
from xt.export.repository import GOLDEN_DECOMPOSED, triton_config

if TYPE_CHECKING:
    import torch

    from xt.core.heads.network import MultiTaskModel

INPUTS = 256
"""Inputs at most that parity is measured on."""
DECOMPOSED = 16
"""Inputs of the parity corpus that are measured a second time, decomposed."""
GOLDEN_INPUTS = 16
CHOICES = 4
SENTENCES_A_CONTEXT = 24
"""Sentences of the longest context that parity is measured on: more than one window of 512 tokens."""
FIT_EXAMPLES = 2000
"""Dev examples at most that a temperature is fitted on."""
THRESHOLDS = {
    "fp32": {"difference_max": 1e-3, "difference_p99": 1e-4, "agreement": 0.995, "batch_difference_max": 1e-3},
    "bf16": {"difference_max": 0.1, "difference_p99": 0.05, "agreement": 0.97, "batch_difference_max": 0.1},
    "fp16": {"difference_max": 0.05, "difference_p99": 0.02, "agreement": 0.98, "batch_difference_max": 0.05},
    "int8": {"difference_max": 0.25, "difference_p99": 0.1, "agreement": 0.95, "batch_difference_max": 0.05},
    "int8-blocks": {"difference_max": 0.25, "difference_p99": 0.1, "agreement": 0.95, "batch_difference_max": 0.02},
}
"""What a precision must keep to (measures of `HeadStage`): differences at most, agreement at least."""
GOLDEN_TOLERANCE = {"fp32": 1e-3, "bf16": 0.05, "fp16": 0.02, "int8": 0.02, "int8-blocks": 0.02}
"""How near the golden probabilities must be when the model loads on another machine."""
Fit = Literal["fit"]


@dataclass(frozen=True)
class HeadStage:
    """How near one graph comes to PyTorch fp32, over all inputs."""

    stage: str
    difference_max: float
    """Largest difference of a probability (of an answer and none for qa; for regression: of a score, in standard
    deviations of the training scores)."""
    difference_p99: float
    """99th percentile, over inputs, of an input's largest difference."""
    difference_mean: float
    """Mean, over inputs, of an input's largest difference."""
    agreement: float
    """Share of the labels, choices, tags or answers that are the same; for regression of the pairs of inputs whose
    scores have the same order."""
    batch_difference_max: float
    """Largest difference of a probability between an input alone and the same input in a batch of mixed lengths."""
    megabytes: float

    def failures(self, thresholds: Mapping[str, float]) -> list[str]:
        """Name the measures that do not keep to their thresholds."""
        values = asdict(self)
        return [
            f"{self.stage}: {key} {values[key]:.6f} is {'below' if key == 'agreement' else 'above'} {limit}"
            for key, limit in thresholds.items()
            if not (values[key] >= limit if key == "agreement" else values[key] <= limit)
        ]


class TorchHead:
    """The checkpoint's own network and head, as `HeadModel` runs them."""

    def __init__(self, model: MultiTaskModel, task: Task) -> None:
        from xt.core.heads.network import has_segments

        self.module = _module(model, task)
        self.segments = has_segments(model.encoder)

    def forward(self, arrays: Mapping[str, npt.NDArray[np.int64]]) -> Array:
        """See `xt.core.heads.onnx_heads.Network.forward`."""
        import torch

        given = {k: torch.from_numpy(v) for k, v in arrays.items() if self.segments or k != "token_type_ids"}
        with torch.inference_mode():
            return np.asarray(self.module(**given)[OUTPUT].numpy(), np.float32)


def export_head(
    resolved: Resolved,
    repository: Path,
    *,
    task: str,
    corpus: Sequence[Bitext],
    name: str = "classifier",
    precision: str = "int8-blocks",
    temperature: float | Path | Fit | None = None,
    data_dir: Path | None = None,
    min_agreement: float | None = None,
    force: bool = False,
    report: Callable[[str], None] = print,
) -> Artifact:
    """Write `repository/name`, a Triton model of the checkpoint's head for `task`, and give it opened.

    Args:
        resolved: the checkpoint, with trained heads.
        repository: the Triton model repository; other models in it stay.
        task: name of the head.
        corpus: real text of many languages that parity is measured on.
        name: the model's name on the server.
        precision: `fp32`, `bf16` (OpenVINO's), `fp16` (for GPUs), `int8` (scales fixed at export; OpenVINO's where it
            is to be had) or `int8-blocks` (ONNX Runtime's own operators).
        temperature: divides the logits before the softmax: a number, a file that holds one (the `1/calibration.json`
            of an exported head, or `{"temperature": 1.3}`), "fit" (to the task's dev examples), or None: 1.
        data_dir: the folder of data sets, for "fit".
        min_agreement: another threshold for the share of predictions that are PyTorch's.
        force: replace an existing model.
        report: told of every stage.

    Raises:
        CheckFailed: a stage is not near enough to PyTorch; nothing is written.
        XtError: no such head, a task that predicts nothing of a text, a temperature that is none.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name):
        raise XtError(f"{name!r} cannot name a model.", "Use letters, digits, '-' and '_', a letter first.")
    if precision not in THRESHOLDS:
        raise unknown("precision", precision, THRESHOLDS)
    require("onnxruntime", extra="cpu", purpose="Export")
    target = repository / name
    refuse_existing(target, force=force, kind="model", role="head", inputs=[resolved.path])
    model, row = _open(resolved, task)
    if isinstance(temperature, str) and temperature != "fit":
        raise XtError(f"A temperature is a number, a file or fit; found {temperature!r}.")
    known = None if isinstance(temperature, str) else _temperature(temperature, row)
    if row.format == "regression" and temperature is not None:
        raise XtError(f"{task} gives numbers, not probabilities: it has no temperature.", "Leave --temperature out.")
    inputs = Inputs(resolved.path / "tokenizer.json", resolved.spec)
    items = parity_inputs(row, corpus)
    scale = float(model.heads[task].deviation) if row.format == "regression" else 1.0
    with new_artifact(target, kind="model", force=force) as draft, tempfile.TemporaryDirectory() as scratch:
        version = draft.path / "1"
        version.mkdir()
        shutil.copyfile(resolved.path / "tokenizer.json", version / "tokenizer.json")
        reference = HeadModel(row, inputs, TorchHead(model, row), known or 1.0)
        provider = _provider(precision)
        report(f"{precision} runs by the execution provider {provider}")
        samples = calibration_feeds(row, inputs, corpus, model) if precision == "int8" else []
        stages = _stages(
            model, reference, version, Path(scratch), items, precision, provider, scale, report, samples=samples
        )
        # The last stage must keep to the precision's thresholds; those before it are fp32 and must keep to fp32's.
        asked = THRESHOLDS[precision] | ({} if min_agreement is None else {"agreement": min_agreement})
        limits = {s.stage: asked if s is stages[-1] else THRESHOLDS["fp32"] for s in stages}
        failures = [f for s in stages for f in s.failures(limits[s.stage])]
        parity = {
            "inputs": len(items),
            "languages": len(corpus),
            "thresholds": asked,
            "passed": not failures,
            "stages": [asdict(s) for s in stages],
        }
        if failures:
            raise CheckFailed(
                f"The exported head is not near enough to PyTorch, so nothing was written: {'; '.join(failures)}.",
                "Try --precision int8-blocks or fp32, or lower --min-agreement if you accept other predictions.",
            )
        write_json(draft.path / "parity.json", parity)
        served = HeadModel(row, inputs, OnnxHead(version / "model.onnx", provider=provider, precision=precision))
        fitted = fit_temperature(served, dev_examples(row, data_dir)) if known is None else None
        served.temperature = known or 1.0
        if fitted:
            served.temperature = fitted["temperature"]
            report(
                f"temperature {fitted['temperature']:.4f}, fitted on {fitted['examples']} dev examples: "
                f"negative log-likelihood {fitted['nll_before']:.4f} -> {fitted['nll']:.4f} nats"
            )
        _complete(resolved, draft, name, precision, provider, served, items, scale, parity, fitted)
    return open_artifact(target, kind="model")


def _open(resolved: Resolved, task: str) -> tuple[MultiTaskModel, Task]:
    """Load the checkpoint with its heads, and give the row of the task that is asked for."""
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


def _temperature(given: float | Path | None, task: Task) -> float:
    """Give the temperature that a number or a file names; 1 for None."""
    if isinstance(given, Path):
        path = given
        value = read_json(path, "Give a number, a calibration file or fit.")
        kind = value.get("kind", "label-temperature") if isinstance(value, dict) else type(value).__name__
        if kind != "label-temperature" or not isinstance(value.get("temperature"), int | float):
            raise XtError(
                f"{path} is a {kind!r} file; one with the temperature of labels is needed.",
                'Give the 1/calibration.json of an exported head, or {"temperature": 1.3}.',
            )
        if value.get("task", task.name) != task.name:
            raise XtError(f"{path} was fitted for {value['task']}, not for {task.name}.", "Name its own file.")
        given = float(value["temperature"])
    number = 1.0 if given is None else float(given)
    if not (math.isfinite(number) and number > 0):
        raise XtError(f"A temperature must be positive; found {number}.")
    return number


# --- the graph ---


def _module(model: MultiTaskModel, task: Task) -> torch.nn.Module:
    """Encoder and head as one module: (input_ids, attention_mask[, token_type_ids]) -> {"logits"}."""
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


def to_onnx(model: MultiTaskModel, task: Task, file: Path) -> None:
    """Export the encoder with its head to `file` through Optimum's exporter: logits, both input axes dynamic."""
    from optimum.exporters.onnx.convert import export
    from optimum.exporters.tasks import TasksManager

    from xt.core.heads.network import has_segments

    config: Any = model.encoder.config
    if config.model_type not in graph.FUSED:
        raise unknown("model type for export", config.model_type, graph.FUSED)
    base = TasksManager.get_exporter_config_constructor(
        "onnx", model_type=config.model_type, task="feature-extraction", library_name="transformers"
    )
    given = ["input_ids", "attention_mask", *(["token_type_ids"] if has_segments(model.encoder) else [])]
    onnx_config_type = type(
        "HeadOnnxConfig",
        (base.func if hasattr(base, "func") else base,),
        {
            "inputs": property(lambda self: {k: {0: "batch", 1: "tokens"} for k in given}),
            "outputs": property(lambda self: {OUTPUT: AXES.get(task.format, {0: "batch"})}),
        },
    )
    with graph.quiet():
        export(
            _module(model, task),
            onnx_config_type(config, task="feature-extraction"),
            file,
            opset=graph.OPSET,
            disable_dynamic_axes_fix=True,
        )


def _provider(precision: str) -> str:
    """Name the execution provider that a precision is proven with and served by on this machine."""
    found = available_providers()
    if precision in ("int8", "bf16"):
        return choose_provider(device="cpu", precision=precision)
    return "cuda" if precision == "fp16" and "cuda" in found else "cpu"


def _stages(
    model: MultiTaskModel,
    reference: HeadModel,
    version: Path,
    scratch: Path,
    items: Sequence[Any],
    precision: str,
    provider: str,
    scale: float,
    report: Callable[[str], None],
    *,
    samples: Sequence[Feeds],
) -> list[HeadStage]:
    """Make the graph step by step, measuring each step; the last graph lands in `version`."""
    expected = reference.predict(items, truncate=True)
    stages: list[HeadStage] = []

    def check(stage: str, file: Path, provider: str = "cpu", precision: str = "fp32") -> None:
        here = replace(reference, network=OnnxHead(file, provider=provider, precision=precision))
        size = sum(p.stat().st_size for p in file.parent.glob(f"{file.name}*")) / 1e6
        stages.append(measure(stage, here, expected, items, megabytes=size, scale=scale))
        s = stages[-1]
        report(
            f"{stage}: {s.megabytes:.0f} MB, probability difference max {s.difference_max:.5f} p99 "
            f"{s.difference_p99:.5f} mean {s.difference_mean:.5f}, agreement {s.agreement:.1%}, "
            f"batch {s.batch_difference_max:.6f}"
        )

    fused, final = scratch / "fused.onnx", version / "model.onnx"
    raw = final if precision == "bf16" else scratch / "raw.onnx"
    to_onnx(model, reference.task, raw)
    check("onnx", raw)
    if precision == "int8":  # of the unfused graph: OpenVINO fuses by itself
        quantize_static(raw, final, samples)
    elif precision != "bf16":  # which is the fp32 graph that OpenVINO computes so
        plain = final if precision == "fp32" else fused
        graph.fuse(raw, plain, model.encoder, packed=precision != "int8-blocks")
        check("fused", plain)
        if precision == "fp16":
            graph.fuse(raw, final, model.encoder, fp16=True)
        if precision == "int8-blocks":
            graph.quantize(fused, final)
    if precision != "fp32":
        check(precision, final, provider, precision)
    return stages


def calibration_feeds(task: Task, inputs: Inputs, corpus: Sequence[Bitext], model: MultiTaskModel) -> list[Feeds]:
    """Give rows of random inputs of the task's format, each alone, that the scales of int8 are fixed on."""
    from xt.core.heads.network import has_segments

    foreign = [text for bitext in corpus for text in bitext.foreign]
    translations = [text for bitext in corpus for text in bitext.english]
    chosen = random.Random(0).choices(range(len(foreign)), k=CALIBRATION_TEXTS)
    items = make_inputs(task, foreign, translations, chosen)
    read = HeadModel(task, inputs, TorchHead(model, task)).read(items, truncate=True)
    rows = read.rows
    some = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, CALIBRATION_TEXTS).astype(int))]
    feeds = []
    for row in some:
        arrays = row_arrays([row], inputs)
        feeds.append({k: v for k, v in arrays.items() if has_segments(model.encoder) or k != "token_type_ids"})
    return feeds


# --- parity ---


def parity_inputs(task: Task, corpus: Sequence[Bitext], most: int = INPUTS) -> list[Any]:
    """Make inputs of the task's format out of real sentences of every language: short ones, long ones, odd ones.

    A text and its translation make a pair, a prompt its choices (other sentences), sentences together a context.
    """
    each = max(1, min(8, most // max(1, len(corpus))))
    texts = ParityTexts.sample(corpus, each)
    if not texts.foreign:
        raise XtError("There is no text to measure parity on.", "Name a corpus by --parity-corpus.")
    rows = np.unique(np.linspace(0, len(texts.foreign) - 1, most).astype(int))
    return make_inputs(task, texts.foreign, texts.translations, [int(i) for i in rows])


def make_inputs(task: Task, foreign: Sequence[str], english: Sequence[str], rows: Sequence[int]) -> list[Any]:
    """Make an input of the task's format at each of `rows`, out of the sentences there and of those that follow."""
    form = task.format

    def sentences(start: int, count: int) -> str:
        return " ".join(foreign[(start + i) % len(foreign)] for i in range(count))

    made: list[Any] = []
    for n, i in enumerate(rows):
        text, other = foreign[i], english[i]
        longer = sentences(i, 1 + n % 5) if n % 4 == 0 else text
        if form == "single":
            made.append(longer)
        elif form == "tagging":
            made.append(longer.split())
        elif form == "choice":
            made.append((text, [english[(i + 7 * k) % len(english)] for k in range(2 + n % (CHOICES - 1))]))
        elif form == "qa":
            made.append((other, sentences(i, SENTENCES_A_CONTEXT if n % 16 == 0 else 1 + n % 5)))
        else:
            made.append((text, other))
    return made


def measure(
    stage: str, model: HeadModel, expected: Sequence[Reply], items: Sequence[Any], *, megabytes: float, scale: float
) -> HeadStage:
    """Compare a graph's answers with PyTorch's: to decomposed inputs (NFD) with those to their composed form, too.

    expected: PyTorch's replies to `items`. scale: divides differences of scores (regression); else 1.
    """
    both = in_both_forms(items, DECOMPOSED)
    expected = [*expected, *(expected[i] for i in both)]
    found = model.predict([*items, *(written(items[i], decompose) for i in both)], truncate=True)
    worst = np.array([_apart(a, b) for a, b in zip(found, expected, strict=True)]) / scale
    rows = np.unique(np.linspace(0, len(items) - 1, 24).astype(int))
    some = [items[i] for i in rows]
    together = model.predict(some, truncate=True, token_budget=1 << 20)
    alone = [model.predict([item], truncate=True, token_budget=1)[0] for item in some]
    batch = float(np.max([_apart(a, b) for a, b in zip(alone, together, strict=True)])) / scale
    return HeadStage(
        stage=stage,
        difference_max=float(worst.max()),
        difference_p99=float(np.quantile(worst, 0.99)),
        difference_mean=float(worst.mean()),
        agreement=agreement(found, expected),
        batch_difference_max=batch,
        megabytes=round(megabytes, 1),
    )


def written(item: Any, form: Callable[[str], str]) -> Any:
    """Return an input with all its texts in a form of Unicode."""
    return form(item) if isinstance(item, str) else type(item)(written(part, form) for part in item)


def in_both_forms(items: Sequence[Any], most: int) -> list[int]:
    """Return the positions of at most `most` inputs that differ composed and decomposed, spread evenly."""
    found = [i for i, item in enumerate(items) if written(item, compose) != written(item, decompose)]
    return [found[i] for i in np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).astype(int))]


def _apart(a: Reply, b: Reply) -> float:
    """Largest difference of two replies' probabilities."""
    return float(np.abs(a.numbers - b.numbers).max())


def agreement(found: Sequence[Reply], expected: Sequence[Reply]) -> float:
    """Share of equal predictions: of tags each by itself; of scores the pairs of inputs in the same order."""
    pairs = list(zip([r.value for r in found], [r.value for r in expected], strict=True))
    if all(isinstance(value, float) for value, _ in pairs):
        if len(pairs) < 2:
            return 1.0
        one, other = (np.array(values) for values in zip(*pairs, strict=True))
        first, second = np.triu_indices(len(one), 1)
        same = np.sign(one[first] - one[second]) == np.sign(other[first] - other[second])
        return float(same.mean())
    if all(isinstance(value, tuple) for value, _ in pairs):
        pairs = [(a, b) for one, other in pairs for a, b in zip(one, other, strict=True)]
    return float(np.mean([_text(a) == _text(b) for a, b in pairs]))


def _text(value: Any) -> Any:
    return compose(value) if isinstance(value, str) else value  # answers are cut out of contexts as they are given


# --- temperature ---


def dev_examples(task: Task, data_dir: Path | None) -> list[Example]:
    """Read the task's own dev examples, English, as its training scored itself on."""
    from itertools import islice

    from xt.core.data.sources import examples, locate

    log = ReadLog()
    found = list(islice(examples(locate(task, "dev", data_dir=data_dir), log), FIT_EXAMPLES))
    log.check(f"{task.name}, dev")
    return found


def fit_temperature(model: HeadModel, examples: Sequence[Example]) -> dict[str, Any]:
    """Fit the temperature that gives the gold labels the least negative log-likelihood (nats a label).

    Guo et al. 2017, arXiv 1706.04599, section 4.2. For qa: of the start and the end token of each window that holds
    the answer, or, where the task allows none, of the first token.
    """
    from scipy.optimize import minimize_scalar

    known = [e for e in examples if not isinstance(e, QaExample) or e.answers or model.task.no_answer]
    rows, gold = _labelled(model, known)
    if not rows:
        raise XtError(f"{model.task.name} has no dev examples to fit a temperature on.", "Give a number instead.")
    width = max(len(row) for row in rows)
    logits = np.full((len(rows), width), -np.inf)
    for i, row in enumerate(rows):
        logits[i, : len(row)] = row
    right = logits[np.arange(len(rows)), gold]

    def nll(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        top = scaled.max(1)
        return float((top + np.log(np.exp(scaled - top[:, None]).sum(1)) - right / math.exp(log_temperature)).mean())

    found = minimize_scalar(nll, bounds=(math.log(0.05), math.log(20.0)), method="bounded", options={"xatol": 1e-4})
    return {
        "temperature": float(math.exp(found.x)),
        "examples": len(known),
        "labels": len(rows),
        "nll_before": nll(0.0),
        "nll": nll(float(found.x)),
    }


def _labelled(model: HeadModel, examples: Sequence[Example]) -> tuple[list[Array], npt.NDArray[np.int64]]:
    """Give the logits of every gold label, each with its position: a row an example, a word, or an end of a span."""
    read = Read(list(examples), model.inputs.units(model.task, examples))
    results = model.logits(read.rows)
    rows: list[Array] = []
    gold: list[int] = []
    at = 0
    for unit in read.units:
        own = results[at : at + len(unit.rows)]
        at += len(unit.rows)
        if model.task.format == "choice":
            rows.append(np.array(own, np.float32))
            gold.append(int(unit.targets[0]))
        elif model.task.format == "tagging":
            assert unit.labels is not None
            for row, label in zip(own[0], unit.labels, strict=True):
                if label != IGNORED:
                    rows.append(row)
                    gold.append(int(label))
        elif model.task.format == "qa":
            if not model.task.no_answer and tuple(unit.targets) == (0, 0):
                continue  # a window without the answer, of a question that has one
            rows += [own[0][0], own[0][1]]
            gold += [int(t) for t in unit.targets]
        else:
            rows.append(own[0])
            gold.append(int(unit.targets[0]))
    return rows, np.array(gold, np.int64)


# --- the folder ---


def _complete(
    resolved: Resolved,
    draft: Draft,
    name: str,
    precision: str,
    provider: str,
    model: HeadModel,
    items: Sequence[Any],
    scale: float,
    parity: dict[str, Any],
    fitted: dict[str, Any] | None,
) -> None:
    """Add the served code, its configuration, the golden answers, the temperature and the facts."""
    version, row = draft.path / "1", bare_task(model.task)
    source = resources.files("xt.model_repository") / "classifier"
    (version / "model.py").write_text((source / "1" / "model.py").read_text(encoding="utf-8"), encoding="utf-8")
    some = [items[i] for i in np.unique(np.linspace(0, len(items) - 1, GOLDEN_INPUTS).astype(int))]
    both = [some[i] for i in in_both_forms(some, GOLDEN_DECOMPOSED)]
    replies = model.predict([*some, *(written(item, compose) for item in both)], truncate=True)
    golden = {
        "composed": True,
        "inputs": [*some, *(written(item, decompose) for item in both)],
        "numbers": [reply.numbers.tolist() for reply in replies],
        "tolerance": GOLDEN_TOLERANCE[precision],
        "scale": scale,
    }
    write_json(version / "golden.json", golden)
    about = fitted or {"temperature": model.temperature}
    if row.format != "regression":
        write_json(version / "calibration.json", {"kind": "label-temperature", "task": row.name, **about})
    served = {
        "serves": CLASSIFIER,
        "task": row.to_json(),
        "temperature": model.temperature,
        "encoder": resolved.spec.to_json(),
        "precision": precision,
        "provider": provider,
        "checkpoint": resolved.parent,
    }
    template = (source / "config.pbtxt").read_text(encoding="utf-8")
    (draft.path / "config.pbtxt").write_text(head_config(template, name, row, served), encoding="utf-8")
    draft.parents = [resolved.parent]
    draft.facts = {
        **served,
        "graph": "1/model.onnx",
        "tokenizer": "1/tokenizer.json",
        "golden": "1/golden.json",
        "pad_id": model.inputs.pad_id,
        "parity": parity,
    }


OUTPUTS = {
    "single": ("label", "probabilities", "logits"),
    "pair": ("label", "probabilities", "logits"),
    "choice": ("label",),
    "regression": ("score",),
    "tagging": (),
    "qa": (),
}
"""What a model of each format gives besides `answer`, `tokens` and `truncated`."""


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
