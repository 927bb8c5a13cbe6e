"""The gRPC connection to a Triton server: address, TLS, proxies, reconnects, and calls that survive a restart."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xt.core.arguments import as_name, seconds
from xt.core.errors import XtError, require
from xt.core.machine import proxies
from xt.serve.client.errors import DeadlinePassed, Patience, Restricted, Tries, UnderWay, Unreachable, explain
from xt.serve.triton.server_state import GRPC_KEY_HEADER, check_key
from xt.serve.triton.server_state import admin_headers as find_headers

CONNECT_SECONDS = 5.0
"""How long a server that does not answer yet is waited for at the first connection, where nothing else is said."""
META_SECONDS = 10.0
"""The longest that one question for facts, not for a model's answers, may take."""
GRACE_SECONDS = 0.25
"""How much longer than the server the client waits, so that the answer to a passed deadline is the server's."""
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
        """As tritonclient takes them."""
        names = {"root_certificates": self.ca, "private_key": self.key, "certificate_chain": self.certificate}
        for file in names.values():
            if file is not None:
                _check_pem(file)
        if (self.key is None) != (self.certificate is None):
            given, missing = ("key", "certificate") if self.certificate is None else ("certificate", "key")
            raise XtError(f"The client's {given} was given without its {missing}.", "Give both, or neither.")
        return {"ssl": True, **{name: str(file) for name, file in names.items() if file is not None}}

    def credentials(self) -> Any:
        """As a channel of gRPC takes them."""
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


def channel_options(url: str) -> list[tuple[str, int]]:
    """Return the options of a gRPC channel to `url`: quick to find a server that is back, no proxy to this machine."""
    direct = proxies.is_this_machine(url.rpartition(":")[0])
    return [*OPTIONS, *([("grpc.enable_http_proxy", 0)] if direct else [])]


def client_options(url: str, tls: Tls | None) -> dict[str, Any]:
    """Return what tritonclient's clients, of both kinds, take for a connection to `url`."""
    return {"channel_args": channel_options(url), **(tls.options() if tls else {})}


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


def ready_names(index: Mapping[str, Any], url: str) -> list[str]:
    """Read the names of the ready models from a repository index; Unreachable where all of them are still loading."""
    models = index.get("models", [])
    names = sorted({str(m["name"]) for m in models if m.get("state", "READY") == "READY"})
    if models and not names:
        states = ", ".join(f"{m['name']} {str(m.get('state', '')).lower()}" for m in models[:8])
        raise Unreachable(f"No model at {url} is ready ({states}).", "Wait until one is loaded, or read its log.")
    return names


class Connection:
    """A connection of threads: each call is tried until it is answered, refused, or out of time."""

    def __init__(
        self,
        url: str,
        *,
        tls: Tls | None = None,
        admin_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Take HOST:PORT, the files of an encrypted connection, the server's admin key, and headers of every call."""
        require("tritonclient", extra="serve", purpose="Asking a Triton server")
        import tritonclient.grpc as grpc

        self.url = check_address(url)
        self.grpc = grpc
        self.caller = new_caller()
        self.headers = check_headers(headers)
        self.admin = admin_headers(url, admin_key)
        self.client = grpc.InferenceServerClient(url, **client_options(url, tls))

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    def models(self, tries: Tries) -> list[str]:
        """Return the names of the ready models; Restricted when the server tells them only to who has its key."""
        headers = {**self.headers, **self.admin}

        def ask(timeout: float) -> list[str]:
            index = self.client.get_model_repository_index(headers=headers, as_json=True, client_timeout=timeout)
            return ready_names(index, self.url)

        return list(self._meta(ask, None, tries))

    def config(self, model: str, tries: Tries) -> dict[str, Any]:
        """Return a model's configuration, as JSON of the protobuf."""

        def ask(timeout: float) -> dict[str, Any]:
            answer = self.client.get_model_config(model, headers=self.headers, as_json=True, client_timeout=timeout)
            return dict(answer["config"])

        return dict(self._meta(ask, model, tries))

    def _meta(self, ask: Any, model: str | None, tries: Tries) -> Any:
        while True:
            try:
                return ask(max(0.1, min(META_SECONDS, tries.left)))
            except (self.grpc.InferenceServerException, Unreachable) as error:
                explained = meta_error(error, self.url, model)
                pause = tries.pause(explained)
                if pause is None:
                    raise tries.last(explained) from error
                time.sleep(pause)

    def infer(
        self,
        model: str,
        tensors: Sequence[Any],
        outputs: Sequence[Any],
        parameters: Mapping[str, Any] | None,
        patience: Patience,
        *,
        rows: Sequence[int] | None = None,
        under_way: UnderWay | None = None,
    ) -> Any:
        """Send one request until it is answered; the server gets the time that is left.

        Args:
            model: its name.
            tensors: the inputs.
            outputs: those requested.
            parameters: of the request.
            patience: how long and how often it is tried.
            rows: places of its texts in the caller's list, for errors.
            under_way: counts the requests of the same call.
        """
        tries, others = Tries(patience), UnderWay() if under_way is None else under_way
        while True:
            left = tries.left
            try:
                with others:
                    return self.client.infer(
                        model,
                        tensors,
                        outputs=outputs,
                        parameters={**(parameters or {}), "caller": self.caller},
                        timeout=max(1, int(left * 1e6)),
                        client_timeout=max(0.0, left) + GRACE_SECONDS,
                        headers=self.headers,
                    )
            except self.grpc.InferenceServerException as error:
                explained = explain(error, self.url, model, rows)
                pause = tries.pause(explained, siblings=others.count > 0)
                if pause is None:
                    raise tries.last(explained) from error
                time.sleep(pause)


def meta_error(error: Exception, url: str, model: str | None) -> XtError:
    """Say what an error of a question for facts means: a server that does not answer it is lost, or hangs."""
    explained = error if isinstance(error, XtError) else explain(error, url, model)
    if isinstance(explained, DeadlinePassed):
        return Unreachable(f"The server at {url} does not answer.", "Does it hang? Read its log.")
    return explained


def named_models(connection: Connection, tries: Tries) -> list[str] | None:
    """Return the names of the ready models; None where the list is behind a key that is not known."""
    try:
        return connection.models(tries)
    except Restricted:
        return None


def check_model(model: str | None) -> str | None:
    """Return the name of a model; XtError for what is no name."""
    return None if model is None else as_name(model, "model")
