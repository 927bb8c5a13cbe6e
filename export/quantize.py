"""Static int8: scales of weights and activations fixed at export, on real text, by NNCF with SmoothQuant."""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.core.encoder.buckets import bucket
from xt.core.encoder.text import TextTokenizer, pad
from xt.core.errors import XtError, require
from xt.export.graph import quiet

CALIBRATION_TEXTS = 160
"""Texts that the activations' ranges are taken from."""
Feeds = dict[str, npt.NDArray[np.int64]]


def calibration_texts(texts: Sequence[str], count: int = CALIBRATION_TEXTS, seed: int = 0) -> list[str]:
    """Choose texts of all kinds of length from a corpus: half as they are, half several of them in a row.

    The corpora that parity is measured on hold single sentences; what is served is longer, too.
    """
    chance = random.Random(seed)
    some = [chance.choice(texts) for _ in range(count)]
    for i in range(0, count, 2):
        some[i] = " ".join([some[i], *chance.choices(texts, k=chance.choice((1, 2, 4, 8)))])
    return some


def feeds(texts: Iterable[str], tokenizer: TextTokenizer, prefix: str, pad_id: int) -> list[Feeds]:
    """Tokenise each text into the graph's inputs, as a server would run it alone, padded to its bucket."""
    rows, _ = tokenizer(list(texts), prefix=prefix, truncate=True)
    arrays = [pad([row], pad_id, width=bucket(len(row))) for row in rows]
    return [{"input_ids": ids, "attention_mask": mask} for ids, mask in arrays]


def quantize_static(source: Path, target: Path, samples: Sequence[Feeds]) -> dict[str, int]:
    """Write the int8 copy of an unfused fp32 graph; give the counts of its quantising nodes.

    Matrix products run on unsigned 8-bit activations and signed 8-bit weights with a scale a column, the vocabulary
    table is kept in 8 bits. SmoothQuant (Xiao et al. 2023, arXiv 2211.10438, section 4) moves the activations'
    outliers into the weights first. All scales are constants of the graph, so that no text moves another's. The
    products of attention, two of every hundred operations, stay in fp32: to quantise both sides at run time costs more.

    Raises XtError when nothing could be quantised.
    """
    # NNCF reports its use through this package where it is installed; without it, it reports nothing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    require("nncf", extra="quantize", purpose="Static int8 (--precision int8)")
    import nncf
    import onnx

    logging.getLogger("nncf").setLevel(logging.ERROR)
    graph = onnx.load(str(source))
    tables = shorten_tables(graph, samples)
    with quiet(), weights_read_once():
        model = nncf.quantize(
            graph,
            nncf.Dataset([{**sample, **tables.places(sample)} for sample in samples]),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(samples),
            ignored_scope=nncf.IgnoredScope(names=products_of_activations(graph)),
        )
    tables.put_back(model)
    look_up_mask(model)
    look_up_before_scaling(model)
    counts: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
    if not counts:
        raise XtError(f"No product of {source.name} could be brought to 8 bits.", "Try --precision int8-blocks.")
    onnx.save(model, str(target), save_as_external_data=_bytes(model) > 2_000_000_000)
    return counts


@dataclass(frozen=True)
class Table:
    """A vocabulary table that a graph looks token ids up in."""

    node: str
    """The look-up."""
    ids: str
    """The graph's input that holds the ids."""
    name: str
    rows: npt.NDArray[np.float32]
    kept: npt.NDArray[np.int64]
    """The ids whose rows the shortened table has, ascending."""

    @property
    def places(self) -> str:
        """Name the input of the shortened graph that holds the ids' places among `kept`."""
        return f"{self.name}_places"


class Tables:
    """The vocabulary tables of a graph, taken out while its scales are being set."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self.tables = tables

    def places(self, sample: Feeds) -> Feeds:
        """Return the inputs that a sample needs besides its own."""
        return {table.places: np.searchsorted(table.kept, sample[table.ids]) for table in self.tables}

    def put_back(self, model: Any) -> None:
        """Put every row, in 8 bits with a scale of its own as NNCF's, in the place of the shortened table's.

        Raises XtError when NNCF brought the rows that it saw to other levels.
        """
        from onnx import numpy_helper

        maker = {name: node for node in model.graph.node for name in node.output}
        values = {t.name: t for t in model.graph.initializer}
        for table in self.tables:
            lookup = next(node for node in model.graph.node if node.name == table.node)
            lookup.input[1] = table.ids
            (extra,) = [given for given in model.graph.input if given.name == table.places]
            model.graph.input.remove(extra)
            names = [table.name]
            arrays: list[npt.NDArray[Any]] = [table.rows]
            scaled = maker.get(lookup.input[0])
            if scaled is not None and scaled.op_type == "DequantizeLinear":
                names = list(scaled.input)
                levels, scales = int8_rows(table.rows)
                arrays = [levels, scales, np.zeros(len(levels), np.int8)]
            for name, array in zip(names, arrays, strict=True):
                theirs = numpy_helper.to_array(values[name])
                if not np.allclose(theirs, array[table.kept], rtol=1e-6, atol=0):
                    raise XtError(
                        f"NNCF brought the table {table.name} to other levels than xt: {name} differs.",
                        "Install the version of NNCF of the lock file.",
                    )
                values[name].CopyFrom(numpy_helper.from_array(array, name))
            shapes = {*names, *(scaled.output if scaled is not None else [])}
            for known in [v for v in model.graph.value_info if v.name in shapes]:
                model.graph.value_info.remove(known)


def shorten_tables(model: Any, samples: Sequence[Feeds]) -> Tables:
    """Leave of a graph's vocabulary tables the rows that the samples read; return the tables for `Tables.put_back`.

    Four fifths of a small multilingual encoder are its vocabulary, whose scales depend on itself alone, while NNCF
    copies, serialises and reads a graph whole a dozen times. The look-ups read a new input, the places of the ids.
    """
    from onnx import TensorProto, helper, numpy_helper

    values = {t.name: t for t in model.graph.initializer}
    inputs = {given.name: given for given in model.graph.input}
    found: list[Table] = []
    for node in model.graph.node:
        name = node.input[0] if node.op_type == "Gather" else ""
        readers = sum(given == name for n in model.graph.node for given in n.input)
        if name not in values or node.input[1] not in inputs or readers > 1:
            continue
        dims, ids = values[name].dims, node.input[1]
        if len(dims) != 2 or values[name].data_type != TensorProto.FLOAT or any(a.i for a in node.attribute):
            continue
        rows = numpy_helper.to_array(values[name])
        widest = [int(np.abs(rows).max(1).argmax())]  # of which no row's scale is below a hundredth
        kept = np.unique(np.concatenate([widest, *(sample[ids].ravel() for sample in samples)]))
        table = Table(node.name, ids, name, rows, kept)
        values[name].CopyFrom(numpy_helper.from_array(table.rows[kept], name))
        shape = [d.dim_param or d.dim_value for d in inputs[ids].type.tensor_type.shape.dim]
        model.graph.input.append(helper.make_tensor_value_info(table.places, TensorProto.INT64, shape))
        node.input[1] = table.places
        found.append(table)
    return Tables(found)


def int8_rows(rows: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Bring (rows, columns) to levels from -127 to 127, one scale a row: levels (rows, columns), scales (rows,).

    As NNCF does: no row's range is taken to be below a hundredth of the widest one's.

    >>> int8_rows(np.array([[0.5, -1.27], [2.54, 0.0], [0.0, 0.001]], np.float32))[0]
    array([[  50, -127],
           [ 127,    0],
           [   0,    5]], dtype=int8)
    """
    highest = np.abs(rows).max(1)
    least = np.float32(max(float(highest.max()) * 0.01, 8e-5))
    scales = np.maximum(highest, least) / np.float32(127)
    levels = np.empty(rows.shape, np.int8)
    for start in range(0, len(rows), 4096):  # a few megabytes at a time
        part = slice(start, start + 4096)
        levels[part] = np.clip(np.rint(rows[part] / scales[part, None]), -127, 127)
    return levels, scales


@contextmanager
def weights_read_once() -> Iterator[None]:
    """Let NNCF take the range of each weight once, from the graph.

    It declares every weight an output of the network, and takes its range anew at every sample, to the same numbers.
    """
    import nncf.onnx.statistics.aggregator as module
    from nncf.tensor import Tensor
    from onnx import numpy_helper

    at: Any = module
    theirs: Any = at.ONNXStatisticsAggregator

    class WeightsOnce(theirs):
        statistic_points: Any

        def collect_statistics(self, model: Any, graph: Any) -> None:
            values = {t.name: t for t in model.graph.initializer}
            nodes = {node.name: node for node in model.graph.node}
            activations = type(self.statistic_points)()
            for of_node in self.statistic_points.values():
                for point in of_node:
                    target = point.target_point
                    name = ""
                    if target.is_weight_target_point():
                        name = nodes[target.target_node_name].input[target.port_id]
                    if name not in values:
                        activations.add_statistic_point(point)
                        continue
                    array = Tensor(numpy_helper.to_array(values[name]))
                    for collectors in point.algorithm_to_tensor_collectors.values():
                        for collector in collectors:
                            collector.register_input_for_all_reducers(array)
            every, self.statistic_points = self.statistic_points, activations
            super().collect_statistics(model, graph)
            self.statistic_points = every

    at.ONNXStatisticsAggregator = WeightsOnce
    try:
        yield
    finally:
        at.ONNXStatisticsAggregator = theirs


def products_of_activations(model: Any) -> list[str]:
    """Name the matrix products of a graph that have no weight on either side: those of attention."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [n.name for n in model.graph.node if n.op_type == "MatMul" and not weights & set(n.input)]


def look_up_mask(model: Any) -> int:
    """Make `(1 - mask) * lowest`, added to attention's scores, a look-up in a table of two values; give how many.

    OpenVINO computes the product anew in every layer, at the size of the scores.
    """
    from onnx import helper, numpy_helper

    maker = {name: node for node in model.graph.node for name in node.output}
    values = {t.name: t for t in model.graph.initializer}
    values |= {n.output[0]: n.attribute[0].t for n in model.graph.node if n.op_type == "Constant"}
    found = 0
    for product in list(model.graph.node):
        if product.op_type != "Mul" or product.input[1] not in values:
            continue
        rest = maker.get(product.input[0])
        if rest is None or rest.op_type != "Sub" or rest.input[0] not in values:
            continue
        cast = maker.get(rest.input[1])
        if cast is None or cast.op_type != "Cast":
            continue
        lowest = numpy_helper.to_array(values[product.input[1]])
        if lowest.size != 1 or numpy_helper.to_array(values[rest.input[0]]).reshape(-1).tolist() != [1.0]:
            continue
        table = f"{product.output[0]}_table"
        pair = np.array([lowest.reshape(-1)[0], 0.0], np.float32)
        model.graph.initializer.append(numpy_helper.from_array(pair, table))
        lookup = helper.make_node("Gather", [table, cast.input[0]], list(product.output), name=product.name, axis=0)
        _replace(model.graph, product, [lookup])
        found += 1
    return found


def look_up_before_scaling(model: Any) -> int:
    """Take rows out of 8-bit tables first and scale them then, instead of a whole table scaled at load; give how many.

    Bit for bit the same vectors; a process then holds a quarter of the vocabulary table's memory.
    """
    from onnx import TensorProto, helper, numpy_helper

    maker = {name: node for node in model.graph.node for name in node.output}
    values = {t.name: t for t in model.graph.initializer}
    found = 0
    for lookup in list(model.graph.node):
        scaled = maker.get(lookup.input[0]) if lookup.op_type == "Gather" else None
        if scaled is None or scaled.op_type != "DequantizeLinear" or scaled.input[0] not in values:
            continue
        table, scale, *zero = scaled.input
        rows, scales = values[table].dims[0], numpy_helper.to_array(values[scale])
        axis = next((a.i for a in scaled.attribute if a.name == "axis"), 1)
        readers = sum(name == scaled.output[0] for n in model.graph.node for name in n.input)
        shifted = any(numpy_helper.to_array(values[z]).any() for z in zero)
        if scales.size != rows or axis or readers > 1 or shifted:
            continue
        values[scale].CopyFrom(numpy_helper.from_array(scales.reshape(-1, 1), scale))
        out, ids = lookup.output[0], lookup.input[1]
        nodes = [
            helper.make_node("Gather", [table, ids], [f"{out}_levels"], name=f"{lookup.name}_levels", axis=0),
            helper.make_node(
                "Cast", [f"{out}_levels"], [f"{out}_cast"], name=f"{lookup.name}_cast", to=TensorProto.FLOAT
            ),
            helper.make_node("Gather", [scale, ids], [f"{out}_scale"], name=f"{lookup.name}_scale", axis=0),
            helper.make_node("Mul", [f"{out}_cast", f"{out}_scale"], [out], name=lookup.name),
        ]
        _replace(model.graph, lookup, nodes)
        model.graph.node.remove(scaled)
        found += 1
    return found


def _replace(graph: Any, node: Any, others: Sequence[Any]) -> None:
    """Put other nodes where a node was."""
    place = next(i for i, n in enumerate(graph.node) if n is node or n == node)
    graph.node.remove(node)
    for offset, other in enumerate(others):
        graph.node.insert(place + offset, other)


def _bytes(model: Any) -> int:
    return int(model.ByteSize())
