"""The encoder behind a Triton server: the same `encode` as in process, over gRPC."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from xt.core.errors import XtError, unknown
from xt.core.packed import pack
from xt.core.server_state import KEY_VARIABLE, admin_headers
from xt.core.spec import EncoderSpec
from xt.core.text import Encoded, check_text

IN_FLIGHT = 2
"""Requests under way at once: the server tokenises one while it computes another."""
RETRIES = 3
OUTPUTS = ("embedding", "tokens", "truncated")


class TritonEncoder:
    """Encodes texts by a served model; retries what the server had no room for, and nothing else."""

    def __init__(self, url: str, model: str | None = None, *, timeout_seconds: float = 120.0) -> None:
        """Connect to the gRPC endpoint `url` (HOST:PORT) and read what the server says of the model.

        Without `model` the server must hold exactly one encoder. The list of models is behind the server's admin key
        (`xt.core.server_state`); where the key is not known, the model is the one called `encoder`.
        """
        import tritonclient.grpc as grpc

        self._grpc = grpc
        self.url = url
        self.timeout_seconds = timeout_seconds
        self._caller = secrets.token_hex(8)
        host, _, port = url.rpartition(":")
        if not host or not port.isdigit():
            raise XtError(f"{url!r} is no address.", "Expected HOST:PORT of the gRPC endpoint, e.g. 127.0.0.1:8001.")
        try:
            self.client = grpc.InferenceServerClient(url)
            if not self.client.is_server_ready(client_timeout=10):
                raise XtError(f"The server at {url} is not ready.", "Wait for its models to load, or read its log.")
            self.model = model or self._only_model()
            config = self.client.get_model_config(self.model, as_json=True, client_timeout=10)["config"]
        except grpc.InferenceServerException as error:
            raise self._explain(error) from error
        if "xt" not in config.get("parameters", {}):
            raise XtError(f"The model {self.model!r} at {url} was not made by xt.", "Serve one that `xt export` wrote.")
        self.facts: dict[str, Any] = json.loads(config["parameters"]["xt"]["string_value"])
        self.spec = EncoderSpec.from_json(self.facts["encoder"])
        self.max_texts = int(config["max_batch_size"])

    def _loaded(self) -> list[str] | None:
        """Name the models that are ready; None where the list is behind a key that is not known."""
        try:
            index = self.client.get_model_repository_index(
                headers=admin_headers(self.url), as_json=True, client_timeout=10
            )
        except self._grpc.InferenceServerException as error:
            if "restricted" in str(error.message()):
                return None
            raise
        return sorted({m["name"] for m in index.get("models", []) if m.get("state", "READY") == "READY"})

    def _only_model(self) -> str:
        names = self._loaded()
        if names is None:
            if self.client.is_model_ready("encoder", client_timeout=10):
                return "encoder"
            raise XtError(
                f"The server at {self.url} has no model 'encoder', and its list of models is behind its admin key.",
                f"Choose by --model, or give the key by {KEY_VARIABLE}.",
            )
        encoders = [name for name in names if self._gives_vectors(name)]
        if len(encoders) != 1:
            raise XtError(f"The server at {self.url} holds {', '.join(names) or 'no model'}.", "Choose by --model.")
        return encoders[0]

    def _gives_vectors(self, model: str) -> bool:
        config = self.client.get_model_config(model, as_json=True, client_timeout=10)["config"]
        return any(output["name"] == "embedding" for output in config.get("output", []))

    def _explain(self, error: Exception) -> XtError:
        status = str(getattr(error, "status", lambda: "")() or "")
        message = str(getattr(error, "message", lambda: error)() or error)
        if "UNAVAILABLE" in status and any(w in message for w in ("connect", "Socket", "resolv")):
            return XtError(f"No server answers at {self.url}.", "Start one with `xt serve REPO`, or check --url.")
        if "unknown model" in message:
            return unknown("model", getattr(self, "model", None) or message, self._loaded() or [])
        return XtError(f"The server at {self.url} answered {status}: {message}")

    def encode(self, texts: Sequence[str], *, prefix: str | None = None, truncate: bool = False) -> Encoded:
        """Encode `texts` (see `xt.core.text.TextEncoder.encode`), in requests of as many as the model takes."""
        for index, text in enumerate(texts):
            check_text(text, f"text {index}")
        parameters: dict[str, Any] = {"truncate": truncate} if truncate else {}
        if prefix is not None:
            parameters["prefix"] = prefix
        # Requests of like lengths: the server then pads little, whatever it batches together.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        chunks = [order[i : i + self.max_texts] for i in range(0, len(order), self.max_texts)]
        vectors = np.empty((len(texts), self.spec.dim), np.float32)
        tokens = np.empty(len(texts), np.int32)
        cut = np.empty(len(texts), bool)
        for chunk, result in zip(chunks, self._answers(chunks, texts, parameters), strict=True):
            vectors[chunk] = result.as_numpy("embedding")
            tokens[chunk] = result.as_numpy("tokens")[:, 0]
            cut[chunk] = result.as_numpy("truncated")[:, 0]
        return Encoded(vectors, tokens, cut)

    def _answers(
        self, chunks: Sequence[Sequence[int]], texts: Sequence[str], parameters: dict[str, Any]
    ) -> Iterator[Any]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            yield from pool.map(lambda chunk: self.infer([texts[i] for i in chunk], parameters), chunks)

    def infer(self, texts: Sequence[str], parameters: dict[str, Any] | None = None) -> Any:
        """Send one request; an UNAVAILABLE answer (full queue) is tried again a few times, with growing pauses.

        The texts travel as one packed blob; outputs are embedding (n, dim), tokens (n, 1) and truncated (n, 1).
        """
        data = pack(texts)[None]
        tensor = self._grpc.InferInput("packed", list(data.shape), "UINT8")
        tensor.set_data_from_numpy(data)
        outputs = [self._grpc.InferRequestedOutput(name) for name in OUTPUTS]
        for attempt in range(RETRIES + 1):
            try:
                return self.client.infer(
                    self.model,
                    [tensor],
                    outputs=outputs,
                    parameters={**(parameters or {}), "caller": self._caller},
                    client_timeout=self.timeout_seconds,
                )
            except self._grpc.InferenceServerException as error:
                if attempt == RETRIES or "UNAVAILABLE" not in str(error.status()):
                    raise self._explain(error) from error
                time.sleep(0.2 * 2**attempt)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close the connection."""
        self.client.close()
