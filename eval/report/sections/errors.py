"""The report on single answers: right and wrong examples, and the worst errors with their texts."""

from collections.abc import Sequence

from xt.eval.report import page
from xt.eval.report.charts import basic
from xt.eval.report.page import is_number, percent, text
from xt.eval.report.reading import Metrics, direction_label, encoders, language_name, name_of

SHOWN = 8
"""Errors that are not folded."""


def worst(metrics: Metrics) -> str:
    """The errors that were given with the greatest confidence."""
    found = by_confidence([x for x in metrics.get("worst") or [] if hasattr(x, "items")])
    how = (
        "Wrong answers by how sure they were: the ones that cost most. Read the texts before blaming the encoder: "
        "often the found sentence is a translation too, or the wanted one is not."
    )
    first, rest = found[:SHOWN], found[SHOWN:]
    cards = "".join(card(metrics, x, wrong=True) for x in first)
    more = "".join(card(metrics, x, wrong=True) for x in rest)
    return page.section(
        "worst", "Worst errors", how,
        f'<div class="cards">\n{cards}</div>\n' if cards else "",
        page.details(f"{len(rest)} more", f'<div class="cards">\n{more}</div>\n') if more else "",
    )  # fmt: skip


def by_confidence(found: Sequence[Metrics]) -> list[Metrics]:
    """The surest first; those without a probability last."""
    return sorted(found, key=lambda x: -x["probability"] if is_number(x.get("probability")) else 1)


def examples(metrics: Metrics) -> str:
    """Answers that were right, and wrong ones by how sure they were."""
    ordered = by_confidence(list(metrics.get("examples") or []))
    right = "".join(card(metrics, x) for x in ordered if x.get("correct"))
    wrong = "".join(card(metrics, x) for x in ordered if not x.get("correct"))
    how = (
        "The query, what was found, and the probability stated for it. Wrong answers given with confidence are the "
        "ones that cost most."
    )
    return page.section(
        "examples", "Examples", how,
        f'<h3>Right</h3>\n<div class="cards">\n{right}</div>\n' if right else "",
        f'<h3>Wrong, the surest first</h3>\n<div class="cards">\n{wrong}</div>\n' if wrong else "",
    )  # fmt: skip


def card(metrics: Metrics, example: Metrics, *, wrong: bool = False) -> str:
    """One example; every text takes its direction from its own letters."""
    looks = {name_of(e): s for e, s in encoders(metrics)}
    look = looks.get(str(example.get("encoder")), basic.series_for(1)[0])
    chance, right = example.get("probability"), bool(example.get("correct")) and not wrong
    shown = {"Query": "query", "Found": "answer", **({} if right else {"Wanted": "gold"})}
    lines = "".join(f'<dt>{label}</dt><dd dir="auto">{text(example.get(k))}</dd>' for label, k in shown.items())
    code = str(example.get("language") or "")
    sign = '<b class="ok">✓ right</b>' if right else '<b class="ok">✗ wrong</b>'
    way = f" <small>{text(direction_label(str(example['direction'])))}</small>" if example.get("direction") else ""
    name = f"<b>{text(language_name(metrics, code))}{way}</b>"
    width = 100 * chance if is_number(chance) else 0
    return (
        f'<article class="card"><h4>{name}<span>{sign}, stated {percent(chance)}'
        f"{' · ' + text(example['encoder']) if example.get('encoder') and len(looks) > 1 else ''}</span></h4>"
        f'<div class="meter c-{look.colour}"><div style="width:{width:.0f}%"></div></div><dl>{lines}</dl></article>\n'
    )
