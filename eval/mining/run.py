"""`xt eval bucc`, `tatoeba-mining` or `mine:FOLDER`: every language mined with each margin, and its section."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from xt.calibration.apply.file import MinedLanguage, MiningCalibration
from xt.core.copies import Copies
from xt.core.data.tasks import get
from xt.core.encoder.text import Encoder, Vectors
from xt.core.errors import XtError, unknown
from xt.core.languages import resource_of
from xt.core.reporter import Reporter
from xt.core.results.folder import ReportFolder
from xt.eval import groups, protocols
from xt.eval.mining import control
from xt.eval.mining import margin as mining
from xt.eval.mining.margin import MARGINS, Mined, Neighbourhoods, NotMined, Progress
from xt.eval.mining.sets import MiningSet, MiningTask, Sentences, read_bucc, read_mining, read_tatoeba_mining
from xt.eval.options import TaskRequest
from xt.serve.encoders import OpenedEncoder

PREFIX = "mine:"
BATCH = 8192
"""Texts that are encoded between two reports of progress."""


@dataclass(frozen=True)
class MiningData:
    """A mining task and what a report says of it."""

    name: str
    title: str
    source: str
    licence: str
    tasks: tuple[MiningTask, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Language -> why there is nothing to mine in it."""

    def describe(self) -> dict[str, Any]:
        """Return it as the report shows it."""
        sentences = sum(len(s.ids) for t in self.tasks for p in (t.dev, t.test) for s in (p.foreign, p.english))
        about = {"name": self.name, "title": self.title, "description": self.source, "licence": self.licence}
        return {**about, "languages": len(self.tasks), "sentences": sentences}


def is_mining(task: str) -> bool:
    """Return whether a name means mining."""
    return task.startswith(PREFIX) or task in ("bucc", "tatoeba-mining")


def load_mining(task: str, *, data_dir: Path | None = None, selection: str = "all", seed: int = 0) -> MiningData:
    """Read what a name means: `bucc`, `tatoeba-mining`, or `mine:FOLDER` in BUCC's layout."""
    lost: dict[str, str] = {}
    if task.startswith(PREFIX):
        folder = Path(task.removeprefix(PREFIX)).expanduser().resolve()
        found = tuple(read_mining(folder, selection, lost))
        title = f"Mining of {folder.name}"
        return MiningData(folder.name, title, f"files in BUCC's layout in {folder}", "the owner's", found, lost)
    row = get(task)
    readers: dict[str, Callable[[], list[MiningTask]]] = {
        "bucc": lambda: read_bucc(data_dir, selection, lost),
        "tatoeba-mining": lambda: read_tatoeba_mining(data_dir, selection, seed, lost),
    }
    if task not in readers:
        raise XtError(f"{task} is no mining task.", f"Known: {', '.join(readers)}, mine:FOLDER.")
    return MiningData(row.name, row.title, row.source, row.licence, tuple(readers[task]()), lost)


@dataclass(frozen=True)
class MiningResult:
    """What mining gave."""

    section: dict[str, Any]
    """The section `mining` of metrics.json."""
    predictions: list[dict[str, Any]]
    """The pairs mined on test with the main margin, above the threshold of the best dev F1."""
    calibrators: dict[str, MinedLanguage]
    """By language, for use on other texts."""


def evaluate_mining(
    encoder: Encoder,
    data: Sequence[MiningTask],
    *,
    margin: str = "ratio",
    search: str = "auto",
    precision: float = control.PRECISION,
    fdr: float = control.FDR,
    truncate: bool = False,
    left_out: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> MiningResult:
    """Mine every language with every margin; what is promised and calibrated is of `margin`.

    A language that cannot be mined (texts too small, no right pair on dev) is left out, and named in the notes.

    Args:
        encoder: anything with `encode`.
        data: dev and test of each language.
        margin: the main one: `ratio` as in BUCC's baselines, `distance` or `absolute`.
        search: `auto`, `exact` or `ivf`, see `mining.neighbours`.
        precision: the precision that a threshold is to guarantee.
        fdr: the share of wrong pairs that is allowed for among discoveries.
        truncate: cut texts that are too long, and count them, instead of stopping.
        left_out: languages that were not read, and why; kept with the notes.
        progress: called for every language before it is encoded.
    """
    if margin not in MARGINS:
        raise unknown("margin", margin, MARGINS)
    rows: dict[str, dict[str, Any]] = {}
    mined: dict[str, tuple[Mined, Mined]] = {}
    lost = dict(left_out or {})
    for done, task in enumerate(data):
        tell = _telling(progress, done, len(data), task.language)
        try:
            rows[task.language], mined[task.language] = _mine(encoder, task, margin, search, truncate, tell)
        except NotMined as error:
            lost[task.language] = error.message
    if progress:
        progress(len(data), len(data), "")
    predictions: list[dict[str, Any]] = []
    calibrators: dict[str, MinedLanguage] = {}
    pooled = control.fit_probability([dev for dev, _ in mined.values()]) if mined else None
    for task in (t for t in data if t.language in mined):
        row, (dev, test) = rows[task.language], mined[task.language]
        main = row["margins"][margin]
        facts, calibrator, chances = control.control(dev, test, pooled=pooled, precision=precision, fdr=fdr)
        row |= {k: main[k] for k in ("precision", "recall", "f1", "threshold", "pairs")}
        row |= {"n": len(task.test.gold), "dev_gold": len(task.dev.gold), **facts, **test.facts}
        threshold = row.get("by_text", main)["threshold"]
        if "by_text" in row:
            row["notes"] = [*row["notes"], _repeated(row)]
        guaranteed = (row["guarantee"] or {}).get("threshold")
        calibrators[task.language] = MinedLanguage(margin, threshold, guaranteed, calibrator)
        predictions += _pairs(task, test, threshold, chances)
    names = ("precision", "recall", "f1")
    resources = {code: resource_of(code) for code in rows}
    mean = {name: groups.with_all({c: rows[c][name] for c in rows}, resources) for name in names if rows}
    section = {"metric": "f1", "margin": margin, "k": mining.K, "mean": mean, "languages": rows}
    section |= {"left_out": lost, "notes": [f"{code} was not mined: {why}" for code, why in lost.items()]}
    return MiningResult(section, predictions, calibrators)


def evaluate_mined(
    opened: OpenedEncoder,
    request: TaskRequest,
    *,
    margin: str = "ratio",
    search: str = "auto",
    reporter: Reporter = Reporter(),
) -> ReportFolder:
    """Mine translations, as `evaluate_mining` does, and write the report of what `request` names."""
    entry = opened.entry
    data = load_mining(request.name, data_dir=request.data_dir, selection=request.languages)
    reporter.say(f"{data.title}: {len(data.tasks)} languages, encoder {entry.label} on {entry.engine}")
    result = evaluate_mining(
        opened.encoder,
        data.tasks,
        margin=margin,
        search=search,
        truncate=request.truncate,
        left_out=data.left_out,
        progress=reporter.counter("languages"),
    )
    kept = MiningCalibration({str(entry.name): result.calibrators})
    section = protocols.Section("mining", result.section, result.predictions, kept)
    return protocols.write(request.out, data.describe(), entry, section, parents=[opened.parent], force=request.force)


def _mine(
    encoder: Encoder, task: MiningTask, margin: str, search: str, truncate: bool, tell: Progress
) -> tuple[dict[str, Any], tuple[Mined, Mined]]:
    """Mine one language with every margin: its row so far, and what `margin` found on dev and test."""
    found = [_search(encoder, part, search, truncate, tell) for part in (task.dev, task.test)]
    hoods, cut = [hood for hood, _ in found], sum(n for _, n in found)
    row: dict[str, Any] = {"margins": {}, "truncated": cut}
    parts = (task.dev, task.test)
    repeated = any(map(mining.has_copies, parts))
    kept: tuple[Mined, Mined] | None = None
    for name in MARGINS:
        try:
            dev, test = (mining.mine(p, h, margin=name) for p, h in zip(parts, hoods, strict=True))
            texts = dev, test
            if repeated:
                one, two = (mining.mine_texts(p, h, margin=name) for p, h in zip(parts, hoods, strict=True))
                texts = one, two
            by_text = _at_best(*texts)
            row["margins"][name] = _at_best(dev, test) if dev.right.any() or not repeated else NOTHING
        except NotMined:
            if name == margin:
                raise
            row["margins"][name] = None  # another margin that these vectors do not allow
            continue
        if name == margin:
            kept = (texts[0], replace(texts[1], facts=test.facts)) if repeated else (dev, test)
            if repeated:
                sides = ((p.foreign.texts, p.english.texts) for p in parts)
                row["copies"] = [sum(Copies.find(texts).extra for texts in side) for side in zip(*sides, strict=True)]
                row["by_text"] = by_text
    assert kept is not None
    return row, kept


NOTHING: dict[str, Any] = {"threshold": None, **mining.scored(np.zeros(0, bool), 1), "dev_f1": 0.0}
"""What is extracted where no pair of dev is right."""


def _repeated(row: Mapping[str, Any]) -> str:
    """Warn of texts that are there more than once."""
    foreign, english = row["copies"]
    return (
        f"warning: {foreign} foreign and {english} English sentences repeat another: F1 by id {row['f1']:.3f}, where "
        f"such sentences are dropped, by text {row['by_text']['f1']:.3f}; what is promised and calibrated is by text"
    )


def _at_best(dev: Mined, test: Mined) -> dict[str, Any]:
    """Return the figures of test at the threshold that is best on dev."""
    threshold = mining.best_threshold(dev)
    f1 = mining.at_threshold(dev, threshold)["f1"]
    return {"threshold": threshold, **mining.at_threshold(test, threshold), "dev_f1": f1}


def _telling(progress: Progress | None, done: int, total: int, language: str) -> Progress:
    """Return what reports the progress inside one language."""

    def tell(part: int, whole: int, what: str) -> None:
        if progress:
            progress(done, total, f"{language}, {part:,} of {whole:,} {what}")

    return tell


def _search(
    encoder: Encoder, part: MiningSet, search: str, truncate: bool, tell: Progress
) -> tuple[Neighbourhoods, int]:
    """Encode a part and find its neighbours; and how many texts were cut. Its vectors are in memory only meanwhile."""
    (foreign, cut_f), (english, cut_e) = (_encode(encoder, s, truncate, tell) for s in (part.foreign, part.english))
    return mining.search_part(part, foreign, english, search=search, progress=tell), cut_f + cut_e


def _encode(encoder: Encoder, side: Sentences, truncate: bool, tell: Progress) -> tuple[Vectors, int]:
    texts, _ = mining.unique(side)
    blocks, cut = [], 0
    for start in range(0, len(texts), BATCH):
        tell(start, len(texts), "texts")
        result = encoder.encode(texts[start : start + BATCH], truncate=truncate)
        blocks.append(result.vectors)
        cut += int(result.truncated.sum())
    return (blocks[0] if len(blocks) == 1 else np.concatenate(blocks)), cut


def _pairs(task: MiningTask, test: Mined, threshold: float, chances: Any) -> list[dict[str, Any]]:
    """List the pairs of test above the threshold, with their texts and whether they are right."""
    sides = [dict(zip(s.ids, s.texts, strict=True)) for s in (task.test.foreign, task.test.english)]
    return [
        {
            "language": task.language,
            "query": sides[0][test.pairs[i][0]],
            "answer": sides[1][test.pairs[i][1]],
            "ids": list(test.pairs[i]),
            "score": float(test.candidates.score[i]),
            "correct": bool(test.right[i]),
            **({} if chances is None else {"probability": float(chances[i])}),
        }
        for i in np.flatnonzero(test.candidates.score >= threshold)
    ]
