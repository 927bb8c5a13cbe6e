"""The accuracy of retrieval without labels: the estimate that `predicted` uses against others, language by language.

What needs labels of other languages learns from the sources of the zero-shot scope; they are not measured. Then the
situations in which one query for every document is not what there is, by `SITUATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from xt.calibration.accuracy import estimate_accuracy
from xt.calibration.apply.maps import logit, sigmoid
from xt.calibration.apply.retrieval import RetrievalTemperature
from xt.calibration.fit.temperature import fit_temperature
from xt.calibration.matching import agreement
from xt.calibration.predictions import Predictions, pool, searched
from xt.calibration.search import SOURCES, is_source
from xt.core.copies import Copies
from xt.core.data.corpus import load_corpus
from xt.core.errors import XtError
from xt.core.files.artifact import write_json
from xt.core.reporter import Reporter
from xt.core.vectors import top_k
from xt.eval.retrieval.ranking import CANDIDATES, DIRECTIONS, Encodings, encode_corpus
from xt.eval.vector_cache import with_cache
from xt.serve.encoders import open_encoder

Floats = npt.NDArray[np.float64]
RESULT = "accuracy.json"
PAIRS = 1000
"""Of a language, the first so many."""
SLOPE_SPREAD, SPREAD = 0.3, 0.2
"""Of the line in log odds: how far its slope is from 1, and by how much languages differ from it."""


@dataclass(frozen=True)
class Settings:
    """What to compare on."""

    out: Path
    encoder: str = "multilingual-e5-small"
    data_dir: Path | None = None
    seed: int = 0
    device: str = "auto"
    corpora: tuple[str, ...] = ("tatoeba", "sib200")
    force: bool = False


@dataclass(frozen=True)
class Case:
    """The vectors of different queries, those of different documents, and which document answers which query."""

    queries: npt.NDArray[Any]
    documents: npt.NDArray[Any]
    gold: npt.NDArray[np.int64]
    """(n,): -1 where none does."""

    def ranking(self) -> Predictions:
        """Return the search."""
        scores, rows = top_k(self.queries.astype(np.float32), self.documents.astype(np.float32), CANDIDATES)
        hit = rows == self.gold[:, None]
        gold = np.where(hit.any(1), hit.argmax(1), -1).astype(np.int64)
        folds = np.arange(len(gold)) % 5
        return searched(scores, gold, fold=folds, group=rows, candidates=len(self.documents))


def case(vectors: Encodings, texts: tuple[Sequence[str], Sequence[str]], direction: str) -> Case:
    """Return a direction of a language, repeated queries and documents once."""
    sides = [vectors.foreign, vectors.english]
    copies = [Copies.find(list(side)) for side in texts]
    if direction == DIRECTIONS[1]:
        sides.reverse()
        copies.reverse()
    asked, answers = copies
    return Case(sides[0][asked.firsts], sides[1][answers.firsts], answers.of[asked.firsts].astype(np.int64))


# --- estimates ---


@dataclass(frozen=True)
class Facts:
    """What the estimates read of one search, by the temperature of the sources."""

    accuracy: float
    share: float
    """Different answers, of as many as there could be."""
    mutual: float
    """Queries whose answer's best query they are."""
    agreement: float
    less_chance: float
    estimate: float | None
    """What `predicted` uses; None where it reports that the accuracy is unknown."""
    interval: tuple[float, float]
    confidence: Floats
    entropy: Floats
    transport: Floats
    """Of each query, the probability of the document that optimal transport gives it (one unit of mass each)."""
    nuclear: float
    """Nuclear norm of the probabilities, of the greatest that it could be."""


def facts_of(one: Case, temperature: RetrievalTemperature) -> Facts:
    """Return the facts of a search."""
    s = one.queries.astype(np.float64) @ one.documents.T.astype(np.float64)
    n, m = s.shape
    best, back = s.argmax(1), s.argmax(0)
    ranking = one.ranking()
    told, estimate = agreement(ranking), estimate_accuracy(ranking)
    p = temperature(s)[:, :-1]
    rows, columns = linear_sum_assignment(-p)
    moved = np.zeros(n)
    moved[rows] = p[rows, columns]
    half = 0.5 / n
    return Facts(
        float((best == one.gold).mean()),
        float(np.clip(len(np.unique(best)) / min(n, m), half, 1 - half)),
        float(np.clip((back[best] == np.arange(n)).mean(), half, 1 - half)),
        told.share,
        told.less_chance(),
        None if estimate.unknown else estimate.value,
        (estimate.low, estimate.high),
        p.max(1),
        (p * np.log(np.maximum(p, 1e-300))).sum(1),
        moved,
        float(np.linalg.norm(p, "nuc") / np.sqrt(min(n, m) * n)),
    )


def _line(known: Sequence[Facts], n: Sequence[int]) -> Callable[[Facts], float]:
    """Return the line in log odds from the share of different answers, the slope shrunk towards 1."""
    x, y = (logit(np.clip([getattr(f, k) for f in known], 1e-3, 1 - 1e-3)) for k in ("share", "accuracy"))
    weight = 1 / (
        SPREAD**2
        + np.array([1 / (n * max(f.accuracy * (1 - f.accuracy), 1e-3)) for n, f in zip(n, known, strict=True)])
    )
    design = np.stack([np.ones_like(x), x], axis=1)
    system = design.T @ (design * weight[:, None]) + np.diag([0.0, SLOPE_SPREAD**-2])
    bias, slope = np.linalg.solve(system, design.T @ (weight * y) + np.array([0.0, SLOPE_SPREAD**-2]))
    return lambda f: float(sigmoid(np.array(bias + slope * logit(np.array(f.share)))))


def _thresholded(known: Sequence[Facts], name: str) -> Callable[[Facts], float]:
    """Return the share above the threshold that is right on the sources."""
    values = np.concatenate([getattr(f, name) for f in known])
    accuracy = np.average([f.accuracy for f in known], weights=[len(f.confidence) for f in known])
    limit = np.quantile(values, 1 - accuracy)
    return lambda f: float((getattr(f, name) >= limit).mean())


def _offset(known: Sequence[Facts], of: Callable[[Facts], float]) -> Callable[[Facts], float]:
    """Return a figure plus what it lacks of the accuracy on the sources."""
    away = float(np.mean([f.accuracy - of(f) for f in known]))
    return lambda f: float(np.clip(of(f) + away, 0.0, 1.0))


def _of_two(one: float, other: float) -> float:
    return float(sigmoid(np.array(logit(np.clip([one, other], 1e-3, 1 - 1e-3)).mean())))


def estimators(known: Sequence[Facts], sizes: Sequence[int]) -> dict[str, Callable[[Facts], float]]:
    """Return the estimates by name, learnt from the sources of the same direction where they learn."""
    return {
        "agreement with the assignment, less half of chance": lambda f: _of_two(f.agreement, f.less_chance),
        "mutual neighbours and different answers": lambda f: _of_two(f.mutual, f.share),
        "line from the share of different answers": _line(known, sizes),
        "optimal transport, thresholded (Lu et al. 2023b)": _thresholded(known, "transport"),
        "optimal transport (Lu et al. 2023a)": _offset(known, lambda f: float(f.transport.mean())),
        "nuclear norm (Deng et al. 2023)": _offset(known, lambda f: f.nuclear),
        "thresholded confidence (Garg et al. 2022)": _thresholded(known, "confidence"),
        "thresholded entropy (Garg et al. 2022)": _thresholded(known, "entropy"),
        "difference of confidences (Guillory et al. 2021)": _offset(known, lambda f: float(f.confidence.mean())),
    }


def compare(cases: Mapping[tuple[str, str, str], Case]) -> list[dict[str, Any]]:
    """Estimate the accuracy of every corpus, language and direction but the sources of the first corpus.

    Args:
        cases: corpus, language and direction -> vectors. What is learnt is learnt from the sources of the first corpus.
    """
    first = next(iter(cases))[0]
    found = []
    for direction in DIRECTIONS:
        sources = {key: one for key, one in cases.items() if key[::2] == (first, direction) and is_source(key[1])}
        if not sources:
            raise XtError(f"{first} has none of the languages that are learnt from.", f"They are {', '.join(SOURCES)}.")
        together = pool([one.ranking() for one in sources.values()])
        temperature = fit_temperature(together.scores, together.gold)
        facts = {key: facts_of(one, temperature) for key, one in cases.items() if key[2] == direction}
        known = [facts[key] for key in sources]
        estimates = estimators(known, [len(one.gold) for one in sources.values()])
        for (corpus, language, _), f in facts.items():
            if (corpus, language, direction) in sources:
                continue
            row = {"corpus": corpus, "language": language, "direction": direction, "accuracy": f.accuracy}
            row |= {"unknown": f.estimate is None, "interval": f.interval}
            found.append(row | {"estimates": {name: of(f) for name, of in estimates.items()}})
    return found


# --- situations ---


def _rows(one: Case, queries: npt.NDArray[np.int64], documents: npt.NDArray[np.int64]) -> Case:
    """Return the search of some queries, which may repeat, among some documents."""
    place = np.full(len(one.documents) + 1, -1)
    place[documents] = np.arange(len(documents))
    return Case(one.queries[queries], one.documents[documents], place[one.gold[queries]])


def _situation(one: Case, name: str, rng: np.random.Generator) -> Case:
    n, m = len(one.queries), len(one.documents)
    everything, documents = np.arange(n), np.arange(m)
    if name == "queries with replacement":
        return _rows(one, rng.integers(0, n, n), documents)
    if name == "queries by Zipf's law":
        weight = 1 / np.arange(1, n + 1)
        return _rows(one, rng.choice(n, n, p=weight / weight.sum()), documents)
    if name == "50 queries":
        return _rows(one, rng.permutation(n)[:50], documents)
    if name == "an index six times as large":
        return _rows(one, rng.permutation(n)[: n // 6], documents)
    if name == "80 % of the answers are there":
        return _rows(one, everything, np.sort(rng.permutation(m)[: int(0.8 * m)]))
    if name == "80 % are there, others in their place":
        half = n // 2
        asked = np.arange(half)
        gone = rng.permutation(half)[: half // 5]
        return _rows(one, asked, np.concatenate([np.setdiff1d(one.gold[:half], one.gold[gone]), one.gold[half + gone]]))
    if name == "every document twice":
        near = one.documents + rng.normal(scale=1e-4, size=one.documents.shape)
        return Case(one.queries, np.concatenate([one.documents, near]), one.gold)
    return one


SITUATIONS = (
    "one query a document",
    "queries with replacement",
    "queries by Zipf's law",
    "50 queries",
    "an index six times as large",
    "80 % of the answers are there",
    "80 % are there, others in their place",
    "every document twice",
)


def situations(cases: Mapping[tuple[str, str, str], Case], seed: int) -> list[dict[str, Any]]:
    """Report of each situation how often the accuracy is unknown, and how far off it is where it is known."""
    out = []
    for name in SITUATIONS:
        away, share, reasons = [], [], []
        for i, one in enumerate(cases.values()):
            ranking = _situation(one, name, np.random.default_rng([seed, i])).ranking()
            right, estimate = float(ranking.correct.mean()), estimate_accuracy(ranking)
            distinct = len(np.unique(ranking.group[:, 0])) / min(len(ranking), ranking.candidates)  # type: ignore[index]
            share.append(abs(distinct - right))
            if estimate.unknown:
                reasons.append(estimate.unknown)
            else:
                away.append(abs(estimate.value - right))
        row: dict[str, Any] = {"situation": name, "cases": len(share), "unknown": len(reasons)}
        row |= {"mean": float(np.mean(away)) if away else None, "worst": max(away, default=None)}
        out.append(row | {"share_mean": float(np.mean(share)), "reason": reasons[0] if reasons else ""})
    return out


# --- the study ---


def execute(study: Settings, *, reporter: Reporter = Reporter()) -> dict[str, Any]:
    """Encode the corpora, compare, and write `RESULT`."""
    if (study.out / RESULT).exists() and not study.force:
        raise XtError(f"{study.out / RESULT} is there.", "Give --force to replace it, or another --out.")
    opened = with_cache(open_encoder(study.encoder, device=study.device), study.device, say=reporter.say)
    cases: dict[tuple[str, str, str], Case] = {}
    for name in study.corpora:
        corpus = load_corpus(name, data_dir=study.data_dir)
        vectors = encode_corpus(opened.encoder, corpus.pairs, truncate=True, progress=reporter.counter("languages"))
        for b in corpus.pairs:
            some = vectors[b.language]
            few = Encodings(some.foreign[:PAIRS], some.english[:PAIRS], some.tokens, some.truncated)
            for direction in DIRECTIONS:
                texts = (b.foreign[:PAIRS], b.english[:PAIRS])
                cases[corpus.name, b.language, direction] = case(few, texts, direction)
    found = results(cases, study.seed)
    study.out.mkdir(parents=True, exist_ok=True)
    write_json(study.out / RESULT, found)
    return found


def results(cases: Mapping[tuple[str, str, str], Case], seed: int = 0) -> dict[str, Any]:
    """Return both parts of the study."""
    return {"rows": compare(cases), "situations": situations(cases, seed)}


def markdown(found: Mapping[str, Any]) -> str:
    """Return the tables."""
    rows = found["rows"]
    groups = {"all": rows, "known": [r for r in rows if not r["unknown"]]}
    for corpus in dict.fromkeys(r["corpus"] for r in rows):
        groups[corpus] = [r for r in groups["known"] if r["corpus"] == corpus]
    sizes = " | ".join(f"{name}, {len(some)}" for name, some in groups.items())
    lines = [f"| estimate: mean / worst error | {sizes} |", "| --- |" + " --- |" * len(groups)]
    for name in rows[0]["estimates"]:
        away = {k: [abs(r["estimates"][name] - r["accuracy"]) for r in some] for k, some in groups.items()}
        figures = " | ".join(f"{np.mean(a):.3f} / {max(a):.3f}" if a else "–" for a in away.values())
        lines.append(f"| {name} | {figures} |")
    inside = [r["interval"][0] <= r["accuracy"] <= r["interval"][1] for r in groups["known"]]
    lines += ["", f"The accuracy lies in its interval in {sum(inside)} of {len(inside)} cases.", ""]
    lines += ["| situation | cases | unknown | error where known: mean / worst | share of different answers: mean |"]
    lines += ["| --- |" + " --- |" * 4]
    for row in found["situations"]:
        error = "–" if row["mean"] is None else f"{row['mean']:.3f} / {row['worst']:.3f}"
        lines.append(f"| {row['situation']} | {row['cases']} | {row['unknown']} | {error} | {row['share_mean']:.3f} |")
    return "\n".join(lines)
