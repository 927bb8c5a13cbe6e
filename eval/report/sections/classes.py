"""The report on trained heads: a score for each language, means by resource class."""

from xt.core.results.report import Classification, Labels, Report
from xt.eval.report import page
from xt.eval.report.charts import basic
from xt.eval.report.charts.basic import Dot, Row, Scale
from xt.eval.report.page import Cell, figure, fixed, percent, text, words
from xt.eval.report.reading import CLASSES, by_name, language_name, language_of, resource

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


def classification(report: Report) -> str:
    """A row for each language, means, the full table."""
    data = report.classification
    if data is None or not data.languages:
        return ""
    how = (
        f"The head <b>{text(data.head)}</b> answers every language with the weights it was trained with. Means "
        "give every language the same weight. <b>Majority</b> (the tick) is what always giving the commonest label "
        "of a language scores. <b>Stated</b> is the mean probability of the answers given, <b>ECE</b> its mean gap to "
        "the share of right ones; 0 is perfect."
    )
    description = report.task.description
    about = f'<p class="note">{text(description)}</p>\n' if description else ""
    notes = "".join(f"<li>{text(note)}</li>\n" for note in data.notes)
    told = f'<ul class="notes">\n{notes}</ul>\n' if notes else ""
    parts = (about, told, means(data), chart(report, data), language_table(report, data), class_tables(report, data))
    return page.section("classification", "Languages", how, *parts)


def sentence(report: Report) -> str:
    """The result in words, HTML; an empty string without one."""
    data = report.classification or Classification()
    metric, count = str(data.metric), len(data.languages)
    value = data.mean.get(metric, {}).get("all")
    if value is None:
        return ""
    where = f"a mean of <b>{shown(metric, value)}</b> over {count} languages" if count > 1 else shown(metric, value)
    return f"{label_of(metric)} on {text(report.task.title or data.task)}: {where}."


def means(data: Classification) -> str:
    """Each figure's mean over all languages and by resource class."""
    found = data.mean
    groups = [g for g in GROUPS if any(g in m for m in found.values())]
    rows = [
        [words(label_of(name)), *(figure(m.get(g), shown(name, m.get(g))) for g in groups)] for name, m in found.items()
    ]
    caption = "Means over the languages, all and of each resource class"
    return page.table(caption, ["Figure", *(GROUPS[g] for g in groups)], rows)


def chart(report: Report, data: Classification) -> str:
    """The task's metric in each language, best first, with its interval and the majority's tick."""
    (series,) = basic.series_for(1)
    rows, metric = [], str(data.metric)
    for code, row in data.languages.items():
        value, name = row.score(metric), language_name(report, code)
        if value is not None:
            dot = Dot(series, value, row.interval("accuracy") if metric == "accuracy" else None)
            said = f"{name}: {shown(metric, value)}"
            line = Row(name, resource(report, code), shown(metric, value), said, [dot], row.score("majority"))
            rows.append((value, line))
    scale = Scale(min([0.0, *(v for v, _ in rows)]), 1.0)
    ordered = [line for _, line in sorted(rows, key=lambda pair: -pair[0])]
    style = "percent" if metric in SHARES else "decimal"
    drawing = basic.dot_chart(ordered, scale, basic.ticks(scale.low, 1.0, 5), style, two=len(ordered) > 12)
    note = "Best first." + (" Shaded bars are 95% confidence intervals." if metric == "accuracy" else "")
    return f'<h3>{text(label_of(metric))} by language</h3>\n<p class="note">{note}</p>\n{drawing}' if drawing else ""


def language_table(report: Report, data: Classification) -> str:
    """Everything measured for each language, sortable."""
    found = data.languages
    names = [n for n in SHARES | PLAIN if any(row.score(n) is not None for row in found.values())]
    rows = []
    for code in by_name(report, found):
        row, name, about = found[code], language_name(report, code), language_of(report, code)
        first = Cell(f'{text(name)} <small class="code">{text(code)}</small>', name)
        line = [first, *map(words, (about.resource, about.script, about.family))]
        line.append(figure(row.n, fixed(row.n, 0)))
        for n in names:
            aside = page.interval(row.interval(n), 1, 100) if n == "accuracy" else ""
            line.append(figure(row.score(n), shown(n, row.score(n)), aside))
        rows.append(line)
    head = ["Language", "Class", "Script", "Family", "n", *(label_of(n) for n in names)]
    return page.table("All languages. Select a heading to sort.", head, rows, sort=True, tall=len(rows) > 14)


MATRIX_SHOWN = 30
"""Labels at most of which a confusion matrix is drawn."""
LABELS_SHOWN = 200
CONFUSIONS_SHOWN = 30


def class_tables(report: Report, section: Classification) -> str:
    """Precision, recall and F1 of each label, and what is taken for what: over all languages, then folded, in each."""
    data = section.classes
    if data is None or not data.all.labels:
        return ""
    whole, unit = data.all, text(data.of or "examples")
    note = (
        f'<p class="note">Of {unit} in all languages together. <b>Support</b> counts those whose right label it is. '
        "<b>Macro F1</b> gives every label that is right or given somewhere the same weight; a label that is never "
        "given has a precision of 0.</p>\n"
    )
    parts = [f"<h3>Labels</h3>\n{note}", label_table(whole, "all languages"), matrix_table(whole, "all languages")]
    for code, found in data.languages.items():
        name = language_name(report, code)
        parts.append(page.details(name, label_table(found, name) + matrix_table(found, name), printed=False))
    return "".join(parts)


def label_table(found: Labels, where: str) -> str:
    """The figures of each label, the commonest first."""
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
    return page.table(caption, head, rows, sort=True, tall=len(rows) > 14)


def matrix_table(found: Labels, where: str) -> str:
    """The confusion matrix, right labels in rows; of many labels the commonest confusions."""
    names, matrix = list(found.labels), found.matrix
    if matrix and len(names) <= MATRIX_SHOWN:
        lost = found.not_read
        head = ["Right \\ given", *map(text, names), *(["not read"] if lost else [])]
        rows = []
        for at, (name, counts) in enumerate(zip(names, matrix, strict=True)):
            shown = [*counts, *([lost[at]] if lost else [])]
            cells = [figure(count, fixed(count, 0)) for count in shown]
            cells[at] = page.Cell(f"<b>{cells[at].html}</b>", cells[at].key, number=True)
            rows.append([words(name), *cells])
        return page.table(f"Confusion matrix, {where}: right labels in rows, given ones in columns", head, rows)
    pairs = found.confusions
    if not pairs and matrix:
        pairs = [[g, p, n] for g, row in zip(names, matrix, strict=True) for p, n in zip(names, row, strict=True)]
        pairs = sorted((pair for pair in pairs if pair[0] != pair[1] and pair[2]), key=lambda pair: -pair[2])
    rows = [[words(g), words(p), figure(n, fixed(n, 0))] for g, p, n in pairs[:CONFUSIONS_SHOWN]]
    return page.table(f"The commonest confusions, {where}", ["Right", "Given", "Count"], rows)
