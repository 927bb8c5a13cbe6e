"""Calibrating ranked retrieval: the chance that the document found first is relevant.

A query may have several relevant documents and a document may answer none, so what holds in parallel text (one right
candidate each: `xt.calibration.accuracy`) does not; and a temperature, which shares one probability out among the
candidates, says too little where several are right. Platt's map on margin features learns the level from judgements
instead. Everything is cross-fitted by query; translations of a query share a fold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from xt.calibration.apply.file import SearchFits
from xt.calibration.methods import PREFERRED, RANKED
from xt.calibration.predictions import Predictions
from xt.calibration.scoring import Method
from xt.calibration.search import calibrate as calibrate_search
from xt.calibration.summary import summary
from xt.core.languages import resource_of
from xt.eval.ranked.search import Ranked, query_key

DIRECTION = "queries-documents"
"""The name under which calibration.json and the report keep it."""


@dataclass(frozen=True)
class RankedCalibration:
    """What calibrating a ranking gave."""

    section: dict[str, Any]
    """direction -> the methods and their measures, as an encoder's `calibration` in metrics.json."""
    kept: dict[str, SearchFits]
    """Direction -> method -> what it fitted, as calibration.json holds it."""
    predictions: list[dict[str, Any]]
    """Those of the ranking, each with `probability`, and `p_<method>` of every method."""


def calibrate(
    result: Ranked,
    temperature: float | None,
    *,
    calibrate_on: str | None = None,
    given: Mapping[str, SearchFits] | None = None,
    calibrating: Callable[[int, int, str], None] | None = None,
) -> RankedCalibration:
    """Calibrate the rankings of a collection, every method that judgements of several documents allow.

    Args:
        result: the ranking; nothing of it is changed.
        temperature: the softmax temperature of the encoder's own training, where known.
        calibrate_on: what the maps are fitted on (see `xt.calibration.search.calibrate`).
        given: direction -> method -> what another report fitted, to apply here as it is.
        calibrating: called for every step before it is made.

    A language in which a query has no document to be compared with is left out, and named in the notes.
    """
    compared = {code: bool(np.isfinite(r.scores[:, 0]).all()) for code, r in result.rankings.items()}
    rankings = {code: _predictions(result, code) for code in compared if compared[code]}
    bare = [code for code in compared if not compared[code]]
    lost = [f"not calibrated: {', '.join(bare)}: a query has no document to be compared with"] if bare else []
    progress = calibrating or (lambda *_: None)
    progress(0, 2, "fits")
    with threadpool_limits(1, user_api="blas"):
        calibrated = calibrate_search(
            rankings, temperature, one_to_one=False, calibrate_on=calibrate_on, given=(given or {}).get(DIRECTION)
        )
        progress(1, 2, "measures")
        measured = calibrated.methods if rankings else []
        methods = summary(measured, {code: resource_of(code) for code in rankings})
    progress(2, 2, "")
    fitted_on = list(calibrated.kept["zero-shot"].fitted_on) if "zero-shot" in calibrated.kept else []
    section = {DIRECTION: {"fit_languages": fitted_on, "methods": methods, "notes": [*lost, *calibrated.notes]}}
    predictions = _with_probabilities(result.predictions, calibrated.methods)
    return RankedCalibration(section, {DIRECTION: calibrated.kept}, predictions)


def _predictions(result: Ranked, code: str) -> Predictions:
    """Return the ranking of a language as calibration reads it."""
    ids = [query_key(str(row["id"])) for row in result.predictions if row["language"] == code]
    return result.rankings[code].predictions(code, ids)


def _with_probabilities(predictions: Sequence[dict[str, Any]], methods: Sequence[Method]) -> list[dict[str, Any]]:
    """Put each method's probability into the predictions, whose order is that of the queries."""
    chosen = next(key for key in PREFERRED[RANKED] if any(m.key == key for m in methods))
    seen: dict[str, int] = {}
    out = []
    for row in predictions:
        i = seen[row["language"]] = seen.get(row["language"], -1) + 1
        if row["language"] not in methods[0].scored:
            out.append(dict(row))
            continue
        p = {f"p_{m.key}": float(m.scored[row["language"]].confidence[i]) for m in methods}
        out.append({**row, **p, "probability": p[f"p_{chosen}"]})
    return out
