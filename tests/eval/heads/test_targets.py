"""A head is measured on its user's own files, whatever they are called: all of them, by its labels, never by guesses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xt.core.data.examples import ReadLog, SingleExample
from xt.core.data.own_task import own_task
from xt.core.data.source_rows import examples
from xt.core.data.sources import locate
from xt.core.data.tasks import Task
from xt.core.errors import XtError
from xt.core.files.artifact import sha256
from xt.eval.heads import targets
from xt.eval.heads.engines import head_for, own_head

LABELS = ("book flight", "cancel", "greet", "Weather")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def intents(count: int, labels: tuple[str, ...] = LABELS, **more: Any) -> list[dict[str, Any]]:
    return [{"text": f"text number {n}", "label": labels[n % len(labels)], **more} for n in range(count)]


@pytest.fixture
def english(tmp_path: Path) -> Path:
    return write(tmp_path / "intents_en.jsonl", intents(100))


@pytest.fixture
def head(english: Path) -> Task:
    """As training on the file keeps it."""
    return replace(own_task(f"single:{english}"), trained_on=(sha256(english),), divided=True)


def read(name: str, head: Task, **options: Any) -> targets.Target:
    row = targets.find(name)
    assert row is not None
    answering = own_head(row, {head.name: head})
    found = targets.read(row, head=answering, **options)
    assert head_for(found.task, {head.name: head}) == head.name
    return found


def test_a_file_of_another_name_and_language_is_measured_whole(tmp_path: Path, head: Task) -> None:
    german = write(tmp_path / "intents_de.jsonl", intents(61, LABELS[:3], language="de"))
    found = read(f"single:{german}", head)
    assert {code: len(rows) for code, rows in found.examples.items()} == {"deu": 61}
    assert found.task.labels == tuple(sorted(LABELS))  # the head's: that the file lacks one is no fault
    assert found.task.name == "intents_de" and found.facts["split"] == "all"
    golds = [found.task.labels[e.label] for e in found.examples["deu"] if isinstance(e, SingleExample)]
    assert golds == [LABELS[n % 3] for n in range(61)]


def test_a_file_whose_name_says_a_split_is_whole_too(tmp_path: Path, head: Task) -> None:
    for name in ("mine_test.jsonl", "mine_dev.jsonl", "val.jsonl", "testing.jsonl"):
        file = write(tmp_path / "other" / name, intents(23))
        assert len(read(f"single:{file}", head).examples["und"]) == 23


def test_labels_may_be_written_in_other_cases_but_positions_are_no_names(tmp_path: Path, head: Task) -> None:
    file = write(tmp_path / "x.jsonl", intents(10, ("GREET", "weather")))
    rows = read(f"single:{file}", head).examples["und"]
    assert [head.labels[e.label] for e in rows[:2] if isinstance(e, SingleExample)] == ["greet", "Weather"]
    file = write(tmp_path / "y.jsonl", intents(10, ("0", "1")))
    with pytest.raises(XtError, match=r"labels that the head intents_en does not know: '0' \(5 rows\), '1' \(5 rows\)"):
        read(f"single:{file}", head)


def test_labels_that_the_head_does_not_know_are_counted_by_name(tmp_path: Path, head: Task) -> None:
    rows = [*intents(40), *({"text": f"x {n}", "label": "refund"} for n in range(7)), {"text": "y", "label": "spam"}]
    file = write(tmp_path / "x.jsonl", rows)
    with pytest.raises(
        XtError, match=r"x\.jsonl has labels that .*: 'refund' \(7 rows\), 'spam' \(1 rows\)\."
    ) as error:
        read(f"single:{file}", head)
    assert "Its labels: Weather, book flight, cancel, greet" in error.value.hint


def test_of_the_file_that_the_head_was_trained_on_the_part_held_out_is_measured(
    tmp_path: Path, english: Path, head: Task
) -> None:
    expected = [e.id for e in examples(locate(own_task(f"single:{english}"), "dev"), ReadLog()) if hasattr(e, "id")]
    copy = tmp_path / "renamed.jsonl"
    copy.write_bytes(english.read_bytes())
    for file in (english, copy):
        found = read(f"single:{file}", head)
        ids = [e.id.replace("renamed", "intents_en") for e in found.examples["und"] if isinstance(e, SingleExample)]
        assert ids == expected and 0 < len(ids) < 40
        assert found.facts["split"] == "dev"
        assert any("measured on the part held out from training" in note for note in found.facts["notes"])
    whole = read(f"single:{english}", replace(head, divided=False))
    assert len(whole.examples["und"]) == 100
    assert any("trained on these very rows" in note for note in whole.facts["notes"])


def test_rows_that_name_their_split_are_those_of_test_else_of_dev(tmp_path: Path, head: Task) -> None:
    rows = [*intents(30, split="Training"), *intents(8, split="val"), *intents(5, split="VALIDATION")]
    file = write(tmp_path / "x.jsonl", rows)
    found = read(f"single:{file}", head)
    assert (found.facts["split"], len(found.examples["und"])) == ("dev", 13)
    assert any("the rows of x.jsonl that say dev (train 30, dev 13)" in note for note in found.facts["notes"])
    file = write(tmp_path / "y.jsonl", [*rows, *intents(4, split="Test")])
    found = read(f"single:{file}", head)
    assert (found.facts["split"], len(found.examples["und"])) == ("test", 4)


def test_of_a_folder_the_test_file_is_measured_else_that_of_dev(tmp_path: Path, head: Task) -> None:
    folder = tmp_path / "mine"
    write(folder / "train.jsonl", intents(50))
    write(folder / "val.jsonl", intents(12))
    found = read(f"single:{folder}", head)
    assert (found.facts["split"], len(found.examples["und"])) == ("dev", 12)
    write(folder / "test.jsonl", intents(9))
    found = read(f"single:{folder}", head)
    assert (found.facts["split"], len(found.examples["und"])) == ("test", 9)


def test_two_files_of_one_split_in_a_folder_are_an_error_that_names_both(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    for name in ("train.jsonl", "dev.jsonl", "val.jsonl"):
        write(folder / name, intents(12))
    with pytest.raises(XtError, match=r"holds dev\.jsonl and val\.jsonl, which are names of one split \(dev\)"):
        own_task(f"single:{folder}")


def test_the_head_is_the_one_that_knows_the_labels_or_is_named(tmp_path: Path, head: Task) -> None:
    tone = replace(head, name="tone", labels=("bad", "good"))
    tags = replace(head, name="tags", format="tagging", labels=("O", "X"))
    trained = {row.name: row for row in (tags, tone, head)}
    german = own_task(f"single:{write(tmp_path / 'intents_de.jsonl', intents(20))}")
    assert own_head(german, trained) is head
    assert own_head(german, trained, "tone") is tone
    twin = {**trained, "more": replace(head, name="more", labels=(*head.labels, "z"))}
    with pytest.raises(XtError, match=r"Several heads could answer .*intents_de\.jsonl: intents_en, more\.") as error:
        own_head(german, twin)
    assert "--head" in error.value.hint
    assert own_head(german, twin, "more").name == "more"
    named = {**twin, "intents_de": replace(head, name="intents_de")}
    assert own_head(german, named).name == "intents_de"
    with pytest.raises(XtError, match="Unknown head 'tune'. Did you mean tone"):
        own_head(german, trained, "tune")
    with pytest.raises(XtError, match="The head tags is of the format tagging; .* is given as single"):
        own_head(german, trained, "tags")
    with pytest.raises(XtError, match=r"no head for single data .*; the heads: tags \(tagging\)"):
        own_head(german, {"tags": tags})
