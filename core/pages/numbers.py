"""Numbers as text."""

import math
from typing import Any, TypeGuard

DASH = "–"  # stands for None and NaN
MINUS = "−"


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether `value` is a finite int or float (a bool is not).

    >>> [is_number(v) for v in (1, 0.5, True, None, float("nan"), "1")]
    [True, True, False, False, False, False]
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def fixed(value: Any, digits: int = 3) -> str:
    """Return `value` with `digits` decimals and thousands separators; an en dash where there is no finite number.

    >>> fixed(0.02345), fixed(1234.5, 0), fixed(-0.5, 1), fixed(float("nan"))
    ('0.023', '1,234', '−0.5', '–')
    """
    return f"{value:,.{digits}f}".replace("-", MINUS) if is_number(value) else DASH


def percent(value: Any, digits: int = 1) -> str:
    """Return a share in [0, 1] as a percentage.

    >>> percent(0.8734), percent(1), percent(None)
    ('87.3%', '100.0%', '–')
    """
    return f"{fixed(100 * value, digits)}%" if is_number(value) else DASH


def signed(value: Any, digits: int = 3) -> str:
    """Return a difference, always with its sign.

    >>> signed(0.0314), signed(-0.004), signed(0.0001), signed(None)
    ('+0.031', '−0.004', '0.000', '–')
    """
    rounded = round(value, digits) + 0.0 if is_number(value) else None
    return ("+" if rounded and rounded > 0 else "") + fixed(rounded, digits)


def points(value: Any, digits: int = 1) -> str:
    """Return a difference of two shares in percentage points, always with its sign.

    >>> points(0.031), points(-0.004), points(0.0)
    ('+3.1', '−0.4', '0.0')
    """
    return signed(100 * value if is_number(value) else None, digits)


def quantity(value: Any) -> str:
    """Return a positive amount with about three significant figures.

    >>> quantity(1523.4), quantity(45.67), quantity(8.034), quantity(0.5), quantity(120)
    ('1,523', '45.7', '8.03', '0.50', '120')
    """
    if not is_number(value):
        return DASH
    return fixed(value, 0 if isinstance(value, int) or abs(value) >= 100 else 1 if abs(value) >= 10 else 2)


def interval(bounds: Any, digits: int = 3, factor: float = 1) -> str:
    """Return a pair of bounds as `[low, high]`; an empty string where either is missing.

    >>> interval([0.871, 0.95], 1, 100), interval(None)
    ('[87.1, 95.0]', '')
    """
    if not isinstance(bounds, list | tuple) or len(bounds) != 2 or not all(is_number(b) for b in bounds):
        return ""
    return f"[{fixed(factor * bounds[0], digits)}, {fixed(factor * bounds[1], digits)}]"


def difference(after: Any, before: Any) -> float | None:
    """Return after - before, or None where either is not a number."""
    return after - before if is_number(after) and is_number(before) else None


def short(value: float) -> str:
    """Return the label of a tick: no needless zeros, thousands as k.

    >>> short(0.25), short(5e-06), short(1500), short(20000), short(0.0), short(-0.5)
    ('0.25', '5e-6', '1,500', '20k', '0', '−0.5')
    """
    if value and value % 1000 == 0 and abs(value) >= 10000:
        return f"{value / 1000:,g}k"
    label = f"{value:,g}"
    return label.replace("e-0", "e-").replace("e+0", "e") if "e" in label else label.replace("-", MINUS)
