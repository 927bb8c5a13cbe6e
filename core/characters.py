"""Unicode of texts: their composed form (NFC), where its characters stood in the original, and what counts as empty.

Encoders' tokenizers know composed characters alone: of Korean in decomposed letters (NFD, as macOS names files) they
read next to nothing. So every text is composed in the one place where it is tokenised (`xt.core.encoder.text.Pieces`).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

LONGEST_RUN = 64
"""Joining characters in a row that are composed; Unicode's stream-safe format allows 30. A longer run is no writing,
and putting one in order takes the square of its length, so it stays as it is."""
SLICE = 512
"""Characters of a text that are looked at together."""
JOINING_BELOW = 0x20000
"""No character from here on joins one before it."""
BLANK_CATEGORIES = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
"""Control and format characters, spaces and ends of lines."""
BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\u2800\ufffc\ufffd")
"""Characters of other categories that show nothing of a text: those that Unicode has rendered as nothing (default
ignorable), the blank Braille pattern, and what stands for a lost character or an object."""
BLANK_RANGES = ((0x180B, 0x180F), (0xFE00, 0xFE0F), (0xFDD0, 0xFDEF), (0xE0100, 0xE01EF))
"""Variation selectors, and code points that are no characters."""


@lru_cache(maxsize=1)
def joining() -> frozenset[str]:
    """Return the characters that may compose or change places with one before them."""
    found = set()
    for code in range(0x300, JOINING_BELOW):
        character = chr(code)
        apart = unicodedata.normalize("NFD", character)
        if unicodedata.combining(character) or unicodedata.combining(apart[0]):
            found.add(character)
        elif apart != character and not "\uac00" <= character <= "\ud7a3":
            kind, *rest = unicodedata.decomposition(character).split()
            if len(rest) == 1 and not kind.startswith("<"):
                found.add(chr(int(rest[0], 16)))
    for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)):  # Hangul: second and third letters of a syllable
        found.add(chr(code))
    return frozenset(found)


@lru_cache(maxsize=1)
def _long_runs() -> re.Pattern[str]:
    return re.compile("([" + re.escape("".join(sorted(joining()))) + f"]{{{LONGEST_RUN + 1},}})")


def compose(text: str) -> str:
    r"""Return `text` composed (NFC); runs of more than `LONGEST_RUN` joining characters stay as they are.

    >>> compose("Cafe\u0301"), len(compose("\u1112\u1161\u11ab"))
    ('Café', 1)
    """
    if len(text) <= LONGEST_RUN or text.isascii():
        return unicodedata.normalize("NFC", text)
    if _is_composed(text):
        return text
    parts = _long_runs().split(text)  # runs stand at the odd places
    return "".join(part if at % 2 else unicodedata.normalize("NFC", part) for at, part in enumerate(parts))


def _is_composed(text: str) -> bool:
    """Return whether the text is composed for certain, in time that grows with its length alone."""
    start = 0
    while start < len(text):
        end = start + SLICE
        if end < len(text):
            marks = joining()
            end = next((at for at in range(end, min(end + LONGEST_RUN, len(text))) if text[at] not in marks), -1)
            if end < 0:
                return False
        if not unicodedata.is_normalized("NFC", text[start:end]):
            return False
        start = end
    return True


@dataclass(frozen=True)
class Composed:
    """A composed text, and where each of its characters stood in the original."""

    text: str
    starts: npt.NDArray[np.int64]
    """(characters of `text`,) first character of the original that each was made of."""
    ends: npt.NDArray[np.int64]
    """(characters of `text`,) the one after the last."""

    def original(self, start: int, end: int) -> tuple[int, int]:
        r"""Return where the characters start..end (end excluded) of `text` stood in the original.

        Combining marks belong to the character that they were composed with. An empty range gives an empty one.

        >>> place("cafe\u0301s").original(3, 4)
        (3, 5)
        """
        if start >= end:
            at = int(self.starts[start]) if start < len(self.starts) else int(self.ends[-1]) if len(self.ends) else 0
            return at, at
        return int(self.starts[start]), int(self.ends[end - 1])


def place(text: str) -> Composed | None:
    """Return the composed form of `text` with the places of its characters; None when it is composed already."""
    composed = compose(text)
    if composed == text:
        return None
    marks = joining()
    parts: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    start = 0
    for end in (*(at for at in range(1, len(text)) if text[at] not in marks), len(text)):
        old = text[start:end]
        new = old if end - start - (old[0] not in marks) > LONGEST_RUN else unicodedata.normalize("NFC", old)
        if new == old:
            starts += range(start, end)
            ends += range(start + 1, end + 1)
        else:
            starts += [start] * len(new)
            ends += [end] * len(new)
        parts.append(new)
        start = end
    assert "".join(parts) == composed
    return Composed(composed, np.array(starts, np.int64), np.array(ends, np.int64))


def is_blank(character: str) -> bool:
    """Return whether a character shows nothing: see `is_empty`."""
    if unicodedata.category(character) in BLANK_CATEGORIES or character in BLANKS:
        return True
    code = ord(character)
    return code & 0xFFFE == 0xFFFE or any(first <= code <= last for first, last in BLANK_RANGES)


def is_empty(text: str) -> bool:
    r"""Return whether a text is nothing but white space, control, format and lost (U+FFFD) characters.

    Also empty: variation selectors, fillers, the blank Braille pattern, code points that are no characters. Letters,
    digits, marks, punctuation, symbols, emoji, private and unassigned characters are text, whatever is between them.

    >>> is_empty("\u200b\ufeff \ufffd"), is_empty("\U0001f469\u200d\U0001f680"), is_empty("?")
    (True, False, False)
    """
    for character in text[:8]:
        if not is_blank(character):
            return False
    return all(map(is_blank, set(text[8:])))
