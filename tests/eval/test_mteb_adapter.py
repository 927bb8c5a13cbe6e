"""The mteb package drives xt's encoders: its own tasks, filled in memory, on a checkpoint, a graph and a server."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xt.core.encoder.torch_engine import load_encoder
from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, new_artifact, read_manifest
from xt.eval.mteb_adapter import MtebEncoder, open_for_mteb, vectors_hash

mteb = pytest.importorskip("mteb")
from mteb.mocks.mock_tasks import MockRetrievalTask  # noqa: E402
from mteb.mocks.mock_tasks.bitext_mining import MockBitextMiningTask  # noqa: E402
from mteb.models.models_protocols import EncoderProtocol  # noqa: E402

FOREIGN = ["guten morgen welt", "die katze schläft heute", "wir essen brot und käse", "das haus ist sehr groß"]
ENGLISH = ["good morning world", "the cat sleeps today", "we eat bread and cheese", "the house is very big"]


class Bitext(MockBitextMiningTask):
    """mteb's bitext mining, on four sentences."""

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        from datasets import Dataset, DatasetDict

        rows = {"sentence1": FOREIGN, "sentence2": ENGLISH}
        self.dataset = DatasetDict({"test": Dataset.from_dict(rows)})
        self.data_loaded = True


def ran(model: Any, task: Any) -> dict[str, Any]:
    """The scores of one task, without mteb's cache on disk."""
    result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    (row,) = result.task_results[0].scores["test"]
    return row


@pytest.fixture(scope="module")
def checkpoint(tiny_folder):
    return open_for_mteb(str(tiny_folder), device="cpu")


def test_it_is_an_encoder_as_mteb_wants_it(checkpoint):
    assert isinstance(checkpoint, EncoderProtocol)
    meta = checkpoint.mteb_model_meta
    assert (meta.name, meta.embed_dim, meta.max_tokens) == ("xt/tiny", 32, 64)
    assert meta.revision.endswith("-pytorch-fp32")
    assert meta.similarity_fn_name == "cosine"


def test_bitext_mining_gives_the_f1_worked_out_from_the_vectors(checkpoint, tiny):
    """mteb asks the first sentences, finds among the second by cosine, and gives weighted F1 (a class a row)."""
    encoder = load_encoder(tiny, device="cpu")
    one, two = (encoder.encode(rows, truncate=True).vectors for rows in (FOREIGN, ENGLISH))
    said = (one @ two.T).argmax(1)
    row = ran(checkpoint, Bitext())
    assert row["accuracy"] == pytest.approx(np.mean(said == np.arange(4)))


def test_a_checkpoint_a_graph_and_a_server_give_the_same_scores(checkpoint, tiny_repository, server):
    models = [checkpoint, open_for_mteb(str(tiny_repository)), open_for_mteb(url=server.url)]
    assert len({m.mteb_model_meta.revision for m in models}) == 3  # mteb's cache keeps their results apart
    for task in (Bitext, MockRetrievalTask):
        rows = [ran(model, task()) for model in models]
        for row in rows[1:]:
            for key in ("main_score", "accuracy", "ndcg_at_10"):
                if key in rows[0]:
                    assert row[key] == pytest.approx(rows[0][key], abs=1e-5)


def revision(path: Path) -> str:
    return open_for_mteb(str(path), device="cpu").mteb_model_meta.revision


def test_results_of_two_folders_with_one_name_are_kept_apart(tiny_folder, tmp_path):
    """mteb files results under name and revision alone."""
    from safetensors.numpy import load_file, save_file

    same = Path(shutil.copytree(tiny_folder, tmp_path / "a" / "tiny"))
    other = Path(shutil.copytree(tiny_folder, tmp_path / "b" / "tiny"))
    weights = load_file(other / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] *= 1.5
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    pooled = Path(shutil.copytree(tiny_folder, tmp_path / "c" / "tiny"))
    settings = json.loads((pooled / "1_Pooling" / "config.json").read_text())
    settings |= {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (pooled / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    found = [revision(p) for p in (tiny_folder, same, other, pooled)]
    assert found[0] == found[1]
    assert len(set(found)) == 3
    assert all(len(r.split("-")[0]) == 12 for r in found)


def test_two_exports_of_one_checkpoint_are_kept_apart(tiny_repository, tmp_path):
    source = tiny_repository / "encoder"
    facts = read_manifest(source)["facts"]
    for name, words in (("a", "{}"), ("b", "{ }")):
        with new_artifact(tmp_path / name / "encoder", kind="model") as draft:
            shutil.copytree(source, draft.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
            (draft.path / "parity.json").write_text(words)
            draft.facts = facts
    found = [revision(p) for p in (source, tmp_path / "a", tmp_path / "b")]
    assert len(set(found)) == 3
    assert len({open_for_mteb(str(p)).mteb_model_meta.name for p in (source, tmp_path / "b")}) == 1


def test_what_tells_nothing_of_itself_is_known_by_its_vectors_or_overwrites_nothing(tiny):
    encoder = load_encoder(tiny, device="cpu")

    class Other:
        spec = tiny.spec

        def encode(self, texts, **options):
            found = encoder.encode(texts, **options)
            return replace(found, vectors=found.vectors[:, ::-1])

    assert vectors_hash(encoder) == vectors_hash(encoder)
    assert vectors_hash(encoder) != vectors_hash(Other())
    assert MtebEncoder(encoder, tiny.spec).revision != MtebEncoder(encoder, tiny.spec).revision


def test_queries_and_documents_get_their_prefixes(tiny):
    class Seen:
        def __init__(self) -> None:
            self.inner, self.prefixes = load_encoder(tiny, device="cpu"), []

        def encode(self, texts, *, prefix=None, truncate=False):
            self.prefixes.append(prefix)
            return self.inner.encode(texts, prefix=prefix, truncate=truncate)

    seen = Seen()
    ran(MtebEncoder(seen, tiny.spec), MockRetrievalTask())
    assert set(seen.prefixes) == {"query", "passage"}
    seen.prefixes.clear()
    ran(MtebEncoder(seen, tiny.spec), Bitext())
    assert set(seen.prefixes) == {None}  # the encoder's default
    bare = MtebEncoder(seen, replace(tiny.spec, prefixes={}, default_prefix=""))
    assert bare.role("query") is bare.role("document") is None
    with pytest.raises(XtError, match="Unknown prompt type of mteb 'answer'"):
        bare.role("answer")


def test_blank_and_long_texts_do_not_stop_a_run_and_are_counted(tiny):
    model = MtebEncoder(load_encoder(tiny, device="cpu"), tiny.spec)
    texts = ["good morning", " ", "bread " * 200, "good morning"]
    vectors = model.encode([{"text": texts[:2]}, {"text": texts[2:]}])
    assert vectors.shape == (4, 32)
    assert not vectors[1].any()
    np.testing.assert_array_equal(vectors[0], vectors[3])
    np.testing.assert_allclose(vectors[0], model.encoder.encode(["good morning"]).vectors[0], atol=1e-6)
    assert (model.empty, model.truncated) == (1, 1)
    with pytest.raises(XtError, match="mteb gave image; tiny reads text alone"):
        model.encode([{"image": [1]}])


def test_without_the_package_the_error_names_the_extra(tiny_folder, monkeypatch):
    real = util.find_spec
    monkeypatch.setattr("xt.core.errors.find_spec", lambda name: None if name == "mteb" else real(name))
    with pytest.raises(XtError, match=r"needs the Python package 'mteb'.*\n.*xt-retriever\[mteb\]"):
        open_for_mteb(str(tiny_folder))
