"""Small reliability diagrams, one a language, and curves that share a frame (risk by coverage, error by shots)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from xt.core.results.report import Bin
from xt.eval.report.charts.basic import Frame, Scale, Series, bin_marks, drawn, mark, ticks
from xt.eval.report.page import DASH, percent, text

SMALL = Frame(Scale(0, 1), Scale(0, 1), left=16, top=6, width=112, height=112)


def small_reliability(bins: Sequence[Bin], series: Series, title: str) -> str:
    """A reliability diagram without labels but 0 and 1; shaded: where 95% of calibrated bins would lie."""
    marks, frame = bin_marks(bins, SMALL), SMALL
    if not marks:
        return ""
    kept, bottom, right = drawn(bins), frame.top + frame.height, frame.left + frame.width
    bounded = [(b.confidence or 0.0, b.consistency) for b in kept if b.consistency]
    edge = [[frame.at(stated, within[side]) for stated, within in bounded] for side in (0, 1)]
    outline = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*edge[0], *reversed(edge[1])])
    band = f'<polygon class="band" points="{outline}"/>' if len(bounded) > 1 else ""
    curve = " ".join(f"{m.x:.1f},{m.y:.1f}" for m in marks)
    shapes = "".join(
        f"<g><title>{DASH if b.count is None else b.count} queries: stated {percent(b.confidence)}, right "
        f"{percent(b.accuracy)}</title>{mark(series, round(m.x, 1), m.y, max(1.6, 0.55 * m.r))}</g>"
        for b, m in zip(kept, marks, strict=True)
    )
    return (
        f'<svg viewBox="0 0 132 132" role="img"><title>{text(title)}</title>'
        f'<rect class="frame" x="{frame.left}" y="{frame.top}" width="{frame.width}" height="{frame.height}"/>{band}'
        f'<line class="diag" x1="{frame.left}" y1="{bottom}" x2="{right}" y2="{frame.top}"/>'
        f'<text x="{frame.left}" y="{bottom + 12}" text-anchor="middle">0</text>'
        f'<text x="{right}" y="{bottom + 12}" text-anchor="middle">1</text>'
        f'<text x="{frame.left - 5}" y="{frame.top + 8}" text-anchor="end">1</text>'
        f'<g class="c-{series.colour}"><polyline class="curve" points="{curve}"/></g>{shapes}</svg>'
    )


@dataclass(frozen=True)
class Line:
    """One curve."""

    label: str
    colour: str
    """A colour of the style sheet, or "ink"."""
    dash: str
    """"", "dash" or "dots2": the stroke, which changes with the colour."""
    points: Sequence[tuple[float, float]]
    """Ascending in x."""


def apart(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move heights as little as needed for neighbours to be `gap` apart, within low..high as far as they fit.

    >>> apart([10, 11, 40], 10, 0, 100)
    [10, 20, 40]
    >>> apart([95, 99], 10, 0, 100)
    [90, 100]
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    found = [heights[i] for i in order]
    for i in range(1, len(found)):
        found[i] = max(found[i], found[i - 1] + gap)
    if found and found[-1] > high:
        found[-1] = high
        for i in range(len(found) - 2, -1, -1):
            found[i] = min(found[i], found[i + 1] - gap)
    out = [0.0] * len(found)
    for place, i in enumerate(order):
        out[i] = max(low, found[place])
    return out


def at_step(points: Sequence[tuple[float, float]], x: float) -> float | None:
    """The height of a curve at x, straight between its points; None outside of them.

    >>> at_step([(0.25, 0.0), (0.75, 0.5)], 0.5), at_step([(0.25, 0.0)], 0.1)
    (0.25, None)
    """
    for a, b in pairwise(points):
        if a[0] <= x <= b[0]:
            return a[1] + (b[1] - a[1]) * (x - a[0]) / (b[0] - a[0]) if b[0] > a[0] else b[1]
    return next((h for at, h in points if at == x), None)


def curves(lines: Sequence[Line], title: str, *, x_label: str, y_label: str, x: Scale, style: str = "percent") -> str:
    """Curves in one frame, each named at its end."""
    shown = [line for line in lines if len(line.points) > 1]
    if not shown:
        return ""
    y = Scale(0, 1.08 * max((h for line in shown for _, h in line.points), default=0) or 0.05)
    frame = Frame(x, y, left=40, top=22, width=250, height=200)

    def label(value: float) -> str:
        return percent(value, 0 if y.high > 0.05 else 1) if style == "percent" else f"{value:g}"

    x_ticks = {t: (percent(t, 0) if x.high <= 1 else f"{t:g}") for t in ticks(x.low, x.high, 5)}
    parts = [frame.axes(x_ticks, {t: label(t) for t in ticks(0, y.high, 5)}, x_label, y_label)]
    ends = [frame.at(*line.points[-1]) for line in shown]
    heights = apart([h for _, h in ends], 12.5, frame.top + 4, frame.top + frame.height)
    for line, (end, _), height in zip(shown, ends, heights, strict=True):
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in (frame.at(*p) for p in line.points))
        stroke = f"curve {line.dash}".strip()
        parts.append(
            f'<g class="c-{line.colour}"><title>{text(line.label)}</title><polyline class="{stroke}" points="{path}"/>'
            f'<text class="end" x="{end + 6:.1f}" y="{height + 4:.1f}">{text(line.label)}</text></g>'
        )
    return f'<svg viewBox="0 0 380 262" role="img"><title>{text(title)}</title>{"".join(parts)}</svg>'
