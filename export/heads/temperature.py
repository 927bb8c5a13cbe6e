"""The temperature of a head: a number, one in a file, or that of least loss on the task's dev examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.calibration.apply.file import HeadCalibration, read
from xt.calibration.fit.heads import LOG_TEMPERATURES
from xt.calibration.fit.temperature import label_loss, search_log_temperature
from xt.core.data.examples import Example, QaExample, ReadLog
from xt.core.data.tasks import Task
from xt.core.errors import XtError
from xt.core.heads.decode import Array
from xt.core.heads.inputs import IGNORED
from xt.core.heads.onnx_heads import HeadModel, Read

FIT_EXAMPLES = 2000
"""Dev examples at most that a temperature is fitted on."""
HINT = 'Give a number, fit, the 1/calibration.json of an exported head, or a file of {"temperature": 1.3}.'


def read_temperature(given: float | Path | None, task: Task) -> float:
    """Return the temperature that a number or a file names; 1 for None."""
    if isinstance(given, Path):
        path, found = given, read(given, HINT)
        if not isinstance(found, HeadCalibration) or found.temperature is None:
            raise XtError(f"{path} is a {found.kind!r} file; one with the temperature of labels is needed.", HINT)
        if found.task not in (None, task.name):
            raise XtError(f"{path} was fitted for {found.task}, not for {task.name}.", "Name its own file.")
        given = found.temperature
    number = 1.0 if given is None else float(given)
    if not (math.isfinite(number) and number > 0):
        raise XtError(f"A temperature must be positive; found {number}.")
    return number


def dev_examples(task: Task, data_dir: Path | None) -> list[Example]:
    """Read the task's own dev examples, English, as its training scored itself on."""
    from itertools import islice

    from xt.core.data.source_rows import examples
    from xt.core.data.sources import locate

    log = ReadLog()
    found = list(islice(examples(locate(task, "dev", data_dir=data_dir), log), FIT_EXAMPLES))
    log.check(f"{task.name}, dev")
    return found


def fit_temperature(model: HeadModel, examples: Sequence[Example]) -> dict[str, Any]:
    """Fit the temperature that gives the gold labels the least negative log-likelihood (nats a label).

    Guo et al. 2017, arXiv 1706.04599, section 4.2. For qa: of the start and the end token of each window that holds
    the answer, or, where the task allows none, of the first token.
    """
    known = [e for e in examples if not isinstance(e, QaExample) or e.answers or model.task.no_answer]
    rows, gold = _labelled(model, known)
    if not rows:
        raise XtError(f"{model.task.name} has no dev examples to fit a temperature on.", "Give a number instead.")
    width = max(len(row) for row in rows)
    logits = np.full((len(rows), width), -np.inf)
    for i, row in enumerate(rows):
        logits[i, : len(row)] = row
    loss = label_loss(logits, gold)
    log_temperature = search_log_temperature(loss, LOG_TEMPERATURES, xatol=1e-4)
    return {
        "temperature": math.exp(log_temperature),
        "examples": len(known),
        "labels": len(rows),
        "nll_before": loss(0.0) / len(rows),
        "nll": loss(log_temperature) / len(rows),
    }


def _labelled(model: HeadModel, examples: Sequence[Example]) -> tuple[list[Array], npt.NDArray[np.int64]]:
    """Return the logits of every gold label, each with its position: a row an example, a word, or an end of a span."""
    read = Read(list(examples), model.inputs.units(model.task, examples))
    results = model.logits(read.rows)
    rows: list[Array] = []
    gold: list[int] = []
    at = 0
    for unit in read.units:
        own = results[at : at + len(unit.rows)]
        at += len(unit.rows)
        if model.task.format == "choice":
            rows.append(np.array(own, np.float32))
            gold.append(int(unit.targets[0]))
        elif model.task.format == "tagging":
            assert unit.labels is not None
            for row, label in zip(own[0], unit.labels, strict=True):
                if label != IGNORED:
                    rows.append(row)
                    gold.append(int(label))
        elif model.task.format == "qa":
            if not model.task.no_answer and tuple(unit.targets) == (0, 0):
                continue  # a window without the answer, of a question that has one
            rows += [own[0][0], own[0][1]]
            gold += [int(t) for t in unit.targets]
        else:
            rows.append(own[0])
            gold.append(int(unit.targets[0]))
    return rows, np.array(gold, np.int64)
