"""The checkpoint folder: a Hugging Face and sentence-transformers encoder, its tokenizer, and the heads beside it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn

from xt.core.data.tasks import Task
from xt.core.encoder.layers import UPPER, cut, save_upper
from xt.core.encoder.resolve import write_sentence_transformers
from xt.core.encoder.spec import EncoderSpec
from xt.core.errors import XtError
from xt.core.heads.network import HEADS_FILE, MultiTaskModel, save_heads

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
"""What a tokenizer may consist of; of these tokenizer.json alone must be there."""


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the tokenizer's files unchanged."""
    if not (source / "tokenizer.json").is_file():
        raise XtError(f"{source} has no tokenizer.json.", "Save it with a fast tokenizer.")
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def write(
    folder: Path,
    model: MultiTaskModel,
    spec: EncoderSpec,
    tokenizer: Path,
    tasks: Sequence[Task],
    *,
    layer: int | None = None,
) -> None:
    """Write the trained encoder and heads into an existing folder, with the tokenizer of another.

    `layer`: the one that retrieval reads; those above it, which only further training needs, are written beside.
    """
    model = model.to("cpu")
    encoder: Any = model.encoder
    save_heads(folder / HEADS_FILE, model, tasks)
    if layer is not None:
        save_upper(cut(encoder, layer), folder / UPPER)
    encoder.save_pretrained(folder, safe_serialization=True)
    copy_tokenizer(tokenizer, folder)
    write_sentence_transformers(folder, spec)
    check(folder, encoder)


def check(folder: Path, encoder: nn.Module) -> None:
    """Raise unless every parameter of the encoder is in the written files, under its own name and of its own shape."""
    written: dict[str, list[int]] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            written |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    expected = {name: list(weight.shape) for name, weight in encoder.named_parameters()}
    wrong = sorted(name for name, shape in expected.items() if written.get(name) != shape)
    if wrong:
        raise XtError(
            f"{len(wrong)} of {len(expected)} weights were not written as AutoModel reads them (first: {wrong[0]}).",
            "transformers' save_pretrained renames this encoder's weights; xt cannot train it.",
        )
