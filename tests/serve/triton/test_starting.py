"""How long a start is waited for, what is reported meanwhile, and that every command that starts a server can say so."""

from __future__ import annotations

import math
import socket
import threading
import time

import pytest
from typer.testing import CliRunner

from xt.cli.main import app
from xt.core.errors import XtError
from xt.serve.runtime.text import graph_seconds
from xt.serve.triton import reload, starting
from xt.serve.triton.launcher import TritonServer
from xt.serve.triton.starting import Patience, check_limit


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def wait(seconds, until, step=1.0):
    """Wait on a clock of our own: when it was given up (None: never), and what was reported, with its second."""
    clock, lines = Clock(), []
    patience = Patience(seconds, lambda line: lines.append((clock.now, line)), clock=clock)
    while clock.now < until:
        if not patience.lasts(lambda: "the model encoder"):
            return clock.now, lines
        clock.now += step
    return None, lines


def test_a_start_is_given_up_after_its_limit_and_reported_every_half_minute():
    ended, lines = wait(100, until=1000)
    assert ended == 100
    assert [at for at, _ in lines] == [30, 60, 90]
    assert lines[1][1] == "Waiting for the model encoder: 60 s so far, at most 100 s (--start-timeout)."


def test_zero_is_no_limit():
    ended, lines = wait(0, until=100_000, step=10)
    assert ended is None
    assert len(lines) > 3000
    assert "without a limit" in lines[0][1]


@pytest.mark.parametrize("seconds", [-1, -0.001, math.nan, -math.inf])
def test_a_limit_below_zero_is_refused(seconds, tmp_path):
    for call in (check_limit, lambda s: Patience(s, print), lambda s: reload.reload("127.0.0.1:1", start_seconds=s)):
        with pytest.raises(XtError, match="--start-timeout is .*expected seconds, 0 or more"):
            call(seconds)


def test_a_server_without_a_limit_starts_and_names_what_it_waits_for(tiny_repository, monkeypatch):
    monkeypatch.setattr(starting, "PROGRESS_SECONDS", 0.2)
    lines = []
    with TritonServer(tiny_repository, start_seconds=0, report=lines.append) as server:
        assert server.alive()
    waited = [line for line in lines if line.startswith("Waiting for ")]
    assert "Waiting for the model encoder: 0 s so far, without a limit (--start-timeout)." in waited


@pytest.mark.parametrize("command", ["serve", "reload", "bench", "quickstart"])
def test_every_command_that_starts_a_server_takes_the_limit(command):
    result = CliRunner().invoke(app, [command, "--start-timeout", "-5"])
    assert result.exit_code == 2
    assert "--start-timeout" in result.output
    assert "no such option" not in result.output.lower()


def test_a_load_that_takes_too_long_says_so_and_that_it_may_still_end(monkeypatch):
    """A server that takes the call and never answers."""
    monkeypatch.setattr(starting, "PROGRESS_SECONDS", 0.2)
    lines = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        with (
            pytest.raises(XtError, match=r"did not load 'encoder' within 0.6 s. It may still do so"),
            starting.progress(0.6, lines.append, "the server to load encoder"),
        ):
            reload._load(address, address, "encoder", "k" * 16, seconds=0.6, tls=None)
        assert time.monotonic() - begun < 5
    assert lines
    assert lines[0].startswith("Waiting for the server to load encoder")
    assert not [t for t in threading.enumerate() if t.name == "xt-progress"]


def test_the_model_before_a_graph_waits_as_long_as_the_server_may_start():
    assert [graph_seconds(v) for v in ("", "300", "1800", "0")] == [900, 900, 1800, math.inf]
    with pytest.raises(XtError, match="XT_START_TIMEOUT is 'soon'"):
        graph_seconds("soon")
