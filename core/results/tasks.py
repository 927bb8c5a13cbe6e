"""Parts of a report: mined translations, layers, and the sums of a benchmark."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from xt.core.results.records import Record

# -- mining ------------------------------------------------------------------------------------------------------------


@dataclass
class Extracted(Record):
    """Pairs taken at one threshold, against the gold ones."""

    threshold: float | None = None
    pairs: int | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None


@dataclass
class Discoveries(Extracted):
    """Pairs chosen by conformal p-values."""

    false_share: float | None = None
    """The share of wrong ones."""


@dataclass
class PairProbability(Record):
    """How far the probabilities of pairs are off."""

    ece: float | None = None
    ece_null: float | None = None


@dataclass
class MinedRow(Extracted):
    """What was mined in one language, by the main margin."""

    n: int | None = None
    """Gold pairs."""
    margins: dict[str, Extracted | None] = field(default_factory=dict)
    """By every margin; None where the vectors do not allow it."""
    guarantee: Extracted | None = None
    """At a threshold whose precision is certified on dev."""
    fdr: Discoveries | None = None
    probability: PairProbability | None = None
    by_text: Extracted | None = None
    """Where sentences repeat another: an equal text counts as the right one."""
    notes: list[str] = field(default_factory=list)


@dataclass
class Mining(Record):
    """Pairs of translations, found in two collections."""

    metric: str | None = None
    margin: str | None = None
    k: int | None = None
    """Neighbours that the margin is over."""
    mean: dict[str, dict[str, float]] = field(default_factory=dict)
    """Figure -> group -> mean."""
    languages: dict[str, MinedRow] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


# -- layers ------------------------------------------------------------------------------------------------------------


@dataclass
class Layer(Record):
    """Retrieval by the vectors of one layer, in one direction."""

    mean: dict[str, float] = field(default_factory=dict)
    """Group -> mean accuracy over its languages."""
    languages: dict[str, float] = field(default_factory=dict)


@dataclass
class BestLayer(Record):
    """The best layer on one half of the languages, and what it gives on the other."""

    layer: int | None = None
    chosen_on: list[str] = field(default_factory=list)
    reported_on: list[str] = field(default_factory=list)
    accuracy: dict[str, float] = field(default_factory=dict)
    """By direction."""
    own_accuracy: dict[str, float] = field(default_factory=dict)
    """At the encoder's own layer, on the same languages."""


@dataclass
class Layers(Record):
    """Retrieval by every layer of one encoder."""

    count: int | None = None
    own: int | None = None
    """The layer that the encoder pools."""
    directions: dict[str, dict[str, Layer]] = field(default_factory=dict)
    """Direction -> layer -> what it gives."""
    best: BestLayer | None = None

    def by_number(self, direction: str) -> dict[int, Layer]:
        """Return the layers of one direction, lowest first."""
        return dict(sorted((int(n), layer) for n, layer in self.directions.get(direction, {}).items()))


# -- the sums of a benchmark -------------------------------------------------------------------------------------------


@dataclass
class TaskScore(Record):
    """A task of a benchmark: the mean over its languages."""

    group: str | None = None
    score: float | None = None
    """None where a language is missing."""
    partial: float | None = None
    """The mean over what is there."""
    figures: dict[str, float] = field(default_factory=dict)
    languages: dict[str, float] = field(default_factory=dict)
    expected: int | None = None
    """How many languages it has."""
    missing: list[str] = field(default_factory=list)
    figures_missing: list[str] = field(default_factory=list)
    by: dict[str, Any] = field(default_factory=dict)
    """What languages are grouped by -> group -> mean."""
    encoders: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)


@dataclass
class MeanScore(Record):
    """The mean over tasks."""

    score: float | None = None
    """None where a task has none."""
    missing: list[str] = field(default_factory=list)
    tasks: int | None = None


@dataclass
class Summary(Record):
    """A benchmark's table, as its authors aggregate it."""

    benchmark: str | None = None
    tasks: dict[str, TaskScore] = field(default_factory=dict)
    groups: dict[str, MeanScore] = field(default_factory=dict)
    overall: MeanScore = field(default_factory=MeanScore)
    ignored: list[str] = field(default_factory=list)
    """Tasks of reports that are not the benchmark's."""
