"""The repository for NVIDIA's container: the graph as a model of Triton's own ONNX Runtime backend, the text before it.

One exported model becomes two. `<name>_graph` holds `model.onnx` and nothing of xt: token ids in, vectors out, run by
the backend with CUDA, TensorRT or OpenVINO. `<name>` is what callers ask: the encoder of the `python` runtime, whose
micro-batches the graph's model runs, asked inside the server.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xt.core.encoder.onnx_engine import OUTPUT
from xt.core.errors import XtError, unknown
from xt.core.files.artifact import Artifact, Draft, new_artifact, open_artifact

if TYPE_CHECKING:
    from xt.serve.triton.model_config import ModelConfig

SUFFIX = "_graph"
DEVICES = ("gpu", "cpu")
ACCELERATORS = {"gpu": ("cuda", "tensorrt"), "cpu": ("none", "openvino")}
"""What runs the graph on each device; `auto` takes the first, or the second where every node is a standard one."""
TOKEN_BUDGET = {"gpu": 16384, "cpu": 1024}
"""Tokens, padding included, of one micro-batch: what fills a GPU, what stays in a CPU's cache."""
MAX_ROWS = 256
STANDARD_DOMAINS = ("", "ai.onnx")
ONES = "ones"
SCRATCH = "/tmp"  # noqa: S108 - of the container, the one folder it can write


def widths(max_length: int) -> list[int]:
    """Return the widths, in tokens, that micro-batches are padded to.

    They grow by a third to a half; the last is `max_length`.

    >>> widths(100)
    [16, 24, 32, 48, 64, 96, 100]
    """
    steps = (step for power in range(4, 20) for step in (1 << power, 3 << (power - 1)))
    return [*(w for w in steps if w < max_length), max_length]


def rows_of(width: int, token_budget: int) -> int:
    """Return the most rows of a micro-batch of this width.

    >>> rows_of(64, 1024), rows_of(512, 100)
    (16, 1)
    """
    return max(1, min(MAX_ROWS, token_budget // width))


def split_native(
    draft: Draft,
    repository: Path,
    name: str,
    *,
    device: str = "gpu",
    accelerator: str = "auto",
    instances: int = 1,
    fp16: bool = True,
    force: bool = False,
) -> Artifact:
    """Split a model draft made for the `python` runtime in two: write `<name>_graph`, make the draft the text model.

    Args:
        draft: holds `config.pbtxt`, `1/model.py`, `1/model.onnx`, the tokenizer, the golden vectors and the facts.
        repository: where the draft will land as `name`; `<name>_graph` is written beside it, whole or not at all.
        name: the name that callers use.
        device: `gpu` or `cpu`: what the graph's instances run on.
        accelerator: `cuda`, `tensorrt` (gpu), `none`, `openvino` (cpu), or `auto`.
        instances: copies of the graph on each device.
        fp16: let TensorRT compute in half precision; CUDA runs the graph in the precision it was exported in.
        force: replace an existing `<name>_graph`.

    Gives the graph's artefact. Raises XtError when the accelerator does not fit the device or the graph.
    """
    import onnx

    from xt.serve.triton import model_config

    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    if instances < 1:
        raise XtError(f"{instances} instances cannot serve.", "Give 1 or more.")
    version, spec = draft.path / "1", draft.facts["encoder"]
    source = draft.path / draft.facts["graph"]
    graph = onnx.load(str(source), load_external_data=False)
    accelerator = choose_accelerator(graph, device, accelerator)
    longest, budget = int(spec["max_length"]), TOKEN_BUDGET[device]
    config = graph_config(
        graph,
        f"{name}{SUFFIX}",
        device=device,
        accelerator=accelerator,
        instances=instances,
        longest=longest,
        token_budget=budget,
        fp16=fp16,
    )
    target = repository / f"{name}{SUFFIX}"
    with new_artifact(target, kind="model", force=force) as beside:
        (beside.path / "1").mkdir()
        for file in [source, *external_files(graph, source.parent)]:
            shutil.copyfile(file, beside.path / "1" / ("model.onnx" if file == source else file.name))
        write_config(beside.path, config)
        (beside.path / "warmup").mkdir()
        (beside.path / "warmup" / ONES).write_bytes(np.ones(longest, np.int64).tobytes())
        beside.parents = list(draft.parents)
        beside.facts = {
            "runtime": "onnxruntime",
            "graph": "1/model.onnx",
            "device": device,
            "accelerator": accelerator,
            "precision": draft.facts.get("precision"),
            "served_as": name,
        }
    written = open_artifact(target, kind="model")
    for file in [source, *external_files(graph, source.parent)]:
        file.unlink()
    packaged = resources.files("xt.model_repository") / "text" / "1" / "model.py"
    (version / "model.py").write_text(packaged.read_text(encoding="utf-8"), encoding="utf-8")
    native = {
        "graph_model": f"{name}{SUFFIX}",
        "graph_hash": written.hash,
        "inputs": [i.name for i in config.input],
        "output": OUTPUT,
        "widths": widths(longest),
        "token_budget": budget,
        "max_rows": MAX_ROWS,
    }
    # The graph's path leads to the model beside this one, so that the folder also loads in process.
    draft.facts = {
        **draft.facts,
        "runtime": "onnxruntime",
        "graph": f"../{name}{SUFFIX}/1/model.onnx",
        "native": native,
    }
    draft.parents = [*draft.parents, written.as_parent()]
    served = model_config.parse((draft.path / "config.pbtxt").read_text(encoding="utf-8"))
    # One micro-batch more than instances run: it is made ready meanwhile.
    served.parameters["workers"].string_value = str(instances + 1)
    for group in served.instance_group:
        group.kind = model_config.messages.ModelInstanceGroup.KIND_CPU
    write_config(draft.path, served)
    return written


def choose_accelerator(graph: Any, device: str, accelerator: str) -> str:
    """Return the accelerator to use, or raise XtError when this graph or device cannot have the requested one.

    TensorRT and OpenVINO take standard ONNX nodes. A fused graph's attention and normalisation are ONNX Runtime's own:
    the accelerator would leave them to another provider, node by node, with a copy at each border.
    """
    choices = ACCELERATORS[device]
    own = sorted({n.op_type for n in graph.graph.node if n.domain not in STANDARD_DOMAINS})
    if accelerator == "auto":
        return choices[0] if own else choices[1]
    if accelerator not in choices:
        raise unknown(f"accelerator for a {device}", accelerator, ("auto", *choices))
    if accelerator == choices[1] and own:
        raise XtError(
            f"{accelerator} cannot run this graph: {', '.join(own)} are ONNX Runtime's own nodes, not standard ones.",
            f"Use {choices[0]}, or export a graph that is not fused.",
        )
    return accelerator


def external_files(graph: Any, folder: Path) -> list[Path]:
    """List the files beside a graph that hold its weights; none where they are inside."""
    names = {
        entry.value for tensor in graph.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    return [folder / name for name in sorted(names)]


def graph_config(
    graph: Any,
    name: str,
    *,
    device: str,
    accelerator: str,
    instances: int,
    longest: int,
    token_budget: int,
    fp16: bool = True,
) -> ModelConfig:
    """Fill the committed config.pbtxt of a graph: names, types and dims as the graph has them, and how it runs.

    Raises XtError when the graph's first axis is not the batch or it lacks the output that xt reads.
    """
    from xt.serve.triton import model_config

    template = (resources.files("xt.model_repository") / "graph" / "config.pbtxt").read_text(encoding="utf-8")
    config = model_config.parse(template)
    config.name, config.max_batch_size = name, MAX_ROWS
    for values, entries in ((graph.graph.input, config.input), (graph.graph.output, config.output)):
        for value in values:
            entries.add(name=value.name, data_type=triton_type(value), dims=dims_without_batch(value))
    if OUTPUT not in [o.name for o in config.output]:
        raise XtError(f"The graph has no output {OUTPUT!r}.", "Export it with `xt export`.")
    groups = model_config.messages.ModelInstanceGroup
    kind = groups.KIND_GPU if device == "gpu" else groups.KIND_CPU
    config.instance_group.add(count=instances, kind=kind)
    # OpenVINO optimises the graph itself and wants it as exported; 0 is ONNX Runtime's all, 2 its none.
    config.optimization.graph.level = 2 if accelerator == "openvino" else 0
    accelerators = config.optimization.execution_accelerators
    if accelerator in ("cuda", "tensorrt"):
        if accelerator == "tensorrt":
            shapes = profile_shapes([i.name for i in config.input], longest, token_budget)
            settings = {"precision_mode": "FP16" if fp16 else "FP32", "trt_engine_cache_enable": "1"}
            settings |= {"trt_engine_cache_path": f"{SCRATCH}/xt-tensorrt", "trt_timing_cache_enable": "1"}
            settings |= {"trt_timing_cache_path": f"{SCRATCH}/xt-tensorrt", "trt_layer_norm_fp32_fallback": "1"}
            settings |= {f"trt_profile_{k}_shapes": v for k, v in shapes.items()}
            accelerators.gpu_execution_accelerator.add(name="tensorrt", parameters=settings)
        else:
            # Without it the arena doubles at every new shape, and keeps what it took.
            settings = {"arena_extend_strategy": "kSameAsRequested"}
            accelerators.gpu_execution_accelerator.add(name="cuda", parameters=settings)
    elif accelerator == "openvino":
        accelerators.cpu_execution_accelerator.add(name="openvino")
    for width in widths(longest):
        sample = config.model_warmup.add(name=f"width {width}", batch_size=rows_of(width, token_budget), count=1)
        for entry in config.input:
            tensor = sample.inputs[entry.name]
            tensor.data_type, tensor.input_data_file = entry.data_type, ONES
            tensor.dims.append(width)
    return config


def profile_shapes(inputs: Sequence[str], longest: int, token_budget: int) -> dict[str, str]:
    """Return TensorRT's least, usual and greatest shapes, rows x tokens for every input, as its options spell them."""
    usual = min(64, longest)
    shapes = {"min": (1, 1), "opt": (rows_of(usual, token_budget), usual), "max": (MAX_ROWS, longest)}
    return {k: ",".join(f"{name}:{rows}x{tokens}" for name in inputs) for k, (rows, tokens) in shapes.items()}


def triton_type(value: Any) -> int:
    """Return Triton's name for the element type of a graph's input or output."""
    import onnx

    from xt.serve.triton.model_config import messages

    proto = onnx.TensorProto
    known = {
        proto.FLOAT: messages.TYPE_FP32,
        proto.FLOAT16: messages.TYPE_FP16,
        proto.INT64: messages.TYPE_INT64,
        proto.INT32: messages.TYPE_INT32,
    }
    found = value.type.tensor_type.elem_type
    if found not in known:
        raise XtError(f"{value.name} of the graph is {proto.DataType.Name(found)}, which xt does not serve.")
    return int(known[found])


def dims_without_batch(value: Any) -> list[int]:
    """Return the dims of a graph's input or output behind the batch axis; -1 for one of any length."""
    axes = value.type.tensor_type.shape.dim
    if not axes or axes[0].HasField("dim_value"):
        raise XtError(f"The first axis of {value.name} is fixed, so the graph takes no batches.", "Export it again.")
    return [axis.dim_value if axis.HasField("dim_value") else -1 for axis in axes[1:]]


def write_config(folder: Path, config: ModelConfig) -> None:
    """Write a model's config.pbtxt."""
    from xt.serve.triton import model_config

    (folder / "config.pbtxt").write_text(model_config.to_text(config), encoding="utf-8")
