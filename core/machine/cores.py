"""How many CPU cores this process may use, and threads that wait for work without taking a core from others.

Nothing here imports torch: the variables count only if they are set before the libraries that read them are loaded.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, MutableMapping
from pathlib import Path

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""How OpenMP's threads wait, GNU's and Intel's: asleep. By default they spin at the end of each matrix product, so that
a thread which another process keeps from its core makes all others burn theirs."""
_Reader = Callable[[Path], "float | None"]


def usable_cores(root: Path = Path("/")) -> int:
    """Return the number of cores this process may use: those it may run on, and no more than its CPU limit rounded up.

    The limit is that of its control group or of one above it: `cpu.max` (cgroup v2), or `cpu.cfs_quota_us` over
    `cpu.cfs_period_us` (v1). A limit of 1.5 cores gives 2.

    Args:
        root: where /proc and /sys are looked for.
    """
    limit = cpu_limit(root)
    return max(1, _affinity() if limit is None else min(_affinity(), math.ceil(limit - 1e-9)))


def cpu_limit(root: Path = Path("/")) -> float | None:
    """Return the CPU limit of this process's control group in cores, the tightest of all above it; None for none."""
    limits = [limit for folder, read in _groups(root) if (limit := read(folder)) is not None]
    return min(limits, default=None)


def prepare_threads(environment: MutableMapping[str, str] | None = None, root: Path = Path("/")) -> None:
    """Set the variables by which numerical libraries choose their threads, as far as the user has not set them.

    Threads wait asleep (`WAITING`). Where a CPU limit leaves fewer cores than the process may run on, OMP_NUM_THREADS
    is their number: OpenMP knows of no limit, and threads beyond it are stopped for most of each period.

    Args:
        environment: what is changed; this process's own by default.
        root: see `usable_cores`.
    """
    environment = os.environ if environment is None else environment
    for name, value in WAITING.items():
        environment.setdefault(name, value)
    cores = usable_cores(root)
    if cores < _affinity():
        environment.setdefault("OMP_NUM_THREADS", str(cores))


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _groups(root: Path) -> list[tuple[Path, _Reader]]:
    """List the folders of this process's CPU control groups, with those above them, and how each is read.

    In a container the path in /proc/self/cgroup may be that of the host, which is not there: its top folder is then the
    container's own group.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    found: list[tuple[Path, _Reader]] = []
    mount = root / "sys/fs/cgroup"
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            tops, read = [mount, mount / "unified"], _v2
        elif "cpu" in controllers.split(","):
            tops, read = [mount / "cpu", mount / "cpu,cpuacct", mount / controllers], _v1
        else:
            continue
        parts = [part for part in path.split("/") if part and part != ".."]
        for top in dict.fromkeys(tops):
            found += [(top.joinpath(*parts[:depth]), read) for depth in range(len(parts) + 1)]
    return found


def _v2(folder: Path) -> float | None:
    words = _text(folder / "cpu.max").split()  # "150000 100000", or "max 100000"
    return _ratio(words[0], words[1] if len(words) > 1 else "100000") if words else None


def _v1(folder: Path) -> float | None:
    return _ratio(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    """Divide; None where there is no limit ("max", -1) or the files hold something else."""
    if not quota.isdecimal() or not period.isdecimal() or not int(period) or not int(quota):
        return None
    return int(quota) / int(period)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
