"""The report on quality: retrieval and calibration."""

from collections.abc import Iterator, Sequence
from statistics import median

from xt.eval.report import page
from xt.eval.report.charts import basic
from xt.eval.report.charts.basic import Dot, Row, Scale, Series
from xt.eval.report.page import Cell, figure, fixed, is_number, percent, points, quantity, text, words
from xt.eval.report.reading import (
    CLASSES,
    Metrics,
    before_after,
    codes,
    difference,
    direction_label,
    directions,
    encoders,
    excess,
    get,
    language_name,
    mean_of,
    name_of,
    resource,
    who,
)
from xt.eval.report.sections.groups import beside, conventions, groups


def encoder_legend(metrics: Metrics, *more: tuple[str, str]) -> str:
    """What the marks of the encoders mean."""
    entries = []
    for encoder, series in encoders(metrics):
        label = encoder.get("label")
        named = f"{name_of(encoder)} ({label})" if label and label != name_of(encoder) else name_of(encoder)
        entries.append((basic.key(series), named))
    return basic.legend([*entries, *more])


def retrieval(metrics: Metrics) -> str:
    """Means by resource class, a row for each language, the full table."""
    ways = directions(metrics, "retrieval")
    candidates = [
        r.get("candidates")
        for e, _ in encoders(metrics)
        for d in ways
        for r in (get(e, "retrieval", d, "languages") or {}).values()
        if is_number(r.get("candidates"))
    ]
    among = f" among {quantity(int(median(candidates)))} candidates" if candidates else ""
    how = (
        f"Each sentence looks for its translation{among} by cosine similarity; accuracy is the share that finds it "
        "first. <b>foreign → English</b> is what searching an English collection in another language does; "
        "<b>English → foreign</b> is the direction XTREME scores. Means give every language the same weight."
    )
    description = get(metrics, "task", "description")
    about = f'<p class="note">{text(description)}</p>\n' if description and ways else ""
    if not ways:
        return ""
    charts_by_way = [language_chart(metrics, d) for d in ways]
    others = "".join(
        page.details(f"The same, {direction_label(d)}", c) for d, c in list(zip(ways, charts_by_way, strict=True))[1:]
    )
    heading = f"<h3>By language, {text(direction_label(ways[0]))}</h3>\n" if charts_by_way[0] else ""
    return page.section(
        "retrieval", "Retrieval", how,
        about, conventions(metrics, ways), encoder_legend(metrics), means(metrics, ways),
        heading, charts_by_way[0], others,
        groups(metrics, ways[0]), page.details("Both directions, and MRR, as a table", language_table(metrics, ways)),
    )  # fmt: skip


def means(metrics: Metrics, ways: Sequence[str]) -> str:
    """Mean accuracy by resource class, for every encoder and direction."""
    found = encoders(metrics)
    known = codes(metrics, "retrieval", ways[0])
    counts = {g: sum(resource(metrics, c) == g for c in known) for g in CLASSES} | {"all": len(known)}
    shown = [g for g in CLASSES if any(mean_of(metrics, e, w, g) is not None for e, _ in found for w in ways)]
    rows: list[Sequence[Cell] | str] = []
    for way in ways:
        values = [[mean_of(metrics, e, way, g) for g in shown] for e, _ in found]
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


def language_chart(metrics: Metrics, way: str) -> str:
    """A row for each language, best first, encoders joined by a line, intervals shaded."""
    found = encoders(metrics)
    rows: list[tuple[float, Row]] = []
    lowest = 1.0
    for code in codes(metrics, "retrieval", way):
        name, marks, said = language_name(metrics, code), [], []
        for encoder, series in found:
            data = get(encoder, "retrieval", way, "languages", code) or {}
            value, bounds = data.get("accuracy"), data.get("accuracy_ci")
            if is_number(value):
                marks.append(Dot(series, value, bounds))
                shown = page.interval(bounds, 1, 100)
                said.append(f"{name_of(encoder)} {percent(value)}{f' {shown}' if shown else ''}")
                lowest = min([lowest, value, *(b for b in bounds or [] if is_number(b))])
        if marks:
            last = marks[-1].value
            gain = f" <i>{points(last - marks[0].value)}</i>" if len(marks) > 1 else ""
            row = Row(name, resource(metrics, code), f"{percent(last)}{gain}", f"{name}: {'; '.join(said)}", marks)
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


def language_table(metrics: Metrics, ways: Sequence[str]) -> str:
    """Everything measured for each language, sortable."""
    found = encoders(metrics)
    head = ["Language", "Class", "Script", "Family", "n"]
    spans = [("", len(head))]
    for way in ways:
        for encoder, series in found:
            head += ["accuracy", "MRR"]
            spans.append((f"{who(encoder, series)}, {text(direction_label(way))}", 2))
    rows = []
    every = sorted(
        {c for w in ways for c in codes(metrics, "retrieval", w)}, key=lambda c: language_name(metrics, c).casefold()
    )
    for code in every:
        about = get(metrics, "languages", code) or {}
        name = language_name(metrics, code)
        first = Cell(f'{text(name)} <small class="code">{text(code)}</small>', name)
        sizes = [get(e, "retrieval", w, "languages", code, "n") for w in ways for e, _ in found]
        size = next((n for n in sizes if is_number(n)), None)
        row = [first, *(words(about.get(k)) for k in ("resource", "script", "family")), figure(size, fixed(size, 0))]
        for way in ways:
            for encoder, _ in found:
                data = get(encoder, "retrieval", way, "languages", code) or {}
                aside = page.interval(data.get("accuracy_ci"), 1, 100)
                row.append(figure(data.get("accuracy"), percent(data.get("accuracy")), aside))
                row.append(figure(data.get("mrr"), fixed(data.get("mrr"))))
        rows.append(row)
    caption = "All languages. Accuracy with its interval, in percent; MRR: mean of 1 / rank. Select a heading to sort."
    return page.table(caption, head, rows, spans=spans, sort=True, tall=len(rows) > 14)


# -- calibration -------------------------------------------------------------------------------------------------------


def calibration(metrics: Metrics) -> str:
    """Reliability diagrams, the table of errors, and both per language; further directions folded."""
    ways = directions(metrics, "calibration")
    if not ways:
        return ""
    bins = next((len(m["reliability"]) for *_, m in methods_of(metrics, ways[0]) if m.get("reliability")), 0)
    over = f", over {bins} bins of equally many queries" if bins else ""
    how = (
        "A result comes with the probability that it is right. Calibrated means: of the answers given at 80%, about "
        f"80% are right. <b>ECE</b> is the mean gap between the two{over}: 0 is perfect, 0.05 is five points off. "
        "Chance alone keeps it above zero, so read it beside the value a <b>perfectly calibrated</b> model would show "
        "on as many queries. NLL and Brier score (lower is better) also fall when right and wrong answers are told "
        "apart better; AUROC measures only that. A temperature changes none of the answers."
    )
    first, *others = [one_direction(metrics, way) for way in ways]
    folded = "".join(
        page.details(f"The same, {direction_label(w)}", part) for w, part in zip(ways[1:], others, strict=True)
    )
    return page.section("calibration", "Calibration", how, first, folded)


def methods_of(metrics: Metrics, way: str) -> Iterator[tuple[Metrics, Series, str, Metrics]]:
    """Encoder, look, method name and method, for all that were measured in a direction."""
    for encoder, series in encoders(metrics):
        for name, method in (get(encoder, "calibration", way, "methods") or {}).items():
            yield encoder, series, name, method or {}


def one_direction(metrics: Metrics, way: str) -> str:
    """All calibration figures of one direction."""
    parts = [f"<h3>How far to trust a probability, {text(direction_label(way))}</h3>\n"]
    for encoder, series in encoders(metrics):
        panels, bins = [], []
        for _, _, _, method in (m for m in methods_of(metrics, way) if m[0] is encoder):
            ece, label = get(method, "overall", "ece"), str(method.get("label") or "")
            shape = basic.reliability(
                method.get("reliability") or [], series, f"{name_of(encoder)}, {label}: ECE {fixed(ece)}"
            )
            count = sum(b.get("count") or 0 for b in method.get("reliability") or [])
            if shape:
                caption = f"{text(label)}<br><b>ECE {fixed(ece)}</b> <span>· {fixed(count, 0)} queries</span>"
                panels.append(f"<figure><figcaption>{caption}</figcaption>{shape}</figure>\n")
            bins += [[words(label), *bin_cells(b)] for b in method.get("reliability") or []]
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
    return "".join([*parts, *error_tables(metrics, way), ece_chart(metrics, way), ece_table(metrics, way)])


def bin_cells(data: Metrics) -> list[Cell]:
    """The cells of one reliability bin."""
    shares = [figure(data.get(k), fixed(data.get(k))) for k in ("low", "high", "confidence", "accuracy")]
    return [*shares, figure(data.get("count"), fixed(data.get("count"), 0))]


def error_tables(metrics: Metrics, way: str) -> Iterator[str]:
    """For each encoder: the errors of every method over all languages; folded, the same by resource class."""
    for encoder, _ in encoders(metrics):
        rows: list[Sequence[Cell] | str] = []
        wholes = []
        for _, _, name, method in (m for m in methods_of(metrics, way) if m[0] is encoder):
            label = method.get("label") or name
            blocks = {"all": method.get("overall"), **(method.get("by_resource") or {})}
            rows.append(text(label))
            worst = {g: worst_excess(metrics, method, g) for g in CLASSES}
            rows += [error_row(CLASSES[g], blocks[g], worst[g]) for g in CLASSES if blocks.get(g)]
            wholes += [error_row(label, blocks["all"], worst["all"])] if blocks["all"] else []
        fitted = get(encoder, "calibration", way, "fit_languages") or []
        names = ", ".join(language_name(metrics, c) for c in fitted)
        said = f". Zero-shot temperature fitted on {names}." if names else ""
        caption = f"Calibration of {name_of(encoder)}, {direction_label(way)}, means over languages{said}"
        yield page.table(caption, ["Method", *ERRORS], wholes)
        caption = f"Calibration of {name_of(encoder)}, {direction_label(way)}, by resource class"
        yield page.details(f"{caption}", page.table(caption, ["Resource class", *ERRORS], rows))


ERRORS = ("ECE", "perfect", "excess", "farthest", "NLL", "Brier", "AUROC", "mean stated", "right")


def worst_excess(metrics: Metrics, method: Metrics, group: str) -> tuple[float, str] | None:
    """The greatest excess of a language of a resource class, and whose it is."""
    rows = (method.get("languages") or {}).items()
    gaps = [
        (gap, language_name(metrics, c))
        for c, r in rows
        if (gap := excess(r)) is not None and group in ("all", resource(metrics, c))
    ]
    return max(gaps, default=None)


def error_row(label: str, m: Metrics, worst: tuple[float, str] | None) -> list[Cell]:
    """One line of the table of errors: excess is ECE less what perfect calibration would show."""
    gap = excess(m)
    return [
        words(label),
        figure(m.get("ece"), fixed(m.get("ece")), page.interval(m.get("ece_ci"))),
        figure(m.get("ece_null"), fixed(m.get("ece_null"))),
        figure(gap, fixed(gap)),
        figure(worst and worst[0], fixed(worst and worst[0]), worst[1] if worst else ""),
        *(figure(m.get(k), fixed(m.get(k))) for k in ("nll", "brier", "auroc")),
        *(figure(m.get(k), percent(m.get(k))) for k in ("mean_confidence", "accuracy")),
    ]


def ece_chart(metrics: Metrics, way: str) -> str:
    """ECE of each language before and after, for the last encoder, on a square-root axis."""
    found = encoders(metrics)
    methods = get(found[-1][0], "calibration", way, "methods") or {}
    before, after = before_after(methods)
    shown = [n for n in dict.fromkeys((before, "training", after)) if n in methods]
    colour = found[-1][1].colour  # one encoder, one colour: the moments differ in shape
    shapes = [*["ring", "square"][: len(shown) - 1], "disc"] if shown else []
    looks = {name: Series(colour, shape) for name, shape in zip(shown, shapes, strict=True)}
    rows: list[tuple[float, Row]] = []
    for code in codes(metrics, "calibration", way):
        data = {n: get(methods, n, "languages", code, "ece") for n in shown}
        marks = [Dot(looks[n], v) for n, v in data.items() if is_number(v)]
        if marks:
            name, null = language_name(metrics, code), get(methods, shown[-1], "languages", code, "ece_null")
            said = "; ".join(f"{get(methods, n, 'label') or n} {fixed(v)}" for n, v in data.items())
            rows.append(
                (
                    marks[-1].value,
                    Row(name, resource(metrics, code), fixed(marks[-1].value), f"{name}: {said}", marks, null),
                )
            )
    if not rows:
        return ""
    at = (0, 0.05, 0.25, 0.5, 1)
    ordered = [row for _, row in sorted(rows, key=lambda pair: pair[0])]
    entries = [(basic.key(s), str(get(methods, n, "label") or n)) for n, s in looks.items()]
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


def ece_table(metrics: Metrics, way: str) -> str:
    """ECE of every language under every method, folded and sortable."""
    columns = list(methods_of(metrics, way))
    fitted = {
        id(m): any(is_number(get(r, "temperature")) for r in (m.get("languages") or {}).values()) for *_, m in columns
    }
    varied = {
        id(m): fitted[id(m)] and len({get(r, "temperature") for r in (m.get("languages") or {}).values()}) > 1
        for *_, m in columns
    }
    head, spans = ["Language"], [("", 1)]
    for encoder, series, name, method in columns:
        head += ["ECE", "T"] if varied[id(method)] else ["ECE"]
        spans.append((f"{who(encoder, series)}, {text(name)}", 2 if varied[id(method)] else 1))
    rows = []
    for code in codes(metrics, "calibration", way):
        row = [words(language_name(metrics, code))]
        for *_, method in columns:
            data = get(method, "languages", code) or {}
            row.append(figure(data.get("ece"), fixed(data.get("ece"))))
            row += [figure(data.get("temperature"), fixed(data.get("temperature"), 4))] if varied[id(method)] else []
        rows.append(row)
    caption = "ECE by language and method; T is the language's own temperature. Select a heading to sort."
    table = page.table(caption, head, rows, spans=spans, sort=True, tall=True)
    return page.details("All languages and methods as a table", table, printed=False)
