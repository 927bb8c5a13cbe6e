"""Peers measured beside xt on the same texts: each engine in a process of its own, by the Python that holds it."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xt.bench.http import OpenAIHttp
from xt.bench.load import TextPool
from xt.bench.measure import Row, Target, _row
from xt.core.errors import XtError, unknown
from xt.core.machine.cores import WAITING, usable_cores
from xt.core.machine.proxies import read_url
from xt.serve.triton.addresses import free_ports
from xt.serve.triton.starting import START_SECONDS, Patience, Startable, too_slow

WORKER = Path(__file__).with_name("worker.py")
LOAD_SECONDS = 600.0
WARM_UP_SECONDS = 3.0


@dataclass(frozen=True)
class Peer:
    """One engine that can be measured."""

    name: str
    title: str
    served: bool = False
    """Whether it is a server, measured by the same client as xt's; else it is called in process."""
    install: str = ""
    """What to install into an environment of its own; empty: part of xt's."""


_INFINITY = "infinity-emb[optimum,server,torch]==0.0.78"
PEERS = {
    p.name: p
    for p in (
        Peer("sentence-transformers", "sentence-transformers, PyTorch fp32", install="sentence-transformers"),
        Peer("sentence-transformers-bf16", "sentence-transformers, PyTorch bf16", install="sentence-transformers"),
        Peer(
            "sentence-transformers-onnx-int8",
            "sentence-transformers, its own ONNX export and dynamic int8",
            install="sentence-transformers[onnx]",
        ),
        Peer("openvino", "OpenVINO's own Python, bf16, batched by hand", install="openvino tokenizers numpy"),
        Peer("openvino-int8", "OpenVINO's own Python on the exported file", install="openvino tokenizers numpy"),
        Peer("infinity", "Infinity, optimum engine, dynamic int8", served=True, install=_INFINITY),
        Peer("infinity-torch", "Infinity, torch engine, fp32", served=True, install=_INFINITY),
    )
}
GEMM = "gemm-limit"


def check_names(names: Sequence[str]) -> None:
    """Raise XtError for a name that is no peer."""
    for name in names:
        if name not in PEERS and name != GEMM:
            raise unknown("peer", name, [*PEERS, GEMM])


def pythons(choices: Sequence[str]) -> dict[str, Path]:
    """Read NAME=PATH choices of an interpreter: peer -> Python. XtError for another form, or when it is not there."""
    found = {}
    for choice in choices:
        name, is_pair, path = choice.partition("=")
        if not is_pair:
            raise XtError(f"--peer-python {choice!r} is not NAME=PATH.", "E.g. infinity=/venvs/infinity/bin/python.")
        check_names([name])
        python = Path(path).expanduser().absolute()  # not resolved: a virtual environment's Python is a link
        if not python.is_file():
            raise XtError(f"There is no Python {python} (--peer-python {name}).", "Give the interpreter's file.")
        found[name] = python
    return found


def missing(name: str, python: Path, what: str) -> XtError:
    """Return the error of a peer that is not installed, with the commands that install it."""
    packages = " ".join(f"'{p}'" if "[" in p else p for p in PEERS[name].install.split(" "))
    return XtError(
        f"--against {name} needs {what}, which {python} does not have.",
        f"uv venv -p 3.11 {name}-env && uv pip install -p {name}-env {packages}\n"
        f"then add: --peer-python {name}={name}-env/bin/python",
    )


def _environment() -> dict[str, str]:
    """No network, no telemetry, no cache of answers, and threads as each engine takes and has them wait by itself."""
    off = {
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        "INFINITY_VECTOR_DISK_CACHE": "false",  # its cache of answers: every text is to be computed
        "OPENVINO_TELEMETRY": "0",
        "TOKENIZERS_PARALLELISM": "true",
        "XT_WORKER_CORES": str(usable_cores()),
    }
    return {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", *WAITING)} | off


class Worker(Startable):
    """A process that holds one engine; use it as a context manager."""

    def __init__(self, python: Path | None = None) -> None:
        self.python = python or Path(sys.executable)
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed in __exit__
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()

    def start(self) -> None:
        """Start the process; XtError when it cannot be."""
        try:
            self._process = subprocess.Popen(
                [str(self.python), str(WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                encoding="utf-8",
                env=_environment(),
            )
        except OSError as error:
            raise XtError(f"{self.python} cannot be started: {error.strerror}.", "Check --peer-python.") from error
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def ask(self, wait: float = LOAD_SECONDS, /, **job: Any) -> dict[str, Any]:
        """Send a job and wait for its answer: a dict that holds `error` when it failed. XtError when it dies."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(job, default=str) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=wait)
        except queue.Empty:
            raise XtError(f"{self.python} did not answer within {wait:.0f} s.\n{self.log()}") from None
        except OSError:
            line = ""
        if not line:
            raise XtError(f"{self.python} ended before it answered:\n{self.log()}", "The lines above say why.")
        return dict(json.loads(line))

    def log(self, lines: int = 12) -> str:
        """Return the end of what it printed."""
        self._log.seek(0)
        return "\n".join(self._log.read().splitlines()[-lines:])

    def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except OSError:
                        pass
        self._log.close()


class InProcess(Startable):
    """An engine measured in a process of its own; use it as a context manager."""

    def __init__(
        self,
        name: str,
        texts: Sequence[str],
        lengths: Sequence[int],
        scratch: Path,
        *,
        model: str,
        python: Path | None = None,
        job: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.texts = list(texts)
        self.lengths = list(lengths)
        self.model = model
        self.title = name
        self._scratch = scratch
        self._job = dict(job)
        self._worker = Worker(python)
        self._position = 0
        self._warm = False

    def start(self) -> None:
        """Start the process and have it load the engine."""
        file = self._scratch / "texts.json"
        if not file.is_file():
            file.write_text(json.dumps(self.texts), encoding="utf-8")
        self._worker.start()
        try:
            answer = self._worker.ask(do="load", kind=self.name, texts=str(file), **self._job)
            if answer.get("missing") and self.name in PEERS:
                raise missing(self.name, self._worker.python, f"the package {answer['missing']!r}")
            if "error" in answer:
                raise XtError(f"{self.name} could not be loaded: {answer['error']}", self._worker.log())
        except BaseException:
            self._worker.stop()
            raise
        self.title = answer["title"]

    def stop(self) -> None:
        """End the process."""
        self._worker.stop()

    def measure(self, batch: int, seconds: float) -> Row:
        """Encode `batch` texts a call for `seconds`; the first time, a warm-up goes before."""
        warm_up = 0.0 if self._warm else WARM_UP_SECONDS
        self._warm = True
        answer = self._worker.ask(
            seconds + LOAD_SECONDS, do="measure", first=self._position, batch=batch, seconds=seconds, warm_up=warm_up
        )
        if "error" in answer:
            raise XtError(f"{self.name} failed: {answer['error']}", self._worker.log())
        return self.row(answer, batch)

    def row(self, answer: Mapping[str, Any], batch: int) -> Row:
        """Count what a measurement encoded: the tokens of the very texts, as counted once for all engines."""
        first, count = int(answer["first"]), int(answer["count"])
        self._position = first + count
        tokens = sum(self.lengths[(first + i) % len(self.lengths)] for i in range(count))
        row = _row(self.title, self.model, batch, answer["latencies"], count, tokens, answer["wall"], answer["cpu"])
        repeated = max(0, first + count - max(len(self.texts), first)) / count
        return replace(row, mode="in process", batch=batch, repeated=repeated)


def gemm(shapes: Sequence[tuple[int, int, int]], seconds: float, python: Path | None = None) -> list[dict[str, Any]]:
    """Measure int8 matrix products of these shapes in a process of their own: a row for each way and shape."""
    with Worker(python) as worker:
        answer = worker.ask(do="gemm", shapes=list(shapes), seconds=seconds)
        if "error" in answer:
            raise XtError(f"{GEMM} failed: {answer['error']}", worker.log())
    return list(answer["rows"])


def gemm_limit(rows: Sequence[Mapping[str, Any]], flop: float) -> dict[str, Any]:
    """Return the best product and the tokens/s it would allow at `flop` operations a token.

    >>> gemm_limit([{"way": "a", "m": 1, "k": 2, "n": 3, "gops": 4.0}, {"way": "b", "unavailable": "-"}], 1e6)
    {'gops': 4.0, 'way': 'a', 'shape': [1, 2, 3], 'flop_per_token': 1000000.0, 'tokens_per_second': 4000.0}
    """
    measured = [r for r in rows if "gops" in r]
    if not measured:
        why = "; ".join(f"{r['way']}: {r['unavailable']}" for r in rows)
        raise XtError(f"No int8 matrix product could be measured: {why}", "Leave out gemm-limit.")
    best = max(measured, key=lambda r: r["gops"])
    return {
        "gops": best["gops"],
        "way": best["way"],
        "shape": [best["m"], best["k"], best["n"]],
        "flop_per_token": flop,
        "tokens_per_second": best["gops"] * 1e9 / flop,
    }


def prepare_onnx(checkpoint: Path, prepared: Path, python: Path | None = None) -> Path:
    """Make sentence-transformers' ONNX export of a checkpoint and its dynamic int8 version, once, below `prepared`."""
    name = "sentence-transformers-onnx-int8"
    with Worker(python) as worker:
        answer = worker.ask(do="prepare", checkpoint=str(checkpoint), cache=str(prepared))
        if answer.get("missing"):
            raise missing(name, worker.python, f"the package {answer['missing']!r}")
        if "error" in answer:
            raise XtError(f"The ONNX export for peers failed: {answer['error']}", worker.log())
    return Path(answer["folder"])


class Infinity(Startable):
    """Infinity's own server on a checkpoint; use it as a context manager.

    Its int8 is sentence-transformers' dynamic int8 file of the same checkpoint, which Infinity prefers on CPUs.
    """

    def __init__(
        self,
        name: str,
        checkpoint: Path,
        prepared: Path,
        scratch: Path,
        *,
        python: Path | None = None,
        start_seconds: float = START_SECONDS,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.name = name
        self._start_seconds, self._report = start_seconds, report
        self._prepared = prepared
        self.checkpoint = checkpoint
        self.python = python or Path(sys.executable)
        self.engine = "torch" if name == "infinity-torch" else "optimum"
        self.port = free_ports(1)[0]
        self._scratch = scratch
        self._process: subprocess.Popen[bytes] | None = None
        self._log = scratch / f"{name}.log"

    def _folder(self) -> Path:
        if self.engine == "torch":
            return self.checkpoint
        source = self._prepared / "onnx"
        folder = self._scratch / "infinity"
        if not folder.is_dir():
            shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.onnx"))
            (file,) = source.glob("onnx/*qint8*.onnx")
            shutil.rmtree(folder / "onnx", ignore_errors=True)
            shutil.copy2(file, folder / "model_quantized.onnx")  # beside config.json, where Optimum finds it by name
        return folder

    def start(self) -> None:
        """Start the server and wait until it is ready."""
        program = self.python.parent / "infinity_emb"
        if not program.is_file():
            raise missing(self.name, self.python, "Infinity (the program infinity_emb)")
        folder = self._folder()
        # Run inside the folder: Infinity hands Optimum the file it found, which must be relative to the model.
        command = [str(program.absolute()), "v2", "--model-id", ".", "--served-model-name", "peer"]
        command += ["--engine", self.engine, "--device", "cpu", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--no-bettertransformer", "--dtype", "float32" if self.engine == "torch" else "auto"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=_environment(), cwd=folder
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        assert self._process is not None
        patience = Patience(self._start_seconds, self._report)
        while patience.lasts(lambda: self.name):
            if self._process.poll() is not None:
                tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-12:])
                raise XtError(f"{self.name} ended before it was ready:\n{tail}", "The lines above say why.")
            try:
                if read_url(f"http://127.0.0.1:{self.port}/health", timeout=2)[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.2)
        raise XtError(
            f"{self.name} was not ready within {self._start_seconds:g} s; its log: {self._log}",
            too_slow(self._start_seconds),
        )

    def target(self, texts: Sequence[str], lengths: Sequence[int], prefix: str, model: str, seed: int = 0) -> Target:
        """Prepare to measure it: the same texts, the encoder's prefix put before each, as it puts none there."""
        assert self._process is not None
        endpoint = OpenAIHttp(f"127.0.0.1:{self.port}", "peer", texts=[prefix + t for t in texts])
        engine = "infinity torch fp32" if self.engine == "torch" else "infinity int8"
        pool = TextPool(len(texts), lengths)
        return Target(engine, model, endpoint, pool, "text", "http", (self._process.pid,), None, seed)

    def stop(self) -> None:
        """End the server."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
