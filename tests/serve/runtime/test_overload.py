"""More work than the encoder can do, with the real server: who is refused, how soon, and what the others wait."""

from __future__ import annotations

import random
import shutil
import threading
import time
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as grpc
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from xt.core.files.artifact import MANIFEST, new_artifact, read_manifest
from xt.serve.client.packed import pack
from xt.serve.triton.launcher import TritonServer

pytestmark = pytest.mark.alone  # it asks when answers come: no other test may have the cores

WAITING_SECONDS = 1.0
"""Work that may wait on the server of these tests."""
TEXT_TOKENS = 63


@pytest.fixture(scope="module")
def capacity():
    """Texts a second, filled in by the fixture `slow`."""
    return {}


def with_settings(source, repository, **settings):
    source = source / "encoder"
    manifest = read_manifest(source)
    with new_artifact(repository / "encoder", kind="model", force=True) as draft:
        shutil.copytree(source, draft.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        file = draft.path / "config.pbtxt"
        config = text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())
        for name, value in settings.items():
            assert name in config.parameters
            config.parameters[name].string_value = str(value)
        file.write_text(text_format.MessageToString(config))
        draft.facts = manifest["facts"]
    return repository


@pytest.fixture(scope="module")
def slow(tiny_repository, tmp_path_factory, capacity):
    """The tiny encoder, made slow by forward passes of one text each, without a cache; a second of work may wait."""
    folder = tmp_path_factory.mktemp("slow")
    settings = {"token_budget": 1, "cache_megabytes": 0}
    with TritonServer(with_settings(tiny_repository, folder, **settings)) as server:
        client = grpc.InferenceServerClient(server.url)
        for repeat in range(3):
            start = time.perf_counter()
            client.infer("encoder", [blob(256, repeat)], client_timeout=60)
            capacity["texts"] = 256 / (time.perf_counter() - start)
        client.close()
    settings["max_waiting_tokens"] = int(WAITING_SECONDS * capacity["texts"] * TEXT_TOKENS)
    with TritonServer(with_settings(tiny_repository, folder, **settings)) as server:
        yield server


def blob(texts, seed):
    """A request of so many different texts of 63 tokens."""
    draw = random.Random(seed)
    data = pack([" ".join(f"word{draw.randrange(1200)}" for _ in range(60)) for _ in range(texts)])[None]
    tensor = grpc.InferInput("packed", list(data.shape), "UINT8")
    tensor.set_data_from_numpy(data)
    return tensor


def ids(texts, seed):
    """The same as token ids: they cost the server no tokenising."""
    data = np.random.default_rng(seed).integers(7, 1000, (texts, TEXT_TOKENS), dtype=np.int32)
    data[:, 0], data[:, -1] = 0, 2  # as the tokenizer puts them around every text
    tensor = grpc.InferInput("ids", list(data.shape), "INT32")
    tensor.set_data_from_numpy(data)
    return tensor


def metric(server, name):
    time.sleep(0.7)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports.metrics}/metrics", timeout=10) as answer:
        return sum(
            float(line.rpartition(" ")[2]) for line in answer.read().decode().splitlines() if line.startswith(name)
        )


class Calls:
    """Requests sent without waiting for their answers, and what became of each."""

    def __init__(self, server):
        self.client = grpc.InferenceServerClient(server.url)
        self.ended = []
        self.lock = threading.Condition()
        self.sent = 0

    def send(self, kind, tensor, **options):
        start = time.perf_counter()

        def done(result, error):
            with self.lock:
                self.ended.append((kind, error, time.perf_counter() - start))
                self.lock.notify()

        self.sent += 1
        wanted = [grpc.InferRequestedOutput("tokens")]
        return self.client.async_infer("encoder", [tensor], done, outputs=wanted, **options)

    def wait(self, seconds=30):
        with self.lock:
            assert self.lock.wait_for(lambda: len(self.ended) == self.sent, seconds)
        self.client.close()
        return self.ended


class Control:
    """Asks the server whether it lives, all the while: what this machine takes for a call that no model sees."""

    def __init__(self, server):
        self.client = grpc.InferenceServerClient(server.url)
        self.seconds = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.ask)
        self.thread.start()

    def ask(self):
        while not self.ended.wait(0.01):
            start = time.perf_counter()
            self.client.is_server_live()
            self.seconds.append(time.perf_counter() - start)

    def stop(self):
        """Give the longest in seconds."""
        self.ended.set()
        self.thread.join()
        self.client.close()
        return max(self.seconds)


def overload(server, rate, seed):
    """Send single texts and batches of 64 at a rate for 5 s: what became of each, and how long this machine stalled."""
    singles, batches = [blob(1, i) for i in range(50)], [blob(64, i) for i in range(50)]
    draw = random.Random(seed)
    calls = Calls(server)
    control = Control(server)
    start = time.perf_counter()
    due = start
    while due < start + 5:
        time.sleep(max(0.0, due - time.perf_counter()))
        kind = draw.choice(["single", "batch"])
        calls.send(kind, draw.choice(singles if kind == "single" else batches))
        due += draw.expovariate(rate)
    return calls.wait(), control.stop()


def test_at_four_times_the_capacity_who_is_refused_is_told_at_once_and_who_is_not_waits_a_bounded_time(slow, capacity):
    """Of five tries one must hold: whatever else this machine does spoils one of them; a late server is late in all."""
    late: dict[str, list[str]] = {}
    for attempt in range(5):
        ended, stall = overload(slow, 4 * capacity["texts"] / 32.5, attempt)  # half of the requests have one text
        late = {}
        for kind in ("single", "batch"):
            accepted = [seconds for k, error, seconds in ended if k == kind and error is None]
            refused = [(error, seconds) for k, error, seconds in ended if k == kind and error is not None]
            assert len(accepted) >= 10
            assert len(refused) >= 10 or kind == "single"  # single texts take little of what there is, and may all fit
            assert {error.status() for error, _ in refused} <= {"StatusCode.UNAVAILABLE"}
            assert all("The queue is full" in error.message() for error, _ in refused)
            slower = [f"{seconds:.3f}" for _, seconds in refused if seconds > 0.05 + stall]
            if len(slower) > 0.01 * len(refused):
                late[kind] = [*slower, f"of {len(refused)}"]
            # The clients of this test take CPU from the server, and single texts overtake the batches that wait.
            if np.quantile(accepted, 0.99) > 4 * WAITING_SECONDS:
                late[f"{kind}, accepted"] = [f"{np.quantile(accepted, 0.99):.1f}"]
        assert metric(slow, "xt_refused_total") >= sum(error is not None for _, error, _ in ended)
        if not late:
            break
    assert not late


def test_a_client_that_goes_away_costs_no_forward_pass(slow, capacity):
    clients = max(2, round(0.6 * capacity["texts"] / 256))  # of each kind: 0.9 s of work together, whatever the machine
    before = metric(slow, "xt_tokens_total"), metric(slow, "xt_cancelled_total")
    calls = Calls(slow)
    for seed in range(clients):
        calls.send("holds", ids(256, seed))
    time.sleep(0.1)
    contexts = [calls.send("gone", ids(128, 20 + i)) for i in range(clients)]
    time.sleep(0.1)
    for context in contexts:
        context.cancel()
    ended = calls.wait()
    assert [kind for kind, error, _ in ended if error is None] == ["holds"] * clients
    assert {error.status() for kind, error, _ in ended if kind == "gone"} == {"StatusCode.CANCELLED"}
    time.sleep(WAITING_SECONDS)
    assert metric(slow, "xt_cancelled_total") - before[1] == clients
    # Requests share the passes, so those that went away had some rows run before they did; no more than half of them.
    rows = (metric(slow, "xt_tokens_total") - before[0]) / TEXT_TOKENS
    assert 256 * clients <= rows <= 256 * clients + 128 * clients / 2


def test_a_request_whose_deadline_cannot_be_met_is_told_at_once(slow):
    tokens = metric(slow, "xt_tokens_total")
    calls = Calls(slow)
    for seed in range(7):
        calls.send("holds", ids(256, seed))
    time.sleep(0.2)
    calls.send("late", ids(256, 3), timeout=100_000)  # microseconds: its share of the passes is too small for it
    calls.send("patient", blob(1, 4), timeout=20_000_000)
    outcomes = calls.wait()
    held = sum(kind == "holds" and error is None for kind, error, _ in outcomes)
    ended = {kind: (error, seconds) for kind, error, seconds in outcomes}
    error, seconds = ended["late"]
    assert error.status() == "StatusCode.UNAVAILABLE"
    assert "The deadline cannot be met" in error.message()
    assert seconds <= 0.2  # of more than a second that it would have waited
    assert ended["patient"][0] is None
    assert ended["patient"][1] <= 1.0  # one text, that shares with the seven
    assert held >= 2
    assert metric(slow, "xt_tokens_total") - tokens == (held * 256 + 1) * TEXT_TOKENS


def test_a_request_larger_than_all_that_may_wait_is_answered_when_nothing_waits(slow, capacity):
    texts = min(int(1.5 * WAITING_SECONDS * capacity["texts"]), 1024)
    client = grpc.InferenceServerClient(slow.url)
    answer = client.infer("encoder", [blob(texts, 5)], client_timeout=60)
    assert answer.as_numpy("embedding").shape == (texts, 32)
    client.close()


def test_single_texts_overtake_large_requests_and_none_of_them_is_refused(slow, capacity):
    """Four large requests are some seconds of work, more than may wait; each of 20 single texts takes a fraction."""
    calls = Calls(slow)
    for seed in range(4):
        calls.send("large", ids(256, 20 + seed))
    time.sleep(0.2)
    for seed in range(20):
        calls.send("single", blob(1, 100 + seed))
        time.sleep(0.05)
    ended = calls.wait(60)
    assert [error for _, error, _ in ended if error is not None] == []
    singles = [seconds for kind, _, seconds in ended if kind == "single"]
    large = [seconds for kind, _, seconds in ended if kind == "large"]
    assert len(large) == 4
    assert max(large) > 1.5 * 256 / capacity["texts"]
    assert np.median(singles) < 0.1 * max(large)
    assert max(singles) < 0.5 * max(large)
