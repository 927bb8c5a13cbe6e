"""`xt index`: an encoded corpus into FAISS's index file, with the documents, and how near it comes to exact search."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xt.core.copies import Copies
from xt.core.encoder.text import Encoder, Vectors
from xt.core.errors import XtError, require
from xt.core.files.artifact import (
    MANIFEST,
    Artifact,
    new_artifact,
    open_artifact,
    read_json,
    refuse_existing,
    remove_artifact,
    write_json,
)
from xt.core.reporter import Reporter
from xt.serve.index.encode_files import (
    IdentifiedEncoder,
    Settings,
    encode_corpus,
    make_plan,
    npy,
    refuse_target,
    shards_of,
)
from xt.serve.index.index import COPIES_FILE, DOCUMENTS_FILE, INDEX_FILE, OFFSETS_FILE, Index, Rows, shown, unit

KINDS = ("flat", "ivf", "hnsw")
RECALL_AT = 10
RECALL_QUERIES = 200
RECALL_WANTED = 0.99
"""How hard an approximate index searches is doubled until its recall against exact search reaches this."""
TRAINING_ROWS = 100_000
"""Most vectors that an index is trained on."""
GOLDEN_ROWS = 16
"""Documents whose vectors are kept as they were, so that a model can be asked whether it still gives them."""
LEAST_COSINE = 0.999
"""How near an encoder must come to the vectors that the index was made of."""
GOLDEN_FILE = "golden.json"


def index_corpus(
    source: Path,
    out: Path,
    identified: IdentifiedEncoder,
    *,
    settings: Settings,
    kind: str = "flat",
    force: bool = False,
    reporter: Reporter = Reporter(),
) -> Artifact:
    """Encode a corpus and index it; see `encode_corpus` and `build_index`. A killed run is continued by the next."""
    refuse_index(out, source, force=force)
    aside = vectors_folder(out)
    encoded = None
    if (aside / MANIFEST).is_file():
        plan = json.loads(json.dumps(make_plan(source, identified.identity, settings)))
        there = open_artifact(aside, kind="vectors")
        if all(there.facts.get(name) == value for name, value in plan.items()):
            reporter.say("the corpus is encoded already")
            encoded = there
    if encoded is None:
        force_aside = aside.exists()
        encoded = encode_corpus(source, aside, identified, settings=settings, force=force_aside, reporter=reporter)
    index = build_index(encoded, out, kind=kind, force=force, report=reporter.say)
    remove_artifact(aside)
    return index


def vectors_folder(out: Path) -> Path:
    """Return where the vectors of an index wait that is being made."""
    return out.parent / f".{out.name}.vectors"


def refuse_index(out: Path, source: Path, *, force: bool, inputs: Sequence[Path] = ()) -> None:
    """Raise XtError when the index `out` may not be written, or a folder beside it that is needed meanwhile.

    Args:
        out: the folder of the index.
        source: the corpus.
        force: whether the user wants `out` replaced.
        inputs: what else the command reads.
    """
    refuse_existing(out, force=force, kind="index", inputs=inputs, trees=[source])
    refuse_target(vectors_folder(out), source, force=True)


def factory(kind: str, count: int) -> str:
    """Return FAISS's factory string for a kind of index over `count` vectors; any other string is one already.

    >>> factory("flat", 5), factory("ivf", 10_000), factory("hnsw", 5), factory("OPQ16,IVF64,PQ16x4fs", 5)
    ('Flat', 'IVF256,Flat', 'HNSW32', 'OPQ16,IVF64,PQ16x4fs')
    """
    lists = max(1, min(int(4 * math.sqrt(count)), count // 39))  # FAISS asks for 39 training vectors a list
    return {"flat": "Flat", "ivf": f"IVF{lists},Flat", "hnsw": "HNSW32"}.get(kind, kind)


def build_index(
    encoded: Artifact,
    out: Path,
    *,
    kind: str = "flat",
    force: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Artifact:
    """Make an index folder of an encoded corpus.

    Args:
        encoded: what `xt encode` wrote.
        out: the folder to write.
        kind: flat (exact), ivf, hnsw, or a FAISS factory string.
        force: replace `out`.
        report: called with a line for every stage.
    """
    require("faiss", extra="cpu", purpose="Indexing")
    refuse_existing(out, force=force, kind="index", inputs=[encoded.path])
    facts = encoded.facts
    texts, dim = int(facts["texts"]), int(facts["dim"])
    copies = Copies.find(shown(json.loads(line)) for _, lines in shards_of(encoded) for line in _each(lines))
    if copies.extra:
        report(
            f"warning: {copies.describe()}: they are {copies.candidates:,} candidates, each with the ids of its copies"
        )
    corpus = Distinct(encoded, copies)
    text = factory(kind, len(corpus))
    index = _new_index(text, dim)
    if not index.is_trained:
        sample = corpus.rows(_spread(len(corpus), TRAINING_ROWS))
        report(f"training {text} on {len(sample)} vectors")
        _faiss_call(lambda: index.train(sample), f"FAISS cannot train {text!r} on {len(sample)} vectors")
    with new_artifact(out, kind="index", force=force) as draft:
        offsets = [0]
        with (draft.path / DOCUMENTS_FILE).open("wb") as documents:
            for _, lines in shards_of(encoded):
                documents.write(lines)
                for line in _each(lines):
                    offsets.append(offsets[-1] + len(line))
        for vectors in corpus.shards():
            _faiss_call(lambda: index.add(vectors), f"FAISS cannot add vectors to {text!r}")  # noqa: B023
        (draft.path / OFFSETS_FILE).write_bytes(npy(np.asarray(offsets, np.int64)))
        (draft.path / COPIES_FILE).write_bytes(npy(copies.of))
        quality = _quality(index, corpus, text, report)
        import faiss

        faiss.write_index(index, str(draft.path / INDEX_FILE))
        golden = _spread(len(corpus), GOLDEN_ROWS)
        values = {"rows": copies.firsts[golden].tolist(), "vectors": corpus.rows(golden).tolist()}
        write_json(draft.path / GOLDEN_FILE, values)
        kept = ("encoder", "opened", "prefix", "truncate", "truncated", "tokens", "texts", "dim", "source", "input")
        draft.facts = {
            **{name: facts[name] for name in kept},
            "left_out": facts.get("left_out", {}),
            "candidates": copies.candidates,
            "copies": texts - copies.candidates,
            "kind": kind,
            "factory": text,
            **quality,
        }
        draft.parents = encoded.manifest["parents"]
    return open_artifact(out, kind="index")


def _each(lines: bytes) -> list[bytes]:
    """Return the lines of a shard's documents, each with its end."""
    return [line + b"\n" for line in lines.split(b"\n")[:-1]]  # JSON escapes what else would end a line


def _spread(count: int, most: int) -> Rows:
    """Return rows of 0..count-1, evenly chosen, at most so many."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


class Distinct:
    """The vectors of an encoded corpus, of unit length, one for each different text: that of its first document."""

    def __init__(self, encoded: Artifact, copies: Copies) -> None:
        self._encoded, self._copies = encoded, copies

    def __len__(self) -> int:
        return self._copies.candidates

    def shards(self) -> Iterator[Vectors]:
        """Yield the vectors in order, in bounded memory; a shard without a new text is left out."""
        start, firsts = 0, self._copies.firsts
        for vectors, _ in shards_of(self._encoded):
            here = firsts[(firsts >= start) & (firsts < start + len(vectors))] - start
            start += len(vectors)
            if len(here):
                yield unit(vectors[here])

    def rows(self, wanted: Rows) -> Vectors:
        """Return some vectors, by ascending candidate."""
        found, start = [], 0
        for vectors in self.shards():
            found.append(vectors[wanted[(wanted >= start) & (wanted < start + len(vectors))] - start])
            start += len(vectors)
        return np.concatenate(found)


def _new_index(text: str, dim: int) -> Any:
    import faiss

    try:
        return faiss.index_factory(dim, text, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        said = str(error).strip().splitlines()[-1]
        raise XtError(
            f"FAISS makes no index {text!r} for vectors of length {dim}: {said}",
            f"Give {', '.join(KINDS)}, or a factory string such as IVF256,SQ8,RFlat.",
        ) from error


def _faiss_call(call: Callable[[], object], what: str) -> None:
    try:
        call()
    except RuntimeError as error:
        said = str(error).strip().splitlines()[-1]
        raise XtError(f"{what}: {said}", "Choose another --kind; flat always works.") from error


def exact(corpus: Distinct, queries: Vectors, k: int) -> tuple[Vectors, Rows]:
    """Search every vector of a corpus, shard by shard: cosines and candidates (n, k), best first."""
    scores = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    start = 0
    for vectors in corpus.shards():
        scores = np.concatenate([scores, queries @ vectors.T], axis=1)
        here = np.arange(start, start + len(vectors))
        rows = np.concatenate([rows, np.broadcast_to(here, (len(queries), len(here)))], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
        start += len(vectors)
    return scores, rows


def _quality(index: Any, corpus: Distinct, text: str, report: Callable[[str], None]) -> dict[str, Any]:
    """Measure an index against exact search, documents being the queries, after choosing how hard it searches."""
    if text == "Flat":
        return {"recall_at_10": 1.0, "recall_queries": 0, "score_error_max": 0.0, "search": {}}
    count = len(corpus)
    queries = corpus.rows(_spread(count, RECALL_QUERIES))
    k = min(RECALL_AT, count)
    true_scores, true_rows = exact(corpus, queries, k)
    name, values = _effort(index)
    recall, error, value = 0.0, 0.0, None
    for value in values:
        if name:
            import faiss

            faiss.ParameterSpace().set_index_parameter(index, name, value)
        scores, rows = index.search(queries, k)
        recall, error = _agreement(scores, rows, true_scores, true_rows)
        if recall >= RECALL_WANTED:
            break
    effort = {name: value} if name else {}
    report(
        f"{text}: recall@{k} {recall:.4f} against exact search on {len(queries)} documents, score error at most "
        f"{error:.5f}{''.join(f', {n} = {v}' for n, v in effort.items())}"
    )
    return {"recall_at_10": recall, "recall_queries": len(queries), "score_error_max": error, "search": effort}


def _agreement(scores: Vectors, rows: Rows, true_scores: Vectors, true_rows: Rows) -> tuple[float, float]:
    """Share of the true rows that were found, and the largest error of their scores."""
    same = rows[:, :, None] == true_rows[:, None, :]  # (n, found, true)
    errors = np.abs(scores[:, :, None] - true_scores[:, None, :])[same]
    return float(same.any(1).mean()), float(errors.max(initial=0.0))


def _effort(index: Any) -> tuple[str, list[int]]:
    """Name what makes an approximate index search harder, and give its values; none for any other kind."""
    import faiss

    inverted = faiss.try_extract_index_ivf(index)
    if inverted is not None:
        values = [1 << i for i in range(inverted.nlist.bit_length()) if 1 << i < inverted.nlist]
        return "nprobe", [*values, inverted.nlist]
    inner = faiss.downcast_index(index)
    if isinstance(inner, faiss.IndexHNSW):
        return "efSearch", [16, 32, 64, 128, 256, 512]
    return "", [0]


def check_vectors(encoder: Encoder, index: Index, indexed: Artifact) -> list[int]:
    """Encode some documents again; give their rows. XtError unless the vectors are those that the index was made of."""
    golden = read_json(indexed.path / GOLDEN_FILE)
    expected = np.asarray(golden["vectors"], np.float32)
    texts = [shown(index.documents[row]) for row in golden["rows"]]
    found = encoder.encode(texts, prefix=indexed.facts["prefix"], truncate=indexed.facts["truncate"]).vectors
    if found.shape == expected.shape:
        worst = float((unit(expected) * unit(found)).sum(1).min())
        if worst >= LEAST_COSINE:
            return list(golden["rows"])
        differ = f"cosine {worst:.4f}, expected at least {LEAST_COSINE}"
    else:
        differ = f"of length {found.shape[1]}, expected {expected.shape[1]}"
    raise XtError(
        f"The encoder gives other vectors than {indexed.path} holds: {differ}.",
        "Use the encoder that the index was made with, or index the corpus again.",
    )
