"""What a body may hold: everything else is named, at a cost that its length bounds."""

from __future__ import annotations

import json
import time

import pytest

from xt.serve.client.errors import InvalidRequest
from xt.serve.gateway.body import MAX_NAME, check_fields, count_signs, parse_body
from xt.serve.gateway.openai import EmbeddingRequest
from xt.serve.gateway.search import RerankRequest, SearchRequest

JSON = "application/json"


@pytest.mark.parametrize(
    ("raw", "kind", "says"),
    [
        (b"{}", None, "has no Content-Type"),
        (b"{}", "", "has no Content-Type"),
        (
            b"a=b",
            "application/x-www-form-urlencoded",
            "is 'application/x-www-form-urlencoded'; expected application/json",
        ),
        (b"{}", "text/plain", "expected application/json"),
        (b"{}", "multipart/form-data; boundary=x", "expected application/json"),
        (b"{}", "application/jsonp", "expected application/json"),
        ("é".encode("latin-1"), JSON, "not valid UTF-8: byte 0 is 0xe9; it may be Latin-1"),
        (b'{"a": "\xff"}', JSON, "byte 7 is 0xff"),
        (b"{}", "application/json; charset=iso-8859-1", "sent as 'iso-8859-1'; JSON is UTF-8"),
        (b"\xff\xfe{\x00}", JSON, "not valid UTF-16"),
        (b"", JSON, "The body is empty"),
        (b"{", JSON, "not readable JSON"),
        (b"[1]", JSON, "The body is a list; expected an object"),
        (b"null", JSON, "The body is null"),
        (b'"a"', JSON, "The body is a text"),
        (b"[" * 50_000, JSON, "nested too deeply"),
        (b'{"a":' * 50_000, JSON, "The body holds 50000 objects"),
        (b'{"a":' * 5_000, JSON, "nested too deeply"),
        (b'{"a": {"b": 1}}', JSON, "an object within an object"),
        (b'{"a": NaN}', JSON, "holds NaN"),
        (b'{"a": -Infinity}', JSON, "holds -Infinity"),
        (b'{"a": 1, "a": 2}', JSON, "holds the field 'a' twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", JSON, "4300 digits"),
        (json.dumps({f"f{i}": 1 for i in range(40)}).encode(), JSON, "has 40 fields"),
        (b'{"a": "\x00"}', JSON, "Invalid control character"),
        (b'{"a": 1} x', JSON, "Extra data"),
    ],
)
def test_what_is_wrong_with_a_body_is_named(raw, kind, says):
    with pytest.raises(InvalidRequest) as error:
        parse_body(raw, kind)
    assert says in error.value.message
    assert len(error.value.message) < 300


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(
    "kind", [JSON, "application/json; charset=utf-8", "Application/JSON;charset=UTF-8", "application/x+json"]
)
def test_every_encoding_of_unicode_is_read(encoding, kind):
    assert parse_body('{"query": "Wo ist 駅?"}'.encode(encoding), kind) == {"query": "Wo ist 駅?"}


def test_signs_are_counted_outside_strings_alone():
    texts = ["[{:,", 'a"[', "\\", '\\"[', "\\\\", "ñ駅]", ""]
    body = json.dumps({"input": texts, "model": "a:b"})
    assert count_signs(body) == {"{": 1, ":": 2, "[": 1, ",": len(texts)}
    assert count_signs('"[[' + "[" * 10) == {"{": 0, ":": 0, "[": 0, ",": 0}  # it never ends


def huge(name: str) -> bytes:
    start = b'{"model":"encoder","input":'
    return {
        "objects": start + b"[" + b",".join([b"{}"] * 700_000) + b"]}",
        "numbers": start + b"[" + b",".join([b"1"] * 4_000_000) + b"]}",
        "texts": start + b"[" + b",".join([b'""'] * 2_500_000) + b"]}",
        "depth": b"[" * 8_000_000,
        "fields": b"{" + b",".join(b'"k%d":1' % i for i in range(600_000)) + b"}",
        "digits": b'{"dimensions":' + b"1" * 8_000_000 + b"}",
        "escapes": b'"' + b'\\"' * 4_000_000,
    }[name]


@pytest.mark.parametrize("name", ["objects", "numbers", "texts", "depth", "fields", "digits", "escapes"])
def test_eight_megabytes_of_anything_are_refused_in_a_moment(name):
    raw = huge(name)
    begun = time.process_time()
    with pytest.raises(InvalidRequest):
        check_fields(EmbeddingRequest, parse_body(raw, JSON))
    assert time.process_time() - begun < 1.5


LONE = "\ud800"


@pytest.mark.parametrize(
    ("model", "body", "says"),
    [
        (EmbeddingRequest, {"model": "m" * 7_000_000, "input": "a"}, f"model: String should have at most {MAX_NAME}"),
        (EmbeddingRequest, {"model": LONE, "input": "a"}, "model: not valid Unicode"),
        (EmbeddingRequest, {"model": "e", "input": "a", "prefix": "ab" + LONE}, "prefix: not valid Unicode: half of a surrogate pair at character 2"),
        (EmbeddingRequest, {"model": "e", "input": "a", "prefix": "query\0x"}, "prefix: a name without NUL is expected"),
        (EmbeddingRequest, {"model": "e", "input": "a", "user": LONE}, "user: not valid Unicode"),
        (EmbeddingRequest, {"model": "e", "input": "a", "prefix": "x" * 1_000_000}, "prefix: String should have at most"),
        (EmbeddingRequest, {"model": "e", "input": "a", "dimensions": 2**63}, "dimensions: Input should be less than"),
        (EmbeddingRequest, {"model": "e", "input": "a", "dimensions": 10**4000}, "dimensions: "),
        (EmbeddingRequest, {"model": "e", "input": "a", "dimensions": True}, "dimensions: Input should be a valid integer; found true or false"),
        (EmbeddingRequest, {"model": "e", "input": "a", "dimensions": 1.0}, "dimensions: Input should be a valid integer; found a fraction"),
        (EmbeddingRequest, {"model": "e", "input": "a", "truncate": "yes"}, "truncate: Input should be a valid boolean"),
        (EmbeddingRequest, {"model": "e", "input": "a", "encoding_format": LONE}, "encoding_format"),
        (EmbeddingRequest, {"model": "e", "input": {"a": 1}}, "input: expected a text, a list of texts"),
        (EmbeddingRequest, {"model": "e", "input": ["a"] * 9 + [1]}, "input: expected texts like item 0; item 9 is a number"),
        (EmbeddingRequest, {"model": "e", "input": [1, True]}, "item 1 is true or false"),
        (EmbeddingRequest, {"model": "e", "input": [[1], [2.5]]}, "item 1 holds a fraction at position 0"),
        (EmbeddingRequest, {"model": "e", "input": [None]}, "item 0 is null"),
        (EmbeddingRequest, {"model": None, "input": "a"}, "model: Input should be a valid string; found null"),
        (EmbeddingRequest, {"input": "a"}, "model is missing"),
        (EmbeddingRequest, {"model": "e", "input": "a", LONE * 99: 1}, "is no field of this request"),
        (SearchRequest, {"query": "a", "k": 2**63}, "k: Input should be less than"),
        (SearchRequest, {"query": "a", "language": LONE}, "language: not valid Unicode"),
        (SearchRequest, {"queries": ["a", 1]}, "queries: expected a list of texts; item 1 is a number"),
        (SearchRequest, {"queries": "a"}, "queries: expected a list of texts, found a text"),
        (RerankRequest, {"query": "a", "documents": [], "top_n": 2**64}, "top_n: Input should be less than"),
        (RerankRequest, {"query": LONE, "documents": ["a"]}, "query: not valid Unicode"),
    ],
)  # fmt: skip
def test_a_field_that_is_wrong_is_named_with_what_was_found(model, body, says):
    with pytest.raises(InvalidRequest) as error:
        check_fields(model, body)
    assert says in error.value.message
    assert len(error.value.message) < 300
    error.value.message.encode("utf-8")  # it can be sent


def test_null_means_the_default_of_every_field_that_may_be_left_out():
    for model, needed in (
        (EmbeddingRequest, {"model": "e", "input": "a"}),
        (SearchRequest, {}),
        (RerankRequest, {"query": "a"}),
    ):
        names = set(model.model_fields) - set(needed)
        assert len(names) >= 5
        assert check_fields(model, {**needed, **dict.fromkeys(names)}) == check_fields(model, needed)
