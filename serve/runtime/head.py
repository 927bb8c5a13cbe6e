"""A trained head as Triton's Python backend runs it: ONNX Runtime in this process, one queue for all requests.

Inputs: text (n, 1), and text_pair (n, 1) where the head reads two texts. Request parameters: `truncate` (bool), and
`details` (bool): whether the answer also holds its logits, by which it can be calibrated.
Outputs: answer (n, 1) as JSON, tokens (n, 1), truncated (n, 1); by format label (n, 1), probabilities and logits
(n, labels), score (n, 1).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.core.errors import XtError
from xt.core.heads.onnx_heads import HeadModel, Read, Row, check_golden, load_head
from xt.serve.runtime.served import ServedModel

PARAMETERS = {"truncate": bool, "details": bool}


class ServedHead(ServedModel):
    """Loaded once an instance."""

    head: HeadModel
    speed: float
    outputs: set[str]

    def load(self, folder: Path, version_folder: Path, device: str) -> None:
        """Load the model and check its golden answers; one that fails does not become ready."""
        self.head, artifact = load_head(folder)
        worst = check_golden(self.head, folder, artifact)
        self.engine_budget = self.head.token_budget
        self.buckets = self.head.buckets
        self.speed = self.head.warm_up()
        self.outputs = {output["name"] for output in self.config["output"]}
        self.pb.Logger.log_info(f"{self.name}: golden answers agree (probabilities within {worst:.6f})")
        self.pb.Logger.log_info(f"{self.name}: {self.speed:.0f} tokens/s")

    def measured_speed(self) -> float:
        """Return the tokens a second of the warm-up."""
        return self.speed

    def read(self, request: Any) -> tuple[list[Row], list[int], Read]:
        """Decode, check and tokenise the texts of one request."""
        truncate = self.parameters(request, PARAMETERS).get("truncate", False)
        texts = self.texts(request)
        pairs: Sequence[str | None] = self.more_texts(request, "text_pair") or [None] * len(texts)
        if len(pairs) != len(texts):
            raise XtError(f"text_pair has {len(pairs)} texts, text has {len(texts)}.", "Give one for each.")
        items = [self.head.item(text, pair, index) for index, (text, pair) in enumerate(zip(texts, pairs, strict=True))]
        read = self.head.read(items, truncate=truncate)
        rows = read.rows
        return rows, [len(row) for row in rows], read

    def run(self, rows: list[Row]) -> list[Any]:
        """Run one micro-batch."""
        return self.head.logits(rows, self.settings.token_budget)

    def answer(self, request: Any, context: Read, results: list[Any]) -> list[Any]:
        """Return the outputs that the model's format has."""
        details = self.parameters(request, PARAMETERS).get("details", False)
        replies = self.head.replies(context, results, details=details)
        found = {
            "answer": _strings(json.dumps(reply.to_json(details=details), ensure_ascii=False) for reply in replies),
            "tokens": np.array([[reply.tokens] for reply in replies], np.int32),
            "truncated": np.array([[reply.truncated] for reply in replies], bool),
        }
        if "label" in self.outputs:
            found["label"] = _strings(str(reply.label) for reply in replies)
        if "score" in self.outputs:
            found["score"] = np.array([[reply.value] for reply in replies], np.float32)
        if "probabilities" in self.outputs:
            found["probabilities"] = np.array([reply.probabilities for reply in replies])
            found["logits"] = np.array([reply.logits for reply in replies])
        return [self.pb.Tensor(name, values) for name, values in found.items()]


def _strings(values: Iterable[str]) -> npt.NDArray[np.object_]:
    return np.array([[value.encode("utf-8")] for value in values], np.object_)
