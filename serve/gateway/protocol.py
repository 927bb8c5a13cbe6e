"""HTTP connections to the gateway: how many there are, how long each may take, and what a request's form may cost.

Uvicorn has a deadline for idle connections only, and refuses everybody when too many are open, half-open ones too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from http import HTTPStatus
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from xt.serve.gateway.guard import error_body

HEAD_SECONDS = 10.0
"""How long a client may take to send the head of a request, from its first byte, or from connecting, on."""
HEAD_BYTES = 16 * 2**10
LINGER_SECONDS = 2.0
"""How long the rest of a body is read that was answered already, so that the client sees the answer."""
WRITE_SECONDS = 10.0
"""A client that reads less than WRITE_BYTES of its answer in this time is given up."""
WRITE_BYTES = 2**16
MAX_CONNECTIONS = 4096
"""With so many open, the one that has waited longest without sending a request is closed for each that comes."""
SPARE_FILES = 128
"""What the process opens besides connections."""
MAX_PARTS = 1024
PART_BYTES = 256
"""A body of more than MAX_PARTS parts (chunks, or packets) has at least so many bytes in each, in the mean."""
log = logging.getLogger("xt.gateway")


class Parts(h11.Connection):
    """HTTP/1.1, where a body in very many very small parts is an error: each costs as much as a long one."""

    parts = size = 0

    def next_event(self) -> Any:
        """Return what comes next, see `h11.Connection.next_event`."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.parts = self.size = 0
        elif isinstance(event, h11.Data):
            self.parts += 1
            self.size += len(event.data)
            if self.parts > MAX_PARTS + self.size // PART_BYTES:
                raise h11.RemoteProtocolError("the body is sent in too many small parts")
        return event


class BoundedProtocol(H11Protocol):
    """One connection."""

    most = MAX_CONNECTIONS
    """Connections of this process, at most."""

    @classmethod
    def allow(cls, open_files: int) -> None:
        """Set how many connections there may be, of a process that may open so many files."""
        cls.most = max(16, min(MAX_CONNECTIONS, open_files - SPARE_FILES))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Close an idle connection if there are too many, then wait for a request."""
        self.conn = Parts(h11.SERVER, HEAD_BYTES)
        self._since = time.monotonic()
        self._head: asyncio.TimerHandle | None = None
        self._end: asyncio.TimerHandle | None = None
        self._reader: asyncio.TimerHandle | None = None
        self._unread = 0
        super().connection_made(transport)
        self._make_room()
        self._await_head()

    def _make_room(self) -> None:
        if len(self.connections) <= self.most:
            return
        waiting = [c for c in self.connections if isinstance(c, BoundedProtocol) and c is not self and c.is_waiting()]
        if waiting:
            oldest = min(waiting, key=lambda c: c._since)
            self.connections.discard(oldest)  # now, and not when the loop comes to it: others may come before
            oldest.transport.abort()
        else:  # all of them are at work
            self._refuse(503, "server_busy", "The gateway has too many connections; try again later.")

    def is_waiting(self) -> bool:
        """Return whether it has sent no whole head of a request that is not answered yet."""
        return self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        """Read; a head that has begun must end in time."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._end is not None and self.conn.their_state is not h11.SEND_BODY:  # the rest of the body has come
            self._end.cancel()
            self._end = None
        if self.conn.their_state is h11.IDLE:
            if self._head is None:
                self._await_head()
        else:
            self._cancel_head()

    def _await_head(self) -> None:
        self._since = time.monotonic()
        self._head = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _cancel_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _head_is_late(self) -> None:
        if not self.transport.is_closing():
            self._refuse(408, "timeout", f"The head of a request did not arrive within {HEAD_SECONDS:.0f} s.")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer what is no request that can be run, and close."""
        caller = self.client[0] if self.client else "-"
        log.info("refused %d %s caller=%s", status, code, caller)
        data = json.dumps(error_body(message, "invalid_request_error", code)).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(data))), ("connection", "close")]
        try:
            parts = [
                self.conn.send(h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase))
            ]
            parts += [self.conn.send(h11.Data(data=data)), self.conn.send(h11.EndOfMessage())]
            self.transport.write(b"".join(cast("list[bytes]", [p for p in parts if p])))
        except h11.LocalProtocolError:  # an answer has begun already
            pass
        self.transport.close()
        self._watch_reader()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(
            400, "not_http", f"{msg.rstrip('.')}: it is not HTTP, its head is too long, or its parts too many."
        )

    def on_response_complete(self) -> None:
        """After an answer, wait for the next request; the rest of a body that nobody reads is waited for a little."""
        super().on_response_complete()
        self._since = time.monotonic()
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.SEND_BODY:
            self._end = self.loop.call_later(LINGER_SECONDS, self.transport.close)
        elif self.conn.their_state is h11.IDLE and self.conn.trailing_data[0] and self._head is None:
            self._await_head()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, also when its client has not read the answer."""
        super().timeout_keep_alive_handler()
        self._watch_reader()

    def pause_writing(self) -> None:
        """Begin to look at whether the client reads."""
        super().pause_writing()
        self._watch_reader()

    def _watch_reader(self) -> None:
        if self._reader is None:
            self._unread = self.transport.get_write_buffer_size()
            self._reader = self.loop.call_later(WRITE_SECONDS, self._look_at_reader)

    def _look_at_reader(self) -> None:
        self._reader = None
        left = self.transport.get_write_buffer_size()
        if not left:
            return
        if left > self._unread - WRITE_BYTES:
            log.info("refused 0 slow_reader caller=%s", self.client[0] if self.client else "-")
            self.transport.abort()
        else:
            self._watch_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go."""
        for timer in (self._head, self._end, self._reader):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
