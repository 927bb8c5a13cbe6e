"""The report on trust, language by language: reliability, what abstaining buys, what labels add."""

from collections.abc import Sequence

from xt.core.results.report import Measures, Report, Shots
from xt.eval.report import page
from xt.eval.report.charts import trust
from xt.eval.report.charts.basic import Scale
from xt.eval.report.charts.trust import Line
from xt.eval.report.page import Cell, figure, fixed, percent, text, words
from xt.eval.report.reading import Block, blocks, difference, language_name, resource

LOOKS = {"all": ("ink", ""), "high": ("second", "dash"), "mid": ("third", "dots2"), "low": ("accent", "")}
SHOWN = 12
"""Small diagrams that are not folded."""


def reliability(report: Report) -> str:
    """A small reliability diagram for each language, those farthest from perfect calibration first."""
    found = [(b, panels) for b in blocks(report) if (panels := diagrams(report, b))]
    if not found:
        return ""
    how = (
        "Stated probability (across) against the share that was right (up), in bins of equally many queries. Marks on "
        "the diagonal are calibrated, above it not sure enough, below it too sure. The <b>shaded band</b> holds 95% "
        "of the bins of a perfectly calibrated model: what lies inside it may be chance."
    )
    first, *others = [grid(b, panels) for b, panels in found]
    folded = "".join(
        page.details(f"The same, {b.plain}", part, printed=False)
        for (b, _), part in zip(found[1:], others, strict=True)
    )
    return page.section("reliability", "Reliability by language", how, first, folded)


def diagrams(report: Report, block: Block) -> list[str]:
    """One figure a language."""
    found = []
    for code, row in block.languages.items():
        name, gap, ece = language_name(report, code), row.excess, row.ece
        title = f"{name}: stated against right, ECE {fixed(ece)}"
        drawing = trust.small_reliability(row.reliability, block.series, title)
        if drawing:
            aside = f"ECE {fixed(ece)}" + (f", excess {fixed(gap)}" if gap is not None else "")
            far = gap if gap is not None else ece or 0.0
            found.append(
                (far, f"<figure><figcaption><b>{text(name)}</b>{text(aside)}</figcaption>{drawing}</figure>\n")
            )
    return [html for _, html in sorted(found, key=lambda pair: -pair[0])]


def grid(block: Block, panels: Sequence[str]) -> str:
    """The figures of one block, the first of them open."""
    rest = f'<div class="small-multiples">\n{"".join(panels[SHOWN:])}</div>\n' if len(panels) > SHOWN else ""
    order = '<p class="note">Farthest from perfect calibration first.</p>\n' if len(panels) > 1 else ""
    return (
        f'<h3 class="who">{block.title} <small>{text(block.label)}</small></h3>\n{order}'
        f'<div class="small-multiples">\n{"".join(panels[:SHOWN])}</div>\n'
        + page.details(f"The other {len(panels) - SHOWN} languages", rest, printed=False)
    )


# -- risk and coverage -------------------------------------------------------------------------------------------------


def risk(report: Report) -> str:
    """Curves of risk by coverage, and what is answered at some of them."""
    found = [(b, lines) for b in blocks(report) if (lines := risk_lines(report, b))]
    if not found:
        return ""
    how = (
        "Answer only when sure enough: with the threshold raised, fewer queries are answered (<b>coverage</b>) and "
        "fewer of those answers are wrong (<b>risk</b>). The lower the curve, the better confidence tells right from "
        "wrong. <b>all</b>: every query together; by resource class: mean over its languages at each coverage."
    )
    parts = []
    for block, lines in found:
        drawing = trust.curves(
            lines, f"Risk by coverage, {block.plain}", x_label="coverage", y_label="risk", x=Scale(0, 1)
        )
        rows = []
        for line in lines:
            heights = [trust.at_step(line.points, x) for x in STEPS]
            rows.append([words(line.label), *(figure(h, percent(h)) for h in heights)])
        head = ["Languages", *(f"{percent(x, 0)} answered" for x in STEPS)]
        table = page.table("Share of wrong answers among those given, when only the surest are given", head, rows)
        shown = f'<div class="panels wide"><figure>{drawing}</figure><div>{table}</div></div>\n' if drawing else table
        parts.append(f'<h3 class="who">{block.title}</h3>\n{shown}')
    folded = "".join(page.details(f"The same, {b.plain}", p) for (b, _), p in zip(found[1:], parts[1:], strict=True))
    return page.section("risk", "Risk and coverage", how, parts[0], folded)


STEPS = (0.5, 0.7, 0.8, 0.9, 1.0)
"""Coverages that the table shows."""


def risk_lines(report: Report, block: Block) -> list[Line]:
    """Overall, and the mean over the languages of each resource class."""
    curves = {c: sorted(row.risk_coverage) for c, row in block.languages.items() if row.risk_coverage}
    lines = []
    whole = sorted(block.shown.risk_coverage)
    if whole:
        lines.append(Line("all", *LOOKS["all"], whole))
    for group in ("high", "mid", "low"):
        members = [p for c, p in curves.items() if resource(report, c) == group]
        if members and (len(curves) > len(members) or not whole):
            lines.append(Line(group, *LOOKS[group], mean_curve(members)))
    return lines


def mean_curve(curves: Sequence[Sequence[tuple[float, float]]], steps: int = 50) -> list[tuple[float, float]]:
    """Mean height at even steps of x, from where every curve has begun."""
    found = []
    for i in range(1, steps + 1):
        heights = [trust.at_step(c, i / steps) for c in curves]
        kept = [h for h in heights if h is not None]
        if len(kept) == len(curves):
            found.append((i / steps, sum(kept) / len(kept)))
    return found


# -- shots -------------------------------------------------------------------------------------------------------------


def shots(report: Report) -> str:
    """What labels in the language itself add: the error of each scope by shots."""
    parts = [(b, part) for b in blocks(report) if (part := shots_table(b))]
    how = (
        "A <b>shot</b> is one query of the language whose right answer is known. Fitting a temperature on few of them "
        "can be worse than on none; <b>shrunk</b> pulls each language's temperature towards what is known without "
        "labels, the more the fewer shots there are."
    )
    folded = "".join(page.details(f"The same, {b.plain}", part) for b, part in parts[1:])
    return page.section("shots", "How many labels a language needs", how, *(p for _, p in parts[:1]), folded)


def shots_table(block: Block) -> str:
    """A row for each number of shots, a column for each scope; the row of none is what needs no labels."""
    data = block.source.shots
    scopes = list(dict.fromkeys(s for row in data.values() for s in row))
    if not scopes:
        return ""

    def cell(row: Measures | Shots) -> Cell:
        gap = difference(row.ece, row.ece_null)
        aside = page.interval(row.ece_ci) or (f"excess {fixed(gap)}" if gap is not None else "")
        return figure(row.ece, fixed(row.ece), aside)

    rows = [[words("0"), *(cell(block.shown.overall) for _ in scopes)]]
    for n in sorted(data, key=lambda k: int(k) if k.isdigit() else 0):
        rows.append([words(n), *(cell(data[n].get(s) or Shots()) for s in scopes)])
    caption = f"Mean ECE over languages by shots, {block.plain}; at 0 shots: {block.label}"
    return page.table(caption, ["Shots", *(text(s) for s in scopes)], rows)
