"""Image files through a vision tower: what the tower gives, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from xt.core.data.images import SPLITS, load_image_text
from xt.core.errors import XtError
from xt.core.files.artifact import open_artifact
from xt.studies.images.encode import encode_images, open_image


@pytest.fixture(scope="module")
def towers(tmp_path_factory) -> dict[str, Path]:
    """Three tiny towers with random weights: CLIP's vision half, a whole CLIP, and a ViT saved without its pooler."""
    pytest.importorskip("PIL", reason="Pillow is not installed (pip install 'xt-retriever[train]')")
    import torch
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPVisionConfig,
        CLIPVisionModel,
        ViTConfig,
        ViTModel,
    )

    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    pixels = {**size, "image_size": 16, "patch_size": 8}
    words = {**size, "vocab_size": 50, "max_position_embeddings": 8}
    models = {
        "clip-vision": CLIPVisionModel(CLIPVisionConfig(**pixels)),
        "clip": CLIPModel(CLIPConfig(text_config=words, vision_config=pixels, projection_dim=12)),
        "vit": ViTModel(ViTConfig(**pixels), add_pooling_layer=False),
    }
    folders = {}
    for name, model in models.items():
        folders[name] = tmp_path_factory.mktemp("towers") / name
        model.save_pretrained(folders[name], safe_serialization=True)
        side = {"height": 16, "width": 16}
        CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=side).save_pretrained(folders[name])
    return folders


@pytest.fixture
def photos(tmp_path) -> Path:
    """Five pictures, one transparent, and two captions of each."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed (pip install 'xt-retriever[train]')")
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = ["a.png", "b.jpg", "more/c.png", "more/d.webp", "e.png"]
    for name in names[:4]:
        image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(folder / name)
    image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(folder / "e.png")
    rows = [{"image": n, "text": f"{code} {n}", "language": code} for n in names for code in ("en", "sw")]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.mark.parametrize(
    ("name", "source", "dim"),
    [("clip-vision", "pooler_output", 16), ("clip", "image_features", 12), ("vit", "first token", 16)],
)
def test_encoded_images_are_what_the_tower_gives_whatever_the_batch(towers, photos, tmp_path, name, source, dim):
    import torch
    from transformers import AutoModel, CLIPImageProcessor

    seen = []
    made = encode_images(
        photos, towers[name], tmp_path / "two", batch=2, device="cpu", progress=lambda *at: seen.append(at)
    )
    data = load_image_text(made)
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert data.names == ("a.png", "b.jpg", "more/c.png", "more/d.webp", "e.png")
    assert sorted(c.text for s in SPLITS for c in data.examples(s, ["swh"])) == sorted(f"sw {n}" for n in data.names)
    facts = open_artifact(made, kind="image-text").facts
    assert (facts["dim"], facts["features"]["vectors"]) == (dim, source)
    assert set(facts["features"]["files"]) == {"config.json", "model.safetensors"}
    model = AutoModel.from_pretrained(towers[name]).eval()
    pixels = CLIPImageProcessor.from_pretrained(towers[name])(
        images=[open_image(photos / n) for n in data.names], return_tensors="pt"
    )["pixel_values"]
    with torch.inference_mode():
        if name == "clip":
            expected = model.get_image_features(pixel_values=pixels)
        else:
            output = model(pixel_values=pixels)
            expected = output.pooler_output if name == "clip-vision" else output.last_hidden_state[:, 0]
    np.testing.assert_allclose(data.vectors, expected.numpy(), atol=1e-5)
    assert data.vectors.std(0).mean() > 1e-3


def test_transparent_parts_are_white(photos):
    assert np.asarray(open_image(photos / "e.png")).min() == 255


def test_a_photograph_is_turned_as_its_exif_says(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed (pip install 'xt-retriever[train]')")
    picture = image.new("RGB", (30, 20))
    exif = picture.getexif()
    exif[0x0112] = 6  # the camera lay on its side
    picture.save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg").size == (20, 30)


def test_images_outside_the_folder_or_missing_or_broken_are_refused(towers, photos, tmp_path):
    out = tmp_path / "out"

    def refused(value):
        (photos / "captions.jsonl").write_text(json.dumps({"image": value, "text": "x"}))
        with pytest.raises(XtError) as error:
            encode_images(photos, towers["clip-vision"], out, device="cpu")
        assert not out.exists()
        return error.value.message

    (tmp_path / "secret.png").write_bytes((photos / "a.png").read_bytes())
    assert "line 1: '../secret.png' is outside" in refused("../secret.png")
    assert "is outside" in refused(str(tmp_path / "secret.png"))
    assert "line 1: there is no image" in refused("none.png")
    assert "line 1: 'image' is 0, not the path" in refused(0)
    (photos / "broken.png").write_bytes((photos / "a.png").read_bytes()[:60])
    assert "broken.png is not readable as an image" in refused("broken.png")
    (photos / "text.png").write_text("no picture")
    assert "text.png is not readable as an image" in refused("text.png")


def test_a_folder_that_is_no_vision_tower_is_refused(towers, photos, tiny_folder, tmp_path):
    import shutil

    import torch

    def refused(folder):
        with pytest.raises(XtError) as error:
            encode_images(photos, folder, tmp_path / "out", device="cpu")
        assert error.value.hint
        return error.value.message

    assert "has no config.json" in refused(tmp_path)
    assert "has no preprocessor_config.json" in refused(tiny_folder)
    text = tmp_path / "text"
    shutil.copytree(tiny_folder, text)
    shutil.copy(towers["clip"] / "preprocessor_config.json", text)
    assert "BertModel, not a vision model" in refused(text)
    unsafe = tmp_path / "unsafe"
    shutil.copytree(towers["vit"], unsafe)
    from safetensors.torch import load_file, save_file

    torch.save(load_file(unsafe / "model.safetensors"), unsafe / "pytorch_model.bin")  # a pickle
    (unsafe / "model.safetensors").unlink()
    assert "does not load as a vision model" in refused(unsafe)

    partial = tmp_path / "partial"
    shutil.copytree(towers["vit"], partial)
    weights = load_file(partial / "model.safetensors")
    weights.pop("layernorm.weight")
    save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
    assert "lacks weights of its model: layernorm.weight" in refused(partial)
