"""What a server holds: its models, what it says of each, and which of them a caller means."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xt.core.errors import XtError, unknown
from xt.serve.client.errors import Unreachable

KINDS = {"encoder": "embedding", "retriever": "ids", "classifier": "label", "reader": "answer"}
"""The output by which a kind of model is known; the first that a model has decides."""
DEFAULT_MODEL = "encoder"
"""What `xt export` calls a model by default."""


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

    def check_outputs(self, names: Sequence[str]) -> None:
        """Raise XtError for an output that the model does not give."""
        for name in names:
            if name not in self.outputs:
                raise unknown(f"output of {self.name!r}", name, self.outputs)


def by_xt(config: Mapping[str, Any]) -> bool:
    """Return whether a model's configuration (JSON of the protobuf) was written by xt."""
    return "xt" in config.get("parameters", {})


def kind_of(config: Mapping[str, Any]) -> str | None:
    """Return the kind of a model by its outputs; None for one that xt does not know."""
    outputs = {str(output["name"]) for output in config.get("output", [])}
    return next((kind for kind, output in KINDS.items() if output in outputs), None)


def describe(config: Mapping[str, Any], url: str) -> Served:
    """Read a model's configuration (JSON of the protobuf); XtError when it is not a model of xt."""
    name = str(config["name"])
    if not by_xt(config):
        raise XtError(f"The model {name!r} at {url} was not made by xt.", "Serve one that `xt export` wrote.")
    outputs = tuple(str(o["name"]) for o in config.get("output", []))
    kind = kind_of(config)
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


def choose_default(names: Sequence[str] | None, url: str) -> str:
    """Return the only name, or `encoder` when it is among several; XtError otherwise.

    None: the list is behind a key; the name to try is then the one that `xt export` writes by default.

    >>> choose_default(["encoder", "other"], "127.0.0.1:8001"), choose_default(None, "127.0.0.1:8001")
    ('encoder', 'encoder')
    """
    if names is None or DEFAULT_MODEL in names:
        return DEFAULT_MODEL
    if len(names) == 1:
        return names[0]
    raise XtError(f"The server at {url} holds {', '.join(names) or 'no model'}.", "Choose one (model, --model).")


def ready_names(index: Mapping[str, Any], url: str) -> list[str]:
    """Read the names of the ready models from a repository index; Unreachable where all of them are still loading."""
    models = index.get("models", [])
    names = sorted({str(m["name"]) for m in models if m.get("state", "READY") == "READY"})
    if models and not names:
        states = ", ".join(f"{m['name']} {str(m.get('state', '')).lower()}" for m in models[:8])
        raise Unreachable(f"No model at {url} is ready ({states}).", "Wait until one is loaded, or read its log.")
    return names
