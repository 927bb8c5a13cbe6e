"""Shares worked out by hand, and plans that keep them: no example twice before all, the same wherever one starts."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from xt.core.data.examples import PairExample, ReadLog
from xt.core.data.source_rows import examples
from xt.core.data.sources import locate
from xt.core.data.task_table import TASKS
from xt.core.errors import XtError
from xt.train.sampling import SAMPLINGS, Plan, Stream, apportion, probabilities, schedule

SIZES = {"mnli": 400, "qa": 100}


def listed(plan: Plan) -> list[tuple[str, list[int]]]:
    return [(task, positions.tolist()) for task, positions in plan]


# --- shares ---


@pytest.mark.parametrize(
    ("sampling", "share"),
    [
        ("proportional", 400 / 500),
        ("capped", 150 / 250),  # min(400, 150) : min(100, 150)
        ("temperature", 20 / 30),  # square roots: 20 : 10
        ("uniform", 1 / 2),
    ],
)
def test_shares_are_those_worked_out_by_hand(sampling: str, share: float) -> None:
    shares = probabilities(SIZES, sampling=sampling, cap=150, temperature=2.0)
    assert shares == pytest.approx({"mnli": share, "qa": 1 - share})


@pytest.mark.parametrize(("sampling", "batches"), [("proportional", 24), ("capped", 18), ("uniform", 15)])
def test_a_plan_keeps_the_shares(sampling: str, batches: int) -> None:
    plan = schedule(SIZES, 4, 30, sampling=sampling, cap=150)
    assert Counter(task for task, _ in plan) == {"mnli": batches, "qa": 30 - batches} == plan.counts()
    assert {len(positions) for _, positions in plan} == {4}


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("steps", [1, 2, 17, 1000])
def test_no_task_is_further_than_one_batch_from_its_share(sampling: str, steps: int) -> None:
    sizes = {"a": 1, "b": 70, "c": 7000, "d": 392_702, "e": 15}
    shares = probabilities(sizes, sampling=sampling, cap=5000, temperature=3.0)
    counts = schedule(sizes, 8, steps, sampling=sampling, cap=5000, temperature=3.0).counts()
    assert sum(counts.values()) == steps
    assert all(abs(counts[name] - shares[name] * steps) < 1 for name in sizes)


def test_apportioning_gives_all_and_no_more() -> None:
    shares = {"a": 0.4, "b": 0.4, "c": 0.2}
    assert apportion(shares, 1) == {"a": 1, "b": 0, "c": 0}
    assert all(sum(apportion(shares, total).values()) == total for total in range(1, 50))
    thirds = dict.fromkeys("abc", 1 / 3)
    assert apportion(thirds, 3) == {"a": 1, "b": 1, "c": 1}


def test_an_unknown_sampling_and_an_empty_task_are_errors() -> None:
    with pytest.raises(XtError, match="Did you mean uniform"):
        probabilities(SIZES, sampling="unifrom")
    with pytest.raises(XtError, match="No training examples for qa"):
        schedule({"mnli": 3, "qa": 0}, 2, 2)


# --- order ---


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(("size", "batch"), [(10, 5), (10, 4), (7, 3), (3, 8), (1, 4), (1000, 7), (130, 2), (64, 64)])
def test_no_example_comes_twice_before_all_came(size: int, batch: int, grouped: bool) -> None:
    lengths = np.random.default_rng(0).integers(3, 60, size) if grouped else None
    stream = Stream(size, batch, (1, 2), lengths)
    passes = 5
    seen = np.concatenate([stream.take(n) for n in range(math.ceil(passes * size / batch))])
    for number in range(passes):
        assert sorted(seen[number * size : (number + 1) * size]) == list(range(size))
    if size > 9:
        assert seen[:size].tolist() != seen[size : 2 * size].tolist()


@pytest.mark.parametrize("grouped", [False, True])
def test_a_step_is_known_without_those_before_it(grouped: bool) -> None:
    sizes = {"a": 10, "b": 33, "c": 2}
    lengths = {n: np.random.default_rng(0).integers(3, 60, s) for n, s in sizes.items()} if grouped else None
    make = lambda: schedule(sizes, 4, 60, seed=3, sampling="uniform", lengths=lengths)
    expected = listed(make())
    backwards, fresh = make(), [make() for _ in range(3)]
    for step in reversed(range(60)):
        task, positions = backwards[step]
        assert (task, positions.tolist()) == expected[step]
    for plan, step in zip(fresh, (59, 31, 0), strict=True):
        task, positions = plan[step]
        assert (task, positions.tolist()) == expected[step]
    assert len(make()) == 60


def test_another_process_makes_the_same_plan() -> None:
    code = (
        "import json; from xt.train.sampling import schedule;"
        "print(json.dumps([[t, p.tolist()] for t, p in schedule({'mnli': 400, 'qa': 100}, 4, 30, seed=3)]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert [(t, p) for t, p in json.loads(out)] == listed(schedule(SIZES, 4, 30, seed=3))


def test_another_seed_gives_another_order_and_other_tasks_do_not() -> None:
    assert listed(schedule(SIZES, 4, 30, seed=3)) != listed(schedule(SIZES, 4, 30, seed=4))
    alone = [p for _, p in listed(schedule({"qa": 100}, 4, 25, seed=3))]
    mixed = [p for t, p in listed(schedule(SIZES, 4, 125, seed=3)) if t == "qa"]
    assert mixed == alone
    first = lambda name: schedule({name: 100}, 4, 1, seed=3)[0][1].tolist()
    assert first("qa") != first("nli")  # each task has an order of its own


def test_the_tasks_are_mixed_and_not_in_blocks() -> None:
    order = [task for task, _ in schedule({"a": 1, "b": 1}, 1, 40)]
    assert sum(x != y for x, y in pairwise(order)) > 5


# --- length ---


def padding(lengths: np.ndarray, batch: int, grouped: bool) -> float:
    """Tokens with padding over tokens without, of one pass."""
    stream = Stream(len(lengths), batch, (0,), lengths if grouped else None)
    batches = [lengths[stream.take(n)] for n in range(len(lengths) // batch)]
    return sum(len(b) * b.max() for b in batches) / sum(b.sum() for b in batches)


@pytest.mark.parametrize(("seed", "batch"), [(0, 16), (1, 32)])
def test_grouping_by_length_leaves_little_padding_on_real_lengths(data_dir: Path, seed: int, batch: int) -> None:
    found = []
    for name in ("sick", "rte"):
        rows = examples(locate(TASKS[name], "train", data_dir=data_dir), ReadLog())
        found += [len(f"{e.first} {e.second}".split()) for e in rows if isinstance(e, PairExample)]
    lengths = np.random.default_rng(seed).permutation(np.array(found))
    plain, sorted_ = padding(lengths, batch, False), padding(lengths, batch, True)
    assert plain > 2.5  # three in five tokens would be padding
    assert sorted_ < 1.1
    assert plain / sorted_ > 2.3


def test_later_passes_leave_as_little_padding() -> None:
    """Their first batch began in the pass before, so that their batches are shifted."""
    lengths = np.random.default_rng(0).integers(5, 200, 1609)  # 100 batches of 16 and 9 examples more
    stream = Stream(len(lengths), 16, (0,), lengths)
    batches = [lengths[stream.take(n)] for n in range(502)]
    for number in range(5):
        some = batches[number * 100 + 6 : number * 100 + 96]  # of one pass alone
        assert sum(len(b) * b.max() for b in some) / sum(b.sum() for b in some) < 1.1


def test_batches_of_like_length_come_in_no_order_of_length() -> None:
    lengths = np.random.default_rng(0).integers(5, 200, 20_000)
    stream = Stream(len(lengths), 16, (0,), lengths)
    means = np.array([lengths[stream.take(n)].mean() for n in range(1250)])
    assert abs(np.corrcoef(means[1:], means[:-1])[0, 1]) < 0.1
    assert abs(np.corrcoef(means, np.arange(1250))[0, 1]) < 0.1
    again = [set(stream.take(n).tolist()) for n in range(1250, 1260)]  # the next pass mixes anew
    assert not any(set(stream.take(n).tolist()) in again for n in range(1250))


def test_a_million_examples_take_little_memory_and_time() -> None:
    lengths = np.random.default_rng(0).integers(5, 200, 1_000_000)
    tracemalloc.start()
    before = time.perf_counter()
    plan = schedule({"big": 1_000_000, "small": 100}, 32, 100_000, lengths={"big": lengths, "small": lengths[:100]})
    for step in (0, 1, 50_000, 99_999):
        assert len(plan[step][1]) == 32
    first = time.perf_counter() - before
    for step in range(2000):
        plan[step]
    seconds = time.perf_counter() - before - first
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # bytes; four arrays of a million numbers each
    assert first < 10
    assert seconds < 2  # 1 ms a step at most
