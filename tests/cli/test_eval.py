"""`xt eval` of every kind of task, as a user runs it.

Tests `cli/evaluate/command.py`, `cli/evaluate/show.py`, `eval/heads/run.py` and `eval/run.py` as well.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

import tests.command
from xt.cli.main import app
from xt.core.data import tasks
from xt.core.data.own_task import own_task
from xt.core.encoder import torch_engine
from xt.core.encoder.resolve import resolve
from xt.core.errors import XtError
from xt.core.files.artifact import open_artifact
from xt.core.heads.network import HEADS_FILE, MultiTaskModel, save_heads


def xt(*arguments: object, cwd: Path, run: Any = tests.command.xt) -> tuple[Any, str]:
    """Run a command that does its work: its JSON document and what it said."""
    answer = run(*arguments, "--json", cwd=cwd)
    assert answer.returncode == 0, answer.stderr
    assert "Traceback" not in answer.stderr
    return json.loads(answer.stdout), answer.stderr


@pytest.fixture
def here(capsys, monkeypatch, tmp_path):
    """Run the command in this process, in the test's folder: its JSON document, and what it said or was refused with.

    `fails`: 1 for an error that a user can mend, 2 for wrong usage.
    """
    monkeypatch.chdir(tmp_path)
    command = typer.main.get_command(app)

    def run(*arguments: object, fails: int = 0) -> tuple[Any, str]:
        words = [*map(str, arguments), "--json"]
        if fails:
            with pytest.raises(typer.BadParameter if fails == 2 else XtError) as error:
                command.main(words, standalone_mode=False)
            return None, str(error.value)
        command.main(words, standalone_mode=False)
        answer = capsys.readouterr()
        return json.loads(answer.out), answer.err

    return run


@pytest.fixture
def bitext(corpus, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for b in corpus:
        for side, rows in ((b.language, b.foreign), ("eng", b.english)):
            (folder / f"mine.{b.language}-eng.{side}").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def test_layers_are_measured_beside_the_encoder_itself(tiny_folder, bitext, tmp_path):
    told, said = xt(
        "eval",
        "./mine",
        "--encoder",
        tiny_folder,
        "--layers",
        "all",
        "--out",
        "r",
        cwd=tmp_path,
        run=tests.command.started,
    )
    section = told["layers"]
    assert (section["own"], section["count"]) == (2, 2)
    (encoder,) = told["encoders"]
    for direction, way in section["directions"].items():
        assert list(way) == ["0", "1", "2"]
        own = {code: row["accuracy"] for code, row in encoder["retrieval"][direction]["languages"].items()}
        assert way["2"]["languages"] == own
        assert way["2"]["mean"]["all"] == pytest.approx(encoder["retrieval"][direction]["mean"]["all"])
    assert set(section["best"]["chosen_on"]) | set(section["best"]["reported_on"]) == {"deu", "fra", "swh"}
    assert "2 *" in said and "on the other languages" in said
    assert '<section id="layers">' in (tmp_path / "r" / "report.html").read_text()
    told, _ = xt("eval", "./mine", "--encoder", tiny_folder, "--layers", "2,0,2", "--out", "s", cwd=tmp_path)
    assert [list(way) for way in told["layers"]["directions"].values()] == [["0", "2"]] * 2


def test_a_run_without_layers_says_nothing_of_them(tiny_folder, bitext, tmp_path):
    told, said = xt("eval", "./mine", "--encoder", tiny_folder, "--out", "r", cwd=tmp_path)
    assert "layers" not in told and "layer" not in said


def test_heads_and_parallel_text_in_one_command_in_the_order_asked(tiny_folder, bitext, tmp_path):
    folder = tmp_path / "runs"
    shutil.copytree(tiny_folder, folder)
    torch.manual_seed(0)
    rows = [tasks.get("sib200"), tasks.get("sample-nli")]
    model = MultiTaskModel(torch_engine.load_network(folder), resolve(str(folder)).spec, rows)
    save_heads(folder / HEADS_FILE, model, rows)
    for code in ("deu_Latn", "swh_Latn"):
        (tmp_path / "data" / "sib200" / code).mkdir(parents=True)
        lines = ["index_id\tcategory\ttext", "1\tsports\tdas haus", "2\ttravel\tdie katze"]
        (tmp_path / "data" / "sib200" / code / "test.tsv").write_text("\n".join(lines) + "\n")
    options = ["--encoder", folder, "--data-dir", "data", "--out", "all"]
    told, said = xt("eval", "sib200", "./mine", *options, cwd=tmp_path)
    assert [d["task"]["name"] for d in told] == ["sib200", "mine"]
    assert told[0]["classification"]["languages"].keys() == {"deu", "swh"}
    assert "mean accuracy: all " in said
    assert "languages are not in the data folder" in said
    report = open_artifact(tmp_path / "all" / "sib200", kind="report")
    assert report.facts["head"] == "sib200"
    assert len((report.path / "predictions.jsonl").read_text().splitlines()) == 4
    told, _ = xt("eval", "sample-nli", *options[:-1], "nli", cwd=tmp_path)
    assert told["classification"]["languages"]["eng"]["n"] > 10


def test_a_users_own_file_is_measured_whole_by_the_head_that_knows_its_labels(here, tiny_folder, tmp_path):
    def rows(count, labels):
        return [{"text": f"word{n} the house", "label": labels[n % len(labels)]} for n in range(count)]

    folder = tmp_path / "runs"
    shutil.copytree(tiny_folder, folder)
    for name, made in (
        ("intents_en", rows(50, ("cancel", "greet", "book"))),
        ("tones", rows(20, ("bad", "good"))),
        ("intents_de", rows(40, ("greet", "book"))),
        ("other", [*rows(9, ("greet",)), {"text": "x", "label": "spam"}]),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    torch.manual_seed(0)
    heads = [own_task("single:intents_en.jsonl"), own_task("single:tones.jsonl")]
    model = MultiTaskModel(torch_engine.load_network(folder), resolve(str(folder)).spec, heads)
    save_heads(folder / HEADS_FILE, model, heads)
    told, said = here("eval", "single:intents_de.jsonl", "--encoder", folder, "--languages", "de", "--out", "r")
    section = told["classification"]
    assert (section["head"], section["task"]) == ("intents_en", "intents_de")
    assert section["languages"]["deu"]["n"] == 40 == sum(map(sum, section["classes"]["all"]["matrix"]))
    assert {"macro_f1", "accuracy"} <= section["languages"]["deu"].keys()
    assert "40 examples, the whole of the data, in 1 languages" in said and "answered by the head intents_en" in said
    assert open_artifact(tmp_path / "r").facts["data"]["split"] == "all"
    lines = [json.loads(line) for line in (tmp_path / "r" / "predictions.jsonl").read_text().splitlines()]
    assert [(x["language"], x["text"], x["gold"]) for x in lines[:2]] == [
        ("deu", "word0 the house", "greet"),
        ("deu", "word1 the house", "book"),
    ]
    assert set(lines[0]["probabilities"]) == {"cancel", "greet", "book"}
    _, said = here("eval", "single:other.jsonl", "--encoder", folder, "--out", "s", fails=1)
    assert "the head" in said and "does not know: 'spam' (1 rows)" in said
    _, said = here("eval", "single:tones.jsonl", "--encoder", folder, "--head", "intents_en", "--out", "s", fails=1)
    assert "the head intents_en does not know: 'bad' (10 rows), 'good' (10 rows)" in said
    _, said = here("eval", "sib200", "--encoder", folder, "--head", "x", "--out", "s", fails=2)
    assert "--head is for your own data" in said


def test_both_conventions_and_equal_pools_are_told(here, tiny_folder, bitext, tmp_path):
    told, said = here("eval", "./mine", "--encoder", tiny_folder, "--pool", "3", "--out", "r")
    (encoder,) = told["encoders"]
    for way, name in (("english-foreign", "XTREME"), ("foreign-english", "MTEB")):
        found = encoder["retrieval"][way]
        assert name in found["convention"] and found["pool"] == 3
        for row in found["languages"].values():
            assert row["accuracy"] <= row["accuracy_pool"] <= 1 and 0 <= row["f1"] <= 1
    assert "pool 3" in said and "among 3 candidates" in said and "MTEB" in said
    told, said = here("eval", "./mine", "--encoder", tiny_folder, "--out", "s")
    assert "pool" not in told["encoders"][0]["retrieval"]["english-foreign"]
    assert "no language has 200 candidates" in said


def test_text_aligned_by_id_is_retrieved_from(here, tiny_folder, corpus, tmp_path):
    folder = tmp_path / "by-id"
    folder.mkdir()
    for code, rows in [("eng", corpus[0].english), *((b.language, b.foreign) for b in corpus)]:
        lines = [f"{i}\t{text}" for i, text in enumerate(rows)]
        (folder / f"{code}.tsv").write_text("\n".join(["id\ttext", *lines[: 4 if code != "swh" else 3]]) + "\n")
    told, said = here("eval", "ids:by-id", "--encoder", tiny_folder, "--out", "r")
    assert told["task"]["name"] == "by-id" and told["task"]["pairs"] == 4 + 4 + 3
    assert "1 sentences left out: their id is on one side only" in said


def mining_folder(tmp_path, bitext_words):
    """A language in BUCC's layout whose translations share most words with the English."""
    folder = tmp_path / "mineable"
    folder.mkdir()
    for part, start in (("dev", 0), ("test", 40)):
        rows = {"de": [], "en": [], "gold": []}
        for i in range(start, start + 40):
            words = [f"word{(7 * i + 13 * j) % 1200}" for j in range(6)]
            if i % 4 != 1:
                rows["en"].append(f"e{i}\t{' '.join(words)}")
            if i % 4 != 3:
                rows["de"].append(f"d{i}\t{' '.join(words[:5])} {bitext_words[i % 4]}")
            if i % 2 == 0:
                rows["gold"].append(f"d{i}\te{i}")
        for side, lines in rows.items():
            (folder / f"de-en.{part}.{side}").write_text("\n".join(lines) + "\n")
    return folder


def questions_folder(tmp_path):
    """Thirty documents, twelve of them asked for by their own words, in BEIR's layout."""
    folder = tmp_path / "questions"
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{i}", "title": "", "text": f"word{i} word{i + 500}"} for i in range(30)]
    queries = [{"_id": f"q{i}", "text": f"word{i} word{i + 500}", "language": "sw"} for i in range(12)]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    judged = "".join(f"q{i}\td{i}\t1\n" for i in range(12))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return folder


def test_mining_and_ranking_give_the_same_by_pytorch_onnx_runtime_and_triton(
    here, tiny_folder, tiny_repository, server, tmp_path
):
    mining_folder(tmp_path, ["guten", "morgen", "welt", "katze"])
    questions_folder(tmp_path)
    ways = {
        "pytorch": ("--encoder", tiny_folder),
        "onnxruntime": ("--encoder", tiny_repository / "encoder"),
        "triton": ("--url", server.url),
    }
    found = {}
    for engine, options in ways.items():
        (mined, ranked), _ = here("eval", "mine:mineable", "beir:questions", *options, "--cut", "--out", engine)
        assert ranked["encoders"][0]["engine"] == mined["encoders"][0]["engine"] == engine
        row, scores = mined["mining"]["languages"]["deu"], ranked["ranked"]["languages"]["swh"]
        cosine = ranked["encoders"][0]["calibration"]["queries-documents"]["methods"]["cosine"]["overall"]["nll"]
        found[engine] = [*(row[k] for k in ("precision", "recall", "f1", "threshold")), cosine]
        found[engine] += [scores[k] for k in ranked["ranked"]["measures"]]
        assert ranked["ranked"]["prefixes"] == {"queries": "query", "documents": "passage"}
    assert found["onnxruntime"] == pytest.approx(found["pytorch"], abs=1e-5)
    assert found["triton"] == pytest.approx(found["pytorch"], abs=1e-5)


def test_mining_and_ranking_in_one_command_with_their_reports(here, tiny_folder, tmp_path):
    mining_folder(tmp_path, ["guten", "morgen", "welt", "katze"])
    questions_folder(tmp_path)
    told, said = here(
        "eval", "mine:mineable", "beir:questions", "--encoder", tiny_folder, "--margin", "distance", "--cut",
        "--out", "all",
    )  # fmt: skip
    mined, ranked = told
    row = mined["mining"]["languages"]["deu"]
    assert mined["mining"]["margin"] == "distance" and row["n"] == 20 and row["search"] == "exact"
    assert row["f1"] == row["margins"]["distance"]["f1"] > 0.5
    assert ranked["ranked"]["measures"] == ["nDCG@10", "R@30", "RR@10"]
    assert ranked["ranked"]["languages"]["swh"]["RR@10"] > 0.5
    assert "cosine" in ranked["encoders"][0]["calibration"]["queries-documents"]["methods"]
    assert "mining by the distance margin" in said and "ranking of 30 documents" in said
    for name, section in (("mineable", "mining"), ("questions", "ranked")):
        report = open_artifact(tmp_path / "all" / name, kind="report")
        assert f'<section id="{section}">' in (report.path / "report.html").read_text()
        assert (report.path / "predictions.jsonl").read_text().count("\n") > 0
    kept = json.loads((tmp_path / "all" / "mineable" / "calibration.json").read_text())["encoders"]["tiny"]["deu"]
    assert kept["threshold"] == row["threshold"] and kept["margin"] == "distance"
    told, said = here("eval", "--summary", "all/mineable", "all/questions", "--out", "x", fails=1)
    assert "None of the reports is of a task of xtreme (found: mineable, questions)" in said


def test_a_summary_of_reports_names_what_is_missing(here, tiny_folder, tmp_path):
    words = ["guten", "morgen", "welt", "katze"]
    mining_folder(tmp_path, words).rename(tmp_path / "bucc")
    (tmp_path / "data").mkdir()
    (tmp_path / "bucc").rename(tmp_path / "data" / "bucc")
    here("eval", "bucc", "--encoder", tiny_folder, "--data-dir", "data", "--out", "r")
    told, said = here("eval", "--summary", "r", "--benchmark", "xtreme", "--out", "s")
    task = told["summary"]["tasks"]["bucc"]
    assert task["score"] is None and task["missing"] == ["fra", "rus", "cmn"] and task["partial"] > 0
    assert told["summary"]["overall"]["score"] is None
    assert "bucc: 3 of 4 languages are missing (fra, rus, cmn); no score" in said
    assert open_artifact(tmp_path / "s", kind="summary").facts["benchmark"] == "xtreme"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--summary", "--compare", "a", "b"], "one of --summary and --compare"),
        (["--compare", "a"], "--compare takes two report folders, found 1"),
        (["mine:x", "--encoder", "e", "--pool", "5"], "--pool is for parallel text"),
        (["xquad-r", "--encoder", "e", "--search", "ivf"], "--search is for mining"),
        (["tatoeba", "--encoder", "e", "--cut"], "--cut is for ranked retrieval"),
        (["a/same", "b/same", "--encoder", "e"], "two tasks would be reported in same"),
    ],
)
def test_options_that_nothing_would_heed_are_wrong_usage(here, arguments, message, tmp_path):
    for name in ("a/same", "b/same"):
        (tmp_path / name).mkdir(parents=True)
    _, said = here("eval", *arguments, "--out", "r", fails=2)
    assert message in " ".join(said.replace("│", " ").split())
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mine:x", "--encoder", "e", "--margin", "ration"], "Unknown margin 'ration'. Did you mean ratio"),
        (["bucc", "--encoder", "e", "--search", "fast"], "Unknown search 'fast'"),
        (["--summary", "r", "--benchmark", "glue"], "Unknown benchmark 'glue'"),
        (["mine:nowhere", "--encoder", "TINY"], "There is no folder"),
        (["beir:nowhere", "--encoder", "TINY"], "lacks corpus.jsonl"),
        (["ids:nowhere", "--encoder", "TINY"], "There is no folder"),
        (["xquad-r", "--data-dir", ".", "--encoder", "TINY"], "XQuAD-R is not there"),
    ],
)
def test_data_and_names_that_are_not_there_end_with_1(here, arguments, message, tiny_folder, tmp_path):
    arguments = [str(tiny_folder) if a == "TINY" else a for a in arguments]
    _, said = here("eval", *arguments, "--out", "r", fails=1)
    assert message in said
    assert not (tmp_path / "r").exists()
