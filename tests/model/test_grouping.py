"""What is made faster computes what it computed before."""

import itertools

import pytest

from mptune.model.grouping import at_most, like_lengths


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


def test_parts_hold_all_rows_of_a_group_and_no_more_tokens_than_asked():
    costs = [3, 9, 4, 8, 2]
    parts = at_most([4, 0, 2, 3, 1], costs, 20)
    assert parts == [[4, 0], [2, 3], [1]]
    assert at_most([1, 3], costs, 5) == [[1], [3]]  # a row that is longer stands alone
