"""The long quickstart: base and trained encoder exported, served, evaluated, put under load; resumable."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from xt.bench import measure as bench
from xt.core.data.corpus import Corpus, load_corpus
from xt.core.encoder import resolve, torch_engine
from xt.core.encoder.resolve import Resolved
from xt.core.errors import XtError
from xt.core.files.artifact import Artifact, open_artifact, refuse_existing
from xt.core.reporter import Reporter
from xt.core.results.folder import read_report
from xt.core.results.report import Report
from xt.core.results.work import Parity
from xt.eval.retrieval.evaluation import Evaluation, evaluate
from xt.eval.retrieval.report import assemble, write_report
from xt.export.encoder import export_model
from xt.serve.encoders import open_encoder
from xt.serve.triton.launcher import TritonServer
from xt.studies.quickstart.steps import RunSettings, kept, sample_training, trained

ENCODER = "multilingual-e5-small"
TASKS = ("sample-nli", "sample-paraphrase", "sample-choice", "sample-qa")
CONCURRENCY = (1, 8, 32)
STEPS = 120
SECONDS = 6.0
MODELS = ("base", "trained")


@dataclass(frozen=True)
class Settings(RunSettings):
    """The settings of one run."""

    steps: int = STEPS
    seconds: float = SECONDS
    """How long each load is measured."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.seconds < 1:
            raise XtError(f"steps {self.steps}, seconds {self.seconds:g}: 1 or more needed of both.")


@dataclass(frozen=True)
class Result:
    """What a run leaves."""

    page: Path
    report: Report


def run(settings: Settings, *, reporter: Reporter = Reporter()) -> Result:
    """Run the steps that are not complete yet, and return the report."""
    out, say = settings.out, reporter.say
    refuse_existing(out / "report", force=True, kind="report")
    refuse_existing(out / "full" / "trained", force=True, kind="checkpoint")
    for name in MODELS:
        refuse_existing(out / "full" / "repository" / name, force=True, kind="model", role="encoder")
    say("1/8 encoder")
    base = resolve.resolve(ENCODER)
    say(f"    {base.spec.name}: {base.spec.provenance}")
    say("2/8 train on English sample tasks")
    target = out / "full" / "trained"
    config = sample_training(base, ENCODER, TASKS, steps=settings.steps, seed=settings.seed, out=target)
    trained(config, base, force=settings.force, when_kept="    kept: the checkpoint is complete", reporter=reporter)
    checkpoint = resolve.from_folder(target)
    corpus = load_corpus("django")
    say("3/8 export, with parity against PyTorch")
    models = {}
    for name, encoder in zip(MODELS, (base, checkpoint), strict=True):
        models[name] = exported(settings, name, encoder, corpus, reporter)
    hashes = [models[m].hash for m in MODELS]
    page = out / "report" / "report.html"
    if kept(out / "report", "report", hashes, force=settings.force, seconds=settings.seconds, full=True):
        say("4-8/8 kept: the report is complete")
        return Result(page, read_report(out / "report"))
    say("4/8 serve both encoders on Triton")
    with TritonServer(out / "full" / "repository", start_seconds=settings.start_seconds, report=say) as server:
        say(f"    {', '.join(server.models)} ready at {server.url}")
        evaluations = [evaluated(server.url, name, corpus, reporter) for name in MODELS]
        say("7/8 measure throughput and latency")
        rows = measure(settings, server.url, base, corpus)
    say("8/8 report")
    results = assemble(
        "xt quickstart",
        corpus,
        evaluations,
        training=open_artifact(checkpoint.path).facts["training"],
        serving={
            "texts": "sentences of the corpus in all languages, one a request; in process, so many a call",
            "rows": [r.to_json() for r in rows],
        },
        notes=notes(base),
        artefacts=[
            {"label": "trained checkpoint", "path": str(checkpoint.path)},
            {"label": "Triton repository", "path": str(out / "full" / "repository")},
            {"label": "report", "path": str(out / "report")},
        ],
    )
    for entry, name in zip(results.encoders, MODELS, strict=True):
        entry.parity = Parity.from_json(models[name].facts["parity"])
    parents = [models[m].as_parent() for m in MODELS]
    extra = {"seconds": settings.seconds, "full": True}
    write_report(out / "report", results, evaluations, parents=parents, force=True, facts=extra)
    return Result(page, results)


def exported(settings: Settings, name: str, checkpoint: Resolved, corpus: Corpus, reporter: Reporter) -> Artifact:
    """Export one encoder, or keep the model that is there."""
    repository = settings.out / "full" / "repository"
    artifact = kept(repository / name, "model", [checkpoint.parent["hash"]], force=settings.force, precision="int8")
    if artifact is not None:
        reporter.say(f"    {name} kept: the model is complete")
        return artifact
    say = reporter.indented(f"    {name} ").say
    return export_model(checkpoint, repository, corpus=corpus.pairs, name=name, force=True, report=say)


def evaluated(url: str, name: str, corpus: Corpus, reporter: Reporter) -> Evaluation:
    """Evaluate one served model."""
    reporter.say(f"5/8 retrieve over the wire and 6/8 calibrate: {name}")
    opened = open_encoder(url=url, model=name)
    try:
        return evaluate(opened, corpus, jobs=len(os.sched_getaffinity(0)), reporter=reporter.indented())
    finally:
        opened.encoder.close()


def measure(settings: Settings, url: str, base: Resolved, corpus: Corpus) -> list[bench.Row]:
    """Load the server with concurrent callers, in turn with PyTorch fp32 in process on the same sentences."""
    texts = bench.mixed_texts(corpus.pairs)
    encoder = torch_engine.load_encoder(base)
    measurements: list[Callable[[float], bench.Row]]
    measurements = [partial(bench.served, url, "base", texts, c) for c in CONCURRENCY]
    label = "pytorch fp32, in process"
    measurements += [partial(bench.in_process, encoder, texts, label, "base", c) for c in CONCURRENCY]
    return bench.interleaved(measurements, settings.seconds)


def notes(base: Resolved) -> list[str]:
    """Return what a reader must know to judge the numbers."""
    found = [
        "The training sets are samples written for xt, a few hundred examples: they show that the pipeline works, not "
        "what intermediate training can do.",
        "The corpus is interface text: short sentences, many alike, so retrieval is harder than it looks and languages "
        "with fewer translated sentences have fewer candidates. Accuracies are not comparable with Tatoeba's.",
        "ECE of a language rests on 81 to 144 sentences; compare it with its null value, what a perfectly calibrated "
        "model would show at that size.",
    ]
    if "4-bit" in base.spec.provenance:
        found.insert(0, "The encoder is a 4-bit copy of multilingual-e5-small; the published weights score higher.")
    return found
