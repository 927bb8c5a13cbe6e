"""Every measure of calibration on many resamples at once, so that each number comes with an interval and a null value.

A sample is sorted by confidence once. A resample is then a row of counts (how often each item was drawn), and a null
draw is a row of outcomes; all measures of all rows are a few passes over an array of (rows, n).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from xt.core.errors import XtError

Floats = npt.NDArray[np.float64]
KEYS = ("gap", "ece", "ece_equal_width", "ece_debiased", "mce", "brier", "nll_binary", "auroc", "aurc")
"""What `Sample` measures of each row."""
POINTS = (
    "nauc",
    "brier_reliability",
    "brier_resolution",
    "brier_uncertainty",
    "brier_within",
    "eaurc",
    "risk_at_80",
    "risk_at_90",
    "coverage_at_risk_5",
)
"""What `xt.calibration.measuring.measures.measure` returns besides them, without intervals."""
Draw = Callable[[int], npt.NDArray[np.integer]]
"""Rows -> how often each item is in each of so many resamples, (rows, n), in the order that a `Sample` has them."""
BLOCK = 20_000
"""Cells of one block of (rows, n): its arrays stay in the processor's cache, which makes it twice as fast as one."""
MIN_ITEMS = 10
"""Fewer items than this give no interval: what they resample to says nothing of what else could have been drawn."""
TINY = float(np.finfo(np.float64).eps)
"""Confidences are kept this far from 0 and 1 before a logarithm, as scikit-learn's `log_loss` does."""


def check(confidence: Floats, correct: Floats) -> tuple[Floats, Floats]:
    """Return confidences (n,) and outcomes (n,) as floats; XtError, naming the first, for what is neither."""
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if confidence.shape != correct.shape or confidence.ndim != 1 or len(confidence) == 0:
        raise XtError(
            f"Expected two equal, non-empty rows; found {confidence.shape} and {correct.shape}.",
            "Give a confidence and an outcome for each answer, of at least one answer.",
        )
    if not np.isfinite(confidence).all() or confidence.min() < 0 or confidence.max() > 1 + 1e-9:
        bad = int(np.flatnonzero(~((confidence >= 0) & (confidence <= 1 + 1e-9)))[0])
        raise XtError(
            f"A confidence is not a probability (NaN, or outside 0..1): number {bad} is {confidence[bad]}.",
            "Look for an encoder that gave NaN, or for scores that were not turned into probabilities.",
        )
    if not np.isin(correct, (0.0, 1.0)).all():
        bad = int(np.flatnonzero(~np.isin(correct, (0.0, 1.0)))[0])
        raise XtError(
            f"An outcome is neither 0 nor 1: number {bad} is {correct[bad]}.",
            "Say of each answer whether it was right; a score between the two needs a threshold first.",
        )
    return np.minimum(confidence, 1.0), correct


def equal_mass(n: int, bins: int) -> npt.NDArray[np.int64]:
    """Return the starts of `bins` groups of n sorted items whose sizes differ by at most one (fewer when n is).

    The first n mod bins groups are the larger ones, as `numpy.array_split` has it.
    """
    bins = min(bins, n)
    sizes = np.full(bins, n // bins)
    sizes[: n % bins] += 1
    return np.concatenate([[0], np.cumsum(sizes)[:-1]])


def width_bin(confidence: Floats, bins: int) -> npt.NDArray[np.int64]:
    """Return the number of the bin ((m-1)/bins, m/bins] that holds each confidence, from 0; 0 falls into the first."""
    return np.asarray(np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1))


def debiased(gap: Floats, rate: Floats, size: Floats, *, norm: str) -> Floats:
    """Take off an error of binned gaps what chance alone puts there; (rows, bins) each -> (rows,).

    Args:
        gap: mean confidence less mean correctness of each bin.
        rate: mean correctness of each bin.
        size: items of each bin.
        norm: "l1" or "l2"; see `xt.calibration.measuring.measures.ece_debiased`.
    """
    share = size / size.sum(-1, keepdims=True)
    spread = rate * (1 - rate)
    if norm == "l2":
        square = (share * (gap**2 - spread / np.maximum(size - 1, 1))).sum(-1)
        return np.asarray(np.sqrt(np.maximum(square, 0.0)))
    deviation = np.sqrt(spread / size)
    distance = np.abs(gap)
    ratio = distance / np.maximum(deviation, 1e-300)
    expected = deviation * np.sqrt(2 / np.pi) * np.exp(-0.5 * np.minimum(ratio, 40.0) ** 2)
    expected += distance * (1 - 2 * ndtr(-ratio))
    return np.asarray(np.maximum((share * (2 * distance - expected)).sum(-1), 0.0))


class Sums(NamedTuple):
    """What the measures of rows of draws are made of."""

    linear: Floats
    """(rows, widths + 2), the sums that `Sample._columns` describes."""
    size: Floats
    """(rows, widths), items of each bin of equal width."""
    gap: Floats
    """(rows, bins), mean confidence less mean correctness of each bin of equal mass."""
    rate: Floats
    """(rows, bins), mean correctness of each."""
    ranked: Floats
    """(rows, 2), AUROC (NaN with one class) and AURC."""


@dataclass(frozen=True)
class Sample:
    """Confidences in ascending order with their outcomes, and what every row of draws needs of them."""

    confidence: Floats
    """(n,) ascending."""
    correct: Floats
    """(n,) of 0/1, in the same order."""
    order: npt.NDArray[np.int64]
    """(n,) where each came from; ties keep their order."""
    bins: int

    @classmethod
    def of(cls, confidence: Floats, correct: Floats, *, bins: int) -> Sample:
        """Sort a sample."""
        order = np.argsort(confidence, kind="stable")
        return cls(np.minimum(confidence[order], 1.0), correct[order], order, bins)

    def __len__(self) -> int:
        """Items."""
        return len(self.confidence)

    @cached_property
    def _masses(self) -> tuple[npt.NDArray[np.int64], Floats]:
        """Starts of the bins of equal mass, and their sizes (1, bins)."""
        starts = equal_mass(len(self), self.bins)
        return starts, np.diff([*starts, len(self)]).astype(np.float64)[None]

    @cached_property
    def _ties(self) -> npt.NDArray[np.int64]:
        """Where each run of equal confidences starts."""
        return np.flatnonzero(np.diff(self.confidence, prepend=-1.0))

    @cached_property
    def _places(self) -> Floats:
        """(n, 2) what a right answer adds to the rank sum, and a wrong one to the AURC, at each place of n in a row."""
        n = len(self)
        harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n + 1))])
        return np.stack([np.arange(n, dtype=np.float64), harmonic[n] - harmonic[:n][::-1]], axis=1)

    @cached_property
    def _columns(self) -> tuple[Floats, Floats, int]:
        """What is linear in how often an item is there, and in how often it is there and right: one product each.

        Columns, of both: a bin of equal width each (the sum of the gaps), Brier, log-loss; then of the first the size
        of each bin. Last: the number of bins of equal width that hold anything.
        """
        c = self.confidence
        where = np.unique(width_bin(c, self.bins), return_inverse=True)[1]
        member = np.eye(int(where.max()) + 1)[where]
        safe = np.clip(c, TINY, 1 - TINY)
        miss = np.log1p(-safe)
        there = np.column_stack([member * c[:, None], c**2, -miss, member])
        right = np.column_stack([-member, 1 - 2 * c, miss - np.log(safe)])
        return there, right, member.shape[1]

    def _measure(self, sums: Sums) -> dict[str, Floats]:
        """Put the measures of rows together: key -> (rows,)."""
        n, (_, mass) = len(self), self._masses
        total = np.abs(sums.linear[:, :-2])
        out = {
            "gap": (sums.gap * mass).sum(1) / n,
            "ece": (np.abs(sums.gap) * mass).sum(1) / n,
            "ece_equal_width": total.sum(1) / n,
            "ece_debiased": debiased(sums.gap, sums.rate, mass, norm="l1"),
            "mce": (total / np.maximum(sums.size, 1)).max(1),
            "brier": sums.linear[:, -2] / n,
            "nll_binary": sums.linear[:, -1] / n,
            "auroc": sums.ranked[:, 0],
            "aurc": sums.ranked[:, 1],
        }
        return {key: out[key] for key in KEYS}

    def _outcomes(self, right: Floats) -> Sums:
        """Return what is summed of the items, each there once, under rows of outcomes (rows, n)."""
        (starts, size), (there, by_right, widths) = self._masses, self._columns
        fixed = there.sum(0)
        linear = right @ by_right
        linear += fixed[: widths + 2]
        rate = np.add.reduceat(right, starts, axis=1) / size
        gap = np.add.reduceat(self.confidence, starts) / size - rate
        ranked = self._ranked(right) if self._distinct else self._tied(np.ones((1, len(self))), 1 - right)
        return Sums(linear, np.broadcast_to(fixed[widths + 2 :], (len(right), widths)), gap, rate, ranked)

    @property
    def _distinct(self) -> bool:
        return len(self._ties) == len(self)

    def _ranked(self, right: Floats) -> Floats:
        """Return the AUROC and AURC, (rows, 2), of rows of outcomes in ascending order of confidences that all differ.

        A repeated item ties with itself only, where it is as right as wrong. AURC is the mean over k = 1..n of the
        share of wrong answers among the k surest: an error at the j-th place adds 1/j + ... + 1/n.
        """
        n = len(self)
        sums = right @ self._places
        hits = right.sum(1)
        pairs = hits * (n - hits)
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc = np.where(pairs > 0, (sums[:, 0] - hits * (hits - 1) / 2) / pairs, np.nan)
        return np.stack([auroc, (self._places[:, 1].sum() - sums[:, 1]) / n], axis=1)

    def _tied(self, counts: Floats, wrong: Floats) -> Floats:
        """The same where confidences tie, of rows of counts of the items and of those that are wrong."""
        counts, wrong = (np.add.reduceat(x, self._ties, axis=1) for x in (counts, wrong))
        return _ranked(counts, wrong, np.concatenate([[0.0], np.cumsum(1 / np.arange(1, len(self) + 1))]))

    def point(self) -> dict[str, float]:
        """Return the measures of the sample itself."""
        return {k: float(v[0]) for k, v in self._measure(self._outcomes(self.correct[None])).items()}

    def bootstrap(self, draw: Draw, repeats: int, extra: Floats | None = None) -> dict[str, Floats]:
        """Return the measures of `repeats` resamples, and under "nll" the mean of `extra` (n,), in the order given."""
        n, means = len(self), []

        def block(rows: int) -> Sums:
            whole = draw(rows)
            if extra is not None:
                means.append(whole @ extra[self.order] / n)
            return self._resampled(whole)

        out = self._blocks(block, repeats)
        return {**out, "nll": np.concatenate(means)} if means else out

    def resampled(self, whole: npt.NDArray[np.integer]) -> dict[str, Floats]:
        """Return the measures of resamples given as counts (rows, n) of the sorted items; each row sums to n."""
        return self._measure(self._resampled(whole))

    def _resampled(self, whole: npt.NDArray[np.integer]) -> Sums:
        rows, n = whole.shape
        (starts, size), (there, by_right, widths) = self._masses, self._columns
        items = np.repeat(np.tile(np.arange(n), rows), whole.ravel()).reshape(rows, n)
        right, counts = self.correct[items], whole.astype(np.float64)
        both = there.copy()
        both[:, : widths + 2] += by_right * self.correct[:, None]
        linear = counts @ both
        gap = np.add.reduceat((self.confidence - self.correct)[items], starts, axis=1) / size
        rate = np.add.reduceat(right, starts, axis=1) / size
        ranked = self._ranked(right) if self._distinct else self._tied(counts, counts * (1 - self.correct))
        return Sums(linear[:, : widths + 2], linear[:, widths + 2 :], gap, rate, ranked)

    def null(self, rng: np.random.Generator, repeats: int) -> dict[str, Floats]:
        """Return the measures of `repeats` draws of correct ~ Bernoulli(confidence)."""
        chance = self.confidence.astype(np.float32)

        def block(rows: int) -> Sums:
            return self._outcomes((rng.random((rows, len(self)), dtype=np.float32) < chance).astype(np.float64))

        return self._blocks(block, repeats)

    def _blocks(self, block: Callable[[int], Sums], repeats: int) -> dict[str, Floats]:
        """Return the measures of `repeats` rows whose sums are taken block by block."""
        most = max(1, BLOCK // len(self))
        parts = [block(min(most, repeats - start)) for start in range(0, repeats, most)]
        return self._measure(Sums(*(np.concatenate(column) for column in zip(*parts, strict=True))))


def _ranked(counts: Floats, wrong: Floats, harmonic: Floats) -> Floats:
    """Return the AUROC and AURC of rows of draws; columns are ties, ascending: (rows, 2).

    AUROC counts ties half. AURC is the mean over k = 1..n of the share of wrong answers among the k surest; inside a
    tie of m items with e errors, the j-th item adds e / m of an error, which is what every order of them gives on
    average. The sum over a tie is then closed in harmonic numbers.
    """
    n = len(harmonic) - 1
    upto = np.cumsum(wrong, axis=1)
    total = upto[:, -1].copy()
    pairs = (n - total) * total
    right = counts - wrong
    below = np.einsum("ij,ij->i", right, upto) - 0.5 * np.einsum("ij,ij->i", right, wrong)
    with np.errstate(invalid="ignore", divide="ignore"):
        auroc = np.where(pairs > 0, below / pairs, np.nan)
    surer = np.cumsum(counts, axis=1)
    np.subtract(n, surer, out=surer)  # how many are surer than the tie
    sums = harmonic[surer.astype(np.intp)]
    step = np.empty_like(sums)
    step[:, 0] = harmonic[n] - sums[:, 0]
    np.subtract(sums[:, :-1], sums[:, 1:], out=step[:, 1:])
    rate = wrong / np.maximum(counts, 1)
    rate *= surer
    upto += rate  # errors among the surer are total - upto
    np.subtract(total[:, None], upto, out=upto)
    area = total + (upto @ step[0] if len(step) == 1 else np.einsum("ij,ij->i", upto, step))
    return np.stack([auroc, area / n], axis=1)


def generator(seed: int, *arrays: npt.NDArray[Any]) -> np.random.Generator:
    """Return a generator of its own to each data set under one seed.

    Languages are resampled under the same seed; were their draws the same too, means over languages would get
    intervals that are too wide or too narrow. So the data go into the seed.
    """
    return np.random.default_rng([seed, *(zlib.crc32(np.ascontiguousarray(a).tobytes()) for a in arrays)])


def independent(rng: np.random.Generator, n: int) -> Draw:
    """Return what draws resamples of n items, each by itself."""

    def draw(rows: int) -> npt.NDArray[np.integer]:
        picked = rng.integers(0, n, (rows, n), dtype=np.int32)
        picked += np.arange(0, rows * n, n, dtype=np.int32)[:, None]
        return np.bincount(picked.ravel(), minlength=rows * n).reshape(rows, n)

    return draw


def in_turn(counts: npt.NDArray[np.integer]) -> Draw:
    """Return what gives out resamples that are drawn already, (repeats, n), from the first on."""
    begin = 0

    def draw(rows: int) -> npt.NDArray[np.integer]:
        nonlocal begin
        begin += rows
        return counts[begin - rows : begin]

    return draw


def interval(value: float | None, drawn: Floats, *, low: float = 0.0, high: float = 1.0) -> list[float] | None:
    """Return the 95 % interval of `value` from resamples, centred on it.

    Resampling itself raises an ECE, and that is taken off.

    Resamples without a value (NaN: one class only) are left out; None where the value or nearly all of them lack.
    """
    kept = drawn[np.isfinite(drawn)]
    if value is None or len(kept) < max(2, len(drawn) // 2):
        return None
    left, right = np.quantile(kept - kept.mean(), [0.025, 0.975])
    return [float(np.clip(value + end, low, high)) for end in (left, right)]


def lower(key: str) -> float:
    """Return the least value that a measure can take."""
    return -1.0 if key == "gap" else 0.0


def upper(key: str) -> float:
    """Return the greatest value that a measure can take."""
    return np.inf if key.startswith("nll") else 1.0


def undefined_to_none(values: Mapping[str, float]) -> Iterator[tuple[str, float | None]]:
    """Return None for what is not a number."""
    for key, value in values.items():
        yield key, float(value) if np.isfinite(value) else None
