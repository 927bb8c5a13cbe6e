"""`xt reload`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from xt.cli.console import emit, say
from xt.cli.settings import with_flags
from xt.core.settings import Flag, Json, TrustCode
from xt.serve.options import TlsFiles


@dataclass(frozen=True)
class ServerFacts:
    """What is known by itself of a server that the user started on this machine."""

    repository: Annotated[
        Path | None, Flag("The folder it serves. Known for a server that you started on this machine.")
    ] = None
    admin_key: Annotated[
        Path | None, Flag("File with its admin key. Default: XT_ADMIN_KEY, else as noted at its start.")
    ] = None
    http_port: Annotated[int | None, Flag("Its HTTP port. Known like --repository.")] = None


EPILOG = """Examples:

xt reload --url 127.0.0.1:8001

xt reload encoder --url 127.0.0.1:8001 --start-timeout 1800 --json"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reload", epilog=EPILOG)(reload)


@with_flags
def reload(
    tls_files: TlsFiles,
    model: Annotated[str | None, Flag("The model; may be left out when the server holds one.", positional=True)] = None,
    url: Annotated[str, Flag("HOST:PORT of a Triton server's gRPC endpoint.")] = "127.0.0.1:8001",
    server: ServerFacts = ServerFacts(),
    start_timeout: Annotated[float, Flag("Seconds the new version may take to load; 0: no limit.", least=0)] = 300.0,
    trust_code: TrustCode = False,
    again: Annotated[bool, Flag("Load also what serves already.")] = False,
    json: Json = False,
) -> None:
    """Serve what lies in a model's folder now, after checking it; a bad version leaves the old one serving."""
    from xt.serve.triton.reload import reload as run
    from xt.serve.triton.server_state import read_key

    key = read_key(server.admin_key) if server.admin_key else None
    tls = tls_files.read(url)
    if tls is not None and server.http_port is not None:
        raise typer.BadParameter("--http-port is of a connection without TLS: give it, or the TLS options")
    done = run(
        url,
        model,
        repository=server.repository,
        admin_key=key,
        http_port=server.http_port,
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
