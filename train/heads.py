"""The small networks on top of the shared encoder: one a task, of three forms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xt.core.spec import EncoderSpec
from xt.core.tasks import Task
from xt.core.torch_engine import pool


@dataclass(frozen=True)
class States:
    """What the encoder gives for one batch."""

    tokens: Tensor
    """(rows, tokens, dim)"""
    pooled: Tensor
    """(rows, dim), pooled as the encoder's vectors are, but of any length: not normalised."""
    mask: Tensor
    """(rows, tokens) of 0/1."""


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


class PairHead(nn.Module):
    """Classifies the pooled vector of two texts that were read together."""

    def __init__(self, task: Task, dim: int, dropout: float) -> None:
        super().__init__()
        self.score = Scorer(dim, len(task.labels), dropout)

    def forward(self, states: States, *, labels: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits (batch, labels); the mean cross-entropy when `labels` (batch,) are given."""
        logits = self.score(states.pooled)
        return logits, None if labels is None else F.cross_entropy(logits, labels)


class ChoiceHead(nn.Module):
    """Gives each prompt with one of its choices a score; softmax over the choices of a prompt."""

    def __init__(self, task: Task, dim: int, dropout: float) -> None:
        super().__init__()
        self.score = Scorer(dim, 1, dropout)

    def forward(self, states: States, *, choices: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits (batch, choices), -inf where a prompt has fewer; the loss when `labels` (batch,) are given.

        choices (batch, choices): the row of `states` of each choice, -1 where there is none.
        """
        scores = self.score(states.pooled)[:, 0]  # (rows,)
        logits = scores[choices.clamp(min=0)].masked_fill(choices < 0, -torch.inf)  # (batch, choices)
        return logits, None if labels is None else F.cross_entropy(logits, labels)


class SpanHead(nn.Module):
    """Scores each token as the first and as the last of the answer."""

    def __init__(self, task: Task, dim: int, dropout: float) -> None:
        super().__init__()
        self.out = linear(dim, 2)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, states: States, *, starts: Tensor | None = None, ends: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (rows, 2, tokens), -inf at padding; the mean loss of both ends if `starts`, `ends` (rows,) are given.

        Both are 0, the first special token, for a window without the answer (Devlin et al. 2019, section 4.3).
        """
        logits = self.out(self.dropout(states.tokens)).transpose(1, 2)  # (rows, 2, tokens)
        logits = logits.masked_fill(states.mask[:, None] == 0, -torch.inf)
        if starts is None or ends is None:
            return logits, None
        return logits, (F.cross_entropy(logits[:, 0], starts) + F.cross_entropy(logits[:, 1], ends)) / 2


HEADS: dict[str, type[nn.Module]] = {"pair": PairHead, "choice": ChoiceHead, "qa": SpanHead}
"""The head of each format of task."""


class MultiTaskModel(nn.Module):
    """One encoder that all tasks share, and a head for each."""

    def __init__(self, encoder: nn.Module, spec: EncoderSpec, tasks: Iterable[Task]) -> None:
        super().__init__()
        config: Any = encoder.config
        dropout = float(getattr(config, "hidden_dropout_prob", 0.1))
        self.encoder = encoder
        self.spec = replace(spec, normalize=False)
        self.heads = nn.ModuleDict({t.name: HEADS[t.format](t, int(config.hidden_size), dropout) for t in tasks})

    def freeze_embeddings(self) -> None:
        """Keep the word embeddings out of the training."""
        embeddings: Any = self.encoder.get_input_embeddings()
        embeddings.weight.requires_grad_(False)

    def forward(
        self,
        task: str,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        **targets: Tensor,
    ) -> dict[str, Tensor | None]:
        """Run one batch of one task: `logits`, and `loss` (None without labels). Targets: see the task's head."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
        states = States(hidden, pool(hidden, attention_mask, self.spec), attention_mask)
        logits, loss = self.heads[task](states, **targets)
        return {"loss": loss, "logits": logits}
