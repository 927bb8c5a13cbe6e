"""Serving by a container: the command that is run, what is refused before it, and its life from start to stop.

No daemon answers where these tests usually run. The command line is therefore put before the real `docker` program,
which checks flags before it looks for its daemon, and the life cycle before a program that runs the real Triton instead.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from xt.core.errors import XtError
from xt.core.files.artifact import Artifact
from xt.serve.triton import docker
from xt.serve.triton.docker import Container, DockerServer
from xt.serve.triton.launcher import Ports

KEY = "0123456789abcdefghij"


def container(**changes) -> Container:
    given = {
        "engine": "docker",
        "image": "xt-triton:1",
        "name": "xt-1",
        "repository": Path("/srv/models"),
        "models": ["a", "b"],
        "hosts": ("127.0.0.1",) * 3,
        "ports": Ports(9000, 9001, 9002),
        "admin_key": KEY,
    }
    return Container(**{**given, **changes})


def values(arguments: list[str], flag: str) -> list[str]:
    return [b for a, b in zip(arguments, arguments[1:], strict=False) if a == flag]


def test_ports_are_published_on_the_host_alone_and_the_repository_is_read_only():
    found = container().arguments()
    assert values(found, "--publish") == ["127.0.0.1:9000:8000", "127.0.0.1:9001:8001", "127.0.0.1:9002:8002"]
    assert values(found, "--mount") == ["type=bind,src=/srv/models,dst=/models,readonly"]
    assert {"--read-only", "--rm"} <= set(found)
    assert values(found, "--cap-drop") == ["ALL"]
    assert values(found, "--pull") == ["never"]
    assert "--privileged" not in found
    assert not {"--network", "--net"} & set(found)


def test_an_address_of_ipv6_is_bracketed():
    assert values(container(hosts=("::1",) * 3).arguments(), "--publish")[0] == "[::1]:9000:8000"


def test_the_servers_command_follows_the_image_and_its_admin_interfaces_need_the_key():
    found = container().arguments()
    server = found[found.index("xt-triton:1") + 1 :]
    assert server == docker.triton_arguments(2, KEY)
    assert server[0] == "tritonserver"
    for option in ("--http-restricted-api", "--grpc-restricted-protocol"):
        (given,) = [a for a in server if a.startswith(option)]
        assert given.endswith(f":xt-admin-key={KEY}")
        assert {"model-repository", "shared-memory", "logging", "trace", "statistics"} == set(
            given.removeprefix(f"{option}=").split(":")[0].split(",")
        )
    assert KEY not in repr(container())


@pytest.mark.parametrize(
    ("engine", "gpus", "expected"),
    [
        ("docker", "none", []),
        ("docker", "all", ["--gpus", "all"]),
        ("docker", "0,1", ["--gpus", '"device=0,1"']),
        ("podman", "0,1", ["--device", "nvidia.com/gpu=0", "--device", "nvidia.com/gpu=1"]),
    ],
)
def test_gpus_are_asked_for_as_the_engine_spells_it(engine, gpus, expected):
    assert docker.gpu_arguments(engine, gpus) == expected
    found = container(engine=engine, gpus=gpus).arguments()
    assert " ".join(expected) in " ".join(found)
    assert ("--gpus" in found or "--device" in found) == bool(expected)


@pytest.mark.parametrize("gpus", ["two", "0,", "", "-1", "0;1"])
def test_what_names_no_gpu_is_refused(gpus):
    with pytest.raises(XtError, match="names no GPUs"):
        docker.gpu_arguments("docker", gpus)


def test_a_model_for_a_gpu_is_not_started_without_one(tmp_path):
    models = {"x_graph": Artifact(tmp_path, {"facts": {"device": "gpu"}}), "x": Artifact(tmp_path, {"facts": {}})}
    with pytest.raises(XtError) as error:
        docker.choose_gpus("none", models)
    assert error.value.message.startswith("x_graph needs a GPU")
    assert docker.choose_gpus("none", {"x": models["x"]}) == "none"
    assert docker.choose_gpus("0", models) == "0"
    assert docker.choose_gpus("auto", {"x": models["x"]}) == ("all" if os.path.exists("/dev/nvidiactl") else "none")


def real_docker() -> str:
    if shutil.which("docker") is None:
        pytest.skip("there is no docker program")
    if subprocess.run(["docker", "info"], capture_output=True, text=True).stderr.find("annot connect") < 0:
        pytest.skip("a docker daemon answers: the command would be run")
    return "docker"


@pytest.mark.parametrize("gpus", ["none", "all", "0,1"])
def test_the_real_docker_takes_the_command_and_misses_its_daemon_alone(gpus):
    real_docker()
    found = container(gpus=gpus, environment={"A": "b"}).arguments()
    answer = subprocess.run(found, capture_output=True, text=True, timeout=60)
    assert "Cannot connect to the Docker daemon" in answer.stderr
    wrong = subprocess.run([*found[:2], "--nonsense", *found[2:]], capture_output=True, text=True, timeout=60)
    assert "unknown flag: --nonsense" in wrong.stderr


def test_without_a_daemon_the_error_says_so_and_what_else_to_do():
    real_docker()
    with pytest.raises(XtError) as error:
        docker.find_engine("docker")
    assert "Cannot connect to the Docker daemon" in error.value.message
    assert "--engine wheel" in error.value.hint


def test_without_docker_and_podman_the_error_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(XtError, match="There is no docker and no podman on this machine"):
        docker.find_engine()
    with pytest.raises(XtError, match="There is no podman on this machine"):
        docker.find_engine("podman")


def test_an_engine_that_xt_does_not_know_is_refused():
    with pytest.raises(XtError, match="'rkt' runs no containers"):
        docker.find_engine("rkt")


STAND_IN = """
    #!{python}
    # A container engine that has no containers: `run` starts a server that says it is ready, and prints what it was given.
    import http.server, json, os, signal, sys, threading
    state = {state!r}
    command = sys.argv[1:]
    with open(state + "/calls", "a") as file:
        file.write(json.dumps(command) + "\\n")
    if command[0] == "image":
        sys.exit(0 if os.path.exists(state + "/image") else 1)
    if command[0] == "stop":
        os.kill(int(open(state + "/pid").read()), signal.SIGTERM)
    if command[0] == "run":
        open(state + "/pid", "w").write(str(os.getpid()))
        print("I starting")
        if os.path.exists(state + "/broken"):
            print("E failed to load 'encoder': out of memory", flush=True)
            sys.exit(1)
        host, port, _ = command[command.index("--publish") + 1].rsplit(":", 2)

        class Ready(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200 if self.path == "/v2/health/ready" else 404)
                self.end_headers()

            def log_message(self, *args):
                pass

        server = http.server.HTTPServer((host, int(port)), Ready)
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        print("I ready", flush=True)
        server.serve_forever()
"""


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """A `docker` before all others in PATH; gives the folder of its state."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "image").touch()
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(textwrap.dedent(STAND_IN.format(python=sys.executable, state=str(state))).lstrip())
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return state


@pytest.fixture
def repository(tmp_path):
    """A repository of one model; the stand-in does not read it."""
    from xt.core.files.artifact import new_artifact

    with new_artifact(tmp_path / "repository" / "encoder", kind="model") as draft:
        (draft.path / "config.pbtxt").write_text('name: "encoder" backend: "python"')
    return tmp_path / "repository"


def test_it_starts_waits_logs_and_stops(engine, repository):
    lines: list[str] = []
    with docker.run(repository, gpus="none", report=lines.append, start_seconds=20) as server:
        assert server.alive()
        assert server.models == ["encoder"]
        assert server.url == f"127.0.0.1:{server.ports.grpc}"
        pid = int((engine / "pid").read_text())
        assert "I ready" in server.log_tail()
        assert lines[0] == "I starting"
    assert not server.alive()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    calls = [line.split('"')[1] for line in (engine / "calls").read_text().splitlines()]
    assert calls == ["info", "image", "run", "stop"]
    server.stop()  # a second time is harmless


def test_ctrl_c_stops_the_container(engine, repository):
    with pytest.raises(KeyboardInterrupt), DockerServer(repository, gpus="none") as server:
        raise KeyboardInterrupt
    assert not server.alive()
    assert '"stop"' in (engine / "calls").read_text()


def test_a_container_that_ends_at_once_is_told_with_its_log(engine, repository):
    (engine / "broken").touch()
    with pytest.raises(XtError) as error:
        docker.run(repository, gpus="none", start_seconds=20)
    assert "ended with code 1 before it was ready" in error.value.message
    assert "out of memory" in error.value.message


def test_wait_gives_the_code_of_a_server_that_ended_by_itself(engine, repository):
    import signal

    with docker.run(repository, gpus="none", start_seconds=20) as server:
        os.kill(int((engine / "pid").read_text()), signal.SIGKILL)
        assert server.wait() == -9


def test_an_image_that_is_not_there_is_not_fetched(engine, repository):
    (engine / "image").unlink()
    with pytest.raises(XtError) as error:
        docker.run(repository, gpus="none")
    assert error.value.message == f"There is no image {docker.IMAGE} on this machine."
    assert f"docker build -f deploy/Dockerfile -t {docker.IMAGE} ." in error.value.hint
    with pytest.raises(XtError) as error:
        docker.run(repository, gpus="none", image=docker.NVIDIA_IMAGE)
    assert f"docker pull {docker.NVIDIA_IMAGE}" in error.value.hint
    assert '"run"' not in (engine / "calls").read_text()


def test_two_equal_ports_are_refused_before_anything_is_run(engine, repository):
    from xt.serve.triton.launcher import free_ports

    a, b = free_ports(2)
    with pytest.raises(XtError, match="are the same"):
        docker.run(repository, gpus="none", ports=Ports(a, b, a))
    assert not (engine / "calls").exists()


def test_one_that_never_gets_ready_is_stopped(engine, repository, monkeypatch):
    monkeypatch.setattr(docker, "reachable", lambda host: "127.0.0.2")  # where nothing listens
    start = time.monotonic()
    with pytest.raises(XtError, match="not ready within 2 s"):
        docker.run(repository, gpus="none", start_seconds=2)
    assert time.monotonic() - start < 15
    with pytest.raises(ProcessLookupError):
        os.kill(int((engine / "pid").read_text()), 0)
