"""What the queue of a served model promises, without a server: order, bounds, deadlines, and no wasted passes.

Tests `serve/runtime/admission.py` and `serve/runtime/fair_queue.py` as well.
"""

from __future__ import annotations

import random
import threading
import time

import pytest

from xt.core.encoder.buckets import Buckets, bucket
from xt.core.errors import XtError
from xt.serve.runtime.admission import ALL_LARGE_JOBS, LARGE_JOBS
from xt.serve.runtime.fair_queue import FairQueue
from xt.serve.runtime.scheduler import Cancelled, Expired, Job, Overloaded, Scheduler


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
        first = Call(scheduler, "holder", [1000])  # a large job: the passes of others stay as large as they may be
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
    assert sorted(len(rows) for rows in network.batches[1:]) == [1, 8, 9, 32, 32]


def test_rows_of_like_length_of_different_callers_share_a_micro_batch(make, network):
    scheduler = make(token_budget=400)
    holder = network.hold(scheduler)
    calls = [Call(scheduler, str(i), [10 if i % 2 else 100]) for i in range(8)]
    network.go.set()
    for call in [holder, *calls]:
        call.result()
    assert [[n for _, n in rows] for rows in network.batches[1:]] == [[10] * 4, [100] * 4]


def test_a_long_text_is_overtaken_by_short_ones_only_until_its_turn_comes(make, network):
    """By hand: its 300 tokens are due at virtual time 300 (304 of padding); each of the others' 40 pass it by 40."""
    scheduler = make(token_budget=40)
    holder = network.hold(scheduler)
    lonely = Call(scheduler, "lonely", [300], caller="lonely")
    calls = [Call(scheduler, str(i), [40], caller="short") for i in range(30)]
    network.go.set()
    for call in [holder, lonely, *calls]:
        call.result()
    assert [rows[0][0] for rows in network.batches].index("lonely") == 1 + 300 // 40


def test_nothing_waits_for_company(make):
    scheduler = make()
    seconds = []
    for i in range(20):
        start = time.monotonic()
        Call(scheduler, str(i), [5]).result()
        seconds.append(time.monotonic() - start)
    assert sorted(seconds)[5] < 0.02  # most, on a machine that does other things too


def test_with_enough_waiting_a_job_with_as_much_before_it_is_refused_at_once(make, network):
    """By hand: of a job of 51 tokens, 51 and 50 are run before it is done; of one of 40, 40 and 40."""
    scheduler = make(max_waiting_tokens=100)
    holder = network.hold(scheduler)
    waiting = [Call(scheduler, "waits", [10] * 9), Call(scheduler, "fits", [50])]
    start = time.monotonic()
    with pytest.raises(Overloaded, match="The queue is full: 101 tokens wait, 100 are enough"):
        Call(scheduler, "late", [17] * 3)
    assert time.monotonic() - start < 0.5  # what waits is not run before this test lets it
    small = Call(scheduler, "small", [20] * 2)
    network.go.set()
    assert [len(call.result()) for call in [holder, *waiting, small]] == [1, 9, 1, 2]
    assert len(Call(scheduler, "late", [17] * 3).result()) == 3


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


def test_jobs_larger_than_the_whole_bound_are_taken_in_small_number_and_then_refused(make, network):
    scheduler = make(token_budget=50, max_waiting_tokens=100)
    holder = network.hold(scheduler)
    huge = [Call(scheduler, "huge", [10] * 40) for _ in range(LARGE_JOBS)]
    with pytest.raises(Overloaded, match="3200 tokens wait, 100 are enough"):
        Call(scheduler, "huge", [10] * 40)
    small = Call(scheduler, "small", [10])
    named = Call(scheduler, "named", [10] * 40, caller="somebody")  # one that is known has a share of its own
    network.go.set()
    for call in [holder, *huge, named]:
        assert len(call.result()) in (1, 40)
    assert small.at < min(call.at for call in huge)


def test_an_error_of_one_micro_batch_is_the_answer_to_its_jobs_alone(make, network):
    scheduler = make(token_budget=40)
    holder = network.hold(scheduler)
    good = Call(scheduler, "good", [40, 40])
    bad = Call(scheduler, "bad", [20])
    beside = Call(scheduler, "beside", [20])
    later = Call(scheduler, "later", [40])
    network.go.set()
    assert good.result() == [("good", 80)] * 2
    for failed in (bad, beside):
        assert isinstance(failed.result(), ValueError)
    assert later.result() == [("later", 80)]
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
    assert scheduler._admission.seconds(scheduler.waiting_tokens) == 0
    Call(scheduler, "first", [100] * 40).result()
    network.go.clear()
    holder = Call(scheduler, "holder", [100] * 2)
    end = time.monotonic() + 5
    while scheduler.waiting_tokens:
        assert time.monotonic() < end
    large = Call(scheduler, "large", [100] * 20)
    assert scheduler._admission.seconds(scheduler.waiting_tokens) == pytest.approx(0.2, rel=0.3)
    scheduler.check_room(time.monotonic() + 1, tokens=2000)
    scheduler.check_room(time.monotonic() + 0.1)  # one token: under fair sharing hardly anything is run before it
    with pytest.raises(Overloaded, match=r"The deadline cannot be met: 0\.[12]\d s of work wait"):
        scheduler.check_room(time.monotonic() + 0.1, tokens=2000)
    with pytest.raises(Overloaded, match="deadline cannot be met"):
        scheduler.submit(Job(["x"] * 20, [100] * 20, lambda outcome: None, deadline=time.monotonic() + 0.1))
    with pytest.raises(Overloaded, match=r"the request itself takes some 1\d\.\d s"):
        scheduler.check_room(time.monotonic() + 2, tokens=100_000)
    more = [Call(scheduler, "more", [100] * 20) for _ in range(LARGE_JOBS - 1)]
    with pytest.raises(Overloaded, match=r"[12]\.\d s of work wait, 0.2 s are enough"):
        scheduler.check_room(tokens=2000)
    network.go.set()
    for call in (holder, large, *more):
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


def order(network):
    """Who was run, micro-batch by micro-batch, without the holder's."""
    return ["".join(sorted({name for name, _ in rows})) for rows in network.batches[1:]]


def test_a_short_job_waits_for_one_micro_batch_of_a_large_one_and_not_for_all(make, network):
    scheduler = make(token_budget=512, max_waiting_tokens=10**6)
    network.go.clear()
    large = Call(scheduler, "large", [512] * 100)
    assert network.entered.acquire(timeout=5)  # its first row is under way
    short = [Call(scheduler, "short", [16]) for _ in range(3)]
    network.go.set()
    for call in [large, *short]:
        call.result()
    assert [name for rows in network.batches[:3] for name, _ in rows] == ["large", "short", "short", "short", "large"]


def test_two_callers_share_the_passes_however_many_requests_each_has(make, network):
    """By hand: rows of one width, 8 a pass, so that the passes take turns until the smaller caller has no more."""
    scheduler = make(token_budget=80, buckets=Buckets(), max_waiting_tokens=10**6)
    holder = network.hold(scheduler)
    many = [Call(scheduler, "a", [12] * 60, caller="a") for _ in range(6)]
    few = [Call(scheduler, "b", [16] * 60, caller="b")]
    network.go.set()
    for call in [holder, *many, *few]:
        call.result()
    passes = order(network)
    last = len(passes) - passes[::-1].index("b")
    tokens = {
        name: sum(bucket(n) for rows in network.batches[1 : 1 + last] for who, n in rows if who == name)
        for name in "ab"
    }
    assert tokens["b"] == 60 * 16
    assert abs(tokens["a"] - tokens["b"]) <= 2 * 80


def test_of_one_callers_jobs_the_short_ones_overtake_the_large_one(make, network):
    scheduler = make(token_budget=128, max_waiting_tokens=10**6)
    holder = network.hold(scheduler)
    large = Call(scheduler, "large", [128] * 20, caller="me")
    other = Call(scheduler, "other", [128] * 20, caller="other")
    short = Call(scheduler, "short", [16], caller="me")
    network.go.set()
    for call in [holder, large, other, short]:
        call.result()
    assert order(network).index("short") <= 1


def test_a_flood_of_short_jobs_of_one_caller_leaves_another_its_half(make, network):
    """By hand: 400 jobs of 16 tokens against 50 rows of 64: equal work until the rows are done, so 200 jobs before."""
    scheduler = make(token_budget=64, max_waiting_tokens=10**6, max_waiting_requests=10**4)
    holder = network.hold(scheduler)
    flood = [Call(scheduler, "flood", [16], caller="flood") for _ in range(400)]
    rows = Call(scheduler, "rows", [64] * 50, caller="rows")
    network.go.set()
    for call in [holder, *flood, rows]:
        call.result()
    before = [name for batch in network.batches[1:] for name, _ in batch]
    done = len(before) - before[::-1].index("rows")
    assert 180 <= before[:done].count("flood") <= 220


def test_a_short_job_fills_no_pass_with_rows_of_a_large_one_of_its_width(make, network):
    scheduler = make(token_budget=512, buckets=Buckets(), max_waiting_tokens=10**6)
    holder = network.hold(scheduler)
    large = Call(scheduler, "large", [16] * 200)
    short = [Call(scheduler, "short", [16], caller=str(i)) for i in range(3)]
    network.go.set()
    for call in [holder, large, *short]:
        call.result()
    assert [len(rows) for rows in network.batches[1:] if rows[0][0] == "short"] == [3]
    assert max(len(rows) for rows in network.batches) == 32  # alone the large one fills its passes


def test_while_short_jobs_come_large_ones_are_run_in_small_passes(make, network):
    scheduler = make(token_budget=512, buckets=Buckets(), max_waiting_tokens=10**6)
    network.seconds = 0.02
    Call(scheduler, "short", [16]).result()  # a light job of the last seconds
    network.seconds = 0.0
    Call(scheduler, "large", [32] * 64).result()
    assert {len(rows) for rows in network.batches[1:]} == {128 // 32}


def test_a_short_job_is_run_at_once_beside_workers_that_all_run_large_ones(make, network):
    where = []
    scheduler = make(token_budget=512, workers=2, extra_pass=True, max_waiting_tokens=10**6)
    run = scheduler.run
    scheduler.run = lambda rows: (where.append((rows[0][0], scheduler.is_extra_pass)), run(rows))[1]
    network.go.clear()
    large = Call(scheduler, "large", [512] * 6)
    assert network.entered.acquire(timeout=5)
    assert network.entered.acquire(timeout=5)
    short = Call(scheduler, "short", [16])
    assert network.entered.acquire(timeout=5)  # a third pass while two are held
    assert where[2] == ("short", True)
    middle = Call(scheduler, "middle", [100] * 4)  # too large to be run beside them
    assert not network.entered.acquire(timeout=0.1)
    network.go.set()
    for call in (large, short, middle):
        call.result()
    assert {name for name, beside in where if beside} == {"short"}


def test_without_large_jobs_nothing_is_run_beside_the_workers(make, network):
    scheduler = make(token_budget=64, workers=1, extra_pass=True)
    network.go.clear()
    calls = [Call(scheduler, str(i), [64]) for i in range(3)]
    assert network.entered.acquire(timeout=5)
    assert not network.entered.acquire(timeout=0.1)
    network.go.set()
    for call in calls:
        call.result()


def test_under_a_load_of_short_jobs_one_worker_takes_no_pass_that_cannot_be_small(make, network):
    scheduler = make(token_budget=512, workers=2, max_waiting_tokens=10**6)
    network.seconds = 0.6  # of two seconds: a load of 0.3 workers
    Call(scheduler, "short", [16]).result()
    network.entered.acquire(timeout=5)
    network.seconds = 0.0
    network.go.clear()
    large = Call(scheduler, "large", [512] * 4)
    assert network.entered.acquire(timeout=5)
    assert not network.entered.acquire(timeout=0.2)  # the other worker stays free
    short = Call(scheduler, "short", [16])
    assert network.entered.acquire(timeout=0.5)
    network.go.set()
    for call in (large, short):
        call.result()


def test_the_kept_worker_takes_large_passes_again_when_short_jobs_come_no_more(make, network, monkeypatch):
    monkeypatch.setattr("xt.serve.runtime.scheduler.LOAD_SECONDS", 0.1)
    scheduler = make(token_budget=512, workers=2, max_waiting_tokens=10**6)
    network.seconds = 0.05
    Call(scheduler, "short", [16]).result()
    network.entered.acquire(timeout=5)
    network.go.clear()
    large = Call(scheduler, "large", [512] * 4)
    assert network.entered.acquire(timeout=5)
    assert network.entered.acquire(timeout=5)  # both workers
    network.go.set()
    large.result()


def test_a_backlog_of_one_caller_refuses_nobody_else(make, network):
    scheduler = make(token_budget=64, max_waiting_tokens=1000, max_waiting_requests=20)
    holder = network.hold(scheduler)
    heavy = [Call(scheduler, "heavy", [64] * 100, caller="heavy") for _ in range(LARGE_JOBS)]
    with pytest.raises(Overloaded, match="The queue is full"):
        Call(scheduler, "heavy", [64] * 100, caller="heavy")
    short = [Call(scheduler, "short", [16]) for _ in range(12)]
    with pytest.raises(Overloaded, match="20 requests wait, at most 20 may"):
        scheduler.check_room(caller="heavy", tokens=16)
    newcomer = Call(scheduler, "new", [16], caller="newcomer")  # beyond the number, but it has none
    network.go.set()
    for call in [holder, *heavy, *short, newcomer]:
        call.result()


def test_large_jobs_wait_in_bounded_number_also_when_each_names_another_caller(make, network):
    scheduler = make(token_budget=64, max_waiting_tokens=100, max_waiting_requests=10**4)
    holder = network.hold(scheduler)
    taken = [Call(scheduler, "x", [64] * 2, caller=str(i)) for i in range(ALL_LARGE_JOBS)]
    with pytest.raises(Overloaded):
        Call(scheduler, "x", [64] * 2, caller="one more")
    network.go.set()
    for call in [holder, *taken]:
        call.result()


def test_what_is_being_read_takes_room_until_it_is_queued_or_given_back(make, network):
    scheduler = make(token_budget=64, max_waiting_tokens=1000)
    holder = network.hold(scheduler)
    read = [scheduler.reserve(tokens=6400) for _ in range(LARGE_JOBS)]  # nothing is queued yet
    with pytest.raises(Overloaded, match="The queue is full"):
        scheduler.reserve(tokens=6400)
    scheduler.check_room(tokens=16)  # a short one is taken all the same: under fair sharing little is run before it
    named = scheduler.reserve(caller="somebody", tokens=6400)
    scheduler.release(read.pop())
    read.append(scheduler.reserve(tokens=6400))
    outcome = threading.Event()
    job = Job([("x", 64)] * 100, [64] * 100, lambda _: outcome.set())
    scheduler.submit(job, read.pop())  # its own room does not stand in its way
    with pytest.raises(Overloaded):
        scheduler.reserve(tokens=6400)
    for place in [*read, named]:
        scheduler.release(place)
        scheduler.release(place)  # twice is once
    assert scheduler._admission.reserved_tokens == 0
    network.go.set()
    holder.result()
    assert outcome.wait(10)


def test_the_queue_forgets_callers_that_wait_for_nothing(make, network):
    scheduler = make(token_budget=64, max_waiting_tokens=10**6)
    holder = network.hold(scheduler)
    rest = Call(scheduler, "rest", [64] * 3)
    calls = [Call(scheduler, str(i), [8], caller=f"caller {i}") for i in range(500)]
    network.go.set()
    for call in [holder, rest, *calls]:
        call.result()
    assert scheduler._queue._callers == {}
    assert scheduler._queue.flows == {}


def test_fairness_costs_the_queue_little_time():
    """A queue of 2,000 requests: what is done for one micro-batch takes less than a short forward pass."""
    queue = FairQueue(1024, Buckets())
    random_lengths = random.Random(0)
    for i in range(2000):
        queue.put(Job([i], [random_lengths.randrange(8, 60)], print, caller=str(i % 1500) if i % 2 else None))
    start, batches = time.perf_counter(), 0
    while (head := queue.head()) is not None:
        assert queue.take(head)
        batches += 1
    assert (time.perf_counter() - start) / batches < 0.01
    assert queue.tokens == queue.large == 0
