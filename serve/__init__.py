"""Starting Triton, asking it (`Client`, `AsyncClient`), the gateway before it, and measuring it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xt.serve.client.address import Tls
    from xt.serve.client.async_client import AsyncClient
    from xt.serve.client.client import Client

__all__ = ["AsyncClient", "Client", "Tls"]
PLACES = {"AsyncClient": "async_client", "Client": "client", "Tls": "address"}


def __getattr__(name: str) -> Any:
    """Import the clients, and numpy and gRPC with them, only when they are requested."""
    if name in PLACES:
        return getattr(import_module(f"xt.serve.client.{PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
