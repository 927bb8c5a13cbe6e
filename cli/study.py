"""`xt study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from xt.cli.console import Counter, DataDir, Device, Force, Json, Out, Seed, emit, say

RUN_EPILOG = """Examples:

xt study run transfer --data-dir data --out results/transfer

xt study run transfer --data-dir data --out results/trial --only base --only nli --scale 0.1

xt study run training-speed --data-dir data --precision bf16 --out results/speed"""
LIST_EPILOG = """Examples:

xt study list

xt study list --json"""
REPORT_EPILOG = """Examples:

xt study report results/transfer

xt study report results/transfer --json"""
STUDIES = {
    "transfer": "each kind of intermediate training, before and after: own tasks, Tatoeba, SIB-200, image-text",
    "training-speed": "tokens per second of xt's training against transformers' Trainer",
}


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


def list_studies(json: Json = False) -> None:
    """List the studies."""
    if json:
        emit([{"study": name, "about": about} for name, about in STUDIES.items()])
        return
    for name, about in STUDIES.items():
        say(f"{name}: {about}")


def run(
    name: Annotated[str, typer.Argument(help="transfer or training-speed.")],
    out: Out,
    encoder: Annotated[
        str, typer.Option("--encoder", help="A checkpoint folder, a short name or a hub id.")
    ] = "multilingual-e5-small",
    data_dir: DataDir = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A run of transfer, or a task of training-speed; repeatable.")
    ] = None,
    scale: Annotated[float, typer.Option("--scale", help="Share of the steps to make (transfer).")] = 1.0,
    precision: Annotated[
        str | None, typer.Option("--precision", help="fp32, bf16, fp16.  [default: bf16; training-speed: fp32]")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    json: Json = False,
) -> None:
    """Run a study; what is complete in its folder is kept (transfer)."""
    from xt.core.errors import unknown

    if name not in STUDIES:
        raise unknown("study", name, STUDIES)
    shared: dict[str, Any] = {"out": out, "encoder": encoder, "data_dir": data_dir, "seed": seed, "device": device}
    if precision:
        shared["precision"] = precision
    if name == "transfer":
        from xt.studies import transfer

        if not 0 < scale <= 1:
            raise typer.BadParameter(f"--scale is {scale}; above 0, 1 at most")
        found = transfer.execute(
            transfer.Settings(**shared, runs=tuple(only or ()), scale=scale), report=say, counter=Counter
        )
        say(transfer.markdown(found))
    else:
        from xt.bench import training_speed

        more: dict[str, Any] = {"tasks": tuple(only)} if only else {}
        found = training_speed.execute(
            training_speed.Settings(**shared, **more, force=force), report=say, counter=Counter
        )
    if json:
        emit({"path": str(out), **found})


def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a run of transfer.")],
    json: Json = False,
) -> None:
    """Print the tables of a study again, from what is complete in its folder."""
    from xt.core.errors import XtError
    from xt.studies import transfer

    found = transfer.summarise(folder)
    if not found["runs"]:
        raise XtError(f"{folder} holds no complete run.", "Run the study first: xt study run transfer.")
    transfer.claim(folder)
    transfer.write_tables(folder, found)
    if json:
        emit(found)
    else:
        say(transfer.markdown(found))
