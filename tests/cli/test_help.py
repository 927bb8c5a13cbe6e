"""Help: of every command, with examples that parse, and at once.

Tests `cli/main.py` as well.
"""

from __future__ import annotations

import ast
import shlex
import subprocess
import sys
import time
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tests.command import XT, started
from xt.cli.main import app

GROUP = typer.main.get_command(app)
LEAVES = {
    " ".join(path): command
    for name, top in GROUP.commands.items()
    for path, command in (
        [((name, inner), leaf) for inner, leaf in top.commands.items()]
        if hasattr(top, "commands")
        else [((name,), top)]
    )
}
COMMANDS = sorted(LEAVES)
TIMES_THE_LIBRARIES = 4.0
"""What `xt --help` may take, in times of importing the library that prints it: 2 to 2.5 here, torch would be 10."""


def examples(command: str) -> list[str]:
    """The lines of a command's epilog that begin with `xt`."""
    return [line for line in (LEAVES[command].epilog or "").splitlines() if line.startswith("xt ")]


def leaf(command: str) -> Any:
    return LEAVES[command]


def test_these_are_the_commands():
    alone = ["bench", "check", "doctor", "encode", "eval", "export", "index", "quickstart", "reload", "search", "serve"]
    alone += ["tasks", "train"]
    grouped = ["images emoji", "images encode", "study list", "study report", "study run"]
    assert sorted(alone + grouped) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_shows_its_purpose_its_options_and_two_examples(command):
    answer = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*command.split(), "--help"])
    assert (answer.exit_code, answer.stderr) == (0, "")
    shown = " ".join(answer.stdout.replace("│", " ").split())
    assert (leaf(command).help or "").splitlines()[0] in shown
    assert len(examples(command)) >= 2
    for line in examples(command):
        assert line in shown
    options = [p.opts[0] for p in leaf(command).params if p.param_type_name == "option"]
    assert options or command == "check"
    assert [o for o in options if o not in shown] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_parses(command):
    for line in examples(command):
        words = command.split()
        program, *arguments = shlex.split(line)
        assert [program, *arguments[: len(words)]] == ["xt", *words]
        leaf(command).make_context(words[-1], arguments[len(words) :])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_changes(command):
    silent = [p.name for p in leaf(command).params if not getattr(p, "help", None)]
    assert silent == []


def test_the_shared_options_mean_the_same_everywhere():
    meanings: dict[str, set[str]] = {}
    for command in COMMANDS:
        for parameter in leaf(command).params:
            if parameter.param_type_name == "option" and parameter.name in (
                "json",
                "force",
                "seed",
                "device",
                "data_dir",
                "url",
                "model",
                "tls_ca",
                "tls_cert",
                "tls_key",
            ):
                told, _, _ = str(getattr(parameter, "help", "")).partition("  [default: ")
                meanings.setdefault(parameter.name, set()).add(told)
    assert len(meanings) == 10
    assert {name: len(texts) for name, texts in meanings.items()} == dict.fromkeys(meanings, 1)


def test_every_command_that_reaches_a_server_by_url_has_the_options_of_its_encryption():
    reaching = [c for c in COMMANDS if any(p.name == "url" for p in leaf(c).params)]
    assert len(reaching) >= 6
    for command in reaching:
        names = {p.name for p in leaf(command).params}
        assert {"tls_ca", "tls_cert", "tls_key"} <= names, command


def test_help_of_xt_lists_every_command():
    answer = started("--help")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert all(command in answer.stdout for command in GROUP.commands)
    assert started("-h").stdout == answer.stdout


def test_xt_alone_shows_the_help_and_counts_as_wrong_usage():
    answer = started()
    assert answer.returncode == 2
    assert "Usage: xt" in answer.stdout + answer.stderr


def test_the_version_is_the_packages():
    from importlib.metadata import version

    answer = started("--version")
    assert (answer.returncode, answer.stdout) == (0, f"xt {version('xt-retriever')}\n")


def test_help_comes_at_once():
    def seconds(*command: str) -> float:
        started = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        return time.perf_counter() - started

    pairs = [(seconds(XT, "--help"), seconds(sys.executable, "-c", "import typer.rich_utils")) for _ in range(5)]
    assert min(help_ for help_, _ in pairs) < TIMES_THE_LIBRARIES * min(library for _, library in pairs)


HEAVY = (
    "torch",
    "transformers",
    "numpy",
    "onnx",
    "onnxruntime",
    "optimum",
    "faiss",
    "tritonclient",
    "pyarrow",
    "scipy",
)


def imported(code: str) -> set[str]:
    """The modules of `HEAVY` that a fresh interpreter holds after running `code`."""
    line = f"{code}\nimport sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    return set(ast.literal_eval(answer.stdout.splitlines()[-1]))


def test_the_command_line_imports_nothing_heavy():
    assert imported("from xt.cli.main import app") == set()


def test_the_serving_path_imports_neither_torch_nor_transformers(tiny_repository):
    code = f"""
import xt.core.files.artifact, xt.calibration.apply.retrieval, xt.core.errors, xt.core.vectors, xt.core.encoder.spec, xt.core.encoder.text
import xt.serve.client.encoder
from pathlib import Path
from xt.core.encoder.onnx_engine import check_golden, load_model
encoder, artifact = load_model(Path({str(tiny_repository / "encoder")!r}), device="cpu")
check_golden(encoder, artifact.path, artifact)
vectors = encoder.encode(["good morning world", "the cat"]).vectors
assert xt.core.vectors.top_k(vectors, vectors, 1)[1].ravel().tolist() == [0, 1]
"""
    found = imported(code)
    assert {"numpy", "onnxruntime", "faiss"} <= found
    assert not {"torch", "transformers", "optimum"} & found


def test_the_bench_client_imports_neither_torch_nor_transformers(server):
    code = f"""
from xt.bench.measure import served
served({server.url!r}, None, ["good"], 1, 0.1)
"""
    assert not {"torch", "transformers", "onnxruntime"} & imported(code)
