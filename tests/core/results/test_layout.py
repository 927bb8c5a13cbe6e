"""A report is kept in a fraction of the bytes, and is read again number by number, also as former versions wrote it.

Tests `core/results/folder.py`, `core/results/records.py`, `core/results/report.py`, `core/results/tasks.py`,
`core/results/work.py`, `core/results/calibration.py` and `core/results/comparison.py` as well.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.documents import different
from tests.eval.report.test_build import fake
from xt.calibration.measuring import measures
from xt.core.errors import XtError
from xt.core.files.artifact import new_artifact, open_artifact, write_json
from xt.core.results import layout
from xt.core.results.calibration import Measures
from xt.core.results.folder import Files, open_report, read_document, read_report, write_report
from xt.core.results.report import Encoder, Report


def large(languages: int = 16, methods: int = 11) -> dict[str, Any]:
    """As many measures a language, method and direction as an evaluation gives."""
    rng = np.random.default_rng(0)

    def row() -> dict[str, Any]:
        confidence = rng.random(120)
        correct = (rng.random(120) < confidence).astype(float)
        return {
            "n": 120,
            **measures.measure(confidence, correct, repeats=20),
            "reliability": measures.reliability(confidence, correct),
            "risk_coverage": measures.risk_coverage(confidence, correct, points=25),
        }

    def way() -> dict[str, Any]:
        found = {
            f"m{i}": {"label": "a method", "languages": {f"l{j}": row() for j in range(languages)}, **row()}
            for i in range(methods)
        }
        return {"fit_languages": ["deu"], "methods": found}

    return {"schema": 1, "title": "large", "encoders": [{"name": "one", "calibration": {"a-b": way(), "b-a": way()}}]}


@pytest.fixture(scope="module")
def document():
    return large()


def test_a_document_is_read_again_to_seven_digits(document, tmp_path):
    write_report(tmp_path / "r", Report.from_json(document), Files("page"))
    assert different(document, read_document(tmp_path / "r"), rel=1e-6) == []
    assert different(document, read_document(tmp_path / "r"), rel=1e-9) != []


def test_a_page_made_again_from_its_folder_says_the_same(tmp_path):
    write_report(tmp_path / "r", Report.from_json(fake()), Files("page"))
    assert different(fake(), read_document(tmp_path / "r")) == []


def test_a_folder_takes_a_twelfth_of_the_former_bytes(document, tmp_path):
    artifact = write_report(tmp_path / "r", Report.from_json(document), Files("page"))
    before = len(json.dumps(document, indent=2).encode())
    now = sum(artifact.manifest["files"][name]["bytes"] for name in ("metrics.json", "curves.parquet"))
    assert now < before / 12
    assert artifact.manifest["files"]["metrics.json"]["bytes"] < before / 18
    assert len((tmp_path / "r" / "metrics.json").read_text().splitlines()) == 5  # a key a line, and the braces


def test_rows_that_lack_a_figure_and_null_and_nested_ones_are_kept(tmp_path):
    rows = {
        "deu": {"n": 3, "ece_ci": None, "copies": {"documents": 0}, "own": {"x": 0.25}},
        "swh": {"n": 4, "ece_ci": [0.5, 1.0], "copies": {"documents": 2}},
        "jav": {"n": 5, "ece_ci": None, "copies": {}},
    }
    whole = {"schema": 1, "encoders": [{"name": "a", "retrieval": {"b": {"languages": rows}}}], "notes": []}
    text, curves = layout.pack(whole)
    assert curves == []
    assert layout.unpack(json.loads(text), "here") == whole


def test_the_former_layout_is_read_and_a_newer_one_refused_by_name(document, tmp_path):
    def folder(name: str, content: Any):
        with new_artifact(tmp_path / name, kind="report") as draft:
            write_json(draft.path / "metrics.json", content)
        return tmp_path / name

    old = open_report(folder("old", document)).report
    assert old.encoders[0].calibration["a-b"].methods["m0"].languages["l3"].reliability[0].count == 8
    assert read_report(folder("older", {"task": {"name": "x"}})).task.name == "x"  # before schemas were numbered
    with pytest.raises(XtError, match=r"metrics.json has schema 3; this xt \(.*\) reads 1 and 2"):
        open_report(folder("new", {"schema": 3}))
    with pytest.raises(XtError, match="holds a JSON list, no object"):
        open_report(folder("list", [1]))


def test_what_is_of_another_type_counts_as_missing_and_what_is_unknown_is_kept():
    found = Measures.from_json({"n": 3, "ece": "broken", "ece_ci": [0.1, None], "auroc": float("nan"), "later": [1]})
    assert (found.n, found.ece, found.ece_ci, found.auroc) == (3, None, None, None)
    assert found.to_json() == {"n": 3, "ece": None, "ece_ci": None, "auroc": None, "later": [1]}
    assert Report.from_json({"encoders": [3, {"name": "a"}], "machine": "?"}).encoders == [Encoder(name="a")]


def test_a_folder_that_fails_half_way_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_report(tmp_path / "r", Report(title="x", training={"loss": float("nan")}), Files("page"))
    assert list(tmp_path.iterdir()) == []
    write_report(
        tmp_path / "r", Report(title="x"), Files("page", lines=[{"a": 1}], calibration={}, texts={"t.tsv": "a\tb\n"})
    )
    files = open_artifact(tmp_path / "r").manifest["files"]
    assert sorted(files) == ["calibration.json", "metrics.json", "predictions.jsonl", "report.html", "t.tsv"]
    assert open_report(tmp_path / "r").predictions == [{"a": 1}]
