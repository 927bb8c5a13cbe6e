"""What belongs together is held out together, always the same; unusable rows are counted, and too many stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from xt.core.data.examples import (
    KEPT_REASONS,
    CaptionExample,
    ChoiceExample,
    Example,
    PairExample,
    QaExample,
    ReadLog,
    ScoredExample,
    SingleExample,
    TaggedExample,
    TextExample,
    TupleExample,
    group,
    held_out,
)
from xt.core.errors import XtError

GOLDEN = "0011001000001000111001000000000001000010"
"""Which of `text 0`, `text 1`, ... are held out (1): a change would leak what older runs held out."""
TOGETHER: list[tuple[Example, Example]] = [
    (PairExample("1", "premise", "one", 0), PairExample("2", "premise", "two", 1)),
    (ScoredExample("1", "first", "one", 0.5), ScoredExample("2", "first", "two", 1.0)),
    (ChoiceExample("1", "prompt", ("a", "b"), 0), ChoiceExample("2", "prompt", ("c", "d"), 1)),
    (QaExample("1", "context", "who ?", ("c",), (0,)), QaExample("2", "context", "what ?", (), ())),
    (TupleExample("1", "anchor", "one"), TupleExample("2", "anchor", "two", "three")),
    (CaptionExample("1", "a cat", 3), CaptionExample("2", "un chat", 3, "fra")),
    (SingleExample("1", "text", 0), SingleExample("2", "text", 1)),
    (TextExample("1", "text"), TextExample("2", "text")),
    (TaggedExample("1", ("a", "b"), (0, 1)), TaggedExample("2", ("a", "b"), (1, 1))),
]


@pytest.mark.parametrize(("one", "other"), TOGETHER, ids=lambda e: type(e).__name__)
def test_examples_of_one_text_are_in_one_part(one: Example, other: Example) -> None:
    assert group(one) == group(other)
    assert all(held_out(one, share / 20) == held_out(other, share / 20) for share in range(21))


def test_a_larger_share_holds_out_the_same_and_more() -> None:
    rows = [PairExample(str(n), f"text {n}", "x", 0) for n in range(5000)]
    parts = {share: {r.id for r in rows if held_out(r, share)} for share in (0.0, 0.1, 0.2, 0.5, 1.0)}
    assert [len(p) / 5000 for p in parts.values()] == pytest.approx([0, 0.1, 0.2, 0.5, 1], abs=0.02)
    assert parts[0.1] < parts[0.2] < parts[0.5]


def test_the_held_out_part_is_the_same_for_ever() -> None:
    found = "".join(str(int(held_out(TextExample("", f"text {n}"), 0.2))) for n in range(40))
    assert found == GOLDEN


def test_reasons_are_kept_with_file_and_line_the_rest_is_counted() -> None:
    log = ReadLog(read=10_000)
    for line in range(1, 31):
        log.reject(Path("a/b.tsv"), line, "first is empty.")
    assert log.unusable == 30
    assert len(log.first) == KEPT_REASONS == 20
    assert log.first[0] == "a/b.tsv, line 1: first is empty."
    log.check("mine")  # 0.3 %


@pytest.mark.parametrize(("read", "unusable", "stops"), [(99, 1, False), (98, 2, True), (0, 0, False), (0, 1, True)])
def test_more_than_one_in_a_hundred_stops(read: int, unusable: int, stops: bool) -> None:
    log = ReadLog(read=read)
    for n in range(unusable):
        log.reject("rows.jsonl", n + 7, "not JSON.")
    if not stops:
        log.check("mine")
        return
    with pytest.raises(XtError) as error:
        log.check("mine, training data")
    total = read + unusable
    assert error.value.message.startswith(
        f"mine, training data: {unusable} of {total} rows cannot be used, more than 1.0%:\nrows.jsonl, line 7: not JSON."
    )


@pytest.mark.parametrize(("read", "unusable"), [(98, 2), (3, 1), (0, 5), (1000, 11), (7, 93)])
def test_the_share_that_the_hint_names_lets_it_go_on(read: int, unusable: int) -> None:
    log = ReadLog(read=read, unusable=unusable)
    with pytest.raises(XtError) as error:
        log.check("mine")
    named = float(error.value.hint.partition("--allow-unusable ")[2].rstrip(")."))
    log.check("mine", named)
