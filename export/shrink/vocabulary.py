"""A tokenizer brought down to the pieces that a corpus uses, and what that costs other text.

Texts whose pieces are all kept are cut as before: a Unigram model's best path stays the best of fewer, WordPiece's
longest match stays the longest, and BPE applies the same merges. Nothing is trained, so no vector of theirs changes.
"""

from __future__ import annotations

import copy
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.core.encoder.text import Pieces
from xt.core.errors import XtError, unknown

Ids = npt.NDArray[np.int64]
MODELS = ("Unigram", "BPE", "WordPiece", "WordLevel")
"""Kinds of tokenizer that can be pruned."""
WORD_STARTS = ("▁", "Ġ", "##")
"""What marks a piece's place in its word, by kind; the piece proper stands behind it."""
SCRIPT_SHARE = 0.01
"""A script belongs to a language when so much of the letters of its texts are written in it."""
BATCH = 4096
"""Texts that are tokenised at once."""


@dataclass(frozen=True)
class Pruned:
    """A smaller tokenizer and how its ids map back."""

    document: dict[str, Any]
    """The content of its tokenizer.json."""
    kept: Ids
    """(pieces,) ascending: the old id of each new one."""

    def open(self) -> Pieces:
        """Return the tokenizer itself, padding and truncation off; XtError when it lacks an id that it should have."""
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_str(json.dumps(self.document, ensure_ascii=False))
        except Exception as error:  # tokenizers raises bare Exception
            raise XtError(f"The pruned tokenizer cannot be read: {error}", "Export without --languages.") from error
        ids = sorted(tokenizer.get_vocab(with_added_tokens=True).values())
        if ids != list(range(len(self.kept))):
            raise XtError(
                f"The pruned tokenizer has {len(ids)} ids, expected {len(self.kept)} without gaps.",
                "Its tokenizer.json lists a piece twice, or an id that it lacks. Export without --languages.",
            )
        return Pieces(tokenizer)


def encode(tokenizer: Pieces, texts: Sequence[str], *, special: bool = True) -> Iterator[Ids]:
    """Tokenise any number of texts: the ids of each, with the special tokens around it or without."""
    for start in range(0, len(texts), BATCH):
        batch = list(texts[start : start + BATCH])
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=special):
            yield np.asarray(encoding.ids, np.int64)


def used_ids(tokenizer: Pieces, texts: Sequence[str], prefixes: Iterable[str]) -> set[int]:
    """Return the ids of all pieces that `texts` consist of, behind each of `prefixes`."""
    found: set[int] = set()
    for prefix in prefixes:
        for ids in encode(tokenizer, [prefix + text for text in texts]):
            found.update(ids.tolist())
    return found


def script(character: str) -> str:
    """Name the script of a letter by the first word of its Unicode name: LATIN, CYRILLIC, CJK, HANGUL, ..."""
    return unicodedata.name(character, "").partition(" ")[0]


def scripts(texts: Iterable[str]) -> set[str]:
    """Name the scripts that the letters of one language's texts are written in; a stray quotation is none of it.

    >>> sorted(scripts(["Το σπίτι", "дом"]))
    ['CYRILLIC', 'GREEK']
    """
    characters: Counter[str] = Counter()
    for text in texts:
        characters.update(text)
    letters: Counter[str] = Counter()
    for character, count in characters.items():
        if character.isalpha():
            letters[script(character)] += count
    return {name for name, count in letters.items() if count >= SCRIPT_SHARE * letters.total()}


def prune(
    source: Mapping[str, Any], used: Iterable[int], written_in: Iterable[str], *, keep: Iterable[int] = ()
) -> Pruned:
    """Bring a tokenizer.json down to the pieces with the ids in `used`, and those that any text may need.

    These are the special and added tokens, byte pieces, and every single character that is ASCII, no letter (digits,
    punctuation, symbols, marks without a script), or a letter of the scripts in `written_in`; and `keep`. The order of
    the pieces stays, so low ids of special tokens do too. `source` is not modified.

    Raises XtError for a kind of tokenizer that is not in `MODELS`.
    """
    document: dict[str, Any] = copy.deepcopy(dict(source))
    model = document["model"]
    kind = model.get("type")
    if kind not in MODELS:
        raise unknown("kind of tokenizer to prune", str(kind), MODELS)
    if kind == "BPE" and (model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")):
        raise XtError("A BPE tokenizer with marks inside its pieces cannot be pruned.", "Export without --languages.")
    pieces = vocabulary(document)
    added = [token["id"] for token in document.get("added_tokens") or []]
    wanted = {*used, *keep, *added, *_of_processor(document.get("post_processor"), pieces)}
    wanted |= _characters(pieces, set(written_in), bytes_too=_byte_level(document))
    if (name := model.get("unk_token")) in pieces:
        wanted.add(pieces[name])
    if kind == "Unigram":
        # What an unknown character costs is counted from the least score, so that piece stays too.
        wanted.add(min(range(len(model["vocab"])), key=lambda i: model["vocab"][i][1]))
        wanted |= set() if model.get("unk_id") is None else {model["unk_id"]}
    if kind == "BPE":
        wanted |= _merged_from(wanted, pieces, model)
    known = set(pieces.values())
    if strange := sorted(wanted - known):
        raise XtError(
            f"The tokenizer has no piece with the id {strange[0]}, which is needed.",
            "tokenizer.json and config.json do not belong together; copy the folder again.",
        )
    kept = np.array(sorted(wanted), np.int64)
    new = {int(old): i for i, old in enumerate(kept)}
    _renumber(document, new, pieces)
    return Pruned(document, kept)


def vocabulary(document: Mapping[str, Any]) -> dict[str, int]:
    """Return piece -> id of a tokenizer.json, tokens added behind the model's own included."""
    listed = document["model"]["vocab"]
    own = dict(listed) if isinstance(listed, dict) else {piece: i for i, (piece, _) in enumerate(listed)}
    return {**own, **{token["content"]: token["id"] for token in document.get("added_tokens") or []}}


def _characters(pieces: Mapping[str, int], written_in: set[str], *, bytes_too: bool) -> set[int]:
    """Return the ids of the pieces without which an unseen word would hold unknown characters."""
    found = set()
    for piece, number in pieces.items():
        body = piece
        for mark in WORD_STARTS:
            body = body.removeprefix(mark)
        byte = len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
        if byte or piece in WORD_STARTS:  # the mark alone stands for a space
            found.add(number)
        elif len(body) == 1:
            letter = unicodedata.category(body)[0] in "LM" and script(body) != "COMBINING"
            if bytes_too or not letter or body.isascii() or script(body) in written_in:
                found.add(number)
    return found


def _byte_level(document: Mapping[str, Any]) -> bool:
    """Return whether the characters of pieces stand for bytes: then all of them are needed, whatever the script."""
    return '"ByteLevel"' in json.dumps([document.get("pre_tokenizer"), document.get("normalizer")])


def _pairs(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the merges of a BPE model, best first; older files keep a pair as one string."""
    listed = (m.split(" ", 1) if isinstance(m, str) else m for m in model["merges"])
    return [(a, b) for a, b in listed]


def _merged_from(ids: Iterable[int], pieces: Mapping[str, int], model: Mapping[str, Any]) -> set[int]:
    """Return the ids of all pieces that merging makes on the way to those in `ids`."""
    rank = {pair: i for i, pair in enumerate(_pairs(model))}
    names = {number: piece for piece, number in pieces.items()}
    found: set[int] = set()
    for number in ids:
        parts = list(names.get(number, ""))
        while True:
            found.update(pieces[part] for part in parts if part in pieces)
            ranked = [(rank[pair], i) for i, pair in enumerate(zip(parts, parts[1:], strict=False)) if pair in rank]
            if not ranked:
                break
            _, i = min(ranked)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return found


def _of_processor(processor: Mapping[str, Any] | None, pieces: Mapping[str, int]) -> set[int]:
    """Return the ids that the post-processor adds around a text."""
    if processor is None:
        return set()
    if processor["type"] == "Sequence":
        return {i for inner in processor["processors"] for i in _of_processor(inner, pieces)}
    if processor["type"] == "TemplateProcessing":
        return {i for token in processor["special_tokens"].values() for i in token["ids"]}
    if processor["type"] in ("RobertaProcessing", "BertProcessing"):
        return {processor["sep"][1], processor["cls"][1]}
    if processor["type"] == "ByteLevel":
        return set()
    raise unknown(
        "post-processor",
        processor["type"],
        ("Sequence", "TemplateProcessing", "RobertaProcessing", "BertProcessing", "ByteLevel"),
    )


def _renumber(document: dict[str, Any], new: Mapping[int, int], pieces: Mapping[str, int]) -> None:
    """Drop what `new` does not name from a tokenizer.json and give the rest its new ids, in place."""
    model = document["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {piece: new[i] for piece, i in model["vocab"].items() if i in new}
    else:
        model["vocab"] = [entry for i, entry in enumerate(model["vocab"]) if i in new]
    if model.get("unk_id") is not None:
        model["unk_id"] = new[model["unk_id"]]
    if "merges" in model:
        left = {piece for piece, i in pieces.items() if i in new}
        both = zip(model["merges"], _pairs(model), strict=True)
        model["merges"] = [m for m, (a, b) in both if a in left and b in left and a + b in left]
    for token in document.get("added_tokens") or []:
        token["id"] = new[token["id"]]
    if padding := document.get("padding"):
        padding["pad_id"] = new.get(padding["pad_id"], 0)
    processors = [document.get("post_processor")]
    while processors:
        processor = processors.pop()
        if not processor:
            continue
        processors += processor.get("processors", [])
        for token in processor.get("special_tokens", {}).values():
            token["ids"] = [new[i] for i in token["ids"]]
        for side in ("sep", "cls"):
            if side in processor:
                processor[side] = [processor[side][0], new[processor[side][1]]]


def unknown_id(document: Mapping[str, Any]) -> int | None:
    """Return the id that stands for what a tokenizer does not know; None when there is none."""
    model = document["model"]
    if model.get("type") == "Unigram":
        return None if model.get("unk_id") is None else int(model["unk_id"])
    return vocabulary(document).get(str(model.get("unk_token")))


def compare(
    before: Pieces, document: Mapping[str, Any], pruned: Pruned, texts: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, float]]:
    """Measure what pruning does to `texts` (language -> texts), special tokens left out; one row a language.

    `lost` is the share of the tokens before whose piece is gone, `unknown` the share of the tokens after that stand for
    unknown characters (`unknown_before`: of those before), `longer` by what share there are more tokens, and `changed`
    the number of texts that are not cut into the very same pieces.
    """
    after = pruned.open()
    new = np.full(int(max(before.tokenizer.get_vocab_size(), pruned.kept[-1] + 1)), -1, np.int64)
    new[pruned.kept] = np.arange(len(pruned.kept))
    strange, strange_after = unknown_id(document), unknown_id(pruned.document)
    rows = {}
    for language, own in texts.items():
        count: Counter[str] = Counter()
        pairs = zip(encode(before, own, special=False), encode(after, own, special=False), strict=True)
        for old_ids, new_ids in pairs:
            mapped = new[old_ids]
            count["tokens"] += len(old_ids)
            count["after"] += len(new_ids)
            count["lost"] += int((mapped < 0).sum())
            count["unknown_before"] += int((old_ids == strange).sum())
            count["unknown"] += int((new_ids == strange_after).sum())
            count["changed"] += not np.array_equal(mapped, new_ids)
        tokens, behind = max(count["tokens"], 1), max(count["after"], 1)
        rows[language] = {
            "texts": len(own),
            "tokens": count["tokens"],
            "lost": count["lost"] / tokens,
            "unknown_before": count["unknown_before"] / tokens,
            "unknown": count["unknown"] / behind,
            "longer": count["after"] / tokens - 1,
            "changed": count["changed"],
        }
    return rows
