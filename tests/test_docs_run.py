"""Quick commands of README and docs/, run as they stand there, on a tiny encoder and tiny data."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest

from xt.cli.main import run

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
QUICK = (
    "xt check repository",
    "xt tasks --kind target",
    "xt tasks squad-v2 --data-dir data",
    "xt tasks single:intents.csv",
    "xt eval ./my-bitext --encoder repository --calibration reports/tatoeba --out reports/mine",
    "xt eval --compare reports/tatoeba reports/here --out reports/difference",
    "xt index corpus.jsonl --encoder repository/encoder --out indexes/x --install repository --calibration "
    "reports/tatoeba",
    'xt search indexes/x "Wo ist der Bahnhof?"',
    'xt search repository/retriever "Hali ya hewa itakuwaje kesho?" --top-k 3',
)
"""In this order, in one folder."""
WORDS = "guten morgen welt die katze schläft heute wir essen brot und käse das haus ist sehr groß".split()
ENGLISH = "good morning world the cat sleeps today we eat bread and cheese the house is very big".split()


def xt(line: str, folder: Path) -> tuple[int, str]:
    """Run a command line in this process, from a folder; its exit code and what it printed."""
    out, argv, handler, before = io.StringIO(), sys.argv, signal.getsignal(signal.SIGTERM), Path.cwd()
    sys.argv, code = shlex.split(line), 0
    try:
        os.chdir(folder)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            run()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os.chdir(before)
        sys.argv = argv
        signal.signal(signal.SIGTERM, handler)
    return code, out.getvalue()


@pytest.fixture(scope="module")
def folder(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands name: a repository, parallel text, a corpus, labelled texts, two reports."""
    place = tmp_path_factory.mktemp("docs")
    shutil.copytree(tiny_repository, place / "repository")
    (place / "data").mkdir()
    bitext = place / "my-bitext"
    bitext.mkdir()
    pairs = [(i, j) for i in range(len(WORDS)) for j in range(len(WORDS)) if i < j]
    for code in ("deu", "fra"):
        for kind, words in ((code, WORDS), ("eng", ENGLISH)):
            lines = "".join(f"{words[i]} {words[j]} word{i}\n" for i, j in pairs[:60])
            (bitext / f"mine.{code}-eng.{kind}").write_text(lines, encoding="utf-8")
    with (place / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for n, (i, j) in enumerate(pairs):
            file.write(json.dumps({"id": f"d{n}", "text": f"{ENGLISH[i]} {ENGLISH[j]}"}) + "\n")
    rows = [f"{ENGLISH[i]} {ENGLISH[j]},{'ab'[i % 2]}" for i, j in pairs]
    (place / "intents.csv").write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    for name in ("tatoeba", "here"):
        code, said = xt(f"xt eval ./my-bitext --encoder repository --out reports/{name}", place)
        assert code == 0, said
    return place


def test_the_quick_commands_stand_in_the_docs():
    lines = {line.removeprefix("$ ").strip() for page in PAGES for line in page.read_text("utf-8").splitlines()}
    assert [command for command in QUICK if command not in lines] == []


def test_the_quick_commands_run_and_leave_what_they_say(folder):
    for command in QUICK:
        code, said = xt(command, folder)
        assert code == 0, f"{command}\n{said}"
    assert (folder / "reports" / "mine" / "calibration.json").is_file()
    assert (folder / "indexes" / "x" / "xt.json").is_file()
    assert "none of these" in said  # of the last one, the installed retriever
