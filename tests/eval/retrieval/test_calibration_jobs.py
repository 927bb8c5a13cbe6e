"""Calibration in tasks: the same numbers by one process as by two, every task told, errors handed on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from tests.calibration import cases
from xt.calibration import conformal, missing, search
from xt.calibration.search import CrossFit
from xt.calibration.summary import summary
from xt.core.errors import XtError
from xt.eval.retrieval import calibration_jobs
from xt.eval.retrieval.calibration_jobs import CalibrationRequest, calibrate_directions
from xt.eval.retrieval.ranking import DIRECTIONS, Ranking
from xt.serve.triton.server_state import process_start

RESOURCES = {"deu": "high", "fra": "high", "swh": "low"}
ENGLISH = {code: [f"sentence {i}" for i in range(150)] for code in RESOURCES}


def ranking(n: int, temperature: float, *, seed: int = 0) -> Ranking:
    one = cases.ranking(n, temperature, seed=seed)
    return Ranking(one.scores, one.group, one.gold, one.fold, one.candidates, np.arange(n))


@pytest.fixture(scope="module")
def both():
    return {
        direction: {code: ranking(150, 0.02, seed=10 * w + i) for i, code in enumerate(RESOURCES)}
        for w, direction in enumerate(DIRECTIONS)
    }


def plain(sides):
    return {
        direction: [
            {m: f.to_json() for m, f in s.kept.items()},
            s.section,
            s.none_of_these,
            s.conformal,
            [m.scored["swh"].confidence.tolist() for m in s.methods],
        ]
        for direction, s in sides.items()
    }


def test_two_processes_give_what_one_gives_and_tell_every_task(both, monkeypatch):
    monkeypatch.setattr(calibration_jobs, "LARGE", 0)
    told = {1: [], 2: []}
    found = {
        jobs: calibrate_directions(
            both, ENGLISH, RESOURCES, CalibrationRequest(0.01, shots=(16,)), jobs=jobs,
            calibrating=lambda *row, jobs=jobs: told[jobs].append(row),
        )
        for jobs in (1, 2)
    }  # fmt: skip
    assert json.dumps(plain(found[1])) == json.dumps(plain(found[2]))
    for rows in told.values():
        assert [done for done, _, _ in rows] == list(range(1, len(rows) + 1))
        assert rows[-1][:2] == (30, 30)  # of both ways: fits, no answer, sets, shots and eleven methods


def test_each_direction_is_what_its_parts_give(both):
    found = calibrate_directions(both, ENGLISH, RESOURCES, CalibrationRequest(0.01))[DIRECTIONS[1]]
    read = {
        direction: {c: r.predictions(c, ENGLISH[c]) for c, r in rankings.items()}
        for direction, rankings in both.items()
    }
    rankings = read[DIRECTIONS[1]]
    with threadpool_limits(1):  # sums in another order differ in the last bit
        made = search.calibrate(rankings, 0.01)
        fits = CrossFit(rankings)
        absent, kept = missing.measure(rankings, ["deu", "fra"], predicted=fits.predicted)
        assert found.kept == {**made.kept, "none-of-these": kept} and found.none_of_these == absent
        assert found.section["methods"] == summary(made.methods, RESOURCES)
        assert found.conformal == conformal.measure(rankings, ["deu", "fra"], predicted=fits.predicted)


def test_an_error_in_another_process_is_the_same_error(both, monkeypatch):
    monkeypatch.setattr(calibration_jobs, "LARGE", 0)
    with pytest.raises(XtError, match="Unknown scope 'swahili'") as error:
        calibrate_directions(both, ENGLISH, RESOURCES, CalibrationRequest(0.01, calibrate_on="swahili"), jobs=2)
    assert "Known:" in error.value.hint


def test_a_killed_process_is_told_and_no_task_is_waited_for_in_vain():
    for further in (0, 5):
        with (
            pytest.raises(XtError, match="A process that calibrates was killed"),
            calibration_jobs._process_group(2) as group,
        ):
            group.add(("way", calibration_jobs.FITS), partial(os._exit, 9))  # long tasks go to the other process first
            for i in range(further):
                group.add(("way", str(i)), partial(time.sleep, 0.1))
            list(group.results())


def test_an_error_here_leaves_what_waits_undone_and_prints_nothing(caplog):
    with pytest.raises(ZeroDivisionError), calibration_jobs._process_group(2) as group:
        group.add(("way", calibration_jobs.FITS), partial(time.sleep, 1))
        group.add(("way", "none of these"), partial(divmod, 1, 0))
        for i in range(5):
            group.add(("way", str(i)), partial(time.sleep, 60))
        list(group.results())
    assert not caplog.records


def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing, time\n"
        "from functools import partial\n"
        "from xt.eval.retrieval import calibration_jobs\n"
        "if __name__ == '__main__':\n"
        "    with calibration_jobs._process_group(2) as group:\n"
        "        group.add(('way', calibration_jobs.FITS), partial(time.sleep, 600))\n"
        "        group._hand_out()\n"
        "        while not (children := multiprocessing.active_children()):\n"
        "            time.sleep(0.05)\n"
        "        time.sleep(2)\n"
        "        print(children[0].pid, flush=True)\n"
        "        list(group.results())\n"
    )
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert process_start(child) is not None
        parent.kill()
    deadline = time.monotonic() + 30
    while process_start(child) is not None:
        assert time.monotonic() < deadline, "it goes on without its parent"
        time.sleep(0.1)


def test_one_direction_alone_and_a_corpus_too_small_have_no_less_than_they_can(both):
    one = {direction: {"swh": r["swh"]} for direction, r in list(both.items())[:1]}
    few = {direction: {"swh": ranking(12, 0.02)} for direction in one}
    found = calibrate_directions(one, {"swh": ENGLISH["swh"]}, RESOURCES, CalibrationRequest())
    assert "pooled" in found[DIRECTIONS[0]].kept
    small = calibrate_directions(few, {"swh": ENGLISH["swh"][:12]}, RESOURCES, CalibrationRequest())[DIRECTIONS[0]]
    assert [m.key for m in small.methods] == ["cosine"] and small.kept == {} and small.conformal == {}
    assert np.isfinite(small.section["methods"]["cosine"]["overall"]["ece"])
