"""Zero-shot transfer of trained heads: classification, multiple choice, tagging and question answering, by language."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xt.calibration import heads as head_calibration
from xt.calibration import shots
from xt.calibration.apply.file import HeadCalibration, HeadFits
from xt.calibration.apply.heads import LabelTemperature
from xt.calibration.fit.heads import some_examples
from xt.calibration.measuring import measures
from xt.calibration.predictions import FOLDS, Predictions
from xt.calibration.scoring import Method
from xt.calibration.summary import summary
from xt.core.data.tasks import Task
from xt.core.files.artifact import Artifact
from xt.core.heads import scores
from xt.core.heads.decode import Prediction
from xt.core.languages import resource_of
from xt.core.results.folder import Files, write_report
from xt.core.results.report import Report
from xt.eval.heads import classes, official
from xt.eval.heads.engines import HeadEngine, Heads, head_for, open_checkpoint, open_heads
from xt.eval.heads.items import Outcomes, outcomes
from xt.eval.heads.lines import said
from xt.eval.heads.targets import Examples
from xt.eval.report import build
from xt.eval.report.describe import describe_run

__all__ = ["Classified", "Heads", "classify", "head_for", "means", "open_checkpoint", "open_heads", "write"]
SURE = ("pair", "single", "choice")
"""Formats with one probability an example."""
CLASSES = ("pair", "single", "tagging")
"""Formats whose labels have names, each measured by itself."""
ENGLISH = "eng"


@dataclass(frozen=True)
class Classified:
    """What one task gave."""

    metrics: dict[str, Any]
    """The section `classification` of metrics.json."""
    predictions: list[dict[str, Any]]
    calibration: dict[str, Any] = field(default_factory=dict)
    """The section `calibration` of metrics.json: the task's name, or with `, spans` and the like, -> methods."""
    calibrators: dict[str, HeadFits] = field(default_factory=dict)
    """Labels, words, spans, answers -> method -> what it fitted on everything that it may see."""


def classify(
    heads: HeadEngine,
    task: Task,
    data: Examples,
    *,
    calibrate: bool = True,
    english: Sequence[Any] | None = None,
    notes: Sequence[str] = (),
    progress: Callable[[int, int, str], None] | None = None,
    calibrating: Callable[[int, int, str], None] | None = None,
) -> Classified:
    """Answer every language's examples with the head of `task`, score the answers, and calibrate them.

    Args:
        heads: a checkpoint, exported heads or a server.
        task: what is evaluated.
        data: the test examples of each language.
        calibrate: whether the probabilities are calibrated and measured (`xt.calibration.heads`).
        english: English examples to fit zero-shot calibrators on, none of which is a test example or its translation
            (a dev set); without them, cross-fitted on the English test examples.
        notes: what a reader of the report should know of the examples.
        progress: called for every language before it is read.
        calibrating: called for every step of the calibration before it is made.
    """
    head = head_for(task, heads.tasks)
    rows: dict[str, dict[str, Any]] = {}
    predictions: list[dict[str, Any]] = []
    found: dict[str, Outcomes] = {}
    first: dict[str, int] = {}
    matrices: dict[str, classes.Counts] = {}
    for done, (code, examples) in enumerate(data.items()):
        if progress:
            progress(done, len(data), code)
        answers = heads.answers(task, examples)
        found[code] = outcomes(task, code, examples, answers)
        rows[code] = score_language(task, examples, answers, code)
        if task.format in CLASSES:
            matrices[code] = classes.confusion(*classes.gold_and_given(task, examples, answers), len(task.labels))
            rows[code]["macro_f1"] = classes.macro_f1(matrices[code])
        first[code] = len(predictions)
        predictions += [{"language": code, **said(task, e, a)} for e, a in zip(examples, answers, strict=True)]
    if progress:
        progress(len(data), len(data), "")
    section: dict[str, Any] = {"task": task.name, "format": task.format, "metric": task.metric, "head": head}
    section |= {"scored_by": official.convention(task), "mean": means(rows), "languages": rows}
    if matrices:
        section["classes"] = classes.classes(task, matrices)
    if lines := [*notes, *_notes(task, data, found)]:
        section["notes"] = lines
    result = Classified(section, predictions)
    if not calibrate or task.format not in ("pair", "single", "choice", "tagging", "qa"):
        return result
    dev = outcomes(task, ENGLISH, english, heads.answers(task, english)) if english else None
    _calibrate(result, task, heads.temperature(task), found, dev, first, calibrating or (lambda *_: None))
    return result


def _notes(task: Task, data: Examples, found: Mapping[str, Outcomes]) -> list[str]:
    """Return what of the examples is not as it should be, in words."""
    notes = []
    for code, examples in data.items():
        rows: Sequence[Any] = examples
        ids = [e.id for e in rows]
        if twice := len(ids) - len(set(ids)):
            notes.append(f"{code}: {twice} examples have the id of another; each of them was scored")
        golds = {e.label for e in rows} if task.format in ("pair", "single") else {0, 1}
        if len(golds) == 1:
            notes.append(f"{code}: every example has the label {task.labels[golds.pop()]}")
        notes += [f"{code}: {count} {why}" for why, count in found[code].left_out.items()]
    return notes


def _calibrate(
    result: Classified,
    task: Task,
    exported: float,
    found: Mapping[str, Outcomes],
    dev: Outcomes | None,
    first: Mapping[str, int],
    tell: Callable[[int, int, str], None],
) -> None:
    """Add the calibration of every kind of items, and each answer's probabilities to the predictions."""
    kinds = list(dict.fromkeys(kind for outcome in found.values() for kind in outcome.items))
    steps = [f"{kind}: {what}" for kind in kinds for what in ("fits", "measures", "shots")]
    for kind in kinds:
        items = {code: o.items[kind] for code, o in found.items() if kind in o.items and len(o.items[kind])}
        if not items:
            continue
        english = dev.items.get(kind) if dev is not None else None
        whole = {code: len(rows) for code, rows in items.items() if len(rows) > MOST_ITEMS}
        if kind not in ("labels", "answers"):
            items = {code: some_examples(rows, MOST_ITEMS) for code, rows in items.items()}
        step = steps.index(f"{kind}: fits")
        tell(step, len(steps), steps[step])
        calibration = head_calibration.calibrate(items, exported=exported, english=english)
        calibration.notes += [
            f"{code}: calibration is measured on {len(items[code])} of {count} {kind}, those of evenly spaced examples"
            for code, count in whole.items()
            if len(items[code]) < count
        ]
        lacking = [code for code in found if code not in items]
        if lacking:
            calibration.notes.append(f"there are no {kind} in {', '.join(lacking)}")
        if kind in ("words", "spans"):
            calibration.notes.append(f"intervals take {kind} of one sentence for independent, and are somewhat narrow")
        name = task.name if kind in WHOLE else f"{task.name}, {kind}"
        zero_shot = "English dev" if english is not None else f"English outside an example's fold of {FOLDS}"
        tell(step + 1, len(steps), steps[step + 1])
        measured = summarise(items, calibration.methods)
        tell(step + 2, len(steps), steps[step + 2])
        worth = shots.of_heads(items)
        few = [k for k in shots.SHOTS if worth.get(str(k), {}).get("per-language", {}).get("languages", 0) < len(items)]
        if few:
            calibration.notes.append(
                f"{', '.join(map(str, few))} labelled examples: "
                + ", ".join(f"{worth[str(k)]['per-language']['languages'] if str(k) in worth else 0}" for k in few)
                + f" of {len(items)} languages have as many outside a fold"
            )
        result.calibration[name] = {
            "of": kind,
            "fit_languages": [ENGLISH] if "zero-shot" in calibration.kept else [],
            "fitted_on": zero_shot if "zero-shot" in calibration.kept else "",
            "methods": measured,
            "shots": worth,
            "notes": calibration.notes,
        }
        result.calibrators[kind] = calibration.kept
        if kind not in ("labels", "answers"):
            continue
        for code, rows in items.items():
            for at, place in enumerate(found[code].places[kind].tolist()):
                line = result.predictions[first[code] + place]
                line["correct"] = bool(rows.correct[at])
                chances = ((m.key, m.scored[code].confidence[at]) for m in calibration.methods if code in m.scored)
                line |= {f"p_{key}": round(float(chance), 6) for key, chance in chances}
    tell(len(steps), len(steps), "")


def summarise(
    items: Mapping[str, Predictions], methods: Sequence[Method], *, repeats: int | None = None
) -> dict[str, Any]:
    """Measure every method as metrics.json has it.

    repeats: resamples behind an interval; None: 200, and 50 where a language has more than `xt.calibration.shots.MANY`.
    """
    if repeats is None:
        most = max(map(len, items.values()))
        repeats = measures.REPEATS if most <= shots.MANY else measures.REPEATS // 4
    resources = {code: resource_of(code) for code in items}
    return summary(methods, resources, repeats=repeats, points=20, points_overall=100)


MOST_ITEMS = 5_000
"""Words or spans of a language, about, that calibration is measured on at most."""
WHOLE = ("labels", "words", "answers")
"""The items that a task's name alone stands for in the section `calibration`."""


def score_language(
    task: Task, examples: Sequence[Any], answers: Sequence[Prediction], language: str = ENGLISH
) -> dict[str, Any]:
    """Score one language: n, the task's metric and what goes with it, the majority's metric, calibration of labels.

    The scores are those of the benchmark's own script (`xt.eval.heads.official`).
    """
    row: dict[str, Any] = {"n": len(examples), **official.score(task, language, examples, [a.value for a in answers])}
    baseline, label = scores.majority(task, examples)
    if label != "no baseline":
        row |= {"majority": baseline, "majority_label": label}
    if task.format in SURE:
        right = np.array([a.value == e.label for a, e in zip(answers, examples, strict=True)], float)
        sure = np.array([float(np.max(a.probabilities)) for a in answers if a.probabilities is not None])
        row["accuracy_ci"] = measures.wilson(int(right.sum()), len(right))
        row |= {"confidence": float(sure.mean()), "ece": measures.ece(np.minimum(sure, 1.0), right)}
    return row


NOT_AVERAGED = ("n", "accuracy_ci", "majority_label")


def means(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Average each figure over languages: metric -> `all`, each resource class, and `transfer`: all but English."""
    groups: dict[str, list[str]] = {"all": list(rows)}
    for code in rows:
        groups.setdefault(resource_of(code), []).append(code)
    others = [code for code in rows if code != ENGLISH]
    if others and len(others) < len(rows):
        groups["transfer"] = others
    figures = dict.fromkeys(name for row in rows.values() for name in row if name not in NOT_AVERAGED)

    def mean(name: str, members: Iterable[str]) -> float:
        return float(np.mean([rows[m][name] for m in members]))

    return {name: {group: mean(name, members) for group, members in groups.items()} for name in figures}


def write(
    out: Path,
    heads: HeadEngine,
    task: Task,
    result: Classified,
    *,
    facts: dict[str, Any] | None = None,
    force: bool = False,
) -> tuple[Artifact, Report]:
    """Write the report folder of a head.

    calibration.json holds every fitted calibrator, and the zero-shot temperature (pooled without English) of labels,
    tags or answers by itself, so that `xt export --temperature calibration.json` reads it.
    """
    rows = result.metrics["languages"]
    about = {
        "name": task.name,
        "title": task.title,
        "description": task.source,
        "licence": task.licence,
        "languages": len(rows),
        "examples": sum(row["n"] for row in rows.values()),
    }
    sections: dict[str, Any] = {"encoders": [heads.entry], "classification": result.metrics}
    if result.calibration:
        sections["calibration"] = result.calibration
    report = describe_run(f"xt eval {task.name}", about, list(rows), **sections)
    artifact = write_report(
        out,
        report,
        Files(
            build.render(report),
            lines=result.predictions,
            calibration=calibration_of_head(task, result).to_json() if any(result.calibrators.values()) else None,
        ),
        parents=[heads.parent],
        facts={"task": about, "encoders": [heads.entry.name], "head": result.metrics["head"], **(facts or {})},
        force=force,
    )
    return artifact, report


def calibration_of_head(task: Task, result: Classified) -> HeadCalibration:
    """Return what calibration.json holds: the temperature that an export of the head takes, and all calibrators."""
    calibrators = result.calibrators
    whole: HeadFits = next((calibrators[kind] for kind in WHOLE if kind in calibrators), {})
    chosen = next((whole[scope].calibrator for scope in ("zero-shot", "pooled") if scope in whole), None)
    temperature = chosen.temperature if isinstance(chosen, LabelTemperature) else None
    return HeadCalibration(temperature, result.metrics["head"], task.name, answers=calibrators)
