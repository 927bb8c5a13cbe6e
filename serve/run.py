"""`xt serve`: Triton on a repository, perhaps a gateway before it, from the settings of the command line."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from xt.core.errors import XtError
from xt.core.reporter import Say
from xt.serve.client.address import Tls as ClientTls
from xt.serve.client.connection import Connection
from xt.serve.settings import LOOPBACK, ServeSettings
from xt.serve.triton import server_state
from xt.serve.triton.addresses import Hosts, Ports, Tls
from xt.serve.triton.launcher import TritonServer
from xt.serve.triton.processes import hide_from_process_list
from xt.serve.triton.server_state import LOCAL_HOSTS

if TYPE_CHECKING:
    from xt.serve.gateway.process import GatewayProcess


@dataclass(frozen=True)
class Secrets:
    """Who may call what."""

    tls: Tls | None
    """Of gRPC."""
    token: str | None
    """Of the gateway."""
    admin_key: str | None
    """Of Triton's model control; None: a random one."""


def read_secrets(settings: ServeSettings, *, say: Say) -> Secrets:
    """Read the files and variables that the settings name; XtError for a gateway that would be open to everybody."""
    tls = Tls.of_flags(settings.tls.grpc_cert, settings.tls.grpc_key, settings.tls.grpc_root_cert)
    token = read_token(settings.gateway.token, say=say)
    check_gateway(settings, token, tls)
    named = settings.admin_key
    key = server_state.read_key(named) if named else os.environ.get(server_state.KEY_VARIABLE)
    return Secrets(tls, token, key)


def triton_server(settings: ServeSettings, secrets: Secrets, *, say: Say) -> TritonServer:
    """Return the server, to be used as a context manager; report which of its addresses other machines can reach."""
    warn_of_open(settings.listening.hosts(), secrets.tls, say=say)
    listening = settings.listening
    return TritonServer(
        settings.repository,
        hosts=Hosts(listening.http_host, listening.grpc_host, listening.metrics_host),
        ports=Ports(listening.http_port, listening.grpc_port, listening.metrics_port),
        admin_key=secrets.admin_key,
        tls=secrets.tls,
        lock_http=settings.lock_http,
        restart=settings.restart,
        exit_seconds=settings.exit_timeout,
        start_seconds=settings.start_timeout,
        trust_code=settings.trust_code,
        report=say,
    )


def gateway_before(
    server: TritonServer, settings: ServeSettings, secrets: Secrets, *, say: Say
) -> GatewayProcess | None:
    """Return the gateway before a running server, to be used as a context manager; None where none is requested."""
    from xt.serve.gateway.process import GatewayProcess

    gateway, tls = settings.gateway, secrets.tls
    if gateway.gateway_port is None:
        return None
    return GatewayProcess(
        server.url,
        host=gateway.host or LOOPBACK,
        port=gateway.gateway_port,
        token=secrets.token,
        access_log=gateway.access_log,
        report=say,
        metrics_url=server.metrics_url,
        admin_key="",  # it needs none: the metrics name the models
        tls=None if tls is None else gateway_tls(server.url, tls, gateway.gateway_ca),
    )


def wait_for_end(server: TritonServer) -> NoReturn:
    """Wait until a server ends by itself, and raise XtError that says why."""
    code = server.wait()
    reason = server.ended or f"Triton ended by itself with code {code}"
    raise XtError(f"{reason}:\n{server.log_tail()}", "See the lines above; --restart starts it anew.")


def check_gateway(settings: ServeSettings, token: str | None, tls: Tls | None) -> None:
    """Raise for options of a gateway that is not requested, and for one that is open to everybody."""
    settings.check_gateway()
    gateway = settings.gateway
    host, without = gateway.host or LOOPBACK, gateway.gateway_port is None
    if gateway.token and without:
        raise XtError("--token was given without --gateway-port.", "The token guards the gateway; Triton has none.")
    if not without and host not in LOCAL_HOSTS and not token:
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


def gateway_tls(url: str, tls: Tls, ca: Path | None) -> ClientTls:
    """Return the files by which the gateway speaks to Triton; XtError when that does not work.

    Where callers must show a certificate it shows the server's own.
    """
    shown = {} if tls.root is None else {"key": tls.key, "certificate": tls.cert}
    files = ClientTls(ca=ca or tls.root or tls.cert, **shown)
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


def warn_of_open(hosts: dict[str, str], tls: Tls | None, *, say: Say) -> None:
    """Name each of Triton's ports that other machines reach, and what that means."""
    for name, host in hosts.items():
        if host in LOCAL_HOSTS:
            continue
        secured = name == "grpc_host" and tls is not None and tls.root is not None
        who = "callers need a certificate" if secured else "Triton authenticates nobody; only model control has a key"
        say(
            f"Warning: --{name.replace('_', '-')} {host} is open to other machines: {who}. The Triton of the Python "
            "wheel is 2.51, whose known faults docs/security.md lists; a network needs the gateway, or NVIDIA's image."
        )


def read_token(token: str | None, *, say: Say) -> str | None:
    """Return the token itself: as typed, of the file after @, or of XT_TOKEN; what was typed is hidden then."""
    if token is None:
        return os.environ.get(server_state.TOKEN_VARIABLE) or None
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
