"""The gateway before a real Triton: what the official openai client gets from it, what it refuses, and how.

Tests `serve/gateway/app.py`, `serve/gateway/models.py`, `serve/gateway/openai.py`, `serve/gateway/state.py` and
`serve/gateway/stats.py` as well.
"""

from __future__ import annotations

import base64
import logging
import re
import socket
import threading
import time

import httpx
import numpy as np
import openai
import pytest

from xt.calibration.apply.file import CalibrationTable
from xt.calibration.apply.retrieval import RetrievalTemperature
from xt.core.encoder.onnx_engine import load_model
from xt.core.errors import XtError
from xt.serve.client import errors as client_errors
from xt.serve.client.models import Served
from xt.serve.gateway import stats as gateway_stats
from xt.serve.gateway.guard import trace_of
from xt.serve.gateway.models import calibration_of, status_of
from xt.serve.gateway.server import Gateway
from xt.serve.triton.addresses import free_ports

TEXTS = ["good morning world", "the cat sleeps today", "guten morgen welt"]


def cosine(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.fixture(scope="module")
def onnx(tiny_repository):
    return load_model(tiny_repository / "encoder", device="cpu")[0]


@pytest.fixture(scope="module")
def gateway(server):
    (port,) = free_ports(1)
    metrics = f"http://127.0.0.1:{server.ports.metrics}/metrics"
    with Gateway(server.url, port=port, metrics_url=metrics, max_texts=300, max_body_bytes=200_000) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway):
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def http(gateway):
    with httpx.Client(base_url=gateway.url, timeout=30) as opened:
        yield opened


def test_float_and_base64_are_the_same_numbers_and_those_of_onnx_runtime(client, onnx):
    plain = client.embeddings.create(model="encoder", input=TEXTS, encoding_format="float")
    packed = client.embeddings.create(model="encoder", input=TEXTS, encoding_format="base64")
    raw = [np.frombuffer(base64.b64decode(d.embedding), "<f4") for d in packed.data]
    default = client.embeddings.create(model="encoder", input=TEXTS)  # this client asks for base64 and unpacks it
    expected = onnx.encode(TEXTS)
    for found in ([d.embedding for d in plain.data], raw, [d.embedding for d in default.data]):
        assert np.shape(found) == (3, 32)
        assert cosine(found, expected.vectors).min() >= 0.99999
    np.testing.assert_array_equal(np.float32([d.embedding for d in plain.data]), np.stack(raw))
    assert [d.index for d in plain.data] == [0, 1, 2]
    assert plain.usage.prompt_tokens == plain.usage.total_tokens == expected.tokens.sum()
    assert plain.model == "encoder"


def test_one_text_is_a_list_of_one(client):
    one = client.embeddings.create(model="encoder", input=TEXTS[0]).data
    assert len(one) == 1
    assert cosine(one[0].embedding, client.embeddings.create(model="encoder", input=TEXTS).data[0].embedding) >= 0.99999


def test_dimensions_are_the_first_ones_made_unit_length(client):
    full = np.array([d.embedding for d in client.embeddings.create(model="encoder", input=TEXTS).data])
    short = np.array([d.embedding for d in client.embeddings.create(model="encoder", input=TEXTS, dimensions=8).data])
    np.testing.assert_allclose(short, full[:, :8] / np.linalg.norm(full[:, :8], axis=1, keepdims=True), atol=1e-5)


def test_token_ids_are_read_as_they_are(client, onnx):
    ids = [row.tolist() for row in onnx.tokenizer(TEXTS, prefix="query: ")[0]]
    texts = client.embeddings.create(model="encoder", input=TEXTS, extra_body={"input_type": "query"})
    many = client.embeddings.create(model="encoder", input=ids)
    one = client.embeddings.create(model="encoder", input=ids[1])
    assert cosine([d.embedding for d in many.data], [d.embedding for d in texts.data]).min() >= 0.99999
    assert cosine(one.data[0].embedding, texts.data[1].embedding) >= 0.99999
    assert many.usage.prompt_tokens == sum(map(len, ids))
    rows = [[0, *[9] * (40 - n // 10), 2] for n in range(280)]  # more than a request takes: sorted by length, and cut
    rows[7] = [9, 8]
    with pytest.raises(openai.BadRequestError, match="ids 7 starts with 9 and ends with 8"):
        client.embeddings.create(model="encoder", input=rows)


def test_the_prefix_is_chosen_by_input_type(client, onnx):
    found = client.embeddings.create(model="encoder", input=TEXTS, extra_body={"input_type": "passage"}).data
    assert cosine([d.embedding for d in found], onnx.encode(TEXTS, prefix="passage").vectors).min() >= 0.99999
    assert cosine([d.embedding for d in found], onnx.encode(TEXTS, prefix="query").vectors).max() < 0.9999


def test_more_texts_than_a_request_to_triton_takes_come_back_in_order(client, onnx):
    texts = [f"word{i} " + "good " * (i % 9) for i in range(290)]
    found = [d.embedding for d in client.embeddings.create(model="encoder", input=texts).data]
    assert cosine(found, onnx.encode(texts).vectors).min() >= 0.99999


LONG = "good " * 100


@pytest.mark.parametrize(
    ("options", "kind", "status", "code", "says"),
    [
        ({"model": "encodr"}, openai.NotFoundError, 404, "model_not_found", "Did you mean encoder"),
        ({"input": []}, openai.BadRequestError, 400, "invalid_request", "input is empty"),
        ({"input": ""}, openai.BadRequestError, 400, "invalid_request", "text 0 is empty"),
        ({"input": ["good", " "]}, openai.BadRequestError, 400, "invalid_request", "text 1 is empty"),
        ({"input": [[]]}, openai.BadRequestError, 400, "invalid_request", "text 0 has no token ids"),
        ({"input": [-1]}, openai.BadRequestError, 400, "invalid_request", "no token id"),
        ({"input": [9, 8, 7]}, openai.BadRequestError, 400, "invalid_request", "check_embedding_ctx_length=False"),
        (
            {"input": [[0, 9, 2], [9, 8]]},
            openai.BadRequestError,
            400,
            "invalid_request",
            "starts with 9 and ends with 8",
        ),
        ({"input": ["good", LONG]}, openai.BadRequestError, 400, "invalid_request", "text 1 has 103 tokens"),
        ({"input": ["good"] * 301}, openai.BadRequestError, 400, "too_many_texts", "at most 300"),
        ({"input": ["good " * 50_000]}, openai.APIStatusError, 413, "body_too_large", "larger than 200000 bytes"),
        ({"dimensions": 33}, openai.BadRequestError, 400, "invalid_request", "dimensions"),
        ({"dimensions": 0}, openai.BadRequestError, 400, "invalid_request", "dimensions"),
        ({"extra_body": {"input_type": "qery"}}, openai.BadRequestError, 400, "invalid_request", "Did you mean query"),
        ({"extra_body": {"nonsense": 1}}, openai.BadRequestError, 400, "invalid_request", "nonsense"),
        ({"encoding_format": "hex"}, openai.BadRequestError, 400, "invalid_request", "encoding_format"),
    ],
)
def test_what_is_wrong_is_an_error_in_openais_shape(client, options, kind, status, code, says):
    with pytest.raises(kind) as error:
        client.embeddings.create(**{"model": "encoder", "input": "good", **options})
    assert error.value.status_code == status
    assert error.value.code == code
    assert says in error.value.message
    assert set(error.value.body) == {"message", "type", "param", "code"}


def test_a_long_text_is_cut_on_request_and_flagged(http):
    answer = http.post("/v1/embeddings", json={"model": "encoder", "input": ["good", LONG], "truncate": True}).json()
    assert answer["truncated"] == [1]
    assert answer["usage"]["prompt_tokens"] == 4 + 64


def test_models_are_listed(client):
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by) == ("encoder", "model", "xt")
    assert model.dimensions == 32
    assert client.models.retrieve("encoder").kind == "encoder"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")


def test_a_token_is_asked_for_everywhere_but_by_probes_and_the_page(server):
    (port,) = free_ports(1)
    with Gateway(server.url, port=port, token="open-sesame") as gateway:
        for key in ("wrong", "open-sesam", "open-sesame2"):
            with pytest.raises(openai.AuthenticationError) as error:
                openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0).models.list()
            assert error.value.status_code == 401
        good = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="open-sesame", max_retries=0)
        assert good.embeddings.create(model="encoder", input="good").data[0].embedding
        closed = {
            path: httpx.get(gateway.url + path).status_code
            for path in ("/stats", "/metrics", "/v1/models", "/openapi.json", "/nothing")
        }
        assert set(closed.values()) == {401}, closed
        bare = httpx.get(gateway.url + "/v1/models", headers={"Authorization": "open-sesame"})
        assert (bare.status_code, bare.headers["www-authenticate"]) == (401, "Bearer")
        for path in ("/", "/health", "/ready", "/page/page.js"):
            assert httpx.get(gateway.url + path).status_code == 200
    with pytest.raises(XtError, match="token is empty"):
        Gateway(server.url, port=port, token="")


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1.evil.example:8080", "", "[::2]:80"])
def test_a_page_that_points_a_name_of_its_own_here_reads_nothing(gateway, http, name):
    for path in ("/", "/v1/models", "/health"):
        told = http.get(path, headers={"Host": name})
        assert (told.status_code, told.json()["error"]["code"]) == (421, "wrong_host")
    port = gateway.url.rpartition(":")[2]
    for own in (f"localhost:{port}", "127.0.0.1", f"[::1]:{port}", "LOCALHOST"):
        assert http.get("/health", headers={"Host": own}).status_code == 200


def test_with_a_token_or_for_other_machines_any_name_will_do(server):
    for options in ({"token": "open-sesame"}, {"host": "0.0.0.0"}):
        (port,) = free_ports(1)
        with Gateway(server.url, port=port, **options) as open_to_names:
            assert httpx.get(f"{open_to_names.url}/health", headers={"Host": "search.example"}).status_code == 200


def test_a_body_without_a_length_is_bounded_too(gateway):
    def chunks():
        for _ in range(100):
            yield b" " * 10_000

    answer = httpx.post(f"{gateway.url}/v1/embeddings", content=chunks(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_rerank_orders_by_cosine_and_says_that_it_is_no_probability(http, onnx):
    answer = http.post("/rerank", json={"query": TEXTS[1], "documents": TEXTS, "model": "encoder"}).json()
    expected = onnx.encode(TEXTS, prefix="passage").vectors @ onnx.encode([TEXTS[1]], prefix="query").vectors[0]
    assert [r["index"] for r in answer["results"]] == np.argsort(-expected).tolist()
    assert [r["score"] for r in answer["results"]] == pytest.approx(np.sort(expected)[::-1], abs=1e-4)
    assert answer["calibrated"] is False
    assert answer["none"] is None
    assert "cosines only" in answer["note"]
    assert all(r["probability"] is None and r["relevance_score"] == r["score"] for r in answer["results"])
    short = http.post("/rerank", json={"query": "good", "texts": TEXTS, "top_n": 2, "return_documents": False}).json()
    assert [set(r) for r in short["results"]] == [{"index", "score", "probability", "relevance_score", "copies"}] * 2
    for body in (
        {"query": "good"},
        {"query": "good", "documents": []},
        {"query": "good", "documents": ["a"], "texts": ["a"]},
    ):
        assert http.post("/rerank", json=body).status_code == 400


def test_a_calibrator_among_a_models_facts_is_found_by_language():
    table = CalibrationTable(RetrievalTemperature(0.1), "zero-shot", {"deu": RetrievalTemperature(0.2, 0.5)})
    model = Served("r", "retriever", 8, {"calibrated": table.to_json(), "kind": "retriever"}, (), ())
    assert calibration_of(model, "de") == (RetrievalTemperature(0.2, 0.5), "per-language:deu")
    assert calibration_of(model, None) == (RetrievalTemperature(0.1), "zero-shot")
    assert calibration_of(Served("e", "encoder", 8, {"encoder": {"dim": 3}}, (), ()), None) is None


def test_a_search_without_a_retriever_says_so(http):
    answer = http.post("/search", json={"query": "good"})
    assert answer.status_code == 404
    assert "holds no retriever" in answer.json()["error"]["message"]
    assert http.post("/search", json={"query": "good", "model": "encoder"}).status_code == 400
    assert http.post("/search", json={"query": "good", "queries": ["good"]}).status_code == 400


def test_one_trace_id_goes_through(http, caplog):
    known = "4bf92f3577b34da6a3ce929d0e0e4736"
    with caplog.at_level(logging.INFO, "xt.gateway"):
        answers = [
            http.get("/health", headers={"traceparent": f"00-{known}-00f067aa0ba902b7-01", "x-request-id": "mine"}),
            http.get("/health", headers={"x-request-id": "mine-7"}),
            http.get("/health", headers={"x-request-id": "two words"}),
            http.get("/nothing", headers={"x-request-id": "lost"}),
        ]
        deadline = time.monotonic() + 10  # a request is logged after its answer was sent
        while len(caplog.records) < len(answers) and time.monotonic() < deadline:
            time.sleep(0.01)
    traces = [a.headers["x-request-id"] for a in answers]
    assert traces[:2] == [known, "mine-7"]
    assert re.fullmatch("[0-9a-f]{32}", traces[2])
    logged = [r.getMessage() for r in caplog.records]
    assert all(any(f"trace={t}" in line for line in logged) for t in traces)
    assert any(line.startswith("GET /nothing 404") for line in logged)
    assert trace_of([(b"traceparent", b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01")]) != "0" * 32


@pytest.mark.parametrize("answer", ["computed", "refused", "slow"])
def test_triton_gets_the_trace_id_its_refusals_pass_on_and_a_client_that_left_is_cancelled(server, answer):
    """A real gRPC proxy between gateway and Triton sees and alters what passes."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc
    from tritonclient.grpc import service_pb2_grpc

    seen, cancelled = [], threading.Event()
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(server.url))

    class Proxy(service_pb2_grpc.GRPCInferenceServiceServicer):
        def ModelConfig(self, request, context):
            return stub.ModelConfig(request)

        def ModelInfer(self, request, context):
            seen.append(request.id)
            if answer == "refused":
                context.abort(grpc.StatusCode.UNAVAILABLE, "The queue is full: 9 requests wait, at most 9 may.")
            if answer == "slow":
                context.add_callback(cancelled.set)
                cancelled.wait(20)
            return stub.ModelInfer(request)

    proxy = grpc.server(ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Proxy(), proxy)
    url = f"127.0.0.1:{proxy.add_insecure_port('127.0.0.1:0')}"
    proxy.start()
    (port,) = free_ports(1)
    request = {"json": {"model": "encoder", "input": "good"}, "headers": {"x-request-id": "mine-8"}}
    try:
        with Gateway(url, port=port, models=["encoder"]) as gateway:
            where = f"{gateway.url}/v1/embeddings"
            if answer == "slow":
                with pytest.raises(httpx.ReadTimeout):
                    httpx.post(where, **request, timeout=0.5)
                assert cancelled.wait(5)  # long before the deadline of 60 s
            else:
                found = httpx.post(where, **request)
                assert found.status_code == {"computed": 200, "refused": 429}[answer]
                assert ("retry-after" in found.headers) == (answer == "refused")
                assert found.headers["x-request-id"] == "mine-8"
            assert seen == ["mine-8"]  # and asked once: whether to come back is the caller's choice
    finally:
        proxy.stop(None).wait()


def test_health_ready_and_a_server_that_is_not_there():
    port, nothing = free_ports(2)
    with Gateway(f"127.0.0.1:{nothing}", port=port, lost_seconds=1.0) as gateway:
        assert httpx.get(gateway.url + "/health").json() == {"status": "ok"}
        ready = httpx.get(gateway.url + "/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
        start = time.monotonic()
        answer = httpx.post(gateway.url + "/v1/embeddings", json={"model": "encoder", "input": "good"})
        assert 0.3 < time.monotonic() - start < 4  # it waited, but not for long
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "server_unreachable"
        assert answer.headers["retry-after"] == "1"
        assert httpx.get(gateway.url + "/metrics").status_code == 503
        assert "cannot be read" in httpx.get(gateway.url + "/stats").json()["problem"]


def test_a_port_in_use_is_an_error(gateway, server):
    with pytest.raises(XtError, match=f"Port {gateway.port} .* cannot be used") as error:
        Gateway(server.url, port=gateway.port).start()
    assert "--gateway-port" in error.value.hint


def test_leaving_the_block_frees_the_port(server):
    (port,) = free_ports(1)
    for _ in range(2):
        with Gateway(server.url, port=port) as gateway:
            assert httpx.get(gateway.url + "/health").status_code == 200
        assert not gateway.alive()


def test_overload_tells_when_to_come_back():
    assert status_of(client_errors.ServerFull("full"))[0] == 429
    assert status_of(client_errors.DeadlinePassed("late"))[0] == 504
    assert status_of(client_errors.Unreachable("gone"))[0] == 503
    assert status_of(XtError("other"))[0] == 500


def test_no_docs_page_that_loads_from_elsewhere_and_the_page_may_load_nothing_but_its_own(http):
    assert http.get("/docs").status_code == http.get("/redoc").status_code == 404
    for path in ("/", "/page/style.css", "/page/page.js", "/page/icon.svg"):
        answer = http.get(path)
        assert answer.status_code == 200
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        outside = re.findall(r"""(?:src|href|url|import)\W{1,3}(https?:)?//""", answer.text)
        assert outside == []
    assert http.get("/page/../gateway.py").status_code == 404


def test_stats_are_those_of_triton(http):
    http.get("/stats")
    time.sleep(0.6)
    for _ in range(5):
        http.post("/v1/embeddings", json={"model": "encoder", "input": TEXTS})
    time.sleep(1.2)  # xt's counts reach the metrics once a second or so
    stats = http.get("/stats").json()
    assert stats["sentences_per_second"] * stats["seconds"] >= 14.5
    assert stats["requests_per_second"] > 0
    assert 0 < stats["p50_ms"] < 5000
    assert stats["waiting"] == 0
    assert stats["problem"] is None
    assert "nv_inference_request_success" in http.get("/metrics").text


def test_rates_by_hand():
    before = gateway_stats.parse(
        'xt_texts_total{model="a"} 10\nxt_cache_hits_total 4\nxt_cache_misses_total 6\nxt_tokens_total 100\n'
    )
    after = gateway_stats.parse(
        '# HELP x\nxt_texts_total{model="a"} 20\nxt_texts_total{model="b"} 20\nxt_cache_hits_total 10\nxt_cache_misses_total 8\nxt_tokens_total 400\nxt_padded_tokens_total 600\nxt_seconds_total{stage="queue",model="a"} 1.5\n'
    )
    found = gateway_stats.rates(before, after, 2.0)
    assert found["sentences_per_second"] == 15
    assert found["tokens_per_second"] == 150
    assert found["cache_hit_rate"] == 0.75  # 6 hits, 2 misses
    assert found["cached_per_second"] == 3
    assert found["padding_ratio"] == 0.5
    assert found["stage_seconds"] == {"queue": 1.5}
    assert found["waiting"] is None
    assert gateway_stats.rates({"xt_tokens_total": 500}, after, 2.0)["tokens_per_second"] == 200  # loaded anew
    assert gateway_stats.rates({}, {}, 0.0)["sentences_per_second"] is None


def test_half_a_request_holds_up_nobody_and_leaves_nothing(gateway, http):
    halves = []
    for _ in range(5):
        half = socket.create_connection(("127.0.0.1", gateway.port))
        half.sendall(
            b'POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"inp'
        )
        halves.append(half)
    assert http.post("/v1/embeddings", json={"model": "encoder", "input": "good"}).status_code == 200
    for half in halves:
        half.close()
    assert http.post("/v1/embeddings", json={"model": "encoder", "input": "good"}).status_code == 200
