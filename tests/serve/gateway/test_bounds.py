"""The gateway under clients that are slow, many or malicious, and in a process of its own. Nothing is served behind it.

Tests `serve/gateway/guard.py`, `serve/gateway/log.py`, `serve/gateway/options.py`, `serve/gateway/process.py`,
`serve/gateway/protocol.py` and `serve/gateway/server.py` as well.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xt.core.errors import XtError
from xt.serve.gateway import guard, process, protocol, server
from xt.serve.gateway.process import GatewayProcess
from xt.serve.gateway.server import Gateway
from xt.serve.triton import server_state
from xt.serve.triton.addresses import free_ports

NOBODY = "127.0.0.1:9"
POST = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
TOKEN = "a-token-of-a-test-0123456789"


def status(port: int, path: str = "/health", **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def opened(port: int, data: str | bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    client.sendall(data if isinstance(data, bytes) else data.encode())
    return client


def answer(client: socket.socket) -> tuple[int, dict]:
    """Read to the end of the connection: the status, and the body as JSON."""
    data = b""
    try:
        while part := client.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]) if head else 0, json.loads(body) if body else {}


def until(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def gateway(monkeypatch):
    """One in this process, with deadlines that a test can wait for."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(protocol, "WRITE_SECONDS", 0.5)
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 0.5)
    monkeypatch.setattr(guard, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(guard, "BODY_SECONDS", 1.5)
    (port,) = free_ports(1)
    with Gateway(NOBODY, port=port, models=["encoder"]) as running:
        yield running


@pytest.mark.parametrize(
    "data", ["", "P", "POST / HTTP/1.1\r\nHost: local", "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nG"]
)
def test_a_head_that_does_not_end_is_given_up(gateway, data):
    """Also the second one of a connection, and one of which nothing comes."""
    client = opened(gateway.port, data)
    begun = time.monotonic()
    rest = b""
    while part := client.recv(65536):
        rest += part
    assert b"408" in rest
    assert b"did not arrive within" in rest
    assert time.monotonic() - begun < 10


def test_a_head_that_comes_a_byte_at_a_time_is_given_up(gateway):
    client = opened(gateway.port, "G")
    with pytest.raises(OSError):
        for _ in range(100):
            client.sendall(b"E")
            time.sleep(0.1)


def test_a_body_that_stops_coming_is_given_up(gateway):
    code, body = answer(opened(gateway.port, f'{POST}Connection: close\r\nContent-Length: 500\r\n\r\n{{"input"'))
    assert (code, body["error"]["code"]) == (408, "timeout")


def test_a_body_that_comes_too_slowly_is_given_up(gateway):
    client = opened(gateway.port, f"{POST}Connection: close\r\nContent-Length: 500\r\n\r\n")
    begun = time.monotonic()
    with pytest.raises(OSError):
        for _ in range(200):
            client.sendall(b" ")
            time.sleep(0.1)
    assert time.monotonic() - begun < 15


def test_the_rest_of_a_body_that_was_refused_is_not_waited_for(gateway):
    """Refused by its declared length; the client sees the answer, and is left after a moment."""
    client = opened(gateway.port, f"{POST}Content-Length: 900000000\r\n\r\n")
    assert client.recv(65536).startswith(b"HTTP/1.1 413")
    with pytest.raises(OSError):
        for _ in range(100):
            client.sendall(b" ")
            time.sleep(0.1)


def test_a_client_that_does_not_read_is_given_up(gateway, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 60.0)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.connect(("127.0.0.1", gateway.port))
    server = gateway._server.server_state
    until(lambda: len(server.connections) == 1)
    (connection,) = server.connections
    connection.transport.write(b"x" * 50_000_000)  # no route gives as much here
    until(lambda: not server.connections)
    assert connection.transport.is_closing()


def test_a_body_in_a_hundred_thousand_parts_is_refused(gateway):
    begun = time.process_time()
    client = opened(gateway.port, f"{POST}Transfer-Encoding: chunked\r\n\r\n".encode() + b"1\r\nx\r\n" * 50_000)
    code, body = answer(client)
    assert code in (0, 400)  # the connection may be reset before the answer is read
    assert not body or body["error"]["code"] == "not_http"
    assert time.process_time() - begun < 3


def test_a_body_in_parts_of_the_usual_size_is_read(gateway):
    text = json.dumps({"model": "encoder", "input": ["good " * 100_000]})
    parts = "".join(f"{len(text[i : i + 1000]):x}\r\n{text[i : i + 1000]}\r\n" for i in range(0, len(text), 1000))
    code, _ = answer(
        opened(gateway.port, f"{POST}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n{parts}0\r\n\r\n")
    )
    assert code == 503  # nothing is served behind it


def test_answers_are_not_held_back_for_an_acknowledgement(gateway):
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    seconds = []
    for _ in range(20):
        begun = time.monotonic()
        connection.request("GET", "/health")
        connection.getresponse().read()
        seconds.append(time.monotonic() - begun)
    connection.close()
    assert sorted(seconds)[10] < 0.03  # the system holds acknowledgements back for 0.04


def test_connections_that_send_nothing_shut_nobody_out(gateway, monkeypatch):
    monkeypatch.setattr(protocol.BoundedProtocol, "most", 30)
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 60.0)
    half = [opened(gateway.port, "POST / HTTP/1.1\r\nHost: local") for _ in range(100)]
    for _ in range(5):
        assert status(gateway.port) == 200
    assert len(gateway._server.server_state.connections) <= 31
    for client in half:
        client.close()


def test_bodies_in_memory_are_bounded_and_small_ones_still_taken(gateway, monkeypatch):
    monkeypatch.setattr(guard, "HELD_BYTES", 300_000)
    monkeypatch.setattr(guard, "SILENT_SECONDS", 20.0)
    monkeypatch.setattr(guard, "BODY_SECONDS", 20.0)
    head = f"{POST}Connection: close\r\nContent-Length: 290000\r\n\r\n"
    holder = opened(gateway.port, head + " " * 280_000)
    until(lambda: gateway._app._held >= 280_000)
    code, body = answer(opened(gateway.port, head + " " * 290_000))
    assert (code, body["error"]["code"]) == (503, "server_busy")
    small = json.dumps({"model": "encoder", "input": ["good"]})
    code, _ = answer(opened(gateway.port, f"{POST}Connection: close\r\nContent-Length: {len(small)}\r\n\r\n{small}"))
    assert code == 503
    holder.close()
    until(lambda: gateway._app._held == 0)


def test_more_requests_than_may_run_are_told_when_to_come_back_and_probes_are_answered(gateway, monkeypatch):
    monkeypatch.setattr(guard, "RUNNING", 0)
    code, body = answer(opened(gateway.port, "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    assert (code, body["error"]["code"]) == (503, "server_busy")
    assert status(gateway.port) == 200


def test_a_websocket_is_not_opened(gateway):
    upgrade = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    client = opened(gateway.port, upgrade)
    assert client.recv(65536).startswith(b"HTTP/1.1 200")
    client.close()


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("log") / "access.log"


@pytest.fixture(scope="module")
def own(log):
    """One in a process of its own, with a token and a log."""
    (port,) = free_ports(1)
    said: list[str] = []
    before = {name: os.environ.get(name) for name in server_state.SECRETS}
    os.environ.update(dict.fromkeys(server_state.SECRETS, TOKEN))
    try:
        with GatewayProcess(NOBODY, port=port, token=TOKEN, access_log=str(log), report=said.append) as running:
            running.said, running.port = said, port
            yield running
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def test_each_request_is_logged_with_status_caller_and_trace_and_without_texts_and_tokens(own, log):
    for headers in ({}, {"Authorization": "Bearer a-guess-of-somebody"}, {"Authorization": f"Bearer {TOKEN}"}):
        status(own.port, "/nothing%0Ahere?text=secret", **headers, **{"X-Request-Id": "mine-7"})
    opened(own.port, "no HTTP at all\r\n\r\n").recv(65536)
    until(lambda: log.read_text().count("\n") >= 4)
    lines = log.read_text().splitlines()
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO GET /nothing%0Ahere (\d+) [\d.]+ ms caller=127.0.0.1 token=(\w+) bytes=0 trace=mine-7"
    found = [re.fullmatch(pattern, line) for line in lines]
    assert [m.groups() for m in found if m] == [("401", "missing"), ("401", "wrong"), ("404", "right")]
    assert "refused 400 not_http caller=127.0.0.1" in lines[3]
    assert not re.search(f"secret|guess|{TOKEN}", log.read_text())
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_nobody_reads_the_token_of_the_gateways_process(own):
    for name in ("cmdline", "environ"):
        assert TOKEN.encode() not in Path(f"/proc/{own.pid}/{name}").read_bytes()


def test_its_process_may_open_as_many_files_as_it_is_allowed(own):
    soft, hard = resource.prlimit(own.pid, resource.RLIMIT_NOFILE)
    assert soft == hard


def test_a_gateway_that_is_killed_comes_back_and_who_calls_meanwhile_waits(own):
    pid, restarts = own.pid, own.restarts
    os.kill(pid, signal.SIGKILL)
    assert status(own.port) == 200
    assert (own.restarts, own.pid != pid) == (restarts + 1, True)
    assert "The gateway's process ended with code -9; it is started anew." in own.said


def test_a_gateway_that_hangs_is_started_anew(own, monkeypatch):
    """A stopped process stands for one that hangs."""
    monkeypatch.setattr(process, "SILENT_SECONDS", 3.0)
    restarts = own.restarts
    os.kill(own.pid, signal.SIGKILL)  # so that the patience of this test holds
    until(lambda: own.restarts > restarts)
    assert status(own.port) == 200
    time.sleep(1.2)  # it has shown life
    os.kill(own.pid, signal.SIGSTOP)
    until(lambda: own.restarts > restarts + 1)
    assert status(own.port) == 200
    assert "The gateway's process showed no life for 3 s; it is started anew." in own.said


def test_the_gateway_ends_with_its_parent():
    (port,) = free_ports(1)
    script = (
        "import sys, time; from xt.serve.gateway.process import GatewayProcess\n"
        f"g = GatewayProcess({NOBODY!r}, port={port}); g.start(); print(g.pid, flush=True); time.sleep(300)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert status(port) == 200
    parent.kill()
    parent.wait()
    until(lambda: server_state.process_start(pid) is None)


def test_a_port_that_is_taken_and_a_log_that_cannot_be_written_are_named(own, tmp_path):
    with pytest.raises(XtError, match=f"Port {own.port} on 127.0.0.1 cannot be used"):
        GatewayProcess(NOBODY, port=own.port).start()
    with pytest.raises(XtError, match="--access-log .* cannot be written: Is a directory"):
        GatewayProcess(NOBODY, port=1, access_log=str(tmp_path))


def test_a_request_under_way_when_the_gateway_ends_is_told_to_come_again(monkeypatch):
    monkeypatch.setattr(server, "STOP_SECONDS", 1)
    port = free_ports(1)[0]
    body = json.dumps({"model": "encoder", "input": "guten morgen"})
    with Gateway(NOBODY, port=port):
        client = opened(port, f"{POST}Content-Length: {len(body)}\r\n\r\n{body}")
        time.sleep(0.5)  # it waits for a Triton that does not answer
    status, error = answer(client)
    assert (status, error["error"]["code"]) == (503, "server_busy")


def test_a_flood_of_faults_is_reported_in_few_lines_and_counted():
    told: list[str] = []
    few = process._Few(told.append)
    for i in range(100):
        few(f"fault {i}")
    few.close()
    assert told == [*(f"gateway: fault {i}" for i in range(30)), "gateway: 70 more lines"]
