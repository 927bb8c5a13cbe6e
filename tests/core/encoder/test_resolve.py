"""An encoder is found by its name or folder, read as its files say, and gives the vectors that other libraries give."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from xt.core.encoder import resolve as encoders
from xt.core.encoder import torch_engine
from xt.core.encoder.resolve import ENCODERS, from_folder, resolve
from xt.core.encoder.spec import EncoderSpec
from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, new_artifact

TEN_LANGUAGES = [
    "The weather is nice today.",
    "Where is the nearest railway station?",
    "Das Wetter ist heute schön.",
    "Wo ist der nächste Bahnhof?",
    "Il fait beau aujourd'hui.",
    "Hier, elle a acheté un vieux livre très épais sur l'histoire des chemins de fer de montagne.",
    "¿Dónde está la biblioteca?",
    "No lo sé.",
    "Hali ya hewa ni nzuri leo.",
    "Kitabu hiki ni changu.",
    "今天天气很好。",
    "最近的火车站在哪里？",
    "Сегодня хорошая погода.",
    "Я не знаю, где находится вокзал.",
    "الطقس جميل اليوم.",
    "أين أقرب محطة قطار؟",
    "आज मौसम अच्छा है।",
    "मुझे नहीं पता।",
    "Cuacane apik dina iki.",
    "Aku ora ngerti.",
]


@pytest.fixture
def tiny_copy(tiny_folder, tmp_path):
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """No hub cache and no network."""
    import huggingface_hub

    def nowhere(*_args, **_kwargs):
        raise OSError("nothing here\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", nowhere)


@pytest.fixture(scope="module")
def real(bundled):
    return torch_engine.load_encoder(bundled, device="cpu").encode(TEN_LANGUAGES).vectors


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_sentence_transformers_gives_the_same_vectors(bundled, real):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(bundled.path), device="cpu")
    found = model.encode(TEN_LANGUAGES)
    assert cosines(found, real).min() >= 0.9999
    np.testing.assert_allclose(np.linalg.norm(real, axis=1), 1, atol=1e-5)
    assert np.abs(found - real).max() < 1e-4
    # Sentences differ by far more than that, and so does the vector without the prefix.
    assert np.sort((real @ real.T)[~np.eye(20, dtype=bool)])[-1] < 0.99
    assert cosines(model.encode(TEN_LANGUAGES[:4], prompt=""), real[:4]).max() < 0.9999


def test_transformers_with_mean_pooling_by_hand_gives_the_same_vectors(bundled, real):
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bundled.path)
    model = AutoModel.from_pretrained(bundled.path).eval()
    rows = []
    for text in TEN_LANGUAGES:
        with torch.no_grad():
            hidden = model(**tokenizer("query: " + text, return_tensors="pt")).last_hidden_state[0].numpy()
        rows.append(hidden.mean(0))
    assert cosines(np.stack(rows), real).min() >= 0.9999


def test_a_sentence_is_nearest_to_its_own_translation(real):
    english, german = real[[0, 1]], real[[2, 3]]
    assert (english @ german.T).argmax(1).tolist() == [0, 1]


@pytest.mark.parametrize("name", ["multilingual-e5-smal", "xlm-roberta"])
def test_an_unknown_short_name_is_answered_with_the_nearest(name):
    with pytest.raises(XtError, match=rf"Unknown encoder '{name}'. Did you mean ({'|'.join(ENCODERS)})") as refused:
        resolve(name)
    assert all(known in refused.value.hint for known in ENCODERS)


@pytest.mark.parametrize("path", ["./absent", "/absent/folder", "~/absent", "a/b/c"])
def test_a_missing_folder_is_an_error_of_its_own(path):
    with pytest.raises(XtError, match=f"There is no folder {path}"):
        resolve(path)


def test_what_is_nowhere_is_told_with_the_reason(no_hub):
    with pytest.raises(XtError, match="intfloat/multilingual-e5-base is neither in the local hub cache nor on the hub"):
        resolve("multilingual-e5-base")
    with pytest.raises(XtError, match="somebody/model is neither .* on the hub: nothing here$"):
        try:
            resolve("somebody/model@v1")
        except XtError as error:
            raise XtError(error.message) from None


def test_the_short_name_of_the_bundled_encoder_leads_to_it_without_a_hub(no_hub, bundled):
    assert resolve("multilingual-e5-small") == bundled
    assert "4-bit" in bundled.spec.provenance


def test_a_hub_snapshot_is_read_by_its_files_and_names_its_revision(monkeypatch, tiny_folder):
    import huggingface_hub

    asked = []

    def snapshot(hub, *, revision, **_kwargs):
        asked.append((hub, revision))
        return str(tiny_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    found = resolve("somebody/model@v1")
    assert asked == [("somebody/model", "v1")]
    assert (found.path, found.spec.name, found.spec.default_prefix) == (tiny_folder, "model", "query")
    assert found.parent["path"] == "somebody/model" and "v1" in found.spec.provenance
    known = resolve("multilingual-e5-large")
    assert asked[-1] == ("intfloat/multilingual-e5-large", ENCODERS["multilingual-e5-large"].revision)
    assert known.parent["hash"] == ENCODERS["multilingual-e5-large"].revision


@pytest.mark.parametrize("row", ENCODERS.values(), ids=ENCODERS)
def test_every_known_encoder_has_a_pinned_revision(row):
    assert len(row.revision) == 40 and int(row.revision, 16)
    assert row.hub.endswith("/" + row.spec.name)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_refused_by_its_name(tiny_copy, missing):
    (tiny_copy / missing).unlink()
    with pytest.raises(XtError, match=f"is no encoder folder: it lacks {missing} .found: "):
        resolve(str(tiny_copy))


def test_an_empty_folder_lacks_everything(tmp_path):
    with pytest.raises(XtError, match=r"lacks config.json, tokenizer.json, model.safetensors \(found: nothing\)"):
        resolve(str(tmp_path))


def test_a_config_that_is_not_json_is_named(tiny_copy):
    (tiny_copy / "config.json").write_text("{")
    with pytest.raises(XtError, match=r"config\.json is not readable as JSON"):
        resolve(str(tiny_copy))


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def garbage(file: Path) -> None:
    file.write_bytes(b"\xff" * 5000)


def without_a_layer(file: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = {name: t for name, t in load_file(file).items() if "layer.1.output.dense" not in name}
    save_file(tensors, file, metadata={"format": "pt"})


def of_another_width(file: Path) -> None:
    from safetensors.numpy import load_file, save_file

    name = "encoder.layer.0.output.dense.weight"
    tensors = load_file(file)
    save_file({**tensors, name: np.ascontiguousarray(tensors[name][:, :16])}, file, metadata={"format": "pt"})


@pytest.mark.parametrize("damage", [cut, garbage, without_a_layer, of_another_width])
def test_damaged_weights_are_refused(tiny_copy, damage):
    damage(tiny_copy / "model.safetensors")
    with pytest.raises(XtError, match=str(tiny_copy)) as refused:
        torch_engine.load(str(tiny_copy), device="cpu")
    assert refused.value.hint


def test_an_unknown_architecture_is_refused(tiny_copy):
    (tiny_copy / "config.json").write_text('{"model_type": "no-such-model", "hidden_size": 32}')
    with pytest.raises(XtError, match="transformers cannot load"):
        torch_engine.load(str(tiny_copy), device="cpu")


def test_an_unknown_or_absent_device_is_refused():
    with pytest.raises(XtError, match="Unknown device 'tpu'"):
        torch_engine.pick_device("tpu")
    assert torch_engine.pick_device("cpu") == "cpu"


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_folder_saved_by_sentence_transformers_gives_its_vectors(tiny_folder, tmp_path, pooling, normalize):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as parts

    transformer = parts.Transformer(str(tiny_folder), max_seq_length=40)
    modules = [transformer, parts.Pooling(32, pooling_mode=pooling)] + [parts.Normalize()] * normalize
    model = SentenceTransformer(modules=modules, prompts={"doc": "passage: "}, device="cpu")
    model.save(str(tmp_path / "saved"))
    opened = resolve(str(tmp_path / "saved"))
    spec = opened.spec
    assert (spec.pooling, spec.normalize, spec.max_length, spec.dim) == (pooling, normalize, 40, 32)
    assert (dict(spec.prefixes), spec.default_prefix) == ({"doc": "passage: "}, "")
    texts = ["the cat sleeps today", "guten morgen welt", "habari"]
    encoder = torch_engine.load_encoder(opened, device="cpu")
    np.testing.assert_allclose(encoder.encode(texts).vectors, model.encode(texts), atol=2e-5)
    with_prompt = model.encode(texts, prompt_name="doc")
    np.testing.assert_allclose(encoder.encode(texts, prefix="doc").vectors, with_prompt, atol=2e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_what_xt_writes_sentence_transformers_reads_alike(tiny, tiny_copy, pooling):
    from dataclasses import replace

    from sentence_transformers import SentenceTransformer

    spec = replace(tiny.spec, pooling=pooling)
    encoders.write_sentence_transformers(tiny_copy, spec)
    again = resolve(str(tiny_copy))
    assert again.spec == replace(spec, name="copy", provenance=f"folder {tiny_copy}", temperature=None)
    texts = ["the cat sleeps today", "guten morgen welt", "habari"]
    expected = SentenceTransformer(str(tiny_copy), device="cpu").encode(texts)
    found = torch_engine.load_encoder(again, device="cpu").encode(texts).vectors
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_pooling_that_leaves_out_the_prompt_is_refused(tiny_copy):
    (tiny_copy / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean", "include_prompt": false}')
    with pytest.raises(XtError, match="leaves out the prompt"):
        resolve(str(tiny_copy))


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode": "max"},
        {"pooling_mode": ["mean", "cls"]},
        {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False},
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
    ],
    ids=str,
)
def test_another_pooling_is_refused(tiny_copy, pooling):
    (tiny_copy / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(XtError, match="pooling is neither mean nor cls"):
        resolve(str(tiny_copy))


@pytest.mark.parametrize("text", ["[{}]", "[", "3"])
def test_modules_that_cannot_be_read_are_refused(tiny_copy, text):
    (tiny_copy / "modules.json").write_text(text)
    with pytest.raises(XtError, match=r"modules\.json (does not list modules|is not readable as JSON)"):
        resolve(str(tiny_copy))


def test_a_config_without_a_width_is_refused(tiny_copy):
    (tiny_copy / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(XtError, match="names no hidden_size"):
        resolve(str(tiny_copy))


def test_a_folder_with_a_dense_layer_is_refused_and_not_served_without_it(tiny_folder, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as parts

    modules = [parts.Transformer(str(tiny_folder)), parts.Pooling(32), parts.Dense(32, 8), parts.Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "dense"))
    with pytest.raises(XtError, match="Dense"):
        resolve(str(tmp_path / "dense"))


def test_a_plain_transformers_folder_is_pooled_by_the_mean(tiny_copy):
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (tiny_copy / name).unlink()
    shutil.rmtree(tiny_copy / "1_Pooling")
    spec = resolve(str(tiny_copy)).spec
    assert (spec.pooling, spec.normalize, spec.max_length, spec.default_prefix) == ("mean", True, 64, "")


@pytest.mark.parametrize(
    ("kind", "positions", "pad", "expected"),
    [("bert", 512, 0, 512), ("xlm-roberta", 514, 1, 512), ("camembert", 514, 1, 512), ("mpnet", 514, 1, 512)],
)
def test_the_longest_input_leaves_out_the_positions_that_are_not_usable(tiny_copy, kind, positions, pad, expected):
    (tiny_copy / "sentence_bert_config.json").unlink()
    (tiny_copy / "tokenizer_config.json").unlink()
    config = {"model_type": kind, "max_position_embeddings": positions, "pad_token_id": pad, "hidden_size": 32}
    (tiny_copy / "config.json").write_text(json.dumps(config))
    assert resolve(str(tiny_copy)).spec.max_length == expected


def test_distilbert_is_read_and_run(tiny_copy):
    import torch
    from transformers import DistilBertConfig, DistilBertModel

    torch.manual_seed(0)
    size = len(json.loads((tiny_copy / "tokenizer.json").read_text())["model"]["vocab"])
    config = DistilBertConfig(vocab_size=size, dim=48, n_layers=1, n_heads=2, hidden_dim=64, pad_token_id=1)
    DistilBertModel(config).save_pretrained(tiny_copy)
    encoder = torch_engine.load(str(tiny_copy), device="cpu")
    assert encoder.spec.dim == 48
    assert encoder.encode(["the cat", "guten morgen welt"]).vectors.shape == (2, 48)


def checkpoint(tiny_folder: Path, target: Path, spec: EncoderSpec) -> Path:
    with new_artifact(target, kind="checkpoint") as draft:
        shutil.copytree(tiny_folder, draft.path, dirs_exist_ok=True)
        draft.facts = {"encoder": spec.to_json()}
    return target


def test_a_checkpoint_of_xt_is_read_by_its_manifest(tiny, tiny_folder, tmp_path):
    folder = checkpoint(tiny_folder, tmp_path / "mine", tiny.spec)
    found = from_folder(folder)
    assert found.spec == tiny.spec
    assert found.parent["kind"] == "checkpoint" and len(found.parent["hash"]) == 64


def test_a_damaged_checkpoint_is_refused_before_it_is_loaded(tiny, tiny_folder, tmp_path):
    folder = checkpoint(tiny_folder, tmp_path / "mine", tiny.spec)
    cut(folder / "model.safetensors")
    with pytest.raises(XtError, match=r"is damaged: model\.safetensors: \d+ bytes, expected \d+"):
        torch_engine.load(str(folder))


def test_a_damaged_bundled_cache_says_to_remove_it(tiny, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XT_CACHE", str(tmp_path / "cache"))
    spec = ENCODERS["multilingual-e5-small"].spec
    folder = checkpoint(tiny_folder, tmp_path / "cache" / "multilingual-e5-small-4bit", spec)
    assert encoders.bundled_encoder(spec).path == folder
    cut(folder / "model.safetensors")
    with pytest.raises(XtError, match=r"is damaged: model\.safetensors") as refused:
        encoders.bundled_encoder(spec)
    assert refused.value.hint.startswith(f"Remove {folder};")


def test_an_incomplete_bundled_cache_is_built_again(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "multilingual-e5-small-4bit"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x")
    monkeypatch.setattr(encoders.bundled, "build", lambda to: shutil.copytree(tiny_folder, to, dirs_exist_ok=True))
    (folder / "mine.bin").write_bytes(b"x")
    with pytest.raises(XtError, match="exists already") as refused:
        encoders.bundled_encoder(ENCODERS["multilingual-e5-small"].spec)
    assert str(folder) in refused.value.hint and "XT_CACHE" in refused.value.hint
    (folder / "mine.bin").unlink()
    encoders.bundled_encoder(ENCODERS["multilingual-e5-small"].spec)
    assert (folder / MANIFEST).is_file() and (folder / "model.safetensors").stat().st_size > 1000


def test_a_folder_is_known_by_its_content_wherever_it_lies(tiny_folder, tmp_path):
    here = encoders.from_folder(tiny_folder).parent["hash"]
    assert len(here) == 64
    copy = Path(shutil.copytree(tiny_folder, tmp_path / "other"))
    (copy / "README.md").write_text("a note")
    assert encoders.from_folder(copy).parent["hash"] == here
    os.utime(copy / "model.safetensors")
    assert encoders.from_folder(copy).parent["hash"] == here
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert encoders.from_folder(copy).parent["hash"] != here


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("XT_CACHE", raising=False)
    assert encoders.cache_folder() == tmp_path / "xdg" / "xt"
    monkeypatch.setenv("XT_CACHE", str(tmp_path / "here"))
    assert encoders.cache_folder() == tmp_path / "here"


@pytest.mark.parametrize("spec", [r.spec for r in ENCODERS.values()], ids=ENCODERS)
def test_a_spec_survives_json(spec):
    assert EncoderSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_unknown_fields_of_a_spec_are_refused():
    value = ENCODERS["multilingual-e5-small"].spec.to_json()
    with pytest.raises(XtError, match="unknown fields: colour, whitening"):
        EncoderSpec.from_json({**value, "whitening": 1, "colour": 2})


def test_a_spec_with_an_unknown_pooling_or_prefix_is_refused():
    with pytest.raises(XtError, match="Unknown pooling 'meen'. Did you mean mean"):
        EncoderSpec("x", 3, pooling="meen")
    with pytest.raises(XtError, match="Unknown prefix 'query'"):
        EncoderSpec("x", 3, default_prefix="query")
