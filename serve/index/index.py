"""A searchable corpus: FAISS's index file, the documents beside it, and answers with probabilities.

What is served needs faiss and numpy alone. The documents stay on disk and are read by row, so that a large corpus costs
the memory of its vectors only. They are not mapped: of a file that is cut short, a map would end the whole process.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.calibration.apply.file import CalibrationTable
from xt.core.arguments import as_list, whole_number
from xt.core.copies import Copies, search_distinct
from xt.core.encoder.text import Encoded, Vectors
from xt.core.errors import XtError, require
from xt.core.files.artifact import Artifact, open_artifact

INDEX_FILE = "index.faiss"
DOCUMENTS_FILE = "documents.jsonl"
OFFSETS_FILE = "offsets.npy"
COPIES_FILE = "copies.npy"
"""The candidate of each document, (documents,): documents of equal text are one, with one vector."""
MAX_K = 100
"""Most documents that one query may ask for."""
NO_SCORE = -1.0
"""The score of an answer's empty place: an approximate index may find fewer documents than were requested."""
GOLDEN_K = 5
KEPT_IDS = 1024
"""Candidates of several documents whose ids are kept in memory once they were requested."""
GOLDEN_TOLERANCE = 0.02
"""How far a cosine may be from what it was on the machine that installed the index (int8 graphs differ by machine)."""
Rows = npt.NDArray[np.int64]


def unit(vectors: Vectors) -> Vectors:
    """Scale (n, dim) vectors to length 1, so that inner products are cosines; zero stays zero.

    Raises XtError for NaN or infinity.
    """
    vectors = np.asarray(vectors, np.float32)
    if not np.isfinite(vectors).all():
        raise XtError("Vectors hold NaN or infinity.", "The encoder is damaged; check it with `xt check`.")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(norms, 1e-12), np.float32)


class Documents:
    """The documents of an index, read by row: objects with `id`, `text`, perhaps `title` and `language`."""

    def __init__(self, file: Path, offsets: Path) -> None:
        try:
            starts = np.load(offsets, allow_pickle=False)
            self._handle = os.open(file, os.O_RDONLY)
            weakref.finalize(self, os.close, self._handle)
            size = os.fstat(self._handle).st_size
        except (OSError, ValueError) as error:
            raise XtError(f"The documents {file} cannot be read: {error}", "Copy or make the index again.") from error
        if starts.ndim != 1 or len(starts) < 2 or starts[0] != 0 or starts[-1] != size:
            raise XtError(f"{offsets} does not fit {file}.", "Copy or make the index again.")
        self._file, self._starts = file, starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, row: int) -> dict[str, Any]:
        if not 0 <= row < len(self):
            raise IndexError(row)
        start, end = int(self._starts[row]), int(self._starts[row + 1])
        try:
            line = os.pread(self._handle, end - start, start)
            if len(line) < end - start:
                raise ValueError("it is shorter than it was")
            return dict(json.loads(line))
        except (OSError, ValueError) as error:
            raise XtError(
                f"The documents {self._file} were changed: {error}", "Copy or make the index again."
            ) from error


def shown(document: Mapping[str, Any]) -> str:
    """Return what is encoded and displayed of a document: its title and its text, as far as it has them.

    >>> shown({"title": "Ada", "text": "a programmer"}), shown({"title": "Ada", "text": ""}), shown({"text": "b"})
    ('Ada a programmer', 'Ada', 'b')
    """
    parts = (str(document.get(name) or "").strip() for name in ("title", "text"))
    return " ".join(part for part in parts if part)


class Index:
    """Vectors of unit length and their documents; documents of equal text are one candidate."""

    def __init__(self, folder: Path) -> None:
        """Open the files of an index in `folder`; whoever calls has checked their hashes.

        An index of an earlier release has a vector for each document: equal documents are then found here.
        """
        require("faiss", extra="cpu", purpose="Vector search")
        import faiss

        file = folder / INDEX_FILE
        try:
            self._faiss = faiss.read_index(str(file))
        except RuntimeError as error:
            raise XtError(f"FAISS cannot read {file}: {error}", "Copy or make the index again.") from error
        self.documents = Documents(folder / DOCUMENTS_FILE, folder / OFFSETS_FILE)
        self.dim = int(self._faiss.d)
        copies = folder / COPIES_FILE
        self.grouped = copies.is_file()
        known = _read_copies(copies, self.documents) if self.grouped else None
        expected = known.candidates if known else len(self.documents)
        if self._faiss.ntotal != expected:
            raise XtError(
                f"{file} holds {self._faiss.ntotal} vectors, but there are {expected} "
                f"{'different ' if known else ''}documents.",
                "Copy or make the index again.",
            )
        rows = range(len(self.documents))
        self.copies = known or Copies.find(shown(self.documents[row]) for row in rows)
        self._ids = lru_cache(KEPT_IDS)(self._read_ids)

    def __len__(self) -> int:
        """Documents, copies included."""
        return len(self.documents)

    @property
    def candidates(self) -> int:
        """Documents of different text."""
        return self.copies.candidates

    def ids(self, row: int) -> tuple[str, ...]:
        """Return the ids of all documents that have the text of a document, in the order of the corpus."""
        candidate = int(self.copies.of[row])
        members = self.copies.members(candidate)
        return (str(self.documents[row]["id"]),) if len(members) == 1 else self._ids(candidate)

    def _read_ids(self, candidate: int) -> tuple[str, ...]:
        return tuple(str(self.documents[int(row)]["id"]) for row in self.copies.members(candidate))

    def search(self, vectors: Vectors, k: int, *, repeat: bool = False) -> tuple[Vectors, Rows]:
        """Find the `k` documents of different text nearest to each of `vectors` (n, dim), of whatever length.

        Gives cosines and rows, both (n, min(k, candidates)), best first; of equal documents the row is that of the
        first. Where an approximate index found fewer, the cosine is -inf and the row -1. `repeat`: every document by
        itself, as earlier releases searched (of an index of theirs only).
        """
        vectors = np.asarray(vectors, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise XtError(
                f"The vectors have shape {vectors.shape}; the index holds vectors of length {self.dim}.",
                "Use the encoder that the index was made with.",
            )
        vectors = unit(vectors)
        if self.grouped or repeat or not self.copies.extra:
            scores, found = self._nearest(vectors, min(k, int(self._faiss.ntotal)))
            return scores, np.where(found < 0, -1, self.copies.firsts[found]) if self.grouped else found
        near = lambda some, depth: self._nearest(vectors[some], depth)
        scores, found = search_distinct(near, self.copies, len(vectors), k)
        return scores, np.where(found < 0, -1, self.copies.firsts[found])

    def _nearest(self, vectors: Vectors, k: int) -> tuple[Vectors, Rows]:
        """Search FAISS's index: cosines, -inf for none, and its own numbers, -1 for none."""
        scores, found = self._faiss.search(vectors, k)
        scores = np.where(found < 0, -np.inf, scores).astype(np.float32)
        order = np.argsort(-scores, axis=1, kind="stable")  # FAISS's own order, but that of -1 among others
        return np.take_along_axis(scores, order, 1), np.take_along_axis(np.asarray(found, np.int64), order, 1)


def _read_copies(file: Path, documents: Documents) -> Copies:
    """Read which documents are equal."""
    try:
        of = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise XtError(f"{file} cannot be read: {error}", "Copy or make the index again.") from error
    first = np.concatenate([[-1], np.maximum.accumulate(of)[:-1]]) if of.ndim == 1 and len(of) else np.zeros(0)
    if of.ndim != 1 or of.dtype != np.int64 or len(of) != len(documents) or not ((of >= 0) & (of <= first + 1)).all():
        raise XtError(f"{file} does not fit the {len(documents)} documents.", "Copy or make the index again.")
    return Copies(of)


def open_index(folder: Path) -> tuple[Index, Artifact]:
    """Open an index folder that `xt index` wrote, every file checked."""
    artifact = open_artifact(folder, kind="index")
    return Index(folder), artifact


@dataclass(frozen=True)
class Answer:
    """The documents for one query, best first."""

    ids: list[str]
    documents: list[str]
    scores: Vectors
    """(k,) cosines."""
    probabilities: npt.NDArray[np.float32] | None
    """(k,) that each is the right one; None without a calibration."""
    none: float | None
    """That the right one is not among the calibration's candidates; None without a calibration."""
    calibration: str
    """Which calibrator was applied: "zero-shot", "pooled", "per-language:deu", or "none"."""
    copies: list[tuple[str, ...]]
    """For each document the ids of all that have its text, its own among them; empty where nothing was found."""


def answer(
    documents: Documents,
    scores: Vectors,
    rows: Rows,
    *,
    k: int,
    table: CalibrationTable | None = None,
    language: str | None = None,
    ids: Callable[[int], tuple[str, ...]] | None = None,
) -> Answer:
    """Put together the answer to one query from the best candidates that a search gave.

    Probabilities are over all the candidates that the calibrator was fitted with, whatever `k` is, so that asking for
    fewer documents does not change what is said of one. A document beyond them has probability 0: its mass is part
    of "none".

    Args:
        documents: of the index.
        scores: (depth,) cosines, best first, -inf where nothing was found.
        rows: (depth,) which documents they are, -1 where nothing was found.
        k: how many to give; at most `depth`.
        table: the calibration; None: no probabilities.
        language: of the query, where known; it may have a calibrator of its own.
        ids: row -> the ids of all documents with its text (`Index.ids`); None: each has its own alone.
    """
    found = [documents[int(r)] if r >= 0 else None for r in rows[:k]]
    copies = [
        () if d is None else ids(int(r)) if ids else (str(d["id"]),) for r, d in zip(rows[:k], found, strict=True)
    ]
    names = [str(d["id"]) if d else "" for d in found]
    texts = [shown(d) if d else "" for d in found]
    cosines = np.where(rows[:k] < 0, NO_SCORE, scores[:k]).astype(np.float32)
    if table is None:
        return Answer(names, texts, cosines, None, None, "none", copies)
    calibrator, name = table.choose(language)
    if (rows < 0).all():
        return Answer(names, texts, cosines, np.zeros(len(names), np.float32), 1.0, name, copies)
    mass = calibrator(scores[None, : table.candidates])[0]  # (candidates + 1,)
    probabilities = np.zeros(len(names), np.float32)
    inside = min(len(names), len(mass) - 1)
    probabilities[:inside] = mass[:inside]
    return Answer(names, texts, cosines, probabilities, float(mass[-1]), name, copies)


def depth(table: CalibrationTable | None) -> int:
    """Return how many candidates to search for, so that any `k` and the calibration are served by one search."""
    return max(MAX_K, table.candidates if table else 0)


def retrieve(
    encode: Any,
    index: Index,
    queries: Sequence[str],
    *,
    k: int,
    prefix: str | None = None,
    truncate: bool = False,
    table: CalibrationTable | None = None,
    language: str | None = None,
    repeat: bool = False,
) -> tuple[list[Answer], Encoded]:
    """Encode queries, search and calibrate, in this process; the encodings say what was cut.

    Args:
        encode: `encode` of any encoder (see `xt.core.encoder.text.TextEncoder.encode`).
        index: what to search.
        queries: texts.
        k: documents for each, 1 to 100.
        prefix: the role whose prefix goes before each query.
        truncate: cut a query that is too long instead of raising.
        table: the calibration; None: no probabilities.
        language: of the queries, where known.
        repeat: equal documents each by itself (see `Index.search`).
    """
    k = check_k(k)
    encoded = encode(as_list(queries, "queries"), prefix=prefix, truncate=truncate)
    scores, rows = index.search(encoded.vectors, depth(table), repeat=repeat)
    answers = [
        answer(index.documents, s, r, k=k, table=table, language=language, ids=index.ids)
        for s, r in zip(scores, rows, strict=True)
    ]
    return answers, encoded


def check_k(k: object) -> int:
    """Return `k`, or raise XtError that names the limit."""
    return whole_number(k, "k", 1, MAX_K)


def role(prefixes: Mapping[str, str], wanted: str) -> str:
    """Name the prefix that texts in a role get: the role's own where the encoder has one, else "none".

    >>> role({"query": "query: "}, "passage")
    'none'
    """
    return wanted if wanted in prefixes else "none"


def golden_searches(encode: Any, index: Index, rows: Sequence[int], prefix: str) -> dict[str, Any]:
    """Search for some documents' own texts, so that whoever loads the index can compare what it finds.

    rows: of the documents; prefix: the role that queries get. Gives what `check_searches` reads.
    """
    queries = [shown(index.documents[row]) for row in rows]
    answers, _ = retrieve(encode, index, queries, k=GOLDEN_K, prefix=prefix, truncate=True)
    return {
        "prefix": prefix,
        "queries": queries,
        "ids": [a.ids for a in answers],
        "scores": [[float(s) for s in a.scores] for a in answers],
        "distinct": True,
        "tolerance": GOLDEN_TOLERANCE,
    }


def check_searches(encode: Any, index: Index, golden: Mapping[str, Any]) -> float:
    """Search for the golden queries; give the largest difference of a cosine to when the index was installed.

    Raises XtError when a cosine differs by more than the tolerance, or when a document that was found first is not
    found among those that are within it of the best.
    """
    repeat = not golden.get("distinct", False)  # those of an earlier release name every copy
    answers, _ = retrieve(
        encode, index, golden["queries"], k=GOLDEN_K, prefix=golden["prefix"], truncate=True, repeat=repeat
    )
    worst, tolerance = 0.0, float(golden["tolerance"])
    for query, found, ids, scores in zip(golden["queries"], answers, golden["ids"], golden["scores"], strict=True):
        if len(found.scores) != len(scores):
            raise XtError(f"A golden search finds {len(found.scores)} documents, expected {len(scores)}: {query!r}.")
        difference = float(np.abs(found.scores - np.asarray(scores, np.float32)).max())
        worst = max(worst, difference)
        near = {i for i, s in zip(found.ids, found.scores, strict=True) if s >= found.scores[0] - 2 * tolerance}
        crowded = len(near) == len(found.ids)  # as many equals as places: the expected one may be beyond them
        if not difference <= tolerance or not (ids[0] in near or crowded):
            raise XtError(
                f"A golden search finds {found.ids[0]!r} (cosine {found.scores[0]:.4f}), expected {ids[0]!r} "
                f"({scores[0]:.4f}): {query!r}.",
                "The index, its documents or the encoder are others than at installation; install the index again.",
            )
    return worst
