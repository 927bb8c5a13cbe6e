"""gRPC connections to a Triton server, of threads and of asyncio: calls that survive a restart.

Both kinds share what a call is (`Call`), when it is sent again and what its errors mean; they differ in how they wait.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from xt.core.errors import XtError, require
from xt.serve.client.address import Tls, admin_headers, check_address, check_headers, client_options, new_caller
from xt.serve.client.errors import (
    DeadlinePassed,
    InvalidRequest,
    Patience,
    Restricted,
    Tries,
    UnderWay,
    Unreachable,
    explain,
)
from xt.serve.client.models import ready_names
from xt.serve.client.plans import Plan
from xt.serve.client.wire import Tensor

META_SECONDS = 10.0
"""The longest that one question for facts, not for a model's answers, may take."""
GRACE_SECONDS = 0.25
"""How much longer than the server the client waits, so that the answer to a passed deadline is the server's."""
T = TypeVar("T")


@dataclass(frozen=True)
class Call(Generic[T]):
    """One call of tritonclient: it may be made several times."""

    method: str
    """Of tritonclient's client; both kinds have the same."""
    arguments: Callable[[float], dict[str, Any]]
    """What it takes, given the seconds that are left."""
    read: Callable[[Any], T]
    """Makes what the caller gets of its answer; may raise Unreachable, and the call is then made again."""
    model: str | None = None
    rows: Sequence[int] | None = None
    """Places of its texts in the caller's list, for errors."""
    facts: bool = True
    """Whether it asks for facts: a server that does not answer that in time is lost, or hangs."""


class Endpoint:
    """A server as one client knows it: address, TLS, headers, caller. It makes calls; its kinds send them."""

    def __init__(
        self,
        url: str,
        *,
        tls: Tls | None = None,
        admin_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Take HOST:PORT, the files of an encrypted connection, the server's admin key, and headers of every call."""
        require("tritonclient", extra="serve", purpose="Asking a Triton server")
        import tritonclient.grpc as grpc

        self.url = check_address(url)
        self.grpc = grpc
        self.caller = new_caller()
        self.headers = check_headers(headers)
        self.admin = {**self.headers, **admin_headers(url, admin_key)}
        self.options = client_options(url, tls)

    def list_models(self, longest: float = META_SECONDS) -> Call[list[str]]:
        """Make the call for the names of the ready models; the server may tell them only to who has its key."""
        return self._facts("get_model_repository_index", lambda a: ready_names(a, self.url), longest, self.admin)

    def read_config(self, model: str, longest: float = META_SECONDS) -> Call[dict[str, Any]]:
        """Make the call for a model's configuration, as JSON of the protobuf."""
        return self._facts("get_model_config", lambda a: dict(a["config"]), longest, self.headers, model)

    def _facts(
        self, method: str, read: Callable[[Any], T], longest: float, headers: dict[str, str], model: str | None = None
    ) -> Call[T]:
        named = {} if model is None else {"model_name": model}

        def arguments(left: float) -> dict[str, Any]:
            return {**named, "headers": headers, "as_json": True, "client_timeout": max(0.1, min(longest, left))}

        return Call(method, arguments, read, model)

    def infer(
        self, plan: Plan[Any], rows: Sequence[int], *, request_id: str = "", caller: str | None = None
    ) -> Call[Any]:
        """Make the call for one request of a plan; the server gets the time that is left.

        Args:
            plan: of the whole call.
            rows: places of the request's texts in the caller's list.
            request_id: what the server calls it.
            caller: whose it is, by which the server shares its work fairly; None: this client's own.
        """
        tensors = [self._input(tensor) for tensor in plan.inputs(list(rows))]
        outputs = [self.grpc.InferRequestedOutput(name) for name in plan.outputs]
        parameters = {**plan.parameters, "caller": caller or self.caller}

        def arguments(left: float) -> dict[str, Any]:
            return {
                "model_name": plan.model.name,
                "inputs": tensors,
                "outputs": outputs,
                "parameters": parameters,
                "request_id": request_id,
                "timeout": max(1, int(left * 1e6)),
                "client_timeout": max(0.0, left) + GRACE_SECONDS,
                "headers": self.headers,
            }

        return Call("infer", arguments, lambda answer: answer, plan.model.name, rows, facts=False)

    def _input(self, tensor: Tensor) -> Any:
        made = self.grpc.InferInput(tensor.name, list(tensor.data.shape), tensor.datatype)
        made.set_data_from_numpy(tensor.data)
        return made

    def pause_after(self, error: Exception, call: Call[Any], tries: Tries, *, siblings: bool = False) -> float:
        """Return how long to wait until a failed call is made again; raises what the error means when it is not.

        siblings: whether other requests of the same call are under way, whose answers free the queue.
        """
        explained = error if isinstance(error, XtError) else explain(error, self.url, call.model, call.rows)
        if call.facts and isinstance(explained, DeadlinePassed):
            explained = Unreachable(f"The server at {self.url} does not answer.", "Does it hang? Read its log.")
        pause = tries.pause(explained, siblings=siblings)
        if pause is None:
            raise tries.last(explained) from error
        return pause


class Connection(Endpoint):
    """A connection of threads: each call is tried until it is answered, refused, or out of time."""

    def __init__(
        self,
        url: str,
        *,
        tls: Tls | None = None,
        admin_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        in_flight: int = 1,
    ) -> None:
        """Take what `Endpoint` does, and how many requests of one call may be under way at once."""
        super().__init__(url, tls=tls, admin_key=admin_key, headers=headers)
        self.client = self.grpc.InferenceServerClient(url, **self.options)
        self._pool = ThreadPoolExecutor(in_flight, thread_name_prefix="xt-client")

    def close(self) -> None:
        """Close the connection."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.client.close()

    def models(self, tries: Tries) -> list[str]:
        """Return the names of the ready models; Restricted when the server tells them only to who has its key."""
        return self.send(self.list_models(), tries)

    def config(self, model: str, tries: Tries) -> dict[str, Any]:
        """Return a model's configuration, as JSON of the protobuf."""
        return self.send(self.read_config(model), tries)

    def send(self, call: Call[T], tries: Tries, under_way: UnderWay | None = None) -> T:
        """Make a call until it is answered; `under_way` counts the requests of the same plan."""
        others = UnderWay() if under_way is None else under_way
        while True:
            try:
                with others:
                    return call.read(getattr(self.client, call.method)(**call.arguments(tries.left)))
            except (self.grpc.InferenceServerException, Unreachable) as error:
                pause = self.pause_after(error, call, tries, siblings=others.count > 0)
            time.sleep(pause)

    def run(self, plan: Plan[T], patience: Patience) -> T:
        """Send the requests of a plan, several at once, and put their answers together."""
        plan.check_outputs()
        under_way = UnderWay()

        def one(rows: list[int]) -> Any:
            return self.send(self.infer(plan, rows), Tries(patience), under_way)

        if len(plan.requests) == 1:  # no thread: one text shall cost little
            return plan.finish([one(plan.requests[0])])
        futures = deque(self._pool.submit(one, rows) for rows in plan.requests)

        def answers() -> Iterator[Any]:
            while futures:  # an answer that was read is let go: an evaluation has many
                yield futures.popleft().result()

        try:
            return plan.finish(answers())
        finally:
            for future in futures:
                future.cancel()

    def load(self, model: str, timeout: float | None) -> None:
        """Have the server load a model anew, and wait until it did.

        Raises DeadlinePassed, Unreachable, Restricted without the admin key, and else InvalidRequest with what the
        server says of the model.
        """
        try:
            self.client.load_model(model, headers=self.admin, client_timeout=timeout)
        except self.grpc.InferenceServerException as error:
            explained = explain(error, self.url, model)
            if isinstance(explained, (DeadlinePassed, Unreachable, Restricted)):
                raise explained from error
            raise InvalidRequest(str(error.message())) from error

    def check_live(self, timeout: float) -> None:
        """Raise XtError, with the connection's own words, unless the server answers that it lives; asked once."""
        try:
            self.client.is_server_live(client_timeout=timeout)
        except self.grpc.InferenceServerException as error:
            raise XtError(str(error.message())) from error


class AsyncConnection(Endpoint):
    """The same for asyncio, in one event loop; it connects at the first call."""

    _client: Any = None

    @property
    def client(self) -> Any:
        """The client of tritonclient, made in the loop that uses it."""
        if self._client is None:
            import tritonclient.grpc.aio as grpc

            self._client = grpc.InferenceServerClient(self.url, **self.options)
        return self._client

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def send(self, call: Call[T], tries: Tries, under_way: UnderWay | None = None) -> T:
        """Make a call until it is answered; see `Connection.send`."""
        others = UnderWay() if under_way is None else under_way
        while True:
            try:
                with others:
                    return call.read(await getattr(self.client, call.method)(**call.arguments(tries.left)))
            except (self.grpc.InferenceServerException, Unreachable) as error:
                pause = self.pause_after(error, call, tries, siblings=others.count > 0)
            await asyncio.sleep(pause)

    async def run(
        self, plan: Plan[T], patience: Patience, *, in_flight: int, request_id: str = "", caller: str | None = None
    ) -> T:
        """Send the requests of a plan, `in_flight` at once, and put their answers together; see `Endpoint.infer`."""
        plan.check_outputs()
        free = asyncio.Semaphore(in_flight)
        under_way = UnderWay()

        async def one(rows: list[int]) -> Any:
            async with free:
                call = self.infer(plan, rows, request_id=request_id, caller=caller)
                return await self.send(call, Tries(patience), under_way)

        tasks = [asyncio.ensure_future(one(rows)) for rows in plan.requests]
        try:
            return plan.finish(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
