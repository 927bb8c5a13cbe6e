"""The state of an unfinished training beside its output, so that --resume goes on as if nothing had happened.

`<out>.training/` holds `run.json` (the settings), `state-<step>/` (trained weights, AdamW's moments, schedule, curves)
and `best.safetensors`. Each is written under another name, brought to the disk, and renamed: at any moment the newest
`state-<step>` is whole. Randomness needs no state: everything drawn depends on the seed and the step alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xt.core.errors import XtError, explain_os_error
from xt.core.files.artifact import MANIFEST, explain_full_disk, read_json, read_manifest, write_json
from xt.core.files.drafts import LOCK, NEW, OLD
from xt.core.files.replacing import foreign, listed, remove, some

IGNORED_SETTINGS = ("out", "force", "resume", "device", "log_to", "save_every", "micro_tokens")
"""Settings that may change when a training goes on: they do not change what it computes (but how it is rounded, and
with `micro_tokens` and `device` which units dropout takes out)."""

TENSORS = "tensors.safetensors"
FACTS = "state.json"
STATE_FILE = re.compile(
    r"(phase-(target|intermediate)/)?((state|draft)-\d+/(tensors\.safetensors|\.?state\.json(\.\d+)?)"
    r"|best\.safetensors|best\.draft|\.?run\.json(\.\d+)?)"
    rf"|\.intermediate\.draft-\d+(-\d+)?/({LOCK}|({NEW}|{OLD})/.*)"
)
"""Every file that a training writes into its work folder, besides a completed phase's checkpoint."""


def work_folder(out: Path) -> Path:
    """Return where the state of the training that writes `out` is kept."""
    out = out.absolute()
    return out.with_name(f"{out.name}.training")


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _settle(path: Path) -> None:
    """Bring a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Work:
    """The work folder of one phase of a training."""

    folder: Path

    @property
    def run(self) -> Path:
        """The settings that the training was started with."""
        return self.folder / "run.json"

    @property
    def best(self) -> Path:
        """The trained weights with the best dev score so far."""
        return self.folder / "best.safetensors"

    def states(self) -> list[Path]:
        """List the whole states, the newest last."""
        found = [p for p in self.folder.glob("state-*") if p.name.removeprefix("state-").isdigit()]
        whole = [p for p in found if all((p / name).is_file() for name in (TENSORS, FACTS))]
        return sorted(whole, key=lambda p: int(p.name.removeprefix("state-")))

    def progress(self) -> bool:
        """Return whether there is anything to go on with: a state, or a phase that was completed."""
        phases = [Work(p) for p in self.folder.glob("phase-*")]
        return any(phase.states() for phase in phases) or any(self.folder.glob(f"*/{MANIFEST}"))

    def _ours(self) -> Callable[[str], bool]:
        """Return what recognises a file of this folder that a training wrote, by its path relative to the folder."""
        phases = {p.parent.name: listed(read_manifest(p.parent)) for p in self.folder.glob(f"*/{MANIFEST}")}

        def ours(name: str) -> bool:
            first, _, rest = name.partition("/")
            return bool(STATE_FILE.fullmatch(name)) or (first in phases and phases[first](rest))

        return ours

    def refuse_foreign(self) -> None:
        """Raise XtError when something else than a training's state has the work folder's name, or lies in it."""
        if not os.path.lexists(self.folder):
            return
        if self.folder.is_symlink() or not self.folder.is_dir():
            raise XtError(f"{self.folder}, where the state is kept meanwhile, is no folder.", "Choose another --out.")
        if others := foreign(self.folder, self._ours()):
            raise XtError(
                f"{self.folder}, where the state is kept meanwhile, holds what xt did not write: {some(others)}.",
                "Move these files away, or choose another --out.",
            )

    def remove(self) -> None:
        """Remove the state; what is not a training's stays."""
        remove(self.folder, self._ours())

    def settings(self) -> dict[str, Any]:
        """Read the settings that the training was started with."""
        found: dict[str, Any] = read_json(self.run, f"Remove {self.folder} and train again.")
        return found

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Make the folder anew and note the settings."""
        try:
            self.refuse_foreign()
            self.remove()
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.run, dict(settings))
        except OSError as error:
            raise explain_os_error(error) from error

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise XtError unless these are the settings that the training was started with."""
        before = self.settings()
        changed = [
            f"{name}: {before.get(name)!r} then, {value!r} now"
            for name, value in settings.items()
            if name not in IGNORED_SETTINGS and before.get(name) != value
        ]
        if changed:
            raise XtError(
                f"The interrupted training in {self.folder} has other settings:\n  " + "\n  ".join(changed),
                f"Give the same settings, or remove {self.folder} to begin anew.",
            )

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write the state after a step and remove the older ones."""
        target, draft = self.folder / f"state-{step}", self.folder / f"draft-{step}"
        try:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, draft / TENSORS)
            write_json(draft / FACTS, {"step": step, **facts})
            for file in (*draft.iterdir(), draft):
                _settle(file)
            older = self.states()
            os.replace(draft, target)
            _settle(self.folder)
            for folder in older:
                if folder != target:
                    shutil.rmtree(folder, ignore_errors=True)
        except OSError as error:
            raise explain_os_error(error) from error
        except Exception as error:
            explain_full_disk(error, draft)
            raise

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Read the newest state; None when there is none yet."""
        found = self.states()
        if not found:
            return None
        try:
            facts: dict[str, Any] = json.loads((found[-1] / FACTS).read_text(encoding="utf-8"))
            return load_file(found[-1] / TENSORS), facts
        except Exception as error:  # safetensors raises its own
            raise XtError(f"{found[-1]} is damaged: {error}", f"Remove {self.folder} and train again.") from error

    def save_best(self, weights: Mapping[str, Tensor]) -> None:
        """Keep the trained weights as the best so far."""
        draft = self.folder / "best.draft"
        try:
            save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, draft)
            _settle(draft)
            os.replace(draft, self.best)
        except OSError as error:
            raise explain_os_error(error) from error
        except Exception as error:
            explain_full_disk(error, draft)
            raise

    def load_best(self, model: nn.Module) -> None:
        """Put the best weights into the model."""
        copy_into(trained(model), load_file(self.best))


def copy_into(parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Put tensors into the parameters of the same names, all of which must be there."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def pack(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the trained weights and AdamW's state of each, as `weight/NAME`, `exp_avg/NAME`, ..."""
    tensors = {}
    for name, parameter in trained(model).items():
        tensors[f"weight/{name}"] = parameter.detach()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}/{name}"] = value if isinstance(value, Tensor) else torch.tensor(float(value))
    return tensors


def unpack(tensors: Mapping[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put what `pack` gave into a model and an optimizer of the same form."""
    unpack_weights(tensors, model)
    for name, parameter in trained(model).items():
        found = {key: tensors.get(f"{key}/{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
        state = {key: value.to(parameter.device) for key, value in found.items() if value is not None}
        if state:
            optimizer.state[parameter] = state


def unpack_weights(tensors: Mapping[str, Tensor], model: nn.Module) -> None:
    """Put the weights alone of what `pack` gave into a model."""
    weights = {k.removeprefix("weight/"): v for k, v in tensors.items() if k.startswith("weight/")}
    copy_into(trained(model), weights)
