"""The page a report is set on: style, script, escaping, numbers as text, tables.

Nothing here knows what a metric is. Functions that take `html` trust it; everything else is escaped on its way in.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, TypeGuard

from xt.eval.report.style import SCRIPT, style

DASH = "–"  # stands for None and NaN
MINUS = "−"


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a finite int or float (a bool is not).

    >>> [is_number(v) for v in (1, 0.5, True, None, float("nan"), "1")]
    [True, True, False, False, False, False]
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def text(value: Any) -> str:
    """Escape `value` for element content and quoted attributes; None gives an en dash.

    >>> text("<b> & 'c'"), text(None)
    ('&lt;b&gt; &amp; &#x27;c&#x27;', '–')
    """
    return DASH if value is None else escape(str(value), quote=True)


def fixed(value: Any, digits: int = 3) -> str:
    """`value` with `digits` decimals and thousands separators; an en dash where there is no finite number.

    >>> fixed(0.02345), fixed(1234.5, 0), fixed(-0.5, 1), fixed(float("nan"))
    ('0.023', '1,234', '−0.5', '–')
    """
    return f"{value:,.{digits}f}".replace("-", MINUS) if is_number(value) else DASH


def percent(value: Any, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage.

    >>> percent(0.8734), percent(1), percent(None)
    ('87.3%', '100.0%', '–')
    """
    return f"{fixed(100 * value, digits)}%" if is_number(value) else DASH


def points(value: Any, digits: int = 1) -> str:
    """A difference of two shares in percentage points, always with its sign.

    >>> points(0.031), points(-0.004), points(0.0)
    ('+3.1', '−0.4', '0.0')
    """
    if not is_number(value):
        return DASH
    rounded = round(100 * value, digits)
    return f"+{rounded:.{digits}f}" if rounded > 0 else fixed(abs(rounded) if rounded == 0 else rounded, digits)


def quantity(value: Any) -> str:
    """A positive amount with about three significant figures.

    >>> quantity(1523.4), quantity(45.67), quantity(8.034), quantity(0.5), quantity(120)
    ('1,523', '45.7', '8.03', '0.50', '120')
    """
    if not is_number(value):
        return DASH
    return fixed(value, 0 if isinstance(value, int) or abs(value) >= 100 else 1 if abs(value) >= 10 else 2)


def interval(bounds: Any, digits: int = 3, factor: float = 1) -> str:
    """A pair of bounds as `[low, high]`; empty where either is missing.

    >>> interval([0.871, 0.95], 1, 100), interval(None)
    ('[87.1, 95.0]', '')
    """
    if not isinstance(bounds, list | tuple) or len(bounds) != 2 or not all(is_number(b) for b in bounds):
        return ""
    return f"[{fixed(factor * bounds[0], digits)}, {fixed(factor * bounds[1], digits)}]"


@dataclass(frozen=True)
class Cell:
    """One table cell."""

    html: str
    """What is shown, already escaped."""
    key: float | str | None = None
    """What sorting compares; without it the shown text."""
    number: bool = False
    """Set flush right, in tabular figures."""


def words(value: Any) -> Cell:
    """A cell of plain text."""
    return Cell(text(value))


def figure(value: Any, shown: str, aside: str = "") -> Cell:
    """A cell for the number `value`, shown as `shown`, with a smaller `aside` such as its interval."""
    small = f' <small class="ci">{text(aside)}</small>' if aside else ""
    return Cell(text(shown) + small, float(value) if is_number(value) else None, number=True)


def attributes(**values: Any) -> str:
    """HTML attributes, each after a space; None and "" are left out, a last `_` is dropped, any other becomes `-`.

    >>> attributes(class_="n", data_k=1.5, scope=None)
    ' class="n" data-k="1.5"'
    """
    given = ((k.rstrip("_").replace("_", "-"), v) for k, v in values.items() if v is not None and v != "")
    return "".join(f' {name}="{text(value)}"' for name, value in given)


def _cell(cell: Cell, *, first: bool) -> str:
    """One `th` (first column) or `td`."""
    tag = "th" if first else "td"
    key = f"{cell.key:.6g}" if isinstance(cell.key, float) else cell.key
    attrs = attributes(scope="row" if first else None, class_="n" if cell.number else None, data_k=key)
    return f"<{tag}{attrs}>{cell.html}</{tag}>"


def _line(row: Sequence[Cell] | str, width: int) -> str:
    """A table row, or the start of a group of rows with its heading."""
    if isinstance(row, str):
        return (
            f'</tbody>\n<tbody><tr class="group"><th colspan="{width}" scope="rowgroup"><span>{row}</span></th></tr>\n'
        )
    return "<tr>" + "".join(_cell(c, first=i == 0) for i, c in enumerate(row)) + "</tr>\n"


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[Cell] | str],
    *,
    spans: Sequence[tuple[str, int]] = (),
    sort: bool = False,
    tall: bool = False,
) -> str:
    """A captioned table in its own scrolling box; the first column heads its row. No rows gives an empty string.

    `caption` is plain text; `head` and the labels of `spans` (a row of group headings above, each over so many columns)
    are HTML. A string among the rows heads the rows after it (HTML, over the full width). `sort` makes the headings
    sortable, `tall` bounds the height of the box on screen.
    """
    rows = list(rows)
    lines = [row for row in rows if not isinstance(row, str)]
    if not lines:
        return ""
    numeric = [any(row[i].number for row in lines if i < len(row)) for i in range(len(head))]
    group = "".join(f'<th colspan="{n}" scope="colgroup" class="g">{label}</th>' for label, n in spans)
    heads = "".join(
        f"<th{attributes(scope='col', class_='n' if n else None)}>{h}</th>" for h, n in zip(head, numeric, strict=True)
    )
    body = "".join(_line(row, len(head)) for row in rows)
    box = attributes(class_="scroll tall" if tall else "scroll", role="region", tabindex=0, aria_label=caption)
    thead = f"<tr>{group}</tr><tr>{heads}</tr>" if group else f"<tr>{heads}</tr>"
    return (
        f"<div{box}><table{attributes(class_='sort' if sort else None)}>"
        f"<caption><span>{text(caption)}</span></caption>\n"
        f"<thead>{thead}</thead>\n<tbody>\n{body}</tbody></table></div>\n"
    )


def details(summary: str, html: str, *, printed: bool = True) -> str:
    """A folded part, unfolded on paper or, with `printed` off, left out there; nothing for an empty body."""
    kind = "" if printed else ' class="screen"'
    return f"<details{kind}><summary>{text(summary)}</summary>\n{html}</details>\n" if html else ""


def section(anchor: str, title: str, how: str, *parts: str) -> str:
    """A section with its one-paragraph explanation (`how`, HTML); nothing when all parts are empty."""
    body = "".join(parts)
    if not body:
        return ""
    return f'<section id="{anchor}"><h2>{text(title)}</h2>\n<p class="how">{how}</p>\n{body}</section>\n'


def document(title: str, header: str, nav: Sequence[tuple[str, str]], main: str, footer: str) -> str:
    """The whole page. `nav` holds (anchor, label) pairs; `header`, `main` and `footer` are HTML."""
    links = "".join(f'<a href="#{anchor}">{text(label)}</a>' for anchor, label in nav)
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(title)}</title>\n<style>\n{style()}</style>\n</head>\n<body>\n"
        f"<header>\n{header}</header>\n"
        + (f'<nav aria-label="Sections"><div>{links}</div></nav>\n' if links else "")
        + f"<main>\n{main}</main>\n<footer>{footer}</footer>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n"
    )
