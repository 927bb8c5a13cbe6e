"""`xt export`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from xt.cli.console import emit, say, table
from xt.cli.settings import with_flags
from xt.core.settings import Json
from xt.export.settings import ExportSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xt.core.files.artifact import Artifact

EPILOG = """Examples:

xt export multilingual-e5-small --out repository --name encoder

xt export multilingual-e5-small --out repository --precision auto --max-loss 0.3 --dev-corpus tatoeba

xt export multilingual-e5-small --out repository --name german --languages deu,eng --corpus ../data/tatoeba

xt export runs/x --out repository --name short --layers 9 --dims 256

xt export runs/x --out repository --name gpu --precision fp16 --provider cuda

xt export runs/x --out repository --name topics --task sib200 --temperature fit

xt export runs/x --out repository --precision fp32 --parity-corpus ../data/tatoeba"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export", epilog=EPILOG)(export)


@with_flags
def export(settings: ExportSettings, json: Json = False) -> None:
    """Turn an encoder into a Triton model: ONNX, fused, quantised, parity-tested against PyTorch (else exit code 3).

    It can be made smaller before that (--layers, --languages, --dims), and its precision chosen by measurement
    (--precision auto). With --task a trained head is exported, with its labels and its temperature.
    """
    from xt.export.run import run

    artifact = run(settings, report=say)
    show(artifact.facts)
    say(f"wrote {artifact.path}; serve it with: xt serve {settings.out}")
    if json:
        emit(document(artifact))


CANDIDATES = {
    "stage": "candidate",
    "megabytes": "MB",
    "tokens_per_second": "tokens/s",
    "cosine_min": "cosine min",
    "cosine_p1": "p1",
    "cosine_mean": "mean",
    "accuracy": "accuracy",
    "accuracy_change": "change",
    "neighbour_agreement": "neighbours",
    "ece_change": "ECE change",
}
"""Keys of a candidate of --precision auto, and the columns' titles."""
FORMATS = {
    "megabytes": ".0f",
    "tokens_per_second": ",.0f",
    "accuracy": ".2f",
    "accuracy_change": "+.2f",
    "neighbour_agreement": ".1%",
    "ece_change": "+.4f",
}
"""How the numbers of a table are written, where not with five decimals."""
REPORTED: tuple[str, ...] = ("precision", "provider", "candidates", "shrunk", "temperature")
"""Facts of a model that --json prints too, where it has them."""
SHORT = {"cosine_min": "cosine min", "cosine_p1": "p1", "cosine_mean": "mean", "batch_cosine_min": "batch"}


def cell(key: str, value: Any) -> str:
    """Write one measure."""
    return format(value, FORMATS.get(key, ".5f")) if isinstance(value, float) else str(value)


def show(facts: Mapping[str, Any]) -> None:
    """Print what changed before the export, the candidates, parity and the choice, as far as there are any."""
    for line in shrunk_lines(facts.get("shrunk") or {}):
        say(line)
    if candidates := facts.get("candidates"):
        rows = [[("* " if c["kept"] else "") + c["stage"], *_cells(c, list(CANDIDATES)[1:])] for c in candidates]
        table("candidates (*: taken)", list(CANDIDATES.values()), rows)
        for c in candidates:
            say(f"  {c['stage']}: {c['why']}")
    parity = facts["parity"]
    keys = ["stage", "megabytes", *(k for k in parity["stages"][0] if k not in ("stage", "megabytes"))]
    titles = [{"megabytes": "MB", **SHORT}.get(k, k.replace("_", " ")) for k in keys]
    of = f"{parity['sentences']} sentences" if "sentences" in parity else f"{parity['inputs']} inputs"
    title = f"parity with PyTorch fp32 on {of}, {parity['languages']} languages"
    table(title, titles, [_cells(stage, keys) for stage in parity["stages"]])
    if "provider" in facts:
        where = "what the serving machine has" if facts["provider"] == "auto" else facts["provider"]
        say(f"runs in {facts['precision']} on {where}")


def _cells(row: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    return [cell(key, row.get(key, "")) for key in keys]


def shrunk_lines(report: Mapping[str, Any]) -> list[str]:
    """Return what `shrink` changed, a line for each."""
    lines = []
    if layers := report.get("layers"):
        lines.append(f"layers: {layers['before']} -> {layers['after']}")
    if vocabulary := report.get("vocabulary"):
        before, after = vocabulary["before"], vocabulary["after"]
        lines.append(
            f"vocabulary: {before['pieces']} pieces, {before['megabytes']:.0f} MB -> {after['pieces']} pieces, "
            f"{after['megabytes']:.0f} MB (fp32); texts of the corpus that are cut otherwise: {vocabulary['changed']}"
        )
        lines += [
            f"  {code}: of text like it but unseen, {row['lost']:.1%} of the tokens are lost, there are "
            f"{row['longer']:.1%} more, {row['unknown']:.2%} unknown"
            for code, row in vocabulary["held_out"].items()
            if row["texts"]
        ]
    if dims := report.get("dims"):
        lines.append(f"numbers in a vector: {dims['before']} -> {dims['after']}")
    if size := report.get("size"):
        lines.append(f"network: {size['before']['megabytes']:.0f} MB -> {size['after']['megabytes']:.0f} MB (fp32)")
    return lines


def document(artifact: Artifact) -> dict[str, Any]:
    """Return what --json prints."""
    facts = artifact.facts
    extra = {key: facts[key] for key in REPORTED if key in facts}
    return {"path": str(artifact.path), "hash": artifact.hash, "parity": facts["parity"]} | extra
