"""The settings of one training run."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from xt.core.data import tasks
from xt.core.data.readers.rows import ALLOWED_UNUSABLE, is_readable
from xt.core.data.tasks import FORMATS, RETRIEVED
from xt.core.errors import XtError, unknown
from xt.core.languages import PRESETS, canonical
from xt.core.settings import DataDir, Device, Flag, Force, Out, Seed

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
    """Return whether a name is a plain path: no task of the table and no FORMAT:PATH, but a file, or called like one.

    >>> is_path("data/a"), is_path("a.jsonl"), is_path("pair:a.jsonl"), is_path("sick")
    (True, True, False, False)
    """
    if name in tasks.names() or (":" in name and name.partition(":")[0] in FORMATS):
        return False
    return "/" in name or is_readable(Path(name)) or Path(name).expanduser().exists()


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; all that is wrong with them is reported at once. A recipe's keys are these names."""

    encoder: Annotated[str, Flag("A checkpoint folder, a short name or a hub id.")]
    out: Out
    intermediate: Annotated[
        tuple[str, ...],
        Flag("A task to train on (see `xt tasks`), or FORMAT:PATH; repeat for several at once."),
    ] = ()
    target: Annotated[str | None, Flag("A task, or FORMAT:PATH, to train on afterwards, alone, with a new head.")] = (
        None
    )
    mlm: Annotated[tuple[str, ...], Flag("PATH (or mlm:PATH) of texts for masked language modelling; repeatable.")] = ()
    contrastive: Annotated[
        tuple[str, ...],
        Flag(
            "A pair task whose positive pairs to train on, PATH or contrastive:PATH of anchors and positives, or "
            "pair:PATH with --positive-label."
        ),
    ] = ()
    positive_label: Annotated[str | None, Flag("--contrastive pair:PATH: the label of pairs that belong together.")] = (
        None
    )
    negative_label: Annotated[
        str | None, Flag("--contrastive pair:PATH: the label of pairs that are hard negatives.")
    ] = None
    image_text: Annotated[
        tuple[str, ...],
        Flag("PATH (or image-text:PATH): folder of image vectors and captions (see `xt images`)."),
    ] = ()
    data_dir: DataDir = None
    data: Annotated[
        Mapping[str, tuple[str, ...]], Flag("TASK=PATH: a file or folder of the task's data; repeatable.")
    ] = field(default_factory=dict)
    translated: Annotated[
        Mapping[str, tuple[str, ...]],
        Flag("TASK=PATH: further training data for the same head, translations say."),
    ] = field(default_factory=dict)
    """The dev data stay as they are."""
    languages: Annotated[
        str | None,
        Flag(
            "Languages of your own files (column language), as in eng,deu.",
            default="all; of images English",
        ),
    ] = None
    """Codes with commas between them, a preset (`low-resource`), or `all` that the rows name. Of image-text folders
    English is trained on, which leaves the others for zero-shot measures."""
    limit: Annotated[int | None, Flag("Training examples of a task at most.")] = None
    """Chosen by a hash of the seed and their texts."""
    dev_limit: Annotated[int, Flag("Dev examples of a task at most.")] = 1000
    allow_unusable: Annotated[float, Flag("Share of rows that may be unusable.")] = ALLOWED_UNUSABLE

    steps: Annotated[int | None, Flag("Batches to train on; instead of --epochs.")] = None
    epochs: Annotated[float | None, Flag("Passes over all examples.", default="1")] = None
    """1.0 when neither this nor `steps` is given; of all tasks together, each capped."""
    target_steps: Annotated[int | None, Flag("The same for the target.", default="as --steps")] = None
    target_epochs: Annotated[float | None, Flag("The same for the target.", default="as --epochs")] = None
    batch: Annotated[int, Flag("Examples a step, all of one task, over all processes.")] = 16
    """Windows, of long contexts."""
    micro_tokens: Annotated[
        int | None, Flag("Tokens of one pass, which bound the memory.", default="1024, GPU 16384")
    ] = None
    """Padding included, forward and back in one process. The gradient stays as it is (but for dropout, which is drawn
    anew in each pass): gradients are summed, and contrastive batches are as large as ever (gradient caching). The
    caches of a CPU hold no more than 1,024."""
    learning_rate: Annotated[float, Flag("Highest learning rate of the encoder.", name="--lr")] = 2e-5
    """Of AdamW, after the warm-up and before the linear decay to 0."""
    head_learning_rate: Annotated[float, Flag("Highest learning rate of the heads.", name="--head-lr")] = 4e-4
    """Heads start from random weights."""
    warmup: Annotated[float, Flag("Share of the steps over which rates rise.")] = 0.1
    weight_decay: Annotated[float, Flag("AdamW's decay of matrices.")] = 0.01
    max_length: Annotated[int, Flag("Longest input in tokens.")] = 256
    """Special tokens included. Longer pairs are cut; longer contexts are read in windows."""
    sampling: Annotated[str, Flag("How often each task comes: proportional, capped, temperature, uniform.")] = (
        "proportional"
    )
    """See `xt.train.sampling.probabilities`."""
    cap: Annotated[int, Flag("Examples from which on a task counts no more (capped).")] = 131072
    """2**17: the middle of what T5 tried."""
    sampling_temperature: Annotated[float, Flag("1 is proportional, large is uniform (temperature).")] = 2.0
    group_by_length: Annotated[
        bool,
        Flag(
            "Put examples of like length into a batch: less padding.",
            name="--group-by-length/--no-group-by-length",
            default="group-by-length",
        ),
    ] = True
    """Batches still come in random order."""

    freeze_embeddings: Annotated[
        bool,
        Flag(
            "Keep the word embeddings as they are.",
            name="--freeze-embeddings/--train-embeddings",
            default="freeze-embeddings",
        ),
    ] = True
    """Tokens that the tasks do not show, of other languages, keep their place."""
    lora_rank: Annotated[int, Flag("Train low-rank additions of this rank only.", default="0, no")] = 0
    """LoRA (Hu et al. 2022), merged into the weights in the end."""
    dropout: Annotated[float | None, Flag("Dropout while training.", default="the encoder's")] = None
    pool_layer: Annotated[int | None, Flag("The layer that retrieval reads.", default="the last")] = None
    """The one whose pooled states are the retrieval vector, 1 to the encoder's layers."""
    mlm_probability: Annotated[float, Flag("Share of tokens that --mlm hides.")] = 0.15
    contrastive_temperature: Annotated[
        float | None, Flag("What cosines are divided by.", default="encoder's, or .05")
    ] = None
    image_loss: Annotated[str, Flag("clip or siglip.")] = "clip"
    """`clip` is over the batch, `siglip` over each pair by itself."""

    evaluate_every: Annotated[
        int, Flag("Steps between scorings on English dev data; the best is kept.", default="0, no")
    ] = 0
    patience: Annotated[int, Flag("Scorings without a better one, then the end.", default="0, no")] = 0
    save_every: Annotated[int, Flag("Steps between states for --resume.")] = 200
    precision: Annotated[str, Flag("fp32, bf16, or fp16 on a GPU.")] = "fp32"
    """What the network computes in; the weights are kept in fp32."""
    gradient_checkpointing: Annotated[bool, Flag("Less memory, more time.", default="no")] = False
    """Compute again on the way back instead of keeping."""
    fsdp: Annotated[str, Flag("transformers' fsdp setting, for several GPUs.", default="none")] = ""
    """Such as `full_shard auto_wrap`."""
    log_to: Annotated[tuple[str, ...], Flag("tensorboard, mlflow or wandb as well; repeatable.")] = ()
    seed: Seed = 0
    """Of the heads' first weights, the order of the examples, hidden tokens and dropout."""
    device: Device = "auto"
    resume: Annotated[bool, Flag("Go on with a training that was interrupted.")] = False
    force: Force = False

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
        yield from self._name_problems()
        yield from self._path_problems()
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

    def _name_problems(self) -> Iterator[XtError]:
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

    def _path_problems(self) -> Iterator[XtError]:
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
        from xt.train.sampling import SAMPLINGS  # imports NumPy, which the help of the command line does without

        words = {
            "sampling": ((self.sampling,), tuple(SAMPLINGS)),
            "device": ((self.device,), ("auto", "cpu", "cuda")),
            "precision": ((self.precision,), PRECISIONS),
            "image_loss": ((self.image_loss,), IMAGE_LOSSES),
            "log_to": (self.log_to, LOGGERS),
        }
        return (unknown(k, v, known) for k, (given, known) in words.items() for v in given if v not in known)

    def language_codes(self) -> tuple[str, ...]:
        """Return the requested languages, by the codes that rows are counted under; empty for all."""
        name = (self.languages or "all").strip().lower()
        if name in PRESETS:
            return () if name == "all" else PRESETS[name]
        return tuple(dict.fromkeys(canonical(code) for code in name.split(",") if code.strip()))

    def planned_steps(self, examples: int, *, target: bool = False) -> int:
        """Return the steps to train for, when all tasks together have so many (capped) examples.

        >>> TrainConfig("x", Path("y"), intermediate=("sample-nli",), epochs=2, batch=16).planned_steps(100)
        13
        """
        steps, epochs = self.steps, self.epochs
        if target and (self.target_steps or self.target_epochs):
            steps, epochs = self.target_steps, self.target_epochs
        return steps if steps is not None else max(1, math.ceil((epochs or 1.0) * examples / self.batch))

    def to_json(self) -> dict[str, Any]:
        """Return it as the manifest and a recipe keep it."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        for name in FILES:
            plain[name] = {k: list(v) for k, v in getattr(self, name).items()}
        return {k: str(v) if isinstance(v, Path) else v for k, v in plain.items()}


def setting_names() -> list[str]:
    """List the settings that a recipe may name."""
    return [f.name for f in fields(TrainConfig) if f.name not in ("force", "resume")]
