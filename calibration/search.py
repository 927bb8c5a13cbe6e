"""Calibrating a search, every method and scope; a fit scores no query that it saw, nor a translation of one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np

from xt.calibration.accuracy import PredictedTemperature, estimate_accuracy, predict_temperature
from xt.calibration.apply.estimate import AccuracyEstimate
from xt.calibration.apply.file import MethodFit, SearchFits
from xt.calibration.apply.retrieval import Calibrator, Floats, Rescaled, RetrievalTemperature
from xt.calibration.fit.maps import MAPS, fit_map
from xt.calibration.fit.temperature import MIN_QUERIES, fit_shrunk, fit_temperature, information
from xt.calibration.methods import METHODS, PARALLEL, SHARED, names
from xt.calibration.predictions import FOLDS, Predictions, pool, sizes_by_fold
from xt.calibration.scoring import Calibrated, Method, score
from xt.core import languages
from xt.core.errors import XtError, unknown

SOURCES = ("deu", "fra", "spa", "rus", "cmn")
"""High-resource languages that the zero-shot scope is fitted on."""
MAP_SCOPES = names(PARALLEL, SHARED)
"""What the maps of confidences may be fitted on."""
MIN_SPREAD = 0.03
"""Least spread of log T between languages that a shrunk temperature assumes."""


def fit_excluding(rankings: Sequence[Predictions], fold: int | Sequence[int] | None) -> RetrievalTemperature:
    """Fit on all queries of some languages but those of one fold, or of several (None: on all)."""
    some = _outside(rankings, fold)
    return fit_temperature(some.scores, some.gold)


def _outside(rankings: Sequence[Predictions], fold: int | Sequence[int] | None) -> Predictions:
    return pool([r.take(r.outside(fold)) for r in rankings])


def apply_rows(calibrator: Calibrator, ranking: Predictions, rows: Any) -> Floats:
    """Return the probabilities of the candidates of some queries, (rows, k), without that of "none of these"."""
    return calibrator(ranking.scores[rows])[:, :-1]


ESTIMATE, PREDICTED, SPREADS = "estimate", "predicted", "spreads"
TOO_FEW = "too few queries"
NOT_ONE_TO_ONE = "it needs one right candidate for every query, and one query for every candidate"
T = TypeVar("T")


class CrossFit:
    """The fits of one direction that several methods share, by fold; each is made once, when it is requested."""

    def __init__(
        self,
        rankings: Mapping[str, Predictions],
        *,
        one_to_one: bool = True,
        known: Mapping[Any, Any] | None = None,
    ) -> None:
        """Take the rankings of a direction.

        Where not every query has one answer and every candidate one query, no accuracy is predicted. `known`: what
        `known` of the same fits gave in another process.
        """
        self.rankings = rankings
        self.one_to_one = one_to_one
        self.sources = [c for c in rankings if is_source(c)]
        usable = self.sources if enough([rankings[c] for c in self.sources]) else []
        self.base = usable or list(rankings)
        """What a language without labels of its own learns from: the sources, all languages where they are too few."""
        self._fits: dict[Any, Any] = dict(known or {})

    def _once(self, key: Any, make: Callable[[], T]) -> T:
        if key not in self._fits:
            self._fits[key] = make()
        return cast(T, self._fits[key])

    def known(self) -> dict[Any, Any]:
        """Return what has been found of priors and spreads, the small and costly part."""
        return {key: value for key, value in self._fits.items() if key[0] in (ESTIMATE, PREDICTED, SPREADS)}

    def over(self, codes: Sequence[str], fold: int | None) -> RetrievalTemperature:
        """Return one temperature of some languages."""
        key = (tuple(codes), fold)
        return self._once(key, lambda: fit_excluding([self.rankings[c] for c in codes], fold))

    def estimate(self, code: str) -> AccuracyEstimate:
        """Return the accuracy of a language, estimated without a label, or why it is unknown.

        Unknown too where the base is too small for a score of "none of these".
        """
        if self.one_to_one and not enough(
            [self.rankings[c] for c in self.base]
        ):  # no score of "none of these" can be fitted
            return AccuracyEstimate.refuse(TOO_FEW)
        return self.unlabelled(code)

    def unlabelled(self, code: str) -> AccuracyEstimate:
        """Return the same where nothing has to be fitted to these rankings."""
        if not self.one_to_one:
            return AccuracyEstimate.refuse(NOT_ONE_TO_ONE)
        return self._once((ESTIMATE, code), lambda: estimate_accuracy(self.rankings[code]))

    def predicted(self, code: str, fold: int | None) -> PredictedTemperature:
        """Return the temperature of a language without a label of it; XtError where its accuracy is unknown."""
        self.estimate(code).check()
        none = self.over(self.base, fold).none_score
        make = partial(predict_temperature, self.estimate(code), self.rankings[code], none)
        return self._once((PREDICTED, code, fold), make)

    def prior(self, code: str, fold: int | None) -> RetrievalTemperature:
        """Return a language's temperature as known without its labels: the predicted one, or that of the base."""
        if self.estimate(code).unknown:
            return self.over(self.base, fold)
        return self.predicted(code, fold).calibrator

    def spread(self, code: str, fold: int | None) -> float:
        """Return how far the other languages' own log T lie from their priors, the sampling error taken off."""

        def make() -> dict[str, tuple[float, float]]:
            """The square of that, and the sampling variance, of every language with enough queries."""
            table = {}
            for other in (c for c, r in self.rankings.items() if enough([r])):
                own, ranking = self.over([other], fold), self.rankings[other]
                away = math.log(own.temperature / self.prior(other, fold).temperature)
                held = information(own, ranking.scores[ranking.outside(fold)])
                table[other] = min(1.0, away**2), 1 / max(held, 1.0)
            return table

        others = [pair for other, pair in self._once((SPREADS, fold), make).items() if other != code]
        if not others:
            return 0.2
        square, noise = np.mean(others, axis=0)
        return math.sqrt(max(MIN_SPREAD**2, float(square - noise)))

    def shrunk(self, code: str, fold: int | None) -> RetrievalTemperature:
        """Return a language's own temperature, shrunk towards its prior."""
        ranking = self.rankings[code]
        assert ranking.gold is not None
        keep = ranking.outside(fold)
        prior, spread = self.prior(code, fold), self.spread(code, fold)
        make = partial(fit_shrunk, ranking.scores[keep], ranking.gold[keep], prior, spread)
        return self._once(("shrunk", code, fold), make)


def calibrate(
    rankings: Mapping[str, Predictions],
    training_temperature: float | None,
    *,
    one_to_one: bool = True,
    calibrate_on: str | None = None,
    given: SearchFits | None = None,
) -> Calibrated:
    """Apply every method to every language; give the methods and what is kept for serving.

    - `cosine` (T = 1) and `training` (the temperature of the encoder's own training, where known) need no fit.
    - `zero-shot`: one temperature, fitted on `SOURCES`; `pooled`: on all languages; `per-language`: on each itself.
    - `predicted`: a temperature for each language, from its accuracy estimated without a label
      (`xt.calibration.accuracy`); where that is unknown the zero-shot one, and the row says so; `shrunk`: its own,
      shrunk towards that.
    - `platt`, `isotonic`, `histogram`, `beta`: maps of the confidence that one temperature gives.
    - `given-...`: what another report kept, which saw nothing of this corpus.

    What is fitted is cross-fitted by the English sentence: no calibrator scores a query, or a translation of it, that
    it saw. What cannot be fitted is left out, and named in the notes with the reason; nothing of it is an error.

    Args:
        rankings: language -> ranking, of one direction.
        training_temperature: of the encoder.
        one_to_one: every query has one right candidate and every candidate one query; else nothing is predicted.
        calibrate_on: what the maps are fitted on, "zero-shot" or "pooled"; None: zero-shot where it can be had.
        given: what another report fitted in the same direction; `zero-shot`, `pooled`, `predicted` and the maps of it
            are applied.
    """
    if calibrate_on is not None and calibrate_on not in MAP_SCOPES:
        raise unknown("scope", calibrate_on, MAP_SCOPES)
    results = _Methods(CrossFit(rankings, one_to_one=one_to_one))
    results.add_fixed("cosine", METHODS["cosine"].title, lambda c: RetrievalTemperature(1.0), 1.0)
    if training_temperature:
        trained = RetrievalTemperature(training_temperature)
        title = METHODS["training"].titled(temperature=training_temperature)
        results.add_fixed("training", title, lambda c: trained, training_temperature)
    results.add_temperatures()
    results.attempt("predicted", results.add_predicted)
    results.add_per_language()
    results.attempt("shrunk", results.add_shrunk)
    results.add_maps(calibrate_on)
    for key, value in _given(given or {}).items():
        results.add_fixed(f"given-{key}", f"{key}, as another corpus gave it", value, None)
    if given and "predicted" in given:
        results.attempt("given-predicted", partial(results.add_given_predicted, given))
    return results.calibrated()


class _Methods:
    """The methods of one direction, fitted one after the other; what cannot be fitted is a note."""

    def __init__(self, fits: CrossFit) -> None:
        self.fits, self.rankings = fits, fits.rankings
        self.methods: list[Method] = []
        self.kept: dict[str, MethodFit[Calibrator]] = {}
        self.notes: list[str] = []
        scopes = {"zero-shot": fits.sources, "pooled": list(fits.rankings)}
        self.scopes: Mapping[str, Sequence[str]] = scopes
        """Name -> the languages that one temperature is fitted on."""
        self.ready: Mapping[str, Sequence[str]] = {
            scope: codes for scope, codes in scopes.items() if enough([self.rankings[c] for c in codes])
        }
        """Those with enough queries."""

    def add_fixed(
        self, key: str, label: str, by_language: Callable[[str], Calibrator], temperature: float | None
    ) -> None:
        """Add a method that is not fitted to these rankings."""
        scored = {c: score(r, dict.fromkeys(range(FOLDS), by_language(c))) for c, r in self.rankings.items()}
        self.methods.append(Method(key, label, temperature, scored))

    def add_fitted(
        self, key: str, label: str, fit: Callable[[str, int | None], Calibrator], temperature: float | None
    ) -> None:
        """Add a method, cross-fitted."""
        scored = {c: score(r, {f: fit(c, f) for f in range(FOLDS)}) for c, r in self.rankings.items()}
        self.methods.append(Method(key, label, temperature, scored))

    def attempt(self, key: str, make: Callable[[], None]) -> None:
        """Add a method, or the reason why there is none."""
        try:
            make()
        except XtError as error:
            self.notes.append(f"{key}: {error.message}")

    def add_temperatures(self) -> None:
        """Add one temperature for all languages, of each scope."""
        where = {"zero-shot": ", ".join(self.fits.sources), "pooled": "all"}
        for scope, codes in self.ready.items():
            final = self.fits.over(codes, None)
            self.kept[scope] = MethodFit(final, fitted_on=tuple(codes))
            title = METHODS[scope].titled(where=where[scope])
            self.add_fitted(
                scope, title, partial(_ignoring_language, partial(self.fits.over, codes)), final.temperature
            )
        for scope, codes in self.scopes.items():
            if scope not in self.ready:
                self.notes.append(f"{scope}: too few queries" if codes else f"{scope}: none of its languages is there")

    def add_predicted(self) -> None:
        """Add a temperature for each language, from its unlabelled scores; that of the base where none is known."""
        fits = self.fits
        estimates = {c: fits.estimate(c) for c in self.rankings}
        unknown = {c: e.unknown for c, e in estimates.items() if e.unknown}
        if len(unknown) == len(estimates):
            common = {TOO_FEW, NOT_ONE_TO_ONE} & set(unknown.values()) or ({TOO_FEW} if not unknown else set())
            raise XtError(common.pop() if common else f"accuracy unknown: {grouped(unknown)}")
        scored = {}
        for code, ranking in self.rankings.items():
            by_fold = {f: fits.prior(code, f) for f in range(FOLDS)}
            fallback = f"{self.base_name()}: accuracy unknown: {unknown[code]}" if code in unknown else ""
            scored[code] = replace(score(ranking, by_fold, fallback=fallback), estimate=estimates[code])
        self.methods.append(Method("predicted", METHODS["predicted"].title, None, scored))
        self.kept["predicted"] = MethodFit(
            languages={c: fits.predicted(c, None).calibrator for c in self.rankings if c not in unknown},
            fitted_on=tuple(fits.base),
            estimates=estimates,
            none_score=fits.over(fits.base, None).none_score,
        )
        if unknown:
            self.notes.append(f"predicted: accuracy unknown, {self.base_name()} in its place: {grouped(unknown)}")

    def base_name(self) -> str:
        """Name what stands in where nothing can be predicted."""
        return "zero-shot" if self.fits.base == self.fits.sources else "pooled"

    def add_per_language(self) -> None:
        """Add a temperature for each language, of its own queries; measured where all have enough."""
        fits = self.fits
        lacking = [c for c, r in self.rankings.items() if not enough([r])]
        if not lacking:
            self.add_fitted("per-language", METHODS["per-language"].title, lambda c, f: fits.over([c], f), None)
            self.kept["per-language"] = MethodFit(languages={c: fits.over([c], None) for c in self.rankings})
            return
        self.notes.append(f"per-language: too few queries in {', '.join(lacking)}")
        if separate := {c: fits.over([c], None) for c in self.rankings if c not in lacking}:
            self.kept["per-language"] = MethodFit(languages=separate)

    def add_shrunk(self) -> None:
        """Add a temperature for each language, shrunk towards its prior."""
        if not self.ready:
            raise XtError(TOO_FEW)
        shrunk = {c: self.fits.shrunk(c, None) for c in self.rankings}
        unknown = [c for c in self.rankings if self.fits.estimate(c).unknown]
        nowhere = len(unknown) == len(self.rankings)
        prior = "that of the others" if nowhere else "the predicted one"
        self.add_fitted("shrunk", METHODS["shrunk"].titled(where=prior), self.fits.shrunk, None)
        if unknown and not nowhere:
            self.notes.append(f"shrunk: towards {self.base_name()}, as the accuracy is unknown: {', '.join(unknown)}")
        self.kept["shrunk"] = MethodFit(languages=shrunk)

    def add_maps(self, calibrate_on: str | None) -> None:
        """Add every map of the confidence of one temperature, fitted on a scope; None: the first that is ready."""
        scope = calibrate_on or next(iter(self.ready), None)
        if scope not in self.ready:
            on = f" on {scope}" if scope else ""
            self.notes.append(f"{', '.join(MAPS)}: the corpus has too few queries to fit them{on}")
            return
        for kind in MAPS:
            self.attempt(kind, partial(self._map, kind, str(scope)))

    def _map(self, kind: str, scope: str) -> None:
        codes = self.ready[scope]
        by_fold: dict[int | None, Rescaled] = {f: _map(self.fits, kind, codes, f) for f in [*range(FOLDS), None]}
        self.kept[kind] = MethodFit(by_fold[None], fitted_on=tuple(codes), scope=scope)
        make = partial(_ignoring_language, by_fold.__getitem__)
        self.add_fitted(kind, f"{kind} over one temperature, {scope}", make, None)

    def add_given_predicted(self, given: SearchFits) -> None:
        """Add a temperature for each language, from its unlabelled scores and another corpus's "none of these".

        Where the accuracy is unknown the other corpus's one temperature stands in.
        """
        none = given["predicted"].none_score
        if none is None:
            raise XtError('the other report has no score of "none of these" for it')
        name = next((s for s in ("zero-shot", "pooled") if s in given and given[s].calibrator is not None), "")
        estimates = {c: self.fits.unlabelled(c) for c in self.rankings}
        if (unknown := {c: e.unknown for c, e in estimates.items() if e.unknown}) and (
            not name or len(unknown) == len(estimates)
        ):
            raise XtError(f"accuracy unknown: {grouped(unknown)}")
        scored = {}
        for code, ranking in self.rankings.items():
            one, fallback = given[name].calibrator if name else None, ""
            if code in unknown:
                fallback = f"given-{name}: accuracy unknown: {unknown[code]}"
            else:
                one = predict_temperature(estimates[code], ranking, none).calibrator
            assert one is not None
            found = score(ranking, dict.fromkeys(range(FOLDS), one), fallback=fallback)
            scored[code] = replace(found, estimate=estimates[code])
        self.methods.append(Method("given-predicted", "predicted, as another corpus gave it", None, scored))
        if unknown:
            self.notes.append(f"given-predicted: accuracy unknown, given-{name} in its place: {grouped(unknown)}")

    def calibrated(self) -> Calibrated:
        """Return all of it, with the predicted temperatures of every language and fold."""
        fits = self.fits
        estimates = {c: fits.estimate(c) for c in self.rankings}
        codes = [c for c, e in estimates.items() if not e.unknown]
        predicted = {(c, f): fits.predicted(c, f) for c in codes for f in (*range(FOLDS), None)}
        return Calibrated(self.methods, self.kept, self.notes, predicted, estimates, fits.known())


def grouped(reasons: Mapping[str, str]) -> str:
    """Return the languages of each reason, and the reason.

    >>> grouped({"swh": "too few", "jav": "too few", "tel": "unknown"})
    'swh, jav (too few); tel (unknown)'
    """
    by_reason: dict[str, list[str]] = {}
    for code, why in reasons.items():
        by_reason.setdefault(why, []).append(code)
    return "; ".join(f"{', '.join(codes)} ({why})" for why, codes in by_reason.items())


def _ignoring_language(by_fold: Callable[[int | None], Calibrator], code: str, fold: int | None) -> Calibrator:
    return by_fold(fold)


def _map(fits: CrossFit, kind: str, codes: Sequence[str], fold: int | None) -> Rescaled:
    base = fits.over(codes, fold)
    some = _outside([fits.rankings[c] for c in codes], fold)
    return Rescaled(base, fit_map(kind, base, some.scores, some.gold))


def _given(kept: SearchFits) -> dict[str, Callable[[str], Calibrator]]:
    found: dict[str, Callable[[str], Calibrator]] = {}
    for key in (*MAP_SCOPES, *MAPS):
        if key in kept and (calibrator := kept[key].calibrator) is not None:
            found[key] = partial(_same, calibrator)
    return found


def _same(calibrator: Calibrator, code: str) -> Calibrator:
    return calibrator


def enough(rankings: Sequence[Predictions]) -> bool:
    """Return whether there are queries to cross-fit on: twice the least number, and the least without any one fold."""
    sizes = sizes_by_fold(rankings)
    return bool(sizes.sum() >= 2 * MIN_QUERIES and sizes.sum() - sizes.max() >= MIN_QUERIES)


def is_source(code: str) -> bool:
    """Return whether a language is one of `SOURCES`."""
    try:
        return languages.resolve(code).iso3 in SOURCES
    except XtError:  # a code outside the table
        return False
