"""`xt encode`, `xt index` and `xt search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xt.cli.console import (
    Counter,
    Device,
    Force,
    Json,
    Model,
    TlsCa,
    TlsCert,
    TlsKey,
    Truncate,
    Url,
    emit,
    say,
    stderr,
    table,
    tls_of,
)

if TYPE_CHECKING:
    from xt.calibration.apply.table import CalibrationTable
    from xt.serve.client.connection import Tls

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

Encoder = Annotated[
    str | None,
    typer.Option("--encoder", help="A checkpoint, model or repository folder, a short name or a hub id."),
]
Prefix = Annotated[
    str | None,
    typer.Option("--prefix", help="passage, query or none. Default: the role's own where the encoder has one."),
]
ShardSize = Annotated[
    int, typer.Option("--shard-size", help="Texts encoded between two savings, and held in memory at once.")
]
Dtype = Annotated[str, typer.Option("--dtype", help="Of the vectors on disk: float32 or float16.")]
Calibration = Annotated[
    Path | None,
    typer.Option("--calibration", help="A report of `xt eval` (or its calibration.json) with this encoder in it."),
]
Direction = Annotated[
    str | None,
    typer.Option(
        "--calibration-direction",
        help="Of a report with several: foreign-english (the default) or english-foreign, queries to documents.",
    ),
]
Scope = Annotated[
    str | None,
    typer.Option(
        "--calibration-scope",
        help="For queries whose language has no calibrator: zero-shot (default where it is there), pooled, platt (the "
        "default of ranked retrieval), or none-of-these, for indexes that half of the queries find nothing in.",
    ),
]
Entry = Annotated[
    str | None, typer.Option("--calibration-encoder", help="Which encoder of the report; default: the same one.")
]
AllowOther = Annotated[
    bool,
    typer.Option(
        "--allow-other-encoder", help="Take a calibration that was fitted on another encoder's scores, with a warning."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("encode", epilog=ENCODE_EPILOG)(encode)
    app.command("index", epilog=INDEX_EPILOG)(index)
    app.command("search", epilog=SEARCH_EPILOG)(search)


def open_identified(
    encoder: str | None, url: str | None, model: str | None, device: str, tls: Tls | None = None
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Open an encoder: it, which one it is (as manifests keep it), and how it was opened."""
    from xt.cli.evaluate.command import open_encoder
    from xt.core.files.artifact import read_manifest

    opened: Any
    opened, entry, _, parent = open_encoder(encoder, url, model, device, tls)
    checkpoint = parent["hash"]
    if parent["kind"] == "model":
        checkpoint = read_manifest(Path(parent["path"]))["facts"]["checkpoint"].get("hash", "")
    # Where a folder lies is not part of what it is: a copy of the model continues the same work.
    identity = {
        **entry,
        "name": opened.spec.name,
        "checkpoint": checkpoint,
        "parent": {k: parent[k] for k in ("kind", "hash")},
    }
    source = {"url": url} if url else {"encoder": parent["path"] if parent["kind"] == "model" else encoder}
    return opened, identity, {**source, "model": model if url or parent["kind"] != "model" else None}


def encode(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="A .txt (one text a line), .jsonl, .csv or .tsv (id, text, title), perhaps .gz; or a folder.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; a run that was cut short is continued.")],
    encoder: Encoder = None,
    url: Url = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    model: Model = None,
    prefix: Prefix = None,
    dtype: Dtype = "float32",
    shard_size: ShardSize = 4096,
    truncate: Truncate = False,
    device: Device = "auto",
    force: Force = False,
    json: Json = False,
) -> None:
    """Encode a corpus into shards of vectors on disk, in bounded memory; run again, it continues."""
    from xt.core.files.replacing import named_paths
    from xt.serve.index.encode_files import Settings, encode_corpus, refuse_target
    from xt.serve.index.index import role

    tls = tls_of(url, tls_ca, tls_cert, tls_key)
    refuse_target(out, source, force=force, inputs=named_paths(encoder))
    opened, identity, how = open_identified(encoder, url, model, device, tls)
    settings = Settings(prefix or role(opened.spec.prefixes, "passage"), truncate, dtype, shard_size)
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


def index(
    corpus: Annotated[
        Path,
        typer.Argument(help="A corpus (see `xt encode`), a folder that `xt encode` wrote, or an index to --install."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write; a run that was cut short is continued.")
    ] = None,
    encoder: Encoder = None,
    url: Url = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    model: Model = None,
    kind: Annotated[
        str, typer.Option("--kind", help='flat (exact), ivf, hnsw, or a FAISS factory string such as "IVF64,SQ8".')
    ] = "flat",
    prefix: Prefix = None,
    truncate: Truncate = False,
    shard_size: ShardSize = 4096,
    install: Annotated[
        Path | None, typer.Option("--install", help="Also write a retriever model into this model repository.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="The retriever's name on the server.")] = "retriever",
    calibration: Calibration = None,
    calibration_direction: Direction = None,
    calibration_scope: Scope = None,
    calibration_encoder: Entry = None,
    allow_other_encoder: AllowOther = False,
    uncalibrated: Annotated[
        bool, typer.Option("--uncalibrated", help="Install without a calibration: cosines, no probabilities.")
    ] = False,
    device: Device = "auto",
    force: Force = False,
    json: Json = False,
) -> None:
    """Make a corpus searchable, and with --install a served retriever whose scores are probabilities."""
    from xt.core.files.artifact import MANIFEST, open_artifact, read_manifest, refuse_existing
    from xt.core.files.replacing import named_paths
    from xt.serve.index.indexing import build_index, refuse_index

    tls = tls_of(url, tls_ca, tls_cert, tls_key)
    made = read_manifest(corpus)["kind"] if (corpus / MANIFEST).is_file() else "corpus"
    if made == "index":
        if install is None or out is not None:
            raise typer.BadParameter(f"{corpus} is an index already: give --install, and no --out")
        artifact = open_artifact(corpus, kind="index")
    else:
        if out is None:
            raise typer.BadParameter("give --out, the folder of the index")
        refuse_index(out, corpus, force=force, inputs=named_paths(encoder, calibration))
    if install is not None:
        inputs = named_paths(encoder, calibration, corpus)
        refuse_existing(install / name, force=force, kind="model", role="retriever", inputs=inputs)
        if (calibration is None) != uncalibrated:
            raise typer.BadParameter("--install needs one of --calibration and --uncalibrated")
    if made == "vectors":
        if (encoder or url) and install is None:
            raise typer.BadParameter(f"{corpus} is encoded already: --encoder and --url are for a corpus of text")
        assert out is not None
        artifact = build_index(open_artifact(corpus, kind="vectors"), out, kind=kind, force=force, report=say)
    elif made != "index":
        assert out is not None
        artifact = _index_text(corpus, out, encoder, url, model, tls, device, prefix, truncate, shard_size, kind, force)
    facts = artifact.facts
    repeated = f" ({facts['copies']} of them copies)" if facts.get("copies") else ""
    quality = f"{facts['factory']}, recall@10 {facts['recall_at_10']:.4f}"
    say(f"{artifact.path}: {facts['texts']} documents{repeated}, {quality}")
    document: dict[str, Any] = {"path": str(artifact.path), "hash": artifact.hash}
    document |= {k: facts[k] for k in ("texts", "dim", "factory", "prefix", "truncated", "recall_at_10")}
    document |= {k: facts[k] for k in ("candidates", "copies") if k in facts}
    if install is not None:
        from xt.serve.index.calibration import model_identity, read_calibration
        from xt.serve.index.retriever import install as install_retriever

        folder = _model_folder(encoder, model, artifact)
        found = None
        if calibration is not None:
            found = read_calibration(
                calibration,
                model_identity(open_artifact(folder, kind="model")),
                direction=calibration_direction,
                scope=calibration_scope,
                entry=calibration_encoder,
                allow_other_encoder=allow_other_encoder,
                report=say,
            )
        retriever = install_retriever(
            artifact.path, folder, install, name=name, table=found, uncalibrated=uncalibrated, force=force, report=say
        )
        say(f"wrote {retriever.path}; serve it with: xt serve {install}")
        document["retriever"] = {"path": str(retriever.path), "hash": retriever.hash}
    if json:
        emit(document)


def _index_text(
    corpus: Path,
    out: Path,
    encoder: str | None,
    url: str | None,
    model: str | None,
    tls: Tls | None,
    device: str,
    prefix: str | None,
    truncate: bool,
    shard_size: int,
    kind: str,
    force: bool,
) -> Any:
    from xt.serve.index.encode_files import Settings
    from xt.serve.index.index import role
    from xt.serve.index.indexing import index_corpus

    opened, identity, how = open_identified(encoder, url, model, device, tls)
    settings = Settings(prefix or role(opened.spec.prefixes, "passage"), truncate, shard_texts=shard_size)
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


def search(
    folder: Annotated[Path, typer.Argument(metavar="INDEX", help="An index folder, or an installed retriever.")],
    query: Annotated[str, typer.Argument(help="What to look for, in any language.")],
    top_k: Annotated[int, typer.Option("--top-k", help="Documents to show, 1 to 100.")] = 10,
    encoder: Encoder = None,
    url: Url = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    model: Model = None,
    language: Annotated[
        str | None, typer.Option("--language", help="Of the query; it may have a calibrator of its own.")
    ] = None,
    calibration: Calibration = None,
    calibration_direction: Direction = None,
    calibration_scope: Scope = None,
    calibration_encoder: Entry = None,
    allow_other_encoder: AllowOther = False,
    prefix: Prefix = None,
    truncate: Truncate = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Search an index: cosines, and with a calibration probabilities and "none of these"."""
    from xt.core.errors import XtError
    from xt.core.files.artifact import open_artifact, read_manifest
    from xt.serve.index.calibration import read_calibration
    from xt.serve.index.index import Index, check_k, retrieve, role

    check_k(top_k)
    found: CalibrationTable | None = None
    if read_manifest(folder)["kind"] == "model":
        from xt.calibration.apply.table import CalibrationTable
        from xt.core.encoder.onnx_engine import load_model

        if encoder or url or calibration or tls_ca or tls_cert or tls_key:
            raise typer.BadParameter("an installed retriever has its own encoder and calibration")
        opened, artifact = load_model(folder, device=device)
        if artifact.facts.get("kind") != "retriever":
            raise XtError(f"{folder} is no retriever.", "Name an index, or a model that `xt index --install` wrote.")
        searched = Index((folder / artifact.facts["searches"]).parent)
        if artifact.facts["calibrated"]:
            found = CalibrationTable.from_json(artifact.facts["calibrated"])
    else:
        artifact = open_artifact(folder, kind="index")
        facts = artifact.facts
        if not encoder and not url:
            how = facts["opened"]
            encoder, url, model = how.get("encoder"), how.get("url"), model or how.get("model")
        tls = tls_of(url, tls_ca, tls_cert, tls_key)
        opened, identity, _ = open_identified(encoder, url, model, device, tls)
        searched = Index(folder)
        _check_same(opened, identity, searched, artifact)
        if calibration is not None:
            found = read_calibration(
                calibration,
                {**identity, "hash": identity["parent"]["hash"]},
                direction=calibration_direction,
                scope=calibration_scope,
                entry=calibration_encoder,
                allow_other_encoder=allow_other_encoder,
                report=say,
            )
    answers, encoded = retrieve(
        opened.encode,
        searched,
        [query],
        k=top_k,
        prefix=prefix or role(opened.spec.prefixes, "query"),
        truncate=truncate,
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
