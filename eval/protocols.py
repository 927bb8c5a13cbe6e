"""The report folders of mining and of ranked retrieval, and what name means which collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xt.calibration.apply.file import AnyCalibration
from xt.core.data.corpus import is_folder
from xt.core.data.tasks import get
from xt.core.results.folder import Files, ReportFolder, write_report
from xt.core.results.report import Encoder
from xt.eval.ranked import passages, search
from xt.eval.ranked.collection import Collection, read_beir
from xt.eval.report import build
from xt.eval.report.describe import describe_run
from xt.serve.index.corpus import BEIR_CORPUS, beir_file

PREFIX = "beir:"
ANSWERS = {"xquad-r": passages.read_xquad_r, "mewsli-x": passages.read_mewsli_x}
"""Tasks of the table that are ranked, and their readers."""
EXAMPLES = 6


def is_ranked(task: str) -> bool:
    """Return whether a name means ranked retrieval: such a task, `beir:FOLDER`, or a folder that looks like BEIR's."""
    looks = is_folder(task) and beir_file(Path(task).expanduser(), BEIR_CORPUS) is not None
    return task in ANSWERS or task.startswith(PREFIX) or looks


def load_collection(
    task: str, *, data_dir: Path | None = None, selection: str = "all"
) -> tuple[dict[str, Any], Collection, tuple[str, ...]]:
    """Read what a name means: what a report says of it, the collection, and its measures."""
    if task in ANSWERS:
        row = get(task)
        collection = ANSWERS[task](data_dir, selection)
        about = {"name": row.name, "title": row.title, "description": row.source, "licence": row.licence}
        return {**about, "languages": len(set(collection.queries.languages))}, collection, search.ANSWER_MEASURES
    folder = Path(task.removeprefix(PREFIX)).expanduser().resolve()
    collection = read_beir(folder, selection=selection)
    about = {
        "name": folder.name,
        "title": folder.name,
        "description": f"BEIR files in {folder}",
        "licence": "the owner's",
    }
    return {**about, "languages": len(set(collection.queries.languages))}, collection, search.BEIR_MEASURES


def examples(predictions: Sequence[dict[str, Any]], encoder: str) -> list[dict[str, Any]]:
    """Pick right and wrong answers for the page, the surest first, one a language."""
    sure = "probability" if predictions and "probability" in predictions[0] else "score"
    chosen = []
    for correct in (True, False):
        seen: set[str] = set()
        wanted = [p for p in predictions if p["correct"] is correct and p.get(sure) is not None]
        for p in sorted(wanted, key=lambda p: -p[sure]):
            if p["language"] not in seen and len(seen) < EXAMPLES:
                seen.add(p["language"])
                shown = {k: p.get(k) for k in ("language", "query", "answer", "gold", "correct")}
                chosen.append({**shown, "encoder": encoder, "probability": p.get("probability")})
    return chosen


@dataclass(frozen=True)
class Section:
    """What mining or ranking gave."""

    name: str
    """In metrics.json: `mining` or `ranked`."""
    content: dict[str, Any]
    predictions: Sequence[dict[str, Any]]
    """One object a line of predictions.jsonl."""
    calibration: AnyCalibration | None = None
    """What calibration.json holds."""


def write(
    out: Path,
    about: dict[str, Any],
    entry: Encoder,
    section: Section,
    *,
    parents: Sequence[dict[str, str]] = (),
    force: bool = False,
) -> ReportFolder:
    """Write the report folder of mining or ranking.

    Args:
        out: the folder.
        about: what the report says of the task.
        entry: the encoder, and what was measured of it beside the section.
        section: what was found.
        parents: the folders that it is made from.
        force: replace what is there.
    """
    encoder, codes = str(entry.name), list(section.content["languages"])
    sections = {section.name: section.content, "examples": examples(section.predictions, encoder)}
    report = describe_run(f"xt eval {about['name']}", about, codes, encoders=[entry], **sections)
    artifact = write_report(
        out,
        report,
        Files(
            build.render(report),
            lines=section.predictions,
            calibration=None if section.calibration is None else section.calibration.to_json(),
        ),
        parents=parents,
        facts={"task": about, "encoders": [encoder]},
        force=force,
    )
    return ReportFolder(artifact, report)
