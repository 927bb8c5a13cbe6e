"""A disk that fills up while a state is written: said, and the state before it stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from xt.core.errors import XtError
from xt.core.files.artifact import new_artifact
from xt.train.state import Work


def test_a_full_disk_is_said_and_the_state_before_stays_whole(small_disk: Path) -> None:
    work = Work(small_disk / "x.training")
    work.begin({})
    work.save(1, {"weight/a": torch.ones(3)}, {"trace": {}})
    with pytest.raises(XtError, match="No disk space left"):
        work.save(2, {"weight/a": torch.ones(1_000_000)}, {"trace": {}})
    with pytest.raises(XtError, match="No disk space left"):
        work.save_best({"weight/a": torch.ones(1_000_000)})
    loaded = work.load()
    assert loaded is not None
    assert (loaded[0]["weight/a"].tolist(), loaded[1]["step"]) == ([1.0, 1.0, 1.0], 1)
    assert not work.best.exists()


def state(folder: Path) -> Work:
    """A work folder with everything that a training writes into one."""
    work = Work(folder)
    work.begin({})
    phase = Work(folder / "phase-target")
    phase.folder.mkdir()
    phase.save(1, {"weight/a": torch.ones(3)}, {"trace": {}})
    phase.save_best({"weight/a": torch.ones(3)})
    (phase.folder / "draft-2").mkdir()
    (phase.folder / "draft-2" / "tensors.safetensors").write_bytes(b"x")
    (phase.folder / "best.draft").write_bytes(b"x")
    (folder / ".run.json.123").write_bytes(b"x")
    for name in ("intermediate", ".intermediate.draft-1/new", ".intermediate.draft-1/old"):
        (folder / name).mkdir(parents=True)
        (folder / name / "model.safetensors").write_bytes(b"x")
    (folder / ".intermediate.draft-1" / "xt-draft").write_bytes(b"x")
    shutil.rmtree(folder / "intermediate")
    with new_artifact(folder / "intermediate", kind="checkpoint") as draft:
        (draft.path / "model.safetensors").write_bytes(b"x")
    return work


def test_everything_that_a_training_writes_is_its_own_and_goes_with_it(tmp_path: Path) -> None:
    work = state(tmp_path / "x.training")
    work.refuse_foreign()
    work.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["notes.txt", "phase-target/notes.txt", "phase-target/state-1/notes.txt", "intermediate/notes.txt", "a/b"]
)
def test_a_file_that_a_training_did_not_write_is_named_and_stays(tmp_path: Path, name: str) -> None:
    work = state(tmp_path / "x.training")
    (work.folder / name).parent.mkdir(exist_ok=True)
    (work.folder / name).write_text("mine")
    with pytest.raises(XtError, match=rf"holds what xt did not write: {name}\."):
        work.begin({})
    work.remove()
    assert [p.relative_to(work.folder).as_posix() for p in work.folder.rglob("*") if p.is_file()] == [name]


def test_a_work_folder_that_is_a_link_or_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "x.training").symlink_to(tmp_path / "mine")
    (tmp_path / "y.training").write_text("mine")
    for name in ("x", "y"):
        with pytest.raises(XtError, match="is no folder"):
            Work(tmp_path / f"{name}.training").begin({})
