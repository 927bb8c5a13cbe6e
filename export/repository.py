"""One encoder into one model of a Triton repository: exported, fused, quantised and proven."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from xt.core.artifact import Artifact, Draft, new_artifact, open_artifact, refuse_existing, write_json
from xt.core.bitext import Bitext
from xt.core.encoders import Resolved
from xt.core.errors import CheckFailed, XtError, require, unknown
from xt.core.onnx_engine import OnnxEngine
from xt.core.text import TextEncoder
from xt.export import graph, parity

GOLDEN_TEXTS = 16
GOLDEN_COSINE = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.999}
"""How near the golden vectors must be when the model loads on another machine."""


def export_model(
    resolved: Resolved,
    repository: Path,
    *,
    corpus: Sequence[Bitext],
    name: str = "encoder",
    precision: str = "int8",
    min_cosine: float | None = None,
    force: bool = False,
    report: Callable[[str], None] = print,
) -> Artifact:
    """Write `repository/name`, a Triton model of the encoder, and give it opened.

    Args:
        resolved: the checkpoint.
        repository: the Triton model repository; other models in it stay.
        corpus: real text of many languages that parity is measured on.
        name: the model's name on the server.
        precision: `fp32`, `fp16` (for GPUs) or `int8`.
        min_cosine: another threshold for the first percentile of the cosine to PyTorch.
        force: replace an existing model.
        report: told of every stage.

    Raises:
        CheckFailed: a stage is not near enough to PyTorch; nothing is written.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name):
        raise XtError(f"{name!r} cannot name a model.", "Use letters, digits, '-' and '_', a letter first.")
    if precision not in graph.PRECISIONS:
        raise unknown("precision", precision, graph.PRECISIONS)
    require("onnxruntime", extra="cpu", purpose="Export")
    target = repository / name
    refuse_existing(target, force=force)
    thresholds = dict(parity.THRESHOLDS[precision])
    if min_cosine is not None:
        thresholds["cosine_p1"] = min_cosine
    texts = parity.ParityTexts.sample(corpus)
    with new_artifact(target, kind="model", force=force) as draft, tempfile.TemporaryDirectory() as scratch:
        stages = _stages(resolved, draft, Path(scratch), texts, precision, report)
        # The last stage must reach the precision's thresholds; those before it are fp32 and must reach fp32's.
        before = parity.THRESHOLDS["fp32"]
        failures = [f for s in stages for f in s.failures(thresholds if s is stages[-1] else before)]
        result = {**parity.as_json(stages, texts, precision, not failures), "thresholds": thresholds}
        if failures:
            raise CheckFailed(
                f"The exported graph is not near enough to PyTorch, so nothing was written: {'; '.join(failures)}.",
                "Try --precision fp32, or lower --min-cosine if you accept the loss.",
            )
        write_json(draft.path / "parity.json", result)
        _complete(resolved, draft, name, precision, result, texts)
    return open_artifact(target, kind="model")


def _stages(
    resolved: Resolved,
    draft: Draft,
    scratch: Path,
    texts: parity.ParityTexts,
    precision: str,
    report: Callable[[str], None],
) -> list[parity.Stage]:
    """Make the graph step by step, measuring each step; the last graph lands in the draft."""
    from xt.core import torch_engine

    spec = resolved.spec
    version = draft.path / "1"
    version.mkdir()
    shutil.copyfile(resolved.path / "tokenizer.json", version / "tokenizer.json")
    network = torch_engine.load_network(resolved.path, attn_implementation="eager")
    torch_encoder = torch_engine.load_encoder(resolved, device="cpu")
    tokenizer, pad_id = torch_encoder.tokenizer, torch_encoder.pad_id
    expected = parity.reference(torch_encoder, texts)
    stages: list[parity.Stage] = []

    def check(stage: str, file: Path) -> None:
        encoder = TextEncoder(spec, tokenizer, OnnxEngine(file, device="cpu"), pad_id=pad_id)
        size = sum(p.stat().st_size for p in file.parent.glob(f"{file.name}*")) / 1e6
        stages.append(parity.measure(stage, encoder, expected, texts, size))
        s = stages[-1]
        report(
            f"{stage}: {s.megabytes:.0f} MB, cosine min {s.cosine_min:.5f} p1 {s.cosine_p1:.5f} mean "
            f"{s.cosine_mean:.5f}, neighbours {s.neighbour_agreement:.1%}, batch {s.batch_cosine_min:.6f}"
        )

    raw, fused, final = scratch / "raw.onnx", scratch / "fused.onnx", version / "model.onnx"
    graph.to_onnx(network.eval(), spec, raw)
    check("onnx", raw)
    graph.fuse(raw, final if precision == "fp32" else fused, network, packed=precision != "int8")
    check("fused", final if precision == "fp32" else fused)
    if precision == "fp16":
        graph.fuse(raw, final, network, fp16=True)
        check("fp16", final)
    if precision == "int8":
        graph.quantize(fused, final)
        check("int8", final)
    return stages


def _complete(
    resolved: Resolved,
    draft: Draft,
    name: str,
    precision: str,
    result: dict[str, Any],
    texts: parity.ParityTexts,
) -> None:
    """Add the served code, its configuration, the golden vectors and the facts."""
    from xt.core.text import TextTokenizer
    from xt.core.torch_engine import pad_id

    spec, version = resolved.spec, draft.path / "1"
    source = resources.files("xt.model_repository") / "encoder"
    (version / "model.py").write_text((source / "1" / "model.py").read_text(encoding="utf-8"), encoding="utf-8")
    padding = pad_id(resolved.path)
    tokenizer = TextTokenizer(version / "tokenizer.json", spec.max_length)
    encoder = TextEncoder(spec, tokenizer, OnnxEngine(version / "model.onnx", device="cpu"), pad_id=padding)
    rows = np.unique(np.linspace(0, len(texts.foreign) - 1, GOLDEN_TEXTS).astype(int))
    golden = [texts.foreign[i] for i in rows]
    vectors = encoder.encode(golden).vectors
    least = GOLDEN_COSINE[precision]
    write_json(version / "golden.json", {"texts": golden, "cosine_min": least, "vectors": vectors.tolist()})
    served = {"encoder": spec.to_json(), "precision": precision, "checkpoint": resolved.parent}
    config = triton_config((source / "config.pbtxt").read_text(encoding="utf-8"), name, spec.dim, served)
    (draft.path / "config.pbtxt").write_text(config, encoding="utf-8")
    draft.parents = [resolved.parent]
    draft.facts = {
        **served,
        "graph": "1/model.onnx",
        "tokenizer": "1/tokenizer.json",
        "golden": "1/golden.json",
        "pad_id": padding,
        "parity": result,
    }


def triton_config(template: str, name: str, dim: int, facts: dict[str, Any]) -> str:
    """Fill the committed config.pbtxt: the model's name, the vector's length, and the facts a client may read."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    config = text_format.Parse(template, model_config_pb2.ModelConfig())
    config.name = name
    for output in config.output:
        if output.name == "embedding":
            output.dims[:] = [dim]
    config.parameters["xt"].string_value = json.dumps(facts, sort_keys=True)
    return str(text_format.MessageToString(config))
