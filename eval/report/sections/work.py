"""The report on the work around the encoder: training, export, serving."""

from collections.abc import Sequence

from markupsafe import Markup

from xt.core.pages.curves import loss_panel
from xt.core.pages.numbers import DASH, difference, fixed, percent, points, quantity
from xt.core.pages.rows import ACCENT, Dot, Row, Series, bars, dots, series_for
from xt.core.pages.svg import Scale
from xt.core.pages.tables import Cell, figure, named, table, words
from xt.core.results.report import Report
from xt.core.results.work import Parity, ParityStage, ServingRow
from xt.eval.report.reading import encoders, macros, name_of, who

html = macros("work")


def training(report: Report) -> Markup:
    """Return each task before and after, and its loss."""
    data = report.training
    if data is None or not (data.tasks or data.losses):
        return Markup()
    rows = []
    before, after = series_for(2)
    for task in data.tasks:
        said = f"{task.task or DASH}: before {percent(task.before)}, after {percent(task.after)}"
        marks = [Dot(s, v) for s, v in ((before, task.before), (after, task.after)) if v is not None]
        drawing = dots(Row("", "", "", said, marks, task.majority), Scale(0, 1), [0, 0.5, 1]) if marks else ""
        gain = difference(task.after, task.before)
        rows.append(
            [
                named(task.task or DASH, "sample" if task.sample else ""),
                *map(words, (task.format, task.metric)),
                *(figure(n, fixed(n, 0)) for n in (task.train, task.dev)),
                *(figure(v, percent(v)) for v in (task.majority, task.before, task.after)),
                figure(gain, points(gain)),
                Cell(drawing),
            ]
        )
    facts = [
        f"{fixed(data.steps, 0)} steps" if data.steps is not None else "",
        f"{quantity(data.seconds)} s" if data.seconds is not None else "",
        f"{quantity(data.tokens_per_second)} tokens a second" if data.tokens_per_second is not None else "",
        f"{data.sampling} sampling" if data.sampling else "",
    ]
    head = ["Task", "Format", "Metric", "train", "dev", "majority", "before", "after", "points", "0 to 100%"]
    caption = "Intermediate tasks on their development sets. Ring: before; disc: after; tick: majority."
    losses = data.curves()
    last = max((step for pairs in losses.values() for step, _ in pairs), default=0)
    panels = [loss_panel(name, pairs, last) for name, pairs in losses.items() if len(pairs) > 1]
    return html.training([f for f in facts if f], table(caption, head, rows), panels)


STAGE = ("cosine_min", "cosine_p1", "cosine_mean", "neighbour_agreement", "batch_cosine_min")
LABELS = dict(
    zip(STAGE, ("cosine, least", "1st percentile", "mean", "same neighbour", "batch invariance"), strict=True)
)


def stage_row(stage: ParityStage) -> list[Cell]:
    """Return how near one graph comes to the original."""
    cosines = [figure(v, fixed(v, 5)) for v in (stage.cosine_min, stage.cosine_p1, stage.cosine_mean)]
    same, batch, size = stage.neighbour_agreement, stage.batch_cosine_min, stage.megabytes
    return [
        words(stage.stage),
        *cosines,
        figure(same, percent(same)),
        figure(batch, fixed(batch, 5)),
        figure(size, quantity(size)),
    ]


def parity(report: Report) -> Markup:
    """Return whether the exported graphs give the vectors of the original."""
    rows: list[Sequence[Cell] | str] = []
    required = []
    for encoder, series in encoders(report):
        data = encoder.parity or Parity()
        if data.stages:
            counts = (("sentences", data.sentences), ("languages", data.languages))
            sizes = " in ".join(f"{fixed(n, 0)} {what}" for what, n in counts if n is not None)
            rows.append(html.passed(who(encoder, series), data.passed, sizes))
            rows += map(stage_row, data.stages)
            required += [f"{LABELS.get(k, k.replace('_', ' '))} at least {v:g}" for k, v in data.thresholds.items()]
    caption = "Exported graphs against PyTorch in fp32; size in megabytes"
    stages = table(caption, ["Stage", *LABELS.values(), "MB"], rows)
    return html.parity(stages, "; ".join(dict.fromkeys(required))) if rows else Markup()


def serving(report: Report) -> Markup:
    """Return throughput as bars, latency as a table."""
    data = report.serving
    if data is None or not data.rows:
        return Markup()
    looks = {name_of(e): s.colour for e, s in encoders(report)}
    several = len({r.model for r in data.rows}) > 1
    drawn = []
    for r in data.rows:
        if r.sentences_per_second is not None:
            at_once = "" if r.concurrency is None else f", {r.concurrency} at a time"
            model = f" · {r.model}" if r.model and several else ""
            label = f"{r.engine or DASH}{at_once}{model}" + (f" ({r.from_cache})" if r.from_cache else "")
            bar = Dot(Series(looks.get(str(r.model), ACCENT.colour), "bar"), r.sentences_per_second)
            drawn.append(Row(label, "", quantity(r.sentences_per_second), label, [bar]))
    head = ["Engine", "Encoder", "at a time", "sentences/s", "tokens/s", "p50", "p95", "p99"]
    rates = table("Throughput, and latency in milliseconds", head, map(serving_row, data.rows))
    return html.serving(data.texts, any(r.from_cache for r in data.rows), bars(drawn), rates)


def serving_row(r: ServingRow) -> list[Cell]:
    """Return one measurement as the table has it."""
    rates = (r.sentences_per_second, r.tokens_per_second, r.p50_ms, r.p95_ms, r.p99_ms)
    return [
        words(f"{r.engine or DASH}, {r.from_cache}" if r.from_cache else r.engine),
        words(r.model),
        figure(r.concurrency, fixed(r.concurrency, 0)),
        *(figure(value, quantity(value)) for value in rates),
    ]
