"""Reads task data: a file in its published layout, or rows of the hub, become examples; every row is checked.

A row that cannot be used is written into the `ReadLog` with file, line and reason, and the others are read on. A file
that cannot be used at all raises XtError. Readers are generators: a file of lines is never in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from xt.core import languages
from xt.core.data.examples import Example, ReadLog
from xt.core.data.readers import published, rows
from xt.core.data.readers.formats import MAKERS, Lacks, NoLabel, OtherLabel, Position, id_of, position_of
from xt.core.data.readers.rows import SPLITS, Cells, Row, Rows, split_named
from xt.core.data.tasks import Task
from xt.core.errors import XtError, explain_os_error, unknown
from xt.core.files.artifact import sha256

__all__ = ["LAYOUTS", "SPLITS", "Layout", "Reader", "layout_named", "read_file", "read_rows", "read_tagged"]

MOST_LABELS = 20_000
"""More different labels than this are taken for a wrong column."""
UNLABELLED = (None, "", "-", -1, "-1")
"""What stands in the label column of published rows that have no label."""
_OPTIONAL = ("id", "negative", "language", "answerless", "twins")
"""What an example can have besides what its format needs; `answerless` and `twins` allow what is else refused."""
_IDS = ("id", "uid", "pairID", "pair_ID", "index_id", "idx", "index", "ind")
"""How the published files name their ids."""
Plan: TypeAlias = list[tuple[str, tuple[str, ...], bool]]
"""For each thing that an example needs its name, the columns where it may be, and whether it must be there."""


Tagged: TypeAlias = tuple[str, Example]
"""The language that a row names, empty where it names none, and the row's example."""


class Reader(Protocol):
    """Reads a file: its examples one after another, unusable rows into the log."""

    def __call__(
        self, task: Task, path: Path, log: ReadLog, *, split: str | None = None, language: str | None = None
    ) -> Iterator[Tagged]:
        """Yield the examples of a split (None: of all) in a language (None: in all), each with its row's language."""


@dataclass(frozen=True)
class Layout:
    """A reader for one published layout: how a file is cut into rows, and what the columns are called."""

    cut: Callable[[Path], Rows]
    columns: Mapping[str, Mapping[str, tuple[str, ...]]]
    """For each format it can hold: what an example needs, to the columns where that may be, first one first."""
    adapt: Callable[[Row], Row] = lambda row: row
    """Makes the columns an example needs out of those the file has."""
    unlabelled: tuple[Any, ...] = UNLABELLED
    skips_others: bool = False
    """Whether rows with a label that is none of the task's count as unlabelled, not as unusable."""
    ids: tuple[str, ...] = _IDS
    own: bool = False
    """Whether it is xt's own, in which the column `language` names languages and nothing else."""

    def __call__(
        self, task: Task, path: Path, log: ReadLog, *, split: str | None = None, language: str | None = None
    ) -> Iterator[Tagged]:
        """Yield the examples of a file, each with the language that its row names."""
        _note(log, path, sha256)
        seen: dict[str, bool] = {}
        yield from self.read(task, self.cut(path), str(path), log, split=split, language=language, seen=seen)
        if language and seen and not any(seen.values()):
            raise XtError(f"{path} has no row in language {language!r}.", f"It has: {', '.join(sorted(seen))}.")

    def read(
        self,
        task: Task,
        found: Rows,
        where: str,
        log: ReadLog,
        *,
        split: str | None = None,
        language: str | None = None,
        seen: dict[str, bool] | None = None,
        position: Position | None = None,
    ) -> Iterator[Tagged]:
        """Yield the examples of rows, each with the language that it names.

        `seen` gets the languages of the rows, and of each whether it was wanted.
        """
        self.check(task)
        seen = {} if seen is None else seen
        plan, name = self.plan(task), Path(where).name
        position = position or (lambda value: position_of(task, value, self.unlabelled))
        for line, row in found:
            try:
                if isinstance(row, str):
                    raise ValueError(row)
                if not _of_split(row, split) or not _of_language(row, language, seen):
                    continue
                spoken = _language_of(row, strict=self.own)
                named = self.named(plan, row)
                example = MAKERS[task.format].make(named, id_of(named, name, line), position)
            except NoLabel:
                log.unlabelled += 1
            except Lacks as error:
                if isinstance(row, Cells):
                    raise XtError(f"{where}: the header {error} It has: {', '.join(row)}.", self._hint(task)) from error
                log.reject(where, line, str(error))
            except (ValueError, XtError, TypeError) as error:
                if self.skips_others and isinstance(error, OtherLabel):
                    log.unlabelled += 1
                else:
                    log.reject(where, line, error.message if isinstance(error, XtError) else str(error))
            else:
                yield spoken, example

    def plan(self, task: Task) -> Plan:
        """Return the columns where the needs of the task's examples are looked for."""
        needs, own = MAKERS[task.format].needs, {"id": self.ids, **self.columns[task.format]}
        names = (*needs, *_OPTIONAL)
        return [(name, _given(task, name) + own.get(name, (name,)), name in needs) for name in names]

    def named(self, plan: Plan, row: Row) -> dict[str, Any]:
        """Return what an example needs from a row, by the names of the format; Lacks when something is not there."""
        try:
            adapted = self.adapt(row)
        except KeyError as error:
            raise Lacks(f"lacks {error.args[0]}.") from None
        named: dict[str, Any] = {}
        for name, columns, needed in plan:
            for column in columns:
                if column in adapted:
                    named[name] = adapted[column]
                    break
                if "." in column and rows.holds(adapted, column):
                    named[name] = rows.look(adapted, column)
                    break
            else:
                if needed:
                    raise Lacks(f"lacks {' or '.join(dict.fromkeys(columns))}.")
        return named

    def check(self, task: Task) -> None:
        """Raise XtError when the layout holds no examples of the task's format, or the task's labels are not known."""
        if task.format not in self.columns:
            raise XtError(
                f"{task.name} needs {task.format} examples; this layout holds {', '.join(self.columns)}.",
                "Choose another layout: " + ", ".join(n for n, r in LAYOUTS.items() if _holds(r, task.format)) + ".",
            )
        if MAKERS[task.format].label and not task.labels:
            raise XtError(f"The labels of {task.name} are not known.", "Its files name none that can be used.")

    def _hint(self, task: Task) -> str:
        return f"Name the columns as the documented layout of {task.format} does, or choose another layout."


def _note(log: ReadLog, path: Path, digest: Callable[[Path], str]) -> None:
    """Note the digest of what is read; a missing file is reported by what opens it."""
    try:
        if path.exists():
            log.files[str(path)] = digest(path)
    except OSError as error:
        raise explain_os_error(error) from error


def _holds(reader: Reader, format: str) -> bool:
    return isinstance(reader, Layout) and format in reader.columns


_FIELDS = {
    "pair": ("first", "second"),
    "regression": ("first", "second"),
    "single": ("text",),
    "mlm": ("text",),
    "choice": ("prompt", "choices"),
    "qa": ("context", "question"),
    "tagging": ("words", "tags"),
    "contrastive": ("anchor", "positive", "negative"),
    "image-text": ("image", "text"),
}
"""What the names in a task's `fields` are the columns of."""


def _given(task: Task, name: str) -> tuple[str, ...]:
    return tuple(column for need, column in zip(_FIELDS[task.format], task.fields, strict=False) if need == name)


def _of_split(row: Row, split: str | None) -> bool:
    own = split_named(row.get("split"))
    return split is None or not own or own == split


def _language_of(row: Row, *, strict: bool) -> str:
    """Return the language that a row names, as it spells it; empty where it names none."""
    own = row.get("language")
    if own is None or own == "":
        return ""
    if not isinstance(own, str):
        if not strict:
            return ""
        raise ValueError(f"language is {type(own).__name__} ({own!r}), expected a code such as deu.")
    return own.strip()


def _of_language(row: Row, language: str | None, seen: dict[str, bool]) -> bool:
    own = row.get("language")
    if language is None or not isinstance(own, str):
        return True
    if own not in seen and len(seen) < MOST_LABELS:
        seen[own] = _same(own, language)
    return seen.get(own, False)


def _same(left: str, right: str) -> bool:
    """Return whether two codes are the same or name one language (`de` and `deu`)."""
    if left.casefold() == right.casefold():
        return True
    try:
        return languages.resolve(left) == languages.resolve(right)
    except XtError:
        return False


# --- the layouts -----------------------------------------------------------------------------------------------------

_FIRST = ("sentence1", "question1", "premise", "sentence_A", "#1 String", "context", "question", "first")
_SECOND = ("sentence2", "question2", "hypothesis", "hypo", "sentence_B", "#2 String", "sentence", "second")
_LABEL = ("label", "gold_label", "is_duplicate", "entailment_judgment", "Quality", "category")
_SCORE = ("score", "relatedness_score", "similarity")
_PAIR = {"pair": {"first": _FIRST, "second": _SECOND, "label": _LABEL}}
_SCORED = {"regression": {"first": _FIRST, "second": _SECOND, "score": _SCORE}}
_SINGLE = {"single": {"text": ("text", "sentence"), "label": _LABEL}}
_CHOICE: dict[str, dict[str, tuple[str, ...]]] = {"choice": {}}
_TAGGING: dict[str, dict[str, tuple[str, ...]]] = {"tagging": {}}
_OWN: dict[str, dict[str, tuple[str, ...]]] = {name: {} for name in MAKERS}
_OWN["tagging"] = {"tags": ("labels", "tags")}

_AUTO = Layout(published.auto, _TAGGING, unlabelled=())


def _cut_own(path: Path) -> Rows:
    return rows.read(path, rows.TABLES)


def _cut_lines(path: Path) -> Rows:
    return rows.read(path) if rows.is_readable(path) else rows.plain(path)


def _adapt_own(row: Row) -> Row:
    """Return the columns of xt's own layout: numbered choices, and answers with their starts."""
    made = dict(row)
    if "choices" not in row and (choices := published.numbered(row, "choice")):
        made["choices"] = [choice for choice in choices if choice != ""]
    if "answers" in row and isinstance(row["answers"], list) and "starts" in row:
        made |= {"answers.text": row["answers"], "answers.answer_start": row["starts"]}
    elif "answer" in row and "answer_start" in row:
        made |= {"answers.text": [row["answer"]], "answers.answer_start": [row["answer_start"]]}
    return made


def _copa(row: Row) -> Row:
    return {"label": None, **published.copa(row)}


def _hellaswag(row: Row) -> Row:
    return {"label": None, **published.hellaswag(row)}


def _read_ccgbank(
    task: Task, path: Path, log: ReadLog, *, split: str | None = None, language: str | None = None
) -> Iterator[Tagged]:
    """Return the sentences of a CCGbank folder.

    A sentence outside the training sections with an unseen category is left out.
    """
    files = published.ccg_files(path, split)
    _note(log, path, lambda _: published.ccg_digest(files))
    training = {f"{section:02d}" for section in published.CCG_SECTIONS["train"]}
    for file in files:
        layout = replace(_AUTO, skips_others=file.parent.name not in training)
        yield from layout.read(task, layout.cut(file), str(file), log)


LAYOUTS: dict[str, Reader] = {
    "xt": Layout(_cut_own, _OWN, _adapt_own, unlabelled=(), ids=("id",), own=True),
    "lines": Layout(_cut_lines, {"mlm": {}}, ids=("id",), own=True),
    "glue-tsv": Layout(rows.tsv, {**_PAIR, **_SCORED, **_SINGLE}),
    "mrpc": Layout(rows.tsv, _PAIR, ids=()),
    "sick": Layout(rows.tsv, {"pair": {**_PAIR["pair"], "label": ("entailment_judgment",)}, **_SCORED}),
    "nli-jsonl": Layout(rows.jsonl, _PAIR),
    "squad": Layout(published.squad, {"qa": {}}),
    "hellaswag": Layout(rows.jsonl, _CHOICE, _hellaswag),
    "commonsenseqa": Layout(rows.jsonl, _CHOICE, published.commonsenseqa),
    "cosmosqa": Layout(rows.quoted, _CHOICE, published.cosmosqa),
    "xcopa": Layout(rows.jsonl, _CHOICE, _copa),
    "conllu": Layout(published.conllu, _TAGGING, unlabelled=()),
    "conll": Layout(published.conll, _TAGGING, unlabelled=()),
    "ccgbank": _read_ccgbank,
    "sib200": Layout(lambda path: rows.quoted(path, "\t"), _SINGLE),
}
"""Layout name to its reader: a function of task, path and log."""


def layout_named(name: str) -> Reader:
    """Return the reader of a layout; XtError names the near ones and all."""
    if name not in LAYOUTS:
        raise unknown("layout", name, LAYOUTS)
    return LAYOUTS[name]


def read_file(
    task: Task,
    path: Path,
    log: ReadLog,
    *,
    layout: str | None = None,
    split: str | None = None,
    language: str | None = None,
) -> Iterator[Example]:
    """Return the examples of a file one after another, in its order.

    Args:
        task: says the format, the labels and, in `fields`, perhaps the columns.
        path: the file (`.gz` is unpacked while reading); for `ccgbank` the folder.
        log: counts the examples and the rows without a label, gets the unusable rows and the file's SHA-256.
        layout: a key of `LAYOUTS`; None: the task's.
        split: `train`, `dev` or `test`: where rows name their split, those of the others are left out.
        language: a code: where rows name their language, those of the others are left out.
    """
    tagged = read_tagged(task, path, log, layout=layout, split=split, language=language)
    return (example for _, example in tagged)


def read_tagged(
    task: Task,
    path: Path,
    log: ReadLog,
    *,
    layout: str | None = None,
    split: str | None = None,
    language: str | None = None,
) -> Iterator[Tagged]:
    """Yield what `read_file` does, each example with the language that its row names."""
    reader = layout_named(task.layout if layout is None else layout)
    return _counted(reader(task, path, log, split=split, language=language), log)


def _counted(tagged: Iterable[Tagged], log: ReadLog) -> Iterator[Tagged]:
    for pair in tagged:
        log.read += 1
        yield pair


def read_rows(task: Task, rows: Iterable[Mapping[str, Any]], where: str, log: ReadLog) -> Iterator[Example]:
    """Return the examples of rows of the hub, as `task.hub` says.

    `columns` lead from what the format needs to columns, dotted into nested ones, several joined by `+` for texts that
    are put together; needs that it does not name are columns of that name. Without `columns` the rows are read as those
    of the task's layout. `labels` are the values of the label column in the order of the task's labels.
    """
    columns, values = (task.hub.columns, task.hub.labels) if task.hub else ({}, ())
    own = layout_named(task.layout)
    says = {"answerless": task.no_answer}
    if columns:
        names = {"choices", *MAKERS[task.format].needs, *_OPTIONAL, *columns}
        layout = Layout(_cut_own, _OWN, adapt=lambda row: _from_hub(row, columns, names))
    else:
        layout = own if isinstance(own, Layout) else Layout(_cut_own, _OWN)
    position: Position = lambda value: position_of(task, value, UNLABELLED, values)
    numbered = ((number, {**says, **row}) for number, row in enumerate(rows, start=1))
    bare = replace(task, fields=())
    return (example for _, example in _counted(layout.read(bare, numbered, where, log, position=position), log))


def _from_hub(row: Row, columns: Mapping[str, str], names: Iterable[str]) -> Row:
    made: dict[str, Any] = {}
    for name in names:
        try:
            parts = [rows.look(row, column) for column in columns.get(name, name).split("+")]
        except (KeyError, TypeError):
            if name in columns:
                raise Lacks(f"lacks {columns[name]}.") from None
            continue
        made[name] = parts[0] if len(parts) == 1 else " ".join(map(str, parts))
    return _adapt_own(made)
