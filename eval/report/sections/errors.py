"""The report on single answers: right and wrong examples, and the worst errors with their texts."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from xt.core.pages.rows import ACCENT
from xt.core.results.report import Example, Report
from xt.eval.report.reading import direction_label, encoders, language_name, macros, name_of

SHOWN = 8
"""Errors that are not folded."""
html = macros("errors")


def worst(report: Report) -> Markup:
    """Return the errors that were given with the greatest confidence."""
    found = [card(report, x, wrong=True) for x in by_confidence(report.worst)]
    return html.worst(found[:SHOWN], found[SHOWN:]) if found else Markup()


def by_confidence(found: Sequence[Example]) -> list[Example]:
    """Return the surest first; those without a probability last."""
    return sorted(found, key=lambda x: 1 if x.probability is None else -x.probability)


def examples(report: Report) -> Markup:
    """Return answers that were right, and wrong ones by how sure they were."""
    ordered = by_confidence(report.examples)
    right, wrong = ([card(report, x) for x in ordered if bool(x.correct) is kind] for kind in (True, False))
    return html.examples(right, wrong) if ordered else Markup()


def card(report: Report, example: Example, *, wrong: bool = False) -> dict[str, Any]:
    """Return what the card of one example shows."""
    looks = {name_of(e): s for e, s in encoders(report)}
    right = bool(example.correct) and not wrong
    texts = [("Query", example.query), ("Found", example.answer), ("Wanted", example.gold)]
    return {
        "language": language_name(report, example.language or ""),
        "direction": direction_label(example.direction) if example.direction else "",
        "right": right,
        "probability": example.probability,
        "encoder": example.encoder if len(looks) > 1 else None,
        "colour": looks.get(str(example.encoder), ACCENT).colour,
        "texts": texts[: 2 if right else 3],
    }
