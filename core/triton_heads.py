"""Trained heads behind a Triton server: what its classifiers answer, over gRPC."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from xt.core.errors import XtError, require, unknown
from xt.core.onnx_heads import CLASSIFIER
from xt.core.server_state import KEY_VARIABLE, admin_headers

IN_FLIGHT = 2
"""Requests under way at once: the server tokenises one while it computes another."""
REQUEST_TEXTS = 64
REQUEST_CHARACTERS = 8000
"""A request holds at most so much, one text at least: small ones, which a server has room for."""
RETRIES = 8
LONGEST_PAUSE_SECONDS = 2.0


@dataclass(frozen=True)
class ServedHead:
    """One model of a server that answers for a task."""

    name: str
    facts: dict[str, Any]
    """As `xt export --task` wrote them: task, temperature, encoder, precision, checkpoint."""
    most: int
    """Inputs of one request at most."""


class TritonHeads:
    """The classifiers of one server; sends again what the server had no room for, and nothing else."""

    def __init__(self, url: str, model: str | None = None, *, timeout_seconds: float = 120.0) -> None:
        """Connect to the gRPC endpoint `url` (HOST:PORT) and read what the server says of its heads.

        Without `model` they are all that the server has loaded; where their list is behind an admin key that is not
        known (`xt.core.server_state`), the one called `classifier`.

        Raises XtError when nothing answers, for an unknown model, and when there is no head.
        """
        require("tritonclient", extra="serve", purpose="Asking a Triton server")
        import tritonclient.grpc as grpc

        host, _, port = url.rpartition(":")
        if not host or not port.isdigit():
            raise XtError(f"{url!r} is no address.", "Expected HOST:PORT of the gRPC endpoint, e.g. 127.0.0.1:8001.")
        self._grpc, self.url, self.timeout_seconds = grpc, url, timeout_seconds
        self._caller = secrets.token_hex(8)
        self.client = grpc.InferenceServerClient(url)
        try:
            if not self.client.is_server_ready(client_timeout=10):
                raise XtError(f"The server at {url} is not ready.", "Wait for its models to load, or read its log.")
            names = self._loaded()
            if model is not None and names is not None and model not in names:
                raise unknown("model", model, names)
            asked = [model] if model is not None else [CLASSIFIER] if names is None else names
            found = [self._describe(name) for name in asked]
        except grpc.InferenceServerException as error:
            raise self._explain(error, model or CLASSIFIER) from error
        self.heads: dict[str, ServedHead] = {head.name: head for head in found if head is not None}
        if not self.heads:
            raise XtError(
                f"The server at {url} has no trained heads (it holds {', '.join(asked) or 'no model'}).",
                "Export one with `xt export --task TASK`, or choose it by --model.",
            )

    def _loaded(self) -> list[str] | None:
        """Name the models that are ready; None where the list is behind a key that is not known."""
        headers = admin_headers(self.url)
        try:
            index = self.client.get_model_repository_index(headers=headers, as_json=True, client_timeout=10)
        except self._grpc.InferenceServerException as error:
            if "restricted" in str(error.message()):
                return None
            raise
        return sorted({m["name"] for m in index.get("models", []) if m.get("state", "READY") == "READY"})

    def _describe(self, name: str) -> ServedHead | None:
        config = self.client.get_model_config(name, as_json=True, client_timeout=10)["config"]
        if "xt" not in config.get("parameters", {}):
            return None
        facts = json.loads(config["parameters"]["xt"]["string_value"])
        return ServedHead(name, facts, int(config["max_batch_size"])) if facts.get("serves") == CLASSIFIER else None

    def _explain(self, error: Exception, model: str) -> XtError:
        status = str(getattr(error, "status", lambda: "")() or "")
        message = str(getattr(error, "message", lambda: error)() or error)
        if "UNAVAILABLE" in status and any(word in message for word in ("connect", "Socket", "resolv")):
            return XtError(f"No server answers at {self.url}.", "Start one with `xt serve REPO`, or check --url.")
        if "unknown model" in message:
            return XtError(
                f"The server at {self.url} has no model {model!r} that can be seen.",
                f"Choose by --model, or give the key of its list by {KEY_VARIABLE}.",
            )
        if "parameter 'details'" in message or 'parameter "details"' in message:
            return XtError(
                f"The model {model!r} at {self.url} cannot give the logits of its answers: an older xt exported it.",
                "Export it again.",
            )
        return XtError(f"The server at {self.url} answered {status}: {message}")

    def answers(
        self, head: ServedHead, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Ask about texts, each with its second text where the head reads two: answers as `Reply.told` gives them.

        They hold `logits`; what is too long is cut, and `truncated` says so.
        """
        sizes = [len(text) + (len(pairs[i]) if pairs is not None else 0) for i, text in enumerate(texts)]
        requests: list[list[int]] = []
        characters = 0
        for index in sorted(range(len(texts)), key=lambda i: sizes[i]):  # of like lengths: the server then pads little
            most = min(head.most, REQUEST_TEXTS)
            if not requests or len(requests[-1]) == most or characters + sizes[index] > REQUEST_CHARACTERS:
                requests.append([])
                characters = 0
            requests[-1].append(index)
            characters += sizes[index]
        found: list[dict[str, Any]] = [{}] * len(texts)
        for chunk, result in zip(requests, self._results(head, requests, texts, pairs), strict=True):
            cut = result.as_numpy("truncated")[:, 0].tolist()
            for index, row, was_cut in zip(chunk, result.as_numpy("answer")[:, 0], cut, strict=True):
                found[index] = {**json.loads(row), "truncated": was_cut}
        return found

    def _results(
        self, head: ServedHead, requests: Sequence[Sequence[int]], texts: Sequence[str], pairs: Sequence[str] | None
    ) -> Iterator[Any]:
        def send(chunk: Sequence[int]) -> Any:
            inputs = [self._strings("text", [texts[i] for i in chunk])]
            if pairs is not None:
                inputs.append(self._strings("text_pair", [pairs[i] for i in chunk]))
            return self._infer(head.name, inputs)

        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            yield from pool.map(send, requests)

    def _strings(self, name: str, values: Sequence[str]) -> Any:
        data = np.array([[value.encode("utf-8")] for value in values], dtype=np.object_)
        tensor = self._grpc.InferInput(name, list(data.shape), "BYTES")
        tensor.set_data_from_numpy(data)
        return tensor

    def _infer(self, model: str, inputs: list[Any]) -> Any:
        outputs = [self._grpc.InferRequestedOutput(name) for name in ("answer", "truncated")]
        parameters = {"truncate": True, "details": True, "caller": self._caller}
        for attempt in range(RETRIES + 1):
            try:
                return self.client.infer(
                    model, inputs, outputs=outputs, parameters=parameters, client_timeout=self.timeout_seconds
                )
            except self._grpc.InferenceServerException as error:
                if attempt == RETRIES or "UNAVAILABLE" not in str(error.status()):
                    raise self._explain(error, model) from error
                time.sleep(min(LONGEST_PAUSE_SECONDS, 0.2 * 2**attempt))
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close the connection."""
        self.client.close()
