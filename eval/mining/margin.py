"""Mining translations from two monolingual texts, as BUCC does it (Artetxe & Schwenk 2019, arXiv 1811.01136).

Sentences are de-duplicated, every one finds its 4 nearest neighbours on the other side, a pair's cosine is set against
the neighbourhoods of both (the margin), the best candidates of both directions are pooled and taken greedily, one to
one. The threshold comes from a dev part; precision, recall and F1 are those of a test part that had no say in it.
The protocol is that of XTREME's `third_party/utils_retrieve.py` (`mine_bitext`, `bucc_optimize`), without its faults.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.calibration.predictions import NONE_OF_THESE, Predictions, searched
from xt.core.copies import Copies, text_key
from xt.core.encoder.text import Vectors
from xt.core.errors import XtError, require, unknown
from xt.eval.mining.sets import MiningSet, Sentences


class NotMined(XtError):
    """These texts cannot be mined: they are too small, or nothing right is found. Other languages can be."""


Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Progress = Callable[[int, int, str], None]

K = 4
"""Neighbours on each side."""
MARGINS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "ratio": lambda cosine, around: cosine / around,
    "distance": lambda cosine, around: cosine - around,
    "absolute": lambda cosine, around: cosine,
}
"""Cosine of a pair and mean cosine of both neighbourhoods -> score."""
SEARCHES = ("auto", "exact", "ivf")
EXACT_PAIRS = 1e10
"""Up to so many pairs of sentences (100,000 a side) `auto` searches exactly: three core-minutes both ways at 384
numbers and 90 GFLOPS a core; 200,000 a side take eleven, by the index four where vectors have clusters."""
QUERY_BLOCK = 8192
"""Queries that are searched for at once: it bounds the memory beside the vectors."""
RECALL = 0.95
"""Share of the true neighbours that the index must find for a sample of queries, or it looks further. The nearest of
the four is found far more often than the fourth, and the margin takes the mean of all four."""
SHARE = 0.1
"""Looking into more of the cells than this is slower than comparing all with all (a core does 10 GFLOPS in the cells,
90 in one product): where vectors have so few clusters the search is exact after all."""
SAMPLE = 500


@dataclass(frozen=True)
class Neighbours:
    """The nearest sentences of the other side."""

    scores: Vectors
    """(n, k) cosines, best first."""
    rows: Ints
    """(n, k) which they are."""
    search: str
    """`exact` or `ivf`."""
    recall: float
    """Share of the true neighbours found, 1 when exact; with an index, of a sample of queries."""


def neighbours(
    queries: Vectors,
    base: Vectors,
    *,
    k: int = K,
    search: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Neighbours:
    """Find the `k` rows of `base` (m, dim) nearest to each of `queries` (n, dim), both of unit length, block by block.

    `exact` compares all with all, `ivf` looks into the nearest cells of an inverted file, as many as it takes to find
    `RECALL` of the true neighbours of a sample of queries (all with all where that takes more than `SHARE` of them);
    `auto` takes the former up to `EXACT_PAIRS` pairs. The answer says which it was. Beside the vectors `exact` needs
    memory for one block of queries, `ivf` one copy of `base` too.
    """
    require("faiss", extra="cpu", purpose="Mining")
    import faiss

    if search not in SEARCHES:
        raise unknown("search", search, SEARCHES)
    if len(queries) == 0 or len(base) == 0:
        raise XtError("Nothing to mine: one side has no sentences.")
    if not (np.isfinite(queries).all() and np.isfinite(base).all()):
        raise XtError("Vectors hold NaN or infinity.", "The encoder is damaged; check it with `xt check`.")
    k = min(k, len(base))
    queries, base = (np.ascontiguousarray(v, np.float32) for v in (queries, base))
    method = search if search != "auto" else "exact" if len(queries) * len(base) <= EXACT_PAIRS else "ivf"

    def exact(some: Vectors) -> tuple[Vectors, Ints]:
        return faiss.knn(some, base, k, metric=faiss.METRIC_INNER_PRODUCT)

    index, recall = None, 1.0
    if method == "ivf":
        index, recall = _inverted_file(queries, base, k, exact, seed)
        method = "exact" if index is None else "ivf"
    scores = np.empty((len(queries), k), np.float32)
    rows = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), QUERY_BLOCK):
        if progress:
            progress(start, len(queries), f"sentences, {method}")
        block = slice(start, start + QUERY_BLOCK)
        scores[block], rows[block] = exact(queries[block]) if index is None else index.search(queries[block], k)
    if progress:
        progress(len(queries), len(queries), "")
    return Neighbours(scores, rows, method, recall)


def _inverted_file(queries: Vectors, base: Vectors, k: int, exact: Callable[[Vectors], Any], seed: int) -> Any:
    """Build an inverted file, and look into ever more of its cells until a sample of queries finds `RECALL`.

    Gives the index and what it found, or None where that takes more than `SHARE` of the cells.
    """
    import faiss

    cells = int(np.clip(4 * np.sqrt(len(base)), 1, len(base) / 39 if len(base) >= 39 else 1))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(base.shape[1]), base.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.niter, index.cp.max_points_per_centroid = seed + 1, 8, 64
    index.train(base)
    index.add(base)
    picked = np.random.default_rng(seed).choice(len(queries), min(SAMPLE, len(queries)), replace=False)
    sample = np.ascontiguousarray(queries[np.sort(picked)])
    truth = exact(sample)[1]
    index.nprobe = max(1, int(SHARE * cells / 16))
    while True:
        found = index.search(sample, k)[1]
        recall = float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(truth, found, strict=True)]) / k)
        if recall >= RECALL:
            return index, recall
        index.nprobe *= 2
        if index.nprobe > SHARE * cells:
            return None, 1.0


@dataclass(frozen=True)
class Candidates:
    """Pairs that were mined, best first, one to one."""

    foreign: Ints
    """(n,) rows of the sentences given."""
    english: Ints
    score: Floats
    """(n,) margin."""
    cosine: Floats
    gap: Floats
    """(n,) how far the score lies above that of either sentence's next best candidate, the smaller of the two."""
    foreign_around: Floats
    """(n,) mean cosine of the foreign sentence and its neighbours."""
    english_around: Floats

    def __len__(self) -> int:
        return len(self.score)

    def features(self) -> Floats:
        """(n, 5) what a probability is made of: score, cosine, gap, both neighbourhoods."""
        return np.stack([self.score, self.cosine, self.gap, self.foreign_around, self.english_around], axis=1)


@dataclass(frozen=True)
class Neighbourhoods:
    """The neighbours of all sentences of both sides."""

    forward: Neighbours
    """Of each foreign sentence among the English ones."""
    backward: Neighbours


def neighbourhoods(
    foreign: Vectors, english: Vectors, *, k: int = K, search: str = "auto", progress: Progress | None = None
) -> Neighbourhoods:
    """Find the neighbours both ways; NotMined when a side has no more than `k` sentences."""
    fewest = min(len(foreign), len(english))
    if fewest <= k:
        raise NotMined(
            f"{fewest} sentences on one side are too few: a margin needs more than its {k} neighbours.",
            "Give larger texts.",
        )
    return Neighbourhoods(
        neighbours(foreign, english, k=k, search=search, progress=progress),
        neighbours(english, foreign, k=k, search=search, progress=progress),
    )


def candidates(hoods: Neighbourhoods, *, margin: str = "ratio") -> Candidates:
    """Mine pairs, given the neighbours both ways.

    Forward and backward candidates are pooled ("max" retrieval) and taken by falling score while both sentences are
    free; those with a score of 0 or less are dropped, as the original drops them.
    """
    if margin not in MARGINS:
        raise unknown("margin", margin, MARGINS)
    forward, backward = hoods.forward, hoods.backward
    around_f = forward.scores.astype(np.float64).mean(1)
    around_e = backward.scores.astype(np.float64).mean(1)
    if margin == "ratio" and min(around_f.min(), around_e.min()) <= 0:
        raise NotMined(
            "A sentence has neighbours with a mean cosine of 0 or less: the ratio margin means nothing then.",
            "Use --margin distance.",
        )
    directions = []
    for found, own, other in ((forward, around_f, around_e), (backward, around_e, around_f)):
        cosine = found.scores.astype(np.float64)
        score = MARGINS[margin](cosine, (own[:, None] + other[np.maximum(found.rows, 0)]) / 2)
        score = np.where(found.rows >= 0, score, -np.inf)  # an inverted file may find fewer than k
        best = score.argmax(1)
        n = np.arange(len(score))
        second = np.partition(score, -2, axis=1)[:, -2] if score.shape[1] > 1 else np.full(len(score), -np.inf)
        directions.append((found.rows[n, best], score[n, best], cosine[n, best], second, score))
    (to_e, score_f, cos_f, second_f, _), (to_f, score_e, cos_e, second_e, _) = directions
    f = np.concatenate([np.arange(len(to_e)), to_f])
    e = np.concatenate([to_e, np.arange(len(to_f))])
    score, cosine = np.concatenate([score_f, score_e]), np.concatenate([cos_f, cos_e])
    kept = _greedy(f, e, score, len(to_e), len(to_f))
    rivals = np.maximum(
        np.where(score_f[f[kept]] > score[kept], score_f[f[kept]], second_f[f[kept]]),
        np.where(score_e[e[kept]] > score[kept], score_e[e[kept]], second_e[e[kept]]),
    )
    gap = np.clip(score[kept] - rivals, -1.0, 1.0)
    return Candidates(f[kept], e[kept], score[kept], cosine[kept], gap, around_f[f[kept]], around_e[e[kept]])


def _greedy(foreign: Ints, english: Ints, score: Floats, n: int, m: int) -> Ints:
    """Take pairs by falling score while both sentences are free: their places, best first."""
    free_f, free_e = np.ones(n, bool), np.ones(m, bool)
    kept = []
    for i in np.argsort(-score, kind="stable"):
        if score[i] > 0 and free_f[foreign[i]] and free_e[english[i]]:
            free_f[foreign[i]] = free_e[english[i]] = False
            kept.append(i)
    return np.array(kept, np.int64)


def unique(side: Sentences) -> tuple[list[str], list[str]]:
    """De-duplicate a side: the texts, each once, and the id of each; empty where several ids have the text.

    BUCC's scorer drops pairs of such sentences, since it cannot say which of the ids is meant.
    """
    found: dict[str, str] = {}
    for name, text in zip(side.ids, side.texts, strict=True):
        found[text] = "" if text in found else name
    return list(found), list(found.values())


@dataclass(frozen=True)
class Mined:
    """What one part of one language gave."""

    candidates: Candidates
    """Those whose sentences have one id each."""
    pairs: tuple[tuple[str, str], ...]
    """The ids of each."""
    right: npt.NDArray[np.bool_]
    """Whether each is a gold pair."""
    gold: int
    """How many there were to find."""
    facts: dict[str, Any]

    def predictions(self, language: str = "") -> Predictions:
        """Return what calibration reads: each pair an answer with its score, right or none of the candidates."""
        found = np.where(self.right, 0, NONE_OF_THESE)
        ids = ["\t".join(pair) for pair in self.pairs]
        return searched(
            self.candidates.score[:, None], found, fold=np.zeros(len(found), int), language=language, ids=ids
        )


def search_part(
    part: MiningSet, foreign: Vectors, english: Vectors, *, search: str = "auto", progress: Progress | None = None
) -> Neighbourhoods:
    """Find the neighbours of one part, given the vectors of the texts that `unique` returns for either side."""
    units = []
    for vectors, side in ((foreign, part.foreign), (english, part.english)):
        if len(vectors) != len(unique(side)[0]):
            raise XtError(f"{len(vectors)} vectors for {len(unique(side)[0])} different sentences.")
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.allclose(norms, 1, atol=1e-4):  # else as they are: at 200,000 sentences a copy is 300 MB
            vectors = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
        units.append(vectors)
    return neighbourhoods(units[0], units[1], search=search, progress=progress)


def mine(part: MiningSet, hoods: Neighbourhoods, *, margin: str = "ratio") -> Mined:
    """Mine one part, given its neighbours (`search_part`)."""
    (_, names_f), (_, names_e) = unique(part.foreign), unique(part.english)
    found = candidates(hoods, margin=margin)
    named = np.array([bool(names_f[i] and names_e[j]) for i, j in zip(found.foreign, found.english, strict=True)], bool)
    kept = Candidates(*(getattr(found, name)[named] for name in Candidates.__dataclass_fields__))
    pairs = tuple((names_f[i], names_e[j]) for i, j in zip(kept.foreign, kept.english, strict=True))
    right = np.array([pair in part.gold for pair in pairs], bool)
    facts = {
        "search": hoods.forward.search,
        "search_recall": min(hoods.forward.recall, hoods.backward.recall),
        "sentences": [len(part.foreign.ids), len(part.english.ids)],
        "unique": [len(names_f), len(names_e)],
        "dropped": int((~named).sum()),
    }
    return Mined(kept, pairs, right, len(part.gold), facts)


def has_copies(part: MiningSet) -> bool:
    """Return whether a text of either side is there more than once."""
    return any(Copies.find(side.texts).extra for side in (part.foreign, part.english))


def mine_texts(part: MiningSet, hoods: Neighbourhoods, *, margin: str = "ratio") -> Mined:
    """Mine one part by text: a pair is right where its two texts are those of a gold pair, whatever their ids.

    Pairs of equal texts are one, that of the best score; each is named by the first ids that have its texts.
    """
    sides = [dict(zip(side.ids, side.texts, strict=True)) for side in (part.foreign, part.english)]
    gold = {tuple(text_key(side[name]) for side, name in zip(sides, pair, strict=True)) for pair in part.gold}
    first: list[dict[str, str]] = [{}, {}]
    for names, side in zip(first, sides, strict=True):
        for name, text in side.items():
            names.setdefault(text, name)
    found = candidates(hoods, margin=margin)
    texts = [list(names) for names in first]
    seen: set[tuple[str, ...]] = set()
    kept, right, pairs = [], [], []
    for at, (i, j) in enumerate(zip(found.foreign, found.english, strict=True)):
        both = texts[0][i], texts[1][j]
        key = tuple(map(text_key, both))
        if key in seen:
            continue
        seen.add(key)
        kept.append(at)
        right.append(key in gold)
        pairs.append((first[0][both[0]], first[1][both[1]]))
    chosen = Candidates(*(getattr(found, name)[kept] for name in Candidates.__dataclass_fields__))
    return Mined(chosen, tuple(pairs), np.array(right, bool), len(gold), {})


def scored(right: npt.NDArray[np.bool_], gold: int) -> dict[str, float]:
    """Return the precision, recall and F1 of the pairs extracted; with none, 0 as BUCC's scorer has it."""
    found = int(right.sum())
    precision, recall = (found / len(right) if len(right) else 0.0), found / gold
    f1 = 2 * precision * recall / (precision + recall) if found else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "pairs": len(right)}


def best_threshold(dev: Mined) -> float:
    """Choose the threshold with the best F1 on dev: the midpoint between the last score kept and the next one.

    Equal scores are kept or left together. Raises NotMined when no candidate of dev is right.
    """
    if not dev.right.any():
        raise NotMined(
            f"None of the {len(dev.right)} pairs mined on dev is right: no threshold can be chosen.",
            "Check that the gold ids belong to these texts, and that the encoder knows the language.",
        )
    order = np.argsort(-dev.candidates.score, kind="stable")
    score, right = dev.candidates.score[order], np.cumsum(dev.right[order])
    taken = np.arange(1, len(score) + 1)
    f1 = 2 * right / (taken + dev.gold)
    ends = np.append(score[1:] < score[:-1], True)
    last = int(np.argmax(np.where(ends, f1, -1.0)))
    below = score[last + 1] if last + 1 < len(score) else score[last]
    return float((score[last] + below) / 2)


def at_threshold(test: Mined, threshold: float) -> dict[str, float]:
    """Score the pairs of a part whose score is at least `threshold`."""
    return scored(test.right[test.candidates.score >= threshold], test.gold)
