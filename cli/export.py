"""`xt export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from xt.cli.console import DataDir, Device, Force, Json, emit, say, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xt.core.encoder.resolve import Resolved
    from xt.core.files.artifact import Artifact
    from xt.eval.run import Corpus

EPILOG = """Examples:

xt export multilingual-e5-small --out repository --name encoder

xt export multilingual-e5-small --out repository --precision auto --max-loss 0.3 --dev-corpus tatoeba

xt export multilingual-e5-small --out repository --name german --languages deu,eng --corpus ../data/tatoeba

xt export runs/x --out repository --name short --layers 9 --dims 256

xt export runs/x --out repository --name gpu --precision fp16 --provider cuda

xt export runs/x --out repository --name topics --task sib200 --temperature fit

xt export runs/x --out repository --precision fp32 --parity-corpus ../data/tatoeba"""
NAME = "encoder"
HEAD_NAME = "classifier"
PRECISION = "int8"
HEAD_PRECISION = "int8-blocks"
PARITY_CORPUS = "django"
MAX_LOSS = 0.3
RUNTIMES = ("python", "onnxruntime")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export", epilog=EPILOG)(export)


def export(
    encoder: Annotated[str, typer.Argument(help="A checkpoint folder, a short name or a hub id.")],
    out: Annotated[Path, typer.Option("--out", help="The Triton model repository to add a model to.")],
    name: Annotated[
        str | None,
        typer.Option("--name", help=f"The model's name on the server. Default: {NAME}, or {HEAD_NAME} with --task."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="fp32, bf16, fp16 (for GPUs), int8 (fixed scales), int8-blocks (8-bit blocks of weights), or auto: "
            f"the fastest here that keeps to --max-loss. Default: {PRECISION}, or {HEAD_PRECISION} with --task.",
        ),
    ] = None,
    provider: Annotated[
        str,
        typer.Option(
            "--provider",
            help="What runs the graph: openvino, cpu (ONNX Runtime's own), cuda, tensorrt, or auto: what this machine "
            "has; the choice is printed.",
        ),
    ] = "auto",
    runtime: Annotated[
        str,
        typer.Option(
            "--runtime",
            help="Triton's backend: python, or onnxruntime (for NVIDIA's container: the graph as a model of its own, "
            "with a text model before it).",
        ),
    ] = RUNTIMES[0],
    exact: Annotated[
        bool, typer.Option("--exact", help="Ask that a text's vector be the same, bit for bit, in any batch.")
    ] = False,
    layers: Annotated[
        int | None, typer.Option("--layers", min=1, help="Keep the lowest so many layers of the network.")
    ] = None,
    languages: Annotated[
        str | None,
        typer.Option(
            "--languages",
            help="Prune the vocabulary to what --corpus uses in these languages: comma-separated codes.",
        ),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            "--corpus",
            help="Text for --languages: django, tatoeba or a folder of line-aligned files; the more, the fewer "
            "tokens other text loses. Default: the parity corpus.",
        ),
    ] = None,
    dims: Annotated[
        int | None,
        typer.Option("--dims", min=1, help="Keep the first so many numbers of a vector, of unit length again."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", help="Export the checkpoint's trained head for this task instead of the encoder."),
    ] = None,
    temperature: Annotated[
        str | None,
        typer.Option(
            "--temperature",
            help="Divides the head's logits: a number, a file with one, or fit (to the task's dev examples). "
            "Default: 1.",
        ),
    ] = None,
    parity_corpus: Annotated[
        str | None,
        typer.Option(
            "--parity-corpus",
            help=f"Real text that parity is measured on: django, tatoeba or a folder. Default: {PARITY_CORPUS}.",
        ),
    ] = None,
    min_cosine: Annotated[
        float | None,
        typer.Option("--min-cosine", help="Least 1st percentile of the cosine to PyTorch; default by precision."),
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            "--max-loss",
            min=0.0,
            help=f"Points of mean retrieval accuracy that --precision auto may lose. Default: {MAX_LOSS}.",
        ),
    ] = None,
    dev_corpus: Annotated[
        str | None,
        typer.Option(
            "--dev-corpus",
            help="Parallel text on which --precision auto measures accuracy: django, tatoeba or a folder. Default: the "
            "parity corpus.",
        ),
    ] = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    force: Force = False,
    json: Json = False,
) -> None:
    """Turn an encoder into a Triton model: ONNX, fused, quantised, proven equal to PyTorch (exit code 3 if not).

    It can be made smaller before that (--layers, --languages, --dims), and its precision chosen by measurement
    (--precision auto). With --task a trained head is exported, with its labels and its temperature.
    """
    precision = precision or (PRECISION if task is None else HEAD_PRECISION)
    _check_usage(
        precision=precision,
        runtime=runtime,
        encoder_only={
            "--layers": layers,
            "--languages": languages,
            "--dims": dims,
            "--min-cosine": min_cosine,
            "--provider": None if provider == "auto" else provider,
            "--device": None if device == "auto" else device,
            "--runtime": None if runtime == RUNTIMES[0] else runtime,
            "--exact": exact or None,
        },
        auto_only={"--max-loss": max_loss, "--dev-corpus": dev_corpus},
        corpus_without_languages=corpus is not None and languages is None,
        task=task,
        temperature=temperature,
    )
    divisor = _temperature(temperature)
    provider = _provider(provider, device, precision)
    from xt.core.encoder import resolve
    from xt.core.files.artifact import refuse_existing
    from xt.core.files.replacing import named_paths
    from xt.eval.run import load_corpus

    name = name or (NAME if task is None else HEAD_NAME)
    refuse_existing(
        out / name,
        force=force,
        kind="model",
        role="encoder" if task is None else "head",
        inputs=named_paths(encoder, parity_corpus, corpus, dev_corpus, temperature, data_dir),
    )
    parity_name = parity_corpus or PARITY_CORPUS
    parity = load_corpus(parity_name, data_dir=data_dir)
    loaded = {parity_name: parity}
    for other in (corpus, dev_corpus):
        if other is not None and other not in loaded:
            loaded[other] = load_corpus(other, data_dir=data_dir)
    texts, codes = _texts(loaded[corpus or parity_name], languages)
    resolved = resolve.resolve(encoder)
    _check_size(resolved, layers=layers, dims=dims)
    say(f"exporting {resolved.spec.name} ({resolved.spec.provenance}) to {out / name}, {precision}")
    if task is not None:
        from xt.export.heads import export_head

        artifact = export_head(
            resolved,
            out,
            task=task,
            corpus=parity.pairs,
            name=name,
            precision=precision,
            temperature=divisor,
            data_dir=data_dir,
            force=force,
            report=say,
        )
    else:
        from xt.export.repository import export_model

        artifact = export_model(
            resolved,
            out,
            corpus=parity.pairs,
            name=name,
            precision=precision,
            provider=provider,
            runtime=runtime,
            exact=exact,
            min_cosine=min_cosine,
            max_loss=MAX_LOSS if max_loss is None else max_loss,
            dev_corpus=loaded[dev_corpus or parity_name].pairs if precision == "auto" else None,
            layers=layers,
            languages=codes,
            shrink_corpus=texts,
            dims=dims,
            force=force,
            report=say,
        )
    show(artifact.facts)
    say(f"wrote {artifact.path}; serve it with: xt serve {out}")
    if json:
        emit(document(artifact))


def _check_usage(
    *,
    precision: str,
    runtime: str,
    encoder_only: Mapping[str, Any],
    auto_only: Mapping[str, Any],
    corpus_without_languages: bool,
    task: str | None,
    temperature: str | None,
) -> None:
    """Raise for names that are in no table and for options that contradict each other: wrong usage."""
    from xt.core.errors import unknown
    from xt.export.candidates import PRECISIONS

    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if runtime not in RUNTIMES:
        raise unknown("runtime", runtime, RUNTIMES)
    if precision != "auto" and (given := _given(auto_only)):
        raise typer.BadParameter(f"{given[0]} is for --precision auto; this is {precision}")
    if corpus_without_languages:
        raise typer.BadParameter("--corpus is the text for --languages: give both")
    if task is None and temperature is not None:
        raise typer.BadParameter("--temperature is a head's: give --task too")
    if task is not None and (given := _given(encoder_only)):
        raise typer.BadParameter(f"{given[0]} is for the encoder; with --task a head is exported")
    if task is not None and precision == "auto":
        raise typer.BadParameter("--precision auto measures retrieval; name a head's precision")


def _given(options: Mapping[str, Any]) -> list[str]:
    """Name the options that were given."""
    return [option for option, value in options.items() if value is not None]


def _temperature(value: str | None) -> float | Path | Literal["fit"] | None:
    """Read --temperature: a positive number, the word fit, or a file that is there."""
    if value is None or value == "fit":
        return None if value is None else "fit"
    try:
        number = float(value)
    except ValueError:
        if Path(value).is_file():
            return Path(value)
        raise typer.BadParameter(f"--temperature expects a number, a file or fit; there is no file {value!r}") from None
    if not 0 < number < float("inf"):
        raise typer.BadParameter(f"--temperature expects a positive number, found {value}")
    return number


def _provider(provider: str, device: str, precision: str) -> str:
    """Check --provider and --device against each other and this machine; give the provider, or still auto."""
    from xt.core.encoder.onnx_engine import DEVICES, PROVIDERS, choose_provider
    from xt.core.errors import unknown

    if provider not in ("auto", *PROVIDERS):
        raise unknown("provider", provider, ("auto", *PROVIDERS))
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    if provider != "auto":
        if device not in ("auto", PROVIDERS[provider].device):
            raise typer.BadParameter(f"--provider {provider} runs on {PROVIDERS[provider].device}, not on {device}")
        if precision != "auto" and precision not in PROVIDERS[provider].precisions:
            known = ", ".join(PROVIDERS[provider].precisions)
            raise typer.BadParameter(f"--provider {provider} runs {known}, not {precision}")
    if provider == "auto" and device == "auto":
        return provider
    return choose_provider(provider, device=device, precision=None if precision == "auto" else precision)


def _texts(corpus: Corpus, languages: str | None) -> tuple[list[tuple[str, str]] | None, list[str] | None]:
    """Give the text for pruning, and the codes asked for as the corpus spells them; None twice without --languages."""
    if languages is None:
        return None, None
    from xt.core.languages import select
    from xt.export.shrink import corpus_texts

    texts = corpus_texts(corpus.pairs)
    return texts, select(languages, dict.fromkeys(language for language, _ in texts))


def _check_size(resolved: Resolved, *, layers: int | None, dims: int | None) -> None:
    """Raise when the encoder has not so many layers or numbers, before anything is loaded."""
    from xt.export.shrink import check

    check(resolved, layers=layers, dims=dims)


CANDIDATES = {
    "stage": "candidate",
    "megabytes": "MB",
    "tokens_per_second": "tokens/s",
    "cosine_min": "cosine min",
    "cosine_p1": "p1",
    "cosine_mean": "mean",
    "accuracy": "accuracy",
    "accuracy_change": "change",
    "neighbour_agreement": "neighbours",
    "ece_change": "ECE change",
}
"""Keys of a candidate of --precision auto, and the columns' titles."""
FORMATS = {
    "megabytes": ".0f",
    "tokens_per_second": ",.0f",
    "accuracy": ".2f",
    "accuracy_change": "+.2f",
    "neighbour_agreement": ".1%",
    "ece_change": "+.4f",
}
"""How the numbers of a table are written, where not with five decimals."""
REPORTED: tuple[str, ...] = ("precision", "provider", "candidates", "shrunk", "temperature")
"""Facts of a model that --json prints too, where it has them."""
SHORT = {"cosine_min": "cosine min", "cosine_p1": "p1", "cosine_mean": "mean", "batch_cosine_min": "batch"}


def cell(key: str, value: Any) -> str:
    """Write one measure."""
    return format(value, FORMATS.get(key, ".5f")) if isinstance(value, float) else str(value)


def show(facts: Mapping[str, Any]) -> None:
    """Print what changed before the export, the candidates, parity and the choice, as far as there are any."""
    for line in shrunk_lines(facts.get("shrunk") or {}):
        say(line)
    if candidates := facts.get("candidates"):
        rows = [[("* " if c["kept"] else "") + c["stage"], *_cells(c, list(CANDIDATES)[1:])] for c in candidates]
        table("candidates (*: taken)", list(CANDIDATES.values()), rows)
        for c in candidates:
            say(f"  {c['stage']}: {c['why']}")
    parity = facts["parity"]
    keys = ["stage", "megabytes", *(k for k in parity["stages"][0] if k not in ("stage", "megabytes"))]
    titles = [{"megabytes": "MB", **SHORT}.get(k, k.replace("_", " ")) for k in keys]
    of = f"{parity['sentences']} sentences" if "sentences" in parity else f"{parity['inputs']} inputs"
    title = f"parity with PyTorch fp32 on {of}, {parity['languages']} languages"
    table(title, titles, [_cells(stage, keys) for stage in parity["stages"]])
    if "provider" in facts:
        where = "what the serving machine has" if facts["provider"] == "auto" else facts["provider"]
        say(f"runs in {facts['precision']} on {where}")


def _cells(row: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    return [cell(key, row.get(key, "")) for key in keys]


def shrunk_lines(report: Mapping[str, Any]) -> list[str]:
    """Say what `shrink` changed, a line for each."""
    lines = []
    if layers := report.get("layers"):
        lines.append(f"layers: {layers['before']} -> {layers['after']}")
    if vocabulary := report.get("vocabulary"):
        before, after = vocabulary["before"], vocabulary["after"]
        lines.append(
            f"vocabulary: {before['pieces']} pieces, {before['megabytes']:.0f} MB -> {after['pieces']} pieces, "
            f"{after['megabytes']:.0f} MB (fp32); texts of the corpus that are cut otherwise: {vocabulary['changed']}"
        )
        lines += [
            f"  {code}: of text like it but unseen, {row['lost']:.1%} of the tokens are lost, there are "
            f"{row['longer']:.1%} more, {row['unknown']:.2%} unknown"
            for code, row in vocabulary["held_out"].items()
            if row["texts"]
        ]
    if dims := report.get("dims"):
        lines.append(f"numbers in a vector: {dims['before']} -> {dims['after']}")
    if size := report.get("size"):
        lines.append(f"network: {size['before']['megabytes']:.0f} MB -> {size['after']['megabytes']:.0f} MB (fp32)")
    return lines


def document(artifact: Artifact) -> dict[str, Any]:
    """Give what --json prints."""
    facts = artifact.facts
    extra = {key: facts[key] for key in REPORTED if key in facts}
    return {"path": str(artifact.path), "hash": artifact.hash, "parity": facts["parity"]} | extra
