"""The tasks xt knows, as a table: what an encoder can be trained on (`intermediate`) and evaluated on (`target`)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xt.core.errors import XtError, unknown

SAMPLES = Path(__file__).parent / "samples"
"""The folder of the training samples that come with xt."""

KINDS = ("intermediate", "target")
FORMATS = ("pair", "choice", "qa", "bitext")
METRICS = ("accuracy", "f1")


@dataclass(frozen=True)
class Task:
    """A row of the table."""

    name: str
    """What the command line calls it."""
    kind: str
    """`intermediate`: trained on; `target`: evaluated on, zero-shot."""
    format: str
    """`pair`: two texts and a label; `choice`: a prompt and numbered continuations; `qa`: a span of a context;
    `bitext`: sentences and their translations."""
    title: str
    labels: tuple[str, ...]
    """The labels in the order of the classifier's outputs; empty where they are positions or spans."""
    languages: str
    metric: str
    """`accuracy` (0 to 1) or `f1` (SQuAD's token F1, 0 to 1)."""
    source: str
    """Where the data come from."""
    licence: str
    sample: bool = False
    """Whether the data are a small sample that comes with xt, no benchmark."""
    file: str = ""
    """The data file below `SAMPLES`; empty where the data do not come with xt."""
    fields: tuple[str, ...] = ()
    """Names of the text fields in a row of the file."""

    @property
    def path(self) -> Path:
        """The data file; XtError when the task's data do not come with xt."""
        if not self.file:
            raise XtError(
                f"{self.name} is a {self.kind} task ({self.format}) without training examples.",
                f"Train on: {', '.join(names('intermediate'))}.",
            )
        return SAMPLES / self.file

    def to_json(self) -> dict[str, Any]:
        """As `xt tasks --json` lists it."""
        return asdict(self)


_WRITTEN = "written for xt; shipped with it; a sample, not a benchmark"

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "sample-nli",
            kind="intermediate",
            format="pair",
            title="Natural language inference (sample)",
            labels=("entailment", "neutral", "contradiction"),
            languages="English",
            metric="accuracy",
            source=_WRITTEN,
            licence="Apache-2.0",
            sample=True,
            file="nli.jsonl",
            fields=("premise", "hypothesis"),
        ),
        Task(
            "sample-paraphrase",
            kind="intermediate",
            format="pair",
            title="Paraphrase detection (sample)",
            labels=("not_paraphrase", "paraphrase"),
            languages="English",
            metric="accuracy",
            source=_WRITTEN,
            licence="Apache-2.0",
            sample=True,
            file="paraphrase.jsonl",
            fields=("sentence1", "sentence2"),
        ),
        Task(
            "sample-choice",
            kind="intermediate",
            format="choice",
            title="Multiple choice, common sense (sample)",
            labels=(),
            languages="English",
            metric="accuracy",
            source=_WRITTEN,
            licence="Apache-2.0",
            sample=True,
            file="choice.jsonl",
            fields=("prompt", "choices"),
        ),
        Task(
            "sample-qa",
            kind="intermediate",
            format="qa",
            title="Extractive question answering (sample)",
            labels=(),
            languages="English",
            metric="f1",
            source=_WRITTEN,
            licence="Apache-2.0",
            sample=True,
            file="qa.jsonl",
            fields=("context", "question", "answer"),
        ),
        Task(
            "tatoeba",
            kind="target",
            format="bitext",
            title="Tatoeba sentence translations, up to 1,000 pairs a language",
            labels=(),
            languages="112 languages with English",
            metric="accuracy",
            source="LASER's Tatoeba v1, line-aligned files tatoeba.<lang>-eng.<lang> and .eng; "
            "Artetxe & Schwenk 2019, arXiv 1812.10464",
            licence="CC BY 2.0 FR",
        ),
        Task(
            "django",
            kind="target",
            format="bitext",
            title="Django's translated interface sentences",
            labels=(),
            languages="the locales of Django 5.2 with English",
            metric="accuracy",
            source="the message catalogues (conf/locale) of the installed Django 5.2",
            licence="BSD-3-Clause",
        ),
    )
}
"""Every task by its name."""


def get(name: str) -> Task:
    """Give a task by its name; an unknown one is answered with the near names and the list."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]


def names(kind: str | None = None) -> list[str]:
    """List the names of the tasks of a kind (None: of all), in the order of the table.

    >>> names("target")
    ['tatoeba', 'django']
    """
    if kind is not None and kind not in KINDS:
        raise unknown("kind of task", kind, KINDS)
    return [task.name for task in TASKS.values() if kind in (None, task.kind)]
