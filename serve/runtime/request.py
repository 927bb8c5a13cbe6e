"""What is read of a request before its texts are: their size, its caller, its deadline; and the texts themselves."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from xt.core.errors import XtError

BYTES_A_TOKEN = 8
"""By which the tokens of a text are guessed before it is tokenised: few texts have more bytes in one."""
CALLER = re.compile(r"[!-~]{1,64}")
"""What a caller may be called: the parameter `caller` of a request."""


def decode(raw: Sequence[bytes], name: str, max_texts: int) -> list[str]:
    r"""Decode UTF-8. XtError names the field, the index and the limit.

    >>> decode([b"caf\xc3\xa9"], "text", 8)
    ['café']
    """
    check_count(len(raw), name, max_texts)
    try:
        return [value.decode("utf-8") for value in raw]
    except UnicodeDecodeError:
        pass
    for index, value in enumerate(raw):
        try:
            value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise XtError(f"{name} {index} is not valid UTF-8: {error.reason} at byte {error.start}.") from None
    raise AssertionError("unreachable")


def check_count(count: int, name: str, max_texts: int) -> None:
    """Raise XtError when a request brings no texts, or more than the model takes."""
    if not 1 <= count <= max_texts:
        raise XtError(f"{name} has {count} texts; a request takes 1 to {max_texts}.", "Send several requests.")


def rows_of(tensor: Any) -> int:
    """Return how many texts a tensor holds."""
    shape = tensor.shape()
    return int(shape[0]) if len(shape) else 1


def bytes_of(tensor: Any) -> int:
    """Return the bytes of a tensor's texts; `BYTES_A_TOKEN` of each token id."""
    values = tensor.as_numpy()
    if values.dtype == np.object_:
        return sum(map(len, values.ravel()))
    return int(values.size) * (1 if values.dtype == np.uint8 else BYTES_A_TOKEN)


def is_caller(value: object) -> bool:
    """Return whether a value can be a caller's name."""
    return isinstance(value, str) and CALLER.fullmatch(value) is not None


def caller_of(request: Any) -> str | None:
    """Return the name of a request's caller; None for none, and for one that `ServedModel.parameters` will refuse."""
    text = request.parameters()
    if not text or '"caller"' not in text:
        return None
    caller = json.loads(text).get("caller")
    return caller if is_caller(caller) else None


def deadline_of(request: Any) -> float | None:
    """Return the moment (time.monotonic) by which a request wants its answer, None when it can wait."""
    micros = request.timeout()
    return time.monotonic() + micros / 1e6 if micros else None
