"""A smaller encoder before export: fewer layers, the vocabulary of some languages, the first numbers of its vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xt.core.data.bitext import Bitext
from xt.core.encoder.resolve import OFFSET_MODELS, Resolved, write_sentence_transformers
from xt.core.encoder.spec import EncoderSpec
from xt.core.encoder.text import open_tokenizer, pad
from xt.core.errors import CheckFailed, XtError
from xt.core.files.artifact import new_artifact, read_json, write_json
from xt.core.languages import select
from xt.export.shrink import vocabulary
from xt.export.shrink.vocabulary import Ids, Pruned

if TYPE_CHECKING:
    import torch

ENGLISH = "eng"
HELD_OUT = 10
"""One text of so many is left out when it is estimated what text of the same kind would lose."""
LEAST_COSINE = 0.99999
"""Vectors of kept tokens may differ by rounding, not by more."""
CHECKED_TEXTS = 32
ID_FIELDS = ("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "mask_token_id")
"""What config.json may name tokens by."""


def corpus_texts(corpus: Iterable[Bitext]) -> list[tuple[str, str]]:
    """Return parallel text as (language, text), English sentences under "eng", each once."""
    rows = [(b.language, text) for b in corpus for text in b.foreign]
    return list(dict.fromkeys([*rows, *((ENGLISH, text) for b in corpus for text in b.english)]))


def check(resolved: Resolved, *, layers: int | None = None, dims: int | None = None) -> None:
    """Raise XtError when the encoder has fewer layers or dimensions; reads its config.json alone."""
    if dims is not None:
        resolved.spec.first(dims)
    if layers is None:
        return
    config = read_json(resolved.path / "config.json")
    count = config.get("num_hidden_layers", config.get("n_layers"))
    if layers < 1 or (count is not None and layers > int(count)):
        raise XtError(f"There are no first {layers} layers: {resolved.spec.name} has {count}.", f"Choose 1 to {count}.")


def shrink(
    resolved: Resolved,
    folder: Path,
    *,
    layers: int | None = None,
    languages: Sequence[str] | None = None,
    corpus: Iterable[tuple[str, str]] | None = None,
    dims: int | None = None,
) -> tuple[Resolved, dict[str, Any]]:
    """Write a smaller copy of an encoder into `folder`, and give it with a report of what changed.

    The copy is a complete checkpoint folder; SentenceTransformer(folder) gives its vectors too. With nothing asked, the
    encoder itself is given, and an empty report. Heads and the layers above the pooled one do not come along.

    Args:
        resolved: the encoder.
        folder: missing or empty.
        layers: keep the lowest ones, this many.
        languages: keep the pieces of the vocabulary that texts of these languages in `corpus` use (see
            `vocabulary.prune`), behind each of the encoder's prefixes.
        corpus: (language, text); needed for `languages`, else not read.
        dims: keep the first `dims` dimensions of a vector, scaled to unit length again where the encoder does so.

    Raises:
        XtError: a number out of range, a language that the corpus lacks, a tokenizer that cannot be pruned.
        CheckFailed: vectors of kept tokens changed.
    """
    check(resolved, layers=layers, dims=dims)
    if layers is None and languages is None and dims is None:
        return resolved, {}
    if folder.exists() and any(folder.iterdir()):
        raise XtError(f"{folder} is not empty.", "Name a new folder.")
    texts = None if languages is None else _texts(languages, corpus)

    from xt.core.encoder.torch_engine import load_network

    network = load_network(resolved.path).eval()
    before = _size(network)
    report: dict[str, Any] = {}
    changes = []
    if layers is not None:
        report["layers"] = _cut(network, layers)
        changes.append(f"its first {layers} layers")
    pruned: Pruned | None = None
    if texts is not None:
        pruned, report["vocabulary"] = _prune(network, resolved, texts)
        changes.append(f"the vocabulary of {', '.join(texts)}")
    spec = resolved.spec
    if dims is not None:
        report["dims"] = {"before": spec.dim, "after": dims}
        spec = spec.first(dims)
        changes.append(f"the first {dims} numbers of its vectors")
    report["size"] = {"before": before, "after": _size(network)}
    provenance = f"{spec.provenance or spec.name}; of it {', '.join(changes)}"
    spec = replace(spec, provenance=provenance)
    with new_artifact(folder, kind="checkpoint", force=folder.exists()) as draft:
        _write(draft.path, network, resolved, spec, pruned)
        draft.parents = [resolved.parent]
        draft.facts = {"encoder": spec.to_json(), "shrunk": report}
    return Resolved(folder, spec, resolved.parent), report


def _texts(languages: Sequence[str], corpus: Iterable[tuple[str, str]] | None) -> dict[str, list[str]]:
    """Gather the texts of the requested languages: code as the corpus spells it -> its texts."""
    if corpus is None:
        raise XtError("Pruning the vocabulary needs texts of its languages.", "Give a corpus.")
    by_language: dict[str, list[str]] = {}
    for language, text in corpus:
        by_language.setdefault(language, []).append(text)
    return {code: by_language[code] for code in select(",".join(languages), by_language)}


def _size(network: torch.nn.Module) -> dict[str, float]:
    """Count the parameters, and their megabytes in float32."""
    count = sum(p.numel() for p in network.parameters())
    return {"parameters": count, "megabytes": count * 4 / 1e6}


def _cut(network: torch.nn.Module, layers: int) -> dict[str, Any]:
    """Drop the layers above the lowest `layers`, in place."""
    from xt.core.encoder.layers import cut, stack

    count, parameters = len(stack(network)), _size(network)["parameters"]
    cut(network, layers)
    after = _size(network)["parameters"]
    return {"before": count, "after": layers, "parameters_before": parameters, "parameters_after": after}


def _prune(
    network: torch.nn.Module, resolved: Resolved, texts: Mapping[str, Sequence[str]]
) -> tuple[Pruned, dict[str, Any]]:
    """Bring the vocabulary down to what `texts` use, in place: tokenizer, report."""
    import torch

    file = resolved.path / "tokenizer.json"
    tokenizer = open_tokenizer(file)
    document = read_json(file)
    config: Any = network.config
    table: Any = network.get_input_embeddings()
    pieces = set(vocabulary.vocabulary(document).values())
    keep = _config_ids(config, pieces)
    prefixes = list(dict.fromkeys(["", *resolved.spec.prefixes.values()]))

    def pruned_by(part: Mapping[str, Sequence[str]]) -> Pruned:
        written_in = {name for own in part.values() for name in vocabulary.scripts(own)}
        used = vocabulary.used_ids(tokenizer, [t for own in part.values() for t in own], prefixes)
        return vocabulary.prune(document, used, written_in, keep=keep)

    rest = {code: [t for i, t in enumerate(own) if i % HELD_OUT] for code, own in texts.items()}
    left_out = {code: list(own[::HELD_OUT]) for code, own in texts.items()}
    held_out = vocabulary.compare(tokenizer, document, pruned_by(rest), left_out)
    pruned = pruned_by(texts)
    if pruned.kept[-1] >= len(table.weight):
        raise XtError(
            f"tokenizer.json names the id {pruned.kept[-1]}; the encoder knows {len(table.weight)} tokens.",
            "tokenizer.json and the weights do not belong together; copy the folder again.",
        )
    shares = {
        prefix or "none": vocabulary.compare(
            tokenizer, document, pruned, {code: [prefix + t for t in own] for code, own in texts.items()}
        )
        for prefix in prefixes
    }
    sample = [prefixes[-1] + t for own in texts.values() for t in own[: max(1, CHECKED_TEXTS // len(texts))]]
    expected = _vectors(network, resolved.spec, list(vocabulary.encode(tokenizer, sample)))
    rows = torch.from_numpy(pruned.kept).to(table.weight.device)
    padding = table.padding_idx
    smaller = torch.nn.Embedding.from_pretrained(
        table.weight.detach()[rows],
        freeze=False,
        padding_idx=None if padding is None else int(np.searchsorted(pruned.kept, padding)),
    )
    network.set_input_embeddings(smaller)
    for name in ID_FIELDS:
        if (old := getattr(config, name, None)) is not None:
            setattr(config, name, int(np.searchsorted(pruned.kept, old)) if old in pieces else None)
    before = {"pieces": len(table.weight), "megabytes": table.weight.numel() * 4 / 1e6}
    config.vocab_size = len(pruned.kept)
    found = _vectors(network, resolved.spec, list(vocabulary.encode(pruned.open(), sample)))
    cosine = float((expected * found).sum(1).min())
    if not cosine >= LEAST_COSINE:
        raise CheckFailed(
            f"Pruning changed the vectors of texts whose tokens are all kept: cosine {cosine:.6f}.",
            "Export without --languages.",
        )
    return pruned, {
        "languages": list(texts),
        "kind": document["model"]["type"],
        "before": before,
        "after": {"pieces": len(pruned.kept), "megabytes": smaller.weight.numel() * 4 / 1e6},
        "corpus": shares["none"],
        "changed": sum(int(row["changed"]) for by_code in shares.values() for row in by_code.values()),
        "held_out": held_out,
        "cosine_min": cosine,
    }


def _config_ids(config: Any, pieces: set[int]) -> set[int]:
    """Return the ids that config.json names, as far as the tokenizer has them, and those the positions count from.

    Where positions start behind the padding token's id, all ids up to it stay, so that it keeps its number.
    """
    ids = {i for name in ID_FIELDS if (i := getattr(config, name, None)) is not None and i in pieces}
    if (padding := getattr(config, "pad_token_id", None)) is None:
        return ids
    if padding not in pieces:
        raise XtError(f"config.json pads with the id {padding}, which tokenizer.json lacks.", "Copy the folder again.")
    offset = any(m in str(config.model_type) for m in OFFSET_MODELS)
    return ids | (set(range(padding)) if offset else set())


def _vectors(network: torch.nn.Module, spec: EncoderSpec, ids: Sequence[Ids]) -> np.ndarray:
    """Pool rows of ids one by one, at most `max_length` of each: (rows, dim) of unit length."""
    from xt.core.encoder.torch_engine import TorchEngine

    engine = TorchEngine(network, replace(spec, normalize=True), device="cpu")
    return np.concatenate([engine.forward(*pad([row[: spec.max_length]], 0)) for row in ids])


def _write(folder: Path, network: Any, resolved: Resolved, spec: EncoderSpec, pruned: Pruned | None) -> None:
    """Write weights, tokenizer and the files by which sentence-transformers gives the same vectors."""
    network.save_pretrained(folder, safe_serialization=True)
    names = ["tokenizer_config.json", "special_tokens_map.json"]
    if pruned is None:
        names.append("tokenizer.json")  # other forms of the same tokenizer are left behind: this one is complete
    else:
        write_json(folder / "tokenizer.json", pruned.document)
    for name in names:
        if (source := resolved.path / name).is_file():
            (folder / name).write_bytes(source.read_bytes())
    settings = folder / "tokenizer_config.json"
    if pruned is not None and settings.is_file():
        value = read_json(settings)
        if "added_tokens_decoder" in value:
            new = {str(old): str(i) for i, old in enumerate(pruned.kept)}
            value["added_tokens_decoder"] = {new[k]: v for k, v in value["added_tokens_decoder"].items() if k in new}
        write_json(settings, value)
    whole = int(network.config.hidden_size)
    write_sentence_transformers(folder, replace(spec, dim=whole, dims=None))
    if spec.dims is not None:
        _slice_module(folder, whole, spec.dims)


def _slice_module(folder: Path, whole: int, dims: int) -> None:
    """Tell sentence-transformers to keep the first `dims` numbers: a dense layer of ones and zeros before normalising.

    Its own `truncate_dim` would cut behind the normalisation and leave vectors shorter than 1.
    """
    from safetensors.numpy import save_file

    name = "2_Dense"
    (folder / name).mkdir()
    settings = {"in_features": whole, "out_features": dims, "bias": False}
    write_json(folder / name / "config.json", {**settings, "activation_function": "torch.nn.modules.linear.Identity"})
    save_file({"linear.weight": np.eye(dims, whole, dtype=np.float32)}, folder / name / "model.safetensors")
    modules = read_json(folder / "modules.json")
    modules.insert(2, {"path": name, "type": "sentence_transformers.models.Dense"})
    numbered = [{**m, "idx": i, "name": str(i)} for i, m in enumerate(modules)]
    for module in numbered:
        if module["type"].endswith("Normalize"):
            (folder / module["path"]).rename(folder / f"{module['idx']}_Normalize")
            module["path"] = f"{module['idx']}_Normalize"
    write_json(folder / "modules.json", numbered)
