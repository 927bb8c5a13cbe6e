"""`xt reload`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xt.cli.console import Json, TlsCa, TlsCert, TlsKey, TrustCode, emit, say, tls_of

EPILOG = """Examples:

xt reload --url 127.0.0.1:8001

xt reload encoder --url 127.0.0.1:8001 --start-timeout 1800 --json"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reload", epilog=EPILOG)(reload)


def reload(
    model: Annotated[
        str | None, typer.Argument(help="The model; may be left out when the server holds one.", show_default=False)
    ] = None,
    url: Annotated[str, typer.Option("--url", help="HOST:PORT of a Triton server's gRPC endpoint.")] = "127.0.0.1:8001",
    repository: Annotated[
        Path | None,
        typer.Option("--repository", help="The folder it serves. Known for a server that you started on this machine."),
    ] = None,
    admin_key: Annotated[
        Path | None,
        typer.Option("--admin-key", help="File with its admin key. Default: XT_ADMIN_KEY, else as noted at its start."),
    ] = None,
    http_port: Annotated[
        int | None, typer.Option("--http-port", help="Its HTTP port. Known like --repository.")
    ] = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    start_timeout: Annotated[
        float,
        typer.Option("--start-timeout", min=0, help="Seconds the new version may take to load; 0: no limit."),
    ] = 300.0,
    trust_code: TrustCode = False,
    again: Annotated[bool, typer.Option("--again", help="Load also what serves already.")] = False,
    json: Json = False,
) -> None:
    """Serve what lies in a model's folder now, after checking it; a bad version leaves the old one serving."""
    from xt.serve.triton.reload import reload as run
    from xt.serve.triton.server_state import read_key

    key = read_key(admin_key) if admin_key else None
    tls = tls_of(url, tls_ca, tls_cert, tls_key)
    if tls is not None and http_port is not None:
        raise typer.BadParameter("--http-port is of a connection without TLS: give it, or the TLS options")
    done = run(
        url,
        model,
        repository=repository,
        admin_key=key,
        http_port=http_port,
        trust_code=trust_code,
        force=again,
        start_seconds=start_timeout,
        report=say,
        tls=tls,
    )
    before = done.before[:16] if done.before else "unknown"
    if done.changed:
        say(f"{done.model} at {url}: {before} served before, {done.after[:16]} serves now")
    else:
        say(f"{done.model} at {url}: {before} serves already (--again loads it again)")
    if json:
        emit(done.to_json())
