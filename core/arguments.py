"""What callers pass to the public calls, checked once: sequences become lists, numbers and flags are what they say.

A sequence is read in its own order, whatever it is: a pandas Series is not indexed by its labels, a generator is not
used up by a first pass, and what has no order, or is one text, is refused.
"""

from __future__ import annotations

import math
import operator
from collections.abc import ItemsView, Iterable, Mapping, MappingView, Set
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.core.errors import XtError

MAX_ID = 2**31 - 1
"""The largest token id: what travels is int32."""
MAX_SECONDS = 7 * 86400.0
"""The longest time that a call may be given: a week."""
NAME_CHARACTERS = 256
"""Characters of a name (of a model, a prefix, a language) at most."""


def as_list(values: Any, name: str, of: str = "texts") -> list[Any]:
    """Return the members of a sequence in its own order, read once; the members themselves are not checked.

    Taken are lists, tuples, generators and other iterables, views of a dict, one-dimensional numpy arrays and torch
    tensors, pandas and polars Series with any index, pyarrow arrays and columns.

    Args:
        values: the sequence.
        name: what errors call it.
        of: what it is a list of, for errors.

    Raises XtError for what is one text (str, bytes), has no order (a set), has keys (a dict), has several columns, or
    is no sequence at all.

    >>> as_list((text for text in ("a", "b")), "texts")
    ['a', 'b']
    """
    if isinstance(values, (list, tuple)):
        return list(values)
    found = type(values).__name__
    expected = f"expected a list of {of}."
    if isinstance(values, str):
        raise XtError(f"{name} is one string, {expected}", "Put it in a list: [text].")
    if isinstance(values, (bytes, bytearray, memoryview)):
        raise XtError(f"{name} is {found}, {expected}", "Decode it, and put the text in a list.")
    if isinstance(values, Mapping):
        raise XtError(f"{name} is a dict ({found}), {expected}", "Name which of it: list(d.values()) or list(d).")
    if isinstance(values, Set) and not isinstance(values, MappingView):
        raise XtError(f"{name} is a set ({found}), which has no order; {expected}", "Put it in order: sorted(texts).")
    if isinstance(values, ItemsView):
        raise XtError(f"{name} holds the pairs of a dict, {expected}", "Name which of it: list(d.values()) or list(d).")
    columns = getattr(values, "column_names", getattr(values, "columns", None))
    if columns is not None and not callable(columns):
        shown = ", ".join(str(c) for c in list(columns)[:8])
        raise XtError(f"{name} is a table ({found}) of the columns {shown}; {expected}", "Name one of its columns.")
    shape = getattr(values, "shape", None)
    if isinstance(shape, tuple) and len(shape) == 0:
        raise XtError(f"{name} is a single value ({found}), {expected}", "Put it in a list.")
    for method in ("to_pylist", "tolist", "to_list"):  # pyarrow; numpy, torch, pandas; polars
        convert = getattr(values, method, None)
        if callable(convert):
            return list(convert())
    if not isinstance(values, Iterable) and not hasattr(values, "__getitem__"):
        raise XtError(f"{name} is {found}, {expected}", "Put the texts in a list." if of == "texts" else "")
    return list(values)


def as_scores(values: Any, name: str = "similarities") -> npt.NDArray[np.float64]:
    """Return rows of numbers, one a query, as an array (queries, candidates) of float64.

    Whether NaN and infinity mean anything is for the caller to say. Raises XtError for another shape, and for what
    cannot be read as numbers.
    """
    if not hasattr(values, "__array__"):  # arrays, DataFrames and tensors are tables of numbers already
        rows = as_list(values, name, "rows")
        values = [as_list(row, f"{name} of query {i}", "numbers") for i, row in enumerate(rows)]
    try:
        found = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise XtError(f"{name} cannot be read as numbers: {error}.", "Expected a row of numbers a query.") from None
    if found.ndim != 2:
        raise XtError(
            f"{name.capitalize()} have shape {found.shape}; expected (queries, candidates).", "Give a row a query."
        )
    return found


def as_names(values: Any, name: str, one: str, count: int) -> list[str]:
    """Return `count` names, one for each text: short strings, which may be empty; XtError names the first bad one."""
    names = as_list(values, name, "names")
    if len(names) != count:
        raise XtError(f"There are {count} texts and {len(names)} {name}.", "Give one, or one each.")
    for index, value in enumerate(names):
        as_name(value, f"{one} {index}")
    return names


def as_name(value: Any, name: str) -> str:
    """Return a short string; XtError for another type, for over 256 characters, and for what UTF-8 cannot hold."""
    if not isinstance(value, str):
        raise XtError(f"{name} is {_shown(value)}, expected a string.")
    if len(value) > NAME_CHARACTERS:
        raise XtError(f"{name} has {len(value)} characters, expected at most {NAME_CHARACTERS}.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise XtError(f"{name} is not valid Unicode: {error.reason} at {error.start}.", "Repair it.") from None
    if "\0" in value:
        raise XtError(f"{name} holds a NUL character.", "Remove it.")
    return value


def whole_number(value: Any, name: str, least: int, most: int) -> int:
    """Return a whole number between two bounds, both included. numpy's integers are numbers; bool and 1.0 are none.

    >>> whole_number(np.int64(3), "k", 1, 100)
    3
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise XtError(f"{name} is {_shown(value)}, expected a whole number from {least} to {most}.")
    number = operator.index(value)
    if not least <= number <= most:
        raise XtError(f"{name} is {_shown(value)}, expected a whole number from {least} to {most}.")
    return number


def flag(value: Any, name: str) -> bool:
    """Return True or False; XtError for anything else, also for what Python would take for true."""
    if not isinstance(value, (bool, np.bool_)):
        raise XtError(f"{name} is {_shown(value)}, expected True or False.")
    return bool(value)


def seconds(value: Any, name: str, *, least: float = 0.0) -> float:
    """Return a time in seconds, above `least` and at most a week; XtError for what is no number, NaN and infinity.

    >>> seconds(60, "timeout_seconds")
    60.0
    """
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, (bool, np.bool_))
    if not number or not math.isfinite(value) or not least < float(value) <= MAX_SECONDS:
        raise XtError(f"{name} is {_shown(value)}, expected seconds: above {least:g}, at most {MAX_SECONDS:.0f}.")
    return float(value)


def as_id_rows(values: Any, name: str = "ids") -> list[npt.NDArray[np.int64]]:
    """Return rows of token ids, each (tokens,) of int64.

    XtError names the text and the place of the first that is no whole number from 0 to 2**31 - 1.
    """
    rows = as_list(values, name, "rows of token ids")
    return [_id_row(row, index) for index, row in enumerate(rows)]


def _id_row(row: Any, index: int) -> npt.NDArray[np.int64]:
    whole = isinstance(row, np.ndarray) and row.ndim == 1 and row.dtype.kind == "i" and row.size > 0
    if whole and int(row.min()) >= 0 and int(row.max()) <= MAX_ID:
        return np.asarray(row, np.int64)
    if isinstance(row, (bool, int, float, np.generic)):
        raise XtError(
            f"text {index} is {_shown(row)}, expected a list of token ids.", "One text's ids are one row: [[1, 2, 3]]."
        )
    ids = as_list(row, f"text {index}", "token ids")
    if not ids:
        raise XtError(f"text {index} has no token ids.", "Remove it.")
    for at, value in enumerate(ids):
        if type(value) is not int or not 0 <= value <= MAX_ID:
            ids[at] = whole_number(value, f"token id {at} of text {index}", 0, MAX_ID)
    return np.array(ids, np.int64)


def _shown(value: Any) -> str:
    """Name a value briefly: `1.7`, `'x'`, `None`, or its type where it is long."""
    if value is None or isinstance(value, (bool, int, float, str, np.generic)):
        shown = repr(value.item() if isinstance(value, np.generic) else value) if not _huge(value) else ""
        if shown and len(shown) <= 60:
            return shown
    return f"of type {type(value).__name__}" if not _huge(value) else "a number of hundreds of digits"


def _huge(value: Any) -> bool:
    """Return whether writing a number out would take long: Python refuses integers of over 4,300 digits."""
    return isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256
