"""The encoder behind a Triton server: the same `encode` as in process, over gRPC."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from xt.core.arguments import as_name, flag
from xt.core.encoder.spec import EncoderSpec
from xt.core.encoder.text import Encoded, as_texts
from xt.core.errors import XtError, unknown
from xt.serve.client.connection import Connection, Tls, check_model, connect_seconds, named_models, request_seconds
from xt.serve.client.errors import Patience, Tries, UnknownModel
from xt.serve.client.packed import pack
from xt.serve.triton.server_state import KEY_VARIABLE

IN_FLIGHT = 2
"""Requests under way at once: the server tokenises one while it computes another."""
TIMEOUT_SECONDS = 600.0
"""Of one request: an evaluation of hours outlives a server that is started again."""
OUTPUTS = ("embedding", "tokens", "truncated")


class TritonEncoder:
    """Encodes texts by a served model; sends again what the server had no room for, and what a lost server left."""

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
        """Connect to the gRPC endpoint `url` (HOST:PORT) and read what the server says of the model.

        Without `model` the server must hold exactly one encoder. The list of models is behind the server's admin key
        (`xt.serve.triton.server_state`); where the key is not known, the model is the one called `encoder`.

        Args:
            url: HOST:PORT.
            model: its name.
            timeout_seconds: of each request, while the server is full, lost or restarting too; None: 600.
            wait_seconds: how long a server that does not answer yet is waited for here; None: `timeout_seconds` where
                that is given, else 5.
            tls: the files of an encrypted connection; None: not encrypted.
            admin_key: of the server; None: XT_ADMIN_KEY, or what this machine's server noted for this user.

        Raises:
            Unreachable: nothing answers at `url`.
            XtError: an unknown model, one that gives no vectors, or several to choose from.
        """
        patience = Patience(connect_seconds(wait_seconds, timeout_seconds))
        self.timeout_seconds = request_seconds(timeout_seconds, TIMEOUT_SECONDS)
        check_model(model)
        self._connection = Connection(url, tls=tls, admin_key=admin_key)
        self.url = url
        self.client = self._connection.client
        try:
            tries = Tries(patience)
            self.model = model or self._only_model(tries)
            config = self._config(self.model, tries)
        except BaseException:
            self.close()
            raise
        if "xt" not in config.get("parameters", {}):
            self.close()
            raise XtError(f"The model {self.model!r} at {url} was not made by xt.", "Serve one that `xt export` wrote.")
        self.facts: dict[str, Any] = json.loads(config["parameters"]["xt"]["string_value"])
        self.spec = EncoderSpec.from_json(self.facts["encoder"])
        self.max_texts = int(config["max_batch_size"])

    def _config(self, model: str, tries: Tries) -> dict[str, Any]:
        try:
            return self._connection.config(model, tries)
        except UnknownModel:
            raise unknown("model", model, named_models(self._connection, tries) or []) from None

    def _only_model(self, tries: Tries) -> str:
        names = named_models(self._connection, tries)
        if names is None:
            try:
                self._connection.config("encoder", tries)
            except UnknownModel:
                raise XtError(
                    f"The server at {self.url} has no model 'encoder', and its list of models is behind its admin key.",
                    f"Choose by --model, or give the key by {KEY_VARIABLE}.",
                ) from None
            return "encoder"
        encoders = [name for name in names if self._gives_vectors(name, tries)]
        if len(encoders) != 1:
            raise XtError(f"The server at {self.url} holds {', '.join(names) or 'no model'}.", "Choose by --model.")
        return encoders[0]

    def _gives_vectors(self, model: str, tries: Tries) -> bool:
        config = self._connection.config(model, tries)
        return any(output["name"] == "embedding" for output in config.get("output", []))

    def encode(self, texts: Sequence[str], *, prefix: str | None = None, truncate: bool = False) -> Encoded:
        """Encode `texts` (see `xt.core.encoder.text.TextEncoder.encode`), in requests of as many as the model takes."""
        rows = as_texts(texts)
        parameters: dict[str, Any] = {"truncate": True} if flag(truncate, "truncate") else {}
        if prefix is not None:
            parameters["prefix"] = as_name(prefix, "prefix")
        # Requests of like lengths: the server then pads little, whatever it batches together.
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        chunks = [order[i : i + self.max_texts] for i in range(0, len(order), self.max_texts)]
        vectors = np.empty((len(rows), self.spec.dim), np.float32)
        tokens = np.empty(len(rows), np.int32)
        cut = np.empty(len(rows), bool)
        for chunk, result in zip(chunks, self._answers(chunks, rows, parameters), strict=True):
            vectors[chunk] = result.as_numpy("embedding")
            tokens[chunk] = result.as_numpy("tokens")[:, 0]
            cut[chunk] = result.as_numpy("truncated")[:, 0]
        return Encoded(vectors, tokens, cut)

    def _answers(
        self, chunks: Sequence[Sequence[int]], texts: Sequence[str], parameters: dict[str, Any]
    ) -> Iterator[Any]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            yield from pool.map(lambda chunk: self.infer([texts[i] for i in chunk], parameters, chunk), chunks)

    def infer(
        self, texts: Sequence[str], parameters: dict[str, Any] | None = None, rows: Sequence[int] | None = None
    ) -> Any:
        """Send one request until it is answered, refused, or out of time.

        The texts travel as one packed blob; outputs are embedding (n, dim), tokens (n, 1) and truncated (n, 1). `rows`
        are their places in the caller's list, for errors.
        """
        grpc = self._connection.grpc
        data = pack(texts)[None]
        tensor = grpc.InferInput("packed", list(data.shape), "UINT8")
        tensor.set_data_from_numpy(data)
        outputs = [grpc.InferRequestedOutput(name) for name in OUTPUTS]
        patience = Patience(self.timeout_seconds)
        return self._connection.infer(self.model, [tensor], outputs, parameters, patience, rows=rows)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
