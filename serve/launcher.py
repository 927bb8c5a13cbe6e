"""Starting and stopping the real Triton of the `nvidia-pytriton` wheel, without a container."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from xt.core.artifact import open_repository
from xt.core.errors import XtError

READY_SECONDS = 120.0
STOP_SECONDS = 20.0
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Ports:
    """The three ports of a server."""

    http: int
    grpc: int
    metrics: int


@dataclass(frozen=True)
class Wheel:
    """Where the wheel's parts lie."""

    binary: Path
    libraries: Path
    python_backend: Path
    stub: Path
    libpython: Path


def find_wheel() -> Wheel:
    """Find Triton in the `nvidia-pytriton` wheel. Raises XtError that says what is missing."""
    site = next((Path(p) for p in sys.path if (Path(p) / "pytriton" / "tritonserver").is_dir()), None)
    if site is None:
        raise XtError(
            "There is no Triton server: the package 'nvidia-pytriton' is not installed.",
            "It comes with xt on Linux x86-64 (glibc 2.35 or newer). Elsewhere serve the repository with a container.",
        )
    server = site / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        known = ", ".join(sorted(p.name for p in (server / "python_backend_stubs").iterdir()))
        raise XtError(f"The Triton wheel has no Python backend for Python {version} (it has {known}).", "Use one.")
    return Wheel(
        binary=server / "bin" / "tritonserver",
        libraries=site / "nvidia_pytriton.libs",
        python_backend=server / "backends" / "python",
        stub=stub,
        libpython=find_libpython(),
    )


def find_libpython() -> Path:
    """Find the folder of this Python's shared library, which Triton's Python backend loads."""
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    candidates = [
        sysconfig.get_config_var("LIBDIR"),
        f"{sys.base_prefix}/lib",
        f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}",
        "/usr/lib64",
        "/usr/local/lib",
    ]
    for folder in candidates:
        if folder and (Path(folder) / name).exists():
            return Path(folder)
    raise XtError(
        f"Triton's Python backend needs {name}, which this Python ({sys.base_prefix}) lacks.",
        "Install it (Debian: apt install libpython3-dev), or use a Python built with --enable-shared (uv's are).",
    )


def free_ports(count: int = 3) -> list[int]:
    """Ask the system for free loopback ports."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def check_port(host: str, port: int, option: str) -> None:
    """Raise XtError when a port cannot be listened on."""
    if not 1 <= port <= 65535:
        raise XtError(f"{option} {port} is no port.", "Choose one from 1 to 65535.")
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError as error:
            raise XtError(
                f"Port {port} on {host} cannot be used: {error.strerror}.",
                f"Choose another by {option}, or stop what listens there.",
            ) from error


def _end_with_parent() -> None:
    """In the child: be sent SIGTERM when the parent dies, even if it was killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class TritonServer:
    """A running server; use it as a context manager.

    Leaving the block, also by an error or Ctrl-C, stops the server and its model processes and removes their shared
    memory. Start it in a thread that lives as long as it shall: the server ends with the thread that started it.
    """

    def __init__(
        self,
        repository: Path,
        *,
        host: str = "127.0.0.1",
        ports: Ports | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.repository = repository.resolve()
        self.host = host
        self.ports = ports or Ports(*free_ports())
        self.prefix = f"xt{os.getpid()}{secrets.token_hex(4)}"
        self._environment = dict(environment or {})
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.models = sorted(open_repository(self.repository))

    @property
    def url(self) -> str:
        """HOST:PORT of the gRPC endpoint, as `--url` takes it."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - compared, not bound
        return f"{host}:{self.ports.grpc}"

    def __enter__(self) -> TritonServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, ready_seconds: float = READY_SECONDS) -> None:
        """Start the server and wait until every model is ready."""
        wheel = find_wheel()
        for option, port in zip(("--http-port", "--grpc-port", "--metrics-port"), self._all_ports(), strict=True):
            check_port(self.host, port, option)
        if len(set(self._all_ports())) < 3:
            raise XtError(f"Two of the ports {', '.join(map(str, self._all_ports()))} are the same.", "Choose three.")
        self._scratch = tempfile.TemporaryDirectory(prefix="xt-triton-")
        try:
            scratch = Path(self._scratch.name)
            backend = scratch / "backends" / "python"
            backend.mkdir(parents=True)
            for file in (*wheel.python_backend.iterdir(), wheel.stub):
                shutil.copy2(file, backend / file.name)
            (backend / wheel.stub.name).chmod(0o755)
            with (scratch / "server.log").open("wb") as log:
                self._process = subprocess.Popen(
                    self._arguments(wheel, scratch),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._env(wheel),
                    start_new_session=True,
                    preexec_fn=_end_with_parent,
                )
            self._wait_ready(ready_seconds)
        except BaseException:
            self.stop()
            raise

    def _all_ports(self) -> tuple[int, int, int]:
        return self.ports.http, self.ports.grpc, self.ports.metrics

    def _arguments(self, wheel: Wheel, scratch: Path) -> list[str]:
        http, grpc, metrics = self._all_ports()
        return [
            str(wheel.binary),
            f"--model-repository={self.repository}",
            f"--backend-directory={scratch / 'backends'}",
            "--model-control-mode=none",
            "--exit-on-error=true",
            "--exit-timeout-secs=10",
            "--disable-auto-complete-config",
            f"--backend-config=python,shm-region-prefix-name={self.prefix}",
            f"--http-address={self.host}",
            f"--http-port={http}",
            f"--grpc-address={self.host}",
            f"--grpc-port={grpc}",
            f"--metrics-address={self.host}",
            f"--metrics-port={metrics}",
            "--allow-gpu-metrics=false",
            "--log-verbose=0",
        ]

    def _env(self, wheel: Wheel) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME",)}
        env["LD_LIBRARY_PATH"] = os.pathsep.join(
            [str(wheel.libraries), str(wheel.libpython), *filter(None, [env.get("LD_LIBRARY_PATH")])]
        )
        # The stub embeds Python and finds its packages by the `python3` that comes first in PATH: this environment's.
        env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
        env["TOKENIZERS_PARALLELISM"] = "true"
        return {**env, **self._environment}

    def _wait_ready(self, seconds: float) -> None:
        import http.client

        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                raise XtError(
                    f"Triton ended with code {self._process.returncode} before it was ready:\n{self.log_tail()}",
                    "The lines above say which model or port failed; `xt doctor` checks the installation.",
                )
            try:
                connection = http.client.HTTPConnection(self.url.split(":")[0], self.ports.http, timeout=2)
                connection.request("GET", "/v2/health/ready")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise XtError(f"Triton was not ready within {seconds:.0f} s:\n{self.log_tail()}", "Is the machine overloaded?")

    def log_tail(self, lines: int = 15) -> str:
        """Give the end of the server's log, errors first in mind."""
        if self._scratch is None:
            return ""
        log = Path(self._scratch.name) / "server.log"
        text = log.read_text(errors="replace").splitlines() if log.is_file() else []
        telling = [line for line in text if line.startswith(("E", "W")) or "rror" in line]
        return "\n".join((telling or text)[-lines:])

    def alive(self) -> bool:
        """Whether the server process runs."""
        return self._process is not None and self._process.poll() is None

    def wait(self) -> int:
        """Block until the server ends by itself; give its exit code."""
        assert self._process is not None
        return self._process.wait()

    def stop(self) -> None:
        """Stop the server and whatever it started; may be called twice."""
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    pass
            try:  # the model processes share the server's group
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        for file in Path("/dev/shm").glob(f"*{self.prefix}*"):  # noqa: S108 - POSIX shared memory lives there
            file.unlink(missing_ok=True)
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None
