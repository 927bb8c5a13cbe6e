"""`xt eval` of layers and of trained heads, as a user runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from xt.core import tasks, torch_engine
from xt.core.artifact import open_artifact
from xt.core.encoders import resolve
from xt.core.heads import HEADS_FILE, MultiTaskModel, save_heads

XT = Path(sys.executable).parent / "xt"


def xt(*arguments: object, cwd: Path) -> tuple[Any, str]:
    """Run the real command, offline: its JSON document and what it said."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    answer = subprocess.run(
        [str(XT), *map(str, arguments), "--json"], capture_output=True, text=True, cwd=cwd, env=env, timeout=300
    )
    assert answer.returncode == 0, answer.stderr
    assert "Traceback" not in answer.stderr
    return json.loads(answer.stdout), answer.stderr


@pytest.fixture
def bitext(corpus, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for b in corpus:
        for side, rows in ((b.language, b.foreign), ("eng", b.english)):
            (folder / f"mine.{b.language}-eng.{side}").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def test_layers_are_measured_beside_the_encoder_itself(tiny_folder, bitext, tmp_path):
    told, said = xt("eval", "./mine", "--encoder", tiny_folder, "--layers", "all", "--out", "r", cwd=tmp_path)
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
