"""From similarities to probabilities: applying a calibrator and keeping it as JSON. Fitting is `xt.eval`'s.

A calibrator is called with the similarities of a query's candidates, a row for each query, and returns each candidate's
probability in its own place, whatever the order of the row: the last column is that of "none of these". -inf or NaN is
an absent candidate, whose probability is 0; where all are absent, "none of these" has all the mass. Candidates of equal
similarity have equal probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.calibration import confidence_maps
from xt.core import languages
from xt.core.arguments import as_scores
from xt.core.errors import XtError, unknown

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RetrievalTemperature:
    """`p(j | q) = softmax_j(s_qj / T)` over the top candidates and "none of these".

    "None of these" takes part as a candidate whose similarity is `none_score`; with -inf it has no mass.
    Temperature scaling: Guo et al. 2017, arXiv 1706.04599, section 4.2.
    """

    temperature: float
    none_score: float = -math.inf

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise XtError(f"A temperature must be positive; found {self.temperature}.")

    def __call__(self, scores: npt.NDArray[Any]) -> Floats:
        """Return probabilities (n, k + 1) for similarities (n, k) in any order; the last column is "none of these".

        >>> RetrievalTemperature(1.0)(np.array([[0.0, 0.0]])).tolist()
        [[0.5, 0.5, 0.0]]
        """
        return _in_place(self._sorted, scores)

    def _sorted(self, scores: Floats) -> Floats:
        """Return the probabilities of rows that are best first, the best candidate of each present."""
        return _softmax(scores, self.none_score, self.temperature)

    def to_json(self) -> dict[str, Any]:
        """As calibration.json keeps it (no mass for "none of these": null)."""
        none = self.none_score if math.isfinite(self.none_score) else None
        return {"kind": "retrieval-temperature", "temperature": self.temperature, "none_score": none}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RetrievalTemperature:
        """Read what `to_json` wrote."""
        if value.get("kind") != "retrieval-temperature":
            raise XtError(
                f"Unknown calibrator {value.get('kind')!r}.",
                "Known: retrieval-temperature, retrieval-margin, retrieval-rescaled.",
            )
        none = value.get("none_score")
        return cls(float(value["temperature"]), -math.inf if none is None else float(none))


@dataclass(frozen=True)
class RetrievalMargin:
    """A temperature whose "none of these" has the mean cosine of the next nine candidates, and a margin.

    An answer has then to stand out from its neighbours, not to reach a cosine: cosines differ in height between
    languages and corpora far more than they do around the right one. The margin is that of Artetxe & Schwenk 2019
    (arXiv 1811.01136, section 3), on the query's side, as a difference.
    """

    temperature: float
    margin: float

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.temperature) and math.isfinite(self.margin)):
            raise XtError(
                f"A temperature must be positive, a margin a number; found {self.temperature}, {self.margin}."
            )

    def __call__(self, scores: npt.NDArray[Any]) -> Floats:
        """Return probabilities (n, k + 1) for similarities (n, k) in any order; the last column is "none of these"."""
        return _in_place(self._sorted, scores)

    def _sorted(self, scores: Floats) -> Floats:
        """Return the probabilities of rows that are best first, the best candidate of each present."""
        return _softmax(scores, confidence_maps.near(scores) + self.margin, self.temperature)

    def to_json(self) -> dict[str, Any]:
        """As calibration.json keeps it."""
        return {"kind": "retrieval-margin", "temperature": self.temperature, "margin": self.margin}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RetrievalMargin:
        """Read what `to_json` wrote."""
        return cls(float(value["temperature"]), float(value["margin"]))


def _in_place(calibrate: Callable[[Floats], Floats], scores: npt.NDArray[Any]) -> Floats:
    """Apply what reads similarities best first to rows (n, k) in any order; each probability goes to its own place.

    Sums are always taken in the same order, so that a candidate's probability does not depend on its place by a bit.
    """
    scores = as_scores(scores)
    n, k = scores.shape
    ordered, places = scores, None
    if not confidence_maps.is_sorted(scores):
        known = np.where(np.isnan(scores), -np.inf, scores)
        places = np.argsort(-known, axis=1, kind="stable")
        ordered = np.take_along_axis(known, places, 1)
    best = ordered[:, 0] if k else np.full(n, -np.inf)
    if np.isposinf(best).any():
        raise XtError("A similarity is infinite, so it has no probability.", "Check the vectors.")
    filled = np.isfinite(best)
    if not filled.all():
        out = np.zeros((n, k + 1))
        out[~filled, -1] = 1.0  # no candidate at all
        if filled.any():
            out[filled] = calibrate(ordered[filled])
    else:
        out = calibrate(ordered)
    if places is not None:
        np.put_along_axis(out, places, out[:, :-1].copy(), 1)
    return out


def _softmax(scores: Floats, none: float | Floats, temperature: float) -> Floats:
    """Probabilities (n, k + 1) of similarities (n, k) and that of "none of these", in the last column."""
    p = np.empty((len(scores), scores.shape[1] + 1))
    p[:, :-1] = scores
    p[:, -1] = none
    p /= temperature
    p -= p.max(axis=1, keepdims=True)
    np.exp(p, out=p)
    p /= p.sum(axis=1, keepdims=True)
    return p


@dataclass(frozen=True)
class Rescaled:
    """A temperature, or a margin, whose confidence in the best candidate goes through a map.

    What the best candidate loses goes to "none of these"; what it gains is taken from the others and "none of these"
    in proportion. Candidates that share the best similarity each have the mapped confidence, or equal shares of all the
    mass where that is less.
    """

    base: RetrievalTemperature | RetrievalMargin
    map: confidence_maps.ConfidenceMap

    @property
    def temperature(self) -> float:
        """The temperature under the map."""
        return self.base.temperature

    def __call__(self, scores: npt.NDArray[Any]) -> Floats:
        """Return probabilities (n, k + 1) for similarities (n, k) in any order; the last column is "none of these"."""
        return _in_place(self._sorted, scores)

    def _sorted(self, scores: Floats) -> Floats:
        """Return the probabilities of rows that are best first, the best candidate of each present."""
        p = self.base._sorted(scores)
        best = scores == scores[:, :1]  # (n, k)
        ties = best.sum(1)
        before = p[:, 0].copy()
        after = np.minimum(np.clip(self.map(before, scores), 0.0, 1.0), 1 / ties)
        factor = np.minimum(1.0, (1 - ties * after) / np.maximum(1 - ties * before, 1e-300))
        p *= np.maximum(factor, 0.0)[:, None]
        p[:, :-1][best] = np.repeat(after, ties)
        p[:, -1] += np.maximum(0.0, 1 - p.sum(1))
        return p

    def to_json(self) -> dict[str, Any]:
        """As calibration.json keeps it."""
        return {"kind": "retrieval-rescaled", "base": self.base.to_json(), "map": confidence_maps.to_json(self.map)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Rescaled:
        """Read what `to_json` wrote."""
        margin = value["base"].get("kind") == "retrieval-margin"
        base = (RetrievalMargin if margin else RetrievalTemperature).from_json(value["base"])
        return cls(base, confidence_maps.from_json(value["map"]))


Calibrator = RetrievalTemperature | RetrievalMargin | Rescaled


def read_calibrator(value: Mapping[str, Any]) -> Calibrator:
    """Read what a calibrator's `to_json` wrote, of whatever kind."""
    readers: dict[str, Callable[[Mapping[str, Any]], Calibrator]] = {
        "retrieval-rescaled": Rescaled.from_json,
        "retrieval-margin": RetrievalMargin.from_json,
    }
    return readers.get(str(value.get("kind")), RetrievalTemperature.from_json)(value)


NONE = "none-of-these"
"""Fitted with queries that have no answer among the others: its mass for "none of these" means something."""
MAPPED = "platt"
"""A map of the confidence on margin features; the one for documents of which several may be right."""
SCOPES = ("zero-shot", "pooled", MAPPED, NONE)
"""What a query whose language has no calibrator of its own may be scored by, the preferred first."""
CANDIDATES = 100
"""Candidates that retrieval temperatures are fitted with, unless the corpora were smaller."""
TABLE_KIND = "retrieval-calibration"


@dataclass(frozen=True)
class CalibrationTable:
    """The calibrators that a retriever answers with: one for any language, and those of single languages."""

    default: Calibrator
    scope: str
    """What the default is of: `SCOPES`."""
    by_language: Mapping[str, Calibrator]
    """ISO 639-3 code (or a code outside the table, as it was written) -> calibrator."""
    candidates: int = CANDIDATES
    """How many of the best documents, with "none of these", the probabilities sum over."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Which report, encoder and corpus they are from."""

    def __post_init__(self) -> None:
        if isinstance(self.candidates, bool) or not isinstance(self.candidates, int) or self.candidates < 1:
            raise XtError(f"A calibration must be over at least one candidate; found {self.candidates!r}.")

    def choose(self, language: str | None) -> tuple[Calibrator, str]:
        """Give the calibrator for a query's language and its name; the default where the language has none.

        >>> table = CalibrationTable(RetrievalTemperature(0.1), "zero-shot", {"deu": RetrievalTemperature(0.2)})
        >>> table.choose("de")[1], table.choose("swh")[1], table.choose(None)[1]
        ('per-language:deu', 'zero-shot', 'zero-shot')
        """
        code = language_key(language) if language else ""
        if code in self.by_language:
            return self.by_language[code], f"per-language:{code}"
        return self.default, self.scope

    def to_json(self) -> dict[str, Any]:
        """As `calibration.json` of a retriever keeps it."""
        return {
            "kind": TABLE_KIND,
            "scope": self.scope,
            "default": self.default.to_json(),
            "languages": {code: c.to_json() for code, c in sorted(self.by_language.items())},
            "candidates": self.candidates,
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CalibrationTable:
        """Read what `to_json` wrote."""
        if value.get("kind") != TABLE_KIND:
            raise XtError(f"Unknown calibration {value.get('kind')!r}.", f"Expected {TABLE_KIND}.")
        try:
            return cls(
                read_calibrator(value["default"]),
                str(value["scope"]),
                {code: read_calibrator(c) for code, c in value["languages"].items()},
                value["candidates"],
                dict(value.get("provenance", {})),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise XtError(f"The calibration lacks or misstates {error}.", "Make it again.") from error

    @classmethod
    def from_report(
        cls,
        methods: Mapping[str, Any],
        *,
        scope: str | None = None,
        candidates: int = CANDIDATES,
        provenance: Mapping[str, Any] | None = None,
    ) -> CalibrationTable:
        """Take the calibrators of one encoder and one direction as calibration.json of a report holds them.

        Args:
            methods: "zero-shot", "pooled", "platt", "none-of-these" -> a calibrator, "shrunk" or "per-language" -> one
                for each language; some of them. "none-of-these" has its own ones in it, under "languages".
            scope: which is the default; None: zero-shot where it is there, else pooled.
            candidates: how many candidates they were fitted with.
            provenance: kept as it is.

        Raises XtError when the scope is not there or a calibrator cannot be read.
        """
        there = [s for s in SCOPES if s in methods]
        if scope is not None and scope not in SCOPES:
            raise unknown("scope", scope, SCOPES)
        if not there or (scope is not None and scope not in there):
            raise XtError(
                f"The calibration has no {scope or ' or '.join(SCOPES)} calibrator (found: "
                f"{', '.join(methods) or 'none'}).",
                "Evaluate on more queries, or choose another scope.",
            )
        chosen = scope or there[0]
        try:
            default = read_calibrator(methods[chosen])
            shared = methods.get("shrunk") or methods.get("per-language", {})
            own = methods[chosen].get("languages", {}) if chosen in (MAPPED, NONE) else shared
            known = {language_key(code): read_calibrator(c) for code, c in own.items()}
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise XtError(f"The calibration lacks or misstates {error}.", "Make the report again.") from error
        return cls(default, chosen, known, candidates, dict(provenance or {}))


def language_key(code: str) -> str:
    """Give the ISO 639-3 code that a language is looked up by; a code outside the table stays as it is.

    >>> language_key("pt_BR"), language_key("qq-made-up")
    ('por', 'qq-made-up')
    """
    try:
        return languages.resolve(code).iso3
    except XtError:
        return code
