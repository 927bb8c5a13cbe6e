"""An exported head answers as PyTorch does, for every format; its probabilities are those of the temperature.

Tests `core/heads/decode.py` as well.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xt.core.data.bitext import Bitext
from xt.core.data.examples import (
    ChoiceExample,
    Example,
    PairExample,
    QaExample,
    ScoredExample,
    SingleExample,
    TaggedExample,
)
from xt.core.data.tasks import Task
from xt.core.encoder import resolve
from xt.core.encoder.text import TooLong
from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, new_artifact, read_manifest
from xt.core.heads.decode import LONGEST_ANSWER, Span, answer_chances, find_answers
from xt.core.heads.inputs import Inputs, Unit
from xt.core.heads.onnx_heads import ROWS_AN_INPUT, HeadModel, check_golden, load_head

WORDS = "good morning world the cat sleeps today we eat bread and cheese house is very big".split()
LABELS = {"pair": ("zebra", "apple", "mango"), "single": ("d", "a", "c", "b", "e"), "tagging": ("O", "I-X", "B-X", "A")}
FORMATS = ("pair", "single", "regression", "choice", "tagging", "qa")


def task(format: str) -> Task:
    no_answer = format == "qa"
    return Task(format, "intermediate", format, "", LABELS.get(format, ()), "", "accuracy", "", "", no_answer=no_answer)


@pytest.fixture(scope="module")
def checkpoint(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> resolve.Resolved:
    """The tiny encoder with a head of each format, random and wide enough to tell things apart."""
    import torch

    from xt.core.encoder.torch_engine import load_network
    from xt.core.heads.network import HEADS_FILE, MultiTaskModel, save_heads

    folder = tmp_path_factory.mktemp("heads") / "tiny"
    shutil.copytree(tiny_folder, folder)
    torch.manual_seed(3)
    rows = [task(f) for f in FORMATS]
    model = MultiTaskModel(load_network(folder), resolve.resolve(str(folder)).spec, rows)
    for name, weight in model.heads.named_parameters():
        if name.endswith("weight"):
            torch.nn.init.normal_(weight, std=0.5)
    regression: Any = model.heads["regression"]
    regression.fit_scale(3.0, 2.0)
    save_heads(folder / HEADS_FILE, model, rows)
    return resolve.resolve(str(folder))


@pytest.fixture(scope="module")
def repository(checkpoint: resolve.Resolved, corpus: list[Bitext], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All heads, exported in fp32; `cold` is the one of `single` at another temperature."""
    from xt.export.heads.head import HeadExport, export_head

    folder = tmp_path_factory.mktemp("exported")
    for form in FORMATS:
        options = HeadExport("fp32")
        export_head(checkpoint, folder, task=form, corpus=corpus, name=form, options=options, report=lambda line: None)
    cold = HeadExport("fp32", temperature=2.5)
    export_head(checkpoint, folder, task="single", corpus=corpus, name="cold", options=cold, report=lambda line: None)
    return folder


@pytest.fixture(scope="module")
def models(repository: Path) -> dict[str, HeadModel]:
    return {p.name: load_head(p)[0] for p in repository.iterdir() if p.is_dir()}


def text(rng: np.random.Generator, longest: int) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(1, longest + 1)))


def some(format: str, count: int = 30) -> tuple[list[Any], list[Example]]:
    """Random inputs of very different lengths, some longer than the encoder reads, and the same as examples."""
    rng = np.random.default_rng(4)
    items: list[Any] = []
    examples: list[Example] = []
    for n in range(count):
        a, b, id = text(rng, 50), text(rng, 50), str(n)
        if format == "pair":
            items.append((a, b))
            examples.append(PairExample(id, a, b, 0))
        elif format == "single":
            items.append(a)
            examples.append(SingleExample(id, a, 0))
        elif format == "regression":
            items.append((a, b))
            examples.append(ScoredExample(id, a, b, 0.0))
        elif format == "choice":
            choices = [text(rng, 9) for _ in range(2 + n % 4)]
            items.append((a, choices))
            examples.append(ChoiceExample(id, a, tuple(choices), 0))
        elif format == "tagging":
            words = (a + " " + b).split()
            items.append(words)
            examples.append(TaggedExample(id, tuple(words), (0,) * len(words)))
        else:
            question, context = text(rng, 6), f"{a}  {b} {a}"
            items.append((question, context))
            examples.append(QaExample(id, context, question, (), ()))
    return items, examples


# --- against PyTorch ---


@pytest.mark.parametrize("format", FORMATS)
def test_an_exported_head_says_what_pytorch_says(
    models: dict[str, HeadModel], checkpoint: resolve.Resolved, format: str
) -> None:
    from xt.core.encoder.torch_engine import load_network
    from xt.core.heads.network import load_heads
    from xt.core.heads.predict import predict

    torch_model, rows = load_heads(checkpoint.path, load_network(checkpoint.path), checkpoint.spec)
    inputs = Inputs(checkpoint.path / "tokenizer.json", checkpoint.spec)
    items, examples = some(format)
    expected = predict(torch_model, inputs, rows[format], examples)
    found = models[format].predict(items, truncate=True)
    assert len(found) == len(expected) == 30
    assert len({str(reply.value) for reply in found}) > 1
    for reply, said in zip(found, expected, strict=True):
        if format == "regression":
            assert reply.value == pytest.approx(said.value, abs=1e-4)
            assert reply.answer == {"score": reply.value}
            continue
        assert reply.value == said.value
        if format == "qa":
            continue
        assert said.probabilities is not None
        np.testing.assert_allclose(reply.numbers, said.probabilities.ravel(), atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_an_input_alone_is_answered_as_in_any_batch(models: dict[str, HeadModel], format: str) -> None:
    items, _ = some(format)
    together = models[format].predict(items, truncate=True, token_budget=1 << 20)
    small = models[format].predict(items[::-1], truncate=True, token_budget=100)[::-1]
    for item, one, other in zip(items, together, small, strict=True):
        for again in (models[format].predict([item], truncate=True)[0], other):
            np.testing.assert_allclose(again.numbers, one.numbers, atol=1e-5)
            assert (again.tokens, again.truncated) == (one.tokens, one.truncated)


# --- what is said ---


def test_labels_keep_the_order_they_were_trained_in(models: dict[str, HeadModel]) -> None:
    """Labels that are not in alphabetical order."""
    for format in ("pair", "single"):
        for reply in models[format].predict(some(format)[0], truncate=True):
            assert reply.logits is not None
            assert reply.label == LABELS[format][int(reply.logits.argmax())]
            assert tuple(reply.answer["probabilities"]) == LABELS[format]
            assert reply.answer["label"] == max(reply.answer["probabilities"], key=reply.answer["probabilities"].get)


def test_the_temperature_divides_the_logits(models: dict[str, HeadModel]) -> None:
    items, _ = some("single")
    for plain, cold in zip(models["single"].predict(items), models["cold"].predict(items), strict=True):
        assert plain.logits is not None
        np.testing.assert_allclose(plain.logits, cold.logits, atol=1e-5)
        odds = [2.718281828459045 ** (float(x) / 2.5) for x in plain.logits]
        np.testing.assert_allclose(cold.probabilities, [x / sum(odds) for x in odds], atol=1e-5)
        assert cold.label == plain.label
        assert max(cold.answer["probabilities"].values()) < max(plain.answer["probabilities"].values())


def test_a_choice_is_one_of_those_given(models: dict[str, HeadModel]) -> None:
    items, _ = some("choice")
    found = models["choice"].predict(items, truncate=True)
    for (_, choices), reply in zip(items, found, strict=True):
        assert reply.answer["choice"] == choices[reply.answer["position"]] == reply.label
        assert len(reply.answer["probabilities"]) == len(choices)
        assert sum(reply.answer["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert {len(choices) for _, choices in items} == {2, 3, 4, 5}


def test_every_word_has_its_tag_though_the_sentence_is_read_in_parts(models: dict[str, HeadModel]) -> None:
    items, _ = some("tagging")
    assert max(len(words) for words in items) > 62
    for words, reply in zip(items, models["tagging"].predict(items), strict=True):
        assert reply.answer["words"] == words
        assert len(reply.answer["tags"]) == len(reply.answer["probabilities"]) == len(words)
        assert set(reply.answer["tags"]) <= set(LABELS["tagging"])
        assert min(reply.answer["probabilities"]) >= 1 / 4
        assert not reply.truncated


class Shy:
    """A network that likes "no answer" better than the one it wraps does."""

    def __init__(self, network: Any, bonus: float) -> None:
        self.network, self.bonus = network, bonus

    def forward(self, arrays: Any) -> Any:
        logits = self.network.forward(arrays).copy()
        logits[:, :, 0] += self.bonus
        return logits


def test_an_answer_stands_where_it_says(models: dict[str, HeadModel]) -> None:
    items, _ = some("qa", 60)
    plain = models["qa"]
    found = plain.predict(items[:30]) + replace(plain, network=Shy(plain.network, 3.0)).predict(items[30:])
    assert any(reply.answer["start"] is None for reply in found)
    assert sum(reply.answer["start"] is not None for reply in found) > 10
    for (_, context), reply in zip(items, found, strict=True):
        said = reply.answer
        if said["start"] is None:
            assert (said["answer"], said["end"]) == ("", None)
            assert said["probability"] == said["none"]
        else:
            assert context[said["start"] : said["end"]] == said["answer"] != ""
            assert 0 < said["probability"] <= 1 - said["none"] + 1e-6


def chances_by_hand(units: Sequence[Unit], logits: Sequence[Any], none: float, temperature: float) -> tuple[Any, float]:
    """Probabilities of all spans, written out: characters -> probability, and of none."""
    best: dict[tuple[int, int], float] = {}
    for unit, (start, end) in zip(units, logits, strict=True):
        spans = unit.spans or []
        for i, first in enumerate(spans):
            for j in range(i, min(len(spans), i + LONGEST_ANSWER)):
                last = spans[j]
                if first is not None and last is not None:
                    place = (first[0], last[1])
                    best[place] = max(best.get(place, -np.inf), float(start[i]) + float(end[j]))
    odds = {place: np.exp(score / temperature) for place, score in best.items()}
    total = sum(odds.values()) + np.exp(none / temperature)
    return {place: x / total for place, x in odds.items()}, float(np.exp(none / temperature) / total)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_probability_of_an_answer_is_its_share_of_all_spans(
    models: dict[str, HeadModel], temperature: float
) -> None:
    model = models["qa"]
    items, _ = some("qa", 12)
    for allowed in (True, False):
        asked = replace(model.task, no_answer=allowed)
        several = 0
        for item in items:
            read = model.read([item])
            several += len(read.units) > 1
            logits = [x / 4 for x in model.logits(read.rows)]  # flatter, so that no span takes it all
            (span,) = find_answers(asked, read.examples, read.units, logits)
            chance, none = answer_chances(asked, span, read.units, logits, temperature=temperature)
            every, empty = chances_by_hand(read.units, logits, span.none if allowed else -np.inf, temperature)
            assert none == pytest.approx(empty, abs=1e-6)
            assert chance == pytest.approx(empty if span.start < 0 else max(every.values()), abs=1e-6)
            assert sum(every.values()) + empty == pytest.approx(1)
            (said,) = replace(model, task=asked, temperature=temperature).replies(read, logits)
            assert (said.answer["probability"], said.answer["none"]) == (chance, none)
        assert several > 2


def test_a_context_without_tokens_has_no_answer() -> None:
    unit = Unit([np.array([0, 2], np.int32)], [np.zeros(2, np.int32)], spans=[None, None])
    span = Span("", -1, -1, -np.inf, 1.0)
    logits = [np.zeros((2, 2), np.float32)]
    assert answer_chances(task("qa"), span, [unit], logits) == (1.0, 1.0)
    assert answer_chances(replace(task("qa"), no_answer=False), span, [unit], logits) == (0.0, 0.0)


# --- what is refused ---


@pytest.mark.parametrize(
    ("format", "item", "message"),
    [
        ("single", " ", "text 1 is empty"),
        ("single", 5, "text 1 is int"),
        ("pair", ("good", "a\0b"), "text_pair 1 holds a NUL"),
        ("pair", ("good",), "text_pair 1 is missing"),
        ("choice", ("good", ["bread"]), "text_pair 1 holds fewer than two choices"),
        ("choice", ("good", ["bread", ""]), "text_pair 1, choice 1 is empty"),
        ("tagging", [], "text 1 holds no words"),
        ("tagging", ["good", "\ud800"], "text 1, word 1 is not valid Unicode"),
        ("qa", ("good", ""), "text_pair 1 is empty"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(
    models: dict[str, HeadModel], format: str, item: Any, message: str
) -> None:
    good = some(format, 1)[0]
    with pytest.raises(XtError, match=message):
        models[format].predict([*good, item])


@pytest.mark.parametrize("format", ["single", "pair", "choice"])
def test_what_is_too_long_is_refused_unless_it_may_be_cut(models: dict[str, HeadModel], format: str) -> None:
    long = " ".join(["bread"] * 70)
    item: Any = {"single": long, "pair": (long, "good"), "choice": ("good", ["cat", long])}[format]
    good = some(format, 1)[0][0] if format == "choice" else {"single": "cat", "pair": ("a", "b")}[format]
    with pytest.raises(TooLong, match=r"^text 1.* is too long: the model reads at most 64 tokens"):
        models[format].predict([good, item])
    assert [r.truncated for r in models[format].predict([good, item], truncate=True)] == [False, True]


def test_an_input_of_too_many_pieces_is_refused(models: dict[str, HeadModel]) -> None:
    many = ["bread"] * (ROWS_AN_INPUT + 1)
    with pytest.raises(TooLong, match="text_pair 0 is read in more than 256 pieces"):
        models["choice"].predict([("good", many)])
    assert len(models["choice"].predict([("good", many[:-1])])[0].answer["probabilities"]) == ROWS_AN_INPUT


def test_strings_from_the_wire_become_inputs(models: dict[str, HeadModel]) -> None:
    assert models["tagging"].item("the  cat\nsleeps", None, 0) == ["the", "cat", "sleeps"]
    assert models["tagging"].item('["New York", "is"]', None, 0) == ["New York", "is"]
    assert models["tagging"].item("[sic] is", None, 0) == ["[sic]", "is"]
    assert models["choice"].item("good", '["a", "b"]', 0) == ("good", ["a", "b"])
    for wrong in ("a, b", '{"a": 1}', "[1, 2]", "[]"):
        with pytest.raises(XtError, match="text_pair 3 is no JSON list of texts"):
            models["choice"].item("good", wrong, 3)
    with pytest.raises(XtError, match="text_pair 2 is missing"):
        models["pair"].item("good", None, 2)


# --- the folder ---


@pytest.mark.parametrize("format", FORMATS)
def test_golden_answers_hold_and_others_do_not(repository: Path, format: str, tmp_path: Path) -> None:
    model, artifact = load_head(repository / format)
    assert check_golden(model, repository / format, artifact) < 1e-5
    changed = tmp_path / "1" / "golden.json"
    changed.parent.mkdir()
    golden = json.loads((repository / format / "1" / "golden.json").read_text())
    golden["numbers"][-1][0] += 0.01 * golden["scale"]
    changed.write_text(json.dumps(golden))
    with pytest.raises(XtError, match="differ by 0.01"):
        check_golden(model, tmp_path, artifact)
    golden["numbers"][-1][0] = float("nan")
    changed.write_text(json.dumps(golden))
    with pytest.raises(XtError, match="differ by nan"):
        check_golden(model, tmp_path, artifact)


@pytest.mark.parametrize("format", FORMATS)
def test_both_forms_of_unicode_are_answered_alike_and_stand_in_the_golden_inputs(
    models: dict[str, HeadModel], repository: Path, format: str
) -> None:
    def written(item: Any, form: str) -> Any:
        return unicodedata.normalize(form, item) if isinstance(item, str) else [written(part, form) for part in item]

    question, context = "die katze schläft ?", "wir essen brot und käse , die katze schläft heute"
    item: Any = (question, context)
    item = {"single": context, "tagging": context.split(), "choice": (question, [context, "käse"])}.get(format, item)
    composed, decomposed = (models[format].predict([written(item, form)])[0] for form in ("NFC", "NFD"))
    np.testing.assert_array_equal(composed.numbers, decomposed.numbers)
    if format == "qa":
        assert composed.value  # a span: it and its place are of the context as it was given
        assert unicodedata.normalize("NFD", composed.value) == decomposed.value
        start, end = decomposed.answer["start"], decomposed.answer["end"]
        assert unicodedata.normalize("NFD", context)[start:end] == decomposed.value
    golden = json.loads((repository / format / "1" / "golden.json").read_text())
    forms = [golden["inputs"][-1], written(golden["inputs"][-1], "NFC")]
    assert json.dumps(forms[0]) != json.dumps(forms[1])


def test_a_damaged_folder_is_refused(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "single", tmp_path / "single")
    graph = tmp_path / "single" / "1" / "model.onnx"
    raw = bytearray(graph.read_bytes())
    raw[len(raw) // 2] ^= 1
    graph.write_bytes(raw)
    with pytest.raises(XtError, match=r"1/model.onnx: content differs"):
        load_head(tmp_path / "single")


def test_a_graph_that_is_none_is_refused(repository: Path, tmp_path: Path) -> None:
    source = repository / "single"
    manifest = read_manifest(source)
    with new_artifact(tmp_path / "single", kind="model") as draft:
        shutil.copytree(source, draft.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        (draft.path / "1" / "model.onnx").write_bytes(b"no graph")
        draft.facts = manifest["facts"]
    with pytest.raises(XtError, match="ONNX Runtime cannot load"):
        load_head(tmp_path / "single")


def test_an_encoder_without_a_head_is_refused(tiny_repository: Path) -> None:
    with pytest.raises(XtError, match="without a head"):
        load_head(tiny_repository / "encoder")


def test_the_serving_path_loads_neither_torch_nor_transformers(repository: Path) -> None:
    lines = [
        "import sys",
        "from pathlib import Path",
        "from xt.core.heads.onnx_heads import load_head",
        f"model, _ = load_head(Path({str(repository / 'qa')!r}))",
        "assert model.predict([('good', 'the cat sleeps')])[0].tokens > 4",
        "print([m for m in ('torch', 'transformers') if m in sys.modules])",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_rows_of_one_input_stay_in_order(models: dict[str, HeadModel]) -> None:
    """Windows of a context follow each other, whatever order they are run in."""
    read = models["qa"].read([("good", " ".join(f"word{i}" for i in range(200)))])
    starts = [next(span[0] for span in unit.spans or [] if span) for unit in read.units]
    assert len(starts) > 3
    assert all(a < b for a, b in pairwise(starts))
    assert [row.ids.tolist() for row in read.rows] == [unit.rows[0].tolist() for unit in read.units]
