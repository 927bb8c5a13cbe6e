"""The settings of `xt eval`; its flags are these fields. Light to import."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from xt.calibration.methods import MAP, PARALLEL, SHARED, listed, names
from xt.core.errors import UsageError
from xt.core.settings import DataDir, Flag, Force, Languages, Out, Truncate
from xt.serve.options import EncoderLocation

OWN_FORMATS = ("pair", "single", "regression", "choice", "tagging", "qa")
"""Formats of own data that a head answers."""


@dataclass(frozen=True)
class Measures:
    """What is measured of each kind of task."""

    head: Annotated[
        str | None,
        Flag(
            "Your own data (FORMAT:PATH): the head that answers them, where several could. Default: the one of "
            "the format that knows their labels."
        ),
    ] = None
    layers: Annotated[
        str | None,
        Flag("Also measure retrieval from these layers of a PyTorch checkpoint: all, or numbers (0: embeddings)."),
    ] = None
    pool: Annotated[
        int | None,
        Flag(
            "Parallel text: candidates of the random pools, the same number in every language, in which accuracy "
            "is measured too. Default 200, where a language has as many.",
            least=2,
        ),
    ] = None
    margin: Annotated[str | None, Flag("Mining: the score of a pair, ratio, distance or absolute. Default ratio.")] = (
        None
    )
    search: Annotated[
        str | None,
        Flag(
            "Mining: how neighbours are found: exact, ivf (an index; its recall is reported), or auto, exact up to "
            "100,000 sentences a side. Default auto."
        ),
    ] = None
    cut: Annotated[
        bool, Flag("Ranked retrieval: measure at the number of documents where a measure looks further.")
    ] = False


@dataclass(frozen=True)
class Summary:
    """What is made of reports that are there, instead of an evaluation."""

    summary: Annotated[bool, Flag("Put the table of --benchmark together from report folders.")] = False
    benchmark: Annotated[str | None, Flag("With --summary: xtreme or xtreme-r. Default xtreme.")] = None
    compare: Annotated[bool, Flag("Compare two report folders: differences with paired intervals.")] = False


@dataclass(frozen=True)
class CalibrationOptions:
    """Which calibrations are fitted, applied and installed."""

    calibrate_on: str | None = None
    """What the maps of confidences are fitted on (`xt.calibration.search.MAP_SCOPES`); None: zero-shot where it can."""
    shots: tuple[int, ...] = ()
    """Numbers of labelled queries a language, from which temperatures are measured too."""
    calibration: Path | None = None
    """The report whose fits are applied too."""
    install: Path | None = None
    """The repository whose retrievers get the calibration."""


@dataclass(frozen=True)
class CalibrationFlags:
    """The flags of calibration."""

    calibrate_on: Annotated[
        str | None,
        Flag(
            f"Parallel text, ranked retrieval: what {listed(names(PARALLEL, MAP))} are fitted on: "
            f"{listed(names(PARALLEL, SHARED), 'or')}. Default: zero-shot where its languages are there."
        ),
    ] = None
    shots: Annotated[
        str | None, Flag("Parallel text: also temperatures from so many labelled queries, as in 16,50,100.")
    ] = None
    calibration: Annotated[
        Path | None,
        Flag("Parallel text, ranked retrieval: also apply what another report fitted, which saw nothing of this."),
    ] = None
    install: Annotated[
        Path | None,
        Flag("Parallel text, ranked retrieval: give the retrievers of this repository the calibration."),
    ] = None


@dataclass(frozen=True)
class EvalOptions:
    """All settings of one run of `xt eval`."""

    task: Annotated[
        list[str],
        Flag(
            "One or more tasks of xt tasks (tatoeba, bucc, xquad-r, xnli ...); or your own: a folder of "
            "line-aligned files, ids:FOLDER of <lang>.tsv with id and text, mine:FOLDER in BUCC's layout, beir:FOLDER, "
            "FORMAT:PATH for a head, image-text:FOLDER. With --summary or --compare: report folders.",
            positional=True,
        ),
    ]
    out: Out
    location: EncoderLocation = field(default_factory=EncoderLocation)
    languages: Languages = "all"
    data_dir: DataDir = None
    truncate: Truncate = False
    measures: Measures = field(default_factory=Measures)
    results: Summary = field(default_factory=Summary)
    calibration: CalibrationFlags = field(default_factory=CalibrationFlags)
    cache: Annotated[
        bool, Flag("Keep vectors, and take those kept, by encoder and text.", name="--cache/--no-cache")
    ] = True
    force: Force = False

    def __post_init__(self) -> None:
        if self.measures.head is not None and not any(name.partition(":")[0] in OWN_FORMATS for name in self.task):
            raise UsageError("--head is for your own data, FORMAT:PATH; none of the tasks is")
        self.location.server.tls()  # what is wrong with it is reported before any work
        results, location = self.results, self.location
        if results.summary or results.compare:
            if results.summary and results.compare:
                raise UsageError("give one of --summary and --compare")
            if location.encoder is not None or location.url is not None:
                raise UsageError("give no --encoder and no --url: --summary and --compare read reports that are there")
            return
        if results.benchmark is not None:
            raise UsageError("--benchmark goes with --summary")
        if (location.encoder is None) == (location.url is None):
            raise UsageError("give one of --encoder and --url")


@dataclass(frozen=True)
class TaskRequest:
    """A task that is to be evaluated, and the folder of its report."""

    name: str
    """Of the task table, a folder, or FORMAT:PATH."""
    kind: str
    """What it is evaluated as: bitext (parallel text), mining, ranked, heads (trained ones), images (image-text)."""
    out: Path
    languages: str = "all"
    data_dir: Path | None = None
    truncate: bool = False
    """Cut texts that are too long, and count them, instead of stopping."""
    force: bool = False
    """Replace a report that is there."""
