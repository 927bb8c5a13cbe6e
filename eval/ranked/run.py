"""`xt eval` on ranked retrieval: from an opened encoder and a collection to the report folder."""

from __future__ import annotations

from xt.calibration.apply.file import SearchCalibration
from xt.core.reporter import Reporter
from xt.core.results.folder import ReportFolder
from xt.core.results.report import Encoder
from xt.eval import protocols
from xt.eval.fitted import check_calibration
from xt.eval.options import CalibrationOptions, TaskRequest
from xt.eval.ranked import search
from xt.eval.ranked.calibration import DIRECTION, calibrate
from xt.serve.encoders import OpenedEncoder


def evaluate_ranked(
    opened: OpenedEncoder,
    request: TaskRequest,
    *,
    cut: bool = False,
    calibration: CalibrationOptions = CalibrationOptions(),
    reporter: Reporter = Reporter(),
) -> ReportFolder:
    """Rank documents for queries, calibrate, and write the report.

    Args:
        opened: the encoder.
        request: which collection, and where the report goes.
        cut: measure at the number of documents where a measure looks further.
        calibration: which calibrations are fitted and applied.
        reporter: takes what is worth knowing of the collection, and counts.
    """
    say, entry = reporter.say, opened.entry
    about, collection, names = protocols.load_collection(
        request.name, data_dir=request.data_dir, selection=request.languages
    )
    sizes = f"{len(collection.queries.ids):,} queries, {len(collection.documents.ids):,} documents"
    say(f"{about['title']}: {sizes}, encoder {entry.label} on {entry.engine}")
    for note in collection.notes:
        say(note)
    given = check_calibration(calibration, opened, [DIRECTION], say=say)
    result = search.rank_collection(
        opened.encoder, collection, names=names, cut=cut, progress=reporter.counter("encoded")
    )
    calibrated = calibrate(
        result,
        opened.temperature,
        calibrate_on=calibration.calibrate_on,
        given=given,
        calibrating=reporter.counter("calibrated"),
    )
    entry = Encoder.from_json({**entry.to_json(), "calibration": calibrated.section})
    kept = SearchCalibration({str(entry.name): calibrated.kept})
    section = protocols.Section("ranked", result.section, calibrated.predictions, kept)
    return protocols.write(request.out, about, entry, section, parents=[opened.parent], force=request.force)
