"""Calibrated heads: fits against scikit-learn, numbers by hand, and no example scored by what has seen it.

Tests `calibration/apply/heads.py` and `calibration/fit/heads.py` as well.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from xt.calibration import heads as calibration
from xt.calibration.apply.file import write
from xt.calibration.apply.heads import LabelTemperature, from_json
from xt.calibration.fit import heads as head_fits
from xt.calibration.fit.heads import FittedTemperature, Prior, fit_log_temperature, fit_temperature
from xt.calibration.fit.maps import fit_beta, fit_histogram, quantile_edges
from xt.calibration.heads import calibrate, fit, fold_of, folds_of, prior_of
from xt.calibration.measuring import measures
from xt.calibration.predictions import FOLDS, Predictions, classified, pool
from xt.calibration.scoring import Fitted, score
from xt.calibration.shots import of_heads
from xt.core.data import tasks
from xt.core.data.examples import QaExample, SingleExample, TaggedExample
from xt.core.errors import XtError
from xt.core.heads.decode import N_BEST, Prediction
from xt.eval.heads.classify import calibration_of_head, classify, summarise
from xt.eval.heads.items import outcomes
from xt.export.heads.temperature import read_temperature

CLASSES = 4
PLATT = {"kind": "platt", "bias": 0, "weights": [1] * 4, "mean": [0] * 4, "scale": [1] * 4}


def labels(
    n: int, temperature: float, seed: int = 0, *, ids: list[str] | None = None, classes: int = CLASSES
) -> Predictions:
    """Predictions whose logits are calibrated at `temperature`."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(n, classes)) * 1.5
    gold = np.array([rng.choice(classes, p=row) for row in softmax(true, 1)])
    logits = true * temperature
    chosen = logits.argmax(1)
    names = np.array(ids or [str(i) for i in range(n)])
    return classified(logits, chosen, ids=names, fold=folds_of(names), gold=gold, labels=True)


def events(n: int, temperature: float, seed: int = 0) -> Predictions:
    """Predictions of two choices each, right or wrong as a whole, calibrated at `temperature`."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(2 * n, CLASSES)) * 1.5
    chosen = true.argmax(1)
    chances = softmax(true, 1)[np.arange(2 * n), chosen].reshape(n, 2).prod(1)
    right = (rng.random(n) < chances).astype(float)
    owner = np.repeat(np.arange(n), 2)
    ids = [str(i) for i in range(n)]
    return classified(true * temperature, chosen, ids=ids, fold=folds_of(ids), correct=right, owner=owner)


# --- fits ---


def test_a_temperature_is_where_the_slope_of_the_loss_is_zero() -> None:
    """At the best T the mean logit of the right label is the mean expected one (the derivative by 1/T, by hand)."""
    items = labels(3000, 2.5)
    found = fit_temperature(items).temperature
    chances = softmax(items.scores / found, 1)
    expected = (chances * items.scores).sum(1).mean()
    assert items.scores[np.arange(3000), items.gold].mean() == pytest.approx(expected, abs=2e-3)
    assert found == pytest.approx(2.5, rel=0.08)


def test_a_temperature_is_scikit_learns() -> None:
    """`_TemperatureScaling` of CalibratedClassifierCV, where scikit-learn has it."""
    from sklearn import calibration as theirs

    if not hasattr(theirs, "_TemperatureScaling"):
        pytest.skip("this scikit-learn has no temperature scaling")
    items = labels(2000, 1.7, 1)
    fitted = theirs._TemperatureScaling().fit(items.scores, items.gold)
    assert 1 / fitted.beta_ == pytest.approx(fit_temperature(items).temperature, rel=2e-3)


def test_answers_of_several_choices_get_a_temperature_by_whether_they_are_right() -> None:
    items = events(6000, 2.0)
    found = fit_temperature(items)
    assert found.temperature == pytest.approx(2.0, rel=0.1)
    by_hand = softmax(items.scores / found.temperature, 1)[np.arange(12000), items.answer]
    np.testing.assert_allclose(found(items), by_hand.reshape(-1, 2).prod(1), atol=1e-12)
    assert measures.ece(found(items), items.correct) < 0.03 < measures.ece(LabelTemperature(1.0)(items), items.correct)


def test_vector_scaling_is_the_regression_of_labels_on_their_own_logits() -> None:
    """At the optimum each label's share is what is predicted, and so is its logit's mean (both derivatives zero)."""
    items = labels(3000, 2.0)
    bias = np.array([1.0, 0, 0, -1])
    moved = replace(items, scores=items.scores - bias)
    found = head_fits.fit_vector(moved, ridge=0.0)
    chances = found.probabilities(moved)
    shares = np.bincount(moved.gold, minlength=CLASSES) / 3000
    np.testing.assert_allclose(chances.mean(0), shares, atol=1e-3)
    one_hot = np.eye(CLASSES)[moved.gold]
    np.testing.assert_allclose(((chances - one_hot) * moved.scores).mean(0), 0, atol=2e-3)
    assert np.ptp(np.array(found.bias) - bias / 2) < 0.3
    np.testing.assert_allclose(chances[np.arange(3000), moved.answer], found(moved))


def test_isotonic_maps_are_scikit_learns_one_label_against_the_rest() -> None:
    from sklearn.isotonic import IsotonicRegression

    items, new = labels(1500, 3.0), labels(400, 3.0, 9)
    found = head_fits.HEAD_METHODS["isotonic"].fit(items)
    plain, asked = softmax(items.scores, 1), softmax(new.scores, 1)
    columns = []
    for k in range(CLASSES):
        regression = IsotonicRegression(out_of_bounds="clip", y_min=0, y_max=1).fit(plain[:, k], items.gold == k)
        columns.append(regression.predict(asked[:, k]))
    expected = np.stack(columns, 1) / np.sum(columns, axis=0)[:, None]
    np.testing.assert_allclose(found.probabilities(new), expected, atol=1e-3)  # 1 / 2n from 0 and 1
    assert np.isclose(found.probabilities(new), expected, rtol=0, atol=1e-12).mean() > 0.5
    np.testing.assert_allclose(found.probabilities(new).sum(1), 1)


def test_a_beta_map_is_a_logistic_regression_on_two_logarithms() -> None:
    """Kull et al. 2017, section 4: the same likelihood as logistic regression where both slopes are positive."""
    from sklearn.linear_model import LogisticRegression

    items = events(4000, 3.0)
    p = items.confidence(items.log_softmax())
    found = fit_beta(p, items.correct, ridge=0.0)
    features = np.stack([np.log(p), -np.log1p(-p)], 1)
    theirs = LogisticRegression(C=1e10, tol=1e-10, max_iter=10_000).fit(features, items.correct)
    assert found.a > 0 and found.b > 0
    np.testing.assert_allclose(
        [found.a, found.b, found.m], [*theirs.coef_[0], theirs.intercept_[0]], rtol=0.02, atol=0.01
    )
    np.testing.assert_allclose(found(p), theirs.predict_proba(features)[:, 1], atol=1e-3)


def test_a_histogram_gives_each_bin_its_share() -> None:
    p = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
    hit = np.array([0, 0, 0, 1, 1, 0, 1, 1.0])
    found = fit_histogram(p, hit, quantile_edges(p, 2), pseudo=1.0)
    assert found.edges == (pytest.approx(0.5),)
    assert found(np.array([0.0, 0.5, 0.5001, 1.0])).tolist() == pytest.approx([2 / 6, 2 / 6, 4 / 6, 4 / 6])
    same = head_fits.histogram_map(np.full(10, 0.5), np.ones(10))
    assert (same.edges, same.values) == ((), (pytest.approx(11 / 12),))


@pytest.mark.parametrize("key", ["", *head_fits.HEAD_METHODS])
def test_every_calibrator_is_the_same_after_json(key: str) -> None:
    items, new = labels(600, 2.0), labels(100, 2.0, 7)
    found = fit_temperature(items) if not key else head_fits.HEAD_METHODS[key].fit(items)
    again = from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    np.testing.assert_array_equal(again(new), found(new))
    confidence = found(new)
    assert ((confidence >= 0) & (confidence <= 1)).all()


def test_damaged_calibrators_are_refused() -> None:
    for value, match in (
        ({"kind": "magic"}, "Unknown calibrator of a head 'magic'"),
        ({"kind": "label-temperature", "temperature": -1}, "must be positive"),
        ({"kind": "vector", "scale": [1]}, "lacks or misstates 'bias'"),
        ({"kind": "of-answers", "map": {"kind": "magic"}}, "Unknown map"),
        ({"kind": "of-answers", "map": {"kind": "beta", "a": 1, "b": 1}}, "lacks or misstates 'm'"),
        ({"kind": "of-answers", "map": PLATT}, "Platt's map reads similarities"),
        (
            {"kind": "of-answers", "map": {"kind": "histogram", "edges": [0.5], "values": [1]}},
            "one value more than inner edges",
        ),
    ):
        with pytest.raises(XtError, match=match):
            from_json(value)


# --- the leak ---


def parallel(n: int = 120, temperatures: tuple[float, ...] = (1.0, 2.0, 4.0)) -> dict[str, Predictions]:
    """Languages that share their ids, each with a temperature of its own."""
    codes = ("eng", "deu", "swh")
    return {code: labels(n, t, seed) for seed, (code, t) in enumerate(zip(codes, temperatures, strict=True))}


def flipped(items: dict[str, Predictions], id: str) -> dict[str, Predictions]:
    """The same with another outcome of one example in every language."""
    out = {}
    for code, rows in items.items():
        at = np.flatnonzero(rows.ids == id)
        gold, correct = rows.gold.copy(), rows.correct.copy()
        gold[at] = (gold[at] + 1) % CLASSES
        correct[at] = rows.answer[at] == gold[at]
        out[code] = replace(rows, gold=gold, correct=correct)
    return out


def moved_by_own_outcome(items: dict[str, Predictions], id: str) -> set[str]:
    """Methods whose confidence in an example depends on whether it, or its translation, turned out right."""
    before, after = calibrate(items), calibrate(flipped(items, id))
    found = set()
    for one, other in zip(before.methods, after.methods, strict=True):
        for code, rows in items.items():
            at = rows.ids == id
            if not np.allclose(one.scored[code].confidence[at], other.scored[code].confidence[at], atol=1e-9):
                found.add(one.key)
    return found


def test_no_methods_confidence_depends_on_an_examples_own_outcome_or_its_translations(monkeypatch) -> None:
    """And the same check catches a leak that is planted: folds by the place in the file, other in each language."""
    items = parallel(150)
    methods = {m.key for m in calibrate(items).methods}
    assert {"zero-shot", "pooled", "per-language", "shrunk", "isotonic", "beta-zero-shot", "histogram"} <= methods
    for id in ("0", "17"):
        assert moved_by_own_outcome(items, id) == set()
    monkeypatch.setattr(Fitted, "check", lambda self, some: None)  # without the guard
    planted = {
        code: replace(rows, fold=(np.arange(len(rows)) + shift) % FOLDS)
        for shift, (code, rows) in enumerate(items.items())
    }
    assert moved_by_own_outcome(planted, "17") >= {"zero-shot", "pooled", "isotonic"}


def test_a_calibrator_refuses_what_it_has_seen_and_its_translations(monkeypatch) -> None:
    items = parallel()
    leaky = fit(fit_temperature, [items["deu"]])
    with pytest.raises(XtError, match=r"\d+ examples that it has seen, or their translations"):
        score(items["swh"], dict.fromkeys(range(FOLDS), leaky))
    score(labels(5, 1.0, ids=[f"other {n}" for n in range(5)]), dict.fromkeys(range(FOLDS), leaky))
    monkeypatch.setattr(calibration, "outside_fold", lambda rows, fold: rows)  # a leak: nothing is held out
    with pytest.raises(XtError, match="has seen"):
        calibrate(items)


def test_folds_are_by_id_alone_and_of_like_size() -> None:
    sizes = np.bincount([fold_of(str(n)) for n in range(2000)], minlength=FOLDS)
    assert sizes.min() > 330
    assert len(sizes) == FOLDS


# --- scopes ---


def test_scopes_find_the_temperatures_of_their_languages() -> None:
    found = {m.key: m for m in calibrate(parallel(1500)).methods}
    assert found["zero-shot"].temperature == pytest.approx(1.0, rel=0.1)
    own = {code: s.temperature for code, s in found["per-language"].scored.items()}
    assert own == {"eng": pytest.approx(1, rel=0.1), "deu": pytest.approx(2, rel=0.1), "swh": pytest.approx(4, rel=0.1)}
    shrunk = {code: s.temperature for code, s in found["shrunk"].scored.items()}
    assert all(abs(np.log(shrunk[c] / own[c])) < 0.05 for c in own)  # with this much each keeps its own
    assert 1.0 < found["pooled"].temperature < 4.0
    assert found["uncalibrated"].temperature == 1.0


def test_english_dev_items_are_fitted_on_whole_and_test_items_not() -> None:
    items = {"swh": labels(200, 3.0, 1)}
    dev = labels(400, 3.0, 2)
    found = calibrate(items, english=dev)
    zero = next(m for m in found.methods if m.key == "zero-shot")
    assert zero.temperature == fit_temperature(dev).temperature
    np.testing.assert_allclose(zero.scored["swh"].confidence, fit_temperature(dev)(items["swh"]))
    without = calibrate(items)
    assert "zero-shot" not in {m.key for m in without.methods}
    assert any("no English" in note for note in without.notes)


def test_the_prior_is_dersimonian_and_lairds() -> None:
    """Three languages by hand: weights 100, 50, 25 on logs 0, 0.4, 1."""
    fits = [FittedTemperature(t, v, False) for t, v in ((0.0, 0.01), (0.4, 0.02), (1.0, 0.04))]
    mean = (0 * 100 + 0.4 * 50 + 1 * 25) / 175
    q = 100 * mean**2 + 50 * (0.4 - mean) ** 2 + 25 * (1 - mean) ** 2
    variance = (q - 2) / (175 - (100**2 + 50**2 + 25**2) / 175)
    weights = np.array([1 / (0.01 + variance), 1 / (0.02 + variance), 1 / (0.04 + variance)])
    found = prior_of(fits)
    assert found.variance == pytest.approx(variance)
    assert found.mean == pytest.approx((weights * [0, 0.4, 1]).sum() / weights.sum())
    alike = prior_of([FittedTemperature(0.3, 0.1, False)] * 4)
    assert (alike.mean, alike.variance) == (pytest.approx(0.3), 0.0)
    untold = prior_of([FittedTemperature(-3.0, 0.5, True), FittedTemperature(1.0, np.inf, False), *fits])
    assert untold == found


def test_few_items_are_drawn_to_the_prior_and_many_are_not() -> None:
    few, many = labels(12, 3.0, 3), labels(4000, 3.0, 3)
    prior = Prior(0.0, 0.02)
    assert abs(fit_log_temperature(few, prior).log) < abs(fit_log_temperature(few).log) * 0.5
    assert fit_log_temperature(many, prior).log == pytest.approx(fit_log_temperature(many).log, abs=0.06)
    assert fit_log_temperature(few, Prior(0.7, 0.0)).log == 0.7


def test_with_sixteen_shots_shrinking_beats_each_languages_own() -> None:
    rng = np.random.default_rng(4)
    items = {f"l{n}": labels(300, float(np.exp(rng.normal(0.5, 0.15))), n) for n in range(8)}
    found = of_heads(items, counts=(16, 10_000), draws=2)
    assert set(found) == {"16"}  # no language has ten thousand
    assert found["16"]["shrunk"]["nll"] < found["16"]["per-language"]["nll"]
    assert found["16"]["shrunk"]["languages"] == 8
    assert of_heads(items, counts=(16,), draws=2) == {"16": found["16"]}  # the same seed


def test_losses_of_all_methods_are_of_the_right_label() -> None:
    """Also of a histogram, which says nothing of the labels that were not given: they share the rest as before."""
    items = labels(400, 2.0)
    found = {m.key: m for m in calibrate({"eng": items, "deu": labels(400, 3.0, 1)}).methods}
    plain = softmax(items.scores, 1)
    every = np.arange(400)
    np.testing.assert_allclose(found["uncalibrated"].scored["eng"].nll, -np.log(plain[every, items.gold]))
    histogram = found["histogram"].scored["eng"]
    rest = plain[every, items.gold] / (1 - plain[every, items.answer])
    right = np.where(items.correct > 0, histogram.confidence, (1 - histogram.confidence) * rest)
    np.testing.assert_allclose(histogram.nll, -np.log(right))
    np.testing.assert_allclose(histogram.table.sum(1), 1)
    both = {"eng": items, "deu": labels(400, 3.0, 1)}
    section = summarise(both, calibrate(both).methods)
    rows = {key: method["languages"]["eng"] for key, method in section.items()}
    assert rows["pooled"]["accuracy_of_likeliest"] == rows["pooled"]["accuracy"] == items.correct.mean()
    table = found["vector"].scored["eng"].table
    assert rows["vector"]["accuracy_of_likeliest"] == (table.argmax(1) == items.gold).mean()


# --- what cannot be calibrated ---


def test_five_items_are_left_out_with_a_note() -> None:
    found = calibrate({"eng": labels(5, 1.0)})
    assert [m.key for m in found.methods] == ["uncalibrated"]
    assert any("temperature, zero-shot: " in note and "fewer than 30" in note for note in found.notes)
    assert any(note.startswith("per-language") for note in found.notes)
    section = summarise({"eng": labels(5, 1.0)}, found.methods)
    assert section["uncalibrated"]["overall"]["ece_ci"] is None  # five items have no interval


def test_a_language_with_too_few_gets_the_pooled_temperature_and_says_so() -> None:
    items = {"eng": labels(300, 2.0), "swh": labels(12, 2.0, 1)}
    found = calibrate(items)
    own = next(m for m in found.methods if m.key == "per-language")
    assert (own.scored["swh"].fallback, own.scored["eng"].fallback) == ("pooled", "")
    assert any("swh have fewer than 30 items" in note for note in found.notes)
    assert summarise(items, found.methods)["per-language"]["languages"]["swh"]["fallback"] == "pooled"
    assert "swh" not in found.kept["per-language"].languages


def test_one_class_only_has_no_auroc_and_a_note() -> None:
    items = labels(100, 2.0)
    right = replace(items, gold=items.answer.copy(), correct=np.ones(100))
    found = calibrate({"eng": right})
    assert any("every answer is right in eng" in note for note in found.notes)
    assert any("end of the search" in note for note in found.notes)
    assert summarise({"eng": right}, found.methods)["uncalibrated"]["languages"]["eng"]["auroc"] is None


def test_numbers_that_are_none_are_refused() -> None:
    task = tasks.get("sib200")
    rows = [SingleExample("a", "t", 0), SingleExample("b", "t", 1)]
    fine = np.zeros(7, np.float32)
    bad = np.array([0, np.nan, 0, 0, 0, 0, 0], np.float32)
    with pytest.raises(XtError, match="sib200, swh, example 'b': a logit is not a number"):
        outcomes(task, "swh", rows, [Prediction(0, fine, fine), Prediction(0, fine, bad)])
    with pytest.raises(XtError, match="2 examples and 1 answers"):
        outcomes(task, "swh", rows, [Prediction(0, fine, fine)])
    with pytest.raises(XtError, match="logits of answer 1 are not numbers"):
        classified([[0.0, 1], [np.inf, 0]], np.zeros(2, int), ids=["a", "b"], fold=np.zeros(2, int), correct=[1, 1])


# --- what is calibrated ---


def test_spans_have_the_product_of_their_words_and_are_right_as_a_whole() -> None:
    task = tasks.get("masakhaner")
    at = {name: place for place, name in enumerate(task.labels)}
    tags = ["B-PER", "I-PER", "O", "B-LOC"]
    gold = ["B-PER", "I-PER", "O", "B-ORG"]
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, len(task.labels))).astype(np.float32)
    value = tuple(at[t] for t in tags)
    example = TaggedExample("s", tuple("abcde"), (*(at[t] for t in gold), at["O"]))
    found = outcomes(task, "swh", [example], [Prediction((*value, -1), logits, logits)])
    assert found.left_out == {"words that were not read": 1}
    words, spans = found.items["words"], found.items["spans"]
    assert words.correct.tolist() == [1, 1, 1, 0]
    assert spans.correct.tolist() == [1, 0]
    log = log_softmax(logits.astype(float), 1)
    expected = [np.exp(log[0, value[0]] + log[1, value[1]]), np.exp(log[3, value[3]])]
    np.testing.assert_allclose(spans.confidence(spans.log_softmax()), expected)
    assert "spans" not in outcomes(tasks.get("udpos"), "deu", [], []).items


def test_answers_are_one_of_the_best_spans_or_none() -> None:
    task = tasks.get("squad-v2")
    row = np.full(N_BEST + 1, -np.inf, np.float32)
    row[:2], row[-1] = [3.0, 1.0], 2.0
    empty = np.where(np.arange(N_BEST + 1) == N_BEST, 5.0, row).astype(np.float32)
    examples = [QaExample("a", "the cat", "q", ("cat",), (4,)), QaExample("b", "x", "q", (), ())]
    answers = [Prediction("The cat!", row[[0, -1]], row), Prediction("", empty[[0, -1]], empty)]
    found = outcomes(task, "eng", examples, answers).items
    odds = np.exp([3.0, 1.0, 2.0])
    log = found["answers"].log_softmax()
    np.testing.assert_allclose(
        found["answers"].confidence(log), [odds[0] / odds.sum(), np.exp(5) / np.exp([3, 1, 5.0]).sum()]
    )
    assert found["answers"].correct.tolist() == [1, 1]
    none = found["no answer"]
    np.testing.assert_allclose(none.confidence(log)[0], odds[2] / odds.sum())
    assert none.correct.tolist() == [0, 1]
    nothing = np.full(N_BEST + 1, -np.inf, np.float32)
    left = outcomes(tasks.get("xquad"), "eng", [examples[0]], [Prediction("", nothing[:2], nothing)])
    assert (left.items, left.left_out) == ({}, {"questions whose context holds no span": 1})


def test_items_of_several_languages_are_put_together_as_they_are() -> None:
    one, two = labels(5, 1.0), labels(7, 1.0, 1, classes=3)
    both = pool([one, two])
    assert both.scores.shape == (12, CLASSES)
    np.testing.assert_allclose(both.take(np.arange(5, 12)).log_softmax()[:, :3], two.log_softmax())
    pooled = pool([events(4, 1.0), events(3, 1.0, 1)])
    assert pooled.owner.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    some = pooled.take(np.array([0, 0, 0, 0, 1, 0, 1], bool))
    np.testing.assert_allclose(LabelTemperature(2.0)(some), LabelTemperature(2.0)(pooled)[[4, 6]])


def test_many_words_are_measured_on_evenly_spaced_whole_sentences() -> None:
    items = labels(100, 1.0, ids=[str(n // 5) for n in range(100)])  # 20 sentences of 5 words
    some = head_fits.some_examples(items, 30)
    assert some.ids.tolist() == [str(n) for n in range(0, 20, 4) for _ in range(5)]
    assert head_fits.some_examples(items, 100) is items


class Scripted:
    """A head that answers with given logits."""

    def __init__(self, task, logits) -> None:
        self.tasks, self.entry, self.parent, self.logits = {task.name: task}, {"name": "s"}, {}, logits

    def temperature(self, task) -> float:
        return 1.0

    def answers(self, task, examples):
        rows = [self.logits[e.id, e.text] for e in examples]
        return [Prediction(int(row.argmax()), softmax(row).astype(np.float32), row.astype(np.float32)) for row in rows]


def test_a_classified_task_has_measured_methods_notes_and_probabilities_a_line(tmp_path) -> None:
    task = tasks.get("sib200")
    rng = np.random.default_rng(1)
    data, logits = {}, {}
    for code in ("eng", "deu", "swh"):
        items = labels(150, 2.0, len(data), classes=7)
        data[code] = [SingleExample(str(n), code, int(g)) for n, g in enumerate(items.gold)]
        logits |= {(str(n), code): row for n, row in enumerate(items.scores)}
    data["swh"][3] = replace(data["swh"][3], id="2")
    logits["2", "swh"] = rng.normal(size=7)
    result = classify(Scripted(task, logits), task, data)
    section = result.calibration["sib200"]
    assert section["fit_languages"] == ["eng"]
    zero = section["methods"]["zero-shot"]
    assert zero["overall"]["ece"] < section["methods"]["uncalibrated"]["overall"]["ece"]
    assert set(zero["by_resource"]) == {"high", "low"}
    assert {"ece_ci", "ece_null", "nll", "brier", "auroc", "aurc", "classwise_ece", "reliability"} <= set(
        zero["languages"]["swh"]
    )
    assert section["methods"]["per-language"]["overall"]["accuracy"] == zero["overall"]["accuracy"]
    assert set(section["shots"]) == {"16", "50", "100"}
    assert result.metrics["notes"] == ["swh: 1 examples have the id of another; each of them was scored"]
    assert [line["correct"] for line in result.predictions] == [
        line["gold"] == line["predicted"] for line in result.predictions
    ]
    line = result.predictions[200]
    assert 0 < line["p_zero-shot"] < max(line["probabilities"].values())
    json.dumps([result.calibration, result.predictions], allow_nan=False)
    kept = calibration_of_head(task, result)
    assert kept.temperature == zero["temperature"]
    assert kept.answers["labels"]["per-language"].languages.keys() == data.keys()
    write(tmp_path / "calibration.json", kept)
    assert read_temperature(tmp_path / "calibration.json", task) == zero["temperature"]  # what an export makes of it
    dev = data["eng"]
    separate = classify(Scripted(task, logits), task, {"swh": data["swh"]}, english=dev)
    assert separate.calibration["sib200"]["fitted_on"] == "English dev"
    assert classify(Scripted(task, logits), task, data, calibrate=False).calibration == {}
