"""`xt serve`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import typer

from xt.cli.console import say
from xt.cli.settings import with_flags
from xt.serve.settings import ServeSettings

if TYPE_CHECKING:
    from xt.serve.triton.launcher import TritonServer

EPILOG = """Examples:

xt serve repository

xt serve repository --restart --start-timeout 1800 --gateway-port 8080

xt serve repository --grpc-port 9001 --http-port 9000 --metrics-port 9002

xt serve repository --host 0.0.0.0 --gateway-port 8080 --token @token.txt

xt serve repository --grpc-host 0.0.0.0 --grpc-cert server.pem --grpc-key server.key"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve", epilog=EPILOG)(serve)


@with_flags
def serve(settings: ServeSettings) -> None:
    """Serve a repository on NVIDIA Triton until Ctrl-C."""
    from xt.serve import run

    secrets = run.read_secrets(settings, say=say)
    with ExitStack() as stack:
        server = stack.enter_context(run.triton_server(settings, secrets, say=say))
        show(settings, server)
        gateway = run.gateway_before(server, settings, secrets, say=say)
        if gateway is not None:
            stack.enter_context(gateway)
            say(f"  gateway  {gateway.url}/")
        say("Ctrl-C stops it.")
        run.wait_for_end(server)


def show(settings: ServeSettings, server: TritonServer) -> None:
    """Print what a server serves, and where."""
    listening, tls = settings.listening, server.tls
    say(f"serving {', '.join(server.models)}")
    how = f"(xt eval tatoeba --url {server.url})"
    if tls is not None:
        how = "(mutual TLS)" if tls.root else "(TLS)"
    say(f"  gRPC     {listening.grpc_host}:{listening.grpc_port}   {how}")
    say(f"  HTTP     http://{listening.http_host}:{listening.http_port}/v2")
    say(f"  metrics  http://{listening.metrics_host}:{listening.metrics_port}/metrics")
