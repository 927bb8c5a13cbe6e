"""Endpoints of the load generator: Triton over HTTP or gRPC, and OpenAI-style embeddings over HTTP.

The client shares the machine with what it measures, so it does as little as it can: one process, bytes built before
the clock starts, HTTP written by hand on keep-alive sockets, and of an answer only what is counted.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Sequence
from typing import Any

from xt.bench.load import Answer, Link
from xt.core.errors import XtError
from xt.serve.client.address import Tls, open_channel, split_address
from xt.serve.client.prepared import INFER, Requests

CONNECT_SECONDS = 10.0
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)


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
        """Return what counts of an answer."""
        raise NotImplementedError


class TritonHttp(HttpEndpoint):
    """A model of Triton over KServe v2 with the binary extension: text, ids or one packed blob in, float32 out."""

    def __init__(self, address: str, requests: Requests) -> None:
        super().__init__(address, requests.path)
        self._requests = requests

    def prepare(self, rows: Sequence[int]) -> bytes:
        """Build the whole HTTP request."""
        headers, body = self._requests.http(rows)
        return f"{self._post}{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def read(self, status: int, head: bytes, body: bytes) -> Answer:
        """Return what counts of an answer."""
        if status != 200:
            note = _message(body)
            return Answer("refused" if status == 503 else "error", note=note or f"HTTP status {status}")
        counted = self._requests.read_http(head, body)
        if counted is None:
            return Answer("error", note="the answer carries no binary tensors")
        return Answer("ok", counted.tokens, counted.truncated)


def _message(body: bytes) -> str:
    try:
        error = json.loads(body)
        return str(error.get("error") or error.get("detail") or error)
    except (ValueError, AttributeError):
        return body[:200].decode(errors="replace")


class TritonGrpc:
    """The same model over gRPC, all connections in one channel; answers are decoded, requests sent as bytes."""

    def __init__(self, address: str, requests: Requests, *, tls: Tls | None = None) -> None:
        self.address = address
        self._tls = tls
        self._requests = requests
        self._call: Any = None
        self._channel: Any = None
        self._open = 0
        self._closing: asyncio.Future[None] | None = None

    def prepare(self, rows: Sequence[int]) -> bytes:
        """Build the serialised request."""
        return self._requests.grpc(rows)

    async def connect(self) -> Link:
        """Open the channel, or count one more user of it."""
        if self._open == 0:
            self._channel = open_channel(self.address, self._tls)
            try:
                await asyncio.wait_for(self._channel.channel_ready(), CONNECT_SECONDS)
            except asyncio.TimeoutError:
                await self._channel.close()
                raise XtError(f"No server answers gRPC at {self.address}.", "Check --url.") from None
            self._call = self._channel.unary_unary(INFER)
        self._open += 1
        return _GrpcLink(self)

    async def ask(self, request: bytes) -> Answer:
        """Send a request and read `tokens` and `truncated` of its answer."""
        import grpc

        try:
            counted = self._requests.read_grpc(await self._call(request))
        except grpc.aio.AioRpcError as error:
            refused = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            return Answer("refused" if refused else "error", note=str(error.details()))
        return Answer("ok", counted.tokens, counted.truncated)

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

    def __init__(self, address: str, model: str, *, texts: Sequence[str]) -> None:
        super().__init__(address, "/embeddings")
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
