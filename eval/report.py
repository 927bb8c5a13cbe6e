"""report.html: one self-contained page from the metrics of `xt eval` or `xt quickstart`.

A section is a function from the metrics to HTML; it returns an empty string when its part of the metrics is missing.
Everything is escaped, nothing is loaded from elsewhere.
"""

import os
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

from xt.eval import charts, page
from xt.eval.charts import Dot, Row, Scale
from xt.eval.page import Cell, figure, fixed, is_number, percent, points, quantity, text, words
from xt.eval.reading import (
    Metrics,
    before_after,
    codes,
    difference,
    direction_label,
    directions,
    encoders,
    fastest,
    get,
    is_triton,
    known,
    language_name,
    mean_of,
    name_of,
    who,
)
from xt.eval.report_classes import classification, sentence
from xt.eval.report_layers import layers
from xt.eval.report_quality import calibration, retrieval


def write(metrics: Metrics, path: Path) -> None:
    """Render to `path`, through a temporary sibling, so that a reader sees the old page or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(render(metrics), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def render(metrics: Metrics) -> str:
    """The page as HTML. Only `title` is expected; whatever else is missing or None is left out."""
    metrics = known(metrics)
    parts = {
        "retrieval": ("Retrieval", retrieval(metrics)),
        "classification": ("Languages", classification(metrics)),
        "layers": ("Layers", layers(metrics)),
        "calibration": ("Calibration", calibration(metrics)),
        "training": ("Training", training(metrics)),
        "parity": ("Export", parity(metrics)),
        "serving": ("Serving", serving(metrics)),
        "examples": ("Examples", examples(metrics)),
        "provenance": ("Provenance", provenance(metrics)),
    }
    nav = [(anchor, label) for anchor, (label, html) in parts.items() if html]
    version = f" {text(metrics['xt_version'])}" if metrics.get("xt_version") else ""
    footer = f"<p>Written by xt{version}. The page loads nothing from elsewhere: keep, send or print it as it is.</p>"
    title = str(metrics.get("title") or "xt report")
    return page.document(title, header(metrics, title), nav, "".join(html for _, html in parts.values()), footer)


# -- header ------------------------------------------------------------------------------------------------------------


def header(metrics: Metrics, title: str) -> str:
    """Title, the result in a sentence or two, headline figures."""
    stamp = moment(metrics.get("created"))
    task = get(metrics, "task", "title")
    eyebrow = " · ".join(text(part) for part in (task, stamp) if part)
    notes = len(metrics.get("notes") or [])
    caveat = f"{notes} caveat{'s' if notes > 1 else ''} to read with {'them' if notes > 1 else 'it'}"
    link = f'<p class="small"><a href="#notes">{caveat}</a></p>\n' if notes else ""
    sentence = summary(metrics)
    lead = f'<p class="lead">{sentence}</p>\n' if sentence else ""
    tiles = "".join(
        f'<div class="tile"><dt>{text(label)}</dt><dd class="big">{text(big)}</dd>'
        f'<dd class="sub">{text(sub)}</dd></div>\n'
        for label, big, sub in headline(metrics)
    )
    return f'<p class="eyebrow">{eyebrow}</p>\n<h1>{text(title)}</h1>\n{lead}{link}' + (
        f'<dl class="tiles">\n{tiles}</dl>\n' if tiles else ""
    )


def moment(stamp: Any) -> str:
    """An ISO 8601 time in words; anything else as it is.

    >>> moment("2026-01-01T12:00:00Z"), moment("yesterday"), moment(None)
    ('1 January 2026, 12:00 UTC', 'yesterday', '')
    """
    try:
        at = datetime.fromisoformat(str(stamp).replace("Z", "+00:00"))
    except ValueError:
        return str(stamp or "")
    zone = " UTC" if at.utcoffset() == timedelta(0) else f" {at:%z}" if at.tzinfo else ""
    return f"{at.day} {at:%B %Y, %H:%M}{zone}"


def summary(metrics: Metrics) -> str:
    """The result in words, as HTML; a sentence for each part that was measured."""
    found = encoders(metrics)
    sentences = [retrieval_sentence(metrics, d) for d in directions(metrics, "retrieval")[:1]]
    sentences += [part] if (part := sentence(metrics)) else []
    pair = headline_ece(metrics)
    if pair and is_number(pair[1].get("ece")):
        before = get(pair[0], "ece")
        against = f" after calibration, against {fixed(before)} before" if is_number(before) else ""
        trained = get(headline_methods(metrics), "training", "overall", "ece")
        against += (
            f" ({fixed(trained)} at the temperature it was trained with)" if against and is_number(trained) else ""
        )
        whose = "Its" if sentences and sentences[0] else f"The {text(name_of(found[-1][0]))} encoder's"
        sentences.append(f"{whose} stated probabilities are off by <b>{fixed(pair[1]['ece'])}</b> on average{against}.")
    rows = get(metrics, "serving", "rows") or []
    best = fastest(rows, triton=True) or fastest(rows, triton=False)
    if best:
        rate = f"<b>{quantity(best['sentences_per_second'])}</b> sentences a second on this machine"
        server = "Triton serves" if is_triton(best) else f"{text(best.get('engine') or 'It')} encodes"
        sentences.append(f"{server} {rate}.")
    return " ".join(s for s in sentences if s)


def retrieval_sentence(metrics: Metrics, direction: str) -> str:
    """How often the last encoder is right, and how that compares with the first; HTML."""
    found = encoders(metrics)
    subject, first = found[-1][0], found[0][0]
    accuracy = mean_of(metrics, subject, direction, "all")
    if accuracy is None:
        return ""
    number, several = len(codes(metrics, "retrieval", direction)), len(found) > 1
    called = f"the {name_of(subject)} encoder" if several else str(subject.get("label") or name_of(subject))
    over = f"Over {number} languages, " if number > 1 else "In one language, "
    sides = {"foreign-english": "the English translation", "english-foreign": "the foreign translation"}
    side = sides.get(direction, "the right counterpart")
    sentence = f"{over}{text(called)} ranks {side} of a sentence first in <b>{percent(accuracy)}</b> of cases"
    gain = difference(accuracy, mean_of(metrics, first, direction, "all")) if several else None
    if gain is None:
        return sentence + "."
    size = round(100 * abs(gain), 1)
    amount = f"{size:.1f} points {'more' if gain > 0 else 'less'} than" if size else "as often as"
    return f"{sentence}, {amount} the {text(name_of(first))} one."


def headline_methods(metrics: Metrics) -> Metrics | None:
    """The calibration methods of the last encoder in the first direction."""
    found, ways = encoders(metrics), directions(metrics, "calibration")
    return get(found[-1][0], "calibration", ways[0], "methods") if found and ways else None


def headline_ece(metrics: Metrics) -> tuple[Metrics | None, Metrics] | None:
    """The overall figures before and after calibration, of the last encoder in the first direction."""
    methods = headline_methods(metrics)
    if not methods:
        return None
    before, after = before_after(methods)
    if after is None:
        return None, get(methods, before, "overall") or {}
    return get(methods, before, "overall"), get(methods, after, "overall") or {}


def headline(metrics: Metrics) -> Iterator[tuple[str, str, str]]:
    """The tiles: what, how much, and beside what to read it."""
    found = encoders(metrics)
    for direction in directions(metrics, "retrieval")[:1]:
        subject, first = found[-1][0], found[0][0]
        for group, label in (("all", "Accuracy, all languages"), ("low", "Accuracy, low-resource")):
            value = mean_of(metrics, subject, direction, group)
            gain = difference(value, mean_of(metrics, first, direction, group)) if len(found) > 1 else None
            against = f"; {points(gain)} points on {name_of(first)}" if gain is not None else ""
            if value is not None:
                yield label, percent(value), direction_label(direction) + against
    pair = headline_ece(metrics)
    if pair and is_number(pair[1].get("ece")):
        parts = [f"before: {fixed(get(pair[0], 'ece'))}"] if pair[0] else []
        parts += [f"perfect would show {fixed(pair[1]['ece_null'])}"] if is_number(pair[1].get("ece_null")) else []
        yield "Calibration error (ECE)", fixed(pair[1]["ece"]), "; ".join(parts)
    rows = get(metrics, "serving", "rows") or []
    best, other = fastest(rows, triton=True), fastest(rows, triton=False)
    shown = best or other
    if shown:
        per_second = shown["sentences_per_second"]
        sub = f"{shown.get('engine') or 'engine'}, {shown.get('concurrency') or page.DASH} at a time"
        if best and other and other["sentences_per_second"] > 0:
            sub = f"{fixed(per_second / other['sentences_per_second'], 1)} times {other.get('engine') or 'the other'}"
        yield "Sentences a second", quantity(per_second), sub
    task = metrics.get("task") or {}
    languages = task.get("languages") or len(metrics.get("languages") or {})
    if languages:
        pairs = f"{fixed(task['pairs'], 0)} sentence pairs" if is_number(task.get("pairs")) else ""
        yield "Languages", fixed(languages, 0), pairs


# -- training, export, serving -----------------------------------------------------------------------------------------


def training(metrics: Metrics) -> str:
    """Each task before and after, and its loss."""
    data = metrics.get("training") or {}
    rows = []
    before, after = charts.series_for(2)
    for task in data.get("tasks") or []:
        values = {k: task.get(k) for k in ("before", "after", "majority")}
        said = f"{task.get('task') or page.DASH}: before {percent(values['before'])}, after {percent(values['after'])}"
        marks = [Dot(s, values[k]) for k, s in (("before", before), ("after", after)) if is_number(values[k])]
        drawing = (
            charts.dots(Row("", "", "", said, marks, values["majority"]), Scale(0, 1), [0, 0.5, 1]) if marks else ""
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
        drawing = charts.losses(steps, values, f"Loss of {task} by step", last=last)
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


def parity(metrics: Metrics) -> str:
    """Whether the exported graphs give the vectors of the original."""
    rows: list[Sequence[Cell] | str] = []
    required = []
    for encoder, series in encoders(metrics):
        data = encoder.get("parity") or {}
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


def serving(metrics: Metrics) -> str:
    """Throughput as bars, latency as a table."""
    data = metrics.get("serving") or {}
    rows = data.get("rows") or []
    looks = {name_of(e): s for e, s in encoders(metrics)}
    bars = []
    for r in rows:
        if is_number(r.get("sentences_per_second")):
            at_once = f", {r['concurrency']} at a time" if is_number(r.get("concurrency")) else ""
            model = f" · {r['model']}" if r.get("model") and len({x.get("model") for x in rows}) > 1 else ""
            look = looks.get(str(r.get("model")), charts.series_for(1)[0])
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
        row = [
            words(r.get("engine")),
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
    shown = f"<h3>Sentences a second</h3>\n{charts.bar_chart(bars)}" if bars else ""
    return page.section(
        "serving", "Serving", how, sent, shown, page.table("Throughput, and latency in milliseconds", head, table)
    )


# -- examples, provenance ----------------------------------------------------------------------------------------------


def examples(metrics: Metrics) -> str:
    """Answers that were right, and wrong ones by how sure they were."""
    found = list(metrics.get("examples") or [])
    ordered = sorted(found, key=lambda x: -x["probability"] if is_number(x.get("probability")) else 0)
    right = "".join(card(metrics, x) for x in ordered if x.get("correct"))
    wrong = "".join(card(metrics, x) for x in ordered if not x.get("correct"))
    how = (
        "The query, what was found, and the probability stated for it. Wrong answers given with confidence are the "
        "ones that cost most."
    )
    return page.section(
        "examples", "Examples", how,
        f'<h3>Right</h3>\n<div class="cards">\n{right}</div>\n' if right else "",
        f'<h3>Wrong, the surest first</h3>\n<div class="cards">\n{wrong}</div>\n' if wrong else "",
    )  # fmt: skip


def card(metrics: Metrics, example: Metrics) -> str:
    """One example; every text takes its direction from its own letters."""
    looks = {name_of(e): s for e, s in encoders(metrics)}
    look = looks.get(str(example.get("encoder")), charts.series_for(1)[0])
    chance, right = example.get("probability"), example.get("correct")
    shown = {"Query": "query", "Found": "answer", **({} if right else {"Wanted": "gold"})}
    lines = "".join(f'<dt>{label}</dt><dd dir="auto">{text(example.get(k))}</dd>' for label, k in shown.items())
    code = str(example.get("language") or "")
    sign = '<b class="ok">✓ right</b>' if right else '<b class="ok">✗ wrong</b>'
    width = 100 * chance if is_number(chance) else 0
    return (
        f'<article class="card"><h4>{text(language_name(metrics, code))}<span>{sign}, stated {percent(chance)}'
        f"{' · ' + text(example['encoder']) if example.get('encoder') else ''}</span></h4>"
        f'<div class="meter c-{look.colour}"><div style="width:{width:.0f}%"></div></div><dl>{lines}</dl></article>\n'
    )


def provenance(metrics: Metrics) -> str:
    """Command, machine, versions, licences, caveats, artefacts."""
    machine, task = metrics.get("machine") or {}, metrics.get("task") or {}
    memory = f"{machine['memory_gib']:.1f} GiB" if is_number(machine.get("memory_gib")) else None
    cores = f"{machine['cores']} cores" if machine.get("cores") else None
    packages = machine.get("packages") or {}
    facts: list[tuple[str, Any]] = [
        ("Machine", ", ".join(str(v) for v in (machine.get("cpu"), cores, memory) if v) or None),
        ("GPU", (machine.get("gpu") or "none") if machine else None),
        ("Python", machine.get("python")),
        ("Packages", ", ".join(f"{k} {v or page.DASH}" for k, v in packages.items()) or None),
        ("xt", metrics.get("xt_version")),
        ("Test data", " · ".join(str(task[k]) for k in ("title", "name", "licence") if task.get(k)) or None),
    ]
    for encoder, _ in encoders(metrics):
        parts = [f"{encoder[k]}" for k in ("label", "provenance", "precision", "engine") if encoder.get(k)]
        parts += [f"{encoder['dim']} dimensions"] if encoder.get("dim") else []
        facts.append((f"Encoder {name_of(encoder)}", " · ".join(parts) or None))
    told = "".join(f"<dt>{text(label)}</dt><dd>{text(value)}</dd>\n" for label, value in facts if value is not None)
    command = (
        f"<h3>Command</h3>\n<pre><code>{text(metrics['command'])}</code></pre>\n" if metrics.get("command") else ""
    )
    notes = "".join(f"<li>{text(n)}</li>\n" for n in metrics.get("notes") or [])
    rows = [
        [words(a.get("label")), Cell(f"<code>{text(a.get('path'))}</code>")] for a in metrics.get("artefacts") or []
    ]
    how = "What was run, on what, and what to keep in mind when quoting a number from this page."
    return page.section(
        "provenance", "Provenance", how,
        f'<h3 id="notes">Caveats</h3>\n<ul class="notes">\n{notes}</ul>\n' if notes else "",
        command,
        f'<dl class="facts">\n{told}</dl>\n' if told else "",
        page.table("Written by this run", ["What", "Where"], rows),
    )  # fmt: skip
