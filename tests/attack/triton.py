"""Attacks on Triton itself, over HTTP and gRPC, and on the Python client."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.attack.harness import ANSWER, CLOSE, EITHER, REFUSE, Answer, Attack, Target, call, infer_body, raw

INFER = "/v2/models/encoder/infer"
TEXT = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["a"]}


def http(name: str, expect: str, body: Any, headers: dict[str, str] | None = None, *, slow: bool = False) -> Attack:
    """Make an attack of one body."""
    return Attack("Triton HTTP", name, expect, lambda t: call(t.http, "POST", INFER, body, headers), slow=slow)


def text(**changed: Any) -> dict[str, Any]:
    """Return the JSON of a request whose text input is changed."""
    return infer_body({**TEXT, **changed})


HEAD = b"POST /v2/models/encoder/infer HTTP/1.1\r\nHost: 127.0.0.1\r\n"
HTTP = [
    http("200,000 brackets", REFUSE, b"[" * 200_000),
    http("5,000,000 brackets", REFUSE, b"[" * 5_000_000, slow=True),
    http("200,000 nested objects", REFUSE, b'{"a":' * 200_000),
    http("100,000 brackets for data", REFUSE, b'{"inputs":[{"name":"text","data":' + b"[" * 100_000),
    http("100,000 brackets, gzip", REFUSE, gzip.compress(b"[" * 100_000), {"Content-Encoding": "gzip"}),
    http("60 MB of zeros, gzip", REFUSE, gzip.compress(bytes(60_000_000)), {"Content-Encoding": "gzip"}, slow=True),
    http("gzip that is none", REFUSE, b"none", {"Content-Encoding": "gzip"}),
    http("nothing", REFUSE, b""),
    http("no JSON", REFUSE, b"hello"),
    http("null", REFUSE, b"null"),
    http("no inputs", REFUSE, {"inputs": []}),
    http("inputs an object", REFUSE, {"inputs": {}}),
    http("another name", REFUSE, text(name="texts")),
    http("another type", REFUSE, text(datatype="FP32", data=[1.0])),
    http("an unknown type", REFUSE, text(datatype="COMPLEX")),
    http("shape of two for one", REFUSE, text(shape=[2, 1])),
    http("shape of one for two", REFUSE, text(data=["a", "b"])),
    http("shape -1", REFUSE, text(shape=[-1, 1])),
    http("shape 2**40", EITHER, text(shape=[2**40, 1])),
    http("shape 2**63 - 1", REFUSE, text(shape=[2**63 - 1, 2])),
    http("shape 2**64", REFUSE, text(shape=[2**64, 1])),
    http("shape zero", REFUSE, text(shape=[0, 1], data=[])),
    http("shape of one dimension", REFUSE, text(shape=[1])),
    http("shape words", REFUSE, text(shape=["1", "1"])),
    http("data missing", REFUSE, infer_body({"name": "text", "datatype": "BYTES", "shape": [1, 1]})),
    http("data numbers", REFUSE, text(data=[1])),
    http("data null", REFUSE, text(data=[None])),
    http("text twice", EITHER, infer_body(TEXT, TEXT)),
    http(
        "text and ids",
        REFUSE,
        infer_body(TEXT, {"name": "ids", "datatype": "INT32", "shape": [1, 3], "data": [0, 9, 2]}),
    ),
    http(
        "ids without special tokens",
        REFUSE,
        infer_body({"name": "ids", "datatype": "INT32", "shape": [1, 3], "data": [9, 9, 9]}),
    ),
    http(
        "ids beyond 32 bits", REFUSE, infer_body({"name": "ids", "datatype": "INT32", "shape": [1, 1], "data": [2**40]})
    ),
    http("ids of no tokens", REFUSE, infer_body({"name": "ids", "datatype": "INT32", "shape": [1, 0], "data": []})),
    http(
        "a packed blob that lies",
        REFUSE,
        infer_body({"name": "packed", "datatype": "UINT8", "shape": [1, 4], "data": [255] * 4}),
    ),
    http(
        "a packed blob cut short",
        REFUSE,
        infer_body({"name": "packed", "datatype": "UINT8", "shape": [1, 8], "data": [1, 0, 0, 0, 9, 0, 0, 0]}),
    ),
    http(
        "two packed blobs", REFUSE, infer_body({"name": "packed", "datatype": "UINT8", "shape": [2, 1], "data": [0, 0]})
    ),
    http("257 rows", REFUSE, text(shape=[257, 1], data=["a"] * 257)),
    http("an unknown output", REFUSE, {"inputs": [TEXT], "outputs": [{"name": "vector"}]}),
    http("float16 as JSON", EITHER, {"inputs": [TEXT], "outputs": [{"name": "embedding_fp16"}]}),
    http(
        "classification of vectors",
        EITHER,
        {"inputs": [TEXT], "outputs": [{"name": "embedding", "parameters": {"classification": 3}}]},
    ),
    *[
        http(f"parameter {name}", expect, infer_body(TEXT, parameters=value))
        for name, expect, value in (
            ("unknown", REFUSE, {"truncat": True}),
            ("dimensions 2**63", REFUSE, {"dimensions": 2**63}),
            ("dimensions -2**63", REFUSE, {"dimensions": -(2**63)}),
            ("dimensions 0.5", REFUSE, {"dimensions": 0.5}),
            ("dimensions a word", REFUSE, {"dimensions": "8"}),
            ("truncate 1", REFUSE, {"truncate": 1}),
            ("prefix of 1 MB", REFUSE, {"prefix": "p" * 1_000_000}),
            ("prefix a number", REFUSE, {"prefix": 7}),
            ("an object", REFUSE, {"prefix": {"a": 1}}),
            ("timeout of a microsecond", EITHER, {"timeout": 1}),
            ("timeout -1", EITHER, {"timeout": -1}),
            ("timeout 2**64", EITHER, {"timeout": 2**64}),
            ("priority 2**40", EITHER, {"priority": 2**40}),
            ("sequence_id", EITHER, {"sequence_id": 7, "sequence_start": True}),
            ("shared memory", REFUSE, {"shared_memory_region": "x"}),
        )
    ],
    http(
        "shared memory for the input",
        REFUSE,
        infer_body({**TEXT, "data": [], "parameters": {"shared_memory_region": "x", "shared_memory_byte_size": 8}}),
    ),
    http(
        "binary size beyond the body",
        REFUSE,
        {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": 2**40}}]},
    ),
    http(
        "binary size negative",
        REFUSE,
        {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": -8}}]},
    ),
    http("header length beyond the body", REFUSE, text(), {"Inference-Header-Content-Length": "100000"}),
    http("header length negative", REFUSE, text(), {"Inference-Header-Content-Length": "-5"}),
    http("header length words", REFUSE, text(), {"Inference-Header-Content-Length": "many"}),
    http("bytes that are no UTF-8", REFUSE, json.dumps(text()).encode().replace(b'"a"', b'"\xff\xfe"')),
    *[
        Attack("Triton HTTP", f"{method} {path}", REFUSE, lambda t, m=method, p=path: call(t.http, m, p, b"{}"))
        for method, path in (
            ("POST", "/v2/models/encoder/versions/99/infer"),
            ("POST", "/v2/models/nothing/infer"),
            ("POST", "/v2/models/..%2f..%2fetc/infer"),
            ("POST", "/v2/models/encoder/versions/-1/infer"),
            ("GET", "/v2/models/encoder/versions/9999999999999999999999"),
            ("POST", "/v2/repository/models/encoder/unload"),
            ("POST", "/v2/repository/models/encoder/load"),
            ("POST", "/v2/repository/index"),
            ("POST", "/v2/trace/setting"),
            ("POST", "/v2/logging"),
            ("GET", "/v2/models/stats"),
            ("POST", "/v2/systemsharedmemory/region/x/register"),
            ("POST", "/v2/cudasharedmemory/region/x/register"),
        )
    ],
    Attack(
        "Triton HTTP",
        "a wrong key",
        REFUSE,
        lambda t: call(t.http, "POST", "/v2/repository/models/encoder/unload", b"{}", {"xt-admin-key": "k" * 40}),
    ),
    Attack(
        "Triton HTTP",
        "600,000 chunks of a byte",
        CLOSE,
        lambda t: raw(t.http, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n[\r\n" * 600_000, b"0\r\n\r\n"),
        slow=True,
    ),
    Attack(
        "Triton HTTP",
        "Content-Length -1",
        CLOSE,
        lambda t: raw(t.http, HEAD + b"Content-Length: -1\r\n\r\n{}", seconds=5),
    ),
    Attack("Triton HTTP", "a path of 20,000 letters", CLOSE, lambda t: call(t.http, "GET", "/v2/" + "x" * 20_000)),
    Attack(
        "Triton HTTP", "a TLS hello", CLOSE, lambda t: raw(t.http, bytes.fromhex("16030100c8010000c40303") + bytes(200))
    ),
    Attack(
        "Triton HTTP",
        "a header of 1 MB",
        CLOSE,
        lambda t: raw(t.http, b"GET /v2 HTTP/1.1\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n"),
    ),
]
STATUS = {"INVALID_ARGUMENT": 400, "UNAVAILABLE": 503, "NOT_FOUND": 404, "CANCELLED": 499, "UNIMPLEMENTED": 501,
          "RESOURCE_EXHAUSTED": 413, "INTERNAL": 500, "DEADLINE_EXCEEDED": 504}  # fmt: skip


def stub(send: Callable[[Any, Any, Target], Any]) -> Callable[[Target], Answer]:
    """Return what calls gRPC by the bare stub: what tritonclient would not send."""

    def attack(target: Target) -> Answer:
        import grpc
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        with grpc.insecure_channel(target.url, [("grpc.enable_http_proxy", 0)]) as channel:
            try:
                answer = send(service_pb2_grpc.GRPCInferenceServiceStub(channel), service_pb2, target)
                return Answer(200, str(answer)[:200].encode())
            except grpc.RpcError as error:
                return Answer(STATUS.get(error.code().name, 599), (error.details() or error.code().name).encode())

    return attack


def infer(
    contents: list[bytes] | None, shape: list[int], *, name: str = "text", kind: str = "BYTES", raw_contents: Any = None,
    parameters: dict[str, Any] | None = None,
) -> Callable[[Target], Answer]:  # fmt: skip
    """Return what sends one ModelInfer."""

    def send(service: Any, messages: Any, target: Target) -> Any:
        request = messages.ModelInferRequest(model_name="encoder")
        tensor = request.inputs.add(name=name, datatype=kind, shape=shape)
        if contents is not None:
            tensor.contents.bytes_contents.extend(contents)
        request.raw_input_contents.extend(raw_contents or [])
        for key, (field, value) in (parameters or {}).items():
            setattr(request.parameters[key], field, value)
        return service.ModelInfer(request, timeout=35)

    return stub(send)


def length(data: bytes, claimed: int | None = None) -> bytes:
    """Return an element of raw BYTES contents, its length as claimed."""
    return (len(data) if claimed is None else claimed).to_bytes(4, "little") + data


# Triton itself takes no notice of a batch size that overflows, and of contents beyond the last input.
GRPC = [
    Attack("Triton gRPC", name, expect, send)
    for name, expect, send in (
        ("bytes that are no UTF-8", REFUSE, infer([b"\xff\xfe"], [1, 1])),
        ("half of a character", REFUSE, infer(["ü".encode()[:1]], [1, 1])),
        ("a surrogate in UTF-8", REFUSE, infer([b"\xed\xa0\x80"], [1, 1])),
        ("an overlong NUL", REFUSE, infer([b"\xc0\x80"], [1, 1])),
        ("no bytes", REFUSE, infer([b""], [1, 1])),
        ("no contents", REFUSE, infer(None, [1, 1])),
        ("more contents than the shape", REFUSE, infer([b"a", b"b"], [1, 1])),
        ("fewer contents than the shape", REFUSE, infer([b"a"], [3, 1])),
        ("a negative shape", REFUSE, infer([b"a"], [-1, 1])),
        ("a shape of 2**62", EITHER, infer([b"a"], [2**62, 1])),
        ("raw contents that lie", REFUSE, infer(None, [1, 1], raw_contents=[length(b"a", 1000)])),
        ("raw contents of 2**32 - 1", REFUSE, infer(None, [1, 1], raw_contents=[length(b"a", 2**32 - 1)])),
        ("raw contents cut short", REFUSE, infer(None, [1, 1], raw_contents=[b"\x01"])),
        ("raw contents of two tensors", EITHER, infer(None, [1, 1], raw_contents=[length(b"a"), length(b"b")])),
        ("raw and typed contents", REFUSE, infer([b"a"], [1, 1], raw_contents=[length(b"a")])),
        ("another name", REFUSE, infer([b"a"], [1, 1], name="texts")),
        ("another type", REFUSE, infer([b"a"], [1, 1], kind="FP32")),
        ("257 rows", REFUSE, infer([b"a"] * 257, [257, 1])),
        ("dimensions -1", REFUSE, infer([b"a"], [1, 1], parameters={"dimensions": ("int64_param", -1)})),
        ("dimensions 2**63 - 1", REFUSE, infer([b"a"], [1, 1], parameters={"dimensions": ("int64_param", 2**63 - 1)})),
        ("dimensions a word", REFUSE, infer([b"a"], [1, 1], parameters={"dimensions": ("string_param", "8")})),
        ("a parameter of 1 MB", REFUSE, infer([b"a"], [1, 1], parameters={"prefix": ("string_param", "p" * 10**6)})),
        ("a text of 4 MB", REFUSE, infer([b"a " * 2 * 10**6], [1, 1])),
        ("a text", ANSWER, infer([b"a"], [1, 1])),
        ("a model that is not there", REFUSE, stub(lambda s, m, t: s.ModelMetadata(m.ModelMetadataRequest(name="x"), timeout=9))),
        ("an unload without the key", EITHER, stub(lambda s, m, t: s.RepositoryModelUnload(m.RepositoryModelUnloadRequest(model_name="encoder"), timeout=9))),
        ("a version of 10**30", REFUSE, stub(lambda s, m, t: s.ModelReady(m.ModelReadyRequest(name="encoder", version="9" * 30), timeout=9))),
    )
]  # fmt: skip


def client(call_it: Callable[[Any, Target], Any], right: Callable[[Any, Target], bool] | None = None) -> Any:
    """Return what calls the Python client; an answer that is not `right` has the status 200 and says so."""

    def attack(target: Target) -> Answer:
        from xt.core.errors import XtError
        from xt.serve import Client

        with Client(target.url, "encoder", timeout_seconds=30) as opened:
            try:
                found = call_it(opened, target)
            except XtError as error:
                return Answer(400, str(error).encode())
        return Answer(200, b"{}" if right is None or right(found, target) else b'{"wrong": true}')

    return attack


def series(target: Target) -> Any:
    """Return texts whose labels are not their places, as a pandas series has them."""
    pandas = __import__("pandas")
    return pandas.Series(target.texts[:4], index=[2, 0, 3, 1])


def first(count: int) -> Callable[[Any, Target], bool]:
    """Return a check that the vectors are the first ones, in order."""
    return lambda found, target: found.shape == (count, target.dim) and bool((found == target.vectors[:count]).all())


def not_wrong(answer: Answer, target: Target) -> str:
    """Check what `client` found."""
    return "" if answer.body == b"{}" else "other vectors"


CLIENT = [
    Attack("Python client", name, expect, client(call_it, right), not_wrong)
    for name, expect, call_it, right in (
        ("a generator", ANSWER, lambda c, t: c.encode(x for x in t.texts[:4]), first(4)),
        ("a tuple", ANSWER, lambda c, t: c.encode(tuple(t.texts[:4])), first(4)),
        ("an array of numpy", ANSWER, lambda c, t: c.encode(np.array(t.texts[:4])), first(4)),
        ("an array of objects", ANSWER, lambda c, t: c.encode(np.array(t.texts[:4], object)), first(4)),
        ("numpy's integers for ids", ANSWER, lambda c, t: c.encode_full(ids=[np.array(t.ids[0])]).vectors, first(1)),
        (
            "numpy's integer for dimensions",
            ANSWER,
            lambda c, t: c.encode(t.texts[:1], dimensions=np.int64(t.dim)),
            first(1),
        ),
        ("no texts", EITHER, lambda c, t: c.encode([]), lambda found, t: found.shape == (0, t.dim)),
        ("one string", REFUSE, lambda c, t: c.encode("guten morgen"), None),
        ("bytes", REFUSE, lambda c, t: c.encode(b"guten morgen"), None),
        ("a set", REFUSE, lambda c, t: c.encode(set(t.texts[:4])), None),
        ("a dict", REFUSE, lambda c, t: c.encode({0: "a", 1: "b"}), None),
        ("None for texts", REFUSE, lambda c, t: c.encode(None), None),
        ("None among texts", REFUSE, lambda c, t: c.encode(["a", None]), None),
        ("NaN among texts", REFUSE, lambda c, t: c.encode(["a", float("nan")]), None),
        ("bytes among texts", REFUSE, lambda c, t: c.encode(["a", b"b"]), None),
        ("id 2**40", REFUSE, lambda c, t: c.encode_full(ids=[[t.ids[0][0], 2**40, t.ids[0][-1]]]), None),
        ("id 1.7", REFUSE, lambda c, t: c.encode_full(ids=[[t.ids[0][0], 1.7, t.ids[0][-1]]]), None),
        ("id true", REFUSE, lambda c, t: c.encode_full(ids=[[t.ids[0][0], True, t.ids[0][-1]]]), None),
        ("an array of floats for ids", REFUSE, lambda c, t: c.encode_full(ids=np.array([t.ids[0]], float)), None),
        ("a string for ids", REFUSE, lambda c, t: c.encode_full(ids=["12"]), None),
        ("dimensions 1.9", REFUSE, lambda c, t: c.encode(t.texts[:1], dimensions=1.9), None),
        ("dimensions true", REFUSE, lambda c, t: c.encode(t.texts[:1], dimensions=True), None),
        ("dimensions 0", REFUSE, lambda c, t: c.encode(t.texts[:1], dimensions=0), None),
        ("dimensions 2**40", REFUSE, lambda c, t: c.encode(t.texts[:1], dimensions=2**40), None),
        ("dtype unknown", REFUSE, lambda c, t: c.encode(t.texts[:1], dtype="float64"), None),
        ("prefix unknown", REFUSE, lambda c, t: c.encode(t.texts[:1], prefix="question"), None),
        ("texts and ids", REFUSE, lambda c, t: c.encode_full(t.texts[:1], ids=t.ids[:1]), None),
        ("search of an encoder", REFUSE, lambda c, t: c.search(["a"]), None),
    )
]
if __import__("importlib.util").util.find_spec("pandas"):
    CLIENT.append(
        Attack(
            "Python client", "a series of pandas", ANSWER, client(lambda c, t: c.encode(series(t)), first(4)), not_wrong
        )
    )
ATTACKS = [*HTTP, *GRPC, *CLIENT]
