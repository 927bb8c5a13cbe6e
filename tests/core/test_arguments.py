"""What callers pass is taken in its own order or refused with its name: nothing is indexed by label, cut or coerced."""

from __future__ import annotations

import collections
import decimal
import fractions

import numpy as np
import pytest

from xt.core.arguments import as_id_rows, as_list, as_name, as_names, as_scores, flag, seconds, whole_number
from xt.core.encoder.text import as_texts
from xt.core.errors import XtError

pandas = pytest.importorskip("pandas")
pyarrow = pytest.importorskip("pyarrow")
TEXTS = ["one", "two", "three", "four"]


def kinds():
    return {
        "list": TEXTS,
        "tuple": tuple(TEXTS),
        "generator": (t for t in TEXTS),
        "map": map(str, TEXTS),
        "iterator": iter(TEXTS),
        "deque": collections.deque(TEXTS),
        "dict keys": dict.fromkeys(TEXTS).keys(),
        "dict values": dict(enumerate(TEXTS)).values(),
        "numpy strings": np.array(TEXTS),
        "numpy objects": np.array(TEXTS, object),
        "Series with other labels": pandas.Series(TEXTS, index=[3, 0, 4, 1]),
        "Series with text labels": pandas.Series(TEXTS, index=list("dacb")),
        "Series, cut": pandas.Series(["zero", *TEXTS, "five"])[1:5],
        "Series of categories": pandas.Series(TEXTS, index=[9, 8, 7, 6]).astype("category"),
        "Series of pyarrow": pandas.Series(TEXTS, index=[3, 0, 4, 1], dtype="string[pyarrow]"),
        "Index": pandas.Index(TEXTS),
        "pyarrow array": pyarrow.array(TEXTS),
        "pyarrow column": pyarrow.chunked_array([TEXTS[:1], TEXTS[1:]]),
        "pyarrow column of a table": pyarrow.table({"text": TEXTS})["text"],
    }


@pytest.mark.parametrize("kind", list(kinds()))
def test_a_sequence_of_any_kind_becomes_a_list_in_its_own_order(kind):
    found = as_list(kinds()[kind], "texts")
    assert found == TEXTS
    assert type(found) is list
    assert all(type(member) is str for member in found)


def test_a_list_is_copied_so_that_its_owner_may_go_on():
    mine = list(TEXTS)
    found = as_list(mine, "texts")
    mine.clear()
    assert found == TEXTS


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("one text", "texts is one string, expected a list of texts"),
        (np.str_("one text"), "texts is one string"),
        (b"one text", "texts is bytes"),
        (bytearray(b"x"), "texts is bytearray"),
        ({"a": "b"}, r"texts is a dict \(dict\)"),
        (collections.Counter(TEXTS), r"texts is a dict \(Counter\)"),
        ({"a", "b"}, "texts is a set .*no order"),
        (frozenset(TEXTS), "texts is a set"),
        ({"a": "b"}.items(), "texts holds the pairs of a dict"),
        (pandas.DataFrame({"text": TEXTS, "label": 1}), "is a table .*of the columns text, label"),
        (pyarrow.table({"text": TEXTS}), "is a table .*of the columns text"),
        (np.array("one text"), "texts is one|texts is a single value"),
        (None, "texts is NoneType"),
        (5, "texts is int"),
        (object(), "texts is object"),
    ],
)
def test_what_has_no_order_or_is_one_text_is_refused(value, says):
    with pytest.raises(XtError, match=says):
        as_list(value, "texts")


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        (None, r"text 2 is missing \(None\)"),
        (float("nan"), r"text 2 is missing \(nan\)"),
        (pandas.NA, "text 2 is missing"),
        (pandas.NaT, "text 2 is missing"),
        (5, "text 2 is int"),
        (b"x", "text 2 is bytes"),
        (["x"], "text 2 is list"),
    ],
)
def test_a_member_that_is_no_text_is_named_by_its_place_not_its_label(missing, says):
    values = ["a", "b", missing, "d"]
    for given in (values, (v for v in values), pandas.Series(values, index=[2, 7, 1, 0], dtype=object)):
        with pytest.raises(XtError, match=says):
            as_texts(given)


def test_one_hint_helps_who_gave_a_single_text():
    with pytest.raises(XtError) as error:
        as_texts("guten morgen")
    assert "[text]" in error.value.hint


@pytest.mark.parametrize("value", [3, np.int8(3), np.int64(3), np.uint16(3), pandas.Series([3]).iloc[0]])
def test_whole_numbers_are_taken_numpys_too(value):
    found = whole_number(value, "k", 1, 100)
    assert found == 3
    assert type(found) is int


@pytest.mark.parametrize(
    "value",
    [1.0, 1.7, np.float32(1), True, np.bool_(True), "1", None, 0, 101, -1, 2**31, 2**63, 2**64, 10**400,
     decimal.Decimal(1), fractions.Fraction(1), [1], np.array([1]), 1 + 0j],
)  # fmt: skip
def test_what_is_no_whole_number_in_range_is_refused(value):
    with pytest.raises(XtError, match="k is .*expected a whole number from 1 to 100"):
        whole_number(value, "k", 1, 100)


def test_a_number_of_thousands_of_digits_is_refused_too():
    with pytest.raises(XtError, match="k is a number of hundreds of digits, expected a whole number"):
        whole_number(10**5000, "k", 1, 100)


def test_flags_are_true_or_false_and_nothing_like_it():
    assert flag(True, "truncate") is True
    assert flag(np.bool_(False), "truncate") is False
    for value in (1, 0, "false", "yes", None, 1.0, np.int64(1), []):
        with pytest.raises(XtError, match="truncate is .*expected True or False"):
            flag(value, "truncate")


def test_seconds_are_finite_and_above_nothing():
    assert seconds(np.float32(0.5), "timeout_seconds") == 0.5
    assert seconds(3, "timeout_seconds") == 3.0
    for value in (0, -1, float("nan"), float("inf"), 1e9, True, "5", None, 1 + 0j):
        with pytest.raises(XtError, match="timeout_seconds is .*expected seconds"):
            seconds(value, "timeout_seconds")


def test_token_ids_are_taken_from_lists_arrays_and_tensors():
    import torch

    rows = [[0, 5, 2], [0, 2**31 - 1, 2]]
    for given in (rows, np.array(rows), np.array(rows, np.int32), torch.tensor(rows), (tuple(r) for r in rows)):
        found = as_id_rows(given)
        assert [r.tolist() for r in found] == rows
        assert all(r.dtype == np.int64 for r in found)
    assert as_id_rows([np.array([1, 2], np.uint8), pandas.Series([3, 4], index=[1, 0])])[1].tolist() == [3, 4]
    assert as_id_rows([]) == []


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([[1, 2], [1, 2**40]], "token id 1 of text 1 is 1099511627776, expected a whole number from 0 to 2147483647"),
        ([[1, 1.7]], "token id 1 of text 0 is 1.7"),
        ([[1, 1.0]], "token id 1 of text 0 is 1.0"),
        ([[1, True]], "token id 1 of text 0 is True"),
        ([[1, "2"]], "token id 1 of text 0 is '2'"),
        ([[1, None]], "token id 1 of text 0 is None"),
        ([[1, -1]], "token id 1 of text 0 is -1"),
        ([np.array([1.0, 2.0])], "token id 0 of text 0 is 1.0"),
        ([np.array([1, 2**40])], "token id 1 of text 0 is 1099511627776"),
        ([np.array([True])], "token id 0 of text 0 is True"),
        ([[1], []], "text 1 has no token ids"),
        ([1, 2, 3], r"text 0 is 1, expected a list of token ids.*\n.*\[\[1, 2, 3\]\]"),
        (np.array([1, 2]), "text 0 is 1, expected a list of token ids"),
        (["words"], "text 0 is one string, expected a list of token ids"),
        ([{1: 2}], "text 0 is a dict"),
        ([[[1, 2]]], "token id 0 of text 0 is of type list"),
        ("ids", "ids is one string"),
    ],
)
def test_token_ids_that_are_none_are_named_by_text_and_place(rows, says):
    with pytest.raises(XtError, match=says):
        as_id_rows(rows)


def test_names_are_as_many_as_texts_and_short_strings():
    assert as_names((c for c in ("deu", "")), "languages", "language", 2) == ["deu", ""]
    for given, says in [
        (["deu"], "There are 2 texts and 1 languages"),
        (["deu", None], "language 1 is None, expected a string"),
        (["deu", 5], "language 1 is 5"),
        (["deu", "x" * 300], "language 1 has 300 characters"),
        (["deu", "\ud800"], "language 1 is not valid Unicode"),
        ({"deu", "eng"}, "languages is a set"),
        ({"deu": 1, "eng": 2}, "languages is a dict"),
    ]:
        with pytest.raises(XtError, match=says):
            as_names(given, "languages", "language", 2)
    assert as_name("query", "prefix") == "query"


def test_scores_are_rows_of_numbers_whatever_holds_them():
    rows = [[0.5, 0.25], [1.0, float("-inf")]]
    frame = pandas.DataFrame(rows, index=[7, 3], columns=["b", "a"])
    for given in (rows, np.array(rows), frame, (iter(r) for r in rows), [np.array(r, np.float32) for r in rows]):
        np.testing.assert_array_equal(as_scores(given), rows)
    for given, says in [
        ([0.5, 0.25], "similarities of query 0 is float"),
        (np.array([0.5]), r"Similarities have shape \(1,\)"),
        ([[0.5], [0.5, 0.25]], "cannot be read as numbers"),
        ([["x"]], "cannot be read as numbers"),
        ({0.5, 0.25}, "similarities is a set"),
    ]:
        with pytest.raises(XtError, match=says):
            as_scores(given)


def test_a_calibrator_takes_similarities_of_any_kind():
    from xt.calibration.apply.retrieval import RetrievalTemperature

    rows = [[0.9, 0.5], [0.2, 0.4]]
    expected = np.exp(np.array(rows) / 0.1)
    expected /= expected.sum(1, keepdims=True)
    for given in (rows, (iter(r) for r in rows), pandas.DataFrame(rows, index=[1, 0]), np.array(rows, np.float32)):
        np.testing.assert_allclose(RetrievalTemperature(0.1)(given)[:, :2], expected, atol=1e-6)
    with pytest.raises(XtError, match="similarities is a dict"):
        RetrievalTemperature(0.1)({0: [0.9]})
