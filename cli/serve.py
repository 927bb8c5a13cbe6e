"""`xt serve`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer

from xt.cli.console import say
from xt.cli.settings import with_flags
from xt.serve.settings import LOOPBACK, ServeSettings

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
    import os

    from xt.core.errors import XtError
    from xt.serve.triton import server_state
    from xt.serve.triton.launcher import Tls

    tls = Tls.of_flags(settings.tls.grpc_cert, settings.tls.grpc_key, settings.tls.grpc_root_cert)
    secret = _token(settings.gateway.token)
    _check_gateway(settings, secret, tls)
    key = server_state.read_key(settings.admin_key) if settings.admin_key else os.environ.get(server_state.KEY_VARIABLE)
    _warn_of_open(settings.listening.hosts(), tls)
    with ExitStack() as stack:
        server = _start(settings, key, tls, stack)
        listening = settings.listening
        say(f"serving {', '.join(server.models)}")
        say(
            f"  gRPC     {listening.grpc_host}:{listening.grpc_port}   "
            + (_tls_words(tls) if tls else f"(xt eval tatoeba --url {server.url})")
        )
        say(f"  HTTP     http://{listening.http_host}:{listening.http_port}/v2")
        say(f"  metrics  http://{listening.metrics_host}:{listening.metrics_port}/metrics")
        if settings.gateway.gateway_port is not None:
            from xt.serve.gateway.process import GatewayProcess

            gateway = GatewayProcess(
                server.url,
                host=settings.gateway.host or LOOPBACK,
                port=settings.gateway.gateway_port,
                token=secret,
                access_log=settings.gateway.access_log,
                report=say,
                metrics_url=server.metrics_url,
                admin_key="",  # it needs none: the metrics name the models
                tls=None if tls is None else _gateway_tls(server.url, tls, settings.gateway.gateway_ca),
            )
            stack.enter_context(gateway)
            say(f"  gateway  {gateway.url}/")
        say("Ctrl-C stops it.")
        code = server.wait()
        reason = server.ended or f"Triton ended by itself with code {code}"
        raise XtError(f"{reason}:\n{server.log_tail()}", "See the lines above; --restart starts it anew.")


def _check_gateway(settings: ServeSettings, secret: str | None, tls: Any) -> None:
    """Raise for options of a gateway that is not requested, and for one that is open to everybody."""
    from xt.core.errors import XtError
    from xt.serve.triton.server_state import LOCAL_HOSTS

    settings.check_gateway()
    gateway = settings.gateway
    host, without = gateway.host or LOOPBACK, gateway.gateway_port is None
    if gateway.token and without:
        raise XtError("--token was given without --gateway-port.", "The token guards the gateway; Triton has none.")
    if not without and host not in LOCAL_HOSTS and not secret:
        raise XtError(
            f"The gateway would listen on {host} for everybody.",
            "Give --token @FILE or set XT_TOKEN, or leave --host at 127.0.0.1.",
        )
    if gateway.gateway_ca is not None and (without or tls is None):
        raise XtError(
            "--gateway-ca was given without --gateway-port and --grpc-cert.", "It is for a gateway before TLS."
        )
    if gateway.access_log is not None and without:
        raise XtError("--access-log was given without --gateway-port.", "It is the gateway's; Triton has none.")


def _start(settings: ServeSettings, key: str | None, tls: Any, stack: ExitStack) -> Any:
    """Start the Triton of the Python package, to be stopped with `stack`."""
    from xt.serve.triton.launcher import Ports, TritonServer

    listening = settings.listening
    server = TritonServer(
        settings.repository,
        http_host=listening.http_host,
        grpc_host=listening.grpc_host,
        metrics_host=listening.metrics_host,
        ports=Ports(listening.http_port, listening.grpc_port, listening.metrics_port),
        admin_key=key,
        tls=tls,
        lock_http=settings.lock_http,
        restart=settings.restart,
        exit_seconds=settings.exit_timeout,
        start_seconds=settings.start_timeout,
        trust_code=settings.trust_code,
        report=say,
    )
    return stack.enter_context(server)


def _gateway_tls(url: str, tls: Any, ca: Path | None) -> Any:
    """Return the files by which the gateway speaks to Triton; XtError when that does not work.

    Where callers must show a certificate it shows the server's own.
    """
    from xt.core.errors import XtError
    from xt.serve.client.address import Tls
    from xt.serve.client.connection import Connection

    shown = {} if tls.root is None else {"key": tls.key, "certificate": tls.cert}
    files = Tls(ca=ca or tls.root or tls.cert, **shown)
    connection = Connection(url, tls=files, admin_key="")
    try:
        connection.check_live(timeout=10)
    except XtError as error:
        raise XtError(
            f"The gateway cannot speak to Triton at {url} by TLS: {error.message}",
            f"{files.ca} must have signed the server's certificate, which must be for {url.rpartition(':')[0]}; name "
            "another by --gateway-ca.",
        ) from error
    finally:
        connection.close()
    return files


def _tls_words(tls: object) -> str:
    return "(mutual TLS)" if getattr(tls, "root", None) else "(TLS)"


def _warn_of_open(hosts: dict[str, str], tls: Any) -> None:
    """Name each of Triton's ports that other machines reach, and what that means."""
    from xt.serve.triton.server_state import LOCAL_HOSTS

    for name, host in hosts.items():
        if host in LOCAL_HOSTS:
            continue
        secured = name == "grpc_host" and getattr(tls, "root", None)
        who = "callers need a certificate" if secured else "Triton authenticates nobody; only model control has a key"
        say(
            f"Warning: --{name.replace('_', '-')} {host} is open to other machines: {who}. The Triton of the Python "
            "wheel is 2.51, whose known faults docs/security.md lists; a network needs the gateway, or NVIDIA's image."
        )


def _token(token: str | None) -> str | None:
    """Return the token itself: as typed, of the file after @, or of XT_TOKEN; what was typed is hidden then."""
    import os

    from xt.core.errors import XtError
    from xt.serve.triton.processes import hide_from_process_list
    from xt.serve.triton.server_state import TOKEN_VARIABLE

    if token is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    text = token
    if token.startswith("@"):
        try:
            text = Path(token[1:]).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise XtError(f"--token {token} cannot be read: {error}", "Expected @FILE with the token in it.") from error
    elif token and not hide_from_process_list(os.getpid(), token):
        say("This machine's users can read the token in the process list; give --token @FILE or set XT_TOKEN.")
    if not text:
        raise XtError("--token is empty.", "Give a token, or leave the option out.")
    return text
