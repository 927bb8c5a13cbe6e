"""Callers of `xt.serve.Client` over every kind of death and restart of a server: which calls are lost.

    python -m tests.serve.restarts REPOSITORY --calls 1400

Eight callers, half of them asyncio's, send single texts while, one after the other: the model's process is killed, the
server is killed (`--restart`), the launcher is killed and started again by hand on the same ports, and everything is
stopped for 20 s and started again. Each answer is compared with that of the same model in this process. Exit code 3
when a call was lost or an answer wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.serve.soak import sentences
from xt.core.encoder.onnx_engine import load_model
from xt.serve import AsyncClient, Client
from xt.serve.triton.addresses import free_ports

LAUNCHER = """
import signal, sys, time
from pathlib import Path
from xt.serve.triton.addresses import Ports
from xt.serve.triton.launcher import TritonServer
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ports = Ports(*map(int, sys.argv[2:5]))
with TritonServer(Path(sys.argv[1]), ports=ports, restart=True, report=lambda line: print(line, flush=True)) as server:
    print("ready", server.prefix, server._process.pid, flush=True)
    server.wait()
"""


class Launcher:
    """`xt serve --restart` in a process of its own, on ports that stay the same."""

    def __init__(self, repository: Path) -> None:
        """Start it and wait until it is ready."""
        self.repository, self.ports = repository, free_ports(3)
        self.url = f"127.0.0.1:{self.ports[1]}"
        self.start()

    def start(self) -> None:
        """Start it, also again."""
        command = [sys.executable, "-c", LAUNCHER, str(self.repository), *map(str, self.ports)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.prefix, self.server = self.line("ready").split()[1:]

    def line(self, start: str) -> str:
        """Wait for a line that begins so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(start):
                return line
        raise SystemExit(f"the launcher ended before it said {start!r}")

    def stop(self) -> None:
        """Stop it as Ctrl-C does."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


class Callers:
    """Threads of `Client` and one thread of `AsyncClient`s that call until told to stop."""

    def __init__(self, url: str, texts: list[str], reference: Any, *, callers: int, timeout: float) -> None:
        self.url, self.texts, self.reference, self.timeout = url, texts, reference, timeout
        self.calls, self.wrong, self.lost, self.slowest = 0, 0, list[str](), 0.0
        self._stop, self._lock = threading.Event(), threading.Lock()
        half = callers // 2
        self._threads = [threading.Thread(target=self._sync, args=(i,)) for i in range(callers - half)]
        self._threads.append(threading.Thread(target=lambda: asyncio.run(self._many(half))))
        for thread in self._threads:
            thread.start()

    def _note(self, began: float, row: int, found: Any, error: Exception | None) -> None:
        with self._lock:
            self.calls += 1
            self.slowest = max(self.slowest, time.monotonic() - began)
            if error is not None:
                self.lost.append(f"{type(error).__name__}: {error}")
            elif not np.allclose(found[0], self.reference[row], atol=2e-2):
                self.wrong += 1

    def _sync(self, caller: int) -> None:
        with Client(self.url, timeout_seconds=self.timeout) as client:
            for turn in self._turns(caller):
                began, found, failed = time.monotonic(), None, None
                try:
                    found = client.encode([self.texts[turn]])
                except Exception as error:  # counted and named, whatever it is
                    failed = error
                self._note(began, turn, found, failed)
                time.sleep(0.05)

    async def _many(self, count: int) -> None:
        await asyncio.gather(*(self._async(100 + i) for i in range(count)))

    async def _async(self, caller: int) -> None:
        async with AsyncClient(self.url, timeout_seconds=self.timeout) as client:
            for turn in self._turns(caller):
                began, found, failed = time.monotonic(), None, None
                try:
                    found = await client.encode([self.texts[turn]])
                except Exception as error:
                    failed = error
                self._note(began, turn, found, failed)
                await asyncio.sleep(0.05)

    def _turns(self, caller: int) -> Any:
        turn = caller * 7
        while not self._stop.is_set():
            yield turn % len(self.texts)
            turn += 1

    def more(self, calls: int, seconds: float = 120.0) -> None:
        """Wait for so many more calls."""
        target, end = self.calls + calls, time.monotonic() + seconds
        while self.calls < target:
            if time.monotonic() > end:
                raise SystemExit(f"only {self.calls} of {target} calls ended; lost: {self.lost[:3]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Let each end its call."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def kill_model(launcher: Launcher) -> None:
    """Kill the process of a model; the launcher starts the server anew."""
    from xt.serve.triton.processes import model_processes

    os.kill(model_processes(launcher.prefix)[0].pid, signal.SIGKILL)
    launcher.line("The server is ready again.")


def kill_server(launcher: Launcher) -> None:
    """Kill Triton; the launcher starts it anew."""
    from xt.serve.triton.processes import model_processes

    group = os.getpgid(model_processes(launcher.prefix)[0].pid)
    os.kill(group, signal.SIGKILL)
    launcher.line("The server is ready again.")


def kill_launcher(launcher: Launcher) -> None:
    """Kill the launcher, and with it the server; start it again by hand."""
    launcher.process.kill()
    launcher.process.wait()
    time.sleep(5)
    launcher.start()


def stop_for_a_while(launcher: Launcher) -> None:
    """Stop everything, start it again 20 s later."""
    launcher.stop()
    time.sleep(20)
    launcher.start()


def main(arguments: list[str] | None = None) -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("repository", type=Path)
    parser.add_argument("--calls", type=int, default=1400)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--timeout", type=float, default=60.0)
    options = parser.parse_args(arguments)
    texts = sentences(64)
    reference = load_model(options.repository / "encoder", threads=1)[0].encode(texts).vectors
    launcher = Launcher(options.repository)
    rows = []
    try:
        callers = Callers(launcher.url, texts, reference, callers=options.callers, timeout=options.timeout)
        part = options.calls // 5 + 1
        for fault in (kill_model, kill_server, kill_launcher, stop_for_a_while):
            callers.more(part)
            began, before = time.monotonic(), callers.calls
            callers.slowest = 0.0
            fault(launcher)
            seconds = time.monotonic() - began
            callers.more(options.callers * 2)
            rows.append(
                {
                    "fault": fault.__name__,
                    "seconds": round(seconds, 1),
                    "calls": callers.calls - before,
                    "slowest_call": round(callers.slowest, 1),
                    "lost": len(callers.lost),
                }
            )
            print(json.dumps(rows[-1]), flush=True)  # noqa: T201
        callers.more(part)
        callers.stop()
    finally:
        launcher.stop()
    total = {"calls": callers.calls, "lost": len(callers.lost), "wrong": callers.wrong}
    print(json.dumps(total), callers.lost[:5], flush=True)  # noqa: T201
    return 3 if callers.lost or callers.wrong or callers.calls < options.calls else 0


if __name__ == "__main__":
    sys.exit(main())
