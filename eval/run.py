"""`xt eval`: one encoder on one parallel corpus, retrieval in both directions, calibrated; and its report folder."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from xt.calibration.scoring import Method
from xt.core import __version__, languages
from xt.core.data import aligned, bitext, tasks
from xt.core.data.bitext import Bitext
from xt.core.errors import XtError
from xt.core.files.artifact import Artifact, command_line
from xt.core.machine.cores import usable_cores
from xt.core.results import folder
from xt.core.results.records import plain
from xt.core.results.report import Encoder as EncoderResult
from xt.core.results.report import Report, Retrieval
from xt.eval import groups
from xt.eval.report import build
from xt.eval.retrieval import conventions
from xt.eval.retrieval import ranking as retrieval
from xt.eval.retrieval.ranking import Encoder, Ranking
from xt.eval.retrieval.trust import Asked, calibrate_sides


@dataclass(frozen=True)
class Corpus:
    """A parallel corpus and what a report says of it."""

    name: str
    title: str
    source: str
    licence: str
    pairs: tuple[Bitext, ...]
    skipped: tuple[str, ...] = ()
    """Files of its folder that hold no sentences of it."""

    def describe(self) -> dict[str, Any]:
        """As the report shows it."""
        return {
            "name": self.name,
            "title": self.title,
            "description": self.source,
            "licence": self.licence,
            "languages": len(self.pairs),
            "pairs": sum(len(b.foreign) for b in self.pairs),
        }


def is_folder(task: str) -> bool:
    """Whether the user means a folder rather than a task of the table."""
    return os.sep in task or task == "." or Path(task).is_dir()


def load_corpus(task: str, *, data_dir: Path | None = None, selection: str = "all") -> Corpus:
    """Read a corpus: a task of the table (`tatoeba`, `django`), or a folder of line-aligned files."""
    skipped: list[str] = []
    if task.startswith("ids:"):
        folder = Path(task.removeprefix("ids:")).expanduser().resolve()
        found = tuple(aligned.read_id_folder(folder, selection, skipped))
        about = f"files aligned by id in {folder}"
        return Corpus(folder.name, folder.name, about, "the owner's", found, tuple(skipped))
    if is_folder(task):
        folder = Path(task).expanduser().resolve()  # `.` has no name
        pairs = tuple(bitext.read_folder(folder, selection, skipped))
        about = f"line-aligned files in {folder}"
        return Corpus(folder.name, folder.name, about, "the owner's", pairs, tuple(skipped))
    row = tasks.get(task)
    if row.format != "bitext":
        raise XtError(f"{task} is a task to train on; it cannot be evaluated by retrieval.", "See `xt tasks`.")
    readers: dict[str, Callable[[], list[Bitext]]] = {
        "tatoeba": lambda: bitext.read_tatoeba(data_dir, selection),
        "django": lambda: bitext.read_django(selection),
        aligned.SIB200: lambda: aligned.read_sib200(data_dir, selection),
    }
    return Corpus(row.name, row.title, row.source, row.licence, tuple(readers[task]()))


@dataclass(frozen=True)
class Evaluation:
    """What evaluating one encoder gave."""

    encoder: EncoderResult
    """The encoder, and what was measured of it."""
    predictions: list[dict[str, Any]]
    calibrators: dict[str, Any]
    """direction -> method -> calibrator, fitted on everything the method may see, for serving."""


def resource_of(code: str) -> str:
    """Give the resource class of a language code; "unknown" for a code outside the table."""
    try:
        return languages.resolve(code).resource
    except XtError:
        return "unknown"


def evaluate(
    encoder: Encoder,
    corpus: Corpus,
    *,
    entry: EncoderResult,
    temperature: float | None,
    truncate: bool = False,
    pool: int | None = None,
    calibrate_on: str | None = None,
    shots: Sequence[int] = (),
    given: Mapping[str, Any] | None = None,
    jobs: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
    calibrating: Callable[[int, int, str], None] | None = None,
) -> Evaluation:
    """Retrieve in both directions in every language and calibrate.

    Args:
        encoder: anything with `encode`.
        corpus: the parallel text.
        entry: the encoder for the report, nothing of it measured.
        temperature: the softmax temperature of the encoder's own training, where known.
        truncate: cut texts that are too long, and count them, instead of stopping.
        pool: also measure accuracy among so many candidates, drawn at random, the same number in every language.
        calibrate_on: what the maps of confidences are fitted on (see `xt.calibration.search.calibrate`).
        shots: also measure temperatures from so many labelled queries a language.
        given: direction -> method -> calibrator of another report, to apply here as they are.
        jobs: processes that calibrate (see `xt.eval.retrieval.trust.calibrate_sides`).
        progress: told of every language before it is encoded.
        calibrating: told of every step of the calibration.
    """
    started = time.perf_counter()
    kept = getattr(encoder, "hits", 0)
    vectors = retrieval.encode_corpus(encoder, corpus.pairs, truncate=truncate, progress=progress)
    seconds = {"encode": time.perf_counter() - started}
    resources = {b.language: resource_of(b.language) for b in corpus.pairs}
    metrics: dict[str, Any] = {"retrieval": {}, "calibration": {}}
    metrics["truncated"] = sum(v.truncated for v in vectors.values())
    predictions: list[dict[str, Any]] = []
    calibrators: dict[str, Any] = {}
    english = {b.language: b.english for b in corpus.pairs}
    both = {
        direction: {b.language: retrieval.rank(b, vectors[b.language], direction) for b in corpus.pairs}
        for direction in retrieval.DIRECTIONS
    }
    pairs = {b.language: b for b in corpus.pairs}
    of_texts = {
        direction: {c: retrieval.rank_texts(pairs[c], vectors[c], direction, r) for c, r in rankings.items()}
        for direction, rankings in both.items()
    }
    for direction, rankings in both.items():
        rows = {code: retrieval.scores_of(r) for code, r in rankings.items()}
        for code, ranking in rankings.items():
            rows[code] |= retrieval.by_text(pairs[code], direction, of_texts[direction][code])
            documents = retrieval.texts_of(pairs[code], direction)[1]
            rows[code] |= conventions.figures(ranking, vectors[code], direction, pool, documents)
        metrics["retrieval"][direction] = {"mean": retrieval.means(rows, resources), "languages": rows}
        metrics["retrieval"][direction] |= conventions.section(rows, direction, resources, pool)
        if any(any(row["copies"].values()) for row in rows.values()):
            texts = {code: row["accuracy_by_text"] for code, row in rows.items()}
            metrics["retrieval"][direction]["by_text"] = groups.with_all(texts, resources)
    retrieved = {direction: Retrieval.from_json(way) for direction, way in metrics["retrieval"].items()}
    notes = [note for way in retrieved.values() for note in way.notes]
    notes += copies_note(retrieved)
    if notes:
        metrics["notes"] = list(dict.fromkeys(notes))
    seconds["search"] = time.perf_counter() - started - sum(seconds.values())
    asked = Asked(temperature, calibrate_on, shots, given or {})
    for direction, side in calibrate_sides(
        of_texts, english, resources, asked, jobs=jobs, calibrating=calibrating
    ).items():
        calibrators[direction] = side.kept
        metrics["calibration"][direction] = side.section
        for name, section in (("none_of_these", side.none_of_these), ("conformal", side.conformal)):
            if section:
                metrics.setdefault(name, {})[direction] = section
        for b in corpus.pairs:
            answers = of_texts[direction][b.language]
            by_index = both[direction][b.language].gold == 0
            predictions += _predictions(b, direction, answers, by_index, side.methods, str(entry.name))
    seconds["calibrate"] = time.perf_counter() - started - sum(seconds.values())
    metrics["seconds"] = seconds
    metrics["kept_vectors"] = getattr(encoder, "hits", 0) - kept
    return Evaluation(EncoderResult.from_json({**entry.to_json(), **metrics}), predictions, calibrators)


def copies_note(retrieved: Mapping[str, Retrieval]) -> list[str]:
    """Warn of texts that are there more than once; the accuracy by text where it differs. Empty without any."""
    parts = []
    for direction, way in retrieved.items():
        rows = {code: row for code, row in way.languages.items() if row.copies}
        documents = sum(row.copies.documents or 0 for row in rows.values())
        queries = sum(row.copies.queries or 0 for row in rows.values())
        if not rows:
            continue
        both = {c: (row.accuracy or 0.0, row.accuracy_by_text or 0.0) for c, row in rows.items()}
        told = [
            f"{c} {100 * index:.1f} by index, {100 * text:.1f} by text"
            for c, (index, text) in both.items()
            if abs(index - text) > 1e-12
        ]
        differ = f"accuracy differs: {'; '.join(told)}" if told else "accuracy by text is the same"
        repeat = f"{documents} documents and {queries} queries repeat another text ({', '.join(rows)})"
        parts.append(f"warning: {direction}: {repeat}; {differ}")
    if parts:
        parts.append(
            "By index a copy of the right text counts as wrong, as in XTREME and MTEB; to calibration equal texts are "
            "one candidate"
        )
    return parts


def worst(predictions: Sequence[dict[str, Any]], count: int = 40) -> list[dict[str, Any]]:
    """Pick the most confident errors, at most three of a language and direction, the surest first."""
    key = _confidence_of(predictions[0])
    chosen: list[dict[str, Any]] = []
    seen: Counter[tuple[str, str]] = Counter()
    for p in sorted((p for p in predictions if not p["correct"]), key=lambda p: -p[key]):
        where = (p["language"], p["direction"])
        if seen[where] < 3 and len(chosen) < count:
            seen[where] += 1
            shown = {k: p[k] for k in ("language", "direction", "encoder", "query", "answer", "gold")}
            chosen.append({**shown, "probability": p[key]})
    return chosen


def hashes(corpus: Corpus) -> dict[str, str]:
    """SHA-256 of the texts of each language: its sentences and their English sides, a line each."""
    return {
        f"{corpus.name}, {b.language}": hashlib.sha256(
            "\n".join(f"{f}\t{e}" for f, e in zip(b.foreign, b.english, strict=True)).encode("utf-8", "surrogatepass")
        ).hexdigest()
        for b in corpus.pairs
    }


def _confidence_of(row: dict[str, Any]) -> str:
    """Name the column of the best probability that a row of predictions has."""
    names = ("predicted", "zero-shot", "pooled", "training", "cosine")
    return next(f"p_{name}" for name in names if f"p_{name}" in row)


def _predictions(
    pairs: Bitext,
    direction: str,
    ranking: Ranking,
    by_index: Any,
    methods: Sequence[Method],
    name: str,
) -> list[dict[str, Any]]:
    """List the answers; `correct`: its text is the gold one's, `correct_by_index`: it is the very sentence."""
    queries, answers = retrieval.texts_of(pairs, direction)
    return [
        {
            "encoder": name,
            "language": pairs.language,
            "direction": direction,
            "query": queries[i],
            "answer": answers[int(ranking.rows[i, 0])],
            "gold": answers[i],
            "correct": bool(ranking.gold[i] == 0),
            "correct_by_index": bool(by_index[i]),
            "gold_position": int(ranking.gold[i]),
            "score": float(ranking.scores[i, 0]),
            **{f"p_{m.key}": float(m.scored[pairs.language].confidence[i]) for m in methods},
        }
        for i in range(len(queries))
    ]


def examples(predictions: Sequence[dict[str, Any]], each: int = 6) -> list[dict[str, Any]]:
    """Pick what shows the system at work: confident right answers and confident errors, one a language."""
    chosen = []
    key = _confidence_of(predictions[0])
    rows = [p for p in predictions if p["direction"] == retrieval.DIRECTIONS[0]]
    for correct in (True, False):
        seen: set[str] = set()
        for p in sorted((p for p in rows if p["correct"] is correct), key=lambda p: (-p[key], p["language"])):
            if p["language"] not in seen and len(seen) < each:
                seen.add(p["language"])
                shown = {k: p[k] for k in ("language", "encoder", "query", "answer", "gold", "correct")}
                chosen.append({**shown, "probability": p[key]})
    return chosen


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    shown = (
        "torch",
        "transformers",
        "optimum-onnx",
        "onnxruntime",
        "onnxruntime-gpu",
        "nvidia-pytriton",
        "faiss-cpu",
        "faiss-gpu",
    )
    packages = {d.metadata["Name"]: d.version for d in metadata.distributions() if d.metadata["Name"] in shown}
    return {
        "cpu": cpu,
        "cores": usable_cores(),
        "memory_gib": round(memory, 1),
        "python": platform.python_version(),
        "packages": packages,
    }


def describe_run(title: str, task: dict[str, Any], codes: Sequence[str], **sections: Any) -> Report:
    """Put a report together: what was run, on what and where, the languages by name, then the sections."""
    known = {}
    for code in codes:
        try:
            row = languages.resolve(code)
        except XtError:
            continue
        known[code] = {k: getattr(row, k) for k in ("name", "resource", "script", "family", "joshi")}
    facts = {
        "title": title,
        "created": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "command": command_line(),
        "xt_version": __version__,
        "machine": machine(),
        "task": task,
        "languages": known,
    }
    return Report.from_json(plain({**facts, **sections}))


def assemble(title: str, corpus: Corpus, evaluations: Sequence[Evaluation], **sections: Any) -> Report:
    """Put a report together: the encoders, what they were measured on, and further sections."""
    entries = [e.encoder for e in evaluations]
    shown = examples(evaluations[-1].predictions)
    codes = [b.language for b in corpus.pairs]
    sections = {"worst": worst(evaluations[-1].predictions), "data": hashes(corpus), **sections}
    notes = dict.fromkeys(note for entry in entries for note in entry.notes)
    if told := [*sections.get("notes", ()), *notes]:
        sections["notes"] = told
    return describe_run(title, corpus.describe(), codes, encoders=entries, examples=shown, **sections)


def write_report(
    out: Path,
    report: Report,
    evaluations: Sequence[Evaluation],
    *,
    parents: Sequence[dict[str, str]] = (),
    facts: dict[str, Any] | None = None,
    force: bool = False,
) -> Artifact:
    """Write the report folder of parallel text, with a prediction for every query and the calibrators."""
    names = [str(e.encoder.name) for e in evaluations]
    return folder.write_report(
        out,
        report,
        build.render(report),
        table=[p for e in evaluations for p in e.predictions],
        calibration={name: e.calibrators for name, e in zip(names, evaluations, strict=True)},
        parents=parents,
        facts={"task": report.task.to_json(), "encoders": names, **(facts or {})},
        force=force,
    )
