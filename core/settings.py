"""Settings whose flags are made of their fields: name, type, default and help are written once, beside each other.

A settings dataclass annotates its fields: `steps: Annotated[int | None, Flag("Batches to train on.")] = None` is the
flag `--steps`. `xt.cli.settings` makes the command line of them. What means the same in every command is named here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Flag:
    """How the command line shows a field."""

    help: str
    """What it changes, with its unit."""
    name: str | None = None
    """`--lr`, or `--yes/--no` of a switch; None: the name of the field, with dashes."""
    default: str | None = None
    """The default in words, where its value says too little."""
    least: float | None = None
    """The smallest number that is allowed."""
    positional: bool = False
    """An argument instead of an option."""
    metavar: str | None = None
    """What the help calls a positional argument; None: the name of the field."""


@dataclass(frozen=True)
class FlagField:
    """A field of a settings dataclass that is a flag."""

    name: str
    kind: Any
    """Its type, without `Annotated`."""
    flag: Flag
    default: Any
    """`MISSING` where it must be given."""


def split_annotation(annotation: Any) -> tuple[Any, Flag | None]:
    """Return a type without `Annotated`, and its flag; None without one.

    >>> split_annotation(Annotated[int, Flag("Steps.")])[0], split_annotation(Path)[1]
    (<class 'int'>, None)
    """
    if get_origin(annotation) is not Annotated:
        return annotation, None
    kind, *notes = get_args(annotation)
    return kind, next((note for note in notes if isinstance(note, Flag)), None)


def flag_fields(settings: type) -> Iterator[FlagField | tuple[str, type]]:
    """Yield the flags of a settings dataclass in order, and (name, class) of a field that is such a class itself."""
    hints = get_type_hints(settings, include_extras=True)
    for field in fields(settings):
        kind, flag = split_annotation(hints[field.name])
        if flag is not None:
            yield FlagField(field.name, kind, flag, default_of(field))
        elif isinstance(kind, type) and is_dataclass(kind) and has_flags(kind):
            yield field.name, kind


def has_flags(settings: type) -> bool:
    """Return whether a dataclass has fields that are flags."""
    return any(True for _ in flag_fields(settings))


def default_of(field: Field[Any]) -> Any:
    """Return the default of a field, made where a factory makes it; `MISSING` without one."""
    return field.default if field.default_factory is MISSING else field.default_factory()


Out = Annotated[Path, Flag("Folder to write; it must be new or empty, unless --force.")]
Force = Annotated[bool, Flag("Replace the target, if xt wrote it and it holds nothing else.")]
Json = Annotated[bool, Flag("Print one JSON document on stdout and nothing else there.")]
Seed = Annotated[int, Flag("Seed of everything random.")]
Device = Annotated[str, Flag("Where PyTorch and ONNX Runtime compute: auto, cpu or cuda.")]
DataDir = Annotated[Path | None, Flag("Folder of data sets (tatoeba/ ...). Default: the environment variable XT_DATA.")]
Languages = Annotated[
    str, Flag("Comma-separated codes, or all, low-resource, mid-resource, high-resource, xtreme, xtreme-r.")
]
Truncate = Annotated[bool, Flag("Cut texts that are too long (counted) instead of stopping.")]
StartTimeout = Annotated[float, Flag("Seconds a server may take until all its models are ready; 0: no limit.", least=0)]
TrustCode = Annotated[
    bool,
    Flag(
        "Run also code in the repository that no release of xt wrote: another model.py, files that no manifest "
        "lists. It runs with your rights."
    ),
]
