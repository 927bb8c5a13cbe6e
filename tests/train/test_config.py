"""Settings that make no sense are refused, all at once, and the others mean what they say."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from xt.core.errors import XtError
from xt.train.config import TrainConfig, setting_names


def config(**change: Any) -> TrainConfig:
    """A good configuration, changed."""
    return TrainConfig(**{"encoder": "tiny", "intermediate": ("sample-nli",), "out": Path("runs/x"), **change})


def test_without_steps_it_trains_one_epoch() -> None:
    assert config().epochs == 1.0
    assert config().planned_steps(33) == 3
    assert config(epochs=0.5).planned_steps(64) == 2
    assert config(epochs=0.001).planned_steps(64) == 1
    assert config(steps=7).epochs is None
    assert config(steps=7).planned_steps(10**6) == 7


@pytest.mark.parametrize(
    ("change", "first", "target"),
    [
        ({"steps": 7}, 7, 7),
        ({"epochs": 2}, 20, 20),
        ({"steps": 7, "target_steps": 3}, 7, 3),
        ({"steps": 7, "target_epochs": 3}, 7, 30),
        ({"epochs": 2, "target_steps": 3}, 20, 3),
        ({"target_epochs": 0.5}, 10, 5),
    ],
    ids=str,
)
def test_the_target_has_its_own_length_or_the_same(change: dict[str, Any], first: int, target: int) -> None:
    made = config(target="sample-qa", **change)
    assert made.planned_steps(160) == first
    assert made.planned_steps(160, target=True) == target


def test_an_unknown_task_is_answered_with_the_nearest() -> None:
    with pytest.raises(XtError, match=r"Unknown task 'sample-nly'. Did you mean sample-nli"):
        config(intermediate=("sample-nly",))
    with pytest.raises(XtError, match=r"Unknown task 'sib20'. Did you mean sib200"):
        config(target="sib20")


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(XtError) as error:
        config(
            intermediate=("tatoeba", "sample-qa", "sample-qa"),
            contrastive=("sample-qa",),
            data={"sick": "x.tsv"},
            steps=3,
            epochs=1.0,
            batch=0,
            sampling="propotional",
            log_to="tensorbord",
        )
    message = error.value.message
    assert "8 problems" in message
    for part in (
        "tatoeba is parallel text to evaluate on",
        "more than once: sample-qa",
        "sample-qa has no label that makes two texts belong together",
        "data names sick, which is not trained on",
        "exclude each other",
        "batch is 0",
        "'propotional'",
        "'tensorbord'",
    ):
        assert part in message
    assert "proportional" in str(error.value.hint) + message
    assert "contrastive:FILE" in error.value.hint


NAN, INFINITE = float("nan"), float("inf")
RANGES: list[tuple[str, list[Any], list[Any]]] = [
    ("steps", [0, -1], [1]),
    ("epochs", [0.0, -1.0, NAN, INFINITE], [0.01, 3]),
    ("target_steps", [0], [1]),
    ("target_epochs", [0.0, NAN], [0.5]),
    ("batch", [0], [1]),
    ("micro_tokens", [0], [1]),
    ("learning_rate", [0.0, 1.0, NAN, -1e-5], [1e-5]),
    ("head_learning_rate", [0.0, NAN], [1e-3]),
    ("warmup", [1.0, -0.1, NAN], [0.0, 0.99]),
    ("weight_decay", [-0.1, 1.0], [0.0]),
    ("dropout", [1.0, -0.1], [0.0, 0.5, None]),
    ("max_length", [8, 15], [16]),
    ("cap", [0], [1]),
    ("dev_limit", [0], [1]),
    ("limit", [0], [1, None]),
    ("pool_layer", [0, -1], [1, None]),
    ("sampling_temperature", [0.5, NAN, INFINITE], [1, 5]),
    ("mlm_probability", [0.0, 1.0], [0.15]),
    ("contrastive_temperature", [0.0, -1.0], [0.05, None]),
    ("allow_unusable", [-0.1, 1.1], [0.0, 1.0]),
    ("lora_rank", [-1], [0, 8]),
    ("evaluate_every", [-1], [0]),
    ("save_every", [-1], [0]),
    ("patience", [-1, 3], [0]),  # 3: without evaluate_every
    ("seed", [-1, 2**32], [0, 2**32 - 1]),
    ("device", ["tpu"], ["cpu", "cuda"]),
    ("precision", ["int8"], ["bf16", "fp16"]),
    ("image_loss", ["clap"], ["siglip"]),
    ("sampling", ["random"], ["capped"]),
    ("log_to", ["x", ("wandb", "x")], [("wandb", "mlflow"), "tensorboard"]),
    ("intermediate", [(), ("nope",)], [("sick",), "sick", ("pair:x.tsv",)]),
    ("contrastive", ["cosmosqa", ("sick", "sick")], ["sick", "contrastive:x.jsonl", ()]),
    ("mlm", [("a", "a")], ["a.txt", ("a", "b")]),
    ("data", [{"rte": "x"}], [{"sample-nli": "x"}, {"sample-nli": ["x", "y"]}]),
    ("translated", [{"rte": "x"}], [{"sample-nli": "x"}]),
    ("positive_label", ["yes"], [None]),  # yes: without pair:PATH in contrastive
    ("negative_label", ["no"], [None]),
    ("languages", ["deu", " , ", "all"], [None]),  # without files of one's own
]


@pytest.mark.parametrize(("name", "bad", "good"), RANGES, ids=[name for name, _, _ in RANGES])
def test_a_value_out_of_range_is_refused_by_name(name: str, bad: list[Any], good: list[Any]) -> None:
    for value in bad:
        with pytest.raises(XtError) as error:
            config(**{name: value})
        said = error.value.message
        assert name in said or "task" in said.lower() or "more than once" in said or "belong together" in said
    for value in good:
        config(**{name: value})


def test_every_setting_with_a_range_is_swept() -> None:
    free = {"encoder", "out", "target", "image_text", "data_dir", "group_by_length", "freeze_embeddings"}
    free |= {"gradient_checkpointing", "fsdp", "force", "resume"}
    assert {f.name for f in fields(TrainConfig)} == free | {name for name, _, _ in RANGES}


def test_force_and_resume_exclude_each_other() -> None:
    with pytest.raises(XtError, match="force and resume exclude each other"):
        config(force=True, resume=True)


def test_one_name_is_a_tuple_of_one() -> None:
    made = config(intermediate="sick", mlm="a.txt", data={"sick": "x"}, translated={"sick": ["a", "b"]}, data_dir="d")
    assert (made.intermediate, made.mlm) == (("sick",), ("a.txt",))
    assert (made.data, made.translated) == ({"sick": ("x",)}, {"sick": ("a", "b")})
    assert made.data_dir == Path("d")


def test_the_manifest_form_is_plain_json_and_makes_the_same_settings() -> None:
    made = config(steps=3, target="sick", data={"sick": ("a", "b")}, log_to=("wandb",), data_dir=Path("d"), dropout=0.0)
    plain = json.loads(json.dumps(made.to_json()))
    assert plain["out"] == "runs/x"
    assert plain["intermediate"] == ["sample-nli"]
    assert plain["data"] == {"sick": ["a", "b"]}
    assert TrainConfig(**plain) == made


def test_a_recipe_names_all_but_what_belongs_to_one_run() -> None:
    assert set(setting_names()) == {f.name for f in fields(TrainConfig)} - {"force", "resume"}
