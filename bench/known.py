"""What is known of the encoder that is measured, and what of it is measured beside a server: in process, and peers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xt.bench import peers as bench_peers
from xt.core.encoder.resolve import resolve
from xt.core.encoder.spec import EncoderSpec
from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, open_artifact, read_json, read_manifest
from xt.core.files.cache_folder import cache_folder, explained
from xt.core.reporter import Say

if TYPE_CHECKING:
    from xt.bench.session import Settings


@dataclass(frozen=True)
class KnownEncoder:
    """What is known of the encoder: how it counts tokens, and where its checkpoint lies."""

    name: str
    spec: EncoderSpec
    tokenizer: Path
    pad_id: int
    checkpoint: Path | None
    exported: Path | None
    """The exported model's folder."""


def know(settings: Settings) -> KnownEncoder | None:
    """Find the tokenizer and the checkpoint that belong to what is measured; None when only a server is named."""
    exported = None
    if settings.encoder is not None and _kind(Path(settings.encoder)) == "model":
        exported = Path(settings.encoder)
    elif settings.encoder is None and settings.repository is not None:
        names = (
            [settings.model]
            if settings.model
            else sorted(p.parent.name for p in settings.repository.glob(f"*/{MANIFEST}"))
        )
        encoders = [n for n in names if "encoder" in read_manifest(settings.repository / n)["facts"]]
        exported = settings.repository / encoders[0] if len(encoders) == 1 else None
    if exported is not None:
        facts = open_artifact(exported, kind="model").facts
        source = Path(facts["checkpoint"]["path"])
        found = settings.checkpoint or (source if source.is_dir() else None)
        spec = EncoderSpec.from_json(facts["encoder"])
        return KnownEncoder(spec.name, spec, exported / facts["tokenizer"], facts["pad_id"], found, exported)
    wanted = settings.encoder or (str(settings.checkpoint) if settings.checkpoint else None)
    if wanted is None:
        return None
    resolved = resolve(wanted)
    path = settings.checkpoint or resolved.path
    pad = read_json(resolved.path / "config.json").get("pad_token_id", 1)
    return KnownEncoder(resolved.spec.name, resolved.spec, resolved.path / "tokenizer.json", pad, path, None)


def _kind(path: Path) -> str | None:
    return str(read_manifest(path)["kind"]) if (path / MANIFEST).is_file() else None


def prepared_folder(checkpoint: Path) -> Path:
    """Return where the peers' files of a checkpoint are kept: they take a minute to make.

    Other weights, another folder.
    """
    files = [p for p in sorted(checkpoint.iterdir()) if p.is_file()]
    state = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    folder = cache_folder() / "peers" / hashlib.sha256(repr(state).encode()).hexdigest()[:16]
    with explained():
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def engines(
    settings: Settings, known: KnownEncoder | None, prepared: Path, pythons: Mapping[str, Path], report: Say
) -> list[tuple[str, Any]]:
    """List what is measured beside the server: an engine's name, and what it is to load (a server: its checkpoint)."""
    found: list[tuple[str, Any]] = []
    if settings.encoder is not None:
        assert known is not None
        if known.exported is not None:
            found.append(("xt", {"model": str(known.exported.resolve())}))
        else:
            found.append(("xt-torch", {"checkpoint": str(resolve(settings.encoder).path)}))
    peers = [name for name in settings.against if name != bench_peers.GEMM]
    if not peers:
        return found
    assert known is not None
    if known.checkpoint is None:
        raise XtError("The checkpoint that the peers are to load is not there.", "Name its folder by --checkpoint.")
    if {"sentence-transformers-onnx-int8", "openvino", "infinity"} & set(peers):
        report("exporting the checkpoint for the peers, by sentence-transformers' own ONNX export")
        bench_peers.prepare_onnx(known.checkpoint, prepared, pythons.get("sentence-transformers-onnx-int8"))
    job: dict[str, Any] = {
        "checkpoint": str(known.checkpoint),
        "cache": str(prepared),
        "prefix": known.spec.prefix(None),
        "max_length": known.spec.max_length,
        "pad_id": known.pad_id,
    }
    for name in peers:
        if bench_peers.PEERS[name].served:
            found.append((name, known.checkpoint))
        elif name == "openvino-int8":
            if known.exported is None:
                raise XtError("openvino-int8 runs the exported file.", "Name it by --encoder REPO/NAME.")
            facts = open_artifact(known.exported, kind="model").facts
            found.append((name, {**job, "graph": str((known.exported / facts["graph"]).resolve())}))
        else:
            found.append((name, job))
    return found


def config_of(known: KnownEncoder) -> dict[str, Any]:
    """Read the sizes of the network from its checkpoint's config.json."""
    file = known.checkpoint / "config.json" if known.checkpoint is not None else None
    if file is None or not file.is_file():
        raise XtError(
            "The sizes of the network are not known: its checkpoint is not there.", "Name it by --checkpoint."
        )
    return dict(read_json(file))
