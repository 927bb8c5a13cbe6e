"""A log of bounded size for what a child process prints: head and tail are kept, what lies between is counted."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

HEAD_BYTES = 2 * 2**20
"""What was printed first stays: it says what was loaded, and how."""
TAIL_BYTES = 4 * 2**20
"""Of what was printed last at least as much stays, and at most twice as much."""
LINE_BYTES = 16 * 2**10
"""Longer lines are broken."""
READ_BYTES = 2**16
PIPE_BYTES = 2**20
"""Of the pipe: while this process is stopped (Ctrl-Z, say) the child can go on printing so much."""


class BoundedLog:
    """Writes `file`, then beside it `file.1` and `file.2` in turn; at most HEAD_BYTES + 2 TAIL_BYTES on the disk.

    A full disk ends no server: what cannot be written is dropped and counted too.
    """

    def __init__(self, file: Path, *, head_bytes: int = HEAD_BYTES, tail_bytes: int = TAIL_BYTES) -> None:
        self.file = file
        self.head_bytes, self.tail_bytes = head_bytes, tail_bytes
        self.dropped_bytes = self.dropped_lines = 0
        """What is kept nowhere any more."""
        self.written_bytes = 0
        """All that was ever written."""
        self._tail, self._old = file.with_name(f"{file.name}.2"), file.with_name(f"{file.name}.1")
        self._lock = threading.Lock()
        self._head_size = self._tail_size = self._tail_lines = self._old_size = self._old_lines = 0
        self._head_full = False
        self._last, self._again = b"", 0

    def write(self, data: bytes) -> None:
        """Append whole lines."""
        with self._lock:
            self.written_bytes += len(data)
            data = self._without_repeats(data)
            if not data:
                return
            if not self._head_full:
                room = self.head_bytes - self._head_size
                cut = len(data) if len(data) <= room else data.rfind(b"\n", 0, max(room, 0)) + 1
                self._append(self.file, data[:cut])
                self._head_size += cut
                data = data[cut:]
                self._head_full = bool(data)
            if data:
                self._write_tail(data)

    def _without_repeats(self, data: bytes) -> bytes:
        """Return the lines that are not the one before them again, and how often that came."""
        kept = []
        for line in data.splitlines(keepends=True):
            if line == self._last:
                self._again += 1
                continue
            if self._again:
                kept.append(b"[the line above came %d times more]\n" % self._again)
            kept.append(line)
            self._last, self._again = line, 0
        return b"".join(kept)

    def _write_tail(self, data: bytes) -> None:
        lines = data.count(b"\n")
        if self._tail_size and self._tail_size + len(data) > self.tail_bytes:
            self.dropped_bytes += self._old_size
            self.dropped_lines += self._old_lines
            try:
                self._tail.replace(self._old)
            except OSError:
                pass
            self._old_size, self._old_lines = self._tail_size, self._tail_lines
            self._tail_size = self._tail_lines = 0
        if self._append(self._tail, data):
            self._tail_size += len(data)
            self._tail_lines += lines

    def _append(self, file: Path, data: bytes) -> bool:
        try:
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600), "ab") as out:
                out.write(data)
        except OSError:
            self.dropped_bytes += len(data)
            self.dropped_lines += data.count(b"\n")
            return False
        return True

    def text(self) -> str:
        """Return what is kept, with a line that says how much is missing where something is."""
        with self._lock:
            parts = [_read(self.file)]
            if self.dropped_bytes:
                parts.append(f"[{self.dropped_lines} lines, {self.dropped_bytes} bytes were dropped here]\n")
            parts += [_read(self._old), _read(self._tail)]
            if self._again:
                parts.append(f"[the line above came {self._again} times more]\n")
        return "".join(parts)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def follow(pipe: BinaryIO, log: BoundedLog, report: Callable[[str], None] | None = None) -> threading.Thread:
    """Start a thread that writes to `log` what comes through `pipe` until its end.

    `report` is called with each line too.
    """
    try:
        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:  # this user's share of pipe memory is used up
        pass

    def read() -> None:
        rest = b""
        while data := os.read(pipe.fileno(), READ_BYTES):
            lines, newline, rest = (rest + data).rpartition(b"\n")
            if len(rest) > LINE_BYTES:  # no end in sight
                lines, newline, rest = lines + newline + rest, b"\n", b""
            whole = lines + newline
            if whole:
                log.write(whole)
                if report is not None:
                    for line in whole.decode("utf-8", errors="replace").splitlines():
                        report(line)
        if rest:
            log.write(rest + b"\n")
            if report is not None:
                report(rest.decode("utf-8", errors="replace"))
        pipe.close()

    thread = threading.Thread(target=read, name="xt-log", daemon=True)
    thread.start()
    return thread
