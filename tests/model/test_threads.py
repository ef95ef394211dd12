"""As many threads as may run, and none that keeps a core while it waits."""

import os
import subprocess
import sys

import pytest

from mptune.model import threads
from mptune.model.threads import granted_cores, use_granted_cores, wait_briefly


@pytest.fixture
def eight_cores(monkeypatch):
    """A machine of eight cores, on all of which the process may run."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),  # rounded up: one thread would leave half a core idle
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "1600000 100000\n"}, 8),
        ({"cpu.max": ""}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n"}, 8),
        ({}, 8),
    ],
)
def test_a_containers_limit_is_what_is_granted(files, cores, eight_cores, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert granted_cores(tmp_path) == cores


def test_where_the_process_may_run_is_what_is_granted(eight_cores, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 4, 5}, raising=False)
    assert granted_cores(tmp_path) == 3
    (tmp_path / "cpu.max").write_text("200000 100000")
    assert granted_cores(tmp_path) == 2


def test_a_users_own_number_and_way_of_waiting_stand(monkeypatch):
    monkeypatch.setattr(threads, "granted_cores", lambda: 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    use_granted_cores()
    wait_briefly()
    assert (os.environ["OMP_NUM_THREADS"], os.environ["GOMP_SPINCOUNT"]) == ("5", "7")
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    wait_briefly()
    assert "GOMP_SPINCOUNT" not in os.environ


WORK = """
import os
from mptune.model.threads import use_granted_cores, wait_briefly
import mptune.model.threads as threads
threads.granted_cores = lambda: 1
os.cpu_count = lambda: 8
use_granted_cores()
wait_briefly()
import torch
print(torch.get_num_threads(), os.environ["GOMP_SPINCOUNT"])
"""


def test_torch_takes_what_was_granted():
    said = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT")}
    done = subprocess.run([sys.executable, "-c", WORK], env=said, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "3000"]


def test_nothing_is_set_where_every_core_is_granted(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "granted_cores", lambda: 8)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    use_granted_cores()
    assert "OMP_NUM_THREADS" not in os.environ
