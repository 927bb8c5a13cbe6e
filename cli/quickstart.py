"""`xt quickstart`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from xt.cli.console import REPORTER, emit, say
from xt.cli.settings import with_flags
from xt.core.settings import Json
from xt.studies.options import QuickstartOptions

if TYPE_CHECKING:
    from xt.studies.quickstart.answer import Answer

EPILOG = """Examples:

xt quickstart

xt quickstart --ask "Ninawezaje kubadilisha nenosiri langu?" --out demo

xt quickstart --full --steps 200 --out long"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("quickstart", epilog=EPILOG)(quickstart)


@with_flags
def quickstart(options: QuickstartOptions, json: Json = False) -> None:
    """Answer a question with a calibrated probability, train, measure and report: small, on the bundled encoder."""
    from xt.studies.quickstart.plan import PLAN, PLAN_FULL

    started = time.monotonic()
    for line in PLAN_FULL if options.full else PLAN:
        say(line)
    if options.full:
        _full(options, json)
    else:
        _short(options, started, json)


def _short(options: QuickstartOptions, started: float, json: bool) -> None:
    """Run the short version and print its answer and its sentences."""
    from xt.studies.quickstart.run import run  # seconds: after the plan is printed
    from xt.studies.quickstart.settings import Settings
    from xt.studies.quickstart.words import closing

    settings = Settings(**options.given("ask", "steps"))
    result = run(settings, reporter=REPORTER, answered=show_answer, started=started)
    say("")
    for line in closing(result.report, result.page):
        say(line)
    if json:
        emit(result.to_json())


def show_answer(answer: Answer) -> None:
    """Print the answer to the question."""
    say(f"\n{answer.question}   (answered {answer.seconds:.0f} s after the start)")
    for hit in answer.hits:
        say(f"  {hit.probability:4.0%}  {hit.text}")
    say(f"  {answer.none:4.0%}  none of the documents\n")


def _full(options: QuickstartOptions, json: bool) -> None:
    """Run the long version and print its tables."""
    from xt.cli import bench, train
    from xt.cli.evaluate import show
    from xt.core.results.work import Serving, Training
    from xt.studies.quickstart.full import Settings, run

    result = run(Settings(**options.given("steps", "seconds")), reporter=REPORTER)
    train.show(result.report.training or Training())
    show.show_metrics(result.report.encoders, languages=False)
    bench.show_rows((result.report.serving or Serving()).rows)
    say(f"\nreport: {result.page}")
    if json:
        emit({"path": str(result.page.parent), **result.report.to_json()})
