"""The gateway in a process of its own: what ends or freezes it ends nothing else, and it is started anew.

The parent holds the listening socket, so that who calls meanwhile waits. Settings go through the child's stdin, which
stays open as long as the parent lives; each second the child writes a byte to its stdout.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, cast

from xt.core.errors import XtError
from xt.serve.client.address import Tls
from xt.serve.gateway.log import check_target, log_requests
from xt.serve.gateway.server import STOP_SECONDS, Gateway, Listening, listen
from xt.serve.triton import server_state
from xt.serve.triton.bounded_log import BoundedLog, follow
from xt.serve.triton.limits import UMASK, child_limits, prepare_child

READY_SECONDS = 60.0
SILENT_SECONDS = 30.0
"""A gateway that shows no life for so long is killed: nothing it does keeps its loop so long."""
RESTARTS_A_MINUTE = 5
LINES_A_MINUTE = 30
"""Of the gateway's faults that are reported; what is more is counted."""


class GatewayProcess(Listening):
    """A gateway that runs in a process of its own; use it as a context manager, like `server.Gateway`."""

    def __init__(
        self,
        triton_url: str,
        *,
        host: str = "127.0.0.1",
        port: int,
        access_log: str | None = None,
        report: Callable[[str], None] = lambda line: None,
        **options: Any,
    ) -> None:
        """Take where to listen, and those of `xt.serve.gateway.options.GatewayOptions`.

        Args:
            triton_url: HOST:PORT of Triton's gRPC endpoint.
            host: the address to listen on.
            port: the port.
            access_log: a file that gets a line for each request, or "-": this process' stderr.
            report: called with a line when the gateway is restarted, and for its faults.
            options: see `GatewayOptions`.
        """
        super().__init__(host, port, options.get("token"))
        check_target(access_log)
        tls = options.pop("tls", None)
        self._settings = {
            "triton_url": triton_url,
            "host": host,
            "port": port,
            "access_log": access_log,
            "tls": None if tls is None else {k: None if v is None else str(v) for k, v in asdict(tls).items()},
            "options": options,
        }
        self._report = report
        self._few = _Few(report)
        self.restarts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._logging: threading.Thread | None = None
        self._closing, self._ready = threading.Event(), threading.Event()
        self._failure: XtError | None = None

    def start(self) -> None:
        """Listen, and wait until the gateway answers; XtError when the port cannot be had."""
        self._socket = listen(self.host, self.port)
        self._scratch = tempfile.TemporaryDirectory(prefix="xt-gateway-")
        self._log = BoundedLog(Path(self._scratch.name) / "gateway.log")
        self._thread = threading.Thread(target=self._supervise, name="xt-gateway", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self.stop()
            raise self._failure

    @property
    def pid(self) -> int | None:
        """The number of its process; None while there is none."""
        return self._process.pid if self._process is not None else None

    def log_tail(self, lines: int = 15) -> str:
        """Return the end of what it printed."""
        return "\n".join(self._log.text().splitlines()[-lines:])

    def _supervise(self) -> None:
        """Start the process, and start it anew when it ends or hangs. The process ends with this thread."""
        times = list[float]()
        while not self._closing.is_set():
            reason = self._run_once()
            self._end(0.0)
            if self._process is not None and self._process.stdout is not None:
                self._process.stdout.close()
            if self._closing.is_set():
                return
            if not self._ready.is_set():
                problem = f"The gateway did not start: {reason}.\n{self.log_tail()}"
                self._failure = XtError(problem, "Choose another --gateway-port, or see the lines above.")
                self._ready.set()
                return
            times = [t for t in times if t > time.monotonic() - 60]
            pause = 0.0 if len(times) < RESTARTS_A_MINUTE else 60.0
            later = f", in {pause:.0f} s: it was {len(times)} times within a minute" if pause else ""
            self._report(f"The gateway's process {reason}; it is started anew{later}.")
            if self._closing.wait(pause):
                return
            times.append(time.monotonic())
            self.restarts += 1

    def _run_once(self) -> str:
        """Start the process and watch it until it ends or hangs; return what happened."""
        env = {k: v for k, v in os.environ.items() if k not in server_state.SECRETS}
        fds = [self._socket.fileno()]
        settings = {**self._settings, "socket": fds[0]}
        errors = None
        if self._settings["access_log"] == "-":
            errors = settings["stderr"] = os.dup(2)
            fds.append(errors)
        try:
            process = self._process = subprocess.Popen(
                [sys.executable, "-m", "xt.serve.gateway.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**env, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
                preexec_fn=prepare_child(child_limits(stack=False)),
                pass_fds=fds,
                umask=UMASK,
            )
        finally:
            if errors is not None:
                os.close(errors)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._logging = follow(cast(BinaryIO, process.stderr), self._log, self._few)
        try:
            process.stdin.write(json.dumps(settings).encode() + b"\n")
            process.stdin.flush()
        except OSError:  # it ended already
            pass
        patience = READY_SECONDS
        while not self._closing.is_set():
            try:
                seen = select.select([process.stdout], [], [], patience)[0]
            except OSError:
                break
            if not seen:
                return f"showed no life for {patience:.0f} s"
            if not os.read(process.stdout.fileno(), 4096):
                break
            self._ready.set()
            patience = SILENT_SECONDS
        try:
            code = process.wait(STOP_SECONDS + 5 if self._closing.is_set() else 5)
        except subprocess.TimeoutExpired:
            return "closed its output"
        return f"ended with code {code}"

    def _end(self, patience: float) -> None:
        """End the process: of its own accord within `patience` seconds, else at once."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            try:
                process.stdin.close()  # which tells it to answer what is under way, and end
            except OSError:
                pass
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._logging is not None:
            self._logging.join(2)

    def stop(self) -> None:
        """Answer what is under way and stop; may be called twice."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._closing.set()
        self._socket.close()
        self._end(STOP_SECONDS + 5)
        thread.join()
        self._few.close()
        self._scratch.cleanup()


class _Few:
    """Passes on a bounded number of lines a minute, and the number of the others."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._since, self._count, self._more = time.monotonic(), 0, 0

    def __call__(self, line: str) -> None:
        if time.monotonic() - self._since > 60:
            self.close()
            self._since, self._count = time.monotonic(), 0
        self._count += 1
        if self._count <= LINES_A_MINUTE:
            self._report(f"gateway: {line}")
        else:
            self._more += 1

    def close(self) -> None:
        if self._more:
            self._report(f"gateway: {self._more} more lines")
        self._more = 0


def main() -> None:
    """Run the gateway of the settings on stdin, until that is closed or SIGTERM comes."""
    settings = json.loads(sys.stdin.buffer.readline())
    import socket

    log_requests(settings.get("stderr") if settings["access_log"] == "-" else settings["access_log"])
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    tls = settings["tls"] and Tls(**{k: None if v is None else Path(v) for k, v in settings["tls"].items()})
    options = {**settings["options"], "tls": tls}
    gateway = Gateway(settings["triton_url"], host=settings["host"], port=settings["port"], **options)
    heart = sys.stdout.fileno()
    os.set_blocking(heart, False)

    async def beat() -> None:
        try:
            os.write(heart, b".")
        except BlockingIOError:  # the parent is stopped, and reads no more
            pass
        except OSError:  # the parent is gone
            server.should_exit = True

    server = gateway.server(beat)

    def follow_parent() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        server.should_exit = True
        time.sleep(STOP_SECONDS + 4)
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server.run([socket.socket(fileno=settings["socket"])])


if __name__ == "__main__":
    main()
