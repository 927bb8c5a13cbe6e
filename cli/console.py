"""What the commands share: options, messages on stderr, one JSON document on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from xt.serve.client.connection import Tls

stderr = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 120)

Out = Annotated[Path, typer.Option("--out", help="Folder to write; it must be new or empty, unless --force.")]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="Run also code in the repository that no release of xt wrote: another model.py, files that no manifest "
        "lists. It runs with your rights.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace the target, if xt wrote it and it holds nothing else.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]
Device = Annotated[str, typer.Option("--device", help="Where PyTorch and ONNX Runtime compute: auto, cpu or cuda.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of data sets (tatoeba/ ...). Default: the environment variable XT_DATA."),
]
Languages = Annotated[
    str,
    typer.Option(
        "--languages",
        help="Comma-separated codes, or all, low-resource, mid-resource, high-resource, xtreme, xtreme-r.",
    ),
]
Url = Annotated[str | None, typer.Option("--url", help="HOST:PORT of a Triton server's gRPC endpoint.")]
TlsCa = Annotated[
    str | None,
    typer.Option(
        "--tls-ca",
        help="Encrypt the connection to --url: PEM certificates to trust, or the word system for the system's own.",
    ),
]
TlsCert = Annotated[
    Path | None, typer.Option("--tls-cert", help="PEM certificate to show to a server that asks callers for one.")
]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", help="PEM key of --tls-cert.")]
Model = Annotated[
    str | None, typer.Option("--model", help="Which model of the server or repository, when it holds several.")
]
Truncate = Annotated[
    bool, typer.Option("--truncate", help="Cut texts that are too long (counted) instead of stopping.")
]

StartTimeout = Annotated[
    float,
    typer.Option(
        "--start-timeout", min=0, help="Seconds a server may take until all its models are ready; 0: no limit."
    ),
]


def tls_of(url: str | None, ca: str | None, cert: Path | None, key: Path | None) -> Tls | None:
    """Return what --tls-ca, --tls-cert and --tls-key say of the connection to `url`; None: it is not encrypted.

    Raises a usage error for options that nothing would heed, and XtError for a file that is no PEM file.
    """
    if ca is None and cert is None and key is None:
        return None
    from xt.serve.client.connection import Tls

    if url is None:
        raise typer.BadParameter("--tls-ca, --tls-cert and --tls-key are of the connection to a server: give --url")
    if ca is None:
        raise typer.BadParameter("--tls-cert and --tls-key need --tls-ca: FILE, or the word system")
    if (cert is None) != (key is None):
        raise typer.BadParameter("--tls-cert and --tls-key belong together: give both")
    tls = Tls(ca=None if ca == "system" else Path(ca).expanduser(), key=key, certificate=cert)
    tls.options()  # a file that is not there is named before any work
    return tls


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
