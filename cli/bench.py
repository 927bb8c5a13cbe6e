"""`xt bench`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from xt.cli.console import Json, Model, Url, emit, say, table

EPILOG = """Examples:

xt bench --url 127.0.0.1:8001 --concurrency 1,8,32

xt bench --repository repository --encoder multilingual-e5-small --seconds 10 --json"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench", epilog=EPILOG)(bench)


def bench(
    url: Url = None,
    repository: Annotated[
        Path | None, typer.Option("--repository", help="Start Triton on this repository, measure it, and stop it.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Measure this checkpoint too, in process: PyTorch fp32.")
    ] = None,
    model: Model = None,
    concurrency: Annotated[
        str, typer.Option("--concurrency", help="Callers at once, each with one sentence a request.")
    ] = "1,8,32",
    seconds: Annotated[
        float, typer.Option("--seconds", help="How long each is measured, in three interleaved turns.")
    ] = 20.0,
    corpus: Annotated[
        str, typer.Option("--corpus", help="Where the sentences come from: django, tatoeba or a folder.")
    ] = "django",
    json: Json = False,
) -> None:
    """Measure throughput and latency: a server under concurrent callers, and PyTorch fp32 in process beside it."""
    from functools import partial

    from xt.core.errors import XtError
    from xt.eval.run import load_corpus, machine
    from xt.serve import bench as load
    from xt.serve.launcher import TritonServer

    if url is not None and repository is not None:
        raise typer.BadParameter("give --url or --repository, not both")
    if url is None and repository is None and encoder is None:
        raise typer.BadParameter("give --url, --repository or --encoder")
    if not all(c.strip().isdigit() and int(c) > 0 for c in concurrency.split(",")):
        raise typer.BadParameter(f"--concurrency expects numbers such as 1,8,32; found {concurrency!r}")
    if seconds < 1:
        raise XtError(f"--seconds {seconds:g} is too short.", "Give at least 1.")
    levels = [int(c) for c in concurrency.split(",")]
    texts = load.mixed_texts(load_corpus(corpus).pairs)
    with ExitStack() as stack:
        measurements = []
        if repository is not None:
            url = stack.enter_context(TritonServer(repository)).url
        if url is not None:
            measurements += [partial(load.served, url, model, texts, c) for c in levels]
        if encoder is not None:
            from xt.core import torch_engine

            opened = torch_engine.load(encoder)
            measurements += [
                partial(load.in_process, opened, texts, "pytorch fp32, in process", opened.spec.name, c) for c in levels
            ]
        say(f"measuring {len(measurements)} settings, {seconds:g} s each")
        rows = load.interleaved(measurements, seconds)
    show_rows([r.to_json() for r in rows])
    if json:
        emit({"corpus": corpus, "seconds": seconds, "machine": machine(), "rows": [r.to_json() for r in rows]})


def show_rows(rows: list[dict[str, Any]]) -> None:
    """Print the measurements."""
    columns = ["engine", "model", "callers", "sentences/s", "tokens/s", "p50 ms", "p95 ms", "p99 ms", "client CPU"]
    cells = [
        [
            r["engine"],
            r["model"],
            r["concurrency"],
            f"{r['sentences_per_second']:.0f}",
            f"{r['tokens_per_second']:.0f}",
            f"{r['p50_ms']:.1f}",
            f"{r['p95_ms']:.1f}",
            f"{r['p99_ms']:.1f}",
            f"{r['client_cpu_share']:.2f}",
        ]
        for r in rows
    ]
    table("one sentence a request; in process: so many sentences a call; client CPU in cores", columns, cells)
