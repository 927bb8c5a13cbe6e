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
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xt.core import __version__
from xt.core.errors import XtError, explain_os_error, unknown

MANIFEST = "xt.json"
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
        """How a folder made from this one names it in its own manifest."""
        return {"kind": self.manifest["kind"], "path": str(self.path), "hash": self.hash}


@dataclass
class Draft:
    """An artefact folder being written: put files below `path`, facts into `facts`, parents into `parents`."""

    path: Path
    facts: dict[str, Any] = field(default_factory=dict)
    parents: list[dict[str, str]] = field(default_factory=list)
    seed: int | None = None


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
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"
        temporary.write_text(text, encoding="utf-8")
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
    """The command that runs now, as one can type it again."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _digest(files: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    content = {name: entry["sha256"] for name, entry in sorted(files.items())}
    return hashlib.sha256(json.dumps([content, facts], sort_keys=True, default=str).encode()).hexdigest()


def refuse_existing(target: Path, *, force: bool) -> None:
    """Raise when `target` is there and may not be replaced. Called before the work, not after it."""
    if target.exists() and not force:
        state = "is complete" if (target / MANIFEST).is_file() else "exists"
        raise XtError(f"{target} {state} already.", "Choose another --out, or pass --force to replace it.")


def _sweep(target: Path) -> None:
    """Remove the drafts of `target` whose writers are dead (killed before they could clean up).

    A writer killed between the two renames of a replacement left the old folder aside: it is put back.
    """
    start = f".{target.name}.draft-"
    for draft in target.parent.glob(f"{start}*"):
        writer = draft.name.removeprefix(start).removesuffix(".old")
        # Our own number is a dead writer's too: in containers process numbers repeat.
        if not writer.isdigit() or (int(writer) != os.getpid() and Path(f"/proc/{writer}").exists()):
            continue
        if draft.suffix == ".old" and not target.exists():
            draft.rename(target)
        else:
            shutil.rmtree(draft, ignore_errors=True)


def explain_full_disk(error: Exception, target: Path) -> None:
    """Raise the XtError for a full disk if `error` is one: safetensors and ONNX Runtime have errors of their own."""
    if os.strerror(errno.ENOSPC) in str(error):
        raise explain_os_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))) from error


@contextmanager
def new_artifact(target: Path, *, kind: str, force: bool = False) -> Iterator[Draft]:
    """Write an artefact folder: all of it appears at `target` when the block ends well, nothing when it does not.

    Args:
        target: the folder to make; refused when it exists, unless `force`.
        kind: what it is: "checkpoint", "model", "report", ...
        force: replace what is there, once the new folder is complete.
    """
    try:
        _sweep(target)
        refuse_existing(target, force=force)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Draft(target.parent / f".{target.name}.draft-{os.getpid()}")
        draft.path.mkdir()
    except OSError as error:
        raise explain_os_error(error) from error
    try:
        yield draft
        _finish(draft, target, kind)
    except OSError as error:
        if error.filename is None or str(draft.path.parent) in str(error.filename):
            raise explain_os_error(error) from error
        raise
    except Exception as error:
        explain_full_disk(error, target)
        raise
    finally:
        shutil.rmtree(draft.path, ignore_errors=True)


def _finish(draft: Draft, target: Path, kind: str) -> None:
    paths = sorted(p for p in draft.path.rglob("*") if p.is_file())
    for path in paths:
        path.chmod(0o644)  # safetensors writes 0600, which a server run by another user could not read
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
    old = draft.path.with_name(f"{draft.path.name}.old")
    try:
        if target.exists():
            target.rename(old)
        draft.path.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


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
