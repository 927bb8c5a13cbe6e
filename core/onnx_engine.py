"""The network as an ONNX graph that pools and normalises by itself, run by ONNX Runtime."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xt.core.artifact import Artifact, open_artifact
from xt.core.errors import XtError, require
from xt.core.spec import EncoderSpec
from xt.core.text import TextEncoder, TextTokenizer, Vectors

DEVICES = ("auto", "cpu", "cuda")
OUTPUT = "sentence_embedding"


def providers(device: str) -> list[str]:
    """Give ONNX Runtime's execution providers for a device; `auto` takes the GPU where one is to be had."""
    import onnxruntime as ort

    gpu = "CUDAExecutionProvider" in ort.get_available_providers() and os.path.exists("/dev/nvidiactl")
    if device == "cuda" and not gpu:
        raise XtError(
            f"No CUDA device for ONNX Runtime {ort.__version__} (offered: {', '.join(ort.get_available_providers())}).",
            "Use --device cpu, or install the gpu extra on a machine with an NVIDIA GPU.",
        )
    if device not in DEVICES:
        raise XtError(f"Unknown device {device!r}.", f"Known: {', '.join(DEVICES)}.")
    return ["CUDAExecutionProvider"] if gpu and device != "cpu" else ["CPUExecutionProvider"]


class OnnxEngine:
    """Runs a graph (input_ids, attention_mask[, token_type_ids]) -> sentence_embedding."""

    def __init__(self, file: Path, *, device: str = "auto", threads: int = 0) -> None:
        require("onnxruntime", extra="cpu", purpose="Running an ONNX graph")
        import onnxruntime as ort

        wanted = providers(device)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        options.log_severity_level = 3
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0"
        )  # a core that spins is a core that others wait for
        try:
            self.session = ort.InferenceSession(str(file), options, providers=wanted)
        except Exception as error:  # ONNX Runtime's errors share no base class but Exception
            raise XtError(f"ONNX Runtime cannot load {file}: {error}", "The file is damaged: export again.") from error
        if self.session.get_providers()[0] != wanted[0]:
            raise XtError(
                f"ONNX Runtime did not take {wanted[0]}; it runs on {self.session.get_providers()[0]}.",
                "Check the CUDA libraries (`xt doctor`), or use --device cpu.",
            )
        self.inputs = [i.name for i in self.session.get_inputs()]
        if OUTPUT not in [o.name for o in self.session.get_outputs()]:
            raise XtError(f"{file} has no output {OUTPUT!r}.", "Export it with `xt export`.")

    def forward(self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]) -> Vectors:
        """See `xt.core.text.Engine.forward`."""
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "token_type_ids" in self.inputs:
            feeds["token_type_ids"] = np.zeros_like(input_ids)
        (vectors,) = self.session.run([OUTPUT], feeds)
        return np.asarray(vectors, np.float32)


def load_model(path: Path, *, device: str = "auto", threads: int = 0) -> tuple[TextEncoder, Artifact]:
    """Load an exported model folder (`<repository>/<name>`), every file checked, as a text encoder."""
    artifact = open_artifact(path, kind="model")
    facts = artifact.facts
    spec = EncoderSpec.from_json(facts["encoder"])
    tokenizer = TextTokenizer(path / facts["tokenizer"], spec.max_length)
    engine = OnnxEngine(path / facts["graph"], device=device, threads=threads)
    return TextEncoder(spec, tokenizer, engine, pad_id=facts["pad_id"]), artifact


def check_golden(encoder: TextEncoder, path: Path, artifact: Artifact) -> float:
    """Encode the golden texts and give the smallest cosine to the vectors written at export.

    Raises XtError when it is below the model's own tolerance.
    """
    golden = json.loads((path / artifact.facts["golden"]).read_text(encoding="utf-8"))
    expected = np.asarray(golden["vectors"], np.float32)
    found = encoder.encode(golden["texts"]).vectors
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    worst = float(((expected * found).sum(1) / norms).min())
    if not worst >= golden["cosine_min"]:
        raise XtError(
            f"{path} gives other vectors than at export: cosine {worst:.6f}, expected at least {golden['cosine_min']}.",
            "The machine or a library changed its numerics; export again here and compare.",
        )
    return worst
