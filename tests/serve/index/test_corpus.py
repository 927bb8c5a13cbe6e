"""A corpus is read alike whatever its files are called and packed; what is not read is named, what is damaged refused."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from pathlib import Path

import pytest

from xt.core.errors import XtError
from xt.eval.protocols import is_ranked
from xt.eval.ranked.collection import read_beir
from xt.serve.index.corpus import CorpusLog, corpus_files, fingerprint, read_corpus

ROWS = [("a", "", "guten morgen"), ("b", "Katze", ""), ("c", "Zwei, drei", 'ein "Wort"\nund mehr'), ("d", "", "日本語")]
CONTENT = {"a": "guten morgen", "b": "Katze", "c": 'Zwei, drei ein "Wort"\nund mehr', "d": "日本語"}


def as_jsonl(rows: list[tuple[str, str, str]], key: str = "id") -> bytes:
    objects = [{key: name, "title": title, "text": text, "other": [1]} for name, title, text in rows]
    return "".join(json.dumps(o, ensure_ascii=False) + "\n" for o in objects).encode()


def as_csv(rows: list[tuple[str, str, str]], end: str = "\r\n") -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=end)
    writer.writerow(("text", "id", "title"))
    writer.writerows((text, name, title) for name, title, text in rows)
    return b"\xef\xbb\xbf" + out.getvalue().encode()


def as_tsv(rows: list[tuple[str, str, str]]) -> bytes:
    flat = [(name, title, text.replace("\n", " ")) for name, title, text in rows]
    return "".join("\t".join(row) + "\r\n" for row in [("id", "title", "text"), *flat]).encode()


FILES = {
    "c.jsonl": as_jsonl(ROWS),
    "c.NDJSON": as_jsonl(ROWS, "_id"),
    "C.JSONL.GZ": gzip.compress(as_jsonl(ROWS)),
    "c.csv": as_csv(ROWS),
    "c.CSV.gz": gzip.compress(as_csv(ROWS, "\n")),
    "c.Tsv": as_tsv(ROWS),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_the_same_documents(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    found = {d.id: d.content for d in read_corpus(tmp_path / name)}
    wanted = {k: v.replace("\n", " ") for k, v in CONTENT.items()} if "tsv" in name.lower() else CONTENT
    assert found == wanted


def test_a_folder_is_read_with_its_sub_folders_and_what_is_not_read_is_named(tmp_path: Path) -> None:
    inner = tmp_path / "b" / "deep"
    inner.mkdir(parents=True)
    (tmp_path / "z.TXT").write_text("\ufeffone\n\n two \r\n", encoding="utf-8")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"three\n"))
    (inner / "x.csv").write_bytes(as_csv(ROWS[:1]))
    (tmp_path / "notes.md").write_text("no")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "c.txt").write_text("no\n")
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "xt.json").write_text("{}")
    (tmp_path / "index" / "documents.jsonl").write_bytes(as_jsonl(ROWS))
    (tmp_path / "link").symlink_to(inner)
    os.mkfifo(tmp_path / "pipe.txt")
    log = CorpusLog()
    found = [(d.id, d.content) for d in read_corpus(tmp_path, log)]
    assert found == [("a.txt.gz:1", "three"), ("a", "guten morgen"), ("z.TXT:1", "one"), ("z.TXT:3", "two")]
    assert log.skipped == [".git/", "index/", "link/", "notes.md", "pipe.txt"]
    assert (log.blank, log.first["blank"]) == (1, f"{tmp_path / 'z.TXT'}, line 2")
    assert log.notes()[0] == "5 files not read: .git/, index/, link/, notes.md, pipe.txt"
    assert list(fingerprint(tmp_path)) == ["a.txt.gz", "b/deep/x.csv", "z.TXT"]


def test_documents_without_title_and_text_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [("a", "", "x"), ("b", "", ""), ("c", " ", "  "), ("d", "t", "")]
    (tmp_path / "c.jsonl").write_bytes(as_jsonl(rows) + b'{"id": "e", "text": null}\n')
    log = CorpusLog()
    assert [d.id for d in read_corpus(tmp_path / "c.jsonl", log)] == ["a", "d"]
    assert log.to_json() == {"empty_documents": 3}
    assert log.notes() == [f"3 documents without title and text left out (the first: {tmp_path / 'c.jsonl'}, line 2)"]


# --- BEIR -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_ranking_and_indexing_read_the_same_documents_of_a_beir_folder(tmp_path: Path, packed: bool) -> None:
    def put(name: str, content: bytes) -> None:
        file = tmp_path / (f"{name}.GZ" if packed else name)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(gzip.compress(content) if packed else content)

    put("corpus.jsonl", as_jsonl([*ROWS, ("e", "", "")], "_id"))
    put("queries.jsonl", b'{"_id": "q", "text": "morgen", "metadata": {"language": "German"}}\n')
    put("qrels/test.tsv", b"query-id\tcorpus-id\tscore\nq\tb\t1\n")
    (tmp_path / "README.md").write_text("about")
    assert is_ranked(f"{tmp_path}/")
    ranked, log = read_beir(tmp_path), CorpusLog()
    indexed = list(read_corpus(tmp_path, log))
    assert dict(zip(ranked.documents.ids, ranked.documents.texts, strict=True)) == CONTENT
    assert {d.id: d.content for d in indexed} == CONTENT
    assert ranked.queries.languages == ("deu",)
    assert log.skipped == ["README.md"]
    assert ranked.notes == (log.notes()[1],) and log.empty == 1


def test_two_files_for_one_part_of_a_beir_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_bytes(as_jsonl(ROWS))
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(as_jsonl(ROWS)))
    for read in (corpus_files, read_beir):
        with pytest.raises(XtError, match=r"holds corpus\.jsonl and corpus\.jsonl\.gz"):
            read(tmp_path)


def test_queries_in_other_languages_than_those_asked_for_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_bytes(as_jsonl(ROWS))
    codes = ("de", "deu", "fra", "", "xx")
    lines = [json.dumps({"_id": f"q{n}", "text": "x", "language": code}) for n, code in enumerate(codes)]
    (tmp_path / "queries.ndjson").write_text("\n".join(lines) + "\n")
    judged = "".join(f"q{n},a,1\n" for n in range(len(codes)))
    (tmp_path / "qrels" / "test.csv").write_text("query-id,corpus-id,score\n" + judged)
    assert read_beir(tmp_path).queries.languages == ("deu", "deu", "fra", "und", "xx")
    german = read_beir(tmp_path, selection="German")
    assert german.queries.ids == ("q0", "q1") == tuple(german.judgements)
    assert german.notes == ("queries left out, in other languages: fra 1, und 1, xx 1",)


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        ("queries.jsonl", DEEP + b"\n", "queries.jsonl, line 1: not JSON .too deeply nested"),
        ("queries.jsonl", b'{"_id": "q", "text": ""}\n', "queries.jsonl, line 1: the query is empty"),
        ("queries.jsonl", b'{"_id": "q", "text": "x"}\n' * 2, "line 2: .*line 1 has the id 'q' already"),
        ("qrels/test.tsv", b"q 0 d 1\n", "holds no judgement; expected the columns query-id, corpus-id, score"),
        ("qrels/test.tsv", b"query-id\tscore\nq\t1\n", "line 2 has no corpus-id .found: query-id, score."),
        ("qrels/test.tsv", b"query-id\tcorpus-id\tscore\nq\ta\t0.5\n", "line 2: '0.5' is no whole number"),
        ("qrels/test.tsv", b"query-id\tcorpus-id\tscore\nq\ta\tinf\n", "line 2: 'inf' is no whole number"),
        ("qrels/test.tsv", b"query-id\tcorpus-id\tscore\nq\ta\t1\nq\ta\t1\n", "line 3: this document is judged twice"),
    ],
)
def test_a_damaged_part_of_a_beir_folder_is_named_with_its_line(
    tmp_path: Path, part: str, content: bytes, message: str
) -> None:
    (tmp_path / "qrels").mkdir()
    files = {"corpus.jsonl": as_jsonl(ROWS), "queries.jsonl": b'{"_id": "q", "text": "x"}\n'}
    files["qrels/test.tsv"] = b"query-id\tcorpus-id\tscore\nq\ta\t1\n"
    for name, usual in files.items():
        (tmp_path / name).write_bytes(content if name == part else usual)
    with pytest.raises(XtError, match=message):
        read_beir(tmp_path)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.txt", b"a\nb\xff\n", "c.txt, line 2: not UTF-8"),
        ("c.txt", b"a\0b\n" + b"x" * 100, "c.txt, line 1 holds a NUL"),
        ("c.txt", b"", "holds no text"),
        ("c.txt", b"\n \n", "holds no text(?s:.)*2 blank lines"),
        ("c.txt", b"a\rb\rc", "lines that end with CR alone"),
        ("c.txt", "a\n".encode("utf-16"), "found UTF-16"),
        ("c.txt", gzip.compress(b"a\n", mtime=0), "found a gzip file whose name does not end in .gz|binary"),
        ("c.txt.gz", gzip.compress(b"a\n" * 9999, mtime=0)[:-9], "no whole gzip file"),
        ("c.txt.gz", b"a\n", "no whole gzip file"),
        ("c.jsonl", b'{"id": 1, "text": "a"}\n{"id": 2', "c.jsonl, line 2: not JSON"),
        ("c.jsonl", b'{"id": 1, "text": "a"}\n' + DEEP + b"\n", "c.jsonl, line 2: not JSON .too deeply nested"),
        ("c.jsonl", b'{"id": 1, "text": "a", "text": "b"}\n', "line 1: a JSON object that has 'text' twice"),
        ("c.jsonl", b'["a"]\n', "c.jsonl, line 1: a JSON list, expected an object"),
        ("c.jsonl", b'{"text": "a"}\n', "c.jsonl, line 1 has no id .found: text"),
        ("c.jsonl", b'{"id": "x", "_id": "y", "text": "a"}\n', "line 1 has two ids, _id 'y' and id 'x'"),
        ("c.jsonl", b'{"id": NaN, "text": "a"}\n', "line 1: its id is float .nan., expected text"),
        ("c.jsonl", b'{"id": "a", "text": 5}\n', "c.jsonl, line 1: its text is int .5., expected text"),
        ("c.jsonl", b'{"id": "a", "text": "b", "title": NaN}\n', "line 1: its title is float .nan., expected text"),
        ("c.jsonl", b'{"id": "a", "text": "\\ud800"}\n', "c.jsonl, line 1: its text is not valid Unicode"),
        ("c.jsonl", b'{"id": "a", "content": "b"}\n', "line 1 has no text and no title .found: id, content"),
        ("c.jsonl", b'{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n', "line 2: .*line 1 has the id 'a' already"),
        ("c.jsonl", b'{"id": 1, "text": "x"}\n{"id": "1", "text": "y"}\n', "the id '1' already"),
        ("c.tsv", b"id\tname\na\tb\n", "line 2 has no text and no title .found: id, name"),
        ("c.tsv", b"id\ttext\na\tb\tc\n", "c.tsv, line 2: 3 columns, the header has 2"),
        ("c.tsv", b"id\ttext\na\tb\na\tc\n", "line 3: .*line 2 has the id 'a' already"),
        ("c.csv", b'id,text\na,"b\nc\nd,e\n', "line 2: a quotation mark that is opened in this row is never closed"),
        ("c.csv", b"id,text,text\na,b,c\n", "names text twice"),
        ("c.parquet", b"id,text\n", "is none of .jsonl, .ndjson, .tsv, .csv, .txt"),
    ],
)
def test_what_is_no_corpus_is_refused_with_file_and_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(XtError, match=message) as error:
        list(read_corpus(tmp_path / name))
    assert name in error.value.message and error.value.hint


def test_a_cell_may_be_longer_than_pythons_limit(tmp_path: Path) -> None:
    long = "wort " * 60_000
    (tmp_path / "c.csv").write_bytes(as_csv([("a", "", long), ("b", "", "x")]))
    assert [len(d.text) for d in read_corpus(tmp_path / "c.csv")] == [len(long) - 1, 1]


def test_folders_without_a_corpus_are_refused(tmp_path: Path) -> None:
    with pytest.raises(XtError, match="There is no file or folder"):
        list(read_corpus(tmp_path / "none"))
    (tmp_path / "readme.md").write_text("x")
    with pytest.raises(XtError, match=r"holds no .jsonl, .*, .txt file .found: readme.md"):
        list(read_corpus(tmp_path))


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xt.core.data.readers import rows

    monkeypatch.setattr(rows, "MAX_LINE", 1 << 16)
    file = tmp_path / "bomb.txt.gz"
    file.write_bytes(gzip.compress(b"a\n" + b"b" * (1 << 20)))
    with pytest.raises(XtError, match=r"bomb\.txt\.gz, line 2: longer than"):
        list(read_corpus(file))
