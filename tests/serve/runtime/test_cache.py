"""The vector cache: what it gives back, what it forgets, and how much memory it takes."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest

from xt.core.errors import XtError
from xt.serve.client.packed import pack, unpack
from xt.serve.runtime.cache import VectorCache, weight


def vector(seed, dim=384):
    return np.random.default_rng(seed).normal(size=dim).astype(np.float32)


def key(i):
    return ("query: ", f"text number {i}", False)


def test_a_hit_is_equal_bit_for_bit_and_cannot_be_changed():
    cache = VectorCache(10**6)
    given = vector(1)
    before = given.tobytes()
    cache.put([(key(1), given, 7, True)])
    given[:] = 0  # the caller's array is his own
    (entry,) = cache.get([key(1)])
    assert entry.vector.tobytes() == before
    assert (entry.tokens, entry.truncated) == (7, True)
    with pytest.raises(ValueError, match="read-only"):
        entry.vector[0] = 1


def test_prefix_text_and_truncation_are_all_told_apart():
    cache = VectorCache(10**6)
    keys = [("query: ", "a", False), ("query: ", "a", True), ("passage: ", "a", False), ("", "query: a", False)]
    cache.put([(k, vector(i), i, False) for i, k in enumerate(keys)])
    assert [entry.tokens for entry in cache.get(keys)] == [0, 1, 2, 3]
    assert cache.get([("", "a", False)]) == [None]


def test_the_least_recently_used_go_first():
    one = weight(key(1), vector(1))
    cache = VectorCache(3 * one)
    cache.put([(key(i), vector(i), i, False) for i in (1, 2, 3)])
    cache.get([key(1)])
    cache.put([(key(4), vector(4), 4, False)])
    assert [entry and entry.tokens for entry in cache.get([key(i) for i in (1, 2, 3, 4)])] == [1, None, 3, 4]


def test_memory_stays_within_the_bound_by_independent_count():
    most = 2_000_000
    cache = VectorCache(most)
    tracemalloc.start()
    for i in range(5000):
        cache.put([(key(i), vector(i), i, False)])
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert cache.bytes <= most
    assert 0.8 * most < used < 1.05 * most
    assert 500 < len(cache) < 5000


def test_a_vector_larger_than_the_cache_is_not_kept():
    cache = VectorCache(100)
    cache.put([(key(1), vector(1), 1, False)])
    assert (len(cache), cache.bytes) == (0, 0)


def test_size_zero_keeps_nothing():
    cache = VectorCache(0)
    cache.put([(key(1), vector(1), 1, False)])
    assert cache.get([key(1)]) == [None]
    assert len(cache) == 0


def test_threads_may_share_it():
    cache = VectorCache(400 * weight(key(100), vector(1)))
    wrong = []

    def use(seed):
        random = np.random.default_rng(seed)
        for i in random.integers(0, 1000, 2000):
            (entry,) = cache.get([key(i)])
            if entry is not None and entry.tokens != i:
                wrong.append(i)
            cache.put([(key(i), np.full(384, i, np.float32), int(i), False)])

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.bytes == sum(weight(k, e.vector) for k, e in cache._entries.items()) <= cache.max_bytes


TEXTS = ["a", "", "habari za asubuhi", "日本語", "\U0001f600 x", "a\0b"]


def test_a_packed_blob_is_laid_out_as_documented_and_read_back():
    blob = pack(["é", "abc"])
    assert blob.tobytes() == b"\x02\0\0\0" + b"\x02\0\0\0" + b"\x03\0\0\0" + "éabc".encode()
    assert unpack(pack(TEXTS)) == TEXTS


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "packed has 0 bytes; it starts with a count of 4"),
        (b"\0\0\0\0", "packed has 0 texts; a request takes 1 to 8"),
        (b"\x09\0\0\0" + b"\0" * 36, "packed has 9 texts; a request takes 1 to 8"),
        (b"\xff\xff\xff\xff", "packed has 4294967295 texts"),
        (b"\x02\0\0\0" + b"\x01\0\0\0", "the lengths of 2 texts alone need 12"),
        (b"\x01\0\0\0" + b"\x05\0\0\0" + b"abc", "has 11 bytes; its 1 lengths add up to 13"),
        (b"\x01\0\0\0" + b"\x01\0\0\0" + b"abc", "has 11 bytes; its 1 lengths add up to 9"),
        (b"\x02\0\0\0" + b"\xff\xff\xff\xff" * 2 + b"ab", "add up to 8589934602"),
        (b"\x02\0\0\0" + b"\x01\0\0\0\x02\0\0\0" + b"a\xff\xfe", "packed 1 is not valid UTF-8: invalid start byte"),
        (b"\x02\0\0\0" + b"\x01\0\0\0\x01\0\0\0" + "é".encode(), "packed 0 is not valid UTF-8"),
    ],
)
def test_a_blob_that_is_not_packed_texts_says_what_is_wrong(raw, message):
    with pytest.raises(XtError, match=message):
        unpack(np.frombuffer(raw, np.uint8), max_texts=8)
