"""Asking a server from Python: `Client` and, for asyncio, `AsyncClient`. Texts in, numpy out, errors as XtError."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy.typing as npt

from xt.core.errors import XtError
from xt.serve import wire
from xt.serve.wire import Classified, Found, Served, Tls, Vectors

T = TypeVar("T")
TIMEOUT_SECONDS = 60.0
RETRIES = 5
IN_FLIGHT = 4
"""Requests of one call under way at once: the server tokenises some while it computes others."""


@dataclass(frozen=True)
class Plan(Generic[T]):
    """One call: the requests it is cut into, and how their answers become what the caller gets."""

    model: Served
    requests: list[list[int]]
    """The places, in the caller's list, of the texts of each request."""
    inputs: Callable[[list[int]], list[Any]]
    parameters: dict[str, Any]
    outputs: Sequence[str]
    finish: Callable[[Sequence[Any]], T]


def plan_encode(
    model: Served,
    grpc: Any,
    texts: Sequence[str] | None,
    ids: Sequence[Sequence[int]] | None,
    prefix: str | None,
    truncate: bool,
    dimensions: int | None,
    dtype: str,
) -> Plan[Vectors]:
    """Plan the encoding of `texts`, or of rows of token `ids`."""
    if (texts is None) == (ids is None):
        raise wire.InvalidRequest("Expected either texts or ids.", "Give one of them.")
    outputs = wire.encode_outputs(dtype)
    if texts is not None:
        wire.check_texts(texts)
    rows: Sequence[Any] = texts if texts is not None else ids or []
    for index, row in enumerate(ids or []):
        if not len(row):
            raise wire.InvalidRequest(f"text {index} has no token ids.", "Remove it.")
    requests = wire.request_order([len(r) * (1 if ids is None else 4) for r in rows], model.max_texts)

    def inputs(places: list[int]) -> list[Any]:
        chosen = [rows[i] for i in places]
        return [wire.strings("text", chosen, grpc) if ids is None else wire.token_ids(chosen, grpc)]

    dim = dimensions or int(model.facts.get("encoder", {}).get("dim", 0))
    parameters = wire.encode_parameters(prefix, truncate, dimensions)
    return Plan(model, requests, inputs, parameters, outputs, lambda r: wire.gather_vectors(requests, r, dtype, dim))


def plan_search(
    model: Served,
    grpc: Any,
    texts: Sequence[str],
    k: int | None,
    languages: str | Sequence[str] | None,
    prefix: str | None,
    truncate: bool,
) -> Plan[list[Found]]:
    """Plan the search for `texts` by a retriever."""
    wire.check_texts(texts)
    spoken = wire.languages_of(languages, len(texts))
    requests = wire.request_order([len(t) for t in texts], model.max_texts)
    outputs = wire.search_outputs(model)

    def inputs(places: list[int]) -> list[Any]:
        tensors = [wire.strings("text", [texts[i] for i in places], grpc)]
        if spoken is not None:
            tensors.append(wire.strings("language", [spoken[i] for i in places], grpc))
        return tensors

    parameters = wire.encode_parameters(prefix, truncate, None) | ({} if k is None else {"k": int(k)})
    return Plan(
        model,
        requests,
        inputs,
        parameters,
        outputs,
        lambda results: wire.gather(requests, [wire.read_found(r, "none" in outputs) for r in results]),
    )


def plan_classify(
    model: Served, grpc: Any, texts: Sequence[str], pairs: Sequence[str] | None, truncate: bool
) -> Plan[Classified]:
    """Plan the classification of `texts`, each together with its row of `pairs` where the model reads two."""
    wire.check_texts(texts)
    if pairs is not None:
        wire.check_texts(pairs)
        if len(pairs) != len(texts):
            raise wire.InvalidRequest(f"There are {len(texts)} texts and {len(pairs)} pairs.", "Give one each.")
    requests = wire.request_order([len(t) for t in texts], model.max_texts)

    def inputs(places: list[int]) -> list[Any]:
        tensors = [wire.strings("text", [texts[i] for i in places], grpc)]
        if pairs is not None:
            tensors.append(wire.strings("text_pair", [pairs[i] for i in places], grpc))
        return tensors

    outputs = [o for o in ("label", "probabilities", "answer") if o in model.outputs]
    parameters = {"truncate": True} if truncate else {}
    names = wire.label_names(model)
    return Plan(
        model, requests, inputs, parameters, outputs, lambda r: wire.gather_classes(requests, r, outputs, names)
    )


class Client:
    """A connection to a served model.

    A long list goes out as several requests under way at once. What the server had no room for, and what a broken
    connection lost, is sent again, after a pause that grows; what it refused is not.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
        in_flight: int = IN_FLIGHT,
        tls: Tls | None = None,
        admin_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Connect to the gRPC endpoint `url` (HOST:PORT) and read what the server says of the model.

        Args:
            url: HOST:PORT.
            model: its name; without it the server must hold exactly one, or one named `encoder`.
            timeout_seconds: of each request, its retries included; the server drops what it cannot answer by then.
            retries: how often a request is sent again.
            in_flight: requests of one call under way at once.
            tls: the files of an encrypted connection; None: not encrypted.
            admin_key: of a server that lists its models only to who has it; None: XT_ADMIN_KEY, or what this
                machine's server noted for this user.
            headers: sent with every request.

        Raises:
            Unreachable: nothing answers at `url`.
            UnknownModel: the server does not hold `model`.
        """
        import tritonclient.grpc as grpc

        wire.check_address(url)
        self._grpc = grpc
        self.url = url
        self.timeout_seconds, self.retries = timeout_seconds, retries
        self._caller = wire.new_caller()
        self._headers = dict(headers or {})
        self._admin = wire.admin_headers(url, admin_key)
        self._client = grpc.InferenceServerClient(url, **(tls.options() if tls else {}))
        self._pool = ThreadPoolExecutor(in_flight, thread_name_prefix="xt-client")
        try:
            self.model = model or wire.default_model(self._index, self.url)
            self.served = self.describe(self.model)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _index(self) -> list[str]:
        headers = {**self._headers, **self._admin}
        try:
            index = self._client.get_model_repository_index(headers=headers, as_json=True, client_timeout=10)
        except self._grpc.InferenceServerException as error:
            raise wire.explain(error, self.url, None) from error
        return wire.ready_names(index)

    def describe(self, model: str) -> Served:
        """Ask the server what it says of a model."""
        try:
            answer = self._client.get_model_config(model, headers=self._headers, as_json=True, client_timeout=10)
        except self._grpc.InferenceServerException as error:
            raise wire.explain(error, self.url, model) from error
        return wire.describe(answer["config"], self.url)

    def encode(
        self,
        texts: Sequence[str],
        *,
        prefix: str | None = None,
        truncate: bool = False,
        dimensions: int | None = None,
        dtype: str = "float32",
    ) -> npt.NDArray[Any]:
        """Give the vectors of `texts`, (texts, dim); see `encode_full`."""
        return self.encode_full(texts, prefix=prefix, truncate=truncate, dimensions=dimensions, dtype=dtype).vectors

    def encode_full(
        self,
        texts: Sequence[str] | None = None,
        *,
        ids: Sequence[Sequence[int]] | None = None,
        prefix: str | None = None,
        truncate: bool = False,
        dimensions: int | None = None,
        dtype: str = "float32",
    ) -> Vectors:
        """Give vectors, and how many tokens each text has and whether it was cut.

        Args:
            texts: any number of them.
            ids: instead of texts, rows of token ids by the model's own tokenizer, prefix and special tokens included.
            prefix: the role whose prefix goes before each text (None: the encoder's default; "none": nothing).
            truncate: cut a text that is too long, and flag it, instead of raising.
            dimensions: keep the first so many, made unit length again.
            dtype: `float32`, `float16`, or `int8` with a scale for each row.

        Raises:
            InvalidRequest: a text or option that the server does not take; it names the text.
            ServerFull: it had no room, however often it was asked.
            DeadlinePassed: no answer in `timeout_seconds`.
            Unreachable: the connection was lost and did not come back.
        """
        return self._run(plan_encode(self.served, self._grpc, texts, ids, prefix, truncate, dimensions, dtype))

    def search(
        self,
        texts: Sequence[str],
        *,
        k: int | None = None,
        languages: str | Sequence[str] | None = None,
        prefix: str | None = None,
        truncate: bool = False,
    ) -> list[Found]:
        """Ask a `retriever` for the `k` likeliest documents of each text; raises as `encode_full` does.

        `languages`: of the texts, one for all or one each, where the calibrator knows languages.
        """
        return self._run(plan_search(self.served, self._grpc, texts, k, languages, prefix, truncate))

    def classify(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, truncate: bool = False
    ) -> Classified:
        """Ask a classifier, tagger or reader about `texts`; `pairs`: the second text of each, where it reads two."""
        return self._run(plan_classify(self.served, self._grpc, texts, pairs, truncate))

    def _run(self, plan: Plan[T]) -> T:
        outputs = wire.wanted(plan.model, plan.outputs, self._grpc)
        if len(plan.requests) == 1:  # no thread: one text shall cost little
            return plan.finish([self._send(plan, plan.requests[0], outputs, wire.UnderWay())])
        under_way = wire.UnderWay()
        futures = [self._pool.submit(self._send, plan, rows, outputs, under_way) for rows in plan.requests]
        try:
            return plan.finish([f.result() for f in futures])
        finally:
            for future in futures:
                future.cancel()

    def _send(self, plan: Plan[T], rows: list[int], outputs: list[Any], under_way: wire.UnderWay) -> Any:
        """Send one request until it is answered, refused, or out of time."""
        tensors = plan.inputs(rows)
        end = time.monotonic() + self.timeout_seconds
        waits = wire.pauses(self.retries)
        while True:
            left = end - time.monotonic()
            try:
                with under_way:
                    return self._client.infer(
                        plan.model.name,
                        tensors,
                        outputs=outputs,
                        parameters={**plan.parameters, "caller": self._caller},
                        timeout=max(1, int(left * 1e6)),
                        client_timeout=max(0.0, left) + wire.GRACE_SECONDS,
                        headers=self._headers,
                    )
            except self._grpc.InferenceServerException as error:
                explained = wire.explain(error, self.url, plan.model.name, rows)
                pause = under_way.pause(explained, waits)
                if pause is None or time.monotonic() + pause >= end:
                    raise explained from error
                time.sleep(pause)


class AsyncClient:
    """`Client` for asyncio: the same calls, awaited. It connects at the first of them; use it in one event loop."""

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
        in_flight: int = IN_FLIGHT,
        tls: Tls | None = None,
        admin_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Take the arguments of `Client`; only the address is checked here."""
        wire.check_address(url)
        self.url = url
        self.model = model
        self.timeout_seconds, self.retries, self.in_flight = timeout_seconds, retries, in_flight
        self._caller = wire.new_caller()
        self._options = tls.options() if tls else {}
        self._headers = dict(headers or {})
        self._admin = wire.admin_headers(url, admin_key)
        self._connection: Any = None
        self._served: dict[str, Served] = {}

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def client(self) -> Any:
        """The client of tritonclient."""
        if self._connection is None:
            import tritonclient.grpc.aio as grpc

            self._connection = grpc.InferenceServerClient(self.url, **self._options)
        return self._connection

    @property
    def _grpc(self) -> Any:
        import tritonclient.grpc as grpc

        return grpc

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def models(self) -> list[str]:
        """Give the names of the ready models; Restricted when the server tells them only to who has its key."""
        headers = {**self._headers, **self._admin}
        try:
            index = await self.client.get_model_repository_index(headers=headers, as_json=True, client_timeout=10)
        except self._grpc.InferenceServerException as error:
            raise wire.explain(error, self.url, None) from error
        return wire.ready_names(index)

    async def describe(self, model: str | None = None) -> Served:
        """Ask the server what it says of a model (None: the client's)."""
        if model is None:
            if self.model is None:
                try:
                    names = await self.models()
                except wire.Restricted as restricted:
                    names = wire.unlisted(restricted)
                self.model = wire.choose_default(names, self.url)
            model = self.model
        try:
            answer = await self.client.get_model_config(model, headers=self._headers, as_json=True, client_timeout=10)
        except self._grpc.InferenceServerException as error:
            raise wire.explain(error, self.url, model) from error
        self._served[model] = wire.describe(answer["config"], self.url)
        return self._served[model]

    async def _known(self, model: str | Served | None) -> Served:
        if isinstance(model, Served):
            return model
        return self._served.get(model or self.model or "") or await self.describe(model)

    async def encode(
        self,
        texts: Sequence[str],
        *,
        prefix: str | None = None,
        truncate: bool = False,
        dimensions: int | None = None,
        dtype: str = "float32",
    ) -> npt.NDArray[Any]:
        """Give the vectors of `texts`; see `Client.encode`."""
        full = await self.encode_full(texts, prefix=prefix, truncate=truncate, dimensions=dimensions, dtype=dtype)
        return full.vectors

    async def encode_full(
        self,
        texts: Sequence[str] | None = None,
        *,
        ids: Sequence[Sequence[int]] | None = None,
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
        plan = plan_encode(known, self._grpc, texts, ids, prefix, truncate, dimensions, dtype)
        return await self._run(plan, request_id, caller)

    async def search(
        self,
        texts: Sequence[str],
        *,
        k: int | None = None,
        languages: str | Sequence[str] | None = None,
        prefix: str | None = None,
        truncate: bool = False,
        model: str | Served | None = None,
        request_id: str = "",
        caller: str | None = None,
    ) -> list[Found]:
        """Ask a `retriever`; see `Client.search`."""
        known = await self._known(model)
        plan = plan_search(known, self._grpc, texts, k, languages, prefix, truncate)
        return await self._run(plan, request_id, caller)

    async def classify(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        truncate: bool = False,
        model: str | Served | None = None,
        request_id: str = "",
        caller: str | None = None,
    ) -> Classified:
        """Ask a classifier, tagger or reader; see `Client.classify`."""
        known = await self._known(model)
        return await self._run(plan_classify(known, self._grpc, texts, pairs, truncate), request_id, caller)

    async def _run(self, plan: Plan[T], request_id: str, caller: str | None) -> T:
        outputs = wire.wanted(plan.model, plan.outputs, self._grpc)
        free = asyncio.Semaphore(self.in_flight)
        under_way = wire.UnderWay()

        async def send(rows: list[int]) -> Any:
            async with free:
                return await self._send(plan, rows, outputs, request_id, caller, under_way)

        tasks = [asyncio.ensure_future(send(rows)) for rows in plan.requests]
        try:
            return plan.finish(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def _send(
        self,
        plan: Plan[T],
        rows: list[int],
        outputs: list[Any],
        request_id: str,
        caller: str | None,
        under_way: wire.UnderWay,
    ) -> Any:
        tensors = plan.inputs(rows)
        end = time.monotonic() + self.timeout_seconds
        waits = wire.pauses(self.retries)
        while True:
            left = end - time.monotonic()
            try:
                with under_way:
                    return await self.client.infer(
                        plan.model.name,
                        tensors,
                        outputs=outputs,
                        parameters={**plan.parameters, "caller": caller or self._caller},
                        request_id=request_id,
                        timeout=max(1, int(left * 1e6)),
                        client_timeout=max(0.0, left) + wire.GRACE_SECONDS,
                        headers=self._headers,
                    )
            except self._grpc.InferenceServerException as error:
                explained: XtError = wire.explain(error, self.url, plan.model.name, rows)
                pause = under_way.pause(explained, waits)
                if pause is None or time.monotonic() + pause >= end:
                    raise explained from error
                await asyncio.sleep(pause)
