"""What of an encoder is made smaller."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Shrinking:
    """What is made smaller before an export; nothing by default."""

    layers: int | None = None
    """Keep the lowest `layers` layers."""
    languages: Sequence[str] | None = None
    """Keep only the vocabulary that these languages use in `corpus`."""
    corpus: Iterable[tuple[str, str]] | None = None
    """(language, text); needed with `languages`."""
    dims: int | None = None
    """Keep the first `dims` dimensions, scaled to unit length again."""

    def __bool__(self) -> bool:
        """Whether anything is."""
        return self.layers is not None or bool(self.languages) or self.dims is not None
