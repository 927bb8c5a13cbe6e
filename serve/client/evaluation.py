"""What the served encoder and the served heads of an evaluation share: how their connection is made and closed."""

from __future__ import annotations

from typing import TypeVar

from xt.serve.client.address import Tls, check_model, connect_seconds, request_seconds
from xt.serve.client.connection import Connection
from xt.serve.client.errors import Patience, Restricted, Tries
from xt.serve.client.plans import Plan

IN_FLIGHT = 2
"""Requests under way at once: the server tokenises one while it computes another."""
TIMEOUT_SECONDS = 600.0
"""Of one request: an evaluation of hours outlives a server that is started again."""
T = TypeVar("T")


class EvaluationClient:
    """A client for evaluations of hours.

    Sends again what the server refused because it was full, and what a lost server left.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        timeout_seconds: float | None = None,
        wait_seconds: float | None = None,
        tls: Tls | None = None,
        admin_key: str | None = None,
    ) -> None:
        """Connect to the gRPC endpoint `url` and read what the server says of its models.

        Args:
            url: HOST:PORT.
            model: its name; None: see the class.
            timeout_seconds: of each request, while the server is full, lost or restarting too; None: 600.
            wait_seconds: how long a server that does not answer yet is waited for here; None: `timeout_seconds` where
                that is given, else 5.
            tls: the files of an encrypted connection; None: not encrypted.
            admin_key: of the server; None: XT_ADMIN_KEY, or what this machine's server noted for this user.

        Raises:
            Unreachable: nothing answers at `url`.
            XtError: an unknown model, one that does not do what it is for, or several to choose from.
        """
        patience = Patience(connect_seconds(wait_seconds, timeout_seconds))
        self.timeout_seconds = request_seconds(timeout_seconds, TIMEOUT_SECONDS)
        check_model(model)
        self._connection = Connection(url, tls=tls, admin_key=admin_key, in_flight=IN_FLIGHT)
        self.url = url
        try:
            self._open(model, Tries(patience))
        except BaseException:
            self.close()
            raise

    def _open(self, model: str | None, tries: Tries) -> None:
        """Read what the server says of `model`, or of what it holds."""
        raise NotImplementedError

    def _names(self, tries: Tries) -> list[str] | None:
        """Return the names of the ready models; None where the list is behind a key that is not known."""
        try:
            return self._connection.models(tries)
        except Restricted:
            return None

    def _run(self, plan: Plan[T]) -> T:
        """Send the requests of a plan and put their answers together."""
        return self._connection.run(plan, Patience(self.timeout_seconds))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
