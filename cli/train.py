"""`xt train`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from xt.cli.console import Counter, Device, Force, Json, Out, Seed, emit, say, table

EPILOG = """Examples:

xt train --encoder multilingual-e5-small --intermediate sample-nli --intermediate sample-qa --steps 60 --out runs/x

xt train --encoder runs/x --intermediate sample-choice --epochs 2 --sampling uniform --out runs/y"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train", epilog=EPILOG)(train)


def train(
    encoder: Annotated[str, typer.Option("--encoder", help="A checkpoint folder, a short name or a hub id.")],
    intermediate: Annotated[
        list[str],
        typer.Option("--intermediate", help="A task to train on (see `xt tasks`); repeat for several at once."),
    ],
    out: Out,
    steps: Annotated[int | None, typer.Option("--steps", help="Batches to train on; instead of --epochs.")] = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over all examples.  [default: 1]")] = None,
    batch: Annotated[int, typer.Option("--batch", help="Examples a step, all of one task.")] = 16,
    learning_rate: Annotated[float, typer.Option("--lr", help="Highest learning rate of the encoder.")] = 2e-5,
    head_learning_rate: Annotated[float, typer.Option("--head-lr", help="Highest learning rate of the heads.")] = 4e-4,
    max_length: Annotated[int, typer.Option("--max-length", help="Longest input in tokens.")] = 256,
    sampling: Annotated[
        str, typer.Option("--sampling", help="How often each task comes: proportional, capped, temperature, uniform.")
    ] = "proportional",
    cap: Annotated[int, typer.Option("--cap", help="Examples from which on a task counts no more (capped).")] = 131072,
    sampling_temperature: Annotated[
        float, typer.Option("--sampling-temperature", help="1 is proportional, large is uniform (temperature).")
    ] = 2.0,
    warmup: Annotated[float, typer.Option("--warmup", help="Share of the steps over which learning rates rise.")] = 0.1,
    weight_decay: Annotated[float, typer.Option("--weight-decay", help="AdamW's decay of matrices.")] = 0.01,
    freeze_embeddings: Annotated[
        bool, typer.Option("--freeze-embeddings/--train-embeddings", help="Keep the word embeddings as they are.")
    ] = True,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    json: Json = False,
) -> None:
    """Fine-tune an encoder on one or many English intermediate tasks at once."""
    from xt.core.artifact import open_artifact
    from xt.train.config import TrainConfig
    from xt.train.loop import train as run_training

    config = TrainConfig(
        encoder=encoder,
        intermediate=tuple(intermediate),
        out=out,
        steps=steps,
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        head_learning_rate=head_learning_rate,
        max_length=max_length,
        sampling=sampling,
        cap=cap,
        sampling_temperature=sampling_temperature,
        warmup=warmup,
        weight_decay=weight_decay,
        freeze_embeddings=freeze_embeddings,
        seed=seed,
        device=device,
        force=force,
    )
    counter = Counter("steps")
    path = run_training(config, report=say, progress=lambda done, total, facts: counter(done, total, facts["task"]))
    artifact = open_artifact(path, kind="checkpoint")
    show(artifact.facts["training"])
    say(f"wrote {path}; next: xt export {path} --out repository")
    if json:
        emit({"path": str(path), "hash": artifact.hash, "training": artifact.facts["training"]})


def show(training: dict[str, Any]) -> None:
    """Print the dev metrics before and after."""
    rows = [
        [t["task"], t["train"], t["dev"], t["metric"], t["majority"], t["before"], t["after"]]
        for t in training["tasks"]
    ]
    speed = f"{training['seconds']:.0f} s, {training['tokens_per_second']:.0f} tokens/s"
    title = f"dev metrics; {training['steps']} steps, {speed}"
    table(title, ["task", "train", "dev", "metric", "majority", "before", "after"], rows)
