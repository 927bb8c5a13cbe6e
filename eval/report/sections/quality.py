"""The report on quality: retrieval and calibration."""

from collections.abc import Iterator, Sequence
from statistics import median

from xt.core.results.report import Bin, Encoder, Measures, Method, Report, RetrievalRow
from xt.eval.report import page
from xt.eval.report.charts import basic
from xt.eval.report.charts.basic import Dot, Row, Scale, Series
from xt.eval.report.page import Cell, figure, fixed, percent, points, quantity, text, words
from xt.eval.report.reading import (
    CLASSES,
    before_after,
    by_name,
    calibrated,
    calibrated_codes,
    difference,
    direction_label,
    encoders,
    language_name,
    language_of,
    mean_of,
    methods_of,
    name_of,
    resource,
    retrieval_of,
    retrieved,
    retrieved_codes,
    who,
)
from xt.eval.report.sections.groups import beside, conventions, groups


def encoder_legend(report: Report, *more: tuple[str, str]) -> str:
    """What the marks of the encoders mean."""
    entries = []
    for encoder, series in encoders(report):
        label = encoder.label
        named = f"{name_of(encoder)} ({label})" if label and label != name_of(encoder) else name_of(encoder)
        entries.append((basic.key(series), named))
    return basic.legend([*entries, *more])


def retrieval(report: Report) -> str:
    """Means by resource class, a row for each language, the full table."""
    ways = retrieved(report)
    rows = [r for e in report.encoders for d in ways for r in retrieval_of(e, d).languages.values()]
    candidates = [r.candidates for r in rows if r.candidates is not None]
    among = f" among {quantity(int(median(candidates)))} candidates" if candidates else ""
    how = (
        f"Each sentence looks for its translation{among} by cosine similarity; accuracy is the share that finds it "
        "first. <b>foreign → English</b> is what searching an English collection in another language does; "
        "<b>English → foreign</b> is the direction XTREME scores. Means give every language the same weight."
    )
    description = report.task.description
    about = f'<p class="note">{text(description)}</p>\n' if description and ways else ""
    if not ways:
        return ""
    charts_by_way = [language_chart(report, d) for d in ways]
    others = "".join(
        page.details(f"The same, {direction_label(d)}", c) for d, c in list(zip(ways, charts_by_way, strict=True))[1:]
    )
    heading = f"<h3>By language, {text(direction_label(ways[0]))}</h3>\n" if charts_by_way[0] else ""
    return page.section(
        "retrieval", "Retrieval", how,
        about, conventions(report, ways), encoder_legend(report), means(report, ways),
        heading, charts_by_way[0], others,
        groups(report, ways[0]), page.details("Both directions, and MRR, as a table", language_table(report, ways)),
    )  # fmt: skip


def means(report: Report, ways: Sequence[str]) -> str:
    """Mean accuracy by resource class, for every encoder and direction."""
    found = encoders(report)
    known = retrieved_codes(report, ways[0])
    counts = {g: sum(resource(report, c) == g for c in known) for g in CLASSES} | {"all": len(known)}
    shown = [g for g in CLASSES if any(mean_of(report, e, w, g) is not None for e, _ in found for w in ways)]
    rows: list[Sequence[Cell] | str] = []
    for way in ways:
        values = [[mean_of(report, e, way, g) for g in shown] for e, _ in found]
        rows.append(text(direction_label(way)))
        for (e, s), line in zip(found, values, strict=True):
            rows.append([Cell(who(e, s)), *(figure(v, percent(v)) for v in line)])
            for label, more in beside(e, way):
                rows.append(
                    [Cell(f"<small>{text(label)}</small>"), *(figure(more.get(g), percent(more.get(g))) for g in shown)]
                )
        if len(found) > 1:
            gains = [difference(after, before) for before, after in zip(values[0], values[-1], strict=True)]
            rows.append([words("difference, points"), *(figure(v, points(v)) for v in gains)])
    head = ["Encoder", *(f"{CLASSES[g]}{f' ({counts[g]})' if counts[g] else ''}" for g in shown)]
    return page.table("Mean accuracy over the languages of each resource class (how many)", head, rows)


def language_chart(report: Report, way: str) -> str:
    """A row for each language, best first, encoders joined by a line, intervals shaded."""
    found = encoders(report)
    rows: list[tuple[float, Row]] = []
    lowest = 1.0
    for code in retrieved_codes(report, way):
        name, marks, said = language_name(report, code), [], []
        for encoder, series in found:
            data = retrieval_of(encoder, way).languages.get(code) or RetrievalRow()
            value, bounds = data.accuracy, data.accuracy_ci
            if value is not None:
                marks.append(Dot(series, value, bounds))
                shown = page.interval(bounds, 1, 100)
                said.append(f"{name_of(encoder)} {percent(value)}{f' {shown}' if shown else ''}")
                lowest = min([lowest, value, *(bounds or ())])
        if marks:
            last = marks[-1].value
            gain = f" <i>{points(last - marks[0].value)}</i>" if len(marks) > 1 else ""
            row = Row(name, resource(report, code), f"{percent(last)}{gain}", f"{name}: {'; '.join(said)}", marks)
            rows.append((last, row))
    scale = Scale(min(int(lowest * 10) / 10, 0.9), 1.0)
    ordered = [row for _, row in sorted(rows, key=lambda pair: -pair[0])]
    note = "Best first."
    if any(dot.bounds for row in ordered for dot in row.dots):
        note += " Shaded bars are 95% confidence intervals."
    if any(len(row.dots) > 1 for row in ordered):
        note += " The small figure is the difference in points."
    chart = basic.dot_chart(ordered, scale, basic.ticks(scale.low, 1.0, 5), "percent", two=len(ordered) > 12)
    return f'<p class="note">{note}</p>\n{chart}' if chart else ""


def language_table(report: Report, ways: Sequence[str]) -> str:
    """Everything measured for each language, sortable."""
    found = encoders(report)
    head = ["Language", "Class", "Script", "Family", "n"]
    spans = [("", len(head))]
    for way in ways:
        for encoder, series in found:
            head += ["accuracy", "MRR"]
            spans.append((f"{who(encoder, series)}, {text(direction_label(way))}", 2))
    rows = []
    for code in by_name(report, (c for w in ways for c in retrieved_codes(report, w))):
        about = language_of(report, code)
        name = language_name(report, code)
        first = Cell(f'{text(name)} <small class="code">{text(code)}</small>', name)
        measured = [retrieval_of(e, w).languages.get(code) or RetrievalRow() for w in ways for e, _ in found]
        size = next((data.n for data in measured if data.n is not None), None)
        row = [first, *map(words, (about.resource, about.script, about.family)), figure(size, fixed(size, 0))]
        for data in measured:
            row.append(figure(data.accuracy, percent(data.accuracy), page.interval(data.accuracy_ci, 1, 100)))
            row.append(figure(data.mrr, fixed(data.mrr)))
        rows.append(row)
    caption = "All languages. Accuracy with its interval, in percent; MRR: mean of 1 / rank. Select a heading to sort."
    return page.table(caption, head, rows, spans=spans, sort=True, tall=len(rows) > 14)


# -- calibration -------------------------------------------------------------------------------------------------------


def calibration(report: Report) -> str:
    """Reliability diagrams, the table of errors, and both per language; further directions folded."""
    ways = calibrated(report)
    if not ways:
        return ""
    bins = next((len(m.reliability) for *_, m in every_method(report, ways[0]) if m.reliability), 0)
    over = f", over {bins} bins of equally many queries" if bins else ""
    how = (
        "A result comes with the probability that it is right. Calibrated means: of the answers given at 80%, about "
        f"80% are right. <b>ECE</b> is the mean gap between the two{over}: 0 is perfect, 0.05 is five points off. "
        "Chance alone keeps it above zero, so read it beside the value a <b>perfectly calibrated</b> model would show "
        "on as many queries. NLL and Brier score (lower is better) also fall when right and wrong answers are told "
        "apart better; AUROC measures only that. A temperature changes none of the answers."
    )
    first, *others = [one_direction(report, way) for way in ways]
    folded = "".join(
        page.details(f"The same, {direction_label(w)}", part) for w, part in zip(ways[1:], others, strict=True)
    )
    return page.section("calibration", "Calibration", how, first, folded)


def every_method(report: Report, way: str) -> Iterator[tuple[Encoder, Series, str, Method]]:
    """Encoder, look, method name and method, for all that were measured in a direction."""
    for encoder, series in encoders(report):
        for name, method in methods_of(encoder, way).items():
            yield encoder, series, name, method


def one_direction(report: Report, way: str) -> str:
    """All calibration figures of one direction."""
    parts = [f"<h3>How far to trust a probability, {text(direction_label(way))}</h3>\n"]
    for encoder, series in encoders(report):
        panels, bins = [], []
        for method in methods_of(encoder, way).values():
            ece, label = method.overall.ece, method.label or ""
            shape = basic.reliability(method.reliability, series, f"{name_of(encoder)}, {label}: ECE {fixed(ece)}")
            count = sum(b.count or 0 for b in method.reliability)
            if shape:
                caption = f"{text(label)}<br><b>ECE {fixed(ece)}</b> <span>· {fixed(count, 0)} queries</span>"
                panels.append(f"<figure><figcaption>{caption}</figcaption>{shape}</figure>\n")
            bins += [[words(label), *bin_cells(b)] for b in method.reliability]
        if panels:
            parts.append(
                f'<h4 class="who">{who(encoder, series)}</h4>\n<div class="panels strip">\n{"".join(panels)}</div>\n'
            )
            head = ["Method", "from", "to", "stated", "right", "queries"]
            table = page.table(f"Reliability bins of {name_of(encoder)}", head, bins, tall=True)
            parts.append(page.details(f"The bins of {name_of(encoder)} as a table", table, printed=False))
    if len(parts) > 1:
        note = (
            "Each mark is a bin, the shading its distance from the diagonal; strokes below are the edges of the bins."
        )
        parts.insert(1, f'<p class="note">{note}</p>\n')
    return "".join([*parts, *error_tables(report, way), ece_chart(report, way), ece_table(report, way)])


def bin_cells(data: Bin) -> list[Cell]:
    """The cells of one reliability bin."""
    shares = [figure(x, fixed(x)) for x in (data.low, data.high, data.confidence, data.accuracy)]
    return [*shares, figure(data.count, fixed(data.count, 0))]


def error_tables(report: Report, way: str) -> Iterator[str]:
    """For each encoder: the errors of every method over all languages; folded, the same by resource class."""
    for encoder, _ in encoders(report):
        rows: list[Sequence[Cell] | str] = []
        wholes = []
        for name, method in methods_of(encoder, way).items():
            label = method.label or name
            blocks = {"all": method.overall, **method.by_resource}
            rows.append(text(label))
            worst = {g: worst_excess(report, method, g) for g in CLASSES}
            rows += [error_row(CLASSES[g], blocks[g], worst[g]) for g in CLASSES if blocks.get(g) not in NOTHING]
            wholes += [error_row(label, blocks["all"], worst["all"])] if blocks["all"] not in NOTHING else []
        found = encoder.calibration.get(way)
        fitted = found.fit_languages if found else []
        names = ", ".join(language_name(report, c) for c in fitted)
        said = f". Zero-shot temperature fitted on {names}." if names else ""
        caption = f"Calibration of {name_of(encoder)}, {direction_label(way)}, means over languages{said}"
        yield page.table(caption, ["Method", *ERRORS], wholes)
        caption = f"Calibration of {name_of(encoder)}, {direction_label(way)}, by resource class"
        yield page.details(f"{caption}", page.table(caption, ["Resource class", *ERRORS], rows))


NOTHING = (None, Measures())
ERRORS = ("ECE", "perfect", "excess", "farthest", "NLL", "Brier", "AUROC", "mean stated", "right")


def worst_excess(report: Report, method: Method, group: str) -> tuple[float, str] | None:
    """The greatest excess of a language of a resource class, and whose it is."""
    gaps = [
        (gap, language_name(report, c))
        for c, r in method.languages.items()
        if (gap := r.excess) is not None and group in ("all", resource(report, c))
    ]
    return max(gaps, default=None)


def error_row(label: str, m: Measures, worst: tuple[float, str] | None) -> list[Cell]:
    """One line of the table of errors: excess is ECE less what perfect calibration would show."""
    gap = m.excess
    return [
        words(label),
        figure(m.ece, fixed(m.ece), page.interval(m.ece_ci)),
        figure(m.ece_null, fixed(m.ece_null)),
        figure(gap, fixed(gap)),
        figure(worst and worst[0], fixed(worst and worst[0]), worst[1] if worst else ""),
        *(figure(value, fixed(value)) for value in (m.nll, m.brier, m.auroc)),
        *(figure(value, percent(value)) for value in (m.mean_confidence, m.accuracy)),
    ]


def ece_chart(report: Report, way: str) -> str:
    """ECE of each language before and after, for the last encoder, on a square-root axis."""
    found = encoders(report)
    methods = methods_of(found[-1][0], way)
    before, after = before_after(methods)
    shown = [n for n in dict.fromkeys((before, "training", after)) if n in methods]
    colour = found[-1][1].colour  # one encoder, one colour: the moments differ in shape
    shapes = [*["ring", "square"][: len(shown) - 1], "disc"] if shown else []
    looks = {name: Series(colour, shape) for name, shape in zip(shown, shapes, strict=True)}
    rows: list[tuple[float, Row]] = []
    for code in calibrated_codes(report, way):
        measured = {n: methods[n].languages.get(code) or Measures() for n in shown}
        marks = [Dot(looks[n], row.ece) for n, row in measured.items() if row.ece is not None]
        if marks:
            name, null = language_name(report, code), measured[shown[-1]].ece_null
            said = "; ".join(f"{methods[n].label or n} {fixed(row.ece)}" for n, row in measured.items())
            rows.append(
                (
                    marks[-1].value,
                    Row(name, resource(report, code), fixed(marks[-1].value), f"{name}: {said}", marks, null),
                )
            )
    if not rows:
        return ""
    at = (0, 0.05, 0.25, 0.5, 1)
    ordered = [row for _, row in sorted(rows, key=lambda pair: pair[0])]
    entries = [(basic.key(s), methods[n].label or n) for n, s in looks.items()]
    entries += (
        [(basic.null_key(), "what perfect calibration would show")]
        if any(r.reference is not None for r in ordered)
        else []
    )
    return (
        f"<h3>ECE by language, {text(name_of(found[-1][0]))}</h3>\n"
        '<p class="note">Smallest error first; the axis is stretched towards zero. A mark at the tick, or left '
        "of it, is as good as it gets.</p>\n"
        + basic.legend(entries)
        + basic.dot_chart(ordered, Scale(0, 1, root=True), at, "decimal", two=len(ordered) > 12)
    )


def ece_table(report: Report, way: str) -> str:
    """ECE of every language under every method, folded and sortable."""
    columns = list(every_method(report, way))
    temperatures = {id(m): {r.temperature for r in m.languages.values()} for *_, m in columns}
    varied = {key: len(values) > 1 for key, values in temperatures.items()}
    head, spans = ["Language"], [("", 1)]
    for encoder, series, name, method in columns:
        head += ["ECE", "T"] if varied[id(method)] else ["ECE"]
        spans.append((f"{who(encoder, series)}, {text(name)}", 2 if varied[id(method)] else 1))
    rows = []
    for code in calibrated_codes(report, way):
        row = [words(language_name(report, code))]
        for *_, method in columns:
            data = method.languages.get(code) or Measures()
            row.append(figure(data.ece, fixed(data.ece)))
            row += [figure(data.temperature, fixed(data.temperature, 4))] if varied[id(method)] else []
        rows.append(row)
    caption = "ECE by language and method; T is the language's own temperature. Select a heading to sort."
    table = page.table(caption, head, rows, spans=spans, sort=True, tall=True)
    return page.details("All languages and methods as a table", table, printed=False)
