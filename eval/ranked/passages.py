"""Readers of XQuAD-R (LAReQA) and Mewsli-X: questions and mentions in many languages, answers in any of them.

XQuAD-R (Roy et al. 2020, arXiv 2004.05484, section 3.1): every sentence of every context in every language is a
candidate, given with its context; the right ones of a question are, in each language, the sentence in which the answer
starts. LAReQA's own files hold their sentence breaks. Where only XQuAD is there, `sentences` cuts its contexts.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xt.core import languages
from xt.core.data.bitext import data_folder
from xt.core.data.readers import rows
from xt.core.data.sources import languages_at, locate_files
from xt.core.data.tasks import get
from xt.core.errors import XtError
from xt.eval.ranked.collection import Collection, Texts

STOP = re.compile(r"[.!?؟۔।॥。！？…]+[)\]\"'”’»』」]*(?=\s|$)|[。！？]+[)\]\"'”’»』」]*|\n+")
"""Where a sentence ends: a stop of one of the scripts, what closes behind it, and a space (none after 。！？)."""
ABBREVIATION = re.compile(
    r"(?:^|[\s(\[\"'“„«])(?:[^\W\d_]|(?:[^\W\d_]\.)+[^\W\d_]|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|No|Nr|vs|etc|ca|bzw|approx|Inc|"
    r"Ltd|Co|Corp|Gen|Col|Lt|Sgt|Rev|Hon|Art|Fig|Vol|Sra|Srta|Hr|Fr|Bd|th|TP|т|см|др|млн|тыс|руб|век)\.$",
    re.IGNORECASE,
)
"""A full stop behind one of these, or behind a single letter (an initial), ends no sentence."""
ORDINAL = re.compile(r"(?:^|\s)\d{1,2}$")
"""A number of one or two digits: in the languages of `ORDINALS` a full stop behind it makes an ordinal of it."""
ORDINALS = ("deu",)
SPACED = ("tha",)
"""Languages that write no stops: cut at spaces, near where the sentences of the English context end."""
Span = tuple[int, int]


def sentences(text: str, *, ordinals: bool = False) -> list[Span]:
    """Cut a text into sentences: spans (start, end) of characters, without the spaces around them.

    A simple cutter by the stops of Latin, Greek, Cyrillic, Arabic, Devanagari and Chinese script. A stop ends a
    sentence where a space follows it (not needed after 。), unless it belongs to an abbreviation or an initial, the
    next letter is a small one, or, with `ordinals`, it follows a number of one or two digits. Spans cover every
    character that is no space, so each answer starts in one of them.

    >>> text = "Dr. Smith arrived. He left (at 3 p.m. sharp)! Why?"
    >>> [text[a:b] for a, b in sentences(text)]
    ['Dr. Smith arrived.', 'He left (at 3 p.m. sharp)!', 'Why?']
    """
    ends = []
    for found in STOP.finditer(text):
        rest = text[found.end() :].lstrip()
        dot = found.group().startswith(".") and "\n" not in found.group()
        if dot and (ABBREVIATION.search(text[max(0, found.start() - 12) : found.start() + 1]) or rest[:1].islower()):
            continue
        if dot and ordinals and ORDINAL.search(text[max(0, found.start() - 4) : found.start()]):
            continue
        ends.append(found.end())
    return _trim(text, ends)


def _trim(text: str, ends: Sequence[int]) -> list[Span]:
    """Return the spans between some ends, without the spaces at either side; empty ones are left out."""
    spans, start = [], 0
    for end in [*ends, len(text)]:
        piece = text[start:end]
        left = start + len(piece) - len(piece.lstrip())
        right = start + len(piece.rstrip())
        if left < right:
            spans.append((left, right))
        start = end
    return spans


def proportional(text: str, shares: Sequence[float]) -> list[Span]:
    """Cut a text without stops at the spaces nearest to some shares of its length; at each space at most once.

    >>> [s for s in proportional("aaa bbb ccc ddd", [0.5])]
    [(0, 7), (8, 15)]
    """
    spaces = [found.start() for found in re.finditer(r"\s+", text)]
    ends: list[int] = []
    for share in shares:
        at = share * len(text)
        place = bisect.bisect(spaces, at)
        near = [s for s in spaces[max(0, place - 1) : place + 1] if not ends or s > ends[-1]]
        if near:
            ends.append(min(near, key=lambda s: abs(s - at)))
    return _trim(text, ends)


def read_xquad_r(data_dir: Path | None, selection: str = "all") -> Collection:
    """Read XQuAD-R: LAReQA's files (`xquad-r/en.json`) where they are there for all requested languages, else XQuAD's.

    A question's right candidates are the sentences, one in each of the languages read, in which its answer starts.
    """
    task, folder = get("xquad-r"), data_folder(data_dir)
    there = languages_at(task, "test", data_dir)
    if folder is None or not there:
        raise XtError(
            f"XQuAD-R is not there: {folder or 'no data folder is named'} has none of its files.",
            f"Expected {', '.join(task.files['test'])} below the folder named by --data-dir; code: en, ar, ...",
        )
    chosen = languages.select(selection, there)
    files = {
        code: locate_files(task, "test", code, folder)[0] for code in dict.fromkeys([*chosen, "eng"]) if code in there
    }
    data = {code: _paragraphs(file) for code, file in files.items()}
    published = {code: all("sentence_breaks" in p for _, p in found) for code, found in data.items()}
    if len({published[code] for code in chosen}) > 1:
        mixed = [code for code in chosen if not published[code]]
        raise XtError(
            f"LAReQA's sentence breaks are there for some languages only, not for {', '.join(mixed)}.",
            "Choose by --languages (LAReQA has no Romanian), or take xquad-r out of the data folder.",
        )
    breaks = {code: [_breaks(code, i, data, files) for i in range(len(data[code]))] for code in chosen}
    return _xquad_collection({code: data[code] for code in chosen}, breaks, files, cut=not published[chosen[0]])


def _paragraphs(file: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """List the paragraphs of a SQuAD file with where they are."""
    try:
        articles = rows.load_json(file)["data"]
        return [
            (f"{file}, article {a}, paragraph {p}", paragraph)
            for a, article in enumerate(articles, 1)
            for p, paragraph in enumerate(article["paragraphs"], 1)
        ]
    except (KeyError, TypeError) as error:
        raise XtError(f"{file} is not in SQuAD's layout: {error!r} is missing.", "Download it again.") from error


def _breaks(code: str, i: int, data: Mapping[str, Any], files: Mapping[str, Path]) -> list[Span]:
    """Return the sentences of paragraph i: the published ones, else cut; Thai by its English counterpart."""
    where, paragraph = data[code][i]
    text = paragraph["context"]
    if "sentence_breaks" in paragraph:
        return [(int(a), int(b)) for a, b in paragraph["sentence_breaks"]]
    if code not in SPACED:
        return sentences(text, ordinals=code in ORDINALS)
    english = data.get("eng")
    if english is None or len(english) != len(data[code]):
        raise XtError(
            f"{where}: {languages.resolve(code).name} marks no sentence ends; they are read off the English file.",
            f"Put English beside it, with as many paragraphs: {files[code].name.replace('th', 'en')}.",
        )
    other = english[i][1]["context"]
    return proportional(text, [end / len(other) for _, end in sentences(other)[:-1]])


def _xquad_collection(
    data: Mapping[str, list[tuple[str, Mapping[str, Any]]]],
    breaks: Mapping[str, list[list[Span]]],
    files: Mapping[str, Path],
    *,
    cut: bool,
) -> Collection:
    documents: list[tuple[str, str, str]] = []
    queries: list[tuple[str, str, str]] = []
    answers: dict[str, list[str]] = {}
    outside = 0
    for code, paragraphs in data.items():
        for i, (where, paragraph) in enumerate(paragraphs):
            context, spans = str(paragraph["context"]), breaks[code][i]
            ids = [f"{code}-{i}-{j}" for j in range(len(spans))]
            # The sentence stands before its context, as in XTREME-R's baseline
            documents += [(n, f"{context[a:b]} {context}", code) for n, (a, b) in zip(ids, spans, strict=True)]
            for question in paragraph["qas"]:
                start = int(question["answers"][0]["answer_start"])
                found = next((n for n, (a, b) in zip(ids, spans, strict=True) if a <= start < b), None)
                if found is None:
                    outside += 1
                    continue
                queries.append((f"{question['id']}-{code}", str(question["question"]), code))
                if found in answers.setdefault(str(question["id"]), []):
                    raise XtError(f"{where}: the question {question['id']} is there twice.", "Download it again.")
                answers[str(question["id"])].append(found)
    judged = {name: dict.fromkeys(answers[name.rsplit("-", 1)[0]], 1) for name, _, _ in queries}
    notes = [f"{outside} questions left out: their answer starts in no sentence"] if outside else []
    if cut:
        notes.append("contexts cut into sentences by xt: LAReQA's own breaks give 13,014 candidates in 11 languages")
    return Collection(
        Texts.of(queries),
        Texts.of(documents),
        judged,
        f"{len(data)} files in {next(iter(files.values())).parent}",
        tuple(notes),
    )


# --- Mewsli-X ---


def read_mewsli_x(data_dir: Path | None, selection: str = "all") -> Collection:
    """Read Mewsli-X in its published layout: `wikinews_mentions-test.jsonl` and `candidate_set_entities.jsonl`.

    Texts are made as XTREME-R's baseline makes them (`utils_mewslix.py`): a mention is put before the sentence it is
    in and marked there with braces, an entity is the sentences of its description.
    """
    task, folder = get("mewsli-x"), data_folder(data_dir)
    there = [] if folder is None else locate_files(task, "test", "eng", folder)
    entities = [f.with_name("candidate_set_entities.jsonl") for f in there]
    if not there or not entities[0].is_file():
        raise XtError(
            f"Mewsli-X is not there: {entities[0] if there else folder or 'no data folder is named'}.",
            f"Expected {task.files['test'][0]} and candidate_set_entities.jsonl beside it, below --data-dir.",
        )
    documents = [
        (str(row["entity_id"]), describe_entity(row), str(row["description_language"]))
        for _, row in _objects(entities[0], ("entity_id", "description", "sentence_spans", "description_language"))
    ]
    queries: list[tuple[str, str, str]] = []
    judged: dict[str, dict[str, int]] = {}
    outside = 0
    for where, row in _objects(there[0], ("context", "mentions")):
        context = row["context"]
        if not context.get("text"):
            raise XtError(f"{where}: the article has no text.", "Run Mewsli-X's restore_text script on the file.")
        for mention in row["mentions"]:
            text = describe_mention(context, mention["mention_span"])
            if text is None:
                outside += 1
                continue
            queries.append((str(mention["example_id"]), text, languages.resolve(context["language"]).iso3))
            judged[queries[-1][0]] = {str(mention["entity_id"]): 1}
    wanted = set(languages.select(selection, list(dict.fromkeys(q[2] for q in queries))))
    kept = [q for q in queries if q[2] in wanted]
    notes = [f"{outside} mentions left out: they lie in no sentence"] if outside else []
    notes.append("the published figures are of an older version of the set (2021); not comparable")
    return Collection(
        Texts.of(kept), Texts.of(documents), {q[0]: judged[q[0]] for q in kept}, str(there[0]), tuple(notes)
    )


def _objects(file: Path, needed: Sequence[str]) -> list[tuple[str, Mapping[str, Any]]]:
    found = []
    for number, row in rows.jsonl(file):
        where = f"{file}, line {number}"
        if isinstance(row, str):
            raise XtError(f"{where}: {row}", "Download it again.")
        if missing := [name for name in needed if name not in row]:
            raise XtError(f"{where} lacks {', '.join(missing)}; found {', '.join(row)}.", "Is it this version's file?")
        found.append((where, row))
    return found


def _plain(text: str) -> str:
    return " ".join(text.splitlines()).replace("  ", " ").strip()


def describe_entity(row: Mapping[str, Any]) -> str:
    """Return an entity's text: the sentences of its description."""
    return _plain(" ".join(row["description"][s["start"] : s["end"]] for s in row["sentence_spans"]))


def describe_mention(context: Mapping[str, Any], span: Mapping[str, Any]) -> str | None:
    """Return a mention's text: itself, a colon, its sentence with the mention in braces; None outside every sentence.

    >>> article = {"text": "Yes. A tower in Paris fell.", "sentence_spans": [{"start": 0, "end": 4},
    ...     {"start": 5, "end": 27}]}
    >>> describe_mention(article, {"start": 16, "end": 21, "text": "Paris"})
    'Paris: A tower in { Paris } fell.'
    """
    a, b = int(span["start"]), int(span["end"])
    place = next((s for s in context["sentence_spans"] if s["start"] <= a and b <= s["end"]), None)
    if place is None:
        return None
    text = context["text"]
    left, right = (re.sub(r"\{(.*?)\}", r"(\1)", side) for side in (text[place["start"] : a], text[b : place["end"]]))
    return _plain(f"{span['text']}: {left} {{ {span['text']} }} {right}")
