"""Requests that are built before they are sent, for load generators: bytes out, and of an answer its raw outputs.

A load generator shares the machine with what it measures, so it does as little as it can while the clock runs. What
travels is here: gRPC's message and KServe's binary extension of HTTP; sending it is the generator's.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from xt.core.errors import XtError, unknown
from xt.serve.client.packed import pack

Input = Literal["text", "ids", "packed"]
INPUTS = ("text", "ids", "packed")
OUTPUTS = ("embedding", "tokens", "truncated")
INFER = "/inference.GRPCInferenceService/ModelInfer"
"""The method of gRPC that takes a request."""
HEADER_LENGTH = "Inference-Header-Content-Length"
_HEADER_LENGTH = re.compile(rb"\r\ninference-header-content-length:\s*(\d+)", re.IGNORECASE)
Ids = Sequence[npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Counted:
    """What counts of an answer."""

    tokens: int
    """Read by the server, of all its texts."""
    truncated: int
    """Texts that were cut."""


def _counted(tokens: bytes, truncated: bytes) -> Counted:
    return Counted(int(np.frombuffer(tokens, np.int32).sum()), truncated.count(1))


class Rows:
    """Texts as the input tensor of a request."""

    def __init__(self, kind: Input, texts: Sequence[str] | None, ids: Ids | None) -> None:
        if kind not in INPUTS:
            raise unknown("input", kind, INPUTS)
        if (ids if kind == "ids" else texts) is None:
            raise XtError(f"--input {kind} needs {'token ids' if kind == 'ids' else 'texts'}.")
        self.kind = kind
        self._texts = list(texts or [])
        self._raw = [t.encode("utf-8") for t in self._texts] if kind == "text" else []
        self._ids = [row.astype(np.int32) for row in ids] if kind == "ids" and ids is not None else []

    def tensor(self, rows: Sequence[int]) -> tuple[str, str, list[int], bytes]:
        """Return name, datatype, shape and bytes of the tensor."""
        if self.kind == "text":
            data = b"".join(struct.pack("<I", len(self._raw[i])) + self._raw[i] for i in rows)
            return "text", "BYTES", [len(rows), 1], data
        if self.kind == "packed":
            blob = pack([self._texts[i] for i in rows])
            return "packed", "UINT8", [1, len(blob)], blob.tobytes()
        some = [self._ids[i] for i in rows]
        out = np.full((len(some), max(len(row) for row in some)), -1, np.int32)
        for i, row in enumerate(some):
            out[i, : len(row)] = row
        return "ids", "INT32", list(out.shape), out.tobytes()


@dataclass
class Requests:
    """The requests to one encoder."""

    model: str
    rows: Rows
    parameters: Mapping[str, Any] = field(default_factory=dict)
    _layouts: dict[bytes, tuple[slice, slice]] = field(default_factory=dict)

    def grpc(self, rows: Sequence[int]) -> bytes:
        """Build the serialised ModelInferRequest of these texts."""
        from tritonclient.grpc import service_pb2 as pb

        name, datatype, shape, data = self.rows.tensor(rows)
        request = pb.ModelInferRequest(model_name=self.model)
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        for output in OUTPUTS:
            request.outputs.add(name=output)
        for key, value in self.parameters.items():
            kind = "bool_param" if isinstance(value, bool) else "int64_param" if isinstance(value, int) else None
            setattr(request.parameters[key], kind or "string_param", value)
        request.raw_input_contents.append(data)
        return bytes(request.SerializeToString())

    def read_grpc(self, answer: bytes) -> Counted:
        """Read a serialised ModelInferResponse."""
        from tritonclient.grpc import service_pb2 as pb

        message = pb.ModelInferResponse.FromString(answer)
        raw = {o.name: message.raw_output_contents[i] for i, o in enumerate(message.outputs)}
        return _counted(raw["tokens"], raw["truncated"])

    @property
    def path(self) -> str:
        """Where HTTP takes them."""
        return f"/v2/models/{self.model}/infer"

    def http(self, rows: Sequence[int]) -> tuple[str, bytes]:
        """Build the headers, each line ended, and the body of the HTTP request of these texts."""
        name, datatype, shape, data = self.rows.tensor(rows)
        described: dict[str, Any] = {
            "inputs": [
                {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(data)}}
            ],
            "outputs": [{"name": n, "parameters": {"binary_data": True}} for n in OUTPUTS],
        }
        if self.parameters:
            described["parameters"] = dict(self.parameters)
        text = json.dumps(described, separators=(",", ":")).encode()
        return f"Content-Type: application/octet-stream\r\n{HEADER_LENGTH}: {len(text)}\r\n", text + data

    def read_http(self, head: bytes, body: bytes) -> Counted | None:
        """Find `tokens` and `truncated`; where they lie is worked out once for each kind of answer.

        None for an answer without binary tensors.
        """
        length = _HEADER_LENGTH.search(head)
        if length is None:
            return None
        described = body[: int(length[1])]
        layout = self._layouts.get(described)
        if layout is None:
            layout = self._layouts[described] = _layout(described)
        tokens, truncated = layout
        return _counted(body[tokens], body[truncated])


def _layout(described: bytes) -> tuple[slice, slice]:
    position, found = len(described), {}
    for output in json.loads(described)["outputs"]:
        size = int(output["parameters"]["binary_data_size"])
        found[output["name"]] = slice(position, position + size)
        position += size
    return found["tokens"], found["truncated"]
