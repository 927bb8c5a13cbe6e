"""Parallel text aligned by identifiers: SIB-200's sentences (FLORES-200), and any folder of `<lang>.tsv` files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from xt.core import languages
from xt.core.data.bitext import ENGLISH, Bitext, data_folder
from xt.core.data.readers import rows
from xt.core.encoder.text import check_text
from xt.core.errors import XtError

SIB200 = "sib200-parallel"
ID_COLUMNS = ("id", "index_id")
SHOWN = 5
"""Identifiers that an error names as examples."""


def read_texts(files: Sequence[Path]) -> dict[str, str]:
    """Read tables with the columns `id` (or `index_id`) and `text`: id -> text, in the order of the files.

    Raises XtError with file and line for a row that cannot be read, a text that is blank, and an id that was there.
    """
    found: dict[str, str] = {}
    places: dict[str, str] = {}
    for file in files:
        first = True
        for number, row in rows.read(file, rows.TABLES):
            where = f"{file}, line {number}"
            if isinstance(row, str):
                raise XtError(f"{where}: {row}", "Expected the columns id and text, one sentence a row.")
            if first:
                column = next((name for name in ID_COLUMNS if name in row), None)
                if column is None or "text" not in row:
                    raise XtError(
                        f"{file} has the columns {', '.join(row)}; expected `id` (or `index_id`) and `text`.",
                        "Name them in the first line, with a tab between them.",
                    )
                first = False
            assert column is not None
            name, text = (str("" if row.get(c) is None else row[c]).strip() for c in (column, "text"))
            if not name:
                raise XtError(f"{where}: the id is empty.", "Give each sentence an id.")
            if name in found:
                raise XtError(f"{where}: the id {name!r} is in {places[name]} already.", "Each id must be there once.")
            check_text(text, where)
            found[name], places[name] = text, where
    if not found:
        raise XtError(f"{', '.join(map(str, files))}: there are no sentences.", "Expected a header line and rows.")
    return found


def align(language: str, foreign: Mapping[str, str], english: Mapping[str, str], what: str) -> Bitext:
    """Pair the sentences of two languages by id, in English's order; ids that one side lacks are left out and counted.

    >>> pairs = align("deu", {"1": "eins", "3": "drei"}, {"1": "one", "2": "two"}, "numbers")
    >>> pairs.foreign, pairs.english, pairs.left_out
    (('eins',), ('one',), 2)
    """
    shared = [name for name in english if name in foreign]
    if not shared:
        ids = [", ".join(list(side)[:SHOWN]) for side in (foreign, english)]
        raise XtError(
            f"{what}: {language} and English share no id ({language}: {ids[0]}; English: {ids[1]}).",
            "The same id must stand at a sentence and at its translation.",
        )
    left_out = len(foreign) + len(english) - 2 * len(shared)
    return Bitext(language, tuple(foreign[n] for n in shared), tuple(english[n] for n in shared), left_out)


def read_id_folder(folder: Path, selection: str = "all", skipped: list[str] | None = None) -> list[Bitext]:
    """Read a folder of `<lang>.tsv` with the columns `id` and `text`, each aligned with English (`eng.tsv`, `en.tsv`).

    The files may be CSV or JSON Lines as well, and gzipped; `skipped` gets the names of what else lies there.

    Raises XtError for a file whose name is no language's code, two files of one language, or when English is missing.
    """
    if not folder.is_dir():
        raise XtError(f"There is no folder {folder}.", "Check the path.")
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if not (file.is_file() and rows.is_readable(file, rows.TABLES)):
            if skipped is not None:
                skipped.append(file.name + "/" * file.is_dir())
            continue
        code = languages.resolve(file.name.split(".")[0]).iso3
        if code in files:
            raise XtError(f"{folder} holds {code} twice: {files[code].name}, {file.name}.", "Keep one of them.")
        files[code] = file
    english = files.pop("eng", None)
    if english is None or not files:
        there = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise XtError(
            f"{folder} needs {'a file of another language' if english else 'English, eng.tsv'} (found: {there}).",
            "Expected one file a language, <lang>.tsv, with the columns id and text.",
        )
    texts = read_texts([english])
    chosen = languages.select(selection, files)
    return [align(code, read_texts([files[code]]), texts, str(folder)) for code in chosen]


def read_sib200(data_dir: Path | None, selection: str = "all") -> list[Bitext]:
    """Read SIB-200 as a parallel corpus: the sentences of train, dev and test, aligned with English by id."""
    from xt.core.data import sources
    from xt.core.data.tasks import get

    task, folder = get(SIB200), data_folder(data_dir)
    there = {code for split in sources.SPLITS for code in sources.languages_at(task, split, data_dir)}
    if folder is None or not there & set(ENGLISH):
        where = f"{folder}/sib200/eng_Latn" if folder else "a data folder (none is named)"
        raise XtError(
            f"{SIB200} needs SIB-200's files, English among them; looked at {where}.",
            "Name the folder that holds sib200/eng_Latn/train.tsv by --data-dir (or XT_DATA).",
        )

    def texts(code: str) -> dict[str, str]:
        files = [f for split in sources.SPLITS for f in sources.locate_files(task, split, code, folder)]
        return read_texts(files)

    chosen = languages.select(selection, [code for code in task.codes if code in there and code != "eng"])
    english = texts("eng")
    return [align(code, texts(code), english, task.name) for code in chosen]
