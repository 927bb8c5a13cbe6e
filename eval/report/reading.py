"""Reading a run's metrics for the report: what is there, under which name, and what stands for before and after.

The last encoder is the subject of the report, the first is what it is compared with; the first direction is the one in
the headlines.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from xt.eval.report.charts import basic
from xt.eval.report.charts.basic import Series
from xt.eval.report.page import is_number, text

Metrics = Mapping[str, Any]

DIRECTIONS = {"english-foreign": "English → foreign", "foreign-english": "foreign → English"}
CLASSES = {"all": "All", "high": "High", "mid": "Mid", "low": "Low"}
BEFORE, AFTER = "cosine", ("predicted", "platt", "zero-shot")
"""The methods shown as before and after calibration: of the latter the first that is there, none needing labels in the
language itself; where none is, the last method. Without a predicted temperature documents were ranked: several may be
right, and Platt's map is theirs."""


def get(data: Any, *path: Any) -> Any:
    """Follow keys into nested dicts; None as soon as one is missing.

    >>> get({"a": {"b": 1}}, "a", "b"), get({"a": None}, "a", "b")
    (1, None)
    """
    for name in path:
        data = data.get(name) if isinstance(data, Mapping) else None
    return data


def known(data: Any) -> Any:
    """The same data without None in its dicts and lists.

    >>> known({"a": None, "b": [1, None, {"c": None}]})
    {'b': [1, {}]}
    """
    if isinstance(data, Mapping):
        return {key: known(value) for key, value in data.items() if value is not None}
    if isinstance(data, list | tuple):
        return [known(value) for value in data if value is not None]
    return data


def difference(after: Any, before: Any) -> float | None:
    """After - before, or None where either is not a number."""
    return after - before if is_number(after) and is_number(before) else None


def encoders(metrics: Metrics) -> list[tuple[Metrics, Series]]:
    """Each encoder with its look."""
    found = list(metrics.get("encoders") or [])
    return list(zip(found, basic.series_for(len(found)), strict=True))


def name_of(encoder: Metrics) -> str:
    """The encoder's short name."""
    return str(encoder.get("name") or encoder.get("label") or "encoder")


def directions(metrics: Metrics, part: str) -> list[str]:
    """The directions any encoder has in `part` (retrieval or calibration), in their order of appearance."""
    return list(dict.fromkeys(d for e, _ in encoders(metrics) for d in e.get(part) or {}))


def direction_label(direction: str) -> str:
    """The direction in words."""
    return DIRECTIONS.get(direction, direction.replace("-", " → "))


def language_name(metrics: Metrics, code: str) -> str:
    """The language's English name, or its code."""
    return str(get(metrics, "languages", code, "name") or code)


def resource(metrics: Metrics, code: str) -> str:
    """The language's resource class, or an empty string."""
    return str(get(metrics, "languages", code, "resource") or "")


def codes(metrics: Metrics, part: str, direction: str) -> list[str]:
    """The languages measured in one direction, by name."""
    found: dict[str, None] = {}
    for encoder, _ in encoders(metrics):
        block = get(encoder, part, direction)
        tables = [block] if part == "retrieval" else list((get(block, "methods") or {}).values())
        for each in tables:
            found.update(dict.fromkeys(get(each, "languages") or {}))
    return sorted(found, key=lambda c: language_name(metrics, c).casefold())


def before_after(methods: Metrics) -> tuple[str | None, str | None]:
    """Which method counts as before calibration and which as after.

    >>> before_after({"cosine": {}, "training": {}, "zero-shot": {}, "per-language": {}})
    ('cosine', 'zero-shot')
    >>> before_after({"cosine": {}})
    ('cosine', None)
    """
    names = list(methods)
    before = BEFORE if BEFORE in methods else next(iter(names), None)
    after = next((n for n in AFTER if n in methods), None) or next((n for n in reversed(names) if n != before), None)
    return before, after


def mean_of(metrics: Metrics, encoder: Metrics, direction: str, group: str) -> float | None:
    """Mean accuracy over the languages of a resource class, as given, else computed."""
    given = get(encoder, "retrieval", direction, "mean", group)
    if is_number(given):
        return float(given)
    rows = get(encoder, "retrieval", direction, "languages") or {}
    wanted = [r.get("accuracy") for c, r in rows.items() if group == "all" or resource(metrics, c) == group]
    numbers = [v for v in wanted if is_number(v)]
    return fmean(numbers) if numbers else None


def is_triton(row: Metrics) -> bool:
    """Whether a serving row was measured on Triton."""
    return "triton" in str(row.get("engine")).lower()


def cached(row: Metrics) -> str:
    """Say that a serving row is not the encoder's speed, since the server's vector cache answered; else empty.

    >>> cached({"cache_hits": 25, "counters": {"xt_texts_total": 100}})
    '25% from the cache'
    >>> cached({"cache_hits": 0}), cached({})
    ('', '')
    """
    hits, share = row.get("cache_hits"), row.get("cached_share")
    if not is_number(hits) or not hits:
        return ""
    texts = get(row, "counters", "xt_texts_total")
    if not is_number(share) and is_number(texts) and texts:
        share = min(1.0, hits / texts)
    return f"{share:.0%} from the cache" if is_number(share) else f"{hits:g} from the cache"


def fastest(rows: Iterable[Metrics], *, triton: bool) -> Metrics | None:
    """The row with the most sentences a second among those of Triton, or among the others; none of cached answers."""
    kind = [r for r in rows if is_number(r.get("sentences_per_second")) and is_triton(r) == triton and not cached(r)]
    return max(kind, key=lambda r: r["sentences_per_second"], default=None)


def who(encoder: Metrics, series: Series) -> str:
    """An encoder's sign and name, HTML."""
    return f"{basic.key(series)}{text(name_of(encoder))}"


@dataclass(frozen=True)
class Block:
    """One calibrated set of answers: those of an encoder in one direction, or those of a head."""

    title: str
    """What it is, HTML."""
    plain: str
    """The same without markup."""
    series: Series
    methods: Metrics
    """The methods, as `xt.calibration.summary.summary` returns them."""
    source: Metrics
    """What the methods stand in: also `shots`."""
    retrieval: Metrics
    """The scores of retrieval by language that go with it; empty for a head."""

    @property
    def key(self) -> str | None:
        """The method that the page shows: the last of before and after."""
        before, after = before_after(self.methods)
        return after or before

    @property
    def shown(self) -> Metrics:
        """That method."""
        return get(self.methods, self.key) or {}

    @property
    def languages(self) -> Metrics:
        """Its rows, language by language; those that are no mapping are left out."""
        rows = get(self.shown, "languages") or {}
        return {code: row for code, row in rows.items() if isinstance(row, Mapping)}


def blocks(metrics: Metrics) -> list[Block]:
    """Everything that was calibrated: the last encoder first, in each direction, then the others, then heads."""
    found = []
    for encoder, series in reversed(encoders(metrics)):
        for way in directions(metrics, "calibration"):
            source = get(encoder, "calibration", way) or {}
            rows = get(encoder, "retrieval", way, "languages") or {}
            title = f"{who(encoder, series)}, {text(direction_label(way))}"
            plain = f"{name_of(encoder)}, {direction_label(way)}"
            found.append(Block(title, plain, series, source.get("methods") or {}, source, rows))
    for task, source in (metrics.get("calibration") or {}).items():
        (series,) = basic.series_for(1)
        found.append(Block(text(task), str(task), series, get(source, "methods") or {}, source or {}, {}))
    return [b for b in found if b.languages]


def excess(row: Any) -> float | None:
    """How far an ECE lies above what a perfectly calibrated model would show."""
    return difference(get(row, "ece"), get(row, "ece_null"))
