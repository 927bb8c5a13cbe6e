"""One encoder on one parallel corpus: retrieval in both directions, calibrated."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xt.calibration.apply.file import SearchFits
from xt.calibration.scoring import Method
from xt.core.data.bitext import Bitext
from xt.core.data.corpus import Corpus
from xt.core.languages import resource_of
from xt.core.reporter import Reporter
from xt.core.results.report import Encoder as EncoderResult
from xt.core.results.report import Retrieval
from xt.eval import groups
from xt.eval.options import CalibrationOptions
from xt.eval.retrieval import conventions
from xt.eval.retrieval import ranking as retrieval
from xt.eval.retrieval.calibration_jobs import CalibrationRequest, calibrate_directions
from xt.eval.retrieval.ranking import DEEP, Ranking
from xt.serve.encoders import OpenedEncoder


@dataclass(frozen=True)
class Evaluation:
    """What evaluating one encoder gave."""

    encoder: EncoderResult
    """The encoder, and what was measured of it."""
    predictions: list[dict[str, Any]]
    calibrators: dict[str, SearchFits]
    """direction -> method -> calibrator, fitted on everything the method may see, for serving."""


def evaluate(
    opened: OpenedEncoder,
    corpus: Corpus,
    *,
    truncate: bool = False,
    pool: int | None = None,
    calibration: CalibrationOptions = CalibrationOptions(),
    given: Mapping[str, SearchFits] | None = None,
    jobs: int = 1,
    reporter: Reporter = Reporter(),
) -> Evaluation:
    """Retrieve in both directions in every language and calibrate.

    Args:
        opened: the encoder, and what a report says of it.
        corpus: the parallel text.
        truncate: cut texts that are too long, and count them, instead of stopping.
        pool: also measure accuracy among so many candidates, drawn at random, the same number in every language.
        calibration: what the maps of confidences are fitted on, and from how many labelled queries a language
            temperatures are measured too.
        given: direction -> method -> what another report fitted, to apply here as it is.
        jobs: processes that calibrate (see `xt.eval.retrieval.calibration_jobs.calibrate_directions`).
        reporter: counts the languages that are encoded, and the steps of the calibration.
    """
    encoder, entry = opened.encoder, opened.entry
    started = time.perf_counter()
    kept = getattr(encoder, "hits", 0)
    vectors = retrieval.encode_corpus(encoder, corpus.pairs, truncate=truncate, progress=reporter.counter("languages"))
    seconds = {"encode": time.perf_counter() - started}
    resources = {b.language: resource_of(b.language) for b in corpus.pairs}
    metrics: dict[str, Any] = {"retrieval": {}, "calibration": {}}
    metrics["truncated"] = sum(v.truncated for v in vectors.values())
    predictions: list[dict[str, Any]] = []
    calibrators: dict[str, SearchFits] = {}
    english = {b.language: b.english for b in corpus.pairs}
    pairs = {b.language: b for b in corpus.pairs}
    ranked = {d: {c: retrieval.rank(b, vectors[c], d, DEEP) for c, b in pairs.items()} for d in retrieval.DIRECTIONS}
    deep = {
        direction: {c: retrieval.rank_texts(pairs[c], vectors[c], direction, r, DEEP) for c, r in rankings.items()}
        for direction, rankings in ranked.items()
    }
    both, of_texts = (
        {direction: {c: r.top() for c, r in rankings.items()} for direction, rankings in of.items()}
        for of in (ranked, deep)
    )
    for direction, rankings in both.items():
        rows = {code: retrieval.scores_of(r) for code, r in rankings.items()}
        for code, ranking in rankings.items():
            rows[code] |= retrieval.by_text(pairs[code], direction, of_texts[direction][code])
            documents = retrieval.texts_of(pairs[code], direction)[1]
            rows[code] |= conventions.figures(ranking, vectors[code], direction, pool, documents)
        metrics["retrieval"][direction] = {"mean": retrieval.means(rows, resources), "languages": rows}
        metrics["retrieval"][direction] |= conventions.section(rows, direction, resources, pool)
        if any(any(row["copies"].values()) for row in rows.values()):
            texts = {code: row["accuracy_by_text"] for code, row in rows.items()}
            metrics["retrieval"][direction]["by_text"] = groups.with_all(texts, resources)
    retrieved = {
        direction: Retrieval.from_json(retrieved_in) for direction, retrieved_in in metrics["retrieval"].items()
    }
    notes = [note for retrieved_in in retrieved.values() for note in retrieved_in.notes]
    notes += copies_note(retrieved)
    if notes:
        metrics["notes"] = list(dict.fromkeys(notes))
    seconds["search"] = time.perf_counter() - started - sum(seconds.values())
    request = CalibrationRequest(opened.temperature, calibration.calibrate_on, calibration.shots, given or {})
    counter = reporter.counter("calibrated")
    calibrated = calibrate_directions(deep, english, resources, request, jobs=jobs, calibrating=counter)
    for direction, result in calibrated.items():
        calibrators[direction] = result.kept
        metrics["calibration"][direction] = result.section
        for name, section in (("none_of_these", result.none_of_these), ("conformal", result.conformal)):
            if section:
                metrics.setdefault(name, {})[direction] = section
        for b in corpus.pairs:
            answers = of_texts[direction][b.language]
            by_index = both[direction][b.language].gold == 0
            predictions += _predictions(b, direction, answers, by_index, result.methods, str(entry.name))
    seconds["calibrate"] = time.perf_counter() - started - sum(seconds.values())
    metrics["seconds"] = seconds
    metrics["kept_vectors"] = getattr(encoder, "hits", 0) - kept
    return Evaluation(EncoderResult.from_json({**entry.to_json(), **metrics}), predictions, calibrators)


def copies_note(retrieved: Mapping[str, Retrieval]) -> list[str]:
    """Warn of texts that are there more than once; the accuracy by text where it differs. Empty without any."""
    parts = []
    for direction, retrieved_in in retrieved.items():
        rows = {code: row for code, row in retrieved_in.languages.items() if row.copies}
        documents = sum(row.copies.documents or 0 for row in rows.values())
        queries = sum(row.copies.queries or 0 for row in rows.values())
        if not rows:
            continue
        both = {c: (row.accuracy or 0.0, row.accuracy_by_text or 0.0) for c, row in rows.items()}
        differences = [
            f"{c} {100 * index:.1f} by index, {100 * text:.1f} by text"
            for c, (index, text) in both.items()
            if abs(index - text) > 1e-12
        ]
        differ = f"accuracy differs: {'; '.join(differences)}" if differences else "accuracy by text is the same"
        repeat = f"{documents} documents and {queries} queries repeat another text ({', '.join(rows)})"
        parts.append(f"warning: {direction}: {repeat}; {differ}")
    if parts:
        parts.append(
            "By index a copy of the right text counts as wrong, as in XTREME and MTEB; to calibration equal texts are "
            "one candidate"
        )
    return parts


def _predictions(
    pairs: Bitext,
    direction: str,
    ranking: Ranking,
    by_index: Any,
    methods: Sequence[Method],
    name: str,
) -> list[dict[str, Any]]:
    """List the answers; `correct`: its text is the gold one's, `correct_by_index`: it is the very sentence."""
    queries, answers = retrieval.texts_of(pairs, direction)
    return [
        {
            "encoder": name,
            "language": pairs.language,
            "direction": direction,
            "query": queries[i],
            "answer": answers[int(ranking.rows[i, 0])],
            "gold": answers[i],
            "correct": bool(ranking.gold[i] == 0),
            "correct_by_index": bool(by_index[i]),
            "gold_position": int(ranking.gold[i]),
            "score": float(ranking.scores[i, 0]),
            **{f"p_{m.key}": float(m.scored[pairs.language].confidence[i]) for m in methods},
        }
        for i in range(len(queries))
    ]
