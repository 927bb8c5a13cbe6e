"""The repository for NVIDIA's container: two models out of one, described as the graph is, and the text model served.

Tests `serve/runtime/text.py` and `serve/triton/model_config.py` as well.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.grpc as grpc
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from xt.core.encoder.onnx_engine import load_model
from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, new_artifact, open_artifact, open_repository, read_manifest
from xt.export import native
from xt.export.encoder import EncoderExport, export_model
from xt.serve.client.encoder import TritonEncoder
from xt.serve.triton.launcher import TritonServer

COMMITTED = Path(__file__).resolve().parents[2] / "model_repository"
STAND_IN = '''
import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """What the ONNX Runtime backend does, without it: names, types and shapes as the configuration has them."""

    def initialize(self, args):
        file = f"{args['model_repository']}/{args['model_version']}/model.onnx"
        self.session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        answers = []
        for request in requests:
            feeds = {t.name(): t.as_numpy() for t in request.inputs()}
            assert all(f.dtype == np.int64 and f.ndim == 2 for f in feeds.values())
            names = list(request.requested_output_names())
            found = self.session.run(names, feeds)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor(n, v) for n, v in zip(names, found)]))
        return answers
'''


@pytest.fixture(scope="module")
def fused_repository(tiny, corpus, tmp_path_factory) -> Path:
    """The tiny encoder with the graph that ONNX Runtime's own provider runs: fused, its nodes not standard ONNX."""
    repository = tmp_path_factory.mktemp("fused")
    export_model(
        tiny,
        repository,
        corpus=corpus,
        options=EncoderExport(precision="fp32", provider="cpu"),
        report=lambda line: None,
    )
    return repository


def parse(file: Path) -> pb.ModelConfig:
    return text_format.Parse(file.read_text(encoding="utf-8"), pb.ModelConfig())


def split(source: Path, repository: Path, name: str = "encoder", **options):
    """What an export for NVIDIA's container does after it made the model for the `python` runtime."""
    manifest = read_manifest(source)
    with new_artifact(repository / name, kind="model") as draft:
        shutil.copytree(source, draft.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST, "__pycache__"))
        draft.facts, draft.parents = manifest["facts"], manifest["parents"]
        native.split_native(draft, repository, name, **options)
    return open_artifact(repository / name)


def replace_model(folder: Path, change) -> None:
    """Change a model folder, with a manifest that fits."""
    manifest = read_manifest(folder)
    with new_artifact(folder, kind="model", force=True) as draft:
        shutil.copytree(folder, draft.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST, "__pycache__"))
        change(draft.path)
        draft.facts, draft.parents = manifest["facts"], manifest["parents"]


def stand_in(folder: Path) -> None:
    """Put a Python model in the place of the backend that the wheel lacks; all else of the configuration stays."""
    config = parse(folder / "config.pbtxt")
    assert config.backend == "onnxruntime"
    config.backend = "python"
    config.default_model_filename = "model.py"
    (folder / "config.pbtxt").write_text(text_format.MessageToString(config))
    (folder / "1" / "model.py").write_text(STAND_IN)


@pytest.fixture(scope="module")
def repository(tiny_repository, tmp_path_factory):
    """The tiny encoder for NVIDIA's image on CPUs, its graph's backend replaced."""
    repository = tmp_path_factory.mktemp("native")
    split(tiny_repository / "encoder", repository, device="cpu")
    replace_model(repository / "encoder_graph", stand_in)
    return repository


@pytest.fixture(scope="module")
def served(repository):
    with TritonServer(repository, trust_code=True) as server:
        client = grpc.InferenceServerClient(server.url)
        yield client
        client.close()


def ask(client, *, texts=None, ids=None, outputs=("embedding", "tokens", "truncated"), model="encoder", **options):
    if texts is not None:
        data = np.array([[t if isinstance(t, bytes) else t.encode()] for t in texts], dtype=np.object_)
        tensor = grpc.InferInput("text", list(data.shape), "BYTES")
        tensor.set_data_from_numpy(data)
    else:
        tensor = grpc.InferInput("ids", list(ids.shape), "INT32")
        tensor.set_data_from_numpy(ids)
    wanted = [grpc.InferRequestedOutput(o) for o in outputs]
    return client.infer(model, [tensor], outputs=wanted, client_timeout=60, **options)


def cosine(a, b):
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


TEXTS = [f"word{i} " + "the cat sleeps today " * (i % 13) for i in range(60)]


def test_one_model_becomes_two_and_both_open(tiny_repository, tmp_path):
    before = open_artifact(tiny_repository / "encoder")
    text = split(tiny_repository / "encoder", tmp_path)
    models = open_repository(tmp_path)
    assert sorted(models) == ["encoder", "encoder_graph"]
    graph = models["encoder_graph"]
    assert (graph.path / "1/model.onnx").read_bytes() == (before.path / "1/model.onnx").read_bytes()
    assert not list(text.path.rglob("*.onnx*"))
    assert sorted(p.name for p in graph.path.rglob("*") if p.is_file()) == [
        "config.pbtxt",
        "model.onnx",
        "ones",
        MANIFEST,
    ]
    assert text.facts["native"]["graph_hash"] == graph.hash
    assert graph.as_parent() in text.manifest["parents"]
    assert {k: v for k, v in text.facts.items() if k not in ("graph", "native", "runtime")} == {
        k: v for k, v in before.facts.items() if k not in ("graph", "runtime")
    }


def test_the_folder_still_loads_in_process(tiny_repository, repository):
    here = load_model(tiny_repository / "encoder", device="cpu")[0].encode(TEXTS[:9]).vectors
    np.testing.assert_array_equal(load_model(repository / "encoder", device="cpu")[0].encode(TEXTS[:9]).vectors, here)


def test_a_kill_between_the_two_models_leaves_neither_half(tiny_repository, tmp_path, monkeypatch):
    def broken(*args):
        raise RuntimeError("killed here")

    monkeypatch.setattr(native, "external_files", broken)
    with pytest.raises(RuntimeError, match="killed here"):
        split(tiny_repository / "encoder", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_graphs_configuration_says_what_the_graph_says(tiny_repository, tmp_path):
    split(tiny_repository / "encoder", tmp_path)
    config = parse(tmp_path / "encoder_graph" / "config.pbtxt")
    graph = onnx.load(str(tmp_path / "encoder_graph" / "1" / "model.onnx")).graph
    assert [i.name for i in config.input] == [i.name for i in graph.input] == ["input_ids", "attention_mask"]
    assert {(i.data_type, tuple(i.dims)) for i in config.input} == {(pb.TYPE_INT64, (-1,))}
    (axis,) = graph.output[0].type.tensor_type.shape.dim[1:]
    dims = (axis.dim_value,) if axis.HasField("dim_value") else (-1,)
    assert [(o.name, o.data_type, tuple(o.dims)) for o in config.output] == [("sentence_embedding", pb.TYPE_FP32, dims)]
    assert (config.name, config.backend, config.max_batch_size) == ("encoder_graph", "onnxruntime", 256)
    assert config.HasField("dynamic_batching")
    assert not config.dynamic_batching.HasField("default_queue_policy")


def test_the_graph_is_warmed_at_every_width_with_as_many_rows_as_it_will_get(tiny_repository, tmp_path):
    text = split(tiny_repository / "encoder", tmp_path, device="cpu")
    config = parse(tmp_path / "encoder_graph" / "config.pbtxt")
    widths = text.facts["native"]["widths"]
    assert widths == [16, 24, 32, 48, 64]
    assert [(w.batch_size, w.inputs["input_ids"].dims[0]) for w in config.model_warmup] == [
        (64, 16), (42, 24), (32, 32), (21, 48), (16, 64),
    ]  # fmt: skip
    for sample in config.model_warmup:
        assert set(sample.inputs) == {i.name for i in config.input}
        for given in sample.inputs.values():
            file = tmp_path / "encoder_graph" / "warmup" / given.input_data_file
            assert file.stat().st_size >= given.dims[0] * 8
            assert set(np.frombuffer(file.read_bytes(), np.int64)) == {1}


@pytest.mark.parametrize("longest", [16, 30, 64, 100, 512, 514, 8192])
def test_every_length_has_a_width_that_wastes_at_most_half_and_none_is_too_long(longest):
    widths = native.widths(longest)
    assert widths == sorted(set(widths))
    assert widths[-1] == longest
    for tokens in range(9, longest + 1):
        assert next(w for w in widths if w >= tokens) <= max(16, tokens * 1.5)
    assert len(widths) <= 20


@pytest.mark.parametrize(
    ("device", "accelerator", "kind", "gpu", "cpu"),
    [
        ("gpu", "auto", pb.ModelInstanceGroup.KIND_GPU, ["cuda"], []),
        ("gpu", "cuda", pb.ModelInstanceGroup.KIND_GPU, ["cuda"], []),
        ("cpu", "auto", pb.ModelInstanceGroup.KIND_CPU, [], []),
        ("cpu", "none", pb.ModelInstanceGroup.KIND_CPU, [], []),
    ],
)
def test_a_fused_graph_gets_the_provider_that_knows_its_nodes(
    fused_repository, tmp_path, device, accelerator, kind, gpu, cpu
):
    split(fused_repository / "encoder", tmp_path, device=device, accelerator=accelerator, instances=2)
    config = parse(tmp_path / "encoder_graph" / "config.pbtxt")
    assert [(g.kind, g.count) for g in config.instance_group] == [(kind, 2)]
    found = config.optimization.execution_accelerators
    assert [a.name for a in found.gpu_execution_accelerator] == gpu
    assert [a.name for a in found.cpu_execution_accelerator] == cpu
    assert config.optimization.graph.level == 0


def plain_graph(outputs=("sentence_embedding",), batch: str | int = "batch", kind=onnx.TensorProto.INT64):
    """A graph of standard nodes: the mean of the ids, as one number a text."""
    from onnx import helper

    inputs = [helper.make_tensor_value_info(n, kind, [batch, "tokens"]) for n in ("input_ids", "attention_mask")]
    made = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [batch, 1]) for n in outputs]
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["x"], to=onnx.TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["x"], [outputs[0]], axes=[1], keepdims=1),
    ]
    return helper.make_model(helper.make_graph(nodes, "g", inputs, made), opset_imports=[helper.make_opsetid("", 13)])


def test_a_graph_of_standard_nodes_goes_to_tensorrt_with_profiles_for_every_shape():
    graph = plain_graph()
    assert native.choose_accelerator(graph, "gpu", "auto") == "tensorrt"
    assert native.choose_accelerator(graph, "cpu", "auto") == "openvino"
    config = native.graph_config(
        graph, "g", device="gpu", accelerator="tensorrt", instances=1, longest=512, token_budget=16384
    )
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    given = dict(accelerator.parameters)
    assert given["precision_mode"] == "FP16"
    assert given["trt_profile_min_shapes"] == "input_ids:1x1,attention_mask:1x1"
    assert given["trt_profile_opt_shapes"] == "input_ids:256x64,attention_mask:256x64"
    assert given["trt_profile_max_shapes"] == "input_ids:256x512,attention_mask:256x512"
    for sample in config.model_warmup:  # nothing that will be asked lies outside the profile
        assert sample.batch_size <= 256
        assert sample.inputs["input_ids"].dims[0] <= 512


def test_openvino_gets_the_graph_unoptimised():
    config = native.graph_config(
        plain_graph(), "g", device="cpu", accelerator="openvino", instances=1, longest=64, token_budget=512
    )
    assert [a.name for a in config.optimization.execution_accelerators.cpu_execution_accelerator] == ["openvino"]
    assert config.optimization.graph.level == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "Unknown device 'tpu'"),
        ({"device": "gpu", "accelerator": "openvino"}, "Unknown accelerator for a gpu 'openvino'"),
        ({"device": "gpu", "accelerator": "tensorrt"}, "tensorrt cannot run this graph: Attention, "),
        ({"device": "cpu", "accelerator": "openvino"}, "openvino cannot run this graph"),
        ({"instances": 0}, "0 instances cannot serve"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(fused_repository, tmp_path, options, message):
    with pytest.raises(XtError) as error:
        split(fused_repository / "encoder", tmp_path, **options)
    assert message in error.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (plain_graph(outputs=("other",)), "no output 'sentence_embedding'"),
        (plain_graph(batch=1), "first axis of input_ids is fixed"),
        (plain_graph(kind=onnx.TensorProto.DOUBLE), "input_ids of the graph is DOUBLE"),
    ],
)
def test_a_graph_that_cannot_be_served_is_refused(graph, message):
    with pytest.raises(XtError) as error:
        native.graph_config(graph, "g", device="cpu", accelerator="none", instances=1, longest=64, token_budget=512)
    assert message in error.value.message


def test_weights_beside_a_graph_travel_with_it(tiny_repository, tmp_path):
    """A graph of over 2 GB has its weights in a file of its own; here a small one is made so."""
    source = tmp_path / "source"
    shutil.copytree(tiny_repository / "encoder", source)
    file = source / "1" / "model.onnx"
    expected = load_model(tiny_repository / "encoder", device="cpu")[0].encode(["good morning"]).vectors
    model = onnx.load(str(file))
    onnx.save(model, str(file), save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    assert (source / "1" / "model.onnx.data").stat().st_size > 10_000
    split(source, tmp_path / "out", device="cpu")
    assert (tmp_path / "out/encoder_graph/1/model.onnx.data").is_file()
    assert not list((tmp_path / "out/encoder").rglob("*.data"))
    found = load_model(tmp_path / "out" / "encoder", device="cpu")[0].encode(["good morning"]).vectors
    np.testing.assert_array_equal(found, expected)


def committed_configs() -> list[Path]:
    return sorted(COMMITTED.glob("*/config.pbtxt"))


def test_every_committed_model_has_a_configuration():
    folders = sorted(p.name for p in COMMITTED.iterdir() if p.is_dir() and not p.name.startswith("_"))
    # The text model is the encoder's with another engine: it is served under the encoder's configuration.
    assert [f.parent.name for f in committed_configs()] == [f for f in folders if f != "text"]
    assert {"classifier", "encoder", "graph", "retriever", "text"} <= set(folders)


@pytest.mark.parametrize("file", committed_configs(), ids=lambda f: f.parent.name)
def test_every_committed_configuration_is_tritons(file):
    config = parse(file)
    assert config.name == file.parent.name
    assert config.backend in ("python", "onnxruntime")
    assert config.max_batch_size >= 1
    assert not config.dynamic_batching.HasField("default_queue_policy")  # it stalls Triton 2.51's batcher
    has_code = (file.parent / "1" / "model.py").is_file()
    assert has_code == (config.backend == "python")
    if has_code:
        assert config.input
        assert config.output


def test_every_written_configuration_is_tritons(tiny_repository, repository):
    files = sorted([*tiny_repository.glob("*/config.pbtxt"), *repository.glob("*/config.pbtxt")])
    assert [f.parent.name for f in files].count("encoder_graph") == 1
    assert len(files) == len(open_repository(tiny_repository)) + len(open_repository(repository))
    for file in files:
        assert parse(file).name == file.parent.name


# Served by the real Triton; the graph's backend alone is a stand-in.


def test_vectors_through_the_graphs_model_are_those_in_process(served, tiny_repository):
    here = load_model(tiny_repository / "encoder", device="cpu")[0].encode(TEXTS)
    answer = ask(served, texts=TEXTS)
    assert cosine(answer.as_numpy("embedding"), here.vectors).min() > 0.99999
    np.testing.assert_allclose(answer.as_numpy("embedding"), here.vectors, atol=1e-5)
    assert answer.as_numpy("tokens")[:, 0].tolist() == here.tokens.tolist()
    assert not answer.as_numpy("truncated").any()


def test_xts_own_client_reads_the_text_model(repository, served, tiny):
    with TritonServer(repository, trust_code=True) as server:
        encoder = TritonEncoder(server.url, "encoder")
        assert encoder.spec == tiny.spec
        assert encoder.encode(TEXTS[:3], prefix="passage").vectors.shape == (3, 32)
        encoder.close()


def test_ids_give_what_their_text_gives(served, tiny_repository):
    encoder = load_model(tiny_repository / "encoder", device="cpu")[0]
    rows, _ = encoder.tokenizer(TEXTS[:20], prefix=encoder.spec.prefix(None))
    ids = np.full((20, max(map(len, rows))), -1, np.int32)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    by_ids = ask(served, ids=ids)
    np.testing.assert_allclose(
        by_ids.as_numpy("embedding"), ask(served, texts=TEXTS[:20]).as_numpy("embedding"), atol=1e-5
    )
    assert by_ids.as_numpy("tokens")[:, 0].tolist() == [len(r) for r in rows]


def test_only_what_is_asked_for_is_answered_in_each_type(served):
    full = ask(served, texts=TEXTS[:4]).as_numpy("embedding")
    answer = ask(served, texts=TEXTS[:4], outputs=("embedding_fp16", "embedding_int8", "scale"))
    assert {o.name for o in answer.get_response().outputs} == {"embedding_fp16", "embedding_int8", "scale"}
    np.testing.assert_allclose(answer.as_numpy("embedding_fp16"), full, atol=1e-3)
    np.testing.assert_allclose(
        answer.as_numpy("embedding_int8") * answer.as_numpy("scale"), full, atol=answer.as_numpy("scale").max()
    )


def test_dimensions_cut_and_bring_back_to_length_one(served):
    full = ask(served, texts=TEXTS[:4]).as_numpy("embedding")
    cut = ask(served, texts=TEXTS[:4], parameters={"dimensions": 8}).as_numpy("embedding")
    np.testing.assert_allclose(cut, full[:, :8] / np.linalg.norm(full[:, :8], axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"texts": ["good " * 100]}, "103 tokens; the encoder reads at most 64"),
        ({"texts": [b"\xff"]}, "text 0 is not valid UTF-8"),
        ({"texts": [" "]}, "is empty"),
        ({"texts": ["a"], "parameters": {"dimensions": 33}}, "dimensions is 33, expected 1 to 32"),
        ({"texts": ["a"], "parameters": {"nonsense": 1}}, "Unknown parameter 'nonsense'"),
        ({"texts": ["a"], "parameters": {"prefix": "qery"}}, "Did you mean query?"),
        ({"ids": np.array([[-1, -1]], np.int32)}, "ids 0 is empty"),
        ({"ids": np.array([[0, -1, 2]], np.int32)}, "ids 0 holds -1 at position 1"),
        ({"ids": np.array([[0, *[8] * 63, 2]], np.int32)}, "ids 0 has 65 tokens; the encoder reads at most 64"),
        ({"ids": np.array([[8, 9, 2]], np.int32)}, "check_embedding_ctx_length=False"),
        ({"ids": np.zeros((1, 5), np.int32), "parameters": {"prefix": "query"}}, "prefix goes with texts"),
    ],
)
def test_bad_input_is_an_invalid_argument_that_names_the_field(served, given, message):
    with pytest.raises(grpc.InferenceServerException) as error:
        ask(served, **given)
    assert "INVALID_ARGUMENT" in error.value.status()
    assert message in error.value.message()


def test_many_callers_at_once_get_their_own_vectors(served, tiny_repository):
    here = load_model(tiny_repository / "encoder", device="cpu")[0].encode(TEXTS).vectors

    def one(i):
        return ask(served, texts=[TEXTS[i]]).as_numpy("embedding")[0]

    with ThreadPoolExecutor(16) as pool:
        found = np.stack(list(pool.map(one, range(60))))
    assert cosine(found, here).min() > 0.99999


HEARD_LATE = """
import os
import signal
import subprocess

from xt.serve.runtime.text import ServedText


class TritonPythonModel(ServedText):
    def initialize(self, args):
        super().initialize(args)
        server = os.getppid()
        os.kill(server, signal.SIGSTOP)
        subprocess.Popen(["sh", "-c", f"sleep 1; kill -CONT {server}"])  # a thread of this process does not get to run
"""


def test_triton_survives_a_text_model_that_it_hears_late_of(repository, tmp_path):
    """Triton 2.51 ends with SIGSEGV when a model asks another before Triton knows it to be loaded."""
    late = tmp_path / "repository"
    shutil.copytree(repository, late)
    replace_model(late / "encoder", lambda folder: (folder / "1" / "model.py").write_text(HEARD_LATE))
    with TritonServer(late, trust_code=True) as server:
        client = grpc.InferenceServerClient(server.url)
        assert ask(client, texts=["good morning"]).as_numpy("embedding").shape[0] == 1
        client.close()


def test_a_text_model_whose_golden_vectors_differ_answers_nothing(repository, tmp_path):
    wrong = tmp_path / "repository"
    shutil.copytree(repository, wrong)

    def change(folder):
        golden = json.loads((folder / "1" / "golden.json").read_text())
        golden["vectors"][0] = golden["vectors"][0][::-1]
        (folder / "1" / "golden.json").write_text(json.dumps(golden))

    replace_model(wrong / "encoder", change)
    with TritonServer(wrong, trust_code=True) as server:
        client = grpc.InferenceServerClient(server.url)
        for _ in range(2):
            with pytest.raises(grpc.InferenceServerException) as error:
                ask(client, texts=["good morning"])
            assert "gives other vectors than at export" in error.value.message()
        client.close()


def test_a_text_model_whose_graph_does_not_load_answers_unavailable(repository, tmp_path):
    wrong = tmp_path / "repository"
    shutil.copytree(repository, wrong)
    file = wrong / "encoder" / "1" / "model.py"
    shutil.rmtree(wrong / "encoder_graph")
    replace_model(
        wrong / "encoder",
        lambda folder: (folder / "1" / "model.py").write_text(
            file.read_text().replace("CHECK_SECONDS = 10.0", "CHECK_SECONDS = 0.5")
        ),
    )
    with TritonServer(wrong) as server:
        client = grpc.InferenceServerClient(server.url)
        with pytest.raises(grpc.InferenceServerException) as error:
            ask(client, texts=["good morning"])
        assert "UNAVAILABLE" in error.value.status()
        assert "The graph of encoder is not ready" in error.value.message()
        client.close()
