"""What one training run is asked to do."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from xt.core.data import tasks
from xt.core.data.examples import ALLOWED_UNUSABLE
from xt.core.data.rows import is_readable
from xt.core.data.tasks import FORMATS, RETRIEVED
from xt.core.errors import XtError, unknown
from xt.core.languages import PRESETS, canonical
from xt.train.sampling import SAMPLINGS

PRECISIONS = ("fp32", "bf16", "fp16")
IMAGE_LOSSES = ("clip", "siglip")
LOGGERS = ("tensorboard", "mlflow", "wandb")
TUPLES = ("intermediate", "mlm", "contrastive", "image_text", "log_to")
FILES = ("data", "translated")
IMPLIED = {"mlm": "mlm", "image_text": "image-text", "contrastive": "contrastive"}
"""Settings that take a plain path, and the format that such a path has."""


def _named_alike(value: str, format: str) -> str:
    """Return a name of own data as the setting keeps it: paths of `mlm` and `image-text` bare, others `FORMAT:PATH`.

    >>> _named_alike("mlm:a.txt", "mlm"), _named_alike("a.jsonl", "contrastive"), _named_alike("sick", "contrastive")
    ('a.txt', 'contrastive:a.jsonl', 'sick')
    """
    if format != "contrastive":
        return value.removeprefix(f"{format}:")
    return f"contrastive:{value}" if is_path(value) else value


def is_path(name: str) -> bool:
    """Whether a name is a plain path: no task of the table and no FORMAT:PATH, but a file, or called like one.

    >>> is_path("data/a"), is_path("a.jsonl"), is_path("pair:a.jsonl"), is_path("sick")
    (True, True, False, False)
    """
    if name in tasks.names() or (":" in name and name.partition(":")[0] in FORMATS):
        return False
    return "/" in name or is_readable(Path(name)) or Path(name).expanduser().exists()


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; all that is wrong with them is said at once. A recipe's keys are these names."""

    encoder: str
    """Folder, hub id or short name of the encoder to start from."""
    out: Path
    """The checkpoint folder to write."""
    intermediate: tuple[str, ...] = ()
    """Tasks to train on together: names of the table, or `FORMAT:PATH` for data of one's own."""
    mlm: tuple[str, ...] = ()
    """Files of texts for masked language modelling, plain paths or `mlm:PATH`: one more task each."""
    contrastive: tuple[str, ...] = ()
    """Texts that belong together, told from the batch's: pair tasks of the table (their positive pairs), `pair:PATH`
    with `positive_label`, or files of anchors and positives, plain paths or `contrastive:PATH`."""
    positive_label: str | None = None
    """Of `pair:PATH` in `contrastive`: the label of pairs whose texts belong together."""
    negative_label: str | None = None
    """Of `pair:PATH` in `contrastive`: the label of pairs whose second text is a hard negative of the first."""
    image_text: tuple[str, ...] = ()
    """Folders of image vectors and captions (see `xt images`), plain paths or `image-text:PATH`."""
    target: str | None = None
    """The task to train on afterwards, alone, with a new head."""
    data_dir: Path | None = None
    """Folder of data sets; the environment variable XT_DATA otherwise; then the hub."""
    data: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Files or folders of a task's data, by its name, instead of the places that are known."""
    translated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Further training files of a task, translated copies say, for the same head; the dev data stay as they are."""
    languages: str | None = None
    """Languages that a user's own files are trained on and scored in: codes with commas between them, a preset
    (`low-resource`), or `all` that their rows name. None: all, of image-text folders English, which leaves the others
    for zero-shot measures."""
    limit: int | None = None
    """Training examples of a task at most, chosen by a hash of the seed and their texts."""
    dev_limit: int = 1000
    """Dev examples of a task at most, chosen likewise."""
    allow_unusable: float = ALLOWED_UNUSABLE
    """Share of rows that may be unusable (0 to 1)."""

    steps: int | None = None
    """Batches to train on. Not together with `epochs`."""
    epochs: float | None = None
    """Passes over the (capped) examples of all tasks together; 1.0 when neither this nor `steps` is given."""
    target_steps: int | None = None
    """The same for the target; `steps` when not given."""
    target_epochs: float | None = None
    """The same for the target; `epochs` when not given."""
    batch: int = 16
    """Examples (windows, of long contexts) a step, all of one task, over all processes."""
    micro_tokens: int | None = None
    """Tokens, padding included, of one pass forward and back in one process. It bounds the memory, and leaves the
    gradient as it is (but for dropout, which is drawn anew in each pass): gradients are summed, and contrastive batches
    are as large as ever (gradient caching). None: 1,024 on a CPU, whose caches hold no more, 16,384 on a GPU."""
    learning_rate: float = 2e-5
    """Highest learning rate of the encoder (AdamW), after the warm-up and before the linear decay to 0."""
    head_learning_rate: float = 4e-4
    """The same for the heads, which start from random weights."""
    warmup: float = 0.1
    """Share of the steps (0 to below 1) over which the learning rates rise from 0."""
    weight_decay: float = 0.01
    """AdamW's decoupled decay, of matrices only."""
    max_length: int = 256
    """Tokens of an input, special tokens included. Longer pairs are cut; longer contexts are read in windows."""
    sampling: str = "proportional"
    """How often each task is trained on: see `xt.train.sampling.probabilities`."""
    cap: int = 131072
    """Examples from which on a task counts no more, for `capped`. (2**17: the middle of what T5 tried.)"""
    sampling_temperature: float = 2.0
    """Flattening for `temperature`: 1 is proportional, large is uniform."""
    group_by_length: bool = True
    """Put examples of like length into a batch: less padding. Batches still come in random order."""

    freeze_embeddings: bool = True
    """Keep the word embeddings as they are: tokens that the tasks do not show, of other languages, keep their place."""
    lora_rank: int = 0
    """Train low-rank additions (LoRA, Hu et al. 2022) of this rank instead, merged in the end; 0: the weights."""
    dropout: float | None = None
    """Dropout of encoder and heads while training; None: the encoder's own."""
    pool_layer: int | None = None
    """The layer whose pooled states are the retrieval vector (1 to the encoder's layers); None: the last."""
    mlm_probability: float = 0.15
    """Share of the tokens that masked language modelling hides."""
    contrastive_temperature: float | None = None
    """What cosines are divided by; None: the encoder's own, else 0.05."""
    image_loss: str = "clip"
    """`clip` (over the batch) or `siglip` (each pair by itself)."""

    evaluate_every: int = 0
    """Steps from one scoring on the English dev data to the next; the best weights are kept. 0: only the last."""
    patience: int = 0
    """Scorings without a better mean after which training stops; 0: never."""
    save_every: int = 200
    """Steps after which all is written down for --resume; 0: never."""
    precision: str = "fp32"
    """What the network computes in: fp32, bf16 or fp16 (GPU only); the weights are kept in fp32."""
    gradient_checkpointing: bool = False
    """Compute again on the way back instead of keeping: less memory, more time."""
    fsdp: str = ""
    """transformers' `fsdp` setting, such as `full_shard auto_wrap`, for several processes."""
    log_to: tuple[str, ...] = ()
    """Where transformers logs losses and dev scores as well: tensorboard, mlflow, wandb."""
    seed: int = 0
    """Of the heads' first weights, the order of the examples, hidden tokens and dropout."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""
    force: bool = False
    """Replace what is at `out`, once the new folder is complete."""
    resume: bool = False
    """Go on with a training that was interrupted."""

    def __post_init__(self) -> None:
        for name in TUPLES:
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value or ()))
        for name, format in IMPLIED.items():
            object.__setattr__(self, name, tuple(_named_alike(value, format) for value in getattr(self, name)))
        for name in FILES:
            pairs = {k: (v,) if isinstance(v, str) else tuple(v) for k, v in (getattr(self, name) or {}).items()}
            known = {value for _, value in self._named()}
            named = {k if k in known else self._known(k, known): v for k, v in pairs.items()}
            object.__setattr__(self, name, named)
        object.__setattr__(self, "out", Path(self.out))
        if self.data_dir is not None:
            object.__setattr__(self, "data_dir", Path(self.data_dir))
        problems = [
            *self._task_problems(),
            *self._language_problems(),
            *self._number_problems(),
            *self._word_problems(),
        ]
        if self.steps is None and self.epochs is None:
            object.__setattr__(self, "epochs", 1.0)
        if len(problems) == 1:
            raise problems[0]
        if problems:
            lines = "\n".join(f"- {problem.message}" for problem in problems)
            hints = "\n".join(dict.fromkeys(problem.hint for problem in problems if problem.hint))
            raise XtError(f"The training settings have {len(problems)} problems:\n{lines}", hints)

    @staticmethod
    def _known(name: str, known: Collection[str]) -> str:
        """Return the name that a path was given under a setting that implies its format; any other name as it is."""
        alike = _named_alike(name, "contrastive")
        return alike if alike in known else name

    def _named(self) -> Iterator[tuple[str, str]]:
        yield from (("intermediate", name) for name in self.intermediate)
        yield from (("contrastive", name) for name in self.contrastive)
        if self.target:
            yield "target", self.target

    def _task_problems(self) -> Iterator[XtError]:
        for where, name in dict.fromkeys(self._named()):
            if name.partition(":")[0] in FORMATS and ":" in name:
                continue
            if is_path(name):
                shapes = ", ".join(f"{form}:{name}" for form in ("pair", "single", "qa"))
                yield XtError(f"{name} is a path without its format.", f"Write FORMAT:PATH, such as {shapes}.")
                continue
            try:
                task = tasks.get(name)
            except XtError as error:
                yield error
                continue
            if task.format in RETRIEVED:
                what = "parallel text" if task.format == "bitext" else f"a task ({task.format})"
                yield XtError(f"{name} is {what} to evaluate on; one cannot train on it.", "See xt tasks.")
            elif where == "contrastive" and not task.positive:
                yield XtError(
                    f"{name} has no label that makes two texts belong together.",
                    "Name a pair task that has one (sick, rte, mrpc, mnli, qqp), or contrastive:FILE.",
                )
        for where, format in (("mlm", "mlm"), ("image_text", "image-text")):
            for value in getattr(self, where):
                if (form := value.partition(":")[0]) in FORMATS and ":" in value and not Path(value).exists():
                    yield XtError(f"{where} takes {format} data; {value} is {form} data.", f"Name it {format}:PATH.")
        pairs = [name for name in self.contrastive if name.startswith("pair:")]
        for option in ("positive_label", "negative_label"):
            if getattr(self, option) is not None and not pairs:
                yield XtError(f"{option} goes with pair:PATH in contrastive; there is none.", "Leave it out.")
        if self.negative_label is not None and self.negative_label == self.positive_label:
            yield XtError(f"positive_label and negative_label are both {self.positive_label!r}.", "Name two labels.")
        for where in ("intermediate", "contrastive", "mlm", "image_text"):
            values = getattr(self, where)
            if twice := sorted({name for name in values if values.count(name) > 1}):
                yield XtError(f"Named more than once: {', '.join(twice)}.")
        if not (self.intermediate or self.mlm or self.contrastive or self.image_text or self.target):
            known = ", ".join(tasks.names("intermediate"))
            yield XtError("No task to train on.", f"Name one or more of: {known}.")
        trained = {name for _, name in self._named()}
        for option in FILES:
            for name in getattr(self, option):
                if name not in trained:
                    yield XtError(f"{option} names {name}, which is not trained on.", "Name the task too.")

    def _language_problems(self) -> Iterator[XtError]:
        if self.languages is None:
            return
        if not any(code.strip() for code in self.languages.split(",")):
            yield XtError("languages names none.", "Give codes with commas between them, such as eng,deu, or all.")
        own = [name for _, name in self._named() if ":" in name]
        if not (own or self.mlm or self.image_text or self.data or self.translated):
            yield XtError(
                f"languages is {self.languages}, and no task is of your own files: those of the table are English.",
                "Leave it out, or name files: FORMAT:PATH, --data TASK=PATH, --translated TASK=PATH.",
            )

    def _number_problems(self) -> Iterator[XtError]:
        shares = {"warmup": self.warmup, "weight_decay": self.weight_decay, "dropout": self.dropout or 0.0}
        rates = {"learning_rate": self.learning_rate, "head_learning_rate": self.head_learning_rate}
        counts = {
            "batch": self.batch, "cap": self.cap, "dev_limit": self.dev_limit, "micro_tokens": self.micro_tokens,
            "steps": self.steps, "target_steps": self.target_steps, "limit": self.limit, "pool_layer": self.pool_layer,
        }  # fmt: skip
        zeros = {name: getattr(self, name) for name in ("lora_rank", "evaluate_every", "patience", "save_every")}
        passes = {"epochs": self.epochs, "target_epochs": self.target_epochs}
        checks = [
            *((0 <= v < 1, f"{k} is {v}; 0 to below 1 needed.") for k, v in shares.items()),
            *((0 < v < 1, f"{k} is {v}; between 0 and 1 needed.") for k, v in rates.items()),
            *((v is None or v >= 1, f"{k} is {v}; 1 or more needed.") for k, v in counts.items()),
            *((v >= 0, f"{k} is {v}; 0 or more needed.") for k, v in zeros.items()),
            *((v is None or 0 < v < math.inf, f"{k} is {v}; above 0 needed.") for k, v in passes.items()),
            (self.steps is None or self.epochs is None, "steps and epochs exclude each other; give one."),
            (
                self.target_steps is None or self.target_epochs is None,
                "target_steps and target_epochs exclude each other; give one.",
            ),
            (self.max_length >= 16, f"max_length is {self.max_length}; 16 tokens or more needed."),
            (
                1 <= self.sampling_temperature < math.inf,
                f"sampling_temperature is {self.sampling_temperature}; 1 or more needed.",
            ),
            (0 < self.mlm_probability < 1, f"mlm_probability is {self.mlm_probability}; between 0 and 1 needed."),
            (0 <= self.allow_unusable <= 1, f"allow_unusable is {self.allow_unusable}; 0 to 1 needed."),
            (
                self.contrastive_temperature is None or self.contrastive_temperature > 0,
                f"contrastive_temperature is {self.contrastive_temperature}; above 0 needed.",
            ),
            (not self.patience or self.evaluate_every > 0, "patience needs evaluate_every, steps between scorings."),
            (0 <= self.seed < 2**32, f"seed is {self.seed}; 0 to 2**32 - 1 needed."),
            (not (self.force and self.resume), "force and resume exclude each other; give one."),
        ]
        return (XtError(text) for holds, text in checks if not holds)

    def _word_problems(self) -> Iterator[XtError]:
        words = {
            "sampling": ((self.sampling,), tuple(SAMPLINGS)),
            "device": ((self.device,), ("auto", "cpu", "cuda")),
            "precision": ((self.precision,), PRECISIONS),
            "image_loss": ((self.image_loss,), IMAGE_LOSSES),
            "log_to": (self.log_to, LOGGERS),
        }
        return (unknown(k, v, known) for k, (given, known) in words.items() for v in given if v not in known)

    def language_codes(self) -> tuple[str, ...]:
        """Return the languages asked for, by the codes that rows are counted under; empty for all."""
        name = (self.languages or "all").strip().lower()
        if name in PRESETS:
            return () if name == "all" else PRESETS[name]
        return tuple(dict.fromkeys(canonical(code) for code in name.split(",") if code.strip()))

    def planned_steps(self, examples: int, *, target: bool = False) -> int:
        """Give the steps to train for, when all tasks together have so many (capped) examples.

        >>> TrainConfig("x", Path("y"), intermediate=("sample-nli",), epochs=2, batch=16).planned_steps(100)
        13
        """
        steps, epochs = self.steps, self.epochs
        if target and (self.target_steps or self.target_epochs):
            steps, epochs = self.target_steps, self.target_epochs
        return steps if steps is not None else max(1, math.ceil((epochs or 1.0) * examples / self.batch))

    def to_json(self) -> dict[str, Any]:
        """As the manifest and a recipe keep it."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        for name in FILES:
            plain[name] = {k: list(v) for k, v in getattr(self, name).items()}
        return {k: str(v) if isinstance(v, Path) else v for k, v in plain.items()}


def setting_names() -> list[str]:
    """List the settings that a recipe may name."""
    return [f.name for f in fields(TrainConfig) if f.name not in ("force", "resume")]
