"""`xt train`: what it answers to wrong inputs, and that its help tells the true defaults."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from xt.cli.main import app
from xt.core.errors import XtError
from xt.train import prepare
from xt.train.config import TrainConfig, setting_names

COMMAND: Any = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
SPOKEN = {
    "epochs": "1",
    "languages": "all; of images English",
    "target_steps": "as --steps",
    "target_epochs": "as --epochs",
    "dropout": "the encoder's",
    "pool_layer": "the last",
    "micro_tokens": "1024, GPU 16384",
    "contrastive_temperature": "encoder's, or .05",
    "fsdp": "none",
    "gradient_checkpointing": "no",
    "group_by_length": "group-by-length",
    "freeze_embeddings": "freeze-embeddings",
}
"""Defaults that are said in words."""
SILENT = {"encoder", "out", "intermediate", "mlm", "contrastive", "image_text", "target", "data_dir"}
SILENT |= {"data", "translated", "limit", "steps", "log_to", "positive_label", "negative_label"}
OTHERS = {"seed": 0, "device": "auto"}
"""Options of all commands, whose help is the same everywhere: what is not given has these values."""
"""Options without a default."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep prepared data out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(prepare, "preparations", lambda: folder)


def train(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def refused(result: Result, *fragments: str) -> XtError:
    """The answer is an error that a user can mend and that says all of these."""
    error = result.exception
    assert isinstance(error, XtError), (result.output, error)
    for fragment in fragments:
        assert fragment in f"{error.message}\n{error.hint}"
    assert result.stdout == ""
    return error


BAD: list[tuple[list[str], list[str]]] = [
    (["--intermediate", "sample-nlli"], ["sample-nlli", "sample-nli"]),
    (["--target", "xlni"], ["xlni", "xnli"]),
    (["--intermediate", "tatoeba"], ["parallel text"]),
    (["--intermediate", "sample-nli", "--sampling", "propotional"], ["sampling", "proportional", "uniform"]),
    (["--intermediate", "sample-nli", "--precision", "int8"], ["precision", "bf16"]),
    (["--intermediate", "sample-nli", "--image-loss", "slip"], ["image_loss", "siglip"]),
    (["--intermediate", "sample-nli", "--log-to", "file"], ["log_to", "tensorboard"]),
    (["--intermediate", "sample-nli", "--steps", "3", "--epochs", "1"], ["steps and epochs exclude each other"]),
    (["--target", "sib200", "--target-steps", "3", "--target-epochs", "1"], ["target_steps and target_epochs exclude"]),
    (["--intermediate", "sample-nli", "--patience", "3"], ["evaluate_every"]),
    (["--intermediate", "sample-nli", "--force", "--resume"], ["force and resume exclude each other"]),
    (["--intermediate", "sample-nli", "--data", "sick=x.tsv"], ["data names sick, which is not trained on"]),
    (["--intermediate", "sample-nli", "--intermediate", "sample-nli"], ["Named more than once: sample-nli"]),
    (["--contrastive", "sample-choice"], ["sample-choice has no label that makes two texts belong together"]),
    (["--intermediate", "pair:nowhere.tsv"], ["there is no", "nowhere.tsv"]),
    (["--intermediate", "mine.csv"], ["mine.csv is a path without its format", "pair:mine.csv"]),
    (["--target", "data/mine"], ["data/mine is a path without its format", "single:data/mine"]),
    (["--contrastive", "mine.jsonl"], ["there is no", "mine.jsonl"]),
    (["--mlm", "pair:mine.jsonl"], ["mlm takes mlm data; pair:mine.jsonl is pair data"]),
    (["--image-text", "single:mine.jsonl"], ["image_text takes image-text data"]),
    (["--contrastive", "sick", "--positive-label", "x"], ["positive_label goes with pair:PATH"]),
    (["--intermediate", "poem:x.tsv"], ["poem:x.tsv"]),
    (["--intermediate", "sample-nli", "--warmup", "1", "--batch", "0"], ["2 problems", "warmup is 1.0", "batch is 0"]),
]


@pytest.mark.parametrize(("arguments", "fragments"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_wrong_settings_are_named_and_nothing_is_written(
    arguments: list[str], fragments: list[str], tiny_folder: Path, tmp_path: Path
) -> None:
    refused(train("--encoder", tiny_folder, "--out", tmp_path / "x", *arguments), *fragments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [(["--intermediate", "sample-nli"], "--encoder"), (["--encoder", "e", "--steps", "3"], "--intermediate")],
)
def test_neither_encoder_nor_task_is_guessed(arguments: list[str], missing: str, tmp_path: Path) -> None:
    answer = train(*arguments, "--out", tmp_path / "x")
    assert answer.exit_code == 2
    assert f"{missing}," in answer.stderr
    assert answer.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--data", "--translated"])
@pytest.mark.parametrize("value", ["file.tsv", "sick=", "=file.tsv"])
def test_a_path_without_its_task_is_wrong_usage(option: str, value: str, tiny_folder: Path, tmp_path: Path) -> None:
    answer = train("--encoder", tiny_folder, "--intermediate", "sick", "--out", tmp_path / "x", option, value)
    assert answer.exit_code == 2
    assert f"{value!r} is not TASK=PATH" in answer.stderr
    assert option in answer.stderr


def test_an_encoder_that_is_nowhere_is_told_before_anything_is_written(tmp_path: Path) -> None:
    answer = train("--encoder", "./nowhere", "--intermediate", "sample-nli", "--out", tmp_path / "x")
    refused(answer, "There is no folder ./nowhere")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def bad_rows(tmp_path: Path) -> Path:
    """Sixty pairs, three of them without a second text."""
    labels = ("entailment", "neutral", "contradiction")
    rows = [{"first": f"good morning {i}", "second": "the cat", "label": labels[i % 3]} for i in range(60)]
    for i in (10, 30, 50):
        rows[i]["second"] = ""
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_unusable_rows_stop_the_training_with_file_and_line_unless_allowed(
    bad_rows: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    given = ["--encoder", tiny_folder, "--intermediate", f"pair:{bad_rows}", "--out", tmp_path / "x", "--device", "cpu"]
    given += ["--steps", "2", "--batch", "4"]
    error = refused(train(*given), f"{bad_rows}, line 11: ", "3 of", "more than 1.0%", "--allow-unusable 0.")
    assert f"{bad_rows}, line 31: " in error.message
    assert [p.name for p in tmp_path.iterdir()] == ["pairs.jsonl"]

    allowed = re.search(r"--allow-unusable ([0-9.]+)\)", error.hint)
    assert allowed
    answer = train(*given, "--allow-unusable", allowed[1], "--json")
    assert answer.exit_code == 0, answer.exception
    row = json.loads(answer.stdout)["training"]["tasks"][0]
    assert row["unusable"] == 3
    assert row["first_unusable"][0].startswith(f"{bad_rows}, line 11: ")
    assert "3 rows could not be used" in answer.stderr
    again = train(*given, "--allow-unusable", allowed[1], "--resume")
    assert again.exit_code == 0
    assert "is complete; nothing to go on with" in again.stderr
    refused(train(*given), "is complete already", "--force")


def own(folder: Path, rows: list[dict[str, object]]) -> Path:
    """A file of one's own."""
    file = folder / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_the_next_command_after_a_target_exports_its_head_and_what_is_odd_is_told(
    tiny_folder: Path, tmp_path: Path
) -> None:
    rows: list[dict[str, object]] = [
        {"text": f"word{n} word{n % 7}", "label": "yes" if n % 20 else "No", "split": "train", "language": "de"}
        for n in range(40)
    ]
    rows += [{"text": f"word{n}", "label": ("yes", "no")[n % 2], "split": "dev"} for n in range(8)]
    out = tmp_path / "run"
    given = ["--encoder", tiny_folder, "--out", out, "--device", "cpu", "--steps", "1", "--batch", "2", "--json"]
    answer = train("--target", f"single:{own(tmp_path, rows)}", *given)
    assert answer.exit_code == 0, answer.exception
    assert f"next: xt export {out} --task mine --out repository" in answer.stderr
    (row,) = json.loads(answer.stdout)["training"]["tasks"]
    assert row["languages"] == {"deu": 40} and row["dev_languages"] == {"und": 8}
    assert row["label_counts"] == {"No": 2, "yes": 38} and row["dev_label_counts"] == {"yes": 4, "no": 4}
    assert row["warnings"] == [
        "dev has labels that training never sees, so that they are never predicted: no 4",
        "labels that differ by case, spaces or Unicode form alone: 'No' and 'no'",
        "skewed: the label is 'yes' in 38 of 40 training examples (95%)",
    ]
    for warning in row["warnings"]:
        assert f"warning: mine: {warning}" in answer.stderr
    assert "by language: deu 40" in answer.stderr


def test_a_file_with_a_single_label_or_wrong_columns_is_refused_before_training(
    tiny_folder: Path, tmp_path: Path
) -> None:
    given = ["--encoder", tiny_folder, "--out", tmp_path / "x", "--device", "cpu"]
    one = own(tmp_path, [{"text": f"word{n}", "label": "yes"} for n in range(60)])
    refused(train("--target", f"single:{one}", *given), "training labels are 'yes': there is nothing to learn")
    flat = own(tmp_path, [{"first": f"word{n}", "second": "b", "score": 2} for n in range(60)])
    refused(train("--target", f"regression:{flat}", *given), "every training score is 2: there is nothing to learn")
    other = own(tmp_path, [{"sentence": f"word{n}", "intent": "yes"} for n in range(60)])
    refused(train("--target", f"single:{other}", *given), "mine.jsonl has the columns sentence, intent", "Rename")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.jsonl"]


def test_the_help_tells_every_default() -> None:
    options = {p.name: p for p in COMMAND.params}
    assert [name for name in setting_names() if name not in options] == []
    checked = 0
    for field in fields(TrainConfig):
        if field.name in ("force", "resume"):
            assert not options[field.name].default
            continue
        option = options[field.name]
        assert option.default is None or option.required, f"{field.name}: a default here would override a recipe"
        told = re.search(r"\[default: (.*)\]", option.help)
        if field.name in OTHERS and told is None:
            assert field.default == OTHERS[field.name]
            continue
        if field.name in SILENT:
            assert told is None, field.name
            assert field.default in (MISSING, None, ()), field.name
            continue
        assert told, f"{field.name}: its help tells no default"
        checked += 1
        if field.name in SPOKEN:
            assert told[1] == SPOKEN[field.name]
        elif isinstance(field.default, str):
            assert told[1] == field.default
        else:
            assert float(told[1].split(",")[0]) == field.default, field.name
    assert checked in (len(setting_names()) - len(SILENT), len(setting_names()) - len(SILENT) - len(OTHERS))
    assert checked > 25


def test_defaults_in_words_are_the_true_ones() -> None:
    from xt.train.trainer import MICRO_TOKENS

    config = TrainConfig("x", Path("y"), intermediate=("sample-nli",))
    assert MICRO_TOKENS == {"cpu": 1024, "cuda": 16384}
    assert (config.epochs, config.fsdp, config.gradient_checkpointing) == (1.0, "", False)
    assert (config.group_by_length, config.freeze_embeddings) == (True, True)
    assert {getattr(config, n) for n in ("target_steps", "target_epochs", "dropout", "pool_layer")} == {None}
    assert config.contrastive_temperature is None
