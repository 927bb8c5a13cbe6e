"""What heads are measured on: which task a name means, and its test examples in every language asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xt.core import languages
from xt.core.data import source_rows, sources, tasks
from xt.core.data.corpus import is_folder
from xt.core.data.examples import Example, ReadLog
from xt.core.data.own_task import OWN_METRICS, measured, own_task
from xt.core.data.readers.formats import is_label
from xt.core.data.tasks import Task
from xt.core.errors import XtError

FORMATS = ("pair", "single", "regression", "choice", "tagging", "qa")
"""What a head can be asked for."""

LABELLED = ("pair", "single", "tagging")
"""Formats whose labels have names."""
ENGLISH = "eng"
Examples = Mapping[str, Sequence[Example]]
"""language -> its examples"""


def find(name: str) -> Task | None:
    """Return the task that heads answer under a name, or FORMAT:PATH for own data; None for parallel text."""
    form, colon, _ = name.partition(":")
    if colon and form in OWN_METRICS:
        row = own_task(name)
    elif is_folder(name):
        return None
    else:
        row = tasks.get(name)
    if row.format == "bitext":
        return None
    if row.format not in FORMATS:
        raise XtError(f"{name} ({row.format}) is a task to train on; it cannot be evaluated.", "See `xt tasks`.")
    return row


@dataclass(frozen=True)
class Target:
    """A task and the examples that it is measured on."""

    task: Task
    """The row, with the labels found in the data where the table has none."""
    examples: Examples
    facts: dict[str, Any]
    """The split, and for each language the files with their hashes, and what could not be read."""
    missing: tuple[str, ...]
    """Languages of the task that are not in the data folder."""
    english: tuple[Example, ...] = ()
    """The task's English dev examples, where its data folder has them beside test examples: what zero-shot calibrators
    may be fitted on."""


def read(task: Task, *, data_dir: Path | None = None, selection: str = "all", head: Task | None = None) -> Target:
    """Read the test examples of a task (its dev examples when it has no test part) in the requested languages.

    A preset such as `all` means the languages in the data folder; when none is there, those of the table, which are
    then looked for on the hub. Of a user's own files the languages are those that the rows name, and the
    labels those of `head`, which answers them (`xt.eval.heads.engines.own_head`).
    """
    if task.own:
        return _read_own(task, selection, head)
    hub = task.hub.splits if task.hub is not None else {}
    split = "test" if "test" in task.files or "test" in hub else "dev"
    there = sources.languages_at(task, split, data_dir) or list(task.codes)
    preset = selection.strip().lower() in languages.PRESETS
    found: dict[str, list[Example]] = {}
    facts: dict[str, Any] = {"split": split, "languages": {}}
    for code in languages.select(selection, there if preset else task.all_codes):
        source = sources.locate(task, split, language=code, data_dir=data_dir)
        log = ReadLog()
        found[code] = list(source_rows.examples(source, log))
        log.check(f"{task.name}, {code}")
        if not found[code]:
            raise XtError(f"{task.name}, {code}: there are no {split} examples.", "Choose by --languages.")
        fact = {"origin": source.origin, "files": log.files, "unusable": log.unusable, "note": source.note}
        facts["languages"][code] = fact
        if not task.labels and source.task.labels:
            task = replace(task, labels=source.task.labels)
    missing = tuple(code for code in task.codes if code not in there) if preset else ()
    english = _english_dev(task, split, data_dir, facts)
    return Target(task, found, facts, missing, english)


def bound(task: Task, head: Task) -> Task:
    """Return a user's own task as the head that answers it has it: with its labels, and what it was trained on.

    Labels that the head does not know stand behind its own, so that their rows can be counted.
    """
    labels = head.labels
    if task.format in LABELLED:
        labels = (*labels, *(label for label in task.labels if not is_label(label, labels)))
    spans = task.format == "tagging" and any(label.startswith(("B-", "I-")) for label in head.labels)
    return replace(
        task,
        labels=labels,
        metric="span_f1" if spans else task.metric,
        train_on=head.name,
        trained_on=head.trained_on,
        divided=head.divided,
    )


def _check_labels(task: Task, head: Task, examples: Examples) -> None:
    """Raise XtError that counts the rows with labels that the head does not know."""
    lacking: Counter[str] = Counter()
    for some in examples.values():
        for example in some:
            found = getattr(example, "labels", None) or (getattr(example, "label", 0),)
            lacking.update({task.labels[at] for at in found if at >= len(head.labels)})
    if lacking:
        counts = ", ".join(f"{label!r} ({count} rows)" for label, count in lacking.most_common(8))
        more = f" and {len(lacking) - 8} more" if len(lacking) > 8 else ""
        known = ", ".join(head.labels[:12]) + (f" and {len(head.labels) - 12} more" if len(head.labels) > 12 else "")
        raise XtError(
            f"{task.source} has labels that the head {head.name} does not know: {counts}{more}.",
            f"Its labels: {known}. Rename or remove these rows, or choose another head by --head.",
        )


def _read_own(task: Task, selection: str, head: Task | None) -> Target:
    """Read a user's own test examples, in one pass, by the languages that their rows name.

    Of a folder that is test.*, or dev.* where there is none; of a file with a column `split` the rows that say test, or
    dev where none does; of any other file all of it.

    Where no row names one, and a single language is requested, they are taken to be in that language, and a note of
    `facts` says so. Other notes say what was left out.
    """
    if head is not None:
        task = bound(task, head)
    source, split = measured(task)
    log, notes = ReadLog(), []
    unnamed = task.codes == (languages.UNDETERMINED,)
    said = [code for code in selection.split(",") if code.strip()]
    if unnamed and len(said) == 1 and languages.is_known(said[0]):
        codes, name = [languages.UNDETERMINED], languages.canonical(said[0])
        notes.append(f"no row names its language: all are taken to be in {name}, as --languages says")
    else:
        codes, name = languages.select(selection, task.codes), ""
        if unnamed:
            notes.append("no row names its language (a column `language`, or --languages CODE where it is one): und")
    rows: dict[str, list[Example]] = {code: [] for code in codes}
    for code, example in source_rows.tagged(replace(source, languages=tuple(codes)), log):
        rows[code].append(example)
    log.check(f"{task.name}, {split}" if split else task.name)
    found = {name or code: examples for code, examples in rows.items() if examples}
    lacking = [code for code, examples in rows.items() if not examples]
    preset = selection.strip().lower() in languages.PRESETS
    if not found or (lacking and not preset):
        there = ", ".join(f"{code} {count}" for code, count in {**log.languages, **log.left_out}.items())
        raise XtError(
            f"{task.name}, {', '.join(lacking)}: there are no {_spoken(split)} (found: {there or 'none'}).",
            "Choose by --languages, or check the column `split`.",
        )
    if head is not None and task.format in LABELLED:
        _check_labels(task, head, found)
        task = replace(task, labels=head.labels)
    notes += log.notes()
    notes += [source.note] if source.note else []
    facts: dict[str, Any] = {"split": split or "all", "unusable": log.unusable, "first_unusable": log.first}
    facts |= {"notes": notes, "left_out": log.left_out}
    facts["languages"] = {
        code: {"origin": source.origin, "files": log.files, "examples": len(examples), "note": source.note}
        for code, examples in found.items()
    }
    return Target(replace(task, codes=tuple(found)), found, facts, (), _english_dev(task, split, None, facts))


def _spoken(split: str) -> str:
    return f"{split} examples" if split else "examples"


def _english_dev(task: Task, split: str, data_dir: Path | None, facts: dict[str, Any]) -> tuple[Example, ...]:
    """Read the English dev examples of a task whose test examples are others; empty where there are none in its folder.

    What they are is noted in `facts`. Nothing is downloaded for them.
    """
    if split != "test" or ENGLISH not in sources.languages_at(task, "dev", data_dir):
        return ()
    source = sources.locate(task, "dev", language=ENGLISH, data_dir=data_dir)
    log = ReadLog()
    rows = tuple(source_rows.examples(source, log))
    log.check(f"{task.name}, {ENGLISH} dev")
    tests = {digest for language in facts["languages"].values() for digest in language["files"].values()}
    if not rows or tests & set(log.files.values()):  # one file that serves as both
        return ()
    facts["english_dev"] = {"origin": source.origin, "files": log.files, "examples": len(rows), "note": source.note}
    return rows
