"""The layers of an encoder: every layer's token vectors, the network cut to its first N layers, and put together again.

The first N layers of a post-norm encoder are an encoder themselves: its last hidden state is what the whole network
gives behind layer N. A checkpoint that is pooled there is therefore a plain encoder of N layers, and the layers above,
which only further training needs, lie beside it in a file of their own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xt.core.errors import XtError

UPPER = "upper.safetensors"
"""The layers above those of a cut checkpoint: tensors `<i>.<name>`, i from 0 at the lowest of them."""
PLACES = ("encoder.layer", "transformer.layer", "layers", "encoder.layers")
"""Where encoders of transformers keep the list of their layers."""
TOLERANCE = 1e-5


def stack(network: nn.Module) -> nn.ModuleList:
    """Find the list of the network's transformer layers; XtError when it is at none of the known places."""
    for place in PLACES:
        found: Any = network
        for name in place.split("."):
            found = getattr(found, name, None)
        if isinstance(found, nn.ModuleList) and len(found):
            return found
    raise XtError(
        f"xt does not find the layers of a {_kind(network)} network.",
        f"Looked for {', '.join(PLACES)}. Use the network as it is: without --pool-layer.",
    )


def _kind(network: nn.Module) -> str:
    return str(getattr(getattr(network, "config", None), "model_type", type(network).__name__))


def layer_states(network: nn.Module, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    """Return the token vectors behind every layer, each (batch, tokens, dim): 0 is the embeddings' output, L the last.

    ids, mask (batch, tokens). These are transformers' `hidden_states`.
    """
    states = network(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    if states is None:
        raise XtError(f"A {_kind(network)} network does not give the states of its layers.")
    return tuple(states)


def check_layers(layers: Sequence[int], count: int, *, lowest: int = 0) -> None:
    """Raise XtError unless every one of `layers` is between `lowest` and `count`, the number of layers."""
    if wrong := [n for n in layers if not lowest <= n <= count]:
        raise XtError(
            f"There is no layer {wrong[0]}: this encoder has {count} layers.",
            f"Choose from {lowest} to {count}" + (" (0: the embeddings)." if lowest == 0 else "."),
        )


def cut(network: nn.Module, layer: int) -> list[nn.Module]:
    """Remove the layers above `layer` (1 to the number of layers) in place, and give them, lowest first.

    Raises XtError, and leaves the network whole, when the network that is left would not give the hidden state behind
    `layer`: one with a norm of its own behind its last layer does not.
    """
    layers = stack(network)
    count = len(layers)
    check_layers([layer], count, lowest=1)
    before = _probe(network)[0][layer]
    upper = list(layers[layer:])
    del layers[layer:]
    _count(network, layer)
    equal = False
    try:
        after = _probe(network)[1]
        equal = torch.allclose(before, after, rtol=TOLERANCE, atol=TOLERANCE)
    finally:
        if not equal:
            layers.extend(upper)
            _count(network, count)
    if not equal:
        raise XtError(
            f"A {_kind(network)} network cannot be cut at layer {layer}: what its first {layer} layers give alone "
            f"differs by up to {float((before - after).abs().max()):.2g} from what the whole gives there.",
            "It has a norm behind its last layer. Use the network as it is: without --pool-layer.",
        )
    return upper


def _count(network: nn.Module, layers: int) -> None:
    config: Any = network.config
    config.num_hidden_layers = layers  # where a model calls it otherwise (n_layers), its config passes this on


def _probe(network: nn.Module) -> tuple[tuple[Tensor, ...], Tensor]:
    """Run the network on fixed random ids: the states of its layers and its last hidden state, in float32."""
    config: Any = network.config
    device = next(network.parameters()).device
    ids = torch.randint(3, int(config.vocab_size), (2, 12), generator=torch.Generator().manual_seed(0))
    if (padding := getattr(config, "pad_token_id", None)) is not None:  # else the positions of RoBERTa shift
        ids[ids == padding] = int(config.vocab_size) - 1 if padding != int(config.vocab_size) - 1 else 0
    ids, was_training = ids.to(device), network.training
    network.eval()
    try:
        with torch.inference_mode():
            mask = torch.ones_like(ids)
            states = tuple(s.float() for s in layer_states(network, ids, mask))
            last = network(input_ids=ids, attention_mask=mask).last_hidden_state.float()
    finally:
        network.train(was_training)
    return states, last


def save_upper(layers: Sequence[nn.Module], path: Path) -> None:
    """Write the layers that `cut` took off."""
    from safetensors.torch import save_file

    tensors = {
        f"{i}.{name}": value.detach().cpu().contiguous()
        for i, layer in enumerate(layers)
        for name, value in layer.state_dict().items()
    }
    save_file(tensors, str(path), metadata={"format": "pt"})


def restore(network: nn.Module, upper: Path) -> None:
    """Put the layers of `upper`, which `save_upper` wrote, back on top of the cut network, in place."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(str(upper))
    except (OSError, SafetensorError) as error:
        raise XtError(f"{upper} is not readable: {error}", "Copy or make the folder again.") from error
    layers = stack(network)
    count = len(layers)
    added = []
    for i in range(len({name.partition(".")[0] for name in tensors})):
        layer = copy.deepcopy(layers[-1])
        for module in layer.modules():
            for name in ("layer_idx", "layer_id"):
                if isinstance(getattr(module, name, None), int):
                    setattr(module, name, count + i)
        own = {name[len(f"{i}.") :]: value for name, value in tensors.items() if name.startswith(f"{i}.")}
        try:
            layer.load_state_dict(own)
        except RuntimeError as error:
            raise XtError(
                f"{upper} does not fit on top of this {_kind(network)} network (layer {count + i + 1}).",
                "It belongs to another checkpoint; copy the folder again, whole.",
            ) from error
        added.append(layer)
    layers.extend(added)
    _count(network, count + len(added))
