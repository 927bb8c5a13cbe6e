"""An HTTP gateway before Triton: OpenAI's embeddings, search and rerank with probabilities, and a page to try them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from xt.core.errors import XtError, require
from xt.core.server_state import LOCAL_HOSTS
from xt.serve.gateway_guard import LOOPBACK_NAMES
from xt.serve.wire import Tls

if TYPE_CHECKING:
    from xt.serve.gateway_guard import Guard

MAX_BODY_BYTES = 8 * 2**20
MAX_TEXTS = 2048
"""Texts of one request: OpenAI's own limit."""
TIMEOUT_SECONDS = 60.0
READY_SECONDS = 20.0
STOP_SECONDS = 10.0
CONNECTIONS = 1024
"""Requests under way at once; more are told 503."""


def create_app(
    triton_url: str,
    *,
    metrics_url: str | None = None,
    models: Sequence[str] | None = None,
    token: str | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    max_texts: int = MAX_TEXTS,
    timeout_seconds: float = TIMEOUT_SECONDS,
    tls: Tls | None = None,
    admin_key: str | None = None,
    hosts: frozenset[str] | None = None,
) -> Guard:
    """Make the ASGI application.

    Args:
        triton_url: HOST:PORT of Triton's gRPC endpoint.
        metrics_url: http://HOST:PORT/metrics of Triton; without it the page shows no rates.
        models: names of the models; None: asked of Triton, by its list or, when that is secret, by its metrics.
        token: what callers must send as `Authorization: Bearer`; None: nothing.
        max_body_bytes: larger requests are refused (413).
        max_texts: of one request (400).
        timeout_seconds: of one request to Triton.
        tls: the files of an encrypted connection to Triton.
        admin_key: of Triton, for its list of models; None: found as `xt.serve.Client` does.
        hosts: names that callers may call it by (the header Host); others are told 421. None: any.
    """
    for module in ("fastapi", "uvicorn"):
        require(module, extra="serve", purpose="The gateway")
    from xt.serve.client import AsyncClient
    from xt.serve.gateway_app import build
    from xt.serve.gateway_models import Models
    from xt.serve.gateway_stats import Stats

    if token is not None and (not token.isascii() or not token.isprintable() or " " in token or not token):
        raise XtError("The token is empty or holds blanks or other than ASCII.", "Choose one of letters and digits.")
    # A caller who is refused is told so at once, and knows better than the gateway whether to come back.
    client = AsyncClient(triton_url, timeout_seconds=timeout_seconds, retries=0, tls=tls, admin_key=admin_key)
    stats = Stats(metrics_url)
    known = Models(client, stats, models)
    return build(client, stats, known, token=token, max_body_bytes=max_body_bytes, max_texts=max_texts, hosts=hosts)


class Gateway:
    """A running gateway, in a thread of this process; use it as a context manager."""

    def __init__(self, triton_url: str, *, host: str = "127.0.0.1", port: int, **options: Any) -> None:
        """Take where to listen, and the options of `create_app`.

        On the loopback address without a token only this machine's own names for itself are answered: a page of
        another site could else read the answers under a name that it points here.
        """
        self.host, self.port = host, port
        if host in LOCAL_HOSTS and not options.get("token"):
            options.setdefault("hosts", LOOPBACK_NAMES)
        self._app = create_app(triton_url, **options)
        self._server: Any = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where a browser finds the page."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def __enter__(self) -> Gateway:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; XtError when the port cannot be had."""
        import uvicorn

        from xt.serve.launcher import check_port

        check_port(self.host, self.port, "--gateway-port")
        config = uvicorn.Config(
            self._app,
            host=self.host,
            port=self.port,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=int(STOP_SECONDS),
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="xt-gateway", daemon=True)
        self._thread.start()
        end = time.monotonic() + READY_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                self.stop()
                raise XtError(
                    f"The gateway did not start on {self.host}:{self.port}.", "Choose another --gateway-port."
                )
            time.sleep(0.01)

    def alive(self) -> bool:
        """Whether it listens."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Answer what is under way and stop; may be called twice."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._server.should_exit = True
            thread.join(STOP_SECONDS + 5)
