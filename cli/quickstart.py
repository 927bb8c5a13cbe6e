"""`xt quickstart`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xt.cli.console import Counter, Force, Json, Seed, StartTimeout, emit, say

EPILOG = """Examples:

xt quickstart

xt quickstart --out demo --steps 200"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("quickstart", epilog=EPILOG)(quickstart)


def quickstart(
    out: Annotated[Path, typer.Option("--out", help="Folder of all that is made; what is complete is kept.")] = Path(
        "quickstart"
    ),
    steps: Annotated[int, typer.Option("--steps", help="Training steps of 16 examples.")] = 120,
    seconds: Annotated[float, typer.Option("--seconds", help="How long each load is measured.")] = 6.0,
    start_timeout: StartTimeout = 300.0,
    seed: Seed = 0,
    force: Force = False,
    json: Json = False,
) -> None:
    """Train, export, serve, retrieve, calibrate, measure and report, small, on the bundled encoder and corpus."""
    from xt.cli import bench, evaluate_show, train
    from xt.studies.quickstart import Settings, run

    settings = Settings(out=out, steps=steps, seconds=seconds, seed=seed, force=force, start_seconds=start_timeout)
    result = run(settings, report=say, counter=Counter)
    train.show(result.metrics["training"])
    evaluate_show.show_metrics(result.metrics["encoders"], languages=False)
    bench.show_rows(result.metrics["serving"]["rows"])
    say(f"\nreport: {result.page}")
    if json:
        emit({"path": str(result.page.parent), **result.metrics})
