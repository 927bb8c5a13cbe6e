"""The parts of several processes are the whole batch; totals count all of it; what is hidden is hidden as BERT does."""

from __future__ import annotations

from collections import Counter
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
from xt.core.encoder.resolve import resolve
from xt.core.heads.inputs import IGNORED, Inputs, Unit
from xt.train import prepare as preparing
from xt.train.batches import StepBatch, StepBatches, hide, targets
from xt.train.data import TaskData
from xt.train.prepare import prepare
from xt.train.process_group import ProcessGroup
from xt.train.sampling import schedule

WORDS = "good morning world the cat sleeps today we eat bread and cheese house is very big".split()
ALL = [f for f in FORMATS if f not in RETRIEVED]


def text(rng: np.random.Generator, longest: int = 25) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(1, longest)))


def some(format: str, count: int) -> list[Example]:
    rng = np.random.default_rng(1)
    made: list[Example] = []
    for n in range(count):
        a, b, id = text(rng), text(rng), str(n)
        words = tuple(a.split())
        made.append(
            {
                "pair": PairExample(id, a, b, n % 3),
                "single": SingleExample(id, a, n % 3),
                "regression": ScoredExample(id, a, b, n / 7),
                "choice": ChoiceExample(id, a, (b, a, "cat", "bread")[: 2 + n % 3], n % 2),
                "qa": QaExample(id, a, "the cat ?", (words[0],), (0,)),
                "tagging": TaggedExample(id, words, tuple(i % 3 for i in range(len(words)))),
                "mlm": TextExample(id, a),
                "contrastive": TupleExample(id, a, b, "cat" if n % 2 else None),
                "image-text": CaptionExample(id, a, n % 7),
            }[format]
        )
    return made


@pytest.fixture(scope="module")
def inputs(tiny_folder: Path) -> Inputs:
    resolved = resolve(str(tiny_folder))
    return Inputs(resolved.path / "tokenizer.json", resolved.spec)


@pytest.fixture(scope="module")
def data(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TaskData]:
    """A task of each format with 40 examples."""
    folder = tmp_path_factory.mktemp("cache")
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "preparations", lambda: folder)
        for format in ALL:
            task = Task(format, "intermediate", format, "", ("a", "b", "c"), "", "accuracy", "", "")
            images = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float16) if format == "image-text" else None
            made[format] = TaskData(task, prepare(format, task, some(format, 40), inputs), [], images=images)
    return made


def batches(data: dict[str, TaskData], inputs: Inputs, *names: str, **change: Any) -> StepBatches:
    settings = {"seed": 5, "micro_tokens": 10_000, **change}
    steps = settings.pop("steps", 12)
    lengths = {n: data[n].prepared.lengths for n in names}
    plan = schedule({n: len(data[n].prepared) for n in names}, 8, steps, seed=2, sampling="uniform", lengths=lengths)
    return StepBatches(plan, data, inputs, **settings)


def rows(batch: StepBatch) -> list[tuple[Any, ...]]:
    """Each row without padding, with what goes with it."""
    found = []
    for micro in batch.micro:
        for at in range(len(micro["input_ids"])):
            length = int(micro["attention_mask"][at].sum())
            row: list[Any] = [tuple(micro["input_ids"][at, :length].tolist())]
            for name in ("parts", "owners"):
                row += [micro[name][at].item()] if name in micro else []
            if "images" in micro:
                row.append(tuple(micro["images"][at].tolist()))
            if "labels" in micro and "choices" not in micro:
                labels = micro["labels"][at]
                row.append(labels.item() if labels.dim() == 0 else tuple(labels[:length].tolist()))
            found.append(tuple(row))
        if "choices" in micro:
            found += [("choices", int((c >= 0).sum()), int(n)) for c, n in zip(micro["choices"], micro["labels"])]  # noqa: B905
    return found


@pytest.mark.parametrize("size", [2, 3, 16])
@pytest.mark.parametrize("format", ALL)
def test_the_parts_of_all_processes_are_the_whole_batch(
    data: dict[str, TaskData], inputs: Inputs, format: str, size: int
) -> None:
    whole = batches(data, inputs, format)
    parts = [batches(data, inputs, format, group=ProcessGroup(rank, size)) for rank in range(size)]
    assert len(whole) == 12
    for step in range(12):
        one, shares = whole[step], [part[step] for part in parts]
        assert Counter(rows(one)) == sum((Counter(rows(share)) for share in shares), Counter())
        assert {(s.step, s.task, s.total, s.tokens) for s in shares} == {(step, format, one.total, one.tokens)}
        counts = [sum(len(m["input_ids"]) for m in share.micro) for share in shares]
        if format not in ("choice", "contrastive"):
            assert max(counts) - min(counts) <= 1
        if size == 16:
            assert shares[-1].micro == []


@pytest.mark.parametrize("format", ALL)
def test_totals_and_tokens_are_those_of_the_whole_batch(data: dict[str, TaskData], inputs: Inputs, format: str) -> None:
    part = batches(data, inputs, format, group=ProcessGroup(1, 2))
    for step in range(12):
        units = [data[format].prepared.unit(int(i)) for i in part.plan[step][1]]
        assert part[step].tokens == sum(len(row) for unit in units for row in unit.rows)
        if format == "tagging":
            words = [some("tagging", 40)[int(i)].words for i in part.plan[step][1]]  # type: ignore[union-attr]
            assert part[step].total == sum(map(len, words))
        elif format == "mlm":
            hidden = [max(1, round(0.15 * (len(unit.rows[0]) - 2))) for unit in units]
            assert part[step].total == sum(hidden)
        else:
            assert part[step].total == 8
        assert part[step].padded == sum(m["input_ids"].numel() for m in part[step].micro)


@pytest.mark.parametrize("format", ALL)
def test_micro_batches_divide_the_same_rows(data: dict[str, TaskData], inputs: Inputs, format: str) -> None:
    whole, divided = (batches(data, inputs, format, micro_tokens=n) for n in (10_000, 60))
    assert max(len(divided[step].micro) for step in range(12)) > 2
    for step in range(12):
        assert Counter(rows(whole[step])) == Counter(rows(divided[step]))
        if format not in ("choice", "contrastive"):
            assert all(m["input_ids"].numel() <= 60 or len(m["input_ids"]) == 1 for m in divided[step].micro)


def test_a_step_is_the_same_wherever_one_starts(data: dict[str, TaskData], inputs: Inputs) -> None:
    whole = batches(data, inputs, *ALL, steps=36)
    later = batches(data, inputs, *ALL, steps=36, first=20)
    assert len(later) == 16
    for index in (15, 0, 7):
        one, other = whole[20 + index], later[index]
        assert (one.step, one.task, rows(one)) == (other.step, other.task, rows(other))
    with pytest.raises(IndexError):
        later[16]
    assert {batch.task for batch in whole} == set(ALL)


def test_without_segments_none_are_given(inputs: Inputs, data: dict[str, TaskData]) -> None:
    class Two:
        """Data whose second half is another segment."""

        def unit(self, index: int) -> Unit:
            unit = data["pair"].prepared.unit(index)
            return replace(unit, types=[np.arange(len(t)).astype(np.int32) // 3 % 2 for t in unit.types])

    changed: Any = {"pair": replace(data["pair"], prepared=Two())}  # type: ignore[arg-type]
    plan = schedule({"pair": 40}, 8, 1)
    for segments in (True, False):
        made = StepBatches(plan, changed, inputs, seed=0, micro_tokens=9999, segments=segments)[0]
        assert all(("token_type_ids" in m) == segments for m in made.micro)


def test_captions_get_the_vectors_of_their_images(data: dict[str, TaskData], inputs: Inputs) -> None:
    captions = {tuple(inputs.units(data["image-text"].task, [e])[0].rows[0]): set() for e in some("image-text", 40)}
    for example in some("image-text", 40):
        assert isinstance(example, CaptionExample)
        captions[tuple(inputs.units(data["image-text"].task, [example])[0].rows[0])].add(example.image)
    seen = 0
    for batch in batches(data, inputs, "image-text", group=ProcessGroup(1, 2)):
        for micro in batch.micro:
            assert micro["images"].dtype.is_floating_point
            for at, owner in enumerate(micro["owners"].tolist()):
                length = int(micro["attention_mask"][at].sum())
                assert owner in captions[tuple(micro["input_ids"][at, :length].tolist())]
                np.testing.assert_array_equal(
                    micro["images"][at].numpy(), data["image-text"].images[owner].astype(np.float32)
                )
                seen += 1
    assert seen == 48


# --- hiding ---


def test_fifteen_in_a_hundred_are_hidden_80_10_10(inputs: Inputs) -> None:
    rng = np.random.default_rng(3)
    ids = np.concatenate([[0], rng.integers(7, inputs.vocabulary, 200), [2, 1, 3, 4]]).astype(np.int32)
    hidden = masked = kept = other = 0
    places = np.zeros(len(ids))
    for _ in range(2000):
        before = ids.copy()
        read, labels = hide(ids, inputs, 0.15, rng)
        assert np.array_equal(ids, before)
        at = np.flatnonzero(labels != IGNORED)
        assert np.array_equal(labels[at], ids[at])
        untouched = np.setdiff1d(np.arange(len(ids)), at)
        assert np.array_equal(read[untouched], ids[untouched])
        places[at] += 1
        hidden += len(at)
        masked += int((read[at] == inputs.mask_id).sum())
        kept += int((read[at] == ids[at]).sum())
    other = hidden - masked - kept
    assert hidden == 2000 * 30  # 15 % of 200
    assert masked / hidden == pytest.approx(0.8, abs=0.01)
    assert kept / hidden == pytest.approx(0.1, abs=0.005)
    assert other / hidden == pytest.approx(0.1, abs=0.005)
    special = [0, 201, 202, 203, 204]
    assert not places[special[:3]].any()
    assert not places[204]
    able = np.setdiff1d(np.arange(1, 201), special)
    assert places[able].min() > 200  # 300 expected of each
    assert places[able].max() < 400


def test_what_is_put_in_place_is_any_token(inputs: Inputs) -> None:
    ids = np.full(300, 9, np.int32)
    rng = np.random.default_rng(0)
    swapped = np.concatenate([hide(ids, inputs, 0.9, rng)[0] for _ in range(300)])
    found = np.unique(swapped[(swapped != 9) & (swapped != inputs.mask_id)])
    assert len(found) > 0.95 * inputs.vocabulary
    assert found.max() < inputs.vocabulary


def test_a_short_text_hides_one_token_and_an_empty_one_none(inputs: Inputs) -> None:
    rng = np.random.default_rng(0)
    assert (hide(np.array([0, 9, 2], np.int32), inputs, 0.15, rng)[1] != IGNORED).tolist() == [False, True, False]
    read, labels = hide(np.array([0, 2], np.int32), inputs, 0.15, rng)
    assert read.tolist() == [0, 2]
    assert (labels == IGNORED).all()


def test_other_steps_and_seeds_hide_other_tokens(data: dict[str, TaskData], inputs: Inputs) -> None:
    labels = lambda batch: [row[1] for row in rows(batch)]
    one = batches(data, inputs, "mlm", steps=6)
    assert [labels(b) for b in one] == [labels(b) for b in batches(data, inputs, "mlm", steps=6)]
    assert labels(one[0]) != labels(batches(data, inputs, "mlm", steps=6, seed=6)[0])
    assert one[0].total < batches(data, inputs, "mlm", steps=6, mlm_probability=0.5)[0].total


def test_targets_are_what_the_loss_is_summed_over() -> None:
    row = np.array([0, 5, 6, 2], np.int32)
    assert targets(Unit([row], [row], (1,))) == 1
    assert targets(Unit([row], [row], labels=np.array([-100, 3, -100, -100], np.int32))) == 1
    assert targets(Unit([row], [row], labels=np.array([-100, 3, 0, -100], np.int32))) == 2
