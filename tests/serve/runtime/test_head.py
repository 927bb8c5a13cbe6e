"""What a caller of a served head is promised: the answers it gives in process, his own errors, and no one else's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc

from xt.core.data.bitext import Bitext
from xt.core.data.tasks import Task
from xt.core.encoder import resolve
from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, new_artifact, read_manifest
from xt.core.heads.onnx_heads import HeadModel, load_head
from xt.serve.triton.launcher import TritonServer

WORDS = "good morning world the cat sleeps today we eat bread and cheese house is very big".split()
LABELS = {"pair": ("zebra", "apple", "mango"), "single": ("d", "a", "c", "b", "e"), "tagging": ("O", "I-X", "B-X", "A")}
FORMATS = ("pair", "single", "regression", "choice", "tagging", "qa")
TWO = ("pair", "regression", "choice", "qa")


def task(format: str) -> Task:
    no_answer = format == "qa"
    return Task(format, "intermediate", format, "", LABELS.get(format, ()), "", "accuracy", "", "", no_answer=no_answer)


@pytest.fixture(scope="module")
def repository(tiny_folder: Path, corpus: list[Bitext], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny encoder with a random head of each format, exported at temperature 2."""
    import torch

    from xt.core.encoder.torch_engine import load_network
    from xt.core.heads.network import HEADS_FILE, MultiTaskModel, save_heads
    from xt.export.heads.head import HeadExport, export_head

    folder = tmp_path_factory.mktemp("heads") / "tiny"
    shutil.copytree(tiny_folder, folder)
    resolved = resolve.resolve(str(folder))
    torch.manual_seed(3)
    rows = [task(f) for f in FORMATS]
    model = MultiTaskModel(load_network(folder), resolved.spec, rows)
    for name, weight in model.heads.named_parameters():
        if name.endswith("weight"):
            torch.nn.init.normal_(weight, std=0.5)
    save_heads(folder / HEADS_FILE, model, rows)
    target = tmp_path_factory.mktemp("exported")
    for form in FORMATS:
        options = HeadExport("fp32", temperature=None if form == "regression" else 2.0)
        export_head(resolved, target, task=form, corpus=corpus, name=form, options=options, report=str)
    return target


@pytest.fixture(scope="module")
def models(repository: Path) -> dict[str, HeadModel]:
    return {form: load_head(repository / form)[0] for form in FORMATS}


@pytest.fixture(scope="module")
def client(repository: Path) -> Iterator[Any]:
    """A client of the real Triton, which serves them all."""
    with TritonServer(repository) as server:
        raw = grpc.InferenceServerClient(server.url)
        yield raw
        raw.close()


def ask(client: Any, model: str, texts: Sequence[bytes], pairs: Sequence[bytes] | None = None, **options: Any) -> Any:
    """One request of raw bytes."""
    inputs = []
    for name, values in (("text", texts), ("text_pair", pairs)):
        if values is not None:
            data = np.array([[value] for value in values], dtype=np.object_)
            inputs.append(grpc.InferInput(name, list(data.shape), "BYTES"))
            inputs[-1].set_data_from_numpy(data)
    return client.infer(model, inputs, client_timeout=60, **options)


def text(rng: np.random.Generator, longest: int) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(1, longest + 1)))


def some(format: str, count: int, seed: int = 0) -> tuple[list[Any], list[bytes], list[bytes] | None]:
    """Random inputs: as they are given in process, and as bytes."""
    rng = np.random.default_rng(seed)
    first = [text(rng, 25) for _ in range(count)]
    if format == "single":
        return first, [t.encode() for t in first], None
    if format == "tagging":
        long = [" ".join([t] * 4) for t in first]
        return [t.split() for t in long], [t.encode() for t in long], None
    if format == "choice":
        choices = [[text(rng, 9) for _ in range(2 + n % 3)] for n in range(count)]
        return (
            list(zip(first, choices, strict=True)),
            [t.encode() for t in first],
            [json.dumps(c).encode() for c in choices],
        )
    second = [text(rng, 25) * (3 if format == "qa" else 1) for _ in range(count)]
    return list(zip(first, second, strict=True)), [t.encode() for t in first], [t.encode() for t in second]


def answers(found: Any) -> list[dict[str, Any]]:
    return [json.loads(row[0]) for row in found.as_numpy("answer")]


def assert_same(one: Any, other: Any) -> None:
    """Equal but for the last digits of numbers."""
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == (pytest.approx(other, abs=1e-5) if isinstance(one, float) else other)


@pytest.mark.parametrize("format", FORMATS)
def test_a_served_head_says_what_it_says_in_process(client: Any, models: dict[str, HeadModel], format: str) -> None:
    items, texts, pairs = some(format, 24)
    found = ask(client, format, texts, pairs)
    expected = models[format].predict(items)
    assert_same(answers(found), [reply.answer for reply in expected])
    assert found.as_numpy("tokens").ravel().tolist() == [reply.tokens for reply in expected]
    assert not found.as_numpy("truncated").any()
    if format in LABELS and format != "tagging":
        assert [label.decode() for label in found.as_numpy("label").ravel()] == [r.label for r in expected]
        assert len({r.label for r in expected}) > 1
        probabilities, logits = found.as_numpy("probabilities"), found.as_numpy("logits")
        odds = np.exp(logits.astype(float) / 2.0)
        np.testing.assert_allclose(probabilities, odds / odds.sum(1, keepdims=True), atol=1e-5)
        for row, label in zip(probabilities, found.as_numpy("label").ravel(), strict=True):
            assert LABELS[format][int(row.argmax())] == label.decode()
    if format == "regression":
        np.testing.assert_allclose(found.as_numpy("score").ravel(), [r.value for r in expected], atol=1e-5)


def test_the_server_tells_of_labels_and_temperature(client: Any) -> None:
    config = client.get_model_config("pair", as_json=True)["config"]
    facts = json.loads(config["parameters"]["xt"]["string_value"])
    assert tuple(facts["task"]["labels"]) == LABELS["pair"]
    assert (facts["temperature"], facts["serves"], facts["precision"]) == (2.0, "classifier", "fp32")
    shapes = {output["name"]: output["dims"] for output in config["output"]}
    assert shapes["probabilities"] == shapes["logits"] == ["3"]
    assert [x["name"] for x in client.get_model_config("single", as_json=True)["config"]["input"]] == ["text"]
    names = [x["name"] for x in client.get_model_config("qa", as_json=True)["config"]["output"]]
    assert names == ["answer", "tokens", "truncated"]


def test_bad_requests_get_their_error_and_the_others_their_answers(client: Any, models: dict[str, HeadModel]) -> None:
    """Many at once, which the server batches together."""
    items, texts, pairs = some("pair", 20, seed=5)
    assert pairs is not None
    expected = [reply.answer for reply in models["pair"].predict(items)]
    long = b"bread " * 80
    bad: list[tuple[list[bytes], list[bytes], dict[str, Any], str]] = [
        ([b"good", long], [b"a", b"b"], {}, "text 1 or text_pair 1 is too long: the model reads at most 64 tokens"),
        ([b"good"], [b"\xff\xfe"], {}, "text_pair 0 is not valid UTF-8"),
        ([b"good", b"fine"], [b"a", b" "], {}, "text_pair 1 is empty"),
        ([b"a\0b"], [b"good"], {}, "text 0 holds a NUL character"),
        ([b"good"], [b"a"], {"truncate": "no"}, "truncate is 'no', expected true or false"),
        ([b"good"], [b"a"], {"prefix": "query"}, "Unknown parameter 'prefix'"),
        ([b"good"] * 257, [b"a"] * 257, {}, "batch-size must be <= 256"),
    ]

    def good(index: int) -> dict[str, Any]:
        return answers(ask(client, "pair", [texts[index]], [pairs[index]]))[0]

    def wrong(index: int) -> tuple[str, str]:
        first, second, parameters, _ = bad[index % len(bad)]
        with pytest.raises(grpc.InferenceServerException) as error:
            ask(client, "pair", first, second, parameters=parameters)
        return error.value.status(), error.value.message()

    with ThreadPoolExecutor(16) as pool:
        errors = [pool.submit(wrong, i) for i in range(56)]
        right = [pool.submit(good, i % 20) for i in range(60)]
        for i, answer in enumerate(right):
            assert_same(answer.result(), expected[i % 20])
        for i, error in enumerate(errors):
            status, message = error.result()
            assert status == "StatusCode.INVALID_ARGUMENT"
            assert bad[i % len(bad)][3] in message


@pytest.mark.parametrize(
    ("format", "first", "second", "message"),
    [
        ("choice", b"good", b"bread, cheese", "text_pair 0 is no JSON list of texts"),
        ("choice", b"good", b'["bread"]', "text_pair 0 holds fewer than two choices"),
        ("choice", b"good", b'["bread", ""]', "text_pair 0, choice 1 is empty"),
        ("tagging", b'["good", " "]', None, "text 0, word 1 is empty"),
        ("tagging", b" ", None, "text 0 holds no words"),
        ("qa", b"good", b"", "text_pair 0 is empty"),
        ("single", b"", None, "text 0 is empty"),
        ("qa", b"good", None, "expected 2 inputs"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(
    client: Any, format: str, first: bytes, second: bytes | None, message: str
) -> None:
    with pytest.raises(grpc.InferenceServerException) as error:
        ask(client, format, [first], None if second is None else [second])
    assert error.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert message in error.value.message()


def test_truncation_that_was_asked_for_is_flagged(client: Any) -> None:
    found = ask(client, "single", [b"good", b"bread " * 80], parameters={"truncate": True})
    assert found.as_numpy("truncated").ravel().tolist() == [False, True]
    assert found.as_numpy("tokens").ravel().tolist() == [4, 64]


def test_a_long_context_is_read_in_windows_beside_short_ones(client: Any, models: dict[str, HeadModel]) -> None:
    rng = np.random.default_rng(3)
    contexts = [" ".join(rng.choice(WORDS, n)) for n in (400, 3, 90, 1)]
    found = answers(ask(client, "qa", [b"we eat"] * 4, [c.encode() for c in contexts]))
    assert_same(found, [reply.answer for reply in models["qa"].predict([("we eat", c) for c in contexts])])


def spoil(source: Path, target: Path, change: Any) -> None:
    """Copy an exported model, change it, and write a manifest that fits."""
    manifest = read_manifest(source)
    with new_artifact(target, kind="model") as draft:
        shutil.copytree(source, draft.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        change(draft.path)
        draft.facts = manifest["facts"]


def test_a_model_that_answers_otherwise_than_at_export_is_not_served(repository: Path, tmp_path: Path) -> None:
    def other(folder: Path) -> None:
        file = folder / "1" / "golden.json"
        golden = json.loads(file.read_text())
        golden["numbers"][2][0] += 0.1
        file.write_text(json.dumps(golden))

    spoil(repository / "single", tmp_path / "single", other)
    with pytest.raises(XtError, match="gives other probabilities than at export"), TritonServer(tmp_path):
        pass


def test_a_damaged_graph_is_not_served(repository: Path, tmp_path: Path) -> None:
    def damage(folder: Path) -> None:
        (folder / "1" / "model.onnx").write_bytes(b"no graph at all")

    spoil(repository / "single", tmp_path / "single", damage)
    with pytest.raises(XtError, match="ONNX Runtime cannot load"), TritonServer(tmp_path):
        pass
