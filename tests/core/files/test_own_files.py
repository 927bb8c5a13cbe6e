"""Files of one's own: copies share nothing that can be changed, and what others planted is not opened."""

from __future__ import annotations

import os

import pytest

from xt.core.files.own_files import copy_file, open_own, open_own_folder, read_own


def test_a_copy_has_the_content_and_keeps_it_when_the_source_is_cut(tmp_path):
    content = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(content)
    copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").stat().st_ino != (tmp_path / "b").stat().st_ino
    os.truncate(tmp_path / "a", 0)
    assert (tmp_path / "b").read_bytes() == content
    with pytest.raises(FileExistsError):
        copy_file(tmp_path / "a", tmp_path / "b")


def test_only_regular_files_of_this_user_are_opened(tmp_path):
    (tmp_path / "mine").write_text("content")
    assert read_own(tmp_path / "mine") == b"content"
    assert read_own(tmp_path / "mine", 3) == b"con"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "link", "folder", "absent", "mine/x"):
        with pytest.raises(OSError, match=r".+"):
            open_own(tmp_path / name)
    os.link(tmp_path / "mine", tmp_path / "second")
    with pytest.raises(PermissionError):
        open_own(tmp_path / "mine")


def test_a_folder_is_opened_unless_it_is_a_link_or_another_users(tmp_path):
    (tmp_path / "folder").mkdir()
    os.close(open_own_folder(tmp_path / "folder"))
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "file").touch()
    for name in ("link", "file", "absent"):
        with pytest.raises(OSError, match=r".+"):
            open_own_folder(tmp_path / name)
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(tmp_path / "folder", 12345, 12345)
    with pytest.raises(PermissionError):
        open_own_folder(tmp_path / "folder")
