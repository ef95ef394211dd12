"""Memory: what is kept for the next step, what is mapped by itself, what goes back between two runs."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from mptune.model.loading import multiplies_bfloat16

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library is told anything")

# Each way in a process of its own, since an allocator cannot be told to forget.
WORK = """
import contextlib, ctypes, resource, sys
from mptune.model.memory import give_back, keep_pages, large_blocks_apart

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() >> 20

if sys.argv[1] != "as it comes":
    keep_pages()
apart = large_blocks_apart() if sys.argv[1] == "apart" else contextlib.nullcontext()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
start = resident()
with apart:
    for step in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [libc.malloc(30 << 20) for _ in range(6)]
        for block in blocks:
            libc.memset(block, 1, 30 << 20)
        for block in blocks:
            libc.free(block)
faults, kept = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, resident() - start
give_back()
print(faults, kept, resident() - start)
"""


def after(how):
    """Page faults of the last of four steps, MiB that are resident after it, and after they were given back."""
    done = subprocess.run([sys.executable, "-c", WORK, how], capture_output=True, text=True, check=True)
    return map(int, done.stdout.split())


def test_what_a_step_frees_is_not_mapped_again_in_the_next():
    faults, *_ = after("as it comes")
    assert faults > 10_000
    faults, kept, _ = after("kept")
    assert faults < 100
    assert kept > 150


def test_what_is_kept_goes_back_between_two_runs():
    _, kept, left = after("kept")
    assert left < 40 < kept


def test_large_blocks_apart_are_gone_when_they_are_freed():
    faults, kept, _ = after("apart")
    assert faults > 10_000
    assert kept < 40


SHAPES = """
import ctypes
from mptune.model.memory import keep_few_kernels
keep_few_kernels()
import torch

class Blocks(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Blocks
weight = torch.ones(64, 64, dtype=torch.bfloat16)
used = []
for rows in range(1, 601):
    torch.nn.functional.linear(torch.ones(rows, 64, dtype=torch.bfloat16), weight)
    if rows in (200, 600):
        used.append(libc.mallinfo2().uordblks)
print((used[1] - used[0]) >> 10)
"""


CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")


def kilobytes_of_400_shapes(**environment):
    own = {name: value for name, value in os.environ.items() if name not in CACHES}
    done = subprocess.run(
        [sys.executable, "-c", SHAPES], capture_output=True, text=True, check=True, env={**own, **environment}
    )
    return int(done.stdout)


def test_kernels_of_shapes_that_have_passed_are_not_kept_but_where_the_user_says_so():
    assert kilobytes_of_400_shapes() < 1_000
    if not multiplies_bfloat16(torch.device("cpu")):
        pytest.skip("these products are not oneDNN's here")
    assert kilobytes_of_400_shapes(**dict.fromkeys(CACHES, "1024")) > 50_000
