"""Faults: what breaks, or is broken on purpose, while callers go on asking."""

from __future__ import annotations

import concurrent.futures
import json
import os
import shutil
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.attack.harness import Target, call
from tests.attack.stage import Stage, xt


@dataclass(frozen=True)
class Fault:
    """One thing that breaks. `do` returns what went wrong besides lost and wrong answers, else an empty string."""

    name: str
    do: Callable[[Stage, Target], str]


FAULTS: list[Fault] = []


def fault(name: str) -> Callable[[Callable[[Stage, Target], str]], Callable[[Stage, Target], str]]:
    """Put a function into the list."""

    def add(do: Callable[[Stage, Target], str]) -> Callable[[Stage, Target], str]:
        FAULTS.append(Fault(name, do))
        return do

    return add


def killed(pick: str, how: signal.Signals) -> Callable[[Stage, Target], str]:
    """Return what sends a signal to a process and waits until all is well again."""

    def do(stage: Stage, target: Target) -> str:
        process = stage.models()[0] if pick == "model" else stage.triton() if pick == "Triton" else stage.gateway()
        process.send_signal(how)
        time.sleep(1)
        stage.until_ready()
        return ""

    return do


def paused(pick: str, seconds: float) -> Callable[[Stage, Target], str]:
    """Return what stops a process for some seconds."""

    def do(stage: Stage, target: Target) -> str:
        process = stage.models()[0] if pick == "model" else stage.triton() if pick == "Triton" else stage.gateway()
        process.suspend()
        time.sleep(seconds)
        if process.is_running():
            process.resume()
        stage.until_ready()
        return ""

    return do


FAULTS += [
    Fault("a model process is killed", killed("model", signal.SIGKILL)),
    Fault("a model process crashes (segmentation fault)", killed("model", signal.SIGSEGV)),
    Fault("a model process aborts", killed("model", signal.SIGABRT)),
    Fault("a model process stops for 4 s", paused("model", 4)),
    Fault("Triton is killed", killed("Triton", signal.SIGKILL)),
    Fault("Triton crashes (segmentation fault)", killed("Triton", signal.SIGSEGV)),
    Fault("Triton stops for 4 s", paused("Triton", 4)),
    Fault("the gateway is killed", killed("gateway", signal.SIGKILL)),
    Fault("the gateway stops for 5 s", paused("gateway", 5)),
]


@fault("the launcher is killed, and started again")
def _(stage: Stage, target: Target) -> str:
    stage.stop(signal.SIGKILL)
    stage.start()
    stage.until_ready()
    return ""


@fault("a stop of 20 s, over lock files that anybody made")
def _(stage: Stage, target: Target) -> str:
    stage.stop()
    begun = time.monotonic()
    temporary = Path(tempfile.gettempdir())
    victim = Path(tempfile.mkdtemp(prefix="xt-attack-victim-"))
    (victim / "dear.txt").write_text("keep me")
    escape, pipe, link = (temporary / f"xt-triton-attack{i}" for i in range(3))
    try:
        escape.mkdir()
        (escape / "lock").write_text(f"d/../../..{victim}/")
        pipe.mkdir()
        os.mkfifo(pipe / "lock")
        link.symlink_to(victim)
        time.sleep(max(0.0, 20 - (time.monotonic() - begun)))
        stage.start()
        stage.until_ready()
        return "" if (victim / "dear.txt").is_file() else "the sweep at the start deleted a foreign file"
    finally:
        for folder in (escape, pipe, victim):
            shutil.rmtree(folder, ignore_errors=True)
        link.unlink(missing_ok=True)


@fault("the model is loaded anew")
def _(stage: Stage, target: Target) -> str:
    done = xt("reload", "encoder", "--url", target.url, check=False)
    return "" if done.returncode == 0 else f"xt reload ended with {done.returncode}: {done.stderr[-200:]}"


@fault("a damaged version is loaded")
def _(stage: Stage, target: Target) -> str:
    (graph,) = (stage.repository / "encoder").glob("1/model.onnx")
    kept = graph.with_name("kept.onnx")
    graph.rename(kept)
    try:
        graph.write_bytes(b"not a graph")
        done = xt("reload", "encoder", "--url", target.url, check=False)
    finally:
        kept.replace(graph)
    return "" if done.returncode == 1 else f"xt reload ended with {done.returncode}, expected 1"


@fault("the index that the retriever was made of is cut to nothing")
def _(stage: Stage, target: Target) -> str:
    for file in (stage.folder / "index").iterdir():
        if file.is_file():
            os.chmod(file, 0o600)
            os.truncate(file, 0)
    for _ in range(3):
        answer = call(target.gateway, "POST", "/search", {"query": "guten morgen welt " * 3})
        if answer.status != 200:
            return f"search answers {answer.status}: {answer.message[:200]}"
    return ""


@contextmanager
def connections(port: int, count: int, first: bytes) -> Iterator[list[socket.socket]]:
    """Open many connections that send a few bytes each and then nothing."""
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            try:
                opened.append(socket.create_connection(("127.0.0.1", port), timeout=2))
                opened[-1].sendall(first)
            except OSError:  # no room for more: as many as it takes
                break
        yield opened
    finally:
        for connection in opened:
            connection.close()


HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@fault("1,100 half-sent headers at the gateway")
def _(stage: Stage, target: Target) -> str:
    with connections(target.gateway, 1100, HEAD):
        time.sleep(15)
        answer = call(target.gateway, "GET", "/health", seconds=30)
    return "" if answer.status == 200 else f"the gateway answers others {answer.status}: {answer.message[:200]}"


@fault("400 half-sent bodies at the gateway")
def _(stage: Stage, target: Target) -> str:
    with connections(target.gateway, 400, HEAD + b"Content-Length: 1000\r\n\r\n{"):
        time.sleep(8)
        answer = call(target.gateway, "GET", "/health", seconds=30)
    return "" if answer.status == 200 else f"the gateway answers others {answer.status}: {answer.message[:200]}"


@fault("1,100 idle connections at Triton's HTTP")
def _(stage: Stage, target: Target) -> str:
    with connections(target.http, 1100, b""):
        time.sleep(10)
    logs = [p for p in Path(tempfile.gettempdir()).glob("xt-triton-*/*") if p.is_file() and p.stat().st_size > 50 << 20]
    return f"a log has {logs[0].stat().st_size} bytes" if logs else ""


@fault("300 clients that leave in the middle of a request")
def _(stage: Stage, target: Target) -> str:
    half = b"POST /v2/models/encoder/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{"
    for port in (target.http, target.gateway, target.grpc):
        with connections(port, 100, half):
            pass
    return ""


@fault("60 callers that never read their answers")
def _(stage: Stage, target: Target) -> str:
    body = json.dumps({"model": "encoder", "input": ["a"] * 1000}).encode()
    with connections(target.gateway, 60, HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body):
        time.sleep(10)
    return ""


def flood(target: Target, requests: int, threads: int, body: object) -> list[int]:
    """Send many requests to the gateway at once; returns their statuses."""
    data = json.dumps(body).encode()

    def one(_: int) -> int:
        return call(target.gateway, "POST", "/v1/embeddings", data, seconds=90).status

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(requests)))


@fault("four callers of 128 long texts each, back to back")
def _(stage: Stage, target: Target) -> str:
    statuses = flood(target, 8, 4, {"model": "encoder", "input": ["word " * 250 + str(i) for i in range(128)]})
    wrong = [s for s in statuses if s not in (200, 429, 503, 504)]
    return f"statuses {wrong}" if wrong else ""


@fault("600 requests at once")
def _(stage: Stage, target: Target) -> str:
    statuses = flood(target, 600, 200, {"model": "encoder", "input": [f"text {i}" for i in range(16)]})
    wrong = [s for s in statuses if s not in (200, 429, 503)]
    return f"{len(wrong)} other statuses, such as {wrong[0]}" if wrong else ""


@fault("40 bodies of 8 MB at once")
def _(stage: Stage, target: Target) -> str:
    statuses = flood(target, 40, 20, {"model": "encoder", "input": "a" * 8_300_000})
    wrong = [s for s in statuses if s not in (400, 413, 429, 503, 504)]
    return f"statuses {wrong}" if wrong else ""


@fault("40 bodies of 200,000 objects")
def _(stage: Stage, target: Target) -> str:
    statuses = flood(target, 40, 10, {"model": "encoder", "input": [{}] * 200_000})
    wrong = [s for s in statuses if s not in (400, 413, 429, 503)]
    return f"statuses {wrong}" if wrong else ""


@fault("a second server on the same ports")
def _(stage: Stage, target: Target) -> str:
    flags = [word for name, port in stage.ports.items() for word in (f"--{name}-port", str(port))]
    done = xt("serve", stage.repository, *flags, check=False)
    return (
        ""
        if done.returncode == 1 and "port" in done.stderr.lower()
        else f"exit {done.returncode}: {done.stderr[-200:]}"
    )


@fault("a repository with foreign code is to be served")
def _(stage: Stage, target: Target) -> str:
    copy = stage.folder / "changed"
    shutil.copytree(stage.repository / "encoder", copy / "encoder")
    extra = copy / "encoder" / "1" / "xt" / "__init__.py"
    extra.parent.mkdir()
    extra.write_text("raise SystemExit('foreign code ran')")
    try:
        ports = [w for n in ("http", "grpc", "metrics") for w in (f"--{n}-port", str(free_port()))]
        done = xt("serve", copy, *ports, check=False)
        checked = xt("check", copy / "encoder", check=False)
    finally:
        shutil.rmtree(copy)
    if done.returncode != 1 or "__init__.py" not in done.stderr:
        return f"xt serve ended with {done.returncode}: {done.stderr[-200:]}"
    return (
        "" if checked.returncode and "__init__.py" in checked.stdout + checked.stderr else "xt check does not name it"
    )


@fault("other users look at the shared memory")
def _(stage: Stage, target: Target) -> str:
    files = [p for p in Path("/dev/shm").iterdir() if "xt" in p.name and p.is_file()]
    open_ones = [p.name for p in files if stat.S_IMODE(p.stat().st_mode) & 0o077]
    return f"{open_ones[:3]} can be read by others" if open_ones else "" if files else "there is no shared memory"


@fault("the cache folder is taken away")
def _(stage: Stage, target: Target) -> str:
    from xt.core.encoder.resolve import cache_folder

    place = cache_folder() / "servers"
    away = place.with_name("servers-away")
    place.rename(away)
    try:
        time.sleep(3)
    finally:
        shutil.rmtree(place, ignore_errors=True)
        away.rename(place)
    return ""


def free_port() -> int:
    """Ask the system for a free port."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
