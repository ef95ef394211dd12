"""Intervals and paired differences, against numbers worked out by hand and by scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from mptune.comparison import intervals
from mptune.comparison.intervals import InTurn, differences_by_seed, interval, means_by_seed, paired_bootstrap


def test_the_interval_of_two_values_is_twelve_standard_errors_wide():
    two = interval([1.0, 3.0])  # standard error 1, t(0.975, 1) = 12.706
    assert two.mean == 2
    assert two.high - two.mean == pytest.approx(12.706, abs=1e-3)
    assert two.low == pytest.approx(2 - 12.706, abs=1e-3)


def test_the_interval_agrees_with_scipy():
    values = [71.0, 74.5, 69.2, 80.1, 72.2]
    low, high = stats.t.interval(0.95, len(values) - 1, loc=sum(values) / 5, scale=stats.sem(values))
    assert (interval(values).low, interval(values).high) == (pytest.approx(low), pytest.approx(high))


def test_one_value_has_no_interval_and_says_none():
    assert str(interval([70.04])) == "70.0"
    assert str(interval([70.0, 70.0])) == "70.0 ± 0.0"


def test_the_interval_of_differences_is_that_of_the_paired_t_test():
    ours, theirs = [71.0, 74.5, 69.2, 80.1], [70.5, 71.0, 69.9, 77.0]
    low, high = stats.ttest_rel(ours, theirs).confidence_interval()
    by_seed = differences_by_seed(dict(enumerate(ours)), dict(enumerate(theirs)))
    difference = interval(list(by_seed.values()))
    assert (difference.low, difference.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))


def test_rows_that_all_differ_alike_leave_nothing_to_chance():
    drawn = paired_bootstrap([[1.0, 0.5, 0.75]], [[0.5, 0.0, 0.25]])
    assert (drawn.mean, drawn.low, drawn.high, drawn.count) == (0.5, 0.5, 0.5, 3)


def test_the_bootstrap_of_four_rows_ends_where_the_binomial_does():
    # The mean of four draws from 0, 0, 1, 1 is a Binomial(4, 1/2) / 4: 1/16 at either end, so both ends are reached.
    drawn = paired_bootstrap([[0, 0, 1, 1]], [[0, 0, 0, 0]])
    assert (drawn.mean, drawn.low, drawn.high) == (0.5, 0.0, 1.0)
    # Of ten rows each end holds 1/1024, and 0.1 and 0.9 ten times that: 2.5 % lies between 0.1 (1.1 %) and 0.2 (5.5 %).
    drawn = paired_bootstrap([[0, 1] * 5], [[0] * 10])
    assert (drawn.low, drawn.high) == (pytest.approx(0.2), pytest.approx(0.8))


def test_the_bootstrap_agrees_with_drawing_rows_one_by_one():
    generator = np.random.default_rng(3)
    ours, theirs = (generator.binomial(1, [0.7] * 80 + [0.4] * 40) for _ in range(2))
    ours = 0.5 * (ours + generator.binomial(1, 0.8, 120))
    drawn = paired_bootstrap([ours], [theirs])
    slow = stats.bootstrap((ours - theirs,), np.mean, n_resamples=10_000, method="percentile", rng=4)
    assert drawn.low == pytest.approx(slow.confidence_interval.low, abs=0.01)
    assert drawn.high == pytest.approx(slow.confidence_interval.high, abs=0.01)


def test_every_task_weighs_the_same_however_many_rows_it_has():
    drawn = paired_bootstrap([[1.0], [0.0] * 999], [[0.0], [0.0] * 999])
    assert (drawn.mean, drawn.low, drawn.high, drawn.count) == (0.5, 0.5, 0.5, 1000)


def test_rows_are_drawn_within_their_task_and_never_across():
    # Each task's rows all differ alike; only draws across tasks could make the interval wider than a point.
    drawn = paired_bootstrap([[1.0] * 5, [0.0] * 5], [[0.0] * 5, [1.0] * 5])
    assert (drawn.low, drawn.high) == (0.0, 0.0)


def test_pairing_takes_out_what_both_sides_share():
    hard = np.random.default_rng(0).binomial(1, 0.5, 200)
    ours = [*hard[:-4], 1, 1, 1, 1]
    theirs = [*hard[:-4], 0, 0, 0, 0]
    assert paired_bootstrap([ours], [theirs]).low > 0


def test_the_same_seed_draws_the_same_rows_and_blocks_do_not_show(monkeypatch):
    ours, theirs = [[math.sqrt(i) for i in range(10)]], [[0.5] * 10]
    first = paired_bootstrap(ours, theirs)
    assert first == paired_bootstrap(ours, theirs)
    assert first != paired_bootstrap(ours, theirs, seed=1)
    monkeypatch.setattr(intervals, "_BLOCK", 10 * 999)
    assert paired_bootstrap(ours, theirs) == first


@pytest.mark.parametrize(("mine", "other"), [([1.0, 0.0], [1.0]), ([], [])])
def test_rows_without_their_pair_are_refused(mine, other):
    with pytest.raises(ValueError, match=f"as many rows on both sides.* got {len(mine)} and {len(other)}"):
        paired_bootstrap([mine], [other])


def test_seeds_of_different_tasks_are_matched_and_a_single_run_goes_with_all():
    assert means_by_seed([{0: 1.0, 1: 2.0}, {1: 4.0, 2: 5.0}]) == {1: 3.0}
    assert means_by_seed([{0: 1.0, 1: 2.0}, InTurn({0: 4.0})]) == {0: 2.5, 1: 3.0}
    assert means_by_seed([InTurn({0: 1.0}), InTurn({0: 4.0})]) == {0: 2.5}
    assert means_by_seed([{0: 1.0}, {}]) == means_by_seed([]) == {}


def test_a_difference_by_seed_takes_the_runs_without_examples_in_turn():
    assert differences_by_seed({0: 5.0, 1: 7.0, 2: 9.0}, InTurn({3: 1.0, 4: 2.0})) == {0: 4.0, 1: 5.0, 2: 8.0}
    assert differences_by_seed(InTurn({0: 5.0}), InTurn({0: 1.0, 1: 2.0})) == {0: 4.0, 1: 3.0}
    assert differences_by_seed({0: 5.0, 1: 7.0}, InTurn({1: 2.0, 0: 1.0})) == {0: 4.0, 1: 5.0}  # in any order of lines
    assert differences_by_seed({0: 5.0}, {1: 1.0}) == differences_by_seed({0: 5.0}, InTurn()) == {}
