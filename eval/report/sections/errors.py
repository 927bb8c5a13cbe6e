"""The report on single answers: right and wrong examples, and the worst errors with their texts."""

from collections.abc import Sequence

from xt.core.results.report import Example, Report
from xt.eval.report import page
from xt.eval.report.charts import basic
from xt.eval.report.page import percent, text
from xt.eval.report.reading import direction_label, encoders, language_name, name_of

SHOWN = 8
"""Errors that are not folded."""


def worst(report: Report) -> str:
    """The errors that were given with the greatest confidence."""
    found = by_confidence(report.worst)
    how = (
        "Wrong answers by how sure they were: the ones that cost most. Read the texts before blaming the encoder: "
        "often the found sentence is a translation too, or the wanted one is not."
    )
    first, rest = found[:SHOWN], found[SHOWN:]
    cards = "".join(card(report, x, wrong=True) for x in first)
    more = "".join(card(report, x, wrong=True) for x in rest)
    return page.section(
        "worst", "Worst errors", how,
        f'<div class="cards">\n{cards}</div>\n' if cards else "",
        page.details(f"{len(rest)} more", f'<div class="cards">\n{more}</div>\n') if more else "",
    )  # fmt: skip


def by_confidence(found: Sequence[Example]) -> list[Example]:
    """The surest first; those without a probability last."""
    return sorted(found, key=lambda x: 1 if x.probability is None else -x.probability)


def examples(report: Report) -> str:
    """Answers that were right, and wrong ones by how sure they were."""
    ordered = by_confidence(report.examples)
    right = "".join(card(report, x) for x in ordered if x.correct)
    wrong = "".join(card(report, x) for x in ordered if not x.correct)
    how = (
        "The query, what was found, and the probability stated for it. Wrong answers given with confidence are the "
        "ones that cost most."
    )
    return page.section(
        "examples", "Examples", how,
        f'<h3>Right</h3>\n<div class="cards">\n{right}</div>\n' if right else "",
        f'<h3>Wrong, the surest first</h3>\n<div class="cards">\n{wrong}</div>\n' if wrong else "",
    )  # fmt: skip


def card(report: Report, example: Example, *, wrong: bool = False) -> str:
    """One example; every text takes its direction from its own letters."""
    looks = {name_of(e): s for e, s in encoders(report)}
    look = looks.get(str(example.encoder), basic.series_for(1)[0])
    chance, right = example.probability, bool(example.correct) and not wrong
    shown = {"Query": example.query, "Found": example.answer, **({} if right else {"Wanted": example.gold})}
    lines = "".join(f'<dt>{label}</dt><dd dir="auto">{text(said)}</dd>' for label, said in shown.items())
    code = example.language or ""
    sign = '<b class="ok">✓ right</b>' if right else '<b class="ok">✗ wrong</b>'
    way = f" <small>{text(direction_label(example.direction))}</small>" if example.direction else ""
    name = f"<b>{text(language_name(report, code))}{way}</b>"
    width = 0 if chance is None else 100 * chance
    return (
        f'<article class="card"><h4>{name}<span>{sign}, stated {percent(chance)}'
        f"{' · ' + text(example.encoder) if example.encoder and len(looks) > 1 else ''}</span></h4>"
        f'<div class="meter c-{look.colour}"><div style="width:{width:.0f}%"></div></div><dl>{lines}</dl></article>\n'
    )
