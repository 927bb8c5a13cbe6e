"""A network cut at layer N gives transformers' own hidden_states[N], and is whole again with the layers above it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModel

from xt.core.encoder import resolve, torch_engine
from xt.core.encoder.layers import UPPER, cut, layer_states, restore, save_upper, stack
from xt.core.encoder.spec import EncoderSpec
from xt.core.encoder.text import TextEncoder, TextTokenizer
from xt.core.errors import XtError

SIZES = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 24, "max_position_embeddings": 40, "initializer_range": 0.5, "pad_token_id": 1}
POST_NORM = ["bert", "roberta", "xlm-roberta", "camembert", "mpnet", "distilbert", "electra", "deberta-v2"]


def tiny_network(kind: str, **more) -> torch.nn.Module:
    """A random encoder of four layers, width 16."""
    torch.manual_seed(0)
    sizes = {**SIZES, **more}
    if kind == "distilbert":
        renamed = {"dim": 16, "n_layers": 4, "n_heads": 2, "hidden_dim": 24}
        sizes = {**{k: sizes[k] for k in ("vocab_size", "max_position_embeddings", "initializer_range")}, **renamed}
        sizes["pad_token_id"] = 1
    if kind == "electra":
        sizes["embedding_size"] = 16
    return AutoModel.from_config(AutoConfig.for_model(kind, **sizes)).eval()


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Two rows, the second padded."""
    ids = torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(1))
    ids[1, 6:] = 1
    return {"input_ids": ids, "attention_mask": (ids != 1).long()}


def states(network: torch.nn.Module, batch) -> tuple[torch.Tensor, ...]:
    """What transformers itself calls the hidden states."""
    with torch.no_grad():
        return network(**batch, output_hidden_states=True).hidden_states


@pytest.mark.parametrize("kind", POST_NORM)
@pytest.mark.parametrize("layer", [1, 3, 4])
def test_a_cut_network_ends_in_the_hidden_state_of_its_layer(kind, layer, batch):
    network = tiny_network(kind)
    expected = states(network, batch)
    assert len(expected) == 5
    upper = cut(network, layer)
    assert (len(upper), len(stack(network)), network.config.num_hidden_layers) == (4 - layer, layer, layer)
    with torch.no_grad():
        last = network(**batch).last_hidden_state
    torch.testing.assert_close(last, expected[layer], rtol=0, atol=1e-6)
    if layer < 4:
        assert not torch.allclose(last, expected[4], atol=1e-2)


@pytest.mark.parametrize("kind", POST_NORM)
def test_the_layers_come_back_from_their_file(kind, batch, tmp_path):
    network = tiny_network(kind)
    expected, names = states(network, batch), list(network.state_dict())
    save_upper(cut(network, 2), tmp_path / UPPER)
    restore(network, tmp_path / UPPER)
    assert list(network.state_dict()) == names
    assert network.config.num_hidden_layers == 4
    for ours, theirs in zip(states(network, batch), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    indices = [m.layer_idx for layer in stack(network) for m in layer.modules() if hasattr(m, "layer_idx")]
    assert sorted(set(indices)) in ([], [0, 1, 2, 3])


def test_layer_states_are_those_of_transformers(batch):
    network = tiny_network("xlm-roberta")
    with torch.no_grad():
        ours = layer_states(network, batch["input_ids"], batch["attention_mask"])
    for a, b in zip(ours, states(network, batch), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize(("kind", "layer"), [("xlm-roberta-xl", 2), ("modernbert", 2), ("modernbert", 4)])
def test_a_network_with_a_norm_behind_its_last_layer_is_not_cut_and_stays_whole(kind, layer, batch):
    network = tiny_network(kind)
    with torch.no_grad():  # a norm that starts as the identity would hide behind normed inputs
        for name, p in network.named_parameters():
            if name in ("encoder.LayerNorm.weight", "final_norm.weight"):
                p.fill_(3.0)
    with torch.no_grad():
        expected = network(**batch).last_hidden_state
    with pytest.raises(XtError, match=f"A {kind} network cannot be cut at layer {layer}"):
        cut(network, layer)
    assert (len(stack(network)), network.config.num_hidden_layers) == (4, 4)
    with torch.no_grad():
        torch.testing.assert_close(network(**batch).last_hidden_state, expected, rtol=0, atol=0)


@pytest.mark.parametrize("training", [True, False])
def test_cutting_leaves_the_mode_of_the_network_as_it_was(training):
    network = tiny_network("bert").train(training)
    cut(network, 2)
    assert network.training is training


@pytest.mark.parametrize("layer", [0, 5, -1])
def test_a_layer_that_is_not_there_is_refused(layer):
    with pytest.raises(XtError, match=rf"There is no layer {layer}: this encoder has 4 layers\.\nChoose from 1 to 4"):
        cut(tiny_network("bert"), layer)


def test_a_network_whose_layers_are_not_found_is_named():
    sizes = {"vocab_size": 60, "hidden_size": 16, "embedding_size": 8, "num_attention_heads": 2}
    albert = AutoModel.from_config(AutoConfig.for_model("albert", **sizes, intermediate_size=24))
    with pytest.raises(XtError, match="does not find the layers of a albert network"):
        stack(albert)


def test_a_file_that_is_missing_damaged_or_of_another_network_is_refused(tmp_path):
    network = tiny_network("bert")
    with pytest.raises(XtError, match="not readable"):
        restore(network, tmp_path / UPPER)
    (tmp_path / UPPER).write_bytes(b"nonsense")
    with pytest.raises(XtError, match="not readable"):
        restore(network, tmp_path / UPPER)
    save_upper(cut(tiny_network("bert", intermediate_size=32), 3), tmp_path / UPPER)
    with pytest.raises(XtError, match=r"does not fit on top of this bert network \(layer 5\)"):
        restore(network, tmp_path / UPPER)
    assert len(stack(network)) == 4


# -- vectors of every layer --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["bert", "xlm-roberta"])
def folder(request, tiny_folder, tmp_path_factory):
    """The tiny folder with a network of four layers of this kind."""
    made = tmp_path_factory.mktemp("four") / request.param
    shutil.copytree(tiny_folder, made)
    network = tiny_network(request.param, vocab_size=1300, hidden_size=32, max_position_embeddings=70)
    network.save_pretrained(made, safe_serialization=True)
    return made


@pytest.fixture(scope="module")
def texts(corpus):
    return [*corpus[0].foreign, *corpus[1].english, "brot", "brot und käse und brot und käse und brot"]


def by_hand(folder, texts, layer: int, pooling: str = "mean", normalize: bool = True) -> np.ndarray:
    """One text at a time through transformers alone."""
    network = AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        with torch.no_grad():
            hidden = network(
                tokenizer("query: " + text, return_tensors="pt")["input_ids"], output_hidden_states=True
            ).hidden_states[layer][0]
        vector = (hidden.mean(0) if pooling == "mean" else hidden[0]).numpy()
        rows.append(vector / np.linalg.norm(vector) if normalize else vector)
    return np.stack(rows)


@pytest.mark.parametrize(("pooling", "normalize"), [("mean", True), ("mean", False), ("cls", True)])
def test_vectors_of_layers_are_pooled_hidden_states(folder, texts, pooling, normalize):
    spec = EncoderSpec("four", 32, pooling, normalize, {"query": "query: "}, "query", 64)
    engine = torch_engine.TorchEngine(torch_engine.load_network(folder), spec, device="cpu")
    encoder = TextEncoder(spec, TextTokenizer(folder / "tokenizer.json", 64), engine, pad_id=1)
    found = torch_engine.encode_layers(encoder, texts, [3, 0, 1])
    assert list(found) == [3, 0, 1]
    for layer, vectors in found.items():
        np.testing.assert_allclose(vectors, by_hand(folder, texts, layer, pooling, normalize), atol=2e-5)


def test_the_last_layer_gives_the_vectors_of_the_encoder_itself(folder, texts):
    encoder = torch_engine.load_encoder(resolve.resolve(str(folder)), device="cpu")
    last = torch_engine.encode_layers(encoder, texts, [4])[4]
    np.testing.assert_allclose(last, encoder.encode(texts).vectors, atol=1e-6)
    with pytest.raises(XtError, match="There is no layer 5: this encoder has 4 layers"):
        torch_engine.encode_layers(encoder, texts, [4, 5])


@pytest.fixture(scope="module")
def cut_folder(folder, tmp_path_factory):
    """The same, cut at layer 2, the layers above beside it."""
    made = tmp_path_factory.mktemp("cut") / "cut"
    shutil.copytree(folder, made)
    network = torch_engine.load_network(folder)
    upper = cut(network, 2)
    network.save_pretrained(made, safe_serialization=True)
    save_upper(upper, made / UPPER)
    return made


def test_sentence_transformers_reads_a_cut_folder_as_pooled_from_its_layer(folder, cut_folder, texts):
    from sentence_transformers import SentenceTransformer

    vectors = SentenceTransformer(str(cut_folder), device="cpu").encode(texts)
    np.testing.assert_allclose(vectors, by_hand(folder, texts, 2), atol=2e-5)


def test_xt_reads_a_cut_folder_so_too_and_finds_its_upper_layers(folder, cut_folder, texts):
    encoder = torch_engine.load_encoder(resolve.resolve(str(cut_folder)), device="cpu")
    np.testing.assert_allclose(encoder.encode(texts).vectors, by_hand(folder, texts, 2), atol=2e-5)
    whole = torch_engine.whole_encoder(encoder, cut_folder)
    found = torch_engine.encode_layers(whole, texts, [2, 4])
    np.testing.assert_allclose(found[2], encoder.encode(texts).vectors, atol=1e-6)
    np.testing.assert_allclose(found[4], by_hand(folder, texts, 4), atol=2e-5)
    assert len(stack(torch_engine.network_of(encoder))) == 2
    assert torch_engine.whole_encoder(encoder, folder) is encoder
