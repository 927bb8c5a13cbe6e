"""Training data, tokenised once and kept on disk by content: whatever their number, little of them is in memory.

A folder of flat arrays below the user's cache, named by the hash of all that its content depends on: the files' bytes,
which part of them counts, the format, the tokenizer, the longest input. It is written whole or not at all.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from xt.core.data.examples import Example
from xt.core.data.tasks import Task
from xt.core.files.artifact import read_json, write_json
from xt.core.files.cache_folder import HINT, cache_folder, explain, explained
from xt.core.files.replacing import remove
from xt.core.heads.inputs import Inputs, Unit

SCHEMA = 4
CHUNK = 1000
"""Examples that are tokenised together."""
STALE_SECONDS = 86_400
META = "prepared.json"
"""Written last: a folder that has it is whole."""
KINDS = {
    "ids": np.int32,
    "types": np.int8,
    "labels": np.int16,
    "rows": np.int64,
    "units": np.int64,
    "targets": np.float32,
    "lengths": np.int32,
}
"""The arrays: token ids, segments and token labels of all rows on end; where each row and unit ends in them; the
targets of each unit; its longest row's tokens times its rows."""
DRAFT_FILE = re.compile(rf"({'|'.join(KINDS)})\.bin|\.?{re.escape(META)}(\.\d+)?")
"""What a killed process can leave."""


def preparations() -> Path:
    """Return where prepared data are kept; removing it costs only the time to make them again."""
    return cache_folder() / "prepared"


def key(facts: Mapping[str, Any]) -> str:
    """Return the name of the data that these facts determine."""
    text = json.dumps({"schema": SCHEMA, **facts}, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def chosen(examples: Iterable[Example], limit: int | None, seed: int) -> Iterator[Example]:
    """Return all examples, or the `limit` of them that a hash of seed and texts puts first, in their order."""
    if limit is None:
        yield from examples
        return
    heap: list[tuple[int, int, Example]] = []  # largest hash on top, negated
    for at, example in enumerate(examples):
        text = f"{seed}\0{example!r}".encode("utf-8", "replace")
        rank = -int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
        if len(heap) < limit:
            heapq.heappush(heap, (rank, at, example))
        elif rank > heap[0][0]:
            heapq.heapreplace(heap, (rank, at, example))
    yield from (example for _, _, example in sorted(heap, key=lambda entry: entry[1]))


class _Writer:
    """Appends units to the arrays' files."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, BinaryIO] = {name: (folder / f"{name}.bin").open("wb") for name in KINDS}
        self.tokens = self.rows = self.units = self.cut = 0
        self.width = 0
        self.sum = self.squares = 0.0

    def add(self, units: Sequence[Unit]) -> None:
        rows = [row for unit in units for row in unit.rows]
        row_ends = self.tokens + np.cumsum([len(row) for row in rows])
        unit_ends = self.rows + np.cumsum([len(unit.rows) for unit in units])
        targets = np.array([unit.targets for unit in units], np.float64)  # (units, targets of each)
        self._put("ids", np.concatenate(rows))
        self._put("types", np.concatenate([types for unit in units for types in unit.types]))
        self._put("rows", row_ends)
        self._put("units", unit_ends)
        self._put("targets", targets)
        self._put("lengths", [unit.longest * len(unit.rows) for unit in units])
        if labels := [unit.labels for unit in units if unit.labels is not None]:
            self._put("labels", np.concatenate(labels))
        self.tokens, self.rows = int(row_ends[-1]), int(unit_ends[-1])
        self.units += len(units)
        self.cut += sum(unit.cut for unit in units)
        self.width = targets.shape[1]
        self.sum += float(targets[:, :1].sum())
        self.squares += float((targets[:, :1] ** 2).sum())

    def _put(self, name: str, values: Any) -> None:
        self.files[name].write(np.asarray(values, KINDS[name]).tobytes())

    def close(self) -> None:
        for file in self.files.values():
            file.close()

    def facts(self) -> dict[str, Any]:
        mean = self.sum / max(1, self.units)
        return {
            "tokens": self.tokens,
            "rows": self.rows,
            "units": self.units,
            "cut": self.cut,
            "targets": self.width,
            "mean": mean,
            "deviation": max(0.0, self.squares / max(1, self.units) - mean**2) ** 0.5,
        }


@dataclass(frozen=True)
class Prepared:
    """The units of a task's training data, on disk."""

    folder: Path
    facts: dict[str, Any]
    """`examples`, `units`, `rows`, `tokens`, `cut`, the targets' `mean` and `deviation`, and what the caller added."""

    def __len__(self) -> int:
        """Count the units."""
        return int(self.facts["units"])

    def _array(self, name: str) -> npt.NDArray[Any]:
        file = self.folder / f"{name}.bin"
        if not file.stat().st_size:
            return np.zeros(0, KINDS[name])
        return np.memmap(file, KINDS[name], mode="r")

    @cached_property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays, read from disk where they are touched."""
        return {name: self._array(name) for name in KINDS}

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens, padding included, that each unit needs (units,)."""
        return np.asarray(self.arrays["lengths"], np.int64)

    def unit(self, index: int) -> Unit:
        """Read one unit."""
        a = self.arrays
        first = int(a["units"][index - 1]) if index else 0
        ends = a["rows"][first : int(a["units"][index])]
        starts = [int(a["rows"][first - 1]) if first else 0, *(int(end) for end in ends[:-1])]
        rows = [np.array(a["ids"][s : int(e)]) for s, e in zip(starts, ends, strict=True)]
        types = [np.array(a["types"][s : int(e)], np.int32) for s, e in zip(starts, ends, strict=True)]
        width = self.facts["targets"]
        targets = tuple(a["targets"][index * width : (index + 1) * width].tolist())
        labels = np.array(a["labels"][starts[0] : int(ends[-1])], np.int32) if len(a["labels"]) else None
        return Unit(rows, types, targets, labels=labels)


def find(name: str) -> Prepared | None:
    """Return data that were prepared before, by their `key`; None when they were not."""
    folder = preparations() / name
    with explained():
        if not (folder / META).is_file():
            return None
        return Prepared(folder, read_json(folder / META, f"Remove {folder}; it is made again. {HINT}"))


def _sweep(folder: Path) -> None:
    """Remove what killed processes left, a day after they last wrote."""
    for draft in folder.glob(".draft-*"):
        if draft.is_dir() and not draft.is_symlink() and time.time() - draft.stat().st_mtime > STALE_SECONDS:
            remove(draft, lambda name: DRAFT_FILE.fullmatch(name) is not None)


def prepare(
    name: str, task: Task, examples: Iterable[Example], inputs: Inputs, *, facts: Mapping[str, Any] | None = None
) -> Prepared:
    """Tokenise examples as they come and keep the result under `name` (see `key`).

    `facts` are kept with it; a function among them is called once all examples came.
    """
    try:
        preparations().mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(preparations())
        draft = Path(mkdtemp(prefix=".draft-", dir=preparations()))
    except OSError as error:
        raise explain(error) from error
    try:
        stream, count = iter(examples), 0
        with closing(_Writer(draft)) as writer:
            while some := list(islice(stream, CHUNK)):
                writer.add(inputs.units(task, some))
                count += len(some)
        more = {k: v() if callable(v) else v for k, v in (facts or {}).items()}
        write_json(draft / META, {**more, **writer.facts(), "examples": count})
        try:
            os.rename(draft, preparations() / name)
        except OSError:  # another process was first; what it wrote is the same
            if find(name) is None:
                raise
    except OSError as error:
        raise explain(error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    found = find(name)
    assert found is not None
    return found
