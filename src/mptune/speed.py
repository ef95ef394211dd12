"""What makes a frozen transformer faster on a processor without changing what it computes.

Each piece has its measurement in docs/LOG.md (2026-11-20, speed). Nothing here knows of prompts or tasks.
"""

import ctypes
import platform
from collections.abc import Sequence

# One more pass of the embedded backbone, forward and back, costs what 140 tokens cost (docs/LOG.md, 2026-11-20).
PASS_COST = 140

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of the GNU C library


def like_lengths(costs: Sequence[int], pass_cost: int) -> list[list[int]]:
    """Return the rows of a batch in groups whose separate forward passes cost least, padding included.

    Args:
        costs: tokens of each row without padding.
        pass_cost: what one more forward pass costs, in tokens.
    """
    order = sorted(range(len(costs)), key=lambda row: costs[row])
    # cheapest[n]: the least cost of the n shortest rows, and where its last group begins
    cheapest = [(0, 0)]
    for end in range(1, len(order) + 1):
        longest = costs[order[end - 1]]
        cheapest.append(min((cheapest[s][0] + pass_cost + (end - s) * longest, s) for s in range(end)))
    groups, end = [], len(order)
    while end:
        start = cheapest[end][1]
        groups.append(order[start:end])
        end = start
    return groups


def keep_pages() -> None:
    """Let the allocator keep what a step frees for the next one; for programs, once at their start.

    The GNU C library gives large blocks back to the system, which maps and clears new ones in the next step.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # blocks up to this size lie in the heap; more is refused
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # which never shrinks
