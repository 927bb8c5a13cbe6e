"""XTREME's tables are added up as its authors' script adds them up, and nothing missing is averaged over."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.documents import different
from xt.core.errors import XtError
from xt.core.files.artifact import new_artifact, open_artifact, write_json
from xt.core.results.folder import read_document
from xt.eval.summary import BENCHMARKS, Read, as_tsv, notes, read_report, summarise, task_scores, write_summary

FIGURES = {"accuracy": 0.0, "span_f1": 0.0, "f1": 0.0, "exact_match": 0.0, "AP@20": 0.0}


def made_up(benchmark: str, seed: int = 0) -> dict[str, dict[str, dict[str, float]]]:
    """Every figure of every language of every task."""
    rng = np.random.default_rng(seed)
    return {
        row.task: {code: {name: float(rng.random()) for name in FIGURES} for code in row.codes}
        for row in BENCHMARKS[benchmark]
    }


def reads(found: dict[str, dict[str, dict[str, float]]], tmp_path: Any) -> list[Read]:
    return [Read(tmp_path / task, task, "e", "0", rows) for task, rows in found.items()]


def official(
    found: dict[str, dict[str, dict[str, float]]], benchmark: str
) -> tuple[dict[str, float], dict[str, float], float]:
    """XTREME's evaluate.py: averages of each metric over languages, then `avg_metric`, then means over tasks."""
    groups = {
        "xtreme": {"classification": ["paws-x", "xnli"], "retrieval": ["bucc", "tatoeba"]},
        "xtreme-r": {"classification": ["xnli", "xcopa"], "retrieval": ["tatoeba", "mewsli-x", "xquad-r"]},
    }[benchmark] | {"structured prediction": ["udpos", "panx"], "question answering": ["xquad", "mlqa", "tydiqa"]}
    metric = {"paws-x": "accuracy", "xnli": "accuracy", "xcopa": "accuracy", "tatoeba": "accuracy", "bucc": "f1"}
    metric |= {"udpos": "span_f1", "panx": "span_f1", "mewsli-x": "AP@20", "xquad-r": "AP@20"}
    tasks = {}
    for task, rows in found.items():
        average = {m: sum(r[m] for r in rows.values()) / len(rows) for m in FIGURES}
        both = (average["exact_match"] + average["f1"]) / 2
        tasks[task] = both if task in groups["question answering"] else average[metric[task]]
    by_group = {name: sum(tasks[t] for t in members) / len(members) for name, members in groups.items()}
    return tasks, by_group, sum(tasks.values()) / len(tasks)


@pytest.mark.parametrize("benchmark", ["xtreme", "xtreme-r"])
def test_scores_are_those_of_the_authors_script(benchmark, tmp_path):
    found = made_up(benchmark)
    section = summarise(benchmark, reads(found, tmp_path))
    tasks, by_group, overall = official(found, benchmark)
    assert {name: t["score"] for name, t in section["tasks"].items()} == pytest.approx(tasks)
    assert {name: g["score"] for name, g in section["groups"].items()} == pytest.approx(by_group)
    assert section["overall"]["score"] == pytest.approx(overall)
    assert notes(section) == []


def test_the_benchmarks_have_the_published_numbers_of_tasks_and_languages():
    sizes = {name: {r.task: len(set(r.codes)) for r in rows} for name, rows in BENCHMARKS.items()}
    same = {"xnli": 15, "mlqa": 7, "tydiqa": 9}
    first = {"paws-x": 7, "udpos": 33, "panx": 40, "xquad": 11, "bucc": 4, "tatoeba": 36}
    second = {"xcopa": 11, "udpos": 38, "panx": 48, "xquad": 12, "tatoeba": 41, "mewsli-x": 11, "xquad-r": 11}
    assert sizes == {"xtreme": same | first, "xtreme-r": same | second}
    assert len({code for r in BENCHMARKS["xtreme"] for code in r.codes}) == 40
    assert len({code for r in BENCHMARKS["xtreme-r"] for code in r.codes}) == 50


def test_a_missing_language_or_task_leaves_no_score_and_is_named(tmp_path):
    found = made_up("xtreme")
    del found["mlqa"], found["tatoeba"]["jav"]
    found["udpos"]["yor"].pop("span_f1")
    section = summarise("xtreme", reads(found, tmp_path))
    assert section["tasks"]["tatoeba"]["score"] is None
    there = [row["accuracy"] for row in found["tatoeba"].values()]
    assert section["tasks"]["tatoeba"]["partial"] == pytest.approx(np.mean(there))
    assert section["tasks"]["tatoeba"]["missing"] == ["jav"]
    assert section["groups"]["retrieval"] == {"score": None, "missing": ["tatoeba"], "tasks": 2}
    assert section["groups"]["classification"]["score"] is not None
    assert section["overall"] == {"score": None, "missing": ["udpos", "mlqa", "tatoeba"], "tasks": 9}
    told = notes(section)
    assert "mlqa: no report" in told
    assert "tatoeba: 1 of 36 languages are missing (jav); no score" in told
    assert "udpos: its report has no span_f1" in told
    lines = {line.split("\t")[1]: line.split("\t") for line in as_tsv(section).splitlines()[1:]}
    assert lines["tatoeba"][2] == "" and float(lines["tatoeba"][3]) == pytest.approx(np.mean(there), abs=1e-6)
    assert lines["tatoeba"][4:] == ["35", "36", "jav"] and lines["xtreme"][2] == ""


def test_figures_that_are_no_numbers_are_missing():
    (row,) = [r for r in BENCHMARKS["xtreme"] if r.task == "bucc"]
    found = {"deu": {"f1": float("nan")}, "fra": {"f1": None}, "rus": {"f1": True}, "cmn": {"f1": 0.5}}
    assert task_scores(row, found) == ({"cmn": [0.5]}, ["deu", "fra", "rus"], ["f1"])


def report(folder, task: str, sections: dict[str, Any], encoder: dict[str, Any] | None = None):
    with new_artifact(folder, kind="report") as draft:
        metrics = {"task": {"name": task}, "encoders": [{"name": "tiny", **(encoder or {})}], **sections}
        write_json(draft.path / "metrics.json", metrics)
    return folder


def test_reports_of_every_kind_are_read_and_put_together(tmp_path):
    accuracy = {"deu": {"accuracy": 0.9}, "swh": {"accuracy": 0.5}}
    ways = {"english-foreign": {"languages": accuracy}, "foreign-english": {"languages": {"deu": {"accuracy": 0.1}}}}
    folders = [
        report(tmp_path / "t", "tatoeba", {}, {"retrieval": ways}),
        report(
            tmp_path / "b", "bucc", {"mining": {"languages": {c: {"f1": 0.8} for c in ("deu", "fra", "rus", "cmn")}}}
        ),
        report(tmp_path / "x", "xnli", {"classification": {"languages": {"de": {"accuracy": 0.6}}}}),
        report(tmp_path / "x2", "xnli", {"classification": {"languages": {"fra": {"accuracy": 0.8}}}}),
        report(tmp_path / "s", "sib200", {"classification": {"languages": {"fra": {"accuracy": 0.8}}}}),
    ]
    artifact, metrics = write_summary(folders, "xtreme", tmp_path / "out")
    tasks = metrics.summary.tasks
    assert tasks["tatoeba"].languages == {"deu": 0.9, "swh": 0.5}  # XTREME's direction
    assert tasks["bucc"].score == pytest.approx(0.8)
    assert tasks["xnli"].languages == {"deu": 0.6, "fra": 0.8} and tasks["xnli"].partial == pytest.approx(0.7)
    assert tasks["tatoeba"].by["resource"]["low"]["languages"] == ["swh"]
    assert metrics.summary.ignored == ["sib200"]
    assert sorted(p.name for p in artifact.path.iterdir()) == ["metrics.json", "report.html", "summary.tsv", "xt.json"]
    opened = open_artifact(tmp_path / "out", kind="summary")
    assert [p["path"] for p in opened.manifest["parents"]] == [str(f) for f in folders]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "80.0%" in page and "Overall" in page and re.search(r"xnli: 13 of 15 languages are missing", page)
    assert different(metrics.to_json(), read_document(tmp_path / "out")) == []


def test_two_reports_of_one_language_and_strange_folders_are_refused(tmp_path):
    section = {"classification": {"languages": {"fra": {"accuracy": 0.8}}}}
    one, two = (report(tmp_path / n, "xnli", section) for n in "ab")
    with pytest.raises(XtError, match=r"a and .*b both report fra of xnli"):
        write_summary([one, two], "xtreme", tmp_path / "out")
    with pytest.raises(XtError, match="None of the reports is of a task of xtreme-r .found: sib200"):
        write_summary([report(tmp_path / "s", "sib200", section)], "xtreme-r", tmp_path / "out")
    with pytest.raises(XtError, match="Unknown benchmark 'xtrem'. Did you mean xtreme"):
        write_summary([one], "xtrem", tmp_path / "out")
    with pytest.raises(XtError, match="says nothing of any language"):
        read_report(report(tmp_path / "e", "xnli", {}))
    with pytest.raises(XtError, match="is not a complete xt folder"):
        (tmp_path / "plain").mkdir()
        read_report(tmp_path / "plain")
    assert not (tmp_path / "out").exists()
