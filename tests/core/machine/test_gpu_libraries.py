"""Libraries of GPU packages: found by what a provider names, loaded in order, in folders of libraries made by a compiler.

Tests `deploy/gpu_libraries.py` as well.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xt.core.encoder.onnx_engine import open_graph
from xt.core.errors import XtError
from xt.core.machine import gpu_libraries
from xt.core.machine.gpu_libraries import Library
from xt.serve import diagnosis

CC = shutil.which("cc") or shutil.which("gcc")
needs_compiler = pytest.mark.skipif(CC is None, reason="there is no C compiler")


def make(folder: Path, name: str, code: str, needs: tuple[Path, ...] = ()) -> Path:
    """Compile a library `name`, linked with others by their names alone: no path to them is written into it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    links = [word for n in needs for word in (f"-L{n.parent}", f"-l:{n.name}")]
    command = [CC, "-shared", "-fPIC", "-nostartfiles", "-x", "c", "-", "-o", file, f"-Wl,-soname,{name}"]
    subprocess.run(
        [*map(str, command), "-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined", *links],
        input=code.encode(),
        check=True,
    )
    return file


@pytest.fixture
def packages(tmp_path):
    """A provider of CUDA 99 that needs cublas and curand of two packages; cublas needs cublasLt, which lies beside it."""
    site = tmp_path / "site-packages"
    cuda, cudnn, curand = (site / "nvidia" / name / "lib" for name in ("cu99", "cudnn", "curand"))
    driver = make(tmp_path / "driver", "libcuda.so.1", "int xt_driver(void) { return 1; }")
    lt = make(cuda, "libcublasLt.so.99", "int xt_lt(void) { return 20; }")
    blas = make(cuda, "libcublas.so.99", "int xt_lt(void); int xt_blas(void) { return 1 + xt_lt(); }", (lt,))
    others = ((cuda, "libnvrtc.so.99"), (cuda, "libnvrtc.so.98"), (cuda, "libcufft.so.98"), (cudnn, "libcudnn.so.9"))
    for folder, name in others:
        make(folder, name, "int xt_other(void) { return 5; }")
    rand = make(curand, "libcurand.so.10", "int xt_rand(void) { return 300; }")
    code = "int xt_blas(void); int xt_rand(void); int xt_provider(void) { return xt_blas() + xt_rand(); }"
    provider = make(tmp_path / "capi", "libonnxruntime_providers_cuda.so", code, (blas, rand))
    plain = make(tmp_path / "capi", "libwithdriver.so", "int xt_plain(void) { return 1; }", (driver, rand))
    return site, provider, plain


@needs_compiler
def test_the_names_that_a_library_needs_are_those_that_the_linker_wrote(packages):
    site, provider, *_ = packages
    assert gpu_libraries.needed(provider)[:2] == ["libcublas.so.99", "libcurand.so.10"]
    assert gpu_libraries.needed(site / "nvidia/cu99/lib/libcublasLt.so.99")[:1] in ([], ["libc.so.6"])
    if (readelf := shutil.which("readelf")) is not None:
        for file in (provider, Path(sys.executable).resolve()):
            told = subprocess.run([readelf, "-d", file], capture_output=True, text=True, check=True).stdout
            names = [line.rpartition("[")[2].rstrip("]") for line in told.splitlines() if "(NEEDED)" in line]
            assert gpu_libraries.needed(file) == names


def test_a_file_that_is_no_library_is_refused_by_name(tmp_path):
    for content in (b"", b"\x7fELF", b"hello" * 100, b"\x7fELF\x02\x01" + b"\xff" * 90):
        file = tmp_path / "x.so"
        file.write_bytes(content)
        with pytest.raises(gpu_libraries.NotElf, match=r"x\.so"):
            gpu_libraries.needed(file)


@needs_compiler
def test_what_a_provider_needs_is_found_in_the_packages_dependencies_first(packages):
    site, provider, plain = packages
    folders = gpu_libraries.package_folders([site, site / "nowhere", ""])
    assert [f.relative_to(site).as_posix() for f in folders] == [
        "nvidia/cu99/lib",
        "nvidia/cudnn/lib",
        "nvidia/curand/lib",
    ]
    found = gpu_libraries.required(provider, folders)
    own = [x for x in found if x.origin == "package"]
    assert [(x.name, x.needed_by) for x in own] == [
        ("libcublasLt.so.99", "libcublas.so.99"),
        ("libcublas.so.99", provider.name),
        ("libcurand.so.10", provider.name),
        ("libcudnn.so.9", provider.name),  # these three are opened while it runs, those of its own CUDA
        ("libcufft.so.98", provider.name),
        ("libnvrtc.so.99", provider.name),
    ]
    assert own[0].path == site / "nvidia/cu99/lib/libcublasLt.so.99"
    assert {x.origin for x in found} <= {"package", "system"}
    (driver,) = [x for x in gpu_libraries.required(plain, folders) if x.name == "libcuda.so.1"]
    assert (driver.origin, driver.path) == ("driver", None)


HEAD = """
import ctypes, sys
from pathlib import Path
from xt.core.machine import gpu_libraries
site, file = map(Path, sys.argv[1:])
folders = gpu_libraries.package_folders([site])
"""


def alone(code, *arguments):
    """Lines that a process of its own prints: what one test loads would be found by the next."""
    done = subprocess.run([sys.executable, "-c", HEAD + code, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@needs_compiler
def test_a_provider_that_the_linker_cannot_load_loads_once_its_libraries_are(packages):
    """With no variable that names the folders: 1 + 20 + 300."""
    site, provider, _ = packages
    code = """
try:
    ctypes.CDLL(str(file))
except OSError as error:
    print(error)
print(gpu_libraries.prepare("cuda", folders=folders, file=file))
print(ctypes.CDLL(str(file)).xt_provider())
print("torch" in sys.modules, "onnxruntime" in sys.modules)
"""
    first, problems, value, imported = alone(code, site, provider)
    assert "libcublas.so.99: cannot open shared object file" in first
    assert (problems, value, imported) == ("[]", "321", "False False")


PREPARE = """print(*gpu_libraries.prepare("cuda", folders=folders, file=file), sep="\\n")"""


@needs_compiler
@pytest.mark.parametrize(
    "lost", ["cu99/lib/libcublasLt.so.99", "curand/lib/libcurand.so.10", "cudnn/lib/libcudnn.so.9"]
)
def test_a_missing_library_is_named_with_the_one_that_needs_it(packages, lost):
    site, provider, _ = packages
    (site / "nvidia" / lost).unlink()
    name = lost.rpartition("/")[2]
    parent = "libcublas.so.99" if "Lt" in lost else provider.name
    problems = alone(PREPARE, site, provider)
    assert problems[0] == f"{name} (needed by {parent}) is not there"
    assert len(problems) == (2 if "Lt" in lost else 1)  # what needs it does not load either


@needs_compiler
def test_a_damaged_library_is_named(packages):
    site, provider, _ = packages
    (site / "nvidia/cudnn/lib/libcudnn.so.9").write_bytes(b"\x7fELF\x02\x01 cut off")
    (problem,) = alone(PREPARE, site, provider)
    assert "libcudnn.so.9 cannot be loaded" in problem


def test_libraries_of_the_system_are_left_to_the_linker():
    assert (
        gpu_libraries.load([Library("libm.so.6", "x", None, "system"), Library("libcuda.so.1", "x", None, "driver")])
        == []
    )
    assert ctypes.CDLL("libm.so.6")


@pytest.mark.parametrize(
    ("driver", "cuda", "old"),
    [
        ("570.86.15", 13, True),
        ("579.99", 13, True),
        ("580", 13, False),
        ("580.65.06", 13, False),
        ("580.65.05", 13, True),
        ("595.10.01", 13, False),
        ("525.60.13", 12, False),
        ("470.1", 12, True),
        ("", 13, False),
        ("580.1", None, False),
    ],
)
def test_a_driver_is_too_old_below_the_least_of_its_cuda(driver, cuda, old):
    found = gpu_libraries.driver_problem(driver, cuda)
    assert bool(found) == old
    if old:
        assert driver in found
        assert f"CUDA {cuda} needs {'580.65.06' if cuda == 13 else '525.60.13'} or newer" in found


def test_this_environments_provider_is_looked_for_without_importing_it():
    """The CPU's build of ONNX Runtime has no CUDA provider, and that is said."""
    if gpu_libraries.provider_file("cuda") is None:
        assert gpu_libraries.cuda_major() is None
        assert "without libonnxruntime_providers_cuda.so" in gpu_libraries.prepare("cuda")[0]


def test_a_session_that_would_run_on_the_cpu_instead_is_an_error_that_names_what_is_missing(tmp_path):
    """This ONNX Runtime has no CUDA provider: by itself it takes the CPU's without a word."""
    import onnxruntime as ort
    from onnx import TensorProto, helper, save

    if gpu_libraries.provider_file("cuda") is not None:
        pytest.skip("this ONNX Runtime has the CUDA provider")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", ends[:1], ends[1:])
    file = tmp_path / "model.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    assert open_graph(file, "cpu", options, {}).get_providers() == ["CPUExecutionProvider"]
    with pytest.raises(XtError, match=r"CUDAExecutionProvider for .*it would run on CPUExecutionProvider") as error:
        open_graph(file, "cuda", options, {})
    assert "installed without libonnxruntime_providers_cuda.so" in error.value.message
    assert "driver of 580 or newer" in error.value.hint


@pytest.mark.parametrize(
    ("driver", "state", "said"),
    [("570.86.15", "note", "too old: CUDA 13 needs 580.65.06 or newer"), ("580.95.05", "note", "580.95.05")],
)
def test_doctor_reads_the_drivers_version(driver, state, said, tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho 'NVIDIA L4, 23034 MiB, {driver}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    found = diagnosis._gpu()
    assert said in found.found
    assert (found.state == state) or gpu_libraries.provider_file("cuda") is not None
    assert ("Update the NVIDIA driver" in found.advice) == (driver < "580")


def test_doctor_names_the_driver_that_cuda_13_needs_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "CUDA 13 needs an NVIDIA driver of 580 or newer" in diagnosis._gpu().advice


@needs_compiler
def test_doctor_names_libraries_that_are_missing(packages, monkeypatch):
    site, provider, _ = packages
    monkeypatch.setattr(gpu_libraries, "provider_file", lambda name: provider)
    monkeypatch.setattr(sys, "path", [str(site)])
    (found,) = diagnosis._gpu_libraries()
    assert (found.state, "libcublas.so.99" in found.found) == ("ok", True)
    (site / "nvidia/cu99/lib/libcublasLt.so.99").unlink()
    (found,) = diagnosis._gpu_libraries()
    assert (found.state, found.found) == ("missing", "without libcublasLt.so.99")
