"""Report folders: written in one place, and read in one place, also those of former versions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from xt.core.data.readers.rows import jsonl
from xt.core.errors import XtError
from xt.core.files.artifact import Artifact, new_artifact, open_artifact, read_json, write_json
from xt.core.results import layout
from xt.core.results.report import Report

METRICS = "metrics.json"
CURVES = "curves.parquet"
TABLE = "predictions.parquet"
LINES = "predictions.jsonl"
CALIBRATION = "calibration.json"
PAGE = "report.html"


@dataclass(frozen=True)
class ReportFolder:
    """A report folder that was opened and checked, or just written."""

    artifact: Artifact
    report: Report

    @property
    def path(self) -> Path:
        """The folder."""
        return self.artifact.path

    def to_json(self) -> dict[str, Any]:
        """Return it as `xt eval --json` prints it."""
        return {"path": str(self.path), **self.report.to_json()}

    @cached_property
    def predictions(self) -> list[dict[str, Any]]:
        """The predictions, whichever way they are kept; XtError where there are none, or a line is damaged."""
        table, lines = self.path / TABLE, self.path / LINES
        if table.is_file():
            import pyarrow.parquet as pq

            return list(pq.read_table(table).to_pylist())
        if not lines.is_file():
            found = ", ".join(sorted(p.name for p in self.path.iterdir()))
            raise XtError(
                f"{self.path} has neither {TABLE} nor {LINES} (found: {found}).",
                "Summaries and comparisons have no predictions: name reports that `xt eval` wrote.",
            )
        rows = []
        for number, row in jsonl(lines):
            if isinstance(row, str):
                raise XtError(f"{lines}, line {number}: {row}", "Evaluate it again.")
            rows.append(dict(row))
        return rows


@dataclass(frozen=True)
class Files:
    """What a report folder holds besides the report itself."""

    page: str
    """report.html."""
    table: Sequence[Mapping[str, Any]] = ()
    """One object a query, kept as predictions.parquet."""
    lines: Sequence[Mapping[str, Any]] | None = None
    """The same as predictions.jsonl, where objects differ."""
    calibration: Mapping[str, Any] | None = None
    """What calibration.json keeps; None: no such file."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Further files, name -> content."""


def open_report(folder: Path) -> ReportFolder:
    """Open a report folder, every file checked; XtError where it is another kind of folder, damaged, or too new."""
    artifact = open_artifact(folder, kind="report")
    return ReportFolder(artifact, read_report(folder))


def read_report(folder: Path, *, curves: bool = True) -> Report:
    """Read the report of a folder without checking its other files; XtError where it cannot be read."""
    return Report.from_json(read_document(folder, curves=curves))


def read_document(folder: Path, *, curves: bool = True) -> dict[str, Any]:
    """Read a report as the JSON object that `xt eval --json` printed, with its curves or without."""
    file = folder / METRICS
    document = layout.unpack(read_json(file, "Make the report again."), str(file))
    if curves and (table := folder / CURVES).is_file():
        import pyarrow.parquet as pq

        layout.put_curves(document, pq.read_table(table).to_pylist())
    return document


def write_report(
    out: Path,
    report: Report,
    files: Files,
    *,
    kind: str = "report",
    parents: Sequence[dict[str, str]] = (),
    facts: Mapping[str, Any] | None = None,
    seed: int | None = None,
    force: bool = False,
) -> Artifact:
    """Write a report folder whole: metrics.json, curves.parquet where there are any, report.html; and open it.

    Args:
        out: the folder.
        report: what is reported.
        files: the page, and what the folder holds besides.
        kind: of the folder: "report" or "summary".
        parents: the folders that it is made from.
        facts: of its manifest.
        seed: of its manifest.
        force: replace what is there.
    """
    metrics, curves = layout.pack(report.to_json())
    with new_artifact(out, kind=kind, force=force) as draft:
        (draft.path / METRICS).write_text(metrics, encoding="utf-8")
        if curves:
            _write_curves(draft.path / CURVES, curves)
        if files.table:
            _write_table(draft.path / TABLE, files.table)
        if files.lines is not None:
            with (draft.path / LINES).open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in files.lines)
        if files.calibration is not None:
            write_json(draft.path / CALIBRATION, files.calibration)
        for name, content in files.texts.items():
            (draft.path / name).write_text(content, encoding="utf-8")
        (draft.path / PAGE).write_text(files.page, encoding="utf-8")
        draft.parents, draft.seed = list(parents), seed
        draft.facts = dict(facts or {})
    return open_artifact(out, kind=kind)


def _write_table(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = dict.fromkeys(name for row in rows for name in row)  # from_pylist takes only the first row's
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in columns}), file)


def _write_curves(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, numbers = pa.string(), pa.list_(pa.float32())
    kinds = dict.fromkeys(("encoder", "subject", "method", "language"), text)
    kinds |= dict.fromkeys((*layout.BIN, "within_low", "within_high", "coverage", "risk"), numbers)
    kinds["count"] = pa.list_(pa.int32())
    columns = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in kinds.items()}
    pq.write_table(pa.table(columns), file, compression="zstd")
