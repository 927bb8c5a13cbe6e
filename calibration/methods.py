"""The methods of calibration: one table, which fits, reports, pages, help and docs read.

What another report fitted is applied as `given-NAME` beside these; `none-of-these` is fitted apart from them, with
queries that lost their answer (`xt.calibration.missing`).
"""

from __future__ import annotations

from dataclasses import dataclass

PARALLEL, RANKED, HEADS = "parallel text", "ranked retrieval", "heads"
"""What is calibrated."""
NOTHING, SHARED, EACH = "nothing", "one temperature", "a temperature for each language"
MAP, SCALES = "a map of the confidence", "a scale and a bias for each label"
"""What is fitted."""


@dataclass(frozen=True)
class MethodRow:
    """A method of calibration."""

    name: str
    """As metrics.json, predictions (`p_NAME`) and calibration.json have it."""
    title: str
    """As it is printed; what is known only when it is fitted stands in braces."""
    fit: str
    """What is fitted."""
    labels: str
    """Whose labels it needs."""
    of: tuple[str, ...]
    """What it applies to."""

    def titled(self, *, where: str = "", temperature: float = 1.0) -> str:
        """Return the title with what is in braces filled in.

        >>> METHODS["pooled"].titled(where="all languages"), METHODS["training"].titled(temperature=0.01)
        ('one temperature fitted on all languages', 'T = 0.01, as the encoder was trained')
        """
        return self.title.format(where=where, temperature=temperature)


_SEARCH, _ALL = (PARALLEL, RANKED), (PARALLEL, RANKED, HEADS)
_TEMPERATURE = "one temperature fitted on {where}"
_BASE = "of the sources, or pooled"
METHODS = {
    row.name: row
    for row in (
        MethodRow("cosine", "softmax of the cosine, T = 1", NOTHING, "none", _SEARCH),
        MethodRow("uncalibrated", "softmax of the head's logits", NOTHING, "none", (HEADS,)),
        MethodRow("training", "T = {temperature:g}, as the encoder was trained", NOTHING, "none", _SEARCH),
        MethodRow("exported", "T = {temperature:g}, as the head was exported", NOTHING, "none", (HEADS,)),
        MethodRow("zero-shot", _TEMPERATURE, SHARED, "of deu, fra, spa, rus, cmn; of heads English", _ALL),
        MethodRow("pooled", _TEMPERATURE, SHARED, "of all languages", _ALL),
        MethodRow(
            "predicted",
            "a temperature for each language from its accuracy, estimated without labels",
            EACH,
            'none of the language; of the sources for "none of these"',
            (PARALLEL,),
        ),
        MethodRow("per-language", "a temperature for each language", EACH, "of each language", _ALL),
        MethodRow(
            "shrunk",
            "a temperature for each language, shrunk towards {where}",
            EACH,
            "any number of each language",
            _ALL,
        ),
        MethodRow("platt", "Platt scaling of the confidence and its margins", MAP, _BASE, _SEARCH),
        MethodRow("vector", "vector scaling", SCALES, _BASE, (HEADS,)),
        MethodRow("isotonic", "isotonic regression", MAP, _BASE, _ALL),
        MethodRow("histogram", "histogram of the answer's probability", MAP, _BASE, _ALL),
        MethodRow("beta", "beta calibration", MAP, _BASE, _ALL),
    )
}
PREFERRED = {
    PARALLEL: ("predicted", "zero-shot", "pooled", "training", "cosine"),
    RANKED: ("platt", "pooled", "zero-shot", "training", "cosine"),
}
"""Whose probability stands beside an answer: the first method that is there. None needs labels of the language; of
documents several may be right, which Platt's map alone reads."""
BEFORE, AFTER = "cosine", ("predicted", "platt", "zero-shot")
"""The methods that a page shows as before and after calibration: of the latter the first that is there, none needing
labels in the language itself. Without a predicted temperature documents were ranked, and Platt's map is theirs."""


def names(of: str, *fits: str) -> tuple[str, ...]:
    """Return the names of the methods that apply to something, those of some kinds of fit or all.

    >>> names(PARALLEL, MAP)
    ('platt', 'isotonic', 'histogram', 'beta')
    """
    return tuple(row.name for row in METHODS.values() if of in row.of and (not fits or row.fit in fits))


def listed(words: tuple[str, ...], last: str = "and") -> str:
    """Return words as a sentence lists them.

    >>> listed(("a", "b", "c")), listed(("a", "b"), "or")
    ('a, b and c', 'a or b')
    """
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
