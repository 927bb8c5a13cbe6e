"""Load and latency: a served model under closed and open loops, and the same texts in process."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from xt.bench import http
from xt.bench.endpoints import find_endpoints
from xt.bench.load import Endpoint, Seen, TextPool, closed_loop, open_loop, poisson, run
from xt.bench.machine import Meter
from xt.core.arguments import as_list
from xt.core.characters import compose, is_empty
from xt.core.data.bitext import Bitext
from xt.core.data.readers import rows
from xt.core.encoder.text import Encoded
from xt.core.errors import XtError, unknown
from xt.serve.client.address import Tls
from xt.serve.client.encoder import TritonEncoder
from xt.serve.client.prepared import Ids, Input, Requests, Rows

WARM_UP_SECONDS = 1.0
PROTOCOLS = ("http", "grpc")


class Encoder(Protocol):
    """Anything that encodes texts in process."""

    def encode(self, texts: Sequence[str]) -> Encoded:
        """See `xt.core.encoder.text.TextEncoder.encode`."""
        ...


def mixed(texts: Sequence[str], count: int | None = None, seed: int = 0) -> list[str]:
    """Return each different text once, in a fixed mixed order; at most `count` of them."""
    some = sorted(set(as_list(texts, "texts")))
    random.Random(seed).shuffle(some)
    return some[:count]


def mixed_texts(corpus: Sequence[Bitext], count: int | None = 2000) -> list[str]:
    """Return the sentences of all languages of a corpus, in a fixed mixed order, each once."""
    return mixed([t for b in corpus for t in (*b.foreign, *b.english)], count)


def read_texts(corpus: str, folder: Path | None) -> list[str] | None:
    """Read `sib200` (the test sentences of all its languages) below `folder`, or a file of one text a line.

    None when `corpus` is neither: a corpus of sentence pairs.
    """
    if corpus == "sib200":
        files = sorted(folder.glob("sib200/*/test.tsv")) if folder is not None else []
        if not files:
            raise XtError(
                f"There is no sib200 in {folder or 'any folder: none was named'}.",
                "Name the folder of data sets that holds sib200/<language>/test.tsv by --data-dir or XT_DATA.",
            )
        return [text for file in files for text in _texts(file, rows.quoted(file, "\t"))]
    path = Path(corpus).expanduser()
    if path.is_file():
        texts = _texts(path, rows.read(path) if rows.is_readable(path) else rows.plain(path))
        if not texts:
            raise XtError(f"{path} holds no text.", "Give a file of one text a line, or of rows with a text.")
        return texts
    return None


def _texts(file: Path, found: rows.Rows) -> list[str]:
    """List the texts of rows; XtError for a row that cannot be read or has none."""
    texts = []
    for number, row in found:
        text = row if isinstance(row, str) else row.get("text")
        if isinstance(row, str) or not isinstance(text, str):
            what = row if isinstance(row, str) else f"has the columns {', '.join(row)}; a column text is needed."
            raise XtError(f"{file}, line {number}: {what}", "Give a file of one text a line, or of rows with a text.")
        if not is_empty(text):
            texts.append(compose(text.strip()))  # composed, so that peers read the same
    return texts


@dataclass(frozen=True)
class Load:
    """One way to put load on a server: so many callers, or so many requests a second whatever the answers do."""

    callers: int = 1
    """Closed loop: callers at once, each waiting for its answer. Open loop (`rate`): not used."""
    batch: int = 1
    """Texts a request."""
    rate: float | None = None
    """Open loop: arrivals a second, Poisson."""

    def __post_init__(self) -> None:
        if self.callers < 1 or self.batch < 1 or not (self.rate is None or self.rate > 0):
            raise XtError(f"callers {self.callers}, batch {self.batch}, rate {self.rate}: above 0 needed of each.")


@dataclass(frozen=True)
class Row:
    """One measurement."""

    engine: str
    model: str
    concurrency: int
    """Callers at once, each waiting for its answer; open loop: 0; in process: sentences a call."""
    sentences_per_second: float
    tokens_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    requests: int
    """Answered ones, whose latencies these are."""
    client_cpu_share: float
    """CPU time of this process over wall time, in cores: what the callers cost (in process: the encoder itself)."""
    max_ms: float = 0.0
    mode: str = "closed"
    """`closed`, `open` or `in process`."""
    rate: float | None = None
    """Open loop: arrivals a second."""
    batch: int = 1
    """Texts a request or a call."""
    input: str = "text"
    protocol: str = ""
    seconds: float = 0.0
    """What was measured, warm-up not counted."""
    refused: int = 0
    refused_within_50_ms: float | None = None
    """Share of the refusals, from when the request was due; None without refusals."""
    errors: int = 0
    first_error: str = ""
    truncated: int = 0
    repeated: float = 0.0
    """Share of the texts that this server had been sent before in the same run."""
    cache: str = ""
    """Of an xt server: `off`, every text of these requests was computed, or `on`, its vector cache could answer."""
    lag_p99_ms: float | None = None
    """Open loop: how late this client sent, at worst but for one in a hundred; it is part of the latencies."""
    client_us_per_request: float | None = None
    client_cpu_seconds: float | None = None
    server_cpu_seconds: float | None = None
    """Of the server's processes; None when they are not of this machine."""
    mean_micro_batch: float | None = None
    """Texts of one forward pass, by the server's metrics."""
    padding_ratio: float | None = None
    """Tokens read over tokens read with padding: 1 is none."""
    cache_hits: int | None = None
    """Texts that the server answered from its vector cache meanwhile: not the encoder's speed (see `from_cache`)."""
    cached_share: float | None = None
    """Those over all texts that it answered."""
    gpu_use_percent: float | None = None
    gpu_joules: float | None = None
    cpu_joules: float | None = None
    """Of the CPU packages, all programs together; None where the machine does not let it be read."""
    share_of_limit: float | None = None
    """tokens/s over what the machine's fastest int8 matrix product would allow."""
    counters: Mapping[str, float] = field(default_factory=dict)
    """By how much the server's own counters rose."""

    def to_json(self) -> dict[str, Any]:
        """Return it as metrics.json keeps it."""
        return asdict(self)


def _row(
    engine: str,
    model: str,
    concurrency: int,
    latencies: Sequence[float],
    sentences: int,
    tokens: int,
    wall: float,
    cpu: float,
) -> Row:
    if not latencies:
        raise XtError(f"No request of {concurrency} callers ended in time.", "Give --seconds more.")
    p50, p95, p99, most = (float(x) * 1000 for x in np.quantile(latencies, [0.5, 0.95, 0.99, 1.0]))
    row = Row(engine, model, concurrency, sentences / wall, tokens / wall, p50, p95, p99, len(latencies), cpu / wall)
    return replace(row, max_ms=most, seconds=wall)


@dataclass
class Target:
    """A server to be measured, and what is known of it."""

    engine: str
    model: str
    endpoint: Endpoint
    pool: TextPool
    input: str = "text"
    protocol: str = "http"
    pids: Sequence[int] = ()
    """Its processes, where they are of this machine; their children are found."""
    metrics_url: str | None = None
    seed: int = 0
    cache: str = ""
    """What `Row.cache` is to say."""

    def measure(self, load: Load, seconds: float, *, warm_up: float = WARM_UP_SECONDS) -> Row:
        """Put one load on it. Requests that fail are counted; XtError when none was answered."""
        meter = Meter(self.pids, self.metrics_url)
        requests = self.pool.requests(self.endpoint, load.batch)
        before = self.pool.sampled
        costs: list[dict[str, Any]] = []
        if load.rate is None:
            seen = run(
                lambda: closed_loop(
                    self.endpoint,
                    requests,
                    callers=load.callers,
                    seconds=seconds,
                    warm_up=warm_up,
                    at_start=meter.start,
                    at_end=lambda: costs.append(meter.stop()),
                )
            )
        else:
            arrivals = poisson(load.rate, seconds + warm_up, self.seed)
            self.seed += 1  # another turn is another draw
            seen = run(
                lambda: open_loop(
                    self.endpoint, requests, arrivals=arrivals, seconds=seconds, warm_up=warm_up, at_start=meter.start
                )
            )
        return self._row(load, seen, costs[0] if costs else meter.stop(), before)

    def _row(self, load: Load, seen: Seen, cost: dict[str, Any], before: int) -> Row:
        p50, p95, p99, most = seen.quantiles()
        sent = self.pool.sampled - before
        answers = len(seen.latencies) + len(seen.refusals) + seen.errors
        return Row(
            engine=self.engine,
            model=self.model,
            concurrency=load.callers if load.rate is None else 0,
            sentences_per_second=seen.sentences / seen.wall,
            tokens_per_second=seen.tokens / seen.wall,
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
            max_ms=most,
            requests=len(seen.latencies),
            client_cpu_share=cost["client_cpu_seconds"] / seen.wall,
            mode="closed" if load.rate is None else "open",
            rate=load.rate,
            batch=load.batch,
            input=self.input,
            protocol=self.protocol,
            seconds=seen.wall,
            refused=len(seen.refusals),
            refused_within_50_ms=seen.refused_in_time(),
            errors=seen.errors,
            first_error=seen.first_error,
            truncated=seen.truncated,
            repeated=max(0, self.pool.sampled - max(self.pool.count, before)) / max(1, sent),
            cache=self.cache,
            lag_p99_ms=float(np.quantile(seen.lags, 0.99)) * 1000 if seen.lags else None,
            client_us_per_request=cost["client_cpu_seconds"] / answers * 1e6,
            **batching(cost["counters"]),
            **cost,
        )


def batching(counters: Mapping[str, float]) -> dict[str, Any]:
    """Read the mean micro-batch, the padding ratio and the cache hits off the rise of a server's counters.

    >>> batching({"xt_texts_total": 90, "xt_cache_hits_total": 10, "xt_micro_batches_total": 20,
    ...           "xt_tokens_total": 300, "xt_padded_tokens_total": 400})
    {'mean_micro_batch': 4.0, 'padding_ratio': 0.75, 'cache_hits': 10, 'cached_share': 0.1111111111111111}
    """
    if not counters.get("xt_texts_total"):
        return dict.fromkeys(("mean_micro_batch", "padding_ratio", "cache_hits", "cached_share"))
    hits = counters.get("xt_cache_hits_total", 0)
    passes, padded = counters.get("xt_micro_batches_total", 0), counters.get("xt_padded_tokens_total", 0)
    return {
        "mean_micro_batch": (counters["xt_texts_total"] - hits) / passes if passes else None,
        "padding_ratio": counters.get("xt_tokens_total", 0) / padded if padded else None,
        "cache_hits": int(hits),
        "cached_share": min(1.0, hits / counters["xt_texts_total"]),
    }


@dataclass(frozen=True)
class RequestOptions:
    """How a served encoder is asked."""

    protocol: str = "http"
    kind: Input = "text"
    """What requests hold."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What goes with every request."""
    cached: bool = False
    """Let the server's vector cache answer texts that it has seen; else every text is computed."""
    http_port: int | None = None
    """Of the server; None: it is looked for."""
    metrics_port: int | None = None
    """Of the server; None: it is looked for."""
    tls: Tls | None = None
    """The files of an encrypted connection; None: not encrypted."""


def triton_target(
    url: str,
    model: str | None,
    texts: Sequence[str],
    options: RequestOptions = RequestOptions(),
    *,
    ids: Ids | None = None,
    seed: int = 0,
) -> Target:
    """Prepare to measure an encoder that Triton serves at `url` (HOST:PORT of gRPC).

    Every text is computed, also one that the server has answered before (request parameter `cache`), unless
    `options.cached`.
    """
    protocol = options.protocol
    if protocol not in PROTOCOLS:
        raise unknown("protocol", protocol, PROTOCOLS)
    texts = as_list(texts, "texts")
    known = TritonEncoder(url, model, tls=options.tls)
    facts, name = known.facts, known.model
    known.close()
    endpoints = find_endpoints(url, http_port=options.http_port, metrics_port=options.metrics_port)
    parameters = {**options.parameters, **({} if options.cached else {"cache": False})}
    requests = Requests(name, Rows(options.kind, texts, ids), parameters)
    endpoint: Endpoint
    if protocol == "grpc":
        endpoint = http.TritonGrpc(url, requests, tls=options.tls)
    elif endpoints.http is None:
        raise XtError(
            f"The HTTP port of the server at {url} was not found.", "Name it by --http-port, or use --protocol grpc."
        )
    else:
        endpoint = http.TritonHttp(endpoints.http, requests)
    return Target(
        engine=f"triton {facts['precision']}",
        model=name,
        endpoint=endpoint,
        pool=TextPool(len(texts)),
        input=options.kind,
        protocol=protocol,
        pids=endpoints.pids,
        metrics_url=endpoints.metrics_url,
        seed=seed,
        cache="on" if options.cached else "off",
    )


def served(url: str, model: str | None, texts: Sequence[str], concurrency: int, seconds: float) -> Row:
    """Measure a server under `concurrency` callers for `seconds`, after a warm-up that is not counted.

    A request that is under way at the end counts, and so does the time until its answer. A request that fails is an
    XtError, unless the server was full. No text is answered from the server's vector cache.
    """
    target = triton_target(url, model, texts)
    row = target.measure(Load(callers=concurrency), seconds)
    if row.errors:
        raise XtError(f"{row.errors} requests failed: {row.first_error}")
    return row


def in_process(encoder: Encoder, texts: Sequence[str], engine: str, model: str, batch: int, seconds: float) -> Row:
    """Measure `encode` in this process, `batch` sentences a call, for `seconds`."""
    texts = as_list(texts, "texts")
    encoder.encode(texts[:batch])
    latencies: list[float] = []
    tokens, position = 0, 0
    cpu, start = time.process_time(), time.perf_counter()
    while (sent := time.perf_counter()) < start + seconds:
        some = [texts[(position + i) % len(texts)] for i in range(batch)]
        position += batch
        tokens += int(encoder.encode(some).tokens.sum())
        latencies.append(time.perf_counter() - sent)
    wall = time.perf_counter() - start
    cpu = time.process_time() - cpu
    return replace(_row(engine, model, batch, latencies, position, tokens, wall, cpu), mode="in process", batch=batch)


def turns(measurements: Sequence[Callable[[float], Row]], seconds: float, rounds: int = 3) -> list[list[Row]]:
    """Run every measurement in `rounds` turns, one after the other, so that drift hits all: turn -> rows."""
    return [[measure(seconds / rounds) for measure in measurements] for _ in range(rounds)]


def middle(rows: Sequence[Row]) -> Row:
    """Return the turn of median throughput; of an open loop, whose throughput is given, the one of median p99."""
    return sorted(rows, key=lambda r: r.p99_ms if r.mode == "open" else r.sentences_per_second)[len(rows) // 2]


def interleaved(measurements: Sequence[Callable[[float], Row]], seconds: float, rounds: int = 3) -> list[Row]:
    """Run every measurement in `rounds` turns and give each one's middle turn."""
    every = turns(measurements, seconds, rounds)
    return [middle([turn[i] for turn in every]) for i in range(len(measurements))]


def loads(callers: Sequence[int], rates: Sequence[float], batches: Sequence[int]) -> list[Load]:
    """Return every requested load: each number of callers and each rate with each number of texts a request."""
    closed = [Load(callers=c, batch=b) for b in batches for c in callers]
    return closed + [Load(batch=b, rate=r) for b in batches for r in rates]


def measurements_of(target: Target, wanted: Sequence[Load]) -> list[Callable[[float], Row]]:
    """Return one measurement for each load."""
    return [partial(target.measure, load) for load in wanted]


def flop_per_token(config: Mapping[str, Any], lengths: Sequence[int]) -> float:
    """Return the operations of the matrix products of one token.

    Projections, feed-forward, and attention over its own text.

    2 L (4 h^2 + 2 h i) for the weights, and 4 L h l for the scores and their sum in a text of l tokens; l averaged
    over tokens, as each token of a long text looks at all of it.

    >>> flop_per_token({"num_hidden_layers": 1, "hidden_size": 2, "intermediate_size": 3}, [5, 5])
    96.0
    """
    layers, hidden, wide = (int(config[k]) for k in ("num_hidden_layers", "hidden_size", "intermediate_size"))
    rows = np.asarray(lengths, float)
    seen = float((rows * rows).sum() / rows.sum())
    return layers * (2 * (4 * hidden * hidden + 2 * hidden * wide) + 4 * hidden * seen)


def gemm_shapes(config: Mapping[str, Any], tokens: int = 1024) -> list[tuple[int, int, int]]:
    """Return the encoder's own products, (M, K, N), for a micro-batch of so many tokens.

    >>> gemm_shapes({"hidden_size": 2, "intermediate_size": 3}, tokens=4)
    [(4, 2, 2), (4, 2, 6), (4, 2, 3), (4, 3, 2)]
    """
    hidden, wide = int(config["hidden_size"]), int(config["intermediate_size"])
    return [(tokens, hidden, hidden), (tokens, hidden, 3 * hidden), (tokens, hidden, wide), (tokens, wide, hidden)]
