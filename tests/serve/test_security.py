"""Safe by default: what is open, what the admin key opens, who can read that key, and TLS.

Tests `serve/run.py` as well.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc

from xt.core.errors import XtError
from xt.serve.triton import server_state
from xt.serve.triton.addresses import Ports, Tls, free_ports
from xt.serve.triton.launcher import TritonServer
from xt.serve.triton.processes import model_processes

KEY = "an-admin-key-of-a-test-0123456789"


@contextmanager
def started(command: list[object], stop: signal.Signals = signal.SIGINT) -> Iterator[str]:
    """Run `xt serve` until it says that it is ready; gives what it said before, and ends it by a signal."""
    process = subprocess.Popen([str(w) for w in command], stderr=subprocess.PIPE, text=True)
    try:
        said: list[str] = []
        while "Ctrl-C" not in (line := process.stderr.readline()):
            assert line, said
            said.append(line)
        yield "".join(said)
    finally:
        process.send_signal(stop)
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    """A certificate authority, and a server's and a client's certificate of it."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    def request(name: str) -> None:
        openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=x"
        )
        (folder / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
        sign = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *sign)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    request("server")
    request("client")
    return folder


def status(server, path: str, key: str | None = None, method: str = "GET") -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{server.ports.http}{path}", method=method)
    if key:
        request.add_header(server_state.KEY_HEADER, key)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


OVER_HTTP = [
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/encoder/load"),
    ("GET", "/v2/logging"),
    ("GET", "/v2/trace/setting"),
    ("GET", "/v2/models/encoder/stats"),
    ("GET", "/v2/systemsharedmemory/status"),
]


@pytest.mark.parametrize(("method", "path"), OVER_HTTP)
def test_over_http_a_restricted_call_needs_the_key(server, method, path):
    assert status(server, path, method=method) == 403
    assert status(server, path, key="k" * 40, method=method) == 403
    assert status(server, path, key=server.admin_key, method=method) == 200


CALLS = {
    "index": lambda c, h: c.get_model_repository_index(headers=h),
    "load": lambda c, h: c.load_model("encoder", headers=h),
    "statistics": lambda c, h: c.get_inference_statistics(headers=h),
    "log": lambda c, h: c.get_log_settings(headers=h),
    "trace": lambda c, h: c.get_trace_settings(headers=h),
    "shared memory": lambda c, h: c.get_system_shared_memory_status(headers=h),
}


@pytest.mark.parametrize("call", CALLS)
def test_over_grpc_a_restricted_call_needs_the_key(server, call):
    client = grpc.InferenceServerClient(server.url)
    for headers in ({}, {server_state.GRPC_KEY_HEADER: "k" * 40}):
        with pytest.raises(grpc.InferenceServerException, match="restricted"):
            CALLS[call](client, headers)
    CALLS[call](client, server_state.admin_headers(server.url))
    client.close()


def test_without_a_key_a_model_cannot_be_unloaded_and_answers(server):
    client = grpc.InferenceServerClient(server.url)
    with pytest.raises(grpc.InferenceServerException, match="restricted"):
        client.unload_model("encoder")
    assert client.is_model_ready("encoder")
    assert client.get_model_config("encoder").config.name == "encoder"
    assert embed(client).shape == (1, 32)
    client.close()


def embed(client):
    tensor = grpc.InferInput("text", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[b"good morning"]], dtype=np.object_))
    return client.infer("encoder", [tensor], client_timeout=20).as_numpy("embedding")


def test_nobody_reads_the_key_in_the_process_list_the_log_or_a_model(server):
    key = server.admin_key.encode()
    pids = [server._process.pid, *(p.pid for p in model_processes(server.prefix))]
    assert len(pids) >= 2  # a process that a reload replaced may be about to end
    for pid in pids:
        assert key not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert key not in Path(f"/proc/{pid}/environ").read_bytes()
    assert b"xt-admin-key=*****" in Path(f"/proc/{pids[0]}/cmdline").read_bytes()
    assert key not in (Path(server._scratch.name) / "server.log").read_bytes()


def test_the_state_is_for_this_user_alone_and_goes_with_the_server(tiny_repository, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(server_state.KEY_VARIABLE, raising=False)
    with TritonServer(tiny_repository, admin_key=KEY) as server:
        (file,) = (tmp_path / "xt" / "servers").iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        state = server_state.find(server.url)
        assert (state.admin_key, state.repository, state.http) == (KEY, str(tiny_repository), server.ports.http)
        assert (state.host, state.http_host, state.metrics_host) == ("127.0.0.1",) * 3
        assert server_state.find(f"192.0.2.1:{server.ports.grpc}") is None  # another machine's
        monkeypatch.setenv(server_state.KEY_VARIABLE, "k" * 20)
        assert server_state.admin_key(server.url) == "k" * 20  # what is given goes before
    assert not file.exists()


def test_the_state_of_a_dead_launcher_is_not_believed(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here = server_state.process_start(os.getpid())
    for pid, started, found in ((os.getpid(), here, True), (os.getpid(), here - 1, False), (2**22 + 1, here, False)):
        server_state.note(server_state.ServerState(pid, started, "127.0.0.1", 1, 2, 3, KEY, "r"))
        assert (server_state.find("127.0.0.1:2") is not None) == found


@pytest.mark.parametrize(
    "key", ["short", "", "with a blank in the key", "ключ" * 8, "k" * 257, "a" * 20 + "\n" + "b" * 20]
)
def test_a_key_that_keeps_nobody_out_is_refused(tmp_path, key):
    file = tmp_path / "key"
    file.write_text(key)
    with pytest.raises(XtError, match="must be 16 to 256 letters"):
        server_state.read_key(file)


def test_a_key_file_is_read_without_its_line_end(tmp_path):
    (tmp_path / "key").write_text(KEY + "\n")
    assert server_state.read_key(tmp_path / "key") == KEY
    with pytest.raises(XtError, match="cannot be read"):
        server_state.read_key(tmp_path / "none")


@pytest.mark.parametrize("mutual", [False, True])
def test_grpc_speaks_tls_alone_and_with_a_root_to_known_clients_alone(tiny_repository, certificates, mutual):
    root = certificates / "ca.pem"
    tls = Tls(certificates / "server.pem", certificates / "server.key", root if mutual else None)
    with TritonServer(tiny_repository, tls=tls) as server:
        trusted = {"ssl": True, "root_certificates": str(root)}
        own = {"private_key": str(certificates / "client.key"), "certificate_chain": str(certificates / "client.pem")}
        cases = [({}, False), (trusted, not mutual), ({**trusted, **own}, True)]
        for options, answered in cases:
            client = grpc.InferenceServerClient(server.url, **options)
            if answered:
                assert embed(client).shape == (1, 32)
            else:
                with pytest.raises(grpc.InferenceServerException, match="UNAVAILABLE"):
                    embed(client)
            client.close()


def test_half_of_the_tls_flags_is_refused(certificates, tmp_path):
    cert, key, root = (certificates / n for n in ("server.pem", "server.key", "ca.pem"))
    assert Tls.of_flags(None, None, None) is None
    assert Tls.of_flags(cert, key, root) == Tls(cert, key, root)
    with pytest.raises(XtError, match="--grpc-cert was given without --grpc-key"):
        Tls.of_flags(cert, None, None)
    with pytest.raises(XtError, match="--grpc-key was given without --grpc-cert"):
        Tls.of_flags(None, key, root)
    with pytest.raises(XtError, match="--grpc-root-cert was given without"):
        Tls.of_flags(None, None, root)
    with pytest.raises(XtError, match="cannot be read: No such file"):
        Tls(tmp_path / "none", key)
    (tmp_path / "der").write_bytes(b"\x30\x82")
    with pytest.raises(XtError, match="is no PEM file"):
        Tls(cert, tmp_path / "der")


SERVE = "from xt.cli import serve; import typer; a = typer.Typer(); a.command()(serve.serve); a(standalone_mode=False)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0", "--gateway-port", "9"], "The gateway would listen on 0.0.0.0 for everybody"),
        (["--token", "t"], "--token was given without --gateway-port"),
        (["--access-log", "-"], "--access-log was given without --gateway-port"),
        (["--gateway-port", "9", "--token", "@/nowhere"], "--token @/nowhere cannot be read"),
        (["--gateway-port", "9", "--token", ""], "--token is empty"),
        (["--grpc-cert", "x"], "--grpc-cert was given without --grpc-key"),
        (["--gateway-ca", "x"], "--gateway-ca was given without --gateway-port and --grpc-cert"),
        (["--engine", "docker"], "No such option: --engine"),
    ],
)
def test_the_command_refuses_what_is_unsafe_or_does_nothing(tiny_repository, options, message):
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(tiny_repository), *options], capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert message in done.stderr


@pytest.mark.parametrize("mutual", [False, True])
def test_the_gateway_speaks_tls_to_a_server_that_speaks_nothing_else(tiny_repository, certificates, mutual):
    ports, (door, _, _) = Ports(*free_ports()), free_ports()
    words = ["--http-port", ports.http, "--grpc-port", ports.grpc, "--metrics-port", ports.metrics]
    words += ["--grpc-cert", certificates / "server.pem", "--grpc-key", certificates / "server.key"]
    words += ["--gateway-port", door]
    words += ["--grpc-root-cert" if mutual else "--gateway-ca", certificates / "ca.pem"]
    command = [sys.executable, "-c", SERVE, tiny_repository, *words]
    with started(command):
        body = json.dumps({"model": "encoder", "input": ["good morning"]}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{door}/v1/embeddings", data=body)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert len(json.load(answer)["data"][0]["embedding"]) == 32


def test_a_gateway_that_cannot_trust_the_server_does_not_start(tiny_repository, certificates):
    ports, (door, _, _) = Ports(*free_ports()), free_ports()
    words = ["--http-port", ports.http, "--grpc-port", ports.grpc, "--metrics-port", ports.metrics]
    words += ["--grpc-cert", certificates / "server.pem", "--grpc-key", certificates / "server.key"]
    command = [sys.executable, "-c", SERVE, tiny_repository, *words, "--gateway-port", door]
    command += ["--gateway-ca", certificates / "client.pem"]
    done = subprocess.run([str(w) for w in command], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "The gateway cannot speak to Triton" in done.stderr and "--gateway-ca" in done.stderr


def test_open_to_other_machines_is_said_aloud_and_the_key_of_a_file_is_taken(tiny_repository, tmp_path):
    ports = Ports(*free_ports())
    (tmp_path / "key").write_text(KEY)
    words = ["--http-port", ports.http, "--grpc-port", ports.grpc, "--metrics-port", ports.metrics]
    command = [sys.executable, "-c", SERVE, tiny_repository, "--grpc-host", "0.0.0.0", *words]
    command += ["--admin-key", tmp_path / "key"]
    with started(command, signal.SIGTERM) as said:
        assert "Warning: --grpc-host 0.0.0.0 is open to other machines" in said
        assert "--http-host" not in said and "--metrics-host" not in said
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        rows += [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
        listening = {int(r[1].split(":")[1], 16): r[1].split(":")[0].strip("0") for r in rows if r[3] == "0A"}
        assert {p: bool(listening[p]) for p in vars(ports).values()} == {
            ports.http: True,  # some address of its own
            ports.grpc: False,  # every address
            ports.metrics: True,
        }
        state = server_state.find(f"127.0.0.1:{ports.grpc}")
        assert (state.admin_key, state.host, state.http_host, state.metrics_host) == (
            KEY,
            "0.0.0.0",
            *["127.0.0.1"] * 2,
        )
    assert server_state.find(f"127.0.0.1:{ports.grpc}") is None


def test_locked_http_answers_health_alone_without_the_key(tiny_repository):
    body = json.dumps({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["good morning"]}]})
    with TritonServer(tiny_repository, lock_http=True) as server:

        def infer(key: str | None) -> int:
            request = urllib.request.Request(
                f"http://127.0.0.1:{server.ports.http}/v2/models/encoder/infer", data=body.encode()
            )
            if key:
                request.add_header(server_state.KEY_HEADER, key)
            try:
                return urllib.request.urlopen(request, timeout=20).status
            except urllib.error.HTTPError as error:
                return error.code

        assert (infer(None), infer("k" * 40), infer(server.admin_key)) == (403, 403, 200)
        for path in ("/v2", "/v2/models/encoder", "/v2/models/encoder/config"):
            assert (status(server, path), status(server, path, server.admin_key)) == (403, 200)
        assert status(server, "/v2/health/ready") == 200
        client = grpc.InferenceServerClient(server.url)
        assert embed(client).shape == (1, 32)
        client.close()


def test_a_token_is_taken_from_the_environment_or_a_file_and_hidden_where_it_was_typed(tmp_path, monkeypatch):
    from xt.serve.run import read_token

    monkeypatch.setenv(server_state.TOKEN_VARIABLE, "of-the-environment")
    (tmp_path / "token").write_text("of-the-file\n")
    assert read_token(None, say=print) == "of-the-environment"
    assert read_token(f"@{tmp_path / 'token'}", say=print) == "of-the-file"
    monkeypatch.delenv(server_state.TOKEN_VARIABLE)
    assert read_token(None, say=print) is None
    script = (
        "import os, sys; from xt.serve.run import read_token\n"
        "assert read_token(sys.argv[2], say=print) == sys.argv[2] == os.environ['SAME']\n"
        "print(open(f'/proc/{os.getpid()}/cmdline').read())"
    )
    secret = "a-token-that-was-typed"
    command = [sys.executable, "-c", script, "--token", secret]
    done = subprocess.run(
        command, env={**os.environ, "SAME": secret}, capture_output=True, text=True, check=True, timeout=60
    )
    assert secret not in done.stdout
    assert "--token\0" + "*" * len(secret) in done.stdout


def test_host_without_a_gateway_is_wrong_usage_that_names_the_flags_of_triton(tiny_repository):
    command = [Path(sys.executable).with_name("xt"), "serve", tiny_repository, "--host", "0.0.0.0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "400"})
    assert done.returncode == 2
    for flag in ("--gateway-port", "--http-host", "--grpc-host", "--metrics-host"):
        assert flag in done.stderr
