"""Line-aligned files are read exactly or refused by file and line; Django's sentences are real sentences."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xt.core import languages
from xt.core.data import bitext
from xt.core.data.bitext import Bitext, find_pairs, read_django, read_folder, read_lines, read_pair, read_tatoeba
from xt.core.errors import XtError


def write(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def pair(folder: Path, foreign: str | bytes, english: str | bytes, name: str = "x.deu-eng") -> Bitext:
    return read_pair("deu", write(folder, f"{name}.deu", foreign), write(folder, f"{name}.eng", english))


def test_line_n_translates_line_n(tmp_path):
    found = pair(tmp_path, "eins\nzwei\n", "one\ntwo\n")
    assert found == Bitext("deu", ("eins", "zwei"), ("one", "two"))


@pytest.mark.parametrize("data", ["eins\nzwei", "eins\nzwei\n", "eins\r\nzwei\r\n", " eins \n\tzwei\r\n"])
def test_line_ends_and_outer_spaces_do_not_matter(tmp_path, data):
    assert read_lines(write(tmp_path, "x", data)) == ["eins", "zwei"]


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\r"])
def test_only_a_newline_ends_a_line(tmp_path, letter):
    assert read_lines(write(tmp_path, "x", f"one{letter}two\nthree\n")) == [f"one{letter}two", "three"]


def test_a_byte_order_mark_is_no_part_of_the_first_sentence(tmp_path):
    assert read_lines(write(tmp_path, "x", b"\xef\xbb\xbfeins\r\nzwei\r\n")) == ["eins", "zwei"]


def test_misaligned_files_are_refused_with_both_counts(tmp_path):
    with pytest.raises(XtError, match=r"x\.deu-eng\.deu has 3 lines and x\.deu-eng\.eng has 2: .* not aligned"):
        pair(tmp_path, "eins\nzwei\ndrei\n", "one\ntwo\n")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "x is empty"),
        (b"\n", "x, line 1 is empty"),
        (b"one\n\nthree\n", "x, line 2 is empty"),
        (b"one\n \t\r\nthree\n", "x, line 2 is empty"),
        (b"one\ntwo\n\n", "x, line 3 is empty"),
        (b"one\ntw\0o\n", "x, line 2 holds a NUL"),
        (b"one\nna\xefve\n", r"x, line 2: not UTF-8 \(byte 2: invalid continuation byte\)"),
        ("größe\n".encode("latin-1"), r"x, line 1: not UTF-8 \(byte 2: invalid start byte\)"),
        ("one\n".encode("utf-16"), r"x: expected UTF-8 text, found UTF-16"),
    ],
)
def test_a_bad_line_is_refused_by_file_and_line(tmp_path, data, message):
    with pytest.raises(XtError, match=message):
        read_lines(write(tmp_path, "x", data))


def test_a_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(XtError, match="There is no file"):
        read_lines(tmp_path / "absent")


def test_a_bitext_needs_as_many_sentences_on_both_sides():
    with pytest.raises(XtError, match="deu: 2 sentences against 1 English"):
        Bitext("deu", ("a", "b"), ("a",))
    with pytest.raises(XtError, match="no sentence pairs"):
        Bitext("deu", (), ())


@pytest.mark.parametrize(
    "name", ["corpus.deu-eng", "corpus.eng-deu", "news.v2.deu-eng", "set.deu-en", "set.eng_Latn-deu"]
)
def test_english_may_be_on_either_side(tmp_path, name):
    other = next(part for part in name.split(".")[-1].split("-") if part != "deu")
    write(tmp_path, f"{name}.deu", "eins\n")
    write(tmp_path, f"{name}.{other}", "one\n")
    write(tmp_path, "README.md", "not a corpus")
    assert read_folder(tmp_path) == [Bitext("deu", ("eins",), ("one",))]


@pytest.mark.parametrize("missing", ["deu", "eng"])
def test_a_missing_partner_is_named_even_beside_whole_pairs(tmp_path, missing):
    pair(tmp_path, "eins\n", "one\n")
    write(tmp_path, "x.fra-eng.fra", "un\n")
    write(tmp_path, "x.fra-eng.eng", "one\n")
    (tmp_path / f"x.deu-eng.{missing}").unlink()
    with pytest.raises(XtError, match=rf"x\.deu-eng\.\w+ has no partner x\.deu-eng\.{missing}"):
        find_pairs(tmp_path)


def test_a_language_twice_is_refused(tmp_path):
    pair(tmp_path, "eins\n", "one\n", "a.deu-eng")
    pair(tmp_path, "eins\n", "one\n", "b.deu-eng")
    with pytest.raises(XtError, match=r"holds deu twice: a\.deu-eng\.deu, b\.deu-eng\.deu"):
        find_pairs(tmp_path)


def test_a_folder_without_pairs_says_what_was_expected(tmp_path):
    write(tmp_path, "x.deu-fra.deu", "eins\n")
    write(tmp_path, "x.deu-fra.fra", "un\n")
    with pytest.raises(XtError, match="no line-aligned files with English") as refused:
        read_folder(tmp_path)
    assert "corpus.deu-eng.deu" in refused.value.hint
    with pytest.raises(XtError, match="There is no folder"):
        read_folder(tmp_path / "absent")


def test_a_selection_reads_only_those_languages(tmp_path):
    pair(tmp_path, "eins\n", "one\n")
    for code, text in (("fra", "un\n"), ("swh", "\n\n")):
        write(tmp_path, f"x.{code}-eng.{code}", text)
        write(tmp_path, f"x.{code}-eng.eng", "one\n")
    assert [b.language for b in read_folder(tmp_path, "deu,fra")] == ["deu", "fra"]
    with pytest.raises(XtError, match="line 1 is empty"):
        read_folder(tmp_path)


def test_tatoeba_is_found_in_the_folder_or_its_subfolder_or_by_the_environment(tmp_path, monkeypatch):
    (tmp_path / "tatoeba").mkdir()
    expected = [pair(tmp_path / "tatoeba", "eins\n", "one\n", "tatoeba.deu-eng")]
    assert read_tatoeba(tmp_path) == read_tatoeba(tmp_path / "tatoeba") == expected
    monkeypatch.setenv("XT_DATA", str(tmp_path))
    assert read_tatoeba(None) == expected


def test_the_real_tatoeba_is_read_whole(data_dir):
    found = {b.language: b for b in read_tatoeba(data_dir)}
    assert len(found) == 112
    for code in ("jav", "swh", "cmn"):
        for side, rows in (("eng", found[code].english), (code, found[code].foreign)):
            data = (data_dir / "tatoeba" / f"tatoeba.{code}-eng.{side}").read_bytes()
            assert [r.encode() for r in rows] == [x.strip() for x in data.rstrip(b"\n").split(b"\n")]


@pytest.fixture(scope="module")
def django():
    return {b.language: b for b in read_django()}


def test_django_covers_forty_languages_with_eighty_pairs_each(django):
    assert len(django) >= 40
    assert min(len(b.foreign) for b in django.values()) >= 80
    assert "eng" not in django


def test_django_includes_low_resource_languages(django):
    low = {code for code in django if languages.resolve(code).resource == "low"}
    assert len(low) >= 8
    assert {"gle", "cym", "mon"} <= low


def test_django_sentences_have_no_placeholders_or_markup(django):
    bad = re.compile(r"%\(|%s|%d|[{}<>\n\t|]|&\w+;|https?://")
    swept = [s for b in django.values() for s in (*b.foreign, *b.english)]
    assert len(swept) > 8000
    assert [s for s in swept if bad.search(s)] == []


def test_django_english_has_four_words_or_more(django):
    rows = {e for b in django.values() for e in b.english}
    assert len(rows) > 80
    assert [e for e in rows if len(e.split()) < 4] == []


def test_django_pairs_are_translated_and_unique(django):
    for b in django.values():
        assert all(e != f for e, f in zip(b.english, b.foreign, strict=True))
        assert len(set(b.english)) == len(b.english)
        assert len({f.casefold() for f in b.foreign}) == len(b.foreign)


def test_django_pairs_are_the_ones_of_the_catalogue(django):
    import django as package

    text = Path(package.__file__).parent.joinpath("conf/locale/de/LC_MESSAGES/django.po").read_text(encoding="utf-8")
    deu = dict(zip(django["deu"].english, django["deu"].foreign, strict=True))
    english, foreign = "Enter a valid email address.", deu["Enter a valid email address."]
    assert f'msgid "{english}"\nmsgstr "{foreign}"' in text


def test_django_takes_one_variant_a_language(django):
    assert all(languages.resolve(code).iso3 == code for code in django)
    por = dict(zip(django["por"].english, django["por"].foreign, strict=True))
    import django as package

    base = Path(package.__file__).parent / "conf" / "locale"
    po = base.joinpath("pt/LC_MESSAGES/django.po").read_text(encoding="utf-8")
    assert por["Enter a valid email address."] in po


def test_django_reads_only_the_languages_asked_for(django):
    assert [b.language for b in read_django("deu,swh")] == ["deu", "swh"]
    assert read_django("deu")[0] == django["deu"]
    with pytest.raises(XtError, match="xxx"):
        read_django("xxx")


def test_a_missing_django_names_the_extra_to_install(monkeypatch):
    def absent(name):
        raise bitext.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(bitext.metadata, "distribution", absent)
    with pytest.raises(XtError, match="needs the package 'django'") as refused:
        read_django()
    assert "pip install 'xt-retriever[quickstart]'" in refused.value.hint


def hub_cache(folder: Path, sentences: dict[str, list[tuple[str, str, str]]]) -> Path:
    """Lay XTREME's Tatoeba out as the hub's client keeps what it downloaded."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    base = folder / "datasets--google--xtreme"
    for code, rows in sentences.items():
        file = base / "snapshots" / "abc" / f"tatoeba.{code}" / "validation" / "0000.parquet"
        file.parent.mkdir(parents=True)
        names = ("source_sentence", "target_sentence", "source_lang")
        pq.write_table(pa.table({n: [row[i] for row in rows] for i, n in enumerate(names)}), file)
    (base / "refs" / "refs" / "convert").mkdir(parents=True)
    (base / "refs" / "refs" / "convert" / "parquet").write_text("abc")
    return folder


def test_xtremes_tatoeba_is_read_from_the_hubs_cache_whichever_side_is_english(tmp_path, monkeypatch):
    from huggingface_hub import constants

    rows = {"deu": [("eins \n", "one", "deu"), ("zwei", "two", "deu")], "swh": [("one", "moja", "eng")]}
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub_cache(tmp_path, rows)))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = bitext.tatoeba_from_hub("deu,swh")
    assert found == [Bitext("deu", ("eins", "zwei"), ("one", "two")), Bitext("swh", ("moja",), ("one",))]
    with pytest.raises(XtError, match=r"nor to be had from the hub: google/xtreme lacks tatoeba\.jav") as refused:
        bitext.tatoeba_from_hub("deu,jav")
    assert "--data-dir" in refused.value.hint


def test_a_hub_that_is_not_there_is_told_at_once(tmp_path):
    code = "from xt.core.data.bitext import tatoeba_from_hub; tatoeba_from_hub('deu')"
    offline = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    start = time.monotonic()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **offline})
    assert "XtError: Tatoeba is neither on disk nor to be had from the hub" in run.stderr
    assert "Retrying" not in run.stderr
    assert time.monotonic() - start < 15  # the client's own retries alone would take 23 s


def test_packed_files_are_pairs_too_and_what_is_not_read_is_named(tmp_path):
    import gzip

    (tmp_path / "c.deu-eng.deu.GZ").write_bytes(gzip.compress(b"guten tag\nja\n"))
    (tmp_path / "c.deu-eng.eng").write_bytes(b"good day\r\nyes\r\n")
    (tmp_path / "c.fra-eng.fra.gz").write_bytes(gzip.compress(b"oui\n"))
    (tmp_path / "c.fra-eng.eng.gz").write_bytes(gzip.compress(b"yes\n"))
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "more").mkdir()
    skipped = []
    found = {b.language: (b.foreign, b.english) for b in read_folder(tmp_path, skipped=skipped)}
    assert found == {"deu": (("guten tag", "ja"), ("good day", "yes")), "fra": (("oui",), ("yes",))}
    assert skipped == ["README.md", "more/"]
