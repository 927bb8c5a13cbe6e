"""`xt eval` on parallel text: from an opened encoder and a corpus to the report folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xt.core.data.corpus import Corpus
from xt.core.machine.cores import usable_cores
from xt.core.reporter import Reporter
from xt.core.results.folder import ReportFolder
from xt.eval.fitted import check_calibration
from xt.eval.groups import POOL
from xt.eval.options import CalibrationOptions, TaskRequest
from xt.eval.retrieval.evaluation import evaluate
from xt.eval.retrieval.ranking import DIRECTIONS
from xt.eval.retrieval.report import assemble, write_report
from xt.serve.encoders import OpenedEncoder


def evaluate_corpus(
    opened: OpenedEncoder,
    corpus: Corpus,
    request: TaskRequest,
    *,
    pool: int | None = None,
    calibration: CalibrationOptions = CalibrationOptions(),
    measure_layers: Callable[[Corpus], dict[str, Any]] | None = None,
    reporter: Reporter = Reporter(),
) -> ReportFolder:
    """Measure retrieval of translations, calibrated, and write its report.

    Args:
        opened: the encoder.
        corpus: what `request` names, read.
        request: where the report goes, and whether texts are cut.
        pool: candidates of the random pools; None: 200 where a language has as many.
        calibration: which calibrations are fitted and applied.
        measure_layers: what measures the layers of the encoder too (`xt.eval.retrieval.layers.layer_sweep`).
        reporter: takes what is worth knowing of the corpus, and counts.
    """
    say, entry = reporter.say, opened.entry
    say(f"{corpus.title}: {len(corpus.pairs)} languages, encoder {entry.label} on {entry.engine}")
    if corpus.skipped:
        more = f" and {len(corpus.skipped) - 8} more" if len(corpus.skipped) > 8 else ""
        say(f"{len(corpus.skipped)} files not read: {', '.join(corpus.skipped[:8])}{more}")
    if lost := sum(b.left_out for b in corpus.pairs):
        say(f"{lost} sentences left out: their id is on one side only")
    if pool is None:
        pool = POOL if any(len(b.foreign) >= POOL for b in corpus.pairs) else None
        if pool is None:
            say(f"no language has {POOL} candidates: no accuracy in pools of one size (--pool)")
    given = check_calibration(calibration, opened, DIRECTIONS, say=say)
    result = evaluate(
        opened,
        corpus,
        truncate=request.truncate,
        pool=pool,
        calibration=calibration,
        given=given,
        jobs=usable_cores(),
        reporter=reporter,
    )
    sections = {} if measure_layers is None else {"layers": measure_layers(corpus)}
    report = assemble(f"xt eval {corpus.name}", corpus, [result], **sections)
    return ReportFolder(
        write_report(request.out, report, [result], parents=[opened.parent], force=request.force), report
    )
