"""The answer of the quickstart: the English sentences indexed, calibrated, served on Triton, and asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from xt.calibration import search
from xt.calibration.apply.file import CANDIDATES, CalibrationTable
from xt.core.data.bitext import Bitext
from xt.core.encoder.text import Encoder
from xt.core.errors import XtError
from xt.core.files.artifact import Artifact
from xt.core.reporter import Reporter
from xt.eval.retrieval import ranking
from xt.eval.vector_cache import CachedEncoder
from xt.serve.client.client import Client
from xt.serve.encoders import OpenedEncoder, open_encoder
from xt.serve.index.calibration import model_identity
from xt.serve.index.encode_files import Settings as EncodeSettings
from xt.serve.index.indexing import index_corpus
from xt.serve.index.retriever import install
from xt.serve.triton.launcher import TritonServer
from xt.studies.quickstart.settings import CORPUS, DIRECTION, Settings
from xt.studies.quickstart.steps import Clock, kept

ANSWERS = 3
DOCUMENTS = "documents.jsonl"


@dataclass(frozen=True)
class Hit:
    """One document that was found."""

    text: str
    probability: float
    """That it is the right one."""
    cosine: float


@dataclass(frozen=True)
class Answer:
    """The served retriever's answer to the question."""

    question: str
    hits: tuple[Hit, ...]
    """Likeliest first."""
    none: float
    """Probability that none of the documents is right."""
    seconds: float
    """From the start of the command."""


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


def with_vectors(settings: Settings, model: Artifact, reporter: Reporter) -> OpenedEncoder:
    """Open the exported encoder; its vectors are kept in the folder of the run, for a run that goes on."""
    opened = open_encoder(str(model.path))
    cached = CachedEncoder(opened.encoder, model.hash, root=settings.out / "vectors", warn=reporter.say)
    return replace(opened, encoder=cached)


def fit(encoder: Encoder, pairs: Sequence[Bitext], model: Artifact) -> CalibrationTable:
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
    settings: Settings,
    model: Artifact,
    opened: OpenedEncoder,
    pairs: Sequence[Bitext],
    documents: str,
    reporter: Reporter,
) -> Artifact:
    """Index the English sentences and install them, with a calibration, as a retriever; or keep what is there."""
    repository, folder = settings.out / "repository", settings.out / "index"
    file, below = settings.out / DOCUMENTS, reporter.indented()
    index = kept(folder, "index", [model.hash], force=settings.force)
    if index is not None:
        retriever = kept(repository / "retriever", "model", [model.hash, index.hash], force=settings.force)
        if retriever is not None:
            reporter.say("the retriever is complete: kept")
            return retriever
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(documents, encoding="utf-8")
        prefix = opened.encoder.spec.default_prefix or "none"  # as both sides of the pairs are encoded
        lines = Reporter(below.say)  # seconds: there is no need of a counter
        index_corpus(file, folder, opened.identified(), settings=EncodeSettings(prefix), force=True, reporter=lines)
    table = fit(opened.encoder, pairs, model)
    return install(folder, model.path, repository, table=table, force=True, report=below.say)


def ask(settings: Settings, retriever: Artifact, clock: Clock, reporter: Reporter) -> Answer:
    """Serve the retriever on Triton, ask it the question, and stop it."""
    below = reporter.indented().say
    with TritonServer(retriever.path.parent, start_seconds=settings.start_seconds, report=below) as server:
        client = Client(server.url, retriever.path.name)
        (found,) = client.search([settings.ask], k=ANSWERS)
        client.close()
        seconds = clock.seconds
    hits = tuple(Hit(h.document, float(h.probability or 0.0), float(h.score)) for h in found.hits)
    return Answer(settings.ask, hits, float(found.none or 0.0), round(seconds, 1))
