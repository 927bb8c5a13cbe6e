"""Zero-shot text-to-image retrieval: an image-text head's captions in every language against the held-out images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xt.core.data.examples import CaptionExample
from xt.core.data.images import load_image_text, retrieval_by_language
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
MEASURES = ("recall@1", "recall@10", "mrr")


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
