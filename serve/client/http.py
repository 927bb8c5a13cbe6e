"""Triton's HTTP, as far as it does not ask models: health, the list of models, their configuration, model control.

It has no TLS, so it is for a server of this machine or of a network that is trusted; no proxy is ever used.
"""

from __future__ import annotations

import http.client
import json
from typing import Any

from xt.serve.client.errors import DeadlinePassed, InvalidRequest, Restricted, Unreachable
from xt.serve.triton.server_state import KEY_HEADER

ERRORS = (OSError, http.client.HTTPException)
"""What a question raises that is not answered."""


class TritonHttp:
    """The HTTP endpoint of one server. Questions raise one of `ERRORS` when no answer comes in time."""

    def __init__(self, host: str, port: int, admin_key: str = "") -> None:
        self.host, self.port = host.strip("[]"), port
        self.address = f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"
        self._headers = {KEY_HEADER: admin_key} if admin_key else {}

    def ask(self, method: str, path: str, timeout: float | None, body: bytes | None = None) -> tuple[int, bytes]:
        """Return status and body of one question; `timeout`: seconds, None without end."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            headers = {**self._headers, **({} if body is None else {"Content-Type": "application/json"})}
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def is_ready(self, timeout: float) -> bool:
        """Return whether the server and all its models are ready."""
        return self.ask("GET", "/v2/health/ready", timeout)[0] == 200

    def is_live(self, timeout: float) -> bool:
        """Return whether the server lives, also while it loads models."""
        return self.ask("GET", "/v2/health/live", timeout)[0] == 200

    def is_triton(self, timeout: float) -> bool:
        """Return whether what answers there is Triton."""
        status, page = self.ask("GET", "/v2", timeout)
        return status == 200 and b"triton" in page  # the metrics port answers what it does not know with an empty page

    def ready_models(self, timeout: float) -> list[str]:
        """Return the names of the ready models; ValueError, KeyError or TypeError when the server does not tell."""
        status, index = self.ask("POST", "/v2/repository/index", timeout)
        if status != 200:
            raise ValueError(f"status {status}")
        return sorted({str(m["name"]) for m in json.loads(index) if m.get("state") == "READY"})

    def config(self, model: str, timeout: float) -> dict[str, Any]:
        """Return a model's configuration; ValueError when the server does not tell."""
        return dict(json.loads(self.ask("GET", f"/v2/models/{model}/config", timeout)[1]))

    def load(self, model: str, timeout: float | None) -> None:
        """Have the server load a model anew, and wait until it did; see `Connection.load` for what is raised."""
        try:
            status, answer = self.ask("POST", f"/v2/repository/models/{model}/load", timeout, b"{}")
        except TimeoutError as error:
            raise DeadlinePassed(f"No answer from {self.address} in time.", "Give the request more time.") from error
        except ERRORS as error:
            raise Unreachable(
                f"The server at {self.address} did not answer: {error}", "Does it run? Read its log."
            ) from error
        if status == 200:
            return
        text = answer.decode(errors="replace")
        if status == 403:
            raise Restricted(f"The server at {self.address} does not do this without its key.", "Give admin_key.")
        try:
            text = json.loads(text)["error"]
        except (ValueError, KeyError, TypeError):
            pass
        raise InvalidRequest(str(text))
