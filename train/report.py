"""training.html: one self-contained page in a checkpoint folder that shows what a training run did.

A section is a function from the training to HTML; what is missing is left out. What it says stands in the template.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, TypeGuard

from markupsafe import Markup

from xt.core.pages import numbers
from xt.core.pages.curves import MOST, Point, loss_panel, panel, step_frame, thin
from xt.core.pages.numbers import DASH, difference, fixed, short
from xt.core.pages.page import Macros, document, kit
from xt.core.pages.rows import ACCENT, BAR, Dot, Row, Series, chart, coloured, key, legend, mark, reference_key
from xt.core.pages.svg import Scale, sign, tag
from xt.core.pages.tables import figure, named, table, words
from xt.core.results.work import Training

FEW = 60
"""Evaluations that have a mark each; more are a line only."""
BEFORE, AFTER, SCORING = Series("second", "ring"), ACCENT, Series("accent", "ring")
QUARTERS = (0, 0.25, 0.5, 0.75, 1)
html = Macros("training.html.j2", Path(__file__).parent / "templates")


def write_report(folder: Path, training: Mapping[str, Any]) -> Path:
    """Write `training.html` into `folder`, through a temporary sibling, and return its path."""
    path = folder / "training.html"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(render(training), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def render(given: Mapping[str, Any]) -> str:
    """Return the page of a training, from the object that its manifest keeps."""
    training = Training.from_json(given)
    title = heading(training)
    parts = [part(training) for part in (results, dev_scores, losses, sampling, data, settings)]
    names = [task.name for task in training.tasks]
    lead = html.lead(names if len(names) > 3 else [], training.steps, training.stopped, training.chosen_step).strip()
    header = kit.header("xt train", title, lead, tiles(training))
    footer = "Written by xt train. The page loads nothing from elsewhere."
    return document(title, header, Markup().join(parts), footer, script=False)


# -- numbers and text --------------------------------------------------------------------------------------------------


def score(value: Any) -> str:
    """Return a share in [0, 1] as a percentage; any other number as it is.

    >>> score(0.8734), score(12.5), score(None)
    ('87.3%', '12.50', '–')
    """
    return numbers.percent(value) if is_share(value) else fixed(value, 2)


def is_share(value: Any) -> TypeGuard[float]:
    """Return whether `value` can be a share: a number in [0, 1]."""
    return numbers.is_number(value) and 0 <= value <= 1


def gain(before: Any, after: Any) -> str:
    """Return what was gained: in percentage points for shares, always with its sign.

    >>> gain(0.33, 0.81), gain(0.5, 0.4), gain(3.0, 2.5), gain(None, 0.4)
    ('+48.0', '−10.0', '−0.50', '–')
    """
    change = difference(after, before)
    return numbers.points(change) if is_share(before) and is_share(after) else numbers.signed(change, 2)


def duration(seconds: float) -> str:
    """Return a time in its two largest units.

    >>> duration(8.25), duration(412.3), duration(7384)
    ('8.2 s', '6 min 52 s', '2 h 3 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if seconds < 59.5:
        return f"{seconds:.1f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def setting(value: Any) -> str:
    """Return a setting in words.

    >>> setting(["sick", "rte"]), setting(True), setting(1e-05), setting(None), setting("")
    ('sick, rte', 'yes', '1e-05', '–', '–')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(setting(v) for v in value) or DASH
    if isinstance(value, Mapping):
        return json.dumps(dict(value), ensure_ascii=False, default=str)
    return DASH if value is None or value == "" else str(value)


# -- sections ----------------------------------------------------------------------------------------------------------


def heading(training: Training) -> str:
    """Return what was trained on what."""
    names = [task.name for task in training.tasks]
    listed = " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
    several = f"{len(names)} tasks" if len(names) > 3 else listed
    encoder = training.encoder or "An encoder"
    return f"{encoder}, trained on {several}" if names else f"{encoder}, trained"


def tiles(training: Training) -> list[tuple[str, str, str]]:
    """Return the headline figures: what, how much, and beside what to read it."""
    out = []
    pairs = [(t.before, t.after) for t in training.tasks if is_share(t.before) and is_share(t.after)]
    if pairs:
        before, after = (fmean(v for v in side if v is not None) for side in zip(*pairs, strict=True))
        over = "Dev score" if len(pairs) == 1 else f"Dev score, mean of {len(pairs)} tasks"
        out.append((over, score(after), f"{score(before)} before, {gain(before, after)} points"))
    if gaps := [d for t in training.tasks if (d := difference(t.after, t.majority)) is not None]:
        above = f"{sum(gap > 0 for gap in gaps)} of {len(gaps)}"
        out.append(("Above the majority", above, "tasks that beat the commonest answer"))
    steps, planned, chosen = training.steps, training.planned_steps, training.chosen_step
    if steps is not None:
        short_of = f"of {fixed(planned, 0)} planned; " if planned not in (None, steps) else ""
        kept = f"step {fixed(chosen, 0)} kept" if chosen is not None else ""
        out.append(("Steps", fixed(steps, 0), short_of + kept))
    if training.tokens is not None:
        rate = training.tokens_per_second
        out.append(("Tokens", fixed(training.tokens, 0), f"{fixed(rate, 0)} a second" if rate is not None else ""))
    if training.seconds is not None:
        many = f"{training.processes} processes" if (training.processes or 1) > 1 else ""
        where = ", ".join(v for v in (training.device, training.precision, many) if v)
        out.append(("Time", duration(training.seconds), where))
    return out


def results(training: Training) -> Markup:
    """Return each task before and after, against always giving the commonest answer."""
    rows, drawn = [], []
    for task in training.tasks:
        name, before, after, base = task.name, task.before, task.after, task.majority
        cells = [
            figure(base, score(base), (task.majority_label or "") if base is not None else ""),
            *(figure(v, score(v)) for v in (before, after)),
            figure(difference(after, before), gain(before, after)),
        ]
        rows.append([named(name, "sample" if task.sample else ""), words(task.metric), *cells])
        for metric, other in task.others.items():
            shown = [DASH, score(other.before), score(other.after), gain(other.before, other.after)]
            rows.append([named("", name), words(metric), *(figure(None, text) for text in shown)])
        marks = [Dot(s, v) for s, v in ((BEFORE, before), (AFTER, after)) if is_share(v)]
        if marks:
            said = f"{name}: before {score(before)}, after {score(after)}, majority {score(base)}"
            tick = base if is_share(base) else None
            drawn.append(Row(name, "", f"{score(before)} → {score(after)}", said, marks, tick))
    if not rows:
        return Markup()
    signs = legend([(key(BEFORE), "before"), (key(AFTER), "after"), (reference_key(), "majority")])
    head = ["Task", "Metric", "Majority", "Before", "After", "Gain"]
    caption = "Gain in percentage points, or in the metric's own unit where it is no share"
    return html.results(signs, chart(drawn, Scale(0, 1), QUARTERS, two=False), table(caption, head, rows))


def dev_panel(
    name: str, points: Sequence[Point], *, last: float, chosen: float | None, majority: float | None = None
) -> Markup:
    """Return a dev score over steps: the chosen step as an upright line, the majority as a dashed one."""
    values = [v for _, v in points] + ([majority] if majority is not None else [])
    shares = all(is_share(v) for v in values)
    pad = max((max(values) - min(values)) * 0.12, 0.01 if shares else abs(max(values)) * 0.01 + 1e-9)
    low, high = min(values) - pad, max(values) + pad
    frame = step_frame(last, max(low, 0) if shares else low, min(high, 1) if shares else high)
    parts = [frame.level(majority, "base")] if majority is not None else []
    parts += [coloured(ACCENT, frame.upright(chosen, "chosen"))] if chosen is not None else []
    if len(points) > 1:
        parts.append(coloured(ACCENT, frame.path((s, v) for s, v, _ in thin(points))))
    for step, value in points if len(points) <= FEW else [p for p in points if p[0] == chosen]:
        told = tag("title", f"step {fixed(step, 0)}: {score(value)}")
        kept = step == chosen
        parts.append(tag("g", told, mark(ACCENT if kept else SCORING, *frame.at(step, value), 5 if kept else 3.5)))
    at_chosen = next((v for s, v in points if s == chosen), None)
    said = [f"kept {score(at_chosen)}"] if at_chosen is not None else []
    said += [f"last {score(points[-1][1])}"] if points[-1][0] != chosen else []
    aside = ", ".join(said)
    return panel(name, aside, f"Dev score of {name} by step: {aside}", frame, *parts, percents=shares)


def dev_scores(training: Training) -> Markup:
    """Return development scores while training."""
    curves: dict[str, list[Point]] = {}
    means: list[Point] = []
    steps = [1 if training.steps is None else training.steps]
    for step, entry in sorted(((e.step, e) for e in training.dev if e.step is not None), key=lambda pair: pair[0]):
        steps.append(step)
        means += [(step, entry.mean)] if entry.mean is not None else []
        for name, value in entry.scores.items():
            curves.setdefault(name, []).append((step, value))
    if not curves:
        return Markup()
    last, chosen = max(steps), training.chosen_step
    majority = {task.name: task.majority for task in training.tasks}
    panels = [dev_panel("Mean of the tasks", means, last=last, chosen=chosen)] if means and len(curves) > 1 else []
    for name, points in curves.items():
        panels.append(dev_panel(name, points, last=last, chosen=chosen, majority=majority.get(name)))
    dashed = sign(tag("line", class_="base", x1=0, x2=14, y1=7, y2=7))
    signs = [(key(SCORING), "an evaluation")] if any(len(p) <= FEW for p in curves.values()) else []
    signs += [(key(ACCENT), f"the step that was kept ({fixed(chosen, 0)})")] if chosen is not None else []
    signs += [(dashed, "majority")] if any(majority.get(name) is not None for name in curves) else []
    return html.dev(legend(signs), panels)


def losses(training: Training) -> Markup:
    """Return a loss curve for each task on a common step axis, and the learning rate where it was kept."""
    curves = training.curves()
    last = max((step for points in curves.values() for step, _ in points), default=1)
    panels = [loss_panel(name, points, last) for name, points in curves.items()]
    rates = training.learning_rates
    if len(rates) > 1:
        highest = max(rate for _, rate in rates)
        frame = step_frame(max(last, rates[-1][0]), 0, highest * 1.05 or 1)
        line = coloured(BEFORE, frame.path((s, v) for s, v, _ in thin(rates)))
        aside = f"highest {short(highest)}"
        panels.append(panel("Learning rate", aside, f"Learning rate by step: {aside}", frame, line))
    return html.losses(MOST if any(len(p) > MOST for p in curves.values()) else 0, panels) if panels else Markup()


def sampling(training: Training) -> Markup:
    """Return the share each task was meant to have, and what was drawn."""
    total = sum(task.steps or 0 for task in training.tasks)
    lines, drawn = [], []
    for task in training.tasks:
        if task.steps is not None:
            share, plan = task.steps / total if total else 0, training.probabilities.get(task.task or "")
            counts = (figure(n, fixed(n, 0)) for n in (task.steps, task.examples, task.tokens))
            lines.append([words(task.name), figure(plan, score(plan)), figure(share, score(share)), *counts])
            said = f"{task.name}: drawn {score(share)}, meant {score(plan)}"
            tick = plan if is_share(plan) else None
            drawn.append(Row(task.name, "", score(share), said, [Dot(BAR, share)], tick))
    if not lines:
        return Markup()
    signs = legend([(key(BAR), "share of the steps drawn"), (reference_key(), "share it was meant to have")])
    head = ["Task", "Meant", "Drawn", "Steps", "Examples", "Tokens"]
    picture = chart(drawn, Scale(0, 1), QUARTERS, two=False) if len(drawn) > 1 else Markup()
    return html.sampling(training.sampling, signs, picture, table("Meant and drawn, by task", head, lines))


def data(training: Training) -> Markup:
    """Return how many examples each task has, what was left out of it, and where it is from."""
    rows = [
        [
            words(task.name),
            *(figure(n, fixed(n, 0)) for n in (task.train, task.dev, task.cut, task.unusable)),
            *(words(text or None) for text in (task.format, task.origin, task.licence)),
        ]
        for task in training.tasks
    ]
    head = ["Task", "Train", "Dev", "Cut", "Unusable", "Format", "Origin", "Licence"]
    noted = [task for task in training.tasks if task.note or task.first_unusable or task.sha256]
    return html.data(table("Examples by task", head, rows), noted) if rows else Markup()


def settings(training: Training) -> Markup:
    """Return where the encoder is from, every setting, and the command."""
    facts = [("encoder from", training.provenance)] if training.provenance else []
    facts += [(name, setting(value)) for name, value in training.config.items()]
    return html.settings(facts, training.command) if facts or training.command else Markup()
