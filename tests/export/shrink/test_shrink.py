"""Smaller encoders: fewer layers, the vocabulary of some languages, shorter vectors; and the same vectors as before.

Tests `export/shrink/settings.py` and `export/shrink/vocabulary.py` as well.
"""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModel, AutoTokenizer

from xt.core.data.bitext import Bitext, read_tatoeba
from xt.core.encoder import resolve as encoders
from xt.core.encoder.resolve import Resolved, from_folder, resolve
from xt.core.encoder.text import Pieces, open_tokenizer
from xt.core.encoder.torch_engine import load_encoder
from xt.core.errors import XtError
from xt.export.shrink import vocabulary
from xt.export.shrink.shrink import check, corpus_texts, shrink

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
SCRIPTS = ["добрый день всем", "кошка спит сегодня", "καλημέρα κόσμε", "η γάτα κοιμάται"]
KINDS = ("Unigram", "BPE", "ByteBPE", "WordPiece", "WordLevel")


def make_tokenizer(kind: str, texts: list[str]) -> Tokenizer:
    """A small tokenizer of a kind, trained on `texts`, with special tokens around a text and one added behind."""
    word = pre_tokenizers.WhitespaceSplit()
    trainer: Any
    if kind == "Unigram":
        tokenizer = Tokenizer(models.Unigram())
        word, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=220, special_tokens=SPECIAL, unk_token="<unk>")
    elif kind == "WordPiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
        trainer = trainers.WordPieceTrainer(vocab_size=260, special_tokens=SPECIAL)
    elif kind == "WordLevel":
        tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
        trainer = trainers.WordLevelTrainer(special_tokens=SPECIAL)
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        alphabet = []
        if kind == "ByteBPE":
            word, alphabet = pre_tokenizers.ByteLevel(), pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.pre_tokenizer = word
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.train_from_iterator(texts * 3, trainer)
    tokenizer.add_special_tokens(["<mask>"])  # behind the model's own pieces
    if kind == "BPE":  # one of each way to write the ids of the special tokens
        tokenizer.post_processor = processors.RobertaProcessing(sep=("</s>", 2), cls=("<s>", 0), add_prefix_space=False)
    elif kind == "WordPiece":
        tokenizer.post_processor = processors.BertProcessing(sep=("</s>", 2), cls=("<s>", 0))
    else:
        mask = tokenizer.token_to_id("<mask>")
        template = processors.TemplateProcessing(
            single="<s> $A </s> <mask>", special_tokens=[("<s>", 0), ("</s>", 2), ("<mask>", mask)]
        )
        tokenizer.post_processor = processors.Sequence([template]) if kind == "ByteBPE" else template
    return tokenizer


@pytest.fixture(scope="session")
def all_texts(corpus: list[Bitext]) -> list[str]:
    """The tiny corpus in all its languages, and two more scripts."""
    return [text for b in corpus for text in (*b.foreign, *b.english)] + SCRIPTS


@pytest.fixture(scope="session", params=KINDS)
def some(
    request: pytest.FixtureRequest, all_texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Resolved]:
    """A tiny encoder with a tokenizer of every kind; XLM-R's network, whose positions depend on the padding's id."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel

    folder = tmp_path_factory.mktemp("some") / request.param
    folder.mkdir()
    tokenizer = make_tokenizer(request.param, all_texts)
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>")
    tokenizer.save(str(folder / "tokenizer.json"))
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    decoder = {"1": {"content": "<pad>", "special": True, "lstrip": False, "rstrip": False, "normalized": False}}
    mask = str(tokenizer.token_to_id("<mask>"))
    decoder[mask] = {**decoder["1"], "content": "<mask>"}
    settings = {**names, "tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": decoder}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size() + 3,  # as published encoders, with rows that no token has
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=66,
        initializer_range=0.5,
    )
    XLMRobertaModel(config).save_pretrained(folder, safe_serialization=True)
    prefixes = {"query": "the: ", "passage": "nyumba: "}  # a prefix with a word of a language that is not kept
    spec = replace(from_folder(folder).spec, prefixes=prefixes, default_prefix="query")
    encoders.write_sentence_transformers(folder, spec)
    return request.param, resolve(str(folder))


def plain(folder: Path, texts: list[str], layers: int | None = None) -> np.ndarray:
    """Mean vectors of unit length by transformers alone, text by text; behind layer `layers` of a whole network."""
    import torch

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        with torch.no_grad():
            given = tokenizer(text, return_tensors="pt")
            states = model(**given, output_hidden_states=True).hidden_states
        mean = states[-1 if layers is None else layers][0].numpy().astype(np.float64).mean(0)
        rows.append(mean / np.sqrt((mean * mean).sum()))
    return np.array(rows)


def strings(tokenizer: Tokenizer, text: str) -> list[str]:
    return list(tokenizer.encode(text).tokens)


def unknowns(tokenizer: Tokenizer, text: str) -> int:
    """How many tokens stand for something unknown; by id: a Unigram tokenizer shows the text itself."""
    return list(tokenizer.encode(text).ids).count(tokenizer.token_to_id("<unk>"))


def test_kept_texts_are_cut_into_the_same_pieces_and_give_the_same_vectors(some, corpus, tmp_path):
    _kind, resolved = some
    texts = corpus_texts(corpus)
    small, report = shrink(resolved, tmp_path / "small", languages=["de", "eng"], corpus=texts)
    before, after = (open_tokenizer(r.path / "tokenizer.json").tokenizer for r in (resolved, small))
    kept = [text for language, text in texts if language in ("deu", "eng")]
    assert len(kept) == 8
    behind = [prefix + text for prefix in ("", *resolved.spec.prefixes.values()) for text in kept]
    assert [strings(after, t) for t in behind] == [strings(before, t) for t in behind]
    assert ((plain(small.path, behind) * plain(resolved.path, behind)).sum(1) > 0.99999).all()
    told = report["vocabulary"]
    assert (told["languages"], told["changed"]) == (["deu", "eng"], 0)
    assert {row["lost"] for row in told["corpus"].values()} == {0.0}
    assert told["cosine_min"] > 0.99999


def test_all_numbers_of_tokens_fit_each_other(some, corpus, tmp_path):
    _kind, resolved = some
    small, report = shrink(resolved, tmp_path / "small", languages=["deu"], corpus=corpus_texts(corpus))
    document = json.loads((small.path / "tokenizer.json").read_text())
    config = json.loads((small.path / "config.json").read_text())
    settings = json.loads((small.path / "tokenizer_config.json").read_text())
    tokenizer = Tokenizer.from_file(str(small.path / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    assert report["vocabulary"]["after"]["pieces"] == size == config["vocab_size"]
    assert size < report["vocabulary"]["before"]["pieces"]
    assert sorted(tokenizer.get_vocab().values()) == list(range(size))
    assert [tokenizer.token_to_id(t) for t in SPECIAL] == [0, 1, 2, 3]
    assert (config["pad_token_id"], config["bos_token_id"], config["eos_token_id"]) == (1, 0, 2)
    assert document["padding"]["pad_id"] == 1
    mask = tokenizer.token_to_id("<mask>")
    assert mask == size - 1
    assert {k: v["content"] for k, v in settings["added_tokens_decoder"].items()} == {"1": "<pad>", str(mask): "<mask>"}
    assert {t["content"]: t["id"] for t in document["added_tokens"]}["<mask>"] == mask
    weights = AutoModel.from_pretrained(small.path).get_input_embeddings().weight
    whole = AutoModel.from_pretrained(resolved.path).get_input_embeddings().weight
    old = Tokenizer.from_file(str(resolved.path / "tokenizer.json")).get_vocab()
    for piece, number in tokenizer.get_vocab().items():
        np.testing.assert_array_equal(weights[number].detach().numpy(), whole[old[piece]].detach().numpy())


def test_unseen_words_of_a_kept_script_and_digits_have_no_unknown_characters(some, corpus, tmp_path):
    kind, resolved = some
    small, _ = shrink(resolved, tmp_path / "small", languages=["deu"], corpus=corpus_texts(corpus))
    before, after = (open_tokenizer(r.path / "tokenizer.json").tokenizer for r in (resolved, small))
    for text in ("paka habari", "nous bonjour", "maisonpain"):
        if kind != "WordLevel":  # it knows words alone
            assert (unknowns(before, text), unknowns(after, text)) == (0, 0)
    other = "кошка"  # what another script needs is dropped, unless its pieces are bytes
    assert unknowns(before, other) == 0
    assert (unknowns(after, other) == 0) == (kind == "ByteBPE")


def test_what_unlike_text_loses_is_counted(all_texts):
    tokenizer = make_tokenizer("Unigram", all_texts)
    document = json.loads(tokenizer.to_str())
    used = vocabulary.used_ids(Pieces(tokenizer), ["guten morgen welt"], [""])
    pruned = vocabulary.prune(document, used, {"LATIN"})
    after = pruned.open().tokenizer
    texts = ["guten morgen", "paka analala leo", "кошка"]
    row = vocabulary.compare(Pieces(tokenizer), document, pruned, {"x": texts})["x"]
    old = [t for text in texts for t in tokenizer.encode(text, add_special_tokens=False).tokens]
    new = [t for text in texts for t in after.encode(text, add_special_tokens=False).tokens]
    kept = set(after.get_vocab())
    assert row["tokens"] == len(old)
    assert row["lost"] == pytest.approx(sum(t not in kept for t in old) / len(old))
    assert row["longer"] == pytest.approx(len(new) / len(old) - 1)
    ids = [i for text in texts for i in after.encode(text, add_special_tokens=False).ids]
    assert row["unknown"] == pytest.approx(ids.count(after.token_to_id("<unk>")) / len(ids))
    assert row["unknown"] > row["unknown_before"] == 0
    same = [strings(tokenizer, t) == strings(after, t) for t in texts]
    assert row["changed"] == same.count(False) == 2


def test_the_price_of_an_unknown_character_stays(all_texts):
    tokenizer = make_tokenizer("Unigram", all_texts)
    document = json.loads(tokenizer.to_str())
    pruned = vocabulary.prune(document, {4}, set())
    least = min(score for _, score in document["model"]["vocab"])
    assert min(score for _, score in pruned.document["model"]["vocab"]) == least
    assert document == json.loads(tokenizer.to_str())  # what was given is left alone


def test_a_stray_letter_does_not_bring_its_script(all_texts):
    assert vocabulary.scripts(["кошка " * 30 + "α"]) == {"CYRILLIC"}
    assert vocabulary.scripts(["кошка", "alpha"]) == {"CYRILLIC", "LATIN"}


def test_a_tokenizer_that_cannot_be_pruned_is_refused(all_texts):
    document = json.loads(make_tokenizer("BPE", all_texts).to_str())
    document["model"]["end_of_word_suffix"] = "</w>"
    with pytest.raises(XtError, match="cannot be pruned"):
        vocabulary.prune(document, {4}, set())
    document["model"]["type"] = "Sentence"
    with pytest.raises(XtError, match="Unknown kind of tokenizer to prune 'Sentence'"):
        vocabulary.prune(document, {4}, set())
    with pytest.raises(XtError, match="no piece with the id 99999"):
        vocabulary.prune(json.loads(make_tokenizer("Unigram", all_texts).to_str()), {99999}, set())


def test_the_lower_layers_give_what_the_whole_network_gives_there(tiny, corpus, tmp_path):
    small, report = shrink(tiny, tmp_path / "small", layers=1)
    texts = ["query: " + t for t in corpus[0].foreign]
    np.testing.assert_allclose(plain(small.path, texts), plain(tiny.path, texts, layers=1), atol=1e-6)
    sizes = report["layers"]
    weights = {
        p: sum(w.numel() for w in AutoModel.from_pretrained(p).encoder.parameters()) for p in (tiny.path, small.path)
    }
    assert (sizes["before"], sizes["after"]) == (2, 1)
    assert sizes["parameters_before"] - sizes["parameters_after"] == weights[tiny.path] - weights[small.path] > 0
    assert report["size"]["after"]["parameters"] == sizes["parameters_after"]
    assert small.parent == tiny.parent
    assert "its first 1 layers" in small.spec.provenance
    assert (small.path / "tokenizer.json").read_bytes() == (tiny.path / "tokenizer.json").read_bytes()


def test_short_vectors_are_the_first_numbers_of_unit_length(tiny, corpus, tmp_path):
    small, report = shrink(tiny, tmp_path / "small", dims=8)
    texts = list(corpus[0].foreign)
    whole = plain(tiny.path, ["query: " + t for t in texts])[:, :8]
    expected = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    assert (small.spec.dim, small.spec.dims, report["dims"]) == (8, 8, {"before": 32, "after": 8})
    assert from_folder(small.path).spec == small.spec
    np.testing.assert_allclose(load_encoder(small, device="cpu").encode(texts).vectors, expected, atol=1e-6)


def test_sentence_transformers_gives_the_same_short_vectors(tiny, corpus, tmp_path):
    from sentence_transformers import SentenceTransformer

    small, _ = shrink(tiny, tmp_path / "small", dims=8, layers=1, languages=["deu"], corpus=corpus_texts(corpus))
    texts = list(corpus[0].foreign)
    whole = plain(tiny.path, ["query: " + t for t in texts], layers=1)[:, :8]
    expected = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    found = SentenceTransformer(str(small.path), device="cpu").encode(texts, prompt_name="query")
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("asked", [{"layers": 0}, {"layers": 3}, {"dims": 0}, {"dims": 33}])
def test_a_number_out_of_range_is_refused_and_nothing_written(tiny, tmp_path, asked):
    ((_what, number),) = asked.items()
    with pytest.raises(XtError, match=f"no first {number} .*tiny"):
        check(tiny, **asked)
    with pytest.raises(XtError, match=f"no first {number} .*tiny"):
        shrink(tiny, tmp_path / "small", **asked)
    assert list(tmp_path.iterdir()) == []


def test_a_language_that_the_corpus_lacks_is_refused(tiny, corpus, tmp_path):
    with pytest.raises(XtError, match="No data for 'rus'"):
        shrink(tiny, tmp_path / "small", languages=["deu", "rus"], corpus=corpus_texts(corpus))
    with pytest.raises(XtError, match="needs texts"):
        shrink(tiny, tmp_path / "small", languages=["deu"])
    assert list(tmp_path.iterdir()) == []


def test_nothing_asked_gives_the_encoder_itself(tiny, tmp_path):
    assert shrink(tiny, tmp_path / "small") == (tiny, {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(tiny, tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(XtError, match="is not empty"):
        shrink(tiny, tmp_path, layers=1)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_config_that_pads_with_no_token_is_refused(tiny, corpus, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(tiny.path, folder)
    document = json.loads((folder / "tokenizer.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    last = len(document["model"]["vocab"]) - 1
    document["model"]["vocab"] = {piece: i for piece, i in document["model"]["vocab"].items() if i != last}
    (folder / "tokenizer.json").write_text(json.dumps(document))
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": last}))
    with pytest.raises(XtError, match=f"pads with the id {last}"):
        shrink(resolve(str(folder)), tmp_path / "small", languages=["deu"], corpus=corpus_texts(corpus))
    assert not (tmp_path / "small").exists()


def test_the_bundled_encoder_keeps_its_vectors_in_the_languages_that_are_kept(bundled, data_dir, tmp_path):
    texts = corpus_texts(read_tatoeba(data_dir, "deu"))
    assert len(texts) > 1900
    small, report = shrink(bundled, tmp_path / "small", languages=["deu", "eng"], corpus=texts)
    told = report["vocabulary"]
    assert (told["before"]["pieces"], told["changed"]) == (250037, 0)
    assert 5_000 < told["after"]["pieces"] < 10_000
    before, after = ((r.path / "model.safetensors").stat().st_size / 1e6 for r in (bundled, small))
    saved = told["before"]["megabytes"] - told["after"]["megabytes"]
    assert before - after == pytest.approx(saved, rel=0.001)
    assert saved > 370
    some_texts = [text for _, text in texts[::100]]
    vectors = [load_encoder(r, device="cpu").encode(some_texts).vectors for r in (bundled, small)]
    assert ((vectors[0] * vectors[1]).sum(1) > 0.99999).all()
    old, new = (open_tokenizer(r.path / "tokenizer.json").tokenizer for r in (bundled, small))
    assert [strings(old, t) for _, t in texts] == [strings(new, t) for _, t in texts]
    file = data_dir / "sib200" / "deu_Latn" / "test.tsv"
    with file.open(encoding="utf-8") as lines:
        unseen = [row["text"] for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)]
    assert len(unseen) == 204
    assert sum(unknowns(new, t) for t in unseen) == sum(unknowns(old, t) for t in unseen) == 0
