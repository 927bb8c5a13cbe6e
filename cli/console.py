"""What the commands share: messages on stderr, one JSON document on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from xt.core.reporter import Reporter

stderr = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 120)


def say(message: str) -> None:
    """Tell the user something, on stderr."""
    stderr.print(message, markup=False, soft_wrap=True)


def emit(document: object) -> None:
    """Print the one JSON document of --json."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2, default=str) + "\n")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table on stderr; columns after the first are numbers."""
    out = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for i, column in enumerate(columns):
        out.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        out.add_row(*[f"{x:.3f}" if isinstance(x, float) else str(x) for x in row])
    stderr.print(out)


class Counter:
    """Progress of a loop: a line that renews itself on a terminal, else a line every ten seconds."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.started = time.monotonic()
        self.last = self.started
        self.first: tuple[float, int] | None = None
        """When the first report came, and of how many: what was before, reading say, does not count."""

    def __call__(self, done: int, total: int, detail: object = "") -> None:
        """Report that `done` of `total` are done."""
        now = time.monotonic()
        self.first = self.first or (now, done)
        terminal = stderr.is_terminal
        if now - self.last < (0.2 if terminal else 10.0) and done < total:
            return
        self.last = now
        since, before = self.first
        left = f"  {(now - since) / (done - before) * (total - done):.0f} s left" if done > before else ""
        note = f"{self.what} {done}/{total} {detail}{left}" if done < total else f"{self.what} {done}/{total}"
        if terminal:
            stderr.print(f"{note:<78}", end="\r" if done < total else "\n", markup=False)
        elif done < total or now - self.started > 2:
            say(note)


REPORTER = Reporter(say, Counter)
"""Prints what a stage tells of its work on stderr."""
