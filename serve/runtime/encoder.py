"""The encoder as Triton's Python backend runs it: ONNX Runtime in this process, one queue for all requests.

Inputs, one of: text (n, 1); ids (n, tokens), each row of the model's own tokenizer, its special tokens and the text's
prefix included, filled up with -1; packed (1, bytes), see `xt.serve.client.packed`.
Request parameters: `prefix` (a role of the encoder, or "none"), `truncate` (bool), `dimensions` (int), `cache` (bool;
false: no text is answered from the vector cache, none is kept there; for measuring).
Outputs, those that the request names: embedding (n, dim), embedding_fp16 (n, dim), embedding_int8 (n, dim) with scale
(n, 1), tokens (n, 1), truncated (n, 1). A request that names none gets embedding, tokens and truncated.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.core.characters import compose
from xt.core.encoder.onnx_engine import check_golden, load_model
from xt.core.encoder.text import TextEncoder, Vectors
from xt.core.errors import XtError
from xt.serve.client.packed import unpack
from xt.serve.runtime.cache import Entry, VectorCache
from xt.serve.runtime.request import check_count
from xt.serve.runtime.served import ServedModel

Ids = npt.NDArray[np.int64]
Tokenised = tuple[list[Ids], npt.NDArray[np.bool_]]
"""Token ids of each text, and whether it was cut."""
INPUTS = ("text", "ids", "packed")
OUTPUTS = ("embedding", "tokens", "truncated", "embedding_fp16", "embedding_int8", "scale")
USUAL = OUTPUTS[:3]
"""Given where none is named. Triton then names all; the JSON of its HTTP endpoint has no float16, so all would fail."""
OTHER_TOKENIZER = (
    "Send texts (LangChain's OpenAIEmbeddings does with check_embedding_ctx_length=False), or ids that the model's own "
    "tokenizer.json gives of a text behind the prefix that it expects, special tokens included."
)
"""What to do about token ids that are none of the model's."""


@dataclass
class Plan:
    """How a request's answer is put together."""

    keys: Sequence[Hashable]
    """What the cache calls each text."""
    entries: list[Entry | None]
    """What the cache had."""
    places: dict[Hashable, int]
    """Of the texts that were not there: key -> row."""
    lengths: list[int]
    """Tokens of each row."""
    cut: list[bool]
    """Whether the row's text was cut."""
    dimensions: int
    cached: bool
    """Whether the cache may answer and keep."""


class ServedEncoder(ServedModel):
    """Loaded once an instance."""

    encoder: TextEncoder
    speed: float
    vocabulary: int
    cache: VectorCache

    def load(self, folder: Path, version_folder: Path, device: str) -> None:
        """Load the model and check its golden vectors; one that fails does not become ready."""
        self.encoder, artifact = load_model(folder, device=device)
        worst = check_golden(self.encoder, folder, artifact)
        self.pb.Logger.log_info(f"{self.name}: golden vectors agree (cosine at least {worst:.6f})")
        self.engine_budget = self.encoder.token_budget
        self.engine_workers = self.encoder.workers
        self.engine_extra_pass = self.encoder.allows_extra_pass
        self.buckets = self.encoder.buckets
        self.speed = self.encoder.warm_up()
        self.pb.Logger.log_info(f"{self.name}: {self.speed:.0f} tokens/s")
        self.vocabulary = self.encoder.tokenizer.vocabulary
        self.cache = VectorCache(self.settings.cache_megabytes * 1_000_000)

    def measured_speed(self) -> float:
        """Return the tokens a second of the warm-up."""
        return self.speed

    def read(self, request: Any) -> tuple[list[Ids], list[int], Plan]:
        """Decode, look up and tokenise the texts of one request, or check its token ids."""
        found = self.parameters(request, {"prefix": str, "truncate": bool, "dimensions": int, "cache": bool})
        dimensions = found.get("dimensions", self.encoder.spec.dim)
        if not 1 <= dimensions <= self.encoder.spec.dim:
            raise XtError(f"The parameter dimensions is {dimensions}, expected 1 to {self.encoder.spec.dim}.")
        given = [name for name in INPUTS if self.pb.get_input_tensor_by_name(request, name) is not None]
        if len(given) != 1:
            raise XtError(
                f"The request has {' and '.join(given) or 'no input'}, expected exactly one of text, ids and packed."
            )
        truncate, cached = found.get("truncate", False), found.get("cache", True)
        if given[0] == "ids":
            if "prefix" in found:
                raise XtError("The parameter prefix goes with texts; ids are taken as they are.")
            return self._read_ids(request, truncate, dimensions, cached)
        prefix = self.encoder.spec.prefix(found.get("prefix"))
        if given[0] == "text":
            texts = self.texts(request)
        else:
            blob = self.pb.get_input_tensor_by_name(request, "packed").as_numpy()
            if blob.shape[0] != 1:
                raise XtError(f"packed has {blob.shape[0]} rows; a request takes one blob of shape (1, bytes).")
            texts = unpack(blob.ravel(), max_texts=self.settings.max_texts)
        texts = [compose(text) for text in texts]  # so that the cache has one entry for both forms

        def tokenise(rows: list[str]) -> Tokenised:
            return self.encoder.tokenizer(rows, prefix=prefix, truncate=truncate)

        return self._plan([(prefix, text, truncate) for text in texts], texts, tokenise, dimensions, cached)

    def _read_ids(
        self, request: Any, truncate: bool, dimensions: int, cached: bool
    ) -> tuple[list[Ids], list[int], Plan]:
        ids = self.pb.get_input_tensor_by_name(request, "ids").as_numpy()
        check_count(len(ids), "ids", self.settings.max_texts)
        filled = ids != -1
        width = ids.shape[1]
        lengths = np.where(filled.any(axis=1), width - filled[:, ::-1].argmax(axis=1), 0) if width else filled.sum(1)
        inside = np.arange(width) < lengths[:, None]
        wrong = inside & ((ids < 0) | (ids >= self.vocabulary))
        longest = self.encoder.spec.max_length
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise XtError(
                f"ids {row} holds {ids[row, column]} at position {column}; expected 0 to {self.vocabulary - 1}, "
                "and -1 only after the last token.",
                OTHER_TOKENIZER,
            )
        if (lengths == 0).any():
            raise XtError(f"ids {int(lengths.argmin())} is empty.", "Remove it.")
        for row, length in enumerate(lengths):
            self._check_frame(ids[row, :length], f"ids {row}")
        cut = lengths > longest
        if cut.any() and not truncate:
            row = int(cut.argmax())
            raise XtError(
                f"ids {row} has {lengths[row]} tokens; the encoder reads at most {longest}.",
                "Split it, or ask for truncation (truncate=true).",
            )
        rows = []
        for row, length in zip(ids, lengths, strict=True):
            own = row[:length].astype(np.int64)
            rows.append(own if length <= longest else np.concatenate([own[: longest - 1], own[-1:]]))
        keys = [(row.astype(np.int32).tobytes(), bool(was_cut)) for row, was_cut in zip(rows, cut, strict=True)]

        def pick(indices: list[int]) -> Tokenised:
            return [rows[i] for i in indices], cut[indices]

        return self._plan(keys, range(len(rows)), pick, dimensions, cached)

    def _check_frame(self, row: npt.NDArray[Any], where: str) -> None:
        """Raise XtError unless a row of token ids stands between the model's own first and last tokens."""
        first, last = self.encoder.tokenizer.first, self.encoder.tokenizer.last
        wanted = " and ".join(
            f"{verb} with {', '.join(map(str, own))}" for verb, own in (("start", first), ("end", last)) if own
        )
        found = row.tolist()
        inner = found[len(first) : len(found) - len(last)]
        pad = self.encoder.pad_id
        if found[: len(first)] == first and (not last or found[-len(last) :] == last):
            if not inner:
                raise XtError(f"{where} holds no token of a text, only those around one.", "Remove it.")
            if pad not in (found[-1], found[0]) or pad in (*first, *last):
                return
        if pad in (found[0], found[-1]) and pad not in (*first, *last):
            raise XtError(
                f"{where} is filled up with {pad}, the padding token; expected -1 after the last token of a text.",
                "Turn the padding of your tokenizer off.",
            )
        raise XtError(
            f"{where} starts with {found[0]} and ends with {found[-1]}, but the ids of this tokenizer {wanted}: "
            "these were made by another tokenizer, or without special tokens.",
            OTHER_TOKENIZER,
        )

    def _plan(
        self,
        keys: Sequence[Hashable],
        items: Sequence[Any],
        tokenise: Callable[[list[Any]], Tokenised],
        dimensions: int,
        cached: bool,
    ) -> tuple[list[Ids], list[int], Plan]:
        """Split texts into those that the cache has and those to be run, each different one once."""
        entries: list[Entry | None] = self.cache.get(keys) if cached else [None] * len(keys)
        missing = [i for i, entry in enumerate(entries) if entry is None]
        places: dict[Hashable, int] = {}
        firsts: list[int] = []
        for i in missing:
            if keys[i] not in places:
                places[keys[i]] = len(firsts)
                firsts.append(i)
        rows: list[Ids] = []
        cut = np.zeros(0, bool)
        if firsts:
            try:
                rows, cut = tokenise([items[i] for i in firsts])
            except XtError:
                if len(firsts) < len(keys):
                    tokenise(list(items))  # raises again, counting as the request does
                raise
        if self.settings.cache_megabytes and cached:
            self.meters.add("xt_cache_hits_total", len(keys) - len(missing))
            self.meters.add("xt_cache_misses_total", len(missing))
        lengths = [len(row) for row in rows]
        return rows, lengths, Plan(keys, entries, places, lengths, [bool(c) for c in cut], dimensions, cached)

    def run(self, rows: list[Ids]) -> Vectors:
        """Run one micro-batch."""
        return self.encoder.forward(rows, concurrent=self.is_concurrent())

    def answer(self, request: Any, context: Plan, results: list[Any]) -> list[Any]:
        """Put the rows in the request's order and give the outputs that it requested."""
        n = len(context.keys)
        vectors = np.empty((n, self.encoder.spec.dim), np.float32)
        tokens = np.empty((n, 1), np.int32)
        cut = np.empty((n, 1), bool)
        for i, (key, entry) in enumerate(zip(context.keys, context.entries, strict=True)):
            if entry is None:
                place = context.places[key]
                vectors[i], tokens[i], cut[i] = results[place], context.lengths[place], context.cut[place]
            else:
                vectors[i], tokens[i], cut[i] = entry.vector, entry.tokens, entry.truncated
        if self.settings.cache_megabytes and context.cached and results:
            self.cache.put(
                (key, results[place], context.lengths[place], context.cut[place])
                for key, place in context.places.items()
            )
        self.meters.add("xt_texts_total", n)
        if cut.any():
            self.meters.add("xt_truncated_total", int(cut.sum()))
        if context.dimensions < vectors.shape[1]:
            vectors = np.ascontiguousarray(vectors[:, : context.dimensions])
            if self.encoder.spec.normalize:
                vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        wanted = set(request.requested_output_names())
        if wanted == set(OUTPUTS):
            wanted = set(USUAL)
        outputs = {"tokens": lambda: tokens, "truncated": lambda: cut, "embedding": lambda: vectors}
        outputs["embedding_fp16"] = lambda: vectors.astype(np.float16)
        if wanted & {"embedding_int8", "scale"}:
            scale = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-12) / np.float32(127)
            outputs["scale"] = lambda: scale
            outputs["embedding_int8"] = lambda: np.rint(vectors / scale).astype(np.int8)
        return [self.pb.Tensor(name, give()) for name, give in outputs.items() if name in wanted]
