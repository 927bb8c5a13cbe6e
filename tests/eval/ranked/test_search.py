"""Rankings are scored as trec_eval scores them, by formulas written out; faults of a collection are named.

Tests `eval/ranked/collection.py` as well.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from xt.calibration.search import fit_excluding
from xt.core.encoder.text import Encoded
from xt.core.errors import XtError
from xt.eval.ranked import search
from xt.eval.ranked.collection import Collection, Texts, read_beir
from xt.eval.ranked.search import cut_measures, interval, per_query, rank_collection, roles


def texts(names: str, code: str = "eng") -> Texts:
    return Texts.of([(n, f"text of {n}", code) for n in names.split()])


def collection(queries: str, documents: str, judged: dict[str, dict[str, int]], code: str = "eng") -> Collection:
    return Collection(texts(queries, code), texts(documents), judged, "here")


def by_hand(found: list[str], judged: dict[str, int]) -> dict[str, float]:
    """The measures from their definitions (Järvelin & Kekäläinen 2002 with trec_eval's linear gain)."""
    gains = [judged.get(d, 0) for d in found]
    ideal = sorted((g for g in judged.values() if g > 0), reverse=True)
    dcg, best = (sum(g / np.log2(i + 2) for i, g in enumerate(row[:10])) for row in (gains, ideal))
    hits = [g > 0 for g in gains]
    precisions = [sum(hits[: i + 1]) / (i + 1) for i in range(min(20, len(hits))) if hits[i]]
    first = next((i for i, hit in enumerate(hits[:10]) if hit), None)
    return {
        "nDCG@10": dcg / best,
        "R@100": sum(hits[:100]) / len(ideal),
        "RR@10": 0.0 if first is None else 1 / (first + 1),
        "AP@20": sum(precisions) / len(ideal),
    }


def test_measures_are_those_written_out_and_torchmetrics():
    from torchmetrics.functional.retrieval import retrieval_average_precision, retrieval_reciprocal_rank

    rng = np.random.default_rng(0)
    names = [f"d{i}" for i in range(130)]
    judged = {}
    for q in range(25):
        some = rng.choice(130, rng.integers(1, 9), replace=False)
        judged[f"q{q}"] = {names[i]: int(rng.integers(0, 3)) for i in some} | {names[some[0]]: 2}
    found = collection(" ".join(judged), " ".join(names), judged)
    places = np.stack([rng.permutation(130)[:100] for _ in judged])
    for q, query in enumerate(judged):  # so that the first places hold something
        places[q] = np.roll(places[q], 0)
        good = [names.index(d) for d in judged[query]]
        places[q, rng.integers(0, 12)] = good[0] if good[0] not in places[q] else places[q, 0]
        places[q] = list(dict.fromkeys(places[q].tolist())) + [-1] * (100 - len(set(places[q].tolist())))
    values = per_query(found, places, ["nDCG@10", "R@100", "RR@10", "AP@20"])
    for q, query in enumerate(judged):
        row = [names[p] for p in places[q] if p >= 0]
        for name, expected in by_hand(row, judged[query]).items():
            assert values[name][q] == pytest.approx(expected, abs=1e-9), (query, name)
        scores = torch.arange(len(row), 0, -1).float()
        target = torch.tensor([judged[query].get(d, 0) > 0 for d in row])
        assert values["RR@10"][q] == pytest.approx(float(retrieval_reciprocal_rank(scores, target, top_k=10)), abs=1e-6)
        all_there = sum(judged[query].get(d, 0) > 0 for d in row[:20]) == sum(g > 0 for g in judged[query].values())
        if all_there:  # torchmetrics divides by the relevant among the best 20, trec_eval by all that there are
            expected = float(retrieval_average_precision(scores, target, top_k=20))
            assert values["AP@20"][q] == pytest.approx(expected, abs=1e-6)
    assert values["nDCG@10"].max() > 0.3


def test_a_query_for_which_nothing_is_found_counts_zero_in_the_mean():
    found = collection("q1 q2", "d1 d2", {"q1": {"d1": 1}, "q2": {"d2": 1}})
    section, _ = search.score_collection(found, np.zeros((2, 2)), np.array([[0, 1], [-1, -1]]), ["AP@20"])
    assert section["languages"]["eng"]["AP@20"] == 0.5
    assert section["languages"]["eng"]["n"] == 2


def test_equal_scores_keep_the_order_in_which_they_were_found():
    found = collection("q", "a b c", {"q": {"c": 1}})
    assert per_query(found, np.array([[2, 0, 1]]), ["RR@10"])["RR@10"][0] == 1.0
    assert per_query(found, np.array([[0, 1, 2]]), ["RR@10"])["RR@10"][0] == pytest.approx(1 / 3)


class Meaning:
    """Vectors by the number in a text; remembers the prefixes asked for."""

    class Spec:
        prefixes = {"query": "query: ", "passage": "passage: "}

    spec = Spec()

    def __init__(self, dim: int = 40, noise: float = 0.2) -> None:
        rng = np.random.default_rng(0)
        self.base, self.noise, self.rng = rng.standard_normal((200, dim)), noise, rng
        self.asked: list[str | None] = []

    def encode(self, texts, *, prefix=None, truncate=False):
        self.asked.append(prefix)
        rows = np.stack([self.base[int(t.split()[0])] for t in texts])
        rows = rows + self.noise * self.rng.standard_normal(rows.shape)
        return Encoded(rows.astype(np.float32), np.ones(len(texts), np.int32), np.zeros(len(texts), bool))


def numbered(n: int = 120, codes: tuple[str, ...] = ("deu", "swh")) -> Collection:
    """Each question in each language, answered by a document in each."""
    queries = [(f"{i}-{c}", f"{i} question in {c}", c) for c in codes for i in range(n)]
    documents = [(f"{c}{i}", f"{i} answer in {c}", c) for c in codes for i in range(n)]
    judged = {name: {f"{c}{name.split('-')[0]}": 1 for c in codes} for name, _, _ in queries}
    return Collection(Texts.of(queries), Texts.of(documents), judged, "here", ("a note",))


def test_rows_by_language_of_the_query_with_intervals_and_prefixes():
    encoder = Meaning(noise=1.1)
    result = rank_collection(encoder, numbered(), names=["AP@20", "RR@10"])
    assert encoder.asked == ["passage", "query"]
    section = result.section
    assert section["prefixes"] == {"queries": "query", "documents": "passage"} and section["notes"] == ["a note"]
    assert list(section["languages"]) == ["deu", "swh"] and section["documents"] == 240
    for row in section["languages"].values():
        low, high = row["AP@20_ci"]
        assert low < row["AP@20"] < high and row["n"] == 120
    mean = np.mean([row["AP@20"] for row in section["languages"].values()])
    assert section["mean"]["AP@20"]["all"] == pytest.approx(mean) and 0.1 < mean < 0.95
    right = [p["correct"] for p in result.predictions if p["language"] == "deu"]
    assert section["languages"]["deu"]["accuracy"] == pytest.approx(np.mean(right))
    json.dumps([section, result.predictions], allow_nan=False)


def test_any_right_answer_counts_for_the_rankings_that_calibration_takes():
    result = rank_collection(Meaning(noise=1.1), numbered(), names=["AP@20"])
    ranking = result.rankings["deu"]
    names = [f"{c}{i}" for c in ("deu", "swh") for i in range(120)]
    for q in range(120):
        hits = [k for k, row in enumerate(ranking.rows[q]) if names[row] in (f"deu{q}", f"swh{q}")]
        assert ranking.gold[q] == (hits[0] if hits else -1)
    one, other = (result.rankings[c].folds for c in ("deu", "swh"))
    assert (one == other).all() and len(set(one)) == 5  # translations of a question share a fold
    fitted = fit_excluding([r.predictions(c, [str(q) for q in range(120)]) for c, r in result.rankings.items()], None)
    assert 0.001 < fitted.temperature < 1
    assert fitted(ranking.scores).sum(1) == pytest.approx(np.ones(120))


def test_intervals_are_those_of_scipys_bootstrap():
    from scipy.stats import bootstrap

    values = np.random.default_rng(0).random(300) ** 2
    theirs = bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert interval(values) == pytest.approx([theirs.low, theirs.high], abs=0.004)


def test_few_queries_have_no_interval_and_queries_without_a_right_document_are_refused():
    assert interval(np.ones(9)) is None and interval(np.arange(10.0)) is not None
    with pytest.raises(XtError, match="2 queries have no relevant document, 'q2' first"):
        collection("q1 q2 q3", "d1 d2", {"q1": {"d1": 1}, "q2": {"d2": 0}})


def test_measures_that_look_too_far_are_refused_or_cut_under_their_own_name():
    with pytest.raises(XtError, match=r"R@100 looks at 100 documents; there are 50") as error:
        cut_measures(["nDCG@10", "R@100"], 50, cut=False)
    assert "R@50" in error.value.hint and "--cut" in error.value.hint
    assert cut_measures(["nDCG@10", "R@100"], 50, cut=True) == ("nDCG@10", "R@50")
    result = rank_collection(Meaning(), numbered(20), cut=True)
    assert result.section["measures"] == ["nDCG@10", "R@40", "RR@10"]


def test_prefixes_are_found_behind_a_wrapper_and_default_without():
    class Wrapper:
        encoder = Meaning()

    assert roles(Wrapper()) == ("query", "passage")
    assert roles(object()) == (None, None)


def beir(folder, *, queries=None, qrels=None, corpus=None):
    documents = [{"_id": f"d{i}", "title": f"T{i}" if i % 2 else "", "text": f"{i} body"} for i in range(3)]
    asked = [{"_id": f"q{i}", "text": f"{i} question"} for i in range(3)]
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", corpus or documents), ("queries", queries or asked)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    lines = ["query-id\tcorpus-id\tscore", *(qrels or ["q0\td0\t2", "q0\td1\t0", "q1\td1\t1"])]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_beir_folder_is_read_with_titles_and_only_judged_queries(tmp_path):
    found = read_beir(beir(tmp_path / "x"))
    assert found.documents.texts == ("0 body", "T1 1 body", "2 body")
    assert found.queries.ids == ("q0", "q1") and found.queries.languages == ("und", "und")
    assert found.judgements == {"q0": {"d0": 2, "d1": 0}, "q1": {"d1": 1}}
    assert found.notes == ("1 of 3 queries left out: test judges no document relevant to them",)
    asked = [
        {"_id": "q0", "text": "0 swali", "language": "sw"},
        {"_id": "q1", "text": "x", "metadata": {"language": "de"}},
    ]
    assert read_beir(beir(tmp_path / "y", queries=asked)).queries.languages == ("swh", "deu")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"qrels": ["q9\td0\t1"]}, "1 judged queries are not among the queries, 'q9' first|there are no queries"),
        ({"qrels": ["q0\td0\t1", "q9\td0\t1"]}, "1 judged queries are not among the queries, 'q9' first"),
        ({"qrels": ["q0\td9\t1"]}, "1 judgements name documents that are not there, 'd9' first"),
        ({"qrels": ["q0\td0\t1", "q0\td0\t1"]}, r"test\.tsv, line 3: this document is judged twice"),
        ({"qrels": ["q0\td0\tyes"]}, r"line 2: 'yes' is no whole number"),
        ({"qrels": ["q0\td0\t0"]}, "there are no queries"),
        ({"corpus": [{"_id": "d0", "text": "a"}, {"_id": "d0", "text": "b"}, {"_id": "d1", "text": "c"}]}, r"line 2: .*corpus\.jsonl, line 1 has the id 'd0' already"),
        ({"queries": [{"_id": "q0", "text": "a"}, {"_id": "q0", "text": "b"}, {"_id": "q1", "text": "c"}]}, r"line 2: .*queries\.jsonl, line 1 has the id 'q0' already"),
        ({"corpus": [{"_id": "d0", "title": " ", "text": ""}]}, r"holds no text(?s:.)*title and text left out \(the first: .*line 1\)"),
        ({"corpus": [{"name": "d0", "text": "a"}]}, r"corpus\.jsonl, line 1 has no id \(found: name, text\)"),
        ({"queries": [{"_id": "q0", "text": " "}]}, r"queries\.jsonl, line 1: the query is empty"),
    ],
)  # fmt: skip
def test_faults_of_a_beir_folder_are_named(tmp_path, parts, message):
    with pytest.raises(XtError, match=message):
        read_beir(beir(tmp_path / "x", **parts))


def test_missing_files_of_a_beir_folder_are_named(tmp_path):
    (beir(tmp_path / "x") / "qrels" / "test.tsv").unlink()
    with pytest.raises(XtError, match=r"lacks qrels.test\.tsv"):
        read_beir(tmp_path / "x")


def test_a_document_that_is_the_query_itself_is_left_out_of_its_ranking():
    both = Texts.of([("a", "0 x", "eng"), ("b", "1 y", "eng")])
    documents = Texts.of([("a", "0 x", "eng"), ("b", "1 other", "eng"), ("c", "0 z", "eng")])
    found = Collection(both, documents, {"a": {"c": 1}, "b": {"b": 1}}, "here")
    result = rank_collection(Meaning(noise=0.0), found, names=["RR@10"], cut=True)
    assert result.section["languages"]["eng"]["RR@3"] == 1.0
    assert result.rankings["eng"].rows[0].tolist() == [2, 1, -1]  # a is not its own answer, b stays: its text differs
    assert 1 in result.rankings["eng"].rows[1]
