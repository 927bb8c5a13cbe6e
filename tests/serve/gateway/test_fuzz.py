"""Whatever is sent to the gateway, before a real Triton, it answers by a status that says whose fault it is, and goes on."""

from __future__ import annotations

import http.client
import json
import random

import pytest

from xt.serve.gateway.server import Gateway
from xt.serve.triton.addresses import free_ports

ROUTES = {
    "/v1/embeddings": ("input", "model", "encoding_format", "dimensions", "user", "input_type", "prefix", "truncate"),
    "/search": ("query", "queries", "k", "language", "model", "truncate"),
    "/rerank": ("query", "documents", "texts", "model", "top_n", "language", "return_documents", "truncate"),
}
VALUES = [
    None, True, False, 0, 1, -1, 7, 2**31, 2**63 - 1, 2**63, 2**64, 10**400, -(2**63), 0.5, 1.0, 1e308, "", " ", "a", "none", "query",
    "encoder", "float", "deu", "\ud800", "a\udfff", "\x00", "a\x00b", "\ufffd", "\u202e", "\U0001f600" * 50, "e\u0301", "x" * 300,
    "y" * 100_000, "good " * 50, "../../etc/passwd", "%00", "'; drop", "a\nb", [], [[]], [""], ["a", ""], ["a", 1], [1, "a"], ["\ud83d"],
    [None], [True], [1.5], [0], [2**31], [-1], [2**63], [[0, 2]], [[0], []], [["a"]], [[[0]]], ["good"] * 40, {}, {"a": 1}, [{}], {"\ud800": []},
]  # fmt: skip
GOOD = {
    "/v1/embeddings": {"model": "encoder", "input": "good"},
    "/search": {"query": "good"},
    "/rerank": {"query": "good", "documents": ["good", "cat"]},
}


@pytest.fixture(scope="module")
def gateway(server):
    (port,) = free_ports(1)
    with Gateway(server.url, port=port) as running:
        yield running


@pytest.fixture(scope="module")
def connection(gateway):
    opened = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    yield opened
    opened.close()


def send(connection, method: str, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    connection.request(method, path, body, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    return answer.status, answer.read()


def fine(status: int, data: bytes) -> bool:
    """Whether it is an answer, or an error of the caller's that says what is wrong."""
    value = json.loads(data)
    if status == 200:
        return True
    return status in (400, 404, 413) and bool(value["error"]["message"]) and len(data) < 3000


@pytest.mark.parametrize("path", ROUTES)
def test_every_value_in_every_field_is_answered(connection, path):
    wrong, answered = [], 0
    for field in ROUTES[path]:
        for value in VALUES:
            body = json.dumps({**GOOD[path], field: value}).encode()
            status, data = send(connection, "POST", path, body)
            answered += status == 200
            if not fine(status, data):
                wrong.append((field, value, status, data[:200]))
    assert not wrong
    if path != "/search":  # no retriever is served
        assert answered >= 30


def test_broken_bodies_of_all_kinds_are_answered(connection):
    random.seed(0)
    wrong = []
    for path, good in GOOD.items():
        whole = json.dumps(good).encode()
        bodies = [whole[:i] for i in range(0, len(whole), 4)]
        for _ in range(60):
            data = bytearray(whole)
            for _ in range(random.randint(1, 4)):
                data[random.randrange(len(data))] = random.choice(b'{}[]",:\\\x00\xff\xed\x80e1-n ')
            bodies.append(bytes(data))
        bodies += [bytes(random.randrange(256) for _ in range(200)) for _ in range(20)]
        bodies += [
            whole + b"\x00",
            b"\xef\xbb\xbf" + whole,
            whole.decode().encode("utf-16"),
            b"[" * 9000,
            b'{"input":' * 900,
        ]
        for body in bodies:
            status, data = send(connection, "POST", path, body)
            if not fine(status, data):
                wrong.append((path, body[:200], status, data[:200]))
    assert not wrong


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "POST"])
def test_other_methods_and_paths_are_answered(connection, method):
    paths = [
        *ROUTES,
        "/",
        "/v1/models/%00",
        "/v1/models/" + "n" * 5000,
        "/v1/models/%ed%a0%80",
        "/v1/models/a%2Fb",
        "/nothing%0a",
    ]
    for path in [
        *paths,
        "/..%2f..%2fetc",
        "/stats",
        "/health",
        "//",
        "/v1//models",
        "/openapi.json",
        "/v1/models/..",
        "/%ff",
    ]:
        status, _ = send(connection, method, path, b"")
        assert status in (200, 400, 404, 405), (method, path, status)


HEADERS = {
    "Authorization": ["Bearer \xff", "Basic x", "Bearer"],
    "Content-Type": ["", "text/plain", "application/json; charset=latin-1", "application/json; charset=nonsense", "x" * 3000],
    "Content-Encoding": ["gzip", "br", "identity", "\xff"],
    "X-Request-Id": ["\xff", "a" * 3000],
    "traceparent": ["00-zz-00-00", "\xff"],
    "Expect": ["100-continue", "nonsense"],
    "Accept": ["text/html", "\xff"],
    "Upgrade": ["h2c", "websocket"],
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_strange_headers_are_answered(connection, name):
    for value in HEADERS[name]:
        body = json.dumps(GOOD["/v1/embeddings"]).encode()
        status, data = send(connection, "POST", "/v1/embeddings", body, **{name: value.encode("latin-1")})
        assert fine(status, data), (name, value, status, data)
