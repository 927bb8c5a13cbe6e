"""`xt encode`, `xt index` and `xt search`, from the encoder that was named to the folder or the answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xt.calibration.apply.file import CalibrationTable, table_of
from xt.core.errors import UsageError, XtError
from xt.core.files.artifact import MANIFEST, Artifact, open_artifact, read_manifest
from xt.core.files.replacing import named_paths
from xt.core.reporter import Reporter, Say
from xt.serve.index.encode_files import EncoderOfSpec, IdentifiedEncoder, encode_corpus, refuse_target
from xt.serve.index.index import Answer, Index, check_k, retrieve
from xt.serve.index.indexing import build_index, check_vectors, index_corpus, refuse_index
from xt.serve.index.options import EncodeOptions, IndexOptions, SearchOptions


def encode(options: EncodeOptions, *, reporter: Reporter = Reporter()) -> Artifact:
    """Encode a corpus into shards of vectors; return their folder."""
    location, source, out = options.location, options.source, options.out
    location.server.tls()  # what is wrong with it is reported before any work
    refuse_target(out, source, force=options.force, inputs=named_paths(location.encoder))
    identified = location.open().identified()
    settings = options.encoding.settings(identified.encoder.spec.prefixes, options.dtype)
    reporter.say(f"encoding {source} with {_described(identified)}, prefix {settings.prefix}")
    return encode_corpus(source, out, identified, settings=settings, force=options.force, reporter=reporter)


def index(options: IndexOptions, *, reporter: Reporter = Reporter()) -> Artifact:
    """Make the index that is requested, or open the one that is there to be installed."""
    location, target, calibration = options.location, options.target, options.calibration
    corpus, out = options.corpus, options.out
    location.server.tls()  # what is wrong with it is reported before any work
    kind = read_manifest(corpus)["kind"] if (corpus / MANIFEST).is_file() else "corpus"
    read = named_paths(location.encoder, calibration.calibration)
    if kind == "index":
        if target.install is None or out is not None:
            raise UsageError(f"{corpus} is an index already: give --install, and no --out")
    elif out is None:
        raise UsageError("give --out, the folder of the index")
    else:
        refuse_index(out, corpus, force=options.force, inputs=read)
    target.check(
        calibration, force=options.force, inputs=named_paths(location.encoder, calibration.calibration, corpus)
    )
    if out is None:
        return open_artifact(corpus, kind="index")
    if kind == "vectors":
        if (location.encoder or location.url) and target.install is None:
            raise UsageError(f"{corpus} is encoded already: --encoder and --url are for a corpus of text")
        vectors = open_artifact(corpus, kind="vectors")
        return build_index(vectors, out, kind=options.kind, force=options.force, report=reporter.say)
    identified = location.open().identified()
    settings = options.encoding.settings(identified.encoder.spec.prefixes)
    reporter.say(f"indexing {corpus} with {_described(identified)}, prefix {settings.prefix}")
    return index_corpus(
        corpus, out, identified, settings=settings, kind=options.kind, force=options.force, reporter=reporter
    )


def install_index(options: IndexOptions, indexed: Artifact, *, say: Say) -> Artifact | None:
    """Write the retriever of an index into the repository of --install; None without one."""
    if options.target.install is None:
        return None
    model = model_folder(options.location.encoder, options.location.model, indexed)
    return options.target.write(indexed, model, options.calibration, force=options.force, report=say)


def model_folder(encoder: str | None, model: str | None, indexed: Artifact) -> Path:
    """Return the exported model that a retriever bundles: --encoder, else the one that the index names."""
    named = encoder or indexed.facts["opened"].get("encoder")
    folder = Path(named).expanduser() if named else None
    if folder is not None and model and not (folder / MANIFEST).is_file():
        folder = folder / model
    if folder is None or not (folder / MANIFEST).is_file():
        raise XtError(
            "A retriever bundles the exported encoder, and "
            + (f"{folder} is no exported model." if folder else f"{indexed.path} was encoded over the wire."),
            "Name its folder: --encoder REPOSITORY/NAME.",
        )
    return folder


@dataclass(frozen=True)
class Searched:
    """The answer to a query."""

    answer: Answer
    truncated: bool
    """Whether the query was too long and was cut."""


def search(options: SearchOptions, *, say: Say) -> Searched:
    """Search an index, or an installed retriever, in this process."""
    check_k(options.top_k)
    if read_manifest(options.folder)["kind"] == "model":
        encoder, searched, table = _open_retriever(options)
    else:
        encoder, searched, table = _open_index(options, say)
    answers, encoded = retrieve(
        encoder.encode,
        searched,
        [options.query],
        k=options.top_k,
        prefix=options.encoding.prefix_for("query", encoder.spec.prefixes),
        truncate=options.encoding.truncate,
        table=table,
        language=options.language,
    )
    return Searched(answers[0], bool(encoded.truncated[0]))


def _open_retriever(options: SearchOptions) -> tuple[EncoderOfSpec, Index, CalibrationTable | None]:
    from xt.core.encoder.onnx_engine import load_model

    location, folder = options.location, options.folder
    named = location.encoder or location.url or location.server.tls_files.given()
    if named or options.calibration.calibration:
        raise UsageError("an installed retriever has its own encoder and calibration")
    encoder, artifact = load_model(folder, device=location.device)
    if artifact.facts.get("kind") != "retriever":
        raise XtError(f"{folder} is no retriever.", "Name an index, or a model that `xt index --install` wrote.")
    calibrated = artifact.facts["calibrated"]
    table = table_of(calibrated, str(folder)) if calibrated else None
    return encoder, Index((folder / artifact.facts["searches"]).parent), table


def _open_index(options: SearchOptions, say: Say) -> tuple[EncoderOfSpec, Index, CalibrationTable | None]:
    artifact = open_artifact(options.folder, kind="index")
    identified = options.location.or_as_opened(artifact.facts["opened"]).open().identified()
    searched = Index(options.folder)
    check_same(identified, searched, artifact)
    identity = identified.identity
    table = options.calibration.read({**identity, "hash": identity["parent"]["hash"]}, say)
    return identified.encoder, searched, table


def check_same(identified: IdentifiedEncoder, index: Index, artifact: Artifact) -> None:
    """Raise XtError unless the encoder is the index's: by its hash, or where that is not known by its vectors."""
    made, here = artifact.facts["encoder"], identified.identity
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
    check_vectors(identified.encoder, index, artifact)


def _described(identified: IdentifiedEncoder) -> str:
    return f"{identified.identity['name']} ({identified.identity['precision']})"
