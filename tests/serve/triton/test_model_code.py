"""Of a repository only code that a release of xt wrote is run, and whatever else could run is named."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest
from typer.testing import CliRunner

from xt.cli.main import app
from xt.core.errors import CheckFailed, XtError
from xt.core.files.artifact import MANIFEST, new_artifact, read_manifest
from xt.serve.triton.launcher import TritonServer
from xt.serve.triton.model_code import known_code, open_models, refuse_code, strangers, untrusted

ROOT = Path(__file__).resolve().parents[2]
PACKAGED = resources.files("xt.model_repository")
KINDS = ("encoder", "classifier", "retriever", "text")


def write_model(target: Path, kind: str = "encoder", change=lambda folder: None) -> Path:
    """A model's folder with xt's own code and configuration, and a manifest that fits whatever `change` makes of it."""
    with new_artifact(target, kind="model") as draft:
        (draft.path / "1").mkdir()
        (draft.path / "1" / "model.py").write_text((PACKAGED / kind / "1" / "model.py").read_text())
        config = (PACKAGED / ("encoder" if kind == "text" else kind) / "config.pbtxt").read_text()
        (draft.path / "config.pbtxt").write_text(config)
        for name in ("parity.json", "1/golden.json", "1/tokenizer.json", "1/model.onnx", "1/model.onnx.data"):
            (draft.path / name).write_text("{}")
        change(draft.path)
    return target


@pytest.fixture
def repository(tmp_path):
    write_model(tmp_path / "repository" / "encoder")
    return tmp_path / "repository"


@pytest.mark.parametrize("kind", KINDS)
def test_what_xt_writes_is_trusted(tmp_path, kind):
    assert untrusted(write_model(tmp_path / kind, kind)) == []


def test_an_exported_model_is_trusted(tiny_repository):
    refuse_code(tiny_repository, ["encoder"])
    assert untrusted(tiny_repository / "encoder") == []


def test_every_code_that_was_ever_committed_is_known():
    for file in ROOT.glob("model_repository/*/1/model.py"):
        assert hashlib.sha256(file.read_bytes()).hexdigest() in known_code(), f"add {file} to model_code.txt"
    log = ["git", "-C", str(ROOT), "log", "--format=", "--raw", "--no-abbrev", "--", "model_repository/*/1/model.py"]
    done = subprocess.run(log, capture_output=True, text=True)
    blobs = {line.split()[3] for line in done.stdout.splitlines() if line.startswith(":")} - {"0" * 40}
    if done.returncode or not blobs:
        pytest.skip("no history here")
    for blob in blobs:
        content = subprocess.run(["git", "-C", str(ROOT), "cat-file", "blob", blob], capture_output=True, check=True)
        assert hashlib.sha256(content.stdout).hexdigest() in known_code()
    assert len(known_code()) >= len(blobs)


def write(name: str, content: str = "import os\n"):
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)

    return change


def link(name: str):
    def change(folder: Path) -> None:
        (folder.parent / "elsewhere").mkdir(exist_ok=True)
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return change


PLANTED = {
    "a package before xt's": (write("1/xt/__init__.py"), "1/xt/__init__.py"),
    "a module of xt": (write("1/xt/core/served_encoder.py"), "1/xt/core/served_encoder.py"),
    "a module before numpy": (write("1/numpy.py"), "1/numpy.py"),
    "a library": (write("1/onnxruntime.so"), "1/onnxruntime.so"),
    "a backend in the model": (write("libtriton_python.so"), "libtriton_python.so"),
    "a path file": (write("1/a.pth"), "1/a.pth"),
    "sitecustomize": (write("1/sitecustomize.py"), "1/sitecustomize.py"),
    "bytecode of another module": (write("1/__pycache__/numpy.cpython-311.pyc"), "1/__pycache__/numpy.cpython-311.pyc"),
    "bytecode without a source": (write("1/numpy.pyc"), "1/numpy.pyc"),
    "an environment": (write("1/env.tar.gz"), "1/env.tar.gz"),
    "another version": (write("2/model.py"), "2/model.py"),
    "another configuration": (write("configs/other.pbtxt"), "configs/other.pbtxt"),
    "code at the top": (write("model.py"), "model.py"),
    "hidden": (write("1/.numpy.py"), "1/.numpy.py"),
    "an empty version": (lambda f: (f / "7").mkdir(), "7/"),
    "an empty package": (lambda f: (f / "1" / "xt" / "core").mkdir(parents=True), "1/xt"),
    "a linked package": (link("1/xt"), "1/xt"),
    "a linked version": (link("3"), "3"),
    "a pipe": (lambda f: os.mkfifo(f / "1" / "model.so"), "1/model.so"),
    "a note": (write("README.md"), "README.md"),
}


@pytest.mark.parametrize("case", PLANTED)
def test_what_no_manifest_lists_is_named_and_refused(repository, case):
    plant, name = PLANTED[case]
    plant(repository / "encoder")
    with pytest.raises(XtError, match="not xt's: encoder/" + re.escape(name)) as refused:
        TritonServer(repository)
    assert "--trust-code" in refused.value.hint
    assert TritonServer(repository, trust_code=True).models == ["encoder"]


LISTED = [c for c in PLANTED if not any(word in c for word in ("empty", "linked", "pipe"))]


@pytest.mark.parametrize("case", LISTED)
def test_a_manifest_that_lists_it_does_not_help(tmp_path, case):
    plant, name = PLANTED[case]
    write_model(tmp_path / "encoder", change=plant)
    assert name in read_manifest(tmp_path / "encoder")["files"] or name in str(untrusted(tmp_path / "encoder"))
    with pytest.raises(XtError, match="not xt's: encoder/.*" + re.escape(name)):
        open_models(tmp_path)


@pytest.mark.parametrize("content", ["", "raise SystemExit\n", None])
def test_another_model_code_is_refused_whatever_its_manifest_says(tmp_path, content):
    packaged = (PACKAGED / "encoder" / "1" / "model.py").read_text()
    write_model(tmp_path / "encoder", change=write("1/model.py", packaged + "\n" if content is None else content))
    with pytest.raises(XtError, match=r"encoder/1/model\.py: not the code that any release of xt wrote"):
        open_models(tmp_path)
    assert open_models(tmp_path, trust_code=True) == ["encoder"]


CONFIGS = {
    "another backend": ('backend: "python"', 'backend: "pytorch"', "backend 'pytorch'"),
    "no backend": ('backend: "python"', "", "backend ''"),
    "a platform": ('backend: "python"', 'backend: "python" platform: "ensemble"', "platform"),
    "a runtime": ('backend: "python"', 'backend: "python" runtime: "x.so"', "runtime"),
    "another file": ('backend: "python"', 'backend: "python" default_model_filename: "x.py"', "default_model_filename"),
    "a file by hardware": (
        'backend: "python"',
        'backend: "python" cc_model_filenames { key: "9.0" value: "x.py" }',
        "cc_model_filenames",
    ),
    "an environment": ('key: "workers"', 'key: "EXECUTION_ENV_PATH"', "parameter EXECUTION_ENV_PATH"),
    "a library of operators": (
        'backend: "python"',
        'backend: "onnxruntime" model_operations { op_library_filename: "/var/x.so" }',
        "model_operations",
    ),
    "an agent": (
        'backend: "python"',
        'backend: "python" model_repository_agents { agents [ { name: "x" } ] }',
        "model_repository_agents",
    ),
    "a plugin of TensorRT": (
        'backend: "python"',
        'backend: "python" optimization { execution_accelerators { gpu_execution_accelerator: [ { name: "tensorrt" '
        'parameters { key: "trt_extra_plugin_lib_paths" value: "/var/x.so" } } ] } }',
        "trt_extra_plugin_lib_paths",
    ),
    "engines of somebody": (
        'backend: "python"',
        'backend: "python" optimization { execution_accelerators { gpu_execution_accelerator: [ { name: "tensorrt" '
        'parameters { key: "trt_engine_cache_path" value: "/home/x" } } ] } }',
        "trt_engine_cache_path = /home/x",
    ),
    "another accelerator": (
        'backend: "python"',
        'backend: "python" optimization { execution_accelerators { cpu_execution_accelerator: [ { name: "x" } ] } }',
        "accelerator 'x'",
    ),
    "a warm-up from elsewhere": (
        'backend: "python"',
        'backend: "python" model_warmup [ { name: "a" batch_size: 1 inputs { key: "ids" value { data_type: TYPE_INT32 '
        'dims: 1 input_data_file: "../../../etc/passwd" } } } ]',
        "reads ../../../etc/passwd",
    ),
    "nonsense": ('backend: "python"', "backend = python", "not readable"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_that_runs_something_else_is_refused(tmp_path, case):
    before, after, message = CONFIGS[case]

    def change(folder: Path) -> None:
        text = (folder / "config.pbtxt").read_text()
        assert before in text
        (folder / "config.pbtxt").write_text(text.replace(before, after, 1))

    write_model(tmp_path / "encoder", change=change)
    with pytest.raises(XtError, match="config.pbtxt: .*" + re.escape(message)):
        open_models(tmp_path)


def test_a_folder_that_triton_would_take_for_a_model_is_refused(repository):
    (repository / "notes").mkdir()
    (repository / ".encoder.draft-1" / "new" / "1").mkdir(parents=True)
    assert strangers(repository) == []
    assert open_models(repository) == ["encoder"]
    (repository / "second" / "1").mkdir(parents=True)
    (repository / "second" / "1" / "model.py").write_text("import os\n")
    with pytest.raises(XtError, match="second/: no folder that xt wrote"):
        open_models(repository)
    (repository / "second" / MANIFEST).write_text("{}")
    assert strangers(repository) == ["second"]
    shutil.rmtree(repository / "second")
    write("config.pbtxt", 'name: ".evil"')(repository / ".evil")
    with pytest.raises(XtError, match=r"\.evil"):
        open_models(repository)


def test_bytecode_that_cannot_be_removed_is_refused(repository, monkeypatch):
    """It would run in the place of the model.py that it claims to be of."""
    from xt.serve.triton import model_code

    write("1/__pycache__/model.cpython-311.pyc", "x")(repository / "encoder")
    with monkeypatch.context() as patch:
        patch.setattr(model_code, "remove_bytecode", lambda repository: None)
        with pytest.raises(XtError, match=r"__pycache__/model\.cpython-311\.pyc"):
            refuse_code(repository, ["encoder"])
    refuse_code(repository, ["encoder"])
    assert not (repository / "encoder" / "1" / "__pycache__").exists()


def test_damage_is_refused_with_trusted_code_as_well(repository):
    (repository / "encoder" / "1" / "model.onnx").write_text("[]")
    with pytest.raises(XtError, match="damaged"):
        TritonServer(repository, trust_code=True)


def test_check_names_code_and_ends_with_3(repository, tmp_path):
    said = CliRunner().invoke(app, ["check", str(repository), "--json"])
    assert (said.exit_code, json.loads(said.stdout)["code"]) == (0, [])
    write("1/xt/__init__.py")(repository / "encoder")
    (repository / "second" / "1").mkdir(parents=True)
    for folder in (repository, repository / "encoder"):
        said = CliRunner().invoke(app, ["check", str(folder), "--json"])
        assert isinstance(said.exception, CheckFailed)
        assert "1/xt/__init__.py: not in the manifest" in str(said.exception)
        assert ("second: no folder that xt wrote" in str(said.exception)) == (folder == repository)
        assert json.loads(said.stdout)["code"] == ["1/xt/__init__.py: not in the manifest"]


def test_code_that_appears_before_a_restart_is_not_run(tiny_repository, tmp_path):
    repository = Path(shutil.copytree(tiny_repository, tmp_path / "repository"))
    server = TritonServer(repository)
    mark = tmp_path / "ran"
    write("1/numpy.py", f"open({str(mark)!r}, 'w')\n")(repository / "encoder")  # after the check of the constructor
    with pytest.raises(XtError, match=r"encoder/1/numpy\.py: not in the manifest"):
        server.start()
    assert not server.alive()
    assert not mark.exists()
    assert MANIFEST in os.listdir(repository / "encoder")
