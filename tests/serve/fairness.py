"""Single texts beside large requests on a real server: who is refused, how long the single texts take, what bulk keeps.

    python -m tests.serve.fairness REPOSITORY --seconds 120

Eight callers send five single texts a second each (16 tokens in the mean), whether the last was answered or not,
timed from the moment each was due. Each case: these alone, the bulk caller alone, then both together, a third of --seconds each. Cases: `tokens` (raw requests
of 512 texts of 512 tokens back to back), `sentences` (128 SIB-200 sentences back to back), `jobs` (four callers of
`xt.serve.Client`, 512 sentences a call, 60 s of patience), `gateway` (sentences and single texts over HTTP).

Exit code 3 when a single text was refused or failed, when their 99th percentile exceeds three times that without bulk
(or 150 ms, if that is more), when bulk keeps less than 80 % of what the single texts leave of it, or when it failed.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import queue
import random
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

CALLERS, PER_SECOND = 8, 5.0
SINGLE_TOKENS = 16
RATIO, FLOOR_SECONDS, KEPT = 3.0, 0.150, 0.8
CASES = ("tokens", "sentences", "jobs", "gateway")
LONGEST_SECONDS = 900.0
"""What a request may take: raw ones take minutes on a slow machine."""
WARM_SECONDS = 5.0
"""Not counted, at the start of each part."""
UNANSWERED = 16
"""Texts of one caller that may be under way at once; the next waits, and its wait counts."""
WORDS = "good morning world the cat sleeps today guten morgen welt habari za asubuhi bonjour tout le monde".split()


@dataclass
class Singles:
    """What became of the single texts: seconds from when each was due, and the errors of those that failed."""

    seconds: list[float] = field(default_factory=list)
    tokens: int = 0
    errors: list[str] = field(default_factory=list)

    def quantile(self, q: float) -> float:
        """Seconds; NaN when there are none."""
        return float(np.quantile(self.seconds, q)) if self.seconds else float("nan")


@dataclass
class Bulk:
    """What the bulk callers got: tokens by the time at which they were answered, and errors."""

    answered: list[tuple[float, int]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    """Answered calls of each caller."""


def single_texts(seed: int) -> Iterator[str]:
    """Different texts of 4 to 28 tokens, 16 in the mean, prefix included (about 1.4 tokens a word)."""
    draw = random.Random(seed)
    for number in itertools.count():
        words = draw.choices(WORDS, k=draw.randint(1, 11))
        yield f"{chr(97 + number % 26)}{draw.randrange(10**4)} {' '.join(words)}"


def sentences(data: Path, seed: int) -> Iterator[str]:
    """SIB-200 sentences of all languages there are, none twice: after a round each gets a number."""
    files = sorted((data / "sib200").glob("*/train.tsv"))
    rows = []
    for file in files:
        with file.open(encoding="utf-8", newline="") as lines:
            rows += [row["text"] for row in csv.DictReader(lines, delimiter="\t")]
    if not rows:
        raise SystemExit(f"{data} holds no sib200; name the folder by --data")
    random.Random(seed).shuffle(rows)
    for lap in itertools.count():
        yield from (row if not lap else f"{row} {lap}" for row in rows)


Send = Callable[[], int]
"""Sends one request: the tokens that were answered; raises when none was."""
Maker = Callable[[threading.Event], Send]


def triton_sender(
    url: str, model: str, tensors: Iterator[Any], stop: threading.Event, parameters: dict[str, Any] | None = None
) -> Send:
    """Requests of prepared inputs over gRPC; one under way is cancelled when `stop` is set."""
    import tritonclient.grpc as grpc

    client = grpc.InferenceServerClient(url)
    outputs = [grpc.InferRequestedOutput(name) for name in ("embedding", "tokens")]

    def send() -> int:
        ended: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()

        def done(result: Any, error: Any) -> None:  # tritonclient names its arguments so
            ended.put((result, error))

        call = client.async_infer(
            model, [next(tensors)], done, outputs=outputs, client_timeout=LONGEST_SECONDS, parameters=parameters
        )
        give_up = time.monotonic() + LONGEST_SECONDS + 10
        while not stop.is_set():
            try:
                result, error = ended.get(timeout=0.5)
            except queue.Empty:
                if time.monotonic() > give_up:
                    raise TimeoutError("no answer and no error came") from None
                continue
            if error is not None:
                raise error
            return int(result.as_numpy("tokens").sum())
        call.cancel()
        return 0

    return send


def http_sender(url: str, model: str, bodies: Iterator[Any]) -> Send:
    """Requests of texts over the gateway."""

    def send() -> int:
        body = json.dumps({"model": model, "input": next(bodies)}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/v1/embeddings", body, headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=120) as answer:
            return int(json.load(answer)["usage"]["total_tokens"])

    return send


def text_tensors(rows: Iterator[str], size: int) -> Iterator[Any]:
    """Inputs `text` of so many texts each."""
    import tritonclient.grpc as grpc

    while True:
        data = np.array([[row.encode()] for row in itertools.islice(rows, size)], np.object_)
        tensor = grpc.InferInput("text", list(data.shape), "BYTES")
        tensor.set_data_from_numpy(data)
        yield tensor


def long_tensors(texts: int, tokens: int, seed: int) -> Iterator[Any]:
    """Inputs `packed` of different texts that are cut at the encoder's limit: at least `tokens` words each."""
    import tritonclient.grpc as grpc

    from xt.serve.client.packed import pack

    draw = random.Random(seed)
    while True:
        rows = [" ".join(draw.choices(WORDS, k=tokens)) for _ in range(texts)]
        data = pack(rows)[None]
        tensor = grpc.InferInput("packed", list(data.shape), "UINT8")
        tensor.set_data_from_numpy(data)
        yield tensor


def send_singles(
    make: Maker, stop: threading.Event, until: float, counted: float, found: Singles
) -> list[threading.Thread]:
    """Start the callers of single texts, each of which sends when it is time, whether its last was answered or not.

    The seconds of a text count from when it was due.
    """
    lock, own = threading.Lock(), threading.local()

    def ask(due: float) -> None:
        try:
            if not hasattr(own, "send"):
                own.send = make(stop)
            tokens, error = own.send(), ""
        except Exception as failure:  # whatever it is, this text got no vector
            tokens, error = 0, f"{type(failure).__name__}: {failure}"
        ended = time.monotonic()
        if due >= counted:
            with lock:
                if error:
                    found.errors.append(error)
                else:
                    found.seconds.append(ended - due)
                    found.tokens += tokens

    def call(caller: int) -> None:
        due = time.monotonic() + caller / CALLERS / PER_SECOND
        draw = random.Random(caller)
        with ThreadPoolExecutor(UNANSWERED) as pool:
            while due < until:
                time.sleep(max(0.0, due - time.monotonic()))
                pool.submit(ask, due)
                due += draw.uniform(0.5, 1.5) / PER_SECOND

    threads = [threading.Thread(target=call, args=(i,), daemon=True) for i in range(CALLERS)]
    for thread in threads:
        thread.start()
    return threads


def send_bulk(makers: list[Maker], stop: threading.Event, found: Bulk) -> list[threading.Thread]:
    """Start the bulk callers, each with one call after the other until `stop` is set."""
    found.calls = [0] * len(makers)

    def call(number: int, make: Maker) -> None:
        send = make(stop)
        while not stop.is_set():
            try:
                tokens = send()
            except Exception as failure:  # whatever it is, this call failed
                found.errors.append(f"{type(failure).__name__}: {failure}")
                time.sleep(0.5)
                continue
            found.answered.append((time.monotonic(), tokens))
            found.calls[number] += 1

    threads = [threading.Thread(target=call, args=(i, make), daemon=True) for i, make in enumerate(makers)]
    for thread in threads:
        thread.start()
    return threads


def metric(server: Any, name: str, model: str) -> float:
    """One of the server's counts."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        f"http://127.0.0.1:{server.ports.metrics}/metrics", timeout=20
    ) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(x.rpartition(" ")[2]) for x in lines if x.startswith(name + "{") and f'model="{model}"' in x)


def part(
    server: Any, model: str, seconds: float, single: Maker | None, bulk: list[Maker]
) -> tuple[Singles, Bulk, float]:
    """Run one part: what became of both, and the tokens a second that the server ran for bulk.

    These are counted by the server, which counts rows as they are run: one bulk request may take longer than the part.
    """
    begin = time.monotonic()
    counted, until = begin + WARM_SECONDS, begin + WARM_SECONDS + seconds
    singles, large, stop = Singles(), Bulk(), threading.Event()
    threads = send_bulk(bulk, stop, large) if bulk else []
    callers = send_singles(single, stop, until, counted, singles) if single else []
    time.sleep(max(0.0, counted - time.monotonic()))
    start, before = time.monotonic(), metric(server, "xt_tokens_total", model)
    time.sleep(max(0.0, until - time.monotonic()))
    ran, took = metric(server, "xt_tokens_total", model) - before, time.monotonic() - start
    for thread in callers:
        thread.join(120)
    stop.set()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a bulk caller hangs"
    return singles, large, (ran - singles.tokens) / took


def main(arguments: list[str] | None = None) -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("repository", type=Path, help="what xt export wrote")
    parser.add_argument("--model", default="encoder")
    parser.add_argument("--seconds", type=float, default=180, help="of each case")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--data", type=Path, default=None, help="folder with sib200; default: as xt finds it")
    parser.add_argument("--large", type=int, nargs=2, default=(512, 512), help="texts and words of a raw request")
    options = parser.parse_args(arguments)
    from xt.core.data.bitext import data_folder
    from xt.serve.client.client import Client
    from xt.serve.gateway.server import Gateway
    from xt.serve.triton.addresses import free_ports
    from xt.serve.triton.launcher import TritonServer

    data = data_folder(options.data)
    if data is None:
        parser.error("the folder with sib200 is not known: name it by --data, or set XT_DATA")
    seconds = options.seconds / 3 - WARM_SECONDS
    seeds = itertools.count()
    missed: list[str] = []

    def say(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    with TritonServer(options.repository, report=say) as server:
        url, model = server.url, options.model

        def triton_single(stop: threading.Event) -> Send:
            return triton_sender(url, model, text_tensors(single_texts(next(seeds)), 1), stop)

        def raw(stop: threading.Event) -> Send:
            return triton_sender(url, model, long_tensors(*options.large, next(seeds)), stop, {"truncate": True})

        def sibs(stop: threading.Event) -> Send:
            return triton_sender(url, model, text_tensors(sentences(data, next(seeds)), 128), stop)

        def job(stop: threading.Event) -> Send:
            client = Client(url, model, timeout_seconds=60)
            rows = sentences(data, next(seeds))
            return lambda: int(client.encode_full(list(itertools.islice(rows, 512))).tokens.sum())

        for case in options.cases:
            single: Maker = triton_single
            bulk: list[Maker] = {"tokens": [raw], "sentences": [sibs], "jobs": [job] * 4}.get(case, [])
            gateway = Gateway(url, port=free_ports(1)[0], admin_key=server.admin_key) if case == "gateway" else None
            if gateway is not None:
                gateway.start()
                address = gateway.url

                def gateway_single(stop: threading.Event, address: str = address) -> Send:
                    return http_sender(address, model, single_texts(next(seeds)))

                def gateway_bulk(stop: threading.Event, address: str = address) -> Send:
                    rows = sentences(data, next(seeds))
                    return http_sender(address, model, iter(lambda: list(itertools.islice(rows, 128)), None))

                single, bulk = gateway_single, [gateway_bulk]
            alone, _, _ = part(server, model, seconds, single, [])
            _, first, lone = part(server, model, seconds, None, bulk)
            both, second, beside = part(server, model, seconds, single, bulk)
            if gateway is not None:
                gateway.stop()
            rate = both.tokens / seconds
            aim = max(RATIO * alone.quantile(0.99), FLOOR_SECONDS)
            kept = beside / max(lone - rate, 1.0)
            say(
                f"{case}: single texts alone p50 {alone.quantile(0.5) * 1e3:.0f} ms, p99 "
                f"{alone.quantile(0.99) * 1e3:.0f} ms; beside bulk p50 {both.quantile(0.5) * 1e3:.0f} ms, p99 "
                f"{both.quantile(0.99) * 1e3:.0f} ms (aim {aim * 1e3:.0f}), longest {max(both.seconds) * 1e3:.0f} ms, "
                f"{len(both.seconds)} answered, {len(both.errors)} failed, {rate:.0f} tokens/s; bulk alone "
                f"{lone:.0f} tokens/s, beside them {beside:.0f}: {100 * kept:.0f} % of what they leave; calls "
                f"{second.calls}, {len(first.errors + second.errors)} failed {(both.errors + second.errors)[:2] or ''}"
            )
            errors = [*alone.errors, *both.errors]
            missed += [f"{case}: {len(errors)} single texts failed"] if errors else []
            missed += [f"{case}: p99"] if not both.quantile(0.99) <= aim else []
            missed += [f"{case}: bulk keeps {100 * kept:.0f} %"] if kept < KEPT else []
            missed += [f"{case}: bulk failed"] if first.errors or second.errors else []
    say("all aims met" if not missed else f"missed: {'; '.join(missed)}")
    return 3 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
