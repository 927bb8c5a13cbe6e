"""An encoder behind a Triton server, for evaluations: the same `encode` as in process, over gRPC."""

from __future__ import annotations

from collections.abc import Sequence

from xt.core.encoder.spec import EncoderSpec
from xt.core.encoder.text import Encoded
from xt.core.errors import XtError, unknown
from xt.serve.client.errors import Tries, UnknownModel
from xt.serve.client.evaluation import EvaluationClient
from xt.serve.client.models import DEFAULT_MODEL, describe, kind_of
from xt.serve.client.plans import plan_encode_packed
from xt.serve.triton.server_state import KEY_VARIABLE


class TritonEncoder(EvaluationClient):
    """Encodes texts by a served model.

    Without `model` the server must hold exactly one encoder. The list of models is behind the server's admin key
    (`xt.serve.triton.server_state`); where the key is not known, the model is the one called `encoder`.
    """

    def _open(self, model: str | None, tries: Tries) -> None:
        self.model = model or self._only_model(tries)
        try:
            config = self._connection.config(self.model, tries)
        except UnknownModel:
            raise unknown("model", self.model, self._names(tries) or []) from None
        self.served = describe(config, self.url)
        if self.served.kind != "encoder":
            raise XtError(f"The model {self.model!r} at {self.url} is a {self.served.kind}: it gives no vectors.")
        self.facts = dict(self.served.facts)
        self.spec = EncoderSpec.from_json(self.facts["encoder"])

    def _only_model(self, tries: Tries) -> str:
        names = self._names(tries)
        if names is None:
            try:
                self._connection.config(DEFAULT_MODEL, tries)
            except UnknownModel:
                raise XtError(
                    f"The server at {self.url} has no model 'encoder', and its list of models is behind its admin key.",
                    f"Choose by --model, or give the key by {KEY_VARIABLE}.",
                ) from None
            return DEFAULT_MODEL
        encoders = [name for name in names if kind_of(self._connection.config(name, tries)) == "encoder"]
        if len(encoders) != 1:
            raise XtError(f"The server at {self.url} holds {', '.join(names) or 'no model'}.", "Choose by --model.")
        return encoders[0]

    def encode(self, texts: Sequence[str], *, prefix: str | None = None, truncate: bool = False) -> Encoded:
        """Encode `texts` (see `xt.core.encoder.text.TextEncoder.encode`), in requests of as many as the model takes."""
        found = self._run(plan_encode_packed(self.served, texts, prefix, truncate))
        return Encoded(found.vectors, found.tokens, found.truncated)
