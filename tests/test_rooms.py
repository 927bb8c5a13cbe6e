"""The rooms: each top-level folder F is the package xt.F, imports what it may, and runs no code it read from a file."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = sorted(p.parent.name for p in ROOT.glob("*/__init__.py"))
SOURCES = sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))
STAGES = ("train", "export", "serve", "eval")
MAY_IMPORT = {
    "core": set(),
    **{stage: {"core"} for stage in STAGES},
    "model_repository": {"core"},
    "studies": {"core", *STAGES},
    "cli": {"core", *STAGES, "studies"},
}


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def names(file: Path) -> list[str]:
    """Every module that a file imports, wherever in it."""
    found = []
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def test_the_rooms_are_those_of_the_design():
    assert sorted(MAY_IMPORT) == ROOMS
    assert len(SOURCES) > 40


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_the_package_of_its_name(room):
    module = importlib.import_module(f"xt.{room}")
    assert Path(str(module.__file__)).resolve() == ROOT / room / "__init__.py"
    assert module.__doc__


def test_xt_is_a_namespace_without_a_file():
    import xt

    assert getattr(xt, "__file__", None) is None
    assert not (ROOT / "xt").exists()
    assert not (ROOT / "__init__.py").exists()


def test_the_wheel_holds_just_the_rooms():
    if sys.version_info < (3, 11):
        pytest.skip("tomllib came with Python 3.11")
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert sorted(settings["packages"]) == [f"xt.{room}" for room in ROOMS]
    assert settings["package-dir"] == {f"xt.{room}": room for room in ROOMS}


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_a_file_imports_only_what_its_room_may(file):
    room = file.relative_to(ROOT).parts[0]
    found = {name.split(".")[1] for name in names(file) if name.startswith("xt.")}
    assert found - {room} <= MAY_IMPORT[room]
    assert not {name.split(".")[0] for name in names(file)} & set(ROOMS)  # always xt.F, never F


def test_import_linter_agrees():
    tool = Path(sys.executable).parent / "lint-imports"
    if not tool.exists():
        pytest.skip("import-linter is not installed")
    answer = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr


FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_ATTRIBUTES = {("torch", "load"), ("pickle", "loads"), ("os", "system"), ("yaml", "load")}
FORBIDDEN_KEYWORDS = {"trust_remote_code", "allow_pickle", "shell"}


def dangers(module: ast.Module) -> list[str]:
    """What in a module could run code that came with data."""
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found += [f"{node.value.id}.{node.attr}"] if (node.value.id, node.attr) in FORBIDDEN_ATTRIBUTES else []
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
                found.append(f"{node.func.id}(")
            for keyword in node.keywords:
                harmless = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg in FORBIDDEN_KEYWORDS and not harmless:
                    found.append(f"{keyword.arg}=")
    return found


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_no_file_runs_code_that_came_with_data(file):
    assert dangers(tree(file)) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(f)",
        "eval(text)",
        "exec(text)",
        "AutoModel.from_pretrained(p, trust_remote_code=True)",
        "np.load(f, allow_pickle=flag)",
        "subprocess.run(c, shell=True)",
    ],
)
def test_the_check_above_sees_each_danger(line):
    assert len(dangers(ast.parse(line))) == 1


def test_the_check_above_leaves_harmless_lines_alone():
    assert dangers(ast.parse("network.eval()\nnp.load(f, allow_pickle=False)\nre.compile('x')\njson.load(f)")) == []
