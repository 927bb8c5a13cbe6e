"""Sentences are aligned by identifier: the shared ones in English's order, the others counted, faults named by line."""

from __future__ import annotations

import pytest

from xt.core.data.aligned import align, read_id_folder, read_sib200, read_texts
from xt.core.data.corpus import load_corpus
from xt.core.errors import XtError


def write(folder, name, rows, header="id\ttext"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return folder / name


def test_pairs_have_one_id_and_what_lacks_a_partner_is_counted(tmp_path):
    write(tmp_path, "eng.tsv", ["1\tone", "2\ttwo", "3\tthree"])
    write(tmp_path, "de.tsv", ["3\tdrei", "1\teins", "9\tneun", "8\tacht"])
    (found,) = read_id_folder(tmp_path)
    assert (found.language, found.foreign, found.english) == ("deu", ("eins", "drei"), ("one", "three"))
    assert found.left_out == 3
    corpus = load_corpus(f"ids:{tmp_path}")
    assert corpus.pairs == (found,) and corpus.name == tmp_path.name


def test_sib200_is_one_corpus_of_flores_sentences_in_every_language(data_dir):
    corpus = load_corpus("sib200-parallel", data_dir=data_dir, selection="swh,deu,cmn")
    assert [b.language for b in corpus.pairs] == ["swh", "deu", "cmn"]
    for b in corpus.pairs:
        assert len(b.foreign) == 701 + 99 + 204 and b.left_out == 0
        assert len(set(b.english)) > 990
    # index_id 1523 by hand, from two of its files
    swh = corpus.pairs[0]
    place = next(i for i, t in enumerate(swh.foreign) if t.startswith("Mabadiliko huongeza tofauti za kimaumbile"))
    assert swh.english[place].startswith("Mutation adds new genetic variation")
    assert corpus.pairs[1].english == swh.english
    with pytest.raises(XtError, match="No data for 'nqo'"):  # its file is a zip
        read_sib200(data_dir, "nqo")


def test_sib200_without_files_or_english_is_refused(tmp_path):
    with pytest.raises(XtError, match="sib200-parallel needs SIB-200's files, English among them"):
        read_sib200(tmp_path)


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["1\ta", "1\tb"], "id\ttext", r"de\.tsv, line 3: the id '1' is in .*de\.tsv, line 2 already"),
        (["1\ta", "2\t "], "id\ttext", r"de\.tsv, line 3 is empty"),
        (["1\ta", "\tb"], "id\ttext", r"line 3: the id is empty"),
        (["1\ta\tb"], "id\ttext", r"line 2: 3 columns, the header has 2"),
        (["1\ta"], "nr\tsentence", r"has the columns nr, sentence; expected `id` \(or `index_id`\) and `text`"),
        ([], "id\ttext", r"there are no sentences"),
    ],
)
def test_faults_are_named_by_file_and_line(tmp_path, rows, header, message):
    write(tmp_path, "eng.tsv", ["1\tone"])
    write(tmp_path, "de.tsv", rows, header)
    with pytest.raises(XtError, match=message):
        read_id_folder(tmp_path)


def test_an_id_that_is_in_two_files_of_a_language_is_an_error(tmp_path):
    files = [write(tmp_path, f"{part}.tsv", ["7\tsame"], "index_id\ttext") for part in ("train", "test")]
    with pytest.raises(XtError, match=r"test\.tsv, line 2: the id '7' is in .*train\.tsv, line 2 already"):
        read_texts(files)


def test_folders_that_hold_no_aligned_corpus_are_refused(tmp_path):
    with pytest.raises(XtError, match="There is no folder"):
        read_id_folder(tmp_path / "no")
    write(tmp_path, "de.tsv", ["1\teins"])
    with pytest.raises(XtError, match=r"needs English, eng\.tsv"):
        read_id_folder(tmp_path)
    write(tmp_path, "en.tsv", ["2\ttwo"])
    with pytest.raises(XtError, match=r"deu and English share no id \(deu: 1; English: 2\)"):
        read_id_folder(tmp_path)
    write(tmp_path, "deu.tsv", ["2\tzwei"])
    with pytest.raises(XtError, match=r"holds deu twice: de\.tsv, deu\.tsv"):
        read_id_folder(tmp_path)
    (tmp_path / "deu.tsv").unlink()
    write(tmp_path, "notes.tsv", ["2\tzwei"])
    with pytest.raises(XtError, match="Unknown language code 'notes'"):
        read_id_folder(tmp_path)


def test_align_keeps_the_order_of_english():
    found = align("deu", {"b": "zwei", "a": "eins"}, {"a": "one", "b": "two"}, "x")
    assert found.foreign == ("eins", "zwei")


def test_texts_by_id_may_be_in_any_table_and_what_is_not_read_is_named(tmp_path):
    import gzip

    from xt.core.data.aligned import read_id_folder

    (tmp_path / "eng.CSV").write_text('id,text\n1,"one, two"\n2,three\n')
    (tmp_path / "de.jsonl.gz").write_bytes(
        gzip.compress(b'{"id": 1, "text": "eins, zwei"}\n{"id": 2, "text": "drei"}\n')
    )
    (tmp_path / "notes.md").write_text("x")
    skipped = []
    (pairs,) = read_id_folder(tmp_path, skipped=skipped)
    assert (pairs.language, pairs.foreign, pairs.english) == ("deu", ("eins, zwei", "drei"), ("one, two", "three"))
    assert skipped == ["notes.md"]
