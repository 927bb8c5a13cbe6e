"""The server's live numbers: the difference between two readings of Triton's metrics, and latencies seen here."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

from xt.serve.client.metrics import add_up, fetch

METRICS_SECONDS = 5.0
"""How long Triton's page is waited for."""
WINDOW_SECONDS = 10.0
"""Rates are means over about this long."""
LEAST_SECONDS = 0.5
"""Readings are at least this far apart, however many ask."""
Reading = dict[str, float]


def parse(text: str) -> Reading:
    r"""Sum each metric of Prometheus text over its labels, except `stage`, which stays part of the name.

    >>> parse('a{model="x"} 1\na{model="y"} 2\nt{stage="queue"} 0.5')
    {'a': 3.0, 't:queue': 0.5}
    """
    return add_up(text, lambda name, labels: f"{name}:{labels['stage']}" if "stage" in labels else name)


def rates(before: Reading, after: Reading, seconds: float) -> dict[str, Any]:
    """Return what the page shows, from two readings `seconds` apart; None for what the server does not tell."""

    def grown(name: str) -> float | None:
        if name not in after:
            return None
        rise = after[name] - before.get(name, 0.0)
        return rise if rise >= 0 else after[name]  # the model was loaded anew and counts from zero

    def rate(name: str) -> float | None:
        rise = grown(name)
        return None if rise is None or seconds <= 0 else rise / seconds

    texts, tokens, padded = rate("xt_texts_total"), rate("xt_tokens_total"), rate("xt_padded_tokens_total")
    hits, misses = grown("xt_cache_hits_total"), grown("xt_cache_misses_total")
    looked = None if hits is None or misses is None else hits + misses
    requests, micros = grown("nv_inference_request_success"), grown("nv_inference_request_duration_us")
    stages = {n.partition(":")[2]: grown(n) for n in after if n.startswith("xt_seconds_total:")}
    return {
        "sentences_per_second": rate("nv_inference_count") if texts is None else texts,
        "cached_per_second": rate("xt_cache_hits_total"),
        "tokens_per_second": tokens,
        "requests_per_second": rate("nv_inference_request_success"),
        "refused_per_second": rate("xt_refused_total"),
        "mean_request_ms": micros / requests / 1e3 if requests and micros is not None else None,
        "waiting": after.get("xt_waiting_requests", after.get("nv_inference_pending_request_count")),
        "cache_hit_rate": hits / looked if looked and hits is not None else None,
        "padding_ratio": 1 - tokens / padded if padded and tokens is not None else None,
        "stage_seconds": stages or None,
    }


class Stats:
    """Readings of Triton's metrics, taken when someone asks, and the latencies of the gateway's own requests."""

    def __init__(self, metrics_url: str | None) -> None:
        self.metrics_url = metrics_url
        self.started = time.time()
        self._readings: deque[tuple[float, Reading]] = deque(maxlen=64)
        self._latencies: deque[tuple[float, float]] = deque(maxlen=1024)
        self._lock = asyncio.Lock()

    def took(self, seconds: float) -> None:
        """Note the latency of a request that was answered."""
        self._latencies.append((time.monotonic(), seconds))

    async def text(self) -> str:
        """Return Triton's metrics as they are; OSError when they cannot be had."""
        if self.metrics_url is None:
            raise OSError("no address of Triton's metrics was given")
        return await asyncio.to_thread(fetch, self.metrics_url, METRICS_SECONDS)

    async def now(self) -> dict[str, Any]:
        """Return the rates of the last seconds."""
        problem = None
        async with self._lock:
            now = time.monotonic()
            if not self._readings or now - self._readings[-1][0] >= LEAST_SECONDS:
                try:
                    self._readings.append((time.monotonic(), parse(await self.text())))
                except OSError as error:
                    problem = f"Triton's metrics cannot be read: {error}"
                while len(self._readings) > 2 and now - self._readings[1][0] > WINDOW_SECONDS:
                    self._readings.popleft()
            first, last = (self._readings[0], self._readings[-1]) if self._readings else ((0.0, {}), (0.0, {}))
        recent = sorted(s for at, s in self._latencies if time.monotonic() - at < 60)
        return {
            "seconds": last[0] - first[0],
            **rates(first[1], last[1], last[0] - first[0]),
            "gateway_requests": len(recent),
            "p50_ms": recent[len(recent) // 2] * 1e3 if recent else None,
            "uptime_seconds": time.time() - self.started,
            "problem": problem,
        }
