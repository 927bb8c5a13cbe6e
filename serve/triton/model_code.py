"""What of a model repository would run as code: Triton executes whatever lies in a model's folder.

A repository that came from elsewhere may hold another `model.py`, a module that Python finds before xt's own, a
library, or a configuration that names one. Only what a release of xt wrote is run; anything else needs `--trust-code`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, damaged_files, open_repository, read_manifest, sha256
from xt.core.files.replacing import foreign, printable, some
from xt.serve.triton.processes import remove_bytecode

CODE = re.compile(r"[1-9]\d*/model\.py")
DATA = re.compile(
    r"config\.pbtxt|[\w-]+\.json|warmup/[\w-]+|[1-9]\d*/(model\.onnx([._][\w.-]+)?|[\w-]+\.(json|jsonl|npy|faiss|onnx))"
)
"""Names of the files that models hold besides their code, none of which anything executes."""
BACKENDS = ("python", "onnxruntime")
FIELDS = {
    "name",
    "backend",
    "max_batch_size",
    "input",
    "output",
    "instance_group",
    "dynamic_batching",
    "parameters",
    "default_model_filename",
    "optimization",
    "model_warmup",
    "version_policy",
    "model_transaction_policy",
    "response_cache",
}
"""Fields of config.pbtxt that run nothing; others name libraries, agents, other backends or other files."""
PARAMETERS = {
    "xt",
    "max_texts",
    "token_budget",
    "max_waiting_tokens",
    "max_waiting_requests",
    "cache_megabytes",
    "workers",
}
ACCELERATORS = {"tensorrt", "cuda", "openvino"}
ACCELERATOR_SETTINGS = re.compile(
    r"precision_mode|arena_extend_strategy|trt_(engine|timing)_cache_(enable|path)|trt_layer_norm_fp32_fallback"
    r"|trt_profile_(min|opt|max)_shapes"
)
SCRATCH = "/tmp"  # noqa: S108 - in the container
ENGINE_CACHE = f"{SCRATCH}/xt-tensorrt"
HINT = (
    "Export or install the model again, or remove what is named. If you know the code and want it to run with your "
    "rights, pass --trust-code to `xt serve` or `xt reload`."
)


@cache
def known_code() -> frozenset[str]:
    """Return the SHA-256 of every model.py that a release of xt wrote."""
    text = (resources.files("xt.model_repository") / "model_code.txt").read_text(encoding="utf-8")
    return frozenset(line.split()[0] for line in text.splitlines() if line and not line.startswith("#"))


def untrusted(folder: Path) -> list[str]:
    """List what is in a model's folder that could run and is not xt's, as sentences; empty where there is nothing.

    Its files must have been compared with its manifest before: this says nothing of their content, but of the code's.
    """
    manifest = read_manifest(folder)
    names = set(manifest["files"])
    others = foreign(folder, {*names, MANIFEST}.__contains__)
    problems = [f"{printable(n)}: not in the manifest" for n in others]
    empty = _folders(folder, {*names, *others})
    problems += [f"{printable(n)}/: a folder that the manifest names no file of" for n in empty]
    for name in sorted(names):
        if CODE.fullmatch(name):
            if (folder / name).is_file() and sha256(folder / name) not in known_code():
                problems.append(f"{name}: not the code that any release of xt wrote")
        elif not DATA.fullmatch(name):
            problems.append(f"{printable(name)}: no file that xt writes into a model")
    return problems + list(_of_config(folder))


def _folders(folder: Path, names: set[str]) -> list[str]:
    """List the folders below a model's that hold none of these files: an empty version, a package to be."""
    kept = {parent.as_posix() for name in names for parent in Path(name).parents}
    found = (p for p in sorted(folder.rglob("*")) if p.is_dir() and not p.is_symlink())
    return [name for p in found if (name := p.relative_to(folder).as_posix()) not in kept]


def _of_config(folder: Path) -> Iterator[str]:
    """Return what in a model's config.pbtxt could make Triton run something else than xt's code and graphs."""
    from xt.serve.triton import model_config

    try:
        text = (folder / "config.pbtxt").read_text(encoding="utf-8")
        config = model_config.parse(text)
    except (OSError, ValueError, model_config.ParseError) as error:
        yield f"config.pbtxt: not readable: {error}"
        return
    if config.backend not in BACKENDS:
        yield f"config.pbtxt: backend {config.backend!r}, expected {' or '.join(BACKENDS)}"
    expected = "model.onnx" if config.backend == "onnxruntime" else "model.py"
    if config.default_model_filename not in ("", expected):
        yield f"config.pbtxt: default_model_filename {config.default_model_filename!r}"
    yield from (f"config.pbtxt: {f.name}" for f, _ in config.ListFields() if f.name not in FIELDS)
    yield from (f"config.pbtxt: parameter {printable(k)}" for k in sorted(config.parameters) if k not in PARAMETERS)
    yield from _of_optimization(config.optimization)
    for sample in config.model_warmup:
        for name, value in sample.inputs.items():
            if value.input_data_file and not re.fullmatch(r"[\w-]+", value.input_data_file):
                yield f"config.pbtxt: warm-up of {printable(name)} reads {printable(value.input_data_file)}"


def _of_optimization(optimization: Any) -> Iterator[str]:
    yield from (
        f"config.pbtxt: optimization.{f.name}"
        for f, _ in optimization.ListFields()
        if f.name not in ("graph", "execution_accelerators")
    )
    accelerators = optimization.execution_accelerators
    for one in (*accelerators.gpu_execution_accelerator, *accelerators.cpu_execution_accelerator):
        if one.name not in ACCELERATORS:
            yield f"config.pbtxt: accelerator {one.name!r}"
        for key, value in sorted(one.parameters.items()):
            if not ACCELERATOR_SETTINGS.fullmatch(key) or (key.endswith("_path") and value != ENGINE_CACHE):
                yield f"config.pbtxt: {one.name} setting {printable(key)} = {printable(value)}"


def strangers(repository: Path) -> list[str]:
    """Name the folders of a repository that Triton would take for models and that xt did not write."""
    found = []
    for path in sorted(repository.iterdir()):
        if not path.is_dir() or ((path / MANIFEST).is_file() and (path / "config.pbtxt").is_file()):
            continue
        if (path / "config.pbtxt").exists() or any(p.name.isdecimal() for p in path.iterdir()):
            found.append(path.name)
    return found


def refuse_code(repository: Path, models: Sequence[str]) -> None:
    """Raise XtError, naming what it is, where a repository holds code that no release of xt wrote.

    The bytecode of the models' own code is removed first. Another server may write it anew just now: then again.

    Args:
        repository: the model repository.
        models: names of its models that are to be loaded.
    """
    for pause in (0.1, 0.5, None):
        remove_bytecode(repository)
        problems = [f"{name}/: no folder that xt wrote" for name in strangers(repository)]
        problems += [f"{name}/{problem}" for name in models for problem in untrusted(repository / name)]
        if not problems:
            return
        if pause is None or not any("__pycache__" in p for p in problems):
            raise XtError(f"{repository} holds what may run as code and is not xt's: {some(problems)}.", HINT)
        time.sleep(pause)


def open_models(repository: Path, *, trust_code: bool = False) -> list[str]:
    """Return the names of a repository's models, after their files were compared with their manifests.

    Args:
        repository: the model repository.
        trust_code: let each `model.py` be another than the manifest lists, and everything lie there that is not listed.

    Raises XtError for a damaged model, and for code that is not xt's unless `trust_code`.
    """
    if not trust_code:
        names = sorted(open_repository(repository))
        refuse_code(repository, names)
        return names
    names = sorted(p.parent.name for p in repository.glob("*/config.pbtxt"))
    if not names:
        open_repository(repository)  # which says what is there instead
    for name in names:
        check_data(repository / name)
    return names


def check_data(folder: Path) -> None:
    """Raise XtError when a file of a model, its code and configuration left out, is not what its manifest lists."""
    manifest = read_manifest(folder)
    problems = [p for p in damaged_files(folder, manifest) if not re.match(r"([1-9]\d*/model\.py|config\.pbtxt): ", p)]
    if problems:
        raise XtError(f"{folder} is damaged: {'; '.join(problems[:5])}.", "Copy or make it again.")
