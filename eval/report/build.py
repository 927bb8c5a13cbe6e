"""report.html: one self-contained page from the metrics of `xt eval` or `xt quickstart`.

A section is a function from the report to HTML; it returns nothing where its part of the report is missing. What it
says stands in the templates. Everything is escaped, nothing is loaded from elsewhere.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from markupsafe import Markup

from xt.core.pages.numbers import DASH, difference, fixed, percent, points, quantity, signed
from xt.core.pages.page import document, kit
from xt.core.pages.svg import tag
from xt.core.pages.tables import Cell, table, words
from xt.core.results.calibration import Measures, Method
from xt.core.results.gaps import gaps_of
from xt.core.results.report import Machine, Report
from xt.core.results.work import Serving
from xt.eval.report.reading import (
    before_after,
    blocks,
    calibrated,
    direction_label,
    language_name,
    macros,
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

html = macros("report")


def render(given: Report | Mapping[str, Any]) -> str:
    """Return the page of a report, or of its JSON document, as HTML; whatever is missing is left out."""
    report = given if isinstance(given, Report) else Report.from_json(given)
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
    nav = [(anchor, label) for anchor, (label, section) in parts.items() if section]
    version = f" {report.xt_version}" if report.xt_version else ""
    footer = f"Written by xt{version}. The page loads nothing from elsewhere: keep, send or print it as it is."
    title = report.title or "xt report"
    eyebrow = " · ".join(part for part in (report.task.title, moment(report.created)) if part)
    header = kit.header(eyebrow, title, in_words(report), list(headline(report)), html.caveats(len(report.notes)))
    return document(title, header, Markup().join(section for _, section in parts.values()), footer, nav=nav)


# -- header ------------------------------------------------------------------------------------------------------------


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


def in_words(report: Report) -> Markup:
    """Return the result in words; a sentence for each part that was measured."""
    sentences = [compared(report), *(retrieval_sentence(report, d) for d in retrieved(report)[:1]), sentence(report)]
    before, after = headline_ece(report)
    if after is not None and after.ece is not None:
        trained = headline_methods(report).get("training", Method()).overall.ece
        whose = "Its" if any(sentences) else f"The {name_of(report.encoders[-1])} encoder's"
        sentences.append(html.off(whose, after.ece, before.ece if before else None, trained))
    sentences += [close_sentence(report, b) for b in blocks(report)[:1]]
    serving = report.serving or Serving()
    best = serving.fastest(triton=True)
    if shown := best or serving.fastest(triton=False):
        sentences.append(html.speed(shown, best is not None))
    return Markup(" ").join(s for s in sentences if s)


def retrieval_sentence(report: Report, direction: str) -> Markup:
    """Return how often the last encoder is right, and how that compares with the first."""
    subject, first = report.encoders[-1], report.encoders[0]
    accuracy = mean_of(report, subject, direction, "all")
    if accuracy is None:
        return Markup()
    several = len(report.encoders) > 1
    called = f"the {name_of(subject)} encoder" if several else subject.label or name_of(subject)
    counterparts = {"foreign-english": "the English translation", "english-foreign": "the foreign translation"}
    counterpart = counterparts.get(direction, "the right counterpart")
    gain = difference(accuracy, mean_of(report, first, direction, "all")) if several else None
    size = None if gain is None else round(100 * abs(gain), 1)
    number, more = len(retrieved_codes(report, direction)), gain is not None and gain > 0
    return html.retrieval(number, called, counterpart, accuracy, size, more, name_of(first))


def headline_methods(report: Report) -> dict[str, Method]:
    """The calibration methods of the last encoder in the first direction."""
    directions = calibrated(report)
    return methods_of(report.encoders[-1], directions[0]) if directions else {}


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
    for block in blocks(report)[:1]:
        gaps = gaps_of(block.languages)
        if gaps.mean is not None and gaps.worst:
            parts = [f"worst: {language_name(report, gaps.worst[1])} {signed(gaps.worst[0])}"]
            parts += [f"beyond chance in {gaps.outside} of {gaps.known} languages"] if gaps.outside is not None else []
            yield "Mean gap, stated to right", fixed(gaps.mean), "; ".join(parts)
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
    """Return the tile of sentences a second."""
    serving = report.serving or Serving()
    best, other = serving.fastest(triton=True), serving.fastest(triton=False)
    if shown := best or other:
        rate = shown.sentences_per_second or 0.0
        concurrency = DASH if shown.concurrency is None else shown.concurrency
        sub = f"{shown.engine or 'engine'}, {concurrency} at a time"
        if best and other and other.sentences_per_second:
            sub = f"{fixed(rate / other.sentences_per_second, 1)} times {other.engine or 'the other'}"
        yield "Sentences a second", quantity(rate), sub


# -- provenance --------------------------------------------------------------------------------------------------------


def provenance(report: Report) -> Markup:
    """Return command, machine, versions, licences, caveats, artefacts."""
    machine, task = report.machine, report.task
    memory = None if machine.memory_gib is None else f"{machine.memory_gib:.1f} GiB"
    cores = f"{machine.cores} cores" if machine.cores else None
    facts: list[tuple[str, Any]] = [
        ("Machine", ", ".join(v for v in (machine.cpu, cores, memory) if v) or None),
        ("GPU", (machine.gpu or "none") if machine != Machine() else None),
        ("Python", machine.python),
        ("Packages", ", ".join(f"{k} {v or DASH}" for k, v in machine.packages.items()) or None),
        ("xt", report.xt_version),
        ("Test data", " · ".join(part for part in (task.title, task.name, task.licence) if part) or None),
    ]
    for encoder in report.encoders:
        parts = [p for p in (encoder.label, encoder.provenance, encoder.precision, encoder.engine) if p]
        parts += [f"{encoder.dim} dimensions"] if encoder.dim else []
        facts.append((f"Encoder {name_of(encoder)}", " · ".join(parts) or None))
    known = [(label, value) for label, value in facts if value is not None]
    if not (known or report.notes or report.command or report.data or report.artefacts):
        return Markup()
    rows = [[words(a.label), Cell(tag("code", a.path or DASH))] for a in report.artefacts]
    return html.provenance(
        report.notes,
        report.command,
        known,
        len(report.data),
        hashes(report),
        table("Written by this run", ["What", "Where"], rows),
    )


def hashes(report: Report) -> Markup:
    """Return the files that were read, by their SHA-256."""
    rows = [
        [Cell(tag("code", name), name), Cell(tag("code", value, class_="hash"))] for name, value in report.data.items()
    ]
    return table("The data that were read", ["File", "SHA-256"], rows, tall=len(rows) > 14)
