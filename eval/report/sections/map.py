"""The report on languages: the map of accuracy against calibration error, and everything known of each in one table."""

from collections.abc import Sequence

from xt.eval.report import page
from xt.eval.report.charts import map as charts_map
from xt.eval.report.page import Cell, figure, fixed, is_number, percent, text, words
from xt.eval.report.reading import Block, Metrics, blocks, excess, get, language_name, resource

CLOSE = 0.01
"""An excess up to this is called close to perfect calibration."""


def languages(metrics: Metrics) -> str:
    """Map and table of what was calibrated, the first of it in full, the rest folded."""
    found = blocks(metrics)
    if not found:
        return ""
    how = (
        "Each mark is a language: how often the answer is right, against how far its stated probabilities are off. "
        "The lower right is where to be; <b>excess</b> is the part of the error beyond what perfect calibration would "
        "show on as many queries. Point at a mark, or step through them with the arrow keys."
    )
    first, *others = [one(metrics, block) for block in found]
    folded = "".join(page.details(f"The same, {b.plain}", part) for b, part in zip(found[1:], others, strict=True))
    return page.section("languages", "Languages", how, first, folded)


def one(metrics: Metrics, block: Block) -> str:
    """Sentence, map and table of one block."""
    label = text(block.shown.get("label") or block.key)
    heading = f'<h3 class="who">{block.title} <small>{label}</small></h3>\n'
    return heading + told(metrics, block) + chart(metrics, block) + table(metrics, block)


def told(metrics: Metrics, block: Block) -> str:
    """How many languages are close to perfect, and which is farthest; what was fallen back on."""
    sentence = close_sentence(metrics, block)
    notes = [str(n) for n in block.source.get("notes") or [] if isinstance(n, str)]
    notes += [
        f"{language_name(metrics, code)}: {row['fallback']}"
        for code, row in block.languages.items()
        if isinstance(row.get("fallback"), str)
    ]
    shown = "".join(f'<p class="note">{text(n)}</p>\n' for n in notes)
    return (f"<p>{sentence}</p>\n" if sentence else "") + shown


def close_sentence(metrics: Metrics, block: Block) -> str:
    """The same as a bare sentence, HTML; empty where no null value is known."""
    gaps = {code: gap for code, row in block.languages.items() if (gap := excess(row)) is not None}
    if len(gaps) < 2:
        return ""
    close, worst = sum(gap <= CLOSE for gap in gaps.values()), max(gaps, key=lambda c: gaps[c])
    tail = f"; the farthest is {text(language_name(metrics, worst))}, {fixed(gaps[worst])} above it"
    return (
        f"In <b>{close} of {len(gaps)} languages</b> the stated probabilities are within {CLOSE:g} of what perfect "
        f"calibration would show{tail if gaps[worst] > CLOSE else ''}."
    )


def chart(metrics: Metrics, block: Block) -> str:
    """The map."""
    items = []
    for code, row in block.languages.items():
        name, group = language_name(metrics, code), resource(metrics, code)
        group = group if group in charts_map.SHAPES else ""
        accuracy, ece, null = row.get("accuracy"), row.get("ece"), row.get("ece_null")
        if is_number(accuracy) and is_number(ece):
            null = null if is_number(null) else None
            said = charts_map.said(name, group, accuracy, ece, null)
            items.append(charts_map.Point(name, group, accuracy, ece, null, said))
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
ABOUT = {"family": "Family", "script": "Script", "resource": "Resources", "joshi": "Joshi"}


def table(metrics: Metrics, block: Block) -> str:
    """Everything known of each language; a column that no language has is left out. Sortable."""
    lines = {code: cells(metrics, block, code) for code in block.languages}
    shown = [c for c in COLUMNS if any(line[c].key is not None for line in lines.values())]
    about = [k for k in ABOUT if any(get(metrics, "languages", code, k) is not None for code in lines)]
    rows: list[Sequence[Cell]] = []
    for code in sorted(lines, key=lambda c: language_name(metrics, c).casefold()):
        name = language_name(metrics, code)
        first = Cell(f'{text(name)} <small class="code">{text(code)}</small>', name)
        size = block.languages[code].get("n")
        tail = [facts(metrics, code, k) for k in about]
        rows.append([first, figure(size, fixed(size, 0)), *(lines[code][c] for c in shown), *tail])
    pool = next((p for p in (pool_of(metrics),) if "pool" in shown and is_number(p)), None)
    caption = "All languages, with 95% intervals. Select a heading to sort." + (
        f" Equal pool: accuracy among {fixed(pool, 0)} candidates in every language." if pool else ""
    )
    head = ["Language", "n", *(HEADS[c] for c in shown), *(ABOUT[k] for k in about)]
    return page.table(caption, head, rows, sort=True, tall=len(rows) > 14)


def pool_of(metrics: Metrics) -> float | None:
    """How many candidates the equal pools have."""
    found = [
        get(way, "pool") for e in metrics.get("encoders") or [] for way in (get(e, "retrieval") or {}).values() if way
    ]
    return next((p for p in found if is_number(p)), None)


def facts(metrics: Metrics, code: str, key: str) -> Cell:
    """Family, script, resource class or Joshi class of a language."""
    value = get(metrics, "languages", code, key)
    return figure(value, fixed(value, 0)) if key == "joshi" else words(value)


def cells(metrics: Metrics, block: Block, code: str) -> dict[str, Cell]:
    """The figures of one language."""
    row, found = block.languages[code], get(block.retrieval, code) or {}
    accuracy = found.get("accuracy") if is_number(found.get("accuracy")) else row.get("accuracy")
    bounds = found.get("accuracy_ci") or row.get("accuracy_ci")
    gap = excess(row)
    return {
        "accuracy": figure(accuracy, percent(accuracy), page.interval(bounds, 1, 100)),
        "pool": figure(found.get("accuracy_pool"), percent(found.get("accuracy_pool"))),
        "ece": figure(row.get("ece"), fixed(row.get("ece")), page.interval(row.get("ece_ci"))),
        "excess": figure(gap, fixed(gap)),
        "temperature": figure(row.get("temperature"), fixed(row.get("temperature"), 4)),
        "auroc": figure(row.get("auroc"), fixed(row.get("auroc"))),
        "aurc": figure(row.get("aurc"), fixed(row.get("aurc"))),
    }
