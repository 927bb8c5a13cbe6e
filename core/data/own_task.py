"""A task made of a user's own data, named as FORMAT:PATH."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from xt.core.data.examples import QaExample, ReadLog
from xt.core.data.readers.rows import SPLIT_WORDS, SPLITS, TABLES, is_readable, read, split_named
from xt.core.data.sources import HELD_OUT, Source, by_split, files_below, has_splits
from xt.core.data.tasks import FORMATS, OWN_LICENCE, Task
from xt.core.errors import XtError
from xt.core.files.artifact import sha256
from xt.core.languages import UNDETERMINED

OWN_METRICS = {
    "pair": "accuracy",
    "single": "accuracy",
    "regression": "spearman",
    "choice": "accuracy",
    "qa": "f1",
    "tagging": "accuracy",
    "mlm": "token_accuracy",
    "contrastive": "retrieval",
    "image-text": "retrieval",
}
"""The formats that a user's own data may have, and the metric of each (tagging with B- and I- labels: `span_f1`)."""


def own_task(spec: str) -> Task:
    """Make a task of a user's own data, named as `FORMAT:PATH` (`single:data/intents`, `pair:mine.tsv`).

    The path is a file, or a folder that holds train.*, dev.* and test.*; the labels are those that occur in it.
    """
    from xt.core.data.readers.discover import Found, discover

    format, colon, name = spec.partition(":")
    if not colon or format not in OWN_METRICS or not name:
        shapes = "\n".join(f"  {key}:PATH  {FORMATS[key]}" for key in OWN_METRICS)
        raise XtError(f"{spec!r} is no task and no FORMAT:PATH.", f"The formats:\n{shapes}")
    path = Path(name).expanduser().absolute()
    if not path.exists():
        raise XtError(f"{spec}: there is no {path}.", "Check the path.")
    if not (path.is_file() or path.is_dir()):
        raise XtError(f"{spec}: {path} is neither a file nor a folder.", "Write what it gives to a file first.")
    stem = path.name if path.is_dir() else path.name.split(".")[0]
    stem = path.parent.name if stem.lower() in SPLIT_WORDS else stem  # mine/train.tsv is `mine`
    blank = Task(
        re.sub(r"[^\w-]+", "-", stem),
        kind="intermediate",
        format=format,
        title=f"Your own: {FORMATS[format]}",
        labels=(),
        languages="as given",
        metric=OWN_METRICS[format],
        source=str(path),
        licence=OWN_LICENCE,
    )
    found = by_split(blank, [path])
    paths = [p for split in SPLITS for p in found.get(split, ())]
    layout = "lines" if format == "mlm" and not all(is_readable(p, TABLES) for p in paths) else "xt"
    held = discover(format, paths, layout) if format not in ("mlm", "image-text") else Found()
    labels = sorted(held.labels) if format in ("pair", "single", "tagging") else []
    codes = sorted(held.languages, key=lambda code: (-held.languages[code], code)) or [UNDETERMINED]
    none = format == "qa" and any(_unanswered(blank, path) for path in paths)
    spans = format == "tagging" and any(re.match(r"[BI]-", label) for label in labels)
    return replace(
        blank,
        labels=tuple(labels),
        codes=tuple(codes),
        layout=layout,
        metric="span_f1" if spans else blank.metric,
        no_answer=none,
        files={split: (_literal(ps),) for split, ps in found.items()},
    )


def measured(task: Task) -> tuple[Source, str]:
    """Return where the examples are that a head is measured on with a user's own data, and the split they are.

    Of a folder that is test.*, or dev.* where there is none, or train.*; of a file whose rows name their split the rows
    of test, or of dev where none says test, or of train. Of any other file it is all of it (the split is empty), but
    of one that the head was trained on the part that was held out.
    """
    found = {split: files_below(task, split, "", None) for split in ("test", "dev", "train")}
    split = next(split for split, files in found.items() if files)
    files = found[split]
    named = _splits_in(files) if all(has_splits(task, file) for file in files) else {}
    if named:
        split = next(s for s in found if s in named)
        note = f"the rows of {files[0].name} that say {split} ({', '.join(f'{s} {n}' for s, n in named.items())})"
        return Source(task, split, "", files, "files", note=note), split
    whole = Source(task, split, "", files, "files")
    if task.trained_on and {sha256(file) for file in files} & set(task.trained_on):
        if task.divided:
            note = f"{task.train_on} was trained on {files[0].name}: measured on the part held out from training"
            return replace(whole, split="dev", part=("dev", HELD_OUT), note=note), "dev"
        note = f"{task.train_on} was trained on these very rows ({files[0].name}): this says nothing about other texts"
        return replace(whole, note=note), split
    return whole, split if Path(task.source).is_dir() else ""


def _splits_in(files: Sequence[Path]) -> dict[str, int]:
    """Count the rows of each split in files whose rows name theirs."""
    found: Counter[str] = Counter()
    for file in files:
        for _, row in read(file, TABLES):
            with suppress(ValueError):  # a word that is no split: the row is counted as unusable when it is read
                if not isinstance(row, str) and (split := split_named(row.get("split"))):
                    found[split] += 1
    return dict(found)


def _unanswered(task: Task, path: Path) -> bool:
    """Return whether a file of questions has one without an answer."""
    from xt.core.data.readers.layouts import read_file

    return any(isinstance(e, QaExample) and not e.answers for e in read_file(task, path, ReadLog()))


def _literal(paths: Sequence[Path]) -> str:
    """Return a pattern that matches these files of one folder: a `train.*` of which there is mostly one."""
    if len(paths) > 1:
        names = ", ".join(p.name for p in paths)
        raise XtError(f"{paths[0].parent} holds several files of one split: {names}.", "Keep one of them.")
    return glob.escape(str(paths[0]))
