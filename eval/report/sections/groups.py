"""The report on what stands beside accuracy: groups of languages, equal pools, the conventions of benchmarks."""

from collections.abc import Iterator, Mapping, Sequence

from markupsafe import Markup

from xt.core.pages.numbers import fixed, percent
from xt.core.pages.rows import Dot, Row, chart
from xt.core.pages.svg import Scale
from xt.core.results.report import Encoder, Means, Report
from xt.eval.report.reading import direction_label, encoders, language_name, macros, retrieval_of

html = macros("quality")
GROUP_NAMES = {"family": "Family", "script": "Script", "joshi": "Joshi class", "resource": "Resource class"}


def groups(report: Report, direction: str) -> Markup:
    """Return mean accuracy by family, script and Joshi class, of every encoder in one direction."""
    found = encoders(report)
    kinds = list(dict.fromkeys(k for e, _ in found for k in retrieval_of(e, direction).groups))
    panels = []
    for kind in kinds:
        tables = [retrieval_of(e, direction).groups.get(kind, {}) for e, _ in found]
        names = list(dict.fromkeys(n for t in tables for n in t))
        lines = []
        for name in names:
            marks = [
                Dot(s, value)
                for t, (_, s) in zip(tables, found, strict=True)
                if (value := figure_of(t, name, "accuracy", "mean")) is not None
            ]
            count = next((n for t in tables if (n := figure_of(t, name, "n_languages", "n")) is not None), None)
            if marks:
                aside = f"{count:g}" if count is not None else ""
                said = f"{name}: {percent(marks[-1].value)}" + (f" over {count:g} languages" if count else "")
                lines.append((marks[-1].value, Row(name, aside, percent(marks[-1].value), said, marks)))
        if lines:
            order = sorted(lines, key=lambda pair: -pair[0])
            if kind == "joshi":
                order = sorted(lines, key=lambda pair: pair[1].label)
            scale = Scale(min(0.9, int(10 * min(d.value for _, r in lines for d in r.dots)) / 10), 1.0)
            rows = [line for _, line in order]
            panels.append((GROUP_NAMES.get(kind, kind), chart(rows, scale, 4, two=False)))
    return html.groups(direction_label(direction), panels) if panels else Markup()


def figure_of(table: Mapping[str, Mapping[str, float]], name: str, *keys: str) -> float | None:
    """The first of some figures that a group has."""
    return next((v for k in keys if (v := table.get(name, {}).get(k)) is not None), None)


def beside(encoder: Encoder, direction: str) -> Iterator[tuple[str, Means]]:
    """Further means of one direction, by resource class: in pools of one size, MTEB's F1, by text."""
    found = retrieval_of(encoder, direction)
    if found.pool is not None and found.pool_mean:
        yield f"in equal pools of {fixed(found.pool, 0)}", found.pool_mean
    if found.f1:
        yield "F1, as MTEB reports it", found.f1
    if found.by_text:
        yield "by text: an answer equal to the right one is right", found.by_text


def conventions(report: Report, directions: Sequence[str]) -> list[str]:
    """Return whose convention each direction is, and which languages are too small for the equal pools."""
    notes: dict[str, None] = {}
    for encoder in report.encoders:
        for direction in directions:
            found = retrieval_of(encoder, direction)
            if found.convention is not None:
                notes[f"{direction_label(direction)}: {found.convention}."] = None
            lacking = [language_name(report, code) for code in found.pool_missing]
            if lacking:
                notes[f"Too few candidates for the equal pools: {', '.join(lacking)}."] = None
    return list(notes)
