"""Comparing documents of JSON number by number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def different(one: Any, other: Any, path: tuple[Any, ...] = (), *, rel: float = 1e-6) -> list[tuple[Any, ...]]:
    """Paths at which two documents differ, numbers by more than `rel` of the first; tuples are lists."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        lone = [(*path, key) for key in set(one) ^ set(other)]
        return lone + [p for key in one if key in other for p in different(one[key], other[key], (*path, key), rel=rel)]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        pairs = list(zip(one, other, strict=False))
        lone = [path] if len(one) != len(other) else []
        return lone + [p for i, (a, b) in enumerate(pairs) for p in different(a, b, (*path, i), rel=rel)]
    if all(isinstance(x, int | float) and not isinstance(x, bool) for x in (one, other)):
        return [] if abs(one - other) <= rel * abs(one) else [path]
    return [] if one == other and type(one) is type(other) else [path]
