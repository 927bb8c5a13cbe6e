"""The report on two reports: what differs, by language, resource class and overall, with paired intervals."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from xt.core.pages import numbers
from xt.core.pages.numbers import fixed, percent, points
from xt.core.pages.rows import ACCENT, Dot, Row, Series, key, legend
from xt.core.pages.rows import chart as row_chart
from xt.core.pages.svg import Scale, tag
from xt.core.pages.tables import Cell, figure, table, words
from xt.core.results.comparison import Comparison, Differences
from xt.core.results.records import Interval
from xt.core.results.report import Report
from xt.eval.report.reading import CLASSES, by_name, direction_label, language_cell, language_name, macros, resource

html = macros("compare")


@dataclass(frozen=True)
class Measure:
    """How a measure is shown."""

    label: str
    share: bool
    """In percent, its differences in points."""
    better: int
    """1 where more is better, -1 where less is."""


MEASURES = {
    "accuracy": Measure("Accuracy", True, 1),
    "ece": Measure("ECE", False, -1),
    "nll_binary": Measure("NLL", False, -1),
    "brier": Measure("Brier", False, -1),
    "auroc": Measure("AUROC", False, 1),
    "aurc": Measure("AURC", False, -1),
}
CHARTED = ("accuracy", "ece")
LOOKS = {True: ACCENT, False: Series("third", "ring")}
"""A difference beyond chance, and one that may be chance."""


def names_of(report: Report) -> tuple[str, str]:
    """Return what the two sides are called."""
    found = report.comparison.names if report.comparison else []
    return (found[0], found[1]) if len(found) == 2 else ("A", "B")


def label_of(direction: str) -> str:
    """A direction in words; empty for tasks without one."""
    return direction_label(direction) if direction else ""


def signed(measure: Measure, value: float | None) -> str:
    """Return a difference with its sign: in points, or with three decimals."""
    return points(value) if measure.share else numbers.signed(value)


def bounds_of(measure: Measure, bounds: Interval | None) -> str:
    """An interval of differences as text; empty without one."""
    return f"[{signed(measure, bounds[0])}, {signed(measure, bounds[1])}]" if bounds else ""


def sentence(report: Report) -> Markup:
    """Return the comparison in words; empty without one."""
    directions = report.comparison.directions if report.comparison else {}
    if not directions:
        return Markup()
    direction, data = next(iter(directions.items()))
    gap, bounds = data.overall.difference.get("accuracy"), data.overall.ci.get("accuracy")
    if gap is None:
        return Markup()
    change, around = data.overall.difference.get("ece"), data.overall.ci.get("ece")
    ece = {"change": change, "bounds": bounds_of(MEASURES["ece"], around), "chance": crosses(around)}
    return html.sentence(
        *names_of(report),
        label_of(direction),
        round(100 * abs(gap), 1),
        gap > 0,
        bounds_of(MEASURES["accuracy"], bounds),
        crosses(bounds),
        None if change is None else ece,
        sum(bool(row.beyond_chance.get("accuracy")) for row in data.languages.values()),
        len(data.languages),
    )


def headline(report: Report) -> Iterator[tuple[str, str, str]]:
    """The tiles of a comparison: differences in accuracy and ECE with their intervals; nothing without one."""
    directions = report.comparison.directions if report.comparison else {}
    for direction, data in list(directions.items())[:1]:
        for name, label in (("accuracy", "Accuracy, difference in points"), ("ece", "ECE, difference")):
            gap = data.overall.difference.get(name)
            if gap is not None:
                bounds = bounds_of(MEASURES[name], data.overall.ci.get(name))
                yield label, signed(MEASURES[name], gap), "; ".join(x for x in (bounds, label_of(direction)) if x)
        queries = sum(r.n or 0 for r in data.languages.values())
        yield "Languages compared", fixed(len(data.languages), 0), f"{fixed(queries, 0)} queries of both"


def crosses(bounds: Interval | None) -> bool | None:
    """Whether an interval holds 0; None without one."""
    return bool(bounds[0] <= 0 <= bounds[1]) if bounds else None


def comparison(report: Report) -> Markup:
    """Return what was compared, then for each direction the charts and tables."""
    data = report.comparison
    if data is None or not data.directions:
        return Markup()
    parts = [
        (
            label_of(direction),
            means(report, direction, part) + charts(report, part) + language_table(report, direction, part),
        )
        for direction, part in data.directions.items()
    ]
    level = 0.05 if data.level is None else data.level
    names = names_of(report)
    return html.comparison(*names, data.repeats, level, sides(report, data), left_out(report, data), parts)


def sides(report: Report, data: Comparison) -> Markup:
    """Return the two reports and their methods."""
    rows = [
        [
            *map(words, (name, side.encoder, side.method)),
            Cell(tag("code", str(side.path))),
            Cell(tag("code", digest, class_="hash")),
        ]
        for name, side in zip(names_of(report), (data.a, data.b), strict=True)
        for digest in [str(side.hash)[:16]]
    ]
    return table("What is compared", ["", "Encoder", "Method", "Report", "Hash"], rows)


def left_out(report: Report, data: Comparison) -> list[str]:
    """Say what only one of the two has, each once."""
    notes = []
    for direction, languages in data.left_out.items():
        for name, codes in zip(names_of(report), languages, strict=False):
            if codes:
                listed = ", ".join(language_name(report, c) for c in codes)
                notes.append(f"Only {name} has {listed}{f' ({label_of(direction)})' if direction else ''}: left out.")
    for name, only in zip(names_of(report), data.only, strict=False):
        notes += [f"Only {name} has {label_of(direction)}: left out." for direction in only]
    return list(dict.fromkeys(notes))


def means(report: Report, direction: str, part: Differences) -> Markup:
    """Return both sides and their difference, overall and by resource class, for every measure."""
    a, b = names_of(report)
    classes = part.by_resource
    order = [g for g in CLASSES if g in classes] + [g for g in classes if g not in CLASSES]
    groups = {"all": part.overall, **{g: classes[g] for g in order}}
    rows: list[Sequence[Cell] | str] = []
    for measured, measure in MEASURES.items():
        lines = []
        for group, data in groups.items():
            gap, bounds = data.difference.get(measured), data.ci.get(measured)
            if gap is not None:
                name = f"{CLASSES.get(group, group.capitalize())} ({fixed(data.n_languages, 0)})"
                both = [figure(s.get(measured), shown(measure, s.get(measured))) for s in (data.a, data.b)]
                better = "✓ better" if gap * measure.better > 0 else "✗ worse"
                sign = figure(gap, signed(measure, gap), bounds_of(measure, bounds))
                verdict = Cell(tag("span", better, class_="ok") if crosses(bounds) is False else "")
                lines.append([words(name), *both, sign, verdict])
        if lines:
            unit = ", difference in points" if measure.share else ""
            more = "more" if measure.better > 0 else "less"
            rows += [measure.label + " " + tag("small", f"{more} is better{unit}"), *lines]
    head = ["Languages", a, b, "Difference", ""]
    tail = f", {label_of(direction)}" if direction else ""
    return table(f"Means over languages{tail}, with 95% intervals of the differences", head, rows)


def shown(measure: Measure, value: object) -> str:
    """A value of one side."""
    return percent(value) if measure.share else fixed(value)


def charts(report: Report, part: Differences) -> Markup:
    """Return a dot with its interval for each language, greatest difference first, for accuracy and ECE."""
    out = Markup()
    signs = legend([(key(LOOKS[True]), "beyond chance"), (key(LOOKS[False]), "may be chance")])
    for measured in CHARTED:
        measure, rows, reach = MEASURES[measured], [], 0.0
        for code, row in part.languages.items():
            gap, bounds = row.difference.get(measured), row.ci.get(measured)
            if gap is None:
                continue
            beyond = bool(row.beyond_chance.get(measured))
            reach = max([reach, abs(gap), *(abs(x) for x in bounds or ())])
            name = language_name(report, code)
            said = f"{name}: {measure.label} {signed(measure, gap)} {bounds_of(measure, bounds)}"
            said += ", beyond chance" if beyond else ", may be chance"
            line = Row(name, resource(report, code), signed(measure, gap), said, [Dot(LOOKS[beyond], gap, bounds)], 0.0)
            rows.append((gap, line))
        if rows:
            ordered = [line for _, line in sorted(rows, key=lambda pair: -pair[0] * measure.better)]
            scale = Scale(-reach or -0.01, reach or 0.01)
            drawing = row_chart(ordered, scale, 5, "percent" if measure.share else "decimal")
            out += html.chart(measure.label, measure.share, measure.better > 0, signs, drawing)
    return out


def language_table(report: Report, direction: str, part: Differences) -> Markup:
    """Return every language and measure; a star marks what is beyond chance. Sortable."""
    rows = []
    found = part.languages
    keys = [k for k in MEASURES if any(r.difference.get(k) is not None for r in found.values())]
    for code in by_name(report, found):
        row = found[code]
        cells = [language_cell(report, code), figure(row.n, fixed(row.n, 0))]
        for name in keys:
            measure, gap = MEASURES[name], row.difference.get(name)
            star = "*" if row.beyond_chance.get(name) else ""
            cells += [figure(s.get(name), shown(measure, s.get(name))) for s in (row.a, row.b)]
            cells.append(figure(gap, signed(measure, gap) + star, bounds_of(measure, row.ci.get(name))))
        rows.append(cells)
    spans = [("", 2), *((MEASURES[k].label, 3) for k in keys)]
    head = ["Language", "n", *(h for _ in keys for h in (*names_of(report), "difference"))]
    tail = f", {label_of(direction)}" if direction else ""
    caption = f"All languages{tail}; *: beyond chance. Accuracy differs in points. Select a heading to sort."
    return table(caption, head, rows, spans=spans, sort=True, tall=len(rows) > 14)
