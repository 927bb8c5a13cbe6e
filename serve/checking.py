"""`xt check`: whether a folder that xt wrote is complete and undamaged, and holds no code but xt's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xt.core.errors import CheckFailed
from xt.core.files.artifact import MANIFEST, damaged_files, read_manifest
from xt.core.files.replacing import some
from xt.serve.triton.model_code import HINT, strangers, untrusted

SHOWN = ("kind", "created", "xt_version", "command", "seed", "parents", "hash", "facts")


@dataclass(frozen=True)
class CheckedFolder:
    """One folder that was looked at."""

    path: Path
    manifest: dict[str, Any]
    problems: tuple[str, ...]
    """What is missing, damaged or too much."""
    code: tuple[str, ...]
    """What of a model could run and is not xt's."""

    @property
    def megabytes(self) -> float:
        """Of all files that the manifest names."""
        return float(sum(f["bytes"] for f in self.manifest["files"].values()) / 1e6)

    def to_json(self) -> dict[str, Any]:
        """Return it as `xt check --json` prints it."""
        shown = {name: self.manifest[name] for name in SHOWN}
        return {"path": str(self.path), "problems": list(self.problems), "code": list(self.code), **shown}


def check_folder(folder: Path) -> tuple[list[CheckedFolder], list[str]]:
    """Look at a folder, or at every model of a repository; return them, and what in it xt did not write."""
    folders, others = [folder], []
    if not (folder / MANIFEST).is_file() and (models := sorted(p.parent for p in folder.glob("*/config.pbtxt"))):
        others = strangers(folder)
        folders = [path for path in models if path.name not in others]
    found = []
    for path in folders:
        manifest = read_manifest(path)
        code = untrusted(path) if manifest["kind"] == "model" else []
        found.append(CheckedFolder(path, manifest, tuple(damaged_files(path, manifest)), tuple(code)))
    return found, [f"{folder / name}: no folder that xt wrote" for name in others]


def refuse_problems(folders: Sequence[CheckedFolder], others: Sequence[str]) -> None:
    """Raise CheckFailed where a folder is damaged, or could run what is not xt's."""
    damaged = [f"{f.path}: {problem}" for f in folders for problem in f.problems]
    code = [*others, *(f"{f.path}: {problem}" for f in folders for problem in f.code)]
    if damaged:
        raise CheckFailed(f"Damaged: {some(damaged + code)}.", "Copy or make the folder again.")
    if code:
        raise CheckFailed(f"What may run as code and is not xt's: {some(code)}.", HINT)
