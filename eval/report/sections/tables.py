"""The report in tables: ranked retrieval, mined pairs, and the sums of a benchmark."""

from collections.abc import Mapping, Sequence
from itertools import compress

from markupsafe import Markup

from xt.core.pages.numbers import fixed, interval, is_number, percent
from xt.core.pages.svg import tag
from xt.core.pages.tables import Cell, Column, figure, measured, table, words
from xt.core.results.report import Means, Report
from xt.core.results.tasks import Discoveries, Extracted, MinedRow, PairProbability
from xt.eval.report.reading import CLASSES, language_cell, language_name, macros

GROUPS = {**CLASSES, "unknown": "Unclassed"}
SORT = "Select a heading to sort."
html = macros("tables")


def means(mean: Mapping[str, Means], caption: str) -> Markup:
    """Return means over the languages, all and of each resource class; empty without any."""
    shown = [g for g in GROUPS if any(g in m for m in mean.values())]
    rows = [
        [words(name), *(figure(m.get(g), percent(m.get(g))) for g in shown)]
        for name, m in mean.items()
        if any(g in m for g in shown)
    ]
    return table(caption, ["Measure", *(GROUPS[g] for g in shown)], rows)


def ranked(report: Report) -> Markup:
    """Return ranked retrieval: means, then every measure by language."""
    data = report.ranked
    if data is None or not data.languages:
        return Markup()
    rows = data.languages
    names = list(dict.fromkeys(k for row in rows.values() for k, v in row.extra.items() if is_number(v)))
    lines = [
        [
            language_cell(report, code),
            figure(row.n, fixed(row.n, 0)),
            *(figure(row.score(k), percent(row.score(k)), interval(row.interval(k), 1, 100)) for k in names),
        ]
        for code, row in rows.items()
    ]
    caption = f"Measures by language, in percent, with 95% intervals. {SORT}"
    by_language = table(caption, ["Queries in", "n", *names], lines, sort=True, tall=len(lines) > 14)
    return html.ranked(data.notes, means(data.mean, "Measures of the ranking, means over languages"), by_language)


# -- mining ------------------------------------------------------------------------------------------------------------

SURE = "guaranteed: precision"
FOUND = "discoveries: wrong"


def whole(value: float | None) -> str:
    """Return a number without decimals."""
    return fixed(value, 0)


MINED: tuple[Column[MinedRow], ...] = (
    Column("Gold", lambda row: row.n, whole),
    Column("Mined", lambda row: row.pairs, whole),
    Column("Precision", lambda row: row.precision, percent),
    Column("Recall", lambda row: row.recall, percent),
    Column("F1", lambda row: row.f1, percent),
    Column("threshold", lambda row: row.threshold, lambda value: fixed(value, 4)),
    Column("F1, distance", lambda row: (row.margins.get("distance") or Extracted()).f1, percent),
    Column("F1, absolute", lambda row: (row.margins.get("absolute") or Extracted()).f1, percent),
    Column(SURE, lambda row: (row.guarantee or Extracted()).precision, percent),
    Column("recall", lambda row: (row.guarantee or Extracted()).recall, percent),
    Column(FOUND, lambda row: (row.fdr or Discoveries()).false_share, percent),
    Column("recall", lambda row: (row.fdr or Discoveries()).recall, percent),
    Column("ECE", lambda row: (row.probability or PairProbability()).ece),
    Column("perfect", lambda row: (row.probability or PairProbability()).ece_null),
)


def mining(report: Report) -> Markup:
    """Return mined pairs: means, then figures by language, what is promised, and the probabilities' error."""
    data = report.mining
    if data is None or not (data.languages or data.notes):
        return Markup()
    rows = data.languages
    columns = measured(MINED, rows.values(), ("Precision", "Recall", "F1", "threshold"))
    heads = [column.head for column in columns]
    lines = [[language_cell(report, code), *(column.cell(row) for column in columns)] for code, row in rows.items()]
    notes = [
        *data.notes,
        *(f"{language_name(report, code)}: {note}" for code, row in rows.items() for note in row.notes),
    ]
    caption = f"Mined pairs against the gold ones. {SORT}"
    pairs = table(caption, ["Language", *heads], lines, sort=True, tall=len(lines) > 14)
    mean = means(data.mean, "Means over the languages")
    return html.mining(data.margin, data.k, SURE in heads, FOUND in heads, notes, mean, pairs)


# -- summary -----------------------------------------------------------------------------------------------------------


def summary(report: Report) -> Markup:
    """Return the benchmark's tasks by group and the overall score, as its authors aggregate them."""
    data = report.summary
    if data is None:
        return Markup()
    rows: list[Sequence[Cell] | str] = []
    tasks_of = data.tasks.values()
    used = [True, True, any(t.partial is not None for t in tasks_of), True, any(t.missing for t in tasks_of)]
    for group in dict.fromkeys([*data.groups, *(task.group for task in tasks_of)]):
        tasks = {name: task for name, task in data.tasks.items() if task.group == group}
        mean = data.groups.get(group) if group is not None else None
        label = group.replace("_", " ").capitalize() if group is not None else "Tasks"
        if tasks or (mean and mean.score is not None):
            rows.append(label + " " + tag("small", percent(mean.score)) if mean else label)
        for name, task in tasks.items():
            there = len(task.languages)
            count = whole(there) if task.expected is None else f"{whole(there)} of {whole(task.expected)}"
            shares = [figure(share, percent(share)) for share in (task.score, task.partial)]
            missing = ", ".join(language_name(report, code) for code in task.missing)
            rows.append(list(compress([words(name), *shares, figure(there, count), words(missing)], used)))
    if not rows:
        return Markup()
    name = str(data.benchmark or "benchmark")
    name = name.upper() if name.islower() else name
    head = ["Task", "Score", "Partial", "Languages", "Missing"]
    scores = table(
        f"{name}, in percent", list(compress(head, used)), [*rows, "Overall " + tag("b", percent(data.overall.score))]
    )
    return html.summary(name, scores, ", ".join(data.overall.missing))
