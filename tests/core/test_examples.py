"""The samples are whole and balanced, and a row that is not is named by file and line."""

import json
from pathlib import Path
from typing import Any

import pytest

from xt.core import tasks
from xt.core.errors import XtError
from xt.core.examples import ChoiceExample, PairExample, QaExample, read_examples, read_jsonl

KINDS = {"pair": PairExample, "choice": ChoiceExample, "qa": QaExample}
ROWS: dict[str, dict[str, Any]] = {
    "sample-nli": {"premise": "It rains.", "hypothesis": "It is wet.", "label": "entailment"},
    "sample-choice": {"prompt": "It rained, so", "choices": ["it is wet", "it is dry"], "label": 0},
    "sample-qa": {"context": "Anna lives in Bern.", "question": "Where?", "answer": "Bern", "answer_start": 14},
}


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    """A file of these rows, each with an id and a split where it has none."""
    path = folder / "rows.jsonl"
    lines = [json.dumps({"id": f"r{i}", "split": "train", **row}) for i, row in enumerate(rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", tasks.names("intermediate"))
def test_every_sample_has_150_examples_and_no_text_in_both_splits(name: str) -> None:
    task = tasks.get(name)
    train, dev = read_examples(task, "train"), read_examples(task, "dev")
    assert len(train) >= 150
    assert len(dev) >= 50
    assert {type(e) for e in (*train, *dev)} == {KINDS[task.format]}
    assert not {e.id for e in train} & {e.id for e in dev}


@pytest.mark.parametrize("name", ["sample-nli", "sample-paraphrase", "sample-choice"])
@pytest.mark.parametrize("split", ["train", "dev"])
def test_the_labels_of_every_sample_are_balanced(name: str, split: str) -> None:
    task = tasks.get(name)
    labels = [e.label for e in read_examples(task, split) if isinstance(e, PairExample | ChoiceExample)]
    counts = {label: labels.count(label) for label in set(labels)}
    assert set(counts) == set(range(len(task.labels) or 4))
    assert len(set(counts.values())) == 1


def test_rows_become_examples(tmp_path: Path) -> None:
    path = write(tmp_path, {**ROWS["sample-nli"], "label": "contradiction"})
    pair = read_examples(tasks.get("sample-nli"), "train", path=path)
    assert pair == [PairExample("r0", "It rains.", "It is wet.", 2)]
    choice = read_examples(tasks.get("sample-choice"), "train", path=write(tmp_path, ROWS["sample-choice"]))
    assert choice == [ChoiceExample("r0", "It rained, so", ("it is wet", "it is dry"), 0)]
    qa = read_examples(tasks.get("sample-qa"), "train", path=write(tmp_path, ROWS["sample-qa"]))
    assert qa == [QaExample("r0", "Anna lives in Bern.", "Where?", "Bern", 14)]


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("sample-nli", {"label": "entailed"}, "label 'entailed' is none of entailment, neutral, contradiction"),
        ("sample-nli", {"premise": "  "}, "premise is empty"),
        ("sample-nli", {"premise": 3}, "premise is int, expected str"),
        ("sample-nli", {"premise": "\ud800"}, "premise is not valid Unicode"),
        ("sample-nli", {"split": "test"}, "split 'test' is none of train, dev"),
        ("sample-nli", {"id": "r0"}, "id 'r0' stands on line 1 already"),
        ("sample-choice", {"label": 2}, "label 2 is no position of 2 choices"),
        ("sample-choice", {"label": -1}, "label -1 is no position"),
        ("sample-choice", {"label": True}, "label is bool, expected int"),
        ("sample-choice", {"choices": ["one"]}, "1 different choices of 1"),
        ("sample-choice", {"choices": ["same", "same"]}, "1 different choices of 2"),
        ("sample-choice", {"choices": ["one", ""]}, "choice 1 is empty"),
        ("sample-qa", {"answer_start": 13}, "answer 'Bern' is not in the context at character 13"),
        ("sample-qa", {"answer_start": -5}, "not in the context at character -5"),
        ("sample-qa", {"answer": "bern"}, r"answer 'bern' is not in the context at character 14 \(there: 'Bern'\)"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(name: str, change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = write(tmp_path, ROWS[name], {**ROWS[name], **change})
    with pytest.raises(XtError, match=reason) as error:
        read_examples(tasks.get(name), "dev", path=path)
    assert f"{path}, line 2: " in error.value.message


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "a"', "not JSON"),
        (b'["a"]', "a JSON list, expected an object"),
        (b'{"id": "\xff"}', r"not UTF-8 \(byte 8"),
        (b'{"name": "a"}', "lacks id"),
    ],
)
def test_a_line_that_is_no_row_is_named(line: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"id": "ok"}\n\n' + line + b"\n")
    with pytest.raises(XtError, match=reason) as error:
        list(read_jsonl(path, {"id": str}))
    assert f"{path}, line 3: " in error.value.message


def test_line_separators_inside_a_text_do_not_end_the_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": "one\u2028two\u0085three"}\r\n{"id": "b"}', encoding="utf-8")
    assert list(read_jsonl(path, {"id": str})) == [(1, {"id": "one\u2028two\u0085three"}), (2, {"id": "b"})]


def test_a_missing_file_an_empty_split_and_an_unknown_split_are_errors(tmp_path: Path) -> None:
    task = tasks.get("sample-nli")
    with pytest.raises(XtError, match="There is no file"):
        read_examples(task, "train", path=tmp_path / "no.jsonl")
    with pytest.raises(XtError, match="has no row with split 'dev'"):
        read_examples(task, "dev", path=write(tmp_path, ROWS["sample-nli"]))
    with pytest.raises(XtError, match="Did you mean train"):
        read_examples(task, "trian")
    with pytest.raises(XtError, match="django is a target task"):
        read_examples(tasks.get("django"), "train")
