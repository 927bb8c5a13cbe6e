"""Ranked retrieval with judgements: all documents ranked for every query, and the rankings scored.

BEIR folders (Thakur et al. 2021, arXiv 2104.08663), XQuAD-R and Mewsli-X (`xt.eval.ranked.passages`). The measures are
those of `ir_measures` (trec_eval's): a query for which nothing was found counts 0, and each is a mean over queries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.calibration.measuring import measures
from xt.core import languages
from xt.core.copies import Copies, count_copies
from xt.core.encoder.text import Encoder, Vectors
from xt.core.errors import XtError, require
from xt.core.languages import resource_of
from xt.eval import groups
from xt.eval.mining.margin import neighbours
from xt.eval.ranked.collection import Collection
from xt.eval.retrieval.ranking import Ranking, fold_of

BEIR_MEASURES = ("nDCG@10", "R@100", "RR@10")
ANSWER_MEASURES = ("AP@20",)
CANDIDATES = 100
BATCH = 4096
"""Texts that are encoded between two reports of progress."""
REPEATS = 1000
MIN_QUERIES = 10
"""Fewer queries than this give no interval: their resamples say nothing of what others would give."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ranked:
    """What ranking a collection gave."""

    section: dict[str, Any]
    """The section `ranked` of metrics.json."""
    predictions: list[dict[str, Any]]
    rankings: dict[str, Ranking]
    """language of the queries -> ranking, for the fits: gold is the first right document, any counts."""


def cut_measures(names: Sequence[str], documents: int, *, cut: bool) -> tuple[str, ...]:
    """Check the measures against the number of documents: one that looks further is cut on request, else refused.

    >>> cut_measures(["nDCG@10", "R@100"], 50, cut=True)
    ('nDCG@10', 'R@50')
    """
    done = []
    for name in names:
        kind, _, depth = name.partition("@")
        if depth and int(depth) > documents:
            if not cut:
                raise XtError(
                    f"{name} looks at {depth} documents; there are {documents}.",
                    f"Pass --cut to measure {kind}@{documents} in its place, under that name.",
                )
            name = f"{kind}@{documents}"
        done.append(name)
    return tuple(dict.fromkeys(done))


def roles(encoder: Any) -> tuple[str | None, str | None]:
    """Return the prefixes of queries and documents: `query` and `passage` where the encoder has them, else its own."""
    inner = encoder if hasattr(encoder, "spec") else getattr(encoder, "encoder", None)  # a cache wraps one
    known = getattr(getattr(inner, "spec", None), "prefixes", {})
    return ("query" if "query" in known else None), ("passage" if "passage" in known else None)


def rank_collection(
    encoder: Encoder,
    collection: Collection,
    *,
    names: Sequence[str] = BEIR_MEASURES,
    cut: bool = False,
    truncate: bool = True,
    progress: Callable[[int, int, str], None] | None = None,
) -> Ranked:
    """Rank all documents for every query by cosine, and score the rankings.

    Args:
        encoder: anything with `encode`.
        collection: what is ranked.
        names: measures as `ir_measures` writes them.
        cut: measure at the number of documents where a measure looks further, instead of stopping.
        truncate: cut documents that are too long, and count them, instead of stopping (passages often are).
        progress: called for every so many texts.
    """
    names = cut_measures(names, len(collection.documents.ids), cut=cut)
    of_query, of_document = roles(encoder)
    total = len(collection.documents.ids) + len(collection.queries.ids)
    documents, cut_d = _encode(encoder, collection.documents.texts, of_document, truncate, progress, 0, total)
    done = len(collection.documents.ids)
    queries, cut_q = _encode(encoder, collection.queries.texts, of_query, truncate, progress, done, total)
    if progress:
        progress(total, total, "")
    found = neighbours(queries, documents, k=min(CANDIDATES + 1, len(documents)), search="exact")
    scores, places = _without_itself(collection, found.scores, found.rows)
    section, rankings = score_collection(collection, scores, places, names)
    copies = Copies.find(collection.documents.texts)
    predictions = _predictions(collection, scores, places)
    notes = list(collection.notes)
    repeated = count_copies(collection.documents.texts, collection.queries.texts)
    if copies.extra:
        near = neighbours(queries, documents[copies.firsts], k=min(CANDIDATES + 1, copies.candidates), search="exact")
        scores, found_texts = _without_itself(collection, near.scores, near.rows, copies)
        rankings = rank_texts(collection, copies, scores, found_texts, rankings)
        by_text = {code: float((r.gold == 0).mean()) for code, r in rankings.items()}
        for code, value in by_text.items():
            section["languages"][code]["accuracy_by_text"] = value
        resources = {code: resource_of(code) for code in by_text}
        section["mean"]["accuracy_by_text"] = groups.with_all(by_text, resources)
        predictions = _by_text(collection, copies, predictions, scores, found_texts)
    if any(repeated.values()):
        means = {k: section["mean"][k]["all"] for k in ("accuracy", "accuracy_by_text") if k in section["mean"]}
        values = ", ".join(f"{k.replace('_', ' ')} {v:.3f}" for k, v in means.items())
        notes.append(
            f"warning: {repeated['documents']} documents and {repeated['queries']} queries repeat another text "
            f"({values}); the measures are by id, to calibration equal documents are one candidate"
        )
    facts = {"documents": len(collection.documents.ids), "truncated": [cut_q, cut_d], "notes": notes}
    facts["copies"] = repeated
    facts["prefixes"] = {"queries": of_query or "default", "documents": of_document or "default"}
    return Ranked({**section, **facts}, predictions, rankings)


def rank_texts(
    collection: Collection,
    copies: Copies,
    scores: Vectors,
    found: npt.NDArray[np.int64],
    by_id: Mapping[str, Ranking],
) -> dict[str, Ranking]:
    """Return the rankings by language in which equal documents are one candidate, right where any of them is.

    Args:
        collection: what was ranked.
        copies: of its documents.
        scores: (queries, k) similarities, best first.
        found: (queries, k) which candidates of `copies`, -1 for none.
        by_id: the rankings in which every document is by itself, for the folds.
    """
    right = np.zeros(found.shape, bool)
    for q, relevant in enumerate(_relevant(collection, copies)):
        right[q] = np.isin(found[q], relevant) & (found[q] >= 0)
    gold = np.where(right.any(1), right.argmax(1), -1).astype(np.int64)
    rows = np.where(found < 0, -1, copies.firsts[found])
    codes = np.array(collection.queries.languages)
    return {
        code: Ranking(scores[codes == code], rows[codes == code], gold[codes == code], one.folds, copies.candidates)
        for code, one in by_id.items()
    }


def _relevant(collection: Collection, copies: Copies) -> list[npt.NDArray[np.int64]]:
    """Return the candidates that hold a document relevant to each query."""
    where = {name: i for i, name in enumerate(collection.documents.ids)}
    return [
        np.unique([copies.of[where[d]] for d, score in collection.judgements[name].items() if score > 0])
        for name in collection.queries.ids
    ]


def _by_text(
    collection: Collection,
    copies: Copies,
    predictions: Sequence[dict[str, Any]],
    scores: Vectors,
    found: npt.NDArray[np.int64],
) -> list[dict[str, Any]]:
    """Turn predictions by id into those by text; `correct_by_id` keeps what they were."""
    out = []
    for q, (row, relevant) in enumerate(zip(predictions, _relevant(collection, copies), strict=True)):
        first = int(found[q, 0])
        text = collection.documents.texts[int(copies.firsts[first])] if first >= 0 else ""
        right = first >= 0 and bool(np.isin(first, relevant))
        score = float(scores[q, 0]) if first >= 0 else None
        out.append({**row, "answer": text, "score": score, "correct": right, "correct_by_id": row["correct"]})
    return out


def _encode(
    encoder: Encoder,
    texts: Sequence[str],
    prefix: str | None,
    truncate: bool,
    progress: Callable[[int, int, str], None] | None,
    done: int,
    total: int,
) -> tuple[Vectors, int]:
    vectors, cut = [], 0
    for start in range(0, len(texts), BATCH):
        if progress:
            progress(done + start, total, "texts")
        result = encoder.encode(texts[start : start + BATCH], prefix=prefix, truncate=truncate)
        norms = np.linalg.norm(result.vectors, axis=1, keepdims=True)
        vectors.append((result.vectors / np.maximum(norms, 1e-12)).astype(np.float32))
        cut += int(result.truncated.sum())
    return np.concatenate(vectors), cut


def _without_itself(
    collection: Collection, scores: Vectors, places: npt.NDArray[np.int64], copies: Copies | None = None
) -> tuple[Vectors, npt.NDArray[np.int64]]:
    """Take a document that is the query itself (same id, same text) out of its ranking, as BEIR does (ArguAna, Quora).

    Unless it is judged. Gives at most `CANDIDATES` for each query; a ranking that is short ends in -1. With `copies`
    places are candidates: one that is the query itself and no other document is taken out.
    """
    kept = min(CANDIDATES, scores.shape[1])
    where = {name: i for i, name in enumerate(collection.documents.ids)}
    out_s, out_p = scores[:, :kept].copy(), places[:, :kept].copy()
    for q, (name, text) in enumerate(zip(collection.queries.ids, collection.queries.texts, strict=True)):
        own = where.get(name)
        if own is None or name in collection.judgements[name] or collection.documents.texts[own] != text:
            continue
        if copies is not None:
            own = int(copies.of[own])
            if len(copies.members(own)) > 1:
                continue
        rest = places[q] != own
        n = min(kept, int(rest.sum()))
        out_p[q], out_s[q] = -1, -np.inf
        out_p[q, :n], out_s[q, :n] = places[q][rest][:n], scores[q][rest][:n]
    return out_s, out_p


def per_query(collection: Collection, places: npt.NDArray[np.int64], names: Sequence[str]) -> dict[str, Floats]:
    """Score each query by `ir_measures`, in the order of the collection: measure -> (n,).

    Documents are handed over by rank, so that equal scores keep the order in which they were found.
    """
    require("ir_measures", extra="cpu", purpose="Ranked retrieval")
    import ir_measures

    parsed = {ir_measures.parse_measure(name): name for name in names}
    ids = collection.documents.ids
    run = {
        query: {ids[row]: float(-rank) for rank, row in enumerate(places[q]) if row >= 0}
        for q, query in enumerate(collection.queries.ids)
    }
    order = {query: q for q, query in enumerate(collection.queries.ids)}
    values = {name: np.zeros(len(order)) for name in names}
    judged = {query: dict(found) for query, found in collection.judgements.items()}
    for metric in ir_measures.iter_calc(list(parsed), judged, run):
        values[parsed[metric.measure]][order[metric.query_id]] = metric.value
    return values


def interval(values: Floats, *, repeats: int = REPEATS, seed: int = 0) -> list[float] | None:
    """Return the 95 % bootstrap interval of a mean over queries (percentiles of resampled means).

    It is None below `MIN_QUERIES` queries.
    """
    if len(values) < MIN_QUERIES:
        return None
    rng = np.random.default_rng(seed)
    drawn = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(repeats)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return [float(low), float(high)]


def score_collection(
    collection: Collection, scores: Vectors, places: npt.NDArray[np.int64], names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Ranking]]:
    """Score rankings by the language of the queries: the section, and the rankings to calibrate on.

    Args:
        collection: what was ranked.
        scores: (queries, k) similarities, best first.
        places: (queries, k) which documents, -1 for none.
        names: the measures.
    """
    values = per_query(collection, places, names)
    codes = np.array(collection.queries.languages)
    right = np.array(
        [
            [row >= 0 and collection.judgements[query].get(collection.documents.ids[row], 0) > 0 for row in found]
            for query, found in zip(collection.queries.ids, places, strict=True)
        ],
        bool,
    )
    gold = np.where(right.any(1), right.argmax(1), -1).astype(np.int64)
    folds = np.array([fold_of(query_key(name)) for name in collection.queries.ids])
    table: dict[str, dict[str, Any]] = {}
    rankings: dict[str, Ranking] = {}
    for code in dict.fromkeys(collection.queries.languages):
        mine = codes == code
        table[code] = {"n": int(mine.sum()), "accuracy": float((gold[mine] == 0).mean())}
        table[code]["accuracy_ci"] = measures.wilson(int((gold[mine] == 0).sum()), int(mine.sum()))
        for name in names:
            table[code][name] = float(values[name][mine].mean())
            table[code][f"{name}_ci"] = interval(values[name][mine])
        rankings[code] = Ranking(scores[mine], places[mine], gold[mine], folds[mine], len(collection.documents.ids))
    resources = {code: resource_of(code) for code in table}
    mean = {n: groups.with_all({c: row[n] for c, row in table.items()}, resources) for n in (*names, "accuracy")}
    return {"metric": names[0], "measures": list(names), "mean": mean, "languages": table}, rankings


def query_key(name: str) -> str:
    """Return what a query and its translations share, and what decides their fold: the id without the language."""
    head, dash, tail = name.rpartition("-")
    return head if dash and tail in languages.LANGUAGES else name


def _predictions(collection: Collection, scores: Vectors, places: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """List what each query found first, and a document that it should have found."""
    documents = collection.documents
    where = {name: i for i, name in enumerate(documents.ids)}
    out = []
    for q, (name, text, code) in enumerate(
        zip(collection.queries.ids, collection.queries.texts, collection.queries.languages, strict=True)
    ):
        wanted = [d for d, score in collection.judgements[name].items() if score > 0]
        first = int(places[q, 0])
        row: dict[str, Any] = {
            "language": code,
            "id": name,
            "query": text,
            "answer": documents.texts[first] if first >= 0 else "",
        }
        row |= {"gold": documents.texts[where[wanted[0]]], "score": float(scores[q, 0]) if first >= 0 else None}
        out.append({**row, "correct": first >= 0 and documents.ids[first] in wanted})
    return out
