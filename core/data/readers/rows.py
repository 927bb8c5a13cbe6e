"""The one reader of files of rows: lines, JSON Lines, tables, each perhaps gzipped; one row after another.

Endings may be in capitals. A byte-order mark is left off, lines end with LF or CR LF, blank lines are skipped and
reported to `blank`. A row that cannot be read comes as a text that says why; a file that cannot be read is an XtError.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from xt.core.errors import XtError, explain_os_error

Row: TypeAlias = Mapping[str, Any]
Rows: TypeAlias = Iterator[tuple[int, Row | str]]
"""The number of a line (from 1) and the row there; a text in place of a row says why there is none."""
Blank: TypeAlias = Callable[[int], None]
"""Called with the number of each blank line."""


class Cells(dict[str, str]):
    """A row of a table: a column that it lacks is lacking in every row."""


MAX_LINE = 64 << 20
"""Bytes of a line: a longer one is no text, or a file whose ends of lines were lost."""
MAX_DOCUMENT = 2 << 30
"""Bytes of a file that is one JSON document."""
ALLOWED_UNUSABLE = 0.01
"""The share of rows that may be unusable before a run stops."""
SPLITS = ("train", "dev", "test")
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "development", "valid", "validation", "val"), "dev"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What data sets call the splits, in a column `split` and in the names of files -> the split."""
_HEAD = 1024
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
csv.field_size_limit(MAX_LINE)  # Python's own limit is 128 KiB


def _ignore(line: int) -> None:
    """Take no notice of a blank line."""


def ending(path: Path) -> str:
    """Return the ending of a file's name in small letters, without that of its compression.

    >>> ending(Path("a/train.JSONL.gz"))
    '.jsonl'
    """
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def not_text(path: Path, found: str) -> XtError:
    """Return the error for a file that is no UTF-8 text at all."""
    return XtError(
        f"{path}: expected UTF-8 text, found {found}.",
        "Unpack it, or convert it: iconv -f UTF-16 -t UTF-8 (or -f LATIN1) FILE > NEW.",
    )


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file, `.gz` unpacked, past its byte-order mark; XtError when it is missing, broken or no text."""
    if path.exists() and not path.is_file():
        raise XtError(f"{path} is no file.", "Name a file.")
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as opened_file:
            file = cast(BinaryIO, opened_file)
            head = opened_file.peek(_HEAD)[:_HEAD]
            if head.startswith(_UTF16) or head.count(0) > max(3, len(head) // 10):
                raise not_text(path, "UTF-16 or a binary file")
            if head.startswith(b"\x1f\x8b"):
                raise not_text(path, "a gzip file whose name does not end in .gz")
            if b"\n" not in head and b"\r" in head.rstrip(b"\r"):
                raise not_text(path, "lines that end with CR alone (tr '\\r' '\\n' < FILE > NEW)")
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
    """Read a file's lines: number (from 1) and bytes, without the end of the line; XtError for one of `MAX_LINE`."""
    with opened(path) as file:
        number = 0
        while line := file.readline(MAX_LINE):
            number += 1
            if len(line) >= MAX_LINE:
                raise XtError(
                    f"{path}, line {number}: longer than {MAX_LINE >> 20} MiB.", "Expected text, a row on each line."
                )
            yield number, line.rstrip(b"\r\n")


def decode(line: bytes) -> str:
    """Return the text of a line; ValueError says what is no UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start}: {error.reason}).") from error


def parse(text: str) -> Any:
    """Return the value of a JSON text; ValueError for what is none, a key that is there twice, or too much nesting."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("not JSON (too deeply nested).") from None
    except _Twice as error:
        raise ValueError(str(error)) from None
    except ValueError as error:
        raise ValueError(f"not JSON ({error}).") from None


class _Twice(ValueError):
    """An object has a key twice."""


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(f"a JSON object that has {next(n for n in names if names.count(n) > 1)!r} twice.")
    return made


def plain(path: Path, *, blank: Blank = _ignore) -> Rows:
    """Read the lines that are not blank, stripped, as rows with a `text`."""
    for number, line in raw_lines(path):
        try:
            if text := decode(line).strip():
                yield number, {"text": text}
            else:
                blank(number)
        except ValueError as error:
            yield number, str(error)


def jsonl(path: Path, *, blank: Blank = _ignore) -> Rows:
    """Read JSON Lines, an object a line."""
    for number, line in raw_lines(path):
        if not line.strip():
            blank(number)
            continue
        try:
            row = parse(decode(line))
        except ValueError as error:
            yield number, str(error)
            continue
        yield number, row if isinstance(row, dict) else f"a JSON {type(row).__name__}, expected an object."


def tsv(path: Path, *, blank: Blank = _ignore) -> Rows:
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
        else:
            blank(number)
    if header is None:
        raise _empty(path)


def quoted(path: Path, delimiter: str = ",", *, blank: Blank = _ignore) -> Rows:
    """Read a table (CSV) whose cells may stand in double quotation marks, then with delimiters and line breaks.

    Raises XtError for a quotation mark that is never closed: it would swallow the rest of the file.
    """
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
            if "unexpected end" in str(error) or "field larger" in str(error):
                raise XtError(
                    f"{path}, line {number}: a quotation mark that is opened in this row is never closed.",
                    'Close it, or write a quotation mark inside a cell twice: "".',
                ) from error
            if header is None:
                raise not_text(path, f"a header line that cannot be read ({error})") from error
            reason = "not UTF-8" if isinstance(error, UnicodeEncodeError) else f"no CSV ({error}; a quotation mark?)"
            until = f", up to line {reader.line_num}" if reader.line_num > number else ""
            yield number, f"{reason}{until}."
            continue
        if header is None:
            header = _header(path, cells)
        elif cells:
            yield number, _cells(header, cells)
        else:
            blank(number)
    if header is None:
        raise _empty(path)


CUTTERS: dict[str, Callable[..., Rows]] = {
    ".jsonl": jsonl,
    ".ndjson": jsonl,
    ".tsv": tsv,
    ".csv": quoted,
    ".txt": plain,
}
"""Ending of a file's name (also in capitals, also before `.gz`) -> what cuts the file into rows."""
TABLES = tuple(suffix for suffix in CUTTERS if suffix != ".txt")
"""The endings of files whose rows have named columns."""


def is_readable(path: Path, endings: Sequence[str] = tuple(CUTTERS)) -> bool:
    """Return whether a file's name has one of the endings.

    >>> is_readable(Path("A.CSV.GZ")), is_readable(Path("a.md"))
    (True, False)
    """
    return ending(path) in endings


def packed(path: Path) -> Path:
    """Return the file of this name, or the one with `.gz` behind it where that alone is there.

    >>> packed(Path("nowhere/a.txt")).name
    'a.txt'
    """
    if path.exists():
        return path
    return next((p for gz in (".gz", ".GZ") if (p := path.with_name(path.name + gz)).is_file()), path)


def read(path: Path, endings: Sequence[str] = tuple(CUTTERS), *, blank: Blank = _ignore) -> Rows:
    """Read the rows of a file by the ending of its name; XtError that lists the endings for any other."""
    if not is_readable(path, endings):
        listed = f"{', '.join(endings[:-1])} or {endings[-1]}"
        raise XtError(f"{path}: expected a name that ends in {listed} (or these with .gz).", "Convert or rename it.")
    return CUTTERS[ending(path)](path, blank=blank)


def load_json(path: Path) -> Any:
    """Read a file that is one JSON document."""
    with opened(path) as file:
        content = file.read(MAX_DOCUMENT)
    if len(content) >= MAX_DOCUMENT:
        raise XtError(f"{path}: more than {MAX_DOCUMENT >> 30} GiB in one JSON document.", "Is it the right file?")
    try:
        return parse(decode(content))
    except ValueError as error:
        raise XtError(
            f"{path}: expected one JSON document, found something else: {error}",
            "Download it again; for JSON Lines choose a layout that reads lines.",
        ) from error


def split_named(value: Any) -> str:
    """Return the split that a row names in its column `split`, empty where it names none.

    Raises ValueError for a word that is none of `SPLIT_WORDS`, in any case.

    >>> [split_named(value) for value in ("val", "Validation", "TEST", "", None)]
    ['dev', 'dev', 'test', '', '']
    """
    if value is None or value == "":
        return ""
    found = SPLIT_WORDS.get(value.strip().lower()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"split {value!r} is none of {', '.join(SPLIT_WORDS)}.")
    return found


def holds(row: Any, name: str) -> bool:
    """Return whether `look` finds something.

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
    """Return what a row holds under a name, a dotted one leading inwards, also through lists; KeyError when nothing.

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
