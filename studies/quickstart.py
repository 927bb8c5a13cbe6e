"""The first quarter of an hour with xt: a calibrated answer, then training, a measured calibration, and the page.

Small on purpose: one encoder in int8, one evaluation, a short training measured in PyTorch. `quickstart_full` is the
long one. Complete steps are kept: a run that was killed is continued by the next.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from xt.calibration import search
from xt.calibration.apply.table import CANDIDATES, CalibrationTable
from xt.core.data.bitext import Bitext
from xt.core.encoder import resolve
from xt.core.encoder.onnx_engine import load_model
from xt.core.encoder.resolve import Resolved
from xt.core.encoder.text import check_text
from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, Artifact, open_artifact, refuse_existing
from xt.core.results.folder import read_report
from xt.core.results.report import Encoder
from xt.core.results.report import Report as Results
from xt.eval import run as evaluation
from xt.eval.retrieval import ranking
from xt.eval.vector_cache import CachedEncoder
from xt.export.encoder import export_model
from xt.serve.client.client import Client
from xt.serve.index.calibration import model_identity
from xt.serve.index.encode_files import Settings as EncodeSettings
from xt.serve.index.indexing import index_corpus
from xt.serve.index.retriever import install
from xt.serve.triton.launcher import TritonServer
from xt.serve.triton.starting import START_SECONDS
from xt.studies.quickstart_plan import LANGUAGES, QUESTION, STEPS
from xt.train.config import TrainConfig
from xt.train.loop import train

ENCODER = "multilingual-e5-small"
CORPUS = "django"
PRECISION = "int8-blocks"
PROVIDER = "cpu"
"""8-bit blocks on ONNX Runtime's own provider: no scales to calibrate and no kernel to compile for every shape."""
TASKS = ("sample-nli", "sample-paraphrase")
ANSWERS = 3
DOCUMENTS = "documents.jsonl"
DIRECTION = ranking.DIRECTIONS[0]
Report = Callable[[str], None]
MakeCounter = Callable[[str], Callable[..., None]]


@dataclass(frozen=True)
class Settings:
    """What one run is asked to do."""

    out: Path
    ask: str = QUESTION
    """The question, in any language."""
    steps: int = STEPS
    """Training steps of 16 examples."""
    seed: int = 0
    force: bool = False
    """Do every step again."""
    start_seconds: float = START_SECONDS
    """How long Triton may take to start; 0: no limit."""

    def __post_init__(self) -> None:
        check_text(self.ask, "the question")
        if self.steps < 1:
            raise XtError(f"{self.steps} training steps, at least 1 is needed.", "Give --steps more.")


@dataclass(frozen=True)
class Hit:
    """One document that was found."""

    text: str
    probability: float
    """That it is the right one."""
    cosine: float


@dataclass(frozen=True)
class Answer:
    """What the served retriever said of the question."""

    question: str
    hits: tuple[Hit, ...]
    """Likeliest first."""
    none: float
    """Probability that none of the documents is right."""
    seconds: float
    """From the start of the command."""


@dataclass
class Clock:
    """The time of each step."""

    report: Report
    started: float = field(default_factory=time.monotonic)
    steps: dict[str, float] = field(default_factory=dict)
    """Name -> seconds."""

    def run(self, name: str, work: Callable[[], Any]) -> Any:
        """Do a step, print how long it took, and return its result."""
        self.report(f"{name} ...")
        begun = time.monotonic()
        result = work()
        self.steps[name] = round(time.monotonic() - begun, 1)
        self.report(f"{name}: {self.steps[name]:.0f} s")
        return result

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started


@dataclass(frozen=True)
class Result:
    """What a run leaves."""

    page: Path
    answer: Answer
    steps: dict[str, float]
    """Name -> seconds of the steps of this run."""
    report: Results

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "path": str(self.page.parent),
            "page": str(self.page),
            "answer": asdict(self.answer),
            "steps": self.steps,
            **self.report.to_json(),
        }


def kept(path: Path, kind: str, parents: Sequence[str], *, force: bool = False, **facts: Any) -> Artifact | None:
    """Return the folder when it is complete, made from just these parents, and with these facts; else None."""
    if force or not (path / MANIFEST).is_file():
        return None
    try:
        artifact = open_artifact(path, kind=kind)
    except XtError:
        return None
    same = [p["hash"] for p in artifact.manifest["parents"]] == list(parents)
    return artifact if same and all(artifact.facts.get(k) == v for k, v in facts.items()) else None


def run(
    settings: Settings,
    *,
    report: Report,
    counter: MakeCounter,
    answered: Callable[[Answer], None],
    started: float | None = None,
) -> Result:
    """Run the steps that are not complete yet.

    Args:
        settings: what to do.
        report: takes lines on what happens.
        counter: makes a progress counter of a name.
        answered: takes the answer to the question as soon as it is there.
        started: when the command began (`time.monotonic`); None: now.
    """
    out = settings.out
    refuse_existing(out / "models" / "encoder", force=True, kind="model", role="encoder")
    refuse_existing(out / "index", force=True, kind="index")
    refuse_existing(out / "repository" / "retriever", force=True, kind="model", role="retriever")
    refuse_existing(out / "runs" / "trained", force=True, kind="checkpoint")
    refuse_existing(out / "report", force=True, kind="report")
    clock = Clock(report, time.monotonic() if started is None else started)
    base = resolve.resolve(ENCODER)
    report(f"encoder: {base.spec.name}, {base.spec.provenance}")
    every = evaluation.load_corpus(CORPUS)
    corpus = measured(every)
    documents = sentences(corpus.pairs)
    refuse_other(out / DOCUMENTS, documents)
    model = clock.run("export", lambda: exported(settings, base, every.pairs, report))
    encoder = Vectors(settings, model, report)
    retriever = clock.run("index", lambda: installed(settings, model, encoder, corpus.pairs, documents, report))
    answer = clock.run("answer", lambda: ask(settings, retriever, clock))
    answered(answer)
    trained = clock.run("train", lambda: training(settings, base, report, counter))
    page = settings.out / "report" / "report.html"
    if kept(settings.out / "report", "report", [model.hash], force=settings.force, checkpoint=trained.hash):
        report("the report is complete: kept")
        results = read_report(settings.out / "report")
    else:
        results = clock.run("evaluate", lambda: measure(settings, base, model, encoder, corpus, trained, counter))
    return Result(page, answer, clock.steps, results)


def measured(corpus: evaluation.Corpus) -> evaluation.Corpus:
    """Take `LANGUAGES` languages of a corpus: those that temperatures are fitted on, and others of every class."""
    sources = [b for b in corpus.pairs if search.is_source(b.language)]
    others = sorted(
        (b for b in corpus.pairs if not search.is_source(b.language)),
        key=lambda b: (evaluation.resource_of(b.language), b.language),
    )
    wanted = max(LANGUAGES - len(sources), 0)
    chosen = {others[i * len(others) // wanted].language for i in range(wanted)} if wanted < len(others) else None
    pairs = tuple(b for b in corpus.pairs if search.is_source(b.language) or chosen is None or b.language in chosen)
    return evaluation.Corpus(corpus.name, corpus.title, corpus.source, corpus.licence, pairs)


def sentences(pairs: Sequence[Bitext]) -> str:
    """Return every English sentence once, as lines of a corpus of documents."""
    texts = dict.fromkeys(t for b in pairs for t in b.english)
    return "".join(json.dumps({"id": f"d{i}", "text": t}, ensure_ascii=False) + "\n" for i, t in enumerate(texts))


def refuse_other(file: Path, content: str) -> None:
    """Raise XtError when there is a file that this command did not write."""
    try:
        if file.read_text(encoding="utf-8") == content:
            return
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError):
        pass  # a folder, a damaged file: not what would be written
    raise XtError(f"{file} holds something else than the sentences that are to be indexed.", "Choose another --out.")


def exported(settings: Settings, base: Resolved, corpus: Sequence[Bitext], report: Report) -> Artifact:
    """Export the encoder to int8, or keep the model that is there."""
    folder = settings.out / "models"
    model = kept(folder / "encoder", "model", [base.parent["hash"]], force=settings.force, precision=PRECISION)
    if model is not None:
        report("the exported encoder is complete: kept")
        return model
    say = partial(_indented, report)
    return export_model(
        base, folder, corpus=corpus, precision=PRECISION, provider=PROVIDER, quick=True, force=True, report=say
    )


def _indented(report: Report, line: str) -> None:
    report(f"    {line}")


class Vectors(CachedEncoder):
    """The exported encoder in process; its vectors are kept in the folder of the run, for a run that goes on."""

    def __init__(self, settings: Settings, model: Artifact, report: Report) -> None:
        encoder, _ = load_model(model.path)
        super().__init__(encoder, model.hash, root=settings.out / "vectors", warn=report)
        self.spec = encoder.spec


def identity_of(encoder: Vectors, model: Artifact) -> dict[str, Any]:
    """Say which encoder made an index."""
    return {
        **Encoder.of(encoder.spec, precision=model.facts["precision"], engine="onnxruntime").to_json(),
        "checkpoint": model.facts["checkpoint"].get("hash", ""),
        "parent": {"kind": "model", "hash": model.hash},
    }


def fit(encoder: CachedEncoder, pairs: Sequence[Bitext], model: Artifact) -> CalibrationTable:
    """Fit one temperature on the high-resource languages: the calibration that other languages get, too."""
    sources = [b for b in pairs if search.is_source(b.language)]
    if not sources:
        raise XtError(
            f"The bundled corpus has none of the languages {', '.join(search.SOURCES)}.",
            "Install it again: pip install 'xt-retriever[quickstart]'",
        )
    vectors = ranking.encode_corpus(encoder, sources)
    by_index = [ranking.rank(b, vectors[b.language], DIRECTION) for b in sources]
    rankings = [
        ranking.rank_texts(b, vectors[b.language], DIRECTION, r) for b, r in zip(sources, by_index, strict=True)
    ]
    sizes = [r.candidates for r in rankings]
    read = [
        r.predictions(b.language, [ranking.id_of(e) for e in b.english]) for b, r in zip(sources, rankings, strict=True)
    ]
    return CalibrationTable(
        search.fit_excluding(read, None),
        "zero-shot",
        {},
        min(CANDIDATES, *sizes),
        {
            "task": CORPUS,
            "direction": DIRECTION,
            "corpus_sizes": [min(sizes), max(sizes)],
            "fitted_on": [b.language for b in sources],
            "encoder": model_identity(model),
            "encoder_match": "exact",
        },
    )


def installed(
    settings: Settings, model: Artifact, encoder: Vectors, pairs: Sequence[Bitext], documents: str, report: Report
) -> Artifact:
    """Index the English sentences and install them, with a calibration, as a retriever; or keep what is there."""
    repository, folder = settings.out / "repository", settings.out / "index"
    file = settings.out / DOCUMENTS
    index = kept(folder, "index", [model.hash], force=settings.force)
    if index is not None:
        retriever = kept(repository / "retriever", "model", [model.hash, index.hash], force=settings.force)
        if retriever is not None:
            report("the retriever is complete: kept")
            return retriever
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(documents, encoding="utf-8")
        prefix = encoder.spec.default_prefix or "none"  # as both sides of the pairs are encoded
        index = index_corpus(
            file,
            folder,
            encoder,
            identity_of(encoder, model),
            settings=EncodeSettings(prefix),
            opened={"encoder": str(model.path), "model": None},
            force=True,
            report=partial(_indented, report),
        )
    table = fit(encoder, pairs, model)
    return install(folder, model.path, repository, table=table, force=True, report=partial(_indented, report))


def ask(settings: Settings, retriever: Artifact, clock: Clock) -> Answer:
    """Serve the retriever on Triton, ask it the question, and stop it."""
    with TritonServer(
        retriever.path.parent, start_seconds=settings.start_seconds, report=partial(_indented, clock.report)
    ) as server:
        client = Client(server.url, retriever.path.name)
        (found,) = client.search([settings.ask], k=ANSWERS)
        client.close()
        seconds = clock.seconds
    hits = tuple(Hit(h.document, float(h.probability or 0.0), float(h.score)) for h in found.hits)
    return Answer(settings.ask, hits, float(found.none or 0.0), round(seconds, 1))


def training(settings: Settings, base: Resolved, report: Report, counter: MakeCounter) -> Artifact:
    """Train a little and measure the heads in PyTorch, or keep the checkpoint that is there."""
    target = settings.out / "runs" / "trained"
    artifact = kept(target, "checkpoint", [base.parent["hash"]], force=settings.force)
    if artifact is not None:
        asked = artifact.facts["training"]["config"]
        if (asked["steps"], asked["seed"], tuple(asked["intermediate"])) == (settings.steps, settings.seed, TASKS):
            report("the checkpoint is complete: kept")
            return artifact
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
        report=partial(_indented, report),
        progress=lambda done, total, facts: progress(done, total, facts["task"]),
    )
    return open_artifact(target)


def measure(
    settings: Settings,
    base: Resolved,
    model: Artifact,
    encoder: Vectors,
    corpus: evaluation.Corpus,
    trained: Artifact,
    counter: MakeCounter,
) -> Results:
    """Evaluate the exported encoder, with intervals, write the report folder and return what it reports."""
    spec = base.spec
    entry = Encoder.of(spec, name="encoder", precision=model.facts["precision"], engine="onnxruntime")
    found = evaluation.evaluate(
        encoder,
        corpus,
        entry=entry,
        temperature=spec.temperature,
        jobs=len(os.sched_getaffinity(0)),
        progress=counter("    languages"),
        calibrating=counter("    calibrated"),
    )
    results = evaluation.assemble(
        "xt quickstart",
        corpus,
        [found],
        training=trained.facts["training"],
        notes=notes(base),
        artefacts=[
            {"label": "exported encoder", "path": str(model.path)},
            {"label": "Triton repository with the retriever", "path": str(settings.out / "repository")},
            {"label": "trained checkpoint", "path": str(trained.path)},
            {"label": "report", "path": str(settings.out / "report")},
        ],
    )
    results.encoders[0].parity = model.facts["parity"]
    facts = {"checkpoint": trained.hash}
    folder = settings.out / "report"
    evaluation.write_report(folder, results, [found], parents=[model.as_parent()], force=True, facts=facts)
    return results


def notes(base: Resolved) -> list[str]:
    """Say what a reader must know to judge the numbers."""
    found = [
        "The training sets are samples written for xt, a few hundred examples, and few steps were made: they show that "
        "training works, not what it can do. The trained encoder is measured on its tasks in PyTorch; the retrieval on "
        "this page is that of the encoder before training. `xt quickstart --full` exports and measures both.",
        "The corpus is interface text: short sentences, many alike, so retrieval is harder than it looks and languages "
        "with fewer translated sentences have fewer candidates. Accuracies are not comparable with Tatoeba's.",
        f"{LANGUAGES} languages of 64 were measured. ECE of a language rests on 81 to 144 sentences; compare it with "
        "its null value, what a perfectly calibrated model would show at that size.",
        "The encoder was exported as 8-bit blocks of weights (`--precision int8-blocks --provider cpu`), made in "
        "seconds; the default of `xt export`, int8 with fixed scales on OpenVINO, takes minutes to make. Parity with "
        "PyTorch was measured on half of the sentences that `xt export` takes, of all 64 languages, and on the served "
        "graph alone; it had to reach the same thresholds. Its vectors may change in the last bits with the batch, "
        "which those of int8 with fixed scales do not.",
    ]
    if "4-bit" in base.spec.provenance:
        found.insert(0, "The encoder is a 4-bit copy of multilingual-e5-small; the published weights score higher.")
    return found


def closing(result: Result) -> list[str]:
    """Sum a run up in three sentences, then the page and the next command."""
    encoder, trained = result.report.encoders[0], result.report.training
    found, methods = encoder.retrieval[DIRECTION], encoder.calibration[DIRECTION].methods
    accuracy, low = found.mean["all"], found.mean.get("low")
    before, ece = methods["cosine"].overall.ece, methods["zero-shot"].overall.ece
    tasks = trained["tasks"]
    learned = ", ".join(f"{t['task']} {t['after']:.0%} (majority {t['majority']:.0%})" for t in tasks)
    count = len(found.languages)
    poor = f", {low:.0%} in the low-resource ones" if low is not None else ""
    return [
        f"In {count} languages the encoder finds a sentence's English translation {accuracy:.0%} of the time{poor}.",
        f"Its probabilities are off by {ece:.3f} on average, calibrated on five languages; by {before:.3f} before.",
        f"After {trained['steps']} steps of training its heads score {learned} on held-out samples.",
        f"The page: {result.page}",
        f"Next: xt serve {result.page.parent.parent / 'repository'} --gateway-port 8080   # and ask at http://127.0.0.1:8080",
    ]
