"""What a user's own files hold, before they are read as examples: columns, labels, languages."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xt.core import languages
from xt.core.data.readers.formats import MAKERS, Lacks
from xt.core.data.readers.layouts import MOST_LABELS, Layout, Plan, layout_named
from xt.core.data.readers.published import ccg_labels
from xt.core.data.readers.rows import Row
from xt.core.data.tasks import Task
from xt.core.errors import XtError, unknown

MOST_LANGUAGES = 1000
"""More different languages than this are taken for a wrong column."""
NAMES = {
    "text": ("sentence", "utterance", "content", "body", "question", "query", "review", "comment", "document", "tweet"),
    "label": ("intent", "category", "class", "target", "topic", "sentiment", "gold_label", "labels", "tag"),
    "first": ("sentence1", "premise", "text1", "text_a", "question1", "sentence_a", "source", "query"),
    "second": ("sentence2", "hypothesis", "text2", "text_b", "question2", "sentence_b", "target", "passage"),
    "score": ("similarity", "rating", "relatedness_score", "label"),
    "prompt": ("ctx", "question", "premise", "context"),
    "choices": ("endings", "options", "answers", "candidates"),
    "words": ("tokens", "text", "sentence"),
    "labels": ("tags", "ner_tags", "pos_tags", "upos", "label"),
    "anchor": ("query", "question", "first", "sentence1"),
    "positive": ("passage", "document", "answer", "second", "sentence2", "pos"),
    "context": ("passage", "paragraph", "document", "text"),
    "question": ("query",),
    "answers": ("answer", "answers.text"),
    "starts": ("answer_start", "answer_starts", "start"),
    "image": ("row", "index", "image_id"),
}
"""What other data sets call the columns of `COLUMNS`."""
COLUMNS: dict[str, tuple[str, ...]] = {
    "pair": ("first", "second", "label"),
    "single": ("text", "label"),
    "regression": ("first", "second", "score"),
    "choice": ("prompt", "choices", "label"),
    "qa": ("context", "question", "answers", "starts"),
    "tagging": ("words", "labels"),
    "contrastive": ("anchor", "positive"),
    "mlm": ("text",),
    "image-text": ("image", "text"),
}
"""The columns that own data of each format need, as the documentation names them."""


@dataclass
class Found:
    """What the rows of files hold, counted."""

    rows: int = 0
    """Rows that could be read, usable or not."""
    unread: list[str] = field(default_factory=list)
    """`FILE, line N: reason` of the first rows that could not."""
    labels: Counter[str] = field(default_factory=Counter)
    """Label (or tag) to the rows that have it."""
    languages: Counter[str] = field(default_factory=Counter)
    """Language to the rows that name it, `und` for those that name none; see `xt.core.languages.canonical`."""


def discover(format: str, paths: Iterable[Path], layout: str = "xt") -> Found:
    """Count the labels and the languages that stand in files of a format.

    Raises XtError for a file without rows, one whose rows all lack a column that the format needs, and for more labels
    or languages than a right column has.
    """
    if format not in MAKERS:
        raise unknown("format", format, MAKERS)
    reader = layout_named(layout)
    found = Found()
    if not isinstance(reader, Layout):
        return found
    probe = Task("these data", "intermediate", format, "", ("-",), "", "", "", "")
    reader.check(probe)
    plan, name = reader.plan(probe), MAKERS[format].label
    for path in paths:
        _read(reader, plan, path, format, name, found)
        if len(found.labels) > MOST_LABELS:
            raise XtError(f"{path}: more than {MOST_LABELS:,} different labels in {name!r}.", "Is it the right column?")
        if len(found.languages) > MOST_LANGUAGES:
            some = ", ".join(repr(code) for code in list(found.languages)[:5])
            raise XtError(
                f"{path}: more than {MOST_LANGUAGES:,} different values in the column language ({some} ...).",
                "Expected a language's code in it; rename the column if it holds something else.",
            )
    return found


def discover_labels(format: str, paths: Iterable[Path], layout: str = "xt") -> tuple[str, ...]:
    """Return the different labels in files (the tags of `tagging`), sorted; none for formats without named labels."""
    if layout == "ccgbank":
        return tuple(sorted({label for path in paths for label in ccg_labels(path)}))
    if format in MAKERS and not MAKERS[format].label:
        return ()
    return tuple(sorted(discover(format, paths, layout).labels))


def _read(reader: Layout, plan: Plan, path: Path, format: str, name: str, found: Found) -> None:
    """Count the rows of one file."""
    columns: dict[str, None] = {}
    rows = usable = 0
    unread: list[str] = []
    for line, row in reader.cut(path):
        if isinstance(row, str):
            if len(unread) < 3:
                unread.append(f"{path}, line {line}: {row}")
            continue
        rows += 1
        if len(columns) < 100:
            columns.update(dict.fromkeys(map(str, row)))
        language = row.get("language")
        if language is None or isinstance(language, str):
            found.languages[languages.canonical(language or "")] += 1
        named = _named(reader, plan, row)
        if named is not None:
            usable += 1
            if name:
                found.labels.update(_labels(reader, named[name], name))
    if not rows:
        first = f" The first: {unread[0]}" if unread else ""
        raise XtError(
            f"{path} holds no rows{' that can be read' if unread else ''}.{first}",
            f"{format} data need the columns {', '.join(COLUMNS[format])}: see docs/own-data.md.",
        )
    if not usable:
        raise wrong_columns(path, format, list(columns))
    found.rows += rows
    found.unread += unread


def _named(reader: Layout, plan: Plan, row: Row) -> dict[str, Any] | None:
    """Return what a format needs of a row, None where the row lacks something."""
    try:
        return reader.named(plan, row)
    except (Lacks, ValueError, KeyError, TypeError):
        return None


def _labels(reader: Layout, value: Any, name: str) -> set[str]:
    """Return the labels of a row; those that cannot be used are left out here, and reported when the row is read."""
    if name == "tags" and isinstance(value, str):
        value = value.split()
    values = value if isinstance(value, list) else [value]
    kept = {str(v).strip() for v in values if isinstance(v, str | int) and not isinstance(v, bool)}
    return {label for label in kept if label and label not in reader.unlabelled}


def wrong_columns(path: Path, format: str, columns: Sequence[str]) -> XtError:
    """Return the error for a file without the columns of a format: those that it has, those expected, which is which.

    >>> error = wrong_columns(Path("a.csv"), "single", ["sentence", "Intent"])
    >>> error.message
    'a.csv has the columns sentence, Intent; single data need text, label.'
    >>> error.hint.splitlines()[0]
    'Rename sentence to text, Intent to label.'
    """
    need = COLUMNS[format]
    if format == "choice" and "choice0" in columns:
        need = ("prompt", "choice0, choice1 ...", "label")
    meant = guesses(columns, [name for name in need if name not in columns])
    hints = [f"Rename {', '.join(f'{theirs} to {ours}' for ours, theirs in meant.items())}."] if meant else []
    if len(columns) == 1 and (mark := next((m for m in (";", "\t", ",", "|") if m in columns[0]), "")):
        kind = {"\t": "tabs"}.get(mark, f"{mark!r}")
        hints.insert(0, f"Its columns stand between {kind}: save it with commas (.csv) or tabs (.tsv) between them.")
    hints.append("The columns of every format: docs/own-data.md.")
    shown = ", ".join(columns[:12]) + (f" and {len(columns) - 12} more" if len(columns) > 12 else "")
    return XtError(f"{path} has the columns {shown or 'none'}; {format} data need {', '.join(need)}.", "\n".join(hints))


def guesses(columns: Sequence[str], needed: Sequence[str]) -> Mapping[str, str]:
    """Guess which of the columns are meant by the needed ones: needed -> found, each found one once."""
    meant: dict[str, str] = {}
    lower = {column.strip().casefold(): column for column in columns}
    for name in needed:
        free = {key: column for key, column in lower.items() if column not in meant.values() and column not in needed}
        near = difflib.get_close_matches(name, free, n=1, cutoff=0.7)
        key = next((k for k in (name, *NAMES.get(name, ()), *near) if k in free), None)
        if key is not None:
            meant[name] = free[key]
    return meant
