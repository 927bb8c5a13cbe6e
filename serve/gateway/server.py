"""An HTTP gateway before Triton: OpenAI's embeddings, search and rerank with probabilities, and a page to try them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from xt.core.errors import XtError, require
from xt.serve.gateway.guard import LOOPBACK_NAMES
from xt.serve.triton.addresses import check_port, family, reachable
from xt.serve.triton.limits import raise_open_files
from xt.serve.triton.server_state import LOCAL_HOSTS
from xt.serve.triton.starting import Startable

READY_SECONDS = 20.0
STOP_SECONDS = 10.0
BACKLOG = 2048
"""Connections that the system takes while none can be accepted here."""


def check_gateway(token: str | None) -> None:
    """Raise XtError when a package is missing, or when the token cannot stand in a header."""
    for module in ("fastapi", "uvicorn"):
        require(module, extra="serve", purpose="The gateway")
    if token is not None and (not token.isascii() or not token.isprintable() or " " in token or not token):
        raise XtError("The token is empty or holds blanks or other than ASCII.", "Choose one of letters and digits.")


def address(host: str, port: int) -> str:
    """Return where a browser on this machine finds the page of a gateway.

    >>> address("0.0.0.0", 8080), address("::1", 8080)
    ('http://127.0.0.1:8080', 'http://[::1]:8080')
    """
    host = reachable(host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on `port` of `host`; XtError when that cannot be had."""
    check_port(host, port, "--gateway-port")
    # The protocol is named: asyncio sends small answers at once only where it sees that it is TCP.
    listening = socket.socket(family(host), socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
        return listening
    except OSError as error:
        listening.close()
        raise XtError(
            f"Port {port} on {host} cannot be used: {error.strerror}.", "Choose another by --gateway-port."
        ) from error


class Listening(Startable):
    """What a gateway in a thread and one in a process share: where they listen, and the thread that sees to it."""

    def __init__(self, host: str, port: int, token: str | None) -> None:
        check_gateway(token)
        self.host, self.port = host, port
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where a browser finds the page."""
        return address(self.host, self.port)

    def alive(self) -> bool:
        """Return whether it answers, or will again."""
        return self._thread is not None and self._thread.is_alive()


class Gateway(Listening):
    """A running gateway, in a thread of this process; use it as a context manager."""

    def __init__(self, triton_url: str, *, host: str = "127.0.0.1", port: int, **options: Any) -> None:
        """Take where to listen, and those of `xt.serve.gateway.options.GatewayOptions`.

        On the loopback address without a token only this machine's own names for itself are answered: a page of
        another site could else read the answers under a name that it points here.
        """
        super().__init__(host, port, options.get("token"))
        self.socket: socket.socket | None = None
        """One that listens already, where another process bound it."""
        if host in LOCAL_HOSTS and not options.get("token"):
            options.setdefault("hosts", LOOPBACK_NAMES)
        from xt.serve.gateway.app import create_app
        from xt.serve.gateway.options import GatewayOptions

        self._app = create_app(triton_url, GatewayOptions(**options))
        self._server: Any = None

    def start(self) -> None:
        """Listen; XtError when the port cannot be had."""
        sockets = [self.socket or listen(self.host, self.port)]
        self._server = self.server()
        self._thread = threading.Thread(target=self._server.run, args=(sockets,), name="xt-gateway", daemon=True)
        self._thread.start()
        end = time.monotonic() + READY_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                self.stop()
                raise XtError(
                    f"The gateway did not start on {self.host}:{self.port}.", "Choose another --gateway-port."
                )
            time.sleep(0.01)

    def server(self, alive: Callable[[], Awaitable[None]] | None = None) -> Any:
        """Return Uvicorn's server of the application; `alive` is called once a second as long as it answers."""
        import uvicorn

        from xt.serve.gateway.protocol import BoundedProtocol

        BoundedProtocol.allow(raise_open_files())
        config = uvicorn.Config(
            self._app,
            http=BoundedProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            backlog=BACKLOG,
            timeout_graceful_shutdown=int(STOP_SECONDS),
            callback_notify=alive,
            timeout_notify=1,
        )
        return uvicorn.Server(config)

    def stop(self) -> None:
        """Answer what is under way and stop; may be called twice."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._server.should_exit = True
            thread.join(STOP_SECONDS + 5)
