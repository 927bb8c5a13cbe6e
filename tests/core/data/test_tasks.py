"""The table of tasks is whole, and a wrong name is answered with the near one.

Tests `core/data/task_table.py` as well.
"""

import hashlib
import json
import re
from dataclasses import fields

import pytest
import yaml

from xt.core.data import tasks
from xt.core.data.hub_files import hub_patterns, spellings
from xt.core.data.readers.layouts import LAYOUTS
from xt.core.data.sources import SPLITS
from xt.core.data.task_table import FILE, TASKS
from xt.core.data.tasks import FORMATS, KINDS, RETRIEVED, Hub, Task
from xt.core.errors import XtError
from xt.core.languages import LANGUAGES

NINE = "anli+ mnli qqp squad-v2 squad-v1 hellaswag ccg cosmosqa commonsenseqa".split()
XTREME = {"xnli": 15, "paws-x": 7, "udpos": 33, "panx": 40, "mlqa": 7, "tydiqa": 9, "xcopa": 11}
NEEDS = {
    "pair": {"first", "second", "label"},
    "single": {"text", "label"},
    "regression": {"first", "second", "score"},
    "qa": {"context", "question", "answers.text", "answers.answer_start"},
    "tagging": {"words", "tags"},
}
METRICS = "accuracy f1 span_f1 spearman retrieval token_accuracy mining_f1 map@20".split()
UNPINNED = {"sick", "sick-relatedness", "masakhaner", "sib200", "tatoeba"}
"""What the hub holds as Parquet of its own making only."""


def test_the_table_holds_samples_the_nine_and_the_targets() -> None:
    assert [name for name in TASKS if TASKS[name].sample] == [
        "sample-nli",
        "sample-paraphrase",
        "sample-choice",
        "sample-qa",
    ]
    assert set(NINE) <= set(tasks.names("intermediate"))
    vectors = {"tatoeba", "django", "sib200-parallel", "bucc", "tatoeba-mining", "xquad-r", "mewsli-x"}
    assert {"xquad", "masakhaner", "sib200", *vectors, *XTREME} == set(tasks.names("target"))
    assert len(TASKS) == len(tasks.names()) == 37
    assert all(name == task.name for name, task in TASKS.items())


def test_every_field_of_the_file_is_one_that_is_read() -> None:
    rows = yaml.safe_load(FILE.read_text(encoding="utf-8"))["tasks"]
    assert {key for row in rows for key in row} <= {f.name for f in fields(Task)}
    assert {key for row in rows for key in row.get("hub", ())} <= {f.name for f in fields(Hub)}
    assert len({row["name"] for row in rows}) == len(rows)


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_every_row_is_of_known_kinds_and_says_where_its_data_are_from(task: Task) -> None:
    assert task.kind in KINDS
    assert task.format in FORMATS
    assert task.metric in METRICS
    assert task.source
    assert task.licence
    assert task.languages
    assert task.sample == task.title.endswith("(sample)") == bool(task.file)
    assert set(task.codes) <= set(LANGUAGES)
    assert len(set(task.codes)) == len(task.codes)
    assert set(task.sizes) <= set(SPLITS)
    assert task.kind == "target" or task.codes == ("eng",)
    assert json.loads(json.dumps(task.to_json()))["name"] == task.name


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_every_row_has_the_labels_and_the_metric_of_its_format(task: Task) -> None:
    if task.name == "ccg":
        assert "read from it" in task.note  # the labels are those of the user's folder
    else:
        assert (task.format in ("pair", "single", "tagging")) == bool(task.labels)
    assert len(set(task.labels)) == len(task.labels)
    expected = {"regression": "spearman", "qa": "f1", "mining": "mining_f1", "ranked": "map@20"}.get(
        task.format, "accuracy"
    )
    assert task.metric == ("span_f1" if "B-PER" in task.labels else expected)
    assert {task.positive, task.negative} <= {*task.labels, ""}
    assert bool(task.positive) == (task.format == "pair")
    assert task.no_answer == (task.name == "squad-v2")


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_every_row_names_places_that_a_reader_can_read(task: Task) -> None:
    assert task.layout in LAYOUTS
    if task.format not in RETRIEVED and hasattr(LAYOUTS[task.layout], "columns"):
        assert task.format in LAYOUTS[task.layout].columns
    assert set(task.files) <= set(SPLITS)
    for patterns in task.files.values():
        assert patterns
        for pattern in patterns:
            assert not pattern.startswith("/")
            for code in task.codes:
                assert not any(re.search(r"[{}]", spelt) for spelt in spellings(pattern, code)), (pattern, code)


@pytest.mark.parametrize("task", [t for t in TASKS.values() if t.hub], ids=lambda t: t.name)
def test_every_place_on_the_hub_is_pinned_or_said_not_to_be(task: Task) -> None:
    assert task.hub
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", task.hub.id)
    pinned = re.fullmatch(r"[0-9a-f]{40}", task.hub.revision)
    assert pinned or task.hub.revision == "refs/convert/parquet"
    assert (not pinned) == (task.name in UNPINNED)
    assert set(task.hub.splits) <= set(SPLITS)
    assert not task.hub.labels or len(task.hub.labels) == len(task.labels)
    if task.hub.columns and task.format not in RETRIEVED:
        assert NEEDS[task.format] == set(task.hub.columns)
    assert all(p.endswith(".parquet") for c in spellings(task.hub.config, "eng") for p in hub_patterns(c, "train"))


def test_labels_stand_in_the_order_of_the_published_numbers() -> None:
    for name in ("mnli", "snli", "anli+", "xnli", "sick"):
        assert TASKS[name].labels == ("entailment", "neutral", "contradiction")
        assert (TASKS[name].positive, TASKS[name].negative) == ("entailment", "contradiction")
    assert TASKS["rte"].labels == ("entailment", "not_entailment")
    assert TASKS["qqp"].labels == ("not_duplicate", "duplicate")
    assert TASKS["paws-x"].labels == TASKS["mrpc"].labels == ("not_paraphrase", "paraphrase")
    assert TASKS["panx"].labels == ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
    assert TASKS["masakhaner"].labels == (*TASKS["panx"].labels, "B-DATE", "I-DATE")
    assert len(TASKS["udpos"].labels) == 17
    for name in ("udpos", "sib200"):
        assert list(TASKS[name].labels) == sorted(TASKS[name].labels)


def test_targets_have_xtremes_languages() -> None:
    assert {name: len(TASKS[name].codes) for name in XTREME} == XTREME
    assert len(set(TASKS["xquad"].codes) - {"ron"}) == 11
    assert {"swh", "cmn", "ara"} <= set(TASKS["xnli"].codes)
    assert {"pes", "ara", "cmn"} <= set(TASKS["panx"].codes)


def test_tasks_of_tasks_exist_and_share_their_labels_and_format() -> None:
    others = [(t, TASKS[name]) for t in TASKS.values() for name in (*t.parts, t.train_on) if name]
    assert len(others) == 6
    for task, other in others:
        assert (task.labels, task.format) == (other.labels, other.format)
        assert other.kind == "intermediate"
        assert "train" in other.files
    parts = [TASKS["anli+"], *(TASKS[name] for name in TASKS["anli+"].parts)]
    assert sum(part.sizes["train"] for part in parts) == 1_104_934


def test_sample_files_come_with_xt_and_targets_have_none() -> None:
    samples = [task for task in TASKS.values() if task.sample]
    assert len({hashlib.sha256(task.path.read_bytes()).hexdigest() for task in samples}) == 4
    with pytest.raises(XtError, match=r"tatoeba \(bitext\) do not come with xt"):
        _ = TASKS["tatoeba"].path


def test_an_unknown_task_or_kind_is_answered_with_the_nearest() -> None:
    with pytest.raises(XtError, match=r"Unknown task 'sample-nil'. Did you mean sample-nli"):
        tasks.get("sample-nil")
    with pytest.raises(XtError, match=r"Did you mean target\?"):
        tasks.names("targets")
