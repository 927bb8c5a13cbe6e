"""`xt doctor` and `xt check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xt.cli.console import emit, say, stderr, table
from xt.cli.settings import with_flags
from xt.core.settings import DataDir, Json

DOCTOR_EPILOG = """Examples:

xt doctor

xt doctor --data-dir ../data --json"""
CHECK_EPILOG = """Examples:

xt check runs/x

xt check repository --json"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("doctor", epilog=DOCTOR_EPILOG)(doctor)
    app.command("check", epilog=CHECK_EPILOG)(check)


@with_flags
def doctor(data_dir: DataDir = None, json: Json = False) -> None:
    """Say what is there (Python, packages, GPU, Triton, hub, cache, data) and what to do about what is missing."""
    from dataclasses import asdict

    from xt.serve.diagnosis import examine

    findings = examine(data_dir)
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[red]missing[/]"}
    for f in findings:
        stderr.print(f"{marks[f.state]:>8}  [bold]{f.what}[/]: ", end="")
        stderr.print(f.found, markup=False)
        if f.advice:
            stderr.print(f"          {f.advice}", markup=False, style="dim")
    missing = [f.what for f in findings if f.state == "missing"]
    if json:
        emit({"findings": [asdict(f) for f in findings], "missing": missing})
    if missing:
        say(f"Missing: {', '.join(missing)}.")
        raise typer.Exit(3)


@with_flags
def check(
    folder: Annotated[Path, typer.Argument(help="A folder that xt wrote: checkpoint, model, repository or report.")],
    json: Json = False,
) -> None:
    """Check that a folder is complete and undamaged, and say what it is (exit code 3 if it is damaged)."""
    from xt.serve.checking import check_folder, refuse_problems

    folders, others = check_folder(folder)
    for found in folders:
        manifest, parents = found.manifest, found.manifest["parents"]
        rows = [
            ["kind", manifest["kind"]],
            ["made", f"{manifest['created']} by xt {manifest['xt_version']}"],
            ["command", manifest["command"]],
            ["parents", ", ".join(f"{p['kind']} {p['path']}" for p in parents) or "none"],
            ["content", f"{len(manifest['files'])} files, {found.megabytes:.1f} MB, hash {manifest['hash'][:16]}"],
            ["state", "; ".join(found.problems) or "complete, every file as written"],
        ]
        if manifest["kind"] == "model":
            rows.append(["code", "; ".join(found.code) or "as a release of xt wrote it"])
        table(str(found.path), ["", ""], rows)
    if json:
        documents = [found.to_json() for found in folders]
        emit(documents[0] if len(documents) == 1 else documents)
    refuse_problems(folders, others)
