"""`xt bench`: what it refuses, what it writes, and what it says of its own cost.

Tests `bench/options.py` as well.
"""

from __future__ import annotations

import json

import pytest

from tests.command import xt


@pytest.fixture
def lines(tmp_path, corpus):
    file = tmp_path / "lines.txt"
    file.write_text("\n".join(t for b in corpus for t in b.foreign), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "give --url, --repository, --encoder or --against"),
        (("--url", "a:1", "--batch", "some"), "--batch expects numbers"),
        (("--url", "a:1", "--rate", "0"), "--rate expects numbers"),
        (("--url", "a:1", "--input", "voice"), "--input expects text, ids or packed"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_was_expected(options, said, tmp_path):
    done = xt("bench", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_an_unknown_peer_is_refused_before_anything_is_started(tmp_path):
    done = xt("bench", "--encoder", "x", "--against", "infinty", cwd=tmp_path)
    assert done.returncode == 1
    assert "Did you mean infinity" in done.stderr


def test_it_writes_a_document_and_a_plot_and_says_what_the_client_cost(server, lines, tmp_path):
    options = ["--corpus", lines, "--concurrency", "1,2", "--rate", "20", "--seconds", "1", "--rounds", "1"]
    done = xt("bench", "--url", server.url, *options, "--out", "bench", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [(r["mode"], r["concurrency"]) for r in told["rows"]] == [("closed", 1), ("closed", 2), ("open", 0)]
    assert "client cores" in done.stderr
    assert "us a request" in done.stderr
    assert all(r["client_us_per_request"] > 0 for r in told["rows"])
    assert "not readable on this machine" in done.stderr or told["rows"][0]["cpu_joules"] is not None
    kept = json.loads((tmp_path / "bench" / "bench.json").read_text(encoding="utf-8"))
    assert kept == told
    assert (tmp_path / "bench" / "bench.svg").read_text(encoding="utf-8").startswith("<svg")
    assert xt("bench", "--url", server.url, *options, "--out", "bench", cwd=tmp_path).returncode == 1
