"""Asking a server from asyncio: `AsyncClient`, the calls of `Client`, awaited."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy.typing as npt

from xt.core.arguments import seconds
from xt.serve.client.address import Tls, check_model
from xt.serve.client.client import IN_FLIGHT, RETRIES, Options
from xt.serve.client.connection import META_SECONDS, AsyncConnection, Call, T
from xt.serve.client.errors import Patience, Restricted, Tries
from xt.serve.client.models import Served, choose_default, describe
from xt.serve.client.plans import Plan, plan_classify, plan_encode, plan_search
from xt.serve.client.wire import Classified, Found, Vectors


class AsyncClient:
    """`Client` for asyncio: the same calls, awaited. It connects at the first of them; use it in one event loop."""

    def __init__(  # noqa: PLR0913 - the arguments of `Client`, which users write one by one, and one more
        self,
        url: str,
        model: str | None = None,
        *,
        timeout_seconds: float | None = None,
        retries: int = RETRIES,
        in_flight: int = IN_FLIGHT,
        wait_seconds: float | None = None,
        lost_seconds: float | None = None,
        tls: Tls | None = None,
        admin_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Take the arguments of `Client`; only they are checked here.

        `wait_seconds` holds for the first call; `lost_seconds` is how long any call waits for a server that is lost or
        restarting (None: until its deadline).
        """
        options = Options.of(timeout_seconds, retries, in_flight, wait_seconds)
        self._connection = AsyncConnection(url, tls=tls, admin_key=admin_key, headers=headers)
        self.url = url
        self.model = check_model(model)
        self.timeout_seconds, self.retries, self.in_flight = options.timeout_seconds, options.retries, options.in_flight
        self.wait_seconds = options.wait_seconds
        self.lost_seconds = None if lost_seconds is None else seconds(lost_seconds, "lost_seconds")
        self._answered = False
        self._served: dict[str, Served] = {}

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def models(self, *, lost_seconds: float | None = None) -> list[str]:
        """Return the names of the ready models; Restricted when the server tells them only to who has its key.

        `lost_seconds`: how long a server that does not answer is waited for; None: as this client does.
        """
        bound = self.lost_seconds if lost_seconds is None else lost_seconds
        return await self._facts(self._connection.list_models(_longest(bound)), bound)

    async def describe(self, model: str | None = None, *, lost_seconds: float | None = None) -> Served:
        """Ask the server what it says of a model (None: the client's); `lost_seconds`: see `models`."""
        if model is None:
            if self.model is None:
                try:
                    names: list[str] | None = await self.models(lost_seconds=lost_seconds)
                except Restricted:
                    names = None
                self.model = choose_default(names, self.url)
            model = self.model
        bound = self.lost_seconds if lost_seconds is None else lost_seconds
        config = await self._facts(self._connection.read_config(model, _longest(bound)), bound)
        self._served[model] = describe(config, self.url)
        return self._served[model]

    async def _facts(self, call: Call[T], lost_seconds: float | None) -> T:
        """Ask for facts until they are given, refused, or the time is over."""
        patience = Patience(self.timeout_seconds if self._answered else self.wait_seconds, lost_seconds=lost_seconds)
        answer = await self._connection.send(call, Tries(patience))
        self._answered = True
        return answer

    async def _known(self, model: str | Served | None) -> Served:
        if isinstance(model, Served):
            return model
        return self._served.get(model or self.model or "") or await self.describe(model)

    async def encode(
        self,
        texts: Iterable[str],
        *,
        prefix: str | None = None,
        truncate: bool = False,
        dimensions: int | None = None,
        dtype: str = "float32",
    ) -> npt.NDArray[Any]:
        """Return the vectors of `texts`; see `Client.encode`."""
        full = await self.encode_full(texts, prefix=prefix, truncate=truncate, dimensions=dimensions, dtype=dtype)
        return full.vectors

    async def encode_full(
        self,
        texts: Iterable[str] | None = None,
        *,
        ids: Iterable[Iterable[int]] | None = None,
        prefix: str | None = None,
        truncate: bool = False,
        dimensions: int | None = None,
        dtype: str = "float32",
        model: str | Served | None = None,
        request_id: str = "",
        caller: str | None = None,
    ) -> Vectors:
        """Return vectors, tokens and cuts; see `Client.encode_full`.

        `request_id`: what the server calls the request. `caller`: whose it is, by which the server shares its work
        fairly, 1 to 64 printable ASCII characters without blanks; by default this client's own.
        """
        known = await self._known(model)
        plan = plan_encode(known, texts, ids, prefix, truncate, dimensions, dtype)
        return await self._run(plan, request_id, caller)

    async def search(
        self,
        texts: Iterable[str],
        *,
        k: int | None = None,
        languages: str | Iterable[str] | None = None,
        prefix: str | None = None,
        truncate: bool = False,
        model: str | Served | None = None,
        request_id: str = "",
        caller: str | None = None,
    ) -> list[Found]:
        """Ask a `retriever`; see `Client.search`."""
        known = await self._known(model)
        plan = plan_search(known, texts, k, languages, prefix, truncate)
        return await self._run(plan, request_id, caller)

    async def classify(
        self,
        texts: Iterable[str],
        pairs: Iterable[str] | None = None,
        *,
        truncate: bool = False,
        model: str | Served | None = None,
        request_id: str = "",
        caller: str | None = None,
    ) -> Classified:
        """Ask a classifier, tagger or reader; see `Client.classify`."""
        known = await self._known(model)
        return await self._run(plan_classify(known, texts, pairs, truncate), request_id, caller)

    async def _run(self, plan: Plan[T], request_id: str, caller: str | None) -> T:
        patience = Patience(self.timeout_seconds, self.retries, self.lost_seconds)
        return await self._connection.run(
            plan, patience, in_flight=self.in_flight, request_id=request_id, caller=caller
        )


def _longest(lost_seconds: float | None) -> float:
    """Return how long one question for facts may take, where a lost server is waited for so long."""
    return META_SECONDS if lost_seconds is None else max(1.0, min(META_SECONDS, lost_seconds))
