"""NVIDIA's libraries out of pip's packages, for ONNX Runtime's GPU providers where torch, which loads them, is absent.

A provider (`libonnxruntime_providers_cuda.so`) names libraries such as `libcublasLt.so.13`, which lie in the `nvidia`
packages (`nvidia/cu13/lib`, `nvidia/cudnn/lib`, ...), where the dynamic linker does not look. They are loaded here by
their paths, dependencies first; what the linker then finds loaded it does not look for. `onnxruntime.preload_dlls()`
does the same for a fixed list of names and folders, which is not that of every release of the packages: here the names
are read from the provider itself and the folders are looked through.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

DRIVER = ("libcuda.so.1", "libnvidia-ml.so.1")
"""They come with the driver, never with a package."""
PROVIDER_FILES = {
    "cuda": "libonnxruntime_providers_cuda.so",
    "tensorrt": "libonnxruntime_providers_tensorrt.so",
}
"""By xt's names of the providers."""
PACKAGE_FOLDERS = ("nvidia/*/lib", "nvidia/*/lib64", "tensorrt_libs", "tensorrt_*_libs")
"""Where packages put libraries, below a folder of packages."""
LEAST_DRIVER = {12: (525, 60, 13), 13: (580, 65, 6)}
"""CUDA's major version -> the oldest driver for Linux that runs it (CUDA's release notes, table of drivers)."""
_handles: dict[str, ctypes.CDLL] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Library:
    """One library that a provider needs, directly or by another."""

    name: str
    """As the linker looks for it."""
    needed_by: str
    path: Path | None
    """Where it lies in a package; None for one of the system, of the driver, or a missing one."""
    origin: str
    """`package`, `system`, `driver` or `missing`."""


class NotElf(ValueError):
    """A file is no ELF library."""


def needed(file: Path) -> list[str]:
    """Read the names of the libraries that an ELF file (64 bits, little-endian) is linked with: its DT_NEEDED entries.

    Raises NotElf for another file.
    """
    try:
        return _needed(file)
    except (struct.error, OverflowError, OSError, ValueError) as error:
        if isinstance(error, (NotElf, FileNotFoundError, PermissionError)):
            raise
        raise NotElf(f"{file} is cut off or damaged: {error}") from error


def _needed(file: Path) -> list[str]:
    with file.open("rb") as data:
        head = data.read(64)
        if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
            raise NotElf(f"{file} is no ELF file of 64 bits, little-endian")
        table, size, count = *struct.unpack_from("<Q", head, 32), *struct.unpack_from("<HH", head, 54)
        data.seek(table)
        rows = data.read(size * count)
        if size < 56 or len(rows) < size * count:
            raise NotElf(f"{file} is cut off")
        segments = [struct.unpack_from("<IIQQQQ", rows, i * size) for i in range(count)]
        dynamic = next((s for s in segments if s[0] == 2), None)  # PT_DYNAMIC
        if dynamic is None:
            return []
        data.seek(dynamic[2])
        entries = data.read(dynamic[5])
        pairs = [struct.unpack_from("<qQ", entries, i) for i in range(0, len(entries) - 15, 16)]
        names = [value for tag, value in pairs if tag == 1]  # DT_NEEDED
        address = next((value for tag, value in pairs if tag == 5), None)  # DT_STRTAB
        length = next((value for tag, value in pairs if tag == 10), 0)  # DT_STRSZ
        if not names or address is None:
            return []
        for kind, _, offset, start, _, size_in_file in segments:
            if kind == 1 and start <= address < start + size_in_file:  # PT_LOAD
                data.seek(offset + address - start)
                strings = data.read(length)
                return [strings[n : strings.index(b"\0", n)].decode() for n in names]
    raise NotElf(f"{file} has no table of strings")


def package_folders(roots: Iterable[str | Path] | None = None) -> list[Path]:
    """List the folders with libraries of the `nvidia` and TensorRT packages below `roots` (default: `sys.path`)."""
    found: dict[Path, None] = {}
    for root in sys.path if roots is None else roots:
        if str(root) and Path(root).is_dir():
            for pattern in PACKAGE_FOLDERS:
                found |= dict.fromkeys(p for p in sorted(Path(root).glob(pattern)) if p.is_dir())
    return list(found)


def provider_file(provider: str) -> Path | None:
    """Find a provider's library in the installed ONNX Runtime, which is not imported; None where it has none."""
    spec = find_spec("onnxruntime")
    for folder in spec.submodule_search_locations or [] if spec else []:
        file = Path(folder) / "capi" / PROVIDER_FILES[provider]
        if file.is_file():
            return file
    return None


def opened_later(cuda: int) -> list[str]:
    """Name the libraries that a provider or cuDNN opens while it runs, so that no file names them.

    cuFFT counts one less than CUDA; cuDNN 9 goes with both CUDA 12 and 13.

    >>> opened_later(13)
    ['libcudnn.so.9', 'libcufft.so.12', 'libnvrtc.so.13']
    """
    return ["libcudnn.so.9", f"libcufft.so.{cuda - 1}", f"libnvrtc.so.{cuda}"]


def _find(name: str, folders: Iterable[Path]) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _opens(name: str) -> bool:
    """Return whether the linker finds a library by itself (a package's that was loaded before counts as well)."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def required(file: Path, folders: Sequence[Path]) -> list[Library]:
    """List all that a provider's library needs, others' needs included, in an order in which they can be loaded.

    A name is looked for in `folders`, then beside the file that needs it, then by the linker. Those of the driver are
    not looked for.
    """
    found: dict[str, Library] = {}
    seen: set[str] = set()

    def visit(parent: Path, names: Sequence[str]) -> None:
        for name in names:
            if name in seen or name.startswith("ld-linux"):
                continue
            seen.add(name)
            if name in DRIVER:
                found[name] = Library(name, parent.name, None, "driver")
                continue
            path = _find(name, [*folders, parent.parent])
            if path is not None:
                with contextlib.suppress(NotElf, OSError):  # loading it will say what is wrong
                    visit(path, needed(path))
                found[name] = Library(name, parent.name, path, "package")
            else:
                found[name] = Library(name, parent.name, None, "system" if _opens(name) else "missing")

    visit(file, needed(file))
    if cuda := cuda_major(file):
        visit(file, opened_later(cuda))
    return list(found.values())


def load(libraries: Iterable[Library]) -> list[str]:
    """Load those of packages for everyone in this process; return what is missing or does not load, and why."""
    problems = []
    with _lock:
        for library in libraries:
            if library.origin == "missing":
                problems.append(f"{library.name} (needed by {library.needed_by}) is not there")
            elif library.path is not None and library.name not in _handles:
                try:
                    _handles[library.name] = ctypes.CDLL(str(library.path), mode=os.RTLD_NOW | os.RTLD_GLOBAL)
                except OSError as error:
                    problems.append(f"{library.path} cannot be loaded: {error}")
    return problems


def prepare(provider: str, *, folders: Sequence[Path] | None = None, file: Path | None = None) -> list[str]:
    """Load what a provider (`cuda`, `tensorrt`) needs, before its first session; return the problems.

    `folders` and `file` replace those that are found.
    """
    file = file or provider_file(provider)
    if file is None:
        return [f"ONNX Runtime is installed without {PROVIDER_FILES[provider]}"]
    where = package_folders() if folders is None else list(folders)
    problems = []
    if provider == "tensorrt" and (cuda := _find(PROVIDER_FILES["cuda"], [file.parent])):
        problems += load(required(cuda, where))  # what TensorRT does not take runs by CUDA
    return [*problems, *load(required(file, where))]


def cuda_major(file: Path | None = None) -> int | None:
    """Read which CUDA the installed provider was built with, off the name of its libcudart; None without a provider."""
    file = file or provider_file("cuda")
    if file is None:
        return None
    with contextlib.suppress(NotElf, OSError):
        for name in needed(file):
            if name.startswith(("libcudart.so.", "libcublas.so.")):
                number = name.rpartition(".so.")[2].partition(".")[0]
                return int(number) if number.isdigit() else None
    return None


def driver_problem(driver: str, cuda: int | None) -> str:
    """Return a note that a driver (`570.86.15`) is too old for a CUDA version; empty when it is not, or is not known.

    >>> driver_problem("570.86.15", 13)
    'driver 570.86.15 is too old: CUDA 13 needs 580.65.06 or newer'
    >>> driver_problem("580.95.05", 13), driver_problem("570.86.15", 12)
    ('', '')
    """
    least = LEAST_DRIVER.get(cuda or 0)
    parts = [int(p) for p in driver.strip().split(".") if p.isdigit()]
    if least is None or not parts or tuple(parts) >= least[: len(parts)]:
        return ""
    return f"driver {driver.strip()} is too old: CUDA {cuda} needs {'.'.join(f'{n:02d}' for n in least)} or newer"
