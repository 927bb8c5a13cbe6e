"""Where the HTTP and the metrics of a server are, whose gRPC endpoint is known, and which processes serve."""

from __future__ import annotations

from dataclasses import dataclass

from xt.bench.machine import listeners, listening_ports
from xt.core.machine.proxies import read_url
from xt.serve.client.address import split_address
from xt.serve.client.http import ERRORS, TritonHttp
from xt.serve.triton import server_state

LOCAL = ("127.0.0.1", "localhost", "::1", "[::1]")


@dataclass(frozen=True)
class Endpoints:
    """Where a server's other endpoints are."""

    http: str | None
    """HOST:PORT; None when it was not found."""
    metrics_url: str | None
    pids: tuple[int, ...]


def find_endpoints(url: str, *, http_port: int | None = None, metrics_port: int | None = None) -> Endpoints:
    """Find the HTTP and metrics ports of the server whose gRPC endpoint is `url`.

    A server that `xt serve` started on this machine has noted them; of another they are looked for among the ports that
    the same process listens on; elsewhere 8000 and 8002 are tried. A port that is given is taken as it is.
    """
    host, port = split_address(url)
    pids = tuple(listeners(port)) if host in LOCAL else ()
    http_host = metrics_host = host
    if state := server_state.find(url):
        http_host, metrics_host = state.http_host or host, state.metrics_host or host
        http_port, metrics_port = http_port or state.http, metrics_port or state.metrics
    ports = [p for pid in pids for p in listening_ports(pid) if p != port] or [8000, 8002]
    if http_port is None:
        http_port = next((p for p in ports if _is_triton(host, p)), None)
    if metrics_port is None:
        metrics_port = next((p for p in ports if p != http_port and _answers(f"http://{host}:{p}/metrics")), None)
    return Endpoints(
        f"{http_host}:{http_port}" if http_port else None,
        f"http://{metrics_host}:{metrics_port}/metrics" if metrics_port else None,
        pids,
    )


def _is_triton(host: str, port: int) -> bool:
    try:
        return TritonHttp(host, port).is_triton(timeout=2)
    except ERRORS:
        return False


def _answers(url: str) -> bool:
    try:
        return read_url(url, timeout=2)[0] == 200
    except (OSError, ValueError):
        return False
