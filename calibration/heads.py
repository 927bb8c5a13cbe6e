"""Calibrating trained heads, scored on examples that no fit has seen, in this language or any other.

The unit is the example's id: parallel test sets share ids, so an example and its translations are always in one fold.
The answer stays the one that the head gives; a method says how probable it is that this answer is right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from xt.calibration.apply.file import MethodFit
from xt.calibration.apply.heads import HeadCalibrator, LabelTemperature
from xt.calibration.fit.heads import (
    HEAD_METHODS,
    LOG_TEMPERATURES,
    FittedTemperature,
    HeadMethod,
    Prior,
    fit_log_temperature,
    fit_temperature,
)
from xt.calibration.methods import METHODS
from xt.calibration.predictions import FOLDS, Predictions, pool, sizes_by_fold
from xt.calibration.scoring import Calibrated, Fitted, Method, score

SOURCE = "eng"
"""The language that zero-shot calibrators are fitted on: that which heads are trained in."""
MIN_ITEMS = 30
"""Predictions that a temperature is fitted to at least."""
DEGENERATE = "all answers right or all wrong, or nearly so"


@cache
def fold_of(id: str) -> int:
    """Return the fold of an example by its id alone: its translations are in the same one."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:4], "big") % FOLDS


def folds_of(ids: Iterable[object]) -> npt.NDArray[np.int64]:
    """Return the fold of each id, (n,)."""
    return np.array([fold_of(str(id)) for id in ids], np.int64)


Fit = Callable[[Predictions], HeadCalibrator]


def fit(make: Fit, parts: Sequence[Predictions]) -> Fitted:
    """Fit on the items of some languages together."""
    items = pool(list(parts))
    return Fitted(make(items), frozenset(items.ids.tolist()))


def outside_fold(items: Predictions, fold: int) -> Predictions:
    """Return the items that are not in a fold: what its calibrators may be fitted on."""
    return items.take(items.outside(fold))


def least_left(parts: Sequence[Predictions]) -> int:
    """Count the items of some languages that are left without their largest fold."""
    sizes = sizes_by_fold(parts)
    return int(sizes.sum() - sizes.max())


def calibrate(
    items: Mapping[str, Predictions],
    *,
    exported: float = 1.0,
    english: Predictions | None = None,
    methods: Mapping[str, HeadMethod] = HEAD_METHODS,
) -> Calibrated:
    """Calibrate one kind of items of several languages by every method, cross-fitted by id.

    Args:
        items: language -> its items, some in each.
        exported: the temperature that an exported head divides by already; 1 for none.
        english: English items to fit zero-shot calibrators on, none of which is a test item or its translation (a dev
            set); without them, the English test items outside an item's fold.
        methods: methods besides temperature.
    """
    out = Calibrated()
    fixed = {"uncalibrated": LabelTemperature(1.0)}
    if exported != 1.0:
        fixed["exported"] = LabelTemperature(exported)
    for key, calibrator in fixed.items():
        same = dict.fromkeys(range(FOLDS), Fitted(calibrator, frozenset()))
        scored = {code: score(rows, same) for code, rows in items.items()}
        out.methods.append(Method(key, METHODS[key].titled(temperature=exported), calibrator.temperature, scored))
    one_class = {code for code, rows in items.items() if rows.correct.min() == rows.correct.max()}
    if one_class:
        out.notes.append(
            f"every answer is {'/'.join(sorted({'right' if items[c].correct[0] else 'wrong' for c in one_class}))} in "
            f"{', '.join(sorted(one_class))}: confidence there cannot tell right from wrong, and AUROC is not defined"
        )
    scopes = _scopes(items, english, out.notes)
    for key, (make, name, min_items, labels_only) in _methods(methods).items():
        if labels_only and not all(rows.labels for rows in items.values()):
            continue  # one scale a label: choices and answers have none
        for scope, parts in scopes.items():
            separate = scope == "zero-shot" and english is not None
            left = sum(map(len, parts)) if separate else least_left(parts)
            if left < min_items:
                out.notes.append(f"{name}, {scope}: {left} items to fit are fewer than {min_items}, so it was left out")
                continue
            _cross_fitted(out, key, name, scope, parts, items, make, separate=separate)
    _own_temperatures(out, items)
    return out


def _methods(methods: Mapping[str, HeadMethod]) -> dict[str, tuple[Fit, str, int, bool]]:
    rows: dict[str, tuple[Fit, str, int, bool]] = {"": (fit_temperature, "temperature", MIN_ITEMS, False)}
    return rows | {key: (m.fit, m.label, m.min_items, m.labels_only) for key, m in methods.items()}


def _scopes(
    items: Mapping[str, Predictions], english: Predictions | None, notes: list[str]
) -> dict[str, list[Predictions]]:
    """Return the items that calibrators for every language are fitted on, by scope."""
    scopes = {}
    if english is not None:
        scopes["zero-shot"] = [english]
    elif SOURCE in items:
        scopes["zero-shot"] = [items[SOURCE]]
    else:
        notes.append("there is no English among the languages, and no English dev set: nothing is fitted zero-shot")
    if len(items) > 1 or not scopes:
        scopes["pooled"] = list(items.values())
    return scopes


def _cross_fitted(
    out: Calibrated,
    key: str,
    name: str,
    scope: str,
    parts: Sequence[Predictions],
    items: Mapping[str, Predictions],
    make: Fit,
    *,
    separate: bool,
) -> None:
    """Add one method: fitted without each fold in turn, or once, on items that are none of those measured."""
    final = fit(make, parts)
    if separate:
        by_fold = dict.fromkeys(range(FOLDS), Fitted(final.calibrator, frozenset()))
    else:
        by_fold = {fold: fit(make, [outside_fold(part, fold) for part in parts]) for fold in range(FOLDS)}
    where = ("English dev" if separate else "English") if scope == "zero-shot" else "all languages"
    full = scope if not key else key if scope == "pooled" else f"{key}-{scope}"
    out.kept[full] = MethodFit(final.calibrator)
    number = final.calibrator.temperature if isinstance(final.calibrator, LabelTemperature) else None
    if number is not None and min(abs(np.log(number) - end) for end in LOG_TEMPERATURES) < 0.02:
        out.notes.append(f"{name}, {scope}: T = {number:.3g} lies at the end of the search ({DEGENERATE})")
    scored = {code: score(rows, by_fold) for code, rows in items.items()}
    label = f"{METHODS[key].title} fitted on {where}" if key else METHODS[scope].titled(where=where)
    out.methods.append(Method(full, label, number, scored))


# --- temperatures of single languages ---


def prior_of(fits: Sequence[FittedTemperature]) -> Prior:
    """Estimate how log temperatures vary over languages: their mean, and the variance beyond that of their estimates.

    Method of moments of DerSimonian & Laird 1986 (Controlled Clinical Trials 7, section 2), as empirical Bayes uses it.
    Fits that the items do not tell (at a bound, or flat) are left out; without two others the variance is 0 and the
    mean that of all.
    """
    known = [f for f in fits if not f.bound and np.isfinite(f.variance) and f.variance > 0]
    if len(known) < 2:
        return Prior(float(np.mean([f.log for f in known or fits])), 0.0)
    logs = np.array([f.log for f in known])
    weights = 1 / np.array([f.variance for f in known])
    mean = float((weights * logs).sum() / weights.sum())
    excess = float((weights * (logs - mean) ** 2).sum()) - (len(logs) - 1)
    variance = max(0.0, excess / float(weights.sum() - (weights**2).sum() / weights.sum()))
    both = 1 / (1 / weights + variance)
    return Prior(float((both * logs).sum() / both.sum()), variance)


def shrink(parts: Mapping[str, Predictions]) -> dict[str, FittedTemperature]:
    """Fit a temperature for each language, shrunk towards that of all the less it has to tell by itself.

    Maximum a posteriori under `prior_of` the languages' own fits.
    """
    own = {code: fit_log_temperature(part) for code, part in parts.items()}
    prior = prior_of(list(own.values()))
    return {code: fit_log_temperature(part, prior) for code, part in parts.items()}


def _own_temperatures(out: Calibrated, items: Mapping[str, Predictions]) -> None:
    """Add the methods `per-language` and `shrunk`; a language with too few items gets the pooled temperature, noted."""
    enough = {code: rows for code, rows in items.items() if least_left([rows]) >= MIN_ITEMS}
    few = sorted(set(items) - set(enough))
    if not enough or (few and least_left(list(items.values())) < MIN_ITEMS):
        out.notes.append(
            f"per-language, shrunk: a language needs {MIN_ITEMS} items outside a fold, so they were left out"
        )
        return
    if few:
        out.notes.append(
            f"per-language: {', '.join(few)} have fewer than {MIN_ITEMS} items to fit, and got the temperature of all "
            "languages"
        )
    by_fold: dict[str, dict[int, Fitted]] = {code: {} for code in items}
    towards: dict[str, dict[int, Fitted]] = {code: {} for code in items}
    bound: set[str] = set()
    everyone = frozenset[str]()
    for fold in range(FOLDS):
        outside = {code: outside_fold(rows, fold) for code, rows in items.items()}
        everyone = frozenset().union(*(rows.ids.tolist() for rows in outside.values()))
        pooled = fit(fit_temperature, list(outside.values())) if few else None
        for code, rows in outside.items():
            if code in enough:
                found = fit_log_temperature(rows)
                bound |= {code} if found.bound else set()
                by_fold[code][fold] = Fitted(found.calibrator, frozenset(rows.ids.tolist()))
            elif pooled is not None:
                by_fold[code][fold] = pooled
        if len(enough) > 1:
            shrunk = shrink({code: rows for code, rows in outside.items() if len(rows)})
            for code, fitted in shrunk.items():
                towards[code][fold] = Fitted(fitted.calibrator, everyone)
    if bound:
        out.notes.append(
            f"per-language: the temperature of {', '.join(sorted(bound))} lies at the end of the search ({DEGENERATE})"
        )
    scored = {c: score(items[c], folds, fallback="" if c in enough else "pooled") for c, folds in by_fold.items()}
    out.methods.append(Method("per-language", METHODS["per-language"].title, None, scored))
    out.kept["per-language"] = MethodFit(languages={code: fit_temperature(rows) for code, rows in enough.items()})
    if len(enough) > 1 and all(len(folds) == FOLDS for folds in towards.values()):
        scored = {code: score(items[code], folds) for code, folds in towards.items()}
        label = METHODS["shrunk"].titled(where="that of all by how little it has")
        out.methods.append(Method("shrunk", label, None, scored))
        out.kept["shrunk"] = MethodFit(languages={code: found.calibrator for code, found in shrink(items).items()})
    else:
        lone = [code for code, folds in towards.items() if len(folds) < FOLDS] if len(enough) > 1 else []
        why = (
            f"all items of {', '.join(lone)} are in one fold"
            if lone
            else f"two languages of {MIN_ITEMS} items are needed"
        )
        out.notes.append(f"shrunk: {why}, so it was left out")
