"""`xt tasks`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xt.cli.console import emit, say, table
from xt.cli.settings import with_flags
from xt.core.settings import DataDir, Json

if TYPE_CHECKING:
    from xt.core.data.tasks import Task

TASKS_EPILOG = """Examples:

xt tasks

xt tasks --kind target --json

xt tasks squad-v2 --data-dir data

xt tasks single:intents.csv --encoder multilingual-e5-small"""
MAX_LENGTH = 256
"""Tokens that `xt train` reads of an input by default."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("tasks", epilog=TASKS_EPILOG)(tasks)


@with_flags
def tasks(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A task to show in full, or FORMAT:PATH, your own data to check; without it all tasks are listed.",
        ),
    ] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="intermediate or target.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder",
            help="FORMAT:PATH: whose tokenizer counts the tokens. Default: that of the bundled multilingual-e5-small.",
        ),
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """List what can be trained on and evaluated, where it comes from, and its licence; or check your own data.

    Your own data (FORMAT:PATH) are read as a training would read them: examples, labels, languages and lengths in
    tokens of each split, rows that cannot be used, and what is odd. Exit code 3 where a training would refuse them.
    """
    if name is not None and ":" in name:
        check(name, encoder, json)
        return
    if encoder is not None:
        raise typer.BadParameter("--encoder goes with FORMAT:PATH")
    from xt.core.data.bitext import data_folder
    from xt.core.data.sources import there
    from xt.core.data.task_table import TASKS
    from xt.core.data.tasks import KINDS, get
    from xt.core.errors import unknown

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


def check(spec: str, encoder: str | None, json: bool) -> None:
    """Check a user's own data and print what was found; CheckFailed where a training would refuse them."""
    from xt.core.data.own_data import check_named, refuse_own

    found = check_named(spec, encoder, max_length=MAX_LENGTH, say=say)
    show_own(found)
    if json:
        emit(found)
    refuse_own(spec, found)


def show_own(found: dict[str, Any]) -> None:
    """Print what a user's own data hold."""
    from xt.core.data.examples import counts

    say(f"{found['task']}: {found['format']}, metric {found['metric']}, {found['source']}")
    rows = []
    for split, part in found["splits"].items():
        tokens = part["tokens"] or {}
        shown = [f"{tokens[key]:g}" if key in tokens else "-" for key in ("median", "p95", "max")]
        longer = ", ".join(f"{v} > {k.removeprefix('longer_than_')}" for k, v in tokens.items() if "longer" in k)
        rows.append([split, part["examples"], len(part["labels"]) or "-", *shown, longer or "-"])
    counted = f"tokens by {found['encoder']}" if found["encoder"] else "without a tokenizer"
    table(f"examples; {counted}", ["split", "examples", "labels", "median", "p95", "longest", "longer"], rows)
    for split, part in found["splits"].items():
        if part["labels"]:
            say(f"{split} labels: {counts(part['labels'])}")
        say(f"{split} languages: {counts(part['languages']) or 'none'}" + f"; {part['note']}" * bool(part["note"]))
    if found["unlabelled"]:
        say(f"{found['unlabelled']} rows have no label and are left out")
    if found["unusable"]:
        say(f"{found['unusable']} rows cannot be used; the first:")
        for line in found["first_unusable"][:10]:
            say(f"  {line}")
    if found["languages_unknown"]:
        say(f"languages that xt does not know, used as named: {counts(found['languages_unknown'])}")
    for note in found["warnings"]:
        say(f"warning: {note}")
    if not found["problems"] and not found["warnings"] and not found["unusable"]:
        say("nothing is odd")


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
