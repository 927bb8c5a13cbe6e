"""A tiny real encoder, made offline: BERT with 2 layers of width 32 and a word tokenizer of the sample texts."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from xt.core import tasks
from xt.core.encoders import write_sentence_transformers
from xt.core.spec import EncoderSpec
from xt.train.loop import read_tasks
from xt.train.trainer import TaskData

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SAMPLES = tuple(tasks.names("intermediate"))


def words() -> list[str]:
    """Every word of the sample files, in a fixed order."""
    texts = [tasks.get(name).path.read_text(encoding="utf-8") for name in SAMPLES]
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str(" ".join(texts).lower())
    return sorted({word for word, _ in split})


def make_tokenizer(folder: Path) -> None:
    """Write the tokenizer's files."""
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names)
    fast.save_pretrained(folder)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Run PyTorch on one thread: on a busy machine, threads waiting for each other slow tiny networks a hundredfold."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


@pytest.fixture(scope="session")
def small_data() -> list[TaskData]:
    """The sample tasks with 32 training and 8 dev examples each."""
    return [TaskData(d.task, d.train[:32], d.dev[:8]) for d in read_tasks(SAMPLES)]


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
