"""The encoder as Triton's Python backend runs it: ONNX Runtime in this process, one batching engine for all requests.

Inputs: text (n, 1). Request parameters: `prefix` (a role of the encoder, or "none"), `truncate` (bool).
Outputs: embedding (n, dim), tokens (n, 1), truncated (n, 1).
"""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from xt.core.errors import XtError
from xt.core.onnx_engine import check_golden, load_model


class TritonPythonModel:
    """Loaded once an instance; `execute` gets whatever requests the dynamic batcher put together."""

    def initialize(self, args):
        """Load the model beside this file and check its golden vectors; a model that fails does not become ready."""
        folder = Path(args["model_repository"])
        device = "cuda" if args["model_instance_kind"] == "GPU" else "cpu"
        self.encoder, artifact = load_model(folder, device=device)
        worst = check_golden(self.encoder, folder, artifact)
        pb_utils.Logger.log_info(f"{args['model_name']}: golden vectors agree (cosine at least {worst:.6f})")

    def execute(self, requests):
        """Tokenise every request, run all their texts through length-sorted micro-batches, hand the rows back."""
        parts = [self._tokenise(request) for request in requests]
        ids = [row for part in parts if not isinstance(part, XtError) for row in part[0]]
        vectors = self.encoder.encode_ids(ids)
        responses, start = [], 0
        for part in parts:
            if isinstance(part, XtError):
                error = pb_utils.TritonError(str(part), pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse([], error=error))
                continue
            rows, cut = part
            tokens = np.array([[len(row)] for row in rows], np.int32)
            outputs = [
                pb_utils.Tensor("embedding", vectors[start : start + len(rows)]),
                pb_utils.Tensor("tokens", tokens),
                pb_utils.Tensor("truncated", cut[:, None]),
            ]
            responses.append(pb_utils.InferenceResponse(outputs))
            start += len(rows)
        return responses

    def _tokenise(self, request):
        """Token ids and cut flags of one request, or the error that answers it alone."""
        try:
            parameters = json.loads(request.parameters() or "{}")
            unknown = sorted(set(parameters) - {"prefix", "truncate"})
            if unknown:
                raise XtError(f"Unknown parameter {unknown[0]!r}.", "Known: prefix, truncate.")
            prefix, truncate = parameters.get("prefix"), parameters.get("truncate", False)
            if not (prefix is None or isinstance(prefix, str)):
                raise XtError(f"The parameter prefix is {prefix!r}, expected text.")
            if not isinstance(truncate, bool):
                raise XtError(f"The parameter truncate is {truncate!r}, expected true or false.")
            raw = pb_utils.get_input_tensor_by_name(request, "text").as_numpy().ravel()
            texts = [_decode(value, index) for index, value in enumerate(raw)]
            return self.encoder.tokenizer(texts, prefix=self.encoder.spec.prefix(prefix), truncate=truncate)
        except XtError as error:
            return error


def _decode(value, index):
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise XtError(f"text {index} is not valid UTF-8: {error.reason} at byte {error.start}.") from None
