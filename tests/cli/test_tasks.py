"""`xt tasks FORMAT:PATH`: what it prints of own data, and how it ends."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from xt.cli.main import app
from xt.core.errors import CheckFailed, XtError


def tasks(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["tasks", *map(str, arguments)])


@pytest.fixture
def intents(tmp_path: Path) -> Path:
    file = tmp_path / "intents.CSV"
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["text", "label", "language"])
        writer.writerows([f"spiele lied {n}, bitte", ("play", "stop")[n % 2], "German"] for n in range(200))
    return file


def test_own_data_are_counted_on_one_page_or_in_one_document(intents: Path) -> None:
    answer = tasks(f"single:{intents}", "--json")
    assert answer.exit_code == 0, answer.exception
    found = json.loads(answer.stdout)
    parts = found["splits"]
    assert sum(part["examples"] for part in parts.values()) == 200
    assert {code for part in parts.values() for code in part["languages"]} == {"deu"}
    assert sum(part["labels"]["play"] for part in parts.values()) == 100
    assert 5 < parts["train"]["tokens"]["max"] < 30 and parts["train"]["tokens"]["longer_than_512"] == 0
    assert (found["unusable"], found["warnings"], found["problems"]) == (0, [], [])
    for line in ("intents: single, metric accuracy", "train languages: deu", "nothing is odd", "80 % of"):
        assert line in answer.stderr


def test_data_that_a_training_would_refuse_end_with_3_and_the_document(tmp_path: Path) -> None:
    file = tmp_path / "one.tsv"
    file.write_text("text\tlabel\n" + "".join(f"a {n}\tyes\n" for n in range(40)))
    answer = tasks(f"single:{file}", "--json")
    assert isinstance(answer.exception, CheckFailed) and answer.exception.exit_code == 3
    assert "nothing to learn" in str(answer.exception)
    assert "nothing to learn" in json.loads(answer.stdout)["problems"][0]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("single:wrong.csv", "has the columns a, b; single data need text, label"),
        ("single:none.csv", "there is no"),
        ("poem:wrong.csv", "is no task and no FORMAT:PATH"),
    ],
)
def test_what_is_no_own_data_is_told(name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.csv").write_text("a,b\n1,2\n")
    answer = tasks(name)
    assert isinstance(answer.exception, XtError) and told in answer.exception.message


def test_a_tokenizer_is_for_own_data_alone() -> None:
    assert tasks("squad-v2", "--encoder", "multilingual-e5-small").exit_code == 2
