"""The network in PyTorch: any Hugging Face encoder, pooled and normalised as its spec says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xt.core.arguments import as_list
from xt.core.encoder.resolve import Resolved, resolve
from xt.core.encoder.spec import EncoderSpec
from xt.core.encoder.text import TextEncoder, TextTokenizer, Vectors
from xt.core.errors import XtError
from xt.core.machine.cores import usable_cores

if TYPE_CHECKING:
    import torch


def masked_mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Average the token vectors that are not padding.

    hidden (batch, tokens, dim), mask (batch, tokens) of 0/1 -> (batch, dim). A row without tokens gives zeros.

    >>> import torch
    >>> masked_mean(torch.tensor([[[2.0], [4.0], [9.0]]]), torch.tensor([[1, 1, 0]]))
    tensor([[3.]])
    """
    weights = mask.unsqueeze(-1).to(hidden.dtype)  # (batch, tokens, 1)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def pool(hidden: torch.Tensor, mask: torch.Tensor, spec: EncoderSpec) -> torch.Tensor:
    """Pool token vectors (batch, tokens, dim) into (batch, dim), of unit length where the spec says so."""
    import torch

    vectors = spec.kept(masked_mean(hidden, mask) if spec.pooling == "mean" else hidden[:, 0])
    return torch.nn.functional.normalize(vectors, dim=-1) if spec.normalize else vectors


def load_network(path: Path, **kwargs: Any) -> torch.nn.Module:
    """Load the encoder of a checkpoint folder, in float32, without the pooler (nothing here reads it)."""
    import torch
    import transformers

    if torch.get_num_threads() > (cores := usable_cores()) and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cores)  # it knows of no CPU limit
    transformers.logging.set_verbosity_error()
    try:
        kinds = {"bert", "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet"}
        config = transformers.AutoConfig.from_pretrained(path)
        if config.model_type in kinds:
            kwargs["add_pooling_layer"] = False
        model: torch.nn.Module
        model, loading = transformers.AutoModel.from_pretrained(
            path, use_safetensors=True, output_loading_info=True, **kwargs
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise XtError(f"transformers cannot load {path}: {first}", "The folder is damaged or no encoder.") from error
    except Exception as error:  # safetensors raises its own SafetensorError, a plain Exception
        if type(error).__name__ != "SafetensorError":
            raise
        raise XtError(f"The weights in {path} are damaged: {error}", "Copy or make the folder again.") from error
    # transformers would fill what is missing with random numbers.
    if missing := sorted(k for k in loading["missing_keys"] if "pooler" not in k):
        raise XtError(
            f"The weights in {path} lack {len(missing)} tensors of the network, such as {missing[0]}.",
            "The folder is damaged, or its config.json belongs to another model.",
        )
    return model.float()


def pick_device(device: str) -> str:
    """Return the torch device for `auto`, `cpu` or `cuda`; an absent GPU that was requested is an error."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise XtError("PyTorch sees no CUDA device.", "Use --device cpu.")
    if device not in ("cpu", "cuda"):
        raise XtError(f"Unknown device {device!r}.", "Known: auto, cpu, cuda.")
    return device


class TorchEngine:
    """Runs a transformers encoder without gradients."""

    def __init__(self, network: torch.nn.Module, spec: EncoderSpec, *, device: str = "auto") -> None:
        self.device = pick_device(device)
        self.network = network.to(self.device).eval()
        self.spec = spec

    def forward(self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]) -> Vectors:
        """See `xt.core.encoder.text.Engine.forward`."""
        import torch

        with torch.inference_mode():
            ids, mask = (torch.from_numpy(a).to(self.device) for a in (input_ids, attention_mask))
            hidden = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
            vectors: Vectors = pool(hidden.float(), mask, self.spec).cpu().numpy()
        return vectors


class LayerEngine:
    """Pools several layers in one forward pass: (batch, layers * dim), layer after layer."""

    def __init__(self, network: torch.nn.Module, spec: EncoderSpec, layers: Sequence[int], *, device: str) -> None:
        self.network = network
        self.spec = spec
        self.layers = tuple(layers)
        self.device = device

    def forward(self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]) -> Vectors:
        """See `xt.core.encoder.text.Engine.forward`."""
        import torch

        from xt.core.encoder.layers import layer_states

        with torch.inference_mode():
            ids, mask = (torch.from_numpy(a).to(self.device) for a in (input_ids, attention_mask))
            states = layer_states(self.network, ids, mask)
            pooled = [pool(states[n].float(), mask, self.spec) for n in self.layers]  # each (batch, dim)
            vectors: Vectors = torch.cat(pooled, dim=-1).cpu().numpy()
        return vectors


def network_of(encoder: TextEncoder) -> torch.nn.Module:
    """Return the PyTorch network of an encoder; XtError when another engine runs it."""
    if not isinstance(encoder.engine, TorchEngine):
        raise XtError("Only a network in PyTorch gives its layers.", "Name a checkpoint folder by --encoder.")
    return encoder.engine.network


def encode_layers(
    encoder: TextEncoder,
    texts: Sequence[str],
    layers: Sequence[int],
    *,
    prefix: str | None = None,
    truncate: bool = False,
) -> dict[int, Vectors]:
    """Encode `texts` as `encoder` does, pooled from each of `layers`: layer -> (texts, dim).

    Layer 0 is the embeddings' output. One forward pass a batch serves all layers.
    """
    from xt.core.encoder.layers import check_layers, stack

    network = network_of(encoder)
    layers = as_list(layers, "layers", "layer numbers")
    check_layers(layers, len(stack(network)))
    dim = encoder.spec.dim
    engine = LayerEngine(network, encoder.spec, layers, device=network_device(network))
    spec = replace(encoder.spec, dim=len(layers) * dim)
    every = TextEncoder(spec, encoder.tokenizer, engine, pad_id=encoder.pad_id)
    vectors = every.encode(texts, prefix=prefix, truncate=truncate).vectors
    return {n: vectors[:, i * dim : (i + 1) * dim] for i, n in enumerate(layers)}


def whole_encoder(encoder: TextEncoder, folder: Path) -> TextEncoder:
    """Return `encoder` with all layers of its checkpoint: with those above the pooled one, where they lie in `folder`.

    Its vectors are then those of the last layer, not the checkpoint's own; `encoder` itself is left as it is.
    """
    import copy

    from xt.core.encoder.layers import UPPER, restore

    network = network_of(encoder)
    if not (folder / UPPER).is_file():
        return encoder
    network = copy.deepcopy(network)
    restore(network, folder / UPPER)
    engine = TorchEngine(network, encoder.spec, device=network_device(network))
    return TextEncoder(encoder.spec, encoder.tokenizer, engine, pad_id=encoder.pad_id)


def network_device(network: torch.nn.Module) -> str:
    """Name the kind of device that a network is on: cpu or cuda."""
    return str(next(network.parameters()).device.type)


def pad_id(path: Path) -> int:
    """Read the padding token's id from tokenizer.json; 1 (XLM-R's) when it names none."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    for token in ("<pad>", "[PAD]"):
        if (found := tokenizer.token_to_id(token)) is not None:
            return int(found)
    return 1


def load_encoder(resolved: Resolved, *, device: str = "auto") -> TextEncoder:
    """Make the PyTorch text encoder of a resolved checkpoint."""
    engine = TorchEngine(load_network(resolved.path), resolved.spec, device=device)
    tokenizer = TextTokenizer(resolved.path / "tokenizer.json", resolved.spec.max_length)
    return TextEncoder(resolved.spec, tokenizer, engine, pad_id=pad_id(resolved.path))


def load(encoder: str, *, device: str = "auto") -> TextEncoder:
    """Resolve and load: `load("multilingual-e5-small").encode(["hello"]).vectors`."""
    return load_encoder(resolve(encoder), device=device)
