"""How a gateway answers: whom, how much, and for how long it waits for Triton."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xt.serve.client.address import Tls

MAX_BODY_BYTES = 8 * 2**20
MAX_TEXTS = 2048
"""Texts of one request: OpenAI's own limit."""
TIMEOUT_SECONDS = 60.0
LOST_SECONDS = 20.0
"""How long a request waits for a Triton that is lost or restarting (8 to 17 s) before it is answered 503."""


@dataclass(frozen=True)
class GatewayOptions:
    """What the application of a gateway is made with."""

    metrics_url: str | None = None
    """http://HOST:PORT/metrics of Triton; without it the page shows no rates."""
    models: Sequence[str] | None = None
    """Names of the models; None: asked of Triton, by its list or, when that is secret, by its metrics."""
    token: str | None = None
    """What callers must send as `Authorization: Bearer`; None: nothing."""
    max_body_bytes: int = MAX_BODY_BYTES
    """Larger requests are refused (413)."""
    max_texts: int = MAX_TEXTS
    """Of one request (400)."""
    timeout_seconds: float = TIMEOUT_SECONDS
    """Of one request to Triton."""
    lost_seconds: float = LOST_SECONDS
    tls: Tls | None = None
    """The files of an encrypted connection to Triton."""
    admin_key: str | None = None
    """Of Triton, for its list of models; None: found as `xt.serve.Client` does; "": none is sent."""
    hosts: frozenset[str] | None = None
    """Names that callers may call it by (the header Host); others get 421. None: any."""
