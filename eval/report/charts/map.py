"""The map of languages: accuracy against calibration error, a mark for each, named where a name fits.

It is drawn twice, for a wide screen and for a phone, since text in a drawing that is scaled down cannot be read; the
style sheet shows one of the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import east_asian_width

from xt.eval.report.charts.basic import Frame, Scale, ticks
from xt.eval.report.page import attributes, fixed, is_number, percent, text

SHAPES = {"high": "M-4 -4H4V4H-4Z", "mid": "M0 -5A5 5 0 1 0 0 5A5 5 0 1 0 0 -5Z", "low": "M0 -5.5L5.5 4.5H-5.5Z"}
COLOURS = {"high": "second", "mid": "third", "low": "accent"}
OTHER = "M0 -5.5L5.5 0L0 5.5L-5.5 0Z"
"""A language whose class is not known."""


@dataclass(frozen=True)
class Point:
    """One language."""

    name: str
    group: str
    """Resource class, which chooses colour and shape."""
    x: float
    """Accuracy."""
    y: float
    """ECE."""
    reference: float | None = None
    """The ECE that perfect calibration would show."""
    said: str = ""
    """All of it in words."""

    @property
    def excess(self) -> float:
        """How notable the language is: its error above the reference."""
        return self.y - (self.reference or 0.0)


Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def group_key(group: str) -> str:
    """The legend's sign for a resource class."""
    path = f'<g class="c-{COLOURS.get(group, "third")} point"><path transform="translate(7 7)" d="{shape(group)}"/></g>'
    return f'<svg class="key" width="14" height="14" viewBox="0 0 14 14" aria-hidden="true">{path}</svg>'


def shape(group: str) -> str:
    """The outline of a mark."""
    return SHAPES.get(group, OTHER)


def width_of(name: str) -> float:
    """About how wide a name is at 11 px, in px.

    >>> width_of("Thai") < width_of("Javanese") < width_of("日本語日本語")
    True
    """
    return sum(11.5 if east_asian_width(c) in "WF" else 3.2 if c in "iljtfI.,' " else 6.3 for c in name) + 2


def overlap(a: Box, b: Box) -> bool:
    """Whether two boxes share any area.

    >>> overlap((0, 0, 2, 2), (1, 1, 3, 3)), overlap((0, 0, 1, 1), (1, 0, 2, 1))
    (True, False)
    """
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def place(
    names: Sequence[tuple[str, float, float]],
    dots: Sequence[tuple[float, float]],
    room: Box,
    *,
    stems: Sequence[Box] = (),
    most: int = 40,
) -> list[tuple[float, float, str] | None]:
    """Find a place for each name beside its mark, the first names first: (x, y of the baseline, anchor), or None.

    A name is left out where every place would lie on a mark or stem, on a name already placed, or outside `room`, and
    once `most` are placed.
    """
    taken: list[Box] = []
    marks = [(x - 4, y - 4, x + 4, y + 4) for x, y in dots]
    found: list[tuple[float, float, str] | None] = []
    for name, x, y in names:
        w = width_of(name)
        spots: list[tuple[float, float, str]] = [(x + 8, y + 4, "start"), (x - 8, y + 4, "end")]
        spots += [(x, y - 8, "middle"), (x, y + 16, "middle")]
        spots += [(x + 6, y - 6, "start"), (x + 6, y + 13, "start"), (x - 6, y - 6, "end"), (x - 6, y + 13, "end")]
        chosen = None
        for at_x, at_y, anchor in spots if len(taken) < most else ():
            left = at_x - {"start": 0, "middle": w / 2, "end": w}[anchor]
            box = (left, at_y - 10, left + w, at_y + 3)
            inside = room[0] <= box[0] and room[1] <= box[1] and box[2] <= room[2] and box[3] <= room[3]
            if inside and not any(overlap(box, other) for other in (*taken, *marks, *stems)):
                taken.append(box)
                chosen = (at_x, at_y, anchor)
                break
        found.append(chosen)
    return found


def scales(items: Sequence[Point]) -> tuple[Scale, Scale]:
    """Axes that hold all marks: accuracy up to 1, ECE from 0."""
    low = min((p.x for p in items), default=0.0)
    high = max((p.y for p in items), default=0.0)
    return Scale(max(0.0, min(int((low - 0.02) * 20) / 20, 0.95)), 1.0), Scale(0, max(0.05, 1.08 * high))


def drawing(items: Sequence[Point], title: str, *, x: Scale, y: Scale, frame: Frame, view: tuple[int, int]) -> str:
    """One map. Marks can be stepped through by the arrow keys; a stem leads to what perfect calibration would show."""
    x_ticks = {t: percent(t, 0) for t in ticks(x.low, x.high, int(frame.width / 60))}
    y_ticks = {t: f"{t:g}" for t in ticks(y.low, y.high, 6)}
    parts = [frame.axes(x_ticks, y_ticks, "accuracy", "ECE")]
    ordered = sorted(items, key=lambda p: (p.x, p.name))
    stems: list[Box] = []
    spots = {id(p): frame.at(p.x, p.y) for p in ordered}
    for p in ordered:
        if is_number(p.reference):
            at_x, at_y = spots[id(p)]
            _, end = frame.at(p.x, p.reference)
            stems.append((at_x - 1, min(at_y, end), at_x + 1, max(at_y, end)))
            ends = f'x1="{at_x:.1f}" x2="{at_x:.1f}" y1="{at_y:.1f}" y2="{end:.1f}"'
            parts.append(f'<g class="c-{COLOURS.get(p.group, "third")}"><line class="stem" {ends}/></g>')
    for i, p in enumerate(ordered):
        at_x, at_y = spots[id(p)]
        place_of = f'transform="translate({at_x:.1f} {at_y:.1f})"'
        parts.append(
            f'<g class="c-{COLOURS.get(p.group, "third")} point" tabindex="{0 if i == 0 else -1}" role="img" '
            f'aria-label="{text(p.said)}" data-say="{text(p.said)}"><title>{text(p.said)}</title>'
            f'<path d="{shape(p.group)}" {place_of}/></g>'
        )
    notable = sorted(items, key=lambda p: (-p.excess, p.x))
    worst = sorted(items, key=lambda p: p.x)[:3]
    named = list(dict.fromkeys([*notable[:4], *worst, *notable]))
    room = (frame.left, frame.top, frame.left + frame.width + 6, frame.top + frame.height)
    placed = place(
        [(p.name, *spots[id(p)]) for p in named], list(spots.values()), room, stems=stems, most=int(frame.width / 22)
    )
    for p, spot in zip(named, placed, strict=True):
        if spot is not None:
            at = attributes(x=f"{spot[0]:.1f}", y=f"{spot[1]:.1f}", text_anchor=spot[2] if spot[2] != "start" else None)
            parts.append(f'<text class="tag"{at} aria-hidden="true">{text(p.name)}</text>')
    width, height = view
    return (
        f'<svg viewBox="0 0 {width} {height}" role="group" aria-label="{text(title)}"><title>{text(title)}</title>'
        f"{''.join(parts)}</svg>"
    )


def language_map(items: Sequence[Point], title: str) -> str:
    """The map of some languages with its legend and a line that says what is pointed at; empty without any."""
    if not items:
        return ""
    x, y = scales(items)
    wide = Frame(x, y, left=44, top=22, width=832, height=380)
    narrow = Frame(x, y, left=38, top=22, width=296, height=330)
    groups = [g for g in ("high", "mid", "low", "") if any(p.group == g for p in items)]
    labels = {"": "class not known"}
    signs = "".join(f"<li>{group_key(g)}{text(labels.get(g, f'{g}-resource'))}</li>" for g in groups)
    stem = '<svg class="key" width="14" height="14" viewBox="0 0 14 14" aria-hidden="true"><g class="c-third">'
    stem += '<line class="stem" x1="7" x2="7" y1="1" y2="13"/></g></svg>'
    end = f"<li>{stem}down to what perfect calibration would show</li>" if any(p.reference for p in items) else ""
    first = max(items, key=lambda p: p.excess)
    return (
        f'<ul class="legend">{signs}{end}</ul>\n<figure class="map">'
        f'<div class="wide-only">{drawing(items, title, x=x, y=y, frame=wide, view=(900, 450))}</div>'
        f'<div class="narrow-only">{drawing(items, title, x=x, y=y, frame=narrow, view=(350, 400))}</div>'
        f'<figcaption class="say" aria-live="polite">{text(first.said)}</figcaption></figure>\n'
    )


def said(name: str, group: str, accuracy: float, ece: float, null: float | None) -> str:
    """A language in words, for the tip, the line below the map, and a screen reader."""
    kind = f" ({group}-resource)" if group else ""
    over = f", {fixed(ece - null)} above perfect calibration" if is_number(null) and ece >= null else ""
    return f"{name}{kind}: accuracy {percent(accuracy)}, ECE {fixed(ece)}{over}"
