"""POST /search and POST /rerank: answers with calibrated probabilities, and the mass of "none of these"."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, StrictBool

from xt.core.copies import Copies, text_key
from xt.serve.client.errors import InvalidRequest
from xt.serve.client.models import Served
from xt.serve.client.wire import Found
from xt.serve.gateway.body import Count, Name, Text, Texts, body_of, schema_of
from xt.serve.gateway.models import Models, calibration_of
from xt.serve.gateway.state import State, state_of, timed
from xt.serve.index.index import role

router = APIRouter()
UNCALIBRATED = "Scores are cosines only: no calibrator is served, so they are no probabilities."
RERANKED = (
    "Probabilities are over these candidates and none of these; the calibrator was fitted on the best candidates of a "
    "whole corpus."
)


class SearchRequest(BaseModel):
    """The body of POST /search."""

    model_config = ConfigDict(extra="forbid")

    query: Text | None = None
    queries: Texts | None = None
    """Instead of `query`, several."""
    k: Count = 10
    language: Name | None = None
    """Of the queries, where known: it may have a calibrator of its own."""
    model: Name | None = None
    truncate: StrictBool = False


class RerankRequest(BaseModel):
    """The body of POST /rerank."""

    model_config = ConfigDict(extra="forbid")

    query: Text
    documents: Texts | None = None
    texts: Texts | None = None
    """`documents` by another name."""
    model: Name | None = None
    top_n: Count | None = None
    language: Name | None = None
    return_documents: StrictBool = True
    truncate: StrictBool = False


def answer_json(query: str, found: Found) -> dict[str, Any]:
    """Write the answers to one query: the client's own, its hits called results."""
    answer = asdict(found)
    return {"query": query, "results": answer.pop("hits"), **answer}


@router.post("/search", openapi_extra=schema_of(SearchRequest))
async def search(request: Request, body: SearchRequest = body_of(SearchRequest)) -> dict[str, Any]:
    """Ask the retriever."""
    state = state_of(request)
    if (body.query is None) == (body.queries is None):
        raise InvalidRequest("Expected either query or queries.", "Give one of them.")
    queries = [body.query] if body.query is not None else body.queries or []
    state.check_count(len(queries), "queries")
    with timed(request):
        model = await state.models.of_kind("retriever", body.model)
        found = await state.client.search(
            queries,
            k=body.k,
            languages=body.language,
            truncate=body.truncate,
            model=model,
            request_id=request.state.trace,
            caller=request.state.caller,
        )
    calibrated = all(f.none is not None for f in found)
    return {
        "model": model.name,
        "answers": [answer_json(q, f) for q, f in zip(queries, found, strict=True)],
        "calibrated": calibrated,
        "note": None if calibrated else UNCALIBRATED,
        "seconds": request.state.seconds,
        "trace": request.state.trace,
    }


@router.post("/rerank", openapi_extra=schema_of(RerankRequest))
async def rerank(request: Request, body: RerankRequest = body_of(RerankRequest)) -> dict[str, Any]:
    """Order texts by how likely each is the answer to the query; equal texts are one candidate.

    A result is named by the first of its texts (`index`); `copies` has the places of all. `top_n` counts results.
    """
    state = state_of(request)
    if (body.documents is None) == (body.texts is None):
        raise InvalidRequest("Expected either documents or texts.", "Give one of them.")
    documents = body.documents if body.documents is not None else body.texts or []
    state.check_count(len(documents), "documents")
    with timed(request):
        model = await state.models.of_kind("encoder", body.model)
        source = await calibrated_by(state.models, model)
        prefixes = model.facts.get("encoder", {}).get("prefixes", {})
        roles = role(prefixes, "query"), str(source.facts.get("index", {}).get("prefix", role(prefixes, "passage")))
        cosines, tokens = await similarities(state, model, body, documents, roles, request.state)
        calibration = calibration_of(source, body.language)
    copies = Copies.find(documents)
    best = np.full(copies.candidates, -np.inf)
    np.maximum.at(best, copies.of, cosines)
    probabilities = none = None
    if calibration is not None:
        mass = calibration[0](best[None])[0]  # (candidates + 1,)
        probabilities, none = mass[:-1], float(mass[-1])
    names = [text_key(documents[row]) for row in copies.firsts.tolist()]
    order = sorted(range(copies.candidates), key=lambda c: (-best[c], names[c]))[: body.top_n]
    results = []
    for candidate in order:
        probability = float(probabilities[candidate]) if probabilities is not None else None
        members = copies.members(candidate).tolist()
        results.append(
            {
                "index": members[0],
                "relevance_score": float(best[candidate]) if probability is None else probability,
                "score": float(best[candidate]),
                "probability": probability,
                "copies": members,
                **({"document": documents[members[0]]} if body.return_documents else {}),
            }
        )
    return {
        "model": model.name,
        "results": results,
        "none": none,
        "calibrated": calibration is not None,
        "calibration": calibration[1] if calibration else None,
        "note": UNCALIBRATED if calibration is None else RERANKED,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "seconds": request.state.seconds,
        "trace": request.state.trace,
    }


async def similarities(
    state: State, model: Served, body: RerankRequest, documents: list[str], roles: tuple[str, str], asked: Any
) -> tuple[Any, int]:
    """Encode the query and the documents, each in its role: cosines (documents,) of float64, and tokens read."""

    async def encode(texts: list[str], prefix: str) -> Any:
        return await state.client.encode_full(
            texts, prefix=prefix, truncate=body.truncate, model=model, request_id=asked.trace, caller=asked.caller
        )

    query, corpus = await asyncio.gather(encode([body.query], roles[0]), encode(documents, roles[1]))
    a, b = query.vectors[0].astype(np.float64), corpus.vectors.astype(np.float64)
    lengths = np.linalg.norm(a) * np.sqrt((b * b).sum(1))
    cosines = (b * a).sum(1) / np.maximum(lengths, 1e-12)  # row by row: a product of matrices rounds by place
    return cosines, int(query.tokens.sum() + corpus.tokens.sum())


async def calibrated_by(models: Models, encoder: Served) -> Served:
    """Return the model whose calibrator fits the encoder: itself, or a retriever of its checkpoint and precision."""
    if calibration_of(encoder, None) is not None:
        return encoder
    same = ("checkpoint", "precision")
    for model in await models.all():
        alike = all(model.facts.get(name) == encoder.facts.get(name) for name in same)
        if model.kind == "retriever" and alike and calibration_of(model, None) is not None:
            return model
    return encoder
