"""Which rows of a batch share a forward pass, so that little is padded. Pure; knows nothing of models or prompts."""

from collections.abc import Sequence

# One more pass of the embedded backbone, forward and back, costs what 140 tokens cost (docs/LOG.md, 2026-11-20:
# reading a batch in groups of like lengths).
PASS_COST = 140
# Tokens of a batch from which weights learn. What a longer one keeps for the way back would fill gigabytes: it is read
# in parts of so many, and each part once more on the way back (docs/LOG.md, 2026-11-27: memory of a comparison).
LONG_BATCH = 1_024


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


def at_most(rows: Sequence[int], costs: Sequence[int], most: int) -> list[list[int]]:
    """Return a group's rows in parts of at most so many tokens, padding included; a longer row stands alone."""
    each = max(1, most // max(costs[row] for row in rows))
    return [list(rows[first : first + each]) for first in range(0, len(rows), each)]
