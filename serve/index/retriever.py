"""An index, its encoder and a calibration bound together into one served model: one version, reloaded as one."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from xt.calibration.apply.file import FILE, CalibrationTable, write
from xt.core.encoder.onnx_engine import load_model
from xt.core.errors import XtError
from xt.core.files.artifact import (
    MANIFEST,
    Artifact,
    check_model_name,
    new_artifact,
    open_artifact,
    read_manifest,
    refuse_existing,
    sha256,
    write_json,
)
from xt.core.files.own_files import copy_file
from xt.serve.index.calibration import model_identity
from xt.serve.index.index import (
    COPIES_FILE,
    DOCUMENTS_FILE,
    INDEX_FILE,
    OFFSETS_FILE,
    golden_searches,
    open_index,
    role,
)
from xt.serve.index.indexing import check_vectors

SEARCHES_FILE = "searches.json"
MODEL_CODE = "model.py"
MOST_SCORE_ERROR = 1e-3
"""Error of an approximate index's scores that probabilities bear: temperatures are near 0.005."""


def install(
    index_folder: Path,
    encoder_folder: Path,
    repository: Path,
    *,
    name: str = "retriever",
    table: CalibrationTable | None = None,
    uncalibrated: bool = False,
    force: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Artifact:
    """Write `repository/name`: a Triton model that holds a graph, an index and a calibration of its own.

    The version folder is complete in itself: its files are copies (their blocks shared where the file system can) that
    cannot be written to, so that a server loads or keeps all three together, whatever becomes of the index. With
    `force` an installed retriever is replaced by its next version number.

    Args:
        index_folder: what `xt index` wrote.
        encoder_folder: the exported model that the index was made with.
        repository: the model repository.
        name: the model's name on the server.
        table: the calibration.
        uncalibrated: make one without a calibration, which answers no probabilities.
        force: replace an installed one.
        report: called with warnings.

    Raises XtError when the encoder is not the one of the index, and without a calibration unless `uncalibrated`.
    """
    check_model_name(name)
    if (table is None) != uncalibrated:
        raise XtError(
            "A retriever without a calibration answers no probabilities."
            if table is None
            else "A calibration and --uncalibrated were both given.",
            "Give --calibration REPORT, or --uncalibrated to serve cosines alone.",
        )
    target = repository / name
    inputs = [index_folder, encoder_folder]
    refuse_existing(target, force=force, kind="model", role="retriever", inputs=inputs)
    index, indexed = open_index(index_folder)
    encoder, model = load_model(encoder_folder, device="cpu")
    _check_encoder(indexed, model)
    golden = check_vectors(encoder, index, indexed)
    if table is not None:
        _check_scores(indexed)
        _warn_of_corpus(table, encoder.spec.default_prefix, indexed.facts["prefix"], report)
    version = _next_version(target)
    with new_artifact(target, kind="model", force=force) as draft:
        draft.read_only = True
        folder = draft.path / str(version)
        folder.mkdir()
        facts = _take_encoder(model, draft.path, version)
        for file in (INDEX_FILE, DOCUMENTS_FILE, OFFSETS_FILE, *([COPIES_FILE] if index.grouped else [])):
            _copy(indexed, file, folder / file)
        if table is not None:
            write(folder / FILE, table)
        prefix = role(encoder.spec.prefixes, "query")
        write_json(folder / SEARCHES_FILE, golden_searches(encoder.encode, index, golden, prefix))
        source = resources.files("xt.model_repository") / "retriever"
        code = (source / "1" / MODEL_CODE).read_text(encoding="utf-8")
        (folder / MODEL_CODE).write_text(code, encoding="utf-8")
        about = {
            "kind": "retriever",
            "documents": len(index),
            "candidates": index.candidates,
            "index": {k: indexed.facts[k] for k in ("factory", "prefix", "recall_at_10")} | {"hash": indexed.hash},
            "calibrated": table.to_json() if table else None,
        }
        draft.facts = {
            **facts,
            **about,
            "calibration": f"{version}/{FILE}" if table else "",
            "searches": f"{version}/{SEARCHES_FILE}",
        }
        draft.parents = [model.as_parent(), indexed.as_parent()]
        told = {k: facts[k] for k in ("encoder", "precision", "checkpoint")} | about
        template = (source / "config.pbtxt").read_text(encoding="utf-8")
        (draft.path / "config.pbtxt").write_text(_config(template, name, told), encoding="utf-8")
    return open_artifact(target, kind="model")


def recalibrate(
    repository: Path, name: str, table: CalibrationTable, *, report: Callable[[str], None] = lambda line: None
) -> Artifact:
    """Install another calibration in a retriever, as its next version; index and encoder stay.

    `report` is called where the texts that it was fitted on differ from those of the index.

    Raises XtError when `repository/name` is no retriever, or its scores are too rough for probabilities.
    """
    installed = open_artifact(repository / name, kind="model")
    facts = installed.facts
    if facts.get("kind") != "retriever":
        raise XtError(f"{installed.path} is no retriever, so it has no calibration.", "See `xt index --install`.")
    _warn_of_corpus(table, facts["encoder"].get("default_prefix"), facts["index"]["prefix"], report)
    version = _next_version(installed.path)
    with new_artifact(installed.path, kind="model", force=True) as draft:
        draft.read_only = True
        old = facts["searches"].split("/")[0]
        moved = {f: f"{version}/{f.split('/', 1)[1]}" for f in installed.manifest["files"] if f.startswith(f"{old}/")}
        for source, target in moved.items():
            if not source.endswith(f"/{FILE}"):
                _copy(installed, source, draft.path / target)
        write(draft.path / str(version) / FILE, table)
        kept = {k: moved.get(v, v) if isinstance(v, str) else v for k, v in facts.items()}
        draft.facts = {**kept, "calibration": f"{version}/{FILE}", "calibrated": table.to_json()}
        draft.parents = installed.manifest["parents"]
        keys = ("encoder", "precision", "checkpoint", "kind", "documents", "candidates", "index", "calibrated")
        told = {k: draft.facts[k] for k in keys if k in draft.facts}
        template = (installed.path / "config.pbtxt").read_text(encoding="utf-8")
        (draft.path / "config.pbtxt").write_text(_config(template, name, told), encoding="utf-8")
    return open_artifact(installed.path, kind="model")


def retrievers(repository: Path) -> list[str]:
    """Name the retrievers of a repository; XtError when it holds none, or one that could not be replaced."""
    from xt.core.files.artifact import open_repository

    found = [name for name, model in open_repository(repository).items() if model.facts.get("kind") == "retriever"]
    if not found:
        raise XtError(
            f"{repository} holds no retriever, which is what a calibration is for.",
            "Make one by `xt index CORPUS --encoder MODEL --install REPOSITORY`.",
        )
    for name in found:
        refuse_existing(repository / name, force=True, kind="model", role="retriever")
    return found


def identity_of(retriever: Artifact) -> dict[str, Any]:
    """Return the encoder of an installed retriever, as `read_calibration` compares it."""
    parent: dict[str, str] = next((p for p in retriever.manifest["parents"] if p.get("kind") == "model"), {})
    return {**model_identity(retriever), "hash": parent.get("hash", "")}


def _check_encoder(indexed: Artifact, model: Artifact) -> None:
    """Raise unless the index was encoded by this model: itself, or over the wire by a model of the same facts."""
    found, here = indexed.facts["encoder"], model_identity(model)
    exact = found["parent"].get("hash") == here["hash"]
    alike = all(found[k] == here[k] for k in ("name", "checkpoint", "precision", "dim"))
    if exact or (found["engine"] == "triton" and alike):
        return
    raise XtError(
        f"The index {indexed.path} was encoded by {found['name']} ({found['precision']}, {found['engine']}, hash "
        f"{found['parent'].get('hash', '')[:12] or 'unknown'}); the encoder {model.path} is {here['name']} "
        f"({here['precision']}, hash {here['hash'][:12]}).",
        f"Index the corpus again with --encoder {model.path}, or install with the encoder that it was made with.",
    )


def _check_scores(indexed: Artifact) -> None:
    error = indexed.facts["score_error_max"]
    if error > MOST_SCORE_ERROR:
        raise XtError(
            f"The scores of {indexed.facts['factory']} differ from cosines by up to {error:.4f}; probabilities need "
            f"at most {MOST_SCORE_ERROR}.",
            f"Index again with --kind {indexed.facts['factory']},RFlat (exact scores for what is found), or install it "
            "with --uncalibrated.",
        )


def _warn_of_corpus(table: CalibrationTable, default: str | None, prefix: str, report: Callable[[str], None]) -> None:
    """Warn where the texts that a calibration was fitted on differ from those of the index.

    Args:
        table: the calibration; one of ranked retrieval knows the prefix of its documents, parallel text has the
            encoder's default on both sides.
        default: the encoder's default prefix.
        prefix: that of the index.
        report: called with each warning.
    """
    ranked = table.provenance.get("documents_prefix")
    fitted = str(ranked or default or "none")
    if prefix != fitted:
        report(
            f"note: the documents were encoded as {prefix!r}, and the calibration was fitted on documents encoded as "
            f"{fitted!r}; probabilities may be off (index with --prefix {fitted} to match)"
        )
    if ranked is None and table.provenance:
        report(
            "note: the calibration is of parallel text, where every query has one right document; where queries have "
            "several or none, evaluate with judgements of your own (xt eval beir:FOLDER --install REPOSITORY)"
        )


def _next_version(target: Path) -> int:
    """Return the number after that of an installed model; 1 when there is none."""
    if not (target / MANIFEST).is_file():
        return 1
    numbers = [name.split("/")[0] for name in read_manifest(target)["files"]]
    return 1 + max((int(n) for n in numbers if n.isdecimal()), default=0)


def _take_encoder(model: Artifact, draft: Path, version: int) -> dict[str, Any]:
    """Copy the encoder's version folder, its code left out; give its facts, their paths in the new version."""
    names = {n: n.split("/", 1)[1] for n in model.manifest["files"] if "/" in n and not n.endswith(f"/{MODEL_CODE}")}
    for old, new in names.items():
        _copy(model, old, draft / str(version) / new)
    return {k: f"{version}/{names[v]}" if isinstance(v, str) and v in names else v for k, v in model.facts.items()}


def _copy(artifact: Artifact, name: str, target: Path) -> None:
    """Copy a file of a folder that was opened; XtError when it is not what was opened any more."""
    target.parent.mkdir(parents=True, exist_ok=True)
    copy_file(artifact.path / name, target)
    if sha256(target) != artifact.manifest["files"][name]["sha256"]:
        raise XtError(f"{artifact.path / name} changed while it was copied.", "Run it again when it is at rest.")


def _config(template: str, name: str, facts: dict[str, Any]) -> str:
    """Fill the committed config.pbtxt: the model's name, and the facts that a client may read."""
    from xt.serve.triton import model_config

    config = model_config.parse(template)
    config.name = name
    config.parameters["xt"].string_value = json.dumps(facts, sort_keys=True)
    return model_config.to_text(config)
