"""The settings of `xt bench`; its flags are these fields. Light to import."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from xt.core.errors import UsageError, XtError
from xt.core.settings import DataDir, Flag, Force, Seed, StartTimeout, Truncate
from xt.serve.options import Model, ServerAddress

if TYPE_CHECKING:
    from xt.bench.session import Settings

INPUTS = ("text", "ids", "packed")


@dataclass(frozen=True)
class Load:
    """The load that is put on a server, and how it is measured."""

    concurrency: Annotated[str | None, Flag("Closed loop: callers at once, each waiting for its answer.")] = None
    rate: Annotated[
        str | None,
        Flag("Open loop: requests a second at random times (Poisson); latency counts from when one was due."),
    ] = None
    batch: Annotated[
        str | None,
        Flag("Texts a request or, in process, a call. Default: 1 a request; in process all in one call."),
    ] = None
    input: Annotated[str, Flag("What requests hold: text, ids or packed.")] = "text"
    protocol: Annotated[str, Flag("http (the cheaper one for the client) or grpc.")] = "http"
    deadline_ms: Annotated[float | None, Flag("Deadline that every request carries, in ms.")] = None
    truncate: Truncate = False
    cached: Annotated[
        bool,
        Flag(
            "Let the server's vector cache answer texts that it has seen (rows with such answers say so). "
            "Default: every text is computed."
        ),
    ] = False
    http_port: Annotated[int | None, Flag("The server's HTTP port, where it is not found by itself.")] = None
    metrics_port: Annotated[int | None, Flag("The server's metrics port, where it is not found by itself.")] = None
    seconds: Annotated[float, Flag("How long each is measured, all turns together, warm-ups not counted.")] = 20.0
    rounds: Annotated[int, Flag("Turns that all are measured in, one after the other; the middle one is shown.")] = 3


@dataclass(frozen=True)
class Peers:
    """What is measured beside the server, on the same texts."""

    against: Annotated[
        str,
        Flag(
            "Peers on the same texts, comma-separated: sentence-transformers, sentence-transformers-bf16, "
            "sentence-transformers-onnx-int8, openvino, openvino-int8, infinity, infinity-torch; and gemm-limit: the "
            "tokens/s that this machine's int8 matrix products would allow."
        ),
    ] = ""
    peer_python: Annotated[tuple[str, ...], Flag("NAME=PATH: the Python that holds a peer. Repeatable.")] = ()
    checkpoint: Annotated[Path | None, Flag("Folder the peers load. Default: what the model was exported from.")] = None


@dataclass(frozen=True)
class BenchOptions:
    """All settings of one run of `xt bench`."""

    server: ServerAddress = field(default_factory=ServerAddress)
    repository: Annotated[Path | None, Flag("Start Triton on this repository, measure it, and stop it.")] = None
    encoder: Annotated[
        str | None,
        Flag("Measure this in process too: an exported model (REPO/NAME), or a checkpoint in PyTorch fp32."),
    ] = None
    model: Model = None
    load: Load = field(default_factory=Load)
    peers: Peers = field(default_factory=Peers)
    corpus: Annotated[
        str, Flag("Where the texts come from: django, tatoeba, sib200, a folder, or a file of lines.")
    ] = "django"
    texts: Annotated[int | None, Flag("Different texts to take. Default: all; a call of all takes 1,000 at most.")] = (
        None
    )
    data_dir: DataDir = None
    start_timeout: StartTimeout = 300.0
    seed: Seed = 0
    out: Annotated[Path | None, Flag("Folder to write bench.json and bench.svg to.")] = None
    force: Force = False

    def __post_init__(self) -> None:
        self.server.tls()  # what is wrong with it is reported first
        if self.server.url is not None and self.repository is not None:
            raise UsageError("give --url or --repository, not both")
        if self.server.url is None and self.repository is None and self.encoder is None and not self.peers.against:
            raise UsageError("give --url, --repository, --encoder or --against")
        numbers("--batch", self.load.batch, words=("all",))
        numbers("--concurrency", self.load.concurrency)
        numbers("--rate", self.load.rate)
        if self.load.input not in INPUTS:
            raise UsageError(f"--input expects text, ids or packed; found {self.load.input!r}")
        if self.load.seconds < 1:
            raise XtError(f"--seconds {self.load.seconds:g} is too short.", "Give at least 1.")

    def settings(self) -> Settings:
        """Return the settings of the measurement."""
        from xt.bench.session import Settings

        load = self.load
        batches = numbers("--batch", load.batch, words=("all",))
        callers = [int(c) for c in numbers("--concurrency", load.concurrency)]
        rates = [float(r) for r in numbers("--rate", load.rate)]
        return Settings(
            url=self.server.url,
            tls=self.server.tls(),
            repository=self.repository,
            encoder=self.encoder,
            model=self.model,
            checkpoint=self.peers.checkpoint,
            against=tuple(a.strip() for a in self.peers.against.split(",") if a.strip()),
            pythons=self.peers.peer_python,
            callers=tuple(callers or ([] if rates else [1, 8, 32])),
            rates=tuple(rates),
            batches=tuple(int(b) for b in batches if b != "all") or (1,),
            calls=tuple(None if b == "all" else int(b) for b in batches) or (None,),
            texts=self.texts,
            input=load.input,  # type: ignore[arg-type]
            protocol=load.protocol,
            truncate=load.truncate,
            cached=load.cached,
            deadline_ms=load.deadline_ms,
            http_port=load.http_port,
            metrics_port=load.metrics_port,
            seconds=load.seconds,
            rounds=load.rounds,
            seed=self.seed,
            start_seconds=self.start_timeout,
        )

    def inputs(self) -> list[Path]:
        """Return the files and folders that are read, which must not be replaced."""
        from xt.core.files.replacing import named_paths

        return named_paths(self.corpus, self.repository, self.encoder, self.peers.checkpoint, self.data_dir)


def numbers(option: str, value: str | None, *, words: tuple[str, ...] = ()) -> list[str]:
    """Split a list of positive numbers such as 1,8,64, and of `words`; wrong usage (exit 2) for anything else.

    >>> numbers("--batch", "1, 8,all", words=("all",)), numbers("--rate", None)
    (['1', '8', 'all'], [])
    """
    if value is None:
        return []
    cells = [c.strip() for c in value.split(",") if c.strip()]
    for cell in cells or [""]:
        whole, _, rest = cell.partition(".")
        digits = whole.isdigit() and (not rest or (option == "--rate" and rest.isdigit()))
        if cell not in words and not (digits and float(cell) > 0):
            also = f" or {' or '.join(words)}" if words else ""
            raise UsageError(f"{option} expects numbers such as 1,8,64{also}; found {value!r}")
    return cells
