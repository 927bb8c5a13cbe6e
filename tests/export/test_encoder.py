"""One model of a repository: written whole and proven, or not at all; refused when anything in it was changed.

Tests `export/pipeline.py` as well.
"""

from __future__ import annotations

import ast
import json
import shutil
import unicodedata
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx import numpy_helper
from tritonclient.grpc import model_config_pb2

from xt.core.encoder.onnx_engine import check_golden, load_model
from xt.core.encoder.resolve import Resolved
from xt.core.encoder.spec import EncoderSpec
from xt.core.errors import CheckFailed, XtError
from xt.core.files.artifact import MANIFEST, open_artifact, open_repository
from xt.export.encoder import EncoderExport, export_model
from xt.export.pipeline import triton_config

FILES = ["1/golden.json", "1/model.onnx", "1/model.py", "1/tokenizer.json", "config.pbtxt", "parity.json"]
GOLDEN_CONFIG = (Path(__file__).parent / "golden-config.pbtxt").read_text()


def quiet(line: str) -> None:
    """Report to nobody."""


def template() -> str:
    return (resources.files("xt.model_repository") / "encoder" / "config.pbtxt").read_text()


def parsed(file: Path) -> model_config_pb2.ModelConfig:
    return text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())


def content(folder: Path) -> dict[str, bytes]:
    """Give every file but the bytecode that a server's Python leaves beside model.py."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.parent.name != "__pycache__"]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


@pytest.fixture
def copy(tiny_repository, tmp_path):
    """A repository of our own to spoil."""
    return Path(shutil.copytree(tiny_repository, tmp_path / "repository"))


def test_the_folder_holds_what_triton_needs_and_nothing_else(tiny_repository):
    assert sorted(content(tiny_repository)) == sorted(f"encoder/{f}" for f in [*FILES, MANIFEST])
    assert [p.name for p in tiny_repository.iterdir()] == ["encoder"]  # no draft is left
    assert sorted(open_artifact(tiny_repository / "encoder", kind="model").manifest["files"]) == FILES


def test_the_served_code_is_the_committed_code(tiny_repository):
    committed = (resources.files("xt.model_repository") / "encoder" / "1" / "model.py").read_text()
    assert (tiny_repository / "encoder" / "1" / "model.py").read_text() == committed


@pytest.mark.parametrize("kind", ["classifier", "encoder", "retriever", "text"])
def test_a_models_code_is_the_installed_ones(kind):
    """So that a model that one release exported is served by the next."""
    file = resources.files("xt.model_repository") / kind / "1" / "model.py"
    _, imported, public = ast.parse(file.read_text()).body
    assert isinstance(imported, ast.ImportFrom)
    assert imported.module.startswith("xt.core.served_")
    assert [name.asname for name in imported.names] == ["TritonPythonModel"]
    assert ast.unparse(public) == "__all__ = ['TritonPythonModel']"


def test_the_facts_name_the_files_the_encoder_and_the_checkpoint(tiny, tiny_repository):
    artifact = open_artifact(tiny_repository / "encoder")
    facts = artifact.facts
    assert EncoderSpec.from_json(facts["encoder"]) == tiny.spec
    assert facts["precision"] == "fp32"
    assert facts["pad_id"] == 1  # <pad> of the tiny tokenizer
    assert artifact.manifest["parents"] == [tiny.parent] == [facts["checkpoint"]]
    assert all((artifact.path / facts[k]).is_file() for k in ("graph", "tokenizer", "golden"))
    assert facts["parity"] == json.loads((artifact.path / "parity.json").read_text())
    assert facts["parity"]["passed"] is True
    assert [s["stage"] for s in facts["parity"]["stages"]] == ["onnx", "fused"]


def test_tritons_own_parser_reads_the_config(tiny, tiny_repository):
    config = parsed(tiny_repository / "encoder" / "config.pbtxt")
    assert (config.name, config.backend, config.max_batch_size) == ("encoder", "python", 256)
    shapes = {t.name: (model_config_pb2.DataType.Name(t.data_type), list(t.dims)) for t in config.output}
    assert shapes == {
        "embedding": ("TYPE_FP32", [tiny.spec.dim]),
        "embedding_fp16": ("TYPE_FP16", [tiny.spec.dim]),
        "embedding_int8": ("TYPE_INT8", [tiny.spec.dim]),
        "scale": ("TYPE_FP32", [1]),
        "tokens": ("TYPE_INT32", [1]),
        "truncated": ("TYPE_BOOL", [1]),
    }
    inputs = {t.name: (model_config_pb2.DataType.Name(t.data_type), list(t.dims)) for t in config.input}
    assert inputs == {"text": ("TYPE_STRING", [1]), "ids": ("TYPE_INT32", [-1]), "packed": ("TYPE_UINT8", [-1])}
    assert all(t.optional for t in config.input)
    assert config.HasField("dynamic_batching")
    assert not config.dynamic_batching.HasField("default_queue_policy")
    (group,) = config.instance_group
    assert (group.count, group.kind) == (1, model_config_pb2.ModelInstanceGroup.KIND_CPU)
    facts = json.loads(config.parameters["xt"].string_value)
    assert EncoderSpec.from_json(facts["encoder"]) == tiny.spec
    assert facts["checkpoint"] == tiny.parent


def test_the_outputs_length_is_the_graphs(tiny_repository):
    config = parsed(tiny_repository / "encoder" / "config.pbtxt")
    graph = onnx.load(str(tiny_repository / "encoder" / "1" / "model.onnx")).graph
    encoder, _ = load_model(tiny_repository / "encoder", device="cpu")
    assert [o.name for o in graph.output] == ["sentence_embedding"]
    assert encoder.encode(["hello"]).vectors.shape[1] == config.output[0].dims[0]


def test_the_committed_template_fills_to_the_golden_text():
    assert triton_config(template(), "some-name", 384, {"b": 1, "a": '"ü'}) == GOLDEN_CONFIG


def test_the_golden_vectors_hold(tiny_repository):
    encoder, artifact = load_model(tiny_repository / "encoder", device="cpu")
    assert 0.99999 <= check_golden(encoder, artifact.path, artifact) <= 1.00001
    golden = json.loads((artifact.path / "1" / "golden.json").read_text())
    # every foreign sentence of the tiny corpus, and the two that Unicode writes in two forms a second time, decomposed
    assert len(golden["texts"]) == len(golden["vectors"]) == 14
    for at, text in zip((12, 13), ("die katze schläft heute", "wir essen brot und käse"), strict=True):
        assert golden["texts"][at] == unicodedata.normalize("NFD", text) != text
        np.testing.assert_allclose(golden["vectors"][at], golden["vectors"][golden["texts"].index(text)], atol=1e-5)
    assert golden["cosine_min"] == 0.99999
    parity = json.loads((artifact.path / "parity.json").read_text())
    assert parity["sentences"] == 12 + 4 + 3 + 1  # foreign, English, longer; German alone has two forms


def test_golden_texts_of_earlier_releases_are_tokenised_as_they_were_then(tiny_repository, tmp_path, rewritten):
    decomposed = unicodedata.normalize("NFD", "die katze schläft heute")
    here, _ = load_model(tiny_repository / "encoder", device="cpu")
    ids, _ = here.tokenizer.as_written()([decomposed], prefix="query: ")
    vectors = here.encode_ids(ids).tolist()

    def change(folder, **more):
        golden = {"texts": [decomposed], "cosine_min": 0.99999, "vectors": vectors, **more}
        (folder / "1" / "golden.json").write_text(json.dumps(golden))

    old = rewritten(tiny_repository / "encoder", tmp_path / "old", change)
    encoder, _ = load_model(old.path, device="cpu")
    assert check_golden(encoder, old.path, old) >= 0.99999
    new = rewritten(tiny_repository / "encoder", tmp_path / "new", lambda folder: change(folder, composed=True))
    with pytest.raises(XtError, match="gives other vectors than at export"):
        check_golden(encoder, new.path, new)


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_in_any_file_is_refused(copy, name):
    file = copy / "encoder" / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(XtError, match=rf"encoder is damaged: {name}: content differs"):
        load_model(copy / "encoder")
    with pytest.raises(XtError, match="is damaged"):
        open_repository(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_cut_file_is_refused(copy, name):
    file = copy / "encoder" / name
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(XtError, match=rf"{name}: {len(data) - 1} bytes, expected {len(data)}"):
        load_model(copy / "encoder")
    file.unlink()
    with pytest.raises(XtError, match=rf"{name}: missing"):
        load_model(copy / "encoder")


def test_edited_facts_are_refused(copy):
    file = copy / "encoder" / MANIFEST
    manifest = json.loads(file.read_text())
    manifest["facts"]["encoder"]["pooling"] = "cls"
    file.write_text(json.dumps(manifest))
    with pytest.raises(XtError, match="its facts were edited"):
        load_model(copy / "encoder")


def test_other_golden_vectors_are_refused_even_with_a_manifest_that_fits(tiny_repository, tmp_path, rewritten):
    def change(folder):
        golden = json.loads((folder / "1" / "golden.json").read_text())
        golden["vectors"][3] = golden["vectors"][4]
        (folder / "1" / "golden.json").write_text(json.dumps(golden))

    artifact = rewritten(tiny_repository / "encoder", tmp_path / "other", change)
    encoder, _ = load_model(artifact.path, device="cpu")
    with pytest.raises(
        XtError, match=r"gives other vectors than at export: cosine -?0\.\d+, expected at least 0.99999"
    ):
        check_golden(encoder, artifact.path, artifact)


def test_other_weights_are_refused_even_with_a_manifest_that_fits(tiny_repository, tmp_path, rewritten):
    def change(folder):
        model = onnx.load(str(folder / "1" / "model.onnx"))
        table = max(model.graph.initializer, key=lambda i: np.prod(i.dims))
        value = numpy_helper.to_array(table).copy()
        value[20:60] *= 1.1
        table.CopyFrom(numpy_helper.from_array(value, table.name))
        onnx.save(model, str(folder / "1" / "model.onnx"))

    artifact = rewritten(tiny_repository / "encoder", tmp_path / "other", change)
    encoder, _ = load_model(artifact.path, device="cpu")
    with pytest.raises(XtError, match="gives other vectors than at export"):
        check_golden(encoder, artifact.path, artifact)


def test_golden_vectors_of_nan_do_not_pass(tiny_repository, tmp_path, rewritten):
    def change(folder):
        golden = json.loads((folder / "1" / "golden.json").read_text())
        golden["vectors"][0] = [float("nan")] * 32
        (folder / "1" / "golden.json").write_text(json.dumps(golden))

    artifact = rewritten(tiny_repository / "encoder", tmp_path / "other", change)
    encoder, _ = load_model(artifact.path, device="cpu")
    with pytest.raises(XtError, match="cosine nan"):
        check_golden(encoder, artifact.path, artifact)


def test_an_existing_model_is_refused_before_any_work(tiny, corpus, copy):
    before = content(copy)
    lines: list[str] = []
    with pytest.raises(XtError, match="is complete already") as error:
        export_model(tiny, copy, corpus=corpus, options=EncoderExport(precision="fp32"), report=lines.append)
    assert "--force" in error.value.hint
    assert lines == []
    assert content(copy) == before


def test_force_replaces_one_model_and_leaves_the_others(tiny, corpus, copy):
    shutil.copytree(copy / "encoder", copy / "neighbour")
    neighbour, old = content(copy / "neighbour"), open_artifact(copy / "encoder")
    export_model(tiny, copy, corpus=corpus, options=EncoderExport(precision="fp16"), force=True, report=quiet)
    new = open_artifact(copy / "encoder")
    assert (old.facts["precision"], new.facts["precision"]) == ("fp32", "fp16")
    assert new.hash != old.hash
    assert content(copy / "neighbour") == neighbour
    assert sorted(p.name for p in copy.iterdir()) == ["encoder", "neighbour"]
    encoder, artifact = load_model(copy / "encoder", device="cpu")
    assert check_golden(encoder, artifact.path, artifact) >= 0.999
    assert [s["stage"] for s in new.facts["parity"]["stages"]] == ["onnx", "fused", "fp16"]


def test_a_threshold_that_cannot_hold_writes_nothing(tiny, corpus, tmp_path):
    repository = tmp_path / "repository"
    with pytest.raises(
        CheckFailed, match=r"nothing was written: int8-blocks: cosine_p1 0\.99\d+ is below 1\.1"
    ) as error:
        export_model(
            tiny,
            repository,
            corpus=corpus,
            options=EncoderExport(precision="int8-blocks", min_cosine=1.1),
            report=quiet,
        )
    assert error.value.exit_code == 3
    assert "--min-cosine" in error.value.hint
    assert list(repository.iterdir()) == []


def test_a_quick_export_measures_the_served_graph_alone_in_every_language_by_the_same_thresholds(
    tiny, corpus, tmp_path
):
    quick = EncoderExport(precision="fp16", provider="cpu", quick=True)
    artifact = export_model(tiny, tmp_path, corpus=corpus, options=quick, report=quiet)
    parity = artifact.facts["parity"]
    assert [s["stage"] for s in parity["stages"]] == ["fp16"]
    assert parity["languages"] == len({b.language for b in corpus})
    assert parity["thresholds"] == {
        "cosine_min": 0.999,
        "cosine_p1": 0.9995,
        "neighbour_agreement": 0.98,
        "batch_cosine_min": 0.999,
    }
    assert artifact.facts["quick"] is True
    with pytest.raises(CheckFailed, match=r"nothing was written: fp16: cosine_p1 [01]\.\d+ is below 1\.1"):
        export_model(tiny, tmp_path, corpus=corpus, name="other", options=replace(quick, min_cosine=1.1), report=quiet)
    assert [p.name for p in tmp_path.iterdir()] == ["encoder"]


def test_a_threshold_that_cannot_hold_counts_for_fp32_too_and_spares_the_model_there(tiny, corpus, copy):
    before = content(copy)
    with pytest.raises(CheckFailed, match=r"nothing was written: fused: cosine_p1 \d\.\d+ is below 1\.1\."):
        export_model(
            tiny, copy, corpus=corpus, options=EncoderExport(precision="fp32", min_cosine=1.1), force=True, report=quiet
        )
    assert content(copy) == before


def test_half_precision_keeps_its_own_thresholds(tiny, corpus, tmp_path):
    artifact = export_model(
        tiny, tmp_path, corpus=corpus, options=EncoderExport(precision="fp16"), name="half", report=quiet
    )
    assert [s["stage"] for s in artifact.facts["parity"]["stages"]] == ["onnx", "fused", "fp16"]
    graph = onnx.load(str(artifact.path / "1" / "model.onnx")).graph
    kinds = {onnx.TensorProto.DataType.Name(i.data_type) for i in graph.initializer if len(i.dims) == 2}
    assert kinds == {"FLOAT16"}
    assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    full = (tmp_path / "half" / "1" / "model.onnx").stat().st_size
    assert artifact.facts["parity"]["stages"][2]["megabytes"] == pytest.approx(full / 1e6, abs=0.06)


@pytest.mark.parametrize("name", ["", "1st", "a/b", "../up", "a b", "x" * 65, "model.v2"])
def test_a_name_that_triton_or_the_disk_would_not_take_is_refused(tiny, corpus, tmp_path, name):
    with pytest.raises(XtError, match="cannot name a model"):
        export_model(tiny, tmp_path / "r", corpus=corpus, name=name, report=quiet)
    assert not (tmp_path / "r").exists()


def test_an_unknown_precision_is_answered_with_the_near_one(tiny, corpus, tmp_path):
    with pytest.raises(XtError, match=r"Unknown precision 'int-8'\. Did you mean int8") as error:
        export_model(tiny, tmp_path / "r", corpus=corpus, options=EncoderExport(precision="int-8"), report=quiet)
    assert error.value.hint == "Known: auto, bf16, fp16, fp32, int8, int8-blocks."
    assert not (tmp_path / "r").exists()


def test_a_model_type_that_is_not_supported_leaves_nothing(tiny, corpus, tmp_path):
    """A real checkpoint of another architecture, with the tiny tokenizer."""
    from transformers import MPNetConfig, MPNetModel

    folder = Path(shutil.copytree(tiny.path, tmp_path / "mpnet", ignore=shutil.ignore_patterns("*.safetensors")))
    config = MPNetConfig(vocab_size=1300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    MPNetModel(config).save_pretrained(folder)
    other = Resolved(folder, tiny.spec, {"kind": "folder", "path": str(folder), "hash": ""})
    with pytest.raises(XtError, match="Unknown model type for export 'mpnet'"):
        export_model(other, tmp_path / "r", corpus=corpus, report=quiet)
    assert list((tmp_path / "r").iterdir()) == []
