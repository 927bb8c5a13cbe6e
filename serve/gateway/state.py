"""What the routes of the gateway share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

from fastapi import Request

from xt.serve.client.async_client import AsyncClient
from xt.serve.client.errors import InvalidRequest
from xt.serve.gateway.models import Models
from xt.serve.gateway.stats import Stats

READERS = 2


class TooManyTexts(InvalidRequest):
    """A request holds more texts than the gateway takes."""


@dataclass(frozen=True)
class State:
    """One for each application."""

    client: AsyncClient
    models: Models
    stats: Stats
    max_texts: int
    readers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(READERS, "xt-reader"))
    """Where large bodies are parsed; others' waiting threads do not hold it up."""

    def check_count(self, count: int, field: str) -> None:
        """Raise unless a request holds 1 to `max_texts` texts."""
        if not count:
            raise InvalidRequest(f"{field} is empty.", "Give at least one text.")
        if count > self.max_texts:
            raise TooManyTexts(
                f"{field} holds {count} texts; a request takes at most {self.max_texts}.", "Send several."
            )


def state_of(request: Request) -> State:
    """Return the state of the application that answers."""
    return cast(State, request.app.state.gateway)


@contextmanager
def timed(request: Request) -> Iterator[None]:
    """Note how long the work of an answered request took."""
    start = time.perf_counter()
    yield
    request.state.seconds = time.perf_counter() - start
    state_of(request).stats.took(request.state.seconds)
