"""The tables of XTREME and XTREME-R, put together from the reports of their tasks.

As their authors aggregate (XTREME's `evaluate.py`): a task's score is the mean over its languages, for question
answering the mean of F1 and exact match, a group's the mean over its tasks, the overall score the unweighted mean over
all tasks. A task that lacks a language has no score, nor have its group and the whole: what there is is shown as such.
XTREME-R's script cannot score LAReQA; it counts among retrieval here, as in the paper (Ruder et al. 2021, table 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xt.core import languages
from xt.core.errors import XtError, unknown
from xt.core.files.artifact import Artifact
from xt.core.results.folder import Files, open_report, write_report
from xt.core.results.report import Encoder, Report
from xt.eval import groups
from xt.eval.report import build
from xt.eval.report.describe import describe_run

XTREME_DIRECTION = "english-foreign"


@dataclass(frozen=True)
class Row:
    """One task of a benchmark."""

    task: str
    """As xt names it."""
    group: str
    figures: tuple[tuple[str, ...], ...]
    """What is averaged: each a figure of a language under the names it may have, the first that is there counts."""
    languages: str
    """ISO 639-1 codes, as the benchmark lists them."""

    @property
    def codes(self) -> list[str]:
        """The languages as xt names them."""
        return [languages.resolve(code).iso3 for code in self.languages.split()]


_XNLI = "ar bg de el en es fr hi ru sw th tr ur vi zh"
_PANX = (
    "ar he vi id jv ms tl eu ml ta te af nl en de el bn hi mr ur fa fr it pt es bg ru ja ka ko th sw yo my zh kk tr et "
    "fi hu"
)
_UDPOS = "af ar bg de el en es et eu fa fi fr he hi hu id it ja kk ko mr nl pt ru ta te th tl tr ur vi yo zh"
_TATOEBA = "ar he vi id jv tl eu ml ta te af nl de el bn hi mr ur fa fr it pt es bg ru ja ka ko th sw zh kk tr et fi hu"
_XQUAD = "en es de el ru tr ar vi th zh hi"
_MLQA = "en es de ar hi vi zh"
_TYDI = "en ar bn fi id ko ru sw te"
_ACCURACY = (("accuracy",),)
_SPANS = (("span_f1", "seqeval_f1"),)
_ANSWERS = (("f1",), ("exact_match",))
_MAP = (("AP@20", "map@20"),)

BENCHMARKS: dict[str, tuple[Row, ...]] = {
    "xtreme": (
        Row("xnli", "classification", _ACCURACY, _XNLI),
        Row("paws-x", "classification", _ACCURACY, "de en es fr ja ko zh"),
        Row("udpos", "structured prediction", _SPANS, _UDPOS),
        Row("panx", "structured prediction", _SPANS, _PANX),
        Row("xquad", "question answering", _ANSWERS, _XQUAD),
        Row("mlqa", "question answering", _ANSWERS, _MLQA),
        Row("tydiqa", "question answering", _ANSWERS, _TYDI),
        Row("bucc", "retrieval", (("f1",),), "de fr ru zh"),
        Row("tatoeba", "retrieval", _ACCURACY, _TATOEBA),
    ),
    "xtreme-r": (
        Row("xnli", "classification", _ACCURACY, _XNLI),
        Row("xcopa", "classification", _ACCURACY, "et ht id it qu sw ta th tr vi zh"),
        Row("udpos", "structured prediction", _SPANS, f"{_UDPOS} lt pl uk wo ro"),
        Row("panx", "structured prediction", _SPANS, f"{_PANX} qu pl uk az lt pa gu ro"),
        Row("xquad", "question answering", _ANSWERS, f"{_XQUAD} ro"),
        Row("mlqa", "question answering", _ANSWERS, _MLQA),
        Row("tydiqa", "question answering", _ANSWERS, _TYDI),
        Row("tatoeba", "retrieval", _ACCURACY, f"{_TATOEBA} az lt pl uk ro"),
        Row("mewsli-x", "retrieval", _MAP, "ar de en es fa ja pl ro ta tr uk"),
        Row("xquad-r", "retrieval", _MAP, _XQUAD),
    ),
}
"""The tasks of each benchmark, with the languages of its `evaluate.py`."""


@dataclass(frozen=True)
class Read:
    """What one report says of its task."""

    path: Path
    task: str
    encoder: str
    hash: str
    languages: Mapping[str, Mapping[str, Any]]
    """language -> figure -> value"""


def read_report(folder: Path) -> Read:
    """Read the task, the encoder and each language's figures of a report folder; XtError when it has none."""
    opened = open_report(folder)
    report = opened.report
    encoder = report.encoders[-1] if report.encoders else Encoder()
    rows = figures_of(report, encoder)
    if not rows or not report.task.name:
        raise XtError(f"{folder} says nothing of any language of a task.", "Name folders that `xt eval` wrote.")
    rows = {_code(code): row for code, row in rows.items()}
    return Read(folder, report.task.name, encoder.name or "?", opened.artifact.hash, rows)


def figures_of(report: Report, encoder: Encoder) -> dict[str, Mapping[str, Any]]:
    """Return each language's figures of what a report is of: mining, ranking, a head, or retrieval of translations."""
    if report.mining:
        return {code: row.to_json() for code, row in report.mining.languages.items()}
    found = report.ranked or report.classification or encoder.retrieval.get(XTREME_DIRECTION)
    return {code: row.to_json() for code, row in found.languages.items()} if found else {}


def _code(code: str) -> str:
    try:
        return languages.resolve(code).iso3
    except XtError:
        return code


def task_scores(
    row: Row, found: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, list[float]], list[str], list[str]]:
    """Pick a task's figures: language -> the value of each, the languages missing, and the names of figures missing."""
    values: dict[str, list[float]] = {}
    absent: list[str] = []
    for code in row.codes:
        if code not in found:
            continue
        picked = []
        for names in row.figures:
            value = next((found[code][n] for n in names if _is_number(found[code].get(n))), None)
            if value is None:
                absent.append(names[0])
            else:
                picked.append(float(value))
        if len(picked) == len(row.figures):
            values[code] = picked
    return values, [c for c in row.codes if c not in values], sorted(set(absent))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def summarise(benchmark: str, reports: Sequence[Read]) -> dict[str, Any]:
    """Put a benchmark's table together: the section `summary` of metrics.json.

    Several reports of one task must be of different languages; those of other tasks are listed and not used. Scores are
    None where something is missing, `partial` is then the mean over what is there.
    """
    if benchmark not in BENCHMARKS:
        raise unknown("benchmark", benchmark, BENCHMARKS)
    rows = BENCHMARKS[benchmark]
    by_task: dict[str, dict[str, Mapping[str, Any]]] = {}
    origin: dict[tuple[str, str], Path] = {}
    used: dict[str, list[Read]] = {}
    for found in reports:
        for code, figures in found.languages.items():
            if (found.task, code) in origin:
                raise XtError(
                    f"{origin[found.task, code]} and {found.path} both report {code} of {found.task}.",
                    "Name one of them.",
                )
            origin[found.task, code] = found.path
            by_task.setdefault(found.task, {})[code] = figures
        used.setdefault(found.task, []).append(found)
    known = {row.task for row in rows}
    if not known & set(by_task):
        raise XtError(
            f"None of the reports is of a task of {benchmark} (found: {', '.join(sorted(by_task)) or 'none'}).",
            f"Its tasks: {', '.join(sorted(known))}.",
        )
    tasks: dict[str, dict[str, Any]] = {}
    for row in rows:
        values, missing, absent = task_scores(row, by_task.get(row.task, {}))
        means = np.mean(list(values.values()), axis=0) if values else np.zeros(0)
        partial = float(np.mean(means)) if values else None
        per_language = {code: float(np.mean(v)) for code, v in values.items()}
        tasks[row.task] = {
            "group": row.group,
            "score": partial if not missing else None,
            "partial": partial,
            "figures": {names[0]: float(m) for names, m in zip(row.figures, means, strict=False)},
            "languages": per_language,
            "expected": len(row.codes),
            "missing": missing,
            "figures_missing": absent,
            "by": groups.all_groups(per_language) if per_language else {},
            "encoders": sorted({r.encoder for r in used.get(row.task, [])}),
            "reports": [str(r.path) for r in used.get(row.task, [])],
        }
    grouped = {}
    for name in dict.fromkeys(row.group for row in rows):
        grouped[name] = _mean([(t, tasks[t]["score"]) for t in tasks if tasks[t]["group"] == name])
    overall = _mean([(t, tasks[t]["score"]) for t in tasks])
    return {
        "benchmark": benchmark,
        "tasks": tasks,
        "groups": grouped,
        "overall": overall,
        "ignored": sorted(set(by_task) - known),
    }


def _mean(scores: Sequence[tuple[str, float | None]]) -> dict[str, Any]:
    """Mean over tasks, None where one has no score; which those are."""
    there = [value for _, value in scores if value is not None]
    missing = [name for name, value in scores if value is None]
    return {"score": float(np.mean(there)) if there and not missing else None, "missing": missing, "tasks": len(scores)}


def write_summary(
    folders: Sequence[Path], benchmark: str, out: Path, *, force: bool = False
) -> tuple[Artifact, Report]:
    """Write a summary folder from report folders, with its table as summary.tsv; return it and its report."""
    if benchmark not in BENCHMARKS:
        raise unknown("benchmark", benchmark, BENCHMARKS)
    reports = [read_report(folder) for folder in folders]
    section = summarise(benchmark, reports)
    codes = list(dict.fromkeys(code for row in BENCHMARKS[benchmark] for code in row.codes))
    there = {code for task in section["tasks"].values() for code in task["languages"]}
    title = f"{benchmark.upper()}, put together from {len(reports)} report{'s' if len(reports) != 1 else ''}"
    about = {"name": benchmark, "title": title, "languages": len(there)}
    report = describe_run(f"{benchmark.upper()} summary", about, codes, summary=section, notes=notes(section))
    artifact = write_report(
        out,
        report,
        Files(build.render(report), texts={"summary.tsv": as_tsv(section)}),
        kind="summary",
        parents=[{"kind": "report", "path": str(r.path), "hash": r.hash} for r in reports],
        facts={"benchmark": benchmark, "overall": section["overall"]["score"]},
        force=force,
    )
    return artifact, report


def notes(section: Mapping[str, Any]) -> list[str]:
    """Return in words what is missing, and what a reader must know."""
    found = []
    for name, task in section["tasks"].items():
        if not task["reports"]:
            found.append(f"{name}: no report")
        elif task["figures_missing"]:
            found.append(f"{name}: its report has no {' and no '.join(task['figures_missing'])}")
        elif task["missing"]:
            what = f"{len(task['missing'])} of {task['expected']} languages are missing"
            found.append(f"{name}: {what} ({', '.join(task['missing'])}); no score")
    if found:
        found.append("Groups and the overall score are given only where every task has its score.")
    if section["ignored"]:
        found.append(f"Not of this benchmark, and not used: {', '.join(section['ignored'])}")
    encoders = {e for task in section["tasks"].values() for e in task["encoders"]}
    if len(encoders) > 1:
        found.append(f"The tasks were answered by several checkpoints: {', '.join(sorted(encoders))}")
    return found


def as_tsv(section: Mapping[str, Any]) -> str:
    """Write the table as text: level, name, score, mean of what is there, languages there and expected."""
    lines = [("level", "name", "score", "partial", "languages", "expected", "missing")]
    for name, task in section["tasks"].items():
        cells = (_cell(task["score"]), _cell(task["partial"]), str(len(task["languages"])), str(task["expected"]))
        lines.append(("task", name, *cells, " ".join(task["missing"])))
    for name, group in section["groups"].items():
        lines.append(("group", name, _cell(group["score"]), "", "", "", " ".join(group["missing"])))
    overall = section["overall"]
    lines.append(("overall", section["benchmark"], _cell(overall["score"]), "", "", "", " ".join(overall["missing"])))
    return "".join("\t".join(line) + "\n" for line in lines)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
