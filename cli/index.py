"""`xt encode`, `xt index` and `xt search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xt.cli.console import Counter, emit, say, stderr, table
from xt.cli.settings import with_flags
from xt.core.settings import Flag, Force, Json
from xt.serve.options import CalibrationChoice, CorpusEncoding, EncoderLocation, EncodingOptions, RetrieverTarget

if TYPE_CHECKING:
    from xt.calibration.apply.table import CalibrationTable
    from xt.core.files.artifact import Artifact

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

Shards = Annotated[Path, Flag("Folder to write; a run that was cut short is continued.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("encode", epilog=ENCODE_EPILOG)(encode)
    app.command("index", epilog=INDEX_EPILOG)(index)
    app.command("search", epilog=SEARCH_EPILOG)(search)


def open_identified(location: EncoderLocation) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Open an encoder: it, which one it is (as manifests keep it), and how it was opened."""
    from xt.cli.evaluate.command import open_encoder
    from xt.core.files.artifact import read_manifest

    opened: Any
    url, model = location.url, location.model
    opened, entry, _, parent = open_encoder(location)
    checkpoint = parent["hash"]
    if parent["kind"] == "model":
        checkpoint = read_manifest(Path(parent["path"]))["facts"]["checkpoint"].get("hash", "")
    # Where a folder lies is not part of what it is: a copy of the model continues the same work.
    identity = {
        **entry.to_json(),
        "name": opened.spec.name,
        "checkpoint": checkpoint,
        "parent": {k: parent[k] for k in ("kind", "hash")},
    }
    source = {"url": url} if url else {"encoder": parent["path"] if parent["kind"] == "model" else location.encoder}
    return opened, identity, {**source, "model": model if url or parent["kind"] != "model" else None}


@with_flags
def encode(
    source: Annotated[
        Path,
        Flag(
            "A .txt (one text a line), .jsonl, .csv or .tsv (id, text, title), perhaps .gz; or a folder.",
            positional=True,
            metavar="INPUT",
        ),
    ],
    out: Shards,
    location: EncoderLocation,
    encoding: CorpusEncoding,
    dtype: Annotated[str, Flag("Of the vectors on disk: float32 or float16.")] = "float32",
    force: Force = False,
    json: Json = False,
) -> None:
    """Encode a corpus into shards of vectors on disk, in bounded memory; run again, it continues."""
    from xt.core.files.replacing import named_paths
    from xt.serve.index.encode_files import encode_corpus, refuse_target

    location.server.tls()  # what is wrong with it is told before any work
    refuse_target(out, source, force=force, inputs=named_paths(location.encoder))
    opened, identity, how = open_identified(location)
    settings = encoding.settings(opened.spec.prefixes, dtype)
    say(f"encoding {source} with {identity['name']} ({identity['precision']}), prefix {settings.prefix}")
    artifact = encode_corpus(
        source,
        out,
        opened,
        identity,
        settings=settings,
        opened=how,
        force=force,
        progress=Counter("texts"),
        report=say,
    )
    facts = artifact.facts
    cut = f", {facts['truncated']} cut" if facts["truncated"] else ""
    say(f"wrote {out}: {facts['texts']} vectors of length {facts['dim']}, {facts['tokens']} tokens{cut}")
    if json:
        keys = ("texts", "dim", "dtype", "prefix", "tokens", "truncated")
        emit({"path": str(out), "hash": artifact.hash, **{k: facts[k] for k in keys}, "shards": len(facts["shards"])})


@with_flags
def index(
    corpus: Annotated[
        Path,
        Flag("A corpus (see `xt encode`), a folder that `xt encode` wrote, or an index to --install.", positional=True),
    ],
    location: EncoderLocation,
    encoding: CorpusEncoding,
    target: RetrieverTarget,
    calibration: CalibrationChoice,
    out: Annotated[Path | None, Flag("Folder to write; a run that was cut short is continued.")] = None,
    kind: Annotated[str, Flag('flat (exact), ivf, hnsw, or a FAISS factory string such as "IVF64,SQ8".')] = "flat",
    force: Force = False,
    json: Json = False,
) -> None:
    """Make a corpus searchable, and with --install a served retriever whose scores are probabilities."""
    from xt.core.files.artifact import MANIFEST, open_artifact, read_manifest
    from xt.core.files.replacing import named_paths
    from xt.serve.index.indexing import build_index, refuse_index

    location.server.tls()  # what is wrong with it is told before any work
    made = read_manifest(corpus)["kind"] if (corpus / MANIFEST).is_file() else "corpus"
    if made == "index":
        if target.install is None or out is not None:
            raise typer.BadParameter(f"{corpus} is an index already: give --install, and no --out")
    elif out is None:
        raise typer.BadParameter("give --out, the folder of the index")
    else:
        refuse_index(out, corpus, force=force, inputs=named_paths(location.encoder, calibration.calibration))
    target.check(calibration, force=force, inputs=named_paths(location.encoder, calibration.calibration, corpus))
    if out is None:
        artifact = open_artifact(corpus, kind="index")
    elif made == "vectors":
        if (location.encoder or location.url) and target.install is None:
            raise typer.BadParameter(f"{corpus} is encoded already: --encoder and --url are for a corpus of text")
        artifact = build_index(open_artifact(corpus, kind="vectors"), out, kind=kind, force=force, report=say)
    else:
        artifact = _index_text(corpus, out, location, encoding, kind, force)
    document = _show_index(artifact)
    if target.install is not None:
        folder = _model_folder(location.encoder, location.model, artifact)
        retriever = target.write(artifact, folder, calibration, force=force, report=say)
        say(f"wrote {retriever.path}; serve it with: xt serve {target.install}")
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


def _index_text(
    corpus: Path, out: Path, location: EncoderLocation, encoding: CorpusEncoding, kind: str, force: bool
) -> Artifact:
    from xt.serve.index.indexing import index_corpus

    opened, identity, how = open_identified(location)
    settings = encoding.settings(opened.spec.prefixes)
    say(f"indexing {corpus} with {identity['name']} ({identity['precision']}), prefix {settings.prefix}")
    return index_corpus(
        corpus,
        out,
        opened,
        identity,
        settings=settings,
        opened=how,
        kind=kind,
        force=force,
        progress=Counter("texts"),
        report=say,
    )


def _model_folder(encoder: str | None, model: str | None, indexed: Any) -> Path:
    """Give the exported model that a retriever takes in: --encoder, else the one that the index names."""
    from xt.core.errors import XtError
    from xt.core.files.artifact import MANIFEST

    named = encoder or indexed.facts["opened"].get("encoder")
    folder = Path(named).expanduser() if named else None
    if folder is not None and model and not (folder / MANIFEST).is_file():
        folder = folder / model
    if folder is None or not (folder / MANIFEST).is_file():
        raise XtError(
            "A retriever takes in the exported encoder, and "
            + (f"{folder} is no exported model." if folder else f"{indexed.path} was encoded over the wire."),
            "Name its folder: --encoder REPOSITORY/NAME.",
        )
    return folder


@with_flags
def search(
    folder: Annotated[Path, Flag("An index folder, or an installed retriever.", positional=True, metavar="INDEX")],
    query: Annotated[str, Flag("What to look for, in any language.", positional=True)],
    location: EncoderLocation,
    calibration: CalibrationChoice,
    encoding: EncodingOptions,
    top_k: Annotated[int, Flag("Documents to show, 1 to 100.")] = 10,
    language: Annotated[str | None, Flag("Of the query; it may have a calibrator of its own.")] = None,
    json: Json = False,
) -> None:
    """Search an index: cosines, and with a calibration probabilities and "none of these"."""
    from xt.core.errors import XtError
    from xt.core.files.artifact import open_artifact, read_manifest
    from xt.serve.index.index import Index, check_k, retrieve

    check_k(top_k)
    found: CalibrationTable | None = None
    if read_manifest(folder)["kind"] == "model":
        from xt.calibration.apply.table import CalibrationTable
        from xt.core.encoder.onnx_engine import load_model

        named = location.encoder or location.url or location.server.tls_files.given()
        if named or calibration.calibration:
            raise typer.BadParameter("an installed retriever has its own encoder and calibration")
        opened, artifact = load_model(folder, device=location.device)
        if artifact.facts.get("kind") != "retriever":
            raise XtError(f"{folder} is no retriever.", "Name an index, or a model that `xt index --install` wrote.")
        searched = Index((folder / artifact.facts["searches"]).parent)
        if artifact.facts["calibrated"]:
            found = CalibrationTable.from_json(artifact.facts["calibrated"])
    else:
        artifact = open_artifact(folder, kind="index")
        opened, identity, _ = open_identified(location.or_as_opened(artifact.facts["opened"]))
        searched = Index(folder)
        _check_same(opened, identity, searched, artifact)
        found = calibration.read({**identity, "hash": identity["parent"]["hash"]}, say)
    answers, encoded = retrieve(
        opened.encode,
        searched,
        [query],
        k=top_k,
        prefix=encoding.prefix_for("query", opened.spec.prefixes),
        truncate=encoding.truncate,
        table=found,
        language=language,
    )
    _show(answers[0], bool(encoded.truncated[0]), query, json)


def _check_same(opened: Any, here: dict[str, Any], index: Any, artifact: Any) -> None:
    """Raise unless the encoder is the index's: by its hash, or where that is not told by its vectors."""
    from xt.core.errors import XtError
    from xt.serve.index.indexing import check_vectors

    made = artifact.facts["encoder"]
    hashes = made["parent"]["hash"], here["parent"]["hash"]
    if all(hashes) and hashes[0] == hashes[1] and made["precision"] == here["precision"]:
        return
    alike = all(made[k] == here[k] for k in ("name", "checkpoint", "precision", "dim"))
    engines = {made["engine"], here["engine"]}  # two of one checkpoint are compared by their vectors
    if not alike or (all(hashes) and "triton" not in engines and not (made["checkpoint"] and len(engines) > 1)):
        was, now = (
            f"{e['name']} ({e['precision']}, {e['engine']}, {e['parent']['hash'][:12] or 'hash unknown'})"
            for e in (made, here)
        )
        raise XtError(
            f"The index {artifact.path} was made with {was}; this encoder is {now}.",
            "Search with the encoder that the index was made with, or index the corpus again.",
        )
    check_vectors(opened, index, artifact)


def _show(answer: Any, truncated: bool, query: str, json: bool) -> None:
    calibrated = answer.probabilities is not None
    hits: list[dict[str, Any]] = [
        {"id": i, "document": d, "score": float(s), "copies": list(c)}
        for i, d, s, c in zip(answer.ids, answer.documents, answer.scores, answer.copies, strict=True)
        if i
    ]
    if calibrated:
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
    """A hit's id, and how many further documents have its text (--json names them)."""
    more = len(hit["copies"]) - 1
    return f"{hit['id']} (+{more})" if more else str(hit["id"])


def _short(text: str, width: int = 72) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width or not stderr.width else f"{text[: width - 1]}…"
