"""A name means the corpus that it names: a task of the table, or a folder."""

from __future__ import annotations

import pytest

from xt.core.data.bitext import Bitext
from xt.core.data.corpus import load_corpus
from xt.core.errors import XtError


def test_a_folder_of_line_aligned_files_is_a_corpus(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "x.deu-eng.deu").write_text("eins\n")
    (folder / "x.deu-eng.eng").write_text("one\n")
    found = load_corpus(str(folder))
    assert found.name == "mine" and found.pairs == (Bitext("deu", ("eins",), ("one",)),)
    monkeypatch.chdir(folder)
    assert load_corpus(".").name == "mine"
    with pytest.raises(XtError, match="There is no folder"):
        load_corpus(str(tmp_path / "absent"))


def test_tasks_of_the_table_are_corpora_and_training_tasks_are_not(data_dir):
    assert [b.language for b in load_corpus("tatoeba", data_dir=data_dir, selection="jav,swh").pairs] == ["jav", "swh"]
    assert load_corpus("django", selection="swh").licence == "BSD-3-Clause"
    with pytest.raises(XtError, match="task to train on"):
        load_corpus("sample-nli")
    with pytest.raises(XtError, match="Did you mean tatoeba"):
        load_corpus("tatoba")
