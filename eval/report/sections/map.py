"""The report on languages: the map of accuracy against calibration error, and everything known of each in one table."""

from collections.abc import Callable, Sequence

from xt.core.results.report import Language, Report, RetrievalRow
from xt.eval.report import page
from xt.eval.report.charts import map as charts_map
from xt.eval.report.page import Cell, figure, fixed, percent, text, words
from xt.eval.report.reading import Block, blocks, by_name, language_name, language_of, resource

CLOSE = 0.01
"""An excess up to this is called close to perfect calibration."""


def languages(report: Report) -> str:
    """Map and table of what was calibrated, the first of it in full, the rest folded."""
    found = blocks(report)
    if not found:
        return ""
    how = (
        "Each mark is a language: how often the answer is right, against how far its stated probabilities are off. "
        "The lower right is where to be; <b>excess</b> is the part of the error beyond what perfect calibration would "
        "show on as many queries. Point at a mark, or step through them with the arrow keys."
    )
    first, *others = [one(report, block) for block in found]
    folded = "".join(page.details(f"The same, {b.plain}", part) for b, part in zip(found[1:], others, strict=True))
    return page.section("languages", "Languages", how, first, folded)


def one(report: Report, block: Block) -> str:
    """Sentence, map and table of one block."""
    heading = f'<h3 class="who">{block.title} <small>{text(block.label)}</small></h3>\n'
    return heading + told(report, block) + chart(report, block) + table(report, block)


def told(report: Report, block: Block) -> str:
    """How many languages are close to perfect, and which is farthest; what was fallen back on."""
    sentence = close_sentence(report, block)
    fallbacks = [f"{language_name(report, c)}: {r.fallback}" for c, r in block.languages.items() if r.fallback]
    shown = "".join(f'<p class="note">{text(n)}</p>\n' for n in [*block.source.notes, *fallbacks])
    return (f"<p>{sentence}</p>\n" if sentence else "") + shown


def close_sentence(report: Report, block: Block) -> str:
    """The same as a bare sentence, HTML; empty where no null value is known."""
    gaps = {code: gap for code, row in block.languages.items() if (gap := row.excess) is not None}
    if len(gaps) < 2:
        return ""
    close, worst = sum(gap <= CLOSE for gap in gaps.values()), max(gaps, key=lambda c: gaps[c])
    tail = f"; the farthest is {text(language_name(report, worst))}, {fixed(gaps[worst])} above it"
    return (
        f"In <b>{close} of {len(gaps)} languages</b> the stated probabilities are within {CLOSE:g} of what perfect "
        f"calibration would show{tail if gaps[worst] > CLOSE else ''}."
    )


def chart(report: Report, block: Block) -> str:
    """The map."""
    items = []
    for code, row in block.languages.items():
        name, group = language_name(report, code), resource(report, code)
        group = group if group in charts_map.SHAPES else ""
        if row.accuracy is not None and row.ece is not None:
            said = charts_map.said(name, group, row.accuracy, row.ece, row.ece_null)
            items.append(charts_map.Point(name, group, row.accuracy, row.ece, row.ece_null, said))
    return charts_map.language_map(items, f"Accuracy against ECE by language, {block.plain}")


COLUMNS = ("accuracy", "pool", "ece", "excess", "temperature", "auroc", "aurc")
HEADS = {
    "accuracy": "Accuracy",
    "pool": "equal pool",
    "ece": "ECE",
    "excess": "Excess",
    "temperature": "T",
    "auroc": "AUROC",
    "aurc": "AURC",
}
ABOUT: dict[str, Callable[[Language], str | int | None]] = {
    "Family": lambda row: row.family,
    "Script": lambda row: row.script,
    "Resources": lambda row: row.resource,
    "Joshi": lambda row: row.joshi,
}
"""What is known of languages, by the heading of its column."""


def table(report: Report, block: Block) -> str:
    """Everything known of each language; a column that no language has is left out. Sortable."""
    lines = {code: cells(report, block, code) for code in block.languages}
    shown = [c for c in COLUMNS if any(line[c].key is not None for line in lines.values())]
    known = {code: {k: of(language_of(report, code)) for k, of in ABOUT.items()} for code in lines}
    about = [k for k in ABOUT if any(row[k] is not None for row in known.values())]
    rows: list[Sequence[Cell]] = []
    for code in by_name(report, lines):
        name = language_name(report, code)
        first = Cell(f'{text(name)} <small class="code">{text(code)}</small>', name)
        size = block.languages[code].n
        tail = [fact(known[code][k]) for k in about]
        rows.append([first, figure(size, fixed(size, 0)), *(lines[code][c] for c in shown), *tail])
    pool = pool_of(report) if "pool" in shown else None
    caption = "All languages, with 95% intervals. Select a heading to sort." + (
        f" Equal pool: accuracy among {fixed(pool, 0)} candidates in every language." if pool else ""
    )
    head = ["Language", "n", *(HEADS[c] for c in shown), *about]
    return page.table(caption, head, rows, sort=True, tall=len(rows) > 14)


def pool_of(report: Report) -> float | None:
    """How many candidates the equal pools have."""
    return next((way.pool for e in report.encoders for way in e.retrieval.values() if way.pool is not None), None)


def fact(value: str | int | None) -> Cell:
    """One thing that is known of a language."""
    return figure(value, fixed(value, 0)) if isinstance(value, int) else words(value)


def cells(report: Report, block: Block, code: str) -> dict[str, Cell]:
    """The figures of one language."""
    row, found = block.languages[code], block.retrieval.get(code) or RetrievalRow()
    accuracy = found.accuracy if found.accuracy is not None else row.accuracy
    bounds = found.accuracy_ci or row.accuracy_ci
    gap = row.excess
    return {
        "accuracy": figure(accuracy, percent(accuracy), page.interval(bounds, 1, 100)),
        "pool": figure(found.accuracy_pool, percent(found.accuracy_pool)),
        "ece": figure(row.ece, fixed(row.ece), page.interval(row.ece_ci)),
        "excess": figure(gap, fixed(gap)),
        "temperature": figure(row.temperature, fixed(row.temperature, 4)),
        "auroc": figure(row.auroc, fixed(row.auroc)),
        "aurc": figure(row.aurc, fixed(row.aurc)),
    }
