"""Mixed load on a real server for a long time: every answer right, no memory gained.

    python -m tests.serve.soak REPOSITORY --minutes 30

Callers with single texts, with batches, with bad input and such that go away in the middle; every ten seconds the
resident memory of the server and its model processes. After the warm-up (a fifth of the time, at least 20 s) the slope
of a line through it must stay below --slope, in MiB an hour; exit code 3 when it does not, or when an answer was wrong.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

WORDS = "good morning world the cat sleeps today guten morgen welt habari za asubuhi bonjour tout le monde".split()


def sentences(count: int, longest: int = 12, seed: int = 0) -> list[str]:
    """Different texts of 2 to `longest` words."""
    random = np.random.default_rng(seed)
    return [f"word{i} " + " ".join(random.choice(WORDS, random.integers(1, longest))) for i in range(count)]


@dataclass
class Outcome:
    """One request: when it was sent and answered (time.monotonic), and how it ended."""

    sent: float
    ended: float
    error: str = ""
    """Status and message; empty when the right vectors came back."""


@dataclass
class Callers:
    """Threads that send requests one after the other until told to stop; every vector is compared with `reference`.

    With `patience` (seconds) a request that got no answer because the server was gone or full is sent again.
    """

    url: str
    texts: list[str]
    reference: np.ndarray[Any, Any]
    """(texts, dim)"""
    callers: int = 4
    size: int = 1
    """Texts a request."""
    patience: float = 0.0
    timeout: float = 20.0
    keep: bool = True
    """Keep every outcome; else count alone."""
    model: str = "encoder"
    or_else: np.ndarray[Any, Any] | None = None
    """Vectors that are as right, of another version; a request must be answered by one version throughout."""
    outcomes: list[Outcome] = field(default_factory=list)
    lost: list[Outcome] = field(default_factory=list)
    """What was not answered in the end."""
    answered: int = 0

    def __enter__(self) -> Callers:
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._call, args=(i,), daemon=True) for i in range(self.callers)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let every caller end its request and go."""
        self._stop.set()
        for thread in self._threads:
            thread.join(self.timeout + self.patience + 10)
            assert not thread.is_alive(), "a caller hangs"

    def until(self, more: int, seconds: float = 60.0) -> None:
        """Wait until `more` requests were answered."""
        target, deadline = self.answered + more, time.monotonic() + seconds
        while self.answered < target:
            assert time.monotonic() < deadline, f"only {self.answered} of {target} answered: {self.errors()}"
            time.sleep(0.01)

    def errors(self) -> Counter[str]:
        """How often each error came."""
        return Counter(o.error for o in [*self.outcomes, *self.lost] if o.error)

    def _call(self, caller: int) -> None:
        import tritonclient.grpc as grpc

        client, turn = grpc.InferenceServerClient(self.url), caller * 7
        while not self._stop.is_set():
            rows = [(turn * self.size + i) % len(self.texts) for i in range(self.size)]
            turn += 1
            give_up = time.monotonic() + self.patience
            while True:
                outcome = self._once(grpc, client, rows)
                with self._lock:
                    if self.keep or outcome.error:
                        self.outcomes.append(outcome)
                    self.answered += not outcome.error
                if not outcome.error:
                    break
                if time.monotonic() > give_up or not retryable(outcome.error):
                    self.lost.append(outcome)
                    time.sleep(0.02)
                    break
                time.sleep(0.1)
        client.close()

    def _once(self, grpc: Any, client: Any, rows: list[int]) -> Outcome:
        data = np.array([[self.texts[i].encode()] for i in rows], dtype=np.object_)
        tensor = grpc.InferInput("text", list(data.shape), "BYTES")
        tensor.set_data_from_numpy(data)
        sent = time.monotonic()
        try:
            answer = client.infer(self.model, [tensor], client_timeout=self.timeout)
            found = answer.as_numpy("embedding")
        except grpc.InferenceServerException as error:
            return Outcome(sent, time.monotonic(), f"{error.status()}: {error.message()}")
        known = [self.reference] if self.or_else is None else [self.reference, self.or_else]
        right = any(found.shape == k[rows].shape and np.allclose(found, k[rows], atol=2e-3) for k in known)
        return Outcome(sent, time.monotonic(), "" if right else "wrong vectors")


def retryable(error: str) -> bool:
    """Whether a request that ended so may be sent again: the server was full, gone, ending, or its model dead."""
    return any(said in error for said in ("UNAVAILABLE", "CANCELLED", "no available versions", "is not healthy"))


def resident_mib(pids: list[int]) -> float:
    """Resident memory of processes, in MiB; shared pages are counted once for each."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
    return sum(pages) * 4096 / 2**20


def annoy(http_port: int, stop: threading.Event) -> None:
    """Send half requests and go away, and requests that are no good, until told to stop."""
    import http.client

    while not stop.wait(0.25):
        with socket.create_connection(("127.0.0.1", http_port)) as half:
            half.sendall(b"POST /v2/models/encoder/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{")
        connection = http.client.HTTPConnection("127.0.0.1", http_port, timeout=10)
        text = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["word " * 5000]}
        connection.request("POST", "/v2/models/encoder/infer", json.dumps({"inputs": [text]}))
        assert connection.getresponse().status == 400
        connection.close()


def main(arguments: list[str] | None = None) -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("repository", type=Path, help="what xt export wrote")
    parser.add_argument("--model", default="encoder")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--slope", type=float, default=20, help="MiB an hour that memory may grow by")
    options = parser.parse_args(arguments)
    from xt.core.encoder.onnx_engine import load_model
    from xt.serve.triton.launcher import TritonServer
    from xt.serve.triton.processes import model_processes

    texts = sentences(512)
    encoder, _ = load_model(options.repository / options.model, device="cpu", threads=1)
    reference = encoder.encode(texts).vectors
    seconds = options.minutes * 60
    warm = max(20.0, seconds / 5)
    stop = threading.Event()
    samples: list[tuple[float, float]] = []
    with TritonServer(options.repository, report=print) as server:
        loads = [
            Callers(server.url, texts, reference, callers=n, size=s, patience=10, keep=False, model=options.model)
            for n, s in ((6, 1), (1, 32), (1, 128))
        ]
        troubles = threading.Thread(target=annoy, args=(server.ports.http, stop), daemon=True)
        troubles.start()
        for load in loads:
            load.__enter__()
        begun = time.monotonic()
        while (now := time.monotonic() - begun) < seconds:
            time.sleep(min(10.0, seconds / 30))
            assert server._process is not None
            pids = [server._process.pid, *(p.pid for p in model_processes(server.prefix))]
            samples.append((now, resident_mib(pids)))
            sys.stdout.write(f"{now:7.0f} s  {samples[-1][1]:8.1f} MiB  {sum(x.answered for x in loads)} answered\n")
            sys.stdout.flush()
        annoyed = troubles.is_alive()  # it ends early when a bad request was not refused
        stop.set()
        for load in loads:
            load.stop()
        troubles.join(15)
        restarts = server.restarts
    late = np.array([s for s in samples if s[0] >= warm])
    slope = float(np.polyfit(late[:, 0] / 3600, late[:, 1], 1)[0]) if len(late) > 2 else float("nan")
    lost = [o.error for load in loads for o in load.lost]
    sys.stdout.write(f"{slope:.1f} MiB an hour; {len(lost)} requests lost; {restarts} restarts {lost[:3] or ''}\n")
    return 0 if slope <= options.slope and not lost and not restarts and annoyed else 3


if __name__ == "__main__":
    sys.exit(main())
