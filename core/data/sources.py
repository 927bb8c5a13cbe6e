"""Where a task's examples are: files of the user, xt's samples, a data folder, the hub."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from xt.core.data.bitext import data_folder
from xt.core.data.hub_files import parquet_files, spellings
from xt.core.data.readers.rows import SPLIT_WORDS, SPLITS, TABLES, Cells, is_readable, read
from xt.core.data.tasks import RETRIEVED, Hub, Task, get
from xt.core.errors import XtError
from xt.core.languages import LANGUAGES, canonical, resolve

ENGLISH = "eng"

HELD_OUT = 0.2
"""The share of a file that is held out for dev when there is no file for dev (or none for training)."""
WORDS = {"train": "training", "dev": "dev", "test": "test"}
"""The splits as they are spoken of."""


@dataclass(frozen=True)
class Source:
    """Where the examples of a split are, and which of them count."""

    task: Task
    """The task whose rows they are: another than the requested one where that one is trained on another's data."""
    split: str
    language: str
    """A code of `LANGUAGES`; empty for a user's files, whose rows name their languages."""
    files: tuple[Path, ...]
    """The files, read one after the other; empty for the hub."""
    origin: str
    """`files`, `hub` or `sample`."""
    part: tuple[str, float] | None = None
    """Which part of a divided file counts, `train` or `dev`, and the share held out for dev; None: all of it."""
    note: str = ""
    """What a reader of a report should know about it."""
    more: tuple[Source, ...] = ()
    """Sources of other tasks that belong to it (ANLI+: MNLI and SNLI)."""
    languages: tuple[str, ...] = ()
    """Of a user's files the languages that count, as `xt.core.languages.canonical` writes them; empty: all."""


def locate(
    task: Task, split: str, *, language: str | None = None, data_dir: Path | None = None, files: Sequence[Path] = ()
) -> Source:
    """Find the examples of a split: in `files`, in xt's samples, below the data folder, in the hub cache, on the hub.

    `files` are the user's: each a file, or a folder that holds train.*, dev.* and test.*. Where there are examples for
    training but not for dev, or the other way round, those are divided (`Source.part`), the same way each time, no
    context in both. Raises XtError that names every place looked at when there is nothing.

    language: a code; None: English for a task of the table, every language that the rows name for a user's own files.
    """
    if split not in SPLITS:
        raise XtError(f"Unknown split {split!r}.", f"Known: {', '.join(SPLITS)}.")
    if task.format in RETRIEVED:
        what = "parallel text" if task.format == "bitext" else f"for evaluation alone ({task.format})"
        raise XtError(f"{task.name} is {what}, without splits.", "xt eval reads it.")
    if task.own or (files and task.layout != "ccgbank"):
        source = _locate(task, split, "", data_dir, files)
        source = replace(source, note=_join(source.note, _unread(task) if task.own and not files else ""))
        return source if language is None else replace(source, languages=(canonical(language),))
    language = resolve(language or ENGLISH).iso3
    if task.train_on and (split == "train" or (split == "dev" and not _has_dev(task))):
        other = get(task.train_on)
        source = locate(other, split, data_dir=data_dir)
        note = f"{task.name}: the {WORDS[split]} data are those of {other.name}"
        return replace(source, note=_join(note, source.note))
    source = _locate(task, split, language, data_dir, files)
    if task.parts and split == "train":
        more = tuple(locate(get(name), split, data_dir=data_dir) for name in task.parts)
        source = replace(source, more=more, note=_join(source.note, *(s.note for s in more)))
    return source


def _unread(task: Task) -> str:
    """Name the files of a user's folder that are none of its splits."""
    folder = Path(task.source)
    if not folder.is_dir():
        return ""
    names = [p.name for p in sorted(folder.iterdir()) if not (p.is_file() and _split_of(p, whole=True))]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"not read in {folder}: {', '.join(names[:8])}{more}" if names else ""


def _has_dev(task: Task) -> bool:
    return "dev" in task.files or (task.hub is not None and "dev" in task.hub.splits)


def _join(*notes: str) -> str:
    return "; ".join(n for n in notes if n)


def _locate(task: Task, split: str, language: str, data_dir: Path | None, files: Sequence[Path]) -> Source:
    looked: list[str] = []
    if files:
        source = _choose(task, split, language, by_split(task, files), "files")
        looked = [str(f) for f in files]
    elif task.file and split != "test":
        return Source(task, split, language, (task.path,), "sample", note="a sample that comes with xt, no benchmark")
    else:
        folder = data_folder(data_dir)
        below = {s: files_below(task, s, language, folder) for s in SPLITS}
        source = _choose(task, split, language, {s: paths for s, paths in below.items() if paths}, "files")
        patterns = [p for s in either(split) for q in task.files.get(s, ()) for p in _spelt(q, language)]
        looked = [str(p if folder is None else folder / p) for p in dict.fromkeys(patterns)]
        if folder is None and patterns:
            looked = [f"{p} below a data folder (none is named)" for p in looked]
        if source is None and task.hub is not None:
            source, why = _from_hub(task, task.hub, split, language)
            looked.append(f"{task.hub.id} at {task.hub.revision} on the hub: {why}")
    if source is not None:
        return replace(source, task=_with_labels(task, source.files)) if task.layout == "ccgbank" else source
    spoken = f" in {LANGUAGES[language].name}" if language and task.codes != (language,) else ""
    raise XtError(
        f"There are no {WORDS[split]} data of {task.name}{spoken}. Looked at:\n"
        + "\n".join(f"  {place}" for place in looked or ["nowhere: the table names no place"]),
        "Name files of this split." if files else f"{task.note} Name a folder of data sets by --data-dir.".strip(),
    )


def _from_hub(task: Task, hub: Hub, split: str, language: str) -> tuple[Source | None, str]:
    """Return the source of a split on the hub, or None and the reason; the files are in the local cache then."""
    if language not in task.codes:
        return None, f"no {LANGUAGES[language].name}"
    ours = split if task.train_on else next((s for s in either(split) if s in hub.splits), "")
    if ours not in hub.splits:
        return None, f"no {split} part"
    for theirs in hub.splits[ours].split("+"):
        files, why = parquet_files(hub, theirs, language)
        if not files:
            return None, why
    if split == "test" or task.train_on or all(s in hub.splits for s in ("train", "dev")):
        return Source(task, split, language, (), "hub"), ""
    note = _divided("dev" if ours == "train" else "training", "part", hub.id)
    return Source(task, split, language, (), "hub", part=(split, HELD_OUT), note=note), ""


def _with_labels(task: Task, folders: Sequence[Path]) -> Task:
    """Return a task whose labels are those of its folder (CCGbank, which may not be redistributed)."""
    from xt.core.data.readers.discover import discover_labels

    return replace(task, labels=discover_labels(task.format, folders, task.layout))


def either(split: str) -> tuple[str, ...]:
    """Return the splits whose files can serve: dev and training take each other's place, test stands alone."""
    return (split,) if split == "test" else (split, "dev" if split == "train" else "train")


def _choose(task: Task, split: str, language: str, found: Mapping[str, tuple[Path, ...]], origin: str) -> Source | None:
    """Return the source of a split out of the files of each, dividing where one is missing; None without any."""
    whole = next((files for files in found.values() if files and all(has_splits(task, f) for f in files)), ())
    if split not in found and whole:
        return Source(task, split, language, whole, origin)
    alone = split == "test" or bool(task.train_on) or bool(whole) or all(found.get(s) for s in ("train", "dev"))
    if found.get(split) and alone:
        return Source(task, split, language, found[split], origin)
    one = next((s for s in either(split) if found.get(s)), None)
    if alone or one is None:
        return None
    names = ", ".join("/".join(file.parts[-2:]) for file in found[one])
    note = _divided("training" if one == "dev" else "dev", "file", names)
    return Source(task, split, language, found[one], origin, part=(split, HELD_OUT), note=note)


def _divided(missing: str, what: str, of: str) -> str:
    """Return in words that something was divided.

    >>> _divided("dev", "file", "english/SICK.txt")
    'no dev file: 80 % of english/SICK.txt is trained on, the rest held out'
    """
    return f"no {missing} {what}: {100 * (1 - HELD_OUT):.0f} % of {of} is trained on, the rest held out"


def has_splits(task: Task, file: Path) -> bool:
    """Return whether the file itself has the split of each example: CCGbank by section, xt's layout by `split`."""
    if task.layout == "ccgbank":
        return True
    if task.layout != "xt" or not is_readable(file, TABLES) or not file.is_file():
        return False
    facts = file.stat()
    return _names_split(file, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=256)
def _names_split(file: Path, changed: int, size: int) -> bool:
    """Return whether a row of the file has a column `split`; of tables the header says it."""
    for _, row in read(file, TABLES):
        if not isinstance(row, str) and ("split" in row or isinstance(row, Cells)):
            return "split" in row
    return False


def by_split(task: Task, files: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """Sort the user's files by split: by a word of the name (`train`, `dev`, `valid`, `test`), else to training."""
    found: dict[str, list[Path]] = {}
    for file in files:
        if not file.exists():
            raise XtError(f"There is no {file}.", "Check the path.")
        if file.is_dir() and task.layout != "ccgbank":
            inside = [p for p in sorted(file.iterdir()) if p.is_file() and _split_of(p, whole=True)]
            if not inside:
                there = ", ".join(sorted(p.name for p in file.iterdir())[:8]) or "nothing"
                raise XtError(f"{file} holds no train.*, dev.* or test.* (found: {there}).", "Name the file itself.")
            for path in inside:
                found.setdefault(_split_of(path, whole=True), []).append(path)
            for split, paths in found.items():
                if len({path.name.split(".")[0].lower() for path in paths if path.parent == file}) > 1:
                    names = " and ".join(path.name for path in paths)
                    raise XtError(
                        f"{file} holds {names}, which are names of one split ({WORDS[split]}).",
                        "Keep one of them, or put their rows into one file.",
                    )
        else:
            found.setdefault(_split_of(file) or "train", []).append(file)
    return {split: tuple(paths) for split, paths in found.items()}


def _split_of(file: Path, *, whole: bool = False) -> str:
    """Return the split that a file's name tells, empty when it tells none.

    >>> [_split_of(Path(name)) for name in ("msr_paraphrase_train.txt", "en_ewt-ud-dev.conllu", "mine.tsv")]
    ['train', 'dev', '']
    """
    stem = file.name.split(".")[0].lower()
    words = [stem] if whole else re.split(r"[^a-z]+", ".".join(file.name.lower().split(".")[:-1]))
    return next((SPLIT_WORDS[w] for w in words if w in SPLIT_WORDS), "")


# --- below a data folder ---


def _spelt(pattern: str, language: str) -> list[str]:
    return spellings(pattern, language) if language else [pattern]


def files_below(task: Task, split: str, language: str, folder: Path | None) -> tuple[Path, ...]:
    """Return the files of a split that are there: all that the first pattern with any matches."""
    if language not in task.all_codes and not task.own:
        return ()
    for pattern in task.files.get(split, ()):
        if folder is None and not os.path.isabs(pattern):
            continue
        base = "" if folder is None or os.path.isabs(pattern) else glob.escape(str(folder)) + os.sep
        for spelt in _spelt(pattern, "" if task.own else language):
            paths = [Path(p) for p in sorted(glob.glob(base + spelt))]
            if paths:
                return tuple(paths)
    return ()


def locate_files(task: Task, split: str, language: str, folder: Path) -> tuple[Path, ...]:
    """List the files of a split of a task that are below a folder, without dividing or downloading anything."""
    return files_below(task, split, language, folder)


def languages_at(task: Task, split: str, data_dir: Path | None) -> list[str]:
    """List the languages of a task whose files of a split are below the data folder, in the order of the table."""
    folder = data_folder(data_dir)
    return [code for code in task.all_codes if files_below(task, split, code, folder)]


def there(task: Task, data_dir: Path | None) -> dict[str, list[str]]:
    """List for each split the languages whose files are below the data folder; nothing is downloaded."""
    found = {split: languages_at(task, split, data_dir) for split in SPLITS}
    return {split: codes for split, codes in found.items() if codes}
