"""What a report says of stated probabilities: every method, queries without an answer, conformal sets."""

from __future__ import annotations

from dataclasses import dataclass, field

from xt.core.results.records import Interval, Record


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
class EstimatedAccuracy(Record):
    """The accuracy of a language, estimated without a label of it."""

    value: float | None = None
    low: float | None = None
    """Lower end of its 95 % interval."""
    high: float | None = None
    unknown: str | None = None
    """Why there is no number."""


@dataclass
class Measures(Record):
    """How far stated probabilities are from what was right, in one language or as means over several.

    `_ci` is the 95 % interval, `_null` what a perfectly calibrated model would show on as many queries.
    """

    n: int | None = None
    accuracy: float | None = None
    accuracy_ci: Interval | None = None
    mean_confidence: float | None = None
    gap: float | None = None
    """Mean confidence less accuracy."""
    gap_ci: Interval | None = None
    gap_null: float | None = None
    mean_gap: float | None = None
    """Of several languages the mean of |gap|."""
    mean_gap_ci: Interval | None = None
    mean_gap_null: float | None = None
    ece: float | None = None
    """Over bins of equal mass."""
    ece_ci: Interval | None = None
    ece_null: float | None = None
    ece_equal_width: float | None = None
    slope: float | None = None
    """Of Cox's logistic regression of what was right on the confidence's logit; of several languages on all queries."""
    slope_ci: Interval | None = None
    intercept: float | None = None
    """Beside that slope."""
    in_the_large: float | None = None
    """The intercept where the slope is held at 1."""
    nll: float | None = None
    brier: float | None = None
    auroc: float | None = None
    auroc_ci: Interval | None = None
    aurc: float | None = None
    nauc: float | None = None
    """Of abstention, as MTEB has it."""
    temperature: float | None = None
    fallback: str | None = None
    """What was applied in place of a fit of its own."""
    estimated_accuracy: EstimatedAccuracy = field(default_factory=EstimatedAccuracy)
    """What `predicted` took for the accuracy."""
    reliability: list[Bin] = field(default_factory=list)
    risk_coverage: list[Interval] = field(default_factory=list)
    """Pairs of the share answered and the share of those that is wrong."""

    @property
    def excess(self) -> float | None:
        """How far the ECE lies above what a perfectly calibrated model would show."""
        return None if self.ece is None or self.ece_null is None else self.ece - self.ece_null

    @property
    def off(self) -> float | None:
        """The gap, which reports of before it was measured have in two parts."""
        if self.gap is not None or self.mean_confidence is None or self.accuracy is None:
            return self.gap
        return self.mean_confidence - self.accuracy


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

    mean_gap: float | None = None
    worst_gap: float | None = None
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

    answer: Measures = field(default_factory=Measures)
    """Of the probability that the best answer is right."""
    none: Measures = field(default_factory=Measures)
    """Of the probability that no answer is there."""
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
