"""Settings that make no sense are refused, all at once."""

from pathlib import Path
from typing import Any

import pytest

from xt.core.errors import XtError
from xt.train.config import TrainConfig


def config(**change: Any) -> TrainConfig:
    """A good configuration, changed."""
    return TrainConfig(**{"encoder": "tiny", "intermediate": ("sample-nli",), "out": Path("runs/x"), **change})


def test_without_steps_it_trains_one_epoch() -> None:
    assert config().epochs == 1.0
    assert config().planned_steps(33) == 3
    assert config(epochs=0.5).planned_steps(64) == 2
    assert config(steps=7).epochs is None
    assert config(steps=7).planned_steps(10**6) == 7


def test_an_unknown_task_is_answered_with_the_nearest() -> None:
    with pytest.raises(XtError, match=r"Unknown task 'sample-nly'. Did you mean sample-nli"):
        config(intermediate=("sample-nly",))


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(XtError) as error:
        config(intermediate=("tatoeba", "sample-qa", "sample-qa"), steps=3, epochs=1.0, batch=0, sampling="propotional")
    message = str(error.value)
    assert "5 problems" in message
    for part in (
        "tatoeba is a target task",
        "more than once: sample-qa",
        "exclude each other",
        "batch is 0",
        "Did you mean proportional",
    ):
        assert part in message


@pytest.mark.parametrize(
    "change",
    [
        {"intermediate": ()},
        {"steps": 0},
        {"epochs": 0.0},
        {"epochs": float("nan")},
        {"epochs": float("inf")},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"head_learning_rate": -1.0},
        {"warmup": 1.0},
        {"weight_decay": -0.1},
        {"max_length": 8},
        {"cap": 0},
        {"sampling_temperature": 0.5},
        {"seed": -1},
        {"device": "tpu"},
    ],
    ids=str,
)
def test_a_value_out_of_range_is_refused_by_name(change: dict[str, Any]) -> None:
    name = "task" if "intermediate" in change else next(iter(change))
    with pytest.raises(XtError, match=name):
        config(**change)


def test_the_manifest_form_is_plain_json() -> None:
    assert config(steps=3).to_json()["out"] == "runs/x"
    assert config(steps=3).to_json()["intermediate"] == ["sample-nli"]
