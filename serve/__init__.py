"""Starting Triton, asking it (`Client`, `AsyncClient`), the gateway before it, and measuring it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xt.serve.client.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]


def __getattr__(name: str) -> Any:
    """Import the clients, and numpy and gRPC with them, only when they are asked for."""
    if name in __all__:
        from xt.serve.client import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
