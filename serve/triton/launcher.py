"""Starting and stopping the real Triton of the `nvidia-pytriton` wheel, without a container."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, cast

from xt.core.errors import XtError
from xt.core.files.artifact import read_manifest
from xt.serve.client.http import ERRORS, TritonHttp
from xt.serve.triton import server_state
from xt.serve.triton.addresses import Hosts, Ports, Tls, check_port, evhtp, free_ports, reachable
from xt.serve.triton.bounded_log import BoundedLog, follow
from xt.serve.triton.limits import UMASK, child_limits, prepare_child
from xt.serve.triton.model_code import open_models, refuse_code
from xt.serve.triton.processes import (
    close_shared_memory,
    hide_from_process_list,
    model_processes,
    new_prefix,
    new_scratch,
    remove_bytecode,
    remove_shared_memory,
    sweep,
)
from xt.serve.triton.starting import START_SECONDS, Patience, Startable, check_limit, too_slow
from xt.serve.triton.watch import Watch
from xt.serve.triton.wheel import Wheel, find_wheel

EXIT_SECONDS = 30
"""How long a server that is to end waits for the requests in flight."""
STOP_SECONDS = 10.0
"""How long after that it may still take before it is killed."""
DRAINED_SECONDS = 2.5
"""How long a server without any model process may still take to end; Triton looks once a second."""
WATCH_SECONDS = 0.2
RESTARTS_A_MINUTE = 5
OPTIONS = ("--http-port", "--grpc-port", "--metrics-port")
RESTRICTED = "model-repository,shared-memory,logging,trace,statistics"
"""Triton's groups of calls that only the admin key opens. Models, their metadata and health stay open."""
LOCKED = f"{RESTRICTED},inference,metadata,model-config"
"""The same where HTTP is locked: health alone stays open."""
LOADED = re.compile(r"successfully loaded '([^']+)'")


class TritonServer(Startable):
    """A running server; use it as a context manager.

    Leaving the block, also by an error or Ctrl-C, stops the server and its model processes and removes their shared
    memory. Start it in a thread that lives as long as it shall: the server ends with the thread that started it.

    A watch of its own sees a model process die. Triton goes on calling such a model ready, answers each request with an
    error, and never answers those that were in flight, if it does not abort or hang; so the watch ends that server and
    starts it anew: clients get UNAVAILABLE at once and may try again. With `restart` it does so too when the server
    dies by itself, or hangs: when its process is there (a crash can hang while it is handled) but leaves question after
    question unanswered.
    """

    def __init__(  # noqa: PLR0913 - the one way to start a server: of all its options callers give two or three
        self,
        repository: Path,
        *,
        hosts: Hosts = Hosts(),
        ports: Ports | None = None,
        environment: Mapping[str, str] | None = None,
        admin_key: str | None = None,
        tls: Tls | None = None,
        lock_http: bool = False,
        restart: bool = False,
        exit_seconds: int = EXIT_SECONDS,
        start_seconds: float = START_SECONDS,
        trust_code: bool = False,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Check the repository and note what is requested; `start` starts it.

        Args:
            repository: the folder that `xt export` wrote; every model in it is loaded.
            hosts: the addresses to listen on.
            ports: HTTP, gRPC and metrics; free ones by default.
            environment: variables for the server and its models.
            admin_key: opens model control, logs, traces, statistics and shared memory; a random one by default.
            tls: for gRPC; Triton's HTTP and metrics have none.
            lock_http: the admin key opens all of HTTP, health apart: Triton answers web pages of any origin.
            restart: start a server anew that died by itself, or that hangs.
            exit_seconds: how long the requests in flight are waited for at the end.
            start_seconds: how long every start, also one anew, may take until all models are ready; 0: no limit.
            trust_code: run also code that no release of xt wrote: see `xt.serve.triton.model_code`.
            report: called with a line for what was not requested, such as a restart.
        """
        self.repository = repository.resolve()
        self.hosts = hosts
        self.ports = ports or Ports(*free_ports())
        self.prefix = new_prefix()
        self.admin_key = server_state.check_key(admin_key or secrets.token_urlsafe(32), "the server")
        self.tls = tls
        self.lock_http = lock_http
        self.restart = restart
        self.exit_seconds = exit_seconds
        check_limit(start_seconds)
        self.start_seconds = start_seconds
        self.report = report
        self.ended = ""
        """Why the server ended by itself; empty as long as it did not."""
        self.restarts = 0
        self._open_memory = False
        self._environment = dict(environment or {})
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._lock_handle: int | None = None
        self._log = BoundedLog(Path(os.devnull))
        self._logging: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: threading.Thread | None = None
        self._closing, self._closed, self._gone = threading.Event(), threading.Event(), threading.Event()
        self._code = 0
        self.trust_code = trust_code
        self.models = open_models(self.repository, trust_code=trust_code)

    @property
    def url(self) -> str:
        """HOST:PORT of the gRPC endpoint, as `--url` takes it."""
        host = reachable(self.hosts.grpc)
        return f"{f'[{host}]' if ':' in host else host}:{self.ports.grpc}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus reads."""
        host = reachable(self.hosts.metrics)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.ports.metrics}/metrics"

    def start(self) -> None:
        """Start the server and wait until every model is ready."""
        wheel = find_wheel()
        hosts = (self.hosts.http, self.hosts.grpc, self.hosts.metrics)
        for option, host, port in zip(OPTIONS, hosts, self._all_ports(), strict=True):
            check_port(host, port, option)
        if len(set(self._all_ports())) < 3:
            raise XtError(f"Two of the ports {', '.join(map(str, self._all_ports()))} are the same.", "Choose three.")
        sweep()
        for event in (self._closing, self._closed, self._gone):
            event.clear()
        self._scratch, self._lock_handle = new_scratch(self.prefix)
        self._log = BoundedLog(Path(self._scratch.name) / "server.log")
        if warning := child_limits().warning:
            self.report(f"Warning: {warning}")
        try:
            backend = Path(self._scratch.name) / "backends" / "python"
            backend.mkdir(parents=True)
            for file in (*wheel.python_backend.iterdir(), wheel.stub):
                shutil.copy2(file, backend / file.name)
            (backend / wheel.stub.name).chmod(0o755)
            self._launch(wheel)
            self._note_state()
            watch = self._new_watch()  # here, so that no process can die unseen before the thread runs
            self._watch = threading.Thread(
                target=self._watch_over, args=(wheel, watch), name="xt-serve-watch", daemon=True
            )
            self._watch.start()
        except BaseException:
            self.stop()
            raise

    def _launch(self, wheel: Wheel) -> None:
        """Start the process and wait until it is ready."""
        assert self._scratch is not None
        assert self._lock_handle is not None
        self._check_code()
        self._process = subprocess.Popen(
            self._arguments(wheel, Path(self._scratch.name)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._env(wheel),
            start_new_session=True,
            preexec_fn=prepare_child(child_limits(), private_memory=True),
            pass_fds=(self._lock_handle,),
            umask=UMASK,
        )
        assert self._process.stdout is not None
        self._logging = follow(cast(BinaryIO, self._process.stdout), self._log)
        self._wait_ready()
        self._open_memory = close_shared_memory(self.prefix) > 0
        if self._open_memory:
            self.report(
                "Warning: this system does not let Triton's shared memory be made private; it is closed to other users "
                "0.2 s after it is made."
            )
        self._check_code()  # once more: of what was loaded

    def _check_code(self) -> None:
        """Raise XtError for code that no release of xt wrote, and remove compiled code."""
        if self.trust_code:
            remove_bytecode(self.repository)
        else:
            refuse_code(self.repository, self.models)

    def _note_state(self) -> None:
        hashes = {name: str(read_manifest(self.repository / name)["hash"]) for name in self.models}
        problem = server_state.note_server(
            self.hosts.grpc,
            vars(self.ports),
            self.admin_key,
            self.repository,
            hashes,
            http_host=reachable(self.hosts.http),
            metrics_host=reachable(self.hosts.metrics),
        )
        if problem:
            self.report(problem)

    def _all_ports(self) -> tuple[int, int, int]:
        return self.ports.http, self.ports.grpc, self.ports.metrics

    def _arguments(self, wheel: Wheel, scratch: Path) -> list[str]:
        http, grpc, metrics = self._all_ports()
        key = f"{server_state.KEY_HEADER}={self.admin_key}"
        return [
            str(wheel.binary),
            f"--model-repository={self.repository}",
            f"--backend-directory={scratch / 'backends'}",
            "--model-control-mode=explicit",
            "--load-model=*",
            f"--model-load-thread-count={max(4, 2 * len(self.models))}",  # one that waits for another holds a thread
            f"--http-restricted-api={LOCKED if self.lock_http else RESTRICTED}:{key}",
            f"--grpc-restricted-protocol={RESTRICTED}:{key}",
            "--exit-on-error=true",
            f"--exit-timeout-secs={self.exit_seconds}",
            "--disable-auto-complete-config",
            f"--backend-config=python,shm-region-prefix-name={self.prefix}",
            f"--http-address={evhtp(self.hosts.http)}",
            f"--http-port={http}",
            f"--grpc-address={f'[{self.hosts.grpc}]' if ':' in self.hosts.grpc else self.hosts.grpc}",
            f"--grpc-port={grpc}",
            f"--metrics-address={evhtp(self.hosts.metrics)}",
            f"--metrics-port={metrics}",
            "--allow-gpu-metrics=false",
            "--log-verbose=0",
            *(self.tls.arguments() if self.tls else []),
        ]

    def _env(self, wheel: Wheel) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", *server_state.SECRETS)}
        env["LD_LIBRARY_PATH"] = os.pathsep.join(
            [str(wheel.libraries), str(wheel.libpython), *filter(None, [env.get("LD_LIBRARY_PATH")])]
        )
        # The stub embeds Python and finds its packages by the `python3` that comes first in PATH: this environment's.
        env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
        env["TOKENIZERS_PARALLELISM"] = "true"
        env[server_state.START_VARIABLE] = f"{self.start_seconds:g}"
        return {**env, **self._environment}

    def _wait_ready(self) -> None:
        patience = Patience(self.start_seconds, self.report)
        process, hidden = self._process, False
        assert process is not None
        assert self._scratch is not None
        logged, before = self._log.written_bytes, Counter(LOADED.findall(self._log.text()))
        while patience.lasts(lambda: self._loading(before)) and not self._closing.is_set():
            if process.poll() is not None:
                self._end_log()
                raise XtError(
                    f"Triton ended with code {process.returncode} before it was ready:\n{self.log_tail()}",
                    "The lines above say which model or port failed; `xt doctor` checks the installation.",
                )
            if not hidden and self._log.written_bytes > logged:  # it logs nothing before it has read its options
                hidden = True
                if not hide_from_process_list(process.pid, self.admin_key):
                    self.report("This machine's users can read the server's admin key in the process list.")
            try:
                if self._http().is_ready(2):
                    return
            except ERRORS:
                pass
            time.sleep(0.1)
        if self._closing.is_set():
            raise XtError("The server was stopped while it started.")
        raise XtError(
            f"Triton was not ready within {self.start_seconds:g} s; it waited for {self._loading(before)}:\n"
            f"{self.log_tail()}",
            too_slow(self.start_seconds),
        )

    def _loading(self, before: Counter[str]) -> str:
        """Name the models that the log does not call loaded more often than `before`."""
        loaded = Counter(LOADED.findall(self._log.text()))
        missing = [name for name in self.models if loaded[name] <= before[name]]
        return f"the model{'s' if len(missing) > 1 else ''} {', '.join(missing)}" if missing else "Triton to listen"

    def _http(self) -> TritonHttp:
        """Return the server's HTTP, with the admin key."""
        return TritonHttp(reachable(self.hosts.http), self.ports.http, self.admin_key)

    def _watch_over(self, wheel: Wheel, watch: Watch) -> None:
        """See the server and its model processes die or hang, and start them anew. Runs until the server is stopped.

        The thread outlives the server that it started, since the server would end with it.
        """
        times = list[float]()
        while not self._closing.wait(WATCH_SECONDS):
            if self._open_memory:  # a reload makes more
                close_shared_memory(self.prefix)
            if (trouble := watch.look()) is None:
                continue
            if not (trouble.by_model or self.restart):
                return self._give_up(trouble.reason)
            reason = trouble.reason
            while reason and not self._closing.is_set():
                times = [t for t in times if t > time.monotonic() - 60]
                if len(times) >= RESTARTS_A_MINUTE:
                    return self._give_up(f"{reason}; it was started anew {len(times)} times within a minute")
                self.report(f"{reason[0].upper()}{reason[1:]}; the server is started anew.")
                self._kill()
                if self._closing.wait(min(8.0, 0.5 * (2 ** len(times) - 1))):
                    break
                times.append(time.monotonic())
                try:
                    self._launch(wheel)
                    watch, reason = self._new_watch(), ""
                    self.restarts += 1
                    self._note_state()
                    self.report("The server is ready again.")
                except (XtError, OSError) as error:
                    reason = f"it could not be started anew: {error}"
        self._closed.wait()

    def _new_watch(self) -> Watch:
        assert self._process is not None
        return Watch(self._process, self.prefix, self._http())

    def _give_up(self, reason: str) -> None:
        process = self._process
        self.ended = reason
        self._kill()
        self._code = process.returncode if process is not None else 1
        self._gone.set()
        self._closed.wait()

    def log_tail(self, lines: int = 15) -> str:
        """Return the end of the server's log, errors first in mind."""
        if self._scratch is None:
            return ""
        text = self._log.text().splitlines()
        telling = [line for line in text if line.startswith(("E", "W")) or "rror" in line]
        return "\n".join((telling or text)[-lines:])

    def _end_log(self) -> None:
        """Wait until what the dead server printed is in the log."""
        if self._logging is not None:
            self._logging.join(2)

    def alive(self) -> bool:
        """Return whether the server process runs."""
        return self._process is not None and self._process.poll() is None

    def wait(self) -> int:
        """Block until the server has ended by itself for good; give its exit code. `ended` says why."""
        self._gone.wait()
        return self._code

    def _wait_drained(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the server has ended, or has nothing left to end: at most `exit_seconds` and some.

        A model process ends when its last request was answered. After a refused reload Triton 2.51 counts one model too
        many and would sit out its exit timeout although none is left.
        """
        deadline = time.monotonic() + self.exit_seconds + STOP_SECONDS
        busy = time.monotonic()
        while time.monotonic() < deadline and time.monotonic() < busy + DRAINED_SECONDS:
            try:
                process.wait(0.1)
                return
            except subprocess.TimeoutExpired:
                if model_processes(self.prefix):
                    busy = time.monotonic()

    def _kill(self) -> None:
        """End the server's process and its models' at once, and remove their shared memory."""
        if (process := self._process) is not None:
            try:  # the model processes share the server's group
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
            self._end_log()
        remove_shared_memory(self.prefix)

    def stop(self) -> None:
        """Stop the server, after the requests in flight were answered, and whatever it started; may be called twice."""
        self._closing.set()
        try:
            if (process := self._process) is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                self._wait_drained(process)
        finally:  # also when a second Ctrl-C cuts the waiting short
            self._kill()
            self._closed.set()
            if (watch := self._watch) is not None:
                watch.join()
                self._kill()  # what the watch may have started meanwhile
                self._watch = None
            self._process = None
            if self._scratch is not None:
                server_state.forget(self.ports.grpc)
                self._scratch.cleanup()
                self._scratch = None
            if self._lock_handle is not None:
                os.close(self._lock_handle)
                self._lock_handle = None
