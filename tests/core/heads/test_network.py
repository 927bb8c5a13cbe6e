"""The losses are transformers' and torch's, what must not count does not, and a head comes back as it was saved."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.nn import functional as F

from xt.core.data.task_table import TASKS
from xt.core.data.tasks import Task
from xt.core.encoder.resolve import Resolved
from xt.core.encoder.spec import EncoderSpec
from xt.core.encoder.torch_engine import load_network
from xt.core.errors import XtError
from xt.core.heads.network import (
    HEADS,
    HEADS_FILE,
    ContrastiveHead,
    ImageTextHead,
    MultiTaskModel,
    States,
    linear,
    load_heads,
    save_heads,
)

DIM = 32
SIZE = {"vocab_size": 50, "hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def task(format: str, name: str = "t", labels: tuple[str, ...] = ("a", "b", "c")) -> Task:
    return Task(name, "intermediate", format, "", labels, "", "accuracy", "", "")


def roberta(kind: Any, **more: Any) -> Any:
    """A tiny XLM-R of some kind, weights wide enough to tell things apart, without dropout."""
    torch.manual_seed(5)
    config = transformers.XLMRobertaConfig(
        **SIZE, max_position_embeddings=40, type_vocab_size=1, pad_token_id=1, initializer_range=0.3, **more
    )
    return kind(config).eval()


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Five rows of 4 to 9 tokens."""
    torch.manual_seed(1)
    lengths = [9, 4, 7, 9, 5]
    ids, mask = torch.ones(5, 9, dtype=torch.long), torch.zeros(5, 9, dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(5, 50, (length,))
        mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask}


def ours(encoder: Any, form: str, pooling: str = "cls") -> MultiTaskModel:
    return MultiTaskModel(encoder, EncoderSpec("t", DIM, pooling=pooling), [task(form)]).eval()


def copy(head: Any, **weights: Any) -> None:
    """Give layers of a head the weights of others."""
    for name, layer in weights.items():
        head.get_submodule(name.replace("__", ".")).load_state_dict(layer.state_dict())


# --- losses against transformers ---


def test_classification_is_that_of_transformers(batch: dict[str, Tensor]) -> None:
    whole = roberta(transformers.XLMRobertaForSequenceClassification, num_labels=3)
    model = ours(whole.roberta, "pair")
    copy(model.heads["t"], score__dense=whole.classifier.dense, score__out=whole.classifier.out_proj)
    labels = torch.tensor([0, 2, 1, 1, 0])
    expected, found = whole(**batch, labels=labels), model("t", **batch, labels=labels)
    torch.testing.assert_close(found["logits"], expected.logits)
    torch.testing.assert_close(found["loss"], expected.loss * 5)  # a sum over examples, theirs a mean


def test_choice_is_that_of_transformers(batch: dict[str, Tensor]) -> None:
    whole = roberta(transformers.XLMRobertaForMultipleChoice)
    model = ours(whole.roberta, "choice")
    model.encoder = Pooler(whole.roberta)  # theirs scores what a dense layer makes of the first token
    copy(model.heads["t"], score__dense=whole.roberta.pooler.dense, score__out=whole.classifier)
    four = {k: v[:4] for k, v in batch.items()}
    shaped = {k: v.view(2, 2, -1) for k, v in four.items()}
    labels = torch.tensor([1, 0])
    expected = whole(**shaped, labels=labels)
    found = model("t", **four, choices=torch.tensor([[0, 1], [2, 3]]), labels=labels)
    torch.testing.assert_close(found["logits"], expected.logits)
    torch.testing.assert_close(found["loss"], expected.loss * 2)


class Pooler(torch.nn.Module):
    """Only the encoder's last states."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, output_hidden_states: bool = False, **batch: Tensor) -> Any:
        return self.inner(**batch)


def test_spans_are_those_of_transformers(batch: dict[str, Tensor]) -> None:
    whole = roberta(transformers.XLMRobertaForQuestionAnswering)
    model = ours(whole.roberta, "qa")
    copy(model.heads["t"], out=whole.qa_outputs)
    full = {k: v[[0, 3]] for k, v in batch.items()}  # without padding: theirs does not mask it
    labels = torch.tensor([[2, 4], [0, 0]])
    expected = whole(**full, start_positions=labels[:, 0], end_positions=labels[:, 1])
    found = model("t", **full, labels=labels)
    torch.testing.assert_close(found["logits"], torch.stack([expected.start_logits, expected.end_logits], 1))
    torch.testing.assert_close(found["loss"], expected.loss * 2)


def test_tagging_is_that_of_transformers(batch: dict[str, Tensor]) -> None:
    whole = roberta(transformers.XLMRobertaForTokenClassification, num_labels=3)
    model = ours(whole.roberta, "tagging")
    copy(model.heads["t"], out=whole.classifier)
    labels = torch.randint(0, 3, (5, 9)).masked_fill(batch["attention_mask"] == 0, -100)
    labels[0, 3] = -100
    expected, found = whole(**batch, labels=labels), model("t", **batch, labels=labels)
    torch.testing.assert_close(found["logits"], expected.logits)
    torch.testing.assert_close(found["loss"], expected.loss * int((labels != -100).sum()))
    changed = found["loss"].item()
    labels[0, 3] = 1
    assert model("t", **batch, labels=labels)["loss"].item() > changed


PUBLISHED = {
    "xlm-roberta": transformers.XLMRobertaForMaskedLM,
    "bert": transformers.BertForMaskedLM,
}


@pytest.mark.parametrize("old", [False, True], ids=["new names", "old names"])
@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_published_mlm_head_gives_transformers_logits(
    kind: str, old: bool, batch: dict[str, Tensor], tmp_path: Path
) -> None:
    if kind == "bert":
        torch.manual_seed(5)
        config = transformers.BertConfig(**SIZE, max_position_embeddings=40, initializer_range=0.3)
        config.layer_norm_eps = 1e-2  # large enough to be seen
        whole: Any = transformers.BertForMaskedLM(config).eval()
    else:
        whole = roberta(PUBLISHED[kind], layer_norm_eps=1e-2)
    torch.nn.init.normal_(whole.get_output_embeddings().bias)
    norm = whole.cls.predictions.transform.LayerNorm if kind == "bert" else whole.lm_head.layer_norm
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    whole.save_pretrained(tmp_path)
    if old:
        rename(tmp_path / "model.safetensors")
    model = ours(whole.base_model, "mlm")
    head: Any = model.heads["t"]
    assert head.load_published(tmp_path) is True
    labels = torch.full((5, 9), -100)
    labels[0, 2], labels[2, 5], labels[4, 1] = 7, 8, 9
    expected, found = whole(**batch, labels=labels), model("t", **batch, labels=labels)
    torch.testing.assert_close(found["logits"], expected.logits[labels != -100])
    torch.testing.assert_close(found["loss"], expected.loss * 3)
    # a head with a bias of its own comes back from a checkpoint
    save_heads(tmp_path / HEADS_FILE, model, [task("mlm")])
    again, _ = load_heads(tmp_path, whole.base_model, EncoderSpec("t", DIM, pooling="cls"))
    torch.testing.assert_close(again("t", **batch, labels=labels)["logits"], found["logits"])


def rename(file: Path) -> None:
    """Call scale and shift of the layer norms as the first published models do."""
    from safetensors.torch import load_file, save_file

    new = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in load_file(file).items()
    }
    save_file(new, file)


def test_without_a_published_mlm_head_it_starts_anew(batch: dict[str, Tensor], tmp_path: Path) -> None:
    encoder = roberta(transformers.XLMRobertaModel)
    encoder.save_pretrained(tmp_path)
    model = ours(encoder, "mlm")
    head: Any = model.heads["t"]
    before = {k: v.clone() for k, v in head.state_dict().items()}
    assert head.load_published(tmp_path) is False
    assert head.bias is None
    assert all(torch.equal(v, before[k]) for k, v in head.state_dict().items())
    labels = torch.full((5, 9), -100)
    labels[1, 2] = 7
    found = model("t", **batch, labels=labels)
    states = encoder(**batch).last_hidden_state[1, 2]
    by_hand = head.norm(F.gelu(head.dense(states))) @ encoder.get_input_embeddings().weight.T
    torch.testing.assert_close(found["logits"][0], by_hand)
    torch.testing.assert_close(found["loss"], -by_hand.log_softmax(-1)[7])


# --- losses by hand ---


def states(rows: int, seed: int = 0) -> States:
    torch.manual_seed(seed)
    return States(torch.randn(rows, 4, DIM), torch.randn(rows, DIM), torch.ones(rows, 4, dtype=torch.long))


def test_regression_is_in_the_scores_units_and_its_loss_in_deviations() -> None:
    head: Any = HEADS["regression"](task("regression"), DIM, 0.0)
    head.fit_scale(3.5, 0.5)
    scores, loss = head(states(2), labels=torch.tensor([3.0, 4.0]))
    expected = ((scores - torch.tensor([3.0, 4.0])) / 0.5) ** 2
    torch.testing.assert_close(loss, expected.sum())
    torch.nn.init.zeros_(head.score.out.weight)
    assert head(states(2))[0].tolist() == [3.5, 3.5]
    head.fit_scale(1.0, 0.0)  # all the same: no division by 0
    assert torch.isfinite(head(states(2), labels=torch.tensor([1.0, 1.0]))[1])


def test_a_prompt_with_fewer_choices_gives_the_missing_ones_no_chance() -> None:
    head: Any = HEADS["choice"](task("choice"), DIM, 0.0)
    some = states(5)
    logits, loss = head(some, choices=torch.tensor([[0, 1, -1], [2, 3, 4]]), labels=torch.tensor([1, 2]))
    scores = head.score(some.pooled)[:, 0]
    assert logits[0, 2] == -torch.inf
    torch.testing.assert_close(logits[0, :2], scores[:2])
    expected = scores[:2].logsumexp(0) - scores[1] + scores[2:].logsumexp(0) - scores[4]
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


def test_padding_is_no_end_of_an_answer() -> None:
    head: Any = HEADS["qa"](task("qa"), DIM, 0.0)
    some = states(2)
    masked = replace(some, mask=torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]))
    logits, loss = head(masked, labels=torch.tensor([[1, 1], [2, 3]]))
    assert (logits[0, :, 2:] == -torch.inf).all()
    assert torch.isfinite(logits[0, :, :2]).all()
    short = head(States(some.tokens[:1, :2], some.pooled[:1], masked.mask[:1, :2]), labels=torch.tensor([[1, 1]]))[1]
    long = head(States(some.tokens[1:], some.pooled[1:], masked.mask[1:]), labels=torch.tensor([[2, 3]]))[1]
    torch.testing.assert_close(loss, short + long)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


def unit_rows(rows: int, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return F.normalize(torch.randn(rows, 6), dim=-1)


def test_the_contrastive_loss_by_hand() -> None:
    head = ContrastiveHead(task("contrastive"), DIM, 0.0)
    head.temperature = 0.1
    texts, parts = unit_rows(8, 3), torch.tensor([0, 1, 2, 0, 1, 0, 1, 2])
    anchors, positives, negatives = [0, 3, 5], [1, 4, 6], [2, 7]
    total = 0.0
    for n in range(3):
        there = [math.exp(float(texts[anchors[n]] @ texts[j]) / 0.1) for j in positives + negatives]
        back = [math.exp(float(texts[positives[n]] @ texts[j]) / 0.1) for j in anchors]
        total -= (math.log(there[n] / sum(there)) + math.log(back[n] / sum(back))) / 2
    assert float(head.loss(texts=texts, parts=parts)) == pytest.approx(total / 3, rel=1e-5)


def test_a_text_is_no_negative_of_a_pair_it_is_part_of():
    head = ContrastiveHead(TASKS["sick"], 3, 0.0)
    texts, parts = unit_rows(8, 3), torch.tensor([0, 1] * 4)
    owners = torch.tensor([7, 1, 7, 2, 3, 4, 5, 3])  # pairs 0 and 1 share the anchor; anchor 2 is pair 3's positive
    anchors, positives = texts[0::2], texts[1::2]
    allowed = {0: [0, 2, 3], 1: [1, 2, 3], 2: [0, 1, 2], 3: [0, 1, 2, 3]}
    forward = anchors @ positives.T / head.temperature
    total = 0.0
    for i, keep in allowed.items():
        total += float(torch.logsumexp(forward[i, keep], 0) - forward[i, i])
    back = {j: [i for i in range(4) if j in allowed[i]] for j in range(4)}
    for j, keep in back.items():
        total += float(torch.logsumexp(forward[keep, j], 0) - forward[j, j])
    assert float(head.loss(texts=texts, parts=parts, owners=owners)) == pytest.approx(total / 8, rel=1e-5)


def test_vectors_have_unit_length_and_cosines_do_not_depend_on_the_pooled_length() -> None:
    head = ContrastiveHead(task("contrastive"), DIM, 0.0)
    pooled = torch.randn(3, DIM)
    one, other = head.vectors(pooled, None)["texts"], head.vectors(pooled * 7, None)["texts"]
    torch.testing.assert_close(one.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_the_image_losses_by_hand(loss: str) -> None:
    head = ImageTextHead(task("image-text"), DIM, 0.0, image_dim=6, loss=loss)
    texts, images = unit_rows(4, 1), unit_rows(4, 2)
    images[3] = images[1]
    owners = [5, 7, 6, 7]  # the second and the fourth caption are of the same image
    found = head.loss(
        texts=texts, images=images, log_scale=head.log_scale, offset=head.offset, owners=torch.tensor(owners)
    )
    scale, bias = (10.0, -10.0) if loss == "siglip" else (1 / 0.07, 0.0)
    logit = lambda i, j: float(texts[i] @ images[j]) * scale + bias
    total = 0.0
    for i in range(4):
        if loss == "siglip":
            total += sum(
                math.log1p(math.exp(-logit(i, j) if owners[i] == owners[j] else logit(i, j))) for j in range(4)
            )
        else:
            others = [j for j in range(4) if j == i or owners[j] != owners[i]]
            total += math.log(sum(math.exp(logit(i, j)) for j in others)) / 2
            total += math.log(sum(math.exp(logit(j, i)) for j in others)) / 2 - logit(i, i)
    assert found.item() == pytest.approx(total / 4, rel=1e-4)
    assert head.offset.requires_grad == (loss == "siglip")


def test_clips_scale_stays_below_100() -> None:
    head = ImageTextHead(task("image-text"), DIM, 0.0, image_dim=6)
    marks = {"texts": unit_rows(3, 1), "images": unit_rows(3, 2), "offset": head.offset, "owners": torch.arange(3)}
    at_most = head.loss(**marks, log_scale=torch.tensor(math.log(100.0)))
    torch.testing.assert_close(head.loss(**marks, log_scale=torch.tensor(9.0)), at_most)


def test_layers_start_as_berts_do() -> None:
    torch.manual_seed(0)
    layer = linear(400, 300)
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not layer.bias.any()


# --- the model ---


def test_vector_tasks_read_the_layer_of_retrieval_and_the_others_the_last(batch: dict[str, Tensor]) -> None:
    encoder = roberta(transformers.XLMRobertaModel)
    rows = [task("contrastive", "c"), task("single", "s")]
    model = MultiTaskModel(encoder, EncoderSpec("t", DIM, pooling="cls"), rows, layer=1).eval()
    hidden = encoder(**batch, output_hidden_states=True).hidden_states
    torch.testing.assert_close(model("c", **batch)["texts"], F.normalize(hidden[1][:, 0], dim=-1))
    torch.testing.assert_close(model.states("s", **batch).pooled, hidden[2][:, 0])


def test_frozen_embeddings_get_no_gradient(batch: dict[str, Tensor]) -> None:
    model = ours(roberta(transformers.XLMRobertaModel), "single")
    model.freeze_embeddings()
    model("t", **batch, labels=torch.zeros(5, dtype=torch.long))["loss"].backward()
    without = [name for name, p in model.encoder.named_parameters() if p.grad is None and "pooler" not in name]
    assert without == ["embeddings.word_embeddings.weight"]


@pytest.mark.parametrize("name", ["train", "items", "a.b"])
def test_a_name_that_torch_cannot_keep_is_refused(name: str) -> None:
    with pytest.raises(XtError, match="No task can be called"):
        MultiTaskModel(roberta(transformers.XLMRobertaModel), EncoderSpec("t", DIM), [task("single", name)])


# --- files ---


def test_every_row_of_the_table_survives_json() -> None:
    rows = list(TASKS.values())
    assert len(rows) >= 25
    for row in rows:
        back = Task.from_json(json.loads(json.dumps(row.to_json())))
        assert back == row
        assert back.hub == row.hub
        assert all(isinstance(v, tuple) for v in back.files.values())
    newer = {**rows[0].to_json(), "of_a_later_version": [1]}
    assert Task.from_json(newer) == rows[0]


def test_heads_of_all_formats_come_back_with_their_rows(tiny: Resolved, tmp_path: Path) -> None:
    rows = [task(form, f"of-{form}") for form in HEADS] + [TASKS["xquad-en"], TASKS["sick"]]
    options = {"of-image-text": {"image_dim": 7, "loss": "siglip"}}
    torch.manual_seed(1)
    model = MultiTaskModel(load_network(tiny.path), tiny.spec, rows, options=options)
    model.heads["of-regression"].fit_scale(3.0, 0.5)
    save_heads(tmp_path / HEADS_FILE, model, rows)
    torch.manual_seed(2)
    again, found = load_heads(tmp_path, load_network(tiny.path), tiny.spec)
    assert list(found.values()) == rows
    assert not again.training
    before, after = model.heads.state_dict(), again.heads.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    head: Any = again.heads["of-image-text"]
    assert (head.kind, head.image.in_features, head.offset.requires_grad) == ("siglip", 7, True)
    assert float(again.heads["of-regression"].mean) == 3.0


def test_a_folder_without_heads_is_named(tiny: Resolved) -> None:
    with pytest.raises(XtError, match=r"has no trained heads \(heads.safetensors\)"):
        load_heads(tiny.path, load_network(tiny.path), tiny.spec)
