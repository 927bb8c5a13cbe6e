"""What intermediate training on small English data does: each kind of task, before and after, on real text.

Every run starts from the same encoder. Measured of each: the tasks' own English held-out parts against the majority
baseline, Tatoeba in nine languages (accuracy both ways, ECE with a zero-shot temperature), and where there is a target
its zero-shot accuracy over languages. A run that is complete is kept when the study is run again.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from xt.core.data import source_rows, sources, tasks
from xt.core.data.bitext import data_folder
from xt.core.data.corpus import load_corpus
from xt.core.data.examples import ChoiceExample, QaExample, ReadLog
from xt.core.data.images import IMAGES
from xt.core.errors import XtError, explain_os_error
from xt.core.files.artifact import MANIFEST, open_artifact, read_json, refuse_existing, write_json
from xt.core.reporter import Progress, Reporter
from xt.core.results.calibration import Method
from xt.core.results.folder import read_report
from xt.core.results.records import plain
from xt.core.results.report import Encoder
from xt.eval.heads import classify, targets
from xt.eval.retrieval.evaluation import evaluate
from xt.eval.retrieval.report import assemble, write_report
from xt.serve.encoders import open_encoder
from xt.studies.images import emoji
from xt.studies.images.evaluation import retrieve
from xt.train.config import TrainConfig
from xt.train.loop import train

MARK = "study.json"
"""The file that says that a folder is this study's."""
WRITTEN = (MARK, "summary.json", "results.md", "tatoeba.csv")
"""Files that are written anew whenever the study goes on."""
TATOEBA = "afr,ara,ben,deu,swh,tam,tel,kat,jav"
ALL = ("sick", "rte", "mrpc", "cosmosqa", "commonsenseqa", "xquad-en")
COMMON: dict[str, Any] = {
    "learning_rate": 5e-5,
    "head_learning_rate": 1e-3,
    "max_length": 256,
    "dev_limit": 500,
    "save_every": 100,
}


@dataclass(frozen=True)
class Run:
    """One training: what it is called and how it differs from the others."""

    name: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    start: str = ""
    """The run whose checkpoint it starts from; empty: the encoder itself."""


RUNS = (
    Run("base", "no training"),
    Run("nli", "NLI: SICK, RTE", {"intermediate": ("sick", "rte"), "steps": 300}),
    Run("qa", "QA: XQuAD.en", {"intermediate": ("xquad-en",), "steps": 250, "batch": 8}),
    Run(
        "choice",
        "multiple choice: CosmosQA, CommonsenseQA",
        {"intermediate": ("cosmosqa", "commonsenseqa"), "steps": 300, "batch": 8, "sampling": "uniform"},
    ),
    Run("all", "all six tasks", {"intermediate": ALL, "steps": 480, "batch": 12, "sampling": "capped", "cap": 1000}),
    Run("mlm", "MLM on English text", {"mlm": ("english.txt",), "steps": 200, "batch": 8}),
    Run(
        "contrastive",
        "contrastive: SICK, RTE, MRPC positives",
        {"contrastive": ("sick", "rte", "mrpc"), "steps": 100, "batch": 48, "learning_rate": 2e-5},
    ),
    Run("images", "image-text: emoji, English names", {"image_text": ("emoji",), "steps": 250, "batch": 64}),
    Run("sib200", "target SIB-200", {"target": "sib200", "epochs": 4}),
    Run("all-sib200", "all six tasks, then SIB-200", {"target": "sib200", "epochs": 4}, start="all"),
)
"""The trainings, in the order they are made."""


@dataclass(frozen=True)
class Settings:
    """The settings of one run of the study."""

    out: Path
    encoder: str = "multilingual-e5-small"
    data_dir: Path | None = None
    runs: tuple[str, ...] = ()
    """Names of `RUNS`; empty: all."""
    precision: str = "bf16"
    device: str = "auto"
    seed: int = 0
    scale: float = 1.0
    """Share of the steps and epochs to make: below 1 for a trial."""

    def __post_init__(self) -> None:
        known = [r.name for r in RUNS]
        if wrong := [name for name in self.runs if name not in known]:
            raise XtError(f"There is no run {wrong[0]}.", f"Known: {', '.join(known)}.")
        if data_folder(self.data_dir) is None:
            raise XtError("The study needs a folder of data sets.", "Name it by --data-dir (or XT_DATA).")


def english_text(data_dir: Path | None, path: Path) -> None:
    """Write the contexts of CosmosQA and XQuAD.en, one a line, for masked language modelling.

    The held-out ones too: what is held out of a divided file is chosen by a hash of the text, so they are again.
    """
    lines: dict[str, None] = {}
    for name, split in product(("cosmosqa", "xquad-en"), ("train", "dev")):
        source = sources.locate(tasks.get(name), split, data_dir=data_dir)
        for example in source_rows.examples(source, ReadLog()):
            text = example.context if isinstance(example, QaExample) else ""
            text = example.prompt if isinstance(example, ChoiceExample) else text
            lines[" ".join(text.split())] = None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def configure(study: Settings, chosen: Run) -> TrainConfig:
    """Return the settings of one training; what it reads that is not there yet is made."""
    settings = {**COMMON, **chosen.settings}
    made = study.out / "data"
    if settings.get("mlm"):
        settings["mlm"] = (str(made / "english.txt"),)
        if not (made / "english.txt").is_file():
            english_text(study.data_dir, made / "english.txt")
    if settings.get("image_text"):
        settings["image_text"] = (str(made / "emoji"),)
        if not (made / "emoji" / IMAGES).is_file():
            emoji.build(made / "emoji")
    for name in ("steps", "epochs"):
        if name in settings:
            settings[name] = (
                max(1, round(settings[name] * study.scale)) if name == "steps" else settings[name] * study.scale
            )
    start = str(study.out / "runs" / chosen.start) if chosen.start else study.encoder
    out = study.out / "runs" / chosen.name
    more: dict[str, Any] = {
        "precision": study.precision,
        "device": study.device,
        "seed": study.seed,
        "data_dir": study.data_dir,
    }
    return TrainConfig(encoder=start, out=out, **settings, **more, resume=True)


def measure_tatoeba(study: Settings, encoder: str, out: Path, *, reporter: Reporter) -> None:
    """Write the report of one encoder on Tatoeba."""
    corpus = load_corpus("tatoeba", data_dir=study.data_dir, selection=TATOEBA)
    opened = open_encoder(encoder, device=study.device)
    result = evaluate(opened, corpus, reporter=reporter)
    results = assemble("xt study transfer", corpus, [result])
    write_report(out, results, [result], parents=[opened.parent], force=True)


def measure_target(study: Settings, folder: Path, out: Path, *, reporter: Reporter) -> None:
    """Write the report of a trained head over the languages of its task."""
    task = targets.find("sib200")
    assert task is not None
    test = targets.read(task, data_dir=study.data_dir)
    heads = classify.open_heads(str(folder), device=study.device)
    result = classify.classify(
        heads, test.task, test.examples, english=test.english or None, progress=reporter.counter("languages")
    )
    classify.write(out, heads, test.task, result, facts={"data": test.facts}, force=True)


def measure_images(study: Settings, folder: Path, out: Path, *, reporter: Reporter) -> None:
    """Write the report of an image-text head over the languages of the captions."""
    heads = classify.open_checkpoint(str(folder), device=study.device)
    task, result = retrieve(heads, study.out / "data" / "emoji", progress=reporter.counter("encoded"))
    classify.write(out, heads, task, result, force=True)


def begin(study: Settings, chosen: Sequence[Run]) -> None:
    """Claim the study's folder; XtError when there is something in it that the study would overwrite."""
    for one in chosen:
        refuse_existing(study.out / "runs" / one.name, force=True, kind="checkpoint")
        for name in ("tatoeba", "sib200", "images"):
            refuse_existing(study.out / "reports" / f"{one.name}-{name}", force=True, kind="report")
    claim(study.out)


def claim(out: Path) -> None:
    """Mark a folder as this study's; XtError when files in it that the study writes are somebody else's."""
    if os.path.lexists(out) and not out.is_dir():
        raise XtError(f"{out} is no folder.", "Choose another --out.")
    own = _holds(out / MARK, "study") or _holds(out / "summary.json", "schema", "runs")  # the latter: before marks
    taken = [name for name in WRITTEN if os.path.lexists(out / name)]
    if taken and not own:
        raise XtError(f"{out} holds {', '.join(taken)}, which this study did not write.", "Choose another --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / MARK, {"study": "transfer"})
    except OSError as error:
        raise explain_os_error(error) from error


def _holds(file: Path, *keys: str) -> bool:
    """Return whether a file is a JSON object with these keys."""
    try:
        found = read_json(file)
    except XtError:
        return False
    return isinstance(found, dict) and set(keys) <= set(found)


def execute(study: Settings, *, reporter: Reporter = Reporter()) -> dict[str, Any]:
    """Make the runs that are not complete yet, and give the summary, which is also written to `summary.json`."""
    chosen = [r for r in RUNS if not study.runs or r.name in study.runs]
    begin(study, chosen)
    for number, one in enumerate(chosen):
        reporter.say(f"{number + 1}/{len(chosen)} {one.title}")
        folder = study.out / "runs" / one.name
        encoder = study.encoder
        if one.settings:
            if one.start and not (study.out / "runs" / one.start / MANIFEST).is_file():
                raise XtError(f"{one.name} starts from {one.start}, which is not there.", f"Run {one.start} first.")
            count = reporter.counter("steps")
            config = configure(study, one)
            train(config, report=reporter.say, progress=partial(_counted, count))
            encoder = str(folder)
        measures: dict[str, Callable[[Path], None]] = {
            "tatoeba": partial(measure_tatoeba, study, encoder, reporter=reporter)
        }
        if one.settings.get("target"):
            measures["sib200"] = partial(measure_target, study, folder, reporter=reporter)
        if one.settings.get("image_text"):
            measures["images"] = partial(measure_images, study, folder, reporter=reporter)
        for name, measure in measures.items():
            out = study.out / "reports" / f"{one.name}-{name}"
            if not (out / MANIFEST).is_file():
                measure(out)
        summary = summarise(study.out)
        write_json(study.out / "summary.json", summary)
    write_tables(study.out, summary)
    return summary


def _counted(count: Progress, done: int, total: int, facts: dict[str, Any]) -> None:
    count(done, total, facts["task"])


def report_again(out: Path) -> dict[str, Any]:
    """Write the tables of a study again, from what is complete in its folder, and return its summary."""
    found = summarise(out)
    if not found["runs"]:
        raise XtError(f"{out} holds no complete run.", "Run the study first: xt study run transfer.")
    claim(out)
    write_tables(out, found)
    return found


def summarise(out: Path) -> dict[str, Any]:
    """Read the complete runs of a study folder into one table of tables."""
    rows = []
    for one in RUNS:
        report = out / "reports" / f"{one.name}-tatoeba"
        if not (report / MANIFEST).is_file():
            continue
        row: dict[str, Any] = {"run": one.name, "title": one.title, "tasks": []}
        if one.settings:
            training = open_artifact(out / "runs" / one.name, kind="checkpoint").facts["training"]
            row |= {k: training[k] for k in ("steps", "seconds", "tokens", "tokens_per_second", "precision", "device")}
            keys = ("task", "metric", "majority", "before", "after", "train", "dev")
            row["tasks"] = [{k: t[k] for k in keys} for t in training["tasks"]]
        entry = read_report(report).encoders[0]
        row["tatoeba"] = {way: _way(entry, way) for way in entry.retrieval}
        for name in ("sib200", "images"):
            folder = out / "reports" / f"{one.name}-{name}"
            if (folder / MANIFEST).is_file():
                section = plain(read_report(folder).classification)
                row[name] = {k: section[k] for k in ("mean", "languages", "metric", "chance", "images") if k in section}
        rows.append(row)
    return {"schema": 1, "runs": rows}


def _way(entry: Encoder, way: str) -> dict[str, Any]:
    """Return one direction of retrieval: accuracies in percent, and what a zero-shot temperature makes of them."""
    found = entry.retrieval[way]
    fitted = entry.calibration[way].methods.get("zero-shot", Method())
    return {
        "mean": 100 * found.mean["all"],
        "languages": {code: 100 * (r.accuracy or 0.0) for code, r in found.languages.items()},
        "ece": fitted.overall.ece,
        "ece_null": fitted.overall.ece_null,
        "temperature": fitted.temperature,
    }


def write_tables(out: Path, summary: Mapping[str, Any]) -> None:
    """Write what `markdown` returns to results.md, and Tatoeba by language to tatoeba.csv."""
    (out / "results.md").write_text(markdown(summary), encoding="utf-8")
    with (out / "tatoeba.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "direction", "language", "accuracy"])
        for row in summary["runs"]:
            for way, found in row["tatoeba"].items():
                writer.writerows([row["run"], way, code, f"{v:.2f}"] for code, v in found["languages"].items())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table, and an empty line behind it."""
    lines = [head, ["---"] * len(head), *rows]
    return [*(f"| {' | '.join(cells)} |" for cells in lines), ""]


def markdown(summary: Mapping[str, Any]) -> str:
    """Write the summary as Markdown tables: Tatoeba of every run, the tasks' held-out parts, SIB-200, image-text."""
    rows = summary["runs"]
    base = rows[0]["tatoeba"] if rows and rows[0]["run"] == "base" else None
    head = ["training", "steps", "minutes", "foreign to English", "English to foreign", "ECE (null)"]
    lines = _table(head, (_retrieval(row, base) for row in rows))
    head = ["training", "task", "metric", "baseline", "before", "after", "held out"]
    lines += _table(head, (_own(row["run"], task) for row in rows for task in row["tasks"]))
    if found := [row for row in rows if "sib200" in row]:
        groups = list(found[0]["sib200"]["mean"]["accuracy"])
        lines += _table(["SIB-200 accuracy", *groups, "English"], (_classes(row, groups) for row in found))
    for row in (row for row in rows if "images" in row):
        scores = row["images"]
        head = [f"text to image, {scores['images']} images", "recall at 1", "recall at 10", "MRR"]
        chance = ["chance", *(f"{value:.3f}" for value in scores["chance"].values())]
        lines += _table(head, [chance, *(_pictures(code, r) for code, r in scores["languages"].items())])
    return "\n".join(lines)


def _retrieval(row: Mapping[str, Any], base: Mapping[str, Any] | None) -> list[str]:
    cells = []
    for way, found in row["tatoeba"].items():
        change = "" if base is None or row["run"] == "base" else f" ({found['mean'] - base[way]['mean']:+.1f})"
        cells.append(f"{found['mean']:.1f}{change}")
    first = next(iter(row["tatoeba"].values()))
    ece = "–" if first["ece"] is None else f"{first['ece']:.3f} ({first['ece_null']:.3f})"
    time = f"{row['seconds'] / 60:.1f}" if "seconds" in row else "–"
    return [row["title"], str(row.get("steps", "–")), time, *cells, ece]


def _own(name: str, task: Mapping[str, Any]) -> list[str]:
    before = "–" if task["before"] is None else f"{task['before']:.3f}"
    scores = [f"{task['majority']:.3f}", before, f"{task['after']:.3f}"]
    return [name, task["task"], task["metric"], *scores, str(task["dev"])]


def _classes(row: Mapping[str, Any], groups: Sequence[str]) -> list[str]:
    mean, english = row["sib200"]["mean"]["accuracy"], row["sib200"]["languages"].get("eng")
    shown = [f"{100 * mean[group]:.1f}" for group in groups]
    return [row["title"], *shown, f"{100 * english['accuracy']:.1f}" if english else "–"]


def _pictures(code: str, scores: Mapping[str, Any]) -> list[str]:
    low, high = scores["recall@10_ci"]
    return [
        code,
        f"{scores['recall@1']:.3f}",
        f"{scores['recall@10']:.3f} [{low:.2f}, {high:.2f}]",
        f"{scores['mrr']:.3f}",
    ]
