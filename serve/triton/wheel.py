"""Where the Triton of the `nvidia-pytriton` wheel lies, and this Python's shared library, which it loads."""

from __future__ import annotations

import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from xt.core.errors import XtError


@dataclass(frozen=True)
class Wheel:
    """Where the wheel's parts lie."""

    binary: Path
    libraries: Path
    python_backend: Path
    stub: Path
    libpython: Path


def find_wheel() -> Wheel:
    """Find Triton in the `nvidia-pytriton` wheel. Raises XtError that says what is missing."""
    site = next((Path(p) for p in sys.path if (Path(p) / "pytriton" / "tritonserver").is_dir()), None)
    if site is None:
        raise XtError(
            "There is no Triton server: the package 'nvidia-pytriton' is not installed.",
            "It comes with xt on Linux x86-64 (glibc 2.35 or newer). Elsewhere serve the repository with a container.",
        )
    server = site / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        known = ", ".join(sorted(p.name for p in (server / "python_backend_stubs").iterdir()))
        raise XtError(f"The Triton wheel has no Python backend for Python {version} (it has {known}).", "Use one.")
    return Wheel(
        binary=server / "bin" / "tritonserver",
        libraries=site / "nvidia_pytriton.libs",
        python_backend=server / "backends" / "python",
        stub=stub,
        libpython=find_libpython(),
    )


def find_libpython() -> Path:
    """Find the folder of this Python's shared library, which Triton's Python backend loads."""
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    candidates = [
        sysconfig.get_config_var("LIBDIR"),
        f"{sys.base_prefix}/lib",
        f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}",
        "/usr/lib64",
        "/usr/local/lib",
    ]
    for folder in candidates:
        if folder and (Path(folder) / name).exists():
            return Path(folder)
    raise XtError(
        f"Triton's Python backend needs {name}, which this Python ({sys.base_prefix}) lacks.",
        "Install it (Debian: apt install libpython3-dev), or use a Python built with --enable-shared (uv's are).",
    )
