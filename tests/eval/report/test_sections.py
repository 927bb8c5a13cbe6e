"""The page's sections on trust: drawn to scale, complete, escaped, and whole again when any part is missing.

`python tests/eval/report/test_sections.py REPORT OUT` renders what a whole evaluation shows from a report folder, to
be looked at.

Tests `eval/report/charts/map.py`, `eval/report/reading.py`, `eval/report/sections/classes.py`,
`eval/report/sections/errors.py`, `eval/report/sections/groups.py`, `eval/report/sections/layers.py`,
`eval/report/sections/map.py`, `eval/report/sections/quality.py`, `eval/report/sections/sets.py`,
`eval/report/sections/tables.py`, `eval/report/sections/trust.py` and `eval/report/sections/work.py` as well.
"""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from tests.pages import Element, numbers, points, read
from xt.calibration.measuring import measures
from xt.core import languages
from xt.core.pages import rows
from xt.core.results.calibration import Bin
from xt.core.results.folder import open_report
from xt.core.results.report import Report
from xt.eval.report import build, reading
from xt.eval.report.charts import map as charts_map
from xt.eval.report.charts import reliability
from xt.eval.report.sections import trust as report_trust

Rows = list[dict[str, Any]]


def columns(predictions: Rows, encoder: str, direction: str) -> dict[str, Rows]:
    """Predictions of one encoder and direction, by language."""
    found: dict[str, Rows] = defaultdict(list)
    for p in predictions:
        if p.get("encoder", encoder) == encoder and p["direction"] == direction:
            found[p["language"]].append(p)
    return found


def scored(rows: Rows, key: str, temperature: float | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """One language under one method, and its resamples."""
    confidence, correct = (np.array([float(p[k]) for p in rows]) for k in (f"p_{key}", "correct"))
    row, drawn = measures.measure_and_draw(confidence, correct, repeats=60)
    row |= {"n": len(rows), "accuracy": float(correct.mean()), "mean_confidence": float(confidence.mean())}
    row |= {"temperature": temperature, "reliability": measures.reliability(confidence, correct, bins=10)}
    return row | {"risk_coverage": measures.risk_coverage(confidence, correct, points=40)}, drawn


def calibrated(by_language: dict[str, Rows], old: dict[str, Any], resources: dict[str, str]) -> dict[str, Any]:
    """The methods of one direction."""
    out: dict[str, Any] = {}
    for key, method in old.items():
        rows, boots = {}, {}
        for code, some in by_language.items():
            rows[code], boots[code] = scored(some, key, method["languages"][code].get("temperature"))
        every = [p for some in by_language.values() for p in some]
        confidence, correct = (np.array([float(p[k]) for p in every]) for k in (f"p_{key}", "correct"))

        def mean(members: list[str], rows: Any = rows, boots: Any = boots) -> dict[str, Any]:
            plain = {k: float(np.mean([rows[m][k] for m in members])) for k in ("accuracy", "mean_confidence")} | {
                "n": sum(rows[m]["n"] for m in members)
            }
            return {**measures.average(rows, boots, members), **plain}

        classes = sorted({resources.get(c, "unknown") for c in rows})
        out[key] = {
            "label": method["label"],
            "temperature": method.get("temperature"),
            "overall": mean(list(rows)),
            "by_resource": {g: mean([c for c in rows if resources.get(c, "unknown") == g]) for g in classes},
            "languages": rows,
            "reliability": measures.reliability(confidence, correct),
            "risk_coverage": measures.risk_coverage(confidence, correct),
        }
    return out


def extend(metrics: dict[str, Any], predictions: Rows) -> dict[str, Any]:
    """Give the metrics with every section; what predictions do not hold (conformal sets, shots) is made up."""
    rng = np.random.default_rng(0)
    metrics = json.loads(json.dumps(metrics))
    for code, about in metrics["languages"].items():
        about["joshi"] = languages.resolve(code).joshi
    resources = {c: about["resource"] for c, about in metrics["languages"].items()}
    for encoder in metrics["encoders"]:
        encoder["none_of_these"], encoder["conformal"] = {}, {}
        for way, block in encoder["calibration"].items():
            some = columns(predictions, encoder["name"], way)
            block["methods"] = calibrated(some, block["methods"], resources)
            block["shots"] = {
                str(n): {
                    "per-language": {
                        "ece": 0.02 + 0.5 / n,
                        "ece_ci": [0.015 + 0.4 / n, 0.03 + 0.6 / n],
                        "ece_null": 0.02,
                    },
                    "shrunk": {"ece": 0.028 - 0.0001 * n, "ece_ci": [0.02, 0.035], "ece_null": 0.02},
                }
                for n in (16, 50)
            }
            retrieval = encoder["retrieval"][way]
            groups: dict[str, dict[str, list[float]]] = {"family": {}, "script": {}, "joshi": {}}
            absent, sets = {}, {"zero-shot": {}, "per-language": {}}
            for code, row in retrieval["languages"].items():
                row["accuracy_pool"] = min(1.0, row["accuracy"] + 0.3 * (1 - row["accuracy"]))
                for kind, found in groups.items():
                    found.setdefault(str(metrics["languages"][code][kind]), []).append(row["accuracy"])
                value = float(np.clip(0.7 + 0.3 * row["accuracy"] + rng.normal(0, 0.02), 0, 1))
                refusal = {
                    "risk": 0.1,
                    "threshold": 0.62,
                    "coverage": row["accuracy"],
                    "risk_found": abs(rng.normal(0.1, 0.02)),
                }
                absent[code] = {"auroc": value, "auroc_ci": [value - 0.03, min(1, value + 0.03)], "refusal": refusal}
                for scope, found in sets.items():
                    share = float(np.clip(rng.normal(0.9, 0.04 if scope == "zero-shot" else 0.015), 0, 1))
                    size = float(1 + 30 * (1 - row["accuracy"]))
                    found[code] = {
                        "coverage": share,
                        "coverage_ci": [share - 0.03, min(1, share + 0.03)],
                        "mean_size": size,
                        "median_size": 1.0,
                    }
            retrieval["groups"] = {
                kind: {n: {"accuracy": float(np.mean(v)), "n_languages": len(v)} for n, v in found.items()}
                for kind, found in groups.items()
            }
            retrieval["pool"] = 100
            retrieval["pool_mean"] = {"all": 0.9123, "low": 0.8123}
            retrieval |= {"f1": {"all": 0.7123}, "convention": "XTREME's direction", "pool_missing": ["kat"]}
            mean = {"auroc": float(np.mean([r["auroc"] for r in absent.values()])), "ece": 0.0456, "risk_found": 0.1034}
            encoder["none_of_these"][way] = {
                "risk": 0.1,
                "methods": {
                    "zero-shot": {"languages": absent, "overall": mean | {"risk_found": 0.1734}},
                    "predicted": {"languages": absent, "overall": mean},
                },
            }
            overall = {s: {"coverage": 0.9, "mean_size": 3.1} for s in sets}
            encoder["conformal"][way] = {
                "alpha": 0.1,
                "scopes": {s: {"languages": found, "overall": overall[s]} for s, found in sets.items()},
            }
    last = metrics["encoders"][-1]["name"]
    wrong = [p for p in predictions if p.get("encoder", last) == last and not p["correct"]]
    wrong.sort(key=lambda p: -p["p_zero-shot"])
    keys = ("language", "direction", "query", "answer", "gold")
    metrics["worst"] = [
        {k: p[k] for k in keys} | {"encoder": last, "probability": p["p_zero-shot"]} for p in wrong[:20]
    ]
    metrics["data"] = {"tatoeba/tatoeba.jav-eng.jav": "0123456789abcdef" * 4, "tatoeba/tatoeba.jav-eng.eng": "fe" * 32}
    metrics["ranked"] = {
        "languages": {
            c: {"n": 1190, "map@20": 0.4 + 0.1 * i, "map@20_ci": [0.38 + 0.1 * i, 0.42 + 0.1 * i]}
            for i, c in enumerate(("ara", "deu", "rus"))
        },
        "mean": {"map@20": {"all": 0.5}},
    }
    mined = {"n": 9580, "pairs": 9300, "precision": 0.93, "recall": 0.9, "f1": 0.915, "threshold": 1.07}
    mined |= {"margins": {"distance": {"f1": 0.9}, "absolute": {"f1": 0.8}}, "notes": ["a <note> on mining"]}
    mined |= {"guarantee": {"precision": 0.96, "recall": 0.81}, "fdr": {"false_share": 0.04, "recall": 0.85}}
    mined |= {"probability": {"ece": 0.011, "ece_null": 0.009}}
    metrics["mining"] = {
        "margin": "ratio",
        "k": 4,
        "mean": {"f1": {"all": 0.915, "high": 0.915}},
        "languages": {"deu": mined, "rus": {**mined, "f1": 0.92}},
    }
    tatoeba = {"group": "retrieval", "score": 0.672, "partial": 0.672, "languages": {"deu": 0.9}, "expected": 36}
    metrics["summary"] = {
        "benchmark": "xtreme",
        "tasks": {"tatoeba": tatoeba, "xnli": {"group": "classification", "missing": ["deu"], "expected": 15}},
        "groups": {"retrieval": {"score": 0.795}, "classification": {"missing": ["xnli"]}},
        "overall": {"missing": ["xnli"], "tasks": 2},
    }
    return metrics


CODES = ("deu", "fra", "swh", "jav", "ara", "kat")


def predicted(each: int = 60) -> Rows:
    """Answers of one encoder in six languages, both directions."""
    rng = np.random.default_rng(1)
    rows = []
    for way in ("foreign-english", "english-foreign"):
        for place, code in enumerate(CODES):
            sure = rng.beta(4 - 0.5 * place, 1, each)
            right = rng.random(each) < sure ** (1 + 0.3 * place)
            for i in range(each):
                chances = {"p_cosine": 0.02, "p_zero-shot": float(sure[i]), "p_per-language": float(sure[i]) ** 1.2}
                texts = {"query": f"ask <{code}> {i}", "answer": f"صباح الخير {i}", "gold": f"gold {i}"}
                about = {"encoder": "one", "language": code, "direction": way, "correct": bool(right[i])}
                rows.append({**about, **texts, **chances})
    return rows


def measured(rows: Rows) -> dict[str, Any]:
    """The metrics that go with the predictions, before `extend`."""
    retrieval, calibration = {}, {}
    for way in ("foreign-english", "english-foreign"):
        by_language = columns(rows, "one", way)
        scores = {}
        for code, some in by_language.items():
            right = sum(p["correct"] for p in some)
            scores[code] = {"n": len(some), "candidates": len(some), "accuracy": right / len(some), "mrr": 0.9}
            scores[code]["accuracy_ci"] = measures.wilson(right, len(some))
        retrieval[way] = {"mean": {"all": 0.8}, "languages": scores}
        temperatures = {code: {"temperature": 0.005 + 0.001 * i} for i, code in enumerate(CODES)}
        methods = {
            k: {"label": f"method {k}", "languages": temperatures} for k in ("cosine", "zero-shot", "per-language")
        }
        calibration[way] = {"fit_languages": ["deu"], "methods": methods}
    about = {}
    for code in CODES:
        row = languages.resolve(code)
        about[code] = {"name": row.name, "resource": row.resource, "script": row.script, "family": row.family}
    entry = {"name": "one", "label": "one", "retrieval": retrieval, "calibration": calibration}
    told = {"title": "whole", "created": "2026-01-01T12:00:00Z", "command": "xt eval tatoeba --out 'my report'"}
    return {**told, "task": {"name": "tatoeba", "title": "Tatoeba"}, "languages": about, "encoders": [entry]}


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    """A whole evaluation."""
    rows = predicted()
    return extend(measured(rows), rows)


@pytest.fixture(scope="module")
def html(metrics: dict[str, Any]) -> str:
    """Its page."""
    return build.render(metrics)


@pytest.fixture(scope="module")
def page(html: str) -> Element:
    """The same, read."""
    return read(html)


WHERE: dict[str, Any] = {
    "languages": lambda m: [e.pop("calibration") for e in m["encoders"]],
    "retrieval": lambda m: [e.pop("retrieval") for e in m["encoders"]],
    "none-of-these": lambda m: [e.pop("none_of_these") for e in m["encoders"]],
    "conformal": lambda m: [e.pop("conformal") for e in m["encoders"]],
    "worst": lambda m: m.pop("worst"),
    "ranked": lambda m: m.pop("ranked"),
    "mining": lambda m: m.pop("mining"),
    "summary": lambda m: m.pop("summary"),
}
CALIBRATED = {"languages", "calibration", "reliability", "shots", "risk"}


def test_every_section_is_there_and_tags_nest(page: Element) -> None:
    assert sorted(page.ids) == sorted({*WHERE, *CALIBRATED, "provenance"})
    assert all(len(table.of("caption")) == 1 for table in page.of("table")) and len(page.of("table")) > 20


@pytest.mark.parametrize("name", WHERE)
def test_a_section_without_its_part_is_left_out(name: str, metrics: dict[str, Any]) -> None:
    variant = copy.deepcopy(metrics)
    WHERE[name](variant)
    gone = CALIBRATED if name == "languages" else {name}
    assert set(read(build.render(variant)).ids) == {*WHERE, *CALIBRATED, "provenance"} - gone


def leaves(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values, containers too; of lists and of languages one stands for all."""
    if isinstance(data, dict):
        items = [(k, v) for k, v in data.items() if k not in CODES[1:]]
        return [p for k, v in items for p in ((*path, k), *leaves(v, (*path, k)))]
    if isinstance(data, list) and data:
        return [(*path, len(data) - 1), *leaves(data[-1], (*path, len(data) - 1))]
    return []


@pytest.mark.parametrize("value", [None, math.nan, "broken", {}])
def test_any_single_value_may_be_missing_or_a_number_broken(value: Any, metrics: dict[str, Any]) -> None:
    small = copy.deepcopy(metrics)
    (entry,) = small["encoders"]
    for part in ("calibration", "retrieval", "none_of_these", "conformal"):
        del entry[part]["english-foreign"]
    methods = entry["calibration"]["foreign-english"]["methods"]
    del methods["cosine"], methods["per-language"]
    kept = {code: small["languages"][code] for code in CODES[:2]}
    small["languages"] = kept

    def shorten(data: Any) -> Any:
        if isinstance(data, dict):
            return {k: shorten(v) for k, v in data.items() if k not in CODES[2:]}
        return [shorten(v) for v in (data if len(data) == 2 else data[:4])] if isinstance(data, list) else data

    small = shorten(small)
    ours = ("none_of_these", "conformal", "shots", "risk_coverage", "reliability", "groups", "ece", "ece_null", "worst")
    ours += (
        "ranked",
        "mining",
        "summary",
        "data",
        "accuracy_pool",
        "joshi",
        "auroc",
        "aurc",
        "temperature",
        "accuracy",
    )
    tried = 0
    for path in leaves(small):
        if not any(key in ours for key in path):
            continue
        if value is not None and not isinstance(at(small, path), dict if value == {} else float):
            continue
        variant = copy.deepcopy(small)
        at(variant, path[:-1])[path[-1]] = value
        words = TAGS.sub(" ", build.render(variant))
        assert not re.search(r"\b(nan|None(?! of these)|NaN)\b", words), path
        tried += 1
    assert tried > (30 if value == {} else 80)


TAGS = re.compile(r"<(style|script)>.*?</\1>|<[^>]*>", re.DOTALL)  # cheaper than reading: some 300 pages


def at(data: Any, path: tuple[Any, ...]) -> Any:
    """What stands at a path."""
    for key in path:
        data = data[key]
    return data


def test_all_text_is_escaped(metrics: dict[str, Any]) -> None:
    evil = "<img src=x onerror=alert(1)>&\"'"

    def spoil(data: Any) -> Any:
        if isinstance(data, dict):
            return {k: spoil(v) for k, v in data.items()}
        if isinstance(data, list):
            return [spoil(v) for v in data]
        return data + evil if isinstance(data, str) and data not in ("low", "mid", "high") else data

    variant = {k: spoil(v) for k, v in metrics.items()}
    (entry,) = variant["encoders"]
    groups = entry["retrieval"]["foreign-english"]["groups"]
    groups["family"][evil] = {"accuracy": 0.5, "n_languages": 1}
    groups[evil] = groups["family"]
    entry["calibration"]["foreign-english"]["notes"] = [evil]
    scopes = entry["conformal"]["foreign-english"]["scopes"]
    scopes[evil] = scopes.pop("per-language")
    entry["calibration"]["foreign-english"]["shots"]["16"][evil] = {"ece": 0.1}
    variant["mining"]["languages"][evil] = {"f1": 0.5, "notes": [evil]}
    variant["ranked"]["languages"][evil] = {"n": 1, evil: 0.5}
    variant["data"][evil] = evil
    variant["summary"]["tasks"][evil] = {"score": 0.5, "group": evil}
    spoilt = read(build.render(variant))
    assert not spoilt.of("img") and spoilt.text.count("<img src=x") > 100
    for part in ("ranked", "mining", "summary", "provenance", "conformal", "shots", "retrieval", "worst"):
        assert evil in spoilt.sections[part].text, part


def test_the_table_gives_excess_pool_and_classes_and_leaves_out_empty_columns(
    page: Element, metrics: dict[str, Any]
) -> None:
    measured = metrics["encoders"][0]["calibration"]["foreign-english"]["methods"]["zero-shot"]["languages"]["swh"]
    table = page.sections["languages"].table("All languages")
    row = dict(zip(table.rows[0], table.row("Swahili swh"), strict=True))
    assert row["ECE"].startswith(f"{measured['ece']:.3f} [")
    assert row["Excess"] == f"{measured['ece'] - measured['ece_null']:.3f}".replace("-", "−")
    assert row["AURC"] == f"{measured['aurc']:.3f}" and {"equal pool", "T", "AUROC"} <= set(row)
    about = ("Family", "Script", "Resources", "Joshi")
    assert tuple(row[k] for k in about) == ("Niger-Congo", "Latn", "low", "2")
    variant = copy.deepcopy(metrics)
    for facts in variant["languages"].values():
        facts.pop("joshi")
    for way in variant["encoders"][0]["retrieval"].values():
        for each in way["languages"].values():
            each.pop("accuracy_pool")
    without = read(build.render(variant)).sections["languages"]
    heads = without.table("All languages").rows[0]
    assert "Joshi" not in heads and "equal pool" not in heads and "Equal pool:" not in without.text


def test_the_page_says_how_many_languages_are_close_and_which_is_farthest(metrics: dict[str, Any]) -> None:
    variant = copy.deepcopy(metrics)
    rows = variant["encoders"][0]["calibration"]["foreign-english"]["methods"]["zero-shot"]["languages"]
    for code, gap in zip(CODES, (-0.01, 0.002, 0.0125, 0.06, 0.009, 0.011), strict=True):
        rows[code] |= {"ece_null": 0.02, "ece": 0.02 + gap}
    whole = read(build.render(variant)).text
    said = "In 3 of 6 languages the stated probabilities are within 0.01 of what perfect calibration would show; "
    assert said + "the farthest is Javanese, 0.060 above it." in whole
    for code, gap in zip(CODES, (-0.03, 0.002, 0.0125, -0.06, 0.009, 0.011), strict=True):
        rows[code] |= {"gap": gap, "gap_ci": [gap - 0.02, gap + 0.02]}
    page = read(build.render(variant))
    said = "In 4 of 6 languages mean stated probability and accuracy differ by no more than chance explains "
    assert said + "(one in twenty would by chance alone); the farthest is Javanese, −0.060." in page.text
    assert "Mean gap, stated to right 0.021 worst: Javanese −0.060; beyond chance in 2 of 6 languages" in page.text


def test_a_report_of_before_gaps_were_measured_shows_what_it_has(metrics: dict[str, Any]) -> None:
    variant = copy.deepcopy(metrics)
    method = variant["encoders"][0]["calibration"]["foreign-english"]["methods"]["zero-shot"]
    new = {"gap", "gap_ci", "gap_null", "mean_gap", "mean_gap_ci", "slope", "slope_ci", "nauc", "intercept"}
    for row in (*method["languages"].values(), method["overall"], *method["by_resource"].values()):
        for key in new & set(row):
            del row[key]
    row = method["languages"]["swh"]
    page = read(build.render(variant))
    table = page.sections["languages"].table("All languages")
    shown = dict(zip(table.rows[0], table.row("Swahili swh"), strict=True))
    gap = row["mean_confidence"] - row["accuracy"]
    assert shown["Gap"].replace("−", "-").removeprefix("+") == f"{gap:.3f}" and "Slope" not in shown
    table = page.sections["calibration"].table("Calibration of one, foreign → English, means")
    shown = dict(zip(table.rows[0], table.row("method zero-shot"), strict=True))
    gaps = [abs(r["mean_confidence"] - r["accuracy"]) for r in method["languages"].values()]
    assert shown["Gap"] == f"{np.mean(gaps):.3f}" and shown["outside"] == shown["slope"] == "–"


def test_each_methods_farthest_language_stands_beside_its_mean(metrics: dict[str, Any]) -> None:
    variant = copy.deepcopy(metrics)
    method = variant["encoders"][0]["calibration"]["foreign-english"]["methods"]["per-language"]
    method["overall"] |= {"ece": 0.0501, "ece_null": 0.02}
    for code, gap in zip(CODES, (-0.01, 0.002, 0.0125, 0.06, 0.009, 0.011), strict=True):
        method["languages"][code] |= {"ece_null": 0.02, "ece": 0.02 + gap}
    table = read(build.render(variant)).sections["calibration"].table("Calibration of one, foreign → English, means")
    row = dict(zip(table.rows[0], table.row("method per-language"), strict=True))
    assert row["excess"] == "0.016" and row["most"] == "0.060 Javanese"  # the one below 0 counts as 0
    gaps = {code: method["languages"][code]["gap"] for code in CODES}
    worst = max(gaps, key=lambda code: abs(gaps[code]))
    name = variant["languages"][worst]["name"]
    assert row["Gap"].startswith(f"{np.mean(np.abs(list(gaps.values()))):.3f} [")
    assert row["farthest"].replace("−", "-") == f"{gaps[worst]:+.3f} {name}"
    assert row["outside"] == f"{method['overall']['gaps_outside']} of 6"
    assert table.rows[0].index("Gap") == 1 and table.rows[0].index("farthest") == 2


def test_conventions_and_equal_pools_stand_beside_accuracy(page: Element) -> None:
    words = page.sections["retrieval"].text
    assert "in equal pools of 100 91.2% – – 81.2%" in words and "F1, as MTEB reports it 71.2%" in words
    assert "foreign → English: XTREME's direction." in words
    assert words.count("Too few candidates for the equal pools: Georgian.") == 1


def test_predicted_temperatures_lead_where_there_are_any(metrics: dict[str, Any]) -> None:
    variant = copy.deepcopy(metrics)
    methods = variant["encoders"][0]["calibration"]["foreign-english"]["methods"]
    methods["predicted"] = copy.deepcopy(methods["zero-shot"]) | {"label": "predicted from scores"}
    methods["predicted"]["overall"]["ece"] = 0.01234
    assert reading.blocks(Report.from_json(variant))[0].key == "predicted"
    assert "off by 0.012 on average" in read(build.render(variant)).text


def test_an_estimated_accuracy_stands_beside_the_true_one_or_is_said_to_be_unknown(metrics: dict[str, Any]) -> None:
    variant = copy.deepcopy(metrics)
    methods = variant["encoders"][0]["calibration"]["foreign-english"]["methods"]
    methods["predicted"] = copy.deepcopy(methods["zero-shot"])
    why = "it lies between 0.30 and 0.60"
    rows = methods["predicted"]["languages"]
    rows["deu"]["estimated_accuracy"] = {"value": 0.8642, "low": 0.8123, "high": 0.9001}
    rows["kat"] |= {"estimated_accuracy": {"unknown": why}, "fallback": f"zero-shot: accuracy unknown: {why}"}
    assert Report.from_json(variant).to_json()["encoders"] == variant["encoders"]
    page = read(build.render(variant)).sections["languages"]
    assert "86.4% [81.2, 90.0]" in page.text
    assert page.text.count("– accuracy unknown") == 1
    assert f"Georgian: zero-shot: accuracy unknown: {why}" in page.text
    assert "without labels" in [head.text for head in page.of("th")]
    assert "without labels" not in [head.text for head in read(build.render(metrics)).of("th")]


def test_a_mark_of_the_map_is_where_worked_out_by_hand() -> None:
    # the wide frame: 44..876 across, 22..402 down; x axis from 0.5 to 1, y axis from 0 to 1.08 * 0.2
    items = [charts_map.Point("A", "low", 0.75, 0.2, 0.05, "said a"), charts_map.Point("B", "high", 0.53, 0.1)]
    x, y = charts_map.scales(items)
    assert (x.low, x.high, y.low, y.high) == pytest.approx((0.5, 1, 0, 0.216))
    drawn = charts_map.language_map(items, "title")
    down = 22 + 380 * (1 - 0.2 / 0.216)
    stem = 22 + 380 * (1 - 0.05 / 0.216)
    wide, narrow = read(drawn).of("svg", role="group")
    assert [p["data-say"] for p in wide.of("g", "point")] == ["", "said a"]
    assert [p["data-say"] for p in narrow.of("g", "point")] == ["", "said a"]
    assert f"translate(460.0 {down:.1f})" in [path["transform"] for path in wide.of("path")]
    (line,) = wide.of("line", "stem")
    assert numbers(line, "x1", "x2", "y1", "y2") == pytest.approx((460, 460, down, stem), abs=0.01)
    assert charts_map.language_map([], "title") == ""


def test_names_on_the_map_cover_neither_marks_nor_one_another() -> None:
    rng = np.random.default_rng(0)
    dots = [(float(a), float(b)) for a, b in rng.uniform((20, 20), (500, 300), (80, 2))]
    names = [(f"Language {i}", *dot) for i, dot in enumerate(dots)]
    spots = charts_map.place(names, dots, (0, 0, 600, 330))
    boxes = []
    for (name, *_), spot in zip(names, spots, strict=True):
        if spot is not None:
            x, y, anchor = spot
            width = charts_map.width_of(name)
            left = x - {"start": 0, "middle": width / 2, "end": width}[anchor]
            boxes.append((left, y - 10, left + width, y + 3))
    assert 15 < len(boxes) <= 40
    for i, one in enumerate(boxes):
        assert one[0] >= 0 and one[2] <= 600
        assert not any(charts_map.overlap(one, other) for other in boxes[:i])
        assert not any(one[0] < x + 4 and x - 4 < one[2] and one[1] < y + 4 and y - 4 < one[3] for x, y in dots)
    assert sum(s is not None for s in charts_map.place(names, dots, (0, 0, 600, 330), most=5)) == 5


def test_the_band_is_that_of_the_binomial() -> None:
    sure, right = np.full(30, 0.7), (np.arange(30) < 20).astype(float)
    (row,) = measures.reliability(sure, right, bins=1)
    assert row["consistency"] == pytest.approx([binom.ppf(0.025, 30, 0.7) / 30, binom.ppf(0.975, 30, 0.7) / 30])
    bins = [{"confidence": c, "accuracy": c, "count": 9, "consistency": [c - 0.1, c + 0.1]} for c in (0.25, 0.75)]
    drawn = read(reliability.small_reliability([Bin.from_json(b) for b in bins], rows.ACCENT, "title"))
    # frame 16..128 across, 6..118 down: 0.25 is at 44, 0.75 at 100; 0.15 up is at 118 - 16.8 = 101.2
    (band,) = drawn.of("polygon", "band")
    assert points(band) == [(44, 101.2), (100, 45.2), (100, 22.8), (44, 78.8)]
    without = [Bin.from_json({k: v for k, v in b.items() if k != "consistency"}) for b in bins]
    assert not read(reliability.small_reliability(without, rows.ACCENT, "title")).of("polygon", "band")


def test_small_diagrams_are_ordered_by_excess_and_the_rest_is_folded(metrics: dict[str, Any]) -> None:
    found = metrics["encoders"][0]["calibration"]["foreign-english"]["methods"]["zero-shot"]["languages"]
    far = max(found, key=lambda c: found[c]["ece"] - found[c]["ece_null"])
    report = Report.from_json(metrics)
    (block, *_) = reading.blocks(report)
    panels = report_trust.diagrams(report, block)
    assert len(panels) == 6 and panels[0][0] == metrics["languages"][far]["name"]
    many = read(report_trust.grid(block, panels * 3))
    assert "The other 6 languages" in many.text and len(many.of("details")[0].of("figure")) == 6
    assert len(many.of("figure")) == 18


def test_curves_by_class_are_means_over_its_languages() -> None:
    flat, steep = [(0.1, 0.0), (1.0, 0.0)], [(0.5, 0.0), (1.0, 0.5)]
    mean = dict(report_trust.mean_curve([flat, steep], steps=4))
    assert mean == pytest.approx({0.5: 0.0, 0.75: 0.125, 1.0: 0.25})  # 0.25 lies before the second curve begins


def test_worst_errors_show_their_texts_in_their_own_direction(page: Element) -> None:
    part = page.sections["worst"]
    assert len(part.of("article")) == 20 and part.text.count("✗ wrong") == 20 and "✓" not in part.text
    assert len(part.of(dir="auto")) == 60 and "ask <" in part.text and "صباح الخير" in part.text
    stated = [float(x) for x in re.findall(r"stated ([0-9.]+)%", part.text)]
    assert stated == sorted(stated, reverse=True) and len(stated) == 20


def test_command_and_hashes_are_there(page: Element, metrics: dict[str, Any]) -> None:
    words = page.sections["provenance"].text
    assert metrics["command"] in words
    for name, value in metrics["data"].items():
        assert name in words and value in words


def test_calibrated_heads_have_their_map_and_table(metrics: dict[str, Any]) -> None:
    methods = metrics["encoders"][0]["calibration"]["foreign-english"]["methods"]
    variant = {k: metrics[k] for k in ("title", "task", "languages")} | {"calibration": {"xnli": {"methods": methods}}}
    found = read(build.render(variant))
    assert {"languages", "reliability", "risk"} <= set(found.ids) and "xnli" in found.text


def test_mined_pairs_show_what_is_promised(page: Element) -> None:
    table = page.sections["mining"].table("Mined pairs")
    row = dict(zip(table.rows[0], table.row("rus"), strict=True))
    assert (row["Gold"], row["Mined"], row["F1"], row["threshold"]) == ("9,580", "9,300", "92.0%", "1.0700")
    assert (row["guaranteed: precision"], row["discoveries: wrong"], row["ECE"]) == ("96.0%", "4.0%", "0.011")
    words = page.sections["mining"].text
    assert "by the ratio margin over 4 neighbours, one to one" in words
    assert "German: a <note> on mining" in words and "Means over the languages" in words


def test_sums_name_what_is_missing(page: Element) -> None:
    words = page.sections["summary"].text
    assert words.startswith("XTREME") and "1 of 36" in words and "Without a score: xnli" in words
    assert "Overall –" in words and "German" in words


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LONG = "a temperature for each language, shrunk towards that of all by how little it has"
"""The longest name of a method."""
PROBE = """<script>
addEventListener("load", () => {
  const out = {};
  const page = document.documentElement;
  const methods = [...document.querySelectorAll("#calibration .scroll")].find(box => box.getClientRects().length);
  out.cut = methods.scrollWidth - methods.clientWidth;
  const names_of = [...methods.querySelectorAll("tbody th > span")];
  out.lines = names_of.map(e => Math.round(e.getBoundingClientRect().height / parseFloat(getComputedStyle(e).lineHeight)));
  document.querySelectorAll("details").forEach(part => { part.open = true; });
  out.overflow = page.scrollWidth - page.clientWidth;
  document.querySelectorAll("details").forEach(part => { part.open = false; });
  const table = document.querySelector("#languages table.sort");
  const names = () => [...table.tBodies[0].rows].map(r => r.cells[0].dataset.k);
  const head = [...table.tHead.rows[0].cells].findIndex(c => c.textContent.startsWith("Excess"));
  out.before = names();
  table.tHead.rows[0].cells[head].querySelector("button").click();
  out.after = names();
  out.keys = [...table.tBodies[0].rows].map(r => parseFloat(r.cells[head].dataset.k));
  out.aria = table.tHead.rows[0].cells[head].getAttribute("aria-sort");
  const map = [...document.querySelectorAll("figure.map svg")].find(s => s.getClientRects().length);
  out.drawn = Math.round(map.getBoundingClientRect().width);
  const points = map.querySelectorAll(".point");
  points[0].focus();
  points[0].dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
  out.second = document.activeElement === points[1];
  out.said = document.querySelector("figure.map .say").textContent === points[1].dataset.say;
  out.stops = map.querySelectorAll('.point[tabindex="0"]').length;
  document.title = "PROBE" + JSON.stringify(out);
});
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium, chromium-browser or google-chrome")
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_nothing_overflows_tables_sort_and_arrows_step_through_the_map(
    width: int, html: str, tmp_path: Path
) -> None:
    frame = tmp_path / "frame.html"
    page = tmp_path / "report.html"
    # A browser's own window is never as narrow as a phone; a frame is.
    html = html.replace("method per-language", LONG)
    page.write_text(html.replace("</body>", PROBE.replace("document.title", "parent.document.title")), encoding="utf-8")
    frame.write_text(f'<iframe src="report.html" width="{width}" height="800"></iframe>', encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += ["--disable-web-security", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
    done = subprocess.run([*command, "--dump-dom", frame.as_uri()], capture_output=True, text=True, timeout=60)
    found = re.search(r"<title>PROBE(.*?)</title>", done.stdout)
    assert found, done.stderr[-500:]
    out = json.loads(found.group(1))
    assert out["overflow"] == 0
    assert max(out["lines"]) in ((2,) if width > 1000 else (3, 4, 5))
    assert out["cut"] == 0 or width < 1000
    assert sorted(out["after"]) == sorted(out["before"]) and out["after"] != out["before"]
    assert out["keys"] == sorted(out["keys"], reverse=True) and out["aria"] == "descending"
    assert out["second"] and out["said"] and out["stops"] == 1
    assert 300 < out["drawn"] <= width


def main(source: Path, out: Path) -> None:
    """Render the metrics of a report folder with every section."""
    opened = open_report(source)
    whole = extend(opened.report.to_json(), opened.predictions)
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    (out / "report.html").write_text(build.render(whole), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
