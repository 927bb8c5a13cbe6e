"""What translations are mined from: two texts with identifiers and the pairs to be found, in BUCC's layout or made."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xt.core import languages
from xt.core.arguments import as_list
from xt.core.data.bitext import ENGLISH, Bitext, data_folder, read_tatoeba
from xt.core.data.hub_files import spellings
from xt.core.data.readers.rows import decode, packed, raw_lines
from xt.core.data.tasks import get
from xt.core.encoder.text import check_text
from xt.core.errors import XtError
from xt.eval.retrieval.ranking import fold_of

PARTS = {
    "dev": ("dev", "sample", "val", "valid", "validation", "development"),
    "test": ("test", "testing", "training", "train"),
}
"""Our part to the words that BUCC's file names have for it: its sample tunes, its training part tests, as in XTREME."""
GOLD = re.compile(r"\.gold(\.gz)?$", re.I)
"""How the name of a file of pairs ends."""
BROKEN = 1 / 3
"""The share of pairs that `mining_set_from_bitext` takes one side of."""


@dataclass(frozen=True)
class Sentences:
    """One side: sentences and their identifiers."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("ids", "texts"):
            object.__setattr__(self, name, tuple(as_list(getattr(self, name), name, name)))
        if len(self.ids) != len(self.texts):
            raise XtError(f"There are {len(self.texts)} sentences and {len(self.ids)} ids.", "Give one each.")


@dataclass(frozen=True)
class MiningSet:
    """Two texts, and which sentences of them translate each other."""

    foreign: Sentences
    english: Sentences
    gold: frozenset[tuple[str, str]]
    """(foreign id, English id)."""
    origin: str
    """Where it is from, for errors and reports."""

    def __post_init__(self) -> None:
        if not self.gold:
            raise XtError(f"{self.origin}: there are no gold pairs.", "Expected at least one pair of identifiers.")
        for side, place in ((self.foreign, 0), (self.english, 1)):
            known = set(side.ids)
            if unknown := sorted({pair[place] for pair in self.gold} - known):
                raise XtError(
                    f"{self.origin}: {len(unknown)} gold pairs name ids that no sentence has, {unknown[0]!r} first.",
                    "The ids of the gold file must be those of the two texts, the foreign one first.",
                )


@dataclass(frozen=True)
class MiningTask:
    """The two parts of one language: the threshold comes from `dev`, the figures from `test`."""

    language: str
    dev: MiningSet
    test: MiningSet


def read_sentences(path: Path) -> Sentences:
    """Read a text, one sentence a line, `id<TAB>text` or the text alone (then its line number, from 1, is the id).

    The first line tells which; a line of the other kind, a second sentence with an id and a blank one are errors.
    """
    ids: dict[str, int] = {}
    texts: list[str] = []
    with_ids: bool | None = None
    for number, line in _lines(path):
        name, tab, text = line.partition("\t")
        with_ids = bool(tab) if with_ids is None else with_ids
        if with_ids != bool(tab):
            kind = "id<TAB>text" if with_ids else "a sentence without a tab"
            raise XtError(f"{path}, line {number}: expected {kind}, as in line 1.", "Give every line an id, or none.")
        name, text = (name.strip(), text.strip()) if with_ids else (str(number), line.strip())
        check_text(text, f"{path}, line {number}")
        if name in ids:
            raise XtError(
                f"{path}, line {number}: the id {name!r} is on line {ids[name]} already.", "Each id must be there once."
            )
        ids[name] = number
        texts.append(text)
    if not texts:
        raise XtError(f"{path} is empty.", "Expected one sentence a line.")
    return Sentences(tuple(ids), tuple(texts))


def read_gold(path: Path) -> frozenset[tuple[str, str]]:
    """Read the pairs to be found, `foreign id<TAB>English id` a line; a pair that is there twice is an error."""
    pairs: dict[tuple[str, str], int] = {}
    for number, line in _lines(path):
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 2 or not all(cells):
            raise XtError(f"{path}, line {number}: {len(cells)} cells; expected two ids with a tab between them.")
        pair = (cells[0], cells[1])
        if pair in pairs:
            raise XtError(f"{path}, line {number}: the pair is on line {pairs[pair]} already.", "Remove one of them.")
        pairs[pair] = number
    return frozenset(pairs)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in raw_lines(path):
        try:
            yield number, decode(line)
        except ValueError as error:
            raise XtError(f"{path}, line {number}: {error}", "Convert the file to UTF-8.") from None


def find_mining(folder: Path) -> dict[str, dict[str, tuple[Path, Path, Path]]]:
    """List what a folder in BUCC's layout holds: language -> part -> (foreign, English, gold).

    Files are `xx-en.dev.xx`, `xx-en.dev.en`, `xx-en.dev.gold` and the same with `test`; `sample` and `training` stand
    for dev and test too. Languages may lie in subfolders of their own. Raises XtError when one of the six is missing.
    """
    if not folder.is_dir():
        raise XtError(f"There is no folder {folder}.", "Check the path.")
    found: dict[str, dict[str, tuple[Path, Path, Path]]] = {}
    every = (p for p in (*folder.glob("*.*"), *folder.glob("*/*.*")) if GOLD.search(p.name))
    for gold in sorted(every):
        pair, dot, word = GOLD.sub("", gold.name).partition(".")
        code, dash, english = pair.partition("-")
        part = next((p for p, names in PARTS.items() if word.lower() in names), None)
        if not (dot and dash) or english not in ENGLISH or part is None:
            continue
        sides = [packed(gold.with_name(f"{pair}.{word}.{side}")) for side in (code, english)]
        for side in sides:
            if not side.is_file():
                raise XtError(f"{gold.name} has no {side.name} beside it in {gold.parent}.", "All three must be there.")
        iso3 = languages.resolve(code).iso3
        parts = found.setdefault(iso3, {})
        if part in parts:
            raise XtError(f"{folder} holds {part} of {iso3} twice: {parts[part][2].name}, {gold.name}.", "Keep one.")
        parts[part] = (sides[0], sides[1], gold)
    if not found:
        raise XtError(
            f"{folder} holds nothing to mine.",
            "Expected xx-en.dev.xx, xx-en.dev.en, xx-en.dev.gold and the same with `test` in place of `dev`.",
        )
    for code, parts in found.items():
        for part, names in PARTS.items():
            if part not in parts:
                raise XtError(
                    f"{folder} has no {part} part of {code}: the threshold must come from other data than the figures.",
                    f"Expected {code}-en.{names[0]}.gold and its two texts (also `{names[1]}`).",
                )
    return found


def read_mining(folder: Path, selection: str = "all", left_out: dict[str, str] | None = None) -> list[MiningTask]:
    """Read the requested languages of a folder in BUCC's layout (`find_mining`).

    A language whose gold file is empty is an error; with `left_out` it is put there, with the reason, and not read.
    """
    found = find_mining(folder)
    tasks = []
    for code in languages.select(selection, found):
        sets = {}
        for part, (foreign, english, gold) in found[code].items():
            origin, pairs = str(gold), read_gold(gold)
            if not pairs and left_out is not None:
                left_out[code] = f"{gold.name} holds no gold pairs"
                break
            sets[part] = MiningSet(read_sentences(foreign), read_sentences(english), pairs, origin)
        if code in (left_out or {}):
            continue
        tasks.append(MiningTask(code, sets["dev"], sets["test"]))
    return tasks


def read_bucc(
    data_dir: Path | None, selection: str = "all", left_out: dict[str, str] | None = None
) -> list[MiningTask]:
    """Read BUCC 2018 from below a data folder (`bucc/` or `bucc2018/`); `left_out` as of `read_mining`."""
    task, folder = get("bucc"), data_folder(data_dir)
    patterns = [s for part in task.files.values() for p in part for s in spellings(p, "deu")]
    for name in ("bucc", "bucc2018"):
        if folder is not None and (folder / name).is_dir():
            return read_mining(folder / name, selection, left_out)
    raise XtError(
        f"BUCC is not there: {folder or 'no data folder is named'}.",
        f"{task.note} Expected for example {patterns[0]} below the folder named by --data-dir.",
    )


def mining_set_from_bitext(bitext: Bitext, seed: int) -> MiningTask:
    """Make something to mine of a parallel corpus: no BUCC, but with the same parts.

    Pairs whose English sentence falls into an even fold of `fold_of` are dev, the others test, so that no sentence is
    in both. Of each part a third of the pairs, drawn with `seed` and the language, loses one of its sides, in turn the
    English and the foreign one: what is left are distractors. The rest is gold. Both sides are shuffled.
    """
    digest = hashlib.sha256(f"{bitext.language} {seed}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    parts: Mapping[str, list[int]] = {"dev": [], "test": []}
    for i, english in enumerate(bitext.english):
        parts["dev" if fold_of(english) % 2 == 0 else "test"].append(i)
    sets = {}
    for part, rows in parts.items():
        if len(rows) < 6:
            raise XtError(
                f"{bitext.language}: {len(rows)} pairs fall to {part}; nothing can be mined from so few.",
                "Leave the language out by --languages.",
            )
        order = rng.permutation(rows)
        count = round(BROKEN * len(rows))
        only_foreign, only_english, whole = order[:count:2], order[1:count:2], order[count:]
        foreign = rng.permutation(np.concatenate([whole, only_foreign]))
        other = rng.permutation(np.concatenate([whole, only_english]))
        sets[part] = MiningSet(
            Sentences(tuple(f"f{i}" for i in foreign), tuple(bitext.foreign[i] for i in foreign)),
            Sentences(tuple(f"e{i}" for i in other), tuple(bitext.english[i] for i in other)),
            frozenset((f"f{i}", f"e{i}") for i in whole),
            f"{bitext.language}, {part} made from parallel text",
        )
    return MiningTask(bitext.language, sets["dev"], sets["test"])


def read_tatoeba_mining(
    data_dir: Path | None, selection: str = "all", seed: int = 0, left_out: dict[str, str] | None = None
) -> list[MiningTask]:
    """Make mining sets of the requested Tatoeba languages; with `left_out` one that is too small is put there."""
    tasks = []
    for pairs in read_tatoeba(data_dir, selection):
        try:
            tasks.append(mining_set_from_bitext(pairs, seed))
        except XtError as error:
            if left_out is None:
                raise
            left_out[pairs.language] = error.message
    return tasks
