"""Texts are composed as Unicode says, in time that grows with their length; places lead back; nothing readable is empty."""

from __future__ import annotations

import random
import sys
import time
import unicodedata

import pytest

from xt.core.characters import LONGEST_RUN, compose, is_empty, joining, place

ALPHABET = (
    "aàeqé \u0301\u0323\u0327\u0f71\u0f72\u0f73\u0344\u0958\u093c\u0915\u1112\u1161\u11ab한\u0b92\u0bd7\u09c7\u09be"
    "\U000110a5\U000110ba\ufb2c\u05bc\u05c1\U0001d15e\u212b\u2126"
)


def test_every_character_that_joins_one_before_it_is_known():
    expected = set()
    for code in (*range(0xD800), *range(0xE000, sys.maxunicode + 1)):
        character = chr(code)
        parts = unicodedata.decomposition(character).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            expected.add(chr(int(parts[1], 16)))
        if unicodedata.combining(character) or unicodedata.combining(unicodedata.normalize("NFD", character)[0]):
            expected.add(character)
    vowels_and_finals = {chr(c) for c in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    assert joining() == expected | vowels_and_finals


def test_composed_is_what_unicode_says_and_places_lead_back():
    drawn = random.Random(0)
    for number in range(6000):
        length = drawn.choice((70, 700)) if number % 100 == 0 else drawn.randint(1, 12)
        text = "".join(drawn.choice(ALPHABET) for _ in range(length))
        expected = unicodedata.normalize("NFC", text)
        assert compose(text) == expected
        placed = place(text)
        if placed is None:
            assert text == expected
            continue
        assert placed.text == expected
        assert placed.original(0, len(expected)) == (0, len(text))
        for at in range(len(expected)):
            first, last = placed.original(at, at + 1)
            assert compose(text[first:last]).find(expected[at]) >= 0


@pytest.mark.parametrize(
    ("text", "at", "there"),
    [
        ("Viê\u0323t Nam", (2, 3), "ê\u0323"),
        ("\u1112\u1161\u11ab\u1100\u1173\u11af", (1, 2), "\u1100\u1173\u11af"),
        ("\u0958\u0932\u092e", (0, 2), "\u0958"),  # composed, this letter of Hindi is two characters
        ("a\u0327\u0323z", (1, 2), "a\u0327\u0323"),  # marks that change places belong to the letter together
        ("cafe\u0301", (3, 3), ""),
    ],
)
def test_the_places_of_characters_by_hand(text, at, there):
    first, last = place(text).original(*at)
    assert text[first:last] == there


def test_runs_of_marks_that_no_writing_has_take_no_time():
    start = time.perf_counter()
    for run in ("\u0301" * 200_000 + "\u0323" * 200_000, "\u0301\u0323" * 200_000):  # minutes by the standard library
        text = f"cafe\u0301 a{run} e\u0301"
        assert compose(text) == f"café a{run} é"
    assert time.perf_counter() - start < 5
    short = "\u0301\u0323" * (LONGEST_RUN // 2)
    assert compose(f"xx a{short}") == unicodedata.normalize("NFC", f"xx a{short}")
    assert compose(compose(f"a{run}")) == compose(f"a{run}")


EMPTY = {
    "white space": " \t\n\u00a0\u2003\u3000\u2028\u2029\u1680",
    "control": "\x01\x07\x1b\x7f\x85\x9f",
    "format": "\u200b\u200c\u200d\u200e\u200f\u202a\u2060\u2066\ufeff\u00ad\u061c\U000e0041",
    "lost": "\ufffd\ufffc",
    "selectors": "\ufe0f\ufe0e\U000e0100\u180b",
    "fillers": "\u3164\uffa0\u115f\u1160\u034f\u2800",
    "no characters": "\ufffe\uffff\U0001ffff\ufdd0",
}


@pytest.mark.parametrize("kind", EMPTY)
def test_what_shows_nothing_is_empty_alone_and_mixed(kind):
    assert is_empty(EMPTY[kind])
    assert all(map(is_empty, EMPTY[kind]))
    assert is_empty("".join(EMPTY.values()) * 100)
    assert not is_empty("".join(EMPTY.values()) * 100 + "a")


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخواهم",
        "\u200fשלום",
        "👩\u200d👩\u200d👧",
        "❤\ufe0f",
        "1\ufe0f\u20e3",
        "🏴\U000e0067\U000e0062\U000e007f",
        "क\u094d\u200dष",
        "?",
        "…",
        "7",
        "\u0e34",  # a mark alone
        "\ue000",  # private use: fonts for writing that Unicode lacks
        "\U0001fae9",  # newer than this Python, perhaps
        "⠓",
        "ㅎ",
        "¤",
    ],
)
def test_what_people_write_is_not_empty(text):
    assert not is_empty(text)
    assert not is_empty("\ufeff" + text)
