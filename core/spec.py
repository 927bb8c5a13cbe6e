"""What one must know of an encoder to use it: pooling, normalisation, prefixes, maximum length. It travels with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from xt.core.errors import XtError, unknown

POOLINGS = ("mean", "cls")


@dataclass(frozen=True)
class EncoderSpec:
    """How text becomes a vector around the network itself."""

    name: str
    """What reports call it."""
    dim: int
    """Length of a vector."""
    pooling: str = "mean"
    """`mean` over the tokens that are not padding, special tokens included, or `cls`: the first token."""
    normalize: bool = True
    """Whether vectors have unit length."""
    prefixes: Mapping[str, str] = field(default_factory=dict)
    """Text put before the input, by role (`query`, `passage`)."""
    default_prefix: str = ""
    """The role used when none is asked for; empty: no prefix."""
    max_length: int = 512
    """Longest input in tokens, special tokens and prefix included."""
    temperature: float | None = None
    """The softmax temperature the encoder was trained with, where it is published."""
    licence: str = ""
    provenance: str = ""
    """Where the weights come from, in words."""

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise unknown("pooling", self.pooling, POOLINGS)
        if self.default_prefix and self.default_prefix not in self.prefixes:
            raise unknown("prefix", self.default_prefix, self.prefixes)

    def prefix(self, role: str | None) -> str:
        """Give the text to put before an input in `role` (None: the default role; "none": nothing)."""
        role = self.default_prefix if role is None else role
        if role in ("", "none"):
            return ""
        if role not in self.prefixes:
            raise unknown("prefix", role, ["none", *self.prefixes])
        return self.prefixes[role]

    def to_json(self) -> dict[str, Any]:
        """As a manifest keeps it."""
        return {**asdict(self), "prefixes": dict(self.prefixes)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> EncoderSpec:
        """Read what `to_json` wrote."""
        known = {f.name for f in fields(cls)}
        extra = set(value) - known
        if extra:
            raise XtError(f"The encoder facts hold unknown fields: {', '.join(sorted(extra))}.", "Update xt.")
        return cls(**value)
