"""`xt serve`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from xt.cli.console import TrustCode, say

EPILOG = """Examples:

xt serve repository

xt serve repository --restart --start-timeout 1800 --gateway-port 8080

xt serve repository --grpc-port 9001 --http-port 9000 --metrics-port 9002

xt serve repository --host 0.0.0.0 --gateway-port 8080 --token @token.txt

xt serve repository --grpc-host 0.0.0.0 --grpc-cert server.pem --grpc-key server.key"""
ENGINES = ("wheel", "docker")
LOOPBACK = "127.0.0.1"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve", epilog=EPILOG)(serve)


def serve(
    repository: Annotated[Path, typer.Argument(help="A model repository that `xt export` wrote.")],
    host: Annotated[
        str | None,
        typer.Option("--host", help="Address of the gateway (--gateway-port). Default: 127.0.0.1, this machine alone."),
    ] = None,
    http_host: Annotated[
        str, typer.Option("--http-host", help="Address of Triton's HTTP, which asks nobody who they are.")
    ] = LOOPBACK,
    grpc_host: Annotated[
        str, typer.Option("--grpc-host", help="Address of gRPC, which does so with --grpc-root-cert alone.")
    ] = LOOPBACK,
    metrics_host: Annotated[
        str, typer.Option("--metrics-host", help="Address of the metrics, open to all.")
    ] = LOOPBACK,
    http_port: Annotated[int, typer.Option("--http-port", help="KServe v2 over HTTP.")] = 8000,
    grpc_port: Annotated[int, typer.Option("--grpc-port", help="KServe v2 over gRPC: what --url takes.")] = 8001,
    metrics_port: Annotated[int, typer.Option("--metrics-port", help="Prometheus metrics at /metrics.")] = 8002,
    admin_key: Annotated[
        Path | None,
        typer.Option(
            "--admin-key",
            help="File with the key (16 characters or more) that opens model control, logs, traces, statistics and "
            "shared memory. Default: XT_ADMIN_KEY, else a random one that `xt reload` of the same user finds.",
        ),
    ] = None,
    lock_http: Annotated[
        bool,
        typer.Option(
            "--lock-http",
            help="Let Triton's HTTP answer, health apart, only to who sends the admin key (header xt-admin-key): else "
            "any web page that you visit can ask it.",
        ),
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start the server anew when it dies, at most 5 times a minute.")
    ] = False,
    start_timeout: Annotated[
        float | None,
        typer.Option(
            "--start-timeout",
            min=0,
            help="Seconds that every start, also one by --restart, may take until all models are ready; 0: no limit.  "
            "[default: 300; with --engine docker 900]",
            show_default=False,
        ),
    ] = None,
    exit_timeout: Annotated[
        int, typer.Option("--exit-timeout", min=0, help="Seconds that the requests in flight have at the end.")
    ] = 30,
    grpc_cert: Annotated[
        Path | None, typer.Option("--grpc-cert", help="PEM certificate: gRPC then speaks TLS alone.")
    ] = None,
    grpc_key: Annotated[Path | None, typer.Option("--grpc-key", help="PEM key of --grpc-cert.")] = None,
    grpc_root_cert: Annotated[
        Path | None,
        typer.Option("--grpc-root-cert", help="PEM certificate that must have signed the callers' (mutual TLS)."),
    ] = None,
    gateway_port: Annotated[
        int | None, typer.Option("--gateway-port", help="Also serve the OpenAI-style HTTP API and the page to try it.")
    ] = None,
    gateway_ca: Annotated[
        Path | None,
        typer.Option(
            "--gateway-ca",
            help="PEM certificates that the gateway trusts Triton's by, with --grpc-cert. Default: --grpc-root-cert, "
            "else --grpc-cert itself.",
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            help="What callers of the gateway must send as bearer token: @FILE, or TOKEN itself, which other users may "
            "see. Default: XT_TOKEN of the environment.",
        ),
    ] = None,
    access_log: Annotated[
        str | None,
        typer.Option(
            "--access-log",
            help="File that gets a line for each request to the gateway (time, status, caller, trace id; no text, no "
            "token); - is this terminal. Of 64 MiB each, it and three older ones are kept.",
        ),
    ] = None,
    trust_code: TrustCode = False,
    engine: Annotated[
        str, typer.Option("--engine", help="wheel: Triton of the Python package. docker: NVIDIA's container.")
    ] = "wheel",
) -> None:
    """Serve a repository on NVIDIA Triton until Ctrl-C."""
    import os

    from xt.core.errors import XtError, unknown
    from xt.core.files.artifact import read_manifest
    from xt.serve.triton import server_state
    from xt.serve.triton.launcher import EXIT_SECONDS, Ports, Tls, TritonServer, reachable
    from xt.serve.triton.starting import CONTAINER_START_SECONDS, START_SECONDS

    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    tls = Tls.of_flags(grpc_cert, grpc_key, grpc_root_cert)
    secret = _token(token)
    ports = Ports(http_port, grpc_port, metrics_port)
    hosts: dict[str, Any] = {"http_host": http_host, "grpc_host": grpc_host, "metrics_host": metrics_host}
    if host is not None and gateway_port is None:
        raise typer.BadParameter(
            "--host is the address of the gateway, and there is no --gateway-port. Triton's own addresses are opened "
            "one by one, by --http-host, --grpc-host and --metrics-host: whoever reaches them needs no token."
        )
    host = host or LOOPBACK
    if token and gateway_port is None:
        raise XtError("--token was given without --gateway-port.", "The token guards the gateway; Triton has none.")
    if gateway_port is not None and host not in server_state.LOCAL_HOSTS and not secret:
        raise XtError(
            f"The gateway would listen on {host} for everybody.",
            "Give --token @FILE or set XT_TOKEN, or leave --host at 127.0.0.1.",
        )
    if gateway_ca is not None and (gateway_port is None or tls is None):
        raise XtError(
            "--gateway-ca was given without --gateway-port and --grpc-cert.", "It is for a gateway before TLS."
        )
    if access_log is not None and gateway_port is None:
        raise XtError("--access-log was given without --gateway-port.", "It is the gateway's; Triton has none.")
    key = server_state.read_key(admin_key) if admin_key else os.environ.get(server_state.KEY_VARIABLE)
    _warn_of_open(hosts, tls)
    with ExitStack() as stack:
        server: Any
        if engine == "docker":
            options = {"--lock-http": lock_http, "--restart": restart, "--grpc-cert": tls}
            options["--exit-timeout"] = exit_timeout != EXIT_SECONDS
            if unused := [option for option, given in options.items() if given]:
                raise XtError(f"{unused[0]} works with --engine wheel alone.", "Leave one of the two out.")
            from xt.serve.triton.docker import run

            key = server_state.check_key(key, server_state.KEY_VARIABLE) if key else None
            limit = CONTAINER_START_SECONDS if start_timeout is None else start_timeout
            server = stack.enter_context(
                run(
                    repository,
                    **hosts,
                    ports=ports,
                    admin_key=key,
                    trust_code=trust_code,
                    report=say,
                    start_seconds=limit,
                )
            )
            hashes = {name: str(read_manifest(repository / name)["hash"]) for name in server.models}
            places = {"http_host": reachable(http_host), "metrics_host": reachable(metrics_host)}
            if problem := server_state.note_server(
                grpc_host, vars(ports), server.admin_key, server.repository, hashes, **places
            ):
                say(problem)
            stack.callback(server_state.forget, grpc_port)
        else:
            server = stack.enter_context(
                TritonServer(
                    repository,
                    **hosts,
                    ports=ports,
                    admin_key=key,
                    tls=tls,
                    lock_http=lock_http,
                    restart=restart,
                    exit_seconds=exit_timeout,
                    start_seconds=START_SECONDS if start_timeout is None else start_timeout,
                    trust_code=trust_code,
                    report=say,
                )
            )
        say(f"serving {', '.join(server.models)}")
        say(
            f"  gRPC     {grpc_host}:{grpc_port}   "
            + (_tls_words(tls) if tls else f"(xt eval tatoeba --url {server.url})")
        )
        say(f"  HTTP     http://{http_host}:{http_port}/v2")
        say(f"  metrics  http://{metrics_host}:{metrics_port}/metrics")
        if gateway_port is not None:
            from xt.serve.gateway.process import GatewayProcess

            gateway = GatewayProcess(
                server.url,
                host=host,
                port=gateway_port,
                token=secret,
                access_log=access_log,
                report=say,
                metrics_url=server.metrics_url,
                admin_key="",  # it needs none: the metrics name the models
                tls=None if tls is None else _gateway_tls(server.url, tls, gateway_ca),
            )
            stack.enter_context(gateway)
            say(f"  gateway  {gateway.url}/")
        say("Ctrl-C stops it.")
        code = server.wait()
        reason = getattr(server, "ended", "") or f"Triton ended by itself with code {code}"
        raise XtError(f"{reason}:\n{server.log_tail()}", "See the lines above; --restart starts it anew.")


def _gateway_tls(url: str, tls: Any, ca: Path | None) -> Any:
    """Give the files by which the gateway speaks to Triton; XtError when that does not work.

    Where callers must show a certificate it shows the server's own.
    """
    import tritonclient.grpc as grpc

    from xt.core.errors import XtError
    from xt.serve.client.connection import Tls, client_options

    shown = {} if tls.root is None else {"key": tls.key, "certificate": tls.cert}
    files = Tls(ca=ca or tls.root or tls.cert, **shown)
    client = grpc.InferenceServerClient(url, **client_options(url, files))
    try:
        client.is_server_live(client_timeout=10)
    except grpc.InferenceServerException as error:
        raise XtError(
            f"The gateway cannot speak to Triton at {url} by TLS: {error.message()}",
            f"{files.ca} must have signed the server's certificate, which must be for {url.rpartition(':')[0]}; name "
            "another by --gateway-ca.",
        ) from error
    finally:
        client.close()
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
        who = (
            "callers need a certificate" if secured else "Triton asks nobody who they are; only model control has a key"
        )
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
