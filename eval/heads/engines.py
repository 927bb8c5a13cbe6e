"""Trained heads wherever they run: a checkpoint in PyTorch, an exported graph in this process, or a Triton server.

All three answer the same call with the same numbers, to the tolerance that the export was tested to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from xt.core.arguments import as_list
from xt.core.data.examples import Example
from xt.core.data.readers.formats import is_label
from xt.core.data.tasks import Task
from xt.core.encoder.resolve import resolve
from xt.core.encoder.spec import EncoderSpec
from xt.core.encoder.text import check_text
from xt.core.encoder.torch_engine import load_network, pick_device
from xt.core.errors import XtError, unknown
from xt.core.files.artifact import MANIFEST, open_repository, read_manifest
from xt.core.heads.decode import Array, Prediction, decode, softmax
from xt.core.heads.inputs import Inputs, chunks
from xt.core.heads.network import MultiTaskModel, load_heads
from xt.core.heads.onnx_heads import CLASSIFIER, READ_AHEAD, HeadModel, load_head
from xt.core.heads.predict import predict
from xt.core.results.report import Encoder
from xt.eval.heads.targets import LABELLED
from xt.serve.client.address import Tls
from xt.serve.client.heads import TritonHeads
from xt.serve.client.models import Served


class HeadEngine(Protocol):
    """Trained heads that answer examples."""

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks that there is a head for, by name."""
        ...

    @property
    def entry(self) -> Encoder:
        """Facts of what answers, for the report."""
        ...

    @property
    def parent(self) -> dict[str, str]:
        """What a report is made from, for its manifest."""
        ...

    def answers(self, task: Task, examples: Sequence[Example]) -> list[Prediction]:
        """Answer examples of `task` in their order, by the head that `head_for` names."""
        ...

    def temperature(self, task: Task) -> float:
        """Return what divides the logits of that head before its softmax; 1 for a checkpoint."""
        ...


def head_for(task: Task, trained: Mapping[str, Task]) -> str:
    """Name the head that answers `task`: its own, that of the task it trains on, or one that this is a part of.

    A user's own data are answered by the head that `own_head` bound them to, where it did.
    Raises XtError when there is none, or when its labels are others.
    """
    wanted = [name for name in (task.name, task.train_on) if name]
    if task.own and task.train_on:
        wanted = [task.train_on]
    found = [name for name in wanted if name in trained]
    found += [name for name, row in trained.items() if set(wanted) & set(row.parts)]
    if not found:
        raise XtError(
            f"This checkpoint has no head for {task.name}; its heads: {', '.join(trained) or 'none'}.",
            f"Train it on {' or '.join(wanted)} first.",
        )
    row = trained[found[0]]
    if (row.format, row.labels) != (task.format, task.labels):
        raise XtError(
            f"The head {row.name} was trained for {row.format} with {len(row.labels)} labels "
            f"({', '.join(row.labels[:4])}); {task.name} is {task.format} with {len(task.labels)} "
            f"({', '.join(task.labels[:4])}).",
            "Train it again with this version of xt.",
        )
    return row.name


def own_head(task: Task, trained: Mapping[str, Task], name: str | None = None) -> Task:
    """Return the head that a user's own data are measured with, whatever their file is called.

    It is the one named, else the only one of the format that lacks fewest labels of the data (`targets.read`
    refuses rows with such); of several that lack as few, the one with the name of the data.

    Raises XtError when none is of the format, or several could be meant.
    """
    able = {key: row for key, row in trained.items() if row.format == task.format}
    if name is not None:
        if name not in trained:
            raise unknown("head", name, trained)
        if name not in able:
            raise XtError(
                f"The head {name} is of the format {trained[name].format}; {task.source} is given as {task.format}.",
                f"Name the data {trained[name].format}:PATH, or choose another head.",
            )
        return able[name]
    if not able:
        others = ", ".join(f"{key} ({row.format})" for key, row in trained.items()) or "none"
        raise XtError(
            f"There is no head for {task.format} data such as {task.source}; the heads: {others}.",
            f"Name the data's format as the head's, or train one: xt train --target {task.format}:PATH.",
        )
    lacking = {key: len(unknown_labels(task, row)) for key, row in able.items()}
    fitting = {key: row for key, row in able.items() if lacking[key] == min(lacking.values())}
    if len(fitting) > 1 and task.name in fitting:
        return fitting[task.name]
    if len(fitting) > 1:
        raise XtError(
            f"Several heads could answer {task.source}: {', '.join(fitting)}.",
            f"Choose by --head, as in --head {next(iter(fitting))}.",
        )
    return next(iter(fitting.values()))


def unknown_labels(task: Task, row: Task) -> list[str]:
    """List the labels of a user's own data that a head lacks; they may be written in capitals, or as e, n, c."""
    if task.format not in LABELLED:
        return []
    return [label for label in task.labels if not is_label(label, row.labels)]


@dataclass(frozen=True)
class Heads:
    """A checkpoint with its trained heads, in PyTorch."""

    model: MultiTaskModel
    tasks: Mapping[str, Task]
    """The tasks that were trained, by name."""
    inputs: Inputs
    entry: Encoder
    """Facts of the encoder for the report."""
    parent: dict[str, str]

    def answers(self, task: Task, examples: Sequence[Example]) -> list[Prediction]:
        """See `HeadEngine.answers`."""
        return predict(self.model, self.inputs, replace(task, name=head_for(task, self.tasks)), examples)

    def temperature(self, task: Task) -> float:
        """Return 1: a checkpoint has no temperature."""
        return 1.0


@dataclass(frozen=True)
class OnnxHeads:
    """Exported heads, each a graph with the encoder in it, on ONNX Runtime in this process."""

    heads: Mapping[str, HeadModel]
    """Name of the task -> what answers it."""
    entry: Encoder
    parent: dict[str, str]

    @property
    def tasks(self) -> Mapping[str, Task]:
        """See `HeadEngine.tasks`."""
        return {name: head.task for name, head in self.heads.items()}

    def temperature(self, task: Task) -> float:
        """See `HeadEngine.temperature`."""
        return self.heads[head_for(task, self.tasks)].temperature

    def answers(self, task: Task, examples: Sequence[Example]) -> list[Prediction]:
        """See `HeadEngine.answers`; what is too long is cut, as PyTorch's is."""
        head = self.heads[head_for(task, self.tasks)]
        found: list[Prediction] = []
        for some in chunks(as_list(examples, "examples", "examples"), READ_AHEAD):
            read = head.read_examples(list(some), truncate=True)
            logits = head.unit_logits(read, head.logits(read.rows))
            found += decode(task, read.examples, read.units, logits, temperature=head.temperature)
        return found


@dataclass(frozen=True)
class ServedHeads:
    """The heads of a Triton server."""

    server: TritonHeads
    heads: Mapping[str, Served]
    """Name of the task -> the model that answers it."""
    entry: Encoder
    parent: dict[str, str]
    tasks: Mapping[str, Task] = field(default_factory=dict)

    def temperature(self, task: Task) -> float:
        """See `HeadEngine.temperature`."""
        return float(self.heads[head_for(task, self.tasks)].facts["temperature"])

    def answers(self, task: Task, examples: Sequence[Example]) -> list[Prediction]:
        """See `HeadEngine.answers`; what is too long is cut, as PyTorch's is."""
        head = self.heads[head_for(task, self.tasks)]
        texts, pairs = [], []
        for example in as_list(examples, "examples", "examples"):
            one, two = _TEXTS[task.format](example)
            for text in _strings(example):
                check_text(text, f"{task.name}, example {example.id!r}: a text" if hasattr(example, "id") else "a text")
            texts.append(one)
            pairs.append(two)
        second = None if task.format in ("single", "tagging") else [pair or "" for pair in pairs]
        temperature = float(head.facts["temperature"])
        found = self.server.answers(head, texts, second)
        return [_prediction(task, answer, temperature) for answer in found]


_TEXTS: dict[str, Callable[[Any], tuple[str, str | None]]] = {
    "single": lambda e: (e.text, None),
    "pair": lambda e: (e.first, e.second),
    "regression": lambda e: (e.first, e.second),
    "choice": lambda e: (e.prompt, json.dumps(list(e.choices), ensure_ascii=False)),
    "tagging": lambda e: (json.dumps(list(e.words), ensure_ascii=False), None),
    "qa": lambda e: (e.question, e.context),
}
"""What travels of an example of each format: the two texts that `HeadModel.item` reads."""


def _strings(example: Any) -> list[str]:
    """Name every text of an example."""
    values = (getattr(example, name, ()) for name in ("text", "first", "second", "prompt", "question", "context"))
    texts = [value for value in values if isinstance(value, str)]
    return [*texts, *getattr(example, "choices", ()), *getattr(example, "words", ())]


def _prediction(task: Task, answer: Mapping[str, Any], temperature: float) -> Prediction:
    """Read a served answer as `xt.core.heads.decode.decode` would have given it."""
    if task.format == "regression":
        return Prediction(float(answer["score"]))
    given = np.array(answer["logits"], np.float64)  # null becomes NaN
    logits: Array = np.where(np.isnan(given), -np.inf, given).astype(np.float32)
    if task.format == "qa":
        if not task.no_answer:
            none, logits[-1] = logits[-1], -np.inf
        else:
            none = logits[-1]
        text = "" if none > logits[0] and task.no_answer else str(answer["span"])
        return Prediction(text, np.array([logits[0], none], np.float32), logits)
    chances = softmax(logits / np.float32(temperature))
    if task.format == "tagging":
        places = {label: place for place, label in enumerate(task.labels)}
        value = tuple(-1 if tag is None else places[tag] for tag in answer["tags"])
        return Prediction(value, chances, logits)
    place = answer["position"] if task.format == "choice" else task.labels.index(answer["label"])
    stated = answer["probabilities"]
    chances = np.array(stated if task.format == "choice" else [stated[label] for label in task.labels], np.float32)
    return Prediction(int(place), chances, logits)


def open_heads(
    encoder: str | None = None,
    *,
    url: str | None = None,
    model: str | None = None,
    device: str = "auto",
    tls: Tls | None = None,
) -> Heads | OnnxHeads | ServedHeads:
    """Open the trained heads that --encoder or --url names.

    Args:
        encoder: a checkpoint folder with heads; or an exported head's folder, or a repository that holds some.
        url: instead, HOST:PORT of a Triton server's gRPC endpoint.
        model: the name of the exported or served head; without it all that there are, one for each task.
        device: for a checkpoint: auto, cpu, cuda; for an exported head `auto` and `cpu` are what it was tested with.
        tls: the files of an encrypted connection to `url`; None: not encrypted.

    Raises XtError when there are none.
    """
    if (encoder is None) == (url is None):
        raise XtError("Heads are in a folder or on a server.", "Give one of --encoder and --url.")
    if url is not None:
        return _served(url, model, tls)
    assert encoder is not None
    path = Path(encoder).expanduser()
    if path.is_dir() and (path / MANIFEST).is_file() and read_manifest(path)["kind"] == "model":
        return _exported({path.name: path}, path, None)
    if path.is_dir() and any(path.glob("*/config.pbtxt")):
        return _exported({name: found.path for name, found in open_repository(path).items()}, path, model)
    return open_checkpoint(encoder, device=device)


def open_checkpoint(encoder: str, *, device: str = "auto") -> Heads:
    """Open a checkpoint's heads in PyTorch; XtError for an encoder without any."""
    resolved = resolve(encoder)
    network = load_network(resolved.path)
    model, trained = load_heads(resolved.path, network, resolved.spec)
    spec = resolved.spec
    inputs = Inputs(resolved.path / "tokenizer.json", spec)
    entry = Encoder.of(spec, precision="fp32", engine="pytorch")
    return Heads(model.to(pick_device(device)).eval(), trained, inputs, entry, resolved.parent)


def _exported(folders: Mapping[str, Path], path: Path, model: str | None) -> OnnxHeads:
    if model is not None and model not in folders:
        raise unknown("model", model, folders)
    chosen = {model: folders[model]} if model is not None else folders
    heads: dict[str, HeadModel] = {}
    names: dict[str, str] = {}
    artifacts = []
    for name, folder in chosen.items():
        if read_manifest(folder).get("facts", {}).get("serves") != CLASSIFIER:
            continue
        head, artifact = load_head(folder)
        _only(names, head.task.name, name, str(path))
        heads[head.task.name] = head
        artifacts.append(artifact)
    if not heads:
        raise XtError(
            f"{path} is an exported encoder: it gives vectors and has no heads.",
            "Name the checkpoint folder that `xt train` wrote, or export a head with `xt export --task TASK`.",
        )
    facts = artifacts[0].facts
    spec = EncoderSpec.from_json(facts["encoder"])
    label = ", ".join(names.values())
    entry = Encoder.of(spec, name=label, precision=facts["precision"], engine="onnxruntime")
    return OnnxHeads(heads, entry, artifacts[0].as_parent())


def _served(url: str, model: str | None, tls: Tls | None) -> ServedHeads:
    server = TritonHeads(url, model, tls=tls)
    heads: dict[str, Served] = {}
    names: dict[str, str] = {}
    for name, head in server.heads.items():
        task = Task.from_json(head.facts["task"])
        _only(names, task.name, name, f"The server at {url}")
        heads[task.name] = head
    facts = next(iter(heads.values())).facts
    spec = EncoderSpec.from_json(facts["encoder"])
    entry = Encoder.of(spec, name=", ".join(names.values()), precision=facts["precision"], engine="triton")
    tasks = {name: Task.from_json(head.facts["task"]) for name, head in heads.items()}
    return ServedHeads(server, heads, entry, facts["checkpoint"], tasks)


def _only(names: dict[str, str], task: str, name: str, where: str) -> None:
    """Note which model answers a task; XtError when one does already."""
    if task in names:
        raise XtError(f"{where} holds two heads for {task}: {names[task]} and {name}.", "Choose by --model.")
    names[task] = name
