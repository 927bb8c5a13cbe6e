"""What a caller of `xt.serve.Client` is promised: vectors in order, the right error, retries of what may be retried.

Tests `serve/client/async_client.py`, `serve/client/wire.py` and `serve/client/plans.py` as well.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tritonclient.grpc as grpc

import xt.serve
from xt.core.encoder.onnx_engine import load_model
from xt.core.errors import XtError
from xt.serve.client import errors as client_errors
from xt.serve.client import wire
from xt.serve.client.models import Served
from xt.serve.triton.addresses import free_ports

WORDS = "good morning world the cat sleeps today guten morgen welt habari za asubuhi bonjour tout le monde".split()


def sentences(count, longest=30, seed=0):
    random = np.random.default_rng(seed)
    return [f"word{i} " + " ".join(random.choice(WORDS, random.integers(1, longest))) for i in range(count)]


def cosine(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.fixture(scope="module")
def onnx(tiny_repository):
    return load_model(tiny_repository / "encoder", device="cpu")[0]


@pytest.fixture(scope="module")
def client(server):
    with xt.serve.Client(server.url) as opened:
        yield opened


class Refusing:
    """A real gRPC proxy before Triton that answers UNAVAILABLE to the first inferences, with the words it is given."""

    def __init__(self, url: str, refusals: int, words: str, code="UNAVAILABLE"):
        from concurrent.futures import ThreadPoolExecutor

        import grpc as rpc
        from tritonclient.grpc import service_pb2_grpc

        self.left, self.seen = refusals, []
        outer, stub = self, service_pb2_grpc.GRPCInferenceServiceStub(rpc.insecure_channel(url))

        class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
            def ModelConfig(self, request, context):
                return stub.ModelConfig(request)

            def ModelInfer(self, request, context):
                outer.seen.append(request)
                if outer.left > 0:
                    outer.left -= 1
                    context.abort(getattr(rpc.StatusCode, code), words)
                return stub.ModelInfer(request)

        self.server = rpc.server(ThreadPoolExecutor(8))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(), self.server)
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.url = f"127.0.0.1:{port}"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.server.stop(None).wait()


def test_importing_the_folder_imports_neither_numpy_nor_grpc():
    code = "import sys, xt.serve; print([m for m in ('numpy', 'grpc', 'tritonclient', 'fastapi') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
    assert xt.serve.Client.__name__ == "Client"
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        xt.serve.Nonsense  # noqa: B018


def test_vectors_are_those_of_onnx_runtime_here_in_the_order_of_the_texts(client, onnx):
    texts = sentences(700)
    found, here = client.encode_full(texts), onnx.encode(texts)
    assert found.vectors.dtype == np.float32
    assert cosine(found.vectors, here.vectors).min() >= 0.99999
    np.testing.assert_array_equal(found.tokens, here.tokens)
    assert not found.truncated.any()
    np.testing.assert_array_equal(client.encode(texts[:3]), found.vectors[:3].astype(np.float32))


def test_no_texts_give_no_vectors(client):
    assert client.encode([]).shape == (0, 32)
    assert client.encode([], dimensions=8).shape == (0, 8)


@pytest.mark.parametrize(("dtype", "least"), [("float16", 0.99999), ("int8", 0.999)])
def test_smaller_types_are_near(client, dtype, least):
    texts = sentences(9)
    full, small = client.encode(texts), client.encode_full(texts, dtype=dtype)
    assert small.vectors.dtype == np.dtype(dtype)
    assert cosine(full, small.vectors).min() >= least
    if dtype == "int8":
        np.testing.assert_allclose(small.vectors * small.scale[:, None], full, atol=small.scale.max())


def test_fewer_dimensions_are_the_first_ones_made_unit_length(client):
    full, short = client.encode(["the cat sleeps"]), client.encode(["the cat sleeps"], dimensions=8)
    np.testing.assert_allclose(short, full[:, :8] / np.linalg.norm(full[:, :8]), atol=1e-5)


def test_token_ids_give_the_vector_of_their_text(client, onnx):
    texts = sentences(5)
    ids, _ = onnx.tokenizer(texts, prefix="query: ")
    found = client.encode_full(ids=[row.tolist() for row in ids])
    assert cosine(found.vectors, client.encode(texts, prefix="query")).min() >= 0.99999
    assert found.tokens.tolist() == [len(row) for row in ids]


def test_the_prefix_is_the_callers(client, onnx):
    for prefix in ("query", "passage", "none"):
        here = onnx.encode(["the cat"], prefix=prefix).vectors
        assert cosine(client.encode(["the cat"], prefix=prefix), here).min() >= 0.99999
    assert cosine(client.encode(["the cat"], prefix="none"), client.encode(["the cat"])).max() < 0.999


def test_a_long_text_is_refused_by_its_place_in_the_whole_list_and_cut_on_request(client):
    texts = sentences(600)
    texts[417] = "good " * 100
    with pytest.raises(client_errors.InvalidRequest, match="text 417 has 103 tokens; the encoder reads at most 64"):
        client.encode(texts)
    found = client.encode_full(texts, truncate=True)
    assert np.flatnonzero(found.truncated).tolist() == [417]
    assert found.tokens[417] == 64


@pytest.mark.parametrize(
    ("texts", "options", "says"),
    [
        (["good", ""], {}, "text 1 is empty"),
        (["good\0"], {}, "text 0 holds a NUL"),
        (["good", 5], {}, "text 1 is int"),
        ("good", {}, "texts is one string"),
        (["good"], {"prefix": "qery"}, "Unknown prefix 'qery'. Did you mean query"),
        (["good"], {"dimensions": 1000}, "dimensions"),
        (["good"], {"dtype": "int4"}, "Unknown dtype 'int4'"),
    ],
)
def test_what_is_wrong_is_named(client, texts, options, says):
    with pytest.raises(XtError, match=says):
        client.encode(texts, **options)


def test_a_search_in_an_encoder_is_an_error_that_says_what_it_gives(client):
    with pytest.raises(XtError, match="Unknown output of 'encoder' 'ids'"):
        client.search(["good"])


def test_what_the_server_had_no_room_for_is_sent_again(server):
    full = "The queue is full: 9 requests wait."
    with Refusing(server.url, 3, full) as proxy, xt.serve.Client(proxy.url, "encoder") as client:
        start = time.monotonic()
        assert client.encode(["good"]).shape == (1, 32)
        assert len(proxy.seen) == 4
        assert time.monotonic() - start >= 0.5 * (0.05 + 0.1 + 0.2)  # it paused, longer each time
        left = [r.parameters["timeout"].int64_param for r in proxy.seen]
        assert left == sorted(left, reverse=True)  # the deadline is the call's, not the attempt's
        assert 50e6 < left[0] <= 60e6


def test_a_server_that_stays_full_is_said_to_be_full_not_absent(server):
    words = "The queue is full: 9 requests wait."
    with Refusing(server.url, 99, words) as proxy, xt.serve.Client(proxy.url, "encoder", retries=2) as client:
        with pytest.raises(client_errors.ServerFull, match="is full: The queue is full") as full:
            client.encode(["good"])
        assert len(proxy.seen) == 3
    (port,) = free_ports(1)
    with pytest.raises(client_errors.Unreachable, match="No server answers") as absent:
        xt.serve.Client(f"127.0.0.1:{port}", wait_seconds=0.2)
    assert "xt serve" in absent.value.hint
    assert "again later" in full.value.hint


@pytest.mark.parametrize(
    ("code", "words", "says"),
    [
        ("NOT_FOUND", "Request for unknown model: 'encoder' has no available versions", "'encoder' at .* is not ready"),
        ("CANCELLED", "CANCELLED", "is ending"),
        ("UNAVAILABLE", "Server is stopping, scheduler for model has stopped accepting new requests", "is ending"),
    ],
)
def test_what_an_ending_server_and_a_model_that_is_loaded_anew_leave_undone_is_sent_again(server, code, words, says):
    with Refusing(server.url, 2, words, code) as proxy, xt.serve.Client(proxy.url, "encoder") as client:
        assert client.encode(["good"]).shape == (1, 32)
        assert len(proxy.seen) == 3
    with (
        Refusing(server.url, 99, words, code) as proxy,
        xt.serve.Client(proxy.url, "encoder", timeout_seconds=1, retries=0) as client,
    ):
        start = time.monotonic()
        with pytest.raises(client_errors.Unreachable, match=says) as error:
            client.encode(["good"])
        assert time.monotonic() - start < 1.5  # until the deadline, however few the retries of a full server
        assert f"tried {len(proxy.seen)} times" in error.value.message
        assert 3 < len(proxy.seen) < 20


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        ("INVALID_ARGUMENT", "text 0 is too long", client_errors.InvalidRequest),
        ("UNAVAILABLE", "The request's deadline passed while it waited.", client_errors.DeadlinePassed),
        ("UNAVAILABLE", "This protocol is restricted, expecting header 'x'", client_errors.Restricted),
        ("INTERNAL", "something broke", XtError),
    ],
)
def test_what_would_be_refused_again_is_sent_once(server, code, words, kind):
    with Refusing(server.url, 99, words, code) as proxy, xt.serve.Client(proxy.url, "encoder") as client:
        with pytest.raises(kind):
            client.encode(["good"])
        assert len(proxy.seen) == 1


def test_a_request_refused_while_its_siblings_are_answered_waits_for_them(server):
    """A long list alone may fill a small queue: its requests then take turns, however many the retries."""
    busy = threading.Semaphore(1)
    with xt.serve.Client(server.url, "encoder", retries=0, in_flight=3) as client:
        infer = client._connection.client.infer

        def one_at_a_time(*args, **options):
            if not busy.acquire(blocking=False):
                raise grpc.InferenceServerException("The queue is full.", "StatusCode.UNAVAILABLE")
            try:
                time.sleep(0.1)
                return infer(*args, **options)
            finally:
                busy.release()

        client._connection.client.infer = one_at_a_time
        assert client.encode(sentences(700)).shape == (700, 32)


def test_a_deadline_ends_a_call_to_a_server_that_does_not_answer():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        client = xt.serve.AsyncClient(f"127.0.0.1:{silent.getsockname()[1]}", timeout_seconds=0.3)
        model = Served("encoder", "encoder", 256, {}, ("text",), ("embedding", "tokens", "truncated"))

        async def ask():
            async with client:
                await client.encode_full(["good"], model=model)

        start = time.monotonic()
        with pytest.raises((client_errors.DeadlinePassed, client_errors.Unreachable)):
            asyncio.run(ask())
        assert time.monotonic() - start < 5


def test_wrong_models_and_addresses_are_named(server):
    with pytest.raises(client_errors.UnknownModel, match="holds no model 'nope'"):
        xt.serve.Client(server.url, "nope")
    for url in ("nowhere", "http://127.0.0.1:8001", "127.0.0.1:port"):
        with pytest.raises(XtError, match="is no address"):
            xt.serve.Client(url)


def test_the_asynchronous_client_gives_the_same(server, client):
    texts = sentences(600, seed=4)

    async def both():
        async with xt.serve.AsyncClient(server.url) as other:
            one, many = await asyncio.gather(other.encode(["good"], prefix="passage"), other.encode_full(texts))
            with pytest.raises(client_errors.InvalidRequest, match="text 2 has"):
                await other.encode(["good", "morning", "good " * 100])
            return one, many

    one, many = asyncio.run(both())
    assert cosine(one, client.encode(["good"], prefix="passage")).min() >= 0.99999
    assert cosine(many.vectors, client.encode(texts)).min() >= 0.99999


def test_requests_hold_texts_of_like_length_and_bounded_work():
    lengths = [int(n) for n in np.random.default_rng(0).integers(1, 9000, 500)]
    requests = wire.request_order(lengths, 64)
    assert sorted(i for r in requests for i in r) == list(range(500))
    assert max(len(r) for r in requests) <= 64
    assert all(sum(lengths[i] for i in r) <= wire.REQUEST_CHARACTERS or len(r) == 1 for r in requests)
    flat = [lengths[i] for r in requests for i in r]
    assert flat == sorted(flat)
    assert wire.request_order([], 64) == []


def test_pauses_double_and_are_spread():
    many = np.array([list(client_errors.pauses(8)) for _ in range(400)])
    assert (many[:, 0] <= 0.075).all()
    assert (many[:, 0] >= 0.025).all()
    np.testing.assert_allclose(many.mean(0), [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2], rtol=0.1)
    assert many.std(0).min() > 0.01
