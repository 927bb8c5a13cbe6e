"""Load and latency: a closed loop of concurrent callers, one sentence a request, and the same texts in process."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from xt.core.bitext import Bitext
from xt.core.errors import XtError
from xt.core.text import Encoded
from xt.core.triton_engine import TritonEncoder

WARM_UP_SECONDS = 1.0


class Encoder(Protocol):
    """Anything that encodes texts in process."""

    def encode(self, texts: Sequence[str]) -> Encoded:
        """See `xt.core.text.TextEncoder.encode`."""
        ...


def mixed_texts(corpus: Sequence[Bitext], count: int = 2000, seed: int = 0) -> list[str]:
    """Give sentences of all languages of a corpus, in a fixed mixed order, each once."""
    texts = sorted({t for b in corpus for t in (*b.foreign, *b.english)})
    random.Random(seed).shuffle(texts)
    return texts[:count]


@dataclass(frozen=True)
class Row:
    """One measurement."""

    engine: str
    model: str
    concurrency: int
    """Callers at once, each sending one sentence and waiting for its vector; in process: sentences a call."""
    sentences_per_second: float
    tokens_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    requests: int
    client_cpu_share: float
    """CPU time of this process over wall time, in cores: what the callers cost (in process: the encoder itself)."""

    def to_json(self) -> dict[str, Any]:
        """As metrics.json keeps it."""
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
    p50, p95, p99 = (float(x) * 1000 for x in np.quantile(latencies, [0.5, 0.95, 0.99]))
    return Row(engine, model, concurrency, sentences / wall, tokens / wall, p50, p95, p99, len(latencies), cpu / wall)


def served(url: str, model: str | None, texts: Sequence[str], concurrency: int, seconds: float) -> Row:
    """Measure a server under `concurrency` callers for `seconds`, after a warm-up that is not counted.

    A request that is under way at the end counts, and so does the time until its answer.
    """
    encoders = [TritonEncoder(url, model) for _ in range(concurrency)]
    start = time.perf_counter() + WARM_UP_SECONDS
    end = start + seconds
    latencies: list[list[float]] = [[] for _ in encoders]
    tokens = [0] * concurrency
    ended = [end] * concurrency
    errors: list[Exception] = []

    def call(caller: int) -> None:
        position = caller * len(texts) // concurrency
        try:
            while (sent := time.perf_counter()) < end:
                result = encoders[caller].infer([texts[position % len(texts)]])
                position += 1
                done = time.perf_counter()
                if sent >= start:
                    ended[caller] = done
                    latencies[caller].append(done - sent)
                    tokens[caller] += int(result.as_numpy("tokens")[0, 0])
        except XtError as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=(i,), daemon=True) for i in range(concurrency)]
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, start - time.perf_counter()))
    cpu = time.process_time()
    for thread in threads:
        thread.join()
    cpu = time.process_time() - cpu
    for encoder in encoders:
        encoder.close()
    if errors:
        raise errors[0]
    facts = encoders[0].facts
    every = [x for row in latencies for x in row]
    engine = f"triton {facts['precision']}"
    return _row(engine, encoders[0].model, concurrency, every, len(every), sum(tokens), max(ended) - start, cpu)


def in_process(encoder: Encoder, texts: Sequence[str], engine: str, model: str, batch: int, seconds: float) -> Row:
    """Measure `encode` in this process, `batch` sentences a call, for `seconds`."""
    encoder.encode(list(texts[:batch]))
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
    return _row(engine, model, batch, latencies, position, tokens, wall, cpu)


def interleaved(measurements: Sequence[Callable[[float], Row]], seconds: float, rounds: int = 3) -> list[Row]:
    """Run every measurement in `rounds` turns and give each one's turn of median throughput, so that drift hits all."""
    turns = [[measure(seconds / rounds) for measure in measurements] for _ in range(rounds)]
    return [
        sorted((turn[i] for turn in turns), key=lambda r: r.sentences_per_second)[rounds // 2]
        for i in range(len(measurements))
    ]
