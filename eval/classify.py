"""Zero-shot transfer of trained heads: classification, multiple choice, tagging and question answering, by language."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xt.core import scores
from xt.core.artifact import MANIFEST, Artifact, new_artifact, open_artifact, read_manifest, write_json
from xt.core.encoders import resolve
from xt.core.errors import XtError
from xt.core.heads import MultiTaskModel, load_heads
from xt.core.inputs import Inputs
from xt.core.predict import Prediction, predict
from xt.core.tasks import Task
from xt.core.torch_engine import load_network, pick_device
from xt.eval import measures, report
from xt.eval.run import describe_run, resource_of
from xt.eval.targets import Examples

SURE = ("pair", "single", "choice")
"""Formats with one probability an example."""
ENGLISH = "eng"


@dataclass(frozen=True)
class Heads:
    """A checkpoint with its trained heads, ready to predict."""

    model: MultiTaskModel
    tasks: Mapping[str, Task]
    """The tasks that were trained, by name."""
    inputs: Inputs
    entry: dict[str, Any]
    """Facts of the encoder for the report."""
    parent: dict[str, str]


def open_heads(encoder: str, *, device: str = "auto") -> Heads:
    """Open a checkpoint with heads; XtError for an encoder without any, such as an exported model."""
    path = Path(encoder).expanduser()
    exported = path.is_dir() and (
        any(path.glob("*/config.pbtxt")) or ((path / MANIFEST).is_file() and read_manifest(path)["kind"] == "model")
    )
    if exported:
        raise XtError(
            f"{path} is an exported encoder: it gives vectors and has no heads.",
            "Name the checkpoint folder that `xt train` wrote.",
        )
    resolved = resolve(encoder)
    network = load_network(resolved.path)
    model, trained = load_heads(resolved.path, network, resolved.spec)
    spec = resolved.spec
    entry: dict[str, Any] = {"name": spec.name, "label": spec.name, "provenance": spec.provenance}
    entry |= {"precision": "fp32", "engine": "pytorch", "dim": spec.dim}
    inputs = Inputs(resolved.path / "tokenizer.json", spec)
    return Heads(model.to(pick_device(device)).eval(), trained, inputs, entry, resolved.parent)


def head_for(task: Task, trained: Mapping[str, Task]) -> str:
    """Name the head that answers `task`: its own, that of the task it trains on, or one that this is a part of.

    Raises XtError when there is none, or when its labels are others.
    """
    wanted = [name for name in (task.name, task.train_on) if name]
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


@dataclass(frozen=True)
class Classified:
    """What one task gave."""

    metrics: dict[str, Any]
    """The section `classification` of metrics.json."""
    predictions: list[dict[str, Any]]


def classify(
    heads: Heads,
    task: Task,
    data: Examples,
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> Classified:
    """Predict every language's examples with the head of `task`, and score them.

    Args:
        heads: the checkpoint.
        task: what is evaluated.
        data: the test examples of each language.
        progress: told of every language before it is read.
    """
    head = head_for(task, heads.tasks)
    asked = replace(task, name=head)
    rows: dict[str, dict[str, Any]] = {}
    predictions: list[dict[str, Any]] = []
    for done, (code, examples) in enumerate(data.items()):
        if progress:
            progress(done, len(data), code)
        answers = predict(heads.model, heads.inputs, asked, examples)
        rows[code] = score_language(task, examples, answers)
        predictions += [{"language": code, **said(task, e, a)} for e, a in zip(examples, answers, strict=True)]
    if progress:
        progress(len(data), len(data), "")
    section = {"task": task.name, "format": task.format, "metric": task.metric, "head": head}
    return Classified({**section, "mean": means(rows), "languages": rows}, predictions)


def score_language(task: Task, examples: Sequence[Any], answers: Sequence[Prediction]) -> dict[str, Any]:
    """Score one language: n, the task's metric and what goes with it, the majority's metric, calibration of labels."""
    row: dict[str, Any] = {"n": len(examples), **scores.score(task, examples, [a.value for a in answers])}
    baseline, label = scores.majority(task, examples)
    if label != "no baseline":
        row |= {"majority": baseline, "majority_label": label}
    if task.format in SURE:
        right = np.array([a.value == e.label for a, e in zip(answers, examples, strict=True)], float)
        sure = np.array([float(np.max(a.probabilities)) for a in answers if a.probabilities is not None])
        row["accuracy_ci"] = measures.wilson(int(right.sum()), len(right))
        row |= {"confidence": float(sure.mean()), "ece": measures.ece(np.minimum(sure, 1.0), right)}
    return row


NOT_AVERAGED = ("n", "accuracy_ci", "majority_label")


def means(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Average each figure over languages: metric -> `all`, each resource class, and `transfer`: all but English."""
    groups: dict[str, list[str]] = {"all": list(rows)}
    for code in rows:
        groups.setdefault(resource_of(code), []).append(code)
    others = [code for code in rows if code != ENGLISH]
    if others and len(others) < len(rows):
        groups["transfer"] = others
    figures = dict.fromkeys(name for row in rows.values() for name in row if name not in NOT_AVERAGED)

    def mean(name: str, members: Iterable[str]) -> float:
        return float(np.mean([rows[m][name] for m in members]))

    return {name: {group: mean(name, members) for group, members in groups.items()} for name in figures}


def said(task: Task, example: Any, answer: Prediction) -> dict[str, Any]:
    """Give one line of predictions.jsonl: id, gold, predicted, probabilities where there are any."""
    gold: Any
    predicted: Any
    chances: Any = None if answer.probabilities is None else np.round(answer.probabilities.astype(float), 6).tolist()
    if task.format == "qa":
        gold, predicted = list(example.answers), answer.value
        return {"id": example.id, "gold": gold, "predicted": predicted, "logits": chances}  # of the answer, of none
    if task.format == "regression":
        return {"id": example.id, "gold": example.score, "predicted": answer.value}
    if task.format == "tagging":
        gold = [task.labels[i] for i in example.labels]
        predicted = [task.labels[i] if i >= 0 else None for i in answer.value]  # None: the word was not read
        chances = [max(row) for row in chances] if chances is not None else None  # of the tags given
    else:
        gold, predicted = (task.labels[i] if task.labels else i for i in (example.label, answer.value))
    line = {"id": example.id, "gold": gold, "predicted": predicted}
    return line if chances is None else {**line, "probabilities": chances}


def write(
    out: Path, heads: Heads, task: Task, result: Classified, *, facts: dict[str, Any] | None = None, force: bool = False
) -> tuple[Artifact, dict[str, Any]]:
    """Write a report folder: metrics.json, predictions.jsonl, report.html; gives it, and what metrics.json holds."""
    rows = result.metrics["languages"]
    about = {
        "name": task.name,
        "title": task.title,
        "description": task.source,
        "licence": task.licence,
        "languages": len(rows),
        "examples": sum(row["n"] for row in rows.values()),
    }
    metrics = describe_run(
        f"xt eval {task.name}", about, list(rows), encoders=[heads.entry], classification=result.metrics
    )
    with new_artifact(out, kind="report", force=force) as draft:
        write_json(draft.path / "metrics.json", metrics)
        with (draft.path / "predictions.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in result.predictions)
        report.write(metrics, draft.path / "report.html")
        draft.parents = [heads.parent]
        draft.facts = {
            "task": about,
            "encoders": [heads.entry["name"]],
            "head": result.metrics["head"],
            **(facts or {}),
        }
    return open_artifact(out, kind="report"), metrics
