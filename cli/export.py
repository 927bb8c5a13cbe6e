"""`xt export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xt.cli.console import Force, Json, emit, say, table

EPILOG = """Examples:

xt export multilingual-e5-small --out repository --name encoder

xt export runs/x --out repository --name trained --precision fp32

xt export runs/x --out repository --parity-corpus ../data/tatoeba"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export", epilog=EPILOG)(export)


def export(
    encoder: Annotated[str, typer.Argument(help="A checkpoint folder, a short name or a hub id.")],
    out: Annotated[Path, typer.Option("--out", help="The Triton model repository to add a model to.")],
    name: Annotated[str, typer.Option("--name", help="The model's name on the server.")] = "encoder",
    precision: Annotated[str, typer.Option("--precision", help="fp32, int8, or fp16 (for GPUs).")] = "int8",
    parity_corpus: Annotated[
        str, typer.Option("--parity-corpus", help="Real text that parity is measured on: django, tatoeba or a folder.")
    ] = "django",
    min_cosine: Annotated[
        float | None,
        typer.Option("--min-cosine", help="Least 1st percentile of the cosine to PyTorch; default by precision."),
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Turn an encoder into a Triton model: ONNX, fused, quantised, proven equal to PyTorch (exit code 3 if not)."""
    from xt.core import encoders
    from xt.core.artifact import refuse_existing
    from xt.eval.run import load_corpus
    from xt.export.repository import export_model

    refuse_existing(out / name, force=force)
    corpus = load_corpus(parity_corpus)
    resolved = encoders.resolve(encoder)
    say(f"exporting {resolved.spec.name} ({resolved.spec.provenance}) to {out / name}, {precision}")
    artifact = export_model(
        resolved,
        out,
        corpus=corpus.pairs,
        name=name,
        precision=precision,
        min_cosine=min_cosine,
        force=force,
        report=say,
    )
    parity = artifact.facts["parity"]
    columns = ["stage", "MB", "cosine min", "p1", "mean", "neighbours", "batch"]
    keys = ["stage", "megabytes", "cosine_min", "cosine_p1", "cosine_mean", "neighbour_agreement", "batch_cosine_min"]
    rows = [
        [f"{s[k]:.5f}" if isinstance(s[k], float) and k != "megabytes" else s[k] for k in keys]
        for s in parity["stages"]
    ]
    table(
        f"parity with PyTorch fp32 on {parity['sentences']} sentences, {parity['languages']} languages", columns, rows
    )
    say(f"wrote {artifact.path}; serve it with: xt serve {out}")
    if json:
        emit({"path": str(artifact.path), "hash": artifact.hash, "parity": parity})
