"""An encoder behind a Triton server, for evaluations: the same `encode` as in process, over gRPC."""

from __future__ import annotations

from collections.abc import Sequence

from xt.core.encoder.spec import EncoderSpec
from xt.core.encoder.text import Encoded
from xt.core.errors import XtError, unknown
from xt.serve.client.address import Tls, check_model, connect_seconds, request_seconds
from xt.serve.client.connection import Connection
from xt.serve.client.errors import Patience, Restricted, Tries, UnknownModel
from xt.serve.client.models import DEFAULT_MODEL, describe, kind_of
from xt.serve.client.plans import plan_encode_packed
from xt.serve.triton.server_state import KEY_VARIABLE

IN_FLIGHT = 2
"""Requests under way at once: the server tokenises one while it computes another."""
TIMEOUT_SECONDS = 600.0
"""Of one request: an evaluation of hours outlives a server that is started again."""


class TritonEncoder:
    """Encodes texts by a served model; sends again what the server had no room for, and what a lost server left."""

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        timeout_seconds: float | None = None,
        wait_seconds: float | None = None,
        tls: Tls | None = None,
        admin_key: str | None = None,
    ) -> None:
        """Connect to the gRPC endpoint `url` (HOST:PORT) and read what the server says of the model.

        Without `model` the server must hold exactly one encoder. The list of models is behind the server's admin key
        (`xt.serve.triton.server_state`); where the key is not known, the model is the one called `encoder`.

        Args:
            url: HOST:PORT.
            model: its name.
            timeout_seconds: of each request, while the server is full, lost or restarting too; None: 600.
            wait_seconds: how long a server that does not answer yet is waited for here; None: `timeout_seconds` where
                that is given, else 5.
            tls: the files of an encrypted connection; None: not encrypted.
            admin_key: of the server; None: XT_ADMIN_KEY, or what this machine's server noted for this user.

        Raises:
            Unreachable: nothing answers at `url`.
            XtError: an unknown model, one that gives no vectors, or several to choose from.
        """
        patience = Patience(connect_seconds(wait_seconds, timeout_seconds))
        self.timeout_seconds = request_seconds(timeout_seconds, TIMEOUT_SECONDS)
        check_model(model)
        self._connection = Connection(url, tls=tls, admin_key=admin_key, in_flight=IN_FLIGHT)
        self.url = url
        try:
            tries = Tries(patience)
            self.model = model or self._only_model(tries)
            try:
                config = self._connection.config(self.model, tries)
            except UnknownModel:
                raise unknown("model", self.model, self._names(tries) or []) from None
            self.served = describe(config, url)
            if self.served.kind != "encoder":
                raise XtError(f"The model {self.model!r} at {url} is a {self.served.kind}: it gives no vectors.")
            self.facts = dict(self.served.facts)
            self.spec = EncoderSpec.from_json(self.facts["encoder"])
        except BaseException:
            self.close()
            raise

    def _names(self, tries: Tries) -> list[str] | None:
        """Return the names of the ready models; None where the list is behind a key that is not known."""
        try:
            return self._connection.models(tries)
        except Restricted:
            return None

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
        plan = plan_encode_packed(self.served, texts, prefix, truncate)
        found = self._connection.run(plan, Patience(self.timeout_seconds))
        return Encoded(found.vectors, found.tokens, found.truncated)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
