"""How far stated probabilities lie from what was right over some languages, of reports of any age."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xt.core.results.calibration import Measures

Worst = tuple[float, str]
"""The figure of a language, and its code."""


@dataclass(frozen=True)
class Gaps:
    """Gaps and excesses of some languages. In no mean does one language make up for another."""

    mean: float | None
    """Mean over languages of |mean confidence - accuracy|."""
    worst: Worst | None
    """The gap that is farthest from 0, with its sign."""
    outside: int | None
    """Languages whose interval of the gap leaves out 0; None where no intervals are known."""
    known: int
    """Languages with an interval."""
    excess: float | None
    """Mean over languages of ECE less null value, which counts as 0 where it is below."""
    worst_excess: Worst | None


def gaps_of(rows: Mapping[str, Measures]) -> Gaps:
    """Return the gaps of some languages."""

    def figures(of: Callable[[Measures], float | None]) -> list[Worst]:
        return [(value, code) for code, row in rows.items() if (value := of(row)) is not None]

    gaps, excesses = figures(lambda row: row.off), figures(lambda row: row.excess)
    intervals = [row.gap_ci for row in rows.values() if row.gap_ci is not None]
    return Gaps(
        mean=sum(abs(value) for value, _ in gaps) / len(gaps) if gaps else None,
        worst=max(gaps, key=lambda pair: abs(pair[0]), default=None),
        outside=sum(not low <= 0 <= high for low, high in intervals) if intervals else None,
        known=len(intervals),
        excess=sum(max(0.0, value) for value, _ in excesses) / len(excesses) if excesses else None,
        worst_excess=max(excesses, default=None),
    )
