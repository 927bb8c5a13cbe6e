"""JSON that a user may hand over and that is nested a hundred thousand times is an error that names the file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from xt.core.data.aligned import read_id_folder
from xt.core.data.images import load_image_text
from xt.core.data.own_task import own_task
from xt.core.data.readers.rows import load_json
from xt.core.data.tasks import get
from xt.core.encoder.resolve import resolve
from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, open_artifact, read_json, read_manifest
from xt.core.heads.onnx_heads import _json_texts
from xt.export.heads.temperature import read_temperature
from xt.serve.index.calibration import read_calibration
from xt.train.recipes import load_recipe
from xt.train.state import Work

DEEP = "[" * 100_000


def own(file: Path) -> None:
    own_task(f"single:{file}")


def manifest(file: Path) -> None:
    read_manifest(file.parent)


def encoder(file: Path) -> None:
    (file.parent / "tokenizer.json").write_text("{}")
    (file.parent / "model.safetensors").write_bytes(b"")
    resolve(str(file.parent))


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "any": ("a.json", read_json),
    "squad": ("squad.json", load_json),
    "own rows": ("mine.jsonl", own),
    "own rows, packed": ("mine.jsonl.gz", own),
    "manifest": (MANIFEST, manifest),
    "artefact": (MANIFEST, lambda file: open_artifact(file.parent)),
    "encoder": ("config.json", encoder),
    "calibration": (
        "calibration.json",
        lambda file: read_calibration(file, {"hash": "", "checkpoint": "", "precision": ""}),
    ),
    "temperature": ("temperature.json", lambda file: read_temperature(file, get("sample-nli"))),
    "recipe": ("recipe.yaml", lambda file: load_recipe(str(file), ["steps"])),
    "interrupted training": ("run.json", lambda file: Work(file.parent).settings()),
    "captions": ("captions.jsonl", lambda file: load_image_text(file.parent)),
    "aligned": ("eng.jsonl", lambda file: read_id_folder(file.parent)),
}


@pytest.mark.parametrize("name", READERS)
def test_deep_nesting_is_an_error_that_names_the_file(name: str, tmp_path: Path) -> None:
    called, read = READERS[name]
    file = tmp_path / called
    deep = DEEP[:5000] if name == "recipe" else DEEP  # YAML is read slowly
    file.write_bytes(gzip.compress(deep.encode()) if called.endswith(".gz") else deep.encode())
    if name == "captions":
        import numpy as np

        np.save(tmp_path / "images.npy", np.ones((2, 3), np.float32))
    if name == "aligned":
        (tmp_path / "deu.tsv").write_text("id\ttext\n1\ta\n")
    with pytest.raises(XtError, match="deep") as error:
        read(file)
    assert called in error.value.message or MANIFEST in error.value.message
    assert error.value.hint


def test_a_nested_text_that_is_served_is_no_list_of_texts() -> None:
    assert _json_texts(DEEP) is None
    assert _json_texts('["a", "b"]') == ["a", "b"]


@pytest.mark.parametrize("content", ["[]", "3", "null", '"x"', json.dumps({"kind": "x"})])
def test_a_manifest_of_another_shape_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(XtError, match=MANIFEST):
        read_manifest(tmp_path)
