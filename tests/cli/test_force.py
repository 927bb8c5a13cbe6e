"""--force of every command: what xt did not write is never replaced, and the refusal comes before any work."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from tests.cli.test_help import LEAVES
from xt.cli.main import app
from xt.core.errors import XtError
from xt.core.files.artifact import new_artifact

OUT = "out"
COMMANDS = {  # every command with --force, and the folder that it would write
    "bench": (["--encoder", "absent/model", "--out", OUT], OUT),
    "encode": (["corpus.txt", "--encoder", "absent/model", "--out", OUT], OUT),
    "eval": (["tatoeba", "--encoder", "absent/model", "--out", OUT], OUT),
    "eval several": (["tatoeba", "django", "--encoder", "absent/model", "--out", OUT], f"{OUT}/django"),
    "eval --summary": (["absent/report", "--summary", "--out", OUT], OUT),
    "eval --compare": (["absent/a", "absent/b", "--compare", "--out", OUT], OUT),
    "export": (["absent/model", "--out", OUT], f"{OUT}/encoder"),
    "export --task": (["absent/model", "--task", "mine", "--out", OUT], f"{OUT}/classifier"),
    "images emoji": (["--font", "absent.ttf", "--out", OUT], OUT),
    "images encode": (["absent", "--vision", "absent", "--out", OUT], OUT),
    "index": (["corpus.txt", "--encoder", "absent/model", "--out", OUT], OUT),
    "index --install": (
        ["corpus.txt", "--encoder", "absent/model", "--out", "idx", "--install", OUT, "--uncalibrated"],
        f"{OUT}/retriever",
    ),
    "quickstart": (["--out", OUT], f"{OUT}/report"),
    "quickstart --full": (["--full", "--out", OUT], f"{OUT}/full/trained"),
    "study run": (["training-speed", "--out", OUT], OUT),
    "train": (["--encoder", "absent/model", "--intermediate", "sample-nli", "--out", OUT], OUT),
}


def invoke(command: str, words: list[str]) -> str:
    """Run a command in this process: the message and hint of its XtError."""
    name = " ".join(w for w in command.split() if not w.startswith("--")).removesuffix(" several")
    result = CliRunner().invoke(app, [*name.split(), *words])
    assert isinstance(result.exception, XtError), (result.exit_code, result.output, result.exception)
    return str(result.exception)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.txt").write_text("a\nb\n")
    return tmp_path


def test_the_table_holds_every_command_with_force():
    forced = {n for n, leaf in LEAVES.items() if any("--force" in p.opts for p in leaf.params) and n != "reload"}
    assert {" ".join(w for w in c.split() if w[0] != "-").removesuffix(" several") for c in COMMANDS} == forced
    assert typer.main.get_command(app) is not None


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_of_ones_own_survives_force(here, command):
    words, folder = COMMANDS[command]
    (here / folder).mkdir(parents=True)
    (here / folder / "c.txt").write_text("a\nb\n")
    message = invoke(command, [*words, "--force"])
    assert "was not written by xt" in message
    assert "c.txt" in message
    assert (here / folder / "c.txt").read_text() == "a\nb\n"
    assert [p.name for p in (here / folder).iterdir()] == ["c.txt"]
    assert "absent" not in message, "the inputs were read first"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_survives_force(here, command):
    words, folder = COMMANDS[command]
    (here / folder).parent.mkdir(parents=True, exist_ok=True)
    (here / folder).write_text("my thesis")
    assert "is a file" in invoke(command, [*words, "--force"])
    assert (here / folder).read_text() == "my thesis"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_of_another_kind_survives_force(here, command):
    words, folder = COMMANDS[command]
    with new_artifact(here / folder, kind="something else") as draft:
        (draft.path / "c.txt").write_text("a\n")
    assert "is a 'something else' folder" in invoke(command, [*words, "--force"])
    assert (here / folder / "c.txt").read_text() == "a\n"


INPUTS = {
    "encode": ("vectors", ["out/documents-00000.jsonl", "--encoder", "absent/model"]),
    "index": ("index", ["out/documents-00000.jsonl", "--encoder", "absent/model"]),
    "eval": ("report", ["tatoeba", "--encoder", "out"]),
    "eval --summary": ("summary", ["out/documents-00000.jsonl", "--summary"]),
    "eval --compare": ("report", ["out", "absent", "--compare"]),
    "bench": ("bench", ["--encoder", "out", "--corpus", "out/documents-00000.jsonl"]),
    "images encode": ("image-text", ["out", "--vision", "absent"]),
    "train": ("checkpoint", ["--encoder", "out", "--intermediate", "sample-nli"]),
    "train own": ("checkpoint", ["--encoder", "absent", "--intermediate", "single:out/documents-00000.jsonl"]),
    "study run": ("study", ["training-speed", "--encoder", "out"]),
}


@pytest.mark.parametrize("command", INPUTS)
def test_a_folder_that_holds_an_input_survives_force(here, command):
    kind, words = INPUTS[command]
    with new_artifact(here / OUT, kind=kind) as draft:
        (draft.path / "documents-00000.jsonl").write_text('{"id": "1", "text": "a"}\n')
    message = invoke(command.removesuffix(" own"), [*words, "--out", OUT, "--force"])
    assert "what this command reads" in message
    assert (here / OUT / "documents-00000.jsonl").read_text() == '{"id": "1", "text": "a"}\n'


def test_a_model_that_is_the_input_of_its_export_survives_force(here):
    with new_artifact(here / OUT / "encoder", kind="model") as draft:
        (draft.path / "config.json").write_text("{}")
    message = invoke("export", [f"{OUT}/encoder", "--out", OUT, "--force"])
    assert "is what this command reads" in message


def test_an_encoder_is_not_replaced_by_a_retriever(here):
    with new_artifact(here / OUT / "encoder", kind="model") as draft:
        (draft.path / "config.pbtxt").write_text("")
    words = ["corpus.txt", "--out", "idx", "--install", OUT, "--name", "encoder", "--uncalibrated", "--force"]
    assert "serves as encoder; it is not replaced by a retriever" in invoke(
        "index", [*words, "--encoder", f"{OUT}/other"]
    )


@pytest.mark.parametrize(
    ("command", "words", "folder"),
    [
        ("train", ["--encoder", "absent/model", "--intermediate", "sample-nli", "--out", OUT], "out.training"),
        ("encode", ["corpus.txt", "--encoder", "absent/model", "--out", OUT], ".out.shards"),
        ("index", ["corpus.txt", "--encoder", "absent/model", "--out", OUT], "..out.vectors.shards"),
    ],
)
def test_a_folder_with_the_name_of_a_state_folder_survives(here, command, words, folder, monkeypatch):
    (here / folder).mkdir()
    (here / folder / "notes.txt").write_text("mine")
    for name in ("vectors-00000.npy", "run.json") if command != "train" else ("run.txt",):
        (here / folder / name).write_text("mine")
    for more in ([], ["--force"]):
        message = invoke(command, [*words, *more])
        assert "holds what xt did not write" in message
        assert "notes.txt" in message
    assert (here / folder / "notes.txt").read_text() == "mine"


def test_a_study_overwrites_no_file_that_it_did_not_write(here, monkeypatch):
    from xt.studies import transfer

    (here / "results.md").write_text("my results")
    with pytest.raises(XtError, match=r"holds results\.md, which this study did not write"):
        transfer.claim(here)
    assert sorted(p.name for p in here.iterdir()) == ["corpus.txt", "results.md"]
    transfer.claim(here / "new")
    (here / "new" / "results.md").write_text("a table of the study")
    transfer.claim(here / "new")
    (here / "old").mkdir()
    (here / "old" / "summary.json").write_text('{"schema": 1, "runs": []}')
    (here / "old" / "results.md").write_text("a table of an earlier release")
    transfer.claim(here / "old")
