"""Open the encoder that a user names: a checkpoint in PyTorch, an exported model on ONNX Runtime, or a served one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xt.core.errors import UsageError
from xt.core.files.artifact import exported_model, read_manifest
from xt.core.results.report import Encoder as EncoderResult
from xt.serve.index.encode_files import IdentifiedEncoder

if TYPE_CHECKING:
    from xt.serve.client.address import Tls


@dataclass(frozen=True)
class OpenedEncoder:
    """An encoder that was opened, and what is known of it."""

    encoder: Any
    """What encodes (`xt.core.encoder.text.Encoder`), with its `spec` where xt opened it."""
    entry: EncoderResult
    """What a report says of it, nothing of it measured."""
    temperature: float | None = None
    """The softmax temperature of its own training, where known."""
    parent: dict[str, str] = field(default_factory=dict)
    """The folder that it was made from: kind, path and hash, as manifests keep them."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """How it was opened (url or encoder, and model), so that it can be opened again."""

    def identified(self) -> IdentifiedEncoder:
        """Return it with what the manifests of vectors and indexes keep of it.

        Where its folder lies is not part of that: a copy of the model continues the same work.
        """
        checkpoint = self.parent["hash"]
        if self.parent["kind"] == "model":
            checkpoint = read_manifest(Path(self.parent["path"]))["facts"]["checkpoint"].get("hash", "")
        identity = {
            **self.entry.to_json(),
            "name": self.encoder.spec.name,
            "checkpoint": checkpoint,
            "parent": {k: self.parent[k] for k in ("kind", "hash")},
        }
        return IdentifiedEncoder(self.encoder, identity, self.source)


def open_encoder(
    encoder: str | None = None,
    *,
    url: str | None = None,
    model: str | None = None,
    device: str = "auto",
    tls: Tls | None = None,
) -> OpenedEncoder:
    """Open an encoder.

    Args:
        encoder: a checkpoint folder, hub id or short name; or an exported model's folder, or a repository.
        url: instead, HOST:PORT of a Triton server's gRPC endpoint.
        model: which of several exported or served encoders.
        device: auto, cpu, cuda.
        tls: the files of an encrypted connection to `url`; None: not encrypted.
    """
    if (encoder is None) == (url is None):
        raise UsageError("give one of --encoder and --url")
    if url is not None:
        from xt.serve.client.encoder import TritonEncoder

        served = TritonEncoder(url, model, tls=tls)
        entry = EncoderResult.of(served.spec, name=served.model, precision=served.facts["precision"], engine="triton")
        source = {"url": url, "model": model}
        return OpenedEncoder(served, entry, served.spec.temperature, served.facts["checkpoint"], source)
    assert encoder is not None
    folder = exported_model(Path(encoder).expanduser(), model)
    if folder is not None:
        from xt.core.encoder.onnx_engine import load_model

        graph, artifact = load_model(folder, device=device)
        precision, parent = artifact.facts["precision"], artifact.as_parent()
        entry = EncoderResult.of(graph.spec, name=folder.name, precision=precision, engine="onnxruntime")
        source = {"encoder": parent["path"], "model": model}
        return OpenedEncoder(graph, entry, graph.spec.temperature, parent, source)
    from xt.core.encoder import resolve as encoders
    from xt.core.encoder import torch_engine

    resolved = encoders.resolve(encoder)
    entry = EncoderResult.of(resolved.spec, precision="fp32", engine="pytorch")
    network = torch_engine.load_encoder(resolved, device=device)
    source = {"encoder": encoder, "model": None}
    return OpenedEncoder(network, entry, resolved.spec.temperature, resolved.parent, source)
