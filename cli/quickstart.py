"""`xt quickstart`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xt.cli.console import Counter, emit, say
from xt.cli.settings import with_flags
from xt.core.settings import Force, Json, Seed, StartTimeout

if TYPE_CHECKING:
    from xt.studies.quickstart import Answer

EPILOG = """Examples:

xt quickstart

xt quickstart --ask "Ninawezaje kubadilisha nenosiri langu?" --out demo

xt quickstart --full --steps 200 --out long"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("quickstart", epilog=EPILOG)(quickstart)


@with_flags
def quickstart(
    out: Annotated[Path, typer.Option("--out", help="Folder of all that is made; what is complete is kept.")] = Path(
        "quickstart"
    ),
    ask: Annotated[
        str | None,
        typer.Option("--ask", help="A question, in any language, to answer from the bundled English sentences."),
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="The long version: base and trained encoder exported, served, measured under load."
        ),
    ] = False,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Training steps of 16 examples. Default: 24; with --full 120.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="With --full: how long each load is measured. Default: 6.")
    ] = None,
    start_timeout: StartTimeout = 300.0,
    seed: Seed = 0,
    force: Force = False,
    json: Json = False,
) -> None:
    """Answer a question with a calibrated probability, train, measure and report: small, on the bundled encoder."""
    from xt.studies.quickstart_plan import PLAN, PLAN_FULL, QUESTION, STEPS

    started = time.monotonic()
    if full:
        if ask is not None:
            raise typer.BadParameter("--ask is answered by the short version; leave out --full")
        for line in PLAN_FULL:
            say(line)
        _full(out, steps, seconds, start_timeout, seed, force, json)
        return
    if seconds is not None:
        raise typer.BadParameter("--seconds goes with --full: the short version puts no load on a server")
    for line in PLAN:
        say(line)
    from xt.studies import quickstart as short  # seconds: after the plan is printed

    settings = short.Settings(
        out=out,
        ask=QUESTION if ask is None else ask,
        steps=STEPS if steps is None else steps,
        seed=seed,
        force=force,
        start_seconds=start_timeout,
    )
    result = short.run(settings, report=say, counter=Counter, answered=show_answer, started=started)
    say("")
    for line in short.closing(result):
        say(line)
    if json:
        emit(result.to_json())


def show_answer(answer: Answer) -> None:
    """Print the answer to the question."""
    say(f"\n{answer.question}   (answered {answer.seconds:.0f} s after the start)")
    for hit in answer.hits:
        say(f"  {hit.probability:4.0%}  {hit.text}")
    say(f"  {answer.none:4.0%}  none of the documents\n")


def _full(
    out: Path, steps: int | None, seconds: float | None, start_timeout: float, seed: int, force: bool, json: bool
) -> None:
    """Run the long version and print its tables."""
    from xt.cli import bench, train
    from xt.cli.evaluate import show
    from xt.studies.quickstart_full import SECONDS, STEPS, Settings, run

    settings = Settings(
        out=out,
        steps=STEPS if steps is None else steps,
        seconds=SECONDS if seconds is None else seconds,
        seed=seed,
        force=force,
        start_seconds=start_timeout,
    )
    result = run(settings, report=say, counter=Counter)
    train.show(result.report.training)
    show.show_metrics(result.report.encoders, languages=False)
    bench.show_rows(result.report.serving["rows"])
    say(f"\nreport: {result.page}")
    if json:
        emit({"path": str(result.page.parent), **result.report.to_json()})
