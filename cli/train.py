"""`xt train`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from xt.cli.console import Counter, DataDir, Force, Json, Out, emit, say, table

EPILOG = """Examples:

xt train --encoder multilingual-e5-small --intermediate sample-nli --intermediate sample-qa --steps 60 --out runs/x

xt train --encoder runs/x --target sib200 --data-dir data --epochs 3 --evaluate-every 50 --out runs/sib200

xt train --encoder xlm-roberta-base --intermediate pair:my-pairs.tsv --mlm corpus.txt --lora-rank 16 --out runs/y

xt train --recipe paper-small --data-dir data --out runs/paper-small

torchrun --nproc-per-node 4 -m xt.cli.main train --recipe paper --precision bf16 --out runs/paper"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train", epilog=EPILOG)(train)


def paths_by_task(values: list[str] | None, option: str) -> dict[str, list[str]]:
    """Read TASK=PATH, given once or more, into the paths of each task."""
    found: dict[str, list[str]] = {}
    for value in values or []:
        name, equals, path = value.rpartition("=")
        if not equals or not name or not path:
            raise typer.BadParameter(f"{value!r} is not TASK=PATH", param_hint=option)
        found.setdefault(name, []).append(path)
    return found


def train(
    out: Out,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="A checkpoint folder, a short name or a hub id.")
    ] = None,
    intermediate: Annotated[
        list[str] | None,
        typer.Option(
            "--intermediate", help="A task to train on (see `xt tasks`), or FORMAT:PATH; repeat for several at once."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", help="A task, or FORMAT:PATH, to train on afterwards, alone, with a new head."),
    ] = None,
    mlm: Annotated[
        list[str] | None,
        typer.Option("--mlm", help="PATH (or mlm:PATH) of texts for masked language modelling; repeatable."),
    ] = None,
    contrastive: Annotated[
        list[str] | None,
        typer.Option(
            "--contrastive",
            help="A pair task whose positive pairs to train on, PATH or contrastive:PATH of anchors and positives, or "
            "pair:PATH with --positive-label.",
        ),
    ] = None,
    positive_label: Annotated[
        str | None,
        typer.Option("--positive-label", help="--contrastive pair:PATH: the label of pairs that belong together."),
    ] = None,
    negative_label: Annotated[
        str | None,
        typer.Option("--negative-label", help="--contrastive pair:PATH: the label of pairs that are hard negatives."),
    ] = None,
    image_text: Annotated[
        list[str] | None,
        typer.Option(
            "--image-text", help="PATH (or image-text:PATH): folder of image vectors and captions (see `xt images`)."
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="A YAML file, or a shipped one by name: paper, paper-small.")
    ] = None,
    data_dir: DataDir = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", help="TASK=PATH: a file or folder of the task's data; repeatable.")
    ] = None,
    translated: Annotated[
        list[str] | None,
        typer.Option("--translated", help="TASK=PATH: further training data for the same head, translations say."),
    ] = None,
    languages: Annotated[
        str | None,
        typer.Option(
            "--languages",
            help="Languages of your own files (column language), as in eng,deu.  [default: all; of images English]",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Training examples of a task at most.")] = None,
    dev_limit: Annotated[
        int | None, typer.Option("--dev-limit", help="Dev examples of a task at most.  [default: 1000]")
    ] = None,
    allow_unusable: Annotated[
        float | None, typer.Option("--allow-unusable", help="Share of rows that may be unusable.  [default: 0.01]")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Batches to train on; instead of --epochs.")] = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over all examples.  [default: 1]")] = None,
    target_steps: Annotated[
        int | None, typer.Option("--target-steps", help="The same for the target.  [default: as --steps]")
    ] = None,
    target_epochs: Annotated[
        float | None, typer.Option("--target-epochs", help="The same for the target.  [default: as --epochs]")
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", help="Examples a step, all of one task, over all processes.  [default: 16]")
    ] = None,
    micro_tokens: Annotated[
        int | None,
        typer.Option("--micro-tokens", help="Tokens of one pass, which bound the memory.  [default: 1024, GPU 16384]"),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--lr", help="Highest learning rate of the encoder.  [default: 2e-05]")
    ] = None,
    head_learning_rate: Annotated[
        float | None, typer.Option("--head-lr", help="Highest learning rate of the heads.  [default: 0.0004]")
    ] = None,
    warmup: Annotated[
        float | None, typer.Option("--warmup", help="Share of the steps over which rates rise.  [default: 0.1]")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option("--weight-decay", help="AdamW's decay of matrices.  [default: 0.01]")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option("--max-length", help="Longest input in tokens.  [default: 256]")
    ] = None,
    sampling: Annotated[
        str | None,
        typer.Option(
            "--sampling",
            help="How often each task comes: proportional, capped, temperature, uniform.  [default: proportional]",
        ),
    ] = None,
    cap: Annotated[
        int | None,
        typer.Option("--cap", help="Examples from which on a task counts no more (capped).  [default: 131072]"),
    ] = None,
    sampling_temperature: Annotated[
        float | None,
        typer.Option(
            "--sampling-temperature", help="1 is proportional, large is uniform (temperature).  [default: 2.0]"
        ),
    ] = None,
    group_by_length: Annotated[
        bool | None,
        typer.Option(
            "--group-by-length/--no-group-by-length",
            help="Put examples of like length into a batch: less padding.  [default: group-by-length]",
        ),
    ] = None,
    freeze_embeddings: Annotated[
        bool | None,
        typer.Option(
            "--freeze-embeddings/--train-embeddings",
            help="Keep the word embeddings as they are.  [default: freeze-embeddings]",
        ),
    ] = None,
    lora_rank: Annotated[
        int | None, typer.Option("--lora-rank", help="Train low-rank additions of this rank only.  [default: 0, no]")
    ] = None,
    dropout: Annotated[
        float | None, typer.Option("--dropout", help="Dropout while training.  [default: the encoder's]")
    ] = None,
    pool_layer: Annotated[
        int | None, typer.Option("--pool-layer", help="The layer that retrieval reads.  [default: the last]")
    ] = None,
    mlm_probability: Annotated[
        float | None, typer.Option("--mlm-probability", help="Share of tokens that --mlm hides.  [default: 0.15]")
    ] = None,
    contrastive_temperature: Annotated[
        float | None,
        typer.Option("--contrastive-temperature", help="What cosines are divided by.  [default: encoder's, or .05]"),
    ] = None,
    image_loss: Annotated[str | None, typer.Option("--image-loss", help="clip or siglip.  [default: clip]")] = None,
    evaluate_every: Annotated[
        int | None,
        typer.Option(
            "--evaluate-every", help="Steps between scorings on English dev data; the best is kept.  [default: 0, no]"
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option("--patience", help="Scorings without a better one, then the end.  [default: 0, no]"),
    ] = None,
    save_every: Annotated[
        int | None, typer.Option("--save-every", help="Steps between states for --resume.  [default: 200]")
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="fp32, bf16, or fp16 on a GPU.  [default: fp32]")
    ] = None,
    gradient_checkpointing: Annotated[
        bool | None,
        typer.Option("--gradient-checkpointing", help="Less memory, more time.  [default: no]"),
    ] = None,
    fsdp: Annotated[
        str | None, typer.Option("--fsdp", help="transformers' fsdp setting, for several GPUs.  [default: none]")
    ] = None,
    log_to: Annotated[
        list[str] | None, typer.Option("--log-to", help="tensorboard, mlflow or wandb as well; repeatable.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Where PyTorch and ONNX Runtime compute: auto, cpu or cuda.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a training that was interrupted.")] = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Fine-tune an encoder on one or many English intermediate tasks at once, then on a target task or none."""
    given = dict(locals())
    if not recipe and not encoder:
        raise typer.BadParameter("name what to train: --encoder, or a --recipe that does")
    if not recipe and not (intermediate or target or mlm or contrastive or image_text):
        raise typer.BadParameter("name what to train on: --intermediate, --target, --mlm, --contrastive, --image-text")
    from xt.core.errors import XtError
    from xt.core.files.artifact import open_artifact
    from xt.train.config import TrainConfig, setting_names
    from xt.train.recipes import load_recipe, merge
    from xt.train.recipes import show as show_settings

    flags = {name: given[name] for name in setting_names() if given[name] is not None}
    flags["data"] = paths_by_task(data, "--data")
    flags["translated"] = paths_by_task(translated, "--translated")
    settings = merge(load_recipe(recipe, setting_names()) if recipe else {}, flags)
    if not settings.get("encoder"):
        raise XtError(f"The recipe {recipe} names no encoder.", "Name one by --encoder.")
    config = TrainConfig(**settings, force=force, resume=resume)
    if recipe:
        say(f"recipe {recipe} resolved to:\n{show_settings(config.to_json())}")
    from xt.train.loop import train as run_training  # seconds to import: only once the settings are right

    counter = Counter("steps")
    path = run_training(config, report=say, progress=lambda done, total, facts: counter(done, total, note(facts)))
    if int(os.environ.get("RANK", "0")):  # of several processes the first reports
        return
    artifact = open_artifact(path, kind="checkpoint")
    show(artifact.facts["training"])
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
    """Say in a progress line what the step was.

    >>> note({"task": "sick", "loss": 0.98123, "tokens_per_second": 1234.5})
    'sick loss 0.981, 1234 tokens/s'
    """
    return f"{facts['task']} loss {facts['loss']:.3f}, {facts['tokens_per_second']:.0f} tokens/s"


def show(training: dict[str, Any]) -> None:
    """Print the dev metrics."""
    rows = [
        [
            t["task"],
            t["train"],
            t["dev"],
            t["metric"],
            t["majority"],
            "-" if t["before"] is None else t["before"],
            t["after"],
        ]
        for t in training["tasks"]
    ]
    speed = f"{training['seconds']:.0f} s, {training['tokens_per_second']:.0f} tokens/s"
    title = f"dev metrics; {training['steps']} steps, {speed}"
    table(title, ["task", "train", "dev", "metric", "baseline", "before", "after"], rows)
