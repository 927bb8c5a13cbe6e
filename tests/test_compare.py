"""The comparison of two folders of results: what differs is found, and what has no counterpart is named."""

import json
import re
import sys
from pathlib import Path

import pytest

try:
    from tests import compare
except ImportError:  # pytest imports a test by its path alone
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tests import compare

from xt.core.results.folder import Files, write_report
from xt.core.results.report import Report

METHOD = {
    "label": "T = 1",
    "overall": {"ece": 0.25},
    "languages": {"deu": {"ece": 0.125, "risk_coverage": [[0.5, 0.1], [1.0, 0.2]]}},
}
DOCUMENT = {
    "encoders": [{"name": "e", "calibration": {"a-b": {"methods": {"cosine": METHOD}}}, "seconds": {"encode": 3.0}}]
}
FITTED = {"kind": "retrieval-temperature", "temperature": 0.0125, "none_score": 0.7}
FORMER = {"e": {"a-b": {"pooled": {**FITTED, "fitted_on": ["deu"]}, "per-language": {"deu": FITTED}}}}


def former(folder, *, ece=0.125, temperature=0.0125, losses=(1.0, 0.5)):
    """Results as they were written before reports had a schema and calibrations a version."""
    report = json.loads(json.dumps(DOCUMENT))
    report["encoders"][0]["calibration"]["a-b"]["methods"]["cosine"]["languages"]["deu"]["ece"] = ece
    (folder / "report").mkdir(parents=True)
    (folder / "report" / "metrics.json").write_text(json.dumps(report))
    (folder / "report" / "predictions.jsonl").write_text('{"id": "q1", "p_cosine": 0.5, "correct": true}\n')
    text = json.dumps(FORMER).replace("0.0125", str(temperature))
    (folder / "report" / "calibration.json").write_text(text)
    (folder / "run").mkdir()
    training = {"losses": [{"step": i, "loss": x} for i, x in enumerate(losses)], "seconds": 5.0}
    (folder / "run" / "xt.json").write_text(json.dumps({"kind": "checkpoint", "facts": {"training": training}}))
    (folder / "openapi.json").write_text(json.dumps({"paths": {"/search": {"post": {"summary": "Search"}}}}))
    return folder


def now(folder):
    """The same results as they are written now: by column, curves apart, a calibration with version and kind."""
    former(folder)
    pooled, own = {"calibrator": FITTED, "fitted_on": ["deu"]}, {"languages": {"deu": FITTED}}
    methods = {"pooled": pooled, "per-language": own}
    kept = {"version": 1, "kind": "search", "encoders": {"e": {"a-b": methods}}}
    rows = [{"id": "q1", "p_cosine": 0.5, "correct": True}]
    for file in (folder / "report").iterdir():
        file.unlink()
    (folder / "report").rmdir()
    write_report(folder / "report", Report.from_json(DOCUMENT), Files("", table=rows, calibration=kept))
    return folder


def run(old, new):
    lines = []
    return compare.main([str(old), str(new)], lines.append), "\n".join(map(str, lines))


def test_the_same_results_are_equal_under_their_former_and_their_present_names(tmp_path):
    code, said = run(former(tmp_path / "old"), now(tmp_path / "new"))
    assert code == 0, said
    counts = dict(re.findall(r"^\S+: (\w+): (\d+ compared, .*)$", said, re.MULTILINE))
    assert counts["metrics"].startswith("2 compared, 0 differ, 0 only in old, 0 only in new")  # not the seconds
    assert counts["curves"].startswith("4 compared") and counts["predictions"].startswith("2 compared")
    assert counts["calibration"].startswith("4 compared, 0 differ")  # two temperatures and their scores of none
    assert counts["training"].startswith("4 compared") and counts["openapi"].startswith("1 compared")
    assert said.splitlines()[-1].startswith("17 numbers compared, 0 differ by more than 1e-06, 0 have no counterpart")


@pytest.mark.parametrize(
    ("changed", "group", "line"),
    [
        ({"ece": 0.12500002}, None, ""),
        ({"ece": 0.1251}, "report: metrics", "/deu/ece: 0.125 -> 0.1251"),
        ({"temperature": 0.01251}, "report: calibration", "/deu/temperature: 0.0125 -> 0.01251"),
        ({"losses": (1.0, 0.51)}, "run: training", "/losses/1/loss: 0.5 -> 0.51"),
    ],
)
def test_a_number_that_moved_by_more_than_a_millionth_is_named(tmp_path, changed, group, line):
    code, said = run(former(tmp_path / "old"), former(tmp_path / "new", **changed))
    assert code == (3 if group else 0), said
    assert line in said
    if group:
        assert f"{group}: " in said and "0 differ" not in said.split(f"{group}: ")[1].splitlines()[0].split(",")[1]


def test_what_has_no_counterpart_is_counted_and_named(tmp_path):
    old, new = former(tmp_path / "old", losses=(1.0, 0.5, 0.25)), former(tmp_path / "new")
    (new / "openapi.json").write_text('{"paths": {}}')
    (new / "report" / "calibration.json").unlink()
    code, said = run(old, new)
    assert code == 3
    assert "run: training: 4 compared, 0 differ, 2 only in old, 0 only in new" in said
    assert "only in old: /training/losses/*/loss" in said
    assert "report: calibration: only in old, 4 numbers without a counterpart" in said
    assert "openapi: only in old" in said or "only in old: /paths//search/post/summary" in said
    assert run(tmp_path / "old", tmp_path / "absent")[0] == 2


def test_two_folders_without_a_number_are_not_equal(tmp_path):
    assert run(tmp_path, tmp_path)[0] == 3
