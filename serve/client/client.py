"""Asking a server from Python: `Client` and, for asyncio, `AsyncClient`. Texts in, numpy out, errors as XtError."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import numpy.typing as npt

from xt.core.arguments import seconds, whole_number
from xt.serve.client import wire
from xt.serve.client.connection import (
    META_SECONDS,
    Connection,
    check_address,
    check_headers,
    check_model,
    client_options,
    connect_seconds,
    meta_error,
    request_seconds,
)
from xt.serve.client.errors import Patience, Tries, UnderWay
from xt.serve.client.plans import Plan, plan_classify, plan_encode, plan_search
from xt.serve.client.wire import Classified, Found, Served, Tls, Vectors

T = TypeVar("T")
TIMEOUT_SECONDS = 60.0
RETRIES = 5
IN_FLIGHT = 4
"""Requests of one call under way at once: the server tokenises some while it computes others."""
MAX_RETRIES = 10_000
MAX_IN_FLIGHT = 256


@dataclass(frozen=True)
class Options:
    """What both clients are made with, checked."""

    timeout_seconds: float
    retries: int
    in_flight: int
    wait_seconds: float
    """How long a server that does not answer yet is waited for at the first connection."""

    @classmethod
    def of(cls, timeout_seconds: Any, retries: Any, in_flight: Any, wait_seconds: Any) -> Options:
        """Check them; XtError names the first that is not what it should be."""
        return cls(
            request_seconds(timeout_seconds, TIMEOUT_SECONDS),
            whole_number(retries, "retries", 0, MAX_RETRIES),
            whole_number(in_flight, "in_flight", 1, MAX_IN_FLIGHT),
            connect_seconds(wait_seconds, timeout_seconds),
        )


class Client:
    """A connection to a served model.

    A long list goes out as several requests under way at once. What a lost or restarting server left unanswered is
    sent again until the deadline, what it had no room for as often as `retries` says, after pauses that grow; what it
    refused is not.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        timeout_seconds: float | None = None,
        retries: int = RETRIES,
        in_flight: int = IN_FLIGHT,
        wait_seconds: float | None = None,
        tls: Tls | None = None,
        admin_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Connect to the gRPC endpoint `url` (HOST:PORT) and read what the server says of the model.

        Args:
            url: HOST:PORT.
            model: its name; without it the server must hold exactly one, or one named `encoder`.
            timeout_seconds: of each request, its retries included; the server drops what it cannot answer by then.
                None: 60.
            retries: how often a request is sent again to a server that is full. One that is lost or restarting is
                waited for until the deadline, whatever this is.
            in_flight: requests of one call under way at once.
            wait_seconds: how long a server that does not answer yet is waited for here; None: `timeout_seconds` where
                that is given, else 5.
            tls: the files of an encrypted connection; None: not encrypted.
            admin_key: of a server that lists its models only to who has it; None: XT_ADMIN_KEY, or what this
                machine's server noted for this user.
            headers: sent with every request.

        Raises:
            Unreachable: nothing answers at `url`.
            UnknownModel: the server does not hold `model`.
            XtError: an argument that is none of the above.
        """
        options = Options.of(timeout_seconds, retries, in_flight, wait_seconds)
        check_model(model)
        self._connection = Connection(url, tls=tls, admin_key=admin_key, headers=headers)
        self._grpc, self._client = self._connection.grpc, self._connection.client
        self.url = url
        self.timeout_seconds, self.retries = options.timeout_seconds, options.retries
        self._pool = ThreadPoolExecutor(options.in_flight, thread_name_prefix="xt-client")
        try:
            tries = Tries(Patience(options.wait_seconds))
            self.model = model or wire.default_model(lambda: self._connection.models(tries), self.url)
            self.served = wire.describe(self._connection.config(self.model, tries), self.url)
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
        self._connection.close()

    def describe(self, model: str) -> Served:
        """Ask the server what it says of a model."""
        check_model(model)
        return wire.describe(self._connection.config(model, Tries(Patience(self.timeout_seconds))), self.url)

    def encode(
        self,
        texts: Iterable[str],
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
        texts: Iterable[str] | None = None,
        *,
        ids: Iterable[Iterable[int]] | None = None,
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
        texts: Iterable[str],
        *,
        k: int | None = None,
        languages: str | Iterable[str] | None = None,
        prefix: str | None = None,
        truncate: bool = False,
    ) -> list[Found]:
        """Ask a `retriever` for the `k` likeliest documents of each text; raises as `encode_full` does.

        `languages`: of the texts, one for all or one each, where the calibrator knows languages.
        """
        return self._run(plan_search(self.served, self._grpc, texts, k, languages, prefix, truncate))

    def classify(
        self, texts: Iterable[str], pairs: Iterable[str] | None = None, *, truncate: bool = False
    ) -> Classified:
        """Ask a classifier, tagger or reader about `texts`; `pairs`: the second text of each, where it reads two."""
        return self._run(plan_classify(self.served, self._grpc, texts, pairs, truncate))

    def _run(self, plan: Plan[T]) -> T:
        outputs = wire.wanted(plan.model, plan.outputs, self._grpc)
        if len(plan.requests) == 1:  # no thread: one text shall cost little
            return plan.finish([self._send(plan, plan.requests[0], outputs, UnderWay())])
        under_way = UnderWay()
        futures = [self._pool.submit(self._send, plan, rows, outputs, under_way) for rows in plan.requests]
        try:
            return plan.finish([f.result() for f in futures])
        finally:
            for future in futures:
                future.cancel()

    def _send(self, plan: Plan[T], rows: list[int], outputs: list[Any], under_way: UnderWay) -> Any:
        return self._connection.infer(
            plan.model.name,
            plan.inputs(rows),
            outputs,
            plan.parameters,
            Patience(self.timeout_seconds, self.retries),
            rows=rows,
            under_way=under_way,
        )


class AsyncClient:
    """`Client` for asyncio: the same calls, awaited. It connects at the first of them; use it in one event loop."""

    def __init__(
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
        check_address(url)
        self.url = url
        self.model = check_model(model)
        self.timeout_seconds, self.retries, self.in_flight = options.timeout_seconds, options.retries, options.in_flight
        self.wait_seconds = options.wait_seconds
        self.lost_seconds = None if lost_seconds is None else seconds(lost_seconds, "lost_seconds")
        self._caller = wire.new_caller()
        self._options = client_options(url, tls)
        self._headers = check_headers(headers)
        self._admin = wire.admin_headers(url, admin_key)
        self._connection: Any = None
        self._answered = False
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

    async def models(self, *, lost_seconds: float | None = None) -> list[str]:
        """Return the names of the ready models; Restricted when the server tells them only to who has its key.

        `lost_seconds`: how long a server that does not answer is waited for; None: as this client does.
        """
        headers = {**self._headers, **self._admin}

        async def ask(timeout: float) -> list[str]:
            index = await self.client.get_model_repository_index(headers=headers, as_json=True, client_timeout=timeout)
            return wire.ready_names(index, self.url)

        return await self._meta(ask, None, lost_seconds)

    async def describe(self, model: str | None = None, *, lost_seconds: float | None = None) -> Served:
        """Ask the server what it says of a model (None: the client's); `lost_seconds`: see `models`."""
        if model is None:
            if self.model is None:
                try:
                    names = await self.models(lost_seconds=lost_seconds)
                except wire.Restricted as restricted:
                    names = wire.unlisted(restricted)
                self.model = wire.choose_default(names, self.url)
            model = self.model
        name = model

        async def ask(timeout: float) -> Served:
            headers = self._headers
            answer = await self.client.get_model_config(name, headers=headers, as_json=True, client_timeout=timeout)
            return wire.describe(answer["config"], self.url)

        self._served[name] = await self._meta(ask, name, lost_seconds)
        return self._served[name]

    async def _meta(self, ask: Callable[[float], Awaitable[T]], model: str | None, lost_seconds: float | None) -> T:
        """Ask for facts until they are given, refused, or the time is over."""
        bound = self.lost_seconds if lost_seconds is None else lost_seconds
        longest = META_SECONDS if bound is None else max(1.0, min(META_SECONDS, bound))
        tries = Tries(Patience(self.timeout_seconds if self._answered else self.wait_seconds, lost_seconds=bound))
        while True:
            try:
                answer = await ask(max(0.1, min(longest, tries.left)))
            except (self._grpc.InferenceServerException, wire.Unreachable) as error:
                explained = meta_error(error, self.url, model)
                pause = tries.pause(explained)
                if pause is None:
                    raise tries.last(explained) from error
                await asyncio.sleep(pause)
            else:
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
        """Give the vectors of `texts`; see `Client.encode`."""
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
        plan = plan_encode(known, self._grpc, texts, ids, prefix, truncate, dimensions, dtype)
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
        plan = plan_search(known, self._grpc, texts, k, languages, prefix, truncate)
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
        return await self._run(plan_classify(known, self._grpc, texts, pairs, truncate), request_id, caller)

    async def _run(self, plan: Plan[T], request_id: str, caller: str | None) -> T:
        outputs = wire.wanted(plan.model, plan.outputs, self._grpc)
        free = asyncio.Semaphore(self.in_flight)
        under_way = UnderWay()

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
        under_way: UnderWay,
    ) -> Any:
        tensors = plan.inputs(rows)
        tries = Tries(Patience(self.timeout_seconds, self.retries, self.lost_seconds))
        while True:
            left = tries.left
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
                explained = wire.explain(error, self.url, plan.model.name, rows)
                pause = tries.pause(explained, siblings=under_way.count > 0)
                if pause is None:
                    raise tries.last(explained) from error
                await asyncio.sleep(pause)
