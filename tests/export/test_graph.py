"""The graph at every stage: against transformers by itself, in other shapes than the trace, and node by node."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from xt.core.encoder.onnx_engine import OnnxEngine
from xt.core.encoder.text import TextEncoder, TextTokenizer, pad
from xt.core.encoder.torch_engine import load_network
from xt.core.errors import XtError
from xt.export import graph

WORDS = "good morning world the cat sleeps today guten morgen welt habari za asubuhi bonjour tout le monde".split()


def sentences(count, longest, seed=0):
    """Texts of 1 to `longest` words, the first one of `longest`."""
    random = np.random.default_rng(seed)
    lengths = [longest, *random.integers(1, longest + 1, count - 1)]
    return [" ".join(random.choice(WORDS, n)) for n in lengths]


def run(file, encoder_folder, texts):
    """Run a graph once over all texts in one padded batch, by ONNX Runtime alone."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(encoder_folder / "tokenizer.json"))
    rows = [np.array(tokenizer.encode("query: " + t).ids, np.int64) for t in texts]
    ids, mask = pad(rows, 1)
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})[0]


def cosine(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def nodes(file):
    return [n.op_type for n in onnx.load(str(file)).graph.node]


@pytest.mark.parametrize(("count", "longest"), [(1, 1), (1, 61), (3, 5), (40, 30)])
@pytest.mark.parametrize("stage", ["raw", "packed", "split"])
def test_every_fp32_graph_gives_transformers_vectors_at_any_batch_size_and_length(
    graphs, plain, tiny_folder, stage, count, longest
):
    texts = sentences(count, longest)
    found = run(getattr(graphs, stage), tiny_folder, texts)
    assert found.shape == (count, 32)
    np.testing.assert_allclose(found, plain(texts), atol=2e-5)


def test_the_raw_graph_names_its_two_dynamic_axes_and_its_output(graphs):
    session = ort.InferenceSession(str(graphs.raw), providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("input_ids", "tensor(int64)", ["batch", "tokens"]),
        ("attention_mask", "tensor(int64)", ["batch", "tokens"]),
    ]
    (output,) = session.get_outputs()
    assert (output.name, output.type, output.shape[0]) == ("sentence_embedding", "tensor(float)", "batch")
    opset = {o.domain: o.version for o in onnx.load(str(graphs.raw)).opset_import}
    assert opset[""] == graph.OPSET


@pytest.mark.parametrize("stage", ["raw", "packed", "split", "int8"])
def test_tokens_under_a_mask_of_zero_are_not_read(graphs, stage):
    """Masked tokens are not read: whatever stands under mask 0 leaves the vector as it is."""
    session = ort.InferenceSession(str(getattr(graphs, stage)), providers=["CPUExecutionProvider"])
    ids = np.array([[0, 5, 9, 10, 11, 2, 1, 1]], np.int64)
    mask = np.array([[1, 1, 1, 1, 1, 1, 0, 0]], np.int64)
    other = ids.copy()
    other[0, 6:] = [20, 30]
    (a,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
    (b,) = session.run(None, {"input_ids": other, "attention_mask": mask})
    (c,) = session.run(None, {"input_ids": other, "attention_mask": np.ones_like(mask)})
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert np.abs(a - c).max() > 1e-3


def test_fusion_leaves_one_attention_two_norms_and_one_gelu_a_layer(graphs):
    counts = graphs.packed_nodes
    assert counts["Attention"] == 2
    assert counts["MultiHeadAttention"] == 0
    assert counts["BiasGelu"] + counts["Gelu"] == 2
    assert counts["FastGelu"] == 0  # an approximation
    assert counts["SkipLayerNormalization"] + counts["LayerNormalization"] == 5  # two a layer and the embeddings'
    assert not {"Softmax", "Erf"} & set(nodes(graphs.packed))
    assert sum(counts.values()) == len(nodes(graphs.packed)) < len(nodes(graphs.raw)) / 2


def test_unpacked_attention_keeps_six_matrix_products_a_layer_for_quantisation(graphs):
    assert graphs.split_nodes["MultiHeadAttention"] == 2
    assert graphs.split_nodes["Attention"] == 0
    weights = {i.name for i in onnx.load(str(graphs.split)).graph.initializer}
    products = [n for n in onnx.load(str(graphs.split)).graph.node if n.op_type == "MatMul" and n.input[1] in weights]
    assert len(products) == 12


def test_a_graph_that_did_not_fuse_is_refused_with_its_counts(graphs, tiny, tmp_path):
    config = copy.deepcopy(load_network(tiny.path).config)
    config.num_hidden_layers = 3  # one more than the graph has
    with pytest.raises(XtError, match=r"3 layers did not fuse: 2 attention, 5 norm, 2 GELU") as error:
        graph.fuse(graphs.raw, tmp_path / "x.onnx", SimpleNamespace(config=config))
    assert "lock file" in error.value.hint


def test_a_model_type_that_cannot_be_fused_is_refused_before_export(tiny, tmp_path):
    from transformers import GPT2Config, GPT2Model

    network = GPT2Model(GPT2Config(vocab_size=40, n_embd=32, n_layer=1, n_head=2, n_positions=16))
    with pytest.raises(XtError, match="Unknown model type for export 'gpt2'") as error:
        graph.to_onnx(network, tiny.spec, tmp_path / "x.onnx")
    assert "xlm-roberta" in error.value.hint
    assert not list(tmp_path.iterdir())


def test_quantised_blocks_are_those_of_a_plain_loop():
    matrix = np.random.default_rng(0).normal(size=(5, 96)).astype(np.float32)
    matrix[2, 32:64] = 0  # a block of nothing
    levels, scales = graph.quantize_blocks(matrix)
    assert (levels.dtype, levels.shape, scales.shape) == (np.uint8, (5, 3, 32), (5, 3))
    for row in range(5):
        for block in range(3):
            values = [float(x) for x in matrix[row, block * 32 : block * 32 + 32]]
            scale = max(abs(x) for x in values) / 127 or 1.0
            assert scales[row, block] == pytest.approx(scale, rel=1e-6)
            expected = [round(x / scale) + 128 for x in values]
            assert max(abs(a - int(b)) for a, b in zip(expected, levels[row, block], strict=True)) == 0
    assert (levels[2, 1] == 128).all()


def test_no_weight_moves_by_more_than_half_a_scale_and_the_largest_does_not_move():
    matrix = np.random.default_rng(1).standard_cauchy(size=(40, 64)).astype(np.float32)  # with outliers
    levels, scales = graph.quantize_blocks(matrix)
    back = ((levels.astype(np.float64) - 128) * scales[..., None]).reshape(matrix.shape)
    bound = np.repeat(scales / 2, 32, axis=1)
    assert (np.abs(back - matrix) <= bound * (1 + 1e-4)).all()
    largest = np.abs(matrix.reshape(40, 2, 32)).argmax(-1)[..., None]
    picked = np.take_along_axis(matrix.reshape(40, 2, 32), largest, -1)
    np.testing.assert_allclose(np.take_along_axis(back.reshape(40, 2, 32), largest, -1), picked, rtol=1e-5)
    assert int(levels.min()) >= 1  # symmetric: -127..127


def test_the_int8_graph_holds_every_weight_and_the_vocabulary_in_blocks(graphs):
    model = onnx.load(str(graphs.int8))
    products = [n for n in model.graph.node if n.op_type == "MatMulNBits"]
    tables = [n for n in model.graph.node if n.op_type == "GatherBlockQuantized"]
    assert graphs.int8_nodes == {"MatMulNBits": 12, "GatherBlockQuantized": 1}
    assert (len(products), len(tables)) == (12, 1)
    weights = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    assert not [n for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in weights]
    assert all(weights[n.input[1]].dtype == np.uint8 for n in (*products,))
    levels = weights[tables[0].input[0]]
    assert levels.dtype == np.uint8
    assert levels.shape[1] == 32
    assert max(w.size for w in weights.values() if w.dtype == np.float32) < levels.size / 8


def test_the_int8_vocabulary_lies_half_a_scale_from_the_checkpoints(graphs, tiny_folder):
    from safetensors.numpy import load_file

    table = load_file(tiny_folder / "model.safetensors")["embeddings.word_embeddings.weight"]
    model = onnx.load(str(graphs.int8))
    weights = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    (node,) = (n for n in model.graph.node if n.op_type == "GatherBlockQuantized")
    levels, scales = weights[node.input[0]].astype(np.float64), weights[node.input[2]]
    back = (levels.reshape(*scales.shape, 32) - 128) * scales[..., None]
    assert (np.abs(back - table.reshape(back.shape)) <= scales[..., None] / 2 * (1 + 1e-4)).all()


def test_int8_vectors_are_near_transformers(graphs, plain, tiny_folder):
    texts = sentences(40, 20, seed=3)
    assert cosine(run(graphs.int8, tiny_folder, texts), plain(texts)).min() > 0.99


def test_int8_vectors_do_not_depend_on_batch_mates(graphs, tiny_folder):
    texts = sentences(24, 40, seed=4)
    together = run(graphs.int8, tiny_folder, texts)
    alone = np.concatenate([run(graphs.int8, tiny_folder, [t]) for t in texts])
    assert cosine(together, alone).min() >= 0.99999


def test_dynamic_quantisation_would_fail_that_test(graphs, tiny_folder, tmp_path):
    """Why `quantize` is ours: the usual way scales a whole batch at once, and the check above sees it."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    file = tmp_path / "dynamic.onnx"
    quantize_dynamic(graphs.raw, file, weight_type=QuantType.QUInt8, op_types_to_quantize=["MatMul"])
    texts = sentences(24, 40, seed=4)
    together = run(file, tiny_folder, texts)
    alone = np.concatenate([run(file, tiny_folder, [t]) for t in texts])
    assert cosine(together, alone).min() < 0.99999


def small_graph(width, *, shared=False):
    """x @ w, or x @ w @ w with one weight."""
    weight = np.random.default_rng(0).normal(size=(width, width)).astype(np.float32)
    steps = [helper.make_node("MatMul", ["x", "w"], ["h" if shared else "y"], "first")]
    if shared:
        steps.append(helper.make_node("MatMul", ["h", "w"], ["y"], "second"))
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", width]) for n in ("x", "y")]
    made = helper.make_graph(steps, "g", value[:1], value[1:], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), weight


def test_a_weight_that_two_nodes_read_is_quantised_once(tmp_path):
    model, weight = small_graph(64, shared=True)
    onnx.save(model, tmp_path / "a.onnx")
    assert graph.quantize(tmp_path / "a.onnx", tmp_path / "b.onnx") == {"MatMulNBits": 2}
    assert len(onnx.load(str(tmp_path / "b.onnx")).graph.initializer) == 2
    x = np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)
    session = ort.InferenceSession(str(tmp_path / "b.onnx"), providers=["CPUExecutionProvider"])
    assert cosine(session.run(None, {"x": x})[0], x @ weight @ weight).min() > 0.999


def test_a_width_that_does_not_divide_by_the_block_is_refused(tmp_path):
    model, _ = small_graph(40)
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(XtError, match=r"No weight of a\.onnx") as error:
        graph.quantize(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert "32" in error.value.hint
    assert not (tmp_path / "b.onnx").exists()


def test_a_graph_without_our_output_or_of_other_bytes_is_refused(tmp_path):
    model, _ = small_graph(32)
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(XtError, match="no output 'sentence_embedding'"):
        OnnxEngine(tmp_path / "a.onnx", device="cpu")
    (tmp_path / "c.onnx").write_bytes(b"no graph")
    with pytest.raises(XtError, match=r"cannot load .*c\.onnx"):
        OnnxEngine(tmp_path / "c.onnx", device="cpu")
    with pytest.raises(XtError, match="Unknown device 'tpu'"):
        OnnxEngine(tmp_path / "a.onnx", device="tpu")


def test_the_text_encoder_over_the_graph_cuts_batches_and_keeps_the_order(graphs, tiny, plain):
    encoder = TextEncoder(
        tiny.spec, TextTokenizer(tiny.path / "tokenizer.json", 64), OnnxEngine(graphs.packed, device="cpu"), pad_id=1
    )
    texts = sentences(60, 50, seed=9)
    np.testing.assert_allclose(encoder.encode(texts, token_budget=128).vectors, plain(texts), atol=2e-5)
