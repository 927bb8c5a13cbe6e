"""A real `xt serve` to attack: its encoder, a calibrated retriever, its processes, and callers that count what they lose."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tests.attack.harness import Target, call

CALLER_SECONDS = 60.0
"""A call is lost when it has no right answer within this time."""
START_SECONDS = 400.0
TEXTS = [
    "guten morgen welt", "die katze schläft heute", "wir essen brot und käse", "das haus ist sehr groß",
    "good morning world", "the cat sleeps today", "we eat bread and cheese", "the house is very big",
    "bonjour tout le monde", "habari za asubuhi", "nyumba ni kubwa sana", "la maison est grande",
]  # fmt: skip


def xt(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command of xt to its end."""
    command = [sys.executable, "-m", "xt.cli.main", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done


def write_corpus(folder: Path) -> Path:
    """Write the sentences that the retriever finds; returns the file."""
    corpus = folder / "corpus.jsonl"
    documents = [*TEXTS, *[f"{text} {i}" for i, text in enumerate(TEXTS)]]
    rows = [json.dumps({"id": f"d{i}", "text": text}, ensure_ascii=False) + "\n" for i, text in enumerate(documents)]
    corpus.write_text("".join(rows), encoding="utf-8")
    return corpus


def copy_model(model: Path, repository: Path) -> None:
    """Copy an exported encoder into a new repository."""
    repository.mkdir(parents=True)
    shutil.copytree(model, repository / "encoder")


def prepare(model: Path, folder: Path) -> Path:
    """Make a repository with a copy of the exported encoder and a calibrated retriever; returns it."""
    repository = folder / "repository"
    copy_model(model, repository)
    encoder, report = repository / "encoder", folder / "report"
    xt("eval", "django", "--encoder", encoder, "--languages", "deu,fra,spa,rus,cmn", "--out", report)
    installed = ("--install", repository, "--calibration", report)
    xt("index", write_corpus(folder), "--encoder", encoder, "--out", folder / "index", *installed)
    return repository


@dataclass
class Stage:
    """A served repository. `start` it, break it, and look at it."""

    repository: Path
    folder: Path
    ports: dict[str, int]
    """http, grpc, metrics and gateway."""
    lines: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Run `xt serve` until it says that it is ready."""
        flags = [word for name, port in self.ports.items() for word in (f"--{name}-port", str(port))]
        command = [sys.executable, "-m", "xt.cli.main", "serve", str(self.repository), "--restart", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        ready = threading.Event()

        def read(stream: Any) -> None:
            for line in stream:
                self.lines.append(line.rstrip())
                if "Ctrl-C" in line:
                    ready.set()

        threading.Thread(target=read, args=(self.process.stderr,), daemon=True).start()
        if not ready.wait(START_SECONDS):
            raise RuntimeError("xt serve did not become ready:\n" + "\n".join(self.lines[-20:]))

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the launcher, and wait for everything that it started."""
        if self.process is None or self.process.poll() is not None:
            return
        below = self.below()
        self.process.send_signal(how)
        self.process.wait(120)
        _, left = psutil.wait_procs(below, timeout=60)
        if left:
            raise RuntimeError(f"{[p.cmdline()[:3] for p in left]} outlived the launcher")

    def below(self) -> list[psutil.Process]:
        """Return the processes that the launcher started, theirs included."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def triton(self) -> psutil.Process:
        """Return Triton's process."""
        return next(p for p in self.below() if p.name().startswith("tritonserver"))

    def models(self, name: str = "encoder") -> list[psutil.Process]:
        """Return the processes of a model."""
        return [p for p in self.below() if "python_backend_stub" in p.cmdline()[0] and f"/{name}/" in p.cmdline()[1]]

    def gateway(self) -> psutil.Process:
        """Return the gateway's process: a child of the launcher that is not Triton's."""
        assert self.process is not None
        triton = self.triton()
        others = [p for p in psutil.Process(self.process.pid).children() if p.pid != triton.pid]
        listening = [p for p in others if any(c.laddr.port == self.ports["gateway"] for c in p.net_connections("tcp"))]
        return (listening or others)[0]

    def until_ready(self, seconds: float = 120.0) -> None:
        """Wait until the gateway says that all models are ready."""
        end = time.monotonic() + seconds
        while (answer := call(self.ports["gateway"], "GET", "/ready", seconds=10)).status != 200:
            if time.monotonic() > end:
                raise RuntimeError(f"not ready again after {seconds:.0f} s: {answer.message[:300]}")
            time.sleep(0.2)


def target_of(stage: Stage) -> Target:
    """Look at what is served, and work out the right answers in this process."""
    from xt.core.encoder.onnx_engine import load_model
    from xt.serve.client.client import Client

    encoder, _ = load_model(stage.repository / "encoder", device="cpu", threads=1)
    ids, _ = encoder.tokenizer(TEXTS, prefix=encoder.spec.prefix(None))
    right = encoder.encode(TEXTS).vectors
    with Client(f"127.0.0.1:{stage.ports['grpc']}", "encoder") as client:
        served = client.encode(TEXTS)
    cosine = float((right * served).sum(1).min())
    if cosine < 0.9999:
        raise RuntimeError(f"the server's vectors are not those of this process (cosine {cosine:.5f})")
    return Target(
        **{name: stage.ports[name] for name in ("gateway", "http", "grpc", "metrics")},
        dim=encoder.spec.dim,
        max_length=encoder.spec.max_length,
        vocabulary=encoder.tokenizer.vocabulary,
        documents=2 * len(TEXTS),
        texts=TEXTS,
        vectors=served,
        ids=[row.tolist() for row in ids],
    )


@dataclass
class Callers:
    """Callers of single texts, by the Python client and by the gateway, who never stop while something breaks."""

    target: Target
    clients: int = 6
    browsers: int = 2
    pause: float = 0.05
    calls: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    longest: float = 0.0

    def __enter__(self) -> Callers:
        self._end, self._lock = threading.Event(), threading.Lock()
        kinds: list[Callable[[int], None]] = [self._client] * self.clients + [self._browser] * self.browsers
        self._threads = [threading.Thread(target=kind, args=(i,), daemon=True) for i, kind in enumerate(kinds)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(CALLER_SECONDS + 20)
            if thread.is_alive():
                self._count(0.0, "a caller hangs")

    def _count(self, seconds: float, lost: str = "", wrong: bool = False) -> None:
        with self._lock:
            self.calls += 1
            self.longest = max(self.longest, seconds)
            self.wrong += wrong
            if lost:
                self.lost[lost[:160]] += 1

    def _client(self, turn: int) -> None:
        from xt.core.errors import XtError
        from xt.serve import Client

        client = Client(self.target.url, "encoder", timeout_seconds=CALLER_SECONDS)
        while not self._end.wait(self.pause):
            turn, begun, lost, right = (turn + 1) % len(self.target.texts), time.monotonic(), "", True
            try:
                right = bool((client.encode([self.target.texts[turn]])[0] == self.target.vectors[turn]).all())
            except XtError as error:
                lost = f"{type(error).__name__}: {error}"
            self._count(time.monotonic() - begun, lost, not right)
        client.close()

    def _browser(self, turn: int) -> None:
        """Ask the gateway as a patient HTTP client does: again after Retry-After, and after a lost connection."""
        while not self._end.wait(self.pause):
            turn, begun, lost = (turn + 1) % len(self.target.texts), time.monotonic(), ""
            body = {"model": "encoder", "input": self.target.texts[turn]}
            while True:
                answer = call(self.target.gateway, "POST", "/v1/embeddings", body)
                if answer.status not in (0, 429, 503) or time.monotonic() - begun > CALLER_SECONDS:
                    break
                time.sleep(min(2.0, float(answer.headers.get("retry-after", 0.2))))
            right = True
            if answer.status == 200:
                found = np.array(answer.json["data"][0]["embedding"], np.float32)
                right = bool((found == self.target.vectors[turn]).all())
            else:
                lost = f"gateway {answer.status}: {answer.message}"
            self._count(time.monotonic() - begun, lost, not right)


def behind_a_dead_proxy() -> None:
    """Set the variables of a proxy that nothing answers at, for this process and all that it starts."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "grpc_proxy"):
        os.environ[name] = "http://127.0.0.1:9"
    for name in ("no_proxy", "NO_PROXY"):
        os.environ.pop(name, None)
