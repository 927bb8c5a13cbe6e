"""The report folder of parallel text: the encoders' figures, answers that show them, a prediction for every query."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xt.calibration.apply.file import SearchCalibration
from xt.calibration.methods import PARALLEL, PREFERRED
from xt.core.data.corpus import Corpus
from xt.core.files.artifact import Artifact
from xt.core.results import folder
from xt.core.results.report import Report
from xt.eval.report import build
from xt.eval.report.describe import describe_run
from xt.eval.retrieval.evaluation import Evaluation
from xt.eval.retrieval.ranking import DIRECTIONS


def assemble(title: str, corpus: Corpus, evaluations: Sequence[Evaluation], **sections: Any) -> Report:
    """Put a report together: the encoders, what they were measured on, and further sections."""
    entries = [e.encoder for e in evaluations]
    shown = examples(evaluations[-1].predictions)
    codes = [b.language for b in corpus.pairs]
    sections = {"worst": worst(evaluations[-1].predictions), "data": corpus.hashes(), **sections}
    notes = dict.fromkeys(note for entry in entries for note in entry.notes)
    if all_notes := [*sections.get("notes", ()), *notes]:
        sections["notes"] = all_notes
    return describe_run(title, corpus.describe(), codes, encoders=entries, examples=shown, **sections)


def write_report(
    out: Path,
    report: Report,
    evaluations: Sequence[Evaluation],
    *,
    parents: Sequence[dict[str, str]] = (),
    facts: dict[str, Any] | None = None,
    force: bool = False,
) -> Artifact:
    """Write the report folder of parallel text, with a prediction for every query and the calibrators."""
    names = [str(e.encoder.name) for e in evaluations]
    kept = SearchCalibration({n: e.calibrators for n, e in zip(names, evaluations, strict=True)})
    table = [p for e in evaluations for p in e.predictions]
    return folder.write_report(
        out,
        report,
        folder.Files(build.render(report), table=table, calibration=kept.to_json()),
        parents=parents,
        facts={"task": report.task.to_json(), "encoders": names, **(facts or {})},
        force=force,
    )


def examples(predictions: Sequence[dict[str, Any]], each: int = 6) -> list[dict[str, Any]]:
    """Pick what shows the system at work: confident right answers and confident errors, one a language."""
    chosen = []
    key = _confidence_of(predictions[0])
    rows = [p for p in predictions if p["direction"] == DIRECTIONS[0]]
    for correct in (True, False):
        seen: set[str] = set()
        for p in sorted((p for p in rows if p["correct"] is correct), key=lambda p: (-p[key], p["language"])):
            if p["language"] not in seen and len(seen) < each:
                seen.add(p["language"])
                shown = {k: p[k] for k in ("language", "encoder", "query", "answer", "gold", "correct")}
                chosen.append({**shown, "probability": p[key]})
    return chosen


def worst(predictions: Sequence[dict[str, Any]], count: int = 40) -> list[dict[str, Any]]:
    """Pick the most confident errors, at most three of a language and direction, the surest first."""
    key = _confidence_of(predictions[0])
    chosen: list[dict[str, Any]] = []
    seen: Counter[tuple[str, str]] = Counter()
    for p in sorted((p for p in predictions if not p["correct"]), key=lambda p: -p[key]):
        where = (p["language"], p["direction"])
        if seen[where] < 3 and len(chosen) < count:
            seen[where] += 1
            shown = {k: p[k] for k in ("language", "direction", "encoder", "query", "answer", "gold")}
            chosen.append({**shown, "probability": p[key]})
    return chosen


def _confidence_of(row: dict[str, Any]) -> str:
    """Name the column of the best probability that a row of predictions has."""
    return next(f"p_{name}" for name in PREFERRED[PARALLEL] if f"p_{name}" in row)
