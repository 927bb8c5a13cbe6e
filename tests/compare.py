"""Compare two folders of results number by number: python -m tests.compare OLD NEW.

What is read below both folders, under the same relative path: reports (metrics.json with its curves, predictions,
calibration.json), checkpoints (losses, dev scores, learning rates), parity.json, exported models' calibration.json, and
the gateway's openapi.json. Former versions wrote reports as one document, without curves.parquet, and calibrations in six
shapes: both are read as what they are now, so that the numbers have the same names.

Exit code 0: what both have is equal to 1e-6; 3: something differs, or a file or group has no counterpart.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xt.calibration.apply import file as calibration
from xt.core.files.artifact import Artifact, read_json
from xt.core.results.folder import LINES, METRICS, TABLE, ReportFolder, read_document
from xt.core.results.report import Report

TOLERANCE = 1e-6
"""Of the larger of two numbers; metrics.json holds seven digits."""
FLOOR = 1e-3
"""Smaller numbers are compared as if they were as large as this."""
SHOWN = 12
"""Differences that are printed of a group, the largest first."""
IGNORED = re.compile(
    r"(^|/)(schema|version|seconds|machine|created|kept_vectors|packages|command|\w*_seconds|\w+_per_second|memory\w*"
    r"|megabytes_peak)(/|$)"
)
"""Parts of paths whose values say when, where and how fast it was."""
CURVES = re.compile(r"/(reliability|risk_coverage)(/|$)")
Leaves = dict[str, Any]


@dataclass
class Group:
    """What was compared of one kind of numbers in one folder."""

    name: str
    compared: int = 0
    different: list[tuple[float, str]] = field(default_factory=list)
    """How far apart, and what is printed."""
    texts: list[str] = field(default_factory=list)
    """Texts that differ."""
    only_old: list[str] = field(default_factory=list)
    only_new: list[str] = field(default_factory=list)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Give every number, text and null inside nested objects and lists, with its path."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from leaves(one, f"{path}/{key}")
    elif isinstance(value, list | tuple):
        for i, one in enumerate(value):
            yield from leaves(one, f"{path}/{i}")
    else:
        yield path, value


def measured(value: Any) -> Leaves:
    """Return the leaves of a document without those that say when, where and how fast."""
    return {path: leaf for path, leaf in leaves(value) if not IGNORED.search(path)}


def report(folder: Path) -> dict[str, Leaves]:
    """Return the groups of a report folder: metrics, curves, predictions."""
    every = measured(read_document(folder))
    groups = {
        "metrics": {path: leaf for path, leaf in every.items() if not CURVES.search(path)},
        "curves": {path: leaf for path, leaf in every.items() if CURVES.search(path)},
    }
    if (folder / TABLE).is_file() or (folder / LINES).is_file():
        rows = ReportFolder(Artifact(folder, {}), Report()).predictions
        groups["predictions"] = measured(rows)
    return groups


def training(folder: Path) -> dict[str, Leaves]:
    """Return the group of a checkpoint: losses, learning rates, dev scores, of an intermediate phase too."""
    facts = read_json(folder / "xt.json").get("facts", {})
    parts = {phase: facts[phase] for phase in ("training", "intermediate") if facts.get(phase)}
    if not parts:
        return {}
    kept = ("losses", "learning_rates", "dev", "steps", "chosen_step", "tokens")
    return {"training": measured({p: {k: f[k] for k in kept if k in f} for p, f in parts.items()})}


READERS: dict[str, Callable[[Path], dict[str, Leaves]]] = {
    METRICS: lambda file: report(file.parent),
    "xt.json": lambda file: training(file.parent),
    "parity.json": lambda file: {"parity": measured(read_json(file))},
    "calibration.json": lambda file: {"calibration": measured(calibration.read(file).to_json())},
    "openapi.json": lambda file: {"openapi": dict(leaves(read_json(file)))},
}
"""File -> what reads it, by group. Of openapi.json texts count like numbers."""


def read(root: Path) -> dict[str, Leaves]:
    """Return the leaves of every file below a folder that is known: "folder: group" -> path -> value."""
    found: dict[str, Leaves] = {}
    for file in sorted(p for name in READERS for p in root.rglob(name)):
        place = re.sub(r"(^|/)\d+(?=/|$)", r"\1VERSION", str(file.parent.relative_to(root)))
        for group, values in READERS[file.name](file).items():
            if values:
                found[f"{place}: {group}"] = values
    return found


def is_number(value: Any) -> bool:
    """Whether a leaf is a number, or a truth value."""
    return isinstance(value, int | float)


def compare(name: str, old: Leaves, new: Leaves) -> Group:
    """Compare two groups of leaves."""
    group = Group(name)
    strict = name.endswith(": openapi")
    for path, a in old.items():
        if path not in new:
            if is_number(a) or strict:
                group.only_old.append(path)
            continue
        b = new[path]
        if is_number(a) and is_number(b):
            group.compared += 1
            apart = abs(a - b) / max(abs(a), abs(b), FLOOR)
            if not apart <= TOLERANCE and a != b and not (a != a and b != b):
                group.different.append((apart, f"{path}: {a!r} -> {b!r}"))
        elif strict or is_number(a) or is_number(b):
            group.compared += 1
            if a != b:
                group.different.append((float("inf"), f"{path}: {a!r} -> {b!r}"))
        elif a != b:
            group.texts.append(f"{path}: {a!r} -> {b!r}")
    group.only_new = [path for path, b in new.items() if path not in old and (is_number(b) or strict)]
    return group


def show(group: Group, write: Callable[[str], Any]) -> None:
    """Print a group: its counts, the largest differences, and what has no counterpart."""
    write(
        f"{group.name}: {group.compared} compared, {len(group.different)} differ, "
        f"{len(group.only_old)} only in old, {len(group.only_new)} only in new, {len(group.texts)} texts differ"
    )
    for apart, line in sorted(group.different, reverse=True)[:SHOWN]:
        write(f"  {apart:.1e}  {line}")
    for title, lines in (("old", group.only_old), ("new", group.only_new)):
        shapes: dict[str, int] = {}
        for line in lines:
            shape = re.sub(r"/\d+(?=/|$)", "/*", line)
            shapes[shape] = shapes.get(shape, 0) + 1
        for shape, count in list(shapes.items())[:SHOWN]:
            write(f"  only in {title}: {shape}" + (f" ({count})" if count > 1 else ""))
    for line in group.texts[:3]:
        write(f"  text  {line[:200]}")


def main(arguments: list[str], write: Callable[[str], Any] = print) -> int:
    """Compare the two folders named, print what differs, and return the exit code."""
    if len(arguments) != 2 or not all(Path(a).is_dir() for a in arguments):
        write("usage: python -m tests.compare OLD NEW   (two folders)")
        return 2
    old, new = (read(Path(a)) for a in arguments)
    groups = [compare(name, old[name], new[name]) for name in old if name in new]
    for group in groups:
        show(group, write)
    lone = [("old", name, old[name]) for name in old if name not in new]
    lone += [("new", name, new[name]) for name in new if name not in old]
    for side, name, values in lone:
        write(f"{name}: only in {side}, {sum(map(is_number, values.values()))} numbers without a counterpart")
    total = sum(g.compared for g in groups)
    apart = sum(len(g.different) for g in groups)
    lacking = sum(len(g.only_old) + len(g.only_new) for g in groups)
    write(
        f"{total} numbers compared, {apart} differ by more than {TOLERANCE:g}, {lacking} have no counterpart, "
        f"{len(lone)} groups have none"
    )
    return 3 if apart or lone or not total else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
