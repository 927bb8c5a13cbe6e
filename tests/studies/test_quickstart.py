"""`xt quickstart` on the tiny encoder and four languages of the bundled corpus: answered, measured, continued.

Tests `cli/quickstart.py`, `studies/quickstart/answer.py`, `studies/quickstart/plan.py`, `studies/quickstart/run.py`,
`studies/quickstart/settings.py`, `studies/quickstart/steps.py` and `studies/quickstart/words.py` as well; of
`studies/quickstart/full.py` what it refuses.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from xt.calibration.search import SOURCES, is_source
from xt.cli.main import app
from xt.core.data.corpus import Corpus, load_corpus
from xt.core.errors import XtError
from xt.core.files.artifact import open_artifact
from xt.core.languages import resource_of
from xt.core.reporter import Reporter
from xt.core.results.folder import read_report
from xt.studies.quickstart import full
from xt.studies.quickstart import run as quickstart
from xt.studies.quickstart.answer import ANSWERS, DOCUMENTS
from xt.studies.quickstart.plan import LANGUAGES
from xt.studies.quickstart.settings import DIRECTION, TASKS, Settings
from xt.studies.quickstart.steps import kept
from xt.studies.quickstart.words import closing


@pytest.fixture(scope="module")
def corpus():
    """Six languages of the bundled corpus: three that temperatures are fitted on, three others."""
    whole = load_corpus("django")
    wanted = [b for b in whole.pairs if is_source(b.language)][:3]
    others = [b for b in whole.pairs if not is_source(b.language)][:3]
    return Corpus(whole.name, whole.title, whole.source, whole.licence, (*wanted, *others))


@pytest.fixture(scope="module")
def ran(tiny_folder, corpus, tmp_path_factory):
    """One run: its folder, its lines and its result; and a second run of the same."""
    out = tmp_path_factory.mktemp("quickstart") / "out"
    runs = []
    for question, began in (("guten morgen welt", None), ("habari za asubuhi", time.monotonic() - 1000)):
        lines, answers = [], []
        # random weights of width 32 are no test of 8 bits
        settings = Settings(out, ask=question, steps=1, encoder=str(tiny_folder), precision="fp32", languages=5)
        result = quickstart.run(
            settings, reporter=Reporter(lines.append), answered=answers.append, started=began, bundled=corpus
        )
        runs.append((lines, answers, result))
    return out, *runs


@pytest.mark.parametrize("flags", [[], ["--full"]])
def test_it_says_first_what_it_will_do_and_how_long_that_takes(tmp_path, flags):
    """Before the folder is looked at, and without the seconds that importing torch takes."""
    (tmp_path / "report").write_text("a file in the way")
    done = CliRunner().invoke(app, ["quickstart", *flags, "--out", str(tmp_path)])
    output = done.output
    assert isinstance(done.exception, XtError)
    assert "report is a file" in str(done.exception)
    assert " minutes " in output
    assert "two" in output
    code = "import sys, xt.studies.quickstart.plan; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert ("4. measure" in output) is (not flags)


def test_the_question_is_answered_from_the_english_sentences_with_probabilities_that_sum_to_one(ran, corpus):
    out, (_, answers, result), _ = ran
    (answer,) = answers
    assert answer == result.answer
    assert answer.question == "guten morgen welt"
    english = {t for b in corpus.pairs for t in b.english}
    assert len(answer.hits) == ANSWERS
    assert all(hit.text in english for hit in answer.hits)
    chances = [hit.probability for hit in answer.hits]
    assert chances == sorted(chances, reverse=True)
    assert 0 < sum(chances) + answer.none <= 1.0001
    assert 0 < answer.seconds < 600
    retriever = open_artifact(out / "repository" / "retriever", kind="model")
    assert retriever.facts["calibrated"]["scope"] == "zero-shot"
    assert set(retriever.facts["calibrated"]["provenance"]["fitted_on"]) <= set(SOURCES)


def test_every_step_is_timed_and_the_report_holds_one_encoder_with_intervals(ran):
    out, (lines, _, result), _ = ran
    assert list(result.steps) == ["export", "index", "answer", "train", "evaluate"]
    assert all(any(line.startswith(f"{name}: ") and line.endswith(" s") for line in lines) for name in result.steps)
    report = read_report(out / "report")
    (encoder,) = report.encoders
    assert encoder.parity.passed is True
    assert len(encoder.retrieval[DIRECTION].languages) == 5
    overall = encoder.calibration[DIRECTION].methods["zero-shot"].overall
    assert overall.ece >= 0
    assert [t.task for t in report.training.tasks] == list(TASKS)
    assert not report.serving  # the short version measures no speed
    assert "<h1" in (out / "report" / "report.html").read_text(encoding="utf-8")


def test_a_second_run_does_no_step_again_but_answers_another_question(ran):
    _, (_, _, first), (lines, answers, second) = ran
    assert sum("kept" in line for line in lines) >= 4
    assert answers[0].question == "habari za asubuhi"
    assert 1000 < answers[0].seconds < 2000, "counted from the start of the command"
    assert second.report.created == first.report.created
    assert "evaluate" not in second.steps


def test_it_ends_with_three_sentences_the_page_and_the_next_command(ran):
    out, (_, _, result), _ = ran
    lines = closing(result.report, result.page)
    assert len(lines) == 5
    assert all(line.endswith(".") for line in lines[:3])
    assert lines[3] == f"The page: {out / 'report' / 'report.html'}"
    assert f"xt serve {out / 'repository'}" in lines[4]


def test_an_export_of_another_encoder_or_a_damaged_folder_is_not_kept(ran, tmp_path):
    out, _, _ = ran
    copy = tmp_path / "encoder"
    shutil.copytree(out / "models" / "encoder", copy)
    parents = [p["hash"] for p in open_artifact(copy).manifest["parents"]]
    assert kept(copy, "model", parents) is not None
    assert kept(copy, "model", ["another"]) is None
    assert kept(copy, "model", parents, force=True) is None
    (copy / "1" / "golden.json").write_text("{}")
    assert kept(copy, "model", parents) is None


def test_a_file_that_this_command_did_not_write_is_not_replaced(ran, tmp_path):
    (tmp_path / DOCUMENTS).write_text("mine\n")
    with pytest.raises(XtError, match=r"documents\.jsonl holds something else"):
        quickstart.run(Settings(out=tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == [DOCUMENTS]
    assert (tmp_path / DOCUMENTS).read_text() == "mine\n"
    other = tmp_path / "other" / "report"
    other.mkdir(parents=True)
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(XtError, match=r"thesis\.txt"):
        quickstart.run(Settings(out=other.parent))
    assert [p.name for p in other.parent.iterdir()] == ["report"]


@pytest.mark.parametrize("place", ["report", "full/trained", "full/repository/base", "full/repository/trained"])
def test_the_long_version_replaces_no_folder_that_xt_did_not_write(tmp_path, place):
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "thesis.txt").write_text("mine")
    lines: list[str] = []
    with pytest.raises(XtError, match=r"thesis\.txt"):
        full.run(full.Settings(tmp_path), reporter=Reporter(lines.append))
    assert lines == []
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / place / "thesis.txt"]
    with pytest.raises(XtError, match="seconds 0.5"):
        full.Settings(tmp_path, seconds=0.5)


def test_half_of_the_bundled_languages_are_measured_those_of_the_fits_among_them():
    every = load_corpus("django")
    some = quickstart.measured(every, LANGUAGES)
    codes = [b.language for b in some.pairs]
    assert len(codes) == len(set(codes)) == LANGUAGES < len(every.pairs)
    present = {b.language for b in every.pairs}
    assert {c for c in SOURCES if c in present} <= set(codes)
    classes = {resource_of(c) for c in codes}
    assert classes == {resource_of(c) for c in present}


def test_an_empty_question_and_wrong_flags_are_refused_before_any_work(tmp_path):
    with pytest.raises(XtError, match="the question is empty"):
        Settings(out=tmp_path, ask=" ")
    with pytest.raises(XtError, match="0 training steps"):
        Settings(out=tmp_path, steps=0)
    for flags, said in ((["--full", "--ask", "x"], "--ask"), (["--seconds", "3"], "--seconds goes with --full")):
        done = CliRunner().invoke(app, ["quickstart", *flags, "--out", str(tmp_path / "q")])
        assert done.exit_code == 2
        assert said in done.output
    assert not (tmp_path / "q").exists()
