"""Proxies of the environment stand in no connection to this machine, and are named where they stand in another."""

from __future__ import annotations

import http.server
import socket
import threading

import pytest

from xt.core.machine import proxies
from xt.serve.client.address import channel_options
from xt.serve.client.errors import Unreachable, explain

VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy", "no_proxy", "no_grpc_proxy")


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.fixture
def page():
    """A page of this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/good" else 404)
            self.end_headers()
            self.wfile.write(b"metrics 1")

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "LOCALHOST", "a.localhost", "::1", "[::1]",
                                  "0.0.0.0", "::", socket.gethostname()])  # fmt: skip
def test_this_machine_is_known_by_its_names_and_addresses(host):
    assert proxies.is_this_machine(host)


@pytest.mark.parametrize("host", ["8.8.8.8", "triton.example", "localhost.example", "2001:db8::1", "128.0.0.1", ""])
def test_other_machines_are_not_this_one(host):
    assert not proxies.is_this_machine(host)


def test_an_address_of_an_interface_is_this_machines(monkeypatch):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only chooses an interface
        except OSError:
            pytest.skip("no interface but the loopback one")
        assert proxies.is_this_machine(probe.getsockname()[0])


def test_grpc_goes_to_this_machine_without_a_proxy_and_to_others_as_the_environment_says(clean):
    assert ("grpc.enable_http_proxy", 0) in channel_options("127.0.0.1:8001")
    assert "grpc.enable_http_proxy" not in dict(channel_options("triton.example:8001"))
    assert proxies.grpc_proxy("triton.example:8001") is None
    clean.setenv("http_proxy", "http://proxy:3128")
    assert proxies.grpc_proxy("triton.example:8001") == "http_proxy"
    clean.setenv("grpc_proxy", "http://proxy:3128")
    assert proxies.grpc_proxy("triton.example:8001") == "grpc_proxy"
    assert proxies.grpc_proxy("127.0.0.1:8001") is None
    for exceptions in ("triton.example", ".example", "other, EXAMPLE"):
        clean.setenv("no_proxy", exceptions)
        assert proxies.grpc_proxy("triton.example:8001") is None
    clean.setenv("no_proxy", "other")
    assert proxies.grpc_proxy("triton.example:8001") == "grpc_proxy"


def test_a_page_of_this_machine_is_read_without_a_proxy(clean, page):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        clean.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    assert proxies.http_proxy(f"http://{page}/good") is None
    assert proxies.read_url(f"http://{page}/good", timeout=5) == (200, b"metrics 1")
    assert proxies.read_url(f"http://{page}/bad", timeout=5)[0] == 404


def test_an_error_of_another_machine_names_the_variable_of_the_proxy(clean):
    clean.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(OSError, match=r"http_proxy sends it through a proxy; .*no_proxy=triton\.example"):
        proxies.read_url("http://triton.example:8002/metrics", timeout=5)

    class Lost(Exception):
        def status(self):
            return "StatusCode.UNAVAILABLE"

        def message(self):
            return "failed to connect to all addresses"

    error = explain(Lost(), "triton.example:8001", "encoder")
    assert isinstance(error, Unreachable)
    assert "The variable http_proxy sends it through a proxy" in error.hint
    assert "http_proxy" not in explain(Lost(), "127.0.0.1:8001", "encoder").hint
