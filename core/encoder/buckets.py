"""Which texts share a forward pass, and in which shapes: widths that depend on a text alone, and few counts of rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WARM_TOKENS = 64
"""Micro-batches of up to so many tokens are run in every shape before a model serves. To compile a shape takes 20 ms:
much for these, little beside what larger ones compute, which would hold up the start and every restart."""
BLANK_TOKENS = 16
"""Tokens of blank rows that a forward pass takes on rather than leave texts for one more, which costs about twice as
much where nothing else waits, and next to nothing where others join them."""


def bucket(tokens: int) -> int:
    """Return the width that a text of so many tokens is padded to: a multiple of 4, above 64 of 8, above 128 of 32.

    It depends on the text alone. With all rows of a micro-batch in one bucket, a text is computed in the same shape
    whatever it is batched with; row counts change no sum, so its vector stays the same bit for bit.

    >>> [bucket(n) for n in (1, 8, 9, 65, 128, 129)]
    [4, 8, 12, 72, 128, 160]
    """
    step = 4 if tokens <= 64 else 8 if tokens <= 128 else 32
    return -(-tokens // step) * step


@dataclass(frozen=True)
class Buckets:
    """The micro-batches of an engine that runs texts of one width at a time."""

    most: int = 32
    """Texts of one forward pass at most: on a CPU more are no faster, a GPU needs them."""
    compiled: bool = False
    """Whether the engine compiles for every shape and keeps what it compiled, some 6 MB on two cores. It then runs 1 to
    8, 10, 12, 14, 16, 20, 24, 28, 32, 40, ... rows and full micro-batches alone: far fewer shapes, little slower."""

    def full(self, width: int, budget: int) -> int:
        """Return the rows of a full micro-batch: what `budget` tokens and `most` rows hold, and at least one."""
        return max(min(budget // width, self.most), 1)

    def take(self, waiting: int, width: int, budget: int) -> int:
        """Return how many of `waiting` texts to run at once; the others make the next micro-batch.

        >>> [Buckets(compiled=True).take(n, 20, 512) for n in (1, 5, 10, 11, 23, 24, 25, 40)]
        [1, 5, 10, 10, 20, 24, 25, 25]
        """
        full = self.full(width, budget)
        if waiting >= full or not self.compiled:
            return min(waiting, full)
        below, above = _counts(waiting)
        return waiting if (min(above, full) - waiting) * width <= BLANK_TOKENS else below

    def rows(self, texts: int, width: int, budget: int) -> int:
        """Return the rows of the forward pass of so many texts, blank ones included.

        >>> [Buckets(compiled=True).rows(n, 20, 512) for n in (1, 5, 11, 24, 25)]
        [1, 5, 12, 24, 25]
        """
        full = self.full(width, budget)
        return texts if texts >= full or not self.compiled else min(_counts(texts)[1], full)

    def warm_shapes(self, longest: int, budget: int) -> list[tuple[int, int]]:
        """List the (rows, width) to run before a model serves: all of up to `WARM_TOKENS` tokens.

        >>> Buckets(compiled=True).warm_shapes(8, budget=28)
        [(1, 4), (2, 4), (3, 4), (4, 4), (5, 4), (6, 4), (7, 4), (1, 8), (2, 8), (3, 8)]
        """
        shapes: dict[tuple[int, int], None] = {}
        for width in sorted({min(bucket(n), longest) for n in range(1, longest + 1)}):
            full = self.full(width, budget)
            for texts in range(1, min(full, WARM_TOKENS // width) + 1):
                shapes[self.rows(texts, width, budget), width] = None
        return list(shapes)


def _counts(rows: int) -> tuple[int, int]:
    """Return the nearest number of rows that is run at or below, and at or above.

    There are four steps from one power of two to the next.
    """
    step = max((1 << rows.bit_length()) // 8, 1)
    return rows // step * step, -(-rows // step) * step


def micro_batches(lengths: Sequence[int], budget: int, buckets: Buckets | None = None) -> Iterator[list[int]]:
    """Cut indices, sorted by length, into batches of at most `budget` tokens, padding included.

    A text longer than the budget gets a batch of its own. With `buckets` only texts of one width share a batch.

    >>> list(micro_batches([3, 9, 2, 3], budget=10))
    [[1], [0, 3, 2]]
    >>> list(micro_batches([3, 9, 2, 10], budget=100, buckets=Buckets()))
    [[3, 1], [0, 2]]
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    if buckets is not None:
        for width, group in itertools.groupby(order, key=lambda i: bucket(lengths[i])):
            same = list(group)
            at = 0
            while at < len(same):
                texts = buckets.take(len(same) - at, width, budget)
                yield same[at : at + texts]
                at += texts
        return
    batch: list[int] = []
    for index in order:
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
