"""`xt encode`: a corpus into a folder of vectors, shard by shard, in bounded memory, continued after a kill."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xt.core.encoder.spec import EncoderSpec
from xt.core.encoder.text import Encoded, Encoder
from xt.core.errors import XtError, explain_os_error, unknown
from xt.core.files.artifact import (
    Artifact,
    new_artifact,
    open_artifact,
    read_json,
    refuse_existing,
    sha256,
    write_json,
)
from xt.core.files.replacing import foreign, refuse_place, remove, some
from xt.core.reporter import Reporter
from xt.serve.index.corpus import CorpusLog, Document, fingerprint, read_corpus

SHARD_TEXTS = 4096
"""Texts of one shard: what a kill can lose, and what is held in memory at once."""
DTYPES = ("float32", "float16")
LOCK = "lock"
WORK_FILE = re.compile(rf"{LOCK}|\.?(plan|shard-\d+)\.json(\.\d+)?|\.?vectors-\d+\.npy|\.?documents-\d+\.jsonl")
"""Every file of the folder in which finished shards wait."""
TOO_LONG = "tokens; the encoder reads at most"


class EncoderOfSpec(Encoder, Protocol):
    """An encoder that says what it is."""

    spec: EncoderSpec


@dataclass(frozen=True)
class IdentifiedEncoder:
    """An encoder, and which one it is."""

    encoder: EncoderOfSpec
    identity: dict[str, Any]
    """Its name, precision, engine, dim, checkpoint and parent with their hashes, as manifests keep them."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """How it was opened (encoder or url, model), so that a search can open it again."""


@dataclass(frozen=True)
class Settings:
    """What decides the vectors besides the corpus and the encoder."""

    prefix: str = "none"
    """The role whose prefix goes before each text, or "none"."""
    truncate: bool = False
    """Cut texts that are too long, and count them, instead of stopping."""
    dtype: str = "float32"
    """Of the vectors in the files."""
    shard_texts: int = SHARD_TEXTS
    """Texts of one shard."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise unknown("dtype", self.dtype, DTYPES)
        if self.shard_texts < 1:
            raise XtError(f"A shard of {self.shard_texts} texts holds nothing.", "Give at least 1.")


def encode_corpus(
    source: Path,
    out: Path,
    identified: IdentifiedEncoder,
    *,
    settings: Settings,
    force: bool = False,
    reporter: Reporter = Reporter(),
) -> Artifact:
    """Encode a corpus into the folder `out`: shards `vectors-N.npy` and `documents-N.jsonl`, and the manifest.

    Finished shards wait in a folder beside `out`; when the command is run again with the same corpus, encoder and
    settings, they are taken as they are.

    Args:
        source: see `read_corpus`.
        out: the folder to write.
        identified: what encodes.
        settings: prefix, truncation, dtype, shard size.
        force: replace `out`.
        reporter: counts texts after every shard, and takes what of the corpus is not read, and that earlier shards are
            continued.
    """
    encoder, identity = identified.encoder, identified.identity
    progress = reporter.counter("texts")
    refuse_target(out, source, force=force)
    encoder.spec.prefix(settings.prefix)  # an unknown one is refused before the corpus is read
    with _work_folder(out) as work:
        log = CorpusLog()
        total = sum(1 for _ in read_corpus(source, log))  # every line is checked before the first is encoded
        for note in log.notes():
            reporter.say(note)
        plan = make_plan(source, identity, settings)
        _start(work, plan, reporter.say)
        shards: list[dict[str, Any]] = []
        done = 0
        documents = read_corpus(source)
        while batch := list(islice(documents, settings.shard_texts)):
            shards.append(_shard(work, len(shards), batch, encoder, settings))
            done += len(batch)
            progress(done, total, batch[-1].where)
        if fingerprint(source) != plan["input"]:
            raise XtError(f"{source} changed while it was read.", "Run it again when it is at rest.")
        with new_artifact(out, kind="vectors", force=force) as draft:
            for shard in shards:
                for name in (shard["vectors"], shard["documents"]):
                    os.link(work / name, draft.path / name)
            draft.facts = {
                **plan,
                "source": str(source),
                "opened": dict(identified.source),
                "texts": done,
                "left_out": log.to_json(),
                "dim": encoder.spec.dim,
                "tokens": sum(s["tokens"] for s in shards),
                "truncated": sum(s["truncated"] for s in shards),
                "shards": shards,
            }
            if identity["parent"].get("hash"):
                draft.parents = [identity["parent"]]
        remove(work, _ours)
    return open_artifact(out, kind="vectors")


def refuse_target(out: Path, source: Path, *, force: bool, inputs: Sequence[Path] = ()) -> None:
    """Raise XtError when `out`, or the folder beside it in which finished shards wait, may not be written.

    Args:
        out: the folder of vectors.
        source: the corpus.
        force: whether the user wants `out` replaced.
        inputs: what else the command reads.
    """
    refuse_existing(out, force=force, kind="vectors", inputs=inputs, trees=[source])
    work = work_folder(out)
    refuse_place(work)
    if work.is_dir() and (others := foreign(work, _ours)):
        raise XtError(
            f"{work}, where finished shards wait, holds what xt did not write: {some(others)}.",
            "Move these files away, or choose another --out.",
        )


def make_plan(source: Path, identity: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Return all that decides the vectors: shards of the same plan may be used again."""
    return {
        "input": fingerprint(source),
        "encoder": identity,
        "prefix": settings.prefix,
        "truncate": settings.truncate,
        "dtype": settings.dtype,
        "shard_texts": settings.shard_texts,
        "composed": True,  # texts are tokenised in composed form; those of earlier releases were as they are written
    }


def work_folder(out: Path) -> Path:
    """Return where finished shards of `out` wait."""
    return out.parent / f".{out.name}.shards"


@contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """Open the folder of shards for one writer alone; it stays when the block ends by an error."""
    work = work_folder(out)
    try:
        work.mkdir(parents=True, exist_ok=True)
        with open(os.open(work / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644), "r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise XtError(f"Another xt writes {out} now.", "Wait for it, or choose another --out.") from None
            yield work
    except OSError as error:
        raise explain_os_error(error) from error


def _ours(name: str) -> bool:
    return WORK_FILE.fullmatch(name) is not None


def _start(work: Path, plan: dict[str, Any], report: Callable[[str], None]) -> None:
    """Keep shards of the same plan; throw away those of another."""
    file = work / "plan.json"
    try:
        same = read_json(file) == json.loads(json.dumps(plan))
    except XtError:
        same = False
    finished = len(list(work.glob("shard-*.json")))
    if same and finished:
        report(f"continuing: {finished} shards are there already")
    if not same:
        if finished:
            report(f"the corpus, encoder or settings changed: {finished} earlier shards are not used")
        for old in work.iterdir():
            if old.name != LOCK and _ours(old.name):
                old.unlink()
        write_json(file, plan)


def _shard(
    work: Path, number: int, batch: list[Document], encoder: EncoderOfSpec, settings: Settings
) -> dict[str, Any]:
    """Return a shard's entry of the manifest, encoding it unless it is whole already; its entry is written last."""
    entry = work / f"shard-{number:05d}.json"
    if entry.is_file():
        value = dict(read_json(entry))
        files = (value["vectors"], value["documents"])
        if all((work / f).is_file() and sha256(work / f) == value["sha256"][f] for f in files):
            return value
    vectors, documents = f"vectors-{number:05d}.npy", f"documents-{number:05d}.jsonl"
    encoded = encode_batch(encoder, batch, settings)
    rows = encoded.vectors.astype(settings.dtype)
    if not np.isfinite(rows).all():
        raise XtError(f"The encoder gave NaN or infinity for {batch[0].where} and after it.", "Check it: `xt check`.")
    _write(work / vectors, npy(rows))
    lines = "".join(json.dumps(d.to_json(), ensure_ascii=False) + "\n" for d in batch).encode()
    _write(work / documents, lines)
    value = {
        "vectors": vectors,
        "documents": documents,
        "texts": len(batch),
        "tokens": int(encoded.tokens.sum()),
        "truncated": int(encoded.truncated.sum()),
        "sha256": {f: sha256(work / f) for f in (vectors, documents)},
    }
    write_json(entry, value)
    return value


def _write(target: Path, content: bytes) -> None:
    temporary = target.with_name(f".{target.name}")
    temporary.write_bytes(content)
    temporary.replace(target)


def npy(array: npt.NDArray[Any]) -> bytes:
    """Return an array as the content of a .npy file (`np.save` to a full disk does not say that it is full)."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def encode_batch(encoder: EncoderOfSpec, batch: Sequence[Document], settings: Settings) -> Encoded:
    """Encode documents; the error for one that is too long names its file and line."""
    try:
        return encoder.encode([d.content for d in batch], prefix=settings.prefix, truncate=settings.truncate)
    except XtError as error:
        if TOO_LONG not in error.message:
            raise
        if len(batch) > 1:  # whichever engine says so counts in its own order: halve until it is found
            middle = len(batch) // 2
            encode_batch(encoder, batch[:middle], settings)
            encode_batch(encoder, batch[middle:], settings)
            raise
        size = re.search(rf"(\d+) {TOO_LONG} (\d+)", error.message)
        counts = f"has {size[1]} {TOO_LONG} {size[2]}" if size else "is too long"
        raise XtError(f"{batch[0].where} {counts}.", "Split it, or pass --truncate.") from None


def shards_of(artifact: Artifact) -> Iterator[tuple[npt.NDArray[np.float32], bytes]]:
    """Return the vectors of each shard of an encoded corpus as float32, and its documents' lines."""
    for shard in artifact.facts["shards"]:
        vectors = np.load(artifact.path / shard["vectors"], allow_pickle=False)
        lines = (artifact.path / shard["documents"]).read_bytes()
        if vectors.shape != (shard["texts"], artifact.facts["dim"]) or lines.count(b"\n") != shard["texts"]:
            raise XtError(
                f"{artifact.path / shard['vectors']} has shape {vectors.shape}, expected "
                f"({shard['texts']}, {artifact.facts['dim']}).",
                "Encode the corpus again.",
            )
        yield vectors.astype(np.float32), lines
