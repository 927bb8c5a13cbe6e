"""How work that takes a while tells of itself: lines of text, and a counter for each of its loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Say = Callable[[str], None]
"""Takes a line."""
Progress = Callable[[int, int, str], None]
"""Takes how many are done, of how many, and a word on the one at hand."""


def _unheard(line: str) -> None:
    pass


def _uncounted(what: str) -> Progress:
    return lambda done, total, detail: None


@dataclass(frozen=True)
class Reporter:
    """Takes what work tells of itself; the default takes no notice."""

    say: Say = _unheard
    counter: Callable[[str], Progress] = _uncounted
    """Makes the counter of a loop, by the name of what it counts."""

    def indented(self, indent: str = "    ") -> Reporter:
        """Return a reporter whose lines and counters stand below those of this one."""
        return Reporter(lambda line: self.say(indent + line), lambda what: self.counter(indent + what))
