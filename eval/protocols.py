"""The report folders of mining and of ranked retrieval, and what name means which collection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xt.core.data.tasks import get
from xt.core.files.artifact import Artifact, new_artifact, open_artifact, write_json
from xt.eval.ranked import passages, search
from xt.eval.ranked.search import Collection
from xt.eval.report import build
from xt.eval.run import describe_run, is_folder
from xt.serve.index.corpus import BEIR_CORPUS, beir_file

PREFIX = "beir:"
ANSWERS = {"xquad-r": passages.read_xquad_r, "mewsli-x": passages.read_mewsli_x}
"""Tasks of the table that are ranked, and their readers."""
EXAMPLES = 6


def is_ranked(task: str) -> bool:
    """Whether a name means ranked retrieval: a task of the table, `beir:FOLDER`, or a folder that looks like BEIR's."""
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
    collection = search.read_beir(folder, selection=selection)
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


def write(
    out: Path,
    about: dict[str, Any],
    entry: dict[str, Any],
    name: str,
    section: dict[str, Any],
    predictions: Sequence[dict[str, Any]],
    *,
    calibrators: dict[str, Any] | None = None,
    parents: Sequence[dict[str, str]] = (),
    force: bool = False,
) -> tuple[Artifact, dict[str, Any]]:
    """Write a report folder: metrics.json, predictions.jsonl, calibration.json where there is one, report.html.

    Args:
        out: the folder.
        about: what the report says of the task.
        entry: facts of the encoder.
        name: the section's name in metrics.json, `mining` or `ranked`.
        section: its content.
        predictions: one object a line of predictions.jsonl.
        calibrators: what calibration.json keeps.
        parents: the folders that it is made from.
        force: replace what is there.
    """
    codes = list(section["languages"])
    told = {name: section, "examples": examples(predictions, entry["name"])}
    metrics = describe_run(f"xt eval {about['name']}", about, codes, encoders=[entry], **told)
    with new_artifact(out, kind="report", force=force) as draft:
        write_json(draft.path / "metrics.json", metrics)
        with (draft.path / "predictions.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in predictions)
        if calibrators is not None:
            write_json(draft.path / "calibration.json", {entry["name"]: calibrators})
        build.write(metrics, draft.path / "report.html")
        draft.parents = list(parents)
        draft.facts = {"task": about, "encoders": [entry["name"]]}
    return open_artifact(out, kind="report"), metrics
