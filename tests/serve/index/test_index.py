"""Searching an index folder, the documents on disk, and what an answer says."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from xt.calibration.apply.file import CalibrationTable, from_json
from xt.calibration.apply.retrieval import RetrievalTemperature
from xt.core.errors import XtError
from xt.serve.index.index import DOCUMENTS_FILE, INDEX_FILE, NO_SCORE, OFFSETS_FILE, Index, answer, check_k, unit

TEXTS = ["eins", "zwei\nzeilen", "日本語", "vier", 'fünf "5"']


def write(folder: Path, vectors: np.ndarray, documents: list[dict[str, str]]) -> Path:
    """The three files of an index, by FAISS and json alone."""
    import faiss

    folder.mkdir()
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(folder / INDEX_FILE))
    lines = [(json.dumps(d, ensure_ascii=False) + "\n").encode() for d in documents]
    (folder / DOCUMENTS_FILE).write_bytes(b"".join(lines))
    np.save(folder / OFFSETS_FILE, np.cumsum([0, *map(len, lines)]))
    return folder


@pytest.fixture
def vectors():
    rows = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def folder(tmp_path, vectors):
    return write(tmp_path / "index", vectors, [{"id": f"d{i}", "text": t} for i, t in enumerate(TEXTS)])


def test_a_search_gives_the_cosines_that_numpy_gives(folder, vectors):
    queries = np.random.default_rng(1).normal(size=(7, 8)).astype(np.float32) * 3  # not of unit length
    cosines = (queries @ vectors.T) / np.linalg.norm(queries, axis=1, keepdims=True)
    scores, rows = Index(folder).search(queries, 3)
    np.testing.assert_array_equal(rows, np.argsort(-cosines, axis=1)[:, :3])
    np.testing.assert_allclose(scores, -np.sort(-cosines, axis=1)[:, :3], atol=1e-6)
    assert Index(folder).search(queries, 100)[0].shape == (7, 5)  # no more than there are


def test_documents_come_back_by_row_whatever_is_in_them(folder):
    documents = Index(folder).documents
    assert [documents[i]["text"] for i in (4, 0, 1, 2, 3)] == [TEXTS[i] for i in (4, 0, 1, 2, 3)]
    with pytest.raises(IndexError):
        documents[5]
    with pytest.raises(IndexError):
        documents[-1]


def test_vectors_of_another_length_and_of_nan_are_refused(folder):
    index = Index(folder)
    with pytest.raises(XtError, match=r"\(1, 9\); the index holds vectors of length 8"):
        index.search(np.ones((1, 9), np.float32), 1)
    with pytest.raises(XtError, match="NaN"):
        index.search(np.full((1, 8), np.nan, np.float32), 1)
    assert unit(np.zeros((1, 8), np.float32)).tolist() == [[0.0] * 8]


@pytest.mark.parametrize("size", [0, 10])
def test_documents_that_are_cut_short_while_they_are_open_are_an_error_and_not_the_end(tmp_path, folder, size):
    copy = shutil.copytree(folder, tmp_path / "copy")
    index = Index(copy)
    last = len(index.documents) - 1
    assert index.documents[last]
    os.truncate(copy / DOCUMENTS_FILE, size)  # a memory map would end the process: SIGBUS
    with pytest.raises(XtError, match="were changed"):
        index.documents[last]


def test_files_that_do_not_fit_each_other_are_refused(tmp_path, vectors):
    documents = [{"id": str(i), "text": t} for i, t in enumerate(TEXTS)]
    few = write(tmp_path / "few", vectors[:4], documents)
    with pytest.raises(XtError, match="4 vectors, but there are 5 documents"):
        Index(few)
    cut = write(tmp_path / "cut", vectors, documents)
    (cut / DOCUMENTS_FILE).write_bytes((cut / DOCUMENTS_FILE).read_bytes()[:-3])
    with pytest.raises(XtError, match="does not fit"):
        Index(cut)
    bad = write(tmp_path / "bad", vectors, documents)
    (bad / INDEX_FILE).write_bytes(b"nonsense")
    with pytest.raises(XtError, match="FAISS cannot read"):
        Index(bad)


def test_probabilities_are_those_worked_out_by_hand(folder):
    documents = Index(folder).documents
    table = CalibrationTable(RetrievalTemperature(0.1, 0.6), "zero-shot", {}, candidates=3)
    scores, rows = np.array([0.9, 0.8, 0.7, 0.5, 0.4], np.float32), np.array([3, 0, 1, 2, 4])
    odds = [math.exp(s / 0.1) for s in (0.9, 0.8, 0.7, 0.6)]  # three candidates and none of these
    expected = [o / sum(odds) for o in odds]
    full = answer(documents, scores, rows, k=5, table=table)
    assert full.ids == ["d3", "d0", "d1", "d2", "d4"]
    assert full.probabilities is not None
    np.testing.assert_allclose(full.probabilities, [*expected[:3], 0, 0], atol=1e-6)  # beyond the candidates: 0
    assert full.none == pytest.approx(expected[3])
    assert full.calibration == "zero-shot"
    one = answer(documents, scores, rows, k=1, table=table)
    assert one.probabilities is not None
    np.testing.assert_allclose(one.probabilities, expected[:1], atol=1e-6)  # asking for less changes nothing
    assert one.none == full.none


def test_a_language_with_a_calibrator_of_its_own_gets_it_and_others_the_default(folder):
    documents = Index(folder).documents
    own = RetrievalTemperature(0.5, -1.0)
    table = CalibrationTable(RetrievalTemperature(0.1, 0.6), "pooled", {"deu": own}, candidates=3)
    scores, rows = np.array([0.9, 0.8, 0.7], np.float32), np.array([3, 0, 1])

    def ask(language):
        return answer(documents, scores, rows, k=3, table=table, language=language)

    odds = [math.exp(s / 0.5) for s in (0.9, 0.8, 0.7, -1.0)]
    for code in ("deu", "de", "de_DE"):
        assert ask(code).calibration == "per-language:deu"
        np.testing.assert_allclose(ask(code).probabilities, np.array(odds[:3]) / sum(odds), atol=1e-6)
    for code in ("swh", "not-a-code", "", None):
        assert ask(code).calibration == "pooled"
        assert ask(code).none == ask(None).none != ask("deu").none


def test_places_that_an_approximate_index_could_not_fill_are_empty_and_no_number_is_nan(folder):
    documents = Index(folder).documents
    table = CalibrationTable(RetrievalTemperature(0.1), "zero-shot", {})
    scores, rows = np.array([0.9, -np.inf], np.float32), np.array([2, -1])
    found = answer(documents, scores, rows, k=2, table=table)
    assert (found.ids, found.documents) == (["d2", ""], ["日本語", ""])
    assert found.scores.tolist() == [pytest.approx(0.9), NO_SCORE]
    assert found.probabilities is not None
    assert found.probabilities.tolist() == [1, 0]
    nothing = answer(documents, np.full(2, -np.inf, np.float32), np.array([-1, -1]), k=2, table=table)
    assert nothing.probabilities is not None
    assert nothing.probabilities.tolist() == [0, 0]
    assert nothing.none == 1


def test_without_a_calibration_there_are_no_probabilities(folder):
    plain = answer(Index(folder).documents, np.array([0.9], np.float32), np.array([2]), k=1)
    assert (plain.probabilities, plain.none, plain.calibration) == (None, None, "none")


@pytest.mark.parametrize("k", [0, 101, -1, True, 2.0, "3", None])
def test_k_outside_its_limits_is_refused(k):
    with pytest.raises(XtError, match="expected a whole number from 1 to 100"):
        check_k(k)


def test_a_table_is_read_from_a_report_and_from_its_own_json():
    one = {"kind": "retrieval-temperature", "temperature": 0.01, "none_score": 0.7}
    other = {**one, "temperature": 0.02}
    former = {"zero-shot": {**one, "fitted_on": ["deu"]}, "pooled": other, "per-language": {"zho": other}}
    methods = from_json({"e": {"foreign-english": former}}).encoders["e"]["foreign-english"]
    pooled = {"pooled": methods["pooled"]}
    table = CalibrationTable.from_report(methods, candidates=50, provenance={"task": "django"})
    assert (table.scope, table.default.temperature, table.candidates) == ("zero-shot", 0.01, 50)
    assert list(table.by_language) == ["cmn"]
    assert CalibrationTable.from_report(methods, scope="pooled").default.temperature == 0.02
    assert CalibrationTable.from_report(pooled).scope == "pooled"
    assert from_json(json.loads(json.dumps(table.to_json()))) == table
    with pytest.raises(XtError, match="has no zero-shot calibrator"):
        CalibrationTable.from_report(pooled, scope="zero-shot")
    with pytest.raises(XtError, match="Unknown scope 'per-language'"):
        CalibrationTable.from_report(methods, scope="per-language")
    with pytest.raises(XtError, match="temperature"):
        from_json({"e": {"foreign-english": {"pooled": {"kind": "retrieval-temperature"}}}})
    with pytest.raises(XtError, match="at least one candidate"):
        CalibrationTable.from_report(methods, candidates=0)
