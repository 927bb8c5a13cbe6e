"""Endpoints of the load generator: Triton over HTTP or gRPC, and OpenAI-style embeddings over HTTP.

The client shares the machine with what it measures, so it does as little as it can: one process, bytes built before
the clock starts, HTTP written by hand on keep-alive sockets, and of an answer only what is counted.
"""

from __future__ import annotations

import asyncio
import json
import re
import struct
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from xt.bench.load import Answer, Link
from xt.core.errors import XtError, unknown
from xt.serve.client.connection import Tls, channel_options
from xt.serve.client.packed import pack

Input = Literal["text", "ids", "packed"]
INPUTS = ("text", "ids", "packed")
OUTPUTS = ("embedding", "tokens", "truncated")
CONNECT_SECONDS = 10.0
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_HEADER_LENGTH = re.compile(rb"\r\ninference-header-content-length:\s*(\d+)", re.IGNORECASE)
Ids = Sequence[npt.NDArray[np.int64]]


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT as host and port; XtError for anything else."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise XtError(f"{address!r} is no address.", "Expected HOST:PORT, e.g. 127.0.0.1:8000.")
    return host, int(port)


class HttpLink(asyncio.Protocol):
    """A keep-alive connection that has one request under way at most."""

    def __init__(self, endpoint: HttpEndpoint) -> None:
        self._endpoint = endpoint
        self._buffer = bytearray()
        self._expected = -1
        self._head = b""
        self._waiter: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`; a request that was under way has failed."""
        self._transport = None
        self._finish(Answer("error", note=f"the connection was closed{f': {error}' if error else ''}"))

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._buffer += data
        if self._expected < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = bytes(self._buffer[: end + 2])
            length = _LENGTH.search(self._head)
            if length is None:
                self._finish(Answer("error", note="the answer has no Content-Length"))
                self.close()
                return
            del self._buffer[: end + 4]
            self._expected = int(length[1])
        if len(self._buffer) >= self._expected:
            body = bytes(self._buffer[: self._expected])
            del self._buffer[: self._expected]
            self._expected = -1
            self._finish(self._endpoint.read(int(self._head[9:12]), self._head, body))

    def _finish(self, answer: Answer) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)

    def ask(self, request: bytes) -> Awaitable[Answer]:
        """Send a request; a server that closed an idle connection is connected to again."""
        if self._transport is None or self._transport.is_closing():
            return self._again(request)
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiter

    async def _again(self, request: bytes) -> Answer:
        self._buffer.clear()
        self._expected = -1
        try:
            await self._endpoint.open(self)
        except XtError as error:
            return Answer("error", note=error.message)
        return await self.ask(request)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()


class HttpEndpoint:
    """What the endpoints over HTTP share: the connection and the head of a request."""

    def __init__(self, address: str, path: str) -> None:
        self.address = address
        self.host, self.port = split_address(address)
        self._post = f"POST {path} HTTP/1.1\r\nHost: {address}\r\n"

    async def open(self, link: HttpLink) -> None:
        """Connect `link`; XtError when nobody listens."""
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(loop.create_connection(lambda: link, self.host, self.port), CONNECT_SECONDS)
        except (OSError, asyncio.TimeoutError) as error:
            raise XtError(
                f"No server answers HTTP at {self.address}: {error or 'no connection in time'}.",
                "Name its port by --http-port, or use --protocol grpc.",
            ) from error

    async def connect(self) -> Link:
        """Open a connection."""
        link = HttpLink(self)
        await self.open(link)
        return link

    def read(self, status: int, head: bytes, body: bytes) -> Answer:
        """Give what counts of an answer."""
        raise NotImplementedError


class TritonHttp(HttpEndpoint):
    """A model of Triton over KServe v2 with the binary extension: text, ids or one packed blob in, float32 out."""

    def __init__(
        self,
        address: str,
        model: str,
        *,
        texts: Sequence[str] | None = None,
        ids: Ids | None = None,
        kind: Input = "text",
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(address, f"/v2/models/{model}/infer")
        self._rows = Rows(kind, texts, ids)
        self._parameters = dict(parameters or {})
        self._layouts: dict[bytes, tuple[slice, slice]] = {}

    def prepare(self, rows: Sequence[int]) -> bytes:
        """Build the whole HTTP request."""
        name, datatype, shape, data = self._rows.tensor(rows)
        header: dict[str, Any] = {
            "inputs": [
                {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(data)}}
            ],
            "outputs": [{"name": n, "parameters": {"binary_data": True}} for n in OUTPUTS],
        }
        if self._parameters:
            header["parameters"] = self._parameters
        text = json.dumps(header, separators=(",", ":")).encode()
        head = (
            f"{self._post}Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {len(text)}\r\n"
            f"Content-Length: {len(text) + len(data)}\r\n\r\n"
        )
        return head.encode() + text + data

    def read(self, status: int, head: bytes, body: bytes) -> Answer:
        """Find `tokens` and `truncated`; where they lie is worked out once for each kind of answer."""
        if status != 200:
            note = _message(body)
            return Answer("refused" if status == 503 else "error", note=note or f"HTTP status {status}")
        length = _HEADER_LENGTH.search(head)
        if length is None:
            return Answer("error", note="the answer carries no binary tensors")
        described = body[: int(length[1])]
        layout = self._layouts.get(described)
        if layout is None:
            layout = self._layouts[described] = _layout(described)
        tokens, truncated = layout
        return Answer("ok", int(np.frombuffer(body[tokens], np.int32).sum()), body[truncated].count(1))


def _layout(described: bytes) -> tuple[slice, slice]:
    position, found = len(described), {}
    for output in json.loads(described)["outputs"]:
        size = int(output["parameters"]["binary_data_size"])
        found[output["name"]] = slice(position, position + size)
        position += size
    return found["tokens"], found["truncated"]


def _message(body: bytes) -> str:
    try:
        error = json.loads(body)
        return str(error.get("error") or error.get("detail") or error)
    except (ValueError, AttributeError):
        return body[:200].decode(errors="replace")


class Rows:
    """The texts as the input tensor of a request."""

    def __init__(self, kind: Input, texts: Sequence[str] | None, ids: Ids | None) -> None:
        if kind not in INPUTS:
            raise unknown("input", kind, INPUTS)
        if (ids if kind == "ids" else texts) is None:
            raise XtError(f"--input {kind} needs {'token ids' if kind == 'ids' else 'texts'}.")
        self.kind = kind
        self._texts = list(texts or [])
        self._raw = [t.encode("utf-8") for t in self._texts] if kind == "text" else []
        self._ids = [row.astype(np.int32) for row in ids] if kind == "ids" and ids is not None else []

    def tensor(self, rows: Sequence[int]) -> tuple[str, str, list[int], bytes]:
        """Give name, datatype, shape and bytes of the tensor."""
        if self.kind == "text":
            data = b"".join(struct.pack("<I", len(self._raw[i])) + self._raw[i] for i in rows)
            return "text", "BYTES", [len(rows), 1], data
        if self.kind == "packed":
            blob = pack([self._texts[i] for i in rows])
            return "packed", "UINT8", [1, len(blob)], blob.tobytes()
        some = [self._ids[i] for i in rows]
        out = np.full((len(some), max(len(row) for row in some)), -1, np.int32)
        for i, row in enumerate(some):
            out[i, : len(row)] = row
        return "ids", "INT32", list(out.shape), out.tobytes()


class TritonGrpc:
    """The same model over gRPC, all connections in one channel; answers are decoded, requests sent as bytes."""

    def __init__(
        self,
        address: str,
        model: str,
        *,
        texts: Sequence[str] | None = None,
        ids: Ids | None = None,
        kind: Input = "text",
        parameters: Mapping[str, Any] | None = None,
        tls: Tls | None = None,
    ) -> None:
        self.address = address
        self.model = model
        self._tls = tls
        self._rows = Rows(kind, texts, ids)
        self._parameters = dict(parameters or {})
        self._call: Any = None
        self._channel: Any = None
        self._open = 0
        self._closing: asyncio.Future[None] | None = None

    def prepare(self, rows: Sequence[int]) -> bytes:
        """Build the serialised ModelInferRequest."""
        from tritonclient.grpc import service_pb2 as pb

        name, datatype, shape, data = self._rows.tensor(rows)
        request = pb.ModelInferRequest(model_name=self.model)
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        for output in OUTPUTS:
            request.outputs.add(name=output)
        for key, value in self._parameters.items():
            field = "bool_param" if isinstance(value, bool) else "int64_param" if isinstance(value, int) else None
            setattr(request.parameters[key], field or "string_param", value)
        request.raw_input_contents.append(data)
        return bytes(request.SerializeToString())

    async def connect(self) -> Link:
        """Open the channel, or count one more user of it."""
        import grpc

        if self._open == 0:
            options = channel_options(self.address)
            if self._tls is None:
                self._channel = grpc.aio.insecure_channel(self.address, options=options)
            else:
                self._channel = grpc.aio.secure_channel(self.address, self._tls.credentials(), options=options)
            try:
                await asyncio.wait_for(self._channel.channel_ready(), CONNECT_SECONDS)
            except asyncio.TimeoutError:
                await self._channel.close()
                raise XtError(f"No server answers gRPC at {self.address}.", "Check --url.") from None
            self._call = self._channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        self._open += 1
        return _GrpcLink(self)

    async def ask(self, request: bytes) -> Answer:
        """Send a request and read `tokens` and `truncated` of its answer."""
        import grpc
        from tritonclient.grpc import service_pb2 as pb

        try:
            answer = pb.ModelInferResponse.FromString(await self._call(request))
        except grpc.aio.AioRpcError as error:
            refused = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            return Answer("refused" if refused else "error", note=str(error.details()))
        raw = {o.name: answer.raw_output_contents[i] for i, o in enumerate(answer.outputs)}
        return Answer("ok", int(np.frombuffer(raw["tokens"], np.int32).sum()), raw["truncated"].count(1))

    def release(self) -> None:
        """Close the channel when its last user is gone."""
        self._open -= 1
        if self._open == 0:
            self._closing = asyncio.ensure_future(self._channel.close())


class _GrpcLink:
    def __init__(self, endpoint: TritonGrpc) -> None:
        self._endpoint = endpoint

    def ask(self, request: bytes) -> Awaitable[Answer]:
        return self._endpoint.ask(request)

    def close(self) -> None:
        self._endpoint.release()


class OpenAIHttp(HttpEndpoint):
    """OpenAI-style `/embeddings`, as Infinity answers it, vectors as base64 like OpenAI's own client asks for them.

    Tokens are those counted here: servers disagree in what they call a token.
    """

    def __init__(self, address: str, model: str, *, texts: Sequence[str], path: str = "/embeddings") -> None:
        super().__init__(address, path)
        self._model = model
        self._texts = texts

    def prepare(self, rows: Sequence[int]) -> bytes:
        """Build the whole HTTP request."""
        body = json.dumps(
            {"model": self._model, "input": [self._texts[i] for i in rows], "encoding_format": "base64"},
            ensure_ascii=False,
        ).encode()
        head = f"{self._post}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def read(self, status: int, head: bytes, body: bytes) -> Answer:
        """Only the status counts; 429 and 503 are refusals."""
        if status == 200:
            return Answer("ok")
        return Answer("refused" if status in (429, 503) else "error", note=_message(body) or f"HTTP status {status}")
