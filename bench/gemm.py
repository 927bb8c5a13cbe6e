"""The fastest int8 matrix product this machine does, found by trying: what a forward pass could reach at most.

Every way is tried on every shape of the encoder; u8 activations and s8 weights, as quantised encoders have them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Run = Callable[[], Any]


def onnxruntime_matmul(m: int, k: int, n: int, threads: int) -> Run:
    """MatMulInteger of ONNX Runtime's own provider."""
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = numpy_helper.from_array(rng.integers(-127, 127, (k, n), np.int8), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [m, k])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [m, n])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {"x": rng.integers(0, 255, (m, k), np.uint8)}
    return lambda: session.run(None, feeds)


def torch_linear(engine: str) -> Callable[[int, int, int, int], Run]:
    """Return a quantised linear layer of PyTorch, by one of its engines (onednn, fbgemm, x86)."""

    def make(m: int, k: int, n: int, threads: int) -> Run:
        import torch

        torch.set_num_threads(threads)
        if engine not in torch.backends.quantized.supported_engines:
            raise RuntimeError(f"this PyTorch has no engine {engine}")
        torch.backends.quantized.engine = engine
        torch.manual_seed(0)
        x = torch.quantize_per_tensor(torch.randn(m, k), 0.05, 128, torch.quint8)
        w = torch.quantize_per_tensor(torch.randn(n, k), 0.05, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(w, None)
        return lambda: torch.ops.quantized.linear(x, packed, 0.1, 128)

    return make


METHODS: dict[str, Callable[[int, int, int, int], Run]] = {
    "onnxruntime MatMulInteger": onnxruntime_matmul,
    "torch quantized fbgemm": torch_linear("fbgemm"),
}


def best_seconds(run: Run, seconds: float) -> float:
    """Return the seconds of one call: the best of groups of calls that together take about `seconds`."""
    run()
    start = time.perf_counter()
    run()
    once = max(time.perf_counter() - start, 1e-6)
    group = max(1, int(0.01 / once))
    best = once
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(group):
            run()
        best = min(best, (time.perf_counter() - start) / group)
    return best


def measure(shapes: Sequence[tuple[int, int, int]], seconds: float, threads: int) -> list[dict[str, Any]]:
    """Try every way on every shape (M, K, N): billions of operations a second (2 M K N a product), or why not."""
    rows: list[dict[str, Any]] = []
    for name, make in METHODS.items():
        for m, k, n in shapes:
            row: dict[str, Any] = {"way": name, "m": m, "k": k, "n": n}
            try:
                row["gops"] = 2 * m * k * n / best_seconds(make(m, k, n, threads), seconds) / 1e9
            except Exception as error:  # a way that this machine or build lacks is listed as such
                row["unavailable"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            rows.append(row)
    return rows
