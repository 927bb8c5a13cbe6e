"""Equal texts are one candidate, whose copies are all known, however many there are."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.serve.index.test_index import write
from xt.calibration.apply.file import CalibrationTable
from xt.calibration.apply.retrieval import RetrievalMargin
from xt.core.copies import Copies, distinct, search_distinct, text_key
from xt.core.encoder.text import Encoded
from xt.core.errors import XtError
from xt.serve.index.index import COPIES_FILE, Index, answer, check_searches, golden_searches, retrieve

TEXTS = ["eins", " eins\n", "zwei", "caf\u00e9", "cafe\u0301", "drei", "eins"]


def test_texts_are_equal_composed_and_without_white_space_around_them():
    found = Copies.find(TEXTS)
    assert found.of.tolist() == [0, 0, 1, 2, 2, 3, 0]
    assert found.firsts.tolist() == [0, 2, 3, 5]
    assert [found.members(c).tolist() for c in range(4)] == [[0, 1, 6], [2], [3, 4], [5]]
    assert (len(found), found.candidates, found.extra) == (7, 4, 3)
    assert text_key("a  b") != text_key("a b") and text_key("A") != text_key("a")
    assert Copies.find([]).candidates == 0


def test_the_best_of_each_candidate_is_kept_in_order():
    scores = np.array([[0.9, 0.8, 0.7, -np.inf], [0.5, 0.5, 0.5, 0.5]], np.float32)
    rows = np.array([[3, 3, 1, -1], [2, 0, 2, 1]])
    kept, found = distinct(scores, rows, 3)
    assert found.tolist() == [[3, 1, -1], [2, 0, 1]]
    np.testing.assert_allclose(kept, [[0.9, 0.7, -np.inf], [0.5, 0.5, 0.5]])


@pytest.mark.parametrize("most", [1, 3, 1000])
def test_copies_that_fill_the_list_are_searched_past(most):
    of = np.concatenate([np.zeros(most, int), np.arange(1, 30)])
    scores = np.concatenate([np.full(most, 0.99), np.linspace(0.9, 0.1, 29)]).astype(np.float32)
    asked = []

    def search(some, depth):
        asked.append(depth)
        order = np.tile(np.arange(len(of))[:depth], (len(some), 1))
        return np.tile(scores[:depth], (len(some), 1)), order

    kept, found = search_distinct(search, Copies(of), 2, 10)
    assert found.tolist() == [list(range(10))] * 2
    np.testing.assert_allclose(kept[0], [0.99, *np.linspace(0.9, 0.1, 29)[:9]], atol=1e-6)
    assert max(asked) <= len(of)


# --- an index ---


def old_index(tmp_path, copies=1000):
    """An index of an earlier release: a vector for each document, those of one text `copies` times first."""
    rng = np.random.default_rng(0)
    different = rng.normal(size=(30, 8)).astype(np.float32)
    different /= np.linalg.norm(different, axis=1, keepdims=True)
    vectors = np.concatenate([np.repeat(different[:1], copies, axis=0), different[1:]])
    documents = [{"id": f"c{i}", "text": " same " if i % 2 else "same"} for i in range(copies)]
    documents += [{"id": f"d{i}", "text": f"text {i}"} for i in range(1, 30)]
    return write(tmp_path / f"old{copies}", vectors, documents), different


TABLE = CalibrationTable(RetrievalMargin(0.1, 0.02), "zero-shot", {}, candidates=100)


class Fixed:
    """An encoder whose vectors are given."""

    def __init__(self, vectors):
        self.vectors = vectors

    def encode(self, texts, *, prefix=None, truncate=False):
        return Encoded(np.stack([self.vectors[t] for t in texts]), np.ones(len(texts)), np.zeros(len(texts), bool))


def test_an_old_index_gives_k_different_documents_and_the_probabilities_of_one_without_copies(tmp_path):
    many, different = old_index(tmp_path)
    once, _ = old_index(tmp_path, copies=1)
    query = different[0] + 0.3 * different[1]
    found, alone = (
        retrieve(Fixed({"q": query}).encode, Index(folder), ["q"], k=10, table=TABLE)[0][0] for folder in (many, once)
    )
    assert [i.replace("c0", "d0") for i in found.ids] == [i.replace("c0", "d0") for i in alone.ids]
    np.testing.assert_array_equal(found.scores, alone.scores)
    np.testing.assert_array_equal(found.probabilities, alone.probabilities)
    assert found.none == alone.none
    same = found.ids.index("c0")
    assert found.copies[same] == tuple(f"c{i}" for i in range(1000))
    assert all(c == (i,) for i, c in zip(found.ids, found.copies, strict=True) if i != "c0")
    assert Index(many).search(query[None], 100)[1].shape == (1, 30)
    assert len(Index(many)) == 1029 and Index(many).candidates == 30


def test_golden_searches_of_an_earlier_release_are_repeated_as_they_were_made(tmp_path):
    folder, different = old_index(tmp_path, copies=9)
    index, encode = Index(folder), Fixed({"same": different[0], "q": different[3]}).encode
    new = golden_searches(encode, index, [0], "none")
    assert new["ids"][0][0] == "c0" and len(set(new["ids"][0])) == 5 and new["distinct"]
    assert check_searches(encode, index, new) < 1e-6
    old = {**new, "ids": [["c0", "c1", "c2", "c3", "c4"]], "scores": [[1.0] * 5]}
    del old["distinct"]
    assert check_searches(encode, index, old) < 1e-6
    with pytest.raises(XtError, match="golden search"):
        check_searches(encode, index, {**old, "distinct": True})


@pytest.mark.parametrize(
    ("of", "says"),
    [([0, 1], "does not fit"), ([0, 2, 1, 1, 1], "does not fit"), ([0.0] * 5, "does not fit"), ([0] * 5, "5 vectors")],
)
def test_a_file_of_copies_that_does_not_fit_is_refused(tmp_path, of, says):
    folder = write(
        tmp_path / "index", np.eye(5, 8, dtype=np.float32), [{"id": str(i), "text": str(i)} for i in range(5)]
    )
    np.save(folder / COPIES_FILE, np.array(of))
    with pytest.raises(XtError, match=says):
        Index(folder)
    (folder / COPIES_FILE).write_bytes(b"no array")
    with pytest.raises(XtError, match="cannot be read"):
        Index(folder)


def test_an_answer_without_the_index_names_each_document_alone(tmp_path):
    folder, _ = old_index(tmp_path, copies=2)
    found = answer(Index(folder).documents, np.array([0.9, -np.inf], np.float32), np.array([0, -1]), k=2)
    assert found.copies == [("c0",), ()]
    assert json.dumps(found.ids) == '["c0", ""]'
