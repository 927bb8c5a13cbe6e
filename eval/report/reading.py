"""Reading a run's metrics for the report: what is there, under which name, and what stands for before and after.

The last encoder is the subject of the report, the first is what it is compared with; the first direction is the one in
the headlines.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from xt.core.results.report import (
    Calibration,
    Encoder,
    Language,
    Measures,
    Method,
    Report,
    Retrieval,
    RetrievalRow,
)
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
    """Return after - before, or None where either is not a number."""
    return after - before if is_number(after) and is_number(before) else None


def encoders(report: Report) -> list[tuple[Encoder, Series]]:
    """Each encoder with its look."""
    return list(zip(report.encoders, basic.series_for(len(report.encoders)), strict=True))


def name_of(encoder: Encoder) -> str:
    """The encoder's short name."""
    return encoder.name or encoder.label or "encoder"


def directions(parts: Iterable[Mapping[str, Any]]) -> list[str]:
    """The directions that any encoder has in a part of its results, in their order of appearance."""
    return list(dict.fromkeys(direction for part in parts for direction in part))


def retrieved(report: Report) -> list[str]:
    """The directions of retrieval."""
    return directions(e.retrieval for e in report.encoders)


def calibrated(report: Report) -> list[str]:
    """The directions that encoders were calibrated in."""
    return directions(e.calibration for e in report.encoders)


def retrieval_of(encoder: Encoder, direction: str) -> Retrieval:
    """Retrieval in one direction; an empty one where the encoder was not measured in it."""
    return encoder.retrieval.get(direction) or Retrieval()


def methods_of(encoder: Encoder, direction: str) -> dict[str, Method]:
    """The methods of calibration in one direction."""
    found = encoder.calibration.get(direction)
    return found.methods if found else {}


def direction_label(direction: str) -> str:
    """The direction in words."""
    return DIRECTIONS.get(direction, direction.replace("-", " → "))


def language_of(report: Report, code: str) -> Language:
    """What is known of a language; nothing of one outside the table."""
    return report.languages.get(code) or Language()


def language_name(report: Report, code: str) -> str:
    """The language's English name, or its code."""
    return language_of(report, code).name or code


def resource(report: Report, code: str) -> str:
    """The language's resource class, or an empty string."""
    return language_of(report, code).resource or ""


def by_name(report: Report, found: Iterable[str]) -> list[str]:
    """Codes of languages, each once, by their names."""
    return sorted(dict.fromkeys(found), key=lambda code: language_name(report, code).casefold())


def retrieved_codes(report: Report, direction: str) -> list[str]:
    """The languages that were retrieved from in one direction, by name."""
    return by_name(report, (code for e in report.encoders for code in retrieval_of(e, direction).languages))


def calibrated_codes(report: Report, direction: str) -> list[str]:
    """The languages that were calibrated in one direction, by name."""
    methods = (m for e in report.encoders for m in methods_of(e, direction).values())
    return by_name(report, (code for method in methods for code in method.languages))


def before_after(methods: Mapping[str, Any]) -> tuple[str | None, str | None]:
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


def mean_of(report: Report, encoder: Encoder, direction: str, group: str) -> float | None:
    """Mean accuracy over the languages of a resource class, as given, else computed."""
    found = retrieval_of(encoder, direction)
    if group in found.mean:
        return float(found.mean[group])
    members = [r for c, r in found.languages.items() if group == "all" or resource(report, c) == group]
    numbers = [r.accuracy for r in members if r.accuracy is not None]
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


def who(encoder: Encoder, series: Series) -> str:
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
    source: Calibration
    """Its methods, as `xt.calibration.summary.summary` returns them, and its shots."""
    retrieval: Mapping[str, RetrievalRow]
    """The scores of retrieval by language that go with it; empty for a head."""

    @property
    def key(self) -> str | None:
        """The method that the page shows: the last of before and after."""
        before, after = before_after(self.source.methods)
        return after or before

    @property
    def shown(self) -> Method:
        """That method."""
        return self.source.methods[self.key] if self.key else Method()

    @property
    def label(self) -> str:
        """What it is called."""
        return self.shown.label or self.key or ""

    @property
    def languages(self) -> dict[str, Measures]:
        """Its rows, language by language."""
        return self.shown.languages


def blocks(report: Report) -> list[Block]:
    """Everything that was calibrated: the last encoder first, in each direction, then the others, then heads."""
    found = []
    for encoder, series in reversed(encoders(report)):
        for way in calibrated(report):
            source = encoder.calibration.get(way) or Calibration()
            title = f"{who(encoder, series)}, {text(direction_label(way))}"
            plain = f"{name_of(encoder)}, {direction_label(way)}"
            found.append(Block(title, plain, series, source, retrieval_of(encoder, way).languages))
    for task, source in report.calibration.items():
        (series,) = basic.series_for(1)
        found.append(Block(text(task), task, series, source, {}))
    return [b for b in found if b.languages]
