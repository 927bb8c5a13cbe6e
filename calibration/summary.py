"""Measuring calibrated methods: by language, by resource class and overall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from xt.calibration.measuring import measures
from xt.calibration.measuring.clusters import Ids
from xt.calibration.measuring.means import average
from xt.calibration.predictions import Floats
from xt.calibration.scoring import Method, Scored


def summary(
    methods: Sequence[Method],
    resources: Mapping[str, str],
    *,
    repeats: int = measures.REPEATS,
    points: int = 25,
    points_overall: int = 50,
) -> dict[str, Any]:
    """Measure every method: per language, by resource class and overall (means over languages).

    The interval of a mean over languages comes from resampling the sentences, each with its translations
    (`xt.calibration.measuring.clusters`). `ece_excess` is the ECE less its null value, which a perfectly calibrated
    model shows on average; where it is below 0 it counts as 0 in a mean, so that no language makes up for another.
    Slope and intercepts of several languages (`xt.calibration.measuring.level.cox`) are those of all their predictions
    together.

    Args:
        methods: what scored the predictions of some languages.
        resources: language -> resource class.
        repeats: resamples behind an interval.
        points: of the risk-coverage curve of one language.
        points_overall: of that of all languages together.
    """
    out: dict[str, Any] = {}
    for method in methods:
        rows: dict[str, dict[str, Any]] = {}
        boots: dict[str, dict[str, Floats]] = {}
        for code, s in method.scored.items():
            measured, boots[code] = measures.measure_and_draw(
                s.confidence, s.correct, nll=s.nll, ids=s.ids, repeats=repeats
            )
            rows[code] = {
                "n": len(s.correct),
                "accuracy": float(s.correct.mean()),
                "mean_confidence": float(s.confidence.mean()),
                **measured,
                **({"ece_excess": measured["ece"] - measured["ece_null"]} if repeats else {}),
                **_of_labels(s),
                "temperature": s.temperature,
                **({"fallback": s.fallback} if s.fallback else {}),
                **({"estimated_accuracy": s.estimate.to_json()} if s.estimate else {}),
                "reliability": measures.reliability(s.confidence, s.correct),
                "risk_coverage": measures.risk_coverage(s.confidence, s.correct, points=points),
            }
        classes = sorted({resources[code] for code in rows})
        confidence, correct, _ = _together(method, list(rows))
        mean = partial(_mean, method, rows, boots)
        out[method.key] = {
            "label": method.label,
            "temperature": method.temperature,
            "overall": mean(list(rows)),
            "by_resource": {c: mean([x for x in rows if resources[x] == c]) for c in classes},
            "languages": rows,
            "reliability": measures.reliability(confidence, correct),
            "risk_coverage": measures.risk_coverage(confidence, correct, points=points_overall),
        }
    return out


def _of_labels(scored: Scored) -> dict[str, float]:
    """Measure the probabilities of all labels, and how often the likeliest by them is right; empty without labels.

    That may be another than the head's answer: all but temperatures can move one label over another.
    """
    if scored.table is None or scored.gold is None:
        return {}
    likeliest = float((scored.table.argmax(1) == scored.gold).mean())
    return {"classwise_ece": measures.classwise_ece(scored.table, scored.gold), "accuracy_of_likeliest": likeliest}


def _together(method: Method, codes: Sequence[str]) -> tuple[Floats, Floats, Ids | None]:
    """Return confidences, outcomes and ids of several languages in one row each; no ids where one has none."""
    parts = [method.scored[code] for code in codes]
    ids = [s.ids for s in parts if s.ids is not None]
    confidence, correct = (np.concatenate([getattr(s, name) for s in parts]) for name in ("confidence", "correct"))
    return confidence, correct, np.concatenate(ids) if len(ids) == len(parts) else None


def _mean(
    method: Method, rows: Mapping[str, dict[str, Any]], boots: Mapping[str, Any], members: Sequence[str]
) -> dict[str, Any]:
    mean: dict[str, Any] = {"n": sum(rows[m]["n"] for m in members), "languages": len(members)}
    for key in ("accuracy", "mean_confidence", "classwise_ece", "accuracy_of_likeliest"):
        if all(key in rows[m] for m in members):
            mean[key] = float(np.mean([rows[m][key] for m in members]))
    if all("ece_excess" in rows[m] for m in members):
        mean["ece_excess"] = float(np.mean([max(0.0, rows[m]["ece_excess"]) for m in members]))
        mean["worst_ece_excess"] = max(rows[m]["ece_excess"] for m in members)
    fit = vars(measures.cox(*_together(method, members)))
    kept = {key: value for key, value in fit.items() if any(key in rows[m] for m in members)}
    return {**mean, **average(rows, boots, members), **kept}
