"""Own data are checked before training: counted as written, refused with the columns that they have.

Tests `core/data/own_task.py` as well.
"""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xt.core.data.own_data import WHOLE, Ruler, check_own
from xt.core.data.own_task import own_task
from xt.core.data.readers.discover import COLUMNS, discover
from xt.core.encoder.spec import EncoderSpec
from xt.core.errors import XtError
from xt.core.heads.inputs import Inputs

ROWS = {
    "pair": {"first": "a", "second": "b", "label": "x"},
    "single": {"text": "a", "label": "x"},
    "regression": {"first": "a", "second": "b", "score": 1.5},
    "choice": {"prompt": "p", "choices": ["a", "b"], "label": 0},
    "qa": {"context": "a b", "question": "q", "answers": ["b"], "starts": [2]},
    "tagging": {"words": ["a"], "labels": ["x"]},
    "contrastive": {"anchor": "a", "positive": "b"},
    "mlm": {"text": "a"},
}


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def table(path: Path, header: list[str], *rows: list[object]) -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.mark.parametrize("format", ROWS)
def test_a_file_without_a_needed_column_names_what_it_has_and_what_is_expected(format: str, tmp_path: Path) -> None:
    assert set(ROWS) == set(COLUMNS) - {"image-text"}
    for missing in COLUMNS[format]:
        row = {key: value for key, value in ROWS[format].items() if key != missing}
        file = jsonl(tmp_path / f"{missing}.jsonl", {**row, "other": "x"}, {**row, "other": "y"})
        with pytest.raises(XtError) as error:
            discover(format, [file])
        told = f"{file} has the columns {', '.join([*row, 'other'])}; {format} data need {', '.join(COLUMNS[format])}."
        assert error.value.message == told
    assert discover(format, [jsonl(tmp_path / "right.jsonl", ROWS[format])]).rows == 1


@pytest.mark.parametrize(
    ("header", "hint"),
    [
        (["sentence", "intent"], "Rename sentence to text, intent to label."),
        (["Text", "Label"], "Rename Text to text, Label to label."),
        (["txet", "lable"], "Rename txet to text, lable to label."),
        (["text", "category"], "Rename category to label."),
        (["text;label"], "Its columns stand between ';'"),
        (["x", "y"], "The columns of every format"),
    ],
)
def test_the_columns_that_are_meant_are_guessed(header: list[str], hint: str, tmp_path: Path) -> None:
    file = table(tmp_path / "mine.csv", header, ["a"] * len(header))
    with pytest.raises(XtError) as error:
        own_task(f"single:{file}")
    assert f"{file} has the columns {', '.join(header)}; single data need text, label." == error.value.message
    assert error.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("content", "told"), [(b"", "holds no rows"), (b"{\n[1]\n", "holds no rows that can be read. The first: .* line 1")]
)
def test_a_file_without_rows_is_refused(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_bytes(content)
    with pytest.raises(XtError, match=told):
        own_task(f"single:{tmp_path / 'mine.jsonl'}")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A CSV with quotes, line breaks, capitals in its name, packed: 60 training, 20 dev and 3 unusable rows."""
    rows: list[list[object]] = [
        [
            f'say "{n}",\nplease ' + "word " * n,
            "no" if n % 2 else "yes",
            "de" if n < 30 else "",
            "dev" if n >= 60 else "train",
        ]
        for n in range(80)
    ]
    rows += [
        ["", "yes", "de", "train"],
        ["x", "", "de", "dev"],
        ["y", "maybe", "xx", "dev"],
        ["z", "yes", "de", "none"],
    ]
    table(tmp_path / "plain.csv", ["text", "label", "language", "split"], *rows)
    file = tmp_path / "MINE.CSV.GZ"
    file.write_bytes(gzip.compress((tmp_path / "plain.csv").read_bytes()))
    return file


def test_a_check_counts_rows_labels_languages_and_what_is_unusable(mine: Path) -> None:
    found = check_own(f"single:{mine}", None, max_length=256)
    train, dev = found["splits"]["train"], found["splits"]["dev"]
    assert (train["examples"], dev["examples"]) == (60, 21)
    assert train["labels"] == {"yes": 30, "no": 30} and dev["labels"] == {"yes": 10, "no": 10, "maybe": 1}
    assert train["languages"] == {"deu": 30, "und": 30} and dev["languages"] == {"und": 20, "xx": 1}
    assert found["unusable"] == 3
    assert [line.split(": ", 1)[1].split(" ")[0] for line in found["first_unusable"]] == ["text", "split", "label"]
    assert all(line.startswith(f"{mine}, line 1") for line in found["first_unusable"])
    assert found["languages_unknown"] == {"xx": 1}
    assert found["warnings"] == ["dev has labels that training never sees, so that they are never predicted: maybe 1"]
    assert found["problems"] == ["3 of 84 rows cannot be used, more than 1%"]


def test_lengths_are_those_of_the_tokenizer(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    frame = [("<s>", 0), ("</s>", 1)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=frame)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    spec = EncoderSpec("words", 4, prefixes={"query": "query: "}, default_prefix="query", max_length=48)
    measure = Ruler("words", Inputs(tmp_path / "tokenizer.json", replace(spec, max_length=WHOLE)), 48)
    file = jsonl(
        tmp_path / "t.jsonl", *({"text": "w " * n, "label": "xy"[n % 2], "split": "train"} for n in range(1, 61))
    )
    told = check_own(f"single:{file}", measure, max_length=32)["splits"]["train"]["tokens"]
    lengths = np.arange(1, 61) + 3  # the words, the prefix, both ends
    assert told == {
        "mean": 33.5, "median": 33.5, "p95": float(np.quantile(lengths, 0.95)), "max": 63,
        "longer_than_32": 31, "longer_than_48": 15,
    }  # fmt: skip


def test_what_cannot_be_learnt_is_a_problem(tmp_path: Path) -> None:
    one = jsonl(tmp_path / "one.jsonl", *({"text": f"t {n}", "label": "x"} for n in range(50)))
    assert "nothing to learn" in check_own(f"single:{one}", None, max_length=256)["problems"][0]
    flat = jsonl(tmp_path / "flat.jsonl", *({"first": f"t {n}", "second": "b", "score": 3} for n in range(50)))
    assert check_own(f"regression:{flat}", None, max_length=256)["problems"] == [
        "every score is 3.0: there is nothing to learn"
    ]


def test_examples_that_stand_in_two_splits_and_ids_that_stand_twice_are_told(tmp_path: Path) -> None:
    rows = [{"text": f"t {n}", "label": "xy"[n % 2], "split": "train", "id": n // 2} for n in range(40)]
    rows += [{"text": f"t {n}", "label": "xy"[n % 2], "split": "dev"} for n in range(35, 50)]
    found = check_own(f"single:{jsonl(tmp_path / 'm.jsonl', *rows)}", None, max_length=256)
    assert found["warnings"] == [
        "5 examples of dev stand in training too",
        "20 examples of train have the id of another",
    ]


def test_files_of_a_folder_that_are_none_of_its_splits_are_named(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        jsonl(tmp_path / f"{split}.jsonl", *({"text": f"{split} {n}", "label": "xy"[n % 2]} for n in range(9)))
    jsonl(tmp_path / "more.jsonl", {"text": "a", "label": "x"})
    found = check_own(f"single:{tmp_path}", None, max_length=256)
    assert found["splits"]["train"]["note"] == f"not read in {tmp_path}: more.jsonl"


def test_a_pipe_is_refused_before_it_is_read(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(XtError, match="is neither a file nor a folder"):
        own_task(f"mlm:{tmp_path / 'pipe.txt'}")
