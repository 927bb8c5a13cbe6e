"""Reading a run's metrics for the report: what is there, under which name, and what stands for before and after.

The last encoder is the subject of the report, the first is what it is compared with; the first direction is the one in
the headlines.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from markupsafe import Markup

from xt.calibration.methods import AFTER, BEFORE
from xt.core.pages.page import Macros
from xt.core.pages.rows import Series, key, series_for
from xt.core.pages.tables import Cell, named
from xt.core.results.calibration import Calibration, Measures, Method
from xt.core.results.report import Encoder, Language, Report, Retrieval, RetrievalRow

T = TypeVar("T")
TEMPLATES = Path(__file__).parent / "templates"
DIRECTIONS = {"english-foreign": "English → foreign", "foreign-english": "foreign → English"}
CLASSES = {"all": "All", "high": "High", "mid": "Mid", "low": "Low"}


def encoders(report: Report) -> list[tuple[Encoder, Series]]:
    """Each encoder with its look."""
    return list(zip(report.encoders, series_for(len(report.encoders)), strict=True))


def name_of(encoder: Encoder) -> str:
    """The encoder's short name."""
    return encoder.name or encoder.label or "encoder"


def macros(file: str) -> Macros:
    """Return the macros of one of the report's templates."""
    return Macros(f"{file}.html.j2", TEMPLATES)


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


def language_cell(report: Report, code: str) -> Cell:
    """Return a language's name with its code."""
    name = language_name(report, code)
    return named(name, code if name != code else "")


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
    """Which method counts as before calibration and which as after; the first and the last where none of those is.

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


def who(encoder: Encoder, series: Series) -> Markup:
    """Return an encoder's sign and name."""
    return key(series) + name_of(encoder)


def by_direction(
    report: Report, part: Callable[[Encoder], Mapping[str, T]]
) -> Iterator[tuple[Markup, str, Series, Encoder, str, T]]:
    """Return a part of the encoders by direction, the last first: title, the same plain, look, encoder, direction."""
    for encoder, series in reversed(encoders(report)):
        for direction, data in part(encoder).items():
            end = f", {direction_label(direction)}"
            yield who(encoder, series) + end, name_of(encoder) + end, series, encoder, direction, data


@dataclass(frozen=True)
class Block:
    """One calibrated set of answers: those of an encoder in one direction, or those of a head."""

    title: Markup
    """What it is, with its sign."""
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
    found = [
        Block(title, plain, series, source, retrieval_of(encoder, direction).languages)
        for title, plain, series, encoder, direction, source in by_direction(
            report, lambda encoder: encoder.calibration
        )
    ]
    for task, source in report.calibration.items():
        (series,) = series_for(1)
        found.append(Block(Markup.escape(task), task, series, source, {}))
    return [b for b in found if b.languages]
