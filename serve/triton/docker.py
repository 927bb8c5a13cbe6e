"""Serving a repository by NVIDIA's container where Docker or Podman is: same ports, same models, same way to stop it.

The image is xt's own, built on NVIDIA's (`deploy/Dockerfile`): NVIDIA's alone lacks the tokenizer library and
`xt.core`, which the models import.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from xt.core import __version__
from xt.core.errors import XtError
from xt.core.files.artifact import Artifact, read_manifest
from xt.serve.client.http import ERRORS, TritonHttp
from xt.serve.triton import server_state
from xt.serve.triton.launcher import EXIT_SECONDS, OPTIONS, RESTRICTED, Ports, check_port, free_ports, reachable
from xt.serve.triton.limits import STACK_BYTES
from xt.serve.triton.model_code import open_models
from xt.serve.triton.starting import CONTAINER_START_SECONDS, Patience, check_limit, too_slow

NVIDIA_IMAGE = "nvcr.io/nvidia/tritonserver:26.09-py3"
"""What the image is built on."""
IMAGE = f"xt-triton:{__version__}"
"""What `docker build -f deploy/Dockerfile` makes."""
ENGINES = ("docker", "podman")
MODELS = "/models"
"""Where the repository lies in the container."""
INSIDE = Ports(8000, 8001, 8002)
"""Ports in the container."""
SHARED_MEMORY = "1g"
"""Between Triton and its Python models; Docker's own 64 MB are too few."""
"""TensorRT builds engines at the first start."""
STOP_SECONDS = EXIT_SECONDS + 10
LOG_LINES = 2000


@dataclass(frozen=True)
class Container:
    """What is run, and how."""

    engine: str
    """`docker` or `podman`."""
    image: str
    name: str
    """Of the container."""
    repository: Path
    models: Sequence[str]
    hosts: tuple[str, str, str]
    """The addresses of this machine that the ports are published on: HTTP, gRPC, metrics."""
    ports: Ports
    gpus: str = "none"
    """`all`, `none`, or device numbers: `0,1`."""
    admin_key: str = field(default="", repr=False)
    environment: Mapping[str, str] = field(default_factory=dict)
    shared_memory: str = SHARED_MEMORY

    def arguments(self) -> list[str]:
        """Return the command line that runs it in the foreground.

        The container can write nothing but its `/tmp` (engines that TensorRT builds go there), has no capabilities,
        and does not fetch an image. The engine keeps no log of its own, which would grow without bound: this process
        reads it. The admin key is among Triton's arguments, for every user of this machine to read.
        """
        published = zip(
            self.hosts,
            (self.ports.http, self.ports.grpc, self.ports.metrics),
            (INSIDE.http, INSIDE.grpc, INSIDE.metrics),
            strict=True,
        )
        return [
            self.engine,
            "run",
            "--rm",
            "--name",
            self.name,
            "--pull",
            "never",
            "--read-only",
            "--tmpfs",
            "/tmp:rw,exec,size=8g",  # noqa: S108 - in the container
            "--cap-drop",
            "ALL",
            "--security-opt",
            "no-new-privileges",
            "--shm-size",
            self.shared_memory,
            "--ulimit",
            f"stack={STACK_BYTES}:{STACK_BYTES}",
            "--log-driver",
            "none",
            "--stop-timeout",
            str(STOP_SECONDS),
            "--mount",
            f"type=bind,src={self.repository},dst={MODELS},readonly",
            *(
                part
                for host, outside, inside in published
                for part in ("--publish", f"{f'[{host}]' if ':' in host else host}:{outside}:{inside}")
            ),
            *gpu_arguments(self.engine, self.gpus),
            *(part for key, value in sorted(self.environment.items()) for part in ("--env", f"{key}={value}")),
            self.image,
            *triton_arguments(len(self.models), self.admin_key),
        ]


def gpu_arguments(engine: str, gpus: str) -> list[str]:
    """Return the flags that hand GPUs to a container.

    >>> gpu_arguments("docker", "0,1")
    ['--gpus', '"device=0,1"']
    >>> gpu_arguments("podman", "all")
    ['--device', 'nvidia.com/gpu=all']
    """
    if gpus == "none":
        return []
    if gpus != "all" and not all(part.isdigit() for part in gpus.split(",")):
        raise XtError(f"{gpus!r} names no GPUs.", "Expected all, none, or device numbers like 0,1.")
    if engine == "podman":
        return [part for gpu in gpus.split(",") for part in ("--device", f"nvidia.com/gpu={gpu}")]
    # Docker reads the value as one line of CSV, so the comma between devices needs the quotes.
    return ["--gpus", "all" if gpus == "all" else f'"device={gpus}"']


def triton_arguments(models: int, admin_key: str = "") -> list[str]:
    """Return the server's command in the container, for so many models; admin interfaces are behind a key."""
    restricted = f"{RESTRICTED}:{server_state.KEY_HEADER}={admin_key}"
    return [
        "tritonserver",
        f"--model-repository={MODELS}",
        "--model-control-mode=explicit",
        "--load-model=*",
        f"--model-load-thread-count={max(4, 2 * models)}",  # one that waits for another holds a thread
        "--exit-on-error=true",
        f"--exit-timeout-secs={EXIT_SECONDS}",
        "--disable-auto-complete-config",
        "--http-address=0.0.0.0",  # the container's own; `--publish` says who reaches it
        f"--http-port={INSIDE.http}",
        "--grpc-address=0.0.0.0",
        f"--grpc-port={INSIDE.grpc}",
        "--metrics-address=0.0.0.0",
        f"--metrics-port={INSIDE.metrics}",
        *([f"--http-restricted-api={restricted}", f"--grpc-restricted-protocol={restricted}"] if admin_key else []),
    ]


def find_engine(engine: str | None = None) -> str:
    """Return the engine to use, its daemon asked whether it answers; XtError that says what is missing."""
    if engine is not None and engine not in ENGINES:
        raise XtError(f"{engine!r} runs no containers that xt knows.", f"Known: {', '.join(ENGINES)}.")
    found = [name for name in ([engine] if engine else ENGINES) if shutil.which(name)]
    hint = "Install Docker or Podman, or serve with the wheel's Triton: xt serve REPO --engine wheel."
    if not found:
        raise XtError(f"There is no {engine or 'docker and no podman'} on this machine.", hint)
    problems = []
    for name in found:
        try:
            answer = subprocess.run([name, "info"], capture_output=True, text=True, timeout=20)
        except subprocess.TimeoutExpired:
            problems.append(f"{name} did not answer within 20 s")
            continue
        said = answer.stderr.strip().splitlines()
        if answer.returncode == 0 and not any("annot connect" in line for line in said):
            return name
        telling = [line for line in said if "rror" in line or "annot" in line or "denied" in line] or said
        problems.append(f"{name}: {telling[-1].strip() if telling else f'code {answer.returncode}'}")
    raise XtError(
        f"No container engine answers: {'; '.join(problems)}.",
        "Start it, or ask to be allowed to use it; or serve with the wheel's Triton: xt serve REPO --engine wheel.",
    )


def check_image(engine: str, image: str) -> None:
    """Raise XtError that says how to get an image that is not here: nothing of many GB is fetched unasked."""
    if subprocess.run([engine, "image", "inspect", image], capture_output=True).returncode == 0:
        return
    get = f"{engine} build -f deploy/Dockerfile -t {IMAGE} ." if image == IMAGE else f"{engine} pull {image}"
    raise XtError(f"There is no image {image} on this machine.", f"Get it (some 10 GB) with: {get}")


def choose_gpus(gpus: str, models: Mapping[str, Artifact]) -> str:
    """Resolve `auto`: all GPUs where there is one. XtError when a model needs one and none is given."""
    there = os.path.exists("/dev/nvidiactl")
    chosen = ("all" if there else "none") if gpus == "auto" else gpus
    needing = sorted(name for name, model in models.items() if model.facts.get("device") == "gpu")
    if chosen == "none" and needing:
        raise XtError(
            f"{', '.join(needing)} needs a GPU, and " + ("none was given." if there else "this machine has none."),
            "Pass --gpus all, or export with --device cpu.",
        )
    return chosen


class DockerServer:
    """A server in a container; use it as a context manager, like `xt.serve.triton.launcher.TritonServer`.

    Leaving the block, also by an error or Ctrl-C, stops and removes the container.
    """

    def __init__(
        self,
        repository: Path,
        *,
        http_host: str = "127.0.0.1",
        grpc_host: str = "127.0.0.1",
        metrics_host: str = "127.0.0.1",
        ports: Ports | None = None,
        image: str | None = None,
        gpus: str = "auto",
        engine: str | None = None,
        environment: Mapping[str, str] | None = None,
        admin_key: str | None = None,
        trust_code: bool = False,
        report: Callable[[str], None] | None = None,
        start_seconds: float = CONTAINER_START_SECONDS,
    ) -> None:
        """Prepare a server; `start`, or entering the block, runs it.

        Args:
            repository: what `xt export` wrote; it is mounted read-only.
            http_host: the address of this machine that Triton's HTTP is published on.
            grpc_host: likewise of gRPC.
            metrics_host: likewise of the metrics.
            ports: on this machine; None: free ones.
            image: None: `IMAGE`.
            gpus: `auto`, `all`, `none`, or device numbers: `0,1`.
            engine: `docker` or `podman`; None: the first that answers.
            environment: for the container.
            admin_key: opens Triton's admin interfaces (header `xt-admin-key`); None: a random one.
            trust_code: run also code that no release of xt wrote: see `xt.serve.triton.model_code`.
            report: is given every line of the server's log; None: kept for `log_tail` alone.
            start_seconds: how long the start may take until all models are ready; 0: no limit.
        """
        check_limit(start_seconds)
        self.start_seconds = start_seconds
        self.repository = repository.resolve()
        self.http_host, self.grpc_host, self.metrics_host = http_host, grpc_host, metrics_host
        self.ports = ports or Ports(*free_ports())
        self.name = f"xt-{os.getpid()}-{secrets.token_hex(4)}"
        self.image = image or IMAGE
        self.admin_key = server_state.check_key(admin_key or secrets.token_urlsafe(32), "the server")
        self.models = open_models(self.repository, trust_code=trust_code)
        self._artifacts = {n: Artifact(self.repository / n, read_manifest(self.repository / n)) for n in self.models}
        self._wanted_engine, self._gpus = engine, gpus
        self._environment = dict(environment or {})
        if start_seconds != CONTAINER_START_SECONDS:
            self._environment.setdefault(server_state.START_VARIABLE, f"{start_seconds:g}")
        self._report = report
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._engine = ""

    @property
    def url(self) -> str:
        """HOST:PORT of the gRPC endpoint, as `--url` takes it."""
        return f"{reachable(self.grpc_host)}:{self.ports.grpc}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus reads."""
        return f"http://{reachable(self.metrics_host)}:{self.ports.metrics}/metrics"

    def __enter__(self) -> DockerServer:
        if self._process is None:  # `run` gives one that is started
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Run the container and wait until every model is ready."""
        ports = (self.ports.http, self.ports.grpc, self.ports.metrics)
        hosts = (self.http_host, self.grpc_host, self.metrics_host)
        for option, host, port in zip(OPTIONS, hosts, ports, strict=True):
            check_port(host, port, option)
        if len(set(ports)) < 3:
            raise XtError(f"Two of the ports {', '.join(map(str, ports))} are the same.", "Choose three.")
        if "," in str(self.repository):
            raise XtError(f"A container cannot be given {self.repository}: its path holds a comma.", "Move it.")
        gpus = choose_gpus(self._gpus, self._artifacts)
        self._engine = find_engine(self._wanted_engine)
        check_image(self._engine, self.image)
        container = Container(
            engine=self._engine,
            image=self.image,
            name=self.name,
            repository=self.repository,
            models=self.models,
            hosts=hosts,
            ports=self.ports,
            gpus=gpus,
            admin_key=self.admin_key,
            environment=self._environment,
        )
        try:
            # A session of its own: Ctrl-C reaches this process alone, which then stops the container in order.
            self._process = subprocess.Popen(
                container.arguments(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env={k: v for k, v in os.environ.items() if k not in server_state.SECRETS},
                start_new_session=True,
            )
            self._reader = threading.Thread(target=self._read_log, args=(self._process,), daemon=True)
            self._reader.start()
            self._wait_ready()
        except BaseException:
            self.stop()
            raise

    def _read_log(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._log.append(line.rstrip("\n"))
            if self._report is not None:
                self._report(line.rstrip("\n"))

    def _wait_ready(self) -> None:
        patience = Patience(self.start_seconds, self._report or (lambda line: None))
        while patience.lasts(lambda: f"the container to load {', '.join(self.models)}"):
            assert self._process is not None
            if self._process.poll() is not None:
                self._join_reader()
                raise XtError(
                    f"The container ended with code {self._process.returncode} before it was ready:\n{self.log_tail()}",
                    "The lines above say which model or port failed.",
                )
            try:
                if TritonHttp(reachable(self.http_host), self.ports.http).is_ready(2):
                    return
            except ERRORS:
                pass
            time.sleep(0.2)
        raise XtError(
            f"The container was not ready within {self.start_seconds:g} s:\n{self.log_tail()}",
            too_slow(self.start_seconds),
        )

    def _join_reader(self) -> None:
        if self._reader is not None:
            self._reader.join(5)

    def log_tail(self, lines: int = 15) -> str:
        """Return the end of the server's log, errors first in mind."""
        text = list(self._log)
        telling = [line for line in text if line.startswith(("E", "W")) or "rror" in line]
        return "\n".join((telling or text)[-lines:])

    def alive(self) -> bool:
        """Whether the container runs."""
        return self._process is not None and self._process.poll() is None

    def wait(self) -> int:
        """Block until the server ends by itself; give its exit code."""
        assert self._process is not None
        return self._process.wait()

    def stop(self) -> None:
        """Stop the container, requests under way answered, and remove it; may be called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            self._tell("stop", "--time", str(STOP_SECONDS), self.name, seconds=STOP_SECONDS + 15)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            self._tell("rm", "--force", self.name, seconds=30)
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        self._join_reader()

    def _tell(self, *command: str, seconds: float) -> None:
        """Give the engine a command about our container; one that fails is followed by a harder one, so it may."""
        try:
            subprocess.run([self._engine, *command], capture_output=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            pass


def run(
    repository: Path,
    *,
    http_host: str = "127.0.0.1",
    grpc_host: str = "127.0.0.1",
    metrics_host: str = "127.0.0.1",
    ports: Ports | None = None,
    image: str | None = None,
    gpus: str = "auto",
    engine: str | None = None,
    environment: Mapping[str, str] | None = None,
    admin_key: str | None = None,
    trust_code: bool = False,
    report: Callable[[str], None] | None = None,
    start_seconds: float = CONTAINER_START_SECONDS,
) -> DockerServer:
    """Serve a repository by a container and wait until it is ready; see `DockerServer`. Stop it by `stop` or `with`."""
    server = DockerServer(
        repository,
        http_host=http_host,
        grpc_host=grpc_host,
        metrics_host=metrics_host,
        ports=ports,
        image=image,
        gpus=gpus,
        engine=engine,
        environment=environment,
        admin_key=admin_key,
        trust_code=trust_code,
        report=report,
        start_seconds=start_seconds,
    )
    server.start()
    return server
