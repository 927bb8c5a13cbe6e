"""The report on answers withheld or widened: "none of these" and refusal, and conformal sets."""

from collections.abc import Callable, Mapping

from markupsafe import Markup

from xt.core.pages.numbers import fixed, interval, percent, signed
from xt.core.pages.rows import Dot, Row, Series, chart, key, legend, reference_key, series_for
from xt.core.pages.svg import Scale
from xt.core.pages.tables import Cell, figure, table, words
from xt.core.results.calibration import Conformal, Measures, SetsRow, Unanswerable, UnanswerableMethod, UnanswerableRow
from xt.core.results.gaps import Gaps, gaps_of
from xt.core.results.report import Report
from xt.eval.report.reading import by_direction, by_name, language_name, macros, resource

html = macros("sets")


def none_of_these(report: Report) -> Markup:
    """Return how well queries without an answer are detected, and what refusing at a chosen risk gives."""
    found = by_direction(report, lambda encoder: encoder.none_of_these)
    parts = [(plain, part) for title, plain, look, *_, d in found if (part := absent(report, d, look, title))]
    return html.none_of_these(parts) if parts else Markup()


def absent(report: Report, section: Unanswerable, series: Series, title: Markup) -> Markup:
    """Return chart and tables of one direction; the chart is of the last method."""
    rows, lines = [], []
    methods = section.methods
    data = methods[list(methods)[-1]] if methods else UnanswerableMethod()
    overall = data.overall.auroc
    for code, row in data.languages.items():
        name, value, bounds, refusal = language_name(report, code), row.auroc, row.auroc_ci, row.refusal
        if value is not None:
            said = f"{name}: AUROC {fixed(value)} {interval(bounds)}".strip()
            lines.append((value, Row(name, resource(report, code), fixed(value), said, [Dot(series, value, bounds)])))
        rows.append(
            [
                words(name),
                *(figure(m.off, signed(m.off), interval(m.gap_ci)) for m in (row.answer, row.none)),
                figure(value, fixed(value), interval(bounds)),
                figure(refusal.threshold, fixed(refusal.threshold)),
                figure(refusal.coverage, percent(refusal.coverage)),
                figure(refusal.risk, percent(refusal.risk)),
                figure(refusal.risk_found, percent(refusal.risk_found)),
            ]
        )
    if not rows:
        return Markup()
    low = min((x for v, line in lines for d in line.dots for x in (v, *(d.bounds or ()))), default=0.9)
    scale = Scale(min(int(20 * low) / 20, 0.9), 1.0)
    ordered = [line for _, line in sorted(lines, key=lambda pair: -pair[0])]
    drawing = chart(ordered, scale, 5, "decimal")
    head = ["Language", "gap, right", "gap, none", "AUROC", "threshold", "answered", "risk asked", "risk found"]
    caption = "Queries with and without an answer, by language. Select a heading to sort."
    by_language = table(caption, head, rows, sort=True, tall=len(rows) > 14)
    return html.absent(title, _methods(report, methods, section.risk), bool(ordered), overall, drawing, by_language)


def _methods(report: Report, methods: Mapping[str, UnanswerableMethod], risk: float | None) -> Markup:
    """Return the table of the means of each method over languages."""
    rows = []
    for name, data in methods.items():
        mean = data.overall
        errors = (mean.auroc, mean.ece, mean.ece_null, mean.none_ece, mean.none_ece_null)
        gaps = [gaps_of({c: of(row) for c, row in data.languages.items()}) for of in EVENTS]
        cells = [cell for one in gaps for cell in gap_cells(report, one)]
        cells += [figure(value, fixed(value)) for value in errors]
        slopes = [of(mean).slope for of in EVENTS]
        cells += [figure(value, fixed(value, 2)) for value in slopes]
        cells += [figure(value, percent(value)) for value in (mean.coverage, risk, mean.risk_found)]
        rows.append([words(name), *cells])
    head = ["Fitted", "gap, right", "farthest", "gap, none", "farthest", "AUROC", "ECE", "null", "ECE of none", "null"]
    head += ["slope", "of none", "answered", "risk asked", "risk found"]
    return table("Means over languages, by how the calibrator was fitted.", head, rows)


EVENTS: tuple[Callable[[UnanswerableRow], Measures], ...] = (lambda row: row.answer, lambda row: row.none)
"""The probability that the best answer is right, and that none is there."""


def gap_cells(report: Report, gaps: Gaps) -> list[Cell]:
    """The mean gap over languages, and the language that is farthest."""
    worst = gaps.worst
    name = language_name(report, worst[1]) if worst else ""
    return [figure(gaps.mean, fixed(gaps.mean)), figure(worst and abs(worst[0]), signed(worst and worst[0]), name)]


# -- conformal sets ----------------------------------------------------------------------------------------------------


def conformal(report: Report) -> Markup:
    """Return coverage and size of the sets of answers."""
    found = list(by_direction(report, lambda encoder: encoder.conformal))
    parts = [(plain, part) for title, plain, *_, data in found if (part := sets(report, data, title))]
    alpha = next((data.alpha for *_, data in reversed(found) if data.alpha is not None), None)
    return html.conformal(alpha, parts) if parts else Markup()


def sets(report: Report, data: Conformal, title: Markup) -> Markup:
    """Return chart and table of one direction, all scopes."""
    scopes = {s: v.languages for s, v in data.scopes.items()}
    every = list(dict.fromkeys(c for rows in scopes.values() for c in rows))
    if not every:
        return Markup()
    looks = dict(zip(scopes, series_for(len(scopes)), strict=True))
    goal = None if data.alpha is None else 1 - data.alpha
    lines, rows, lowest = [], [], 1.0
    for code in by_name(report, every):
        name, marks, said, row = language_name(report, code), [], [], []
        for scope, found in scopes.items():
            one = found.get(code) or SetsRow()
            value, bounds, size, median = one.coverage, one.coverage_ci, one.mean_size, one.median_size
            if value is not None:
                marks.append(Dot(looks[scope], value, bounds))
                said.append(f"{scope} {percent(value)}, mean size {fixed(size, 1)}")
                lowest = min(lowest, value, *(bounds or ()))
            row += [figure(value, percent(value), interval(bounds, 1, 100))]
            row += [figure(size, fixed(size, 1)), figure(median, fixed(median, 0))]
        if marks:
            last, text = marks[-1].value, f"{name}: {'; '.join(said)}"
            lines.append((last, Row(name, resource(report, code), percent(last), text, marks, goal)))
        rows.append([words(name), *row])
    means = "; ".join(
        f"{s}: {percent(v.overall.coverage)} covered, {fixed(v.overall.mean_size, 1)} answers a set"
        for s, v in data.scopes.items()
        if v.overall.coverage is not None
    )
    scale = Scale(min(int(lowest * 20) / 20, 0.85), 1.0)
    ordered = [line for _, line in sorted(lines, key=lambda pair: pair[0])]
    signs = legend([*((key(s), scope) for scope, s in looks.items()), (reference_key(), "promised")])
    spans = [("", 1), *((s, 3) for s in scopes)]
    head = ["Language", *(h for _ in scopes for h in ("covered", "mean size", "median"))]
    caption = "Coverage, in percent, and size of the sets by language. Select a heading to sort."
    by_language = table(caption, head, rows, spans=spans, sort=True, tall=len(rows) > 14)
    notes = []
    for scope, found in scopes.items():
        wide = [f"{language_name(report, c)} ({r.unbounded:g})" for c, r in found.items() if r.unbounded]
        notes += [f"{scope}: too few queries for a threshold, so sets of all: {', '.join(wide)}."] if wide else []
    return html.sets(title, means, notes, signs, chart(ordered, scale, 5), by_language)
