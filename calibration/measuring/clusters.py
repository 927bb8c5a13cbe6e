"""Resampling what several languages share: a sentence and its translations are drawn together.

Parallel test sets ask the same sentences in every language, so that what one language shows by chance the others show
too. Intervals of a mean over languages need resamples of the sentences, not of each language's queries by themselves:
the bootstrap of clusters (Davison & Hinkley 1997, section 3.8; Cameron, Gelbach & Miller 2008).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.uint16]
Ids = npt.NDArray[np.str_] | npt.NDArray[np.uint64]
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
CELLS = 1_000_000
"""Resamples are drawn in blocks of so many (resample, id) at most."""


def shared_draws(ids: Ids, repeats: int, *, seed: int = 0) -> Counts:
    """Return how often each of some items is in each of `repeats` resamples: (repeats, n), rows that sum to n.

    Ids are drawn with replacement, each with all its items, until there are n items; of the last one a random part,
    where it has more than are missing. Where no id is there twice that is the ordinary bootstrap.

    The draws of an id depend on the id and the seed alone, so that resamples of two sets of items go together as far
    as the sets share ids: those of the same ids are the same, those of other ids independent. (Each id arrives by a
    Poisson process of its own, and a resample is the first n arrivals of a set's ids.)

    Args:
        ids: (n,) of the items, or their `keys_of`.
        repeats: resamples.
        seed: of the draws.
    """
    key, member = np.unique(keys_of(ids), return_inverse=True)
    return _drawn(key.tobytes(), member.astype(np.int32).tobytes(), repeats, seed)


def keys_of(ids: Ids) -> npt.NDArray[np.uint64]:
    """Return a number of 64 bits for each id, the same for the same id, (n,); what are such numbers already stays."""
    if np.asarray(ids).dtype == np.uint64:
        return np.asarray(ids, np.uint64)
    digests = [hashlib.blake2b(str(i).encode("utf-8", "surrogatepass"), digest_size=8).digest() for i in ids]
    return np.frombuffer(b"".join(digests), np.uint64)


@lru_cache(maxsize=64)  # the methods of a language are measured one after the other
def _drawn(keys: bytes, members: bytes, repeats: int, seed: int) -> Counts:
    key, member = np.frombuffer(keys, np.uint64), np.frombuffer(members, np.int32)
    held = np.bincount(member, minlength=len(key))
    out = np.empty((repeats, len(member)), np.uint16)
    rng = np.random.default_rng([seed, len(member), *np.frombuffer(keys[:8], np.uint32)])
    step = max(1, CELLS // len(key))
    for start in range(0, repeats, step):
        rows = np.arange(start, min(repeats, start + step), dtype=np.uint64)
        cells = _mix(key ^ _mix(rows + np.uint64(seed * int(GOLDEN) % 2**64))[:, None])
        out[start : start + len(rows)] = _first(cells, member, held, rng)
    out.flags.writeable = False
    return out


def _first(
    cells: npt.NDArray[np.uint64], member: npt.NDArray[np.int32], held: npt.NDArray[np.int64], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return the first n items that arrive in each row of cells (rows, ids): (rows, n)."""
    (rows, count), n = cells.shape, len(member)
    horizon = 1 + 6 / np.sqrt(count) + 12 / count  # by then n items have arrived, all but surely
    while True:
        row, cluster, time = _arrivals(cells, horizon)
        if np.bincount(row, held[cluster], minlength=rows).min() >= n:
            break
        horizon *= 2
    order = np.argsort(row + time / (2 * horizon))  # by row, then by time
    row, cluster = row[order], cluster[order]
    size = held[cluster]
    before = np.cumsum(size) - size
    before -= before[np.searchsorted(row, np.arange(rows))][row]
    whole = before + size <= n
    drawn = np.bincount(row[whole] * count + cluster[whole], minlength=rows * count).reshape(rows, count)
    counts = drawn[:, member]
    for i in np.flatnonzero(~whole & (before < n)):  # at most one in each row
        some = rng.permutation(np.flatnonzero(member == cluster[i]))[: n - before[i]]
        counts[row[i], some] += 1
    return counts


def _arrivals(
    cells: npt.NDArray[np.uint64], horizon: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return row, column and time of all arrivals up to a time, of Poisson processes with one arrival in a unit."""
    flat = cells.ravel()
    place, time = np.arange(len(flat)), np.zeros(len(flat))
    places, times, state = [], [], flat
    while len(place):
        state = state + GOLDEN
        time = time - np.log(((_mix(state) >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53)
        soon = time <= horizon
        place, time, state = place[soon], time[soon], state[soon]
        places.append(place)
        times.append(time)
    every = np.concatenate(places)
    return every // cells.shape[1], every % cells.shape[1], np.concatenate(times)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return numbers of 64 bits that look like chance (splitmix64: Steele, Lea & Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
