"""Asking a server from Python: `Client`. Texts in, numpy out, errors as XtError."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from xt.core.arguments import whole_number
from xt.serve.client.address import Tls, check_model, connect_seconds, request_seconds
from xt.serve.client.connection import Connection
from xt.serve.client.errors import Patience, Restricted, Tries
from xt.serve.client.models import Served, choose_default, describe
from xt.serve.client.plans import plan_classify, plan_encode, plan_search
from xt.serve.client.wire import Classified, Found, Vectors

TIMEOUT_SECONDS = 60.0
RETRIES = 5
IN_FLIGHT = 4
"""Requests of one call under way at once: the server tokenises some while it computes others."""
MAX_RETRIES = 10_000
MAX_IN_FLIGHT = 256


@dataclass(frozen=True)
class Options:
    """What both clients are made with, checked."""

    timeout_seconds: float
    retries: int
    in_flight: int
    wait_seconds: float
    """How long a server that does not answer yet is waited for at the first connection."""

    @classmethod
    def of(cls, timeout_seconds: Any, retries: Any, in_flight: Any, wait_seconds: Any) -> Options:
        """Check them; XtError names the first that is not what it should be."""
        return cls(
            request_seconds(timeout_seconds, TIMEOUT_SECONDS),
            whole_number(retries, "retries", 0, MAX_RETRIES),
            whole_number(in_flight, "in_flight", 1, MAX_IN_FLIGHT),
            connect_seconds(wait_seconds, timeout_seconds),
        )


class Client:
    """A connection to a served model.

    A long list goes out as several concurrent requests. What a lost or restarting server left unanswered is sent again
    until the deadline; what a full one turned away, as often as `retries` says, after growing pauses; what it refused,
    never.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        timeout_seconds: float | None = None,
        retries: int = RETRIES,
        in_flight: int = IN_FLIGHT,
        wait_seconds: float | None = None,
        tls: Tls | None = None,
        admin_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Connect to the gRPC endpoint `url` (HOST:PORT) and read what the server says of the model.

        Args:
            url: HOST:PORT.
            model: its name; without it the server must hold exactly one, or one named `encoder`.
            timeout_seconds: of each request, its retries included; the server drops what it cannot answer by then.
                None: 60.
            retries: how often a request is sent again to a server that is full. One that is lost or restarting is
                waited for until the deadline, whatever this is.
            in_flight: requests of one call under way at once.
            wait_seconds: how long a server that does not answer yet is waited for here; None: `timeout_seconds` where
                that is given, else 5.
            tls: the files of an encrypted connection; None: not encrypted.
            admin_key: of a server that lists its models only to who has it; None: XT_ADMIN_KEY, or what this
                machine's server noted for this user.
            headers: sent with every request.

        Raises:
            Unreachable: nothing answers at `url`.
            UnknownModel: the server does not hold `model`.
            XtError: an argument that is none of the above.
        """
        options = Options.of(timeout_seconds, retries, in_flight, wait_seconds)
        check_model(model)
        self._connection = Connection(url, tls=tls, admin_key=admin_key, headers=headers, in_flight=options.in_flight)
        self.url = url
        self.timeout_seconds, self.retries = options.timeout_seconds, options.retries
        self._patience = Patience(options.timeout_seconds, options.retries)
        try:
            tries = Tries(Patience(options.wait_seconds))
            self.model = model or self._default_model(tries)
            self.served = describe(self._connection.config(self.model, tries), url)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _default_model(self, tries: Tries) -> str:
        try:
            return choose_default(self._connection.models(tries), self.url)
        except Restricted:
            return choose_default(None, self.url)

    def describe(self, model: str) -> Served:
        """Ask the server what it says of a model."""
        check_model(model)
        return describe(self._connection.config(model, Tries(Patience(self.timeout_seconds))), self.url)

    def encode(
        self,
        texts: Iterable[str],
        *,
        prefix: str | None = None,
        truncate: bool = False,
        dimensions: int | None = None,
        dtype: str = "float32",
    ) -> npt.NDArray[Any]:
        """Return the vectors of `texts`, (texts, dim); see `encode_full`."""
        return self.encode_full(texts, prefix=prefix, truncate=truncate, dimensions=dimensions, dtype=dtype).vectors

    def encode_full(
        self,
        texts: Iterable[str] | None = None,
        *,
        ids: Iterable[Iterable[int]] | None = None,
        prefix: str | None = None,
        truncate: bool = False,
        dimensions: int | None = None,
        dtype: str = "float32",
    ) -> Vectors:
        """Return vectors, and how many tokens each text has and whether it was cut.

        Args:
            texts: any number of them.
            ids: instead of texts, rows of token ids by the model's own tokenizer, prefix and special tokens included.
            prefix: the role whose prefix goes before each text (None: the encoder's default; "none": nothing).
            truncate: cut a text that is too long, and flag it, instead of raising.
            dimensions: keep the first of them, made unit length again.
            dtype: `float32`, `float16`, or `int8` with a scale for each row.

        Raises:
            InvalidRequest: a text or option that the server does not take; it names the text.
            ServerFull: it stayed full through all retries.
            DeadlinePassed: no answer in `timeout_seconds`.
            Unreachable: the connection was lost and did not come back.
        """
        return self._connection.run(
            plan_encode(self.served, texts, ids, prefix, truncate, dimensions, dtype), self._patience
        )

    def search(
        self,
        texts: Iterable[str],
        *,
        k: int | None = None,
        languages: str | Iterable[str] | None = None,
        prefix: str | None = None,
        truncate: bool = False,
    ) -> list[Found]:
        """Ask a `retriever` for the `k` likeliest documents of each text; raises as `encode_full` does.

        `languages`: of the texts, one for all or one each, where the calibrator knows languages.
        """
        return self._connection.run(plan_search(self.served, texts, k, languages, prefix, truncate), self._patience)

    def classify(
        self, texts: Iterable[str], pairs: Iterable[str] | None = None, *, truncate: bool = False
    ) -> Classified:
        """Ask a classifier, tagger or reader about `texts`; `pairs`: the second text of each, where it reads two."""
        return self._connection.run(plan_classify(self.served, texts, pairs, truncate), self._patience)
