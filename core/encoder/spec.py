"""What one must know of an encoder to use it: pooling, normalisation, prefixes, maximum length. It travels with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar, cast

from xt.core.errors import XtError, unknown

POOLINGS = ("mean", "cls")
Rows = TypeVar("Rows", bound=Any)
"""An array or tensor of (rows, numbers)."""


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
    """The role used when none is requested; empty: no prefix."""
    max_length: int = 512
    """Longest input in tokens, special tokens and prefix included."""
    temperature: float | None = None
    """The softmax temperature the encoder was trained with, where it is published."""
    licence: str = ""
    provenance: str = ""
    """Where the weights come from, in words."""
    dims: int | None = None
    """Keep the first `dims` dimensions of a pooled vector before it is normalised; None: all of them."""

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise unknown("pooling", self.pooling, POOLINGS)
        if self.default_prefix and self.default_prefix not in self.prefixes:
            raise unknown("prefix", self.default_prefix, self.prefixes)
        if self.dims is not None and not 1 <= self.dims <= self.dim:
            raise XtError(f"A vector of {self.dim} numbers cannot be cut to {self.dims}.", f"Choose 1 to {self.dim}.")

    def first(self, dims: int) -> EncoderSpec:
        """Return the spec of the same encoder whose vectors keep just their first `dims` dimensions (Matryoshka).

        Raises XtError unless `dims` is between 1 and the vector's length.
        """
        if not 1 <= dims <= self.dim:
            raise XtError(
                f"There are no first {dims} dimensions of a vector: {self.name} gives {self.dim}.",
                f"Choose from 1 to {self.dim}.",
            )
        return self if dims == self.dim else replace(self, dim=dims, dims=dims)

    def kept(self, vectors: Rows) -> Rows:
        """Cut pooled vectors (rows, numbers) of a network to the numbers that are kept; before they are normalised.

        >>> import numpy as np
        >>> EncoderSpec("e", dim=3).first(2).kept(np.array([[3.0, 4.0, 12.0]]))
        array([[3., 4.]])
        """
        return vectors if self.dims is None else cast("Rows", vectors[:, : self.dims])

    def prefix(self, role: str | None) -> str:
        """Return the text to put before an input in `role` (None: the default role; "none": nothing)."""
        role = self.default_prefix if role is None else role
        if role in ("", "none"):
            return ""
        if role not in self.prefixes:
            raise unknown("prefix", role, ["none", *self.prefixes])
        return self.prefixes[role]

    def to_json(self) -> dict[str, Any]:
        """Return it as a manifest keeps it; `dims` only where vectors are cut, so that others read as before."""
        value = {**asdict(self), "prefixes": dict(self.prefixes)}
        if self.dims is None:
            del value["dims"]
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> EncoderSpec:
        """Read what `to_json` wrote."""
        known = {f.name for f in fields(cls)}
        extra = set(value) - known
        if extra:
            raise XtError(f"The encoder facts hold unknown fields: {', '.join(sorted(extra))}.", "Update xt.")
        return cls(**value)
