"""Shares worked out by hand, and plans that keep them."""

from collections import Counter
from itertools import pairwise

import pytest

from xt.core.errors import XtError
from xt.train.sampling import apportion, probabilities, schedule

SIZES = {"mnli": 400, "qa": 100}


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
    assert Counter(task for task, _ in plan) == {"mnli": batches, "qa": 30 - batches}
    assert {len(indices) for _, indices in plan} == {4}


def test_no_example_comes_twice_before_all_came_once() -> None:
    seen = [i for task, indices in schedule({"a": 10, "b": 30}, 5, 24) if task == "a" for i in indices]
    assert len(seen) == 30  # 6 of 24 batches: three times through
    epochs = [seen[at : at + 10] for at in (0, 10, 20)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 3
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_same_seed_gives_the_same_plan_and_another_another() -> None:
    assert schedule(SIZES, 4, 30, seed=3) == schedule(SIZES, 4, 30, seed=3)
    assert schedule(SIZES, 4, 30, seed=3) != schedule(SIZES, 4, 30, seed=4)


def test_the_tasks_are_mixed_and_not_in_blocks() -> None:
    order = [task for task, _ in schedule({"a": 1, "b": 1}, 1, 40)]
    assert sum(x != y for x, y in pairwise(order)) > 5


def test_apportioning_gives_all_and_no_more() -> None:
    shares = {"a": 0.4, "b": 0.4, "c": 0.2}
    assert apportion(shares, 1) == {"a": 1, "b": 0, "c": 0}
    assert all(sum(apportion(shares, total).values()) == total for total in range(1, 50))


def test_an_unknown_sampling_and_an_empty_task_are_errors() -> None:
    with pytest.raises(XtError, match="Did you mean uniform"):
        probabilities(SIZES, sampling="unifrom")
    with pytest.raises(XtError, match="No training examples for qa"):
        schedule({"mnli": 3, "qa": 0}, 2, 2)
