"""XQuAD-R is LAReQA's where its files are there, and cut from XQuAD where not; Mewsli-X is read in its layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xt.core.errors import XtError
from xt.eval.ranked.passages import proportional, read_mewsli_x, read_xquad_r, sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
        (
            "Mr. Jones met J. R. Smith in St. Louis. They left.",
            ["Mr. Jones met J. R. Smith in St. Louis.", "They left."],
        ),
        ("It is 3.5 m, i.e. short. Good.", ["It is 3.5 m, i.e. short.", "Good."]),
        ("Am 3. Mai 1900 war es so. Dann nicht.", ["Am 3. Mai 1900 war es so.", "Dann nicht."]),
        ("هل وصل؟ نعم. جاء أمس.", ["هل وصل؟", "نعم.", "جاء أمس."]),
        ("वह आया। फिर गया। क्यों?", ["वह आया।", "फिर गया।", "क्यों?"]),
        ("他来了。后来走了！为什么？", ["他来了。", "后来走了！", "为什么？"]),
        ("Первое. Второе см. ниже. Третье.", ["Первое.", "Второе см. ниже.", "Третье."]),
        ("Line one\nline two. Next", ["Line one", "line two.", "Next"]),
        ("  padded. ", ["padded."]),
        ("no stop", ["no stop"]),
    ],
)
def test_sentences_end_at_the_stops_of_each_script(text, expected):
    assert [text[a:b] for a, b in sentences(text, ordinals="3. Mai" in text)] == expected


def test_every_letter_of_xquad_is_in_one_sentence_and_every_answer_starts_in_one(data_dir):
    for file in sorted((data_dir / "xquad").glob("xquad.*.json")):
        for article in json.loads(file.read_text(encoding="utf-8"))["data"]:
            for paragraph in article["paragraphs"]:
                text = paragraph["context"]
                spans = sentences(text)
                assert all(a < b <= c for (a, b), (c, _) in zip(spans, [*spans[1:], (len(text), 0)], strict=True))
                between = zip([0, *(b for _, b in spans)], [*(a for a, _ in spans), len(text)], strict=True)
                assert not "".join(text[b:a] for b, a in between).strip()
                for question in paragraph["qas"]:
                    start = question["answers"][0]["answer_start"]
                    assert sum(a <= start < b for a, b in spans) == 1


def test_xquad_gives_every_question_an_answer_in_every_language(data_dir):
    found = read_xquad_r(data_dir, "en,de,th,zh")
    assert len(found.queries.ids) == 4 * 1190
    assert set(found.queries.languages) == {"eng", "deu", "tha", "cmn"}
    language = dict(zip(found.documents.ids, found.documents.languages, strict=True))
    assert all({language[d] for d in judged} == set(found.queries.languages) for judged in found.judgements.values())
    counts = {code: found.documents.languages.count(code) for code in set(language.values())}
    published = {"eng": 1180, "deu": 1276, "cmn": 1196}  # LAReQA's README
    assert all(abs(counts[code] / n - 1) < 0.05 for code, n in published.items())
    assert abs(counts["tha"] / counts["eng"] - 1) < 0.02  # Thai is cut by its English counterpart
    assert "13,014" in found.notes[0]
    # by hand: the first question of the set, whose answer "308" is in the first sentence
    query = found.queries.ids.index("56beb4343aeaaa14008c925b-eng")
    assert found.queries.texts[query] == "How many points did the Panthers defense surrender?"
    judged = found.judgements["56beb4343aeaaa14008c925b-eng"]
    text = dict(zip(found.documents.ids, found.documents.texts, strict=True))
    start = "The Panthers defense gave up just 308 points, ranking sixth in the league, while also leading"
    assert [text[d].startswith(start) for d in judged if language[d] == "eng"] == [True]
    assert text["eng-0-0"].count(start) == 2  # the sentence, then its context


def lareqa(folder: Path, code: str, breaks: list[list[int]], *, keep: bool = True) -> None:
    context = "Eins zwei. Drei vier. Fuenf."
    question = {"id": "q1", "question": "was?", "answers": [{"text": "Drei", "answer_start": 11}]}
    outside = {"id": "q2", "question": "wo?", "answers": [{"text": " ", "answer_start": 10}]}
    paragraph = {"context": context, "qas": [question, outside], **({"sentence_breaks": breaks} if keep else {})}
    folder.mkdir(exist_ok=True)
    (folder / f"{code}.json").write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}))


def test_published_sentence_breaks_are_taken_as_they_are(tmp_path):
    for code in ("de", "en"):
        lareqa(tmp_path / "xquad-r", code, [[0, 10], [11, 28]])
    found = read_xquad_r(tmp_path)
    assert found.documents.texts[1] == "Drei vier. Fuenf. Eins zwei. Drei vier. Fuenf."
    assert found.queries.ids == ("q1-deu", "q1-eng")
    assert found.judgements["q1-deu"] == {"deu-0-1": 1, "eng-0-1": 1}
    assert found.notes == ("2 questions left out: their answer starts in no sentence",)
    lareqa(tmp_path / "xquad-r", "en", [], keep=False)
    with pytest.raises(XtError, match="sentence breaks are there for some languages only, not for eng"):
        read_xquad_r(tmp_path)
    with pytest.raises(XtError, match="XQuAD-R is not there"):
        read_xquad_r(tmp_path / "xquad-r")
    (tmp_path / "xquad-r" / "en.json").write_text('{"paragraphs": []}')
    with pytest.raises(XtError, match="not in SQuAD's layout: KeyError"):
        read_xquad_r(tmp_path)


def test_proportional_cuts_fall_on_spaces_and_never_twice_on_one():
    text = "ab cd ef gh"
    assert [text[a:b] for a, b in proportional(text, [0.2, 0.25, 0.9])] == ["ab", "cd", "ef", "gh"]
    assert proportional("abcdef", [0.5]) == [(0, 6)]


def mewsli(folder: Path, *, text: str = "Yes. A tower in Paris fell. It was old.") -> Path:
    folder.mkdir()
    entity = {
        "entity_id": "Q90",
        "title": "Paris",
        "description": "Paris est une ville.\nLa capitale.",
        "description_url": "",
    }
    entity |= {"description_language": "fr", "sentence_spans": [{"start": 0, "end": 20}, {"start": 21, "end": 33}]}
    other = {**entity, "entity_id": "Q64"}
    (folder / "candidate_set_entities.jsonl").write_text("".join(json.dumps(e) + "\n" for e in (entity, other)))
    spans = [{"start": 0, "end": 4}, {"start": 5, "end": 27}, {"start": 28, "end": 39}]
    context = {"document_id": "1", "language": "en", "text": text, "sentence_spans": spans}
    mentions = [
        {"example_id": "m1", "entity_id": "Q90", "mention_span": {"start": 16, "end": 21, "text": "Paris"}},
        {"example_id": "m2", "entity_id": "Q90", "mention_span": {"start": 22, "end": 30, "text": "fell. It"}},
    ]
    (folder / "wikinews_mentions-test.jsonl").write_text(json.dumps({"context": context, "mentions": mentions}) + "\n")
    return folder


def test_mewsli_x_is_read_as_xtreme_rs_baseline_reads_it(tmp_path):
    mewsli(tmp_path / "mewsli-x")
    found = read_mewsli_x(tmp_path)
    assert found.queries.texts == ("Paris: A tower in { Paris } fell.",)
    assert found.documents.texts[0] == "Paris est une ville. La capitale."
    assert (found.queries.languages, found.documents.languages) == (("eng",), ("fr", "fr"))
    assert found.judgements == {"m1": {"Q90": 1}}
    assert found.notes[0] == "1 mentions left out: they lie in no sentence"
    with pytest.raises(XtError, match="No data for 'de'"):
        read_mewsli_x(tmp_path, "de")


def test_mewsli_x_without_its_text_or_files_is_refused(tmp_path):
    with pytest.raises(XtError, match="Mewsli-X is not there"):
        read_mewsli_x(tmp_path)
    mewsli(tmp_path / "mewsli-x", text="")
    with pytest.raises(XtError, match="line 1: the article has no text") as error:
        read_mewsli_x(tmp_path)
    assert "restore_text" in error.value.hint
    (tmp_path / "mewsli-x" / "candidate_set_entities.jsonl").write_text('{"entity_id": "Q1"}\n')
    with pytest.raises(XtError, match="line 1 lacks description, sentence_spans, description_language"):
        read_mewsli_x(tmp_path)
