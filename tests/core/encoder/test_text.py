"""Text is tokenised, batched, padded and put back in order without changing a vector.

Tests `core/encoder/onnx_engine.py` and `core/encoder/torch_engine.py` as well.
"""

from __future__ import annotations

import random
import unicodedata

import numpy as np
import pytest
from tokenizers import Tokenizer, processors

from xt.core.encoder import torch_engine
from xt.core.encoder.buckets import Buckets, bucket, micro_batches
from xt.core.encoder.onnx_engine import load_model
from xt.core.encoder.spec import EncoderSpec
from xt.core.encoder.text import TextEncoder, TextTokenizer, TooLong, check_text, pad
from xt.core.errors import XtError

BOS, PAD, EOS = 0, 1, 2
SIXTY_TWO = " ".join(f"word{i}" for i in range(62))


@pytest.fixture(scope="module")
def encoder(tiny):
    return torch_engine.load_encoder(tiny, device="cpu")


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return TextTokenizer(tiny_folder / "tokenizer.json", 64)


@pytest.fixture(scope="module")
def sentences(corpus):
    """Of many lengths, 3 to 63 tokens, some of them twice."""
    rng = random.Random(0)
    words = [w for b in corpus for s in b.foreign + b.english for w in s.split()]
    rows = [" ".join(rng.choices(words, k=rng.randint(1, 60))) for _ in range(60)]
    return [*rows, *rows[:5]]


def test_micro_batches_hold_every_index_once_within_the_budget():
    rng = random.Random(1)
    for _ in range(300):
        budget = rng.randint(1, 200)
        lengths = [rng.randint(1, rng.choice([5, 50, 300])) for _ in range(rng.randint(0, 60))]
        batches = list(micro_batches(lengths, budget))
        assert sorted(i for b in batches for i in b) == list(range(len(lengths)))
        for batch in batches:
            padded = max(lengths[i] for i in batch) * len(batch)
            assert batch and (padded <= budget or len(batch) == 1), (budget, batch)


def test_micro_batches_are_full():
    assert [len(b) for b in micro_batches([10] * 25, 100)] == [10, 10, 5]


def test_padding_is_on_the_right_and_masked():
    ids, mask = pad([np.array([0, 5, 2]), np.array([0, 2])], 1)
    assert ids.tolist() == [[0, 5, 2], [0, 2, 1]]
    assert mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert ids.dtype == mask.dtype == np.int64


def test_the_forward_pass_never_gets_more_than_the_budget(encoder, sentences, monkeypatch):
    shapes = []
    forward = encoder.engine.forward
    monkeypatch.setattr(encoder.engine, "forward", lambda i, m: shapes.append(i.shape) or forward(i, m))
    encoder.encode(sentences, token_budget=200)
    assert sum(rows for rows, _ in shapes) == len(sentences)
    assert len(shapes) > 5 and all(rows * width <= 200 for rows, width in shapes)


def test_padding_and_batch_mates_do_not_change_vectors(encoder, sentences):
    together = encoder.encode(sentences, token_budget=100_000).vectors
    alone = np.concatenate([encoder.encode([s]).vectors for s in sentences])
    np.testing.assert_allclose(together, alone, atol=2e-6)
    assert np.linalg.norm(together[:-5, None] - together[None, :-5], axis=-1)[np.triu_indices(60, 1)].min() > 1e-3


def test_vectors_come_back_in_the_order_of_the_texts(encoder, sentences):
    expected = encoder.encode(sentences).vectors
    order = random.Random(2).sample(range(len(sentences)), len(sentences))
    found = encoder.encode([sentences[i] for i in order], token_budget=300).vectors
    np.testing.assert_allclose(found, expected[order], atol=2e-6)


def test_the_id_used_for_padding_does_not_matter(encoder, sentences, monkeypatch):
    expected = encoder.encode(sentences).vectors
    monkeypatch.setattr(encoder, "pad_id", 77)
    np.testing.assert_allclose(encoder.encode(sentences).vectors, expected, atol=2e-6)


def test_no_texts_give_no_vectors(encoder):
    out = encoder.encode([])
    assert out.vectors.shape == (0, 32) and out.tokens.shape == out.truncated.shape == (0,)


def test_vectors_are_float32_of_unit_length_and_tokens_are_counted(encoder):
    out = encoder.encode(["paka analala leo", "the cat"])
    assert out.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(out.vectors, axis=1), 1, atol=1e-6)
    assert out.tokens.tolist() == [3 + 3, 2 + 3]  # words, then <s>, query: and </s>
    assert out.truncated.tolist() == [False, False]


def test_a_text_that_is_too_long_is_named_by_its_index(tokenizer):
    with pytest.raises(TooLong, match="text 1 has 65 tokens; the encoder reads at most 64") as refused:
        tokenizer([SIXTY_TWO, SIXTY_TWO + " cat", "cat", SIXTY_TWO + " cat cat"])
    assert "--truncate" in refused.value.hint
    assert isinstance(refused.value, XtError)


def test_the_longest_text_that_fits_is_not_cut(tokenizer):
    ids, cut = tokenizer([SIXTY_TWO], truncate=True)
    assert (len(ids[0]), cut.tolist()) == (64, [False])


def test_truncation_is_flagged_and_keeps_the_last_special_token(tokenizer):
    whole = tokenizer([SIXTY_TWO])[0][0]
    ids, cut = tokenizer(["cat", SIXTY_TWO + " cat sleeps"], truncate=True)
    assert cut.tolist() == [False, True]
    assert ids[0].tolist()[-1] == EOS
    assert ids[1].tolist() == whole.tolist()
    assert (ids[1][0], ids[1][-1], len(ids[1])) == (BOS, EOS, 64)


def test_the_prefix_counts_towards_the_length(encoder):
    with pytest.raises(TooLong, match="text 0 has 65 tokens"):
        encoder.encode([SIXTY_TWO])
    encoder.encode([SIXTY_TWO], prefix="none")
    assert encoder.encode([SIXTY_TWO], truncate=True).truncated.tolist() == [True]


def test_the_default_prefix_is_put_before_the_text(encoder):
    plain = encoder.encode(["query: the cat", "passage: the cat", "the cat"], prefix="none").vectors
    for role, row in ((None, 0), ("query", 0), ("passage", 1), ("none", 2)):
        np.testing.assert_allclose(encoder.encode(["the cat"], prefix=role).vectors[0], plain[row], atol=2e-6)
    assert np.abs(plain[0] - plain[1]).max() > 1e-3 and np.abs(plain[0] - plain[2]).max() > 1e-3


def test_an_unknown_prefix_is_refused_with_the_known_ones(encoder):
    with pytest.raises(XtError, match="Unknown prefix 'quary'. Did you mean query?") as refused:
        encoder.encode(["the cat"], prefix="quary")
    assert refused.value.hint == "Known: none, passage, query."


NO_TEXT = {
    "": "text 1 is empty",
    " \t\n\u3000": "text 1 is empty",
    "\u200b\ufeff": r"text 1 is empty: it holds nothing but .*\(U\+200B, U\+FEFF\)",
    "\ufffd \u200d": r"text 1 is empty: it holds nothing but .*\(U\+FFFD, U\+0020, U\+200D\)",
    "a\0b": "text 1 holds a NUL",
    "a\ud800b": "text 1 is not valid Unicode: surrogates not allowed at 1",
    b"bytes": "text 1 is bytes, expected text",
    None: r"text 1 is missing \(None\), expected text",
    3.5: "text 1 is float, expected text",
}


@pytest.mark.parametrize("bad", NO_TEXT, ids=repr)
def test_what_is_no_text_is_refused_by_its_index(encoder, bad):
    with pytest.raises(XtError, match=NO_TEXT[bad]):
        encoder.encode(["the cat", bad])


@pytest.mark.parametrize("good", ["a", "日本語", "👩‍👩‍👧", "مرحبا", "a\u2028b", "\ufeffa", "a�", "می\u200cخواهم"])
def test_any_other_text_is_accepted(good):
    check_text(good, "here")


def test_a_word_among_others_may_be_a_format_character():
    check_text("\ufe0f", "here", word=True)
    with pytest.raises(XtError, match="here is empty"):
        check_text(" ", "here", word=True)


def test_both_forms_of_unicode_give_the_same_ids_and_bits(encoder):
    composed = ["die katze schläft heute", "wir essen brot und käse"]
    decomposed = [unicodedata.normalize("NFD", text) for text in composed]
    assert decomposed != composed
    ids, _ = encoder.tokenizer(composed)
    unknown = encoder.tokenizer.as_written()(decomposed)[0]
    assert all(3 in row for row in unknown) and not any(3 in row for row in ids)  # <unk>, as they were read before
    one, other = (encoder.encode(texts, prefix="passage") for texts in (composed, decomposed))
    np.testing.assert_array_equal(one.vectors, other.vectors)
    np.testing.assert_array_equal(one.tokens, other.tokens)


@pytest.mark.parametrize(
    ("processor", "first", "last"),
    [
        (None, [], []),
        (processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)]), [0], []),
        (processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)]), [], [2]),
        (
            processors.TemplateProcessing(single="<s> <s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]),
            [0, 0],
            [2],
        ),
        (processors.RobertaProcessing(sep=("</s>", 2), cls=("<s>", 0)), [0], [2]),
        (processors.BertProcessing(sep=("</s>", 2), cls=("<s>", 0)), [0], [2]),
    ],
)
def test_what_stands_around_every_text_is_found(tiny_folder, tmp_path, processor, first, last):
    other = Tokenizer.from_file(str(tiny_folder / "tokenizer.json"))
    other.post_processor = processor
    other.save(str(tmp_path / "tokenizer.json"))
    found = TextTokenizer(tmp_path / "tokenizer.json", 64)
    assert (found.first, found.last) == (first, last)


def test_a_missing_or_broken_tokenizer_is_a_clear_error(tmp_path):
    with pytest.raises(XtError, match="There is no tokenizer"):
        TextTokenizer(tmp_path / "tokenizer.json", 64)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "mod')
    with pytest.raises(XtError, match="is not a readable tokenizer"):
        TextTokenizer(tmp_path / "tokenizer.json", 64)


def test_a_tokenizer_file_that_pads_and_truncates_is_told_not_to(tiny_folder, tmp_path):
    from tokenizers import Tokenizer

    other = Tokenizer.from_file(str(tiny_folder / "tokenizer.json"))
    other.enable_truncation(8)
    other.enable_padding(length=32)
    other.save(str(tmp_path / "tokenizer.json"))
    ids, cut = TextTokenizer(tmp_path / "tokenizer.json", 64)(["the cat", SIXTY_TWO])
    assert [len(r) for r in ids] == [4, 64] and not cut.any()


class Worker:
    """An engine of three workers: a vector is the row's first id and its width; it notes which way was taken."""

    workers = 3
    buckets = Buckets()
    token_budget = 16

    def __init__(self):
        self.ways = []

    def forward(self, ids, mask, way="alone"):
        self.ways.append(way)
        return np.stack([ids[:, 0], np.full(len(ids), ids.shape[1])], axis=1).astype(np.float32)

    def forward_single_thread(self, ids, mask):
        return self.forward(ids, mask, "beside")


@pytest.mark.parametrize(("texts", "way"), [(40, "beside"), (3, "alone")])
def test_many_micro_batches_run_beside_each_other_and_few_one_by_one(tokenizer, texts, way):
    rows = [np.full(1 + i % 9, 100 + i) for i in range(texts)]
    engine = Worker()
    encoder = TextEncoder(EncoderSpec(name="w", dim=2, max_length=64), tokenizer, engine)
    vectors = encoder.encode_ids(rows)
    assert vectors[:, 0].tolist() == [100 + i for i in range(texts)]
    assert vectors[:, 1].tolist() == [bucket(len(row)) for row in rows]
    assert set(engine.ways) == {way}


def test_an_error_of_one_worker_is_raised(tokenizer):
    class Broken(Worker):
        def forward_single_thread(self, ids, mask):
            raise ValueError("a shape that does not fit")

    encoder = TextEncoder(EncoderSpec(name="w", dim=2, max_length=64), tokenizer, Broken())
    with pytest.raises(ValueError, match="does not fit"):
        encoder.encode_ids([np.full(8, 1)] * 40)


def test_alone_and_beside_others_the_real_graph_gives_the_same_bits(tiny_repository, sentences):
    encoder, _ = load_model(tiny_repository / "encoder")
    if encoder.workers == 1:
        pytest.skip("one core, or no OpenVINO: there is one way only")
    ids, _ = encoder.tokenizer(sentences)
    for row in ids[:20]:
        assert encoder.forward([row]).tobytes() == encoder.forward([row], concurrent=True).tobytes()
    together = encoder.encode_ids(ids, 64)
    assert len(list(micro_batches([len(r) for r in ids], 64, encoder.buckets))) >= 2 * encoder.workers
    assert together.tobytes() == np.concatenate([encoder.forward([row]) for row in ids]).tobytes()
