"""`xt eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from xt.cli import tasks
from xt.cli.console import (
    Counter,
    DataDir,
    Device,
    Force,
    Json,
    Languages,
    Model,
    Out,
    TlsCa,
    TlsCert,
    TlsKey,
    Truncate,
    Url,
    emit,
    tls_of,
)
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
OWN_FORMATS = ("pair", "single", "regression", "choice", "tagging", "qa")
"""Formats of own data that a head answers."""
RESULTS = "give no --encoder and no --url: --summary and --compare read reports that are there"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("eval", epilog=EVAL_EPILOG)(evaluate)
    tasks.register(app)


def evaluate(
    task: Annotated[
        list[str],
        typer.Argument(
            help="One or more tasks of xt tasks (tatoeba, bucc, xquad-r, xnli ...); or your own: a folder of "
            "line-aligned files, ids:FOLDER of <lang>.tsv with id and text, mine:FOLDER in BUCC's layout, beir:FOLDER, "
            "FORMAT:PATH for a head, image-text:FOLDER. With --summary or --compare: report folders."
        ),
    ],
    out: Out,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help="A checkpoint, model or repository folder, a short name or a hub id."),
    ] = None,
    url: Url = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    model: Model = None,
    languages: Languages = "all",
    data_dir: DataDir = None,
    truncate: Truncate = False,
    head: Annotated[
        str | None,
        typer.Option(
            "--head",
            help="Your own data (FORMAT:PATH): the head that answers them, where several could. Default: the one of "
            "the format that knows their labels.",
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            help="Also measure retrieval from these layers of a PyTorch checkpoint: all, or numbers (0: embeddings).",
        ),
    ] = None,
    pool: Annotated[
        int | None,
        typer.Option(
            "--pool",
            min=2,
            help="Parallel text: candidates of the random pools, the same number in every language, in which accuracy "
            "is measured too. Default 200, where a language has as many.",
        ),
    ] = None,
    margin: Annotated[
        str | None,
        typer.Option("--margin", help="Mining: the score of a pair, ratio, distance or absolute. Default ratio."),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            "--search",
            help="Mining: how neighbours are found: exact, ivf (an index; its recall is told), or auto, exact up to "
            "100,000 sentences a side. Default auto.",
        ),
    ] = None,
    cut: Annotated[
        bool,
        typer.Option(
            "--cut", help="Ranked retrieval: measure at the number of documents where a measure looks further."
        ),
    ] = False,
    summary: Annotated[
        bool, typer.Option("--summary", help="Put the table of --benchmark together from report folders.")
    ] = False,
    benchmark: Annotated[
        str | None, typer.Option("--benchmark", help="With --summary: xtreme or xtreme-r. Default xtreme.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare two report folders: differences with paired intervals.")
    ] = False,
    calibrate_on: Annotated[
        str | None,
        typer.Option(
            "--calibrate-on",
            help="Parallel text, ranked retrieval: what Platt, isotonic, histogram and beta are fitted on: zero-shot "
            "or pooled. Default: zero-shot where its languages are there.",
        ),
    ] = None,
    shots: Annotated[
        str | None,
        typer.Option(
            "--shots", help="Parallel text: also temperatures from so many labelled queries, as in 16,50,100."
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            help="Parallel text, ranked retrieval: also apply what another report fitted, which saw nothing of this.",
        ),
    ] = None,
    install: Annotated[
        Path | None,
        typer.Option(
            "--install", help="Parallel text, ranked retrieval: give the retrievers of this repository the calibration."
        ),
    ] = None,
    cache: Annotated[
        bool,
        typer.Option("--cache/--no-cache", help="Keep vectors, and take those kept, by encoder and text."),
    ] = True,
    device: Device = "auto",
    force: Force = False,
    json: Json = False,
) -> None:
    """Measure retrieval of translations, mining, ranking or trained heads over languages; write a report.

    Parallel text is retrieved from in both directions and calibrated, pairs are mined and documents ranked by any
    encoder. Other tasks are answered by the trained head for them, or for the task that they train on.
    """
    from xt.core.files.artifact import refuse_existing
    from xt.core.files.replacing import named_paths

    if head is not None and not any(name.partition(":")[0] in OWN_FORMATS for name in task):
        raise typer.BadParameter("--head is for your own data, FORMAT:PATH; none of the tasks is")
    tls = tls_of(url, tls_ca, tls_cert, tls_key)
    if summary or compare:
        if summary and compare:
            raise typer.BadParameter("give one of --summary and --compare")
        if encoder is not None or url is not None:
            raise typer.BadParameter(RESULTS)
        kind = "summary" if summary else "report"
        refuse_existing(out, force=force, kind=kind, inputs=named_paths(task))
        document = summarise(task, benchmark or "xtreme", out, force) if summary else compared(task, out, force)
        if json:
            emit(document)
        return
    if benchmark is not None:
        raise typer.BadParameter("--benchmark goes with --summary")
    if (encoder is None) == (url is None):
        raise typer.BadParameter("give one of --encoder and --url")
    kinds = [kind_of(t) for t in task]
    check_options(kinds, layers=layers, pool=pool, margin=margin, search=search, cut=cut)
    trust = trust_options(kinds, calibrate_on, shots, calibration, install)
    if layers is not None and url is not None:
        raise typer.BadParameter("--layers reads a checkpoint in PyTorch: give it by --encoder, not --url")
    numbers = layer_numbers(layers)
    folders = report_folders(task, out)
    for folder in folders:
        inputs = named_paths(task, encoder, calibration, install, data_dir)
        refuse_existing(folder, force=force, kind="report", inputs=inputs)
    if "images" in kinds:
        if set(kinds) != {"images"} or encoder is None:
            raise typer.BadParameter("image-text:FOLDER is evaluated by itself, with --encoder CHECKPOINT")
        shown = [evaluate_images(encoder, t, f, languages, device, force) for t, f in zip(task, folders, strict=True)]
        if json:
            emit(shown[0] if len(shown) == 1 else shown)
        return
    documents: dict[Path, dict[str, Any]] = {}
    work = list(zip(task, kinds, folders, strict=True))
    asked = {f: task_of_heads(t, layers) for t, kind, f in work if kind == "heads"}
    only = model if len(asked) == len(work) else None  # else --model names the encoder
    heads = None
    if any(row.own for row in asked.values()):  # the labels of a user's own data are those of the head
        heads = open_heads(encoder, url, only, device, tls)
    tests = {f: read_test(row, data_dir, languages, heads=heads, head=head) for f, row in asked.items()}
    corpora = {f: load_corpus(t, data_dir, languages) for t, kind, f in work if kind == "bitext"}
    if len(tests) < len(work):
        opened = open_encoder(encoder, url, model, device, tls)
        kept = with_cache(opened, device) if cache and url is None else opened
        sweep = None if layers is None else layer_sweep(opened[0], encoder, numbers, truncate)
    for name, kind, folder in work:
        if kind == "bitext":
            documents[folder] = evaluate_corpus(
                kept,
                corpora[folder],
                folder,
                pool=pool,
                trust=trust,
                measure_layers=sweep,
                truncate=truncate,
                force=force,
            )
        elif kind == "mining":
            documents[folder] = evaluate_mined(
                opened,
                name,
                folder,
                data_dir=data_dir,
                languages=languages,
                margin=margin or "ratio",
                search=search or "auto",
                truncate=truncate,
                force=force,
            )
        elif kind == "ranked":
            documents[folder] = evaluate_ranked(
                kept, name, folder, data_dir=data_dir, languages=languages, cut=cut, trust=trust, force=force
            )
    if tests:
        documents |= evaluate_heads(heads or open_heads(encoder, url, only, device, tls), tests, force=force)
    if json:
        emit(documents[folders[0]] if len(folders) == 1 else [documents[f] for f in folders])


def trust_options(
    kinds: list[str], calibrate_on: str | None, shots: str | None, calibration: Path | None, install: Path | None
) -> Trust:
    """Check the options of calibration, and read what another report fitted, before anything is computed."""
    from xt.calibration.search import MAP_SCOPES
    from xt.core.errors import unknown

    given = {"--calibrate-on": calibrate_on, "--shots": shots, "--calibration": calibration, "--install": install}
    for option, value in given.items():
        fit = ("bitext",) if option == "--shots" else ("bitext", "ranked")
        if value is not None and not set(fit) & set(kinds):
            what = "parallel text" if option == "--shots" else "parallel text or ranked retrieval"
            raise typer.BadParameter(f"{option} is for {what}; none of the tasks is")
    if install is not None and kinds.count("bitext") + kinds.count("ranked") > 1:
        raise typer.BadParameter("--install takes the calibration of one corpus; several were given")
    if calibrate_on is not None and calibrate_on not in MAP_SCOPES:
        raise unknown("scope", calibrate_on, MAP_SCOPES)
    words = [w.strip() for w in shots.split(",")] if shots is not None else []
    if not all(w.isascii() and w.isdigit() and int(w) > 0 for w in words):
        raise typer.BadParameter(f"--shots expects numbers of queries, as in 16,50,100; not {shots!r}")
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


def check_options(
    kinds: list[str], *, layers: str | None, pool: int | None, margin: str | None, search: str | None, cut: bool
) -> None:
    """Refuse an option that none of the tasks would heed, and a name that it does not know."""
    from xt.core.errors import unknown
    from xt.eval.mining.margin import MARGINS, SEARCHES

    needs = {
        "--layers": (layers, "bitext", "parallel text"),
        "--pool": (pool, "bitext", "parallel text"),
        "--margin": (margin, "mining", "mining"),
        "--search": (search, "mining", "mining"),
        "--cut": (cut or None, "ranked", "ranked retrieval"),
    }
    for option, (value, kind, what) in needs.items():
        if value is not None and kind not in kinds:
            raise typer.BadParameter(f"{option} is for {what}; none of the tasks is")
    if margin is not None and margin not in MARGINS:
        raise unknown("margin", margin, MARGINS)
    if search is not None and search not in SEARCHES:
        raise unknown("search", search, SEARCHES)


def report_folders(names: list[str], out: Path) -> list[Path]:
    """Name the folder of each task's report: `out`, or below it one for each of several.

    >>> [str(p) for p in report_folders(["tatoeba", "mine:a/b", "single:c"], Path("reports"))]
    ['reports/tatoeba', 'reports/b', 'reports/c']
    """
    if len(names) == 1:
        return [out]
    folders = [out / Path(name.rsplit(":", 1)[-1]).resolve().name for name in names]
    if twice := sorted({f.name for f in folders if folders.count(f) > 1}):
        raise typer.BadParameter(f"two tasks would be reported in {', '.join(twice)}: evaluate them one by one")
    return folders


def summarise(names: list[str], benchmark: str, out: Path, force: bool) -> dict[str, Any]:
    """Put a benchmark's table together and write its folder: what --json prints."""
    from xt.eval.summary import write_summary

    artifact, metrics = write_summary([Path(n).expanduser() for n in names], benchmark, out, force=force)
    show_summary(metrics)
    return {"path": str(artifact.path), **metrics}


def compared(names: list[str], out: Path, force: bool) -> dict[str, Any]:
    """Compare two report folders and write a third: what --json prints."""
    from xt.eval.compare import compare

    if len(names) != 2:
        raise typer.BadParameter(f"--compare takes two report folders, found {len(names)}")
    a, b = (Path(n).expanduser() for n in names)
    document: dict[str, Any] = compare(a, b, out, force=force, progress=Counter("languages"))
    show_comparison(document, out)
    return {"path": str(out), **document}
