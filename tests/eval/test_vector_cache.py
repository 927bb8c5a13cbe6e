"""Vectors kept on disk: what comes back is what was computed, and nothing else is taken for it."""

from __future__ import annotations

import os
import shutil
import stat
import time

import numpy as np
import pytest

from xt.core.encoder.text import Encoded
from xt.core.errors import XtError
from xt.eval.vector_cache import CachedEncoder, prune


class Counting:
    """Stands where the network is: a vector of its own for every (prefix, truncate, text), and a count of texts."""

    def __init__(self, dim=4):
        self.dim = dim
        self.seen = []

    def encode(self, texts, *, prefix=None, truncate=False):
        if not truncate and any(len(t) > 50 for t in texts):
            raise XtError("too long")
        self.seen += texts
        rows = [np.random.default_rng(abs(hash((prefix, truncate, t))) % 2**32).normal(size=self.dim) for t in texts]
        return Encoded(
            np.array(rows, np.float32),
            np.array([len(t) for t in texts], np.int32),
            np.array([len(t) > 50 for t in texts]),
        )


@pytest.fixture
def network():
    return Counting()


def test_no_other_user_reads_what_is_kept(network, tmp_path):
    CachedEncoder(network, "x", root=tmp_path / "vectors").encode(["a"])
    assert stat.S_IMODE((tmp_path / "vectors").stat().st_mode) == 0o700


def same(a, b):
    np.testing.assert_array_equal(a.vectors, b.vectors)
    np.testing.assert_array_equal(a.tokens, b.tokens)
    np.testing.assert_array_equal(a.truncated, b.truncated)


def test_each_text_is_encoded_once_and_comes_back_in_its_place_in_a_later_process_too(network, tmp_path):
    texts = ["a", "bb", "a", "é", "ccc"]
    first = CachedEncoder(network, "x", root=tmp_path)
    same(first.encode(texts), Counting().encode(texts))
    assert network.seen == ["a", "bb", "é", "ccc"]
    later = CachedEncoder(network, "x", root=tmp_path)
    order = ["ccc", "new", "a", "bb", "a"]
    same(later.encode(order), Counting().encode(order))
    assert network.seen[4:] == ["new"]
    assert (later.hits, later.misses) == (4, 1)


def test_both_forms_of_unicode_are_one_text(network, tmp_path):
    cached = CachedEncoder(network, "x", root=tmp_path)
    found = cached.encode(["cafe\u0301", "café", "\u1112\u1161\u11ab"])
    assert network.seen == ["café", "한"]
    np.testing.assert_array_equal(found.vectors[0], found.vectors[1])
    same(cached.encode(["한"]), Counting().encode(["한"]))
    assert (cached.hits, cached.misses) == (2, 2)


def test_prefix_truncation_and_encoder_are_told_apart(network, tmp_path):
    cached = CachedEncoder(network, "x", root=tmp_path)
    long = "z" * 60
    for options in ({}, {"prefix": "query"}, {"prefix": ""}, {"truncate": True}, {"prefix": "query", "truncate": True}):
        same(cached.encode(["a"], **options), Counting().encode(["a"], **options))
    assert network.seen == ["a"] * 5
    assert cached.encode([long], truncate=True).truncated.tolist() == [True]
    with pytest.raises(XtError, match="too long"):
        cached.encode([long])
    CachedEncoder(network, "y", root=tmp_path).encode(["a"])
    assert network.seen.count("a") == 6


@pytest.mark.parametrize("damage", ["cut", "missing", "nan", "longer"])
def test_a_damaged_shard_is_thrown_away_and_computed_anew(network, tmp_path, damage):
    CachedEncoder(network, "x", root=tmp_path).encode(["a", "b"])
    (shard,) = tmp_path.glob("*/shard-*")
    file = shard / "vectors.npy"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-5])
    elif damage == "missing":
        file.unlink()
    elif damage == "nan":
        np.save(file, np.full((2, 4), np.nan, np.float32))
    else:
        np.save(file, np.zeros((3, 4), np.float32))
    again = CachedEncoder(network, "x", root=tmp_path)
    assert not shard.exists()
    same(again.encode(["a", "b"]), Counting().encode(["a", "b"]))
    assert again.misses == 2


def test_half_a_shard_that_a_kill_left_is_not_read(network, tmp_path):
    cached = CachedEncoder(network, "x", root=tmp_path)
    cached.encode(["a"])
    (shard,) = tmp_path.glob("*/shard-*")
    shard.rename(shard.with_name(".new-0"))
    assert CachedEncoder(network, "x", root=tmp_path).encode(["a"]).vectors.shape == (1, 4)
    assert network.seen == ["a", "a"]


def test_the_shards_used_longest_ago_go_first(network, tmp_path):
    for name in "abc":
        CachedEncoder(network, name, root=tmp_path).encode(["text"])
    shards = {name: next(CachedEncoder(network, name, root=tmp_path).folder.glob("shard-*")) for name in "abc"}
    for age, name in enumerate("bca"):
        os.utime(shards[name], (time.time() - 100 + age,) * 2)
    size = sum(f.stat().st_size for f in shards["a"].iterdir())
    prune(tmp_path, 2 * size)
    assert [name for name in "abc" if shards[name].exists()] == ["a", "c"]
    CachedEncoder(network, "c", root=tmp_path)  # read: now the newest
    prune(tmp_path, size)
    assert [name for name in "abc" if shards[name].exists()] == ["c"]


def test_a_folder_with_a_shards_name_that_holds_something_else_is_neither_read_nor_removed(network, tmp_path):
    cached = CachedEncoder(network, "x", root=tmp_path)
    (cached.folder / "shard-mine").mkdir(parents=True)
    (cached.folder / "shard-mine" / "thesis.tex").write_text("x")
    (cached.folder / "shard-link").symlink_to(tmp_path)
    CachedEncoder(network, "x", root=tmp_path).encode(["a"])
    prune(tmp_path, 0)
    assert sorted(p.name for p in cached.folder.iterdir()) == ["shard-link", "shard-mine"]
    assert (cached.folder / "shard-mine" / "thesis.tex").read_text() == "x"


def test_what_cannot_be_kept_is_said_and_used_all_the_same(network, tmp_path):
    (tmp_path / "file").write_text("")
    told = []
    cached = CachedEncoder(network, "x", root=tmp_path / "file", warn=told.append)
    same(cached.encode(["a"]), Counting().encode(["a"]))
    assert len(told) == 1
    assert "not kept" in told[0]
    assert "XT_CACHE" in told[0]
    cached.encode(["b"])
    assert len(told) == 1
    same(cached.encode(["a"]), Counting().encode(["a"]))
    assert network.seen == ["a", "b"]


def test_a_folder_removed_meanwhile_takes_nothing_from_what_was_opened(network, tmp_path):
    CachedEncoder(network, "x", root=tmp_path).encode(["a"])
    cached = CachedEncoder(network, "x", root=tmp_path)
    shutil.rmtree(tmp_path)
    same(cached.encode(["a"]), Counting().encode(["a"]))
