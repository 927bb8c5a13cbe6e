"""The parts of docs/ that are made from the code: tables of tasks, of encoders, of every command's options and of the tests' mutations.

`python -m tests.reference` (`make docs`) writes them anew between their marks; `tests/test_docs.py` checks that they are
current.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import typer

from tests.mutations import MUTATIONS
from xt.calibration.methods import METHODS
from xt.cli.main import app
from xt.core.data.task_table import TASKS
from xt.core.encoder.resolve import ENCODERS

DOCS = Path(__file__).resolve().parent.parent / "docs"
MARKED = re.compile(r"(<!-- generated: ([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line).strip() + " |\n" for line in lines)


def tasks() -> str:
    """Return the table of tasks."""
    rows = []
    for task in TASKS.values():
        examples = f"on `{task.train_on}`" if task.train_on else f"{task.sizes['train']:,}" if task.sizes else ""
        hub = task.hub.id if task.hub else ""
        rows.append([f"`{task.name}`", task.kind, task.format, task.metric, task.licence, examples, hub])
    return table(["task", "kind", "format", "metric", "licence", "training examples", "hub id"], rows)


def encoders() -> str:
    """Return the table of encoders with a short name."""
    rows = []
    for name, row in ENCODERS.items():
        spec = row.spec
        prefix = spec.prefixes.get(spec.default_prefix, "").strip() if spec.default_prefix else ""
        rows.append(
            [f"`{name}`", row.hub, str(spec.dim), spec.pooling, prefix or "none", str(spec.max_length), spec.licence]
        )
    return table(["encoder", "hub id", "dimensions", "pooling", "prefix", "tokens", "licence"], rows)


@cache
def leaves() -> dict[str, Any]:
    """Return every command by its name, in the order of `xt --help`."""
    return {
        f"{name} {inner}".strip(): leaf
        for name, top in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
        for inner, leaf in getattr(top, "commands", {"": top}).items()
    }


def parse(words: list[str]) -> None:
    """Check the words of a command line, without `xt`, as the command itself does; an error where it would refuse."""
    known = leaves()
    name = next((n for n in (" ".join(words[:2]), words[0]) if n in known), "")
    if not name:
        raise ValueError(f"there is no command `xt {' '.join(words[:2])}`")
    known[name].make_context(name.split()[-1], list(words[len(name.split()) :]))


def plain(text: str) -> str:
    """Return a help text as Markdown shows it unchanged: one line, no HTML."""
    return " ".join(text.split()).replace("<", "&lt;")


def _option(parameter: Any) -> list[str]:
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    flag = bool(getattr(parameter, "is_flag", False))
    default = parameter.default
    if parameter.required:
        shown = "required"
    elif isinstance(parameter.show_default, str):
        shown = parameter.show_default
    elif default is None or default == "" or default == [] or callable(default) or flag:
        shown = ""
    else:
        shown = f"`{default}`"
    return [names, shown, plain(parameter.help)]


def commands() -> str:
    """Return the arguments and options of every command."""
    parts = []
    for name, leaf in leaves().items():
        arguments = [p for p in leaf.params if p.param_type_name == "argument"]
        options = [p for p in leaf.params if p.param_type_name == "option" and not p.hidden and p.name != "help"]
        examples = [line for line in (leaf.epilog or "").splitlines() if line.startswith("xt ")]
        parts.append(f"## xt {name}\n\n{leaf.help}\n\n```\n" + "".join(f"$ {e}\n" for e in examples) + "```\n")
        if arguments:
            rows = [[f"`{(p.metavar or p.name).strip('{}').upper()}`", plain(p.help)] for p in arguments]
            parts.append(table(["argument", "what it is"], rows))
        if options:
            parts.append(table(["option", "default", "what it does"], [_option(p) for p in options]))
    return "\n".join(parts)


def methods() -> str:
    """Return the table of methods of calibration."""
    rows = []
    for row in METHODS.values():
        title = row.title.replace("{temperature:g}", "t").replace("{where}", "...")
        rows.append([f"`{row.name}`", title, row.fit, row.labels, ", ".join(row.of)])
    return table(["method", "what it is", "what is fitted", "labels it needs", "of"], rows)


def mutations() -> str:
    """Return the table of the claims that are broken on purpose."""
    rows = []
    for row in MUTATIONS:
        old, new = (" ".join(code.split()) for code in (row.old, row.new))
        file, _, name = row.test.rpartition("::")
        rows.append([row.claim, f"`{row.file}`: `{old}` becomes `{new}`", f"`{file}`: `{name}`"])
    return table(["claim", "what is changed", "what fails"], rows)


PARTS: dict[str, Callable[[], str]] = {
    "tasks": tasks,
    "encoders": encoders,
    "commands": commands,
    "methods": methods,
    "mutations": mutations,
}


def renewed(text: str) -> str:
    """Return a page with every generated part made anew."""
    return MARKED.sub(lambda found: found[1] + PARTS[found[2]]() + found[3], text)


def main() -> None:
    """Write the generated parts of docs/ anew."""
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (after := renewed(text)) != text:
            page.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
