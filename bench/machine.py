"""What a measurement costs the machine: CPU seconds of processes, GPU use, energy, and a server's own metrics."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

from xt.serve.client.metrics import add_up, fetch

METRICS_SECONDS = 5.0
SETTLE_SECONDS = 0.7
"""How long after the end the metrics are read: a model hands its counts to the server every half second."""
KEPT_LABELS = ("reason", "stage")
"""Labels that stay part of a counter's name; over all others samples are added up."""


def listeners(port: int) -> list[int]:
    """Return the processes that listen on a TCP port of this machine, as far as this user may see them."""
    sockets = psutil.net_connections("tcp")
    return sorted({s.pid for s in sockets if s.pid and s.status == psutil.CONN_LISTEN and s.laddr.port == port})


def listening_ports(pid: int) -> list[int]:
    """Return the TCP ports that a process listens on."""
    try:
        sockets = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return []
    return sorted({s.laddr.port for s in sockets if s.status == psutil.CONN_LISTEN})


def family(pids: Iterable[int]) -> list[int]:
    """Return these processes and all that descend from them."""
    found = set(pids)
    for pid in sorted(found):
        try:
            found.update(child.pid for child in psutil.Process(pid).children(recursive=True))
        except psutil.Error:
            continue
    return sorted(found)


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the user and system time of these processes, in seconds; those that are gone count nothing."""
    total = 0.0
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def read_metrics(url: str | None) -> dict[str, float]:
    """Return Prometheus samples of a page (see `parse_metrics`); empty when it cannot be read."""
    if url is None:
        return {}
    try:
        return parse_metrics(fetch(url, METRICS_SECONDS))
    except (OSError, ValueError):
        return {}


def parse_metrics(page: str) -> dict[str, float]:
    r"""Add up the samples of each name over their labels, stages and reasons apart.

    >>> parse_metrics('# HELP a b\na{model="x"} 1\na{model="y"} 2\nb 3\n')
    {'a': 3.0, 'b': 3.0}
    >>> parse_metrics('a{model="x",stage="post"} 1\n')
    {'a{stage="post"}': 1.0}
    """

    def name_of(name: str, labels: Mapping[str, str]) -> str:
        kept = next((f'{{{label}="{value}"}}' for label, value in labels.items() if label in KEPT_LABELS), "")
        return name + kept

    return add_up(page, name_of)


def _rapl() -> dict[str, tuple[int, int]] | None:
    """Return the energy counters of the CPU packages: domain -> (microjoules, the value at which they start again)."""
    found = {}
    for domain in Path("/sys/class/powercap").glob("intel-rapl:*"):
        if domain.name.count(":") != 1:  # deeper domains are parts of a package
            continue
        try:
            found[domain.name] = (
                int((domain / "energy_uj").read_text()),
                int((domain / "max_energy_range_uj").read_text()),
            )
        except (OSError, ValueError):
            continue
    return found or None


class Gpu:
    """Samples use and power of the GPUs while it runs, by nvidia-smi; without it, nothing."""

    def __init__(self) -> None:
        self.binary = shutil.which("nvidia-smi")
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Begin to sample, twice a second."""
        if self.binary is None:
            return
        query = ["--query-gpu=utilization.gpu,power.draw", "--format=csv,noheader,nounits", "--loop-ms=500"]
        try:
            self._process = subprocess.Popen(
                [self.binary, *query], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        except OSError:
            self._process = None

    def stop(self) -> tuple[float | None, float | None]:
        """Return the mean use in percent and the mean power in watts, each None where it was not readable."""
        process, self._process = self._process, None
        if process is None:
            return None, None
        process.terminate()
        return mean_samples(process.communicate()[0])


def mean_samples(lines: str) -> tuple[float | None, float | None]:
    r"""Return the means of the two columns that nvidia-smi printed; a column without numbers gives None.

    >>> mean_samples("50, 100.0\n100, [N/A]\n")
    (75.0, 100.0)
    """
    columns: tuple[list[float], list[float]] = ([], [])
    for line in lines.splitlines():
        for column, cell in zip(columns, line.split(","), strict=False):
            try:
                column.append(float(cell))
            except ValueError:
                continue
    use, power = (sum(c) / len(c) if c else None for c in columns)
    return use, power


class Meter:
    """Reads every counter at the start and at the end of a measurement; the differences are what it cost."""

    def __init__(self, pids: Iterable[int] = (), metrics_url: str | None = None) -> None:
        self.pids = list(pids)
        self.metrics_url = metrics_url
        self._gpu = Gpu()
        self._before: dict[str, float] = {}

    def start(self) -> None:
        """Read the counters; call it when the warm-up ends."""
        self._gpu.start()
        self._before = read_metrics(self.metrics_url)
        self._rapl = _rapl()
        self._family = family(self.pids)
        self._server = cpu_seconds(self._family)
        self._wall = time.perf_counter()
        self._own = time.process_time()

    def stop(self) -> dict[str, Any]:
        """Read them again: the fields of a `Row` that say what the measurement cost, None for what is not readable."""
        own = time.process_time() - self._own
        wall = time.perf_counter() - self._wall
        server = cpu_seconds(self._family) - self._server if self.pids else None
        use, watts = self._gpu.stop()
        joules = spent(self._rapl, _rapl())
        if self._before:
            time.sleep(SETTLE_SECONDS)
        after = read_metrics(self.metrics_url)
        deltas = {k: v - self._before.get(k, 0.0) for k, v in after.items() if k.startswith(("xt_", "nv_inference"))}
        return {
            "client_cpu_seconds": own,
            "server_cpu_seconds": server,
            "gpu_use_percent": use,
            "gpu_joules": None if watts is None else watts * wall,
            "cpu_joules": joules,
            "counters": {k: v for k, v in sorted(deltas.items()) if v},
        }


def spent(before: Mapping[str, tuple[int, int]] | None, after: Mapping[str, tuple[int, int]] | None) -> float | None:
    """Return the joules between two readings of the CPU packages' counters; a counter that started again is followed.

    >>> spent({"a": (90, 100)}, {"a": (10, 100)})
    2e-05
    """
    if not before or not after:
        return None
    total = 0
    for name, (value, limit) in after.items():
        if name in before:
            total += (value - before[name][0]) % limit if value < before[name][0] else value - before[name][0]
    return total / 1e6
