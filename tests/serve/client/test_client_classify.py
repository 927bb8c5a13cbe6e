"""`Client.classify`: labels, probabilities and answers are those of the head in this process."""

from __future__ import annotations

import asyncio
import shutil

import numpy as np
import pytest

import xt.serve
from xt.core.data.tasks import Task
from xt.core.encoder import resolve
from xt.core.errors import XtError
from xt.core.heads.onnx_heads import load_head
from xt.serve.client import errors as client_errors
from xt.serve.triton.launcher import TritonServer

LABELS = {"pair": ("zebra", "apple", "mango"), "tagging": ("O", "I-X", "B-X", "A")}
TEXTS = ["good morning world", "the cat sleeps today", "we eat bread and cheese", "the house is very big"]


@pytest.fixture(scope="module")
def repository(tiny_folder, corpus, tmp_path_factory):
    """Two heads with random weights on the tiny encoder, exported."""
    import torch

    from xt.core.encoder.torch_engine import load_network
    from xt.core.heads.network import HEADS_FILE, MultiTaskModel, save_heads
    from xt.export.heads.head import HeadExport, export_head

    folder = tmp_path_factory.mktemp("heads") / "tiny"
    shutil.copytree(tiny_folder, folder)
    resolved = resolve.resolve(str(folder))
    rows = [Task(f, "intermediate", f, "", LABELS[f], "", "accuracy", "", "") for f in LABELS]
    torch.manual_seed(3)
    model = MultiTaskModel(load_network(folder), resolved.spec, rows)
    for name, weight in model.heads.named_parameters():
        if name.endswith("weight"):
            torch.nn.init.normal_(weight, std=0.5)
    save_heads(folder / HEADS_FILE, model, rows)
    target = tmp_path_factory.mktemp("exported")
    for form in LABELS:
        options = HeadExport("fp32", temperature=2.0)
        export_head(resolved, target, task=form, corpus=corpus, name=form, options=options, report=str)
    return target


@pytest.fixture(scope="module")
def server(repository):
    with TritonServer(repository) as running:
        yield running


def test_labels_and_probabilities_are_those_of_the_head_here(server, repository):
    texts, pairs = TEXTS * 100, [t for t in TEXTS for _ in range(100)]
    expected = load_head(repository / "pair")[0].predict(list(zip(texts, pairs, strict=True)))

    async def classify():
        async with xt.serve.AsyncClient(server.url, "pair") as client:
            return await client.classify(texts, pairs)

    with xt.serve.Client(server.url, "pair") as client:
        for found in (client.classify(texts, pairs), asyncio.run(classify())):
            assert found.names == LABELS["pair"]
            assert found.labels == tuple(r.label for r in expected)
            assert len(set(found.labels)) > 1
            np.testing.assert_allclose(found.probabilities, [r.probabilities for r in expected], atol=1e-4)
            assert [found.names[i] for i in found.probabilities.argmax(1)] == list(found.labels)
        with pytest.raises(client_errors.InvalidRequest, match="4 texts and 1 pairs"):
            client.classify(TEXTS, ["good"])
        with pytest.raises(XtError, match="text_pair"):
            client.classify(TEXTS)
        empty = client.classify([], [])
        assert (empty.labels, empty.probabilities.shape) == ((), (0, 3))


def test_tags_come_as_answers(server, repository):
    expected = load_head(repository / "tagging")[0].predict([t.split() for t in TEXTS])
    with xt.serve.Client(server.url, "tagging") as client:
        found = client.classify(TEXTS)
        assert (found.labels, found.probabilities) == ((), None)
        assert list(found.answers) == [r.answer for r in expected]
        with pytest.raises(XtError, match="Unknown output of 'tagging' 'embedding'"):
            client.encode(TEXTS)
