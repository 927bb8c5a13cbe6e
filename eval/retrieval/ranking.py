"""Cross-lingual sentence retrieval: for each sentence, find its translation among all sentences of the other side."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.calibration.apply.file import CANDIDATES
from xt.calibration.measuring import measures
from xt.calibration.predictions import FOLDS, Predictions, searched
from xt.core.arguments import as_list
from xt.core.copies import Copies, count_copies, search_distinct
from xt.core.data.bitext import Bitext
from xt.core.encoder.text import Encoder, Vectors
from xt.core.errors import XtError
from xt.core.vectors import top_k

DIRECTIONS = ("foreign-english", "english-foreign")
"""Query to candidates. MTEB's Tatoeba asks foreign to English, XTREME's English to foreign."""
DEEP = 260
"""Candidates of every query that are searched: of so many `CANDIDATES` are left when half of the index is taken out."""


@dataclass(frozen=True)
class Ranking:
    """The best candidates of every query of one language in one direction."""

    scores: Vectors
    """(n, k) similarities, best first."""
    rows: npt.NDArray[np.int64]
    """(n, k) which candidates they are."""
    gold: npt.NDArray[np.int64]
    """(n,) position of the translation in 0..k-1, -1 when it is not among them."""
    folds: npt.NDArray[np.int64]
    """(n,) the cross-fitting fold of each sentence pair."""
    candidates: int
    """How many there are in all."""
    target: npt.NDArray[np.int64] | None = None
    """(n,) which candidate is right, also where it is not among them."""

    def top(self, k: int = CANDIDATES) -> Ranking:
        """Return the ranking of the best `k` candidates."""
        if self.scores.shape[1] <= k:
            return self
        gold = np.where(self.gold < k, self.gold, -1)
        return replace(self, scores=self.scores[:, :k], rows=self.rows[:, :k], gold=gold)

    def predictions(self, language: str, ids: Sequence[str]) -> Predictions:
        """Return what calibration reads: of one language, with the id of each query (its translations share it)."""
        return searched(
            self.scores,
            self.gold,
            fold=self.folds,
            group=self.rows,
            candidates=self.candidates,
            language=language,
            ids=ids,
            target=self.target,
        )


@dataclass(frozen=True)
class Encodings:
    """Vectors of unit length of one language's pairs."""

    foreign: Vectors
    english: Vectors
    tokens: int
    truncated: int


def encode_corpus(
    encoder: Encoder,
    corpus: Sequence[Bitext],
    *,
    truncate: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Encodings]:
    """Encode both sides of every language; an English sentence that several languages share is encoded once."""
    corpus = as_list(corpus, "corpus", "Bitext")
    known: dict[str, Vectors] = {}
    out = {}
    for done, bitext in enumerate(corpus):
        if progress:
            progress(done, len(corpus), bitext.language)
        new = list(dict.fromkeys(t for t in bitext.english if t not in known))
        result = encoder.encode([*bitext.foreign, *new], truncate=truncate)
        n = len(bitext.foreign)
        if not np.isfinite(result.vectors).all():
            row = int(np.argmin(np.isfinite(result.vectors).all(1)))
            text = [*bitext.foreign, *new][row]
            raise XtError(
                f"{bitext.language}: the encoder gave a vector that is not finite for {text[:60]!r}.",
                "Check the checkpoint: `xt check` it, or export it again.",
            )
        norms = np.linalg.norm(result.vectors, axis=1, keepdims=True)  # compared by cosine, also where the spec
        vectors = result.vectors / np.maximum(norms, 1e-12)  # does not normalise
        known.update(zip(new, vectors[n:], strict=True))
        english = np.stack([known[t] for t in bitext.english])
        tokens, cut = int(result.tokens.sum()), int(result.truncated.sum())
        out[bitext.language] = Encodings(vectors[:n], english, tokens, cut)
    if progress:
        progress(len(corpus), len(corpus), "")
    return out


def id_of(english: str) -> str:
    """Return what a sentence pair and its translations share: the English sentence, whatever its case and spaces."""
    return " ".join(english.casefold().split())


def fold_of(english: str) -> int:
    """Return the fold of a sentence pair by its English side, so that no sentence is in two folds in any language."""
    digest = hashlib.sha256(id_of(english).encode()).digest()
    return int.from_bytes(digest[:4], "big") % FOLDS


def sides(vectors: Encodings, direction: str) -> tuple[Vectors, Vectors]:
    """Return the vectors of the queries and of the candidates of a direction."""
    both = (vectors.foreign, vectors.english)
    return both if direction == DIRECTIONS[0] else both[::-1]


def texts_of(bitext: Bitext, direction: str) -> tuple[Sequence[str], Sequence[str]]:
    """Return the queries and the candidates of a direction."""
    both = (bitext.foreign, bitext.english)
    return both if direction == DIRECTIONS[0] else both[::-1]


def rank_texts(bitext: Bitext, vectors: Encodings, direction: str, by_index: Ranking, k: int = CANDIDATES) -> Ranking:
    """Rank the candidates of different text, for calibration: equal ones are one, and any copy of the gold is right.

    Without copies that is `by_index`, the ranking of the same direction. `rows` has the first of the equal ones.
    """
    copies = Copies.find(texts_of(bitext, direction)[1])
    if not copies.extra:
        return by_index
    query, corpus = sides(vectors, direction)
    scores, found = search_distinct(lambda some, depth: top_k(query[some], corpus, depth), copies, len(query), k)
    hits = found == copies.of[:, None]
    gold = np.where(hits.any(1), hits.argmax(1), -1).astype(np.int64)
    target = copies.firsts[copies.of]
    return Ranking(scores, copies.firsts[found], gold, by_index.folds, copies.candidates, target)


def rank(bitext: Bitext, vectors: Encodings, direction: str, k: int = CANDIDATES) -> Ranking:
    """Rank the candidates of every sentence of a language in one direction."""
    query, corpus = sides(vectors, direction)
    scores, rows = top_k(query, corpus, k)
    target = np.arange(len(query))
    hits = rows == target[:, None]  # (n, k)
    gold = np.where(hits.any(1), hits.argmax(1), -1)
    folds = np.array([fold_of(e) for e in bitext.english])
    return Ranking(scores, rows, gold.astype(np.int64), folds, len(corpus), target)


def by_text(bitext: Bitext, direction: str, ranking: Ranking) -> dict[str, Any]:
    """Measure a ranking of `rank_texts`: how often the answer's text is the gold one's, and how many copies there are.

    Gives `accuracy_by_text` with its interval, and `copies`: texts that repeat another, of documents and of queries.
    """
    n, right = len(ranking.gold), int((ranking.gold == 0).sum())
    queries, documents = texts_of(bitext, direction)
    found = {"accuracy_by_text": right / n, "accuracy_by_text_ci": measures.wilson(right, n)}
    return {**found, "copies": count_copies(documents, queries)}


def scores_of(ranking: Ranking) -> dict[str, Any]:
    """Return the accuracy at 1 with its 95 % interval (Wilson), and mean reciprocal rank (0 below the top candidates).

    Answers are judged by their place, as XTREME and MTEB do: a copy of the right sentence is wrong.
    """
    n = len(ranking.gold)
    right = int((ranking.gold == 0).sum())
    reciprocal = np.where(ranking.gold >= 0, 1.0 / np.maximum(ranking.gold + 1, 1), 0.0)
    return {
        "n": n,
        "candidates": ranking.candidates,
        "accuracy": right / n,
        "accuracy_ci": measures.wilson(right, n),
        "mrr": float(reciprocal.mean()),
    }


def means(rows: dict[str, dict[str, Any]], resources: dict[str, str]) -> dict[str, float]:
    """Mean accuracy over all languages and over each resource class."""

    def mean(members: Iterable[str]) -> float:
        return float(np.mean([rows[m]["accuracy"] for m in members]))

    classes = sorted({resources[m] for m in rows})
    return {"all": mean(rows), **{c: mean(m for m in rows if resources[m] == c) for c in classes}}
