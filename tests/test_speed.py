"""What is made faster computes what it computed before."""

import itertools
import platform
import subprocess
import sys

import pytest

from mptune.speed import like_lengths


@pytest.mark.parametrize(
    ("costs", "pass_cost", "groups"),
    [
        ([5, 5, 5], 1, [[0, 1, 2]]),
        ([9, 2, 9, 2], 1, [[0, 2], [1, 3]]),
        ([9, 2, 9, 2], 14, [[1, 3, 0, 2]]),  # 22 + 2 passes, or 36 + one
        ([1, 50, 2, 49, 100], 10, [[4], [3, 1], [0, 2]]),
        ([7], 0, [[0]]),
    ],
)
def test_rows_are_grouped_where_padding_costs_more_than_another_pass(costs, pass_cost, groups):
    assert like_lengths(costs, pass_cost) == groups


@pytest.mark.parametrize("pass_cost", [0, 3, 20])
def test_no_other_grouping_costs_less(pass_cost):
    costs = [3, 17, 4, 30, 4, 9, 12]

    def price(groups):
        return sum(pass_cost + len(rows) * max(costs[row] for row in rows) for rows in groups)

    order = sorted(range(7), key=lambda row: costs[row])
    cuts = ([c for c in range(1, 7) if bits >> c & 1] for bits in range(0, 128, 2))
    every = ([order[a:b] for a, b in itertools.pairwise([0, *chosen, 7])] for chosen in cuts)
    assert price(like_lengths(costs, pass_cost)) == min(price(groups) for groups in every)


FAULTS = """
import ctypes, resource, sys
from mptune.speed import keep_pages
if sys.argv[1] == "kept":
    keep_pages()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
for step in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [libc.malloc(30 << 20) for _ in range(6)]
    for block in blocks:
        libc.memset(block, 1, 30 << 20)
    for block in blocks:
        libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library is told to keep pages")
def test_what_a_step_frees_is_not_mapped_again_in_the_next():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("given back", "kept")
    }
    assert faults["given back"] > 10_000
    assert faults["kept"] < 100
