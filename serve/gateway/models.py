"""What the gateway knows of the models behind it, and how their errors become HTTP's."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any

from xt.calibration.apply.file import table_among
from xt.calibration.apply.retrieval import Calibrator
from xt.core.errors import XtError, unknown
from xt.serve.client import errors, wire
from xt.serve.client.async_client import AsyncClient
from xt.serve.client.metrics import model_names
from xt.serve.client.models import Served
from xt.serve.gateway.stats import Stats

FRESH_SECONDS = 5.0
"""How long what the server said of a model is believed: a new version may have other facts."""
STATUS: tuple[tuple[type[XtError], int, str, str], ...] = (
    (errors.InvalidRequest, 400, "invalid_request_error", "invalid_request"),
    (errors.UnknownModel, 404, "invalid_request_error", "model_not_found"),
    (errors.ServerFull, 429, "overloaded_error", "server_full"),
    (errors.DeadlinePassed, 504, "timeout_error", "deadline_passed"),
    (errors.Unreachable, 503, "server_error", "server_unreachable"),
    (XtError, 500, "server_error", "internal_error"),
)
"""Error -> HTTP status, OpenAI's type, code; the first that fits."""


def status_of(error: XtError) -> tuple[int, str, str]:
    """Return HTTP status, type and code of an error."""
    return next((status, kind, code) for cls, status, kind, code in STATUS if isinstance(error, cls))


class Models:
    """The models of the server; asked for again when what is known has become old."""

    def __init__(self, client: AsyncClient, stats: Stats, names: Sequence[str] | None) -> None:
        self.client = client
        self._stats = stats
        self._given = list(names) if names is not None else None
        self._known: dict[str, tuple[float, Served | None]] = {}

    async def names(self, *, lost_seconds: float | None = None) -> list[str]:
        """Return the names: those given, else the server's list, else (when that is secret) those its metrics count."""
        if self._given is not None:
            return self._given
        try:
            return await self.client.models(lost_seconds=lost_seconds)
        except errors.Restricted:
            try:
                return model_names(await self._stats.text())
            except OSError as error:
                raise XtError(f"The server does not list its models, and {error}.", "Name them (models=).") from None

    async def get(self, name: str, *, lost_seconds: float | None = None) -> Served:
        """Return one; UnknownModel with what there is, when it is not served or not by xt."""
        at, served = self._known.get(name, (-math.inf, None))
        if time.monotonic() - at > FRESH_SECONDS:
            try:
                served = await self.client.describe(name, lost_seconds=lost_seconds)
            except (errors.Unreachable, errors.Restricted, errors.DeadlinePassed, errors.ServerFull):
                raise
            except XtError:  # not there, not ready, or not made by xt: nothing that can be asked
                served = None
            if len(self._known) > 256:  # names come from clients
                self._known.clear()
            self._known[name] = (time.monotonic(), served)
        if served is None:
            error = unknown("model", name, [m.name for m in await self.all(but=name)])
            raise errors.UnknownModel(error.message, error.hint)
        return served

    async def all(self, *, but: str | None = None, lost_seconds: float | None = None) -> list[Served]:
        """Return those that xt made, by name, without `but`.

        `lost_seconds`: how long a server that does not answer is waited for; None: as the client does.
        """
        names = [n for n in await self.names(lost_seconds=lost_seconds) if n != but]
        asked = (self.get(n, lost_seconds=lost_seconds) for n in names)
        found = await asyncio.gather(*asked, return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException) and not isinstance(one, errors.UnknownModel):
                raise one
        return [one for one in found if isinstance(one, Served)]

    async def of_kind(self, kind: str, name: str | None) -> Served:
        """Return the model of a kind: that of the name, or the only one, or the first by name."""
        if name is not None:
            model = await self.get(name)
            if model.kind != kind:
                raise errors.InvalidRequest(f"The model {name!r} is of kind {model.kind}; expected: {kind}.")
            return model
        there = [m for m in await self.all() if m.kind == kind]
        if not there:
            raise errors.UnknownModel(f"The server holds no {kind}.", f"Serve one, or ask for something but a {kind}.")
        return there[0]


def model_card(model: Served, created: float) -> dict[str, Any]:
    """Describe a model as OpenAI's /v1/models does, and what else there is to know."""
    encoder = model.facts.get("encoder", {})
    return {
        "id": model.name,
        "object": "model",
        "created": int(created),
        "owned_by": "xt",
        "kind": model.kind,
        "dimensions": encoder.get("dim"),
        "max_tokens": encoder.get("max_length"),
        "prefixes": sorted(encoder.get("prefixes", {})),
        "default_prefix": encoder.get("default_prefix") or None,
        "precision": model.facts.get("precision"),
        "labels": list(wire.label_names(model)) or None,
    }


def calibration_of(model: Served, language: str | None) -> tuple[Calibrator, str] | None:
    """Return the retrieval calibrator among a model's facts, and its name; None when it has none."""
    table = table_among(model.facts)
    return None if table is None else table.choose(language)
