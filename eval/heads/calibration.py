"""Calibrating trained heads, scored on examples that no fit has seen, in this language or any other.

The unit is the example's id: parallel test sets share ids, so an example and its translations are always in one fold.
The answer stays the one that the head gives; a method says how probable it is that this answer is right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.calibration.apply.heads import (
    LEAST_PROBABILITY,
    Floats,
    HeadCalibrator,
    LabelTemperature,
    OneVsRest,
    VectorScaling,
)
from xt.calibration.fit.heads import (
    LOG_TEMPERATURES,
    WAYS,
    FittedTemperature,
    Items,
    Prior,
    Way,
    event_losses,
    fit_log_temperature,
    fit_temperature,
    pool,
)
from xt.core.errors import XtError
from xt.eval.retrieval.ranking import FOLDS

SOURCE = "eng"
"""The language that zero-shot calibrators are fitted on: that which heads are trained in."""
LEAST = 30
"""Items that a temperature is fitted to at least."""
UNTOLD = "all answers right or all wrong, or nearly so"


@cache
def fold_of(id: str) -> int:
    """Give the fold of an example by its id alone: its translations are in the same one."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:4], "big") % FOLDS


def folds_of(items: Items) -> npt.NDArray[np.int64]:
    """Give the fold of each item, (n,)."""
    return np.array([fold_of(str(id)) for id in items.ids], np.int64)


@dataclass(frozen=True)
class Fitted:
    """A calibrator and the ids of the examples that it has seen, in whichever language."""

    calibrator: HeadCalibrator
    seen: frozenset[str]
    bound: bool = False
    """Whether its temperature lies where the search ends: the items do not tell it."""

    def __call__(self, items: Items) -> Floats:
        """Give the confidence in each answer, (n,).

        Raises XtError when it has seen one of the examples: no number is to come of that.
        """
        leaked = self.seen.intersection(items.ids.tolist())
        if leaked:
            raise XtError(
                f"A calibrator was about to be measured on {len(leaked)} examples that it has seen, or their "
                f"translations (id {min(leaked)!r}).",
                "This is a fault of xt: please report it.",
            )
        return self.calibrator(items.answers)


@dataclass(frozen=True)
class Scored:
    """What a method says of one language's answers."""

    confidence: Floats
    nll: Floats
    """Loss of the right column, or of "the answer is right" where no column is right by itself, (n,) in nats."""
    temperature: float | None = None
    fallback: str = ""
    """The scope that stood in, where the language has too few examples of its own."""
    table: Floats | None = None
    """(n, labels): the probabilities of all labels, where they are labels."""


@dataclass(frozen=True)
class Method:
    """A way to calibrate, applied to every language."""

    key: str
    label: str
    temperature: float | None
    scored: dict[str, Scored]


Fit = Callable[[Items], HeadCalibrator]


@dataclass
class Calibration:
    """The methods of one kind of items over all languages, and what goes with them."""

    methods: list[Method] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)
    """method -> its calibrator (per-language: one each) as JSON, fitted on everything it may see, for serving."""
    notes: list[str] = field(default_factory=list)


def fit(make: Fit, parts: Sequence[Items]) -> Fitted:
    """Fit on the items of some languages together."""
    items = pool(list(parts))
    return Fitted(make(items), frozenset(items.ids.tolist()))


def _losses(items: Items, calibrator: HeadCalibrator, confidence: Floats) -> tuple[Floats, Floats | None]:
    """Give the losses (n,), and the probabilities of all labels where they are labels.

    A calibrator of the answer's probability alone leaves what it does not give the answer to the other columns, in the
    proportions that they have without it, so that its losses compare with those of the others.
    """
    if items.gold is None:
        return event_losses(confidence, items.correct), None
    every = np.arange(len(items))
    if isinstance(calibrator, LabelTemperature | VectorScaling | OneVsRest):
        probabilities = calibrator.probabilities(items.answers)
    else:
        probabilities = np.exp(items.answers.log_softmax())
        probabilities[every, items.answers.chosen] = 0
        others = probabilities.sum(1, keepdims=True)
        probabilities *= (1 - confidence[:, None]) / np.maximum(others, LEAST_PROBABILITY)
        probabilities[every, items.answers.chosen] = confidence
    right = probabilities[every, items.gold]
    return -np.log(np.maximum(right, LEAST_PROBABILITY)), probabilities if items.labels else None


def apply(items: Items, by_fold: Mapping[int, Fitted], fallback: str = "") -> Scored:
    """Score each item with the calibrator of its own fold, which was fitted without that fold."""
    n = len(items)
    confidence, losses = np.empty(n), np.empty(n)
    table: Floats | None = None
    folds = folds_of(items)
    for fold in np.unique(folds).tolist():
        rows = np.flatnonzero(folds == fold)
        some, fitted = items.take(rows), by_fold[fold]
        confidence[rows] = fitted(some)
        losses[rows], probabilities = _losses(some, fitted.calibrator, confidence[rows])
        if probabilities is not None:
            table = np.empty((n, probabilities.shape[1])) if table is None else table
            table[rows] = probabilities
    used = [f.calibrator.temperature for f in by_fold.values() if isinstance(f.calibrator, LabelTemperature)]
    temperature = float(np.exp(np.mean(np.log(used)))) if used else None
    return Scored(confidence, losses, temperature, fallback, table)


def outside_fold(items: Items, fold: int) -> Items:
    """Give the items that are not in a fold: what its calibrators may be fitted on."""
    return items.take(folds_of(items) != fold)


def least_left(parts: Sequence[Items]) -> int:
    """Count the items of some languages that are left without their largest fold."""
    sizes = sum((np.bincount(folds_of(part), minlength=FOLDS) for part in parts), np.zeros(FOLDS, np.int64))
    return int(sizes.sum() - sizes.max())


def calibrate(
    items: Mapping[str, Items],
    *,
    exported: float = 1.0,
    english: Items | None = None,
    ways: Mapping[str, Way] = WAYS,
) -> Calibration:
    """Calibrate one kind of items of several languages by every method, cross-fitted by id.

    Args:
        items: language -> its items, some in each.
        exported: the temperature that an exported head divides by already; 1 for none.
        english: English items to fit zero-shot calibrators on, none of which is a test item or its translation (a dev
            set); without them, the English test items outside an item's fold.
        ways: methods besides temperature.
    """
    out = Calibration()
    fixed = {"uncalibrated": (LabelTemperature(1.0), "softmax of the head's logits")}
    if exported != 1.0:
        fixed["exported"] = (LabelTemperature(exported), f"T = {exported:g}, as the head was exported")
    for key, (calibrator, label) in fixed.items():
        same = dict.fromkeys(range(FOLDS), Fitted(calibrator, frozenset()))
        scored = {code: apply(rows, same) for code, rows in items.items()}
        out.methods.append(Method(key, label, calibrator.temperature, scored))
    one_class = {code for code, rows in items.items() if rows.correct.min() == rows.correct.max()}
    if one_class:
        out.notes.append(
            f"every answer is {'/'.join(sorted({'right' if items[c].correct[0] else 'wrong' for c in one_class}))} in "
            f"{', '.join(sorted(one_class))}: confidence there cannot tell right from wrong, and AUROC is not defined"
        )
    scopes = _scopes(items, english, out.notes)
    for key, (make, name, least, labels_only) in _methods(ways).items():
        if labels_only and not all(rows.labels for rows in items.values()):
            continue  # one scale a label: choices and answers have none
        for scope, parts in scopes.items():
            separate = scope == "zero-shot" and english is not None
            left = sum(map(len, parts)) if separate else least_left(parts)
            if left < least:
                out.notes.append(f"{name}, {scope}: {left} items to fit are fewer than {least}, so it was left out")
                continue
            _cross_fitted(out, key, name, scope, parts, items, make, separate=separate)
    _own_temperatures(out, items)
    return out


def _methods(ways: Mapping[str, Way]) -> dict[str, tuple[Fit, str, int, bool]]:
    rows: dict[str, tuple[Fit, str, int, bool]] = {"": (fit_temperature, "temperature", LEAST, False)}
    return rows | {key: (way.fit, way.label, way.least, way.labels_only) for key, way in ways.items()}


def _scopes(items: Mapping[str, Items], english: Items | None, notes: list[str]) -> dict[str, list[Items]]:
    """Give the items that calibrators for every language are fitted on, by scope."""
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
    out: Calibration,
    key: str,
    name: str,
    scope: str,
    parts: Sequence[Items],
    items: Mapping[str, Items],
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
    out.kept[full] = final.calibrator.to_json()
    number = final.calibrator.temperature if isinstance(final.calibrator, LabelTemperature) else None
    if number is not None and min(abs(np.log(number) - end) for end in LOG_TEMPERATURES) < 0.02:
        out.notes.append(f"{name}, {scope}: T = {number:.3g} lies at the end of the search ({UNTOLD})")
    scored = {code: apply(rows, by_fold) for code, rows in items.items()}
    out.methods.append(Method(full, f"{name} fitted on {where}", number, scored))


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


def shrink(parts: Mapping[str, Items]) -> dict[str, FittedTemperature]:
    """Fit a temperature for each language, drawn to that of all the less it has to tell by itself.

    Maximum a posteriori under `prior_of` the languages' own fits.
    """
    own = {code: fit_log_temperature(part) for code, part in parts.items()}
    prior = prior_of(list(own.values()))
    return {code: fit_log_temperature(part, prior) for code, part in parts.items()}


def _own_temperatures(out: Calibration, items: Mapping[str, Items]) -> None:
    """Add the methods `per-language` and `shrunk`; a language with too few items gets the pooled temperature, noted."""
    enough = {code: rows for code, rows in items.items() if least_left([rows]) >= LEAST}
    few = sorted(set(items) - set(enough))
    if not enough or (few and least_left(list(items.values())) < LEAST):
        out.notes.append(f"per-language, shrunk: a language needs {LEAST} items outside a fold, so they were left out")
        return
    if few:
        out.notes.append(
            f"per-language: {', '.join(few)} have fewer than {LEAST} items to fit, and got the temperature of all "
            "languages"
        )
    by_fold: dict[str, dict[int, Fitted]] = {code: {} for code in items}
    drawn: dict[str, dict[int, Fitted]] = {code: {} for code in items}
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
                by_fold[code][fold] = Fitted(found.calibrator, frozenset(rows.ids.tolist()), found.bound)
            elif pooled is not None:
                by_fold[code][fold] = pooled
        if len(enough) > 1:
            shrunk = shrink({code: rows for code, rows in outside.items() if len(rows)})
            for code, fitted in shrunk.items():
                drawn[code][fold] = Fitted(fitted.calibrator, everyone)
    if bound:
        out.notes.append(
            f"per-language: the temperature of {', '.join(sorted(bound))} lies at the end of the search ({UNTOLD})"
        )
    scored = {c: apply(items[c], folds, "" if c in enough else "pooled") for c, folds in by_fold.items()}
    out.methods.append(Method("per-language", "a temperature for each language", None, scored))
    out.kept["per-language"] = {code: fit_temperature(rows).to_json() for code, rows in enough.items()}
    if len(enough) > 1 and all(len(folds) == FOLDS for folds in drawn.values()):
        scored = {code: apply(items[code], folds) for code, folds in drawn.items()}
        label = "a temperature for each language, drawn to that of all by how little it has"
        out.methods.append(Method("shrunk", label, None, scored))
        out.kept["shrunk"] = {code: found.calibrator.to_json() for code, found in shrink(items).items()}
    else:
        lone = [code for code, folds in drawn.items() if len(folds) < FOLDS] if len(enough) > 1 else []
        why = (
            f"all items of {', '.join(lone)} are in one fold" if lone else f"two languages of {LEAST} items are needed"
        )
        out.notes.append(f"shrunk: {why}, so it was left out")
