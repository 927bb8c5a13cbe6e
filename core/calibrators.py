"""From similarities to probabilities: applying a calibrator and keeping it as JSON. Fitting is `xt.eval`'s."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.core import languages
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
        """Give probabilities (n, k + 1) for similarities (n, k); the last column is "none of these".

        >>> RetrievalTemperature(1.0)(np.array([[0.0, 0.0]])).tolist()
        [[0.5, 0.5, 0.0]]
        """
        scores = np.asarray(scores, np.float64)
        none = np.full((len(scores), 1), self.none_score)
        logits = np.concatenate([scores, none], axis=1) / self.temperature  # (n, k + 1)
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    def to_json(self) -> dict[str, Any]:
        """As calibration.json keeps it (no mass for "none of these": null)."""
        none = self.none_score if math.isfinite(self.none_score) else None
        return {"kind": "retrieval-temperature", "temperature": self.temperature, "none_score": none}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RetrievalTemperature:
        """Read what `to_json` wrote."""
        if value.get("kind") != "retrieval-temperature":
            raise XtError(f"Unknown calibrator {value.get('kind')!r}.", "Known: retrieval-temperature.")
        none = value.get("none_score")
        return cls(float(value["temperature"]), -math.inf if none is None else float(none))


SCOPES = ("zero-shot", "pooled")
"""What a query whose language has no calibrator of its own may be scored by, the preferred first."""
CANDIDATES = 100
"""Candidates that retrieval temperatures are fitted with, unless the corpora were smaller."""
TABLE_KIND = "retrieval-calibration"


@dataclass(frozen=True)
class CalibrationTable:
    """The calibrators that a retriever answers with: one for any language, and those of single languages."""

    default: RetrievalTemperature
    scope: str
    """What the default was fitted on: "zero-shot" or "pooled"."""
    by_language: Mapping[str, RetrievalTemperature]
    """ISO 639-3 code (or a code outside the table, as it was written) -> calibrator."""
    candidates: int = CANDIDATES
    """How many of the best documents, with "none of these", the probabilities sum over."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Which report, encoder and corpus they are from."""

    def __post_init__(self) -> None:
        if isinstance(self.candidates, bool) or not isinstance(self.candidates, int) or self.candidates < 1:
            raise XtError(f"A calibration must be over at least one candidate; found {self.candidates!r}.")

    def choose(self, language: str | None) -> tuple[RetrievalTemperature, str]:
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
                RetrievalTemperature.from_json(value["default"]),
                str(value["scope"]),
                {code: RetrievalTemperature.from_json(c) for code, c in value["languages"].items()},
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
            methods: "zero-shot", "pooled" and "per-language" -> calibrators, some of them.
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
            default = RetrievalTemperature.from_json(methods[chosen])
            own = methods.get("per-language", {})
            known = {language_key(code): RetrievalTemperature.from_json(c) for code, c in own.items()}
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
