"""The network as an ONNX graph that pools and normalises by itself, run by ONNX Runtime."""

from __future__ import annotations

import json
import os
import platform
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.core.encoder.buckets import Buckets
from xt.core.encoder.spec import EncoderSpec
from xt.core.encoder.text import TextEncoder, TextTokenizer, Vectors
from xt.core.errors import XtError, require, unknown
from xt.core.files.artifact import Artifact, open_artifact, read_json
from xt.core.machine import gpu_libraries
from xt.core.machine.cores import usable_cores

DEVICES = ("auto", "cpu", "cuda")
OUTPUT = "sentence_embedding"
MOST_WORKERS = 16
"""Forward passes at once: more would wait for Python's lock."""


@dataclass(frozen=True)
class Provider:
    """An execution provider of ONNX Runtime, and how xt uses it."""

    name: str
    """As ONNX Runtime calls it."""
    device: str
    """`cpu` or `cuda`."""
    precisions: tuple[str, ...]
    """What it runs, the fastest first."""
    token_budget: int
    """Tokens, padding included, of one forward pass."""
    buckets: Buckets
    """The shapes of its forward passes."""


PROVIDERS = {
    "openvino": Provider("OpenVINOExecutionProvider", "cpu", ("int8", "bf16", "fp32"), 512, Buckets(compiled=True)),
    "cpu": Provider("CPUExecutionProvider", "cpu", ("int8", "int8-blocks", "fp32", "fp16"), 1024, Buckets()),
    "tensorrt": Provider("TensorrtExecutionProvider", "cuda", ("fp16", "fp32"), 16384, Buckets(1024, compiled=True)),
    "cuda": Provider("CUDAExecutionProvider", "cuda", ("fp16", "fp32"), 16384, Buckets(1024)),
}
"""By xt's short names, the fastest first for each device."""


def available_providers() -> list[str]:
    """Name the providers, in xt's words, that this machine and this build of ONNX Runtime have, the fastest first.

    OpenVINO's is for x86 CPUs alone; those of NVIDIA need a GPU besides their library.
    """
    import onnxruntime as ort

    offered = ort.get_available_providers()
    gpu = os.path.exists("/dev/nvidiactl")
    x86 = platform.machine() in ("x86_64", "AMD64")
    there = {"cuda": gpu, "tensorrt": gpu, "openvino": x86, "cpu": True}
    return [name for name, row in PROVIDERS.items() if row.name in offered and there[name]]


def choose_provider(provider: str = "auto", *, device: str = "auto", precision: str | None = None) -> str:
    """Choose where a graph runs: the first provider of the device that runs this precision; a GPU before a CPU.

    Raises XtError when what was requested is not to be had; nothing is replaced silently.
    """
    import onnxruntime as ort

    if device not in DEVICES:
        raise XtError(f"Unknown device {device!r}.", f"Known: {', '.join(DEVICES)}.")
    found = available_providers()
    offered = f"ONNX Runtime {ort.__version__} offers here: {', '.join(found)}."
    if provider != "auto":
        if provider not in PROVIDERS:
            raise unknown("provider", provider, ("auto", *PROVIDERS))
        if provider not in found:
            raise XtError(
                f"The execution provider {provider!r} cannot be used. {offered}",
                "Install the extra for this machine (cpu or gpu), or export for another --provider.",
            )
        if precision and precision not in PROVIDERS[provider].precisions:
            known = ", ".join(PROVIDERS[provider].precisions)
            raise XtError(f"The provider {provider} does not run {precision}.", f"It runs: {known}.")
        return provider
    if device == "cuda" and not any(PROVIDERS[p].device == "cuda" for p in found):
        raise XtError(f"No CUDA device. {offered}", "Use --device cpu, or install the gpu extra beside an NVIDIA GPU.")
    fitting = [p for p in found if device in ("auto", PROVIDERS[p].device)]
    fitting = [p for p in fitting if precision is None or precision in PROVIDERS[p].precisions]
    if not fitting:
        raise XtError(f"No execution provider runs {precision} on {device}. {offered}", "Export another --precision.")
    gpus = [p for p in fitting if PROVIDERS[p].device == "cuda"]
    # CUDA before TensorRT: TensorRT builds an engine for minutes at the first load, so it has to be asked for.
    return "cuda" if "cuda" in gpus else (gpus or fitting)[0]


def open_session(file: Path, provider: str, precision: str | None, threads: int, streams: int = 1) -> Any:
    """Open a graph as it is served: by a key of `PROVIDERS`, with options that no vector's batch mates change.

    Args:
        file: the graph.
        provider: a key of `PROVIDERS`.
        precision: what the graph was written as.
        threads: CPU threads.
        streams: passes at once, on OpenVINO, each with its share of the threads.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # A core that spins is a core that others wait for.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if provider == "openvino":  # it fuses by itself, and knows the unfused operators alone
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return open_graph(file, provider, options, _settings(provider, file, precision, threads, streams))


def open_graph(file: Path, provider: str, options: Any, settings: Mapping[str, str]) -> Any:
    """Open a graph by one provider and no other; the libraries of a GPU's provider are loaded before.

    Raises XtError when the provider or the file cannot be loaded. ONNX Runtime by itself would run on the CPU then.
    """
    import onnxruntime as ort

    row = PROVIDERS[provider]
    problems = gpu_libraries.prepare(provider) if row.device == "cuda" else []
    found = f" Libraries: {'; '.join(problems)}." if problems else ""
    hint = (
        "Install the gpu extra in a fresh environment; CUDA 13 needs a driver of 580 or newer (see `xt doctor`)."
        if row.device == "cuda"
        else "The file is damaged: export again."
    )
    try:
        session = ort.InferenceSession(str(file), options, providers=[(row.name, dict(settings))])
    except Exception as error:  # ONNX Runtime's errors share no base class but Exception
        raise XtError(f"ONNX Runtime cannot load {file} by {row.name}: {error}{found}", hint) from error
    if session.get_providers()[0] != row.name:
        raise XtError(
            f"ONNX Runtime could not load {row.name} for {file}: it would run on {session.get_providers()[0]}.{found}",
            f"{hint} Or export for another --provider.",
        )
    return session


class OnnxEngine:
    """Runs a graph (input_ids, attention_mask[, token_type_ids]) -> sentence_embedding.

    On OpenVINO with several cores it has two ways to run, of one and the same vectors: `forward` has all cores for one
    micro-batch, which answers a lone text soonest; `forward_single_thread` has one core, for `workers` concurrent
    micro-batches, which together run more tokens a second, since no core waits for another at the end of every matrix
    product.
    """

    workers = 1
    """Passes at once, by `forward_single_thread`, that give the most tokens a second."""
    allows_extra_pass = False
    """Whether one more pass, by `forward`, may run while `workers` are under way, and does not wait for one to end."""

    def __init__(
        self,
        file: Path,
        *,
        device: str = "auto",
        provider: str = "auto",
        precision: str | None = None,
        threads: int = 0,
    ) -> None:
        """Load a graph.

        Args:
            file: the graph.
            device: `auto`, `cpu` or `cuda`; matters where the provider is not named.
            provider: see `choose_provider`.
            precision: what the graph was written as; `bf16` is an fp32 graph that OpenVINO computes in bf16.
            threads: CPU threads (0: as many as there are cores for this process).
        """
        require("onnxruntime", extra="cpu", purpose="Running an ONNX graph")
        self.provider = choose_provider(provider, device=device, precision=precision)
        row = PROVIDERS[self.provider]
        self.token_budget, self.buckets = row.token_budget, row.buckets
        threads = threads or usable_cores()
        if self.provider == "openvino":
            self.workers = min(threads, MOST_WORKERS)
        # One session of OpenVINO runs its passes one after the other; a GPU has nothing to spare beside a full pass.
        self.allows_extra_pass = self.workers > 1 if self.provider == "openvino" else self.provider == "cpu"
        self.session = open_session(file, self.provider, precision, threads)
        self._lock = threading.Lock()
        self._single: Any = None
        self._open_single = lambda: open_session(file, self.provider, precision, threads, self.workers)
        self.inputs = [i.name for i in self.session.get_inputs()]
        if OUTPUT not in [o.name for o in self.session.get_outputs()]:
            raise XtError(f"{file} has no output {OUTPUT!r}.", "Export it with `xt export`.")

    def forward(self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]) -> Vectors:
        """See `xt.core.encoder.text.Engine.forward`."""
        return self._run(self.session, input_ids, attention_mask)

    def forward_single_thread(self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]) -> Vectors:
        """Return what `forward` does, on one core; up to `workers` threads may call it concurrently."""
        if self.workers == 1:
            return self.forward(input_ids, attention_mask)
        with self._lock:
            if self._single is None:
                self._single = self._open_single()
        return self._run(self._single, input_ids, attention_mask)

    def _run(self, session: Any, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]) -> Vectors:
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "token_type_ids" in self.inputs:
            feeds["token_type_ids"] = np.zeros_like(input_ids)
        if PROVIDERS[self.provider].device == "cuda":
            return self._forward_bound(feeds)
        (vectors,) = session.run([OUTPUT], feeds)
        return np.asarray(vectors, np.float32)

    def _forward_bound(self, feeds: Mapping[str, npt.NDArray[np.int64]]) -> Vectors:
        """Run with inputs and outputs bound, so that only ids go to the GPU and only vectors come back."""
        binding = self.session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        binding.bind_output(OUTPUT)
        self.session.run_with_iobinding(binding)
        return np.asarray(binding.copy_outputs_to_cpu()[0], np.float32)


def _settings(provider: str, file: Path, precision: str | None, threads: int, streams: int = 1) -> dict[str, str]:
    """Return the provider's options. All of them keep a vector independent of its batch."""
    if provider == "openvino":
        # f32 for what is not int8: with bf16 there, int8 was no faster and a padded text's vector moved further.
        hint = "bf16" if precision == "bf16" else "f32"
        config = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": str(threads),
            "NUM_STREAMS": str(streams),
            "ENABLE_CPU_PINNING": "NO",  # two servers on one machine would pin themselves to the same cores
            "CPU_RUNTIME_CACHE_CAPACITY": "100000",  # kernels of every shape stay compiled
        }
        if precision == "int8":
            config["SNIPPETS_MODE"] = "DISABLE"  # attention in one kernel was slower than as products and softmax
        return {"device_type": "CPU", "num_streams": str(streams), "load_config": json.dumps({"CPU": config})}
    if provider == "tensorrt":
        engines = file.parent / "tensorrt"
        return {
            "trt_fp16_enable": "1" if precision == "fp16" else "0",
            "trt_layer_norm_fp32_fallback": "1",
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(engines),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(engines),
            "trt_profile_min_shapes": "input_ids:1x8,attention_mask:1x8",
            "trt_profile_opt_shapes": "input_ids:32x64,attention_mask:32x64",
            "trt_profile_max_shapes": "input_ids:2048x512,attention_mask:2048x512",
        }
    if provider == "cuda":
        return {"arena_extend_strategy": "kSameAsRequested", "use_tf32": "0"}
    return {}


def load_model(
    path: Path, *, device: str = "auto", provider: str | None = None, threads: int = 0
) -> tuple[TextEncoder, Artifact]:
    """Load an exported model folder (`<repository>/<name>`), every file checked, as a text encoder.

    It runs by the provider that it was parity-tested with at export, unless another is named.
    """
    artifact = open_artifact(path, kind="model")
    facts = artifact.facts
    spec = EncoderSpec.from_json(facts["encoder"])
    tokenizer = TextTokenizer(path / facts["tokenizer"], spec.max_length)
    engine = OnnxEngine(
        path / facts["graph"],
        device=device,
        provider=provider or facts.get("provider", "auto"),
        precision=facts["precision"],
        threads=threads,
    )
    return TextEncoder(spec, tokenizer, engine, pad_id=facts["pad_id"]), artifact


def check_golden(encoder: TextEncoder, path: Path, artifact: Artifact) -> float:
    """Encode the golden texts and give the smallest cosine to the vectors written at export.

    Those of earlier releases are tokenised as they were then, in the form in which they are written.
    Raises XtError when it is below the model's own tolerance.
    """
    golden = read_json(path / artifact.facts["golden"])
    expected = np.asarray(golden["vectors"], np.float32)
    if not golden.get("composed"):
        tokenizer = encoder.tokenizer.as_written()
        encoder = TextEncoder(encoder.spec, tokenizer, encoder.engine, pad_id=encoder.pad_id)
    found = encoder.encode(golden["texts"]).vectors
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    worst = float(((expected * found).sum(1) / norms).min())
    if not worst >= golden["cosine_min"]:
        raise XtError(
            f"{path} gives other vectors than at export: cosine {worst:.6f}, expected at least {golden['cosine_min']}.",
            "The machine or a library changed its numerics; export again here and compare.",
        )
    return worst
