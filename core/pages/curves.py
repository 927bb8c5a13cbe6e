"""Charts with two axes: curves that are named at their ends, and panels of values over steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from markupsafe import Markup

from xt.core.pages.numbers import fixed, percent, short
from xt.core.pages.page import kit
from xt.core.pages.rows import ACCENT, coloured
from xt.core.pages.svg import Frame, Point, Scale, drawing, tag

MOST = 400
"""Points of a panel's curve; more are averaged."""


@dataclass(frozen=True)
class Line:
    """One curve."""

    label: str
    colour: str
    """A colour of the style sheet, or "ink"."""
    dash: str
    """"", "dash" or "dots2": the stroke, which changes with the colour."""
    points: Sequence[Point]
    """Ascending in x."""


def apart(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move heights as little as needed for neighbours to be `gap` apart, within low..high as far as they fit.

    >>> apart([10, 11, 40], 10, 0, 100)
    [10, 20, 40]
    >>> apart([95, 99], 10, 0, 100)
    [90, 100]
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    moved = [heights[i] for i in order]
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    if moved and moved[-1] > high:
        moved[-1] = high
        for i in range(len(moved) - 2, -1, -1):
            moved[i] = min(moved[i], moved[i + 1] - gap)
    out = [0.0] * len(moved)
    for place, i in enumerate(order):
        out[i] = max(low, moved[place])
    return out


def at_step(points: Sequence[Point], x: float) -> float | None:
    """Return the height of a curve at x, straight between its points; None outside of them.

    >>> at_step([(0.25, 0.0), (0.75, 0.5)], 0.5), at_step([(0.25, 0.0)], 0.1)
    (0.25, None)
    """
    for a, b in pairwise(points):
        if a[0] <= x <= b[0]:
            return a[1] + (b[1] - a[1]) * (x - a[0]) / (b[0] - a[0]) if b[0] > a[0] else b[1]
    return next((h for at, h in points if at == x), None)


def curves(lines: Sequence[Line], title: str, *, x_label: str, y_label: str, x: Scale) -> Markup:
    """Return curves of shares in one frame, each named at its end."""
    shown = [line for line in lines if len(line.points) > 1]
    if not shown:
        return Markup()
    y = Scale(0, 1.08 * max((h for line in shown for _, h in line.points), default=0) or 0.05)
    frame = Frame(x, y, left=40, top=22, width=250, height=200)
    digits = 0 if y.high > 0.05 else 1
    parts = [frame.axes(x.ticks(5), y.ticks(5, lambda share: percent(share, digits)), x_label, y_label)]
    ends = [frame.at(*line.points[-1]) for line in shown]
    heights = apart([h for _, h in ends], 12.5, frame.top + 4, frame.bottom)
    for line, (end, _), height in zip(shown, ends, heights, strict=True):
        name = tag("text", line.label, class_="end", x=end + 6, y=height + 4)
        curve = frame.path(line.points, f"curve {line.dash}".strip())
        parts.append(tag("g", tag("title", line.label), curve, name, class_=f"c-{line.colour}"))
    return drawing(380, 262, title, *parts)


# -- panels ------------------------------------------------------------------------------------------------------------


def thin(points: Sequence[Point], most: int = MOST) -> list[tuple[float, float, int]]:
    """Return at most `most` points: consecutive ones averaged in bins whose sizes differ by one at most.

    Each is (mean step, mean value, how many), so that the mean weighted by the counts stays what it was.

    >>> thin([(1, 3.0), (2, 1.0), (3, 5.0), (4, 1.0)], 2)
    [(1.5, 2.0, 2), (3.5, 3.0, 2)]
    """
    bins = min(most, len(points))
    edges = [i * len(points) // bins for i in range(bins + 1)] if bins else [0]
    parts = [points[a:b] for a, b in pairwise(edges)]
    return [(fmean(s for s, _ in part), fmean(v for _, v in part), len(part)) for part in parts]


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Return means over `width` values around each (the next odd number, fewer at the ends): a curve that does not lag.

    >>> smooth([1, 2, 6, 4], 3)
    [1.5, 3.0, 4.0, 5.0]
    """
    half = width // 2
    return [fmean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def step_frame(last: float, low: float, high: float) -> Frame:
    """Return the frame of a panel: steps up to `last` across."""
    return Frame(Scale(0, max(last, 1)), Scale(low, high), left=44, top=10, width=244, height=136)


def panel(name: str, aside: str, title: str, frame: Frame, *inside: str, percents: bool = False) -> Markup:
    """Return a figure of values over steps, with its caption."""
    x = {t: label for t, label in frame.x.ticks(5, short).items() if t == int(t)}  # there is no half step
    y = frame.y.ticks(5, (lambda share: f"{100 * share:g}%") if percents else short)
    picture = drawing(300, 190, title, frame.axes(x, y, "step"), *inside)
    return kit.figure(picture, tag("b", name), aside)


def loss_panel(name: str, points: Sequence[Point], last: float) -> Markup:
    """Return a task's loss: each step (or bin of steps) a faint dot, the mean of a tenth of them as a line.

    y starts at 0, x runs from 0 to `last`, the run's last step.
    """
    thinned = thin(points)
    frame = step_frame(last, 0, max((v for _, v, _ in thinned), default=0) * 1.05 or 1)
    means = smooth([v for _, v, _ in thinned], max(2, len(thinned) // 10))
    places = [frame.at(s, v) for s, v, _ in thinned]
    marks = [tag("circle", class_="dot", cx=x, cy=y, r=1.7) for x, y in places]
    line = [frame.path((s, m) for (s, _, _), m in zip(thinned, means, strict=True))] if len(thinned) > 1 else []
    tenth = fixed(fmean(v for _, v in points[-max(1, len(points) // 10) :]))
    count = len(points)
    aside = f"one step, loss {tenth}" if count == 1 else f"{fixed(count, 0)} steps, last tenth {tenth}"
    return panel(name, aside, f"Loss of {name} by step: {aside}", frame, coloured(ACCENT, *marks, *line))
