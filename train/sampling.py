"""Which task each training step takes its batch from, and which examples."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from xt.core.errors import XtError, unknown

Counts = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
GROUP = 64
"""Batches whose examples are sorted by length together: enough to leave little padding, few enough to keep chance."""

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
    """Return the share of the batches that each task gets.

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


def grouped(order: Indices, lengths: Indices, batch: int, lead: int, rng: np.random.Generator) -> Indices:
    """Put examples of like length next to each other, in batches that come in random order.

    The first `lead` and the last few, which share a batch with another pass over the data, stay where they are.
    """
    whole = (len(order) - lead) // batch
    body = order[lead : lead + whole * batch]
    batches = []
    for at in range(0, len(body), GROUP * batch):
        some = body[at : at + GROUP * batch]
        batches.append(some[np.argsort(-lengths[some], kind="stable")].reshape(-1, batch))
    if batches:
        rows = np.concatenate(batches)
        body = rows[rng.permutation(len(rows))].reshape(-1)
    return np.concatenate([order[:lead], body, order[lead + whole * batch :]])


@dataclass
class Stream:
    """The examples of one task, pass after pass, each pass in another random order, without end."""

    size: int
    batch: int
    seed: tuple[int, ...]
    lengths: Indices | None = None
    """Tokens of each example, when batches are to be of like length."""
    _passes: dict[int, Indices] = field(default_factory=dict)

    def order(self, number: int) -> Indices:
        """Return the order of one pass (from 0)."""
        if number not in self._passes:
            rng = np.random.default_rng([*self.seed, number])
            order: Indices = rng.permutation(self.size)
            if self.lengths is not None:
                order = grouped(order, self.lengths, self.batch, min(self.size, -number * self.size % self.batch), rng)
            self._passes = {k: v for k, v in self._passes.items() if k == number - 1} | {number: order}
        return self._passes[number]

    def take(self, nth: int) -> Indices:
        """Return the positions of the task's nth batch (from 0), wherever in the training it comes."""
        at, wanted = nth * self.batch, self.batch
        found = []
        while wanted:
            number, offset = divmod(at, self.size)
            piece = self.order(number)[offset : offset + wanted]
            found.append(piece)
            at, wanted = at + len(piece), wanted - len(piece)
        return np.concatenate(found)


@dataclass(frozen=True)
class Plan:
    """All steps of a training: for each the task and its examples, known without those before it."""

    names: tuple[str, ...]
    order: npt.NDArray[np.int16]
    """(steps,) which of `names`."""
    nth: npt.NDArray[np.int64]
    """(steps,) how many batches of that task came before."""
    streams: Mapping[str, Stream]

    def __len__(self) -> int:
        """Count the steps."""
        return len(self.order)

    def __getitem__(self, step: int) -> tuple[str, Indices]:
        """Return the task and the positions of its examples of one step (from 0)."""
        name = self.names[self.order[step]]
        return name, self.streams[name].take(int(self.nth[step]))

    def counts(self) -> dict[str, int]:
        """Count the steps of each task."""
        return {name: int((self.order == i).sum()) for i, name in enumerate(self.names)}


def schedule(
    sizes: Mapping[str, int],
    batch: int,
    steps: int,
    *,
    sampling: str = "proportional",
    cap: int = 131072,
    temperature: float = 2.0,
    seed: int = 0,
    lengths: Mapping[str, Indices] | None = None,
) -> Plan:
    """Plan all steps: for each, the task and the positions of its `batch` examples.

    The batches are divided among the tasks as exactly as whole numbers allow, rather than drawn, and then shuffled:
    in short runs a draw would leave a task out. Within a task no example comes again before all others came. The
    same arguments give the same plan, in every process and however far the training is, and a task's own order of
    examples does not depend on the other tasks.

    Args:
        sizes: examples of each task.
        batch: examples of a step.
        steps: how many.
        sampling: see `probabilities`, as `cap` and `temperature`.
        cap: see `probabilities`.
        temperature: see `probabilities`.
        seed: of the orders.
        lengths: tokens of each example, by task: batches are then of examples of like length.

    >>> plan = schedule({"a": 3, "b": 1}, batch=1, steps=8, seed=1)
    >>> plan.counts(), sorted(int(i) for t, ids in plan for i in ids if t == "a")
    ({'a': 6, 'b': 2}, [0, 0, 1, 1, 2, 2])
    """
    shares = probabilities(sizes, sampling=sampling, cap=cap, temperature=temperature)
    counts = apportion(shares, steps)
    order = np.repeat(np.arange(len(counts), dtype=np.int16), list(counts.values()))
    np.random.default_rng(seed).shuffle(order)
    nth = np.zeros(len(order), np.int64)
    for i in range(len(counts)):
        nth[order == i] = np.arange((order == i).sum())
    streams = {
        name: Stream(size, batch, (seed, zlib.crc32(name.encode())), None if lengths is None else lengths[name])
        for name, size in sizes.items()
    }
    return Plan(tuple(counts), order, nth, streams)
