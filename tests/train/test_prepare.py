"""Prepared data are what was tokenised, whole or not there, found again by content, and not held in memory."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xt.core.data.examples import (
    CaptionExample,
    ChoiceExample,
    Example,
    PairExample,
    QaExample,
    ScoredExample,
    SingleExample,
    TaggedExample,
    TextExample,
    TupleExample,
)
from xt.core.data.tasks import FORMATS, RETRIEVED, Task
from xt.core.encoder.resolve import Resolved, resolve
from xt.core.errors import XtError
from xt.core.heads.inputs import Inputs, Unit
from xt.train import prepare as preparing
from xt.train.prepare import Prepared, chosen, find, key, preparations, prepare

WORDS = "good morning world the cat sleeps today we eat bread and cheese house is very big".split()


def task(format: str) -> Task:
    return Task("t", "intermediate", format, "", ("a", "b", "c"), "", "accuracy", "", "")


def text(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(1, 60)))


def some(format: str, count: int) -> Iterator[Example]:
    """Random examples, some longer than an input (64 tokens)."""
    rng = np.random.default_rng(1)
    for n in range(count):
        a, b, id = text(rng), text(rng), str(n)
        words = a.split()
        yield {
            "pair": PairExample(id, a, b, n % 3),
            "single": SingleExample(id, a, n % 3),
            "regression": ScoredExample(id, a, b, n / 7),
            "choice": ChoiceExample(id, a, (b, a, "cat", "bread")[: 2 + n % 3], n % 2),
            "qa": QaExample(id, f"{a} {b} {a}", "the cat ?", (words[0],), (0,)),
            "tagging": TaggedExample(id, tuple(words), tuple(i % 3 for i in range(len(words)))),
            "mlm": TextExample(id, f"{a} {b}"),
            "contrastive": TupleExample(id, a, b, "cat" if n % 2 else None),
            "image-text": CaptionExample(id, a, n * 1000),
        }[format]


@pytest.fixture
def inputs(tiny_folder: Path) -> Inputs:
    resolved: Resolved = resolve(str(tiny_folder))
    return Inputs(resolved.path / "tokenizer.json", resolved.spec)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XT_CACHE", str(tmp_path / "cache"))  # of processes
    monkeypatch.setattr(preparing, "preparations", lambda: tmp_path / "cache" / "prepared")
    return tmp_path / "cache"


def same(found: Unit, expected: Unit) -> bool:
    arrays = [(found.rows, expected.rows), (found.types, expected.types)]
    pairs = [pair for ours, theirs in arrays for pair in zip(ours, theirs, strict=True)]
    if expected.labels is not None:
        assert found.labels is not None
        pairs.append((found.labels, expected.labels))
    else:
        assert found.labels is None
    targets = np.asarray(expected.targets, np.float32)
    return all(np.array_equal(a, b) for a, b in pairs) and np.array_equal(found.targets, targets)


# --- the arrays ---


@pytest.mark.parametrize("format", [f for f in FORMATS if f not in RETRIEVED])
def test_units_come_back_as_they_were(inputs: Inputs, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    monkeypatch.setattr(preparing, "CHUNK", 7)
    examples = list(some(format, 40))
    expected = inputs.units(task(format), examples)
    made = prepare("name", task(format), iter(examples), inputs, facts={"more": 1, "late": lambda: 2})
    found = find("name")
    assert found is not None
    for prepared in (made, found):
        assert len(prepared) == len(expected) >= 40
        order = np.random.default_rng(0).permutation(len(expected))
        assert all(same(prepared.unit(int(i)), expected[i]) for i in order)
        assert prepared.lengths.tolist() == [u.longest * len(u.rows) for u in expected]
    facts = made.facts
    assert (facts["examples"], facts["more"], facts["late"]) == (40, 1, 2)
    assert facts["units"] == len(expected)
    assert facts["rows"] == sum(len(u.rows) for u in expected)
    assert facts["tokens"] == sum(u.tokens for u in expected)
    assert facts["cut"] == sum(u.cut for u in expected)
    if expected[0].targets:
        first = [u.targets[0] for u in expected]
        assert facts["mean"] == pytest.approx(np.mean(first))
        assert facts["deviation"] == pytest.approx(np.std(first))


def test_what_is_read_can_be_changed_without_changing_the_file(inputs: Inputs) -> None:
    prepared = prepare("name", task("tagging"), some("tagging", 3), inputs)
    unit = prepared.unit(1)
    before = unit.rows[0].copy()
    unit.rows[0][:] = 9
    assert unit.labels is not None
    unit.labels[:] = 9
    assert np.array_equal(prepared.unit(1).rows[0], before)


def test_no_examples_give_no_units(inputs: Inputs) -> None:
    prepared = prepare("name", task("pair"), iter(()), inputs)
    assert len(prepared) == 0
    assert prepared.lengths.tolist() == []


def test_segments_are_kept(inputs: Inputs) -> None:
    one = Unit([np.array([0, 5, 2], np.int32)], [np.array([0, 1, 1], np.int32)], (1,))
    fake: Any = type("Fake", (), {"units": lambda self, task, examples: [one for _ in examples]})()
    assert same(prepare("name", task("pair"), some("pair", 3), fake).unit(2), one)


# --- whole or not at all ---


def leftovers(cache: Path) -> list[str]:
    return sorted(p.name for p in (cache / "prepared").iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, XtError("bad"), MemoryError])
def test_an_interrupted_preparation_leaves_nothing(inputs: Inputs, cache: Path, error: Any) -> None:
    def broken() -> Iterator[Example]:
        yield from some("pair", 1500)
        raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        prepare("name", task("pair"), broken(), inputs)
    assert leftovers(cache) == []
    assert find("name") is None
    assert len(prepare("name", task("pair"), some("pair", 5), inputs)) == 5


def endless() -> Iterator[Example]:
    while True:
        yield from some("pair", 1000)


def _prepare_forever(inputs_of: str, report: Any) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads do not outlive a fork, and would be waited for
    resolved = resolve(inputs_of)
    report.set()
    prepare("name", task("pair"), endless(), Inputs(resolved.path / "tokenizer.json", resolved.spec))


def test_a_killed_preparation_does_not_look_whole(inputs: Inputs, tiny_folder: Path, cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=_prepare_forever, args=(str(tiny_folder), started), daemon=True)
    process.start()
    assert started.wait(30)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if any(f.stat().st_size for f in (cache / "prepared").glob("*/ids.bin")):
            break
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert len(leftovers(cache)) == 1  # the draft
    assert find("name") is None
    assert len(prepare("name", task("pair"), some("pair", 5), inputs)) == 5
    assert find("name") is not None


def test_an_old_draft_is_removed_and_what_is_none_stays(inputs: Inputs, cache: Path) -> None:
    drafts = cache / "prepared"
    for name in (".draft-old", ".draft-mine", ".draft-new"):
        (drafts / name).mkdir(parents=True)
        (drafts / name / "ids.bin").write_bytes(b"x")
    (drafts / ".draft-mine" / "thesis.tex").write_text("x")
    (drafts / ".draft-link").symlink_to(drafts / ".draft-mine")
    for name in (".draft-old", ".draft-mine"):
        os.utime(drafts / name, (0, 0))
    prepare("name", task("pair"), some("pair", 3), inputs)
    assert sorted(leftovers(cache)) == [".draft-link", ".draft-mine", ".draft-new", "name"]
    assert os.listdir(drafts / ".draft-mine") == ["thesis.tex"]


def _prepare_at_once(inputs_of: str, barrier: Any, found: Any) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads do not outlive a fork, and would be waited for
    resolved = resolve(inputs_of)
    inputs = Inputs(resolved.path / "tokenizer.json", resolved.spec)

    def together() -> Iterator[Example]:
        yield from some("pair", 30)
        barrier.wait(30)

    for _ in range(5):
        found.put(len(prepare(f"name{_}", task("pair"), together(), inputs)))


def test_two_may_prepare_the_same_at_once(tiny_folder: Path, cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, found = context.Barrier(3), context.Queue()
    arguments = (str(tiny_folder), barrier, found)
    processes = [context.Process(target=_prepare_at_once, args=arguments, daemon=True) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [p.exitcode for p in processes] == [0, 0, 0]
    assert [found.get() for _ in range(15)] == [30] * 15
    assert leftovers(cache) == [f"name{n}" for n in range(5)]


def test_the_second_to_finish_keeps_what_the_first_wrote(inputs: Inputs, cache: Path) -> None:
    def overtaken() -> Iterator[Example]:
        yield from some("pair", 4)
        first.append(prepare("name", task("pair"), some("pair", 4), inputs))
        first[0].unit(0)

    first: list[Prepared] = []
    second = prepare("name", task("pair"), overtaken(), inputs)
    assert leftovers(cache) == ["name"]
    assert same(first[0].unit(3), second.unit(3))


def test_a_full_disk_is_told(inputs: Inputs, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    def full(*args: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preparing, "write_json", full)
    with pytest.raises(XtError, match=r"No disk space left(.|\n)*XT_CACHE"):
        prepare("name", task("pair"), some("pair", 3), inputs)
    assert leftovers(cache) == []


# --- names ---


def test_a_name_depends_on_every_fact_and_on_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"files": [("a", "1")], "limit": [3, 0], "labels": ("x", "y")}
    assert key(facts) == key(dict(reversed(facts.items())))
    for change in ({"files": [("a", "2")]}, {"limit": [3, 1]}, {"labels": ("y", "x")}, {"more": None}):
        assert key({**facts, **change}) != key(facts)
    before = key(facts)
    monkeypatch.setattr(preparing, "SCHEMA", 999)
    assert key(facts) != before
    assert preparations().name == "prepared"


# --- choosing ---


def pairs(count: int) -> list[Example]:
    return [PairExample(str(n), f"text {n // 3}", f"other {n}", n % 2) for n in range(count)]


def test_without_a_limit_or_with_a_large_one_all_are_chosen_in_their_order() -> None:
    rows = pairs(50)
    assert list(chosen(rows, None, 0)) == list(chosen(rows, 50, 0)) == list(chosen(rows, 99, 0)) == rows


def test_the_chosen_are_the_same_wherever_they_stand_and_more_with_a_larger_limit() -> None:
    rows = pairs(3000)
    found = list(chosen(rows, 100, 7))
    assert len(found) == 100
    assert sorted(found, key=rows.index) == found  # in the order of the file
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(3000)]
    assert {e.id for e in chosen(shuffled, 100, 7)} == {e.id for e in found}
    assert {e.id for e in found} < {e.id for e in chosen(rows, 300, 7)}
    assert len({e.id for e in found} & {e.id for e in chosen(rows, 100, 8)}) < 20


def test_every_example_is_as_likely_to_be_chosen() -> None:
    rows = pairs(200)
    counts = np.zeros(200)
    for seed in range(400):
        for example in chosen(rows, 50, seed):
            counts[int(example.id)] += 1
    # 400 draws of 1/4: mean 100, deviation sqrt(400 * 1/4 * 3/4) = 8.7
    assert counts.mean() == 100
    assert abs(counts.std() - 8.7) < 2
    assert abs(counts - 100).max() < 5 * 8.7
    assert abs(np.corrcoef(np.arange(200), counts)[0, 1]) < 0.25  # neither the first nor the last are preferred


def test_equal_examples_may_be_chosen_together() -> None:
    rows = [replace(e, id="") for e in pairs(1)] * 5
    assert len(list(chosen(rows, 3, 0))) == 3


# --- memory ---

MEASURED = """
import json, resource, sys, os
from pathlib import Path
from xt.core.heads.inputs import Inputs
from xt.core.encoder.spec import EncoderSpec
from xt.train.config import TrainConfig
from xt.train.data import load, task_requests
file, tokenizer = map(Path, sys.argv[1:])
config = TrainConfig("x", Path("y"), intermediate=(f"pair:{file}",))
inputs = Inputs(tokenizer, EncoderSpec("t", 32, max_length=64))
data = load(config, task_requests(config, target=False)[0], inputs, "", lambda line: None)
print(json.dumps([len(data.prepared), len(data.dev), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def test_memory_stays_flat_from_20_000_to_200_000_pairs(tiny_folder: Path, tmp_path: Path, cache: Path) -> None:
    peaks = {}
    for count in (20_000, 200_000):
        file = tmp_path / f"pairs{count}.tsv"
        with file.open("w") as lines:
            lines.write("first\tsecond\tlabel\n")
            lines.writelines(
                f"the cat {n} sleeps today\twe eat bread and cheese {n}\t{'yes' if n % 3 else 'no'}\n"
                for n in range(count)
            )
        command = [sys.executable, "-c", MEASURED, str(file), str(tiny_folder / "tokenizer.json")]
        environment = {**os.environ, "XT_CACHE": str(cache), "MALLOC_ARENA_MAX": "2"}
        out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        units, dev, peaks[count] = json.loads(out)
        assert units == pytest.approx(0.8 * count, rel=0.02)
        assert dev == 1000
    assert peaks[200_000] - peaks[20_000] < 25, peaks  # MiB; the texts alone are 10 MB, as objects ten times that
