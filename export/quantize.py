"""Static int8: scales of weights and activations fixed at export, on real text, by NNCF with SmoothQuant."""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.core.errors import XtError, require
from xt.core.text import TextTokenizer, bucket, pad
from xt.export.graph import quiet

CALIBRATION_TEXTS = 160
"""Texts that the activations' ranges are taken from."""
Feeds = dict[str, npt.NDArray[np.int64]]


def calibration_texts(texts: Sequence[str], count: int = CALIBRATION_TEXTS, seed: int = 0) -> list[str]:
    """Choose texts of all kinds of length from a corpus: half as they are, half several of them in a row.

    The corpora that parity is measured on hold single sentences; what is served is longer, too.
    """
    chance = random.Random(seed)
    some = [chance.choice(texts) for _ in range(count)]
    for i in range(0, count, 2):
        some[i] = " ".join([some[i], *chance.choices(texts, k=chance.choice((1, 2, 4, 8)))])
    return some


def feeds(texts: Iterable[str], tokenizer: TextTokenizer, prefix: str, pad_id: int) -> list[Feeds]:
    """Tokenise each text into the graph's inputs, as a server would run it alone, padded to its bucket."""
    rows, _ = tokenizer(list(texts), prefix=prefix, truncate=True)
    arrays = [pad([row], pad_id, width=bucket(len(row))) for row in rows]
    return [{"input_ids": ids, "attention_mask": mask} for ids, mask in arrays]


def quantize_static(source: Path, target: Path, samples: Sequence[Feeds]) -> dict[str, int]:
    """Write the int8 copy of an unfused fp32 graph; give the counts of its quantising nodes.

    Matrix products run on unsigned 8-bit activations and signed 8-bit weights with a scale a column, the vocabulary
    table is kept in 8 bits. SmoothQuant (Xiao et al. 2023, arXiv 2211.10438, section 4) moves the activations'
    outliers into the weights first. All scales are constants of the graph, so that no text moves another's.

    Raises XtError when nothing could be quantised.
    """
    # NNCF reports its use through this package where it is installed; without it, it reports nothing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    require("nncf", extra="quantize", purpose="Static int8 (--precision int8)")
    import nncf
    import onnx

    logging.getLogger("nncf").setLevel(logging.ERROR)
    with quiet():
        model = nncf.quantize(
            onnx.load(str(source)),
            nncf.Dataset(list(samples)),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(samples),
        )
    counts: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
    if not counts:
        raise XtError(f"No product of {source.name} could be brought to 8 bits.", "Try --precision int8-blocks.")
    onnx.save(model, str(target), save_as_external_data=_bytes(model) > 2_000_000_000)
    return counts


def _bytes(model: Any) -> int:
    return int(model.ByteSize())
