"""Tables: cells from values, and the table in a box of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from markupsafe import Markup

from xt.core.pages.numbers import DASH, fixed, is_number
from xt.core.pages.page import kit


@dataclass(frozen=True)
class Cell:
    """One table cell."""

    shown: str
    """What is shown: text, or Markup."""
    key: float | str | None = None
    """What sorting compares; without it the shown text."""
    number: bool = False
    """Set flush right, in tabular figures."""
    aside: str = ""
    """Smaller, after it: an interval, a code."""


def words(value: Any) -> Cell:
    """Return a cell of plain text, or of Markup."""
    return Cell(DASH if value is None else value if isinstance(value, str) else str(value))


def named(name: str, aside: str) -> Cell:
    """Return a cell that is sorted by its name alone."""
    return Cell(name, name, aside=aside)


def figure(value: Any, shown: str, aside: str = "") -> Cell:
    """Return a cell for the number `value`, shown as `shown`."""
    return Cell(shown, float(value) if is_number(value) else None, True, aside)


R = TypeVar("R")


@dataclass(frozen=True)
class Column(Generic[R]):
    """A column of figures."""

    head: str
    of: Callable[[R], float | None]
    show: Callable[[Any], str] = fixed
    aside: Callable[[R], str] = lambda row: ""

    def cell(self, row: R) -> Cell:
        """Return the cell of a row."""
        value = self.of(row)
        return figure(value, self.show(value), self.aside(row))


def measured(columns: Iterable[Column[R]], rows: Iterable[R], always: Sequence[str] = ()) -> list[Column[R]]:
    """Return the columns that have a figure in some row, and those that are `always` there."""
    rows = list(rows)
    return [c for c in columns if c.head in always or any(c.of(row) is not None for row in rows)]


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[Cell] | str],
    *,
    spans: Sequence[tuple[str, int]] = (),
    sort: bool = False,
    tall: bool = False,
) -> Markup:
    """Return a captioned table in its own scrolling box; the first column heads its row. No rows give nothing.

    Args:
        caption: text.
        head: labels of the columns.
        rows: cells; a string among the rows heads the rows after it, over the full width.
        spans: a row of labels above `head`, each over so many columns.
        sort: the headings can be selected, to sort by them.
        tall: the height of the box is bounded on a screen.
    """
    rows = list(rows)
    lines = [row for row in rows if not isinstance(row, str)]
    numeric = [any(row[i].number for row in lines if i < len(row)) for i in range(len(head))]
    columns = list(zip(head, numeric, strict=True))
    return kit.table(caption, columns, rows, spans, sort, tall) if lines else Markup()
