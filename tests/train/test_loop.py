"""Training on a tiny encoder, end to end: what it learns, what it writes, what it leaves when it fails."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from xt.core.artifact import open_artifact
from xt.core.encoders import Resolved, from_folder
from xt.core.errors import XtError
from xt.core.torch_engine import load, load_network
from xt.train import loop
from xt.train.config import TrainConfig
from xt.train.trainer import TaskData

from .conftest import SAMPLES, means

EMBEDDINGS = "embeddings.word_embeddings.weight"
TEXTS = ["The river is long.", "Anna lives in the blue house near the old station.", "unheardof words", "tea"]


def config(tiny: Path, out: Path, **change: Any) -> TrainConfig:
    """Forty fast steps on the CPU."""
    values = {"steps": 40, "batch": 8, "learning_rate": 2e-3, "head_learning_rate": 5e-3, "device": "cpu", **change}
    return TrainConfig(encoder=str(tiny), intermediate=values.pop("intermediate", SAMPLES), out=out, **values)


def run(tiny: Path, out: Path, data: list[TaskData], *, resolved: Resolved | None = None, **change: Any) -> Path:
    """Train the tiny encoder on some data."""
    settings = config(tiny, out, **change)
    return loop.train_from_network(settings, load_network(tiny), resolved or from_folder(tiny), data)


@pytest.fixture(scope="module")
def trained(tiny: Path, small_data: list[TaskData], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder, trained for 40 steps."""
    return run(tiny, tmp_path_factory.mktemp("runs") / "x", small_data)


def test_training_lowers_the_loss_of_every_task(tiny: Path, small_data: list[TaskData], tmp_path: Path) -> None:
    eight = [replace(d, train=d.train[:8]) for d in small_data]  # few enough to learn by heart
    out = run(tiny, tmp_path / "x", eight, steps=160, learning_rate=3e-3)
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
    assert {row["examples"] for row in rows.values()} == {80}  # 10 steps of 8
    assert {(row["train"], row["dev"], row["sample"]) for row in rows.values()} == {(32, 8, True)}
    assert rows["sample-nli"]["labels"] == ["entailment", "neutral", "contradiction"]
    assert rows["sample-qa"]["majority_label"] == "no baseline"
    assert set(rows["sample-qa"]["exact_match"]) == {"before", "after"}
    assert all(0 <= row[key] <= 1 for row in rows.values() for key in ("before", "after", "majority"))
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
    assert any("sample-paraphrase: accuracy" in line and "always not_paraphrase: 0.500" in line for line in lines)
    assert len(kept["tasks"][0]["sha256"]) == 64
    assert capfd.readouterr().out == ""


def test_an_existing_target_is_refused_before_any_work(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    monkeypatch.setattr(loop, "resolve", lambda name: pytest.fail("the encoder was looked for"))
    monkeypatch.setattr(loop, "read_tasks", lambda names: pytest.fail("data were read"))
    with pytest.raises(XtError, match="exists already") as error:
        loop.train(config(tiny, out))
    assert "--force" in error.value.hint
    assert [p.name for p in out.iterdir()] == ["mine.txt"]


def test_force_replaces_what_is_there(tiny: Path, small_data: list[TaskData], tmp_path: Path) -> None:
    out = tmp_path / "x"
    out.mkdir()
    (out / "old.txt").write_text("old")
    run(tiny, out, small_data[:1], steps=1, force=True)
    assert open_artifact(out).path == out
    assert not (out / "old.txt").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, XtError, RuntimeError])
def test_nothing_is_left_when_training_fails(
    error: type[BaseException], tiny: Path, small_data: list[TaskData], tmp_path: Path
) -> None:
    def stop(step: int, total: int, facts: dict[str, Any]) -> None:
        raise error("stop")

    settings = config(tiny, tmp_path / "x", steps=3)
    with pytest.raises(error):
        loop.train_from_network(settings, load_network(tiny), from_folder(tiny), small_data, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_no_number_stops_with_what_to_do(tiny: Path, small_data: list[TaskData], tmp_path: Path) -> None:
    network = load_network(tiny)
    with torch.no_grad():
        next(p for n, p in network.named_parameters() if "output.dense.weight" in n)[0, 0] = torch.nan
    with pytest.raises(XtError, match=r"The loss of step 1 \(sample-nli\) is nan") as error:
        loop.train_from_network(config(tiny, tmp_path / "x"), network, from_folder(tiny), small_data[:1])
    assert "--lr" in error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_run_among_several_processes_is_refused(
    tiny: Path, small_data: list[TaskData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(XtError, match="WORLD_SIZE=2"):
        run(tiny, tmp_path / "x", small_data[:1], steps=1)


def test_examples_that_will_be_cut_are_reported(tiny: Path, small_data: list[TaskData], tmp_path: Path) -> None:
    lines: list[str] = []
    settings = config(tiny, tmp_path / "x", steps=1, max_length=16)
    loop.train_from_network(settings, load_network(tiny), from_folder(tiny), small_data[:1], report=lines.append)
    row = open_artifact(tmp_path / "x").facts["training"]["tasks"][0]
    assert row["cut"] > 0
    assert any(f"{row['cut']} of 32 training examples have more than 16 tokens" in line for line in lines)


def test_a_folder_without_a_usable_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(XtError, match="cannot load"):
        loop.load_tokenizer(tmp_path)
