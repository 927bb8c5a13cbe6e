"""The report on quality: retrieval and calibration."""

from collections.abc import Iterator, Sequence
from statistics import median

from markupsafe import Markup

from xt.core.pages.numbers import difference, fixed, interval, percent, points, signed
from xt.core.pages.rows import Dot, Row, Series, chart, key, legend, reference_key
from xt.core.pages.svg import Scale, tag
from xt.core.pages.tables import Cell, figure, table, words
from xt.core.results.calibration import Bin, Measures, Method
from xt.core.results.gaps import Gaps, gaps_of
from xt.core.results.report import Encoder, Report, RetrievalRow
from xt.eval.report.charts.reliability import reliability
from xt.eval.report.reading import (
    CLASSES,
    before_after,
    by_name,
    calibrated,
    calibrated_codes,
    direction_label,
    encoders,
    language_cell,
    language_name,
    language_of,
    macros,
    mean_of,
    methods_of,
    name_of,
    resource,
    retrieval_of,
    retrieved,
    retrieved_codes,
    who,
)
from xt.eval.report.sections.groups import beside, conventions, groups

html = macros("quality")


def encoder_legend(report: Report) -> Markup:
    """Return what the marks of the encoders mean."""
    entries = []
    for encoder, series in encoders(report):
        label = encoder.label
        named = f"{name_of(encoder)} ({label})" if label and label != name_of(encoder) else name_of(encoder)
        entries.append((key(series), named))
    return legend(entries)


def retrieval(report: Report) -> Markup:
    """Return means by resource class, a row for each language, the full table."""
    directions = retrieved(report)
    if not directions:
        return Markup()
    rows = [r for e in report.encoders for d in directions for r in retrieval_of(e, d).languages.values()]
    candidates = [r.candidates for r in rows if r.candidates is not None]
    return html.retrieval(
        int(median(candidates)) if candidates else None,
        report.task.description,
        conventions(report, directions),
        encoder_legend(report),
        means(report, directions),
        direction_label(directions[0]),
        [(direction_label(d), language_chart(report, d)) for d in directions],
        groups(report, directions[0]),
        language_table(report, directions),
    )


def means(report: Report, directions: Sequence[str]) -> Markup:
    """Return mean accuracy by resource class, for every encoder and direction."""
    found = encoders(report)
    known = retrieved_codes(report, directions[0])
    counts = {g: sum(resource(report, c) == g for c in known) for g in CLASSES} | {"all": len(known)}
    shown = [g for g in CLASSES if any(mean_of(report, e, w, g) is not None for e, _ in found for w in directions)]
    rows: list[Sequence[Cell] | str] = []
    for direction in directions:
        values = [[mean_of(report, e, direction, g) for g in shown] for e, _ in found]
        rows.append(direction_label(direction))
        for (e, s), line in zip(found, values, strict=True):
            rows.append([Cell(who(e, s)), *(figure(v, percent(v)) for v in line)])
            for label, more in beside(e, direction):
                rows.append([Cell(tag("small", label)), *(figure(more.get(g), percent(more.get(g))) for g in shown)])
        if len(found) > 1:
            gains = [difference(after, before) for before, after in zip(values[0], values[-1], strict=True)]
            rows.append([words("difference, points"), *(figure(v, points(v)) for v in gains)])
    head = ["Encoder", *(f"{CLASSES[g]}{f' ({counts[g]})' if counts[g] else ''}" for g in shown)]
    return table("Mean accuracy over the languages of each resource class (how many)", head, rows)


def language_chart(report: Report, direction: str) -> Markup:
    """Return a row for each language, best first, encoders joined by a line, intervals shaded."""
    found = encoders(report)
    rows: list[tuple[float, Row]] = []
    lowest = 1.0
    for code in retrieved_codes(report, direction):
        name, marks, said = language_name(report, code), [], []
        for encoder, series in found:
            data = retrieval_of(encoder, direction).languages.get(code) or RetrievalRow()
            value, bounds = data.accuracy, data.accuracy_ci
            if value is not None:
                marks.append(Dot(series, value, bounds))
                shown = interval(bounds, 1, 100)
                said.append(f"{name_of(encoder)} {percent(value)}{f' {shown}' if shown else ''}")
                lowest = min([lowest, value, *(bounds or ())])
        if marks:
            last = marks[-1].value
            gain = points(last - marks[0].value) if len(marks) > 1 else ""
            text = f"{name}: {'; '.join(said)}"
            rows.append((last, Row(name, resource(report, code), percent(last), text, marks, change=gain)))
    scale = Scale(min(int(lowest * 10) / 10, 0.9), 1.0)
    ordered = [row for _, row in sorted(rows, key=lambda pair: -pair[0])]
    bounded = any(dot.bounds for row in ordered for dot in row.dots)
    return html.language_chart(bounded, any(r.change for r in ordered), chart(ordered, scale, 5)) if rows else Markup()


def language_table(report: Report, directions: Sequence[str]) -> Markup:
    """Return everything measured for each language, sortable."""
    found = encoders(report)
    head = ["Language", "Class", "Script", "Family", "n"]
    spans: list[tuple[str, int]] = [("", len(head))]
    for direction in directions:
        for encoder, series in found:
            head += ["accuracy", "MRR"]
            spans.append((who(encoder, series) + f", {direction_label(direction)}", 2))
    rows = []
    for code in by_name(report, (c for w in directions for c in retrieved_codes(report, w))):
        about = language_of(report, code)
        first = language_cell(report, code)
        measured = [retrieval_of(e, w).languages.get(code) or RetrievalRow() for w in directions for e, _ in found]
        size = next((data.n for data in measured if data.n is not None), None)
        row = [first, *map(words, (about.resource, about.script, about.family)), figure(size, fixed(size, 0))]
        for data in measured:
            row.append(figure(data.accuracy, percent(data.accuracy), interval(data.accuracy_ci, 1, 100)))
            row.append(figure(data.mrr, fixed(data.mrr)))
        rows.append(row)
    caption = "All languages. Accuracy with its interval, in percent; MRR: mean of 1 / rank. Select a heading to sort."
    return table(caption, head, rows, spans=spans, sort=True, tall=len(rows) > 14)


# -- calibration -------------------------------------------------------------------------------------------------------


def calibration(report: Report) -> Markup:
    """Return reliability diagrams, the table of errors, and both per language; further directions folded."""
    directions = calibrated(report)
    if not directions:
        return Markup()
    bins = next((len(m.reliability) for *_, m in every_method(report, directions[0]) if m.reliability), 0)
    return html.calibration(
        bins, [(direction_label(direction), one_direction(report, direction)) for direction in directions]
    )


def every_method(report: Report, direction: str) -> Iterator[tuple[Encoder, Series, str, Method]]:
    """Encoder, look, method name and method, for all that were measured in a direction."""
    for encoder, series in encoders(report):
        for name, method in methods_of(encoder, direction).items():
            yield encoder, series, name, method


def one_direction(report: Report, direction: str) -> Markup:
    """Return all calibration figures of one direction."""
    parts = []
    for encoder, series in encoders(report):
        panels, bins, name = [], [], name_of(encoder)
        for method in methods_of(encoder, direction).values():
            ece, label = method.overall.ece, method.label or ""
            shape = reliability(method.reliability, series, f"{name}, {label}: ECE {fixed(ece)}")
            panels += [html.panel(label, ece, sum(b.count or 0 for b in method.reliability), shape)] if shape else []
            bins += [[words(label), *bin_cells(b)] for b in method.reliability]
        if panels:
            head = ["Method", "from", "to", "stated", "right", "queries"]
            parts.append(
                (who(encoder, series), name, panels, table(f"Reliability bins of {name}", head, bins, tall=True))
            )
    errors = [error_tables(report, encoder, direction) for encoder, _ in encoders(report)]
    return html.direction(
        direction_label(direction), parts, errors, ece_chart(report, direction), ece_table(report, direction)
    )


def bin_cells(data: Bin) -> list[Cell]:
    """The cells of one reliability bin."""
    shares = [figure(x, fixed(x)) for x in (data.low, data.high, data.confidence, data.accuracy)]
    return [*shares, figure(data.count, fixed(data.count, 0))]


def error_tables(report: Report, encoder: Encoder, direction: str) -> tuple[str, Markup, Markup]:
    """Return the errors of every method over all languages, and by resource class after its caption."""
    rows: list[Sequence[Cell] | str] = []
    wholes = []
    for name, method in methods_of(encoder, direction).items():
        label = method.label or name
        blocks = {"all": method.overall, **method.by_resource}
        rows.append(label)
        gaps = {g: gaps_of(members(report, method, g)) for g in CLASSES}
        shown = [g for g in CLASSES if blocks.get(g) not in NOTHING]
        rows += [error_row(report, CLASSES[g], blocks[g], gaps[g]) for g in shown]
        wholes += [error_row(report, label, blocks["all"], gaps["all"])] if "all" in shown else []
    found = encoder.calibration.get(direction)
    names = ", ".join(language_name(report, c) for c in (found.fit_languages if found else []))
    said = f". Zero-shot temperature fitted on {names}." if names else ""
    lead = f"Calibration of {name_of(encoder)}, {direction_label(direction)}"
    whole = table(f"{lead}, means over languages{said}", ["Method", *ERRORS], wholes)
    return f"{lead}, by resource class", whole, table(f"{lead}, by resource class", ["Resource class", *ERRORS], rows)


NOTHING = (None, Measures())
ERRORS = (
    "Gap",
    "farthest",
    "outside",
    "ECE",
    "perfect",
    "excess",
    "most",
    "slope",
    "intercept",
    "in the large",
    "NLL",
    "Brier",
    "AUROC",
    "nAUC",
    "mean stated",
    "right",
)


def members(report: Report, method: Method, group: str) -> dict[str, Measures]:
    """Return the rows of the languages of a resource class."""
    return {c: row for c, row in method.languages.items() if group in ("all", resource(report, c))}


def error_row(report: Report, label: str, m: Measures, gaps: Gaps) -> list[Cell]:
    """One line of the table of errors; excess is ECE less what perfect calibration would show."""
    mean, worst, most = gaps.mean, gaps.worst, gaps.worst_excess
    return [
        words(label),
        figure(mean, fixed(mean), interval(m.mean_gap_ci)),
        figure(worst and abs(worst[0]), signed(worst and worst[0]), language_name(report, worst[1]) if worst else ""),
        figure(gaps.outside, fixed(gaps.outside, 0), f"of {gaps.known}" if gaps.known else ""),
        figure(m.ece, fixed(m.ece), interval(m.ece_ci)),
        figure(m.ece_null, fixed(m.ece_null)),
        figure(gaps.excess, fixed(gaps.excess)),
        figure(most and most[0], fixed(most and most[0]), language_name(report, most[1]) if most else ""),
        figure(m.slope, fixed(m.slope, 2), interval(m.slope_ci, 2)),
        *(figure(value, fixed(value, 2)) for value in (m.intercept, m.in_the_large)),
        *(figure(value, fixed(value)) for value in (m.nll, m.brier, m.auroc, m.nauc)),
        *(figure(value, percent(value)) for value in (m.mean_confidence, m.accuracy)),
    ]


def ece_chart(report: Report, direction: str) -> Markup:
    """Return ECE of each language before and after, for the last encoder, on a square-root axis."""
    found = encoders(report)
    methods = methods_of(found[-1][0], direction)
    before, after = before_after(methods)
    shown = [n for n in dict.fromkeys((before, "training", after)) if n in methods]
    colour = found[-1][1].colour  # one encoder, one colour: the moments differ in shape
    shapes = [*["ring", "square"][: len(shown) - 1], "disc"] if shown else []
    looks = {name: Series(colour, shape) for name, shape in zip(shown, shapes, strict=True)}
    rows: list[tuple[float, Row]] = []
    for code in calibrated_codes(report, direction):
        measured = {n: methods[n].languages.get(code) or Measures() for n in shown}
        marks = [Dot(looks[n], row.ece) for n, row in measured.items() if row.ece is not None]
        if marks:
            name, null = language_name(report, code), measured[shown[-1]].ece_null
            said = "; ".join(f"{methods[n].label or n} {fixed(row.ece)}" for n, row in measured.items())
            last = marks[-1].value
            rows.append((last, Row(name, resource(report, code), fixed(last), f"{name}: {said}", marks, null)))
    if not rows:
        return Markup()
    at = (0, 0.05, 0.25, 0.5, 1)
    ordered = [row for _, row in sorted(rows, key=lambda pair: pair[0])]
    entries = [(key(s), methods[n].label or n) for n, s in looks.items()]
    if any(r.reference is not None for r in ordered):
        entries.append((reference_key(), "what perfect calibration would show"))
    drawing = chart(ordered, Scale(0, 1, root=True), at, "decimal")
    return html.ece_chart(name_of(found[-1][0]), legend(entries), drawing)


def ece_table(report: Report, direction: str) -> Markup:
    """Return gap and ECE of every language under every method, folded and sortable."""
    columns = list(every_method(report, direction))
    temperatures = {id(m): {r.temperature for r in m.languages.values()} for *_, m in columns}
    varied = {key: len(values) > 1 for key, values in temperatures.items()}
    head, spans = ["Language"], list[tuple[str, int]]([("", 1)])
    for encoder, series, name, method in columns:
        head += ["gap", "ECE", "T"] if varied[id(method)] else ["gap", "ECE"]
        spans.append((who(encoder, series) + f", {name}", 3 if varied[id(method)] else 2))
    rows = []
    for code in calibrated_codes(report, direction):
        row = [words(language_name(report, code))]
        for *_, method in columns:
            data = method.languages.get(code) or Measures()
            row += [figure(data.off, signed(data.off)), figure(data.ece, fixed(data.ece))]
            row += [figure(data.temperature, fixed(data.temperature, 4))] if varied[id(method)] else []
        rows.append(row)
    caption = "Gap and ECE by language and method; T is the language's own temperature. Select a heading to sort."
    return table(caption, head, rows, spans=spans, sort=True, tall=True)
