"""What a report says: the task, the encoders or heads that were measured, and every figure.

A direction is a direction of retrieval (`foreign-english`); a group is `all` or a class of languages (`low`). A field
that was not measured is None, or empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xt.core.results.calibration import Calibration, Conformal, Unanswerable
from xt.core.results.comparison import Comparison
from xt.core.results.records import Interval, Record, number
from xt.core.results.tasks import Layers, Mining, Summary
from xt.core.results.work import Parity, Serving, Training

if TYPE_CHECKING:
    from xt.core.encoder.spec import EncoderSpec

Means = dict[str, float]
"""Group -> mean over its languages."""


@dataclass
class Task(Record):
    """What was measured on."""

    name: str | None = None
    title: str | None = None
    description: str | None = None
    licence: str | None = None
    languages: int | None = None
    pairs: int | None = None


@dataclass
class Machine(Record):
    """What the numbers were measured on."""

    cpu: str | None = None
    cores: int | None = None
    memory_gib: float | None = None
    gpu: str | None = None
    python: str | None = None
    packages: dict[str, Any] = field(default_factory=dict)
    """Name -> version."""


@dataclass
class Language(Record):
    """What is known of a language."""

    name: str | None = None
    resource: str | None = None
    """Its class: high, mid or low."""
    script: str | None = None
    family: str | None = None
    joshi: int | None = None


# -- retrieval ---------------------------------------------------------------------------------------------------------


@dataclass
class Copies(Record):
    """Texts that repeat another."""

    documents: int | None = None
    queries: int | None = None

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.documents or self.queries)


@dataclass
class RetrievalRow(Record):
    """How one language's sentences were found."""

    n: int | None = None
    """Queries."""
    candidates: int | None = None
    accuracy: float | None = None
    accuracy_ci: Interval | None = None
    mrr: float | None = None
    accuracy_by_text: float | None = None
    accuracy_by_text_ci: Interval | None = None
    copies: Copies = field(default_factory=Copies)
    f1: float | None = None
    """Weighted, as MTEB has it."""
    accuracy_pool: float | None = None
    """Among equally many candidates in every language."""


@dataclass
class Retrieval(Record):
    """Retrieval of translations in one direction."""

    mean: Means = field(default_factory=dict)
    languages: dict[str, RetrievalRow] = field(default_factory=dict)
    convention: str | None = None
    """Whose this direction is."""
    f1: Means = field(default_factory=dict)
    groups: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """What languages are grouped by -> group -> its mean accuracy and number of languages."""
    pool: int | None = None
    """Candidates of the equal pools."""
    pool_mean: Means = field(default_factory=dict)
    pool_missing: list[str] = field(default_factory=list)
    """Languages with fewer candidates."""
    by_text: Means = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


# -- what answered -----------------------------------------------------------------------------------------------------


@dataclass
class Encoder(Record):
    """An encoder, or what heads stand on, and what was measured of it."""

    name: str | None = None
    label: str | None = None
    """The name of the encoder that it was made from."""
    provenance: str | None = None
    precision: str | None = None
    engine: str | None = None
    """pytorch, onnxruntime or triton."""
    dim: int | None = None
    retrieval: dict[str, Retrieval] = field(default_factory=dict)
    """By direction."""
    calibration: dict[str, Calibration] = field(default_factory=dict)
    truncated: int | None = None
    """Texts that were cut."""
    notes: list[str] = field(default_factory=list)
    none_of_these: dict[str, Unanswerable] = field(default_factory=dict)
    conformal: dict[str, Conformal] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    kept_vectors: int | None = None
    """Vectors that were not encoded again."""
    parity: Parity | None = None

    @classmethod
    def of(cls, spec: EncoderSpec, *, name: str | None = None, precision: str, engine: str) -> Encoder:
        """Name what is measured; without a name it has its encoder's."""
        return cls(
            name=name or spec.name,
            label=spec.name,
            provenance=spec.provenance,
            precision=precision,
            engine=engine,
            dim=spec.dim,
        )


# -- other tasks -------------------------------------------------------------------------------------------------------


@dataclass
class Scores(Record):
    """The scores of one language: under each metric's name a figure, under `<name>_ci` its interval."""

    n: int | None = None

    def score(self, name: str) -> float | None:
        """Return a figure, None where it is missing."""
        return number(self.extra.get(name))

    def interval(self, name: str) -> Any:
        """Return the interval of a figure, None where there is none."""
        return self.extra.get(f"{name}_ci")


@dataclass
class LabelRow(Record):
    """How one label was answered."""

    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    support: int | None = None
    """How often it is right."""
    given: int | None = None
    """How often it was answered."""


@dataclass
class Labels(Record):
    """What was taken for what, of the labels that are right or given somewhere."""

    macro_f1: float | None = None
    labels: dict[str, LabelRow] = field(default_factory=dict)
    matrix: list[list[int]] = field(default_factory=list)
    """Right labels in rows, given ones in columns, in the order of `labels`."""
    not_read: list[int] = field(default_factory=list)
    """Of each label the words that were cut off."""
    confusions: list[Any] = field(default_factory=list)
    """Of many labels the commonest confusions: right, given, how often."""


@dataclass
class Classes(Record):
    """The labels of a head, over all languages and in each."""

    of: str | None = None
    """What has a label: examples or words."""
    all: Labels = field(default_factory=Labels)
    languages: dict[str, Labels] = field(default_factory=dict)


@dataclass
class Classification(Record):
    """The scores of a trained head."""

    task: str | None = None
    metric: str | None = None
    head: str | None = None
    mean: dict[str, Means] = field(default_factory=dict)
    """Metric -> group -> mean."""
    languages: dict[str, Scores] = field(default_factory=dict)
    classes: Classes | None = None
    notes: list[str] = field(default_factory=list)
    images: int | None = None
    chance: dict[str, float] = field(default_factory=dict)


@dataclass
class Ranked(Record):
    """Documents ranked for queries."""

    metric: str | None = None
    measures: list[str] = field(default_factory=list)
    mean: dict[str, Means] = field(default_factory=dict)
    """Measure -> group -> mean."""
    languages: dict[str, Scores] = field(default_factory=dict)
    """Of the queries."""
    documents: int | None = None
    truncated: list[int] = field(default_factory=list)
    """Queries and documents that were cut."""
    copies: Copies = field(default_factory=Copies)
    prefixes: dict[str, str] = field(default_factory=dict)
    """Of queries and documents; `default` is the encoder's own."""
    notes: list[str] = field(default_factory=list)


@dataclass
class Example(Record):
    """One answer, with its texts."""

    language: str | None = None
    direction: str | None = None
    encoder: str | None = None
    query: str | None = None
    answer: str | None = None
    gold: str | None = None
    correct: bool | None = None
    probability: float | None = None


@dataclass
class Artefact(Record):
    """A folder that the run wrote."""

    label: str | None = None
    path: str | None = None


@dataclass
class Report(Record):
    """The whole of a report: metrics.json, and what `xt eval --json` prints."""

    schema: int = 1
    title: str | None = None
    created: str | None = None
    command: str | None = None
    xt_version: str | None = None
    machine: Machine = field(default_factory=Machine)
    task: Task = field(default_factory=Task)
    languages: dict[str, Language] = field(default_factory=dict)
    encoders: list[Encoder] = field(default_factory=list)
    """The last is the subject, the first what it is compared with."""
    examples: list[Example] = field(default_factory=list)
    worst: list[Example] = field(default_factory=list)
    """The wrong answers that were given with the most confidence."""
    data: dict[str, str] = field(default_factory=dict)
    """What was read -> its SHA-256."""
    classification: Classification | None = None
    calibration: dict[str, Calibration] = field(default_factory=dict)
    """Of heads, by task."""
    ranked: Ranked | None = None
    mining: Mining | None = None
    layers: Layers | None = None
    comparison: Comparison | None = None
    summary: Summary | None = None
    training: Training | None = None
    serving: Serving | None = None
    notes: list[str] = field(default_factory=list)
    artefacts: list[Artefact] = field(default_factory=list)
