"""Data are found where the user says, in the samples, below a data folder and in the hub's cache; and nothing is in two parts.

Tests `core/hub.py`, `core/data/hub_files.py` and `core/data/source_rows.py` as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from xt.core.data.examples import Example, PairExample, ReadLog, group
from xt.core.data.hub_files import hub_patterns, parquet_files, spellings
from xt.core.data.own_task import own_task
from xt.core.data.source_rows import commits, examples
from xt.core.data.sources import HELD_OUT, Source, languages_at, locate, there
from xt.core.data.task_table import TASKS
from xt.core.data.tasks import RETRIEVED, Hub, Task
from xt.core.errors import XtError
from xt.core.languages import XTREME_R_TATOEBA

DIVIDED = {
    "cosmosqa": ("training", "english/cosmosqa.valid.csv", 2985),
    "commonsenseqa": ("training", "english/commonsenseqa.dev.jsonl", 1221),
    "sick": ("dev", "english/SICK.txt", 9927),
    "sick-relatedness": ("dev", "english/SICK.txt", 9927),
    "xquad-en": ("dev", "xquad/xquad.en.json", 1190),
    "udpos-en": ("training", "udpos/en_ewt-ud-dev.conllu", 2001),
}
"""Tasks of which the data folder has one file: the part it lacks, the file, its usable rows."""


def read(source: Source) -> list[Example]:
    return list(examples(source, ReadLog()))


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No data folder, and a hub cache in which there is nothing; returns the cache."""
    from huggingface_hub import constants

    monkeypatch.delenv("XT_DATA", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def pairs(path: Path, count: int, **more: str) -> Path:
    """A file of pairs in xt's layout: two pairs for every first text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"first": f"text {n // 2}", "second": f"other {n}", "label": ("no", "yes")[n % 2], **more} for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# --- the data folder ---


@pytest.mark.parametrize("name", DIVIDED)
def test_a_single_file_is_divided_by_context_always_the_same_way(data_dir: Path, name: str) -> None:
    missing, file, count = DIVIDED[name]
    train, dev = (locate(TASKS[name], split, data_dir=data_dir) for split in ("train", "dev"))
    assert train.part == ("train", HELD_OUT)
    assert dev.part == ("dev", HELD_OUT)
    assert train.files == dev.files == (data_dir / file,)
    assert train.note == dev.note == f"no {missing} file: 80 % of {file} is trained on, the rest held out"
    first, second = read(train), read(dev)
    assert len(first) + len(second) == count
    assert 0.15 < len(second) / count < 0.25
    assert not {group(e) for e in first} & {group(e) for e in second}
    assert read(dev) == second


def test_files_of_their_own_are_not_divided(data_dir: Path) -> None:
    train, dev = (locate(TASKS["rte"], split, data_dir=data_dir) for split in ("train", "dev"))
    assert (train.part, dev.part, train.note, dev.note) == (None, None, "", "")
    assert [f.name for f in (*train.files, *dev.files)] == ["RTE.train.tsv", "RTE.dev.tsv"]
    assert (len(read(train)), len(read(dev))) == (2490, 277)
    assert locate(TASKS["mrpc"], "dev", data_dir=data_dir).files == (data_dir / "english/MRPC.test.txt",)


def test_every_target_of_the_folder_is_read_in_all_its_languages(data_dir: Path) -> None:
    counts = {}
    for task in TASKS.values():
        if task.kind == "target" and task.format not in RETRIEVED:
            for code in languages_at(task, "test", data_dir):
                source = locate(task, "test", language=code, data_dir=data_dir)
                log = ReadLog()
                assert list(examples(source, log))
                assert log.unusable <= 0.01 * log.read
                assert source.language == code
                assert set(log.files) == {str(f) for f in source.files}
                counts[task.name] = counts.get(task.name, 0) + 1
    assert counts == {"udpos": 6, "masakhaner": 4, "xquad": 12, "xcopa": 11, "sib200": 53}


def test_languages_are_found_however_the_place_spells_them(data_dir: Path) -> None:
    assert languages_at(TASKS["masakhaner"], "train", data_dir) == ["hau", "ibo", "pcm", "swh"]
    assert {"ara", "cmn", "que", "pes", "swh"} <= set(languages_at(TASKS["sib200"], "test", data_dir))
    assert set(XTREME_R_TATOEBA) <= set(languages_at(TASKS["tatoeba"], "test", data_dir))
    assert there(TASKS["xquad"], data_dir) == {"test": sorted(TASKS["xquad"].codes, key=TASKS["xquad"].codes.index)}
    for code in ("sw", "swa_Latn", "swh"):
        assert locate(TASKS["sib200"], "test", language=code, data_dir=data_dir).files == (
            data_dir / "sib200/swh_Latn/test.tsv",
        )


def test_spellings_of_macro_languages() -> None:
    assert spellings("{iso3}_{script}", "ara") == ["ara_Arab", "arb_Arab"]
    assert spellings("udpos.{Name}", "cmn") == ["udpos.Chinese"]
    assert spellings("{name}-", "swh") == ["swahili-"]
    assert spellings("{language}", "deu") == ["de", "deu", "ger"]
    assert spellings("plain.json", "deu") == ["plain.json"]


def test_several_treebanks_are_read_one_after_the_other(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "udpos").mkdir()
    for name, of in (("de_a-ud-test.conllu", "de_gsd"), ("de_b-ud-test.conllu", "yo_ytb")):
        (tmp_path / "udpos" / name).symlink_to(data_dir / f"udpos/{of}-ud-test.conllu")
    source = locate(TASKS["udpos"], "test", language="deu", data_dir=tmp_path)
    assert [f.name for f in source.files] == ["de_a-ud-test.conllu", "de_b-ud-test.conllu"]
    assert [len(read(replace(source, files=files))) for files in (source.files[:1], source.files[1:])] == [977, 317]
    assert len(read(source)) == 977 + 317


# --- tasks of tasks ---


def test_a_target_is_trained_on_its_english_task(data_dir: Path, tmp_path: Path) -> None:
    source = locate(TASKS["xcopa"], "train", language="swh", data_dir=data_dir)
    assert (source.task.name, source.language, source.part) == ("cosmosqa", "eng", ("train", HELD_OUT))
    assert source.note.startswith("xcopa: the training data are those of cosmosqa; no training file: ")
    own = locate(TASKS["xcopa"], "dev", language="swh", data_dir=data_dir)
    assert (own.task.name, own.part, len(read(own))) == ("xcopa", None, 100)
    (tmp_path / "squad").mkdir()
    (tmp_path / "squad/train-v1.1.json").symlink_to(data_dir / "xquad/xquad.en.json")
    dev = locate(TASKS["xquad"], "dev", language="deu", data_dir=tmp_path)
    assert (dev.task.name, dev.part) == ("squad-v1", ("dev", HELD_OUT))


def test_anli_is_followed_by_its_parts(tmp_path: Path, nowhere: Path) -> None:
    row = {"premise": "a", "hypothesis": "b", "label": "n"}
    for place, label in (("anli_v1.0/R1", "n"), ("anli_v1.0/R3", "c"), ("SNLI", "entailment")):
        for split in ("train", "dev"):
            file = tmp_path / place / f"{split}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({**row, "label": label, "gold_label": label}) + "\n")
    with pytest.raises(XtError, match="There are no training data of mnli"):
        locate(TASKS["anli+"], "train", data_dir=tmp_path)
    (tmp_path / "MNLI").mkdir()
    for split in ("train", "dev_matched"):
        (tmp_path / f"MNLI/{split}.tsv").write_text("sentence1\tsentence2\tgold_label\nx\ty\tneutral\n")
    source = locate(TASKS["anli+"], "train", data_dir=tmp_path)
    assert [s.task.name for s in source.more] == ["mnli", "snli"]
    found = read(source)
    assert [e.label for e in found if isinstance(e, PairExample)] == [1, 2, 1, 0]
    assert [e.first for e in found if isinstance(e, PairExample)] == ["a", "a", "x", "a"]
    assert locate(TASKS["anli+"], "dev", data_dir=tmp_path).more == ()


def test_ccg_takes_its_labels_from_the_folder(tmp_path: Path, nowhere: Path) -> None:
    for section, category in (("02", "N"), ("00", "N"), ("23", "N")):
        file = tmp_path / "ccgbank/data/AUTO" / section / f"wsj_{section}01.auto"
        file.parent.mkdir(parents=True)
        file.write_text(
            f"ID=wsj_{section}01.1 PARSER=GOLD NUMPARSE=1\n(<L {category} NN NN words{section} {category}>)\n"
        )
    sources = {split: locate(TASKS["ccg"], split, data_dir=tmp_path) for split in ("train", "dev", "test")}
    assert {s.task.labels for s in sources.values()} == {("N",)}
    assert all(s.part is None for s in sources.values())
    words = {split: [e.words for e in read(s)] for split, s in sources.items()}  # type: ignore[union-attr]
    assert words == {"train": [("words02",)], "dev": [("words00",)], "test": [("words23",)]}
    named = locate(TASKS["ccg"], "test", files=[tmp_path / "ccgbank"])
    assert read(named) == read(sources["test"])


# --- the user's files and the samples ---


def test_samples_come_with_xt_in_two_splits() -> None:
    train, dev = (locate(TASKS["sample-nli"], split) for split in ("train", "dev"))
    assert (train.origin, train.part) == ("sample", None)
    assert (len(read(train)), len(read(dev))) == (162, 54)
    with pytest.raises(XtError, match="no test data of sample-nli"):
        locate(TASKS["sample-nli"], "test")


def test_named_files_are_sorted_by_their_names_and_win(data_dir: Path) -> None:
    files = [data_dir / "english/RTE.dev.tsv", data_dir / "english/RTE.train.tsv"]
    for split in ("train", "dev"):
        source = locate(TASKS["rte"], split, data_dir=Path("/nowhere"), files=files)
        assert (source.origin, [f.name for f in source.files], source.part) == ("files", [f"RTE.{split}.tsv"], None)
    alone = locate(TASKS["rte"], "train", files=files[:1])
    assert alone.part == ("train", HELD_OUT)
    assert len(read(alone)) + len(read(locate(TASKS["rte"], "dev", files=files[:1]))) == 277
    with pytest.raises(XtError, match="no test data of rte") as error:
        locate(TASKS["rte"], "test", files=files)
    assert str(files[0]) in error.value.message
    with pytest.raises(XtError, match=r"There is no .*gone\.tsv"):
        locate(TASKS["rte"], "train", files=[data_dir / "gone.tsv"])


def test_a_named_folder_holds_the_splits(tmp_path: Path) -> None:
    task = replace(TASKS["sample-paraphrase"], file="", fields=(), labels=("no", "yes"))
    for split, count in (("train", 6), ("valid", 4), ("test", 2)):
        pairs(tmp_path / "mine" / f"{split}.jsonl", count)
    found = {s: locate(task, s, files=[tmp_path / "mine"]) for s in ("train", "dev", "test")}
    assert {s: len(read(source)) for s, source in found.items()} == {"train": 6, "dev": 4, "test": 2}
    (tmp_path / "empty").mkdir()
    with pytest.raises(XtError, match=r"empty holds no train\.\*, dev\.\* or test\.\* \(found: nothing\)"):
        locate(task, "train", files=[tmp_path / "empty"])


# --- a user's own task ---


def test_an_own_file_is_divided_unless_it_has_splits(tmp_path: Path) -> None:
    task = own_task(f"pair:{pairs(tmp_path / 'mine.jsonl', 400)}")
    assert (task.name, task.kind, task.labels, task.metric) == ("mine", "intermediate", ("no", "yes"), "accuracy")
    parts = [read(locate(task, split)) for split in ("train", "dev")]
    assert sum(map(len, parts)) == 400
    assert not {group(e) for e in parts[0]} & {group(e) for e in parts[1]}
    rows = [{"text": "a", "label": "x", "split": "train"}, {"text": "b", "label": "y", "split": "dev"}]
    (tmp_path / "has.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "has.tsv").write_text("text\tlabel\tsplit\na\tx\ttrain\nb\ty\tdev\n")
    for name in ("has.jsonl", "has.tsv"):
        own = own_task(f"single:{tmp_path / name}")
        source = locate(own, "train", data_dir=tmp_path)
        assert source.part is None
        assert [group(e) for e in read(source)] == ["a"]
        assert [group(e) for e in read(locate(own, "dev"))] == ["b"]


def test_own_tasks_have_the_metric_of_their_format(tmp_path: Path) -> None:
    def own(format: str, *rows: dict[str, object]) -> Task:
        file = tmp_path / f"{format}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return own_task(f"{format}:{file}")

    bio = own("tagging", {"words": ["Ada", "spoke"], "labels": ["B-PER", "O"]})
    assert (bio.metric, bio.labels) == ("span_f1", ("B-PER", "O"))
    assert own("tagging", {"words": ["a"], "labels": ["NOUN"]}).metric == "accuracy"
    assert own("regression", {"first": "a", "second": "b", "score": 1}).metric == "spearman"
    assert own("contrastive", {"anchor": "a", "positive": "b"}).metric == "retrieval"
    answered = {"context": "a b", "question": "c", "answers": ["b"], "starts": [2]}
    assert own("qa", answered).no_answer is False
    assert own("qa", answered, {**answered, "answers": [], "starts": []}).no_answer is True
    (tmp_path / "plain.txt").write_text("one\ntwo\n")
    text = own_task(f"mlm:{tmp_path / 'plain.txt'}")
    assert (text.layout, text.metric, text.labels) == ("lines", "token_accuracy", ())
    assert sum(len(read(locate(text, split))) for split in ("train", "dev")) == 2


@pytest.mark.parametrize("spec", ["mine.tsv", "pairs:mine.tsv", "bitext:mine", "pair:"])
def test_a_bad_spec_is_answered_with_the_formats(spec: str) -> None:
    with pytest.raises(XtError, match=r"is no task and no FORMAT:PATH") as error:
        own_task(spec)
    assert "regression:PATH  two texts and a number" in error.value.hint
    assert "bitext" not in error.value.hint


def test_an_own_path_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(XtError, match=r"there is no .*gone\.tsv"):
        own_task(f"pair:{tmp_path / 'gone.tsv'}")
    pairs(tmp_path / "train.jsonl", 2)
    (tmp_path / "train.tsv").write_text("first\tsecond\tlabel\na\tb\tyes\n")
    with pytest.raises(XtError, match="holds several files of one split"):
        own_task(f"pair:{tmp_path}")


# --- the hub ---


def put(cache: Path, hub: Hub, name: str, rows: list[dict[str, object]]) -> None:
    """Put rows as Parquet into the hub's local cache, where a download would put them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = cache / f"datasets--{hub.id.replace('/', '--')}" / "snapshots" / hub.revision / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)


def lines(path: Path) -> Iterator[dict[str, object]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def same(first: list[Example], second: list[Example]) -> bool:
    return [replace(e, id="") for e in first] == [replace(e, id="") for e in second]


def test_rows_of_the_hub_give_the_examples_of_the_files(data_dir: Path, nowhere: Path) -> None:
    import csv

    task = TASKS["commonsenseqa"]
    rows = list(lines(data_dir / "english/commonsenseqa.dev.jsonl"))
    put(nowhere, task.hub, "data/validation-00000-of-00001.parquet", rows)
    put(nowhere, task.hub, "data/train-00000-of-00002.parquet", rows[:700])
    put(nowhere, task.hub, "data/train-00001-of-00002.parquet", rows[700:])
    log = ReadLog()
    source = locate(task, "dev")
    assert (source.origin, source.files, source.part) == ("hub", (), None)
    found = list(examples(source, log))
    file = data_dir / "english/commonsenseqa.dev.jsonl"
    assert same(found, read(Source(task, "dev", "eng", (file,), "files")))
    assert same(found, read(locate(task, "train")))
    assert list(log.files.values()) == commits(source) == [task.hub.revision]

    task = TASKS["xcopa"]
    put(nowhere, task.hub, "sw/test-00000-of-00001.parquet", list(lines(data_dir / "xcopa/sw/test.sw.jsonl")))
    assert same(
        read(locate(task, "test", language="swh")), read(locate(task, "test", language="swh", data_dir=data_dir))
    )

    task = TASKS["cosmosqa"]
    with (data_dir / "english/cosmosqa.valid.csv").open(encoding="utf-8", newline="") as file_:
        rows = [{**row, "label": int(row["label"])} for row in csv.DictReader(file_)]
    put(nowhere, task.hub, "default/validation/0000.parquet", rows)
    put(nowhere, task.hub, "default/train/0000.parquet", rows)
    assert same(
        read(locate(task, "dev")),
        read(Source(task, "dev", "eng", (data_dir / "english/cosmosqa.valid.csv",), "files")),
    )

    task = TASKS["xquad"]
    articles = json.loads((data_dir / "xquad/xquad.de.json").read_text(encoding="utf-8"))["data"]
    rows = [
        {
            "id": q["id"],
            "context": p["context"],
            "question": q["question"],
            "answers": {key: [a[key] for a in q["answers"]] for key in ("text", "answer_start")},
        }
        for article in articles
        for p in article["paragraphs"]
        for q in p["qas"]
    ]
    put(nowhere, task.hub, "xquad.de/validation-00000-of-00001.parquet", rows)
    german = read(locate(task, "test", language="deu"))
    assert german == read(locate(task, "test", language="deu", data_dir=data_dir))
    assert len(german) == 1190


def test_numbered_labels_and_tags_of_the_hub_are_the_tables(nowhere: Path) -> None:
    glue = TASKS["rte"].hub
    put(nowhere, glue, "rte/train-00000-of-00001.parquet", [{"sentence1": "a", "sentence2": "b", "label": 1, "idx": 0}])
    put(nowhere, glue, "rte/validation-00000-of-00001.parquet", [{"sentence1": "c", "sentence2": "d", "label": 0}])
    assert [e.label for e in read(locate(TASKS["rte"], "train"))] == [1]  # type: ignore[union-attr]
    panx = TASKS["panx"]
    put(nowhere, panx.hub, "PAN-X.sw/test-00000-of-00001.parquet", [{"tokens": ["Dar", "ni"], "ner_tags": [5, 0]}])
    tagged = read(locate(panx, "test", language="swh"))[0]
    assert [panx.labels[n] for n in tagged.labels] == ["B-LOC", "O"]  # type: ignore[union-attr]
    sib = TASKS["sib200"]
    hub = replace(sib.hub, revision="b" * 40)
    put(nowhere, hub, "arb_Arab/test/0000.parquet", [{"index_id": 1, "text": "x", "category": "sports"}])
    single = read(locate(replace(sib, hub=hub), "test", language="ara"))[0]
    assert sib.labels[single.label] == "sports"  # type: ignore[union-attr]


def test_a_language_is_told_by_the_id_where_one_configuration_holds_all(nowhere: Path) -> None:
    task = TASKS["tydiqa"]
    answers = {"text": ["a"], "answer_start": [0]}
    rows = [
        {"id": f"{name}-{n}-0", "context": "a b", "question": f"{name} {n}", "answers": answers}
        for n in range(3)
        for name in ("english", "swahili", "korean")
    ]
    for split in ("train", "validation"):
        put(nowhere, task.hub, f"tydiqa/{split}-00000-of-00001.parquet", rows)
    found = read(locate(task, "test", language="swh"))
    assert [e.question for e in found] == ["swahili 0", "swahili 1", "swahili 2"]  # type: ignore[union-attr]


def test_a_single_part_of_the_hub_is_divided(nowhere: Path) -> None:
    task = TASKS["xquad-en"]
    answers = {"text": ["text"], "answer_start": [0]}
    rows = [{"id": str(n), "context": f"text {n}", "question": "q", "answers": answers} for n in range(200)]
    put(nowhere, task.hub, "xquad.en/validation-00000-of-00001.parquet", rows)
    parts = [locate(task, split) for split in ("train", "dev")]
    assert parts[0].note == "no dev part: 80 % of google/xquad is trained on, the rest held out"
    first, second = map(read, parts)
    assert len(first) + len(second) == 200
    assert not {group(e) for e in first} & {group(e) for e in second}


def test_an_unfinished_download_is_not_taken_for_the_data(nowhere: Path) -> None:
    task = TASKS["commonsenseqa"]
    put(nowhere, task.hub, "data/train-00001-of-00002.parquet", [{"question": "q"}])
    files, why = parquet_files(task.hub, "train", "eng")
    assert files == []
    assert why == "no Parquet files of train"
    cosmos = TASKS["cosmosqa"].hub
    put(nowhere, cosmos, "default/train/0001.parquet", [{"question": "q"}])
    assert parquet_files(cosmos, "train", "eng")[0] == []


def test_patterns_cover_the_layouts_of_repositories() -> None:
    assert "rte/train-*.parquet" in hub_patterns("rte", "train")
    assert "default/train/*.parquet" in hub_patterns("", "train")
    assert "data/validation-*.parquet" in hub_patterns("", "validation")


# --- what cannot be found ---


def test_the_error_names_every_place_and_what_to_do(tmp_path: Path, nowhere: Path) -> None:
    with pytest.raises(XtError, match="There are no test data of xnli in Swahili") as error:
        locate(TASKS["xnli"], "test", language="sw", data_dir=tmp_path)
    assert error.value.message.splitlines()[1:] == [
        f"  {tmp_path}/XNLI-1.0/xnli.test.jsonl",
        f"  {tmp_path}/xnli/xnli.test.jsonl",
        "  facebook/xnli at b8dd5d7af51114dbda02c0e3f6133f332186418e on the hub: "
        "not in the local cache, and offline (HF_HUB_OFFLINE)",
    ]
    assert error.value.hint == "Not for commercial use. Name a folder of data sets by --data-dir."
    with pytest.raises(XtError, match=r"MNLI/train\.tsv below a data folder \(none is named\)"):
        locate(TASKS["xnli"], "train")
    with pytest.raises(XtError, match="udpos-en is a free stand-in"):
        locate(TASKS["ccg"], "train")
    with pytest.raises(XtError, match="on the hub: no Swahili"):
        locate(TASKS["mlqa"], "test", language="swh")
    with pytest.raises(XtError, match="on the hub: no test part"):
        locate(TASKS["rte"], "test")


def test_wrong_splits_languages_and_formats_are_refused(data_dir: Path) -> None:
    with pytest.raises(XtError, match="Unknown split 'validation'"):
        locate(TASKS["rte"], "validation")
    with pytest.raises(XtError, match="no test data of rte in German|no training data of rte in German"):
        locate(TASKS["rte"], "train", language="de", data_dir=data_dir)
    with pytest.raises(XtError, match="tatoeba is parallel text"):
        locate(TASKS["tatoeba"], "test", language="deu")
    with pytest.raises(XtError, match="xx"):
        locate(TASKS["sib200"], "test", language="xx1")


def test_xtreme_rs_further_languages_are_read_from_files_alone(tmp_path: Path) -> None:
    from xt.eval.summary import BENCHMARKS

    for name in ("udpos", "panx"):
        (row,) = [r for r in BENCHMARKS["xtreme-r"] if r.task == name]
        assert set(TASKS[name].all_codes) == set(row.codes)
    (tmp_path / "panx" / "qu").mkdir(parents=True)
    (tmp_path / "panx" / "qu" / "test").write_text("qu:Lima\tB-LOC\n\n")
    assert languages_at(TASKS["panx"], "test", tmp_path) == ["que"]
    assert locate(TASKS["panx"], "test", language="qu", data_dir=tmp_path).files == (tmp_path / "panx/qu/test",)
    with pytest.raises(XtError, match="on the hub: no Quechua"):
        locate(TASKS["panx"], "test", language="qu", data_dir=tmp_path / "none")
