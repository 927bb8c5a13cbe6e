"""The long quickstart: base and trained encoder exported, served, evaluated, put under load; resumable."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from xt.bench import measure as bench
from xt.core.encoder import resolve, torch_engine
from xt.core.encoder.resolve import Resolved
from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, Artifact, open_artifact, refuse_existing
from xt.core.results.folder import read_report
from xt.core.results.report import Encoder
from xt.core.results.report import Report as Results
from xt.eval import run as evaluation
from xt.export.encoder import export_model
from xt.serve.client.encoder import TritonEncoder
from xt.serve.triton.launcher import TritonServer
from xt.serve.triton.starting import START_SECONDS
from xt.studies.quickstart import kept
from xt.train.config import TrainConfig
from xt.train.loop import train

ENCODER = "multilingual-e5-small"
TASKS = ("sample-nli", "sample-paraphrase", "sample-choice", "sample-qa")
CONCURRENCY = (1, 8, 32)
STEPS = 120
SECONDS = 6.0
MODELS = ("base", "trained")
Report = Callable[[str], None]
MakeCounter = Callable[[str], Callable[..., None]]


@dataclass(frozen=True)
class Settings:
    """What one run is asked to do."""

    out: Path
    steps: int = STEPS
    """Training steps of 16 examples."""
    seconds: float = SECONDS
    """How long each load is measured."""
    seed: int = 0
    force: bool = False
    """Do every step again."""
    start_seconds: float = START_SECONDS
    """How long Triton may take to start; 0: no limit."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.seconds < 1:
            raise XtError(f"steps {self.steps}, seconds {self.seconds:g}: 1 or more needed of both.")


@dataclass(frozen=True)
class Result:
    """What a run leaves."""

    page: Path
    report: Results


def run(settings: Settings, *, report: Report, counter: MakeCounter) -> Result:
    """Run the steps that are not complete yet, and give the report."""
    out = settings.out
    refuse_existing(out / "report", force=True, kind="report")
    refuse_existing(out / "full" / "trained", force=True, kind="checkpoint")
    for name in MODELS:
        refuse_existing(out / "full" / "repository" / name, force=True, kind="model", role="encoder")
    report("1/8 encoder")
    base = resolve.resolve(ENCODER)
    report(f"    {base.spec.name}: {base.spec.provenance}")
    report("2/8 train on English sample tasks")
    trained = training(settings, base, report, counter)
    corpus = evaluation.load_corpus("django")
    report("3/8 export, with parity against PyTorch")
    models = {}
    for name, checkpoint in zip(MODELS, (base, trained), strict=True):
        models[name] = exported(settings, name, checkpoint, corpus, report)
    hashes = [models[m].hash for m in MODELS]
    page = out / "report" / "report.html"
    if kept(out / "report", "report", hashes, force=settings.force, seconds=settings.seconds, full=True):
        report("4-8/8 kept: the report is complete")
        return Result(page, read_report(out / "report"))
    report("4/8 serve both encoders on Triton")
    with TritonServer(out / "full" / "repository", start_seconds=settings.start_seconds, report=report) as server:
        report(f"    {', '.join(server.models)} ready at {server.url}")
        evaluations = []
        for name in MODELS:
            report(f"5/8 retrieve over the wire and 6/8 calibrate: {name}")
            encoder = TritonEncoder(server.url, name)
            evaluations.append(evaluate(encoder, corpus, counter))
            encoder.close()
        report("7/8 measure throughput and latency")
        rows = measure(settings, server.url, base, corpus)
    report("8/8 report")
    results = evaluation.assemble(
        "xt quickstart",
        corpus,
        evaluations,
        training=open_artifact(trained.path).facts["training"],
        serving={
            "texts": "sentences of the corpus in all languages, one a request; in process, so many a call",
            "rows": [r.to_json() for r in rows],
        },
        notes=notes(base, trained),
        artefacts=[
            {"label": "trained checkpoint", "path": str(trained.path)},
            {"label": "Triton repository", "path": str(out / "full" / "repository")},
            {"label": "report", "path": str(out / "report")},
        ],
    )
    for entry, name in zip(results.encoders, MODELS, strict=True):
        entry.parity = models[name].facts["parity"]
    parents = [models[m].as_parent() for m in MODELS]
    extra = {"seconds": settings.seconds, "full": True}
    evaluation.write_report(out / "report", results, evaluations, parents=parents, force=True, facts=extra)
    return Result(page, results)


def training(settings: Settings, base: Resolved, report: Report, counter: MakeCounter) -> Resolved:
    """Train, or keep the checkpoint that is there."""
    target = settings.out / "full" / "trained"
    artifact = kept(target, "checkpoint", [base.parent["hash"]], force=settings.force)
    if artifact is not None:
        asked = artifact.facts["training"]["config"]
        if asked["steps"] == settings.steps and asked["seed"] == settings.seed:
            report("    kept: the checkpoint is complete")
            return resolve.from_folder(target)
    config = TrainConfig(
        encoder=str(base.path) if (base.path / MANIFEST).is_file() else ENCODER,
        intermediate=TASKS,
        out=target,
        steps=settings.steps,
        seed=settings.seed,
        force=True,
    )
    progress = counter("    steps")
    train(
        config,
        report=lambda line: report(f"    {line}"),
        progress=lambda done, total, facts: progress(done, total, facts["task"]),
    )
    return resolve.from_folder(target)


def exported(
    settings: Settings, name: str, checkpoint: Resolved, corpus: evaluation.Corpus, report: Report
) -> Artifact:
    """Export one encoder, or keep the model that is there."""
    repository = settings.out / "full" / "repository"
    artifact = kept(repository / name, "model", [checkpoint.parent["hash"]], force=settings.force, precision="int8")
    if artifact is not None:
        report(f"    {name} kept: the model is complete")
        return artifact
    say = partial(_indented, report, name)
    return export_model(checkpoint, repository, corpus=corpus.pairs, name=name, force=True, report=say)


def _indented(report: Report, name: str, line: str) -> None:
    report(f"    {name} {line}")


def evaluate(encoder: TritonEncoder, corpus: evaluation.Corpus, counter: MakeCounter) -> evaluation.Evaluation:
    """Evaluate one served model."""
    spec = encoder.spec
    entry = Encoder.of(spec, name=encoder.model, precision=encoder.facts["precision"], engine="triton")
    return evaluation.evaluate(
        encoder,
        corpus,
        entry=entry,
        temperature=spec.temperature,
        jobs=len(os.sched_getaffinity(0)),
        progress=counter("    languages"),
        calibrating=counter("    calibrated"),
    )


def measure(settings: Settings, url: str, base: Resolved, corpus: evaluation.Corpus) -> list[bench.Row]:
    """Load the server with concurrent callers, in turn with PyTorch fp32 in process on the same sentences."""
    texts = bench.mixed_texts(corpus.pairs)
    encoder = torch_engine.load_encoder(base)
    measurements: list[Callable[[float], bench.Row]]
    measurements = [partial(bench.served, url, "base", texts, c) for c in CONCURRENCY]
    label = "pytorch fp32, in process"
    measurements += [partial(bench.in_process, encoder, texts, label, "base", c) for c in CONCURRENCY]
    return bench.interleaved(measurements, settings.seconds)


def notes(base: Resolved, trained: Resolved) -> list[str]:
    """What a reader must know to judge the numbers."""
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
