"""Many texts in one blob: a count, the lengths, the bytes. Quicker to write and to read than a tensor of strings.

Layout, little-endian: uint32 n, then n times uint32 the length of a text in bytes, then the UTF-8 of all texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from xt.core.errors import XtError


def pack(texts: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Write texts into one blob: (bytes,) of uint8.

    >>> pack(["a", "bc"]).tolist()
    [2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 97, 98, 99]
    """
    raw = [text.encode("utf-8") for text in texts]
    head = np.array([len(raw), *map(len, raw)], "<u4")
    return np.frombuffer(head.tobytes() + b"".join(raw), np.uint8)


def unpack(blob: npt.NDArray[np.uint8], *, name: str = "packed", max_texts: int = 2**32 - 1) -> list[str]:
    """Read what `pack` wrote. XtError names what is wrong with it: the count, the length, or which text is no UTF-8.

    >>> unpack(pack(["a", "bc"]))
    ['a', 'bc']
    """
    raw = blob.tobytes()
    if len(raw) < 4:
        raise XtError(f"{name} has {len(raw)} bytes; it starts with a count of 4.", _LAYOUT)
    count = int(np.frombuffer(raw, "<u4", 1)[0])
    if not 1 <= count <= max_texts:
        raise XtError(f"{name} has {count} texts; a request takes 1 to {max_texts}.", "Send several requests.")
    start = 4 + 4 * count
    if len(raw) < start:
        raise XtError(f"{name} has {len(raw)} bytes; the lengths of {count} texts alone need {start}.", _LAYOUT)
    lengths = np.frombuffer(raw, "<u4", count, 4).astype(np.int64)
    ends = (np.cumsum(lengths) + start).tolist()
    if ends[-1] != len(raw):
        raise XtError(f"{name} has {len(raw)} bytes; its {count} lengths add up to {ends[-1]}.", _LAYOUT)
    texts = []
    for index, end in enumerate(ends):
        try:
            texts.append(raw[start:end].decode("utf-8"))
        except UnicodeDecodeError as error:
            where = f"{name} {index} is not valid UTF-8: {error.reason} at byte {error.start}."
            raise XtError(where) from None
        start = end
    return texts


_LAYOUT = "Layout: uint32 count, one uint32 length a text, then the UTF-8 of all texts; little-endian."
