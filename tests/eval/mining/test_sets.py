"""BUCC's layout is read as it is, and every fault of a file is named with its line."""

from __future__ import annotations

import pytest

from xt.core.data.bitext import Bitext
from xt.core.errors import XtError
from xt.eval.mining.sets import (
    MiningSet,
    Sentences,
    find_mining,
    mining_set_from_bitext,
    read_bucc,
    read_gold,
    read_mining,
    read_sentences,
)


def bucc(folder, *, pair="de-en", names=("dev", "test"), ids=True):
    """Four sentences a side and two gold pairs, for each part."""
    code = pair.partition("-")[0]
    folder.mkdir(parents=True, exist_ok=True)
    for part in names:
        for side in (code, "en"):
            lines = [f"{side}-{i}\t{part} {side} satz {i}" if ids else f"{part} {side} satz {i}" for i in range(1, 5)]
            (folder / f"{pair}.{part}.{side}").write_text("\n".join(lines) + "\n", encoding="utf-8")
        gold = [f"{code}-{i}\ten-{i}" if ids else f"{i}\t{i}" for i in (1, 3)]
        (folder / f"{pair}.{part}.gold").write_text("\n".join(gold) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("names", [("dev", "test"), ("sample", "training")])
@pytest.mark.parametrize("ids", [True, False])
def test_the_layout_of_bucc_is_read(tmp_path, names, ids):
    (task,) = read_mining(bucc(tmp_path / "x", names=names, ids=ids))
    assert task.language == "deu"
    assert task.dev.foreign.texts[0] == f"{names[0]} de satz 1"
    assert task.test.english.texts[3] == f"{names[1]} en satz 4"
    assert task.test.gold == ({("de-1", "en-1"), ("de-3", "en-3")} if ids else {("1", "1"), ("3", "3")})


def test_bucc_is_found_below_the_data_folder_with_its_languages_in_folders_too(tmp_path):
    for code in ("de", "fr"):
        bucc(tmp_path / "bucc2018" / f"{code}-en", pair=f"{code}-en", names=("sample", "training"))
    assert [t.language for t in read_bucc(tmp_path)] == ["deu", "fra"]
    assert [t.language for t in read_bucc(tmp_path, "fr")] == ["fra"]
    with pytest.raises(XtError, match="BUCC is not there"):
        read_bucc(tmp_path / "bucc2018")


def test_a_set_without_a_dev_part_is_refused(tmp_path):
    with pytest.raises(XtError, match="no dev part of deu: the threshold must come from other data"):
        find_mining(bucc(tmp_path, names=("test",)))


def test_two_parts_of_one_name_are_refused(tmp_path):
    bucc(tmp_path, names=("dev", "sample", "test"))
    with pytest.raises(XtError, match=r"dev of deu twice: de-en\.dev\.gold, de-en\.sample\.gold"):
        find_mining(tmp_path)


def test_a_missing_side_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(XtError, match="holds nothing to mine"):
        find_mining(tmp_path)
    bucc(tmp_path)
    (tmp_path / "de-en.dev.en").unlink()
    with pytest.raises(XtError, match=r"de-en\.dev\.gold has no de-en\.dev\.en beside it"):
        find_mining(tmp_path)
    with pytest.raises(XtError, match="There is no folder"):
        find_mining(tmp_path / "no")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tone\na\ttwo\n", r"line 2: the id 'a' is on line 1 already"),
        ("a\tone\ntwo\n", r"line 2: expected id<TAB>text, as in line 1"),
        ("one\na\ttwo\n", r"line 2: expected a sentence without a tab, as in line 1"),
        ("a\tone\nb\t \n", r"line 2 is empty"),
        ("", "is empty"),
        (b"a\tna\xefve\n", r"line 1: not UTF-8 "),
    ],
)
def test_faulty_sentences_are_refused_by_line(tmp_path, text, message):
    file = tmp_path / "x"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(XtError, match=message):
        read_sentences(file)


def test_faulty_gold_is_refused_by_line(tmp_path):
    file = tmp_path / "gold"
    for text, message in (
        ("a\tb\na\tb\n", "line 2: the pair is on line 1 already"),
        ("a b\n", "line 1: 1 cells; expected two ids"),
        ("a\t\n", "line 1: 2 cells"),
    ):
        file.write_text(text)
        with pytest.raises(XtError, match=message):
            read_gold(file)


def test_gold_that_names_no_sentence_and_no_gold_at_all_are_refused():
    side = Sentences(("a", "b"), ("one", "two"))
    with pytest.raises(XtError, match="2 gold pairs name ids that no sentence has, 'x' first"):
        MiningSet(side, side, frozenset({("a", "b"), ("x", "a"), ("y", "b")}), "here")
    with pytest.raises(XtError, match="there are no gold pairs"):
        MiningSet(side, side, frozenset(), "here")


def test_a_corpus_too_small_to_be_divided_is_refused():
    with pytest.raises(XtError, match=r"deu: \d+ pairs fall to (dev|test); nothing can be mined"):
        mining_set_from_bitext(Bitext("deu", tuple("abcdefgh"), tuple("stuvwxyz")), 0)


def test_packed_files_are_mined_too(tmp_path):
    import gzip

    for part in ("dev", "test"):
        for side, content in (("de", "a\teins\n"), ("en", "b\tone\n"), ("gold", "a\tb\n")):
            (tmp_path / f"de-en.{part}.{side}.gz").write_bytes(gzip.compress(content.encode()))
    (task,) = read_mining(tmp_path)
    assert (task.language, task.dev.foreign.texts, task.test.gold) == ("deu", ("eins",), frozenset({("a", "b")}))
