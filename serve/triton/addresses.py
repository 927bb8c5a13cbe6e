"""Where a server listens: addresses, ports, and the files by which gRPC is encrypted."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from xt.core.errors import XtError


@dataclass(frozen=True)
class Hosts:
    """The addresses that a server listens on."""

    http: str = "127.0.0.1"
    """It has no TLS and authenticates nobody."""
    grpc: str = "127.0.0.1"
    metrics: str = "127.0.0.1"
    """Over HTTP."""


@dataclass(frozen=True)
class Ports:
    """The three ports of a server."""

    http: int
    grpc: int
    metrics: int


@dataclass(frozen=True)
class Tls:
    """TLS of the gRPC endpoint; with `root` clients must show a certificate that it signed."""

    cert: Path
    key: Path
    root: Path | None = None

    def __post_init__(self) -> None:
        """Raise XtError when a file is missing or is no PEM file."""
        for option, file in (("--grpc-cert", self.cert), ("--grpc-key", self.key), ("--grpc-root-cert", self.root)):
            try:
                if file is not None and b"-----BEGIN " not in file.read_bytes():
                    raise XtError(f"{option} {file} is no PEM file.", "Expected text that holds -----BEGIN ...-----.")
            except OSError as error:
                raise XtError(f"{option} {file} cannot be read: {error.strerror}.", "Check the path.") from error

    @classmethod
    def of_flags(cls, cert: Path | None, key: Path | None, root: Path | None) -> Tls | None:
        """Return what the three flags ask for; None when none is given. Raises XtError for half of a pair."""
        if cert is None and key is None:
            if root is not None:
                raise XtError("--grpc-root-cert was given without --grpc-cert and --grpc-key.", "Give all three.")
            return None
        if cert is None or key is None:
            given, missing = ("--grpc-key", "--grpc-cert") if cert is None else ("--grpc-cert", "--grpc-key")
            raise XtError(f"{given} was given without {missing}.", "TLS needs the certificate and its key.")
        return cls(cert, key, root)

    def arguments(self) -> list[str]:
        """Return Triton's flags."""
        files = [f"--grpc-server-cert={self.cert.resolve()}", f"--grpc-server-key={self.key.resolve()}"]
        if self.root is None:
            return ["--grpc-use-ssl=true", *files]
        # Triton turns TLS on by the first flag and asks for the client's certificate by the second.
        return ["--grpc-use-ssl=true", "--grpc-use-ssl-mutual=true", *files, f"--grpc-root-cert={self.root.resolve()}"]


def free_ports(count: int = 3) -> list[int]:
    """Ask the system for free loopback ports."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def family(host: str) -> socket.AddressFamily:
    """Return the kind of an address: IPv6 where it holds a colon."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def reachable(host: str) -> str:
    """Return the address by which this machine reaches what listens on `host`.

    >>> reachable("0.0.0.0"), reachable("192.0.2.7")
    ('127.0.0.1', '192.0.2.7')
    """
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound


def evhtp(host: str) -> str:
    """Return an address as Triton's HTTP library takes it."""
    return f"ipv6:{host}" if ":" in host else host


def check_port(host: str, port: int, option: str) -> None:
    """Raise XtError when a port cannot be listened on."""
    if not 1 <= port <= 65535:
        raise XtError(f"{option} {port} is no port.", "Choose one from 1 to 65535.")
    with socket.socket(family(host)) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError as error:
            raise XtError(
                f"Port {port} on {host} cannot be used: {error.strerror}.",
                f"Choose another by {option}, or stop what listens there.",
            ) from error
