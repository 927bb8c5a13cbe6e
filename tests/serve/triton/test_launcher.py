"""The real Triton, started and stopped in every way: it serves, and leaves no process, memory or port behind.

Tests `serve/triton/addresses.py` and `serve/triton/wheel.py` as well.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, new_artifact, read_manifest
from xt.serve.client.encoder import TritonEncoder
from xt.serve.triton import addresses, launcher, wheel
from xt.serve.triton.addresses import Hosts, Ports, free_ports
from xt.serve.triton.launcher import TritonServer
from xt.serve.triton.reload import ServerAccess, reload


def processes(prefix: str) -> dict[int, str]:
    """The processes whose command line names the server: tritonserver itself and its model processes."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if prefix in command:
                found[int(folder.name)] = command
    return found


def shared_memory(prefix: str) -> list[str]:
    return [name for name in os.listdir("/dev/shm") if prefix in name]


def scratch_folders() -> set[str]:
    import tempfile

    return {p.name for p in Path(tempfile.gettempdir()).glob("xt-triton-*")}


def nothing_is_left(prefix: str, seconds: float = 0.0) -> bool:
    deadline = time.monotonic() + seconds
    while processes(prefix) or shared_memory(prefix):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def listening() -> set[tuple[str, int]]:
    """(hexadecimal address, port) of every listening TCP socket, IPv4 and IPv6."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                address, port = fields[1].split(":")
                found.add((address, int(port, 16)))
    return found


def test_it_starts_serves_and_stops_without_a_trace(tiny_repository):
    before = scratch_folders()
    with TritonServer(tiny_repository) as server:
        assert server.alive()
        assert server.models == ["encoder"]
        commands = processes(server.prefix).values()
        assert sum("bin/tritonserver" in c for c in commands) == 1
        assert sum("triton_python_backend_stub" in c for c in commands) == 1
        assert shared_memory(server.prefix)
        encoder = TritonEncoder(server.url)
        assert encoder.encode(["good morning"]).vectors.shape == (1, 32)
        encoder.close()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.ports.metrics}/metrics") as answer:
            assert b'nv_inference_count{model="encoder"' in answer.read()
    assert not server.alive()
    assert nothing_is_left(server.prefix)
    assert not {p for _, p in listening()} & {server.ports.http, server.ports.grpc, server.ports.metrics}
    assert not [name for name in scratch_folders() - before if server.prefix in name]
    server.stop()  # a second time is harmless


@pytest.mark.parametrize("error", [RuntimeError("ours"), KeyboardInterrupt()])
def test_an_error_inside_the_block_stops_it_and_is_passed_on(tiny_repository, error):
    with pytest.raises(type(error)), TritonServer(tiny_repository) as server:
        assert len(processes(server.prefix)) == 2
        scratch = Path(server._scratch.name)
        raise error
    assert nothing_is_left(server.prefix)
    assert not scratch.exists()


def test_a_model_process_that_hangs_is_killed_with_its_server(tiny_repository):
    with TritonServer(tiny_repository) as server:
        for pid, command in processes(server.prefix).items():
            if "stub" in command:
                os.kill(pid, signal.SIGSTOP)
        launcher_stop, launcher.STOP_SECONDS = launcher.STOP_SECONDS, 1.0
        try:
            server.stop()
        finally:
            launcher.STOP_SECONDS = launcher_stop
    assert nothing_is_left(server.prefix)


def test_a_killed_parent_takes_the_server_along(tiny_repository, tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from xt.serve.triton.launcher import TritonServer\n"
        f"with TritonServer(Path({str(tiny_repository)!r})) as s: print(s.prefix, flush=True); time.sleep(300)"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}  # nobody is left to remove the server's folder
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=env)
    try:
        prefix = parent.stdout.readline().strip()
        assert re.fullmatch(r"xt\d+p[0-9a-f]{8}", prefix)
        assert len(processes(prefix)) == 2
    finally:
        parent.kill()
        parent.wait()
    assert nothing_is_left(prefix, seconds=15)


def test_two_servers_run_side_by_side_and_end_apart(server, tiny_repository):
    with TritonServer(tiny_repository) as other:
        assert other.prefix != server.prefix
        assert not set(vars(other.ports).values()) & set(vars(server.ports).values())
        a, b = TritonEncoder(server.url), TritonEncoder(other.url)
        assert (a.encode(["the cat"]).vectors == b.encode(["the cat"]).vectors).all()
        b.close()
    assert nothing_is_left(other.prefix)
    assert server.alive()
    assert a.encode(["the cat"]).vectors.shape == (1, 32)
    a.close()


def test_it_listens_on_the_loopback_address_alone(server):
    ports = {server.ports.http, server.ports.grpc, server.ports.metrics}
    loopback = ("0100007F", "0000000000000000FFFF00000100007F")  # 127.0.0.1 in the kernel's byte order, and over IPv6
    found = [(address, port) for address, port in listening() if port in ports]
    assert {port for _, port in found} == ports
    assert {address for address, _ in found} <= set(loopback)


@pytest.mark.parametrize(("index", "option"), [(0, "--http-port"), (1, "--grpc-port"), (2, "--metrics-port")])
def test_an_occupied_port_is_named_with_its_option_before_anything_starts(tiny_repository, index, option):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        ports = free_ports()
        ports[index] = taken
        server = TritonServer(tiny_repository, ports=Ports(*ports))
        with pytest.raises(XtError, match=f"Port {taken} on 127.0.0.1 cannot be used: Address already in use") as error:
            server.start()
    assert option in error.value.hint
    assert nothing_is_left(server.prefix)


@pytest.mark.parametrize("port", [0, -1, 65536, 700000])
def test_a_number_that_is_no_port_is_refused(tiny_repository, port):
    server = TritonServer(tiny_repository, ports=Ports(*free_ports(2), port))
    with pytest.raises(XtError, match=f"--metrics-port {port} is no port") as error:
        server.start()
    assert "65535" in error.value.hint


def test_one_port_twice_is_refused(tiny_repository):
    a, b = free_ports(2)
    with pytest.raises(XtError, match=f"Two of the ports {a}, {b}, {a} are the same"):
        TritonServer(tiny_repository, ports=Ports(a, b, a)).start()


def test_an_address_that_is_not_ours_is_refused(tiny_repository):
    with pytest.raises(XtError, match=r"on 192\.0\.2\.1 cannot be used"):  # TEST-NET-1: no machine has it
        TritonServer(tiny_repository, hosts=Hosts(grpc="192.0.2.1")).start()


def test_free_ports_are_different_and_can_be_listened_on():
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports[:3]:
        addresses.check_port("127.0.0.1", port, "--x")


def missing(repository: Path) -> None:
    shutil.rmtree(repository)


def empty(repository: Path) -> None:
    shutil.rmtree(repository / "encoder")


def flipped(repository: Path) -> None:
    file = repository / "encoder" / "1" / "model.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def without_manifest(repository: Path) -> None:
    (repository / "encoder" / MANIFEST).unlink()


def edited_code(repository: Path) -> None:
    file = repository / "encoder" / "1" / "model.py"
    file.write_text(file.read_text() + "\n")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (missing, "There is no folder"),
        (empty, "holds no model"),
        (flipped, r"1/model\.onnx: content differs"),
        (without_manifest, f"has no {MANIFEST}"),
        (edited_code, r"1/model\.py: \d+ bytes, expected"),
    ],
)
def test_a_spoilt_repository_is_refused_before_any_process_starts(tiny_repository, tmp_path, spoil, message):
    repository = Path(shutil.copytree(tiny_repository, tmp_path / "repository"))
    spoil(repository)
    with pytest.raises(XtError, match=message):
        TritonServer(repository)
    assert not processes(str(repository))


def rewritten(source: Path, target: Path, change) -> None:
    """Copy a model folder, change it, and write a manifest that fits."""
    manifest = read_manifest(source)
    with new_artifact(target, kind="model") as draft:
        shutil.copytree(source, draft.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        change(draft.path)
        draft.facts, draft.parents = manifest["facts"], manifest["parents"]


def test_a_model_whose_golden_vectors_fail_does_not_become_ready(tiny_repository, tmp_path):
    def change(folder: Path) -> None:
        golden = json.loads((folder / "1" / "golden.json").read_text())
        golden["vectors"].reverse()
        (folder / "1" / "golden.json").write_text(json.dumps(golden))

    rewritten(tiny_repository / "encoder", tmp_path / "repository" / "encoder", change)
    server = TritonServer(tmp_path / "repository")  # every hash fits
    with pytest.raises(XtError, match=r"before it was ready(.|\n)*gives other vectors than at export: cosine -?0\.\d+"):
        server.start()
    assert nothing_is_left(server.prefix)


def test_model_code_that_does_not_run_shows_its_error(tiny_repository, tmp_path):
    def change(folder: Path) -> None:
        (folder / "1" / "model.py").write_text("raise ValueError('this model is ours')\n")

    rewritten(tiny_repository / "encoder", tmp_path / "repository" / "encoder", change)
    with pytest.raises(XtError, match=r"encoder/1/model\.py: not the code that any release of xt wrote"):
        TritonServer(tmp_path / "repository")
    server = TritonServer(tmp_path / "repository", trust_code=True)
    with pytest.raises(XtError, match="this model is ours"):
        server.start()
    assert nothing_is_left(server.prefix)


def test_a_server_that_is_not_ready_in_time_is_stopped(tiny_repository):
    server = TritonServer(tiny_repository, start_seconds=0.01)
    with pytest.raises(XtError, match=r"not ready within 0.01 s; it waited for the model encoder:") as failed:
        server.start()
    assert "--start-timeout (0: no limit)" in failed.value.hint
    assert nothing_is_left(server.prefix, seconds=2)


def test_the_served_process_maps_onnx_runtime_but_no_torch(server):
    (stub,) = [pid for pid, command in processes(server.prefix).items() if "stub" in command]
    maps = Path(f"/proc/{stub}/maps").read_text()
    assert "onnxruntime" in maps
    assert "tokenizers" in maps
    assert "libtorch" not in maps
    assert "/torch/" not in maps


def test_a_server_runs_without_a_place_to_note_its_state(tiny_repository, monkeypatch):
    monkeypatch.setenv("XT_CACHE", "/dev/null/x")  # where not even root can make a folder
    said = []
    with TritonServer(tiny_repository, report=said.append) as server:
        assert server.alive()
        assert len([line for line in said if "was not noted" in line and "XT_CACHE" in line]) == 1
        with pytest.raises(XtError, match="its state is not known here"):
            reload(server.url)
        found = reload(server.url, access=ServerAccess(tiny_repository, server.admin_key, server.ports.http))
        assert found.after == read_manifest(tiny_repository / "encoder")["hash"]
    assert nothing_is_left(server.prefix)


def test_the_environment_that_is_asked_for_reaches_the_server(tiny_repository):
    with TritonServer(tiny_repository, environment={"XT_TEST_MARK": "here"}) as server:
        for pid in processes(server.prefix):
            assert b"XT_TEST_MARK=here" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def test_the_wheel_is_found_with_a_stub_for_this_python():
    found = wheel.find_wheel()
    assert os.access(found.binary, os.X_OK)
    assert found.stub.parent.name == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert list(found.libpython.glob(f"libpython3.{sys.version_info.minor}.so*"))


def test_a_missing_wheel_is_named(monkeypatch):
    monkeypatch.setattr(sys, "path", ["/nowhere"])
    with pytest.raises(XtError, match="'nvidia-pytriton' is not installed") as error:
        wheel.find_wheel()
    assert "container" in error.value.hint
