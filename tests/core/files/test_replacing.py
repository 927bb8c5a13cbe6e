"""A folder is replaced only if xt wrote it, it holds nothing else, and the command reads nothing in it.

Tests `core/files/drafts.py` as well.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from xt.core.errors import XtError
from xt.core.files import drafts
from xt.core.files.artifact import MANIFEST, new_artifact, open_artifact, refuse_existing, remove_artifact
from xt.core.files.replacing import foreign, listed, named_paths, remove


def make(target: Path, *, kind: str = "report", force: bool = False, facts: dict | None = None) -> Path:
    with new_artifact(target, kind=kind, force=force) as draft:
        (draft.path / "1").mkdir()
        (draft.path / "empty").mkdir()
        (draft.path / "metrics.json").write_text("{}")
        (draft.path / "1" / "model.py").write_text("x = 1\n")
        draft.facts = facts or {}
    return target


def tree(folder: Path) -> dict[str, bytes | str]:
    """Every file and link below a folder with its content."""
    return {
        p.relative_to(folder).as_posix(): os.readlink(p) if p.is_symlink() else p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_symlink() or p.is_file()
    }


def in_a_folder_of_notes(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "c.txt").write_text("a\nb\n")


def in_a_git_checkout(folder: Path) -> None:
    shutil.rmtree(folder)
    subprocess.run(["git", "init", "-q", str(folder)], check=True)


def a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def a_socket(folder: Path) -> None:
    here = os.getcwd()
    os.chdir(folder)  # a socket's path may have 107 bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("talk")
    os.chdir(here)


def a_file_in_a_folder_of_its_own(folder: Path) -> None:
    (folder / "mine" / "deep").mkdir(parents=True)
    (folder / "mine" / "deep" / "thesis.tex").write_text("x")


def bytecode_beside_no_model(folder: Path) -> None:
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "model.cpython-311.pyc").write_bytes(b"x")


def other_bytecode_beside_the_model(folder: Path) -> None:
    (folder / "1" / "__pycache__").mkdir()
    (folder / "1" / "__pycache__" / "notes.txt").write_bytes(b"x")


def a_link_with_a_listed_name(folder: Path) -> None:
    outside = folder.parent / "outside.json"
    outside.write_text("{}")
    (folder / "metrics.json").unlink()
    (folder / "metrics.json").symlink_to(outside)


def a_linked_folder_with_a_listed_file(folder: Path) -> None:
    shutil.move(folder / "1", folder.parent / "elsewhere")
    (folder / "1").symlink_to(folder.parent / "elsewhere")


def manifest(folder: Path, change) -> None:
    found = json.loads((folder / MANIFEST).read_text())
    change(found)
    (folder / MANIFEST).write_text(json.dumps(found))


FOREIGN = {
    "notes": (in_a_folder_of_notes, "not written by xt.*c.txt"),
    "git checkout": (in_a_git_checkout, r"not written by xt.*\.git"),
    "one more file": (lambda f: (f / "mine.txt").write_text("x"), "did not write there.*mine.txt"),
    "hidden file": (lambda f: (f / ".notes").write_text("x"), r"\.notes"),
    "deep file": (a_file_in_a_folder_of_its_own, "mine/deep/thesis.tex"),
    "pipe": (a_pipe, "pipe"),
    "socket": (a_socket, "talk"),
    "bytecode at the top": (bytecode_beside_no_model, "__pycache__/model.cpython-311.pyc"),
    "notes in the bytecode": (other_bytecode_beside_the_model, "1/__pycache__/notes.txt"),
    "listed link": (a_link_with_a_listed_name, "metrics.json"),
    "linked folder": (a_linked_folder_with_a_listed_file, r"not replaced: 1\."),
    "dangling link": (lambda f: (f / "gone").symlink_to("/nowhere"), "gone"),
    "name that is not UTF-8": (lambda f: Path(os.fsdecode(os.fsencode(f) + b"/\xe4.txt")).touch(), r"\\udce4.txt"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), "has no xt.json"),
    "cut manifest": (lambda f: os.truncate(f / MANIFEST, 40), "not readable as JSON"),
    "facts a list": (lambda f: manifest(f, lambda m: m.update(facts=[])), "facts"),
    "later schema": (lambda f: manifest(f, lambda m: m.update(schema=9)), "schema 9"),
    "other kind": (lambda f: manifest(f, lambda m: m.update(kind="index")), "is a 'index' folder.* 'report'"),
    "manifest of a draft": (lambda f: manifest(f, lambda m: m["files"].pop("metrics.json")), "metrics.json"),
    "manifest is a link": (lambda f: (f / MANIFEST).replace(f / "m") and (f / MANIFEST).symlink_to("m"), "xt.json"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_force_replaces_nothing_that_xt_did_not_write(tmp_path, case):
    folder = make(tmp_path / "out")
    act, message = FOREIGN[case]
    act(folder)
    before = tree(tmp_path)
    with pytest.raises(XtError, match=message) as refused:
        refuse_existing(folder, force=True, kind="report")
    assert refused.value.hint
    with pytest.raises(XtError, match=message), new_artifact(folder, kind="report", force=True):
        raise AssertionError("the work was begun")
    assert tree(tmp_path) == before


def test_without_force_the_hint_names_it_only_where_it_would_help(tmp_path):
    with pytest.raises(XtError, match="is complete already") as refused:
        refuse_existing(make(tmp_path / "out"), force=False, kind="report")
    assert refused.value.hint == "Choose another --out, or pass --force to replace it."
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(XtError, match="is complete already") as refused:
        refuse_existing(tmp_path / "out", force=False, kind="report")
    assert "--force would not" in refused.value.hint and "mine.txt" in refused.value.hint


def test_bytecode_beside_a_model_and_empty_folders_are_replaced_with_it(tmp_path):
    folder = make(tmp_path / "out")
    (folder / "1" / "__pycache__").mkdir()
    (folder / "1" / "__pycache__" / "model.cpython-311.pyc").write_bytes(b"x")
    (folder / "1" / "__pycache__" / "model.cpython-311.pyc.140512").write_bytes(b"x")  # Python was killed writing it
    (folder / "left").mkdir()
    make(folder, force=True)
    assert sorted(tree(folder)) == ["1/model.py", "metrics.json", MANIFEST]
    assert not (folder / "left").exists() and os.listdir(tmp_path) == ["out"]


def test_a_file_is_never_replaced_by_a_folder(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    for force in (False, True):
        with pytest.raises(XtError, match="is a file"):
            refuse_existing(tmp_path / "thesis.tex", force=force, kind="report")
    assert (tmp_path / "thesis.tex").read_text() == "x"


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_never_replaced(tmp_path, there):
    if there:
        make(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for force in (False, True):
        with pytest.raises(XtError, match="is a symbolic link"):
            refuse_existing(tmp_path / "link", force=force, kind="report")


def test_the_working_folder_the_home_and_what_is_above_them_are_refused(tmp_path, monkeypatch):
    place = make(tmp_path / "out") / "1"
    monkeypatch.chdir(place)
    for name in (".", "..", "../..", "../../../" + tmp_path.name, str(tmp_path / "out"), "/", "../1"):
        with pytest.raises(XtError, match="runs in, or above it"):
            refuse_existing(Path(name), force=True, kind="report")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(place))
    with pytest.raises(XtError, match="your home folder"):
        refuse_existing(tmp_path / "out", force=True, kind="report")
    with pytest.raises(XtError, match="your home folder"):
        refuse_existing(place, force=True, kind="report")


def test_a_mount_point_is_refused_before_the_work(small_disk):
    with pytest.raises(XtError, match="is a mount point"):
        refuse_existing(small_disk, force=False, kind="report")


def test_a_folder_that_cannot_be_made_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(XtError, match="file is not a directory"):
        refuse_existing(tmp_path / "file" / "a" / "b", force=False, kind="report")
    if os.geteuid() == 0:
        pytest.skip("everything can be written to by root")
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(XtError, match="closed cannot be written to"):
        refuse_existing(tmp_path / "closed" / "a" / "b", force=False, kind="report")


def test_inputs_are_found_in_the_folder_however_they_are_named(tmp_path, monkeypatch):
    folder = make(tmp_path / "out")
    (tmp_path / "alias").symlink_to(folder)
    (tmp_path / "file").symlink_to(folder / "metrics.json")
    monkeypatch.chdir(tmp_path)
    inside = [
        folder,
        folder / "metrics.json",
        Path("out/1"),
        Path("alias/metrics.json"),
        Path("file"),
        Path("x/../out"),
    ]
    for path in inside:
        with pytest.raises(XtError, match=r"(is|holds) what this command reads"):
            refuse_existing(folder, force=True, kind="report", inputs=[path])
    (tmp_path / "data").mkdir()
    refuse_existing(folder, force=True, kind="report", inputs=[tmp_path / "data", tmp_path])
    with pytest.raises(XtError, match="which this command reads"):
        refuse_existing(folder, force=True, kind="report", trees=[tmp_path])


def test_a_model_is_replaced_by_one_that_serves_the_same_alone(tmp_path):
    facts = {
        "encoder": {"encoder": {}},
        "head": {"encoder": {}, "task": {}},
        "retriever": {"encoder": {}, "kind": "retriever"},
        "graph": {"served_as": "encoder"},
    }
    for role, values in facts.items():
        make(tmp_path / role, kind="model", facts=values)
        for other in facts:
            if other == role:
                refuse_existing(tmp_path / role, force=True, kind="model", role=other)
            else:
                with pytest.raises(XtError, match=f"serves as {role}; it is not replaced by a {other}"):
                    refuse_existing(tmp_path / role, force=True, kind="model", role=other)


@pytest.mark.parametrize("force", [False, True])
def test_what_appears_while_the_command_runs_is_kept_and_so_is_the_result(tmp_path, force):
    target = tmp_path / "out"
    if force:
        make(target)
    changed = pytest.raises(XtError, match="changed while this command ran")
    with changed as refused, new_artifact(target, kind="report", force=force) as draft:
        (draft.path / "metrics.json").write_text('{"hours": 9}')
        target.mkdir(exist_ok=True)
        (target / "mine.txt").write_text("x")
    assert (target / "mine.txt").read_text() == "x"
    assert str(tmp_path / "out-2") in refused.value.hint
    assert json.loads((open_artifact(tmp_path / "out-2").path / "metrics.json").read_text()) == {"hours": 9}
    assert sorted(os.listdir(tmp_path)) == ["out", "out-2"]


def test_a_folder_with_the_name_of_a_draft_that_xt_did_not_write_stays(tmp_path):
    others = {}
    for number, content in enumerate(["", "not the mark", drafts.MARK.decode()]):
        folder = tmp_path / f".out.draft-{99_999_000 + number}"
        (folder / "new").mkdir(parents=True)
        (folder / "thesis.tex").write_text("x")
        if number < 2:
            (folder / drafts.LOCK).write_text(content)
        else:
            (tmp_path / "elsewhere").write_text(content)
            (folder / drafts.LOCK).symlink_to(tmp_path / "elsewhere")
        others[folder.name] = tree(folder)
    os.mkfifo(tmp_path / ".out.draft-7")
    (tmp_path / ".out.draft-8").mkdir()
    os.mkfifo(tmp_path / ".out.draft-8" / drafts.LOCK)
    (tmp_path / ".out.draft-9").symlink_to(tmp_path / ".out.draft-99999000")
    (tmp_path / f".out.draft-{os.getpid()}").mkdir()  # not even where it is in the way
    before = sorted(os.listdir(tmp_path))
    make(tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "out"])
    assert {name: tree(tmp_path / name) for name in others} == others


def test_the_draft_of_a_writer_in_another_container_stays(tmp_path):
    folder = tmp_path / ".out.draft-1"
    (folder / "new").mkdir(parents=True)
    (folder / "new" / "weights.bin").write_bytes(b"x")
    (folder / drafts.LOCK).write_bytes(drafts.MARK)
    with (folder / drafts.LOCK).open() as lock:  # its process number means nothing here, its lock does
        fcntl.flock(lock, fcntl.LOCK_EX)
        make(tmp_path / "out")
        assert (folder / "new" / "weights.bin").is_file()
    make(tmp_path / "out", force=True)
    assert os.listdir(tmp_path) == ["out"]


def test_a_sweep_keeps_what_was_put_into_a_replaced_folder(tmp_path):
    target = make(tmp_path / "out")
    folder = tmp_path / ".out.draft-1"
    folder.mkdir()
    (folder / drafts.LOCK).write_bytes(drafts.MARK)
    shutil.copytree(target, folder / "old")
    (folder / "old" / "mine.txt").write_text("x")
    make(target, force=True)
    assert tree(folder)["old/mine.txt"] == b"x"
    (folder / "old" / "mine.txt").unlink()
    make(target, force=True)
    assert os.listdir(tmp_path) == ["out"]


def test_removing_follows_no_link_and_leaves_what_is_not_listed(tmp_path):
    folder = make(tmp_path / "out")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "model.py").write_text("mine")
    shutil.rmtree(folder / "1")
    (folder / "1").symlink_to(tmp_path / "kept")
    manifest(folder, lambda m: m["files"].update({"../kept/model.py": {"bytes": 4, "sha256": "0"}}))
    assert not remove_artifact(folder)
    assert tree(tmp_path) == {"kept/model.py": b"mine", "out/1": str(tmp_path / "kept")}
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    assert not remove(tmp_path / "link", lambda name: True)
    assert (tmp_path / "kept" / "model.py").read_text() == "mine"


def test_all_foreign_files_are_listed_and_the_error_counts_them(tmp_path):
    folder = make(tmp_path / "out")
    for number in range(7):
        (folder / f"mine{number}").touch()
    found = foreign(folder, listed(json.loads((folder / MANIFEST).read_text())))
    assert found == [f"mine{n}" for n in range(7)]
    with pytest.raises(XtError, match="mine0, mine1, mine2, mine3, mine4 and 2 more"):
        refuse_existing(folder, force=True, kind="report")


def test_paths_are_found_in_every_form_that_options_take(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.tsv", "b.tsv", "c", "d"):
        (tmp_path / name).write_text("x")
    values = ["single:a.tsv", {"mine": ("b.tsv", "absent")}, Path("c"), "name=d", "tatoeba", "", None, 3, "x" * 5000]
    assert sorted(p.name for p in named_paths(*values)) == ["a.tsv", "b.tsv", "c", "d"]
