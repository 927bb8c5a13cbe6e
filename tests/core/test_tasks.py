"""The table of tasks is whole, and a wrong name is answered with the near one."""

import hashlib
import json

import pytest

from xt.core import tasks
from xt.core.errors import XtError
from xt.core.tasks import FORMATS, KINDS, METRICS, TASKS


def test_the_table_holds_four_samples_and_two_targets() -> None:
    assert tasks.names() == ["sample-nli", "sample-paraphrase", "sample-choice", "sample-qa", "tatoeba", "django"]
    assert tasks.names("intermediate") == [name for name in TASKS if name.startswith("sample-")]
    assert tasks.names("target") == ["tatoeba", "django"]


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_every_row_is_of_known_kinds_and_says_where_its_data_are_from(task: tasks.Task) -> None:
    assert task.kind in KINDS
    assert task.format in FORMATS
    assert task.metric in METRICS
    assert task.source
    assert task.licence
    assert task.languages
    assert task.sample == task.title.endswith("(sample)")
    assert (task.format == "pair") == bool(task.labels)
    assert json.loads(json.dumps(task.to_json()))["name"] == task.name


def test_sample_files_come_with_xt_and_targets_have_none() -> None:
    digests = {hashlib.sha256(TASKS[name].path.read_bytes()).hexdigest() for name in tasks.names("intermediate")}
    assert len(digests) == 4
    with pytest.raises(XtError, match="tatoeba is a target task") as error:
        _ = TASKS["tatoeba"].path
    assert "sample-nli" in error.value.hint


def test_an_unknown_task_or_kind_is_answered_with_the_nearest() -> None:
    with pytest.raises(XtError, match=r"Unknown task 'sample-nil'. Did you mean sample-nli"):
        tasks.get("sample-nil")
    with pytest.raises(XtError, match=r"Did you mean target\?"):
        tasks.names("targets")
