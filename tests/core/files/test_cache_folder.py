"""The cache's place: found for every user, named where it cannot be used, and never the end of a convenience."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from xt.core.encoder.resolve import ENCODERS, bundled_encoder
from xt.core.errors import XtError
from xt.core.files.cache_folder import cache_folder, check_writable, explain
from xt.serve.triton import server_state
from xt.serve.triton.server_state import ServerState, find, forget, note_server, try_note

NOWHERE = "/dev/null/x"  # not even root can make a folder there
STRANGER = 4_000_123
"""A user's number that has no entry in the list of users."""


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in ("XT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_the_place_is_the_first_of_those_that_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "xt"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/cache")  # the specification: to be ignored
    assert cache_folder() == tmp_path / ".cache" / "xt"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "xt"
    monkeypatch.setenv("XT_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XT_CACHE", "here")
    assert cache_folder() == tmp_path / "here"


@pytest.mark.parametrize("home", ["", None])
def test_without_home_the_users_entry_is_asked(monkeypatch, home):
    monkeypatch.delenv("HOME")
    if home is not None:
        monkeypatch.setenv("HOME", home)
    assert cache_folder() == Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".cache" / "xt"


def as_a_stranger(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code as a user without an entry and without HOME, after the modules were imported; only root can."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    start = (
        "import os, json, tempfile, pwd\n"
        "from pathlib import Path\n"
        "from xt.serve.triton import server_state; from xt.core.files import cache_folder as cache\n"
        "from xt.core.errors import XtError\n"
        f"os.setgroups([]); os.setgid({STRANGER}); os.setuid({STRANGER}); os.environ.pop('HOME', None)\n"
    )
    kept = {k: v for k, v in os.environ.items() if k not in ("HOME", "XT_CACHE", "XDG_CACHE_HOME")}
    return subprocess.run(
        [sys.executable, "-c", start + code],
        env={**kept, **environment},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def open_tmp():
    """A temporary folder that every user can write into."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o1777)
        yield folder


def test_a_user_without_an_entry_gets_a_folder_of_their_own(open_tmp):
    done = as_a_stranger(
        "print(cache.check_writable())\n"
        "print(server_state.note_server('127.0.0.1', {'http': 1, 'grpc': 2, 'metrics': 3}, 'k' * 20, Path('/r'), {}))\n"
        "print(server_state.find('127.0.0.1:2').admin_key)\n"
        "server_state.forget(2)\n"
        "print(server_state.find('127.0.0.1:2'))\n",
        TMPDIR=open_tmp,
    )
    assert done.returncode == 0, done.stderr
    folder = Path(open_tmp) / f"xt-cache-{STRANGER}"
    assert done.stdout.splitlines() == [str(folder), "", "k" * 20, "None"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("plant", ["folder", "link", "open"])
def test_a_folder_of_that_name_that_is_anothers_is_not_used(open_tmp, plant):
    folder = Path(open_tmp) / f"xt-cache-{STRANGER}"
    if plant == "link":
        folder.symlink_to("/var")
    else:
        folder.mkdir()
        if os.geteuid() == 0 and plant == "open":
            os.chown(folder, STRANGER, STRANGER)
        folder.chmod(0o777)
    done = as_a_stranger(
        "try: cache.cache_folder()\n"
        "except XtError as error: print(error.message, error.hint)\n"
        "print(server_state.note_server('127.0.0.1', {'http': 1, 'grpc': 2, 'metrics': 3}, 'k' * 20, Path('/r'), {}))\n"
        "print(server_state.find('127.0.0.1:2')); server_state.forget(2)\n",
        TMPDIR=open_tmp,
    )
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert "is not yours alone" in first and "XT_CACHE" in first
    assert "was not noted" in second and "XT_CACHE" in second
    assert third == "None"


def test_anothers_closed_home_is_an_error_that_names_the_variable(open_tmp):
    closed = Path(open_tmp) / "home"
    closed.mkdir(mode=0o700)
    done = as_a_stranger(
        f"os.environ['HOME'] = {str(closed)!r}\n"
        "try: cache.check_writable()\n"
        "except XtError as error: print(error.hint)\n"
        "print(server_state.note_server('127.0.0.1', {'http': 1, 'grpc': 2, 'metrics': 3}, 'k' * 20, Path('/r'), {}))\n"
        "print(server_state.find('127.0.0.1:2')); server_state.forget(2)\n"
    )
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert "XT_CACHE" in first
    assert "Permission denied" in second and "XT_CACHE" in second
    assert third == "None"


def test_what_needs_the_cache_is_refused_with_the_variables_name(monkeypatch):
    from xt.train import prepare

    monkeypatch.setenv("XT_CACHE", NOWHERE)
    # Other tests of this process may have put their preparations elsewhere.
    monkeypatch.setattr(prepare, "preparations", lambda: cache_folder() / "prepared")
    for work in (
        lambda: bundled_encoder(ENCODERS["multilingual-e5-small"].spec),
        lambda: prepare.prepare("x", None, [], None),
        check_writable,
    ):
        with pytest.raises(XtError) as error:
            work()
        assert "XT_CACHE" in str(error.value)
        assert NOWHERE.rpartition("/")[0] in str(error.value)


def state() -> ServerState:
    start = server_state.process_start(os.getpid())
    return ServerState(os.getpid(), start, "127.0.0.1", 1, 2, 3, "k" * 20, "/r")


def test_a_state_that_cannot_be_noted_is_reported_and_nothing_else(monkeypatch):
    monkeypatch.setenv("XT_CACHE", NOWHERE)
    said = try_note(state())
    assert "was not noted" in said and "XT_CACHE" in said and "XT_ADMIN_KEY" in said
    assert find("127.0.0.1:2") is None
    forget(2)
    server_state.note_model(state(), "encoder", "h")
    ports = {"http": 1, "grpc": 2, "metrics": 3}
    assert "XT_CACHE" in note_server("127.0.0.1", ports, "k" * 20, Path("/r"), {})


def test_a_full_disk_is_reported_and_leaves_no_half_state(monkeypatch, small_disk):
    monkeypatch.setenv("XT_CACHE", str(small_disk / "xt"))
    assert try_note(state()) == ""
    with (small_disk / "filler").open("ab", buffering=0) as filler, pytest.raises(OSError, match="No space"):
        while True:
            filler.write(b"x" * 4096)
    assert "No disk space left" in try_note(state())
    assert find("127.0.0.1:2") == state()  # the one before
    assert [p.name for p in (small_disk / "xt" / "servers").iterdir()] == ["2.json"]
    with pytest.raises(XtError, match=r"XT_CACHE"):
        check_writable()


def test_a_state_that_somebody_else_wrote_is_not_believed(monkeypatch, tmp_path):
    monkeypatch.setenv("XT_CACHE", str(tmp_path))
    assert try_note(state()) == ""
    assert find("127.0.0.1:2") == state()
    file = tmp_path / "servers" / "2.json"
    file.rename(tmp_path / "moved")
    file.symlink_to(tmp_path / "moved")
    assert find("127.0.0.1:2") is None
    file.unlink()
    os.mkfifo(file)
    assert find("127.0.0.1:2") is None  # and does not wait for a writer
    forget(2)
    assert not file.exists()


def test_trying_to_write_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("XT_CACHE", str(tmp_path / "a" / "b"))
    assert check_writable() == tmp_path / "a" / "b"
    assert list(tmp_path.iterdir()) == []


def test_every_error_about_the_cache_names_the_variable():
    for error in (OSError(28, "No space left on device"), XtError("x", "Choose another --out."), XtError("x")):
        assert "XT_CACHE" in explain(error).hint
        assert "--out" not in explain(error).hint
    assert explain(explain(XtError("x"))).message == "xt's cache cannot be used: x"
