"""`xt encode`, `xt index` and `xt search`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from xt.cli.console import REPORTER, emit, say, stderr, table
from xt.cli.settings import with_flags
from xt.core.settings import Json
from xt.serve.index.options import EncodeOptions, IndexOptions, SearchOptions

if TYPE_CHECKING:
    from xt.core.files.artifact import Artifact
    from xt.serve.index.index import Answer

ENCODE_EPILOG = """Examples:

xt encode corpus.jsonl --encoder repository --model encoder --out vectors

xt encode texts.txt --url 127.0.0.1:8001 --prefix query --dtype float16 --out vectors"""
INDEX_EPILOG = """Examples:

xt index corpus.jsonl --encoder repository --model encoder --out indexes/mine

xt index vectors --kind hnsw --out indexes/mine

xt index corpus.tsv --encoder repository/encoder --out indexes/mine --install repository --calibration reports/x

xt index indexes/mine --install repository --name retriever --encoder repository/encoder --uncalibrated"""
SEARCH_EPILOG = """Examples:

xt search indexes/mine "Wo ist der Bahnhof?"

xt search indexes/mine "Kituo kiko wapi?" --top-k 3 --calibration reports/x --language swh --json

xt search repository/retriever "Wo ist der Bahnhof?\""""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("encode", epilog=ENCODE_EPILOG)(encode)
    app.command("index", epilog=INDEX_EPILOG)(index)
    app.command("search", epilog=SEARCH_EPILOG)(search)


@with_flags
def encode(options: EncodeOptions, json: Json = False) -> None:
    """Encode a corpus into shards of vectors on disk, in bounded memory; run again, it continues."""
    from xt.serve.index import run

    artifact = run.encode(options, reporter=REPORTER)
    facts, out = artifact.facts, options.out
    cut = f", {facts['truncated']} cut" if facts["truncated"] else ""
    say(f"wrote {out}: {facts['texts']} vectors of length {facts['dim']}, {facts['tokens']} tokens{cut}")
    if json:
        keys = ("texts", "dim", "dtype", "prefix", "tokens", "truncated")
        emit({"path": str(out), "hash": artifact.hash, **{k: facts[k] for k in keys}, "shards": len(facts["shards"])})


@with_flags
def index(options: IndexOptions, json: Json = False) -> None:
    """Make a corpus searchable, and with --install a served retriever whose scores are probabilities."""
    from xt.serve.index import run

    artifact = run.index(options, reporter=REPORTER)
    document = _show_index(artifact)
    retriever = run.install_index(options, artifact, say=say)
    if retriever is not None:
        say(f"wrote {retriever.path}; serve it with: xt serve {options.target.install}")
        document["retriever"] = {"path": str(retriever.path), "hash": retriever.hash}
    if json:
        emit(document)


def _show_index(artifact: Artifact) -> dict[str, Any]:
    """Print what an index holds, and return what --json prints of it."""
    facts = artifact.facts
    repeated = f" ({facts['copies']} of them copies)" if facts.get("copies") else ""
    quality = f"{facts['factory']}, recall@10 {facts['recall_at_10']:.4f}"
    say(f"{artifact.path}: {facts['texts']} documents{repeated}, {quality}")
    document: dict[str, Any] = {"path": str(artifact.path), "hash": artifact.hash}
    document |= {k: facts[k] for k in ("texts", "dim", "factory", "prefix", "truncated", "recall_at_10")}
    return document | {k: facts[k] for k in ("candidates", "copies") if k in facts}


@with_flags
def search(options: SearchOptions, json: Json = False) -> None:
    """Search an index: cosines, and with a calibration probabilities and "none of these"."""
    from xt.serve.index import run

    found = run.search(options, say=say)
    _show(found.answer, found.truncated, options.query, json)


def _show(answer: Answer, truncated: bool, query: str, json: bool) -> None:
    calibrated = answer.probabilities is not None
    hits: list[dict[str, Any]] = [
        {"id": i, "document": d, "score": float(s), "copies": list(c)}
        for i, d, s, c in zip(answer.ids, answer.documents, answer.scores, answer.copies, strict=True)
        if i
    ]
    if answer.probabilities is not None:
        for hit, p in zip(hits, answer.probabilities, strict=False):
            hit["probability"] = float(p)
    if json:
        none = answer.none if calibrated else None
        emit({"query": query, "hits": hits, "none": none, "calibration": answer.calibration, "truncated": truncated})
        return
    columns = ["document", *(["probability"] if calibrated else []), "cosine", "id"]
    rows = [[_short(h["document"]), *([h["probability"]] if calibrated else []), h["score"], _ids(h)] for h in hits]
    if calibrated:
        rows.append(["none of these", answer.none, "", ""])
    table(_short(query), columns, rows)
    if truncated:
        say("The query was too long and was cut.")
    if calibrated:
        say(f"calibrator: {answer.calibration}")
    else:
        say("No calibration: these are cosines, not probabilities. Give --calibration REPORT.")


def _ids(hit: dict[str, Any]) -> str:
    """Return a hit's id, and how many further documents have its text (--json names them)."""
    more = len(hit["copies"]) - 1
    return f"{hit['id']} (+{more})" if more else str(hit["id"])


def _short(text: str, width: int = 72) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width or not stderr.width else f"{text[: width - 1]}…"
