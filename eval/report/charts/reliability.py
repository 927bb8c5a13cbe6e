"""Reliability diagrams: one with its axes, and small ones, one a language."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from xt.core.pages.numbers import DASH, percent
from xt.core.pages.rows import Series, coloured, mark
from xt.core.pages.svg import Frame, Scale, coordinates, drawing, tag, upright
from xt.core.results.calibration import Bin

UNIT = Frame(Scale(0, 1), Scale(0, 1))
SMALL = Frame(Scale(0, 1), Scale(0, 1), left=16, top=6, width=112, height=112)


@dataclass(frozen=True)
class BinMark:
    """Where one bin is drawn."""

    x: float
    y: float
    diagonal: float
    """y of the diagonal at the same x: where a calibrated bin would be."""
    r: float
    """Radius; its square goes with the bin's count."""


def drawn(bins: Sequence[Bin]) -> list[Bin]:
    """Return the bins that can be drawn, by stated probability: those with numbers and at least one query."""
    kept = [b for b in bins if b.confidence is not None and b.accuracy is not None and b.count != 0]
    return sorted(kept, key=lambda b: b.confidence or 0.0)


def bin_marks(bins: Sequence[Bin], frame: Frame = UNIT) -> list[BinMark]:
    """Return where `drawn(bins)` fall: x is the mean stated probability, y the share that was right.

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


def tooltip(b: Bin) -> Markup:
    """Return a bin in words."""
    count = DASH if b.count is None else b.count
    return tag("title", f"{count} queries: stated {percent(b.confidence)}, right {percent(b.accuracy)}")


def reliability(bins: Sequence[Bin], series: Series, title: str) -> Markup:
    """Return a reliability diagram: bins as marks, the gap to the diagonal shaded, the bins' edges as a rug below."""
    marks, frame = bin_marks(bins), UNIT
    if not marks:
        return Markup()
    shares = {v: f"{v:g}" for v in (0, 0.25, 0.5, 0.75, 1)}
    curve = [(m.x, m.y) for m in marks]
    outline = [*curve, *((m.x, m.diagonal) for m in reversed(marks))]
    edges = sorted({float(end) for b in bins for end in (b.low, b.high) if end is not None})
    line = [
        tag("polygon", class_="area", points=coordinates(outline)),
        *(upright(m.x, m.y, m.diagonal, "gap") for m in marks),
        tag("polyline", class_="curve", points=coordinates(curve)),
        *(upright(frame.at(e, 0)[0], frame.bottom + 1, frame.bottom + 7, "faint") for e in edges),
    ]
    return drawing(
        240, 244, title,
        frame.axes(shares, shares, "stated probability"),
        frame.diagonal(),
        tag("text", "not sure enough", class_="hint", x=frame.left + 7, y=frame.top + 15),
        tag("text", "too sure", class_="hint", x=frame.right - 7, y=frame.bottom - 8, text_anchor="end"),
        coloured(series, *line),
        *(tag("g", tooltip(b), mark(series, m.x, m.y, m.r)) for b, m in zip(drawn(bins), marks, strict=True)),
    )  # fmt: skip


def small_reliability(bins: Sequence[Bin], series: Series, title: str) -> Markup:
    """Return a diagram without labels but 0 and 1; shaded: where 95% of calibrated bins would lie."""
    marks, frame = bin_marks(bins, SMALL), SMALL
    if not marks:
        return Markup()
    kept = drawn(bins)
    bounded = [(b.confidence or 0.0, b.consistency) for b in kept if b.consistency]
    low, high = ([frame.at(stated, within[side]) for stated, within in bounded] for side in (0, 1))
    band = tag("polygon", class_="band", points=coordinates([*low, *reversed(high)]))
    return drawing(
        132, 132, title,
        frame.box(),
        band if len(bounded) > 1 else "",
        frame.diagonal(),
        tag("text", "0", x=frame.left, y=frame.bottom + 12, text_anchor="middle"),
        tag("text", "1", x=frame.right, y=frame.bottom + 12, text_anchor="middle"),
        tag("text", "1", x=frame.left - 5, y=frame.top + 8, text_anchor="end"),
        coloured(series, tag("polyline", class_="curve", points=coordinates((m.x, m.y) for m in marks))),
        *(
            tag("g", tooltip(b), mark(series, m.x, m.y, max(1.6, 0.55 * m.r)))
            for b, m in zip(kept, marks, strict=True)
        ),
    )  # fmt: skip
