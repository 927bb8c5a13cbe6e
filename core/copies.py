"""Equal texts: documents whose texts are the same are one candidate, which stands for all of them.

Texts are equal when they are so after composition (Unicode's NFC) and without white space at either end: such texts
have the same vector, so that no search can tell them apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from xt.core.characters import compose

Rows = npt.NDArray[np.int64]


def text_key(text: str) -> str:
    """Return what two equal texts share: the text composed and without white space at its ends.

    >>> text_key(f" cafe{chr(0x301)} ") == text_key("café")
    True
    """
    return compose(text).strip()


class Copies:
    """Which candidate each of some texts is, and which texts a candidate stands for."""

    def __init__(self, of: Rows) -> None:
        """Take the candidate of each text, (texts,), numbered from 0 in the order of their first texts."""
        self.of = of
        self.candidates = int(of.max()) + 1 if len(of) else 0

    @classmethod
    def find(cls, texts: Iterable[str]) -> Copies:
        """Find the equal ones among some texts; what is held meanwhile is a digest of 16 bytes for each."""
        numbers: dict[bytes, int] = {}
        of = [
            numbers.setdefault(
                hashlib.blake2b(text_key(text).encode("utf-8", "surrogatepass"), digest_size=16).digest(), len(numbers)
            )
            for text in texts
        ]
        return cls(np.array(of, np.int64))

    def __len__(self) -> int:
        """Texts."""
        return len(self.of)

    @property
    def extra(self) -> int:
        """Texts that are copies of an earlier one."""
        return len(self.of) - self.candidates

    @cached_property
    def _order(self) -> Rows:
        return np.argsort(self.of, kind="stable")

    @cached_property
    def _starts(self) -> Rows:
        return np.searchsorted(self.of[self._order], np.arange(self.candidates + 1)).astype(np.int64)

    @cached_property
    def firsts(self) -> Rows:
        """The first text of each candidate, (candidates,), ascending."""
        return np.asarray(self._order[self._starts[:-1]])

    def members(self, candidate: int) -> Rows:
        """Return the texts that a candidate stands for, ascending."""
        return np.asarray(self._order[self._starts[candidate] : self._starts[candidate + 1]])

    def describe(self) -> str:
        """Return how many copies there are, in words; empty without any."""
        return f"{self.extra:,} of {len(self):,} texts repeat another" if self.extra else ""


Search = Callable[[npt.NDArray[np.int64], int], tuple[npt.NDArray[np.float32], Rows]]
"""Queries (their places) and a depth -> scores and rows, best first, -inf and -1 where there are no more."""


def distinct(scores: npt.NDArray[np.float32], candidates: Rows, k: int) -> tuple[npt.NDArray[np.float32], Rows]:
    """Keep the best of each candidate in rows (n, m) that are best first: scores and candidates (n, k), best first.

    Places that stay empty are -inf and -1.
    """
    n = len(candidates)
    out_s, out_c = np.full((n, k), -np.inf, np.float32), np.full((n, k), -1, np.int64)
    for row, found in enumerate(candidates):
        firsts = np.sort(np.unique(found, return_index=True)[1])
        firsts = firsts[found[firsts] >= 0][:k]
        out_s[row, : len(firsts)], out_c[row, : len(firsts)] = scores[row, firsts], found[firsts]
    return out_s, out_c


def search_distinct(search: Search, copies: Copies, n: int, k: int) -> tuple[npt.NDArray[np.float32], Rows]:
    """Find the `k` best candidates of each of `n` queries where every text has a vector of its own.

    Copies may fill the list, whatever its length: queries that have too few candidates are searched deeper. Gives
    scores, of a candidate that of its best text, and candidates, both (n, min(k, candidates)), best first.
    """
    k = min(k, copies.candidates)
    scores, found = np.full((n, k), -np.inf, np.float32), np.full((n, k), -1, np.int64)
    left, depth = np.arange(n), 2 * k
    while len(left):
        depth = min(depth, len(copies))
        near, rows = search(left, depth)
        scores[left], found[left] = distinct(near, np.where(rows < 0, -1, copies.of[rows]), k)
        done = (found[left, -1] >= 0) | (rows[:, -1] < 0) | (depth == len(copies))
        left, depth = left[~done], 4 * depth
    return scores, found


def count_copies(documents: Sequence[str], queries: Sequence[str]) -> dict[str, int]:
    """Count the copies among documents and among queries, as a report keeps them."""
    return {"documents": Copies.find(documents).extra, "queries": Copies.find(queries).extra}
