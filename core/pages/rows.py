"""Charts of rows: marks joined by a line, or bars, a row for each of what is compared.

They have no viewBox: x is in percent and y in pixels, so that a row is as wide as the screen allows while its marks
keep their size. Every row has a <title>; colour and shape always change together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from xt.core.pages.numbers import is_number, percent, short
from xt.core.pages.page import kit
from xt.core.pages.svg import Scale, sign, tag, ticks, upright

HEIGHT = 22
"""Of a row, in px."""


@dataclass(frozen=True)
class Series:
    """How one encoder, or one moment in time, is drawn."""

    colour: str
    """accent, second or third: a colour of the style sheet."""
    mark: str
    """disc, ring, square, or bar: from the left end of the row."""


ACCENT, BAR = Series("accent", "disc"), Series("accent", "bar")


def series_for(count: int) -> list[Series]:
    """Return the looks of `count` encoders: the last the subject (accent, filled), the first what it is compared with.

    >>> [(s.colour, s.mark) for s in series_for(2)]
    [('second', 'ring'), ('accent', 'disc')]
    """
    others = [Series("second", "ring"), *(Series("third", "square") for _ in range(count - 2))]
    return [*others[: count - 1], ACCENT] if count > 0 else []


def coloured(series: Series, *inside: str) -> Markup:
    """Return what has the colour of a series."""
    return tag("g", *inside, class_=f"c-{series.colour}")


def mark(series: Series, x: str | float, y: float, r: float = 5) -> Markup:
    """Return one mark; x is a number or a percentage."""
    if series.mark == "square":
        place = {"x": x, "y": y - r + 1.0, "width": 2.0 * r - 2, "height": 2.0 * r - 2}
        return coloured(series, tag("rect", class_="ring", **place, transform=f"translate({1 - r:g} 0)"))
    if series.mark == "bar":
        return coloured(series, tag("rect", class_="bar", x=0, y=y - 6.0, height=13, rx=2, width=x))
    return coloured(
        series, tag("circle", class_=series.mark, cx=x, cy=y, r=float(r if series.mark == "disc" else r - 1))
    )


def key(series: Series) -> Markup:
    """Return the mark alone, for legends and headings."""
    return sign(mark(series, 14.0 if series.mark == "bar" else 7.0, 7))


def reference_key() -> Markup:
    """Return the legend's sign for the reference tick."""
    return sign(upright(7, 1, 13, "null"))


def legend(entries: Sequence[tuple[Markup, str]]) -> Markup:
    """Return a legend of signs and what they stand for."""
    return kit.legend(entries)


@dataclass(frozen=True)
class Dot:
    """One value in a row, with its interval where there is one."""

    series: Series
    value: float
    bounds: Sequence[float] | None = None


@dataclass(frozen=True)
class Row:
    """One line of a chart."""

    label: str
    aside: str
    """Smaller, after the label; hidden on a phone."""
    shown: str
    """The value in figures."""
    title: str
    """The row in words."""
    dots: Sequence[Dot]
    reference: float | None = None
    """Drawn as a tick: chance, or what perfect calibration would show."""
    change: str = ""
    """Smaller, after the value: how it changed."""


def dots(row: Row, scale: Scale, at: Sequence[float] = ()) -> Markup:
    """Return the marks of one row joined by a line, above the grid lines `at`. Rows stack without a gap."""
    middle = HEIGHT / 2

    def line(ends: Sequence[float], class_: str) -> Markup:
        return tag("line", class_=class_, x1=scale.x(min(ends)), x2=scale.x(max(ends)), y1=middle, y2=middle)

    parts = [upright(scale.x(t), 0, "100%", "grid") for t in at]
    given = [d for d in row.dots if is_number(d.value)]
    if len(given) > 1:
        parts.append(coloured(row.dots[-1].series, line([d.value for d in given], "span")))
    for dot in row.dots:
        if dot.bounds and len(dot.bounds) == 2 and all(is_number(b) for b in dot.bounds):
            parts.append(coloured(dot.series, line(dot.bounds, "whisk")))
    tick = [upright(scale.x(row.reference), 3, 19, "null")] if is_number(row.reference) else []
    marks = [mark(d.series, scale.x(d.value), middle) for d in given]
    over = [*marks, *tick] if any(d.series.mark == "bar" for d in given) else [*tick, *marks]
    return tag("svg", tag("title", row.title), *parts, *over, class_="dots", role="img")


def chart(
    rows: Sequence[Row], scale: Scale, at: Sequence[float] | int, style: str = "percent", *, two: bool | None = None
) -> Markup:
    """Return rows under an axis.

    Args:
        rows: from the top.
        scale: of the axis.
        at: its ticks, or about how many round ones.
        style: of their labels: "percent" or "decimal".
        two: in two columns where there is room; None: where there are more than 12 rows.
    """
    at = ticks(scale.low, scale.high, at) if isinstance(at, int) else at
    two = len(rows) > 12 if two is None else two
    label = short if style == "decimal" else lambda value: percent(value, 0)
    names = [tag("text", label(t), x=scale.x(t), y=14, text_anchor="middle") for t in at]
    half = math.ceil(len(rows) / 2) if two else len(rows)
    columns = [[(r, dots(r, scale, at)) for r in part] for part in (rows[:half], rows[half:]) if part]
    widest = max((len(f"{r.shown} {r.change}".strip()) for r in rows), default=0)
    width = "short" if not any(r.change for r in rows) and widest < 10 else "long" if widest > 12 else ""
    return kit.chart(columns, tag("svg", *names, class_="dots"), two, width) if rows else Markup()


def bars(rows: Sequence[Row]) -> Markup:
    """Return bars from zero."""
    scale = Scale(0, max((d.value for r in rows for d in r.dots), default=0) or 1)
    return kit.bars([(r, dots(r, scale)) for r in rows]) if rows else Markup()
