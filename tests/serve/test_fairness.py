"""Who a request is counted to: the parameter `caller` on a real server, and what the gateway and the clients send."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as grpc

from xt.core.encoder.text import TextTokenizer
from xt.serve.client.async_client import AsyncClient
from xt.serve.client.client import Client
from xt.serve.client.errors import InvalidRequest
from xt.serve.gateway.guard import caller_of as gateway_caller
from xt.serve.runtime.request import bytes_of, caller_of


class Request:
    """The part of Triton's request that is asked for its caller."""

    def __init__(self, parameters):
        self.parameters = lambda: json.dumps(parameters) if parameters is not None else ""


def ask(server, text, **parameters):
    client = grpc.InferenceServerClient(server.url)
    tensor = grpc.InferInput("text", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[text.encode()]], np.object_))
    try:
        return client.infer("encoder", [tensor], parameters=parameters or None).as_numpy("embedding")
    finally:
        client.close()


def cache_hits(server):
    time.sleep(0.7)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports.metrics}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("xt_cache_hits_total{"))


def test_the_caller_changes_no_vector_and_is_no_part_of_the_cache_key(server):
    first = ask(server, "good morning whoever asks", caller="one")
    before = cache_hits(server)
    np.testing.assert_array_equal(ask(server, "good morning whoever asks", caller="another"), first)
    np.testing.assert_array_equal(ask(server, "good morning whoever asks"), first)
    assert cache_hits(server) == before + 2


@pytest.mark.parametrize("caller", ["", "a b", "x" * 65, "é", "a\nb", 7, True])
def test_a_caller_that_is_no_short_plain_text_is_refused(server, caller):
    with pytest.raises(grpc.InferenceServerException, match="The parameter caller is expected to be 1 to 64 printable"):
        ask(server, "good morning", caller=caller)


def test_before_a_request_is_read_a_caller_that_will_be_refused_counts_as_none():
    assert caller_of(Request({"caller": "abc", "truncate": True})) == "abc"
    for parameters in (None, {}, {"caller": "a b"}, {"caller": 5}, {"prefix": '"caller"'}, {"caller": None}):
        assert caller_of(Request(parameters)) is None


class Tensor:
    def __init__(self, values):
        self.as_numpy = lambda: values


def test_the_size_of_a_request_is_that_of_its_texts():
    assert bytes_of(Tensor(np.array([[b"abc"], [b"defgh"]], np.object_))) == 8
    assert bytes_of(Tensor(np.zeros((1, 100), np.uint8))) == 100
    assert bytes_of(Tensor(np.zeros((2, 10), np.int32))) == 160


def name_of(address, *headers, by_token=True):
    scope = {"client": (address, 1) if address else None, "headers": list(headers)}
    return gateway_caller(scope, by_token=by_token)


def test_the_gateway_tells_callers_apart_by_token_and_address():
    token, other = (b"authorization", b"Bearer one"), (b"authorization", b"Bearer two")
    names = {
        name_of(address, *headers)
        for address, headers in (
            ("192.0.2.1", ()),
            ("192.0.2.2", ()),
            ("192.0.2.1", (token,)),
            ("192.0.2.1", (other,)),
            ("2001:db8:1::1", ()),
            ("2001:db8:2::1", ()),
            ("", ()),
        )
    }
    assert len(names) == 7
    assert all(len(name) == 32 and name.isalnum() and "one" not in name for name in names)


def test_where_no_token_is_asked_for_what_a_caller_sends_as_one_makes_him_no_other():
    names = {name_of("192.0.2.1", (b"authorization", value), by_token=False) for value in (b"Bearer a", b"Bearer b")}
    assert len(names) == 1


def test_addresses_of_one_host_are_one_caller():
    assert name_of("2001:db8:1::1") == name_of("2001:db8:1:0:ffff::9")
    assert name_of("192.0.2.1") == name_of("::ffff:192.0.2.1")
    assert name_of("fe80::1%eth0") == name_of("fe80::2%eth0")


def test_each_client_is_one_caller(server):
    sent = []

    class Recorded:
        def __init__(self, client):
            self._client = client

        def __getattr__(self, name):
            return getattr(self._client, name)

        def infer(self, *arguments, **options):
            sent.append(options["parameters"]["caller"])
            return self._client.infer(*arguments, **options)

    async def gateway():
        async with AsyncClient(server.url, "encoder") as client:
            await client.encode_full(["good morning"], caller="somebody")
            with pytest.raises(InvalidRequest, match="parameter caller"):
                await client.encode_full(["good evening"], caller="some body")

    for _ in range(2):
        with Client(server.url, "encoder") as client:
            client._connection.client = Recorded(client._connection.client)
            client.encode([f"text {i} " + "word " * 200 for i in range(40)], truncate=True)
    asyncio.run(gateway())
    assert len(sent) > 2  # a long list goes out as several requests
    assert len(set(sent)) == 2


def test_texts_are_tokenised_alike_in_one_call_and_in_many(tiny_folder, monkeypatch):
    tokenizer = TextTokenizer(tiny_folder / "tokenizer.json", 64)
    texts = [f"good morning world {i} " * (1 + i % 9) for i in range(60)]
    whole, cut = tokenizer(texts, truncate=True)
    monkeypatch.setattr("xt.core.encoder.text.TOKENIZED_CHARACTERS", 100)
    monkeypatch.setattr("xt.core.encoder.text.SHORT_CHARACTERS", 0)
    sliced, cut_too = tokenizer(texts, truncate=True)
    monkeypatch.setattr("xt.core.encoder.text.SHORT_CHARACTERS", 10**6)
    short, _ = tokenizer(texts, truncate=True)
    assert [row.tolist() for row in whole] == [row.tolist() for row in sliced] == [row.tolist() for row in short]
    assert cut.tolist() == cut_too.tolist()
