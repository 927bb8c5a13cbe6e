"""`xt bench`."""

from __future__ import annotations

from typing import Any

import typer

from xt.bench.options import BenchOptions
from xt.cli.console import emit, say, table
from xt.cli.settings import with_flags
from xt.core.results.work import ServingRow
from xt.core.settings import Json

EPILOG = """Examples:

xt bench --url 127.0.0.1:8001 --concurrency 1,8,64

xt bench --repository repository --rate 100,400 --deadline-ms 500 --out bench

xt bench --encoder repository/encoder --corpus sib200 --against sentence-transformers,gemm-limit

xt bench --repository repository --concurrency 64 --against infinity --peer-python infinity=infinity-env/bin/python"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench", epilog=EPILOG)(bench)


@with_flags
def bench(options: BenchOptions, json: Json = False) -> None:
    """Measure throughput and latency: a server under load, an encoder in process, and peers on the same texts."""
    from xt.bench.session import run

    report = run(options, report=say)
    show_rows([ServingRow.from_json(row) for row in report["rows"]])
    show_costs(report["rows"])
    if limit := report["limit"]:
        say(
            f"int8 matrix products: {limit['gops']:.0f} GOP/s ({limit['way']}), which would allow "
            f"{limit['tokens_per_second']:,.0f} tokens/s at {limit['flop_per_token'] / 1e6:.1f} M operations a token"
        )
    if options.out is not None:
        say(f"written: {options.out}/bench.json, {options.out}/bench.svg")
    if json:
        emit(report)


def show_rows(rows: list[ServingRow]) -> None:
    """Print the measurements."""
    columns = ["engine", "model", "load", "sentences/s", "tokens/s", "p50 ms", "p95 ms", "p99 ms", "max ms"]
    limited = any(r.share_of_limit is not None for r in rows)
    cells = [
        [
            r.engine,
            r.model,
            r.load,
            *(f"{value or 0:.0f}" for value in (r.sentences_per_second, r.tokens_per_second)),
            *(f"{value or 0:.1f}" for value in (r.p50_ms, r.p95_ms, r.p99_ms, r.max_ms)),
            *([f"{r.share_of_limit or 0:.2f}"] if limited else []),
        ]
        for r in rows
    ]
    title = "latency of a request, or of a call in process; open loops count it from when a request was due"
    table(title, [*columns, *(["of limit"] if limited else [])], cells)


def show_costs(rows: list[dict[str, Any]]) -> None:
    """Print what served measurements cost, met (refusals, errors) and shared (passes, the cache), in two tables."""
    rows = [r for r in rows if r["mode"] != "in process"]
    if not rows:
        return
    costs, batches = [], []
    loads = [ServingRow.from_json(r).load for r in rows]
    for r, load in zip(rows, loads, strict=True):
        server = r["server_cpu_seconds"]
        costs.append(
            [
                r["engine"],
                load,
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
        batches.append([r["engine"], load, *shared, r["truncated"]])
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
    for r, load in zip(rows, loads, strict=True):
        if r["first_error"]:
            say(f"{r['engine']}, {load}: the first error: {r['first_error']}")
        if r["repeated"] > 0:
            computed = " (and were computed again)" if r["cache"] == "off" else ""
            say(f"{r['engine']}, {load}: {r['repeated']:.0%} of the texts had been sent before{computed}")
