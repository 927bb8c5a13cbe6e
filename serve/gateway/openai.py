"""OpenAI's routes: POST /v1/embeddings and GET /v1/models."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, StrictBool

from xt.serve.client import wire
from xt.serve.client.errors import InvalidRequest
from xt.serve.gateway.body import Count, Input, Name, User, body_of, schema_of
from xt.serve.gateway.models import model_card
from xt.serve.gateway.state import state_of, timed

router = APIRouter()


class EmbeddingRequest(BaseModel):
    """The body of POST /v1/embeddings."""

    model_config = ConfigDict(extra="forbid")

    input: Input
    """One text, texts, the token ids of one text, or those of several."""
    model: Name
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Count | None = None
    user: User | None = None
    """OpenAI's own: who the end user is. It is not read."""
    input_type: Name | None = None
    """The role whose prefix goes before each text: query, passage, none."""
    prefix: Name | None = None
    """The same by xt's own name."""
    truncate: StrictBool = False
    """Cut what is too long instead of refusing it."""


def rows_of(value: Any) -> tuple[list[str] | None, list[list[int]] | None]:
    """Return texts or token ids, whichever the input is; InvalidRequest when there is nothing in it."""
    if isinstance(value, str):
        value = [value]
    if not value:
        raise InvalidRequest("input is empty.", "Give at least one text.")
    if isinstance(value[0], str):
        return value, None
    rows = [value] if isinstance(value[0], int) else value
    for index, row in enumerate(rows):
        if not row:
            raise InvalidRequest(f"input: text {index} has no token ids.", "Remove it.")
        if not all(0 <= i < 2**31 for i in row):
            raise InvalidRequest(f"input: text {index} holds a number that is no token id.", "Ids are 0 or more.")
    return None, rows


@router.post("/v1/embeddings", openapi_extra=schema_of(EmbeddingRequest))
async def embeddings(request: Request, body: EmbeddingRequest = body_of(EmbeddingRequest)) -> JSONResponse:
    """Encode texts or token ids."""
    state = state_of(request)
    texts, ids = rows_of(body.input)
    state.check_count(len(texts or ids or []), "input")
    if body.input_type is not None and body.prefix is not None and body.input_type != body.prefix:
        raise InvalidRequest("input_type and prefix differ.", "Give one of them.")
    prefix = body.prefix if body.prefix is not None else body.input_type
    if ids is not None and prefix is not None:
        raise InvalidRequest("Token ids take no prefix: they are read as they are.", "Leave out input_type and prefix.")
    with timed(request):
        model = await state.models.of_kind("encoder", body.model)
        found = await state.client.encode_full(
            texts,
            ids=ids,
            prefix=prefix,
            truncate=body.truncate,
            dimensions=body.dimensions,
            model=model,
            request_id=request.state.trace,
            caller=request.state.caller,
        )
    vectors: list[Any]
    if body.encoding_format == "base64":
        vectors = [wire.base64_floats(v) for v in found.vectors]
    else:
        vectors = found.vectors.astype(np.float64).tolist()
    tokens = int(found.tokens.sum())
    answer: dict[str, Any] = {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)],
        "model": model.name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    if body.truncate:
        answer["truncated"] = np.flatnonzero(found.truncated).tolist()
    return JSONResponse(answer)


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """List what can be asked."""
    state = state_of(request)
    return {"object": "list", "data": [model_card(m, state.stats.started) for m in await state.models.all()]}


@router.get("/v1/models/{name}")
async def one_model(name: str, request: Request) -> dict[str, Any]:
    """Describe one model."""
    state = state_of(request)
    return model_card(await state.models.get(name), state.stats.started)
