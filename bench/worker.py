"""One engine in a process of its own, measured on the texts it is given: a program, run by any Python, not a module.

It reads one JSON document a line on stdin and answers each by one on stdout: `load`, then `measure` as often as asked.
It imports xt only for xt's own engines, since peers live in environments of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Encode = Callable[[Sequence[str]], Any]
BUDGET = 1024
"""Tokens, padding included, of one forward pass of the engines that are driven by hand here."""
QUANTIZED = "model_qint8_avx512_vnni.onnx"


def cores() -> int:
    """Return the CPU cores this process may use: as its parent says, which knows of CPU limits."""
    return int(os.environ.get("XT_WORKER_CORES") or len(os.sched_getaffinity(0)))


def sentence_transformers(job: dict[str, Any], *, dtype: str = "float32") -> tuple[Encode, str]:
    """The package as it comes, in PyTorch."""
    import sentence_transformers as package
    import torch

    torch.set_num_threads(cores())
    model = package.SentenceTransformer(job["checkpoint"], device="cpu", model_kwargs={"torch_dtype": dtype})
    return (
        lambda texts: model.encode(list(texts), prompt=job["prefix"], show_progress_bar=False),
        f"sentence-transformers {package.__version__} torch {dtype}",
    )


def onnx_folder(job: dict[str, Any]) -> Path:
    """Make, once, a copy of the checkpoint with the package's own ONNX export and its dynamic int8 version."""
    import sentence_transformers as package

    folder = Path(job["cache"]) / "onnx"
    if not folder.is_dir():
        draft = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.copytree(job["checkpoint"], draft)
        try:
            model = package.SentenceTransformer(
                str(draft), device="cpu", backend="onnx", model_kwargs={"provider": "CPUExecutionProvider"}
            )
            model.save_pretrained(str(draft))
            package.export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(draft))
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder


def sentence_transformers_onnx(job: dict[str, Any]) -> tuple[Encode, str]:
    """The package's ONNX backend with its dynamic int8 quantisation."""
    import sentence_transformers as package

    folder = onnx_folder(job)
    kwargs = {"provider": "CPUExecutionProvider", "file_name": QUANTIZED}
    model = package.SentenceTransformer(str(folder), device="cpu", backend="onnx", model_kwargs=kwargs)
    return (
        lambda texts: model.encode(list(texts), prompt=job["prefix"], show_progress_bar=False),
        f"sentence-transformers {package.__version__} ONNX dynamic int8",
    )


def openvino(job: dict[str, Any]) -> tuple[Encode, str]:
    """OpenVINO by its own Python interface, tokens sorted and cut by a token budget by hand, pooled here.

    `graph` names the file: the package's export (token vectors) or one that pools by itself.
    """
    import numpy as np
    import openvino as ov
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(job["checkpoint"]) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(job["max_length"])
    core = ov.Core()
    wanted = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": cores(), "PERFORMANCE_HINT": "LATENCY"}
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        wanted["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = core.compile_model(core.read_model(job["graph"]), "CPU", wanted)
    names = {n for i in compiled.inputs for n in i.get_names()}
    outputs = [o.get_any_name() for o in compiled.outputs]
    pooled = "sentence_embedding" in outputs
    output = compiled.output("sentence_embedding" if pooled else outputs[0])
    request = compiled.create_infer_request()

    def encode(texts: Sequence[str]) -> Any:
        rows = [e.ids for e in tokenizer.encode_batch_fast([job["prefix"] + t for t in texts])]
        found: list[Any] = [None] * len(rows)
        for some in by_budget([len(r) for r in rows], BUDGET):
            width = max(len(rows[i]) for i in some)
            ids = np.full((len(some), width), job["pad_id"], np.int64)
            mask = np.zeros((len(some), width), np.int64)
            for at, i in enumerate(some):
                ids[at, : len(rows[i])] = rows[i]
                mask[at, : len(rows[i])] = 1
            feeds = {"input_ids": ids, "attention_mask": mask}
            if "token_type_ids" in names:
                feeds["token_type_ids"] = np.zeros_like(ids)
            out = request.infer(feeds)[output]
            if not pooled:
                out = (out * mask[:, :, None]).sum(1) / mask.sum(1)[:, None]
                out = out / np.linalg.norm(out, axis=1, keepdims=True)
            for at, i in enumerate(some):
                found[i] = out[at]
        return np.stack(found)

    kind = "int8 file" if pooled else wanted["INFERENCE_PRECISION_HINT"]
    return encode, f"OpenVINO {ov.__version__.partition('-')[0]} {kind}"


def by_budget(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Cut indices, sorted by length, into batches of at most `budget` tokens, padding included."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def xt_model(job: dict[str, Any]) -> tuple[Encode, str]:
    """An exported model of xt."""
    from xt.core.encoder.onnx_engine import load_model

    encoder, artifact = load_model(Path(job["model"]))
    encoder.warm_up()
    return (lambda texts: encoder.encode(texts).vectors), f"xt {artifact.facts['precision']}, in process"


def xt_torch(job: dict[str, Any]) -> tuple[Encode, str]:
    """A checkpoint by xt's own PyTorch engine."""
    from xt.core.encoder import torch_engine

    encoder = torch_engine.load(job["checkpoint"])
    return (lambda texts: encoder.encode(texts).vectors), "pytorch fp32, in process"


LOADERS: dict[str, Callable[[dict[str, Any]], tuple[Encode, str]]] = {
    "sentence-transformers": sentence_transformers,
    "sentence-transformers-bf16": lambda job: sentence_transformers(job, dtype="bfloat16"),
    "sentence-transformers-onnx-int8": sentence_transformers_onnx,
    "openvino": lambda job: openvino({**job, "graph": str(onnx_folder(job) / "onnx" / "model.onnx")}),
    "openvino-int8": openvino,
    "xt": xt_model,
    "xt-torch": xt_torch,
}


def measure(encode: Encode, texts: Sequence[str], first: int, batch: int, seconds: float) -> dict[str, Any]:
    """Encode `batch` texts a call, beginning with text `first`, until `seconds` are over: at least one call."""
    latencies: list[float] = []
    position = first
    cpu, start = time.process_time(), time.perf_counter()
    while not latencies or time.perf_counter() < start + seconds:
        some = [texts[(position + i) % len(texts)] for i in range(batch)]
        sent = time.perf_counter()
        encode(some)
        latencies.append(time.perf_counter() - sent)
        position += batch
    wall = time.perf_counter() - start
    return {
        "latencies": latencies,
        "first": first,
        "count": position - first,
        "wall": wall,
        "cpu": time.process_time() - cpu,
    }


def warm_up(encode: Encode, texts: Sequence[str], batch: int, seconds: float) -> None:
    """Encode, uncounted, until `seconds` are over: kernels get compiled and threads started."""
    start, position, step = time.perf_counter(), 0, min(batch, 256)
    while position == 0 or time.perf_counter() < start + seconds:
        encode([texts[(position + i) % len(texts)] for i in range(step)])
        position += step


class Engine:
    """What this process holds."""

    def __init__(self) -> None:
        self.encode: Encode | None = None
        self.texts: list[str] = []

    def load(self, job: dict[str, Any]) -> dict[str, Any]:
        """Load an engine and the texts."""
        self.texts = json.loads(Path(job["texts"]).read_text(encoding="utf-8"))
        self.encode, title = LOADERS[job["kind"]](job)
        return {"title": title, "pid": os.getpid()}

    def prepare(self, job: dict[str, Any]) -> dict[str, Any]:
        """Make the package's ONNX export."""
        return {"folder": str(onnx_folder(job))}

    def measure(self, job: dict[str, Any]) -> dict[str, Any]:
        """Measure what is loaded."""
        assert self.encode is not None
        if job.get("warm_up"):
            warm_up(self.encode, self.texts, job["batch"], job["warm_up"])
        return measure(self.encode, self.texts, job["first"], job["batch"], job["seconds"])

    def gemm(self, job: dict[str, Any]) -> dict[str, Any]:
        """Measure matrix products."""
        sys.path.append(str(Path(__file__).parent))  # last: here are names that are also other packages'
        import gemm

        return {"rows": gemm.measure([tuple(s) for s in job["shapes"]], job["seconds"], cores())}


def main() -> None:
    """Answer each line of stdin. What libraries print goes to stderr: stdout carries answers alone."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # This file lies beside modules whose names are also packages': it must not shadow them.
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
    engine = Engine()
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer = getattr(engine, job["do"])(job)
        except Exception as error:  # the parent tells the user, whatever it was
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            answer = {"error": f"{type(error).__name__}: {error}", "missing": missing}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
