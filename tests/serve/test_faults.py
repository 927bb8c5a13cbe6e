"""What happens when something is killed, cut short or full while requests are under way.

Tests `serve/triton/watch.py` as well.
"""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from xt.core.encoder.onnx_engine import load_model
from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, new_artifact, read_manifest
from xt.serve import Client
from xt.serve.client import errors as client_errors
from xt.serve.triton import launcher, server_state, watch
from xt.serve.triton.launcher import TritonServer
from xt.serve.triton.processes import model_processes
from xt.serve.triton.reload import reload

SOAK = runpy.run_path(str(Path(__file__).with_name("soak.py")))
Callers, retryable, TEXTS = SOAK["Callers"], SOAK["retryable"], SOAK["sentences"](64)


@pytest.fixture(scope="module")
def reference(tiny_repository):
    return load_model(tiny_repository / "encoder", device="cpu", threads=1)[0].encode(TEXTS).vectors


def until(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_a_killed_model_process_is_replaced_and_callers_who_try_again_are_all_answered(tiny_repository, reference):
    said: list[str] = []
    with TritonServer(tiny_repository, report=said.append) as server:
        (model,) = model_processes(server.prefix)
        with Callers(server.url, TEXTS, reference, callers=6, size=4, patience=30) as load:
            load.until(30)
            killed = time.monotonic()
            os.kill(model.pid, signal.SIGKILL)
            until(lambda: server.restarts == 1)
            load.until(30)
        assert not load.lost
        failed = [o for o in load.outcomes if o.error]
        assert failed
        assert all(retryable(o.error) for o in failed), load.errors()
        assert min(o.ended for o in failed) >= killed
        # Lost is at most what each caller had in flight; nobody hangs until his own deadline.
        assert sum(o.sent < killed for o in failed) <= 6
        assert max(o.ended - o.sent for o in load.outcomes) < 5
        # Now and then Triton aborts over the death, or hangs.
        assert re.fullmatch(r"A process of the model 'encoder' died(, and .*)?; the server is started anew.", said[0])
        assert said[1:] == ["The server is ready again."]
        assert server_state.find(server.url).admin_key == server.admin_key


def test_a_killed_server_comes_back_when_that_was_asked_for(tiny_repository, reference):
    with TritonServer(tiny_repository, restart=True) as server:
        with Callers(server.url, TEXTS, reference, callers=4, patience=30) as load:
            load.until(30)
            server._process.kill()
            until(lambda: server.restarts == 1)
            load.until(30)
        assert not load.lost
        assert load.errors()
        assert all(retryable(error) for error in load.errors()), load.errors()
        assert len(model_processes(server.prefix)) == 1  # that of the dead server is gone
        assert not reload(server.url).changed


def test_a_killed_server_stays_dead_when_it_was_not(tiny_repository):
    with TritonServer(tiny_repository) as server:
        server._process.kill()
        assert server.wait() == -signal.SIGKILL
        assert server.ended == "Triton ended by itself with code -9"
        assert not model_processes(server.prefix)
        assert server.restarts == 0


def test_a_server_that_dies_again_and_again_is_given_up(tiny_repository, monkeypatch):
    monkeypatch.setattr(launcher, "RESTARTS_A_MINUTE", 2)
    with TritonServer(tiny_repository, restart=True) as server:
        for restarts in (1, 2):
            server._process.kill()
            until(lambda wanted=restarts: server.restarts == wanted)
        server._process.kill()
        assert server.wait() == -signal.SIGKILL
        assert re.search(r"code -9; it was started anew 2 times within a minute", server.ended)
        assert not server.alive()


def test_a_server_that_hangs_is_started_anew_when_that_was_asked_for(tiny_repository, reference, monkeypatch):
    """A stopped process stands for one that hangs: it is there, its ports take connections, and nothing answers."""
    monkeypatch.setattr(watch, "LIVE_SECONDS", 0.5)
    said: list[str] = []
    with TritonServer(tiny_repository, restart=True, report=said.append) as server:
        with Callers(server.url, TEXTS, reference, callers=4, patience=30) as load:
            load.until(30)
            hung = server._process
            os.kill(hung.pid, signal.SIGSTOP)
            until(lambda: server.restarts == 1)
            load.until(30)
        assert hung.returncode == -signal.SIGKILL
        assert not load.lost
        assert all(retryable(error) for error in load.errors()), load.errors()
        assert said == [
            "Triton hangs: it left 3 questions in a row unanswered; the server is started anew.",
            "The server is ready again.",
        ]


def test_a_server_that_hangs_is_ended_when_it_was_not(tiny_repository, monkeypatch):
    monkeypatch.setattr(watch, "LIVE_SECONDS", 0.5)
    with TritonServer(tiny_repository) as server:
        os.kill(server._process.pid, signal.SIGSTOP)
        assert server.wait() == -signal.SIGKILL
        assert server.ended == "Triton hangs: it left 3 questions in a row unanswered"
        assert not model_processes(server.prefix)
        assert server.restarts == 0


def test_a_server_that_hangs_over_a_dead_model_process_is_started_anew_in_any_case(tiny_repository, monkeypatch):
    monkeypatch.setattr(watch, "LIVE_SECONDS", 0.5)
    said: list[str] = []
    with TritonServer(tiny_repository, report=said.append) as server:
        (model,) = model_processes(server.prefix)
        os.kill(server._process.pid, signal.SIGSTOP)
        os.kill(model.pid, signal.SIGKILL)
        until(lambda: server.restarts == 1)
        assert said[0] == "A process of the model 'encoder' died, and Triton hangs; the server is started anew."


def test_a_server_that_aborts_over_a_dead_model_process_is_started_anew_in_any_case(tiny_repository):
    said: list[str] = []
    with TritonServer(tiny_repository, report=said.append) as server:
        (model,) = model_processes(server.prefix)
        os.kill(model.pid, signal.SIGKILL)
        os.kill(server._process.pid, signal.SIGABRT)
        until(lambda: server.restarts == 1)
        assert "A process of the model 'encoder' died, and Triton with it (code -6)" in said[0]


def test_a_server_that_stalls_for_less_than_three_questions_is_left_alone(tiny_repository, reference, monkeypatch):
    monkeypatch.setattr(watch, "LIVE_SECONDS", 0.5)
    with TritonServer(tiny_repository, restart=True) as server:
        with Callers(server.url, TEXTS, reference, callers=4) as load:
            for _ in range(2):
                load.until(10)
                os.kill(server._process.pid, signal.SIGSTOP)
                time.sleep(2)  # at most two questions of 0.5 s each, a second and more apart
                os.kill(server._process.pid, signal.SIGCONT)
                load.until(10)
                time.sleep(watch.LIVE_EVERY + 0.5)  # one that is answered
        assert not load.errors()
        assert server.restarts == 0


def test_a_server_that_is_told_to_end_answers_what_is_in_flight(tiny_repository, tmp_path):
    texts = SOAK["sentences"](256)
    with new_artifact(tmp_path / "encoder", kind="model") as draft:
        source = tiny_repository / "encoder"
        shutil.copytree(source, draft.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        config = draft.path / "config.pbtxt"
        # Without the cache every request is computed, and takes long enough that some are in flight at any time.
        changed = re.sub(r'("cache_megabytes"\s+value:? \{\s*string_value: )"\d+"', r'\1"0"', config.read_text())
        assert changed != config.read_text()
        config.write_text(changed)
        manifest = read_manifest(source)
        draft.facts, draft.parents = manifest["facts"], manifest["parents"]
    reference = load_model(tmp_path / "encoder", device="cpu", threads=1)[0].encode(texts).vectors
    with TritonServer(tmp_path) as server:
        with (
            Callers(server.url, texts, reference, callers=8, size=256) as load,
            Client(server.url, retries=0, timeout_seconds=3) as client,
        ):
            load.until(20)
            time.sleep(0.5)
            told, errors = time.monotonic(), []
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            while stopping.is_alive():
                try:
                    client.encode(texts[:8])
                except XtError as error:
                    errors.append(error)
                    time.sleep(0.01)
            ended = time.monotonic()
        assert errors
        assert all(client_errors.may_retry(error) for error in errors), errors
        before = [o for o in load.outcomes if o.sent < told - 0.3]  # later ones may reach the server after it
        assert len(before) >= 20
        assert any(o.sent < told < o.ended and not o.error for o in load.outcomes)  # in flight when it was told
        assert not [o for o in before if o.error]
        assert all(retryable(error) for error in load.errors()), load.errors()
        assert ended - told < 10


def test_a_full_disk_at_export_leaves_the_old_version_serving(tiny_repository, reference, tmp_path):
    """The repository lies on a disk with space for one model and a half."""
    size = sum(p.stat().st_size for p in (tiny_repository / "encoder").rglob("*") if p.is_file())
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={int(size * 1.5)}", "none", disk], capture_output=True
    ).returncode:
        pytest.skip("mount is not permitted here")
    try:
        repository = disk / "repository"
        shutil.copytree(tiny_repository, repository)
        before = read_manifest(repository / "encoder")
        with TritonServer(repository) as server, Callers(server.url, TEXTS, reference, callers=3) as load:
            load.until(20)
            with (
                pytest.raises(XtError, match="No disk space left"),
                new_artifact(repository / "encoder", kind="model", force=True) as draft,
            ):
                ignored = shutil.ignore_patterns(MANIFEST)
                try:
                    shutil.copytree(tiny_repository / "encoder", draft.path, dirs_exist_ok=True, ignore=ignored)
                except shutil.Error as error:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(draft.path)) from error
            assert read_manifest(repository / "encoder") == before
            assert not reload(server.url).changed
            assert reload(
                server.url, force=True
            ).changed  # the disk is nearly full still, and a reload needs none of it
            load.until(20)
        assert not load.errors()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_client_that_sends_half_a_request_harms_nobody(tiny_repository, reference):
    with TritonServer(tiny_repository) as server:
        with Callers(server.url, TEXTS, reference, callers=3) as load:
            load.until(10)
            half = b'POST /v2/models/encoder/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{"inputs"'
            opened = []
            for port, data in ((server.ports.http, half), (server.ports.http, half[:20]), (server.ports.grpc, half)):
                for closes in (True, False):
                    for _ in range(20):
                        client = socket.create_connection(("127.0.0.1", port))
                        client.sendall(data)
                        client.close() if closes else opened.append(client)
            load.until(50)  # also while sixty of them wait for the rest
            for client in opened:
                client.close()
            load.until(50)
        assert not load.errors()
        assert server.restarts == 0


def test_a_client_that_goes_away_harms_nobody(tiny_repository, reference):
    body = json.dumps({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [64, 1], "data": TEXTS}]})
    with TritonServer(tiny_repository) as server:
        with Callers(server.url, TEXTS, reference, callers=2) as load:
            for _ in range(50):
                client = http.client.HTTPConnection("127.0.0.1", server.ports.http, timeout=5)
                client.request("POST", "/v2/models/encoder/infer", body)
                client.close()  # before the answer
            load.until(30)
        assert not load.errors()


def held(lock: Path) -> bool:
    """Whether some process holds the lock on a file, as the kernel's own list says."""
    inode = lock.stat().st_ino
    return any(line.split()[5].endswith(f":{inode}") for line in Path("/proc/locks").read_text().splitlines())


def test_what_a_killed_launcher_left_is_removed_at_the_next_start(tiny_repository, tmp_path, monkeypatch):
    script = (
        "import os, time; from pathlib import Path; from xt.serve.triton.launcher import TritonServer\n"
        f"s = TritonServer(Path({str(tiny_repository)!r})); s.start()\n"
        "print(s.prefix, s._process.pid, s._scratch.name, flush=True); time.sleep(300)"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=env)
    prefix, server, scratch = parent.stdout.readline().split()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    from xt.serve.triton.processes import sweep

    assert sweep() == []  # it lives
    for process in model_processes(prefix):
        os.kill(process.pid, signal.SIGSTOP)  # so that nothing is cleaned up in time
    parent.kill()
    os.kill(int(server), signal.SIGKILL)
    parent.wait()
    for process in model_processes(prefix):
        os.kill(process.pid, signal.SIGKILL)
    # The kernel lets go of a dead process's files, and so of the lock, only after its command line is gone.
    until(lambda: not model_processes(prefix) and not held(Path(scratch) / "lock"))
    assert [name for name in os.listdir("/dev/shm") if prefix in name]
    assert Path(scratch).is_dir()
    with TritonServer(tiny_repository):
        assert not Path(scratch).exists()
        assert not [name for name in os.listdir("/dev/shm") if prefix in name]


def test_serving_and_reloading_leave_the_repository_as_it_was(tiny_repository, reference, tmp_path):
    """Compiled code too: Python would run it in the place of the model's code that the manifest vouches for."""
    repository = Path(
        shutil.copytree(tiny_repository, tmp_path / "repository", ignore=shutil.ignore_patterns("__pycache__"))
    )
    before = {str(p.relative_to(repository)) for p in repository.rglob("*")}
    planted = repository / "encoder" / "1" / "__pycache__" / "model.cpython-311.pyc"
    planted.parent.mkdir()
    planted.write_bytes(b"no code")
    with TritonServer(repository) as server, Callers(server.url, TEXTS, reference) as load:
        load.until(5)
        assert {str(p.relative_to(repository)) for p in repository.rglob("*")} == before
        assert reload(server.url, force=True).changed
        load.until(5)
    assert {str(p.relative_to(repository)) for p in repository.rglob("*")} == before


def test_ctrl_c_while_a_restart_is_under_way_leaves_nothing(tiny_repository):
    with TritonServer(tiny_repository, restart=True) as server:
        server._process.kill()
        time.sleep(launcher.WATCH_SECONDS + 0.3)
        threads = threading.active_count()
        begun = time.monotonic()
    assert time.monotonic() - begun < 15
    assert threading.active_count() < threads
    assert not model_processes(server.prefix)
    assert not [name for name in os.listdir("/dev/shm") if server.prefix in name]
