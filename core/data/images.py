"""Images as vectors, and the texts that describe them: reading a folder of both, making one, scoring retrieval.

A folder holds `images.npy`, a float array (images, dim) that a frozen vision tower gave once, and `captions.jsonl`,
a caption a line: {"image": row, "text": ..., "language": ..., "id": name of the image, "split": train, dev or test}.
`language` is English where it is not given, `id` the row's number, `split` follows from a hash of the id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xt.core import languages
from xt.core.arguments import as_list
from xt.core.data import rows
from xt.core.data.examples import CaptionExample
from xt.core.data.rows import split_named
from xt.core.encoder.text import check_text
from xt.core.errors import XtError, require
from xt.core.files.artifact import MANIFEST, new_artifact, open_artifact, refuse_existing, sha256

if TYPE_CHECKING:
    from PIL.Image import Image

KIND = "image-text"
IMAGES = "images.npy"
CAPTIONS = "captions.jsonl"
SPLITS = {"train": 0.8, "dev": 0.1, "test": 0.1}
"""The splits, and the share of the images that a hash sends to each."""
CUTOFFS = (1, 10)
"""The k of the recalls."""
REPEATS = 1000
"""Resamples of the images behind an interval."""
MAX_PIXELS = 100_000_000
"""Larger images are refused: a small file may unpack to more than the memory holds."""
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
        locate: gives row and name of the image from the value of "image" and the place ("FILE, line N") of the value.
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


def write_captions(path: Path, captions: Mapping[str, Mapping[str, Sequence[CaptionExample]]]) -> dict[str, Any]:
    """Write a captions file, and give its counts: images of each split, captions of each language."""
    images: dict[str, set[int]] = {split: set() for split in SPLITS}
    counts: dict[str, int] = {}
    with path.open("w", encoding="utf-8") as file:
        for split, by_language in captions.items():
            for language, rows in by_language.items():
                counts[language] = counts.get(language, 0) + len(rows)
                for c in rows:
                    images[split].add(c.image)
                    row = {"image": c.image, "text": c.text, "language": language, "id": c.id, "split": split}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return {"images": {s: len(found) for s, found in images.items()}, "captions": dict(sorted(counts.items()))}


def open_image(path: Path) -> Image:
    """Open an image file as RGB, turned as its EXIF says, on white where it is transparent."""
    require("PIL", extra="train", purpose="Reading images")
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            if file.width * file.height > MAX_PIXELS:
                raise XtError(f"{path} has {file.width} x {file.height} pixels, over {MAX_PIXELS:,}.", "Shrink it.")
            turned = ImageOps.exif_transpose(file)
            return on_white(turned)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise XtError(f"{path} is not readable as an image: {error}", "Replace it, or remove its captions.") from error


def on_white(image: Image) -> Image:
    """Return an image as RGB, transparent parts white."""
    from PIL import Image

    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    white.alpha_composite(rgba)
    return white.convert("RGB")


def _load_tower(vision: Path, device: str) -> tuple[Any, Any, str]:
    """Load a vision tower with its preprocessing, and say where its vectors come from."""
    if not (vision / "config.json").is_file():
        raise XtError(f"{vision} has no config.json.", "Name a folder that transformers' save_pretrained wrote.")
    if not (vision / "preprocessor_config.json").is_file():
        raise XtError(
            f"{vision} has no preprocessor_config.json: size, mean and deviation of its pixels are not known.",
            "Copy it from where the model came from, or save the model's image processor there.",
        )
    require("PIL", extra="train", purpose="Reading images")
    import torch
    from transformers import AutoImageProcessor, AutoModel

    try:
        processor = AutoImageProcessor.from_pretrained(vision, use_fast=False, local_files_only=True)
        model, report = AutoModel.from_pretrained(
            vision, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, ValueError, ImportError) as error:
        raise XtError(
            f"{vision} does not load as a vision model: {str(error).splitlines()[0]}",
            "It needs config.json, preprocessor_config.json and model.safetensors of CLIP, SigLIP, ViT or DINOv2.",
        ) from error
    missing = sorted(report["missing_keys"])
    if [key for key in missing if "pooler" not in key]:
        raise XtError(f"{vision} lacks weights of its model: {', '.join(missing[:5])}.", "Copy the whole folder again.")
    if hasattr(model, "get_image_features"):
        source = "image_features"
    elif getattr(model.config, "image_size", None) is None and not hasattr(model.config, "patch_size"):
        raise XtError(f"{vision} holds a {type(model).__name__}, not a vision model.", "Name a vision tower's folder.")
    else:  # a checkpoint saved without its pooler would get random weights there
        source = "first token" if missing else "pooler_output"
    return model.eval().requires_grad_(False).to(device), processor, source


def _forward(model: Any, pixels: Any, source: str) -> Array:
    """Return the vectors of a batch of images: (images, dim)."""
    if source == "image_features":
        return np.asarray(model.get_image_features(pixel_values=pixels).float().cpu())
    output = model(pixel_values=pixels)
    pooled = getattr(output, "pooler_output", None) if source == "pooler_output" else None
    if pooled is None:
        pooled = output.last_hidden_state[:, 0]
    return np.asarray(pooled.float().flatten(1).cpu())


def encode_images(
    folder: Path,
    vision: Path,
    out: Path,
    *,
    batch: int = 32,
    device: str = "auto",
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Encode the image files of a folder once with a frozen vision tower, into a folder for `load_image_text`.

    Args:
        folder: holds captions.jsonl, its "image" the path of an image file below the folder.
        vision: folder of a vision model of transformers (CLIP, SigLIP, ViT, DINOv2): config.json,
            preprocessor_config.json, model.safetensors.
        out: the folder to write.
        batch: images at a time.
        device: auto, cpu or cuda.
        force: replace `out`.
        progress: called with how many images of how many are done.
    """
    refuse_existing(out, force=force, kind=KIND, inputs=[vision], trees=[folder])
    if batch < 1:
        raise XtError(f"A batch of {batch} images.", "Give 1 or more.")
    files: dict[str, int] = {}

    def locate(value: object, where: str) -> tuple[int, str]:
        path = folder / value if isinstance(value, str) and value else None
        if path is None or not isinstance(value, str):
            raise XtError(f"{where}: 'image' is {value!r}, not the path of a file.", f"Give a path below {folder}.")
        if "\0" in value or not path.resolve().is_relative_to(folder.resolve()):
            raise XtError(f"{where}: {value!r} is outside {folder}.", "Give a path below that folder.")
        if not path.is_file():
            raise XtError(f"{where}: there is no image {path}.", "Check the path, or remove the line.")
        name = Path(value).as_posix()
        return files.setdefault(name, len(files)), name

    captions, _ = read_captions(folder / CAPTIONS, locate)
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise XtError("PyTorch sees no GPU.", "Use --device cpu, or check the driver with nvidia-smi.")
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    model, processor, source = _load_tower(vision, place)
    with new_artifact(out, kind=KIND, force=force) as draft:
        vectors: Any = None
        paths = list(files)
        for start in range(0, len(paths), batch):
            images = [open_image(folder / name) for name in paths[start : start + batch]]
            pixels = processor(images=images, return_tensors="pt")["pixel_values"].to(place)
            with torch.inference_mode():
                found = _forward(model, pixels, source)
            if not np.isfinite(found).all():
                row = start + int(np.flatnonzero(~np.isfinite(found).all(1))[0])
                raise XtError(f"{vision} gives a vector that is not finite for {paths[row]}.", "Check its weights.")
            if vectors is None:
                shape = (len(paths), found.shape[1])
                vectors = np.lib.format.open_memmap(draft.path / IMAGES, mode="w+", dtype=np.float32, shape=shape)
            vectors[start : start + len(found)] = found
            if progress:
                progress(start + len(found), len(paths))
        vectors.flush()
        weights = sorted(vision.glob("*.safetensors"))
        draft.facts = {
            **write_captions(draft.path / CAPTIONS, captions),
            "dim": int(vectors.shape[1]),
            "features": {
                "kind": "vision tower",
                "model": type(model).__name__,
                "vectors": source,
                "files": {p.name: sha256(p) for p in [vision / "config.json", *weights]},
            },
        }
    return out


def _unit(vectors: Array, what: str) -> npt.NDArray[np.float64]:
    vectors = np.asarray(vectors, np.float64)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise XtError(f"The {what} vectors are {vectors.shape}, or not finite.", "Expected finite (rows, dim).")
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def _ranks(text: npt.NDArray[np.float64], images: npt.NDArray[np.float64], gold: npt.NDArray[np.int64]) -> Array:
    """Rank of each text's own image, from 1; a tie counts against it, so that constant vectors win nothing."""
    ranks = np.empty(len(text))
    for start in range(0, len(text), 1024):
        rows = slice(start, start + 1024)
        scores = text[rows] @ images.T  # (texts, images)
        own = np.take_along_axis(scores, gold[rows, None], axis=1)
        ranks[rows] = (scores >= own).sum(1)
    return ranks


def _interval(values: Array, counts: Array, draws: Array) -> list[float]:
    """Return the 95 % interval of the mean over captions.

    `values` and `counts` (images,) are sums and numbers of an image's captions.
    """
    total = draws @ counts
    means = (draws @ values)[total > 0] / total[total > 0]
    return [float(x) for x in np.quantile(means, (0.025, 0.975))]


def retrieval_by_language(
    text_vectors: Array, image_vectors: Array, captions: Sequence[CaptionExample], *, seed: int = 0
) -> dict[str, Any]:
    """Score how well each language's texts find their image by cosine: recall@1, recall@10 and MRR, all 0 to 1.

    text_vectors (captions, dim) go with `captions`, image_vectors (all images, dim) with their `image`. The candidates
    are the images that any of the captions has, the same in every language: pass the held-out captions. Ties count
    against the right image. Intervals (95 %) are percentiles over resamples of the images, the candidates staying.

    Returns `images` (candidates), `chance` of each measure, `languages` with measures and `_ci` of each, and `mean`
    over languages.

    >>> pair = [CaptionExample("a", "dog", 0), CaptionExample("b", "cat", 1)]
    >>> found = retrieval_by_language(np.eye(2), np.eye(2), pair)
    >>> found["languages"]["eng"]["recall@1"], found["chance"]["recall@1"], found["chance"]["mrr"]
    (1.0, 0.5, 0.75)
    """
    if not captions or len(text_vectors) != len(captions):
        raise XtError(f"{len(text_vectors)} text vectors for {len(captions)} captions.", "Give one for each caption.")
    text, images = _unit(text_vectors, "text"), _unit(image_vectors, "image")
    if text.shape[1] != images.shape[1]:
        raise XtError(f"Texts have {text.shape[1]} dims, images {images.shape[1]}.", "Project them into one space.")
    rows = np.array([c.image for c in captions], np.int64)
    if rows.min() < 0 or rows.max() >= len(images):
        raise XtError(f"A caption has image {rows.max()}; there are {len(images)} image vectors.", "Pass them all.")
    candidates, gold = np.unique(rows, return_inverse=True)
    n = len(candidates)
    ranks = _ranks(text, images[candidates], gold.astype(np.int64))
    measures: dict[str, Array] = {f"recall@{k}": (ranks <= k).astype(np.float64) for k in CUTOFFS}
    measures["mrr"] = 1.0 / ranks
    chance = {f"recall@{k}": min(1.0, k / n) for k in CUTOFFS} | {"mrr": float((1.0 / np.arange(1, n + 1)).mean())}
    # Every language with the same resamples: differences between languages are then not theirs.
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=REPEATS).astype(np.float64)
    found: dict[str, dict[str, Any]] = {}
    codes = np.array([c.language for c in captions])
    for code in sorted(set(codes)):
        own = codes == code
        counts = np.bincount(gold[own], minlength=n).astype(np.float64)
        row: dict[str, Any] = {"captions": int(own.sum())}
        for name, values in measures.items():
            row[name] = float(values[own].mean())
            sums = np.bincount(gold[own], weights=values[own], minlength=n).astype(np.float64)
            row[f"{name}_ci"] = _interval(sums, counts, draws)
        found[str(code)] = row
    mean = {name: float(np.mean([row[name] for row in found.values()])) for name in measures}
    return {"images": n, "chance": chance, "languages": found, "mean": mean}
