"""The report on trained heads: a score for each language, means by resource class."""

from dataclasses import replace

from markupsafe import Markup

from xt.core.pages.numbers import fixed, interval, percent
from xt.core.pages.rows import ACCENT, Dot, Row, chart
from xt.core.pages.svg import Scale, tag
from xt.core.pages.tables import figure, table, words
from xt.core.results.report import Classification, Labels, Report
from xt.eval.report.reading import CLASSES, by_name, language_cell, language_name, language_of, macros, resource

html = macros("classes")
SHARES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "f1": "F1",
    "exact_match": "Exact match",
    "span_f1": "Span F1",
    "majority": "Majority",
    "confidence": "Stated",
    "recall@1": "Recall at 1",
    "recall@10": "Recall at 10",
}
"""Figures shown in percent."""
PLAIN = {"mrr": "Mean reciprocal rank", "spearman": "Spearman", "pearson": "Pearson", "ece": "ECE"}
GROUPS = {**CLASSES, "transfer": "All but English"}


def label_of(metric: str) -> str:
    """A figure's name in words."""
    return (SHARES | PLAIN).get(metric, metric)


def shown(metric: str, value: object) -> str:
    """A figure in percent, or with three decimals."""
    return percent(value) if metric in SHARES else fixed(value)


def classification(report: Report) -> Markup:
    """Return a row for each language, means, the full table."""
    data = report.classification
    if data is None or not data.languages:
        return Markup()
    metric = str(data.metric)
    return html.classification(
        data.head,
        report.task.description,
        data.notes,
        means(data),
        label_of(metric),
        metric == "accuracy",
        scores_chart(report, data),
        language_table(report, data),
        class_tables(report, data),
    )


def sentence(report: Report) -> Markup:
    """Return the result in words; empty without one."""
    data = report.classification or Classification()
    metric = str(data.metric)
    value = data.mean.get(metric, {}).get("all")
    if value is None:
        return Markup()
    return html.sentence(label_of(metric), report.task.title or data.task, shown(metric, value), len(data.languages))


def means(data: Classification) -> Markup:
    """Return each figure's mean over all languages and by resource class."""
    found = data.mean
    groups = [g for g in GROUPS if any(g in m for m in found.values())]
    rows = [
        [words(label_of(name)), *(figure(m.get(g), shown(name, m.get(g))) for g in groups)] for name, m in found.items()
    ]
    caption = "Means over the languages, all and of each resource class"
    return table(caption, ["Figure", *(GROUPS[g] for g in groups)], rows)


def scores_chart(report: Report, data: Classification) -> Markup:
    """Return the task's metric in each language, best first, with its interval and the majority's tick."""
    rows, metric = [], str(data.metric)
    for code, row in data.languages.items():
        value, name = row.score(metric), language_name(report, code)
        if value is not None:
            dot = Dot(ACCENT, value, row.interval("accuracy") if metric == "accuracy" else None)
            said = f"{name}: {shown(metric, value)}"
            line = Row(name, resource(report, code), shown(metric, value), said, [dot], row.score("majority"))
            rows.append((value, line))
    scale = Scale(min([0.0, *(v for v, _ in rows)]), 1.0)
    ordered = [line for _, line in sorted(rows, key=lambda pair: -pair[0])]
    return chart(ordered, scale, 5, "percent" if metric in SHARES else "decimal")


def language_table(report: Report, data: Classification) -> Markup:
    """Return everything measured for each language, sortable."""
    found = data.languages
    names = [n for n in SHARES | PLAIN if any(row.score(n) is not None for row in found.values())]
    rows = []
    for code in by_name(report, found):
        row, about = found[code], language_of(report, code)
        line = [language_cell(report, code), *map(words, (about.resource, about.script, about.family))]
        line.append(figure(row.n, fixed(row.n, 0)))
        for n in names:
            aside = interval(row.interval(n), 1, 100) if n == "accuracy" else ""
            line.append(figure(row.score(n), shown(n, row.score(n)), aside))
        rows.append(line)
    head = ["Language", "Class", "Script", "Family", "n", *(label_of(n) for n in names)]
    return table("All languages. Select a heading to sort.", head, rows, sort=True, tall=len(rows) > 14)


MATRIX_SHOWN = 30
"""Labels at most of which a confusion matrix is drawn."""
LABELS_SHOWN = 200
CONFUSIONS_SHOWN = 30


def class_tables(report: Report, section: Classification) -> Markup:
    """Return the figures of each label, and what is taken for what: over all languages, then folded, in each."""
    data = section.classes
    if data is None or not data.all.labels:
        return Markup()

    def both(found: Labels, where: str) -> Markup:
        return label_table(found, where) + matrix_table(found, where)

    names = {code: language_name(report, code) for code in data.languages}
    each = [(names[code], both(found, names[code])) for code, found in data.languages.items()]
    return html.labels(data.of or "examples", both(data.all, "all languages"), each)


def label_table(found: Labels, where: str) -> Markup:
    """Return the figures of each label, the commonest first."""
    ordered = sorted(found.labels.items(), key=lambda item: -(item[1].support or 0))
    rows = [
        [
            words(name),
            *(figure(value, percent(value)) for value in (row.precision, row.recall, row.f1)),
            *(figure(value, fixed(value, 0)) for value in (row.support, row.given)),
        ]
        for name, row in ordered[:LABELS_SHOWN]
    ]
    more = f", the commonest {LABELS_SHOWN} of {len(ordered)}" if len(ordered) > LABELS_SHOWN else ""
    caption = f"Labels, {where}{more}: macro F1 {percent(found.macro_f1)}"
    head = ["Label", "Precision", "Recall", "F1", "Support", "Given"]
    return table(caption, head, rows, sort=True, tall=len(rows) > 14)


def matrix_table(found: Labels, where: str) -> Markup:
    """Return the confusion matrix, right labels in rows; of many labels the commonest confusions."""
    names, matrix = list(found.labels), found.matrix
    if matrix and len(names) <= MATRIX_SHOWN:
        lost = found.not_read
        head = ["Right \\ given", *names, *(["not read"] if lost else [])]
        rows = []
        for at, (name, counts) in enumerate(zip(names, matrix, strict=True)):
            shown = [*counts, *([lost[at]] if lost else [])]
            cells = [figure(count, fixed(count, 0)) for count in shown]
            cells[at] = replace(cells[at], shown=tag("b", cells[at].shown))
            rows.append([words(name), *cells])
        return table(f"Confusion matrix, {where}: right labels in rows, given ones in columns", head, rows)
    pairs = found.confusions
    if not pairs and matrix:
        pairs = [[g, p, n] for g, row in zip(names, matrix, strict=True) for p, n in zip(names, row, strict=True)]
        pairs = sorted((pair for pair in pairs if pair[0] != pair[1] and pair[2]), key=lambda pair: -pair[2])
    rows = [[words(g), words(p), figure(n, fixed(n, 0))] for g, p, n in pairs[:CONFUSIONS_SHOWN]]
    return table(f"The commonest confusions, {where}", ["Right", "Given", "Count"], rows)
