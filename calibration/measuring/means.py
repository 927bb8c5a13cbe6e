"""Means over languages, each with the same weight, with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from xt.calibration.measuring.resampling import KEYS, POINTS, Floats, interval, lower, upper


def average(
    rows: Mapping[str, Mapping[str, Any]], boots: Mapping[str, Mapping[str, Floats]], members: Iterable[str]
) -> dict[str, Any]:
    """Average the measures of some languages, with intervals from resampling their queries.

    Of the gap, whose sign tells languages that say too much from those that say too little, there are two means:
    `gap` with the signs, and `mean_gap` of the absolute values, in which they cannot offset each other;
    with that go `worst_gap` and `worst_gap_language`, and of the `gap_intervals` languages with an interval those whose
    interval leaves out 0, `gaps_outside`: of 20 calibrated languages one, on average.

    Args:
        rows: language -> what `xt.calibration.measuring.measures.measure` gave.
        boots: language -> what `xt.calibration.measuring.measures.bootstrap_rows` gave, under the same number of
            repeats, and with the ids where languages share sentences.
        members: the languages to average, each with the same weight; a measure that one of them lacks is averaged
            over the others.
    """
    out: dict[str, Any] = {}
    chosen = list(members)
    known = (*KEYS, "nll", *POINTS)
    for key in [k for k in known if any(k in rows[m] for m in chosen)]:
        having = [m for m in chosen if rows[m].get(key) is not None]
        value = out[key] = float(np.mean([rows[m][key] for m in having])) if having else None
        if any(f"{key}_ci" in rows[m] for m in chosen):
            given = all(rows[m].get(f"{key}_ci") is not None for m in having)
            drawn = np.mean([boots[m][key] for m in having], axis=0) if having and given else np.empty(0)
            nulls = [rows[m][f"{key}_null"] for m in having if rows[m].get(f"{key}_null") is not None]
            out[f"{key}_ci"] = interval(value, drawn, low=lower(key), high=upper(key))
            out[f"{key}_null"] = float(np.mean(nulls)) if nulls and len(nulls) == len(having) else None
    if all(rows[m].get("gap") is not None for m in chosen) and chosen:
        out |= _gaps({m: rows[m] for m in chosen}, boots)
        if "gap_null" in out:  # of a mean with signs it says nothing
            out["mean_gap_null"] = out.pop("gap_null")
    return out


def _gaps(rows: Mapping[str, Mapping[str, Any]], boots: Mapping[str, Mapping[str, Floats]]) -> dict[str, Any]:
    """Return how far confidences lie from accuracies over some languages, whatever the direction."""
    sizes = {code: abs(row["gap"]) for code, row in rows.items()}
    worst = max(sizes, key=lambda code: sizes[code])
    mean = float(np.mean(list(sizes.values())))
    out = {"mean_gap": mean, "worst_gap": rows[worst]["gap"], "worst_gap_language": worst}
    intervals = [ci for row in rows.values() if (ci := row.get("gap_ci")) is not None]
    if boots and all("gap" in boots[code] for code in rows):
        drawn = np.mean([np.abs(boots[code]["gap"]) for code in rows], axis=0)
        out["mean_gap_ci"] = interval(mean, drawn) if len(intervals) == len(rows) else None
        out["gaps_outside"] = sum(not low <= 0 <= high for low, high in intervals)
        out["gap_intervals"] = len(intervals)
    return out
