"""Where a Triton server is and how it is reached: address, TLS, proxies, keys, and how long it is waited for."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xt.core.arguments import as_name, seconds
from xt.core.errors import XtError
from xt.core.machine import proxies
from xt.serve.triton.server_state import GRPC_KEY_HEADER, check_key
from xt.serve.triton.server_state import admin_headers as find_headers

CONNECT_SECONDS = 5.0
"""How long a server that does not answer yet is waited for at the first connection, unless the caller names another."""
MAX_MESSAGE = 2**31 - 1
OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    # gRPC's own pauses grow to two minutes, so that a server would be found long after it is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.min_reconnect_backoff_ms", 5000),  # in truth the least time that one attempt to connect may take
)


@dataclass(frozen=True)
class Tls:
    """The files of an encrypted connection, all PEM."""

    ca: Path | None = None
    """Certificates to trust; None: those of the system."""
    key: Path | None = None
    """The client's private key, where the server asks for one."""
    certificate: Path | None = None
    """The client's certificate chain, where the server asks for one."""

    def options(self) -> dict[str, Any]:
        """Return it as tritonclient takes them."""
        names = {"root_certificates": self.ca, "private_key": self.key, "certificate_chain": self.certificate}
        for file in names.values():
            if file is not None:
                _check_pem(file)
        if (self.key is None) != (self.certificate is None):
            given, missing = ("key", "certificate") if self.certificate is None else ("certificate", "key")
            raise XtError(f"The client's {given} was given without its {missing}.", "Give both, or neither.")
        return {"ssl": True, **{name: str(file) for name, file in names.items() if file is not None}}

    def credentials(self) -> Any:
        """Return it as a channel of gRPC takes them."""
        import grpc

        files = {k: Path(v).read_bytes() for k, v in self.options().items() if k != "ssl"}
        return grpc.ssl_channel_credentials(**files)


def _check_pem(file: Path) -> None:
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise XtError(f"There is no file {file} that can be read: {error.strerror}.", "Name a PEM file.") from error
    if b"-----BEGIN " not in content:
        raise XtError(f"{file} is no PEM file.", "Expected text that holds -----BEGIN ...-----.")


def check_address(url: Any) -> str:
    """Return `url`, or raise XtError unless it is HOST:PORT."""
    host, _, port = url.rpartition(":") if isinstance(url, str) else ("", "", "")
    whole = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536
    if not host or not whole or "/" in host or any(c.isspace() for c in host) or (":" in host and host[0] != "["):
        raise XtError(
            f"{url!r} is no address.", "Expected HOST:PORT of the gRPC endpoint, e.g. 127.0.0.1:8001 or [::1]:8001."
        )
    return str(url)


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT; XtError for anything else."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise XtError(f"{address!r} is no address.", "Expected HOST:PORT, e.g. 127.0.0.1:8000.")
    return host, int(port)


def channel_options(url: str) -> list[tuple[str, int]]:
    """Return the options of a gRPC channel to `url`: quick to find a server that is back, no proxy to this machine."""
    direct = proxies.is_this_machine(url.rpartition(":")[0])
    return [*OPTIONS, *([("grpc.enable_http_proxy", 0)] if direct else [])]


def client_options(url: str, tls: Tls | None) -> dict[str, Any]:
    """Return what tritonclient's clients, of both kinds, take for a connection to `url`."""
    return {"channel_args": channel_options(url), **(tls.options() if tls else {})}


def open_channel(url: str, tls: Tls | None) -> Any:
    """Return a gRPC channel of asyncio to `url`, for requests that are serialised already."""
    import grpc

    options = channel_options(url)
    if tls is None:
        return grpc.aio.insecure_channel(url, options=options)
    return grpc.aio.secure_channel(url, tls.credentials(), options=options)


def new_caller() -> str:
    """Return the name by which a server knows the requests of one client, to share its work fairly between clients."""
    return secrets.token_hex(8)


def admin_headers(url: str, key: str | None) -> dict[str, str]:
    """Return the headers that open a server's restricted calls, with the key given or else found; none for ""."""
    if key is None:
        return find_headers(url)
    if key == "":
        return {}
    return {GRPC_KEY_HEADER: check_key(as_name(key, "admin_key"), "admin_key")}


def check_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return the headers of every call; XtError unless names and values are short printable ASCII."""
    if headers is not None and not isinstance(headers, Mapping):
        raise XtError(f"headers is {type(headers).__name__}, expected a dict of names and values.")
    for name, value in (headers or {}).items():
        if not all(isinstance(x, str) and x.isascii() and x.isprintable() for x in (name, value)) or not name:
            raise XtError(f"The header {str(name)[:60]!r} is no printable ASCII with a printable ASCII value.")
    return {name.lower(): value for name, value in (headers or {}).items()}


def connect_seconds(wait_seconds: float | None, timeout_seconds: float | None) -> float:
    """Return how long a first connection waits for a server: as said, else as long as requests may take, else 5 s."""
    if wait_seconds is not None:
        return seconds(wait_seconds, "wait_seconds")
    return CONNECT_SECONDS if timeout_seconds is None else seconds(timeout_seconds, "timeout_seconds")


def request_seconds(timeout_seconds: float | None, otherwise: float) -> float:
    """Return how long one request may take: as said, else `otherwise`."""
    return otherwise if timeout_seconds is None else seconds(timeout_seconds, "timeout_seconds")


def check_model(model: str | None) -> str | None:
    """Return the name of a model; XtError for what is no name."""
    return None if model is None else as_name(model, "model")
