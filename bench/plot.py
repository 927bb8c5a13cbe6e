"""The plot of `xt bench`: throughput as bars, latency over load as curves, one SVG that follows light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

from markupsafe import Markup

from xt.core.pages.svg import coordinates, tag, upright
from xt.core.results.work import ServingRow

WIDTH = 860
LABELS = 330
BAR = 24
PANEL = 300
COLOURS = ("#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#0891b2", "#65a30d", "#dc2626")
STYLE = Markup("""
  svg { background: #fff; color: #1f2937; font: 13px system-ui, sans-serif }
  text { fill: currentColor } .quiet { opacity: .65 } .grid { stroke: currentColor; opacity: .15 }
  .limit { stroke: currentColor; stroke-dasharray: 4 3 } polyline { fill: none; stroke-width: 2 }
  @media (prefers-color-scheme: dark) { svg { background: #111827; color: #e5e7eb } }
""")


def plot(measured: Sequence[Mapping[str, Any]], title: str, limit: float | None = None) -> str:
    """Draw rows (`Row.to_json`): bars of tokens/s (sentences/s where tokens are unknown), then p50 and p99 curves.

    limit: tokens/s that the machine's matrix products allow, drawn as a line.
    """
    rows = [ServingRow.from_json(row) for row in measured]
    by_tokens = all(r.tokens_per_second for r in rows)
    unit = "tokens/s" if by_tokens else "sentences/s"
    values = [(r.tokens_per_second if by_tokens else r.sentences_per_second) or 0.0 for r in rows]
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(dict.fromkeys(str(r.engine) for r in rows))}
    scale = (WIDTH - LABELS - 90) / (max([*values, (limit or 0.0) if by_tokens else 0.0]) or 1.0)
    out = [tag("text", title, x=16, y=28, font_size=16, font_weight=600), tag("text", unit, x=16, y=52, class_="quiet")]
    y = 64
    for row, value in zip(rows, values, strict=True):
        name, width = f"{row.engine}, {row.load}", value * scale
        bar = {"x": LABELS, "y": y + 3, "width": width, "height": BAR - 6, "rx": 2, "fill": colours[str(row.engine)]}
        parts = (
            tag("title", f"{name}: {value:,.0f} {unit}"),
            tag("text", name, x=LABELS - 8, y=y + 16, text_anchor="end"),
            tag("rect", **bar),
            tag("text", f"{value:,.0f}", x=LABELS + width + 6, y=y + 16),
        )
        out.append(tag("g", *parts))
        y += BAR
    if limit and by_tokens:
        x, told = LABELS + limit * scale, f"int8 products alone: {limit:,.0f}"
        out += [upright(x, 60, y, "limit"), tag("text", told, x=x, y=y + 14, text_anchor="end", class_="quiet")]
        y += 16
    y += 24
    for mode, what in (("closed", "callers"), ("open", "requests a second")):
        some = [r for r in rows if r.mode == mode]
        if len(some) > 1:
            out += _curves(some, what, y, colours)
            y += PANEL + 24
    style = tag("style", STYLE)
    attributes = {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {WIDTH} {y}", "role": "img"}
    return tag("svg", tag("title", title), style, Markup("\n").join(out), **attributes) + "\n"


def _load(row: ServingRow) -> float:
    return (row.concurrency if row.mode == "closed" else row.rate) or 0


def _curves(rows: Sequence[ServingRow], what: str, top: int, colours: Mapping[str, str]) -> list[Markup]:
    """Return one panel: ms on a log scale over the load; p50 drawn full, p99 dashed."""
    loads = sorted({_load(r) for r in rows})
    place = {load: 60 + (WIDTH - 120) * (i + 0.5) / len(loads) for i, load in enumerate(loads)}
    low = log10(max(min(r.p50_ms or 0.0 for r in rows), 1e-3)) - 0.1
    high = log10(max([1e-3, *(r.p99_ms or 0.0 for r in rows)])) + 0.1

    def height(ms: float) -> float:
        return top + 24 + (PANEL - 70) * (high - log10(max(ms, 1e-3))) / max(high - low, 1e-9)

    out = [tag("text", f"latency, ms: p50 full, p99 dashed, over {what}", x=16, y=top + 8, class_="quiet")]
    for ms in (step * 10.0**power for power in range(-3, 6) for step in (1, 3)):
        if low <= log10(ms) <= high:
            y = height(ms)
            out.append(tag("line", class_="grid", x1=60, x2=WIDTH - 60, y1=y, y2=y))
            out.append(tag("text", f"{ms:g}", x=52, y=y + 4, text_anchor="end"))
    out += [tag("text", f"{load:g}", x=x, y=top + PANEL - 28, text_anchor="middle") for load, x in place.items()]
    lines: dict[tuple[str, int], list[ServingRow]] = {}
    for row in rows:
        lines.setdefault((str(row.engine), row.batch), []).append(row)
    for (engine, batch), some in lines.items():
        some, colour = sorted(some, key=_load), colours[engine]
        for name, dash, values in (
            ("p50", None, [r.p50_ms or 0.0 for r in some]),
            ("p99", "5 4", [r.p99_ms or 0.0 for r in some]),
        ):
            points = [(place[_load(r)], height(ms)) for r, ms in zip(some, values, strict=True)]
            line = tag("polyline", points=coordinates(points), stroke=colour, stroke_dasharray=dash)
            marks = [tag("circle", cx=x, cy=y, r=3, fill=colour) for x, y in points]
            out.append(tag("g", tag("title", f"{engine}, {batch} texts a request, {name}"), line, *marks))
    return out
