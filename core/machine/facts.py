"""What numbers were measured on: the processor, its cores and memory, Python and the packages that compute."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from xt.core.machine.cores import usable_cores

PACKAGES = (
    "torch",
    "transformers",
    "optimum-onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "nvidia-pytriton",
    "faiss-cpu",
    "faiss-gpu",
)


def machine_facts() -> dict[str, Any]:
    """Return this machine's facts, as reports keep them."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = {d.metadata["Name"]: d.version for d in metadata.distributions() if d.metadata["Name"] in PACKAGES}
    return {
        "cpu": cpu,
        "cores": usable_cores(),
        "memory_gib": round(memory, 1),
        "python": platform.python_version(),
        "packages": packages,
    }
