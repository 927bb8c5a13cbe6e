"""Cleaning up after killed servers removes what they left, whatever others put into the temporary folder.

Tests `serve/triton/server_state.py` as well.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from xt.serve.triton import processes
from xt.serve.triton.processes import PREFIX, model_processes, new_prefix, new_scratch, remove_bytecode, sweep

DEAD = "xt4194303p0123abcd"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A temporary folder, shared memory and a victim's home, all below one folder; what lies in the home is kept."""
    for name in ("tmp", "shm", "home"):
        (tmp_path / name).mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    (tmp_path / "home" / f"a{DEAD}b").write_text("x")
    (tmp_path / "shm" / f"{DEAD}1a2b").write_text("x")
    (tmp_path / "shm" / "other").write_text("x")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(processes, "SHARED_MEMORY", tmp_path / "shm")
    return tmp_path


def scratch(places: Path, lock: str | bytes | None = DEAD, name: str = "xt-triton-aaaaaaaa") -> Path:
    folder = places / "tmp" / name
    folder.mkdir(mode=0o700)
    (folder / "server.log").write_text("log")
    if lock is not None:
        (folder / "lock").write_bytes(lock.encode() if isinstance(lock, str) else lock)
    return folder


def tree(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def test_a_dead_servers_folder_and_shared_memory_are_removed_and_nothing_else(places):
    folder = scratch(places)
    assert sweep() == [folder]
    assert tree(places) == ["home", f"home/a{DEAD}b", "home/thesis.tex", "shm", "shm/other", "tmp"]


def test_a_new_prefix_is_one_that_a_sweep_knows():
    assert PREFIX.fullmatch(new_prefix())


NOT_A_PREFIX = {
    "a path": "d/../../../home/",
    "a path behind a prefix": f"{DEAD}/../../home/",
    "a pattern": "xt*p????????",
    "everything": "*" * 12,
    "nothing": "",
    "a line too much": f"{DEAD}\n",
    "a prefix of many": "xt4194303p",
    "upper case": DEAD.upper(),
    "other digits": "xt٣p0123abcd",
    "bytes": b"\xff" * 40,
    "a null": f"{DEAD}\0",
    "long": DEAD * 20,
}


@pytest.mark.parametrize("case", NOT_A_PREFIX)
def test_a_lock_that_names_no_prefix_removes_nothing(places, case):
    scratch(places, NOT_A_PREFIX[case])
    before = tree(places)
    assert sweep() == []
    assert tree(places) == before
    lock = NOT_A_PREFIX[case]
    processes.remove_shared_memory(lock if isinstance(lock, str) else lock.decode(errors="replace"))
    assert tree(places) == before


def a_pipe(folder: Path, places: Path) -> None:
    os.mkfifo(folder / "lock")


def a_link(folder: Path, places: Path) -> None:
    (places / "home" / "lock").write_text(DEAD)
    (folder / "lock").symlink_to(places / "home" / "lock")


def a_second_name(folder: Path, places: Path) -> None:
    (places / "home" / "lock").write_text(DEAD)
    os.link(places / "home" / "lock", folder / "lock")


def a_folder(folder: Path, places: Path) -> None:
    (folder / "lock").mkdir()


def a_device(folder: Path, places: Path) -> None:
    (folder / "lock").symlink_to("/dev/zero")


def a_linked_folder(folder: Path, places: Path) -> None:
    (folder / "server.log").unlink()
    folder.rmdir()
    (places / "home" / "lock").write_text(DEAD)
    folder.symlink_to(places / "home")


def another_users_lock(folder: Path, places: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    (folder / "lock").write_text(DEAD)
    os.chown(folder / "lock", 12345, 12345)


def another_users_folder(folder: Path, places: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    (folder / "lock").write_text(DEAD)
    os.chown(folder, 12345, 12345)


PLANTED = [
    a_pipe,
    a_link,
    a_second_name,
    a_folder,
    a_device,
    a_linked_folder,
    another_users_lock,
    another_users_folder,
]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda p: p.__name__)
def test_what_somebody_planted_is_left_alone_and_delays_nothing(places, plant):
    folder = scratch(places, None)
    plant(folder, places)
    before = tree(places)
    code = (  # a process of its own: one that waits for a pipe is killed
        "import tempfile; from pathlib import Path; from xt.serve.triton import processes\n"
        f"tempfile.tempdir = {str(places / 'tmp')!r}; processes.SHARED_MEMORY = Path({str(places / 'shm')!r})\n"
        "assert processes.sweep() == []"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert tree(places) == before


def test_a_live_servers_folder_stays(places):
    folder, handle = new_scratch(DEAD)
    try:
        assert sweep() == []
        assert (Path(folder.name) / "lock").read_text() == DEAD
        assert (places / "shm" / f"{DEAD}1a2b").exists()
    finally:
        os.close(handle)
    with (Path(folder.name) / "lock").open() as lock:  # nobody holds it now
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert sweep() == [Path(folder.name)]
    folder.cleanup()


def test_shared_memory_of_others_and_links_in_its_folder_stay(places):
    shm = places / "shm"
    (shm / f"{DEAD}link").symlink_to(places / "home" / "thesis.tex")
    (shm / f"a{DEAD}").write_text("x")
    if os.geteuid() == 0:
        (shm / f"{DEAD}theirs").write_text("x")
        os.chown(shm / f"{DEAD}theirs", 12345, 12345)
    processes.remove_shared_memory(DEAD)
    theirs = [f"{DEAD}theirs"] if os.geteuid() == 0 else []
    assert tree(shm) == sorted([f"{DEAD}link", f"a{DEAD}", "other", *theirs])
    assert (places / "home" / "thesis.tex").read_text() == "x"


def test_only_the_bytecode_of_a_model_is_removed_and_links_are_not_followed(tmp_path):
    repository, outside = tmp_path / "repository", tmp_path / "outside"
    for folder in (repository / "encoder" / "1", repository / "other" / "1", outside / "1"):
        (folder / "__pycache__").mkdir(parents=True)
        (folder / "__pycache__" / "model.cpython-311.pyc").write_bytes(b"x")
        (folder / "__pycache__" / "notes.txt").write_text("mine")
    for folder in (repository / "encoder" / "1", outside / "1"):
        (folder / "model.py").write_text("x = 1\n")
    for model in ("encoder", "other", "third"):
        (repository / model).mkdir(exist_ok=True)
        (repository / model / "xt.json").write_text("{}")
    (repository / "linked").symlink_to(outside)
    (repository / "encoder" / "2").symlink_to(outside / "1")
    (repository / "third" / "1").mkdir(parents=True)
    (repository / "third" / "1" / "model.py").write_text("x = 1\n")
    (repository / "third" / "1" / "__pycache__").symlink_to(outside / "1" / "__pycache__")
    remove_bytecode(repository)
    assert os.listdir(repository / "encoder" / "1" / "__pycache__") == ["notes.txt"]
    assert len(os.listdir(repository / "other" / "1" / "__pycache__")) == 2  # no model is there
    assert len(os.listdir(outside / "1" / "__pycache__")) == 2
    (repository / "encoder" / "1" / "__pycache__" / "notes.txt").unlink()
    remove_bytecode(repository)
    assert not (repository / "encoder" / "1" / "__pycache__").exists()


def test_another_users_process_is_no_model_process(monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("only root can start another user's process")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        model = Path(folder) / "encoder" / "1" / "model.py"
        model.parent.mkdir(parents=True)
        model.write_text("echo started; read line\n")
        found = {}
        for user in (0, 12345):
            words = ["python_backend_stub", str(model), f"{DEAD}1"]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            with subprocess.Popen(words, executable="/bin/sh", user=user, **pipes) as fake:
                assert fake.stdout.readline() == b"started\n"
                found[user] = [(p.pid == fake.pid, p.model) for p in model_processes(DEAD)]
                fake.kill()
    assert found == {0: [(True, "encoder")], 12345: []}


def test_a_model_process_whose_server_is_gone_is_ended_by_the_next_sweep(places):
    model = places / "home" / "encoder" / "1" / "model.py"
    model.parent.mkdir(parents=True)
    model.write_text("echo started; read line\n")
    parent = places / "home" / "parent.sh"
    parent.write_text(f"exec -a python_backend_stub /bin/sh {model} {DEAD}1 <&0 & echo started; wait\n")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    folder = scratch(places)
    words = ["python_backend_stub", str(model), f"{DEAD}1"]
    with (
        subprocess.Popen(words, executable="/bin/sh", **pipes) as orphan,  # its parent is this process, no server
        subprocess.Popen(["/opt/tritonserver", str(parent)], executable="/bin/bash", **pipes) as server,
    ):
        assert orphan.stdout.readline() == server.stdout.readline() == b"started\n"
        while len(model_processes(DEAD)) < 2:
            time.sleep(0.01)
        assert sweep() == [folder]
        assert orphan.wait(10) == -9
        (served,) = model_processes(DEAD)  # that of a server which ends its models itself
        os.kill(served.pid, 9)
        server.kill()
