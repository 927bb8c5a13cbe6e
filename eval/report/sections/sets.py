"""The report on answers withheld or widened: "none of these" and refusal, and conformal sets."""

from collections.abc import Mapping

from xt.core.results.report import Conformal, Report, SetsRow, Unanswerable, UnanswerableMethod
from xt.eval.report import page
from xt.eval.report.charts import basic
from xt.eval.report.charts.basic import Dot, Row, Scale
from xt.eval.report.page import figure, fixed, percent, text, words
from xt.eval.report.reading import by_name, direction_label, encoders, language_name, name_of, resource, who


def none_of_these(report: Report) -> str:
    """How well queries without an answer are told apart, and what refusing at a chosen risk gives."""
    parts = []
    for encoder, series in reversed(encoders(report)):
        for way, data in encoder.none_of_these.items():
            title = f"{who(encoder, series)}, {text(direction_label(way))}"
            if part := absent(report, data, series, title):
                parts.append((f"{name_of(encoder)}, {direction_label(way)}", part))
    how = (
        "For half of the queries the right answer is taken out of the index. <b>AUROC</b>: how often a query that has "
        "an answer is surer than one that has none (0.5 is chance). <b>Refusal</b>: the threshold is chosen for a "
        "risk on other queries; beside the risk asked for stands the share of wrong answers that was found. "
        "<b>Predicted</b> means fitted in each language to answers drawn from its predicted temperature, without a "
        "label; the other line is fitted once, on languages with labels."
    )
    folded = "".join(page.details(f"The same, {label}", part) for label, part in parts[1:])
    return page.section("none-of-these", "None of these", how, *(part for _, part in parts[:1]), folded)


def absent(report: Report, section: Unanswerable, series: basic.Series, title: str) -> str:
    """Chart and tables of one direction; the chart is of the last method."""
    rows, lines = [], []
    methods = section.methods
    data = methods[list(methods)[-1]] if methods else UnanswerableMethod()
    overall = data.overall.auroc
    for code, row in data.languages.items():
        name, value, bounds, refusal = language_name(report, code), row.auroc, row.auroc_ci, row.refusal
        if value is not None:
            said = f"{name}: AUROC {fixed(value)} {page.interval(bounds)}".strip()
            lines.append((value, Row(name, resource(report, code), fixed(value), said, [Dot(series, value, bounds)])))
        rows.append(
            [
                words(name),
                figure(value, fixed(value), page.interval(bounds)),
                figure(refusal.threshold, fixed(refusal.threshold)),
                figure(refusal.coverage, percent(refusal.coverage)),
                figure(refusal.risk, percent(refusal.risk)),
                figure(refusal.risk_found, percent(refusal.risk_found)),
            ]
        )
    if not rows:
        return ""
    low = min((x for v, line in lines for d in line.dots for x in (v, *(d.bounds or ()))), default=0.9)
    scale = Scale(min(int(20 * low) / 20, 0.9), 1.0)
    ordered = [line for _, line in sorted(lines, key=lambda pair: -pair[0])]
    mean = f" Mean {fixed(overall)}." if overall is not None else ""
    note = f'<p class="note">AUROC by language, best first.{mean}</p>\n' if ordered else ""
    drawing = basic.dot_chart(ordered, scale, basic.ticks(scale.low, 1.0, 5), "decimal", two=len(ordered) > 12)
    head = ["Language", "AUROC", "threshold", "answered", "risk asked", "risk found"]
    caption = "Queries with and without an answer, by language. Select a heading to sort."
    table = page.table(caption, head, rows, sort=True, tall=len(rows) > 14)
    folded = page.details("Refusal by language as a table", table, printed=False)
    return f'<h3 class="who">{title}</h3>\n{_methods(methods, section.risk)}{note}{drawing}{folded}'


def _methods(methods: Mapping[str, UnanswerableMethod], risk: float | None) -> str:
    """Table of the means of each method over languages."""
    rows = []
    for key, data in methods.items():
        mean = data.overall
        errors = (mean.auroc, mean.ece, mean.ece_null, mean.none_ece, mean.none_ece_null)
        cells = [figure(value, fixed(value)) for value in errors]
        cells += [figure(value, percent(value)) for value in (mean.coverage, risk, mean.risk_found)]
        rows.append([words(key), *cells])
    head = ["Fitted", "AUROC", "ECE", "null", "ECE of none", "null", "answered", "risk asked", "risk found"]
    return page.table("Means over languages, by how the calibrator was fitted.", head, rows)


# -- conformal sets ----------------------------------------------------------------------------------------------------


def conformal(report: Report) -> str:
    """Coverage and size of the sets of answers."""
    parts, asked = [], None
    for encoder, series in reversed(encoders(report)):
        for way, data in encoder.conformal.items():
            asked = asked if data.alpha is None else data.alpha
            title = f"{who(encoder, series)}, {text(direction_label(way))}"
            if part := sets(report, data, title):
                parts.append((f"{name_of(encoder)}, {direction_label(way)}", part))
    goal = f"{percent(1 - asked, 0)} of the queries" if asked is not None else "a chosen share of the queries"
    how = (
        f"Instead of one answer, a set of them that holds the right one for at least {goal} (conformal prediction). "
        "<b>Coverage</b> is how often it did: the tick is the promise. A set that is larger says that the answer is "
        "less certain. Fitted on other languages the promise need not hold; fitted on the language itself it does, up "
        "to chance. <b>Predicted</b>: by answers drawn from the language's predicted temperature, without a label."
    )
    folded = "".join(page.details(f"The same, {label}", part) for label, part in parts[1:])
    return page.section("conformal", "Sets that hold the answer", how, *(part for _, part in parts[:1]), folded)


def sets(report: Report, data: Conformal, title: str) -> str:
    """Chart and table of one direction, all scopes."""
    scopes = {s: v.languages for s, v in data.scopes.items()}
    every = list(dict.fromkeys(c for rows in scopes.values() for c in rows))
    if not every:
        return ""
    looks = dict(zip(scopes, basic.series_for(len(scopes)), strict=True))
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
            row += [figure(value, percent(value), page.interval(bounds, 1, 100))]
            row += [figure(size, fixed(size, 1)), figure(median, fixed(median, 0))]
        if marks:
            line = Row(
                name, resource(report, code), percent(marks[-1].value), f"{name}: {'; '.join(said)}", marks, goal
            )
            lines.append((marks[-1].value, line))
        rows.append([words(name), *row])
    if not lines and not rows:
        return ""
    means = "; ".join(
        f"{text(s)}: {percent(v.overall.coverage)} covered, {fixed(v.overall.mean_size, 1)} answers a set"
        for s, v in data.scopes.items()
        if v.overall.coverage is not None
    )
    scale = Scale(min(int(lowest * 20) / 20, 0.85), 1.0)
    ordered = [line for _, line in sorted(lines, key=lambda pair: pair[0])]
    legend = basic.legend([(basic.key(s), scope) for scope, s in looks.items()] + [(basic.null_key(), "promised")])
    drawing = basic.dot_chart(ordered, scale, basic.ticks(scale.low, 1.0, 5), "percent", two=len(ordered) > 12)
    spans = [("", 1), *((text(s), 3) for s in scopes)]
    head = ["Language", *(h for _ in scopes for h in ("covered", "mean size", "median"))]
    caption = "Coverage, in percent, and size of the sets by language. Select a heading to sort."
    table = page.table(caption, head, rows, spans=spans, sort=True, tall=len(rows) > 14)
    note = f"<p>{means}.</p>\n" if means else ""
    for scope, found in scopes.items():
        wide = [f"{language_name(report, c)} ({r.unbounded:g})" for c, r in found.items() if r.unbounded]
        if wide:
            listed = text(", ".join(wide))
            note += f'<p class="note">{text(scope)}: too few queries for a threshold, so sets of all: {listed}.</p>\n'
    return f'<h3 class="who">{title}</h3>\n{note}{legend}{drawing}' + page.details("As a table", table, printed=False)
