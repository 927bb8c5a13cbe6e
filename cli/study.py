"""`xt study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xt.cli.console import REPORTER, emit, say
from xt.cli.settings import with_flags
from xt.core.settings import Flag, Json
from xt.studies.options import STUDIES, StudyOptions

RUN_EPILOG = """Examples:

xt study run transfer --data-dir data --out results/transfer

xt study run transfer --data-dir data --out results/trial --only base --only nli --scale 0.1

xt study run accuracy --data-dir data --encoder repository --out results/accuracy

xt study run training-speed --data-dir data --precision bf16 --out results/speed"""
LIST_EPILOG = """Examples:

xt study list

xt study list --json"""
REPORT_EPILOG = """Examples:

xt study report results/transfer

xt study report results/transfer --json"""


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(
        help="Answer research questions: grids over the stages, kept and resumed.",
        no_args_is_help=True,
        rich_markup_mode="markdown",
    )
    group.command("list", epilog=LIST_EPILOG)(list_studies)
    group.command("run", epilog=RUN_EPILOG)(run)
    group.command("report", epilog=REPORT_EPILOG)(report)
    app.add_typer(group, name="study")


@with_flags
def list_studies(json: Json = False) -> None:
    """List the studies."""
    if json:
        emit([{"study": name, "about": about} for name, about in STUDIES.items()])
        return
    for name, about in STUDIES.items():
        say(f"{name}: {about}")


@with_flags
def run(options: StudyOptions, json: Json = False) -> None:
    """Run a study; what is complete in its folder is kept (transfer)."""
    from xt.studies import run as studies

    found = studies.run(options, reporter=REPORTER)
    if json:
        emit({"path": str(options.out), **found})


@with_flags
def report(
    folder: Annotated[Path, Flag("The folder of a run of transfer.", positional=True)],
    json: Json = False,
) -> None:
    """Print the tables of a study again, from what is complete in its folder."""
    from xt.studies import transfer

    found = transfer.report_again(folder)
    if json:
        emit(found)
    else:
        say(transfer.markdown(found))
