"""A server that is lost or restarting is waited for until the caller's deadline; a wrong address is named soon.

Tests `serve/client/connection.py` and `serve/client/errors.py` as well.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc as rpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from xt.serve import AsyncClient, Client
from xt.serve.client import errors as client_errors
from xt.serve.client.encoder import TritonEncoder
from xt.serve.client.errors import BadConnection, Patience, ServerFull, Tries, Unreachable, explain
from xt.serve.triton.addresses import free_ports


class Gate:
    """A real gRPC proxy before Triton, on one port, that can be closed and opened again, and answers UNAVAILABLE."""

    def __init__(self, url: str):
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(rpc.insecure_channel(url))
        (self.port,) = free_ports(1)
        self.url = f"127.0.0.1:{self.port}"
        self.says = ""
        self.seen = []
        self.server = None

    def open(self):
        outer = self

        class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
            def ModelConfig(self, request, context):
                return outer.pass_on(context, outer.stub.ModelConfig, request)

            def RepositoryIndex(self, request, context):
                return outer.pass_on(context, outer.stub.RepositoryIndex, request)

            def ModelInfer(self, request, context):
                outer.seen.append(request)
                return outer.pass_on(context, outer.stub.ModelInfer, request)

        self.server = rpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(), self.server)
        assert self.server.add_insecure_port(self.url) == self.port
        self.server.start()

    def pass_on(self, context, call, request):
        if self.says:
            context.abort(rpc.StatusCode.UNAVAILABLE, self.says)
        try:
            return call(request, metadata=list(context.invocation_metadata()))
        except rpc.RpcError as error:
            context.abort(error.code(), error.details())

    def close(self):
        if self.server is not None:
            self.server.stop(None).wait()
            self.server = None

    def after(self, seconds, act):
        timer = threading.Timer(seconds, act)
        timer.start()
        return timer


@pytest.fixture
def gate(server):
    gate = Gate(server.url)
    yield gate
    gate.close()


def test_a_server_that_comes_back_before_the_deadline_loses_no_call(gate):
    gate.open()
    texts = [f"word{i} guten morgen" for i in range(300)]
    with Client(gate.url, "encoder", timeout_seconds=30, retries=0) as client, ThreadPoolExecutor(4) as pool:
        client.encode(texts[:1])
        gate.close()
        calls = [pool.submit(client.encode, texts[i:]) for i in range(4)]
        time.sleep(4)  # longer than all pauses of five retries together
        assert not any(call.done() for call in calls)
        gate.open()
        back = time.monotonic()
        assert [call.result().shape for call in calls] == [(300 - i, 32) for i in range(4)]
        assert time.monotonic() - back < 10  # gRPC's own pauses are short too


def test_the_asynchronous_client_and_the_encoder_of_evaluations_wait_too(gate):
    gate.open()
    encoder = TritonEncoder(gate.url, "encoder")

    async def ask():
        async with AsyncClient(gate.url, "encoder", timeout_seconds=30, retries=0) as client:
            await client.encode(["good"])
            gate.close()
            timer = gate.after(3, gate.open)
            found = await asyncio.gather(client.encode(["good"]), asyncio.to_thread(encoder.encode, ["good"]))
            timer.join()
            return found

    vectors, encoded = asyncio.run(ask())
    assert vectors.shape == encoded.vectors.shape == (1, 32)
    encoder.close()


def test_the_server_is_given_the_time_that_is_left(gate):
    gate.open()
    with Client(gate.url, "encoder", timeout_seconds=20) as client:
        gate.says = "Server not ready"
        gate.after(1.0, lambda: setattr(gate, "says", ""))
        client.encode(["good"])
    times = [request.parameters["timeout"].int64_param / 1e6 for request in gate.seen]
    assert len(times) > 2
    assert times == sorted(times, reverse=True)
    assert 19 < times[0] <= 20
    assert times[-1] < 19.2


def test_a_client_that_is_made_while_the_server_starts_waits_as_long_as_its_requests_may(gate):
    gate.after(1.5, gate.open)
    with Client(gate.url, timeout_seconds=30) as client:
        assert client.encode(["good"]).shape == (1, 32)


@pytest.mark.parametrize(("options", "least", "most"), [({}, 4, 7), ({"wait_seconds": 0.4}, 0.1, 1.5)], ids=str)
def test_an_address_where_nothing_answers_is_named_within_a_stated_time(options, least, most):
    (port,) = free_ports(1)
    start = time.monotonic()
    with pytest.raises(Unreachable, match=f"No server answers at 127.0.0.1:{port} .*tried .* times"):
        Client(f"127.0.0.1:{port}", **options)
    assert least < time.monotonic() - start < most


def test_a_lost_server_is_waited_for_no_longer_than_the_gateway_says(gate):
    gate.open()

    async def ask():
        async with AsyncClient(gate.url, "encoder", timeout_seconds=30, lost_seconds=0.6) as client:
            await client.encode(["good"])
            gate.close()
            start = time.monotonic()
            with pytest.raises(Unreachable):
                await client.encode(["good"])
            once = time.monotonic() - start
            with pytest.raises(Unreachable):
                await client.describe("encoder", lost_seconds=0.1)
            return once, time.monotonic() - start - once

    call, probe = asyncio.run(ask())
    assert 0.3 < call < 3
    assert probe < 2


@pytest.mark.parametrize(
    "words", ["Server not ready", "The model is shutting down.", "Socket closed", "GOAWAY received"]
)
def test_unavailable_without_a_full_queue_is_a_server_that_is_not_there(words):
    error = explain(Refusal("StatusCode.UNAVAILABLE", words), "127.0.0.1:1", "encoder")
    assert type(error) is Unreachable
    assert client_errors.may_retry(error)


def test_a_full_queue_is_tried_as_often_as_said_and_a_lost_server_between_does_not_count():
    full, lost = ServerFull("full"), Unreachable("lost")
    tries = Tries(Patience(60, full=2))
    assert [tries.pause(e) is not None for e in (lost, full, lost, lost, full, lost, full)] == [True] * 6 + [False]
    assert Tries(Patience(60, full=0)).pause(full) is None
    assert Tries(Patience(60, full=0)).pause(full, siblings=True) is not None
    assert Tries(Patience(0.01)).pause(lost) is None  # the pause would outlast the deadline
    assert Tries(Patience(60)).pause(BadConnection("certificate")) is None
    assert Tries(Patience(60)).pause(client_errors.InvalidRequest("too long")) is None


class Refusal(Exception):
    def __init__(self, status, message):
        self.status, self.message = (lambda: status), (lambda: message)
