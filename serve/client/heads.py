"""Trained heads behind a Triton server, for evaluations: what its classifiers answer, over gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xt.core.errors import XtError, unknown
from xt.core.heads.onnx_heads import CLASSIFIER
from xt.serve.client.address import Tls, check_model, connect_seconds, request_seconds
from xt.serve.client.connection import Connection
from xt.serve.client.encoder import IN_FLIGHT, TIMEOUT_SECONDS
from xt.serve.client.errors import InvalidRequest, Patience, Restricted, Tries, UnknownModel
from xt.serve.client.models import Served, by_xt, describe, kind_of
from xt.serve.client.plans import plan_answers
from xt.serve.triton.server_state import KEY_VARIABLE


class TritonHeads:
    """The classifiers of one server; sends again what it had no room for, and what a lost server left."""

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
        """Connect to the gRPC endpoint `url` (HOST:PORT) and read what the server says of its heads.

        Without `model` they are all that the server has loaded; where their list is behind an admin key that is not
        known (`xt.serve.triton.server_state`), the one called `classifier`.

        The other arguments are those of `xt.serve.client.encoder.TritonEncoder`.

        Raises XtError when nothing answers, for an unknown model, and when there is no head.
        """
        patience = Patience(connect_seconds(wait_seconds, timeout_seconds))
        self.timeout_seconds = request_seconds(timeout_seconds, TIMEOUT_SECONDS)
        check_model(model)
        self._connection = Connection(url, tls=tls, admin_key=admin_key, in_flight=IN_FLIGHT)
        self.url = url
        try:
            tries = Tries(patience)
            try:
                names: list[str] | None = self._connection.models(tries)
            except Restricted:
                names = None
            if model is not None and names is not None and model not in names:
                raise unknown("model", model, names)
            wanted = [model] if model is not None else [CLASSIFIER] if names is None else names
            self.heads: dict[str, Served] = {}
            """Name -> a model that answers for a task; its facts are as `xt export --task` wrote them."""
            for name in wanted:
                if (head := self._head(name, tries)) is not None:
                    self.heads[name] = head
            if not self.heads:
                raise XtError(
                    f"The server at {url} has no trained heads (it holds {', '.join(wanted) or 'no model'}).",
                    "Export one with `xt export --task TASK`, or choose it by --model.",
                )
        except BaseException:
            self.close()
            raise

    def _head(self, name: str, tries: Tries) -> Served | None:
        """Return what the server says of a head; None for a model that is none."""
        try:
            config = self._connection.config(name, tries)
        except UnknownModel:
            raise UnknownModel(
                f"The server at {self.url} has no model {name!r} that can be seen.",
                f"Choose by --model, or give the key of its list by {KEY_VARIABLE}.",
            ) from None
        if not by_xt(config) or kind_of(config) is None:
            return None
        served = describe(config, self.url)
        return served if served.facts.get("serves") == CLASSIFIER else None

    def answers(self, head: Served, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Ask about texts, each with its second text where the head reads two: answers as `Reply.told` gives them.

        They hold `logits`; what is too long is cut, and `truncated` says so.
        """
        try:
            return self._connection.run(plan_answers(head, texts, pairs), Patience(self.timeout_seconds))
        except InvalidRequest as error:
            if "parameter 'details'" not in error.message and 'parameter "details"' not in error.message:
                raise
            raise XtError(
                f"The model {head.name!r} at {self.url} cannot give the logits of its answers: an older xt "
                "exported it.",
                "Export it again.",
            ) from error

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
