"""Which texts share a forward pass: every text once, within the budget, and in no shape that was not warmed up."""

from __future__ import annotations

import random

import numpy as np
import pytest

from xt.core.data import tasks
from xt.core.encoder.buckets import WARM_TOKENS, Buckets, bucket, micro_batches
from xt.core.encoder.spec import EncoderSpec
from xt.core.encoder.text import TextEncoder, TextTokenizer
from xt.core.heads.inputs import Inputs
from xt.core.heads.onnx_heads import HeadModel, Row

FEW = Buckets(compiled=True)


@pytest.mark.parametrize("buckets", [Buckets(), Buckets(5), FEW, Buckets(1024, compiled=True)])
def test_every_text_is_run_once_with_others_of_its_width_and_within_the_budget(buckets):
    chance = random.Random(2)
    for _ in range(300):
        budget = chance.randint(1, 600)
        lengths = [chance.randint(1, chance.choice([5, 50, 300])) for _ in range(chance.randint(0, 90))]
        batches = list(micro_batches(lengths, budget, buckets))
        assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
        for batch in batches:
            (width,) = {bucket(lengths[i]) for i in batch}
            rows = buckets.rows(len(batch), width, budget)
            assert len(batch) <= rows <= buckets.most
            assert rows * width <= budget or len(batch) == rows == 1
            assert (rows - len(batch)) * width <= 16


class Shape:
    """An engine whose vectors tell the width that they were computed in, as rounding does in a real one."""

    def __init__(self, buckets):
        self.buckets = buckets

    def forward(self, ids, mask):
        return np.stack([(ids * mask).sum(1), ids.sum(1), np.full(len(ids), ids.shape[1])], 1).astype(np.float32)


@pytest.mark.parametrize("buckets", [Buckets(), FEW])
def test_a_text_is_computed_in_the_same_shape_whatever_it_is_batched_with(buckets):
    chance = np.random.default_rng(0)
    encoder = TextEncoder(EncoderSpec(name="shape", dim=3, max_length=200), None, Shape(buckets))
    rows = [chance.integers(2, 1000, chance.integers(1, 200)) for _ in range(200)]
    alone = np.concatenate([encoder.encode_ids([row]) for row in rows])
    assert len(set(alone[:, 2])) > 20
    for count in (2, 9, 200):
        some = chance.permutation(200)[:count]
        assert encoder.encode_ids([rows[i] for i in some]).tobytes() == alone[some].tobytes()


def test_an_engine_that_compiles_runs_few_shapes_and_wastes_little():
    counts = {FEW.rows(n, 8, 10**6) for n in range(1, 33)}
    assert sorted(counts) == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32]
    assert [FEW.take(n, 8, 10**6) for n in (5, 9, 12, 15, 17, 18, 31, 33)] == [5, 9, 12, 15, 16, 18, 31, 32]
    assert [FEW.take(n, 40, 10**6) for n in (5, 9, 12, 15, 17, 18, 31, 33)] == [5, 8, 12, 14, 16, 16, 28, 32]
    widths = {bucket(n) for n in range(1, 513)}
    warm = FEW.warm_shapes(512, 512)
    assert len(warm) < 0.75 * sum(max(min(32, WARM_TOKENS // w), 1) for w in widths) + len(widths)
    assert len(set(warm)) == len(warm)
    assert {w for _, w in warm} == {w for w in widths if w <= WARM_TOKENS}
    assert sum(rows * width for rows, width in warm) < 3_000  # some three seconds of a slow core


def test_an_engine_that_does_not_compile_runs_as_many_rows_as_wait():
    assert [Buckets().take(n, 8, 10**6) for n in (1, 5, 31, 33)] == [1, 5, 31, 32]
    assert [Buckets().rows(n, 8, 10**6) for n in (1, 5, 31)] == [1, 5, 31]
    assert Buckets(1024).take(5000, 16, 16384) == 1024  # a GPU's micro-batch is filled


class Seen:
    """An engine that notes the shapes it runs in; the vector of a text is its ids' sum and count."""

    buckets, token_budget, workers = FEW, 512, 1

    def __init__(self):
        self.shapes = []

    def forward(self, ids, mask):
        self.shapes.append(ids.shape)
        return np.stack([(ids * mask).sum(1), mask.sum(1)], axis=1).astype(np.float32)


def few_tokens(shapes):
    """Those that are warmed up."""
    return {(rows, width) for rows, width in shapes if rows * width <= WARM_TOKENS}


def test_few_texts_are_run_in_shapes_that_were_warmed_up_whatever_their_number(tmp_path, tiny):
    engine = Seen()
    tokenizer = TextTokenizer(tiny.path / "tokenizer.json", 300)
    encoder = TextEncoder(EncoderSpec(name="seen", dim=2, max_length=300), tokenizer, engine)
    encoder.warm_up()
    warm, chance = set(engine.shapes), random.Random(3)
    for _ in range(200):
        engine.shapes.clear()
        lengths = [chance.randint(1, chance.choice((9, 30, 128))) for _ in range(chance.randint(1, 70))]
        rows = [np.array([chance.randint(5, 99) for _ in range(n)]) for n in lengths]
        found = encoder.encode_ids(rows)
        assert few_tokens(engine.shapes) <= warm
        np.testing.assert_array_equal(found, [[row.sum(), len(row)] for row in rows])


def test_so_are_the_rows_of_a_head(tiny):
    class Network(Seen):
        def forward(self, arrays):
            self.shapes.append(arrays["input_ids"].shape)
            return np.stack([arrays["input_ids"][:, 0]] * 3, axis=1).astype(np.float32)

    network = Network()
    inputs = Inputs(tiny.path / "tokenizer.json", EncoderSpec(name="seen", dim=2, max_length=300))
    head = HeadModel(tasks.get("sample-nli"), inputs, network)
    head.warm_up()
    warm, chance = set(network.shapes), random.Random(4)
    for _ in range(100):
        network.shapes.clear()
        lengths = [chance.randint(1, 128) for _ in range(chance.randint(1, 60))]
        rows = [Row(np.full(n, i, np.int32), np.zeros(n, np.int32)) for i, n in enumerate(lengths)]
        assert [values[0] for values in head.logits(rows)] == list(range(len(rows)))
        assert few_tokens(network.shapes) <= warm
