"""With proxies in the environment a server, its gateway and a client of this machine still reach each other."""

from __future__ import annotations

import httpx
import pytest

from xt.serve import Client
from xt.serve.client.encoder import TritonEncoder
from xt.serve.gateway.server import Gateway
from xt.serve.triton.addresses import free_ports
from xt.serve.triton.launcher import TritonServer


@pytest.mark.parametrize("exceptions", ["", "elsewhere.example"])
def test_everything_of_this_machine_is_reached_directly(tiny_repository, monkeypatch, exceptions):
    (nothing, port) = free_ports(2)
    for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):
        for variable in (name, name.upper()):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{nothing}")
    for variable in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.setenv(variable, exceptions)
    with TritonServer(tiny_repository) as server:
        metrics = f"http://127.0.0.1:{server.ports.metrics}/metrics"
        with Client(server.url, wait_seconds=5) as client:
            expected = client.encode(["guten morgen"])[0]
        encoder = TritonEncoder(server.url)
        assert encoder.encode(["guten morgen"]).vectors.shape == (1, 32)
        encoder.close()
        with (
            Gateway(server.url, port=port, metrics_url=metrics) as gateway,
            httpx.Client(base_url=gateway.url, trust_env=False, timeout=60) as http,
        ):
            assert http.get("/ready").json()["models"] == ["encoder"]
            answer = http.post("/v1/embeddings", json={"model": "encoder", "input": "guten morgen"})
            assert answer.json()["data"][0]["embedding"] == pytest.approx(expected.tolist(), abs=1e-5)
            assert "nv_inference_count" in http.get("/metrics").text
            assert http.get("/stats").json()["problem"] is None
