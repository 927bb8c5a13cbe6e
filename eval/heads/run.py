"""`xt eval` on trained heads: from the tasks that heads answer to their report folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from xt.core.data.tasks import Task
from xt.core.errors import UsageError, XtError
from xt.core.reporter import Reporter, Say
from xt.core.results.folder import ReportFolder
from xt.eval.heads import classify, engines, targets
from xt.eval.heads.engines import HeadEngine, head_for, own_head
from xt.eval.heads.targets import Target
from xt.eval.options import Measures, TaskRequest
from xt.serve.options import EncoderLocation


@dataclass
class HeadTasks:
    """The tasks of a run that heads answer, with their test examples, read before anything is computed."""

    location: EncoderLocation
    tests: dict[Path, Target]
    """Folder of the report -> what is measured."""
    heads: HeadEngine | None = None
    """Opened when they are needed."""

    @classmethod
    def read(
        cls, location: EncoderLocation, requests: Sequence[TaskRequest], measures: Measures, *, say: Say
    ) -> HeadTasks:
        """Read the test examples of every task; XtError or a usage error where no head can answer it."""
        rows = {request: task_of_heads(request.name, measures.layers) for request in requests}
        heads = None
        if any(row.own for row in rows.values()):  # the labels of a user's own data are those of the head
            heads = open_heads(location)
        tests = {r.out: read_test(row, r, heads=heads, head=measures.head, say=say) for r, row in rows.items()}
        return cls(location, tests, heads)

    def evaluate(self, *, force: bool, reporter: Reporter) -> Iterator[tuple[Path, ReportFolder]]:
        """Yield the folder that was requested and the report of each task."""
        heads = self.heads = self.heads or open_heads(self.location)
        for test in self.tests.values():
            head_for(test.task, heads.tasks)
        for out, test in self.tests.items():
            yield out, evaluate_head(heads, test, out, force=force, reporter=reporter)


def task_of_heads(name: str, layers: str | None) -> Task:
    """Return the task that a head answers; XtError or a usage error when none can."""
    row = targets.find(name)
    if row is None:
        raise XtError(f"{name} is not answered by a head.", "See `xt tasks`.")
    if layers is not None:
        raise UsageError(f"--layers measures retrieval; {name} is answered by a head")
    return row


def open_heads(location: EncoderLocation) -> HeadEngine:
    """Open the heads that --encoder or --url names."""
    url, model, tls = location.url, location.model, location.server.tls()
    return engines.open_heads(location.encoder, url=url, model=model, device=location.device, tls=tls)


def read_test(
    task: Task, request: TaskRequest, *, heads: HeadEngine | None = None, head: str | None = None, say: Say
) -> Target:
    """Read the test examples of a task, and report which of its languages are not there.

    A user's own data have the labels of the head, of `heads`, that answers them: that called `head`, or the one that
    can.
    """
    answering = own_head(task, heads.tasks, head) if task.own and heads is not None else None
    test = targets.read(task, data_dir=request.data_dir, selection=request.languages, head=answering)
    count, split = sum(len(examples) for examples in test.examples.values()), test.facts["split"]
    what = "examples, the whole of the data," if split == "all" else f"{split} examples"
    say(f"{task.title}: {count:,} {what} in {len(test.examples)} languages")
    if answering is not None:
        say(f"{task.name} is answered by the head {answering.name}")
    for note in test.facts.get("notes", []):
        say(f"{task.name}: {note}")
    if test.missing:
        say(f"{len(test.missing)} of the task's {len(test.task.codes)} languages are not in the data folder")
    return test


def evaluate_head(
    heads: HeadEngine, test: Target, out: Path, *, force: bool = False, reporter: Reporter = Reporter()
) -> ReportFolder:
    """Measure the head that answers a task, wherever it runs, and write the report."""
    result = classify.classify(
        heads,
        test.task,
        test.examples,
        english=test.english or None,
        notes=test.facts.get("notes", ()),
        progress=reporter.counter("languages"),
        calibrating=reporter.counter("calibrated"),
    )
    return ReportFolder(*classify.write(out, heads, test.task, result, facts={"data": test.facts}, force=force))
