"""The plot of `xt bench`: throughput as bars, latency over load as curves, one SVG that follows light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import log10
from typing import Any

WIDTH = 860
LABELS = 330
BAR = 24
PANEL = 300
COLOURS = ("#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#0891b2", "#65a30d", "#dc2626")
STYLE = """
  svg { background: #fff; color: #1f2937; font: 13px system-ui, sans-serif }
  text { fill: currentColor } .quiet { opacity: .65 } .grid { stroke: currentColor; opacity: .15 }
  @media (prefers-color-scheme: dark) { svg { background: #111827; color: #e5e7eb } }
"""


def plot(rows: Sequence[Mapping[str, Any]], title: str, limit: float | None = None) -> str:
    """Draw rows (`Row.to_json`): bars of tokens/s (sentences/s where tokens are unknown), then p50 and p99 curves.

    limit: tokens/s that the machine's matrix products allow, drawn as a line.
    """
    rows = list(rows)
    by_tokens = all(r["tokens_per_second"] > 0 for r in rows)
    unit = "tokens/s" if by_tokens else "sentences/s"
    values = [r["tokens_per_second" if by_tokens else "sentences_per_second"] for r in rows]
    most = max([*values, limit or 0.0 if by_tokens else 0.0]) or 1.0
    colours = _colours(rows)
    scale = (WIDTH - LABELS - 90) / most
    out = [f'<text x="16" y="28" font-size="16" font-weight="600">{escape(title)}</text>']
    out.append(f'<text x="16" y="52" class="quiet">{unit}</text>')
    y = 64
    for row, value in zip(rows, values, strict=True):
        name = f"{row['engine']}, {describe(row)}"
        colour = colours[row["engine"]]
        out.append(
            f"<g><title>{escape(name)}: {value:,.0f} {unit}</title>"
            f'<text x="{LABELS - 8}" y="{y + 16}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{LABELS}" y="{y + 3}" width="{value * scale:.1f}" height="{BAR - 6}" rx="2" fill="{colour}"/>'
            f'<text x="{LABELS + value * scale + 6:.1f}" y="{y + 16}">{value:,.0f}</text></g>'
        )
        y += BAR
    if limit and by_tokens:
        x = LABELS + limit * scale
        out.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="60" y2="{y}" stroke="currentColor" stroke-dasharray="4 3"/>'
            f'<text x="{x:.1f}" y="{y + 14}" text-anchor="end" class="quiet">int8 products alone: {limit:,.0f}</text>'
        )
        y += 16
    y += 24
    for mode, what in (("closed", "callers"), ("open", "requests a second")):
        some = [r for r in rows if r["mode"] == mode]
        if len(some) > 1:
            out.append(_curves(some, mode, what, y, colours))
            y += PANEL + 24
    body = "\n".join(out)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def describe(row: Mapping[str, Any]) -> str:
    """Say what a row's load was.

    >>> describe({"mode": "closed", "concurrency": 8, "batch": 1})
    '8 callers'
    """
    if row["mode"] == "in process":
        return f"{row['batch']} a call"
    texts = f" x {row['batch']} texts" if row["batch"] > 1 else ""
    cached = f", {words}" if (words := from_cache(row)) else ""
    if row["mode"] == "open":
        return f"{row['rate']:g}/s{texts}{cached}"
    return f"{row['concurrency']} caller{'s' if row['concurrency'] != 1 else ''}{texts}{cached}"


def from_cache(row: Mapping[str, Any]) -> str:
    """Say that a row is not the encoder's speed since a vector cache answered, or may have; empty when none did.

    >>> from_cache({"cache_hits": 30, "cached_share": 0.3})
    '30% from the cache'
    >>> from_cache({"cache": "on", "cache_hits": None})
    'cache on, its hits not readable'
    >>> from_cache({"cache": "off", "cache_hits": 0, "cached_share": 0.0})
    ''
    """
    if hits := row.get("cache_hits"):
        texts = (row.get("counters") or {}).get("xt_texts_total")  # documents of before have no share
        share = row.get("cached_share") or (min(1.0, hits / texts) if texts else None)
        if share is None:
            return f"{hits} from the cache"
        return f"{share:.0%} from the cache" if share >= 0.005 else "under 1% from the cache"
    unread = row.get("cache") == "on" and row.get("cache_hits") is None
    return "cache on, its hits not readable" if unread else ""


def _colours(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    names = list(dict.fromkeys(r["engine"] for r in rows))
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def _curves(rows: Sequence[Mapping[str, Any]], mode: str, what: str, top: int, colours: Mapping[str, str]) -> str:
    """One panel: ms on a log scale over the load; p50 drawn full, p99 dashed."""
    loads = sorted({r["concurrency" if mode == "closed" else "rate"] for r in rows})
    place = {load: 60 + (WIDTH - 120) * (i + 0.5) / len(loads) for i, load in enumerate(loads)}
    low = log10(max(min(r["p50_ms"] for r in rows), 1e-3)) - 0.1
    high = log10(max(r["p99_ms"] for r in rows)) + 0.1

    def height(ms: float) -> float:
        return top + 24 + (PANEL - 70) * (high - log10(max(ms, 1e-3))) / max(high - low, 1e-9)

    out = [f'<text x="16" y="{top + 8}" class="quiet">latency, ms: p50 full, p99 dashed, over {what}</text>']
    for power in range(-3, 6):
        for step in (1, 3):
            ms = step * 10.0**power
            if low <= log10(ms) <= high:
                y = height(ms)
                out.append(
                    f'<line class="grid" x1="60" x2="{WIDTH - 60}" y1="{y:.1f}" y2="{y:.1f}"/>'
                    f'<text x="52" y="{y + 4:.1f}" text-anchor="end">{ms:g}</text>'
                )
    for load, x in place.items():
        out.append(f'<text x="{x:.1f}" y="{top + PANEL - 28}" text-anchor="middle">{load:g}</text>')
    lines: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        lines.setdefault((row["engine"], row["batch"]), []).append(row)
    for (engine, batch), some in lines.items():
        some = sorted(some, key=lambda r: r["concurrency" if mode == "closed" else "rate"])
        for key, dash in (("p50_ms", ""), ("p99_ms", ' stroke-dasharray="5 4"')):
            points = [(place[r["concurrency" if mode == "closed" else "rate"]], height(r[key])) for r in some]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            name = f"{engine}, {batch} texts a request, {key[:3]}"
            marks = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colours[engine]}"/>' for x, y in points)
            out.append(
                f"<g><title>{escape(name)}</title>"
                f'<polyline points="{path}" fill="none" stroke="{colours[engine]}" stroke-width="2"{dash}/>{marks}</g>'
            )
    return "\n".join(out)
