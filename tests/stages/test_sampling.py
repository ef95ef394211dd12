"""Streams of batches: what they hold, how often, and that a seed decides all of it."""

import math
from collections import Counter
from itertools import islice, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mptune.stages.sampling import all_tasks, mixing_rates, shuffled_rows, single_task, stochastic_tasks

CAP = 2**18
sizes_of_tasks = st.lists(st.integers(1, 12), min_size=2, max_size=6)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def equal_rates(count: int) -> list[float]:
    return [1 / count] * count


def stream(kind: str, seed: int, batch_size: int = 8):
    """A stream of each kind over three tasks of 5, 9 and 20 rows."""
    sizes = [5, 9, 20]
    if kind == "single":
        return single_task(sizes[-1], batch_size, seeded(seed))
    if kind == "all":
        return all_tasks(sizes, batch_size, seeded(seed))
    return stochastic_tasks(sizes, mixing_rates(sizes, "proportional", CAP), batch_size, seeded(seed))


def shares_of(batch) -> list[int]:
    """Rows per task that is present, smallest first."""
    return sorted(Counter(task for task, _ in batch).values())


def assert_no_row_comes_again_before_all_came_once(batches, sizes):
    """Whatever the order within a batch: after each, no row of a task is two visits ahead of another."""
    visits = [[0] * size for size in sizes]
    for batch in batches:
        for task, row in batch:
            visits[task][row] += 1
        for rows in visits:
            assert max(rows) - min(rows) <= 1


# any stream


@pytest.mark.parametrize("kind", ["single", "all", "stochastic"])
def test_the_same_seed_gives_the_same_stream_and_another_seed_another(kind):
    first = list(islice(stream(kind, 3), 20))
    torch.manual_seed(99)  # the global state decides nothing
    assert list(islice(stream(kind, 3), 20)) == first
    assert list(islice(stream(kind, 4), 20)) != first


@pytest.mark.parametrize("kind", ["single", "all", "stochastic"])
def test_skipping_batches_is_the_same_as_having_taken_them(kind):
    running = stream(kind, 3)
    list(islice(running, 7))
    assert list(islice(running, 10)) == list(islice(stream(kind, 3), 7, 17))


@pytest.mark.parametrize("kind", ["single", "all", "stochastic"])
def test_a_stream_leaves_the_global_random_state_alone(kind):
    before = torch.get_rng_state()
    list(islice(stream(kind, 3), 5))
    assert torch.equal(torch.get_rng_state(), before)


def test_rows_come_in_another_order_every_time_round():
    rows = list(islice(shuffled_rows(20, seeded()), 60))
    rounds = [rows[:20], rows[20:40], rows[40:]]
    assert all(sorted(r) == list(range(20)) for r in rounds)
    assert rounds[0] != rounds[1] != rounds[2]
    assert rounds[0] != list(range(20))


# one task


@given(size=st.integers(1, 15), batch_size=st.integers(1, 20), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_batches_of_one_task_are_full_or_the_whole_task(size, batch_size, seed):
    batches = list(islice(single_task(size, batch_size, seeded(seed)), 12))
    assert {len(batch) for batch in batches} == {min(size, batch_size)}
    assert {task for batch in batches for task, _ in batch} == {0}
    assert_no_row_comes_again_before_all_came_once(batches, [size])


def test_a_task_smaller_than_the_batch_gives_every_row_once_per_batch():
    for batch in islice(single_task(3, 8, seeded()), 5):
        assert sorted(batch) == [(0, 0), (0, 1), (0, 2)]


# all tasks


@given(sizes=sizes_of_tasks, batch_size=st.integers(1, 15), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_all_tasks_have_equal_shares_of_every_batch_and_of_the_whole_stream(sizes, batch_size, seed):
    batches = list(islice(all_tasks(sizes, batch_size, seeded(seed)), 3 * len(sizes)))
    for batch in batches:
        counts = Counter(task for task, _ in batch)
        assert len(batch) == batch_size
        assert max(counts.values()) - min(counts.get(t, 0) for t in range(len(sizes))) <= 1
    total = Counter(task for batch in batches for task, _ in batch)
    assert total == dict.fromkeys(range(len(sizes)), 3 * batch_size)
    assert_no_row_comes_again_before_all_came_once(batches, sizes)


# stochastic tasks


@given(sizes=sizes_of_tasks, batch_size=st.integers(1, 15), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_a_stochastic_batch_is_full_of_real_rows_and_no_row_comes_too_early(sizes, batch_size, seed):
    rates = mixing_rates(sizes, "proportional", CAP)
    batches = list(islice(stochastic_tasks(sizes, rates, batch_size, seeded(seed)), 25))
    assert {len(batch) for batch in batches} == {batch_size}
    assert_no_row_comes_again_before_all_came_once(batches, sizes)


def test_the_number_of_drawn_tasks_is_uniform_from_two_to_all_of_them():
    # In batches of 60 the shares of K draws are multiples of 60 / K, and their greatest common divisor tells K apart
    # where the draws are not all of the same task.
    batches = list(islice(stochastic_tasks([99] * 6, equal_rates(6), 60, seeded()), 2_000))
    divisors = Counter(math.gcd(*shares_of(batch)) for batch in batches)
    assert set(divisors) <= {60, 30, 20, 15, 12, 10}
    assert divisors[12] / 2_000 == pytest.approx(1 / 5, abs=0.03)  # K = 5; one draw in 1,296 is of a single task
    assert divisors[10] / 2_000 == pytest.approx(1 / 5, abs=0.04)  # K = 6; one in 25 or so has another divisor
    assert 1 / 5 * 5 / 6 - 0.03 < divisors[30] / 2_000 < 1 / 5  # K = 2 of different tasks; a few of K = 4
    assert divisors[60] / 2_000 < 0.07  # K = 1 never happens; two draws in 36 agree


def test_two_source_tasks_are_always_both_drawn():
    batches = islice(stochastic_tasks([9, 9], [0.5, 0.5], 10, seeded()), 200)
    assert {tuple(shares_of(batch)) for batch in batches} == {(5, 5), (10,)}


def test_the_remainder_of_a_batch_goes_to_one_of_the_draws_and_not_always_to_the_same_task():
    greatest = set()
    for batch in islice(stochastic_tasks([99] * 4, equal_rates(4), 11, seeded()), 1_000):
        if len(shares := shares_of(batch)) == 4:
            assert shares == [2, 2, 2, 5]
            greatest.add(Counter(task for task, _ in batch).most_common(1)[0][0])
    assert greatest == {0, 1, 2, 3}


@pytest.mark.parametrize(("batch_size", "of_one_task"), [(1, 1), (2, 1 / 6), (3, 1 / 5 / 6 + 4 / 5 / 36)])
def test_a_batch_smaller_than_the_number_of_draws_has_one_row_of_each(batch_size, of_one_task):
    batches = list(islice(stochastic_tasks([50] * 6, equal_rates(6), batch_size, seeded()), 300))
    assert {len(batch) for batch in batches} == {batch_size}
    assert {task for batch in batches for task, _ in batch} == set(range(6))
    assert sum(len(shares_of(batch)) == 1 for batch in batches) / 300 == pytest.approx(of_one_task, abs=0.06)


def test_tasks_are_drawn_by_their_rates():
    rates = [0.6, 0.3, 0.1]
    batches = islice(stochastic_tasks([99] * 3, rates, 12, seeded()), 3_000)
    counts = Counter(task for batch in batches for task, _ in batch)
    for task, rate in enumerate(rates):
        assert counts[task] / 36_000 == pytest.approx(rate, abs=0.02)


def test_the_tasks_of_a_stochastic_batch_stand_mixed():
    batches = list(islice(stochastic_tasks([99] * 2, equal_rates(2), 10, seeded()), 50))
    changes = [sum(a != b for (a, _), (b, _) in pairwise(batch)) for batch in batches]
    assert max(changes) > 1


# mixing


def test_proportional_rates_are_those_of_the_capped_sizes():
    # Raffel et al. cap at 2^18 = 262,144, which MNLI and QQP exceed: both are drawn alike.
    mnli, qqp, qnli, sst2, squad, record = 392_702, 362_846, 103_743, 66_349, 86_599, 99_730
    rates = mixing_rates([mnli, qqp, qnli, sst2, squad, record], "proportional", CAP)
    total = 2 * 262_144 + qnli + sst2 + squad + record
    assert total == 880_709
    wanted = [0.29765, 0.29765, 0.11780, 0.07534, 0.09833, 0.11324]
    assert rates == pytest.approx(wanted, abs=1e-5)
    assert rates[0] == rates[1]


def test_below_the_cap_rates_are_plainly_proportional():
    assert mixing_rates([10, 30, 60], "proportional", CAP) == pytest.approx([0.1, 0.3, 0.6])


def test_equal_rates_do_not_look_at_sizes():
    assert mixing_rates([1, 10, 1_000_000, 7], "equal", CAP) == [0.25] * 4


def test_logarithmic_rates_lie_between_equal_and_proportional_ones():
    # log(1 + n), so that a task of a single row is drawn too: log 10,001 to log 100,000,001 is one to two.
    assert mixing_rates([10**4, 10**8], "logarithmic", 1) == pytest.approx([1 / 3, 2 / 3], abs=1e-4)
    assert mixing_rates([1, 3], "logarithmic", CAP) == pytest.approx([1 / 3, 2 / 3])


@given(
    sizes=st.lists(st.integers(1, 10**7), min_size=1, max_size=8),
    mixing=st.sampled_from(["proportional", "equal", "logarithmic"]),
)
@settings(deadline=None, max_examples=60)
def test_rates_sum_to_one_are_positive_and_grow_with_the_size(sizes, mixing):
    rates = mixing_rates(sizes, mixing, CAP)
    assert sum(rates) == pytest.approx(1, abs=1e-5)
    assert min(rates) > 0
    by_size = [rate for _, rate in sorted(zip(sizes, rates, strict=True))]
    assert by_size == sorted(by_size)
