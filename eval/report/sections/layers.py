"""The report on layers: accuracy behind every layer of the network, and the best one, chosen on other languages."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from xt.core.pages.numbers import percent
from xt.core.pages.rows import ACCENT, Series, coloured, key, legend, mark
from xt.core.pages.svg import Frame, Scale, drawing, tag
from xt.core.pages.tables import Cell, figure, table
from xt.core.results.report import Report
from xt.core.results.tasks import Layer, Layers
from xt.eval.report.reading import CLASSES, direction_label, language_name, macros

LOOKS = (Series("second", "ring"), ACCENT)
"""The first direction and the second."""
html = macros("layers")


def layers(report: Report) -> Markup:
    """Return curve and table of mean accuracy by layer."""
    data = report.layers
    if data is None or not data.directions:
        return Markup()
    directions = list(data.directions)
    best = data.best if data.best and data.best.accuracy else None
    signs = legend(
        [(key(series), direction_label(direction)) for direction, series in zip(directions, LOOKS, strict=False)]
    )
    return html.layers(
        data.own,
        data.count,
        best,
        in_words(best.accuracy) if best else "",
        in_words(best.own_accuracy) if best else "",
        ", ".join(language_name(report, code) for code in best.chosen_on) if best else "",
        signs,
        curves(data, directions),
        layer_table(data, directions),
    )


def in_words(accuracy: Mapping[str, float]) -> str:
    """Return the accuracy of each direction in words."""
    return "; ".join(f"{direction_label(direction)} {percent(value)}" for direction, value in accuracy.items())


def curves(data: Layers, directions: Sequence[str]) -> Markup:
    """Return mean accuracy by layer, a line for each direction; a dashed one at the encoder's own layer."""
    means = {
        direction: [(n, row.mean["all"]) for n, row in data.by_number(direction).items() if "all" in row.mean]
        for direction in directions
    }
    every = [n for points in means.values() for n, _ in points]
    if len(set(every)) < 2:
        return Markup()
    low, high = min(every), max(every)
    frame = Frame(Scale(low, high), Scale(0, 1), left=40, width=330, height=170)
    across = {t: label for t, label in frame.x.ticks(8, lambda t: f"{t:g}").items() if t == int(t)}
    parts = [frame.axes(across, {t: percent(t, 0) for t in (0, 0.25, 0.5, 0.75, 1)}, "layer")]
    if data.own is not None and low <= data.own <= high:
        parts.append(frame.upright(data.own, "diag", tag("title", "the layer that this encoder pools")))
    for (direction, points), series in zip(means.items(), LOOKS, strict=False):
        parts.append(coloured(series, frame.path(points)))
        for n, value in points:
            title = tag("title", f"{direction_label(direction)}, layer {n}: {percent(value)}")
            parts.append(tag("g", title, mark(series, *frame.at(n, value), 4)))
    return drawing(384, 216, "Mean accuracy over the languages by the layer that is pooled", *parts)


def layer_table(data: Layers, directions: Sequence[str]) -> Markup:
    """Return mean accuracy of each layer over all languages and each resource class."""
    measured = {direction: data.by_number(direction) for direction in directions}
    shown = [g for g in CLASSES if any(g in row.mean for rows in measured.values() for row in rows.values())]
    marks = {"own": data.own, "chosen": data.best.layer if data.best else None}
    rows = []
    for layer in sorted({n for by_layer in measured.values() for n in by_layer}):
        aside = ", ".join(word for word, n in marks.items() if n == layer)
        values = [measured[direction].get(layer, Layer()).mean.get(g) for direction in directions for g in shown]
        rows.append([Cell(str(layer), float(layer), aside=aside), *(figure(v, percent(v)) for v in values)])
    head = ["Layer", *(CLASSES[g] for _ in directions for g in shown)]
    spans = [("", 1), *((direction_label(direction), len(shown)) for direction in directions)]
    caption = "Mean accuracy over the languages of each resource class, by the layer that is pooled"
    return table(caption, head, rows, spans=spans, sort=True, tall=len(rows) > 14)
