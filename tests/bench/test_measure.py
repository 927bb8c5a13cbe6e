"""The load generator: its arithmetic by hand, and plausible numbers of a real server and of a real encoder.

Tests `bench/endpoints.py`, `bench/http.py`, `bench/known.py`, `bench/load.py`, `bench/machine.py` and `bench/plot.py`
as well.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from xt.bench import http as bench_http
from xt.bench import load, machine, plot, session
from xt.bench import measure as bench
from xt.bench.load import Answer, Seen, TextPool, closed_loop, open_loop, poisson
from xt.core.data.bitext import Bitext
from xt.core.encoder.onnx_engine import load_model
from xt.core.errors import XtError
from xt.core.results.work import ServingRow
from xt.serve.client.encoder import TritonEncoder
from xt.serve.client.prepared import Requests, Rows
from xt.serve.triton.addresses import free_ports


class Fake:
    """An endpoint in this process that answers after `seconds`, one request at a time; for the loops' arithmetic."""

    def __init__(self, seconds, answers=(), together=False):
        self.seconds = seconds
        self.answers = dict(answers)
        self.together = together
        self.lock = asyncio.Lock()
        self.asked = []

    def prepare(self, rows):
        return list(rows)

    async def connect(self):
        return self

    async def ask(self, rows):
        number = len(self.asked)
        self.asked.append(rows)
        pause = self.seconds(number) if callable(self.seconds) else self.seconds
        if self.together:
            await asyncio.sleep(pause)
        else:
            async with self.lock:
                await asyncio.sleep(pause)
        return self.answers.get(number, Answer("ok", tokens=7, truncated=0))

    def close(self):
        pass


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it: exact on a busy machine, too."""

    def __init__(self):
        super().__init__()
        self.virtual = 0.0
        select = self._selector.select

        def jump(timeout):
            events = select(0.001 if timeout is None else 0)
            if not events and timeout:
                self.virtual += timeout
            return events

        self._selector.select = jump

    def time(self):
        return self.virtual


def in_virtual_time(work):
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def closed(fake, callers, seconds, *, warm_up=0.0, batch=1, texts=1000, lengths=None):
    requests = TextPool(texts, lengths).requests(fake, batch)
    return in_virtual_time(closed_loop(fake, requests, callers=callers, seconds=seconds, warm_up=warm_up))


def opened(fake, arrivals, seconds, *, warm_up=0.0, most_links=256):
    requests = TextPool(1000).requests(fake, 1)
    return in_virtual_time(
        open_loop(fake, requests, arrivals=arrivals, seconds=seconds, warm_up=warm_up, most_links=most_links)
    )


def test_a_stall_is_seen_by_every_request_it_held_up():
    """One stall of 300 ms among requests due every 10 ms: those due 10, 20, ... 290 ms into it waited 290 ... 10 ms.

    A closed loop of one caller meets the stall once; an open loop that counted from the sending would, too.
    """

    def pause(number):
        return 0.3 if number == 10 else 0.0

    seen = opened(Fake(pause), np.arange(100) * 0.01, 1.0)
    assert len(seen.latencies) == 100
    held = sorted(x for x in seen.latencies if x > 0.055)
    # Due k x 10 ms after the stall began and waiting until its end: those with 300 - 10 k > 55 are k = 0 to 24.
    assert held == pytest.approx(sorted(0.3 - 0.01 * k for k in range(25)), abs=1e-3)
    one = closed(Fake(lambda number: pause(number) or 0.01), 1, 0.6)
    assert sum(x > 0.05 for x in one.latencies) == 1


def test_a_client_that_has_no_connection_left_counts_the_wait():
    """Two requests due at once over one connection, 100 ms each: 100 and 200 ms; the second was sent 100 ms late."""
    seen = opened(Fake(0.1, together=True), [0.0, 0.0], 0.3, most_links=1)
    assert sorted(seen.latencies) == pytest.approx([0.1, 0.2], abs=1e-3)
    assert sorted(seen.lags) == pytest.approx([0.0, 0.1], abs=1e-3)
    apart = opened(Fake(0.1, together=True), [0.0, 0.0], 0.3, most_links=2)
    assert sorted(apart.latencies) == pytest.approx([0.1, 0.1], abs=1e-3)


def test_requests_due_in_the_warm_up_are_not_counted():
    seen = opened(Fake(0.0), [0.0, 0.05, 0.1, 0.21, 0.25, 0.3], 0.2, warm_up=0.2)
    assert len(seen.latencies) == 3
    fake = Fake(0.02, together=True)
    counted = closed(fake, 1, 0.2, warm_up=0.2)
    assert len(counted.latencies) < len(fake.asked)
    assert len(counted.latencies) == pytest.approx(10, abs=1)


def test_a_closed_loop_by_hand():
    """Four callers, 50 ms an answer, one second: 80 answers of 3 texts with 7 tokens each; 50 ms is every quantile."""
    seen = closed(Fake(0.05, together=True), 4, 1.0, batch=3)
    assert len(seen.latencies) == pytest.approx(80, abs=4)
    assert seen.sentences == pytest.approx(3 * len(seen.latencies), abs=12)
    assert seen.tokens == pytest.approx(7 * len(seen.latencies), abs=28)
    assert seen.wall == pytest.approx(1.0)
    assert seen.quantiles()[0] == pytest.approx(50, abs=0.1)


def test_slow_answers_count_by_the_share_of_their_time_that_is_measured():
    """One caller, 1 s an answer of 4 texts, measured from 0.5 s to 3.0 s: half of the first, two whole ones."""
    seen = closed(Fake(1.0, together=True), 1, 2.5, warm_up=0.5, batch=4)
    assert seen.sentences == pytest.approx(4 * 2.5, rel=1e-3)
    assert seen.wall == pytest.approx(2.5)
    assert len(seen.latencies) == 2


def test_tokens_are_counted_here_where_the_server_does_not_say():
    fake = Fake(0.01, answers={i: Answer("ok") for i in range(1000)})
    seen = closed(fake, 1, 0.1, batch=2, texts=4, lengths=[1, 10, 100, 1000])
    assert seen.tokens == pytest.approx(5 * 11 + 5 * 1100)


def test_refusals_and_errors_are_counted_apart_and_are_no_latency():
    answers = {1: Answer("refused", note="is full"), 3: Answer("error", note="broken"), 4: Answer("error", note="x")}
    seen = opened(Fake(0.001, answers), np.arange(6) * 0.02, 0.2)
    assert (len(seen.latencies), len(seen.refusals), seen.errors) == (3, 1, 2)
    assert seen.first_error == "broken"


def test_the_share_of_refusals_in_time_by_hand():
    assert Seen(refusals=[0.001, 0.05, 0.051, 0.2]).refused_in_time() == 0.5
    assert Seen().refused_in_time() is None


def test_a_request_that_is_never_answered_is_an_error(monkeypatch):
    monkeypatch.setattr(load, "ANSWER_SECONDS", 0.1)
    seen = opened(Fake(lambda number: 30 if number == 2 else 0, together=True), [0, 0.01, 0.02, 0.03], 0.2)
    assert (len(seen.latencies), seen.errors) == (3, 1)
    assert "no answer within" in seen.first_error


def test_arrivals_are_poisson():
    """200 a second for 50 s: 10,000 +- 400; gaps of mean 5 ms and of the same deviation; a third above the mean x ln 3."""
    times = poisson(200, 50, seed=1)
    assert abs(len(times) - 10_000) < 400
    assert (np.diff(times) > 0).all()
    assert times[-1] < 50
    gaps = np.diff(times)
    assert gaps.mean() == pytest.approx(0.005, rel=0.05)
    assert gaps.std() == pytest.approx(0.005, rel=0.05)
    assert (gaps > 0.005 * np.log(3)).mean() == pytest.approx(1 / 3, abs=0.02)
    counts = np.histogram(times, bins=50, range=(0, 50))[0]
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.5)
    assert (poisson(200, 50, seed=1) == times).all()
    assert not np.array_equal(poisson(200, 50, seed=2)[:10], times[:10])
    with pytest.raises(XtError, match="sends nothing"):
        poisson(0, 1)


def test_every_text_is_dealt_once_before_any_comes_again_over_all_measurements():
    pool = TextPool(5)
    fake = Fake(0)
    first = pool.requests(fake, 2)
    assert [next(first).payload for _ in range(2)] == [[0, 1], [2, 3]]
    second = pool.requests(fake, 1)
    assert [next(second).payload for _ in range(3)] == [[4], [0], [1]]
    assert pool.sampled == 7
    with pytest.raises(XtError, match="A request of 6 texts needs as many; the corpus has 5"):
        pool.requests(fake, 6)


def test_repeated_texts_are_told():
    fake = Fake(0.01, together=True)
    target = bench.Target("e", "m", fake, TextPool(3))
    row = target.measure(bench.Load(callers=1), 0.2, warm_up=0.0)
    sent = len(fake.asked)
    assert row.repeated == pytest.approx((sent - 3) / sent)
    assert target.measure(bench.Load(callers=1), 0.1, warm_up=0.0).repeated == 1


def test_the_cpu_of_other_processes_is_read_with_their_children():
    code = "import time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass\ntime.sleep(30)"
    child = subprocess.Popen(["/bin/sh", "-c", f"'{sys.executable}' -c '{code}'; true"])
    try:
        end = time.monotonic() + 60
        while (cpu := machine.cpu_seconds(machine.family([child.pid]))) < 0.4 and time.monotonic() < end:
            time.sleep(0.1)
        assert 0.4 <= cpu < 1.5
        assert machine.cpu_seconds([child.pid]) < 0.3  # the shell alone
    finally:
        for pid in reversed(machine.family([child.pid])):
            os.kill(pid, 9)
        child.wait()


def test_counters_of_energy_that_start_again_are_followed():
    assert machine.spent({"a": (1_000_000, 10**7)}, {"a": (3_000_000, 10**7)}) == 2
    assert machine.spent({"a": (9_000_000, 10**7)}, {"a": (1_000_000, 10**7)}) == 2
    assert machine.spent(None, {"a": (1, 2)}) is None


@pytest.mark.parametrize("callers", [1, 4])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_every_protocol_counts_the_same_tokens(server, corpus, protocol, callers):
    texts = bench.mixed_texts(corpus)
    target = bench.triton_target(server.url, None, texts, bench.RequestOptions(protocol=protocol))
    row = target.measure(bench.Load(callers=callers, batch=4), 0.6, warm_up=0.1)
    assert (row.errors, row.refused, row.first_error) == (0, 0, "")
    words = np.mean([len(t.split()) + 3 for t in texts])  # query:, <s>, </s>
    assert row.tokens_per_second / row.sentences_per_second == pytest.approx(words, rel=0.1)
    assert row.protocol == protocol
    assert row.batch == 4
    assert row.server_cpu_seconds > 0
    assert row.client_us_per_request > 0


@pytest.mark.parametrize("kind", ["text", "ids", "packed"])
def test_every_input_is_read_by_the_real_server(server, tiny_repository, corpus, kind):
    encoder, _ = load_model(tiny_repository / "encoder", device="cpu", threads=1)
    texts = bench.mixed_texts(corpus)
    ids, _ = encoder.tokenizer(texts, prefix=encoder.spec.prefix(None))
    target = bench.triton_target(server.url, None, texts, bench.RequestOptions(kind=kind), ids=ids)
    row = target.measure(bench.Load(callers=2, batch=3), 0.5, warm_up=0.1)
    assert (row.input, row.errors, row.first_error) == (kind, 0, "")
    assert row.tokens_per_second / row.sentences_per_second == pytest.approx(np.mean([len(r) for r in ids]), rel=0.15)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize(("kind", "batch"), [("text", 1), ("ids", 3), ("packed", 4)])
def test_no_row_of_speed_holds_answers_of_the_vector_cache(server, tiny_repository, corpus, kind, batch, protocol):
    """Sixteen texts that the server has just encoded, sent over and over: every one of them is computed again."""
    texts = bench.mixed_texts(corpus)
    known = TritonEncoder(server.url, None)
    known.encode(texts)
    known.encode(texts)  # the second time from the cache: it is on
    known.close()
    encoder, _ = load_model(tiny_repository / "encoder", device="cpu", threads=1)
    ids, _ = encoder.tokenizer(texts, prefix=encoder.spec.prefix(None))
    target = bench.triton_target(server.url, None, texts, bench.RequestOptions(kind=kind, protocol=protocol), ids=ids)
    row = target.measure(bench.Load(callers=2, batch=batch), 0.4, warm_up=0.8)  # counts are told every half second
    assert (row.cache, row.errors) == ("off", 0)
    assert row.repeated > 0  # more texts than there are
    assert row.cache_hits == row.cached_share == 0
    assert row.counters["xt_texts_total"] >= row.requests * batch
    # Each text costs a forward pass its tokens: at least those of the shortest text, six with prefix and both ends.
    assert row.counters["xt_tokens_total"] >= row.requests * batch * 6
    assert ServingRow.from_json(row.to_json()).from_cache == ""


def test_an_open_loop_and_the_quickstarts_rows_hold_no_cached_answers_either(server, corpus):
    texts = bench.mixed_texts(corpus)
    bench.served(server.url, None, texts, 2, 0.3)
    row = bench.triton_target(server.url, None, texts).measure(bench.Load(rate=40), 0.6, warm_up=0.8)
    again = bench.served(server.url, None, texts, 2, 0.3)
    assert (row.cache_hits, again.cache_hits) == (0, 0)
    assert again.repeated > 0


def test_a_row_of_cached_answers_is_labelled_as_such(server, corpus):
    texts = bench.mixed_texts(corpus)
    target = bench.triton_target(server.url, None, texts, bench.RequestOptions(cached=True))
    target.measure(bench.Load(callers=1), 0.2, warm_up=0.0)
    row = target.measure(bench.Load(callers=1), 0.4, warm_up=0.0)
    assert row.cache == "on"
    assert row.cache_hits > 0
    assert row.cached_share == pytest.approx(row.cache_hits / row.counters["xt_texts_total"])
    assert "from the cache" in ServingRow.from_json(row.to_json()).load
    assert "from the cache" in plot.plot([row.to_json()], "t")


def test_texts_of_like_tokens_are_sent_once_and_what_is_left_out_is_counted():
    lines, told = ["Guten Morgen", "guten  morgen", "die katze"], []
    ids = [np.array(row, np.int64) for row in ([0, 5, 6, 2], [0, 5, 6, 2], [0, 7, 2])]
    texts, rows = session.different(lines, ids, told.append)
    assert texts == ["Guten Morgen", "die katze"]
    assert [row.tolist() for row in rows] == [[0, 5, 6, 2], [0, 7, 2]]
    assert told == ["1 text left out: the same tokens as another's"]


def test_the_servers_own_counters_are_read(server, corpus):
    target = bench.triton_target(server.url, None, bench.mixed_texts(corpus), bench.RequestOptions(cached=True))
    assert target.metrics_url == f"http://127.0.0.1:{server.ports.metrics}/metrics"
    row = target.measure(bench.Load(callers=2, batch=2), 1.5)
    assert row.counters["xt_texts_total"] == pytest.approx(2 * row.requests, rel=0.7)
    assert row.cache_hits > 0  # sixteen texts, sent over and over
    assert row.repeated == 1 or row.repeated > 0.5


def test_an_open_loop_on_the_real_server_sends_what_was_asked(server, corpus):
    target = bench.triton_target(server.url, None, bench.mixed_texts(corpus))
    row = target.measure(bench.Load(rate=50), 2.0, warm_up=0.3)
    assert (row.mode, row.rate, row.concurrency) == ("open", 50, 0)
    assert row.requests == pytest.approx(100, abs=40)
    assert row.lag_p99_ms is not None
    assert row.errors == 0


def test_too_long_texts_are_cut_and_counted_where_asked(server):
    texts = ["good " * 100, "good morning", "good " * 90]
    target = bench.triton_target(server.url, None, texts, bench.RequestOptions(parameters={"truncate": True}))
    row = target.measure(bench.Load(batch=3), 0.4, warm_up=0.0)
    assert row.truncated == 2 * row.requests


def test_a_server_that_closes_the_connection_is_an_error_and_is_connected_to_again(server, corpus):
    endpoint = bench.triton_target(server.url, None, bench.mixed_texts(corpus)).endpoint

    async def twice():
        link = await endpoint.connect()
        first = await link.ask(endpoint.prepare([0]))
        link.close()
        await asyncio.sleep(0)
        second = await link.ask(endpoint.prepare([0, 1]))
        link.close()
        return first, second

    first, second = asyncio.run(twice())
    assert (first.status, second.status) == ("ok", "ok")
    assert second.tokens > first.tokens


def test_status_503_is_a_refusal_and_400_an_error():
    http = bench_http.TritonHttp("127.0.0.1:1", Requests("m", Rows("text", ["a"], None)))
    assert http.read(503, b"", b'{"error":"the queue is full"}') == Answer("refused", note="the queue is full")
    assert http.read(400, b"", b'{"error":"text 0 is empty"}') == Answer("error", note="text 0 is empty")


def test_texts_of_a_file_are_its_lines_and_sib200_is_read_in_every_language(tmp_path, data_dir):
    file = tmp_path / "lines.txt"
    file.write_text("eins\n\nzwei drei\n", encoding="utf-8")
    assert bench.read_texts(str(file), None) == ["eins", "zwei drei"]
    assert bench.read_texts("django", None) is None
    texts = bench.read_texts("sib200", data_dir)
    assert len(texts) == 204 * len(list(data_dir.glob("sib200/*/test.tsv")))
    with pytest.raises(XtError, match="There is no sib200"):
        bench.read_texts("sib200", tmp_path)
    file.write_text("\n")
    with pytest.raises(XtError, match="holds no text"):
        bench.read_texts(str(file), None)


def test_loads_are_every_number_of_callers_and_every_rate_with_every_batch():
    found = bench.loads([1, 8], [50.0], [1, 16])
    assert [(x.callers, x.rate, x.batch) for x in found] == [
        (1, None, 1),
        (8, None, 1),
        (1, None, 16),
        (8, None, 16),
        (1, 50.0, 1),
        (1, 50.0, 16),
    ]
    with pytest.raises(XtError, match="above 0 needed"):
        bench.Load(callers=0)


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
    assert row.requests / 11.6 < row.sentences_per_second <= (row.requests + row.concurrency) / 1.6


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
