"""Proxies of the environment: which connections they stand in the way of. Those to this machine never use one.

gRPC reads `grpc_proxy`, `https_proxy` and `http_proxy`, the first that is set, and `no_grpc_proxy` or `no_proxy`;
Python's HTTP reads `http_proxy` and `no_proxy`, in capitals too. A proxy elsewhere cannot reach a loopback address.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import urllib.error
import urllib.request
from functools import lru_cache
from urllib.parse import urlsplit

GRPC_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
GRPC_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


def is_this_machine(host: str) -> bool:
    """Return whether a host is this machine.

    This machine is a loopback name or address, its own name, or an address of one of its interfaces.

    >>> is_this_machine("127.0.0.1"), is_this_machine("[::1]"), is_this_machine("localhost"), is_this_machine("8.8.8.8")
    (True, True, True, False)
    """
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost") or name == socket.gethostname().lower():
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:  # a name: looking it up could take long, and names of this machine are those above
        return False
    return address.is_loopback or address.is_unspecified or _is_own(str(address))


@lru_cache(maxsize=64)
def _is_own(address: str) -> bool:
    """Return whether an address belongs to an interface of this machine: then a socket can be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def grpc_proxy(url: str) -> str | None:
    """Name the variable whose proxy a gRPC connection to `url` (HOST:PORT) goes through; None: it goes directly."""
    host = url.rpartition(":")[0].strip("[]").lower()
    variable = next((name for name in GRPC_PROXIES if os.environ.get(name)), None)
    if variable is None or is_this_machine(host):
        return None
    exceptions = next((os.environ[name] for name in GRPC_EXCEPTIONS if os.environ.get(name)), "")
    words = [word.strip().lower() for word in exceptions.split(",") if word.strip()]
    return None if any(word == "*" or host.endswith(word) for word in words) else variable


def http_proxy(url: str) -> str | None:
    """Name the variable whose proxy an HTTP request to `url` goes through; None: it goes directly."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = urllib.request.getproxies()
    if is_this_machine(host) or parts.scheme not in proxies or urllib.request.proxy_bypass(parts.netloc):
        return None
    name = f"{parts.scheme}_proxy"
    return name if os.environ.get(name) else name.upper()


def hint(variable: str | None, host: str) -> str:
    """Return what an error of a connection says of the proxy in its way; empty without one.

    >>> hint("http_proxy", "triton.example")
    'The variable http_proxy sends it through a proxy; to go directly, set no_proxy=triton.example.'
    """
    if variable is None:
        return ""
    return f"The variable {variable} sends it through a proxy; to go directly, set no_proxy={host.strip('[]')}."


def read_url(url: str, *, timeout: float) -> tuple[int, bytes]:
    """Fetch an HTTP page: its status and body; directly where it is of this machine.

    Raises OSError, which names the proxy where one was in the way.
    """
    variable = http_proxy(url)
    handlers = [] if variable else [urllib.request.ProxyHandler({})]
    opener = urllib.request.build_opener(*handlers)
    try:
        with opener.open(url, timeout=timeout) as page:
            return int(page.status), bytes(page.read())
    except urllib.error.HTTPError as error:
        with error:
            if variable is None:
                return error.code, bytes(error.read())
        raise OSError(f"{error}. {hint(variable, urlsplit(url).hostname or '')}") from error
    except OSError as error:
        if variable is None:
            raise
        raise OSError(f"{error}. {hint(variable, urlsplit(url).hostname or '')}") from error
