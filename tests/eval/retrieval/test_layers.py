"""Accuracy of each layer is that by hand; the layer reported is chosen on other languages; the page shows both."""

from __future__ import annotations

import numpy as np
import pytest

from tests.pages import read as read_page
from xt.core.data.bitext import Bitext
from xt.core.results.report import Report
from xt.eval.report import build
from xt.eval.report.sections.layers import layers as section
from xt.eval.retrieval.layers import accuracies, best, halves, sweep

EF, FE = "english-foreign", "foreign-english"
PAIRS = [
    Bitext("deu", ("a", "b", "c"), ("A", "B", "C")),
    Bitext("swh", ("x", "y", "z"), ("A", "B", "B")),  # an English sentence twice
]
ANGLES = {
    0: {"A": 0, "B": 30, "C": 80, "a": 25, "b": 45, "c": 50, "x": 1, "y": 2, "z": 31},
    7: {"A": 0, "B": 30, "C": 80, "a": 2, "b": 31, "c": 79, "x": 1, "y": 29, "z": 90},
}


def encode(texts):
    """Vectors of any length at known angles, by layer."""
    turned = {n: np.radians([table[t] for t in texts]) for n, table in ANGLES.items()}
    return {n: (3 * np.stack([np.cos(a), np.sin(a)], 1)).astype(np.float32) for n, a in turned.items()}


def test_accuracies_are_those_by_hand():
    found = accuracies(encode, PAIRS)
    # Layer 0, deu, foreign to English: a at 25 finds B, b at 45 finds B (15), c at 50 finds B (20): 1 of 3.
    assert found[FE][0]["deu"] == pytest.approx(1 / 3)
    # English to foreign: A at 0 finds a (25), B at 30 finds a (5), C at 80 finds c (30): 2 of 3.
    assert found[EF][0]["deu"] == pytest.approx(2 / 3)
    assert found[FE][7]["deu"] == found[EF][7]["deu"] == 1.0
    # Layer 7, swh: both B are at 30. English to foreign: A finds x, both B find y, so the second is wrong: 2 of 3.
    assert found[EF][7]["swh"] == pytest.approx(2 / 3)
    # Layer 0, swh: A at 0 finds x (1); both B at 30 find z (31), which is right for the second: 2 of 3.
    assert found[EF][0]["swh"] == pytest.approx(2 / 3)


def test_sentences_that_come_twice_are_encoded_once():
    asked = []

    def counting(texts):
        asked.append(list(texts))
        return encode(texts)

    accuracies(counting, PAIRS)
    assert asked == [["a", "b", "c", "A", "B", "C"], ["x", "y", "z", "A", "B"]]


def table_of(rows):
    """Both directions alike: layer -> language -> accuracy."""
    return {FE: rows, EF: rows}


def test_the_best_layer_is_chosen_on_one_half_and_reported_on_the_other():
    chosen_on, reported_on = halves(["deu", "fra", "swh", "tam", "tha"])
    assert (len(chosen_on), len(reported_on)) == (3, 2)
    assert not set(chosen_on) & set(reported_on)
    rows = {
        5: {**dict.fromkeys(chosen_on, 0.9), **dict.fromkeys(reported_on, 0.2)},
        6: {**dict.fromkeys(chosen_on, 0.1), **dict.fromkeys(reported_on, 1.0)},
        9: {**dict.fromkeys(chosen_on, 0.3), **dict.fromkeys(reported_on, 0.4)},
    }
    result = best(table_of(rows), own=9)
    assert result["layer"] == 5
    assert result["accuracy"] == {FE: pytest.approx(0.2), EF: pytest.approx(0.2)}
    assert result["own_accuracy"] == {FE: pytest.approx(0.4), EF: pytest.approx(0.4)}
    assert (result["chosen_on"], result["reported_on"]) == (chosen_on, reported_on)
    assert best(table_of(rows), own=12)["own_accuracy"] is None


def test_the_choice_reads_both_directions_and_takes_the_lowest_of_equals():
    one = {n: {"deu": a, "fra": a} for n, a in ((1, 0.5), (2, 0.6), (3, 0.4))}
    other = {n: {"deu": a, "fra": a} for n, a in ((1, 0.5), (2, 0.1), (3, 0.6))}
    assert best({FE: one, EF: other}, own=3)["layer"] == 1  # means 0.5, 0.35, 0.5


def test_with_one_language_no_layer_is_chosen():
    assert best(table_of({1: {"deu": 1.0}, 2: {"deu": 0.0}}), own=2) is None


def test_the_halves_do_not_depend_on_the_order():
    codes = ["deu", "fra", "swh", "tam", "tha", "urd"]
    assert halves(codes) == halves(codes[::-1])


@pytest.fixture
def data():
    return sweep(encode, PAIRS, resources={"deu": "high", "swh": "low"}, own=7, count=12)


def test_the_section_of_the_metrics_has_means_by_class(data):
    assert list(data["directions"]) == [FE, EF]
    assert list(data["directions"][EF]) == ["0", "7"]
    means = data["directions"][EF]["7"]["mean"]
    assert means == {"all": pytest.approx(5 / 6), "high": 1.0, "low": pytest.approx(2 / 3)}
    assert (data["own"], data["count"]) == (7, 12)


def test_the_page_has_the_section_with_curve_table_and_choice(data):
    names = {"deu": {"name": "Ger<man>"}, "swh": {"name": "Swa<hili>"}}
    page = read_page(build.render({"title": "t", "layers": data, "languages": names}))
    assert [link.text for link in page.of("a", href="#layers")] == ["Layers"]
    part = page.sections["layers"]
    assert len(part.of("polyline", "curve")) == 2
    assert "83.3%" in part.text and "layer 7 of 12" in part.text
    assert [row[0] for row in part.rows if row[0].removesuffix(", chosen") == "7 own"]
    assert part.text.count("Chosen on: Ger<man>.") + part.text.count("Chosen on: Swa<hili>.") == 1


def test_the_page_of_a_run_without_layers_has_no_such_section():
    assert section(Report()) == ""
    assert "layers" not in read_page(build.render({"title": "t"})).sections


def test_one_layer_in_one_language_has_a_table_and_neither_curve_nor_choice():
    data = sweep(lambda t: {7: encode(t)[7]}, PAIRS[:1], resources={"deu": "high"}, own=7, count=12)
    page = read_page(section(Report.from_json({"layers": data})))
    assert not page.of("polyline") and "there is none to choose a layer on" in page.text
    assert len(page.of("table")) == 1
