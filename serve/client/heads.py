"""Trained heads behind a Triton server, for evaluations: what its classifiers answer, over gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xt.core.errors import XtError, unknown
from xt.core.heads.onnx_heads import CLASSIFIER
from xt.serve.client.errors import InvalidRequest, Tries, UnknownModel
from xt.serve.client.evaluation import EvaluationClient
from xt.serve.client.models import Served, by_xt, describe, kind_of
from xt.serve.client.plans import plan_answers
from xt.serve.triton.server_state import KEY_VARIABLE


class TritonHeads(EvaluationClient):
    """The classifiers of one server.

    Without `model` they are all that the server has loaded; where their list is behind an admin key that is not
    known (`xt.serve.triton.server_state`), the one called `classifier`.
    """

    def _open(self, model: str | None, tries: Tries) -> None:
        names = self._names(tries)
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
                f"The server at {self.url} has no trained heads (it holds {', '.join(wanted) or 'no model'}).",
                "Export one with `xt export --task TASK`, or choose it by --model.",
            )

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
        """Ask about texts, each with its second text where the head reads two: answers as `Reply.to_json` returns them.

        They hold `logits`; what is too long is cut, and `truncated` says so.
        """
        try:
            return self._run(plan_answers(head, texts, pairs))
        except InvalidRequest as error:
            if "parameter 'details'" not in error.message and 'parameter "details"' not in error.message:
                raise
            raise XtError(
                f"The model {head.name!r} at {self.url} cannot give the logits of its answers: an older xt "
                "exported it.",
                "Export it again.",
            ) from error
