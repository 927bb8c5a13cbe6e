"""Triton's HTTP beside its answers, on a real server; and that nothing else in the sources asks it."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path

import pytest

from xt.core.files.artifact import open_artifact
from xt.serve.client.errors import DeadlinePassed, InvalidRequest, Restricted, Unreachable
from xt.serve.client.http import ERRORS, TritonHttp
from xt.serve.triton.addresses import free_ports

ROOT = Path(__file__).resolve().parents[3]


def opened(server, key=""):
    return TritonHttp("127.0.0.1", server.ports.http, key)


def test_a_server_says_that_it_lives_what_it_holds_and_how_it_is_configured(server, tiny_repository):
    http = opened(server, server.admin_key)
    assert http.is_live(5)
    assert http.is_ready(5)
    assert http.ready_models(5) == ["encoder"]
    facts = http.config("encoder", 5)["parameters"]["xt"]["string_value"]
    assert open_artifact(tiny_repository / "encoder", kind="model").facts["encoder"]["name"] in facts


def test_triton_is_told_from_its_own_metrics_and_from_nothing(server):
    assert opened(server).is_triton(5)
    assert not TritonHttp("127.0.0.1", server.ports.metrics).is_triton(5)
    (free,) = free_ports(1)
    with pytest.raises(ERRORS):
        TritonHttp("127.0.0.1", free).is_triton(1)


def test_a_load_says_why_it_was_not_done(server):
    with pytest.raises(InvalidRequest, match="nope"):
        opened(server, server.admin_key).load("nope", 30)
    with pytest.raises(Restricted):
        opened(server).load("encoder", 30)
    with pytest.raises(ValueError, match="403"):
        opened(server).ready_models(5)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DeadlinePassed):
        TritonHttp("127.0.0.1", silent.getsockname()[1]).load("encoder", 0.2)
    (free,) = free_ports(1)
    with pytest.raises(Unreachable, match=rf"The server at \[::1\]:{free} did not answer"):
        TritonHttp("[::1]", free).load("encoder", 1)


def test_no_other_source_asks_triton_over_http():
    """Import-linter sees who imports tritonclient; a path of Triton's HTTP is only a text."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode or not listed.stdout:
        pytest.skip("not a git checkout")
    sources = [f for f in listed.stdout.split() if not f.startswith(("tests/", "deploy/"))]  # a container's own probe
    found = {f for f in sources if re.search(r"/v2/\w", (ROOT / f).read_text(encoding="utf-8"))}
    assert found == {"serve/client/http.py", "serve/client/prepared.py"}
