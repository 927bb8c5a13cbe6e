"""The task table: the rows of tasks.yaml, which lies beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from xt.core import languages
from xt.core.data.tasks import Task

FILE = Path(__file__).with_name("tasks.yaml")


def _codes(text: str) -> list[str]:
    """Return the languages of a list of codes as `xt.core.languages` names them."""
    return [languages.resolve(code).iso3 for code in text.split()]


def _task(row: dict[str, Any]) -> Task:
    codes: dict[str, Any] = {name: _codes(row[name]) for name in ("codes", "more") if name in row}
    return Task.from_json({"labels": (), **row, **codes})


TASKS: dict[str, Task] = {row["name"]: _task(row) for row in yaml.safe_load(FILE.read_text(encoding="utf-8"))["tasks"]}
"""Every task by its name."""
