"""The gateway as a container of its own, beside or far from Triton; its settings come from the environment.

XT_TRITON_URL     HOST:PORT of Triton's gRPC endpoint
XT_METRICS_URL    http://HOST:PORT/metrics of Triton (optional: shows the live throughput)
XT_TOKEN_FILE     a file with the token that callers send as `Authorization: Bearer`
XT_MODELS         names of the models, by commas (optional: asked of Triton)
XT_ADMIN_KEY      Triton's admin key (optional: its list of models is behind it)
XT_PORT           where to listen (8080)
XT_ACCESS_LOG     - prints a line for each request (status, caller, trace id), a path writes them there (optional)
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from xt.core.errors import XtError
from xt.serve.gateway.log import check_target, log_requests
from xt.serve.gateway.server import Gateway


def needed(name: str) -> str:
    """Return a variable of the environment; XtError when it is not set."""
    value = os.environ.get(name, "")
    if not value:
        raise XtError(f"{name} is not set.", "See the list at the head of this file.")
    return value


def main() -> None:
    """Serve until SIGTERM or SIGINT, then answer what is under way."""
    token = Path(needed("XT_TOKEN_FILE")).read_text(encoding="utf-8").strip()
    if not token:
        raise XtError("XT_TOKEN_FILE is an empty file.", "A gateway that other machines reach needs a token.")
    access_log = os.environ.get("XT_ACCESS_LOG") or None
    check_target(access_log)
    log_requests(os.dup(2) if access_log == "-" else access_log)
    gateway = Gateway(
        needed("XT_TRITON_URL"),
        host="0.0.0.0",  # noqa: S104 - in a container, which publishes what it wants
        port=int(os.environ.get("XT_PORT", "8080")),
        token=token,
        metrics_url=os.environ.get("XT_METRICS_URL") or None,
        models=[name for name in os.environ.get("XT_MODELS", "").split(",") if name] or None,
        admin_key=os.environ.get("XT_ADMIN_KEY") or None,
    )
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with gateway:
        while not stopping.wait(1):
            if not gateway.alive():
                raise XtError("The gateway ended by itself.")


if __name__ == "__main__":
    try:
        main()
    except (XtError, OSError) as error:
        sys.exit(str(error))
