"""PyTorch to ONNX through Optimum, pooling and normalisation inside the graph, then fused and quantised."""

from __future__ import annotations

import io
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xt.core.encoder.onnx_engine import OUTPUT
from xt.core.encoder.spec import EncoderSpec
from xt.core.errors import XtError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

OPSET = 18
FUSED = {"bert": "bert", "roberta": "bert", "xlm-roberta": "bert", "camembert": "bert", "distilbert": "bert"}
"""Model types whose graphs ONNX Runtime's transformer optimiser knows, and the name it knows them by."""
BLOCK = 32
"""Weights that share one scale in the int8 graph."""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the tracer's and the optimiser's notices; xt checks the outcome itself, node by node and by parity."""
    names = ("onnxruntime.transformers", "optimum", "transformers", "onnxruntime", "root", "onnx_model", "fusion_base")
    loggers = [logging.getLogger(n) for n in names]
    levels = [x.level for x in loggers]
    for x in loggers:
        x.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for x, level in zip(loggers, levels, strict=True):
            x.setLevel(level)


def to_onnx(network: torch.nn.Module, spec: EncoderSpec, file: Path) -> None:
    """Export an encoder to `file`: (input_ids, attention_mask) -> sentence_embedding.

    Both axes are dynamic. The output is pooled and, where the spec says so, normalised.
    """
    from transformers import PreTrainedModel

    from xt.core.encoder.torch_engine import pool

    config: Any = network.config

    class SentenceEncoder(PreTrainedModel):
        """The encoder and its pooling as one module, for tracing."""

        config_class = type(config)

        def __init__(self) -> None:
            super().__init__(config)
            self.encoder = network

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return {OUTPUT: pool(hidden, attention_mask, spec)}

    inputs = ("input_ids", "attention_mask")
    trace(SentenceEncoder, config, file, inputs=inputs, output=OUTPUT, axes={0: "batch"})


def trace(
    make: Callable[[], torch.nn.Module],
    config: Any,
    file: Path,
    *,
    inputs: Sequence[str],
    output: str,
    axes: dict[int, str],
) -> None:
    """Export a module to `file` through Optimum's exporter, both axes of its inputs dynamic.

    Args:
        make: makes it, a model of transformers, as Optimum asks for, that returns {output: tensor}.
        config: the encoder's settings, as transformers has them.
        file: where the graph goes.
        inputs: its inputs.
        output: its output.
        axes: the output's axes that vary.
    """
    from optimum.exporters.onnx.convert import export
    from optimum.exporters.tasks import TasksManager

    if config.model_type not in FUSED:
        raise unknown("model type for export", config.model_type, FUSED)
    base = TasksManager.get_exporter_config_constructor(
        "onnx", model_type=config.model_type, task="feature-extraction", library_name="transformers"
    )
    onnx_config_type = type(
        "XtOnnxConfig",
        (base.func if hasattr(base, "func") else base,),
        {
            "inputs": property(lambda self: {name: {0: "batch", 1: "tokens"} for name in inputs}),
            "outputs": property(lambda self: {output: axes}),
        },
    )
    with quiet():
        export(
            make().eval(),
            onnx_config_type(config, task="feature-extraction"),
            file,
            opset=OPSET,
            disable_dynamic_axes_fix=True,
        )


def fuse(
    source: Path, target: Path, network: torch.nn.Module, *, fp16: bool = False, packed: bool = True
) -> Counter[str]:
    """Fuse attention, layer normalisation and GELU (exact, no approximation); give the fused nodes' counts.

    `packed` attention holds the weights of query, key and value inside; otherwise these stay matrix products of their
    own, which `quantize` needs.

    Raises XtError when a layer stayed unfused: a new version of torch or transformers then traced another pattern.
    """
    import onnx
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    config: Any = network.config
    options = FusionOptions(FUSED[config.model_type])
    options.enable_embed_layer_norm = False
    options.use_multi_head_attention = not packed
    options.use_raw_attention_mask(True)  # pooling reads the raw mask too; nothing assumes right padding
    with quiet():
        model = optimize_model(
            str(source),
            model_type=FUSED[config.model_type],
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            opt_level=0,
            optimization_options=options,
        )
        if fp16:
            model.convert_float_to_float16(keep_io_types=True)
        model.save_model_to_file(str(target), use_external_data_format=_large(model))
    counts = Counter(n.op_type for n in onnx.load(str(target), load_external_data=False).graph.node)
    layers = config.num_hidden_layers
    norms = counts["SkipLayerNormalization"] + counts["LayerNormalization"]
    gelus = counts["BiasGelu"] + counts["Gelu"] + counts["FastGelu"]
    attention = counts["Attention"] + counts["MultiHeadAttention"]
    if attention < layers or norms < 2 * layers or gelus < layers:
        raise XtError(
            f"The graph of {layers} layers did not fuse: {attention} attention, {norms} norm, {gelus} GELU nodes.",
            "The installed torch or transformers traces another pattern; install the versions of the lock file.",
        )
    return counts


def for_bf16(source: Path, target: Path) -> int:
    """Copy a traced graph with its mask's constant, the lowest fp32, made one that bf16 can hold; give how many.

    Rounded to bf16 that constant is minus infinity, and times a mask of 0 not a number.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(source))
    changed = 0
    tensors = [*model.graph.initializer, *(a.t for n in model.graph.node for a in n.attribute if a.HasField("t"))]
    for tensor in tensors:
        if tensor.data_type != onnx.TensorProto.FLOAT or sum(tensor.dims) > 1:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size == 1 and float(values.reshape(-1)[0]) < -1e38:
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(values, -1e30), tensor.name))
            changed += 1
    onnx.save(model, str(target), save_as_external_data=model.ByteSize() > 2_000_000_000)
    return changed


def _large(model: Any) -> bool:
    """Return whether a graph is over protobuf's 2 GB and needs its weights in a file beside it."""
    return bool(model.model.ByteSize() > 2_000_000_000)


def quantize(source: Path, target: Path) -> Mapping[str, int]:
    """Write the int8 copy of a fused graph: weights and vocabulary in 8-bit blocks; give the counts of what changed.

    Weights get one scale a block of 32 along the summed axis, activations are brought to 8 bits block by block at run
    time (`MatMulNBits`, accuracy level 4). No scale spans two rows, so a vector does not depend on its batch mates, as
    it does with ONNX Runtime's dynamic quantisation, which scales a whole batch at once.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(source))
    graph = model.graph
    weights = {i.name: i for i in graph.initializer}
    replaced: dict[str, list[Any]] = {}
    counts: Counter[str] = Counter()

    def blocks(name: str, matrix: Any) -> tuple[str, str]:
        """Quantise the rows of (rows, columns) once, however many nodes read them: names of levels and scales."""
        if name not in replaced:
            levels, scales = quantize_blocks(matrix)
            replaced[name] = [
                numpy_helper.from_array(levels, f"{name}_levels"),
                numpy_helper.from_array(scales, f"{name}_scales"),
            ]
        return f"{name}_levels", f"{name}_scales"

    for node in graph.node:
        operand = {"MatMul": 1, "Gather": 0}.get(node.op_type)
        if operand is None or node.input[operand] not in weights:
            continue
        name = node.input[operand]
        matrix = numpy_helper.to_array(weights[name])
        if node.op_type == "MatMul" and matrix.ndim == 2 and matrix.shape[0] % BLOCK == 0:
            rows, columns = matrix.shape
            levels, scales = blocks(name, matrix.T)
            settings = {"K": rows, "N": columns, "bits": 8, "block_size": BLOCK, "accuracy_level": 4}
            inputs = [node.input[0], levels, scales]
            new = helper.make_node("MatMulNBits", inputs, node.output, node.name, domain="com.microsoft", **settings)
        elif node.op_type == "Gather" and matrix.ndim == 2 and len(matrix) > 1000 and matrix.shape[1] % BLOCK == 0:
            levels, scales = blocks(name, matrix)
            settings = {"bits": 8, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1}
            inputs = [levels, node.input[1], scales]
            domain = "com.microsoft"
            new = helper.make_node("GatherBlockQuantized", inputs, node.output, node.name, domain=domain, **settings)
        else:
            continue
        counts[new.op_type] += 1
        node.CopyFrom(new)
    tables = {n.input[0] for n in graph.node if n.op_type == "GatherBlockQuantized"}
    for name, (levels, scales) in replaced.items():
        if levels.name in tables:  # a table is (rows, columns); a MatMul's weights stay (rows, blocks, 32)
            levels.dims[:] = [levels.dims[0], levels.dims[1] * levels.dims[2]]
        else:
            scales.dims[:] = [scales.dims[0] * scales.dims[1]]
        graph.initializer.remove(weights[name])
        graph.initializer.extend([levels, scales])
    if not any(o.domain == "com.microsoft" for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    if not counts["MatMulNBits"]:
        raise XtError(f"No weight of {source.name} could be brought to 8 bits.", f"Widths must divide by {BLOCK}.")
    onnx.save(model, str(target), save_as_external_data=model.ByteSize() > 2_000_000_000)
    return counts


def quantize_blocks(matrix: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Bring (rows, columns) to symmetric 8-bit levels around 128, one scale for 32 neighbours of a row.

    Gives levels (rows, columns / 32, 32) and scales (rows, columns / 32); value = (level - 128) * scale.
    """
    rows, columns = matrix.shape
    grouped = np.asarray(matrix, np.float32).reshape(rows, columns // BLOCK, BLOCK)
    scales = np.abs(grouped).max(-1) / 127.0
    scales[scales == 0] = 1.0
    levels = np.clip(np.rint(grouped / scales[..., None]), -127, 127) + 128
    return levels.astype(np.uint8), scales.astype(np.float32)
