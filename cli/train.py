"""`xt train`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from xt.cli.console import Counter, emit, say, table
from xt.cli.settings import Given, with_flags
from xt.core.results.work import Training
from xt.core.settings import Flag, Json
from xt.train.config import TrainConfig

EPILOG = """Examples:

xt train --encoder multilingual-e5-small --intermediate sample-nli --intermediate sample-qa --steps 60 --out runs/x

xt train --encoder runs/x --target sib200 --data-dir data --epochs 3 --evaluate-every 50 --out runs/sib200

xt train --encoder xlm-roberta-base --intermediate pair:my-pairs.tsv --mlm corpus.txt --lora-rank 16 --out runs/y

xt train --recipe paper-small --data-dir data --out runs/paper-small

torchrun --nproc-per-node 4 -m xt.cli.main train --recipe paper --precision bf16 --out runs/paper"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train", epilog=EPILOG)(train)


@with_flags
def train(
    given: Annotated[dict[str, Any], Given(TrainConfig, required=("out",))],
    recipe: Annotated[str | None, Flag("A YAML file, or a shipped one by name: paper, paper-small.")] = None,
    json: Json = False,
) -> None:
    """Fine-tune an encoder on one or many English intermediate tasks at once, then on a target task or none."""
    from xt.train.recipes import resolve_recipe
    from xt.train.recipes import show as show_settings

    config = resolve_recipe(recipe, given)
    if recipe:
        say(f"recipe {recipe} resolved to:\n{show_settings(config.to_json())}")
    from xt.train.loop import train as run_training  # seconds to import: only once the settings are right

    counter = Counter("steps")
    path = run_training(config, report=say, progress=lambda done, total, facts: counter(done, total, note(facts)))
    if int(os.environ.get("RANK", "0")):  # of several processes the first reports
        return
    from xt.core.files.artifact import open_artifact

    artifact = open_artifact(path, kind="checkpoint")
    show(Training.from_json(artifact.facts["training"]))
    say(f"report: {path / 'training.html'}")
    heads = artifact.facts["heads"]
    say(f"wrote {path}; next: {next_command(path, heads[0] if config.target else None)}")
    if json:
        emit({"path": str(path), "hash": artifact.hash, "training": artifact.facts["training"]})


def next_command(path: Path, target: str | None) -> str:
    """Return the command that serves what was trained: the target's head, else the encoder.

    >>> next_command(Path("runs/x"), "intents"), next_command(Path("my runs/x"), None)
    ('xt export runs/x --task intents --out repository', "xt export 'my runs/x' --out repository")
    """
    head = ["--task", target] if target else []
    return shlex.join(["xt", "export", str(path), *head, "--out", "repository"])


def note(facts: dict[str, Any]) -> str:
    """Return what a progress line says of the step.

    >>> note({"task": "sick", "loss": 0.98123, "tokens_per_second": 1234.5})
    'sick loss 0.981, 1234 tokens/s'
    """
    return f"{facts['task']} loss {facts['loss']:.3f}, {facts['tokens_per_second']:.0f} tokens/s"


def show(training: Training) -> None:
    """Print the dev metrics."""
    rows = [
        [t.task, t.train, t.dev, t.metric, t.majority, "-" if t.before is None else t.before, t.after]
        for t in training.tasks
    ]
    speed = f"{training.seconds or 0:.0f} s, {training.tokens_per_second or 0:.0f} tokens/s"
    title = f"dev metrics; {training.steps} steps, {speed}"
    table(title, ["task", "train", "dev", "metric", "baseline", "before", "after"], rows)
