"""The map of languages: accuracy against calibration error, a mark for each, named where a name fits.

It is drawn twice, for a wide screen and for a phone, since text in a drawing that is scaled down cannot be read; the
style sheet shows one of the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import east_asian_width

from markupsafe import Markup

from xt.core.pages.numbers import fixed, is_number, percent, short
from xt.core.pages.svg import Frame, Scale, drawing, sign, tag, upright
from xt.eval.report.reading import macros

html = macros("map")

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


def coloured(group: str, *inside: str, class_: str = "", **attributes: object) -> Markup:
    """Return what has the colour of a resource class."""
    return tag("g", *inside, class_=f"c-{COLOURS.get(group, 'third')} {class_}".strip(), **attributes)


def outline(group: str, x: float, y: float) -> Markup:
    """Return the mark of a resource class."""
    return tag("path", d=SHAPES.get(group, OTHER), transform=f"translate({x:.1f} {y:.1f})")


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


def picture(items: Sequence[Point], title: str, frame: Frame, width: int, height: int) -> Markup:
    """Return one map. Marks can be stepped through by the arrow keys; a stem leads to what perfection would show."""
    x, y = frame.x.ticks(int(frame.width / 60)), frame.y.ticks(6, short)
    parts = [frame.axes(x, y, "accuracy", "ECE")]
    ordered = sorted(items, key=lambda p: (p.x, p.name))
    stems: list[Box] = []
    spots = {id(p): frame.at(p.x, p.y) for p in ordered}
    for p in ordered:
        if is_number(p.reference):
            at_x, at_y = spots[id(p)]
            _, end = frame.at(p.x, p.reference)
            stems.append((at_x - 1, min(at_y, end), at_x + 1, max(at_y, end)))
            parts.append(coloured(p.group, upright(at_x, at_y, end, "stem")))
    for i, p in enumerate(ordered):
        attributes = {"role": "img", "aria_label": p.said, "data_say": p.said}
        inside = (tag("title", p.said), outline(p.group, *spots[id(p)]))
        parts.append(coloured(p.group, *inside, class_="point", tabindex=0 if i == 0 else -1, **attributes))
    notable = sorted(items, key=lambda p: (-p.excess, p.x))
    worst = sorted(items, key=lambda p: p.x)[:3]
    named = list(dict.fromkeys([*notable[:4], *worst, *notable]))
    room = (frame.left, frame.top, frame.right + 6, frame.bottom)
    placed = place(
        [(p.name, *spots[id(p)]) for p in named], list(spots.values()), room, stems=stems, most=int(frame.width / 22)
    )
    for p, spot in zip(named, placed, strict=True):
        if spot is not None:
            anchor = spot[2] if spot[2] != "start" else None
            parts.append(
                tag("text", p.name, class_="tag", x=spot[0], y=spot[1], text_anchor=anchor, aria_hidden="true")
            )
    return drawing(width, height, title, *parts, role="group", aria_label=title)


def language_map(items: Sequence[Point], title: str) -> Markup:
    """Return the map of some languages with its legend and a line that says what is pointed at; empty without any."""
    if not items:
        return Markup()
    x, y = scales(items)
    wide = picture(items, title, Frame(x, y, left=44, top=22, width=832, height=380), 900, 450)
    narrow = picture(items, title, Frame(x, y, left=38, top=22, width=296, height=330), 350, 400)
    groups = [g for g in ("high", "mid", "low", "") if any(p.group == g for p in items)]
    legend = [
        (sign(coloured(g, outline(g, 7, 7), class_="point")), f"{g}-resource" if g else "class not known")
        for g in groups
    ]
    if any(p.reference for p in items):
        stem = sign(coloured("", upright(7, 1, 13, "stem")))
        legend.append((stem, "down to what perfect calibration would show"))
    return html.map(legend, wide, narrow, max(items, key=lambda p: p.excess).said)


def said(name: str, group: str, accuracy: float, ece: float, null: float | None) -> str:
    """A language in words, for the tip, the line below the map, and a screen reader."""
    kind = f" ({group}-resource)" if group else ""
    over = f", {fixed(ece - null)} above perfect calibration" if is_number(null) and ece >= null else ""
    return f"{name}{kind}: accuracy {percent(accuracy)}, ECE {fixed(ece)}{over}"
