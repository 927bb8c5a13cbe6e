"""Collections for ranked retrieval: queries, documents, and which documents answer which query; BEIR folders."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xt.core import languages
from xt.core.arguments import as_list
from xt.core.data.examples import counts
from xt.core.data.readers import rows
from xt.core.errors import XtError
from xt.serve.index.corpus import (
    BEIR_CORPUS,
    BEIR_QRELS,
    BEIR_QUERIES,
    CorpusLog,
    beir_file,
    read_corpus,
    read_queries,
)


@dataclass(frozen=True)
class Texts:
    """Texts with identifiers and languages."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    languages: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("ids", "texts", "languages"):
            object.__setattr__(self, name, tuple(as_list(getattr(self, name), name, name)))
        if not len(self.ids) == len(self.texts) == len(self.languages):
            raise XtError(
                f"There are {len(self.texts)} texts, {len(self.ids)} ids and {len(self.languages)} languages.",
                "Give one each.",
            )

    @classmethod
    def of(cls, found: Sequence[tuple[str, str, str]]) -> Texts:
        """Put (id, text, language) triples into columns."""
        rows = as_list(found, "found", "(id, text, language)")
        return cls(*(tuple(row[i] for row in rows) for i in range(3)))


@dataclass(frozen=True)
class Collection:
    """Queries, documents and judgements: query id -> document id -> how relevant, 0 for not."""

    queries: Texts
    documents: Texts
    judgements: Mapping[str, Mapping[str, int]]
    origin: str
    notes: tuple[str, ...] = ()
    """What a report should say of it."""

    def __post_init__(self) -> None:
        for what, side in (("queries", self.queries), ("documents", self.documents)):
            if not side.ids:
                raise XtError(f"{self.origin}: there are no {what}.", "Expected at least one.")
            if len(set(side.ids)) < len(side.ids):
                seen: set[str] = set()
                twice = next(i for i in side.ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
                raise XtError(f"{self.origin}: two {what} have the id {twice!r}.", "Each id must be there once.")
        if bare := [q for q in self.queries.ids if not any(s > 0 for s in self.judgements.get(q, {}).values())]:
            raise XtError(
                f"{self.origin}: {len(bare)} queries have no relevant document, {bare[0]!r} first.",
                "Judge them, or leave them out.",
            )
        known_q, known_d = set(self.queries.ids), set(self.documents.ids)
        if lost := [q for q in self.judgements if q not in known_q]:
            raise XtError(
                f"{self.origin}: {len(lost)} judged queries are not among the queries, {lost[0]!r} first.",
                "The ids of the judgements must be those of the queries.",
            )
        if gone := [d for found in self.judgements.values() for d in found if d not in known_d]:
            raise XtError(
                f"{self.origin}: {len(gone)} judgements name documents that are not there, {gone[0]!r} first.",
                "The ids of the judgements must be those of the documents.",
            )


def read_beir(folder: Path, split: str = "test", selection: str = "all") -> Collection:
    """Read a BEIR folder: corpus.jsonl, queries.jsonl, qrels/<split>.tsv, or these as .csv and the like, also gzipped.

    A document is its title, a space and its text, as BEIR joins them. Queries that the split judges not, or judges
    without a relevant document, are left out and counted. `language` of a query (or of its `metadata`) is its language;
    those of other languages than `selection` asks for are left out and counted.
    """
    places = {BEIR_CORPUS: folder, BEIR_QUERIES: folder, split: folder / BEIR_QRELS}
    files = {stem: beir_file(where, stem) for stem, where in places.items()}
    if missing := [f"{stem}.jsonl" for stem in (BEIR_CORPUS, BEIR_QUERIES) if files[stem] is None] + (
        [f"{BEIR_QRELS}/{split}.tsv"] if files[split] is None else []
    ):
        there = ", ".join(sorted(p.name for p in folder.glob("*"))[:8]) or "nothing"
        raise XtError(f"{folder} lacks {', '.join(missing)} (found: {there}).", "Expected the layout of BEIR.")
    log = CorpusLog()
    documents = [(d.id, d.content, languages.canonical(d.language)) for d in read_corpus(folder, log)]
    log.skipped = []  # a BEIR folder holds other splits, and their notes
    judgements = _judgements(_existing(files[split]))
    everything = [
        (name, text, languages.canonical(code)) for name, text, code, _ in read_queries(_existing(files["queries"]))
    ]
    relevant = {q for q, found in judgements.items() if any(score > 0 for score in found.values())}
    known = {q[0] for q in everything}
    queries = [q for q in everything if q[0] in relevant]
    kept = {q: found for q, found in judgements.items() if q in relevant or q not in known}
    others: Counter[str] = Counter()
    if selection.strip().lower() != "all":
        chosen = languages.select(selection, dict.fromkeys(code for _, _, code in queries))
        others.update(code for _, _, code in queries if code not in chosen)
        kept = {q: found for q, found in kept.items() if q not in {name for name, _, code in queries if code in others}}
        queries = [q for q in queries if q[2] in chosen]
    left = len(everything) - len(queries) - others.total()
    notes = log.notes()
    if left:
        notes.append(f"{left} of {len(everything)} queries left out: {split} judges no document relevant to them")
    if others:
        notes.append(f"queries left out, in other languages: {counts(others)}")
    return Collection(Texts.of(queries), Texts.of(documents), kept, str(folder), tuple(notes))


def _existing(file: Path | None) -> Path:
    assert file is not None
    return file


def _judgements(file: Path) -> dict[str, dict[str, int]]:
    """Read which documents answer which queries, and how well."""
    judgements: dict[str, dict[str, int]] = {}
    needed = ("query-id", "corpus-id", "score")
    for number, row in rows.read(file, rows.TABLES):
        where = f"{file}, line {number}"
        if isinstance(row, str):
            raise XtError(f"{where}: {row}", "Repair the line, or remove it.")
        if missing := [name for name in needed if row.get(name) in (None, "")]:
            raise XtError(
                f"{where} has no {', '.join(missing)} (found: {', '.join(map(str, row)) or 'nothing'}); "
                f"expected the columns {', '.join(needed)}.",
                "See BEIR's qrels: a header, then a judgement a line.",
            )
        query, document = str(row["query-id"]).strip(), str(row["corpus-id"]).strip()
        found = judgements.setdefault(query, {})
        if document in found:
            raise XtError(f"{where}: this document is judged twice for the query.", "Remove one of them.")
        try:
            score = float(row["score"])
            found[document] = int(score)
        except (TypeError, ValueError, OverflowError):
            score = math.nan
        if not score.is_integer():
            raise XtError(f"{where}: {row['score']!r} is no whole number.", "A score is 0, 1, 2, ...")
    if not judgements:
        raise XtError(
            f"{file} holds no judgement; expected the columns {', '.join(needed)}.",
            "See BEIR's qrels: a header, then a judgement a line.",
        )
    return judgements
