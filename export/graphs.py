"""The graphs that one network can be served as: traced, fused, quantised, each made when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xt.export import graph
from xt.export.quantize import Feeds, quantize_static

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8", "int8-blocks")
FUSING = ("openvino", "tensorrt")
"""Execution providers that fuse by themselves and so get the traced graph."""


class Graphs:
    """The graphs of an encoder or a head, in a scratch folder."""

    def __init__(
        self,
        folder: Path,
        encoder: torch.nn.Module,
        trace: Callable[[Path], object],
        samples: Callable[[], Sequence[Feeds]],
    ) -> None:
        """Take what makes them.

        Args:
            folder: the scratch folder.
            encoder: the network of transformers, whose settings say what is fused.
            trace: writes the traced graph to a file.
            samples: give the inputs that static scales are fixed on.
        """
        self.folder = folder
        self.encoder = encoder
        self._trace = trace
        self._samples = samples

    def _made(self, name: str, make: Callable[[Path], object]) -> Path:
        folder = self.folder / name
        if not folder.is_dir():
            folder.mkdir(parents=True)
            make(folder / "model.onnx")
        return folder / "model.onnx"

    def raw(self) -> Path:
        """As Optimum traced it."""
        return self._made("raw", self._trace)

    def fused(self, *, packed: bool = True) -> Path:
        """Fused, fp32; `packed` attention holds the weights of query, key and value inside."""
        name = "fused" if packed else "split"
        return self._made(name, lambda file: graph.fuse(self.raw(), file, self.encoder, packed=packed))

    def get(self, precision: str, provider: str) -> Path:
        """Return the graph of a precision for a provider."""
        if precision == "int8":
            return self._made("int8", lambda file: quantize_static(self.raw(), file, self._samples()))
        if precision == "bf16":
            return self._made("bf16", lambda file: graph.for_bf16(self.raw(), file))
        if provider in FUSING:
            return self.raw()
        if precision == "int8-blocks":
            return self._made("int8-blocks", lambda file: graph.quantize(self.fused(packed=False), file))
        if precision == "fp16":
            return self._made("fp16", lambda file: graph.fuse(self.raw(), file, self.encoder, fp16=True))
        return self.fused()


def megabytes(file: Path) -> float:
    """Return the size of a graph, with the weights that may lie beside it."""
    return sum(p.stat().st_size for p in file.parent.glob(f"{file.name}*")) / 1e6
