"""Parallel text: Django's translations (bundled), LASER's Tatoeba, and any folder of line-aligned files."""

from __future__ import annotations

import gettext
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from xt.core import languages
from xt.core.arguments import as_list
from xt.core.data.readers.rows import decode, packed, raw_lines
from xt.core.encoder.text import check_text
from xt.core.errors import XtError
from xt.core.hub import snapshots

DJANGO_MIN_WORDS = 4
DJANGO_MIN_PAIRS = 80
ENGLISH = ("eng", "en", "eng_Latn", "english")
MARKUP = re.compile(r"[%{}<>&\n\r\t|\\]|https?:|:[a-z]+:`")
"""What marks an entry as a template rather than a sentence."""
PAIR_FILE = re.compile(
    r"^(?P<stem>.+)\.(?P<a>[A-Za-z_]{2,10})-(?P<b>[A-Za-z_]{2,10})\.(?P<side>[A-Za-z_]{2,10})(?P<gz>\.gz)?$", re.I
)
"""`name.xx-yy.xx` and `name.xx-yy.yy`: line-aligned files as LASER, Moses and OPUS name them, each perhaps gzipped."""


@dataclass(frozen=True)
class Bitext:
    """Sentences of one language and their English translations: `foreign[i]` means `english[i]`."""

    language: str
    foreign: tuple[str, ...]
    english: tuple[str, ...]
    left_out: int = 0
    """Sentences of either side that had no partner, where pairs are found by identifiers."""

    def __post_init__(self) -> None:
        for name in ("foreign", "english"):
            object.__setattr__(self, name, tuple(as_list(getattr(self, name), name)))
        if len(self.foreign) != len(self.english):
            raise XtError(f"{self.language}: {len(self.foreign)} sentences against {len(self.english)} English ones.")
        if not self.foreign:
            raise XtError(f"{self.language}: no sentence pairs.", "Give a corpus with at least one pair.")


def read_lines(path: Path) -> list[str]:
    """Read a UTF-8 text file, `.gz` unpacked, one sentence a line; blank lines are an error: they would be no pair."""
    lines = []
    for number, line in raw_lines(path):
        where = f"{path}, line {number}"
        try:
            text = decode(line).strip()
        except ValueError as error:
            raise XtError(f"{where}: {error}", "Convert the file to UTF-8.") from None
        check_text(text, where)
        lines.append(text)
    if not lines:
        raise XtError(f"{path} is empty.", "Expected one sentence a line.")
    return lines


def read_pair(language: str, foreign: Path, english: Path) -> Bitext:
    """Read two line-aligned files."""
    a, b = read_lines(foreign), read_lines(english)
    if len(a) != len(b):
        raise XtError(
            f"{foreign.name} has {len(a)} lines and {english.name} has {len(b)}: they are not aligned.",
            "Line n of one must translate line n of the other.",
        )
    return Bitext(language, tuple(a), tuple(b))


def find_pairs(folder: Path, skipped: list[str] | None = None) -> dict[str, tuple[Path, Path]]:
    """List the language pairs with English in a folder: code -> (foreign file, English file).

    `skipped` gets the names of what else lies there.
    """
    skipped = [] if skipped is None else skipped
    if not folder.is_dir():
        raise XtError(f"There is no folder {folder}.", "Check the path.")
    pairs: dict[str, tuple[Path, Path]] = {}
    for file in sorted(folder.iterdir()):
        found = PAIR_FILE.match(file.name)
        if not found or not file.is_file():
            skipped.append(file.name + "/" * file.is_dir())
            continue
        a, b, side = found["a"], found["b"], found["side"]
        code, english = (a, b) if b in ENGLISH else (b, a)
        if english not in ENGLISH or side not in (code, english):
            skipped.append(file.name)
            continue
        other = packed(file.with_name(f"{found['stem']}.{a}-{b}.{english if side == code else code}"))
        if not other.is_file():
            raise XtError(f"{file.name} has no partner {other.name} in {folder}.", "Both sides must be there.")
        if side == english:
            continue
        if code in pairs:
            raise XtError(f"{folder} holds {code} twice: {pairs[code][0].name}, {file.name}.", "Keep one of them.")
        pairs[code] = (file, other)
    if not pairs:
        raise XtError(
            f"{folder} holds no line-aligned files with English.",
            "Expected pairs such as corpus.deu-eng.deu and corpus.deu-eng.eng.",
        )
    return pairs


def read_folder(folder: Path, selection: str = "all", skipped: list[str] | None = None) -> list[Bitext]:
    """Read the line-aligned pairs of a folder in the requested languages; see `languages.select` and `find_pairs`."""
    pairs = find_pairs(folder, skipped)
    return [read_pair(code, *pairs[code]) for code in languages.select(selection, pairs)]


def data_folder(data_dir: Path | None) -> Path | None:
    """Return the folder of data sets: the one named, else `XT_DATA`, else none."""
    if data_dir is not None:
        return data_dir
    return Path(os.environ["XT_DATA"]) if os.environ.get("XT_DATA") else None


def read_tatoeba(data_dir: Path | None, selection: str = "all") -> list[Bitext]:
    """Read LASER's Tatoeba test set from `data_dir` (or its subfolder `tatoeba`), else from the hub."""
    base = data_folder(data_dir)
    if base is None:
        return tatoeba_from_hub(selection)
    return read_folder(base / "tatoeba" if (base / "tatoeba").is_dir() else base, selection)


def _hub_files(repository: str, revision: str, names: list[str]) -> Path:
    """Return the folder of a data set's files, from the hub's local cache, else downloaded."""
    why = ""
    for folder, why in snapshots(repository, revision, names, kind="dataset"):
        if folder is not None:
            missing = [name for name in names if not (folder / name).is_file()]
            if not missing:
                return folder
            why = f"{repository} lacks {missing[0]}"
    raise XtError(
        f"Tatoeba is neither on disk nor to be had from the hub: {why}",
        "Name the folder with tatoeba.<lang>-eng.<lang> files by --data-dir (or XT_DATA).",
    )


def tatoeba_from_hub(selection: str) -> list[Bitext]:
    """Read XTREME's 36 languages of Tatoeba from the hub (`google/xtreme`, converted to Parquet)."""
    import pyarrow.parquet as pq

    codes = languages.select(selection, languages.XTREME_TATOEBA)
    files = {code: f"tatoeba.{code}/validation/0000.parquet" for code in codes}
    folder = _hub_files("google/xtreme", "refs/convert/parquet", list(files.values()))
    found = []
    for code, name in files.items():
        rows = pq.read_table(folder / name).to_pylist()
        sides = [(r["source_sentence"].strip(), r["target_sentence"].strip(), r["source_lang"]) for r in rows]
        sides = [(b, a, c) if c in ENGLISH else (a, b, c) for a, b, c in sides]
        found.append(Bitext(code, tuple(s[0] for s in sides), tuple(s[1] for s in sides)))
    return found


def read_django(selection: str = "all") -> list[Bitext]:
    """Read the translated interface sentences of the installed Django wheel (BSD-3-Clause).

    Human translations. Left out: entries with placeholders or markup, under four English words, untranslated, or
    whose translation also translates another sentence; then languages with fewer than 80 pairs. One variant a
    language (`pt`, not `pt_BR`; simplified Chinese).
    """
    try:
        files = metadata.distribution("django").files or []
    except metadata.PackageNotFoundError:
        raise XtError(
            "The bundled corpus needs the package 'django' (its files are read, it is not run).",
            "Install it with: pip install 'xt-retriever[quickstart]'   (from a checkout: pip install '.[quickstart]')",
        ) from None
    catalogues: dict[str, list[Path]] = {}
    for file in files:
        parts = file.parts
        if file.name == "django.mo" and "locale" in parts:
            locale = parts[parts.index("locale") + 1]
            catalogues.setdefault(locale, []).append(Path(str(file.locate())))
    chosen: dict[str, str] = {}
    for locale in sorted(catalogues, key=lambda name: (len(name.split("_")), name)):
        try:
            code = languages.resolve(locale).iso3
        except XtError:
            continue
        if code != "eng":
            chosen.setdefault(code, locale)
    corpus = {}
    for code, locale in sorted(chosen.items()):
        pairs = _translations(sorted(catalogues[locale]))
        if len(pairs) >= DJANGO_MIN_PAIRS:
            corpus[code] = Bitext(code, tuple(p[1] for p in pairs), tuple(p[0] for p in pairs))
    return [corpus[code] for code in languages.select(selection, corpus)]


def _translations(files: Iterable[Path]) -> list[tuple[str, str]]:
    """Return the usable (English, translation) pairs of some catalogues, in order, each side unique."""
    pairs: dict[str, str] = {}
    for path in files:
        with path.open("rb") as file:
            catalogue = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        for english, foreign in catalogue.items():
            if isinstance(english, str) and isinstance(foreign, str) and _is_sentence(english, foreign):
                pairs.setdefault(english.strip(), foreign.strip())
    counts: dict[str, int] = {}
    for foreign in pairs.values():
        counts[foreign.casefold()] = counts.get(foreign.casefold(), 0) + 1
    return [(e, f) for e, f in pairs.items() if counts[f.casefold()] == 1]


def _is_sentence(english: str, foreign: str) -> bool:
    """Return whether a catalogue entry is a translated sentence without placeholders or markup."""
    if "\x04" in english or MARKUP.search(english) or MARKUP.search(foreign):
        return False
    words = re.findall(r"[A-Za-z][A-Za-z'’-]*", english)
    return len(words) >= DJANGO_MIN_WORDS and bool(foreign.strip()) and english.strip() != foreign.strip()
