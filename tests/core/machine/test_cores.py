"""How many threads numerical libraries take: CPU limits of containers, pinned processes, and how threads wait."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from xt.core.machine.cores import cpu_limit, prepare_threads, usable_cores

HERE = len(os.sched_getaffinity(0))
V2, V1 = "0::{}\n", "12:cpuset:/\n4:cpu,cpuacct:{}\n1:name=systemd:/x\n0::/x\n"


def made(root, groups, files):
    """A /proc and /sys of control groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        (V2.format("/"), {"cpu.max": "150000 100000\n"}, 1.5),
        (V2.format("/"), {"cpu.max": "max 100000\n"}, None),
        (V2.format("/"), {"cpu.max": "50000\n"}, 0.5),
        (V2.format("/a/b"), {"cpu.max": "800000 100000", "a/cpu.max": "300000 100000", "a/b/cpu.max": "max"}, 3.0),
        (V2.format("/a/b"), {"a/cpu.max": "300000 100000", "a/b/cpu.max": "25000 50000"}, 0.5),
        (V2.format("/docker/of-the-host"), {"cpu.max": "200000 100000"}, 2.0),  # the path is not there
        (V2.format("/../../outside"), {"cpu.max": "200000 100000"}, 2.0),
        (V1.format("/"), {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 2.5),
        (V1.format("/"), {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        (V1.format("/k/p"), {"cpu,cpuacct/k/p/cpu.cfs_quota_us": "7", "cpu,cpuacct/k/p/cpu.cfs_period_us": "2"}, 3.5),
        (V1.format("/host"), {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1.0),
        (V2.format("/"), {"cpu.max": "garbage here"}, None),
        (V2.format("/"), {"cpu.max": ""}, None),
        (V2.format("/"), {"cpu.max": "1000 0"}, None),
        (V2.format("/"), {}, None),
        ("", {}, None),
    ],
)
def test_the_tightest_limit_of_the_groups_counts(tmp_path, groups, files, limit):
    root = made(tmp_path, groups, files)
    assert cpu_limit(root) == limit
    expected = HERE if limit is None else min(HERE, {0.5: 1, 1.0: 1, 1.5: 2, 2.0: 2, 2.5: 3, 3.0: 3, 3.5: 4}[limit])
    assert usable_cores(root) == expected


def test_without_control_groups_the_cores_it_may_run_on_count(tmp_path):
    assert cpu_limit(tmp_path) is None
    assert usable_cores(tmp_path) == HERE


def test_a_pinned_process_counts_its_one_core():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from xt.core.machine.cores import usable_cores; print(usable_cores())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "1"


def test_a_limit_below_the_cores_is_told_to_openmp_and_what_the_user_set_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    root = made(tmp_path, V2.format("/"), {"cpu.max": "250000 100000"})
    found = {}
    prepare_threads(found, root)
    assert found == {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "OMP_NUM_THREADS": "3"}
    own = {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "5", "KMP_BLOCKTIME": "7"}
    kept = dict(own)
    prepare_threads(kept, root)
    assert kept == own


def test_without_a_limit_the_number_of_threads_is_left_to_the_libraries(tmp_path):
    found = {}
    prepare_threads(found, tmp_path)
    assert "OMP_NUM_THREADS" not in found


def test_the_command_line_sets_them_before_torch_is_loaded():
    """The variables are read when OpenMP's library is loaded; torch then says how many threads it took."""
    code = (
        "import os, sys, xt.core.machine.cores as cores; cores.cpu_limit = lambda root=None: 1.0\n"
        "from xt.cli import main; sys.argv = ['xt', '--version']\n"
        "try: main.run()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules\n"
        "print(os.environ['OMP_WAIT_POLICY'])\n"
        "import torch; print(torch.get_num_threads())"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "KMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120, env=env
    )
    assert done.stdout.split()[-2:] == ["PASSIVE", "1"]
