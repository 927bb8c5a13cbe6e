"""The short quickstart: a calibrated answer, then training, a measured calibration, and the page.

Small on purpose: one encoder in int8, one evaluation, a short training measured in PyTorch. `full` is the long one.
Complete steps are kept: a run that was killed is continued by the next.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xt.calibration import search
from xt.core.data.bitext import Bitext
from xt.core.data.corpus import Corpus, load_corpus
from xt.core.encoder.resolve import Resolved, resolve
from xt.core.files.artifact import Artifact, refuse_existing
from xt.core.languages import resource_of
from xt.core.reporter import Reporter
from xt.core.results.folder import read_report
from xt.core.results.report import Report
from xt.core.results.work import Parity
from xt.eval.retrieval.evaluation import evaluate
from xt.eval.retrieval.report import assemble, write_report
from xt.export.encoder import EncoderExport, export_model
from xt.serve.encoders import OpenedEncoder
from xt.studies.quickstart.answer import DOCUMENTS, Answer, ask, installed, refuse_other, sentences, with_vectors
from xt.studies.quickstart.settings import CORPUS, PROVIDER, TASKS, Settings
from xt.studies.quickstart.steps import Clock, kept, sample_training, trained
from xt.studies.quickstart.words import notes


@dataclass(frozen=True)
class Result:
    """What a run leaves."""

    page: Path
    answer: Answer
    steps: dict[str, float]
    """Name -> seconds of the steps of this run."""
    report: Report

    def to_json(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "path": str(self.page.parent),
            "page": str(self.page),
            "answer": asdict(self.answer),
            "steps": self.steps,
            **self.report.to_json(),
        }


def run(
    settings: Settings,
    *,
    reporter: Reporter = Reporter(),
    answered: Callable[[Answer], None] = lambda answer: None,
    started: float | None = None,
    bundled: Corpus | None = None,
) -> Result:
    """Run the steps that are not complete yet.

    Args:
        settings: what to do.
        reporter: takes what happens, and counts.
        answered: takes the answer to the question as soon as it is there.
        started: when the command began (`time.monotonic`); None: now.
        bundled: the corpus; None: that of Django's translations.
    """
    out, say = settings.out, reporter.say
    refuse_existing(out / "models" / "encoder", force=True, kind="model", role="encoder")
    refuse_existing(out / "index", force=True, kind="index")
    refuse_existing(out / "repository" / "retriever", force=True, kind="model", role="retriever")
    refuse_existing(out / "runs" / "trained", force=True, kind="checkpoint")
    refuse_existing(out / "report", force=True, kind="report")
    clock = Clock(say, time.monotonic() if started is None else started)
    base = resolve(settings.encoder)
    say(f"encoder: {base.spec.name}, {base.spec.provenance}")
    every = bundled or load_corpus(CORPUS)
    corpus = measured(every, settings.languages)
    documents = sentences(corpus.pairs)
    refuse_other(out / DOCUMENTS, documents)
    model = clock.run("export", lambda: exported(settings, base, every.pairs, reporter))
    opened = with_vectors(settings, model, reporter)
    retriever = clock.run("index", lambda: installed(settings, model, opened, corpus.pairs, documents, reporter))
    answer = clock.run("answer", lambda: ask(settings, retriever, clock, reporter))
    answered(answer)
    target = out / "runs" / "trained"
    config = sample_training(base, settings.encoder, TASKS, steps=settings.steps, seed=settings.seed, out=target)
    line = "the checkpoint is complete: kept"
    checkpoint = clock.run(
        "train", lambda: trained(config, base, force=settings.force, when_kept=line, reporter=reporter)
    )
    page = out / "report" / "report.html"
    if kept(out / "report", "report", [model.hash], force=settings.force, checkpoint=checkpoint.hash):
        say("the report is complete: kept")
        results = read_report(out / "report")
    else:
        results = clock.run("evaluate", lambda: measure(settings, base, model, opened, corpus, checkpoint, reporter))
    return Result(page, answer, clock.steps, results)


def measured(corpus: Corpus, count: int) -> Corpus:
    """Take `count` languages of a corpus: those that temperatures are fitted on, and others of every class."""
    sources = [b for b in corpus.pairs if search.is_source(b.language)]
    others = sorted(
        (b for b in corpus.pairs if not search.is_source(b.language)),
        key=lambda b: (resource_of(b.language), b.language),
    )
    wanted = max(count - len(sources), 0)
    chosen = {others[i * len(others) // wanted].language for i in range(wanted)} if wanted < len(others) else None
    pairs = tuple(b for b in corpus.pairs if search.is_source(b.language) or chosen is None or b.language in chosen)
    return Corpus(corpus.name, corpus.title, corpus.source, corpus.licence, pairs)


def exported(settings: Settings, base: Resolved, corpus: Sequence[Bitext], reporter: Reporter) -> Artifact:
    """Export the encoder to int8, or keep the model that is there."""
    folder = settings.out / "models"
    parents, precision = [base.parent["hash"]], settings.precision
    model = kept(folder / "encoder", "model", parents, force=settings.force, precision=precision)
    if model is not None:
        reporter.say("the exported encoder is complete: kept")
        return model
    say = reporter.indented().say
    options = EncoderExport(precision=precision, provider=PROVIDER, quick=True)
    return export_model(base, folder, corpus=corpus, options=options, force=True, report=say)


def measure(
    settings: Settings,
    base: Resolved,
    model: Artifact,
    opened: OpenedEncoder,
    corpus: Corpus,
    checkpoint: Artifact,
    reporter: Reporter,
) -> Report:
    """Evaluate the exported encoder, with intervals, write the report folder and return what it reports."""
    found = evaluate(opened, corpus, jobs=len(os.sched_getaffinity(0)), reporter=reporter.indented())
    results = assemble(
        "xt quickstart",
        corpus,
        [found],
        training=checkpoint.facts["training"],
        notes=notes(base),
        artefacts=[
            {"label": "exported encoder", "path": str(model.path)},
            {"label": "Triton repository with the retriever", "path": str(settings.out / "repository")},
            {"label": "trained checkpoint", "path": str(checkpoint.path)},
            {"label": "report", "path": str(settings.out / "report")},
        ],
    )
    results.encoders[0].parity = Parity.from_json(model.facts["parity"])
    facts = {"checkpoint": checkpoint.hash}
    write_report(settings.out / "report", results, [found], parents=[model.as_parent()], force=True, facts=facts)
    return results
