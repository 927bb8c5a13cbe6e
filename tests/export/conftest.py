"""The tiny encoder's graphs, stage by stage, and the bundled encoder's real int8 export."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from xt.core.data.bitext import Bitext, read_django
from xt.core.encoder.resolve import Resolved
from xt.core.files.artifact import MANIFEST, Artifact, new_artifact, open_artifact, read_manifest

LANGUAGES = "deu,fra,rus,ara,jpn,swh"


@dataclass(frozen=True)
class Graphs:
    """The graphs of the tiny encoder, and the node counts of those that were changed."""

    raw: Path
    packed: Path
    split: Path
    int8: Path
    packed_nodes: Counter[str]
    split_nodes: Counter[str]
    int8_nodes: Mapping[str, int]


@pytest.fixture(scope="session")
def graphs(tiny: Resolved, tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    """Exported, fused both ways, and quantised."""
    from xt.core.encoder.torch_engine import load_network
    from xt.export import graph

    folder = tmp_path_factory.mktemp("graphs")
    raw, packed, split, int8 = (folder / f"{name}.onnx" for name in ("raw", "packed", "split", "int8"))
    network = load_network(tiny.path, attn_implementation="eager").eval()
    graph.to_onnx(network, tiny.spec, raw)
    packed_nodes = graph.fuse(raw, packed, network)
    split_nodes = graph.fuse(raw, split, network, packed=False)
    return Graphs(raw, packed, split, int8, packed_nodes, split_nodes, graph.quantize(split, int8))


@pytest.fixture(scope="session")
def plain(tiny_folder: Path) -> Callable[[list[str]], np.ndarray]:
    """Vectors by transformers alone: its tokenizer, its model, and pooling written out here."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    model = AutoModel.from_pretrained(tiny_folder).eval()

    def encode(texts: list[str]) -> np.ndarray:
        rows = []
        for text in texts:  # one by one: no padding, no mask
            ids = tokenizer("query: " + text, return_tensors="pt")["input_ids"]
            with torch.no_grad():
                hidden = model(input_ids=ids).last_hidden_state[0].numpy().astype(np.float64)
            mean = sum(hidden[i] for i in range(len(hidden))) / len(hidden)
            rows.append(mean / np.sqrt((mean * mean).sum()))
        return np.array(rows)

    return encode


@pytest.fixture(scope="session")
def django() -> list[Bitext]:
    """Six languages of the bundled corpus, in six scripts or families."""
    return read_django(LANGUAGES)


@pytest.fixture(scope="session")
def bundled_model(
    bundled: Resolved, django: list[Bitext], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Artifact, list[str]]:
    """The bundled encoder as an int8 Triton model, and the lines its export reported."""
    from xt.export.encoder import export_model

    lines: list[str] = []
    repository = tmp_path_factory.mktemp("bundled")
    return export_model(bundled, repository, corpus=django, report=lines.append), lines


@pytest.fixture
def rewritten() -> Callable[[Path, Path, Callable[[Path], None]], Artifact]:
    """Copy an artefact folder, change it, and write a manifest that fits: only checks of content are left."""

    def rewrite(source: Path, target: Path, change: Callable[[Path], None]) -> Artifact:
        manifest = read_manifest(source)
        with new_artifact(target, kind=manifest["kind"]) as draft:
            shutil.copytree(source, draft.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
            change(draft.path)
            draft.facts, draft.parents = manifest["facts"], manifest["parents"]
        return open_artifact(target)

    return rewrite
