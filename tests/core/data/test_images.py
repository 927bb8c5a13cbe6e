"""Folders of image vectors and captions: what is read, what is refused and where."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from xt.core.data.examples import CaptionExample
from xt.core.data.images import SPLITS, load_image_text, read_captions, split_of
from xt.core.errors import XtError
from xt.core.files.artifact import new_artifact
from xt.studies.images.encode import write_captions

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
