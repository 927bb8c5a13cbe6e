"""Reading the body of a request: what it costs is bounded, whatever is sent, and what is wrong with it is named."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import Depends, Request
from pydantic import BaseModel, BeforeValidator, Field, StrictInt, StringConstraints, ValidationError, WithJsonSchema

from xt.core.errors import shown
from xt.serve.client.errors import InvalidRequest

LARGE_BYTES = 2**16
"""Larger bodies are read on another thread, two at once: the others' requests go on meanwhile."""
MAX_FIELDS = 32
MAX_SIGNS = {"{": (64, "objects"), ":": (64, "fields"), "[": (2**16, "lists"), ",": (2**21, "values")}
"""How often a sign of JSON may stand in a body, outside its strings, and what it counts. Each value costs many times
its bytes when it is parsed, so a body with more is not."""
MAX_NAME = 256
"""Characters of the name of a model, of a prefix or of a language."""
MAX_USER = 4096
MAX_INT = 2**31 - 1
CHARSET = re.compile(r"charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)
UTF_8 = ("utf-8", "utf8", "us-ascii", "ascii")
M = TypeVar("M", bound=BaseModel)


class _Nested(ValueError):
    pass


class _Twice(ValueError):
    pass


def _read_object() -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """Return the hook by which the parser makes objects: of one body one alone, each field once."""
    count = 0

    def make(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal count
        count += 1
        if count > 1:  # the inner ones end first; a million of them are not made
            raise _Nested
        fields = dict(pairs)
        if len(fields) < len(pairs):
            names = [name for name, _ in pairs]
            raise _Twice(next(name for name in names if names.count(name) > 1) if len(names) <= MAX_FIELDS else "")
        return fields

    return make


def _no_constant(name: str) -> Any:
    raise InvalidRequest(f"The body holds {name}, which is no JSON.", "Send a number.")


def decode_body(raw: bytes, content_type: str | None) -> str:
    """Return the text of a body; InvalidRequest when it is not JSON by its type, or not text.

    A page of another site can send other types than JSON without being asked for leave, so no other is read.
    """
    kind = (content_type or "").partition(";")[0].strip().lower()
    if not kind:
        raise InvalidRequest("The request has no Content-Type.", "Send the header Content-Type: application/json.")
    if kind != "application/json" and not re.fullmatch(r"application/[\w.+-]+\+json", kind):
        raise InvalidRequest(f"The Content-Type is {shown(kind)}; expected application/json.", "Send JSON.")
    charset = CHARSET.search(content_type or "")
    if charset and charset[1].lower() not in UTF_8 and not charset[1].lower().startswith("utf-"):
        raise InvalidRequest(f"The body is sent as {shown(charset[1])}; JSON is UTF-8.", "Send UTF-8.")
    encoding = json.detect_encoding(raw)  # UTF-8, with or without a byte-order mark, UTF-16 and UTF-32
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        where = f"byte {error.start} is 0x{raw[error.start]:02x}"
        perhaps = "; it may be Latin-1" if encoding == "utf-8" else ""
        raise InvalidRequest(f"The body is not valid {encoding.upper()}: {where}{perhaps}.", "Send UTF-8.") from None


def parse_body(raw: bytes, content_type: str | None) -> dict[str, Any]:
    """Parse a body of JSON, an object without objects in it; InvalidRequest says what is wrong.

    >>> parse_body(b'{"query": "a"}', "application/json")
    {'query': 'a'}
    """
    text = decode_body(raw, content_type)
    if not raw:
        raise InvalidRequest("The body is empty.", "Send an object of JSON.")
    if len(raw) > LARGE_BYTES:
        for sign, count in count_signs(text).items():
            most, what = MAX_SIGNS[sign]
            if count > most:
                raise InvalidRequest(
                    f"The body holds {count} {what}, at most {most} are read.", "Send several requests."
                )
    try:
        value = json.loads(text, object_pairs_hook=_read_object(), parse_constant=_no_constant)
    except _Nested:
        raise InvalidRequest("The body holds an object within an object; no field takes one.", "Send texts.") from None
    except _Twice as twice:
        raise InvalidRequest(f"The body holds the field {shown(str(twice))} twice.", "Send it once.") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.", "Lists of lists are the most that is read.") from None
    except json.JSONDecodeError as error:
        what = f"{error.msg.removesuffix(' at')} (line {error.lineno}, column {error.colno})"
        raise InvalidRequest(f"The body is not readable JSON: {what}.", "Send an object.") from None
    except ValueError as error:  # a number of more digits than Python reads
        raise InvalidRequest(f"The body is not readable JSON: {shown(str(error))}.", "Send smaller numbers.") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"The body is {kind_of(value)}; expected an object.", "See the example in the README.")
    if len(value) > MAX_FIELDS:
        raise InvalidRequest(f"The body has {len(value)} fields; no request has so many.", "Send those of the route.")
    return value


def count_signs(text: str) -> dict[str, int]:
    r"""Count signs of JSON outside its strings, in a time that the length alone decides.

    >>> count_signs('{"a[": [1, 2], "\\\\\\"[": 0}')
    {'{': 1, ':': 2, '[': 1, ',': 2}
    """
    plain = text.encode("utf-8", "replace").replace(b"\\\\", b"").replace(b'\\"', b"")
    data = np.frombuffer(plain, np.uint8)
    outside = ~np.bitwise_xor.accumulate(data == ord('"'))
    return {sign: int(np.count_nonzero(outside & (data == ord(sign)))) for sign in MAX_SIGNS}


def kind_of(value: Any) -> str:
    """Name the kind of a value of JSON.

    >>> kind_of(None), kind_of([1]), kind_of(True), kind_of("a")
    ('null', 'a list', 'true or false', 'a text')
    """
    names = {
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a fraction",
        list: "a list",
        dict: "an object",
    }
    return "null" if value is None else names.get(type(value), "nothing known")


def check_fields(model: type[M], value: Mapping[str, Any]) -> M:
    """Return the request that `value` holds; InvalidRequest names the first field that is wrong.

    A field that may be left out may be null too, which then means the same.
    """
    for name in value:
        if name not in model.model_fields:
            known = ", ".join(sorted(model.model_fields))
            raise InvalidField(shown(name), f"{shown(name)} is no field of this request.", f"Known: {known}.")
    optional = {name for name, field in model.model_fields.items() if not field.is_required()}
    given = {name: field for name, field in value.items() if field is not None or name not in optional}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "missing":
        raise InvalidField(name, f"{name} is missing.", "")
    message = first["msg"].removeprefix("Value error, ")
    what = f"; found {kind_of(given.get(name))}" if message.startswith("Input should be a valid") else ""
    raise InvalidField(name, f"{name}: {message}{what}.", "")


class InvalidField(InvalidRequest):
    """A field of a request is not what was expected."""

    def __init__(self, field: str, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.field = field


def body_of(model: type[M]) -> Any:
    """Return what a route takes as its default for the body: read within bounds, as `model`."""

    async def read(request: Request) -> M:
        raw, kind = await request.body(), request.headers.get("content-type")
        if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
            raise InvalidRequest(f"The body is compressed ({shown(encoding)}); expected none.", "Send it as it is.")
        if len(raw) <= LARGE_BYTES:
            return check_fields(model, parse_body(raw, kind))
        readers = request.app.state.gateway.readers
        return await asyncio.get_running_loop().run_in_executor(
            readers, lambda: check_fields(model, parse_body(raw, kind))
        )

    return Depends(read)


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return what openapi.json says of a route's body."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _check_text(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"not valid Unicode: half of a surrogate pair at character {error.start}") from None
    return value


def _check_name(value: Any) -> Any:
    """Return a text without NUL: Triton would read a name up to there alone."""
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"a name without NUL is expected; there is one at character {value.index(chr(0))}")
    return _check_text(value)


def _check_texts(value: Any) -> Any:
    """Return a list of texts; the first item that is none is named, and no other is looked at."""
    if not isinstance(value, list):
        raise ValueError(f"expected a list of texts, found {kind_of(value)}")
    for index, item in enumerate(value):
        if not isinstance(item, str):
            raise ValueError(f"expected a list of texts; item {index} is {kind_of(item)}")
    return value


def _check_input(value: Any) -> Any:
    """Return what an encoder takes: a text, texts, token ids of one text or of several; likewise."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError(f"expected {INPUT_FORMS}, found {kind_of(value)}")
    kinds = {str: "texts", int: "token ids", list: "lists of token ids"}
    first = type(value[0]) if value else str
    if first not in kinds:
        raise ValueError(f"expected {INPUT_FORMS}; item 0 is {kind_of(value[0])}")
    for index, item in enumerate(value):
        if type(item) is not first:
            raise ValueError(f"expected {kinds[first]} like item 0; item {index} is {kind_of(item)}")
        if first is list:
            _check_ids(index, item)
    return value


def _check_ids(index: int, row: Sequence[Any]) -> None:
    for place, number in enumerate(row):
        if type(number) is not int:
            raise ValueError(f"expected token ids; item {index} holds {kind_of(number)} at position {place}")


INPUT_FORMS = "a text, a list of texts, token ids, or a list of token ids"
Name = Annotated[str, StringConstraints(strict=True, max_length=MAX_NAME), BeforeValidator(_check_name)]
"""Of a model, a prefix or a language."""
Text = Annotated[str, StringConstraints(strict=True), BeforeValidator(_check_text)]
User = Annotated[str, StringConstraints(strict=True, max_length=MAX_USER), BeforeValidator(_check_text)]
Texts = Annotated[Any, BeforeValidator(_check_texts), WithJsonSchema({"type": "array", "items": {"type": "string"}})]
_IDS = {"type": "array", "items": {"type": "integer"}}
Input = Annotated[
    Any,
    BeforeValidator(_check_input),
    WithJsonSchema(
        {
            "oneOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}},
                _IDS,
                {"type": "array", "items": _IDS},
            ]
        }
    ),
]
Count = Annotated[StrictInt, Field(ge=1, le=MAX_INT)]
