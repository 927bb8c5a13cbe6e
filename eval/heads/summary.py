"""What metrics.json holds of a head's calibration: every method measured, and what examples of a language are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.calibration import measures, resampling
from xt.calibration.apply.heads import Floats
from xt.calibration.fit.heads import Items, fit_log_temperature
from xt.eval.heads.calibration import Calibration, Fitted, Scored, apply, outside_fold, prior_of
from xt.eval.retrieval.ranking import FOLDS
from xt.eval.run import resource_of

SHOTS = (16, 50, 100)
"""Examples of a language whose worth is measured."""
DRAWS = 5
"""Random choices of the shots, whose measures are averaged."""
POINTS = 20
"""Of the risk-coverage curve of one language: there are as many curves as methods times languages."""
MANY = 3000
"""Items of a language above which intervals come from fewer resamples."""


# --- how many examples of a language it takes ---


def shots(
    items: Mapping[str, Items], *, counts: Sequence[int] = SHOTS, draws: int = DRAWS, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Measure temperatures that are fitted on k examples of each language: its own, and shrunk to those of the others.

    The k are drawn from outside an item's fold, `draws` times; an example is an id, all words of a sentence are one.
    Languages with fewer are left out, and counted: k -> method -> mean over languages and draws.
    """
    out: dict[str, dict[str, Any]] = {}
    outside = {(c, f): outside_fold(rows, f) for c, rows in items.items() for f in range(FOLDS)}
    ids = {key: np.unique(rows.ids) for key, rows in outside.items()}
    for k in counts:
        able = [code for code in items if all(len(ids[code, fold]) >= k for fold in range(FOLDS))]
        rng = np.random.default_rng([seed, k])
        rows: dict[str, list[dict[str, Any]]] = {"per-language": [], "shrunk": []}
        for _ in range(draws if able else 0):
            own: dict[str, dict[int, Fitted]] = {code: {} for code in able}
            drawn: dict[str, dict[int, Fitted]] = {code: {} for code in able}
            for fold in range(FOLDS):
                some = {}
                for code in able:
                    chosen = rng.choice(ids[code, fold], k, replace=False)
                    some[code] = outside[code, fold].take(np.isin(outside[code, fold].ids, chosen))
                seen = frozenset().union(*(part.ids.tolist() for part in some.values()))
                fits = {code: fit_log_temperature(part) for code, part in some.items()}
                prior = prior_of(list(fits.values()))
                for code, part in some.items():
                    own[code][fold] = Fitted(fits[code].calibrator, frozenset(part.ids.tolist()))
                    drawn[code][fold] = Fitted(fit_log_temperature(part, prior).calibrator, seen)
            rows["per-language"] += [_point(items[code], apply(items[code], own[code])) for code in able]
            rows["shrunk"] += [_point(items[code], apply(items[code], drawn[code])) for code in able]
        if able:
            out[str(k)] = {
                key: {
                    "languages": len(able),
                    "draws": draws,
                    **{m: float(np.mean([r[m] for r in found])) for m in found[0]},
                }
                for key, found in rows.items()
                if key != "shrunk" or len(able) > 1
            }
    return out


def _point(items: Items, scored: Scored) -> dict[str, float]:
    """Give the measures of a language without intervals."""
    confidence, correct = scored.confidence, items.correct
    return {
        "accuracy": float(correct.mean()),
        "mean_confidence": float(confidence.mean()),
        "ece": measures.ece(confidence, correct),
        "ece_null": measures.ece_null(confidence, repeats=50 if len(confidence) <= MANY else 20),
        "nll": float(scored.nll.mean()),
        "brier": measures.brier(confidence, correct),
    }


# --- what metrics.json holds ---


def summary(items: Mapping[str, Items], found: Calibration, *, repeats: int | None = None) -> dict[str, Any]:
    """Measure every method: per language, by resource class and overall (means over languages), and its reliability.

    repeats: resamples behind an interval; None: 200, and 50 where a language has more than `MANY` items.
    """
    if repeats is None:
        repeats = measures.REPEATS if max(map(len, items.values())) <= MANY else measures.REPEATS // 4
    out: dict[str, Any] = {}
    for method in found.methods:
        rows, boots = {}, {}
        for code, s in method.scored.items():
            correct, gold = items[code].correct, items[code].gold
            measured, boots[code] = measures.measure_and_draw(s.confidence, correct, nll=s.nll, repeats=repeats)
            rows[code] = {
                "n": len(correct),
                "accuracy": float(correct.mean()),
                "mean_confidence": float(s.confidence.mean()),
                "temperature": s.temperature,
                **measured,
                **({} if s.table is None or gold is None else _of_labels(s.table, gold)),
                **({"fallback": s.fallback} if s.fallback else {}),
                "reliability": measures.reliability(s.confidence, correct),
                "risk_coverage": measures.risk_coverage(s.confidence, correct, points=POINTS),
            }
        classes: dict[str, list[str]] = {}
        for code in rows:
            classes.setdefault(resource_of(code), []).append(code)
        confidence = np.concatenate([s.confidence for s in method.scored.values()])
        correct = np.concatenate([items[code].correct for code in method.scored])
        out[method.key] = {
            "label": method.label,
            "temperature": method.temperature,
            "overall": _mean(rows, boots, list(rows)),
            "by_resource": {name: _mean(rows, boots, members) for name, members in classes.items()},
            "languages": rows,
            "reliability": measures.reliability(confidence, correct),
            "risk_coverage": measures.risk_coverage(confidence, correct),
        }
    return out


def _of_labels(table: Floats, gold: npt.NDArray[np.int64]) -> dict[str, float]:
    """Measure the probabilities of all labels (n, labels), and how often the likeliest by them is right.

    That may be another than the head's answer: all but temperatures can move one label over another.
    """
    likeliest = float((table.argmax(1) == gold).mean())
    return {"classwise_ece": measures.classwise_ece(table, gold), "accuracy_of_likeliest": likeliest}


def _mean(rows: Mapping[str, dict[str, Any]], boots: Mapping[str, Any], members: Sequence[str]) -> dict[str, Any]:
    mean: dict[str, Any] = {"n": sum(rows[m]["n"] for m in members), "languages": len(members)}
    for key in ("accuracy", "mean_confidence", "classwise_ece", "accuracy_of_likeliest"):
        if all(key in rows[m] for m in members):
            mean[key] = float(np.mean([rows[m][key] for m in members]))
    return mean | resampling.average(rows, boots, members)
