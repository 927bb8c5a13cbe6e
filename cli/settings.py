"""Make the signature of a Typer command from settings dataclasses: `@with_flags`."""

from __future__ import annotations

import functools
import inspect
import operator
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, is_dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from xt.core.errors import UsageError
from xt.core.settings import FlagField, flag_fields, has_flags, split_annotation


@dataclass(frozen=True)
class Given:
    """Marks a parameter `Annotated[dict[str, Any], Given(Settings)]`: it gets the settings that were given, no others.

    So a recipe may fill the rest. The help tells the defaults in its words.
    """

    of: type
    required: tuple[str, ...] = ()
    """Settings that the command line must name, whatever else fills the others."""


def with_flags(function: Callable[..., None]) -> Callable[..., None]:
    """Return the command of a function, for `typer.Typer.command`.

    A parameter that is a settings dataclass (see `xt.core.settings`) stands for the flags of its fields, also of those
    that are such dataclasses themselves; one with a `Flag` is one flag; any other is Typer's as it is. A `UsageError`,
    wherever it comes from, is shown as wrong usage of the command (exit code 2).
    """
    hints = get_type_hints(function, include_extras=True)
    shown: list[inspect.Parameter] = []
    makers: dict[str, Callable[[Mapping[str, Any]], Any]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        kind, flag = split_annotation(hints[name])
        given = _given(hints[name])
        if given is not None:
            shown += [_parameter(f, given) for f in _flat(given.of)]
            makers[name] = functools.partial(_given_values, given.of)
        elif isinstance(kind, type) and is_dataclass(kind) and has_flags(kind):
            shown += [_parameter(f) for f in _flat(kind)]
            makers[name] = functools.partial(_build, kind)
        elif flag is not None:
            default = MISSING if parameter.default is parameter.empty else parameter.default
            field = FlagField(name, kind, flag, default)
            shown.append(_parameter(field))
            makers[name] = functools.partial(_one, field)
        else:
            shown.append(parameter.replace(annotation=hints[name], kind=parameter.KEYWORD_ONLY))
            makers[name] = operator.itemgetter(name)
    if twice := sorted({p.name for p in shown if sum(q.name == p.name for q in shown) > 1}):
        raise TypeError(f"two flags of {function.__name__} are called {', '.join(twice)}")

    @functools.wraps(function)
    def command(**values: Any) -> None:
        try:
            function(**{name: make(values) for name, make in makers.items()})
        except UsageError as error:
            raise typer.BadParameter(str(error)) from error

    command.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in shown}
    return command


def _given(hint: Any) -> Given | None:
    notes = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((note for note in notes if isinstance(note, Given)), None)


def _flat(settings: type) -> Iterator[FlagField]:
    """Yield the flags of a dataclass, with those of its fields that are settings too."""
    for field in flag_fields(settings):
        if isinstance(field, FlagField):
            yield field
        else:
            yield from _flat(field[1])


def _one(field: FlagField, values: Mapping[str, Any]) -> Any:
    return _read(field, values[field.name])


def _build(settings: type, values: Mapping[str, Any]) -> Any:
    """Return the dataclass that the values of its flags make."""
    made = {}
    for field in flag_fields(settings):
        if isinstance(field, FlagField):
            made[field.name] = _one(field, values)
        else:
            made[field[0]] = _build(field[1], values)
    return settings(**made)


def _given_values(settings: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that were given, by name."""
    given = [field for field in _flat(settings) if values[field.name] is not None]
    return {field.name: _one(field, values) for field in given}


def _parameter(field: FlagField, given: Given | None = None) -> inspect.Parameter:
    """Return the parameter that Typer reads for a flag.

    Of settings that may be left to a recipe the default is None, and the help states it.
    """
    flag, default = field.flag, field.default
    kind, text = _spoken_kind(field.kind), flag.help
    if default is not MISSING and _is_repeated(field.kind):
        default = None  # nothing was given: an empty tuple or table
    if given is not None and field.name not in given.required:
        text += _told(field)
        kind, default = kind if _optional(kind) else kind | None, None
    elif flag.default is not None:
        text += f"  [default: {flag.default}]"
    info: Any
    if flag.positional:
        info = typer.Argument(help=text, metavar=flag.metavar)
    else:
        name = flag.name or f"--{field.name.replace('_', '-')}"
        info = typer.Option(name, help=text, min=flag.least, show_default=flag.default is None)
    empty = inspect.Parameter.empty
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=empty if default is MISSING else default,
        annotation=Annotated[kind, info],
    )


def _told(field: FlagField) -> str:
    """Return what the help says of a default: in words, else its value; nothing of what is off, empty or required.

    >>> from xt.core.settings import Flag
    >>> _told(FlagField("cap", int, Flag("Examples."), 131072)), _told(FlagField("rank", int, Flag("Rank."), None))
    ('  [default: 131072]', '')
    """
    flag, default = field.flag, field.default
    if flag.default is None and (default is MISSING or (default in (None, (), {}) or default is False)):
        return ""
    return f"  [default: {flag.default if flag.default is not None else default}]"


def _optional(kind: Any) -> bool:
    return type(None) in get_args(kind)


def _is_repeated(kind: Any) -> bool:
    return get_origin(kind) in (tuple, Mapping)


def _spoken_kind(kind: Any) -> Any:
    """Return the type that Typer reads: a tuple, and a table of paths by task, as a repeated option."""
    if get_origin(kind) in (Union, types.UnionType):
        return kind
    if get_origin(kind) is tuple:
        return list[get_args(kind)[0]] | None  # type: ignore[misc]
    return list[str] | None if _is_repeated(kind) else kind


def _read(field: FlagField, value: Any) -> Any:
    """Return the value of a field from that of its flag."""
    if get_origin(field.kind) is tuple:
        return tuple(value or ())
    if _is_repeated(field.kind):
        return paths_by_task(value, f"--{field.name}")
    return value


def paths_by_task(values: list[str] | None, option: str) -> dict[str, list[str]]:
    """Read TASK=PATH, given once or more, into the paths of each task."""
    found: dict[str, list[str]] = {}
    for value in values or []:
        name, equals, path = value.rpartition("=")
        if not equals or not name or not path:
            raise typer.BadParameter(f"{value!r} is not TASK=PATH", param_hint=option)
        found.setdefault(name, []).append(path)
    return found
