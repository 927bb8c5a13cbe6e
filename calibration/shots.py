"""What labelled examples of a language are worth: its own temperature, and a shrunk one, from k of them.

For every fold the k examples are drawn from the other folds, so that all are scored by fits that saw neither them nor a
translation of them; several draws are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from xt.calibration.fit.heads import fit_log_temperature
from xt.calibration.fit.temperature import fit_shrunk
from xt.calibration.heads import prior_of
from xt.calibration.measuring import measures
from xt.calibration.predictions import FOLDS, Columns, Predictions
from xt.calibration.scoring import AnyCalibrator, Fitted, Scored, score
from xt.calibration.search import CrossFit
from xt.core.errors import XtError

SHOTS = (16, 50, 100)
"""Examples of a language whose worth is measured for heads."""
MANY = 3000
"""Predictions of a language above which null values come from fewer repetitions."""
PER_LANGUAGE, SHRUNK = "per-language", "shrunk"
Sample = Mapping[str, Mapping[int, Columns]]
"""Language -> fold -> columns of the examples sampled from the other folds."""
Fits = Mapping[str, Mapping[str, Mapping[int, AnyCalibrator | Fitted]]]
"""`PER_LANGUAGE` and `SHRUNK` -> language -> fold -> calibrator."""
Points = dict[str, list[tuple[str, dict[str, float]]]]
"""`PER_LANGUAGE` and `SHRUNK` -> language and measures, of every draw in turn."""


def _measured(
    parts: Mapping[str, Predictions], draws: Iterable[Sample], fit: Callable[[Sample], Fits], *, many: float = MANY
) -> Points:
    """Fit to every draw, and measure each language with what was fitted."""
    found: Points = {PER_LANGUAGE: [], SHRUNK: []}
    for sample in draws:
        for key, by_language in fit(sample).items():
            for code, by_fold in by_language.items():
                repeats = 50 if len(parts[code]) <= many else 20
                found[key].append((code, _point(score(parts[code], by_fold), repeats)))
    return found


def _point(scored: Scored, repeats: int) -> dict[str, float]:
    """Return the measures of a language without intervals."""
    confidence, correct = scored.confidence, scored.correct
    return {
        "accuracy": float(correct.mean()),
        "mean_confidence": float(confidence.mean()),
        "mean_gap": abs(measures.gap(confidence, correct)),
        "ece": measures.ece(confidence, correct),
        "ece_null": measures.ece_null(confidence, repeats=repeats),
        "nll": float(scored.nll.mean()),
        "brier": measures.brier(confidence, correct),
    }


# --- of a search ---


def of_search(
    rankings: Mapping[str, Predictions],
    shots: Sequence[int],
    *,
    draws: int = 3,
    seed: int = 0,
    known: Mapping[Any, Any] | None = None,
) -> dict[str, Any]:
    """Measure ECE with k labelled queries a language: {"16": {"per-language": row, "shrunk": row}, ...}.

    A row has the means over languages and draws of |mean confidence - accuracy|, ece, ece_null and ece_excess (below 0
    it counts as 0), the largest gap and excess of a language, and the number of languages; those with fewer than k
    queries outside of any fold are left out, and named; where nothing is known that a temperature could be shrunk
    towards, all are, and `note` has the reason. `known`: of the fits of the same rankings
    (`xt.calibration.search.CrossFit.known`), where they have been made.
    """
    if any(k < 1 for k in shots):
        raise XtError(f"Shots of {min(shots)} queries cannot be drawn.", "Give numbers of at least 1.")
    fits = CrossFit(rankings, known=known)
    return {str(k): _of_search(fits, k, draws, seed) for k in sorted(set(shots))}


def _of_search(fits: CrossFit, k: int, draws: int, seed: int) -> dict[str, Any]:
    try:
        for code in fits.rankings:
            for fold in range(FOLDS):
                fits.prior(code, fold)
    except XtError as error:
        return {key: {**_row({}, list(fits.rankings)), "note": error.message} for key in (PER_LANGUAGE, SHRUNK)}
    outside = {c: {f: np.flatnonzero(r.outside(f)) for f in range(FOLDS)} for c, r in fits.rankings.items()}
    lacking = [code for code, by_fold in outside.items() if min(map(len, by_fold.values())) < k]

    def draw(number: int) -> Sample:
        sample = {}
        for code in outside:
            if code not in lacking:
                random = np.random.default_rng([seed, number, k])
                sample[code] = {f: random.choice(rows, k, replace=False) for f, rows in outside[code].items()}
        return sample

    def fit(sample: Sample) -> Fits:
        found: dict[str, dict[str, dict[int, AnyCalibrator | Fitted]]] = {PER_LANGUAGE: {}, SHRUNK: {}}
        for code, by_fold in sample.items():
            ranking = fits.rankings[code]
            assert ranking.gold is not None
            for key in found:
                folds = found[key][code] = {}
                for fold, rows in by_fold.items():
                    spread = fits.spread(code, fold) if key == SHRUNK else float("inf")
                    prior = fits.prior(code, fold)
                    folds[fold] = fit_shrunk(ranking.scores[rows], ranking.gold[rows], prior, spread)
        return found

    points = _measured(fits.rankings, map(draw, range(draws)), fit, many=float("inf"))
    return {key: _row(_by_language(found), lacking) for key, found in points.items()}


def _by_language(found: Sequence[tuple[str, dict[str, float]]]) -> dict[str, list[tuple[float, float, float]]]:
    out: dict[str, list[tuple[float, float, float]]] = {}
    for code, point in found:
        out.setdefault(code, []).append((point["ece"], point["ece_null"], point["mean_gap"]))
    return out


def _row(found: Mapping[str, Sequence[tuple[float, float, float]]], lacking: Sequence[str]) -> dict[str, Any]:
    if not found:
        return {"languages": 0, "left_out": list(lacking)}
    means = {code: np.mean(rows, axis=0) for code, rows in found.items()}
    ece, null, gap = np.array(list(means.values())).T
    excess = {code: float(row[0] - row[1]) for code, row in means.items()}
    return {
        "mean_gap": float(gap.mean()),
        "worst_gap": float(gap.max()),
        "ece": float(ece.mean()),
        "ece_null": float(null.mean()),
        "ece_excess": float(np.maximum(ece - null, 0).mean()),
        "worst_ece_excess": max(excess.values()),
        "languages": len(means),
        "left_out": list(lacking),
        "by_language": excess,
    }


# --- of heads ---


def of_heads(
    items: Mapping[str, Predictions], *, counts: Sequence[int] = SHOTS, draws: int = 5, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Measure temperatures that are fitted on k examples of each language: its own, and shrunk to those of the others.

    The k are drawn from outside an item's fold, `draws` times; an example is an id, all words of a sentence are one.
    Languages with fewer are left out, and counted: k -> method -> mean over languages and draws.
    """
    out: dict[str, dict[str, Any]] = {}
    outside = {(c, f): np.flatnonzero(rows.outside(f)) for c, rows in items.items() for f in range(FOLDS)}
    ids = {(c, f): np.unique(items[c].ids[rows]) for (c, f), rows in outside.items()}
    for k in counts:
        able = [code for code in items if all(len(ids[code, fold]) >= k for fold in range(FOLDS))]
        if not able:
            continue
        random = np.random.default_rng([seed, k])

        def draw(number: int, k: int = k, able: Sequence[str] = able, random: np.random.Generator = random) -> Sample:
            sample: dict[str, dict[int, Columns]] = {code: {} for code in able}
            for fold in range(FOLDS):
                for code in able:
                    chosen = random.choice(ids[code, fold], k, replace=False)
                    rows = outside[code, fold]
                    sample[code][fold] = rows[np.isin(items[code].ids[rows], chosen)]
            return sample

        points = _measured(items, map(draw, range(draws)), lambda sample: _fit_heads(items, sample))
        out[str(k)] = {
            key: {
                "languages": len(able),
                "draws": draws,
                **{name: float(np.mean([point[name] for _, point in found])) for name in found[0][1]},
            }
            for key, found in points.items()
            if key != SHRUNK or len(able) > 1
        }
    return out


def _fit_heads(items: Mapping[str, Predictions], sample: Sample) -> Fits:
    found: dict[str, dict[str, dict[int, AnyCalibrator | Fitted]]] = {
        key: {c: {} for c in sample} for key in (PER_LANGUAGE, SHRUNK)
    }
    for fold in range(FOLDS):
        some = {code: items[code].take(by_fold[fold]) for code, by_fold in sample.items()}
        seen = frozenset().union(*(part.ids.tolist() for part in some.values()))
        fits = {code: fit_log_temperature(part) for code, part in some.items()}
        prior = prior_of(list(fits.values()))
        for code, part in some.items():
            found[PER_LANGUAGE][code][fold] = Fitted(fits[code].calibrator, frozenset(part.ids.tolist()))
            found[SHRUNK][code][fold] = Fitted(fit_log_temperature(part, prior).calibrator, seen)
    return found
