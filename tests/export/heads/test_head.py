"""A head is written only if it answers as PyTorch does; its labels keep their order, its temperature its source.

Tests `export/heads/parity.py` and `export/heads/temperature.py` as well.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from xt.core.data.bitext import Bitext
from xt.core.data.examples import ChoiceExample, Example, QaExample, ReadLog, SingleExample, TaggedExample
from xt.core.data.own_task import own_task
from xt.core.data.source_rows import examples
from xt.core.data.sources import locate
from xt.core.data.tasks import Task
from xt.core.encoder import resolve
from xt.core.encoder.onnx_engine import choose_provider
from xt.core.errors import CheckFailed, XtError
from xt.core.files.artifact import open_artifact
from xt.core.heads.inputs import Inputs
from xt.core.heads.onnx_heads import HeadModel, Reply, check_golden, load_head
from xt.export import graph
from xt.export.heads import head
from xt.export.heads import parity as head_parity
from xt.export.heads.head import HeadExport, export_head
from xt.export.heads.parity import agreement, make_inputs, measure, parity_inputs
from xt.export.heads.temperature import fit_temperature, read_temperature
from xt.export.thresholds import THRESHOLDS, failures

LABELS = {"pair": ("zebra", "apple", "mango"), "single": ("d", "a", "c", "b", "e"), "tagging": ("O", "I-X", "B-X", "A")}
FORMATS = ("pair", "single", "regression", "choice", "tagging", "qa")
QUIET: dict[str, Any] = {"report": lambda line: None}


def task(format: str) -> Task:
    return Task(format, "intermediate", format, "", LABELS.get(format, ()), "", "accuracy", "", "", no_answer=True)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own texts with labels, named after the task."""
    folder = tmp_path_factory.mktemp("data")
    rows = [{"text": f"{word} {i}", "label": "bcade"[i % 5]} for i in range(60) for word in ("bread", "cat")]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "own.jsonl"


@pytest.fixture(scope="module")
def checkpoint(tiny_folder: Path, own: Path, tmp_path_factory: pytest.TempPathFactory) -> resolve.Resolved:
    """The tiny encoder with a random head of each format, one for the user's own task, and one that gives vectors."""
    import torch

    from xt.core.encoder.torch_engine import load_network
    from xt.core.heads.network import HEADS_FILE, MultiTaskModel, save_heads

    folder = tmp_path_factory.mktemp("heads") / "tiny"
    shutil.copytree(tiny_folder, folder)
    torch.manual_seed(3)
    rows = [*(task(f) for f in (*FORMATS, "contrastive")), own_task(f"single:{own}")]
    model = MultiTaskModel(load_network(folder), resolve.resolve(str(folder)).spec, rows)
    for name, weight in model.heads.named_parameters():
        if name.endswith("weight"):
            torch.nn.init.normal_(weight, std=0.3)
    save_heads(folder / HEADS_FILE, model, rows)
    return resolve.resolve(str(folder))


@pytest.fixture(scope="module")
def exported(checkpoint: resolve.Resolved, corpus: list[Bitext], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The head of `pair` in fp32 and in blocks of int8, beside each other."""
    folder = tmp_path_factory.mktemp("exported")
    export_head(checkpoint, folder, task="pair", corpus=corpus, name="plain", options=HeadExport("fp32"), **QUIET)
    export_head(
        checkpoint,
        folder,
        task="pair",
        corpus=corpus,
        name="blocks",
        options=HeadExport("int8-blocks", min_agreement=0.9),
        **QUIET,
    )
    return folder


# --- the folder ---


def test_the_folder_says_what_it_is(exported: Path, checkpoint: resolve.Resolved) -> None:
    artifact = open_artifact(exported / "plain", kind="model")
    facts = artifact.facts
    assert artifact.manifest["parents"] == [checkpoint.parent]
    assert tuple(facts["task"]["labels"]) == LABELS["pair"]
    assert (facts["serves"], facts["precision"], facts["provider"]) == ("classifier", "fp32", "cpu")
    assert facts["encoder"] == checkpoint.spec.to_json()
    assert facts["task"]["hub"] is None
    assert facts["task"]["files"] == {}  # nothing of the machine that trained it
    assert set(artifact.manifest["files"]) == {
        "config.pbtxt",
        "parity.json",
        "1/model.onnx",
        "1/model.py",
        "1/tokenizer.json",
        "1/golden.json",
        "1/calibration.json",
    }


def test_parity_is_kept_stage_by_stage(exported: Path) -> None:
    parity = json.loads((exported / "blocks" / "parity.json").read_text())
    assert [stage["stage"] for stage in parity["stages"]] == ["onnx", "fused", "int8-blocks"]
    assert parity["passed"]
    first, last = parity["stages"][0], parity["stages"][-1]
    assert first["difference_max"] < 1e-4 < last["difference_max"]
    assert last["batch_difference_max"] < 1e-4
    assert last["megabytes"] < first["megabytes"]
    assert parity["inputs"] == 12


def test_the_graph_is_fused_quantised_and_holds_the_head(exported: Path) -> None:
    model = onnx.load(str(exported / "blocks" / "1" / "model.onnx"))
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts["MultiHeadAttention"] == 2
    assert counts["MatMulNBits"] >= 12
    assert counts["GatherBlockQuantized"] == 1
    assert counts["Tanh"] == 1  # the head's
    assert [x.name for x in model.graph.input] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [x.name for x in model.graph.output] == ["logits"]


@pytest.mark.parametrize("form", FORMATS)
def test_the_configuration_has_what_the_format_has(form: str) -> None:
    template = (resources.files("xt.model_repository") / "classifier" / "config.pbtxt").read_text()
    text = head.head_config(template, "mine", task(form), {"a": 1})
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("mine", "python", 256)
    assert json.loads(config.parameters["xt"].string_value) == {"a": 1}
    two = ["text", "text_pair"]
    assert [x.name for x in config.input] == (["text"] if form in ("single", "tagging") else two)
    shapes = {x.name: list(x.dims) for x in config.output}
    expected = {"answer": [1], "tokens": [1], "truncated": [1]}
    if form in ("single", "pair"):
        count = [len(LABELS[form])]
        expected |= {"label": [1], "probabilities": count, "logits": count}
    elif form != "tagging" and form != "qa":
        expected |= {"choice": {"label": [1]}, "regression": {"score": [1]}}[form]
    assert shapes == expected
    assert not config.dynamic_batching.HasField("default_queue_policy")


# --- the gate ---


def test_a_head_that_went_wrong_is_not_written(
    checkpoint: resolve.Resolved, corpus: list[Bitext], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of the head that change on the way to the fused graph."""
    original = graph.fuse

    def spoilt(source: Path, target: Path, network: Any, **options: Any) -> Any:
        counts = original(source, target, network, **options)
        model = onnx.load(str(target))
        for weight in model.graph.initializer:
            array = onnx.numpy_helper.to_array(weight)
            if array.shape == (3,):  # the bias of the labels
                weight.CopyFrom(onnx.numpy_helper.from_array(array + np.float32([0.02, 0, 0]), weight.name))
        onnx.save(model, str(target))
        return counts

    monkeypatch.setattr(graph, "fuse", spoilt)
    with pytest.raises(CheckFailed, match=r"nothing was written: fused: difference_max 0\.\d+ is above 0.001") as error:
        export_head(checkpoint, tmp_path, task="pair", corpus=corpus, options=HeadExport("fp32"), **QUIET)
    assert error.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_the_share_of_equal_predictions_that_is_asked_for_counts(
    checkpoint: resolve.Resolved, corpus: list[Bitext], tmp_path: Path
) -> None:
    options = HeadExport("int8-blocks", min_agreement=0.999)
    with pytest.raises(CheckFailed, match=r"int8-blocks: agreement 0\.9\d+ is below 0.999"):
        export_head(checkpoint, tmp_path, task="pair", corpus=corpus, options=options, **QUIET)


def test_static_int8_runs_by_the_provider_it_was_proven_with(
    checkpoint: resolve.Resolved, corpus: list[Bitext], tmp_path: Path
) -> None:
    pytest.importorskip("nncf")
    options = HeadExport("int8", min_agreement=0.0)
    wide = {"difference_max": 1.0, "difference_p99": 1.0, "batch_difference_max": 1.0}  # of random weights
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(THRESHOLDS["int8"], "head", wide)
        artifact = export_head(checkpoint, tmp_path, task="qa", corpus=corpus, name="static", options=options, **QUIET)
    assert artifact.facts["provider"] == choose_provider(device="cpu", precision="int8")
    nodes = Counter(n.op_type for n in onnx.load(str(tmp_path / "static" / "1" / "model.onnx")).graph.node)
    assert nodes["QuantizeLinear"] >= 2 * 4  # inputs of four products in each of the two layers
    model, _ = load_head(tmp_path / "static")
    assert check_golden(model, tmp_path / "static", artifact) < 1e-3
    on_cpu, _ = load_head(tmp_path / "static", provider="cpu")
    items = parity_inputs(task("qa"), corpus)
    apart = [
        abs(a.numbers - b.numbers).max() for a, b in zip(*(m.predict(items) for m in (model, on_cpu)), strict=True)
    ]
    assert np.median(apart) < 0.05


def test_every_measure_sees_its_own_fault(checkpoint: resolve.Resolved, corpus: list[Bitext]) -> None:
    """The measures, by a network whose answers are known."""

    class Known:
        """Logits that depend on the first word; `fault` adds to those of rows in company."""

        def __init__(self, fault: float = 0.0, shift: float = 0.0) -> None:
            self.fault, self.shift = fault, shift

        def forward(self, arrays: Any) -> Any:
            ids = arrays["input_ids"]
            logits = np.stack([ids[:, 3] % 5, ids[:, 3] % 3, ids[:, 3] % 2], 1).astype(np.float32)
            logits[:, 0] += self.shift + self.fault * (len(ids) > 1)
            return logits

    inputs = Inputs(checkpoint.path / "tokenizer.json", checkpoint.spec)
    items = parity_inputs(task("pair"), corpus)
    expected = HeadModel(task("pair"), inputs, Known()).predict(items)

    def stage(network: Any) -> Any:
        model = HeadModel(task("pair"), inputs, network)
        return measure("s", model, expected, items, megabytes=1.0, scale=1.0)

    limits = THRESHOLDS["fp32"]["head"]
    right = stage(Known())
    assert (right.difference_max, right.agreement, right.batch_difference_max) == (0, 1, 0)
    assert failures(right, limits) == []
    apart = stage(Known(fault=0.05))
    assert 0.005 < apart.batch_difference_max < 0.02
    assert any("batch_difference_max" in line for line in failures(apart, limits))
    wrong = stage(Known(shift=100.0))
    assert wrong.difference_max > 0.5
    both = head_parity.in_both_forms(items, head_parity.DECOMPOSED)  # these are measured a second time, decomposed
    assert len(both) == 2
    assert wrong.agreement == np.mean([reply.value == 0 for reply in (*expected, *(expected[i] for i in both))]) < 1
    assert [line.split()[1] for line in failures(wrong, limits)] == ["difference_max", "difference_p99", "agreement"]
    nothing = stage(Known(shift=math.nan))
    assert len(failures(nothing, limits)) >= 3  # not a number keeps to no limit


def reply(value: Any) -> Reply:
    return Reply({}, value, np.zeros(1, np.float32), 1, False)


def test_agreement_by_hand() -> None:
    assert agreement([reply(1), reply(2)], [reply(1), reply(0)]) == 0.5
    assert agreement([reply((1, 1)), reply((0,))], [reply((1, 0)), reply((0,))]) == 2 / 3  # tag by tag
    scores = [reply(1.0), reply(2.0), reply(3.0)]
    assert agreement(scores, [reply(10.0), reply(30.0), reply(20.0)]) == 2 / 3  # pairs in the same order
    assert agreement([reply("a"), reply("")], [reply("a"), reply("b")]) == 0.5


@pytest.mark.parametrize("form", FORMATS)
def test_parity_is_measured_on_sentences_of_every_language_long_and_short(form: str, corpus: list[Bitext]) -> None:
    items = parity_inputs(task(form), corpus, most=64)
    assert len(items) == 12
    said = json.dumps(items, ensure_ascii=False)
    for bitext in corpus:
        assert all(word in said for word in bitext.foreign[0].split())
    assert len({len(json.dumps(item)) for item in items}) > 3
    foreign, english = ["a1", "a2", "a3", "a4"], ["b1", "b2", "b3", "b4"]
    by_hand = {
        "pair": ("a2", "b2"),
        "regression": ("a2", "b2"),
        "single": "a2",
        "tagging": ["a2"],
        "choice": ("a2", ["b2", "b1", "b4"]),
        "qa": ("b2", "a2 a3"),
    }
    assert make_inputs(task(form), foreign, english, [0, 1])[1] == by_hand[form]


# --- what cannot be exported ---


EXPORT = ("precision", "temperature")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "pear"}, "Unknown head 'pear'. Did you mean pair"),
        ({"task": "contrastive"}, "contrastive is contrastive: its head predicts nothing of a text"),
        ({"task": "pair", "name": "../x"}, "cannot name a model"),
        ({"task": "pair", "precision": "int4"}, "Unknown precision 'int4'"),
        ({"task": "pair", "temperature": 0.0}, "must be positive; found 0.0"),
        ({"task": "pair", "temperature": math.nan}, "must be positive; found nan"),
        ({"task": "regression", "temperature": 2.0}, "has no temperature"),
        ({"task": "regression", "temperature": "fit"}, "has no temperature"),
        ({"task": "pair", "temperature": Path("nowhere.json")}, "nowhere.json cannot be read"),
        ({"task": "pair", "corpus": []}, "There is no text to measure parity on"),
    ],
)
def test_what_cannot_be_exported_is_said(
    checkpoint: resolve.Resolved, corpus: list[Bitext], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(XtError, match=message):
        export = HeadExport(**{"precision": "fp32", **{k: v for k, v in options.items() if k in EXPORT}})
        export_head(
            checkpoint,
            tmp_path,
            **{"corpus": corpus, "options": export, **QUIET, **{k: v for k, v in options.items() if k not in EXPORT}},
        )
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_without_heads_is_refused(tiny: resolve.Resolved, corpus: list[Bitext], tmp_path: Path) -> None:
    with pytest.raises(XtError, match="has no trained heads"):
        export_head(tiny, tmp_path, task="pair", corpus=corpus, **QUIET)


def test_an_existing_model_is_refused_before_any_work(
    exported: Path, checkpoint: resolve.Resolved, corpus: list[Bitext]
) -> None:
    with pytest.raises(XtError, match="is complete already"):
        export_head(checkpoint, exported, task="pear", corpus=corpus, name="plain", **QUIET)


# --- temperature ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"kind": "retrieval-temperature", "temperature": 0.01}', "holds 'retrieval-temperature'; expected one of"),
        ('{"temperature": "warm"}', "The temperature of a head is 'warm'; expected a number"),
        ('{"kind": "label-temperature", "task": "pair"}', "one with the temperature of labels is needed"),
        ('{"e": {"foreign-english": {}}}', "is a 'search' file; one with the temperature of labels is needed"),
        ("[1.5]", "holds a JSON list; expected an object"),
        ('{"kind": "label-temperature", "task": "xnli", "temperature": 2}', "fitted for xnli, not for pair"),
        ('{"temperature": -1}', "must be positive"),
    ],
)
def test_a_file_without_such_a_temperature_is_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "calibration.json"
    file.write_text(content)
    with pytest.raises(XtError, match=message):
        read_temperature(file, task("pair"))


def test_the_temperature_of_one_export_serves_another(
    checkpoint: resolve.Resolved, corpus: list[Bitext], tmp_path: Path, own: Path
) -> None:
    """Fitted to the dev part of the user's own file, then read from the first model's folder."""
    lines: list[str] = []
    asked: dict[str, Any] = {"task": "own", "corpus": corpus, "report": lines.append}
    first = export_head(checkpoint, tmp_path, name="first", options=HeadExport("fp32", "fit"), **asked)
    told = json.loads((tmp_path / "first" / "1" / "calibration.json").read_text())
    model, _ = load_head(tmp_path / "first")
    dev = list(examples(locate(own_task(f"single:{own}"), "dev"), ReadLog()))
    assert (told["kind"], told["task"], told["fit"]["examples"]) == ("head", "own", len(dev)) and len(dev) > 5
    logits = np.array([model.predict([e.text])[0].logits for e in dev], float)  # type: ignore[union-attr]
    gold = [e.label for e in dev]  # type: ignore[union-attr]

    def nll(temperature: float) -> float:
        odds = np.exp(logits / temperature)
        return float(-np.log(odds[np.arange(len(gold)), gold] / odds.sum(1)).mean())

    best = min(np.exp(np.linspace(math.log(0.05), math.log(20), 4001)), key=nll)
    assert told["temperature"] == pytest.approx(best, rel=0.01)
    assert told["fit"]["nll"] == pytest.approx(nll(told["temperature"]), abs=1e-4)
    assert told["fit"]["nll"] < told["fit"]["nll_before"]
    assert any(f"temperature {told['temperature']:.4f}, fitted on {len(dev)} dev examples" in line for line in lines)
    file = tmp_path / "first" / "1" / "calibration.json"
    second = export_head(checkpoint, tmp_path, name="second", options=HeadExport("fp32", file), **asked)
    assert second.facts["temperature"] == first.facts["temperature"] == told["temperature"] != 1


class Scaled:
    """Gives every row the logits that a table says, by its first token that is no frame."""

    def __init__(self, logits: Any) -> None:
        self.logits = logits

    def forward(self, arrays: Any) -> Any:
        return self.logits(arrays)


def fitted(format: str, inputs: Inputs, logits: Any, some: list[Example], **changes: Any) -> dict[str, Any]:
    return fit_temperature(HeadModel(replace(task(format), **changes), inputs, Scaled(logits)), some)


def test_a_fit_finds_the_temperature_that_makes_the_truth_likely(checkpoint: resolve.Resolved) -> None:
    """Two labels, the logit 3 for one that is right in three cases of four: odds of 3 need a temperature 3 / ln 3."""
    inputs = Inputs(checkpoint.path / "tokenizer.json", checkpoint.spec)
    expected = 3 / math.log(3)
    words = ("cat", "bread", "house", "world")
    two = {"labels": ("yes", "no")}

    def rows(arrays: Any) -> Any:
        return np.tile(np.float32([3, 0]), (len(arrays["input_ids"]), 1))

    single: list[Example] = [SingleExample(w, w, int(w == "cat")) for w in words]
    assert fitted("single", inputs, rows, single, **two)["temperature"] == pytest.approx(expected, rel=1e-3)

    def tokens(arrays: Any) -> Any:
        return np.tile(np.float32([3, 0]), (*arrays["input_ids"].shape, 1))

    tagged: list[Example] = [TaggedExample("a", words[:3], (1, 0, 0)), TaggedExample("b", words[3:], (0,))]
    found = fitted("tagging", inputs, tokens, tagged, **two)
    assert found["temperature"] == pytest.approx(expected, rel=1e-3)
    assert (found["examples"], found["labels"]) == (2, 4)

    cat = inputs._tokenizer.token_to_id("cat")

    def scores(arrays: Any) -> Any:
        return np.where((arrays["input_ids"] == cat).any(1), np.float32(3), np.float32(0))

    choice: list[Example] = [ChoiceExample(str(n), "good", ("cat", "bread"), int(n == 0)) for n in range(4)]
    assert fitted("choice", inputs, scores, choice)["temperature"] == pytest.approx(expected, rel=1e-3)

    def spans(arrays: Any) -> Any:  # the first token against the word "cat", the others impossible
        logits = np.full((len(arrays["input_ids"]), 2, arrays["input_ids"].shape[1]), -1e9, np.float32)
        logits[:, :, 0] = 0
        logits[np.repeat((arrays["input_ids"] == cat)[:, None], 2, 1)] = 3
        return logits

    qa: list[Example] = [
        QaExample(str(n), "the cat sleeps", "good", ("cat",) if n else (), (4,) if n else ()) for n in range(4)
    ]
    assert fitted("qa", inputs, spans, qa)["temperature"] == pytest.approx(expected, rel=1e-3)
    with pytest.raises(XtError, match="has no dev examples"):
        fitted("single", inputs, rows, [])
