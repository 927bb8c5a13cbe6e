"""What a call of a client is cut into: requests, their tensors and parameters, and how answers are put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from xt.core.arguments import as_id_rows, whole_number
from xt.core.encoder.text import as_texts
from xt.serve.client import wire
from xt.serve.client.wire import Classified, Found, Served, Vectors
from xt.serve.index.index import MAX_K

T = TypeVar("T")


@dataclass(frozen=True)
class Plan(Generic[T]):
    """One call: the requests it is cut into, and how their answers become what the caller gets."""

    model: Served
    requests: list[list[int]]
    """The places, in the caller's list, of the texts of each request."""
    inputs: Callable[[list[int]], list[Any]]
    parameters: dict[str, Any]
    outputs: Sequence[str]
    finish: Callable[[Sequence[Any]], T]


def plan_encode(
    model: Served,
    grpc: Any,
    texts: Iterable[str] | None,
    ids: Iterable[Iterable[int]] | None,
    prefix: str | None,
    truncate: bool,
    dimensions: int | None,
    dtype: str,
) -> Plan[Vectors]:
    """Plan the encoding of `texts`, or of rows of token `ids`."""
    if (texts is None) == (ids is None):
        raise wire.InvalidRequest("Expected either texts or ids.", "Give one of them.")
    dtype = wire.dtype_name(dtype)
    outputs = wire.encode_outputs(dtype)
    with wire.refused_as_invalid():
        rows: list[Any] = as_texts(texts) if texts is not None else as_id_rows(ids)
    requests = wire.request_order([len(r) * (1 if ids is None else 4) for r in rows], model.max_texts)

    def inputs(places: list[int]) -> list[Any]:
        chosen = [rows[i] for i in places]
        return [wire.strings("text", chosen, grpc) if ids is None else wire.token_ids(chosen, grpc)]

    parameters = wire.encode_parameters(prefix, truncate, dimensions)
    dim = parameters.get("dimensions") or int(model.facts.get("encoder", {}).get("dim", 0))
    return Plan(model, requests, inputs, parameters, outputs, lambda r: wire.gather_vectors(requests, r, dtype, dim))


def plan_search(
    model: Served,
    grpc: Any,
    texts: Iterable[str],
    k: int | None,
    languages: str | Iterable[str] | None,
    prefix: str | None,
    truncate: bool,
) -> Plan[list[Found]]:
    """Plan the search for `texts` by a retriever."""
    rows = wire.check_texts(texts)
    spoken = wire.languages_of(languages, len(rows))
    requests = wire.request_order([len(t) for t in rows], model.max_texts)
    outputs = wire.search_outputs(model)

    def inputs(places: list[int]) -> list[Any]:
        tensors = [wire.strings("text", [rows[i] for i in places], grpc)]
        if spoken is not None:
            tensors.append(wire.strings("language", [spoken[i] for i in places], grpc))
        return tensors

    parameters = wire.encode_parameters(prefix, truncate, None)
    if k is not None:
        with wire.refused_as_invalid():
            parameters["k"] = whole_number(k, "k", 1, MAX_K)
    return Plan(
        model,
        requests,
        inputs,
        parameters,
        outputs,
        lambda results: wire.gather(requests, [wire.read_found(r, "none" in outputs) for r in results]),
    )


def plan_classify(
    model: Served, grpc: Any, texts: Iterable[str], pairs: Iterable[str] | None, truncate: bool
) -> Plan[Classified]:
    """Plan the classification of `texts`, each together with its row of `pairs` where the model reads two."""
    rows = wire.check_texts(texts)
    second = None if pairs is None else wire.check_texts(pairs, "pairs", "text_pair")
    if second is not None and len(second) != len(rows):
        raise wire.InvalidRequest(f"There are {len(rows)} texts and {len(second)} pairs.", "Give one each.")
    requests = wire.request_order([len(t) for t in rows], model.max_texts)

    def inputs(places: list[int]) -> list[Any]:
        tensors = [wire.strings("text", [rows[i] for i in places], grpc)]
        if second is not None:
            tensors.append(wire.strings("text_pair", [second[i] for i in places], grpc))
        return tensors

    outputs = [o for o in ("label", "probabilities", "answer") if o in model.outputs]
    parameters = wire.encode_parameters(None, truncate, None)
    names = wire.label_names(model)
    return Plan(
        model, requests, inputs, parameters, outputs, lambda r: wire.gather_classes(requests, r, outputs, names)
    )
