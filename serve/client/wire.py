"""What travels: the tensors and parameters of a request, and the reading of its answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.core.arguments import MAX_ID, as_name, as_names, flag, whole_number
from xt.core.encoder.text import as_texts
from xt.core.errors import XtError, unknown
from xt.serve.client.errors import InvalidRequest
from xt.serve.client.models import Served
from xt.serve.client.packed import pack

DTYPES = {"float32": "embedding", "float16": "embedding_fp16", "int8": "embedding_int8"}
"""The output of an encoder that holds vectors of a type."""
DATATYPES = {"object": "BYTES", "int32": "INT32", "uint8": "UINT8"}
REQUEST_CHARACTERS = 16384
"""Characters of one request of several, about four thousand tokens: what any server lets wait."""


@dataclass(frozen=True)
class Tensor:
    """One input of a request."""

    name: str
    data: npt.NDArray[Any]

    @property
    def datatype(self) -> str:
        """What Triton calls the type of its elements."""
        return DATATYPES[self.data.dtype.name]


@dataclass(frozen=True)
class Vectors:
    """The result of encoding, in the order of the texts."""

    vectors: npt.NDArray[Any]
    """(texts, dim), of the requested type."""
    tokens: npt.NDArray[np.int32]
    """(texts,) tokens that were read, special tokens and prefix included."""
    truncated: npt.NDArray[np.bool_]
    """(texts,) whether a text was cut."""
    scale: npt.NDArray[np.float32] | None = None
    """(texts,) for int8: what to multiply a row by to get float32."""


@dataclass(frozen=True)
class Hit:
    """One answer to a query."""

    id: str
    score: float
    """Cosine similarity."""
    probability: float | None
    """Calibrated, over the candidates and "none of these"; None where the retriever has no calibration."""
    document: str
    """Its text."""
    copies: tuple[str, ...] = ()
    """The ids of all documents of the index that have this text, its own among them. They are one candidate."""


@dataclass(frozen=True)
class Found:
    """The answers to one query, best first."""

    hits: tuple[Hit, ...]
    none: float | None
    """The probability that no candidate is right; None where the retriever has no calibration."""
    calibration: str
    """The calibrator applied: "zero-shot", "pooled", "per-language:deu"; "none" without one."""
    tokens: int
    truncated: bool


@dataclass(frozen=True)
class Classified:
    """The answers of a classifier, tagger or reader, in the order of the texts."""

    labels: tuple[str, ...]
    """(texts,) the likeliest label or choice; empty for taggers, readers and regression."""
    probabilities: npt.NDArray[np.float32] | None
    """(texts, names) calibrated; None where the model gives no probabilities."""
    names: tuple[str, ...]
    """The labels in the order of the columns of `probabilities`."""
    answers: tuple[Any, ...] = field(default=())
    """(texts,) the whole answer of the model for each text: tags, a span with its text, a number, a label."""


def request_order(lengths: Sequence[int], size: int, characters: int | None = REQUEST_CHARACTERS) -> list[list[int]]:
    """Cut texts into requests: of at most `size` texts, of like lengths, and of bounded work.

    Like lengths, so that the server pads little; bounded work, so that one request does not fill the server's queue.

    Args:
        lengths: characters of each text.
        size: texts of a request at most.
        characters: of a request at most, one text at least; None: any number.

    >>> request_order([9, 9, 9], 2), request_order([9, 20_000, 9], 2)
    ([[0, 1], [2]], [[0, 2], [1]])
    """
    most = sum(lengths) if characters is None else characters
    if len(lengths) <= size and sum(lengths) <= most:
        return [list(range(len(lengths)))] if lengths else []
    requests: list[list[int]] = []
    used = 0
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if not requests or len(requests[-1]) == size or used + lengths[index] > most:
            requests.append([])
            used = 0
        requests[-1].append(index)
        used += lengths[index]
    return requests


@contextmanager
def refused_as_invalid() -> Iterator[None]:
    """Let what an argument is refused for be an InvalidRequest, as the server's own refusal would be."""
    try:
        yield
    except InvalidRequest:
        raise
    except XtError as error:
        raise InvalidRequest(error.message, error.hint) from None


def check_texts(texts: Iterable[str], name: str = "texts", one: str = "text") -> list[str]:
    """Return any sequence of texts as a list in its own order; InvalidRequest for the first that is not text."""
    with refused_as_invalid():
        return as_texts(texts, name, one)


def strings(name: str, values: Sequence[str]) -> Tensor:
    """Make the input tensor `name`, (texts, 1) of UTF-8 bytes."""
    return Tensor(name, np.array([[v.encode("utf-8")] for v in values], dtype=np.object_))


def packed(texts: Sequence[str]) -> Tensor:
    """Make the input tensor `packed`, (1, bytes): all texts in one blob."""
    return Tensor("packed", pack(texts)[None])


def token_ids(rows: Sequence[npt.NDArray[np.int64]]) -> Tensor:
    """Make the input tensor `ids`, (texts, longest) of INT32, padded with -1."""
    data = np.full((len(rows), max(len(r) for r in rows)), -1, np.int32)
    for index, row in enumerate(rows):
        data[index, : len(row)] = row
    return Tensor("ids", data)


def encode_parameters(prefix: str | None, truncate: bool, dimensions: int | None) -> dict[str, Any]:
    """Return the request parameters of an encoder; what is not requested is left to the model."""
    with refused_as_invalid():
        parameters: dict[str, Any] = {"truncate": True} if flag(truncate, "truncate") else {}
        if prefix is not None:
            parameters["prefix"] = as_name(prefix, "prefix")
        if dimensions is not None:
            parameters["dimensions"] = whole_number(dimensions, "dimensions", 1, MAX_ID)
    return parameters


def dtype_name(dtype: Any) -> str:
    """Return the name of a type of vectors, given by its name or as numpy's; InvalidRequest for another.

    >>> dtype_name(np.float16)
    'float16'
    """
    try:
        name = dtype if isinstance(dtype, str) else np.dtype(dtype).name if dtype is not None else "None"
    except TypeError:
        name = type(dtype).__name__
    if name not in DTYPES:
        error = unknown("dtype", name[:60], DTYPES)
        raise InvalidRequest(error.message, error.hint)
    return name


def encode_outputs(dtype: str) -> list[str]:
    """Return the names of the outputs that vectors of `dtype` need."""
    return [DTYPES[dtype], "tokens", "truncated", *(["scale"] if dtype == "int8" else [])]


def gather_vectors(requests: Sequence[Sequence[int]], results: Iterable[Any], dtype: str, dim: int) -> Vectors:
    """Put the rows of all answers in the order of the texts; `dim` is the width when there are no texts."""
    count = sum(len(r) for r in requests)
    vectors = np.empty((count, dim), dtype)
    tokens, cut = np.empty(count, np.int32), np.empty(count, np.bool_)
    scale = np.empty(count, np.float32) if dtype == "int8" else None
    for rows, result in zip(requests, results, strict=True):
        part = result.as_numpy(DTYPES[dtype])
        if part.shape[1] != vectors.shape[1]:
            vectors = np.empty((count, part.shape[1]), dtype)
        vectors[rows] = part
        tokens[rows] = result.as_numpy("tokens")[:, 0]
        cut[rows] = result.as_numpy("truncated")[:, 0]
        if scale is not None:
            scale[rows] = result.as_numpy("scale")[:, 0]
    return Vectors(vectors, tokens, cut, scale)


def languages_of(languages: str | Iterable[str] | None, count: int) -> list[str] | None:
    """Return one language for each text, given one for all, or one each ("" where it is not known)."""
    if languages is None:
        return None
    with refused_as_invalid():
        if isinstance(languages, str):
            return [as_name(languages, "languages")] * count
        return as_names(languages, "languages", "language", count)


def search_outputs(model: Served) -> list[str]:
    """Return the outputs to ask a retriever for: one without a calibration refuses to give probabilities."""
    calibrated = ["probabilities", "none"] if model.facts.get("calibrated") else []
    copies = ["copies"] if "copies" in model.outputs else []  # one installed by an earlier release has none
    return ["ids", "documents", *copies, "scores", *calibrated, "calibration", "tokens", "truncated"]


def read_found(result: Any, calibrated: bool) -> list[Found]:
    """Read a retriever's answer: hits without an id (an approximate index found fewer than k) are left out."""
    ids, scores, documents = result.as_numpy("ids"), result.as_numpy("scores"), result.as_numpy("documents")
    probabilities = result.as_numpy("probabilities") if calibrated else None
    none = result.as_numpy("none")[:, 0] if calibrated else None
    copies = result.as_numpy("copies")
    calibration = result.as_numpy("calibration")[:, 0]
    tokens, cut = result.as_numpy("tokens")[:, 0], result.as_numpy("truncated")[:, 0]
    found = []
    for row in range(len(ids)):
        hits = tuple(
            Hit(
                ids[row, j].decode(),
                float(scores[row, j]),
                float(probabilities[row, j]) if probabilities is not None else None,
                documents[row, j].decode(),
                tuple(json.loads(copies[row, j])) if copies is not None else (ids[row, j].decode(),),
            )
            for j in range(ids.shape[1])
            if ids[row, j]
        )
        mass = float(none[row]) if none is not None else None
        found.append(Found(hits, mass, calibration[row].decode(), int(tokens[row]), bool(cut[row])))
    return found


def label_names(model: Served) -> tuple[str, ...]:
    """Return a classifier's labels in the order of its probabilities."""
    return tuple(str(name) for name in model.facts.get("task", {}).get("labels", ()))


def gather_classes(
    requests: Sequence[Sequence[int]], results: Iterable[Any], outputs: Sequence[str], names: tuple[str, ...]
) -> Classified:
    """Put the answers of a classifier, tagger or reader in the order of the texts."""
    given = list(results)
    count = sum(len(r) for r in requests)

    def text(name: str) -> list[str]:
        return gather(requests, ([v.decode() for v in r.as_numpy(name).ravel()] for r in given))

    probabilities = None
    if "probabilities" in outputs:
        parts = [r.as_numpy("probabilities") for r in given]
        probabilities = np.empty((count, parts[0].shape[1] if parts else len(names)), np.float32)
        for rows, part in zip(requests, parts, strict=True):
            probabilities[rows] = part
    answers = tuple(json.loads(a) for a in text("answer")) if "answer" in outputs else ()
    return Classified(tuple(text("label")) if "label" in outputs else (), probabilities, names, answers)


def gather(requests: Sequence[Sequence[int]], parts: Iterable[Sequence[Any]]) -> list[Any]:
    """Put the rows of all answers in the order of the texts."""
    out: list[Any] = [None] * sum(len(r) for r in requests)
    for rows, part in zip(requests, parts, strict=True):
        for index, value in zip(rows, part, strict=True):
            out[index] = value
    return out


def base64_floats(vector: npt.NDArray[np.float32]) -> str:
    """Write a vector as OpenAI's base64: little-endian float32."""
    return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode("ascii")
