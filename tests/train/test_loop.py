"""Training on a tiny encoder, end to end: what it learns, what it writes, what it leaves when it fails.

Tests `train/checkpoint.py` and `train/run.py` as well.
"""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from xt.core.encoder.resolve import Resolved, from_folder
from xt.core.encoder.torch_engine import load, load_network
from xt.core.errors import XtError
from xt.core.files.artifact import new_artifact, open_artifact
from xt.core.heads.inputs import Inputs
from xt.core.heads.network import load_heads
from xt.core.heads.predict import predict
from xt.core.heads.scores import score
from xt.train import loop
from xt.train.config import TrainConfig
from xt.train.data import TaskData
from xt.train.run import Run

from .conftest import SAMPLES, Files, load_data, make_tokenizer, means

EMBEDDINGS = "embeddings.word_embeddings.weight"
TEXTS = ["The river is long.", "Anna lives in the blue house near the old station.", "unheardof words", "tea"]


def config(tiny: Path, out: Path, **change: Any) -> TrainConfig:
    """Forty fast steps on the CPU."""
    values = {"steps": 40, "batch": 8, "learning_rate": 2e-3, "head_learning_rate": 5e-3, "device": "cpu", **change}
    given = {"intermediate": SAMPLES, "limit": 32, "dev_limit": 8, "max_length": 64, **values}
    return TrainConfig(encoder=str(tiny), out=out, **given)


def run(tiny: Path, out: Path, data: list[TaskData], *, resolved: Resolved | None = None, **change: Any) -> Path:
    """Train the tiny encoder on some data."""
    settings = config(tiny, out, **change)
    return loop.train_from_network(settings, load_network(tiny), resolved or from_folder(tiny), data)


@pytest.fixture(scope="module")
def trained(tiny: Path, small_data: list[TaskData], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder, trained for 40 steps."""
    return run(tiny, tmp_path_factory.mktemp("runs") / "x", small_data)


def test_training_lowers_the_loss_of_every_task(tiny: Path, small_data: list[TaskData], tmp_path: Path) -> None:
    eight = load_data(tiny, intermediate=SAMPLES, limit=8)  # few enough to learn by heart
    out = run(tiny, tmp_path / "x", eight, steps=160, learning_rate=3e-3, sampling="uniform")
    losses = open_artifact(out).facts["training"]["losses"]
    assert [row["step"] for row in losses] == list(range(1, 161))
    checked = {task: means(losses, task) for task in SAMPLES}
    assert len(checked) == 4
    assert all(last < 0.7 * first for first, last in checked.values()), checked


def test_frozen_embeddings_stay_and_other_weights_move(tiny: Path, trained: Path) -> None:
    before, after = load_file(tiny / "model.safetensors"), load_file(trained / "model.safetensors")
    assert before.keys() == after.keys()
    assert torch.equal(before[EMBEDDINGS], after[EMBEDDINGS])
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {EMBEDDINGS}


def test_embeddings_move_when_they_are_not_frozen(tiny: Path, small_data: list[TaskData], tmp_path: Path) -> None:
    out = run(tiny, tmp_path / "x", small_data[:1], steps=2, freeze_embeddings=False)
    before, after = load_file(tiny / "model.safetensors"), load_file(out / "model.safetensors")
    assert not torch.equal(before[EMBEDDINGS], after[EMBEDDINGS])


def test_the_folder_loads_with_automodel_without_missing_weights(trained: Path) -> None:
    _, found = transformers.AutoModel.from_pretrained(trained, output_loading_info=True)
    assert {name for name in found["missing_keys"] if not name.startswith("pooler.")} == set()
    assert found["unexpected_keys"] == []
    assert found["mismatched_keys"] == []


def test_the_folder_gives_sentence_transformers_and_xt_the_same_vectors(tiny: Path, trained: Path) -> None:
    from sentence_transformers import SentenceTransformer

    ours = load(str(trained), device="cpu").encode(TEXTS).vectors
    theirs = SentenceTransformer(str(trained), device="cpu").encode(TEXTS, convert_to_numpy=True)
    assert np.sum(ours * theirs, axis=1).min() >= 0.9999
    untrained = load(str(tiny), device="cpu").encode(TEXTS).vectors
    assert np.sum(ours * untrained, axis=1).max() < 0.9999


def test_the_heads_are_kept_with_their_tasks(trained: Path) -> None:
    heads = load_file(trained / "heads.safetensors")
    assert {name.split(".")[0] for name in heads} == set(SAMPLES)
    assert heads["sample-nli.score.out.weight"].shape == (3, 32)
    assert heads["sample-choice.score.out.weight"].shape == (1, 32)
    assert heads["sample-qa.out.weight"].shape == (2, 32)


def test_the_manifest_tells_what_was_done(tiny: Path, trained: Path) -> None:
    artifact = open_artifact(trained, kind="checkpoint")
    facts = artifact.facts["training"]
    rows = {row["task"]: row for row in facts["tasks"]}
    assert list(rows) == list(SAMPLES)
    assert sum(row["steps"] for row in rows.values()) == facts["steps"] == 40
    assert all(row["examples"] == 8 * row["steps"] and row["steps"] == row["planned_steps"] for row in rows.values())
    assert rows["sample-qa"]["steps"] > rows["sample-nli"]["steps"]  # its contexts are read in windows
    assert {(row["train"], row["dev"], row["sample"]) for row in rows.values()} == {(32, 8, True)}
    assert rows["sample-nli"]["labels"] == ["entailment", "neutral", "contradiction"]
    assert rows["sample-qa"]["majority_label"] == "no baseline"
    assert set(rows["sample-qa"]["others"]["exact_match"]) == {"before", "after"}
    assert all(0 <= row[key] <= 1 for row in rows.values() for key in ("after", "majority"))
    assert all(row["before"] is None for row in rows.values())  # the heads were random
    assert sum(facts["probabilities"].values()) == pytest.approx(1)
    assert facts["tokens_per_second"] == pytest.approx(facts["tokens"] / facts["seconds"], rel=0.01)
    assert facts["config"]["steps"] == 40
    assert artifact.manifest["parents"] == [from_folder(tiny).parent]
    assert artifact.manifest["seed"] == 0
    spec = from_folder(trained).spec
    assert spec.name == "x"
    assert "then trained on sample-nli (sample), sample-paraphrase (sample)" in spec.provenance
    assert replace(spec, name="", provenance="") == replace(from_folder(tiny).spec, name="", provenance="")


def test_a_published_temperature_travels_with_the_encoder(
    tiny: Path, small_data: list[TaskData], tmp_path: Path
) -> None:
    found = from_folder(tiny)
    resolved = replace(found, spec=replace(found.spec, temperature=0.01, provenance="hub at 1234"))
    spec = from_folder(run(tiny, tmp_path / "x", small_data[:1], steps=1, resolved=resolved)).spec
    assert spec.temperature == 0.01
    assert spec.provenance == "hub at 1234, then trained on sample-nli (sample)"


def test_the_same_seed_gives_the_same_weights_and_another_others(
    tiny: Path, small_data: list[TaskData], tmp_path: Path
) -> None:
    one, two, three = (
        load_file(run(tiny, tmp_path / str(i), small_data, steps=6, seed=seed) / "model.safetensors")
        for i, seed in enumerate((1, 1, 2))
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], three[name]) for name in one)


def test_the_learning_rates_rise_and_fall_and_the_heads_have_their_own(
    tiny: Path, small_data: list[TaskData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, ...]] = []
    step = torch.optim.AdamW.step

    def note(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        seen.append(tuple(sorted({group["lr"] for group in self.param_groups})))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", note)
    rates: dict[str, Any] = {"learning_rate": 1e-3, "head_learning_rate": 1e-2, "warmup": 0.2}
    run(tiny, tmp_path / "x", small_data[:1], steps=10, **rates)
    shares = [0.0, 0.5, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    assert [max(rates) for rates in seen] == pytest.approx([1e-2 * share for share in shares])
    assert [min(rates) for rates in seen] == pytest.approx([1e-3 * share for share in shares])


def test_training_by_name_reports_and_prints_nothing(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], steps_seen: Any
) -> None:
    seen, progress = steps_seen
    lines: list[str] = []
    settings = config(tiny, tmp_path / "x", steps=3, intermediate=("sample-paraphrase",))
    assert loop.train(settings, report=lines.append, progress=progress) == tmp_path / "x"
    assert [(step, total) for step, total, _ in seen] == [(1, 3), (2, 3), (3, 3)]
    kept = json.loads((tmp_path / "x" / "xt.json").read_text())["facts"]["training"]
    assert [facts["loss"] for _, _, facts in seen] == [row["loss"] for row in kept["losses"]]
    assert any(line.startswith("sample-paraphrase: accuracy 0.") and "(always " in line for line in lines)
    assert {len(digest) for digest in kept["tasks"][0]["sha256"].values()} == {64}
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert capfd.readouterr().out == ""


def test_an_existing_target_is_refused_before_any_work(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    monkeypatch.setattr(loop, "resolve", lambda name: pytest.fail("the encoder was looked for"))
    monkeypatch.setattr(loop, "load", lambda *args: pytest.fail("data were read"))
    with pytest.raises(XtError, match="exists already") as error:
        loop.train(config(tiny, out))
    assert "--force" in error.value.hint
    assert [p.name for p in out.iterdir()] == ["mine.txt"]


def test_force_replaces_a_checkpoint_and_nothing_else(tiny: Path, small_data: list[TaskData], tmp_path: Path) -> None:
    out = tmp_path / "x"
    with new_artifact(out, kind="checkpoint") as draft:
        (draft.path / "old.txt").write_text("old")
    run(tiny, out, small_data[:1], steps=1, force=True)
    assert open_artifact(out).path == out
    assert not (out / "old.txt").exists()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(XtError, match=r"did not write there.*mine\.txt"):
        run(tiny, out, small_data[:1], steps=1, force=True)
    assert (out / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("error", [KeyboardInterrupt, XtError, RuntimeError])
def test_nothing_is_left_when_training_fails(
    error: type[BaseException], tiny: Path, small_data: list[TaskData], tmp_path: Path
) -> None:
    def stop(step: int, total: int, facts: dict[str, Any]) -> None:
        raise error("stop")

    settings = config(tiny, tmp_path / "x", steps=3)
    with pytest.raises(error):
        loop.train_from_network(
            settings, load_network(tiny), from_folder(tiny), small_data, run=Run("cpu", progress=stop)
        )
    assert list(tmp_path.iterdir()) == []


def test_examples_that_will_be_cut_are_reported(tiny: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    settings = config(tiny, tmp_path / "x", steps=1, max_length=16, intermediate=("sample-nli",))
    loop.train(settings, report=lines.append)
    row = open_artifact(tmp_path / "x").facts["training"]["tasks"][0]
    assert row["cut"] > 0
    assert any(f"{row['cut']} have more than 16 tokens, their ends are cut" in line for line in lines)


def test_both_phases_give_one_folder_with_the_target_head_and_both_accounts(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "x"
    lines: list[str] = []
    more: dict[str, Any] = {"steps": 5, "intermediate": ("sample-choice", "sample-qa"), "log_to": ("tensorboard",)}
    loop.train(config(tiny, out, target="sample-nli", target_steps=7, **more), report=lines.append)
    artifact = open_artifact(out, kind="checkpoint")
    assert {name.split(".")[0] for name in load_file(out / "heads.safetensors")} == {"sample-nli"}
    assert artifact.facts["heads"] == ["sample-nli"]
    first, second = artifact.facts["intermediate"], artifact.facts["training"]
    assert ([t["task"] for t in first["tasks"]], first["steps"]) == (["sample-choice", "sample-qa"], 5)
    assert ([t["task"] for t in second["tasks"]], second["steps"]) == (["sample-nli"], 7)
    assert artifact.manifest["parents"] == [from_folder(tiny).parent]
    assert "<html" in (out / "training.html").read_text()
    assert "sample-choice" in (out / "training-intermediate.html").read_text()
    spec = from_folder(out).spec
    assert "then trained on sample-choice (sample), sample-qa (sample), then trained on sample-nli" in spec.provenance
    assert [line for line in lines if line.startswith(("intermediate: ", "target: "))] == [
        "intermediate: sample-choice, sample-qa", "target: sample-nli",
    ]  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x", "x.logs"]
    assert sorted(p.name for p in (tmp_path / "x.logs").iterdir()) == ["intermediate", "target"]


def test_the_target_starts_from_the_intermediate_weights(tiny: Path, tmp_path: Path) -> None:
    """Two commands, the second on what the first wrote, give what one command for both phases gives."""
    one = loop.train(config(tiny, tmp_path / "one", steps=4, target="sample-nli", intermediate=("sample-qa",)))
    half = loop.train(config(tiny, tmp_path / "half", steps=4, intermediate=("sample-qa",)))
    two = loop.train(config(half, tmp_path / "two", steps=4, target="sample-nli", intermediate=()))
    weights = [load_file(out / "model.safetensors") for out in (one, two)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert open_artifact(two).manifest["parents"] == [from_folder(half).parent]


def hidden_mean(network: Any, ids: torch.Tensor, layer: int) -> torch.Tensor:
    """Unit vectors pooled from hidden_states[layer] of a whole network; no padding."""
    with torch.no_grad():
        states = network(ids, output_hidden_states=True).hidden_states[layer]
    return torch.nn.functional.normalize(states.mean(1), dim=-1)


def test_a_pooled_layer_gives_a_folder_of_so_many_layers_and_the_rest_beside_it(
    tiny: Path, small_data: list[TaskData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers import SentenceTransformer

    whole: list[Any] = []
    write = loop.checkpoint.write

    def note(folder: Path, model: Any, *args: Any, **kwargs: Any) -> None:
        whole.append(copy.deepcopy(model.encoder).eval())
        write(folder, model, *args, **kwargs)

    monkeypatch.setattr(loop.checkpoint, "write", note)
    out = run(tiny, tmp_path / "x", small_data, steps=8, pool_layer=1)
    assert transformers.AutoConfig.from_pretrained(out).num_hidden_layers == 1
    assert (out / "upper.safetensors").is_file()
    assert open_artifact(out).facts["pool_layer"] == 1
    model = SentenceTransformer(str(out), device="cpu")
    ids = torch.tensor([model.tokenizer("query: " + TEXTS[1])["input_ids"]])
    theirs = torch.from_numpy(model.encode([TEXTS[1]]))
    torch.testing.assert_close(theirs, hidden_mean(whole[0], ids, 1), rtol=1e-4, atol=1e-5)
    ours = torch.from_numpy(load(str(out), device="cpu").encode([TEXTS[1]]).vectors)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert float((hidden_mean(whole[0], ids, 2) - theirs).abs().max()) > 1e-2

    # a further training has all layers again, and reads the same one for retrieval
    again = run(out, tmp_path / "y", small_data[:1], steps=1, learning_rate=1e-9)
    assert len(whole[1].encoder.layer) == 2
    torch.testing.assert_close(hidden_mean(whole[1], ids, 2), hidden_mean(whole[0], ids, 2), rtol=1e-4, atol=1e-5)
    assert open_artifact(again).facts["pool_layer"] == 1


@pytest.mark.parametrize("layer", [None, 1])
def test_the_heads_of_a_folder_predict_what_the_trained_model_did(
    layer: int | None, tiny: Path, small_data: list[TaskData], tmp_path: Path
) -> None:
    out = run(tiny, tmp_path / "x", small_data, steps=20, pool_layer=layer)
    resolved = from_folder(out)
    model, rows = load_heads(out, load_network(out), resolved.spec)
    inputs = Inputs(out / "tokenizer.json", resolved.spec, max_length=64)
    facts = {row["task"]: row for row in open_artifact(out).facts["training"]["tasks"]}
    checked = 0
    for d in small_data:
        values = [p.value for p in predict(model, inputs, rows[d.task.name], d.dev)]
        assert score(d.task, d.dev, values)[d.task.metric] == facts[d.task.name]["after"]
        assert len(values) == 8
        checked += 1
    assert checked == 4


def test_contrastive_training_reads_the_layer_that_retrieval_reads(tiny: Path, tmp_path: Path) -> None:
    """Layers above it get no gradient from it."""
    data = load_data(tiny, contrastive=("sample-nli",))
    out = run(tiny, tmp_path / "x", data, steps=3, pool_layer=1, intermediate=(), contrastive=("sample-nli",))
    before, after = load_file(tiny / "model.safetensors"), load_file(out / "model.safetensors")
    upper = load_file(out / "upper.safetensors")
    assert all(torch.equal(value, before[f"encoder.layer.1.{name[2:]}"]) for name, value in upper.items())
    assert len(upper) == 16
    assert load_heads(out, load_network(out), from_folder(out).spec)[0].layer == 1
    assert not torch.equal(after["encoder.layer.0.output.dense.weight"], before["encoder.layer.0.output.dense.weight"])


def test_a_layer_that_is_not_there_is_refused(tiny: Path, small_data: list[TaskData], tmp_path: Path) -> None:
    with pytest.raises(XtError, match="pool_layer is 3; the encoder has 2 layers"):
        run(tiny, tmp_path / "x", small_data[:1], pool_layer=3)
    assert list(tmp_path.iterdir()) == []


def test_sharding_without_gpus_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(XtError, match="FSDP needs GPUs"):
        loop.train(config(tiny, tmp_path / "x", fsdp="full_shard"))
    assert list(tmp_path.iterdir()) == []


def test_hidden_tokens_need_a_mask_token(tiny: Path, files: Files, tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(tiny, encoder)
    make_tokenizer(encoder, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[unused]"))
    with pytest.raises(XtError, match="no mask token"):
        loop.train(config(encoder, tmp_path / "x", intermediate=(), mlm=(str(files.text),)))
    assert [p.name for p in tmp_path.iterdir()] == ["encoder"]


def test_every_format_trains_together_and_is_scored(tiny: Path, files: Files, tmp_path: Path) -> None:
    out = loop.train(config(tiny, tmp_path / "x", steps=9, sampling="uniform", **files.all))
    facts = open_artifact(out).facts["training"]
    rows = {row["format"]: row for row in facts["tasks"]}
    assert set(rows) == {"pair", "choice", "qa", "tagging", "regression", "mlm", "contrastive", "image-text"}
    assert all(row["steps"] >= 1 and row["tokens"] > 0 for row in rows.values())
    before = {form for form, row in rows.items() if row["before"] is not None}
    assert before == {"mlm", "contrastive", "image-text"}
    assert sum(row["tokens"] for row in rows.values()) == facts["tokens"] <= facts["padded_tokens"]
    model, tasks = load_heads(out, load_network(out), from_folder(out).spec)
    assert len(tasks) == len(model.heads) == 8


def test_a_place_to_log_to_that_is_not_installed_is_named_before_any_work(tiny: Path, tmp_path: Path) -> None:
    config = TrainConfig(encoder=str(tiny), out=tmp_path / "x", intermediate=("sample-nli",), log_to=("wandb",))
    with pytest.raises(XtError, match="needs the package wandb"):
        loop.train(config)
    assert list(tmp_path.iterdir()) == []
