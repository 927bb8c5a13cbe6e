"""The training-speed study on the tiny encoder: the same work on both sides."""

from __future__ import annotations

import json

import pytest
import torch

from xt.bench import training_speed as speed
from xt.core.errors import XtError
from xt.core.reporter import Reporter


@pytest.fixture(autouse=True)
def prepared(tmp_path, monkeypatch):
    monkeypatch.setattr("xt.train.prepare.preparations", lambda: tmp_path / "prepared")


def run(tmp_path, tiny_folder, **settings):
    study = speed.Settings(
        tmp_path / "speed",
        str(tiny_folder),
        tasks=("sample-nli",),
        steps=4,
        rounds=1,
        max_length=64,
        device="cpu",
        **settings,
    )
    lines = []
    found = speed.execute(study, reporter=Reporter(lines.append))
    return found, lines


def test_both_engines_read_the_same_tokens_and_end_at_the_same_weights(tmp_path, tiny_folder, monkeypatch):
    ends = {}
    trainer, ours = speed.time_trainer, speed.time_xt

    def keep(name, function):
        def timed(config, data, model, *more):
            for module in model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
            for layer in model.encoder.encoder.layer:
                layer.attention.self.dropout_prob = 0.0
            tokens = function(config, data, model, *more)
            if config.steps == 4:
                ends.setdefault(name if not config.group_by_length else "grouped", (tokens[0], model.state_dict()))
            return tokens

        return timed

    monkeypatch.setattr(speed, "time_trainer", keep("trainer", trainer))
    monkeypatch.setattr(speed, "time_xt", keep("xt", ours))
    found, _ = run(tmp_path, tiny_folder)
    assert ends["trainer"][0] == ends["xt"][0] > 0
    start = {name: value for name, value in ends["trainer"][1].items() if value.dtype.is_floating_point}
    assert set(start) == {n for n, v in ends["xt"][1].items() if v.dtype.is_floating_point}
    # The head has another learning rate and the schedules warm up differently: near, not equal.
    assert all(torch.allclose(value, ends["xt"][1][name], atol=5e-3) for name, value in start.items())
    assert set(found["tasks"]["sample-nli"]["engines"]) == set(speed.ENGINES)


def test_the_result_is_written_and_said(tmp_path, tiny_folder):
    found, lines = run(tmp_path, tiny_folder)
    written = json.loads((tmp_path / "speed" / "speed.json").read_text())
    assert written == json.loads(json.dumps(found))
    rows = written["tasks"]["sample-nli"]["engines"]
    assert rows["trainer"]["over_trainer"] == 1.0
    assert sum("times Trainer" in line for line in lines) == len(speed.ENGINES)


def test_without_data_nothing_is_measured(tmp_path, tiny_folder, monkeypatch):
    monkeypatch.delenv("XT_DATA", raising=False)
    study = speed.Settings(tmp_path / "speed", str(tiny_folder), tasks=("rte",), device="cpu")
    with pytest.raises(XtError, match="None of the tasks"):
        speed.execute(study)
    assert not (tmp_path / "speed").exists()
