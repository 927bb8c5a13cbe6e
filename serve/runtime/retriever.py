"""The retriever as Triton's Python backend runs it: encoder, index and calibration of one version, loaded together.

Inputs: text (n, 1); language (n, 1), optional, the code of each query's language ("" where it is not known). Request
parameters: `k` (1 to 100, default 10), `prefix` (a role of the encoder, or "none"; default: query), `truncate` (bool),
`cache` (bool; false: nothing is answered from the cache of queries, nothing is kept there; for measuring).
Outputs: ids, documents, copies, scores (cosines), probabilities, each (n, k), best first; none (n, 1), the probability
that the right document is not among the calibration's candidates; calibration (n, 1), the calibrator applied; tokens,
truncated (n, 1). Where an approximate index finds fewer than k documents, a row ends with empty ids and scores of -1.
Documents of equal text are one candidate, named by the first of them; copies has the ids of all, a JSON list each.

Probabilities are over the candidates that the calibration was fitted with (100), whatever k is. A model installed
without a calibration answers without probabilities and none, and refuses a request that names them. What was found for
a query is kept for when it is asked again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.calibration.apply.file import CalibrationTable, table_of
from xt.core.encoder.buckets import Buckets, bucket
from xt.core.encoder.onnx_engine import check_golden, load_model
from xt.core.encoder.text import TextEncoder
from xt.core.errors import XtError
from xt.core.files.artifact import read_json
from xt.serve.index.index import Index, answer, check_k, check_searches, depth, role, shown
from xt.serve.runtime.cache import Entry, VectorCache
from xt.serve.runtime.served import ServedModel

Ids = npt.NDArray[np.int64]
PARAMETERS = {"k": int, "prefix": str, "truncate": bool, "cache": bool}
K = 10


@dataclass(frozen=True)
class Plan:
    """What a request asks for, and which of its queries have been searched for before."""

    k: int
    languages: list[str]
    tokens: list[int]
    """Of each query."""
    cut: npt.NDArray[np.bool_]
    """(n,) whether the query was truncated."""
    wanted: set[str]
    """Names of outputs."""
    keys: list[bytes]
    """The token ids of each query, as the cache calls it."""
    entries: list[Entry | None]
    """What the cache had: an entry, whose vector is what `run` returns, or None."""
    places: dict[bytes, int]
    """Key of a query to be run -> its row."""
    cached: bool
    """Whether the cache may answer and keep."""


class ServedRetriever(ServedModel):
    """One version of a retriever."""

    encoder: TextEncoder
    index: Index
    table: CalibrationTable | None
    prefix: str
    depth: int
    cache: VectorCache
    outputs: int
    """How many the model has."""

    def load(self, folder: Path, version_folder: Path, device: str) -> None:
        """Load encoder, index and calibration; golden vectors and golden searches must be as at installation."""
        self.encoder, artifact = load_model(folder, device=device)
        cosine = check_golden(self.encoder, folder, artifact)
        self.engine_budget = self.encoder.token_budget
        self.engine_workers = self.encoder.workers
        self.engine_extra_pass = self.encoder.allows_extra_pass
        self.buckets = self.encoder.buckets
        self.encoder.warm_up()
        self.index = Index(version_folder)
        facts = artifact.facts
        self.table = None
        if facts["calibration"]:
            self.table = table_of(_json(folder / facts["calibration"]), facts["calibration"])
        difference = check_searches(self.encoder.encode, self.index, _json(folder / facts["searches"]))
        self.prefix = role(self.encoder.spec.prefixes, "query")
        self.depth = depth(self.table)
        self.cache = VectorCache(self.settings.cache_megabytes * 1_000_000)
        self.outputs = len(self.config["output"])
        self.pb.Logger.log_info(
            f"{self.name}: {len(self.index)} documents; golden vectors agree (cosine at least {cosine:.6f}), golden "
            f"searches too (cosines within {difference:.6f})"
        )

    def read(self, request: Any) -> tuple[list[Ids], list[int], Plan]:
        """Tokenise the queries; refuse what the calibration cannot give."""
        parameters = self.parameters(request, PARAMETERS)
        k = check_k(parameters.get("k", K))
        wanted = set(request.requested_output_names())
        asked = wanted & {"probabilities", "none"}
        # Without a list of outputs Triton names them all: only a list of one's own is a request for probabilities.
        if self.table is None and asked and len(wanted) < self.outputs:
            raise XtError(
                f"{self.name} has no calibration, so it cannot give {' and '.join(sorted(asked))}.",
                "Ask for ids and scores, or install it with --calibration.",
            )
        texts = self.texts(request)
        languages = self.more_texts(request, "language") or [""] * len(texts)
        if len(languages) != len(texts):
            raise XtError(f"language has {len(languages)} rows, text {len(texts)}.", "Give one for each text.")
        prefix = self.encoder.spec.prefix(parameters.get("prefix", self.prefix))
        rows, cut = self.encoder.tokenizer(texts, prefix=prefix, truncate=parameters.get("truncate", False))
        keys = [np.asarray(row, np.int32).tobytes() for row in rows]
        cached = parameters.get("cache", True)
        entries: list[Entry | None] = self.cache.get(keys) if cached else [None] * len(keys)
        places: dict[bytes, int] = {}
        for key, entry in zip(keys, entries, strict=True):
            if entry is None:
                places.setdefault(key, len(places))
        if self.settings.cache_megabytes and cached:
            missing = sum(entry is None for entry in entries)
            self.meters.add("xt_cache_hits_total", len(keys) - missing)
            self.meters.add("xt_cache_misses_total", missing)
        tokens = [len(row) for row in rows]
        firsts = [rows[keys.index(key)] for key in places]
        plan = Plan(k, languages, tokens, cut, wanted, keys, entries, places, cached)
        return firsts, [len(row) for row in firsts], plan

    def run(self, rows: list[Ids]) -> npt.NDArray[np.float64]:
        """Return the vectors of the queries, and the best candidates of each.

        (2, depth), cosines over document rows.
        """
        vectors = self.encoder.forward(rows, concurrent=self.is_concurrent())
        return np.stack(self.index.search(vectors, self.depth), axis=1, dtype=np.float64)  # exact for rows below 2^53

    def answer(self, request: Any, context: Plan, results: list[Any]) -> list[Any]:
        """Return the documents and probabilities of each query."""
        found = [
            results[context.places[key]] if entry is None else entry.vector
            for key, entry in zip(context.keys, context.entries, strict=True)
        ]
        if context.cached:
            self.cache.put((key, results[place], 0, False) for key, place in context.places.items())
        answers = [
            answer(
                self.index.documents,
                best[0].astype(np.float32),
                best[1].astype(np.int64),
                k=context.k,
                table=self.table,
                language=language,
                ids=self.index.ids,
            )
            for best, language in zip(found, context.languages, strict=True)
        ]
        values = {
            "ids": lambda: _strings([a.ids for a in answers]),
            "documents": lambda: _strings([a.documents for a in answers]),
            "copies": lambda: _strings([[json.dumps(ids, ensure_ascii=False) for ids in a.copies] for a in answers]),
            "scores": lambda: np.stack([a.scores for a in answers]),
            "calibration": lambda: _strings([[a.calibration] for a in answers]),
            "tokens": lambda: np.array(context.tokens, np.int32)[:, None],
            "truncated": lambda: context.cut[:, None],
        }
        if self.table is not None:
            values["probabilities"] = lambda: np.array([a.probabilities for a in answers])
            values["none"] = lambda: np.array([[a.none] for a in answers], np.float32)
        self.meters.add("xt_texts_total", len(found))
        self.meters.add("xt_truncated_total", int(context.cut.sum()))
        return [self.pb.Tensor(name, value()) for name, value in values.items() if name in context.wanted]

    def rehearse(self) -> tuple[list[Ids], list[int]]:
        """One document's text as often as fills a micro-batch: the speed measured is that of vectors and search."""
        (row,), _ = self.encoder.tokenizer([shown(self.index.documents[0])], truncate=True)
        rows = [row] * (self.buckets or Buckets()).full(bucket(len(row)), self.settings.token_budget)
        return rows, [len(row) for row in rows]


def _json(file: Path) -> Any:
    return read_json(file)


def _strings(rows: Sequence[Sequence[str]]) -> npt.NDArray[np.object_]:
    return np.array([[text.encode("utf-8") for text in row] for row in rows], np.object_)
