"""The settings of `xt serve` and `xt reload`; their flags are these fields. Light to import."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from xt.core.errors import UsageError
from xt.core.settings import Flag, TrustCode
from xt.serve.options import TlsFiles

if TYPE_CHECKING:
    from xt.serve.triton.reload import ServerAccess

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Listening:
    """Where Triton listens."""

    http_host: Annotated[str, Flag("Address of Triton's HTTP, which authenticates nobody.")] = LOOPBACK
    grpc_host: Annotated[str, Flag("Address of gRPC, which does so with --grpc-root-cert alone.")] = LOOPBACK
    metrics_host: Annotated[str, Flag("Address of the metrics, open to all.")] = LOOPBACK
    http_port: Annotated[int, Flag("KServe v2 over HTTP.")] = 8000
    grpc_port: Annotated[int, Flag("KServe v2 over gRPC: what --url takes.")] = 8001
    metrics_port: Annotated[int, Flag("Prometheus metrics at /metrics.")] = 8002

    def hosts(self) -> dict[str, str]:
        """Return the addresses, by the names of their settings."""
        return {"http_host": self.http_host, "grpc_host": self.grpc_host, "metrics_host": self.metrics_host}


@dataclass(frozen=True)
class GrpcTls:
    """The files by which gRPC is encrypted."""

    grpc_cert: Annotated[Path | None, Flag("PEM certificate: gRPC then speaks TLS alone.")] = None
    grpc_key: Annotated[Path | None, Flag("PEM key of --grpc-cert.")] = None
    grpc_root_cert: Annotated[Path | None, Flag("PEM certificate that must have signed the callers' (mutual TLS).")] = (
        None
    )


@dataclass(frozen=True)
class GatewaySettings:
    """The gateway before Triton."""

    host: Annotated[
        str | None, Flag("Address of the gateway (--gateway-port). Default: 127.0.0.1, this machine alone.")
    ] = None
    gateway_port: Annotated[int | None, Flag("Also serve the OpenAI-style HTTP API and the page to try it.")] = None
    gateway_ca: Annotated[
        Path | None,
        Flag(
            "PEM certificates that the gateway trusts Triton's by, with --grpc-cert. Default: --grpc-root-cert, "
            "else --grpc-cert itself."
        ),
    ] = None
    token: Annotated[
        str | None,
        Flag(
            "What callers of the gateway must send as bearer token: @FILE, or TOKEN itself, which other users may "
            "see. Default: XT_TOKEN of the environment."
        ),
    ] = None
    access_log: Annotated[
        str | None,
        Flag(
            "File that gets a line for each request to the gateway (time, status, caller, trace id; no text, no "
            "token); - is this terminal. Of 64 MiB each, it and three older ones are kept."
        ),
    ] = None


@dataclass(frozen=True)
class ServeSettings:
    """All settings of one run of `xt serve`."""

    repository: Annotated[Path, Flag("A model repository that `xt export` wrote.", positional=True)]
    listening: Listening = field(default_factory=Listening)
    admin_key: Annotated[
        Path | None,
        Flag(
            "File with the key (16 characters or more) that opens model control, logs, traces, statistics and "
            "shared memory. Default: XT_ADMIN_KEY, else a random one that `xt reload` of the same user finds."
        ),
    ] = None
    lock_http: Annotated[
        bool,
        Flag(
            "Let Triton's HTTP answer, health apart, only to who sends the admin key (header xt-admin-key): else "
            "any web page that you visit can ask it."
        ),
    ] = False
    restart: Annotated[bool, Flag("Start the server anew when it dies, at most 5 times a minute.")] = False
    start_timeout: Annotated[
        float,
        Flag(
            "Seconds that every start, also one by --restart, may take until all models are ready; 0: no limit.",
            least=0,
        ),
    ] = 300.0
    exit_timeout: Annotated[int, Flag("Seconds that the requests in flight have at the end.", least=0)] = 30
    tls: GrpcTls = field(default_factory=GrpcTls)
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    trust_code: TrustCode = False

    def check_gateway(self) -> None:
        """Raise for an address of a gateway that is not requested."""
        if self.gateway.host is not None and self.gateway.gateway_port is None:
            raise UsageError(
                "--host is the address of the gateway, and there is no --gateway-port. Triton's own addresses are "
                "opened one by one, by --http-host, --grpc-host and --metrics-host: whoever reaches them needs no "
                "token."
            )


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


@dataclass(frozen=True)
class ReloadOptions:
    """All settings of one run of `xt reload`."""

    tls_files: TlsFiles = field(default_factory=TlsFiles)
    model: Annotated[str | None, Flag("The model; may be left out when the server holds one.", positional=True)] = None
    url: Annotated[str, Flag("HOST:PORT of a Triton server's gRPC endpoint.")] = "127.0.0.1:8001"
    server: ServerFacts = field(default_factory=ServerFacts)
    start_timeout: Annotated[float, Flag("Seconds the new version may take to load; 0: no limit.", least=0)] = 300.0
    trust_code: TrustCode = False
    again: Annotated[bool, Flag("Load also what serves already.")] = False

    def access(self) -> ServerAccess:
        """Return how the server is reached, as far as that was given."""
        from xt.serve.triton.reload import ServerAccess
        from xt.serve.triton.server_state import read_key

        key = read_key(self.server.admin_key) if self.server.admin_key else None
        tls = self.tls_files.read(self.url)
        if tls is not None and self.server.http_port is not None:
            raise UsageError("--http-port is of a connection without TLS: give it, or the TLS options")
        return ServerAccess(self.server.repository, key, self.server.http_port, tls)
