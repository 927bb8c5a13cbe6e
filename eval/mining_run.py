"""`xt eval bucc`, `tatoeba-mining` or `mine:FOLDER`: every language mined with each margin, and its section."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xt.core.errors import XtError, unknown
from xt.core.tasks import get
from xt.core.text import Vectors
from xt.eval import groups, mining, mining_control
from xt.eval.mining import MARGINS, Mined, Neighbourhoods, Progress
from xt.eval.mining_sets import MiningSet, MiningTask, Sentences, read_bucc, read_mining, read_tatoeba_mining
from xt.eval.retrieval import Encoder
from xt.eval.run import resource_of

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

    def describe(self) -> dict[str, Any]:
        """As the report shows it."""
        sentences = sum(len(s.ids) for t in self.tasks for p in (t.dev, t.test) for s in (p.foreign, p.english))
        told = {"name": self.name, "title": self.title, "description": self.source, "licence": self.licence}
        return {**told, "languages": len(self.tasks), "sentences": sentences}


def is_mining(task: str) -> bool:
    """Whether a name means mining."""
    return task.startswith(PREFIX) or task in ("bucc", "tatoeba-mining")


def load_mining(task: str, *, data_dir: Path | None = None, selection: str = "all", seed: int = 0) -> MiningData:
    """Read what a name means: `bucc`, `tatoeba-mining`, or `mine:FOLDER` in BUCC's layout."""
    if task.startswith(PREFIX):
        folder = Path(task.removeprefix(PREFIX)).expanduser().resolve()
        found = tuple(read_mining(folder, selection))
        title = f"Mining of {folder.name}"
        return MiningData(folder.name, title, f"files in BUCC's layout in {folder}", "the owner's", found)
    row = get(task)
    readers: dict[str, Callable[[], list[MiningTask]]] = {
        "bucc": lambda: read_bucc(data_dir, selection),
        "tatoeba-mining": lambda: read_tatoeba_mining(data_dir, selection, seed),
    }
    if task not in readers:
        raise XtError(f"{task} is no mining task.", f"Known: {', '.join(readers)}, mine:FOLDER.")
    return MiningData(row.name, row.title, row.source, row.licence, tuple(readers[task]()))


@dataclass(frozen=True)
class MiningResult:
    """What mining gave."""

    section: dict[str, Any]
    """The section `mining` of metrics.json."""
    predictions: list[dict[str, Any]]
    """The pairs mined on test with the main margin, above the threshold of the best dev F1."""
    calibrators: dict[str, Any]
    """language -> threshold, guaranteed threshold, probability: for use on other texts."""


def evaluate_mining(
    encoder: Encoder,
    data: Sequence[MiningTask],
    *,
    margin: str = "ratio",
    search: str = "auto",
    precision: float = mining_control.PRECISION,
    fdr: float = mining_control.FDR,
    truncate: bool = False,
    progress: Progress | None = None,
) -> MiningResult:
    """Mine every language with every margin; what is promised and calibrated is of `margin`.

    Args:
        encoder: anything with `encode`.
        data: dev and test of each language.
        margin: the main one: `ratio` as in BUCC's baselines, `distance` or `absolute`.
        search: `auto`, `exact` or `ivf`, see `mining.neighbours`.
        precision: the precision that a threshold is to guarantee.
        fdr: the share of wrong pairs that is allowed for among discoveries.
        truncate: cut texts that are too long, and count them, instead of stopping.
        progress: told of every language before it is encoded.
    """
    if margin not in MARGINS:
        raise unknown("margin", margin, MARGINS)
    rows: dict[str, dict[str, Any]] = {}
    mined: dict[str, tuple[Mined, Mined]] = {}
    for done, task in enumerate(data):
        tell = _telling(progress, done, len(data), task.language)
        found = [_search(encoder, part, search, truncate, tell) for part in (task.dev, task.test)]
        hoods, cut = [hood for hood, _ in found], sum(n for _, n in found)
        row: dict[str, Any] = {"margins": {}, "truncated": cut}
        for name in MARGINS:
            try:
                dev, test = (mining.mine(p, h, margin=name) for p, h in zip((task.dev, task.test), hoods, strict=True))
                threshold = mining.best_threshold(dev)
            except XtError as error:
                if name == margin:
                    raise XtError(f"{task.language}: {error.message}", error.hint) from error
                row["margins"][name] = None  # another margin that these vectors do not allow
                continue
            row["margins"][name] = {"threshold": threshold, **mining.at_threshold(test, threshold)}
            row["margins"][name]["dev_f1"] = mining.at_threshold(dev, threshold)["f1"]
            if name == margin:
                mined[task.language] = (dev, test)
        rows[task.language] = row
    if progress:
        progress(len(data), len(data), "")
    predictions: list[dict[str, Any]] = []
    calibrators: dict[str, Any] = {}
    pooled = mining_control.fit_probability([dev for dev, _ in mined.values()])
    for task in data:
        row, (dev, test) = rows[task.language], mined[task.language]
        main = row["margins"][margin]
        facts, calibrator, chances = mining_control.control(dev, test, pooled=pooled, precision=precision, fdr=fdr)
        row |= {k: main[k] for k in ("precision", "recall", "f1", "threshold", "pairs")}
        row |= {"n": test.gold, "dev_gold": dev.gold, **facts, **test.facts}
        calibrators[task.language] = {
            "margin": margin,
            "threshold": main["threshold"],
            "guaranteed": (row["guarantee"] or {}).get("threshold"),
            "probability": None if calibrator is None else calibrator.to_json(),
        }
        predictions += _pairs(task, test, main["threshold"], chances)
    names = ("precision", "recall", "f1")
    resources = {code: resource_of(code) for code in rows}
    mean = {name: groups.with_all({c: rows[c][name] for c in rows}, resources) for name in names}
    section = {"metric": "f1", "margin": margin, "k": mining.K, "mean": mean, "languages": rows}
    return MiningResult(section, predictions, calibrators)


def _telling(progress: Progress | None, done: int, total: int, language: str) -> Progress:
    """Give what tells of the work inside one language."""

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
