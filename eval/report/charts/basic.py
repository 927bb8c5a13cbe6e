"""The report's figures, as inline SVG.

Two kinds. Row charts (dots, bars) have no viewBox: x is in percent and y in pixels, so that a row is as wide as the
screen allows while its marks keep their size. Panels (reliability, scatter, loss) have a viewBox about as wide as a
phone. Every figure carries a <title>; colour and shape always change together.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from xt.core.results.report import Bin
from xt.eval.report.page import DASH, MINUS, is_number, percent, text


@dataclass(frozen=True)
class Series:
    """How one encoder, or one moment in time, is drawn."""

    colour: str
    """accent, second or third: a colour of the style sheet."""
    mark: str
    """disc, ring or square."""


def series_for(count: int) -> list[Series]:
    """The looks of `count` encoders: the last is the subject (accent, filled), the first what it is compared with.

    >>> [(s.colour, s.mark) for s in series_for(2)]
    [('second', 'ring'), ('accent', 'disc')]
    """
    others = [Series("second", "ring"), *(Series("third", "square") for _ in range(count - 2))]
    return [*others[: count - 1], Series("accent", "disc")] if count > 0 else []


@dataclass(frozen=True)
class Scale:
    """A line from `low` to `high`; with `root` square roots are spaced evenly, which opens up small values."""

    low: float
    high: float
    root: bool = False

    def share(self, value: float) -> float:
        """Where `value` falls, 0 at `low` and 1 at `high`; values outside are drawn at the end.

        >>> Scale(0.5, 1.0).share(0.75), Scale(0, 1, root=True).share(0.25), Scale(0, 1).share(3)
        (0.5, 0.5, 1.0)
        """
        low, high, at = (math.sqrt(max(v, 0)) if self.root else v for v in (self.low, self.high, value))
        return min(max((at - low) / (high - low), 0.0), 1.0)

    def x(self, value: float) -> str:
        """The same as a percentage for an SVG attribute."""
        return f"{100 * self.share(value):.2f}%"


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most about `most` round values within [low, high], 1, 2 or 5 times a power of ten apart.

    >>> ticks(0, 1), ticks(0.62, 1.0)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.7, 0.8, 0.9, 1.0])
    """
    if not high > low:
        return [low]
    power = 10 ** math.floor(math.log10((high - low) / most))
    step = next(m * power for m in (1, 2, 5, 10, 20) if (high - low) / (m * power) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def mark(series: Series, x: str | float, y: float, r: float = 5) -> str:
    """One mark; x is a number or a percentage."""
    if series.mark == "square":
        shape = f'<rect class="ring" x="{x}" y="{y - r + 1:.6g}" width="{2 * r - 2}" height="{2 * r - 2}"'
        shape += f' transform="translate({1 - r} 0)"/>'
    else:
        shape = f'<circle class="{series.mark}" cx="{x}" cy="{y:.6g}" r="{r if series.mark == "disc" else r - 1}"/>'
    return f'<g class="c-{series.colour}">{shape}</g>'


def key(series: Series) -> str:
    """The mark alone, for legends and headings; what it stands for is written beside it."""
    return f'<svg class="key" width="14" height="14" viewBox="0 0 14 14" aria-hidden="true">{mark(series, 7, 7)}</svg>'


def null_key() -> str:
    """The legend's sign for the reference tick."""
    line = '<line class="null" x1="7" x2="7" y1="1" y2="13"/>'
    return f'<svg class="key" width="14" height="14" viewBox="0 0 14 14" aria-hidden="true">{line}</svg>'


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """A legend of (sign as SVG, plain text) pairs."""
    return '<ul class="legend">' + "".join(f"<li>{sign}{text(label)}</li>" for sign, label in entries) + "</ul>\n"


@dataclass(frozen=True)
class Dot:
    """One value in a row, with its interval where there is one."""

    series: Series
    value: float
    bounds: Sequence[float] | None = None


@dataclass(frozen=True)
class Row:
    """One line of a dot chart."""

    label: str
    aside: str
    """Smaller, after the label; hidden on a phone."""
    shown: str
    """The value in figures, HTML."""
    title: str
    """The row in words."""
    dots: Sequence[Dot]
    reference: float | None = None
    """Drawn as a tick: chance, or what perfect calibration would show."""


def dots(row: Row, scale: Scale, at: Sequence[float] = ()) -> str:
    """The marks of one row joined by a line, above the grid lines `at`. Rows stack without a gap."""
    grid = "".join(f'<line class="grid" x1="{scale.x(t)}" x2="{scale.x(t)}" y1="0" y2="100%"/>' for t in at)
    values = [d.value for d in row.dots if is_number(d.value)]
    parts = []
    if len(values) > 1:
        ends = f'x1="{scale.x(min(values))}" x2="{scale.x(max(values))}"'
        parts.append(f'<g class="c-{row.dots[-1].series.colour}"><line class="span" {ends} y1="11" y2="11"/></g>')
    for dot in row.dots:
        if dot.bounds and len(dot.bounds) == 2 and all(is_number(b) for b in dot.bounds):
            ends = f'x1="{scale.x(dot.bounds[0])}" x2="{scale.x(dot.bounds[1])}"'
            parts.append(f'<g class="c-{dot.series.colour}"><line class="whisk" {ends} y1="11" y2="11"/></g>')
    if is_number(row.reference):
        at_x = scale.x(row.reference)
        parts.append(f'<line class="null" x1="{at_x}" x2="{at_x}" y1="3" y2="19"/>')
    parts += [mark(d.series, scale.x(d.value), 11) for d in row.dots if is_number(d.value)]
    return f'<svg class="dots" role="img"><title>{text(row.title)}</title>{grid}{"".join(parts)}</svg>'


def dot_chart(rows: Sequence[Row], scale: Scale, at: Sequence[float], style: str, *, two: bool = False) -> str:
    """Rows under an axis with ticks `at`, in `style` ("percent" or "decimal"); `two` columns if there is room."""

    def label(value: float) -> str:
        return percent(value, 0) if style == "percent" else f"{value:g}".replace("-", MINUS)

    names = "".join(f'<text x="{scale.x(t)}" y="14" text-anchor="middle">{label(t)}</text>' for t in at)
    axis = f'<div class="r" aria-hidden="true"><span></span><svg class="dots">{names}</svg><span></span></div>'
    lines = [
        f'<div class="r"><span>{text(r.label)}{f" <i>{text(r.aside)}</i>" if r.aside else ""}</span>'
        f'{dots(r, scale, at)}<span class="v">{r.shown}</span></div>\n'
        for r in rows
    ]
    half = math.ceil(len(lines) / 2) if two else len(lines)
    columns = [part for part in (lines[:half], lines[half:]) if part]
    body = "".join(f"<div>{axis}{''.join(part)}</div>" for part in columns)
    short = all("<i>" not in r.shown for r in rows)
    return f'<div class="chart{" two" if two else ""}{" short" if short else ""}">{body}</div>\n' if rows else ""


def bar_chart(rows: Sequence[tuple[str, Series, float, str]]) -> str:
    """Horizontal bars from zero: (label, series, value, value in figures as HTML)."""
    scale = Scale(0, max((value for _, _, value, _ in rows), default=0) or 1)
    lines = "".join(
        f'<div class="r"><span>{text(label)}</span><svg class="dots" role="img"><title>{text(label)}</title>'
        f'<g class="c-{series.colour}"><rect class="bar" x="0" y="5" height="13" rx="2" width="{scale.x(value)}"/></g>'
        "</svg>"
        f'<span class="v">{shown}</span></div>\n'
        for label, series, value, shown in rows
    )
    return f'<div class="bars">{lines}</div>\n' if rows else ""


@dataclass(frozen=True)
class Frame:
    """A plotting square or rectangle inside a panel, in the panel's own units; y grows downwards in SVG."""

    x: Scale
    y: Scale
    left: float = 34
    top: float = 8
    width: float = 196
    height: float = 196

    def at(self, x: float, y: float) -> tuple[float, float]:
        """SVG coordinates of a data point."""
        return self.left + self.width * self.x.share(x), self.top + self.height * (1 - self.y.share(y))

    def axes(self, x_ticks: Mapping[float, str], y_ticks: Mapping[float, str], x_label: str, y_label: str) -> str:
        """Box, grid, tick labels and the names of the axes."""
        bottom, right = self.top + self.height, self.left + self.width
        parts = [f'<rect class="frame" x="{self.left}" y="{self.top}" width="{self.width}" height="{self.height}"/>']
        for value, label in x_ticks.items():
            x, _ = self.at(value, self.y.low)
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{self.top}" y2="{bottom}"/>')
            parts.append(f'<text x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{label}</text>')
        for value, label in y_ticks.items():
            _, y = self.at(self.x.low, value)
            parts.append(f'<line class="grid" x1="{self.left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{self.left - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        middle = self.left + self.width / 2
        parts.append(f'<text x="{middle}" y="{bottom + 35}" text-anchor="middle">{text(x_label)}</text>')
        if y_label:
            parts.append(f'<text x="{self.left}" y="{self.top - 8}">{text(y_label)}</text>')
        return "".join(parts)


UNIT = Frame(Scale(0, 1), Scale(0, 1))


@dataclass(frozen=True)
class BinMark:
    """Where one bin of a reliability diagram is drawn."""

    x: float
    y: float
    diagonal: float
    """y of the diagonal at the same x: where a calibrated bin would be."""
    r: float
    """Radius; its square goes with the bin's count."""


def drawn(bins: Sequence[Bin]) -> list[Bin]:
    """The bins that can be drawn, by stated probability: those with numbers and at least one query."""
    kept = [b for b in bins if b.confidence is not None and b.accuracy is not None and b.count != 0]
    return sorted(kept, key=lambda b: b.confidence or 0.0)


def bin_marks(bins: Sequence[Bin], frame: Frame = UNIT) -> list[BinMark]:
    """Where `drawn(bins)` fall: x is the mean stated probability, y the share that was right.

    >>> bin_marks([Bin(confidence=0.5, accuracy=0.25, count=10)])
    [BinMark(x=132.0, y=155.0, diagonal=106.0, r=5.0)]
    """
    kept = drawn(bins)
    most = max((b.count or 1 for b in kept), default=1)
    marks = []
    for b in kept:
        stated = b.confidence or 0.0
        x, y = frame.at(stated, b.accuracy or 0.0)
        _, diagonal = frame.at(stated, stated)
        marks.append(BinMark(x, y, diagonal, round(5 * math.sqrt((b.count or 1) / most), 2)))
    return marks


def reliability(bins: Sequence[Bin], series: Series, title: str) -> str:
    """A reliability diagram: bins as marks, the gap to the diagonal shaded, the bins' edges as a rug below."""
    marks, frame = bin_marks(bins), UNIT
    if not marks:
        return ""
    shares = {v: f"{v:g}" for v in (0, 0.25, 0.5, 0.75, 1)}
    bottom = frame.top + frame.height
    curve = [f"{m.x:.1f},{m.y:.1f}" for m in marks]
    back = [f"{m.x:.1f},{m.diagonal:.1f}" for m in reversed(marks)]
    edges = sorted({float(end) for b in bins for end in (b.low, b.high) if end is not None})
    gaps = "".join(
        f'<line class="gap" x1="{m.x:.1f}" x2="{m.x:.1f}" y1="{m.y:.1f}" y2="{m.diagonal:.1f}"/>' for m in marks
    )
    rug = "".join(
        f'<line class="faint" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom + 1:.0f}" y2="{bottom + 7:.0f}"/>'
        for x in (frame.at(e, 0)[0] for e in edges)
    )
    shapes = "".join(
        f"<g><title>{DASH if b.count is None else b.count} queries: stated {percent(b.confidence)}, "
        f"right {percent(b.accuracy)}</title>{mark(series, round(m.x, 1), m.y, m.r)}</g>"
        for b, m in zip(drawn(bins), marks, strict=True)
    )
    return (
        f'<svg viewBox="0 0 240 244" role="img"><title>{text(title)}</title>'
        f"{frame.axes(shares, shares, 'stated probability', '')}"
        f'<line class="diag" x1="{frame.left}" y1="{bottom}" x2="{frame.left + frame.width}" y2="{frame.top}"/>'
        f'<text class="hint" x="{frame.left + 7}" y="{frame.top + 15}">not sure enough</text>'
        f'<text class="hint" x="{frame.left + frame.width - 7}" y="{bottom - 8}" text-anchor="end">too sure</text>'
        f'<g class="c-{series.colour}"><polygon class="area" points="{" ".join(curve + back)}"/>{gaps}'
        f'<polyline class="curve" points="{" ".join(curve)}"/>{rug}</g>{shapes}</svg>'
    )


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Trailing mean over up to `width` values.

    >>> smooth([1, 2, 3, 4], 2)
    [1.0, 1.5, 2.5, 3.5]
    """
    return [fmean(values[max(0, i - width + 1) : i + 1]) for i in range(len(values))]


def losses(steps: Sequence[float], values: Sequence[float], title: str, *, last: float) -> str:
    """One task's loss: each step faint, a trailing mean over a tenth of them in full; x ends at `last`."""
    if len(values) < 2:
        return ""
    y = Scale(0, max(values) * 1.05 or 1)
    frame = Frame(Scale(0, max(last, 1)), y, left=30, width=200, height=110)
    mean = smooth(values, max(2, len(values) // 10))

    def line(ys: Sequence[float]) -> str:
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in (frame.at(s, v) for s, v in zip(steps, ys, strict=True)))

    axes = frame.axes({t: f"{t:g}" for t in ticks(0, last, 4)}, {t: f"{t:g}" for t in ticks(0, y.high, 4)}, "step", "")
    return (
        f'<svg viewBox="0 0 240 158" role="img"><title>{text(title)}</title>{axes}<g class="c-accent">'
        f'<polyline class="faint" points="{line(values)}"/><polyline class="curve" points="{line(mean)}"/></g></svg>'
    )
