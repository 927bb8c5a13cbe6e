"""The gateway's application: routes, errors, the page."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from xt.core.errors import XtError, shown
from xt.serve.client import errors
from xt.serve.client.async_client import AsyncClient
from xt.serve.gateway import openai as gateway_openai
from xt.serve.gateway import search
from xt.serve.gateway.guard import Guard, error_body
from xt.serve.gateway.models import Models, status_of
from xt.serve.gateway.options import GatewayOptions
from xt.serve.gateway.state import State, TooManyTexts, state_of
from xt.serve.gateway.stats import Stats

router = APIRouter()
PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/style.css": ("style.css", "text/css; charset=utf-8"),
    "/page/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
}
PROBE_SECONDS = 0.5
"""How long /ready waits for a Triton that does not answer: a probe's own deadline is a second or more."""
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def create_app(triton_url: str, options: GatewayOptions = GatewayOptions()) -> Guard:
    """Return the ASGI application of a gateway before the Triton whose gRPC endpoint is `triton_url` (HOST:PORT)."""
    # A caller who is turned away by a full server knows better than the gateway whether to come back.
    client = AsyncClient(
        triton_url,
        timeout_seconds=options.timeout_seconds,
        retries=0,
        lost_seconds=options.lost_seconds,
        tls=options.tls,
        admin_key=options.admin_key,
    )
    stats = Stats(options.metrics_url)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await client.close()

    # No /docs: FastAPI's page loads its scripts from another host.
    app = FastAPI(title="xt", docs_url=None, redoc_url=None, openapi_url="/openapi.json", lifespan=lifespan)
    app.state.gateway = State(client, Models(client, stats, options.models), stats, options.max_texts)
    app.include_router(router)
    app.include_router(gateway_openai.router)
    app.include_router(search.router)
    for path, (file, kind) in PAGE.items():
        app.add_api_route(path, page_route(file, kind), methods=["GET", "HEAD"], include_in_schema=False)
    app.add_exception_handler(XtError, on_error)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_fault)
    return Guard(app, token=options.token, max_body_bytes=options.max_body_bytes, hosts=options.hosts)


def page_route(file: str, kind: str) -> Any:
    """Make the route of one file of the page."""

    async def answer() -> Response:
        data = (resources.files("xt.serve.gateway") / "page" / file).read_bytes()
        return Response(data, media_type=kind, headers=PAGE_HEADERS)

    return answer


async def on_error(request: Request, error: Exception) -> Response:
    """Answer with an error of ours: the status that fits, and when to come back."""
    assert isinstance(error, XtError)
    status, kind, code = status_of(error)
    if isinstance(error, TooManyTexts):
        code = "too_many_texts"
    param = "model" if isinstance(error, errors.UnknownModel) else getattr(error, "field", None)
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    message = f"{error.message} {error.hint}".strip()
    return JSONResponse(error_body(message, kind, code, param), status_code=status, headers=headers)


async def on_http(request: Request, error: Exception) -> Response:
    """Answer what has no route."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {shown(request.url.path)}: {error.detail}."
    body = error_body(message, "invalid_request_error", str(error.detail).lower().replace(" ", "_"))
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


async def on_fault(request: Request, error: Exception) -> Response:
    """Answer a fault of ours without its details; the log has them, under the trace id."""
    logging.getLogger("xt.gateway").error("fault trace=%s", getattr(request.state, "trace", ""), exc_info=error)
    body = error_body("The gateway failed; its log says why, under the trace id.", "server_error", "internal_error")
    return JSONResponse(body, status_code=500)


@router.get("/health")
async def health() -> dict[str, str]:
    """Whether the gateway itself answers."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(request: Request) -> Response:
    """Whether Triton answers and has a model of xt."""
    try:
        models = [m.name for m in await state_of(request).models.all(lost_seconds=PROBE_SECONDS)]
    except XtError as error:
        return JSONResponse({"status": "not ready", "reason": str(error)}, status_code=503)
    if not models:
        return JSONResponse({"status": "not ready", "reason": "no model is ready"}, status_code=503)
    return JSONResponse({"status": "ready", "models": models})


@router.get("/stats")
async def stats(request: Request) -> dict[str, Any]:
    """The server's numbers of the last seconds."""
    return await state_of(request).stats.now()


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Triton's metrics, xt's among them, as Prometheus reads them."""
    try:
        return PlainTextResponse(await state_of(request).stats.text(), media_type="text/plain; version=0.0.4")
    except OSError as error:
        body = error_body(f"Triton's metrics cannot be read: {error}.", "server_error", "no_metrics")
        return JSONResponse(body, status_code=503)
