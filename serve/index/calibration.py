"""The calibration of a retriever, out of a report: of which direction, and whether it is this encoder's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xt.calibration.apply.file import (
    CANDIDATES,
    FILE,
    MAPPED,
    SCOPES,
    CalibrationTable,
    SearchCalibration,
    read,
)
from xt.core.errors import XtError, unknown
from xt.core.files.artifact import MANIFEST, Artifact, open_artifact, sha256
from xt.core.results.folder import METRICS, read_report
from xt.core.results.report import Report

DIRECTION = "foreign-english"
"""Queries in any language, documents in English."""
JUDGED = "queries-documents"
"""Queries and judged documents: ranked retrieval."""
HINT = "Name a report of `xt eval` on parallel text or ranked retrieval, or its calibration.json."


def read_calibration(
    path: Path,
    identity: dict[str, Any],
    *,
    direction: str | None = None,
    scope: str | None = None,
    entry: str | None = None,
    allow_other_encoder: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> CalibrationTable:
    """Read the calibrators of one encoder from a report folder, its calibration.json, or a retriever's.

    Args:
        path: the file, or the report's folder.
        identity: the encoder that shall use them: `hash` of its model folder, `checkpoint` (hash), `precision`.
        direction: of retrieval: queries to documents, as the report names it; None: the only one, or `DIRECTION`.
        scope: what queries whose language has no calibrator get; None: zero-shot where it is there, else pooled; of
            ranked retrieval, where several documents may be right, platt.
        entry: which encoder of the report; None: the one that is this encoder.
        allow_other_encoder: take one that was fitted on another encoder's scores (another precision, say), or whose
            encoder is not known, with a warning instead of an error.
        report: told the warnings.

    Raises XtError when nothing in the file is this encoder's, or the direction or scope is not in it.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise XtError(f"There is no calibration {file}.", "Name a report of `xt eval`, or its file.")
    calibration = read(file, HINT)
    if isinstance(calibration, CalibrationTable):
        _admit(file, _same(calibration.provenance.get("encoder", {}), identity), allow_other_encoder, report)
        return calibration
    if not isinstance(calibration, SearchCalibration):
        raise XtError(f"{file} is a calibration of kind {calibration.kind}; expected search or retriever.", HINT)
    entries = _entries(file, calibration)
    chosen = _choose(file, entries, identity, entry)
    match = _same(entries[chosen], identity)
    _admit(file, match, allow_other_encoder, report)
    directions = calibration.encoders[chosen]
    if direction is None:
        direction = next(iter(directions)) if len(directions) == 1 else DIRECTION
    if direction not in directions:
        raise unknown("direction", direction, directions)
    methods = directions[direction]
    if scope is None and direction == JUDGED and MAPPED in methods:
        scope = MAPPED
    taken = scope or next((s for s in SCOPES if s in methods), "")
    known = _facts(file, chosen, direction, methods[taken].fitted_on if taken in methods else ())
    provenance = {
        "file": str(file),
        "sha256": sha256(file),
        "entry": chosen,
        "direction": direction,
        "encoder": entries[chosen],
        "encoder_match": match,
        **known,
    }
    return CalibrationTable.from_report(
        methods,
        scope=scope,
        candidates=min([CANDIDATES, *known.get("corpus_sizes", [])]),
        provenance=provenance,
    )


def _entries(file: Path, calibration: SearchCalibration) -> dict[str, dict[str, Any]]:
    """Give the report's encoders: name -> parent and precision, as the manifest and metrics.json beside it say."""
    entries: dict[str, dict[str, Any]] = {name: {} for name in calibration.encoders}
    if not (file.parent / MANIFEST).is_file():
        return entries
    artifact = open_artifact(file.parent, kind="report")
    names, parents = artifact.facts.get("encoders", []), artifact.manifest["parents"]
    if len(names) == len(parents):
        entries.update({n: {"parent": p} for n, p in zip(names, parents, strict=True) if n in entries})
    for row in _report(file).encoders:
        if row.name in entries:
            known = {"precision": row.precision, "engine": row.engine, "label": row.label}
            entries[row.name] |= {k: v for k, v in known.items() if v is not None}
    return entries


def _report(file: Path) -> Report:
    """Return the report beside a calibration; an empty one where there is none."""
    return read_report(file.parent, curves=False) if (file.parent / METRICS).is_file() else Report()


def _facts(file: Path, entry: str, direction: str, fitted_on: Sequence[str]) -> dict[str, Any]:
    """Return the corpus, and its least and most candidates (equal texts are one) in the languages fitted on."""
    report = _report(file)
    rows = [e for e in report.encoders if e.name == entry]
    if not rows:
        return {}
    if (ranked := report.ranked) is not None:
        role = ranked.prefixes.get("documents", "default")
        count = (ranked.documents or 0) - (ranked.copies.documents or 0)
        known = {} if role == "default" else {"documents_prefix": role}
        return {"task": report.task.name, "corpus_sizes": [count, count], **known}
    languages = rows[0].retrieval[direction].languages
    chosen = [row for code, row in languages.items() if code in fitted_on or not fitted_on]
    sizes = [(row.candidates or 0) - (row.copies.documents or 0) for row in chosen]
    return {"task": report.task.name, "corpus_sizes": [min(sizes), max(sizes)]}


def _same(found: Any, identity: dict[str, Any]) -> str:
    """Say how an encoder compares with `identity`: exact, equal, sibling, other or unknown.

    "equal": evaluated in PyTorch or over the wire, where only checkpoint and precision are told, and both are the
    same. "sibling": the same checkpoint in another precision.
    """
    parent = found.get("parent", {}) if isinstance(found, dict) else {}
    if not parent.get("hash"):
        return "unknown"
    if parent["hash"] == identity["checkpoint"]:
        return "equal" if found.get("precision") == identity["precision"] else "sibling"
    return "exact" if parent["hash"] == identity["hash"] else "other"


def _choose(file: Path, entries: dict[str, dict[str, Any]], identity: dict[str, Any], wanted: str | None) -> str:
    if wanted is not None:
        if wanted not in entries:
            raise unknown("encoder of the report", wanted, entries)
        return wanted
    for kind in ("exact", "equal", "sibling"):
        matching = [name for name, entry in entries.items() if _same(entry, identity) == kind]
        if matching:
            return matching[0]
    if len(entries) == 1:
        return next(iter(entries))
    raise XtError(
        f"{file} holds calibrators of {', '.join(entries)}; none of them is the encoder {identity['name']} "
        f"({identity['hash'][:12]}).",
        "Evaluate this encoder, or choose one by --calibration-encoder.",
    )


def _admit(file: Path, match: str, allow: bool, report: Callable[[str], None]) -> None:
    if match in ("exact", "equal"):
        return
    why = {
        "sibling": "was fitted on another precision of this encoder",
        "other": "was fitted on another encoder",
        "unknown": "does not say which encoder it was fitted on (no report's manifest beside it)",
    }[match]
    if not allow:
        raise XtError(
            f"The calibration {file} {why}.",
            "Evaluate this encoder with `xt eval`, or pass --allow-other-encoder and accept worse probabilities.",
        )
    report(f"warning: the calibration {file} {why}; its probabilities may be off")


def model_identity(model: Artifact) -> dict[str, Any]:
    """Give what tells one exported encoder from another."""
    facts = model.facts
    return {
        "name": facts["encoder"]["name"],
        "hash": model.hash,
        "checkpoint": facts["checkpoint"].get("hash", ""),
        "precision": facts["precision"],
        "dim": facts["encoder"]["dim"],
    }
