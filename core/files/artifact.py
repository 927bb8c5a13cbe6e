"""Artefact folders: written whole or not at all, each with a manifest `xt.json` that says what it is and what is in it.

The manifest is written last, into a temporary sibling that is then renamed, so that its presence means *complete*.
It lists every file with its size and SHA-256, which `open_artifact` checks before anything is loaded.
"""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xt.core import __version__
from xt.core.errors import XtError, explain_os_error, unknown
from xt.core.files import drafts, replacing
from xt.core.files.replacing import MANIFEST

SCHEMA = 1


@dataclass(frozen=True)
class Artifact:
    """A complete artefact folder that was opened and checked."""

    path: Path
    manifest: dict[str, Any]

    @property
    def facts(self) -> dict[str, Any]:
        """The stage's own facts."""
        return dict(self.manifest["facts"])

    @property
    def hash(self) -> str:
        """The content hash: it covers every file and the facts, not the time or place of writing."""
        return str(self.manifest["hash"])

    def as_parent(self) -> dict[str, str]:
        """Return how a folder made from this one names it in its own manifest."""
        return {"kind": self.manifest["kind"], "path": str(self.path), "hash": self.hash}


@dataclass
class Draft:
    """An artefact folder being written: put files below `path`, facts into `facts`, parents into `parents`."""

    path: Path
    facts: dict[str, Any] = field(default_factory=dict)
    parents: list[dict[str, str]] = field(default_factory=list)
    seed: int | None = None
    read_only: bool = False
    """Whether its files can be written to by nobody, its owner included, who can still replace the folder."""


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        if sys.version_info >= (3, 11):
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # a dead writer's of the same number; a link is removed, not followed
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path, hint: str = "Make it again.") -> Any:
    """Read a JSON file; XtError that names it where it is missing, no JSON, or nested too deeply."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise XtError(f"{path} cannot be read: {error.strerror or error}.", hint) from error
    except RecursionError:
        raise XtError(f"{path} is not readable as JSON: it is nested too deeply.", hint) from None
    except ValueError as error:
        raise XtError(f"{path} is not readable as JSON: {error}", hint) from error


def command_line() -> str:
    """Return the command that runs now, as one can type it again."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _digest(files: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    content = {name: entry["sha256"] for name, entry in sorted(files.items())}
    return hashlib.sha256(json.dumps([content, facts], sort_keys=True, default=str).encode()).hexdigest()


def model_role(facts: Mapping[str, Any]) -> str:
    """Return what a folder of kind `model` serves: encoder, head, retriever, or the graph of a divided model."""
    if facts.get("kind") == "retriever":
        return "retriever"
    if "served_as" in facts:
        return "graph"
    return "head" if "task" in facts else "encoder"


def check_model_name(name: str) -> None:
    """Raise XtError for a model's name that Triton or the disk would not take."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name):
        raise XtError(f"{name!r} cannot name a model.", "Use letters, digits, '-' and '_', a letter first.")


def refuse_existing(
    target: Path,
    *,
    force: bool,
    kind: str,
    role: str | None = None,
    inputs: Iterable[Path] = (),
    trees: Iterable[Path] = (),
) -> None:
    """Raise XtError when `target` is there and may not be replaced. Called before the work, not after it.

    An empty folder may be written into. Any other is replaced with `force` alone, and only when xt wrote it, it is of
    the same kind, it holds nothing else, and the command reads nothing in it.

    Args:
        target: the folder to write.
        force: whether the user wants it replaced.
        kind: what is written: "checkpoint", "model", "report", ...
        role: of a model, what it serves: see `model_role`.
        inputs: what the command reads.
        trees: folders that it reads with all that lies below them.
    """
    replacing.refuse_place(target)
    if not target.exists():
        return
    if not force:
        if not any(target.iterdir()):
            return
        state = "is complete" if (target / MANIFEST).is_file() else "exists"
        try:
            refuse_existing(target, force=True, kind=kind, role=role, inputs=inputs, trees=trees)
            hint = "Choose another --out, or pass --force to replace it."
        except XtError as error:
            hint = f"Choose another --out. --force would not replace it: {error.message}"
        raise XtError(f"{target} {state} already.", hint)
    replacing.refuse_inputs(target, inputs, trees)
    if any(target.iterdir()):
        _own(target, kind, role)


def _own(folder: Path, kind: str, role: str | None = None) -> dict[str, Any]:
    """Return the manifest of a folder that may be replaced by one of this kind; XtError where it may not."""
    remove = "Choose another --out, or move the folder away yourself."
    if not (folder / MANIFEST).is_file():
        found = replacing.some(sorted(p.name for p in folder.iterdir()))
        raise XtError(f"{folder} was not written by xt, so it is not replaced: it has no {MANIFEST} ({found}).", remove)
    try:
        manifest = read_manifest(folder)
    except XtError as error:
        raise XtError(f"{folder} is not replaced: {error.message}", remove) from error
    here = manifest["kind"]
    if here != kind:
        raise XtError(f"{folder} is a {here!r} folder; this command replaces a {kind!r} folder alone.", remove)
    if role is not None and (serves := model_role(manifest["facts"])) != role:
        raise XtError(f"{folder} serves as {serves}; it is not replaced by a {role}.", f"Choose another name. {remove}")
    if others := replacing.foreign(folder, replacing.listed(manifest)):
        raise XtError(
            f"{folder} holds what xt did not write there, so it is not replaced: {replacing.some(others)}.",
            "Move these files away, or choose another --out.",
        )
    return manifest


def remove_artifact(folder: Path) -> bool:
    """Remove a folder that xt wrote, its own files alone; whether it is gone. A folder without a file goes as well."""
    try:
        ours = replacing.listed(read_manifest(folder)) if (folder / MANIFEST).is_file() else _nothing
    except XtError:
        ours = _nothing
    return replacing.remove(folder, ours)


def _nothing(_name: str) -> bool:
    return False


def explain_full_disk(error: Exception, target: Path) -> None:
    """Raise the XtError for a full disk if `error` is one: safetensors and ONNX Runtime have errors of their own."""
    if os.strerror(errno.ENOSPC) in str(error):
        raise explain_os_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))) from error


@contextmanager
def new_artifact(target: Path, *, kind: str, force: bool = False) -> Iterator[Draft]:
    """Write an artefact folder: all of it appears at `target` when the block ends well, nothing when it does not.

    Args:
        target: the folder to make; refused when it exists, unless `force` (see `refuse_existing`).
        kind: what it is: "checkpoint", "model", "report", ...
        force: replace what is there, once the new folder is complete.
    """
    try:
        drafts.sweep(target, remove_artifact)
        refuse_existing(target, force=force, kind=kind)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder, handle = drafts.make(target)
    except OSError as error:
        raise explain_os_error(error) from error
    try:
        draft = Draft(folder / drafts.NEW)
        draft.path.mkdir()
        yield draft
        _finish(draft, target, kind, force=force)
    except OSError as error:
        if error.filename is None or str(folder) in str(error.filename):
            raise explain_os_error(error) from error
        raise
    except Exception as error:
        explain_full_disk(error, target)
        raise
    finally:
        drafts.end(folder, handle)


def _finish(draft: Draft, target: Path, kind: str, *, force: bool) -> None:
    paths = sorted(p for p in draft.path.rglob("*") if p.is_file())
    for path in paths:  # safetensors writes 0600, which a server run by another user could not read
        path.chmod(0o444 if draft.read_only else 0o644)
    names = [p.relative_to(draft.path).as_posix() for p in paths]
    files = {n: {"bytes": p.stat().st_size, "sha256": sha256(p)} for n, p in zip(names, paths, strict=True)}
    facts = json.loads(json.dumps(draft.facts, allow_nan=False, default=str))
    manifest = {
        "kind": kind,
        "schema": SCHEMA,
        "xt_version": __version__,
        "created": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "command": command_line(),
        "seed": draft.seed,
        "parents": draft.parents,
        "hash": _digest(files, facts),
        "facts": facts,
        "files": files,
    }
    write_json(draft.path / MANIFEST, manifest)
    _replace(draft, target, kind, force=force)


def _replace(draft: Draft, target: Path, kind: str, *, force: bool) -> None:
    """Put a complete draft in the place of `target`; where that holds what may not be replaced by now, beside it."""
    old = draft.path.with_name(drafts.OLD)
    try:
        if target.is_symlink() or (os.path.lexists(target) and not target.is_dir()):
            raise XtError(f"{target} is no folder any more.")
        if target.exists():
            target.rename(old)
            if any(old.iterdir()):
                if not force:
                    raise XtError(f"{target} exists by now.")
                _own(old, kind)
        draft.path.rename(target)
    except BaseException as error:
        if old.exists() and not os.path.lexists(target):
            old.rename(target)
        if isinstance(error, XtError):
            reason = error.message.replace(str(old), str(target))
            raise XtError(
                f"{target} changed while this command ran, so it was not replaced: {reason}",
                f"What was made is complete, in {drafts.aside(draft.path, target)}.",
            ) from error
        raise
    if not remove_artifact(old) and replacing.foreign(old, drafts.held_open):
        raise XtError(
            f"{target} was replaced; of the folder before something could not be removed.",
            f"It is in {old}: look at it, and remove it.",
        )


def read_manifest(path: Path) -> dict[str, Any]:
    """Read and validate the manifest alone."""
    if not path.is_dir():
        raise XtError(f"There is no folder {path}.", "Check the path.")
    file = path / MANIFEST
    if not file.is_file():
        found = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise XtError(
            f"{path} has no {MANIFEST}, so it is not a complete xt folder (found: {found}).",
            "It was not made by xt, or its writing was cut short: make it again.",
        )
    manifest = read_json(file, "Make the folder again.")
    if not isinstance(manifest, dict):
        raise XtError(f"{file} holds a JSON {type(manifest).__name__}, no object.", "Make the folder again.")
    missing = {"kind", "schema", "facts", "files", "hash"} - set(manifest)
    if missing:
        raise XtError(f"{file} lacks {', '.join(sorted(missing))}.", "Make the folder again.")
    if not isinstance(manifest["facts"], dict):
        raise XtError(f"{file} does not hold its facts as a table.", "Make the folder again.")
    entries = list(manifest["files"].values()) if isinstance(manifest["files"], dict) else [None]
    if not all(isinstance(e, dict) and {"bytes", "sha256"} <= set(e) for e in entries):
        raise XtError(f"{file} does not list its files with bytes and sha256.", "Make the folder again.")
    if not isinstance(manifest["facts"], dict):
        raise XtError(f"{file} has facts that are no object.", "Make the folder again.")
    if manifest["schema"] != SCHEMA:
        raise XtError(
            f"{file} has schema {manifest['schema']}; this xt ({__version__}) reads {SCHEMA}.",
            "Make the folder again, or use the xt version that it names.",
        )
    return dict(manifest)


def damaged_files(path: Path, manifest: Mapping[str, Any]) -> list[str]:
    """List the files of a folder that are missing, of another size, or of other content than its manifest says."""
    problems = []
    for name, entry in manifest["files"].items():
        file = path / name
        if not file.is_file():
            problems.append(f"{name}: missing")
        elif file.stat().st_size != entry["bytes"]:
            problems.append(f"{name}: {file.stat().st_size} bytes, expected {entry['bytes']}")
        elif sha256(file) != entry["sha256"]:
            problems.append(f"{name}: content differs (SHA-256)")
    if not problems and _digest(manifest["files"], manifest["facts"]) != manifest["hash"]:
        problems.append(f"{MANIFEST}: its facts were edited (hash differs)")
    return problems


def open_artifact(path: Path, *, kind: str | None = None) -> Artifact:
    """Open a complete folder, every file checked against the manifest.

    Raises XtError when the manifest is missing or unreadable, when the folder is of another kind, or when a file is
    missing or damaged.
    """
    manifest = read_manifest(path)
    if kind and manifest["kind"] != kind:
        raise XtError(f"{path} is a {manifest['kind']!r} folder; a {kind!r} folder is needed.", "Check the path.")
    problems = damaged_files(path, manifest)
    if problems:
        raise XtError(f"{path} is damaged: {'; '.join(problems[:5])}.", "Copy or make it again.")
    return Artifact(path, manifest)


def open_repository(repository: Path) -> dict[str, Artifact]:
    """Open every model of a repository, each file checked: name -> artefact. Raises XtError when there is none."""
    if not repository.is_dir():
        raise XtError(f"There is no folder {repository}.", "Make one with `xt export`.")
    models = {p.parent.name: open_artifact(p.parent, kind="model") for p in sorted(repository.glob("*/config.pbtxt"))}
    if not models:
        raise XtError(f"{repository} holds no model.", "Name a repository that `xt export` wrote.")
    return models


def exported_model(path: Path, name: str | None = None) -> Path | None:
    """Find the exported model that a path means: a model's folder, or the one named of a repository; None: neither.

    Raises XtError when a repository holds several and none is named, or none of that name.
    """
    if path.is_dir() and (path / MANIFEST).is_file() and read_manifest(path)["kind"] == "model":
        return path
    if not (path.is_dir() and any(path.glob("*/config.pbtxt"))):
        return None
    models = open_repository(path)
    if name is None and len(models) > 1:
        raise XtError(f"{path} holds {', '.join(models)}.", "Choose by --model.")
    chosen = name or next(iter(models))
    if chosen not in models:
        raise unknown("model", chosen, models)
    return models[chosen].path
