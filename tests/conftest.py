"""Real, tiny things for the tests: an encoder of two layers, its exported repository, and a Triton that serves it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from xt.core.data.bitext import Bitext
from xt.core.encoder import resolve
from xt.core.encoder.spec import EncoderSpec

os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the network; read when huggingface_hub is first imported
ROOT = Path(__file__).resolve().parent.parent
SENTENCES = {
    "deu": ["guten morgen welt", "die katze schläft heute", "wir essen brot und käse", "das haus ist sehr groß"],
    "fra": ["bonjour tout le monde", "le chat dort encore", "nous mangeons du pain", "la maison est grande"],
    "swh": ["habari za asubuhi", "paka analala leo", "tunakula mkate mzuri", "nyumba ni kubwa sana"],
}
ENGLISH = ["good morning world", "the cat sleeps today", "we eat bread and cheese", "the house is very big"]
LONG = (
    "export/test_parity", "train/test_resume", "cli/test_bad_input", "serve/test_faults", "bench/test_measure", "bench/test_peers",
    "cli/test_commands", "cli/test_eval", "serve/test_security", "serve/gateway/test_bounds", "serve/triton/test_reload",
)  # fmt: skip
"""The longest files: begun first, so that none of them is left to one process at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, the rest in their order."""
    ranks = {ROOT / "tests" / f"{name}.py": rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get(item.path, len(LONG)))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets: XT_DATA, or ../shared/data."""
    folder = Path(os.environ.get("XT_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data are not at {folder}; name their folder by XT_DATA")
    return folder


@pytest.fixture(scope="session")
def bundled() -> resolve.Resolved:
    """The bundled multilingual-e5-small: real weights."""
    return resolve.bundled_encoder(resolve.ENCODERS["multilingual-e5-small"].spec)


@pytest.fixture(scope="session")
def corpus() -> list[Bitext]:
    """Four sentences in three languages."""
    return [Bitext(code, tuple(rows), tuple(ENGLISH)) for code, rows in SENTENCES.items()]


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first of all test processes makes, and the others only read."""
    base = factory.getbasetemp()
    shared = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "once"
    shared.mkdir(exist_ok=True)
    folder = shared / name
    with FileLock(shared / f"{name}.lock"):
        if not folder.exists():
            draft = shared / "draft" / name
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            make(draft)
            draft.rename(folder)
    return folder


def write_tiny(folder: Path) -> None:
    """Write a BERT of two layers, width 32, fixed random weights, as a Hugging Face folder with a word tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    words = sorted({w for rows in [*SENTENCES.values(), ENGLISH] for row in rows for w in row.split()})
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "query:", "passage:"]
    filler = [f"word{i}" for i in range(1200)]
    vocabulary = {token: i for i, token in enumerate([*special, *words, *filler])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    names |= {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
    settings = {**names, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text(json.dumps(names))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=1,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder, safe_serialization=True)
    spec = EncoderSpec(
        name="tiny",
        dim=32,
        prefixes={"query": "query: ", "passage": "passage: "},
        default_prefix="query",
        max_length=64,
        temperature=0.05,
    )
    resolve.write_sentence_transformers(folder, spec)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny encoder's folder: see `write_tiny`."""
    return once(tmp_path_factory, "tiny", write_tiny)


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> resolve.Resolved:
    """The tiny encoder, resolved."""
    return resolve.resolve(str(tiny_folder))


@pytest.fixture(scope="session")
def tiny_repository(tiny: resolve.Resolved, corpus: list[Bitext], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with the tiny encoder as `encoder` (fp32), exported by the real Optimum; a copy of one's own."""

    def export(folder: Path) -> None:
        from xt.export.encoder import EncoderExport, export_model

        export_model(tiny, folder, corpus=corpus, options=EncoderExport(precision="fp32"), report=lambda line: None)

    repository = tmp_path_factory.mktemp("repository")
    return Path(shutil.copytree(once(tmp_path_factory, "repository", export), repository, dirs_exist_ok=True))


@pytest.fixture(scope="session")
def server(tiny_repository: Path) -> Iterator[object]:
    """The real Triton, serving the tiny repository."""
    from xt.serve.triton.launcher import TritonServer

    with TritonServer(tiny_repository) as running:
        yield running


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 256 KiB, where mounting is allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)], capture_output=True)
    if done.returncode:
        pytest.skip("mount is not permitted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
