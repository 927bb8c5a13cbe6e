"""However little there is to evaluate, the report is written, and what could not be fitted is named in it."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest

from xt.calibration import heads as calibration
from xt.calibration import shots
from xt.calibration.heads import folds_of
from xt.calibration.predictions import classified
from xt.cli.console import REPORTER
from xt.cli.evaluate.show import show_report
from xt.core.data.bitext import Bitext
from xt.core.data.corpus import Corpus
from xt.core.encoder.text import Encoded
from xt.core.results.folder import read_document
from xt.core.results.report import Encoder
from xt.eval.heads.classify import summarise
from xt.eval.mining.run import evaluate_mined
from xt.eval.options import CalibrationOptions, TaskRequest
from xt.eval.ranked.calibration import calibrate as calibrate_ranked
from xt.eval.ranked.run import evaluate_ranked
from xt.eval.ranked.search import Ranked
from xt.eval.retrieval.ranking import Ranking
from xt.eval.retrieval.run import evaluate_corpus
from xt.serve.encoders import OpenedEncoder

DIM = 32
NAMED = ("zero-shot", "pooled", "predicted", "per-language", "shrunk", "platt", "isotonic", "histogram", "beta")


class Vectors:
    """An encoder of texts `<language> <number>`: what has one number means the same, as far as `kind` says."""

    def __init__(self, kind="noisy"):
        self.kind = kind

    def vector(self, text):
        language, number = text.split()[:2]
        meaning = np.random.default_rng(int(number)).normal(size=DIM)
        if self.kind == "noisy":
            return meaning + 1.2 * np.random.default_rng(zlib.crc32(text.encode())).normal(size=DIM)
        if self.kind == "all right" or language == "eng":
            return np.ones(DIM) if self.kind == "all equal" else meaning
        if self.kind == "all wrong":
            return np.random.default_rng(int(number) + 1).normal(size=DIM)
        return np.ones(DIM) if self.kind == "all equal" else np.zeros(DIM)

    def encode(self, texts, *, prefix=None, truncate=False):
        vectors = np.array([self.vector(t) for t in texts], np.float32)
        return Encoded(vectors, np.full(len(texts), 3), np.zeros(len(texts), bool))


ENTRY = Encoder(name="tiny", label="tiny", provenance="", precision="fp32", engine="none", dim=DIM)


def corpus_of(sizes):
    pairs = [
        Bitext(code, tuple(f"{code} {i}" for i in range(n)), tuple(f"eng {i}" for i in range(n)))
        for code, n in sizes.items()
    ]
    return Corpus("small", "small", "made here", "none", tuple(pairs))


def request(out, name="small"):
    return TaskRequest(name, "bitext", out)


def evaluated(tmp_path, capsys, sizes, kind="noisy", **asked):
    """Evaluate as `xt eval` does: metrics.json, the page and what was printed."""
    opened, out = OpenedEncoder(Vectors(kind), ENTRY, 0.05), tmp_path / "report"
    calibration = CalibrationOptions(**asked)
    show_report(evaluate_corpus(opened, corpus_of(sizes), request(out), calibration=calibration, reporter=REPORTER))
    return *written(out), " ".join(capsys.readouterr().err.split())


def written(out):
    assert (out / "xt.json").is_file()
    json.loads((out / "metrics.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    return read_document(out), (out / "report.html").read_text()


def plain(note):
    return note.replace("&", "&amp;").replace('"', "&quot;").replace("'", "&#x27;").replace("<", "&lt;")


SIZES = {
    "one pair": {"swh": 1},
    "two pairs of a source": {"deu": 2},
    "three pairs each": {"deu": 3, "swh": 3},
    "five pairs each": {"swh": 5, "urd": 5},
    "three languages of twenty": {"deu": 20, "fra": 20, "swh": 20},
    "twenty of no source": {"swh": 20, "urd": 20, "x-made-up": 20},
    "a small source beside a large language": {"deu": 5, "swh": 62},
    "five languages": {"deu": 9, "fra": 1, "spa": 2, "swh": 4, "urd": 5},
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_every_fit_that_is_missing_is_named_in_the_report(tmp_path, capsys, sizes):
    metrics, page, said = evaluated(tmp_path, capsys, sizes, shots=(16,))
    (entry,) = metrics["encoders"]
    for direction, section in entry["calibration"].items():
        assert set(section["methods"]) >= {"cosine", "training"}
        assert all(set(m["languages"]) == set(sizes) for m in section["methods"].values())
        notes = section["notes"]
        for name in NAMED:
            assert name in section["methods"] or any(name in note for note in notes), (direction, name, notes)
        for name, found in (("none of these", "none_of_these"), ("sets, per-language", "conformal")):
            scopes = entry.get(found, {}).get(direction, {})
            assert scopes or any(note.startswith(name) for note in notes), (direction, name, notes)
        assert all(plain(note) in page for note in notes)
        assert all(" ".join(note.split()) in said for note in notes)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["all right", "all wrong", "all equal", "all zero"])
@pytest.mark.parametrize("sizes", [{"swh": 3}, {"deu": 34, "swh": 34}], ids=["three", "sixty-eight"])
def test_answers_that_are_all_alike_end_in_a_report(tmp_path, capsys, kind, sizes):
    metrics, _, _ = evaluated(tmp_path, capsys, sizes, kind)
    for section in metrics["encoders"][0]["calibration"].values():
        assert all(m in section["methods"] or any(m in n for n in section["notes"]) for m in NAMED)


def test_a_scope_that_was_asked_for_and_is_too_small_is_a_note(tmp_path, capsys):
    metrics, page, said = evaluated(tmp_path, capsys, {"deu": 5, "swh": 10}, calibrate_on="zero-shot")
    notes = metrics["encoders"][0]["calibration"]["foreign-english"]["notes"]
    assert "platt, isotonic, histogram, beta: the corpus has too few queries to fit them on zero-shot" in notes
    assert all(plain(n) in page and n in said for n in notes)


def test_a_pool_larger_than_every_language_is_a_note(tmp_path, capsys):
    opened = OpenedEncoder(Vectors(), ENTRY)
    show_report(evaluate_corpus(opened, corpus_of({"swh": 5}), request(tmp_path / "r"), pool=50, reporter=REPORTER))
    metrics, page = written(tmp_path / "r")
    (note,) = metrics["notes"]
    assert note == "no language has 50 candidates: no accuracy in pools of one size"
    assert note in page and note in capsys.readouterr().err


# --- mining ---


def mining_folder(folder, languages):
    """BUCC's layout: `number` pairs of each part, of which the gold file names `gold`."""
    folder.mkdir()
    for code, (number, gold) in languages.items():
        for part, start in (("dev", 0), ("test", 500)):
            for side, label in ((code, code), ("en", "eng")):
                lines = [f"{side}-{i}\t{label} {i + start}\n" for i in range(number)]
                (folder / f"{code}-en.{part}.{side}").write_text("".join(lines))
            pairs = "".join(f"{code}-{i}\ten-{i}\n" for i in range(gold))
            (folder / f"{code}-en.{part}.gold").write_text(pairs)
    return folder


MINED = {
    "beside one that works": ({"de": (30, 20), "fr": (3, 3), "ru": (30, 0)}, "all right", ["deu"]),
    "none at all": ({"fr": (4, 4)}, "all right", []),
    "no right pair": ({"de": (30, 5)}, "all wrong", []),
    "no gold pair": ({"ru": (30, 0)}, "all right", []),
    "equal vectors": ({"de": (30, 5)}, "all equal", []),
    "vectors of zeros": ({"de": (30, 5)}, "all zero", []),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("languages", "kind", "mined"), MINED.values(), ids=MINED)
def test_a_language_that_cannot_be_mined_is_left_out_by_name(tmp_path, capsys, languages, kind, mined):
    folder = mining_folder(tmp_path / "texts", languages)
    opened = OpenedEncoder(Vectors(kind), ENTRY)
    show_report(evaluate_mined(opened, request(tmp_path / "r", f"mine:{folder}"), reporter=REPORTER))
    metrics, page = written(tmp_path / "r")
    section, said = metrics["mining"], capsys.readouterr().err
    assert list(section["languages"]) == mined
    assert {*section["left_out"], *mined} == {{"de": "deu", "fr": "fra", "ru": "rus"}[c] for c in languages}
    assert len(section["notes"]) == len(section["left_out"])
    assert all(plain(n) in page and " ".join(n.split()) in " ".join(said.split()) for n in section["notes"])


# --- ranked retrieval ---


def beir(folder, documents, judged, queries=()):
    (folder / "qrels").mkdir(parents=True)
    rows = [json.dumps({"_id": name, "title": "", "text": text}) for name, text in documents.items()]
    (folder / "corpus.jsonl").write_text("\n".join(rows) + "\n")
    rows = [json.dumps({"_id": q, "text": dict(queries).get(q, f"swh {q[1:]}"), "language": "swh"}) for q in judged]
    (folder / "queries.jsonl").write_text("\n".join(rows) + "\n")
    lines = "".join(f"{q}\t{d}\t1\n" for q, found in judged.items() for d in found)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)
    return folder


RANKED = {
    "one query, one document": ({"d0": "eng 0"}, {"q0": ["d0"]}),
    "one query": ({f"d{i}": f"eng {i}" for i in range(5)}, {"q0": ["d0", "d1"]}),
    "twenty queries, one document": ({"d0": "eng 0"}, {f"q{i}": ["d0"] for i in range(20)}),
    "twenty queries": ({f"d{i}": f"eng {i}" for i in range(20)}, {f"q{i}": [f"d{i}"] for i in range(20)}),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["noisy", "all right", "all wrong", "all equal", "all zero"])
@pytest.mark.parametrize(("documents", "judged"), RANKED.values(), ids=RANKED)
def test_a_ranking_of_next_to_nothing_is_reported(tmp_path, capsys, documents, judged, kind):
    folder = beir(tmp_path / "small", documents, judged)
    opened = OpenedEncoder(Vectors(kind), ENTRY, 0.05)
    show_report(evaluate_ranked(opened, request(tmp_path / "r", f"beir:{folder}"), cut=True, reporter=REPORTER))
    metrics, page = written(tmp_path / "r")
    section, said = metrics["encoders"][0]["calibration"]["queries-documents"], capsys.readouterr().err
    assert set(section["methods"]) == {"cosine", "training"}
    for name in ("zero-shot", "pooled", "per-language", "shrunk", "platt"):
        assert any(name in n for n in section["notes"])
    assert all(plain(n) in page and " ".join(n.split()) in " ".join(said.split()) for n in section["notes"])


def test_a_language_whose_query_has_no_document_to_compare_is_named_and_the_others_are_calibrated():
    def one(first):
        scores = np.array([[0.9, 0.8], [first, -np.inf]], np.float32)
        return Ranking(scores, np.zeros((2, 2), int), np.zeros(2, int), np.arange(2), 2)

    predictions = [{"language": code, "id": "q", "correct": True} for code in ("swh", "swh", "urd", "urd")]
    for found, expected in (({"swh": one(-np.inf), "urd": one(0.5)}, ["urd"]), ({"swh": one(-np.inf)}, [])):
        result = Ranked({}, [p for p in predictions if p["language"] in found], found)
        calibrated = calibrate_ranked(result, 0.05)
        section = calibrated.section["queries-documents"]
        assert section["notes"][0] == "not calibrated: swh: a query has no document to be compared with"
        assert [list(m["languages"]) for m in section["methods"].values()] == [expected] * len(section["methods"])
        assert ["probability" in p for p in calibrated.predictions] == [
            p["language"] in expected for p in result.predictions
        ]


# --- heads ---


def items(n, kind, labels, seed):
    random = np.random.default_rng(seed)
    logits = np.zeros((n, 3)) if kind == "all equal" else random.normal(size=(n, 3))
    chosen = logits.argmax(1)
    gold = {"all right": chosen, "all wrong": (chosen + 1) % 3, "one label": np.zeros(n, int)}
    right = gold.get(kind, random.integers(0, 3, n))
    ids = [str(i) for i in range(n)]
    known = {"gold": right} if labels else {"correct": chosen == right}
    return classified(logits, chosen, ids=ids, fold=folds_of(ids), labels=labels, **known)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("kind", ["mixed", "all right", "all wrong", "all equal", "one label"])
def test_heads_are_calibrated_as_far_as_their_examples_go(kind, labels):
    for sizes in (
        {"eng": 1},
        {"deu": 1, "swh": 2},
        {"eng": 20},
        {"eng": 3, "swh": 45},
        {"deu": 45, "fra": 45, "swh": 5},
    ):
        given = {code: items(n, kind, labels, i) for i, (code, n) in enumerate(sizes.items())}
        found = calibration.calibrate(given)
        rows = summarise(given, found.methods, repeats=5)
        assert json.loads(json.dumps(rows, allow_nan=False)) == rows
        shots.of_heads(given, draws=1)
        keys = [method.key for method in found.methods]
        for key in ("zero-shot", "pooled", "per-language", "shrunk"):
            word = "English" if key == "zero-shot" else key
            one = len(sizes) == 1 and key == "pooled" and "eng" in sizes  # that is the zero-shot one
            assert one or key in keys or any(word in n or key in n for n in found.notes), (sizes, key, found.notes)
