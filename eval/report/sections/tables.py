"""The report in tables: ranked retrieval, mined pairs, and the sums of a benchmark."""

from collections.abc import Mapping, Sequence
from typing import Any

from xt.core.results.report import Report
from xt.eval.report import page
from xt.eval.report.page import Cell, figure, fixed, is_number, percent, text, words
from xt.eval.report.reading import CLASSES, Metrics, get, known, language_name

GROUPS = {**CLASSES, "unknown": "Unclassed"}
SORT = "Select a heading to sort."


def name_cell(report: Report, code: str) -> Cell:
    """A language's name and code."""
    name = language_name(report, code)
    return Cell(f'{text(name)} <small class="code">{text(code)}</small>', name) if name != code else words(code)


def rows_of(data: Any) -> dict[str, Metrics]:
    """The rows of a section by language: under `languages`, or the section itself."""
    found = get(data, "languages") if isinstance(get(data, "languages"), Mapping) else data
    return {str(c): r for c, r in found.items() if isinstance(r, Mapping)} if isinstance(found, Mapping) else {}


def means(data: Any, caption: str) -> str:
    """Means over the languages, all and of each resource class; empty without any."""
    found = {k: v if isinstance(v, Mapping) else {"all": v} for k, v in (get(data, "mean") or {}).items()}
    shown = [g for g in GROUPS if any(is_number(m.get(g)) for m in found.values())]
    rows = [
        [words(name), *(figure(m.get(g), percent(m.get(g))) for g in shown)]
        for name, m in found.items()
        if any(is_number(m.get(g)) for g in shown)
    ]
    return page.table(caption, ["Measure", *(GROUPS[g] for g in shown)], rows)


# -- ranked ------------------------------------------------------------------------------------------------------------


def ranked(report: Report) -> str:
    """Ranked retrieval: means, then every measure by language. One collection, or several by name."""
    data = known(report.ranked.to_json()) if report.ranked else {}
    several = {"": data} if isinstance(data.get("languages"), Mapping) else data
    parts = []
    for task, section in several.items():
        rows = rows_of(section)
        names = list(dict.fromkeys(k for r in rows.values() for k, v in r.items() if is_number(v) and k != "n"))
        lines = [
            [
                name_cell(report, code),
                figure(row.get("n"), fixed(row.get("n"), 0)),
                *(figure(row.get(k), percent(row.get(k)), page.interval(row.get(f"{k}_ci"), 1, 100)) for k in names),
            ]
            for code, row in rows.items()
        ]
        parts += [f'<p class="note">{text(n)}</p>\n' for n in listed(section.get("notes"))]
        lead = f"{task}: measures" if task else "Measures"
        parts.append(means(section, f"{lead} of the ranking, means over languages"))
        head = ["Queries in", "n", *(text(k) for k in names)]
        caption = f"{lead} by language, in percent, with 95% intervals. {SORT}"
        parts.append(page.table(caption, head, lines, sort=True, tall=len(lines) > 14))
    how = (
        "Each query ranks the whole collection. <b>MRR</b> is the mean of 1 / rank of the first right answer; "
        "<b>nDCG@k</b> and <b>mAP@k</b> weigh every right answer among the first k by its place; <b>recall@k</b> is "
        "the share of right answers among them; <b>accuracy</b>, how often the first is right."
    )
    return page.section("ranked", "Ranked retrieval", how, *parts)


# -- mining ------------------------------------------------------------------------------------------------------------

MINED = {"precision": "Precision", "recall": "Recall", "f1": "F1"}
NESTED = {
    ("margins", "distance", "f1"): "F1, distance",
    ("margins", "absolute", "f1"): "F1, absolute",
    ("guarantee", "precision"): "guaranteed: precision",
    ("guarantee", "recall"): "recall",
    ("fdr", "false_share"): "discoveries: wrong",
    ("fdr", "recall"): "recall",
}
"""Figures in percent that stand deeper in a row."""


def mining(report: Report) -> str:
    """Mined pairs: means, then precision, recall and F1 by language, what is promised, and the probabilities' error."""
    data = report.mining
    rows = rows_of(data)
    plain = [k for k in ("n", "pairs") if any(is_number(r.get(k)) for r in rows.values())]
    deep = [p for p in NESTED if any(is_number(get(r, *p)) for r in rows.values())]
    sure = [k for k in ("ece", "ece_null") if any(is_number(get(r, "probability", k)) for r in rows.values())]
    lines = []
    for code, row in rows.items():
        cells = [name_cell(report, code), *(figure(row.get(k), fixed(row.get(k), 0)) for k in plain)]
        cells += [figure(row.get(k), percent(row.get(k)), page.interval(row.get(f"{k}_ci"), 1, 100)) for k in MINED]
        cells.append(figure(row.get("threshold"), fixed(row.get("threshold"), 4)))
        cells += [figure(get(row, *p), percent(get(row, *p))) for p in deep]
        cells += [figure(get(row, "probability", k), fixed(get(row, "probability", k))) for k in sure]
        lines.append(cells)
    margin, k = data.get("margin"), data.get("k")
    by = f" by the {text(margin)} margin over {text(k)} neighbours" if isinstance(margin, str) and k else ""
    how = (
        f"Pairs of translations are found in two collections{by}, one to one. The threshold was tuned on the "
        "development part; all figures are of the test part."
    )
    if any(p[0] == "guarantee" for p in deep):
        how += " <b>Guaranteed</b>: with a threshold whose precision is certified on the development part."
    if any(p[0] == "fdr" for p in deep):
        how += " <b>Discoveries</b>: chosen by conformal p-values, which bound the share of wrong ones."
    notes = [str(n) for n in listed(data.get("notes"))]
    notes += [f"{language_name(report, c)}: {n}" for c, r in rows.items() for n in listed(r.get("notes"))]
    told = "".join(f'<p class="note">{text(n)}</p>\n' for n in notes)
    head = ["Language", *({"n": "Gold", "pairs": "Mined"}[k] for k in plain), *MINED.values(), "threshold"]
    head += [NESTED[p] for p in deep] + [{"ece": "ECE", "ece_null": "perfect"}[k] for k in sure]
    table = page.table(f"Mined pairs against the gold ones. {SORT}", head, lines, sort=True, tall=len(lines) > 14)
    return page.section("mining", "Mining", how, told, means(data, "Means over the languages") if lines else "", table)


def listed(value: Any) -> Sequence[Any]:
    """A list as it is; anything else is none."""
    return value if isinstance(value, list | tuple) else ()


# -- summary -----------------------------------------------------------------------------------------------------------


def summary(report: Report) -> str:
    """The benchmark's tasks by group and the overall score, as its authors aggregate them; what is missing is named."""
    data = report.summary
    tasks = {str(k): v if isinstance(v, Mapping) else {"score": v} for k, v in (data.get("tasks") or {}).items()}
    grouped = data.get("groups") or {}
    order = list(dict.fromkeys([*grouped, *(t.get("group") for t in tasks.values())]))
    head = ["Task", "Score", "Partial", "Languages", "Missing"]
    used = [
        True,
        True,
        *(any(t.get(k) is not None for t in tasks.values()) for k in ("partial", "languages", "missing")),
    ]
    rows: list[Sequence[Cell] | str] = []
    for group in order:
        mine = {k: t for k, t in tasks.items() if t.get("group") == group}
        mean = score_of(grouped.get(group)) if group in grouped else None
        if mine or mean is not None:
            label = str(group).replace("_", " ").capitalize() if group is not None else "Tasks"
            rows.append(text(label) + (f" <small>{percent(mean)}</small>" if group in grouped else ""))
        for name, task in mine.items():
            languages, expected = task.get("languages"), task.get("expected")
            there = len(languages) if isinstance(languages, Mapping) else languages
            absent = listed(task.get("missing"))
            said = ", ".join(language_name(report, str(c)) for c in absent)
            count = f"{fixed(there, 0)} of {fixed(expected, 0)}" if is_number(expected) else fixed(there, 0)
            score, partial = task.get("score"), task.get("partial")
            cells = [words(name), figure(score, percent(score)), figure(partial, percent(partial))]
            cells += [Cell(text(count), float(there) if is_number(there) else None, number=True), words(said)]
            rows.append([cell for cell, use in zip(cells, used, strict=True) if use])
    if any(not isinstance(r, str) for r in rows):
        rows += [f"Overall <b>{percent(score_of(data.get('overall')))}</b>"]
    name = str(data.get("benchmark") or "benchmark")
    name = name.upper() if name.islower() else name
    missing = [*listed(data.get("missing")), *listed(get(data, "overall", "missing"))]
    note = f'<p class="note">Without a score: {text(", ".join(map(str, missing)))}.</p>\n' if missing else ""
    how = (
        f"The scores of {text(name)} as its authors aggregate them: a task is the mean over its languages, a group and "
        "the overall score the mean over their tasks. <b>Partial</b> is the mean over what is there: not comparable "
        "with a published score where languages are missing."
    )
    shown = [h for h, use in zip(head, used, strict=True) if use]
    return page.section("summary", name, how, page.table(f"{name}, in percent", shown, rows), note)


def score_of(value: Any) -> float | None:
    """A score given as a share, or as a mapping with it under `score`."""
    found = get(value, "score") if isinstance(value, Mapping) else value
    return float(found) if is_number(found) else None
