"""What a report says of two reports that are compared query by query."""

from __future__ import annotations

from dataclasses import dataclass, field

from xt.core.results.records import Interval, Record


@dataclass
class Compared(Record):
    """One of two reports that are compared."""

    path: str | None = None
    hash: str | None = None
    encoder: str | None = None
    method: str | None = None
    """Of calibration."""
    created: str | None = None


@dataclass
class Difference(Record):
    """Both sides in one language, or as means over several: measure -> figure."""

    n: int | None = None
    n_languages: int | None = None
    a: dict[str, float | None] = field(default_factory=dict)
    b: dict[str, float | None] = field(default_factory=dict)
    difference: dict[str, float | None] = field(default_factory=dict)
    """Of the second less the first."""
    ci: dict[str, Interval | None] = field(default_factory=dict)
    p: dict[str, float | None] = field(default_factory=dict)
    beyond_chance: dict[str, bool] = field(default_factory=dict)


@dataclass
class Differences(Record):
    """Differences in one direction."""

    languages: dict[str, Difference] = field(default_factory=dict)
    by_resource: dict[str, Difference] = field(default_factory=dict)
    overall: Difference = field(default_factory=Difference)


@dataclass
class Comparison(Record):
    """Two reports of one task, compared query by query."""

    names: list[str] = field(default_factory=list)
    """What the two sides are called."""
    a: Compared = field(default_factory=Compared)
    b: Compared = field(default_factory=Compared)
    repeats: int | None = None
    seed: int | None = None
    level: float | None = None
    """Share of false alarms that all flags of one measure together may have."""
    directions: dict[str, Differences] = field(default_factory=dict)
    """The direction is empty where a task has none."""
    left_out: dict[str, list[list[str]]] = field(default_factory=dict)
    """Direction -> the languages that only the first has, and only the second."""
    only: list[list[str]] = field(default_factory=list)
    """The directions that only the first has, and only the second."""
