"""Images as vectors, and the texts that describe them: reading a folder of both.

A folder holds `images.npy`, a float array (images, dim) that a frozen vision tower gave once, and `captions.jsonl`,
a caption a line: {"image": row, "text": ..., "language": ..., "id": name of the image, "split": train, dev or test}.
`language` is English where it is not given, `id` the row's number, `split` follows from a hash of the id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.core import languages
from xt.core.arguments import as_list
from xt.core.data.examples import CaptionExample
from xt.core.data.readers import rows
from xt.core.data.readers.rows import split_named
from xt.core.encoder.text import check_text
from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, open_artifact

KIND = "image-text"
IMAGES = "images.npy"
CAPTIONS = "captions.jsonl"
SPLITS = {"train": 0.8, "dev": 0.1, "test": 0.1}
"""The splits, and the share of the images that a hash sends to each."""
Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class ImageText:
    """Image vectors and their captions."""

    vectors: Array
    """(images, dim), mapped from the file: read when used."""
    captions: dict[str, dict[str, list[CaptionExample]]]
    """Split, language, captions. Every split is there, a language only where it has captions."""
    names: tuple[str, ...]
    """Name of each image; its row's number where the captions give none."""

    def examples(self, split: str, codes: Sequence[str] | None = None) -> list[CaptionExample]:
        """List the captions of a split, of the languages given (None: of all), language after language."""
        found = self.captions[split]
        wanted = found if codes is None else as_list(codes, "codes", "language codes")
        return [caption for code in wanted for caption in found.get(code, ())]


def split_of(name: str) -> str:
    """Return the split of an image by a hash of its name, so that it is in the same one in every language and build.

    >>> found = [split_of(str(n)) for n in range(2000)]
    >>> 1500 < found.count("train") < 1700, 150 < found.count("dev") < 250, 150 < found.count("test") < 250
    (True, True, True)
    """
    digest = hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest()
    drawn = int.from_bytes(digest, "big") / 2**64
    return "train" if drawn < SPLITS["train"] else "dev" if drawn < SPLITS["train"] + SPLITS["dev"] else "test"


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield line number and object of every line of a JSON-lines file (perhaps gzipped) that is not blank."""
    for number, row in rows.jsonl(rows.packed(path)):
        if isinstance(row, str):
            raise XtError(f"{path}, line {number}: {row}", 'Write one JSON object a line, {"image": ...}.')
        yield number, row


def _text(row: Mapping[str, Any], key: str, where: str, default: str | None = None) -> str:
    value = row.get(key, default)
    if not isinstance(value, str) or not value.strip():
        raise XtError(f"{where}: {key!r} is {value!r}, not a text.", f"Give {key!r} as a non-empty string.")
    check_text(value, where)
    return value.strip()


def read_captions(
    path: Path, locate: Callable[[object, str], tuple[int, str]]
) -> tuple[dict[str, dict[str, list[CaptionExample]]], dict[int, str]]:
    """Read a captions file: the captions by split and language, and the names of the images.

    Args:
        path: the file, a JSON object a line.
        locate: returns row and name of the image from the value of "image" and the place ("FILE, line N") of the value.
    """
    captions: dict[str, dict[str, list[CaptionExample]]] = {split: {} for split in SPLITS}
    names: dict[int, str] = {}
    splits: dict[int, tuple[str, int]] = {}
    owners: dict[str, int] = {}
    seen: dict[tuple[int, str, str], int] = {}
    for number, row in _rows(path):
        where = f"{path}, line {number}"
        if "image" not in row:
            raise XtError(f"{where}: no 'image'; found {', '.join(row) or 'nothing'}.", "Say which image it describes.")
        image, name = locate(row["image"], where)
        text = _text(row, "text", where)
        language = languages.canonical(_text(row, "language", where, "eng"))
        name = _text(row, "id", where, name)
        if names.setdefault(image, name) != name:
            raise XtError(f"{where}: image {row['image']!r} is called {name!r} here, {names[image]!r} before.")
        if owners.setdefault(name, image) != image:
            raise XtError(f"{where}: the id {name!r} belongs to another image already.", "Give each image its own id.")
        try:
            split = split_named(_text(row, "split", where, split_of(name)))
        except ValueError as error:
            raise XtError(f"{where}: unknown {error}", f"Known: {', '.join(SPLITS)}.") from None
        first_split, first_line = splits.setdefault(image, (split, number))
        if split != first_split:
            raise XtError(
                f"{where}: image {row['image']!r} is in {split} here and in {first_split} on line {first_line}.",
                "All captions of an image belong to one split; give it on each of them, or on none.",
            )
        if (earlier := seen.setdefault((image, language, text), number)) != number:
            raise XtError(f"{where}: the same caption as on line {earlier}.", "Remove one of the two lines.")
        captions[split].setdefault(language, []).append(CaptionExample(name, text, image, language))
    if not names:
        raise XtError(f"{path} holds no caption.", 'Write a line {"image": 0, "text": "..."} for each caption.')
    return captions, names


def _read_vectors(path: Path) -> Array:
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise XtError(f"{path} is not readable as an array: {error}", "Write it with numpy.save.") from error
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or 0 in vectors.shape or vectors.dtype.kind != "f":
        found = f"{vectors.dtype} {vectors.shape}" if isinstance(vectors, np.ndarray) else "an archive"
        raise XtError(f"{path} holds {found}; floats of shape (images, dim) are needed.", "Write it with numpy.save.")
    for start in range(0, len(vectors), 4096):
        block = np.asarray(vectors[start : start + 4096])
        bad = np.flatnonzero(~np.isfinite(block).all(1) | ~block.any(1))
        if len(bad):
            what = "all zero" if np.isfinite(block[bad[0]]).all() else "not finite"
            raise XtError(f"{path}, row {start + bad[0]}: {what}.", "Encode that image again, or leave it out.")
    return vectors


def load_image_text(folder: Path) -> ImageText:
    """Open a folder of image vectors and captions: one that xt made, or a plain one with just the two files.

    Raises XtError, with file and line, where the array is not (images, dim) of finite floats, or where a caption names
    an image or a language that is not there, stands twice, or puts its image into two splits.
    """
    if not folder.is_dir():
        raise XtError(f"There is no folder {folder}.", "Check the path.")
    missing = [name for name in (IMAGES, CAPTIONS) if not rows.packed(folder / name).is_file()]
    if missing:
        raise XtError(
            f"{folder} lacks {' and '.join(missing)}.",
            f"It needs both; `xt images encode` makes {IMAGES} from image files, `xt images emoji` a whole set.",
        )
    if (folder / MANIFEST).is_file():
        open_artifact(folder, kind=KIND)
    vectors = _read_vectors(folder / IMAGES)

    def locate(value: object, where: str) -> tuple[int, str]:
        if not isinstance(value, int) or isinstance(value, bool):
            raise XtError(
                f"{where}: 'image' is {value!r}, not a row of {IMAGES}.",
                f"Files become rows by: xt images encode {folder} --vision FOLDER --out DIR",
            )
        if not 0 <= value < len(vectors):
            raise XtError(f"{where}: there is no image {value}; {IMAGES} has rows 0 to {len(vectors) - 1}.")
        return value, str(value)

    captions, names = read_captions(folder / CAPTIONS, locate)
    return ImageText(vectors, captions, tuple(names.get(row, str(row)) for row in range(len(vectors))))
