"""`xt doctor` looks by trying: a cache that cannot be written to is found, and named with the variable that moves it."""

from __future__ import annotations

from xt.serve.diagnosis import examine


def cache_finding():
    (found,) = [f for f in examine(None) if f.what == "cache"]
    return found


def test_a_cache_that_cannot_be_written_to_is_missing_and_names_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XT_CACHE", "/dev/null/x")  # where not even root can make a folder
    found = cache_finding()
    assert (found.state, "/dev/null" in found.found) == ("missing", True)
    assert "XT_CACHE" in found.advice
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XT_CACHE", str(tmp_path / "file"))
    assert cache_finding().state == "missing"
    assert (tmp_path / "file").read_text() == "x"


def test_a_cache_that_can_be_written_to_is_left_as_it_was(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XT_CACHE", str(tmp_path / "new"))
    found = cache_finding()
    assert (found.state, found.found) == ("ok", f"{tmp_path / 'new'}: empty")
    assert "XT_CACHE" in found.advice
    assert not (tmp_path / "new").exists()
