"""Reads the examples of a source, each with its language, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from xt.core.data.examples import Example, ReadLog, held_out, labels_of
from xt.core.data.hub_files import commit_of, parquet_files, spellings
from xt.core.data.readers import layouts
from xt.core.data.readers.layouts import Tagged
from xt.core.data.sources import Source, either
from xt.core.errors import XtError
from xt.core.languages import UNDETERMINED, canonical, is_known

BATCH_ROWS = 1024
"""Rows of a Parquet file that are in memory at once."""


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

    task = source.task
    if source.origin != "hub":
        split = source.split if source.part is None else None
        for file in source.files:
            yield from layouts.read_tagged(task, file, log, split=split, language=source.language or None)
        return
    assert task.hub is not None
    ours = next(s for s in either(source.split) if s in task.hub.splits)
    for theirs in task.hub.splits[ours].split("+"):
        files, why = parquet_files(task.hub, theirs, source.language)
        if not files:
            raise XtError(f"{task.hub.id} is no longer in the hub cache: {why}", "Run it again.")
        where = f"{task.hub.id}, {theirs}"
        found = layouts.read_rows(task, _hub_rows(source, theirs, files), where, log)
        yield from ((source.language, example) for example in found)
        log.files[f"{where}, {task.hub.config or 'default'}, {source.language}"] = commit_of(files[0])


def commits(source: Source) -> list[str]:
    """Return the commits of the hub that a source's rows are read from, one for each of the hub's splits."""
    task = source.task
    assert task.hub is not None
    ours = next(s for s in either(source.split) if s in task.hub.splits)
    found = []
    for theirs in task.hub.splits[ours].split("+"):
        files, _ = parquet_files(task.hub, theirs, source.language)
        found += [commit_of(file) for file in files[:1]]
    return found


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
