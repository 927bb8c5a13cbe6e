"""The head of every report: what was run, when, by which command, on which machine, in which languages."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from xt.core import __version__, languages
from xt.core.errors import XtError
from xt.core.files.artifact import command_line
from xt.core.machine.facts import machine_facts
from xt.core.results.records import plain
from xt.core.results.report import Report


def describe_run(title: str, task: dict[str, Any], codes: Sequence[str], **sections: Any) -> Report:
    """Put a report together: what was run, on what and where, the languages by name, then the sections."""
    known = {}
    for code in codes:
        try:
            row = languages.resolve(code)
        except XtError:
            continue
        known[code] = {k: getattr(row, k) for k in ("name", "resource", "script", "family", "joshi")}
    facts = {
        "title": title,
        "created": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "command": command_line(),
        "xt_version": __version__,
        "machine": machine_facts(),
        "task": task,
        "languages": known,
    }
    return Report.from_json(plain({**facts, **sections}))
