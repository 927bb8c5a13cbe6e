"""The load generator: its percentiles by hand, and plausible numbers of a real server and of a real encoder."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from xt.core.bitext import Bitext
from xt.core.errors import XtError
from xt.core.onnx_engine import load_model
from xt.serve import bench
from xt.serve.launcher import free_ports


def test_a_row_by_hand():
    """101 latencies of 0, 1, ... 100 ms: the 50th, 95th and 99th percentile are 50, 95 and 99 ms."""
    latencies = [i / 1000 for i in np.random.default_rng(0).permutation(101)]
    row = bench._row("e", "m", 8, latencies, sentences=202, tokens=1010, wall=4.0, cpu=1.0)
    assert (row.p50_ms, row.p95_ms, row.p99_ms) == pytest.approx((50, 95, 99))
    assert row.sentences_per_second == 50.5
    assert row.tokens_per_second == 252.5
    assert row.requests == 101
    assert row.client_cpu_share == 0.25
    assert (row.engine, row.model, row.concurrency) == ("e", "m", 8)
    assert row.to_json() == dataclasses.asdict(row)


def test_percentiles_between_two_requests_are_interpolated():
    row = bench._row("e", "m", 1, [0.010, 0.020], sentences=2, tokens=2, wall=1.0, cpu=0.0)
    assert (row.p50_ms, row.p95_ms, row.p99_ms) == pytest.approx((15, 19.5, 19.9))


def test_no_request_in_time_is_an_error_not_a_zero():
    with pytest.raises(XtError, match="No request of 32 callers ended in time") as error:
        bench._row("e", "m", 32, [], sentences=0, tokens=0, wall=1.0, cpu=0.0)
    assert "--seconds" in error.value.hint


def test_the_texts_are_those_of_the_corpus_each_once_mixed_and_the_same_every_time(corpus):
    texts = bench.mixed_texts(corpus)
    assert sorted(texts) == sorted({t for b in corpus for t in (*b.foreign, *b.english)})
    assert len(texts) == 16
    assert texts == bench.mixed_texts(corpus) != sorted(texts)
    assert bench.mixed_texts(list(reversed(corpus))) == texts
    assert bench.mixed_texts(corpus, count=5) == texts[:5]
    assert bench.mixed_texts([Bitext("deu", ("a",), ("a",))]) == ["a"]


def test_turns_are_interleaved_and_the_seconds_shared():
    calls = []

    def measurement(name, speeds):
        speeds = iter(speeds)

        def measure(seconds):
            calls.append((name, seconds))
            return bench.Row(name, "m", 1, next(speeds), 0, 0, 0, 0, 0, 0)

        return measure

    rows = bench.interleaved([measurement("a", [3, 1, 2]), measurement("b", [10, 30, 20])], seconds=6, rounds=3)
    assert calls == [("a", 2), ("b", 2)] * 3
    assert [r.sentences_per_second for r in rows] == [2, 20]  # the median turn


def plausible(row, calls_at_once, texts_a_call, slack=4):
    assert 0 < row.p50_ms <= row.p95_ms <= row.p99_ms
    assert row.requests > 5
    expected = calls_at_once * texts_a_call / (row.p50_ms / 1000)
    assert expected / slack < row.sentences_per_second < expected * 4
    assert 3 <= row.tokens_per_second / row.sentences_per_second <= 12
    assert row.client_cpu_share > 0


@pytest.mark.parametrize("callers", [1, 4])
def test_a_real_server_gives_a_plausible_row(server, corpus, callers):
    row = bench.served(server.url, None, bench.mixed_texts(corpus), callers, 1.6)
    assert (row.engine, row.model, row.concurrency) == ("triton fp32", "encoder", callers)
    plausible(row, callers, 1, slack=20)
    # What is under way at the end counts, and so does the time until its answer.
    assert row.requests / 11.6 < row.sentences_per_second <= row.requests / 1.6


def test_an_encoder_in_process_gives_a_plausible_row(tiny_repository, corpus):
    encoder, _ = load_model(tiny_repository / "encoder", device="cpu", threads=1)
    texts = bench.mixed_texts(corpus)
    row = bench.in_process(encoder, texts, "onnxruntime fp32", "tiny", 7, 0.4)
    assert (row.engine, row.model, row.concurrency) == ("onnxruntime fp32", "tiny", 7)
    plausible(row, 1, 7)
    lengths = [len(re.findall(r"\S+", t)) + 3 for t in texts]  # query:, <s>, </s>
    assert row.tokens_per_second / row.sentences_per_second == pytest.approx(np.mean(lengths), rel=0.3)


def test_every_text_is_encoded_in_turn():
    seen = []

    class Recording:
        def encode(self, texts):
            seen.append(list(texts))
            return type("E", (), {"tokens": np.full(len(texts), 2)})()

    row = bench.in_process(Recording(), ["a", "b", "c", "d", "e"], "e", "m", 2, 0.02)
    assert seen[:6] == [["a", "b"], ["a", "b"], ["c", "d"], ["e", "a"], ["b", "c"], ["d", "e"]]  # the first warms up
    assert row.requests == len(seen) - 1
    assert row.tokens_per_second == pytest.approx(2 * row.sentences_per_second)


def test_an_error_of_a_caller_is_raised_not_counted(server):
    with pytest.raises(XtError, match="reads at most 64"):
        bench.served(server.url, None, ["good", "good " * 100], 2, 0.2)


def test_a_server_that_is_not_there_is_an_error():
    (port,) = free_ports(1)
    with pytest.raises(XtError, match="No server answers"):
        bench.served(f"127.0.0.1:{port}", None, ["good"], 1, 0.2)
