"""report.html: one self-contained page from the metrics of `xt eval` or `xt quickstart`.

A section is a function from the metrics to HTML; it returns an empty string when its part of the metrics is missing.
Everything is escaped, nothing is loaded from elsewhere.
"""

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from xt.eval.report import page
from xt.eval.report.page import Cell, fixed, is_number, percent, points, quantity, text, words
from xt.eval.report.reading import (
    Metrics,
    before_after,
    blocks,
    codes,
    difference,
    direction_label,
    directions,
    encoders,
    fastest,
    get,
    is_triton,
    known,
    mean_of,
    name_of,
)
from xt.eval.report.sections.classes import classification, sentence
from xt.eval.report.sections.compare import comparison
from xt.eval.report.sections.compare import headline as compared_tiles
from xt.eval.report.sections.compare import sentence as compared
from xt.eval.report.sections.errors import examples, worst
from xt.eval.report.sections.layers import layers
from xt.eval.report.sections.map import close_sentence, languages
from xt.eval.report.sections.quality import calibration, retrieval
from xt.eval.report.sections.sets import conformal, none_of_these
from xt.eval.report.sections.tables import mining, ranked, summary
from xt.eval.report.sections.trust import reliability, risk, shots
from xt.eval.report.sections.work import parity, serving, training


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
        "comparison": ("Comparison", comparison(metrics)),
        "summary": ("Summary", summary(metrics)),
        "languages": ("Languages", languages(metrics)),
        "retrieval": ("Retrieval", retrieval(metrics)),
        "classification": ("Scores", classification(metrics)),
        "ranked": ("Ranked", ranked(metrics)),
        "mining": ("Mining", mining(metrics)),
        "layers": ("Layers", layers(metrics)),
        "calibration": ("Calibration", calibration(metrics)),
        "reliability": ("Reliability", reliability(metrics)),
        "shots": ("Shots", shots(metrics)),
        "risk": ("Risk", risk(metrics)),
        "none-of-these": ("None of these", none_of_these(metrics)),
        "conformal": ("Sets", conformal(metrics)),
        "training": ("Training", training(metrics)),
        "parity": ("Export", parity(metrics)),
        "serving": ("Serving", serving(metrics)),
        "worst": ("Errors", worst(metrics)),
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
    sentence = in_words(metrics)
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


def in_words(metrics: Metrics) -> str:
    """The result in words, as HTML; a sentence for each part that was measured."""
    found = encoders(metrics)
    sentences = [compared(metrics), *(retrieval_sentence(metrics, d) for d in directions(metrics, "retrieval")[:1])]
    sentences += [part] if (part := sentence(metrics)) else []
    pair = headline_ece(metrics)
    if pair and is_number(pair[1].get("ece")):
        before = get(pair[0], "ece")
        against = f" after calibration, against {fixed(before)} before" if is_number(before) else ""
        trained = get(headline_methods(metrics), "training", "overall", "ece")
        against += (
            f" ({fixed(trained)} at the temperature it was trained with)" if against and is_number(trained) else ""
        )
        whose = "Its" if any(sentences) else f"The {text(name_of(found[-1][0]))} encoder's"
        sentences.append(f"{whose} stated probabilities are off by <b>{fixed(pair[1]['ece'])}</b> on average{against}.")
    sentences += [close_sentence(metrics, b) for b in blocks(metrics)[:1]]
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
    yield from compared_tiles(metrics)
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
    number = task.get("languages") or len(metrics.get("languages") or {})
    if number and not metrics.get("comparison"):
        pairs = f"{fixed(task['pairs'], 0)} sentence pairs" if is_number(task.get("pairs")) else ""
        yield "Languages", fixed(number, 0), pairs


# -- provenance --------------------------------------------------------------------------------------------------------


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
        hashes(metrics),
        page.table("Written by this run", ["What", "Where"], rows),
    )  # fmt: skip


def hashes(metrics: Metrics) -> str:
    """The files that were read, by their SHA-256."""
    found = metrics.get("data") or {}
    rows = [
        [Cell(f"<code>{text(name)}</code>", str(name)), Cell(f'<code class="hash">{text(value)}</code>')]
        for name, value in found.items()
    ]
    table = page.table("The data that were read", ["File", "SHA-256"], rows, tall=len(rows) > 14)
    return table if len(rows) <= 6 else page.details(f"The {len(rows)} files that were read, with their hashes", table)
