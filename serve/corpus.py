"""Reading a corpus to encode or index: text, JSON lines, tables, or a folder of them, one document at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xt.core.artifact import sha256
from xt.core.errors import XtError
from xt.core.index import shown
from xt.core.text import check_text

SUFFIXES = (".txt", ".jsonl", ".tsv")
BEIR_CORPUS = "corpus.jsonl"
FIELDS = ("id", "text", "title", "language")


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
        return f"{self.file} line {self.line}"

    @property
    def content(self) -> str:
        """What is encoded and displayed: the title, where there is one, and the text."""
        return shown(self.to_json())

    def to_json(self) -> dict[str, str]:
        """As an index keeps it; what is empty is left out."""
        optional = {"title": self.title, "language": self.language}
        return {"id": self.id, "text": self.text, **{k: v for k, v in optional.items() if v}}


def corpus_files(path: Path) -> list[Path]:
    """Give the files of a corpus: the file itself, a BEIR folder's corpus.jsonl, or all of a folder in name order."""
    if path.is_dir():
        if (path / BEIR_CORPUS).is_file():
            return [path / BEIR_CORPUS]
        files = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES and p.is_file())
        if not files:
            found = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
            raise XtError(f"{path} holds no {', '.join(SUFFIXES)} file (found: {found}).", "Name a corpus.")
        return files
    if not path.is_file():
        raise XtError(f"There is no file or folder {path}.", "Check the path.")
    if path.suffix not in SUFFIXES:
        raise XtError(f"{path} is none of {', '.join(SUFFIXES)}.", "Convert it to one of them, and name it so.")
    return [path]


def fingerprint(path: Path) -> dict[str, str]:
    """Give file name -> SHA-256 of a corpus."""
    return {file.name: sha256(file) for file in corpus_files(path)}


def read_corpus(path: Path) -> Iterator[Document]:
    """Read the documents of a corpus in order.

    A `.txt` has one text a line, named by its line number (in a folder `FILE:LINE`); a `.jsonl` has objects with `id`
    (or `_id`) and `text`, perhaps `title` and `language`; a `.tsv` has a header with the same names. Other fields are
    left out.

    Raises XtError that names file and line for what is blank, damaged, not UTF-8 or has the id of an earlier document,
    and for a corpus without documents.
    """
    files = corpus_files(path)
    seen: dict[bytes, tuple[int, int]] = {}  # digests and numbers: ids may be long, and corpora large
    for number, file in enumerate(files):
        readers = {".txt": _read_txt, ".jsonl": _read_jsonl, ".tsv": _read_tsv}
        for document in readers[file.suffix](file, path.is_dir()):
            key = hashlib.blake2b(document.id.encode(), digest_size=16).digest()
            if key in seen:
                first = f"{files[seen[key][0]]} line {seen[key][1]}"
                raise XtError(f"{document.where}: {first} has the id {document.id!r} already.", "Ids must differ.")
            seen[key] = (number, document.line)
            yield document
    if not seen:
        raise XtError(f"{path} holds no text.", "Name a corpus with at least one document.")


def _lines(file: Path) -> Iterator[tuple[str, str, int]]:
    """Give each line without its end, file and number in words, and its number from 1."""
    with file.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            where = f"{file} line {number}"
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise XtError(f"{where} is not UTF-8: {error.reason} at byte {error.start}.", "Convert it.") from None
            yield text.rstrip("\r\n"), where, number


def _read_txt(file: Path, in_folder: bool) -> Iterator[Document]:
    for text, where, number in _lines(file):
        check_text(text, where)
        yield Document(f"{file.name}:{number}" if in_folder else str(number), text, "", "", file, number)


def _read_jsonl(file: Path, in_folder: bool) -> Iterator[Document]:
    for line, where, number in _lines(file):
        try:
            value = json.loads(line)
        except ValueError as error:
            raise XtError(f"{where} is not JSON: {error}", "Expected one object a line.") from None
        if not isinstance(value, dict):
            raise XtError(f"{where} is {type(value).__name__}, expected an object with id and text.")
        if "id" not in value and "_id" in value:
            value["id"] = value["_id"]
        yield _document(value, where, file, number)


def _read_tsv(file: Path, in_folder: bool) -> Iterator[Document]:
    header: list[str] = []
    for line, where, number in _lines(file):
        cells = line.split("\t")
        if number == 1:
            header = [c.strip() for c in cells]
            missing = [c for c in ("id", "text") if c not in header]
            if missing or len(set(header)) < len(header):
                raise XtError(
                    f"{where}: the header is {', '.join(header)}; "
                    + (f"it lacks {' and '.join(missing)}." if missing else "a column is there twice."),
                    "Expected columns id and text, perhaps title and language, with tabs between.",
                )
            continue
        if len(cells) != len(header):
            raise XtError(f"{where} has {len(cells)} columns, the header {len(header)}.", "Repair the line.")
        yield _document(dict(zip(header, cells, strict=True)), where, file, number)


def _document(value: dict[str, Any], where: str, file: Path, number: int) -> Document:
    missing = [name for name in ("id", "text") if value.get(name) is None]
    if missing:
        raise XtError(f"{where} has no {' and no '.join(missing)}.", f"Fields: {', '.join(FIELDS)}.")
    if isinstance(value["id"], int) and not isinstance(value["id"], bool):
        value["id"] = str(value["id"])
    for name in FIELDS:
        field = value.get(name) or ""
        if not isinstance(field, str):
            raise XtError(f"{where}: its {name} is {type(field).__name__}, expected text.")
        if field or name in ("id", "text"):
            check_text(field, f"{where}: its {name}")
    name, text, title, language = (value.get(field) or "" for field in FIELDS)
    return Document(name, text, title, language, file, number)
