"""What is kept of the work around an encoder: training, export, serving."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from xt.core.results.records import Record, number

# -- training ----------------------------------------------------------------------------------------------------------


@dataclass
class Change(Record):
    """A figure before and after training."""

    before: float | None = None
    after: float | None = None


@dataclass
class TrainedTask(Record):
    """One task of a training: its data, and how it went."""

    task: str | None = None
    title: str | None = None
    format: str | None = None
    origin: str | None = None
    licence: str | None = None
    note: str | None = None
    sample: bool | None = None
    """Whether its data are the samples that xt ships."""
    sha256: dict[str, str] = field(default_factory=dict)
    """File -> its hash."""
    train: int | None = None
    dev: int | None = None
    cut: int | None = None
    """Training examples longer than the maximum."""
    unusable: int | None = None
    """Entries that could not be read."""
    first_unusable: list[str] = field(default_factory=list)
    steps: int | None = None
    examples: int | None = None
    tokens: int | None = None
    metric: str | None = None
    majority: float | None = None
    """What always giving the commonest answer scores."""
    majority_label: str | None = None
    before: float | None = None
    after: float | None = None
    others: dict[str, Change] = field(default_factory=dict)
    """Further metrics."""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.task or self.title or "task"


@dataclass
class Loss(Record):
    """The loss of one step."""

    step: int | None = None
    task: str | None = None
    loss: float | None = None


@dataclass
class DevScores(Record):
    """Scores on the development sets at one step."""

    step: int | None = None
    seconds: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    mean: float | None = None


@dataclass
class Training(Record):
    """A training, as its manifest keeps it."""

    encoder: str | None = None
    provenance: str | None = None
    command: str | None = None
    tasks: list[TrainedTask] = field(default_factory=list)
    steps: int | None = None
    planned_steps: int | None = None
    stopped: str | None = None
    """Why it ended before its last step."""
    chosen_step: int | None = None
    """The step whose weights were kept."""
    device: str | None = None
    processes: int | None = None
    precision: str | None = None
    seconds: float | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None
    sampling: str | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    """Task -> the share it was meant to have."""
    losses: list[Loss] = field(default_factory=list)
    dev: list[DevScores] = field(default_factory=list)
    learning_rates: list[tuple[float, float]] = field(default_factory=list)
    """Pairs of a step and its learning rate."""
    config: dict[str, Any] = field(default_factory=dict)

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """Return the losses of each task by step."""
        found: dict[str, list[tuple[float, float]]] = {task.name: [] for task in self.tasks}
        for record in self.losses:
            if record.step is not None and record.loss is not None:
                found.setdefault(record.task or "loss", []).append((record.step, record.loss))
        return {name: sorted(points) for name, points in found.items() if points}


# -- export ------------------------------------------------------------------------------------------------------------


@dataclass
class ParityStage(Record):
    """How near one exported graph comes to PyTorch."""

    stage: str | None = None
    cosine_min: float | None = None
    cosine_p1: float | None = None
    cosine_mean: float | None = None
    neighbour_agreement: float | None = None
    batch_cosine_min: float | None = None
    megabytes: float | None = None


@dataclass
class Parity(Record):
    """What an export measured."""

    sentences: int | None = None
    languages: int | None = None
    thresholds: dict[str, float] = field(default_factory=dict)
    passed: bool | None = None
    stages: list[ParityStage] = field(default_factory=list)


# -- serving -----------------------------------------------------------------------------------------------------------


@dataclass
class ServingRow(Record):
    """One measurement of `xt bench`."""

    engine: str | None = None
    model: str | None = None
    mode: str = "closed"
    """closed, open or in process."""
    concurrency: int | None = None
    """Callers at once."""
    rate: float | None = None
    """Open loop: arrivals a second."""
    batch: int = 1
    """Texts a request or a call."""
    sentences_per_second: float | None = None
    tokens_per_second: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    share_of_limit: float | None = None
    """tokens/s over what the machine's fastest int8 matrix product would allow."""
    cache: str | None = None
    cache_hits: int | None = None
    """Texts that the server's vector cache answered."""
    cached_share: float | None = None
    counters: dict[str, float] = field(default_factory=dict)

    @property
    def from_cache(self) -> str:
        """Say that this is not the encoder's speed since a vector cache answered, or may have; empty when none did.

        >>> ServingRow(cache_hits=30, cached_share=0.3).from_cache
        '30% from the cache'
        >>> ServingRow(cache="on").from_cache, ServingRow(cache="off", cache_hits=0).from_cache
        ('cache on, its hits not readable', '')
        """
        if not self.cache_hits:
            return "cache on, its hits not readable" if self.cache == "on" and self.cache_hits is None else ""
        texts = number(self.counters.get("xt_texts_total"))  # rows of before have no share
        share = self.cached_share or (min(1.0, self.cache_hits / texts) if texts else None)
        if share is None:
            return f"{self.cache_hits:g} from the cache"
        return f"{share:.0%} from the cache" if share >= 0.005 else "under 1% from the cache"

    @property
    def load(self) -> str:
        """What the load was.

        >>> ServingRow(concurrency=8).load, ServingRow(mode="open", rate=20.0, batch=4).load
        ('8 callers', '20/s x 4 texts')
        """
        if self.mode == "in process":
            return f"{self.batch} a call"
        texts = f" x {self.batch} texts" if self.batch > 1 else ""
        cached = f", {self.from_cache}" if self.from_cache else ""
        if self.mode == "open":
            return f"{self.rate:g}/s{texts}{cached}"
        return f"{self.concurrency} caller{'s' if self.concurrency != 1 else ''}{texts}{cached}"


@dataclass
class Serving(Record):
    """How fast texts were served, as `xt bench` measures it."""

    texts: str | None = None
    """What was sent."""
    rows: list[ServingRow] = field(default_factory=list)

    def fastest(self, *, triton: bool) -> ServingRow | None:
        """Return the row of most sentences a second among those of Triton, or among others; none of cached answers."""
        kind = [r for r in self.rows if ("triton" in str(r.engine).lower()) == triton and not r.cache_hits]
        rated = [(r.sentences_per_second, r) for r in kind if r.sentences_per_second is not None]
        return max(rated, key=lambda pair: pair[0], default=(0.0, None))[1]
