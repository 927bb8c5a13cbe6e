"""Static int8: what is changed in a graph before and after its scales are set changes no vector."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from xt.core.errors import XtError
from xt.export import quantize
from xt.export.quantize import (
    calibration_texts,
    feeds,
    int8_rows,
    look_up_before_scaling,
    look_up_mask,
    products_of_activations,
    quantize_static,
    shorten_tables,
)

ROWS, WIDTH = 50, 6


def model(nodes, weights, inputs, outputs):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(graph, **feeds):
    onnx.checker.check_model(graph)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def table(*, axis=0, zero=0, scales=ROWS):
    chance = np.random.default_rng(0)
    weights = {
        "levels": chance.integers(-128, 128, (ROWS, WIDTH), np.int8),
        "scale": chance.uniform(0.01, 0.1, scales).astype(np.float32),
        "zero": np.full(scales, zero, np.int8),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["levels", "scale", "zero"], ["scaled"], axis=axis),
        helper.make_node("Gather", ["scaled", "ids"], ["out"], name="look", axis=0),
    ]
    wanted = [("out", TensorProto.FLOAT, ["b", "t", WIDTH])]
    return model(nodes, weights, [("ids", TensorProto.INT64, ["b", "t"])], wanted)


def test_rows_of_a_table_are_scaled_behind_the_look_up_to_the_same_bits():
    graph = table()
    ids = np.array([[0, 7, 49], [3, 3, 1]])
    before = run(graph, ids=ids)
    assert look_up_before_scaling(graph) == 1
    assert "DequantizeLinear" not in [n.op_type for n in graph.graph.node]
    assert run(graph, ids=ids).tobytes() == before.tobytes()


@pytest.mark.parametrize("options", [{"zero": 3}, {"axis": 1, "scales": WIDTH}])
def test_a_table_scaled_otherwise_is_left_as_it_is(options):
    graph = table(**options)
    before = graph.SerializeToString()
    assert look_up_before_scaling(graph) == 0
    assert graph.SerializeToString() == before


def test_the_vocabulary_and_the_weights_out_of_the_way_leave_the_same_graph_bit_for_bit(
    graphs, tiny, corpus, tmp_path, monkeypatch
):
    """Against NNCF with the whole graph in its hands, which takes several times as long on a real vocabulary."""
    pytest.importorskip("nncf")
    from xt.core.encoder.text import TextTokenizer

    texts = [text for bitext in corpus for text in (*bitext.foreign, *bitext.english)]
    tokenizer = TextTokenizer(tiny.path / "tokenizer.json", tiny.spec.max_length)
    samples = feeds(calibration_texts(texts, 12), tokenizer, "query: ", 1)
    counts = quantize_static(graphs.raw, tmp_path / "ours.onnx", samples)
    monkeypatch.setattr(quantize, "shorten_tables", lambda model, samples: quantize.Tables([]))
    monkeypatch.setattr(quantize, "weights_read_once", nullcontext)
    assert quantize_static(graphs.raw, tmp_path / "theirs.onnx", samples) == counts
    ours, theirs = (onnx.load(str(tmp_path / f"{name}.onnx")).graph for name in ("ours", "theirs"))
    assert [n.SerializeToString() for n in ours.node] == [n.SerializeToString() for n in theirs.node]
    values, expected = ({t.name: numpy_helper.to_array(t) for t in g.initializer} for g in (ours, theirs))
    assert {n: (a.dtype, a.shape, a.tobytes()) for n, a in values.items()} == {
        n: (a.dtype, a.shape, a.tobytes()) for n, a in expected.items()
    }
    assert [i.name for i in ours.input] == [i.name for i in theirs.input]
    onnx.checker.check_model(str(tmp_path / "ours.onnx"))


def lookup_graph(rows):
    nodes = [helper.make_node("Gather", ["rows", "ids"], ["out"], name="look", axis=0)]
    inputs = [("ids", TensorProto.INT64, ["b", "t"])]
    return model(nodes, {"rows": rows}, inputs, [("out", TensorProto.FLOAT, ["b", "t", rows.shape[1]])])


def test_a_shortened_table_looks_the_same_rows_up_and_is_put_back_whole():
    rows = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
    graph, samples = lookup_graph(rows), [{"ids": np.array([[7, 49, 7]])}, {"ids": np.array([[3]])}]
    tables = shorten_tables(graph, samples)
    widest = int(np.abs(rows).max(1).argmax())
    assert list(graph.graph.initializer[0].dims) == [len({3, 7, 49, widest}), WIDTH]
    for sample in samples:
        places = tables.places(sample)
        assert run(graph, **{"ids": sample["ids"], **places}).tobytes() == rows[sample["ids"]].tobytes()
    tables.put_back(graph)
    assert [i.name for i in graph.graph.input] == ["ids"]
    assert run(graph, ids=np.arange(ROWS)[None])[0].tobytes() == rows.tobytes()


def test_a_table_brought_to_other_levels_than_ours_is_refused():
    rows = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
    graph = lookup_graph(rows)
    tables = shorten_tables(graph, [{"ids": np.array([[7, 49]])}])
    levels, scales = int8_rows(rows[tables.tables[0].kept])
    graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(levels, "levels"))
    graph.graph.initializer.append(numpy_helper.from_array(scales * np.float32(1.01), "scale"))
    graph.graph.initializer.append(numpy_helper.from_array(np.zeros(len(levels), np.int8), "zero"))
    graph.graph.node.insert(0, helper.make_node("DequantizeLinear", ["levels", "scale", "zero"], ["scaled"], axis=0))
    graph.graph.node[1].input[0] = "scaled"
    with pytest.raises(XtError, match="NNCF brought the table rows to other levels than xt: scale differs"):
        tables.put_back(graph)


def test_levels_lie_half_a_scale_from_their_rows_and_no_row_has_too_fine_a_scale():
    rows = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
    rows[5] *= 1e-6
    levels, scales = int8_rows(rows)
    assert np.abs(rows - levels * scales[:, None]).max() <= scales.max() * 0.5001
    assert (np.abs(levels).max(1) == 127).sum() == ROWS - 1
    assert scales[5] == pytest.approx(np.abs(rows).max() / 127 / 100)
    assert not levels[5].any()


def mask_graph(one=1.0):
    weights = {"one": np.array(one, np.float32), "lowest": np.array(np.finfo(np.float32).min, np.float32)}
    nodes = [
        helper.make_node("Cast", ["mask"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["one", "real"], ["hidden"]),
        helper.make_node("Mul", ["hidden", "lowest"], ["added"], name="product"),
        helper.make_node("Add", ["scores", "added"], ["sum"]),
        helper.make_node("Softmax", ["sum"], ["out"], axis=-1),
    ]
    inputs = [("mask", TensorProto.INT64, ["b", "t"]), ("scores", TensorProto.FLOAT, ["b", "t"])]
    return model(nodes, weights, inputs, [("out", TensorProto.FLOAT, ["b", "t"])])


def test_a_mask_that_is_looked_up_hides_the_same_tokens():
    graph = mask_graph()
    feeds = {
        "mask": np.array([[1, 1, 0, 0], [1, 1, 1, 1]]),
        "scores": np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32),
    }
    before = run(graph, **feeds)
    assert look_up_mask(graph) == 1
    assert [n.op_type for n in graph.graph.node if n.output[0] == "added"] == ["Gather"]
    after = run(graph, **feeds)
    assert after.tobytes() == before.tobytes()
    assert (after[0, 2:] == 0).all()


def test_another_difference_is_no_mask():
    graph = mask_graph(one=2.0)
    assert look_up_mask(graph) == 0
    assert "Mul" in [n.op_type for n in graph.graph.node]


def test_products_without_weights_are_those_of_attention():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["query"], name="dense"),
        helper.make_node("MatMul", ["query", "x"], ["out"], name="attention"),
    ]
    shape = ["n", "n"]
    graph = model(
        nodes,
        {"w": np.eye(3, dtype=np.float32)},
        [("x", TensorProto.FLOAT, shape)],
        [("out", TensorProto.FLOAT, shape)],
    )
    assert products_of_activations(graph) == ["attention"]


def test_calibration_texts_are_short_and_long_and_the_same_for_a_seed():
    texts = [f"sentence {i}" for i in range(20)]
    chosen = calibration_texts(texts, 40, seed=3)
    assert chosen == calibration_texts(texts, 40, seed=3)
    assert chosen != calibration_texts(texts, 40, seed=4)
    assert sum(text in texts for text in chosen) == 20
    assert max(len(text.split()) for text in chosen) > 6
