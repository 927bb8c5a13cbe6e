"""Each top-level folder F is the package xt.F, imports what it may, and runs no code that it read from a file."""

from __future__ import annotations

import ast
import importlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = sorted(p.parent.name for p in ROOT.glob("*/__init__.py"))
SOURCES = sorted(file for name in PACKAGES for file in (ROOT / name).rglob("*.py"))


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


@pytest.mark.parametrize("name", PACKAGES)
def test_every_top_level_folder_is_the_package_of_its_name(name):
    module = importlib.import_module(f"xt.{name}")
    assert Path(str(module.__file__)).resolve() == ROOT / name / "__init__.py"
    assert module.__doc__


def test_xt_is_a_namespace_without_a_file():
    import xt

    assert getattr(xt, "__file__", None) is None
    assert not (ROOT / "xt").exists()
    assert not (ROOT / "__init__.py").exists()


def test_the_wheel_holds_every_source_file_and_what_lies_beside(tmp_path):
    """Built from a copy, with this environment's setuptools: no network."""
    sources = subprocess.run(["git", "ls-files", "--", *PACKAGES], cwd=ROOT, capture_output=True, text=True)
    if sources.returncode or not sources.stdout:
        pytest.skip("not a git checkout")
    wanted = {f"xt/{name}" for name in sources.stdout.splitlines() if (ROOT / name).is_file()}
    copy = tmp_path / "source"
    for name in (*PACKAGES, "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        place = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy.mkdir(exist_ok=True)
        place(ROOT / name, copy / name)
    build = "from setuptools.build_meta import build_wheel; import sys; build_wheel(sys.argv[1])"
    answer = subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=copy, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    (wheel,) = tmp_path.glob("*.whl")
    found = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("xt/")}
    assert found == wanted


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_a_file_imports_xt_by_its_full_name(file):
    assert not {name.split(".")[0] for name in names(file)} & {*PACKAGES}  # always xt.F, never F


def test_a_models_code_imports_only_the_addresses_that_stay():
    for file in (ROOT / "model_repository").glob("*/1/model.py"):
        assert {n for n in names(file) if n.startswith("xt.") and n.count(".") == 2} <= {
            f"xt.core.served_{kind}" for kind in ("encoder", "head", "retriever", "text")
        }


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
