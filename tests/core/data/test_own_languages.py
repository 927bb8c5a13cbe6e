"""A user's own rows count in the languages they name, whatever they call them; what is left out is counted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from xt.core.data.examples import ReadLog, SingleExample
from xt.core.data.own_task import own_task
from xt.core.data.source_rows import examples, tagged
from xt.core.data.sources import locate
from xt.core.errors import XtError
from xt.eval.heads import targets

SPELLINGS = {
    "deu": ("deu", "de", "German", "deu_Latn", "de-AT"),
    "cmn": ("zh-CN", "Chinese", "zho_Hans"),
    "tir": ("TIR",),
}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A hundred rows that name no language, and twenty of each spelling."""
    rows: list[dict[str, Any]] = [{"text": f"plain {n}", "label": "ab"[n % 2]} for n in range(100)]
    for code, names in SPELLINGS.items():
        rows += [
            {"text": f"{code} {name} {n}", "label": "ab"[n % 2], "language": name} for name in names for n in range(20)
        ]
    return write(tmp_path / "mixed.jsonl", rows)


WANTED = {"und": 100, "deu": 100, "cmn": 60, "tir": 20}


def test_every_row_is_trained_on_or_held_out_in_the_language_it_names(mixed: Path) -> None:
    task = own_task(f"single:{mixed}")
    assert set(task.codes) == set(WANTED)
    logs = {split: ReadLog() for split in ("train", "dev")}
    found = {split: list(tagged(locate(task, split), log)) for split, log in logs.items()}
    by_language = Counter(code for pairs in found.values() for code, _ in pairs)
    assert by_language == WANTED
    for split, log in logs.items():
        assert log.languages == Counter(code for code, _ in found[split])
        assert log.labels == Counter(task.labels[e.label] for _, e in found[split] if isinstance(e, SingleExample))
        assert log.left_out == {}
    assert sum(log.unknown_languages["TIR"] for log in logs.values()) == 20


@pytest.mark.parametrize("asked", ["deu", "de", "German", "deu_Latn"])
def test_one_language_is_found_and_the_others_are_counted_as_left_out(mixed: Path, asked: str) -> None:
    log = ReadLog()
    for split in ("train", "dev"):
        rows = list(examples(locate(own_task(f"single:{mixed}"), split, language=asked), log))
        assert rows and all(isinstance(e, SingleExample) and e.text.startswith("deu") for e in rows)
    assert log.languages == {"deu": 100}
    assert log.left_out == {code: count for code, count in WANTED.items() if code != "deu"}
    assert "left out, in other languages: und 100, cmn 60, tir 20" in log.notes()


def test_a_file_in_one_language_that_is_not_english_is_read(tmp_path: Path) -> None:
    file = write(tmp_path / "g.jsonl", [{"text": f"t {n}", "label": "ab"[n % 2], "language": "deu"} for n in range(60)])
    task = own_task(f"single:{file}")
    assert sum(len(list(examples(locate(task, split), ReadLog()))) for split in ("train", "dev")) == 60


def test_a_language_that_is_no_text_is_an_unusable_row(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": f"t {n}", "label": "ab"[n % 2], "language": "deu"} for n in range(3)]
    file = write(tmp_path / "n.jsonl", [*rows, {"text": "x", "label": "a", "language": 3}])
    log = ReadLog()
    assert len(list(examples(locate(own_task(f"single:{file}"), "train"), log))) <= 3
    assert log.first == [f"{file}, line 4: language is int (3), expected a code such as deu."]


def test_a_column_that_holds_no_languages_is_told(tmp_path: Path) -> None:
    rows = [{"text": f"t {n}", "label": "a", "language": f"free text {n}"} for n in range(1500)]
    with pytest.raises(XtError, match=r"more than 1,000 different values in the column language \('free text 0'"):
        own_task(f"single:{write(tmp_path / 'w.jsonl', rows)}")


# --- measured -------------------------------------------------------------------------------------------------------


@pytest.fixture
def test_file(tmp_path: Path, mixed: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    mixed.rename(folder / "test.jsonl")
    return folder


def test_a_test_file_is_measured_in_every_language_it_names(test_file: Path) -> None:
    row = targets.find(f"single:{test_file}")
    assert row is not None
    found = targets.read(row)
    assert {code: len(rows) for code, rows in found.examples.items()} == WANTED
    assert found.facts["left_out"] == {}
    assert found.facts["notes"] == ["languages that xt does not know, used as named: TIR 20"]


@pytest.mark.parametrize(
    ("asked", "codes"), [("deu", ["deu"]), ("zh,de", ["cmn", "deu"]), ("high-resource", None), ("tir", ["tir"])]
)
def test_the_languages_asked_for_are_measured(test_file: Path, asked: str, codes: list[str] | None) -> None:
    row = targets.find(f"single:{test_file}")
    assert row is not None
    found = targets.read(row, selection=asked)
    assert sorted(found.examples) == sorted(codes or ["cmn", "deu"])
    assert sum(found.facts["left_out"].values()) == 280 - sum(map(len, found.examples.values()))


def test_a_language_that_no_row_names_is_an_error_that_says_which_there_are(test_file: Path) -> None:
    row = targets.find(f"single:{test_file}")
    assert row is not None
    with pytest.raises(XtError, match="French") as error:
        targets.read(row, selection="fra")
    assert "deu" in error.value.hint


def test_rows_that_name_no_language_are_those_of_the_one_asked_for(tmp_path: Path) -> None:
    file = write(tmp_path / "test.jsonl", [{"text": f"t {n}", "label": "ab"[n % 2]} for n in range(20)])
    row = targets.find(f"single:{file}")
    assert row is not None
    assert list(targets.read(row).examples) == ["und"]
    found = targets.read(row, selection="de")
    assert {code: len(rows) for code, rows in found.examples.items()} == {"deu": 20}
    assert "taken to be in deu" in found.facts["notes"][0]


def test_a_gzipped_file_with_splits_is_not_divided(tmp_path: Path) -> None:
    import gzip

    rows = [
        {"text": f"{split} {n}", "label": "ab"[n % 2], "split": split} for split in ("train", "dev") for n in range(9)
    ]
    rows.insert(0, {"text": "none", "label": "a"})
    file = tmp_path / "MINE.JSONL.GZ"
    file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    task = own_task(f"single:{file}")
    for split in ("train", "dev"):
        source = locate(task, split)
        assert source.part is None
        texts = [e.text for e in examples(source, ReadLog()) if isinstance(e, SingleExample)]
        assert texts == ["none", *(f"{split} {n}" for n in range(9))]
