"""What an attack is, how it is sent, and how its outcome counts."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

REFUSE, ANSWER, EITHER, CLOSE = "refuse", "answer", "either", "close"
"""What must happen: a clear refusal; the right answer; one of the two; a refusal or the end of the connection."""
PATIENCE_SECONDS = 40.0
"""No attack may keep its own connection waiting for longer."""
PROBE_SECONDS = 10.0
"""After an attack a plain request must be answered within this time, on the slowest machine."""


@dataclass(frozen=True)
class Answer:
    """What came back: an HTTP status (0: nothing came), or that of gRPC or the client mapped to one."""

    status: int
    body: bytes = b""
    seconds: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        """The body as JSON; None when it is not."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def message(self) -> str:
        """What an error says: of OpenAI's shape, of Triton's, or plain text."""
        found = self.json
        if isinstance(found, dict):
            error = found.get("error", "")
            return str(error.get("message", "") if isinstance(error, dict) else error)
        return self.body.decode(errors="replace")


@dataclass(frozen=True)
class Target:
    """A server under attack, and what its answers have to be."""

    gateway: int
    http: int
    grpc: int
    metrics: int
    dim: int
    max_length: int
    vocabulary: int
    documents: int
    """In the retriever's index; 0: there is no retriever."""
    texts: list[str]
    vectors: np.ndarray[Any, Any]
    """(texts, dim), the right answers."""
    ids: list[list[int]]
    """Token ids of the texts, special tokens and default prefix included."""

    @property
    def url(self) -> str:
        """HOST:PORT of gRPC."""
        return f"127.0.0.1:{self.grpc}"


@dataclass(frozen=True)
class Attack:
    """One hostile or unlucky input."""

    group: str
    name: str
    expect: str
    send: Callable[[Target], Answer]
    check: Callable[[Answer, Target], str] | None = None
    """Returns what is wrong with an answer of status 200, else an empty string."""
    says: str = ""
    """What the refusal has to name."""
    slow: bool = False
    """Takes seconds, or much memory: not sent by the quick test."""

    def judge(self, answer: Answer, target: Target) -> tuple[str, str]:
        """Return how the answer counts (answered, refused, closed, lost, wrong or failed) and why."""
        told = f"status {answer.status}: {answer.message[:160]}"
        if answer.status == 0:
            ended = self.expect == CLOSE and "timed out" not in answer.message
            return ("closed", "") if ended else ("lost", f"no answer ({told})")
        if answer.seconds > PATIENCE_SECONDS:
            return "lost", f"the answer took {answer.seconds:.1f} s"
        if 200 <= answer.status < 300:
            if self.expect in (REFUSE, CLOSE):
                return "wrong", f"answered instead of refused ({answer.body[:120]!r})"
            problem = self.check(answer, target) if self.check else ""
            return ("wrong", problem) if problem else ("answered", "")
        own = answer.status == 500 and self.group.startswith("Triton") and "arse" in answer.message
        if answer.status >= 500 and not own and not (answer.status in (501, 503, 505) and self.expect != ANSWER):
            return "failed", told  # Triton calls JSON that it cannot parse an internal error, and says what it is
        if self.expect == ANSWER:
            return "wrong", f"refused instead of answered ({told})"
        if self.says and self.says not in answer.message:
            return "failed", f"the refusal does not name {self.says!r} ({told})"
        if not answer.message.strip() and self.expect != CLOSE:
            return "failed", f"a refusal without a reason ({told})"
        return "refused", ""


def call(
    port: int,
    method: str,
    path: str,
    body: bytes | Mapping[str, Any] | list[Any] | str = b"",
    headers: Mapping[str, str] | None = None,
    *,
    seconds: float = PATIENCE_SECONDS + 5,
) -> Answer:
    """Send one HTTP request and read the whole answer."""
    if not isinstance(body, bytes):
        body = (body if isinstance(body, str) else json.dumps(body)).encode("utf-8", "surrogatepass")
    given = {"Content-Type": "application/json", **(headers or {})}
    given = {name: value for name, value in given.items() if value != ""}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    begun = time.monotonic()
    try:
        try:
            connection.request(method, path, body or None, given)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was sent: the answer may be there all the same
        answer = connection.getresponse()
        return Answer(answer.status, answer.read(), time.monotonic() - begun, dict(answer.getheaders()))
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, f"{type(error).__name__}: {error}".encode(), time.monotonic() - begun)
    finally:
        connection.close()


def raw(port: int, *parts: bytes, seconds: float = PATIENCE_SECONDS, pause: float = 0.0) -> Answer:
    """Send bytes as they are, and read until the other side ends or answers."""
    begun = time.monotonic()
    received = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            while chunk := connection.recv(65536):
                received += chunk
                head, found, rest = received.partition(b"\r\n\r\n")
                length = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-length")
                    ),
                    None,
                )
                if found and length is not None and len(rest) >= length:
                    break
    except OSError as error:
        if not received:
            return Answer(0, f"{type(error).__name__}: {error}".encode(), time.monotonic() - begun)
    head, _, rest = received.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    status = int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit() else 0
    return Answer(status, rest, time.monotonic() - begun)


def embed(body: Any, headers: Mapping[str, str] | None = None) -> Callable[[Target], Answer]:
    """Return what posts a body to the gateway's embeddings."""
    return lambda target: call(target.gateway, "POST", "/v1/embeddings", body, headers)


def vectors_of(answer: Answer) -> np.ndarray[Any, Any]:
    """Return the vectors of an answer in OpenAI's shape, floats."""
    return np.array([row["embedding"] for row in answer.json["data"]], np.float32)


def same_as(*rows: int) -> Callable[[Answer, Target], str]:
    """Return a check that the vectors are those of the target's texts `rows`, bit for bit."""

    def check(answer: Answer, target: Target) -> str:
        found, right = vectors_of(answer), target.vectors[list(rows)].astype(np.float32)
        return "" if found.shape == right.shape and (found == right).all() else "other vectors"

    return check


def finite(count: int = 1) -> Callable[[Answer, Target], str]:
    """Return a check that there are `count` unit vectors."""

    def check(answer: Answer, target: Target) -> str:
        found = vectors_of(answer)
        right = found.shape == (count, target.dim) and np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)
        return "" if right else f"vectors of shape {found.shape}, or not of unit length"

    return check


def probe(target: Target) -> str:
    """Return what is wrong with the server now: a plain request, by the gateway and by Triton, must be answered right."""
    for name, send in (("gateway", probe_gateway), ("Triton", probe_triton)):
        begun = time.monotonic()
        problem = send(target)
        if not problem and time.monotonic() - begun > PROBE_SECONDS:
            problem = f"it took {time.monotonic() - begun:.1f} s"
        if problem:
            return f"{name}: {problem}"
    return ""


def probe_gateway(target: Target) -> str:
    """Ask the gateway for the first text."""
    answer = call(target.gateway, "POST", "/v1/embeddings", {"model": "encoder", "input": target.texts[:1]})
    return same_as(0)(answer, target) if answer.status == 200 else f"status {answer.status}: {answer.message[:200]}"


def probe_triton(target: Target) -> str:
    """Ask Triton for the first text over HTTP."""
    body = infer_body({"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": target.texts[:1]})
    answer = call(target.http, "POST", "/v2/models/encoder/infer", body)
    if answer.status != 200:
        return f"status {answer.status}: {answer.message[:200]}"
    data = next(o["data"] for o in answer.json["outputs"] if o["name"] == "embedding")
    return "" if (np.array(data, np.float32) == target.vectors[0]).all() else "other vectors"


def infer_body(*inputs: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the JSON of a KServe request."""
    return {"inputs": list(inputs), "outputs": [{"name": "embedding"}], **more}
