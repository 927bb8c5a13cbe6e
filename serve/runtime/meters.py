"""Counters of a served model, shown beside Triton's own metrics.

Triton's metric calls each cost a message to the server, so counts are kept here and handed over now and then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

PUBLISH_SECONDS = 0.5
COUNTERS = {
    "xt_texts_total": "Texts (or rows of token ids) answered with a vector or a result",
    "xt_tokens_total": "Tokens that forward passes read, padding not counted",
    "xt_padded_tokens_total": "Tokens that forward passes read, padding included",
    "xt_micro_batches_total": "Forward passes",
    "xt_cache_hits_total": "Texts answered from the vector cache",
    "xt_cache_misses_total": "Texts that the vector cache did not hold",
    "xt_truncated_total": "Texts that were cut, as the request asked for",
    "xt_refused_total": "Requests refused, by reason: full, deadline, invalid, error",
    "xt_cancelled_total": "Requests whose client went away before the forward pass",
    "xt_seconds_total": "Seconds by stage: queue (summed over requests), tokenise, forward, post",
}
GAUGES = {
    "xt_waiting_requests": "Requests that wait for a forward pass",
    "xt_waiting_tokens": "Tokens that wait for a forward pass",
}
LABELS = {"xt_refused_total": ("reason", ("full", "deadline", "invalid", "error"))} | {
    "xt_seconds_total": ("stage", ("queue", "tokenise", "forward", "post"))
}


class Meters:
    """Counts by name and label; `publish` hands them to Triton."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], float] = {}
        self._published: dict[tuple[str, str], float] = {}
        self._families: list[Any] = []
        self._metrics: dict[tuple[str, str], Any] = {}
        self._gauges: dict[str, Callable[[], float]] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, name: str, value: float = 1, label: str = "") -> None:
        """Add to a counter of `COUNTERS`."""
        with self._lock:
            self._counts[name, label] = self._counts.get((name, label), 0) + value

    def get(self, name: str, label: str = "") -> float:
        """Return a counter's value."""
        with self._lock:
            return self._counts.get((name, label), 0)

    def start(self, pb_utils: Any, labels: Mapping[str, str], gauges: Mapping[str, Callable[[], float]]) -> None:
        """Register every metric with Triton, at zero, and hand the counts over every PUBLISH_SECONDS."""
        kinds = pb_utils.MetricFamily
        for names, kind in ((COUNTERS, kinds.COUNTER), (GAUGES, kinds.GAUGE)):
            for name, text in names.items():
                family = pb_utils.MetricFamily(name=name, description=text, kind=kind)
                self._families.append(family)  # a family that Python lets go of takes its metrics along
                key, values = LABELS.get(name, ("", ("",)))
                for value in values:
                    own = {**labels, key: value} if key else dict(labels)
                    self._metrics[name, value] = family.Metric(labels=own)
        self._gauges = dict(gauges)
        self._thread = threading.Thread(target=self._publish_on, name="xt-meters", daemon=True)
        self._thread.start()

    def publish(self) -> None:
        """Hand over what changed."""
        with self._lock:
            changed = {k: v for k, v in self._counts.items() if v != self._published.get(k, 0)}
        for key, value in changed.items():
            if key in self._metrics:
                self._metrics[key].increment(value - self._published.get(key, 0))
                self._published[key] = value
        for name, read in self._gauges.items():
            value = float(read())
            if self._published.get((name, ""), 0) != value:
                self._metrics[name, ""].set(value)
                self._published[name, ""] = value

    def _publish_on(self) -> None:
        while not self._stop.wait(PUBLISH_SECONDS):
            self.publish()

    def close(self) -> None:
        """Hand over the last counts and let Triton's metrics go."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self.publish()
        self._metrics.clear()
        self._families.clear()
