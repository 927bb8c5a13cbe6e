"""Vectors of texts encoded before, on disk, by encoder and text: a second evaluation takes seconds.

Below `<cache>/vectors/<encoder>/` every call that had new texts left one *shard*, a folder of arrays:

    keys.npy       (n, 16) uint8   SHA-256 of prefix, truncation and text, its first 16 bytes
    vectors.npy    (n, dim) float32
    tokens.npy     (n,) int32
    truncated.npy  (n,) bool

A shard is written under another name and renamed, so that a kill leaves none or the whole; what cannot be read is
thrown away. The oldest shards go when all of them together outgrow `MAX_BYTES`.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.core.characters import compose
from xt.core.encoder.spec import EncoderSpec
from xt.core.encoder.text import Encoded, Encoder, as_texts
from xt.core.errors import XtError
from xt.core.files.cache_folder import HINT, cache_folder
from xt.core.files.replacing import remove
from xt.core.reporter import Say
from xt.serve.encoders import OpenedEncoder

SCHEMA = 2
"""Raised when the same weights give other vectors for a text than before, as when texts are composed (NFC) first."""
KEY_BYTES = 16
MAX_BYTES = 4 * 2**30
"""Of all shards of all encoders."""
FILES = ("keys", "vectors", "tokens", "truncated")


def with_cache(opened: OpenedEncoder, device: str, *, say: Say) -> OpenedEncoder:
    """Return an opened encoder with the user's cache of vectors before it, where its weights are known by their hash.

    Nothing is cached where there is no place for it; `say` reports it.
    """
    encoder, entry, parent = opened.encoder, opened.entry, opened.parent
    if not parent.get("hash"):
        return opened
    spec = {k: v for k, v in encoder.spec.to_json().items() if k not in ("provenance", "licence", "temperature")}
    how = json.dumps(spec, sort_keys=True)  # the same weights may be pooled or cut in another way
    facts = [str(SCHEMA), parent["hash"], str(entry.precision), str(entry.engine), str(entry.dim), device, how]
    try:
        return replace(opened, encoder=CachedEncoder(encoder, " ".join(facts), warn=say))
    except XtError as error:
        say(f"vectors are not kept for a second evaluation: {error}")
        return opened


def key_of(text: str, prefix: str | None, truncate: bool) -> bytes:
    """Name one text, composed, as one call encodes it: 16 bytes."""
    head = f"{prefix if prefix is not None else ''}\0{prefix is None}\0{truncate}\0"
    return hashlib.sha256((head + text).encode("utf-8", "surrogatepass")).digest()[:KEY_BYTES]


class CachedEncoder:
    """An encoder that looks a text up before it encodes it."""

    def __init__(
        self,
        encoder: Encoder,
        identity: str,
        *,
        root: Path | None = None,
        max_bytes: int = MAX_BYTES,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Open the shards of an encoder.

        Args:
            encoder: encodes what is new.
            identity: names what the vectors depend on: the weights' hash, precision, engine and device.
            root: the folder of all encoders' vectors (None: `vectors` in the user's cache).
            max_bytes: of all shards; the oldest go first.
            warn: called when vectors cannot be kept, as on a full disk; they are then used all the same.
        """
        self.encoder = encoder
        self.root = root or cache_folder() / "vectors"
        self.folder = self.root / hashlib.sha256(identity.encode()).hexdigest()[:32]
        self.max_bytes = max_bytes
        self.warn = warn
        self.hits = self.misses = 0
        self._warned = False
        self._shards: list[dict[str, npt.NDArray[Any]]] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        try:
            shards = sorted(self.folder.glob("shard-*")) if self.folder.is_dir() else []
        except OSError as error:
            self._give_up(error)
            shards = []
        for shard in shards:
            self._open(shard)

    @property
    def spec(self) -> EncoderSpec:
        """What the encoder is."""
        known: Any = self.encoder  # every encoder that xt opens has it
        spec: EncoderSpec = known.spec
        return spec

    def _give_up(self, error: OSError) -> None:
        """Report, once, that vectors are not kept."""
        if not self._warned:
            self.warn(f"vectors are not kept for a second evaluation: {error}. {HINT}")
        self._warned = True

    def _open(self, shard: Path) -> None:
        try:
            arrays = {name: np.load(shard / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in FILES}
            n = len(arrays["keys"])
            whole = arrays["keys"].shape == (n, KEY_BYTES) and all(len(a) == n for a in arrays.values())
            if not whole or not np.isfinite(arrays["vectors"]).all():
                raise ValueError("not a whole shard")
            os.utime(shard)
        except (OSError, ValueError, EOFError):
            _discard(shard)
            return
        self._add(arrays)

    def _add(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        number = len(self._shards)
        self._shards.append(arrays)
        data = np.ascontiguousarray(arrays["keys"]).tobytes()
        for row in range(len(arrays["keys"])):
            self._places[data[row * KEY_BYTES : (row + 1) * KEY_BYTES]] = (number, row)

    def encode(self, texts: Sequence[str], *, prefix: str | None = None, truncate: bool = False) -> Encoded:
        """Encode `texts`, composed (NFC); those seen before come from the disk, bit for bit as they were."""
        texts = [compose(text) for text in as_texts(texts)]
        keys = [key_of(text, prefix, truncate) for text in texts]
        new: dict[bytes, str] = {}
        for key, text in zip(keys, texts, strict=True):
            if key not in self._places:
                new.setdefault(key, text)
        self.misses += len(new)
        self.hits += len(texts) - len(new)
        if new:
            found = self.encoder.encode(list(new.values()), prefix=prefix, truncate=truncate)
            arrays: dict[str, npt.NDArray[Any]] = {
                "keys": np.frombuffer(b"".join(new), np.uint8).reshape(-1, KEY_BYTES),
                "vectors": np.asarray(found.vectors, np.float32),
                "tokens": np.asarray(found.tokens, np.int32),
                "truncated": np.asarray(found.truncated, bool),
            }
            self._add(arrays)
            self._keep(arrays)
        by_shard: dict[int, list[tuple[int, int]]] = {}
        for i, key in enumerate(keys):
            number, row = self._places[key]
            by_shard.setdefault(number, []).append((i, row))
        dim = self._shards[-1]["vectors"].shape[1] if self._shards else 0
        vectors = np.empty((len(texts), dim), np.float32)
        tokens = np.empty(len(texts), np.int32)
        truncated = np.empty(len(texts), bool)
        for number, pairs in by_shard.items():
            here, there = (np.array(side) for side in zip(*pairs, strict=True))
            vectors[here] = self._shards[number]["vectors"][there]
            tokens[here] = self._shards[number]["tokens"][there]
            truncated[here] = self._shards[number]["truncated"][there]
        return Encoded(vectors, tokens, truncated)

    def _keep(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        name = f"{len(self._shards):05d}-{uuid.uuid4().hex[:12]}"
        temporary = self.folder / f".new-{name}"
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)  # vectors give texts away: for this user alone
            temporary.mkdir(parents=True)
            for file, array in arrays.items():
                np.save(temporary / f"{file}.npy", array, allow_pickle=False)
            temporary.rename(self.folder / f"shard-{name}")
            prune(self.root, self.max_bytes)
        except OSError as error:
            _discard(temporary)
            self._give_up(error)


def _discard(shard: Path) -> None:
    """Remove a shard, its own files alone."""
    remove(shard, {f"{name}.npy" for name in FILES}.__contains__)


def prune(root: Path, max_bytes: int) -> None:
    """Remove the shards used longest ago until all together have at most `max_bytes`."""
    shards = []
    for shard in root.glob("*/shard-*"):
        try:
            size = sum(file.stat().st_size for file in shard.iterdir())
            shards.append((shard.stat().st_mtime, size, shard))
        except OSError:  # another evaluation removed it
            continue
    total = sum(size for _, size, _ in shards)
    for _, size, shard in sorted(shards):
        if total <= max_bytes:
            return
        _discard(shard)
        total -= size
