"""The report on layers: accuracy behind every layer of the network, and the best one, chosen on other languages."""

from collections.abc import Sequence

from xt.core.results.report import Report
from xt.eval.report import page
from xt.eval.report.charts import basic
from xt.eval.report.charts.basic import Frame, Scale, Series
from xt.eval.report.page import Cell, figure, is_number, percent, text
from xt.eval.report.reading import CLASSES, Metrics, direction_label, get, language_name

LOOKS = (Series("second", "ring"), Series("accent", "disc"))
"""The first direction and the second."""


def layers(report: Report) -> str:
    """Curve and table of mean accuracy by layer."""
    data = report.layers
    ways = list(data.get("directions") or {})
    if not ways:
        return ""
    own, count = data.get("own"), data.get("count")
    of = f" of {count}" if count else ""
    how = (
        "A sentence's vector can be pooled behind any layer of the network, and the middle ones often align languages "
        f"best. Layer 0 is the embeddings' output; this encoder itself is pooled from layer {text(own)}{text(of)}. A "
        "layer that is chosen on the languages it is reported on looks better than it is, so the best layer is chosen "
        "on one half of the languages and reported on the other."
    )
    looks = list(zip(ways, LOOKS, strict=False))
    legend = basic.legend([(basic.key(series), direction_label(way)) for way, series in looks])
    return page.section("layers", "Layers", how, best(report), legend, curves(report, ways), layer_table(report, ways))


def best(report: Report) -> str:
    """The layer that was chosen, and what it gives on the other languages."""
    data = report.layers.get("best") or {}
    if not data.get("accuracy"):
        return '<p class="note">One language alone: there is none to choose a layer on.</p>\n'
    said = [f"{text(direction_label(way))} {percent(value)}" for way, value in data["accuracy"].items()]
    before = [f"{text(direction_label(way))} {percent(v)}" for way, v in (data.get("own_accuracy") or {}).items()]
    against = f" At its own layer {text(report.layers.get('own'))}: {'; '.join(before)}." if before else ""
    on, over = data.get("chosen_on") or [], data.get("reported_on") or []
    names = ", ".join(language_name(report, code) for code in on)
    return (
        f"<p>Layer <b>{text(data.get('layer'))}</b>, chosen on {len(on)} language{'s' if len(on) > 1 else ''}. On the "
        f"{len(over)} other{'s' if len(over) > 1 else ''}: {'; '.join(said)}.{against}</p>\n"
        f'<p class="note">Chosen on: {text(names)}.</p>\n'
    )


def measured(report: Report, way: str) -> list[tuple[int, Metrics]]:
    """The layers of one direction with their means, lowest first."""
    rows = get(report.layers, "directions", way) or {}
    return sorted((int(layer), row.get("mean") or {}) for layer, row in rows.items())


def curves(report: Report, ways: Sequence[str]) -> str:
    """Mean accuracy over all languages by layer, a line for each direction; a dashed one at the encoder's own layer."""
    lines = {way: [(n, m["all"]) for n, m in measured(report, way) if is_number(m.get("all"))] for way in ways}
    every = [n for points in lines.values() for n, _ in points]
    if len(set(every)) < 2:
        return ""
    low, high = min(every), max(every)
    frame = Frame(Scale(low, high), Scale(0, 1), left=40, width=330, height=170)
    x = {t: f"{t:g}" for t in basic.ticks(low, high, 8) if t == int(t)}
    parts = [frame.axes(x, {t: percent(t, 0) for t in (0, 0.25, 0.5, 0.75, 1)}, "layer", "")]
    own = report.layers.get("own")
    if is_number(own) and low <= own <= high:
        at, _ = frame.at(own, 0)
        ends = f'x1="{at:.1f}" x2="{at:.1f}" y1="{frame.top}" y2="{frame.top + frame.height}"'
        parts.append(f'<line class="diag" {ends}><title>the layer that this encoder pools</title></line>')
    for (way, points), series in zip(lines.items(), LOOKS, strict=False):
        places = [(n, value, *frame.at(n, value)) for n, value in points]
        path = " ".join(f"{a:.1f},{b:.1f}" for _, _, a, b in places)
        parts.append(f'<g class="c-{series.colour}"><polyline class="curve" points="{path}"/></g>')
        parts += [
            f"<g><title>{text(direction_label(way))}, layer {n}: {percent(value)}</title>"
            f"{basic.mark(series, round(a, 1), b, 4)}</g>"
            for n, value, a, b in places
        ]
    title = "Mean accuracy over the languages by the layer that is pooled"
    drawing = f'<svg viewBox="0 0 384 216" role="img"><title>{text(title)}</title>{"".join(parts)}</svg>'
    caption = f"<figcaption>{text(title)}<span>; dashed: the encoder's own layer</span></figcaption>"
    return f'<div class="panels wide">\n<figure>{caption}{drawing}</figure>\n</div>\n'


def layer_table(report: Report, ways: Sequence[str]) -> str:
    """Mean accuracy of each layer over all languages and each resource class."""
    shown = [g for g in CLASSES if any(is_number(m.get(g)) for w in ways for _, m in measured(report, w))]
    means = {way: dict(measured(report, way)) for way in ways}
    own, chosen = report.layers.get("own"), get(report.layers, "best", "layer")
    rows = []
    for layer in sorted({n for by_layer in means.values() for n in by_layer}):
        notes = [word for word, n in (("own", own), ("chosen", chosen)) if n == layer]
        aside = f' <small class="code">{", ".join(notes)}</small>' if notes else ""
        values = [get(means[way].get(layer), g) for way in ways for g in shown]
        rows.append([Cell(f"{layer}{aside}", float(layer)), *(figure(v, percent(v)) for v in values)])
    head = ["Layer", *(CLASSES[g] for _ in ways for g in shown)]
    spans = [("", 1), *((text(direction_label(way)), len(shown)) for way in ways)]
    caption = "Mean accuracy over the languages of each resource class, by the layer that is pooled"
    return page.table(caption, head, rows, spans=spans, sort=True, tall=len(rows) > 14)
