"""Trained heads behind a Triton server: what its classifiers answer, over gRPC."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from xt.core.arguments import as_list
from xt.core.errors import XtError, unknown
from xt.core.heads.onnx_heads import CLASSIFIER
from xt.serve.client.connection import Connection, Tls, check_model, connect_seconds, named_models, request_seconds
from xt.serve.client.errors import InvalidRequest, Patience, Tries, UnknownModel
from xt.serve.triton.server_state import KEY_VARIABLE

IN_FLIGHT = 2
"""Requests under way at once: the server tokenises one while it computes another."""
REQUEST_TEXTS = 64
REQUEST_CHARACTERS = 8000
"""A request holds at most so much, one text at least: small ones, which a server has room for."""
TIMEOUT_SECONDS = 600.0
"""Of one request: an evaluation of hours outlives a server that is started again."""


@dataclass(frozen=True)
class ServedHead:
    """One model of a server that answers for a task."""

    name: str
    facts: dict[str, Any]
    """As `xt export --task` wrote them: task, temperature, encoder, precision, checkpoint."""
    most: int
    """Inputs of one request at most."""


class TritonHeads:
    """The classifiers of one server; sends again what it had no room for, and what a lost server left."""

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        timeout_seconds: float | None = None,
        wait_seconds: float | None = None,
        tls: Tls | None = None,
        admin_key: str | None = None,
    ) -> None:
        """Connect to the gRPC endpoint `url` (HOST:PORT) and read what the server says of its heads.

        Without `model` they are all that the server has loaded; where their list is behind an admin key that is not
        known (`xt.serve.triton.server_state`), the one called `classifier`.

        The other arguments are those of `xt.serve.client.encoder.TritonEncoder`.

        Raises XtError when nothing answers, for an unknown model, and when there is no head.
        """
        patience = Patience(connect_seconds(wait_seconds, timeout_seconds))
        self.timeout_seconds = request_seconds(timeout_seconds, TIMEOUT_SECONDS)
        check_model(model)
        self._connection = Connection(url, tls=tls, admin_key=admin_key)
        self.url = url
        self.client = self._connection.client
        try:
            tries = Tries(patience)
            names = named_models(self._connection, tries)
            if model is not None and names is not None and model not in names:
                raise unknown("model", model, names)
            asked = [model] if model is not None else [CLASSIFIER] if names is None else names
            found = [self._describe(name, tries) for name in asked]
        except BaseException:
            self.close()
            raise
        self.heads: dict[str, ServedHead] = {head.name: head for head in found if head is not None}
        if not self.heads:
            self.close()
            raise XtError(
                f"The server at {url} has no trained heads (it holds {', '.join(asked) or 'no model'}).",
                "Export one with `xt export --task TASK`, or choose it by --model.",
            )

    def _describe(self, name: str, tries: Tries) -> ServedHead | None:
        try:
            config = self._connection.config(name, tries)
        except UnknownModel:
            raise UnknownModel(
                f"The server at {self.url} has no model {name!r} that can be seen.",
                f"Choose by --model, or give the key of its list by {KEY_VARIABLE}.",
            ) from None
        if "xt" not in config.get("parameters", {}):
            return None
        facts = json.loads(config["parameters"]["xt"]["string_value"])
        return ServedHead(name, facts, int(config["max_batch_size"])) if facts.get("serves") == CLASSIFIER else None

    def answers(
        self, head: ServedHead, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Ask about texts, each with its second text where the head reads two: answers as `Reply.told` gives them.

        They hold `logits`; what is too long is cut, and `truncated` says so.
        """
        texts = as_list(texts, "texts")
        pairs = None if pairs is None else as_list(pairs, "pairs")
        if pairs is not None and len(pairs) != len(texts):
            raise XtError(f"There are {len(texts)} texts and {len(pairs)} pairs.", "Give one each.")
        for name, values in (("text", texts), ("text_pair", pairs or [])):
            for index, text in enumerate(values):
                if not isinstance(text, str):  # an empty second text is the server's to judge: it depends on the format
                    raise XtError(f"{name} {index} is {type(text).__name__}, expected text.")
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
            return self._infer(head.name, inputs, chunk)

        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            yield from pool.map(send, requests)

    def _strings(self, name: str, values: Sequence[str]) -> Any:
        data = np.array([[value.encode("utf-8")] for value in values], dtype=np.object_)
        tensor = self._connection.grpc.InferInput(name, list(data.shape), "BYTES")
        tensor.set_data_from_numpy(data)
        return tensor

    def _infer(self, model: str, inputs: list[Any], rows: Sequence[int]) -> Any:
        outputs = [self._connection.grpc.InferRequestedOutput(name) for name in ("answer", "truncated")]
        parameters = {"truncate": True, "details": True}
        patience = Patience(self.timeout_seconds)
        try:
            return self._connection.infer(model, inputs, outputs, parameters, patience, rows=rows)
        except InvalidRequest as error:
            if "parameter 'details'" not in error.message and 'parameter "details"' not in error.message:
                raise
            raise XtError(
                f"The model {model!r} at {self.url} cannot give the logits of its answers: an older xt exported it.",
                "Export it again.",
            ) from error

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
