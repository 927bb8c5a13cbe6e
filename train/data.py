"""The tasks of one training phase with their data: where they are, how many could be used, tokenised on disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from xt.core.data import tasks
from xt.core.data.examples import CaptionExample, Example, PairExample, ReadLog, TupleExample, counts
from xt.core.data.images import load_image_text
from xt.core.data.label_checks import label_notes, single_label
from xt.core.data.own_task import own_task
from xt.core.data.readers.rows import packed
from xt.core.data.source_rows import commits, examples
from xt.core.data.sources import ENGLISH, Source, locate
from xt.core.data.tasks import FORMATS, Task
from xt.core.errors import XtError
from xt.core.files.artifact import sha256
from xt.core.heads.inputs import Inputs
from xt.core.languages import is_known
from xt.train.config import TrainConfig
from xt.train.prepare import Prepared, chosen, find, key, prepare

WINDOW = 4096
"""Rows before and behind a positive pair among which its hard negative is looked for: NLI sets keep a premise's
pairs together."""
Report = Callable[[str], None]


@dataclass(frozen=True)
class TaskData:
    """A task with the data to train it on, and those to score it on."""

    task: Task
    prepared: Prepared
    dev: Sequence[Example]
    origin: str = "files"
    note: str = ""
    images: Any = None
    """Image vectors (images, dim)."""
    options: dict[str, Any] = field(default_factory=dict)
    """What its head is made with."""
    dev_log: ReadLog = field(default_factory=ReadLog)
    """How the dev rows were read."""
    warnings: tuple[str, ...] = ()
    """What is odd about its labels."""
    divided: bool = False
    """Whether the dev rows were held out of the training files."""

    @property
    def trained(self) -> Task:
        """The task as its head keeps it: with the files that it was trained on."""
        return replace(self.task, trained_on=tuple(sorted(set(self.log.files.values()))), divided=self.divided)

    @property
    def log(self) -> ReadLog:
        """How the training rows were read."""
        return ReadLog(**self.prepared.facts["log"])


@dataclass(frozen=True)
class TaskRequest:
    """A task that is to be trained on, before its data are read."""

    task: Task
    name: str
    """What the settings call it."""
    train: tuple[Source, ...] = ()
    dev: Source | None = None
    transform: Callable[[Iterable[Example]], Iterator[Example]] | None = None
    folder: Path | None = None
    """Of image vectors."""


def task_requests(config: TrainConfig, *, target: bool) -> list[TaskRequest]:
    """Find the data of every task of a phase; XtError for the first that has none."""
    if target:
        return [_task(config, str(config.target))]
    found = [_task(config, name) for name in config.intermediate]
    found += [_located(config, f"mlm:{path}") for path in config.mlm]
    found += [_pairs(config, name) for name in config.contrastive]
    found += [_images(config, folder) for folder in config.image_text]
    names = [w.task.name for w in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise XtError(f"Two tasks are called {', '.join(twice)}.", "Give one of the files another name.")
    return found


def _task(config: TrainConfig, name: str) -> TaskRequest:
    format, _, path = name.partition(":")
    return _images(config, path) if format == "image-text" and path else _located(config, name)


def _located(config: TrainConfig, name: str) -> TaskRequest:
    task = own_task(name) if ":" in name else tasks.get(name)
    files = [_path(task, p) for p in config.data.get(name, ())]
    train, dev = (
        _chosen(config, locate(task, split, data_dir=config.data_dir, files=files)) for split in ("train", "dev")
    )
    more = [_path(task, p) for p in config.translated.get(name, ())]
    extra: tuple[Source, ...] = ()
    if more:
        extra = (_chosen(config, replace(locate(task, "train", files=more), part=None, note="")),)
    if task.layout == "ccgbank":
        task = train.task  # whose labels are those of its folder
        dev, extra = replace(dev, task=task), tuple(replace(s, task=task) for s in extra)
    return TaskRequest(task, name, (train, *extra), dev)


def _path(task: Task, named: str) -> Path:
    """Return the path of a task's further data, which may be named as FORMAT:PATH too; XtError for another format."""
    form, colon, path = named.partition(":")
    if not colon or form not in FORMATS or Path(named).expanduser().exists():
        return Path(named).expanduser()
    if form != task.format:
        raise XtError(f"{named} is {form} data; {task.name} needs {task.format}.", f"Name {task.format}:PATH, or PATH.")
    return Path(path).expanduser()


def _chosen(config: TrainConfig, source: Source) -> Source:
    """Restrict a user's own files to the languages of the settings; other data have one language each."""
    codes = config.language_codes()
    return replace(source, languages=codes) if codes and not source.language else source


def _pairs(config: TrainConfig, name: str) -> TaskRequest:
    found = _located(config, name)
    row = found.task
    if row.format == "contrastive":
        return found
    row = _with_positive(config, name, row)
    task = replace(
        row,
        name=f"{row.name}-pairs",
        format="contrastive",
        title=f"Positive pairs of {row.title}",
        labels=(),
        metric="retrieval",
    )
    positive = row.labels.index(row.positive)
    negative = row.labels.index(row.negative) if row.negative else None
    return replace(found, task=task, transform=lambda rows: positives(rows, positive, negative))


def _with_positive(config: TrainConfig, name: str, row: Task) -> Task:
    """Return a pair task with the labels by which its pairs become positives and hard negatives.

    Those of the table have them; of a user's own the settings name them. XtError lists the labels found where not.
    """
    if row.positive:
        return row
    if row.format != "pair":
        raise XtError(
            f"{name} has no label that makes two texts belong together: it is {row.format} data.",
            "Write its pairs as rows of anchor and positive, and name contrastive:FILE.",
        )
    found = ", ".join(row.labels)
    if config.positive_label is None:
        raise XtError(
            f"{name} has no label that makes two texts belong together: none is named.",
            f"Name it by --positive-label; its labels: {found}.",
        )
    for option, label in (("positive", config.positive_label), ("negative", config.negative_label)):
        if label is not None and label not in row.labels:
            raise XtError(f"{name} has no label {label!r} (--{option}-label).", f"Its labels: {found}.")
    return replace(row, positive=config.positive_label, negative=config.negative_label or "")


def positives(rows: Iterable[Example], positive: int, negative: int | None) -> Iterator[TupleExample]:
    """Return the pairs of the positive label, each with a hard negative when the same first text has one close by.

    Nothing more than `WINDOW` pairs is kept in memory.
    """
    recent: deque[tuple[int, PairExample]] = deque()
    negatives: dict[str, tuple[int, str]] = {}  # by first text the last one, and where it stood

    def made(at: int, row: PairExample) -> TupleExample:
        place, negative = negatives.get(row.first, (0, ""))
        near = negative and abs(place - at) <= WINDOW
        return TupleExample(row.id, row.first, row.second, negative if near else None)

    for at, row in enumerate(rows):
        assert isinstance(row, PairExample)
        if row.label == positive:
            recent.append((at, row))
        elif row.label == negative:
            negatives.pop(row.first, None)
            negatives[row.first] = at, row.second
        while recent and recent[0][0] <= at - WINDOW:
            yield made(*recent.popleft())
        if negatives and (oldest := next(iter(negatives.items())))[1][0] <= at - 2 * WINDOW:
            del negatives[oldest[0]]
    yield from (made(*entry) for entry in recent)


def _images(config: TrainConfig, folder: str) -> TaskRequest:
    path = Path(folder).expanduser().resolve()
    task = Task(
        path.name.replace(".", "-"),
        kind="intermediate",
        format="image-text",
        title="Captions and images",
        labels=(),
        languages="English captions",
        metric="retrieval",
        source=folder,
        licence="as the folder says",
    )
    return TaskRequest(task, folder, folder=path)


def describe(source: Source) -> dict[str, Any]:
    """Return what the content of a source depends on: the files' hashes, or the commits on the hub."""
    row = source.task
    facts: dict[str, Any] = {"split": source.split, "language": source.language, "part": source.part}
    facts["languages"] = source.languages
    if source.files:
        facts["files"] = [(name, sha256(file)) for place in source.files for name, file in _files(place)]
    elif row.hub is not None:
        facts["hub"] = [row.hub.id, commits(source), row.hub.config, dict(row.hub.splits), dict(row.hub.columns)]
    facts["row"] = [row.name, row.format, row.labels, row.layout, row.fields, row.no_answer]
    return {**facts, "more": [describe(other) for other in source.more]}


def _files(place: Path) -> list[tuple[str, Path]]:
    """List a file, or those of a CCGbank folder, each with what of its name says how it is read."""
    if place.is_dir():
        return [(str(file.relative_to(place)), file) for file in sorted(place.rglob("*.auto"))]
    return [("".join(place.suffixes[-2:]).lower(), place)]


def _renamed(log: dict[str, Any], sources: Iterable[Source]) -> dict[str, Any]:
    """Return a log with the files as they are called now: the same bytes may have been read elsewhere before."""
    places = [file for source in sources for file in source.files if file.is_file()]
    old = {path: digest for path, digest in log["files"].items() if Path(path) not in places}
    new = {sha256(file): str(file) for file in places} if old else {}
    files, first = dict(log["files"]), list(log["first"])
    for path, digest in old.items():
        if digest in new:
            files[new[digest]] = files.pop(path)
            first = [line.replace(f"{path}, line", f"{new[digest]}, line") for line in first]
    return {**log, "files": files, "first": first}


def load(config: TrainConfig, request: TaskRequest, inputs: Inputs, tokenizer: str, report: Report) -> TaskData:
    """Read and tokenise the data of one task, or find them as they were prepared before.

    Args:
        config: the settings.
        request: the task and where its data are.
        inputs: the encoder's tokenizer.
        tokenizer: its file's hash.
        report: takes lines that say what happens.
    """
    if request.folder is not None:
        return _load_images(config, request, inputs, tokenizer, report)
    assert request.dev is not None
    sources = [describe(source) for source in request.train]
    name = _key(config, request, inputs, tokenizer, {"sources": sources})
    prepared = find(name)
    if prepared is None:
        report(f"{request.task.name}: reading and tokenising")
        log = ReadLog()
        stream = (example for source in request.train for example in examples(source, log))
        prepared = _prepare(config, request, inputs, name, stream, log)
    else:
        every = [s for source in request.train for s in (source, *source.more)]
        prepared = replace(prepared, facts={**prepared.facts, "log": _renamed(prepared.facts["log"], every)})
    ReadLog(**prepared.facts["log"]).check(f"{request.task.name}, training data", config.allow_unusable)
    log = ReadLog()
    dev = list(chosen(_shaped(request, examples(request.dev, log)), config.dev_limit, config.seed))
    log.check(f"{request.task.name}, dev data", config.allow_unusable)
    _require(request, prepared, dev, log)
    warnings = [] if request.transform is not None else _check_labels(request, prepared, log)
    for warning in warnings:
        report(f"warning: {request.task.name}: {warning}")
    note = "; ".join(dict.fromkeys(s.note for s in (*request.train, request.dev) if s.note))
    return TaskData(
        request.task,
        prepared,
        dev,
        request.train[0].origin,
        note,
        dev_log=log,
        warnings=tuple(warnings),
        divided=request.train[0].part is not None,
    )


def _load_images(config: TrainConfig, request: TaskRequest, inputs: Inputs, tokenizer: str, report: Report) -> TaskData:
    assert request.folder is not None
    found = load_image_text(request.folder)
    hashes = [(name, sha256(packed(request.folder / name))) for name in ("images.npy", "captions.jsonl")]
    spoken = tuple(sorted({code for captions in found.captions.values() for code in captions}))
    codes = (ENGLISH,) if config.languages is None else config.language_codes() or spoken
    name = _key(config, request, inputs, tokenizer, {"files": hashes, "languages": codes})
    log, dev_log = ReadLog(files=dict(hashes)), ReadLog()
    for split, tally in (("train", log), ("dev", dev_log)):
        for code, captions in found.captions[split].items():
            (tally.languages if code in codes else tally.left_out)[code] = len(captions)
            if not is_known(code):
                tally.unknown_languages[code] = len(captions)
    prepared = find(name)
    if prepared is None:
        report(f"{request.task.name}: tokenising captions")
        prepared = _prepare(config, request, inputs, name, iter(found.examples("train", codes)), log)
    dev: list[Example] = list(chosen(found.examples("dev", codes), config.dev_limit, config.seed))
    _require(request, prepared, dev, dev_log)
    options = {"image_dim": int(found.vectors.shape[1]), "loss": config.image_loss}
    return TaskData(request.task, prepared, dev, images=found.vectors, options=options, dev_log=dev_log)


def _shaped(request: TaskRequest, stream: Iterable[Example]) -> Iterator[Example]:
    return iter(stream) if request.transform is None else request.transform(stream)


def _key(config: TrainConfig, request: TaskRequest, inputs: Inputs, tokenizer: str, facts: dict[str, Any]) -> str:
    return key(
        {
            **facts,
            "format": request.task.format,
            "labels": [request.task.labels, request.task.positive, request.task.negative],
            "tokenizer": [tokenizer, inputs.prefix, inputs.max_length],
            "limit": [config.limit, config.seed if config.limit else None],
        }
    )


def _prepare(
    config: TrainConfig, request: TaskRequest, inputs: Inputs, name: str, stream: Iterable[Example], log: ReadLog
) -> Prepared:
    kept = chosen(_shaped(request, stream), config.limit, config.seed)
    facts = {"log": lambda: dict(vars(log)), "task": request.task.name}
    return prepare(name, request.task, kept, inputs, facts=facts)


def _require(request: TaskRequest, prepared: Prepared, dev: Sequence[Example], dev_log: ReadLog) -> None:
    logs = (ReadLog(**prepared.facts["log"]), dev_log)
    for what, count, log in zip(("training", "dev"), (len(prepared), len(dev)), logs, strict=True):
        if not count and log.left_out:
            raise XtError(
                f"{request.task.name} has no {what} examples in the requested languages; "
                f"it has: {counts(log.left_out)}.",
                "Choose by --languages.",
            )
        if not count:
            raise XtError(f"{request.task.name} has no {what} examples.", "Check its files; xt tasks NAME says which.")


def _check_labels(request: TaskRequest, prepared: Prepared, dev_log: ReadLog) -> list[str]:
    """Return what is odd about the labels; XtError where nothing can be learnt of them."""
    task, train = request.task, ReadLog(**prepared.facts["log"]).labels
    nothing = single_label(task.format, train)
    if task.format == "regression" and prepared.facts["deviation"] == 0:
        nothing = f"every training score is {prepared.facts['mean']:g}: there is nothing to learn"
    if nothing:
        raise XtError(f"{task.name}: {nothing}.", "A classifier needs two labels or more: is it the right column?")
    return label_notes(task.format, train, {"dev": dev_log.labels})


def images_of(examples: Sequence[Example]) -> list[int]:
    """List the different images of captions, in the order of their rows."""
    return sorted({e.image for e in examples if isinstance(e, CaptionExample)})
