"""What is committed: no address of one machine or one index, hashed locks, one ONNX Runtime and one FAISS in each."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Put together here, so that this file does not hold what it looks for.
HOSTS = ["py" + "pi.org", "python" + "hosted", "index" + "-url"]
FOLDERS = ["/" + name + "/" for name in ("work", "root", "tmp")]
LOCKS = sorted(p for p in (ROOT / "requirements").glob("*.txt") if p.name != "override.txt")


def tracked() -> list[Path]:
    """The files that git tracks and that are there."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file()]


def text_of(path: Path) -> str | None:
    """The text of a file; None for one that is not text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def absolute_paths(text: str) -> list[str]:
    """The paths below `FOLDERS`, where the folder starts the path."""
    pattern = "|".join(re.escape(f) for f in FOLDERS)
    return re.findall(rf"(?<![\w./-])(?:{pattern})[^\s\"'`)]*", text)


def test_there_is_something_to_look_at():
    files = tracked()
    assert len(files) > 50
    assert sum(text_of(f) is not None for f in files) > 50


def test_no_tracked_file_names_a_package_index():
    found = {str(f.relative_to(ROOT)): h for f in tracked() for h in HOSTS if h in (text_of(f) or "")}
    assert found == {}


def test_no_tracked_file_outside_the_tests_names_a_folder_of_one_machine():
    files = [f for f in tracked() if f.relative_to(ROOT).parts[0] != "tests"]
    found = {str(f.relative_to(ROOT)): paths for f in files if (paths := absolute_paths(text_of(f) or ""))}
    assert found == {}


def test_the_check_above_sees_a_path_and_leaves_others_alone():
    assert absolute_paths(f'x = "{FOLDERS[0]}main/a" and {FOLDERS[2]}b') == [f"{FOLDERS[0]}main/a", f"{FOLDERS[2]}b"]
    assert absolute_paths(f"a{FOLDERS[1]}b .{FOLDERS[0]}c /var{FOLDERS[2]}d") == []


def test_no_tracked_file_is_large_or_holds_weights():
    large = {f.name: f.stat().st_size for f in tracked() if f.stat().st_size > 2_000_000}
    assert large == {}
    assert [f.name for f in tracked() if f.suffix in (".onnx", ".safetensors", ".bin", ".pt", ".pkl", ".parquet")] == []


def requirements(lock: Path) -> list[str]:
    """The requirements of a lock, each with its continuation lines."""
    text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_there_is_a_lock_for_each_accelerator_with_and_without_the_tools_and_one_for_its_image():
    assert [p.name for p in LOCKS] == [
        "cpu-dev.txt", "cpu.txt", "gpu-dev.txt", "gpu.txt", "serve-cpu.txt", "serve-gpu.txt",
    ]  # fmt: skip


@pytest.mark.parametrize("lock", LOCKS, ids=lambda p: p.name)
def test_every_requirement_of_a_lock_has_its_version_and_hash(lock):
    rows = requirements(lock)
    assert len(rows) > 35
    for row in rows:
        assert re.match(r"[a-z0-9][a-z0-9._-]*==\S+", row), row[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}(\s|$)", row), row[:80]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda p: p.name)
def test_a_lock_holds_one_onnx_runtime_and_one_faiss(lock):
    names = {re.split(r"==", row)[0] for row in requirements(lock)}
    runtimes = {"cpu": "onnxruntime-openvino", "gpu": "onnxruntime-gpu"}
    kind = "gpu" if "gpu" in lock.name else "cpu"
    assert {n for n in names if n.startswith("onnxruntime")} == {runtimes[kind]}
    # an image searches on the CPU: its GPU is the encoder's
    faiss = "faiss-gpu" if lock.name.startswith("gpu") else "faiss-cpu"
    assert {n for n in names if n.startswith("faiss")} == {faiss}
    assert "openvino-telemetry" not in names


@pytest.mark.parametrize("lock", [p for p in LOCKS if p.name.startswith("serve")], ids=lambda p: p.name)
def test_an_image_holds_neither_torch_nor_transformers(lock):
    names = {re.split(r"==", row)[0] for row in requirements(lock)}
    assert not {"torch", "transformers", "optimum", "nncf"} & names


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
def test_the_lock_with_tools_is_the_other_and_more(accelerator):
    plain, tools = (
        {re.match(r"\S+", row).group() for row in requirements(ROOT / "requirements" / f"{accelerator}{end}.txt")}
        for end in ("", "-dev")
    )
    assert plain < tools


def test_there_is_no_second_lock():
    assert [name for name in ("uv.lock", "poetry.lock", "Pipfile.lock") if (ROOT / name).exists()] == []
