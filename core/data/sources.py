"""Where a task's examples are: files of the user, xt's samples, a data folder, the hub; and reading them from there."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xt.core.data.bitext import data_folder
from xt.core.data.examples import Example, QaExample, ReadLog, held_out, labels_of
from xt.core.data.rows import SPLIT_WORDS, SPLITS, TABLES, Cells, is_readable, read, split_named
from xt.core.data.tasks import FORMATS, OWN_LICENCE, RETRIEVED, Hub, Task, get
from xt.core.errors import XtError
from xt.core.files.artifact import sha256
from xt.core.hub import is_offline, snapshots
from xt.core.languages import ALIASES, LANGUAGES, UNDETERMINED, canonical, is_known, resolve

if TYPE_CHECKING:
    from xt.core.data.readers import Tagged

ENGLISH = "eng"

HELD_OUT = 0.2
"""The share of a file that is held out for dev when there is no file for dev (or none for training)."""
WORDS = {"train": "training", "dev": "dev", "test": "test"}
"""The splits as they are spoken of."""
BATCH_ROWS = 1024
"""Rows of a Parquet file that are in memory at once."""
NAMES = {"cmn": "chinese"}
"""English names that data sets use, where they are not the first word of the language's name."""
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
        source = _choose(task, split, language, _named(task, files), "files")
        looked = [str(f) for f in files]
    elif task.file and split != "test":
        return Source(task, split, language, (task.path,), "sample", note="a sample that comes with xt, no benchmark")
    else:
        folder = data_folder(data_dir)
        below = {s: _below(task, s, language, folder) for s in SPLITS}
        source = _choose(task, split, language, {s: paths for s, paths in below.items() if paths}, "files")
        patterns = [p for s in _both(split) for q in task.files.get(s, ()) for p in _spelt(q, language)]
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


def _with_labels(task: Task, folders: Sequence[Path]) -> Task:
    """Return a task whose labels are those of its folder (CCGbank, which may not be redistributed)."""
    from xt.core.data.discover import discover_labels

    return replace(task, labels=discover_labels(task.format, folders, task.layout))


def _both(split: str) -> tuple[str, ...]:
    """Return the splits whose files can serve: dev and training take each other's place, test stands alone."""
    return (split,) if split == "test" else (split, "dev" if split == "train" else "train")


def _choose(task: Task, split: str, language: str, found: Mapping[str, tuple[Path, ...]], origin: str) -> Source | None:
    """Return the source of a split out of the files of each, dividing where one is missing; None without any."""
    whole = next((files for files in found.values() if files and all(_has_splits(task, f) for f in files)), ())
    if split not in found and whole:
        return Source(task, split, language, whole, origin)
    alone = split == "test" or bool(task.train_on) or bool(whole) or all(found.get(s) for s in ("train", "dev"))
    if found.get(split) and alone:
        return Source(task, split, language, found[split], origin)
    one = next((s for s in _both(split) if found.get(s)), None)
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


def _has_splits(task: Task, file: Path) -> bool:
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


def _named(task: Task, files: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
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


def spellings(pattern: str, language: str) -> list[str]:
    """Return a pattern once for each way a place may spell the language's code, the likeliest first.

    >>> spellings("xquad.{iso1}.json", "swh"), spellings("{iso3}_{script}", "cmn")
    (['xquad.sw.json'], ['cmn_Hans', 'zho_Hans', 'chi_Hans'])
    """
    row = LANGUAGES[language]
    others = [code for code, key in ALIASES.items() if key == language]
    iso3 = [language, *(c for c in others if len(c) == 3)]
    iso1 = [c for c in (row.iso1, *others) if c and len(c) == 2]
    name = NAMES.get(language, row.name.split(" (")[0].lower())
    forms = {
        "{language}": list(dict.fromkeys(iso1 + iso3)),
        "{iso3}": iso3,
        "{iso1}": list(dict.fromkeys(iso1)),
        "{script}": [row.script],
        "{name}": [name],
        "{Name}": [name.title()],
    }
    used = {key: values for key, values in forms.items() if key in pattern}
    written = []
    for values in product(*used.values()):
        one = pattern
        for key, value in zip(used, values, strict=True):
            one = one.replace(key, value)
        written.append(one)
    return written


def _spelt(pattern: str, language: str) -> list[str]:
    return spellings(pattern, language) if language else [pattern]


def _below(task: Task, split: str, language: str, folder: Path | None) -> tuple[Path, ...]:
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
    return _below(task, split, language, folder)


def languages_at(task: Task, split: str, data_dir: Path | None) -> list[str]:
    """List the languages of a task whose files of a split are below the data folder, in the order of the table."""
    folder = data_folder(data_dir)
    return [code for code in task.all_codes if _below(task, split, code, folder)]


def there(task: Task, data_dir: Path | None) -> dict[str, list[str]]:
    """List for each split the languages whose files are below the data folder; nothing is downloaded."""
    found = {split: languages_at(task, split, data_dir) for split in SPLITS}
    return {split: codes for split, codes in found.items() if codes}


# --- the hub ---


def hub_patterns(config: str, split: str) -> list[str]:
    """Return the patterns of a split's Parquet files in a repository, as the hub and its owners lay them out."""
    at = f"{config}/" if config else ""
    middles = [f"{split}-*.parquet", f"{split}/*.parquet", f"{split}.parquet"]
    roots = [at] if config else ["", "data/", "default/"]
    return [root + middle for root in roots for middle in middles]


def parquet_files(hub: Hub, split: str, language: str) -> tuple[list[Path], str]:
    """Return the Parquet files of one of the hub's own splits, from its local cache or downloaded; or none and why."""
    why = ""
    configs = spellings(hub.config, language)
    allowed = [p for config in configs for p in hub_patterns(config, split)]
    for folder, why in snapshots(hub.id, hub.revision, allowed, kind="dataset"):
        if folder is None:
            why = "not in the local cache, and offline (HF_HUB_OFFLINE)" if is_offline() else why
            continue
        for config in configs:
            files = [f for p in hub_patterns(config, split) for f in sorted(folder.glob(p))]
            if files and _complete(files):
                return files, ""
        why = f"no Parquet files of {split}" + (f" in {', '.join(configs)}" if hub.config else "")
    return [], why


def _complete(files: Sequence[Path]) -> bool:
    """Return whether none of the files that the names count (`-00000-of-00002`, `0000`, `0001`) is missing."""
    for file in files:
        if found := re.search(r"-of-(\d+)", file.name):
            return len(files) == int(found[1])
    numbers = [int(file.stem) for file in files if file.stem.isdigit()]
    return numbers == list(range(len(numbers)))


def _from_hub(task: Task, hub: Hub, split: str, language: str) -> tuple[Source | None, str]:
    """Return the source of a split on the hub, or None and the reason; the files are in the local cache then."""
    if language not in task.codes:
        return None, f"no {LANGUAGES[language].name}"
    ours = split if task.train_on else next((s for s in _both(split) if s in hub.splits), "")
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


def _hub_rows(source: Source, theirs: str, files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Stream the rows of Parquet files, those of the source's language where one configuration holds several."""
    import pyarrow.parquet as pq

    assert source.task.hub is not None
    prefix = source.task.hub.prefix
    starts = tuple(spellings(prefix, source.language)) if prefix else ("",)
    for file in files:
        with pq.ParquetFile(file) as parquet:
            if prefix and "id" not in parquet.schema_arrow.names:
                raise XtError(f"{source.task.hub.id}, {theirs}: no column id, by which languages are separated.")
            for batch in parquet.iter_batches(batch_size=BATCH_ROWS):
                for row in batch.to_pylist():
                    if not prefix or str(row["id"]).startswith(starts):
                        yield row


# --- reading ---


def examples(source: Source, log: ReadLog) -> Iterator[Example]:
    """Stream the examples of a source; rows that cannot be used are counted in `log`."""
    return (example for _, example in tagged(source, log))


def tagged(source: Source, log: ReadLog) -> Iterator[Tagged]:
    """Stream the examples of a source, each with its language, counted in `log` by language and label.

    The language of a row of a user's files is the one it names (`canonical`), `und` where it names none; rows in other
    languages than the source's are counted as left out.
    """
    for spoken, example in _read(source, log):
        if source.part is not None and held_out(example, source.part[1]) != (source.part[0] == "dev"):
            continue
        code = source.language or canonical(spoken)
        if source.languages and code not in source.languages:
            log.left_out[code] = log.left_out.get(code, 0) + 1
            continue
        if not source.language and code != UNDETERMINED and not is_known(code):
            log.unknown_languages[spoken] = log.unknown_languages.get(spoken, 0) + 1
        log.count(code, labels_of(example, source.task.labels))
        yield code, example
    for other in source.more:
        yield from tagged(other, log)


def _read(source: Source, log: ReadLog) -> Iterator[Tagged]:
    from xt.core.data import readers

    task = source.task
    if source.origin != "hub":
        split = source.split if source.part is None else None
        for file in source.files:
            yield from readers.read_tagged(task, file, log, split=split, language=source.language or None)
        return
    assert task.hub is not None
    ours = next(s for s in _both(source.split) if s in task.hub.splits)
    for theirs in task.hub.splits[ours].split("+"):
        files, why = parquet_files(task.hub, theirs, source.language)
        if not files:
            raise XtError(f"{task.hub.id} is no longer in the hub cache: {why}", "Run it again.")
        where = f"{task.hub.id}, {theirs}"
        found = readers.read_rows(task, _hub_rows(source, theirs, files), where, log)
        yield from ((source.language, example) for example in found)
        log.files[f"{where}, {task.hub.config or 'default'}, {source.language}"] = _commit(files[0])


def commits(source: Source) -> list[str]:
    """Return the commits of the hub that a source's rows are read from, one for each of the hub's splits."""
    task = source.task
    assert task.hub is not None
    ours = next(s for s in _both(source.split) if s in task.hub.splits)
    found = []
    for theirs in task.hub.splits[ours].split("+"):
        files, _ = parquet_files(task.hub, theirs, source.language)
        found += [_commit(file) for file in files[:1]]
    return found


def _commit(file: Path) -> str:
    """Return the commit that a file of the hub cache belongs to: the folder below `snapshots`."""
    parts = file.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else ""


# --- a user's own task ---


def own_task(spec: str) -> Task:
    """Make a task of a user's own data, named as `FORMAT:PATH` (`single:data/intents`, `pair:mine.tsv`).

    The path is a file, or a folder that holds train.*, dev.* and test.*; the labels are those that occur in it.
    """
    from xt.core.data.discover import Found, discover

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
    found = _named(blank, [path])
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
    found = {split: _below(task, split, "", None) for split in ("test", "dev", "train")}
    split = next(split for split, files in found.items() if files)
    files = found[split]
    named = _splits_in(files) if all(_has_splits(task, file) for file in files) else {}
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
    from xt.core.data.readers import read_file

    return any(isinstance(e, QaExample) and not e.answers for e in read_file(task, path, ReadLog()))


def _literal(paths: Sequence[Path]) -> str:
    """Return a pattern that matches these files of one folder: a `train.*` of which there is mostly one."""
    if len(paths) > 1:
        names = ", ".join(p.name for p in paths)
        raise XtError(f"{paths[0].parent} holds several files of one split: {names}.", "Keep one of them.")
    return glob.escape(str(paths[0]))
