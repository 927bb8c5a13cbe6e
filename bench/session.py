"""One run of `xt bench`: everything that is compared is started, measured in interleaved turns, and stopped."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.bench import measure as bench
from xt.bench import peers as bench_peers
from xt.bench.known import KnownEncoder, config_of, engines, know, prepared_folder
from xt.bench.measure import Row
from xt.bench.options import BenchOptions
from xt.bench.plot import plot
from xt.core.arguments import as_list
from xt.core.data.bitext import data_folder
from xt.core.data.corpus import load_corpus
from xt.core.encoder.text import TextTokenizer
from xt.core.errors import XtError
from xt.core.files.artifact import (
    new_artifact,
    refuse_existing,
    write_json,
)
from xt.core.machine.facts import machine_facts
from xt.serve.client.address import Tls
from xt.serve.triton.launcher import TritonServer
from xt.serve.triton.starting import START_SECONDS, check_limit

CALL_TEXTS = 1000
"""What a call of `all` takes at most, unless more texts are requested."""
GEMM_SECONDS = 0.5
Report = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """The settings of one run."""

    url: str | None = None
    """HOST:PORT of the gRPC endpoint of a running server."""
    tls: Tls | None = None
    """The files of an encrypted connection to it; its HTTP is never encrypted."""
    repository: Path | None = None
    """Start Triton on this repository and stop it in the end."""
    encoder: str | None = None
    """In process: an exported model folder, or a checkpoint (PyTorch fp32)."""
    model: str | None = None
    checkpoint: Path | None = None
    """What the peers load; None: what the model was exported from."""
    against: tuple[str, ...] = ()
    pythons: tuple[str, ...] = ()
    """NAME=PATH: the interpreter that holds a peer."""
    callers: tuple[int, ...] = (1, 8, 32)
    rates: tuple[float, ...] = ()
    batches: tuple[int, ...] = (1,)
    """Texts a request."""
    calls: tuple[int | None, ...] = (None,)
    """Texts a call, in process; None: all."""
    texts: int | None = None
    """Different texts that are taken of the corpus; None: all."""
    input: bench.Input = "text"
    protocol: str = "http"
    truncate: bool = False
    cached: bool = False
    """Let the server's vector cache answer texts that it has seen; rows with such answers say so."""
    deadline_ms: float | None = None
    http_port: int | None = None
    metrics_port: int | None = None
    seconds: float = 20.0
    rounds: int = 3
    seed: int = 0
    start_seconds: float = START_SECONDS
    """How long Triton, or a peer's server, may take to start; 0: no limit."""

    def __post_init__(self) -> None:
        wrong = []
        check_limit(self.start_seconds)
        if self.url is not None and self.repository is not None:
            wrong.append("a url and a repository, not both")
        bench_peers.check_names(self.against)
        if self.url is None and self.repository is None and self.encoder is None and not self.against:
            wrong.append("nothing to measure")
        if self.seconds < 1:
            wrong.append(f"--seconds {self.seconds:g} is too short, at least 1 is needed")
        if self.rounds < 1:
            wrong.append(f"--rounds {self.rounds}, at least 1 is needed")
        if any(c < 1 for c in (*self.callers, *self.batches)) or any(not r > 0 for r in self.rates):
            wrong.append("callers, texts a request and rates above 0 are needed")
        if self.deadline_ms is not None and not self.deadline_ms > 0:
            wrong.append(f"--deadline-ms {self.deadline_ms:g}, above 0 is needed")
        if self.texts is not None and self.texts < 1:
            wrong.append(f"--texts {self.texts}, at least 1 is needed")
        if wrong:
            raise XtError(f"xt bench: {'; '.join(wrong)}.", "See `xt bench --help`.")

    def loads(self) -> list[bench.Load]:
        """Return the loads that a server is put under."""
        return bench.loads(self.callers, self.rates, self.batches)

    @property
    def parameters(self) -> dict[str, Any]:
        """What goes with every request."""
        found: dict[str, Any] = {"truncate": True} if self.truncate else {}
        return found | ({"timeout": round(self.deadline_ms * 1000)} if self.deadline_ms is not None else {})


@dataclass(frozen=True)
class Document:
    """The result of a run."""

    rows: list[Row]
    """The middle turn of each measurement."""
    turns: list[list[Row]]
    limit: dict[str, Any] | None
    """The int8 matrix product of this machine, where it was requested."""
    texts: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return it as bench.json keeps it."""
        return {
            "texts": self.texts,
            "limit": self.limit,
            "rows": [r.to_json() for r in self.rows],
            "turns": [[r.to_json() for r in turn] for turn in self.turns],
        }


@dataclass
class Session:
    """What the parts of one run share."""

    settings: Settings
    known: KnownEncoder | None
    texts: list[str]
    ids: list[npt.NDArray[np.int64]]
    """Token ids of the texts; empty where the tokenizer is not known."""
    pythons: dict[str, Path]
    """Peer -> the interpreter that holds it."""
    stack: ExitStack
    """Stops in the end what was started."""
    report: Report
    scratch: Path
    measurements: list[Callable[[float], Row]] = field(default_factory=list)
    """Each measures for so many seconds."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [len(row) for row in self.ids]

    def facts(self) -> dict[str, Any]:
        """Return what a report says of the texts."""
        found: dict[str, Any] = {"count": len(self.texts), "characters": sum(map(len, self.texts))}
        if lengths := self.lengths:
            found |= {"mean_tokens": float(np.mean(lengths)), "p95_tokens": float(np.quantile(lengths, 0.95))}
        return found


def run(options: BenchOptions, *, report: Report = lambda line: None) -> dict[str, Any]:
    """Measure what `xt bench` is asked, and return the report, which is written where a folder was named."""
    out, corpus, data_dir = options.out, options.corpus, options.data_dir
    if out is not None:
        refuse_existing(out, force=options.force, kind="bench", inputs=options.inputs())
    settings = options.settings()
    texts = bench.read_texts(corpus, data_folder(data_dir))
    if texts is None:
        texts = [t for pair in load_corpus(corpus, data_dir=data_dir).pairs for t in (*pair.foreign, *pair.english)]
    document = measure(settings, bench.mixed(texts, seed=options.seed), report)
    spent = {"seconds": settings.seconds, "rounds": settings.rounds}
    found = {"corpus": corpus, **spent, "machine": machine_facts(), **document.to_json()}
    if out is not None:
        write(out, found, f"xt bench, {corpus}", seed=options.seed, force=options.force)
    return found


def measure(settings: Settings, texts: Sequence[str], report: Report = lambda line: None) -> Document:
    """Start what is compared, measure it in interleaved turns, stop it."""
    known = know(settings)
    texts, ids = tokenized(settings, known, as_list(texts, "texts")[: settings.texts], report)
    pythons = bench_peers.pythons(settings.pythons)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xt-bench-")))
        session = Session(settings, known, texts, ids, pythons, stack, report, scratch)
        serve(session)
        stand_beside(session)
        count = len(session.measurements)
        report(f"measuring {count} settings, {settings.seconds:g} s each in {settings.rounds} turns")
        turns, limit = take_turns(session)
    rows = [bench.middle([turn[i] for turn in turns]) for i in range(count)]
    return Document(rows, turns, limit, session.facts())


def tokenized(
    settings: Settings, known: KnownEncoder | None, texts: list[str], report: Report
) -> tuple[list[str], list[npt.NDArray[np.int64]]]:
    """Return the texts that differ in their tokens, and these; all, and none, where the tokenizer is not known."""
    if known is not None:
        tokenizer = TextTokenizer(known.tokenizer, known.spec.max_length)
        ids, _ = tokenizer(texts, prefix=known.spec.prefix(None), truncate=True)
        return different(texts, ids, report)
    if settings.input == "ids" or settings.against:
        raise XtError(
            "The encoder's tokenizer is not known: a server does not hand it out.",
            "Name the exported model by --encoder REPO/NAME, or the checkpoint by --checkpoint.",
        )
    return texts, []


def serve(session: Session) -> None:
    """Add the measurements of a server, which is started where a repository is named."""
    settings = session.settings
    url, http_port, metrics_port = settings.url, settings.http_port, settings.metrics_port
    if settings.repository is not None:
        server = session.stack.enter_context(
            TritonServer(settings.repository, start_seconds=settings.start_seconds, report=session.report)
        )
        url, http_port, metrics_port = server.url, server.ports.http, server.ports.metrics
    if url is None:
        return
    options = bench.RequestOptions(
        protocol=settings.protocol,
        kind=settings.input,
        parameters=settings.parameters,
        cached=settings.cached,
        http_port=http_port,
        metrics_port=metrics_port,
        tls=settings.tls,
    )
    ids, seed = session.ids or None, settings.seed
    target = bench.triton_target(url, settings.model, session.texts, options, ids=ids, seed=seed)
    session.measurements += bench.measurements_of(target, settings.loads())


def stand_beside(session: Session) -> None:
    """Add the measurements of the encoder in process, and of the peers."""
    settings, known, texts, lengths = session.settings, session.known, session.texts, session.lengths
    checkpoint = known.checkpoint if known is not None else None
    prepared = session.scratch if checkpoint is None else prepared_folder(checkpoint)
    for name, job in engines(settings, known, prepared, session.pythons, session.report):
        assert known is not None
        python = session.pythons.get(name)
        if name in bench_peers.PEERS and bench_peers.PEERS[name].served:
            session.report(f"starting {name}")
            server_of_peer = bench_peers.Infinity(
                name,
                job,
                prepared,
                session.scratch,
                python=python,
                start_seconds=settings.start_seconds,
                report=session.report,
            )
            peer = session.stack.enter_context(server_of_peer)
            target = peer.target(texts, lengths, known.spec.prefix(None), known.name, settings.seed)
            session.measurements += bench.measurements_of(target, settings.loads())
            continue
        session.report(f"loading {name}")
        engine = session.stack.enter_context(
            bench_peers.InProcess(name, texts, lengths, session.scratch, model=known.name, python=python, job=job)
        )
        for call in settings.calls:
            session.measurements.append(partial(engine.measure, call or call_of(settings, texts)))


def take_turns(session: Session) -> tuple[list[list[Row]], dict[str, Any] | None]:
    """Measure everything in turns, and where asked for the int8 matrix products of this machine between them."""
    settings, products = session.settings, []
    config: dict[str, Any] = {}
    if bench_peers.GEMM in settings.against:
        assert session.known is not None
        config = config_of(session.known)
    turns: list[list[Row]] = []
    for _ in range(settings.rounds):
        turns += bench.turns(session.measurements, settings.seconds / settings.rounds, 1)
        if config:
            shapes = bench.gemm_shapes(config)
            products += bench_peers.gemm(shapes, GEMM_SECONDS, session.pythons.get(bench_peers.GEMM))
    if not config:
        return turns, None
    limit = bench_peers.gemm_limit(products, bench.flop_per_token(config, session.lengths))
    limit["products"] = products
    allowed = limit["tokens_per_second"]
    return [
        [r if r.cache_hits else replace(r, share_of_limit=r.tokens_per_second / allowed) for r in turn]
        for turn in turns
    ], limit


def different(
    texts: Sequence[str], ids: Sequence[npt.NDArray[np.int64]], report: Report
) -> tuple[list[str], list[npt.NDArray[np.int64]]]:
    """Leave out texts whose token ids are another's, since a request computes those once; they are counted."""
    first: dict[bytes, int] = {}
    for i, row in enumerate(ids):
        first.setdefault(row.tobytes(), i)
    if left := len(texts) - len(first):
        report(f"{left} text{'s' if left > 1 else ''} left out: the same tokens as another's")
    return [texts[i] for i in first.values()], [ids[i] for i in first.values()]


def call_of(settings: Settings, texts: Sequence[str]) -> int:
    """Return how many texts a call of `all` takes."""
    return len(texts) if settings.texts else min(len(texts), CALL_TEXTS)


def write(target: Path, document: dict[str, Any], title: str, *, seed: int = 0, force: bool = False) -> None:
    """Write bench.json and bench.svg as a folder of their own."""
    limit = document["limit"]["tokens_per_second"] if document.get("limit") else None
    with new_artifact(target, kind="bench", force=force) as draft:
        draft.seed = seed
        draft.facts = {"rows": len(document["rows"]), "corpus": document.get("corpus")}
        write_json(draft.path / "bench.json", document)
        (draft.path / "bench.svg").write_text(plot(document["rows"], title, limit), encoding="utf-8")
