"""Image files into vectors, once, by a frozen vision tower: a folder that `xt.core.data.images` reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xt.core.data.examples import CaptionExample
from xt.core.data.images import CAPTIONS, IMAGES, KIND, SPLITS, Array, read_captions
from xt.core.errors import XtError, require
from xt.core.files.artifact import new_artifact, refuse_existing, sha256

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 100_000_000
"""Larger images are refused: a small file may unpack to more than the memory holds."""


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
