"""Show, without a GPU, that every library that ONNX Runtime's GPU providers name is found in this environment.

    python deploy/gpu_libraries.py [--provider cuda] [--provider tensorrt]

Exit code 3 when one is missing or does not load. `make gpu-libraries` builds the environment of requirements/gpu.txt
for it; there the libraries of TensorRT, which is no part of it, are expected to be missing and are only listed.
"""

from __future__ import annotations

import argparse
import sys
from importlib import metadata
from pathlib import Path

from xt.core.machine import gpu_libraries


def version(package: str) -> str:
    """Return an installed version, or a dash."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "-"


def show(provider: str) -> int:
    """Print what a provider needs and where it is; give how many are missing or do not load."""
    file = gpu_libraries.provider_file(provider)
    if file is None:
        sys.stdout.write(f"{gpu_libraries.PROVIDER_FILES[provider]}: not part of this ONNX Runtime\n")
        return 1
    roots = Path(file).parents[2]
    libraries = gpu_libraries.required(file, gpu_libraries.package_folders())
    sys.stdout.write(f"{file.name}, {file.stat().st_size / 1e6:,.0f} MB, needs:\n")
    for library in libraries:
        where = {"driver": "comes with the driver", "system": "the system's", "missing": "MISSING"}.get(library.origin)
        if library.path is not None:
            path = library.path.relative_to(roots) if library.path.is_relative_to(roots) else library.path
            where = f"{path} ({library.path.stat().st_size / 1e6:,.0f} MB)"
        sys.stdout.write(f"  {library.name:28} {where}, for {library.needed_by}\n")
    problems = gpu_libraries.load(libraries)
    for problem in problems:
        sys.stdout.write(f"  PROBLEM: {problem}\n")
    return len(problems)


def main() -> int:
    """Show every provider that was named; give the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--provider", action="append", choices=sorted(gpu_libraries.PROVIDER_FILES))
    parser.add_argument("--also", action="append", choices=sorted(gpu_libraries.PROVIDER_FILES), help="only listed")
    options = parser.parse_args()
    cuda = gpu_libraries.cuda_major()
    sys.stdout.write(f"onnxruntime-gpu {version('onnxruntime-gpu')}, built with CUDA {cuda or 'unknown'}\n")
    bad = sum(show(provider) for provider in options.provider or ["cuda"])
    for provider in options.also or []:
        show(provider)
    sys.stdout.write("all found but the driver's own\n" if not bad else f"{bad} missing\n")
    return 3 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
