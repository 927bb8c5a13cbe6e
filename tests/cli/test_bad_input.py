"""What a user gets wrong: the exit code, the message on stderr, nothing on stdout, and never a traceback.

Tests `core/errors.py` as well.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.command import started, xt
from xt.core.data.bitext import Bitext
from xt.serve.triton.addresses import free_ports


def fails(answer: subprocess.CompletedProcess[str], code: int, *fragments: object) -> None:
    """The answer ends with `code`, says all of `fragments` on stderr and nothing on stdout."""
    assert answer.returncode == code, answer.stderr
    assert answer.stdout == ""
    assert "Traceback" not in answer.stderr
    assert "\n  File " not in answer.stderr
    for fragment in fragments:
        assert str(fragment) in answer.stderr
    if code != 2:
        assert answer.stderr.count("Error: ") == 1


def write_bitext(folder: Path, corpus: list[Bitext]) -> Path:
    folder.mkdir(parents=True)
    for b in corpus:
        for side, rows in ((b.language, b.foreign), ("eng", b.english)):
            (folder / f"mine.{b.language}-eng.{side}").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def bitext(tmp_path, corpus):
    return write_bitext(tmp_path / "mine", corpus)


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["eval", "django", "--out", "r"], ["one of --encoder and --url"]),
        (["eval", "django", "--out", "r", "--encoder", "e", "--url", "h:1"], ["one of --encoder and --url"]),
        (["eval", "django", "--encoder", "e"], ["Missing option '--out'"]),
        (["eval", "django", "--out", "r", "--url", "h:1", "--layers", "all"], ["--layers", "not --url"]),
        (["eval", "django", "--out", "r", "--encoder", "e", "--margin", "ratio"], ["--margin is for mining"]),
        (["eval", "--summary", "a", "--encoder", "e", "--out", "r"], ["give no --encoder and no --url"]),
        (["eval", "django", "--encoder", "e", "--benchmark", "xtreme", "--out", "r"], ["--benchmark goes with"]),
        (["eval", "sib200", "--out", "r", "--encoder", "e", "--layers", "1"], ["--layers is for parallel text"]),
        (["eval", "django", "--out", "r", "--encoder", "e", "--layers", "1,x"], ["--layers expects", "'1,x'"]),
        (["eval", "--out", "r"], ["Missing argument 'task'"]),
        (["bench"], ["give --url, --repository, --encoder or --against"]),
        (["bench", "--url", "h:1", "--repository", "r"], ["not both"]),
        (["bench", "--url", "h:1", "--concurrency", "1,x"], ["--concurrency expects numbers", "'1,x'"]),
        (["bench", "--url", "h:1", "--concurrency", "0"], ["--concurrency expects numbers", "'0'"]),
        (["bench", "--url", "h:1", "--concurrency", ""], ["--concurrency expects numbers"]),
        (["bench", "--url", "h:1", "--seconds", "long"], ["'--seconds'", "valid number"]),
        (["serve"], ["Missing argument 'repository'"]),
        (["serve", "r", "--grpc-port", "http"], ["'--grpc-port'", "valid integer"]),
        (["export"], ["Missing argument 'encoder'"]),
        (["train", "--encoder", "e", "--out", "o"], ["name what to train on", "--intermediate"]),
        (["train", "--intermediate", "sample-nli", "--out", "o"], ["name what to train", "--encoder"]),
        (["tasks", "--jsn"], ["No such option", "--json"]),
        (["evaluate"], ["No such command 'evaluate'"]),
    ],
)
def test_wrong_usage_ends_with_2(tmp_path, arguments, fragments):
    fails(xt(*arguments, cwd=tmp_path), 2, "Usage: xt", *fragments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["tasks", "--kind", "targets"], ["Unknown kind 'targets'. Did you mean target?"]),
        (["eval", "tatoba", "--encoder", "x", "--out", "r"], ["Unknown task 'tatoba'. Did you mean tatoeba or "]),
        (["eval", "sample-nli", "--encoder", "x", "--out", "r"], ["Unknown encoder 'x'"]),
        (["eval", "sib200", "--data-dir", "n", "--languages", "xx", "--encoder", "x", "--out", "r"], ["'xx'"]),
        (["eval", "django", "--languages", "deu,xxx", "--encoder", "x", "--out", "r"], ["'xxx'"]),
        (
            ["eval", "django", "--languages", "deu", "--encoder", "multilingual-e5-smal", "--out", "r"],
            ["Unknown encoder 'multilingual-e5-smal'. Did you mean multilingual-e5-small"],
        ),
        (["eval", "./nowhere", "--encoder", "x", "--out", "r"], ["There is no folder ", "nowhere.\nCheck the path."]),
        (["eval", "django", "--languages", "deu", "--encoder", "./nowhere", "--out", "r"], ["no folder ./nowhere"]),
        (
            ["eval", "tatoeba", "--data-dir", "nowhere", "--encoder", "x", "--out", "r"],
            ["There is no folder ", "nowhere"],
        ),
        (["eval", "django", "--url", "localhost", "--out", "r"], ["'localhost' is no address", "HOST:PORT"]),
        (["bench", "--url", "localhost", "--seconds", "0.5"], ["--seconds 0.5 is too short"]),
        (["bench", "--repository", "nowhere"], ["There is no folder ", "nowhere.\nMake one with `xt export`"]),
        (["serve", "nowhere"], ["There is no folder ", "nowhere.\nMake one with `xt export`"]),
        (["check", "nowhere"], ["There is no folder nowhere"]),
        (["export", "./nowhere", "--out", "r"], ["There is no folder ./nowhere"]),
        (["export", "multilingual-e5-smal", "--out", "r"], ["Did you mean multilingual-e5-small"]),
        (["export", "x", "--out", "r", "--parity-corpus", "tatoba"], ["Unknown task 'tatoba'"]),
    ],
)
def test_a_wrong_name_ends_with_1_and_names_the_near_one(tmp_path, arguments, fragments):
    fails(xt(*arguments, cwd=tmp_path), 1, *fragments)
    assert not list(tmp_path.iterdir())


def test_training_on_an_unknown_task_ends_with_1(tmp_path, tiny_folder):
    answer = xt("train", "--encoder", tiny_folder, "--intermediate", "sample-nil", "--out", "o", cwd=tmp_path)
    fails(answer, 1, "Unknown", "'sample-nil'. Did you mean sample-nli")
    assert not list(tmp_path.iterdir())


def test_layers_that_the_encoder_does_not_have_end_with_1_before_any_work(tmp_path, bitext, tiny_folder):
    answer = xt("eval", bitext, "--encoder", tiny_folder, "--layers", "1,99", "--out", "r", cwd=tmp_path)
    fails(answer, 1, "There is no layer 99: this encoder has 2 layers.\nChoose from 0 to 2")
    assert "languages" not in answer.stderr
    assert not (tmp_path / "r").exists()


def test_an_encoder_without_heads_ends_with_1_and_says_how_to_train_them(tmp_path, tiny_folder, tiny_repository):
    answer = xt("eval", "sample-nli", "--encoder", tiny_folder, "--out", "r", cwd=tmp_path)
    fails(answer, 1, "has no trained heads", "xt train")
    answer = xt("eval", "sample-nli", "--encoder", tiny_repository, "--out", "r", cwd=tmp_path)
    fails(answer, 1, "is an exported encoder: it gives vectors and has no heads", "xt train")
    assert not list(tmp_path.iterdir())


def test_layers_of_an_exported_model_are_wrong_usage(tmp_path, bitext, tiny_repository):
    answer = xt("eval", bitext, "--encoder", tiny_repository, "--layers", "all", "--out", "r", cwd=tmp_path)
    fails(answer, 2, "--layers reads a checkpoint in PyTorch, not an exported model")
    assert not (tmp_path / "r").exists()


def test_a_server_that_is_not_there_ends_with_1(tmp_path, bitext):
    (port,) = free_ports(1)
    url = f"127.0.0.1:{port}"
    fails(xt("eval", bitext, "--url", url, "--out", "r", cwd=tmp_path), 1, f"No server answers at {url}", "xt serve")
    assert not (tmp_path / "r").exists()
    fails(xt("bench", "--url", url, "--corpus", bitext, cwd=tmp_path), 1, f"No server answers at {url}")


def test_misaligned_files_end_with_1(tmp_path, bitext):
    file = bitext / "mine.fra-eng.fra"
    file.write_text(file.read_text() + "une ligne de plus\n")
    answer = xt("eval", bitext, "--encoder", "x", "--out", "r", cwd=tmp_path)
    fails(answer, 1, "mine.fra-eng.fra has 5 lines and mine.fra-eng.eng has 4", "not aligned")


def test_an_empty_corpus_ends_with_1(tmp_path, bitext):
    for file in bitext.iterdir():
        file.write_text("")
    answer = xt("eval", bitext, "--encoder", "x", "--out", "r", cwd=tmp_path)
    fails(answer, 1, "mine.deu-eng.deu is empty")


def test_a_folder_without_pairs_ends_with_1(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("no corpus")
    answer = xt("eval", "./mine", "--encoder", "x", "--out", "r", cwd=tmp_path)
    fails(answer, 1, "mine holds no line-aligned files with English", "corpus.deu-eng.deu")


def test_a_blank_line_ends_with_1(tmp_path, bitext):
    (bitext / "mine.swh-eng.swh").write_text("habari\n\nnyumba\npaka\n")
    fails(xt("eval", bitext, "--encoder", "x", "--out", "r", cwd=tmp_path), 1, "mine.swh-eng.swh, line 2 is empty")


def test_bytes_that_are_not_utf_8_end_with_1_and_are_named(tmp_path, bitext):
    (bitext / "mine.deu-eng.deu").write_bytes("a\nb\ngrün\nd\n".encode("latin-1"))
    answer = xt("eval", bitext, "--encoder", "x", "--out", "r", cwd=tmp_path)
    fails(answer, 1, "mine.deu-eng.deu, line 3: not UTF-8 (byte 2: invalid start byte)", "Convert the file")


def test_an_existing_target_ends_with_1_before_any_work(tmp_path, bitext, tiny_repository, tiny_folder):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "mine.txt").write_text("mine")
    answer = xt("eval", bitext, "--encoder", tiny_repository, "--out", "r", cwd=tmp_path)
    fails(answer, 1, "r exists already", "--force would not replace it", "mine.txt")
    answer = xt("export", tiny_folder, "--out", tiny_repository, cwd=tmp_path)
    fails(answer, 1, "encoder is complete already", "--force")
    assert [p.name for p in (tmp_path / "r").iterdir()] == ["mine.txt"]


@pytest.fixture
def damaged(tmp_path, tiny_repository):
    repository = Path(shutil.copytree(tiny_repository, tmp_path / "repository"))
    file = repository / "encoder" / "1" / "tokenizer.json"
    file.write_text(file.read_text().replace("morning", "mourning"))
    return repository


def test_a_damaged_model_ends_with_1_wherever_it_is_used(tmp_path, bitext, damaged):
    reason = "1/tokenizer.json: "
    fails(xt("serve", damaged, cwd=tmp_path), 1, "is damaged", reason)
    fails(xt("bench", "--repository", damaged, "--corpus", bitext, cwd=tmp_path), 1, "is damaged", reason)
    for folder in (damaged, damaged / "encoder"):
        answer = xt("eval", bitext, "--encoder", folder, "--out", "r", cwd=tmp_path)
        fails(answer, 1, "is damaged", reason)


def test_check_of_a_damaged_folder_ends_with_3(tmp_path, damaged):
    for folder in (damaged, damaged / "encoder"):
        fails(xt("check", folder, cwd=tmp_path), 3, "Damaged: ", "1/tokenizer.json: ")


def test_a_folder_without_a_manifest_ends_with_1(tmp_path, bitext, damaged):
    (damaged / "encoder" / "xt.json").unlink()
    fails(xt("check", damaged / "encoder", cwd=tmp_path), 1, "has no xt.json", "config.pbtxt", "make it again")
    fails(xt("serve", damaged, cwd=tmp_path), 1, "has no xt.json")
    fails(xt("eval", bitext, "--encoder", bitext, "--out", "r", cwd=tmp_path), 1, "is no encoder folder")


def test_a_manifest_that_is_not_json_ends_with_1(tmp_path, damaged):
    (damaged / "encoder" / "xt.json").write_text("{")
    fails(xt("check", damaged, cwd=tmp_path), 1, "xt.json is not readable as JSON")


def test_a_damaged_checkpoint_ends_with_1(tmp_path, bitext, tiny_folder):
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "checkpoint"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    answer = xt("eval", bitext, "--encoder", folder, "--out", "r", cwd=tmp_path)
    fails(answer, 1, folder)
    assert not [p for p in tmp_path.rglob("*") if p.name in ("xt.json", "report.html", "model.onnx")]


def test_a_repository_of_several_models_asks_which(tmp_path, bitext, tiny_repository):
    repository = Path(shutil.copytree(tiny_repository, tmp_path / "repository"))
    shutil.copytree(repository / "encoder", repository / "other")
    answer = xt("eval", bitext, "--encoder", repository, "--out", "r", cwd=tmp_path)
    fails(answer, 1, "holds encoder, other", "--model")
    answer = xt("eval", bitext, "--encoder", repository, "--model", "othr", "--out", "r", cwd=tmp_path)
    fails(answer, 1, "Unknown model 'othr'. Did you mean other?")


def test_an_occupied_port_ends_with_1_and_names_the_option(tmp_path, tiny_repository):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        http, metrics = free_ports(2)
        ports = ["--http-port", http, "--grpc-port", taken, "--metrics-port", metrics]
        answer = xt("serve", tiny_repository, *ports, cwd=tmp_path)
    fails(answer, 1, f"Port {taken} on 127.0.0.1 cannot be used", "--grpc-port")
    fails(xt("serve", tiny_repository, "--http-port", 70000, cwd=tmp_path), 1, "--http-port 70000 is no port")


def test_a_text_that_is_too_long_names_truncate_and_truncate_helps(tmp_path, bitext, tiny_repository):
    file = bitext / "mine.deu-eng.deu"
    lines = file.read_text().splitlines()
    lines[2] = " ".join(["brot"] * 90)
    file.write_text("\n".join(lines) + "\n")
    answer = xt("eval", bitext, "--encoder", tiny_repository, "--out", "r", cwd=tmp_path)
    fails(answer, 1, "93 tokens; the encoder reads at most 64", "--truncate")
    assert not (tmp_path / "r").exists()


MISSING = """\
import sys
from importlib.machinery import PathFinder


class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in NAMES else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""


def without(folder: Path, *names: str) -> dict[str, str]:
    """The environment of an interpreter in which some packages are not installed."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"NAMES = {names!r}\n{MISSING}")
    return {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize(("module", "purpose"), [("faiss", "Vector search"), ("onnxruntime", "Running an ONNX graph")])
def test_a_missing_extra_is_named_with_its_install_command(tmp_path, bitext, tiny_repository, module, purpose):
    env = without(tmp_path / "site", module)
    answer = started("eval", bitext, "--encoder", tiny_repository, "--out", "r", cwd=tmp_path, **env)
    fails(answer, 1, f"{purpose} needs the Python package '{module}'", "pip install 'xt-retriever[cpu]'")
    assert not (tmp_path / "r").exists()


def test_export_without_onnx_runtime_says_so_before_it_starts(tmp_path, bitext, tiny_folder):
    env = without(tmp_path / "site", "onnxruntime")
    answer = started("export", tiny_folder, "--out", "r", "--parity-corpus", bitext, cwd=tmp_path, **env)
    fails(answer, 1, "Export needs the Python package 'onnxruntime'", "pip install 'xt-retriever[cpu]'")
    assert not (tmp_path / "r").exists()
