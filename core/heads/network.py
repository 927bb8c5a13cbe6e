"""The small networks on top of the shared encoder: one a task, of the form that the task's format asks for."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from xt.core.data.tasks import Task
from xt.core.encoder.layers import UPPER, restore, stack
from xt.core.encoder.spec import EncoderSpec
from xt.core.encoder.torch_engine import pool
from xt.core.errors import XtError
from xt.core.heads.inputs import IGNORED

HEADS_FILE = "heads.safetensors"
"""All heads' weights in a checkpoint folder, named `<task>.<weight>`; the metadata hold the tasks' rows."""


def has_segments(encoder: nn.Module) -> bool:
    """Return whether an encoder tells two texts apart by segment (token_type_ids)."""
    config: Any = encoder.config
    return int(getattr(config, "type_vocab_size", 1) or 1) > 1


@dataclass(frozen=True)
class States:
    """The encoder's output for one batch."""

    tokens: Tensor
    """(rows, tokens, dim)"""
    pooled: Tensor
    """(rows, dim), pooled as the encoder's vectors are, but of any length: not normalised."""
    mask: Tensor
    """(rows, tokens) of 0/1."""
    embeddings: Tensor | None = None
    """(vocabulary, dim): the word embeddings, for heads that give tokens."""


def linear(inputs: int, outputs: int, deviation: float = 0.02) -> nn.Linear:
    """Make a linear layer that starts as BERT's do: normal weights (Devlin et al. 2019: 0.02), bias 0."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=deviation)
    nn.init.zeros_(layer.bias)
    return layer


class Scorer(nn.Module):
    """Dropout, dense, tanh, dropout, linear: (rows, dim) -> (rows, outputs). The head of RoBERTa's classifier."""

    def __init__(self, dim: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dense = linear(dim, dim)
        self.out = linear(dim, outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, pooled: Tensor) -> Tensor:
        """Score each row."""
        logits: Tensor = self.out(self.dropout(torch.tanh(self.dense(self.dropout(pooled)))))
        return logits


class ClassHead(nn.Module):
    """Classifies the pooled vector of a text, or of two texts that were read together."""

    def __init__(self, task: Task, dim: int, dropout: float) -> None:
        super().__init__()
        self.score = Scorer(dim, len(task.labels), dropout)

    def forward(self, states: States, *, labels: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the logits (batch, labels), and with `labels` (batch,) the summed cross-entropy."""
        logits = self.score(states.pooled)
        return logits, None if labels is None else F.cross_entropy(logits, labels, reduction="sum")


class RegressionHead(nn.Module):
    """Scores two texts that were read together, in the units of the task's scores."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, task: Task, dim: int, dropout: float) -> None:
        super().__init__()
        self.score = Scorer(dim, 1, dropout)
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("deviation", torch.tensor(1.0))

    def fit_scale(self, mean: float, deviation: float) -> None:
        """Return what the scores of the training data are like, so that the network starts near their mean."""
        self.mean.fill_(mean)
        self.deviation.fill_(max(deviation, 1e-6))

    def forward(self, states: States, *, labels: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the scores (batch,), and with `labels` (batch,) the summed squared error in standard deviations."""
        standard = self.score(states.pooled)[:, 0]
        loss = None if labels is None else ((standard - (labels - self.mean) / self.deviation) ** 2).sum()
        return standard * self.deviation + self.mean, loss


class ChoiceHead(nn.Module):
    """Scores each prompt with one of its choices; softmax over the choices of a prompt."""

    def __init__(self, task: Task, dim: int, dropout: float) -> None:
        super().__init__()
        self.score = Scorer(dim, 1, dropout)

    def forward(self, states: States, *, choices: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the logits (batch, choices), -inf where a prompt has fewer.

        With `labels` (batch,) also the summed loss.

        choices (batch, choices): the row of `states` of each choice, -1 where there is none.
        """
        scores = self.score(states.pooled)[:, 0]  # (rows,)
        logits = scores[choices.clamp(min=0)].masked_fill(choices < 0, -torch.inf)  # (batch, choices)
        return logits, None if labels is None else F.cross_entropy(logits, labels, reduction="sum")


class SpanHead(nn.Module):
    """Scores each token as the first and as the last of the answer."""

    def __init__(self, task: Task, dim: int, dropout: float) -> None:
        super().__init__()
        self.out = linear(dim, 2)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: States, *, labels: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the logits (rows, 2, tokens), -inf at padding.

        With `labels` (rows, 2) also the summed mean loss of both ends.

        Both labels are 0, the first special token, for a window without the answer (Devlin et al. 2019, section 4.3).
        """
        logits = self.out(self.dropout(states.tokens)).transpose(1, 2)  # (rows, 2, tokens)
        logits = logits.masked_fill(states.mask[:, None] == 0, -torch.inf)
        if labels is None:
            return logits, None
        ends = [F.cross_entropy(logits[:, i], labels[:, i], reduction="sum") for i in (0, 1)]
        return logits, (ends[0] + ends[1]) / 2


class TaggingHead(nn.Module):
    """Classifies each token."""

    def __init__(self, task: Task, dim: int, dropout: float) -> None:
        super().__init__()
        self.out = linear(dim, len(task.labels))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: States, *, labels: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the logits (rows, tokens, labels), and with `labels` the cross-entropy summed where not `IGNORED`."""
        logits = self.out(self.dropout(states.tokens))
        if labels is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")


class MlmHead(nn.Module):
    """Finds hidden tokens: dense, GELU, layer norm, then the word embeddings as output weights (RoBERTa's LM head)."""

    def __init__(self, task: Task, dim: int, dropout: float) -> None:
        super().__init__()
        self.dense = linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-5)
        self.bias: nn.Parameter | None = None

    def forward(self, states: States, *, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits (hidden tokens, vocabulary) and their summed cross-entropy.

        `labels` (rows, tokens) or `IGNORED`.
        """
        assert states.embeddings is not None
        hidden = labels != IGNORED
        features = self.norm(F.gelu(self.dense(states.tokens[hidden])))
        logits = F.linear(features, states.embeddings, self.bias)
        return logits, F.cross_entropy(logits.float(), labels[hidden], reduction="sum")

    def load_published(self, folder: Path) -> bool:
        """Take the head that an encoder was published with (RoBERTa, XLM-R, BERT); False when there is none."""
        bert_norm = "cls.predictions.transform.LayerNorm"  # with gamma and beta in the first models
        names = {
            "dense.weight": ("lm_head.dense.weight", "cls.predictions.transform.dense.weight"),
            "dense.bias": ("lm_head.dense.bias", "cls.predictions.transform.dense.bias"),
            "norm.weight": ("lm_head.layer_norm.weight", *(f"{bert_norm}.{end}" for end in ("weight", "gamma"))),
            "norm.bias": ("lm_head.layer_norm.bias", *(f"{bert_norm}.{end}" for end in ("bias", "beta"))),
            "bias": ("lm_head.bias", "cls.predictions.bias"),
        }
        found: dict[str, Tensor] = {}
        for file in sorted(folder.glob("model*.safetensors")):
            with safe_open(file, framework="pt") as tensors:
                there = set(tensors.keys())
                found |= {k: tensors.get_tensor(n) for k, ns in names.items() for n in ns if n in there}
        if len(found) < len(names):
            return False
        self.bias = nn.Parameter(found.pop("bias").float())
        self.load_state_dict({**found, "bias": self.bias})
        return True


class ContrastiveHead(nn.Module):
    """Symmetric cross-entropy over the cosines of a batch, negatives being the other examples' texts.

    The temperature is fixed: the encoder's own, or 0.05 (sentence-transformers' scale of 20).
    """

    def __init__(self, task: Task, dim: int, dropout: float) -> None:
        super().__init__()
        self.temperature = 0.05

    def vectors(self, pooled: Tensor, images: Tensor | None) -> dict[str, Tensor]:
        """Return what the loss is computed from: vectors of unit length (rows, dim)."""
        return {"texts": F.normalize(pooled, dim=-1)}

    def loss(self, *, texts: Tensor, parts: Tensor, owners: Tensor | None = None) -> Tensor:
        """Return the mean loss of a batch.

        texts (rows, dim); parts (rows,): 0 anchor, 1 positive, 2 hard negative; the n-th positive is the n-th
        anchor's. Anchors are classified against all positives and hard negatives, positives against all anchors.
        owners (rows,): equal where two rows are the same text; a text is no negative of a pair that it is part of.
        """
        anchors, positives, negatives = (texts[parts == part] for part in (0, 1, 2))
        gold = torch.arange(len(anchors), device=texts.device)
        forward = anchors @ torch.cat([positives, negatives]).T / self.temperature
        backward = positives @ anchors.T / self.temperature
        if owners is not None:
            first, second = owners[parts == 0], owners[parts == 1]
            same = (first[:, None] == first) | (second[:, None] == second) | (first[:, None] == second)
            same &= ~torch.eye(len(first), dtype=torch.bool, device=texts.device)
            forward = torch.cat([forward[:, : len(first)].masked_fill(same, -torch.inf), forward[:, len(first) :]], 1)
            backward = backward.masked_fill(same.T, -torch.inf)
        return (F.cross_entropy(forward.float(), gold) + F.cross_entropy(backward.float(), gold)) / 2


class ImageTextHead(nn.Module):
    """Two linear projections into one space, and a learnt scale: CLIP's loss, or SigLIP's.

    CLIP (Radford et al. 2021): symmetric cross-entropy over the batch, scale initially 1/0.07. SigLIP (Zhai et al.
    2023): every pair by itself a yes or no, scale initially 10, bias -10.
    """

    def __init__(self, task: Task, dim: int, dropout: float, *, image_dim: int = 0, loss: str = "clip") -> None:
        super().__init__()
        self.kind = loss
        self.text = linear(dim, dim, dim**-0.5)
        self.image = linear(image_dim or dim, dim, (image_dim or dim) ** -0.5)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0 if loss == "siglip" else 1 / 0.07)))
        self.offset = nn.Parameter(torch.tensor(-10.0), requires_grad=loss == "siglip")

    def vectors(self, pooled: Tensor, images: Tensor | None) -> dict[str, Tensor]:
        """Return what the loss is computed from.

        These are texts and images (rows, dim) of unit length in one space, and the scale.
        """
        found = {"texts": F.normalize(self.text(pooled), dim=-1)}
        if images is not None:
            found["images"] = self.see(images)
        # times 1: data parallelism overlooks the gradient of a parameter that is given as it is
        return {**found, "log_scale": self.log_scale * 1, "offset": self.offset * 1}

    def see(self, images: Tensor) -> Tensor:
        """Put image vectors (rows, image dim) into the shared space: (rows, dim) of unit length."""
        return F.normalize(self.image(images), dim=-1)

    def loss(self, *, texts: Tensor, images: Tensor, log_scale: Tensor, offset: Tensor, owners: Tensor) -> Tensor:
        """Return the mean loss of a batch.

        `owners` (rows,) is which image it is: the same image twice is no negative.
        """
        same = owners[:, None] == owners[None, :]
        logits = texts @ images.T * log_scale.exp().clamp(max=100.0)  # (rows, rows)
        if self.kind == "siglip":
            signs = torch.where(same, 1.0, -1.0)
            return -F.logsigmoid(signs * (logits + offset).float()).sum() / len(texts)
        other = same & ~torch.eye(len(texts), dtype=torch.bool, device=same.device)
        logits = logits.float().masked_fill(other, -torch.inf)
        gold = torch.arange(len(texts), device=texts.device)
        return (F.cross_entropy(logits, gold) + F.cross_entropy(logits.T, gold)) / 2


HEADS: dict[str, type[nn.Module]] = {
    "pair": ClassHead,
    "single": ClassHead,
    "regression": RegressionHead,
    "choice": ChoiceHead,
    "qa": SpanHead,
    "tagging": TaggingHead,
    "mlm": MlmHead,
    "contrastive": ContrastiveHead,
    "image-text": ImageTextHead,
}
"""The head of each format of task."""
VECTOR_FORMATS = ("contrastive", "image-text")
"""Formats whose loss compares the vectors of a whole batch with each other."""


class MultiTaskModel(nn.Module):
    """One encoder that all tasks share, and a head for each."""

    def __init__(
        self,
        encoder: nn.Module,
        spec: EncoderSpec,
        tasks: Iterable[Task],
        *,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        layer: int | None = None,
    ) -> None:
        super().__init__()
        config: Any = encoder.config
        dropout = float(getattr(config, "hidden_dropout_prob", 0.1))
        self.encoder = encoder
        self.spec = replace(spec, normalize=False)
        self.layer = layer
        """The layer whose pooled states are the retrieval vector; None: the last."""
        rows, of = list(tasks), dict(options or {})
        self.formats = {t.name: t.format for t in rows}
        self.heads = nn.ModuleDict()
        for task in rows:
            if hasattr(self.heads, task.name) or "." in task.name:  # `items`, a word of PyTorch's own
                raise XtError(f"No task can be called {task.name!r}.", "Give its file another name.")
            self.heads[task.name] = HEADS[task.format](task, int(config.hidden_size), dropout, **of.get(task.name, {}))
            if task.format == "mlm":
                self.heads[task.name].norm.eps = float(getattr(config, "layer_norm_eps", 1e-5))

    def freeze_embeddings(self) -> None:
        """Keep the word embeddings out of the training."""
        embeddings: Any = self.encoder.get_input_embeddings()
        embeddings.weight.requires_grad_(False)

    def states(
        self, task: str, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> States:
        """Run the encoder; vector tasks read the layer that retrieval reads, the others the last."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        form = self.formats[task]
        inner = self.layer is not None and form in VECTOR_FORMATS
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=inner, **types)
        hidden = output.hidden_states[self.layer] if inner else output.last_hidden_state
        table: Any = self.encoder.get_input_embeddings() if form == "mlm" else None
        pooled = pool(hidden, attention_mask, self.spec)
        return States(hidden, pooled, attention_mask, None if table is None else table.weight)

    def forward(
        self,
        task: str,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        images: Tensor | None = None,
        **targets: Tensor,
    ) -> dict[str, Any]:
        """Run one batch of one task: `logits`, and `loss` (summed over its targets; None without labels).

        For the formats of `VECTOR_FORMATS`: what the head's `loss` takes. Targets: see the task's head.
        """
        states = self.states(task, input_ids, attention_mask, token_type_ids)
        head: Any = self.heads[task]
        if self.formats[task] in VECTOR_FORMATS:
            found: dict[str, Any] = head.vectors(states.pooled, images)
            return found
        logits, loss = head(states, **targets)
        return {"loss": loss, "logits": logits}


def save_heads(file: Path, model: MultiTaskModel, tasks: Iterable[Task]) -> None:
    """Write all heads into one file, with the rows of their tasks."""
    weights = {name: weight.detach().clone().contiguous() for name, weight in model.heads.state_dict().items()}
    losses = {name: head.kind for name, head in model.heads.items() if isinstance(head, ImageTextHead)}
    facts = {"tasks": [task.to_json() for task in tasks], "image_losses": losses}
    # One entry: safetensors writes several in an order left to chance, and the same training gives the same bytes.
    save_file(weights, file, metadata={"heads": json.dumps(facts, ensure_ascii=False)})


def _facts(file: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """Read what the file of heads says of them; XtError where it is damaged."""
    try:
        return dict(json.loads((metadata or {})["heads"]))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise XtError(f"{file} does not say which heads it holds ({type(error).__name__}).", "Copy it again.") from None


def load_heads(folder: Path, encoder: nn.Module, spec: EncoderSpec) -> tuple[MultiTaskModel, dict[str, Task]]:
    """Put the heads of a checkpoint folder on its encoder: the model, and the rows of the tasks by name.

    Layers that lie above the one that retrieval reads are put back on the encoder: the heads read the last.
    Raises XtError when the folder has no heads.
    """
    file = folder / HEADS_FILE
    if not file.is_file():
        raise XtError(f"{folder} has no trained heads ({HEADS_FILE}).", "Train it on the task: xt train --target TASK.")
    with safe_open(file, framework="pt") as tensors:
        facts = _facts(file, tensors.metadata())
    rows = [Task.from_json(row) for row in facts["tasks"]]
    losses = facts["image_losses"]
    layer = None
    if (upper := folder / UPPER).is_file():
        layer = len(stack(encoder))
        restore(encoder, upper)
    weights = load_file(file)
    options: dict[str, dict[str, Any]] = {}
    for task in rows:
        if task.format == "image-text":
            width = weights[f"{task.name}.image.weight"].shape[1]
            options[task.name] = {"image_dim": width, "loss": losses.get(task.name, "clip")}
    model = MultiTaskModel(encoder, spec, rows, options=options, layer=layer)
    for task in rows:
        if (bias := weights.get(f"{task.name}.bias")) is not None and task.format == "mlm":
            head: Any = model.heads[task.name]
            head.bias = nn.Parameter(bias)
    model.heads.load_state_dict(weights)
    return model.eval(), {task.name: task for task in rows}
