"""What a server's processes may use, who can read what they make, and what their logs may grow to.

Tests `serve/triton/bounded_log.py` as well.
"""

from __future__ import annotations

import os
import re
import resource
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xt.serve.triton import limits
from xt.serve.triton.bounded_log import BoundedLog, follow
from xt.serve.triton.limits import ENOUGH_BYTES, STACK_BYTES, STRICT_STACK_BYTES, Limits, child_limits
from xt.serve.triton.processes import model_processes

MIB = 2**20
LARGE = 64 * 2**30


def post(server, body: bytes, *headers: str) -> bytes:
    """POST to Triton's HTTP; gives what comes back, as far as it does."""
    with socket.create_connection(("127.0.0.1", server.ports.http), timeout=60) as client:
        head = ["POST /v2/models/encoder/infer HTTP/1.1", "Host: localhost", "Connection: close", *headers]
        try:
            client.sendall("\r\n".join([*head, "", ""]).encode() + body)
            return client.recv(4096)
        except OSError:
            return b""


def nested(text: bytes, times: int) -> tuple[bytes, str]:
    return text * times, f"Content-Length: {len(text) * times}"


ATTACKS = {
    "lists": nested(b"[", 200_000),
    "more lists": nested(b"[", 5_000_000),
    "objects": nested(b'{"a":', 300_000),
    "parts": (b"1\r\nx\r\n" * 600_000 + b"0\r\n\r\n", "Transfer-Encoding: chunked"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_request_that_nests_deeply_or_comes_in_many_parts_ends_no_server(server, name):
    pid = server._process.pid
    body, header = ATTACKS[name]
    answered = post(server, body, header)
    assert answered.startswith(b"HTTP/1.1 500"), answered  # Triton's own word for JSON that it cannot read
    assert b"failed to parse the request JSON" in answered
    assert (server.alive(), server._process.pid, server.restarts) == (True, pid, 0)


def test_the_server_and_its_models_have_the_limits(server):
    for pid in (server._process.pid, *(p.pid for p in model_processes(server.prefix))):
        assert resource.prlimit(pid, resource.RLIMIT_STACK)[0] >= child_limits().stack[0] > ENOUGH_BYTES
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        assert soft == hard == resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def test_no_other_user_can_read_what_passes_through_shared_memory_or_the_log(server):
    files = [p for p in Path("/dev/shm").iterdir() if server.prefix in p.name]
    files += [p for p in Path(server._scratch.name).rglob("*") if p.is_file()]
    assert len(files) >= 4
    own = {p: stat.S_IMODE(p.stat().st_mode) & 0o077 for p in files}
    outside = [p for p in files if Path(server._scratch.name) not in p.parents]
    assert outside
    assert {own[p] for p in outside} == {0}
    assert own[Path(server._scratch.name) / "server.log"] == 0
    assert stat.S_IMODE(Path(server._scratch.name).stat().st_mode) == 0o700


def test_the_stack_is_as_large_as_the_hard_limit_allows_and_less_is_reported(monkeypatch):
    unlimited = resource.RLIM_INFINITY
    assert limits._stack((8 * MIB, unlimited), LARGE, strict=False) == STACK_BYTES
    assert limits._stack((unlimited, unlimited), LARGE, strict=False) == STACK_BYTES
    assert limits._stack((4 * STACK_BYTES, unlimited), LARGE, strict=False) == 4 * STACK_BYTES
    assert limits._stack((8 * MIB, 32 * MIB), LARGE, strict=False) == 32 * MIB
    assert limits._stack((8 * MIB, unlimited), LARGE, strict=True) == STRICT_STACK_BYTES
    assert limits._stack((8 * MIB, unlimited), 6 * 2**30, strict=False) == 3 * 2**30
    assert Limits((ENOUGH_BYTES, unlimited), (9, 9)).warning == ""
    assert "limited to 32 MiB instead of 1024" in Limits((32 * MIB, 32 * MIB), (9, 9)).warning
    here = resource.getrlimit(resource.RLIMIT_STACK)
    assert child_limits(stack=False).stack == here
    monkeypatch.setattr(limits, "_is_strict", lambda: True)
    assert child_limits().stack[0] == min(STRICT_STACK_BYTES, max(here[1], STRICT_STACK_BYTES))


def test_large_stacks_take_no_memory_in_many_threads():
    script = (
        "import threading, re\n"
        "e = threading.Event(); ts = [threading.Thread(target=e.wait) for _ in range(100)]\n"
        "[t.start() for t in ts]\n"
        "s = open('/proc/self/status').read(); e.set(); [t.join() for t in ts]\n"
        "print(*(re.search(rf'{n}:\\s+(\\d+)', s)[1] for n in ('VmSize', 'VmRSS', 'Threads')))"
    )
    ready = limits.prepare_child(child_limits())
    done = subprocess.run([sys.executable, "-c", script], preexec_fn=ready, capture_output=True, text=True, check=True)
    size, resident, threads = map(int, done.stdout.split())
    assert threads == 101
    assert size > 100 * STACK_BYTES // 1024
    assert resident < 100 * 1024


def test_a_log_keeps_its_head_and_its_tail_and_counts_what_it_dropped(tmp_path):
    log = BoundedLog(tmp_path / "log", head_bytes=1000, tail_bytes=2000)
    lines = [f"line {i:06d} of a flood\n" for i in range(10_000)]  # 23 bytes each
    for line in lines:
        log.write(line.encode())
    kept = log.text()
    head, _, tail = kept.partition("[")
    dropped, size = map(int, re.match(r"(\d+) lines, (\d+) bytes were dropped here\]\n", tail).groups())
    tail = tail.partition("\n")[2]
    assert head == "".join(lines[:43])  # 989 bytes
    assert "".join(lines).endswith(tail)
    assert 2000 <= len(tail) <= 4000
    assert dropped == len(lines) - kept.count("line ") and size == 23 * dropped
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 1000 + 2 * 2000
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {0o600}


def test_a_short_log_is_kept_whole(tmp_path):
    log = BoundedLog(tmp_path / "log", head_bytes=1000, tail_bytes=2000)
    lines = [f"line {i}\n" for i in range(200)]
    for line in lines:
        log.write(line.encode())
    assert log.text() == "".join(lines)
    assert log.dropped_lines == 0


def test_a_line_that_comes_again_and_again_is_counted(tmp_path):
    log = BoundedLog(tmp_path / "log")
    for _ in range(1000):
        log.write(b"[warn] Too many open files\n" * 50)
    assert log.text() == "[warn] Too many open files\n[the line above came 49999 times more]\n"
    log.write(b"then another\n[warn] Too many open files\n")
    assert log.text().splitlines()[2:] == ["then another", "[warn] Too many open files"]
    assert (tmp_path / "log").stat().st_size < 200


def test_a_full_disk_stops_the_log_and_not_its_writer(small_disk):
    log = BoundedLog(small_disk / "log", head_bytes=100_000, tail_bytes=1_000_000)
    for i in range(100):
        log.write(b"%03d" % i + b"x" * 9_996 + b"\n")
    assert log.written_bytes == 1_000_000
    assert log.dropped_bytes >= 700_000


def test_what_a_child_prints_is_followed_to_its_end(tmp_path):
    script = "import os; os.write(1, b'a\\nb' + b'c' * 50000 + b'\\n\\xff\\nlast')"
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    log, told = BoundedLog(tmp_path / "log"), []
    follow(child.stdout, log, told.append).join(30)
    child.wait()
    assert told[0] == "a" and told[-2:] == ["\ufffd", "last"]
    assert "".join(told[1:-2]) == "b" + "c" * 50000  # a long line is broken, and nothing of it is lost
    assert (tmp_path / "log").read_bytes().endswith(b"\nlast\n")


def test_idle_connections_beyond_the_file_limit_do_not_fill_the_log(server):
    """Triton logs each connection that it cannot accept, some 100,000 times a second."""
    pid, size = server._process.pid, server._log.written_bytes
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")) + 10, before[1]))
    idle = [socket.create_connection(("127.0.0.1", server.ports.http)) for _ in range(40)]
    try:
        deadline = time.monotonic() + 20
        while server._log.written_bytes < size + 2_000_000:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        for client in idle:
            client.close()
    assert sum(p.stat().st_size for p in Path(server._scratch.name).glob("server.log*")) < 500_000
    assert "Too many open files" in server._log.text()


def test_the_log_of_a_server_is_bounded(server):
    assert isinstance(server._log, BoundedLog)
    assert "Started GRPCInferenceService" in server._log.text()
    assert os.path.samefile(server._log.file.parent, server._scratch.name)
