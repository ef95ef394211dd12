"""Intervals and paired differences, against numbers worked out by hand and by scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from mptune import statistics
from mptune.statistics import InTurn, differences_by_seed, interval, means_by_seed, paired, paired_bootstrap


def test_the_interval_of_two_values_is_twelve_standard_errors_wide():
    found = interval([1.0, 3.0])  # standard error 1, t(0.975, 1) = 12.706
    assert found.mean == 2
    assert found.high - found.mean == pytest.approx(12.706, abs=1e-3)
    assert found.low == pytest.approx(2 - 12.706, abs=1e-3)


def test_the_interval_agrees_with_scipy():
    values = [71.0, 74.5, 69.2, 80.1, 72.2]
    low, high = stats.t.interval(0.95, len(values) - 1, loc=sum(values) / 5, scale=stats.sem(values))
    assert (interval(values).low, interval(values).high) == (pytest.approx(low), pytest.approx(high))


def test_one_value_has_no_interval_and_says_none():
    assert str(interval([70.04])) == "70.0"
    assert str(interval([70.0, 70.0])) == "70.0 ± 0.0"


def test_pairs_share_their_noise_and_so_have_a_narrow_interval():
    noise = [0.0, 10.0, -10.0, 5.0, -5.0]
    ours, theirs = [51 + n for n in noise], [50 + n + 0.1 * (-1) ** i for i, n in enumerate(noise)]
    difference = paired(ours, theirs)
    assert difference.mean == pytest.approx(1 - 0.02)
    assert difference.low > 0
    assert difference.p < 0.01
    assert interval(ours).low < interval(theirs).mean < interval(ours).high


def test_the_paired_p_value_is_that_of_the_t_test():
    ours, theirs = [3.0, 4.0, 6.0, 5.0], [2.5, 4.5, 4.0, 4.0]
    assert paired(ours, theirs).p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)


def test_equal_pairs_differ_by_nothing_and_are_no_evidence():
    found = paired([1.0, 2.0], [1.0, 2.0])
    assert (found.mean, found.p) == (0, 1)
    assert not math.isnan(found.low)


def test_rows_that_all_differ_alike_leave_nothing_to_chance():
    found = paired_bootstrap([[1.0, 0.5, 0.75]], [[0.5, 0.0, 0.25]])
    assert (found.mean, found.low, found.high, found.count) == (0.5, 0.5, 0.5, 3)


def test_the_bootstrap_of_four_rows_ends_where_the_binomial_does():
    # The mean of four draws from 0, 0, 1, 1 is a Binomial(4, 1/2) / 4: 1/16 at either end, so both ends are reached.
    found = paired_bootstrap([[0, 0, 1, 1]], [[0, 0, 0, 0]])
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)
    # Of ten rows each end holds 1/1024, and 0.1 and 0.9 ten times that: 2.5 % lies between 0.1 (1.1 %) and 0.2 (5.5 %).
    found = paired_bootstrap([[0, 1] * 5], [[0] * 10])
    assert (found.low, found.high) == (pytest.approx(0.2), pytest.approx(0.8))


def test_the_bootstrap_agrees_with_drawing_rows_one_by_one():
    generator = np.random.default_rng(3)
    ours, theirs = (generator.binomial(1, [0.7] * 80 + [0.4] * 40) for _ in range(2))
    ours = 0.5 * (ours + generator.binomial(1, 0.8, 120))
    found = paired_bootstrap([ours], [theirs])
    slow = stats.bootstrap((ours - theirs,), np.mean, n_resamples=10_000, method="percentile", rng=4)
    assert found.low == pytest.approx(slow.confidence_interval.low, abs=0.01)
    assert found.high == pytest.approx(slow.confidence_interval.high, abs=0.01)


def test_every_task_weighs_the_same_however_many_rows_it_has():
    found = paired_bootstrap([[1.0], [0.0] * 999], [[0.0], [0.0] * 999])
    assert (found.mean, found.low, found.high, found.count) == (0.5, 0.5, 0.5, 1000)


def test_rows_are_drawn_within_their_task_and_never_across():
    # Each task's rows all differ alike; only draws across tasks could make the interval wider than a point.
    found = paired_bootstrap([[1.0] * 5, [0.0] * 5], [[0.0] * 5, [1.0] * 5])
    assert (found.low, found.high) == (0.0, 0.0)


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
    monkeypatch.setattr(statistics, "_BLOCK", 10 * 999)
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
