"""The gateway's log: a line for each request, without texts and tokens; and its faults."""

from __future__ import annotations

import logging
import os
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

from xt.core.errors import XtError

FILE_BYTES = 64 * 2**20
FILES = 3
"""Older files of that size that are kept beside the log: FILE.1 is the newest of them."""
FORMAT = "%(asctime)s %(levelname)s %(message)s"


class _Lines(logging.Formatter):
    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__(FORMAT, "%Y-%m-%dT%H:%M:%SZ")


def check_target(target: str | None) -> None:
    """Raise XtError when the file of an access log cannot be written; None and "-" (stderr) can."""
    if target is None or target == "-":
        return
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    except OSError as error:
        raise XtError(f"--access-log {target} cannot be written: {error.strerror}.", "Name a file, or -.") from error


def log_requests(target: str | int | None) -> None:
    """Send the gateway's log lines to a file (by its path), or to an open one (its number); None: faults alone.

    A file is renamed when it is full, and a few old ones are kept. Faults go to stderr in any case.
    """
    log = logging.getLogger("xt.gateway")
    log.propagate = False
    faults = logging.StreamHandler()
    faults.setLevel(logging.ERROR)
    faults.setFormatter(_Lines())
    log.addHandler(faults)
    if target is None:
        log.setLevel(logging.ERROR)
        return
    log.setLevel(logging.INFO)
    lines: logging.Handler
    if isinstance(target, int):
        lines = logging.StreamHandler(open(target, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
    else:
        lines = RotatingFileHandler(Path(target), maxBytes=FILE_BYTES, backupCount=FILES, encoding="utf-8")
    lines.setFormatter(_Lines())
    log.addHandler(lines)
