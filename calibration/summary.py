"""Measuring calibrated methods: by language, by resource class and overall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xt.calibration import measures
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

    The interval of a mean over languages comes from resampling the predictions inside each language. `ece_excess`, of a
    search, is the ECE less its null value, which a perfectly calibrated model shows on average.

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
            measured, boots[code] = measures.measure_and_draw(s.confidence, s.correct, nll=s.nll, repeats=repeats)
            rows[code] = {
                "n": len(s.correct),
                "accuracy": float(s.correct.mean()),
                "mean_confidence": float(s.confidence.mean()),
                **measured,
                **({"ece_excess": measured["ece"] - measured["ece_null"]} if s.none is not None else {}),
                **_of_labels(s),
                "temperature": s.temperature,
                **({"fallback": s.fallback} if s.fallback else {}),
                **({"estimated_accuracy": s.estimate.to_json()} if s.estimate else {}),
                "reliability": measures.reliability(s.confidence, s.correct),
                "risk_coverage": measures.risk_coverage(s.confidence, s.correct, points=points),
            }
        classes = sorted({resources[code] for code in rows})
        confidence = np.concatenate([s.confidence for s in method.scored.values()])
        correct = np.concatenate([s.correct for s in method.scored.values()])
        out[method.key] = {
            "label": method.label,
            "temperature": method.temperature,
            "overall": _mean(rows, boots, list(rows)),
            "by_resource": {c: _mean(rows, boots, [x for x in rows if resources[x] == c]) for c in classes},
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


def _mean(rows: Mapping[str, dict[str, Any]], boots: Mapping[str, Any], members: Sequence[str]) -> dict[str, Any]:
    mean: dict[str, Any] = {"n": sum(rows[m]["n"] for m in members), "languages": len(members)}
    for key in ("accuracy", "mean_confidence", "ece_excess", "classwise_ece", "accuracy_of_likeliest"):
        if all(key in rows[m] for m in members):
            mean[key] = float(np.mean([rows[m][key] for m in members]))
    if "ece_excess" in mean:
        mean["worst_ece_excess"] = max(rows[m]["ece_excess"] for m in members)
    return mean | measures.average(rows, boots, members)
