"""Dev scores against scikit-learn, numpy and torch by hand, and alike however the examples are put together."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import label_ranking_average_precision_score, top_k_accuracy_score
from torch.nn import functional as F

from xt.core.data.examples import CaptionExample, Example, PairExample, QaExample, TextExample, TupleExample
from xt.core.data.tasks import Task
from xt.core.encoder.resolve import resolve
from xt.core.encoder.torch_engine import load_network
from xt.core.heads import predict as predicting
from xt.core.heads.inputs import Inputs
from xt.core.heads.network import MultiTaskModel
from xt.train import dev as scoring
from xt.train.batches import hide
from xt.train.data import TaskData
from xt.train.dev import MLM_PROBABILITY, baseline, mean_metric, partners, score_all, score_task

WORDS = "good morning world the cat sleeps today we eat bread and cheese house is very big".split()
METRIC = {"contrastive": "retrieval", "image-text": "retrieval", "mlm": "token_accuracy"}
IMAGES = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float16)


def text(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(2, 20)))


def task(format: str) -> Task:
    labels = ("a", "b", "c") if format == "pair" else ()
    return Task(format, "intermediate", format, "", labels, "", METRIC.get(format, "accuracy"), "", "")


def data(format: str, count: int = 50) -> TaskData:
    rng = np.random.default_rng(2)
    rows: list[Example] = []
    for n in range(count):
        a, b = text(rng), text(rng)
        rows.append(
            {
                "pair": PairExample(str(n), a, b, n % 3),
                "contrastive": TupleExample(str(n), a, f"{a} {WORDS[n % 16]}", "cat" if n % 3 else None),
                "image-text": CaptionExample(str(n), a, (n * 7) % 30 + 10),
                "mlm": TextExample(str(n), a),
            }[format]
        )
    unused: Any = None
    return TaskData(task(format), unused, rows, images=IMAGES if format == "image-text" else None)


@pytest.fixture(scope="module")
def inputs(tiny_folder: Path) -> Inputs:
    resolved = resolve(str(tiny_folder))
    return Inputs(resolved.path / "tokenizer.json", resolved.spec)


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> MultiTaskModel:
    """The tiny encoder with a head of each format, in training mode (with dropout)."""
    torch.manual_seed(3)
    resolved = resolve(str(tiny_folder))
    rows = [task(f) for f in ("pair", "contrastive", "image-text", "mlm")]
    made = MultiTaskModel(load_network(tiny_folder), resolved.spec, rows, options={"image-text": {"image_dim": 5}})
    torch.nn.init.normal_(made.heads["pair"].score.out.weight)
    return made.train()


@pytest.mark.parametrize("format", ["pair", "contrastive", "image-text", "mlm"])
def test_scores_do_not_depend_on_dropout_or_on_what_is_run_together(
    model: MultiTaskModel, inputs: Inputs, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = score_task(model, inputs, data(format))
    assert model.training
    monkeypatch.setattr(predicting, "TOKEN_BUDGET", 70)
    for module in (scoring, predicting):
        monkeypatch.setattr(module, "READ_AHEAD", 9)
    assert score_task(model, inputs, data(format)) == pytest.approx(before, abs=1e-5)
    assert all(math.isfinite(v) for v in before.values())
    assert task(format).metric in before


# --- retrieval ---


def test_partners_by_hand() -> None:
    ours = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    theirs = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
    # cosines: [0, 1, .6], [1, 0, .8], [.6, .8, .96]: ours finds its own in the third row only, theirs too
    assert partners(ours, theirs) == pytest.approx(1 / 3)
    assert partners(ours, ours) == 1.0
    assert partners(torch.eye(2), torch.tensor([[1.0, 0.0], [0.9, 0.1]])) == 0.75


def test_partners_against_scikit_learn() -> None:
    torch.manual_seed(0)
    ours = F.normalize(torch.randn(80, 6), dim=-1)
    theirs = F.normalize(ours + 0.4 * torch.randn(80, 6), dim=-1)
    scores = (ours @ theirs.T).numpy()
    both = [top_k_accuracy_score(np.arange(80), s, k=1) for s in (scores, scores.T)]
    assert 0.2 < both[0] < 0.9
    assert both[0] != both[1]
    assert partners(ours, theirs) == pytest.approx(np.mean(both))


def test_a_collapsed_encoder_finds_no_partner_by_chance_of_order() -> None:
    assert partners(torch.ones(50, 4), torch.ones(50, 4)) == pytest.approx(1 / 50)


def vectors(model: MultiTaskModel, inputs: Inputs, texts: list[str]) -> torch.Tensor:
    """Pooled states of texts, each encoded alone."""
    model.eval()
    found = []
    with torch.inference_mode():
        for one in texts:
            ids = torch.tensor([inputs._tokenizer.encode(inputs.prefix + one).ids])
            states = model.encoder(input_ids=ids).last_hidden_state
            found.append(states[0].mean(0))
    model.train()
    return torch.stack(found)


def test_retrieval_of_a_contrastive_task_against_scikit_learn(model: MultiTaskModel, inputs: Inputs) -> None:
    rows = [e for e in data("contrastive").dev if isinstance(e, TupleExample)]
    texts = [e.anchor for e in rows], [e.positive for e in rows]
    ours, theirs = (F.normalize(vectors(model, inputs, some), dim=-1).numpy() for some in texts)
    scores = ours @ theirs.T
    expected = np.mean([top_k_accuracy_score(np.arange(50), s, k=1) for s in (scores, scores.T)])
    found = score_task(model, inputs, data("contrastive"))
    assert found == {"retrieval": pytest.approx(expected)}
    assert 0.1 < expected < 1


def test_text_to_image_retrieval_against_scikit_learn(model: MultiTaskModel, inputs: Inputs) -> None:
    captions = [e for e in data("image-text").dev if isinstance(e, CaptionExample)]
    rows = sorted({e.image for e in captions})
    assert len(rows) == 30
    head: Any = model.heads["image-text"]
    with torch.inference_mode():
        texts = F.normalize(head.text(vectors(model, inputs, [e.text for e in captions])), dim=-1)
        images = F.normalize(head.image(torch.from_numpy(IMAGES[rows].astype(np.float32))), dim=-1)
        scores = (texts @ images.T).numpy()
    gold = np.array([rows.index(e.image) for e in captions])
    found = score_task(model, inputs, data("image-text"))
    assert found == {
        "retrieval": pytest.approx(top_k_accuracy_score(gold, scores, k=1, labels=np.arange(30))),
        "at_10": pytest.approx(top_k_accuracy_score(gold, scores, k=10, labels=np.arange(30))),
        "mrr": pytest.approx(label_ranking_average_precision_score(np.eye(30)[gold], scores), abs=1e-6),
    }
    assert 0.1 < found["at_10"] < 0.9


def test_a_collapsed_text_tower_finds_no_image(
    model: MultiTaskModel, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    head: Any = model.heads["image-text"]
    same = lambda pooled, images: {
        "texts": torch.ones(len(pooled), 4) / 2,
    }
    monkeypatch.setattr(head, "vectors", same)
    monkeypatch.setattr(head, "see", lambda images: torch.ones(len(images), 4) / 2)
    found = score_task(model, inputs, data("image-text"))
    assert found == {"retrieval": 0.0, "at_10": 0.0, "mrr": pytest.approx(1 / 30)}


# --- masked language modelling ---


def test_cross_entropy_and_accuracy_of_hidden_tokens_by_hand(model: MultiTaskModel, inputs: Inputs) -> None:
    head: Any = model.heads["mlm"]
    model.eval()
    losses, right = [], []
    with torch.inference_mode():
        for n, example in enumerate(data("mlm").dev):
            assert isinstance(example, TextExample)
            ids = np.array(inputs._tokenizer.encode(example.text).ids, np.int32)
            read, labels = hide(ids, inputs, MLM_PROBABILITY, np.random.default_rng([n]))
            states = model.encoder(input_ids=torch.tensor(read[None]).long()).last_hidden_state[0]
            for at in np.flatnonzero(labels >= 0):
                features = head.norm(F.gelu(head.dense(states[at])))
                logits = model.encoder.get_input_embeddings().weight @ features  # type: ignore[operator, union-attr]
                losses.append(-float(logits.log_softmax(-1)[labels[at]]))
                right.append(int(logits.argmax()) == labels[at])
    model.train()
    assert len(losses) > 60
    found = score_task(model, inputs, data("mlm"))
    assert found["cross_entropy"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert found["token_accuracy"] == pytest.approx(np.mean(right))
    assert score_task(model, inputs, data("mlm")) == found  # the same tokens are hidden every time


def test_logits_over_the_vocabulary_are_not_kept(
    model: MultiTaskModel, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hidden token's logits are a megabyte with XLM-R's vocabulary: one micro-batch's at a time are enough."""
    import weakref

    alive: list[Any] = []
    most = 0
    inner = MultiTaskModel.forward

    def watched(self: MultiTaskModel, *args: Any, **more: Any) -> dict[str, Any]:
        nonlocal most
        output = inner(self, *args, **more)
        alive.append(weakref.ref(output["logits"]))
        most = max(most, sum(ref() is not None for ref in alive))
        return output

    monkeypatch.setattr(predicting, "TOKEN_BUDGET", 60)
    monkeypatch.setattr(MultiTaskModel, "forward", watched)
    score_task(model, inputs, data("mlm"))
    assert len(alive) > 5
    assert most <= 2


# --- all of them ---


def test_all_tasks_are_scored_and_their_metrics_averaged(model: MultiTaskModel, inputs: Inputs) -> None:
    every = [data(f) for f in ("pair", "contrastive", "mlm")]
    scores = score_all(model, inputs, every)
    assert list(scores) == ["pair", "contrastive", "mlm"]
    expected = (scores["pair"]["accuracy"] + scores["contrastive"]["retrieval"] + scores["mlm"]["token_accuracy"]) / 3
    assert mean_metric(every, scores) == pytest.approx(expected)


def test_the_baseline_is_the_majority_or_chance() -> None:
    assert baseline(data("pair", 50)) == (17 / 50, "a")
    assert baseline(data("contrastive", 50)) == (1 / 50, "chance")
    assert baseline(data("image-text", 50)) == (1 / 30, "chance")  # images, of which there are fewer than captions
    assert baseline(data("mlm", 5)) == (0.0, "no baseline")
    unused: Any = None
    assert baseline(TaskData(task("qa"), unused, [QaExample("", "a", "b", ("a",), (0,))])) == (0.0, "no baseline")
