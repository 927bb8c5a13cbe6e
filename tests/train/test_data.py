"""Each task's data from its files to its units: what is trained on, what is held out, and what must not be mixed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xt.core.data.examples import Example, PairExample, QaExample, TupleExample, group
from xt.core.encoder.resolve import resolve
from xt.core.errors import XtError
from xt.core.heads.inputs import Inputs
from xt.train import data as loading
from xt.train import prepare as preparing
from xt.train.config import TrainConfig
from xt.train.data import TaskData, images_of, load, positives, task_requests


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache of the test's own, and no data folder."""
    monkeypatch.setattr(preparing, "preparations", lambda: tmp_path / "prepared")
    monkeypatch.delenv("XT_DATA", raising=False)
    return tmp_path / "prepared"


@pytest.fixture(scope="module")
def inputs(tiny_folder: Path) -> Inputs:
    resolved = resolve(str(tiny_folder))
    return Inputs(resolved.path / "tokenizer.json", resolved.spec)


def config(**change: Any) -> TrainConfig:
    return TrainConfig(**{"encoder": "tiny", "out": Path("x"), **change})


def loaded(inputs: Inputs, tokenizer: str = "hash", **change: Any) -> TaskData:
    """The only intermediate task of a configuration, with its data."""
    made = config(**change)
    [request] = task_requests(made, target=False)
    return load(made, request, inputs, tokenizer, said.append)


said: list[str] = []


def write(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pair_rows(count: int, mark: str = "") -> list[dict[str, Any]]:
    """Three pairs for each first text."""
    return [
        {"first": f"the cat {mark}{n // 3}", "second": f"we eat {n}", "label": ("no", "yes")[n % 2]}
        for n in range(count)
    ]


def ids(data: TaskData) -> list[tuple[int, ...]]:
    """The rows of all units."""
    units = [data.prepared.unit(i) for i in range(len(data.prepared))]
    return [tuple(row.tolist()) for unit in units for row in unit.rows]


# --- positive pairs ---


def pair(first: str, second: str, label: int) -> PairExample:
    return PairExample(f"{first}-{second}", first, second, label)


def test_positive_pairs_are_those_of_the_label_in_their_order() -> None:
    rows = [pair("a", "b", 1), pair("a", "c", 0), pair("d", "e", 1), pair("a", "b", 1)]
    found = list(positives(rows, 1, None))
    assert [(t.anchor, t.positive, t.negative) for t in found] == [("a", "b", None), ("d", "e", None), ("a", "b", None)]
    assert [t.id for t in found] == ["a-b", "d-e", "a-b"]


def test_a_negative_of_the_same_text_is_found_before_and_behind() -> None:
    rows = [pair("a", "not a", 2), pair("a", "b", 0), pair("c", "d", 0), pair("c", "neutral", 1), pair("c", "not c", 2)]
    assert [(t.positive, t.negative) for t in positives(rows, 0, 2)] == [("b", "not a"), ("d", "not c")]
    assert [t.negative for t in positives([*rows, pair("e", "f", 0)], 0, 2)] == ["not a", "not c", None]


@pytest.mark.parametrize("window", [1, 2, 5, 50])
def test_hard_negatives_are_looked_for_within_the_window_only(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    monkeypatch.setattr(loading, "WINDOW", window)
    rng = np.random.default_rng(window)
    rows = [pair(f"t{rng.integers(40)}", f"s{n}", int(rng.integers(3))) for n in range(600)]
    found = {t.positive: t.negative for t in positives(rows, 0, 2)}
    assert list(found) == [r.second for r in rows if r.label == 0]
    checked = 0
    for at, row in enumerate(rows):
        if row.label == 0:
            around = rows[max(0, at - window) : at + window + 1]
            near = [r.second for r in around if r.first == row.first and r.label == 2]
            assert found[row.second] == (near[-1] if near else None)
            checked += bool(near)
    assert checked or window < 5


def test_looking_for_negatives_holds_few_rows() -> None:
    taken = 0

    def stream() -> Iterable[Example]:
        nonlocal taken
        for n in range(100_000):
            taken += 1
            yield pair(f"text {n // 3}", f"s{n}", n % 3)

    found = iter(positives(stream(), 0, 2))
    first = next(found)
    assert (first.anchor, first.negative) == ("text 0", "s2")
    assert taken <= loading.WINDOW + 2
    assert sum(t.negative is not None for t in found) == 33_332  # one was taken before, the last has none


def test_contrastive_training_takes_a_pair_tasks_positives(data_dir: Path, inputs: Inputs) -> None:
    data = loaded(inputs, contrastive=("sick",), data_dir=data_dir)
    assert (data.task.name, data.task.format, data.task.metric) == ("sick-pairs", "contrastive", "retrieval")
    lines = [line.split("\t") for line in (data_dir / "english/SICK.txt").read_text(encoding="utf-8").splitlines()[1:]]
    entailed = sum(line[4] == "ENTAILMENT" for line in lines)
    assert len(data.prepared) + len(data.dev) == pytest.approx(entailed, abs=3)  # some rows cannot be used
    assert all(isinstance(e, TupleExample) for e in data.dev)
    counts = {len(data.prepared.unit(i).rows) for i in range(len(data.prepared))}
    assert counts == {2, 3}  # with and without a contradiction of the same text


@pytest.mark.parametrize("name", ["pair:{}", "single:{}"])
def test_data_without_a_positive_label_are_no_contrastive_data(tmp_path: Path, name: str) -> None:
    rows = [{**row, "text": row["first"]} for row in pair_rows(4)]
    file = write(tmp_path / "mine.jsonl", rows)
    with pytest.raises(XtError, match="has no label that makes two texts belong together"):
        task_requests(config(contrastive=(name.format(file),)), target=False)


def own_pairs(folder: Path) -> Path:
    labels = ("same", "other", "against")
    rows = [{"first": f"text {n // 3}", "second": f"s{n}", "label": labels[n % 3]} for n in range(90)]
    return write(folder / "mine.jsonl", rows)


def test_a_pair_file_of_ones_own_gives_positives_when_the_label_is_named(tmp_path: Path, inputs: Inputs) -> None:
    name = f"pair:{own_pairs(tmp_path)}"
    data = loaded(inputs, contrastive=(name,), positive_label="same")
    assert (data.task.name, data.task.format, data.task.metric) == ("mine-pairs", "contrastive", "retrieval")
    assert len(data.prepared) + len(data.dev) == 30
    assert all(isinstance(e, TupleExample) and e.negative is None for e in data.dev)
    hard = loaded(inputs, contrastive=(name,), positive_label="same", negative_label="against")
    found = [e for e in hard.dev if isinstance(e, TupleExample)]
    assert found and all(e.negative == f"s{int(e.positive[1:]) + 2}" for e in found)
    assert hard.prepared.folder != data.prepared.folder
    other = loaded(inputs, contrastive=(name,), positive_label="other")
    assert other.prepared.folder != data.prepared.folder


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({}, "none is named(?s:.)*--positive-label; its labels: against, other, same"),
        ({"positive_label": "Same"}, "no label 'Same' .--positive-label(?s:.)*against, other, same"),
        ({"positive_label": "same", "negative_label": "x"}, "no label 'x' .--negative-label"),
        ({"positive_label": "same", "negative_label": "same"}, "are both 'same'"),
    ],
)
def test_a_positive_label_that_is_not_named_or_not_there_is_told_with_the_labels(
    tmp_path: Path, labels: dict[str, str], told: str
) -> None:
    with pytest.raises(XtError, match=told):
        task_requests(config(contrastive=(f"pair:{own_pairs(tmp_path)}",), **labels), target=False)


def test_own_data_are_named_alike_for_every_setting(tmp_path: Path, inputs: Inputs) -> None:
    pairs = write(tmp_path / "pairs.jsonl", OWN["contrastive"])
    more = write(tmp_path / "more.jsonl", [{"anchor": f"a {n}", "positive": "b"} for n in range(9)])
    text = tmp_path / "plain.txt"
    text.write_text("".join(f"word{n}\n" for n in range(60)))
    same: dict[str, list[str]] = {"contrastive": ["contrastive:{}", "{}"], "mlm": ["mlm:{}", "{}"]}
    for setting, file in (("contrastive", pairs), ("mlm", text)):
        found = [loaded(inputs, **{setting: (form.format(file),)}) for form in same[setting]]
        found.append(loaded(inputs, intermediate=(f"{setting}:{file}",)))
        assert len({data.prepared.folder for data in found}) == 1
    for key in (str(pairs), f"contrastive:{pairs}"):
        for value in (str(more), f"contrastive:{more}"):
            data = loaded(inputs, contrastive=(str(pairs),), translated={key: (value,)})
            assert len(data.prepared) + len(data.dev) == 69
    with pytest.raises(XtError, match=r"is single data; pairs needs contrastive"):
        loaded(inputs, contrastive=(str(pairs),), translated={str(pairs): (f"single:{more}x",)})


# --- one's own data of each format ---

NUMBERS = range(60)
OWN: dict[str, list[dict[str, Any]]] = {
    "pair": pair_rows(60),
    "single": [{"text": f"we eat {n}", "label": "abc"[n % 3]} for n in NUMBERS],
    "regression": [{"first": f"a {n}", "second": "b", "score": n / 10} for n in NUMBERS],
    "choice": [{"prompt": f"the cat {n}", "choices": ["eats", "sleeps"], "label": n % 2} for n in NUMBERS],
    "qa": [{"context": f"the cat {n}", "question": "what ?", "answers": ["cat"], "starts": [4]} for n in NUMBERS],
    "tagging": [{"words": ["the", f"cat{n}"], "labels": ["DET", "NOUN"]} for n in NUMBERS],
    "mlm": [{"text": f"good morning {n}"} for n in NUMBERS],
    "contrastive": [{"anchor": f"cat {n}", "positive": "house", "negative": "bread"} for n in NUMBERS],
}


@pytest.mark.parametrize("format", OWN)
def test_ones_own_data_of_each_format_are_read_and_divided(tmp_path: Path, inputs: Inputs, format: str) -> None:
    file = write(tmp_path / f"my.{format}.jsonl", OWN[format])
    data = loaded(inputs, intermediate=(f"{format}:{file}",))
    assert data.task.format == format
    assert "." not in data.task.name
    assert len(data.prepared) + len(data.dev) == 60
    assert 3 < len(data.dev) < 25
    assert data.log.read == 60
    assert data.log.unusable == 0
    trained = set(ids(data))
    held = {tuple(r.tolist()) for u in inputs.units(data.task, data.dev) for r in u.rows}
    if format not in ("pair", "contrastive", "choice", "tagging", "regression"):  # numbers are unknown words there
        assert trained
    assert held
    again = loaded(inputs, intermediate=(f"{format}:{file}",))
    assert ids(again) == ids(data)
    assert again.dev == data.dev


@pytest.mark.parametrize("name", ["notes.md", "text", "a.TXT", "c4.en.txt", "book.rst", "lines.txt.gz"])
def test_plain_text_may_have_any_name(tmp_path: Path, inputs: Inputs, name: str) -> None:
    import gzip

    content = "".join(f"good morning {n}\n\n" for n in range(40)).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    data = loaded(inputs, mlm=(str(tmp_path / name),))
    assert (data.task.format, data.task.metric) == ("mlm", "token_accuracy")
    assert len(data.prepared) + len(data.dev) == 40
    assert all(group(e).startswith("good morning") for e in data.dev)


def test_a_file_called_train_is_named_by_its_folder(tmp_path: Path) -> None:
    write(tmp_path / "mine/train.jsonl", OWN["single"])
    for name in (tmp_path / "mine/train.jsonl", tmp_path / "mine"):
        [request] = task_requests(config(intermediate=(f"single:{name}",)), target=False)
        assert request.task.name == "mine"


def test_two_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(tmp_path / folder / "mine.jsonl", OWN["single"])
    names = tuple(f"single:{tmp_path / folder / 'mine.jsonl'}" for folder in ("a", "b"))
    with pytest.raises(XtError, match="Two tasks are called mine"):
        task_requests(config(intermediate=names), target=False)


# --- languages ---


def spoken(count: int) -> list[dict[str, Any]]:
    """Half German, half without a language."""
    rows = [{"text": f"we eat {n}", "label": "ab"[n // 2 % 2]} for n in range(count)]
    return [{**row, "language": "de"} if n % 2 else row for n, row in enumerate(rows)]


def test_rows_are_trained_on_in_every_language_they_name(tmp_path: Path, inputs: Inputs) -> None:
    name = f"single:{write(tmp_path / 'mine.jsonl', spoken(200))}"
    data = loaded(inputs, intermediate=(name,))
    assert len(data.prepared) + len(data.dev) == 200
    counted = [log.languages for log in (data.log, data.dev_log)]
    assert {code: sum(c[code] for c in counted) for code in counted[0]} == {"und": 100, "deu": 100}
    assert [sum(c.values()) for c in counted] == [len(data.prepared), len(data.dev)]
    german = loaded(inputs, intermediate=(name,), languages="German")
    assert len(german.prepared) + len(german.dev) == 100
    assert german.log.languages.keys() == {"deu"}
    assert len(loaded(inputs, intermediate=(name,), languages="High-Resource").prepared) == len(german.prepared)
    assert german.log.left_out["und"] + german.dev_log.left_out["und"] == 100
    with pytest.raises(XtError, match=r"no training examples in the requested languages; it has: (und|deu) \d+, "):
        loaded(inputs, intermediate=(name,), languages="fra")


@pytest.mark.parametrize("format", ["mlm", "contrastive"])
def test_languages_are_counted_where_there_are_no_labels(tmp_path: Path, inputs: Inputs, format: str) -> None:
    rows = [{**row, "language": ("swa", "fra")[n % 2]} for n, row in enumerate(OWN[format])]
    file = write(tmp_path / "mine.jsonl", rows)
    data = loaded(inputs, intermediate=(f"{format}:{file}",))
    assert {c: data.log.languages[c] + data.dev_log.languages[c] for c in ("swh", "fra")} == {"swh": 30, "fra": 30}


def test_translated_files_may_name_their_language(tmp_path: Path, inputs: Inputs) -> None:
    english = write(tmp_path / "mine.jsonl", pair_rows(60))
    german = write(tmp_path / "more.jsonl", [{**row, "language": "deu"} for row in pair_rows(30, "brot")])
    name = f"pair:{english}"
    both = loaded(inputs, intermediate=(name,), translated={name: (str(german),)})
    assert both.log.languages["deu"] == 30
    table = loaded(inputs, intermediate=("sick",), data={"sick": (str(sick_file(tmp_path)),)})
    assert len(table.prepared) + len(table.dev) == 30


def sick_file(folder: Path) -> Path:
    """A file in SICK's layout whose rows name a language, all German."""
    file = folder / "sick.txt"
    head = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\tlanguage"
    rows = [f"{n}\tdas haus {n}\tdie katze\t3.0\t{('NEUTRAL', 'ENTAILMENT')[n % 2]}\tdeu" for n in range(30)]
    file.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return file


def test_languages_without_own_files_are_refused() -> None:
    with pytest.raises(XtError, match="no task is of your own files"):
        config(intermediate=("sick",), languages="deu")
    with pytest.raises(XtError, match="languages names none"):
        config(intermediate=("single:x",), languages=" , ")


# --- parts ---


@pytest.mark.parametrize("name", ["sick", "xquad-en", "cosmosqa"])
def test_what_is_trained_on_and_what_is_held_out_share_no_text(data_dir: Path, inputs: Inputs, name: str) -> None:
    from xt.core.data.examples import ReadLog
    from xt.core.data.source_rows import examples

    made = config(intermediate=(name,), data_dir=data_dir, dev_limit=10**6)
    [request] = task_requests(made, target=False)
    data = load(made, request, inputs, "hash", said.append)
    trained = [e for s in request.train for e in examples(s, ReadLog())]
    assert data.prepared.facts["examples"] == len(trained)
    assert not {group(e) for e in trained} & {group(e) for e in data.dev}
    assert len(data.dev) == pytest.approx(0.2 * (len(data.dev) + len(trained)), rel=0.25)
    assert "is trained on, the rest held out" in data.note


def test_translated_files_are_trained_on_and_not_scored(tmp_path: Path, inputs: Inputs) -> None:
    english = write(tmp_path / "mine.jsonl", pair_rows(300))
    german = write(tmp_path / "mine.dev.de.jsonl", pair_rows(90, "brot"))  # whatever it is called
    name = f"pair:{english}"
    plain = loaded(inputs, intermediate=(name,))
    both = loaded(inputs, intermediate=(name,), translated={name: (str(german),)})
    assert len(both.prepared) == len(plain.prepared) + 90
    assert both.dev == plain.dev
    assert not any("brot" in e.first for e in both.dev if isinstance(e, PairExample))
    assert set(both.log.files) == {str(english), str(german)}
    assert both.log.read == 390


def test_named_files_of_a_table_task_win(data_dir: Path, tmp_path: Path, inputs: Inputs) -> None:
    lines = (data_dir / "english/RTE.train.tsv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "train.tsv").write_text("\n".join(lines[:101]), encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("\n".join([lines[0], *lines[101:131]]), encoding="utf-8")
    files = {"rte": (str(tmp_path / "train.tsv"), str(tmp_path / "dev.tsv"))}
    data = loaded(inputs, intermediate=("rte",), data=files, data_dir=data_dir)
    assert (len(data.prepared), len(data.dev), data.note) == (100, 30, "")
    phase = config(target="rte", data=files)
    [request] = task_requests(phase, target=True)
    assert ids(load(phase, request, inputs, "hash", said.append)) == ids(data)


def test_a_limit_takes_so_many_and_always_the_same(tmp_path: Path, inputs: Inputs) -> None:
    name = f"pair:{write(tmp_path / 'mine.jsonl', pair_rows(300))}"
    whole = loaded(inputs, intermediate=(name,))
    some = loaded(inputs, intermediate=(name,), limit=50, dev_limit=20)
    assert (len(some.prepared), len(some.dev)) == (50, 20)
    assert set(ids(some)) <= set(ids(whole))
    assert ids(loaded(inputs, intermediate=(name,), limit=50, dev_limit=20)) == ids(some)
    other = loaded(inputs, intermediate=(name,), limit=50, dev_limit=20, seed=1)
    assert other.prepared.folder != some.prepared.folder
    assert other.dev != some.dev


# --- rows that cannot be used ---


@pytest.mark.parametrize(("bad", "stops"), [(1, False), (2, False), (5, True)])
def test_more_than_one_in_a_hundred_unusable_rows_stop(tmp_path: Path, inputs: Inputs, bad: int, stops: bool) -> None:
    rows = pair_rows(300)
    for n in range(bad):
        rows[7 + n]["second"] = ""
    name = f"pair:{write(tmp_path / 'mine.jsonl', rows)}"
    if not stops:
        data = loaded(inputs, intermediate=(name,))
        assert (data.log.read, data.log.unusable) == (300 - bad, bad)
        assert data.log.first[0] == f"{tmp_path / 'mine.jsonl'}, line 8: second is empty."
        return
    for _ in range(2):  # found in the cache, it is no better
        with pytest.raises(XtError, match=r"mine, training data: 5 of 300 rows.*\n.*mine\.jsonl, line 8: second is"):
            loaded(inputs, intermediate=(name,))
    assert loaded(inputs, intermediate=(name,), allow_unusable=0.02).log.unusable == 5


def test_no_examples_are_an_error_that_names_the_part(tmp_path: Path, inputs: Inputs) -> None:
    name = f"single:{write(tmp_path / 'mine.jsonl', [{'text': 'a', 'label': 'x', 'split': 'train'}])}"
    with pytest.raises(XtError, match="mine has no dev examples"):
        loaded(inputs, intermediate=(name,))


# --- found again by content ---


def test_the_same_bytes_elsewhere_are_not_tokenised_again(tmp_path: Path, inputs: Inputs) -> None:
    rows = pair_rows(200)
    rows[7]["second"] = ""
    first = write(tmp_path / "a/mine.jsonl", rows)
    before = loaded(inputs, intermediate=(f"pair:{first}",))
    second = write(tmp_path / "b/mine.jsonl", rows)
    said.clear()
    after = loaded(inputs, intermediate=(f"pair:{second}",))
    assert said == []
    assert after.prepared.folder == before.prepared.folder
    assert list(before.log.files) == [str(first)]
    assert list(after.log.files) == [str(second)]  # named as they are called now
    assert after.log.first == [f"{second}, line 8: second is empty."]
    assert list(after.log.files.values()) == list(before.log.files.values())


def test_whatever_changes_the_units_changes_the_folder(tmp_path: Path, inputs: Inputs, tiny_folder: Path) -> None:
    rows = pair_rows(100)
    file = write(tmp_path / "mine.jsonl", rows)
    name = f"pair:{file}"
    folders = [loaded(inputs, intermediate=(name,)).prepared.folder]
    folders.append(loaded(inputs, "another tokenizer", intermediate=(name,)).prepared.folder)
    shorter = Inputs(tiny_folder / "tokenizer.json", resolve(str(tiny_folder)).spec, max_length=16)
    folders.append(loaded(shorter, intermediate=(name,)).prepared.folder)
    folders.append(loaded(inputs, intermediate=(name,), limit=10).prepared.folder)
    folders.append(loaded(inputs, intermediate=(name,), limit=11).prepared.folder)
    write(tmp_path / "whole/train.jsonl", rows)  # the same bytes, but not divided
    write(tmp_path / "whole/dev.jsonl", pair_rows(5, "x"))
    folders.append(loaded(inputs, intermediate=(f"pair:{tmp_path / 'whole'}",)).prepared.folder)
    write(file, [*rows[:-1], {**rows[-1], "second": "we eat 98"}])  # a byte
    folders.append(loaded(inputs, intermediate=(name,)).prepared.folder)
    write(file, [*rows[:-1], {**rows[-1], "label": "maybe"}])
    folders.append(loaded(inputs, intermediate=(name,)).prepared.folder)
    assert len(set(folders)) == len(folders)
    write(file, rows)
    assert loaded(inputs, intermediate=(name,)).prepared.folder == folders[0]
    same = loaded(inputs, intermediate=(name,), seed=3, batch=7, dev_limit=9, allow_unusable=0.5)
    assert same.prepared.folder == folders[0]


# --- CCGbank and images ---


def test_a_ccgbank_folder_gives_its_own_labels(tmp_path: Path, inputs: Inputs) -> None:
    for section, categories in (("02", "N NP"), ("21", "N"), ("00", "N NP")):
        file = tmp_path / f"ccgbank/data/AUTO/{section}/wsj_{section}01.auto"
        file.parent.mkdir(parents=True)
        lines = [
            f"ID=wsj_{section}01.{n} PARSER=GOLD NUMPARSE=1\n(<L {c} NN NN word{n} {c}>)\n"
            for n, c in enumerate(categories.split())
        ]
        file.write_text("".join(lines))
    data = loaded(inputs, intermediate=("ccg",), data_dir=tmp_path)
    assert data.task.labels == ("N", "NP")
    assert [e.words for e in data.dev] == [("word0",), ("word1",)]  # type: ignore[union-attr]
    assert [e.labels for e in data.dev] == [(0,), (1,)]  # type: ignore[union-attr]
    labels = [data.prepared.unit(i).labels for i in range(len(data.prepared))]
    assert [int(row[row >= 0][0]) for row in labels if row is not None] == [0, 1, 0]
    before = data.prepared.folder
    assert loaded(inputs, intermediate=("ccg",), data={"ccg": (str(tmp_path / "ccgbank"),)}).prepared.folder == before
    (tmp_path / "ccgbank/data/AUTO/21/wsj_2101.auto").write_text("ID=x PARSER=GOLD NUMPARSE=1\n(<L N NN NN b N>)\n")
    assert loaded(inputs, intermediate=("ccg",), data_dir=tmp_path).prepared.folder != before


def image_folder(path: Path) -> Path:
    path.mkdir()
    np.save(path / "images.npy", np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32))
    splits = ["train"] * 6 + ["dev"] * 2 + ["test"]
    rows = [
        {"image": n, "text": f"{word} cat", "language": language, "split": split}
        for n, split in enumerate(splits)
        for language, word in (("eng", "the"), ("deu", "guten"))
    ]
    write(path / "captions.jsonl", rows)
    return path


@pytest.mark.parametrize("where", ["image_text", "intermediate"])
def test_image_text_takes_english_captions_and_their_images(tmp_path: Path, inputs: Inputs, where: str) -> None:
    folder = image_folder(tmp_path / "my.set")
    name = str(folder) if where == "image_text" else f"image-text:{folder}"
    data = loaded(inputs, **{where: (name,)})
    assert (data.task.name, data.task.format) == ("my-set", "image-text")
    assert [int(data.prepared.unit(i).targets[0]) for i in range(len(data.prepared))] == [0, 1, 2, 3, 4, 5]
    assert images_of(data.dev) == [6, 7]
    assert data.images.shape == (9, 4)
    assert data.options == {"image_dim": 4, "loss": "clip"}
    assert len(data.log.files) == 2
    assert (data.log.languages, data.log.left_out) == ({"eng": 6}, {"deu": 6})
    both = loaded(inputs, **{where: (name,), "languages": "de,en"})
    assert (len(both.prepared), len(both.dev), both.log.left_out) == (12, 4, {})
    assert len(loaded(inputs, **{where: (name,), "languages": "all"}).prepared) == 12
    assert loaded(inputs, **{where: (name,), "image_loss": "siglip"}).options["loss"] == "siglip"


def test_the_samples_need_no_folder(inputs: Inputs) -> None:
    data = loaded(inputs, intermediate=("sample-qa",))
    assert data.origin == "sample"
    assert all(isinstance(e, QaExample) for e in data.dev)
    assert replace(data, note="x").log.read == data.log.read > 100
