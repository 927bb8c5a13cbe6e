"""Trained heads over languages: predictions are those worked out from the weights, scores those by hand."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from tests.documents import different
from tests.pages import read as read_page
from xt.core.data import tasks
from xt.core.data.examples import ChoiceExample, PairExample, QaExample, SingleExample, TaggedExample
from xt.core.encoder import torch_engine
from xt.core.encoder.layers import UPPER, cut, save_upper
from xt.core.encoder.resolve import resolve
from xt.core.errors import XtError
from xt.core.files.artifact import new_artifact, open_artifact
from xt.core.heads.network import HEADS_FILE, MultiTaskModel, save_heads
from xt.core.heads.predict import Prediction
from xt.core.results.folder import read_document
from xt.eval.heads.classify import Classified, classify, head_for, means, open_heads, score_language, write
from xt.eval.heads.targets import find, read
from xt.eval.report import build

TRAINED = ("mnli", "sib200", "cosmosqa", "squad-v1", "masakhaner")
SIB, XNLI, XCOPA, XQUAD, NER = (tasks.get(n) for n in ("sib200", "xnli", "xcopa", "xquad", "masakhaner"))
TEXTS = {
    "eng_Latn": ["the cat sleeps today", "we eat bread and cheese", "the house is very big", "good morning world"],
    "deu_Latn": ["die katze schläft heute", "wir essen brot und käse", "das haus ist sehr groß"],
    "swh_Latn": ["habari za asubuhi", "paka analala leo", "tunakula mkate mzuri", "nyumba ni kubwa sana", "leo"],
}
TOPICS = ["sports", "travel", "health", "sports", "politics"]


@pytest.fixture(scope="module")
def checkpoint(tiny_folder, tmp_path_factory) -> Path:
    """The tiny encoder with untrained heads of five formats."""
    folder = tmp_path_factory.mktemp("heads") / "heads"
    shutil.copytree(tiny_folder, folder)
    torch.manual_seed(5)
    rows = [tasks.get(name) for name in TRAINED]
    model = MultiTaskModel(torch_engine.load_network(folder), resolve(str(folder)).spec, rows)
    for p in model.heads.parameters():
        torch.nn.init.normal_(p, std=0.5)
    save_heads(folder / HEADS_FILE, model, rows)
    return folder


@pytest.fixture(scope="module")
def heads(checkpoint):
    return open_heads(str(checkpoint), device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data folder with SIB-200 files of three languages."""
    root = tmp_path_factory.mktemp("data")
    for code, texts in TEXTS.items():
        folder = root / "sib200" / code
        folder.mkdir(parents=True)
        lines = [f"{i}\t{TOPICS[i]}\t{text}" for i, text in enumerate(texts)]
        (folder / "test.tsv").write_text("\n".join(["index_id\tcategory\ttext", *lines]) + "\n", encoding="utf-8")
    return root


def test_every_language_in_the_data_folder_is_read(data):
    found = read(SIB, data_dir=data)
    assert {code: len(rows) for code, rows in found.examples.items()} == {"deu": 3, "eng": 4, "swh": 5}
    assert found.facts["split"] == "test"
    files = found.facts["languages"]["deu"]["files"]
    assert [Path(name).name for name in files] == ["test.tsv"]
    assert len(found.missing) == len(SIB.codes) - 3
    assert list(read(SIB, data_dir=data, selection="sw,en").examples) == ["swh", "eng"]
    assert list(read(SIB, data_dir=data, selection="low-resource").examples) == ["swh"]
    with pytest.raises(XtError, match="There are no test data of sib200 in French"):
        read(SIB, data_dir=data, selection="fr")


def test_english_dev_examples_are_read_beside_the_test_ones_unless_they_are_the_same_file(data, tmp_path):
    folder = tmp_path / "sib200" / "eng_Latn"
    shutil.copytree(data / "sib200", tmp_path / "sib200")
    assert read(SIB, data_dir=tmp_path, selection="swh").english == ()
    for split, id in (("dev", 90), ("train", 91)):
        (folder / f"{split}.tsv").write_text(f"index_id\tcategory\ttext\n{id}\ttravel\tthe cat is big\n")
    found = read(SIB, data_dir=tmp_path, selection="swh")
    assert [(e.id, e.text, SIB.labels[e.label]) for e in found.english] == [("90", "the cat is big", "travel")]
    assert found.facts["english_dev"]["examples"] == 1
    assert len(found.facts["english_dev"]["files"]) == 1
    (folder / "dev.tsv").write_bytes((folder / "test.tsv").read_bytes())
    assert read(SIB, data_dir=tmp_path, selection="eng,swh").english == ()


def test_predictions_are_those_worked_out_from_the_weights(checkpoint, heads, data):
    found = read(SIB, data_dir=data)
    result = classify(heads, SIB, found.examples)
    weights = load_file(checkpoint / HEADS_FILE)
    network = transformers.AutoModel.from_pretrained(checkpoint).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    lines = {(line["language"], line["id"]): line for line in result.predictions}
    assert len(lines) == len(result.predictions) == 12
    for code, examples in found.examples.items():
        right = 0
        for example in examples:
            with torch.no_grad():
                pooled = network(tokenizer("query: " + example.text, return_tensors="pt")["input_ids"])[0][0].mean(0)
            dense = torch.tanh(weights["sib200.score.dense.weight"] @ pooled + weights["sib200.score.dense.bias"])
            logits = weights["sib200.score.out.weight"] @ dense + weights["sib200.score.out.bias"]
            line = lines[code, example.id]
            assert line["text"] == example.text
            np.testing.assert_allclose(list(line["probabilities"].values()), logits.softmax(0).numpy(), atol=2e-5)
            assert line["predicted"] == SIB.labels[int(logits.argmax())]
            assert line["gold"] == SIB.labels[example.label]
            right += line["predicted"] == line["gold"]
        assert result.metrics["languages"][code]["accuracy"] == pytest.approx(right / len(examples))


def test_heads_read_the_last_layer_of_a_checkpoint_that_is_pooled_lower(checkpoint, heads, data, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(checkpoint, folder)
    network = torch_engine.load_network(folder)
    upper = cut(network, 1)
    network.save_pretrained(folder, safe_serialization=True)
    save_upper(upper, folder / UPPER)
    examples = read(SIB, data_dir=data).examples
    low = open_heads(str(folder), device="cpu")
    for ours, theirs in zip(
        classify(low, SIB, examples).predictions, classify(heads, SIB, examples).predictions, strict=True
    ):
        ours, theirs = (list(line["probabilities"].values()) for line in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


EXAMPLES = {
    "xnli": [PairExample("1", "the cat sleeps", "the house is big", 0), PairExample("2", "we eat", "we eat bread", 2)],
    "sib200": [SingleExample("1", "good morning world", 5)],
    "xcopa": [ChoiceExample("1", "the cat sleeps", ("today", "the house is big"), 1)],
    "xquad": [QaExample("1", "the house is very big", "the house", ("very big",), (13,))],
    "masakhaner": [TaggedExample("1", ("the", "cat", "sleeps"), (0, 1, 2))],
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_format_is_predicted_and_written_as_one_line_an_example(name, heads, monkeypatch):
    monkeypatch.setattr("xt.core.heads.inputs.STRIDE", 8)  # the tiny encoder reads 64 tokens
    task, rows = tasks.get(name), EXAMPLES[name]
    result = classify(heads, task, {"eng": rows, "swh": rows * 2})
    assert result.metrics["head"] == (task.train_on or name)
    assert [r["n"] for r in result.metrics["languages"].values()] == [len(rows), 2 * len(rows)]
    assert len(result.predictions) == 3 * len(rows)
    assert all({"language", "id", "gold", "predicted"} <= line.keys() for line in result.predictions)
    json.dumps(result.predictions, allow_nan=False)
    score = result.metrics["mean"][task.metric]
    assert 0 <= score["all"] <= 1
    assert score["transfer"] == score["low"] == result.metrics["languages"]["swh"][task.metric]


def test_scores_of_a_language_are_those_by_hand():
    examples = [SingleExample(str(i), "t", label) for i, label in enumerate([0, 0, 0, 1])]
    sure = [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]]
    answers = [Prediction(int(np.argmax(p)), np.array(p, np.float32)) for p in sure]
    row = score_language(SIB, examples, answers)
    assert (row["n"], row["accuracy"], row["majority"], row["majority_label"]) == (4, 0.75, 0.75, SIB.labels[0])
    assert row["confidence"] == pytest.approx(0.75)
    assert row["ece"] == pytest.approx((0.1 + 0.2 + 0.7 + 0.4) / 4)  # a bin for each
    assert row["accuracy_ci"] == pytest.approx([0.3006, 0.9544], abs=1e-3)


def test_means_are_over_languages_and_leave_english_out_of_transfer():
    rows = {"eng": {"n": 5, "f1": 1.0}, "deu": {"n": 500, "f1": 0.5}, "swh": {"n": 5, "f1": 0.3}}
    assert means(rows) == {
        "f1": {
            "all": pytest.approx(0.6),
            "high": pytest.approx(0.75),
            "low": pytest.approx(0.3),
            "transfer": pytest.approx(0.4),
        }
    }
    assert "transfer" not in means({"deu": {"n": 1, "f1": 0.5}})["f1"]
    assert "transfer" not in means({"eng": {"n": 1, "f1": 0.5}})["f1"]


def test_the_head_is_the_tasks_own_then_that_of_its_training_then_a_whole_it_is_part_of():
    mnli, anli, own = tasks.get("mnli"), replace(tasks.get("mnli"), name="anli", parts=("mnli", "snli")), XNLI
    assert head_for(XNLI, {"mnli": mnli, "xnli": own, "anli": anli}) == "xnli"
    assert head_for(XNLI, {"anli": anli, "mnli": mnli}) == "mnli"
    assert head_for(XNLI, {"anli": anli}) == "anli"
    with pytest.raises(XtError, match=r"no head for xnli; its heads: sib200\.\nTrain it on xnli or mnli first"):
        head_for(XNLI, {"sib200": SIB})
    with pytest.raises(XtError, match="The head mnli was trained for pair with 2 labels"):
        head_for(XNLI, {"mnli": replace(mnli, labels=("yes", "no"))})


def test_a_name_means_a_task_of_heads_or_parallel_text(tmp_path):
    assert find("sib200") is SIB
    assert find("tatoeba") is find("django") is find(str(tmp_path)) is None
    with pytest.raises(XtError, match="Did you mean sib200"):
        find("sib20")
    (tmp_path / "mine.txt").write_text("the cat sleeps\n")
    with pytest.raises(XtError, match=r"\(mlm\) is a task to train on; it cannot be evaluated"):
        find(f"mlm:{tmp_path / 'mine.txt'}")
    (tmp_path / "mine.tsv").write_text("text\tlabel\nthe cat sleeps\tcats\nthe house\thouses\n")
    own = find(f"single:{tmp_path / 'mine.tsv'}")
    assert (own.name, own.format, own.labels) == ("mine", "single", ("cats", "houses"))


def test_encoders_without_heads_are_refused(tiny_folder, tiny_repository):
    with pytest.raises(XtError, match="has no trained heads"):
        open_heads(str(tiny_folder), device="cpu")
    for folder in (tiny_repository, tiny_repository / "encoder"):
        with pytest.raises(XtError, match="is an exported encoder: it gives vectors and has no heads"):
            open_heads(str(folder), device="cpu")


def test_the_report_folder_holds_metrics_predictions_and_the_page(heads, data, tmp_path):
    found = read(SIB, data_dir=data)
    result = classify(heads, SIB, found.examples)
    artifact, metrics = write(tmp_path / "r", heads, SIB, result, facts={"data": found.facts})
    assert {"metrics.json", "predictions.jsonl", "report.html"} <= set(artifact.manifest["files"])
    assert different(metrics.to_json(), read_document(artifact.path)) == []
    lines = [json.loads(line) for line in (artifact.path / "predictions.jsonl").read_text().splitlines()]
    assert lines == result.predictions
    assert open_artifact(tmp_path / "r").facts["data"]["languages"].keys() == {"deu", "eng", "swh"}
    words = read_page((artifact.path / "report.html").read_text()).sections["classification"].text
    assert "German" in words and "Swahili" in words
    assert f"{100 * metrics.classification.mean['accuracy']['all']:.1f}%" in words


def test_the_page_escapes_and_shows_a_decimal_metric_too():
    rows = {"deu": {"n": 3, "spearman": -0.25}}
    section = {"task": "<b>", "metric": "spearman", "head": "<i>", "mean": means(rows), "languages": rows}
    page = read_page(build.render({"title": "t", "classification": section}))
    assert not page.of("i") and "The head <i> answers" in page.text and "Spearman on <b>: −0.250." in page.text
    assert "classification" not in read_page(build.render({"title": "t"})).sections


def test_a_result_is_not_written_over_another(heads, tmp_path):
    with new_artifact(tmp_path / "r", kind="report"):
        pass
    with pytest.raises(XtError, match="--force"):
        write(tmp_path / "r", heads, SIB, Classified({"languages": {}, "head": "x"}, []))
