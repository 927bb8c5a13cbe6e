"""Readers: real published files with counts found by another parse, and planted bad rows named by file and line.

Tests `core/data/readers/discover.py`, `core/data/readers/formats.py`, `core/data/readers/published.py` and
`core/data/readers/rows.py` as well.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from xt.core.data import tasks
from xt.core.data.examples import (
    CaptionExample,
    ChoiceExample,
    PairExample,
    QaExample,
    ReadLog,
    ScoredExample,
    SingleExample,
    TaggedExample,
    TextExample,
    TupleExample,
)
from xt.core.data.readers.discover import discover_labels
from xt.core.data.readers.layouts import LAYOUTS, read_file, read_rows
from xt.core.data.readers.published import ccg_labels
from xt.core.data.tasks import Hub, Task
from xt.core.errors import XtError

NLI = ("entailment", "neutral", "contradiction")
UPOS = "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split()
NER = ("O", *(f"{b}-{kind}" for kind in ("PER", "ORG", "LOC", "DATE") for b in "BI"))


def task(format: str, *labels: str, fields: tuple[str, ...] = (), layout: str = "xt", hub: Hub | None = None) -> Task:
    return Task("t", "intermediate", format, "", labels, "", "accuracy", "", "", fields=fields, layout=layout, hub=hub)


def read(row: Task, path: Path, **options) -> tuple[list, ReadLog]:
    log = ReadLog()
    found = list(read_file(row, path, log, **options))
    assert log.read == len(found)
    return found, log


def clean(row: Task, path: Path, **options) -> list:
    found, log = read(row, path, **options)
    assert (log.unusable, log.unlabelled, log.first) == (0, 0, [])
    return found


def write(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str | bytes) else json.dumps(row) for row in rows]
    path.write_bytes(b"".join((x if isinstance(x, bytes) else x.encode()) + b"\n" for x in lines))
    return path


# --- real files ---------------------------------------------------------------------------------------------------------


def test_sick_gives_judgment_and_relatedness(data_dir: Path):
    path = data_dir / "english" / "SICK.txt"
    lines = path.read_text().splitlines()[1:]
    pairs = clean(task("pair", *NLI), path, layout="sick")
    scores = clean(task("regression"), path, layout="sick")
    assert len(pairs) == len(scores) == len(lines) == 9927
    assert [NLI.index(line.split("\t")[4].lower()) for line in lines] == [pair.label for pair in pairs]
    assert sum(s.score for s in scores) == pytest.approx(sum(float(line.split("\t")[3]) for line in lines))
    assert pairs[0] == PairExample(
        "1",
        "A group of kids is playing in a yard and an old man is standing in the background",
        "A group of boys in a yard is playing and a man is standing in the background",
        1,
    )
    assert scores[0].score == 4.5 and isinstance(scores[0], ScoredExample)


@pytest.mark.parametrize(("split", "count", "entailed"), [("train", 2490, 1249), ("dev", 277, 146)])
def test_rte(data_dir: Path, split: str, count: int, entailed: int):
    rows = clean(task("pair", "entailment", "not_entailment"), data_dir / f"english/RTE.{split}.tsv", layout="glue-tsv")
    assert len(rows) == count and sum(row.label == 0 for row in rows) == entailed
    first = {
        "train": ("0", "No Weapons of Mass Destruction Found in Iraq Yet.", 1),
        "dev": ("0", "Dana Reeve, the widow of the actor Christopher Reeve, has died of lung cancer at age 44, "
                "according to the Christopher Reeve Foundation.", 1),
    }  # fmt: skip
    assert (rows[0].id, rows[0].first, rows[0].label) == first[split]


def test_mrpc_keeps_quotation_marks_and_knows_the_byte_order_mark(data_dir: Path):
    labels = ("not_paraphrase", "paraphrase")
    for name, ones in (("train", 2753), ("test", 1147)):
        path = data_dir / "english" / f"MRPC.{name}.txt"
        rows = clean(task("pair", *labels), path, layout="mrpc")
        assert len(rows) == path.read_bytes().count(b"\r\n") - 1
        assert sum(row.label for row in rows) == ones
        assert sum('"' in row.first for row in rows) == sum(
            '"' in line.split("\t")[3] for line in path.read_text("utf-8-sig").splitlines()[1:]
        )
        if name == "train":
            assert rows[0].first == (
                'Amrozi accused his brother, whom he called "the witness", of deliberately distorting his evidence.'
            )
            assert rows[0].id == "MRPC.train.txt:2"
        assert not rows[-1].second.endswith("\r")


def test_cosmosqa(data_dir: Path):
    path = data_dir / "english" / "cosmosqa.valid.csv"
    rows = clean(task("choice"), path, layout="cosmosqa")
    with path.open(newline="", encoding="utf-8") as file:
        expected = list(csv.DictReader(file))
    assert len(rows) == len(expected) == 2985
    for row, want in zip(rows, expected, strict=True):
        assert row.prompt == want["context"] + " " + want["question"]
        assert row.choices == (want["answer0"], want["answer1"], want["answer2"], want["answer3"])
        assert (row.label, row.id) == (int(want["label"]), want["id"])


def test_commonsenseqa(data_dir: Path):
    path = data_dir / "english" / "commonsenseqa.dev.jsonl"
    rows = clean(task("choice"), path, layout="commonsenseqa")
    assert len(rows) == path.read_bytes().count(b"\n") == 1221
    twins = [row for row in rows if row.choices.count(row.choices[row.label]) > 1]
    assert len(twins) == 6 and twins[0].choices[0] == twins[0].choices[3] == "indestructible"
    assert rows[0].choices == ("bank", "library", "department store", "mall", "new york") and rows[0].label == 0
    assert [("ABCDE"[row.label]) for row in rows] == re.findall(r'"answerKey": "([A-E])"', path.read_text())


def test_xquad_answers_stand_in_the_context(data_dir: Path):
    files = sorted((data_dir / "xquad").glob("*.json"))
    assert len(files) == 12
    for path in files:
        rows = clean(task("qa"), path, layout="squad")
        assert len(rows) == path.read_text().count('"answer_start"') == 1190
        for row in rows:
            assert row.answers and all(
                row.context[start:].startswith(text) for text, start in zip(row.answers, row.starts, strict=True)
            )
    english = clean(task("qa"), data_dir / "xquad/xquad.en.json", layout="squad")
    assert english[0].question == "How many points did the Panthers defense surrender?"
    assert (english[0].answers, english[0].starts) == (("308",), (34,))


def test_xcopa(data_dir: Path):
    files = sorted((data_dir / "xcopa").glob("*/*.jsonl"))
    assert len(files) == 22
    for path in files:
        rows = clean(task("choice"), path, layout="xcopa")
        assert len(rows) == (100 if path.name.startswith("val") else 500)
        assert [row.label for row in rows] == [int(x) for x in re.findall(r'"label": (\d)', path.read_text())]
    rows = clean(task("choice"), data_dir / "xcopa/et/test.et.jsonl", layout="xcopa")
    assert rows[:2] == [
        ChoiceExample("0", "Ese oli mullikilesse mässitud. What was the cause?", ("See oli õrn.", "See oli väike."), 0),
        ChoiceExample(
            "1",
            "Ma tühjendasin oma taskud. What was the effect?",
            ("Ma leidsin pileti tüki.", "Ma leidsin relva."),
            0,
        ),
    ]


def test_sib200(data_dir: Path):
    names = (data_dir / "sib200/eng_Latn/labels.txt").read_text().split()
    folders = sorted(path.parent for path in (data_dir / "sib200").glob("*/train.tsv"))
    assert len(folders) == 53
    for folder in folders:
        counts = {split: len(clean(task("single", *names), folder / f"{split}.tsv", layout="sib200")) for split in
                  ("train", "dev", "test")}  # fmt: skip
        assert counts == {"train": 701, "dev": 99, "test": 204}, folder
    path = data_dir / "sib200/hun_Latn/dev.tsv"
    assert discover_labels("single", [path], "sib200") == tuple(sorted(names))
    quoted = [row for row in clean(task("single", *names), path, layout="sib200") if row.id == "219"]
    assert quoted[0].text.startswith('"A 2004-es olimpiai ezüstérmes Amir Khant idézve: ""Legbelül')


def test_universal_dependencies(data_dir: Path):
    files = sorted((data_dir / "udpos").glob("*.conllu"))
    assert len(files) == 7
    for path in files:
        found, log = read(task("tagging", *UPOS), path, layout="conllu")
        text = path.read_text(encoding="utf-8")
        words = re.findall(r"^\d+\t([^\t]*)\t[^\t]*\t(\w+)\t", text, re.M)
        assert log.unusable == 0 and len(found) == len(re.findall(r"^# sent_id", text, re.M))
        assert [(w, UPOS[t]) for row in found for w, t in zip(row.words, row.labels, strict=True)] == words
    yoruba = clean(task("tagging", *UPOS), data_dir / "udpos/yo_ytb-ud-test.conllu", layout="conllu")
    assert yoruba[0].id == "GEN_1.1" and yoruba[0].words[:3] == ("Ní", "ìbẹ̀rẹ̀", "ohun")
    assert [UPOS[label] for label in yoruba[0].labels[:4]] == ["ADP", "NOUN", "NOUN", "DET"]


def test_masakhaner(data_dir: Path):
    files = sorted((data_dir / "masakhaner").glob("*/*.txt"))
    assert len(files) == 12
    for path in files:
        rows = clean(task("tagging", *NER), path, layout="conll")
        blocks = [block for block in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")) if block.strip()]
        assert len(rows) == len(blocks)
        tokens = [tuple(line.rsplit(" ", 1)) for block in blocks for line in block.strip("\n").split("\n")]
        assert [(w, NER[i]) for row in rows for w, i in zip(row.words, row.labels, strict=True)] == tokens
    assert discover_labels("tagging", [data_dir / "masakhaner/swa/dev.txt"], "conll") == tuple(sorted(NER))


# --- what comes with xt ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "count"), [("nli", 216), ("paraphrase", 210), ("choice", 208), ("qa", 208)])
def test_the_samples(name: str, count: int):
    sample = tasks.get(f"sample-{name}")
    rows = [json.loads(line) for line in sample.path.read_text(encoding="utf-8").splitlines()]
    train, dev = (clean(sample, sample.path, layout="xt", split=split) for split in ("train", "dev"))
    assert len(train) + len(dev) == len(clean(sample, sample.path, layout="xt")) == len(rows) == count
    assert [row.id for row in dev] == [row["id"] for row in rows if row["split"] == "dev"]


# --- one small file of each layout ----------------------------------------------------------------------------------------

OWN = {
    "pair": ({"first": "a", "second": "b", "label": "yes"}, PairExample("f:1", "a", "b", 0)),
    "single": ({"id": "x", "text": "a", "label": "no"}, SingleExample("x", "a", 1)),
    "regression": ({"first": "a", "second": "b", "score": 2}, ScoredExample("f:1", "a", "b", 2.0)),
    "choice": ({"prompt": "p", "choices": ["a", "b"], "label": 1}, ChoiceExample("f:1", "p", ("a", "b"), 1)),
    "qa": (
        {"context": "a b a", "question": "q", "answers": ["a", "a"], "starts": [0, 4]},
        QaExample("f:1", "a b a", "q", ("a", "a"), (0, 4)),
    ),
    "tagging": ({"words": ["a", "b"], "labels": ["no", "yes"]}, TaggedExample("f:1", ("a", "b"), (1, 0))),
    "contrastive": ({"anchor": "a", "positive": "b"}, TupleExample("f:1", "a", "b", None)),
    "mlm": ({"text": "a"}, TextExample("f:1", "a")),
    "image-text": ({"image": 3, "text": "a", "language": "deu"}, CaptionExample("f:1", "a", 3, "deu")),
}
TABLES = {
    "pair": "first\tsecond\tlabel\na\tb\tyes\n",
    "single": "id\ttext\tlabel\nx\ta\tno\n",
    "regression": "first\tsecond\tscore\na\tb\t2.0\n",
    "choice": "prompt\tchoice0\tchoice1\tlabel\np\ta\tb\t1\n",
    "tagging": "words\tlabels\na b\tno yes\n",
    "contrastive": "anchor\tpositive\tnegative\na\tb\t\n",
    "mlm": "text\na\n",
    "image-text": "image\ttext\tlanguage\n3\ta\tdeu\n",
}


@pytest.mark.parametrize("format", OWN)
def test_own_layout(format: str, tmp_path: Path):
    row, want = OWN[format]
    labels = ("yes", "no") if format in ("pair", "single", "tagging") else ()
    path = write(tmp_path / "f.jsonl", row)
    renamed = type(want)(**{**vars(want), "id": want.id.replace("f:1", "f.jsonl:1")})
    assert clean(task(format, *labels), path) == [renamed]
    if format in TABLES:
        path = tmp_path / "f.tsv"
        path.write_text(TABLES[format])
        renamed = type(want)(**{**vars(want), "id": want.id.replace("f:1", "f.tsv:2")})
        assert clean(task(format, *labels), path) == [renamed]
    assert len(OWN) == 9 and set(TABLES) == set(OWN) - {"qa"}


def test_own_layout_with_one_answer_and_hard_negatives(tmp_path: Path):
    qa = write(tmp_path / "q.jsonl", {"context": "c d", "question": "q", "answer": "d", "answer_start": 2})
    assert clean(task("qa"), qa) == [QaExample("q.jsonl:1", "c d", "q", ("d",), (2,))]
    three = write(tmp_path / "c.jsonl", {"anchor": "a", "positive": "b", "negative": "n"})
    assert clean(task("contrastive"), three)[0].negative == "n"


def test_rows_without_a_split_belong_to_each(tmp_path: Path):
    path = tmp_path / "s.tsv"
    path.write_text("text\tsplit\na\ttrain\nb\t\nc\tdev\n")
    assert [row.text for row in clean(task("mlm"), path, split="dev")] == ["b", "c"]


def test_squad(tmp_path: Path):
    def question(id: str, *answers: tuple[str, int], **more) -> dict:
        found = [{"text": text, "answer_start": start} for text, start in answers]
        return {"id": id, "question": "Who?", "answers": found, **more}

    context = "On Monday  Ada met Grace and 20 others."
    asked = [
        question("exact", ("Ada", 11), ("Ada met Grace", 11)),
        question("near", ("Ada", 9)),
        question("space", (" Grace", 19)),
        question("far", ("others", 2)),
        question("absent", ("Alan", 11)),
        question("none"),
        question("impossible", is_impossible=True, plausible_answers=[{"text": "Ada", "answer_start": 11}]),
    ]
    document = {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": asked}]}]}
    path = write(tmp_path / "s.json", document)
    found, log = read(task("qa"), path, layout="squad")
    assert [(row.id, row.answers, row.starts) for row in found] == [
        ("exact", ("Ada", "Ada met Grace"), (11, 11)),
        ("near", ("Ada",), (11,)),
        ("space", ("Grace",), (19,)),
        ("impossible", (), ()),
    ]
    assert log.unusable == 3 and log.first[0].startswith(f"{path}, line 4: answer 'others' is not in the context")
    write(path, {**document, "version": "v2.0"})
    assert "none" in [row.id for row in read(task("qa"), path, layout="squad")[0]]


def test_glue_tables_of_other_tasks(tmp_path: Path):
    path = tmp_path / "x.tsv"
    path.write_text('id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n7\t1\t2\t"Why\tHow?"\t1\n')
    assert clean(task("pair", "no", "yes"), path, layout="glue-tsv") == [PairExample("7", '"Why', 'How?"', 1)]
    path.write_text("index\tsentence1\tsentence2\tlabel1\tgold_label\n0\ta\tb\tneutral\tEntailment\n1\ta\tb\tx\t-\n")
    found, log = read(task("pair", *NLI), path, layout="glue-tsv")
    assert found == [PairExample("0", "a", "b", 0)] and (log.unlabelled, log.unusable) == (1, 0)
    path.write_text("left\tright\tsentence1\tsentence2\tlabel\nl\tr\ta\tb\t0\n")
    row = clean(task("pair", *NLI, fields=("left", "right")), path, layout="glue-tsv")[0]
    assert (row.first, row.second) == ("l", "r")


def test_a_language_is_picked_where_rows_name_it(tmp_path: Path):
    path = tmp_path / "xnli.tsv"
    rows = [f"{code}\tneutral\tone {code}\ttwo" for code in ("ar", "de", "sw", "de")]
    path.write_text("\n".join(["language\tgold_label\tsentence1\tsentence2", *rows]) + "\n")
    xnli = task("pair", *NLI)
    for code in ("de", "deu"):
        assert [row.first for row in clean(xnli, path, layout="glue-tsv", language=code)] == ["one de"] * 2
    assert len(clean(xnli, path, layout="glue-tsv")) == 4
    with pytest.raises(XtError, match="no row in language 'fra'(?s:.)*ar, de, sw"):
        read(xnli, path, layout="glue-tsv", language="fra")


def test_nli_jsonl(tmp_path: Path):
    path = write(
        tmp_path / "n.jsonl",
        {"uid": "u", "context": "a", "hypothesis": "b", "label": "c", "reason": ""},
        {"pairID": "p", "sentence1": "a", "sentence2": "b", "gold_label": "neutral", "annotator_labels": ["x"]},
        {"pairID": "q", "sentence1": "a", "sentence2": "b", "gold_label": "-"},
    )
    found, log = read(task("pair", *NLI), path, layout="nli-jsonl")
    assert found == [PairExample("u", "a", "b", 2), PairExample("p", "a", "b", 1)]
    assert (log.unlabelled, log.unusable) == (1, 0)
    log.check("t")


def test_hellaswag(tmp_path: Path):
    ends = ["runs.", "sits.", "eats.", "flies."]
    path = write(
        tmp_path / "h.jsonl",
        {"ind": 4, "ctx_a": "A man.", "ctx_b": "he", "ctx": "A man. he", "endings": ends, "label": 2},
        {"ind": 5, "ctx_a": "A man.", "ctx_b": "", "ctx": "A man.", "endings": ends, "label": "1"},
        {"ctx": "A man. he", "endings": ends, "label": 0},
        {"ctx_a": "A man.", "ctx_b": "he", "endings": ends},
    )
    found, log = read(task("choice"), path, layout="hellaswag")
    assert found[0] == ChoiceExample("4", "A man.", ("he runs.", "he sits.", "he eats.", "he flies."), 2)
    assert found[1] == ChoiceExample("5", "A man.", tuple(ends), 1)
    assert found[2] == ChoiceExample("h.jsonl:3", "A man. he", tuple(ends), 0)
    assert (len(found), log.unlabelled, log.unusable) == (3, 1, 0)


def test_commonsenseqa_as_first_published(tmp_path: Path):
    stem = {"stem": "Where?", "choices": [{"label": "A", "text": "here"}, {"label": "B", "text": "there"}]}
    path = write(tmp_path / "c.jsonl", {"id": "i", "question": stem, "answerKey": "B"}, {"question": stem},
                 {"question": stem, "answerKey": "F"})  # fmt: skip
    found, log = read(task("choice"), path, layout="commonsenseqa")
    assert found == [ChoiceExample("i", "Where?", ("here", "there"), 1)]
    assert (log.unlabelled, log.first) == (1, [f"{path}, line 3: answerKey 'F' is none of A, B."])


def test_equal_choices_are_bad_only_when_one_is_right(tmp_path: Path):
    header = "id,context,question,answer0,answer1,answer2,answer3,label\n"
    path = tmp_path / "c.csv"
    path.write_text(header + 'i,c,q,a,b,b,"d\nd",0\nj,c,q,a,b,b,d,1\n')
    found, log = read(task("choice"), path, layout="cosmosqa")
    assert found == [ChoiceExample("i", "c q", ("a", "b", "b", "d\nd"), 0)]
    assert log.first == [f"{path}, line 4: the right choice 'b' stands there twice."]


def test_conll(tmp_path: Path):
    path = tmp_path / "n.txt"
    path.write_text("-DOCSTART- -X- O O\n\nAda NNP I-NP B-PER\nmet VBD I-VP O\n\n\n12:30 CD I-NP O\n")
    rows = clean(task("tagging", *NER), path, layout="conll")
    assert rows == [TaggedExample("n.txt:3", ("Ada", "met"), (1, 0)), TaggedExample("n.txt:7", ("12:30",), (0,))]
    path.write_text("de:Bonn\tB-LOC\nde:ist\tO\n\nde::\tO\n\nx\tO\n")
    assert [row.words for row in clean(task("tagging", *NER), path, layout="conll")] == [
        ("Bonn", "ist"),
        (":",),
        ("x",),
    ]


def conllu(number: str, word: str, tag: str) -> str:
    return "\t".join([number, word, word, tag, *"______"])


def test_conllu(tmp_path: Path):
    path = write(
        tmp_path / "u.conllu", "# sent_id = s1", conllu("1-2", "im", "_"), conllu("1", "in", "ADP"),
        conllu("2", "dem", "DET"), conllu("2.1", "sein", "AUX"), conllu("3", "10 000", "NUM"), "",
        conllu("1", "na", "_"), "", "1\tkurz\tNOUN", "", conllu("1", "gut", "ADJ"),
    )  # fmt: skip
    found, log = read(task("tagging", *UPOS), path, layout="conllu")
    assert [(row.id, row.words, [UPOS[i] for i in row.labels]) for row in found] == [
        ("s1", ("in", "dem", "10 000"), ["ADP", "DET", "NUM"]),
        ("u.conllu:12", ("gut",), ["ADJ"]),
    ]
    assert log.first == [
        f"{path}, line 8: 1 words without a UPOS tag.",
        f"{path}, line 10: a line of 3 columns, CoNLL-U has 10.",
    ]


AUTO = """ID=wsj_0201.1 PARSER=GOLD NUMPARSE=1
(<T S[dcl] 0 2> (<T NP 0 1> (<L N NNP NNP Ada N>) ) (<T S[dcl]\\NP 0 2> (<L (S[dcl]\\NP)/NP VBD VBD met (S[dcl]\\NP_1)/NP_2>) (<T NP 0 1> (<L N NNP NNP Grace N>) ) ) )
ID=wsj_0201.2 PARSER=GOLD NUMPARSE=1
(<L N NN NN Rain N>)
"""


def test_ccgbank(tmp_path: Path):
    for section, name in (("02", "wsj_0201"), ("00", "wsj_0001"), ("23", "wsj_2301"), ("24", "wsj_2401")):
        folder = tmp_path / "data/AUTO" / section
        folder.mkdir(parents=True)
        (folder / f"{name}.auto").write_text(
            AUTO.replace("N NN NN Rain", "N/N NN NN Rain") if section == "00" else AUTO
        )
    labels = ccg_labels(tmp_path)
    assert labels == ("N", r"(S[dcl]\NP)/NP")
    row = task("tagging", *labels, layout="ccgbank")
    train = clean(row, tmp_path, split="train")
    assert train[0] == TaggedExample("wsj_0201.auto:2", ("Ada", "met", "Grace"), (0, 1, 0))
    assert len(train) == 2 == len(clean(row, tmp_path, split="test"))
    dev, log = read(row, tmp_path, split="dev")
    assert [x.words for x in dev] == [("Ada", "met", "Grace")] and (log.unlabelled, log.unusable) == (1, 0)
    assert discover_labels("tagging", [tmp_path], "ccgbank") == tuple(sorted(labels))
    with pytest.raises(XtError, match="found none"):
        read(row, tmp_path / "data" / "AUTO" / "02")


def test_lines_and_gzip(tmp_path: Path):
    path = tmp_path / "t.txt.gz"
    path.write_bytes(gzip.compress("\ufeffone \n\n \ttwo\r\n".encode()))
    found, log = read(task("mlm"), path, layout="lines")
    assert found == [TextExample("t.txt.gz:1", "one"), TextExample("t.txt.gz:3", "two")]
    assert log.files == {str(path): hashlib.sha256(path.read_bytes()).hexdigest()}
    assert clean(task("mlm"), write(tmp_path / "t.jsonl", {"text": "a"}), layout="lines")[0].text == "a"


# --- rows that cannot be used ---------------------------------------------------------------------------------------------

GOOD = {"first": "a", "second": "b", "label": "neutral"}
BAD_ROWS = {
    "not UTF-8 (byte 1": b'"\xff"',
    "not JSON": '{"first": ',
    "a JSON list, expected an object": "[1]",
    "lacks second": {"first": "a", "label": "neutral"},
    "first is int, expected text": {**GOOD, "first": 1},
    "second is empty": {**GOOD, "second": " "},
    "first holds a NUL": {**GOOD, "first": "a\0"},
    "first is not valid Unicode": '{"first": "\\ud800", "second": "b", "label": "neutral"}',
    "label 'maybe' is none of entailment, neutral, contradiction": {**GOOD, "label": "maybe"},
    "label 3 is none of": {**GOOD, "label": 3},
    "label is bool": {**GOOD, "label": True},
    "label is NoneType": {**GOOD, "label": None},
    "id is list": {**GOOD, "id": []},
    "split 'trian' is none of train, training, dev": {**GOOD, "split": "trian"},
}


def test_bad_rows_are_named_and_the_others_read(tmp_path: Path):
    path = write(tmp_path / "b.jsonl", GOOD, *BAD_ROWS.values(), "", GOOD)
    found, log = read(task("pair", *NLI), path)
    last = len(BAD_ROWS) + 3
    assert [row.id for row in found] == ["b.jsonl:1", f"b.jsonl:{last}"]
    assert log.unusable == len(BAD_ROWS) == len(log.first) == 14 and log.unlabelled == 0
    for line, (reason, said) in enumerate(zip(BAD_ROWS, log.first, strict=True), start=2):
        assert said.startswith(f"{path}, line {line}: {reason}")
    with pytest.raises(XtError, match=r"t: 14 of 16 rows cannot be used(?s:.)*line 2: not UTF-8"):
        log.check("t")


@pytest.mark.parametrize(
    ("format", "row", "reason"),
    [
        ("regression", {"first": "a", "second": "b", "score": "nan"}, "score 'nan' is no number"),
        ("regression", {"first": "a", "second": "b", "score": 10**400}, "score 1000"),
        ("regression", {"first": "a", "second": "b", "score": None}, "score None is no number"),
        ("choice", {"prompt": "p", "choices": ["a"], "label": 0}, "1 choices, expected two or more"),
        ("choice", {"prompt": "p", "choices": ["a", "b"], "label": 2}, "label 2 is no position of 2 choices (0 to 1)"),
        ("choice", {"prompt": "p", "choices": ["a", "b"], "label": -1}, "label is -1, expected a whole number"),
        ("choice", {"prompt": "p", "choices": "ab", "label": 0}, "choices is str, expected a list"),
        ("qa", {"context": "c", "question": "q", "answers": ["c"], "starts": []}, "1 answers and 0 starts"),
        ("qa", {"context": "c", "question": "q", "answers": ["c"], "starts": [-1]}, "answer start is -1"),
        ("qa", {"context": "c", "question": "q"}, "lacks answers.text"),
        ("tagging", {"words": ["a", "b"], "labels": ["O"]}, "2 words and 1 labels"),
        ("tagging", {"words": [], "labels": []}, "0 words and 0 labels"),
        ("tagging", {"words": ["a"], "labels": ["Q"]}, "label 'Q' is none of O, B-PER"),
        ("contrastive", {"anchor": "a", "positive": "b", "negative": " "}, "negative is empty"),
        ("image-text", {"image": -1, "text": "b"}, "image is -1"),
    ],
)
def test_a_bad_row_of_each_format(format: str, row: dict, reason: str, tmp_path: Path):
    path = write(tmp_path / "b.jsonl", row)
    found, log = read(task(format, *(NER if format == "tagging" else ())), path)
    assert not found and log.first[0].startswith(f"{path}, line 1: {reason}")


def test_bad_rows_of_tables_and_sentences(tmp_path: Path):
    path = write(
        tmp_path / "t.tsv", "sentence1\tsentence2\tlabel", "a\tb\t0", "a\tb", b"a\t\xff\t0", "a\tb\tc\t0", "a\tb\t1"
    )
    found, log = read(task("pair", *NLI), path, layout="glue-tsv")
    assert [row.label for row in found] == [0, 1]
    assert [said.split(", line ")[1] for said in log.first] == [
        "3: 2 columns, the header has 3.",
        "4: not UTF-8 (byte 2: invalid start byte).",
        "5: 4 columns, the header has 3.",
    ]
    path = write(tmp_path / "s.tsv", "category\ttext", 'x\t"a', 'b"" c"', b"x\t\xff", "x\td", 'x\t"e"f', "x\tg")
    found, log = read(task("single", "x"), path, layout="sib200")
    assert [row.text for row in found] == ['a\nb" c', "d", "g"]
    assert [said.split(", line ")[1][:10] for said in log.first] == ["4: not UTF", "6: no CSV "]
    path = write(tmp_path / "c.txt", "a O", "b O", "", b"\xff O", "c O", "", "alone", "", "d O")
    found, log = read(task("tagging", *NER), path, layout="conll")
    assert [row.words for row in found] == [("a", "b"), ("d",)]
    assert [said.split(", line ")[1][:12] for said in log.first] == ["4: line 4 is", "7: a line of"]


# --- files that cannot be used --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layout", "content", "said"),
    [
        ("a.tsv", "glue-tsv", b"sentence1\tsentence2\nx\ty\n", "the header lacks label or gold_label"),
        ("a.tsv", "xt", b"first\tlabel\nx\ty\n", "the header lacks second. It has: first, label"),
        ("a.tsv", "xt", b"", "is empty; expected a header"),
        ("a.tsv", "xt", b"a\xff\n", "expected UTF-8 text, found a header line"),
        ("a.tsv", "xt", b"first\tfirst\tlabel\n", "names first twice"),
        ("a.jsonl", "xt", '{"first": "ü"}'.encode("utf-16"), "expected UTF-8 text, found UTF-16"),
        ("a.jsonl", "xt", b"\x89PNG" + bytes(200), "found UTF-16 or a binary file"),
        ("a.md", "xt", b"x", "expected a name that ends in .jsonl, .ndjson, .tsv or .csv (or these with .gz)"),
        ("a.jsonl.gz", "xt", b"not gzip", "no whole gzip file"),
        ("a.jsonl.gz", "xt", gzip.compress(b'{"first": 1}\n' * 99, mtime=0)[:-12], "no whole gzip file"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(name: str, layout: str, content: bytes, said: str, tmp_path: Path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(XtError, match=re.escape(said)) as caught:
        read(task("pair", *NLI), path, layout=layout)
    assert str(path) in caught.value.message and caught.value.hint


@pytest.mark.parametrize("content", ['{"data": ', "[]", '{"data": [{"paragraphs": 3}]}', '{"data": ["x"]}'])
def test_a_broken_squad_file_says_what_was_expected(content: str, tmp_path: Path):
    path = write(tmp_path / "s.json", content)
    with pytest.raises(XtError, match="expected (one JSON|SQuAD's JSON)"):
        read(task("qa"), path, layout="squad")


def test_wrong_names(tmp_path: Path):
    with pytest.raises(XtError, match="There is no file"):
        read(task("pair", *NLI), tmp_path / "none.jsonl")
    with pytest.raises(XtError, match="Unknown layout 'sqad'. Did you mean squad"):
        read_file(task("pair", *NLI), tmp_path, ReadLog(), layout="sqad")
    path = write(tmp_path / "p.jsonl", GOOD)
    with pytest.raises(XtError, match="needs pair examples; this layout holds qa"):
        read(task("pair", *NLI), path, layout="squad")
    with pytest.raises(XtError, match="labels of t are not known"):
        read(task("pair"), path)


# --- labels ---------------------------------------------------------------------------------------------------------------


def test_labels_are_discovered_and_then_read(tmp_path: Path):
    path = write(tmp_path / "l.jsonl", *({"text": "a", "label": x} for x in (1, "-1", 0, "b", "B", None, " ")), "{")
    labels = discover_labels("single", [path])
    assert labels == ("-1", "0", "1", "B", "b")
    found, log = read(task("single", *labels), path)
    assert [labels[row.label] for row in found] == ["1", "-1", "0", "b", "B"]
    assert (log.unusable, log.unlabelled) == (3, 0)
    numbers = write(tmp_path / "n.jsonl", {"text": "a", "label": 1}, {"text": "a", "label": 2})
    found, log = read(task("single", "-1", "0", "1"), numbers)
    assert [row.label for row in found] == [2] and "label 2 is none of -1, 0, 1" in log.first[0]
    polar = write(tmp_path / "p.tsv", "text\tlabel", "a\t-1", "b\t1")
    assert [row.label for row in clean(task("single", "-1", "1"), polar, layout="glue-tsv")] == [0, 1]
    tags = tmp_path / "t.tsv"
    tags.write_text("words\tlabels\na b\tX Y\nc\tX\n")
    assert discover_labels("tagging", [tags, tags]) == ("X", "Y")
    assert discover_labels("qa", [path]) == ()


# --- rows of the hub ------------------------------------------------------------------------------------------------------


def hub(row: Task, *rows: dict) -> tuple[list, ReadLog]:
    log = ReadLog()
    found = list(read_rows(row, rows, "some/set@abc", log))
    assert log.read == len(found)
    return found, log


def test_hub_rows_by_columns():
    columns = {"first": "premise", "second": "hypothesis"}
    snli = task("pair", *NLI, hub=Hub("some/set", "abc", columns=columns))
    good = {"premise": "a", "hypothesis": "b", "label": 2}
    found, log = hub(snli, good, {**good, "label": -1}, {**good, "premise": ""}, {**good, "label": 3})
    assert found == [PairExample("some/set@abc:1".split("/")[1], "a", "b", 2)]
    assert log.unlabelled == 1 and log.unusable == 2
    assert log.first == [
        "some/set@abc, line 3: first is empty.",
        "some/set@abc, line 4: label 3 is none of entailment, neutral, contradiction.",
    ]
    paws = Hub("p", "1", columns={"first": "s1", "second": "s2", "label": "y"}, labels=(5, 7))
    found, log = hub(task("pair", "no", "yes", hub=paws), *({"s1": "a", "s2": "b", "y": y} for y in (7, 5, 0)))
    assert [row.label for row in found] == [1, 0] and log.unusable == 1


def test_hub_rows_that_are_nested():
    nested = Hub(
        "c", "1", columns={"prompt": "question", "choices": "choices.text", "label": "answerKey"}, labels=("A", "B")
    )
    row = {"question": "q", "choices": {"label": ["A", "B"], "text": ["x", "y"]}, "answerKey": "B", "id": "i"}
    found, log = hub(task("choice", hub=nested), row, {**row, "answerKey": ""})
    assert found == [ChoiceExample("i", "q", ("x", "y"), 1)] and log.unlabelled == 1
    joined = Hub("c", "1", columns={"prompt": "context+question", "choice0": "answer0", "choice1": "answer1"})
    row = {"context": "c", "question": "q", "answer0": "x", "answer1": "y", "label": 0}
    assert hub(task("choice", hub=joined), row)[0] == [ChoiceExample("set@abc:1", "c q", ("x", "y"), 0)]
    squad = Hub("s", "1", columns={"context": "context"})
    row = {"id": "i", "context": "c d", "question": "q", "answers": {"text": ["d"], "answer_start": [2]}}
    found, log = hub(task("qa", hub=squad), row, {**row, "answers": {"text": [], "answer_start": []}})
    assert [(x.answers, x.starts) for x in found] == [(("d",), (2,))]
    assert log.first == [
        "some/set@abc, line 2: no answer, and the file does not say that there is none (is_impossible)."
    ]
    found, _ = hub(
        replace(task("qa", hub=squad), no_answer=True), row, {**row, "answers": {"text": [], "answer_start": []}}
    )
    assert [(x.answers, x.starts) for x in found] == [(("d",), (2,)), ((), ())]
    tokens = Hub("n", "1", columns={"words": "tokens", "tags": "ner_tags"})
    found, log = hub(task("tagging", *NER, hub=tokens), {"tokens": ["a", "b"], "ner_tags": [0, 3]}, {"tokens": ["a"]})
    assert found == [TaggedExample("set@abc:1", ("a", "b"), (0, 3))]
    assert log.first == ["some/set@abc, line 2: lacks ner_tags."]


def test_hub_rows_without_columns_are_those_of_the_layout():
    row = {"ind": 1, "ctx_a": "A.", "ctx_b": "he", "ctx": "A. he", "endings": ["x", "y"], "label": "1"}
    found, log = hub(task("choice", layout="hellaswag", hub=Hub("h", "1")), row, {**row, "label": ""})
    assert found == [ChoiceExample("1", "A.", ("he x", "he y"), 1)] and log.unlabelled == 1


# --- the table, and memory ------------------------------------------------------------------------------------------------


def test_every_layout_of_the_task_table_is_there():
    from xt.core.data.task_table import TASKS

    assert {row.layout for row in TASKS.values()} <= set(LAYOUTS)
    assert len(LAYOUTS) == 15


def test_memory_stays_flat(tmp_path: Path):
    path = tmp_path / "big.tsv"
    with path.open("w", encoding="utf-8") as file:
        file.write("sentence1\tsentence2\tlabel\n")
        file.writelines(f"first {i}\tsecond {i}\t{i % 3}\n" for i in range(30_000))
    log = ReadLog()
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_file(task("pair", *NLI), path, log, layout="glue-tsv"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == log.read == 30_000
    assert peak < 2_000_000  # all rows at once take 9 MB


def test_published_rows_of_hellaswag_that_say_val_are_dev_rows(tmp_path: Path):
    row = {"ind": 24, "activity_label": "Roof", "ctx_a": "A man sits.", "ctx_b": "he", "ctx": "A man sits. he"}
    row |= {"split": "val", "split_type": "indomain", "label": 3, "endings": ["a.", "b.", "c.", "d."]}
    path = tmp_path / "hellaswag_val.jsonl"
    path.write_text("".join(json.dumps({**row, "ind": n}) + "\n" for n in range(3)))
    found = clean(task("choice"), path, layout="hellaswag", split="dev")
    assert [(e.id, e.label, len(e.choices)) for e in found] == [("0", 3, 4), ("1", 3, 4), ("2", 3, 4)]


SPLITS = {"dev": "dev", "val": "dev", "VALID": "dev", "Validation": "dev", "Training": "train", "testing": "test"}


@pytest.mark.parametrize("word", SPLITS)
def test_the_words_for_a_split_are_one(tmp_path: Path, word: str):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"text": "a", "label": "x", "split": word}) + "\n")
    kept = [split for split in ("train", "dev", "test") if list(clean(task("single", "x"), path, split=split))]
    assert kept == [SPLITS[word]]
