"""A parallel corpus by its name: a task of the table, a folder of line-aligned files, or files aligned by id."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xt.core.data import aligned, bitext, tasks
from xt.core.data.bitext import Bitext
from xt.core.errors import XtError


@dataclass(frozen=True)
class Corpus:
    """A parallel corpus and what a report says of it."""

    name: str
    title: str
    source: str
    licence: str
    pairs: tuple[Bitext, ...]
    skipped: tuple[str, ...] = ()
    """Files of its folder that hold no sentences of it."""

    def describe(self) -> dict[str, Any]:
        """Return it as the report shows it."""
        return {
            "name": self.name,
            "title": self.title,
            "description": self.source,
            "licence": self.licence,
            "languages": len(self.pairs),
            "pairs": sum(len(b.foreign) for b in self.pairs),
        }

    def hashes(self) -> dict[str, str]:
        """Return SHA-256 of the texts of each language: its sentences and their English sides, a line each."""
        return {
            f"{self.name}, {b.language}": hashlib.sha256(
                "\n".join(f"{f}\t{e}" for f, e in zip(b.foreign, b.english, strict=True)).encode(
                    "utf-8", "surrogatepass"
                )
            ).hexdigest()
            for b in self.pairs
        }


def is_folder(task: str) -> bool:
    """Return whether the user means a folder rather than a task of the table."""
    return os.sep in task or task == "." or Path(task).is_dir()


def load_corpus(task: str, *, data_dir: Path | None = None, selection: str = "all") -> Corpus:
    """Read a corpus: a task of the table (`tatoeba`, `django`), a folder of line-aligned files, or `ids:FOLDER`."""
    skipped: list[str] = []
    if task.startswith("ids:"):
        folder = Path(task.removeprefix("ids:")).expanduser().resolve()
        found = tuple(aligned.read_id_folder(folder, selection, skipped))
        about = f"files aligned by id in {folder}"
        return Corpus(folder.name, folder.name, about, "the owner's", found, tuple(skipped))
    if is_folder(task):
        folder = Path(task).expanduser().resolve()  # `.` has no name
        pairs = tuple(bitext.read_folder(folder, selection, skipped))
        about = f"line-aligned files in {folder}"
        return Corpus(folder.name, folder.name, about, "the owner's", pairs, tuple(skipped))
    row = tasks.get(task)
    if row.format != "bitext":
        raise XtError(f"{task} is a task to train on; it cannot be evaluated by retrieval.", "See `xt tasks`.")
    return Corpus(row.name, row.title, row.source, row.licence, tuple(READERS[task](data_dir, selection)))


READERS: dict[str, Callable[[Path | None, str], list[Bitext]]] = {
    "tatoeba": bitext.read_tatoeba,
    "django": lambda data_dir, selection: bitext.read_django(selection),  # bundled
    aligned.SIB200: aligned.read_sib200,
}
"""How each corpus of the task table is read, from the data folder and for a selection of languages."""
