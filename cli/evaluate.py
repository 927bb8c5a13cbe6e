"""`xt eval` and `xt tasks`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xt.cli.console import Counter, DataDir, Device, Force, Json, Languages, Model, Out, Truncate, Url, emit, say, table

if TYPE_CHECKING:
    from xt.eval.retrieval import Encoder

EVAL_EPILOG = """Examples:

xt eval tatoeba --encoder multilingual-e5-small --data-dir data --languages xtreme --out reports/tatoeba

xt eval django --url 127.0.0.1:8001 --model encoder --out reports/served

xt eval ./my-bitext --encoder repository --out reports/mine"""
TASKS_EPILOG = """Examples:

xt tasks

xt tasks --kind target --json"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("eval", epilog=EVAL_EPILOG)(evaluate)
    app.command("tasks", epilog=TASKS_EPILOG)(tasks)


def open_encoder(
    encoder: str | None, url: str | None, model: str | None, device: str
) -> tuple[Encoder, dict[str, Any], float | None, dict[str, str]]:
    """Open what --encoder or --url names: the encoder, its entry for a report, its training temperature, its parent."""
    from xt.core.artifact import MANIFEST, open_repository, read_manifest
    from xt.core.errors import XtError, unknown

    if (encoder is None) == (url is None):
        raise typer.BadParameter("give one of --encoder and --url")
    if url is not None:
        from xt.core.triton_engine import TritonEncoder

        served = TritonEncoder(url, model)
        entry = _entry(served.spec, served.model, served.facts["precision"], "triton")
        return served, entry, served.spec.temperature, served.facts["checkpoint"]
    assert encoder is not None
    path = Path(encoder).expanduser()
    folder: Path | None = None
    if path.is_dir() and (path / MANIFEST).is_file() and read_manifest(path)["kind"] == "model":
        folder = path
    elif path.is_dir() and any(path.glob("*/config.pbtxt")):
        models = open_repository(path)
        if model is None and len(models) > 1:
            raise XtError(f"{path} holds {', '.join(models)}.", "Choose by --model.")
        name = model or next(iter(models))
        if name not in models:
            raise unknown("model", name, models)
        folder = models[name].path
    if folder is not None:
        from xt.core.onnx_engine import load_model

        graph, artifact = load_model(folder, device=device)
        entry = _entry(graph.spec, folder.name, artifact.facts["precision"], "onnxruntime")
        return graph, entry, graph.spec.temperature, artifact.as_parent()
    from xt.core import encoders, torch_engine

    resolved = encoders.resolve(encoder)
    entry = _entry(resolved.spec, resolved.spec.name, "fp32", "pytorch")
    return torch_engine.load_encoder(resolved, device=device), entry, resolved.spec.temperature, resolved.parent


def _entry(spec: Any, name: str, precision: str, engine: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": spec.name,
        "provenance": spec.provenance,
        "precision": precision,
        "engine": engine,
        "dim": spec.dim,
    }


def evaluate(
    task: Annotated[list[str], typer.Argument(help="tatoeba, django, or a folder of line-aligned files; one or more.")],
    out: Out,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help="A checkpoint, model or repository folder, a short name or a hub id."),
    ] = None,
    url: Url = None,
    model: Model = None,
    languages: Languages = "all",
    data_dir: DataDir = None,
    truncate: Truncate = False,
    device: Device = "auto",
    force: Force = False,
    json: Json = False,
) -> None:
    """Retrieve translations across languages, in both directions, with calibrated probabilities; write a report."""
    from xt.core.artifact import refuse_existing
    from xt.eval.run import assemble, load_corpus, write_report
    from xt.eval.run import evaluate as run_evaluation

    folders = [out if len(task) == 1 else out / Path(t).name for t in task]
    for folder in folders:
        refuse_existing(folder, force=force)
    corpora = [load_corpus(t, data_dir=data_dir, selection=languages) for t in task]
    opened, entry, temperature, parent = open_encoder(encoder, url, model, device)
    documents = []
    for corpus, folder in zip(corpora, folders, strict=True):
        say(f"{corpus.title}: {len(corpus.pairs)} languages, encoder {entry['label']} on {entry['engine']}")
        result = run_evaluation(
            opened, corpus, entry=entry, temperature=temperature, truncate=truncate, progress=Counter("languages")
        )
        metrics = assemble(f"xt eval {corpus.name}", corpus, [result])
        artifact = write_report(folder, metrics, [result], parents=[parent], force=force)
        show_metrics([result.metrics])
        say(f"report: {artifact.path / 'report.html'}")
        documents.append({"path": str(artifact.path), **metrics})
    if json:
        emit(documents[0] if len(documents) == 1 else documents)


def show_metrics(encoders: list[dict[str, Any]], languages: bool = True) -> None:
    """Print accuracy and calibration on stderr."""
    for m in encoders:
        ways = m["retrieval"]
        name = m["name"]
        if languages and len(ways["foreign-english"]["languages"]) <= 120:
            rows = [
                [
                    code,
                    r["n"],
                    f"{100 * r['accuracy']:.1f}",
                    f"{100 * ways['english-foreign']['languages'][code]['accuracy']:.1f}",
                ]
                for code, r in ways["foreign-english"]["languages"].items()
            ]
            table(
                f"accuracy, {name} (English to foreign is XTREME's direction)",
                ["language", "n", "foreign-english", "english-foreign"],
                rows,
            )
        for direction, way in ways.items():
            say(f"{name}, {direction}: accuracy " + ", ".join(f"{k} {100 * v:.1f}" for k, v in way["mean"].items()))
        rows = [
            [
                f"{direction} {key}",
                "-" if x["temperature"] is None else f"{x['temperature']:.5f}",
                *[x["overall"][k] for k in ("ece", "ece_null", "nll", "brier")],
            ]
            for direction, c in m["calibration"].items()
            for key, x in c["methods"].items()
        ]
        table(
            f"calibration, {name} (means over languages; null: what a perfectly calibrated model would show)",
            ["method", "T", "ECE", "null", "NLL", "Brier"],
            rows,
        )


def tasks(
    kind: Annotated[str | None, typer.Option("--kind", help="intermediate or target.")] = None,
    json: Json = False,
) -> None:
    """List what can be trained on and evaluated, where it comes from, and its licence."""
    from dataclasses import asdict

    from xt.core.errors import unknown
    from xt.core.tasks import TASKS

    kinds = sorted({t.kind for t in TASKS.values()})
    if kind is not None and kind not in kinds:
        raise unknown("kind", kind, kinds)
    rows = [t for t in TASKS.values() if kind in (None, t.kind)]
    if json:
        emit([asdict(t) for t in rows])
        return
    table(
        "tasks",
        ["task", "kind", "format", "metric", "licence", "source"],
        [[t.name, t.kind, t.format, t.metric, t.licence, t.source] for t in rows],
    )
