"""Dataclasses that are read from JSON and written to it by their fields, and lose nothing on the way."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

R = TypeVar("R", bound="Record")
Parser = Callable[[Any], Any]
"""What a JSON value is read with; it returns None for a value of another type."""
OWN = ("extra", "present")
Interval = tuple[float, float]
"""The ends of a 95 % interval."""


@dataclass
class Record:
    """The base of what a report is made of.

    Every field has a default, which stands for a value that is missing. A value of another type than the field's
    counts as missing; keys that are no field are kept in `extra`, so that a newer report loses nothing.

    >>> @dataclass
    ... class Point(Record):
    ...     x: float | None = None
    ...     name: str | None = None
    >>> point = Point.from_json({"x": 1, "name": None, "colour": "red"})
    >>> point.x, point.name, point.extra
    (1, None, {'colour': 'red'})
    >>> point.to_json()
    {'x': 1, 'name': None, 'colour': 'red'}
    """

    extra: dict[str, Any] = field(default_factory=dict, kw_only=True)
    """Keys of the JSON object that are no field."""
    present: frozenset[str] = field(default=frozenset(), kw_only=True, repr=False, compare=False)
    """Fields that were in the JSON object, also as null or empty."""

    @classmethod
    def from_json(cls: type[R], value: Any) -> R:
        """Read a JSON object; anything else counts as an empty one."""
        data = value if isinstance(value, Mapping) else {}
        known = parsers(cls)  # type: ignore[arg-type]  # a class has a hash, though its objects have none
        read = {name: parsed for name, parse in known.items() if (parsed := parse(data.get(name))) is not None}
        extra = {str(key): item for key, item in data.items() if key not in known}
        return cls(**read, extra=extra, present=frozenset(known).intersection(data))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object: what there is, and what was given as null or empty."""
        out = {}
        for name in parsers(type(self)):  # type: ignore[arg-type]
            value = plain(getattr(self, name))
            if name in self.present or not (value is None or value == {} or value == []):
                out[name] = value
        return {**out, **plain(self.extra)}


def plain(value: Any) -> Any:
    """Return a value as JSON has it: records as objects, inside lists and objects too."""
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


@cache
def parsers(kind: type[Record]) -> dict[str, Parser]:
    """Return what each field of a record is read with, in the order of the fields."""
    hints = get_type_hints(kind)
    return {f.name: parser_of(hints[f.name]) for f in dataclasses.fields(kind) if f.name not in OWN}


def parser_of(hint: Any) -> Parser:
    """Return what reads a value of a type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (inner,) = [a for a in arguments if a is not type(None)]
        return parser_of(inner)
    if origin is dict:
        each, null = parser_of(arguments[1]), type(None) in get_args(arguments[1])
        return lambda value: _dict(value, each, null)
    if origin is list:
        each = parser_of(arguments[0])
        return lambda value: _list(value, each)
    if origin is tuple:
        return _interval
    if isinstance(hint, type) and issubclass(hint, Record):
        return lambda value: hint.from_json(value) if isinstance(value, Mapping) else None
    return {float: number, int: number, str: _string, bool: _bool}.get(hint, _anything)


def number(value: Any) -> float | int | None:
    """Return a finite number, else None.

    >>> number(2), number(0.5), number(float("nan")), number("2"), number(True)
    (2, 0.5, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


def _anything(value: Any) -> Any:
    return value


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _bool(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _interval(value: Any) -> tuple[float, float] | None:
    """Read a lower and an upper end."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = map(number, value)
    return None if low is None or high is None else (low, high)


def _dict(value: Any, each: Parser, null: bool) -> dict[str, Any] | None:
    """Read an object; values that are missing are left out, unless the type says that they may be `null`."""
    if not isinstance(value, Mapping):
        return None
    read = {str(key): each(item) for key, item in value.items()}
    return read if null else {key: item for key, item in read.items() if item is not None}


def _list(value: Any, each: Parser) -> list[Any] | None:
    if not isinstance(value, list | tuple):
        return None
    return [item for item in map(each, value) if item is not None]
