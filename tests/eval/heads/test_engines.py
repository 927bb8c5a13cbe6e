"""Heads in PyTorch, as graphs in this process and behind a real Triton: the same answers, probabilities and reports."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xt.core.data import tasks
from xt.core.data.examples import ChoiceExample, PairExample, QaExample, ScoredExample, SingleExample, TaggedExample
from xt.core.encoder import resolve
from xt.core.errors import XtError
from xt.core.heads.decode import N_BEST
from xt.eval.heads import targets
from xt.eval.heads.classify import calibration_of_head, classify
from xt.eval.heads.engines import Heads, OnnxHeads, ServedHeads, open_checkpoint, open_heads, own_head
from xt.serve.triton.launcher import TritonServer

WORDS = "good morning world the cat sleeps today we eat bread and cheese house is very big".split()
ASKED = {
    "xnli": "mnli",
    "sib200": "sib200",
    "xcopa": "cosmosqa",
    "masakhaner": "masakhaner",
    "squad-v2": "squad-v2",
    "sick-relatedness": "sick-relatedness",
}
"""Task -> the head that answers it."""
TEMPERATURE = 2.0
TOLERANCE = 1e-4
"""Largest difference of a probability between PyTorch and an fp32 graph: a tenth of what an export may have."""


def text(rng: np.random.Generator, longest: int = 12) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(1, longest + 1)))


def examples(name: str, count: int = 40):
    """Random examples of a task's format."""
    rng = np.random.default_rng(11)
    task = tasks.get(name)
    labels = len(task.labels) or 2
    found = []
    for n in range(count):
        if task.format == "pair":
            found.append(PairExample(str(n), text(rng), text(rng), n % labels))
        elif task.format == "single":
            found.append(SingleExample(str(n), text(rng), n % labels))
        elif task.format == "choice":
            found.append(ChoiceExample(str(n), text(rng), tuple(text(rng) for _ in range(2 + n % 3)), n % 2))
        elif task.format == "regression":
            found.append(ScoredExample(str(n), text(rng), text(rng), float(n)))
        elif task.format == "tagging":
            words = text(rng, 80 if n == 7 else 12).split()  # one of several parts: the tiny encoder reads 64 tokens
            found.append(TaggedExample(str(n), tuple(words), tuple(rng.integers(0, labels, len(words)).tolist())))
        else:
            context = text(rng, 20 if n % 2 else 120)  # of one window and of several
            answer = context.split()[0]
            found.append(QaExample(str(n), context, text(rng, 5), (answer,) if n % 3 else (), (0,) if n % 3 else ()))
    return found


@pytest.fixture(scope="module")
def checkpoint(tiny_folder, tmp_path_factory) -> Path:
    """The tiny encoder with random heads of every format."""
    import torch

    from xt.core.encoder.torch_engine import load_network
    from xt.core.heads.network import HEADS_FILE, MultiTaskModel, save_heads

    folder = tmp_path_factory.mktemp("heads") / "tiny"
    shutil.copytree(tiny_folder, folder)
    torch.manual_seed(3)
    rows = [tasks.get(name) for name in ASKED.values()]
    model = MultiTaskModel(load_network(folder), resolve.resolve(str(folder)).spec, rows)
    for name, weight in model.heads.named_parameters():
        if name.endswith("weight"):
            torch.nn.init.normal_(weight, std=0.5)
    save_heads(folder / HEADS_FILE, model, rows)
    return folder


@pytest.fixture(scope="module")
def repository(checkpoint, corpus, tmp_path_factory) -> Path:
    """Every head exported at a temperature of 2."""
    from xt.export.heads.head import HeadExport, export_head

    target = tmp_path_factory.mktemp("exported")
    resolved = resolve.resolve(str(checkpoint))
    for head in ASKED.values():
        options = HeadExport("fp32", temperature=None if head == "sick-relatedness" else TEMPERATURE)
        export_head(resolved, target, task=head, corpus=corpus, name=head, options=options, report=str)
    return target


@pytest.fixture(scope="module")
def server(repository):
    with TritonServer(repository) as running:
        yield running


@pytest.fixture(scope="module")
def engines(checkpoint, repository, server):
    """The three of them."""
    torch_heads, onnx_heads = open_heads(str(checkpoint), device="cpu"), open_heads(str(repository))
    served = open_heads(url=server.url)
    assert (type(torch_heads), type(onnx_heads), type(served)) == (Heads, OnnxHeads, ServedHeads)
    yield torch_heads, onnx_heads, served
    served.server.close()


@pytest.mark.parametrize("name", ASKED)
def test_every_engine_gives_the_same_answers_and_logits(engines, name):
    torch_heads, *others = engines
    task, rows = tasks.get(name), examples(name)
    expected = torch_heads.answers(task, rows)
    assert len({str(answer.value) for answer in expected}) > 1
    for engine in others:
        found = engine.answers(task, rows)
        assert len(found) == len(rows)
        for ours, theirs in zip(found, expected, strict=True):
            if task.format == "regression":
                assert ours.value == pytest.approx(theirs.value, abs=1e-4)
                continue
            assert ours.value == theirs.value
            np.testing.assert_allclose(ours.logits, theirs.logits, atol=2e-4)
            if task.format == "qa":
                np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=2e-4)
                continue
            odds = np.exp(theirs.logits.astype(float) / TEMPERATURE)  # the export divides by its temperature
            np.testing.assert_allclose(ours.probabilities, odds / odds.sum(-1, keepdims=True), atol=TOLERANCE)


def test_a_users_own_file_gives_the_same_figures_by_every_engine(engines, tmp_path):
    labels = tasks.get("sib200").labels
    rows = [{"text": e.text, "label": labels[e.label], "language": "de"} for e in examples("sib200")]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = []
    for engine in engines:
        task = targets.find(f"single:{file}")
        test = targets.read(task, head=own_head(task, engine.tasks))
        result = classify(engine, test.task, test.examples, calibrate=False)
        assert (result.metrics["head"], result.metrics["languages"]["deu"]["n"]) == ("sib200", len(rows))
        found.append([line["predicted"] for line in result.predictions])
    assert found[1] == found[0] == found[2] and len(set(found[0])) > 1


def test_a_question_is_answered_as_its_task_allows_whatever_the_head_was_trained_for(engines):
    """squad-v2's head may say "none"; asked for a task whose questions all have an answer, it must not."""
    task = replace(tasks.get("squad-v2"), no_answer=False)
    rows = examples("squad-v2")
    allowed = engines[0].answers(tasks.get("squad-v2"), rows)
    assert any(answer.value == "" for answer in allowed)
    expected = [answer.value for answer in engines[0].answers(task, rows)]
    assert all(expected)
    for engine in engines[1:]:
        found = engine.answers(task, rows)
        assert [answer.value for answer in found] == expected
        assert all(np.isneginf(answer.logits[-1]) for answer in found)


def test_the_best_spans_are_those_of_a_search_through_all(engines):
    """Against every span of every window, listed one by one; a span that two windows hold counts once."""
    heads = engines[0]
    task, rows = tasks.get("squad-v2"), examples("squad-v2", 12)
    import torch

    from xt.core.heads.decode import LONGEST_ANSWER
    from xt.core.heads.predict import forward

    units = heads.inputs.units(task, rows)
    assert len(units) > len(rows)
    logits: dict[int, np.ndarray] = {}
    with torch.inference_mode():
        for positions, _, output in forward(heads.model, heads.inputs, task, units):
            for position, value in zip(positions, output["logits"].numpy(), strict=True):
                logits[position] = value
    for owner, answer in enumerate(heads.answers(task, rows)):
        best: dict[tuple[int, int], float] = {}
        none = np.inf
        for at, unit in enumerate(units):
            if unit.owner != owner:
                continue
            start, end = logits[at]
            none = min(none, float(start[0] + end[0]))
            for first, a in enumerate(unit.spans):
                for last in range(first, min(first + LONGEST_ANSWER, len(unit.spans))):
                    b = unit.spans[last]
                    if a is not None and b is not None:
                        key, score = (a[0], b[1]), float(start[first] + end[last])
                        best[key] = max(best.get(key, -np.inf), score)
        expected = sorted(best.values(), reverse=True)[:N_BEST]
        np.testing.assert_allclose(answer.logits[: len(expected)], expected, atol=1e-5)
        assert np.isneginf(answer.logits[len(expected) : -1]).all()
        assert answer.logits[-1] == pytest.approx(none, abs=1e-5)


def test_a_report_has_the_same_numbers_from_every_engine(engines):
    rows = {"eng": examples("sib200", 60), "swh": examples("sib200", 60)}
    results = [classify(engine, tasks.get("sib200"), rows) for engine in engines]
    expected = results[0].metrics["languages"]
    methods = results[0].calibration["sib200"]["methods"]
    assert {"uncalibrated", "zero-shot", "pooled", "per-language", "shrunk"} <= set(methods)
    for result in results[1:]:
        assert result.metrics["languages"]["swh"]["accuracy"] == expected["swh"]["accuracy"]
        found = result.calibration["sib200"]["methods"]
        for key, method in methods.items():
            for measure in ("ece", "nll", "brier"):
                assert found[key]["overall"][measure] == pytest.approx(method["overall"][measure], abs=2e-3), key
        assert found["exported"]["temperature"] == TEMPERATURE
        assert found["exported"]["overall"]["mean_confidence"] == pytest.approx(
            np.mean([row["confidence"] for row in result.metrics["languages"].values()])
        )
    assert "exported" not in methods


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("masakhaner", ["masakhaner", "masakhaner, spans"]),
        ("squad-v2", ["squad-v2", "squad-v2, no answer"]),
        ("xcopa", ["xcopa"]),
    ],
)
def test_tags_answers_and_choices_are_calibrated_too(engines, name, kinds):
    rows = {"eng": examples(name, 240), "swh": examples(name, 60)}
    result = classify(engines[0], tasks.get(name), rows)
    assert list(result.calibration) == kinds
    for section in result.calibration.values():
        methods = section["methods"]
        assert {"uncalibrated", "zero-shot", "pooled", "per-language", "shrunk", "isotonic", "beta"} <= set(methods)
        assert ("vector" in methods) == (section["of"] == "words")
        assert methods["pooled"]["overall"]["nll"] < methods["uncalibrated"]["overall"]["nll"]
        for method in methods.values():
            assert method["languages"].keys() == rows.keys()
    answered = {line["language"] for line in result.predictions if "p_pooled" in line}
    assert answered == (set() if name == "masakhaner" else {"eng", "swh"})
    kept = calibration_of_head(tasks.get(name), result).to_json()
    json.dumps([result.metrics, result.calibration, kept, result.predictions], allow_nan=False)


def test_one_head_can_be_named(repository, server):
    alone = open_heads(str(repository / "mnli"))
    assert list(alone.tasks) == ["mnli"]
    assert list(open_heads(str(repository), model="sib200").tasks) == ["sib200"]
    assert list(open_heads(url=server.url, model="sib200").tasks) == ["sib200"]
    with pytest.raises(XtError, match="Unknown model 'sib20'"):
        open_heads(str(repository), model="sib20")
    with pytest.raises(XtError, match="Unknown model 'sib20'"):
        open_heads(url=server.url, model="sib20")
    with pytest.raises(XtError, match=r"no head for sib200; its heads: mnli"):
        alone.answers(tasks.get("sib200"), examples("sib200", 1))


def test_two_heads_for_one_task_have_to_be_told_apart(repository, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(repository / "mnli", tmp_path / name)
    with pytest.raises(XtError, match=r"two heads for mnli: one and two\.\nChoose by --model"):
        open_heads(str(tmp_path))
    assert list(open_heads(str(tmp_path), model="two").tasks) == ["mnli"]


def test_what_has_no_heads_says_so(tiny_folder, tiny_repository, server):
    with pytest.raises(XtError, match="is an exported encoder: it gives vectors and has no heads"):
        open_heads(str(tiny_repository))
    with pytest.raises(XtError, match="has no trained heads"):
        open_checkpoint(str(tiny_folder), device="cpu")
    with pytest.raises(XtError, match="Give one of --encoder and --url"):
        open_heads()
    with pytest.raises(XtError, match=r"'localhost' is no address"):
        open_heads(url="localhost")
    with pytest.raises(XtError, match="No server answers at 127.0.0.1:9"):
        open_heads(url="127.0.0.1:9")  # waits its five seconds


def test_an_example_that_cannot_be_sent_is_named(engines):
    with pytest.raises(XtError, match=r"sib200, example '1': a text is empty"):
        engines[2].answers(tasks.get("sib200"), [SingleExample("0", "good", 0), SingleExample("1", " ", 0)])
