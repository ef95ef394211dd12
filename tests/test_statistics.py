"""Intervals and paired differences, against numbers worked out by hand and by scipy."""

import math

import pytest
from scipy import stats

from mptune.statistics import interval, paired


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
