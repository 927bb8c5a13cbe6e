"""What belongs to a training from start to end: its processes, its device, and who gets its reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xt.train.process_group import ProcessGroup
from xt.train.state import Work

Report = Callable[[str], None]
"""Takes lines that say what happens."""
Progress = Callable[[int, int, dict[str, Any]], None]
"""Called after each step with its number, the steps in all, and {"task", "loss", "tokens_per_second"}."""


def quiet(line: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Run:
    """One training, or one phase of it."""

    device: str
    group: ProcessGroup = field(default_factory=ProcessGroup)
    """The processes that train together."""
    report: Report = quiet
    progress: Progress | None = None
    work: Work | None = None
    """Where states for --resume and the best weights are kept; None: nowhere."""
    logs: Path | None = None
    """Where TensorBoard's events are written; None: `<out>.logs`."""
