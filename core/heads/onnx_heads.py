"""A trained head as an ONNX graph, the encoder inside it: labels, tags, answers with probabilities, without PyTorch."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xt.core.arguments import as_list, flag
from xt.core.data.examples import (
    ChoiceExample,
    Example,
    PairExample,
    QaExample,
    ScoredExample,
    SingleExample,
    TaggedExample,
)
from xt.core.data.tasks import Task
from xt.core.encoder.buckets import Buckets, bucket, micro_batches
from xt.core.encoder.onnx_engine import PROVIDERS, choose_provider, open_session
from xt.core.encoder.spec import EncoderSpec
from xt.core.encoder.text import TOKEN_BUDGET, TooLong, check_text, give_back_memory, pad
from xt.core.errors import XtError, require
from xt.core.files.artifact import Artifact, open_artifact, read_json
from xt.core.heads.decode import Array, answer_chances, best_scores, decode, find_answers
from xt.core.heads.inputs import Ids, Inputs, Unit
from xt.core.machine.cores import usable_cores

OUTPUT = "logits"
CLASSIFIER = "classifier"
"""What the fact `serves` of such a folder says."""
ROWS_AN_INPUT = 256
"""Rows that one input may give: its choices, the windows of its context, the parts of its sentence."""
READ_AHEAD = 256
"""Inputs that are tokenised and sorted by length together."""
ONE_TEXT = ("single", "tagging")
"""Formats that read one text; the others read two."""


@dataclass(frozen=True)
class Row:
    """What one row of a batch reads."""

    ids: Ids
    """Token ids, special tokens included."""
    types: Ids
    """Segment of each token."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Read:
    """Inputs that were tokenised, ready for the network."""

    examples: list[Example]
    units: list[Unit]

    @property
    def rows(self) -> list[Row]:
        """All rows, unit by unit."""
        return [Row(ids, types) for unit in self.units for ids, types in zip(unit.rows, unit.types, strict=True)]


@dataclass(frozen=True)
class Reply:
    """The answer to one input."""

    answer: dict[str, Any]
    """The whole answer as JSON has it. single, pair: label, probabilities; choice: choice, position, probabilities;
    regression: score; tagging: words, tags (null: not read), probabilities; qa: answer, start, end, probability,
    none."""
    value: Any
    """`Prediction.value`: position of the label or choice, score, positions of the tags, answer."""
    numbers: Array
    """The probabilities, flat: of the labels, choices, words by labels, answer and none; the score of regression."""
    tokens: int
    """Tokens that were read, of all rows."""
    truncated: bool
    """Whether a part of the input was left out."""
    label: str | None = None
    """The label (single, pair) or the choice (choice)."""
    probabilities: Array | None = None
    """(labels,) in the order of the labels, or (choices,)."""
    logits: Array | None = None
    """(labels,) or (choices,): before the temperature."""
    details: Array | None = None
    """What can be calibrated: `Prediction.logits`, for qa with the score of none in any case; None for regression."""
    span: str | None = None
    """The best span of qa, also where none is preferred to it."""

    def to_json(self, *, details: bool = False) -> dict[str, Any]:
        """Return the answer as JSON has it; with `details` also `logits` (`details`, -inf: null), and `span` of qa."""
        if not details:
            return self.answer
        more: dict[str, Any] = {} if self.span is None else {"span": self.span}
        if self.details is None:
            return {**self.answer, "logits": None, **more}
        rows = self.details.astype(object)
        rows[np.isneginf(self.details)] = None
        return {**self.answer, "logits": rows.tolist(), **more}


class Network(Protocol):
    """An encoder with a head: logits of one padded batch."""

    def forward(self, arrays: Mapping[str, npt.NDArray[np.int64]]) -> Array:
        """input_ids, attention_mask, token_type_ids (rows, tokens) -> logits.

        (rows, labels), (rows,) for choice and regression, (rows, tokens, labels) for tagging, (rows, 2, tokens) for qa.
        """
        ...


class OnnxHead:
    """Runs a graph (input_ids, attention_mask[, token_type_ids]) -> logits."""

    def __init__(self, file: Path, *, provider: str = "cpu", precision: str = "fp32", threads: int = 0) -> None:
        """Load a graph.

        Args:
            file: the graph.
            provider: a key of `xt.core.encoder.onnx_engine.PROVIDERS`; the one it was parity-tested with.
            precision: what the graph was written as.
            threads: CPU threads (0: as many as there are cores for this process).
        """
        require("onnxruntime", extra="cpu", purpose="Running an ONNX graph")
        provider = choose_provider(provider, precision=precision)
        row = PROVIDERS[provider]
        self.token_budget, self.buckets = row.token_budget, row.buckets
        threads = threads or usable_cores()
        self.session = open_session(file, provider, precision, threads)
        self.inputs = [i.name for i in self.session.get_inputs()]
        if OUTPUT not in [o.name for o in self.session.get_outputs()]:
            raise XtError(f"{file} has no output {OUTPUT!r}.", "Export it with `xt export --task`.")

    def forward(self, arrays: Mapping[str, npt.NDArray[np.int64]]) -> Array:
        """See `Network.forward`."""
        (logits,) = self.session.run([OUTPUT], {name: arrays[name] for name in self.inputs})
        return np.asarray(logits, np.float32)


@dataclass
class HeadModel:
    """A head that answers: `read` checks and tokenises, `run` runs the network, `replies` says what came of it."""

    task: Task
    inputs: Inputs
    network: Network
    temperature: float = 1.0
    """Divides the logits before the softmax."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """The tokenizer is set by turns to truncate or not."""

    def item(self, text: str, second: str | None, index: int) -> Any:
        """Make of two strings, as they come over the wire, what `read` takes.

        For choice the second is a JSON list of texts. For tagging the first is a JSON list of words, or words with
        blanks between them. Raises XtError naming the field and `index`.
        """
        form = self.task.format
        if form == "tagging":
            return _json_texts(text) or text.split()
        if form == "single":
            return text
        if second is None:
            raise XtError(f"text_pair {index} is missing: {self.task.name} ({form}) reads two texts.")
        if form == "choice":
            choices = _json_texts(second)
            if choices is None:
                raise XtError(f"text_pair {index} is no JSON list of texts.", 'Give the choices as ["...", "..."].')
            return text, choices
        return text, second

    def read(self, items: Sequence[Any], *, truncate: bool = False) -> Read:
        """Check and tokenise inputs.

        Args:
            items: a text (single), two (pair, regression), a prompt and its choices (choice), words (tagging), or a
                question and its context (qa), each.
            truncate: cut what is too long instead of raising; a long context is read in windows, a long sentence in
                parts, without this.

        Raises TooLong for the first input over the encoder's length, XtError for what cannot be read, naming it.
        """
        items = as_list(items, "items", "inputs")
        return self.read_examples(
            [_example(self.task, item, index) for index, item in enumerate(items)],
            truncate=flag(truncate, "truncate"),
        )

    def read_examples(self, examples: list[Example], *, truncate: bool = False) -> Read:
        """Tokenise examples of the task's format; raises TooLong as `read` does."""
        examples = as_list(examples, "examples", "examples")
        with self._lock:
            units = self.inputs.units(self.task, examples)
        rows = [0] * len(examples)
        for unit in units:
            rows[unit.owner] += len(unit.rows)
            if unit.cut and not truncate:
                raise TooLong(
                    f"text {unit.owner}{'' if self.task.format in ONE_TEXT else f' or text_pair {unit.owner}'} is too "
                    f"long: the model reads at most {self.inputs.max_length} tokens.",
                    "Split it, or ask for truncation (truncate=true).",
                )
            if rows[unit.owner] > ROWS_AN_INPUT:
                name = "text" if self.task.format in ONE_TEXT else "text_pair"
                raise TooLong(
                    f"{name} {unit.owner} is read in more than {ROWS_AN_INPUT} pieces, which is the limit.",
                    "Split it.",
                )
        return Read(examples, units)

    def run(self, rows: Sequence[Row]) -> list[Array]:
        """Run one batch: for each row its logits, without those of padding."""
        lengths = [len(row) for row in rows]
        width = min(bucket(max(lengths)), self.inputs.max_length)
        blank = self.buckets.rows(len(rows), width, self.token_budget) - len(rows)
        filled = [*rows, *[Row(np.full(1, self.inputs.pad_id, np.int32), np.zeros(1, np.int32))] * blank]
        logits = self.network.forward(row_arrays(filled, self.inputs))[: len(rows)]
        if self.task.format == "tagging":
            return [values[:n] for values, n in zip(logits, lengths, strict=True)]
        if self.task.format == "qa":
            return [values[:, :n] for values, n in zip(logits, lengths, strict=True)]
        return list(logits)

    @property
    def token_budget(self) -> int:
        """Tokens of one forward pass, padding included, that suit the network."""
        return int(getattr(self.network, "token_budget", TOKEN_BUDGET))

    @property
    def buckets(self) -> Buckets:
        """The shapes of its forward passes."""
        found: Buckets = getattr(self.network, "buckets", None) or Buckets()
        return found

    def logits(self, rows: Sequence[Row], token_budget: int | None = None) -> list[Any]:
        """Run rows in micro-batches of one width each: for each row its logits."""
        found: list[Any] = [None] * len(rows)
        for batch in micro_batches([len(row) for row in rows], token_budget or self.token_budget, self.buckets):
            for index, values in zip(batch, self.run([rows[i] for i in batch]), strict=True):
                found[index] = values
        return found

    def unit_logits(self, read: Read, results: Sequence[Any]) -> list[Any]:
        """Return the logits of each unit, as `xt.core.heads.decode.decode` takes them, from those of `read.rows`."""
        at = 0
        logits: list[Any] = []
        for unit in read.units:
            rows = results[at : at + len(unit.rows)]
            logits.append(np.array(rows, np.float32) if self.task.format == "choice" else rows[0])
            at += len(unit.rows)
        return logits

    def replies(self, read: Read, results: Sequence[Any], *, details: bool = False) -> list[Reply]:
        """Return what the logits of `read.rows` mean, in the order of the inputs.

        details: whether the replies to questions also hold what they can be calibrated by, which takes a while.
        """
        logits = self.unit_logits(read, results)
        of: list[list[int]] = [[] for _ in read.examples]
        for index, unit in enumerate(read.units):
            of[unit.owner].append(index)
        if self.task.format == "qa":
            return self._answers(read, logits, of, details)
        return self._said(read, logits, of)

    def _said(self, read: Read, logits: Sequence[Any], of: Sequence[Sequence[int]]) -> list[Reply]:
        found = decode(self.task, read.examples, read.units, logits, temperature=self.temperature)
        replies = []
        for example, units, said in zip(read.examples, of, found, strict=True):
            about = {**self._about(read, units), "details": said.logits}
            chances = said.probabilities
            if chances is None:
                numbers = np.array([said.value], np.float32)
                replies.append(Reply({"score": said.value}, said.value, numbers, **about))
                continue
            if isinstance(example, TaggedExample):
                tags = [self.task.labels[i] if i >= 0 else None for i in said.value]
                sure = [float(row[i]) if i >= 0 else None for row, i in zip(chances, said.value, strict=True)]
                answer: dict[str, Any] = {"words": list(example.words), "tags": tags, "probabilities": sure}
                replies.append(Reply(answer, said.value, chances.ravel(), **about))
                continue
            if isinstance(example, ChoiceExample):
                label = example.choices[said.value]
                answer = {"choice": label, "position": said.value, "probabilities": chances.tolist()}
            else:
                label = self.task.labels[said.value]
                answer = {"label": label, "probabilities": dict(zip(self.task.labels, chances.tolist(), strict=True))}
            row = np.asarray(logits[units[0]], np.float32)
            more: dict[str, Any] = {"label": label, "probabilities": chances, "logits": row}
            replies.append(Reply(answer, said.value, chances, **about, **more))
        return replies

    def _answers(self, read: Read, logits: Sequence[Any], of: Sequence[Sequence[int]], details: bool) -> list[Reply]:
        replies = []
        spans = find_answers(self.task, read.examples, read.units, logits)
        more: list[dict[str, Any]] = [{} for _ in spans]
        if details:
            best = best_scores(spans, read.units, logits)
            always = find_answers(replace(self.task, no_answer=False), read.examples, read.units, logits)
            more = [{"details": row, "span": span.text} for row, span in zip(best, always, strict=True)]
        for span, known, units in zip(spans, more, of, strict=True):
            windows, values = [read.units[i] for i in units], [logits[i] for i in units]
            chance, none = answer_chances(self.task, span, windows, values, temperature=self.temperature)
            where = (None, None) if span.start < 0 else (span.start, span.end)
            answer = {"answer": span.text, "start": where[0], "end": where[1], "probability": chance, "none": none}
            numbers = np.array([chance, none], np.float32)
            replies.append(Reply(answer, span.text, numbers, **self._about(read, units), **known))
        return replies

    @staticmethod
    def _about(read: Read, units: Sequence[int]) -> dict[str, Any]:
        own = [read.units[i] for i in units]
        return {"tokens": sum(unit.tokens for unit in own), "truncated": any(unit.cut for unit in own)}

    def warm_up(self) -> float:
        """Run what is slow the first time, and give the tokens a second that a full micro-batch then runs at.

        A network that compiles for every shape is run in those of `Buckets.warm_shapes`.
        """
        longest, budget = self.inputs.max_length, self.token_budget
        if self.buckets.compiled:
            for rows, width in self.buckets.warm_shapes(longest, budget):
                self._run_blank(rows, width)
        width = min(48, longest)
        rows = self.buckets.full(width, budget)
        self._run_blank(rows, width)
        give_back_memory()
        start = time.perf_counter()
        for _ in range(3):
            self._run_blank(rows, width)
        return 3 * rows * width / (time.perf_counter() - start)

    def _run_blank(self, rows: int, width: int) -> None:
        self.run([Row(np.full(width, self.inputs.pad_id, np.int32), np.zeros(width, np.int32))] * rows)

    def predict(self, items: Sequence[Any], *, truncate: bool = False, token_budget: int | None = None) -> list[Reply]:
        """Answer inputs (see `read`), in their order."""
        replies: list[Reply] = []
        items = as_list(items, "items", "inputs")
        for at in range(0, len(items), READ_AHEAD):
            read = self.read(items[at : at + READ_AHEAD], truncate=truncate)
            replies += self.replies(read, self.logits(read.rows, token_budget))
        return replies


def row_arrays(rows: Sequence[Row], inputs: Inputs) -> dict[str, npt.NDArray[np.int64]]:
    """Right-pad rows: input_ids, attention_mask and token_type_ids (rows, tokens), of one of few widths.

    Some engines compile for every width.
    """
    longest = max(len(row) for row in rows)
    width = max(longest, min(bucket(longest), inputs.max_length))
    ids, mask = pad([row.ids for row in rows], inputs.pad_id, width=width)
    types, _ = pad([row.types for row in rows], 0, width=width)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def _json_texts(value: str) -> list[str] | None:
    """Read a JSON list of texts; None when it is none, or empty."""
    if not value.lstrip().startswith("["):
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and found and all(isinstance(x, str) for x in found) else None


def _example(task: Task, item: Any, index: int) -> Example:
    """Make the example of one input, its labels unknown; XtError naming what of it cannot be read."""
    form, id, first = task.format, str(index), f"text {index}"
    if form == "single":
        check_text(item, first)
        return SingleExample(id, item, 0)
    if form == "tagging":
        if not isinstance(item, list | tuple) or not item:
            raise XtError(f"{first} holds no words.", "Give words with blanks between them, or a JSON list of words.")
        for n, word in enumerate(item):
            check_text(word, f"{first}, word {n}", word=True)
        return TaggedExample(id, tuple(item), (0,) * len(item))
    if not isinstance(item, list | tuple) or len(item) != 2:
        raise XtError(f"text_pair {index} is missing: {task.name} ({form}) reads two texts.")
    one, two = item
    check_text(one, first)
    if form == "choice":
        if not isinstance(two, list | tuple) or len(two) < 2:
            raise XtError(f"text_pair {index} holds fewer than two choices.", "Give at least two.")
        for n, choice in enumerate(two):
            check_text(choice, f"text_pair {index}, choice {n}")
        return ChoiceExample(id, one, tuple(two), 0)
    check_text(two, f"text_pair {index}")
    if form == "pair":
        return PairExample(id, one, two, 0)
    if form == "regression":
        return ScoredExample(id, one, two, 0.0)
    return QaExample(id, two, one, (), ())


def bare_task(task: Task) -> Task:
    """Leave of a task what its predictions need: no files, no hub."""
    return replace(task, file="", fields=(), sizes={}, hub=None, layout="xt", files={}, parts=(), source="")


def load_head(path: Path, *, provider: str | None = None, threads: int = 0) -> tuple[HeadModel, Artifact]:
    """Load an exported head (`<repository>/<name>`), every file checked.

    It runs by the provider that it was parity-tested with at export, unless another is named.

    Raises XtError when the folder is damaged, or holds an encoder without a head.
    """
    artifact = open_artifact(path, kind="model")
    facts = artifact.facts
    if facts.get("serves") != CLASSIFIER:
        raise XtError(f"{path} is an exported encoder without a head.", "Export one with `xt export --task TASK`.")
    spec = EncoderSpec.from_json(facts["encoder"])
    inputs = Inputs(path / facts["tokenizer"], spec)
    network = OnnxHead(
        path / facts["graph"], provider=provider or facts["provider"], precision=facts["precision"], threads=threads
    )
    return HeadModel(Task.from_json(facts["task"]), inputs, network, facts["temperature"]), artifact


def check_golden(model: HeadModel, path: Path, artifact: Artifact) -> float:
    """Answer the golden inputs and give the largest difference to the probabilities written at export.

    Scores (regression) differ in units of the training scores' deviation. Inputs of earlier releases are tokenised in
    the form in which they are written, as then. Raises XtError when it is above the model's own tolerance, or not a
    number.
    """
    golden = read_json(path / artifact.facts["golden"])
    if not golden.get("composed"):
        model = replace(model, inputs=model.inputs.as_written())
    found = model.predict(golden["inputs"], truncate=True)
    apart = [np.abs(r.numbers - np.asarray(row)).max() for r, row in zip(found, golden["numbers"], strict=True)]
    worst = float(np.max(apart)) / float(golden["scale"])
    if not worst <= golden["tolerance"]:
        raise XtError(
            f"{path} gives other probabilities than at export: they differ by {worst:.6f}, at most "
            f"{golden['tolerance']} is allowed.",
            "The machine or a library changed its numerics; export again here and compare.",
        )
    return worst
