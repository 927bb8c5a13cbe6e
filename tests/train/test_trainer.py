"""The loss and gradients of a step against plain computations of the whole batch; what is trained, kept and logged."""

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.vision_text_dual_encoder.modeling_vision_text_dual_encoder import clip_loss

from xt.core.encoder.resolve import from_folder
from xt.core.encoder.torch_engine import load, load_network
from xt.core.errors import XtError
from xt.core.files.artifact import open_artifact
from xt.core.heads.inputs import Inputs, Unit
from xt.core.heads.network import ContrastiveHead, ImageTextHead, MultiTaskModel
from xt.train import dev, loop
from xt.train.batches import StepBatch, StepBatches
from xt.train.config import TrainConfig
from xt.train.data import TaskData
from xt.train.trainer import MultiTaskTrainer, arguments, step_seed

from .conftest import MAX_LENGTH, Files, load_data

FORMATS = ("pair", "choice", "qa", "tagging", "regression", "mlm", "contrastive", "image-text")
SUMMED = FORMATS[:6]
ONE, MANY = 10**6, 32
"""Tokens of a micro-batch: all of a step together, or one or two examples."""


def make(
    tiny: Path, data: TaskData, tmp_path: Path, *, micro_tokens: int = ONE, batch: int = 8, **settings: Any
) -> tuple[MultiTaskTrainer, StepBatch]:
    """A trainer of one task, always from the same first weights, and its first batch."""
    given = {"dropout": 0.0, "steps": 4, "device": "cpu", **settings}
    config = TrainConfig(
        encoder=str(tiny),
        intermediate=("sample-nli",),
        out=tmp_path / "x",
        batch=batch,
        micro_tokens=micro_tokens,
        **given,
    )
    resolved = from_folder(tiny)
    torch.manual_seed(11)
    model = loop.build(config, load_network(tiny), resolved, [data])
    if data.task.format == "qa":  # the logits of a tiny random network are all but alike: make them differ
        for parameter in model.heads.parameters():
            nn.init.normal_(parameter, std=0.5)
    _, plan = loop.make_plan(config, [data])
    inputs = Inputs(tiny / "tokenizer.json", resolved.spec, max_length=MAX_LENGTH)
    batches = StepBatches(plan, {data.task.name: data}, inputs, seed=config.seed, micro_tokens=micro_tokens)
    trainer = MultiTaskTrainer(model, arguments(config, 4, "cpu", str(tmp_path)), batches, config)
    return trainer, batches[0]


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """The gradients that are there, by name."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def step(trainer: MultiTaskTrainer, batch: StepBatch) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of a training step."""
    trainer.model.zero_grad()
    loss = float(trainer.training_step(trainer.model, batch))
    return loss, gradients(trainer.model)


def compare(found: dict[str, Tensor], expected: dict[str, Tensor], *, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    """The same gradients, of the same parameters, and not all of them small."""
    assert found.keys() == expected.keys()
    assert max(float(g.abs().max()) for g in expected.values()) > 1e-3
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


# --- sums over targets -----------------------------------------------------------------------------------------------


def states(model: MultiTaskModel, row: Any, types: Any) -> Tensor:
    """Run the encoder on one row alone, without padding: (tokens, dim)."""
    encoder: Any = model.encoder
    ids, kinds = (torch.from_numpy(np.asarray(values, np.int64))[None] for values in (row, types))
    return encoder(input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=kinds).last_hidden_state[0]


def score(head: Any, hidden: Tensor) -> Tensor:
    """The classifier on the mean of the tokens."""
    s = head.score
    return F.linear(torch.tanh(F.linear(hidden.mean(0), s.dense.weight, s.dense.bias)), s.out.weight, s.out.bias)


def pair_loss(model: MultiTaskModel, head: Any, units: list[Unit]) -> Tensor:
    logits = torch.stack([score(head, states(model, u.rows[0], u.types[0])) for u in units])
    return F.cross_entropy(logits, torch.tensor([int(u.targets[0]) for u in units]))


def choice_loss(model: MultiTaskModel, head: Any, units: list[Unit]) -> Tensor:
    found = []
    for u in units:
        logits = torch.cat([score(head, states(model, r, t)) for r, t in zip(u.rows, u.types, strict=True)])
        found.append(F.cross_entropy(logits[None], torch.tensor([int(u.targets[0])])))
    return torch.stack(found).mean()


def qa_loss(model: MultiTaskModel, head: Any, units: list[Unit]) -> Tensor:
    """As BertForQuestionAnswering computes it."""
    found = []
    for u in units:
        start, end = F.linear(states(model, u.rows[0], u.types[0]), head.out.weight, head.out.bias).T
        first, last = (torch.tensor([int(t)]) for t in u.targets)
        found.append((F.cross_entropy(start[None], first) + F.cross_entropy(end[None], last)) / 2)
    return torch.stack(found).mean()


def tagging_loss(model: MultiTaskModel, head: Any, units: list[Unit]) -> Tensor:
    """As BertForTokenClassification computes it: the mean over the labelled words of the batch."""
    logits = torch.cat([F.linear(states(model, u.rows[0], u.types[0]), head.out.weight, head.out.bias) for u in units])
    labels = torch.cat([torch.from_numpy(np.asarray(u.labels, np.int64)) for u in units])
    return F.cross_entropy(logits, labels)


def regression_loss(model: MultiTaskModel, head: Any, units: list[Unit]) -> Tensor:
    """The squared error in standard deviations."""
    scores = torch.cat([score(head, states(model, u.rows[0], u.types[0])) for u in units])
    wanted = torch.tensor([u.targets[0] for u in units])
    return F.mse_loss(scores, (wanted - head.mean) / head.deviation)


BY_HAND: dict[str, Callable[[MultiTaskModel, Any, list[Unit]], Tensor]] = {
    "pair": pair_loss,
    "choice": choice_loss,
    "qa": qa_loss,
    "tagging": tagging_loss,
    "regression": regression_loss,
}


def mlm_loss(model: MultiTaskModel, head: Any, batch: StepBatch) -> Tensor:
    """As BertForMaskedLM computes it: the mean over the hidden tokens, of what the batch shows."""
    assert len(batch.micro) == 1
    shown = batch.micro[0]
    encoder: Any = model.encoder
    hidden = encoder(input_ids=shown["input_ids"], attention_mask=shown["attention_mask"]).last_hidden_state
    features = F.layer_norm(
        F.gelu(F.linear(hidden, head.dense.weight, head.dense.bias)),
        (32,),
        head.norm.weight,
        head.norm.bias,
        encoder.config.layer_norm_eps,
    )
    logits = features @ encoder.embeddings.word_embeddings.weight.T
    return F.cross_entropy(logits.flatten(0, 1), shown["labels"].flatten(), ignore_index=-100)


@pytest.mark.parametrize("form", SUMMED)
def test_a_step_gives_the_loss_and_gradients_of_the_mean_over_the_batch_however_it_is_cut(
    form: str, tiny: Path, all_data: dict[str, TaskData], tmp_path: Path
) -> None:
    data = all_data[form]
    trainer, batch = make(tiny, data, tmp_path)
    model: Any = trainer.model
    loss, whole = step(trainer, batch)
    model.zero_grad()
    model.eval()
    if form == "mlm":
        expected = mlm_loss(model, model.heads[data.task.name], batch)
    else:
        units = [data.prepared.unit(int(i)) for i in trainer.batches.plan[0][1]]
        expected = BY_HAND[form](model, model.heads[data.task.name], units)
    expected.backward()
    assert loss == pytest.approx(float(expected), rel=1e-5)
    compare(whole, gradients(model))

    cut, batch = make(tiny, data, tmp_path, micro_tokens=MANY)
    assert len(batch.micro) > 2
    other, pieces = step(cut, batch)
    assert other == pytest.approx(loss, rel=1e-5)
    compare(pieces, whole)


# --- comparisons of a whole batch ------------------------------------------------------------------------------------


def direct(trainer: MultiTaskTrainer, batch: StepBatch, loss: Callable[..., Tensor]) -> tuple[float, dict[str, Tensor]]:
    """One graph of all micro-batches with the dropout that training draws, and one way back through it."""
    model: Any = trainer.model
    model.zero_grad()
    model.train()
    outputs: list[dict[str, Tensor]] = []
    for i, micro in enumerate(batch.micro):
        torch.manual_seed(step_seed(trainer.config.seed, batch.step, 0, i))
        outputs.append(model(task=batch.task, **micro))
    scalars = {n: outputs[0][n] for n in ("log_scale", "offset") if n in outputs[0]}
    rows = {n: torch.cat([o[n] for o in outputs]) for n in outputs[0] if n not in scalars}
    marks = {n: torch.cat([m[n] for m in batch.micro]) for n in ("parts", "owners") if n in batch.micro[0]}
    value = loss(**rows, **scalars, **marks)
    value.backward()
    return float(value), gradients(model)


def symmetric(texts: Tensor, parts: Tensor, owners: Tensor | None = None) -> Tensor:
    """sentence-transformers' symmetric loss of anchors and positives; with hard negatives, put together from its two."""
    from sentence_transformers import losses as st_losses

    assert owners is None or len(set(owners.tolist())) == len(owners)
    anchors, positives, negatives = (texts[parts == part] for part in (0, 1, 2))
    if not len(negatives):
        loss: Any = st_losses.MultipleNegativesSymmetricRankingLoss(lambda f: {"sentence_embedding": f}, scale=20.0)
        return loss([anchors, positives], None)
    scores = 20 * F.cosine_similarity(anchors[:, None], torch.cat([positives, negatives])[None], dim=-1)
    gold = torch.arange(len(anchors))
    backward = 20 * F.cosine_similarity(positives[:, None], anchors[None], dim=-1)
    return (F.cross_entropy(scores, gold) + F.cross_entropy(backward, gold)) / 2


def clip(texts: Tensor, images: Tensor, log_scale: Tensor, offset: Tensor, owners: Tensor) -> Tensor:
    """transformers' loss of CLIP."""
    assert len(set(owners.tolist())) == len(owners)
    return clip_loss(texts @ images.T * log_scale.exp())


def siglip(texts: Tensor, images: Tensor, log_scale: Tensor, offset: Tensor, owners: Tensor) -> Tensor:
    """The lines of transformers' SiglipModel.forward."""
    assert len(set(owners.tolist())) == len(owners)
    logits = texts @ images.T * log_scale.exp() + offset
    eye = torch.eye(len(logits))
    return -F.logsigmoid((2 * eye - torch.ones_like(logits)) * logits).sum(-1).mean()


@pytest.fixture(scope="module")
def distinct(tiny: Path, files: Files) -> dict[str, TaskData]:
    """The tasks that compare a whole batch: contrastive, and image-text by each loss, no image twice in a batch."""
    settings = {"contrastive": ("sample-nli",), "image_text": (str(files.images),)}
    pairs, images = load_data(tiny, **settings)
    siglip_images = load_data(tiny, image_text=(str(files.images),), image_loss="siglip")[0]
    return {"contrastive": pairs, "clip": images, "siglip": siglip_images}


LOSSES: dict[str, Callable[..., Tensor]] = {"contrastive": symmetric, "clip": clip, "siglip": siglip}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", list(LOSSES))
def test_gradient_caching_gives_the_gradients_of_the_whole_batch_at_once(
    kind: str, dropout: float, tiny: Path, distinct: dict[str, TaskData], tmp_path: Path
) -> None:
    trainer, batch = make(tiny, distinct[kind], tmp_path, micro_tokens=MANY, batch=6, dropout=dropout)
    assert len(batch.micro) > 2
    loss, found = step(trainer, batch)
    expected, wanted = direct(trainer, batch, LOSSES[kind])
    assert loss == pytest.approx(expected, rel=1e-5)
    compare(found, wanted, atol=2e-6)
    again, _ = step(trainer, batch)
    assert again == loss
    if not dropout:  # then the cut does not matter at all
        single, batch = make(tiny, distinct[kind], tmp_path, batch=6)
        assert len(batch.micro) == 1
        other, whole = step(single, batch)
        assert other == pytest.approx(loss, rel=1e-5)
        compare(found, whole, atol=2e-6)
    else:
        off, batch = make(tiny, distinct[kind], tmp_path, micro_tokens=MANY, batch=6)
        assert step(off, batch)[0] != pytest.approx(loss, rel=1e-3)


def test_the_symmetric_loss_is_that_of_sentence_transformers() -> None:
    from sentence_transformers import losses as st_losses

    texts = F.normalize(torch.randn(12, 8, generator=torch.Generator().manual_seed(1)), dim=-1)
    head = ContrastiveHead(None, 8, 0.0)  # type: ignore[arg-type]
    parts = torch.tensor([0, 1] * 6)
    assert float(head.loss(texts=texts, parts=parts)) == pytest.approx(float(symmetric(texts, parts)), rel=1e-6)
    parts = torch.tensor([0, 1, 2] * 4)
    ranking: Any = st_losses.MultipleNegativesRankingLoss(lambda f: {"sentence_embedding": f}, scale=20.0)
    forward = ranking([texts[parts == p] for p in (0, 1, 2)], None)
    backward = ranking([texts[parts == p] for p in (1, 0)], None)
    assert float(head.loss(texts=texts, parts=parts)) == pytest.approx(float(forward + backward) / 2, rel=1e-6)


def test_another_caption_of_the_same_image_is_no_negative() -> None:
    head = ImageTextHead(None, 4, 0.0, loss="clip")  # type: ignore[arg-type]
    eye = torch.eye(4)
    scale, offset = torch.tensor(math.log(5.0)), torch.tensor(0.0)
    alike = head.loss(
        texts=eye[[0, 0, 1]], images=eye[[0, 0, 1]], log_scale=scale, offset=offset, owners=torch.tensor([7, 7, 9])
    )
    # each row: its own image at e^5, the other image at e^0, the twin left out
    assert float(alike) == pytest.approx(-math.log(math.exp(5) / (math.exp(5) + 1)) * 2 / 3
                                         - math.log(math.exp(5) / (math.exp(5) + 2)) / 3, rel=1e-5)  # fmt: skip


# --- what is trained -------------------------------------------------------------------------------------------------


def test_heads_have_their_learning_rate_and_only_matrices_decay(
    tiny: Path, all_data: dict[str, TaskData], tmp_path: Path
) -> None:
    trainer, _ = make(tiny, all_data["image-text"], tmp_path, learning_rate=1e-3, head_learning_rate=1e-2)
    optimizer = trainer.create_optimizer()
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    checked = 0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert group["lr"] == (1e-2 if name.startswith("heads.") else 1e-3), name
            assert group["weight_decay"] == (0.01 if parameter.ndim > 1 else 0.0), name
            checked += 1
    expected = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
    assert checked == len(expected) > 30
    assert "encoder.embeddings.word_embeddings.weight" not in expected
    assert any(name.endswith("log_scale") for name in expected)


def run(tiny: Path, out: Path, data: list[TaskData], **change: Any) -> Path:
    """Train the tiny encoder."""
    values = {"steps": 6, "batch": 8, "learning_rate": 2e-3, "head_learning_rate": 5e-3, "device": "cpu", **change}
    settings = TrainConfig(encoder=str(tiny), intermediate=("sample-nli",), out=out, **values)
    return loop.train_from_network(settings, load_network(tiny), from_folder(tiny), data)


def test_lora_trains_its_matrices_and_the_heads_alone_and_is_merged(
    tiny: Path, small_data: list[TaskData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors: list[Tensor] = []
    merge = loop.merged
    ids = torch.arange(5, 45).reshape(4, 10)

    def note(model: MultiTaskModel) -> None:
        encoder: Any = model.encoder
        names = {name for name, p in model.named_parameters() if p.requires_grad}
        assert {name.split(".")[0] for name in names} == {"encoder", "heads"}
        assert all("lora_" in name for name in names if name.startswith("encoder."))
        assert len([name for name in names if "lora_A" in name]) == 12  # 2 layers of 6 matrices
        model.eval()
        with torch.no_grad():
            vectors.append(encoder(ids).last_hidden_state)
        merge(model)

    monkeypatch.setattr(loop, "merged", note)
    out = run(tiny, tmp_path / "x", small_data[:1], lora_rank=4, evaluate_every=3)
    network, found = transformers.AutoModel.from_pretrained(out, output_loading_info=True, add_pooling_layer=False)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(ids).last_hidden_state, vectors[0], rtol=1e-4, atol=1e-5)
        before = load_network(tiny)(ids).last_hidden_state
    assert float((before - vectors[0]).abs().max()) > 1e-3
    assert [p.name for p in out.iterdir() if "adapter" in p.name] == []
    old, new = load_file(tiny / "model.safetensors"), load_file(out / "model.safetensors")
    assert old.keys() == new.keys()
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert moved == {
        name for name in old if name.endswith("weight") and old[name].ndim == 2 and "embeddings" not in name
    }


@pytest.mark.parametrize(
    ("means", "patience", "steps", "chosen"),
    [([0.1, 0.5, 0.5, 0.4], 2, 8, 4), ([0.1, 0.3, 0.2, 0.9, 0.1], 2, 10, 8), ([0.6, 0.5, 0.4, 0.3, 0.2], 0, 10, 2)],
)
def test_the_weights_of_the_best_scoring_are_written_and_training_stops_when_none_is_better(
    means: list[float], patience: int, steps: int, chosen: int,
    tiny: Path, small_data: list[TaskData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seen: list[dict[str, Tensor]] = []
    script: Iterator[float] = iter([*means, 0.77])

    def scripted(model: Any, inputs: Any, data: list[TaskData]) -> dict[str, dict[str, float]]:
        if not data:  # before training: no task has a score then
            return {}
        seen.append(copy.deepcopy(model.encoder.state_dict()))
        return {d.task.name: {d.task.metric: value} for d, value in zip(data, [next(script)], strict=True)}

    monkeypatch.setattr(dev, "score_all", scripted)
    out = run(tiny, tmp_path / "x", small_data[:1], steps=10, evaluate_every=2, patience=patience)
    facts = open_artifact(out).facts["training"]
    assert facts["steps"] == len(facts["losses"]) == steps
    assert (facts["chosen_step"], facts["planned_steps"]) == (chosen, 10)
    assert [row["mean"] for row in facts["dev"]] == means
    assert [row["step"] for row in facts["dev"]] == list(range(2, steps + 1, 2))
    assert bool(facts["stopped"]) == (steps < 10)
    assert facts["tasks"][0]["after"] == 0.77
    written = load_file(out / "model.safetensors")
    kept = seen[chosen // 2 - 1]
    assert all(torch.equal(written[name], kept[name]) for name in written)
    assert not all(torch.equal(written[name], seen[steps // 2 - 1][name]) for name in written)


def test_bf16_stays_near_fp32_and_writes_fp32(tiny: Path, small_data: list[TaskData], tmp_path: Path) -> None:
    outs = {p: run(tiny, tmp_path / p, small_data, precision=p, steps=8, dropout=0.0) for p in ("fp32", "bf16")}
    losses = {p: [row["loss"] for row in open_artifact(out).facts["training"]["losses"]] for p, out in outs.items()}
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    written = load_file(outs["bf16"] / "model.safetensors")
    assert {t.dtype for t in written.values()} == {torch.float32}
    texts = ["The river is long.", "tea"]
    one, two = (load(str(out), device="cpu").encode(texts).vectors for out in outs.values())
    assert float((one * two).sum(1).min()) > 0.999


def test_gradient_checkpointing_changes_no_loss(
    tiny: Path, small_data: list[TaskData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils import checkpoint

    calls: list[int] = []
    recompute = checkpoint.checkpoint
    monkeypatch.setattr(
        transformers.modeling_utils, "checkpoint", lambda *a, **k: (calls.append(1), recompute(*a, **k))[1]
    )
    settings: dict[str, Any] = {"steps": 5, "dropout": 0.2}
    plain = open_artifact(run(tiny, tmp_path / "a", small_data, **settings)).facts["training"]["losses"]
    assert not calls
    less = run(tiny, tmp_path / "b", small_data, gradient_checkpointing=True, **settings)
    found = open_artifact(less).facts["training"]["losses"]
    assert calls
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in plain], rel=1e-5)


def test_losses_and_dev_scores_are_logged_to_tensorboard(
    tiny: Path, small_data: list[TaskData], tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = run(tiny, tmp_path / "x", small_data[:2], log_to=("tensorboard",), steps=4, evaluate_every=2)
    events = EventAccumulator(str(tmp_path / "x.logs")).Reload()
    facts = open_artifact(out).facts["training"]
    checked = 0
    for task in {row["task"] for row in facts["losses"]}:
        found = [(e.step, e.value) for e in events.Scalars(f"train/loss/{task}")]
        assert found == [(r["step"], pytest.approx(r["loss"])) for r in facts["losses"] if r["task"] == task]
        checked += len(found)
    assert checked == 4
    assert [e.value for e in events.Scalars("train/dev/mean")] == pytest.approx([row["mean"] for row in facts["dev"]])


def test_a_loss_that_is_no_number_stops_with_what_to_do(tiny: Path, small_data: list[TaskData], tmp_path: Path) -> None:
    network = load_network(tiny)
    with torch.no_grad():
        next(p for n, p in network.named_parameters() if "output.dense.weight" in n)[0, 0] = torch.nan
    settings = TrainConfig(encoder=str(tiny), intermediate=("sample-nli",), out=tmp_path / "x", steps=2, device="cpu")
    with pytest.raises(XtError, match=r"The loss of step 1 \(sample-nli\) is nan") as error:
        loop.train_from_network(settings, network, from_folder(tiny), small_data[:1])
    assert "--lr" in error.value.hint
    assert list(tmp_path.iterdir()) == []
