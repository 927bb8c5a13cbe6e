"""Attacks on the gateway's embeddings: bodies, options, token ids, and HTTP itself."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.attack.harness import (
    ANSWER,
    CLOSE,
    EITHER,
    REFUSE,
    Answer,
    Attack,
    Target,
    call,
    embed,
    finite,
    raw,
    same_as,
    vectors_of,
)

GOOD = {"model": "encoder", "input": "guten morgen welt"}
PATH = "/v1/embeddings"


def refused(group: str, cases: dict[str, Any], says: str = "", **more: Any) -> list[Attack]:
    """Make attacks of bodies that have to be refused."""
    return [Attack(group, name, REFUSE, embed(body), says=says, **more) for name, body in cases.items()]


def options(**changed: Any) -> dict[str, Any]:
    """Return a good body with some fields changed."""
    return {**GOOD, **changed}


def same_vector(answer: Answer, target: Target) -> str:
    """Check that the vector is that of the first text."""
    return same_as(0)(answer, target)


def cut_to(dimensions: int) -> Callable[[Answer, Target], str]:
    """Return a check that the vector is the first one cut to some dimensions, of unit length again."""

    def check(answer: Answer, target: Target) -> str:
        right = target.vectors[0][:dimensions].astype(np.float64)
        found = vectors_of(answer)[0]
        return "" if np.allclose(found, right / np.linalg.norm(right), atol=1e-5) else "other vectors"

    return check


def as_base64(answer: Answer, target: Target) -> str:
    """Check a vector in base64."""
    found = np.frombuffer(base64.b64decode(answer.json["data"][0]["embedding"]), "<f4")
    return "" if (found == target.vectors[0]).all() else "other vectors"


TYPES = [
    *refused(
        "types of fields",
        {
            "input null": options(input=None),
            "input a number": options(input=3),
            "input true": options(input=True),
            "input an object": options(input={"text": "a"}),
            "input missing": {"model": "encoder"},
            "input an empty list": options(input=[]),
            "input a nested list of texts": options(input=[["a", "b"]]),
            "input of texts and numbers": options(input=["a", 3]),
            "input of texts and null": options(input=["a", None]),
            "input of bools": options(input=[True, False]),
            "input of floats": options(input=[1.0, 2.0]),
            "model missing": {"input": "a"},
            "model null": options(model=None),
            "model empty": options(model=""),
            "model a list": options(model=["encoder"]),
            "model a path": options(model="../../etc/passwd"),
            "model unknown": options(model="text-embedding-3-small"),
            "model of 7 MB": options(model="e" * 7_000_000),
            "model a lone surrogate": '{"model": "\\ud800", "input": "a"}',
            "model with a NUL": options(model="enc\0oder"),
            "model of another kind": options(model="retriever"),
            "prefix a lone surrogate": '{"model": "encoder", "input": "a", "prefix": "\\udfff"}',
            "prefix of 1 MB": options(prefix="p" * 1_000_000),
            "prefix unknown": options(prefix="question"),
            "prefix a number": options(prefix=1),
            "input_type and prefix differ": options(prefix="query", input_type="passage"),
            "truncate a word": options(truncate="maybe"),
            "truncate a list": options(truncate=[]),
            "encoding_format unknown": options(encoding_format="xml"),
            "encoding_format a number": options(encoding_format=1),
            "user a list": options(user=["me"]),
            "an unknown field": options(inputs="a"),
            "dimensions 0": options(dimensions=0),
            "dimensions -1": options(dimensions=-1),
            "dimensions too many": options(dimensions=100_000),
            "dimensions 2**31": options(dimensions=2**31),
            "dimensions 2**63": options(dimensions=2**63),
            "dimensions 2**64": options(dimensions=2**64),
            "dimensions of 5,000 digits": f'{{"model": "encoder", "input": "a", "dimensions": {"9" * 5000}}}',
            "dimensions 1.5": options(dimensions=1.5),
            "dimensions a string": options(dimensions="8"),
            "dimensions true": options(dimensions=True),
            "dimensions NaN": '{"model": "encoder", "input": "a", "dimensions": NaN}',
            "2,049 texts": options(input=["a"] * 2049),
            "60,000 texts": options(input=["a"] * 60_000),
        },
    ),
    Attack("types of fields", "200,000 objects for texts", REFUSE, embed(options(input=[{}] * 200_000))),
    Attack("types of fields", "300,000 nulls for texts", REFUSE, embed(options(input=[None] * 300_000))),
    Attack("types of fields", "100,000 lists for texts", REFUSE, embed(options(input=[[]] * 100_000))),
    *[
        Attack("defaults", f"{name} null", ANSWER, embed(options(**{name: None})), same_vector)
        for name in ("encoding_format", "dimensions", "user", "prefix", "input_type", "truncate")
    ],
    Attack("defaults", "8 dimensions", ANSWER, embed(options(dimensions=8)), cut_to(8)),
    Attack("defaults", "base64", ANSWER, embed(options(encoding_format="base64")), as_base64),
    Attack("defaults", "a user of 100 kB", EITHER, embed(options(user="u" * 100_000))),
]

DEEP = [
    Attack("JSON", f"{count:,} of {opening!r}", REFUSE, embed((opening * count).encode()))
    for opening, count in (("[", 100_000), ("[", 5_000_000), ('{"a":', 200_000), ('{"input":[', 100_000))
]
JSON = [
    *DEEP,
    *refused(
        "JSON",
        {
            "nothing": b"",
            "null": b"null",
            "a string": b'"encoder"',
            "a number": b"1",
            "a list": b"[]",
            "cut short": json.dumps(GOOD).encode()[:-5],
            "two documents": json.dumps(GOOD).encode() * 2,
            "single quotes": b"{'model': 'encoder', 'input': 'a'}",
            "a comment": b'{"model": "encoder", "input": "a" /* b */}',
            "a trailing comma": b'{"model": "encoder", "input": "a",}',
            "NaN for a text": b'{"model": "encoder", "input": NaN}',
            "Infinity in ids": b'{"model": "encoder", "input": [Infinity]}',
            "bytes that are no UTF-8": b'{"model": "encoder", "input": "\xff\xfe"}',
            "Latin-1": '{"model": "encoder", "input": "müde"}'.encode("latin-1"),
            "a raw control character": b'{"model": "encoder", "input": "a\x01b"}',
            "9 MB": json.dumps(options(input="a" * 9_000_000)).encode(),
            "deep ids": b'{"model": "encoder", "input": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        },
    ),
    Attack("JSON", "UTF-16", EITHER, embed(json.dumps(GOOD).encode("utf-16")), same_vector),
    Attack("JSON", "a byte order mark", EITHER, embed(b"\xef\xbb\xbf" + json.dumps(GOOD).encode()), same_vector),
    Attack("JSON", "the same key twice", EITHER, embed(b'{"model":"x","model":"encoder","input":"guten morgen welt"}')),
]


def ids_attack(name: str, expect: str, ids: Callable[[Target], Any], says: str = "", check: Any = None) -> Attack:
    """Make an attack of token ids that depend on the model."""
    return Attack(
        "token ids", name, expect, lambda t: embed({"model": "encoder", "input": ids(t)})(t), check, says=says
    )


IDS = [
    ids_attack("those of the text", ANSWER, lambda t: t.ids[0], check=same_vector),
    ids_attack("rows of different lengths", ANSWER, lambda t: t.ids[:3], check=same_as(0, 1, 2)),
    ids_attack("without the first token", REFUSE, lambda t: t.ids[0][1:], "check_embedding_ctx_length"),
    ids_attack("without the last token", REFUSE, lambda t: t.ids[0][:-1], "check_embedding_ctx_length"),
    ids_attack("of another tokenizer", REFUSE, lambda t: [791, 8415, 374], "check_embedding_ctx_length"),
    ids_attack("of another tokenizer, two rows", REFUSE, lambda t: [t.ids[0], [9, 11]], "check_embedding_ctx_length"),
    ids_attack("negative", REFUSE, lambda t: [t.ids[0][0], -5, t.ids[0][-1]]),
    ids_attack("-1 for padding", REFUSE, lambda t: [*t.ids[0], -1, -1]),
    ids_attack("beyond the vocabulary", REFUSE, lambda t: [t.ids[0][0], t.vocabulary, t.ids[0][-1]]),
    ids_attack("2**31", REFUSE, lambda t: [t.ids[0][0], 2**31, t.ids[0][-1]]),
    ids_attack("2**40", REFUSE, lambda t: [t.ids[0][0], 2**40, t.ids[0][-1]]),
    ids_attack("2**64", REFUSE, lambda t: [t.ids[0][0], 2**64, t.ids[0][-1]]),
    ids_attack("1.0", REFUSE, lambda t: [float(i) for i in t.ids[0]]),
    ids_attack("true", REFUSE, lambda t: [[t.ids[0][0], True, t.ids[0][-1]]]),
    ids_attack("strings", EITHER, lambda t: [str(i) for i in t.ids[0]]),
    ids_attack("an empty row", REFUSE, lambda t: [t.ids[0], []]),
    ids_attack("more than the encoder reads", REFUSE, lambda t: [t.ids[0][0], *[9] * 5000, t.ids[0][-1]]),
    Attack(
        "token ids",
        "with a prefix",
        REFUSE,
        lambda t: embed({"model": "encoder", "input": t.ids[0], "prefix": "query"})(t),
    ),
]

BODY = json.dumps(GOOD).encode()
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


def post(name: str, expect: str, headers: dict[str, str], body: bytes = BODY, says: str = "") -> Attack:
    """Make an attack by headers."""
    return Attack(
        "HTTP",
        name,
        expect,
        lambda t: call(t.gateway, "POST", PATH, body, headers),
        same_vector if expect in (ANSWER, EITHER) else None,
        says=says,
    )


def wire(name: str, expect: str, *parts: bytes, slow: bool = False, pause: float = 0.0) -> Attack:
    """Make an attack of raw bytes."""
    return Attack("HTTP", name, expect, lambda t: raw(t.gateway, *parts, pause=pause), slow=slow)


HTTP = [
    post("no Content-Type", EITHER, {"Content-Type": ""}),
    post("text/plain", EITHER, {"Content-Type": "text/plain"}),
    post("a form", REFUSE, {"Content-Type": "application/x-www-form-urlencoded"}, b"model=encoder&input=a"),
    post("multipart", REFUSE, {"Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\n\r\na\r\n--x--"),
    post("charset latin-1", EITHER, {"Content-Type": "application/json; charset=latin-1"}),
    post("gzip", EITHER, {"Content-Encoding": "gzip"}, gzip.compress(BODY)),
    post("a foreign Host", REFUSE, {"Host": "evil.example"}),
    post("a foreign Host with a port", REFUSE, {"Host": "evil.example:8080"}),
    post("an empty Host", REFUSE, {"Host": " "}),
    post("localhost as Host", ANSWER, {"Host": "localhost"}),
    post("a trace id of 100 kB", EITHER, {"X-Request-Id": "i" * 100_000}),
    post("a trace id with blanks", ANSWER, {"X-Request-Id": "a b\tc"}),
    post("a broken traceparent", ANSWER, {"traceparent": "00-zzz-1-01"}),
    *[
        Attack("HTTP", f"{method} {path}", REFUSE, lambda t, m=method, p=path: call(t.gateway, m, p))
        for method, path in (
            ("GET", PATH),
            ("PUT", PATH),
            ("DELETE", PATH),
            ("PATCH", "/search"),
            ("BREW", "/"),
            ("GET", "/nowhere"),
            ("GET", "/docs"),
            ("GET", "/page/../../etc/passwd"),
            ("GET", "/page/%2e%2e/%2e%2e/etc/passwd"),
            ("GET", "//"),
            ("GET", "/v1/models/%00"),
            ("GET", "/v1/models/" + "m" * 10_000),
            ("GET", "/v1/models/%ff%fe"),
        )
    ],
    wire("HTTP/0.9", CLOSE, b"GET /\r\n"),
    wire("HTTP/2 at once", CLOSE, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    wire("a TLS hello", CLOSE, bytes.fromhex("16030100c8010000c40303") + bytes(200)),
    wire("zeros", CLOSE, bytes(5000) + b"\r\n\r\n"),
    wire("Content-Length -1", CLOSE, HEAD + b"Content-Length: -1\r\n\r\n" + BODY),
    wire("Content-Length words", CLOSE, HEAD + b"Content-Length: many\r\n\r\n" + BODY),
    wire("Content-Length of 10**30", CLOSE, HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n" + BODY),
    wire("two Content-Lengths", CLOSE, HEAD + b"Content-Length: 5\r\nContent-Length: 50\r\n\r\n" + BODY),
    wire(
        "length and chunks",
        CLOSE,
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    ),
    wire("a broken chunk", CLOSE, HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n"),
    wire("a chunk of 2**62", CLOSE, HEAD + b"Transfer-Encoding: chunked\r\n\r\n3fffffffffffffff\r\nabc\r\n0\r\n\r\n"),
    wire(
        "100,000 chunks of a byte",
        CLOSE,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
        b"1\r\n[\r\n" * 100_000,
        b"0\r\n\r\n",
    ),
    wire("a header of 1 MB", CLOSE, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n"),
    wire("10,000 headers", EITHER, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n"),
    wire("no Host", CLOSE, b"GET /stats HTTP/1.1\r\n\r\n"),
    wire("a foreign absolute address", CLOSE, b"GET http://evil.example/stats HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
    wire("a body that never comes", CLOSE, HEAD + b"Content-Length: 100\r\n\r\n{", slow=True),
    wire("headers that never end", CLOSE, HEAD, slow=True),
]
ATTACKS = [*TYPES, *JSON, *IDS, *HTTP]
__all__ = ["ATTACKS", "finite"]
