"""Folders of image vectors and captions: what is read, what is refused and where, and how retrieval is scored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from xt.core.data.examples import CaptionExample
from xt.core.data.images import (
    SPLITS,
    encode_images,
    load_image_text,
    open_image,
    read_captions,
    retrieval_by_language,
    split_of,
    write_captions,
)
from xt.core.errors import XtError
from xt.core.files.artifact import new_artifact, open_artifact

ROWS = [
    {"image": 0, "text": "a dog", "language": "en", "id": "dog", "split": "train"},
    {"image": 0, "text": "ein Hund", "language": "de", "id": "dog", "split": "train"},
    {"image": 1, "text": "a cat", "id": "cat", "split": "test"},
    {"image": 2, "text": "paka wawili", "language": "sw", "id": "cats", "split": "dev"},
]


def write(folder: Path, rows: list, vectors=None) -> Path:
    folder.mkdir(exist_ok=True)
    np.save(folder / "images.npy", np.eye(3, 4, dtype=np.float32) if vectors is None else vectors)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_a_plain_folder_is_read_by_split_and_language(tmp_path):
    data = load_image_text(write(tmp_path / "set", ROWS))
    assert isinstance(data.vectors, np.memmap)
    assert data.vectors.shape == (3, 4)
    assert data.names == ("dog", "cat", "cats")
    assert data.captions == {
        "train": {"eng": [CaptionExample("dog", "a dog", 0)], "deu": [CaptionExample("dog", "ein Hund", 0, "deu")]},
        "dev": {"swh": [CaptionExample("cats", "paka wawili", 2, "swh")]},
        "test": {"eng": [CaptionExample("cat", "a cat", 1)]},
    }
    assert [c.text for c in data.examples("train")] == ["a dog", "ein Hund"]
    assert [c.text for c in data.examples("train", ["deu", "fra"])] == ["ein Hund"]


def test_captions_may_be_packed_and_in_languages_that_xt_does_not_know(tmp_path):
    import gzip

    folder = write(
        tmp_path / "set", [*ROWS, {"image": 1, "text": "x", "language": "Tir", "id": "cat", "split": "test"}]
    )
    file = folder / "captions.jsonl"
    (folder / "captions.jsonl.gz").write_bytes(gzip.compress(file.read_bytes()))
    plain = load_image_text(folder).captions
    assert [c.text for c in plain["test"]["tir"]] == ["x"]
    file.unlink()
    assert load_image_text(folder).captions == plain


def test_a_folder_of_xt_is_checked_against_its_manifest(tmp_path):
    plain = load_image_text(write(tmp_path / "plain", ROWS))
    with new_artifact(tmp_path / "made", kind="image-text") as draft:
        np.save(draft.path / "images.npy", plain.vectors)
        counts = write_captions(draft.path / "captions.jsonl", plain.captions)
    assert counts == {"images": {"train": 1, "dev": 1, "test": 1}, "captions": {"deu": 1, "eng": 2, "swh": 1}}
    again = load_image_text(tmp_path / "made")
    assert again.captions == plain.captions and again.names == plain.names
    with (tmp_path / "made" / "captions.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(XtError, match="is damaged: captions.jsonl"):
        load_image_text(tmp_path / "made")
    with new_artifact(tmp_path / "other", kind="report") as draft:
        np.save(draft.path / "images.npy", plain.vectors)
        write_captions(draft.path / "captions.jsonl", plain.captions)
    with pytest.raises(XtError, match="is a 'report' folder"):
        load_image_text(tmp_path / "other")


def test_images_without_split_are_divided_by_a_hash_of_the_image(tmp_path):
    n = 400
    rows = [{"image": i, "text": f"text {i} {code}", "language": code} for i in range(n) for code in ("en", "de")]
    data = load_image_text(write(tmp_path / "set", rows, np.ones((n, 2), np.float32)))
    images = {s: {c.image for c in data.examples(s)} for s in SPLITS}
    assert set.union(*images.values()) == set(range(n))
    assert sum(map(len, images.values())) == n
    assert 0.74 * n < len(images["train"]) < 0.86 * n
    for split, found in images.items():
        assert found == {i for i in range(n) if split_of(str(i)) == split}
        assert {c.image for c in data.captions[split]["eng"]} == {c.image for c in data.captions[split]["deu"]}


BAD = {
    "unknown image": ([ROWS[0], {"image": 3, "text": "x"}], "line 2: there is no image 3; images.npy has rows 0 to 2"),
    "negative image": ([{"image": -1, "text": "x"}], "line 1: there is no image -1"),
    "path as image": ([{"image": "a.png", "text": "x"}], "line 1: 'image' is 'a.png', not a row"),
    "true as image": ([{"image": True, "text": "x"}], "line 1: 'image' is True, not a row"),
    "no image": ([{"text": "x"}], "line 1: no 'image'; found text"),
    "no text": ([{"image": 0}], "line 1: 'text' is None"),
    "blank text": ([{"image": 0, "text": " "}], "line 1: 'text' is ' '"),
    "NUL": ([{"image": 0, "text": "a\0b"}], "line 1 holds a NUL"),
    "surrogate": (['{"image": 0, "text": "\\ud800"}'], "line 1 is not valid Unicode"),
    "no language": ([ROWS[0], "", {"image": 1, "text": "x", "language": 3}], "line 3: 'language' is 3, not a text"),
    "unknown split": ([{"image": 0, "text": "x", "split": "held"}], "line 1: unknown split 'held'"),
    "twice": ([ROWS[0], ROWS[1], {**ROWS[0], "language": "eng"}], "line 3: the same caption as on line 1"),
    "two splits": ([ROWS[0], {**ROWS[1], "split": "dev"}], "line 2: image 0 is in dev here and in train on line 1"),
    "two names": ([ROWS[0], {**ROWS[1], "id": "wolf"}], "line 2: image 0 is called 'wolf' here, 'dog' before"),
    "one name twice": ([ROWS[0], {**ROWS[2], "id": "dog"}], "line 2: the id 'dog' belongs to another image"),
    "not JSON": (["{"], "line 1: not JSON"),
    "a list": (["[1]"], "line 1: a JSON list, expected an object"),
    "nothing": ([], "holds no caption"),
}


def test_captions_of_dev_may_be_called_validation(tmp_path: Path) -> None:
    words = ("val", "Validation", "dev", "TEST", "training")
    rows = [{"image": n, "text": f"x {n}", "split": word} for n, word in enumerate(words)]
    file = tmp_path / "captions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found, _ = read_captions(file, lambda value, where: (int(str(value)), str(value)))
    counts = {split: sum(map(len, by_language.values())) for split, by_language in found.items()}
    assert counts == {"train": 1, "dev": 3, "test": 1}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_caption_is_refused_with_file_and_line(tmp_path, case):
    rows, message = BAD[case]
    with pytest.raises(XtError, match="captions.jsonl") as refused:
        load_image_text(write(tmp_path / "set", rows))
    assert message in refused.value.message


NAN = np.eye(3, dtype=np.float32)
NAN[1, 2] = np.nan
BAD_VECTORS = {
    "one axis": (np.ones(3, np.float32), r"float32 \(3,\); floats of shape"),
    "integers": (np.ones((3, 4), np.int64), r"int64 \(3, 4\); floats of shape"),
    "no rows": (np.ones((0, 4), np.float32), r"\(0, 4\); floats of shape"),
    "not a number": (NAN, "row 1: not finite"),
    "zeros": (np.array([[1.0, 0], [0, 1], [0, 0]]), "row 2: all zero"),
    "objects": (np.array([[{}]], object), "not readable as an array"),
}


@pytest.mark.parametrize("case", BAD_VECTORS)
def test_bad_vectors_are_refused(tmp_path, case):
    vectors, message = BAD_VECTORS[case]
    with pytest.raises(XtError, match=message):
        load_image_text(write(tmp_path / "set", ROWS, vectors))


def test_a_missing_folder_or_file_is_named(tmp_path):
    with pytest.raises(XtError, match="There is no folder"):
        load_image_text(tmp_path / "none")
    with pytest.raises(XtError, match=r"lacks images.npy and captions.jsonl"):
        load_image_text(tmp_path)
    (write(tmp_path / "set", ROWS) / "images.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(XtError, match="not readable as an array"):
        load_image_text(tmp_path / "set")


# --- retrieval ---


def captions(codes: str, n: int) -> list[CaptionExample]:
    return [CaptionExample(str(i), f"{code}{i}", i, code) for code in codes.split() for i in range(n)]


def test_retrieval_as_worked_out_by_hand():
    images = np.array([[1.0, 0], [0, 2.0], [-1.0, 0], [0, -3.0]])
    texts = np.array([[5.0, 0], [1, 0.5], [0, 1], [0, -1], [0, -1]])
    of = [0, 1, 2, 3]
    # English: ranks 1, 2, then image 2 ties with image 0 at cosine 0 behind image 1: rank 3, and 1. German: one text.
    rows = [CaptionExample(str(i), "t", i, "eng") for i in of] + [CaptionExample("1", "t", 1, "deu")]
    found = retrieval_by_language(texts, images, rows)
    assert found["images"] == 4
    assert found["chance"] == pytest.approx(
        {"recall@1": 0.25, "recall@10": 1.0, "mrr": (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4}
    )
    english, german = found["languages"]["eng"], found["languages"]["deu"]
    assert (english["captions"], german["captions"]) == (4, 1)
    assert english["recall@1"] == 0.5 and english["recall@10"] == 1.0
    assert english["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1) / 4)
    assert german["recall@1"] == 0.0 and german["mrr"] == pytest.approx(1 / 4)
    assert found["mean"]["recall@1"] == pytest.approx(0.25)


def test_only_images_with_captions_are_candidates():
    images = np.array([[1.0, 0], [1.0, 0], [0, 1.0]])
    rows = [CaptionExample("1", "t", 1), CaptionExample("2", "t", 2)]
    found = retrieval_by_language(np.array([[1.0, 0], [0, 1]]), images, rows)
    assert found["images"] == 2 and found["languages"]["eng"]["recall@1"] == 1.0


def test_constant_vectors_win_nothing():
    found = retrieval_by_language(np.ones((20, 3)), np.ones((20, 3)), captions("eng", 20))
    assert found["languages"]["eng"]["recall@1"] == 0.0 and found["languages"]["eng"]["recall@10"] == 0.0
    assert found["languages"]["eng"]["mrr"] == pytest.approx(1 / 20)


def test_retrieval_agrees_with_scikit_learn_and_torchmetrics():
    import torch
    from sklearn.metrics import label_ranking_average_precision_score, top_k_accuracy_score
    from torchmetrics.functional.retrieval import retrieval_recall, retrieval_reciprocal_rank

    rng = np.random.default_rng(3)
    n = 60
    images = rng.normal(size=(n, 8))
    noise = {"eng": 0.6, "deu": 1.2, "swh": 3.0}
    texts = np.concatenate([images + s * rng.normal(size=images.shape) for s in noise.values()])
    found = retrieval_by_language(texts, images, captions(" ".join(noise), n))
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    for i, code in enumerate(noise):
        row = found["languages"][code]
        scores = unit(texts[i * n : (i + 1) * n]) @ unit(images).T
        for k in (1, 10):
            theirs = top_k_accuracy_score(np.arange(n), scores, k=k, labels=np.arange(n))
            assert row[f"recall@{k}"] == pytest.approx(theirs)
        assert row["mrr"] == pytest.approx(label_ranking_average_precision_score(np.eye(n), scores))
        # torchmetrics takes a score of 0 or less for "not found": 2 more makes every cosine positive.
        pairs = [(torch.tensor(s + 2), torch.arange(n) == j) for j, s in enumerate(scores)]
        assert row["mrr"] == pytest.approx(float(np.mean([retrieval_reciprocal_rank(*p) for p in pairs])), abs=1e-6)
        assert row["recall@10"] == pytest.approx(float(np.mean([retrieval_recall(*p, top_k=10) for p in pairs])))
    assert found["languages"]["eng"]["mrr"] > found["languages"]["deu"]["mrr"] > found["languages"]["swh"]["mrr"]


def test_intervals_hold_the_measure_follow_the_seed_and_shrink_with_images():
    def width(n, seed=0, repeat=1):
        rng = np.random.default_rng(1)
        images = rng.normal(size=(n, 8))
        texts = np.concatenate([images + 0.9 * rng.normal(size=(n, 8))] * repeat)
        rows = captions("eng", n) * repeat
        row = retrieval_by_language(texts, images, rows, seed=seed)["languages"]["eng"]
        low, high = row["mrr_ci"]
        assert 0 <= low < row["mrr"] < high <= 1
        return low, high

    assert width(40) == width(40)
    assert width(40) != width(40, seed=1)
    small, large = np.diff(width(40))[0], np.diff(width(640))[0]
    assert 2 < small / large < 8
    # The images are drawn, not the captions: the same captions again make nothing surer.
    assert np.diff(width(40, repeat=4))[0] == pytest.approx(small)


def test_an_interval_is_as_wide_as_the_normal_one_for_many_images():
    rng = np.random.default_rng(2)
    images = rng.normal(size=(900, 8))
    texts = images + 0.8 * rng.normal(size=images.shape)
    row = retrieval_by_language(texts, images, captions("eng", 900))["languages"]["eng"]
    share = row["recall@1"]
    half = 1.96 * np.sqrt(share * (1 - share) / 900)
    assert row["recall@1_ci"] == pytest.approx([share - half, share + half], abs=0.15 * half)


def test_chance_is_what_random_vectors_reach():
    rng = np.random.default_rng(0)
    found = retrieval_by_language(rng.normal(size=(4000, 6)), rng.normal(size=(40, 6)), captions("eng", 40) * 100)
    row = found["languages"]["eng"]
    for name, chance in found["chance"].items():
        assert row[name] == pytest.approx(chance, abs=0.04)


def test_vectors_that_do_not_fit_are_refused():
    rows = captions("eng", 3)
    with pytest.raises(XtError, match="2 text vectors for 3 captions"):
        retrieval_by_language(np.ones((2, 4)), np.ones((3, 4)), rows)
    with pytest.raises(XtError, match="Texts have 4 dims, images 5"):
        retrieval_by_language(np.ones((3, 4)), np.ones((3, 5)), rows)
    with pytest.raises(XtError, match="has image 2; there are 2 image vectors"):
        retrieval_by_language(np.ones((3, 4)), np.ones((2, 4)), rows)
    with pytest.raises(XtError, match="not finite"):
        retrieval_by_language(np.full((3, 4), np.inf), np.ones((3, 4)), rows)


# --- encoding ---


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
