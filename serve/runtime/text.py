"""The encoder before a graph that Triton's own ONNX Runtime backend runs: the engine is the model `<name>_graph`.

Inputs, outputs, cache and errors are those of `xt.serve.runtime.encoder`.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xt.core.encoder.onnx_engine import check_golden
from xt.core.encoder.spec import EncoderSpec
from xt.core.encoder.text import TextEncoder, TextTokenizer, Vectors
from xt.core.errors import XtError
from xt.core.files.artifact import Artifact, open_artifact
from xt.serve.runtime.admission import Overloaded
from xt.serve.runtime.cache import VectorCache
from xt.serve.runtime.encoder import Ids, ServedEncoder
from xt.serve.triton.server_state import START_VARIABLE

GRAPH_SECONDS = 900.0
"""How long the graph's model may take to load, at least: TensorRT builds engines for minutes. XT_START_TIMEOUT
may say more: `xt serve --start-timeout` sets it."""
CHECK_SECONDS = 10.0
"""How long a request waits for the golden vectors to be checked."""
PAUSE_SECONDS = 0.1


class GraphEngine:
    """Runs micro-batches by a request inside the server to the model that holds the graph."""

    def __init__(self, pb: Any, native: Mapping[str, Any]) -> None:
        self.pb = pb
        self.model = str(native["graph_model"])
        self.inputs = native["inputs"]
        self.output = native["output"]
        self.widths = native["widths"]
        self.max_rows = native["max_rows"]
        self.token_budget = int(native["token_budget"])

    def forward(self, input_ids: Ids, attention_mask: Ids) -> Vectors:
        """See `xt.core.encoder.text.Engine.forward`."""
        rows, tokens = input_ids.shape
        width = next((w for w in self.widths if w >= tokens), tokens)  # requests of one width join in the graph
        padding = ((0, 0), (0, width - tokens))
        feeds = {"input_ids": np.pad(input_ids, padding), "attention_mask": np.pad(attention_mask, padding)}
        if "token_type_ids" in self.inputs:
            feeds["token_type_ids"] = np.zeros_like(feeds["input_ids"])
        parts = [slice(i, i + self.max_rows) for i in range(0, rows, self.max_rows)]
        return np.concatenate([self._ask({name: feed[part] for name, feed in feeds.items()}) for part in parts])

    def _ask(self, feeds: Mapping[str, Ids]) -> Vectors:
        request = self.pb.InferenceRequest(
            model_name=self.model,
            requested_output_names=[self.output],
            inputs=[self.pb.Tensor(name, feeds[name]) for name in self.inputs],
            preferred_memory=self.pb.PreferredMemory(self.pb.TRITONSERVER_MEMORY_CPU),
        )
        response = request.exec()
        if response.has_error():
            raise RuntimeError(f"{self.model}: {response.error().message()}")
        return np.asarray(self.pb.get_output_tensor_by_name(response, self.output).as_numpy(), np.float32)


def graph_seconds(variable: str) -> float:
    """Return how long the graph is waited for, by the value of XT_START_TIMEOUT: infinity for 0.

    >>> graph_seconds(""), graph_seconds("300"), graph_seconds("1800"), graph_seconds("0")
    (900.0, 900.0, 1800.0, inf)
    """
    try:
        seconds = float(variable or GRAPH_SECONDS)
    except ValueError:
        raise XtError(f"{START_VARIABLE} is {variable!r}, expected seconds, or 0 for no limit.") from None
    return max(seconds, GRAPH_SECONDS) if seconds > 0 else math.inf


class ServedText(ServedEncoder):
    """Loaded once an instance."""

    folder: Path
    artifact: Artifact
    failure: Exception | None
    patience: float
    """Seconds that the graph is waited for."""

    def load(self, folder: Path, version_folder: Path, device: str) -> None:
        """Load the tokenizer, and let the golden vectors be checked as soon as Triton asks this model anything.

        Not before: a model's request to another one ends Triton 2.51 (SIGSEGV) until the model that sends it is loaded,
        as its process is watched before the threads exist that run what it asks for. Nothing tells a model that it is
        loaded but the first question to it. Until the check has ended requests wait; where it fails none is answered.
        """
        self.folder, self.artifact = folder, open_artifact(folder, kind="model")
        facts = self.artifact.facts
        spec = EncoderSpec.from_json(facts["encoder"])
        tokenizer = TextTokenizer(folder / facts["tokenizer"], spec.max_length)
        self.encoder = TextEncoder(spec, tokenizer, GraphEngine(self.pb, facts["native"]), pad_id=facts["pad_id"])
        self.engine_budget = self.encoder.token_budget
        self.speed = 0.0  # not measured: the graph cannot be asked yet
        self.vocabulary = tokenizer.vocabulary
        self.cache = VectorCache(self.settings.cache_megabytes * 1_000_000)
        self.patience = graph_seconds(os.environ.get(START_VARIABLE, ""))
        self.loaded, self.checked, self.closing = threading.Event(), threading.Event(), threading.Event()
        self.failure = None
        threading.Thread(target=self._check, name="xt-golden", daemon=True).start()

    def run(self, rows: list[Ids]) -> Vectors:
        """Run one micro-batch by the graph, once its golden vectors are known to agree."""
        if not self.checked.wait(CHECK_SECONDS):
            raise Overloaded(f"The graph of {self.name} is not ready: {self.failure}.", "Try again later.")
        if self.failure is not None:
            raise self.failure
        return super().run(rows)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """See `ServedModel.execute`. A first request shows that this model is loaded: the check begins."""
        self.loaded.set()
        return super().execute(requests)

    def is_ready(self) -> bool:
        """Tell Triton whether the golden vectors agreed. Releases that do not ask take a loaded model for ready."""
        self.loaded.set()
        return self.checked.is_set() and self.failure is None

    def close(self) -> None:
        """End the check if it still waits."""
        self.closing.set()
        self.loaded.set()
        super().close()

    def _check(self) -> None:
        """Wait for the graph, then compare with the golden vectors, once."""
        self.loaded.wait()
        deadline = time.monotonic() + self.patience
        while not self.closing.is_set():
            try:
                worst = check_golden(self.encoder, self.folder, self.artifact)
                self.pb.Logger.log_info(f"{self.name}: golden vectors agree (cosine at least {worst:.6f})")
                self.failure = None
                break
            except XtError as error:  # other vectors than at export: this does not go away
                self.failure = error
                self.pb.Logger.log_error(f"{self.name}: {error}")
                break
            except Exception as error:  # the server or the graph is not up yet
                self.failure = error
                if time.monotonic() > deadline:
                    self.pb.Logger.log_error(f"{self.name}: {error}")
                    break
                self.closing.wait(PAUSE_SECONDS)
        self.checked.set()
