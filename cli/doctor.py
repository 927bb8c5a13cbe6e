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

    from xt.cli.diagnosis import examine

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
    from xt.core.errors import CheckFailed
    from xt.core.files.artifact import MANIFEST, damaged_files, read_manifest
    from xt.core.files.replacing import some
    from xt.serve.triton.model_code import HINT, strangers, untrusted

    folders, code = [folder], []
    if not (folder / MANIFEST).is_file() and (models := sorted(p.parent for p in folder.glob("*/config.pbtxt"))):
        folders = models
        code = [f"{folder / name}: no folder that xt wrote" for name in strangers(folder)]
        folders = [path for path in models if path.name not in strangers(folder)]
    documents, damaged = [], []
    for path in folders:
        manifest = read_manifest(path)
        problems = damaged_files(path, manifest)
        unknown = untrusted(path) if manifest["kind"] == "model" else []
        code += [f"{path}: {p}" for p in unknown]
        damaged += [f"{path}: {p}" for p in problems]
        size = sum(f["bytes"] for f in manifest["files"].values()) / 1e6
        rows = [
            ["kind", manifest["kind"]],
            ["made", f"{manifest['created']} by xt {manifest['xt_version']}"],
            ["command", manifest["command"]],
            ["parents", ", ".join(f"{p['kind']} {p['path']}" for p in manifest["parents"]) or "none"],
            ["content", f"{len(manifest['files'])} files, {size:.1f} MB, hash {manifest['hash'][:16]}"],
            ["state", "; ".join(problems) or "complete, every file as written"],
            *([["code", "; ".join(unknown) or "as a release of xt wrote it"]] if manifest["kind"] == "model" else []),
        ]
        table(str(path), ["", ""], rows)
        shown = {
            k: manifest[k] for k in ("kind", "created", "xt_version", "command", "seed", "parents", "hash", "facts")
        }
        documents.append({"path": str(path), "problems": problems, "code": unknown, **shown})
    if json:
        emit(documents[0] if len(documents) == 1 else documents)
    if damaged:
        raise CheckFailed(f"Damaged: {some(damaged + code)}.", "Copy or make the folder again.")
    if code:
        raise CheckFailed(f"What may run as code and is not xt's: {some(code)}.", HINT)
