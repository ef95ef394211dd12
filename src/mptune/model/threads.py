"""How many threads compute, and how they wait for one another: for programs, before they import torch."""

import math
import os
from pathlib import Path

# Turns of waiting before a thread sleeps (GNU OpenMP). Its own default keeps a core for milliseconds at every barrier,
# while the thread that is waited for has none: beside one busy process a step takes over three times as long
# (benchmarks/neighbour.py). More turns give that away on some processors, fewer cost time on others that are quiet.
SPINS = "3000"
CGROUP = Path("/sys/fs/cgroup")


def wait_briefly() -> None:
    """Let threads that wait give their core away soon; a user's own way of waiting stands."""
    if os.environ.get("OMP_WAIT_POLICY") is None:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def use_granted_cores() -> None:
    """Take as many threads as a container's limit lets run; a user's own number stands.

    OpenMP counts the cores that the process may run on, and knows nothing of a limit on their time. Threads beyond it
    wait for others that the limit has stopped.
    """
    cores, granted = os.cpu_count() or 1, granted_cores()
    if granted < cores:
        os.environ.setdefault("OMP_NUM_THREADS", str(granted))


def granted_cores(cgroup: Path = CGROUP) -> int:
    """Return on how many cores this process may compute: by affinity, and by its container's limit, rounded up.

    Libraries that know this take a quarter of a second to import, which every command would wait for.

    Args:
        cgroup: where Linux shows a container's limits, of version 2 or 1.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for places in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((cgroup / place).read_text() for place in places).split()
            limit = int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):  # there is none, or it is "max"
            continue
        if limit > 0:  # -1: none
            cores = min(cores, math.ceil(limit))
    return cores
