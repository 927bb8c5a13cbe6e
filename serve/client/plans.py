"""What a call of a client is cut into: requests, their tensors and parameters, and how answers are put together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from xt.core.arguments import as_id_rows, as_list, as_name, flag, whole_number
from xt.core.encoder.text import as_texts
from xt.core.errors import XtError
from xt.serve.client import wire
from xt.serve.client.errors import InvalidRequest
from xt.serve.client.models import Served
from xt.serve.client.wire import Classified, Found, Tensor, Vectors
from xt.serve.index.index import MAX_K

T = TypeVar("T")
HEAD_TEXTS = 64
HEAD_CHARACTERS = 8000
"""A request to a head holds at most so much, one text at least: small ones, which a busy server still takes."""


@dataclass(frozen=True)
class Plan(Generic[T]):
    """One call: the requests it is cut into, and how their answers become what the caller gets."""

    model: Served
    requests: list[list[int]]
    """The places, in the caller's list, of the texts of each request."""
    inputs: Callable[[list[int]], list[Tensor]]
    parameters: dict[str, Any]
    outputs: Sequence[str]
    finish: Callable[[Iterable[Any]], T]
    """Takes the answers in the order of the requests, each once."""

    def check_outputs(self) -> None:
        """Raise XtError for an output that the model does not give."""
        self.model.check_outputs(self.outputs)


def plan_encode(
    model: Served,
    texts: Iterable[str] | None,
    ids: Iterable[Iterable[int]] | None,
    prefix: str | None,
    truncate: bool,
    dimensions: int | None,
    dtype: str,
) -> Plan[Vectors]:
    """Plan the encoding of `texts`, or of rows of token `ids`."""
    if (texts is None) == (ids is None):
        raise InvalidRequest("Expected either texts or ids.", "Give one of them.")
    dtype = wire.dtype_name(dtype)
    outputs = wire.encode_outputs(dtype)
    with wire.refused_as_invalid():
        rows: list[Any] = as_texts(texts) if texts is not None else as_id_rows(ids)
    requests = wire.request_order([len(r) * (1 if ids is None else 4) for r in rows], model.max_texts)

    def inputs(places: list[int]) -> list[Tensor]:
        chosen = [rows[i] for i in places]
        return [wire.strings("text", chosen) if ids is None else wire.token_ids(chosen)]

    parameters = wire.encode_parameters(prefix, truncate, dimensions)
    dim = parameters.get("dimensions") or int(model.facts.get("encoder", {}).get("dim", 0))
    return Plan(model, requests, inputs, parameters, outputs, lambda r: wire.gather_vectors(requests, r, dtype, dim))


def plan_encode_packed(model: Served, texts: Sequence[str], prefix: str | None, truncate: bool) -> Plan[Vectors]:
    """Plan the encoding of many texts for an evaluation: each request as many as the model takes, in one blob."""
    rows = as_texts(texts)
    parameters: dict[str, Any] = {"truncate": True} if flag(truncate, "truncate") else {}
    if prefix is not None:
        parameters["prefix"] = as_name(prefix, "prefix")
    requests = wire.request_order([len(r) for r in rows], model.max_texts, None)
    dim = int(model.facts["encoder"]["dim"])
    return Plan(
        model,
        requests,
        lambda places: [wire.packed([rows[i] for i in places])],
        parameters,
        wire.encode_outputs("float32"),
        lambda results: wire.gather_vectors(requests, results, "float32", dim),
    )


def plan_search(
    model: Served,
    texts: Iterable[str],
    k: int | None,
    languages: str | Iterable[str] | None,
    prefix: str | None,
    truncate: bool,
) -> Plan[list[Found]]:
    """Plan the search for `texts` by a retriever."""
    rows = wire.check_texts(texts)
    codes = wire.languages_of(languages, len(rows))
    requests = wire.request_order([len(t) for t in rows], model.max_texts)
    outputs = wire.search_outputs(model)
    parameters = wire.encode_parameters(prefix, truncate, None)
    if k is not None:
        with wire.refused_as_invalid():
            parameters["k"] = whole_number(k, "k", 1, MAX_K)
    return Plan(
        model,
        requests,
        lambda places: _columns(places, text=rows, language=codes),
        parameters,
        outputs,
        lambda results: wire.gather(requests, (wire.read_found(r, "none" in outputs) for r in results)),
    )


def plan_classify(model: Served, texts: Iterable[str], pairs: Iterable[str] | None, truncate: bool) -> Plan[Classified]:
    """Plan the classification of `texts`, each together with its row of `pairs` where the model reads two."""
    rows = wire.check_texts(texts)
    second = None if pairs is None else wire.check_texts(pairs, "pairs", "text_pair")
    if second is not None and len(second) != len(rows):
        raise InvalidRequest(f"There are {len(rows)} texts and {len(second)} pairs.", "Give one each.")
    requests = wire.request_order([len(t) for t in rows], model.max_texts)
    outputs = [o for o in ("label", "probabilities", "answer") if o in model.outputs]
    parameters = wire.encode_parameters(None, truncate, None)
    names = wire.label_names(model)
    return Plan(
        model,
        requests,
        lambda places: _columns(places, text=rows, text_pair=second),
        parameters,
        outputs,
        lambda r: wire.gather_classes(requests, r, outputs, names),
    )


def plan_answers(model: Served, texts: Sequence[str], pairs: Sequence[str] | None) -> Plan[list[dict[str, Any]]]:
    """Plan what an evaluation asks a trained head: whole answers with their logits; what is too long is cut.

    An empty second text is the server's to judge: it depends on the format.
    """
    rows = as_list(texts, "texts")
    second = None if pairs is None else as_list(pairs, "pairs")
    if second is not None and len(second) != len(rows):
        raise XtError(f"There are {len(rows)} texts and {len(second)} pairs.", "Give one each.")
    for name, values in (("text", rows), ("text_pair", second or [])):
        for index, text in enumerate(values):
            if not isinstance(text, str):
                raise XtError(f"{name} {index} is {type(text).__name__}, expected text.")
    sizes = [len(text) + (len(second[i]) if second is not None else 0) for i, text in enumerate(rows)]
    requests = wire.request_order(sizes, min(model.max_texts, HEAD_TEXTS), HEAD_CHARACTERS)

    def read(result: Any) -> list[dict[str, Any]]:
        answers, cut = result.as_numpy("answer")[:, 0], result.as_numpy("truncated")[:, 0].tolist()
        return [{**json.loads(a), "truncated": c} for a, c in zip(answers, cut, strict=True)]

    return Plan(
        model,
        requests,
        lambda places: _columns(places, text=rows, text_pair=second),
        {"truncate": True, "details": True},
        ("answer", "truncated"),
        lambda results: wire.gather(requests, (read(r) for r in results)),
    )


def _columns(places: Sequence[int], **columns: Sequence[str] | None) -> list[Tensor]:
    """Make an input tensor of each column that there is, of the rows at `places`."""
    return [wire.strings(name, [rows[i] for i in places]) for name, rows in columns.items() if rows is not None]
