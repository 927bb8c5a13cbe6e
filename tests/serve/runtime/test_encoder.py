"""What a caller of the served encoder is promised: the same vectors, his own errors, and no one else's.

Tests `serve/client/encoder.py`, `serve/runtime/exchange.py`, `serve/runtime/request.py`, `serve/runtime/served.py`
and `serve/runtime/meters.py` as well.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
import unicodedata
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as grpc
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from xt.core.encoder.onnx_engine import load_model
from xt.core.encoder.torch_engine import load_encoder
from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, new_artifact, read_manifest
from xt.serve.client.encoder import TritonEncoder
from xt.serve.client.errors import DeadlinePassed, ServerFull
from xt.serve.client.packed import pack
from xt.serve.triton.addresses import free_ports
from xt.serve.triton.launcher import TritonServer

WORDS = "good morning world the cat sleeps today guten morgen welt habari za asubuhi bonjour tout le monde".split()


def sentences(count, longest=30, seed=0):
    """Different texts of 1 to `longest` words."""
    random = np.random.default_rng(seed)
    texts = {}
    while len(texts) < count:
        texts[f"word{len(texts)} " + " ".join(random.choice(WORDS, random.integers(1, longest)))] = None
    return list(texts)


def cosine(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.fixture(scope="module")
def encoder(server):
    with_client = TritonEncoder(server.url)
    yield with_client
    with_client.close()


@pytest.fixture(scope="module")
def onnx(tiny_repository):
    return load_model(tiny_repository / "encoder", device="cpu")[0]


@pytest.fixture(scope="module")
def client(server):
    raw = grpc.InferenceServerClient(server.url)
    yield raw
    raw.close()


def with_settings(source, repository, **settings):
    """Copy the repository's encoder with other parameters in its config.pbtxt."""
    source = source / "encoder"
    manifest = read_manifest(source)
    with new_artifact(repository / "encoder", kind="model") as draft:
        shutil.copytree(source, draft.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        file = draft.path / "config.pbtxt"
        config = text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())
        for name, value in settings.items():
            assert name in config.parameters
            config.parameters[name].string_value = str(value)
        file.write_text(text_format.MessageToString(config))
        draft.facts = manifest["facts"]
    return repository


def ask(client, texts, model="encoder", **options):
    """One request of raw bytes, past everything that xt's own client checks."""
    data = np.array([[t] for t in texts], dtype=np.object_)
    tensor = grpc.InferInput("text", list(data.shape), "BYTES")
    tensor.set_data_from_numpy(data)
    return client.infer(model, [tensor], client_timeout=60, **options)


def refused(client, texts, **options):
    with pytest.raises(grpc.InferenceServerException) as error:
        ask(client, texts, **options)
    return error.value.status(), error.value.message()


def test_the_server_tells_what_it_serves(encoder, tiny):
    assert encoder.model == "encoder"  # the only one: it need not be named
    assert encoder.spec == tiny.spec
    assert encoder.served.max_texts == 256
    assert encoder.facts["precision"] == "fp32"
    assert encoder.facts["checkpoint"] == tiny.parent


def test_served_vectors_are_those_of_onnx_runtime_and_of_pytorch_here(encoder, onnx, tiny):
    texts = sentences(50)
    served = encoder.encode(texts)
    for other in (onnx, load_encoder(tiny, device="cpu")):
        here = other.encode(texts)
        assert cosine(served.vectors, here.vectors).min() >= 0.99999
        np.testing.assert_array_equal(served.tokens, here.tokens)
        np.testing.assert_array_equal(served.truncated, here.truncated)
    np.testing.assert_allclose(np.linalg.norm(served.vectors, axis=1), 1, atol=1e-5)


def test_more_texts_than_a_request_takes_come_back_in_order(encoder, onnx):
    texts = sentences(600)
    found = encoder.encode(texts)
    assert found.vectors.shape == (600, 32)
    assert cosine(found.vectors, onnx.encode(texts).vectors).min() >= 0.99999
    assert found.tokens.tolist() == [len(t.split()) + 3 for t in texts]  # with <s>, query: and </s>


def test_no_texts_give_no_vectors(encoder):
    assert encoder.encode([]).vectors.shape == (0, 32)


def test_a_text_has_one_vector_whatever_is_in_the_batch(encoder):
    texts = sentences(64, longest=50, seed=1)
    together = encoder.encode(texts).vectors
    alone = np.concatenate([encoder.encode([t]).vectors for t in texts])
    assert cosine(together, alone).min() >= 0.99999


def test_a_text_has_one_vector_whoever_else_calls(server, encoder):
    """Eight callers at once, each with texts of its own and one that all share."""
    shared = "the cat sleeps today"
    alone = encoder.encode([shared]).vectors[0]
    barrier = threading.Barrier(8)

    def call(caller):
        own = TritonEncoder(server.url)
        texts = sentences(12, longest=50, seed=caller)
        expected = encoder.encode(texts).vectors
        barrier.wait()
        found = [own.encode([shared, *texts[: 1 + turn]]).vectors for turn in range(12)]
        own.close()
        return [x[0] for x in found], cosine(found[-1][1:], expected).min()

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(call, range(8)))
    assert len(results) == 8
    assert min(cosine(v, alone) for vectors, _ in results for v in vectors) >= 0.99999
    assert min(least for _, least in results) >= 0.99999


def test_each_caller_gets_his_own_error_and_the_others_their_vectors(client, onnx):
    """Good and bad requests at once, many of which the server batches together."""
    texts = sentences(20, seed=5)
    expected = onnx.encode(texts).vectors
    bad = [
        ([b"good " * 100], {}, "103 tokens; the encoder reads at most 64"),
        ([b"\xff\xfe"], {}, "not valid UTF-8"),
        ([b"good"], {"prefix": "qery"}, "Unknown prefix 'qery'. Did you mean query?"),
        ([b"good"], {"prefix": 5}, "prefix is 5, expected text"),
        ([b"good"], {"truncate": "no"}, "truncate is 'no', expected true or false"),
        ([b"good"], {"nonsense": True}, "Unknown parameter 'nonsense'"),
    ]

    def good(index):
        return cosine(ask(client, [texts[index].encode()]).as_numpy("embedding")[0], expected[index])

    def wrong(index):
        raw, parameters, _ = bad[index % len(bad)]
        return refused(client, raw, parameters=parameters)

    with ThreadPoolExecutor(16) as pool:
        errors = [pool.submit(wrong, i) for i in range(60)]
        answers = [pool.submit(good, i % 20) for i in range(60)]
        assert min(a.result() for a in answers) >= 0.99999
        for i, error in enumerate(errors):
            status, message = error.result()
            assert status == "StatusCode.INVALID_ARGUMENT"
            assert bad[i % len(bad)][2] in message


def test_a_text_that_is_too_long_is_an_error_that_names_the_limit(encoder):
    with pytest.raises(XtError, match=r"^text 1 has 65 tokens; the encoder reads at most 64") as error:
        encoder.encode(["good", " ".join(["good"] * 62)])
    assert "truncate=true" in str(error.value)
    assert encoder.encode([" ".join(["good"] * 61)]).tokens.tolist() == [64]


def test_truncation_that_was_asked_for_is_flagged(encoder, onnx):
    texts = ["the cat", " ".join(WORDS * 5), "good morning"]
    found = encoder.encode(texts, truncate=True)
    assert found.truncated.tolist() == [False, True, False]
    assert found.tokens.tolist() == [5, 64, 5]
    assert cosine(found.vectors, onnx.encode(texts, truncate=True).vectors).min() >= 0.99999
    same_start = encoder.encode([" ".join((WORDS * 5)[:61])])
    assert cosine(found.vectors[1], same_start.vectors[0]) >= 0.99999  # the end of sequence is kept


def test_a_prefix_is_put_before_the_text(encoder):
    by_role = encoder.encode(["the cat"], prefix="passage").vectors
    by_hand = encoder.encode(["passage: the cat"], prefix="none").vectors
    assert cosine(by_role, by_hand).min() >= 0.99999
    assert cosine(by_role, encoder.encode(["the cat"]).vectors).min() < 0.9999
    with pytest.raises(XtError, match="Unknown prefix 'pasage'. Did you mean passage"):
        encoder.encode(["the cat"], prefix="pasage")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([b"good", b"caf\xe9"], "text 1 is not valid UTF-8: unexpected end of data at byte 3"),
        ([b"\xed\xa0\x80"], "text 0 is not valid UTF-8"),  # a lone surrogate
        ([b""], "text 0 is empty"),
        ([b"good", b" \n"], "text 1 is empty"),
        ([b"a\0b"], "text 0 holds a NUL character"),
        ([b"good"] * 257, "batch-size must be <= 256"),
    ],
)
def test_bytes_that_are_no_text_are_refused(client, raw, message):
    status, found = refused(client, raw)
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert message in found
    assert ask(client, [b"good"]).as_numpy("embedding").shape == (1, 32)


@pytest.mark.parametrize("text", ["", " ", "a\0b", "\ud800", 5])
def test_what_is_no_text_is_refused_before_it_is_sent(encoder, text):
    with pytest.raises(XtError, match="text 1"):
        encoder.encode(["good", text])


def test_an_unknown_model_is_answered_with_the_near_one(server):
    with pytest.raises(XtError, match=r"Unknown model 'encodr'\. Did you mean encoder\?") as error:
        TritonEncoder(server.url, "encodr")
    assert error.value.hint == "Known: encoder."


@pytest.mark.parametrize("url", ["localhost", "127.0.0.1:", ":8001", "127.0.0.1:http", "", "8001"])
def test_an_address_without_host_or_port_is_refused(url):
    with pytest.raises(XtError, match="is no address") as error:
        TritonEncoder(url)
    assert "HOST:PORT" in error.value.hint


def test_a_server_that_is_not_there_is_named():
    (port,) = free_ports(1)
    for url in (f"127.0.0.1:{port}", "no.such.host.invalid:8001"):
        with pytest.raises(XtError) as error:
            TritonEncoder(url, wait_seconds=0.3)
        assert error.value.message.startswith(f"No server answers at {url} (")
        assert "xt serve" in error.value.hint


def test_the_http_port_is_not_the_grpc_port(server):
    with pytest.raises(XtError, match=f"No server answers at 127.0.0.1:{server.ports.http}"):
        TritonEncoder(f"127.0.0.1:{server.ports.http}", wait_seconds=0.3)


def post(server, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.ports.http}/v2/models/encoder/infer", json.dumps(body).encode()
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_plain_json_over_http_gives_the_same_vectors(server, encoder):
    texts = ["habari za asubuhi", " ".join(WORDS * 5)]
    data = {"name": "text", "shape": [2, 1], "datatype": "BYTES", "data": texts}
    answer = post(server, {"parameters": {"truncate": True, "prefix": "passage"}, "inputs": [data]})
    outputs = {o["name"]: o for o in answer["outputs"]}
    expected = encoder.encode(texts, prefix="passage", truncate=True)
    assert outputs["embedding"]["shape"] == [2, 32]
    assert cosine(np.reshape(outputs["embedding"]["data"], (2, 32)), expected.vectors).min() >= 0.99999
    assert outputs["truncated"]["data"] == [False, True]
    assert outputs["tokens"]["data"] == expected.tokens.tolist()


def test_an_error_over_http_is_a_400_with_the_reason(server):
    data = {"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": ["good " * 100]}
    with pytest.raises(urllib.error.HTTPError) as error:
        post(server, {"inputs": [data]})
    assert error.value.code == 400
    assert "reads at most 64" in json.load(error.value)["error"]


def test_the_http_client_of_triton_gives_the_same_vectors(server, encoder):
    http = pytest.importorskip("tritonclient.http")
    with http.InferenceServerClient(f"127.0.0.1:{server.ports.http}") as client:
        tensor = http.InferInput("text", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[b"bonjour tout le monde"]], object))
        vector = client.infer("encoder", [tensor]).as_numpy("embedding")
    assert cosine(vector, encoder.encode(["bonjour tout le monde"]).vectors).min() >= 0.99999


def test_no_request_sleeps_in_the_batcher(server):
    """Triton 2.51's batcher sleeps up to 500 ms in a row of requests when the model has a queue policy."""
    encoder = TritonEncoder(server.url)
    seconds = []
    for _ in range(150):
        start = time.perf_counter()
        encoder.encode(["good morning"])
        seconds.append(time.perf_counter() - start)
    encoder.close()
    assert sum(s > 0.4 for s in seconds) <= 1


def test_a_callers_own_deadline_is_an_error_of_its_name(server):
    impatient = TritonEncoder(server.url, timeout_seconds=0.0005)
    with pytest.raises(DeadlinePassed):
        impatient.encode(sentences(200, longest=50))
    impatient.close()


def test_a_full_queue_is_refused_at_once_and_tried_again(tiny_repository, tmp_path):
    """A server that lets one request wait: a burst of others gets UNAVAILABLE; xt's client tries again, then says so."""
    repository = with_settings(tiny_repository, tmp_path / "repository", max_waiting_requests=1, cache_megabytes=0)
    texts = [" ".join(WORDS[:12] * 5) + f" word{i}" for i in range(256)]
    with TritonServer(repository) as server:
        raw = grpc.InferenceServerClient(server.url)
        outcomes = []

        def burst(_):
            try:
                ask(raw, [t.encode() for t in texts])
                outcomes.append("answered")
            except grpc.InferenceServerException as error:
                outcomes.append(f"{error.status()} {error.message()}")

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(burst, range(32)))
        refusals = [o for o in outcomes if o != "answered"]
        assert "answered" in outcomes
        assert refusals
        assert all("UNAVAILABLE" in o and "The queue is full" in o for o in refusals)

        ours = TritonEncoder(server.url, timeout_seconds=0.3)
        patient = TritonEncoder(server.url)
        stop = threading.Event()

        def keep_full():
            while not stop.is_set():
                burst(0)

        load = [threading.Thread(target=keep_full) for _ in range(12)]
        for thread in load:
            thread.start()
        try:
            patience = time.monotonic() + 60  # each try may slip in between two of the others' requests
            with pytest.raises((ServerFull, DeadlinePassed), match="queue is full|deadline"):  # whichever comes last
                while time.monotonic() < patience:
                    ours.encode(["good"])
            assert patient.encode(["good"]).vectors.shape == (1, 32)  # it asks until its own deadline
        finally:
            stop.set()
            for thread in load:
                thread.join()
        assert ours.encode(["good"]).vectors.shape == (1, 32)  # and when the rush is over, all is well
        ours.close()
        patient.close()
        raw.close()


def test_a_model_that_xt_did_not_make_and_several_models_are_told_apart(tiny_repository, tmp_path):
    repository = tmp_path / "repository"
    for name in ("first", "second"):
        source = tiny_repository / "encoder"
        manifest = read_manifest(source)
        with new_artifact(repository / name, kind="model") as draft:
            shutil.copytree(source, draft.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
            config = (draft.path / "config.pbtxt").read_text().replace('name: "encoder"', f'name: "{name}"')
            if name == "second":
                config = config.replace('key: "xt"', 'key: "other"')
            (draft.path / "config.pbtxt").write_text(config)
            draft.facts = manifest["facts"]
    with TritonServer(repository, trust_code=True) as server:
        assert server.models == ["first", "second"]
        with pytest.raises(XtError, match="holds first, second") as error:
            TritonEncoder(server.url)
        assert "--model" in error.value.hint
        with pytest.raises(XtError, match="'second' .* was not made by xt"):
            TritonEncoder(server.url, "second")
        first = TritonEncoder(server.url, "first")
        assert first.encode(["good"]).vectors.shape == (1, 32)
        first.close()


# The other ways in and out


def send(client, name, data, kind, outputs=None, **parameters):
    """One request with one input of any kind."""
    tensor = grpc.InferInput(name, list(data.shape), kind)
    tensor.set_data_from_numpy(data)
    wanted = [grpc.InferRequestedOutput(o) for o in outputs] if outputs else None
    return client.infer("encoder", [tensor], outputs=wanted, parameters=parameters or None, client_timeout=60)


def padded_ids(onnx, texts):
    rows, _ = onnx.tokenizer(texts, prefix="query: ")
    ids = np.full((len(rows), max(map(len, rows)) + 3), -1, np.int32)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return ids


def test_text_ids_and_a_packed_blob_give_the_same_vectors(client, onnx):
    texts = sentences(40, seed=7)
    expected = onnx.encode(texts)
    for answer in (
        send(client, "text", np.array([[t.encode()] for t in texts], object), "BYTES"),
        send(client, "ids", padded_ids(onnx, texts), "INT32"),
        send(client, "packed", pack(texts)[None], "UINT8"),
    ):
        assert cosine(answer.as_numpy("embedding"), expected.vectors).min() >= 0.99999
        np.testing.assert_array_equal(answer.as_numpy("tokens")[:, 0], expected.tokens)
        assert not answer.as_numpy("truncated").any()


def test_a_packed_request_takes_more_texts_than_rows_of_a_tensor(client, onnx):
    texts = sentences(1024, longest=8, seed=9)
    answer = send(client, "packed", pack(texts)[None], "UINT8")
    assert cosine(answer.as_numpy("embedding"), onnx.encode(texts).vectors).min() >= 0.99999
    with pytest.raises(grpc.InferenceServerException, match="packed has 1025 texts; a request takes 1 to 1024"):
        send(client, "packed", pack([*texts, "one more"])[None], "UINT8")


def test_vectors_come_as_float16_and_int8_and_only_what_is_named_is_sent(client):
    blob = pack(sentences(20, seed=11))[None]
    full = send(client, "packed", blob, "UINT8").as_numpy("embedding")
    half = send(client, "packed", blob, "UINT8", outputs=["embedding_fp16"])
    assert [o.name for o in half.get_response().outputs] == ["embedding_fp16"]
    np.testing.assert_array_equal(half.as_numpy("embedding_fp16"), full.astype(np.float16))
    small = send(client, "packed", blob, "UINT8", outputs=["embedding_int8", "scale"])
    codes, scale = small.as_numpy("embedding_int8"), small.as_numpy("scale")
    assert codes.dtype == np.int8
    np.testing.assert_array_equal(np.abs(codes.astype(int)).max(axis=1), 127)  # the whole range is used
    assert np.abs(codes * scale - full).max() <= scale.max() * 0.501
    named_none = send(client, "packed", blob, "UINT8")
    assert sorted(o.name for o in named_none.get_response().outputs) == ["embedding", "tokens", "truncated"]


def test_fewer_dimensions_are_the_first_ones_at_unit_length(client):
    blob = pack(sentences(10, seed=12))[None]
    full = send(client, "packed", blob, "UINT8").as_numpy("embedding").astype(np.float64)
    for n in (1, 8, 32):
        found = send(client, "packed", blob, "UINT8", dimensions=n).as_numpy("embedding")
        expected = full[:, :n] / np.sqrt((full[:, :n] ** 2).sum(axis=1, keepdims=True))
        np.testing.assert_allclose(found, expected, atol=1e-6)
    half = send(client, "packed", blob, "UINT8", outputs=["embedding_fp16"], dimensions=8)
    assert half.as_numpy("embedding_fp16").shape == (10, 8)


GOOD = np.array([[0, 5, 8, 2, -1]], np.int32)


@pytest.mark.parametrize(
    ("name", "data", "kind", "parameters", "message"),
    [
        ("packed", np.zeros((1, 2), np.uint8), "UINT8", {}, "packed has 2 bytes; it starts with a count of 4"),
        ("packed", np.zeros((2, 4), np.uint8), "UINT8", {}, "packed has 2 rows; a request takes one blob"),
        ("packed", pack(["a", ""])[None], "UINT8", {}, "text 1 is empty"),
        ("packed", pack(["a", "a\0b"])[None], "UINT8", {}, "text 1 holds a NUL"),
        ("packed", pack(["a", "b " * 100])[None], "UINT8", {}, "text 1 has 103 tokens; the encoder reads at most 64"),
        ("ids", np.array([[0, 5], [0, -2]], np.int32), "INT32", {}, "ids 1 holds -2 at position 1; expected 0 to 12"),
        ("ids", np.array([[0, 999999]], np.int32), "INT32", {}, "ids 0 holds 999999 at position 1; expected 0 to 12"),
        ("ids", np.array([[0, -1, 2]], np.int32), "INT32", {}, "ids 0 holds -1 at position 1"),
        ("ids", np.array([[0, 2], [-1, -1]], np.int32), "INT32", {}, "ids 1 is empty"),
        (
            "ids",
            np.array([[0, *[5] * 63, 2]], np.int32),
            "INT32",
            {},
            "ids 0 has 65 tokens; the encoder reads at most 64",
        ),
        ("ids", np.array([[5, 8]], np.int32), "INT32", {}, "ids 0 starts with 5 and ends with 8, but the ids of this"),
        ("ids", np.array([[5, 8]], np.int32), "INT32", {}, "tokenizer start with 0 and end with 2: these were"),
        ("ids", np.array([[5, 8]], np.int32), "INT32", {}, "check_embedding_ctx_length=False"),
        ("ids", np.array([[0, 5, 2], [0, 8, -1]], np.int32), "INT32", {}, "ids 1 starts with 0 and ends with 8"),
        ("ids", np.array([[0, 5, 2], [8, 2, -1]], np.int32), "INT32", {}, "ids 1 starts with 8 and ends with 2"),
        ("ids", np.array([[0]], np.int32), "INT32", {}, "ids 0 starts with 0 and ends with 0"),
        ("ids", np.array([[0, 2]], np.int32), "INT32", {}, "ids 0 holds no token of a text"),
        ("ids", np.array([[0, 5, 2, 1, 1]], np.int32), "INT32", {}, "ids 0 is filled up with 1, the padding token"),
        ("ids", np.array([[1, 0, 5, 2]], np.int32), "INT32", {}, "Turn the padding of your tokenizer off"),
        ("ids", np.array([[0, 99_999]], np.int32), "INT32", {}, "check_embedding_ctx_length=False"),
        ("ids", GOOD, "INT32", {"prefix": "query"}, "prefix goes with texts"),
        ("ids", GOOD, "INT32", {"dimensions": 0}, "dimensions is 0, expected 1 to 32"),
        ("ids", GOOD, "INT32", {"dimensions": 33}, "dimensions is 33, expected 1 to 32"),
        ("ids", GOOD, "INT32", {"dimensions": True}, "dimensions is True, expected a whole number"),
        ("ids", GOOD.astype(np.int64), "INT64", {}, "data-type"),
        ("text", np.array([[b"a", b"b"]], object), "BYTES", {}, "text"),
        ("words", np.array([[b"a"]], object), "BYTES", {}, "unexpected inference input 'words'"),
    ],
)
def test_what_is_wrong_with_an_input_is_said_by_name(client, name, data, kind, parameters, message):
    with pytest.raises(grpc.InferenceServerException) as error:
        send(client, name, data, kind, **parameters)
    assert error.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert message in error.value.message()
    assert send(client, "ids", GOOD, "INT32").as_numpy("tokens").tolist() == [[4]]


def test_ids_that_are_too_long_are_cut_when_asked_and_the_last_token_is_kept(client):
    ids = np.array([[0, *[8] * 80, 2]], np.int32)
    answer = send(client, "ids", ids, "INT32", truncate=True)
    assert (answer.as_numpy("tokens").tolist(), answer.as_numpy("truncated").tolist()) == ([[64]], [[True]])
    same = send(client, "ids", np.array([[0, *[8] * 62, 2]], np.int32), "INT32")
    assert cosine(answer.as_numpy("embedding"), same.as_numpy("embedding")).min() >= 0.99999


def test_a_request_brings_exactly_one_input(client):
    ids = grpc.InferInput("ids", [1, 5], "INT32")
    ids.set_data_from_numpy(GOOD)
    text = grpc.InferInput("text", [1, 1], "BYTES")
    text.set_data_from_numpy(np.array([[b"a"]], object))
    for inputs, message in (([text, ids], "text and ids, expected exactly one"), ([], "request has 0 inputs")):
        with pytest.raises(grpc.InferenceServerException, match=message) as error:
            client.infer("encoder", inputs, client_timeout=20)
        assert error.value.status() == "StatusCode.INVALID_ARGUMENT"


# What is counted


def scrape(server):
    """xt's metrics, by name and labels but those that say whose they are; of a model's processes the sum."""
    time.sleep(0.7)  # they are handed over every half second
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports.metrics}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        if line.startswith("xt_"):
            name, _, rest = line.partition("{")
            labels, _, value = rest.rpartition("} ")
            own = ",".join(x for x in labels.split(",") if not x.startswith(("model=", "version=", "process=")))
            key = f"{name} {own}".strip()
            found[key] = found.get(key, 0) + float(value)
    return found


def test_metrics_count_what_was_done(server, client, onnx):
    texts = sentences(30, seed=21)
    rows, _ = onnx.tokenizer(texts, prefix="query: ")
    tokens = sum(map(len, rows))
    before = scrape(server)
    blob = pack([*texts, " ".join(["metrics", *WORDS * 5])])[None]
    first = send(client, "packed", blob, "UINT8", truncate=True)
    second = send(client, "packed", blob, "UINT8", truncate=True)  # all of it from the cache
    assert first.as_numpy("embedding").tobytes() == second.as_numpy("embedding").tobytes()
    np.testing.assert_array_equal(first.as_numpy("tokens"), second.as_numpy("tokens"))
    np.testing.assert_array_equal(first.as_numpy("truncated"), second.as_numpy("truncated"))
    refused(client, [b""])
    after = scrape(server)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown["xt_texts_total"] == 62
    assert grown["xt_cache_misses_total"] == 31
    assert grown["xt_cache_hits_total"] == 31
    assert grown["xt_tokens_total"] == tokens + 64
    assert tokens + 64 <= grown["xt_padded_tokens_total"] <= 1.5 * (tokens + 64)
    assert 1 <= grown["xt_micro_batches_total"] <= 31
    assert grown["xt_truncated_total"] == 2
    assert grown['xt_refused_total reason="invalid"'] == 1
    assert after['xt_refused_total reason="error"'] == 0
    assert after["xt_waiting_requests"] == after["xt_waiting_tokens"] == 0
    for stage in ("queue", "tokenise", "forward", "post"):
        assert 0 < grown[f'xt_seconds_total stage="{stage}"'] < 5


@pytest.mark.parametrize("datatype", ["packed", "ids"])
def test_without_the_cache_every_text_is_computed_and_none_is_kept(server, client, onnx, datatype):
    texts = sentences(10, seed=22)
    rows, _ = onnx.tokenizer(texts, prefix="query: ")
    width = max(map(len, rows))
    ids = np.array([[*row, *[-1] * (width - len(row))] for row in rows], np.int32)
    data = ("packed", pack(texts)[None], "UINT8") if datatype == "packed" else ("ids", ids, "INT32")
    before = scrape(server)
    first = send(client, *data, cache=False)
    second = send(client, *data, cache=False)
    third = send(client, *data)  # not kept: computed once more
    fourth = send(client, *data, cache=False)  # kept now, and computed all the same
    after = scrape(server)
    assert len({x.as_numpy("embedding").tobytes() for x in (first, second, third, fourth)}) == 1
    assert after["xt_tokens_total"] - before["xt_tokens_total"] == 4 * sum(map(len, rows))
    assert after["xt_cache_hits_total"] == before["xt_cache_hits_total"]
    with pytest.raises(grpc.InferenceServerException, match="cache is 'no', expected true or false"):
        send(client, *data, cache="no")


def test_both_forms_of_unicode_are_one_text_to_encoder_and_cache(server, client):
    composed = "wir essen heute brot und käse, die katze schläft"
    decomposed = unicodedata.normalize("NFD", composed)
    one = ask(client, [composed.encode()])
    before = scrape(server)
    other = ask(client, [decomposed.encode()])
    after = scrape(server)
    assert [after[k] - before[k] for k in ("xt_cache_hits_total", "xt_cache_misses_total")] == [1, 0]
    np.testing.assert_array_equal(one.as_numpy("embedding"), other.as_numpy("embedding"))
    np.testing.assert_array_equal(one.as_numpy("tokens"), other.as_numpy("tokens"))


def test_the_cache_tells_prefixes_and_truncation_apart(client):
    def vector(**parameters):
        return send(client, "packed", pack(["the same cat"])[None], "UINT8", **parameters).as_numpy("embedding")

    query, passage, plain = vector(), vector(prefix="passage"), vector(prefix="none")
    assert cosine(query, passage).max() < 0.9999
    assert cosine(query, plain).max() < 0.9999
    assert vector(prefix="query").tobytes() == query.tobytes()
    long = pack([" ".join(WORDS * 5)])[None]
    send(client, "packed", long, "UINT8", truncate=True)
    with pytest.raises(grpc.InferenceServerException, match="reads at most 64"):
        send(client, "packed", long, "UINT8")
