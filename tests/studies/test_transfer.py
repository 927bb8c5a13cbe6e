"""The transfer study: its table, and a run of it, tiny, on real data.

Tests `studies/run.py`, `studies/options.py` and `cli/study.py` as well.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from xt.core.data import tasks
from xt.core.data.examples import ReadLog
from xt.core.data.own_task import own_task
from xt.core.data.source_rows import examples
from xt.core.data.sources import locate
from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, open_artifact
from xt.core.reporter import Reporter
from xt.eval.retrieval import ranking
from xt.studies import transfer
from xt.train.config import TrainConfig

NAMES = [one.name for one in transfer.RUNS]


def quiet(line: str) -> None:
    pass


def counter(what: str):
    return lambda *args: None


@pytest.mark.parametrize("one", transfer.RUNS[1:], ids=lambda one: one.name)
def test_every_run_names_real_tasks_and_settings(one, tmp_path):
    settings = {**transfer.COMMON, **one.settings}
    config = TrainConfig(encoder="x", out=tmp_path / "x", **settings)
    for name in (*config.intermediate, *config.contrastive, *filter(None, [config.target])):
        assert tasks.get(name).format != "bitext"
    assert not one.start or one.start in NAMES[: NAMES.index(one.name)]


def test_what_the_issue_of_transfer_asks_for_is_there():
    assert NAMES[0] == "base"
    assert {"nli", "qa", "choice", "all", "mlm", "contrastive", "images", "sib200"} <= set(NAMES)


def test_an_unknown_run_is_refused(tmp_path):
    with pytest.raises(XtError, match="no run nil") as caught:
        transfer.Settings(tmp_path, data_dir=tmp_path, runs=("nil",))
    assert "nli" in caught.value.hint


def test_the_tables_hold_the_numbers():
    way = {"mean": 80.0, "languages": {"deu": 98.0}, "ece": 0.05, "ece_null": 0.03, "temperature": 0.01}
    better = {**way, "mean": 81.25, "ece": None}
    task = {"task": "rte", "metric": "accuracy", "majority": 0.5, "before": None, "after": 0.6, "train": 9, "dev": 4}
    picture = {"recall@1": 0.5, "recall@10": 0.75, "mrr": 0.6, "recall@10_ci": [0.7, 0.8]}
    summary = {
        "runs": [
            {"run": "base", "title": "none", "tasks": [], "tatoeba": {"foreign-english": way, "english-foreign": way}},
            {
                "run": "nli",
                "title": "NLI",
                "tasks": [task],
                "steps": 3,
                "seconds": 90.0,
                "tatoeba": {"foreign-english": better, "english-foreign": way},
                "sib200": {"mean": {"accuracy": {"all": 0.5, "low": 0.25}}, "languages": {"eng": {"accuracy": 0.9}}},
                "images": {"images": 4, "chance": {"recall@1": 0.25}, "languages": {"swh": picture}},
            },
        ]
    }
    text = transfer.markdown(summary)
    assert "| none | – | – | 80.0 | 80.0 | 0.050 (0.030) |" in text
    assert "| NLI | 3 | 1.5 | 81.2 (+1.2) | 80.0 (+0.0) | – |" in text
    assert "| nli | rte | accuracy | 0.500 | – | 0.600 | 4 |" in text
    assert "| NLI | 50.0 | 25.0 | 90.0 |" in text
    assert "| swh | 0.500 | 0.750 [0.70, 0.80] | 0.600 |" in text


def test_the_english_text_is_the_contexts_once_each(data_dir, tmp_path):
    transfer.english_text(data_dir, tmp_path / "made" / "english.txt")
    lines = (tmp_path / "made" / "english.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(set(lines)) > 1000
    assert all(line.strip() == line and line for line in lines)
    assert any("Panthers defense" in line for line in lines)  # the first context of XQuAD
    task = own_task(f"mlm:{tmp_path / 'made' / 'english.txt'}")
    dev = list(examples(locate(task, "dev"), ReadLog()))
    assert 0.15 < len(dev) / len(lines) < 0.25


def test_a_tiny_run_is_kept_when_the_study_is_run_again(data_dir, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("xt.train.prepare.preparations", lambda: tmp_path / "prepared")
    monkeypatch.setattr(transfer, "TATOEBA", "jav")
    study = transfer.Settings(
        tmp_path / "out", str(tiny_folder), data_dir, ("base", "nli"), precision="fp32", device="cpu", scale=0.01
    )
    monkeypatch.setitem(transfer.COMMON, "dev_limit", 20)
    monkeypatch.setitem(transfer.COMMON, "max_length", 64)
    monkeypatch.setattr(ranking, "encode_corpus", truncating(ranking.encode_corpus))
    found = transfer.execute(study, reporter=Reporter())
    assert [row["run"] for row in found["runs"]] == ["base", "nli"]
    assert found["runs"][1]["steps"] == 3
    assert {t["task"] for t in found["runs"][1]["tasks"]} == {"sick", "rte"}
    assert 0 <= found["runs"][0]["tatoeba"]["foreign-english"]["languages"]["jav"] <= 100
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob(MANIFEST)}
    assert len(made) == 3
    assert transfer.execute(study, reporter=Reporter()) == found
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob(MANIFEST)} == made
    open_artifact(tmp_path / "out" / "runs" / "nli", kind="checkpoint")


def truncating(encode):
    """The tiny encoder reads 64 tokens."""
    return lambda encoder, pairs, *, truncate, progress: encode(encoder, pairs, truncate=True, progress=progress)


def test_a_run_that_starts_from_another_says_when_that_is_missing(data_dir, tiny_folder, tmp_path):
    study = transfer.Settings(tmp_path / "out", str(tiny_folder), data_dir, ("all-sib200",))
    with pytest.raises(XtError, match="starts from all"):
        transfer.execute(study, reporter=Reporter())


def test_an_empty_folder_has_no_report(tmp_path: Path):
    assert transfer.summarise(tmp_path) == {"schema": 1, "runs": []}
