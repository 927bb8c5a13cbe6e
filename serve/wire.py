"""What both clients share: the tensors of a request, the reading of answers, and what an error of the server means."""

from __future__ import annotations

import base64
import json
import random
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.core.errors import XtError, unknown
from xt.core.server_state import GRPC_KEY_HEADER
from xt.core.server_state import admin_headers as find_headers
from xt.core.text import check_text

DTYPES = {"float32": "embedding", "float16": "embedding_fp16", "int8": "embedding_int8"}
"""The output of an encoder that holds vectors of a type."""
KINDS = {"encoder": "embedding", "retriever": "ids", "classifier": "label", "reader": "answer"}
"""The output by which a kind of model is known; the first that a model has decides."""
DEFAULT_MODEL = "encoder"
"""What `xt export` calls a model when it is not told another name."""
REQUEST_CHARACTERS = 16384
"""Characters of one request of several, about four thousand tokens: what any server lets wait."""
PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
GRACE_SECONDS = 0.25
"""How much longer than the server the client waits, so that the answer to a passed deadline is the server's."""


class Unreachable(XtError):
    """Nothing answers at the address, or the connection was lost."""


class ServerFull(XtError):
    """The server has no room for the request now; the same request may be sent again later."""


class DeadlinePassed(XtError):
    """The answer did not come within the time the request was given."""


class InvalidRequest(XtError):
    """The server refused the request; sent again it would be refused again."""


class UnknownModel(XtError):
    """The server does not hold the model."""


class Restricted(XtError):
    """The server answers this only to who has its admin key."""


@dataclass(frozen=True)
class Tls:
    """The files of an encrypted connection, all PEM."""

    ca: Path | None = None
    """Certificates to trust; None: those of the system."""
    key: Path | None = None
    """The client's private key, where the server asks for one."""
    certificate: Path | None = None
    """The client's certificate chain, where the server asks for one."""

    def options(self) -> dict[str, Any]:
        """As tritonclient takes them."""
        names = {"root_certificates": self.ca, "private_key": self.key, "certificate_chain": self.certificate}
        for file in names.values():
            if file is not None and not file.is_file():
                raise XtError(f"There is no file {file}.", "Name a PEM file.")
        return {"ssl": True, **{name: str(file) for name, file in names.items() if file is not None}}


@dataclass(frozen=True)
class Served:
    """What the server says of a model."""

    name: str
    kind: str
    """`encoder`, `retriever`, `classifier` or `reader` (tagging, question answering, regression)."""
    max_texts: int
    """Texts that one request may hold."""
    facts: Mapping[str, Any]
    """What `xt export` wrote of it."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Vectors:
    """What encoding gives, in the order of the texts."""

    vectors: npt.NDArray[Any]
    """(texts, dim), of the type asked for."""
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
    """Which calibrator spoke: "zero-shot", "pooled", "per-language:deu"; "none" without one."""
    tokens: int
    truncated: bool


@dataclass(frozen=True)
class Classified:
    """What a classifier, tagger or reader gives, in the order of the texts."""

    labels: tuple[str, ...]
    """(texts,) the likeliest label or choice; empty for taggers, readers and regression."""
    probabilities: npt.NDArray[np.float32] | None
    """(texts, names) calibrated; None where the model gives no probabilities."""
    names: tuple[str, ...]
    """The labels in the order of the columns of `probabilities`."""
    answers: tuple[Any, ...] = field(default=())
    """(texts,) the whole answer of the model for each text: tags, a span with its text, a number, a label."""


def new_caller() -> str:
    """Return the name by which a server knows the requests of one client, to share its work fairly between clients."""
    return secrets.token_hex(8)


def check_address(url: str) -> None:
    """Raise XtError unless `url` is HOST:PORT."""
    host, _, port = url.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise XtError(f"{url!r} is no address.", "Expected HOST:PORT of the gRPC endpoint, e.g. 127.0.0.1:8001.")


def admin_headers(url: str, key: str | None) -> dict[str, str]:
    """Give the headers that open a server's restricted calls, with the key given or else found."""
    return {GRPC_KEY_HEADER: key} if key is not None else find_headers(url)


def describe(config: Mapping[str, Any], url: str) -> Served:
    """Read a model's configuration (JSON of the protobuf); XtError when it is not a model of xt."""
    name = str(config["name"])
    if "xt" not in config.get("parameters", {}):
        raise XtError(f"The model {name!r} at {url} was not made by xt.", "Serve one that `xt export` wrote.")
    outputs = tuple(str(o["name"]) for o in config.get("output", []))
    kind = next((kind for kind, output in KINDS.items() if output in outputs), None)
    if kind is None:
        raise XtError(f"The model {name!r} at {url} gives {', '.join(outputs)}: no kind that xt knows.", "Update xt.")
    return Served(
        name=name,
        kind=kind,
        max_texts=max(1, int(config.get("max_batch_size", 1))),
        facts=json.loads(config["parameters"]["xt"]["string_value"]),
        inputs=tuple(str(i["name"]) for i in config.get("input", [])),
        outputs=outputs,
    )


def explain(error: Exception, url: str, model: str | None, rows: Sequence[int] | None = None) -> XtError:
    """Say what an error of tritonclient means. `rows` are the places, in the whole list, of the texts of the request.

    Triton answers a restricted call, a lost connection and a full queue with one code, UNAVAILABLE; the words differ.
    """
    status = str(getattr(error, "status", lambda: "")() or "")
    message = str(getattr(error, "message", lambda: error)() or error)
    if "restricted" in message:
        return Restricted(
            f"The server at {url} does not tell this without its key.", "Give admin_key, or set XT_ADMIN_KEY."
        )
    if "no available versions" in message:  # known, and not ready: being loaded anew, or the server is ending
        return Unreachable(
            f"The model {model!r} at {url} is not ready ({message.splitlines()[0][:160]}).",
            "Send it again when the model is loaded; `xt serve` prints why one does not load.",
        )
    if "CANCELLED" in status or "Server is stopping" in message:  # neither client cancels a call it waits for
        return Unreachable(f"The server at {url} is ending ({message.splitlines()[0][:160]}).", "Send it again later.")
    if "unknown model" in message or ("NOT_FOUND" in status and "model" in message):
        return UnknownModel(f"The server at {url} holds no model {model!r}.", "Name one that it serves.")
    if "UNAVAILABLE" in status:
        if re.search(r"connect|[Ss]ocket|resol|recvmsg|Broken pipe|GOAWAY|handshake|shut ?down", message):
            return Unreachable(
                f"No server answers at {url} ({message.splitlines()[0][:160]}).",
                "Start one with `xt serve REPO`, or check the address: it is the gRPC port.",
            )
        if re.search(r"deadline|expired", message, re.IGNORECASE):
            return DeadlinePassed(f"The server at {url}: {message}", "Give the request more time, or send less.")
        return ServerFull(f"The server at {url} is full: {message}", "Send it again later, or send less at once.")
    if "DEADLINE_EXCEEDED" in status:
        return DeadlinePassed(f"No answer from {url} in time.", "Give the request more time (timeout_seconds).")
    if "Stub process" in message:  # the model's process died; Triton starts another
        return Unreachable(f"The model {model!r} at {url} lost its process: {message}", "Send it again.")
    if "INVALID_ARGUMENT" in status:
        return InvalidRequest(*_renumber(message, rows))
    return XtError(f"The server at {url} answered {status}: {message}")


def _renumber(message: str, rows: Sequence[int] | None) -> tuple[str, str]:
    """Let "text 3" and the like mean the caller's fourth text, not that of the request; message and hint apart."""

    def place(match: re.Match[str]) -> str:
        index = int(match[2])
        return f"{match[1]} {rows[index] if rows is not None and index < len(rows) else index}"

    first, _, rest = re.sub(r"\b(text|text_pair|ids) (\d+)\b", place, message).partition("\n")
    return first, rest


def may_retry(error: XtError) -> bool:
    """Whether the same request may succeed when sent again: encoding changes nothing, so a lost answer may be."""
    return isinstance(error, (ServerFull, Unreachable))


def pauses(retries: int) -> Iterator[float]:
    """Seconds to wait before each retry: doubling, and spread so that callers refused together come back apart."""
    for attempt in range(retries):
        yield min(LONGEST_PAUSE_SECONDS, PAUSE_SECONDS * 2**attempt) * random.uniform(0.5, 1.5)


def ready_names(index: Mapping[str, Any]) -> list[str]:
    """Read the names of the ready models from a repository index."""
    return sorted({str(m["name"]) for m in index.get("models", []) if m.get("state", "READY") == "READY"})


def unlisted(restricted: Restricted) -> list[str]:
    """Give the names to try when the list is kept secret: the one `xt export` writes when it is not told another."""
    del restricted
    return [DEFAULT_MODEL]


def choose_default(names: Sequence[str], url: str) -> str:
    """Give the only name, or `encoder` when it is among several; XtError otherwise."""
    if len(names) == 1 or DEFAULT_MODEL in names:
        return DEFAULT_MODEL if DEFAULT_MODEL in names else names[0]
    raise XtError(f"The server at {url} holds {', '.join(names) or 'no model'}.", "Choose one (model, --model).")


def default_model(index: Callable[[], list[str]], url: str) -> str:
    """Choose the model of a client that named none."""
    try:
        names = index()
    except Restricted as restricted:
        names = unlisted(restricted)
    return choose_default(names, url)


def request_order(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Cut texts of `lengths` characters into requests: of at most `size`, of like lengths, and of bounded work.

    Like lengths, so that the server pads little; bounded work, so that one request does not fill the server's queue.

    >>> request_order([9, 9, 9], 2), request_order([9, 20_000, 9], 2)
    ([[0, 1], [2]], [[0, 2], [1]])
    """
    if len(lengths) <= size and sum(lengths) <= REQUEST_CHARACTERS:
        return [list(range(len(lengths)))] if lengths else []
    requests: list[list[int]] = []
    characters = 0
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if not requests or len(requests[-1]) == size or characters + lengths[index] > REQUEST_CHARACTERS:
            requests.append([])
            characters = 0
        requests[-1].append(index)
        characters += lengths[index]
    return requests


class UnderWay:
    """How many requests of one call wait for their answer: one that is refused then waits for its own siblings."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def __enter__(self) -> None:
        with self._lock:
            self._count += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._count -= 1

    def pause(self, error: XtError, waits: Iterator[float]) -> float | None:
        """Seconds to wait before the request is sent again; None: give up."""
        if not may_retry(error):
            return None
        siblings = isinstance(error, ServerFull) and self._count > 0
        return LONGEST_PAUSE_SECONDS / 10 if siblings else next(waits, None)


def check_texts(texts: Sequence[str]) -> None:
    """Raise InvalidRequest for the first that is not text, before anything is sent."""
    if isinstance(texts, str):
        raise InvalidRequest("texts is one string, expected a list of them.", "Put it in a list.")
    for index, text in enumerate(texts):
        try:
            check_text(text, f"text {index}")
        except XtError as error:
            raise InvalidRequest(error.message, error.hint) from None


def strings(name: str, values: Sequence[str], grpc: Any) -> Any:
    """Make the input tensor `name`, (texts, 1) of UTF-8 bytes."""
    data = np.array([[v.encode("utf-8")] for v in values], dtype=np.object_)
    tensor = grpc.InferInput(name, list(data.shape), "BYTES")
    tensor.set_data_from_numpy(data)
    return tensor


def token_ids(rows: Sequence[Sequence[int]], grpc: Any) -> Any:
    """Make the input tensor `ids`, (texts, longest) of INT32, padded with -1."""
    data = np.full((len(rows), max(len(r) for r in rows)), -1, np.int32)
    for index, row in enumerate(rows):
        data[index, : len(row)] = row
    tensor = grpc.InferInput("ids", list(data.shape), "INT32")
    tensor.set_data_from_numpy(data)
    return tensor


def wanted(model: Served, names: Sequence[str], grpc: Any) -> list[Any]:
    """Ask for the outputs `names`; XtError for one that the model does not give."""
    for name in names:
        if name not in model.outputs:
            raise unknown(f"output of {model.name!r}", name, model.outputs)
    return [grpc.InferRequestedOutput(name) for name in names]


def encode_parameters(prefix: str | None, truncate: bool, dimensions: int | None) -> dict[str, Any]:
    """Give the request parameters of an encoder; what is not asked for is left to the model."""
    parameters: dict[str, Any] = {"truncate": True} if truncate else {}
    if prefix is not None:
        parameters["prefix"] = prefix
    if dimensions is not None:
        parameters["dimensions"] = int(dimensions)
    return parameters


def encode_outputs(dtype: str) -> list[str]:
    """Give the names of the outputs that vectors of `dtype` need."""
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    return [DTYPES[dtype], "tokens", "truncated", *(["scale"] if dtype == "int8" else [])]


def gather_vectors(requests: Sequence[Sequence[int]], results: Sequence[Any], dtype: str, dim: int) -> Vectors:
    """Put the rows of all answers in the order of the texts; `dim` is the width when there are no texts."""
    count = sum(len(r) for r in requests)
    parts = [r.as_numpy(DTYPES[dtype]) for r in results]
    vectors = np.empty((count, parts[0].shape[1] if parts else dim), dtype)
    tokens, cut = np.empty(count, np.int32), np.empty(count, np.bool_)
    scale = np.empty(count, np.float32) if dtype == "int8" else None
    for rows, part, result in zip(requests, parts, results, strict=True):
        vectors[rows] = part
        tokens[rows] = result.as_numpy("tokens")[:, 0]
        cut[rows] = result.as_numpy("truncated")[:, 0]
        if scale is not None:
            scale[rows] = result.as_numpy("scale")[:, 0]
    return Vectors(vectors, tokens, cut, scale)


def languages_of(languages: str | Sequence[str] | None, count: int) -> list[str] | None:
    """Give one language for each text: one for all, or one each."""
    if languages is None:
        return None
    if isinstance(languages, str):
        return [languages] * count
    if len(languages) != count:
        raise InvalidRequest(f"There are {count} texts and {len(languages)} languages.", "Give one, or one each.")
    return list(languages)


def search_outputs(model: Served) -> list[str]:
    """Give the outputs to ask a retriever for: one without a calibration refuses to give probabilities."""
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
    """Give a classifier's labels in the order of its probabilities."""
    return tuple(str(name) for name in model.facts.get("task", {}).get("labels", ()))


def gather_classes(
    requests: Sequence[Sequence[int]], results: Sequence[Any], outputs: Sequence[str], names: tuple[str, ...]
) -> Classified:
    """Put the answers of a classifier, tagger or reader in the order of the texts."""
    count = sum(len(r) for r in requests)

    def text(name: str) -> list[str]:
        return gather(requests, [[v.decode() for v in r.as_numpy(name).ravel()] for r in results])

    probabilities = None
    if "probabilities" in outputs:
        parts = [r.as_numpy("probabilities") for r in results]
        probabilities = np.empty((count, parts[0].shape[1] if parts else len(names)), np.float32)
        for rows, part in zip(requests, parts, strict=True):
            probabilities[rows] = part
    answers = tuple(json.loads(a) for a in text("answer")) if "answer" in outputs else ()
    return Classified(tuple(text("label")) if "label" in outputs else (), probabilities, names, answers)


def gather(requests: Sequence[Sequence[int]], parts: Sequence[Sequence[Any]]) -> list[Any]:
    """Put the rows of all answers in the order of the texts."""
    out: list[Any] = [None] * sum(len(r) for r in requests)
    for rows, part in zip(requests, parts, strict=True):
        for index, value in zip(rows, part, strict=True):
            out[index] = value
    return out


def base64_floats(vector: npt.NDArray[np.float32]) -> str:
    """Write a vector as OpenAI's base64: little-endian float32."""
    return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode("ascii")
