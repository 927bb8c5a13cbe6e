"""The processes of one training: one alone, or those that torchrun or accelerate started."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class ProcessGroup:
    """Which process this is, of how many."""

    rank: int = 0
    size: int = 1
    state: Any = None

    @classmethod
    def join(cls, device: str) -> ProcessGroup:
        """Join the processes that the environment names (RANK, WORLD_SIZE, ...); a group of one without them."""
        state = PartialState(cpu=device == "cpu")
        return cls(int(state.process_index), int(state.num_processes), state)

    @property
    def main(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all are here."""
        if self.size > 1:
            self.state.wait_for_everyone()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process go through first, so that the others find what it made."""
        if not self.main:
            self.wait()
        try:
            yield
        finally:  # where the main process fails, the others are not left waiting: they fail the same way
            if self.main:
                self.wait()

    def from_main(self, value: T) -> T:
        """Return what the main process has, on every process."""
        if self.size == 1:
            return value
        holder = [value]
        torch.distributed.broadcast_object_list(holder, src=0)
        return holder[0]

    def sum(self, value: float, device: torch.device) -> float:
        """Add up a number over all processes."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
        torch.distributed.all_reduce(total)
        return float(total)

    def gather(self, rows: Tensor) -> list[Tensor]:
        """Return the rows (n, ...) of all processes, on each, by their ranks; n may differ between them."""
        if self.size == 1:
            return [rows]
        counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(self.size)]
        torch.distributed.all_gather(counts, torch.tensor([len(rows)], dtype=torch.int64, device=rows.device))
        most = max(int(count) for count in counts)
        padded = torch.zeros((most, *rows.shape[1:]), dtype=rows.dtype, device=rows.device)
        padded[: len(rows)] = rows
        found = [torch.zeros_like(padded) for _ in range(self.size)]
        torch.distributed.all_gather(found, padded)
        return [piece[: int(count)] for piece, count in zip(found, counts, strict=True)]
