"""What one run of `xt eval` is to do: which kind of task each name means, and its options, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xt.calibration.search import MAP_SCOPES
from xt.core.data.corpus import is_folder
from xt.core.data.own_task import OWN_METRICS
from xt.core.data.tasks import get
from xt.core.errors import UsageError, XtError, unknown
from xt.core.files.artifact import refuse_existing
from xt.core.files.replacing import named_paths
from xt.eval import protocols
from xt.eval.mining import run as mining
from xt.eval.mining.margin import MARGINS, SEARCHES
from xt.eval.options import CalibrationFlags, CalibrationOptions, EvalOptions, Measures, TaskRequest


@dataclass(frozen=True)
class Requests:
    """What one run is to do."""

    tasks: tuple[TaskRequest, ...]
    calibration: CalibrationOptions
    layers: tuple[int, ...] | None
    """The layers that are measured too, with --layers; None: all."""

    @property
    def of_images(self) -> bool:
        """Whether it is image-text retrieval that is evaluated, which is a study of its own."""
        return any(task.kind == "images" for task in self.tasks)


def read_requests(options: EvalOptions) -> Requests:
    """Return what is to be done; a usage error or XtError where it cannot be, or a report must not be written."""
    kinds = [kind_of(name) for name in options.task]
    check_options(kinds, options.measures)
    calibration = calibration_options(kinds, options.calibration)
    if options.measures.layers is not None and options.location.url is not None:
        raise UsageError("--layers reads a checkpoint in PyTorch: give it by --encoder, not --url")
    layers = layer_numbers(options.measures.layers)
    shared = (options.languages, options.data_dir, options.truncate, options.force)
    folders = report_folders(options.task, options.out)
    tasks = tuple(
        TaskRequest(name, kind, folder, *shared)
        for name, kind, folder in zip(options.task, kinds, folders, strict=True)
    )
    read = (options.location.encoder, calibration.calibration, calibration.install, options.data_dir)
    for folder in folders:
        refuse_existing(folder, force=options.force, kind="report", inputs=named_paths(options.task, *read))
    if "images" in kinds and (set(kinds) != {"images"} or options.location.encoder is None):
        raise UsageError("image-text:FOLDER is evaluated by itself, with --encoder CHECKPOINT")
    return Requests(tasks, calibration, layers)


def kind_of(name: str) -> str:
    """Return what a task is evaluated as: images, mining, ranked, bitext or heads.

    >>> [kind_of(name) for name in ("image-text:emoji", "mine:data", "xquad-r", "tatoeba", "ids:data", "single:a.tsv")]
    ['images', 'mining', 'ranked', 'bitext', 'bitext', 'heads']
    """
    form, colon, _ = name.partition(":")
    if name.startswith("image-text:"):
        return "images"
    if mining.is_mining(name):
        return "mining"
    if protocols.is_ranked(name):
        return "ranked"
    if colon and form in OWN_METRICS:
        return "heads"
    if Path(name).expanduser().is_file():
        raise XtError(f"{name} is a file without its format.", f"Write FORMAT:PATH, such as single:{name}.")
    if form == "ids" or is_folder(name):
        return "bitext"
    return "bitext" if get(name).format == "bitext" else "heads"


def check_options(kinds: list[str], measures: Measures) -> None:
    """Refuse an option that none of the tasks would heed, and a name that it does not know."""
    needs = {
        "--layers": (measures.layers, "bitext", "parallel text"),
        "--pool": (measures.pool, "bitext", "parallel text"),
        "--margin": (measures.margin, "mining", "mining"),
        "--search": (measures.search, "mining", "mining"),
        "--cut": (measures.cut or None, "ranked", "ranked retrieval"),
    }
    for option, (value, kind, what) in needs.items():
        if value is not None and kind not in kinds:
            raise UsageError(f"{option} is for {what}; none of the tasks is")
    if measures.margin is not None and measures.margin not in MARGINS:
        raise unknown("margin", measures.margin, MARGINS)
    if measures.search is not None and measures.search not in SEARCHES:
        raise unknown("search", measures.search, SEARCHES)


def calibration_options(kinds: list[str], flags: CalibrationFlags) -> CalibrationOptions:
    """Return what is requested of calibration; a usage error for what none of the tasks would heed."""
    calibrate_on, shots = flags.calibrate_on, flags.shots
    calibration, install = flags.calibration, flags.install
    given = {"--calibrate-on": calibrate_on, "--shots": shots, "--calibration": calibration, "--install": install}
    for option, value in given.items():
        fit = ("bitext",) if option == "--shots" else ("bitext", "ranked")
        if value is not None and not set(fit) & set(kinds):
            what = "parallel text" if option == "--shots" else "parallel text or ranked retrieval"
            raise UsageError(f"{option} is for {what}; none of the tasks is")
    if install is not None and kinds.count("bitext") + kinds.count("ranked") > 1:
        raise UsageError("--install takes the calibration of one corpus; several were given")
    if calibrate_on is not None and calibrate_on not in MAP_SCOPES:
        raise unknown("scope", calibrate_on, MAP_SCOPES)
    words = [w.strip() for w in shots.split(",")] if shots is not None else []
    if not all(w.isascii() and w.isdigit() and int(w) > 0 for w in words):
        raise UsageError(f"--shots expects numbers of queries, as in 16,50,100; not {shots!r}")
    return CalibrationOptions(calibrate_on, tuple(int(w) for w in words), calibration, install)


def layer_numbers(value: str | None) -> tuple[int, ...] | None:
    """Return the numbers of --layers; None for all layers, and without the option.

    >>> layer_numbers("14, 8"), layer_numbers("all")
    ((8, 14), None)
    """
    if value is None or value.strip() == "all":
        return None
    words = [w.strip() for w in value.split(",")]
    if not all(w.isascii() and w.isdigit() for w in words):
        raise UsageError(f"--layers expects `all` or numbers, as in 8,14,24; not {value!r}")
    return tuple(sorted({int(w) for w in words}))


def report_folders(names: list[str], out: Path) -> list[Path]:
    """Return the folder of each task's report: `out`, or below it one for each of several.

    >>> [str(p) for p in report_folders(["tatoeba", "mine:a/b", "single:c"], Path("reports"))]
    ['reports/tatoeba', 'reports/b', 'reports/c']
    """
    if len(names) == 1:
        return [out]
    folders = [out / Path(name.rsplit(":", 1)[-1]).resolve().name for name in names]
    if twice := sorted({f.name for f in folders if folders.count(f) > 1}):
        raise UsageError(f"two tasks would be reported in {', '.join(twice)}: evaluate them one by one")
    return folders
