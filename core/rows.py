"""The rows of a file as they stand there: lines, JSON Lines, tables; one after another, so memory stays flat."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from xt.core.errors import XtError, explain_os_error

Row: TypeAlias = Mapping[str, Any]
Rows: TypeAlias = Iterator[tuple[int, Row | str]]
"""The number of a line (from 1) and the row there; a text in place of a row says why there is none."""


class Cells(dict[str, str]):
    """A row of a table: a column that it lacks is lacking in every row."""


_HEAD = 1024
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


def ending(path: Path) -> str:
    """Give the ending of a file's name in small letters, without that of its compression.

    >>> ending(Path("a/train.JSONL.gz"))
    '.jsonl'
    """
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def not_text(path: Path, found: str) -> XtError:
    """Give the error for a file that is no UTF-8 text at all."""
    return XtError(
        f"{path}: expected UTF-8 text, found {found}.",
        "Unpack it, or convert it: iconv -f UTF-16 -t UTF-8 (or -f LATIN1) FILE > NEW.",
    )


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file, `.gz` unpacked, past its byte-order mark; XtError when it is missing, broken or no text."""
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as opened_file:
            file = cast(BinaryIO, opened_file)
            head = opened_file.peek(_HEAD)[:_HEAD]
            if head.startswith(_UTF16) or head.count(0) > len(head) // 10:
                raise not_text(path, "UTF-16 or a binary file")
            if head.startswith(codecs.BOM_UTF8):
                file.read(len(codecs.BOM_UTF8))
            yield file
    except FileNotFoundError as error:
        raise XtError(f"There is no file {path}.", "Check the path.") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise XtError(f"{path} is no whole gzip file ({error}).", "Download it again.") from error
    except OSError as error:
        raise explain_os_error(error) from error


def raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Read a file's lines: number (from 1) and bytes, without the end of the line."""
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            yield number, line.rstrip(b"\r\n")


def decode(line: bytes) -> str:
    """Give the text of a line; ValueError says what is no UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start}: {error.reason}).") from error


def plain(path: Path) -> Rows:
    """Read the lines that are not blank, stripped, as rows with a `text`."""
    for number, line in raw_lines(path):
        try:
            if text := decode(line).strip():
                yield number, {"text": text}
        except ValueError as error:
            yield number, str(error)


def jsonl(path: Path) -> Rows:
    """Read JSON Lines, an object a line; blank lines are skipped."""
    for number, line in raw_lines(path):
        if line.strip():
            try:
                row = json.loads(decode(line))
            except (ValueError, RecursionError) as error:
                yield number, str(error) if str(error).startswith("not UTF-8") else f"not JSON ({error})."
                continue
            yield number, row if isinstance(row, dict) else f"a JSON {type(row).__name__}, expected an object."


def tsv(path: Path) -> Rows:
    """Read a table of columns between tabs, with a header; quotation marks are letters like others."""
    header: list[str] | None = None
    for number, line in raw_lines(path):
        try:
            cells = decode(line).split("\t")
        except ValueError as error:
            if header is None:
                raise not_text(path, f"a header line that is {error}".rstrip(".")) from error
            yield number, str(error)
            continue
        if header is None:
            header = _header(path, cells)
        elif line:
            yield number, _cells(header, cells)
    if header is None:
        raise _empty(path)


def quoted(path: Path, delimiter: str = ",") -> Rows:
    """Read a table (CSV) whose cells may stand in double quotation marks, then with delimiters and line breaks."""
    texts = (line.decode("utf-8", "surrogateescape") + "\n" for _, line in raw_lines(path))
    reader = csv.reader(texts, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
            "".join(cells).encode("utf-8")
        except StopIteration:
            break
        except (csv.Error, UnicodeEncodeError) as error:
            if header is None:
                raise not_text(path, f"a header line that cannot be read ({error})") from error
            reason = "not UTF-8" if isinstance(error, UnicodeEncodeError) else f"no CSV ({error}; a quotation mark?)"
            yield number, f"{reason}."
            continue
        if header is None:
            header = _header(path, cells)
        elif cells:
            yield number, _cells(header, cells)
    if header is None:
        raise _empty(path)


def load_json(path: Path) -> Any:
    """Read a file that is one JSON document."""
    with opened(path) as file:
        content = file.read()
    try:
        return json.loads(decode(content))
    except (ValueError, RecursionError) as error:
        raise XtError(
            f"{path}: expected one JSON document, found something else: {error}",
            "Download it again; for JSON Lines choose a layout that reads lines.",
        ) from error


def holds(row: Any, name: str) -> bool:
    """Whether `look` finds something.

    >>> holds({"a": {"b": 1}}, "a.b"), holds({"a": [{"b": 1}, {}]}, "a.b"), holds({"a": None}, "a.b")
    (True, False, False)
    """
    if isinstance(row, list | tuple):
        return all(holds(item, name) for item in row)
    if not isinstance(row, Mapping):
        return False
    outer, dot, inner = name.partition(".")
    return name in row or (bool(dot) and outer in row and holds(row[outer], inner))


def look(row: Any, name: str) -> Any:
    """Give what a row holds under a name, a dotted one leading inwards, also through lists; KeyError when nothing.

    >>> look({"answers": [{"text": "a"}, {"text": "b"}], "choices": {"text": ["c"]}}, "answers.text")
    ['a', 'b']
    """
    if isinstance(row, list | tuple):
        return [look(item, name) for item in row]
    if not isinstance(row, Mapping):
        raise KeyError(name)
    if name in row:
        return row[name]
    outer, dot, inner = name.partition(".")
    if not dot:
        raise KeyError(name)
    return look(row[outer], inner)


def _header(path: Path, cells: list[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    if twice := sorted({cell for cell in header if cell and header.count(cell) > 1}):
        raise XtError(f"{path}: the header names {', '.join(twice)} twice.", "Give each column a name of its own.")
    return header


def _cells(header: list[str], cells: list[str]) -> Row | str:
    if len(cells) != len(header):
        return f"{len(cells)} columns, the header has {len(header)}."
    return Cells(zip(header, cells, strict=True))


def _empty(path: Path) -> XtError:
    return XtError(f"{path} is empty; expected a header line.", "Download it again.")
