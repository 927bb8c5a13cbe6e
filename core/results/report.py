"""What a report says: the task, the encoders or heads that were measured, and every figure.

A direction is a direction of retrieval (`foreign-english`); a group is `all` or a class of languages (`low`). A field
that was not measured is None, or empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xt.core.results.records import Record, number
from xt.core.results.tasks import Layers, Mining, Summary
from xt.core.results.work import Parity, Serving, Training

if TYPE_CHECKING:
    from xt.core.encoder.spec import EncoderSpec

Interval = tuple[float, float]
"""The ends of a 95 % interval."""
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


# -- calibration -------------------------------------------------------------------------------------------------------


@dataclass
class Bin(Record):
    """A bin of a reliability diagram."""

    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    """Mean stated probability."""
    accuracy: float | None = None
    """Share that was right."""
    count: int | None = None
    consistency: Interval | None = None
    """Where 95 % of the shares of a calibrated bin lie."""


@dataclass
class Measures(Record):
    """How far stated probabilities are from what was right, in one language or as means over several.

    `_ci` is the 95 % interval, `_null` what a perfectly calibrated model would show on as many queries.
    """

    n: int | None = None
    accuracy: float | None = None
    accuracy_ci: Interval | None = None
    mean_confidence: float | None = None
    ece: float | None = None
    ece_ci: Interval | None = None
    ece_null: float | None = None
    nll: float | None = None
    brier: float | None = None
    auroc: float | None = None
    aurc: float | None = None
    temperature: float | None = None
    fallback: str | None = None
    """What was applied in place of a fit of its own."""
    reliability: list[Bin] = field(default_factory=list)
    risk_coverage: list[Interval] = field(default_factory=list)
    """Pairs of the share answered and the share of those that is wrong."""

    @property
    def excess(self) -> float | None:
        """How far the ECE lies above what a perfectly calibrated model would show."""
        return None if self.ece is None or self.ece_null is None else self.ece - self.ece_null


@dataclass
class Method(Record):
    """One method of calibration."""

    label: str | None = None
    temperature: float | None = None
    overall: Measures = field(default_factory=Measures)
    by_resource: dict[str, Measures] = field(default_factory=dict)
    languages: dict[str, Measures] = field(default_factory=dict)
    reliability: list[Bin] = field(default_factory=list)
    """Of all languages together."""
    risk_coverage: list[Interval] = field(default_factory=list)


@dataclass
class Shots(Record):
    """What some labelled queries a language give."""

    ece: float | None = None
    ece_ci: Interval | None = None
    ece_null: float | None = None
    ece_excess: float | None = None
    worst_ece_excess: float | None = None
    languages: int | None = None


@dataclass
class Calibration(Record):
    """Every method of calibration on one set of answers."""

    fit_languages: list[str] = field(default_factory=list)
    methods: dict[str, Method] = field(default_factory=dict)
    shots: dict[str, dict[str, Shots]] = field(default_factory=dict)
    """How many labelled queries -> method -> what they give."""
    notes: list[str] = field(default_factory=list)


@dataclass
class Refusal(Record):
    """What refusing below a threshold gives."""

    threshold: float | None = None
    coverage: float | None = None
    risk: float | None = None
    """The share of wrong answers that the threshold was chosen for."""
    risk_found: float | None = None


@dataclass
class UnanswerableRow(Record):
    """How queries without an answer are recognised, in one language or as means over several."""

    auroc: float | None = None
    auroc_ci: Interval | None = None
    ece: float | None = None
    ece_null: float | None = None
    none_ece: float | None = None
    none_ece_null: float | None = None
    coverage: float | None = None
    risk_found: float | None = None
    refusal: Refusal = field(default_factory=Refusal)


@dataclass
class UnanswerableMethod(Record):
    """One way to fit the probability of "none of these"."""

    label: str | None = None
    languages: dict[str, UnanswerableRow] = field(default_factory=dict)
    overall: UnanswerableRow = field(default_factory=UnanswerableRow)


@dataclass
class Unanswerable(Record):
    """Half of the queries without an answer."""

    risk: float | None = None
    methods: dict[str, UnanswerableMethod] = field(default_factory=dict)


@dataclass
class SetsRow(Record):
    """Conformal sets in one language, or as means over several."""

    coverage: float | None = None
    coverage_ci: Interval | None = None
    mean_size: float | None = None
    median_size: float | None = None
    unbounded: float | None = None
    """Queries whose set holds all candidates."""


@dataclass
class SetsScope(Record):
    """Conformal sets by one kind of threshold."""

    languages: dict[str, SetsRow] = field(default_factory=dict)
    overall: SetsRow = field(default_factory=SetsRow)


@dataclass
class Conformal(Record):
    """Sets of answers that promise to hold the right one."""

    alpha: float | None = None
    """Share of the sets that may lack it."""
    scopes: dict[str, SetsScope] = field(default_factory=dict)


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
class Compared(Record):
    """One of two reports that are compared."""

    path: str | None = None
    hash: str | None = None
    encoder: str | None = None
    method: str | None = None
    """Of calibration."""
    created: str | None = None


@dataclass
class Difference(Record):
    """Both sides in one language, or as means over several: measure -> figure."""

    n: int | None = None
    n_languages: int | None = None
    a: dict[str, float | None] = field(default_factory=dict)
    b: dict[str, float | None] = field(default_factory=dict)
    difference: dict[str, float | None] = field(default_factory=dict)
    """Of the second less the first."""
    ci: dict[str, Interval | None] = field(default_factory=dict)
    p: dict[str, float | None] = field(default_factory=dict)
    beyond_chance: dict[str, bool] = field(default_factory=dict)


@dataclass
class Differences(Record):
    """Differences in one direction."""

    languages: dict[str, Difference] = field(default_factory=dict)
    by_resource: dict[str, Difference] = field(default_factory=dict)
    overall: Difference = field(default_factory=Difference)


@dataclass
class Comparison(Record):
    """Two reports of one task, compared query by query."""

    names: list[str] = field(default_factory=list)
    """What the two sides are called."""
    a: Compared = field(default_factory=Compared)
    b: Compared = field(default_factory=Compared)
    repeats: int | None = None
    seed: int | None = None
    level: float | None = None
    """Share of false alarms that all flags of one measure together may have."""
    directions: dict[str, Differences] = field(default_factory=dict)
    """The direction is empty where a task has none."""
    left_out: dict[str, list[list[str]]] = field(default_factory=dict)
    """Direction -> the languages that only the first has, and only the second."""
    only: list[list[str]] = field(default_factory=list)
    """The directions that only the first has, and only the second."""


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
