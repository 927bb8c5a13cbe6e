"""`xt bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from xt.cli.console import (
    DataDir,
    Force,
    Json,
    Model,
    Seed,
    StartTimeout,
    TlsCa,
    TlsCert,
    TlsKey,
    Truncate,
    Url,
    emit,
    say,
    table,
    tls_of,
)

EPILOG = """Examples:

xt bench --url 127.0.0.1:8001 --concurrency 1,8,64

xt bench --repository repository --rate 100,400 --deadline-ms 500 --out bench

xt bench --encoder repository/encoder --corpus sib200 --against sentence-transformers,gemm-limit

xt bench --repository repository --concurrency 64 --against infinity --peer-python infinity=infinity-env/bin/python"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench", epilog=EPILOG)(bench)


def numbers(option: str, value: str | None, *, words: tuple[str, ...] = ()) -> list[str]:
    """Split a list of positive numbers such as 1,8,64, and of `words`; wrong usage (exit 2) for anything else."""
    if value is None:
        return []
    cells = [c.strip() for c in value.split(",") if c.strip()]
    for cell in cells or [""]:
        whole, _, rest = cell.partition(".")
        digits = whole.isdigit() and (not rest or (option == "--rate" and rest.isdigit()))
        if cell not in words and not (digits and float(cell) > 0):
            also = f" or {' or '.join(words)}" if words else ""
            raise typer.BadParameter(f"{option} expects numbers such as 1,8,64{also}; found {value!r}")
    return cells


def bench(
    url: Url = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    repository: Annotated[
        Path | None, typer.Option("--repository", help="Start Triton on this repository, measure it, and stop it.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder",
            help="Measure this in process too: an exported model (REPO/NAME), or a checkpoint in PyTorch fp32.",
        ),
    ] = None,
    model: Model = None,
    concurrency: Annotated[
        str | None, typer.Option("--concurrency", help="Closed loop: callers at once, each waiting for its answer.")
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            "--rate",
            help="Open loop: requests a second at random times (Poisson); latency counts from when one was due.",
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            "--batch", help="Texts a request or, in process, a call. Default: 1 a request; in process all in one call."
        ),
    ] = None,
    input: Annotated[str, typer.Option("--input", help="What requests hold: text, ids or packed.")] = "text",
    protocol: Annotated[
        str, typer.Option("--protocol", help="http (the cheaper one for the client) or grpc.")
    ] = "http",
    against: Annotated[
        str,
        typer.Option(
            "--against",
            help="Peers on the same texts, comma-separated: sentence-transformers, sentence-transformers-bf16, "
            "sentence-transformers-onnx-int8, openvino, openvino-int8, infinity, infinity-torch; and gemm-limit: the "
            "tokens/s that this machine's int8 matrix products would allow.",
        ),
    ] = "",
    peer_python: Annotated[
        list[str] | None, typer.Option("--peer-python", help="NAME=PATH: the Python that holds a peer. Repeatable.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="Folder the peers load. Default: what the model was exported from."),
    ] = None,
    deadline_ms: Annotated[
        float | None, typer.Option("--deadline-ms", help="Deadline that every request carries, in ms.")
    ] = None,
    truncate: Truncate = False,
    cached: Annotated[
        bool,
        typer.Option(
            "--cached",
            help="Let the server's vector cache answer texts that it has seen (rows with such answers say so). "
            "Default: every text is computed.",
        ),
    ] = False,
    http_port: Annotated[
        int | None, typer.Option("--http-port", help="The server's HTTP port, where it is not found by itself.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", help="The server's metrics port, where it is not found by itself.")
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", help="How long each is measured, all turns together, warm-ups not counted.")
    ] = 20.0,
    rounds: Annotated[
        int,
        typer.Option("--rounds", help="Turns that all are measured in, one after the other; the middle one is shown."),
    ] = 3,
    corpus: Annotated[
        str,
        typer.Option(
            "--corpus", help="Where the texts come from: django, tatoeba, sib200, a folder, or a file of lines."
        ),
    ] = "django",
    texts: Annotated[
        int | None,
        typer.Option("--texts", help="Different texts to take. Default: all; a call of all takes 1,000 at most."),
    ] = None,
    data_dir: DataDir = None,
    start_timeout: StartTimeout = 300.0,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write bench.json and bench.svg to.")] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Measure throughput and latency: a server under load, an encoder in process, and peers on the same texts."""
    tls = tls_of(url, tls_ca, tls_cert, tls_key)
    if url is not None and repository is not None:
        raise typer.BadParameter("give --url or --repository, not both")
    if url is None and repository is None and encoder is None and not against:
        raise typer.BadParameter("give --url, --repository, --encoder or --against")
    batches = numbers("--batch", batch, words=("all",))
    callers = [int(c) for c in numbers("--concurrency", concurrency)]
    rates = [float(r) for r in numbers("--rate", rate)]
    from xt.bench import measure as load
    from xt.bench.session import Settings, measure, write
    from xt.core.data.bitext import data_folder
    from xt.core.errors import XtError
    from xt.core.files.artifact import refuse_existing
    from xt.core.files.replacing import named_paths
    from xt.eval.run import load_corpus, machine

    if input not in ("text", "ids", "packed"):
        raise typer.BadParameter(f"--input expects text, ids or packed; found {input!r}")
    if seconds < 1:
        raise XtError(f"--seconds {seconds:g} is too short.", "Give at least 1.")
    if out is not None:
        inputs = named_paths(corpus, repository, encoder, checkpoint, data_dir)
        refuse_existing(out, force=force, kind="bench", inputs=inputs)
    settings = Settings(
        url=url,
        tls=tls,
        repository=repository,
        encoder=encoder,
        model=model,
        checkpoint=checkpoint,
        against=tuple(a.strip() for a in against.split(",") if a.strip()),
        pythons=tuple(peer_python or ()),
        callers=tuple(callers or ([] if rates else [1, 8, 32])),
        rates=tuple(rates),
        batches=tuple(int(b) for b in batches if b != "all") or (1,),
        calls=tuple(None if b == "all" else int(b) for b in batches) or (None,),
        texts=texts,
        input=input,  # type: ignore[arg-type]
        protocol=protocol,
        truncate=truncate,
        cached=cached,
        deadline_ms=deadline_ms,
        http_port=http_port,
        metrics_port=metrics_port,
        seconds=seconds,
        rounds=rounds,
        seed=seed,
        start_seconds=start_timeout,
    )
    found = load.read_texts(corpus, data_folder(data_dir))
    if found is None:
        found = [t for pair in load_corpus(corpus, data_dir=data_dir).pairs for t in (*pair.foreign, *pair.english)]
    document = measure(settings, load.mixed(found, seed=seed), say)
    report = {"corpus": corpus, "seconds": seconds, "rounds": rounds, "machine": machine(), **document.to_json()}
    show_rows(report["rows"])
    show_costs(report["rows"])
    if document.limit is not None:
        limit = document.limit
        say(
            f"int8 matrix products: {limit['gops']:.0f} GOP/s ({limit['way']}), which would allow "
            f"{limit['tokens_per_second']:,.0f} tokens/s at {limit['flop_per_token'] / 1e6:.1f} M operations a token"
        )
    if out is not None:
        write(out, report, f"xt bench, {corpus}", seed=seed, force=force)
        say(f"written: {out}/bench.json, {out}/bench.svg")
    if json:
        emit(report)


def show_rows(rows: list[dict[str, Any]]) -> None:
    """Print the measurements."""
    from xt.bench.plot import describe

    columns = ["engine", "model", "load", "sentences/s", "tokens/s", "p50 ms", "p95 ms", "p99 ms", "max ms"]
    limited = any(r.get("share_of_limit") is not None for r in rows)
    cells = [
        [
            r["engine"],
            r["model"],
            describe(r),
            f"{r['sentences_per_second']:.0f}",
            f"{r['tokens_per_second']:.0f}",
            *(f"{r[k]:.1f}" for k in ("p50_ms", "p95_ms", "p99_ms", "max_ms")),
            *([f"{r['share_of_limit']:.2f}"] if limited else []),
        ]
        for r in rows
    ]
    title = "latency of a request, or of a call in process; open loops count it from when a request was due"
    table(title, [*columns, *(["of limit"] if limited else [])], cells)


def show_costs(rows: list[dict[str, Any]]) -> None:
    """Print what served measurements cost, met (refusals, errors) and shared (passes, the cache), in two tables."""
    from xt.bench.plot import describe

    rows = [r for r in rows if r["mode"] != "in process"]
    if not rows:
        return
    costs, batches = [], []
    for r in rows:
        server = r["server_cpu_seconds"]
        costs.append(
            [
                r["engine"],
                describe(r),
                f"{r['client_cpu_share']:.2f}",
                f"{r['client_us_per_request']:.0f}",
                "not readable" if server is None else f"{server / r['seconds']:.2f}",
                r["refused"],
                "-" if r["refused_within_50_ms"] is None else f"{r['refused_within_50_ms']:.0%}",
                r["errors"],
            ]
        )
        forms = (("mean_micro_batch", "{:.1f}"), ("padding_ratio", "{:.2f}"), ("cache_hits", "{}"))
        shared = ["-" if r[key] is None else form.format(r[key]) for key, form in forms]
        batches.append([r["engine"], describe(r), *shared, r["truncated"]])
    columns = ["engine", "load", "client cores", "us a request", "server cores", "refused", "in 50 ms", "errors"]
    table("what it cost (CPU in cores) and what was refused", columns, costs)
    table(
        "how it was batched, by the server's own metrics",
        ["engine", "load", "texts a pass", "padding", "cache hits", "cut"],
        batches,
    )
    unread = [
        what
        for key, what in (("gpu_use_percent", "GPU use"), ("gpu_joules", "GPU energy"), ("cpu_joules", "CPU energy"))
        if all(r[key] is None for r in rows)
    ]
    if unread:
        say(f"not readable on this machine: {', '.join(unread)}")
    for r in rows:
        if r["first_error"]:
            say(f"{r['engine']}, {describe(r)}: the first error: {r['first_error']}")
        if r["repeated"] > 0:
            computed = " (and were computed again)" if r["cache"] == "off" else ""
            say(f"{r['engine']}, {describe(r)}: {r['repeated']:.0%} of the texts had been sent before{computed}")
