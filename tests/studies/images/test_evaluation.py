"""Text-to-image retrieval of an image-text head: the numbers by hand, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from xt.core.data.tasks import Task
from xt.core.encoder import torch_engine
from xt.core.encoder.resolve import resolve
from xt.core.errors import XtError
from xt.core.heads.network import HEADS_FILE, MultiTaskModel, save_heads
from xt.eval.heads.classify import open_heads
from xt.studies.images.evaluation import retrieve

TEXTS = {
    "eng": ["the cat sleeps", "the house", "good morning world", "bread"],
    "deu": ["die katze", "das haus", "brot"],
}


@pytest.fixture(scope="module")
def checkpoint(tiny_folder, tmp_path_factory) -> Path:
    """The tiny encoder with an image-text head of random weights."""
    folder = tmp_path_factory.mktemp("heads") / "heads"
    shutil.copytree(tiny_folder, folder)
    torch.manual_seed(5)
    row = Task("set", "intermediate", "image-text", "", (), "", "retrieval", "", "")
    model = MultiTaskModel(
        torch_engine.load_network(folder), resolve(str(folder)).spec, [row], options={"set": {"image_dim": 4}}
    )
    save_heads(folder / HEADS_FILE, model, [row])
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four test images with captions in two languages."""
    made = tmp_path / "set"
    made.mkdir()
    np.save(made / "images.npy", np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32))
    rows = [
        {"image": i, "text": t, "language": c, "split": "test"} for c, ts in TEXTS.items() for i, t in enumerate(ts)
    ]
    (made / "captions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return made


def test_the_ranks_are_those_of_the_weights_by_hand(checkpoint, folder):
    heads = open_heads(str(checkpoint), device="cpu")
    _, result = retrieve(heads, folder)
    state = heads.model.heads["set"].state_dict()
    images = np.load(folder / "images.npy") @ state["image.weight"].numpy().T + state["image.bias"].numpy()
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    encoder = torch_engine.load_encoder(resolve(str(checkpoint)), device="cpu")
    assert encoder.spec.normalize
    for code, texts in TEXTS.items():
        ranks = []
        for i, text in enumerate(texts):
            ids = torch.tensor(encoder.tokenizer([text], prefix="query: ")[0][0])[None]
            with torch.inference_mode():
                pooled = heads.model.encoder(input_ids=ids).last_hidden_state[0].mean(0).numpy()
            own = state["text.weight"].numpy() @ pooled + state["text.bias"].numpy()
            scores = images @ own
            ranks.append(1 + int((scores > scores[i]).sum()))
        row = result.metrics["languages"][code]
        assert row["n"] == len(texts)
        assert row["recall@1"] == pytest.approx(np.mean([r == 1 for r in ranks]))
        assert row["mrr"] == pytest.approx(np.mean([1 / r for r in ranks]))
    assert result.metrics["chance"]["recall@1"] == 0.25


def test_only_the_languages_asked_for(checkpoint, folder):
    _, result = retrieve(open_heads(str(checkpoint), device="cpu"), folder, codes=["deu"])
    assert list(result.metrics["languages"]) == ["deu"]


def test_images_of_another_tower_are_refused(checkpoint, folder):
    np.save(folder / "images.npy", np.ones((4, 7), np.float32))
    with pytest.raises(XtError, match="7 dims; the head was trained on 4"):
        retrieve(open_heads(str(checkpoint), device="cpu"), folder)


def test_a_split_without_captions_is_refused(checkpoint, folder):
    with pytest.raises(XtError, match="no dev captions"):
        retrieve(open_heads(str(checkpoint), device="cpu"), folder, split="dev")
