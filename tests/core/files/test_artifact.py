"""Artefact folders are complete or absent, and whatever was changed in one is found before it is used."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from xt.core.errors import XtError
from xt.core.files import artifact
from xt.core.files.artifact import (
    MANIFEST,
    damaged_files,
    new_artifact,
    open_artifact,
    open_repository,
    read_manifest,
    refuse_existing,
    write_json,
)


def make(target: Path, text: str = "hello", *, kind: str = "checkpoint", force: bool = False) -> Path:
    with new_artifact(target, kind=kind, force=force) as draft:
        (draft.path / "sub").mkdir()
        (draft.path / "a.txt").write_text(text)
        (draft.path / "sub" / "b.bin").write_bytes(bytes(range(200)))
        draft.facts = {"dim": 3, "name": "häuser"}
        draft.parents = [{"kind": "hub", "path": "x/y", "hash": "1"}]
        draft.seed = 7
    return target


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_folder_keeps_its_files_facts_parents_and_seed(tmp_path):
    opened = open_artifact(make(tmp_path / "deep" / "one"), kind="checkpoint")
    assert opened.facts == {"dim": 3, "name": "häuser"}
    assert opened.manifest["parents"] == [{"kind": "hub", "path": "x/y", "hash": "1"}]
    assert opened.manifest["seed"] == 7
    assert (opened.path / "sub" / "b.bin").read_bytes() == bytes(range(200))
    assert names(tmp_path / "deep") == ["one"]


def test_the_manifest_lists_sizes_and_sha256_of_every_file(tmp_path):
    manifest = json.loads((make(tmp_path / "one") / MANIFEST).read_text())
    assert manifest["files"] == {
        "a.txt": {"bytes": 5, "sha256": hashlib.sha256(b"hello").hexdigest()},
        "sub/b.bin": {"bytes": 200, "sha256": hashlib.sha256(bytes(range(200))).hexdigest()},
    }


def test_the_hash_follows_content_and_not_time_or_place(tmp_path, monkeypatch):
    first = open_artifact(make(tmp_path / "one")).hash
    monkeypatch.setattr(sys, "argv", ["another", "command"])
    assert open_artifact(make(tmp_path / "elsewhere" / "two")).hash == first
    assert open_artifact(make(tmp_path / "three", "hellO")).hash != first


def test_a_child_names_its_parent_by_kind_path_and_hash(tmp_path):
    opened = open_artifact(make(tmp_path / "one"))
    assert opened.as_parent() == {"kind": "checkpoint", "path": str(tmp_path / "one"), "hash": opened.hash}
    assert len(opened.hash) == 64


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), SystemExit(2), XtError("no")])
def test_an_error_inside_the_block_leaves_nothing(tmp_path, error):
    with pytest.raises(type(error)), new_artifact(tmp_path / "one", kind="model") as draft:
        (draft.path / "half.bin").write_bytes(b"x" * 1000)
        raise error
    assert names(tmp_path) == []


def test_facts_that_are_not_json_leave_nothing(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"), new_artifact(tmp_path / "one", kind="model") as draft:
        draft.facts = {"loss": float("nan")}
    assert names(tmp_path) == []


KILLED = """
import sys, time
from pathlib import Path
from xt.core.files.artifact import new_artifact
with new_artifact(Path(sys.argv[1]), kind="model") as draft:
    (draft.path / "weights.bin").write_bytes(b"x" * 100_000)
    print(draft.path, flush=True)
    time.sleep(60)
"""


def test_a_killed_writer_leaves_no_complete_folder_and_the_next_writer_sweeps_its_draft(tmp_path):
    target = tmp_path / "one"
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE, text=True)
    try:
        draft = Path(child.stdout.readline().strip())
        with new_artifact(tmp_path / "other", kind="model"):
            pass
        with pytest.raises(RuntimeError), new_artifact(target, kind="model"):
            assert (draft / "weights.bin").is_file(), "the draft of a living writer was swept"
            raise RuntimeError
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(10)
        child.stdout.close()
    assert draft.parent.parent == tmp_path and (draft / "weights.bin").is_file()
    assert not target.exists() and not (draft / MANIFEST).exists()
    with pytest.raises(XtError, match="not a complete xt folder"):
        open_artifact(draft)
    make(target)
    assert names(tmp_path) == ["one", "other"]
    open_artifact(target)


def test_an_existing_target_is_refused_before_the_work(tmp_path):
    make(tmp_path / "one")
    before = (tmp_path / "one" / MANIFEST).read_bytes()
    with pytest.raises(XtError, match="is complete already") as refused:
        make(tmp_path / "one", "other")
    assert "--force" in refused.value.hint
    assert (tmp_path / "one" / MANIFEST).read_bytes() == before
    refuse_existing(tmp_path / "absent", force=False, kind="model")


def test_an_empty_folder_is_written_into_without_force(tmp_path):
    (tmp_path / "empty").mkdir()
    refuse_existing(tmp_path / "empty", force=False, kind="model")
    assert (open_artifact(make(tmp_path / "empty")).path / "a.txt").read_text() == "hello"
    assert names(tmp_path) == ["empty"]


def test_force_replaces_the_whole_folder(tmp_path):
    make(tmp_path / "one")
    (tmp_path / "one" / "sub" / "b.bin").write_text("damaged")
    make(tmp_path / "one", "new", force=True)
    assert names(tmp_path) == ["one"]
    assert names(tmp_path / "one") == ["a.txt", "sub", MANIFEST]
    assert (tmp_path / "one" / "a.txt").read_text() == "new"


def test_force_keeps_the_old_folder_until_the_new_one_is_complete(tmp_path):
    make(tmp_path / "one")
    with pytest.raises(RuntimeError), new_artifact(tmp_path / "one", kind="checkpoint", force=True) as draft:
        (draft.path / "a.txt").write_text("half")
        assert (tmp_path / "one" / "a.txt").read_text() == "hello"
        raise RuntimeError
    assert names(tmp_path) == ["one"]
    assert open_artifact(tmp_path / "one").path.joinpath("a.txt").read_text() == "hello"


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_force_puts_the_old_folder_back_when_the_last_rename_fails(tmp_path, monkeypatch, error):
    make(tmp_path / "one")
    rename = Path.rename

    def failing(self, target):
        if Path(target) == tmp_path / "one" and (self / "a.txt").read_text() == "new":
            raise error
        return rename(self, target)

    with monkeypatch.context() as patch, pytest.raises((XtError, KeyboardInterrupt)):
        patch.setattr(Path, "rename", failing)
        make(tmp_path / "one", "new", force=True)
    assert names(tmp_path) == ["one"]
    assert (open_artifact(tmp_path / "one").path / "a.txt").read_text() == "hello"


REPLACED = """
import os, signal, sys
from pathlib import Path
from xt.core.files.artifact import new_artifact
target, rename = Path(sys.argv[1]), Path.rename
def dies(self, to):
    if Path(to) == target:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, to)
Path.rename = dies
with new_artifact(target, kind="checkpoint", force=True) as draft:
    (draft.path / "a.txt").write_text("new")
"""


def test_a_writer_killed_between_the_two_renames_loses_nothing_for_good(tmp_path):
    target = make(tmp_path / "one")
    child = subprocess.run([sys.executable, "-c", REPLACED, str(target)], capture_output=True, timeout=60)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert not target.exists(), "the writer was to die while the folder was aside"
    with pytest.raises(XtError, match="is complete already"):
        make(target, "newer")
    assert names(tmp_path) == ["one"]
    assert (open_artifact(target).path / "a.txt").read_text() == "hello"


def flip(folder: Path) -> None:
    data = bytearray((folder / "sub" / "b.bin").read_bytes())
    data[100] ^= 1
    (folder / "sub" / "b.bin").write_bytes(data)


def edit(folder: Path, change) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


DAMAGE = {
    "flipped byte": (flip, r"sub/b.bin: content differs \(SHA-256\)"),
    "truncated": (lambda f: os.truncate(f / "sub" / "b.bin", 150), "sub/b.bin: 150 bytes, expected 200"),
    "missing": (lambda f: (f / "a.txt").unlink(), "a.txt: missing"),
    "edited facts": (lambda f: edit(f, lambda m: m["facts"].update(dim=4)), "facts were edited"),
    "edited digest": (lambda f: edit(f, lambda m: m["files"]["a.txt"].update(sha256="0" * 64)), "a.txt: content"),
    "hidden file": (lambda f: edit(f, lambda m: m["files"].pop("a.txt")), "hash differs"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), r"has no xt.json.*found: a.txt, sub"),
    "cut manifest": (lambda f: os.truncate(f / MANIFEST, 60), "not readable as JSON"),
    "binary manifest": (lambda f: (f / MANIFEST).write_bytes(b"\xff\xfe{}"), "not readable as JSON"),
    "a number": (lambda f: (f / MANIFEST).write_text("3"), "holds a JSON int, no object"),
    "a list": (lambda f: (f / MANIFEST).write_text("[]"), "holds a JSON list, no object"),
    "no facts": (lambda f: edit(f, lambda m: m.pop("facts")), "lacks facts"),
    "later schema": (lambda f: edit(f, lambda m: m.update(schema=99)), "has schema 99; this xt .* reads 1"),
    "wrong kind": (lambda f: edit(f, lambda m: m.update(kind="report")), "is a 'report' folder; a 'checkpoint'"),
    "files a list": (lambda f: edit(f, lambda m: m.update(files=["a.txt"])), "xt.json"),
    "file without size": (lambda f: edit(f, lambda m: m["files"]["a.txt"].pop("bytes")), "xt.json"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused_by_name(tmp_path, damage):
    folder = make(tmp_path / "one")
    open_artifact(folder, kind="checkpoint")
    act, message = DAMAGE[damage]
    act(folder)
    with pytest.raises(XtError, match=message) as refused:
        open_artifact(folder, kind="checkpoint")
    assert refused.value.hint


def test_every_damaged_file_is_listed(tmp_path):
    folder = make(tmp_path / "one")
    flip(folder)
    (folder / "a.txt").unlink()
    found = damaged_files(folder, read_manifest(folder))
    assert [p.split(":")[0] for p in found] == ["a.txt", "sub/b.bin"]


def test_a_missing_folder_is_an_error_of_its_own(tmp_path):
    with pytest.raises(XtError, match="There is no folder"):
        open_artifact(tmp_path / "absent")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch, code):
    def full(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch, pytest.raises(XtError, match="No disk space left") as refused:
        patch.setattr(Path, "write_text", full)
        make(tmp_path / "one")
    assert "Free some space" in refused.value.hint
    assert names(tmp_path) == []


def test_a_disk_that_fills_up_while_the_manifest_is_written_leaves_nothing(tmp_path, monkeypatch):
    def full(_path, _value):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(XtError, match="No disk space left"):
        patch.setattr(artifact, "write_json", full)
        make(tmp_path / "one")
    assert names(tmp_path) == []


def test_a_really_full_disk_is_said_and_leaves_nothing(small_disk):
    with pytest.raises(XtError, match="No disk space left"), new_artifact(small_disk / "one", kind="model") as draft:
        (draft.path / "weights.bin").write_bytes(b"x" * 1_000_000)
    assert names(small_disk) == []


def test_safetensors_on_a_full_disk_says_no_disk_space(small_disk):
    import numpy as np
    from safetensors.numpy import save_file

    with pytest.raises(XtError, match="No disk space left"), new_artifact(small_disk / "one", kind="model") as draft:
        save_file({"x": np.zeros(1_000_000, np.float32)}, draft.path / "model.safetensors")
    assert names(small_disk) == []


def test_an_operating_system_error_elsewhere_keeps_its_own_type(tmp_path):
    with pytest.raises(FileNotFoundError), new_artifact(tmp_path / "out" / "one", kind="model"):
        (tmp_path / "absent.txt").read_text()
    assert names(tmp_path / "out") == []


def test_a_target_below_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(XtError, match="file is not a directory"):
        make(tmp_path / "file" / "one")


def test_write_json_keeps_the_old_file_when_the_new_one_is_bad(tmp_path):
    file = tmp_path / "x.json"
    write_json(file, {"a": "ü", "path": Path("/p")})
    assert file.read_text(encoding="utf-8") == '{\n  "a": "ü",\n  "path": "/p"\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(file, {"a": float("inf")})
    assert json.loads(file.read_text(encoding="utf-8"))["a"] == "ü"
    assert names(tmp_path) == ["x.json"]


def test_a_repository_opens_every_model_checked(tmp_path):
    for name in ("one", "two"):
        with new_artifact(tmp_path / name, kind="model") as draft:
            (draft.path / "config.pbtxt").write_text(f'name: "{name}"')
    (tmp_path / "notes").mkdir()
    assert sorted(open_repository(tmp_path)) == ["one", "two"]
    (tmp_path / "two" / "config.pbtxt").write_text('name: "owt"')
    with pytest.raises(XtError, match="config.pbtxt: content differs"):
        open_repository(tmp_path)


def test_a_repository_without_models_is_refused(tmp_path):
    with pytest.raises(XtError, match="holds no model"):
        open_repository(tmp_path)
    with pytest.raises(XtError, match="no folder"):
        open_repository(tmp_path / "absent")
