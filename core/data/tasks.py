"""The tasks xt knows, as a table: what an encoder can be trained on (`intermediate`) and evaluated on (`target`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from xt.core.errors import XtError, unknown

SAMPLES = Path(__file__).parent / "samples"
"""The folder of the training samples that come with xt."""

KINDS = ("intermediate", "target")
FORMATS = {
    "pair": "two texts and a label",
    "single": "a text and a label",
    "regression": "two texts and a number",
    "choice": "a prompt and numbered continuations, one right",
    "qa": "a question and the span of a context that answers it, or none",
    "tagging": "words and a label for each",
    "mlm": "plain text, some tokens hidden",
    "contrastive": "texts and the texts they belong to, against the others of the batch",
    "image-text": "captions and the vectors of their images",
    "bitext": "sentences and their translations",
    "mining": "sentences of two languages, some of them translations of each other",
    "ranked": "queries, documents, and which documents answer which query",
}
"""The formats of examples, and what an example of each is."""
RETRIEVED = ("bitext", "mining", "ranked")
"""Formats that are only evaluated, by vectors alone: no training data, no head."""
OWN_LICENCE = "your own"
"""The licence of a task made of a user's own files, by which such a task is known."""


@dataclass(frozen=True)
class Hub:
    """Where the Hugging Face hub keeps a task's data, as Parquet: loading scripts are refused by today's libraries."""

    id: str
    revision: str
    """A commit, or `refs/convert/parquet` where the hub made the Parquet files."""
    config: str = ""
    """The configuration, with `{language}` or another of the names of `Task.files` in it; empty: the only one."""
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "dev": "validation"})
    """Our split (`train`, `dev`, `test`) to the name of theirs; several of theirs joined by `+`."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """What the reader of the format needs, to the column that holds it; columns joined by `+` are one text.
    Empty: those of the published layout."""
    labels: tuple[Any, ...] = ()
    """The values of the label column in the order of the task's labels; empty: 0, 1, ..."""
    prefix: str = ""
    """How the `id` of a row in this language starts (`{name}-`), where one configuration holds them all; else empty."""


@dataclass(frozen=True)
class Task:
    """A row of the table."""

    name: str
    """What the command line calls it."""
    kind: str
    """`intermediate`: trained on in English; `target`: evaluated on, zero-shot across languages."""
    format: str
    """A key of `FORMATS`."""
    title: str
    labels: tuple[str, ...]
    """The labels in the order of the classifier's outputs; empty where they are positions, spans or numbers."""
    languages: str
    """The languages, in words."""
    metric: str
    """`accuracy`, `f1` (SQuAD's, of tokens), `span_f1`, `spearman`, `retrieval` (share of texts whose own partner is
    the nearest), `token_accuracy` (share of hidden tokens found), `mining_f1` or `map@20`."""
    source: str
    """Where the data come from."""
    licence: str
    codes: tuple[str, ...] = ("eng",)
    """The languages as `xt.core.languages` names them."""
    more: tuple[str, ...] = ()
    """Further languages that only a data folder may have: XTREME-R's, where the hub's copy is XTREME's."""
    sample: bool = False
    """Whether the data are a small sample that comes with xt, no benchmark."""
    file: str = ""
    """The data file below `SAMPLES`; empty where the data do not come with xt."""
    fields: tuple[str, ...] = ()
    """Names of the text fields in a row of the file."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Examples of the published splits in English: `train`, `dev`, `test`; what is not known is left out."""
    hub: Hub | None = None
    layout: str = "xt"
    """The reader of the local files: a key of `xt.core.data.readers.LAYOUTS`."""
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For each split the places below a data folder where its file may lie, the first that is there counts.

    `{language}` stands for the language's code at that place, two letters or three; `{iso3}` and `{iso1}` for those of
    three and of two letters alone, older and macro-language ones too (`swh` and `swa`, `cmn` and `zho`); `{script}`
    for the script (`Latn`); `{name}` and `{Name}` for the English name (`swahili`, `Swahili`). `*`, `?` and `[` match
    as in a shell; where several files match they are read one after the other (the treebanks of a language)."""
    parts: tuple[str, ...] = ()
    """Names of other tasks whose training data belong to this one too, under the same labels (ANLI+)."""
    train_on: str = ""
    """Name of the task whose training data are used, under the same labels; empty: the task has its own."""
    positive: str = ""
    """The label that makes two texts of a pair a positive pair of contrastive training; empty: there is none."""
    negative: str = ""
    """The label that makes the second text a hard negative of the first."""
    no_answer: bool = False
    """Whether a question may have no answer in its context (SQuAD v2.0)."""
    note: str = ""
    """What to do when the data cannot be had freely."""
    trained_on: tuple[str, ...] = ()
    """Of a head: the SHA-256 of the files whose rows it was trained on."""
    divided: bool = False
    """Of a head: whether a part of these files was held out from training (`xt.core.data.sources.HELD_OUT`)."""

    @property
    def all_codes(self) -> tuple[str, ...]:
        """The languages, those that only a data folder may have included."""
        return (*self.codes, *self.more)

    @property
    def own(self) -> bool:
        """Whether it is made of a user's own files (`xt.core.data.sources.own_task`)."""
        return self.licence == OWN_LICENCE

    @property
    def path(self) -> Path:
        """The data file; XtError when the task's data do not come with xt."""
        if not self.file:
            raise XtError(f"The data of {self.name} ({self.format}) do not come with xt.", self.note or "See xt tasks.")
        return SAMPLES / self.file

    def to_json(self) -> dict[str, Any]:
        """Return it as `xt tasks --json` lists it."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Task:
        """Read what `to_json` gave, as a checkpoint keeps it; fields that another version wrote are left out."""
        kept: dict[str, Any] = {f.name: _tuples(row[f.name]) for f in fields(cls) if f.name in row}
        if isinstance(hub := kept.get("hub"), Mapping):
            kept["hub"] = Hub(**{f.name: hub[f.name] for f in fields(Hub) if f.name in hub})
        return cls(**kept)


def _tuples(value: Any) -> Any:
    """Return a JSON value with tuples in place of its lists, also of those in its objects."""
    if isinstance(value, Mapping):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def get(name: str) -> Task:
    """Return a task by its name; an unknown one is answered with the near names and the list."""
    from xt.core.data.task_table import TASKS

    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]


def names(kind: str | None = None) -> list[str]:
    """List the names of the tasks of a kind (None: of all), in the order of the table."""
    from xt.core.data.task_table import TASKS

    if kind is not None and kind not in KINDS:
        raise unknown("kind of task", kind, KINDS)
    return [task.name for task in TASKS.values() if kind in (None, task.kind)]
