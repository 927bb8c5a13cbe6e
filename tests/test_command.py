"""What `tests.command.xt` gives is what the console script gives, started from nothing."""

from __future__ import annotations

import signal

import pytest

from tests.command import Command, started, xt


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["tasks", "--json"], 0),
        (["check", "nowhere"], 1),
        (["eval", "--out", "r"], 2),
        (["doctor", "--data-dir", "nowhere", "--json"], 3),
    ],
)
def test_a_forked_command_ends_as_one_that_was_started_from_nothing(tmp_path, arguments, code):
    forked, alone = xt(*arguments, cwd=tmp_path), started(*arguments, cwd=tmp_path)
    assert alone.returncode == code
    assert (forked.returncode, forked.stdout, forked.stderr) == (alone.returncode, alone.stdout, alone.stderr)


def test_commands_run_at_once_and_each_tells_how_it_ended(tiny_folder, tmp_path):
    options = ["--encoder", tiny_folder, "--intermediate", "sample-nli", "--batch", "2", "--device", "cpu"]
    long = Command("train", *options, "--steps", "100000", "--out", "x", cwd=tmp_path, XT_CACHE=str(tmp_path / "cache"))
    try:
        assert xt("check", "nowhere", cwd=tmp_path).returncode == 1
        assert long.poll() is None
    finally:
        long.kill()
    assert long.wait() == long.poll() == -signal.SIGKILL
    assert not (tmp_path / "x").exists()
