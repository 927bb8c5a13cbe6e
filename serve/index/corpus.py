"""The one reader of corpora: for `xt encode`, `xt index` and ranked retrieval, with the same rules.

A corpus is a file, a folder of files (those of its sub-folders too), or a folder in BEIR's layout. What is not read is
counted and named in a `CorpusLog`; what is damaged is an error with file and line.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xt.core.characters import is_empty
from xt.core.data.readers import rows
from xt.core.data.readers.rows import TABLES
from xt.core.encoder.text import check_text
from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, sha256
from xt.serve.index.index import shown

SUFFIXES = tuple(rows.CUTTERS)
BEIR_CORPUS, BEIR_QUERIES, BEIR_QRELS = "corpus", "queries", "qrels"
"""The files of BEIR's layout, without their endings; the last is a folder."""
FIELDS = ("id", "text", "title", "language")
NAMED = 8
"""Names of files that a message shows."""


@dataclass(frozen=True)
class Document:
    """One text with its name."""

    id: str
    text: str
    title: str
    language: str
    file: Path
    line: int
    """From 1."""

    @property
    def where(self) -> str:
        """File and line, for errors."""
        return f"{self.file}, line {self.line}"

    @property
    def content(self) -> str:
        """What is encoded and displayed: the title, where there is one, and the text, where there is one."""
        return shown(self.to_json())

    def to_json(self) -> dict[str, str]:
        """Return it as an index keeps it; title and language are left out where they are empty."""
        optional = {"title": self.title, "language": self.language}
        return {"id": self.id, "text": self.text, **{k: v for k, v in optional.items() if v}}


@dataclass
class CorpusLog:
    """What of a corpus was not read."""

    skipped: list[str] = field(default_factory=list)
    """Files and folders that are not read, below the corpus' folder."""
    blank: int = 0
    """Lines that hold nothing."""
    empty: int = 0
    """Documents without a title and a text."""
    first: dict[str, str] = field(default_factory=dict)
    """`blank` and `empty` -> where the first one is."""

    def count(self, what: str, where: str) -> None:
        """Count a `blank` line or an `empty` document."""
        setattr(self, what, getattr(self, what) + 1)
        self.first.setdefault(what, where)

    def notes(self) -> list[str]:
        """Return in words what was not read.

        >>> CorpusLog(skipped=["a.md"], empty=2, first={"empty": "c.tsv, line 4"}).notes()
        ['1 file not read: a.md', '2 documents without title and text left out (the first: c.tsv, line 4)']
        """
        notes = []
        if self.skipped:
            more = f" and {len(self.skipped) - NAMED} more" if len(self.skipped) > NAMED else ""
            what = "file" if len(self.skipped) == 1 else "files"
            notes.append(f"{len(self.skipped)} {what} not read: {', '.join(self.skipped[:NAMED])}{more}")
        for name, what in (("blank", "blank lines"), ("empty", "documents without title and text")):
            if count := getattr(self, name):
                notes.append(f"{count} {what} left out (the first: {self.first[name]})")
        return notes

    def to_json(self) -> dict[str, Any]:
        """Return it as a manifest keeps it; nothing where everything was read."""
        facts = {"files": self.skipped, "blank_lines": self.blank, "empty_documents": self.empty}
        return {name: value for name, value in facts.items() if value}


def beir_file(folder: Path, stem: str) -> Path | None:
    """Return the file of BEIR's layout with this name and one of the endings of tables; None where there is none.

    Raises XtError where there are two.
    """
    if not folder.is_dir():
        return None
    found = sorted(
        p for p in folder.iterdir() if p.is_file() and p.name.lower().split(".")[0] == stem and _is_table(p, stem)
    )
    if len(found) > 1:
        raise XtError(f"{folder} holds {' and '.join(p.name for p in found)}.", "Keep one of them.")
    return found[0] if found else None


def _is_table(path: Path, stem: str) -> bool:
    return path.name.lower().removesuffix(".gz") in {f"{stem}{ending}" for ending in TABLES}


def corpus_files(path: Path, log: CorpusLog | None = None) -> list[Path]:
    """List the files of a corpus: the file itself, a BEIR folder's corpus, or all of a folder and its sub-folders.

    Those of a folder come in the order of their paths. Hidden ones, those that xt wrote, folders behind links and files
    with other endings are not read, and named in `log`.
    """
    log = log or CorpusLog()
    if not path.is_dir():
        if not path.is_file():
            raise XtError(f"There is no file or folder {path}.", "Check the path.")
        if not rows.is_readable(path):
            raise XtError(f"{path} is none of {', '.join(SUFFIXES)} (or these with .gz).", "Convert or rename it.")
        return [path]
    beir = beir_file(path, BEIR_CORPUS)
    if beir is not None:
        known = {beir, beir_file(path, BEIR_QUERIES), path / BEIR_QRELS}
        log.skipped = [p.name + "/" * p.is_dir() for p in sorted(path.iterdir()) if p not in known]
        return [beir]
    files, skipped = _walk(path)
    log.skipped = [str(p.relative_to(path)) + "/" * p.is_dir() for p in skipped]
    if not files:
        found = ", ".join(log.skipped[:NAMED]) or "nothing"
        raise XtError(f"{path} holds no {', '.join(SUFFIXES)} file (found: {found}).", "Name a corpus.")
    return files


def _walk(folder: Path) -> tuple[list[Path], list[Path]]:
    """List the files below a folder that are read, and the files and folders that are not, each in order."""
    files: list[Path] = []
    skipped: list[Path] = []
    for where, folders, names in os.walk(folder):
        here = Path(where)
        for name in sorted(folders):
            inner = here / name
            if name.startswith(".") or inner.is_symlink() or (inner / MANIFEST).is_file():
                skipped.append(inner)
                folders.remove(name)
        for name in names:
            file = here / name
            fit = not name.startswith(".") and rows.is_readable(file) and file.is_file()
            (files if fit else skipped).append(file)
    return sorted(files), sorted(skipped)


def fingerprint(path: Path) -> dict[str, str]:
    """Return file name (below the corpus' folder) -> SHA-256 of a corpus."""
    base = path if path.is_dir() else path.parent
    return {file.relative_to(base).as_posix(): sha256(file) for file in corpus_files(path)}


def read_corpus(path: Path, log: CorpusLog | None = None) -> Iterator[Document]:
    """Yield the documents of a corpus in order.

    A `.txt` has one text a line, named by its line number (in a folder `FILE:LINE`); the other files hold rows with
    `id` (or `_id`), and `text` or `title` or both, perhaps `language`. Other fields are not read. Blank lines and
    documents without title and text are left out and counted.

    Raises XtError that names file and line for what is damaged, not UTF-8 or has the id of an earlier document, and for
    a corpus without documents.
    """
    log = CorpusLog() if log is None else log
    files = corpus_files(path, log)
    seen: dict[bytes, tuple[int, int]] = {}  # digests and numbers: ids may be long, and corpora large
    for number, file in enumerate(files):
        prefix = f"{file.relative_to(path).as_posix()}:" if path.is_dir() else ""
        for document in _documents(file, prefix, log):
            key = hashlib.blake2b(document.id.encode(), digest_size=16).digest()
            if key in seen:
                first = f"{files[seen[key][0]]}, line {seen[key][1]}"
                raise XtError(f"{document.where}: {first} has the id {document.id!r} already.", "Ids must differ.")
            seen[key] = (number, document.line)
            yield document
    if not seen:
        raise XtError(f"{path} holds no text.", "\n".join(["Name a corpus with at least one document.", *log.notes()]))


def _documents(file: Path, prefix: str, log: CorpusLog) -> Iterator[Document]:
    """Yield the documents of one file."""
    lines_alone = rows.ending(file) == ".txt"
    for number, row in rows.read(file, blank=lambda line: log.count("blank", f"{file}, line {line}")):
        where = f"{file}, line {number}"
        if isinstance(row, str):
            raise XtError(f"{where}: {row}", "Repair the line, or remove it.")
        if lines_alone and is_empty(row["text"]):
            log.count("empty", where)
            continue
        if lines_alone:
            check_text(row["text"], where)
            yield Document(f"{prefix}{number}", row["text"], "", "", file, number)
            continue
        document = _document(row, where, file, number)
        if document.content:
            yield document
        else:
            log.count("empty", where)


def id_of(row: Mapping[str, Any], where: str) -> str:
    """Return the id of a row, which stands in `id` or `_id`; XtError with the row's columns where there is none."""
    given = [row[name] for name in ("_id", "id") if row.get(name) is not None]
    if not given:
        found = ", ".join(map(str, list(row)[:12])) or "nothing"
        raise XtError(f"{where} has no id (found: {found}).", f"Expected the columns {', '.join(FIELDS)}.")
    names = [str(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in given]
    if len(names) > 1 and names[0] != names[1]:
        raise XtError(f"{where} has two ids, _id {names[0]!r} and id {names[1]!r}.", "Keep one of the two.")
    return _field(names[0], "id", where, needed=True)


def _field(value: Any, name: str, where: str, *, needed: bool = False) -> str:
    """Return a field as text, stripped; an empty string where there is none. XtError for what is no text."""
    if value is None or value == "":
        value = ""
    if not isinstance(value, str):
        raise XtError(
            f"{where}: its {name} is {type(value).__name__} ({str(value)[:40]}), expected text.", "Repair it."
        )
    if not needed and is_empty(value):
        return ""
    check_text(value, f"{where}: its {name}")
    return value.strip()


def language_of(row: Mapping[str, Any], where: str) -> str:
    """Return the language that a row (or its `metadata`, as in some BEIR sets) names; empty where it names none."""
    about = row.get("metadata")
    inner = about.get("language") if isinstance(about, Mapping) else None
    return _field(row.get("language") or inner, "language", where)


def _document(row: Mapping[str, Any], where: str, file: Path, number: int) -> Document:
    if row.get("text") is None and row.get("title") is None and not {"text", "title"} & set(row):
        found = ", ".join(map(str, list(row)[:12]))
        raise XtError(
            f"{where} has no text and no title (found: {found}).", f"Expected the columns {', '.join(FIELDS)}."
        )
    text, title = (_field(row.get(name), name, where) for name in ("text", "title"))
    return Document(id_of(row, where), text, title, language_of(row, where), file, number)


def read_queries(file: Path) -> list[tuple[str, str, str, str]]:
    """Read queries: id, text, language, and file and line of each. XtError for what is damaged or empty."""
    found: dict[str, tuple[str, str, str, str]] = {}
    for number, row in rows.read(file, TABLES):
        where = f"{file}, line {number}"
        if isinstance(row, str):
            raise XtError(f"{where}: {row}", "Repair the line, or remove it.")
        name, text = id_of(row, where), _field(row.get("text"), "text", where)
        if not text:
            raise XtError(f"{where}: the query is empty.", "Remove it.")
        if name in found:
            raise XtError(f"{where}: {found[name][3]} has the id {name!r} already.", "Ids must differ.")
        found[name] = name, text, language_of(row, where), where
    return list(found.values())
