"""`xt eval` and `xt tasks`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xt.cli.console import Counter, DataDir, Device, Force, Json, Languages, Model, Out, Truncate, Url, emit, say, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from xt.core.tasks import Task
    from xt.eval.retrieval import Encoder
    from xt.eval.run import Corpus
    from xt.eval.targets import Target

EVAL_EPILOG = """Examples:

xt eval tatoeba --encoder multilingual-e5-small --data-dir data --languages xtreme --out reports/tatoeba

xt eval django --url 127.0.0.1:8001 --model encoder --out reports/served

xt eval ./my-bitext --encoder repository --out reports/mine

xt eval tatoeba --encoder xlm-roberta-large --data-dir data --languages xtreme --layers all --out reports/layers

xt eval sib200 --encoder runs/sib200 --data-dir data --languages low-resource --out reports/sib200"""
TASKS_EPILOG = """Examples:

xt tasks

xt tasks --kind target --json

xt tasks squad-v2 --data-dir data"""


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
    task: Annotated[
        list[str],
        typer.Argument(
            help="tatoeba, django, a folder of line-aligned files, or a task that the checkpoint has a head for (see "
            "xt tasks), FORMAT:PATH for your own data, or image-text:FOLDER; one or more."
        ),
    ],
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
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            help="Also measure retrieval from these layers of a PyTorch checkpoint: all, or numbers (0: embeddings).",
        ),
    ] = None,
    device: Device = "auto",
    force: Force = False,
    json: Json = False,
) -> None:
    """Measure retrieval of translations, calibrated, or trained heads, zero-shot over languages; write a report.

    Parallel text is retrieved from in both directions, by any encoder. Other tasks are answered by the checkpoint's
    head for them, or for the task that they train on.
    """
    from xt.core.artifact import refuse_existing
    from xt.eval.run import assemble, load_corpus, write_report
    from xt.eval.run import evaluate as run_evaluation

    folders = [out if len(task) == 1 else out / Path(t).name for t in task]
    for folder in folders:
        refuse_existing(folder, force=force)
    if layers is not None and url is not None:
        raise typer.BadParameter("--layers reads a checkpoint in PyTorch: give it by --encoder, not --url")
    numbers = layer_numbers(layers)
    images = [t for t in task if t.startswith("image-text:")]
    if images:
        if len(images) < len(task) or encoder is None:
            raise typer.BadParameter("image-text:FOLDER is evaluated by itself, with --encoder CHECKPOINT")
        shown = [evaluate_images(encoder, t, f, languages, device, force) for t, f in zip(task, folders, strict=True)]
        if json:
            emit(shown[0] if len(shown) == 1 else shown)
        return
    asked = [task_of_heads(t, encoder, url, layers) for t in task]
    data = [None if row is None else read_test(row, data_dir, languages) for row in asked]
    corpora = [
        load_corpus(t, data_dir=data_dir, selection=languages) for t, row in zip(task, asked, strict=True) if not row
    ]
    documents = {}
    if corpora:
        opened, entry, temperature, parent = open_encoder(encoder, url, model, device)
        measure_layers = None if layers is None else layer_sweep(opened, encoder, numbers, truncate)
    for corpus, folder in zip(corpora, [f for f, row in zip(folders, asked, strict=True) if not row], strict=True):
        say(f"{corpus.title}: {len(corpus.pairs)} languages, encoder {entry['label']} on {entry['engine']}")
        result = run_evaluation(
            opened, corpus, entry=entry, temperature=temperature, truncate=truncate, progress=Counter("languages")
        )
        sections = {} if measure_layers is None else {"layers": measure_layers(corpus)}
        metrics = assemble(f"xt eval {corpus.name}", corpus, [result], **sections)
        artifact = write_report(folder, metrics, [result], parents=[parent], force=force)
        show_metrics([result.metrics])
        show_layers(metrics)
        say(f"report: {artifact.path / 'report.html'}")
        documents[folder] = {"path": str(artifact.path), **metrics}
    tests = {folder: test for folder, test in zip(folders, data, strict=True) if test is not None}
    if tests:
        assert encoder is not None
        documents |= evaluate_heads(encoder, tests, device=device, force=force)
    if json:
        emit(documents[folders[0]] if len(folders) == 1 else [documents[f] for f in folders])


def evaluate_images(encoder: str, name: str, out: Path, languages: str, device: str, force: bool) -> dict[str, Any]:
    """Measure text-to-image retrieval in every language of a folder and write a report folder: what --json prints."""
    from xt.core.images import load_image_text
    from xt.core.languages import select
    from xt.eval import classify
    from xt.eval.images import retrieve

    folder = Path(name.removeprefix("image-text:")).expanduser()
    codes = select(languages, list(load_image_text(folder).captions["test"]))
    heads = classify.open_heads(encoder, device=device)
    task, result = retrieve(heads, folder, codes=codes, progress=Counter("encoded"))
    artifact, metrics = classify.write(out, heads, task, result, facts={"folder": str(folder)}, force=force)
    show_classes(result.metrics)
    chance = ", ".join(f"{k} {v:.3f}" for k, v in result.metrics["chance"].items())
    say(f"{result.metrics['images']} images; by chance: {chance}")
    say(f"report: {artifact.path / 'report.html'}")
    return {"path": str(artifact.path), **metrics}


def task_of_heads(name: str, encoder: str | None, url: str | None, layers: str | None) -> Task | None:
    """Give the task that a checkpoint's head answers, None for parallel text; check the options against it."""
    from xt.eval import targets

    if (encoder is None) == (url is None):
        raise typer.BadParameter("give one of --encoder and --url")
    row = targets.find(name)
    if row is not None and url is not None:
        raise typer.BadParameter(f"a served model has no heads for {name}: name the checkpoint by --encoder")
    if row is not None and layers is not None:
        raise typer.BadParameter(f"--layers measures retrieval; {name} is answered by a head")
    return row


def read_test(task: Task, data_dir: Path | None, languages: str) -> Target:
    """Read the test examples of a task, and say which of its languages are not there."""
    from xt.eval import targets

    test = targets.read(task, data_dir=data_dir, selection=languages)
    count = sum(len(examples) for examples in test.examples.values())
    say(f"{task.title}: {count:,} {test.facts['split']} examples in {len(test.examples)} languages")
    if test.missing:
        say(f"{len(test.missing)} of the task's {len(test.task.codes)} languages are not in the data folder")
    return test


def evaluate_heads(encoder: str, tests: dict[Path, Target], *, device: str, force: bool) -> dict[Path, dict[str, Any]]:
    """Measure a checkpoint's heads and write a report folder for each task: folder -> document of --json."""
    from xt.eval import classify

    heads = classify.open_heads(encoder, device=device)
    for test in tests.values():
        classify.head_for(test.task, heads.tasks)
    documents = {}
    for folder, test in tests.items():
        result = classify.classify(heads, test.task, test.examples, progress=Counter("languages"))
        artifact, metrics = classify.write(folder, heads, test.task, result, facts={"data": test.facts}, force=force)
        show_classes(result.metrics)
        say(f"report: {artifact.path / 'report.html'}")
        documents[folder] = {"path": str(artifact.path), **metrics}
    return documents


def show_classes(section: dict[str, Any]) -> None:
    """Print the scores of each language and their means on stderr."""
    rows, mean = section["languages"], section["mean"]
    names = [name for name in mean if name not in ("confidence",)]
    table(
        f"{section['task']}, answered by the head {section['head']}",
        ["language", "n", *names],
        [[code, row["n"], *(row[name] for name in names)] for code, row in rows.items()],
    )
    groups = ", ".join(f"{group} {value:.3f}" for group, value in mean[section["metric"]].items())
    say(f"mean {section['metric']}: {groups}")


def layer_numbers(value: str | None) -> list[int] | None:
    """Read the numbers of --layers; None for all layers, and without the option."""
    if value is None or value.strip() == "all":
        return None
    words = [w.strip() for w in value.split(",")]
    if not all(w.isascii() and w.isdigit() for w in words):
        raise typer.BadParameter(f"--layers expects `all` or numbers, as in 8,14,24; not {value!r}")
    return sorted({int(w) for w in words})


def layer_sweep(
    opened: Encoder, encoder: str | None, layers: list[int] | None, truncate: bool
) -> Callable[[Corpus], dict[str, Any]]:
    """Check the layers (None: all) against the encoder, and give what measures them on a corpus."""
    from xt.core import torch_engine
    from xt.core.encoders import resolve
    from xt.core.layers import check_layers, stack
    from xt.core.text import TextEncoder
    from xt.eval import layers as sweeps
    from xt.eval.run import resource_of

    if not (isinstance(opened, TextEncoder) and isinstance(opened.engine, torch_engine.TorchEngine)):
        raise typer.BadParameter("--layers reads a checkpoint in PyTorch, not an exported model")
    assert encoder is not None
    whole = torch_engine.whole_encoder(opened, resolve(encoder).path)
    own, count = (len(stack(torch_engine.network_of(e))) for e in (opened, whole))
    chosen = list(range(count + 1)) if layers is None else layers
    check_layers(chosen, count)

    def measure(corpus: Corpus) -> dict[str, Any]:
        say(f"{len(chosen)} layers, each in {len(corpus.pairs)} languages")
        return sweeps.sweep(
            lambda texts: torch_engine.encode_layers(whole, texts, chosen, truncate=truncate),
            corpus.pairs,
            resources={b.language: resource_of(b.language) for b in corpus.pairs},
            own=own,
            count=count,
            progress=Counter("languages"),
        )

    return measure


def show_layers(metrics: dict[str, Any]) -> None:
    """Print the mean accuracy of each layer on stderr, and the layer chosen on held-out languages."""
    data = metrics.get("layers")
    if not data:
        return
    ways = data["directions"]
    table(
        "mean accuracy by layer (*: its own)",
        ["layer", *ways],
        [
            [f"{n}{' *' if int(n) == data['own'] else ''}", *(f"{100 * ways[w][n]['mean']['all']:.1f}" for w in ways)]
            for n in next(iter(ways.values()))
        ],
    )
    if best := data["best"]:
        scores = ", ".join(f"{way} {100 * value:.1f}" for way, value in best["accuracy"].items())
        say(f"layer {best['layer']}, chosen on {', '.join(best['chosen_on'])}; on the other languages: {scores}")


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
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A task to show in full; without it all are listed.")
    ] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="intermediate or target.")] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """List what can be trained on and evaluated, where it comes from, and its licence."""
    from xt.core.bitext import data_folder
    from xt.core.errors import unknown
    from xt.core.sources import there
    from xt.core.task_table import TASKS
    from xt.core.tasks import KINDS, get

    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    if name is not None:
        task = get(name)
        found = there(task, data_dir) if data_folder(data_dir) else {}
        if json:
            emit({**task.to_json(), "found": found})
        else:
            show_task(task, data_folder(data_dir), found)
        return
    rows = [t for t in TASKS.values() if kind in (None, t.kind)]
    if json:
        emit([t.to_json() for t in rows])
        return
    table(
        "tasks",
        ["task", "kind", "format", "metric", "languages", "train", "licence", "from"],
        [
            [
                t.name,
                t.kind,
                t.format,
                t.metric,
                len(t.codes),
                f"on {t.train_on}" if t.train_on else f"{t.sizes['train']:,}" if "train" in t.sizes else "-",
                t.licence,
                t.hub.id if t.hub else "xt" if t.sample else "-",
            ]
            for t in rows
        ],
    )


def show_task(task: Task, folder: Path | None, found: dict[str, list[str]]) -> None:
    """Print one row of the task table in full, and what of it is in the data folder."""
    shown = {
        "kind": f"{task.kind}, {task.format}, metric {task.metric}",
        "labels": ", ".join(task.labels),
        "languages": f"{task.languages}: {' '.join(task.codes)}",
        "sizes": ", ".join(f"{split} {size:,}" for split, size in task.sizes.items()),
        "source": task.source,
        "licence": task.licence,
        "hub": f"{task.hub.id}, {task.hub.config or 'default'}, revision {task.hub.revision}" if task.hub else "",
        "comes with xt": task.file,
        "trained on": task.train_on,
        "and on": ", ".join(task.parts),
        "layout": task.layout,
        **{f"{split} files": ", ".join(patterns) for split, patterns in task.files.items()},
        "note": task.note,
    }
    say(f"{task.name}: {task.title}")
    for key, value in shown.items():
        if value:
            say(f"  {key + ':':15s}{value}")
    if folder is not None and task.files:
        for split in task.files:
            codes = found.get(split, [])
            what = "nothing" if not codes else " ".join(codes) if len(task.codes) > 1 else "there"
            say(f"  {split + ' there:':15s}{what} (in {folder})")
