"""A tiny real encoder, made offline: BERT with 2 layers of width 32 and a word tokenizer of the sample texts."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.command import Command
from xt.core.data import tasks
from xt.core.data.examples import PairExample, ReadLog
from xt.core.data.source_rows import examples
from xt.core.data.sources import locate
from xt.core.encoder.resolve import from_folder, write_sentence_transformers
from xt.core.encoder.spec import EncoderSpec
from xt.core.files.artifact import sha256
from xt.core.heads.inputs import Inputs
from xt.train import prepare
from xt.train.config import TrainConfig
from xt.train.data import TaskData, load, task_requests

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SAMPLES = tuple(name for name in tasks.names("intermediate") if tasks.get(name).sample)
MAX_LENGTH = 64


def words() -> list[str]:
    """Every word of the sample files, in a fixed order."""
    texts = [tasks.get(name).path.read_text(encoding="utf-8") for name in SAMPLES]
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str(" ".join(texts).lower())
    return sorted({word for word, _ in split})


def make_tokenizer(folder: Path, special: Sequence[str] = SPECIAL) -> None:
    """Write the tokenizer's files."""
    vocabulary = {word: i for i, word in enumerate([*special, *words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(special))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    if "[MASK]" in special:
        names["mask_token"] = "[MASK]"
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names)
    fast.save_pretrained(folder)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Run PyTorch on one thread: on a busy machine, threads waiting for each other slow tiny networks a hundredfold."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep prepared data out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "preparations", lambda: folder / "prepared")
        yield folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny encoder: a sentence-transformers folder with a query prefix."""
    folder = tmp_path_factory.mktemp("encoders") / "tiny"
    folder.mkdir()
    make_tokenizer(folder)
    torch.manual_seed(7)
    config = transformers.BertConfig(
        vocab_size=len(SPECIAL) + len(words()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    prefixes = {"query": "query: ", "passage": "passage: "}
    spec = EncoderSpec("tiny", 32, prefixes=prefixes, default_prefix="query", max_length=128)
    write_sentence_transformers(folder, spec)
    return folder


@dataclass(frozen=True)
class Files:
    """A user's own data, one of each format that the samples lack."""

    tagging: Path
    regression: Path
    text: Path
    images: Path

    @property
    def all(self) -> dict[str, Any]:
        """The settings that train on all formats at once."""
        own = (f"tagging:{self.tagging}", f"regression:{self.regression}")
        return {
            "intermediate": ("sample-nli", "sample-choice", "sample-qa", *own),
            "mlm": (str(self.text),),
            "contrastive": ("sample-nli",),
            "image_text": (str(self.images),),
        }


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Data made of the texts of the sample pairs."""
    folder = tmp_path_factory.mktemp("files")
    task = tasks.get("sample-nli")
    found = [e for e in examples(locate(task, "train"), ReadLog()) if isinstance(e, PairExample)][:48]
    rows: dict[str, list[dict[str, Any]]] = {"tags": [], "scores": []}
    for e in found:
        split = e.first.split()
        rows["tags"].append({"words": split, "labels": ["LONG" if len(w) > 4 else "SHORT" for w in split]})
        rows["scores"].append({"first": e.first, "second": e.second, "score": len(e.second) / 10})
    for name, some in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    text = folder / "plain.txt"
    text.write_text("".join(f"{e.first} {e.second}\n" for e in found), encoding="utf-8")
    images = folder / "pictures"
    images.mkdir()
    np.save(images / "images.npy", np.random.default_rng(3).normal(size=(32, 12)).astype(np.float32))
    lines = [
        {"image": i % 32, "text": e.first if i < 32 else e.second, "language": "eng", "id": f"p{i % 32}"}
        | {"split": "dev" if i % 32 > 27 else "train"}
        for i, e in enumerate(found)
    ]
    (images / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    return Files(folder / "tags.jsonl", folder / "scores.jsonl", text, images)


def load_data(tiny: Path, **settings: Any) -> list[TaskData]:
    """Read the data of some settings as a training does: 32 training and 8 dev examples of each task."""
    given = {"limit": 32, "dev_limit": 8, "max_length": MAX_LENGTH, **settings}
    config = TrainConfig(encoder=str(tiny), out=Path("unused"), **given)
    resolved = from_folder(tiny)
    inputs = Inputs(tiny / "tokenizer.json", resolved.spec, max_length=config.max_length)
    tokenizer = sha256(tiny / "tokenizer.json")
    return [load(config, w, inputs, tokenizer, lambda line: None) for w in task_requests(config, target=False)]


@pytest.fixture(scope="session")
def small_data(tiny: Path) -> list[TaskData]:
    """The sample tasks with 32 training and 8 dev examples each."""
    return load_data(tiny, intermediate=SAMPLES)


@pytest.fixture(scope="session")
def all_data(tiny: Path, files: Files) -> dict[str, TaskData]:
    """A task of each format, by format."""
    return {d.task.format: d for d in load_data(tiny, **files.all)}


@pytest.fixture
def steps_seen() -> tuple[list[tuple[int, int, dict[str, Any]]], Any]:
    """A list, and a progress function that fills it."""
    seen: list[tuple[int, int, dict[str, Any]]] = []
    return seen, lambda step, total, facts: seen.append((step, total, dict(facts)))


def means(losses: Sequence[dict[str, Any]], task: str) -> tuple[float, float]:
    """Mean loss of the first and the last quarter of a task's steps."""
    values = [row["loss"] for row in losses if row["task"] == task]
    part = max(1, len(values) // 4)
    return sum(values[:part]) / part, sum(values[-part:]) / part


def command(cache: Path, *arguments: object, **more: str) -> Command:
    """Start `xt` with one thread and its own cache."""
    return Command(*arguments, OMP_NUM_THREADS="1", XT_CACHE=str(cache), TOKENIZERS_PARALLELISM="false", **more)


def xt(cache: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run such a command to its end."""
    running = command(cache, *arguments)
    out, err = running.communicate()
    return subprocess.CompletedProcess(running.args, running.wait(), out, err)
