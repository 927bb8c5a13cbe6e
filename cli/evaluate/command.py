"""`xt eval`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from xt.cli import tasks
from xt.cli.console import Counter, emit
from xt.cli.evaluate.kinds import (
    Trust,
    evaluate_corpus,
    evaluate_heads,
    evaluate_images,
    evaluate_mined,
    evaluate_ranked,
    layer_numbers,
    layer_sweep,
    open_encoder,
    open_heads,
    read_test,
    task_of_heads,
    with_cache,
)
from xt.cli.evaluate.show import show_comparison, show_summary
from xt.cli.settings import with_flags
from xt.core.errors import UsageError
from xt.core.settings import Json
from xt.eval.options import CalibrationFlags, EvalOptions, Measures

__all__ = ["open_encoder", "register"]

EVAL_EPILOG = """Examples:

xt eval tatoeba --encoder multilingual-e5-small --data-dir data --languages xtreme --out reports/tatoeba

xt eval django --url 127.0.0.1:8001 --model encoder --out reports/served

xt eval ./my-bitext --encoder repository --out reports/mine

xt eval ids:my-corpus --encoder repository --pool 100 --out reports/by-id

xt eval tatoeba --encoder xlm-roberta-large --data-dir data --languages xtreme --layers all --out reports/layers

xt eval sib200 --encoder runs/sib200 --data-dir data --languages low-resource --out reports/sib200

xt eval single:german.jsonl --encoder runs/intents --languages de --out reports/german

xt eval tatoeba-mining xquad-r --encoder repository --data-dir data --languages de,ru --out reports/more

xt eval beir:scifact --url 127.0.0.1:8001 --out reports/scifact

xt eval django --url 127.0.0.1:8001 --tls-ca ca.pem --out reports/encrypted

xt eval --summary reports/tatoeba reports/xnli --benchmark xtreme --out reports/xtreme

xt eval --compare reports/before reports/after --out reports/difference"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("eval", epilog=EVAL_EPILOG)(evaluate)
    tasks.register(app)


@with_flags
def evaluate(options: EvalOptions, json: Json = False) -> None:
    """Measure retrieval of translations, mining, ranking or trained heads over languages; write a report.

    Parallel text is retrieved from in both directions and calibrated, pairs are mined and documents ranked by any
    encoder. Other tasks are answered by the trained head for them, or for the task that they train on.
    """
    if options.results.summary or options.results.compare:
        document: Any = made_of_reports(options)
    else:
        documents = measured(options)
        document = documents[0] if len(documents) == 1 else documents
    if json:
        emit(document)


def made_of_reports(options: EvalOptions) -> dict[str, Any]:
    """Put the table of a benchmark together, or compare two reports: what --json prints."""
    from xt.core.files.artifact import refuse_existing
    from xt.core.files.replacing import named_paths

    task, out, force, results = options.task, options.out, options.force, options.results
    kind = "summary" if results.summary else "report"
    refuse_existing(out, force=force, kind=kind, inputs=named_paths(task))
    if results.summary:
        return summarise(task, results.benchmark or "xtreme", out, force)
    return compared(task, out, force)


def measured(options: EvalOptions) -> list[dict[str, Any]]:
    """Evaluate every task and write its report: what --json prints of each."""
    from xt.core.files.artifact import refuse_existing
    from xt.core.files.replacing import named_paths

    task, force, location, measures = options.task, options.force, options.location, options.measures
    kinds = [kind_of(t) for t in task]
    check_options(kinds, measures)
    trust = trust_options(kinds, options.calibration)
    if measures.layers is not None and location.url is not None:
        raise UsageError("--layers reads a checkpoint in PyTorch: give it by --encoder, not --url")
    numbers = layer_numbers(measures.layers)
    folders = report_folders(task, options.out)
    for folder in folders:
        inputs = named_paths(task, location.encoder, trust.calibration, trust.install, options.data_dir)
        refuse_existing(folder, force=force, kind="report", inputs=inputs)
    work = list(zip(task, kinds, folders, strict=True))
    if "images" in kinds:
        if set(kinds) != {"images"} or location.encoder is None:
            raise UsageError("image-text:FOLDER is evaluated by itself, with --encoder CHECKPOINT")
        encoder, device, languages = location.encoder, location.device, options.languages
        return [evaluate_images(encoder, t, f, languages, device, force) for t, _, f in work]
    asked = {f: task_of_heads(t, measures.layers) for t, kind, f in work if kind == "heads"}
    named = location if len(asked) == len(work) else replace(location, model=None)  # else --model names the encoder
    heads = None
    if any(row.own for row in asked.values()):  # the labels of a user's own data are those of the head
        heads = open_heads(named)
    tests = {
        f: read_test(row, options.data_dir, options.languages, heads=heads, head=measures.head)
        for f, row in asked.items()
    }
    documents = by_vectors(options, [row for row in work if row[1] != "heads"], trust, numbers)
    if tests:
        documents |= evaluate_heads(heads or open_heads(named), tests, force=force)
    return [documents[f] for f in folders]


def by_vectors(
    options: EvalOptions, work: list[tuple[str, str, Path]], trust: Trust, layers: list[int] | None
) -> dict[Path, dict[str, Any]]:
    """Evaluate the tasks, (name, kind, folder) each, that an encoder's vectors answer: folder -> what --json prints."""
    data_dir, languages, location, measures = options.data_dir, options.languages, options.location, options.measures
    corpora = {f: load_corpus(t, data_dir, languages) for t, kind, f in work if kind == "bitext"}
    documents: dict[Path, dict[str, Any]] = {}
    if not work:
        return documents
    opened = open_encoder(location)
    kept = with_cache(opened, location.device) if options.cache and location.url is None else opened
    sweep = None
    if measures.layers is not None:
        sweep = layer_sweep(opened[0], location.encoder, layers, options.truncate)
    for name, kind, folder in work:
        if kind == "bitext":
            documents[folder] = evaluate_corpus(
                kept,
                corpora[folder],
                folder,
                pool=measures.pool,
                trust=trust,
                measure_layers=sweep,
                truncate=options.truncate,
                force=options.force,
            )
        elif kind == "mining":
            documents[folder] = evaluate_mined(
                opened,
                name,
                folder,
                data_dir=data_dir,
                languages=languages,
                margin=measures.margin or "ratio",
                search=measures.search or "auto",
                truncate=options.truncate,
                force=options.force,
            )
        elif kind == "ranked":
            documents[folder] = evaluate_ranked(
                kept,
                name,
                folder,
                data_dir=data_dir,
                languages=languages,
                cut=measures.cut,
                trust=trust,
                force=options.force,
            )
    return documents


def trust_options(kinds: list[str], flags: CalibrationFlags) -> Trust:
    """Check the options of calibration, and read what another report fitted, before anything is computed."""
    from xt.calibration.search import MAP_SCOPES
    from xt.core.errors import unknown

    calibrate_on, shots = flags.calibrate_on, flags.shots
    calibration, install = flags.calibration, flags.install
    given = {"--calibrate-on": calibrate_on, "--shots": shots, "--calibration": calibration, "--install": install}
    for option, value in given.items():
        fit = ("bitext",) if option == "--shots" else ("bitext", "ranked")
        if value is not None and not set(fit) & set(kinds):
            what = "parallel text" if option == "--shots" else "parallel text or ranked retrieval"
            raise UsageError(f"{option} is for {what}; none of the tasks is")
    if install is not None and kinds.count("bitext") + kinds.count("ranked") > 1:
        raise UsageError("--install takes the calibration of one corpus; several were given")
    if calibrate_on is not None and calibrate_on not in MAP_SCOPES:
        raise unknown("scope", calibrate_on, MAP_SCOPES)
    words = [w.strip() for w in shots.split(",")] if shots is not None else []
    if not all(w.isascii() and w.isdigit() and int(w) > 0 for w in words):
        raise UsageError(f"--shots expects numbers of queries, as in 16,50,100; not {shots!r}")
    return Trust(calibrate_on, tuple(int(w) for w in words), calibration, install)


def load_corpus(name: str, data_dir: Path | None, languages: str) -> Any:
    """Read parallel text: a task of the table, a folder, or ids:FOLDER."""
    from xt.eval import run

    return run.load_corpus(name, data_dir=data_dir, selection=languages)


def kind_of(name: str) -> str:
    """Say what a task is evaluated as: images, mining, ranked, bitext or heads.

    >>> [kind_of(name) for name in ("image-text:emoji", "mine:data", "xquad-r", "tatoeba", "ids:data", "single:a.tsv")]
    ['images', 'mining', 'ranked', 'bitext', 'bitext', 'heads']
    """
    from xt.core.data.sources import OWN_METRICS
    from xt.core.data.tasks import get
    from xt.core.errors import XtError
    from xt.eval import protocols
    from xt.eval.mining import run as mining_run
    from xt.eval.run import is_folder

    form, colon, _ = name.partition(":")
    if name.startswith("image-text:"):
        return "images"
    if mining_run.is_mining(name):
        return "mining"
    if protocols.is_ranked(name):
        return "ranked"
    if colon and form in OWN_METRICS:
        return "heads"
    if Path(name).expanduser().is_file():
        raise XtError(f"{name} is a file without its format.", f"Write FORMAT:PATH, such as single:{name}.")
    if form == "ids" or is_folder(name):
        return "bitext"
    return "bitext" if get(name).format == "bitext" else "heads"


def check_options(kinds: list[str], measures: Measures) -> None:
    """Refuse an option that none of the tasks would heed, and a name that it does not know."""
    from xt.core.errors import unknown
    from xt.eval.mining.margin import MARGINS, SEARCHES

    needs = {
        "--layers": (measures.layers, "bitext", "parallel text"),
        "--pool": (measures.pool, "bitext", "parallel text"),
        "--margin": (measures.margin, "mining", "mining"),
        "--search": (measures.search, "mining", "mining"),
        "--cut": (measures.cut or None, "ranked", "ranked retrieval"),
    }
    for option, (value, kind, what) in needs.items():
        if value is not None and kind not in kinds:
            raise UsageError(f"{option} is for {what}; none of the tasks is")
    if measures.margin is not None and measures.margin not in MARGINS:
        raise unknown("margin", measures.margin, MARGINS)
    if measures.search is not None and measures.search not in SEARCHES:
        raise unknown("search", measures.search, SEARCHES)


def report_folders(names: list[str], out: Path) -> list[Path]:
    """Name the folder of each task's report: `out`, or below it one for each of several.

    >>> [str(p) for p in report_folders(["tatoeba", "mine:a/b", "single:c"], Path("reports"))]
    ['reports/tatoeba', 'reports/b', 'reports/c']
    """
    if len(names) == 1:
        return [out]
    folders = [out / Path(name.rsplit(":", 1)[-1]).resolve().name for name in names]
    if twice := sorted({f.name for f in folders if folders.count(f) > 1}):
        raise UsageError(f"two tasks would be reported in {', '.join(twice)}: evaluate them one by one")
    return folders


def summarise(names: list[str], benchmark: str, out: Path, force: bool) -> dict[str, Any]:
    """Put a benchmark's table together and write its folder: what --json prints."""
    from xt.eval.summary import write_summary

    artifact, report = write_summary([Path(n).expanduser() for n in names], benchmark, out, force=force)
    show_summary(report)
    return {"path": str(artifact.path), **report.to_json()}


def compared(names: list[str], out: Path, force: bool) -> dict[str, Any]:
    """Compare two report folders and write a third: what --json prints."""
    from xt.eval.compare import compare

    if len(names) != 2:
        raise UsageError(f"--compare takes two report folders, found {len(names)}")
    a, b = (Path(n).expanduser() for n in names)
    report = compare(a, b, out, force=force, progress=Counter("languages"))
    assert report.comparison is not None
    show_comparison(report.comparison, out)
    return {"path": str(out), **report.to_json()}
