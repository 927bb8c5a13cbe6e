"""calibration.json: what it holds, and the one place where it is written and read, also as former versions wrote it.

Each file is an object with `version`, `kind` and what the kind has:

- `search` of a report on parallel text or ranked retrieval: encoder -> direction -> method -> `MethodFit`;
- `mining` of a report on mining: encoder -> language -> `MinedLanguage`;
- `head` of a report on a trained head, and of an exported one: its temperature, and what the report fitted;
- `retriever` of an installed retriever: the calibrators that it answers with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from xt.calibration.apply import heads
from xt.calibration.apply.estimate import AccuracyEstimate
from xt.calibration.apply.heads import HeadCalibrator
from xt.calibration.apply.pairs import PairProbability
from xt.calibration.apply.retrieval import Calibrator, read_calibrator
from xt.core import __version__, languages
from xt.core.errors import XtError, unknown
from xt.core.files.artifact import read_json, write_json

FILE = "calibration.json"
VERSION = 1
NONE = "none-of-these"
"""Fitted with queries that have no answer among the others: its mass for "none of these" means something."""
MAPPED = "platt"
"""A map of the confidence on margin features; the one for documents of which several may be right."""
SCOPES = ("zero-shot", "pooled", MAPPED, NONE)
"""What a query whose language has no calibrator of its own may be scored by, the preferred first."""
CANDIDATES = 100
"""Candidates that retrieval temperatures are fitted with, unless the corpora were smaller."""
C = TypeVar("C", bound=Calibrator | HeadCalibrator)


# -- reports -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MethodFit(Generic[C]):
    """What one method fitted on everything that it may see."""

    calibrator: C | None = None
    """Of any language; None for a method of single languages."""
    languages: Mapping[str, C] = field(default_factory=dict)
    """Language -> a calibrator of its own."""
    fitted_on: tuple[str, ...] = ()
    """Languages."""
    scope: str = ""
    """Of a map: which temperature is under it."""
    unanswerable: float | None = None
    """Share of the queries that had no answer."""
    estimates: Mapping[str, AccuracyEstimate] = field(default_factory=dict)
    """Language -> its accuracy, estimated without a label, that its calibrator was made to, or why it is unknown."""
    none_score: float | None = None
    """Of `predicted`: the score of "none of these" that the temperature of a further language goes with."""

    def to_json(self) -> dict[str, Any]:
        """As calibration.json holds it: what there is."""
        out: dict[str, Any] = {}
        if self.calibrator is not None:
            out["calibrator"] = self.calibrator.to_json()
        if self.languages:
            out["languages"] = {code: calibrator.to_json() for code, calibrator in self.languages.items()}
        if self.fitted_on:
            out["fitted_on"] = list(self.fitted_on)
        if self.scope:
            out["scope"] = self.scope
        if self.unanswerable is not None:
            out["unanswerable"] = self.unanswerable
        if self.estimates:
            out["estimates"] = {code: estimate.to_json() for code, estimate in self.estimates.items()}
        if self.none_score is not None:
            out["none_score"] = self.none_score
        return out

    @classmethod
    def from_json(cls, value: Mapping[str, Any], read: Callable[[Mapping[str, Any]], C]) -> MethodFit[C]:
        """Read what `to_json` wrote, each calibrator by `read`; or as it was before there was a version.

        A calibrator then stood among its own facts, and those of single languages were all that there was. Of the
        `line` that predicted accuracies before they were estimated without labels, what still counts is its score.
        """
        if "calibrator" in value:
            own = value["calibrator"]
        elif isinstance(value.get("kind"), str):
            own = value
        else:
            own = None
        if own is None and not {"languages", "line", "estimates"} & set(value):
            return cls(languages={str(code): read(one) for code, one in value.items()})
        share = value.get("unanswerable")
        none = None if own is value else value.get("none_score", value.get("line", {}).get("none_score"))
        return cls(
            None if own is None else read(own),
            {str(code): read(one) for code, one in value.get("languages", {}).items()},
            tuple(map(str, value.get("fitted_on", ()))),
            str(value.get("scope", "")),
            None if share is None else float(share),
            {str(code): AccuracyEstimate.from_json(one) for code, one in value.get("estimates", {}).items()},
            None if none is None else float(none),
        )


SearchFits = Mapping[str, MethodFit[Calibrator]]
"""Method -> what it fitted, of one direction."""
HeadFits = Mapping[str, MethodFit[HeadCalibrator]]


@dataclass(frozen=True)
class SearchCalibration:
    """What a report on parallel text or ranked retrieval fitted."""

    encoders: Mapping[str, Mapping[str, SearchFits]]
    """Encoder -> direction -> method -> what it fitted."""
    kind: ClassVar[str] = "search"

    def to_json(self) -> dict[str, Any]:
        """As calibration.json holds it."""
        return _headed(self.kind, encoders=_plain(self.encoders))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SearchCalibration:
        """Read what `to_json` wrote."""
        return cls(
            {
                name: {direction: _fits(methods, read_calibrator) for direction, methods in directions.items()}
                for name, directions in value["encoders"].items()
            }
        )


@dataclass(frozen=True)
class MinedLanguage:
    """How pairs of one language are chosen."""

    margin: str
    threshold: float | None
    """Of the best F1 on dev."""
    guaranteed: float | None
    """That with the certified precision; None where none could be certified."""
    probability: PairProbability | None

    def to_json(self) -> dict[str, Any]:
        """As calibration.json holds it."""
        chances = None if self.probability is None else self.probability.to_json()
        numbers = {"threshold": self.threshold, "guaranteed": self.guaranteed}
        return {"margin": self.margin, **numbers, "probability": chances}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> MinedLanguage:
        """Read what `to_json` wrote."""
        threshold, guaranteed = (None if (x := value[k]) is None else float(x) for k in ("threshold", "guaranteed"))
        chances = value["probability"]
        found = None if chances is None else PairProbability.from_json(chances)
        return cls(str(value["margin"]), threshold, guaranteed, found)


@dataclass(frozen=True)
class MiningCalibration:
    """What a report on mining chose on its dev parts."""

    encoders: Mapping[str, Mapping[str, MinedLanguage]]
    """Encoder -> language -> thresholds and probability."""
    kind: ClassVar[str] = "mining"

    def to_json(self) -> dict[str, Any]:
        """As calibration.json holds it."""
        return _headed(self.kind, encoders=_plain(self.encoders))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> MiningCalibration:
        """Read what `to_json` wrote."""
        return cls(
            {
                name: {code: MinedLanguage.from_json(row) for code, row in mined.items()}
                for name, mined in value["encoders"].items()
            }
        )


@dataclass(frozen=True)
class HeadCalibration:
    """The temperature that an export of a head divides its logits by, and what a report fitted beside it."""

    temperature: float | None
    """None where nothing could be fitted for every language."""
    task: str | None = None
    """Name of the head; None: of any."""
    measured_on: str = ""
    """The task of the report."""
    fit: Mapping[str, Any] = field(default_factory=dict)
    """Of an export: how many examples it was fitted on, and the loss before and after."""
    answers: Mapping[str, HeadFits] = field(default_factory=dict)
    """Labels, words, spans, answers -> method -> what it fitted."""
    kind: ClassVar[str] = "head"

    def to_json(self) -> dict[str, Any]:
        """As calibration.json holds it: what there is."""
        some = {"task": self.task, "measured_on": self.measured_on, "temperature": self.temperature}
        parts = {"fit": dict(self.fit), "answers": _plain(self.answers)}
        return _headed(self.kind, **{k: v for k, v in {**some, **parts}.items() if v not in (None, "", {})})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> HeadCalibration:
        """Read what `to_json` wrote."""
        number = value.get("temperature")
        if isinstance(number, bool) or not isinstance(number, int | float | None):
            raise XtError(f"The temperature of a head is {number!r}; expected a number.", 'As in {"temperature": 1.3}.')
        return cls(
            None if number is None else float(number),
            value.get("task"),
            value.get("measured_on", ""),
            dict(value.get("fit", {})),
            {of: _fits(methods, heads.from_json) for of, methods in value.get("answers", {}).items()},
        )


# -- retrievers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CalibrationTable:
    """The calibrators that a retriever answers with: one for any language, and those of single languages."""

    default: Calibrator
    scope: str
    """What the default is of: `SCOPES`."""
    by_language: Mapping[str, Calibrator]
    """ISO 639-3 code (or a code outside the table, as it was written) -> calibrator."""
    candidates: int = CANDIDATES
    """How many of the best documents, with "none of these", the probabilities sum over."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Which report, encoder and corpus they are from."""
    kind: ClassVar[str] = "retriever"

    def __post_init__(self) -> None:
        if isinstance(self.candidates, bool) or not isinstance(self.candidates, int) or self.candidates < 1:
            raise XtError(f"A calibration must be over at least one candidate; found {self.candidates!r}.")

    def choose(self, language: str | None) -> tuple[Calibrator, str]:
        """Return the calibrator for a query's language and its name; the default where the language has none.

        >>> from xt.calibration.apply.retrieval import RetrievalTemperature
        >>> table = CalibrationTable(RetrievalTemperature(0.1), "zero-shot", {"deu": RetrievalTemperature(0.2)})
        >>> table.choose("de")[1], table.choose("swh")[1], table.choose(None)[1]
        ('per-language:deu', 'zero-shot', 'zero-shot')
        """
        code = language_key(language) if language else ""
        if code in self.by_language:
            return self.by_language[code], f"per-language:{code}"
        return self.default, self.scope

    def to_json(self) -> dict[str, Any]:
        """As calibration.json of a retriever holds it, and the facts that a server tells of it."""
        return _headed(
            self.kind,
            scope=self.scope,
            default=self.default.to_json(),
            languages={code: c.to_json() for code, c in sorted(self.by_language.items())},
            candidates=self.candidates,
            provenance=dict(self.provenance),
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CalibrationTable:
        """Read what `to_json` wrote."""
        return cls(
            read_calibrator(value["default"]),
            str(value["scope"]),
            {code: read_calibrator(c) for code, c in value["languages"].items()},
            value["candidates"],
            dict(value.get("provenance", {})),
        )

    @classmethod
    def from_report(
        cls,
        methods: SearchFits,
        *,
        scope: str | None = None,
        candidates: int = CANDIDATES,
        provenance: Mapping[str, Any] | None = None,
    ) -> CalibrationTable:
        """Take the calibrators of one encoder and one direction as a report fitted them.

        Args:
            methods: some of `SCOPES`; "shrunk" or "per-language", whose languages get their own calibrators, unless
                the scope has some of its own or is a map.
            scope: which is the default; None: zero-shot where it is there, else pooled.
            candidates: how many candidates they were fitted with.
            provenance: kept as it is.

        Raises XtError when the scope is not there or has no calibrator for every language.
        """
        found = [s for s in SCOPES if s in methods]
        if scope is not None and scope not in SCOPES:
            raise unknown("scope", scope, SCOPES)
        if not found or (scope is not None and scope not in found):
            raise XtError(
                f"The calibration has no {scope or ' or '.join(SCOPES)} calibrator (found: "
                f"{', '.join(methods) or 'none'}).",
                "Evaluate on more queries, or choose another scope.",
            )
        chosen = scope or found[0]
        default = methods[chosen].calibrator
        if default is None:
            raise XtError(f"The calibration has no {chosen} calibrator for every language.", "Make the report again.")
        shared = methods.get("shrunk") or methods.get("per-language") or MethodFit[Calibrator]()
        own = methods[chosen].languages if chosen in (MAPPED, NONE) else shared.languages
        by_language = {language_key(code): calibrator for code, calibrator in own.items()}
        return cls(default, chosen, by_language, candidates, dict(provenance or {}))


def language_key(code: str) -> str:
    """Return the ISO 639-3 code that a language is looked up by; a code outside the table stays as it is.

    >>> language_key("pt_BR"), language_key("qq-made-up")
    ('por', 'qq-made-up')
    """
    try:
        return languages.resolve(code).iso3
    except XtError:
        return code


# -- the file ----------------------------------------------------------------------------------------------------------

AnyCalibration = SearchCalibration | MiningCalibration | HeadCalibration | CalibrationTable
KINDS: dict[str, Callable[[Mapping[str, Any]], AnyCalibration]] = {
    SearchCalibration.kind: SearchCalibration.from_json,
    MiningCalibration.kind: MiningCalibration.from_json,
    HeadCalibration.kind: HeadCalibration.from_json,
    CalibrationTable.kind: CalibrationTable.from_json,
}
"""Kind -> what reads it."""
HINT = "Name the calibration.json of a report of `xt eval`, of an exported head or of an installed retriever."


def read(file: Path, hint: str = HINT) -> AnyCalibration:
    """Read a calibration.json; XtError that names the file, what was expected and what was found otherwise."""
    return from_json(read_json(file, hint), str(file), hint)


def write(file: Path, calibration: AnyCalibration) -> None:
    """Write a calibration.json."""
    write_json(file, calibration.to_json())


def from_json(value: object, where: str = "The calibration", hint: str = HINT) -> AnyCalibration:
    """Read what a `to_json` of this module wrote, in this version or before there was one.

    Raises XtError for anything else; the message begins with `where`.
    """
    if not isinstance(value, Mapping):
        raise XtError(f"{where} holds a JSON {type(value).__name__}; expected an object, a calibration.", hint)
    if isinstance(value.get("version"), int | float):
        version, kind = value["version"], str(value.get("kind"))
        if version != VERSION:
            raise XtError(
                f"{where} is a calibration of version {version}; this xt ({__version__}) reads {VERSION} and what was "
                "written before there was a version.",
                "Read it with the version of xt that wrote it, or make it again.",
            )
    else:
        kind, value = _former(value)
    if kind not in KINDS:
        raise XtError(f"{where} holds {kind or 'no calibration'}; expected one of {', '.join(KINDS)}.", hint)
    try:
        return KINDS[kind](value)
    except XtError as error:
        raise XtError(f"{where}: {error.message}", error.hint or hint) from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise XtError(f"{where} is a calibration of kind {kind} that lacks or misstates {error}.", hint) from error


def table_of(value: object, where: str = "The calibration") -> CalibrationTable:
    """Read what must be the calibration of a retriever; XtError for anything else."""
    found = from_json(value, where)
    if not isinstance(found, CalibrationTable):
        raise XtError(f"{where} is of kind {found.kind}; expected that of a retriever.", "Install it again.")
    return found


def table_among(facts: Mapping[str, Any]) -> CalibrationTable | None:
    """Return the calibration of a retriever among the facts that a server tells of a model; None where there is none.

    A lone calibrator counts as one for any language, and is "its own".
    """
    for value in facts.values():
        kind = value.get("kind") if isinstance(value, Mapping) else None
        if kind == FORMER_TABLE or (kind == CalibrationTable.kind and "default" in value):
            return table_of(value)
        if str(kind).startswith("retrieval-"):
            return CalibrationTable(read_calibrator(value), "its own", {})
    return None


FORMER_TABLE, FORMER_HEAD = "retrieval-calibration", "label-temperature"
"""Kinds of a retriever's file and of a head's before there was a version."""


def _former(value: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the kind of a file without a version, and what it holds as this version has it.

    Reports on retrieval and mining had no kind: they were encoder -> direction or language -> what is there now. Of an
    object that is neither the first word is what it says of itself.
    """
    kind = value.get("kind")
    if kind == FORMER_TABLE:
        return CalibrationTable.kind, value
    if kind == FORMER_HEAD or (kind is None and isinstance(value.get("temperature"), int | float | str)):
        known = ("kind", "task", "measured_on", "temperature", "calibrators")
        fit = {k: v for k, v in value.items() if k not in known}
        return HeadCalibration.kind, {**value, "fit": fit, "answers": value.get("calibrators", {})}
    if isinstance(kind, str):
        return repr(kind), value
    if not value or not all(isinstance(entry, Mapping) for entry in value.values()):
        return "", value
    rows = [row for entry in value.values() for row in entry.values()]
    mined = any(isinstance(row, Mapping) and "margin" in row and "threshold" in row for row in rows)
    return MiningCalibration.kind if mined else SearchCalibration.kind, {"encoders": value}


def _headed(kind: str, **content: Any) -> dict[str, Any]:
    return {"version": VERSION, "kind": kind, **content}


def _fits(methods: Mapping[str, Any], read: Callable[[Mapping[str, Any]], C]) -> dict[str, MethodFit[C]]:
    return {str(method): MethodFit.from_json(one, read) for method, one in methods.items()}


def _plain(value: Any) -> Any:
    """Return nested mappings whose leaves have a `to_json` as JSON."""
    return {key: _plain(one) for key, one in value.items()} if isinstance(value, Mapping) else value.to_json()
