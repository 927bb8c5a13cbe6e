"""What a run of `xt eval` is to do is checked, and its mistakes are reported, before anything is computed.

Tests `eval/options.py` and `serve/options.py` as well.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from xt.core.errors import UsageError, XtError
from xt.eval.options import CalibrationFlags, EvalOptions, Measures
from xt.eval.task_requests import read_requests
from xt.serve.options import EncoderLocation, ServerAddress

ENCODER = EncoderLocation("some-encoder")
SERVER = EncoderLocation(server=ServerAddress("127.0.0.1:8001"))


def asked(task, out, location=ENCODER, **options):
    return read_requests(EvalOptions(task, out, location, **options))


def test_several_tasks_are_reported_below_the_folder_each_by_its_kind(tmp_path):
    found = asked(["tatoeba", "mine:texts", "xquad-r", "sib200"], tmp_path / "r", languages="swh", truncate=True)
    assert [(t.name, t.kind, t.out) for t in found.tasks] == [
        ("tatoeba", "bitext", tmp_path / "r" / "tatoeba"),
        ("mine:texts", "mining", tmp_path / "r" / "texts"),
        ("xquad-r", "ranked", tmp_path / "r" / "xquad-r"),
        ("sib200", "heads", tmp_path / "r" / "sib200"),
    ]
    assert all((t.languages, t.truncate, t.force) == ("swh", True, False) for t in found.tasks)
    assert not found.of_images
    assert asked(["image-text:emoji"], tmp_path / "r").of_images


def test_numbers_of_labelled_queries_and_layers_are_read(tmp_path):
    calibration = CalibrationFlags(calibrate_on="pooled", shots="16, 50", install=Path("repository"))
    found = asked(["tatoeba"], tmp_path / "r", calibration=calibration, measures=Measures(layers="9, 3,9"))
    assert (found.calibration.shots, found.calibration.calibrate_on) == ((16, 50), "pooled")
    assert found.calibration.install == Path("repository")
    assert found.layers == (3, 9)


WRONG = {
    "pool": ({"measures": Measures(pool=5)}, ["xquad-r"], "--pool is for parallel text"),
    "margin": ({"measures": Measures(margin="ratio")}, ["tatoeba"], "--margin is for mining"),
    "cut": ({"measures": Measures(cut=True)}, ["tatoeba"], "--cut is for ranked retrieval"),
    "shots": ({"calibration": CalibrationFlags(shots="16")}, ["xquad-r"], "--shots is for parallel text"),
    "no number": ({"calibration": CalibrationFlags(shots="x")}, ["tatoeba"], "--shots expects numbers"),
    "installed twice": (
        {"calibration": CalibrationFlags(install=Path("r"))},
        ["tatoeba", "xquad-r"],
        "--install takes the calibration of one corpus",
    ),
    "layers": ({"measures": Measures(layers="first")}, ["tatoeba"], "--layers expects `all` or numbers"),
    "layers of a server": (
        {"measures": Measures(layers="all"), "location": SERVER},
        ["tatoeba"],
        "give it by --encoder",
    ),
    "one folder for two": ({}, ["mine:a/x", "mine:b/x"], "two tasks would be reported in x"),
    "images beside others": ({}, ["image-text:emoji", "tatoeba"], "is evaluated by itself"),
}


@pytest.mark.parametrize(("options", "task", "message"), WRONG.values(), ids=WRONG)
def test_what_none_of_the_tasks_would_heed_is_wrong_usage(tmp_path, options, task, message):
    with pytest.raises(UsageError, match=message):
        asked(task, tmp_path / "r", **options)


def test_a_name_that_is_not_known_is_answered_with_the_near_one(tmp_path):
    with pytest.raises(XtError, match="Did you mean ratio"):
        asked(["mine:x"], tmp_path / "r", measures=Measures(margin="ration"))
    with pytest.raises(XtError, match="Write FORMAT:PATH"):
        (tmp_path / "mine.tsv").write_text("a\tb\n")
        asked([str(tmp_path / "mine.tsv")], tmp_path / "r")


def test_a_report_that_is_there_is_refused_before_any_work(tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "mine.txt").write_text("keep")
    with pytest.raises(XtError, match="exists already"):
        asked(["tatoeba"], tmp_path / "r")
