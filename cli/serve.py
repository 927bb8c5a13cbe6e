"""`xt serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xt.cli.console import say

EPILOG = """Examples:

xt serve repository

xt serve repository --grpc-port 9001 --http-port 9000 --metrics-port 9002"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve", epilog=EPILOG)(serve)


def serve(
    repository: Annotated[Path, typer.Argument(help="A model repository that `xt export` wrote.")],
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; the default is this machine alone.")
    ] = "127.0.0.1",
    http_port: Annotated[int, typer.Option("--http-port", help="KServe v2 over HTTP.")] = 8000,
    grpc_port: Annotated[int, typer.Option("--grpc-port", help="KServe v2 over gRPC: what --url takes.")] = 8001,
    metrics_port: Annotated[int, typer.Option("--metrics-port", help="Prometheus metrics at /metrics.")] = 8002,
) -> None:
    """Serve a repository on NVIDIA Triton until Ctrl-C."""
    from xt.core.errors import XtError
    from xt.serve.launcher import Ports, TritonServer

    with TritonServer(repository, host=host, ports=Ports(http_port, grpc_port, metrics_port)) as server:
        say(f"serving {', '.join(server.models)}")
        say(f"  gRPC     {host}:{grpc_port}   (xt eval tatoeba --url {server.url})")
        say(f"  HTTP     http://{host}:{http_port}/v2")
        say(f"  metrics  http://{host}:{metrics_port}/metrics")
        say("Ctrl-C stops it.")
        code = server.wait()
        raise XtError(f"Triton ended by itself with code {code}:\n{server.log_tail()}", "See the lines above.")
