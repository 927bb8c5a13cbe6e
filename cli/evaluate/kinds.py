"""What `xt eval` does with each kind of task: parallel text, mining, ranked retrieval, heads, images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xt.cli.console import Counter, say
from xt.cli.evaluate.show import show_calibration, show_classes, show_layers, show_metrics, show_mining, show_ranked
from xt.core.errors import UsageError
from xt.core.machine.cores import usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xt.core.data.tasks import Task
    from xt.core.results.report import Encoder as EncoderResult
    from xt.eval.heads.engines import HeadEngine
    from xt.eval.heads.targets import Target
    from xt.eval.retrieval.ranking import Encoder
    from xt.eval.run import Corpus
    from xt.serve.options import EncoderLocation

Opened = tuple["Encoder", "EncoderResult", float | None, dict[str, str]]
"""What `open_encoder` gives."""


def open_encoder(location: EncoderLocation) -> Opened:
    """Open what --encoder or --url names: the encoder, its entry for a report, its training temperature, its parent."""
    from xt.core.files.artifact import exported_model
    from xt.core.results.report import Encoder as EncoderResult

    encoder, url, model, device = location.encoder, location.url, location.model, location.device
    if (encoder is None) == (url is None):
        raise UsageError("give one of --encoder and --url")
    if url is not None:
        from xt.serve.client.encoder import TritonEncoder

        served = TritonEncoder(url, model, tls=location.server.tls())
        entry = EncoderResult.of(served.spec, name=served.model, precision=served.facts["precision"], engine="triton")
        return served, entry, served.spec.temperature, served.facts["checkpoint"]
    assert encoder is not None
    folder = exported_model(Path(encoder).expanduser(), model)
    if folder is not None:
        from xt.core.encoder.onnx_engine import load_model

        graph, artifact = load_model(folder, device=device)
        entry = EncoderResult.of(
            graph.spec, name=folder.name, precision=artifact.facts["precision"], engine="onnxruntime"
        )
        return graph, entry, graph.spec.temperature, artifact.as_parent()
    from xt.core.encoder import resolve as encoders
    from xt.core.encoder import torch_engine

    resolved = encoders.resolve(encoder)
    entry = EncoderResult.of(resolved.spec, precision="fp32", engine="pytorch")
    return torch_engine.load_encoder(resolved, device=device), entry, resolved.spec.temperature, resolved.parent


@dataclass(frozen=True)
class Trust:
    """What is asked of calibration."""

    calibrate_on: str | None = None
    shots: tuple[int, ...] = ()
    calibration: Path | None = None
    """The report whose fits are applied too."""
    install: Path | None = None
    """The repository whose retrievers get the calibration."""


def with_cache(opened: Opened, device: str) -> Opened:
    """Put the cache of vectors before an encoder whose weights are known by their hash."""
    import json

    from xt.core.errors import XtError
    from xt.eval.vector_cache import SCHEMA, CachedEncoder

    encoder, entry, temperature, parent = opened
    if not parent.get("hash"):
        return opened
    known: Any = encoder  # every encoder that is opened here has its facts
    spec = {k: v for k, v in known.spec.to_json().items() if k not in ("provenance", "licence", "temperature")}
    how = json.dumps(spec, sort_keys=True)  # the same weights may be pooled or cut in another way
    facts = [str(SCHEMA), parent["hash"], str(entry.precision), str(entry.engine), str(entry.dim), device, how]
    try:
        cached = CachedEncoder(encoder, " ".join(facts), warn=say)
    except XtError as error:  # there is no place for a cache
        say(f"vectors are not kept for a second evaluation: {error}")
        return opened
    return cached, entry, temperature, parent


def _lineage(parent: dict[str, str]) -> set[str]:
    """Return the hashes that an encoder is known by: its own, and of an exported one its checkpoint's."""
    from xt.core.files.artifact import MANIFEST, read_manifest

    known = {parent.get("hash", "")}
    folder = Path(parent.get("path", ""))
    if parent.get("kind") == "model" and (folder / MANIFEST).is_file():
        manifest = read_manifest(folder)
        if manifest["hash"] == parent.get("hash"):
            known.add(str(manifest["facts"].get("checkpoint", {}).get("hash", "")))
    return known - {""}


def given_fits(report: Path, entry: EncoderResult, parent: dict[str, str]) -> dict[str, Any]:
    """Read the calibrators of another report: those of the same name, else of its only one.

    Where they were fitted on another encoder, which may have the same name, that is reported.
    """
    from xt.core.errors import XtError
    from xt.core.files.artifact import open_artifact, read_json
    from xt.core.results.folder import CALIBRATION

    folder = open_artifact(report, kind="report")
    file = folder.path / CALIBRATION
    if not file.is_file():
        raise XtError(f"{report} holds no calibration.", "Name a report on parallel text or ranked retrieval.")
    fits = dict(read_json(file))
    if entry.name not in fits and len(fits) != 1:
        raise XtError(
            f"{report} holds calibrations of {', '.join(fits)}, none of {entry.name}.", "Evaluate the same encoder."
        )
    name = str(entry.name) if entry.name in fits else next(iter(fits))
    fitted = {h for p in folder.manifest["parents"] for h in _lineage(p)}
    if fitted and (here := _lineage(parent)) and not fitted & here:
        say(f"note: {report} was fitted on another encoder than the one evaluated now; its probabilities may be off")
    return dict(fits[name])


def check_trust(
    trust: Trust, entry: EncoderResult, parent: dict[str, str], directions: Sequence[str]
) -> dict[str, Any] | None:
    """Read the fits that are to be applied, and look for the retrievers to install in, before anything is computed."""
    from xt.core.errors import XtError

    given = given_fits(trust.calibration, entry, parent) if trust.calibration else None
    if given is not None and not set(directions) & set(given):
        raise XtError(
            f"{trust.calibration} holds calibrations of {', '.join(given)}; this task needs {' or '.join(directions)}.",
            "Name a report of the same kind of task: parallel text, or ranked retrieval.",
        )
    if trust.install is not None:
        from xt.serve.index.retriever import retrievers

        retrievers(trust.install)
    return given


def install_calibration(repository: Path, report: Path) -> None:
    """Give every retriever of a repository the calibration of a report, if it is of its encoder."""
    from xt.core.files.artifact import open_artifact
    from xt.serve.index.calibration import read_calibration
    from xt.serve.index.retriever import identity_of, recalibrate, retrievers

    for name in retrievers(repository):
        identity = identity_of(open_artifact(repository / name, kind="model"))
        recalibrate(repository, name, read_calibration(report, identity, report=say), report=say)
        say(f"installed in {repository / name}; a server takes it by: xt reload {name}")


def evaluate_corpus(
    opened: Opened,
    corpus: Corpus,
    out: Path,
    *,
    pool: int | None,
    trust: Trust,
    measure_layers: Callable[[Corpus], dict[str, Any]] | None,
    truncate: bool,
    force: bool,
) -> dict[str, Any]:
    """Measure retrieval of translations, calibrated, and write a report folder: what --json prints."""
    from xt.eval.groups import POOL
    from xt.eval.retrieval.ranking import DIRECTIONS
    from xt.eval.run import assemble, evaluate, write_report

    encoder, entry, temperature, parent = opened
    say(f"{corpus.title}: {len(corpus.pairs)} languages, encoder {entry.label} on {entry.engine}")
    if corpus.skipped:
        more = f" and {len(corpus.skipped) - 8} more" if len(corpus.skipped) > 8 else ""
        say(f"{len(corpus.skipped)} files not read: {', '.join(corpus.skipped[:8])}{more}")
    if lost := sum(b.left_out for b in corpus.pairs):
        say(f"{lost} sentences left out: their id is on one side only")
    if pool is None:
        pool = POOL if any(len(b.foreign) >= POOL for b in corpus.pairs) else None
        if pool is None:
            say(f"no language has {POOL} candidates: no accuracy in pools of one size (--pool)")
    given = check_trust(trust, entry, parent, DIRECTIONS)
    result = evaluate(
        encoder,
        corpus,
        entry=entry,
        temperature=temperature,
        truncate=truncate,
        pool=pool,
        calibrate_on=trust.calibrate_on,
        shots=trust.shots,
        given=given,
        jobs=usable_cores(),
        progress=Counter("languages"),
        calibrating=Counter("calibrated"),
    )
    sections = {} if measure_layers is None else {"layers": measure_layers(corpus)}
    report = assemble(f"xt eval {corpus.name}", corpus, [result], **sections)
    artifact = write_report(out, report, [result], parents=[parent], force=force)
    show_metrics(report.encoders)
    show_layers(report.layers)
    say(f"report: {artifact.path / 'report.html'}")
    if trust.install is not None:
        install_calibration(trust.install, artifact.path)
    return {"path": str(artifact.path), **report.to_json()}


def evaluate_mined(
    opened: Opened,
    name: str,
    out: Path,
    *,
    data_dir: Path | None,
    languages: str,
    margin: str,
    search: str,
    truncate: bool,
    force: bool,
) -> dict[str, Any]:
    """Mine translations and write a report folder: what --json prints."""
    from xt.eval import protocols
    from xt.eval.mining import run

    encoder, entry, _, parent = opened
    data = run.load_mining(name, data_dir=data_dir, selection=languages)
    say(f"{data.title}: {len(data.tasks)} languages, encoder {entry.label} on {entry.engine}")
    result = run.evaluate_mining(
        encoder,
        data.tasks,
        margin=margin,
        search=search,
        truncate=truncate,
        left_out=data.left_out,
        progress=Counter("languages"),
    )
    artifact, report = protocols.write(
        out,
        data.describe(),
        entry,
        "mining",
        result.section,
        result.predictions,
        calibrators=result.calibrators,
        parents=[parent],
        force=force,
    )
    show_mining(result.section)
    say(f"report: {artifact.path / 'report.html'}")
    return {"path": str(artifact.path), **report.to_json()}


def evaluate_ranked(
    opened: Opened,
    name: str,
    out: Path,
    *,
    data_dir: Path | None,
    languages: str,
    cut: bool,
    trust: Trust,
    force: bool,
) -> dict[str, Any]:
    """Rank documents for queries, calibrate, and write a report folder: what --json prints."""
    from xt.core.results.report import Encoder as EncoderResult
    from xt.eval import protocols
    from xt.eval.ranked import search as ranked
    from xt.eval.ranked import trust as ranked_trust

    encoder, entry, temperature, parent = opened
    about, collection, names = protocols.load_collection(name, data_dir=data_dir, selection=languages)
    sizes = f"{len(collection.queries.ids):,} queries, {len(collection.documents.ids):,} documents"
    say(f"{about['title']}: {sizes}, encoder {entry.label} on {entry.engine}")
    for note in collection.notes:
        say(note)
    given = check_trust(trust, entry, parent, [ranked_trust.DIRECTION])
    result = ranked.rank_collection(encoder, collection, names=names, cut=cut, progress=Counter("encoded"))
    trusted = ranked_trust.calibrate(
        result, temperature, calibrate_on=trust.calibrate_on, given=given, calibrating=Counter("calibrated")
    )
    entry = EncoderResult.from_json({**entry.to_json(), "calibration": trusted.section})
    artifact, report = protocols.write(
        out,
        about,
        entry,
        "ranked",
        result.section,
        trusted.predictions,
        calibrators=trusted.kept,
        parents=[parent],
        force=force,
    )
    assert report.ranked is not None
    show_ranked(report.ranked)
    show_calibration(str(entry.name), entry.calibration)
    say(f"report: {artifact.path / 'report.html'}")
    if trust.install is not None:
        install_calibration(trust.install, artifact.path)
    return {"path": str(artifact.path), **report.to_json()}


def evaluate_images(encoder: str, name: str, out: Path, languages: str, device: str, force: bool) -> dict[str, Any]:
    """Measure text-to-image retrieval in every language of a folder and write a report folder: what --json prints."""
    from xt.core.data.images import load_image_text
    from xt.core.languages import select
    from xt.eval.heads import classify
    from xt.eval.heads.engines import open_checkpoint
    from xt.studies.images.evaluation import retrieve

    folder = Path(name.removeprefix("image-text:")).expanduser()
    codes = select(languages, list(load_image_text(folder).captions["test"]))
    heads = open_checkpoint(encoder, device=device)
    task, result = retrieve(heads, folder, codes=codes, progress=Counter("encoded"))
    artifact, report = classify.write(out, heads, task, result, facts={"folder": str(folder)}, force=force)
    assert report.classification is not None
    show_classes(report.classification)
    chance = ", ".join(f"{k} {v:.3f}" for k, v in report.classification.chance.items())
    say(f"{report.classification.images} images; by chance: {chance}")
    say(f"report: {artifact.path / 'report.html'}")
    return {"path": str(artifact.path), **report.to_json()}


def task_of_heads(name: str, layers: str | None) -> Task:
    """Give the task that a head answers; XtError or a usage error when none can."""
    from xt.core.errors import XtError
    from xt.eval.heads import targets

    row = targets.find(name)
    if row is None:
        raise XtError(f"{name} is not answered by a head.", "See `xt tasks`.")
    if layers is not None:
        raise UsageError(f"--layers measures retrieval; {name} is answered by a head")
    return row


def read_test(
    task: Task, data_dir: Path | None, languages: str, *, heads: HeadEngine | None = None, head: str | None = None
) -> Target:
    """Read the test examples of a task, and say which of its languages are not there.

    A user's own data have the labels of the head, of `heads`, that answers them: that called `head`, or the one that
    can.
    """
    from xt.eval.heads import targets
    from xt.eval.heads.engines import own_head

    answering = own_head(task, heads.tasks, head) if task.own and heads is not None else None
    test = targets.read(task, data_dir=data_dir, selection=languages, head=answering)
    count, split = sum(len(examples) for examples in test.examples.values()), test.facts["split"]
    what = "examples, the whole of the data," if split == "all" else f"{split} examples"
    say(f"{task.title}: {count:,} {what} in {len(test.examples)} languages")
    if answering is not None:
        say(f"{task.name} is answered by the head {answering.name}")
    for note in test.facts.get("notes", []):
        say(f"{task.name}: {note}")
    if test.missing:
        say(f"{len(test.missing)} of the task's {len(test.task.codes)} languages are not in the data folder")
    return test


def open_heads(location: EncoderLocation) -> HeadEngine:
    """Open the heads that --encoder or --url names."""
    from xt.eval.heads import engines

    url, model, tls = location.url, location.model, location.server.tls()
    return engines.open_heads(location.encoder, url=url, model=model, device=location.device, tls=tls)


def evaluate_heads(heads: HeadEngine, tests: dict[Path, Target], *, force: bool) -> dict[Path, dict[str, Any]]:
    """Measure heads, wherever they run, and write a report folder for each task: folder -> document of --json."""
    from xt.eval.heads import classify
    from xt.eval.heads.engines import head_for

    for test in tests.values():
        head_for(test.task, heads.tasks)
    documents = {}
    for folder, test in tests.items():
        result = classify.classify(
            heads,
            test.task,
            test.examples,
            english=test.english or None,
            notes=test.facts.get("notes", ()),
            progress=Counter("languages"),
            calibrating=Counter("calibrated"),
        )
        artifact, report = classify.write(folder, heads, test.task, result, facts={"data": test.facts}, force=force)
        assert report.classification is not None
        show_classes(report.classification)
        if report.calibration:
            show_calibration(str(heads.entry.name), report.calibration)
        say(f"report: {artifact.path / 'report.html'}")
        documents[folder] = {"path": str(artifact.path), **report.to_json()}
    return documents


def layer_numbers(value: str | None) -> list[int] | None:
    """Read the numbers of --layers; None for all layers, and without the option."""
    if value is None or value.strip() == "all":
        return None
    words = [w.strip() for w in value.split(",")]
    if not all(w.isascii() and w.isdigit() for w in words):
        raise UsageError(f"--layers expects `all` or numbers, as in 8,14,24; not {value!r}")
    return sorted({int(w) for w in words})


def layer_sweep(
    opened: Encoder, encoder: str | None, layers: list[int] | None, truncate: bool
) -> Callable[[Corpus], dict[str, Any]]:
    """Check the layers (None: all) against the encoder, and give what measures them on a corpus."""
    from xt.core.encoder import torch_engine
    from xt.core.encoder.layers import check_layers, stack
    from xt.core.encoder.resolve import resolve
    from xt.core.encoder.text import TextEncoder
    from xt.eval.retrieval import layers as sweeps
    from xt.eval.run import resource_of

    if not (isinstance(opened, TextEncoder) and isinstance(opened.engine, torch_engine.TorchEngine)):
        raise UsageError("--layers reads a checkpoint in PyTorch, not an exported model")
    assert encoder is not None
    whole = torch_engine.whole_encoder(opened, resolve(encoder).path)
    own, count = (len(stack(torch_engine.network_of(e))) for e in (opened, whole))
    chosen = list(range(count + 1)) if layers is None else layers
    check_layers(chosen, count)

    def measure(corpus: Corpus) -> dict[str, Any]:
        say(f"{len(chosen)} layers, each in {len(corpus.pairs)} languages")
        return sweeps.sweep(
            lambda texts: torch_engine.encode_layers(whole, texts, chosen, truncate=truncate),
            corpus.pairs,
            resources={b.language: resource_of(b.language) for b in corpus.pairs},
            own=own,
            count=count,
            progress=Counter("languages"),
        )

    return measure
