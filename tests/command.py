"""Run `xt` as a user does, without importing torch anew each time.

A process that has imported the libraries (not xt) forks a child for every command. The child takes arguments, folder,
environment and pipes, imports xt and calls the entry point of the console script: exit code, stdout, stderr, signals and
what is done at exit are those of a process of its own, at a tenth of its cost. `started` starts one from nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as LateError
from pathlib import Path

XT = Path(sys.executable).parent / "xt"
LIBRARIES = (
    "typer.rich_utils", "rich.table", "rich.progress", "pydantic", "yaml", "jinja2", "numpy", "scipy.optimize", "scipy.special",
    "scipy.stats", "sklearn.metrics", "sklearn.linear_model", "pyarrow.parquet", "faiss", "tokenizers", "onnx", "onnxruntime",
    "onnxruntime.quantization", "torch", "safetensors.torch", "huggingface_hub", "transformers", "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto", "transformers.models.bert.modeling_bert", "tritonclient.grpc", "psutil",
)  # fmt: skip
"""What the commands import at some time."""
READ_LATE = {"COLUMNS", "PYTEST_CURRENT_TEST", "TOKENIZERS_PARALLELISM", "RANK", "LOCAL_RANK", "WORLD_SIZE"}
READ_LATE |= {"LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
"""Variables, beside those of xt, that no library reads when it is imported: a command may have its own."""


class Command:
    """A command that runs; what the tests need of subprocess.Popen."""

    def __init__(self, *arguments: object, cwd: Path | None = None, **environment: str) -> None:
        """Start it: offline, 200 columns wide, with `environment` on top of this process's own."""
        self.args = ["xt", *map(str, arguments)]
        env = _environment(environment)
        early = {k: v for k, v in env.items() if k not in READ_LATE and not k.startswith("XT_")}
        control = _server(tuple(sorted(early.items())))
        ours, theirs = socket.socketpair()
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        request = {"arguments": self.args[1:], "cwd": str(cwd or Path.cwd()), "environment": env}
        socket.send_fds(control, [json.dumps(request).encode()], [theirs.fileno(), out_end, err_end])
        theirs.close()
        os.close(out_end)
        os.close(err_end)
        told = ours.makefile()
        ours.close()
        self.pid = int(told.readline())
        pool = ThreadPoolExecutor(3)  # pipes are emptied while it runs, so that it never waits for a reader
        self._ended: Future[int] = pool.submit(lambda: int(_read(told)))
        self._said = [pool.submit(_read, os.fdopen(end, encoding="utf-8")) for end in (out, err)]
        pool.shutdown(wait=False)

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._ended.result() if self._ended.done() else None

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self.returncode

    def wait(self) -> int:
        """Wait for its end; return the exit code."""
        return self._ended.result()

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Wait for its end; return what it wrote on stdout and stderr."""
        try:
            self._ended.result(timeout)
        except LateError:
            raise subprocess.TimeoutExpired(self.args, timeout) from None
        out, err = (said.result(timeout) for said in self._said)
        return out, err

    def kill(self) -> None:
        """Kill it at once."""
        if not self._ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def xt(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `xt` to its end, in a forked process."""
    command = Command(*arguments, cwd=cwd, **environment)
    try:
        out, err = command.communicate()
    finally:
        command.kill()
    return subprocess.CompletedProcess(command.args, command.wait(), out, err)


def started(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the console script to its end, in a process that imports everything itself."""
    words = [str(XT), *map(str, arguments)]
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=_environment(environment),
        stdin=subprocess.DEVNULL,
        timeout=300,
    )


def _environment(changes: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", **changes}


def _read(file: object) -> str:
    with file:  # type: ignore[attr-defined]
        return str(file.read())  # type: ignore[attr-defined]


@functools.cache
def _server(early: tuple[tuple[str, str], ...]) -> socket.socket:
    """Start a process that forks, with the environment that libraries read; it ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        words = [sys.executable, __file__, str(theirs.fileno())]
        process = subprocess.Popen(words, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=dict(early))
    atexit.register(_end, ours, process)
    return ours


def _end(control: socket.socket, process: subprocess.Popen[bytes]) -> None:
    control.close()
    with contextlib.suppress(subprocess.TimeoutExpired):  # a command that a failed test left running
        process.wait(10)
    process.kill()


def _next_command(control: socket.socket) -> None:
    """Fork for every request; return in the child that is to run it, with its arguments, folder, environment and pipes."""
    while True:
        content, files, _, _ = socket.recv_fds(control, 1 << 20, 3)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG if content else 0)[0]:
                pass
        if not content:
            os._exit(0)
        if not os.fork():
            break
        for file in files:
            os.close(file)
    control.close()
    reply, out, err = files
    child = os.fork()
    if child:  # tells how the command ends
        os.close(out)
        os.close(err)
        os.write(reply, f"{child}\n".encode())
        os.write(reply, f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n".encode())
        os._exit(0)
    request = json.loads(content)
    os.dup2(out, 1)
    os.dup2(err, 2)
    for file in files:
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = [str(XT), *request["arguments"]]


def _main() -> None:
    sys.path[0] = str(XT.parent)
    from xt.core.machine.cores import prepare_threads

    prepare_threads()
    for name in LIBRARIES:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "xt"]:
        del sys.modules[name]
    import random

    import numpy

    gc.collect()
    gc.freeze()  # what every child has in common is neither looked through nor torn down in each of them
    _next_command(socket.socket(fileno=int(sys.argv[1])))
    random.seed()
    numpy.random.seed()  # noqa: NPY002
    os._exit(_run())


def _run() -> int:
    """Run the entry point and what Python does at its end, but for tearing modules down; return the exit code."""
    code: object = 0
    try:
        from xt.cli.main import run

        run()
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    _main()
