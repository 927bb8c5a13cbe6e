"""The report on trust, language by language: reliability, what abstaining buys, what labels add."""

from collections.abc import Sequence

from markupsafe import Markup

from xt.core.pages.curves import Line, at_step, curves
from xt.core.pages.numbers import difference, fixed, interval, percent, signed
from xt.core.pages.svg import Scale
from xt.core.pages.tables import Cell, figure, table, words
from xt.core.results.calibration import Measures, Shots
from xt.core.results.report import Report
from xt.eval.report.charts.reliability import small_reliability
from xt.eval.report.reading import Block, blocks, language_name, macros, resource

html = macros("trust")
Panel = tuple[str, str, Markup]
"""A language, its figures, its diagram."""
LOOKS = {"all": ("ink", ""), "high": ("second", "dash"), "mid": ("third", "dots2"), "low": ("accent", "")}
SHOWN = 12
"""Small diagrams that are not folded."""


def reliability(report: Report) -> Markup:
    """Return a small reliability diagram for each language, those farthest from perfect calibration first."""
    parts = [(b.plain, grid(b, panels)) for b in blocks(report) if (panels := diagrams(report, b))]
    return html.reliability(parts) if parts else Markup()


def diagrams(report: Report, block: Block) -> list[Panel]:
    """Return one diagram a language."""
    found = []
    for code, row in block.languages.items():
        name, gap, ece = language_name(report, code), row.excess, row.ece
        title = f"{name}: stated against right, ECE {fixed(ece)}"
        if drawing := small_reliability(row.reliability, block.series, title):
            aside = f"gap {signed(row.off)}, ECE {fixed(ece)}" + (f", excess {fixed(gap)}" if gap is not None else "")
            found.append((gap if gap is not None else ece or 0.0, (name, aside, drawing)))
    return [panel for _, panel in sorted(found, key=lambda pair: -pair[0])]


def grid(block: Block, panels: Sequence[Panel]) -> Markup:
    """Return the diagrams of one block, the first of them open."""
    return html.grid(block.title, block.label, panels[:SHOWN], panels[SHOWN:])


# -- risk and coverage -------------------------------------------------------------------------------------------------


def risk(report: Report) -> Markup:
    """Return curves of risk by coverage, and what is answered at some of them."""
    parts = []
    for block in blocks(report):
        if lines := risk_lines(report, block):
            title = f"Risk by coverage, {block.plain}"
            drawing = curves(lines, title, x_label="coverage", y_label="risk", x=Scale(0, 1))
            rows = []
            for line in lines:
                heights = [at_step(line.points, x) for x in STEPS]
                rows.append([words(line.label), *(figure(h, percent(h)) for h in heights)])
            head = ["Languages", *(f"{percent(x, 0)} answered" for x in STEPS)]
            shares = table("Share of wrong answers among those given, when only the surest are given", head, rows)
            parts.append((block.plain, html.curves(block.title, drawing, shares)))
    return html.risk(parts) if parts else Markup()


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
        heights = [at_step(c, i / steps) for c in curves]
        kept = [h for h in heights if h is not None]
        if len(kept) == len(curves):
            found.append((i / steps, sum(kept) / len(kept)))
    return found


# -- shots -------------------------------------------------------------------------------------------------------------


def shots(report: Report) -> Markup:
    """Return what labels in the language itself add: the error of each scope by shots."""
    parts = [(b.plain, part) for b in blocks(report) if (part := shots_table(b))]
    return html.shots(parts) if parts else Markup()


def shots_table(block: Block) -> Markup:
    """Return a row for each number of shots, a column for each scope; the row of none is what needs no labels."""
    data = block.source.shots
    scopes = list(dict.fromkeys(s for row in data.values() for s in row))
    if not scopes:
        return Markup()

    def cell(row: Measures | Shots) -> Cell:
        gap = difference(row.ece, row.ece_null)
        aside = interval(row.ece_ci) or (f"excess {fixed(gap)}" if gap is not None else "")
        return figure(row.ece, fixed(row.ece), aside)

    rows = [[words("0"), *(cell(block.shown.overall) for _ in scopes)]]
    for n in sorted(data, key=lambda k: int(k) if k.isdigit() else 0):
        rows.append([words(n), *(cell(data[n].get(s) or Shots()) for s in scopes)])
    caption = f"Mean ECE over languages by shots, {block.plain}; at 0 shots: {block.label}"
    return table(caption, ["Shots", *scopes], rows)
