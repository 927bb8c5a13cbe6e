"""What the queue of a served model promises, without a server: order, bounds, deadlines, and no wasted passes."""

from __future__ import annotations

import random
import threading
import time

import pytest

from xt.core.buckets import Buckets, bucket
from xt.core.errors import XtError
from xt.core.scheduler import Cancelled, Expired, Job, Overloaded, Scheduler


class Network:
    """Stands where the forward pass is: doubles its rows, keeps what it was given, and can be held."""

    def __init__(self):
        self.batches = []
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Semaphore(0)
        self.seconds = 0.0

    def __call__(self, rows):
        self.batches.append(rows)
        self.entered.release()
        assert self.go.wait(10)
        time.sleep(self.seconds)
        if any(row[0] == "bad" for row in rows):
            raise ValueError("bad row")
        return [(name, 2 * length) for name, length in rows]

    def hold(self, scheduler):
        """Occupy the worker, so that what comes next waits."""
        self.go.clear()
        first = Call(scheduler, "holder", [1])
        assert self.entered.acquire(timeout=5)
        return first


class Call:
    """One job, and what came of it."""

    def __init__(self, scheduler, name, lengths, **options):
        self.outcomes = []
        self.ended = threading.Event()
        self.at = None
        scheduler.submit(Job([(name, n) for n in lengths], list(lengths), self.done, **options))

    def done(self, outcome):
        self.at = time.monotonic()
        self.outcomes.append(outcome)
        self.ended.set()

    def result(self):
        assert self.ended.wait(10)
        time.sleep(0.001)
        assert len(self.outcomes) == 1  # answered once
        return self.outcomes[0]


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def make(network):
    made = []

    def build(**options):
        made.append(Scheduler(network, **options))
        return made[-1]

    yield build
    network.go.set()
    for scheduler in made:
        scheduler.close(1)


@pytest.mark.parametrize("buckets", [None, Buckets(), Buckets(compiled=True)])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_row_of_every_job_comes_back_in_its_place(make, network, workers, buckets):
    scheduler = make(token_budget=64, workers=workers, buckets=buckets, max_waiting_tokens=10**6)
    lengths = {f"job{i}": random.Random(i).choices(range(1, 100), k=random.Random(i).randint(1, 40)) for i in range(60)}
    calls = {}

    def send(names):
        for name in names:
            calls[name] = Call(scheduler, name, lengths[name])

    threads = [threading.Thread(target=send, args=(list(lengths)[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, rows in lengths.items():
        assert calls[name].result() == [(name, 2 * n) for n in rows]
    assert sum(map(len, network.batches)) == sum(map(len, lengths.values()))  # each row was run once
    assert (scheduler.waiting_tokens, scheduler.waiting_requests) == (0, 0)


@pytest.mark.parametrize("buckets", [None, Buckets(), Buckets(compiled=True)])
def test_no_micro_batch_exceeds_the_budget_padding_included(make, network, buckets):
    scheduler = make(token_budget=100, buckets=buckets)
    holder = network.hold(scheduler)
    random_lengths = random.Random(0)
    calls = [Call(scheduler, str(i), random_lengths.choices(range(1, 130), k=5)) for i in range(50)]
    network.go.set()
    for call in [holder, *calls]:
        call.result()
    for rows in network.batches:
        width = max(n for _, n in rows)
        padded = (bucket(width) if buckets else width) * len(rows)
        assert padded <= 100 or len(rows) == 1
        if buckets:
            assert len({bucket(n) for _, n in rows}) == 1
    assert max(map(len, network.batches)) > 3


def test_micro_batches_of_one_width_have_the_rows_that_were_warmed_up(make, network):
    scheduler = make(token_budget=10**6, buckets=Buckets(compiled=True))
    holder = network.hold(scheduler)
    calls = [Call(scheduler, "many", [4] * 64), Call(scheduler, "more", [4] * 9), Call(scheduler, "few", [40] * 9)]
    network.go.set()
    for call in [holder, *calls]:
        call.result()
    # Nine rows are run as ten, one of them blank; of nine wide ones the last is run by itself.
    assert [len(rows) for rows in network.batches[1:]] == [32, 32, 9, 8, 1]


def test_rows_of_like_length_of_different_callers_share_a_micro_batch(make, network):
    scheduler = make(token_budget=400)
    holder = network.hold(scheduler)
    calls = [Call(scheduler, str(i), [10 if i % 2 else 100]) for i in range(8)]
    network.go.set()
    for call in [holder, *calls]:
        call.result()
    assert [[n for _, n in rows] for rows in network.batches[1:]] == [[100] * 4, [10] * 4]


def test_the_oldest_is_run_first_though_others_would_fill_a_batch_better(make, network):
    scheduler = make(token_budget=400)
    holder = network.hold(scheduler)
    lonely = Call(scheduler, "lonely", [300])
    calls = [Call(scheduler, str(i), [40]) for i in range(30)]
    network.go.set()
    for call in [holder, lonely, *calls]:
        call.result()
    assert network.batches[1] == [("lonely", 300)]


def test_nothing_waits_for_company(make):
    scheduler = make()
    seconds = []
    for i in range(20):
        start = time.monotonic()
        Call(scheduler, str(i), [5]).result()
        seconds.append(time.monotonic() - start)
    assert sorted(seconds)[5] < 0.02  # most, on a machine that does other things too


@pytest.mark.parametrize("lengths", [[1], [1] * 30])
def test_with_enough_waiting_single_and_batch_are_refused_alike_and_at_once(make, network, lengths):
    scheduler = make(max_waiting_tokens=100)
    holder = network.hold(scheduler)
    waiting = [Call(scheduler, "waits", [10] * 9), Call(scheduler, "fits", [11])]
    start = time.monotonic()
    with pytest.raises(Overloaded, match="The queue is full: 101 tokens wait, 100 are enough"):
        Call(scheduler, "late", lengths)
    assert time.monotonic() - start < 0.5  # what waits is not run before this test lets it
    network.go.set()
    assert [len(call.result()) for call in [holder, *waiting]] == [1, 9, 1]
    assert len(Call(scheduler, "late", lengths).result()) == len(lengths)


@pytest.mark.parametrize("lengths", [[1], [1] * 30])
def test_with_less_waiting_single_and_batch_are_taken_alike(make, network, lengths):
    scheduler = make(max_waiting_tokens=100)
    holder = network.hold(scheduler)
    waiting = Call(scheduler, "waits", [33] * 3)
    fits = Call(scheduler, "fits", lengths)
    network.go.set()
    assert len(fits.result()) == len(lengths)
    waiting.result()
    holder.result()


def test_more_requests_than_may_wait_are_refused(make, network):
    scheduler = make(max_waiting_requests=2)
    holder = network.hold(scheduler)
    calls = [Call(scheduler, "a", [1]), Call(scheduler, "b", [1])]
    with pytest.raises(Overloaded, match="2 requests wait, at most 2 may"):
        Call(scheduler, "c", [1])
    network.go.set()
    for call in [holder, *calls]:
        call.result()
    assert Call(scheduler, "c", [1]).result() == [("c", 2)]


def test_a_job_larger_than_the_whole_bound_is_run_when_nothing_waits(make, network):
    scheduler = make(token_budget=50, max_waiting_tokens=100)
    assert len(Call(scheduler, "huge", [10] * 40).result()) == 40
    network.hold(scheduler)
    Call(scheduler, "huge", [10] * 40)
    with pytest.raises(Overloaded):
        Call(scheduler, "small", [10])


def test_an_error_of_one_micro_batch_is_the_answer_to_its_jobs_alone(make, network):
    scheduler = make(token_budget=40)
    holder = network.hold(scheduler)
    good = Call(scheduler, "good", [40, 40])
    bad = Call(scheduler, "bad", [20])
    beside = Call(scheduler, "beside", [20])
    later = Call(scheduler, "later", [5])
    network.go.set()
    assert good.result() == [("good", 80)] * 2
    for failed in (bad, beside):
        assert isinstance(failed.result(), ValueError)
    assert later.result() == [("later", 10)]
    holder.result()


def test_an_error_takes_the_failed_jobs_other_rows_out_of_the_queue(make, network):
    scheduler = make(token_budget=20)
    assert isinstance(Call(scheduler, "bad", [20] * 10).result(), ValueError)
    assert len(network.batches) == 1
    assert scheduler.waiting_tokens == 0


def test_an_expired_job_is_told_at_its_deadline_and_costs_no_pass(make, network):
    scheduler = make()
    holder = network.hold(scheduler)
    deadline = time.monotonic() + 0.1
    late = Call(scheduler, "late", [5] * 3, deadline=deadline)
    patient = Call(scheduler, "patient", [5], deadline=time.monotonic() + 10)
    assert isinstance(late.result(), Expired)  # while the only worker is busy
    assert 0 <= late.at - deadline < 0.05
    assert scheduler.waiting_requests == 1
    network.go.set()
    assert patient.result() == [("patient", 10)]
    holder.result()
    assert not any(name == "late" for rows in network.batches for name, _ in rows)


def test_one_large_job_is_run_by_all_workers(make, network):
    scheduler = make(token_budget=100, workers=2)
    network.go.clear()
    call = Call(scheduler, "large", [100] * 6)
    assert network.entered.acquire(timeout=5)
    assert network.entered.acquire(timeout=5)  # a second pass while the first is held
    network.go.set()
    assert len(call.result()) == 6


def test_the_speed_of_the_last_passes_says_how_long_the_queue_takes(make, network):
    """By hand: passes of 100 tokens in 0.02 s, two workers at once, so 10,000 tokens a second."""
    network.seconds = 0.02
    network.go.set()
    scheduler = make(token_budget=100, workers=2, max_waiting_seconds=0.25, max_waiting_tokens=10**6)
    assert scheduler.waiting_seconds == 0
    Call(scheduler, "first", [100] * 40).result()
    network.go.clear()
    holder = Call(scheduler, "holder", [100] * 2)
    end = time.monotonic() + 5
    while scheduler.waiting_tokens:
        assert time.monotonic() < end
    large = Call(scheduler, "large", [100] * 20)
    assert scheduler.waiting_seconds == pytest.approx(0.2, rel=0.3)
    scheduler.check_room(time.monotonic() + 1)
    with pytest.raises(Overloaded, match=r"The deadline cannot be met: 0\.[12]\d s of work wait"):
        scheduler.check_room(time.monotonic() + 0.1)
    with pytest.raises(Overloaded, match="deadline cannot be met"):
        scheduler.submit(Job(["x"], [5], lambda outcome: None, deadline=time.monotonic() + 0.1))
    more = Call(scheduler, "more", [100] * 15)
    with pytest.raises(Overloaded, match=r"0.[34] s of work wait, 0.2 s are enough"):
        scheduler.check_room()
    network.go.set()
    for call in (holder, large, more):
        assert all(isinstance(row, tuple) for row in call.result())


def test_a_deadline_that_has_passed_is_refused_at_submit(make, network):
    with pytest.raises(Expired, match="deadline passed"):
        Call(make(), "late", [5], deadline=time.monotonic() - 0.001)
    assert network.batches == []


def test_a_client_that_went_away_costs_no_pass(make, network):
    scheduler = make()
    holder = network.hold(scheduler)
    gone = Call(scheduler, "gone", [5] * 3, cancelled=lambda: True)
    here = Call(scheduler, "here", [5], cancelled=lambda: False)
    time.sleep(0.02)
    network.go.set()
    assert isinstance(gone.result(), Cancelled)
    assert here.result() == [("here", 10)]
    holder.result()
    assert not any(name == "gone" for rows in network.batches for name, _ in rows)


def test_a_job_that_did_not_wait_is_not_asked_whether_it_was_cancelled(make):
    asked = []
    Call(make(), "quick", [5], cancelled=lambda: asked.append(1) or False).result()
    assert asked == []


def test_closing_runs_what_waits_and_takes_nothing_more(make, network):
    scheduler = make(token_budget=10)
    network.hold(scheduler)
    calls = [Call(scheduler, str(i), [10]) for i in range(5)]
    closer = threading.Thread(target=scheduler.close, args=(5,))
    closer.start()
    time.sleep(0.05)
    with pytest.raises(Overloaded, match="shutting down"):
        Call(scheduler, "late", [1])
    network.go.set()
    closer.join(5)
    assert [call.result() for call in calls] == [[(str(i), 20)] for i in range(5)]


def test_closing_answers_what_it_could_not_run(make, network):
    scheduler = make()
    network.hold(scheduler)
    call = Call(scheduler, "waits", [10])
    threading.Timer(0.3, network.go.set).start()
    scheduler.close(0.05)
    assert isinstance(call.result(), Overloaded)


def test_an_answer_that_cannot_be_given_does_not_end_the_worker(make, monkeypatch):
    reported = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_type))
    scheduler = make()
    scheduler.submit(Job([("a", 1)], [1], lambda outcome: 1 / 0))
    assert Call(scheduler, "b", [1]).result() == [("b", 2)]
    assert reported == [ZeroDivisionError]


def test_a_job_without_rows_is_answered_by_nothing(make, network):
    assert Call(make(), "none", []).result() == []
    assert network.batches == []


@pytest.mark.parametrize("name", ["token_budget", "max_waiting_tokens", "max_waiting_requests", "workers"])
def test_bounds_below_one_are_refused(name):
    with pytest.raises(XtError, match=f"{name} is 0"):
        Scheduler(lambda rows: rows, **{name: 0})


def test_a_micro_batch_knows_whether_it_is_all_there_is_to_do():
    """One short job alone, then two rows that do not fit into one micro-batch: only the last of these is alone."""
    seen = []
    gate = threading.Event()

    def run(rows):
        gate.wait(5)
        seen.append(scheduler.alone)
        return rows

    scheduler = Scheduler(run, token_budget=8, max_waiting_tokens=1000)
    answers = []
    gate.set()
    scheduler.submit(Job([1], [8], answers.append))
    while not answers:
        time.sleep(0.001)
    gate.clear()
    scheduler.submit(Job([2, 3], [8, 8], answers.append))
    gate.set()
    scheduler.close(5)
    assert seen == [True, False, True]
