"""training.html: one self-contained page in a checkpoint folder that shows what a training run did.

A section is a function from the training facts to HTML; what is missing is left out. Everything is escaped on its way
in, nothing is loaded from elsewhere, and there is no script. Functions that take `html` trust it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any, TypeGuard

Facts = Mapping[str, Any]
Point = tuple[float, float]
"""A step and a value."""

DASH, MINUS = "–", "−"
MOST = 400
"""Points of a curve; more are averaged."""
FEW = 60
"""Evaluations that have a mark each; more are a line only."""


def write_report(folder: Path, training: Facts) -> Path:
    """Write `training.html` into `folder`, through a temporary sibling, and give its path."""
    path = folder / "training.html"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(render(training), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def render(training: Facts) -> str:
    """The page as HTML."""
    body = "".join(part(training) for part in (results, dev_scores, losses, sampling, data, settings))
    title = heading(training)
    light, dark = (";".join(f"--{k}:{v}" for k, v in colours.items()) for colours in (LIGHT, DARK))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(title)}</title>\n<style>\n:root{{{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{STYLE}</style>\n</head>\n<body>\n"
        f"<header>\n{header(training, title)}</header>\n<main>\n{body}</main>\n"
        "<footer><p>Written by xt train. The page loads nothing from elsewhere.</p></footer>\n"
        "</body>\n</html>\n"
    )


# -- numbers and text --------------------------------------------------------------------------------------------------


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a finite int or float (a bool is not)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def text(value: Any) -> str:
    """Escape `value` for element content and quoted attributes; None gives an en dash."""
    return DASH if value is None else escape(str(value), quote=True)


def fixed(value: Any, digits: int = 0) -> str:
    """`value` with `digits` decimals and thousands separators; an en dash where there is no finite number.

    >>> fixed(1234.5), fixed(-0.5, 1), fixed(None)
    ('1,234', '−0.5', '–')
    """
    return f"{value:,.{digits}f}".replace("-", MINUS) if is_number(value) else DASH


def score(value: Any) -> str:
    """A share in [0, 1] as a percentage; any other number as it is.

    >>> score(0.8734), score(12.5), score(None)
    ('87.3%', '12.50', '–')
    """
    return f"{100 * value:.1f}%" if is_share(value) else fixed(value, 2)


def is_share(value: Any) -> TypeGuard[float]:
    """Whether `value` can be a share: a number in [0, 1]."""
    return is_number(value) and 0 <= value <= 1


def gain(before: Any, after: Any) -> str:
    """What was gained: in percentage points for shares, always with its sign.

    >>> gain(0.33, 0.81), gain(0.5, 0.4), gain(3.0, 2.5), gain(None, 0.4)
    ('+48.0', '−10.0', '−0.50', '–')
    """
    if not (is_number(before) and is_number(after)):
        return DASH
    shares = is_share(before) and is_share(after)
    change = round(100 * (after - before), 1) if shares else round(after - before, 2)
    return ("+" if change > 0 else "") + fixed(change + 0.0, 1 if shares else 2)


def duration(seconds: Any) -> str:
    """A time in its two largest units.

    >>> duration(8.25), duration(412.3), duration(7384), duration(None)
    ('8.2 s', '6 min 52 s', '2 h 3 min', '–')
    """
    if not is_number(seconds):
        return DASH
    minutes, rest = divmod(round(seconds), 60)
    if seconds < 59.5:
        return f"{seconds:.1f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def short(value: float) -> str:
    """A tick's label: no needless zeros, thousands as k.

    >>> short(0.25), short(5e-06), short(1500), short(20000), short(0.0)
    ('0.25', '5e-6', '1,500', '20k', '0')
    """
    if value and value % 1000 == 0 and abs(value) >= 10000:
        return f"{value / 1000:,g}k"
    return f"{value:,g}".replace("e-0", "e-").replace("e+0", "e")


def tasks_of(training: Facts) -> list[Facts]:
    """The rows of the tasks."""
    return [row for row in training.get("tasks") or [] if isinstance(row, Mapping)]


def name_of(row: Facts) -> str:
    """A task's name."""
    return str(row.get("task") or row.get("title") or "task")


# -- points and scales -------------------------------------------------------------------------------------------------


def thin(points: Sequence[Point], most: int = MOST) -> list[tuple[float, float, int]]:
    """At most `most` points: consecutive ones averaged in bins whose sizes differ by one at most.

    Each is (mean step, mean value, how many), so that the mean weighted by the counts stays what it was.

    >>> thin([(1, 3.0), (2, 1.0), (3, 5.0), (4, 1.0)], 2)
    [(1.5, 2.0, 2), (3.5, 3.0, 2)]
    """
    bins = min(most, len(points))
    edges = [i * len(points) // bins for i in range(bins + 1)] if bins else [0]
    parts = [points[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    return [(fmean(s for s, _ in part), fmean(v for _, v in part), len(part)) for part in parts]


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Mean over `width` values around each (the next odd number, fewer at the ends), so that a curve does not lag.

    >>> smooth([1, 2, 6, 4], 3)
    [1.5, 3.0, 4.0, 5.0]
    """
    half = width // 2
    return [fmean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most about `most` round values within [low, high], 1, 2 or 5 times a power of ten apart.

    >>> ticks(0, 1), ticks(0, 300), ticks(0.62, 0.71)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 100.0, 200.0, 300.0], [0.62, 0.64, 0.66, 0.68, 0.7])
    """
    if not high > low:
        return [low]
    power = 10 ** math.floor(math.log10((high - low) / most))
    gap = next(m * power for m in (1, 2, 5, 10, 20) if (high - low) / (m * power) <= most)
    first, last = math.ceil(low / gap - 1e-9), math.floor(high / gap + 1e-9)
    return [float(f"{i * gap:.10g}") for i in range(first, last + 1)]


@dataclass(frozen=True)
class Frame:
    """A plotting rectangle in a panel of 300 by 190 units; y grows downwards in SVG."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    left: float = 44
    top: float = 10
    width: float = 244
    height: float = 136

    def at(self, x: float, y: float) -> Point:
        """SVG coordinates of a data point; what lies outside is drawn on the edge.

        >>> Frame(0, 100, 0, 2).at(50, 0.5)
        (166.0, 112.0)
        """
        right = min(max((x - self.x_low) / (self.x_high - self.x_low or 1), 0), 1)
        up = min(max((y - self.y_low) / (self.y_high - self.y_low or 1), 0), 1)
        return self.left + self.width * right, self.top + self.height * (1 - up)

    def path(self, points: Iterable[Point]) -> str:
        """The coordinates of a polyline."""
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in (self.at(x, y) for x, y in points))

    def axes(self, *, percent: bool = False) -> str:
        """Box, grid, tick labels, and the name of the x axis."""
        bottom, right = self.top + self.height, self.left + self.width
        parts = [f'<rect class="frame" x="{self.left}" y="{self.top}" width="{self.width}" height="{self.height}"/>']
        for value in ticks(self.x_low, self.x_high):
            if value == int(value):  # there is no half step
                x, _ = self.at(value, self.y_low)
                parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{self.top}" y2="{bottom}"/>')
                parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{short(value)}</text>')
        for value in ticks(self.y_low, self.y_high):
            _, y = self.at(self.x_low, value)
            label = f"{100 * value:g}%" if percent else short(value)
            parts.append(f'<line class="grid" x1="{self.left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{self.left - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        middle = self.left + self.width / 2
        return "".join(parts) + f'<text x="{middle:g}" y="{bottom + 33}" text-anchor="middle">step</text>'


def panel(name: str, aside: str, title: str, inside: str) -> str:
    """A figure with its caption; `inside` is SVG."""
    return (
        f"<figure><figcaption><b>{text(name)}</b> <span>{text(aside)}</span></figcaption>"
        f'<svg viewBox="0 0 300 190" role="img"><title>{text(title)}</title>{inside}</svg></figure>\n'
    )


def loss_panel(name: str, points: Sequence[Point], last: float) -> str:
    """A task's loss: each step (or bin of steps) a faint dot, the mean of a tenth of them as a line.

    y starts at 0, x runs from 0 to `last`, the run's last step.
    """
    thinned = thin(points)
    frame = Frame(0, max(last, 1), 0, max((v for _, v, _ in thinned), default=0) * 1.05 or 1)
    means = smooth([v for _, v, _ in thinned], max(2, len(thinned) // 10))
    dots = "".join(
        f'<circle class="dot" cx="{a:.1f}" cy="{b:.1f}" r="1.7"/>' for a, b in (frame.at(s, v) for s, v, _ in thinned)
    )
    line = frame.path((s, m) for (s, _, _), m in zip(thinned, means, strict=True))
    tenth = fmean(v for _, v in points[-max(1, len(points) // 10) :])
    if len(points) == 1:
        aside = f"one step, loss {fixed(tenth, 3)}"
    else:
        aside = f"{fixed(len(points))} steps, last tenth {fixed(tenth, 3)}"
    curve = f'<polyline class="curve" points="{line}"/>' if len(thinned) > 1 else ""
    return panel(name, aside, f"Loss of {name} by step: {aside}", f"{frame.axes()}{dots}{curve}")


def dev_panel(name: str, points: Sequence[Point], *, last: float, chosen: Any, majority: Any = None) -> str:
    """A dev score over steps: the chosen step as an upright line and a filled mark, the majority as a dashed line."""
    values = [v for _, v in points] + ([majority] if is_number(majority) else [])
    shares = all(is_share(v) for v in values)
    pad = max((max(values) - min(values)) * 0.12, 0.01 if shares else abs(max(values)) * 0.01 + 1e-9)
    low, high = min(values) - pad, max(values) + pad
    frame = Frame(0, max(last, 1), max(low, 0) if shares else low, min(high, 1) if shares else high)
    parts, line = [frame.axes(percent=shares)], [(s, v) for s, v, _ in thin(points)]
    if is_number(majority):
        (left, y), (right, _) = frame.at(frame.x_low, majority), frame.at(frame.x_high, majority)
        parts.append(f'<line class="base" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
    if is_number(chosen):
        x, _ = frame.at(chosen, frame.y_low)
        parts.append(
            f'<line class="chosen" x1="{x:.1f}" x2="{x:.1f}" y1="{frame.top}" y2="{frame.top + frame.height}"/>'
        )
    parts.append(f'<polyline class="curve" points="{frame.path(line)}"/>' if len(points) > 1 else "")
    for step, value in points if len(points) <= FEW else [p for p in points if p[0] == chosen]:
        x, y = frame.at(step, value)
        kind, r = ("disc", 5) if step == chosen else ("ring", 2.5)
        tip = f"<title>step {fixed(step)}: {score(value)}</title>"
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{r}">{tip}</circle>')
    kept = next((v for s, v in points if s == chosen), None)
    aside = ", ".join(
        f"{word} {score(value)}"
        for word, value in (("kept", kept), ("last", points[-1][1]))
        if value is not None and (word == "kept" or points[-1][0] != chosen)
    )
    return panel(name, aside, f"Dev score of {name} by step: {aside}", "".join(parts))


# -- sections ----------------------------------------------------------------------------------------------------------


def heading(training: Facts) -> str:
    """What was trained on what."""
    names = [name_of(row) for row in tasks_of(training)]
    listed = " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
    several = f"{len(names)} tasks" if len(names) > 3 else listed
    encoder = str(training.get("encoder") or "An encoder")
    return f"{encoder}, trained on {several}" if names else f"{encoder}, trained"


def header(training: Facts, title: str) -> str:
    """Title, the run in a sentence or two, headline numbers."""
    rows = tasks_of(training)
    named = f"On {text(', '.join(name_of(row) for row in rows))}. " if len(rows) > 3 else ""
    chosen, steps, planned = (training.get(k) for k in ("chosen_step", "steps", "planned_steps"))
    stopped = f"Stopped at step {fixed(steps)} ({text(training['stopped'])}). " if training.get("stopped") else ""
    kept = f"The weights kept are those of step {fixed(chosen)}." if is_number(chosen) and chosen != steps else ""
    tiles = []
    pairs = [(r["before"], r["after"]) for r in rows if is_share(r.get("before")) and is_share(r.get("after"))]
    if pairs:
        before, after = (fmean(side) for side in zip(*pairs, strict=True))
        over = "Dev score" if len(pairs) == 1 else f"Dev score, mean of {len(pairs)} tasks"
        tiles.append((over, score(after), f"{score(before)} before, {gain(before, after)} points"))
    based = [r for r in rows if is_number(r.get("majority")) and is_number(r.get("after"))]
    if based:
        above = sum(r["after"] > r["majority"] for r in based)
        tiles.append(("Above the majority", f"{above} of {len(based)}", "tasks that beat the commonest answer"))
    if is_number(steps):
        short_of = f"of {fixed(planned)} planned; " if is_number(planned) and planned != steps else ""
        tiles.append(("Steps", fixed(steps), short_of + (f"step {fixed(chosen)} kept" if is_number(chosen) else "")))
    if is_number(training.get("tokens")):
        rate = training.get("tokens_per_second")
        tiles.append(("Tokens", fixed(training["tokens"]), f"{fixed(rate)} a second" if is_number(rate) else ""))
    if is_number(training.get("seconds")):
        processes = training.get("processes")
        many = f"{processes} processes" if is_number(processes) and processes > 1 else ""
        where = ", ".join(str(v) for v in (training.get("device"), training.get("precision"), many) if v)
        tiles.append(("Time", duration(training["seconds"]), where))
    boxes = "".join(
        f'<div class="tile"><dt>{text(label)}</dt><dd class="big">{text(big)}</dd>'
        f'<dd class="sub">{text(sub)}</dd></div>\n'
        for label, big, sub in tiles
    )
    lead = (named + stopped + kept).strip()
    return (
        f'<p class="eyebrow">xt train</p>\n<h1>{text(title)}</h1>\n'
        + (f'<p class="lead">{lead}</p>\n' if lead else "")
        + (f'<dl class="tiles">\n{boxes}</dl>\n' if boxes else "")
    )


def section(anchor: str, title: str, how: str, body: str) -> str:
    """A section with its explanation; nothing for an empty body. `how` and `body` are HTML."""
    return f'<section id="{anchor}"><h2>{title}</h2>\n<p class="how">{how}</p>\n{body}</section>\n' if body else ""


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[str] = ("Task",)) -> str:
    """A captioned table that scrolls in its box; cells are HTML, numbers but in the columns `words`."""

    def cell(tag: str, html: str, i: int, attrs: str = "") -> str:
        kind = "" if head[i] in words else ' class="n"'
        return f"<{tag}{attrs}{kind}>{html}</{tag}>"

    heads = "".join(cell("th", h, i, ' scope="col"') for i, h in enumerate(head))
    lines = "".join(
        "<tr>"
        + "".join(cell("td" if i else "th", c, i, "" if i else ' scope="row"') for i, c in enumerate(row))
        + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(caption)}"><table>'
        f"<caption><span>{text(caption)}</span></caption>\n<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{lines}</tbody></table></div>\n"
        if rows
        else ""
    )


def strip(label: str, inside: str, shown: str, title: str) -> str:
    """A row of a chart: name, drawing (x in percent, so that it is as wide as the screen allows), value."""
    grid = "".join(f'<line class="grid" x1="{t}%" x2="{t}%" y1="0" y2="100%"/>' for t in (0, 25, 50, 75, 100))
    return (
        f'<div class="r"><span>{text(label)}</span><svg class="row" role="img"><title>{text(title)}</title>{grid}'
        f'{inside}</svg><span class="v">{text(shown)}</span></div>\n'
    )


def chart(rows: Sequence[str]) -> str:
    """Rows under a scale from 0 to 100%."""
    names = "".join(f'<text x="{t}%" y="14" text-anchor="middle">{t}%</text>' for t in (0, 25, 50, 75, 100))
    axis = f'<div class="r" aria-hidden="true"><span></span><svg class="row">{names}</svg><span></span></div>\n'
    return f'<div class="chart">{axis}{"".join(rows)}</div>\n' if rows else ""


def legend(*entries: tuple[str, str]) -> str:
    """Signs (SVG shapes in a square of 14) and what they stand for."""
    return '<ul class="legend">' + "".join(
        f'<li><svg class="key" viewBox="0 0 14 14" aria-hidden="true">{sign}</svg>{text(label)}</li>'
        for sign, label in entries
    ) + "</ul>\n"  # fmt: skip


def results(training: Facts) -> str:
    """Each task before and after, against always giving the commonest answer."""
    rows, drawn = [], []
    for row in tasks_of(training):
        name, before, after, base = name_of(row), row.get("before"), row.get("after"), row.get("majority")
        label = f" <small>{text(row['majority_label'])}</small>" if row.get("majority_label") is not None else ""
        sample = ' <small class="tag">sample</small>' if row.get("sample") else ""
        numbers = [score(base) + label if is_number(base) else DASH, score(before), score(after), gain(before, after)]
        rows.append([text(name) + sample, text(row.get("metric")), *numbers])
        others = row.get("others") or {}
        for metric, pair in others.items() if isinstance(others, Mapping) else ():
            b, a = (pair.get(k) for k in ("before", "after")) if isinstance(pair, Mapping) else (None, pair)
            rows.append([f"<small>{text(name)}</small>", text(metric), DASH, score(b), score(a), gain(b, a)])
        shares = [v for v in (before, after) if is_share(v)]
        if shares:
            parts = [
                f'<line class="span" x1="{100 * min(shares):.2f}%" x2="{100 * max(shares):.2f}%" y1="14" y2="14"/>'
            ]
            if is_share(base):
                parts.append(f'<line class="tick" x1="{100 * base:.2f}%" x2="{100 * base:.2f}%" y1="4" y2="24"/>')
            if is_share(before):
                parts.append(f'<circle class="before" cx="{100 * before:.2f}%" cy="14" r="4.5"/>')
            if is_share(after):
                parts.append(f'<circle class="disc" cx="{100 * after:.2f}%" cy="14" r="5.5"/>')
            said = f"{name}: before {score(before)}, after {score(after)}, majority {score(base)}"
            drawn.append(strip(name, "".join(parts), f"{score(before)} → {score(after)}", said))
    signs = legend(
        ('<circle class="before" cx="7" cy="7" r="4.5"/>', "before"),
        ('<circle class="disc" cx="7" cy="7" r="5.5"/>', "after"),
        ('<line class="tick" x1="7" x2="7" y1="0" y2="14"/>', "majority"),
    )
    how = (
        "Scores on the development sets, before the first step and with the weights that were kept. <b>Majority</b> is "
        "what always giving the commonest answer scores: a task has learned nothing unless it ends above it. On small "
        "development sets a few points are noise. Metrics of different tasks do not compare."
    )
    head = ["Task", "Metric", "Majority", "Before", "After", "Gain"]
    caption = "Gain in percentage points, or in the metric's own unit where it is no share"
    return section(
        "results",
        "Results",
        how,
        (signs if drawn else "") + chart(drawn) + table(caption, head, rows, ("Task", "Metric")),
    )


def dev_scores(training: Facts) -> str:
    """Development scores while training."""
    entries = [e for e in training.get("dev") or [] if isinstance(e, Mapping) and is_number(e.get("step"))]
    entries.sort(key=lambda e: float(e["step"]))
    curves: dict[str, list[Point]] = {}
    for entry in entries:
        for name, value in (entry.get("scores") or {}).items():
            if is_number(value):
                curves.setdefault(str(name), []).append((entry["step"], value))
    means = [(e["step"], e["mean"]) for e in entries if is_number(e.get("mean"))]
    last = max([e["step"] for e in entries] + [v for v in (training.get("steps"),) if is_number(v)], default=1)
    chosen = training.get("chosen_step")
    majority = {name_of(row): row.get("majority") for row in tasks_of(training)}
    panels = dev_panel("Mean of the tasks", means, last=last, chosen=chosen) if means and len(curves) > 1 else ""
    panels += "".join(
        dev_panel(name, points, last=last, chosen=chosen, majority=majority.get(name))
        for name, points in curves.items()
    )
    marks = {
        "an evaluation": ('<circle class="ring" cx="7" cy="7" r="3"/>', any(len(p) <= FEW for p in curves.values())),
        f"the step that was kept ({fixed(chosen)})": ('<circle class="disc" cx="7" cy="7" r="5"/>', is_number(chosen)),
        "majority": (
            '<line class="base" x1="0" x2="14" y1="7" y2="7"/>',
            any(is_number(majority.get(name)) for name in curves),
        ),
    }
    signs = legend(*((sign, label) for label, (sign, used) in marks.items() if used))
    how = "Scores on the development sets while training. Each panel has its own scale, which need not begin at 0."
    return section("dev", "Development scores", how, f'{signs}<div class="panels">\n{panels}</div>\n' if panels else "")


def losses(training: Facts) -> str:
    """A loss curve for each task on a common step axis, and the learning rate where it was kept."""
    curves: dict[str, list[Point]] = {name_of(row): [] for row in tasks_of(training)}
    for record in training.get("losses") or []:
        if is_number(record.get("step")) and is_number(record.get("loss")):
            curves.setdefault(str(record.get("task") or "loss"), []).append((record["step"], record["loss"]))
    last = max((point[0] for points in curves.values() for point in points), default=1)
    panels = "".join(loss_panel(name, sorted(points), last) for name, points in curves.items() if points)
    pairs = [p for p in training.get("learning_rates") or [] if isinstance(p, Sequence) and len(p) > 1]
    rates = [(p[0], p[1]) for p in pairs if is_number(p[0]) and is_number(p[1])]
    if len(rates) > 1:
        frame = Frame(0, max(last, rates[-1][0], 1), 0, max(r for _, r in rates) * 1.05 or 1)
        line = f'<polyline class="curve second" points="{frame.path((s, v) for s, v, _ in thin(rates))}"/>'
        aside = f"highest {short(max(r for _, r in rates))}"
        panels += panel("Learning rate", aside, f"Learning rate by step: {aside}", frame.axes() + line)
    averaged = any(len(points) > MOST for points in curves.values())
    dots = f"Dots: averages of consecutive steps, {MOST} for a task." if averaged else "Dots: single steps."
    how = (
        f"The training loss, one task a step. {dots} Line: mean of the tenth of them around. Losses of different "
        "tasks do not compare; each panel has its own scale, from 0."
    )
    return section("loss", "Loss", how, f'<div class="panels">\n{panels}</div>\n' if panels else "")


def sampling(training: Facts) -> str:
    """The share each task was meant to have, and what was drawn."""
    wanted = training.get("probabilities") or {}
    rows = [r for r in tasks_of(training) if is_number(r.get("steps"))]
    total = sum(r["steps"] for r in rows)
    lines, drawn = [], []
    for row in rows:
        name, share, plan = name_of(row), row["steps"] / total if total else 0, wanted.get(row.get("task"))
        counts = [fixed(row.get(k)) for k in ("steps", "examples", "tokens")]
        lines.append([text(name), score(plan), score(share), *counts])
        parts = f'<rect class="bar" x="0" y="8" height="12" rx="2" width="{100 * share:.2f}%"/>'
        if is_share(plan):
            parts += f'<line class="tick" x1="{100 * plan:.2f}%" x2="{100 * plan:.2f}%" y1="3" y2="25"/>'
        drawn.append(strip(name, parts, score(share), f"{name}: drawn {score(share)}, meant {score(plan)}"))
    signs = legend(
        ('<rect class="bar" x="0" y="3" width="14" height="8" rx="2"/>', "share of the steps drawn"),
        ('<line class="tick" x1="7" x2="7" y1="0" y2="14"/>', "share it was meant to have"),
    )
    kind = f"<b>{text(training['sampling'])}</b> sampling; a" if training.get("sampling") else "A"
    how = f"{kind} batch has examples of one task only, so a task's share is its share of the steps."
    head = ["Task", "Meant", "Drawn", "Steps", "Examples", "Tokens"]
    picture = signs + chart(drawn) if len(drawn) > 1 else ""
    body = picture + table("Meant and drawn, by task", head, lines) if lines else ""
    return section("sampling", "Sampling", how, body)


def data(training: Facts) -> str:
    """How many examples each task has, what was left out of it, and where it is from."""
    rows, cards, kinds = [], [], ("Format", "Origin", "Licence")
    for row in tasks_of(training):
        counts = [fixed(row.get(k)) for k in ("train", "dev", "cut", "unusable")]
        rows.append([text(name_of(row)), *counts, *(text(row.get(k) or None) for k in map(str.lower, kinds))])
        reasons = "".join(f"<li>{text(r)}</li>" for r in row.get("first_unusable") or [])
        hashes = row.get("sha256") or {}
        files = "".join(
            f"<li>{text(file)} <code>{text(sha)}</code></li>"
            for file, sha in (hashes.items() if isinstance(hashes, Mapping) else [("", hashes)])
        )
        parts = [f"<p>{text(row['note'])}</p>\n"] if row.get("note") else []
        parts += [f"<p>{fixed(row.get('unusable'))} unusable, the first:</p>\n<ul>{reasons}</ul>\n"] if reasons else []
        parts += [f"<p>Files, with their SHA-256:</p>\n<ul>{files}</ul>\n"] if files else []
        if parts:
            title = f" <span>{text(row['title'])}</span>" if row.get("title") else ""
            cards.append(f'<div class="card"><h3>{text(name_of(row))}{title}</h3>\n{"".join(parts)}</div>\n')
    how = (
        "Examples by task. <b>Cut</b>: training examples longer than the maximum, whose ends are not seen. "
        "<b>Unusable</b>: entries of the files that could not be read as an example and were left out."
    )
    head = ["Task", "Train", "Dev", "Cut", "Unusable", *kinds]
    body = table("Examples by task", head, rows, ("Task", *kinds)) + (
        f'<div class="cards">\n{"".join(cards)}</div>\n' if cards else ""
    )
    return section("data", "Data", how, body)


def settings(training: Facts) -> str:
    """Where the encoder is from, every setting, and the command."""
    facts = [("encoder from", training.get("provenance"))] if training.get("provenance") else []
    facts += list((training.get("config") or {}).items())
    entries = "".join(f"<div><dt>{text(k)}</dt><dd>{text(setting(v))}</dd></div>\n" for k, v in facts)
    command = training.get("command")
    run = f"<h3>Command</h3>\n<pre><code>{text(command)}</code></pre>\n" if command else ""
    listed = f'<dl class="facts">\n{entries}</dl>\n' if entries else ""
    return section("settings", "Settings", "What the run was asked to do, and the command that asked it.", listed + run)


def setting(value: Any) -> str:
    """A setting in words.

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


LIGHT = {
    "paper": "#fbfaf8", "card": "#ffffff", "ink": "#1d2129", "muted": "#565d6b", "line": "#dcdad4", "wash": "#f1efea",
    "accent": "#0f5ea8", "second": "#a84a08",
}  # fmt: skip
DARK = {
    "paper": "#14161a", "card": "#1b1e24", "ink": "#e8e6e1", "muted": "#a5abb7", "line": "#363b45", "wash": "#22262d",
    "accent": "#74b4f5", "second": "#eea25f",
}  # fmt: skip

STYLE = """
:root{color-scheme:light dark;
--serif:Charter,"Iowan Old Style","Palatino Linotype",Palatino,Georgia,"Noto Serif",serif;
--sans:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans",Arial,sans-serif;
--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.6 var(--sans)}
header,main,footer{max-width:70rem;margin:0 auto;padding:0 clamp(1rem,4vw,2.5rem)}
header{padding-top:clamp(1.75rem,5vw,4rem)}
h1,h2,h3{font-family:var(--serif);line-height:1.2;font-weight:600;text-wrap:balance;overflow-wrap:anywhere}
h1{font-size:clamp(1.8rem,5vw,2.7rem);margin:.2rem 0 .9rem;letter-spacing:-.015em}
h2{font-size:clamp(1.5rem,3.4vw,2rem);margin:0 0 .6rem;letter-spacing:-.01em}
h3{font-size:1.15rem;margin:2rem 0 .5rem}
p{margin:.5rem 0;overflow-wrap:anywhere}
small{font-size:.86em;color:var(--muted)}
.eyebrow{color:var(--muted);font-size:.86rem;margin:0}
.lead{font:400 clamp(1.1rem,2.2vw,1.3rem)/1.5 var(--serif);max-width:50rem;margin:0 0 .8rem}
.how{color:var(--muted);max-width:46rem;margin:0 0 1.2rem}.how b{color:var(--ink);font-weight:600}
section{padding:clamp(2.2rem,5vw,3.4rem) 0 .6rem}
section+section{border-top:1px solid var(--line);margin-top:2rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(11.5rem,100%),1fr));gap:.8rem;margin:1.8rem 0 0}
.tile,.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.9rem 1rem 1rem;
min-width:0;break-inside:avoid}
.tile dt,.tile .sub{font-size:.84rem;color:var(--muted);line-height:1.4}
.tile dd{margin:0}
.tile .big{font:600 clamp(1.5rem,3.4vw,1.9rem)/1.3 var(--serif);font-variant-numeric:lining-nums tabular-nums;
letter-spacing:-.02em}
.scroll{overflow-x:auto;margin:1rem 0 1.4rem;border:1px solid var(--line);border-radius:.6rem;background:var(--card)}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:.88rem;line-height:1.4}
caption{text-align:left;color:var(--muted);padding:.75rem .9rem .6rem}
caption span{position:sticky;left:.9rem;display:inline-block;max-width:min(46rem,calc(100vw - 4.4rem))}
th,td{padding:.42rem .9rem;text-align:left;border-top:1px solid var(--line);vertical-align:baseline;font-weight:400}
thead th{font-weight:600;background:var(--wash);white-space:nowrap}
th[scope=row]{position:sticky;left:0;background:var(--card);z-index:1}
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums lining-nums}
td:not(.n){min-width:6rem}
.tag{border:1px solid var(--line);border-radius:.3rem;padding:0 .3em}
figure{margin:0;min-width:0;max-width:30rem;break-inside:avoid}
figcaption{font-size:.9rem;line-height:1.4;margin-bottom:.4rem}figcaption b{font-weight:600}
figcaption span{color:var(--muted);font-variant-numeric:tabular-nums}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(18rem,100%),1fr));gap:2rem 1.8rem;
margin:1.2rem 0}
.panels svg{width:100%;height:auto;display:block}
svg{overflow:visible}
svg text{font-family:var(--sans);font-size:11px;fill:var(--muted);font-variant-numeric:tabular-nums}
.frame{fill:var(--card);stroke:var(--line)}.grid{stroke:var(--line)}
.curve{fill:none;stroke:var(--accent);stroke-width:2;stroke-linejoin:round}.curve.second{stroke:var(--second)}
.dot{fill:var(--accent);fill-opacity:.42}
.disc{fill:var(--accent);stroke:var(--card);stroke-width:1.5}
.ring{fill:var(--card);stroke:var(--accent);stroke-width:1.5}
.before{fill:var(--paper);stroke:var(--second);stroke-width:2}
.span{stroke:var(--accent);stroke-width:2;stroke-opacity:.5}
.tick{stroke:var(--ink);stroke-width:1.5}
.bar{fill:var(--accent);fill-opacity:.75}
.base{stroke:var(--second);stroke-width:1.5;stroke-dasharray:4 3}
.chosen{stroke:var(--accent);stroke-opacity:.55;stroke-dasharray:2 3}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.3rem;font-size:.88rem;margin:.8rem 0;padding:0;list-style:none}
.key{width:14px;height:14px;vertical-align:-2px;margin-right:.4rem}
.chart{margin:.4rem 0 1.6rem;padding-right:.5rem}
.r{display:grid;grid-template-columns:minmax(0,11rem) minmax(0,1fr) auto;gap:0 1.2rem;font-size:.88rem;line-height:28px}
.r>:first-child{white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.r .v{min-width:8.2rem;text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.r>:last-child{min-width:8.2rem}
svg.row{width:100%;height:28px;display:block}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(24rem,100%),1fr));gap:.9rem;margin:1rem 0}
.card{font-size:.88rem;line-height:1.5}.card h3{font:600 .95rem/1.4 var(--sans);margin:0 0 .4rem}
.card h3{text-wrap:wrap}.card>ul:last-child{margin-bottom:0}.card h3 span{font-weight:400;color:var(--muted)}
.card ul{margin:.2rem 0 .7rem;padding-left:1.1rem}.card li{overflow-wrap:anywhere}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(19rem,100%),1fr));gap:0 2rem;font-size:.9rem;
margin:1rem 0}
.facts div{display:flex;gap:1rem;justify-content:space-between;padding:.32rem 0;border-bottom:1px solid var(--line)}
.facts dt{color:var(--muted)}
.facts dd{margin:0;overflow-wrap:anywhere;text-align:right;font-variant-numeric:tabular-nums}
code{font-family:var(--mono);font-size:.9em;color:inherit;overflow-wrap:anywhere}
.card code{color:var(--muted)}
pre{background:var(--wash);border:1px solid var(--line);border-radius:.6rem;padding:.8rem 1rem;margin:.4rem 0 1rem;
white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.5;font-size:.9rem}
footer{color:var(--muted);font-size:.86rem;padding-top:1.4rem;padding-bottom:3rem;margin-top:2rem}
@media (max-width:40rem){.tiles{grid-template-columns:1fr 1fr}.tile:first-child:nth-last-child(odd){grid-column:1/-1}
.tile{padding:.7rem .8rem .8rem}.r{grid-template-columns:minmax(0,1fr) auto;gap:0 .7rem;line-height:24px}
.r svg.row{grid-column:1/-1;grid-row:2}.r{margin-bottom:.5rem;padding:0 .4rem}.r .v,.r>:last-child{min-width:0}
th,td{padding:.4rem .6rem}caption{padding:.75rem .6rem .6rem}caption span{left:.6rem}}
@media print{body{background:#fff;font-size:10pt}.scroll{overflow:visible}th[scope=row]{position:static}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""
