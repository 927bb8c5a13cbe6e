"""`xt eval`: evaluate and report every task that was named, or make a summary or comparison of written reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xt.core.data.corpus import Corpus, load_corpus
from xt.core.errors import UsageError
from xt.core.files.artifact import open_artifact, refuse_existing
from xt.core.files.replacing import named_paths
from xt.core.reporter import Reporter
from xt.core.results.folder import ReportFolder
from xt.eval.compare import compare
from xt.eval.fitted import install_calibration
from xt.eval.mining.run import evaluate_mined
from xt.eval.options import EvalOptions, TaskRequest
from xt.eval.ranked.run import evaluate_ranked
from xt.eval.retrieval.layers import layer_sweep
from xt.eval.retrieval.run import evaluate_corpus
from xt.eval.summary import write_summary
from xt.eval.task_requests import Requests
from xt.eval.vector_cache import with_cache
from xt.serve.encoders import OpenedEncoder

Written = Callable[[ReportFolder], None]
"""Takes a report as soon as its folder is written."""


def run(
    options: EvalOptions,
    requests: Requests,
    *,
    reporter: Reporter = Reporter(),
    written: Written = lambda folder: None,
) -> list[ReportFolder]:
    """Evaluate every task and write its report.

    Args:
        options: the encoder or heads, and what is measured of them.
        requests: the tasks (`xt.eval.task_requests.read_requests`).
        reporter: takes what is worth knowing meanwhile, and counts.
        written: takes each report as soon as it is there.
    """
    by_heads = [r for r in requests.tasks if r.kind == "heads"]
    by_vectors = [r for r in requests.tasks if r.kind != "heads"]
    heads = None
    if by_heads:
        from xt.eval.heads.run import HeadTasks  # PyTorch

        location = replace(options.location, model=None) if by_vectors else options.location  # --model: the encoder
        heads = HeadTasks.read(location, by_heads, options.measures, say=reporter.say)
    folders = _by_vectors(options, requests, by_vectors, reporter, written)
    if heads is not None:
        for out, folder in heads.evaluate(force=options.force, reporter=reporter):
            folders[out] = folder
            written(folder)
    return [folders[r.out] for r in requests.tasks]


def _by_vectors(
    options: EvalOptions, requests: Requests, tasks: Sequence[TaskRequest], reporter: Reporter, written: Written
) -> dict[Path, ReportFolder]:
    """Evaluate the tasks that an encoder's vectors answer."""
    corpora = {
        r.out: load_corpus(r.name, data_dir=r.data_dir, selection=r.languages) for r in tasks if r.kind == "bitext"
    }
    folders: dict[Path, ReportFolder] = {}
    if not tasks:
        return folders
    location, measures, calibration = options.location, options.measures, requests.calibration
    opened = location.open()
    cached = opened
    if options.cache and location.url is None:
        cached = with_cache(opened, location.device, say=reporter.say)
    sweep: Callable[[Corpus], dict[str, Any]] | None = None
    if measures.layers is not None:
        sweep = layer_sweep(opened, requests.layers, truncate=options.truncate, reporter=reporter)

    def evaluated(request: TaskRequest, opened: OpenedEncoder, cached: OpenedEncoder) -> ReportFolder:
        if request.kind == "mining":
            margin, search = measures.margin or "ratio", measures.search or "auto"
            return evaluate_mined(opened, request, margin=margin, search=search, reporter=reporter)
        if request.kind == "ranked":
            return evaluate_ranked(cached, request, cut=measures.cut, calibration=calibration, reporter=reporter)
        return evaluate_corpus(
            cached,
            corpora[request.out],
            request,
            pool=measures.pool,
            calibration=calibration,
            measure_layers=sweep,
            reporter=reporter,
        )

    for request in tasks:
        folder = folders[request.out] = evaluated(request, opened, cached)
        written(folder)
        if calibration.install is not None and request.kind != "mining":
            install_calibration(calibration.install, folder.path, say=reporter.say)
    return folders


def report_on_reports(options: EvalOptions, *, reporter: Reporter = Reporter()) -> ReportFolder:
    """Put the table of a benchmark together from reports that are there, or compare two of them."""
    names, out, force, results = options.task, options.out, options.force, options.results
    kind = "summary" if results.summary else "report"
    refuse_existing(out, force=force, kind=kind, inputs=named_paths(names))
    folders = [Path(name).expanduser() for name in names]
    if results.summary:
        return ReportFolder(*write_summary(folders, results.benchmark or "xtreme", out, force=force))
    if len(names) != 2:
        raise UsageError(f"--compare takes two report folders, found {len(names)}")
    first, second = folders
    report = compare(first, second, out, force=force, progress=reporter.counter("languages"))
    return ReportFolder(open_artifact(out, kind="report"), report)
