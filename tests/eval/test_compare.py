"""Two reports are compared on the same queries: intervals are those of a paired bootstrap, mismatches are named.

Tests `eval/compare_reading.py` and `eval/report/sections/compare.py` as well.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap, rankdata
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from tests.documents import different
from tests.pages import read as read_page
from xt.calibration.measuring import resampling
from xt.calibration.measuring.clusters import shared_draws
from xt.core.errors import XtError
from xt.core.files.artifact import new_artifact, open_artifact, write_json
from xt.core.results.folder import read_document
from xt.eval import compare, compare_reading
from xt.eval.report.sections import compare as report_compare

Rows = list[dict[str, Any]]
TASK = {"name": "tatoeba", "title": "Tatoeba"}


def answers(seed: int, *, n: int = 120, codes: tuple[str, ...] = ("deu", "swh"), skill: float = 1.0) -> Rows:
    """Predictions whose difficulty is the same under every seed, so that two sides go together."""
    hard = np.random.default_rng(99).random((len(codes), n))
    rng = np.random.default_rng(seed)
    rows = []
    for way in ("foreign-english", "english-foreign"):
        for place, code in enumerate(codes):
            chance = np.clip((1 - hard[place] ** 2) * skill, 0, 1)
            right = rng.random(n) < chance
            sure = 0.1 + 0.8 * chance + rng.uniform(-0.09, 0.09, n)
            for i in range(n):
                texts = {"query": f"{code} {i}", "answer": "?", "gold": f"gold {i}"}
                about = {"encoder": "one", "language": code, "direction": way, "correct": bool(right[i])}
                rows.append({**about, **texts, "p_cosine": 0.01, "p_zero-shot": float(sure[i])})
    return rows


def write(
    folder: Path, rows: Rows, *, encoder: str = "one", task: dict[str, Any] | None = None, lines: bool = False
) -> Path:
    """A report folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with new_artifact(folder, kind="report") as draft:
        write_json(
            draft.path / "metrics.json", {"task": task or TASK, "encoders": [{"name": encoder}], "created": "now"}
        )
        if lines:
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (draft.path / "predictions.jsonl").write_text(text, encoding="utf-8")
        else:
            pq.write_table(pa.Table.from_pylist(rows), draft.path / "predictions.parquet")
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A report and a worse one on the same queries."""
    first = write(tmp_path / "first", answers(0))
    return first, write(tmp_path / "second", answers(1, skill=0.8))


def side(rows: Rows, code: str, way: str = "foreign-english") -> tuple[np.ndarray, np.ndarray]:
    """Confidences and outcomes of one language."""
    some = [r for r in rows if r["language"] == code and r["direction"] == way]
    return np.array([r["p_zero-shot"] for r in some]), np.array([float(r["correct"]) for r in some])


def plain_ece(confidence: np.ndarray, correct: np.ndarray) -> float:
    parts = np.array_split(np.argsort(confidence, kind="stable"), 15)
    return sum(len(p) / len(correct) * abs(confidence[p].mean() - correct[p].mean()) for p in parts)


PLAIN = {
    "accuracy": lambda c, y: y.mean(),
    "ece": plain_ece,
    "nll_binary": lambda c, y: log_loss(y, c, labels=[0, 1]),
    "brier": lambda c, y: brier_score_loss(y, c),
    "auroc": lambda c, y: roc_auc_score(y, c),
    "aurc": lambda c, y: float(np.mean(np.cumsum(1 - y[np.argsort(-c)]) / np.arange(1, len(y) + 1))),
}


def test_differences_are_those_of_the_two_sides_and_means_of_languages(pair, tmp_path):
    found = compare.compare(*pair, tmp_path / "out", repeats=100).comparison.to_json()
    assert found["names"] == ["first", "second"] and found["a"]["method"] == found["b"]["method"] == "zero-shot"
    for way in ("foreign-english", "english-foreign"):
        data = found["directions"][way]
        for code in ("deu", "swh"):
            row, sides = data["languages"][code], [side(answers(0), code, way), side(answers(1, skill=0.8), code, way)]
            assert row["n"] == 120
            for key, one in PLAIN.items():
                before, after = (one(*s) for s in sides)
                assert (row["a"][key], row["b"][key]) == pytest.approx((before, after), abs=1e-9), key
                assert row["difference"][key] == pytest.approx(after - before, abs=1e-9), key
        for key in PLAIN:
            each = [row["difference"][key] for row in data["languages"].values()]
            assert data["overall"]["difference"][key] == pytest.approx(np.mean(each))
        assert data["by_resource"]["low"]["difference"] == data["languages"]["swh"]["difference"]
        assert set(data["by_resource"]) == {"high", "low"} and data["overall"]["n_languages"] == 2


IDS = np.array([f"sentence {i}" for i in range(120)])


def test_resamples_are_those_of_a_paired_bootstrap_by_hand(pair, tmp_path):
    one, other = (side(answers(0), "swh"), side(answers(1, skill=0.8), "swh"))
    both = tuple(compare_reading.Answers(*s, IDS) for s in (one, other))
    counts = shared_draws(IDS, 30, seed=5)
    drawn = compare.paired(both, resampling.in_turn(counts), 30)
    blocks = [np.repeat(np.arange(120), row) for row in counts]
    assert set(drawn) == set(PLAIN)
    for row, picked in enumerate(blocks):
        for key, measure in PLAIN.items():
            # the same queries on both sides; sorted, since ties keep their order
            values = []
            for confidence, correct in (one, other):
                order = np.argsort(confidence, kind="stable")
                place = np.empty(120, int)
                place[order] = np.arange(120)
                some = order[np.sort(place[picked])]
                values.append(measure(confidence[some], correct[some]))
            assert drawn[key][row] == pytest.approx(values[1] - values[0], abs=1e-9), key


@pytest.mark.parametrize("key", ["accuracy", "brier", "auroc"])
def test_intervals_are_those_of_scipys_paired_bootstrap(key, pair, tmp_path):
    data = compare.compare(*pair, tmp_path / "out", repeats=1500).comparison.to_json()["directions"]["foreign-english"]
    one, other = side(answers(0), "deu"), side(answers(1, skill=0.8), "deu")

    def area(c, y):
        return float((rankdata(c) @ y - y.sum() * (y.sum() + 1) / 2) / (y.sum() * (1 - y).sum()))

    measure = area if key == "auroc" else PLAIN[key] if key == "accuracy" else (lambda c, y: ((c - y) ** 2).mean())
    assert measure(*one) == pytest.approx(PLAIN[key](*one))

    def gap(c0, y0, c1, y1):
        return measure(c1, y1) - measure(c0, y0)

    expected = bootstrap(
        (*one, *other), gap, paired=True, vectorized=False, n_resamples=800, method="percentile", random_state=0
    ).confidence_interval
    found = data["languages"]["deu"]["ci"][key]
    width = expected.high - expected.low
    assert found == pytest.approx([expected.low, expected.high], abs=0.15 * width)


def test_a_paired_interval_is_narrower_than_independent_ones_where_sides_agree(tmp_path):
    rows = answers(0)
    close = [dict(r) for r in rows]
    for r in close[::20]:
        r["correct"] = not r["correct"]
    a, b = write(tmp_path / "a", rows), write(tmp_path / "b", close)
    low, high = compare.compare(a, b, tmp_path / "out").comparison.to_json()["directions"]["foreign-english"][
        "languages"
    ]["deu"]["ci"]["accuracy"]
    p = np.mean([r["correct"] for r in rows if r["language"] == "deu"])
    alone = 2 * 1.96 * np.sqrt(2 * p * (1 - p) / 120)
    assert (high - low) == pytest.approx(2 * 1.96 * np.sqrt(6) / 120, rel=0.25)  # six queries differ
    assert (high - low) < 0.6 * alone


def test_the_p_value_of_accuracy_is_close_to_mcnemars(pair, tmp_path):
    data = compare.compare(*pair, tmp_path / "out").comparison.to_json()["directions"]["foreign-english"]["languages"]
    for code in ("deu", "swh"):
        (_, one), (_, other) = side(answers(0), code), side(answers(1, skill=0.8), code)
        lost, won = int(((one == 1) & (other == 0)).sum()), int(((one == 0) & (other == 1)).sum())
        exact = binomtest(min(lost, won), lost + won).pvalue
        assert data[code]["p"]["accuracy"] == pytest.approx(exact, abs=0.03 + 0.3 * exact)


def test_without_a_difference_few_p_values_are_small():
    small = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        sides = tuple(compare_reading.Answers(None, (rng.random(100) < 0.7).astype(float), IDS[:100]) for _ in "ab")
        drawn = compare.paired(sides, resampling.independent(rng, 100), 200)["accuracy"]
        gap = float(sides[1].correct.mean() - sides[0].correct.mean())
        small += compare.p_value(gap, drawn) < 0.05
    assert 0.01 < small / 200 < 0.11


def test_holm_by_hand():
    # sorted .01 <= .05/4, .013 <= .05/3, .03 > .05/2: the rest stay, also .04, which is below .05
    assert compare.holm([0.03, 0.01, 0.04, 0.013]) == [False, True, False, True]
    assert compare.holm([0.05]) == [True] and compare.holm([]) == []


def test_flags_hold_together_over_languages(pair, tmp_path):
    data = compare.compare(*pair, tmp_path / "out").comparison.to_json()["directions"]["foreign-english"]["languages"]
    for key in PLAIN:
        expected = compare.holm([data[c]["p"][key] for c in data])
        assert [data[c]["beyond_chance"][key] for c in data] == expected


def test_a_report_against_itself_differs_in_nothing(pair, tmp_path):
    found = compare.compare(pair[0], pair[0], tmp_path / "out").comparison.to_json()
    assert found["names"] == ["first (A)", "first (B)"]
    for row in found["directions"]["foreign-english"]["languages"].values():
        assert set(row["difference"].values()) == {0.0} and set(row["p"].values()) == {1.0}
        assert all(ends == [0, 0] for ends in row["ci"].values()) and not any(row["beyond_chance"].values())


def test_two_methods_of_one_report_are_compared(pair, tmp_path):
    found = compare.compare(pair[0], pair[0], tmp_path / "out", methods=("cosine", "zero-shot")).comparison.to_json()
    assert found["names"] == ["first (cosine)", "first (zero-shot)"]
    overall = found["directions"]["foreign-english"]["overall"]
    assert overall["difference"]["accuracy"] == 0 and overall["difference"]["ece"] < -0.3
    with pytest.raises(XtError, match=r"no probabilities of method 'beta'.*\n.*cosine, zero-shot"):
        compare.compare(*pair, tmp_path / "out2", methods=("beta", None))


def test_order_of_queries_does_not_matter_repeated_ones_keep_theirs(tmp_path):
    rows, worse = answers(0), answers(1, skill=0.8)
    for some in (rows, worse):
        for i in (1, 2):
            some[i]["query"], some[i]["gold"] = some[0]["query"], some[0]["gold"]
    straight = compare.compare(write(tmp_path / "a", rows), write(tmp_path / "b", worse), tmp_path / "x", repeats=100)
    first, rest = worse[:3], worse[3:]
    mixed = [rest[i] for i in np.random.default_rng(0).permutation(len(rest))] + first
    turned = compare.compare(tmp_path / "a", write(tmp_path / "c", mixed), tmp_path / "y", repeats=100)
    assert turned.comparison.to_json()["directions"] == straight.comparison.to_json()["directions"]


def test_a_language_is_drawn_the_same_whichever_others_there_are(pair, tmp_path):
    whole = compare.compare(*pair, tmp_path / "x", repeats=100).comparison.to_json()["directions"]["foreign-english"]
    only = write(tmp_path / "only", [r for r in answers(1, skill=0.8) if r["language"] == "swh"])
    part = compare.compare(pair[0], only, tmp_path / "y", repeats=100).comparison.to_json()
    assert part["directions"]["foreign-english"]["languages"]["swh"]["ci"] == whole["languages"]["swh"]["ci"]
    assert part["left_out"]["foreign-english"] == [["deu"], []]
    page = (tmp_path / "y" / "report.html").read_text(encoding="utf-8")
    assert "Only first has German (foreign → English): left out." in page


def test_a_direction_that_one_side_lacks_is_left_out_and_said(pair, tmp_path):
    one_way = [r for r in answers(1) if r["direction"] == "english-foreign"]
    found = compare.compare(pair[0], write(tmp_path / "c", one_way), tmp_path / "out", repeats=100).comparison.to_json()
    assert list(found["directions"]) == ["english-foreign"] and found["only"] == [["foreign-english"], []]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Only first has foreign → English: left out." in page
    other_way = [r for r in answers(1) if r["direction"] == "foreign-english"]
    with pytest.raises(XtError, match="no direction in common"):
        compare.compare(tmp_path / "c", write(tmp_path / "d", other_way), tmp_path / "out2")


@pytest.mark.parametrize("shared", [True, False])
def test_languages_are_drawn_together_as_far_as_they_share_sentences(shared, tmp_path):
    # Two languages with the same answers: the mean is as wide as either where the sentences are the same, and
    # narrower by the root of two where they are others.
    rows = [r for r in answers(0) if r["language"] == "deu"]
    worse = [r for r in answers(1, skill=0.8) if r["language"] == "deu"]
    other = {"language": "swh"}
    twice = [
        [*some, *({**r, **other, "gold": r["gold"] if shared else f"other {r['gold']}"} for r in some)]
        for some in (rows, worse)
    ]
    folders = [write(tmp_path / f"d{i}", some) for i, some in enumerate(twice)]
    data = compare.compare(*folders, tmp_path / "out").comparison.to_json()["directions"]["foreign-english"]
    one, both = (
        ends[1] - ends[0] for ends in (data["languages"]["deu"]["ci"]["brier"], data["overall"]["ci"]["brier"])
    )
    assert both == pytest.approx(one if shared else one / np.sqrt(2), rel=0.1)


def change(rows: Rows, place: int, **values: Any) -> Rows:
    """The same predictions but for one."""
    return [{**r, **values} if i == place else r for i, r in enumerate(rows)]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda r: change(r, 7, query="another"),
            r"number 8 of deu, foreign-english in \S*first \(deu 7 / .gold 7.*not in",
        ),
        (lambda r: change(r, 7, gold="another"), r"number 8 of deu, foreign-english in \S*first"),
        (lambda r: r[:7] + r[8:], r"number 8 of deu, foreign-english in \S*first"),
        (lambda r: [*r[:5], {**r[4], "query": "one more"}, *r[5:]], r"number 6 of deu.* in \S*other \(one more"),
        (lambda r: [{**x, "language": "fra"} for x in r], "no language in common"),
        (lambda r: change(r, 3, **{"p_zero-shot": float("nan")}), r"zero-shot is nan \(prediction 4"),
        (lambda r: change(r, 3, **{"p_zero-shot": 1.5}), "zero-shot is 1.5"),
    ],
)
def test_what_does_not_match_is_named(spoil, said, tmp_path):
    first, other = write(tmp_path / "first", answers(0)), write(tmp_path / "other", spoil(answers(1)))
    with pytest.raises(XtError, match=said) as error:
        compare.compare(first, other, tmp_path / "out")
    assert error.value.hint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first", "other"]


def test_other_tasks_methods_and_folders_are_refused(pair, tmp_path):
    tatoeba = pair[0]
    with pytest.raises(XtError, match="'tatoeba'.*of 'bucc'"):
        compare.compare(tatoeba, write(tmp_path / "b", answers(1), task={"name": "bucc"}), tmp_path / "out")
    renamed = [{"p_beta" if k == "p_zero-shot" else k: v for k, v in r.items() if k != "p_cosine"} for r in answers(1)]
    with pytest.raises(XtError, match="no calibration method in common"):
        compare.compare(tatoeba, write(tmp_path / "c", renamed), tmp_path / "out")
    with new_artifact(tmp_path / "empty", kind="report") as draft:
        write_json(draft.path / "metrics.json", {"task": TASK})
    with pytest.raises(XtError, match="neither predictions.parquet nor predictions.jsonl"):
        compare.compare(tatoeba, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(XtError, match="no folder"):
        compare.compare(tatoeba, tmp_path / "absent", tmp_path / "out")
    with pytest.raises(XtError, match="exists|complete"):
        compare.compare(*pair, tatoeba)
    with pytest.raises(XtError, match="exists|complete"):  # before anything is read
        compare.compare(tmp_path / "absent", tmp_path / "absent", tatoeba)
    with pytest.raises(XtError, match="at least 100"):
        compare.compare(*pair, tmp_path / "out", repeats=10)
    assert not (tmp_path / "out").exists()


def test_of_several_encoders_the_subject_is_compared(tmp_path):
    rows = [*answers(5, skill=0.2), *({**r, "encoder": "two"} for r in answers(0))]
    several = write(tmp_path / "several", rows, encoder="two")
    single = write(tmp_path / "single", answers(0))
    found = compare.compare(several, single, tmp_path / "out", repeats=100).comparison.to_json()
    assert found["names"] == ["two", "one"]
    assert found["directions"]["foreign-english"]["overall"]["difference"]["accuracy"] == 0


def test_one_class_has_no_auroc_and_does_not_count_in_its_mean(tmp_path):
    rows = [{**r, "correct": True} if r["language"] == "swh" else r for r in answers(0)]
    found = compare.compare(
        write(tmp_path / "a", rows), write(tmp_path / "b", answers(1)), tmp_path / "out", repeats=100
    ).comparison.to_json()["directions"]["foreign-english"]
    row = found["languages"]["swh"]
    assert row["a"]["auroc"] is row["difference"]["auroc"] is row["ci"]["auroc"] is row["p"]["auroc"] is None
    assert "auroc" not in row["beyond_chance"]
    assert found["overall"]["difference"]["auroc"] == found["languages"]["deu"]["difference"]["auroc"]


def labelled(seed: int, n: int = 80) -> Rows:
    """Predictions of a head with three labels."""
    rng = np.random.default_rng(seed)
    gold = np.random.default_rng(9).integers(0, 3, n)
    rows = []
    for i in range(n):
        p = rng.dirichlet(np.where(np.arange(3) == gold[i], 3.0, 1.0))
        rows.append(
            {
                "language": "deu",
                "id": str(i),
                "gold": f"l{gold[i]}",
                "predicted": f"l{p.argmax()}",
                "probabilities": p.tolist(),
            }
        )
    return rows


def test_heads_are_compared_by_their_labels_and_probabilities(tmp_path):
    folders = [write(tmp_path / f"h{s}", labelled(s), lines=True, task={"name": "xnli"}) for s in (0, 1)]
    found = compare.compare(*folders, tmp_path / "out", repeats=100).comparison.to_json()
    assert list(found["directions"]) == [""] and found["a"]["method"] == "own"
    row = found["directions"][""]["languages"]["deu"]
    for name, seed in (("a", 0), ("b", 1)):
        right = np.array([float(r["gold"] == r["predicted"]) for r in labelled(seed)])
        sure = np.array([max(r["probabilities"]) for r in labelled(seed)])
        assert row[name]["accuracy"] == right.mean()
        assert row[name]["auroc"] == pytest.approx(roc_auc_score(right, sure))


def test_tags_count_by_word_and_answers_by_any_gold_one(tmp_path):
    tags = [
        {"language": "deu", "id": "1", "gold": ["A", "B", "A"], "predicted": p, "probabilities": [0.9, 0.5, q]}
        for p, q in ((["A", "B", "B"], 0.4), (["A", "A", "A"], 0.8))
    ]
    folders = [write(tmp_path / f"t{i}", [row], lines=True) for i, row in enumerate(tags)]
    row = compare.compare(*folders, tmp_path / "out", repeats=100).comparison.to_json()["directions"][""]["languages"][
        "deu"
    ]
    assert row["n"] == 3 and row["a"]["accuracy"] == row["b"]["accuracy"] == pytest.approx(2 / 3)
    assert row["a"]["brier"] == pytest.approx((0.1**2 + 0.5**2 + 0.4**2) / 3)
    spoken = [
        {"language": "deu", "id": str(i), "gold": ["the Rhine", "Rhine"], "predicted": p, "logits": [1.0, 0.0]}
        for i, p in enumerate(("rhine.", "Elbe"))
    ]
    asked = [write(tmp_path / f"q{i}", spoken, lines=True) for i in (0, 1)]
    row = compare.compare(*asked, tmp_path / "out2", repeats=100).comparison.to_json()["directions"][""]["languages"][
        "deu"
    ]
    assert row["a"] == {"accuracy": 0.5} and row["difference"] == {"accuracy": 0.0}


def test_numbers_without_right_or_wrong_are_refused(tmp_path):
    rows = [{"language": "deu", "id": "1", "gold": 0.5, "predicted": 0.4}]
    folder = write(tmp_path / "a", rows, lines=True)
    with pytest.raises(XtError, match="prediction 1 cannot be compared .*without a right or wrong"):
        compare.compare(folder, folder, tmp_path / "out")


def test_the_folder_is_a_report_that_names_its_parents(pair, tmp_path):
    told: list[tuple[int, int, str]] = []
    metrics = compare.compare(*pair, tmp_path / "out", repeats=100, progress=lambda *x: told.append(x))
    assert told == [(0, 4, "deu"), (1, 4, "swh"), (2, 4, "deu"), (3, 4, "swh"), (4, 4, "")]
    artifact = open_artifact(tmp_path / "out", kind="report")
    assert [p["hash"] for p in artifact.manifest["parents"]] == [open_artifact(p).hash for p in pair]
    assert different(metrics.to_json(), read_document(tmp_path / "out")) == []
    again = compare.compare(*pair, tmp_path / "out", repeats=100, force=True)
    assert again.comparison == metrics.comparison


def test_the_page_says_what_differs_and_draws_it_to_scale(pair, tmp_path):
    metrics = compare.compare(*pair, tmp_path / "out")
    page = read_page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    data = metrics.comparison.to_json()["directions"]["foreign-english"]
    gap = data["overall"]["difference"]["accuracy"]
    assert gap < 0 and f"{-100 * gap:.1f} points less often than first" in page.text
    rows = data["languages"]
    reach = max(abs(x) for r in rows.values() for x in (r["difference"]["accuracy"], *r["ci"]["accuracy"]))
    for code, name in (("deu", "German"), ("swh", "Swahili")):
        at = 100 * (rows[code]["difference"]["accuracy"] + reach) / (2 * reach)
        line = next(x for x in page.of("svg", "dots") if x.text.startswith(f"{name}: Accuracy"))
        assert line.of("circle")[0]["cx"] == f"{at:.2f}%" and line.of("line", "null")[0]["x1"] == "50.00%"
        assert ("beyond chance" in line.text) == rows[code]["beyond_chance"]["accuracy"]
        assert bool(line.of("circle", "disc")) == rows[code]["beyond_chance"]["accuracy"]
    assert "comparison" in page.sections and page.of("a", href="#comparison")
    assert not re.search(r"\bNone\b|\bnan\b", page.text)


def test_names_of_folders_and_encoders_are_escaped(tmp_path):
    rows = answers(0)
    folders = [write(tmp_path / f"<i>{x}&", rows, encoder="<b>") for x in "ab"]
    compare.compare(*folders, tmp_path / "out", repeats=100)
    page = read_page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert not [e for e in page.of("i") if e.text.startswith("a&")] and "<i>a&" in page.text


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [("accuracy", -0.0123, "−1.2"), ("accuracy", 0.0, "0.0"), ("ece", 0.0123, "+0.012"), ("ece", -0.0001, "0.000")],
)
def test_differences_carry_their_sign(key, value, shown):
    assert report_compare.signed(report_compare.MEASURES[key], value) == shown
