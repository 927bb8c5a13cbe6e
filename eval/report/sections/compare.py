"""The report on two reports: what differs, by language, resource class and overall, with paired intervals."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xt.core.results.report import Comparison, Differences, Interval, Report
from xt.eval.report import page
from xt.eval.report.charts import basic
from xt.eval.report.charts.basic import Dot, Row, Scale, Series
from xt.eval.report.page import MINUS, Cell, figure, fixed, is_number, percent, points, text, words
from xt.eval.report.reading import CLASSES, by_name, direction_label, language_name, resource


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
LOOKS = {True: Series("accent", "disc"), False: Series("third", "ring")}
"""A difference beyond chance, and one that may be chance."""


def names_of(report: Report) -> tuple[str, str]:
    """What the two sides are called."""
    found = report.comparison.names if report.comparison else []
    return (found[0], found[1]) if len(found) == 2 else ("A", "B")


def label_of(way: str) -> str:
    """A direction in words; empty for tasks without one."""
    return direction_label(way) if way else ""


def signed(measure: Measure, value: object) -> str:
    """A difference with its sign: in points, or with three decimals."""
    if not is_number(value):
        return page.DASH
    if measure.share:
        return points(value)
    rounded = round(value, 3)
    return f"+{rounded:.3f}" if rounded > 0 else f"{abs(rounded):.3f}" if rounded == 0 else f"{MINUS}{-rounded:.3f}"


def bounds_of(measure: Measure, bounds: Interval | None) -> str:
    """An interval of differences as text; empty without one."""
    return f"[{signed(measure, bounds[0])}, {signed(measure, bounds[1])}]" if bounds else ""


def sentence(report: Report) -> str:
    """The comparison in words, HTML; empty without one."""
    ways = report.comparison.directions if report.comparison else {}
    if not ways:
        return ""
    a, b = names_of(report)
    direction, data = next(iter(ways.items()))
    overall, rows = data.overall, data.languages
    gap, bounds = overall.difference.get("accuracy"), overall.ci.get("accuracy")
    if gap is None:
        return ""
    size = round(100 * abs(gap), 1)
    told = f"<b>{size:.1f} points {'more' if gap > 0 else 'less'} often</b> than" if size else "as often as"
    shown = bounds_of(MEASURES["accuracy"], bounds)
    sure = crosses(bounds)
    chance = " (this may be chance)" if sure is True and size else ""
    over = f"Over {len(rows)} languages" if len(rows) > 1 else "In one language"
    where = f", {label_of(direction)}" if direction else ""
    first = f"{over}{text(where)}, {text(b)} is right {told} {text(a)} {shown}{chance}."
    change, bounds = overall.difference.get("ece"), overall.ci.get("ece")
    second = ""
    if change is not None:
        way = "higher" if change > 0 else "lower"
        amount = f"<b>{fixed(abs(change))} {way}</b> {bounds_of(MEASURES['ece'], bounds)}"
        maybe = " (this may be chance)" if crosses(bounds) else ""
        second = f" Its calibration error is {amount}{maybe}."
    flagged = [r for r in rows.values() if r.beyond_chance.get("accuracy")]
    third = f" Accuracy differs beyond chance in {len(flagged)} of {len(rows)}." if len(rows) > 1 else ""
    return first + second + third


def headline(report: Report) -> Iterator[tuple[str, str, str]]:
    """The tiles of a comparison: differences in accuracy and ECE with their intervals; nothing without one."""
    ways = report.comparison.directions if report.comparison else {}
    for way, data in list(ways.items())[:1]:
        for key, label in (("accuracy", "Accuracy, difference in points"), ("ece", "ECE, difference")):
            gap = data.overall.difference.get(key)
            if gap is not None:
                bounds = bounds_of(MEASURES[key], data.overall.ci.get(key))
                yield label, signed(MEASURES[key], gap), "; ".join(x for x in (bounds, label_of(way)) if x)
        queries = sum(r.n or 0 for r in data.languages.values())
        yield "Languages compared", fixed(len(data.languages), 0), f"{fixed(queries, 0)} queries of both"


def crosses(bounds: Interval | None) -> bool | None:
    """Whether an interval holds 0; None without one."""
    return bool(bounds[0] <= 0 <= bounds[1]) if bounds else None


def comparison(report: Report) -> str:
    """What was compared, then for each direction the charts and tables."""
    data = report.comparison
    if data is None or not data.directions:
        return ""
    a, b = names_of(report)
    level = 0.05 if data.level is None else data.level
    how = (
        f"Differences are <b>{text(b)} less {text(a)}</b>. Intervals are of 95%, from {fixed(data.repeats, 0)} "
        "resamples that hold the same queries of both sides; means give every language the same weight. A filled mark "
        f"is <b>beyond chance</b>: all filled ones of a chart hold together at {percent(level, 0)} false alarms "
        "(Holm's correction)."
    )
    parts = [sides(report, data)]
    several = len(data.directions) > 1
    for number, (way, part) in enumerate(data.directions.items()):
        body = means(report, way, part) + drawings(report, part) + table(report, way, part)
        heading = f"<h3>{text(label_of(way))}</h3>\n" if several and way else ""
        parts.append(heading + body if number == 0 else page.details(f"The same, {label_of(way)}", body))
    return page.section("comparison", "Comparison", how, *parts)


def sides(report: Report, data: Comparison) -> str:
    """The two reports, their methods, and what only one of them has."""
    rows = []
    for name, side in zip(names_of(report), (data.a, data.b), strict=True):
        where, digest = Cell(f"<code>{text(side.path)}</code>"), text(str(side.hash)[:16])
        rows.append(
            [*map(words, (name, side.encoder, side.method)), where, Cell(f'<code class="hash">{digest}</code>')]
        )
    told = []
    for way, lone in data.left_out.items():
        for name, codes in zip(names_of(report), lone, strict=False):
            if codes:
                listed = ", ".join(language_name(report, c) for c in codes)
                told.append(f"Only {name} has {listed}{f' ({label_of(way)})' if way else ''}: left out.")
    for name, only in zip(names_of(report), data.only, strict=False):
        told += [f"Only {name} has {label_of(w)}: left out." for w in only]
    notes = "".join(f'<p class="note">{text(note)}</p>\n' for note in dict.fromkeys(told))
    return page.table("What is compared", ["", "Encoder", "Method", "Report", "Hash"], rows) + notes


def means(report: Report, way: str, part: Differences) -> str:
    """Both sides and their difference, overall and by resource class, for every measure."""
    a, b = names_of(report)
    classes = part.by_resource
    order = [g for g in CLASSES if g in classes] + [g for g in classes if g not in CLASSES]
    groups = {"all": part.overall, **{g: classes[g] for g in order}}
    rows: list[Sequence[Cell] | str] = []
    for key, measure in MEASURES.items():
        lines = []
        for group, data in groups.items():
            gap, bounds = data.difference.get(key), data.ci.get(key)
            if gap is not None:
                name = f"{CLASSES.get(group, group.capitalize())} ({fixed(data.n_languages, 0)})"
                both = [figure(s.get(key), shown(measure, s.get(key))) for s in (data.a, data.b)]
                sign = figure(gap, signed(measure, gap), bounds_of(measure, bounds))
                verdict = Cell(verdict_of(measure, gap) if crosses(bounds) is False else "")
                lines.append([words(name), *both, sign, verdict])
        if lines:
            unit = ", difference in points" if measure.share else ""
            more = "more" if measure.better > 0 else "less"
            rows += [f"{text(measure.label)} <small>{more} is better{unit}</small>", *lines]
    head = ["Languages", text(a), text(b), "Difference", ""]
    tail = f", {label_of(way)}" if way else ""
    return page.table(f"Means over languages{tail}, with 95% intervals of the differences", head, rows)


def verdict_of(measure: Measure, gap: float) -> str:
    """Better or worse, in a sign and a word."""
    return f'<span class="ok">{"✓ better" if gap * measure.better > 0 else "✗ worse"}</span>'


def shown(measure: Measure, value: object) -> str:
    """A value of one side."""
    return percent(value) if measure.share else fixed(value)


def drawings(report: Report, part: Differences) -> str:
    """A dot with its interval for each language, greatest difference first, for accuracy and ECE."""
    out = ""
    for key in CHARTED:
        measure, rows, reach = MEASURES[key], [], 0.0
        for code, row in part.languages.items():
            gap, bounds = row.difference.get(key), row.ci.get(key)
            if gap is None:
                continue
            beyond = bool(row.beyond_chance.get(key))
            reach = max([reach, abs(gap), *(abs(x) for x in bounds or ())])
            name = language_name(report, code)
            said = f"{name}: {measure.label} {signed(measure, gap)} {bounds_of(measure, bounds)}"
            said += ", beyond chance" if beyond else ", may be chance"
            line = Row(name, resource(report, code), signed(measure, gap), said, [Dot(LOOKS[beyond], gap, bounds)], 0.0)
            rows.append((gap, line))
        if not rows:
            continue
        scale = Scale(-reach or -0.01, reach or 0.01)
        ordered = [line for _, line in sorted(rows, key=lambda pair: -pair[0] * measure.better)]
        unit = " in points" if measure.share else ""
        side = "right" if measure.better > 0 else "left"
        legend = basic.legend([(basic.key(LOOKS[True]), "beyond chance"), (basic.key(LOOKS[False]), "may be chance")])
        at = basic.ticks(scale.low, scale.high, 5)
        out += (
            f"<h3>{text(measure.label)} by language</h3>\n"
            f'<p class="note">Difference{unit}, what got best first; better is to the {side} of the line.</p>\n{legend}'
            + basic.dot_chart(ordered, scale, at, "percent" if measure.share else "decimal", two=len(ordered) > 12)
        )
    return out


def table(report: Report, way: str, part: Differences) -> str:
    """Every language and measure; a star marks what is beyond chance. Sortable."""
    rows = []
    found = part.languages
    keys = [k for k in MEASURES if any(r.difference.get(k) is not None for r in found.values())]
    for code in by_name(report, found):
        row, name = found[code], language_name(report, code)
        cells = [Cell(f'{text(name)} <small class="code">{text(code)}</small>', name)]
        cells.append(figure(row.n, fixed(row.n, 0)))
        for key in keys:
            measure, gap = MEASURES[key], row.difference.get(key)
            star = "*" if row.beyond_chance.get(key) else ""
            cells += [figure(s.get(key), shown(measure, s.get(key))) for s in (row.a, row.b)]
            cells.append(figure(gap, signed(measure, gap) + star, bounds_of(measure, row.ci.get(key))))
        rows.append(cells)
    a, b = names_of(report)
    spans = [("", 2), *((text(MEASURES[k].label), 3) for k in keys)]
    head = ["Language", "n", *(h for _ in keys for h in (text(a), text(b), "difference"))]
    tail = f", {label_of(way)}" if way else ""
    caption = f"All languages{tail}; *: beyond chance. Accuracy differs in points. Select a heading to sort."
    return page.table(caption, head, rows, spans=spans, sort=True, tall=len(rows) > 14)
