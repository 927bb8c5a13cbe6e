"""The README tells the truth: its tables are the registries', its commands parse, its folder map names every folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from xt.cli.main import app
from xt.core.data.task_table import TASKS
from xt.core.encoder.resolve import ENCODERS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(
    {line.removeprefix("$ ").split(" #")[0].strip() for line in README.splitlines() if re.match(r"\$ xt ", line)}
)


def test_readme_shows_enough_commands() -> None:
    assert len(COMMANDS) >= 7


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_commands_parse(command: str) -> None:
    words = shlex.split(command)[1:]
    group = typer.main.get_command(app)
    name = words[0]
    assert name in group.commands, f"README names `xt {name}`"  # type: ignore[attr-defined]
    leaf = group.commands[name]  # type: ignore[attr-defined]
    if hasattr(leaf, "commands"):
        assert words[1] in leaf.commands, f"README names `xt {name} {words[1]}`"
        leaf = leaf.commands[words[1]]
    known = {o for p in leaf.params for o in (*p.opts, *p.secondary_opts)}
    used = {w.split("=")[0] for w in words[1:] if w.startswith("--")}
    assert used <= known, f"`{command}` uses {used - known}"


def test_every_task_and_encoder_is_in_the_readme() -> None:
    for row in TASKS.values():
        line = f"| `{row.name}` | {row.kind} | {row.format} | {row.metric} | {row.licence} |"
        size = f"on `{row.train_on}`" if row.train_on else f"{row.sizes['train']:,}" if "train" in row.sizes else ""
        cells = [cell.strip() for found in README.splitlines() if found.startswith(line) for cell in found.split("|")]
        assert cells[6:8] == [size, row.hub.id if row.hub else ""], line
    for name, encoder in ENCODERS.items():
        assert f"| `{name}` | {encoder.hub} | {encoder.spec.dim} |" in README


def test_every_folder_of_sources_is_in_the_folder_map() -> None:
    tree = README.split("## The tree")[1]
    packages = [
        p.parent.relative_to(ROOT) for top in ROOT.glob("*/__init__.py") for p in top.parent.rglob("__init__.py")
    ]
    missing = [str(p) for p in packages if not re.search(rf"(?<!\w){re.escape(p.name)}/", tree)]
    assert len(packages) > 20
    assert not missing
