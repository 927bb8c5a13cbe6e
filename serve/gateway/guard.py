"""What every request to the gateway passes: a trace id, the size limit, the token, and a line in the log."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("xt.gateway")
BODY_SECONDS = 30.0
"""How long a client may take to send its request."""
SILENT_SECONDS = 10.0
"""How long it may send nothing meanwhile."""
RUNNING = 1024
"""Requests under way at once; more get 503, probes and the page apart."""
HELD_BYTES = 256 * 2**20
"""Of bodies in memory at once; with more, only bodies of up to SMALL_BYTES are taken, others get 503."""
SMALL_BYTES = 2**16
PATH_CHARACTERS = 200
"""Of a path in the log."""
OPEN = frozenset({"/", "/health", "/ready", "/page/style.css", "/page/page.js", "/page/icon.svg"})
"""What needs no token: the page, which asks for it, and what a probe reads."""
TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:]*)(?::\d*)?")
SECRET = secrets.token_bytes(32)
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""What a client on this machine may call it."""
CALLER_CHARACTERS = 32
REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def error_body(message: str, kind: str, code: str, param: str | None = None) -> dict[str, Any]:
    """Return an error in the shape of OpenAI's."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def trace_of(headers: list[tuple[bytes, bytes]]) -> str:
    """Return the request's trace id: of `traceparent` (W3C), else `x-request-id`, else a new one.

    >>> trace_of([(b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")])
    '4bf92f3577b34da6a3ce929d0e0e4736'
    """
    found = {name: value.decode("latin-1") for name, value in headers if name in (b"traceparent", b"x-request-id")}
    match = TRACEPARENT.fullmatch(found.get(b"traceparent", ""))
    if match and set(match[1]) != {"0"}:
        return match[1]
    given = found.get(b"x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


def caller_of(scope: Scope, *, by_token: bool) -> str:
    """Return an opaque name of who sends a request, by which Triton shares its work: of token and address together.

    The token alone would make one caller of all who have it, and without `by_token`, where none is requested, it is the
    caller's to choose; so is the second half of an IPv6 address. The name says nothing to anybody else: each gateway
    has a secret of its own.
    """
    token = next((value for name, value in scope["headers"] if by_token and name == b"authorization"), b"")
    address = str((scope.get("client") or ("",))[0])
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a Unix socket has none
        host = address.encode()
    else:
        mapped = getattr(known, "ipv4_mapped", None)
        host = mapped.packed if mapped is not None else known.packed[:8]
    return hmac.new(SECRET, host + b"\0" + token, "sha256").hexdigest()[:CALLER_CHARACTERS]


class Guard:
    """ASGI: around the whole application, so that also what it refuses has a trace id and a line in the log."""

    def __init__(
        self, app: App, *, token: str | None, max_body_bytes: int, hosts: frozenset[str] | None = None
    ) -> None:
        """Take what to hand requests to, the token, the size limit, and the names it may be called by (None: any)."""
        self.app = app
        self.hosts = hosts
        self.token = token.encode() if token is not None else None
        self.max_body_bytes = max_body_bytes
        self._running = self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        trace = trace_of(scope["headers"])
        scope.setdefault("state", {}).update(trace=trace, caller=caller_of(scope, by_token=self.token is not None))
        start = time.perf_counter()
        status = 0
        state = scope["state"]
        state["token"], state["size"] = "-", 0

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", trace.encode())]
            await send(message)

        try:
            await self._answer(scope, receive, observed)
        except asyncio.CancelledError:  # the gateway ends, and has waited for its answers
            if status:
                raise
            await self._busy(observed, "The gateway ends")
        finally:
            self._held -= state["size"]
            milliseconds = (time.perf_counter() - start) * 1e3
            path = scope.get("raw_path", scope["path"].encode())[:PATH_CHARACTERS].decode("ascii", "replace")
            caller = (scope.get("client") or ("-",))[0]
            log.info(
                "%s %s %s %.1f ms caller=%s token=%s bytes=%d trace=%s",
                scope["method"],
                path,
                status or "client left",
                milliseconds,
                caller,
                state["token"],
                state["size"],
                trace,
            )

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (name := self._stranger(scope)) is not None:
            names = ", ".join(sorted(self.hosts or ()))
            message = f"The gateway is not called {name[:100]!r}; expected {names}, or a gateway with a token."
            await refuse(send, 421, error_body(message, "invalid_request_error", "wrong_host"))
            return
        if not self._may(scope):
            message = "The token is missing or wrong: send it as 'Authorization: Bearer TOKEN'."
            body = error_body(message, "authentication_error", "invalid_api_key")
            await refuse(send, 401, body, (b"www-authenticate", b"Bearer"))
            return
        try:
            body_bytes = await asyncio.wait_for(self._body(scope, receive), BODY_SECONDS)
        except asyncio.TimeoutError:
            message = (
                f"The request did not arrive whole within {BODY_SECONDS:.0f} s, or nothing of it came for "
                f"{SILENT_SECONDS:.0f} s."
            )
            await refuse(send, 408, error_body(message, "invalid_request_error", "timeout"))
            return
        except _TooLarge:
            message = f"The body is larger than {self.max_body_bytes} bytes; send several requests."
            await refuse(send, 413, error_body(message, "invalid_request_error", "body_too_large"))
            return
        except _Full:
            await self._busy(send, "The gateway holds as many requests in memory as it may")
            return
        if body_bytes is None:  # the client left in the middle of its request
            return
        if self._running >= RUNNING and scope["path"] not in OPEN:
            await self._busy(send, f"The gateway works on {self._running} requests")
            return
        self._running += 1
        try:
            await self._run(scope, body_bytes, receive, send)
        finally:
            self._running -= 1

    async def _busy(self, send: Send, why: str) -> None:
        body = error_body(f"{why}; try again later.", "overloaded_error", "server_busy")
        await refuse(send, 503, body, (b"retry-after", b"1"))

    def _stranger(self, scope: Scope) -> str | None:
        """Return the name that the client calls this server by when it is none of ours.

        Else a page of another site whose name was made to point at the loopback address could read the answers (DNS
        rebinding).
        """
        if self.hosts is None:
            return None
        given = next((v for n, v in scope["headers"] if n == b"host"), b"").decode("latin-1")
        match = HOST.fullmatch(given)
        name = match[1].lower() if match else given
        return None if name in self.hosts else name

    def _may(self, scope: Scope) -> bool:
        if self.token is None or scope["path"] in OPEN:
            return True
        given = next((v for n, v in scope["headers"] if n == b"authorization"), b"")
        kind, _, value = given.partition(b" ")
        right = hmac.compare_digest(value.strip(), self.token) and kind.lower() == b"bearer"
        scope["state"]["token"] = "right" if right else "wrong" if given else "missing"
        return right

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        declared = next((v for n, v in scope["headers"] if n == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > self.max_body_bytes:
            raise _TooLarge
        parts, size = [], 0
        while True:
            message = await asyncio.wait_for(receive(), SILENT_SECONDS)
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            size += len(part)
            if size > self.max_body_bytes:
                raise _TooLarge
            if size > SMALL_BYTES and self._held + len(part) > HELD_BYTES:
                raise _Full
            self._held += len(part)
            scope["state"]["size"] += len(part)
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    async def _run(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the application; when the client leaves, cancel it, and with it the request to Triton."""
        given = False
        gone = asyncio.Event()

        async def replay() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()

        answer = asyncio.ensure_future(self.app(scope, replay, send))
        watcher = asyncio.ensure_future(watch())
        try:
            await asyncio.wait({answer, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                answer.cancel()
            await asyncio.gather(answer, return_exceptions=gone.is_set())
        except asyncio.CancelledError:
            if not gone.is_set():
                raise
        finally:
            answer.cancel()
            watcher.cancel()


class _TooLarge(Exception):
    pass


class _Full(Exception):
    pass


async def refuse(send: Send, status: int, body: dict[str, Any], *headers: tuple[bytes, bytes]) -> None:
    """Answer with JSON, past the application."""
    data = json.dumps(body).encode()
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": data})
