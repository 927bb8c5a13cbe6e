"""The calibrators that a retriever answers with, as its `calibration.json` keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xt.calibration.apply.retrieval import Calibrator, read_calibrator
from xt.core import languages
from xt.core.errors import XtError, unknown

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
        """Return the calibrator for a query's language and its name; the default where the language has none.

        >>> from xt.calibration.apply.retrieval import RetrievalTemperature
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
    """Return the ISO 639-3 code that a language is looked up by; a code outside the table stays as it is.

    >>> language_key("pt_BR"), language_key("qq-made-up")
    ('por', 'qq-made-up')
    """
    try:
        return languages.resolve(code).iso3
    except XtError:
        return code
