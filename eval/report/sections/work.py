"""The report on the work around the encoder: training, export, serving."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from xt.core.results.report import Report
from xt.eval.report import page
from xt.eval.report.charts import basic
from xt.eval.report.charts.basic import Dot, Row, Scale
from xt.eval.report.page import Cell, figure, fixed, is_number, percent, points, quantity, text, words
from xt.eval.report.reading import Metrics, cached, difference, encoders, known, name_of, who


def training(report: Report) -> str:
    """Each task before and after, and its loss."""
    data = report.training
    rows = []
    before, after = basic.series_for(2)
    for task in data.get("tasks") or []:
        values = {k: task.get(k) for k in ("before", "after", "majority")}
        said = f"{task.get('task') or page.DASH}: before {percent(values['before'])}, after {percent(values['after'])}"
        marks = [Dot(s, values[k]) for k, s in (("before", before), ("after", after)) if is_number(values[k])]
        drawing = (
            basic.dots(Row("", "", "", said, marks, values["majority"]), Scale(0, 1), [0, 0.5, 1]) if marks else ""
        )
        name = text(task.get("task")) + (' <small class="code">sample</small>' if task.get("sample") else "")
        row = [Cell(name, str(task.get("task") or "")), words(task.get("format")), words(task.get("metric"))]
        row += [figure(task.get(k), fixed(task.get(k), 0)) for k in ("train", "dev")]
        row += [figure(values[k], percent(values[k])) for k in ("majority", "before", "after")]
        rows.append(
            [
                *row,
                figure(
                    difference(values["after"], values["before"]), points(difference(values["after"], values["before"]))
                ),
                Cell(drawing),
            ]
        )
    facts = [
        f"{fixed(data['steps'], 0)} steps" if is_number(data.get("steps")) else "",
        f"{quantity(data['seconds'])} s" if is_number(data.get("seconds")) else "",
        f"{quantity(data['tokens_per_second'])} tokens a second" if is_number(data.get("tokens_per_second")) else "",
        f"{text(data['sampling'])} sampling" if data.get("sampling") else "",
    ]
    line = f"<p>{' · '.join(f for f in facts if f)}</p>\n" if any(facts) else ""
    head = ["Task", "Format", "Metric", "train", "dev", "majority", "before", "after", "points", "0 to 100%"]
    caption = "Intermediate tasks on their development sets. Ring: before; disc: after; tick: majority."
    how = (
        "The encoder is trained on all tasks at once, a head for each. <b>Majority</b> is what always giving the "
        "commonest label scores: a task learned nothing unless it ends above it. With small development sets, "
        "differences of a few points are noise."
    )
    return page.section(
        "training", "Training", how, line, page.table(caption, head, rows), loss_panels(data.get("losses") or [])
    )


def loss_panels(records: Sequence[Metrics]) -> str:
    """A loss curve for each task, on a common step axis."""
    by_task: dict[str, list[tuple[float, float]]] = {}
    for r in records:
        if is_number(r.get("step")) and is_number(r.get("loss")):
            by_task.setdefault(str(r.get("task") or "loss"), []).append((r["step"], r["loss"]))
    last = max((step for pairs in by_task.values() for step, _ in pairs), default=0)
    panels = ""
    for task, pairs in by_task.items():
        steps, values = zip(*sorted(pairs), strict=True)
        drawing = basic.losses(steps, values, f"Loss of {task} by step", last=last)
        if drawing:
            end = fmean(values[-max(1, len(values) // 10) :])
            count = f"<span>· {len(values)} steps, last tenth {fixed(end, 2)}</span>"
            panels += f"<figure><figcaption>{text(task)} {count}</figcaption>{drawing}</figure>\n"
    note = "Faint: every step. Solid: mean over a tenth of the steps. Losses of different tasks are not comparable."
    return f'<h3>Loss</h3>\n<p class="note">{note}</p>\n<div class="panels strip">\n{panels}</div>\n' if panels else ""


PARITY = {
    "cosine_min": "cosine, least",
    "cosine_p1": "1st percentile",
    "cosine_mean": "mean",
    "neighbour_agreement": "same neighbour",
    "batch_invariance_min": "batch invariance",
}


def parity(report: Report) -> str:
    """Whether the exported graphs give the vectors of the original."""
    rows: list[Sequence[Cell] | str] = []
    required = []
    for encoder, series in encoders(report):
        data = known(encoder.parity)
        if not data.get("stages"):
            continue
        sizes = [f"{fixed(data[k], 0)} {k}" for k in ("sentences", "languages") if is_number(data.get(k))]
        rows.append(f"{who(encoder, series)} {verdict(data.get('passed'))} <small>{' in '.join(sizes)}</small>".strip())
        for stage in data["stages"]:
            shown = {k: percent(stage.get(k)) if k == "neighbour_agreement" else fixed(stage.get(k), 5) for k in PARITY}
            size = figure(stage.get("megabytes"), quantity(stage.get("megabytes")))
            rows.append([words(stage.get("stage")), *(figure(stage.get(k), shown[k]) for k in PARITY), size])
        limits = (data.get("thresholds") or {}).items()
        required += [f"{PARITY.get(k, k.replace('_', ' '))} at least {v:g}" for k, v in limits if is_number(v)]
    how = (
        "Every exported graph must give the vectors of the original. <b>Cosine</b> compares the two vectors of each "
        "sentence (1 is equal); <b>same neighbour</b> is how often both find the same nearest sentence; <b>batch "
        "invariance</b> is the least cosine between a sentence alone and the same sentence in a batch."
    )
    note = f'<p class="note">Required: {text("; ".join(dict.fromkeys(required)))}.</p>\n' if required else ""
    caption = "Exported graphs against PyTorch in fp32; size in megabytes"
    table = page.table(caption, ["Stage", *PARITY.values(), "MB"], rows)
    return page.section("parity", "Export", how, table, note if table else "")


def verdict(passed: Any) -> str:
    """A pass or fail in a sign, a word and a colour; nothing when it is not known."""
    signs = {True: '<span class="ok">✓ passed</span>', False: '<span class="bad">✗ failed</span>'}
    return signs[passed] if isinstance(passed, bool) else ""


def serving(report: Report) -> str:
    """Throughput as bars, latency as a table."""
    data = report.serving
    rows = data.get("rows") or []
    looks = {name_of(e): s for e, s in encoders(report)}
    bars = []
    for r in rows:
        if is_number(r.get("sentences_per_second")):
            at_once = f", {r['concurrency']} at a time" if is_number(r.get("concurrency")) else ""
            model = f" · {r['model']}" if r.get("model") and len({x.get("model") for x in rows}) > 1 else ""
            model += f" ({of_cache})" if (of_cache := cached(r)) else ""
            look = looks.get(str(r.get("model")), basic.series_for(1)[0])
            bars.append(
                (
                    f"{r.get('engine') or page.DASH}{at_once}{model}",
                    look,
                    r["sentences_per_second"],
                    quantity(r["sentences_per_second"]),
                )
            )
    head = ["Engine", "Encoder", "at a time", "sentences/s", "tokens/s", "p50", "p95", "p99"]
    table = []
    for r in rows:
        of_cache = cached(r)
        row = [
            words(f"{r.get('engine') or page.DASH}, {of_cache}" if of_cache else r.get("engine")),
            words(r.get("model")),
            figure(r.get("concurrency"), fixed(r.get("concurrency"), 0)),
        ]
        row += [
            figure(r.get(k), quantity(r.get(k)))
            for k in ("sentences_per_second", "tokens_per_second", "p50_ms", "p95_ms", "p99_ms")
        ]
        table.append(row)
    sent = f'<p class="note">Sent: {text(data["texts"])}</p>\n' if data.get("texts") and rows else ""
    how = (
        "Requests are sent in a closed loop: as many clients as stated, each waiting for its answer before the next "
        "request. p50, p95 and p99 are the times within which that share of requests was answered."
    )
    if any(map(cached, rows)):
        sent += (
            '<p class="note">Where texts were answered from the server\'s vector cache, the row says so: it is not '
            "the encoder's speed.</p>\n"
        )
    shown = f"<h3>Sentences a second</h3>\n{basic.bar_chart(bars)}" if bars else ""
    return page.section(
        "serving", "Serving", how, sent, shown, page.table("Throughput, and latency in milliseconds", head, table)
    )
