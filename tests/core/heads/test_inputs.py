"""Rows are those of transformers' own tokenizer on real text in many scripts, and nothing of an example is lost."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from xt.core.data.examples import (
    CaptionExample,
    ChoiceExample,
    Example,
    PairExample,
    QaExample,
    ReadLog,
    ScoredExample,
    SingleExample,
    TaggedExample,
    TextExample,
    TupleExample,
)
from xt.core.data.source_rows import examples
from xt.core.data.sources import locate
from xt.core.data.task_table import TASKS
from xt.core.data.tasks import Task
from xt.core.encoder.resolve import Resolved
from xt.core.errors import XtError
from xt.core.heads.inputs import IGNORED, STRIDE, Inputs, Unit, collate, span_tokens

ODD = [
    "👍🏽 ok 👨‍👩‍👧‍👦!",
    "ﬁne ½ ①",
    "a  b\tc",
    "…",
    "naïve\u00a0café\u200b",
    "日本語とEnglish",
    "ไม่มีเว้นวรรค",
    "தமிழ் மொழி",
]


def task(format: str, labels: tuple[str, ...] = ("a", "b")) -> Task:
    return Task("t", "intermediate", format, "", labels, "", "accuracy", "", "")


@pytest.fixture(scope="module")
def whole(bundled: Resolved) -> Inputs:
    """The bundled encoder's tokenizer."""
    return Inputs(bundled.path / "tokenizer.json", bundled.spec)


@pytest.fixture(scope="module")
def theirs(bundled: Resolved) -> Any:
    """The same folder's, as transformers reads it."""
    return AutoTokenizer.from_pretrained(bundled.path)


@pytest.fixture(scope="module")
def texts(data_dir: Path) -> list[str]:
    """Sentences in six scripts, some put together to long ones, and odd strings."""
    found = list(ODD)
    for code in ("tha", "tam", "cmn", "ara", "hin", "deu"):
        lines = (data_dir / f"tatoeba/tatoeba.{code}-eng.{code}").read_text(encoding="utf-8").splitlines()[:40]
        found += [*lines[:30], " ".join(lines), " ".join(lines[:9])]
    return found


@contextmanager
def of_length(inputs: Inputs, tokens: int) -> Iterator[Inputs]:
    """The same tokenizer (it takes a second to load) for shorter inputs."""
    before, inputs.max_length = inputs.max_length, tokens
    try:
        yield inputs
    finally:
        inputs.max_length = before


def rows(units: list[Unit]) -> list[list[int]]:
    return [row.tolist() for unit in units for row in unit.rows]


@pytest.mark.parametrize("tokens", [16, 31, 512])
def test_pairs_are_those_of_transformers(whole: Inputs, theirs: Any, texts: list[str], tokens: int) -> None:
    seconds = texts[::-1]
    with of_length(whole, tokens) as inputs:
        units = inputs.units(task("pair"), [PairExample("", a, b, 1) for a, b in zip(texts, seconds, strict=True)])
        scored = inputs.units(
            task("regression"), [ScoredExample("", a, b, 2.5) for a, b in zip(texts, seconds, strict=True)]
        )
    expected = theirs(texts, seconds, truncation="longest_first", max_length=tokens)
    assert rows(units) == rows(scored) == expected["input_ids"]
    full = theirs(texts, seconds)["input_ids"]
    assert [u.cut for u in units] == [len(row) > tokens for row in full]
    assert any(u.cut for u in units) == (tokens < 512)
    assert {u.targets for u in units} == {(1,)}
    assert {u.targets for u in scored} == {(2.5,)}
    assert [u.owner for u in units] == list(range(len(texts)))


def test_single_texts_captions_and_tuples_have_the_prefix(whole: Inputs, theirs: Any, texts: list[str]) -> None:
    assert whole.prefix == "query: "
    expected = theirs(["query: " + t for t in texts], truncation=True, max_length=40)["input_ids"]
    with of_length(whole, 40) as inputs:
        assert rows(inputs.units(task("single"), [SingleExample("", t, 0) for t in texts])) == expected
        captions = inputs.units(task("image-text"), [CaptionExample("", t, 7) for t in texts])
        tuples = inputs.units(
            task("contrastive"), [TupleExample("", t, t + "!", None if n % 2 else "no") for n, t in enumerate(texts)]
        )
    assert rows(captions) == expected
    assert {u.targets for u in captions} == {(7,)}
    assert [u.rows[0].tolist() for u in tuples] == expected
    assert [len(u.rows) for u in tuples] == [2 + (n % 2 == 0) for n in range(len(texts))]
    negative = theirs("query: no")["input_ids"]
    assert all(u.rows[2].tolist() == negative for u in tuples[::2])


def test_a_choice_is_the_prompt_with_each_of_its_choices(whole: Inputs, theirs: Any, texts: list[str]) -> None:
    prompts = [ChoiceExample("", t, tuple(texts[: 2 + n % 3]), n % 2) for n, t in enumerate(texts)]
    units = whole.units(task("choice"), prompts)
    pairs = [(e.prompt, c) for e in prompts for c in e.choices]
    assert rows(units) == theirs([a for a, _ in pairs], [b for _, b in pairs])["input_ids"]
    assert [len(u.rows) for u in units] == [len(e.choices) for e in prompts]
    assert [u.targets for u in units] == [(e.label,) for e in prompts]


# --- questions ---


@pytest.fixture(scope="module")
def xquad(data_dir: Path) -> dict[str, list[QaExample]]:
    """XQuAD in English, Thai and Chinese."""
    found = {}
    for code in ("eng", "tha", "cmn"):
        source = locate(TASKS["xquad"], "test", language=code, data_dir=data_dir)
        found[code] = [e for e in examples(source, ReadLog()) if isinstance(e, QaExample)]
    return found


@pytest.mark.parametrize("code", ["eng", "tha", "cmn"])
def test_windows_are_those_of_transformers(
    whole: Inputs, theirs: Any, xquad: dict[str, list[QaExample]], code: str
) -> None:
    some = xquad[code][:150]
    with of_length(whole, 256) as inputs:
        units = inputs.units(TASKS["squad-v1"], some)
    expected = theirs(
        [e.question for e in some],
        [e.context for e in some],
        truncation="only_second",
        max_length=256,
        stride=64,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    assert STRIDE == 64
    assert len(units) > len(some)
    assert rows(units) == expected["input_ids"]
    assert [u.owner for u in units] == expected["overflow_to_sample_mapping"]
    for at, unit in enumerate(units):
        parts = expected.sequence_ids(at)
        spans = [tuple(o) if p == 1 else None for o, p in zip(expected["offset_mapping"][at], parts, strict=True)]
        assert unit.spans == spans


@pytest.mark.parametrize(("tokens", "code"), [(256, "eng"), (96, "eng"), (256, "tha"), (256, "cmn")])
def test_every_answer_is_whole_in_a_window_and_found_again_by_its_tokens(
    whole: Inputs, xquad: dict[str, list[QaExample]], tokens: int, code: str
) -> None:
    questions = xquad[code]
    assert len(questions) == 1190
    with of_length(whole, tokens) as inputs:
        units = inputs.units(TASKS["squad-v1"], questions)
    found: dict[int, str] = {}
    for unit in units:
        first, last = map(int, unit.targets)
        if (first, last) != (0, 0):
            assert unit.spans is not None
            a, b = unit.spans[first], unit.spans[last]
            assert a is not None
            assert b is not None
            found[unit.owner] = questions[unit.owner].context[a[0] : b[1]].strip()
    assert len(found) == 1190  # none is in no window
    texts = [(found[n], e.answers[0]) for n, e in enumerate(questions)]
    assert all(answer in text for text, answer in texts)
    inexact = [(text, answer) for text, answer in texts if text != answer]
    assert len(inexact) <= 40  # an answer that ends inside a token: "118" of "(118)"
    for text, answer in inexact:
        before, _, after = text.partition(answer)
        assert len(before) <= 4
        assert len(after) <= 6


COMPOSED = [
    ("서울은 대한민국의 수도이다. 한글은 세종이 만들었다.", "대한민국", "세종"),
    ("Hà Nội là thủ đô của Việt Nam. Sài Gòn ở phía nam nước Việt", "Việt Nam", "nước Việt"),
    ("क़लम मेज़ पर है और किताब ज़मीन पर पड़ी है। यह क़िला पुराना क़", "ज़मीन", "क़िला"),
    ("Das Café in Orléans heißt é. Łódź é", "Orléans", "Café"),
]


@pytest.mark.parametrize("tokens", [512, 24])
@pytest.mark.parametrize(("context", "first", "second"), COMPOSED)
def test_answers_in_a_decomposed_context_are_found_in_the_context_as_it_is_given(
    whole: Inputs, context: str, first: str, second: str, tokens: int
) -> None:
    def questions(form: str) -> list[QaExample]:
        text = unicodedata.normalize(form, context)
        answers = [unicodedata.normalize(form, answer) for answer in (first, second)]
        return [QaExample("", text, unicodedata.normalize(form, "é?"), (a,), (text.index(a),)) for a in answers]

    composed, decomposed = questions("NFC"), questions("NFD")
    with of_length(whole, tokens) as inputs:
        expected, units = (inputs.units(TASKS["squad-v1"], some) for some in (composed, decomposed))
    assert rows(units) == rows(expected)
    assert [unit.targets for unit in units] == [unit.targets for unit in expected]
    for unit, other in zip(units, expected, strict=True):
        assert unit.spans is not None
        assert other.spans is not None
        texts = [composed[unit.owner].context, decomposed[unit.owner].context]
        for given, had in zip(unit.spans, other.spans, strict=True):
            if given is not None and had is not None:
                assert unicodedata.normalize("NFC", texts[1][slice(*given)]) == texts[0][slice(*had)]
        a, b = unit.spans[int(unit.targets[0])], unit.spans[int(unit.targets[1])]
        if a is not None and b is not None:  # the answer is in this window: no mark is left at its edge
            after = texts[1][b[1] : b[1] + 1]
            assert decomposed[unit.owner].answers[0] in texts[1][a[0] : b[1]]
            assert not after or not unicodedata.combining(after)
    assert any(unit.targets != (0, 0) for unit in units)


def test_both_forms_of_unicode_are_read_alike_in_every_format(whole: Inputs) -> None:
    one, other = "한국어 문장입니다", "Tiếng Việt đẹp"

    def made(form: str) -> dict[str, Example]:
        a, b = (unicodedata.normalize(form, text) for text in (one, other))
        return {
            "single": SingleExample("", a, 0),
            "pair": PairExample("", a, b, 0),
            "regression": ScoredExample("", a, b, 0.5),
            "choice": ChoiceExample("", a, (b, a), 0),
            "tagging": TaggedExample("", tuple(f"{a} {b}".split()), (0,) * 5),
            "contrastive": TupleExample("", a, b, a),
            "mlm": TextExample("", a),
            "image-text": CaptionExample("", b, 0),
        }

    composed, decomposed = made("NFC"), made("NFD")
    assert len(composed) == 8
    for tokens in (512, 6):
        for format in composed:
            with of_length(whole, tokens) as inputs:
                expected, found = (inputs.units(task(format), [some[format]]) for some in (composed, decomposed))
            assert rows(found) == rows(expected), format
            assert [u.words for u in found] == [u.words for u in expected]


def test_a_long_decomposed_question_is_cut_where_the_composed_one_is(whole: Inputs) -> None:
    question = "무엇이 대한민국의 수도인가 " * 20
    example = QaExample("", "서울", question, (), ())
    other = QaExample("", "서울", unicodedata.normalize("NFD", question), (), ())
    with of_length(whole, 64) as inputs:
        expected, found = (inputs.units(TASKS["squad-v1"], [e]) for e in (example, other))
    assert rows(found) == rows(expected)
    assert found[0].cut


def test_windows_of_a_long_context_overlap_and_reach_its_end(whole: Inputs) -> None:
    context = " ".join(f"item {n}" for n in range(400))
    example = QaExample("", context, "which ?", ("item 399",), (context.index("item 399"),))
    for tokens in (16, 24, 64, 128, 256):
        with of_length(whole, tokens) as inputs:
            units = inputs.units(TASKS["squad-v1"], [example])
        covered = [[s for s in u.spans or [] if s is not None] for u in units]
        assert max(u.longest for u in units) <= tokens
        assert covered[0][0][0] == 0
        assert covered[-1][-1][1] == len(context)
        shared = {len(set(a) & set(b)) for a, b in zip(covered, covered[1:], strict=False)}
        assert shared == {min(64, tokens // 4)}
        assert [u.targets != (0, 0) for u in units][-1]


@pytest.mark.parametrize("tokens", [16, 17, 40, 100, 127, 128, 129, 191, 256, 512])
def test_a_long_question_leaves_room_for_the_context(whole: Inputs, tokens: int) -> None:
    long = [QaExample("", "anna lives in the house " * 90, "ไม่มีเว้นวรรค " * 300, ("anna",), (0,))]
    with of_length(whole, tokens) as inputs:
        units = inputs.units(TASKS["squad-v1"], [*long, QaExample("", "anna", "who ?", ("anna",), (0,))])
    assert [u.cut for u in units] == [True] * (len(units) - 1) + [False]
    assert max(u.longest for u in units) <= tokens
    assert units[0].targets != (0, 0)
    covered = {s for u in units[:-1] for s in u.spans or [] if s is not None}
    assert max(end for _, end in covered) >= len("anna lives in the house " * 90) - 1


def test_an_unanswered_question_points_to_the_first_token(whole: Inputs) -> None:
    units = whole.units(TASKS["squad-v2"], [QaExample("", "anna lives here", "where is ben ?", (), ())])
    assert [u.targets for u in units] == [(0, 0)]


def test_blanks_around_an_answer_do_not_hide_it(tiny: Resolved) -> None:
    example = QaExample("", "good morning  big world", "what ?", (" big ",), (13,))
    units = Inputs(tiny.path / "tokenizer.json", tiny.spec).units(TASKS["squad-v1"], [example])
    assert units[0].targets == (7, 7)  # <s> what ? </s> </s> good morning big


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(0, 9, (1, 2)), (5, 9, (2, 2)), (6, 8, (2, 2)), (5, 12, (0, 0)), (20, 22, (0, 0)), (4, 9, (0, 0)), (3, 9, (1, 2))],
)
def test_the_tokens_of_a_span_by_hand(start: int, end: int, expected: tuple[int, int]) -> None:
    # tokens 0-4 and 5-9; character 4 is a blank in no token: (4, 9) starts before the first token that it touches
    assert span_tokens([None, (0, 4), (5, 9), None], start, end) == expected


# --- words ---


@pytest.fixture(scope="module")
def sentences(data_dir: Path) -> list[TaggedExample]:
    """Tagged sentences in German, Tamil and Yoruba."""
    found: list[Example] = []
    for code in ("deu", "tam", "yor"):
        source = locate(TASKS["udpos"], "test", language=code, data_dir=data_dir)
        found += list(examples(source, ReadLog()))[:60]
    return [e for e in found if isinstance(e, TaggedExample)]


def test_tagged_words_are_those_of_transformers(whole: Inputs, theirs: Any, sentences: list[TaggedExample]) -> None:
    units = whole.units(TASKS["udpos"], sentences)
    expected = theirs([list(e.words) for e in sentences], is_split_into_words=True)
    assert rows(units) == expected["input_ids"]
    for at, (unit, example) in enumerate(zip(units, sentences, strict=True)):
        labels, before = [], None
        for word in expected.word_ids(at):  # as transformers' examples do: the first token of a word has its label
            labels.append(IGNORED if word is None or word == before else example.labels[word])
            before = word
        assert unit.labels is not None
        assert unit.labels.tolist() == labels
        assert unit.words == list(range(len(example.words)))


@pytest.mark.parametrize("tokens", [16, 24, 60])
def test_a_long_sentence_is_cut_between_words_and_none_is_lost(
    whole: Inputs, theirs: Any, sentences: list[TaggedExample], tokens: int
) -> None:
    with of_length(whole, tokens) as inputs:
        units = inputs.units(TASKS["udpos"], sentences)
    assert len(units) > len(sentences)
    for owner, example in enumerate(sentences):
        mine = [u for u in units if u.owner == owner]
        assert [w for u in mine for w in u.words or []] == list(range(len(example.words)))
        labels = [int(n) for u in mine if u.labels is not None for n in u.labels if n != IGNORED]
        assert tuple(labels) == example.labels
        for unit in mine:
            assert unit.words
            assert unit.longest <= tokens
            part = list(example.words[unit.words[0] : unit.words[-1] + 1])
            expected = theirs(part, is_split_into_words=True)["input_ids"]
            assert unit.rows[0].tolist() == expected[:tokens]
            assert unit.cut == (len(expected) > tokens)


def test_a_word_longer_than_an_input_keeps_its_label(whole: Inputs) -> None:
    example = TaggedExample("", ("ab", "x" * 300, "c"), (0, 1, 0))
    with of_length(whole, 16) as inputs:
        units = inputs.units(task("tagging"), [example])
    assert [w for u in units for w in u.words or []] == [0, 1, 2]
    assert [u.cut for u in units].count(True) == 1


# --- plain text ---


@pytest.mark.parametrize("tokens", [16, 64])
def test_plain_text_is_read_in_pieces_that_lose_no_token(
    whole: Inputs, theirs: Any, texts: list[str], tokens: int
) -> None:
    with of_length(whole, tokens) as inputs:
        units = inputs.units(task("mlm"), [TextExample("", t) for t in texts])
    for owner, text in enumerate(texts):
        pieces = [u.rows[0].tolist() for u in units if u.owner == owner]
        assert all(p[0] == theirs.bos_token_id and p[-1] == theirs.eos_token_id for p in pieces)
        assert [i for p in pieces for i in p[1:-1]] == theirs(text, add_special_tokens=False)["input_ids"]
        assert max(map(len, pieces)) <= tokens


# --- tokenizers and padding ---


def test_special_tokens_are_known_whether_or_not_they_were_added(whole: Inputs, theirs: Any, tiny: Resolved) -> None:
    assert whole.special_ids == sorted(theirs.all_special_ids)
    assert (whole.pad_id, whole.mask_id) == (theirs.pad_token_id, theirs.mask_token_id)
    plain = Inputs(tiny.path / "tokenizer.json", tiny.spec)  # made without added tokens
    assert {0, 1, 2, 4} <= set(plain.special_ids)


def test_the_length_is_the_encoders_at_most(tiny: Resolved) -> None:
    file = tiny.path / "tokenizer.json"
    lengths = [Inputs(file, tiny.spec, max_length=n).max_length for n in (None, 16, 64, 999)]
    assert lengths == [64, 16, 64, 64]


def test_a_file_that_is_no_tokenizer_is_named(tiny: Resolved, tmp_path: Path) -> None:
    with pytest.raises(XtError, match="There is no tokenizer"):
        Inputs(tmp_path / "tokenizer.json", tiny.spec)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(XtError, match="is not a readable tokenizer"):
        Inputs(tmp_path / "tokenizer.json", tiny.spec)


def ids(*values: int) -> Any:
    return np.array(values, np.int32)


def test_units_are_padded_to_the_longest_row() -> None:
    units = [Unit([ids(0, 5, 2)], [ids(0, 0, 1)], (1,)), Unit([ids(0, 2)], [ids(0, 0)], (0,))]
    arrays = collate("pair", units, pad_id=9)
    assert arrays["input_ids"].tolist() == [[0, 5, 2], [0, 2, 9]]
    assert arrays["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert arrays["token_type_ids"].tolist() == [[0, 0, 1], [0, 0, 0]]
    assert arrays["labels"].tolist() == [1, 0]
    assert "token_type_ids" not in collate("pair", units, pad_id=9, segments=False)
    assert "token_type_ids" not in collate("pair", units[1:], pad_id=9)


def test_targets_by_format() -> None:
    def unit(count: int, *targets: float, labels: Any = None) -> Unit:
        return Unit([ids(0, 2)] * count, [ids(0, 0)] * count, targets, labels=labels)

    choices = collate("choice", [unit(2, 1), unit(3, 0)], pad_id=1)
    assert choices["choices"].tolist() == [[0, 1, -1], [2, 3, 4]]
    assert choices["labels"].tolist() == [1, 0]
    assert collate("qa", [unit(1, 3, 4)], pad_id=1)["labels"].tolist() == [[3, 4]]
    assert collate("regression", [unit(1, 3.5)], pad_id=1)["labels"].tolist() == [3.5]
    assert collate("contrastive", [unit(2), unit(3)], pad_id=1)["parts"].tolist() == [0, 1, 0, 1, 2]
    assert collate("image-text", [unit(1, 5)], pad_id=1)["owners"].tolist() == [5]
    for form in ("tagging", "mlm"):
        units = [unit(1, labels=ids(-100, 3)), unit(1, labels=ids(4))]
        assert collate(form, units, pad_id=1)["labels"].tolist() == [[-100, 3], [4, -100]]
