"""The published formats that are more than a table: SQuAD, CoNLL, CoNLL-U, CCGbank, and the multiple-choice sets."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from xt.core.data.readers.rows import Row, Rows, decode, load_json, raw_lines
from xt.core.errors import XtError, unknown

CCG_SECTIONS = {"train": tuple(range(2, 22)), "dev": (0,), "test": (23,)}
"""The sections of CCGbank (folders of `data/AUTO`) that make each split."""
CCG_LABELS = 1363
"""Categories that are kept at most, as many as jiant's task has."""
_LEAF = re.compile(r"<L (\S+) \S+ \S+ (\S+) \S+>")
_SENTENCE_ID = re.compile(r"#\s*sent_id\s*=")
_LANGUAGE_PREFIX = re.compile(r"[a-z][a-z-]{1,11}:(?=.)")


def squad(path: Path) -> Rows:
    """Read the questions of a SQuAD file (v1.1, v2.0); the number is the question's, from 1, as JSON has no lines.

    `answerless` says whether a question may have no answer: only where the file says so (version 2, `is_impossible`).
    """
    document = load_json(path)
    if not isinstance(document, dict) or "data" not in document:
        raise _no_squad(path, "no 'data'")
    second = str(document.get("version", "")).lower().removeprefix("v").startswith("2")
    number = 0
    for article in _items(path, document, "data"):
        for paragraph in _items(path, article, "paragraphs"):
            for question in _items(path, paragraph, "qas"):
                number += 1
                impossible = question.get("is_impossible") is True
                answers = [] if impossible else question.get("answers", [])
                row = {**question, "context": paragraph.get("context"), "answerless": second or impossible}
                row |= {f"answers.{name}": _all(answers, name) for name in ("text", "answer_start")}
                yield number, row


def _items(path: Path, parent: dict[str, Any], name: str) -> list[dict[str, Any]]:
    items = parent.get(name)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _no_squad(path, f"a {name!r} that is no list of objects")
    return items


def _all(answers: Any, name: str) -> Any:
    return [answer.get(name) if isinstance(answer, dict) else None for answer in answers] if answers else []


def _no_squad(path: Path, found: str) -> XtError:
    return XtError(
        f"{path}: expected SQuAD's JSON (data > paragraphs > qas), found {found}.",
        "Check that it is the published file.",
    )


def conll(path: Path) -> Rows:
    """Read sentences of a word and its tag a line (first and last column); the number is the first word's line.

    PAN-X writes its language before each word (`en:word`): taken off where every word of a sentence has the prefix that
    the file's first word has.
    """
    prefix: str | None = None
    for number, lines in _blocks(path):
        if isinstance(lines, str):
            yield number, lines
            continue
        kept = [line.rstrip(" ") for line in lines if not line.startswith("-DOCSTART-")]
        cells = [line.split("\t" if "\t" in line else " ") for line in kept]
        if not cells:
            continue
        if any(len(row) < 2 for row in cells):
            yield number, "a line of a single column, expected word and tag."
            continue
        words = [row[0] for row in cells]
        if prefix is None:
            found = _LANGUAGE_PREFIX.match(words[0]) if "\t" in lines[-1] else None
            prefix = found.group() if found else ""
        if prefix and all(word.startswith(prefix) for word in words):
            words = [word.removeprefix(prefix) for word in words]
        yield number, {"words": words, "tags": [row[-1].strip() for row in cells]}


def conllu(path: Path) -> Rows:
    """Read sentences of CoNLL-U: its words and their UPOS; ranges (1-2) and empty nodes (1.1) are no words."""
    for number, lines in _blocks(path):
        if isinstance(lines, str):
            yield number, lines
            continue
        cells = [line.split("\t") for line in lines if not line.startswith("#")]
        if not cells:
            continue
        if short := [row for row in cells if len(row) != 10]:
            yield number, f"a line of {len(short[0])} columns, CoNLL-U has 10."
            continue
        ids = [line.partition("=")[2].strip() for line in lines if _SENTENCE_ID.match(line)]
        rows = [row for row in cells if row[0].isdigit()]
        bare = sum(row[3] == "_" for row in rows)
        words = {"words": [row[1] for row in rows], "tags": [row[3] for row in rows]}
        yield number, f"{bare} words without a UPOS tag." if bare else {"id": ids[0] if ids else None, **words}


def _blocks(path: Path) -> Iterator[tuple[int, list[str] | str]]:
    """Return the lines between blank ones, with the number of the first; a text where a line is not UTF-8."""
    lines: list[str] = []
    first, wrong = 1, ""
    for number, raw in raw_lines(path):
        if raw.strip():
            first = first if lines or wrong else number
            try:
                lines.append(decode(raw))
            except ValueError as error:
                wrong = wrong or f"line {number} is {error}"
        elif lines or wrong:
            yield first, wrong or lines
            lines, wrong = [], ""
    if lines or wrong:
        yield first, wrong or lines


def hellaswag(row: Row) -> dict[str, Any]:
    """Return the prompt and choices as jiant does: the second sentence's beginning goes with each ending."""
    first, second = (row["ctx_a"], row.get("ctx_b") or "") if row.get("ctx_a") else (row["ctx"], "")
    return {**row, "prompt": first, "choices": [f"{second} {ending}".strip() for ending in row["endings"]]}


def commonsenseqa(row: Row) -> dict[str, Any]:
    """Return the prompt, choices and position; the published nesting (`question.stem`) and the hub's are both known.

    `twins`: in a few questions a wrong choice equals the right one (6 of the 1,221 of dev). Published results
    count them, so they are kept.
    """
    question, choices = row["question"], row.get("choices")
    if isinstance(question, dict):
        question, choices = question["stem"], question["choices"]
    pairs = [(c["label"], c["text"]) for c in choices] if isinstance(choices, list) else _zipped(choices)
    letters = [letter for letter, _ in pairs]
    key = row.get("answerKey") or None
    if key is not None and key not in letters:
        raise ValueError(f"answerKey {key!r} is none of {', '.join(map(str, letters))}.")
    label = None if key is None else letters.index(key)
    texts = [text for _, text in pairs]
    return {**row, "prompt": question, "choices": texts, "label": label, "twins": True}


def _zipped(choices: Any) -> list[tuple[Any, Any]]:
    return list(zip(choices["label"], choices["text"], strict=True))


def cosmosqa(row: Row) -> dict[str, Any]:
    """Return the context with the question as the prompt, and the four answers."""
    answers = [row["answer0"], *numbered(row, "answer")[1:]]
    return {**row, "prompt": f"{row['context']} {row['question']}", "choices": answers}


COPA_QUESTIONS = {"cause": "What was the cause?", "effect": "What was the effect?"}
"""What COPA and XCOPA ask, in words, as part of the prompt."""


def copa(row: Row) -> dict[str, Any]:
    """Return the premise with the question as the prompt, and the two choices."""
    if row["question"] not in COPA_QUESTIONS:
        raise ValueError(f"question {row['question']!r} is none of {', '.join(COPA_QUESTIONS)}.")
    prompt = f"{row['premise']} {COPA_QUESTIONS[row['question']]}"
    return {**row, "prompt": prompt, "choices": [row["choice1"], row["choice2"]]}


def numbered(row: Row, name: str) -> list[Any]:
    """Return the values of the columns name0, name1, ... up to the first that is not there.

    >>> numbered({"choice0": "a", "choice1": "b", "choice3": "d"}, "choice")
    ['a', 'b']
    """
    found: list[Any] = []
    while (column := f"{name}{len(found)}") in row:
        found.append(row[column])
    return found


def ccg_files(folder: Path, split: str | None) -> list[Path]:
    """List the AUTO files of a CCGbank folder that make a split (None: of all three), in order."""
    if split is not None and split not in CCG_SECTIONS:
        raise unknown("split", split, CCG_SECTIONS)
    splits = CCG_SECTIONS if split is None else (split,)
    wanted = {f"{section:02d}" for name in splits for section in CCG_SECTIONS[name]}
    for place in (folder / "data" / "AUTO", folder / "AUTO", folder):
        if files := [file for file in sorted(place.glob("*/*.auto")) if file.parent.name in wanted]:
            return files
    raise XtError(
        f"{folder}: expected CCGbank's files data/AUTO/NN/*.auto, NN among {', '.join(sorted(wanted))}, found none.",
        "Name the folder that holds data/AUTO of your copy (LDC2005T13).",
    )


def ccg_digest(files: Sequence[Path]) -> str:
    """Return the SHA-256 of the names and contents of files, in their order."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.parent.name}/{file.name}\n".encode("utf-8", "surrogateescape"))
        digest.update(file.read_bytes())
    return digest.hexdigest()


def auto(path: Path) -> Rows:
    """Read the sentences of an AUTO file: the words and categories of the leaves `<L cat pos pos word predarg>`."""
    for number, raw in raw_lines(path):
        if raw.startswith(b"ID=") or not raw.strip():
            continue
        try:
            leaves = _LEAF.findall(decode(raw))
        except ValueError as error:
            yield number, str(error)
            continue
        if not leaves or len(leaves) != raw.count(b"(<L "):
            yield number, "not a derivation with leaves <L cat pos pos word predarg>."
        else:
            yield number, {"words": [word for _, word in leaves], "tags": [category for category, _ in leaves]}


def ccg_labels(folder: Path) -> tuple[str, ...]:
    """Return the categories of the training sections of a CCGbank folder, the most frequent first, then by name."""
    counts: Counter[str] = Counter()
    for file in ccg_files(folder, "train"):
        for _, row in auto(file):
            if not isinstance(row, str):
                counts.update(row["tags"])
    return tuple(sorted(counts, key=lambda category: (-counts[category], category))[:CCG_LABELS])
