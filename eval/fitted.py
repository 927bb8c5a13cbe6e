"""Calibrators that another report fitted, to apply them here; and retrievers that get those that were fitted here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from xt.calibration.apply.file import FILE, SearchCalibration, SearchFits, read
from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, open_artifact, read_manifest
from xt.core.reporter import Say
from xt.eval.options import CalibrationOptions
from xt.serve.encoders import OpenedEncoder
from xt.serve.index.calibration import read_calibration
from xt.serve.index.retriever import identity_of, recalibrate, retrievers


def check_calibration(
    options: CalibrationOptions, opened: OpenedEncoder, directions: Sequence[str], *, say: Say
) -> Mapping[str, SearchFits] | None:
    """Read the fits that are to be applied, and look for the retrievers to install in, before anything is computed."""
    report = options.calibration
    given = given_fits(report, opened, say=say) if report else None
    if given is not None and not set(directions) & set(given):
        raise XtError(
            f"{report} holds calibrations of {', '.join(given)}; this task needs {' or '.join(directions)}.",
            "Name a report of the same kind of task: parallel text, or ranked retrieval.",
        )
    if options.install is not None:
        retrievers(options.install)
    return given


def given_fits(report: Path, opened: OpenedEncoder, *, say: Say) -> Mapping[str, SearchFits]:
    """Read the calibrators of another report: those of the same name, else of its only one.

    Where they were fitted on another encoder, which may have the same name, that is reported.
    """
    folder = open_artifact(report, kind="report")
    file = folder.path / FILE
    hint = "Name a report on parallel text or ranked retrieval."
    if not file.is_file():
        raise XtError(f"{report} holds no calibration.", hint)
    calibration = read(file, hint)
    if not isinstance(calibration, SearchCalibration):
        raise XtError(f"{file} is a calibration of kind {calibration.kind}; expected search.", hint)
    fits, wanted = calibration.encoders, opened.entry.name
    if wanted not in fits and len(fits) != 1:
        raise XtError(
            f"{report} holds calibrations of {', '.join(fits)}, none of {wanted}.", "Evaluate the same encoder."
        )
    name = str(wanted) if wanted in fits else next(iter(fits))
    fitted = {h for p in folder.manifest["parents"] for h in _lineage(p)}
    if fitted and (here := _lineage(opened.parent)) and not fitted & here:
        say(f"note: {report} was fitted on another encoder than the one evaluated now; its probabilities may be off")
    return fits[name]


def _lineage(parent: dict[str, str]) -> set[str]:
    """Return the hashes that an encoder is known by: its own, and of an exported one its checkpoint's."""
    known = {parent.get("hash", "")}
    folder = Path(parent.get("path", ""))
    if parent.get("kind") == "model" and (folder / MANIFEST).is_file():
        manifest = read_manifest(folder)
        if manifest["hash"] == parent.get("hash"):
            known.add(str(manifest["facts"].get("checkpoint", {}).get("hash", "")))
    return known - {""}


def install_calibration(repository: Path, report: Path, *, say: Say) -> None:
    """Return every retriever of a repository the calibration of a report, if it is of its encoder."""
    for name in retrievers(repository):
        identity = identity_of(open_artifact(repository / name, kind="model"))
        recalibrate(repository, name, read_calibration(report, identity, report=say), report=say)
        say(f"installed in {repository / name}; a server takes it by: xt reload {name}")
