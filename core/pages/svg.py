"""SVG: elements, scales, and a frame with axes. Every text is escaped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from xt.core.pages.numbers import percent

Point = tuple[float, float]
SHAPES = ("circle", "path", "polygon", "polyline", "rect")
"""Elements that have nothing inside; all others are closed by a tag, as HTML wants it."""


def tag(name: str, *inside: str, **attributes: Any) -> Markup:
    """Return an element. Of an attribute's name a last `_` is dropped, any other becomes `-`; None leaves it out.

    >>> tag("text", "a < b", x=1.0, text_anchor="end", class_=None)
    Markup('<text x="1" text-anchor="end">a &lt; b</text>')
    """
    named = ((k.rstrip("_").replace("_", "-"), v) for k, v in attributes.items() if v is not None)
    given = "".join(f' {k}="{f"{round(v, 2):g}" if isinstance(v, float) else escape(v)}"' for k, v in named)
    body = "".join(map(escape, inside))
    end = "/>" if name in SHAPES else f">{body}</{name}>"
    return Markup(f"<{name}{given}{end}")  # noqa: S704  # all escaped


def drawing(width: float, height: float, title: str, *inside: str, **attributes: Any) -> Markup:
    """Return a drawing of that size in its own units, as wide as the place it stands in."""
    attributes = {"role": "img", **attributes}
    return tag("svg", tag("title", title), *inside, viewBox=f"0 0 {width:g} {height:g}", **attributes)


def sign(*inside: str) -> Markup:
    """Return a sign of 14 by 14 px for legends and headings; what it stands for is written beside it."""
    return tag("svg", *inside, class_="key", width=14, height=14, viewBox="0 0 14 14", aria_hidden="true")


def coordinates(points: Iterable[Point]) -> str:
    """Return points as a polyline has them.

    >>> coordinates([(1, 2.345), (3, 4)])
    '1.0,2.3 3.0,4.0'
    """
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def upright(x: float | str, y1: float, y2: float | str, class_: str, *inside: str) -> Markup:
    """Return an upright line."""
    return tag("line", *inside, class_=class_, x1=x, x2=x, y1=y1, y2=y2)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return at most about `most` round values within [low, high], 1, 2 or 5 times a power of ten apart.

    >>> ticks(0, 1), ticks(0.62, 1.0)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.7, 0.8, 0.9, 1.0])
    """
    if not high > low:
        return [low]
    power = 10 ** math.floor(math.log10((high - low) / most))
    step = next(m * power for m in (1, 2, 5, 10, 20) if (high - low) / (m * power) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.10g}") for i in range(first, last + 1)]


@dataclass(frozen=True)
class Scale:
    """A line from `low` to `high`; with `root` square roots are spaced evenly, which opens up small values."""

    low: float
    high: float
    root: bool = False

    def share(self, value: float) -> float:
        """Return where `value` falls, 0 at `low` and 1 at `high`; values outside are drawn at the end.

        >>> Scale(0.5, 1.0).share(0.75), Scale(0, 1, root=True).share(0.25), Scale(0, 1).share(3)
        (0.5, 0.5, 1.0)
        """
        low, high, at = (math.sqrt(max(v, 0)) if self.root else v for v in (self.low, self.high, value))
        return min(max((at - low) / (high - low or 1), 0.0), 1.0)

    def x(self, value: float) -> str:
        """Return the same as a percentage for an attribute."""
        return f"{100 * self.share(value):.2f}%"

    def ticks(self, most: int, label: Callable[[float], str] = lambda share: percent(share, 0)) -> dict[float, str]:
        """Return round values of the scale with their labels."""
        return {t: label(t) for t in ticks(self.low, self.high, most)}


@dataclass(frozen=True)
class Frame:
    """A plotting square or rectangle inside a drawing, in the drawing's own units; y grows downwards in SVG."""

    x: Scale
    y: Scale
    left: float = 34
    top: float = 8
    width: float = 196
    height: float = 196

    @property
    def bottom(self) -> float:
        """Where it ends."""
        return self.top + self.height

    @property
    def right(self) -> float:
        """Where it ends."""
        return self.left + self.width

    def at(self, x: float, y: float) -> Point:
        """Return the place of a data point.

        >>> Frame(Scale(0, 100), Scale(0, 2), left=44, top=10, width=244, height=136).at(50, 0.5)
        (166.0, 112.0)
        """
        return self.left + self.width * self.x.share(x), self.top + self.height * (1 - self.y.share(y))

    def path(self, points: Iterable[Point], class_: str = "curve") -> Markup:
        """Return a line through data points."""
        return tag("polyline", class_=class_, points=coordinates(self.at(x, y) for x, y in points))

    def box(self) -> Markup:
        """Return its outline."""
        return tag("rect", class_="frame", x=self.left, y=self.top, width=self.width, height=self.height)

    def upright(self, x: float, class_: str, *inside: str) -> Markup:
        """Return an upright line over its whole height."""
        return upright(self.at(x, 0)[0], self.top, self.bottom, class_, *inside)

    def level(self, y: float, class_: str) -> Markup:
        """Return a level line over its whole width."""
        _, at = self.at(0, y)
        return tag("line", class_=class_, x1=self.left, x2=self.right, y1=at, y2=at)

    def diagonal(self) -> Markup:
        """Return the line from its lower left to its upper right."""
        return tag("line", class_="diag", x1=self.left, y1=self.bottom, x2=self.right, y2=self.top)

    def axes(self, x: Mapping[float, str], y: Mapping[float, str], x_label: str, y_label: str = "") -> Markup:
        """Return outline, grid, labels of the ticks and the names of the axes."""
        parts = [self.box()]
        for value, label in x.items():
            parts.append(self.upright(value, "grid"))
            parts.append(tag("text", label, x=self.at(value, 0)[0], y=self.bottom + 19, text_anchor="middle"))
        for value, label in y.items():
            parts.append(self.level(value, "grid"))
            parts.append(tag("text", label, x=self.left - 6, y=self.at(0, value)[1] + 4, text_anchor="end"))
        parts.append(tag("text", x_label, x=self.left + self.width / 2, y=self.bottom + 35, text_anchor="middle"))
        parts += [tag("text", y_label, x=self.left, y=self.top - 8)] if y_label else []
        return Markup().join(parts)
