"""What is odd about labels is said; what is not is not."""

from __future__ import annotations

import pytest

from xt.core.data.label_checks import folded, label_notes, single_label

FINE = {"a": 30, "b": 20, "c": 10}


def test_ordinary_labels_give_no_note() -> None:
    for format in ("pair", "single", "tagging", "choice", "qa", "regression"):
        assert label_notes(format, FINE, {"dev": {"a": 3, "b": 1}}) == []


@pytest.mark.parametrize(("format", "told"), [("pair", True), ("single", True), ("tagging", True), ("choice", False)])
def test_a_single_label_is_told_where_labels_have_names(format: str, told: bool) -> None:
    assert bool(single_label(format, {"0": 40})) is told
    assert any("nothing to learn" in note for note in label_notes(format, {"0": 40}, {})) is told


def test_a_label_that_training_never_sees_is_named_with_its_count() -> None:
    (note,) = label_notes("single", FINE, {"dev": {"a": 1, "z": 4}, "test": {"b": 1}})
    assert note == "dev has labels that training never sees, so that they are never predicted: z 4"


@pytest.mark.parametrize("twin", ["Not OK", "not  ok", "not\u00a0ok", "NOT OK", "\uff4e\uff4f\uff54 ok"])
def test_labels_that_look_alike_are_named(twin: str) -> None:
    assert folded(twin) == folded("not ok")
    (note,) = label_notes("pair", {"not ok": 9, "fine": 9, twin: 9}, {})
    assert "differ by case, spaces or Unicode form alone" in note and repr(twin) in note
    across = label_notes("pair", {"not ok": 9, "fine": 9}, {"dev": {twin: 2}})
    assert [note.split(" ")[0] for note in across] == ["dev", "labels"]


def test_decomposed_letters_are_the_same_letters() -> None:
    (note,) = label_notes("single", {"caf\u00e9": 5, "cafe\u0301": 5, "tea": 5}, {})
    assert "Unicode form" in note


def test_skew_and_lone_labels_are_told() -> None:
    assert label_notes("single", {"a": 89, "b": 11}, {}) == []
    (skewed,) = label_notes("single", {"a": 90, "b": 10}, {})
    assert skewed == "skewed: the label is 'a' in 90 of 100 training examples (90%)"
    (position,) = label_notes("choice", {"0": 50}, {})
    assert position == "skewed: the right choice is number 0 (from 0) in 50 of 50 training examples (100%)"
    (lone,) = label_notes("single", {"a": 20, "b": 20, "c": 1, "d": 1}, {})
    assert lone == "2 labels have a single training example: c, d"
