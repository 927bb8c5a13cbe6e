"""The report on languages: the map of accuracy against calibration error, and everything known of each in one table."""

from collections.abc import Callable, Sequence

from markupsafe import Markup

from xt.core.pages.numbers import fixed, interval, percent, signed
from xt.core.pages.tables import Cell, Column, figure, measured, table, words
from xt.core.results.calibration import Measures
from xt.core.results.gaps import gaps_of
from xt.core.results.report import Language, Report, RetrievalRow
from xt.eval.report.charts import map as charts_map
from xt.eval.report.reading import Block, blocks, by_name, language_cell, language_name, language_of, macros, resource

html = macros("map")
CLOSE = 0.01
"""An excess up to this is called close to perfect calibration."""


def languages(report: Report) -> Markup:
    """Return map and table of what was calibrated, the first of it in full, the rest folded."""
    parts = [(block.plain, one(report, block)) for block in blocks(report)]
    return html.languages(parts) if parts else Markup()


def one(report: Report, block: Block) -> Markup:
    """Return sentence, map and table of one block; with what was fallen back on."""
    fallbacks = [f"{language_name(report, c)}: {r.fallback}" for c, r in block.languages.items() if r.fallback]
    notes = [*block.source.notes, *fallbacks]
    close = close_sentence(report, block)
    return html.block(block.title, block.label, close, notes, chart(report, block), language_table(report, block))


def close_sentence(report: Report, block: Block) -> Markup:
    """Return how many languages are close to perfect, and which is farthest; empty where that is not known.

    By the gaps and their intervals, then by the excess over the null value.
    """
    parts, gaps = [], gaps_of(block.languages)
    if gaps.worst and gaps.outside is not None and gaps.known > 1:
        name = language_name(report, gaps.worst[1])
        parts.append(html.gaps(gaps.known - gaps.outside, gaps.known, name, gaps.worst[0]))
    excesses = {code: gap for code, row in block.languages.items() if (gap := row.excess) is not None}
    if len(excesses) > 1 and gaps.worst_excess:
        above, worst = gaps.worst_excess
        near = sum(gap <= CLOSE for gap in excesses.values())
        parts.append(html.close(near, len(excesses), CLOSE, language_name(report, worst), above))
    return Markup(" ").join(parts)


def chart(report: Report, block: Block) -> Markup:
    """Return the map."""
    items = []
    for code, row in block.languages.items():
        name, group = language_name(report, code), resource(report, code)
        group = group if group in charts_map.SHAPES else ""
        if row.accuracy is not None and row.ece is not None:
            said = charts_map.said(name, group, row.accuracy, row.ece, row.ece_null)
            items.append(charts_map.Point(name, group, row.accuracy, row.ece, row.ece_null, said))
    return charts_map.language_map(items, f"Accuracy against ECE by language, {block.plain}")


Figures = tuple[Measures, RetrievalRow]
"""What was measured of a language's probabilities, and of its answers."""


def accuracy(row: Figures) -> float | None:
    """Return the accuracy of retrieval, or of what was calibrated."""
    return row[0].accuracy if row[1].accuracy is None else row[1].accuracy


def estimated(row: Figures) -> str:
    """Return the interval of an accuracy that was estimated without labels, or that it is unknown."""
    estimate = row[0].estimated_accuracy
    if estimate.unknown is not None:
        return "accuracy unknown"
    return interval((estimate.low, estimate.high), 1, 100)


COLUMNS: tuple[Column[Figures], ...] = (
    Column("Accuracy", accuracy, percent, lambda row: interval(row[1].accuracy_ci or row[0].accuracy_ci, 1, 100)),
    Column("without labels", lambda row: row[0].estimated_accuracy.value, percent, estimated),
    Column("equal pool", lambda row: row[1].accuracy_pool, percent),
    Column("Gap", lambda row: row[0].off, signed, lambda row: interval(row[0].gap_ci)),
    Column("ECE", lambda row: row[0].ece, fixed, lambda row: interval(row[0].ece_ci)),
    Column("Excess", lambda row: row[0].excess),
    Column("T", lambda row: row[0].temperature, lambda value: fixed(value, 4)),
    Column("Slope", lambda row: row[0].slope, lambda value: fixed(value, 2), lambda row: interval(row[0].slope_ci, 2)),
    Column("Intercept", lambda row: row[0].intercept, lambda value: fixed(value, 2)),
    Column("in the large", lambda row: row[0].in_the_large, lambda value: fixed(value, 2)),
    Column("Brier", lambda row: row[0].brier),
    Column("AUROC", lambda row: row[0].auroc),
    Column("AURC", lambda row: row[0].aurc),
    Column("nAUC", lambda row: row[0].nauc),
)
ABOUT: dict[str, Callable[[Language], str | int | None]] = {
    "Family": lambda row: row.family,
    "Script": lambda row: row.script,
    "Resources": lambda row: row.resource,
    "Joshi": lambda row: row.joshi,
}
"""What is known of languages, by the heading of its column."""


def language_table(report: Report, block: Block) -> Markup:
    """Return everything known of each language; a column that no language has is left out. Sortable."""
    lines = {code: (row, block.retrieval.get(code) or RetrievalRow()) for code, row in block.languages.items()}
    columns = measured(COLUMNS, lines.values())
    known = {code: {k: of(language_of(report, code)) for k, of in ABOUT.items()} for code in lines}
    about = [k for k in ABOUT if any(row[k] is not None for row in known.values())]
    rows: list[Sequence[Cell]] = []
    for code in by_name(report, lines):
        size = block.languages[code].n
        figures = [column.cell(lines[code]) for column in columns]
        tail = [fact(known[code][k]) for k in about]
        rows.append([language_cell(report, code), figure(size, fixed(size, 0)), *figures, *tail])
    heads = [column.head for column in columns]
    pools = [found.pool for e in report.encoders for found in e.retrieval.values() if found.pool]
    caption = "All languages, with 95% intervals. Select a heading to sort."
    if "equal pool" in heads and pools:
        caption += f" Equal pool: accuracy among {fixed(pools[0], 0)} candidates in every language."
    return table(caption, ["Language", "n", *heads, *about], rows, sort=True, tall=len(rows) > 14)


def fact(value: str | int | None) -> Cell:
    """Return one thing that is known of a language."""
    return figure(value, fixed(value, 0)) if isinstance(value, int) else words(value)
