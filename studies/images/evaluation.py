"""Zero-shot text-to-image retrieval: an image-text head's captions in every language against the held-out images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from xt.core.data.examples import CaptionExample
from xt.core.data.images import Array, load_image_text
from xt.core.data.tasks import Task
from xt.core.errors import XtError
from xt.core.heads.inputs import chunks
from xt.core.heads.predict import READ_AHEAD, forward
from xt.core.languages import select
from xt.core.reporter import Reporter
from xt.core.results.folder import ReportFolder
from xt.eval.heads import classify
from xt.eval.heads.classify import Classified, Heads, means
from xt.eval.heads.engines import open_checkpoint
from xt.eval.options import EvalOptions, TaskRequest
from xt.eval.run import Written
from xt.eval.task_requests import Requests
from xt.serve.options import EncoderLocation

FORMAT = "image-text"
CUTOFFS = (1, 10)
"""The k of the recalls."""
REPEATS = 1000
"""Resamples of the images behind an interval."""
MEASURES = ("recall@1", "recall@10", "mrr")


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


def head_of(heads: Heads, name: str) -> Task:
    """Find the image-text head: the one of that name, or the only one; XtError when there is none."""
    found = [task for task in heads.tasks.values() if task.format == FORMAT]
    named = [task for task in found if task.name == name]
    if len(named or found) != 1:
        raise XtError(
            f"The checkpoint has {len(found)} image-text heads; its heads: {', '.join(heads.tasks) or 'none'}.",
            "Train one: xt train --image-text FOLDER.",
        )
    return (named or found)[0]


def vectors(heads: Heads, task: Task, captions: Sequence[CaptionExample], images: Any) -> tuple[Any, Any]:
    """Put captions and images into the head's shared space: (captions, dim) and (images, dim), of unit length."""
    head: Any = heads.model.heads[task.name]
    if images.shape[1] != head.image.in_features:
        raise XtError(
            f"The images have {images.shape[1]} dims; the head was trained on {head.image.in_features}.",
            "Use images of the same vision tower.",
        )
    texts: list[Any] = []
    with torch.inference_mode():
        for some in chunks(captions, READ_AHEAD):
            rows: list[Any] = [None] * len(some)
            units = heads.inputs.units(task, some)
            for positions, _, output in forward(heads.model, heads.inputs, task, units):
                for position, row in zip(positions, output["texts"].float().cpu().numpy(), strict=True):
                    rows[position] = row
            texts += rows
        pixels = torch.from_numpy(np.array(images, np.float32)).to(head.image.weight.device)
        shared = head.see(pixels).float().cpu().numpy()
    return np.stack(texts), shared


def retrieve(
    heads: Heads,
    folder: Path,
    *,
    split: str = "test",
    codes: Sequence[str] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[Task, Classified]:
    """Find the image of every held-out caption, language by language: recall at 1 and 10, and mean reciprocal rank.

    Args:
        heads: a checkpoint with an image-text head.
        folder: image vectors and captions, as `xt.core.data.images.load_image_text` reads them.
        split: `test` or `dev`.
        codes: the languages; None: all that the folder has.
        progress: called when the captions are encoded.
    """
    found = load_image_text(folder)
    task = head_of(heads, folder.resolve().name.replace(".", "-"))
    captions = found.examples(split, codes)
    if not captions:
        raise XtError(f"{folder} has no {split} captions in these languages.", "Choose others by --languages.")
    if progress:
        progress(0, 1, f"{len(captions)} captions")
    texts, images = vectors(heads, task, captions, found.vectors)
    scored = retrieval_by_language(texts, images, captions)
    if progress:
        progress(1, 1, "")
    rows = {
        code: {"n": row["captions"], **{m: row[m] for m in MEASURES}, "recall@10_ci": row["recall@10_ci"]}
        for code, row in scored["languages"].items()
    }
    plain = {code: {k: v for k, v in row.items() if k != "recall@10_ci"} for code, row in rows.items()}
    section = {
        "task": task.name,
        "format": FORMAT,
        "metric": "recall@10",
        "head": task.name,
        "split": split,
        "images": scored["images"],
        "chance": scored["chance"],
        "mean": means(plain),
        "languages": rows,
    }
    return task, Classified(section, [])


def run(
    options: EvalOptions,
    requests: Requests,
    *,
    reporter: Reporter = Reporter(),
    written: Written = lambda folder: None,
) -> list[ReportFolder]:
    """Evaluate every image-text set and write its report, as `xt.eval.run.run` does with other tasks."""
    folders = []
    for request in requests.tasks:
        folders.append(evaluate_images(options.location, request, reporter=reporter))
        written(folders[-1])
    return folders


def evaluate_images(
    location: EncoderLocation, request: TaskRequest, *, reporter: Reporter = Reporter()
) -> ReportFolder:
    """Measure text-to-image retrieval in every language of `image-text:FOLDER` and write its report."""
    folder = Path(request.name.removeprefix("image-text:")).expanduser()
    codes = select(request.languages, list(load_image_text(folder).captions["test"]))
    assert location.encoder is not None
    heads = open_checkpoint(location.encoder, device=location.device)
    task, result = retrieve(heads, folder, codes=codes, progress=reporter.counter("encoded"))
    facts = {"folder": str(folder)}
    return ReportFolder(*classify.write(request.out, heads, task, result, facts=facts, force=request.force))
