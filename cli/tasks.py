"""`xt tasks`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xt.cli.console import DataDir, Json, emit, say, table

if TYPE_CHECKING:
    from xt.core.tasks import Task

TASKS_EPILOG = """Examples:

xt tasks

xt tasks --kind target --json

xt tasks squad-v2 --data-dir data"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("tasks", epilog=TASKS_EPILOG)(tasks)


def tasks(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A task to show in full; without it all are listed.")
    ] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="intermediate or target.")] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """List what can be trained on and evaluated, where it comes from, and its licence."""
    from xt.core.bitext import data_folder
    from xt.core.errors import unknown
    from xt.core.sources import there
    from xt.core.task_table import TASKS
    from xt.core.tasks import KINDS, get

    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    if name is not None:
        task = get(name)
        found = there(task, data_dir) if data_folder(data_dir) else {}
        if json:
            emit({**task.to_json(), "found": found})
        else:
            show_task(task, data_folder(data_dir), found)
        return
    rows = [t for t in TASKS.values() if kind in (None, t.kind)]
    if json:
        emit([t.to_json() for t in rows])
        return
    table(
        "tasks",
        ["task", "kind", "format", "metric", "languages", "train", "licence", "from"],
        [
            [
                t.name,
                t.kind,
                t.format,
                t.metric,
                len(t.codes),
                f"on {t.train_on}" if t.train_on else f"{t.sizes['train']:,}" if "train" in t.sizes else "-",
                t.licence,
                t.hub.id if t.hub else "xt" if t.sample else "-",
            ]
            for t in rows
        ],
    )


def show_task(task: Task, folder: Path | None, found: dict[str, list[str]]) -> None:
    """Print one row of the task table in full, and what of it is in the data folder."""
    shown = {
        "kind": f"{task.kind}, {task.format}, metric {task.metric}",
        "labels": ", ".join(task.labels),
        "languages": f"{task.languages}: {' '.join(task.codes)}",
        "also, from files": " ".join(task.more),
        "sizes": ", ".join(f"{split} {size:,}" for split, size in task.sizes.items()),
        "source": task.source,
        "licence": task.licence,
        "hub": f"{task.hub.id}, {task.hub.config or 'default'}, revision {task.hub.revision}" if task.hub else "",
        "comes with xt": task.file,
        "trained on": task.train_on,
        "and on": ", ".join(task.parts),
        "layout": task.layout,
        **{f"{split} files": ", ".join(patterns) for split, patterns in task.files.items()},
        "note": task.note,
    }
    say(f"{task.name}: {task.title}")
    for key, value in shown.items():
        if value:
            say(f"  {key + ':':15s}{value}")
    if folder is not None and task.files:
        for split in task.files:
            codes = found.get(split, [])
            what = "nothing" if not codes else " ".join(codes) if len(task.codes) > 1 else "there"
            say(f"  {split + ' there:':15s}{what} (in {folder})")
