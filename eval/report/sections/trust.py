"""The report on trust, language by language: reliability, what abstaining buys, what labels add."""

from collections.abc import Sequence

from xt.eval.report import page
from xt.eval.report.charts import trust
from xt.eval.report.charts.basic import Scale
from xt.eval.report.charts.trust import Line
from xt.eval.report.page import Cell, figure, fixed, is_number, percent, text, words
from xt.eval.report.reading import Block, Metrics, blocks, excess, get, language_name, resource

LOOKS = {"all": ("ink", ""), "high": ("second", "dash"), "mid": ("third", "dots2"), "low": ("accent", "")}
SHOWN = 12
"""Small diagrams that are not folded."""


def reliability(metrics: Metrics) -> str:
    """A small reliability diagram for each language, those farthest from perfect calibration first."""
    found = [(b, panels) for b in blocks(metrics) if (panels := diagrams(metrics, b))]
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


def diagrams(metrics: Metrics, block: Block) -> list[str]:
    """One figure a language."""
    found = []
    for code, row in block.languages.items():
        name, gap, ece = language_name(metrics, code), excess(row), row.get("ece")
        drawing = trust.small_reliability(
            row.get("reliability") or [], block.series, f"{name}: stated against right, ECE {fixed(ece)}"
        )
        if drawing:
            aside = f"ECE {fixed(ece)}" + (f", excess {fixed(gap)}" if gap is not None else "")
            far = gap if gap is not None else ece if is_number(ece) else 0.0
            found.append(
                (far, f"<figure><figcaption><b>{text(name)}</b>{text(aside)}</figcaption>{drawing}</figure>\n")
            )
    return [html for _, html in sorted(found, key=lambda pair: -pair[0])]


def grid(block: Block, panels: Sequence[str]) -> str:
    """The figures of one block, the first of them open."""
    label = text(block.shown.get("label") or block.key)
    rest = f'<div class="small-multiples">\n{"".join(panels[SHOWN:])}</div>\n' if len(panels) > SHOWN else ""
    order = '<p class="note">Farthest from perfect calibration first.</p>\n' if len(panels) > 1 else ""
    return (
        f'<h3 class="who">{block.title} <small>{label}</small></h3>\n{order}'
        f'<div class="small-multiples">\n{"".join(panels[:SHOWN])}</div>\n'
        + page.details(f"The other {len(panels) - SHOWN} languages", rest, printed=False)
    )


# -- risk and coverage -------------------------------------------------------------------------------------------------


def risk(metrics: Metrics) -> str:
    """Curves of risk by coverage, and what is answered at some of them."""
    found = [(b, lines) for b in blocks(metrics) if (lines := risk_lines(metrics, b))]
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


def points_of(curve: object) -> list[tuple[float, float]]:
    """A curve's points that are numbers, ascending."""
    pairs = [p for p in curve if trust.is_pair(p)] if isinstance(curve, list | tuple) else []
    return sorted((float(a), float(b)) for a, b in pairs)


def risk_lines(metrics: Metrics, block: Block) -> list[Line]:
    """Overall, and the mean over the languages of each resource class."""
    curves = {c: points for c, row in block.languages.items() if (points := points_of(row.get("risk_coverage")))}
    lines = []
    whole = points_of(block.shown.get("risk_coverage"))
    if whole:
        lines.append(Line("all", *LOOKS["all"], whole))
    for group in ("high", "mid", "low"):
        members = [p for c, p in curves.items() if resource(metrics, c) == group]
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


def shots(metrics: Metrics) -> str:
    """What labels in the language itself add: the error of each scope by shots."""
    parts = [(b, part) for b in blocks(metrics) if (part := shots_table(b))]
    how = (
        "A <b>shot</b> is one query of the language whose right answer is known. Fitting a temperature on few of them "
        "can be worse than on none; <b>shrunk</b> pulls each language's temperature towards what is known without "
        "labels, the more the fewer shots there are."
    )
    folded = "".join(page.details(f"The same, {b.plain}", part) for b, part in parts[1:])
    return page.section("shots", "How many labels a language needs", how, *(p for _, p in parts[:1]), folded)


def shots_table(block: Block) -> str:
    """A row for each number of shots, a column for each scope; the row of none is what needs no labels."""
    data = {n: row for n, row in (block.source.get("shots") or {}).items() if hasattr(row, "items")}
    scopes = list(dict.fromkeys(s for row in data.values() for s in row))
    if not scopes:
        return ""

    def cell(row: object) -> Cell:
        aside = page.interval(get(row, "ece_ci"))
        gap = excess(row)
        return figure(
            get(row, "ece"), fixed(get(row, "ece")), aside or (f"excess {fixed(gap)}" if gap is not None else "")
        )

    rows = [[words("0"), *(cell(block.shown.get("overall")) for _ in scopes)]]
    for n in sorted(data, key=lambda k: int(k) if str(k).isdigit() else 0):
        rows.append([words(n), *(cell(data[n].get(s)) for s in scopes)])
    label = block.shown.get("label") or block.key
    caption = f"Mean ECE over languages by shots, {block.plain}; at 0 shots: {label}"
    return page.table(caption, ["Shots", *(text(s) for s in scopes)], rows)
