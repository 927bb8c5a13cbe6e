"""The report on two reports: what differs, by language, resource class and overall, with paired intervals."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xt.eval.report import page
from xt.eval.report.charts import basic
from xt.eval.report.charts.basic import Dot, Row, Scale, Series
from xt.eval.report.page import MINUS, Cell, figure, fixed, is_number, percent, points, text
from xt.eval.report.reading import CLASSES, Metrics, direction_label, get, language_name, resource


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


def names_of(metrics: Metrics) -> tuple[str, str]:
    """What the two sides are called."""
    found = [str(n) for n in get(metrics, "comparison", "names") or []]
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


def bounds_of(measure: Measure, bounds: object) -> str:
    """An interval of differences as text; empty without one."""
    if not isinstance(bounds, list | tuple) or len(bounds) != 2 or not all(is_number(b) for b in bounds):
        return ""
    return f"[{signed(measure, bounds[0])}, {signed(measure, bounds[1])}]"


def sentence(metrics: Metrics) -> str:
    """The comparison in words, HTML; empty without one."""
    ways = get(metrics, "comparison", "directions") or {}
    if not ways:
        return ""
    a, b = names_of(metrics)
    data = next(iter(ways.values()))
    overall, rows = get(data, "overall") or {}, get(data, "languages") or {}
    gap, bounds = get(overall, "difference", "accuracy"), get(overall, "ci", "accuracy")
    if not is_number(gap):
        return ""
    size = round(100 * abs(gap), 1)
    told = f"<b>{size:.1f} points {'more' if gap > 0 else 'less'} often</b> than" if size else "as often as"
    shown = bounds_of(MEASURES["accuracy"], bounds)
    sure = crosses(bounds)
    chance = " (this may be chance)" if sure is True and size else ""
    over = f"Over {len(rows)} languages" if len(rows) > 1 else "In one language"
    where = f", {label_of(next(iter(ways)))}" if next(iter(ways)) else ""
    first = f"{over}{text(where)}, {text(b)} is right {told} {text(a)} {shown}{chance}."
    change = get(overall, "difference", "ece")
    second = ""
    if is_number(change):
        way = "higher" if change > 0 else "lower"
        amount = f"<b>{fixed(abs(change))} {way}</b> {bounds_of(MEASURES['ece'], get(overall, 'ci', 'ece'))}"
        maybe = " (this may be chance)" if crosses(get(overall, "ci", "ece")) else ""
        second = f" Its calibration error is {amount}{maybe}."
    flagged = [r for r in rows.values() if get(r, "beyond_chance", "accuracy")]
    third = f" Accuracy differs beyond chance in {len(flagged)} of {len(rows)}." if len(rows) > 1 else ""
    return first + second + third


def headline(metrics: Metrics) -> Iterator[tuple[str, str, str]]:
    """The tiles of a comparison: differences in accuracy and ECE with their intervals; nothing without one."""
    ways = get(metrics, "comparison", "directions") or {}
    for way, data in list(ways.items())[:1]:
        for key, label in (("accuracy", "Accuracy, difference in points"), ("ece", "ECE, difference")):
            gap = get(data, "overall", "difference", key)
            if is_number(gap):
                bounds = bounds_of(MEASURES[key], get(data, "overall", "ci", key))
                yield label, signed(MEASURES[key], gap), "; ".join(x for x in (bounds, label_of(way)) if x)
        rows = get(data, "languages") or {}
        queries = sum(n for r in rows.values() if is_number(n := get(r, "n")))
        yield "Languages compared", fixed(len(rows), 0), f"{fixed(queries, 0)} queries of both"


def crosses(bounds: object) -> bool | None:
    """Whether an interval holds 0; None without one."""
    if not isinstance(bounds, list | tuple) or len(bounds) != 2 or not all(is_number(b) for b in bounds):
        return None
    return bool(bounds[0] <= 0 <= bounds[1])


def comparison(metrics: Metrics) -> str:
    """What was compared, then for each direction the charts and tables."""
    data = metrics.get("comparison") or {}
    ways = data.get("directions") or {}
    if not ways:
        return ""
    a, b = names_of(metrics)
    level = data.get("level") if is_number(data.get("level")) else 0.05
    how = (
        f"Differences are <b>{text(b)} less {text(a)}</b>. Intervals are of 95%, from {fixed(data.get('repeats'), 0)} "
        "resamples that hold the same queries of both sides; means give every language the same weight. A filled mark "
        f"is <b>beyond chance</b>: all filled ones of a chart hold together at {percent(level, 0)} false alarms "
        "(Holm's correction)."
    )
    parts = [sides(metrics)]
    several = len(ways) > 1
    for number, (way, part) in enumerate(ways.items()):
        body = means(metrics, way, part) + drawings(metrics, part) + table(metrics, way, part)
        heading = f"<h3>{text(label_of(way))}</h3>\n" if several and way else ""
        parts.append(heading + body if number == 0 else page.details(f"The same, {label_of(way)}", body))
    return page.section("comparison", "Comparison", how, *parts)


def sides(metrics: Metrics) -> str:
    """The two reports, their methods, and what only one of them has."""
    data = metrics.get("comparison") or {}
    rows = []
    for name, side in zip(names_of(metrics), (data.get("a") or {}, data.get("b") or {}), strict=True):
        shown = [Cell(text(side.get(k))) for k in ("encoder", "method")]
        where = Cell(f"<code>{text(side.get('path'))}</code>")
        rows.append(
            [Cell(text(name)), *shown, where, Cell(f'<code class="hash">{text(str(side.get("hash"))[:16])}</code>')]
        )
    told = []
    for way, (first, second) in ((w, v) for w, v in (data.get("left_out") or {}).items() if len(v) == 2):
        for name, codes in zip(names_of(metrics), (first, second), strict=True):
            if codes:
                listed = ", ".join(language_name(metrics, str(c)) for c in codes)
                told.append(f"Only {name} has {listed}{f' ({label_of(way)})' if way else ''}: left out.")
    for name, only in zip(names_of(metrics), data.get("only") or ((), ()), strict=False):
        told += [f"Only {name} has {label_of(w)}: left out." for w in only]
    notes = "".join(f'<p class="note">{text(note)}</p>\n' for note in dict.fromkeys(told))
    return page.table("What is compared", ["", "Encoder", "Method", "Report", "Hash"], rows) + notes


def means(metrics: Metrics, way: str, part: Metrics) -> str:
    """Both sides and their difference, overall and by resource class, for every measure."""
    a, b = names_of(metrics)
    classes = part.get("by_resource") or {}
    order = [g for g in CLASSES if g in classes] + [g for g in classes if g not in CLASSES]
    groups = {"all": part.get("overall") or {}, **{g: classes[g] for g in order}}
    rows: list[Sequence[Cell] | str] = []
    for key, measure in MEASURES.items():
        lines = []
        for group, data in groups.items():
            gap = get(data, "difference", key)
            if is_number(gap):
                count = get(data, "n_languages")
                name = f"{CLASSES.get(group, str(group).capitalize())} ({fixed(count, 0)})"
                both = [figure(get(data, s, key), shown(measure, get(data, s, key))) for s in ("a", "b")]
                aside = bounds_of(measure, get(data, "ci", key))
                clear = crosses(get(data, "ci", key)) is False
                sign = figure(gap, signed(measure, gap), aside)
                verdict = Cell(verdict_of(measure, gap) if clear else "")
                lines.append([Cell(text(name)), *both, sign, verdict])
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


def drawings(metrics: Metrics, part: Metrics) -> str:
    """A dot with its interval for each language, greatest difference first, for accuracy and ECE."""
    out = ""
    for key in CHARTED:
        measure, rows, reach = MEASURES[key], [], 0.0
        for code, row in (part.get("languages") or {}).items():
            gap, bounds = get(row, "difference", key), get(row, "ci", key)
            if not is_number(gap):
                continue
            beyond = bool(get(row, "beyond_chance", key))
            bounds = bounds if crosses(bounds) is not None else None
            reach = max([reach, abs(gap), *(abs(x) for x in bounds or ())])
            name = language_name(metrics, code)
            said = f"{name}: {measure.label} {signed(measure, gap)} {bounds_of(measure, bounds)}"
            said += ", beyond chance" if beyond else ", may be chance"
            line = Row(
                name, resource(metrics, code), signed(measure, gap), said, [Dot(LOOKS[beyond], gap, bounds)], 0.0
            )
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


def table(metrics: Metrics, way: str, part: Metrics) -> str:
    """Every language and measure; a star marks what is beyond chance. Sortable."""
    rows = []
    found = part.get("languages") or {}
    keys = [k for k in MEASURES if any(is_number(get(r, "difference", k)) for r in found.values())]
    for code in sorted(found, key=lambda c: language_name(metrics, c).casefold()):
        row, name = found[code], language_name(metrics, code)
        cells = [Cell(f'{text(name)} <small class="code">{text(code)}</small>', name)]
        cells.append(figure(row.get("n"), fixed(row.get("n"), 0)))
        for key in keys:
            measure, gap = MEASURES[key], get(row, "difference", key)
            star = "*" if get(row, "beyond_chance", key) else ""
            cells += [figure(get(row, s, key), shown(measure, get(row, s, key))) for s in ("a", "b")]
            cells.append(figure(gap, signed(measure, gap) + star, bounds_of(measure, get(row, "ci", key))))
        rows.append(cells)
    a, b = names_of(metrics)
    spans = [("", 2), *((text(MEASURES[k].label), 3) for k in keys)]
    head = ["Language", "n", *(h for _ in keys for h in (text(a), text(b), "difference"))]
    tail = f", {label_of(way)}" if way else ""
    caption = f"All languages{tail}; *: beyond chance. Accuracy differs in points. Select a heading to sort."
    return page.table(caption, head, rows, spans=spans, sort=True, tall=len(rows) > 14)
