"""report.html: one self-contained page from the metrics of `xt eval` or `xt quickstart`.

A section is a function from the metrics to HTML; it returns an empty string when its part of the metrics is missing.
Everything is escaped, nothing is loaded from elsewhere.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from xt.core.results.report import Machine, Measures, Method, Report
from xt.eval.report import page
from xt.eval.report.page import Cell, fixed, percent, points, quantity, text, words
from xt.eval.report.reading import (
    before_after,
    blocks,
    calibrated,
    difference,
    direction_label,
    encoders,
    fastest,
    is_triton,
    known,
    mean_of,
    methods_of,
    name_of,
    retrieved,
    retrieved_codes,
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


def render(given: Report | Mapping[str, Any]) -> str:
    """The page of a report, or of its JSON document, as HTML; whatever is missing is left out."""
    report = tidy(given if isinstance(given, Report) else Report.from_json(given))
    parts = {
        "comparison": ("Comparison", comparison(report)),
        "summary": ("Summary", summary(report)),
        "languages": ("Languages", languages(report)),
        "retrieval": ("Retrieval", retrieval(report)),
        "classification": ("Scores", classification(report)),
        "ranked": ("Ranked", ranked(report)),
        "mining": ("Mining", mining(report)),
        "layers": ("Layers", layers(report)),
        "calibration": ("Calibration", calibration(report)),
        "reliability": ("Reliability", reliability(report)),
        "shots": ("Shots", shots(report)),
        "risk": ("Risk", risk(report)),
        "none-of-these": ("None of these", none_of_these(report)),
        "conformal": ("Sets", conformal(report)),
        "training": ("Training", training(report)),
        "parity": ("Export", parity(report)),
        "serving": ("Serving", serving(report)),
        "worst": ("Errors", worst(report)),
        "examples": ("Examples", examples(report)),
        "provenance": ("Provenance", provenance(report)),
    }
    nav = [(anchor, label) for anchor, (label, html) in parts.items() if html]
    version = f" {text(report.xt_version)}" if report.xt_version else ""
    footer = f"<p>Written by xt{version}. The page loads nothing from elsewhere: keep, send or print it as it is.</p>"
    title = report.title or "xt report"
    return page.document(title, header(report, title), nav, "".join(html for _, html in parts.values()), footer)


def tidy(report: Report) -> Report:
    """Return the report with what is null left out of the sections that are kept as they were measured."""
    loose = ("layers", "summary", "mining", "training", "serving")
    return replace(report, **{name: known(getattr(report, name)) for name in loose})


# -- header ------------------------------------------------------------------------------------------------------------


def header(report: Report, title: str) -> str:
    """Title, the result in a sentence or two, headline figures."""
    stamp = moment(report.created)
    task = report.task.title
    eyebrow = " · ".join(text(part) for part in (task, stamp) if part)
    notes = len(report.notes)
    caveat = f"{notes} caveat{'s' if notes > 1 else ''} to read with {'them' if notes > 1 else 'it'}"
    link = f'<p class="small"><a href="#notes">{caveat}</a></p>\n' if notes else ""
    sentence = in_words(report)
    lead = f'<p class="lead">{sentence}</p>\n' if sentence else ""
    tiles = "".join(
        f'<div class="tile"><dt>{text(label)}</dt><dd class="big">{text(big)}</dd>'
        f'<dd class="sub">{text(sub)}</dd></div>\n'
        for label, big, sub in headline(report)
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


def in_words(report: Report) -> str:
    """The result in words, as HTML; a sentence for each part that was measured."""
    found = encoders(report)
    sentences = [compared(report), *(retrieval_sentence(report, d) for d in retrieved(report)[:1])]
    sentences += [part] if (part := sentence(report)) else []
    before, after = headline_ece(report)
    if after is not None and after.ece is not None:
        shown = before is not None and before.ece is not None
        against = f" after calibration, against {fixed(before.ece)} before" if before and shown else ""
        trained = headline_methods(report).get("training", Method()).overall.ece
        if against and trained is not None:
            against += f" ({fixed(trained)} at the temperature it was trained with)"
        whose = "Its" if any(sentences) else f"The {text(name_of(found[-1][0]))} encoder's"
        sentences.append(f"{whose} stated probabilities are off by <b>{fixed(after.ece)}</b> on average{against}.")
    sentences += [close_sentence(report, b) for b in blocks(report)[:1]]
    rows = report.serving.get("rows") or []
    best = fastest(rows, triton=True) or fastest(rows, triton=False)
    if best:
        rate = f"<b>{quantity(best['sentences_per_second'])}</b> sentences a second on this machine"
        server = "Triton serves" if is_triton(best) else f"{text(best.get('engine') or 'It')} encodes"
        sentences.append(f"{server} {rate}.")
    return " ".join(s for s in sentences if s)


def retrieval_sentence(report: Report, direction: str) -> str:
    """How often the last encoder is right, and how that compares with the first; HTML."""
    subject, first = report.encoders[-1], report.encoders[0]
    accuracy = mean_of(report, subject, direction, "all")
    if accuracy is None:
        return ""
    number, several = len(retrieved_codes(report, direction)), len(report.encoders) > 1
    called = f"the {name_of(subject)} encoder" if several else subject.label or name_of(subject)
    over = f"Over {number} languages, " if number > 1 else "In one language, "
    sides = {"foreign-english": "the English translation", "english-foreign": "the foreign translation"}
    side = sides.get(direction, "the right counterpart")
    sentence = f"{over}{text(called)} ranks {side} of a sentence first in <b>{percent(accuracy)}</b> of cases"
    gain = difference(accuracy, mean_of(report, first, direction, "all")) if several else None
    if gain is None:
        return sentence + "."
    size = round(100 * abs(gain), 1)
    amount = f"{size:.1f} points {'more' if gain > 0 else 'less'} than" if size else "as often as"
    return f"{sentence}, {amount} the {text(name_of(first))} one."


def headline_methods(report: Report) -> dict[str, Method]:
    """The calibration methods of the last encoder in the first direction."""
    ways = calibrated(report)
    return methods_of(report.encoders[-1], ways[0]) if ways else {}


def headline_ece(report: Report) -> tuple[Measures | None, Measures | None]:
    """The overall figures before and after calibration, of the last encoder in the first direction."""
    methods = headline_methods(report)
    before, after = before_after(methods)
    if after is None:
        return None, methods[before].overall if before else None
    return methods[before].overall if before else None, methods[after].overall


def headline(report: Report) -> Iterator[tuple[str, str, str]]:
    """The tiles: what, how much, and beside what to read it."""
    several = len(report.encoders) > 1
    yield from compared_tiles(report)
    for direction in retrieved(report)[:1]:
        subject, first = report.encoders[-1], report.encoders[0]
        for group, label in (("all", "Accuracy, all languages"), ("low", "Accuracy, low-resource")):
            value = mean_of(report, subject, direction, group)
            gain = difference(value, mean_of(report, first, direction, group)) if several else None
            against = f"; {points(gain)} points on {name_of(first)}" if gain is not None else ""
            if value is not None:
                yield label, percent(value), direction_label(direction) + against
    before, after = headline_ece(report)
    if after is not None and after.ece is not None:
        parts = [f"before: {fixed(before.ece)}"] if before not in (None, Measures()) and before else []
        parts += [f"perfect would show {fixed(after.ece_null)}"] if after.ece_null is not None else []
        yield "Calibration error (ECE)", fixed(after.ece), "; ".join(parts)
    yield from speed(report)
    number = report.task.languages or len(report.languages)
    if number and not report.comparison:
        pairs = "" if report.task.pairs is None else f"{fixed(report.task.pairs, 0)} sentence pairs"
        yield "Languages", fixed(number, 0), pairs


def speed(report: Report) -> Iterator[tuple[str, str, str]]:
    """The tile of sentences a second."""
    rows = report.serving.get("rows") or []
    best, other = fastest(rows, triton=True), fastest(rows, triton=False)
    shown = best or other
    if shown:
        per_second = shown["sentences_per_second"]
        sub = f"{shown.get('engine') or 'engine'}, {shown.get('concurrency') or page.DASH} at a time"
        if best and other and other["sentences_per_second"] > 0:
            sub = f"{fixed(per_second / other['sentences_per_second'], 1)} times {other.get('engine') or 'the other'}"
        yield "Sentences a second", quantity(per_second), sub


# -- provenance --------------------------------------------------------------------------------------------------------


def provenance(report: Report) -> str:
    """Command, machine, versions, licences, caveats, artefacts."""
    machine, task = report.machine, report.task
    memory = None if machine.memory_gib is None else f"{machine.memory_gib:.1f} GiB"
    cores = f"{machine.cores} cores" if machine.cores else None
    facts: list[tuple[str, Any]] = [
        ("Machine", ", ".join(v for v in (machine.cpu, cores, memory) if v) or None),
        ("GPU", (machine.gpu or "none") if machine != Machine() else None),
        ("Python", machine.python),
        ("Packages", ", ".join(f"{k} {v or page.DASH}" for k, v in machine.packages.items()) or None),
        ("xt", report.xt_version),
        ("Test data", " · ".join(part for part in (task.title, task.name, task.licence) if part) or None),
    ]
    for encoder in report.encoders:
        parts = [p for p in (encoder.label, encoder.provenance, encoder.precision, encoder.engine) if p]
        parts += [f"{encoder.dim} dimensions"] if encoder.dim else []
        facts.append((f"Encoder {name_of(encoder)}", " · ".join(parts) or None))
    told = "".join(f"<dt>{text(label)}</dt><dd>{text(value)}</dd>\n" for label, value in facts if value is not None)
    command = f"<h3>Command</h3>\n<pre><code>{text(report.command)}</code></pre>\n" if report.command else ""
    notes = "".join(f"<li>{text(n)}</li>\n" for n in report.notes)
    rows = [[words(a.label), Cell(f"<code>{text(a.path)}</code>")] for a in report.artefacts]
    how = "What was run, on what, and what to keep in mind when quoting a number from this page."
    return page.section(
        "provenance", "Provenance", how,
        f'<h3 id="notes">Caveats</h3>\n<ul class="notes">\n{notes}</ul>\n' if notes else "",
        command,
        f'<dl class="facts">\n{told}</dl>\n' if told else "",
        hashes(report),
        page.table("Written by this run", ["What", "Where"], rows),
    )  # fmt: skip


def hashes(report: Report) -> str:
    """The files that were read, by their SHA-256."""
    found = report.data
    rows = [
        [Cell(f"<code>{text(name)}</code>", str(name)), Cell(f'<code class="hash">{text(value)}</code>')]
        for name, value in found.items()
    ]
    table = page.table("The data that were read", ["File", "SHA-256"], rows, tall=len(rows) > 14)
    return table if len(rows) <= 6 else page.details(f"The {len(rows)} files that were read, with their hashes", table)
