"""calibration.json: each kind survives being written, and every shape that was ever written gives the same calibrators.

Tests `calibration/apply/pairs.py` and `calibration/methods.py` as well.
"""

import json
import math
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from xt.calibration import methods, shots
from xt.calibration.apply import file
from xt.calibration.apply.file import (
    CalibrationTable,
    HeadCalibration,
    MethodFit,
    MinedLanguage,
    MiningCalibration,
    SearchCalibration,
)
from xt.calibration.apply.heads import LabelTemperature, OfAnswers, OneVsRest, VectorScaling
from xt.calibration.apply.maps import Beta, Histogram, Isotonic, Platt
from xt.calibration.apply.pairs import FEATURES, PairProbability
from xt.calibration.apply.retrieval import Rescaled, RetrievalMargin, RetrievalTemperature
from xt.calibration.fit.heads import HEAD_METHODS
from xt.core.errors import XtError

FORMER = Path(__file__).parent / "former"
ONE, TWO = RetrievalTemperature(0.01, 0.7), RetrievalTemperature(0.02)
PLATT = Rescaled(ONE, Platt(-0.5, (1.0, 0.5, 0.25, 0.0), (0.0,) * 4, (1.0, 2.0, 1.0, 1.0)))
NONE = Rescaled(RetrievalMargin(0.03, 0.05), Beta(1.0, 1.5, -0.25))
PAIRS = PairProbability((0.1,) * 5, (1.0, 2.0, 1.0, 1.0, 1.0), (3.0, -1.0, 0.5, 0.0, 0.25), -0.125)
WRITTEN = {
    "search": SearchCalibration(
        {
            "e": {
                "foreign-english": {
                    "zero-shot": MethodFit(ONE, fitted_on=("deu", "fra")),
                    "predicted": MethodFit(languages={"swh": TWO}, fitted_on=("deu",), none_score=0.8),
                    "per-language": MethodFit(languages={"deu": ONE, "swh": TWO}),
                    "platt": MethodFit(PLATT, fitted_on=("deu",), scope="zero-shot"),
                    "none-of-these": MethodFit(NONE, {"swh": RetrievalMargin(0.04, 0.1)}, ("deu",), unanswerable=0.5),
                },
                "english-foreign": {},
            },
            "of nothing": {},
        }
    ),
    "mining": MiningCalibration(
        {"e": {"deu": MinedLanguage("ratio", 1.0625, 1.125, PAIRS), "tel": MinedLanguage("ratio", 1.0, None, None)}}
    ),
    "head": HeadCalibration(
        1.5,
        "sib200",
        "sib200",
        answers={
            "labels": {
                "zero-shot": MethodFit(LabelTemperature(1.5)),
                "per-language": MethodFit(languages={"swh": LabelTemperature(2.0)}),
                "vector": MethodFit(VectorScaling((1.0, 0.5), (0.0, -0.25))),
                "isotonic": MethodFit(OneVsRest((Isotonic((0.0, 1.0), (0.1, 0.9)), Beta(1.0, 1.0, 0.0)))),
                "histogram": MethodFit(OfAnswers(Histogram((0.5,), (0.25, 0.75)))),
            }
        },
    ),
    "exported head": HeadCalibration(1.25, "pair", fit={"examples": 40, "labels": 40, "nll_before": 0.9, "nll": 0.8}),
    "retriever": CalibrationTable(PLATT, "platt", {"swh": ONE}, 60, {"task": "django", "corpus_sizes": [60, 60]}),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_what_is_written_is_read_again(tmp_path, kind):
    file.write(tmp_path / "c.json", WRITTEN[kind])
    assert file.read(tmp_path / "c.json") == WRITTEN[kind]
    content = json.loads((tmp_path / "c.json").read_text(), parse_constant=pytest.fail)
    assert (content["version"], content["kind"]) == (1, WRITTEN[kind].kind)


# Shapes before there was a version, as the writers of those days made them.

TEMPERATURE = {"kind": "retrieval-temperature", "temperature": 0.01, "none_score": 0.7}
BARE = {"kind": "retrieval-temperature", "temperature": 0.02, "none_score": None}
PLATT_JSON = {
    "kind": "retrieval-rescaled",
    "base": TEMPERATURE,
    "map": {
        "kind": "platt",
        "bias": -0.5,
        "weights": [1.0, 0.5, 0.25, 0.0],
        "mean": [0.0] * 4,
        "scale": [1.0, 2.0, 1.0, 1.0],
    },
}
NONE_JSON = {
    "kind": "retrieval-rescaled",
    "base": {"kind": "retrieval-margin", "temperature": 0.03, "margin": 0.05},
    "map": {"kind": "beta", "a": 1.0, "b": 1.5, "m": -0.25},
}
OLD = {
    "search": {
        "e": {
            "foreign-english": {
                "zero-shot": {**TEMPERATURE, "fitted_on": ["deu", "fra"]},
                "predicted": {
                    "line": {"kind": "distinct-share", "bias": -0.2, "slope": 1.1, "none_score": 0.8},
                    "languages": {"swh": BARE},
                    "fitted_on": ["deu"],
                },
                "per-language": {"deu": TEMPERATURE, "swh": BARE},
                "platt": {**PLATT_JSON, "fitted_on": ["deu"], "scope": "zero-shot"},
                "none-of-these": {
                    **NONE_JSON,
                    "fitted_on": ["deu"],
                    "unanswerable": 0.5,
                    "languages": {"swh": {"kind": "retrieval-margin", "temperature": 0.04, "margin": 0.1}},
                },
            },
            "english-foreign": {},
        },
        "of nothing": {},
    },
    "mining": {
        "e": {
            "deu": {
                "margin": "ratio",
                "threshold": 1.0625,
                "guaranteed": 1.125,
                "probability": {
                    "method": "logistic",
                    "features": list(FEATURES),
                    "centre": [0.1] * 5,
                    "spread": [1.0, 2.0, 1.0, 1.0, 1.0],
                    "weights": [3.0, -1.0, 0.5, 0.0, 0.25],
                    "bias": -0.125,
                },
            },
            "tel": {"margin": "ratio", "threshold": 1.0, "guaranteed": None, "probability": None},
        }
    },
    "head": {
        "kind": "label-temperature",
        "task": "sib200",
        "measured_on": "sib200",
        "temperature": 1.5,
        "calibrators": {
            "labels": {
                "zero-shot": {"kind": "label-temperature", "temperature": 1.5},
                "per-language": {"swh": {"kind": "label-temperature", "temperature": 2.0}},
                "vector": {"kind": "vector", "scale": [1.0, 0.5], "bias": [0.0, -0.25]},
                "isotonic": {
                    "kind": "one-vs-rest",
                    "maps": [
                        {"kind": "isotonic", "x": [0.0, 1.0], "y": [0.1, 0.9]},
                        {"kind": "beta", "a": 1.0, "b": 1.0, "m": 0.0},
                    ],
                },
                "histogram": {
                    "kind": "of-answers",
                    "map": {"kind": "histogram", "edges": [0.5], "values": [0.25, 0.75]},
                },
            }
        },
    },
    "exported head": {
        "kind": "label-temperature",
        "task": "pair",
        "temperature": 1.25,
        "examples": 40,
        "labels": 40,
        "nll_before": 0.9,
        "nll": 0.8,
    },
    "retriever": {
        "kind": "retrieval-calibration",
        "scope": "platt",
        "default": PLATT_JSON,
        "languages": {"swh": TEMPERATURE},
        "candidates": 60,
        "provenance": {"task": "django", "corpus_sizes": [60, 60]},
    },
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_file_of_before_there_was_a_version_gives_the_same_calibrators(tmp_path, kind):
    (tmp_path / "c.json").write_text(json.dumps(OLD[kind]))
    assert file.read(tmp_path / "c.json") == WRITTEN[kind]


def test_files_that_the_version_before_wrote_give_the_numbers_that_stand_in_them():
    """search.json (one direction of Tatoeba's deu, swh and tel) and mining.json were written by `xt eval` itself."""
    (methods,) = json.loads((FORMER / "search.json").read_text())["encoder"].values()
    found = file.read(FORMER / "search.json").encoders["encoder"]["foreign-english"]
    assert list(found) == list(methods) and len(methods) == 10
    facts = {"fitted_on", "scope", "languages", "unanswerable"}
    for name, raw in methods.items():
        if "kind" in raw:
            assert found[name].calibrator.to_json() == {k: v for k, v in raw.items() if k not in facts}
            assert found[name].fitted_on == tuple(raw["fitted_on"])
        own = raw if name in ("per-language", "shrunk") else raw.get("languages", {})
        assert {code: one.to_json() for code, one in found[name].languages.items()} == own
    assert found["predicted"].none_score == methods["predicted"]["line"]["none_score"]
    (mined,) = json.loads((FORMER / "mining.json").read_text()).values()
    pairs = file.read(FORMER / "mining.json").encoders["encoder"]
    for code, raw in mined.items():
        numbers = {k: raw["probability"][k] for k in ("centre", "spread", "weights", "bias")}
        assert {k: v for k, v in pairs[code].probability.to_json().items() if k in numbers} == numbers
        assert (pairs[code].threshold, pairs[code].guaranteed) == (raw["threshold"], raw["guaranteed"])


def test_a_temperature_alone_is_that_of_any_head():
    assert file.from_json({"temperature": 2}) == HeadCalibration(2.0)


def test_what_was_read_calculates_what_the_numbers_say():
    read = file.from_json(OLD["search"]).encoders["e"]["foreign-english"]
    scores = np.array([[0.9, 0.85]])
    odds = np.exp(np.array([0.9, 0.85, 0.7]) / 0.01 - 90)
    np.testing.assert_allclose(read["zero-shot"].calibrator(scores)[0], odds / odds.sum(), rtol=1e-12)
    pair = file.from_json(OLD["mining"]).encoders["e"]["deu"].probability
    features = np.array([1.1, 2.1, 0.1, 0.1, 4.1])  # less the centre, by the spread: 1, 1, 0, 0, 4
    assert pair(features[None])[0] == pytest.approx(1 / (1 + math.exp(-(3.0 - 1.0 + 0.25 * 4 - 0.125))))


def test_the_facts_of_a_server_of_before_are_read_too():
    table = WRITTEN["retriever"]
    for told in (table.to_json(), OLD["retriever"]):
        facts = {"kind": "retriever", "checkpoint": {"kind": "checkpoint", "hash": "x"}, "calibrated": told}
        assert file.table_among(facts) == table
    lone = file.table_among({"own": TEMPERATURE})
    assert lone is not None and lone.choose("deu") == (ONE, "its own")
    assert file.table_among({"kind": "encoder", "calibrated": None, "encoder": {"name": "e"}}) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "holds a JSON list; expected an object"),
        ({}, "holds no calibration; expected one of search, mining, head, retriever"),
        ({"a": 1}, "holds no calibration"),
        ({"kind": "report"}, "holds 'report'; expected one of search"),
        ({"version": 2, "kind": "search"}, "of version 2; this xt (.*) reads 1"),
        ({"version": 1, "kind": "search"}, "of kind search that lacks or misstates 'encoders'"),
        ({"version": 1, "kind": "table"}, "holds table; expected one of"),
        ({**WRITTEN["retriever"].to_json(), "candidates": 0}, "at least one candidate; found 0"),
        ({"temperature": "warm"}, "temperature of a head is 'warm'; expected a number"),
        ({"e": {"a-b": {"pooled": {"kind": "platt"}}}}, "Unknown calibrator 'platt'"),
        ({"e": {"deu": {"margin": "ratio", "threshold": 1.0}}}, "of kind mining that lacks or misstates 'guaranteed'"),
    ],
)
def test_what_is_no_calibration_is_refused_with_what_was_expected_and_found(tmp_path, value, message):
    (tmp_path / "c.json").write_text(json.dumps(value))
    with pytest.raises(XtError, match=message) as refused:
        file.read(tmp_path / "c.json")
    assert str(tmp_path / "c.json") in refused.value.message and refused.value.hint


def test_another_kind_is_no_calibration_of_a_retriever():
    with pytest.raises(XtError, match="is of kind head; expected that of a retriever"):
        file.table_of({"temperature": 1.5})


def test_every_name_of_a_method_is_in_the_one_table():
    reading = import_module("xt.eval.report.reading")
    used = {*HEAD_METHODS, *file.SCOPES, shots.PER_LANGUAGE, shots.SHRUNK, reading.BEFORE, *reading.AFTER}
    used |= {name for preferred in methods.PREFERRED.values() for name in preferred}
    assert used - set(methods.METHODS) == {file.NONE}  # fitted apart, with queries that lost their answer
    for name in HEAD_METHODS:
        assert methods.HEADS in methods.METHODS[name].of and HEAD_METHODS[name].label == methods.METHODS[name].title
