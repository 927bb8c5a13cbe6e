"""One run of `xt bench`: everything that is compared is started, measured in interleaved turns, and stopped."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.bench import measure as bench
from xt.bench import peers as bench_peers
from xt.bench.measure import Row
from xt.bench.plot import plot
from xt.core.arguments import as_list
from xt.core.encoder.resolve import resolve
from xt.core.encoder.spec import EncoderSpec
from xt.core.encoder.text import TextTokenizer
from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, new_artifact, open_artifact, read_json, read_manifest, write_json
from xt.core.files.cache_folder import cache_folder, explained
from xt.serve.client.address import Tls
from xt.serve.triton.launcher import TritonServer
from xt.serve.triton.starting import START_SECONDS, check_limit

CALL_TEXTS = 1000
"""What a call of `all` takes at most, unless more texts are asked for."""
GEMM_SECONDS = 0.5
Report = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What one run is asked to do."""

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

    @property
    def parameters(self) -> dict[str, Any]:
        """What goes with every request."""
        found: dict[str, Any] = {"truncate": True} if self.truncate else {}
        return found | ({"timeout": round(self.deadline_ms * 1000)} if self.deadline_ms is not None else {})


@dataclass(frozen=True)
class Known:
    """What is known of the encoder: how it counts tokens, and where its checkpoint lies."""

    name: str
    spec: EncoderSpec
    tokenizer: Path
    pad_id: int
    checkpoint: Path | None
    exported: Path | None
    """The exported model's folder."""


def know(settings: Settings) -> Known | None:
    """Find the tokenizer and the checkpoint that belong to what is measured; None when only a server is named."""
    exported = None
    if settings.encoder is not None and _kind(Path(settings.encoder)) == "model":
        exported = Path(settings.encoder)
    elif settings.encoder is None and settings.repository is not None:
        names = (
            [settings.model]
            if settings.model
            else sorted(p.parent.name for p in settings.repository.glob(f"*/{MANIFEST}"))
        )
        encoders = [n for n in names if "encoder" in read_manifest(settings.repository / n)["facts"]]
        exported = settings.repository / encoders[0] if len(encoders) == 1 else None
    if exported is not None:
        facts = open_artifact(exported, kind="model").facts
        source = Path(facts["checkpoint"]["path"])
        found = settings.checkpoint or (source if source.is_dir() else None)
        spec = EncoderSpec.from_json(facts["encoder"])
        return Known(spec.name, spec, exported / facts["tokenizer"], facts["pad_id"], found, exported)
    wanted = settings.encoder or (str(settings.checkpoint) if settings.checkpoint else None)
    if wanted is None:
        return None
    resolved = resolve(wanted)
    path = settings.checkpoint or resolved.path
    pad = read_json(resolved.path / "config.json").get("pad_token_id", 1)
    return Known(resolved.spec.name, resolved.spec, resolved.path / "tokenizer.json", pad, path, None)


def _kind(path: Path) -> str | None:
    return str(read_manifest(path)["kind"]) if (path / MANIFEST).is_file() else None


@dataclass(frozen=True)
class Document:
    """What a run gives."""

    rows: list[Row]
    """The middle turn of each measurement."""
    turns: list[list[Row]]
    limit: dict[str, Any] | None
    """The int8 matrix product of this machine, where it was asked for."""
    texts: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As bench.json keeps it."""
        return {
            "texts": self.texts,
            "limit": self.limit,
            "rows": [r.to_json() for r in self.rows],
            "turns": [[r.to_json() for r in turn] for turn in self.turns],
        }


def measure(settings: Settings, texts: Sequence[str], report: Report = lambda line: None) -> Document:
    """Start what is compared, measure it in interleaved turns, stop it."""
    texts = as_list(texts, "texts")[: settings.texts]
    known = know(settings)
    pythons = bench_peers.pythons(settings.pythons)
    ids: list[npt.NDArray[np.int64]] = []
    if known is not None:
        tokenizer = TextTokenizer(known.tokenizer, known.spec.max_length)
        ids, _ = tokenizer(texts, prefix=known.spec.prefix(None), truncate=True)
        texts, ids = different(texts, ids, report)
    elif settings.input == "ids" or settings.against:
        raise XtError(
            "The encoder's tokenizer is not known: a server does not hand it out.",
            "Name the exported model by --encoder REPO/NAME, or the checkpoint by --checkpoint.",
        )
    lengths = [len(row) for row in ids]
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xt-bench-")))
        prepared = prepared_folder(known.checkpoint) if known is not None and known.checkpoint is not None else scratch
        wanted = bench.loads(settings.callers, settings.rates, settings.batches)
        measurements: list[Callable[[float], Row]] = []
        url, http_port, metrics_port = settings.url, settings.http_port, settings.metrics_port
        if settings.repository is not None:
            server = stack.enter_context(
                TritonServer(settings.repository, start_seconds=settings.start_seconds, report=report)
            )
            url, http_port, metrics_port = server.url, server.ports.http, server.ports.metrics
        if url is not None:
            target = bench.triton_target(
                url,
                settings.model,
                texts,
                protocol=settings.protocol,
                kind=settings.input,
                ids=ids or None,
                parameters=settings.parameters,
                cached=settings.cached,
                http_port=http_port,
                metrics_port=metrics_port,
                seed=settings.seed,
                tls=settings.tls,
            )
            measurements += bench.measurements_of(target, wanted)
        for name, job in engines(settings, known, prepared, pythons, report):
            assert known is not None
            if name in bench_peers.PEERS and bench_peers.PEERS[name].served:
                report(f"starting {name}")
                server_of_peer = bench_peers.Infinity(
                    name,
                    job,
                    prepared,
                    scratch,
                    python=pythons.get(name),
                    start_seconds=settings.start_seconds,
                    report=report,
                )
                peer = stack.enter_context(server_of_peer)
                target = peer.target(texts, lengths, known.spec.prefix(None), known.name, settings.seed)
                measurements += bench.measurements_of(target, wanted)
                continue
            report(f"loading {name}")
            engine = stack.enter_context(
                bench_peers.InProcess(
                    name, texts, lengths, scratch, model=known.name, python=pythons.get(name), job=job
                )
            )
            for call in settings.calls:
                measurements.append(partial(engine.measure, call or call_of(settings, texts)))
        report(f"measuring {len(measurements)} settings, {settings.seconds:g} s each in {settings.rounds} turns")
        products: list[dict[str, Any]] = []
        config: dict[str, Any] = {}
        if bench_peers.GEMM in settings.against:
            assert known is not None
            config = config_of(known)
        every = []
        for _ in range(settings.rounds):
            every += bench.turns(measurements, settings.seconds / settings.rounds, 1)
            if config:
                shapes = bench.gemm_shapes(config)
                products += bench_peers.gemm(shapes, GEMM_SECONDS, pythons.get(bench_peers.GEMM))
    limit = None
    if config:
        limit = bench_peers.gemm_limit(products, bench.flop_per_token(config, lengths))
        limit["products"] = products
        allowed = limit["tokens_per_second"]
        every = [
            [r if r.cache_hits else replace(r, share_of_limit=r.tokens_per_second / allowed) for r in turn]
            for turn in every
        ]
    rows = [bench.middle([turn[i] for turn in every]) for i in range(len(measurements))]
    facts: dict[str, Any] = {"count": len(texts), "characters": sum(map(len, texts))}
    if lengths:
        facts |= {"mean_tokens": float(np.mean(lengths)), "p95_tokens": float(np.quantile(lengths, 0.95))}
    return Document(rows, every, limit, facts)


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


def prepared_folder(checkpoint: Path) -> Path:
    """Where the peers' files of a checkpoint are kept: they take a minute to make. Other weights, another folder."""
    files = [p for p in sorted(checkpoint.iterdir()) if p.is_file()]
    state = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    folder = cache_folder() / "peers" / hashlib.sha256(repr(state).encode()).hexdigest()[:16]
    with explained():
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def call_of(settings: Settings, texts: Sequence[str]) -> int:
    """How many texts a call of `all` takes."""
    return len(texts) if settings.texts else min(len(texts), CALL_TEXTS)


def engines(
    settings: Settings, known: Known | None, prepared: Path, pythons: dict[str, Path], report: Report
) -> list[tuple[str, Any]]:
    """List what is measured beside the server: an engine's name, and what it is to load (a server: its checkpoint)."""
    found: list[tuple[str, Any]] = []
    if settings.encoder is not None:
        assert known is not None
        if known.exported is not None:
            found.append(("xt", {"model": str(known.exported.resolve())}))
        else:
            found.append(("xt-torch", {"checkpoint": str(resolve(settings.encoder).path)}))
    peers = [name for name in settings.against if name != bench_peers.GEMM]
    if not peers:
        return found
    assert known is not None
    if known.checkpoint is None:
        raise XtError("The checkpoint that the peers are to load is not there.", "Name its folder by --checkpoint.")
    if {"sentence-transformers-onnx-int8", "openvino", "infinity"} & set(peers):
        report("exporting the checkpoint for the peers, by sentence-transformers' own ONNX export")
        bench_peers.prepare_onnx(known.checkpoint, prepared, pythons.get("sentence-transformers-onnx-int8"))
    job: dict[str, Any] = {
        "checkpoint": str(known.checkpoint),
        "cache": str(prepared),
        "prefix": known.spec.prefix(None),
        "max_length": known.spec.max_length,
        "pad_id": known.pad_id,
    }
    for name in peers:
        if bench_peers.PEERS[name].served:
            found.append((name, known.checkpoint))
        elif name == "openvino-int8":
            if known.exported is None:
                raise XtError("openvino-int8 runs the exported file.", "Name it by --encoder REPO/NAME.")
            facts = open_artifact(known.exported, kind="model").facts
            found.append((name, {**job, "graph": str((known.exported / facts["graph"]).resolve())}))
        else:
            found.append((name, job))
    return found


def config_of(known: Known) -> dict[str, Any]:
    """Read the sizes of the network from its checkpoint's config.json."""
    file = known.checkpoint / "config.json" if known.checkpoint is not None else None
    if file is None or not file.is_file():
        raise XtError(
            "The sizes of the network are not known: its checkpoint is not there.", "Name it by --checkpoint."
        )
    return dict(read_json(file))


def write(target: Path, document: dict[str, Any], title: str, *, seed: int = 0, force: bool = False) -> None:
    """Write bench.json and bench.svg as a folder of their own."""
    limit = document["limit"]["tokens_per_second"] if document.get("limit") else None
    with new_artifact(target, kind="bench", force=force) as draft:
        draft.seed = seed
        draft.facts = {"rows": len(document["rows"]), "corpus": document.get("corpus")}
        write_json(draft.path / "bench.json", document)
        (draft.path / "bench.svg").write_text(plot(document["rows"], title, limit), encoding="utf-8")
