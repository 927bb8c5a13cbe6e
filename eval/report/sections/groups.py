"""The report on what stands beside accuracy: groups of languages, equal pools, the conventions of benchmarks."""

from collections.abc import Iterator, Mapping, Sequence

from xt.eval.report.charts import basic
from xt.eval.report.charts.basic import Dot, Row, Scale
from xt.eval.report.page import fixed, is_number, percent, text
from xt.eval.report.reading import Metrics, direction_label, encoders, get, language_name

GROUP_NAMES = {"family": "Family", "script": "Script", "joshi": "Joshi class", "resource": "Resource class"}


def groups(metrics: Metrics, way: str) -> str:
    """Mean accuracy by family, script and Joshi class, of every encoder in one direction."""
    found = encoders(metrics)
    kinds = list(dict.fromkeys(k for e, _ in found for k in get(e, "retrieval", way, "groups") or {}))
    panels = ""
    for kind in kinds:
        tables = [get(e, "retrieval", way, "groups", kind) or {} for e, _ in found]
        names = list(dict.fromkeys(n for t in tables for n in t))
        lines = []
        for name in names:
            marks = [
                Dot(s, value)
                for t, (_, s) in zip(tables, found, strict=True)
                if is_number(value := figure_of(t, name, "accuracy", "mean"))
            ]
            count = next((n for t in tables if is_number(n := figure_of(t, name, "n_languages", "n"))), None)
            if marks:
                label, aside = str(name), f"{count:g}" if count is not None else ""
                said = f"{name}: {percent(marks[-1].value)}" + (f" over {count:g} languages" if count else "")
                lines.append((marks[-1].value, Row(label, aside, percent(marks[-1].value), said, marks)))
        if lines:
            order = sorted(lines, key=lambda pair: -pair[0])
            if kind == "joshi":
                order = sorted(lines, key=lambda pair: pair[1].label)
            scale = Scale(min(0.9, int(10 * min(d.value for _, r in lines for d in r.dots)) / 10), 1.0)
            chart = basic.dot_chart([line for _, line in order], scale, basic.ticks(scale.low, 1.0, 4), "percent")
            panels += f"<figure><figcaption>{text(GROUP_NAMES.get(kind, kind))}</figcaption>{chart}</figure>\n"
    note = '<p class="note">Means over languages; the small figure is how many.</p>\n'
    if not panels:
        return ""
    return f'<h3>By group, {text(direction_label(way))}</h3>\n{note}<div class="groups">\n{panels}</div>\n'


def figure_of(table: Metrics, name: str, *keys: str) -> float | None:
    """The first of some figures that a group has."""
    return next((v for k in keys if is_number(v := get(table, name, k))), None)


def beside(encoder: Metrics, way: str) -> Iterator[tuple[str, Metrics]]:
    """Further means of one direction, by resource class: in pools of one size, MTEB's F1, by text."""
    data = get(encoder, "retrieval", way) or {}
    pool, means, f1 = data.get("pool"), data.get("pool_mean"), data.get("f1")
    if is_number(pool) and isinstance(means, Mapping):
        yield f"in equal pools of {fixed(pool, 0)}", means
    if isinstance(f1, Mapping):
        yield "F1, as MTEB reports it", f1
    if isinstance(data.get("by_text"), Mapping):
        yield "by text: an answer equal to the right one is right", data["by_text"]


def conventions(metrics: Metrics, ways: Sequence[str]) -> str:
    """Whose convention each direction is, and which languages are too small for the equal pools."""
    told: dict[str, None] = {}
    for encoder, _ in encoders(metrics):
        for way in ways:
            data = get(encoder, "retrieval", way) or {}
            if isinstance(data.get("convention"), str):
                told[f"{direction_label(way)}: {data['convention']}."] = None
            lacking = [language_name(metrics, str(c)) for c in data.get("pool_missing") or []]
            if lacking:
                told[f"Too few candidates for the equal pools: {', '.join(lacking)}."] = None
    return "".join(f'<p class="note">{text(t)}</p>\n' for t in told)
