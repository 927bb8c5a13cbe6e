"""The training page: well-formed, loads nothing, escapes everything, draws to scale, and bears what is missing.

Tests `core/pages/curves.py` as well.
"""

import copy
import math
from pathlib import Path
from typing import Any

import pytest

from tests.pages import numbers, points, read
from xt.core.pages import curves
from xt.core.pages.page import HERE
from xt.core.pages.svg import Frame, Scale
from xt.train import report

EVIL = "<x-evil>&'\""

TRAINING: dict[str, Any] = {
    "encoder": "multilingual-e5-small",
    "provenance": "intfloat/multilingual-e5-small, revision 614241f",
    "command": "xt train --encoder multilingual-e5-small --intermediate sick --out here",
    "steps": 300,
    "planned_steps": 400,
    "stopped": "early stopping: no better dev score for 5 evaluations",
    "chosen_step": 250,
    "seconds": 412.3,
    "tokens": 401234,
    "tokens_per_second": 973.1,
    "device": "cpu",
    "precision": "fp32",
    "processes": 2,
    "sampling": "proportional",
    "probabilities": {"sick": 0.4, "xquad-en": 0.6},
    "tasks": [
        {
            "task": "sick",
            "title": "Caption pairs",
            "format": "pair",
            "train": 7900,
            "dev": 2027,
            "unusable": 3,
            "first_unusable": ["SICK.txt, line 3: no label"],
            "cut": 5,
            "note": "no training file: 80 % of the rest",
            "origin": "files",
            "steps": 126,
            "examples": 2016,
            "tokens": 51234,
            "metric": "accuracy",
            "majority": 0.57,
            "majority_label": "neutral",
            "before": 0.331,
            "after": 0.812,
            "others": {},
            "sha256": {"SICK.txt": "ab12cd"},
            "licence": "CC BY-NC-SA",
            "sample": False,
        },
        {
            "task": "xquad-en",
            "format": "span",
            "train": 952,
            "dev": 238,
            "steps": 174,
            "metric": "f1",
            "before": 0.021,
            "after": 0.444,
            "others": {"exact_match": {"before": 0.01, "after": 0.375}},
            "sample": True,
        },
    ],
    "losses": [{"step": s, "task": "sick" if s % 5 < 2 else "xquad-en", "loss": 2 / s**0.2} for s in range(1, 301)],
    "dev": [
        {"step": 50, "seconds": 60.1, "scores": {"sick": 0.61, "xquad-en": 0.2}, "mean": 0.405},
        {"step": 250, "seconds": 300.0, "scores": {"sick": 0.81, "xquad-en": 0.4}, "mean": 0.605},
        {"step": 300, "seconds": 360.0, "scores": {"sick": 0.78, "xquad-en": 0.41}, "mean": 0.595},
    ],
    "learning_rates": [[1, 2e-6], [30, 5e-5], [300, 0.0]],
    "config": {"batch": 16, "learning_rate": 5e-05, "intermediate": ["sick", "xquad-en"], "freeze_embeddings": True},
}


def changed(**changes: Any) -> dict[str, Any]:
    """The facts with some replaced."""
    return {**copy.deepcopy(TRAINING), **changes}


def test_the_page_is_written_whole_and_replaces_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "training.html").write_text("old", encoding="utf-8")
    path = report.write_report(tmp_path, TRAINING)
    assert path == tmp_path / "training.html"
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
    assert [p.name for p in tmp_path.iterdir()] == ["training.html"]


def test_the_page_is_balanced_and_loads_nothing() -> None:
    page = read(report.render(TRAINING))
    used = {element.tag for element in page.below()}
    assert not used & {"script", "link", "img", "iframe", "object", "a"}
    assert not {name for e in page.below() for name in e.attributes} & {"src", "href", "onclick", "onload"}
    assert list(page.sections) == ["results", "dev", "loss", "sampling", "data", "settings"]
    css = (HERE / "style.css").read_text(encoding="utf-8")
    assert "url(" not in css and "@import" not in css
    assert "prefers-color-scheme:dark" in report.render(TRAINING)


@pytest.mark.parametrize(
    "said",
    [
        "multilingual-e5-small, trained on sick and xquad-en",
        "Stopped at step 300 (early stopping: no better dev score for 5 evaluations).",
        "The weights kept are those of step 250.",
        "Dev score, mean of 2 tasks 62.8% 17.6% before, +45.2 points",  # (.812 + .444) / 2, (.331 + .021) / 2
        "Above the majority 1 of 1",
        "Steps 300 of 400 planned; step 250 kept",
        "Tokens 401,234 973 a second",
        "Time 6 min 52 s cpu, fp32, 2 processes",
        "sick accuracy 57.0% neutral 33.1% 81.2% +48.1",
        "xquad-en sample f1 – 2.1% 44.4% +42.3",
        "xquad-en exact_match – 1.0% 37.5% +36.5",
        "sick kept 81.0%, last 78.0%",
        "highest 5e-5",
        "sick 40.0% 42.0% 126 2,016 51,234",  # 126 of 300 steps
        "sick 7,900 2,027 5 3 pair files CC BY-NC-SA",
        "SICK.txt, line 3: no label",
        "SICK.txt ab12cd",
        "no training file: 80 % of the rest",
        "learning_rate 5e-05",
        "intermediate sick, xquad-en",
        "freeze_embeddings yes",
        "xt train --encoder multilingual-e5-small --intermediate sick --out here",
    ],
)
def test_the_page_says(said: str) -> None:
    assert said in read(report.render(TRAINING)).text


def test_a_tag_in_a_title_is_shown_and_not_obeyed() -> None:
    tasks = [{**TRAINING["tasks"][0], "title": "<b>bold</b> pairs"}]
    plain, page = (read(report.render(changed(tasks=rows))) for rows in (TRAINING["tasks"][:1], tasks))
    assert "<b>bold</b> pairs" in page.text
    assert len(page.of("b")) == len(plain.of("b"))


def test_every_string_of_the_facts_is_escaped() -> None:
    hits = 0

    def spoil(value: Any) -> Any:
        nonlocal hits
        if isinstance(value, dict):
            names = ("sick", "xquad-en", "SICK.txt", "exact_match", "batch")
            return {(EVIL + k if k in names else k): spoil(v) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(v) for v in value]
        hits += isinstance(value, str)
        return EVIL + value if isinstance(value, str) else value

    page = read(report.render(spoil(TRAINING)))
    assert hits > 300
    assert page.of("x-evil") == []
    for shown in ("sick", "exact_match", "SICK.txt ", "batch", "Caption pairs", "xt train", "neutral", "intfloat"):
        assert EVIL + shown.strip() in page.text


def test_three_losses_are_drawn_where_they_belong() -> None:
    # x: 44 + 244 * step / 4; y: 10 + 136 * (1 - loss / 2.1), for the scale ends 5 % above the highest loss
    page = read(curves.loss_panel("sick", [(1, 1.0), (2, 2.0), (4, 1.0)], 4))
    places = [numbers(a, "cx", "cy") for a in page.of("circle")]
    assert places == [pytest.approx(place, abs=0.05) for place in ((105, 81.2), (166, 16.5), (288, 81.2))]
    # the line: means of neighbours, 1.5, 4/3 and 1.5
    (line,) = page.of("polyline")
    assert points(line) == [(105, 48.9), (166, 59.7), (288, 48.9)]


def test_ticks_stand_at_their_values() -> None:
    frame = Frame(Scale(0, 300), Scale(0, 2), left=44, top=10, width=244, height=136)
    labels = read(curves.panel("a", "b", "c", frame)).of("text")
    across = [(*numbers(e, "x"), e.text) for e in labels if e["text-anchor"] == "middle" and e.text != "step"]
    assert across == [
        (44, "0"),
        (pytest.approx(125.33, abs=0.01), "100"),
        (pytest.approx(206.67, abs=0.01), "200"),
        (288, "300"),
    ]
    upright = [(float(e["y"]) - 4, e.text) for e in labels if e["text-anchor"] == "end"]
    assert upright == [(146, "0"), (112, "0.5"), (78, "1"), (44, "1.5"), (10, "2")]


def test_the_chosen_step_is_marked_on_each_dev_curve() -> None:
    page = read(report.dev_panel("sick", [(50, 0.5), (100, 0.7), (200, 0.6)], last=200, chosen=100, majority=0.4))
    # the scale: 0.4 to 0.7, and 12 % of it on either side
    (mark,) = page.of("circle", "disc")
    assert (float(mark["cx"]), float(mark["cy"])) == pytest.approx((166, 10 + 136 * 0.036 / 0.372), abs=0.05)
    (line,) = page.of("line", "chosen")
    assert numbers(line, "x1", "x2") == (166, 166)
    (base,) = page.of("line", "base")
    assert float(base["y1"]) == pytest.approx(10 + 136 * 0.336 / 0.372, abs=0.05)
    assert len(page.of("circle", "ring")) == 2
    assert len(read(report.render(TRAINING)).of("line", "chosen")) == 3  # the mean and two tasks


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (399, 399), (401, 400), (123_457, 400)])
def test_thinning_keeps_the_mean_and_the_order(count: int, kept: int) -> None:
    points = [(i + 1.0, math.sin(i) + i % 7) for i in range(count)]
    thinned = curves.thin(points)
    assert len(thinned) == kept and sum(n for _, _, n in thinned) == count
    assert sum(v * n for _, v, n in thinned) / count == pytest.approx(sum(v for _, v in points) / count)
    assert sum(s * n for s, _, n in thinned) / count == pytest.approx((count + 1) / 2)
    assert max(n for _, _, n in thinned) - min(n for _, _, n in thinned) <= 1
    assert [s for s, _, _ in thinned] == sorted(s for s, _, _ in thinned)


def test_a_long_run_stays_a_small_page() -> None:
    losses = [{"step": s, "task": "sick", "loss": 1.0} for s in range(1, 100_001)]
    dev = [{"step": s, "scores": {"sick": 0.5}, "mean": 0.5} for s in range(10, 100_001, 10)]
    html = report.render(changed(losses=losses, dev=dev))
    page = read(html)
    assert len(html) < 120_000
    assert len(page.of("circle", "dot")) == curves.MOST
    assert "Dots: averages of consecutive steps" in page.text


def test_a_run_of_one_step_without_evaluations() -> None:
    tasks = [{"task": "sick", "steps": 1, "train": 7, "before": 0.5, "after": 0.5}]
    run = changed(
        steps=1, planned_steps=1, chosen_step=1, stopped="", tasks=tasks, losses=TRAINING["losses"][:1], dev=[]
    )
    del run["learning_rates"]
    page = read(report.render(run))
    assert "one step, loss 2.000" in page.text and "50.0% before, 0.0 points" in page.text
    assert len(page.of("circle", "dot")) == 1 and page.of("polyline") == []
    assert "dev" not in page.sections


def test_without_a_score_that_is_a_share_the_metric_keeps_its_unit() -> None:
    tasks = [{"task": "wiki", "metric": "perplexity", "before": 31.5, "after": 12.25}]
    page = read(report.render(changed(tasks=tasks, dev=[{"step": 3, "scores": {"wiki": 12.25}, "mean": 12.25}])))
    assert "wiki perplexity – 31.50 12.25 −19.25" in page.text
    assert "kept" not in page.text.split("Development scores")[1].split("Loss")[0].split("12.25")[1]


def test_any_key_can_be_missing_or_none() -> None:
    cases: list[dict[str, Any]] = [{}]
    for key in TRAINING:
        cases += [{k: v for k, v in TRAINING.items() if k != key}, changed(**{key: None})]
    for key in TRAINING["tasks"][0]:
        for row in ({k: v for k, v in TRAINING["tasks"][0].items() if k != key}, {**TRAINING["tasks"][0], key: None}):
            cases.append(changed(tasks=[row]))
    cases += [changed(losses=[{"step": 1, "task": "sick", "loss": math.nan}]), changed(dev=[{"step": 50}])]
    pages = [read(report.render(case)) for case in cases]
    assert len(pages) == 1 + 2 * len(TRAINING) + 2 * len(TRAINING["tasks"][0]) + 2
    assert all("None" not in page.text and "nan" not in page.text for page in pages)
