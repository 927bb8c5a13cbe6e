"""Scores as each benchmark's own script gives them: MLQA's normaliser, SQuAD v1.1 and v2.0, XTREME's F1 of tags."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from string import punctuation
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.core import languages
from xt.core.data.tasks import Task
from xt.core.errors import XtError
from xt.core.heads.scores import SCORES, entities, normalize_answer, token_f1

Floats = npt.NDArray[np.float64]
ARTICLES = {
    "en": r"\b(?:a|an|the)\b",
    "es": r"\b(?:un|una|unos|unas|el|la|los|las)\b",
    "de": r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "vi": r"\b(?:của|là|cái|chiếc|những)\b",
    "ar": r"\sال^|ال",
    "hi": "",
    "zh": "",
}
"""What MLQA leaves out of an answer, by language, Arabic's article wherever it stands: its languages are these."""
HAN = re.compile(r"[\u4e00-\u9fa5]")
"""A character that is a word by itself in MLQA's Chinese."""


@cache
def _marks() -> dict[int, None]:
    """Every character of Unicode's punctuation and of ASCII's, to nothing: a table for str.translate."""
    found = (c for c in range(sys.maxunicode) if unicodedata.category(chr(c)).startswith("P"))
    return dict.fromkeys([*found, *map(ord, punctuation)])


def mlqa_normalize(text: str, language: str) -> str:
    """Return an answer as MLQA compares it: lower case, without punctuation and the language's articles, words apart.

    Chinese is cut into single characters, other scripts in it at blanks ("mixed segmentation"). As
    mlqa_evaluation_v1.py of Lewis et al. 2020 (arXiv 1910.07475, section 4.1).

    language: a two-letter code of `ARTICLES`.

    >>> mlqa_normalize("Die Größe «eines» Hauses!", "de"), mlqa_normalize("在2008年，iPhone 3G", "zh")
    ('größe hauses', '在 2008 年 iphone 3g')
    """
    if language not in ARTICLES:
        raise XtError(f"MLQA has no {language}.", f"Its languages: {', '.join(sorted(ARTICLES))}.")
    kept = text.lower().translate(_marks())
    if ARTICLES[language]:
        kept = re.sub(ARTICLES[language], " ", kept)
    if language == "zh":
        kept = HAN.sub(lambda match: f" {match[0]} ", kept)
    return " ".join(kept.split())


def two_letters(code: str) -> str:
    """Return a language's two-letter code, or the code itself where the table has none.

    >>> two_letters("cmn"), two_letters("deu")
    ('zh', 'de')
    """
    try:
        return languages.resolve(code).iso1 or code
    except XtError:
        return code


NORMALIZERS: dict[str, Callable[[str, str], str]] = {"mlqa": lambda text, code: mlqa_normalize(text, two_letters(code))}
"""Tasks whose answers are not compared as SQuAD's are: (text, language) -> what is compared."""


def convention(task: Task) -> str:
    """Name the script whose scores these are."""
    if task.format == "qa":
        own = {"mlqa": "MLQA's mlqa_evaluation_v1.py"}
        return own.get(task.name, f"SQuAD's evaluate-{'v2.0' if task.no_answer else 'v1.1'}.py")
    if task.format == "tagging":
        return "seqeval 0.0.12 (micro F1 of spans; also of parts of speech, as XTREME)"
    return "share of examples" if task.metric == "accuracy" else "scipy"


def answer_scores(task: Task, language: str, examples: Sequence[Any], values: Sequence[str]) -> tuple[Floats, Floats]:
    """Score each answer against the best of the accepted ones: F1 and exact match, (n,) each, 0 to 1.

    Where a question may have no answer (SQuAD v2.0), accepted answers of which nothing is left are dropped, and without
    any the empty answer is right.

    Raises XtError for a question without accepted answers in a task whose questions all have one.
    """
    own = NORMALIZERS.get(task.name)
    normalize = normalize_answer if own is None else (lambda text: own(text, language))
    f1, exact = np.zeros(len(examples)), np.zeros(len(examples))
    for at, (example, value) in enumerate(zip(examples, values, strict=True)):
        golds = tuple(example.answers)
        if task.no_answer:
            golds = tuple(gold for gold in golds if normalize(gold)) or ("",)
        elif not golds:
            raise XtError(
                f"{task.name}, {language}: question {example.id!r} has no accepted answer.",
                "Remove it, or evaluate it as a task whose questions may have none (qa:FILE).",
            )
        nothing = float(task.no_answer)
        f1[at] = max(token_f1(value, gold, normalize=normalize, nothing=nothing) for gold in golds)
        exact[at] = max(float(normalize(value) == normalize(gold)) for gold in golds)
    return f1, exact


def span_counts(task: Task, examples: Sequence[Any], values: Sequence[Sequence[int]]) -> tuple[int, int, int]:
    """Count the spans of all sentences: predicted and right, predicted, gold. A word that was not read counts as O."""
    names = [*task.labels, "O"]  # -1, a word that was not read, is the last
    right = predicted = gold = 0
    for example, value in zip(examples, values, strict=True):
        ours, theirs = entities([names[i] for i in value]), entities([names[i] for i in example.labels])
        right, predicted, gold = right + len(ours & theirs), predicted + len(ours), gold + len(theirs)
    return right, predicted, gold


def score(task: Task, language: str, examples: Sequence[Any], values: Sequence[Any]) -> dict[str, float]:
    """Score the predicted values (`Prediction.value`) of one language as the benchmark's script does, 0 to 1.

    qa: f1 and exact_match. tagging: span_f1 and accuracy over words, for parts of speech too (XTREME's "F1" of POS).
    Others: the task's metric (`xt.core.heads.scores`).

    Raises XtError without examples.
    """
    if not len(examples):
        raise XtError(f"{task.name}, {language}: there are no examples to score.", "Choose by --languages.")
    if task.format == "qa":
        f1, exact = answer_scores(task, language, examples, values)
        return {"f1": float(f1.mean()), "exact_match": float(exact.mean())}
    if task.format != "tagging":
        return SCORES[task.metric](task, examples, values)
    right, predicted, gold = span_counts(task, examples, values)
    accuracy = SCORES["accuracy"](task, examples, values)["accuracy"]
    f1_score = 2 * right / (predicted + gold) if right else 0.0
    pair = {"span_f1": f1_score, "accuracy": accuracy}
    return {task.metric: pair[task.metric], **pair}
