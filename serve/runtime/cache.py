"""Vectors of texts that were encoded before: bounded by bytes, the least recently used go first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from xt.core.encoder.text import Vectors

ENTRY_BYTES = 420
"""What an entry weighs beside its key's text and its vector: the objects and the dictionary's slot (measured)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One text's answer."""

    vector: Vectors
    """(dim,), read-only."""
    tokens: int
    truncated: bool


class VectorCache:
    """Thread-safe; a hit returns the very bytes that were put in."""

    def __init__(self, max_bytes: int) -> None:
        """Hold at most `max_bytes`; 0 holds nothing."""
        self.max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, Entry] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """What the entries weigh."""
        return self._bytes

    def get(self, keys: Sequence[Hashable]) -> list[Entry | None]:
        """Look up keys: an entry or None for each."""
        if not self.max_bytes:
            return [None] * len(keys)
        found = []
        with self._lock:
            for key in keys:
                entry = self._entries.get(key)
                if entry is not None:
                    self._entries.move_to_end(key)
                found.append(entry)
        return found

    def put(self, items: Iterable[tuple[Hashable, Vectors, int, bool]]) -> None:
        """Keep (key, vector, tokens, truncated) of each; vectors are copied. What is there already stays."""
        if not self.max_bytes:
            return
        with self._lock:
            for key, vector, tokens, truncated in items:
                if key in self._entries:
                    continue
                own = vector.copy()
                own.flags.writeable = False
                self._entries[key] = Entry(own, tokens, truncated)
                self._bytes += weight(key, own)
            while self._bytes > self.max_bytes:
                old, entry = self._entries.popitem(last=False)
                self._bytes -= weight(old, entry.vector)


def weight(key: Hashable, vector: Vectors) -> int:
    """Return the bytes that an entry takes: its key's text or token ids, its vector, and `ENTRY_BYTES`."""
    parts = key if isinstance(key, tuple) else (key,)
    # Python keeps a text with one character beyond Latin-1 in two or four bytes a character
    texts = sum(len(p) if isinstance(p, bytes) else 4 * len(p) for p in parts if isinstance(p, (str, bytes)))
    return texts + vector.nbytes + ENTRY_BYTES
