"""Which task each training step takes its batch from, and which examples."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from xt.core.errors import XtError, unknown

Counts = npt.NDArray[np.float64]
Plan = list[tuple[str, list[int]]]

SAMPLINGS: dict[str, Callable[[Counts, int, float], Counts]] = {
    "proportional": lambda sizes, cap, temperature: sizes,
    "capped": lambda sizes, cap, temperature: np.minimum(sizes, cap),
    "temperature": lambda sizes, cap, temperature: sizes ** (1 / temperature),
    "uniform": lambda sizes, cap, temperature: np.ones_like(sizes),
}
"""What the probability of a task is proportional to, by the name of the sampling."""


def probabilities(
    sizes: Mapping[str, int], *, sampling: str = "proportional", cap: int = 131072, temperature: float = 2.0
) -> dict[str, float]:
    """Give the share of the batches that each task gets.

    With n the examples of a task: `proportional` n; `capped` min(n, cap), T5's examples-proportional mixing with a
    limit (Raffel et al. 2020, section 3.5.2); `temperature` n**(1/temperature); `uniform` 1.

    >>> probabilities({"a": 300, "b": 100})
    {'a': 0.75, 'b': 0.25}
    >>> probabilities({"a": 300, "b": 100}, sampling="capped", cap=100)
    {'a': 0.5, 'b': 0.5}
    >>> probabilities({"a": 900, "b": 100}, sampling="temperature", temperature=2.0)
    {'a': 0.75, 'b': 0.25}
    """
    if sampling not in SAMPLINGS:
        raise unknown("sampling", sampling, SAMPLINGS)
    empty = [name for name, size in sizes.items() if size < 1]
    if empty or not sizes:
        raise XtError(f"No training examples for {', '.join(empty) or 'any task'}.")
    weights = SAMPLINGS[sampling](np.array(list(sizes.values()), np.float64), cap, temperature)
    return {name: float(share) for name, share in zip(sizes, weights / weights.sum(), strict=True)}


def apportion(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Divide `total` by shares that sum to 1, the largest remainders rounded up (Hamilton's method).

    Ties go to the one that stands first. A share too small for one may get none.

    >>> apportion({"a": 0.5, "b": 0.3, "c": 0.2}, 7)
    {'a': 4, 'b': 2, 'c': 1}
    """
    whole = {name: int(share * total + 1e-9) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: whole[name] - shares[name] * total)
    for name in by_remainder[: total - sum(whole.values())]:
        whole[name] += 1
    return whole


def _stream(size: int, rng: np.random.Generator) -> Iterator[int]:
    """Every index below `size` once, in random order, then all again in another order, without end."""
    while True:
        yield from rng.permutation(size).tolist()


def schedule(
    sizes: Mapping[str, int],
    batch: int,
    steps: int,
    *,
    sampling: str = "proportional",
    cap: int = 131072,
    temperature: float = 2.0,
    seed: int = 0,
) -> Plan:
    """Plan all steps: for each, the task and the positions of its `batch` examples.

    The batches are divided among the tasks as exactly as whole numbers allow, rather than drawn, and then shuffled:
    in short runs a draw would leave a task out. Within a task no example comes again before all others came. The
    same arguments give the same plan, and a task's own order of examples does not depend on the other tasks.

    >>> plan = schedule({"a": 3, "b": 1}, batch=1, steps=8, seed=1)
    >>> sum(task == "a" for task, _ in plan), sorted(i for t, ids in plan for i in ids if t == "a")
    (6, [0, 0, 1, 1, 2, 2])
    """
    shares = probabilities(sizes, sampling=sampling, cap=cap, temperature=temperature)
    counts = apportion(shares, steps)
    order = [name for name, count in counts.items() for _ in range(count)]
    np.random.default_rng(seed).shuffle(order)
    streams = {n: _stream(size, np.random.default_rng([seed, zlib.crc32(n.encode())])) for n, size in sizes.items()}
    return [(name, [next(streams[name]) for _ in range(batch)]) for name in order]
